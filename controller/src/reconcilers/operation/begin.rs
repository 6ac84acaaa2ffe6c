//! Whether an Operation may begin, and with which steps. Everything is looked at before anything is asked for; what can't
//! be done is refused with the reasons, what can't be done yet waits.

use holdfast_api::reasons::{accepted, hold};
use holdfast_api::support;
use holdfast_api::v1::{
    FailoverGroup, GroupPhase, GroupState, Operation, OperationPhase, OperationType, SubCluster, SubClusterPhase,
    SubClusterState,
};
use holdfast_planner::Rule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::super::failover_group::target::{decide, exclusions};
use super::super::{failover_group, list};
use super::about::About;
use super::carry_out::{Facts, Next, destination, holds, not_after, phase_of, reason, reasons, server_of};
use super::{
    accept_spec, clear_failures, drill, exec, on_server, on_service, pause, restart, rotate_key, shutdown, upgrade,
};

/// What to do about a group that is stuck.
pub(super) const STUCK: &str =
    "end what its status says still runs, then holdfast clear-failures has the stop tried again at once";

/// It has not begun yet: everything is looked at before anything is asked for.
pub(super) fn begin(facts: &Facts<'_>, next: &mut Next<'_>) {
    let operation = facts.operation;
    let (spec, now) = (&operation.spec, facts.now);
    let unsupported = support::unsupported_operation(spec);
    if !unsupported.is_empty() {
        let fields: Vec<String> = unsupported.iter().map(ToString::to_string).collect();
        return next.fail(accepted::UNSUPPORTED_BY_SERVER, &fields.join("; "));
    }
    if spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let phase = OperationPhase::Cancelled;
        return next.finish(phase, phase.as_str(), "cancelled before it began");
    }
    if let Some(limit) = not_after(operation).filter(|limit| *limit < now) {
        let phase = OperationPhase::Expired;
        return next.finish(phase, phase.as_str(), &format!("had not begun by {limit:.0}; nothing was done"));
    }
    match facts.about {
        About::Group => {}
        About::Server(on) => return on_server::begin(facts, on, next),
        About::Failures(on) => return clear_failures::begin_on_server(facts, on, next),
        About::Service(on) => return on_service::begin(facts, on, next),
        About::Groups(on) => return pause::begin(facts, on, next),
        About::Exec(on) => return exec::begin(facts, on, next),
        About::Shutdown(on) => return shutdown::begin(facts, on, next),
        About::Upgrade(on) => return upgrade::begin(facts, on, next),
        About::Spec(on) => return accept_spec::begin(facts, on.as_ref(), next),
        About::Drill(outcome) => return outcome.iter().for_each(|outcome| drill::begin(outcome, next)),
        About::Keys(keys) => return rotate_key::begin(facts, keys.as_ref(), next),
    }
    let target = &spec.target.name;
    let Some(group) = facts.group else {
        return next.fail(
            accepted::NOT_FOUND,
            &format!("spec.target.name: there is no FailoverGroup {target} in this namespace"),
        );
    };
    if let Some(ahead) = facts.ahead {
        let message = format!("Operation {ahead} on the same group goes first");
        return next.wait(reason::WAITING_FOR_OPERATION, &message);
    }
    let Some(sub) = facts.sub_cluster else {
        let message = format!("the sub-cluster {} of the group does not exist", group.spec.sub_cluster);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(message) = broken_precondition(operation, group, sub) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    let running = sub.status.as_ref().and_then(|status| status.phase) == Some(SubClusterPhase::Running);
    if !facts.reporting || !running {
        let what = if facts.reporting { "has no quorum" } else { "has no agent that reports" };
        return next.wait(reason::WAITING_FOR_AGENTS, &format!("sub-cluster {} {what} now", sub.name_any()));
    }
    let starts = matches!(spec.type_, OperationType::Move | OperationType::Start | OperationType::Restart);
    if starts && sub.spec.state == SubClusterState::Stopped {
        let message =
            format!("sub-cluster {} has spec.state: Stopped; what is declared wins, set it to Running", sub.name_any());
        return next.fail(reason::REFUSED, &message);
    }
    match spec.type_ {
        OperationType::Move => begin_move(facts, group, sub, next),
        OperationType::Stop => begin_stop(group, next),
        OperationType::Start => begin_start(facts, group, sub, next),
        OperationType::Restart => restart::begin(operation, group, next),
        OperationType::ClearFailures => clear_failures::begin(operation, group, next),
        // `unsupported_operation` names every other one; this keeps it so when that list gets shorter than this match.
        other => next.fail(accepted::UNSUPPORTED_BY_SERVER, &format!("spec.type: {other} is not carried out")),
    }
}

