//! Pause and Resume (api.md §8): of a group, or of the groups of a server, a sub-cluster or a super-cluster.
//!
//! The agents of each group are asked through its `status.pause`, tagged like a target with the placement that was seen. All
//! groups are asked at once; each is a step. A pause with an end is resumed by the group's reconciler when that has come, so
//! it ends also when nobody keeps its Operation.

use std::sync::Arc;

use holdfast_api::reasons::{accepted, hold};
use holdfast_api::v1::{
    FailoverGroup, GroupPause, GroupPhase, Hold, Operation, OperationPhase, OperationType, StepState, SubClusterPhase,
    TargetKind,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::super::list;
use super::carry_out::{Facts, Next, deadline, phase_of, reason};
use crate::context::Context;

/// So many steps an Operation can have.
const MOST_GROUPS: usize = 256;
/// What the request at the end of a pause is called, behind the Operation that began it.
const END: &str = ".end";

/// What such an Operation is about.
pub(crate) struct OnGroups {
    /// The target; none: there is no such object.
    target: Option<ObjectMeta>,
    /// Its groups, by name.
    groups: Vec<Arc<FailoverGroup>>,
}

/// Whether an Operation is of this kind.
pub(crate) fn is(operation: &Operation) -> bool {
    matches!(operation.spec.type_, OperationType::Pause | OperationType::Resume)
}

fn is_pause(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::Pause
}

fn until(operation: &Operation) -> Option<Timestamp> {
    operation.spec.pause.as_ref().and_then(|pause| pause.until.as_ref()).map(|until| until.0)
}

fn accepts(operation: &Operation) -> bool {
    operation.spec.resume.as_ref().is_some_and(|resume| resume.accept_differences)
}

/// What it is about, as it is now.
pub(super) fn on_groups(operation: &Operation, context: &Context) -> OnGroups {
    let (namespace, name) = (operation.namespace(), operation.spec.target.name.as_str());
    let of_sub = |name: &str| context.sub_cluster(namespace.as_deref(), name);
    let (target, mut groups) = match operation.spec.target.kind {
        TargetKind::FailoverGroup => {
            let group = context.group(namespace.as_deref(), name);
            (group.as_ref().map(|group| group.meta().clone()), group.into_iter().collect())
        }
        TargetKind::SubCluster => {
            let sub = of_sub(name);
            let groups = sub.as_ref().map(|sub| context.groups_of(sub)).unwrap_or_default();
            (sub.map(|sub| sub.meta().clone()), groups)
        }
        TargetKind::Server => {
            let server = context.server(namespace.as_deref(), name);
            let sub = server.as_ref().and_then(|server| of_sub(&server.spec.sub_cluster));
            let mut groups = sub.map(|sub| context.groups_of(&sub)).unwrap_or_default();
            groups.retain(|group| {
                let here = group.status.as_ref().and_then(|status| status.server.as_ref());
                here.is_some() && here == server.as_ref().map(|server| &server.spec.server)
            });
            (server.map(|server| server.meta().clone()), groups)
        }
        TargetKind::SuperCluster => {
            let reference = ObjectRef::new(name).within(&namespace.unwrap_or_default());
            let whole = context.stores.super_clusters.get(&reference);
            let subs = whole.as_ref().map(|whole| context.sub_clusters_of(whole)).unwrap_or_default();
            (whole.map(|whole| whole.meta().clone()), subs.iter().flat_map(|sub| context.groups_of(sub)).collect())
        }
        TargetKind::DataService => (None, Vec::new()),
    };
    groups.sort_by_key(|group| group.name_any());
    OnGroups { target, groups }
}

fn paused(group: &FailoverGroup) -> Option<&Hold> {
    group.status.iter().flat_map(|status| &status.holds).find(|held| held.type_ == hold::PAUSED)
}

/// Nobody acts on it.
pub(crate) fn is_paused(group: &FailoverGroup) -> bool {
    paused(group).is_some()
}

fn step(group: &str, operation: &Operation) -> String {
    format!("{} {group}", if is_pause(operation) { "pause" } else { "resume" })
}

/// How far it is with a group.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Done,
    Waits(String),
    /// It stays paused, because it is not as it was left.
    Refused(String),
}

