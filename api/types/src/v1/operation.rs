//! Operation: a one-shot request, carried out step by step and kept as a record (rows C17–C22, D4). The parameters of the
//! types are in `operation_parameters.rs`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{operation_parameters::*, rules};
use crate::{duration::Duration, schema};

/// What is asked for. Nothing but `cancel` and `proceed` can be changed afterwards.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "Operation",
    plural = "operations",
    namespaced,
    shortname = "hop",
    category = "holdfast",
    status = "OperationStatus",
    derive = "PartialEq",
    selectable = ".spec.type",
    selectable = ".spec.target.name",
    selectable = ".status.phase",
    doc = "An operation: a one-shot request, for example Move, Stop or Start of a failover group.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.requestedBy", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::operation()))]
pub struct OperationSpec {
    /// What shall be done.
    #[serde(rename = "type")]
    pub type_: OperationType,
    /// To what.
    pub target: OperationTarget,
    /// Execute (default), or Plan: only fill status.plan.
    #[serde(default)]
    pub mode: OperationMode,
    /// Run only if the plan still has this digest. Default: any plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub plan_digest: Option<String>,
    /// Run only if all of these hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
    /// Who asks; must be the caller. Required for the dangerous types: ForceReinstate, ConfirmStopped, Fence, Shutdown,
    /// Takeover, AcceptSpec, ResolveMirror, and a live Drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub requested_by: Option<String>,
    /// Why. Required for the dangerous types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub reason: Option<String>,
    /// The target's name once more. Required for the dangerous types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub confirm: Option<String>,
    /// If it has not begun by then, it expires. Default: one hour after creation, with metadata.generateName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Longest time for the whole. Default 30m.
    #[serde(default = "thirty_minutes")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "168h")))]
    pub timeout: Duration,
    /// How long the finished object is kept. Default 720h.
    #[serde(default = "thirty_days")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "87600h")))]
    pub ttl_after_finished: Duration,
    /// Ends it between two steps. May only change from false to true.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [schema::rule("self || !oldSelf", "a cancellation can't be taken back")]))]
    pub cancel: bool,
    /// Counts up to answer the phase AwaitingOperator.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    #[schemars(extend("x-kubernetes-validations" = [schema::rule("self >= oldSelf", "proceed only counts up")]))]
    pub proceed: u32,
    /// Parameters of Move.
    #[serde(default, rename = "move", skip_serializing_if = "Option::is_none")]
    pub move_: Option<MoveParameters>,
    /// Parameters of Restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<ResourceParameters>,
    /// Parameters of ClearFailures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_failures: Option<ResourceParameters>,
    /// Parameters of Pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseParameters>,
    /// Parameters of Resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeParameters>,
    /// Parameters of Detach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detach: Option<DetachParameters>,
    /// Parameters of Fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceParameters>,
    /// Parameters of Shutdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<ShutdownParameters>,
    /// Parameters of Upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeParameters>,
    /// Parameters of Drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillParameters>,
    /// Parameters of ResolveMirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_mirror: Option<ResolveMirrorParameters>,
    /// Parameters of Exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecParameters>,
}

impl OperationSpec {
    /// A request with the defaults of everything but its type and target.
    pub fn new(type_: OperationType, target: OperationTarget) -> OperationSpec {
        OperationSpec {
            type_,
            target,
            mode: OperationMode::default(),
            plan_digest: None,
            preconditions: None,
            requested_by: None,
            reason: None,
            confirm: None,
            not_after: None,
            timeout: thirty_minutes(),
            ttl_after_finished: thirty_days(),
            cancel: false,
            proceed: 0,
            move_: None,
            restart: None,
            clear_failures: None,
            pause: None,
            resume: None,
            detach: None,
            fence: None,
            shutdown: None,
            upgrade: None,
            drill: None,
            resolve_mirror: None,
            exec: None,
        }
    }
}

fn thirty_minutes() -> Duration {
    Duration::from_secs(1800)
}

fn thirty_days() -> Duration {
    "720h".parse().unwrap_or_else(|_| Duration::from_secs(720 * 3600))
}

