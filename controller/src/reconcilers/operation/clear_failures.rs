//! ClearFailures: what was counted against a group, or on a server against all groups, is forgotten (api.md §8).
//!
//! The agents are asked through `status.clearFailures` of each group, tagged like a target with the placement that was seen.
//! They say whose request they carried out last (`failuresClearedBy`), and nothing else is asked of a group before this
//! Operation has read that.

use std::sync::Arc;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    ClearFailures, FailoverGroup, GroupPhase, Operation, OperationPhase, OperationType, ResourceState, StepState,
    SubClusterPhase, TargetKind,
};
use kube::{Resource, ResourceExt};

use super::super::list;
use super::carry_out::{Facts, Next, deadline, phase_of, reason};
use super::on_server::OnServer;

/// So many steps an Operation can have.
const MOST_GROUPS: usize = 256;

/// Whether an Operation is of this type.
pub(crate) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::ClearFailures
}

/// Whether it is about a server.
pub(crate) fn is_on_server(operation: &Operation) -> bool {
    is(operation) && operation.spec.target.kind == TargetKind::Server
}

fn step(group: &str, operation: &Operation) -> String {
    match operation.spec.target.kind {
        TargetKind::Server => format!("forget the failures of {group} on {}", operation.spec.target.name),
        _ => format!("forget the failures of {group}"),
    }
}

/// Whether a running Operation still has something to ask of this group.
pub(crate) fn asks(operation: &Operation, group: &FailoverGroup) -> bool {
    let Some(status) = operation.status.as_ref().filter(|status| status.phase == Some(OperationPhase::Running)) else {
        return false;
    };
    let step = step(&group.name_any(), operation);
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    is(operation) && !ends && status.steps.iter().any(|s| s.name == step && s.state == StepState::Running)
}

/// What the agents of a group are asked for. `operations`: those that still ask, oldest first.
pub(crate) fn request(group: &FailoverGroup, operations: &[Arc<Operation>]) -> Option<ClearFailures> {
    let (first, status) = (operations.first()?, group.status.clone().unwrap_or_default());
    let name = first.name_any();
    // Done; the Operation is about to read it.
    if status.failures_cleared_by == name {
        return None;
    }
    let (_, server) = first.spec.target.name.rsplit_once('.').filter(|_| is_on_server(first)).unwrap_or_default();
    Some(ClearFailures {
        operation: name,
        resource: first.spec.clear_failures.as_ref().and_then(|p| p.resource.clone()).unwrap_or_default(),
        server: server.to_owned(),
        epoch: status.epoch.unwrap_or_default(),
        revision: status.revision,
    })
}

/// It has not begun yet, and is about this group.
pub(super) fn begin(operation: &Operation, group: &FailoverGroup, next: &mut Next<'_>) {
    let resource = operation.spec.clear_failures.as_ref().and_then(|parameters| parameters.resource.as_ref());
    let known = || group.spec.resources.iter().map(|resource| resource.name.as_str());
    if let Some(resource) = resource.filter(|resource| known().all(|name| name != resource.as_str())) {
        let (name, known) = (group.name_any(), list(&known().collect::<Vec<_>>()));
        let message = format!("spec.clearFailures.resource: {name} has no resource {resource}; it has {known}");
        return next.fail(accepted::NOT_FOUND, &message);
    }
    next.run(vec![step(&group.name_any(), operation)]);
}

/// It has not begun yet, and is about a server.
pub(super) fn begin_on_server(facts: &Facts<'_>, on: &OnServer, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target.name;
    let (Some(sub), Some(server)) = (facts.sub_cluster, on.server.as_deref()) else {
        return next.fail(accepted::NOT_FOUND, &super::on_server::not_found(target));
    };
    if let Some(resource) = operation.spec.clear_failures.as_ref().and_then(|parameters| parameters.resource.as_ref()) {
        let message = format!(
            "spec.clearFailures.resource: {resource} is a resource of one group; name that group as the target, or leave \
             the resource out"
        );
        return next.fail(reason::REFUSED, &message);
    }
    if let Some(ahead) = facts.ahead {
        return next.wait(reason::WAITING_FOR_OPERATION, &format!("Operation {ahead} on the same server goes first"));
    }
    if let Some(message) = super::begin::broken_precondition(operation, server, sub) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    let running = sub.status.as_ref().and_then(|status| status.phase) == Some(SubClusterPhase::Running);
    if !facts.reporting || !running {
        let what = if facts.reporting { "has no quorum" } else { "has no agent that reports" };
        return next.wait(reason::WAITING_FOR_AGENTS, &format!("sub-cluster {} {what} now", sub.name_any()));
    }
    let name = server.spec.server.as_str();
    let mut groups: Vec<String> =
        facts.beside.groups.iter().filter(|group| counts_on(group, name)).map(|group| group.name_any()).collect();
    groups.sort();
    match groups.len() {
        0 => next.succeed(&format!("no failure of any group is counted on {name}")),
        1..=MOST_GROUPS => next.run(groups.iter().map(|group| step(group, operation)).collect()),
        many => {
            let message = format!(
                "failures of {many} groups are counted on {name}, and {MOST_GROUPS} is the most; name the groups one by one"
            );
            next.fail(reason::REFUSED, &message);
        }
    }
}

