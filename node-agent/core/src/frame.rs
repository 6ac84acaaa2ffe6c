//! The heartbeat: what every server says on every path, every interval.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{AcceptorId, BootId, ChainId, ClusterId, GroupName, PathName, ServerName};
use crate::orders::Order;
use crate::view::{DepartedKey, Epoch, MemberTiming, Tag};

/// A heartbeat frame. The same frame goes to every peer on every path; the shell adds path, seal and check sum.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// The sub-cluster, if formed.
    pub cluster: Option<ClusterId>,
    /// Sender.
    pub from: ServerName,
    /// `servers[].id` of the sender.
    pub id: u8,
    /// Its acceptor id.
    pub acceptor: AcceptorId,
    /// Counts the boots of the machine; durable, orders incarnations.
    pub boot_counter: u64,
    /// The kernel's boot id.
    pub boot: BootId,
    /// The sender's CLOCK_BOOTTIME at the send, in ns: monotone over restarts of the process and the anchor that
    /// the echo brings back (protocol-why D26).
    pub sequence: u64,
    /// Lineage of the newest view that it adopted.
    pub lineage: u32,
    /// Epoch of the newest view that it adopted.
    pub epoch: Epoch,
    /// Chain of that view; 0 without one.
    pub chain: ChainId,
    /// What it heard of every peer.
    pub heard: BTreeMap<ServerName, Heard>,
    /// It may run groups now: member of the view with a lease.
    pub leased: bool,
    /// It can read and write the lock.
    pub lock_reachable: bool,
    /// Identity of the lock that it sees, if any.
    pub lock: Option<AcceptorId>,
    /// Identity of the lock that its specification wants instead, if it can use that one.
    pub lock_to_come: Option<AcceptorId>,
    /// What it wants or is.
    pub intent: Intent,
    /// Its times and platform, to be written into views.
    pub timing: MemberTiming,
    /// It runs on a virtual machine.
    pub is_virtual: bool,
    /// Generation of the sub-cluster's specification that it holds durably.
    pub config_generation: u64,
    /// Groups that it holds, with the tag of the assignment.
    pub held: BTreeMap<GroupName, Tag>,
    /// The generation of every group's specification that it holds durably; said by a server that is not a member and
    /// wants to be one (R19).
    pub specs: BTreeMap<GroupName, u64>,
    /// The newest assignment that it knows of, durably; said by such a server, too.
    pub table: Option<Tag>,
    /// It stays out until an operator or the return policy brings it back: its last end was unclean (C20).
    pub barred: bool,
    /// A stop failed on it and it asks the others to go on without it (`onStopFailure: Fence`).
    pub stop_failed: bool,
    /// Its calls of fence devices, by the boot that they are about.
    pub fences: BTreeMap<DepartedKey, FenceState>,
    /// What operators ordered through this server, for its present view.
    pub orders: std::collections::BTreeSet<Order>,
    /// The members of the view that it would propose now; empty if it is content. Equal sets are the non-binding
    /// pre-vote of R1.
    pub candidate: std::collections::BTreeSet<ServerName>,
    /// Of a coordinator: the server that is to hand its groups over and shut down.
    pub down: Option<ServerName>,
    /// Numbers of orders to shut down that it does not heed again.
    pub refused: std::collections::BTreeSet<crate::closing::ShutDownId>,
    /// Of a coordinator: the newest report that it has of every member, in this epoch.
    pub reports: BTreeMap<ServerName, u64>,
}

/// How far a call of fence devices is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FenceState {
    /// Nothing has begun: the others are to admit nobody against it first.
    Announced,
    /// The server is to be switched off.
    Firing,
    /// It is verified off; what follows (switching it on again) has not ended.
    Restoring,
    /// It was verified off, and nothing of the call is in flight.
    Off,
    /// No level could switch it off, and nothing of the call is in flight.
    Failed,
    /// It was switched on by order, and nothing of the call is in flight. Not told in heartbeats.
    On,
}

impl FenceState {
    /// The call may reach the server, now or in a moment.
    pub fn in_flight(self) -> bool {
        matches!(self, FenceState::Announced | FenceState::Firing | FenceState::Restoring)
    }

    /// The server was verified off.
    pub fn is_off(self) -> bool {
        matches!(self, FenceState::Restoring | FenceState::Off)
    }
}

/// What a server intends, as peers have to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Intent {
    /// Be a member, or become one.
    Join,
    /// Leave: its groups are to be stopped or moved, then a view without it.
    Leave,
    /// Stay out.
    Stay,
    /// Leave with all others, when nobody holds anything.
    Close,
}

/// What the sender heard of one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heard {
    /// Newest sequence and its age in µs when this frame was made, per path that is alive in this direction.
    pub paths: BTreeMap<PathName, (u64, u32)>,
    /// Echo (R7): newest sequence of a frame of the sender's own epoch and of the boot that the view names. 0 if it
    /// acknowledges nothing: it has accepted in this epoch, or has heard nothing.
    pub granted: u64,
}