fn standing(operation: &Operation, group: &FailoverGroup) -> Standing {
    let held = paused(group);
    if is_pause(operation) {
        let same = |held: &&Hold| held.until.as_ref().map(|until| until.0) == until(operation);
        return if held.filter(same).is_some() { Standing::Done } else { Standing::Waits(waits(group)) };
    }
    let look = group.status.as_ref().and_then(|status| status.look.as_ref());
    match (held, look.filter(|look| look.by == operation.name_any())) {
        (None, _) => Standing::Done,
        (_, Some(look)) => Standing::Refused(look.differences.join("; ")),
        (Some(_), None) => Standing::Waits(waits(group)),
    }
}

fn waits(group: &FailoverGroup) -> String {
    match phase_of(group) {
        phase @ (GroupPhase::Starting | GroupPhase::Stopping) => format!("it is {phase}"),
        GroupPhase::Stuck => "its stop is not proven".to_owned(),
        GroupPhase::Unknown => "a lost server may hold it; nothing is said about it before that is known".to_owned(),
        GroupPhase::Offline | GroupPhase::Online | GroupPhase::Failed => "for the agents".to_owned(),
    }
}

/// Whether a running Operation still has something to ask of this group.
pub(crate) fn asks(operation: &Operation, group: &FailoverGroup) -> bool {
    let Some(status) = operation.status.as_ref().filter(|status| status.phase == Some(OperationPhase::Running)) else {
        return false;
    };
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let step = step(&group.name_any(), operation);
    let open = |state: StepState| matches!(state, StepState::Pending | StepState::Running);
    is(operation) && !ends && status.steps.iter().any(|known| known.name == step && open(known.state))
}

/// What the agents of a group are asked for. `operations`: those that still ask, oldest first.
pub(crate) fn request(group: &FailoverGroup, operations: &[Arc<Operation>], now: Timestamp) -> Option<GroupPause> {
    let status = group.status.as_ref()?;
    let tagged =
        GroupPause { epoch: status.epoch.unwrap_or_default(), revision: status.revision, ..Default::default() };
    let open = |operation: &&Arc<Operation>| matches!(standing(operation, group), Standing::Waits(_));
    if let Some(operation) = operations.iter().find(open) {
        let (resume, accept_differences) = (!is_pause(operation), accepts(operation));
        let until = until(operation).map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
        return Some(GroupPause { operation: operation.name_any(), resume, accept_differences, until, ..tagged });
    }
    let held = paused(group).filter(|held| held.until.as_ref().is_some_and(|until| until.0 <= now))?;
    let operation = format!("{}{END}", held.by);
    let refused = status.look.as_ref().is_some_and(|look| look.by == operation);
    (!refused).then_some(GroupPause { operation, resume: true, ..tagged })
}

