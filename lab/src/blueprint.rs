//! Reads the manifests of an example and works out which lab they need: hosts, networks, disks. Pure apart from
//! reading the files.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use holdfast_api::v1::{FailoverGroup, FilesystemType, SubCluster};
use serde::Deserialize;
use serde_yaml::Value;

use crate::error::{Attempt, LabError, Result};

/// Size of the image of a cluster area, MiB.
const AREA_MIB: u64 = 8;
/// Size of the image of a data disk, MiB; file systems that need more get more.
const DATA_MIB: u64 = 64;
/// Where an area may begin behind the file system of such a disk: room for the smallest ext4, and for the area.
const AREA_FROM: u64 = 16 << 20;
const AREA_TO: u64 = (DATA_MIB - 2) << 20;

/// A network of the lab: one LAN path of the sub-cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanPlan {
    /// Name of the path.
    pub name: String,
    /// Name of the network: that of the path, unless sub-clusters of one lab need to be told apart.
    pub network: String,
    /// Name of the interface in every host.
    pub interface: String,
    /// Whether clients are on it.
    pub public: bool,
    /// Prefix length of its addresses: that of a floating address on it, else 24 or 64.
    pub prefix: u8,
    /// Address of every server.
    pub addresses: BTreeMap<String, IpAddr>,
}

/// A serial line of the lab: one serial path of the sub-cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPlan {
    /// Name of the path, also of the line.
    pub name: String,
    /// Device of each of the two servers.
    pub devices: BTreeMap<String, PathBuf>,
}

/// A disk image of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPlan {
    /// Its name in the lab: the last part of the device name.
    pub name: String,
    /// The device name in the manifests.
    pub device: PathBuf,
    /// Its size, MiB.
    pub size_mib: u64,
    /// File system to make on it.
    pub file_system: Option<&'static str>,
    /// Where a cluster area begins on it, in bytes, if it has one.
    pub area_offset: Option<u64>,
}

/// A quorum server of the lab, on a host of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumPlan {
    /// Where it listens.
    pub address: SocketAddr,
    /// The network that it is on.
    pub network: String,
    /// The Lease: namespace/name.
    pub lock: String,
    /// The Secret with the credentials: namespace/name.
    pub secret: String,
}

/// What the manifests need.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The manifests' directory or file.
    pub source: PathBuf,
    /// Namespace of the sub-cluster.
    pub namespace: String,
    /// Name of the sub-cluster.
    pub sub_cluster: String,
    /// Name of the super-cluster, if it has one.
    pub super_cluster: Option<String>,
    /// Names of the servers, by id.
    pub servers: Vec<String>,
    /// Names of the groups, by name.
    pub groups: Vec<String>,
    /// Networks.
    pub lans: Vec<LanPlan>,
    /// Disks.
    pub disks: Vec<DiskPlan>,
    /// The quorum server, if it is the lock.
    pub quorum_server: Option<QuorumPlan>,
    /// Serial lines.
    pub serials: Vec<SerialPlan>,
    /// The first floating IPv4 address of a group, which the client asks.
    pub service_address: Option<IpAddr>,
    /// The heartbeat timeout.
    pub timeout: std::time::Duration,
}

impl Blueprint {
    /// Reads every `.yaml` and `.yml` file of a directory (or the one file).
    ///
    /// # Errors
    /// When a file can't be read or is not YAML, when there is not exactly one SubCluster, or it asks for something
    /// that the lab can't build.
    pub fn read(source: &Path) -> Result<Blueprint> {
        Blueprint::from_documents(source, &documents(source)?)
    }

    /// As [`Blueprint::read`], from documents that were read before.
    ///
    /// # Errors
    /// As [`Blueprint::read`].
    pub fn from_documents(source: &Path, documents: &[(PathBuf, Value)]) -> Result<Blueprint> {
        let sub_clusters: Vec<(PathBuf, SubCluster)> = of_kind(documents, "SubCluster")?;
        let [(file, sub_cluster)] = sub_clusters.as_slice() else {
            return Err(LabError::Manifest {
                file: source.to_path_buf(),
                field: "kind: SubCluster".into(),
                problem: format!("found {}, the lab builds exactly one", sub_clusters.len()),
            });
        };
        Blueprint::of(source, file, sub_cluster, &of_kind(documents, "FailoverGroup")?)
    }

