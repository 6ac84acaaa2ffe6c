//! `holdfast fence`: which devices switch which server off, and whether they work.
//!
//! `list` reads the API: what is declared, and what every server saw when it last looked at its devices (agents do so by
//! themselves). `test` looks now, from the server that it runs on, with what the agent there has: it needs neither API nor
//! agent. Neither switches anything.

use std::sync::atomic::AtomicBool;

use holdfast_agent::config::AgentConfig;
use holdfast_agent::fencing::topology::topology;
use holdfast_agent::fencing::{Hands, Known, Seen};
use holdfast_agent::spec_cache::SpecCache;
use holdfast_api::v1::{FenceDeviceState, Server, SubCluster};
use http::Method;

use crate::args::{FenceListArgs, FenceTestArgs};
use crate::client::Api;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs `fence list`.
///
/// # Errors
/// What the server answers.
pub(crate) async fn list(args: FenceListArgs, printer: Printer) -> Result {
    let api = Api::connect(&args.client).await?;
    let root = format!("/apis/{}/namespaces/{}", holdfast_api::API_VERSION, api.namespace());
    let object: SubCluster = api.send(Method::GET, &format!("{root}/subclusters/{}", args.name), None).await?;
    let mut servers: Vec<(String, Server)> = Vec::new();
    for entry in &object.spec.servers {
        if let Some(server) = api.find(&format!("{root}/servers/{}.{}", args.name, entry.name)).await? {
            servers.push((entry.name.clone(), serde_json::from_value(server).map_err(anyhow::Error::from)?));
        }
    }
    printer.data(&columns(&rows(&object, &servers)))?;
    Ok(())
}

/// One line per server, level, device, and server that looked at it.
fn rows(object: &SubCluster, servers: &[(String, Server)]) -> Vec<[String; 7]> {
    let mut rows = vec![["SERVER", "LEVEL", "DEVICE", "AGENT", "PLUG", "FROM", "LAST LOOK"].map(str::to_owned)];
    let Some(fencing) = &object.spec.fencing else { return rows };
    let mut levels: Vec<_> = fencing.levels.iter().collect();
    levels.sort_by_key(|level| (&level.server, level.level));
    for level in levels {
        for name in &level.devices {
            let device = fencing.devices.iter().find(|device| device.name == *name);
            let plug = device.and_then(|d| d.hosts.iter().find(|host| host.server == level.server));
            let line = |from: &str, seen: String| {
                [
                    level.server.clone(),
                    level.level.to_string(),
                    name.clone(),
                    device.map(|d| d.agent.clone()).unwrap_or_default(),
                    plug.map(|p| p.plug.clone()).unwrap_or_default(),
                    from.to_owned(),
                    seen,
                ]
            };
            let mut looked = servers
                .iter()
                .filter_map(|(from, server)| {
                    let status = server.status.as_ref()?;
                    let seen = status.fence_devices.iter().find(|d| d.device == *name && d.server == level.server)?;
                    let at = seen.time.as_ref().map(|time| format!(" ({})", time.0)).unwrap_or_default();
                    Some(match seen.state {
                        FenceDeviceState::Working => line(from, format!("works: {}{at}", seen.message)),
                        FenceDeviceState::Failed => line(from, format!("FAILED: {}{at}", seen.message)),
                    })
                })
                .peekable();
            if looked.peek().is_none() {
                rows.push(line("-", "nobody has looked yet".to_owned()));
            }
            rows.extend(looked);
        }
    }
    rows
}

fn columns(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Runs `fence` commands that need no API.
///
/// # Errors
/// When the agent's file can't be read, nothing is configured, or a device does not work.
pub(crate) fn test(args: &FenceTestArgs, printer: Printer) -> Result {
    let config = AgentConfig::load(&args.config).map_err(Failure::refused_by)?;
    let cache = SpecCache::open(&config.data_dir).map_err(Failure::refused_by)?;
    let Some(object) = cache.specs().sub_cluster.clone() else {
        return Err(Failure::refused(format!("the agent of {} has not read its sub-cluster yet", config.server))
            .hint("start it once with the API server reachable"));
    };
    let devices: Vec<_> = topology(&object.spec, &cache.specs().secrets)
        .into_values()
        .flatten()
        .flat_map(|level| level.devices.into_iter().map(move |device| (level.level, device)))
        .filter(|(_, device)| args.server.as_ref().is_none_or(|server| *server == device.server))
        .collect();
    if devices.is_empty() {
        return Err(Failure::refused("no fence device is configured for that")
            .hint("devices stand in spec.fencing.devices of the SubCluster, their order in spec.fencing.levels"));
    }
    let (cancel, known) = (AtomicBool::new(false), Known::default());
    let hands = Hands { cgroup: None, cancel: &cancel, known: &known };
    let mut failed = 0;
    for (level, device) in devices {
        let what =
            format!("{}   level {level}   {} ({}, plug {})", device.server, device.name, device.agent, device.plug);
        match hands.test(&device) {
            Ok(Seen::On) => printer.data(&format!("{what}   works: it has power"))?,
            Ok(Seen::Off) => printer.data(&format!("{what}   works: it is off"))?,
            Err(problem) => {
                failed += 1;
                printer.data(&format!("{what}   FAILED: {problem}"))?;
            }
        }
    }
    if failed > 0 {
        return Err(Failure::refused(format!("{failed} devices do not work from {}", config.server)));
    }
    Ok(())
}
