//! Monitors of groups and sub-clusters: what is checked, how often, and what follows (rows C6, C24).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{common::RunAs, rules};
use crate::{duration::Duration, schema};

choices! {
    /// Where a group's monitor runs.
    pub enum MonitorScope = Online {
        /// On the server that runs the group.
        Online,
        /// On every server that may run it.
        Everywhere,
    }
}

choices! {
    /// What follows when a monitor fails.
    pub enum MonitorAction {
        /// The named resource restarts, as if it had failed by itself: its `recovery` holds.
        Restart,
        /// The group has failed here and goes to another server, within the limits of `recovery`.
        Failover,
        /// All groups of the server go to others.
        FailoverAll,
        /// The server shuts down.
        ServerDown,
        /// The group stops, with hold FailureLimit.
        Stop,
        /// It is only reported.
        Report,
    }
}

/// One monitor: a name, exactly one member that says what is checked, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::monitor()))]
pub struct Monitor {
    /// Name of the monitor, unique in the object.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// From the end of one check to the next. Default 10s.
    #[serde(default = "ten_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "24h")))]
    pub interval: Duration,
    /// Longest time for one check; without an answer by then it has failed. Default 5s.
    #[serde(default = "five_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("10ms", "24h")))]
    pub timeout: Duration,
    /// Failures in a row that count. Default 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub threshold: u16,
    /// Successes in a row after which all is well again. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u16,
    /// Wait before the first check, from the moment at which all resources of the group are online, after a restart, too.
    /// Default 0s.
    #[serde(default = "zero_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "24h")))]
    pub initial_delay: Duration,
    /// Online (default) or Everywhere; only in groups.
    #[serde(default)]
    pub scope: MonitorScope,
    /// Restart (needs `resource`), Failover, FailoverAll, ServerDown, Stop or Report.
    pub action: MonitorAction,
    /// The resource that action Restart restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub resource: Option<String>,
    /// When it fails on all servers at once, it is only reported. Default true. With scope Online it is never seen on more
    /// than one server at once, so that it makes no difference.
    #[serde(default = "super::resources::yes")]
    pub unless_all_fail: bool,
    /// A program; its exit code says whether all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecCheck>,
    /// A request to a web server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// The number of processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessCheck>,
    /// Answers to ping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpCheck>,
    /// The link of a network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkCheck>,
    /// Reads, and if wanted writes, of a disk.
    #[serde(default, rename = "diskIO", skip_serializing_if = "Option::is_none")]
    pub disk_io: Option<DiskIoCheck>,
    /// Whether an address resource is still there and nobody else answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressCheck>,
    /// How full something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageCheck>,
    /// Lines of the system journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalCheck>,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn zero_seconds() -> Duration {
    "0s".parse().unwrap_or_else(|_| Duration::from_millis(0))
}

fn three() -> u16 {
    3
}

fn one() -> u16 {
    1
}

/// A program that checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecCheck {
    /// The program and its arguments; without a slash it is looked for in the agent's PATH. It is ended, with all that it
    /// started, when its time is over and before a resource of the group is stopped.
    #[schemars(schema_with = "schema::command")]
    pub command: Vec<String>,
    /// Who it runs as. Default root.
    #[serde(default)]
    pub run_as: RunAs,
    /// Exit codes that mean that all is well. Default 0.
    #[serde(default = "exit_zero")]
    #[schemars(length(min = 1, max = 256), inner(range(min = 0, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    pub exit_codes: Vec<u8>,
    /// Regular expression that is searched in the output, standard output and error, of which the first 64 KiB count.
    /// Default: any output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub output: Option<String>,
}

fn exit_zero() -> Vec<u8> {
    vec![0]
}

/// A request to a web server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// The address, http:// or https://.
    #[schemars(length(max = 1024), regex(pattern = "^https?://"))]
    pub url: String,
    /// Method. Default GET.
    #[serde(default = "get")]
    #[schemars(length(max = 16), regex(pattern = "^[A-Z]+$"))]
    pub method: String,
    /// Status codes that mean that all is well; redirections are not followed. Default 200.
    #[serde(default = "ok")]
    #[schemars(length(min = 1, max = 64), inner(range(min = 100, max = 599)), extend("x-kubernetes-list-type" = "set"))]
    pub statuses: Vec<u16>,
    /// Regular expression that is searched in the body, of which the first MiB counts. Default: any body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub body: Option<String>,
    /// Secret of this namespace with `ca.crt` for https. Default: the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub ca_secret: Option<String>,
}

