//! Resources of a failover group: what every resource has, and the members that are built in (file systems, addresses,
//! programs). The members for volumes, mirrors, exports and foreign agents are in `resources_other.rs`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::resources_other::*;
use super::{
    common::{ConfigMapKey, Environment, RunAs},
    failover_group::{RecoveryAction, StopFailureAction},
    rules,
};
use crate::{duration::Duration, schema};

choices! {
    /// When a resource starts; ascending on start, descending on stop.
    pub enum Stage {
        /// Volume groups and mirrors.
        Storage,
        /// File systems.
        Mount,
        /// Programs.
        Service,
        /// Exports of file systems.
        Export,
        /// Addresses.
        Address,
        /// What needs the addresses.
        Network,
    }
}

/// The members of a resource, of which exactly one is given.
pub const MEMBERS: [&str; 11] = [
    "filesystem",
    "floatingIP",
    "virtualIP",
    "script",
    "process",
    "systemd",
    "ocf",
    "volumeGroup",
    "mirrorDisk",
    "nfsExport",
    "dataService",
];

/// One resource: a name, exactly one member that says what it is, and how it is started, stopped and checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(
    &MEMBERS,
    "give exactly one of filesystem, floatingIP, virtualIP, script, process, systemd, ocf, volumeGroup, mirrorDisk, nfsExport, dataService",
)))]
pub struct Resource {
    /// Name of the resource, unique in the group.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// Names of resources that must be online first; those of earlier stages need not be named. A change takes effect at
    /// once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::label_set")]
    pub depends_on: Vec<String>,
    /// When it starts. Default by member: volumeGroup and mirrorDisk Storage, filesystem Mount, nfsExport Export,
    /// floatingIP and virtualIP Address, all others Service; the second step of a dataService is always Network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Whether a failure of it is a failure of the group. Default true; false: it is only reported.
    #[serde(default = "yes")]
    pub critical: bool,
    /// Longest times. A change takes effect at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ResourceTimeouts>,
    /// The resource's own check. A change takes effect at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<ResourceMonitor>,
    /// What happens when it fails. Default: what the group says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<ResourceRecovery>,
    /// A file system that is mounted on one server at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// An address in the servers' subnet that goes with the group.
    #[serde(default, rename = "floatingIP", skip_serializing_if = "Option::is_none")]
    pub floating_ip: Option<FloatingIp>,
    /// An address outside the servers' subnet, followed by routing.
    #[serde(default, rename = "virtualIP", skip_serializing_if = "Option::is_none")]
    pub virtual_ip: Option<VirtualIp>,
    /// Scripts that start, stop and check something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// A program that is started and watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// A unit of systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// An OCF resource agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocf: Option<Ocf>,
    /// An LVM volume group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_group: Option<VolumeGroup>,
    /// A mirror of local disks of two servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_disk: Option<MirrorDisk>,
    /// A directory exported by NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs_export: Option<NfsExport>,
    /// A registered DataService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_service: Option<DataServiceResource>,
}

pub(crate) fn yes() -> bool {
    true
}

/// Longest times of a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceTimeouts {
    /// Longest time to start. Default by member: 20s addresses, 40s nfsExport, 60s filesystem, script and process, 90s
    /// systemd and volumeGroup, 240s mirrorDisk, for each step of a dataService what its methods have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1ms", "24h")))]
    pub start: Option<Duration>,
    /// Longest time to stop. Default by member: 20s addresses, 60s filesystem, script and process, 90s systemd and
    /// volumeGroup, 100s mirrorDisk, 120s nfsExport. A stop that takes longer does not count as stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1ms", "24h")))]
    pub stop: Option<Duration>,
    /// Longest time to find out whether it runs. Default 20s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1ms", "24h")))]
    pub probe: Option<Duration>,
}

/// The own check of a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceMonitor {
    /// Time between two checks. Default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "24h")))]
    pub interval: Option<Duration>,
    /// Longest time for one check. Default 20s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "24h")))]
    pub timeout: Option<Duration>,
    /// Failures in a row that count as a failure. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub threshold: Option<u16>,
}

/// What happens when a resource fails; what is not given is as in the group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRecovery {
    /// Restarts in place within `window` before `then`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub restarts: Option<u16>,
    /// The window for `restarts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub window: Option<Duration>,
    /// What follows: Failover, Stop, ServerDown or Report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<RecoveryAction>,
    /// What follows when a stop fails: Fence or Block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_stop_failure: Option<StopFailureAction>,
}

choices! {
    /// Kind of a file system.
    pub enum FilesystemType {
        /// The common journalling file system.
        Ext4 = "ext4",
        /// The XFS journalling file system.
        Xfs = "xfs",
        /// The Btrfs copy-on-write file system.
        Btrfs = "btrfs",
        /// A directory of an NFS server; the device is host:/path.
        Nfs = "nfs",
        /// Another directory of the same server, mounted a second time.
        Bind = "bind",
    }
}

choices! {
    /// Whether a file system is checked before it is mounted.
    pub enum Fsck = Auto {
        /// When the file system says that it needs it.
        Auto,
        /// Before every mount.
        Always,
        /// Never.
        Never,
    }
}

choices! {
    /// Which programs a stop may end when they keep a file system busy.
    pub enum Holders = GroupOnly {
        /// Only those that the group started.
        GroupOnly,
        /// All of them.
        Any,
        /// None; they are only named.
        Report,
    }
}

choices! {
    /// How a mounted file system is checked.
    pub enum FilesystemCheck = ReadWrite {
        /// A small file is written, read and removed.
        ReadWrite,
        /// Only the kernel's table of mounts is read.
        MountTable,
    }
}

