//! What would follow from changed specifications, on the live state: which groups restart, move, start and stop, and what
//! would not be accepted. Asked of the planner that acts; the verdicts are the controller's own.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_api::change::changed_resources;
use holdfast_api::measured::measured;
use holdfast_api::reasons::hold;
use holdfast_api::v1::{
    DataService, FailbackMode, FailoverGroup, GroupStartup, GroupState, OnRestartNeeded, ServerState,
    StopFailureAction, SubCluster, SuperCluster,
};
use holdfast_planner::{Does, Input, ServerState as Planned, forecast_restarts};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::{Scene, WhatIf, World};
use crate::context::super_cluster_of;
use crate::reconcilers::failover_group::target::{Beside, whole};
use crate::reconcilers::failover_group::{accept, claims, deletion};
use crate::reconcilers::{Rejection, is_accepted, set_accepted, sub_cluster};

/// Everything that a change may be about, as observed.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Sub-clusters with what is in them.
    pub scenes: Vec<Scene>,
    /// Super-clusters that sub-clusters may name.
    pub super_clusters: Vec<Arc<SuperCluster>>,
    /// Data services that groups may name.
    pub data_services: Vec<Arc<DataService>>,
}

/// Objects as they would be stored, each with the status that it has now; new ones without.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Super-clusters.
    pub super_clusters: Vec<SuperCluster>,
    /// Sub-clusters.
    pub sub_clusters: Vec<SubCluster>,
    /// Data services.
    pub data_services: Vec<DataService>,
    /// Groups.
    pub groups: Vec<FailoverGroup>,
}

/// What becomes of one sub-cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// NAMESPACE/NAME.
    pub sub_cluster: String,
    /// What follows there. `fences`: servers that a device switches off if a stop fails.
    pub what: WhatIf,
}

/// What follows when all of this is stored at one moment. What is not in it stays as it is. One entry per sub-cluster that
/// is changed or has a changed group, and sentences about what belongs to none.
pub fn change(live: &Live, changes: &Changes) -> (Vec<Changed>, Vec<String>) {
    let mut plan = Plan { scenes: Vec::new(), live, changes, notes: Vec::new() };
    plan.scenes = live.scenes.iter().map(|scene| Part::of(scene.clone())).collect();
    changes.sub_clusters.iter().for_each(|sub| plan.sub_cluster(sub));
    changes.groups.iter().for_each(|group| plan.group(group));
    for service in &changes.data_services {
        plan.notes.push(format!(
            "DataService {}: a plan does not tell what a change of it does; it is taken over when its methods run next, and \
             state Disabled stops it, not its groups",
            full(service)
        ));
    }
    for whole in &changes.super_clusters {
        plan.notes.push(format!("SuperCluster {}: no group starts, stops or moves by it", full(whole)));
    }
    let parts = plan.scenes.into_iter().filter(|part| part.touched);
    (
        parts.map(|part| Changed { sub_cluster: full(&part.scene.sub_cluster), what: part.forecast() }).collect(),
        plan.notes,
    )
}

/// NAMESPACE/NAME.
fn full(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// A sub-cluster as it would be, and what there is to know of how it came to that.
struct Part {
    scene: Scene,
    touched: bool,
    /// Every group may have another order of servers.
    sub_changed: bool,
    changed: BTreeSet<String>,
    restarts: BTreeSet<String>,
    notes: Vec<String>,
}

struct Plan<'a> {
    scenes: Vec<Part>,
    live: &'a Live,
    changes: &'a Changes,
    notes: Vec<String>,
}

fn refused(kind: &str, name: &str, rejection: &Rejection, then: &str) -> String {
    format!("{kind} {name} would not be accepted ({}): {}; {then}", rejection.reason, rejection.message)
}

