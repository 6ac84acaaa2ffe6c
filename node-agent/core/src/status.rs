//! What a core says about itself: the source of every status field.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_planner::Decision;
use serde::{Deserialize, Serialize};

use crate::brakes::LossBrake;
use crate::clearing::Clear;
use crate::holding::{HoldWish, Looked};
use crate::message::{Assignment, Reason};
use crate::names::{BootId, GroupName, MonitorName, PathName, ResourceName, ServerName};
use crate::time::Instant;
use crate::view::{Tag, View};

/// One group as the member that holds it (or where it failed) reports it to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupReport {
    /// Assignment that it acts under.
    pub tag: Tag,
    /// Generation that runs, or the newest one that this server holds.
    pub generation: u64,
    /// The newest generation that this server holds durably (R16); 0: none.
    pub known: u64,
    /// Digest of what runs, see [`crate::config::GroupConfig::digest`].
    pub digest: u64,
    /// Where it is in its life.
    pub phase: GroupPhase,
    /// Per resource.
    pub resources: BTreeMap<ResourceName, ResourceReport>,
    /// Per monitor.
    pub monitors: BTreeMap<MonitorName, MonitorReport>,
    /// Why it failed here, if it did: the planner looks for another server.
    pub failure: Option<Failure>,
    /// Nobody acts on it here, and nothing that was begun before is under way.
    pub paused: bool,
    /// The Operation by which some of its resources were restarted here, once they run again.
    pub part_restarted: Option<String>,
    /// What a look found of a paused group that is to be resumed.
    pub looked: Option<Looked>,
    /// Steps of the last start, in order of their end, counted from its beginning.
    pub steps: Vec<Step>,
    /// One sentence.
    pub message: String,
}

/// A failure of a group on a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// What failed.
    pub part: Part,
    /// How often.
    pub count: u32,
    /// What was seen.
    pub message: String,
}

/// The part of a group that a failure is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// A resource.
    Resource(ResourceName),
    /// A monitor.
    Monitor(MonitorName),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Resource(name) => write!(f, "{name}"),
            Part::Monitor(name) => write!(f, "monitor {name}"),
        }
    }
}

/// Phase of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GroupPhase {
    /// Verified that nothing of it runs here.
    Offline,
    /// Being started, or being looked at after a restart of the process.
    Starting,
    /// All critical resources run.
    Online,
    /// Being stopped.
    Stopping,
    /// Recovery here has ended; what runs of it is to be stopped.
    Failed,
    /// A stop failed: it counts as running.
    Stuck,
    /// Coordinator only: a departed server may hold it.
    Unknown,
}

impl GroupPhase {
    /// The word for it in the API.
    pub fn name(self) -> &'static str {
        match self {
            GroupPhase::Offline => "Offline",
            GroupPhase::Starting => "Starting",
            GroupPhase::Online => "Online",
            GroupPhase::Stopping => "Stopping",
            GroupPhase::Failed => "Failed",
            GroupPhase::Stuck => "Stuck",
            GroupPhase::Unknown => "Unknown",
        }
    }
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResourceReport {
    /// Its phase; `Unknown` is never used here.
    pub phase: GroupPhase,
    /// Restarts in place since the group was started.
    pub restarts: u32,
    /// Last thing that was seen.
    pub message: String,
}

/// What monitors and commands say of a server itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ServerReport {
    /// Those of the sub-cluster.
    pub monitors: BTreeMap<MonitorName, MonitorReport>,
    /// Those of groups, with scope Everywhere.
    pub groups: BTreeMap<GroupName, BTreeMap<MonitorName, MonitorReport>>,
    /// Groups that are to leave it by a command, with the reason.
    pub leave: BTreeMap<GroupName, Leave>,
    /// It is to go down by a command.
    pub down: Option<Asked>,
    /// Groups whose failures are to be forgotten by a command.
    pub clear: BTreeMap<GroupName, Clear>,
    /// Groups whose holds are to change by a command.
    pub hold: BTreeMap<GroupName, HoldWish>,
}

/// What a command asks of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Asked {
    /// The command with its reason.
    pub why: String,
    /// Grows with every command of this server, over restarts of its process, too.
    pub number: u64,
}

