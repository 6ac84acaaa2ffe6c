//! What a driver has to know of a resource: the specification, checked, with everything resolved that depends on this
//! server. Pure; also the durable form of what was started, so that a later version of the specification can't change
//! how it is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use holdfast_api::placement::amount;
use holdfast_api::v1::{self as api, FilesystemCheck, FilesystemType, Fsck, Holders, OnConflict};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub use self::data_service::DataServicePlan;
pub use self::nfs::{NfsClientPlan, NfsExportPlan};
pub use self::systemd::SystemdPlan;
pub use self::virtual_ip::VirtualIpPlan;
pub use self::volume_group::VolumeGroupPlan;
use super::ocf::agents::Name;

pub mod data_service;
mod nfs;
mod systemd;
mod virtual_ip;
mod volume_group;

/// A resource, ready to be carried out on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Plan {
    /// A file system.
    Filesystem(FilesystemPlan),
    /// An address.
    FloatingIp(FloatingIpPlan),
    /// A program.
    Process(ProcessPlan),
    /// Scripts.
    Script(ScriptPlan),
    /// An agent of another maker.
    Ocf(OcfPlan),
    /// An LVM volume group.
    VolumeGroup(VolumeGroupPlan),
    /// A directory exported by NFS.
    NfsExport(NfsExportPlan),
    /// A unit of systemd.
    Systemd(SystemdPlan),
    /// An address that is found by routing.
    VirtualIp(VirtualIpPlan),
    /// A step of a data service.
    DataService(DataServicePlan),
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemPlan {
    /// Device, `UUID=…`, `host:/path` of NFS, or the directory of a bind mount.
    pub device: String,
    /// Where.
    pub mount_point: PathBuf,
    /// ext4, xfs, btrfs, nfs or bind.
    pub kind: FilesystemType,
    /// Mount options.
    pub options: Vec<String>,
    /// When to check.
    pub fsck: Fsck,
    /// Whom a stop may end.
    pub holders: Holders,
    /// How to test that it works.
    pub check: FilesystemCheck,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FloatingIpPlan {
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
    /// Where it goes.
    pub interface: Interface,
    /// Announcements after the start, 1..100.
    pub announce_count: u8,
    /// Between them.
    pub announce_interval: Duration,
    /// Between later ones; zero: none.
    pub announce_repeat: Duration,
    /// Take it even if somebody answers for it.
    pub take: bool,
}

/// A network interface of this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Interface {
    /// By name.
    Named(String),
    /// The one that holds this address.
    Holding(IpAddr),
}

/// A program. Its debug form has no values of variables.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessPlan {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Further variables.
    pub environment: BTreeMap<String, String>,
    /// Those of them that stand in a Secret.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// User, name or number.
    pub user: String,
    /// Group, name or number; none: the user's own.
    pub group: Option<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Number of the signal that asks it to end.
    pub stop_signal: i32,
    /// How long it may take to end.
    pub grace: Duration,
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_milli: Option<u64>,
}

/// Scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptPlan {
    /// Starts it.
    pub start: Program,
    /// Stops it.
    pub stop: Program,
    /// Checks it.
    pub check: Option<Program>,
    /// Further variables.
    pub environment: BTreeMap<String, String>,
    /// User, name or number.
    pub user: String,
    /// Group, name or number; none: the user's own.
    pub group: Option<String>,
    /// Where they run.
    pub directory: PathBuf,
}

/// One script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// Where it is.
    pub source: Source,
    /// Arguments.
    pub args: Vec<String>,
}

/// Where a script is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A file of this server.
    Path(PathBuf),
    /// Here.
    Inline(String),
}

/// An OCF resource agent. Its debug form has no values of parameters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OcfPlan {
    /// Whose agent.
    pub provider: String,
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// Those of them that stand in a Secret.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Time between two checks, which agents are told.
    pub interval: Duration,
    /// Longest time for a stop that the guard asks for.
    pub stop: Duration,
}

impl fmt::Debug for ProcessPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let environment: Vec<&String> = self.environment.keys().collect();
        let mut shown = f.debug_struct("ProcessPlan");
        shown.field("command", &self.command).field("environment", &environment).finish_non_exhaustive()
    }
}