impl Plan<'_> {
    fn part(&mut self, namespace: Option<&str>, name: &str) -> Option<&mut Part> {
        let is = |part: &&mut Part| {
            let sub = &part.scene.sub_cluster;
            sub.metadata.namespace.as_deref() == namespace && sub.metadata.name.as_deref() == Some(name)
        };
        self.scenes.iter_mut().find(is)
    }

    fn super_cluster(&self, sub: &SubCluster) -> Option<&SuperCluster> {
        let named = super_cluster_of(sub)?;
        let is = |one: &SuperCluster| ObjectRef::from_obj(one) == named;
        let changed = self.changes.super_clusters.iter().find(|one| is(one));
        changed.or_else(|| self.live.super_clusters.iter().map(AsRef::as_ref).find(|one| is(one)))
    }

    fn sub_cluster(&mut self, sub: &SubCluster) {
        let (namespace, name) = (sub.namespace(), sub.name_any());
        let above = self.super_cluster(sub).cloned();
        let beside = |part: &&Part| {
            let named = super_cluster_of(&part.scene.sub_cluster);
            named.is_some() && named == super_cluster_of(sub)
        };
        let beside = self.scenes.iter().filter(beside).count();
        let is_new = self.part(namespace.as_deref(), &name).is_none();
        if is_new {
            let scene = Scene { sub_cluster: sub.clone(), servers: Vec::new(), groups: Vec::new() };
            self.scenes.push(Part::of(scene));
        }
        let Some(part) = self.part(namespace.as_deref(), &name) else { return };
        let active = |server: &&Arc<holdfast_api::v1::Server>| {
            server.status.as_ref().and_then(|status| status.state) == Some(ServerState::Active)
        };
        let members: Vec<String> =
            part.scene.servers.iter().filter(active).map(|server| server.spec.server.clone()).collect();
        let accepted = |group: &&FailoverGroup| {
            group.status.as_ref().is_some_and(|status| is_accepted(&status.conditions, &group.metadata))
        };
        let groups: Vec<&FailoverGroup> = part.scene.groups.iter().map(AsRef::as_ref).filter(accepted).collect();
        // The oldest keep their place; a new one comes after all that are there.
        let older = if is_new { beside } else { 0 };
        let facts = sub_cluster::accept::Facts {
            sub_cluster: sub,
            super_cluster: above.as_ref(),
            older,
            members: &members,
            groups: &groups,
        };
        let verdict = sub_cluster::accept::accept(&facts);
        part.touched = true;
        match verdict {
            Err(rejection) => {
                part.notes.push(refused("SubCluster", &full(sub), &rejection, "its servers go on by what they have"));
            }
            Ok(()) if is_new => part.notes.push(format!(
                "SubCluster {} is new: its groups start once its servers have formed it; nothing is known of them yet",
                full(sub)
            )),
            Ok(()) if part.scene.sub_cluster.spec == sub.spec => {
                part.notes.push(format!("SubCluster {}: nothing changes", full(sub)));
            }
            Ok(()) => {
                part.notes.push(format!(
                    "SubCluster {}: its servers take the change over from view to view, without a stop that is not listed \
                     here",
                    full(sub)
                ));
                let old = &part.scene.sub_cluster.spec.servers;
                let joins = sub.spec.servers.iter().filter(|new| old.iter().all(|old| old.name != new.name));
                part.notes.extend(
                    joins.map(|server| {
                        format!("{} is new: nothing runs there before its agent has joined", server.name)
                    }),
                );
                part.scene.sub_cluster = sub.clone();
                part.sub_changed = true;
            }
        }
    }

    /// The controller's verdict, seen from what would be there.
    fn verdict(&self, group: &FailoverGroup) -> Result<(), Rejection> {
        let namespace = group.namespace();
        let mut subs = self.scenes.iter().map(|part| &part.scene.sub_cluster);
        let sub = subs.find(|sub| sub.namespace() == namespace && sub.name_any() == group.spec.sub_cluster);
        accept::accept(group, sub)?;
        if let Some(sub) = sub {
            let find = |name: &str| {
                let is = |service: &DataService| service.namespace() == namespace && service.name_any() == name;
                let changed = self.changes.data_services.iter().find(|service| is(service));
                let changed = changed.map(|service| Arc::new(service.clone()));
                changed.or_else(|| self.live.data_services.iter().find(|service| is(service)).cloned())
            };
            accept::data_services(group, sub, find)?;
        }
        let itself = |other: &FailoverGroup| other.namespace() == namespace && other.name_any() == group.name_any();
        let others: Vec<Arc<FailoverGroup>> =
            self.scenes.iter().flat_map(|part| &part.scene.groups).filter(|other| !itself(other)).cloned().collect();
        accept::order(group, &others)?;
        let subs: Vec<&SubCluster> = self.scenes.iter().map(|part| &part.scene.sub_cluster).collect();
        match claims::conflict((group, None), others.iter().map(|other| (other.as_ref(), None)), &subs) {
            None => Ok(()),
            Some(message) => Err(Rejection::new(holdfast_api::reasons::accepted::CLAIM_CONFLICT, message)),
        }
    }

    fn group(&mut self, group: &FailoverGroup) {
        let name = group.name_any();
        let verdict = self.verdict(group);
        let Some(part) = self.part(group.metadata.namespace.as_deref(), &group.spec.sub_cluster) else {
            let rejection = verdict.err().map(|rejection| {
                refused("FailoverGroup", &full(group), &rejection, "it does not start before that is changed")
            });
            self.notes.extend(rejection);
            return;
        };
        part.touched = true;
        let at = part.scene.groups.iter().position(|other| other.name_any() == name);
        if let Err(rejection) = verdict {
            let then = match at {
                Some(_) => "its servers go on by what they have",
                None => "it does not start before that is changed",
            };
            part.notes.push(refused("FailoverGroup", &full(group), &rejection, then));
            return;
        }
        let mut taken = group.clone();
        let generation = taken.metadata.clone();
        let status = taken.status.get_or_insert_default();
        set_accepted(&mut status.conditions, &generation, &Ok(()), Timestamp::UNIX_EPOCH);
        // Those that are looked at after it can't have what it has.
        let claims = holdfast_api::claims::texts(&group.spec);
        status.claims.extend(claims.into_iter().filter(|claim| !status.claims.contains(claim)).collect::<Vec<_>>());
        let Some(at) = at else {
            part.scene.groups.push(Arc::new(taken));
            part.changed.insert(name);
            return;
        };
        let old = part.scene.groups[at].clone();
        part.scene.groups[at] = Arc::new(taken);
        if old.spec == group.spec {
            part.notes.push(format!("{name}: nothing changes"));
            return;
        }
        part.changed.insert(name.clone());
        part.running(&name, &old, group);
    }
}

