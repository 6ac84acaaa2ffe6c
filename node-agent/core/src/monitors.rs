//! Monitors: checks of what resources can't say about themselves (rows C6, C24). Those of a group run while the group is
//! Online here; those of servers, and of groups with scope Everywhere, while the server is a member, see `fitness.rs`.
//!
//! | state | event | next |
//! |---|---|---|
//! | any | the group is not Online here, or no longer wanted | `Inactive`, counters forgotten |
//! | `Inactive` | the group is Online | `Unknown`; the first check after the initial delay |
//! | `Unknown`, `Failing` | enough successes in a row | `Passing` |
//! | any but `Failing` | enough failures in a row | `Failing`, and its action, once |
//! | any | the check could not be carried out | as before, but no longer `Passing` |
//!
//! The initial delay counts from the moment at which the group came Online here, whatever changes in its specification
//! afterwards: the service is as old as it is.
//!
//! An action ends Online (a restart, a failure of the group), which makes every monitor begin anew: so each action costs a
//! whole threshold of failures, and counts against the limits of the resource or the group. Nothing goes back and forth
//! more often than a failing resource would.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::MonitorConfig;
use crate::input::Outcome;
use crate::names::MonitorName;
use crate::output::OpId;
use crate::status::{MonitorPhase, MonitorReport};
use crate::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Monitor {
    phase: MonitorPhase,
    /// Failures in a row, up to the threshold.
    failures: u32,
    successes: u32,
    message: String,
    next: Instant,
    check: Option<OpId>,
    /// See [`DueCheck::since`].
    since: Option<Instant>,
}

impl Monitor {
    fn begun(next: Instant, since: Option<Instant>) -> Monitor {
        let phase = MonitorPhase::Unknown;
        Monitor { phase, failures: 0, successes: 0, message: String::new(), next, check: None, since }
    }
}

/// A check that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueCheck {
    pub(crate) monitor: MonitorName,
    pub(crate) timeout: Duration,
    /// What happened before does not count; none: counting began before this process.
    pub(crate) since: Option<Instant>,
}

/// The monitors of one group that this server holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Monitors {
    /// Since when the group has been Online here.
    online: Option<Instant>,
    /// Nothing of the group was started by this process: what runs was Online before.
    adopted: bool,
    /// Those that run; the others are inactive.
    running: BTreeMap<MonitorName, Monitor>,
}

impl Monitors {
    /// Those of a group that is to be started, or (`adopted`) that runs since before this process.
    pub(crate) fn new(adopted: bool) -> Monitors {
        Monitors { adopted, ..Monitors::default() }
    }

    /// A resource of the group is started: what was seen before is over.
    pub(crate) fn restarted(&mut self) {
        self.adopted = false;
    }

    /// The checks that are due. Wake-ups are added to `wake`.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        online: bool,
        config: &BTreeMap<MonitorName, MonitorConfig>,
        wake: &mut Vec<Instant>,
    ) -> Vec<DueCheck> {
        if !online {
            // Answers that are under way are about what is over.
            self.running.clear();
            self.online = None;
            return Vec::new();
        }
        let online = *self.online.get_or_insert(now);
        let since = if self.adopted { None } else { Some(now) };
        self.running.retain(|name, _| config.contains_key(name));
        let mut due = Vec::new();
        for (name, settings) in config {
            let first = now.max(online + settings.initial_delay);
            let monitor = self.running.entry(name.clone()).or_insert_with(|| Monitor::begun(first, since));
            match monitor.check {
                Some(_) => {}
                None if now >= monitor.next => {
                    due.push(DueCheck { monitor: name.clone(), timeout: settings.timeout, since: monitor.since });
                }
                None => wake.push(monitor.next),
            }
        }
        due
    }

    /// A check was given to the executor.
    pub(crate) fn begun(&mut self, name: &MonitorName, op: OpId) {
        if let Some(monitor) = self.running.get_mut(name) {
            monitor.check = Some(op);
        }
    }

    /// A check ended. Gives what was seen if that makes the monitor fail: its action is due.
    pub(crate) fn done(
        &mut self,
        now: Instant,
        name: &MonitorName,
        op: OpId,
        outcome: Outcome,
        settings: &MonitorConfig,
    ) -> Option<String> {
        let monitor = self.running.get_mut(name).filter(|monitor| monitor.check == Some(op))?;
        monitor.check = None;
        monitor.next = now + settings.interval;
        let seen = match outcome {
            Outcome::Running => {
                monitor.failures = 0;
                monitor.successes = monitor.successes.saturating_add(1);
                monitor.message.clear();
                if monitor.successes >= settings.success_threshold {
                    monitor.phase = MonitorPhase::Passing;
                }
                return None;
            }
            // Nothing was learnt about the service: neither a failure nor a success of it.
            Outcome::Unknown(message) => {
                monitor.message = message;
                if monitor.phase == MonitorPhase::Passing {
                    monitor.phase = MonitorPhase::Unknown;
                }
                return None;
            }
            Outcome::Stopped => "it does not run".to_owned(),
            Outcome::Failed(message) => message,
        };
        monitor.successes = 0;
        // No further than the threshold, so that a lasting failure is reported once.
        monitor.failures = (monitor.failures + 1).min(settings.threshold.max(1));
        monitor.message.clone_from(&seen);
        if monitor.failures < settings.threshold.max(1) || monitor.phase == MonitorPhase::Failing {
            return None;
        }
        monitor.phase = MonitorPhase::Failing;
        Some(seen)
    }

    /// A new specification that needs no restart: what was counted was about the old one.
    pub(crate) fn begin_anew(&mut self) {
        self.adopted = false;
        self.running.clear();
    }

    pub(crate) fn report(&self, config: &BTreeMap<MonitorName, MonitorConfig>) -> BTreeMap<MonitorName, MonitorReport> {
        let inactive = MonitorReport { phase: MonitorPhase::Inactive, failures: 0, message: String::new() };
        let one = |name: &MonitorName| match self.running.get(name) {
            None => inactive.clone(),
            Some(Monitor { phase, failures, message, .. }) => {
                MonitorReport { phase: *phase, failures: *failures, message: message.clone() }
            }
        };
        config.keys().map(|name| (name.clone(), one(name))).collect()
    }
}
