//! Operation: carried out step by step, kept as a record, deleted when its time has come. The steps are decided in
//! `carry_out.rs`; what a running one asks of its group is written by the group's reconciler.

mod about;
pub(crate) mod accept_spec;
mod begin;
pub(crate) mod carry_out;
pub(crate) mod clear_failures;
pub(crate) mod drill;
pub(crate) mod exec;
mod fence;
pub(crate) mod local;
pub(crate) mod on_server;
pub(crate) mod on_service;
pub(crate) mod pause;
mod planned;
#[cfg(test)]
mod planned_tests;
pub(crate) mod restart;
pub(crate) mod rotate_key;
pub(crate) mod shutdown;
#[cfg(test)]
mod tests;
pub(crate) mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::conditions;
use holdfast_api::reasons::condition;
use holdfast_api::v1::{
    FailoverGroup, Operation, OperationMode, OperationPhase, OperationPlan, OperationType, Server, SubCluster,
    TargetKind,
};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};

use self::about::{About, Target};
use self::carry_out::{Facts, deadline, destination, is_final, next, not_after};
use super::failover_group::target::{Ask, Beside};
use super::reporting::Reporting;
use super::until;
use crate::context::{Context, age_order};
use crate::error::{Error, is_conflict, is_not_found};
use crate::write::{self, Written};

/// The finalizer of an Operation: a running one ends at a step boundary before it goes.
const FINALIZER: &str = "holdfast.dev/operation";
/// Event on the group when an Operation on it is over.
const OPERATION_FINISHED: &str = "OperationFinished";

/// How often an Operation about more than a group looks at what the servers report.
const LOOK: Duration = Duration::from_millis(500);

/// What the Operation asks of its group while it runs.
pub(crate) fn ask(operation: &Operation) -> Ask {
    let to = (operation.spec.type_ == OperationType::Move).then(|| destination(operation)).flatten();
    ask_of(&operation.name_any(), operation.spec.type_, to)
}

fn ask_of(name: &str, type_: OperationType, to: Option<String>) -> Ask {
    Ask { operation: name.to_string(), type_, to }
}

