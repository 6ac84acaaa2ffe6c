//! Server: one machine of a sub-cluster. The controller makes it from `servers[]`; its agent owns the status.

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Hold, ServerDeclaredState};
use super::failover_group_status::MonitorStatus;
use super::operation::OperationType;
use crate::{duration::Duration, schema};

/// Copied by the controller from the entry in `servers[]` of the sub-cluster; other edits are undone.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "Server",
    plural = "servers",
    namespaced,
    shortname = "hsrv",
    category = "holdfast",
    status = "ServerStatus",
    derive = "PartialEq",
    selectable = ".spec.subCluster",
    doc = "A server of a sub-cluster, named <sub-cluster>.<server>. The controller makes it; do not write it by hand.",
    printcolumn(name = "Sub-Cluster", type_ = "string", json_path = ".spec.subCluster"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.agent.version", priority = 1),
    printcolumn(name = "Watchdog", type_ = "string", json_path = ".status.guard.watchdog", priority = 1),
    printcolumn(name = "Reported", type_ = "date", json_path = ".status.reportTime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The sub-cluster.
    #[schemars(schema_with = "schema::object_name")]
    pub sub_cluster: String,
    /// Its name in the sub-cluster.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// Its number in the sub-cluster, 1..16.
    #[schemars(range(min = 1, max = 16))]
    pub id: u8,
    /// The building or room that it shares its fate with.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub site: String,
    /// Declared state.
    #[serde(default)]
    pub state: ServerDeclaredState,
}

choices! {
    /// What a server is to its sub-cluster.
    pub enum ServerState = Unknown {
        /// Asks to become a member.
        Joining,
        /// A working member.
        Active,
        /// Out of service, answers status queries.
        Detached,
        /// Hands its groups over and goes.
        Leaving,
        /// Silent on every LAN, alive on disk or serial line.
        Partitioned,
        /// Silent on all paths; a decision is under way.
        Suspect,
        /// No member any more, without having said so.
        Lost,
        /// Nobody reports it.
        Unknown,
    }
}

/// An order of an Operation to shut down, as its server carries it out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShutDownStatus {
    /// uid of the Operation.
    #[schemars(length(max = 64))]
    pub operation: String,
    /// The server has left and holds nothing, or was started anew since: the order is none any more.
    pub done: bool,
}

/// A command that was given on a server itself. The controller makes a finished Operation of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenCommand {
    /// Its number: milliseconds since 1970 when it was given, or more; each is greater than the one before.
    pub id: u64,
    /// What it is as an Operation.
    #[serde(rename = "type")]
    pub type_: OperationType,
    /// The group that it is about.
    #[schemars(length(max = 63))]
    pub group: String,
    /// The resource, of ClearFailures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub resource: Option<String>,
    /// The end, of Pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Although reality differed, of Resume.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_differences: bool,
    /// Why it was given; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// When it was given.
    pub given: Time,
    /// When it was carried out.
    pub done: Time,
    /// What the agent answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What a server's agent observes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the agent last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_time: Option<Time>,
    /// Lineage of the newest view that it has adopted: raised by every force-reinstate; epochs are compared within one. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<u32>,
    /// The epoch of the newest view that it has adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why an order of an operator to this server is refused; empty if none is.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub refused: String,
    /// The newest orders of Operations to shut down that it took.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["operation"]))]
    pub shut_downs: Vec<ShutDownStatus>,
    /// What it is to its sub-cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ServerState>,
    /// The present boot of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Its right to run groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    /// Every heartbeat path to every peer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path", "peer"]))]
    pub paths: Vec<PathStatus>,
    /// The keys of the heartbeat that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<HeartbeatKeys>,
    /// The shared disks as this server sees them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<DiskStatus>,
    /// The quorum server as this server sees it, if it is the sub-cluster's lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum_server: Option<QuorumServerStatus>,
    /// The fence devices of the other servers, as this server last saw them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["device", "server"]))]
    pub fence_devices: Vec<FenceDeviceStatus>,
    /// The process that stops everything when the agent cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardStatus>,
    /// What the machine is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentInfo>,
    /// What the machine has and what is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Groups that run here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
    /// The sub-cluster's monitors, as they find this server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub monitors: Vec<MonitorStatus>,
    /// The programs that scripts of groups and methods of data services run by their path, as they are on this server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub programs: Vec<ProgramStatus>,
    /// The resources of groups that can't be carried out on this server as they are declared: their OCF agent is not
    /// installed, or does not take their parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"]))]
    pub unusable_resources: Vec<UnusableResource>,
    /// Results of running Operations of type Exec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub exec: Vec<ExecResult>,
    /// Commands that were given on the server itself and are not recorded as Operations yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub commands: Vec<GivenCommand>,
    /// Up to this number the controller has made Operations of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands_recorded: Option<u64>,
    /// Holds in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub holds: Vec<Hold>,
    /// Conditions, by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A boot of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Boot {
    /// The kernel's boot id.
    #[schemars(length(max = 64))]
    pub id: String,
    /// When the machine booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Whether the boot before ended without a clean leave.
    pub unclean: bool,
}

choices! {
    /// What the right to run groups rests on.
    pub enum Anchor {
        /// More than half of the servers.
        Majority,
        /// The lock disk.
        LockDisk,
        /// The quorum server.
        QuorumServer,
    }
}