impl Part {
    fn of(scene: Scene) -> Part {
        let (changed, restarts, notes) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Part { scene, touched: false, sub_changed: false, changed, restarts, notes }
    }

    /// What a changed specification does to what runs: by the rule that the agents compare by.
    fn running(&mut self, name: &str, old: &FailoverGroup, new: &FailoverGroup) {
        let runs = old.status.as_ref().and_then(|status| status.server.as_ref());
        if runs.is_none() || new.spec.state == GroupState::Offline {
            return;
        }
        // What can't be written as JSON was never stored.
        let resources = changed_resources(&old.spec, &new.spec).unwrap_or_default();
        let waits = old.status.as_ref().is_some_and(|status| !status.pending_changes.is_empty());
        let what = match (resources.is_empty(), waits) {
            (true, false) => {
                self.notes.push(format!("{name}: what changes is taken over as it runs, without a restart"));
                return;
            }
            (true, true) => "an earlier change of its resources, which still waits,".to_owned(),
            (false, _) => format!("the change of {}", resources.join(", ")),
        };
        if new.spec.change.on_restart_needed == OnRestartNeeded::Wait {
            self.notes.push(format!(
                "{name}: {what} needs a restart of the group and is taken at its next start (spec.change.onRestartNeeded: \
                 Wait)"
            ));
        } else {
            self.notes.push(format!(
                "{name}: {what} needs a restart of the group, which is done at once (spec.change.onRestartNeeded: Restart)"
            ));
            self.restarts.insert(name.to_owned());
        }
    }

