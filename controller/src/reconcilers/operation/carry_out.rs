//! What becomes of an Operation next: from its object, its group and the sub-cluster, as observed, to its new status. All
//! that is remembered between two looks stands in the status itself.
//!
//! Nothing is done here: while an Operation is Running the group's target asks the agents for it, and what they report
//! moves the steps on.

use std::collections::BTreeMap;

use holdfast_api::conditions;
use holdfast_api::duration;
use holdfast_api::reasons::{accepted, condition};
use holdfast_api::v1::{
    FailoverGroup, GroupPhase, Operation, OperationOrigin, OperationOutput, OperationPhase, OperationPlan,
    OperationStatus, OperationStep, OperationType, StepState, SubCluster, Transition, TransitionType,
};
use holdfast_planner::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};

use super::super::failover_group::target::{Beside, exclusions};
use super::super::{failover_group, list};
use super::about::About;

/// Everything that the next status depends on.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The Operation.
    pub(crate) operation: &'a Operation,
    /// The group that it names.
    pub(crate) group: Option<&'a FailoverGroup>,
    /// The group's sub-cluster, or the one that it names.
    pub(crate) sub_cluster: Option<&'a SubCluster>,
    /// What else is in it.
    pub(crate) beside: &'a Beside,
    /// What it is about beside a group.
    pub(crate) about: &'a About,
    /// Whether agents of the sub-cluster report.
    pub(crate) reporting: bool,
    /// Another Operation on the same group that goes first.
    pub(crate) ahead: Option<&'a str>,
    /// The plan that has the digest of `spec.planDigest`, if an Operation of mode Plan has it.
    pub(crate) planned: Option<&'a OperationPlan>,
    /// When steps began, by name, as far as this process saw it: times in a status have whole seconds.
    pub(crate) began: &'a BTreeMap<String, Timestamp>,
    /// The present time.
    pub(crate) now: Timestamp,
}

/// Reasons of the conditions of an Operation beyond its phases.
pub(super) mod reason {
    pub(in super::super) const WAITING_FOR_OPERATION: &str = "WaitingForOperation";
    pub(in super::super) const WAITING_FOR_AGENTS: &str = "WaitingForAgents";
    pub(in super::super) const WAITING_FOR_GROUP: &str = "WaitingForGroup";
    pub(in super::super) const PRECONDITION_FAILED: &str = "PreconditionFailed";
    pub(in super::super) const PLAN_DIFFERS: &str = "PlanDiffers";
    pub(in super::super) const NOT_ELIGIBLE: &str = "NotEligible";
    pub(in super::super) const REFUSED: &str = "Refused";
    pub(in super::super) const STOP_UNPROVEN: &str = "StopUnproven";
    pub(in super::super) const TIMEOUT: &str = "Timeout";
    pub(in super::super) const GROUP_FAILED: &str = "GroupFailed";
    pub(in super::super) const COMMAND_FAILED: &str = "CommandFailed";
}

/// Whether nothing more happens.
pub(crate) fn is_final(phase: OperationPhase) -> bool {
    use OperationPhase as P;
    matches!(phase, P::Succeeded | P::Failed | P::Cancelled | P::Superseded | P::Expired)
}

/// The server that the steps start the group on.
pub(crate) fn destination(operation: &Operation) -> Option<String> {
    let given = operation.spec.move_.as_ref().and_then(|parameters| parameters.to.clone());
    given.or_else(|| {
        let prefix = format!("start {} on ", operation.spec.target.name);
        let steps = operation.status.iter().flat_map(|status| &status.steps);
        steps.rev().find_map(|step| step.name.strip_prefix(&prefix).map(String::from))
    })
}

/// The time by which it must have begun.
pub(crate) fn not_after(operation: &Operation) -> Option<Timestamp> {
    let given = operation.spec.not_after.as_ref().map(|time| time.0);
    given.or_else(|| {
        operation.metadata.generate_name.as_ref()?;
        let created = operation.metadata.creation_timestamp.as_ref()?.0;
        created.saturating_add(jiff::SignedDuration::from_hours(1)).ok()
    })
}

