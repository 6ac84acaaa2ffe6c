//! What is observed of a sub-cluster: the newest view, the guarantee, the timing that holds, members, groups.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{AcceptSpec, GroupCounts, GuaranteeLevel, Hold},
    operation::OperationType,
    rules,
    server::{Anchor, ServerState},
    sub_cluster::FenceAction,
};
use crate::{duration::Duration, schema};

choices! {
    /// Where a sub-cluster stands.
    pub enum SubClusterPhase = Unformed {
        /// Its agents have never met.
        Unformed,
        /// Its agents agree on a first or next view.
        Forming,
        /// A view with a quorum acts.
        Running,
        /// No quorum can be reached; nothing is started.
        NoQuorum,
        /// Stopped as declared.
        Stopped,
        /// Every server was down; an operator must declare one the base.
        AwaitingForceReinstate,
    }
}

/// What is observed of a sub-cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::newer_report()))]
pub struct SubClusterStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest Operation AcceptSpec on this object. The controller's; it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_spec: Option<AcceptSpec>,
    /// How many of these Operations the specification has seen by which the servers act; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceptances: Option<u32>,
    /// Made when the sub-cluster formed. Kept in ledgers and disk area; outlives this object.
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub cluster_id: Option<String>,
    /// Raised by every force-reinstate; epochs are compared within one. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<u32>,
    /// Number of the newest view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Counts the coordinator's changes within the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The configuration that all members hold; only grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_revision: Option<u64>,
    /// Digests of the parts of the accepted spec that can't change while the sub-cluster is formed, as `part=digest`
    /// separated by blanks. The controller's; it names the part that a later change touches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub accepted_digest: Option<String>,
    /// What running Operations ask of servers. The controller's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["operation", "server"]))]
    pub requests: Vec<ServerRequest>,
    /// Running Operations of type Exec, which the servers look at. The controller's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub exec: Vec<ExecRequest>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<SubClusterPhase>,
    /// The newest view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewStatus>,
    /// What stands behind "never active on two servers".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// Every time that holds, derived ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimingStatus>,
    /// The servers, as a tree view shows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub members: Vec<MemberStatus>,
    /// Groups by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupCounts>,
    /// Groups that run although their object is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub orphans: Vec<Orphan>,
    /// Holds in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub holds: Vec<Hold>,
    /// How the last suspicion was resolved (C4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_resolution: Option<Resolution>,
    /// Conditions, by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The newest view.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ViewStatus {
    /// The servers in it.
    #[schemars(schema_with = "schema::label_set")]
    pub members: Vec<String>,
    /// The member that assigns groups.
    #[schemars(length(max = 63))]
    pub coordinator: String,
    /// Who breaks a tie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arbiter: Option<Anchor>,
    /// Since when it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// What stands behind "never active on two servers".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guarantee {
    /// Full or UserSpace.
    pub level: GuaranteeLevel,
    /// What it rests on, a word.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub reason: String,
    /// What it rests on, in a sentence.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Every time that holds; `holdfast timing` shows the arithmetic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TimingStatus {
    /// Silence after which a server is suspect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection: Option<Duration>,
    /// Budget for getting the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<Duration>,
    /// How long a server may run groups after the last acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// When a server without acknowledgements begins to stop its groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_stop: Option<Duration>,
    /// The watchdog's timeout; absent without watchdog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Duration>,
    /// The storage's drain time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// From the last acknowledgement of a server to the start of its groups elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takeover_wait: Option<Duration>,
    /// The cluster's part of an outage: the longer of detection with lock, and takeover wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_part: Option<Duration>,
    /// The longest time between two frames measured on any path that was up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub longest_gap: Option<Duration>,
    /// The shortest timeout that the measured gaps allow (C23).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended_timeout: Option<Duration>,
}

