//! What the lab tells the first process of a host: the file behind `holdfast lab-init --spec FILE`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a host finds the `holdfast` program and the lab's other programs; first in its `PATH`.
pub const BIN_DIR: &str = "/run/holdfast-lab/bin";
/// Where a host's services write their logs; a directory of the machine, it outlives the host.
pub const LOG_DIR: &str = "/var/log/holdfast";
/// Durable state of a host; a directory of the machine, it survives power cuts.
pub const STATE_DIR: &str = "/var/lib/holdfast";
/// `PATH` of everything that runs in a host.
pub(crate) const PATH: &str = "/run/holdfast-lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One power-on of one host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// Its host name.
    pub hostname: String,
    /// Working directory of the host on the machine; has `root`, `upper`, `lib`, `log` and `boot_id`.
    pub directory: PathBuf,
    /// The `holdfast` program.
    pub binary: PathBuf,
    /// The machine's directory of the host's control group, through which services get groups of their own.
    pub cgroup: PathBuf,
    /// Disks that the host sees.
    pub devices: Vec<DeviceSpec>,
    /// Serial lines that end at the host, and its watchdog.
    #[serde(default)]
    pub nodes: Vec<NodeSpec>,
    /// Programs that the first process supervises; all are down until the lab says `start NAME`.
    pub services: Vec<ServiceSpec>,
}

/// A block device of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSpec {
    /// The node's name, `/dev/loopN`, as the machine has it.
    pub node: PathBuf,
    /// Major and minor number, as `st_rdev` has them.
    pub number: u64,
    /// Stable names that link to it, such as `/dev/holdfast/data`.
    pub links: Vec<PathBuf>,
}

/// A device of the machine's that a host sees under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// The machine's device, such as `/dev/pts/N`.
    pub node: PathBuf,
    /// Its name in the host, such as `/dev/ttyS0`.
    pub name: PathBuf,
}

/// A program that the first process of a host keeps running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name; also the name of its cgroup and of its log file.
    pub name: String,
    /// Program and arguments, as seen inside the host.
    pub command: Vec<String>,
    /// Additional environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}