/// When a running Operation has taken too long.
pub(crate) fn deadline(operation: &Operation) -> Option<Timestamp> {
    let begun = operation.status.as_ref()?.steps.iter().find_map(|step| step.start_time.as_ref())?.0;
    begun.saturating_add(operation.spec.timeout.get()).ok()
}

/// The status that the Operation should have now.
pub(crate) fn next(facts: &Facts<'_>) -> OperationStatus {
    let mut next = Next::of(facts.operation, facts.began, facts.now);
    let phase = next.status.phase.unwrap_or_default();
    if is_final(phase) {
        return next.status;
    }
    next.status.observed_generation = next.generation;
    next.set_origin(OperationOrigin::Api);
    match phase {
        OperationPhase::Running | OperationPhase::AwaitingOperator => go_on(facts, &mut next),
        _ => super::planned::begin(facts, &mut next),
    }
    next.status
}

/// The status in the making.
pub(super) struct Next<'a> {
    status: OperationStatus,
    generation: Option<i64>,
    began: &'a BTreeMap<String, Timestamp>,
    now: Timestamp,
}

impl<'a> Next<'a> {
    /// Beginning with the status that it has.
    pub(super) fn of(operation: &Operation, began: &'a BTreeMap<String, Timestamp>, now: Timestamp) -> Next<'a> {
        let status = operation.status.clone().unwrap_or_default();
        Next { status, generation: operation.metadata.generation, began, now }
    }

    pub(super) fn into_status(self) -> OperationStatus {
        self.status
    }

    /// Where it was given, if that is not known.
    pub(super) fn set_origin(&mut self, origin: OperationOrigin) {
        self.status.origin.get_or_insert(origin);
    }

    pub(super) fn set_steps(&mut self, steps: Vec<OperationStep>) {
        self.status.steps = steps;
    }

    /// The same, to think something through that is not written.
    pub(super) fn thought(&self) -> Next<'a> {
        Next { status: self.status.clone(), generation: self.generation, began: self.began, now: self.now }
    }

    /// What was thought through is so.
    pub(super) fn take(&mut self, thought: Next<'a>) {
        self.status = thought.status;
    }

    pub(super) fn status(&self) -> &OperationStatus {
        &self.status
    }

    pub(super) fn phase(&self) -> OperationPhase {
        self.status.phase.unwrap_or_default()
    }

    /// Why it is as it is.
    pub(super) fn message(&self) -> String {
        let ready = conditions::get(&self.status.conditions, condition::READY);
        ready.map(|ready| ready.message.clone()).unwrap_or_default()
    }

    pub(super) fn set_plan(&mut self, plan: OperationPlan) {
        self.status.plan = Some(plan);
    }

    pub(super) fn set_outputs(&mut self, outputs: Vec<OperationOutput>) {
        self.status.outputs = outputs;
    }

    /// None of them was begun.
    pub(super) fn forget_steps(&mut self) {
        self.status.steps.clear();
    }

    fn set(&mut self, type_: &str, state: bool, reason: &str, message: &str) {
        conditions::set(&mut self.status.conditions, type_, state, reason, message, self.generation, self.now);
    }

    pub(super) fn wait(&mut self, reason: &str, message: &str) {
        self.status.phase = Some(OperationPhase::Pending);
        self.set(condition::READY, false, reason, message);
        self.set(condition::COMPLETE, false, reason, message);
    }

    pub(super) fn run(&mut self, steps: Vec<String>) {
        self.status.phase = Some(OperationPhase::Running);
        self.status.steps = steps.into_iter().map(|name| OperationStep { name, ..OperationStep::default() }).collect();
        if let Some(first) = self.status.steps.first_mut() {
            first.state = StepState::Running;
            first.start_time = Some(Time(self.now));
        }
        self.say_running();
    }

    fn say_running(&mut self) {
        let step = self.status.steps.iter().find(|step| step.state == StepState::Running);
        let message = step.map(|step| step.name.clone()).unwrap_or_default();
        self.set(condition::READY, false, OperationPhase::Running.as_str(), &message);
        self.set(condition::COMPLETE, false, OperationPhase::Running.as_str(), &message);
    }