/// Whether something is counted against a group on this server.
fn counts_on(group: &FailoverGroup, server: &str) -> bool {
    let Some(status) = &group.status else { return false };
    let here = status.server.as_deref() == Some(server);
    let resource = status
        .resources
        .iter()
        .any(|r| r.restarts > 0 || matches!(r.state, ResourceState::Failed | ResourceState::Stuck));
    let monitor = status.monitors.iter().any(|monitor| monitor.failures > 0);
    here && (resource || monitor) || status.failures.iter().any(|failure| failure.server == server)
}

/// It runs, and is about this group.
pub(super) fn go_on(operation: &Operation, group: &FailoverGroup, next: &mut Next<'_>) {
    if is_done(operation, group) {
        let name = group.name_any();
        let what = match operation.spec.clear_failures.as_ref().and_then(|parameters| parameters.resource.as_ref()) {
            Some(resource) => format!("the failures of {resource} in {name} are forgotten"),
            None => format!("the failures of {name} are forgotten, and FailureLimit does not hold it"),
        };
        return next.succeed(&what);
    }
    next.say_waiting(waits(group));
}

fn is_done(operation: &Operation, group: &FailoverGroup) -> bool {
    group.status.as_ref().is_some_and(|status| status.failures_cleared_by == operation.name_any())
}

fn waits(group: &FailoverGroup) -> &'static str {
    match phase_of(group) {
        GroupPhase::Unknown => "a lost server may hold the group; nothing is said about it before that is known",
        _ => "",
    }
}

/// It runs, and is about a server.
pub(super) fn go_on_on_server(facts: &Facts<'_>, next: &mut Next<'_>) {
    let operation = facts.operation;
    let steps = operation.status.iter().flat_map(|status| &status.steps);
    let running = steps.enumerate().find(|(_, step)| step.state == StepState::Running);
    if let Some((number, running)) = running {
        let group = facts.beside.groups.iter().find(|group| step(&group.name_any(), operation) == running.name);
        match group {
            Some(group) if !is_done(operation, group) => next.say_waiting(waits(group)),
            // Done, or the group is gone.
            _ => next.step_done(number),
        }
    }
    if (0..next.steps()).all(|number| !next.is_running(number)) {
        return next
            .succeed(&format!("what was counted against groups on {} is forgotten", operation.spec.target.name));
    }
    if operation.spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let message = "cancelled; what was forgotten so far stays forgotten";
        return next.finish(OperationPhase::Cancelled, OperationPhase::Cancelled.as_str(), message);
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        next.fail(reason::TIMEOUT, &format!("not done within spec.timeout {}", operation.spec.timeout));
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::v1::Failure;
    use serde_json::json;

    use super::super::super::failover_group::tests::{group, placed};
    use super::*;

    fn operation(kind: &str, target: &str, step: &str) -> Arc<Operation> {
        let operation = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Operation", "metadata": {"name": "op-1", "namespace": "ha"},
            "spec": {"type": "ClearFailures", "target": {"kind": kind, "name": target}},
            "status": {"phase": "Running", "steps": [{"name": step, "state": "Running"}]},
        });
        Arc::new(serde_json::from_value(operation).unwrap())
    }

    #[test]
    fn a_group_is_asked_by_the_placement_that_was_seen_until_its_agents_say_that_it_is_done() {
        let mut ledger = placed(group("ledger"), GroupPhase::Failed, "");
        let on_server = operation("Server", "db.db1", "forget the failures of ledger on db.db1");
        let on_group = operation("FailoverGroup", "ledger", "forget the failures of ledger");
        assert!(asks(&on_server, &ledger) && asks(&on_group, &ledger) && !asks(&on_server, &group("other")));
        let asked = request(&ledger, std::slice::from_ref(&on_server)).unwrap();
        assert_eq!((asked.server.as_str(), asked.epoch, asked.revision), ("db1", 17, Some(412)));
        assert_eq!(request(&ledger, std::slice::from_ref(&on_group)).unwrap().server, "");
        ledger.status.as_mut().unwrap().failures_cleared_by = "op-1".into();
        assert_eq!(request(&ledger, &[on_group]), None);
    }

    #[test]
    fn what_counts_on_a_server_is_what_failed_there_or_was_restarted_there() {
        let mut ledger = placed(group("ledger"), GroupPhase::Online, "db1");
        assert!(!counts_on(&ledger, "db1"));
        ledger.status.as_mut().unwrap().failures = vec![Failure { server: "db2".into(), ..Default::default() }];
        assert!(!counts_on(&ledger, "db1") && counts_on(&ledger, "db2"));
        let restarted = json!([{"name": "app", "state": "Online", "restarts": 2}]);
        ledger.status.as_mut().unwrap().resources = serde_json::from_value(restarted).unwrap();
        assert!(counts_on(&ledger, "db1"));
    }
}
