//! SuperCluster: the top management unit, a bundle of sub-clusters with one master (rows C1, C26).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{GroupCounts, GuaranteeLevel, Hold},
    rules,
};
use crate::{duration::Duration, schema};

/// At most so many sub-clusters belong to one super-cluster (C1).
pub const MAX_SUB_CLUSTERS: usize = 128;

/// What a super-cluster shall be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "SuperCluster",
    plural = "superclusters",
    namespaced,
    shortname = "hsc",
    category = "holdfast",
    status = "SuperClusterStatus",
    derive = "PartialEq",
    doc = "A super-cluster: a bundle of at most 128 sub-clusters, managed from one of them, the master.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health"),
    printcolumn(name = "Sub-Clusters", type_ = "integer", json_path = ".status.subClusters.total"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers.total"),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".status.groups.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct SuperClusterSpec {
    /// The sub-cluster and group, in this namespace, that run API server, controller and store. Without it the
    /// condition MasterMissing is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<Master>,
    /// Namespaces whose sub-clusters may join; "*" means all. Default: only the super-cluster's own namespace. At most
    /// 128 sub-clusters are accepted, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_namespaces: Vec<String>,
    /// Guard rails for every sub-cluster. A sub-cluster outside them is not accepted.
    pub policy: Policy,
    /// Limits of what the controller starts by itself. They never limit a failover inside a sub-cluster.
    pub brakes: ControllerBrakes,
}

/// Where the control plane runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Name of the master sub-cluster.
    #[schemars(schema_with = "schema::object_name")]
    pub sub_cluster: String,
    /// Name of the group in it that runs the control plane.
    #[schemars(schema_with = "schema::object_name")]
    pub group: String,
}

/// Guard rails of a super-cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// The least guarantee that a sub-cluster must reach. Default UserSpace.
    pub minimum_guarantee: GuaranteeLevel,
    /// The least number of heartbeat paths. Default 2, 1..16.
    #[schemars(range(min = 1, max = 16))]
    pub minimum_paths: u8,
    /// The allowed range of heartbeat timeouts.
    pub timeout: TimeoutRange,
}

impl Default for Policy {
    fn default() -> Self {
        Self { minimum_guarantee: GuaranteeLevel::UserSpace, minimum_paths: 2, timeout: TimeoutRange::default() }
    }
}

/// A range of heartbeat timeouts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "duration(self.min) <= duration(self.max)",
    "min is longer than max; write a range such as {min: 300ms, max: 60s}",
)]))]
pub struct TimeoutRange {
    /// Shortest allowed timeout. Default 100ms.
    #[schemars(extend("x-kubernetes-validations" = rules::within("100ms", "300s")))]
    pub min: Duration,
    /// Longest allowed timeout. Default 300s.
    #[schemars(extend("x-kubernetes-validations" = rules::within("100ms", "300s")))]
    pub max: Duration,
}

impl Default for TimeoutRange {
    fn default() -> Self {
        Self { min: Duration::from_millis(100), max: "300s".parse().unwrap_or_else(|_| Duration::from_secs(300)) }
    }
}

/// How much the controller may disturb by itself at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ControllerBrakes {
    /// Largest share of all groups that may be in motion, in percent. Default 10, 1..100.
    #[schemars(range(min = 1, max = 100))]
    pub max_disrupted_percent: u8,
    /// Sub-clusters worked on at the same time. Default 4, from 1.
    #[schemars(range(min = 1, max = 128))]
    pub max_concurrent_sub_clusters: u16,
    /// Moves per minute over the whole super-cluster. Default 60, from 1.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_moves_per_minute: u32,
}

impl Default for ControllerBrakes {
    fn default() -> Self {
        Self { max_disrupted_percent: 10, max_concurrent_sub_clusters: 4, max_moves_per_minute: 60 }
    }
}

choices! {
    /// Health of everything below a super-cluster.
    pub enum Health = Unknown {
        /// Everything is as declared.
        Healthy,
        /// Service goes on, something needs a look.
        Degraded,
        /// Service is lost somewhere.
        Critical,
        /// Nobody reports.
        Unknown,
    }
}

/// What is observed of a super-cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SuperClusterStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Raised each time the store was restored from a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_incarnation: Option<u64>,
    /// Health of everything below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Sub-clusters by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_clusters: Option<SubClusterCounts>,
    /// Servers by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServerCounts>,
    /// Groups by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupCounts>,
    /// The server that runs the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_server: Option<ManagementServer>,
    /// Holds in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub holds: Vec<Hold>,
    /// What needs a human, worst first, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub attention: Vec<Attention>,
    /// Conditions, by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Numbers of sub-clusters by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubClusterCounts {
    /// All sub-clusters.
    pub total: u32,
    /// As declared.
    pub ready: u32,
    /// Working, with something lost.
    pub degraded: u32,
    /// Without quorum or unreported.
    pub down: u32,
    /// Not accepted.
    pub rejected: u32,
}

/// Numbers of servers by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerCounts {
    /// All servers.
    pub total: u32,
    /// Members that work.
    pub active: u32,
    /// Out of service.
    pub detached: u32,
    /// Lost.
    pub lost: u32,
}

/// The server that runs the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagementServer {
    /// Its sub-cluster.
    #[schemars(length(max = 253))]
    pub sub_cluster: String,
    /// Its name in the sub-cluster.
    #[schemars(length(max = 63))]
    pub server: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// One thing that needs a human.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Attention {
    /// Kind of the object.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The reason, a word.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What happened and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}
