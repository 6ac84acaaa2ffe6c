//! `holdfast plan`: what would follow from the loss of something, or from changed manifests, by the planner that acts, on the
//! state that the API shows. Nothing is done.

mod files;

use std::sync::Arc;

use holdfast_api::v1::{Losses, SubCluster};
use holdfast_controller::what_if::{Scene, WhatIf, lose};
use holdfast_planner::{Candidate, Does, Rule};
use serde_json::{Value, json};

use super::status::snapshot::Snapshot;
use crate::args::{PlanArgs, PlanOutput};
use crate::client::Api;
use crate::commands::table::align;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Reads `server=alder,path=ic,lock`.
pub(crate) fn losses(text: &str) -> Result<Losses> {
    let mut lost = Losses::default();
    for part in text.split(',') {
        let (what, name) = part.split_once('=').map_or((part, None), |(what, name)| (what, Some(name.to_owned())));
        match (what, name.filter(|name| !name.is_empty())) {
            ("server", Some(name)) => lost.servers.push(name),
            ("site", Some(name)) => lost.sites.push(name),
            ("path", Some(name)) => lost.paths.push(name),
            ("disk", Some(name)) => lost.disks.push(name),
            ("lock", None) if part == "lock" => lost.lock = true,
            ("control-plane", None) if part == "control-plane" => lost.control_plane = true,
            _ => {
                return Err(Failure::refused(format!("--lose: {part:?} is nothing that can be lost"))
                    .hint("server=NAME, site=NAME, path=NAME, disk=NAME, lock or control-plane; several with commas: server=alder,path=ic"));
            }
        }
    }
    Ok(lost)
}

/// Runs the command.
///
/// # Errors
/// A name that does not exist, objects that can't be understood, or an API server that can't be reached or refuses.
pub(crate) async fn run(args: PlanArgs, printer: Printer) -> Result {
    let Some(lose_text) = args.lose else {
        return files::run(&args.files, &args.client, args.output, printer).await;
    };
    let mut lost = losses(&lose_text)?;
    let api = Api::connect(&args.client).await?;
    let snapshot = Snapshot::read(&api, Some(api.namespace())).await?;
    if !snapshot.unreadable.is_empty() {
        let message = format!("a plan needs all of the state: {}", snapshot.unreadable.join("; "));
        return Err(Failure::refused(message));
    }
    let sub_cluster = chosen(&snapshot, args.sub_cluster.as_deref(), &mut lost, api.namespace())?;
    let name = sub_cluster.metadata.name.clone().unwrap_or_default();
    let servers = snapshot.servers.into_iter().filter(|server| server.spec.sub_cluster == name);
    let groups = snapshot.groups.into_iter().filter(|group| group.spec.sub_cluster == name);
    let scene = Scene { sub_cluster, servers: servers.map(Arc::new).collect(), groups: groups.map(Arc::new).collect() };
    let what = lose(&scene, &lost).map_err(|message| Failure::refused(format!("--lose: {message}")))?;
    match args.output {
        Some(form) => printed(form, &json(&format!("{}/{name}", api.namespace()), Some(&lost), &what), printer),
        None => printer.data(&text(&format!("sub-cluster {}/{name} without {lose_text}", api.namespace()), &what)),
    }
}

/// For programs.
fn printed(form: PlanOutput, value: &Value, printer: Printer) -> Result {
    printer.data(&match form {
        PlanOutput::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
        PlanOutput::Yaml => serde_yaml::to_string(value).map_err(anyhow::Error::from)?,
    })
}

/// The sub-cluster that is meant: named, that of `SUBCLUSTER.SERVER`, or the only one.
fn chosen(snapshot: &Snapshot, named: Option<&str>, lost: &mut Losses, namespace: &str) -> Result<SubCluster> {
    let mut named = named.map(str::to_owned);
    for server in &mut lost.servers {
        let Some((sub, bare)) = server.split_once('.') else { continue };
        if named.as_deref().is_some_and(|named| named != sub) {
            let message = format!("--lose: {server} is not in the sub-cluster {}", named.unwrap_or_default());
            return Err(Failure::refused(message).hint("a plan is about one sub-cluster"));
        }
        (named, *server) = (Some(sub.to_owned()), bare.to_owned());
    }
    let all: Vec<&str> = snapshot.sub_clusters.iter().filter_map(|sub| sub.metadata.name.as_deref()).collect();
    let found = match &named {
        Some(named) => snapshot.sub_clusters.iter().find(|sub| sub.metadata.name.as_ref() == Some(named)),
        None if all.len() == 1 => snapshot.sub_clusters.first(),
        None => None,
    };
    found.cloned().ok_or_else(|| {
        let message = match named {
            Some(named) => format!("there is no SubCluster {named} in the namespace {namespace}"),
            None => format!("the namespace {namespace} has {} sub-clusters; say which one is meant", all.len()),
        };
        Failure::refused(message).hint(format!("holdfast plan SUBCLUSTER --lose …; it has: {}", all.join(", ")))
    })
}

