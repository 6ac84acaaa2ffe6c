//! Upgrade (C22): one server after the other goes out of service, is serviced, and comes back. The standby servers of a
//! sub-cluster first, then those that run groups, so that a group moves once where there is one.
//!
//! A server goes out only while all others of its sub-cluster are in service, and the next one not before it is back. What
//! is asked of the agents is what Detach and Reinstate ask for. In between somebody works on it and says `proceed`, or the
//! command of the Operation runs there, in the way of Exec.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_api::exec::service_step;
use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    ExecRequest, ExecResult, Operation, OperationPhase, OperationType, Server, ServerDeclaredState, ServerRequest,
    StepState, SubCluster, SubClusterPhase, TargetKind, UpgradeParameters,
};
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::super::failover_group::target::Beside;
use super::super::list;
use super::super::reporting::Reporting;
use super::carry_out::{Facts, Next, deadline, reason, server_of};
use super::on_server::{is_detached, is_member, no_way_out, view_request};
use crate::context::Context;
use crate::error::Error;
use crate::write;

const OUT: &str = "take out of service: ";
const BACK: &str = "take back: ";
/// Steps of a server; the schema has room for those of 85.
const STEPS: usize = 3;
const MOST: usize = 85;

/// One sub-cluster of those that it is about.
pub(crate) struct Part {
    sub: Arc<SubCluster>,
    beside: Beside,
    reporting: bool,
}

/// What it is about, as it is now; none: there is no such object.
pub(crate) type OnUpgrade = Option<Vec<Part>>;

/// A server of one of them.
#[derive(Clone, Copy)]
struct Place<'a> {
    part: &'a Part,
    server: &'a str,
}

/// Whether an Operation is of this type.
pub(crate) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::Upgrade
}

/// What it is about, as it is now.
pub(super) fn on(operation: &Operation, context: &Context) -> OnUpgrade {
    let (namespace, name) = (operation.namespace(), operation.spec.target.name.as_str());
    let part = |sub: Arc<SubCluster>| {
        let servers = context.servers_of(&sub);
        let timeout = context.settings.report_timeout;
        let reporting = Reporting::of(servers.iter().map(AsRef::as_ref), context.now(), timeout).is_fresh();
        Part { reporting, beside: Beside { servers, groups: context.groups_of(&sub) }, sub }
    };
    let subs = match operation.spec.target.kind {
        TargetKind::SuperCluster => {
            let reference = ObjectRef::new(name).within(&namespace.unwrap_or_default());
            context.sub_clusters_of(context.stores.super_clusters.get(&reference)?.as_ref())
        }
        _ => vec![context.sub_cluster(namespace.as_deref(), name)?],
    };
    Some(subs.into_iter().map(part).collect())
}

impl Place<'_> {
    fn name(self) -> String {
        format!("{}.{}", self.part.sub.name_any(), self.server)
    }

    fn object(&self) -> Option<&Server> {
        self.part.beside.servers.iter().map(AsRef::as_ref).find(|server| server.spec.server == self.server)
    }

    fn groups(&self) -> usize {
        self.part.beside.groups.iter().filter(|group| server_of(group) == Some(self.server)).count()
    }

    /// What its sub-cluster waits for before a server may go out; none: all of it is in service.
    fn not_ready(&self) -> Option<String> {
        let sub = &self.part.sub;
        let phase = sub.status.as_ref().and_then(|status| status.phase);
        if !self.part.reporting || phase != Some(SubClusterPhase::Running) {
            return Some(format!("sub-cluster {} does not run, or does not report", sub.name_any()));
        }
        let declared = sub.spec.servers.iter().filter(|one| one.state == ServerDeclaredState::Active);
        let missing: Vec<&str> = declared
            .filter(|one| !is_member(sub, &one.name) || is_detached(sub, &one.name))
            .map(|one| one.name.as_str())
            .collect();
        if !missing.is_empty() {
            return Some(format!("{} is not in service", list(&missing)));
        }
        no_way_out(sub, &self.part.beside, self.server)
    }

    /// What came of the command here.
    fn result(&self, operation: &Operation) -> Option<&ExecResult> {
        let uid = operation.uid()?;
        self.object()?.status.as_ref()?.exec.iter().find(|result| result.id == uid)
    }
}

fn parameters(operation: &Operation) -> UpgradeParameters {
    operation.spec.upgrade.clone().unwrap_or_default()
}

fn is_named(names: &[String], place: Place<'_>) -> bool {
    names.is_empty() || names.iter().any(|name| name == place.server || *name == place.name())
}