/// The lease of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Authority {
    /// Whether it is held now.
    pub held: bool,
    /// What the newest grant rested on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// The least time that was left before the soft stop, since the last full report.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub smallest_margin: Option<Duration>,
}

choices! {
    /// State of a heartbeat path to a peer.
    pub enum PathState = Down {
        /// Frames arrive in both directions.
        Up,
        /// Nothing arrives.
        Down,
        /// Frames arrive in one direction only.
        OneWay,
        /// The path cannot be used on this server.
        Error,
    }
}

/// A heartbeat path to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathStatus {
    /// Name of the path.
    #[schemars(length(max = 63))]
    pub path: String,
    /// Name of the peer.
    #[schemars(length(max = 63))]
    pub peer: String,
    /// Its state.
    #[serde(default)]
    pub state: PathState,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Half of the newest round trip, without the time that the peer kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub latency: Option<Duration>,
    /// Share of lost frames in percent, one decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub loss_percent: Option<String>,
    /// The longest time between two frames; what a safe timeout is found from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub longest_gap: Option<Duration>,
    /// Whether the exchange of larger messages uses this path now.
    #[serde(default)]
    pub carries_exchange: bool,
    /// What is wrong, if anything: why it cannot be used here, or why heartbeats that arrive on it are refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The keys of the heartbeat on a server, by their numbers in the Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatKeys {
    /// The key that it seals with: the highest that it and every server that it hears hold.
    pub sealing: u32,
    /// The keys whose frames it takes.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub held: Vec<u32>,
}

choices! {
    /// State of a shared disk on a server.
    pub enum DiskState = Error {
        /// Reads and writes work.
        Reachable,
        /// The disk answers with errors, or is missing.
        Error,
        /// The disk does not answer.
        Hung,
        /// The area on it belongs to another sub-cluster.
        Foreign,
    }
}

choices! {
    /// State of the quorum server for a server.
    pub enum QuorumServerState = Error {
        /// It answers, and the lock there is the sub-cluster's.
        Reachable,
        /// It does not answer in time, or refuses.
        Error,
        /// It answers, but the lock there is another one, or can't be trusted.
        Foreign,
    }
}

/// The quorum server as one server sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuorumServerStatus {
    /// The address that was asked last.
    #[schemars(length(max = 1024))]
    pub url: String,
    /// Its state.
    #[serde(default)]
    pub state: QuorumServerState,
    /// Median time of an access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub latency: Option<Duration>,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What came of a command of an Operation Exec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecResult {
    /// Uid of the Operation.
    #[schemars(length(max = 64))]
    pub id: String,
    /// Exit code; absent: it did not end by itself, or was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The first 8 KiB of what it wrote: standard output, then standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub output: String,
    /// What else is to be said, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A program on one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Its path.
    #[schemars(length(max = 4096))]
    pub path: String,
    /// Digest of its content; absent if it can't be run or compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A resource that can't be carried out on one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnusableResource {
    /// Its group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Its name in the group.
    #[schemars(length(max = 63))]
    pub resource: String,
    /// What is wrong, with the field, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A shared disk as one server sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Name of the disk in the sub-cluster.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its state.
    #[serde(default)]
    pub state: DiskState,
    /// Smoothed time of a read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub read_latency: Option<Duration>,
    /// What is wrong, if anything.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

choices! {
    /// Whether a fence device can be used.
    pub enum FenceDeviceState = Failed {
        /// Its parameters are right, and it answers.
        Working,
        /// It can't be used; the message says why.
        Failed,
    }
}

/// A fence device as one server sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceDeviceStatus {
    /// Name of the device in the sub-cluster.
    #[schemars(length(max = 63))]
    pub device: String,
    /// The server that it switches.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Whether it can be used.
    #[serde(default)]
    pub state: FenceDeviceState,
    /// How it sees the server, or what is wrong.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

choices! {
    /// State of the guard process.
    pub enum GuardState = Lost {
        /// Watches the deadline.
        Watching,
        /// Nothing is held, nothing to watch.
        Idle,
        /// The deadline passed; it stops everything.
        Stopping,
        /// It is gone.
        Lost,
    }
}

/// The guard of a server (C7).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GuardStatus {
    /// Its state.
    pub state: GuardState,
    /// The watchdog device that it holds; empty: none.
    #[schemars(length(max = 253))]
    pub watchdog: String,
    /// The watchdog's timeout as read back from the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_timeout: Option<Duration>,
    /// Whether it runs with real-time priority.
    pub real_time: bool,
    /// Whether its memory is locked.
    pub memory_locked: bool,
}

/// What a machine is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Platform {
    /// Whether it is a virtual machine.
    pub r#virtual: bool,
    /// Name and version of the distribution.
    #[schemars(length(max = 253))]
    pub os: String,
    /// Kernel release.
    #[schemars(length(max = 253))]
    pub kernel: String,
}

/// The agent of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentInfo {
    /// Its version.
    #[schemars(length(max = 63))]
    pub version: String,
    /// Optional parts of the schema that it carries out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub features: Vec<String>,
}

/// What a machine has and what is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub cpu: Option<Quantity>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub memory: Option<Quantity>,
    /// Processors that groups here require.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub used_cpu: Option<Quantity>,
    /// Memory that groups here require.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub used_memory: Option<Quantity>,
}
