//! Where each failover group should run, and what to do next about it.
//!
//! Pure: the same input gives the same output, byte for byte; no IO, clock, random source or log. The coordinator of
//! a sub-cluster acts by it, the controller computes targets with it, and what-if questions are answered by it, so
//! that all three always say the same. It decides about *placement* only: whether it is safe to start what a lost
//! server held is the core's decision and comes in as [`Current::Unknown`].

mod board;
mod check;
mod decide;
mod predict;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use check::{Violation, check};
use decide::exclusions_alone;
pub use decide::{exclusions, plan};
pub use predict::{Does, Forecast, Interruption, Losses, Measured, Step, Times, forecast, forecast_restarts, outage};

/// Everything the planner knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Every configured server of the sub-cluster.
    pub servers: BTreeMap<String, ServerState>,
    /// What servers have for groups; one that is missing has no limit that anyone knows of.
    pub capacity: BTreeMap<String, Amount>,
    /// Every accepted failover group.
    pub groups: BTreeMap<String, Group>,
}

/// Processors and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Amount {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

impl Amount {
    /// Both together.
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn minus(self, other: Amount) -> Amount {
        Amount {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    fn fits(self, within: Amount) -> bool {
        self.cpu_milli <= within.cpu_milli && self.memory <= within.memory
    }
}

/// What a server may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServerState {
    /// A member of the newest view: may run groups.
    Member,
    /// Taken out by an operator or by the return policy.
    Detached,
    /// Not in the view: lost, joining or never seen.
    Lost,
}

/// One group: what is wanted and what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// `spec.state`.
    pub declared: Declared,
    /// Lasting effects that keep it from running (`Stopped`, `ManualStart` …); the most restrictive of these and
    /// `declared` wins.
    pub holds: BTreeSet<String>,
    /// Servers allowed to run it, most preferred first (`placement.servers`).
    pub policy: Vec<String>,
    /// 0..1000, larger first, when several groups compete.
    pub priority: u16,
    /// Servers to which it may go back by itself now, if one of them is the most preferred that it may run on.
    pub failback_to: BTreeSet<String>,
    /// What it requires of a server, and of other groups.
    pub relations: Relations,
    /// What is known of it now.
    pub current: Current,
    /// Servers where it failed too often, with the reason; not used until cleared.
    pub failed_on: BTreeMap<String, String>,
    /// A valid request by an Operation.
    pub request: Option<Request>,
    /// With no server left: stop it (true) or leave it as it is. Only a group that may be stopped makes room for others.
    pub stop_when_no_server_left: bool,
    /// It is paused, and its server stays: where it is, nobody acts on it. (On a server that leaves it is stopped.)
    pub frozen: bool,
}

impl Group {
    /// It is to run somewhere.
    fn is_wanted(&self) -> bool {
        self.declared == Declared::Online && self.holds.is_empty()
    }
}

/// What a group requires of a server, and of other groups. Groups that don't exist count only for `after`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Relations {
    /// What a server must have left. What runs is not stopped because more is required than there is.
    pub requires: Amount,
    /// Groups that must not (Required), or had better not (Preferred), be on the same server. It counts for both of
    /// them, whichever says it.
    pub separate_from: BTreeMap<String, Strength>,
    /// Groups that must (Required), or had better (Preferred), be on the same server while both run. It counts for both.
    pub together: BTreeMap<String, Strength>,
    /// Groups that must be Online for this one to start.
    pub after: BTreeMap<String, AfterScope>,
}

/// How strictly a relation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strength {
    /// Rather it stays Offline.
    Required,
    /// It decides between servers that are eligible, before the order of preference, and moves nothing that runs.
    Preferred,
}

/// Where another group must be Online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AfterScope {
    /// On any server.
    Any,
    /// On the server on which the group starts.
    SameServer,
}

/// `spec.state` of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Declared {
    /// Should run.
    Online,
    /// Should not run.
    Offline,
}

/// What an Operation asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The server to run on.
    pub server: String,
}

/// Where a group is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Current {
    /// Proven not to run anywhere.
    Offline,
    /// Held by a member of the view.
    On {
        /// The member.
        server: String,
        /// How far it is.
        phase: Phase,
    },
    /// A departed server may still run it; nothing may start it before evidence says that it does not.
    Unknown {
        /// The servers that may hold it.
        servers: BTreeSet<String>,
    },
    /// More than one member says that it holds it. Nothing may be done before an operator looked.
    Conflict {
        /// Those members.
        servers: BTreeSet<String>,
    },
}

