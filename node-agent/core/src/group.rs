//! The life of one group on one server: resources start when what they need runs, and stop in reverse.
//!
//! | state of a resource | event | next |
//! |---|---|---|
//! | `NeedsProbe` | probe: running / stopped / anything else | `Running` / `Stopped` / `NeedsStop` |
//! | `Stopped` | wanted, all of `after` running | `Starting` |
//! | `Starting` | running / anything else | `Running` / failure |
//! | `Running` | its check of one depth fails often enough, process exits | failure |
//! | failure | restarts left, in place or by its recovery | `NeedsStop`, with everything that requires it; then `Stopped`, then again, after the backoff |
//! | `Running` | a monitor of the group with action Restart fails | failure |
//! | failure | none left | not critical: `GivenUp`; critical: the group has failed here |
//! | any | a monitor of the group with action Failover or Stop fails | the group has failed here |
//! | `Stopped` | a program (`commands.rs`) that did not start at first, or that is to end | no part of the group any more |
//! | `Running`, `GivenUp` | switched off | `NeedsStop`, with everything that requires it; stays `Stopped` |
//! | any | group not wanted, everything after it stopped | `Stopping` |
//! | `Stopping` | stopped / anything else | `Stopped` / `Stuck`, tried again less and less often (a failed stop never counts as stopped) |
//! | `GivenUp` | failures are forgotten | `Stopped`, then again |
//! | `Running` | paused, and found not to run | `Lost`; `Running` when a check finds it again; at the end of the pause `NeedsStop` |

mod backoff;
pub(crate) use backoff::STOP_AGAIN;
mod paused;
mod programs;
mod resource;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clearing::Clear;
use crate::config::{GroupConfig, MonitorAction};
use crate::input::Outcome;
use crate::message::Assignment;
use crate::monitors::{DueCheck, Monitors};
use crate::names::{MonitorName, ResourceName};
use crate::output::{Action, OpId};
use crate::restarting::PartRestart;
use crate::status::{Failure, GroupPhase, GroupReport, Part, Step};
use crate::time::Instant;
use programs::Program;
use resource::{Look, Resource, State, slot};

/// A group that this server holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    /// What it acts under.
    pub(crate) assignment: Assignment,
    /// As it was started.
    pub(crate) config: Arc<GroupConfig>,
    /// Nothing may happen before this ledger write is durable.
    pub(crate) gate: u64,
    wanted: bool,
    resources: BTreeMap<ResourceName, Resource>,
    monitors: Monitors,
    /// Those of the resources that a command added.
    programs: BTreeMap<ResourceName, Program>,
    pause: paused::Pause,
    /// Some of its resources are on their way down and up again.
    restarting: Option<PartRestart>,
    /// Programs that are no part of it any more, with what went wrong at their start.
    ended: Vec<(ResourceName, Option<String>)>,
    failure: Option<Failure>,
    began: Instant,
    steps: Vec<Step>,
    message: String,
}

/// What a machine wants done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) resource: ResourceName,
    pub(crate) action: Action,
    /// Of a monitor.
    pub(crate) depth: u8,
    pub(crate) timeout: Duration,
}

impl Machine {
    /// A group to be started, or (`running`) one that runs since before this process started.
    pub(crate) fn new(
        now: Instant,
        assignment: Assignment,
        config: Arc<GroupConfig>,
        gate: u64,
        running: bool,
    ) -> Machine {
        let state = if running { State::NeedsProbe } else { State::Stopped };
        let resources = config.resources.keys().map(|name| (name.clone(), Resource::new(state, now))).collect();
        let programs = programs::known(&config);
        Machine {
            programs,
            pause: paused::Pause::default(),
            restarting: None,
            ended: Vec::new(),
            assignment,
            config,
            gate,
            wanted: true,
            resources,
            monitors: Monitors::new(running),
            failure: None,
            began: now,
            steps: Vec::new(),
            message: String::new(),
        }
    }

