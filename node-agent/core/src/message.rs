//! Messages between servers over the information-exchange LAN. All may be lost, repeated, delayed and reordered; the
//! sender repeats what it still needs an answer to, and every receiver is idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_planner::Amount;
use serde::{Deserialize, Serialize};

use crate::clearing::Cleared;
use crate::holding::Paused;
use crate::names::{BootId, GroupName, ServerName};
use crate::restarting::PartRestart;
use crate::status::{GroupReport, ServerReport};
use crate::view::{Ballot, Epoch, Tag, View};

/// A message with its sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// Sender.
    pub from: ServerName,
    /// The sender's boot.
    pub boot: BootId,
    /// What it says.
    pub message: Message,
}

/// What servers say to each other beside heartbeats.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// R2, phase 1.
    Prepare {
        /// Lineage and epoch whose successor is to be decided.
        order: (u32, Epoch),
        /// The proposer's ballot.
        ballot: Ballot,
    },
    /// R2, answer.
    Promise {
        /// As asked.
        order: (u32, Epoch),
        /// As asked.
        ballot: Ballot,
        /// What it accepted before.
        accepted: Option<(Ballot, View)>,
    },
    /// R3, phase 2.
    Accept {
        /// As in phase 1.
        order: (u32, Epoch),
        /// As in phase 1.
        ballot: Ballot,
        /// The successor.
        value: View,
    },
    /// R3, answer.
    Accepted {
        /// As asked.
        order: (u32, Epoch),
        /// As asked.
        ballot: Ballot,
        /// Per member of the old view, how long ago it last acknowledged it (0 for itself, see R3).
        elapsed: BTreeMap<ServerName, Duration>,
    },
    /// A higher ballot was promised.
    Refused {
        /// As asked.
        order: (u32, Epoch),
        /// The ballot that was promised.
        promised: Ballot,
    },
    /// R6: the newest view. `elapsed`: the least over the deciding quorum, absent when told by somebody who does not
    /// know it.
    Learn {
        /// The decided view.
        view: View,
        /// Per departed server, time since the anchor, at the send.
        elapsed: BTreeMap<ServerName, Duration>,
    },
    /// R14: a member says what it runs, to the coordinator; repeated until its frames say that it has it.
    Report {
        /// The view that it is about.
        order: (u32, Epoch),
        /// Grows with every change, over restarts of the process, too.
        number: u64,
        /// Highest tag that it has seen.
        highest: Tag,
        /// What it has for groups.
        capacity: Option<Amount>,
        /// The newest assignment of every group that it knows of.
        table: BTreeMap<GroupName, Assignment>,
        /// The groups that it holds or that failed on it.
        groups: BTreeMap<GroupName, GroupReport>,
        /// What monitors say of the server itself.
        server: ServerReport,
    },
    /// R14: the coordinator's whole table; repeated until every member reports its highest tag.
    Assign {
        /// The view.
        order: (u32, Epoch),
        /// The assignments.
        table: BTreeMap<GroupName, Assignment>,
    },
    /// The coordinator does not grant what a command asks (`declined.rs`); repeated until the member takes the wish back.
    Declined {
        /// The view.
        order: (u32, Epoch),
        /// The group that was to leave the member; none: the member itself was to go down.
        group: Option<GroupName>,
        /// Number of the wish.
        number: u64,
        /// The reason, as the end of a sentence.
        why: String,
    },
}

/// Where a group is to run, as the coordinator of an epoch said it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// Order among all that was ever said.
    pub tag: Tag,
    /// The server, none: nowhere.
    pub server: Option<ServerName>,
    /// Generation of the group's specification to run.
    pub generation: u64,
    /// Why.
    pub reason: Reason,
    /// Where it ran before.
    pub previous: Option<ServerName>,
    /// Where it goes after a stop that is part of a move; the request outlives the target that asked for it.
    pub next: Option<ServerName>,
    /// Holds that keep it from running.
    pub holds: BTreeSet<String>,
    /// That it is paused: the hold Paused is among `holds` just then.
    pub paused: Option<Paused>,
    /// Who asked last for a change of its holds: an Operation, or `SERVER:NUMBER` for a command. Each is granted once.
    pub held_by: Option<String>,
    /// What was forgotten of its failures last.
    pub cleared: Option<Cleared>,
    /// The Operation by which it was restarted last, or is being restarted: each restarts it once.
    pub restarted: Option<String>,
    /// The Operation by which some of its resources were restarted last, where it runs.
    pub part_restarted: Option<PartRestart>,
    /// On whose behalf this was said: the name of an Operation, or `SERVER:NUMBER` for a command; for people (`behind.rs`).
    pub operation: Option<String>,
    /// How long before this was said the group was moved by itself, each time that may count (`brakes.rs`); oldest first.
    pub moves: Vec<Duration>,
}

/// The newest of these.
pub(crate) fn newest_in(table: &BTreeMap<GroupName, Assignment>) -> Tag {
    table.values().map(|assignment| assignment.tag).max().unwrap_or_default()
}

/// Why a group is started or stopped: what scripts are told (`HOLDFAST_REASON`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Normal start.
    Start,
    /// Its server was lost.
    Failover,
    /// Back to a preferred server.
    Failback,
    /// Asked for by an Operation.
    Move,
    /// After a failure of a resource.
    Recovery,
    /// To be stopped.
    Stop,
}

impl Reason {
    /// The word that scripts and the API see.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Start => "Start",
            Reason::Failover => "Failover",
            Reason::Failback => "Failback",
            Reason::Move => "Move",
            Reason::Recovery => "Recovery",
            Reason::Stop => "Stop",
        }
    }
}
