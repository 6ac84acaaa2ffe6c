//! C8: the time chart of every change of a group, as the coordinator sees it. For people only; decides nothing but
//! how often a group has failed over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::Core;
use crate::message::{Assignment, Reason};
use crate::names::GroupName;
use crate::status::{GroupPhase, Step, Transition};
use crate::time::Instant;
use crate::view::Evidence;

/// How many transitions are kept per group (api.md §1).
const KEPT: usize = 10;
/// How many recoveries are counted per group: the most that `maxFailovers` can be.
const COUNTED: usize = 100;

/// The newest transitions of one group, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct History {
    transitions: Vec<Transition>,
    /// When the start under way was assigned, and the tag of its assignment.
    starting: Option<Instant>,
    last_id: u64,
    /// When recoveries by failure began: more than there are transitions kept for people.
    recoveries: VecDeque<Instant>,
    /// It failed where it was, and was not started since.
    failed: bool,
}

impl History {
    pub(crate) fn newest_first(&self) -> Vec<Transition> {
        self.transitions.iter().rev().cloned().collect()
    }

    /// No recovery so far counts any more; what people read stays.
    pub(crate) fn forget(&mut self) {
        self.recoveries.clear();
        self.failed = false;
    }

    /// Recoveries by failure, each to another server or at a later time, that began inside `window`.
    pub(crate) fn recoveries(&self, now: Instant, window: Duration) -> usize {
        self.recoveries.iter().filter(|began| now.since(**began) < window).count()
    }
}

impl Core {
    /// What a coordinator of before still knows. One that coordinates says it with its groups.
    pub(crate) fn former_history(&self) -> BTreeMap<GroupName, Vec<Transition>> {
        let former = !(self.coordinates() && self.everybody_reported());
        let known = self.coordinator.history.iter().filter(|_| former);
        known.map(|(name, history)| (name.clone(), history.newest_first())).collect()
    }