/// When the pause of a group ends by itself, if that is to come.
pub(crate) fn ends_at(group: &FailoverGroup, now: Timestamp) -> Option<Timestamp> {
    paused(group)?.until.as_ref().map(|until| until.0).filter(|until| *until > now)
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: &OnGroups, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target;
    let Some(meta) = &on.target else {
        let message = format!("spec.target.name: there is no {} {} in this namespace", target.kind, target.name);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(ahead) = facts.ahead {
        return next.wait(reason::WAITING_FOR_OPERATION, &format!("Operation {ahead} on the same target goes first"));
    }
    if facts.sub_cluster.is_none() && operation.spec.preconditions.as_ref().is_some_and(|wanted| wanted.epoch.is_some())
    {
        let message = "spec.preconditions.epoch: a super-cluster has none; leave it out";
        return next.fail(reason::PRECONDITION_FAILED, message);
    }
    let epoch = facts.sub_cluster.and_then(|sub| sub.status.as_ref()?.epoch).unwrap_or_default();
    if let Some(message) = super::begin::broken(operation, meta, epoch) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    if let Some(until) = until(operation).filter(|until| *until <= facts.now) {
        return next
            .fail(reason::REFUSED, &format!("spec.pause.until: {until:.0} is over; give a time that is to come"));
    }
    if let Some(sub) = facts.sub_cluster {
        let running = sub.status.as_ref().and_then(|status| status.phase) == Some(SubClusterPhase::Running);
        if !facts.reporting || !running {
            let what = if facts.reporting { "has no quorum" } else { "has no agent that reports" };
            return next.wait(reason::WAITING_FOR_AGENTS, &format!("sub-cluster {} {what} now", sub.name_any()));
        }
    }
    let concerned = on.groups.iter().filter(|group| is_pause(operation) || paused(group).is_some());
    let groups: Vec<String> = concerned.map(|group| group.name_any()).collect();
    match groups.len() {
        0 if target.kind == TargetKind::FailoverGroup => next.succeed(&format!("{} is not paused", target.name)),
        0 if is_pause(operation) => next.succeed(&format!("{} {} has no group", target.kind, target.name)),
        0 => next.succeed(&format!("no group of {} {} is paused", target.kind, target.name)),
        1..=MOST_GROUPS => next.run(groups.iter().map(|group| step(group, operation)).collect()),
        many => {
            let message = format!(
                "{} {} has {many} groups, and {MOST_GROUPS} is the most; name its parts one by one",
                target.kind, target.name
            );
            next.fail(reason::REFUSED, &message);
        }
    }
}

/// It runs: what the agents report of its groups moves the steps on.
pub(super) fn go_on(facts: &Facts<'_>, on: &OnGroups, next: &mut Next<'_>) {
    let operation = facts.operation;
    let steps: Vec<String> = operation.status.iter().flat_map(|status| &status.steps).map(|s| s.name.clone()).collect();
    let (mut waits, mut refused) = (Vec::new(), Vec::new());
    for (number, name) in steps.iter().enumerate() {
        // A group that is gone is not paused any more either.
        let group = on.groups.iter().find(|group| step(&group.name_any(), operation) == *name);
        let standing = group.map_or(Standing::Done, |group| standing(operation, group));
        let group = group.map(|group| group.name_any()).unwrap_or_default();
        match standing {
            Standing::Waits(why) => waits.push(format!("{group}: waits {why}").replace("waits it is", "it is")),
            Standing::Refused(why) => {
                refused.push(format!("{group} is not as it was left: {why}"));
                if waits.is_empty() {
                    next.step_done(number);
                }
            }
            Standing::Done if waits.is_empty() => next.step_done(number),
            Standing::Done => {}
        }
    }
    if waits.is_empty() && refused.is_empty() {
        return next.succeed(&done(operation, steps.len()));
    }
    if waits.is_empty() {
        let message = format!(
            "{}. What differs stays paused: bring it back to that, or accept it, and what should run is started where the \
             group is (spec.resume.acceptDifferences, holdfast resume --accept-differences)",
            refused.join(". ")
        );
        return next.fail(reason::REFUSED, &message);
    }
    let waits = list(&waits);
    next.say_waiting(&waits);
    if operation.spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let phase = OperationPhase::Cancelled;
        let what = if is_pause(operation) { "paused" } else { "resumed" };
        return next.finish(phase, phase.as_str(), &format!("cancelled; what was {what} so far stays so"));
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        next.fail(reason::TIMEOUT, &format!("not done within spec.timeout {}: {waits}", operation.spec.timeout));
    }
}

