//! R13–R15: the lowest-named member says which server runs which group.
//!
//! It says nothing before every member of its view has told what it runs; what a departed server may hold is Unknown
//! until evidence covers it; and what it says carries a tag that only grows. *Where* a group should run is the
//! planner's word; here it is turned into assignments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_planner as planner;
use holdfast_planner::{Action, Amount, Current, Decision, Phase, Rule};

use crate::clearing::{Clear, Cleared};
use crate::commands::is_program;
use crate::config::{Config, GroupConfig, MonitorAction, Recovery, Then};
use crate::core::Core;
use crate::declined::Declined;
use crate::fitness::{Judgement, limits};
use crate::frame::{Frame, Intent};
use crate::holding::Holding;
use crate::message::{Assignment, Message, Reason};
use crate::names::{GroupName, ServerName};
use crate::output::Output;
use crate::planted::planted;
use crate::restarting::in_place;
use crate::status::{Failure, GroupPhase, GroupReport, Part, PlacedGroup, ServerReport};
use crate::time::Instant;
use crate::transition::History;
use crate::view::{DepartedKey, Epoch, Tag, View};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MemberReport {
    pub(crate) number: u64,
    pub(crate) highest: Tag,
    pub(crate) capacity: Option<Amount>,
    pub(crate) groups: BTreeMap<GroupName, Arc<GroupReport>>,
    pub(crate) server: ServerReport,
}

/// What the coordinator of this epoch knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Coordinator {
    pub(crate) reports: BTreeMap<ServerName, MemberReport>,
    pub(crate) decisions: BTreeMap<GroupName, Decision>,
    pub(crate) history: BTreeMap<GroupName, History>,
    /// What monitors say of the servers.
    pub(crate) judgement: Judgement,
    /// The server that is to shut down.
    pub(crate) down: Option<ServerName>,
    /// What commands asked and do not get.
    pub(crate) declined: BTreeMap<(ServerName, Option<GroupName>), Declined>,
    /// What is being forgotten by the assignments that are being made.
    pub(crate) clearing: BTreeMap<GroupName, Clear>,
    sent: BTreeMap<ServerName, (Tag, Instant)>,
    /// Since when servers are there, without a break, for groups that go back to them after a delay. A new coordinator
    /// counts anew.
    pub(crate) there: BTreeMap<ServerName, Instant>,
}

impl Coordinator {
    /// Nothing is carried over but the history that people read, and since when servers are there.
    pub(crate) fn new_epoch(&mut self) {
        self.reports.clear();
        self.decisions.clear();
        self.judgement = Judgement::default();
        self.down = None;
        self.declined.clear();
        self.clearing.clear();
        self.sent.clear();
    }
}

impl Core {
    /// This server is the coordinator of the newest view.
    pub(crate) fn coordinates(&self) -> bool {
        self.acting() && self.durable.view.as_ref().is_some_and(|view| view.coordinator() == Some(&self.boot.server))
    }

    /// Every member has reported in this epoch.
    pub(crate) fn everybody_reported(&self) -> bool {
        let Some(view) = &self.durable.view else { return false };
        view.members.keys().all(|name| self.coordinator.reports.contains_key(name)) || planted!(ReportsNotAwaited)
    }

    /// A member's report.
    pub(crate) fn on_report(
        &mut self,
        from: ServerName,
        order: (u32, Epoch),
        report: MemberReport,
        table: BTreeMap<GroupName, Assignment>,
    ) {
        let view = self.durable.view.as_ref();
        if !self.coordinates() || !view.is_some_and(|view| view.order() == order && view.members.contains_key(&from)) {
            return;
        }
        let known = self.coordinator.reports.get(&from).map(|report| report.number);
        if known.is_none_or(|known| report.number >= known) {
            let highest = report.highest;
            self.coordinator.reports.insert(from.clone(), report);
            self.take_table(order, &table); // history of older epochs that we missed
            self.durable.highest = self.durable.highest.max(highest);
        }
        if from != self.boot.server {
            self.beat_soon(); // the frame says that we have it
        }
    }