/// What `spec.preconditions` asks of the target and of its sub-cluster, and isn't so.
pub(super) fn broken_precondition(operation: &Operation, target: &impl Resource, sub: &SubCluster) -> Option<String> {
    broken(operation, target.meta(), sub.status.as_ref().and_then(|status| status.epoch).unwrap_or_default())
}

/// The same, of a target whose sub-cluster is in this epoch.
pub(super) fn broken(operation: &Operation, target: &ObjectMeta, epoch: u64) -> Option<String> {
    let wanted = operation.spec.preconditions.as_ref()?;
    let broken = |field: &str, wanted: String, found: String| {
        (wanted != found)
            .then(|| format!("spec.preconditions.{field}: asked for {wanted}, found {found}; nothing was done"))
    };
    let uid = wanted.uid.clone().and_then(|uid| broken("uid", uid, target.uid.clone().unwrap_or_default()));
    let generation = wanted.generation.and_then(|generation| {
        broken("generation", generation.to_string(), target.generation.unwrap_or_default().to_string())
    });
    uid.or(generation).or_else(|| wanted.epoch.and_then(|asked| broken("epoch", asked.to_string(), epoch.to_string())))
}

fn begin_move(facts: &Facts<'_>, group: &FailoverGroup, sub: &SubCluster, next: &mut Next<'_>) {
    let name = group.name_any();
    let here = server_of(group);
    if group.spec.state == GroupState::Offline {
        return next
            .fail(reason::REFUSED, &format!("{name} has spec.state: Offline; set it to Online to run it anywhere"));
    }
    let held = holds(group, |_| false);
    if !held.is_empty() {
        return next.fail(reason::REFUSED, &format!("{name} is held: {}; release it first", list(&held)));
    }
    match phase_of(group) {
        GroupPhase::Starting | GroupPhase::Stopping => {
            return next.wait(reason::WAITING_FOR_GROUP, &format!("{name} is {}", phase_of(group)));
        }
        GroupPhase::Stuck => {
            return next
                .fail(reason::STOP_UNPROVEN, &format!("a stop of {name} is not proven; it is started nowhere else"));
        }
        GroupPhase::Unknown => {
            return next.fail(
                reason::REFUSED,
                &format!("a server that may run {name} does not report; it can't be moved now"),
            );
        }
        GroupPhase::Offline | GroupPhase::Online | GroupPhase::Failed => {}
    }
    let candidates =
        || sub.spec.servers.iter().map(|server| server.name.as_str()).filter(|server| Some(*server) != here);
    let to = match destination(facts.operation) {
        Some(to) => to,
        None => {
            // The best other one: what the planner would choose if the group had to leave.
            let order = |server: &&str| group.spec.placement.servers.iter().position(|s| s == server);
            let id = |server: &&str| sub.spec.servers.iter().find(|s| s.name == *server).map(|s| s.id);
            let best = candidates()
                .filter(|server| exclusions(sub, group, facts.beside, server).is_empty())
                .min_by_key(|server| (order(server).unwrap_or(usize::MAX), id(server)));
            let Some(best) = best else {
                let why: Vec<_> = candidates()
                    .map(|server| format!("{server}: {}", reasons(&exclusions(sub, group, facts.beside, server))))
                    .collect();
                return next.fail(reason::NOT_ELIGIBLE, &format!("no other server may run {name}: {}", why.join("; ")));
            };
            best.to_string()
        }
    };
    let excluded = exclusions(sub, group, facts.beside, &to);
    if !excluded.is_empty() {
        let message = format!("{to} may not run {name}: {}", reasons(&excluded));
        return next.fail(reason::NOT_ELIGIBLE, &message);
    }
    match here {
        Some(here) if here == to && phase_of(group) == GroupPhase::Online => {
            next.succeed(&format!("{name} is already online on {to}"));
        }
        Some(here) => next.run(vec![format!("stop {name} on {here}"), format!("start {name} on {to}")]),
        None => next.run(vec![format!("start {name} on {to}")]),
    }
}