fn places(parts: &[Part]) -> Vec<Place<'_>> {
    let of = |part| {
        let servers = (part as &Part).sub.spec.servers.iter();
        servers.map(move |server| Place { part, server: server.name.as_str() })
    };
    parts.iter().flat_map(of).collect()
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: &OnUpgrade, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target;
    let Some(parts) = on else {
        let message = format!("spec.target.name: there is no {} {} in this namespace", target.kind, target.name);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(ahead) = facts.ahead {
        return next.wait(reason::WAITING_FOR_OPERATION, &format!("Operation {ahead} on the same target goes first"));
    }
    let asked = parameters(operation);
    let all = places(parts);
    let unknown: Vec<&String> = asked
        .servers
        .iter()
        .filter(|name| !all.iter().any(|place| is_named(std::slice::from_ref(*name), *place)))
        .collect();
    if !unknown.is_empty() {
        let message = format!("spec.upgrade.servers: {} {} has no server {}", target.kind, target.name, list(&unknown));
        return next.fail(accepted::NOT_FOUND, &message);
    }
    let mut chosen: Vec<Place<'_>> = all.into_iter().filter(|place| is_named(&asked.servers, *place)).collect();
    if !(1..=MOST).contains(&chosen.len()) {
        let message = format!("it is about {} servers, and 1 to {MOST} can be; name them", chosen.len());
        return next.fail(reason::REFUSED, &message);
    }
    let off: BTreeSet<String> = chosen
        .iter()
        .filter(|place| !asked.command.is_empty() && !place.part.sub.spec.exec.enabled)
        .map(|place| place.part.sub.name_any())
        .collect();
    if !off.is_empty() {
        let message = format!(
            "spec.exec.enabled of {} is false: no commands are run there; set it to true, or leave out \
             spec.upgrade.command",
            list(&off.into_iter().collect::<Vec<_>>())
        );
        return next.fail(reason::REFUSED, &message);
    }
    let out: Vec<String> =
        chosen.iter().filter(|place| is_detached(&place.part.sub, place.server)).map(|place| place.name()).collect();
    if !out.is_empty() {
        let message = format!(
            "{} is detached, and somebody wanted that; reinstate it first, or name the others in \
             spec.upgrade.servers",
            list(&out)
        );
        return next.fail(reason::REFUSED, &message);
    }
    let waits = chosen.iter().find_map(|place| place.not_ready().map(|why| format!("{}: {why}", place.name())));
    if let Some(why) = waits {
        return next.wait(reason::WAITING_FOR_AGENTS, &why);
    }
    // Stable: the order of the declaration decides between equals. Sub-clusters stay together.
    let position = |place: &Place<'_>| parts.iter().position(|part| std::ptr::eq(part, place.part));
    chosen.sort_by_key(|place| (position(place), place.groups()));
    let steps = chosen.iter().flat_map(|place| {
        let name = place.name();
        [format!("{OUT}{name}"), service_step(&name), format!("{BACK}{name}")]
    });
    next.run(steps.collect());
}

/// The server that a step is about.
fn place_of<'a>(parts: &'a [Part], step: &str) -> Option<Place<'a>> {
    let about =
        |name: &str| step == service_step(name) || [OUT, BACK].iter().any(|kind| step.strip_prefix(kind) == Some(name));
    places(parts).into_iter().find(|place| about(&place.name()))
}

