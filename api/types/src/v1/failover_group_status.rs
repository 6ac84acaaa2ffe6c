//! What is observed of a failover group: where it runs, why there, what failed, and the time charts of its transitions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{AcceptSpec, GroupState, Hold},
    rules,
    sub_cluster_status::EvidenceKind,
};
use crate::{duration::Duration, schema};

choices! {
    /// Where a group stands.
    pub enum GroupPhase = Unknown {
        /// It runs nowhere.
        Offline,
        /// Its resources are being started.
        Starting,
        /// It runs completely.
        Online,
        /// Its resources are being stopped.
        Stopping,
        /// It could not be started or kept running.
        Failed,
        /// A stop is not proven; it is started nowhere else.
        Stuck,
        /// A server that may run it does not report.
        Unknown,
    }
}

/// What is observed of a failover group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::newer_report()))]
pub struct FailoverGroupStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest Operation AcceptSpec on this object. The controller's; it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_spec: Option<AcceptSpec>,
    /// How many of these Operations the specification has seen by which the servers act; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceptances: Option<u32>,
    /// The generation of the spec that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// The sub-cluster's lasting id.
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub cluster_id: Option<String>,
    /// Lineage of the newest assignment: raised by every force-reinstate; epochs are compared within one. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<u32>,
    /// The epoch of the newest assignment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The revision of the newest assignment within the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<GroupPhase>,
    /// The server that it runs on; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub server: Option<String>,
    /// Since when it is in this phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What the controller wants; ignored unless the epoch is the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Failures that the controller wants forgotten, by an Operation ClearFailures; ignored unless the epoch is the current
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear_failures: Option<ClearFailures>,
    /// Who had failures forgotten last: the name of an Operation, or SERVER:NUMBER for a command on a server.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub failures_cleared_by: String,
    /// That the controller wants the group stopped and started where it runs, by an Operation Restart; ignored unless the
    /// epoch is the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<GroupRestart>,
    /// The Operation that had the group restarted last.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub restarted_by: String,
    /// That the controller wants the group paused or resumed, by an Operation; ignored unless the epoch is the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<GroupPause>,
    /// Who changed the holds of the group last: an Operation, or SERVER:NUMBER for a command on a server. Not of Start and
    /// Stop as an Operation, which are targets.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub held_by: String,
    /// Why a pause did not end when it was asked to: what the look at the group found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<PauseLook>,
    /// The resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub resources: Vec<ResourceStatus>,
    /// The monitors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub monitors: Vec<MonitorStatus>,
    /// What the group has exclusively, over all groups of the API: disk:…, mount:…, ip:….
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub claims: Vec<String>,
    /// Holds in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub holds: Vec<Hold>,
    /// Failures that still count, at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server", "resource"]))]
    pub failures: Vec<Failure>,
    /// Why it is where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Changes of the spec that are not in force yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub pending_changes: Vec<PendingChange>,
    /// The last 10 transitions, newest first (C8).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub transitions: Vec<Transition>,
    /// Conditions, by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What the controller wants of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// The server; empty: none.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Online or Offline.
    pub state: GroupState,
    /// The epoch that it was computed from.
    pub epoch: u64,
    /// The revision that it was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The Operation that asked for it; empty: none.
    #[schemars(length(max = 253))]
    pub operation: String,
}

/// A restart that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRestart {
    /// The Operation that asks for it.
    #[schemars(length(max = 253))]
    pub operation: String,
    /// The server that runs the group, and shall run it again.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Only this resource, with what requires it; empty: the whole group.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub resource: String,
    /// The epoch that it was computed from.
    pub epoch: u64,
    /// The revision that it was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// A pause that is to begin or to end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupPause {
    /// The Operation that asks for it.
    #[schemars(length(max = 253))]
    pub operation: String,
    /// It is to end.
    pub resume: bool,
    /// It ends although the group is not as it was left.
    pub accept_differences: bool,
    /// When it is to end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// The epoch that it was computed from.
    pub epoch: u64,
    /// The revision that it was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// What a look at a paused group found that is not as it was left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PauseLook {
    /// Who asked for the end of the pause.
    #[schemars(length(max = 253))]
    pub by: String,
    /// Each in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub differences: Vec<String>,
}

/// Failures that are to be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClearFailures {
    /// The Operation that asks for it.
    #[schemars(length(max = 253))]
    pub operation: String,
    /// Only of this resource; empty: of all, and of monitors.
    #[schemars(length(max = 63))]
    pub resource: String,
    /// Only on this server; empty: on all.
    #[schemars(length(max = 63))]
    pub server: String,
    /// The epoch that it was computed from.
    pub epoch: u64,
    /// The revision that it was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

