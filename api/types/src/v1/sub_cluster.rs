//! SubCluster: one failover cluster of two to sixteen servers (rows C2, C16, C20, S1–S4, U11). Its heartbeat is in
//! `heartbeat.rs`, its status in `sub_cluster_status.rs`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{ObjectReference, ServerDeclaredState},
    heartbeat::Heartbeat,
    monitors::Monitor,
    rules,
    sub_cluster_status::SubClusterStatus,
};
use crate::{duration::Duration, schema};

/// What a sub-cluster shall be. Once its agents have met, servers, disks, heartbeat, quorum, watchdog and drain stay as they
/// are: a change of them is not accepted, and the accepted ones stay in force. Other changes take effect at once.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "SubCluster",
    plural = "subclusters",
    namespaced,
    shortname = "hsub",
    category = "holdfast",
    status = "SubClusterStatus",
    derive = "PartialEq",
    selectable = ".status.phase",
    doc = "A sub-cluster: one failover cluster of 2 to 16 servers; with a shared disk exactly 2.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Guarantee", type_ = "string", json_path = ".status.guarantee.level"),
    printcolumn(name = "Coordinator", type_ = "string", json_path = ".status.view.coordinator"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".status.groups.total"),
    printcolumn(name = "Arbiter", type_ = "string", json_path = ".status.view.arbiter", priority = 1),
    printcolumn(name = "Timeout", type_ = "string", json_path = ".spec.heartbeat.timeout", priority = 1),
    printcolumn(name = "Cluster-Part", type_ = "string", json_path = ".status.timing.clusterPart", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::sub_cluster()))]
pub struct SubClusterSpec {
    /// The super-cluster that manages this sub-cluster. Optional. The only reference that may cross a namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_cluster: Option<ObjectReference>,
    /// Running (default), or Stopped: groups stop in order, agents stay. Stopped is refused for the master.
    #[serde(default)]
    pub state: SubClusterState,
    /// The servers, 2 to 16; with a shared disk exactly 2. A name keeps its id. One server may leave per write, and
    /// only after it was Detached.
    #[schemars(length(min = 2, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(extend("x-kubernetes-validations" = rules::servers()))]
    pub servers: Vec<ServerEntry>,
    /// Disks that both servers reach, 0 to 8. With any disk here there are exactly two servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<SharedDisk>,
    /// How servers find out that one of them is gone.
    pub heartbeat: Heartbeat,
    /// Who may go on when not all servers can talk to each other.
    pub quorum: Quorum,
    /// The hardware that resets a server which no longer responds.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// What counts as proof that a lost server has stopped.
    #[serde(default)]
    pub evidence: Evidence,
    /// Fence devices. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<Fencing>,
    /// What a server does when it starts alone.
    #[serde(default)]
    pub startup: ClusterStartup,
    /// Manual (default): a server that comes back after an unclean end stays out until it is reinstated. Automatic: it
    /// joins by itself.
    #[serde(default)]
    pub return_policy: ReturnPolicy,
    /// When to stop acting because too much fails at once.
    #[serde(default)]
    pub brakes: SubClusterBrakes,
    /// Monitors that every server runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub monitors: Vec<Monitor>,
    /// What groups of this sub-cluster may use.
    #[serde(default)]
    pub group_policy: GroupPolicy,
    /// Operation Exec.
    #[serde(default)]
    pub exec: ExecPolicy,
}

choices! {
    /// Declared state of a sub-cluster.
    pub enum SubClusterState = Running {
        /// Groups run as they are declared.
        Running,
        /// All groups stop in order; agents stay.
        Stopped,
    }
}

/// One server of a sub-cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerEntry {
    /// Name of the server, unique in the sub-cluster.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// Number of the server, 1..16, unique in the sub-cluster. It is its place in the disk area and can't be changed.
    #[schemars(range(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-validations" = [schema::rule(
        "self == oldSelf",
        "the id of a server can't be changed; remove the server and add it under another name",
    )]))]
    pub id: u8,
    /// The building or room that the server shares its fate with; servers of one site count as one loss. Default: none.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub site: String,
    /// Active (default) or Detached.
    #[serde(default)]
    pub state: ServerDeclaredState,
}

/// A disk that both servers reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharedDisk {
    /// Name of the disk, unique in the sub-cluster.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// Stable device name: /dev/disk/by-id/…, /dev/disk/by-uuid/…, /dev/mapper/… or /dev/VG/LV; never a name such as
    /// /dev/sda that another disk may have after a boot.
    #[schemars(schema_with = "schema::stable_device")]
    pub device: String,
    /// Where heartbeat and lock live on this disk. Needed when a heartbeat path or the quorum uses the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<DiskArea>,
    /// None (default) or PersistentReservation, which makes the array refuse writes of a server that was taken over.
    #[serde(default)]
    pub reservation: Reservation,
}

