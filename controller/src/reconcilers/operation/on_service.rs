//! Start and Stop of a DataService (api.md §8): off and on in every group, while the rest of the group runs on, as
//! `spec.state` does it. What lasts is a hold in the object's status: `spec` is what people declare, and the most restrictive
//! of both counts (docs/decisions/0017).

use std::sync::Arc;

use holdfast_api::reasons::{accepted, hold};
use holdfast_api::v1::{
    DataService, DataServiceState, FailoverGroup, GroupPhase, Hold, Operation, OperationPhase, OperationType,
    ResourceState, TargetKind,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Api;
use kube::{Resource, ResourceExt};

use super::carry_out::{Facts, Next, deadline, failure, phase_of, reason};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// What the steps depend on.
pub(crate) struct OnService {
    /// The target.
    pub(crate) service: Option<Arc<DataService>>,
    /// The groups that name it.
    pub(crate) users: Vec<Arc<FailoverGroup>>,
}

/// Whether an Operation is of this kind.
pub(crate) fn is(operation: &Operation) -> bool {
    let type_ = matches!(operation.spec.type_, OperationType::Start | OperationType::Stop);
    type_ && operation.spec.target.kind == TargetKind::DataService
}

fn is_stop(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::Stop
}

fn is_held(service: &DataService) -> bool {
    service.status.iter().flat_map(|status| &status.holds).any(|known| known.type_ == hold::STOPPED)
}

/// Places the hold, or releases it, while the Operation runs.
pub(super) async fn carry_out(operation: &Operation, service: &DataService, context: &Context) -> Result<(), Error> {
    let running = operation.status.as_ref().is_some_and(|status| status.phase == Some(OperationPhase::Running));
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    if !running || ends {
        return Ok(());
    }
    let api: Api<DataService> = context.api_beside(service);
    let now = context.now();
    write::status(&api, service, |fresh| {
        let held = is_held(fresh);
        let status = fresh.status.get_or_insert_default();
        match is_stop(operation) {
            true if !held => status.holds.push(stopped(operation, now)),
            true => {}
            false => status.holds.retain(|known| known.type_ != hold::STOPPED),
        }
    })
    .await?;
    Ok(())
}

fn stopped(operation: &Operation, now: Timestamp) -> Hold {
    let spec = &operation.spec;
    Hold {
        name: operation.name_any(),
        type_: hold::STOPPED.into(),
        by: spec.requested_by.clone().unwrap_or_else(|| "an operator".into()),
        since: Some(Time(now)),
        until: None,
        message: spec.reason.clone().unwrap_or_else(|| "stopped by an Operation; start it with one".into()),
    }
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: &OnService, next: &mut Next<'_>) {
    let operation = facts.operation;
    let name = &operation.spec.target.name;
    let Some(service) = &on.service else {
        let message = format!("spec.target.name: there is no DataService {name} in this namespace");
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(ahead) = facts.ahead {
        let message = format!("Operation {ahead} on the same data service goes first");
        return next.wait(reason::WAITING_FOR_OPERATION, &message);
    }
    if operation.spec.preconditions.as_ref().is_some_and(|wanted| wanted.epoch.is_some()) {
        let message = "spec.preconditions.epoch: a data service belongs to no sub-cluster; leave it out";
        return next.fail(reason::PRECONDITION_FAILED, message);
    }
    if let Some(message) = super::begin::broken(operation, service.meta(), 0) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    if !is_stop(operation) && service.spec.state == DataServiceState::Disabled {
        let message = format!("{name} has spec.state: Disabled; what is declared wins, set it to Enabled");
        return next.fail(reason::REFUSED, &message);
    }
    let what = if is_stop(operation) { "stop" } else { "start" };
    let groups: Vec<String> = on.users.iter().map(|group| group.name_any()).collect();
    let step = match groups.as_slice() {
        [] => format!("{what} {name}"),
        groups => format!("{what} {name} in {}", groups.join(", ")),
    };
    next.run(vec![step.chars().take(250).collect()]);
}

/// It runs: what the agents report of its groups ends it.
pub(super) fn go_on(facts: &Facts<'_>, on: &OnService, next: &mut Next<'_>) {
    let operation = facts.operation;
    let name = &operation.spec.target.name;
    let Some(service) = &on.service else {
        return next.fail(accepted::NOT_FOUND, &format!("the DataService {name} is gone"));
    };
    let stop = is_stop(operation);
    let mut waits = Vec::new();
    if is_held(service) != stop {
        waits.push("the hold is being written".to_owned());
    }
    for group in &on.users {
        match standing(group, name, stop) {
            Standing::Done => {}
            Standing::Waits(why) => waits.push(why),
            Standing::Failed(reason, why) => return next.fail(reason, &why),
        }
    }
    if waits.is_empty() {
        return next.succeed(&match stop {
            true => {
                format!("{name} is stopped in every group and held; holdfast start --data-service {name} releases it")
            }
            false => format!("{name} runs in every group that is online"),
        });
    }
    let waits = waits.join("; ");
    next.say_waiting(&waits);
    if operation.spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let held = if is_held(service) { "held" } else { "not held" };
        let phase = OperationPhase::Cancelled;
        return next.finish(phase, phase.as_str(), &format!("cancelled; {name} is {held}"));
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        let message = format!("not done within spec.timeout {}: {waits}", operation.spec.timeout);
        next.fail(reason::TIMEOUT, &message);
    }
}

/// How far a group is.
enum Standing {
    Done,
    Waits(String),
    Failed(&'static str, String),
}

fn standing(group: &FailoverGroup, service: &str, stop: bool) -> Standing {
    let (name, phase) = (group.name_any(), phase_of(group));
    let names = group.spec.resources.iter().filter(|r| r.data_service.as_ref().is_some_and(|s| s.name == service));
    let state = |resource: &str| {
        let known = group.status.iter().flat_map(|status| &status.resources).find(|known| known.name == resource);
        known.map_or(ResourceState::Offline, |known| known.state)
    };
    for resource in names {
        let state = state(&resource.name);
        let done = match (stop, phase) {
            (true, GroupPhase::Unknown) => false,
            (true, _) => state == ResourceState::Offline,
            // One that is not to run does not run it either.
            (false, GroupPhase::Online | GroupPhase::Starting) => state == ResourceState::Online,
            (false, _) => true,
        };
        let at = format!("{} of group {name} is {state}", resource.name);
        match state {
            ResourceState::Stuck => return Standing::Failed(reason::STOP_UNPROVEN, at),
            ResourceState::Failed if !stop => {
                return Standing::Failed(reason::GROUP_FAILED, format!("{at}: {}", failure(group)));
            }
            _ if !done => return Standing::Waits(at),
            _ => {}
        }
    }
    Standing::Done
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_api::conditions;
    use serde_json::{Value, json};

    use super::super::super::failover_group::target::Beside;
    use super::super::about::About;
    use super::super::carry_out::next;
    use super::*;

    fn look(operation: &mut Operation, service: &Value, state: &str) -> String {
        let group = json!({"apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "bank"},
            "spec": {"subCluster": "db", "resources": [{"name": "db", "dataService": {"name": "db2"}}]},
            "status": {"phase": "Online", "resources": [{"name": "db", "state": state}]}});
        let service = serde_json::from_value(service.clone()).unwrap();
        let users = vec![Arc::new(serde_json::from_value(group).unwrap())];
        let on = About::Service(OnService { service: Some(Arc::new(service)), users });
        let facts = Facts {
            operation,
            about: &on,
            group: None,
            sub_cluster: None,
            beside: &Beside::default(),
            reporting: false,
            ahead: None,
            planned: None,
            began: &BTreeMap::new(),
            now: "2026-03-01T00:00:01Z".parse().unwrap(),
        };
        let status = next(&facts);
        operation.status = Some(status.clone());
        let ready = conditions::get(&status.conditions, "Ready").unwrap();
        format!("{} {}", status.phase.unwrap(), ready.message)
    }

    fn operation(type_: &str) -> Operation {
        serde_json::from_value(json!({"apiVersion": "holdfast.dev/v1", "kind": "Operation",
            "metadata": {"name": "op-1", "namespace": "ha", "creationTimestamp": "2026-03-01T00:00:00Z"},
            "spec": {"type": type_, "target": {"kind": "DataService", "name": "db2"}}}))
        .unwrap()
    }

    fn service(state: &str, held: bool) -> Value {
        let holds = if held { json!([{"name": "op-1", "type": "Stopped"}]) } else { json!([]) };
        json!({"apiVersion": "holdfast.dev/v1", "kind": "DataService", "metadata": {"name": "db2"},
            "spec": {"state": state, "methods": [{"name": "start", "path": "/a"}]}, "status": {"holds": holds}})
    }

    #[test]
    fn a_data_service_is_stopped_when_it_is_held_and_runs_in_no_group_any_more() {
        let mut stop = operation("Stop");
        assert_eq!(look(&mut stop, &service("Enabled", false), "Online"), "Running stop db2 in bank");
        assert!(look(&mut stop, &service("Enabled", true), "Online").ends_with("db of group bank is Online"));
        assert!(look(&mut stop, &service("Enabled", false), "Offline").ends_with("the hold is being written"));
        assert!(look(&mut stop.clone(), &service("Enabled", true), "Stuck").starts_with("Failed "));
        assert!(look(&mut stop, &service("Enabled", true), "Offline").starts_with("Succeeded db2 is stopped in every"));
        let mut start = operation("Start");
        assert!(look(&mut start.clone(), &service("Disabled", true), "Offline").contains("what is declared wins"));
        look(&mut start, &service("Enabled", true), "Offline");
        assert!(look(&mut start, &service("Enabled", false), "Offline").ends_with("db of group bank is Offline"));
        assert!(look(&mut start, &service("Enabled", false), "Online").starts_with("Succeeded db2 runs in every"));
    }
}