fn begin_stop(group: &FailoverGroup, next: &mut Next<'_>) {
    let name = group.name_any();
    let held = |wanted: &str| group.status.iter().flat_map(|status| &status.holds).any(|hold| hold.type_ == wanted);
    let stopped = held(hold::STOPPED);
    match (phase_of(group), server_of(group)) {
        _ if held(hold::PAUSED) => {
            let message = format!("{name} is paused, and nobody acts on it; holdfast resume {name} comes first");
            next.fail(reason::REFUSED, &message);
        }
        (GroupPhase::Stuck, _) => {
            next.fail(reason::STOP_UNPROVEN, &format!("a stop of {name} is not proven; {STUCK}"));
        }
        (GroupPhase::Offline, _) if stopped => next.succeed(&format!("{name} is already stopped and held")),
        (GroupPhase::Offline, _) | (_, None) => next.run(vec![format!("stop {name}")]),
        (_, Some(server)) => next.run(vec![format!("stop {name} on {server}")]),
    }
}

fn begin_start(facts: &Facts<'_>, group: &FailoverGroup, sub: &SubCluster, next: &mut Next<'_>) {
    let name = group.name_any();
    if group.spec.state == GroupState::Offline {
        let message = format!("{name} has spec.state: Offline; what is declared wins, set it to Online");
        return next.fail(reason::REFUSED, &message);
    }
    let others = holds(group, failover_group::released_by_start);
    if !others.is_empty() {
        return next.fail(reason::REFUSED, &format!("{name} is held: {}; Start does not release that", list(&others)));
    }
    let released = holds(group, |hold| !failover_group::released_by_start(hold));
    match phase_of(group) {
        GroupPhase::Online if released.is_empty() => {
            return next.succeed(&format!("{name} is already online on {}", server_of(group).unwrap_or_default()));
        }
        GroupPhase::Stuck => {
            return next.fail(
                reason::STOP_UNPROVEN,
                &format!("a stop of {name} is not proven, so it is started nowhere; {STUCK}"),
            );
        }
        GroupPhase::Stopping => {
            return next.wait(reason::WAITING_FOR_GROUP, &format!("{name} is Stopping"));
        }
        _ => {}
    }
    let ask = super::ask_of(&name, OperationType::Start, None);
    let decision = decide(sub, group, facts.beside, Some(&ask), false);
    match decision.as_ref().and_then(|decision| decision.server.clone()) {
        Some(server) => next.run(vec![format!("start {name} on {server}")]),
        // Evidence may still come; until then the Operation waits, not the group.
        None if decision.as_ref().is_some_and(|decision| decision.rule == Rule::WaitForEvidence) => {
            let message = format!("a lost server may still run {name}; waiting for evidence that it does not");
            next.wait(reason::WAITING_FOR_GROUP, &message);
        }
        None => {
            let candidates = decision.map(|decision| decision.candidates).unwrap_or_default();
            let why: Vec<_> = candidates.iter().map(|c| format!("{}: {}", c.server, reasons(&c.reasons))).collect();
            next.fail(reason::NOT_ELIGIBLE, &format!("no server may run {name} now: {}", why.join("; ")));
        }
    }
}
