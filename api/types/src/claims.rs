//! Claims: what a group has exclusively while it may run (row C9). Two groups with a claim in common are never accepted
//! together.
//!
//! A claim is derived from the spec alone. That the same disk has two names, or that somebody outside Holdfast answers for
//! an address, is found out on the servers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::v1::{FailoverGroupSpec, Filesystem, FilesystemType, Resource};

/// Whether another server can write to what it stands for. What an agent of another maker writes to nobody knows here: it
/// counts as shared.
pub fn is_shared_data(resource: &Resource) -> bool {
    let on_disk = |f: &Filesystem| f.disk.is_some() || f.type_ == FilesystemType::Nfs;
    resource.ocf.is_some() || resource.volume_group.is_some() || resource.filesystem.as_ref().is_some_and(on_disk)
}

/// One thing that a group has exclusively. Its text form stands in `status.claims`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A disk or partition, by the name that the spec uses.
    Disk(String),
    /// An LVM volume group, by its UUID without dashes.
    VolumeGroup(String),
    /// A directory that is exported by NFS.
    Export(String),
    /// The id of an export, which a server can have once.
    Fsid(String),
    /// A mount point.
    Mount(String),
    /// An address.
    Ip(IpAddr),
    /// A unit of systemd.
    Unit(String),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(device) => write!(f, "disk:{}", device.strip_prefix("/dev/disk/by-id/").unwrap_or(device)),
            Self::VolumeGroup(uuid) => write!(f, "vg:{uuid}"),
            Self::Export(path) => write!(f, "export:{path}"),
            Self::Fsid(id) => write!(f, "fsid:{id}"),
            Self::Mount(path) => write!(f, "mount:{path}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::Unit(unit) => write!(f, "unit:{unit}"),
        }
    }
}

/// A claim with the resource that makes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfResource {
    /// The claim.
    pub claim: Claim,
    /// Name of the resource.
    pub resource: String,
}

/// Every claim of a group, in order of its resources; the same claim may occur twice, which is a conflict by itself.
/// Addresses that can't be read make no claim: the schema refuses them.
pub fn of(spec: &FailoverGroupSpec) -> Vec<OfResource> {
    let mut claims = Vec::new();
    for resource in &spec.resources {
        let mut add = |claim| claims.push(OfResource { claim, resource: resource.name.clone() });
        if let Some(filesystem) = &resource.filesystem {
            if is_on_disk(filesystem.type_) {
                add(Claim::Disk(trimmed(&filesystem.device)));
            }
            add(Claim::Mount(trimmed(&filesystem.mount_point)));
        }
        if let Some(group) = &resource.volume_group {
            add(Claim::VolumeGroup(group.uuid.chars().filter(|c| *c != '-').collect()));
        }
        if let Some(export) = &resource.nfs_export {
            add(Claim::Export(trimmed(&export.path)));
            add(Claim::Fsid(export.fsid.clone()));
        }
        let addresses = [
            resource.floating_ip.as_ref().map(|ip| ip.address.as_str()),
            resource.virtual_ip.as_ref().map(|ip| ip.address.as_str()),
        ];
        for address in addresses.into_iter().flatten() {
            let host = address.split_once('/').map_or(address, |(host, _)| host);
            if let Ok(address) = host.parse() {
                add(Claim::Ip(address));
            }
        }
        if let Some(systemd) = &resource.systemd {
            add(Claim::Unit(systemd.unit.clone()));
        }
    }
    claims
}

/// Whether the device of such a file system is a disk: that of a bind mount is a directory, that of NFS somebody else's.
pub fn is_on_disk(kind: FilesystemType) -> bool {
    !matches!(kind, FilesystemType::Bind | FilesystemType::Nfs)
}

/// The text forms of all claims of a group, each once, sorted: `status.claims`.
pub fn texts(spec: &FailoverGroupSpec) -> Vec<String> {
    of(spec).into_iter().map(|of| of.claim.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether a claim, in its text form, counts over all groups of the API. Mount points, units, and device names that another
/// sub-cluster may give to another disk (`/dev/mapper/…`, `/dev/VG/LV`) count within a sub-cluster.
pub fn is_global(text: &str) -> bool {
    match text.split_once(':') {
        Some(("ip" | "vg", _)) => true,
        Some(("disk", device)) => !device.starts_with("/dev/") || device.starts_with("/dev/disk/by-"),
        _ => false,
    }
}

/// A path without doubled or final slashes, so that one place has one claim.
fn trimmed(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_string();
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_one_text() {
        let spec: FailoverGroupSpec = serde_json::from_value(serde_json::json!({
            "subCluster": "db",
            "resources": [
                {"name": "data", "filesystem": {"device": "/dev/disk/by-id/wwn-0x51-part2", "mountPoint": "/srv//ledger/", "type": "ext4"}},
                {"name": "logs", "filesystem": {"device": "/srv/ledger/logs", "mountPoint": "/var/log/ledger", "type": "bind"}},
                {"name": "lvm", "volumeGroup": {"uuid": "abcdef-1234-5678-90ab-cdef-1234-567890"}},
                {"name": "share", "nfsExport": {"path": "/srv/ledger/", "fsid": "1", "clients": [{"network": "192.0.2.0/24"}]}},
                {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}},
                {"name": "addr6", "floatingIP": {"address": "2001:DB8::0:10/64", "path": "pub"}},
            ],
        }))
        .unwrap();
        assert_eq!(
            texts(&spec),
            [
                "disk:wwn-0x51-part2",
                "export:/srv/ledger",
                "fsid:1",
                "ip:192.0.2.10",
                "ip:2001:db8::10",
                "mount:/srv/ledger",
                "mount:/var/log/ledger",
                "vg:abcdef1234567890abcdef1234567890",
            ]
        );
    }

    #[test]
    fn only_names_that_mean_one_disk_everywhere_count_everywhere() {
        for (device, global) in [
            ("/dev/disk/by-id/wwn-0x51", true),
            ("/dev/disk/by-uuid/51", true),
            ("UUID=51", true),
            ("/dev/mapper/data", false),
            ("/dev/vg0/data", false),
        ] {
            assert_eq!(is_global(&Claim::Disk(device.into()).to_string()), global, "{device}");
        }
        assert!(is_global("ip:192.0.2.10") && !is_global("mount:/srv/ledger"));
    }
}
