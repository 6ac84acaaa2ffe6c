//! FailoverGroup: accepts or refuses it, writes the target that the agents follow, shows who reports, and lets it go only
//! when it does not run.

pub(crate) mod accept;
pub(crate) mod claims;
pub(crate) mod deletion;
pub(crate) mod target;

use std::sync::Arc;

use holdfast_api::reasons::{accepted, condition, hold, ready};
use holdfast_api::v1::{FailoverGroup, Operation, OperationPhase, SubCluster};
use holdfast_api::{claims as api_claims, conditions, placement};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use self::claims::Held;
use self::deletion::Deletion;
use self::target::{Ask, Beside, target};
use super::reporting::Reporting;
use super::{Rejection, contents, set_accepted, until, unusable};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// The finalizer of a FailoverGroup: its object can't vanish under a running group.
const FINALIZER: &str = "holdfast.dev/group";

/// Looks at one group.
pub(crate) async fn reconcile(group: Arc<FailoverGroup>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<FailoverGroup> = context.api_beside(group.as_ref());
    let now = context.now();
    let sub = context.sub_cluster(group.namespace().as_deref(), &group.spec.sub_cluster);
    let servers = sub.as_ref().map(|sub| context.servers_of(sub)).unwrap_or_default();
    let groups = sub.as_ref().map(|sub| context.groups_of(sub)).unwrap_or_default();
    let reporting = Reporting::of(servers.iter().map(AsRef::as_ref), now, context.settings.report_timeout);

    let deletion = deletion::deletion(&group);
    if deletion == Deletion::Go {
        write::drop_finalizer(&api, group.as_ref(), FINALIZER).await?;
        tracing::info!(group = %write::full_name(group.as_ref()), "let go");
        return Ok(Action::await_change());
    }
    let verdict = verdict(&group, sub.as_deref(), &context);
    if verdict.is_ok() {
        // Before the agents may act: they follow only what is accepted.
        write::add_finalizer(&api, group.as_ref(), FINALIZER).await?;
    }
    let exists = |name: &str| groups.iter().any(|other| other.name_any() == name);
    let unknown = placement::unknown_groups(&group.spec, exists);
    let unknown = if sub.is_some() { unknown.join("; ") } else { String::new() };
    let operations = context.operations_on(&group);
    let ask = asked(&operations);
    let clears = context.clears_of(&group);
    let pauses = context.pauses_of(&group);
    let beside = Beside { servers, groups };
    let claimed = api_claims::texts(&group.spec);
    let named = group.spec.resources.iter().filter_map(|resource| resource.data_service.as_ref());
    let services: Vec<_> =
        named.filter_map(|service| context.data_service(group.namespace().as_deref(), &service.name)).collect();
    let mismatch = contents::of_group(&group.spec, &services, &beside.servers);
    let unusable = unusable::of_group(&group, &beside.servers);

    write::status(&api, group.as_ref(), |fresh| {
        // What is wanted follows from the newest observation; the verdict is about the generation that was looked at.
        let accepted = verdict.is_ok() && fresh.metadata.generation == group.metadata.generation;
        let offline = deletion == Deletion::Stop;
        let wanted = sub.as_ref().and_then(|sub| target(sub, fresh, &beside, ask.as_ref(), accepted, offline));
        let ever_placed = deletion::ever_placed(fresh);
        let clear = super::operation::clear_failures::request(fresh, &clears);
        let pause = super::operation::pause::request(fresh, &pauses, now);
        let restart = super::operation::restart::request(fresh, &operations).filter(|_| accepted && !offline);
        let status = fresh.status.get_or_insert_default();
        status.target = wanted;
        status.restart = restart;
        status.pause = pause;
        status.clear_failures = clear;
        set_accepted(&mut status.conditions, group.meta(), &verdict, now);
        reporting.set(&mut status.conditions, now);
        contents::set(&mut status.conditions, &mismatch, group.metadata.generation, now);
        unusable::set(&mut status.conditions, &unusable, group.metadata.generation, now);
        if accepted && !reporting.is_fresh() {
            // Agents say what they hold; until they do, what was accepted counts, and nothing that they may still hold is
            // forgotten.
            let mut claims = claimed.clone();
            if ever_placed {
                claims.extend(status.claims.iter().filter(|claim| !claimed.contains(claim)).cloned());
            }
            if status.claims.len() != claims.len() || !claims.iter().all(|claim| status.claims.contains(claim)) {
                status.claims = claims;
            }
        }
        if conditions::get(&status.conditions, condition::READY).is_none() {
            let message = "no agent has reported about this group yet";
            let (type_, generation) = (condition::READY, group.metadata.generation);
            conditions::set(&mut status.conditions, type_, false, ready::UNREPORTED, message, generation, now);
        }
        if unknown.is_empty() {
            conditions::clear(&mut status.conditions, condition::UNKNOWN_GROUP);
        } else {
            let (type_, generation) = (condition::UNKNOWN_GROUP, group.metadata.generation);
            conditions::set(&mut status.conditions, type_, true, type_, &unknown, generation, now);
        }
        match &deletion {
            Deletion::Blocked { reason, message } => {
                let type_ = condition::DELETION_BLOCKED;
                conditions::set(&mut status.conditions, type_, true, reason, message, None, now);
            }
            _ => {
                conditions::clear(&mut status.conditions, condition::DELETION_BLOCKED);
            }
        }
    })
    .await?;
    let end = super::operation::pause::ends_at(&group, now).map_or(context.settings.resync, |end| until(now, end));
    Ok(Action::requeue(reporting.look_again(now, context.settings.resync).min(end)))
}