    /// Plans, and says what is new.
    pub(crate) fn drive_coordinator(&mut self) {
        if !self.coordinates() || !self.leased() || !self.everybody_reported() {
            return;
        }
        let (Some(view), Some(config)) = (self.durable.view.clone(), self.config.clone()) else { return };
        if self.awaits_shut_down(&view) {
            return;
        }
        self.coordinator.clearing = self.clears_to_grant(&view);
        let holds: BTreeMap<GroupName, Holding> =
            self.groups.iter().map(|(name, group)| (name.clone(), self.holding(&view, name, group))).collect();
        self.watch_losses(&view, &config);
        self.count_presence(&view, &config);
        self.judge_servers(&view, &config);
        let mut input = self.planner_input(&view, &config, &holds);
        let mut plan = planner::plan(&input);
        // Ends: each round has fewer objections.
        while self.relents(&plan) {
            input = self.planner_input(&view, &config, &holds);
            plan = planner::plan(&input);
        }
        // With each, whether it says anything new to its servers.
        let mut news: BTreeMap<GroupName, (Assignment, bool)> = BTreeMap::new();
        for (name, decision) in &plan.decisions {
            let name = GroupName(name.clone());
            let Some(group) = self.groups.get(&name).cloned() else { continue };
            let current = input.groups.get(&name.0).map(|group| &group.current);
            let held = holds.get(&name).cloned().unwrap_or_default();
            let said = self.assignment(&name, &group, decision, current, held.clone());
            let changes = said.is_some();
            let said = said.or_else(|| self.part_restart(&name, &group, decision, current));
            let said = said.or_else(|| {
                let known = self.durable.table.get(&name);
                let again = self.coordinator.clearing.contains_key(&name) || held.is_news(known);
                self.renewal(&view, known, current, self.blank(known, &group, held)).filter(|_| again)
            });
            if let Some(assignment) = said {
                news.insert(name, (assignment, changes));
            }
        }
        self.coordinator.decisions =
            plan.decisions.into_iter().map(|(name, decision)| (GroupName(name), decision)).collect();
        if !news.is_empty() {
            let first = if planted!(RevisionRestarts) { 1 } else { self.durable.highest.revision + 1 };
            for (revision, (name, (assignment, changes))) in (first..).zip(&mut news) {
                let tag = Tag { lineage: view.lineage, epoch: view.epoch, revision };
                assignment.tag = tag;
                assignment.moves = self.moves_with(name, &config.brakes, assignment);
                if let Some(clear) = self.coordinator.clearing.remove(name) {
                    assignment.cleared = Some(Cleared { tag, clear });
                }
                if let (Some(group), Some(decision)) = (self.groups.get(name), self.coordinator.decisions.get(name)) {
                    assignment.operation = self.behind(name, group, decision, assignment);
                }
                if *changes {
                    self.begin_transition(name, assignment);
                }
                self.note_holds(name, assignment);
            }
            let news = news.into_iter().map(|(name, (assignment, _))| (name, assignment)).collect();
            self.take_table(view.order(), &news);
        }
        self.follow_transitions();
        self.decline_wishes(&view, &config);
        self.say(&view, &config);
    }

    /// Repeats the table to every member that has not reported its newest tag, and to servers that are to know it before they
    /// may join.
    fn say(&mut self, view: &View, config: &Config) {
        let newest = self.durable.highest;
        let behind: Vec<ServerName> = view
            .members
            .keys()
            .filter(|name| **name != self.boot.server)
            .filter(|name| self.coordinator.reports.get(*name).is_none_or(|report| report.highest < newest))
            .chain(self.joiners(view))
            .cloned()
            .collect();
        for to in behind {
            let due = match self.coordinator.sent.get(&to) {
                Some((tag, at)) if *tag == newest => *at + config.interval,
                _ => self.now,
            };
            if self.now < due {
                self.wake(due);
                continue;
            }
            self.coordinator.sent.insert(to.clone(), (newest, self.now));
            let message = Message::Assign { order: view.order(), table: self.durable.table.clone() };
            self.emit(Output::Send { to, message: Box::new(message) });
            self.wake(self.now + config.interval);
        }
    }