    /// One of every sub-cluster, in the order of the documents, each with its own groups.
    ///
    /// # Errors
    /// When an object is none of its kind, or a sub-cluster asks for something that the lab can't build.
    pub fn each(source: &Path, documents: &[(PathBuf, Value)]) -> Result<Vec<Blueprint>> {
        let sub_clusters: Vec<(PathBuf, SubCluster)> = of_kind(documents, "SubCluster")?;
        let groups: Vec<(PathBuf, FailoverGroup)> = of_kind(documents, "FailoverGroup")?;
        let plan = |(file, sub_cluster): &(PathBuf, SubCluster)| {
            let name = sub_cluster.metadata.name.as_deref();
            let own = groups.iter().filter(|(_, group)| Some(group.spec.sub_cluster.as_str()) == name);
            Blueprint::of(source, file, sub_cluster, &own.cloned().collect::<Vec<_>>())
        };
        sub_clusters.iter().map(plan).collect()
    }

    fn of(
        source: &Path,
        file: &Path,
        sub_cluster: &SubCluster,
        groups: &[(PathBuf, FailoverGroup)],
    ) -> Result<Blueprint> {
        let mut servers: Vec<_> = sub_cluster.spec.servers.iter().collect();
        servers.sort_by_key(|server| server.id);
        let mut names: Vec<String> = groups.iter().filter_map(|(_, group)| group.metadata.name.clone()).collect();
        names.sort();
        let lans = lans(file, sub_cluster, groups)?;
        Ok(Blueprint {
            source: source.to_path_buf(),
            namespace: sub_cluster.metadata.namespace.clone().unwrap_or_else(|| "default".into()),
            sub_cluster: sub_cluster.metadata.name.clone().unwrap_or_default(),
            super_cluster: sub_cluster.spec.super_cluster.as_ref().map(|reference| reference.name.clone()),
            servers: servers.iter().map(|server| server.name.clone()).collect(),
            groups: names,
            quorum_server: quorum_server(file, sub_cluster, &lans)?,
            lans,
            disks: disks(file, sub_cluster, groups)?,
            serials: serials(sub_cluster),
            service_address: floating(groups).map(|(_, address, _)| address).find(IpAddr::is_ipv4),
            timeout: sub_cluster.spec.heartbeat.timeout.get(),
        })
    }

    /// The public network, where the client and the control plane are; the first network if none is public.
    ///
    /// # Errors
    /// When there is no network at all.
    pub fn public_lan(&self) -> Result<&LanPlan> {
        self.lans.iter().find(|lan| lan.public).or(self.lans.first()).ok_or_else(|| LabError::Manifest {
            file: self.source.clone(),
            field: "spec.heartbeat.paths".into(),
            problem: "there is no lan path; the client and the control plane need one to reach the servers".into(),
        })
    }

    /// An address of a network that no server has: number `wanted` counted from the end of the subnet.
    ///
    /// # Errors
    /// When the network has no addresses to count from.
    pub fn spare_address(&self, lan: &LanPlan, wanted: u8) -> Result<IpAddr> {
        let base = lan.addresses.values().next().copied().ok_or_else(|| LabError::Manifest {
            file: self.source.clone(),
            field: format!("spec.heartbeat.paths[name={:?}].lan.endpoints", lan.name),
            problem: "it is empty; every server needs an address".into(),
        })?;
        Ok(match base {
            IpAddr::V4(address) => {
                let host_bits = 32_u32.saturating_sub(u32::from(lan.prefix)).min(8);
                let mask = (1_u32 << host_bits) - 1;
                IpAddr::V4(((u32::from(address) & !mask) | (mask - u32::from(wanted))).into())
            }
            IpAddr::V6(address) => IpAddr::V6(((u128::from(address) & !0xffff) | (0xffff - u128::from(wanted))).into()),
        })
    }
}

/// Every YAML document of a directory's files, in the order of their names, each with its file.
///
/// # Errors
/// When a file can't be read or is not YAML.
pub fn documents(source: &Path) -> Result<Vec<(PathBuf, Value)>> {
    let mut files = Vec::new();
    if source.is_dir() {
        for entry in fs::read_dir(source).attempt(|| format!("listing {}", source.display()))?.flatten() {
            let path = entry.path();
            let is_yaml = path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
            // A kustomization lists files and is no object.
            if is_yaml && path.file_stem().is_some_and(|stem| stem != "kustomization") {
                files.push(path);
            }
        }
        files.sort();
    } else {
        files.push(source.to_path_buf());
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).attempt(|| format!("reading {}", file.display()))?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value = Value::deserialize(document).map_err(|error| LabError::Manifest {
                file: file.clone(),
                field: "YAML".into(),
                problem: error.to_string(),
            })?;
            if !value.is_null() {
                found.push((file.clone(), value));
            }
        }
    }
    Ok(found)
}

pub(crate) fn of_kind<T: serde::de::DeserializeOwned>(
    documents: &[(PathBuf, Value)],
    kind: &str,
) -> Result<Vec<(PathBuf, T)>> {
    let wanted = documents.iter().filter(|(_, value)| value.get("kind").and_then(Value::as_str) == Some(kind));
    wanted
        .map(|(file, value)| match serde_yaml::from_value(value.clone()) {
            Ok(object) => Ok((file.clone(), object)),
            Err(error) => {
                Err(LabError::Manifest { file: file.clone(), field: kind.into(), problem: error.to_string() })
            }
        })
        .collect()
}

