//! Restart of a group: stopped and started on the server that runs it (api.md §8).
//!
//! The agents are asked through `status.restart`, tagged like a target with the placement that was seen. Once they have
//! stopped the group for it they start it again by themselves, and say so (`restartedBy`).

use std::sync::Arc;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{FailoverGroup, GroupPhase, GroupRestart, GroupState, Operation, OperationPhase, OperationType};
use kube::{Resource, ResourceExt};

use super::super::list;
use super::begin::STUCK;
use super::carry_out::{Next, destination, failure, holds, phase_of, reason, server_of};

/// What the agents of a group are asked for. `operations`: those on the group.
pub(crate) fn request(group: &FailoverGroup, operations: &[Arc<Operation>]) -> Option<GroupRestart> {
    let asks = |operation: &&Arc<Operation>| {
        let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
        operation.spec.type_ == OperationType::Restart
            && super::phase_of(operation) == OperationPhase::Running
            && !ends
            && !is_done(operation, group)
    };
    let operation = operations.iter().find(asks)?;
    let status = group.status.as_ref()?;
    let server = place(operation).filter(|server| status.server.as_ref() == Some(server))?;
    let (epoch, revision) = (status.epoch.unwrap_or_default(), status.revision);
    let resource = resource(operation).unwrap_or_default().to_owned();
    Some(GroupRestart { operation: operation.name_any(), server, resource, epoch, revision })
}

/// The one resource that it is about; none: the whole group.
fn resource(operation: &Operation) -> Option<&str> {
    operation.spec.restart.as_ref().and_then(|restart| restart.resource.as_deref())
}

fn part_step(resource: &str, group: &str) -> String {
    format!("restart {resource} of {group} on ")
}

/// Where it is restarted.
fn place(operation: &Operation) -> Option<String> {
    let Some(resource) = resource(operation) else { return destination(operation) };
    let prefix = part_step(resource, &operation.spec.target.name);
    let mut steps = operation.status.iter().flat_map(|status| &status.steps);
    steps.find_map(|step| step.name.strip_prefix(&prefix).map(String::from))
}

fn is_done(operation: &Operation, group: &FailoverGroup) -> bool {
    group.status.as_ref().is_some_and(|status| status.restarted_by == operation.name_any())
}

/// It has not begun yet.
pub(super) fn begin(operation: &Operation, group: &FailoverGroup, next: &mut Next<'_>) {
    let name = group.name_any();
    let held = holds(group, |_| false);
    if !held.is_empty() {
        let message = format!("{name} is held: {}; nothing is restarted that may not run", list(&held));
        return next.fail(reason::REFUSED, &message);
    }
    if group.spec.state == GroupState::Offline {
        return next.fail(reason::REFUSED, &format!("{name} has spec.state: Offline; set it to Online to run it"));
    }
    if is_done(operation, group) {
        let message =
            format!("an Operation called {} has restarted {name} before; use another name", operation.name_any());
        return next.fail(reason::REFUSED, &message);
    }
    let known = || group.spec.resources.iter().map(|resource| resource.name.as_str());
    if let Some(resource) = resource(operation).filter(|resource| known().all(|name| name != *resource)) {
        let known = list(&known().collect::<Vec<_>>());
        let message = format!("spec.restart.resource: {name} has no resource {resource}; it has {known}");
        return next.fail(accepted::NOT_FOUND, &message);
    }
    match (phase_of(group), server_of(group)) {
        (GroupPhase::Online, Some(server)) => next.run(match resource(operation) {
            Some(resource) => vec![format!("{}{server}", part_step(resource, &name))],
            None => vec![format!("stop {name} on {server}"), format!("start {name} on {server}")],
        }),
        (GroupPhase::Starting | GroupPhase::Stopping, _) => {
            next.wait(reason::WAITING_FOR_GROUP, &format!("{name} is {}", phase_of(group)));
        }
        (GroupPhase::Stuck, _) => {
            next.fail(reason::STOP_UNPROVEN, &format!("a stop of {name} is not proven; {STUCK}"));
        }
        (GroupPhase::Unknown, _) => {
            let message = format!("a server that may run {name} does not report; it can't be restarted now");
            next.fail(reason::REFUSED, &message);
        }
        (GroupPhase::Failed, _) => {
            let message = format!("{}; holdfast clear-failures {name} has it tried again", failure(group));
            next.fail(reason::GROUP_FAILED, &message);
        }
        (GroupPhase::Offline | GroupPhase::Online, _) => {
            let message =
                format!("{name} runs nowhere, so there is nothing to restart; holdfast start {name} starts it");
            next.fail(reason::REFUSED, &message);
        }
    }
}