/// A server as a tree view shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Name of the server.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What it is to the sub-cluster.
    #[serde(default)]
    pub state: ServerState,
    /// Number of groups that run on it.
    #[serde(default)]
    pub groups: u32,
    /// Paths to it that are up.
    #[serde(default)]
    pub paths_up: u32,
    /// Paths to it that are not.
    #[serde(default)]
    pub paths_down: u32,
    /// It is kept out of service, or about to leave: by an operator, by its declared state, or by a force-reinstate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub detached: bool,
    /// It was left out, and there is no evidence yet that what it held has ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unproven: bool,
    /// What its fence devices were used for last, while that concerns the view or an Operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<FencingStatus>,
    /// What it waits for, if it is no member.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// What an Operation asks of a server, as the controller hands it to the agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRequest {
    /// Name of the Operation.
    #[schemars(length(max = 253))]
    pub operation: String,
    /// Name of the server, as in `spec.servers`.
    #[schemars(length(max = 63))]
    pub server: String,
    /// What is asked for.
    #[serde(rename = "type")]
    pub type_: OperationType,
    /// Detach: the groups stop and are held, instead of moving.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop_groups: bool,
    /// Shutdown: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shut_down: Option<ShutDownRequest>,
    /// Fence: which boot, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceRequest>,
    /// Who asks.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub by: String,
    /// Lineage of the view that it is for; void under any other.
    pub lineage: u32,
    /// Epoch of the view that it is for; void under any other.
    pub epoch: u64,
}

/// What the fence devices of a server are to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceRequest {
    /// The kernel's boot id of the boot that is meant: another one of the same server is not hit.
    #[schemars(length(max = 64))]
    pub boot: String,
    /// What they do.
    pub action: FenceAction,
}

/// How far the use of fence devices on a server is, as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FencingStatus {
    /// The kernel's boot id of the boot that is meant.
    #[schemars(length(max = 64))]
    pub boot: String,
    /// How far it is.
    pub state: FencingState,
    /// The newest step ended with an error, which `message` tells.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed: bool,
    /// What the devices said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

choices! {
    /// How far the use of fence devices on a server is.
    pub enum FencingState = Firing {
        /// Devices are at work, or about to.
        Firing,
        /// It is verified off.
        Off,
        /// It was switched on by an Operation.
        On,
        /// No level did what it was to do.
        Failed,
    }
}

/// How a server is to shut down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShutDownRequest {
    /// uid of the Operation: a server carries it out once.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// All servers of the sub-cluster are asked to.
    pub together: bool,
    /// The machine is switched off.
    pub power_off: bool,
}

/// An Operation of type Exec that runs. What it runs stands in the Operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequest {
    /// Its name.
    #[schemars(length(max = 253))]
    pub operation: String,
    /// Its uid.
    #[schemars(length(max = 64), regex(pattern = "^[0-9a-fA-F-]+$"))]
    pub uid: String,
}

/// A group that runs although its object is gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// Name of the group.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Where it runs.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub server: String,
    /// What it has exclusively.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub claims: Vec<String>,
}

choices! {
    /// What a suspicion came from.
    pub enum ResolutionCause {
        /// A peer was silent on all paths.
        PeerSilent,
        /// A peer was silent on every LAN and alive elsewhere.
        Partition,
    }
}

choices! {
    /// What a suspicion ended in.
    pub enum Verdict {
        /// The peer was left out of the next view.
        ServerLost,
        /// The peer was heard again in time.
        PeerReturned,
        /// This side lost and stopped.
        SelfStopped,
        /// Nobody got a quorum.
        NoQuorum,
    }
}

choices! {
    /// Why a departed server's groups may be started.
    pub enum EvidenceKind {
        /// It stopped them itself and said so.
        Clean,
        /// It booted anew.
        Rebooted,
        /// Its power is off, verified.
        Power,
        /// The storage refuses its writes.
        Storage,
        /// The takeover wait has passed.
        Time,
        /// An operator confirmed it by name.
        Operator,
    }
}

/// How a suspicion was resolved (C4).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resolution {
    /// The epoch that it led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<ResolutionCause>,
    /// The paths that were silent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::label_list")]
    pub paths: Vec<String>,
    /// What it ended in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Who broke the tie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arbiter: Option<Anchor>,
    /// Why the groups could be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceKind>,
    /// From the last sign of life to the suspicion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub detection: Option<Duration>,
    /// From the suspicion to the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub resolution: Option<Duration>,
    /// From the decision to the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub wait: Option<Duration>,
    /// When the decision fell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}