/// Every floating address: its LAN path if it names one, the address, the prefix length.
fn floating(groups: &[(PathBuf, FailoverGroup)]) -> impl Iterator<Item = (Option<&str>, IpAddr, u8)> {
    groups.iter().flat_map(|(_, group)| &group.spec.resources).filter_map(|resource| {
        let floating = resource.floating_ip.as_ref()?;
        let (address, prefix) = floating.address.split_once('/')?;
        Some((floating.path.as_deref(), address.parse().ok()?, prefix.parse().ok()?))
    })
}

fn lans(file: &Path, sub_cluster: &SubCluster, groups: &[(PathBuf, FailoverGroup)]) -> Result<Vec<LanPlan>> {
    let mut found = Vec::new();
    for path in &sub_cluster.spec.heartbeat.paths {
        let field = format!("spec.heartbeat.paths[name={:?}]", path.name);
        let Some(lan) = &path.lan else { continue };
        let interface = lan.interface.clone().unwrap_or_else(|| path.name.chars().take(15).collect());
        let mut addresses = BTreeMap::new();
        for endpoint in &lan.endpoints {
            let address = endpoint.address.parse().map_err(|_| LabError::Manifest {
                file: file.to_path_buf(),
                field: format!("{field}.lan.endpoints[server={:?}].address", endpoint.server),
                problem: format!("{:?} is not an IP address", endpoint.address),
            })?;
            addresses.insert(endpoint.server.clone(), address);
        }
        let is_v6 = addresses.values().any(IpAddr::is_ipv6);
        let floating_prefix = floating(groups)
            .find(|(on, address, _)| *on == Some(path.name.as_str()) && address.is_ipv6() == is_v6)
            .map(|(_, _, prefix)| prefix);
        found.push(LanPlan {
            name: path.name.clone(),
            network: path.name.clone(),
            interface,
            public: lan.role == holdfast_api::v1::LanRole::Public,
            prefix: floating_prefix.unwrap_or(if is_v6 { 64 } else { 24 }),
            addresses,
        });
    }
    Ok(found)
}

fn quorum_server(file: &Path, sub_cluster: &SubCluster, lans: &[LanPlan]) -> Result<Option<QuorumPlan>> {
    let Some(server) = &sub_cluster.spec.quorum.quorum_server else { return Ok(None) };
    let refuse = |field: &str, problem: String| {
        let field = format!("spec.quorum.quorumServer.{field}");
        LabError::Manifest { file: file.to_path_buf(), field, problem }
    };
    let url = server.urls.first().map(String::as_str).unwrap_or_default();
    let address: SocketAddr = url.strip_prefix("https://").and_then(|rest| rest.parse().ok()).ok_or_else(|| {
        refuse("urls[0]", format!("{url:?}: the lab needs an IP address and a port, as in https://192.0.2.100:7443"))
    })?;
    let lan = lans.iter().find(|lan| lan.addresses.values().any(|own| same_network(*own, address.ip(), lan.prefix)));
    let lan = lan.ok_or_else(|| refuse("urls[0]", format!("{} is in no network of a lan path", address.ip())))?;
    let secret = server.credential_secret.as_ref().ok_or_else(|| {
        refuse("credentialSecret", "it is missing; the lab's quorum server knows only credentials of its own".into())
    })?;
    let namespace = sub_cluster.metadata.namespace.as_deref().unwrap_or("default");
    Ok(Some(QuorumPlan {
        address,
        network: lan.name.clone(),
        lock: format!("{}/{}", server.lease.namespace, server.lease.name),
        secret: format!("{namespace}/{secret}"),
    }))
}

pub(crate) fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (one, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros() >= prefix,
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros() >= prefix,
        _ => false,
    }
}

fn serials(sub_cluster: &SubCluster) -> Vec<SerialPlan> {
    let paths = sub_cluster.spec.heartbeat.paths.iter();
    paths
        .filter_map(|path| {
            let ends = path.serial.as_ref()?.devices.iter();
            let devices = ends.map(|end| (end.server.clone(), PathBuf::from(&end.device))).collect();
            Some(SerialPlan { name: path.name.clone(), devices })
        })
        .collect()
}