/// A group is to leave a server by a command, or has left it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Leave {
    /// The command.
    pub asked: Asked,
    /// It has left: no place to come back to by itself.
    pub left: bool,
}

/// One monitor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MonitorReport {
    /// What it says.
    pub phase: MonitorPhase,
    /// Failures in a row, counted up to the threshold.
    pub failures: u32,
    /// What is wrong, if anything.
    pub message: String,
}

/// What a monitor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MonitorPhase {
    /// The group is not Online here, or the server is no member.
    Inactive,
    /// Not enough is known yet, or the last check could not be carried out.
    Unknown,
    /// All is well.
    Passing,
    /// The threshold of failures was reached.
    Failing,
}

impl MonitorPhase {
    /// The word for it in the API.
    pub fn name(self) -> &'static str {
        match self {
            MonitorPhase::Inactive => "Inactive",
            MonitorPhase::Unknown => "Unknown",
            MonitorPhase::Passing => "Passing",
            MonitorPhase::Failing => "Failing",
        }
    }
}

/// A step of a time chart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// E.g. `start data`.
    pub step: String,
    /// When it began, from the beginning of the chart.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
}

/// Everything that a server knows, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Status {
    /// Its own state.
    pub member: MemberState,
    /// Why, in one sentence.
    pub sentence: String,
    /// The newest view.
    pub view: Option<View>,
    /// Phase of the sub-cluster as this server sees it.
    pub phase: ClusterPhase,
    /// It may run groups.
    pub leased: bool,
    /// Which grant the lease rests on last: `Servers`, `LockDisk`, `QuorumServer`, `Self`.
    pub lease_anchor: &'static str,
    /// Smallest time left until soft stop that was ever seen at a renewal.
    pub smallest_margin: Option<Duration>,
    /// Per peer.
    pub peers: BTreeMap<ServerName, PeerStatus>,
    /// The lock: reachable, and why not.
    pub lock: Option<Result<(), String>>,
    /// Why the specification that this server holds is not in force as a whole; none: it is, or nothing has formed.
    pub config_pending: Option<String>,
    /// Groups that this server holds.
    pub groups: BTreeMap<GroupName, Arc<GroupReport>>,
    /// Monitors of the sub-cluster, as they find this server.
    pub monitors: BTreeMap<MonitorName, MonitorReport>,
    /// Set on the coordinator once every member reported.
    pub coordinator: Option<CoordinatorStatus>,
    /// Transitions that it saw as coordinator, by group, newest first: of a server that coordinates nothing now, which may be
    /// the only one that knows of them.
    pub history: BTreeMap<GroupName, Vec<Transition>>,
    /// The newest resolution that this server took part in.
    pub last_resolution: Option<Resolution>,
    /// Highest tag seen.
    pub highest: Tag,
    /// Every configured server: whether it is a member, and if not, why.
    pub absences: BTreeMap<ServerName, Absence>,
    /// The newest orders to shut down that it took, each with whether it is none any more; the newest last.
    pub shut_downs: Vec<(crate::closing::ShutDownId, bool)>,
    /// Why a force-reinstate that was ordered of this server is refused.
    pub force_refused: Option<String>,
    /// The newest fence call of this server about each server that is departed.
    pub fences: BTreeMap<ServerName, FenceStatus>,
}

/// How a configured server stands to the view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Absence {
    /// It is a member.
    pub member: bool,
    /// The view keeps it out, or is about to.
    pub detached: Option<crate::view::Detachment>,
    /// It came back after a failure and waits for an operator (C20).
    pub barred: bool,
    /// An incarnation of it departed, and nothing proves yet that it holds nothing.
    pub unproven: bool,
    /// Something of it is heard.
    pub alive: bool,
    /// What it waits for, in words; empty for an ordinary member.
    pub message: String,
}

/// A call of fence devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FenceStatus {
    /// The boot that it is about.
    pub boot: BootId,
    /// How far it is.
    pub state: crate::frame::FenceState,
    /// Since when.
    pub since: Instant,
    /// The newest step ended with an error: `message` says which.
    pub problem: bool,
    /// What the devices said.
    pub message: String,
}

