//! Drill: what would become of the groups if something were lost, by the planner on the live state. Nothing is touched, so it
//! is over as soon as it begins.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    DrillParameters, Losses, Operation, OperationOutput, OperationType, Scenario, SubCluster, TargetKind,
};
use holdfast_planner::Interruption;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::super::list;
use super::carry_out::{Next, reason};
use crate::context::Context;
use crate::what_if::change::{Live, change};
use crate::what_if::{Scene, WhatIf, lose, manifests};

/// The schema's limits.
const MOST: usize = 2048;
const GROUPS: usize = 1024;
const MESSAGE: usize = 1024;

/// What came of every scenario, or why there is none.
pub(crate) type Outcome = Result<Vec<OperationOutput>, (&'static str, String)>;

/// Whether an Operation is of this type.
pub(crate) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::Drill
}

/// Thinks every scenario through. On another thread: thousands of them take seconds.
pub(super) async fn outcome(operation: &Arc<Operation>, context: &Context) -> Outcome {
    let (namespace, name) = (operation.namespace(), operation.spec.target.name.as_str());
    let group =
        context.group(namespace.as_deref(), name).filter(|_| operation.spec.target.kind == TargetKind::FailoverGroup);
    let subs: Option<Vec<Arc<SubCluster>>> = match operation.spec.target.kind {
        TargetKind::SuperCluster => {
            let reference = ObjectRef::new(name).within(&namespace.clone().unwrap_or_default());
            context.stores.super_clusters.get(&reference).map(|whole| context.sub_clusters_of(&whole))
        }
        TargetKind::FailoverGroup => group
            .as_ref()
            .and_then(|group| Some(vec![context.sub_cluster(namespace.as_deref(), &group.spec.sub_cluster)?])),
        _ => context.sub_cluster(namespace.as_deref(), name).map(|sub| vec![sub]),
    };
    let Some(subs) = subs else {
        let target = &operation.spec.target;
        let message = format!("spec.target.name: there is no {} {} in this namespace", target.kind, target.name);
        return Err((accepted::NOT_FOUND, message));
    };
    let scene = |sub: Arc<SubCluster>| Scene {
        servers: context.servers_of(&sub),
        groups: context.groups_of(&sub),
        sub_cluster: sub.as_ref().clone(),
    };
    let live = Live {
        scenes: subs.into_iter().map(scene).collect(),
        super_clusters: context.stores.super_clusters.state(),
        data_services: context.stores.data_services.state(),
    };
    let only = group.map(|group| group.name_any());
    let operation = operation.clone();
    let work = move || {
        let asked = operation.spec.drill.clone().unwrap_or_default();
        rehearse(&live, &asked, &operation.namespace().unwrap_or_default(), only.as_deref())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err((reason::REFUSED, error.to_string())))
}

/// Every scenario on these sub-clusters. `only`: of that group alone.
fn rehearse(live: &Live, asked: &DrillParameters, namespace: &str, only: Option<&str>) -> Outcome {
    let scenes = &live.scenes;
    let each =
        || scenes.iter().flat_map(|scene| scene.sub_cluster.spec.servers.iter().map(move |one| (scene, &one.name)));
    if asked.scenarios.is_empty() {
        if each().count() > MOST {
            let message = format!("it is about {} servers, and {MOST} is the most; name scenarios", each().count());
            return Err((reason::REFUSED, message));
        }
        let lost = |(scene, server): (&Scene, &String)| {
            let lost = Losses { servers: vec![server.clone()], ..Losses::default() };
            let name = format!("{}.{server}", scene.sub_cluster.name_any());
            let what = lose(scene, &lost).map_err(|message| (reason::REFUSED, message))?;
            Ok(output(name, &[what], only, false))
        };
        return each().map(lost).collect();
    }
    let one = |scenario: &Scenario| match scenario.apply.is_empty() {
        true => one(scenes, scenario, only),
        false => changed(live, scenario, namespace, only),
    };
    asked.scenarios.iter().map(one).collect()
}

/// A scenario of manifests.
fn changed(
    live: &Live,
    scenario: &Scenario,
    namespace: &str,
    only: Option<&str>,
) -> Result<OperationOutput, (&'static str, String)> {
    let refuse = |message: String| (reason::REFUSED, format!("spec.drill.scenarios[{}]: {message}", scenario.name));
    if scenario.lose.as_ref().is_some_and(|lost| *lost != Losses::default()) {
        return Err(refuse("it has lose and apply; give each a scenario of its own".into()));
    }
    let changes = manifests::read(&scenario.apply, namespace, live).map_err(refuse)?;
    let (parts, notes) = change(live, &changes);
    let mut what: Vec<WhatIf> = parts.into_iter().map(|part| part.what).collect();
    what.push(WhatIf { notes, ..WhatIf::default() });
    Ok(output(scenario.name.clone(), &what, only, true))
}

