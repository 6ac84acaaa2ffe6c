//! AcceptSpec: what a restored store has counts, although the servers acted on something newer (api.md §8, §10).
//!
//! The agents are told by `status.acceptSpec` of the object, which stays: a specification with more acceptances is newer than
//! one with fewer. They report how many those have by which they act (`acceptances`), so that one that was lost with
//! another restore is never counted twice.

use std::sync::Arc;

use holdfast_api::conditions;
use holdfast_api::reasons::{accepted, condition, stalled};
use holdfast_api::v1::{
    AcceptSpec, FailoverGroup, Operation, OperationPhase, OperationType, SubCluster, SubClusterPhase, TargetKind,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{Api, Resource, ResourceExt};

use super::carry_out::{Facts, Next, deadline, reason};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// The object whose specification it is about.
#[derive(Clone)]
pub(crate) enum OnSpec {
    Group(Arc<FailoverGroup>),
    SubCluster(Arc<SubCluster>),
}

/// What the status of it says.
struct Seen<'a> {
    meta: &'a ObjectMeta,
    /// The generation that the servers act by.
    held: Option<i64>,
    /// Its acceptances.
    acceptances: u32,
    asked: Option<&'a AcceptSpec>,
    conditions: &'a [Condition],
}

impl OnSpec {
    fn seen(&self) -> Seen<'_> {
        macro_rules! of {
            ($object:expr) => {{
                let status = $object.status.as_ref();
                Seen {
                    meta: &$object.metadata,
                    held: status.and_then(|status| status.observed_generation),
                    acceptances: status.and_then(|status| status.acceptances).unwrap_or(0),
                    asked: status.and_then(|status| status.accept_spec.as_ref()),
                    conditions: status.map_or(&[], |status| &status.conditions),
                }
            }};
        }
        match self {
            OnSpec::Group(group) => of!(group),
            OnSpec::SubCluster(sub) => of!(sub),
        }
    }
}

impl Seen<'_> {
    /// The servers act by what is stored, as this Operation asks.
    fn is_taken(&self, operation: &Operation) -> bool {
        let asked = self.asked.filter(|asked| Some(&asked.uid) == operation.metadata.uid.as_ref());
        asked.is_some_and(|asked| self.acceptances >= asked.acceptances) && self.held == self.meta.generation
    }
}

/// Whether an Operation is of this kind.
pub(super) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::AcceptSpec
}

/// What it is about, none if there is no such object.
pub(super) fn on(operation: &Operation, context: &Context) -> Option<OnSpec> {
    let (namespace, target) = (operation.namespace(), &operation.spec.target);
    match target.kind {
        TargetKind::FailoverGroup => context.group(namespace.as_deref(), &target.name).map(OnSpec::Group),
        _ => context.sub_cluster(namespace.as_deref(), &target.name).map(OnSpec::SubCluster),
    }
}

/// While it runs the object says so.
pub(super) async fn carry_out(operation: &Operation, on: &OnSpec, context: &Context) -> Result<(), Error> {
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    if super::phase_of(operation) != OperationPhase::Running || ends {
        return Ok(());
    }
    let uid = operation.uid().unwrap_or_default();
    match on {
        OnSpec::Group(group) => {
            let api: Api<FailoverGroup> = context.api_beside(group.as_ref());
            let ask = |fresh: &mut FailoverGroup| {
                let status = fresh.status.get_or_insert_default();
                status.accept_spec = Some(raised(&uid, status.accept_spec.as_ref(), status.acceptances));
            };
            write::status(&api, group.as_ref(), ask).await?;
        }
        OnSpec::SubCluster(sub) => {
            let api: Api<SubCluster> = context.api_beside(sub.as_ref());
            let ask = |fresh: &mut SubCluster| {
                let status = fresh.status.get_or_insert_default();
                status.accept_spec = Some(raised(&uid, status.accept_spec.as_ref(), status.acceptances));
            };
            write::status(&api, sub.as_ref(), ask).await?;
        }
    }
    Ok(())
}