/// State of a server (api.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Wants to be a member.
    Joining,
    /// Member of the newest view.
    Active,
    /// Stays out.
    Detached,
    /// Leaves.
    Leaving,
    /// Of a peer: no LAN, but alive on disk or serial line.
    Partitioned,
    /// Of a peer: silent on all paths.
    Suspect,
    /// Of a peer: left out of the view.
    Lost,
    /// Nothing is known.
    Unknown,
}

/// Phase of the sub-cluster (api.md §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterPhase {
    /// Never formed.
    Unformed,
    /// Waiting for servers, or deciding the first view of this start.
    Forming,
    /// A view with a quorum.
    Running,
    /// The newest view's quorum is not connected.
    NoQuorum,
    /// Shut down as a whole.
    Stopped,
    /// All servers were down uncleanly; an operator has to say which one is right.
    AwaitingForceReinstate,
}

/// A peer as this server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerStatus {
    /// Its state.
    pub state: MemberState,
    /// Per path.
    pub paths: BTreeMap<PathName, PathStatus>,
}

/// One path to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathStatus {
    /// Frames arrive.
    pub receiving: bool,
    /// The peer says that ours arrive, too.
    pub two_way: bool,
    /// Since when the pair of flags is as it is.
    pub since: Instant,
    /// Half of the last round trip.
    pub latency: Option<Duration>,
    /// Longest silence seen since the path was last down.
    pub longest_gap: Duration,
    /// Frames expected and frames received in the last minute.
    pub loss: (u64, u64),
    /// Information exchange runs over it.
    pub carries_exchange: bool,
}

/// What only the coordinator knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CoordinatorStatus {
    /// Every known group.
    pub groups: BTreeMap<GroupName, PlacedGroup>,
    /// More losses than are acted on now.
    pub brake: Option<LossBrake>,
}

/// A group as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlacedGroup {
    /// Newest assignment.
    pub assignment: Option<Assignment>,
    /// Its phase over all servers.
    pub phase: GroupPhase,
    /// The member that holds it.
    pub server: Option<ServerName>,
    /// Its report.
    pub report: Option<Arc<GroupReport>>,
    /// Its monitors that run everywhere, over all servers.
    pub everywhere: BTreeMap<MonitorName, MonitorReport>,
    /// Failures per server.
    pub failures: BTreeMap<ServerName, Failure>,
    /// The planner's word.
    pub decision: Option<Decision>,
    /// Newest first.
    pub transitions: Vec<Transition>,
    /// What keeps it from running.
    pub holds: std::collections::BTreeSet<String>,
}

/// A finished or running change of place or phase, with its time chart (C8).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transition {
    /// Counts up.
    pub id: u64,
    /// Why.
    pub reason: Reason,
    /// From where.
    pub from: Option<ServerName>,
    /// To where.
    pub to: Option<ServerName>,
    /// `ServerLost`, `ServerLeft`, `ResourceFailed`, `Operation`, `Failback`, `Declared`.
    pub cause: &'static str,
    /// The evidence about `from`, if it was lost.
    pub evidence: Option<&'static str>,
    /// Tag of the assignment that began it.
    pub tag: Tag,
    /// Beginning, on this server's clock.
    pub began: Instant,
    /// How long it took as a whole; none while it lasts.
    pub took: Option<Duration>,
    /// The time chart.
    pub chart: Vec<Step>,
    /// One sentence.
    pub message: String,
}

/// How the newest loss of a server was resolved (C4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resolution {
    /// The view that came out.
    pub epoch: u64,
    /// The servers that it left out.
    pub lost: Vec<ServerName>,
    /// `PeerSilent` or `Partition`.
    pub cause: &'static str,
    /// Paths that were silent.
    pub paths: Vec<PathName>,
    /// `ServerLost` or `Partition`.
    pub verdict: &'static str,
    /// `LockDisk`, `QuorumServer` or `Majority`.
    pub arbiter: &'static str,
    /// Evidence, once there is one.
    pub evidence: Option<&'static str>,
    /// From the last frame to the suspicion.
    pub detection: Duration,
    /// From the suspicion to the view.
    pub resolution: Duration,
    /// From the view to the evidence.
    pub wait: Option<Duration>,
    /// When the view was adopted.
    pub at: Instant,
}
