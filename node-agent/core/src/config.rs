//! What the core has to know of the specifications. The shell makes these from the accepted API objects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_planner::Relations;
use serde::{Deserialize, Serialize};

use crate::clearing::ClearRequest;
use crate::holding::HoldRequest;
use crate::names::{MonitorName, PathName, ResourceName, ServerName};
use crate::restarting::RestartRequest;
use crate::settings::LockPlace;
use crate::view::{Epoch, MemberTiming};

/// A specification that an operator accepted once more often than another one is newer, whatever the generations are: its
/// number is larger by this much. No object has so many generations.
pub const ACCEPTANCE: u64 = 1_000_000_000;

/// A number of a specification, for people.
pub fn shown(number: u64) -> String {
    match number / ACCEPTANCE {
        0 => number.to_string(),
        1 => format!("{} (accepted once after a restore)", number % ACCEPTANCE),
        count => format!("{} (accepted {count} times after restores)", number % ACCEPTANCE),
    }
}

/// The sub-cluster, as its specification has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// Number of the specification of the SubCluster that this is made from: its generation, plus [`ACCEPTANCE`] for each time
    /// that an operator accepted an older one.
    pub generation: u64,
    /// All declared servers with their ids (1..16).
    pub servers: BTreeMap<ServerName, u8>,
    /// Those of them with `state: Detached`.
    pub detached: BTreeSet<ServerName>,
    /// All heartbeat paths.
    pub paths: BTreeMap<PathName, PathKind>,
    /// Digest of the addresses or devices of each path.
    pub wires: BTreeMap<PathName, u32>,
    /// The cluster lock, if there is one.
    pub lock: Option<LockKind>,
    /// Digest of where the lock is; no meaning without one.
    pub lock_at: u64,
    /// H: heartbeat interval.
    pub interval: Duration,
    /// T: silence on all paths after which a peer is suspected.
    pub timeout: Duration,
    /// J: scheduling stall that is tolerated.
    pub stall: Duration,
    /// E.
    pub lease: Duration,
    /// E_soft.
    pub soft_stop: Duration,
    /// E_kill.
    pub kill: Duration,
    /// R: lock renewal interval.
    pub renew: Duration,
    /// T_io: one lock access.
    pub io_timeout: Duration,
    /// W'.
    pub reset: Duration,
    /// Whether a watchdog stands behind `reset`.
    pub watchdog: bool,
    /// D.
    pub drain: Duration,
    /// C.
    pub takeover_wait: Duration,
    /// `startup.gracePeriod`.
    pub grace: Duration,
    /// `returnPolicy: Automatic`.
    pub automatic_return: bool,
    /// `evidence.timeOnVirtualMachines: Allow`.
    pub time_on_virtual_machines: bool,
    /// `fencing`.
    pub fencing: Fencing,
    /// `state: Stopped`: all groups stop.
    pub stopped: bool,
    /// `brakes`.
    pub brakes: Brakes,
    /// Sites of the servers that have one.
    pub sites: BTreeMap<ServerName, String>,
    /// Monitors of every server.
    pub monitors: BTreeMap<MonitorName, MonitorConfig>,
}

impl Config {
    /// There is a cluster lock.
    pub fn has_lock(&self) -> bool {
        self.lock.is_some()
    }

    /// Which lock it is.
    pub fn lock_place(&self) -> Option<LockPlace> {
        self.lock.map(|kind| LockPlace { kind, place: self.lock_at })
    }

    /// What this server promises by it.
    pub fn timing(&self) -> MemberTiming {
        MemberTiming {
            lease: self.lease,
            soft_stop: self.soft_stop,
            kill: self.kill,
            reset: self.reset,
            takeover_wait: self.takeover_wait,
            watchdog: self.watchdog,
        }
    }
}

/// What is too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Brakes {
    /// So many losses within `losses_within` are acted on; servers of one site count once.
    pub max_losses: usize,
    /// See `max_losses`.
    pub losses_within: Duration,
    /// So many moves of a group by itself within `moves_within`.
    pub max_moves: usize,
    /// See `max_moves`.
    pub moves_within: Duration,
}

