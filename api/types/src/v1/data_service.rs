//! DataService: a registered set of methods, tied to groups and switched on and off (rows U1–U3).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{ConfigMapKey, Hold, RunAs},
    rules,
};
use crate::{duration::Duration, schema};

/// What a data service is.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "DataService",
    plural = "dataservices",
    namespaced,
    shortname = "hds",
    category = "holdfast",
    status = "DataServiceStatus",
    derive = "PartialEq",
    doc = "A data service: a registered set of methods that groups use by name.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DataServiceSpec {
    /// Version of the methods, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// Enabled (default), or Disabled: stopped in every group, while the rest of the group runs on. An Operation Stop does the
    /// same without a change here, until one of type Start; the most restrictive of both counts. A change takes effect
    /// at once; one of the methods, when they are called next for a start.
    #[serde(default)]
    pub state: DataServiceState,
    /// Groups that may use it. Default: every group of the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::object_name_set")]
    pub groups: Vec<String>,
    /// Positional (default) or EnvironmentOnly.
    #[serde(default)]
    pub arguments: MethodArguments,
    /// Who the methods run as. Default root.
    #[serde(default)]
    pub run_as: RunAs,
    /// The methods, 1..10.
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub methods: Vec<Method>,
}

choices! {
    /// Whether a data service runs.
    pub enum DataServiceState = Enabled {
        /// It runs where its groups run.
        Enabled,
        /// It is stopped in every group.
        Disabled,
    }
}

choices! {
    /// What methods are called with.
    pub enum MethodArguments = Positional {
        /// Groups that this server hosts with it, its other groups, both as comma-separated lists, and the timeout in
        /// seconds; and the environment. At a stop the group that is stopped is among the others.
        Positional,
        /// Only the environment: HOLDFAST_HOSTED_GROUPS, HOLDFAST_OTHER_GROUPS, HOLDFAST_TIMEOUT say the same.
        EnvironmentOnly,
    }
}

choices! {
    /// A method of a data service (U1).
    pub enum MethodName {
        /// Starts the service before its addresses are up.
        Start = "start",
        /// Stops it after its addresses are down.
        Stop = "stop",
        /// Tidies up in an emergency, when its processes were killed and its addresses are gone. May never be called.
        Abort = "abort",
        /// Starts what needs the addresses.
        StartNet = "startNet",
        /// Stops what needs the addresses.
        StopNet = "stopNet",
        /// The same for what needs the addresses; before `abort`. May never be called.
        AbortNet = "abortNet",
        /// Prepares the fault monitor.
        FmInit = "fmInit",
        /// Starts the fault monitor.
        FmStart = "fmStart",
        /// Stops the fault monitor.
        FmStop = "fmStop",
        /// Asks the fault monitor; the check of the resource, never part of a start or stop. Exit code 0: all is well.
        FmCheck = "fmCheck",
    }
}

/// One method: exactly one of `path`, `inline`, `configMap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["path", "inline", "configMap"], "give exactly one of path, inline, configMap")))]
pub struct Method {
    /// Which one.
    pub name: MethodName,
    /// Absolute path of a file on every server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub path: Option<String>,
    /// The script itself, at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
    /// A text in a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// Further arguments, after the positional ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub args: Vec<String>,
    /// Longest time for one call, 1s..24h; what takes longer is killed and has failed. Default 60s.
    #[serde(default = "super::sub_cluster::sixty_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "24h")))]
    pub timeout: Duration,
}

/// What is observed of a data service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DataServiceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Groups that use it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub used_by: Vec<String>,
    /// Holds in force: Stopped, by an Operation. What is held is stopped in every group, whatever spec.state says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub holds: Vec<Hold>,
    /// Its methods on the servers of the namespace, as their agents found them within the last minute.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2048), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub servers: Vec<DataServiceServer>,
    /// Conditions, by type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The methods of a data service on a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataServiceServer {
    /// Name of the Server object.
    #[schemars(length(max = 253))]
    pub server: String,
    /// Whether every method is there and can be run.
    #[serde(default)]
    pub installed: bool,
    /// Digest of what all methods are: the content of their files, or their text, and their arguments. Absent if one is not
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
}