/// It runs: what the agents report moves it on.
pub(super) fn go_on(operation: &Operation, group: &FailoverGroup, next: &mut Next<'_>) {
    let (name, phase, here) = (group.name_any(), phase_of(group), server_of(group));
    let Some(server) = place(operation) else {
        return next.fail(reason::REFUSED, "status.steps does not say where; ask for the restart again");
    };
    let done = is_done(operation, group);
    let stopped = matches!(phase, GroupPhase::Offline | GroupPhase::Starting);
    let whole = resource(operation).is_none();
    if done || whole && stopped && here.is_none_or(|here| here == server) {
        next.step_done(0);
    }
    match phase {
        GroupPhase::Stuck => {
            let message = format!("the stop of {name} failed; it counts as running until proven otherwise");
            next.fail(reason::STOP_UNPROVEN, &message);
        }
        _ if here.is_some_and(|here| here != server) => {
            let here = here.unwrap_or_default();
            if done {
                let message = format!("{name} is {phase} on {here} instead: {}", failure(group));
                return next.fail(reason::GROUP_FAILED, &message);
            }
            let message = format!("{name} left {server} before it was restarted there; it is {phase} on {here}");
            next.finish(OperationPhase::Superseded, OperationPhase::Superseded.as_str(), &message);
        }
        GroupPhase::Online if done => {
            let what = resource(operation).map(|resource| format!("{resource} of ")).unwrap_or_default();
            next.succeed(&format!("{what}{name} was restarted on {server}"));
        }
        GroupPhase::Failed => next.fail(reason::GROUP_FAILED, &failure(group)),
        GroupPhase::Offline => {
            let held = holds(group, |_| false);
            if group.spec.state == GroupState::Offline || !held.is_empty() {
                let why = if held.is_empty() { "spec.state: Offline".to_owned() } else { list(&held) };
                next.fail(reason::REFUSED, &format!("{name} is stopped, and may not start any more: {why}"));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::failover_group::tests::{group, placed};
    use super::*;

    #[test]
    fn a_group_is_asked_where_it_was_seen_and_no_longer_when_it_left_or_was_restarted() {
        let operation = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Operation", "metadata": {"name": "op-1", "namespace": "ha"},
            "spec": {"type": "Restart", "target": {"kind": "FailoverGroup", "name": "ledger"}},
            "status": {"phase": "Running", "steps": [
                {"name": "stop ledger on db1", "state": "Running"}, {"name": "start ledger on db1"},
            ]},
        });
        let operation: Operation = serde_json::from_value(operation).unwrap();
        let operations = [Arc::new(operation.clone())];
        let mut ledger = placed(group("ledger"), GroupPhase::Online, "db1");
        let asked = request(&ledger, &operations).unwrap();
        assert_eq!((asked.server.as_str(), asked.epoch, asked.revision), ("db1", 17, Some(412)));
        assert_eq!(request(&placed(group("ledger"), GroupPhase::Online, "db2"), &operations), None);
        let mut cancelled = operation;
        cancelled.spec.cancel = true;
        assert_eq!(request(&ledger, &[Arc::new(cancelled)]), None);
        ledger.status.as_mut().unwrap().restarted_by = "op-1".into();
        assert_eq!(request(&ledger, &operations), None);
    }
}
