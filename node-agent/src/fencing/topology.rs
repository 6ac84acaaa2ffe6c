//! The fence devices of a sub-cluster as they are to be called: for every server its levels in order, each device with
//! all parameters, those of Secrets included. Secrets override what stands in the specification.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_api::v1 as api;
use holdfast_core::config::{Fencing, FencingMode};
use holdfast_core::names::ServerName;

/// Values of Secrets by Secret and key. Its debug form shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// One device, as it is called for one server.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name in the specification.
    pub name: String,
    /// The agent.
    pub agent: String,
    /// What the device calls the server.
    pub plug: String,
    /// The server.
    pub server: String,
    /// Switch on again after it was verified off.
    pub reboot: bool,
    /// Longest time for one attempt.
    pub timeout: Duration,
    /// Further attempts after the first.
    pub retries: u8,
    /// Parameters of specification and Secrets.
    pub parameters: BTreeMap<String, String>,
    /// Values that must not be told.
    pub secrets: Vec<String>,
    /// What is missing of it here; none: nothing.
    pub missing: Option<String>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} for {} as {})", self.name, self.agent, self.server, self.plug)
    }
}

/// One level: all devices of it must succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// 1..9.
    pub level: u8,
    /// In order.
    pub devices: Vec<Device>,
}

/// Levels per server, lowest first.
pub type Topology = BTreeMap<String, Vec<Level>>;

/// Fencing as the core sees it.
pub fn core_config(spec: &api::SubClusterSpec) -> Fencing {
    let Some(fencing) = &spec.fencing else { return Fencing::default() };
    Fencing {
        mode: match fencing.mode {
            api::FencingMode::Disabled => FencingMode::Disabled,
            api::FencingMode::BestEffort => FencingMode::BestEffort,
            api::FencingMode::Required => FencingMode::Required,
        },
        servers: fencing.levels.iter().map(|level| ServerName(level.server.clone())).collect(),
    }
}

/// Names of all Secrets that the devices need.
pub fn secret_names(spec: &api::SubClusterSpec) -> BTreeSet<String> {
    let devices = spec.fencing.iter().flat_map(|fencing| &fencing.devices);
    devices.flat_map(|device| device.parameters_from.iter().cloned()).collect()
}

/// The devices of every server.
pub fn topology(spec: &api::SubClusterSpec, secrets: &Secrets) -> Topology {
    let mut all = Topology::new();
    for level in spec.fencing.iter().flat_map(|fencing| &fencing.levels) {
        let devices = level.devices.iter().filter_map(|name| device(spec, name, &level.server, secrets)).collect();
        all.entry(level.server.clone()).or_default().push(Level { level: level.level, devices });
    }
    for levels in all.values_mut() {
        levels.sort_by_key(|level| level.level);
    }
    all
}

fn device(spec: &api::SubClusterSpec, name: &str, server: &str, secrets: &Secrets) -> Option<Device> {
    let device = spec.fencing.as_ref()?.devices.iter().find(|device| device.name == name)?;
    let plug = device.hosts.iter().find(|host| host.server == server).map(|host| host.plug.clone());
    let mut missing = Vec::new();
    let mut parameters = device.parameters.clone();
    let mut values = Vec::new();
    for secret in &device.parameters_from {
        let Some(data) = secrets.0.get(secret) else {
            missing.push(format!("Secret {secret} is not known here; create it, or correct parametersFrom"));
            continue;
        };
        for (key, bytes) in data {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    // Editors leave a line break at the end of what was meant to be a password.
                    let text = text.trim_end_matches(['\r', '\n']);
                    values.push(text.to_owned());
                    parameters.insert(key.clone(), text.to_owned());
                }
                Err(_) => missing.push(format!("Secret {secret}: key {key} is no text")),
            }
        }
    }
    if plug.is_none() {
        missing.push(format!("its hosts do not name {server}; add it, or take it out of the level"));
    }
    Some(Device {
        name: device.name.clone(),
        agent: device.agent.clone(),
        plug: plug.unwrap_or_default(),
        server: server.to_owned(),
        reboot: device.action == api::FenceAction::Reboot,
        timeout: device.timeout.get(),
        retries: device.retries,
        parameters,
        secrets: values,
        missing: (!missing.is_empty()).then(|| missing.join("; ")),
    })
}