fn phase_of(operation: &Operation) -> OperationPhase {
    operation.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

/// Looks at one Operation.
pub(crate) async fn reconcile(operation: Arc<Operation>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<Operation> = context.api_beside(operation.as_ref());
    if is_final(phase_of(&operation)) {
        let sub = server_of(&operation, &context).and_then(|server| sub_of(&server, &context));
        about::withdraw(&operation, sub.as_deref(), &context).await?;
        return finished(&api, &operation, &context).await;
    }
    if local::is(&operation) {
        let wanted = local::finished_status(&operation, &context);
        let written = write::status(&api, operation.as_ref(), |fresh| fresh.status = Some(wanted.clone())).await?;
        if let Written::Changed(written) = &written {
            let group = context.group(operation.namespace().as_deref(), &operation.spec.target.name);
            announce(written, group.as_deref(), &context).await;
        }
        return Ok(Action::requeue(Duration::from_secs(1)));
    }
    let namespace = operation.namespace();
    let server = server_of(&operation, &context);
    let on_group = operation.spec.target.kind == TargetKind::FailoverGroup;
    let group = if on_group { context.group(namespace.as_deref(), &operation.spec.target.name) } else { None };
    let sub = match (&group, operation.spec.target.kind) {
        _ if server.is_some() => server.as_ref().and_then(|server| sub_of(server, &context)),
        (Some(group), _) => context.sub_cluster(namespace.as_deref(), &group.spec.sub_cluster),
        (None, TargetKind::SubCluster) => context.sub_cluster(namespace.as_deref(), &operation.spec.target.name),
        _ => None,
    };
    let now = context.now();
    let servers = sub.as_ref().map(|sub| context.servers_of(sub)).unwrap_or_default();
    let reporting = Reporting::of(servers.iter().map(AsRef::as_ref), now, context.settings.report_timeout).is_fresh();
    let reports = |server: &Server| Reporting::of([server], now, context.settings.report_timeout).is_fresh();
    let target = Target { server: server.as_ref(), sub: sub.as_deref(), servers: &servers };
    let about = About::look(&operation, target, reports, &context).await?;
    let ahead = match phase_of(&operation) {
        OperationPhase::Pending if sub.is_some() || about.polls() => ahead(&api, &operation).await?,
        _ => None,
    };
    let planned = match (phase_of(&operation), &operation.spec.plan_digest) {
        (OperationPhase::Pending, Some(digest)) => planned_as(&api, digest).await?,
        _ => None,
    };
    let groups = sub.as_ref().map(|sub| context.groups_of(sub)).unwrap_or_default();
    let beside = Beside { servers, groups };
    let facts = Facts {
        about: &about,
        operation: &operation,
        group: group.as_deref(),
        sub_cluster: sub.as_deref(),
        beside: &beside,
        reporting,
        ahead: ahead.as_deref(),
        planned: planned.as_ref(),
        began: &context.steps_began(&operation.uid().unwrap_or_default()),
        now,
    };
    let wanted = next(&facts);
    context.remember_steps(&operation.uid().unwrap_or_default(), &wanted, now);
    let phase = wanted.phase.unwrap_or_default();
    if phase == OperationPhase::Running {
        write::add_finalizer(&api, operation.as_ref(), FINALIZER).await?;
    }
    // What was decided from a copy that is old by now is not written; the news about it brings the next look.
    let written = write::status(&api, operation.as_ref(), |fresh| {
        if fresh.metadata.generation == operation.metadata.generation && fresh.status == operation.status {
            fresh.status = Some(wanted.clone());
        }
    })
    .await?;
    if let Written::Changed(written) = &written
        && is_final(phase)
        && phase_of(written) == phase
    {
        announce(written, group.as_deref(), &context).await;
    }
    Ok(match (phase, is_final(phase), written.changed()) {
        // The next look is caused by the change of the object.
        (_, true, _) => Action::requeue(Duration::from_secs(1)),
        // The reports of servers wake no Operation.
        (..) if about.polls() => Action::requeue(LOOK),
        (OperationPhase::Running, ..) => {
            let deadline = deadline(&operation).map_or(context.settings.resync, |deadline| until(now, deadline));
            Action::requeue(deadline.min(context.settings.resync))
        }
        _ => {
            let limit = not_after(&operation).map_or(context.settings.resync, |limit| until(now, limit));
            Action::requeue(limit.min(context.settings.resync))
        }
    })
}

fn is_about_server(operation: &Operation) -> bool {
    on_server::is(operation)
        || clear_failures::is_on_server(operation)
        || pause::is(operation)
        || shutdown::is(operation)
}

/// The server that an Operation is about.
fn server_of(operation: &Operation, context: &Context) -> Option<Arc<Server>> {
    let named = is_about_server(operation) && operation.spec.target.kind == TargetKind::Server;
    if named { context.server(operation.namespace().as_deref(), &operation.spec.target.name) } else { None }
}

fn sub_of(server: &Server, context: &Context) -> Option<Arc<SubCluster>> {
    context.sub_cluster(server.namespace().as_deref(), &server.spec.sub_cluster)
}

/// The Operation on the same target that goes before this one: one that runs, else the oldest. Asked of the API server, not
/// of our copy, so that one that has just begun is seen.
async fn ahead(api: &Api<Operation>, operation: &Operation) -> Result<Option<String>, Error> {
    let all = api.list(&ListParams::default()).await.map_err(Error::api("list Operations"))?;
    let mut others: Vec<&Operation> = all
        .items
        .iter()
        .filter(|other| other.uid() != operation.uid())
        .filter(|other| other.spec.target == operation.spec.target && !is_final(phase_of(other)))
        .filter(|other| other.spec.mode == OperationMode::Execute)
        .filter(|other| phase_of(other) == OperationPhase::Running || age_order(*other) < age_order(operation))
        .collect();
    others.sort_by_key(|other| (phase_of(other) != OperationPhase::Running, age_order(*other)));
    Ok(others.first().map(|other| other.name_any()))
}

/// The plan with this digest, if an Operation of mode Plan is left that has it: to say what differs.
async fn planned_as(api: &Api<Operation>, digest: &str) -> Result<Option<OperationPlan>, Error> {
    let all = api.list(&ListParams::default()).await.map_err(Error::api("list Operations"))?;
    let mut plans = all.items.into_iter().filter_map(|operation| operation.status?.plan);
    Ok(plans.find(|plan| plan.digest == digest))
}

/// It is over: lets it go when it is being deleted, and deletes it when its time has come.
async fn finished(api: &Api<Operation>, operation: &Operation, context: &Context) -> Result<Action, Error> {
    write::drop_finalizer(api, operation, FINALIZER).await?;
    context.forget_steps(&operation.uid().unwrap_or_default());
    if operation.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let status = operation.status.clone().unwrap_or_default();
    let over = conditions::get(&status.conditions, condition::COMPLETE).map(|complete| complete.last_transition_time.0);
    let Some(over) = over.or(operation.metadata.creation_timestamp.as_ref().map(|time| time.0)) else {
        return Ok(Action::requeue(context.settings.resync));
    };
    let now = context.now();
    let end = over.saturating_add(operation.spec.ttl_after_finished.get()).unwrap_or(jiff::Timestamp::MAX);
    if now < end {
        return Ok(Action::requeue(until(now, end).min(Duration::from_secs(3600))));
    }
    let exactly = Preconditions { uid: operation.uid(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match api.delete(&operation.name_any(), &parameters).await {
        Ok(_) => Ok(Action::await_change()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(Action::await_change()),
        Err(error) => Err(Error::api(format!("delete Operation {}", write::full_name(operation)))(error)),
    }
}

/// Tells it in an Event, which nobody depends on: an API server that refuses it only costs the Event.
async fn announce(operation: &Operation, group: Option<&FailoverGroup>, context: &Context) {
    let status = operation.status.clone().unwrap_or_default();
    let ready = conditions::get(&status.conditions, condition::READY);
    let phase = phase_of(operation);
    let note = format!(
        "{} {}: {}",
        operation.spec.type_,
        phase,
        ready.map(|ready| ready.message.as_str()).unwrap_or_default()
    );
    tracing::info!(operation = %write::full_name(operation), %note, "finished");
    let event = Event {
        type_: if phase == OperationPhase::Succeeded { EventType::Normal } else { EventType::Warning },
        reason: OPERATION_FINISHED.into(),
        note: Some(note.chars().take(1000).collect()),
        action: operation.spec.type_.to_string(),
        secondary: Some(operation.object_ref(&())),
    };
    let regarding = group.map_or_else(|| operation.object_ref(&()), |group| group.object_ref(&()));
    if let Err(error) = context.recorder.publish(&event, &regarding).await {
        tracing::warn!(%error, "an Event could not be written");
    }
}