/// The area of a disk for heartbeat and lock, 1 MiB long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskArea {
    /// Stable name of a partition of its own, or of a data disk of which the area is kept free.
    #[schemars(schema_with = "schema::stable_device")]
    pub device: String,
    /// Where the area begins on the device, in bytes, a multiple of 4096. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_u64), extend("multipleOf" = 4096))]
    pub offset: u64,
}

choices! {
    /// Whether the array itself keeps out a server that was taken over.
    pub enum Reservation = None {
        /// No reservation.
        None,
        /// SCSI-3 persistent reservation; gives evidence Storage.
        PersistentReservation,
    }
}

choices! {
    /// Who decides when not all servers can talk to each other.
    pub enum QuorumType {
        /// More than half of the servers go on. Needs three or more servers.
        Majority,
        /// An area on a shared disk breaks the tie between two servers.
        LockDisk,
        /// A program on a machine outside the cluster breaks the tie.
        QuorumServer,
    }
}

/// Who may go on when not all servers can talk to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::quorum()))]
pub struct Quorum {
    /// Majority needs three or more servers, LockDisk exactly two, QuorumServer works with any number.
    #[serde(rename = "type")]
    pub type_: QuorumType,
    /// Only with type LockDisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_disk: Option<LockDisk>,
    /// Only with type QuorumServer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum_server: Option<QuorumServer>,
}

/// The disk whose area is the lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockDisk {
    /// Name of a disk in `disks` that has an `area`.
    #[schemars(schema_with = "schema::label")]
    pub disk: String,
}

/// A quorum server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuorumServer {
    /// Addresses of the same quorum server, tried in turn, for example https://witness:7443. It must not depend on this
    /// sub-cluster: not one of its servers, not an address of one of its groups.
    #[schemars(length(min = 1, max = 8), inner(length(max = 1024), regex(pattern = "^https://")))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub urls: Vec<String>,
    /// The Lease there that holds the lock; `holdfast lock create` makes it, once.
    pub lease: LeaseReference,
    /// Secret of this namespace with `ca.crt`, and `tls.crt` with `tls.key` or a bearer `token`. Without it the agents use
    /// their own credentials, for a quorum server that knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub credential_secret: Option<String>,
    /// Longest wait for one answer. Default and most: a tenth of the heartbeat timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "60s")))]
    pub timeout: Option<Duration>,
}

/// An object on a quorum server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseReference {
    /// Its namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub namespace: String,
    /// Its name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

choices! {
    /// Whether a watchdog device is used.
    pub enum WatchdogMode = IfPresent {
        /// Used where there is one; without it the guarantee is UserSpace.
        IfPresent,
        /// A server without it does not take part.
        Required,
        /// Never opened.
        Disabled,
    }
}

/// The watchdog of every server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Watchdog {
    /// IfPresent (default), Required or Disabled.
    pub mode: WatchdogMode,
    /// The device. Default /dev/watchdog.
    #[schemars(length(min = 6, max = 253), regex(pattern = "^/dev/"))]
    pub device: String,
    /// After so long without a sign of life the hardware resets the server. Whole seconds, 1s..60s. Default 2s. The value
    /// that the device reads back counts.
    #[schemars(extend("x-kubernetes-validations" = [schema::rule_with(
        "self.matches('^([1-9]|[1-5][0-9]|60)s$') || self == '1m'",
        "watchdogs count whole seconds, 1s..60s",
        "self + ' is not possible: watchdogs count whole seconds, 1s..60s'",
    )]))]
    pub timeout: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { mode: WatchdogMode::IfPresent, device: "/dev/watchdog".to_string(), timeout: Duration::from_secs(2) }
    }
}

choices! {
    /// Whether elapsed time counts as proof on virtual machines.
    pub enum TimeOnVirtualMachines = Refuse {
        /// It does not, for groups with shared data: a paused virtual machine stops its clock and its watchdog together and
        /// may write on when it is resumed.
        Refuse,
        /// It does, and the guarantee shows it.
        Allow,
    }
}

/// What counts as proof that a lost server has stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Evidence {
    /// How long after a reset a write of the old server may still reach the storage (array, HBA). Default 500ms, 0s..1h.
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "1h")))]
    pub drain: Duration,
    /// Refuse (default) or Allow. Allow stays visible in the guarantee.
    pub time_on_virtual_machines: TimeOnVirtualMachines,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { drain: Duration::from_millis(500), time_on_virtual_machines: TimeOnVirtualMachines::Refuse }
    }
}