fn done(operation: &Operation, groups: usize) -> String {
    let target = &operation.spec.target;
    let what = match target.kind {
        TargetKind::FailoverGroup => target.name.clone(),
        kind if groups == 1 => format!("the one group of {kind} {}", target.name),
        kind => format!("{groups} groups of {kind} {}", target.name),
    };
    let are = if groups == 1 { "is" } else { "are" };
    match (is_pause(operation), until(operation)) {
        (false, _) => format!("{what} {are} resumed"),
        (true, None) => format!("{what} {are} paused: nobody acts on that before holdfast resume"),
        (true, Some(until)) => format!("{what} {are} paused until {until:.0}, or until holdfast resume"),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::v1::PauseLook;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::super::super::failover_group::tests::{group, placed};
    use super::*;

    fn operation(type_: &str, until: Option<&str>) -> Arc<Operation> {
        let verb = type_.to_lowercase();
        let mut operation = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Operation", "metadata": {"name": "op-1", "namespace": "ha"},
            "spec": {"type": type_, "target": {"kind": "SubCluster", "name": "db"}},
            "status": {"phase": "Running", "steps": [
                {"name": format!("{verb} other"), "state": "Running"}, {"name": format!("{verb} ledger")},
            ]},
        });
        if let Some(until) = until {
            operation["spec"]["pause"] = json!({ "until": until });
        }
        Arc::new(serde_json::from_value(operation).unwrap())
    }

    fn held(mut group: FailoverGroup, until: Option<&str>) -> FailoverGroup {
        let until = until.map(|until| Time(until.parse().unwrap()));
        let hold = Hold { name: "paused".into(), type_: "Paused".into(), by: "op-1".into(), until, ..Hold::default() };
        group.status.as_mut().unwrap().holds = vec![hold];
        group
    }

    #[test]
    fn every_group_is_asked_at_once_until_it_is_as_it_was_asked() {
        let (now, ledger) =
            ("2026-03-01T00:00:00Z".parse().unwrap(), placed(group("ledger"), GroupPhase::Online, "db1"));
        let pause = operation("Pause", None);
        assert!(asks(&pause, &ledger) && asks(&pause, &group("other")) && !asks(&pause, &group("third")));
        let asked = request(&ledger, std::slice::from_ref(&pause), now).unwrap();
        assert_eq!((asked.resume, asked.epoch, asked.revision), (false, 17, Some(412)));
        assert_eq!(request(&held(ledger.clone(), None), std::slice::from_ref(&pause), now), None);
        // Another end is another pause.
        let longer = operation("Pause", Some("2026-03-01T01:00:00Z"));
        assert!(request(&held(ledger.clone(), None), &[longer], now).unwrap().until.is_some());
        let resume = operation("Resume", None);
        assert_eq!(request(&ledger, std::slice::from_ref(&resume), now), None);
        let mut differs = held(ledger, None);
        assert!(request(&differs, std::slice::from_ref(&resume), now).unwrap().resume);
        differs.status.as_mut().unwrap().look =
            Some(PauseLook { by: "op-1".into(), differences: vec!["app on db1: it does not run".into()] });
        assert_eq!(request(&differs, std::slice::from_ref(&resume), now), None, "it was answered");
        assert_eq!(standing(&resume, &differs), Standing::Refused("app on db1: it does not run".into()));
    }

    #[test]
    fn a_pause_with_an_end_is_resumed_once_when_that_has_come_and_not_against_what_is_found() {
        let at = |text: &str| text.parse().unwrap();
        let mut ledger = held(placed(group("ledger"), GroupPhase::Online, "db1"), Some("2026-03-01T01:00:00Z"));
        assert_eq!(request(&ledger, &[], at("2026-03-01T00:59:59Z")), None);
        assert_eq!(ends_at(&ledger, at("2026-03-01T00:59:59Z")), Some(at("2026-03-01T01:00:00Z")));
        let asked = request(&ledger, &[], at("2026-03-01T01:00:00Z")).unwrap();
        assert_eq!((asked.operation.as_str(), asked.resume, asked.accept_differences), ("op-1.end", true, false));
        ledger.status.as_mut().unwrap().look =
            Some(PauseLook { by: "op-1.end".into(), differences: vec!["app".into()] });
        assert_eq!(request(&ledger, &[], at("2026-03-01T02:00:00Z")), None);
    }
}