impl fmt::Debug for OcfPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<&String> = self.parameters.keys().collect();
        let mut shown = f.debug_struct("OcfPlan");
        shown.field("agent", &format_args!("{}:{}", self.provider, self.kind)).field("parameters", &parameters);
        shown.finish_non_exhaustive()
    }
}

impl OcfPlan {
    /// The agent.
    pub fn agent(&self) -> Name {
        Name { provider: self.provider.clone(), kind: self.kind.clone() }
    }

    /// The address that it holds, if it is one of the agents for that.
    pub fn address(&self) -> Option<IpAddr> {
        let for_addresses =
            self.provider == "heartbeat" && matches!(self.kind.as_str(), "IPaddr2" | "IPaddr" | "IPv6addr");
        let parameter = if self.kind == "IPv6addr" { "ipv6addr" } else { "ip" };
        self.parameters.get(parameter).filter(|_| for_addresses)?.parse().ok()
    }
}

/// What this server knows of a LAN path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathFacts {
    /// `lan.interface`.
    pub interface: Option<String>,
    /// This server's endpoint.
    pub endpoint: Option<IpAddr>,
}

/// This server's LAN paths by name.
pub type Network = BTreeMap<String, PathFacts>;

/// Why a specification can't be carried out here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PlanError {
    /// The field, below the resource.
    pub field: String,
    /// What was found, what is allowed, what to do.
    pub problem: String,
}

pub(super) fn wrong(field: &str, problem: impl Into<String>) -> PlanError {
    PlanError { field: field.to_owned(), problem: problem.into() }
}

impl Plan {
    /// Names what of it stands in Secrets.
    pub(super) fn with_secrets(mut self, names: BTreeSet<String>) -> Plan {
        match &mut self {
            Plan::Process(plan) => plan.secrets = names,
            Plan::Ocf(plan) => plan.secrets = names,
            _ => {}
        }
        self
    }

    /// A text without what it has from Secrets: what a program printed may hold it.
    pub(crate) fn redacted(&self, text: &str) -> String {
        let (names, values) = match self {
            Plan::Process(plan) => (&plan.secrets, &plan.environment),
            Plan::Ocf(plan) => (&plan.secrets, &plan.parameters),
            _ => return text.to_owned(),
        };
        crate::redact::redact(text, names.iter().filter_map(|name| values.get(name)))
    }

    /// Its check reads nothing but tables that the kernel has in memory: control groups, processes, addresses.
    pub(crate) fn is_seen_in_the_kernel(&self) -> bool {
        matches!(self, Plan::Process(_) | Plan::FloatingIp(_))
    }

    /// Resolves a specification on this server, if it needs nothing beside itself; see [`super::Sources`].
    ///
    /// # Errors
    /// Names the first field that can't be carried out.
    pub fn new(resource: &api::Resource, network: &Network) -> Result<Plan, PlanError> {
        if let Some(spec) = &resource.filesystem {
            return filesystem(spec).map(Plan::Filesystem);
        }
        if let Some(spec) = &resource.floating_ip {
            return floating_ip(spec, network).map(Plan::FloatingIp);
        }
        if let Some(spec) = &resource.process {
            return process(spec).map(Plan::Process);
        }
        if let Some(spec) = &resource.script {
            return script(spec).map(Plan::Script);
        }
        if let Some(spec) = &resource.ocf {
            return ocf(spec, resource).map(Plan::Ocf);
        }
        if let Some(spec) = &resource.volume_group {
            return volume_group::volume_group(spec).map(Plan::VolumeGroup);
        }
        if let Some(spec) = &resource.nfs_export {
            return nfs::nfs_export(spec).map(Plan::NfsExport);
        }
        if let Some(spec) = &resource.systemd {
            return systemd::plan(spec).map(Plan::Systemd);
        }
        if let Some(spec) = &resource.virtual_ip {
            return virtual_ip::plan(spec).map(Plan::VirtualIp);
        }
        Err(wrong(
            &resource.name,
            "has no member that this version carries out; allowed are filesystem, floatingIP, virtualIP, process, script, systemd, \
             ocf, volumeGroup and nfsExport",
        ))
    }
}