fn one(scenes: &[Scene], scenario: &Scenario, only: Option<&str>) -> Result<OperationOutput, (&'static str, String)> {
    let lost = scenario.lose.clone().unwrap_or_default();
    let refuse = |message: String| (accepted::NOT_FOUND, format!("spec.drill.scenarios[{}]: {message}", scenario.name));
    if lost == Losses::default() {
        return Err(refuse(
            "nothing is lost or changed in it; lose has servers, sites, paths, disks, lock and controlPlane, apply has \
             manifests"
                .into(),
        ));
    }
    // Of several sub-clusters each loses what it has; what none has is a mistake.
    let parts: Vec<(&Scene, Losses)> = scenes.iter().map(|scene| (scene, part_of(scene, &lost))).collect();
    let all = |of: fn(&Losses) -> &Vec<String>| parts.iter().flat_map(move |(_, part)| of(part)).collect::<Vec<_>>();
    let missing = |given: &[String], found: &[&String]| -> Vec<String> {
        given.iter().filter(|name| !found.iter().any(|one| bare(name) == *one)).cloned().collect()
    };
    let unknown = [
        missing(&lost.servers, &all(|part| &part.servers)),
        missing(&lost.sites, &all(|part| &part.sites)),
        missing(&lost.paths, &all(|part| &part.paths)),
        missing(&lost.disks, &all(|part| &part.disks)),
    ]
    .concat();
    if let Some(name) = unknown.first() {
        // With one sub-cluster the planner names what there is.
        if let [scene] = scenes {
            return Err(refuse(lose(scene, &lost).err().unwrap_or_else(|| format!("there is no {name}"))));
        }
        return Err(refuse(format!("no sub-cluster has {}", list(&unknown))));
    }
    let touched = parts.iter().filter(|(_, part)| *part != Losses::default());
    let what: Result<Vec<WhatIf>, String> = touched.map(|(scene, part)| lose(scene, part)).collect();
    Ok(output(scenario.name.clone(), &what.map_err(refuse)?, only, false))
}

/// SERVER of SUBCLUSTER.SERVER.
fn bare(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, server)| server)
}

/// As much of the losses as a sub-cluster has.
fn part_of(scene: &Scene, lost: &Losses) -> Losses {
    let (spec, sub) = (&scene.sub_cluster.spec, scene.sub_cluster.name_any());
    let servers = spec.servers.iter().map(|server| &server.name);
    let is_lost =
        |server: &&String| lost.servers.iter().any(|name| name == *server || *name == format!("{sub}.{server}"));
    let kept =
        |given: &[String], has: &dyn Fn(&String) -> bool| given.iter().filter(|name| has(name)).cloned().collect();
    Losses {
        servers: servers.filter(is_lost).cloned().collect(),
        sites: kept(&lost.sites, &|site| spec.servers.iter().any(|server| server.site == *site)),
        paths: kept(&lost.paths, &|name| spec.heartbeat.paths.iter().any(|path| path.name == *name)),
        disks: kept(&lost.disks, &|name| spec.disks.iter().any(|disk| disk.name == *name)),
        lock: lost.lock,
        control_plane: lost.control_plane,
    }
}

/// `changed`: what waits afterwards waits because of the scenario; of a loss it waited before.
fn output(scenario: String, what: &[WhatIf], only: Option<&str>, changed: bool) -> OperationOutput {
    let ours = |group: &str| only.is_none_or(|only| only == group);
    let all = what.iter().flat_map(|what| &what.forecast.interruptions).filter(|(group, _)| ours(group));
    let gone = |one: &Interruption| one.to.is_none() && !one.is_declared();
    let waiting = what.iter().flat_map(|what| what.forecast.waiting.keys()).filter(|group| changed && ours(group));
    let lost = all.clone().filter(|(_, one)| gone(one)).map(|(group, _)| group);
    let lost: Vec<String> = lost.cloned().collect();
    let waiting: Vec<String> = waiting.cloned().collect();
    let unknown = all.clone().filter(|(_, one)| one.to.is_some() && one.outage.is_none()).count();
    let outage: Option<Duration> = all.clone().filter_map(|(_, one)| one.outage).max();
    let mut said = vec![match all.count() {
        0 => "no group is interrupted".to_owned(),
        count => format!("{count} groups are interrupted, {} do not come back", lost.len()),
    }];
    if unknown > 0 {
        said.push(format!("how long {unknown} of them are away was never measured"));
    }
    if !waiting.is_empty() {
        said.push(format!("{} do not start: {}", waiting.len(), list(&waiting)));
    }
    said.extend(what.iter().flat_map(|what| &what.notes).cloned());
    let lost: Vec<String> = lost.into_iter().chain(waiting).collect();
    OperationOutput {
        scenario: Some(scenario),
        survives: Some(lost.is_empty()),
        outage: outage.filter(|_| unknown == 0).map(Into::into),
        groups_lost: lost.into_iter().take(GROUPS).collect(),
        message: Some(said.join("; ").chars().take(MESSAGE).collect()),
        ..OperationOutput::default()
    }
}

/// It begins, and is over.
pub(super) fn begin(outcome: &Outcome, next: &mut Next<'_>) {
    match outcome {
        Err((reason, message)) => next.fail(reason, message),
        Ok(outputs) => {
            let bad: Vec<&str> = outputs
                .iter()
                .filter(|one| one.survives == Some(false))
                .filter_map(|one| one.scenario.as_deref())
                .collect();
            let longest = outputs.iter().filter_map(|one| one.outage.as_ref().map(|outage| outage.get())).max();
            let longest =
                longest.map_or(String::new(), |longest| format!("; the longest outage is {}ms", longest.as_millis()));
            let more = if bad.len() > 8 { format!(" and {} more", bad.len() - 8) } else { String::new() };
            let few: Vec<&str> = bad.iter().take(8).copied().collect();
            let message = if bad.is_empty() {
                format!("every group survives each of {} scenarios{longest}", outputs.len())
            } else {
                format!(
                    "groups are lost in {} of {} scenarios: {}{more}{longest}",
                    bad.len(),
                    outputs.len(),
                    list(&few)
                )
            };
            next.set_outputs(outputs.clone());
            next.succeed(&message);
        }
    }
}
