//! The groups that this server holds: taking assignments (R14), driving their machines, reporting to the coordinator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::coordinator::MemberReport;
use crate::core::Core;
use crate::fitness::limits;
use crate::group::Machine;
use crate::input::Outcome;
use crate::inspecting::Inspection;
use crate::message::{Assignment, Message, Reason};
use crate::monitors::DueCheck;
use crate::names::{GroupName, MonitorName, ResourceName};
use crate::output::{Action, Context, OpId, Output};
use crate::planted::planted;
use crate::relapse::Relapse;
use crate::status::{Failure, GroupPhase, GroupReport, ResourceReport, ServerReport};
use crate::time::Instant;
use crate::view::{Epoch, Tag};

/// Content of a report: groups, the server itself, table, highest tag.
type Said = (BTreeMap<GroupName, Arc<GroupReport>>, ServerReport, BTreeMap<GroupName, Assignment>, Tag);

/// Reporting to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Reporter {
    number: u64,
    last: Option<Said>,
    sent: Instant,
}

impl Reporter {
    pub(crate) fn new_epoch(&mut self) {
        self.last = None;
        self.sent = Instant::ZERO;
    }
}

impl Core {
    pub(crate) fn resource_op(
        &mut self,
        group: &GroupName,
        resource: &ResourceName,
        generation: u64,
        (action, depth): (Action, u8),
        context: Context,
        timeout: Duration,
    ) -> OpId {
        self.next_op += 1;
        let op = self.next_op;
        self.ops.insert(op, (group.clone(), resource.clone()));
        let (group, resource) = (group.clone(), resource.clone());
        self.emit_now(Output::Resource { op, group, resource, generation, action, depth, context, timeout });
        op
    }

    fn check_op(&mut self, group: &GroupName, due: DueCheck, generation: u64) -> OpId {
        self.next_op += 1;
        let op = self.next_op;
        let DueCheck { monitor, timeout, since } = due;
        self.checks.insert(op, (group.clone(), monitor.clone()));
        self.emit_now(Output::Check { op, group: Some(group.clone()), monitor, generation, timeout, since });
        op
    }