/// A file system that is mounted on one server at a time. File systems below others are mounted after them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::filesystem()))]
pub struct Filesystem {
    /// What is mounted: a stable device name (/dev/disk/by-…/…, /dev/mapper/…, /dev/VG/LV), UUID=…, host:/path with type
    /// nfs, a directory with type bind. A change restarts the group.
    #[schemars(schema_with = "schema::filesystem_device")]
    pub device: String,
    /// Name of the shared disk in the sub-cluster that the device lies on. Needed for shared data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub disk: Option<String>,
    /// Directory on which it is mounted; it is made if absent. A change restarts the group.
    #[schemars(schema_with = "schema::absolute_path")]
    pub mount_point: String,
    /// ext4, xfs, btrfs, nfs or bind.
    #[serde(rename = "type")]
    pub type_: FilesystemType,
    /// Mount options, for example noatime. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub options: Vec<String>,
    /// Auto (default), Always or Never.
    #[serde(default)]
    pub fsck: Fsck,
    /// GroupOnly (default), Any or Report.
    #[serde(default)]
    pub holders: Holders,
    /// ReadWrite (default) or MountTable.
    #[serde(default)]
    pub check: FilesystemCheck,
}

choices! {
    /// What happens when somebody else answers for an address.
    pub enum OnConflict = Refuse {
        /// The start fails and names who answers.
        Refuse,
        /// The address is taken all the same.
        Take,
    }
}

/// An address in the servers' subnet that goes with the group (C10).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["path", "interface"], "give exactly one of path (a LAN heartbeat path) and interface")))]
pub struct FloatingIp {
    /// IPv4 or IPv6 address with prefix length, for example 192.0.2.10/24.
    #[schemars(schema_with = "schema::cidr")]
    pub address: String,
    /// Name of the LAN heartbeat path whose interface gets it. Either this or `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub path: Option<String>,
    /// Network interface that gets it, the same on every server. Either this or `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interface")]
    pub interface: Option<String>,
    /// How the network is told where the address is now.
    #[serde(default)]
    pub announce: Announce,
    /// Refuse (default) or Take.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// How the network is told where an address is now: gratuitous ARP, or unsolicited neighbour advertisements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Announce {
    /// Announcements after the start. Default 5.
    #[schemars(range(min = 1, max = 100))]
    pub count: u8,
    /// Time between them. Default 200ms.
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "1m")))]
    pub interval: Duration,
    /// Time between later announcements, for as long as the address is here; 0s: none. Default 60s.
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "24h")))]
    pub repeat: Duration,
}

impl Default for Announce {
    fn default() -> Self {
        Self { count: 5, interval: Duration::from_millis(200), repeat: super::sub_cluster::sixty_seconds() }
    }
}

/// Scripts that start, stop and check something (C11). They get HOLDFAST_REASON (Start, Failover, Failback, Move,
/// Recovery, Stop), HOLDFAST_PREVIOUS_SERVER, HOLDFAST_GROUP, HOLDFAST_EPOCH and HOLDFAST_TIMEOUT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Script {
    /// Run to start; exit code 0 means that it runs.
    pub start: ScriptSource,
    /// Run to stop; exit code 0 means that it has stopped.
    pub stop: ScriptSource,
    /// Run to check; exit code 0 means that it runs, 7 that it is stopped, anything else that it failed. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ScriptSource>,
    /// Further environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::environment")]
    pub environment: Environment,
    /// Who the scripts run as. Default root.
    #[serde(default)]
    pub run_as: RunAs,
    /// Directory that they run in. Default /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub working_directory: Option<String>,
}

/// A script: a file on every server, a text here, or a text in a ConfigMap. Exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["path", "inline", "configMap"], "give exactly one of path, inline, configMap")))]
pub struct ScriptSource {
    /// Absolute path of a file on every server; its content is compared over the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub path: Option<String>,
    /// The script itself, at most 64 KiB; run by the interpreter of its first line, else /bin/sh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
    /// A text in a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::arguments")]
    pub args: Vec<String>,
}

/// A program that is started and watched (C5). Its cgroup is the unit: children that fork away belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Absolute path of the program and its arguments. No shell is involved.
    #[schemars(schema_with = "schema::program")]
    pub command: Vec<String>,
    /// Further environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::environment")]
    pub environment: Environment,
    /// Secrets of this namespace whose keys become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::object_name_set")]
    pub environment_from: Vec<String>,
    /// Who it runs as. Default root.
    #[serde(default)]
    pub run_as: RunAs,
    /// Directory that it runs in. Default /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub working_directory: Option<String>,
    /// Signal that asks it to end. Default SIGTERM.
    #[serde(default = "sigterm")]
    #[schemars(length(max = 16), regex(pattern = "^SIG[A-Z0-9+]+$"))]
    pub stop_signal: String,
    /// How long it may take to end before everything in its cgroup is killed. Default 10s.
    #[serde(default = "ten_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "24h")))]
    pub grace: Duration,
    /// Restarts before the recovery of the resource is asked, for a program that may end now and then. Default: none, the
    /// restarts of `recovery` are the only ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<ProcessRestart>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

fn sigterm() -> String {
    "SIGTERM".to_string()
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// Restarts of a program before its recovery is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessRestart {
    /// How many within `window`. Default 3; 0: none.
    #[schemars(range(min = 0, max = 1000))]
    pub limit: u16,
    /// The window for `limit`. Default 1m.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub window: Duration,
    /// Wait before each. Default 0ms.
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "1h")))]
    pub backoff: Duration,
}

impl Default for ProcessRestart {
    fn default() -> Self {
        Self { limit: 3, window: Duration::from_secs(60), backoff: Duration::from_millis(0) }
    }
}

/// What a program may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Memory, for example 4Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub memory: Option<Quantity>,
    /// Processors, for example "2" or "500m"; a text, so in quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub cpu: Option<Quantity>,
}
