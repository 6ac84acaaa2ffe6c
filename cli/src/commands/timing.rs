//! `holdfast timing`: the whole timing arithmetic of a sub-cluster, from its manifest or from the API; in the latter
//! case also the shortest timeout that the gaps measured on its paths allow (C23).

use std::time::Duration;

use holdfast_api::duration::Duration as Text;
use holdfast_api::timing::{self, Timing};
use holdfast_api::v1::{Server, SubCluster, SubClusterSpec, WatchdogMode};
use http::Method;

use crate::args::TimingArgs;
use crate::client::Api;
use crate::errors::{Failure, Result};
use crate::manifest;
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// No SubCluster found, one that is not valid, or timing that breaks a rule (shown with both sides).
pub(crate) async fn run(args: TimingArgs, printer: Printer) -> Result {
    let mut broken = false;
    if let Some(name) = &args.name {
        let api = Api::connect(&args.client).await?;
        let (object, servers) = read(&api, name).await?;
        broken |= show(&object, printer)?;
        printer.data(&measured(&object, &servers))?;
    } else {
        for object in declared(&args)? {
            broken |= show(&object, printer)?;
        }
    }
    if broken {
        return Err(Failure::refused("an inequality does not hold; the sub-cluster would not be accepted")
            .hint("`timeout` alone is always a consistent set; leave interval and advanced out"));
    }
    Ok(())
}

/// The watchdog timeouts that a sub-cluster may have to reckon with: with and without a device.
fn watchdogs(spec: &SubClusterSpec) -> Vec<Option<Duration>> {
    let given = Some(spec.watchdog.timeout.get());
    match spec.watchdog.mode {
        WatchdogMode::Disabled => vec![None],
        WatchdogMode::Required => vec![given],
        WatchdogMode::IfPresent => vec![None, given],
    }
}

fn declared(args: &TimingArgs) -> Result<Vec<SubCluster>> {
    let mut found = Vec::new();
    for manifest in manifest::load(&args.files)? {
        if manifest.kind()? == "SubCluster" {
            let label = format!("{}: {}", manifest.source, manifest.label());
            found.push(serde_json::from_value(manifest.object).map_err(|error| {
                Failure::refused(format!("{label}: {error}")).hint("holdfast validate -f FILE lists every mistake")
            })?);
        }
    }
    if found.is_empty() {
        return Err(Failure::refused("the given files hold no SubCluster"));
    }
    Ok(found)
}

async fn read(api: &Api, name: &str) -> Result<(SubCluster, Vec<Server>)> {
    let root = format!("/apis/{}/namespaces/{}", holdfast_api::API_VERSION, api.namespace());
    let object: SubCluster = api.send(Method::GET, &format!("{root}/subclusters/{name}"), None).await?;
    let mut servers = Vec::new();
    for entry in &object.spec.servers {
        if let Some(server) = api.find(&format!("{root}/servers/{name}.{}", entry.name)).await? {
            servers.push(serde_json::from_value(server).map_err(anyhow::Error::from)?);
        }
    }
    Ok((object, servers))
}

/// Prints the arithmetic, or every rule that is broken; true if one is.
fn show(object: &SubCluster, printer: Printer) -> Result<bool> {
    let name = object.metadata.name.as_deref().unwrap_or("?");
    let mut broken = false;
    for (number, watchdog) in watchdogs(&object.spec).into_iter().enumerate() {
        if number > 0 {
            printer.data("\n")?;
        }
        let title = match watchdog {
            None => format!("sub-cluster {name} on servers without a watchdog device"),
            Some(timeout) => format!("sub-cluster {name} on servers with a watchdog of {}", Text::from(timeout)),
        };
        match Timing::of(&object.spec, watchdog) {
            Ok(timing) => printer.data(&format!("{title}\n\n{}", timing.table(&object.spec)))?,
            Err(errors) => {
                broken = true;
                let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
                printer.data(&format!("{title}: refused\n{}", lines.join("\n")))?;
            }
        }
    }
    Ok(broken)
}

/// What the paths say about the timeout.
fn measured(object: &SubCluster, servers: &[Server]) -> String {
    let timeout = &object.spec.heartbeat.timeout;
    let gaps = servers.iter().filter_map(|server| server.status.as_ref()).flat_map(|status| &status.paths);
    match gaps.filter_map(|path| path.longest_gap.as_ref()).map(Text::get).max() {
        None => format!("timeout {timeout}; no gap was measured yet, agents report them once a minute"),
        Some(gap) => format!(
            "longest gap measured on any path {}; a timeout of {} tolerates it, {timeout} is set",
            Text::from(gap),
            Text::from(timing::recommended_timeout(gap))
        ),
    }
}