/// The verdict over this group and all others. Claims are entered under the lock that they are compared under: of two
/// groups that are looked at in the same moment only one gets what both ask for.
fn verdict(group: &FailoverGroup, sub: Option<&SubCluster>, context: &Context) -> Result<(), Rejection> {
    accept::accept(group, sub)?;
    if let Some(sub) = sub {
        accept::data_services(group, sub, |name| context.data_service(group.namespace().as_deref(), name))?;
    }
    let others = context.stores.groups.state();
    accept::order(group, &others)?;
    let sub_clusters = context.stores.sub_clusters.state();
    let sub_clusters: Vec<&SubCluster> = sub_clusters.iter().map(AsRef::as_ref).collect();
    let mut accepted_claims = context.accepted_claims();
    let uid = group.uid().unwrap_or_default();
    let known = |other: &FailoverGroup| other.uid().and_then(|uid| accepted_claims.get(&uid));
    let others = others.iter().map(|other| (other.as_ref(), known(other)));
    if let Some(message) = claims::conflict((group, accepted_claims.get(&uid)), others, &sub_clusters) {
        return Err(Rejection::new(accepted::CLAIM_CONFLICT, message));
    }
    accepted_claims.insert(uid, Held::by(group));
    Ok(())
}

/// Forgets what a group that is gone had.
pub(crate) fn forget(context: &Context, group: &FailoverGroup) {
    if context.stores.groups.get(&ObjectRef::from_obj(group)).is_none_or(|now| now.uid() != group.uid()) {
        context.accepted_claims().remove(&group.uid().unwrap_or_default());
    }
}

/// Groups that may be accepted when another one changes: it let a claim go, or opened a circle.
pub(crate) fn waiting_for_others(context: &Context) -> Vec<ObjectRef<FailoverGroup>> {
    let waits = |group: &FailoverGroup| {
        let status = group.status.as_ref();
        let verdict = status.and_then(|status| conditions::get(&status.conditions, condition::ACCEPTED));
        verdict.is_some_and(|v| [accepted::CLAIM_CONFLICT, accepted::DEPENDENCY_CYCLE].contains(&v.reason.as_str()))
    };
    context.stores.groups.state_filter(waits).iter().map(|group| ObjectRef::from_obj(group.as_ref())).collect()
}

/// Groups whose `placement` names another one, which has come or gone.
pub(crate) fn naming(context: &Context, named: &FailoverGroup) -> Vec<ObjectRef<FailoverGroup>> {
    let name = named.name_any();
    let names = |group: &FailoverGroup| {
        let placement = &group.spec.placement;
        let related = placement.separate_from.iter().chain(&placement.together).map(|relation| &relation.group);
        let beside = group.namespace() == named.namespace() && group.spec.sub_cluster == named.spec.sub_cluster;
        beside && related.chain(placement.after.iter().map(|order| &order.group)).any(|other| *other == name)
    };
    context.stores.groups.state_filter(names).iter().map(|group| ObjectRef::from_obj(group.as_ref())).collect()
}

/// Whether the Operation Start releases a hold of this type.
pub(crate) fn released_by_start(hold: &str) -> bool {
    [hold::STOPPED, hold::MANUAL_START, hold::FAILURE_LIMIT, hold::AFTER_FORCE_REINSTATE, hold::BRAKE].contains(&hold)
}

/// What the running Operation asks for, if there is one.
fn asked(operations: &[Arc<Operation>]) -> Option<Ask> {
    let running = operations
        .iter()
        .filter(|operation| !super::operation::clear_failures::is(operation) && !super::operation::pause::is(operation))
        .find(|operation| operation.status.as_ref().and_then(|status| status.phase) == Some(OperationPhase::Running))?;
    Some(super::operation::ask(running))
}

#[cfg(test)]
pub(crate) mod tests {
    use holdfast_api::v1::{GroupPhase, SubClusterPhase, ViewStatus};
    use serde_json::json;

    use super::*;

    /// A file system on the shared disk, an address and a program, in sub-cluster `db`.
    pub(crate) fn group(name: &str) -> FailoverGroup {
        serde_json::from_value(json!({
            "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup",
            "metadata": {"name": name, "namespace": "ha", "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-03-01T00:00:00Z"},
            "spec": {"subCluster": "db", "resources": [
                {"name": "data", "filesystem": {"disk": "san", "device": "/dev/disk/by-id/wwn-0x51-part2",
                    "mountPoint": "/srv/ledger", "type": "ext4"}},
                {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}},
                {"name": "app", "process": {"command": ["/usr/bin/ledgerd"]}},
            ]},
        }))
        .unwrap()
    }

    /// The group as its agents report it, in epoch 17, revision 412.
    pub(crate) fn placed(mut group: FailoverGroup, phase: GroupPhase, server: &str) -> FailoverGroup {
        let status = group.status.get_or_insert_default();
        (status.epoch, status.revision, status.phase) = (Some(17), Some(412), Some(phase));
        status.server = (!server.is_empty()).then(|| server.to_string());
        group
    }

    /// The sub-cluster as its agents report it, in epoch 17 with these members.
    pub(crate) fn running(mut sub: SubCluster, members: &[&str]) -> SubCluster {
        let members = members.iter().map(|member| member.to_string()).collect();
        let status = sub.status.get_or_insert_default();
        (status.epoch, status.phase) = (Some(17), Some(SubClusterPhase::Running));
        status.view = Some(ViewStatus { members, ..Default::default() });
        sub
    }
}
