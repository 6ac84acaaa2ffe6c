//! What every lab with agents is made of: the wiring of a server, the files on it, the manifests.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml::Value;

use super::{AGENT, ClusterOptions, Companion, POWERED_OFF};
use crate::blueprint::{Blueprint, LanPlan};
use crate::disk::DiskConfig;
use crate::error::{Attempt, LabError, Result};
use crate::host::Host;
use crate::lab::{CableConfig, HostConfig, Lab, SerialConfig};
use crate::shell::wait_for;
use crate::spec::{BIN_DIR, STATE_DIR, ServiceSpec};

/// Makes the disks and serial lines of a sub-cluster.
pub(super) fn add_disks_and_lines(lab: &Lab, blueprint: &Blueprint, sector_size: Option<u32>) -> Result<()> {
    for disk in &blueprint.disks {
        lab.add_disk(&DiskConfig {
            name: &disk.name,
            size_mib: disk.size_mib,
            file_system: disk.file_system,
            kept_free: disk.area_offset.filter(|offset| *offset > 0),
            sector_size: sector_size.unwrap_or(512),
        })?;
    }
    blueprint.serials.iter().try_for_each(|line| lab.add_serial(&line.name))
}

/// Writes an empty cluster area wherever one belongs, on one of the servers.
pub(super) fn format_areas(host: &Host, blueprint: &Blueprint) -> Result<()> {
    for disk in &blueprint.disks {
        let Some(offset) = disk.area_offset else { continue };
        let (device, offset) = (disk.device.to_string_lossy().into_owned(), offset.to_string());
        host.exec(&["holdfast", "disk", "format", "--device", &device, "--offset", &offset])?;
    }
    Ok(())
}

/// A host that is no server: on one network, without disks.
pub(super) fn outside(lan: &LanPlan, address: IpAddr, services: Vec<ServiceSpec>) -> HostConfig {
    let cable = CableConfig {
        network: lan.network.clone(),
        interface: Some(lan.interface.clone()),
        addresses: vec![(address, lan.prefix)],
    };
    HostConfig { networks: vec![cable], services, ..HostConfig::default() }
}

/// Starts them one after the other.
pub(super) fn start_companions(host: &Host, companions: &[Companion]) -> Result<()> {
    for Companion { service, ready } in companions {
        host.start_service(&service.name)?;
        let what = format!("{} on {} to be ready", service.name, host.name());
        wait_for(&what, Duration::from_secs(20), |last| {
            *last = format!("there is no {}", ready.display());
            Ok(host.path(&ready.to_string_lossy())?.exists().then_some(()))
        })?;
    }
    Ok(())
}

/// Wiring and services of a server.
pub(super) fn server_config(blueprint: &Blueprint, server: &str, options: &ClusterOptions<'_>) -> HostConfig {
    let networks = blueprint
        .lans
        .iter()
        .filter_map(|lan| {
            let address = lan.addresses.get(server)?;
            Some(CableConfig {
                network: lan.network.clone(),
                interface: Some(lan.interface.clone()),
                addresses: vec![(*address, lan.prefix)],
            })
        })
        .collect();
    let disks = blueprint.disks.iter().map(|disk| (disk.name.clone(), vec![disk.device.clone()])).collect();
    let command =
        vec![format!("{BIN_DIR}/holdfast"), "agent".into(), "--config".into(), format!("{STATE_DIR}/agent.yaml")];
    let agent = ServiceSpec { name: AGENT.into(), command, environment: Default::default() };
    let serials = blueprint.serials.iter().filter_map(|line| {
        let end = line.devices.keys().position(|name| name == server)?;
        Some(SerialConfig { line: line.name.clone(), end, device: line.devices[server].clone() })
    });
    HostConfig {
        networks,
        disks,
        faulty_disks: options.faulty_disks,
        watchdog: options.watchdogs.then(|| "/dev/watchdog".into()),
        serials: serials.collect(),
        services: options.companions.iter().map(|one| one.service.clone()).chain([agent]).collect(),
    }
}

/// `bootstrap`: the file that the agent takes its first specification from, if it has one.
pub(super) fn write_agent_file(
    host: &Host,
    blueprint: &Blueprint,
    server: &str,
    api: SocketAddr,
    bootstrap: Option<&str>,
) -> Result<()> {
    let mut file = serde_json::json!({
        "api": [format!("https://{api}")],
        "namespace": blueprint.namespace,
        "subCluster": blueprint.sub_cluster,
        "server": server,
        "credentials": format!("{STATE_DIR}/agent.kubeconfig"),
        "dataDir": format!("{STATE_DIR}/agent"),
        "runDir": "/run/holdfast",
        "cgroup": "/sys/fs/cgroup/holdfast",
        "metrics": "127.0.0.1:9797",
        // Its power is the lab's: what it wants is seen in a file, a line for each time.
        "powerOff": ["/bin/sh", "-c", format!("echo off >> {STATE_DIR}/{POWERED_OFF}")],
    });
    if let Some(bootstrap) = bootstrap {
        file["bootstrapManifest"] = bootstrap.into();
    }
    let text = serde_yaml::to_string(&file).map_err(|error| LabError::Api(error.to_string()))?;
    let path = host.state_dir().join("agent.yaml");
    fs::write(&path, text).attempt(|| format!("writing {}", path.display()))
}

/// Writes the documents, as they are after editing, into the lab's directory: what is applied is what was planned.
pub(super) fn write_manifests(directory: &Path, documents: &[(PathBuf, Value)]) -> Result<PathBuf> {
    let target = directory.join("manifests");
    fs::create_dir_all(&target).attempt(|| format!("making {}", target.display()))?;
    for (index, (_, document)) in documents.iter().enumerate() {
        write_document(&target.join(format!("{index:02}.yaml")), document)?;
    }
    Ok(target)
}

pub(super) fn write_document(path: &Path, document: &Value) -> Result<()> {
    let text = serde_yaml::to_string(document).map_err(|error| LabError::Api(error.to_string()))?;
    fs::write(path, text).attempt(|| format!("writing {}", path.display()))
}