    fn forecast(self) -> WhatIf {
        let Part { scene, sub_changed, changed, restarts, notes, .. } = self;
        let mut what = WhatIf { notes, ..WhatIf::default() };
        let mut input =
            whole(&scene.sub_cluster, &Beside { servers: scene.servers.clone(), groups: scene.groups.clone() });
        for group in scene.groups.iter().filter(|group| sub_changed || changed.contains(&group.name_any())) {
            before_it_runs(group, &mut input, &mut what.notes);
        }
        let measured = measured(&scene.sub_cluster, scene.groups.iter().map(AsRef::as_ref));
        what.forecast = forecast_restarts(&input, &restarts, &measured);
        let paused = |name: &&String| input.groups.get(*name).is_some_and(|group| group.frozen);
        what.notes.extend(
            restarts
                .iter()
                .filter(paused)
                .map(|name| format!("{name} is paused: nobody restarts it before it is resumed")),
        );
        let mut unknown = BTreeSet::new();
        let world = World { scene: &scene, disks: BTreeSet::new(), lock: false };
        let mut fences = BTreeSet::new();
        for step in &what.forecast.steps {
            let times = measured.groups.get(&step.group).copied().unwrap_or_default();
            let (does, known) = match step.does {
                Does::Stop => ("stop", times.stop.is_some()),
                Does::Start => ("start", times.start.is_some()),
            };
            if !known {
                unknown.insert(format!("{does} of {}", step.group));
            }
            let group = scene.groups.iter().find(|group| group.name_any() == step.group);
            let fence = group.is_some_and(|group| group.spec.recovery.on_stop_failure == StopFailureAction::Fence);
            if step.does == Does::Stop && fence && world.evidence(&step.server).1 {
                fences.insert(step.server.clone());
            }
        }
        what.fences = fences.into_iter().collect();
        if !unknown.is_empty() {
            let all: Vec<String> = unknown.into_iter().collect();
            what.notes.push(format!(
                "never measured, so that what comes after it begins later than said: {}",
                all.join(", ")
            ));
        }
        what
    }
}

/// What the agents know of a group beside its object: that it waits for an operator before its first start, and whether it
/// may go back by itself.
fn before_it_runs(group: &FailoverGroup, input: &mut Input, notes: &mut Vec<String>) {
    let name = group.name_any();
    let members: BTreeSet<String> = input
        .servers
        .iter()
        .filter(|(_, state)| **state == Planned::Member)
        .map(|(server, _)| server.clone())
        .collect();
    let Some(planned) = input.groups.get_mut(&name) else { return };
    let wanted = group.spec.state == GroupState::Online;
    if wanted && group.spec.startup == GroupStartup::Manual && !deletion::ever_placed(group) {
        planned.holds.insert(hold::MANUAL_START.to_owned());
        notes.push(format!("{name} waits for an operator (spec.startup: Manual): holdfast start {name}"));
    } else if wanted && !planned.holds.is_empty() {
        let all: Vec<&str> = planned.holds.iter().map(String::as_str).collect();
        notes.push(format!("{name} is held ({}), whatever its specification says", all.join(", ")));
    }
    let failback = &group.spec.placement.failback;
    match failback.mode {
        FailbackMode::Manual => {}
        FailbackMode::Automatic => {
            planned.failback_to = members;
            if !failback.delay.get().is_zero() {
                notes.push(format!(
                    "{name} goes back to a server that has been there for {} (spec.placement.failback.delay): here every \
                     member counts as one",
                    failback.delay
                ));
            }
        }
        FailbackMode::Window => {
            notes.push(format!(
                "{name} may go back in the window of spec.placement.failback, which is not planned here"
            ));
        }
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
