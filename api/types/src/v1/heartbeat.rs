//! The heartbeat of a sub-cluster: timeout, interval, and every path between its servers (rows C3, C4).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{common::zero, rules};
use crate::{duration::Duration, schema};

/// How servers find out that one of them is gone. `timeout` alone is always a consistent set: the rest is derived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::heartbeat()))]
pub struct Heartbeat {
    /// Silence on all paths for so long makes a server suspect. Default 3s, 100ms..300s. Shorter is faster and asks more
    /// of machine and network; status.timing.recommendedTimeout says what was measured.
    #[serde(default = "three_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("100ms", "300s")))]
    pub timeout: Duration,
    /// Time between two signs of life. Default: a tenth of `timeout`, at most 1s. 10ms..10s; at least three of them and
    /// `advanced.stall` fit into `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "10s")))]
    pub interval: Option<Duration>,
    /// Values behind `timeout` that are normally derived from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced: Option<AdvancedTiming>,
    /// Secret of this namespace with the keys that authenticate the heartbeat. Its data keys are numbers: the highest
    /// sends, all verify. Default <name of the sub-cluster>-heartbeat, made if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub key_secret: Option<String>,
    /// The paths, 1..16, all in use at once. Two servers that share only one cable are told apart from a dead one only by a
    /// second path, so give at least two of different kinds.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub paths: Vec<HeartbeatPath>,
}

fn three_seconds() -> Duration {
    Duration::from_secs(3)
}

/// Values behind `timeout`. Rules look only at given ones; derived ones stand in status.timing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvancedTiming {
    /// The scheduling stall of a busy server to tolerate. Default: a fifth of `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Duration>,
    /// How long a server may run groups after the last acknowledgement. Default: as long as the takeover wait then stays
    /// within `timeout`, if possible. At least four intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// The least time from the last acknowledgement to a start elsewhere. Default 0ms: computed from lease, watchdog and
    /// drain. A given value is a floor and is refused when it is below the computed one.
    #[serde(default = "zero")]
    pub takeover_wait: Duration,
}

impl Default for AdvancedTiming {
    fn default() -> Self {
        Self { stall: None, lease: None, takeover_wait: zero() }
    }
}

/// One path between the servers: a LAN, an area on a shared disk, or a serial line. Exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["lan", "disk", "serial"], "give exactly one of lan, disk, serial")))]
pub struct HeartbeatPath {
    /// Name of the path, unique in the sub-cluster.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// A network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<LanPath>,
    /// The area on a shared disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskPath>,
    /// A serial line between two servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialPath>,
}

choices! {
    /// What a LAN is for.
    pub enum LanRole {
        /// Dedicated to the cluster; also carries the exchange of larger messages.
        Interconnect,
        /// The clients' network; takes the exchange over when the interconnect fails.
        Public,
    }
}

/// A network between the servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LanPath {
    /// Interconnect or Public.
    pub role: LanRole,
    /// UDP port, 1..65535. Default 7788.
    #[serde(default = "heartbeat_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Network interface on every server. Default: the one that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interface")]
    pub interface: Option<String>,
    /// The address of every server on this network.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub endpoints: Vec<LanEndpoint>,
}

fn heartbeat_port() -> u16 {
    7788
}

/// The address of a server on a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LanEndpoint {
    /// Name of the server.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// IPv4 or IPv6 address, without prefix length.
    #[schemars(schema_with = "schema::address")]
    pub address: String,
}

/// The area on a shared disk as a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskPath {
    /// Name of a disk in `disks` that has an `area`.
    #[schemars(schema_with = "schema::label")]
    pub disk: String,
}

/// A serial line between two servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SerialPath {
    /// Speed in bit/s. Default 115200.
    #[serde(default = "baud_rate")]
    #[schemars(range(min = 1200, max = 4_000_000))]
    pub baud_rate: u32,
    /// The device on each of the two servers.
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub devices: Vec<SerialDevice>,
}

fn baud_rate() -> u32 {
    115_200
}

/// The serial device of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SerialDevice {
    /// Name of the server.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// The device, for example /dev/ttyS0.
    #[schemars(length(min = 6, max = 253), regex(pattern = "^/dev/"))]
    pub device: String,
}