    /// A new assignment begins a transition, or goes on with the one that a stop began.
    pub(crate) fn begin_transition(&mut self, name: &GroupName, assignment: &Assignment) {
        let (now, resolution) = (self.now, self.resolution.clone());
        let known = self.durable.table.get(name);
        let running = known.is_some_and(|known| known.server.is_some());
        if assignment.server.is_none() && !running {
            return; // only its holds change
        }
        // What covers this group about the server that it was taken from; not all evidence covers all groups.
        let mut departed = self.durable.view.iter().flat_map(|view| view.departed.keys());
        let from = departed.rfind(|(server, _)| Some(server) == assignment.previous.as_ref()).cloned();
        let evidence = from.and_then(|key| self.covers(&key, name)).map(|evidence| evidence.name());
        // A move whose server was left out under way, because its stop failed, rests on evidence like the loss of one.
        let gone = assignment
            .previous
            .as_ref()
            .is_some_and(|from| self.durable.view.as_ref().is_some_and(|view| !view.members.contains_key(from)));
        let proven = evidence.filter(|name| gone && *name != Evidence::Clean.name());
        let leaves = assignment.previous.as_ref().is_some_and(|from| self.leaves(from));
        let command = assignment.previous.as_ref().and_then(|from| self.command_about(name, from));
        let command = command.filter(|_| matches!(assignment.reason, Reason::Recovery | Reason::Move));
        let restarted = known.and_then(|known| known.restarted.as_ref());
        let asked = assignment.restarted.as_ref().filter(|by| restarted != Some(*by));
        let failed = self.holders(name).any(|(_, report)| report.failure.is_some());
        let history = self.coordinator.history.entry(name.clone()).or_default();
        if assignment.server.is_some() {
            history.starting = Some(now);
            if let Some(open) = history.transitions.last_mut().filter(|t| t.took.is_none() && t.to == assignment.server)
            {
                open.tag = assignment.tag;
                let at = now.since(open.began);
                let from = open.from.as_ref().map(|server| server.0.clone()).unwrap_or_default();
                open.chart.push(Step { step: format!("stop on {from}"), at: Duration::ZERO, took: at });
                history.failed = false;
                return;
            }
        }
        let lost = resolution.filter(|resolution| {
            assignment.reason == Reason::Failover
                && assignment.previous.as_ref().is_some_and(|from| resolution.lost.contains(from))
        });
        let mut chart = Vec::new();
        let mut began = now;
        if let Some(lost) = &lost {
            let wait = now.since(lost.at);
            began = lost.at - lost.resolution - lost.detection;
            chart.push(Step { step: "Detect".into(), at: Duration::ZERO, took: lost.detection });
            chart.push(Step { step: "Resolve".into(), at: lost.detection, took: lost.resolution });
            chart.push(Step { step: "Wait".into(), at: lost.detection + lost.resolution, took: wait });
        }
        history.last_id += 1;
        // Also a start after it had failed everywhere, and that was forgotten.
        if assignment.reason == Reason::Recovery || assignment.server.is_some() && history.failed {
            history.recoveries.push_back(began);
            let surplus = history.recoveries.len().saturating_sub(COUNTED);
            history.recoveries.drain(..surplus);
        }
        history.failed = failed && assignment.server.is_none();
        let cause = match assignment.reason {
            Reason::Failover => "ServerLost",
            Reason::Recovery | Reason::Move if command.is_some() => "Operation",
            Reason::Recovery => "ResourceFailed",
            Reason::Move if leaves => "ServerLeft",
            Reason::Move => "Operation",
            Reason::Failback => "Failback",
            Reason::Start | Reason::Stop if asked.is_some() => "Operation",
            Reason::Start | Reason::Stop => "Declared",
        };
        let message = lost.as_ref().map_or_else(
            || command.or(asked.map(|by| format!("restart by {by}"))).unwrap_or_default(),
            |lost| {
                let paths: Vec<&str> = lost.paths.iter().map(|path| path.0.as_str()).collect();
                let from = assignment.previous.as_ref().map(|server| server.0.clone()).unwrap_or_default();
                format!("{from} silent on {} for {} ms", paths.join(", "), lost.detection.as_millis())
            },
        );
        history.transitions.push(Transition {
            id: history.last_id,
            reason: assignment.reason,
            from: assignment.previous.clone(),
            to: assignment.server.clone().or_else(|| assignment.next.clone()),
            cause,
            evidence: lost.as_ref().and(evidence).or(proven),
            tag: assignment.tag,
            began,
            took: None,
            chart,
            message,
        });
        let surplus = history.transitions.len().saturating_sub(KEPT);
        history.transitions.drain(..surplus);
    }

    /// Ends the transitions whose group has arrived, with the steps that the server reported.
    pub(crate) fn follow_transitions(&mut self) {
        let now = self.now;
        for (name, history) in &mut self.coordinator.history {
            let starting = history.starting;
            let Some(open) = history.transitions.last_mut().filter(|t| t.took.is_none()) else { continue };
            let place = open.to.as_ref().or(open.from.as_ref());
            let report = place.and_then(|server| self.coordinator.reports.get(server)).and_then(|r| r.groups.get(name));
            let Some(report) = report.filter(|report| report.tag >= open.tag) else { continue };
            let arrived = match (&open.to, report.phase) {
                (Some(_), GroupPhase::Online | GroupPhase::Failed) => starting.is_some(),
                (Some(_), GroupPhase::Offline) => report.failure.is_some() && starting.is_some(),
                (None, GroupPhase::Offline) => true,
                _ => false,
            };
            if !arrived {
                continue;
            }
            let offset = starting.map_or(Duration::ZERO, |at| at.since(open.began));
            let steps = report.steps.iter().map(|step| Step { at: offset + step.at, ..step.clone() });
            if open.to.is_some() {
                open.chart.extend(steps);
            }
            open.took = Some(now.since(open.began));
            if report.phase != GroupPhase::Online && open.to.is_some() {
                open.message = report.message.clone();
            }
            history.starting = None;
        }
    }
}