fn get() -> String {
    "GET".to_string()
}

fn ok() -> Vec<u16> {
    vec![200]
}

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// Host and port, for example 192.0.2.10:5432.
    #[schemars(length(max = 270), regex(pattern = "^.+:[0-9]{1,5}$"))]
    pub address: String,
}

/// The number of processes: of those that match a pattern, or of a resource. Those of Holdfast itself are never counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["pattern", "resource"], "give exactly one of pattern, resource")))]
pub struct ProcessCheck {
    /// Regular expression that is searched in the command line, the program and its arguments joined by spaces. Either this
    /// or `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,
    /// A process resource of the group: all that it started counts. Either this or `pattern`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub resource: Option<String>,
    /// At least so many. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// At most so many. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

impl ProcessCheck {
    /// At least so many.
    pub fn at_least(&self) -> u32 {
        self.min.unwrap_or(1)
    }
}

/// Answers to ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IcmpCheck {
    /// Addresses or names of hosts. Each is asked three times within `timeout`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 2, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub targets: Vec<String>,
    /// So many must answer, at most as many as there are targets. Default 1.
    #[serde(default = "one_u8")]
    #[schemars(range(min = 1, max = 32))]
    pub min_reachable: u8,
}

fn one_u8() -> u8 {
    1
}

/// The link of a network interface: it is there, up, and connected to something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["path", "interface"], "give exactly one of path, interface")))]
pub struct LinkCheck {
    /// Name of a LAN heartbeat path. Either this or `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub path: Option<String>,
    /// Network interface. Either this or `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interface")]
    pub interface: Option<String>,
}

/// Reads, and if wanted writes, of a disk, past all caches of the server: one block somewhere on it. A disk that hangs fails
/// like one that answers with errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::exactly_one(&["disk", "device"], "give exactly one of disk, device")))]
pub struct DiskIoCheck {
    /// Name of a shared disk. Either this or `device`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub disk: Option<String>,
    /// Stable device name. Either this or `disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::stable_device")]
    pub device: Option<String>,
    /// Whether it also writes, to a place of its own in the area of the disk, and reads that back. Needs `disk`, with an
    /// area. Default false.
    #[serde(default)]
    pub write: bool,
}

/// An address resource of the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressCheck {
    /// Name of a floatingIP resource: it is there, its interface is connected, and nobody else answers for it; or of a
    /// virtualIP resource: it is there.
    #[schemars(schema_with = "schema::label")]
    pub resource: String,
}

choices! {
    /// What can be full.
    pub enum UsageOf {
        /// A file system: its blocks or its inodes, whichever are scarcer. What only root may use counts as used.
        FileSystem,
        /// The server's memory, without what can be given to programs at once.
        Memory,
        /// The server's processors, over one second or half of `timeout`, whichever is shorter.
        Cpu,
    }
}

/// How full something is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "has(self.path) == (self.of == 'FileSystem')",
    "give path with FileSystem, and only then",
)]))]
pub struct UsageCheck {
    /// FileSystem (needs `path`), Memory or Cpu.
    pub of: UsageOf,
    /// A directory in the file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::absolute_path")]
    pub path: Option<String>,
    /// At most so full, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: u8,
}

/// Lines of the system journal (systemd-journald) that are written while the monitor runs. A line counts once: an action of
/// the monitor forgets those before it, a restart of the agent does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JournalCheck {
    /// Unit whose lines count. Default: the kernel and all units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub unit: Option<String>,
    /// Regular expression that is searched in the message of a line.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 1024))]
    pub match_: String,
    /// Lines that match count within this time. Default 10m.
    #[serde(default = "ten_minutes")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub within: Duration,
    /// So many lines are a failure, until they are older than `within`. With it `threshold` is best 1. Default 1.
    #[serde(default = "one_u32")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: u32,
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn one_u32() -> u32 {
    1
}
