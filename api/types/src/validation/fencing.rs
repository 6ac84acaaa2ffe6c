//! Fence devices and levels: what the schema's rules leave open. What an agent takes as parameters only the servers can
//! say, where it is installed: they show it in condition FencingReady.

use crate::error::{ErrorKind, FieldError};
use crate::v1::{FencingMode, SubClusterSpec};

/// Parameters that Holdfast gives itself.
const OWN: [&str; 4] = ["action", "plug", "port", "nodename"];

/// Everything that is wrong with `spec.fencing`.
pub fn validate_fencing(spec: &SubClusterSpec) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let Some(fencing) = &spec.fencing else { return wrong };
    let mut add = |kind, field: String, found: String, message: String| {
        wrong.push(FieldError::new(kind, field, found, message));
    };
    for device in &fencing.devices {
        let at = format!("spec.fencing.devices[name={}]", device.name);
        let name = device.agent.strip_prefix("fence_");
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !(device.agent.starts_with('/') || name.is_some_and(plain)) {
            let message =
                "name a fence agent (fence_ipmilan) or give the absolute path of a program that works like one";
            add(ErrorKind::Invalid, format!("{at}.agent"), device.agent.clone(), message.into());
        }
        for (key, value) in &device.parameters {
            let field = format!("{at}.parameters.{key}");
            if OWN.contains(&key.as_str()) {
                let message =
                    "Holdfast gives it itself: the action by what is to be done, the plug from hosts; remove it";
                add(ErrorKind::Forbidden, field, String::new(), message.into());
            } else if key.is_empty() || key.contains(['=', '\n']) || value.contains('\n') {
                let message = "a parameter is one line KEY=VALUE for the agent: no = in the key, no line break";
                add(ErrorKind::Invalid, field, String::new(), message.into());
            }
        }
    }
    for level in &fencing.levels {
        let at = format!("spec.fencing.levels[server={},level={}].devices", level.server, level.level);
        if level.devices.is_empty() {
            add(ErrorKind::Required, at.clone(), String::new(), "a level needs at least one device".into());
        }
        for name in &level.devices {
            let known = fencing.devices.iter().find(|device| device.name == *name);
            if known.is_some_and(|device| device.hosts.iter().all(|host| host.server != level.server)) {
                let message = format!("the hosts of device {name} do not name {}; add it with its plug", level.server);
                add(ErrorKind::Invalid, at.clone(), name.clone(), message);
            }
        }
    }
    if fencing.mode != FencingMode::Disabled {
        let bare = |name: &str| fencing.levels.iter().all(|level| level.server != name);
        let bare: Vec<&str> =
            spec.servers.iter().map(|server| server.name.as_str()).filter(|name| bare(name)).collect();
        if !bare.is_empty() {
            let message = format!("mode {} needs a level for every server; none for {}", fencing.mode, bare.join(", "));
            add(ErrorKind::Required, "spec.fencing.levels".into(), String::new(), message);
        }
    }
    wrong
}