/// What is asked for by the Operation of this uid: once, and above everything that any server acted by.
fn raised(uid: &str, asked: Option<&AcceptSpec>, held: Option<u32>) -> AcceptSpec {
    match asked {
        Some(asked) if asked.uid == uid => asked.clone(),
        _ => AcceptSpec {
            uid: uid.to_owned(),
            acceptances: asked.map_or(0, |asked| asked.acceptances).max(held.unwrap_or(0)) + 1,
        },
    }
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: Option<&OnSpec>, next: &mut Next<'_>) {
    let target = &facts.operation.spec.target;
    let Some(on) = on else {
        let message = format!("spec.target.name: there is no {} {} in this namespace", target.kind, target.name);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    let Some(sub) = facts.sub_cluster else {
        return next.fail(accepted::NOT_FOUND, "the sub-cluster of the group does not exist");
    };
    if let Some(ahead) = facts.ahead {
        return next.wait(reason::WAITING_FOR_OPERATION, &format!("Operation {ahead} on the same object goes first"));
    }
    let seen = on.seen();
    let epoch = sub.status.as_ref().and_then(|status| status.epoch).unwrap_or_default();
    if let Some(message) = super::begin::broken(facts.operation, seen.meta, epoch) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    let running = sub.status.as_ref().and_then(|status| status.phase) == Some(SubClusterPhase::Running);
    if !facts.reporting || !running {
        let what = if facts.reporting { "has no quorum" } else { "has no agent that reports" };
        return next.wait(reason::WAITING_FOR_AGENTS, &format!("sub-cluster {} {what} now", sub.name_any()));
    }
    let (name, stored) = (&target.name, seen.meta.generation.unwrap_or_default());
    let verdict = conditions::get(seen.conditions, condition::ACCEPTED);
    match verdict.filter(|verdict| verdict.observed_generation == Some(stored)) {
        Some(verdict) if verdict.status == "False" => {
            let message = format!(
                "generation {stored} of {name}, which the store has, can't be carried out: {}; correct it first",
                verdict.message
            );
            return next.fail(reason::REFUSED, &message);
        }
        Some(_) => {}
        None => return next.wait(reason::WAITING_FOR_GROUP, "the controller has not looked at the specification yet"),
    }
    let regressed = conditions::get(seen.conditions, condition::STALLED)
        .is_some_and(|stalled| stalled.reason == stalled::SPEC_REGRESSED);
    if regressed {
        return next.run(vec![step(stored, name)]);
    }
    if seen.held == Some(stored) {
        return next.succeed(&format!("the servers act by generation {stored} of {name}, which the store has"));
    }
    let held = seen.held.unwrap_or_default();
    let message =
        format!("the servers act by generation {held} of {name}; they have not said yet what they make of {stored}");
    next.wait(reason::WAITING_FOR_AGENTS, &message);
}

fn step(generation: i64, name: &str) -> String {
    format!("the servers take generation {generation} of {name}")
}

/// It runs.
pub(super) fn go_on(facts: &Facts<'_>, on: Option<&OnSpec>, next: &mut Next<'_>) {
    let (operation, name) = (facts.operation, &facts.operation.spec.target.name);
    let Some(on) = on else {
        return next.fail(accepted::NOT_FOUND, &format!("{} {name} is gone", operation.spec.target.kind));
    };
    let seen = on.seen();
    if seen.is_taken(operation) {
        next.step_done(0);
        let generation = seen.held.unwrap_or_default();
        return next.succeed(&format!("the servers act by generation {generation} of {name}, which the store has"));
    }
    if operation.spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let phase = OperationPhase::Cancelled;
        let message = "cancelled; the servers that were told already take the specification all the same";
        return next.finish(phase, phase.as_str(), message);
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        let (timeout, held) = (&operation.spec.timeout, seen.held.unwrap_or_default());
        let message = format!("not done within spec.timeout {timeout}; the servers act by generation {held}");
        next.fail(reason::TIMEOUT, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_counts_once_and_above_what_any_server_acted_by() {
        let asked = |uid: &str, acceptances: u32| AcceptSpec { uid: uid.to_owned(), acceptances };
        assert_eq!(raised("a", None, None), asked("a", 1));
        assert_eq!(raised("a", Some(&asked("a", 1)), Some(1)), asked("a", 1), "it asks no more than once");
        assert_eq!(raised("b", Some(&asked("a", 1)), Some(1)), asked("b", 2));
        assert_eq!(raised("c", None, Some(2)), asked("c", 3), "both were lost with another restore");
        assert_eq!(
            raised("c", Some(&asked("b", 4)), Some(2)),
            asked("c", 5),
            "the servers have not taken that one yet"
        );
    }
}