    /// Some of its resources are restarted, with what can't go on without them. Nothing is counted. It begins when it is
    /// known of all of them whether they run.
    pub(crate) fn restart_part(&mut self, part: PartRestart) {
        let unknown = |resource: &Resource| matches!(resource.state, State::NeedsProbe | State::Probing(_));
        if part.resources.iter().any(|name| self.resources.get(name).is_some_and(unknown)) {
            return;
        }
        for name in &part.resources {
            let runs = |resource: &&mut Resource| matches!(resource.state, State::Running | State::GivenUp);
            if let Some(resource) = self.resources.get_mut(name).filter(runs) {
                resource.state = State::NeedsStop;
                resource.give_up = false;
                resource.restarting = true;
                self.stop_dependents(name);
            }
        }
        self.restarting = Some(part);
    }

    /// Whether it has begun to restart these.
    pub(crate) fn restarts(&self, part: &PartRestart) -> bool {
        self.restarting.as_ref() == Some(part)
    }

    /// They run again.
    pub(crate) fn part_is_restarted(&mut self, part: PartRestart) {
        self.restarting = None;
        self.assignment.part_restarted = Some(part);
    }

    /// The Operation whose resources run again.
    fn part_restarted(&self) -> Option<String> {
        let part = self.assignment.part_restarted.as_ref()?;
        (self.wanted && self.phase() == GroupPhase::Online).then(|| part.by.clone())
    }

    /// Whether a resource that was to be restarted runs again; asked once for each restart.
    pub(crate) fn was_restarted(&mut self, name: &ResourceName) -> bool {
        let runs = |resource: &&mut Resource| resource.state == State::Running;
        let resource = self.resources.get_mut(name).filter(runs);
        resource.is_some_and(|resource| std::mem::take(&mut resource.restarting))
    }