choices! {
    /// Where a resource stands.
    pub enum ResourceState = Unknown {
        /// It does not run.
        Offline,
        /// It is being started.
        Starting,
        /// It runs.
        Online,
        /// It is being stopped.
        Stopping,
        /// It failed.
        Failed,
        /// Its stop is not proven.
        Stuck,
        /// Nobody reports it.
        Unknown,
    }
}

/// A resource of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceStatus {
    /// Name of the resource.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub state: ResourceState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Restarts in place that still count.
    #[serde(default)]
    pub restarts: u32,
    /// What is wrong, if anything.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

choices! {
    /// What a monitor says.
    pub enum MonitorState = Unknown {
        /// All is well.
        Passing,
        /// The threshold of failures was reached.
        Failing,
        /// It does not run now.
        Inactive,
        /// No result yet, or the last check could not be carried out.
        Unknown,
    }
}

/// A monitor of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitorStatus {
    /// Name of the monitor.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What it says.
    #[serde(default)]
    pub state: MonitorState,
    /// Failures in a row, counted up to the threshold.
    #[serde(default)]
    pub failures: u32,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Failures of a resource on a server that still count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Name of the server.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Name of the resource, or `monitor` and the name of a monitor.
    #[schemars(length(max = 71))]
    pub resource: String,
    /// How many.
    #[serde(default)]
    pub count: u32,
    /// When the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,
    /// What the last one was.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

choices! {
    /// Whether a server may run a group.
    pub enum CandidateVerdict {
        /// It may.
        Eligible,
        /// It may not; reasons say why.
        Excluded,
    }
}

choices! {
    /// Why a server was not chosen.
    pub enum ExclusionReason {
        /// It is detached.
        Detached,
        /// It is lost.
        Lost,
        /// The placement does not name it.
        NotInPolicy,
        /// The group failed there.
        Failed,
        /// It has too little free.
        NoCapacity,
        /// A group that must be kept apart runs there.
        SeparateFrom,
        /// A group that it must be together with is elsewhere, or may not run there.
        Together,
        /// It does not reach a disk of the group.
        DiskUnreachable,
        /// A lost server may still run the group.
        NoEvidence,
        /// Another server is preferred.
        LowerPreference,
    }
}

/// Why a group is where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// The chosen server; empty: none.
    #[schemars(length(max = 63))]
    pub server: String,
    /// The rule that decided, a word.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// The other servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub candidates: Vec<Candidate>,
}

/// A server that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Name of the server.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Whether it may run the group.
    pub verdict: CandidateVerdict,
    /// Why it was not chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub reasons: Vec<ExclusionReason>,
}

choices! {
    /// What taking a change would do.
    pub enum ChangeEffect {
        /// Nothing stops.
        Live,
        /// That resource, and what depends on it, restarts.
        RestartResource,
        /// The group restarts.
        RestartGroup,
    }
}

/// A change of the spec that is not in force yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingChange {
    /// The field.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// What taking it would do.
    pub effect: ChangeEffect,
}

choices! {
    /// Why a group changed.
    pub enum TransitionType {
        /// It was started.
        Start,
        /// It was stopped.
        Stop,
        /// It was moved by an operator or the controller.
        Move,
        /// Another server took it over.
        Failover,
        /// It went back to its primary.
        Failback,
        /// It was restarted by an operator.
        Restart,
        /// A failed resource was started again in place.
        Recovery,
    }
}

/// One change of a group with its time chart (C8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Counts the group's transitions.
    pub id: u64,
    /// Why it changed.
    #[serde(rename = "type")]
    pub type_: TransitionType,
    /// Where it ran; empty: nowhere.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub from: String,
    /// Where it runs; empty: nowhere.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub to: String,
    /// What started it, a word, for example ServerLost or ResourceFailed.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub cause: String,
    /// Why the old server was known to have stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceKind>,
    /// The epoch in which it happened.
    #[serde(default)]
    pub epoch: u64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The outage that was to be expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub predicted: Option<Duration>,
    /// The outage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub actual: Option<Duration>,
    /// What happened, in a sentence.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// What took how long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub chart: Vec<ChartStep>,
}

/// One step of a time chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChartStep {
    /// What was done: Detect, Resolve, Wait, "start <resource>", "stop <resource>".
    #[schemars(length(max = 253))]
    pub step: String,
    /// When it began, counted from the begin of the outage.
    #[schemars(schema_with = "schema::reported_duration")]
    pub at: Duration,
    /// How long it took.
    #[schemars(schema_with = "schema::reported_duration")]
    pub took: Duration,
}
