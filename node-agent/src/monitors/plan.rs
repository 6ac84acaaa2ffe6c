//! What a monitor checks, resolved on this server: names of paths, disks and resources are replaced by what they are here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use holdfast_api::v1 as api;
use holdfast_core::names::{ResourceName, ServerName};
use serde::{Deserialize, Serialize};

use crate::quorum::access::CA;
use crate::resources::plan::{Interface, lan_interface};
use crate::resources::{self, Network, Sources};

/// What a monitor checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Plan {
    /// A program.
    Exec(api::ExecCheck),
    /// A request to a web server.
    Http {
        /// What is asked and expected.
        check: api::HttpCheck,
        /// Who may have signed its certificate; none: whom this system trusts.
        authorities: Option<Authorities>,
    },
    /// A TCP connection.
    Tcp(api::TcpCheck),
    /// The number of processes.
    Process {
        /// Which.
        of: Processes,
        /// At least so many.
        min: u32,
        /// At most so many; none: any number.
        max: Option<u32>,
    },
    /// Answers to ping.
    Icmp(api::IcmpCheck),
    /// The link of an interface.
    Link(Interface),
    /// Reads and writes of a disk.
    DiskIo(DiskIo),
    /// An address.
    Address(Address),
    /// How full something is.
    Usage(api::UsageCheck),
    /// Lines of the journal.
    Journal(api::JournalCheck),
}

/// Authorities from a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorities {
    /// The Secret.
    pub secret: String,
    /// Their certificates.
    pub pem: String,
}

/// Processes that are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Processes {
    /// Whose command line matches.
    Matching(String),
    /// Of a resource of the group.
    OfResource(String),
}

/// A disk that is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskIo {
    /// What is read.
    pub device: PathBuf,
    /// What is written to, if anything.
    pub area: Option<OwnSlot>,
}

/// This server's slot in the area of a shared disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnSlot {
    /// Where the area is.
    pub device: PathBuf,
    /// Its first byte.
    pub offset: u64,
    /// 1..=16.
    pub slot: u8,
}

/// An address that has to be on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Where it is and where others are asked for it; none: it is on no network that can be asked.
    pub interface: Option<Interface>,
}

/// A shared disk as this server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDisk {
    /// The disk.
    pub device: PathBuf,
    /// Its area, if it has one.
    pub area: Option<OwnSlot>,
}

/// What names in a monitor mean on this server.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Its LAN paths.
    pub network: &'a Network,
    /// The sub-cluster's shared disks.
    pub disks: &'a BTreeMap<String, SharedDisk>,
    /// The group's resources.
    pub resources: &'a BTreeMap<ResourceName, api::Resource>,
    /// Secrets that monitors name.
    pub sources: &'a Sources,
}

/// The shared disks of a sub-cluster, as the server called `me` has them.
pub fn shared_disks(spec: &api::SubClusterSpec, me: &ServerName) -> BTreeMap<String, SharedDisk> {
    let slot = spec.servers.iter().find(|server| server.name == me.0).map(|server| server.id);
    let one = |disk: &api::SharedDisk| {
        let area = disk.area.as_ref().zip(slot).map(|(area, slot)| OwnSlot {
            device: PathBuf::from(&area.device),
            offset: area.offset,
            slot,
        });
        (disk.name.clone(), SharedDisk { device: PathBuf::from(&disk.device), area })
    };
    spec.disks.iter().map(one).collect()
}