fn disks(file: &Path, sub_cluster: &SubCluster, groups: &[(PathBuf, FailoverGroup)]) -> Result<Vec<DiskPlan>> {
    let mut found: BTreeMap<String, DiskPlan> = BTreeMap::new();
    let mut add = |device: &str, size_mib: u64| {
        let name = device.trim_start_matches("/dev/").replace('/', "-");
        let plan = DiskPlan { name, device: device.into(), size_mib, file_system: None, area_offset: None };
        found.entry(device.to_string()).or_insert(plan).size_mib = size_mib;
    };
    for disk in &sub_cluster.spec.disks {
        add(&disk.device, DATA_MIB);
        if let Some(area) = disk.area.as_ref().filter(|area| area.device != disk.device) {
            add(&area.device, AREA_MIB);
        }
    }
    for disk in &sub_cluster.spec.disks {
        if let Some(area) = &disk.area
            && let Some(plan) = found.get_mut(&area.device)
        {
            plan.area_offset = Some(area.offset);
        }
    }
    for (group_file, group) in groups {
        for resource in &group.spec.resources {
            let Some(filesystem) = &resource.filesystem else { continue };
            let kind = match filesystem.type_ {
                FilesystemType::Ext4 => "ext4",
                FilesystemType::Xfs => "xfs",
                FilesystemType::Btrfs => "btrfs",
                FilesystemType::Bind => continue,
                FilesystemType::Nfs => {
                    return Err(LabError::Manifest {
                        file: group_file.clone(),
                        field: format!("spec.resources[name={:?}].filesystem.type", resource.name),
                        problem: "the lab has no NFS server; allowed are ext4, xfs, btrfs, bind".into(),
                    });
                }
            };
            let name = filesystem.device.trim_start_matches("/dev/").replace('/', "-");
            let device = PathBuf::from(&filesystem.device);
            let plan = found.entry(filesystem.device.clone()).or_insert(DiskPlan {
                name,
                device,
                size_mib: DATA_MIB,
                file_system: None,
                area_offset: None,
            });
            plan.file_system = Some(kind);
        }
    }
    // An area on a disk with a file system is behind it (S3): the file system ends where the area begins.
    let inside = |plan: &&DiskPlan| {
        plan.file_system.is_some() && plan.area_offset.is_some_and(|offset| !(AREA_FROM..=AREA_TO).contains(&offset))
    };
    match found.values().find(inside) {
        Some(both) => Err(LabError::Manifest {
            file: file.to_path_buf(),
            field: "spec.disks[].area.offset".into(),
            problem: format!(
                "{} has a file system, too, so the area comes behind it; the lab's disks allow an offset of \
                 {AREA_FROM} to {AREA_TO}",
                both.device.display()
            ),
        }),
        None => Ok(found.into_values().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str) -> Blueprint {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        Blueprint::read(&path).expect("the example is readable")
    }

    #[test]
    fn two_servers_need_two_networks_an_area_and_a_file_system() {
        let plan = example("two-servers");
        assert_eq!(plan.servers, ["alder", "birch"]);
        let lans: Vec<_> = plan.lans.iter().map(|lan| (lan.name.as_str(), lan.public, lan.prefix)).collect();
        assert_eq!(lans, [("ic", false, 24), ("pub", true, 24)]);
        let disks: Vec<_> = plan
            .disks
            .iter()
            .map(|disk| (disk.name.as_str(), disk.size_mib, disk.file_system, disk.area_offset))
            .collect();
        assert_eq!(disks, [("holdfast-area", 8, None, Some(0)), ("holdfast-data", 64, Some("ext4"), None)]);
        assert_eq!(plan.service_address, Some("192.0.2.10".parse().expect("an address")));
        let spare = plan.spare_address(plan.public_lan().expect("a public network"), 1).expect("an address");
        assert_eq!(spare.to_string(), "192.0.2.254");
    }

    #[test]
    fn a_quorum_server_gets_a_host_on_the_network_of_its_address() {
        let plan = example("four-servers").quorum_server.expect("it has one");
        assert_eq!((plan.address.to_string().as_str(), plan.network.as_str()), ("192.0.2.100:7443", "pub"));
        assert_eq!((plan.lock.as_str(), plan.secret.as_str()), ("ha/quartet", "ha/quartet-quorum"));
        assert_eq!(example("three-servers").quorum_server, None);
    }

    #[test]
    fn what_the_lab_cannot_build_is_refused_with_its_field() {
        let empty = Blueprint::from_documents(Path::new("dir"), &[]).expect_err("no sub-cluster").to_string();
        assert!(empty.contains("found 0, the lab builds exactly one"), "{empty}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-servers");
        let mut all = documents(&path).expect("the example is readable");
        for (_, document) in &mut all {
            let text =
                serde_yaml::to_string(document).expect("YAML").replace("/dev/holdfast/area", "/dev/holdfast/data");
            *document = serde_yaml::from_str(&text).expect("YAML");
        }
        let shared = Blueprint::from_documents(&path, &all).expect_err("area on a file system").to_string();
        assert!(shared.contains("/dev/holdfast/data has a file system, too"), "{shared}");
    }
}