    /// Servers that want to join and have not heard of everything yet.
    fn joiners<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a ServerName> {
        let joins = |frame: &Frame| {
            frame.intent == Intent::Join && (frame.lineage, frame.epoch) == view.order() && self.table_behind(frame)
        };
        let others = self.peers.keys().filter(|name| !view.members.contains_key(*name));
        others.filter(move |name| self.present(name).is_some_and(joins))
    }

    /// The controller's target, if it was computed from what is (R15).
    pub(crate) fn valid_target<'a>(
        &self,
        name: &GroupName,
        group: &'a GroupConfig,
    ) -> Option<&'a crate::config::Target> {
        let placed = self.durable.table.get(name).map_or((0, 0), |a| (a.tag.epoch, a.tag.revision));
        group.target.as_ref().filter(|target| target.computed_from == placed || planted!(StaleTarget))
    }

    /// Members that say they hold something of a group.
    pub(crate) fn holders<'a>(
        &'a self,
        name: &'a GroupName,
    ) -> impl Iterator<Item = (&'a ServerName, &'a Arc<GroupReport>)> {
        self.coordinator.reports.iter().filter_map(move |(server, report)| {
            report.groups.get(name).filter(|group| group.phase != GroupPhase::Offline).map(|group| (server, group))
        })
    }

    /// Departed servers that may still hold a group: they were allowed to run it (or told to, or told to stop it and
    /// never said that they had), and nothing covers that (R13, protocol-why D8).
    fn doubtful(&self, view: &View, name: &GroupName, group: &GroupConfig) -> BTreeSet<ServerName> {
        let told = self.durable.table.get(name).and_then(|known| known.server.as_ref().or(known.previous.as_ref()));
        let may_hold = |key: &&DepartedKey| group.policy.contains(&key.0) || told == Some(&key.0);
        view.departed
            .keys()
            .filter(may_hold)
            .filter(|key| self.covers(key, name).is_none())
            .map(|key| key.0.clone())
            .collect()
    }

    /// Where a group is, as far as reports, assignments and evidence tell.
    pub(crate) fn current(&self, view: &View, name: &GroupName, group: &GroupConfig) -> Current {
        let holders: Vec<(&ServerName, &Arc<GroupReport>)> = self.holders(name).collect();
        let assignment = self.durable.table.get(name);
        let this_epoch =
            assignment.is_some_and(|assignment| (assignment.tag.lineage, assignment.tag.epoch) == view.order());
        match holders.as_slice() {
            [] => {
                let pending = assignment.filter(|_| this_epoch).and_then(|assignment| {
                    let server = assignment.server.as_ref()?;
                    let report = self.coordinator.reports.get(server)?.groups.get(name);
                    report.is_none_or(|report| report.tag < assignment.tag).then(|| server.clone())
                });
                if let Some(server) = pending {
                    return Current::On { server: server.0, phase: Phase::Starting };
                }
                // A start that was taken back: who was told may have begun with it, until it says that it has heard.
                let leaving =
                    assignment.filter(|_| this_epoch && !planted!(UnheardHasStopped)).and_then(|assignment| {
                        let from = assignment.previous.as_ref().filter(|_| assignment.server.is_none())?;
                        let report = self.coordinator.reports.get(from)?;
                        let heard = report.groups.get(name).map_or(report.highest, |group| group.tag);
                        (heard < assignment.tag).then(|| from.clone())
                    });
                if let Some(server) = leaving {
                    return Current::On { server: server.0, phase: Phase::Stopping };
                }
                let servers = self.doubtful(view, name, group);
                if servers.is_empty() || planted!(UnknownIsOffline) {
                    Current::Offline
                } else {
                    Current::Unknown { servers: servers.into_iter().map(|server| server.0).collect() }
                }
            }
            [(server, report)] => {
                let stopping = this_epoch && assignment.is_some_and(|a| a.server.is_none() && a.tag > report.tag);
                if stopping && planted!(MoveWithoutStop) {
                    return Current::Offline;
                }
                let recovery = report.failure.as_ref().and_then(|failure| recovery_of(group, failure));
                let only_reported = recovery.is_some_and(|recovery| recovery.then == Then::Report);
                let phase = match report.phase {
                    _ if stopping => Phase::Stopping,
                    GroupPhase::Stuck => Phase::Stuck,
                    GroupPhase::Stopping => Phase::Stopping,
                    // Nothing was counted against it: it was found so in a pause, and is started again there.
                    GroupPhase::Failed if report.failure.is_none() => Phase::Starting,
                    GroupPhase::Failed if !only_reported => Phase::Failed,
                    GroupPhase::Starting => Phase::Starting,
                    _ => Phase::Online,
                };
                Current::On { server: server.0.clone(), phase }
            }
            several => Current::Conflict { servers: several.iter().map(|(server, _)| server.0.clone()).collect() },
        }
    }

    /// This server or a peer that has said that it leaves.
    pub(crate) fn leaves(&self, name: &ServerName) -> bool {
        let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
        frame.is_some_and(|frame| frame.intent != Intent::Join) || *name == self.boot.server && self.leaving
    }

    /// Every member that may run it has looked at it and holds the specification that this server holds, durably. While
    /// one of them holds a newer one nothing starts: it may have been acted on (R16, protocol-why D12).
    pub(crate) fn known_everywhere(&self, group: &GroupConfig, name: &GroupName) -> bool {
        self.coordinator
            .reports
            .iter()
            .filter(|(server, _)| group.policy.contains(server))
            .all(|(_, report)| report.groups.get(name).is_some_and(|report| report.known == group.generation))
    }

    /// That a group runs nowhere. The tag is filled in later.
    fn blank(&self, known: Option<&Assignment>, group: &GroupConfig, held: Holding) -> Assignment {
        Assignment {
            tag: Tag::default(),
            server: None,
            // Never below a generation that was acted on, whoever acted (R16); a stop does not forget it.
            generation: group.generation.max(known.map_or(0, |known| known.generation)),
            reason: Reason::Stop,
            previous: known.and_then(|known| known.server.clone().or_else(|| known.previous.clone())),
            next: None,
            holds: held.holds,
            paused: held.paused,
            held_by: held.by,
            cleared: known.and_then(|known| known.cleared.clone()),
            restarted: known.and_then(|known| known.restarted.clone()),
            part_restarted: known.and_then(|known| known.part_restarted.clone()),
            operation: None,
            moves: Vec::new(),
        }
    }

    /// What to say anew about a group, if anything. The tag is filled in later.
    fn assignment(
        &self,
        name: &GroupName,
        group: &GroupConfig,
        decision: &Decision,
        current: Option<&Current>,
        held: Holding,
    ) -> Option<Assignment> {
        let known = self.durable.table.get(name);
        let acted = known.map_or(0, |known| known.generation);
        let blank = || self.blank(known, group, held.clone());
        match &decision.action {
            Action::Start { server } => {
                let regressed = acted > group.generation && !planted!(SpecRegresses);
                if regressed || !self.known_everywhere(group, name) && !planted!(SpecNotAwaited) {
                    return None;
                }
                let reason = self.start_reason(known);
                let (server, generation) = (Some(ServerName(server.clone())), group.generation);
                Some(Assignment { server, generation, reason, ..blank() })
            }
            Action::Stop { server, then } => {
                let reason = match decision.rule {
                    Rule::Requested => Reason::Move,
                    Rule::Failback => Reason::Failback,
                    Rule::Recovery if self.failing_there(name, server) => Reason::Recovery,
                    // Nothing failed: its server leaves, or another group has a reason.
                    Rule::Recovery => Reason::Move,
                    Rule::Relation if then.is_some() => Reason::Move,
                    _ => Reason::Stop,
                };
                let previous = Some(ServerName(server.clone()));
                Some(Assignment { reason, previous, next: then.clone().map(ServerName), ..blank() })
            }
            Action::Keep | Action::Wait => match current {
                // Nobody acts on what is paused.
                Some(Current::On { .. }) if held.paused.is_some() => None,
                Some(Current::On { server, phase: Phase::Online }) if self.needs_restart(name, group) => {
                    Some(in_place(server, blank()))
                }
                Some(Current::On { server, phase: Phase::Online }) if decision.rule == Rule::Stay => {
                    let by = self.restart_to_grant(name, group, server)?;
                    Some(Assignment { restarted: Some(by), ..in_place(server, blank()) })
                }
                Some(Current::Offline)
                    if known.map(|known| &known.holds) != Some(&held.holds)
                        && (known.is_some() || !held.holds.is_empty()) =>
                {
                    Some(blank())
                }
                _ => None,
            },
        }
    }

    /// A group failed where it is, or a monitor says that it is not to be there.
    fn failing_there(&self, name: &GroupName, server: &str) -> bool {
        self.holders(name).any(|(_, report)| report.failure.is_some()) || self.speaks_against(name).contains_key(server)
    }

    /// What runs differs from the specification in something that needs a restart, and that is wanted at once.
    fn needs_restart(&self, name: &GroupName, group: &GroupConfig) -> bool {
        let differs =
            self.holders(name).any(|(_, report)| report.digest != group.digest && report.generation < group.generation);
        group.restart_on_change && differs && self.known_everywhere(group, name)
    }

    fn start_reason(&self, known: Option<&Assignment>) -> Reason {
        let Some(known) = known else { return Reason::Start };
        let members = self.durable.view.as_ref().map(|view| &view.members);
        match (&known.server, known.reason) {
            (Some(server), _) if members.is_some_and(|members| !members.contains_key(server)) => Reason::Failover,
            (None, reason @ (Reason::Move | Reason::Failback | Reason::Recovery)) => reason,
            (Some(_), Reason::Failover | Reason::Recovery) => Reason::Recovery,
            _ => Reason::Start,
        }
    }

    /// Everything that the coordinator knows of its groups, for people.
    pub(crate) fn placed_groups(&self) -> BTreeMap<GroupName, PlacedGroup> {
        let Some(view) = &self.durable.view else { return BTreeMap::new() };
        let place = |name: &GroupName| {
            let group = self.groups.get(name)?;
            let current = self.current(view, name, group);
            let holder = self.holders(name).next();
            let failures = self.failures_of(name);
            let decision = self.coordinator.decisions.get(name).cloned();
            let no_server = decision.as_ref().is_some_and(|decision| decision.rule == Rule::NoServerLeft);
            let (phase, server) = match (&current, holder) {
                (Current::Unknown { .. } | Current::Conflict { .. }, _) => (GroupPhase::Unknown, None),
                (_, Some((server, report))) => (report.phase, Some(server.clone())),
                (Current::On { server, .. }, None) => (GroupPhase::Starting, Some(ServerName(server.clone()))),
                (Current::Offline, None) if no_server && !failures.is_empty() => (GroupPhase::Failed, None),
                (Current::Offline, None) => (GroupPhase::Offline, None),
            };
            let assignment = self.durable.table.get(name).cloned();
            Some(PlacedGroup {
                holds: assignment.as_ref().map(|assignment| self.counting_holds(assignment)).unwrap_or_default(),
                assignment,
                phase,
                server,
                report: holder.map(|(_, report)| report.clone()),
                everywhere: self.everywhere(name, group),
                failures,
                decision,
                transitions: self.coordinator.history.get(name).map(History::newest_first).unwrap_or_default(),
            })
        };
        self.known_groups().into_iter().filter_map(|name| Some((name.clone(), place(&name)?))).collect()
    }
}

/// What follows a failure, within which limits. None for what the newest specification does not have any more: it can't
/// fail again where the group starts next.
pub(crate) fn recovery_of(group: &GroupConfig, failure: &Failure) -> Option<Recovery> {
    match &failure.part {
        // The next server does not start it by itself, but a script of the group may.
        Part::Resource(name) if is_program(name) => {
            limits(group).map(|limits| Recovery { then: Then::Failover, ..limits.clone() })
        }
        Part::Resource(name) => group.resources.get(name).map(|resource| resource.recovery.clone()),
        Part::Monitor(name) => match &group.monitors.get(name)?.action {
            MonitorAction::Fail(recovery) => Some(recovery.clone()),
            MonitorAction::FailAll(recovery) | MonitorAction::ServerDown(recovery) => recovery.clone(),
            MonitorAction::Restart(_) | MonitorAction::Report => None,
        },
    }
}