    /// The executor's answer to a check.
    fn check_done(&mut self, group: &GroupName, monitor: &MonitorName, op: OpId, outcome: Outcome) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(group) else { return };
        if let Some(message) = machine.checked(now, monitor, op, outcome) {
            self.note("MonitorFailed", Some(group.clone()), true, message);
        }
    }

    /// A resource's own check found what was known before. Nothing follows but its next check.
    pub(crate) fn still_runs(&mut self, op: OpId, outcome: &Outcome) -> bool {
        let Some((group, resource)) = self.ops.get(&op).filter(|_| *outcome == Outcome::Running) else { return false };
        let machine = self.machines.get_mut(group);
        let Some(next) = machine.and_then(|machine| machine.still_runs(self.now, resource, op)) else { return false };
        self.ops.remove(&op);
        self.wake(next);
        true
    }

    /// The executor's answer.
    pub(crate) fn resource_done(&mut self, op: OpId, outcome: Outcome, took: Duration) {
        let Some(outcome) = self.watch_done(op, outcome) else { return };
        if let Some((group, monitor)) = self.checks.remove(&op) {
            return self.check_done(&group, &monitor, op, outcome);
        }
        let Some((group, resource)) = self.ops.remove(&op) else { return };
        if self.inspected(&group, op, &outcome) {
            return;
        }
        let (now, name) = (self.now, resource.clone());
        let Some(machine) = self.machines.get_mut(&group) else { return };
        let before = machine.phase();
        machine.done(now, &resource, op, outcome, took);
        if machine.was_restarted(&resource) {
            self.note("ResourceRestarted", Some(group.clone()), false, format!("{resource} was restarted here"));
        }
        self.noted_phase(&group, &name, before);
    }

    /// A started resource failed by itself.
    pub(crate) fn resource_failed(&mut self, group: &GroupName, resource: &ResourceName, message: String) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(group) else { return };
        let before = machine.phase();
        machine.exited(now, resource, message.clone());
        self.note("ResourceFailed", Some(group.clone()), true, format!("{resource}: {message}"));
        self.noted_phase(group, resource, before);
    }

    fn noted_phase(&mut self, group: &GroupName, resource: &ResourceName, before: GroupPhase) {
        let Some(machine) = self.machines.get(group) else { return };
        let after = machine.phase();
        if before == after {
            return;
        }
        let report = machine.report(0);
        let said = report.resources.get(resource).map(|state| state.message.clone()).unwrap_or_default();
        match (before, after) {
            (_, GroupPhase::Online) => self.note("GroupStarted", Some(group.clone()), false, "online".into()),
            (_, GroupPhase::Failed) => self.note("ResourceFailed", Some(group.clone()), true, report.message),
            (_, GroupPhase::Stuck) => {
                self.note(
                    "StopFailed",
                    Some(group.clone()),
                    true,
                    format!("the stop of {resource} is not proven: {said}"),
                );
            }
            _ => {}
        }
    }

    /// R14: takes the coordinator's table; returns whether anything was new.
    pub(crate) fn take_table(&mut self, order: (u32, Epoch), table: &BTreeMap<GroupName, Assignment>) {
        let Some(view) = self.durable.view.clone() else { return };
        let older = order != view.order() && !planted!(OldEpochTaken);
        if older || self.stable_order() != Some(view.order()) {
            return;
        }
        let mut changed = false;
        let mut news: Vec<(GroupName, Assignment)> = Vec::new();
        let mut forgotten = Vec::new();
        for (name, assignment) in table {
            let known = self.durable.table.get(name);
            let newer = known.is_none_or(|known| assignment.tag > known.tag);
            let cleared = known.and_then(|known| known.cleared.as_ref()).map(|cleared| cleared.tag);
            forgotten.extend(
                assignment
                    .cleared
                    .as_ref()
                    .filter(|new| newer && cleared < Some(new.tag))
                    .map(|new| (name.clone(), new.clear.clone())),
            );
            // Entries of older epochs are history; only this epoch's say what to do.
            if newer {
                changed = true;
                self.durable.table.insert(name.clone(), assignment.clone());
                self.heard_of(name, assignment.tag);
                self.durable.highest = self.durable.highest.max(assignment.tag);
                if (assignment.tag.lineage, assignment.tag.epoch) == order || planted!(OldEpochTaken) {
                    news.push((name.clone(), assignment.clone()));
                }
            }
        }
        if !changed {
            return;
        }
        let (now, acting) = (self.now, self.takes_on());
        for (name, assignment) in &news {
            let here = self.is_for_us(name, assignment);
            if here && acting && !self.machines.contains_key(name) {
                self.durable.held.insert(name.clone(), assignment.clone());
            }
        }
        let gate = self.persist();
        for (name, clear) in forgotten {
            self.clear_failures_of(&name, &clear);
        }
        for (name, assignment) in news {
            let here = self.is_for_us(&name, &assignment);
            match (here && acting, self.machines.get_mut(&name)) {
                (true, None) => self.start_group(name, assignment, gate),
                (true, Some(_)) => {} // still stopping: the coordinator sees our report and says it again
                (false, Some(machine)) => {
                    machine.assignment.tag = assignment.tag;
                    machine.assignment.reason = assignment.reason;
                    machine.try_stops_now(now);
                    machine.stop(&format!("stopped by the coordinator ({})", assignment.reason.name()));
                }
                (false, None) => {
                    // Nothing runs here: the report says so under the new tag.
                }
            }
        }
    }

    /// Whether this server carries out what is newly assigned to it. Whoever has said that it leaves takes nothing more: the
    /// others may already count on that (R20). Nor does a server that has accepted a view without itself: its answer said
    /// that it holds nothing (R3).
    pub(crate) fn takes_on(&self) -> bool {
        let expelled = self.accepted_own_end() && !planted!(StartsAfterOwnEnd);
        let detached = self.durable.view.as_ref().is_some_and(|view| view.detached.contains_key(&self.boot.server));
        self.acting() && !self.leaving && !expelled && !detached
    }

    /// An assignment to this server, of the specification that it holds. With a newer one in hand it waits to be told
    /// again: nobody else may hold that yet (R16).
    pub(crate) fn is_for_us(&self, name: &GroupName, assignment: &Assignment) -> bool {
        let held = self.groups.get(name).map(|config| config.generation);
        let same = held.is_none_or(|held| held == assignment.generation) || planted!(StartsOtherSpec);
        assignment.server.as_ref() == Some(&self.boot.server) && same
    }

    fn start_group(&mut self, name: GroupName, assignment: Assignment, gate: u64) {
        let Some(config) = self.groups.get(&name).cloned() else {
            // Without the specification nothing can run; the coordinator sees that we do not hold it.
            self.durable.held.remove(&name);
            return;
        };
        self.failures.remove(&name);
        let from = assignment.previous.as_ref().map(|server| format!(" from {server}")).unwrap_or_default();
        let message = format!("starting here{from}, {}", tag_text(assignment.tag));
        match assignment.reason {
            Reason::Failover => self.note("GroupFailedOver", Some(name.clone()), true, message),
            Reason::Move | Reason::Failback | Reason::Recovery => {
                self.note("GroupMoved", Some(name.clone()), false, message)
            }
            Reason::Start | Reason::Stop => {}
        }
        self.machines.insert(name, Machine::new(self.now, assignment, config, gate, false).into());
    }

    /// Everything that this server holds is to be stopped.
    pub(crate) fn stop_everything(&mut self, why: &str) {
        for machine in self.machines.values_mut() {
            machine.stop(why);
        }
    }

    /// What no specification here names, which the coordinator does not decide about, is to be stopped.
    pub(crate) fn stop_unknown(&mut self, why: &str) {
        let known = &self.groups;
        for (_, machine) in self.machines.iter_mut().filter(|(name, _)| !known.contains_key(*name)) {
            machine.stop(why);
        }
    }

    /// Lets every machine act, as far as ledger and lease allow.
    pub(crate) fn drive_machines(&mut self) {
        if !self.leased() && self.machines.values().any(|machine| machine.is_wanted()) && self.lost_lease() {
            self.note("LeaseLost", None, true, "authority is about to end: stopping everything".into());
            self.stop_everything("this server lost its lease");
        }
        self.drive_pauses();
        self.drive_part_restarts();
        let (now, leased, durable) = (self.now, self.leased(), self.durable_token());
        let names: Vec<GroupName> = self.machines.keys().cloned().collect();
        for name in names {
            let mut wake = Vec::new();
            let Some(machine) = self.machines.get_mut(&name) else { continue };
            if machine.gate > durable {
                continue;
            }
            let (requests, checks) = machine.due(now, leased, &mut wake);
            let generation = machine.config.generation;
            let assignment = machine.assignment.clone();
            for request in requests {
                let reason = if request.action == Action::Stop { Reason::Stop } else { assignment.reason };
                let context = Context { reason, previous: assignment.previous.clone(), tag: assignment.tag };
                let what = (request.action, request.depth);
                let op = self.resource_op(&name, &request.resource, generation, what, context, request.timeout);
                if let Some(machine) = self.machines.get_mut(&name) {
                    machine.begun(now, &request, op);
                }
            }
            for due in checks {
                let monitor = due.monitor.clone();
                let op = self.check_op(&name, due, generation);
                if let Some(machine) = self.machines.get_mut(&name) {
                    machine.check_begun(&monitor, op);
                }
            }
            for at in wake {
                self.wake(at);
            }
            if self.machines.get(&name).is_some_and(|machine| machine.is_gone()) {
                self.release(&name);
            }
        }
        self.inspect_again();
        self.forget_failures();
    }

    /// The soft stop has come, or this server may not act at all.
    pub(crate) fn lost_lease(&self) -> bool {
        let member = self.durable.view.as_ref().is_some_and(|view| view.admits(&self.boot.server, self.boot.boot));
        let (soft, _, _) = self.deadlines();
        !member || self.now >= soft
    }

    /// Verified stopped.
    fn release(&mut self, name: &GroupName) {
        let Some(machine) = self.machines.remove(name) else { return };
        if let Some(failure) = machine.failure() {
            let decay = self.groups.get(name).and_then(|group| limits(group)).map(|limits| limits.decay);
            let decay = decay.unwrap_or(Duration::from_secs(3600));
            let generation = machine.config.generation;
            let relapse = Relapse::after(self.relapses.get(name), self.now, generation, decay);
            let mut failure = failure.clone();
            if let Some(words) = relapse.words() {
                failure.message = format!("{}; {words}", failure.message);
            }
            self.relapses.insert(name.clone(), relapse);
            self.failures.insert(name.clone(), failure);
        }
        self.durable.held.remove(name);
        self.inspections.insert(name.clone(), Inspection::of_nothing());
        let token = self.persist();
        if !planted!(ReleasedTooSoon) {
            self.releasing.insert(name.clone(), (token, machine.assignment.tag));
        }
        self.emit_now(Output::Released { group: name.clone() });
        self.note("GroupStopped", Some(name.clone()), false, "verified stopped".into());
        self.beat_soon();
    }

    /// The cause of a group's last failure here is gone, so the failure speaks no longer against this server. Failures
    /// are kept of groups only that are verified stopped here, so this touches nothing that runs; where the group goes is
    /// the coordinator's decision as ever.
    pub(crate) fn mended(&mut self, name: &GroupName) {
        self.relapses.remove(name);
        if self.failures.remove(name).is_some() {
            self.note("FailureMended", Some(name.clone()), false, "what it lacked here is there now".into());
            self.beat_soon();
        }
    }

    fn forget_failures(&mut self) {
        let (now, relapses) = (self.now, &mut self.relapses);
        self.failures.retain(|name, _| relapses.get(name).is_some_and(|relapse| relapse.is_remembered(now)));
        relapses.retain(|_, relapse| relapse.counts(now));
    }

    /// What this server says about its groups.
    pub(crate) fn own_reports(&self) -> BTreeMap<GroupName, Arc<GroupReport>> {
        let known = |name: &GroupName| self.groups.get(name).map_or(0, |config| config.generation);
        let mut reports: BTreeMap<GroupName, Arc<GroupReport>> =
            self.machines.iter().map(|(name, machine)| (name.clone(), machine.kept_report(known(name)))).collect();
        for (name, assignment) in self.durable.held.iter().filter(|(name, _)| !self.machines.contains_key(*name)) {
            // Held, but without its specification nothing can be probed or stopped: it counts as running.
            let report = GroupReport {
                tag: assignment.tag,
                generation: assignment.generation,
                known: 0,
                digest: 0,
                phase: GroupPhase::Stuck,
                resources: BTreeMap::new(),
                monitors: BTreeMap::new(),
                failure: None,
                paused: false,
                part_restarted: None,
                looked: None,
                steps: Vec::new(),
                message: "this server may hold it, but has lost its specification".into(),
            };
            reports.insert(name.clone(), Arc::new(report));
        }
        for (name, inspection) in &self.inspections {
            let Some(config) = self.groups.get(name) else { continue };
            if reports.contains_key(name) || !inspection.done {
                continue;
            }
            // The tag up to which everything that was said about the group is carried out here.
            let tag = self.durable.table.get(name).map(|assignment| assignment.tag).unwrap_or_default();
            let stuck =
                |message: &String| ResourceReport { phase: GroupPhase::Stuck, restarts: 0, message: message.clone() };
            let failure: Option<Failure> = self.failures.get(name).cloned();
            let report = GroupReport {
                tag,
                generation: config.generation,
                known: config.generation,
                digest: config.digest,
                phase: if inspection.found.is_empty() { GroupPhase::Offline } else { GroupPhase::Stuck },
                resources: inspection.found.iter().map(|(name, message)| (name.clone(), stuck(message))).collect(),
                monitors: BTreeMap::new(),
                failure,
                paused: false,
                part_restarted: None,
                looked: inspection.looked(&self.boot.server),
                steps: Vec::new(),
                message: String::new(),
            };
            reports.insert(name.clone(), Arc::new(report));
        }
        reports
    }

    /// Repeats the report until the coordinator has it; the coordinator hears itself at once.
    pub(crate) fn send_report(&mut self) {
        let Some(config) = self.config.clone() else { return };
        if !self.acting() {
            return;
        }
        let Some(view) = self.durable.view.clone() else { return };
        let Some(coordinator) = view.coordinator().cloned() else { return };
        let (groups, server) = (self.own_reports(), self.server_report());
        let (table, highest) = (&self.durable.table, self.durable.highest);
        let said = self.reporter.last.as_ref();
        if said.is_none_or(|said| (&said.0, &said.1, &said.2, said.3) != (&groups, &server, table, highest)) {
            self.reporter.number = self.now.0.max(self.reporter.number + 1);
            self.reporter.last = Some((groups.clone(), server.clone(), table.clone(), highest));
            self.reporter.sent = Instant::ZERO;
        }
        let (number, order) = (self.reporter.number, view.order());
        if coordinator == self.boot.server {
            if self.coordinator.reports.get(&coordinator).is_some_and(|known| known.number == number) {
                return;
            }
            let (capacity, table) = (self.boot.capacity, table.clone());
            let report = MemberReport { number, highest, capacity, groups, server };
            return self.on_report(coordinator, order, report, table);
        }
        let frame = self.peers.get(&coordinator).and_then(|peer| peer.frame.as_ref());
        let frame = frame.filter(|frame| (frame.lineage, frame.epoch) == order);
        if frame.and_then(|frame| frame.reports.get(&self.boot.server)).is_some_and(|known| *known >= number) {
            return;
        }
        if self.reporter.sent != Instant::ZERO && self.now.since(self.reporter.sent) < config.interval {
            let at = self.reporter.sent + config.interval;
            return self.wake(at);
        }
        self.reporter.sent = self.now;
        self.emit(Output::Send {
            to: coordinator,
            message: Box::new(Message::Report {
                order,
                number,
                highest,
                capacity: self.boot.capacity,
                table: self.durable.table.clone(),
                groups: groups.into_iter().map(|(name, report)| (name, Arc::unwrap_or_clone(report))).collect(),
                server,
            }),
        });
    }

    /// Groups that this server may hold, with their tags: what frames say. One that was stopped is in it until the ledger
    /// says so: a new process would go on with it (found by the simulator, seed 7374).
    pub(crate) fn held_tags(&self) -> BTreeMap<GroupName, Tag> {
        let releasing = self.releasing.iter().map(|(name, (_, tag))| (name.clone(), *tag));
        let held = self.durable.held.iter().map(|(name, assignment)| (name.clone(), assignment.tag));
        let machines = self.machines.iter().map(|(name, machine)| (name.clone(), machine.assignment.tag));
        let mut tags: BTreeMap<GroupName, Tag> = releasing.chain(held).collect();
        tags.extend(machines);
        tags
    }

    /// Names of all groups that this server knows.
    pub(crate) fn known_groups(&self) -> BTreeSet<GroupName> {
        self.groups.keys().chain(self.durable.table.keys()).chain(self.machines.keys()).cloned().collect()
    }
}

/// A tag for people.
pub(crate) fn tag_text(tag: Tag) -> String {
    format!("epoch {}, revision {}", tag.epoch, tag.revision)
}
