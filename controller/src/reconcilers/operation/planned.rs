//! What an Operation would do: `status.plan`, and whether it still is what `spec.planDigest` names.
//!
//! It is the beginning of the Operation itself, thought through and not written, so that a plan says what would be done and
//! not what somebody thinks that would be. How long groups are away is predicted by the planner (`predict.rs`).

use holdfast_api::measured::measured;
use holdfast_api::v1::{
    DetachGroups, Disruption, FenceAction, GroupPhase, Operation, OperationMode, OperationPhase, OperationPlan,
    OperationStatus, OperationType, PlannedAction, TargetKind,
};
use holdfast_planner::{Current, Does, Forecast, Input, Losses, ServerState, forecast, outage};
use kube::ResourceExt;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::failover_group::target::{question, whole};
use super::about::About;
use super::carry_out::{Facts, Next, reason, reasons};
use super::fence;

/// The schema's limits.
const WARNINGS: usize = 64;
const FENCES: usize = 256;
const DISRUPTIONS: usize = 1024;

/// It has not begun yet: it is planned, begins, or is not what it was planned to be.
pub(super) fn begin(facts: &Facts<'_>, next: &mut Next<'_>) {
    if facts.operation.spec.mode == OperationMode::Plan {
        // A plan waits for nobody; that somebody goes first is said.
        return only_plan(&Facts { ahead: None, ..*facts }, facts.ahead, next);
    }
    super::begin::begin(facts, next);
    if next.phase() != OperationPhase::Running {
        return;
    }
    let plan = plan(facts, next.status());
    if let Some(wanted) = facts.operation.spec.plan_digest.as_ref().filter(|wanted| **wanted != plan.digest) {
        let message = differs(wanted, facts.planned, &plan);
        next.forget_steps();
        next.set_plan(plan);
        return next.fail(reason::PLAN_DIFFERS, &message);
    }
    next.set_plan(plan);
}

fn only_plan(facts: &Facts<'_>, ahead: Option<&str>, next: &mut Next<'_>) {
    let mut thought = next.thought();
    super::begin::begin(facts, &mut thought);
    let message = thought.message();
    match thought.phase() {
        OperationPhase::Running => {
            let mut plan = plan(facts, thought.status());
            let first = ahead.map(|ahead| format!("Operation {ahead} on the same target goes first"));
            plan.warnings.splice(0..0, first);
            next.set_plan(plan);
            next.succeed("planned; nothing was done");
        }
        OperationPhase::Pending => {
            let mut plan = plan(facts, thought.status());
            plan.warnings.insert(0, format!("it would wait first: {message}"));
            next.set_plan(plan);
            next.succeed(&format!("planned; nothing was done; it would wait first: {message}"));
        }
        OperationPhase::Succeeded => {
            next.set_plan(plan(facts, thought.status()));
            next.succeed(&format!("planned; there is nothing to do: {message}"));
        }
        _ => next.take(thought),
    }
}

/// What is otherwise than in the plan that was looked at.
fn differs(wanted: &str, planned: Option<&OperationPlan>, plan: &OperationPlan) -> String {
    let steps = |plan: &OperationPlan| {
        let steps: Vec<&str> = plan.actions.iter().map(|action| action.step.as_str()).collect();
        let groups: Vec<&str> = plan.disruption.iter().map(|one| one.group.as_str()).collect();
        let fences =
            if plan.fences.is_empty() { String::new() } else { format!("; fences {}", plan.fences.join(", ")) };
        format!("[{}], interrupting [{}]{fences}", steps.join("; "), groups.join(", "))
    };
    let before = planned.map_or_else(
        || "of which no Operation of mode Plan is left".to_owned(),
        |planned| format!("which was {}", steps(planned)),
    );
    format!(
        "spec.planDigest: asked for {wanted}, {before}; found {}: {}; nothing was done; plan it again",
        plan.digest,
        steps(plan)
    )
}

/// What follows from the steps that it begins with.
fn plan(facts: &Facts<'_>, begun: &OperationStatus) -> OperationPlan {
    let actions: Vec<PlannedAction> =
        begun.steps.iter().map(|step| PlannedAction { step: step.name.clone() }).collect();
    let mut plan = OperationPlan { actions, ..OperationPlan::default() };
    if !plan.actions.is_empty() {
        disruption(facts, begun, &mut plan);
    }
    plan.disruption.truncate(DISRUPTIONS);
    plan.fences.truncate(FENCES);
    plan.warnings.truncate(WARNINGS - 1);
    plan.digest = digest(facts.operation, &plan);
    plan
}