    pub(super) fn finish(&mut self, phase: OperationPhase, reason: &str, message: &str) {
        self.status.phase = Some(phase);
        let (good, now, began) = (phase == OperationPhase::Succeeded, self.now, self.began);
        for step in &mut self.status.steps {
            match step.state {
                StepState::Running => {
                    step.took = took(step, began, now);
                    step.state = if good { StepState::Done } else { StepState::Failed };
                    if !good {
                        step.message = message.to_string();
                    }
                }
                StepState::Pending => step.state = StepState::Skipped,
                _ => {}
            }
        }
        self.set(condition::READY, good, reason, message);
        self.set(condition::COMPLETE, true, phase.as_str(), message);
        if good || phase == OperationPhase::Cancelled {
            conditions::clear(&mut self.status.conditions, condition::FAILED);
        } else {
            self.set(condition::FAILED, true, reason, message);
        }
    }

    pub(super) fn succeed(&mut self, message: &str) {
        self.finish(OperationPhase::Succeeded, OperationPhase::Succeeded.as_str(), message);
    }

    pub(super) fn fail(&mut self, reason: &str, message: &str) {
        self.finish(OperationPhase::Failed, reason, message);
    }

    /// Done, with the times that the agents measured if they report the transition that it led to.
    fn succeed_by(&mut self, group: &FailoverGroup, wanted: TransitionType, message: &str) {
        self.succeed(message);
        let begun = self.status.steps.iter().find_map(|step| step.start_time.as_ref()).map(|time| time.0.as_second());
        // Both times have whole seconds, from two clocks.
        let fits = |t: &&Transition| {
            let time = t.time.as_ref().map(|time| time.0.as_second());
            t.type_ == wanted && time.zip(begun).is_some_and(|(time, begun)| time + 1 >= begun)
        };
        let newest = group.status.iter().flat_map(|status| &status.transitions).find(fits);
        let Some((transition, whole)) = newest.and_then(|t| Some((t, t.actual.as_ref()?.get()))) else { return };
        let stops = transition.chart.iter().filter(|step| step.step.starts_with("stop"));
        let stop: std::time::Duration = stops.map(|step| step.took.get()).sum();
        match self.status.steps.as_mut_slice() {
            [only] => only.took = Some(whole.into()),
            [first, second] => {
                first.took = Some(stop.into());
                second.took = Some(whole.saturating_sub(stop).into());
            }
            _ => {}
        }
    }

    /// Says what the running step waits for.
    pub(super) fn say_waiting(&mut self, why: &str) {
        let Some(step) = self.status.steps.iter_mut().find(|step| step.state == StepState::Running) else { return };
        step.message = why.to_string();
        let message = if why.is_empty() { step.name.clone() } else { format!("{}: {why}", step.name) };
        self.set(condition::READY, false, OperationPhase::Running.as_str(), &message);
        self.set(condition::COMPLETE, false, OperationPhase::Running.as_str(), &message);
    }

    /// How many steps there are.
    pub(super) fn steps(&self) -> usize {
        self.status.steps.len()
    }

    /// Whether this step, by its number, runs.
    pub(super) fn is_running(&self, number: usize) -> bool {
        self.status.steps.get(number).is_some_and(|step| step.state == StepState::Running)
    }

    /// The running step, by its number, is done; the next one begins.
    pub(super) fn step_done(&mut self, number: usize) {
        if self.is_running(number) {
            self.finish_step(number);
            self.begin_step(number + 1);
            self.say_running();
        }
    }

    /// A running step, by its number, is done.
    pub(super) fn finish_step(&mut self, number: usize) {
        let (now, began) = (self.now, self.began);
        if let Some(step) = self.status.steps.get_mut(number) {
            step.state = StepState::Done;
            step.message.clear();
            step.took = took(step, began, now);
        }
    }

    /// A step, by its number, begins.
    pub(super) fn begin_step(&mut self, number: usize) {
        if let Some(step) = self.status.steps.get_mut(number) {
            step.state = StepState::Running;
            step.start_time = Some(Time(self.now));
        }
    }

    /// Says what a running step, by its number, waits for.
    pub(super) fn say_of_step(&mut self, number: usize, why: &str) {
        if let Some(step) = self.status.steps.get_mut(number) {
            step.message = why.to_owned();
        }
    }