/// Phase of a group on the server that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Resources are being started.
    Starting,
    /// All resources are started.
    Online,
    /// Resources are being stopped.
    Stopping,
    /// A resource failed and the group's recovery on this server has ended; it is to be stopped here.
    Failed,
    /// A stop is not proven; nobody may start it.
    Stuck,
}

/// What to do about one group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// The next step.
    pub action: Action,
    /// The server where it runs or is to run, if any.
    pub server: Option<String>,
    /// Which rule decided.
    pub rule: Rule,
    /// Every other configured server with the reasons why it was not chosen.
    pub candidates: Vec<Candidate>,
}

/// One step. A move is a stop, confirmed, then a start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Nothing to do: it is where and as it should be.
    Keep,
    /// Start it on `server`.
    Start {
        /// A member that holds nothing of the group.
        server: String,
    },
    /// Stop it on `server`; `then` names the server that will run it afterwards, if any.
    Stop {
        /// The member that holds it.
        server: String,
        /// Where it goes.
        then: Option<String>,
    },
    /// Something has to happen first; the rule says what.
    Wait,
}

/// Why a decision is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// Declared Offline.
    DeclaredOffline,
    /// A hold keeps it from running.
    Held,
    /// It runs where it may; nothing is gained by moving it.
    Stay,
    /// The most preferred server that may run it.
    Preference,
    /// An Operation named the server.
    Requested,
    /// Back to a more preferred server by the failback rule.
    Failback,
    /// It failed where it was.
    Recovery,
    /// Another group is the reason: it makes room for a more important one, or must be where the other is, or not there.
    Relation,
    /// No server may run it now.
    NoServerLeft,
    /// Waiting for a group that it comes after to start; or, before it is stopped, for one that comes after it to stop.
    WaitForGroup,
    /// Waiting for less important groups that leave its server.
    WaitForRoom,
    /// Waiting for evidence about a departed server.
    WaitForEvidence,
    /// Waiting for a step under way.
    InProgress,
    /// Its stop is not proven.
    StopUnproven,
    /// Two servers say that they hold it.
    Conflict,
}

/// A server that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub server: String,
    /// Whether it could have run the group.
    pub eligible: bool,
    /// Why not, or why it was not preferred: words of api.md `decision.candidates`.
    pub reasons: Vec<Reason>,
}

/// Why a candidate was not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Detached.
    Detached,
    /// Not in the view.
    Lost,
    /// Not in `placement.servers`.
    NotInPolicy,
    /// The group failed there.
    Failed,
    /// Other groups leave too little of its processors or memory.
    NoCapacity,
    /// A group from which it must be separate is there.
    SeparateFrom,
    /// A group with which it must be together is elsewhere, or may not run there.
    Together,
    /// It may still be running elsewhere.
    NoEvidence,
    /// Another server comes first.
    LowerPreference,
}

impl Reason {
    /// The word for it in api.md `decision.candidates`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Detached => "Detached",
            Self::Lost => "Lost",
            Self::NotInPolicy => "NotInPolicy",
            Self::Failed => "Failed",
            Self::NoCapacity => "NoCapacity",
            Self::SeparateFrom => "SeparateFrom",
            Self::Together => "Together",
            Self::NoEvidence => "NoEvidence",
            Self::LowerPreference => "LowerPreference",
        }
    }
}

impl Rule {
    /// The word for it in api.md `decision.rule`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeclaredOffline => "DeclaredOffline",
            Self::Held => "Held",
            Self::Stay => "Stay",
            Self::Preference => "Preference",
            Self::Requested => "Requested",
            Self::Failback => "Failback",
            Self::Recovery => "Recovery",
            Self::Relation => "Relation",
            Self::NoServerLeft => "NoServerLeft",
            Self::WaitForGroup => "WaitForGroup",
            Self::WaitForRoom => "WaitForRoom",
            Self::WaitForEvidence => "WaitForEvidence",
            Self::InProgress => "InProgress",
            Self::StopUnproven => "StopUnproven",
            Self::Conflict => "Conflict",
        }
    }
}

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// A decision per group.
    pub decisions: BTreeMap<String, Decision>,
    /// Every group once, in the order in which the steps are to be given out: larger `priority` first, equal ones by
    /// name. It says who goes first when all can't go at once.
    pub order: Vec<String>,
}