    /// From now on it is to be stopped.
    pub(crate) fn stop(&mut self, why: &str) {
        if self.wanted {
            self.wanted = false;
            self.message = why.to_owned();
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Verified: nothing of it is left here.
    pub(crate) fn is_gone(&self) -> bool {
        !self.wanted && self.resources.values().all(|resource| resource.state == State::Stopped)
    }

    /// A stop has failed, and what it was to stop may still run.
    pub(crate) fn stop_failed(&self) -> bool {
        self.resources.values().any(|resource| resource.failed_stops > 0)
    }

    /// Failures are forgotten; see `clearing.rs`.
    pub(crate) fn forget(&mut self, now: Instant, clear: &Clear) {
        for (_, resource) in self.resources.iter_mut().filter(|(name, _)| clear.is_about(name)) {
            resource.forget(now, self.wanted);
        }
        let covered = self.failure.as_ref().is_some_and(|failure| match &failure.part {
            Part::Resource(name) => clear.is_about(name),
            Part::Monitor(_) => clear.resources.is_empty(),
        });
        if covered {
            self.failure = None;
            if self.wanted {
                self.message.clear();
            }
        }
        if clear.resources.is_empty() {
            self.monitors.begin_anew();
        }
    }

    /// Somebody asks for a stop anew: what waits to be tried again does not wait.
    pub(crate) fn try_stops_now(&mut self, now: Instant) {
        for resource in self.resources.values_mut() {
            resource.try_stop_now(now);
        }
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// A specification with the same digest replaces the old one: what changed needs no restart. Resources may change
    /// without the group's generation: they may stand in objects of their own, which are switched on and off.
    pub(crate) fn refresh(&mut self, config: &Arc<GroupConfig>) {
        if config.digest != self.config.digest {
            return;
        }
        let mut config = config.clone();
        for name in self.programs.keys() {
            // It is declared nowhere, and runs on.
            if let Some(program) = self.config.resources.get(name) {
                Arc::make_mut(&mut config).resources.insert(name.clone(), program.clone());
            }
        }
        if config.generation != self.config.generation {
            self.config = config;
            self.monitors.begin_anew();
        } else if config.resources != self.config.resources {
            self.config = config;
        }
    }

    /// As far as is known: what is looked at in a pause counts as what it was.
    fn counts_as_running(&self, resource: &Resource) -> bool {
        match resource.state {
            State::Running | State::GivenUp => true,
            State::NeedsProbe | State::Probing(_) => self.is_paused(),
            _ => false,
        }
    }

    fn is_on(&self, name: &ResourceName) -> bool {
        self.config.resources.get(name).is_none_or(|config| config.enabled)
    }

    /// What was switched off is stopped. A failure before it is forgotten: switched on again, it is tried again.
    fn switch_off(&mut self) {
        // Again and again until it is stopped: what requires it may only be starting.
        let running =
            |resource: &Resource| matches!(resource.state, State::Running | State::GivenUp | State::NeedsStop);
        let off: Vec<ResourceName> =
            self.resources.iter().filter(|(n, r)| running(r) && !self.is_on(n)).map(|(n, _)| n.clone()).collect();
        for name in off {
            self.stop_dependents(&name);
            if let Some(resource) = self.resources.get_mut(&name) {
                resource.state = State::NeedsStop;
                resource.give_up = false;
            }
        }
    }

    /// Everything runs, and is to.
    pub(crate) fn is_calm(&self) -> bool {
        let runs = |(name, resource): (&ResourceName, &Resource)| resource.state == State::Running && self.is_on(name);
        self.wanted && self.resources.iter().all(runs)
    }

    pub(crate) fn phase(&self) -> GroupPhase {
        let any = |test: fn(&State) -> bool| self.resources.values().any(|resource| test(&resource.state));
        if any(|state| matches!(state, State::Stuck(_))) {
            GroupPhase::Stuck
        } else if self.is_gone() {
            GroupPhase::Offline
        } else if !self.wanted {
            GroupPhase::Stopping
        } else if self.failure.is_some() || any(|state| matches!(state, State::Lost)) {
            GroupPhase::Failed
        } else if self.resources.iter().all(|(name, resource)| self.counts_as_running(resource) || !self.is_on(name)) {
            GroupPhase::Online
        } else {
            GroupPhase::Starting
        }
    }

    /// `known`: the newest generation that this server holds.
    pub(crate) fn report(&self, known: u64) -> GroupReport {
        GroupReport {
            tag: self.assignment.tag,
            generation: self.config.generation,
            known,
            digest: self.config.digest,
            phase: self.phase(),
            resources: self.resources.iter().map(|(name, resource)| (name.clone(), resource.report())).collect(),
            monitors: self.monitors.report(&self.config.monitors),
            failure: self.failure.clone(),
            paused: self.is_settled_in_pause(),
            part_restarted: self.part_restarted(),
            looked: self.looked(),
            steps: self.steps.clone(),
            message: self.message.clone(),
        }
    }

    /// What is to be done now. `may_start`: the lease covers new activity. Wake-ups are added to `wake`.
    pub(crate) fn requests(&mut self, now: Instant, may_start: bool, wake: &mut Vec<Instant>) -> Vec<Request> {
        let mut requests = Vec::new();
        let paused = self.is_left_alone();
        if self.wanted && !paused {
            self.switch_off();
            self.stop_stragglers();
        }
        // Who waits for whom is asked only when something is to be started or stopped.
        let calm = self.is_calm();
        let states: BTreeMap<ResourceName, State> =
            self.resources.iter().filter(|_| !calm).map(|(n, r)| (n.clone(), r.state)).collect();
        let all = self.config.clone();
        let up = |name: &ResourceName| match states.get(name) {
            None | Some(State::Running | State::GivenUp) => true,
            // Nothing waits for what is switched off.
            Some(State::Stopped) => all.resources.get(name).is_some_and(|config| !config.enabled),
            Some(_) => false,
        };
        let down = |name: &ResourceName| match states.get(name) {
            None | Some(State::Stopped) => true,
            // It was stopped before it was given up.
            Some(State::GivenUp) => self.wanted,
            Some(_) => false,
        };
        for (name, resource) in &mut self.resources {
            let Some(config) = self.config.resources.get(name) else { continue };
            let request = |action, timeout| Request { resource: name.clone(), action, depth: 0, timeout };
            // Everything that comes after it is stopped first; for a restart only what can't go on without it. Looked at
            // only where something is to be stopped: all against all is much in a large group that simply runs.
            let clear = || {
                self.config.resources.iter().all(|(other, other_config)| {
                    let waits = if self.wanted { &other_config.requires } else { &other_config.after };
                    !waits.contains(name) || down(other)
                })
            };
            match resource.state {
                State::NeedsProbe if self.wanted => requests.push(request(Action::Probe, config.probe_timeout)),
                State::Stopped | State::NeedsStop | State::Stuck(_) if paused => {}
                State::Stopped if self.wanted && resource.give_up => resource.state = State::GivenUp,
                State::Stopped if self.wanted && !config.enabled => {}
                State::Stopped if self.wanted && now < resource.not_before => wake.push(resource.not_before),
                State::Stopped if self.wanted && may_start && self.failure.is_none() && config.after.iter().all(up) => {
                    requests.push(request(Action::Start, config.start_timeout));
                }
                State::NeedsStop if clear() => requests.push(request(Action::Stop, config.stop_timeout)),
                State::Running | State::NeedsProbe | State::GivenUp | State::Lost if !self.wanted && clear() => {
                    requests.push(request(Action::Stop, config.stop_timeout));
                }
                State::Stuck(again) if now >= again && clear() => {
                    requests.push(request(Action::Stop, config.stop_timeout))
                }
                State::Stuck(again) => wake.push(again),
                State::Running | State::Lost if self.wanted && resource.check.is_none() => {
                    match resource.next_check(config) {
                        Some((next, depth)) if now >= next => {
                            let timeout = config.checks.get(&depth).map_or(Duration::ZERO, |check| check.timeout);
                            requests.push(Request { depth, ..request(Action::Monitor, timeout) });
                        }
                        Some((next, _)) => wake.push(next),
                        None => {}
                    }
                }
                _ => {}
            }
        }
        requests
    }

    /// The checks of monitors that are due. `may_start`: the lease covers new activity; without it nothing new begins.
    pub(crate) fn checks(&mut self, now: Instant, may_start: bool, wake: &mut Vec<Instant>) -> Vec<DueCheck> {
        let online = may_start && self.phase() == GroupPhase::Online;
        self.monitors.due(now, online, &self.config.monitors, wake)
    }

    /// A check was given to the executor.
    pub(crate) fn check_begun(&mut self, name: &MonitorName, op: OpId) {
        self.monitors.begun(name, op);
    }

    /// A check ended. Gives what is to be told if its monitor fails now.
    pub(crate) fn checked(&mut self, now: Instant, name: &MonitorName, op: OpId, outcome: Outcome) -> Option<String> {
        let settings = self.config.monitors.get(name).cloned()?;
        let seen = self.monitors.done(now, name, op, outcome, &settings)?;
        // The group may have left Online since the monitors were looked at last: then it is being dealt with already.
        if self.phase() != GroupPhase::Online {
            return None;
        }
        let part = Part::Monitor(name.clone());
        let message = format!("{part}: {seen}");
        if self.is_paused() {
            return Some(message);
        }
        match settings.action {
            MonitorAction::Restart(resource) => self.exited(now, &resource, message.clone()),
            MonitorAction::Fail(_) | MonitorAction::FailAll(_) | MonitorAction::ServerDown(_) => {
                self.message.clone_from(&message);
                self.failure = Some(Failure { part, count: 1, message: seen });
            }
            MonitorAction::Report => {}
        }
        Some(message)
    }

    /// An operation was given to the executor.
    pub(crate) fn begun(&mut self, now: Instant, request: &Request, op: OpId) {
        let Some(resource) = self.resources.get_mut(&request.resource) else { return };
        match request.action {
            Action::Probe => resource.state = State::Probing(op),
            Action::Start => {
                resource.state = State::Starting(op, now);
                self.monitors.restarted();
            }
            Action::Stop => resource.state = State::Stopping(op),
            Action::Monitor => resource.check = Some((op, request.depth)),
        }
    }

    /// A check of a resource that is to run, and that did not fail before, found it running: when it is checked again.
    pub(crate) fn still_runs(&mut self, now: Instant, name: &ResourceName, op: OpId) -> Option<Instant> {
        let config = self.config.resources.get(name)?;
        let resource = self.resources.get_mut(name)?;
        let (_, depth) = resource.check.filter(|(check, _)| *check == op)?;
        let look = resource.looks.get_mut(&depth).filter(|look| look.misses == 0)?;
        if !self.wanted || resource.state != State::Running {
            return None;
        }
        look.next = slot(now + config.checks.get(&depth)?.interval);
        resource.check = None;
        resource.next_check(config).map(|(at, _)| at)
    }

    /// An operation ended.
    pub(crate) fn done(&mut self, now: Instant, name: &ResourceName, op: OpId, outcome: Outcome, took: Duration) {
        let Some(config) = self.config.resources.get(name).cloned() else { return };
        let (paused, on) = (self.is_paused(), self.is_on(name));
        let Some(resource) = self.resources.get_mut(name) else { return };
        if let Some((_, depth)) = resource.check.filter(|(check, _)| *check == op) {
            resource.check = None;
            let interval = config.checks.get(&depth).map_or(Duration::ZERO, |check| check.interval);
            let misses = resource.looks.get(&depth).map_or(0, |look| look.misses);
            let misses = if outcome == Outcome::Running { 0 } else { misses + 1 };
            resource.looks.insert(depth, Look { next: slot(now + interval), misses });
            match outcome {
                Outcome::Running if resource.state == State::Lost => {
                    resource.runs(now, &config);
                    resource.message.clear();
                }
                Outcome::Running => {}
                Outcome::Stopped => self.missed(now, name, depth, "it does not run any more".into()),
                Outcome::Failed(message) | Outcome::Unknown(message) => self.missed(now, name, depth, message),
            }
            return;
        }
        match (resource.state, outcome) {
            (State::Probing(current), outcome) if current == op => match outcome {
                Outcome::Running => {
                    let ends = self.programs.get(name).is_some_and(|program| program.ends);
                    resource.runs(now, &config);
                    if ends {
                        resource.state = State::NeedsStop;
                    }
                }
                Outcome::Stopped if paused && on => self.lose(name, "it does not run".into()),
                Outcome::Failed(message) | Outcome::Unknown(message) if paused => self.lose(name, message),
                Outcome::Stopped => {
                    resource.state = State::Stopped;
                    self.part_with(name);
                }
                Outcome::Failed(message) | Outcome::Unknown(message) => {
                    resource.message = message;
                    resource.state = State::NeedsStop;
                }
            },
            (State::Starting(current, began), outcome) if current == op => {
                let at = began.since(self.began);
                self.steps.push(Step { step: format!("start {name}"), at, took });
                match outcome {
                    Outcome::Running => {
                        let program = self.programs.get_mut(name);
                        let ends = program.is_some_and(|program| {
                            program.proven = true;
                            program.ends
                        });
                        resource.runs(now, &config);
                        if ends {
                            resource.state = State::NeedsStop;
                        }
                        resource.message.clear();
                    }
                    Outcome::Stopped => self.failed(now, name, "it ended at once".into()),
                    Outcome::Failed(message) | Outcome::Unknown(message) => self.failed(now, name, message),
                }
            }
            (State::Stopping(current), outcome) if current == op => match outcome {
                Outcome::Stopped => {
                    resource.state = State::Stopped;
                    resource.failed_stops = 0;
                    self.part_with(name);
                }
                Outcome::Running => {
                    resource.stuck(now, "it still runs after a stop");
                }
                Outcome::Failed(message) | Outcome::Unknown(message) => resource.stuck(now, &message),
            },
            _ => {}
        }
    }

    /// A check of this depth was not content, and has counted it.
    fn missed(&mut self, now: Instant, name: &ResourceName, depth: u8, message: String) {
        let threshold = self.config.resources.get(name).map_or(1, |config| config.monitor_threshold.max(1));
        let Some(resource) = self.resources.get_mut(name) else { return };
        let message = if depth == 0 { message } else { format!("check of depth {depth}: {message}") };
        resource.message.clone_from(&message);
        let misses = resource.looks.get(&depth).map_or(0, |look| look.misses);
        if misses >= threshold && resource.state == State::Running {
            self.failed(now, name, message);
        }
    }

    /// A resource failed: again here, or not at all.
    pub(crate) fn failed(&mut self, now: Instant, name: &ResourceName, message: String) {
        if self.is_left_alone() {
            return self.lose(name, message);
        }
        let Some(config) = self.config.resources.get(name).cloned() else { return };
        let Some(resource) = self.resources.get_mut(name) else { return };
        resource.message.clone_from(&message);
        if resource.state == State::Running && now.since(resource.since) >= backoff::STEADY {
            resource.in_a_row = 0;
        }
        resource.state = State::NeedsStop;
        resource.restarts.retain(|at| now.since(*at) < config.recovery.window);
        if !self.wanted || !config.enabled {
            return;
        }
        if let Some(program) = self.programs.get_mut(name)
            && (program.ends || !program.proven)
        {
            // Whoever started it is told; the group is as well as before.
            program.ends = true;
            program.problem = Some(message);
            return;
        }
        if let Some(in_place) = &config.in_place {
            resource.in_place.retain(|at| now.since(*at) < in_place.window);
            if resource.in_place.len() < in_place.limit as usize {
                resource.in_place.push(now);
                resource.again(now, in_place.backoff);
                self.stop_dependents(name);
                return;
            }
        }
        let count = u32::try_from(resource.restarts.len()).unwrap_or(u32::MAX);
        if count < config.recovery.restarts {
            resource.restarts.push(now);
            resource.again(now, Duration::ZERO);
            self.stop_dependents(name);
        } else if !config.critical {
            resource.give_up = true;
        } else {
            self.message = format!("{name}: {message}");
            self.failure = Some(Failure { part: Part::Resource(name.clone()), count: count + 1, message });
        }
    }

    /// What was only being started when something that it requires failed is stopped with it, too: else that one would wait
    /// for it for ever.
    fn stop_stragglers(&mut self) {
        let failed = self.resources.iter().filter(|(_, resource)| resource.state == State::NeedsStop);
        for name in failed.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.stop_dependents(&name);
        }
    }

    /// Everything that can't go on without `name` is stopped with it, and started again after it.
    fn stop_dependents(&mut self, name: &ResourceName) {
        let dependents: Vec<ResourceName> = self
            .config
            .resources
            .iter()
            .filter(|(_, config)| config.requires.contains(name))
            .map(|(n, _)| n.clone())
            .collect();
        for dependent in dependents {
            let Some(resource) = self.resources.get_mut(&dependent) else { continue };
            if resource.state == State::Running {
                resource.state = State::NeedsStop;
                self.stop_dependents(&dependent);
            }
        }
    }

    /// A started resource failed by itself, or a monitor says that it has.
    pub(crate) fn exited(&mut self, now: Instant, name: &ResourceName, message: String) {
        if self.resources.get(name).is_some_and(|resource| resource.state == State::Running) {
            self.failed(now, name, message);
        }
    }
}

#[cfg(test)]
#[path = "group_check_tests.rs"]
mod check_tests;
#[cfg(test)]
#[path = "group_switch_tests.rs"]
mod switch_tests;
