//! The quorum server's host: the machine outside of the sub-cluster, set up by the commands that an administrator uses.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::{WITNESS, control};
use crate::blueprint::{Blueprint, QuorumPlan};
use crate::error::{Attempt, LabError, Result};
use crate::host::Host;
use crate::lab::{CableConfig, HostConfig, Lab};
use crate::spec::{BIN_DIR, STATE_DIR, ServiceSpec};

const SERVICE: &str = "quorum-server";

/// Makes the host, starts the quorum server, makes the lock, and puts the Secret for it among the manifests.
pub(super) fn build(lab: &Lab, blueprint: &Blueprint, plan: &QuorumPlan, manifests: &Path) -> Result<()> {
    let lan = blueprint.lans.iter().find(|lan| lan.name == plan.network).ok_or_else(|| LabError::Unknown {
        kind: "network",
        name: plan.network.clone(),
        known: blueprint.lans.iter().map(|lan| lan.name.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let data = format!("{STATE_DIR}/{SERVICE}");
    let (binary, listen) = (format!("{BIN_DIR}/holdfast"), plan.address.to_string());
    let line = [binary.as_str(), SERVICE, "--data-dir", &data, "--listen", &listen].map(str::to_owned).to_vec();
    let service = ServiceSpec { name: SERVICE.into(), command: line, environment: Default::default() };
    let cable = CableConfig {
        network: lan.network.clone(),
        interface: Some(lan.interface.clone()),
        addresses: vec![(plan.address.ip(), lan.prefix)],
    };
    let config = HostConfig { networks: vec![cable], services: vec![service], ..HostConfig::default() };
    let host = lab.add_host(WITNESS, &config)?;
    lab.power_on(WITNESS)?;
    start(&host, plan.address)?;
    let admin = format!("{data}/admin.kubeconfig");
    host.exec(&["holdfast", "lock", "create", &plan.lock, "--kubeconfig", &admin])?;
    let secret = format!("{STATE_DIR}/secret.yaml");
    let issue = ["holdfast", "lock", "credentials", &plan.lock, "--data-dir", &data, "--secret", &plan.secret];
    host.exec(&[issue.as_slice(), &["--out", &secret]].concat())?;
    let (from, to) = (host.state_dir().join("secret.yaml"), manifests.join("quorum-secret.yaml"));
    fs::copy(&from, &to).map(drop).attempt(|| format!("copying {} to {}", from.display(), to.display()))
}

/// Starts the quorum server and waits until it answers.
pub(super) fn start(host: &Arc<Host>, address: SocketAddr) -> Result<()> {
    control::start_api(host, SERVICE, address)
}