/// The rule, and what speaks against each server.
fn reasons(rule: Rule, candidates: &[Candidate]) -> String {
    let each = candidates.iter().map(|candidate| {
        let reasons: Vec<&str> = candidate.reasons.iter().map(|reason| reason.name()).collect();
        format!("{}: {}", candidate.server, reasons.join(", "))
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() { rule.name().to_owned() } else { format!("{} ({})", rule.name(), each.join("; ")) }
}

fn text(title: &str, what: &WhatIf) -> String {
    let mut text = format!("{title}\n");
    let steps = what.forecast.steps.iter().map(|step| {
        let does = if step.does == Does::Stop { "stop" } else { "start" };
        vec![
            format!("  at {}ms", step.at.as_millis()),
            does.to_owned(),
            step.group.clone(),
            format!("on {}", step.server),
        ]
    });
    text.push_str(&align(&steps.collect::<Vec<_>>()));
    for (group, one) in &what.forecast.interruptions {
        let end = match (&one.to, &one.outage, &one.stays) {
            (Some(to), Some(outage), _) => format!("back on {to} after {}ms", outage.as_millis()),
            (Some(to), None, _) => format!("back on {to}; for how long it is away was never measured"),
            (None, _, stays) => {
                format!(
                    "does not come back: {}",
                    stays.as_ref().map(|(rule, all)| reasons(*rule, all)).unwrap_or_default()
                )
            }
        };
        text.push_str(&format!("{group}, on {}: {end}\n", one.from));
    }
    if what.forecast.interruptions.is_empty() {
        text.push_str("no group is interrupted\n");
    }
    for server in &what.fences {
        text.push_str(&format!("may fence {server}\n"));
    }
    for note in &what.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn json(name: &str, lost: Option<&Losses>, what: &WhatIf) -> Value {
    let millis = |time: std::time::Duration| format!("{}ms", time.as_millis());
    let steps = what.forecast.steps.iter().map(|step| {
        let does = if step.does == Does::Stop { "Stop" } else { "Start" };
        json!({"at": millis(step.at), "does": does, "group": step.group, "server": step.server})
    });
    let groups = what.forecast.interruptions.iter().map(|(group, one)| {
        let stays = one.stays.as_ref().map(|(rule, candidates)| reasons_json(*rule, candidates));
        json!({"group": group, "from": one.from, "to": one.to, "outage": one.outage.map(millis), "staysAway": stays})
    });
    let mut told = json!({
        "subCluster": name, "steps": steps.collect::<Vec<_>>(), "groups": groups.collect::<Vec<_>>(),
        "fences": what.fences, "notes": what.notes,
    });
    if let Some(lost) = lost {
        told["lose"] = json!(lost);
    }
    told
}

fn reasons_json(rule: Rule, candidates: &[Candidate]) -> Value {
    let each = candidates.iter().map(|candidate| {
        let reasons: Vec<&str> = candidate.reasons.iter().map(|reason| reason.name()).collect();
        json!({"server": candidate.server, "reasons": reasons})
    });
    json!({"rule": rule.name(), "candidates": each.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_read_part_by_part_and_anything_else_is_named() {
        let lost = losses("server=alder,server=birch,path=ic,lock").expect("losses");
        assert_eq!(
            (lost.servers, lost.paths, lost.lock),
            (vec!["alder".into(), "birch".into()], vec!["ic".into()], true)
        );
        for wrong in ["alder", "server=", "lock=yes", "disk=san1,", "server"] {
            let message = losses(wrong).expect_err(wrong).to_string();
            assert!(
                message.contains("is nothing that can be lost") && message.contains("hint: server=NAME"),
                "{message}"
            );
        }
    }
}