impl Plan {
    /// Resolves a specification on this server.
    ///
    /// # Errors
    /// Names the field that means nothing here.
    pub fn new(monitor: &api::Monitor, facts: &Facts<'_>) -> Result<Plan, String> {
        if let Some(check) = &monitor.exec {
            return Ok(Plan::Exec(check.clone()));
        }
        if let Some(check) = &monitor.http {
            let authorities = check.ca_secret.as_ref().map(|name| authorities(name, facts.sources)).transpose()?;
            return Ok(Plan::Http { check: check.clone(), authorities });
        }
        if let Some(check) = &monitor.tcp {
            return Ok(Plan::Tcp(check.clone()));
        }
        if let Some(check) = &monitor.process {
            let of = match (&check.pattern, &check.resource) {
                (Some(pattern), None) => Processes::Matching(pattern.clone()),
                (None, Some(resource)) => Processes::OfResource(resource.clone()),
                _ => return Err("process: give exactly one of pattern and resource".into()),
            };
            return Ok(Plan::Process { of, min: check.at_least(), max: check.max });
        }
        if let Some(check) = &monitor.icmp {
            return Ok(Plan::Icmp(check.clone()));
        }
        if let Some(check) = &monitor.link {
            return match (&check.interface, &check.path) {
                (Some(name), None) => Ok(Interface::Named(name.clone())),
                (None, Some(path)) => lan_interface("link.path", path, facts.network).map_err(|e| e.to_string()),
                _ => Err("link: give exactly one of path and interface".into()),
            }
            .map(Plan::Link);
        }
        if let Some(check) = &monitor.disk_io {
            return disk_io(check, facts).map(Plan::DiskIo);
        }
        if let Some(check) = &monitor.address {
            return address(check, facts).map(Plan::Address);
        }
        if let Some(check) = &monitor.usage {
            return Ok(Plan::Usage(check.clone()));
        }
        if let Some(check) = &monitor.journal {
            return Ok(Plan::Journal(check.clone()));
        }
        Err("it has no member that this version carries out".into())
    }

    /// Whether it may change something that others see: a program may, whatever it is meant to do.
    pub fn acts(&self) -> bool {
        matches!(self, Plan::Exec(_))
    }
}

fn authorities(secret: &str, sources: &Sources) -> Result<Authorities, String> {
    let pem = sources.entry(secret, CA, "http.caSecret").map_err(|e| e.to_string())?;
    Ok(Authorities { secret: secret.to_owned(), pem })
}

fn disk_io(check: &api::DiskIoCheck, facts: &Facts<'_>) -> Result<DiskIo, String> {
    let name = match (&check.device, &check.disk) {
        (Some(device), None) if check.write => {
            return Err(format!(
                "diskIO.write: {device} has no area to write to; name a disk of the sub-cluster by disk"
            ));
        }
        (Some(device), None) => return Ok(DiskIo { device: PathBuf::from(device), area: None }),
        (None, Some(name)) => name,
        _ => return Err("diskIO: give exactly one of disk and device".into()),
    };
    let known = || facts.disks.keys().cloned().collect::<Vec<_>>().join(", ");
    let disk = facts
        .disks
        .get(name)
        .ok_or_else(|| format!("diskIO.disk: the sub-cluster has no disk {name:?}; it has {}", known()))?;
    let no_area = || format!("diskIO.write: the disk {name} has no area to write to; remove write, or give it an area");
    let area = if check.write { Some(disk.area.clone().ok_or_else(no_area)?) } else { None };
    Ok(DiskIo { device: disk.device.clone(), area })
}

fn address(check: &api::AddressCheck, facts: &Facts<'_>) -> Result<Address, String> {
    let wrong = |problem: &str| format!("address.resource: {} {problem}", check.resource);
    let resource = facts
        .resources
        .get(check.resource.as_str())
        .ok_or_else(|| wrong("is no resource of what runs here; what runs is older than the specification"))?;
    if let Some(spec) = &resource.virtual_ip {
        let bare = spec.address.split('/').next().unwrap_or_default();
        let address = bare.parse().map_err(|_| wrong("has an address that can't be read"))?;
        return Ok(Address { address, interface: None });
    }
    match resources::Plan::new(resource, facts.network) {
        Ok(resources::Plan::FloatingIp(plan)) => Ok(Address { address: plan.address, interface: Some(plan.interface) }),
        Ok(_) => Err(wrong("holds no address; name a floatingIP or virtualIP resource")),
        Err(problem) => Err(wrong(&format!("can't be carried out here: {problem}"))),
    }
}
