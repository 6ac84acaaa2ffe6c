//! Parts that several kinds share: references, holds, who a program runs as, counts.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Duration, schema};

/// Names an object in this or another namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Namespace of the object. Default: the namespace of the object that refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub namespace: Option<String>,
}

/// The user and group that a program runs as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RunAs {
    /// Name or number of the user. Default: root.
    #[schemars(length(min = 1, max = 64))]
    pub user: String,
    /// Name or number of the group. Default: the user's own group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub group: Option<String>,
}

impl Default for RunAs {
    fn default() -> Self {
        Self { user: "root".to_string(), group: None }
    }
}

/// A text in a ConfigMap of the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the text in `data`.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// The lasting effect of an Operation or of a safety rule. Its truth is the ledger that the agents replicate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Name of the hold, unique in the object.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What it stops, for example Stopped, Paused, Detached, FailureLimit.
    #[serde(default, rename = "type")]
    #[schemars(length(max = 63))]
    pub type_: String,
    /// Who or what placed it.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub by: String,
    /// Since when it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it ends by itself. Absent: not before it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Why, in a sentence.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Numbers of groups by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupCounts {
    /// All groups.
    pub total: u32,
    /// Groups that run completely.
    pub online: u32,
    /// Groups that are stopped.
    pub offline: u32,
    /// Groups that could not be started or kept running.
    pub failed: u32,
    /// Groups that a hold keeps from their declared state.
    pub held: u32,
}

/// That the stored specification counts although servers acted on a newer one: the store was restored, and an Operation
/// AcceptSpec accepted what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AcceptSpec {
    /// The uid of the Operation.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// How often that was done to this object: a specification with more acceptances is newer than one with fewer, whatever
    /// the generations are.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub acceptances: u32,
}

/// Default of durations that mean "at once".
pub(crate) fn zero() -> Duration {
    Duration::from_millis(0)
}

choices! {
    /// Which guarantee stands behind "never active on two servers".
    pub enum GuaranteeLevel {
        /// Rests on the kernel and the guard process of a server still running.
        UserSpace,
        /// Rests on hardware: a watchdog, power or storage fencing, or a disk lock.
        Full,
    }
}

choices! {
    /// Declared state of a server.
    pub enum ServerDeclaredState = Active {
        /// Takes part.
        Active,
        /// Taken out of service: votes nowhere, runs nothing, still answers status queries.
        Detached,
    }
}

choices! {
    /// Whether a group shall run.
    pub enum GroupState = Online {
        /// It shall run on one server.
        Online,
        /// It shall run nowhere.
        Offline,
    }
}