choices! {
    /// How far a takeover depends on fencing.
    pub enum FencingMode = Disabled {
        /// Devices are only used by the Operation Fence.
        Disabled,
        /// Fence if possible, else rest on other evidence.
        BestEffort,
        /// No takeover of exclusive data without it.
        Required,
    }
}

/// Fence devices and their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Fencing {
    /// The devices.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub devices: Vec<FenceDevice>,
    /// Disabled (default), BestEffort or Required.
    pub mode: FencingMode,
    /// Per server, levels 1..9 in order; all devices of a level must succeed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 144), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server", "level"]))]
    pub levels: Vec<FenceLevel>,
}

choices! {
    /// What a fence device does to a server.
    pub enum FenceAction = PowerOff {
        /// Power off and stay off.
        PowerOff,
        /// Power off, verify, power on.
        Reboot,
        /// Power on.
        PowerOn,
    }
}

/// One fence device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceDevice {
    /// Name of the device.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// The fence agent, for example fence_ipmilan.
    #[schemars(length(min = 1, max = 63))]
    pub agent: String,
    /// PowerOff (default) or Reboot.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [schema::rule(
        "self != 'PowerOn'",
        "a fence device can't prove a stop by switching a server on; use PowerOff or Reboot",
    )]))]
    pub action: FenceAction,
    /// Longest time for one attempt. Default 60s.
    #[serde(default = "sixty_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "1h")))]
    pub timeout: Duration,
    /// Further attempts after the first. Default 2.
    #[serde(default = "two")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: u8,
    /// Parameters of the agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Secrets of this namespace with further parameters, such as passwords.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::object_name_set")]
    pub parameters_from: Vec<String>,
    /// The servers that it reaches.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["server"]))]
    pub hosts: Vec<FenceHost>,
}

pub(crate) fn sixty_seconds() -> Duration {
    "60s".parse().unwrap_or_else(|_| Duration::from_secs(60))
}

fn two() -> u8 {
    2
}

/// A server as a fence device knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceHost {
    /// Name of the server.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// What the device calls it: an address, an outlet, a machine name.
    #[schemars(length(min = 1, max = 253))]
    pub plug: String,
}

/// Devices that must all succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceLevel {
    /// Name of the server.
    #[schemars(schema_with = "schema::label")]
    pub server: String,
    /// Level 1..9; lower ones are tried first.
    #[schemars(range(min = 1, max = 9))]
    pub level: u8,
    /// Names of devices, used in this order.
    #[schemars(schema_with = "schema::label_list")]
    pub devices: Vec<String>,
}

/// What a server does when it starts alone (C16).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStartup {
    /// How long after the boot of its operating system a server waits for the others before it goes on without them.
    /// Default 5m, 0s..1h.
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "1h")))]
    pub grace_period: Duration,
}

impl Default for ClusterStartup {
    fn default() -> Self {
        Self { grace_period: Duration::from_secs(300) }
    }
}

choices! {
    /// How a server comes back after an unclean end.
    pub enum ReturnPolicy = Manual {
        /// It stays out until an operator reinstates it.
        Manual,
        /// It joins by itself.
        Automatic,
    }
}

/// When a sub-cluster stops acting because too much fails at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubClusterBrakes {
    /// So many losses are acted on within `lossesWithin`; servers of one site count once. Default: half of the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub max_losses: Option<u8>,
    /// The window for `maxLosses`. Default 60s.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "24h")))]
    pub losses_within: Duration,
    /// So many moves of one group within `movesWithin`. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    pub max_moves_per_group: u16,
    /// The window for `maxMovesPerGroup`. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub moves_within: Duration,
}

impl Default for SubClusterBrakes {
    fn default() -> Self {
        Self {
            max_losses: None,
            losses_within: sixty_seconds(),
            max_moves_per_group: 5,
            moves_within: Duration::from_secs(3600),
        }
    }
}

/// What groups of a sub-cluster may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupPolicy {
    /// Users that programs may run as; "*" means all. Default all.
    #[schemars(length(max = 128), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub run_as: Vec<String>,
    /// Resource members that groups may have, for example filesystem; "*" means all. Default all.
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub resource_types: Vec<String>,
}

impl Default for GroupPolicy {
    fn default() -> Self {
        Self { run_as: vec!["*".to_string()], resource_types: vec!["*".to_string()] }
    }
}

/// Whether operators may run commands on all servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecPolicy {
    /// Default false.
    pub enabled: bool,
}