/// Of what is done to what. Not of how long it takes, nor of warnings: those change while nothing else does.
fn digest(operation: &Operation, plan: &OperationPlan) -> String {
    let steps: Vec<&str> = plan.actions.iter().map(|action| action.step.as_str()).collect();
    let groups: Vec<&str> = plan.disruption.iter().map(|one| one.group.as_str()).collect();
    let spec = &operation.spec;
    let all = json!([spec.type_, spec.target.kind, spec.target.name, steps, groups, plan.fences]);
    let digest = Sha256::digest(all.to_string().as_bytes());
    format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn disruption(facts: &Facts<'_>, begun: &OperationStatus, plan: &mut OperationPlan) {
    let spec = &facts.operation.spec;
    let Some(sub) = facts.sub_cluster else {
        if let About::Shutdown(on) = facts.about {
            let away = super::shutdown::interrupted(on).into_iter();
            plan.disruption.extend(away.map(|group| Disruption { group, outage: None }));
            plan.warnings.push("the groups are away until their servers are switched on again".to_owned());
            return;
        }
        plan.warnings.push("how long something is away is not predicted for this type".to_owned());
        return;
    };
    let groups = facts.beside.groups.iter().map(AsRef::as_ref);
    let measured = measured(sub, groups.chain(facts.group));
    let server = facts.about.server().map(|server| server.spec.server.clone());
    let mut losses = Losses::default();
    let input = match (spec.type_, facts.group, &server) {
        (OperationType::Move | OperationType::Stop | OperationType::Start, Some(group), _) => {
            let begun = Operation { status: Some(begun.clone()), ..facts.operation.clone() };
            question(sub, group, facts.beside, Some(&super::ask(&begun)), false)
        }
        (OperationType::Restart, Some(group), _) => {
            let name = group.name_any();
            let whole = spec.restart.as_ref().is_none_or(|restart| restart.resource.is_none());
            let times = measured.groups.get(&name).copied().unwrap_or_default();
            let online = group.status.as_ref().and_then(|status| status.phase) == Some(GroupPhase::Online);
            if whole && online {
                say(plan, &name, outage(times.stop, times.start));
            } else if online {
                plan.warnings.push(format!("how long a single resource of {name} is away is not predicted"));
            }
            return;
        }
        (OperationType::Detach, _, Some(server)) => {
            let stops = spec.detach.as_ref().is_some_and(|detach| detach.groups == DetachGroups::Stop);
            let mut input = whole(sub, facts.beside);
            input.servers.insert(server.clone(), ServerState::Detached);
            if stops {
                hold(&mut input, |on| on == server);
            }
            input
        }
        (OperationType::ConfirmStopped, _, Some(server)) => {
            let mut input = whole(sub, facts.beside);
            for group in input.groups.values_mut() {
                if matches!(&group.current, Current::Unknown { servers } if servers.contains(server)) {
                    group.current = Current::Offline;
                }
            }
            input
        }
        (OperationType::Fence, _, Some(_)) if fence::action(facts.operation) == Some(FenceAction::PowerOn) => return,
        (OperationType::Fence, _, Some(server)) => {
            losses.servers.insert(server.clone());
            plan.fences.push(server.clone());
            whole(sub, facts.beside)
        }
        (OperationType::Shutdown, ..) => {
            let mut input = whole(sub, facts.beside);
            match &server {
                Some(server) => drop(input.servers.insert(server.clone(), ServerState::Detached)),
                None => hold(&mut input, |_| true),
            }
            input
        }
        // Nothing stops by these; what may start then, starts by the same rules as ever.
        (
            OperationType::Reinstate
            | OperationType::ClearFailures
            | OperationType::RotateKey
            | OperationType::ForceReinstate
            | OperationType::Pause
            | OperationType::Resume
            | OperationType::Exec
            | OperationType::AcceptSpec
            | OperationType::Upgrade,
            ..,
        ) => return,
        _ => {
            plan.warnings.push(format!("what {} interrupts is not predicted", spec.type_));
            return;
        }
    };
    let only = (spec.target.kind == TargetKind::FailoverGroup).then_some(spec.target.name.as_str());
    tell(&forecast(&input, &losses, &measured), only, plan);
}

/// Groups there are to stop and stay so.
fn hold(input: &mut Input, there: impl Fn(&str) -> bool) {
    for group in input.groups.values_mut() {
        if matches!(&group.current, Current::On { server, .. } if there(server)) {
            group.holds.insert("Stopped".to_owned());
        }
    }
}

fn say(plan: &mut OperationPlan, group: &str, outage: Option<std::time::Duration>) {
    plan.disruption.push(Disruption { group: group.to_owned(), outage: outage.map(Into::into) });
    if outage.is_none() {
        plan.warnings.push(format!(
            "how long {group} is away is not known: no transition of it shows how long its stop and its start take"
        ));
    }
}

/// `only`: the group that the Operation is about, whose own steps are told already.
fn tell(forecast: &Forecast, only: Option<&str>, plan: &mut OperationPlan) {
    for (group, one) in &forecast.interruptions {
        match &one.stays {
            None => say(plan, group, one.outage),
            Some((rule, candidates)) => {
                plan.disruption.push(Disruption { group: group.clone(), outage: None });
                let each: Vec<String> =
                    candidates.iter().map(|c| format!("{}: {}", c.server, reasons(&c.reasons))).collect();
                let why = if each.is_empty() { String::new() } else { format!(" ({})", each.join("; ")) };
                plan.warnings.push(format!("{group} stays stopped: {}{why}", rule.name()));
            }
        }
    }
    let beside: Vec<String> = forecast
        .steps
        .iter()
        .filter(|step| Some(step.group.as_str()) != only)
        .map(|step| {
            let does = if step.does == Does::Stop { "stops" } else { "starts" };
            format!("{} {does} on {}", step.group, step.server)
        })
        .collect();
    if !beside.is_empty() {
        let shown: Vec<&str> = beside.iter().take(20).map(String::as_str).collect();
        let more = beside.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} steps more") };
        let text = format!("by the planner, in this order: {}{more}", shown.join(", "));
        plan.warnings.push(text.chars().take(1024).collect());
    }
}