    /// Says how far it is, of one with several steps at once. `awaits`: an operator has to go on.
    pub(super) fn say_how_far(&mut self, awaits: bool, message: &str) {
        let phase = if awaits { OperationPhase::AwaitingOperator } else { OperationPhase::Running };
        self.status.phase = Some(phase);
        self.set(condition::READY, false, phase.as_str(), message);
        self.set(condition::COMPLETE, false, phase.as_str(), message);
    }
}

/// How long a step took: to the millisecond if this process saw it begin, else in whole seconds.
fn took(step: &OperationStep, began: &BTreeMap<String, Timestamp>, now: Timestamp) -> Option<duration::Duration> {
    let millis = match began.get(&step.name) {
        Some(began) => now.duration_since(*began).as_millis(),
        None => i128::from(now.as_second() - step.start_time.as_ref()?.0.as_second()) * 1000,
    };
    Some(duration::Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

pub(super) fn phase_of(group: &FailoverGroup) -> GroupPhase {
    group.status.as_ref().and_then(|status| status.phase).unwrap_or(GroupPhase::Offline)
}

pub(super) fn server_of(group: &FailoverGroup) -> Option<&str> {
    group.status.as_ref().and_then(|status| status.server.as_deref())
}

/// Types of holds in force, but for those that `except` names.
pub(super) fn holds(group: &FailoverGroup, except: impl Fn(&str) -> bool) -> Vec<String> {
    let holds = group.status.iter().flat_map(|status| &status.holds);
    holds.filter(|hold| !except(&hold.type_)).map(|hold| format!("{} ({})", hold.type_, hold.name)).collect()
}

pub(super) fn reasons(reasons: &[Reason]) -> String {
    list(&reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>())
}

/// It runs: what the agents report moves it on.
fn go_on(facts: &Facts<'_>, next: &mut Next<'_>) {
    let operation = facts.operation;
    match facts.about {
        About::Group => {}
        About::Server(on) => return super::on_server::go_on(facts, on, next),
        About::Failures(_) => return super::clear_failures::go_on_on_server(facts, next),
        About::Service(on) => return super::on_service::go_on(facts, on, next),
        About::Groups(on) => return super::pause::go_on(facts, on, next),
        About::Exec(on) => return super::exec::go_on(facts, on, next),
        About::Shutdown(on) => return super::shutdown::go_on(facts, on, next),
        About::Upgrade(on) => return super::upgrade::go_on(facts, on, next),
        About::Spec(on) => return super::accept_spec::go_on(facts, on.as_ref(), next),
        About::Drill(_) => return,
        About::Keys(keys) => return super::rotate_key::go_on(facts, keys.as_ref(), next),
    }
    let name = &operation.spec.target.name;
    let Some(group) = facts.group else {
        return next.fail(accepted::NOT_FOUND, &format!("the FailoverGroup {name} is gone"));
    };
    match operation.spec.type_ {
        OperationType::Move => go_on_move(facts, group, next),
        OperationType::Restart => super::restart::go_on(operation, group, next),
        OperationType::ClearFailures => super::clear_failures::go_on(operation, group, next),
        OperationType::Stop => {
            let held = group.status.iter().flat_map(|status| &status.holds).any(|hold| hold.type_ == "Stopped");
            match phase_of(group) {
                GroupPhase::Offline if held => {
                    next.succeed_by(group, TransitionType::Stop, &format!("{name} is stopped and held"));
                }
                GroupPhase::Stuck => {
                    next.fail(
                        reason::STOP_UNPROVEN,
                        &format!("the stop of {name} failed; it counts as running until proven otherwise"),
                    );
                }
                _ => {}
            }
        }
        _ => {
            let held = holds(group, |hold| !failover_group::released_by_start(hold));
            match (phase_of(group), held.is_empty()) {
                (GroupPhase::Online, true) => {
                    let message = format!("{name} is online on {}", server_of(group).unwrap_or_default());
                    next.succeed_by(group, TransitionType::Start, &message);
                }
                (GroupPhase::Failed, true) if taken(operation, group) => {
                    next.fail(reason::GROUP_FAILED, &failure(group));
                }
                (GroupPhase::Stuck, _) => next.fail(reason::STOP_UNPROVEN, &failure(group)),
                _ => {}
            }
        }
    }
    if is_final(next.status.phase.unwrap_or_default()) {
        return;
    }
    // Between two steps is when nothing is on its way.
    let boundary = !matches!(phase_of(group), GroupPhase::Starting | GroupPhase::Stopping);
    if boundary && (operation.spec.cancel || operation.meta().deletion_timestamp.is_some()) {
        let phase = OperationPhase::Cancelled;
        return next.finish(phase, phase.as_str(), &format!("cancelled; {name} is {}", phase_of(group)));
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        let message = format!("not done within spec.timeout {}; {name} is {}", operation.spec.timeout, phase_of(group));
        next.fail(reason::TIMEOUT, &message);
    }
}

fn go_on_move(facts: &Facts<'_>, group: &FailoverGroup, next: &mut Next<'_>) {
    let (name, Some(to)) = (group.name_any(), destination(facts.operation)) else {
        return next.fail(reason::REFUSED, "status.steps does not say where to; ask for the move again");
    };
    let begun = next.status.steps.iter().find_map(|step| step.start_time.as_ref()).map(|time| time.0);
    let (phase, here) = (phase_of(group), server_of(group));
    if phase == GroupPhase::Online && here == Some(to.as_str()) {
        for number in 0..next.status.steps.len() {
            next.step_done(number);
        }
        return next.succeed_by(group, TransitionType::Move, &format!("{name} is online on {to}"));
    }
    // Seconds only are reported, so a failover in the second of our begin counts; it was not there when we began.
    let failover = group.status.iter().flat_map(|status| &status.transitions).find(|transition| {
        let after = transition.time.as_ref().zip(begun).is_some_and(|(time, begun)| time.0 > begun);
        transition.type_ == TransitionType::Failover && after
    });
    if let Some(failover) = failover {
        let message = format!("a failover came first: {}", failover.message);
        return next.finish(OperationPhase::Superseded, OperationPhase::Superseded.as_str(), &message);
    }
    if phase == GroupPhase::Stuck {
        let message = format!("the stop of {name} failed; it counts as running until proven otherwise");
        return next.fail(reason::STOP_UNPROVEN, &message);
    }
    let nowhere = phase == GroupPhase::Offline || (phase == GroupPhase::Failed && here.is_none());
    let stop_done = next.status.steps.len() == 2 && (nowhere || here == Some(to.as_str()));
    if stop_done {
        next.step_done(0);
    }
    let started = next.status.steps.last().is_some_and(|step| step.state == StepState::Running);
    if started && phase == GroupPhase::Online {
        let message = format!("{name} is online on {} instead: {}", here.unwrap_or_default(), failure(group));
        return next.fail(reason::GROUP_FAILED, &message);
    }
    if started && phase == GroupPhase::Failed && taken(facts.operation, group) {
        return next.fail(reason::GROUP_FAILED, &failure(group));
    }
    let excluded = facts.sub_cluster.map(|sub| exclusions(sub, group, facts.beside, &to)).unwrap_or_default();
    if !excluded.is_empty() && !matches!(phase, GroupPhase::Starting | GroupPhase::Stopping) {
        let message = format!("{to} may not run {name} any more: {}", reasons(&excluded));
        next.fail(reason::NOT_ELIGIBLE, &message);
    }
}

/// Whether the agents have acted on what the Operation asked for: their placement is no longer the one that the target was
/// computed from.
fn taken(operation: &Operation, group: &FailoverGroup) -> bool {
    let Some(status) = &group.status else { return false };
    let target = status.target.as_ref().filter(|target| target.operation == operation.name_any());
    target.is_some_and(|target| (Some(target.epoch), target.revision) != (status.epoch, status.revision))
}

/// What the agents say about the last failure.
pub(super) fn failure(group: &FailoverGroup) -> String {
    let failures = group.status.iter().flat_map(|status| &status.failures);
    let newest = failures.max_by_key(|failure| failure.last_time.as_ref().map(|time| time.0));
    newest.map_or_else(
        || format!("{} is {}", group.name_any(), phase_of(group)),
        |failure| format!("{} failed on {}: {}", failure.resource, failure.server, failure.message),
    )
}