/// It runs: what the agents report, or the operator, moves it on.
pub(super) fn go_on(facts: &Facts<'_>, on: &OnUpgrade, next: &mut Next<'_>) {
    let operation = facts.operation;
    let Some(parts) = on else {
        let message = format!("{} {} is gone", operation.spec.target.kind, operation.spec.target.name);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    let asked = parameters(operation);
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let late = deadline(operation).is_some_and(|deadline| deadline < facts.now);
    let mut waits: Vec<String> = Vec::new();
    let mut awaits = false;
    for number in 0..next.steps() {
        if !next.is_running(number) {
            continue;
        }
        let name = next.status().steps[number].name.clone();
        let Some(place) = place_of(parts, &name) else {
            return next.fail(accepted::NOT_FOUND, &format!("{name}: there is no such server any more"));
        };
        let (sub, server) = (&place.part.sub, place.server);
        let (done, why) = match number % STEPS {
            0 => {
                let done = place.part.reporting && is_detached(sub, server) && !is_member(sub, server);
                let more = place.not_ready().filter(|_| !is_detached(sub, server));
                (done, more.unwrap_or_else(|| "its groups move".into()))
            }
            1 if asked.command.is_empty() => {
                let done = usize::try_from(operation.spec.proceed).unwrap_or(usize::MAX) > number / STEPS;
                awaits |= !done;
                let how = format!("holdfast proceed {} when it is serviced", operation.name_any());
                (done, format!("{} is out of service; {how}", place.name()))
            }
            1 => match place.result(operation) {
                None => (false, "the command runs".into()),
                Some(result) if result.exit_code == Some(0) => (true, String::new()),
                Some(result) => {
                    let how = result.exit_code.map_or(result.message.clone(), |code| format!("exit {code}"));
                    let last: String = result.output.trim_end().chars().rev().take(300).collect();
                    let last: String = last.chars().rev().collect();
                    let message = format!(
                        "the command failed on {}: {how}; it printed last: {last}; the server stays out of service \
                         until holdfast reinstate {0}; the others were not touched",
                        place.name()
                    );
                    return next.fail(reason::COMMAND_FAILED, &message);
                }
            },
            _ => (place.part.reporting && is_member(sub, server) && !is_detached(sub, server), "it joins".into()),
        };
        if done {
            // Between two steps of a server is no boundary: it would stay out.
            let last = number % STEPS == STEPS - 1;
            next.finish_step(number);
            if !last {
                next.begin_step(number + 1);
            }
            continue;
        }
        next.say_of_step(number, &why);
        waits.push(format!("{name}: {why}"));
    }
    let running: Vec<String> = next
        .status()
        .steps
        .iter()
        .filter(|step| step.state == StepState::Running)
        .map(|step| step.name.clone())
        .collect();
    let left = next.status().steps.iter().any(|step| step.state == StepState::Pending);
    let out: Vec<String> = running.iter().filter_map(|step| Some(place_of(parts, step)?.name())).collect();
    if !left && running.is_empty() {
        let count = next.steps() / STEPS;
        return next.succeed(&format!("{count} servers were serviced and are back"));
    }
    if ends || late {
        let out = if out.is_empty() {
            "nothing was under way".to_owned()
        } else {
            format!("{} may be out of service: holdfast reinstate takes it back", list(&out))
        };
        return match ends {
            true => {
                let phase = OperationPhase::Cancelled;
                next.finish(phase, phase.as_str(), &format!("cancelled; {out}"));
            }
            false => {
                let message = format!("not done within spec.timeout {}; {out}", operation.spec.timeout);
                next.fail(reason::TIMEOUT, &message);
            }
        };
    }
    begin_more(parts, usize::from(asked.max_concurrent), next, &mut waits);
    next.say_how_far(awaits, &waits.join("; "));
}

/// Takes the next servers out, as many at once as may be, each of another sub-cluster.
fn begin_more(parts: &[Part], most: usize, next: &mut Next<'_>, waits: &mut Vec<String>) {
    for number in (0..next.steps()).step_by(STEPS) {
        let under_way = |step: &&holdfast_api::v1::OperationStep| step.state == StepState::Running;
        let busy: Vec<String> = next.status().steps.iter().filter(under_way).map(|step| step.name.clone()).collect();
        if busy.len() >= most {
            return;
        }
        let step = next.status().steps[number].clone();
        let Some(place) = place_of(parts, &step.name).filter(|_| step.state == StepState::Pending) else { continue };
        let same = |name: &String| place_of(parts, name).is_some_and(|other| std::ptr::eq(other.part, place.part));
        if busy.iter().any(same) {
            continue;
        }
        match place.not_ready() {
            None => next.begin_step(number),
            Some(why) => waits.push(format!("{}: {why}", step.name)),
        }
    }
}

/// Asks the agents for what the running steps are about.
pub(super) async fn carry_out(operation: &Operation, on: &OnUpgrade, context: &Context) -> Result<(), Error> {
    let status = operation.status.clone().unwrap_or_default();
    let runs = matches!(status.phase, Some(OperationPhase::Running | OperationPhase::AwaitingOperator));
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let uid = operation.uid().unwrap_or_default();
    let parts: &[Part] = on.as_deref().unwrap_or_default();
    for part in parts {
        let steps = status.steps.iter().filter(|step| step.state == StepState::Running && runs && !ends);
        let ours = |step: &str| place_of(parts, step).filter(|place| std::ptr::eq(place.part, part));
        let mut requests: Vec<ServerRequest> = Vec::new();
        let mut exec = false;
        for (name, place) in steps.filter_map(|step| Some((step.name.as_str(), ours(&step.name)?))) {
            let (out, back) = (name.starts_with(OUT), name.starts_with(BACK));
            exec |= name == service_step(&place.name()) && !parameters(operation).command.is_empty();
            let detached = is_detached(&part.sub, place.server);
            if out && !detached && place.not_ready().is_none() {
                requests.extend(view_request(operation, &part.sub, place.server, OperationType::Detach));
            } else if back && (detached || !is_member(&part.sub, place.server)) {
                requests.extend(view_request(operation, &part.sub, place.server, OperationType::Reinstate));
            }
        }
        let api: Api<SubCluster> = context.api_beside(part.sub.as_ref());
        write::status(&api, part.sub.as_ref(), |fresh| {
            let Some(status) = &mut fresh.status else { return };
            status.requests.retain(|request| request.operation != operation.name_any());
            status.requests.extend(requests.iter().cloned());
            status.requests.sort_by(|a, b| (&a.operation, &a.server).cmp(&(&b.operation, &b.server)));
            status.exec.retain(|asked| asked.uid != uid);
            if exec {
                status.exec.push(ExecRequest { operation: operation.name_any(), uid: uid.clone() });
                status.exec.sort_by(|a, b| a.uid.cmp(&b.uid));
            }
        })
        .await?;
    }
    Ok(())
}