fn filesystem(spec: &api::Filesystem) -> Result<FilesystemPlan, PlanError> {
    let mount_point = PathBuf::from(&spec.mount_point);
    if !mount_point.is_absolute() || mount_point.parent().is_none() {
        let found = &spec.mount_point;
        return Err(wrong("filesystem.mountPoint", format!("is {found:?}; name an absolute directory other than /")));
    }
    super::mounts::parse_options(&spec.options).map_err(|problem| wrong("filesystem.options", problem))?;
    Ok(FilesystemPlan {
        device: spec.device.clone(),
        mount_point,
        kind: spec.type_,
        options: spec.options.clone(),
        fsck: spec.fsck,
        holders: spec.holders,
        check: spec.check,
    })
}

fn floating_ip(spec: &api::FloatingIp, network: &Network) -> Result<FloatingIpPlan, PlanError> {
    const FIELD: &str = "floatingIP.address";
    let bad = || {
        let found = &spec.address;
        wrong(FIELD, format!("is {found:?}; write an address with its prefix length, for example 192.0.2.10/24"))
    };
    let (address, prefix) = spec.address.split_once('/').ok_or_else(bad)?;
    let address = IpAddr::from_str(address).map_err(|_| bad())?;
    let prefix = prefix.parse::<u8>().map_err(|_| bad())?;
    if prefix > if address.is_ipv4() { 32 } else { 128 } || address.is_unspecified() || address.is_multicast() {
        return Err(bad());
    }
    let interface = match (&spec.interface, &spec.path) {
        (Some(name), None) => Interface::Named(name.clone()),
        (None, Some(path)) => lan_interface("floatingIP.path", path, network)?,
        _ => return Err(wrong("floatingIP", "give exactly one of path and interface")),
    };
    Ok(FloatingIpPlan {
        address,
        prefix,
        interface,
        announce_count: spec.announce.count,
        announce_interval: spec.announce.interval.get(),
        announce_repeat: spec.announce.repeat.get(),
        take: spec.on_conflict == OnConflict::Take,
    })
}

/// The interface of this server for a LAN path, which `field` names.
pub(crate) fn lan_interface(field: &str, path: &str, network: &Network) -> Result<Interface, PlanError> {
    let known = || network.keys().cloned().collect::<Vec<_>>().join(", ");
    let facts = network
        .get(path)
        .ok_or_else(|| wrong(field, format!("is {path:?}; the LAN paths of this sub-cluster are {}", known())))?;
    match (&facts.interface, facts.endpoint) {
        (Some(name), _) => Ok(Interface::Named(name.clone())),
        (None, Some(endpoint)) => Ok(Interface::Holding(endpoint)),
        (None, None) => Err(wrong(field, format!("{path:?} has no endpoint for this server"))),
    }
}

fn process(spec: &api::Process) -> Result<ProcessPlan, PlanError> {
    if spec.command.first().is_none_or(|program| program.is_empty()) {
        return Err(wrong("process.command", "is empty; name a program and its arguments"));
    }
    if !spec.environment_from.is_empty() {
        return Err(wrong("process.environmentFrom", "is not resolved yet; see Sources"));
    }
    let signal = Signal::from_str(&spec.stop_signal).map_err(|_| {
        wrong("process.stopSignal", format!("is {:?}; name a signal, for example SIGTERM or SIGINT", spec.stop_signal))
    })?;
    let limit = |field: &str, quantity: &Option<Quantity>, unit: f64| match quantity {
        None => Ok(None),
        Some(quantity) => {
            amount(&quantity.0).filter(|value| *value > 0.0).map(|value| Some((value * unit) as u64)).ok_or_else(|| {
                wrong(field, format!("is {:?}; write a quantity above 0, for example 512Mi or 1500m", quantity.0))
            })
        }
    };
    let limits = spec.limits.clone().unwrap_or_default();
    Ok(ProcessPlan {
        command: spec.command.clone(),
        environment: spec.environment.clone(),
        secrets: BTreeSet::new(),
        user: spec.run_as.user.clone(),
        group: spec.run_as.group.clone(),
        directory: directory("process.workingDirectory", &spec.working_directory)?,
        stop_signal: signal as i32,
        grace: spec.grace.get(),
        memory: limit("process.limits.memory", &limits.memory, 1.0)?,
        cpu_milli: limit("process.limits.cpu", &limits.cpu, 1000.0)?,
    })
}

