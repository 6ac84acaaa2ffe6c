//! `holdfast plan -f`: the API server says what it would store, and the planner what would follow from it. Nothing is stored.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_api::v1::{DataService, SuperCluster};
use holdfast_controller::what_if::Scene;
use holdfast_controller::what_if::change::{Changed, Changes, Live, change};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{json as sub_cluster_json, printed, reasons, reasons_json, text};
use crate::args::{ClientArgs, PlanOutput};
use crate::client::Api;
use crate::commands::apply::{Applied, apply};
use crate::commands::status::snapshot::{Snapshot, list};
use crate::errors::{Failure, Result};
use crate::manifest;
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// All manifests are tried; of several refusals the last is returned, the ones before it are printed. Objects that can't be
/// understood, or an API server that can't be reached or refuses.
pub(super) async fn run(
    files: &[PathBuf],
    client: &ClientArgs,
    output: Option<PlanOutput>,
    printer: Printer,
) -> Result {
    let manifests = manifest::load(files)?;
    let api = Api::connect(client).await?;
    let kinds = api.kinds().await?;
    let (mut applied, mut failure): (Vec<Applied>, Option<Failure>) = (Vec::new(), None);
    for manifest in &manifests {
        match apply(&api, &kinds, client.namespace.as_deref(), true, manifest).await {
            Ok(one) => applied.push(one),
            Err(error) => {
                let error = error.context(format!("{}: {}", manifest.source, manifest.label()));
                if let Some(earlier) = failure.replace(error) {
                    printer.note(earlier);
                }
            }
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let (changes, mut notes, namespaces) = changes(&applied)?;
    let live = live(&api, &namespaces, &changes).await?;
    let (parts, more) = change(&live, &changes);
    notes.extend(more);
    notes.push("what is in none of the files stays as it is; nothing was stored".to_owned());
    match output {
        Some(form) => printed(form, &told(&applied, &parts, &notes), printer),
        None => printer.data(&lines(&applied, &parts, &notes)),
    }
}

/// What the manifests change of what is planned, what is to be said of the others, and where all of that is.
fn changes(applied: &[Applied]) -> Result<(Changes, Vec<String>, BTreeSet<String>)> {
    fn read<T: DeserializeOwned>(one: &Applied) -> Result<T> {
        serde_json::from_value(one.object.clone())
            .map_err(|error| Failure::refused(format!("{}: the answer can't be understood: {error}", one.name)))
    }
    let (mut changes, mut notes, mut namespaces) = (Changes::default(), Vec::new(), BTreeSet::new());
    for one in applied {
        let text = |pointer: &str| one.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let ours = text("/apiVersion") == holdfast_api::API_VERSION;
        match text("/kind") {
            "SuperCluster" if ours => changes.super_clusters.push(read(one)?),
            "SubCluster" if ours => changes.sub_clusters.push(read(one)?),
            "DataService" if ours => changes.data_services.push(read(one)?),
            "FailoverGroup" if ours => changes.groups.push(read(one)?),
            "Operation" if ours => {
                notes.push(format!("{}: what an Operation would do is told by its mode: Plan", one.name));
                continue;
            }
            _ => continue,
        }
        namespaces.insert(text("/metadata/namespace").to_owned());
    }
    Ok((changes, notes, namespaces))
}

/// Everything of the namespaces that the manifests are about, and the super-clusters that their sub-clusters name elsewhere.
async fn live(api: &Api, namespaces: &BTreeSet<String>, changes: &Changes) -> Result<Live> {
    let mut live = Live::default();
    let named = changes.sub_clusters.iter().filter_map(|sub| sub.spec.super_cluster.as_ref()?.namespace.clone());
    let elsewhere: BTreeSet<String> = named.filter(|namespace| !namespaces.contains(namespace)).collect();
    for namespace in &elsewhere {
        let mut unreadable = Vec::new();
        let all: Vec<SuperCluster> =
            list(api, "superclusters", "SuperCluster", Some(namespace), &mut unreadable).await?;
        live.super_clusters.extend(all.into_iter().map(Arc::new));
    }
    for namespace in namespaces {
        let snapshot = Snapshot::read(api, Some(namespace)).await?;
        let mut unreadable = snapshot.unreadable;
        let services: Vec<DataService> =
            list(api, "dataservices", "DataService", Some(namespace), &mut unreadable).await?;
        if !unreadable.is_empty() {
            return Err(Failure::refused(format!("a plan needs all of the state: {}", unreadable.join("; "))));
        }
        let (servers, groups): (Vec<_>, Vec<_>) =
            (snapshot.servers.into_iter().map(Arc::new).collect(), snapshot.groups.into_iter().map(Arc::new).collect());
        for sub_cluster in snapshot.sub_clusters {
            let name = sub_cluster.metadata.name.as_deref().unwrap_or_default();
            let servers = servers.iter().filter(|server| server.spec.sub_cluster == name).cloned().collect();
            let groups = groups.iter().filter(|group| group.spec.sub_cluster == name).cloned().collect();
            live.scenes.push(Scene { sub_cluster, servers, groups });
        }
        live.super_clusters.extend(snapshot.super_clusters.into_iter().map(Arc::new));
        live.data_services.extend(services.into_iter().map(Arc::new));
    }
    Ok(live)
}

fn lines(applied: &[Applied], parts: &[Changed], notes: &[String]) -> String {
    let mut all = String::new();
    for one in applied {
        all.push_str(&format!("{} {} (server dry run)\n", one.name, one.did));
    }
    for part in parts {
        all.push_str(&text(&format!("sub-cluster {}", part.sub_cluster), &part.what));
        for (group, (rule, candidates)) in &part.what.forecast.waiting {
            all.push_str(&format!("{group} does not start: {}\n", reasons(*rule, candidates)));
        }
    }
    for note in notes {
        all.push_str(&format!("note: {note}\n"));
    }
    all
}

fn told(applied: &[Applied], parts: &[Changed], notes: &[String]) -> Value {
    let parts = parts.iter().map(|part| {
        let mut told = sub_cluster_json(&part.sub_cluster, None, &part.what);
        let waiting = part.what.forecast.waiting.iter().map(|(group, (rule, candidates))| {
            let mut one = reasons_json(*rule, candidates);
            one["group"] = json!(group);
            one
        });
        told["waiting"] = Value::Array(waiting.collect());
        told
    });
    let objects = applied.iter().map(|one| json!({"object": one.name, "change": one.did}));
    json!({
        "objects": objects.collect::<Vec<_>>(), "subClusters": parts.collect::<Vec<_>>(), "notes": notes,
    })
}