choices! {
    /// What an operation does.
    pub enum OperationType {
        /// Starts a group and releases its holds; or a data service in every group.
        Start,
        /// Stops a group and holds it; or a data service in every group.
        Stop,
        /// Stops and starts a group, or one resource of it.
        Restart,
        /// Forgets failures and releases the hold FailureLimit.
        ClearFailures,
        /// Moves a group to another server.
        Move,
        /// Monitors go on, nobody acts.
        Pause,
        /// Ends a pause.
        Resume,
        /// Takes a server out of service.
        Detach,
        /// Takes a server back into service.
        Reinstate,
        /// After all servers were down: this server is the base. Dangerous.
        ForceReinstate,
        /// The operator confirms that a server has stopped. Dangerous.
        ConfirmStopped,
        /// Uses the fence devices of a server. Dangerous.
        Fence,
        /// Stops groups and servers in order. Dangerous.
        Shutdown,
        /// Services one server after the other.
        Upgrade,
        /// Rehearses losses; live drills are dangerous.
        Drill,
        /// Takes a disaster ticket. Dangerous.
        Takeover,
        /// Gives a disaster ticket back.
        Release,
        /// Accepts a spec that is older than the one in force. Dangerous.
        AcceptSpec,
        /// Drops one side's data after a mirror split. Dangerous.
        ResolveMirror,
        /// Makes a new heartbeat key.
        RotateKey,
        /// Runs a command on every server.
        Exec,
    }
}

choices! {
    /// What an operation can be asked of.
    pub enum TargetKind = FailoverGroup {
        /// A super-cluster.
        SuperCluster,
        /// A sub-cluster.
        SubCluster,
        /// A server.
        Server,
        /// A failover group.
        FailoverGroup,
        /// A data service.
        DataService,
    }
}

/// What an operation is asked of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationTarget {
    /// Kind of the object.
    pub kind: TargetKind,
    /// Name of the object, in this namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

choices! {
    /// Whether an operation is carried out.
    pub enum OperationMode = Execute {
        /// It is carried out.
        Execute,
        /// It is only planned.
        Plan,
    }
}

/// What must hold for an operation to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// The target's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 36))]
    pub uid: Option<String>,
    /// The target's generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The epoch of the target's sub-cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

choices! {
    /// Where an operation stands.
    pub enum OperationPhase = Pending {
        /// It has not begun.
        Pending,
        /// Steps are being carried out.
        Running,
        /// It waits for `proceed`.
        AwaitingOperator,
        /// It is done.
        Succeeded,
        /// It could not be done.
        Failed,
        /// It was cancelled.
        Cancelled,
        /// A failover came first.
        Superseded,
        /// It had not begun in time.
        Expired,
    }
}

choices! {
    /// Where an operation was given.
    pub enum OperationOrigin {
        /// At the API.
        Api = "API",
        /// On a server, while the API was away.
        Local,
    }
}

/// What is observed of an operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<OperationPhase>,
    /// Where it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OperationOrigin>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<OperationPlan>,
    /// What was done so far.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<OperationStep>,
    /// Names of operations that this one made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub children: Vec<String>,
    /// Results of Exec (per server) and Drill (per scenario).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048), extend("x-kubernetes-list-type" = "atomic"))]
    pub outputs: Vec<OperationOutput>,
    /// Conditions, by type: Ready, Complete, Failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What an operation does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationPlan {
    /// Digest of the plan, for spec.planDigest.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Groups that are interrupted, and for how long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), extend("x-kubernetes-list-type" = "atomic"))]
    pub disruption: Vec<Disruption>,
    /// Servers that would be fenced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub fences: Vec<String>,
    /// The steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub actions: Vec<PlannedAction>,
    /// What to think of before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub warnings: Vec<String>,
}

/// A group that is interrupted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Name of the group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// For how long. Absent: until it is started again, or a part of it was never measured; warnings say which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub outage: Option<Duration>,
}

/// One step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedAction {
    /// What is done.
    #[schemars(length(max = 253))]
    pub step: String,
}

choices! {
    /// Where a step stands.
    pub enum StepState = Pending {
        /// It has not begun.
        Pending,
        /// It is being carried out.
        Running,
        /// It is done.
        Done,
        /// It could not be done.
        Failed,
        /// It was not needed.
        Skipped,
    }
}

/// One step of an operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationStep {
    /// What is done.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub state: StepState,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub took: Option<Duration>,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A result of Exec on a server, or of a scenario of a Drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationOutput {
    /// Exec: name of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub server: Option<String>,
    /// Exec: exit code of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Exec: the first 8 KiB of what the command wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub output: Option<String>,
    /// Drill: name of the scenario; without scenarios, of the server that is lost, SUBCLUSTER.SERVER.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub scenario: Option<String>,
    /// Drill: whether every group runs afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub survives: Option<bool>,
    /// Drill: the longest outage of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reported_duration")]
    pub outage: Option<Duration>,
    /// Drill: groups that no server can run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub groups_lost: Vec<String>,
    /// What happened, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
