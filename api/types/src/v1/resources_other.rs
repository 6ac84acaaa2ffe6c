//! Members of a resource for volumes, mirrors, exports, routed addresses, and agents of other makers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::{duration::Duration, schema};

choices! {
    /// The program that announces routes.
    pub enum Router {
        /// BIRD.
        Bird,
        /// FRRouting.
        Frr,
    }
}

/// An address outside the servers' subnet, followed by routing rather than ARP (C12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIp {
    /// IPv4 or IPv6 address without prefix length.
    #[schemars(schema_with = "schema::address")]
    pub address: String,
    /// Bird or Frr.
    pub router: Router,
    /// What has to announce it: of Bird the name of a protocol instance, of Frr ospf (IPv4 only) or bgp. Default: it is only
    /// asked whether the router uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub protocol: Option<String>,
    /// Metric of the kernel's route, with Bird only. Default: the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The router's control socket, of Frr the directory of its daemons' sockets. Default: where Debian puts it,
    /// /run/bird/bird.ctl or /run/frr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub socket: Option<String>,
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Systemd {
    /// Name of the unit, a service, as nginx.service. It must not be enabled at boot. A change restarts the group.
    #[schemars(length(min = 1, max = 253))]
    pub unit: String,
}

/// An OCF resource agent (U14), run as root, as one plain instance: it is never promoted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ocf {
    /// Its provider, a directory of /usr/lib/ocf/resource.d. Default heartbeat.
    #[serde(default = "heartbeat")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_+-][A-Za-z0-9._+-]*$"))]
    pub provider: String,
    /// Its name, for example apache. A change restarts the group.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_+-][A-Za-z0-9._+-]*$"))]
    pub type_: String,
    /// Its parameters, checked against its metadata on every server that may run the group (condition `UnusableResource`):
    /// `holdfast agents describe` lists them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::parameters")]
    pub parameters: BTreeMap<String, String>,
    /// Secrets of this namespace with further parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::object_name_set")]
    pub parameters_from: Vec<String>,
    /// Deeper checks beside the plain one of `monitor`, one at a time. Each depth counts its own failures in a row, up to
    /// `monitor.threshold`. A change restarts nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["depth"]))]
    pub depths: Vec<OcfDepth>,
}

fn heartbeat() -> String {
    "heartbeat".to_string()
}

/// A deeper check of an OCF agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OcfDepth {
    /// The agent's OCF_CHECK_LEVEL. What there is says its description; 0 is the plain check, whose times `monitor` has.
    #[schemars(range(min = 1, max = 100))]
    pub depth: u8,
    /// From the end of one check to the next. Default: the agent's for this depth, else that of the plain check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "24h")))]
    pub interval: Option<Duration>,
    /// Longest time for one check. Default: the agent's for this depth, else that of the plain check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "24h")))]
    pub timeout: Option<Duration>,
}

choices! {
    /// How a volume group is kept from being used twice.
    pub enum VolumeGroupExclusive = SystemID {
        /// By LVM's system id, which LVM on every other server respects. Each server needs one.
        SystemID,
        /// By a tag, which only Holdfast respects.
        Tag,
    }
}

/// An LVM volume group (U5), active on one server at a time, whatever its disks are called there. It is taken over only from
/// a server to which Holdfast gave it, and is not activated at boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeGroup {
    /// Its UUID, as `vgs -o vg_uuid` prints it. A change restarts the group.
    #[schemars(length(min = 32, max = 38))]
    pub uuid: String,
    /// Its name, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub name: Option<String>,
    /// SystemID (default) or Tag.
    #[serde(default)]
    pub exclusive: VolumeGroupExclusive,
    /// Name of the shared disk in the sub-cluster that it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub disk: Option<String>,
    /// Whether it may be used with disks missing; what lies on them gives errors. Default false.
    #[serde(default)]
    pub allow_partial: bool,
}

choices! {
    /// When a mirrored write counts as done.
    pub enum MirrorProtocol = C {
        /// When both sides have it.
        C,
        /// When this side has it.
        A,
    }
}

choices! {
    /// What happens when both sides of a mirror were written.
    pub enum AfterSplitBrain = Manual {
        /// An operator chooses.
        Manual,
        /// The side that was written later loses its changes.
        DiscardYounger,
    }
}

/// A mirror of local disks of two servers (C13).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorDisk {
    /// The device that appears, /dev/drbdN. A change restarts the group.
    #[schemars(length(max = 63), regex(pattern = "^/dev/drbd[0-9]+$"))]
    pub device: String,
    /// The local disk on each of the two servers.
    #[schemars(length(min = 2, max = 2), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub volumes: Vec<MirrorVolume>,
    /// The address of each of the two servers for the mirror's traffic.
    #[schemars(length(min = 2, max = 2), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub endpoints: Vec<MirrorEndpoint>,
    /// C (default) or A.
    #[serde(default)]
    pub protocol: MirrorProtocol,
    /// Most that a resynchronisation may use per second, for example 100M. Default: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub resync_rate: Option<String>,
    /// Manual (default) or DiscardYounger.
    #[serde(default)]
    pub after_split_brain: AfterSplitBrain,
    /// Whether only a side that is up to date may be used. Default true.
    #[serde(default = "super::resources::yes")]
    pub require_up_to_date: bool,
}

/// A local disk of a mirror.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorVolume {
    /// Name of the server.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// Stable name of the local disk.
    #[schemars(schema_with = "schema::stable_device")]
    pub backing: String,
    /// Stable name of the device for the mirror's own data. Default: on the local disk itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::stable_device")]
    pub metadata: Option<String>,
}

/// An address for a mirror's traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorEndpoint {
    /// Name of the server.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// IPv4 or IPv6 address.
    #[schemars(schema_with = "schema::address")]
    pub address: String,
    /// TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A directory exported by NFS (U7). The NFS server runs on every server, under the system's own supervision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NfsExport {
    /// The directory.
    #[schemars(schema_with = "schema::absolute_path")]
    pub path: String,
    /// Who may mount it, and how.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["network"]))]
    pub clients: Vec<NfsClient>,
    /// The export's id, a number or a UUID, the same on every server, so that clients keep their files open. No two exports of
    /// a sub-cluster have the same.
    #[schemars(length(min = 1, max = 36))]
    pub fsid: String,
    /// Directory, inside a file system of the group (not of type nfs), that says which clients have files open or locked, so
    /// that they keep them after a move or a takeover (NFS 4). It is made at the first start. Every server needs
    /// `holdfast nfs-clients` in the place of `nfsdcld`; see docs/operations.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub state_directory: Option<String>,
}

/// Who may mount an export, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NfsClient {
    /// Network (192.0.2.0/24), host, or another pattern of exports(5).
    #[schemars(length(min = 1, max = 253))]
    pub network: String,
    /// Export options, for example "rw,sync". Default: the NFS server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub options: Option<String>,
}

/// A registered DataService (U1–U4). It stands for two steps: START and STOP at the stage Service (or the given one), START_NET,
/// FM_INIT, FM_START, and FM_STOP, STOP_NET at the stage Network, when the addresses are up. FM_CHECK is its check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataServiceResource {
    /// Name of the DataService. A change restarts the group.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Parameters, given to its methods as environment variables. Names: letters, digits and _, no digit first, not
    /// HOLDFAST_….
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::parameters")]
    pub parameters: BTreeMap<String, String>,
}
