//! Parameters of the operation types that have any.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{rules, sub_cluster::FenceAction};
use crate::{duration::Duration, schema};

/// Parameters of Move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoveParameters {
    /// Name of the server. Default: the best other one by the group's placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub to: Option<String>,
}

/// Parameters of Restart and ClearFailures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceParameters {
    /// Name of the resource. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub resource: Option<String>,
}

/// Parameters of Pause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseParameters {
    /// When the pause ends by itself. Default: only by Resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// Parameters of Resume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResumeParameters {
    /// Resume although reality differs from what was left. Default false.
    pub accept_differences: bool,
}

choices! {
    /// What becomes of the groups of a server that is detached.
    pub enum DetachGroups = Move {
        /// They move to other servers.
        Move,
        /// They stop.
        Stop,
    }
}

/// Parameters of Detach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DetachParameters {
    /// Move (default) or Stop.
    pub groups: DetachGroups,
}

/// Parameters of Fence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FenceParameters {
    /// PowerOff (default), Reboot or PowerOn.
    pub action: FenceAction,
}

/// Parameters of Shutdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ShutdownParameters {
    /// Whether the machines are switched off. Default true.
    pub power_off: bool,
    /// Of a super-cluster: names of sub-clusters in the order in which they stop, one after the other; the others follow, all at
    /// once, the master last. (The servers of one sub-cluster leave together, its groups stop in reverse `after`.) Default:
    /// empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub order: Vec<String>,
}

impl Default for ShutdownParameters {
    fn default() -> Self {
        Self { power_off: true, order: Vec::new() }
    }
}

/// Parameters of Upgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeParameters {
    /// Names of servers. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub servers: Vec<String>,
    /// Servers, of different sub-clusters, that may be out of service at once. Default 1.
    #[schemars(range(min = 1, max = 128))]
    pub max_concurrent: u16,
    /// Run on each server once it is out of service. Default: none; the operation waits for `proceed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub command: Vec<String>,
}

impl Default for UpgradeParameters {
    fn default() -> Self {
        Self { servers: Vec::new(), max_concurrent: 1, command: Vec::new() }
    }
}

/// Parameters of Drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DrillParameters {
    /// Whether it happens for real. Default false: only planned on the live state.
    pub live: bool,
    /// What is rehearsed. Default: the loss of every server, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub scenarios: Vec<Scenario>,
}

/// One thing to rehearse.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// Name of the scenario.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// What is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lose: Option<Losses>,
    /// Manifests that are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::manifests")]
    pub apply: Vec<Value>,
}

/// What is lost in a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Losses {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::label_set")]
    pub servers: Vec<String>,
    /// Sites.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub sites: Vec<String>,
    /// Heartbeat paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::label_set")]
    pub paths: Vec<String>,
    /// Shared disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::label_set")]
    pub disks: Vec<String>,
    /// The lock disk or quorum server.
    pub lock: bool,
    /// API server, controller and store.
    pub control_plane: bool,
}

/// Parameters of ResolveMirror.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolveMirrorParameters {
    /// Name of the mirror resource.
    #[schemars(schema_with = "schema::label")]
    pub resource: String,
    /// Name of the server whose data is dropped.
    #[schemars(schema_with = "schema::label")]
    pub discard: String,
}

/// Parameters of Exec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecParameters {
    /// The program and its arguments.
    #[schemars(schema_with = "schema::command")]
    pub command: Vec<String>,
    /// Names of servers. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub servers: Vec<String>,
    /// Longest time on one server. Default 30s.
    #[serde(default = "thirty_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "24h")))]
    pub timeout: Duration,
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