fn script(spec: &api::Script) -> Result<ScriptPlan, PlanError> {
    Ok(ScriptPlan {
        start: program("script.start", &spec.start)?,
        stop: program("script.stop", &spec.stop)?,
        check: spec.check.as_ref().map(|check| program("script.check", check)).transpose()?,
        environment: spec.environment.clone(),
        user: spec.run_as.user.clone(),
        group: spec.run_as.group.clone(),
        directory: directory("script.workingDirectory", &spec.working_directory)?,
    })
}

fn ocf(spec: &api::Ocf, resource: &api::Resource) -> Result<OcfPlan, PlanError> {
    Name::new(&spec.provider, &spec.type_).map_err(|problem| wrong("ocf", problem))?;
    if !spec.parameters_from.is_empty() {
        return Err(wrong("ocf.parametersFrom", "is not resolved yet; see Sources"));
    }
    Ok(OcfPlan {
        provider: spec.provider.clone(),
        kind: spec.type_.clone(),
        parameters: spec.parameters.clone(),
        secrets: BTreeSet::new(),
        interval: resource.check_interval(),
        stop: resource.stop_timeout(),
    })
}

fn program(field: &str, spec: &api::ScriptSource) -> Result<Program, PlanError> {
    let source = match (&spec.path, &spec.inline, &spec.config_map) {
        (Some(path), None, None) => Source::Path(path.into()),
        (None, Some(text), None) => Source::Inline(text.clone()),
        (None, None, Some(_)) => {
            return Err(wrong(field, "configMap is not resolved yet; see Sources"));
        }
        _ => return Err(wrong(field, "give exactly one of path and inline")),
    };
    Ok(Program { source, args: spec.args.clone() })
}

fn directory(field: &str, given: &Option<String>) -> Result<PathBuf, PlanError> {
    let directory = PathBuf::from(given.as_deref().unwrap_or("/"));
    if directory.is_absolute() {
        Ok(directory)
    } else {
        Err(wrong(field, format!("is {:?}; an absolute path is needed", directory.display().to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(json: serde_json::Value) -> api::Resource {
        serde_json::from_value(json).unwrap()
    }

    fn network() -> Network {
        let facts = PathFacts { interface: None, endpoint: Some("192.0.2.1".parse().unwrap()) };
        Network::from([("pub".to_owned(), facts)])
    }

    #[test]
    fn a_path_becomes_the_interface_that_holds_this_servers_endpoint() {
        let spec = serde_json::json!({"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}});
        let Plan::FloatingIp(plan) = Plan::new(&resource(spec), &network()).unwrap() else { panic!("no address") };
        assert_eq!(plan.interface, Interface::Holding("192.0.2.1".parse().unwrap()));
        assert_eq!((plan.prefix, plan.announce_count), (24, 5));
        assert_eq!(plan.announce_repeat, Duration::from_secs(60));
    }

    #[test]
    fn what_can_not_be_carried_out_is_named_with_what_is_allowed() {
        let refused = |json| Plan::new(&resource(json), &network()).unwrap_err().to_string();
        let path = refused(serde_json::json!({"name": "a", "floatingIP": {"address": "192.0.2.10/24", "path": "x"}}));
        assert!(path.contains("floatingIP.path: is \"x\"") && path.contains("pub"), "{path}");
        let signal =
            refused(serde_json::json!({"name": "p", "process": {"command": ["/bin/x"], "stopSignal": "SIGFOO"}}));
        assert!(signal.contains("process.stopSignal: is \"SIGFOO\""), "{signal}");
        let agent = refused(serde_json::json!({"name": "o", "ocf": {"type": "../../../../bin/sh"}}));
        assert!(agent.contains("the type is \"../../../../bin/sh\""), "{agent}");
        let secrets =
            refused(serde_json::json!({"name": "p", "process": {"command": ["/bin/x"], "environmentFrom": ["s"]}}));
        assert!(secrets.contains("process.environmentFrom"), "{secrets}");
    }
}
