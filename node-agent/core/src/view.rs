//! Views, ballots, tags, evidence: the words of the agreement.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{AcceptorId, BootId, ChainId, ClusterId, ServerName};
use crate::orders::Power;
use crate::settings::Settings;

/// Number of a view; 0 before the sub-cluster is formed.
pub type Epoch = u64;

/// A Paxos ballot: unique per proposer, ordered by round first. Round 0 is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts up.
    pub round: u32,
    /// `servers[].id` of the proposer, so that two proposers never have the same ballot.
    pub proposer: u8,
}

/// Order of everything a coordinator says: (lineage, epoch, revision), compared in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Tag {
    /// Raised by force-reinstate only.
    pub lineage: u32,
    /// Epoch of the view in which it was said.
    pub epoch: Epoch,
    /// Counts up inside the epoch, and never goes back over a change of coordinator.
    pub revision: u64,
}

/// Who takes part in a decision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Acceptor {
    /// A server of the view (or, for an even view without a lock, one departed server that keeps its vote).
    Server(ServerName),
    /// The cluster lock.
    Lock,
}

/// One member as the view names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// `servers[].id`: slot on the lock disk.
    pub id: u8,
    /// Its acceptor id.
    pub acceptor: AcceptorId,
    /// The incarnation that may act under this view.
    pub boot: BootId,
    /// Its times; those of the view count, not those of a configuration (protocol-why D15).
    pub timing: MemberTiming,
    /// Runs on a virtual machine: time alone proves nothing about it where data is shared (domain.md A5).
    pub is_virtual: bool,
}

/// What a member promised about its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberTiming {
    /// E: authority length after an acknowledged send.
    pub lease: Duration,
    /// E_soft: after so much of it groups are stopped gracefully.
    pub soft_stop: Duration,
    /// E_kill: after so much of it the guard kills.
    pub kill: Duration,
    /// W': 2W with a watchdog, or the guard's stall bound.
    pub reset: Duration,
    /// C: how long others wait after their last acknowledgement.
    pub takeover_wait: Duration,
    /// Whether a watchdog stands behind `reset`.
    pub watchdog: bool,
}

/// Proof that a server (one boot of it) no longer holds anything (R12).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Evidence {
    /// It said that everything is verified stopped.
    Clean,
    /// A new kernel boot of it was seen, authenticated.
    Rebooted,
    /// Its lease, reset and drain are over.
    Time,
    /// A power fencing device verified it off.
    Power,
    /// A reservation keeps it from its disks.
    Storage,
    /// A person said so.
    Operator {
        /// Who.
        by: String,
    },
}

impl Evidence {
    /// The word for it in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Evidence::Clean => "Clean",
            Evidence::Rebooted => "Rebooted",
            Evidence::Time => "Time",
            Evidence::Power => "Power",
            Evidence::Storage => "Storage",
            Evidence::Operator { .. } => "Operator",
        }
    }
}

/// A server that left the chain of views without having proven that it holds nothing, or with that proof.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Departed {
    /// It ran on a virtual machine.
    pub is_virtual: bool,
    /// The longest C of all views that it may act under.
    pub takeover_wait: Duration,
    /// The proof, once there is one.
    pub evidence: Option<Evidence>,
    /// An operator has its fence devices used: it was left out for that, and this boot is not let in again.
    pub power: Option<Power>,
}

/// Why a server stays out (R20). Both reasons can hold at once; it stays out as long as one does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Detachment {
    /// The specification says `state: Detached`.
    pub declared: bool,
    /// An operator ordered it, or a force-reinstate left the server out: who.
    pub ordered: Option<String>,
    /// A force-reinstate elsewhere left it out, and no view has admitted it since (R22).
    pub forced: bool,
    /// By that order its groups stop and are held, instead of moving to other servers.
    pub stop_groups: bool,
}

impl Detachment {
    /// Nothing keeps the server out any more.
    pub fn is_over(&self) -> bool {
        !self.declared && self.ordered.is_none()
    }
}

/// One link of the chain: who may run groups, and who decides about the next one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Identity of the sub-cluster.
    pub cluster: ClusterId,
    /// Raised by force-reinstate.
    pub lineage: u32,
    /// The chain of views that it is part of.
    pub chain: ChainId,
    /// Its number.
    pub epoch: Epoch,
    /// The servers that may run groups.
    pub members: BTreeMap<ServerName, Member>,
    /// Identities of the acceptors: members, plus at most one lock or departed server when their number is even.
    pub acceptors: BTreeMap<Acceptor, AcceptorId>,
    /// Everybody of `acceptors` has to agree (formation), instead of more than half.
    pub unanimous: bool,
    /// The sub-cluster was shut down as a whole.
    pub stopped: bool,
    /// The first view of a cluster start (formation or R18): groups with `startup: Manual` wait from here on.
    pub started: bool,
    /// The first view of a lineage, made by a force-reinstate: no group starts by itself (R22).
    pub forced: bool,
    /// Servers that stay out, whatever happens, until they are reinstated (R20). One that is still a member hands its groups
    /// over and is left out as soon as it holds nothing.
    pub detached: BTreeMap<ServerName, Detachment>,
    /// Servers that departed, by (name, boot). They stay until the same server is a member again.
    pub departed: BTreeMap<DepartedKey, Departed>,
    /// Generation of the sub-cluster's specification that is in force. While it is being replaced (R21), that of the
    /// one before.
    pub config_generation: u64,
    /// The settings that all act by under this view.
    pub settings: Settings,
}

/// Key of a departed server: one boot of it.
pub type DepartedKey = (ServerName, BootId);

impl View {
    /// How many acceptors decide (R6); at least one server is always among them because there is at most one lock.
    pub fn quorum(&self) -> usize {
        if self.unanimous { self.acceptors.len() } else { self.acceptors.len() / 2 + 1 }
    }

    /// (lineage, epoch): the order of knowledge.
    pub fn order(&self) -> (u32, Epoch) {
        (self.lineage, self.epoch)
    }

    /// The lowest-named member (R14).
    pub fn coordinator(&self) -> Option<&ServerName> {
        self.members.keys().next()
    }

    /// Whether `server` with `boot` may act under this view.
    pub fn admits(&self, server: &ServerName, boot: BootId) -> bool {
        self.members.get(server).is_some_and(|member| member.boot == boot)
    }
}