/// What the cluster lock is. Both are the same kind of acceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockKind {
    /// An area on a shared disk (R4).
    Disk,
    /// One object on an API server outside, changed by compare-and-swap (R5).
    QuorumServer,
}

impl LockKind {
    /// The word for it in the API.
    pub fn name(self) -> &'static str {
        match self {
            LockKind::Disk => "LockDisk",
            LockKind::QuorumServer => "QuorumServer",
        }
    }

    /// The words for it in sentences.
    pub fn noun(self) -> &'static str {
        match self {
            LockKind::Disk => "lock disk",
            LockKind::QuorumServer => "quorum server",
        }
    }
}

/// Power fencing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Fencing {
    /// How far a takeover depends on it.
    pub mode: FencingMode,
    /// Servers for which there is at least one level of devices.
    pub servers: BTreeSet<ServerName>,
}

impl Fencing {
    /// Devices are used by themselves for this server.
    pub fn covers(&self, server: &ServerName) -> bool {
        self.mode != FencingMode::Disabled && self.servers.contains(server)
    }
}

/// `fencing.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FencingMode {
    /// Not by itself.
    #[default]
    Disabled,
    /// First the devices; if every level fails, other evidence.
    BestEffort,
    /// Elapsed time is no evidence about shared data.
    Required,
}

/// Kind of a heartbeat path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PathKind {
    /// Carries information exchange first.
    Interconnect,
    /// Carries information exchange when no interconnect does.
    Public,
    /// The shared disk: heartbeat only.
    Disk,
    /// A serial line: heartbeat only.
    Serial,
}

impl PathKind {
    /// A LAN: carries messages; two servers belong into one view only if a LAN connects them both ways.
    pub fn is_lan(self) -> bool {
        matches!(self, PathKind::Interconnect | PathKind::Public)
    }

    /// Whether silence and sound on both mean the same: an interconnect and a public LAN differ only in what they carry.
    pub fn is_like(self, other: PathKind) -> bool {
        self == other || self.is_lan() && other.is_lan()
    }
}

/// A failover group as the core sees it: what its resources *do* is the shell's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupConfig {
    /// Generation of the object.
    pub generation: u64,
    /// `state: Online`, and not to be stopped because it is being deleted.
    pub online: bool,
    /// `startup: Auto`.
    pub auto_start: bool,
    /// Allowed servers, most preferred first.
    pub policy: Vec<ServerName>,
    /// 0..1000.
    pub priority: u16,
    /// Goes back by itself, and when.
    pub failback: Option<Failback>,
    /// What it requires of a server, and of other groups.
    pub relations: Relations,
    /// Resources by name.
    pub resources: BTreeMap<ResourceName, ResourceConfig>,
    /// Monitors by name that run where the group is Online.
    pub monitors: BTreeMap<MonitorName, MonitorConfig>,
    /// Monitors by name that run on every server that may run the group.
    pub everywhere: BTreeMap<MonitorName, MonitorConfig>,
    /// Holds data on a shared disk: time on a virtual machine is no evidence for it unless allowed.
    pub shared_data: bool,
    /// `change.onRestartNeeded: Restart`.
    pub restart_on_change: bool,
    /// Digest of everything whose change needs a restart.
    pub digest: u64,
    /// `noServerLeft: Stop`.
    pub stop_when_no_server_left: bool,
    /// `onStopFailure: Fence`: a stop that fails has the server left out, if it can be ended from outside.
    pub fence_on_stop_failure: bool,
    /// The controller's target (R15).
    pub target: Option<Target>,
    /// Failures that the controller wants forgotten.
    pub clear: Option<ClearRequest>,
    /// That the controller wants it restarted where it runs.
    pub restart: Option<RestartRequest>,
    /// That the controller wants it paused or resumed.
    pub hold: Option<HoldRequest>,
}

/// `placement.failback` other than Manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Failback {
    /// How long the server must have been back.
    pub delay: Duration,
    /// Only while its window is open; see [`crate::Input::FailbackWindows`].
    pub in_window: bool,
}

