//! RotateKey: a new heartbeat key for a sub-cluster while everything runs (api.md §8).
//!
//! Three steps, each seen to be done before the next: the new key is added to the Secret; every server reports that it
//! seals with it, which an agent does only when all whom it hears hold it; the old keys are taken away and every server
//! reports that it takes no other any more. What it stops at, it can be asked again: keys that are left over are harmless
//! and go with the next one.

use std::collections::BTreeMap;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{HeartbeatKeys, Operation, OperationPhase, OperationType, Server, SubCluster};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Resource, ResourceExt};
use rand::RngCore;

use super::super::list;
use super::carry_out::{Facts, Next, deadline, reason};
use crate::context::Context;
use crate::error::{Error, is_conflict};
use crate::write;

/// Bytes of a new key.
const LENGTH: usize = 32;
const ADD: &str = "add key ";

/// What the steps depend on, as observed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// The numbers in the Secret, lowest first; none without Secret.
    pub(crate) secret: Vec<u32>,
    /// What every server last reported.
    pub(crate) servers: BTreeMap<String, Option<HeartbeatKeys>>,
}

fn numbers(secret: &Secret) -> Vec<u32> {
    let mut numbers: Vec<u32> = secret.data.iter().flatten().filter_map(|(name, _)| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// The key that a running Operation brings.
fn number(operation: &Operation) -> Option<u32> {
    operation.status.as_ref()?.steps.first()?.name.strip_prefix(ADD)?.parse().ok()
}

/// Does what the running step asks for, and returns what is there now.
pub(super) async fn carry_out(
    operation: &Operation,
    sub: &SubCluster,
    servers: &[std::sync::Arc<Server>],
    context: &Context,
) -> Result<Keys, Error> {
    let api: Api<Secret> = context.api_beside(sub);
    let name = sub.spec.key_secret(&sub.name_any());
    let full = format!("{}/{name}", sub.namespace().unwrap_or_default());
    let secret = api.get_opt(&name).await.map_err(Error::api(format!("read Secret {full}")))?;
    let reported =
        servers.iter().map(|s| (s.spec.server.clone(), s.status.as_ref().and_then(|status| status.keys.clone())));
    let mut keys = Keys { secret: Vec::new(), servers: reported.collect() };
    let Some(mut secret) = secret else { return Ok(keys) };
    let running = operation.status.as_ref().filter(|status| status.phase == Some(OperationPhase::Running));
    let step = running
        .and_then(|status| status.steps.iter().position(|step| step.state == holdfast_api::v1::StepState::Running));
    let data = secret.data.get_or_insert_default();
    let changed = match (step, number(operation)) {
        (Some(0), Some(number)) if !data.contains_key(&number.to_string()) => {
            let mut key = [0_u8; LENGTH];
            rand::rng().fill_bytes(&mut key);
            data.insert(number.to_string(), ByteString(key.to_vec()));
            true
        }
        // ORDER: only in the last step, which begins when nobody needs another key.
        (Some(2), Some(number)) if data.len() > 1 && data.contains_key(&number.to_string()) => {
            data.retain(|name, _| *name == number.to_string());
            true
        }
        _ => false,
    };
    if changed {
        // With the resourceVersion that it was read at: what somebody else changed meanwhile is looked at again.
        match api.replace(&name, &write::post(), &secret).await {
            Ok(_) => tracing::info!(secret = %full, keys = ?numbers(&secret), "changed the heartbeat keys"),
            Err(error) if is_conflict(&error) => return Err(Error::Contended(format!("change Secret {full}"))),
            Err(error) => return Err(Error::api(format!("change Secret {full}"))(error)),
        }
    }
    keys.secret = numbers(&secret);
    Ok(keys)
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, keys: Option<&Keys>, next: &mut Next<'_>) {
    let target = &facts.operation.spec.target.name;
    let (Some(sub), Some(keys)) = (facts.sub_cluster, keys) else {
        let message = format!("spec.target.name: there is no SubCluster {target} in this namespace");
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(ahead) = facts.ahead {
        let message = format!("Operation {ahead} on the same sub-cluster goes first");
        return next.wait(reason::WAITING_FOR_OPERATION, &message);
    }
    if let Some(message) = super::begin::broken_precondition(facts.operation, sub, sub) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    let Some(highest) = keys.secret.last() else {
        let name = sub.spec.key_secret(&sub.name_any());
        return next
            .fail(reason::REFUSED, &format!("the Secret {name} has no key yet; the controller makes the first"));
    };
    let Some(new) = highest.checked_add(1) else {
        return next.fail(reason::REFUSED, &format!("{highest} is the highest number that a key can have"));
    };
    let silent: Vec<&String> = keys.servers.iter().filter(|(_, keys)| keys.is_none()).map(|(name, _)| name).collect();
    if !facts.reporting || !silent.is_empty() {
        let message = format!("every server has to report which keys it has; waiting for {}", list(&silent));
        return next.wait(reason::WAITING_FOR_AGENTS, &message);
    }
    let old = list(&keys.secret.iter().map(ToString::to_string).collect::<Vec<_>>());
    next.run(vec![format!("{ADD}{new}"), format!("every server uses key {new}"), format!("remove key {old}")]);
}

/// It runs.
pub(super) fn go_on(facts: &Facts<'_>, keys: Option<&Keys>, next: &mut Next<'_>) {
    let operation = facts.operation;
    let (Some(keys), Some(new)) = (keys, number(operation)) else {
        return next.fail(accepted::NOT_FOUND, &format!("the SubCluster {} is gone", operation.spec.target.name));
    };
    let lacking = |fits: &dyn Fn(&HeartbeatKeys) -> bool| -> Vec<String> {
        let servers = keys.servers.iter().filter(|(_, keys)| !keys.as_ref().is_some_and(fits));
        let words = servers.map(|(name, keys)| match keys {
            Some(keys) => format!("{name} (uses key {} of {:?})", keys.sealing, keys.held),
            None => format!("{name} (does not report)"),
        });
        words.collect()
    };
    let mut waiting = Vec::new();
    if next.is_running(0) && keys.secret.contains(&new) {
        next.step_done(0);
    }
    if next.is_running(1) {
        waiting = lacking(&|keys| keys.sealing == new);
        if waiting.is_empty() {
            next.step_done(1);
        }
    } else if next.is_running(2) {
        waiting = lacking(&|keys| keys.held == [new]);
        if keys.secret == [new] && waiting.is_empty() {
            next.step_done(2);
            return next.succeed(&format!("key {new} is the only one that any server uses or takes"));
        }
    }
    let stays = if next.is_running(2) { "" } else { "; the old key goes on" };
    if operation.spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let phase = OperationPhase::Cancelled;
        return next.finish(phase, phase.as_str(), &format!("cancelled{stays}"));
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        let timeout = &operation.spec.timeout;
        let message = format!("not done within spec.timeout {timeout}; waiting for {}{stays}", list(&waiting));
        next.fail(reason::TIMEOUT, &message);
    }
}

/// Whether an Operation is of this kind.
pub(super) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::RotateKey
}