/// The controller's target for a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name of the Operation.
    pub by: String,
    /// Server named by an Operation.
    pub server: Option<ServerName>,
    /// Epoch and revision of the placement that it was computed from; on mismatch the target is dropped.
    pub computed_from: (Epoch, u64),
    /// Holds to place (`Stopped`) or to release, by the Operation.
    pub stop: Option<bool>,
}

/// `recovery` of a resource, or the group's where the resource says nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recovery {
    /// Restarts in place inside `window`.
    pub restarts: u32,
    /// See `restarts`.
    pub window: Duration,
    /// What comes after them.
    pub then: Then,
    /// Failovers by failure inside `failover_window`; beyond: stop acting (hold FailureLimit).
    pub max_failovers: u32,
    /// See `max_failovers`.
    pub failover_window: Duration,
    /// How long a failure on a server excludes it.
    pub decay: Duration,
}

/// `recovery.then`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    /// To the next server of the policy.
    Failover,
    /// Stop the group.
    Stop,
    /// To the next server of the policy, and the server shuts down.
    ServerDown,
    /// Say so and leave it.
    Report,
}

/// A resource as the core sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceConfig {
    /// Started only when these are; stopped before these are. Includes stages and file-system nesting.
    pub after: BTreeSet<ResourceName>,
    /// Those of `after` without which it can't go on: a restart of one of them restarts this one, too (explicit
    /// dependencies, file systems and volumes below it; not mere stages).
    pub requires: BTreeSet<ResourceName>,
    /// Switched on. One that is switched off is stopped while its group runs on; what requires it is restarted around it.
    pub enabled: bool,
    /// A failure of it fails the group.
    pub critical: bool,
    /// Time for a start.
    pub start_timeout: Duration,
    /// Time for a stop.
    pub stop_timeout: Duration,
    /// Time for a probe.
    pub probe_timeout: Duration,
    /// Its own checks by depth: 0 is the plain one, deeper ones look closer. Empty: none.
    pub checks: BTreeMap<u8, CheckConfig>,
    /// Failed checks of one depth in a row that count as a failure.
    pub monitor_threshold: u32,
    /// Restarts before its recovery is asked.
    pub in_place: Option<InPlace>,
    /// Its recovery.
    pub recovery: Recovery,
}

/// `process.restart`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InPlace {
    /// Restarts inside `window`.
    pub limit: u32,
    /// See `limit`.
    pub window: Duration,
    /// Wait before each of them.
    pub backoff: Duration,
}

/// One of a resource's own checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckConfig {
    /// From the end of one to the next; zero: it is never made.
    pub interval: Duration,
    /// Time for one.
    pub timeout: Duration,
}

/// A monitor of a group or of servers as the core sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MonitorConfig {
    /// From the end of one check to the next.
    pub interval: Duration,
    /// Time for one check.
    pub timeout: Duration,
    /// Failures in a row that count.
    pub threshold: u32,
    /// Successes in a row after which all is well again.
    pub success_threshold: u32,
    /// From the moment at which the group is Online, or the server is a member, to the first check.
    pub initial_delay: Duration,
    /// What follows when it fails.
    pub action: MonitorAction,
    /// Nothing follows while it fails on all servers at once.
    pub unless_all_fail: bool,
}

/// What follows when a monitor fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MonitorAction {
    /// The resource has failed: restarts and what comes after them as if it had said so itself.
    Restart(ResourceName),
    /// The group has failed here, at once. The limits of the group hold; `then` is what comes, `restarts` is not used.
    /// Where the monitor runs everywhere: the group does not run on a server on which it fails.
    Fail(Recovery),
    /// The same for all groups of the server, if there is a better one for them. The limits are those of the group, none
    /// for a monitor of servers.
    FailAll(Option<Recovery>),
    /// The same, and the server shuts down, if enough others are left.
    ServerDown(Option<Recovery>),
    /// It is said, and nothing is done.
    Report,
}

impl MonitorAction {
    /// While it fails, no group is to run on the server that has a better one.
    pub fn is_about_servers(&self) -> bool {
        matches!(self, MonitorAction::FailAll(_) | MonitorAction::ServerDown(_))
    }
}
