//! Monitors that run on every server, and what their failure means for the place of groups (rows C6, C24).
//!
//! Every member carries the checks out and reports what they say. What follows is the coordinator's to decide, because only
//! it knows of all servers whether they are better off:
//!
//! - Where a monitor with FailoverAll fails, no group runs that has a better server: a member that may run it, on which it
//!   has not failed, and on which no such monitor fails. So what is broken everywhere moves nothing, and the last good
//!   server keeps what it has.
//! - Where a group's own monitor with Failover fails, that group does not run; unless it fails wherever it is looked at.
//! - Each move counts as a recovery of the group: after `maxFailovers` within `failoverWindow` it stays where it is.
//! - Servers look one after the other, so a fault that all have is seen by one of them first. Nothing follows before the
//!   others have had the time for a check, and a server with a single failure is no better one.
//! - Where something fails whose action is ServerDown, the same holds, and that server hands its groups over, leaves the
//!   view and shuts down: one after the other, at the coordinator's word, and only if a server remains that nothing speaks
//!   against, and at least half of all servers. So no fault, and no wrong monitor, shuts a sub-cluster down.
//! - What a command asks (`commands.rs`) is judged likewise: `holdfast failover` for one group, `holdfast down` as ServerDown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_planner::{Plan, Rule};

use crate::config::{Config, GroupConfig, MonitorAction, MonitorConfig, Recovery, Then};
use crate::coordinator::recovery_of;
use crate::core::Core;
use crate::holding::paused_text;
use crate::input::Outcome;
use crate::monitors::{DueCheck, Monitors};
use crate::names::{GroupName, MonitorName, ServerName};
use crate::output::{OpId, Output};
use crate::planted::planted;
use crate::status::{GroupPhase, MonitorPhase, MonitorReport, Part, ServerReport};
use crate::time::Instant;
use crate::view::View;

/// Servers to be avoided, each with the reason.
pub(crate) type Avoided = BTreeMap<ServerName, String>;

/// A monitor of the servers or of a group, and a server on which it fails.
type Accusation = (Option<GroupName>, MonitorName, ServerName);

/// What the monitors that run everywhere say of the servers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Judgement {
    /// Since when the coordinator knows of each failing one.
    since: BTreeMap<Accusation, Instant>,
    /// Servers on which a group is not to run.
    pub(crate) avoided: BTreeMap<GroupName, Avoided>,
    /// Servers that a group leaves, or does not come to, only if there is a better one for it.
    pub(crate) worse: BTreeMap<GroupName, Avoided>,
}

/// The monitors that run on this server whatever it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Watch {
    servers: Watched,
    groups: BTreeMap<GroupName, Watched>,
    checks: BTreeMap<OpId, (Option<GroupName>, MonitorName)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Watched {
    /// Of the specification.
    generation: u64,
    monitors: Monitors,
}

impl Default for Watched {
    fn default() -> Watched {
        // What was counted before this process goes on.
        Watched { generation: 0, monitors: Monitors::new(true) }
    }
}

impl Watched {
    /// Another specification: what was counted was about the old one.
    fn follow(&mut self, generation: u64) {
        if self.generation != 0 && self.generation != generation {
            self.monitors.begin_anew();
        }
        self.generation = generation;
    }
}

impl Core {
    /// The groups with monitors that run everywhere, as far as this server may run them.
    fn watched_groups(&self) -> BTreeMap<GroupName, std::sync::Arc<GroupConfig>> {
        let ours = |group: &GroupConfig| !group.everywhere.is_empty() && group.policy.contains(&self.boot.server);
        self.groups.iter().filter(|(_, group)| ours(group)).map(|(name, group)| (name.clone(), group.clone())).collect()
    }

    /// Lets the checks begin that are due.
    pub(crate) fn drive_watch(&mut self) {
        let (now, member) = (self.now, self.acting());
        let mut wake = Vec::new();
        let mut due: Vec<(Option<GroupName>, u64, DueCheck)> = Vec::new();
        if let Some(config) = self.wanted.clone() {
            self.watch.servers.follow(config.generation);
            let checks = self.watch.servers.monitors.due(now, member, &config.monitors, &mut wake);
            due.extend(checks.into_iter().map(|check| (None, config.generation, check)));
        }
        let groups = self.watched_groups();
        self.watch.groups.retain(|name, _| groups.contains_key(name));
        for (name, group) in groups {
            let watched = self.watch.groups.entry(name.clone()).or_default();
            watched.follow(group.generation);
            let checks = watched.monitors.due(now, member, &group.everywhere, &mut wake);
            due.extend(checks.into_iter().map(|check| (Some(name.clone()), group.generation, check)));
        }
        for (group, generation, DueCheck { monitor, timeout, since }) in due {
            self.next_op += 1;
            let op = self.next_op;
            if let Some(watched) = self.watch.of(group.as_ref()) {
                watched.monitors.begun(&monitor, op);
            }
            self.watch.checks.insert(op, (group.clone(), monitor.clone()));
            self.emit_now(Output::Check { op, group, monitor, generation, timeout, since });
        }
        for at in wake {
            self.wake(at);
        }
    }

    /// Takes the answer to such a check; gives it back if it is none.
    pub(crate) fn watch_done(&mut self, op: OpId, outcome: Outcome) -> Option<Outcome> {
        let Some((group, monitor)) = self.watch.checks.remove(&op) else { return Some(outcome) };
        let settings = match &group {
            None => self.wanted.as_ref().and_then(|config| config.monitors.get(&monitor).cloned()),
            Some(name) => self.groups.get(name).and_then(|group| group.everywhere.get(&monitor).cloned()),
        };
        let (now, settings) = (self.now, settings?);
        let seen = self.watch.of(group.as_ref())?.monitors.done(now, &monitor, op, outcome, &settings);
        if let Some(seen) = seen {
            let part = Part::Monitor(monitor);
            self.note("MonitorFailed", group, true, format!("{part}, on {}: {seen}", self.boot.server));
        }
        None
    }

    /// What this server says about itself.
    pub(crate) fn server_report(&self) -> ServerReport {
        let monitors = self.wanted.as_ref().map(|config| self.watch.servers.monitors.report(&config.monitors));
        let groups = self.watched_groups();
        let of = |name: &GroupName, group: &GroupConfig| {
            Some((name.clone(), self.watch.groups.get(name)?.monitors.report(&group.everywhere)))
        };
        let (leave, down) = self.wishes();
        ServerReport {
            leave,
            down,
            clear: self.told_clears(),
            hold: self.told_holds(),
            monitors: monitors.unwrap_or_default(),
            groups: groups.iter().filter_map(|(name, group)| of(name, group)).collect(),
        }
    }

    /// Which servers each group is to avoid. Says so where a group stays all the same because it was moved too often.
    pub(crate) fn judge_servers(&mut self, view: &View, config: &Config) {
        self.note_accusations();
        let unfit = self.accused(false, MonitorAction::is_about_servers);
        self.shut_down_one(view, config, &unfit);
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        let (mut all, mut all_worse) = (BTreeMap::new(), BTreeMap::new());
        for name in names {
            let Some(group) = self.groups.get(&name).cloned() else { continue };
            let (mut avoided, mut worse) = self.avoided(view, config, &name, &group, &unfit);
            for about in [&mut avoided, &mut worse] {
                let Some((here, why)) = self.stays(&name, &group, about) else { continue };
                about.remove(&here);
                let message = format!("group {name} stays on {here} although {why}: it was moved too often");
                self.note_once(&format!("stays {name}"), "MonitorFailed", message);
            }
            all.insert(name.clone(), avoided);
            all_worse.insert(name, worse);
        }
        (self.coordinator.judgement.avoided, self.coordinator.judgement.worse) = (all, all_worse);
    }

    /// A server that is called unfit is better than none, for whatever reason all others are out of the question: no room,
    /// relations to other groups. Whether the plan has to be made again, without that objection.
    pub(crate) fn relents(&mut self, plan: &Plan) -> bool {
        let worse = &mut self.coordinator.judgement.worse;
        let before = worse.values().filter(|servers| !servers.is_empty()).count();
        for (name, decision) in &plan.decisions {
            if matches!(decision.rule, Rule::NoServerLeft | Rule::WaitForRoom) {
                worse.remove(name.as_str());
            }
        }
        worse.values().filter(|servers| !servers.is_empty()).count() < before
    }

    /// What speaks against servers for a group, strictly or not.
    pub(crate) fn speaks_against(&self, name: &GroupName) -> BTreeMap<String, String> {
        let Judgement { avoided, worse, .. } = &self.coordinator.judgement;
        let both = avoided.get(name).into_iter().chain(worse.get(name)).flatten();
        both.map(|(server, why)| (server.0.clone(), why.clone())).collect()
    }

    /// All monitors that run everywhere.
    fn everywhere_monitors(&self) -> Vec<(Option<&GroupName>, &MonitorName, &MonitorConfig)> {
        let servers =
            self.wanted.iter().flat_map(|config| &config.monitors).map(|(name, settings)| (None, name, settings));
        let groups = self.groups.iter().flat_map(|(group, config)| {
            config.everywhere.iter().map(move |(name, settings)| (Some(group), name, settings))
        });
        servers.chain(groups).collect()
    }

    /// Remembers since when each monitor fails where, and wakes when that is to be believed.
    fn note_accusations(&mut self) {
        let mut since = BTreeMap::new();
        let mut wake = Vec::new();
        for (group, name, settings) in self.everywhere_monitors() {
            for (server, _) in self.said(group, name).filter(|(_, report)| report.phase == MonitorPhase::Failing) {
                let key = (group.cloned(), name.clone(), server.clone());
                let at = self.coordinator.judgement.since.get(&key).copied().unwrap_or(self.now);
                wake.push(at + patience(settings));
                since.insert(key, at);
            }
        }
        self.coordinator.judgement.since = since;
        for at in wake.into_iter().filter(|at| *at > self.now).collect::<Vec<_>>() {
            self.wake(at);
        }
    }

    /// Servers on which a monitor fails for so long that all others have looked since; none where no other one passes,
    /// and then only that is to be said.
    fn failing(&self, group: Option<&GroupName>, name: &MonitorName, settings: &MonitorConfig) -> Avoided {
        let known = |server: &ServerName| {
            let since = self.coordinator.judgement.since.get(&(group.cloned(), name.clone(), server.clone()));
            since.is_some_and(|since| self.now >= *since + patience(settings))
        };
        let well = |report: &MonitorReport| report.phase == MonitorPhase::Passing && report.failures == 0;
        if settings.unless_all_fail && !self.said(group, name).any(|(_, report)| well(report)) {
            return Avoided::new();
        }
        let fails = self.said(group, name).filter(|(_, report)| report.phase == MonitorPhase::Failing);
        let fails = fails.filter(|(server, _)| known(server));
        let one = |(server, report): (&ServerName, &MonitorReport)| {
            (server.clone(), format!("monitor {name} fails there: {}", report.message))
        };
        fails.map(one).collect()
    }

    /// Servers on which a monitor about servers has failed at least once: nothing goes there now.
    pub(crate) fn shaky(&self) -> BTreeSet<ServerName> {
        let about = self.everywhere_monitors().into_iter().filter(|(.., settings)| settings.action.is_about_servers());
        let said = about.flat_map(|(group, name, _)| self.said(group, name));
        said.filter(|(_, report)| report.failures > 0).map(|(server, _)| server.clone()).collect()
    }

    /// Servers on which something fails whose action is one of these. `now`: failures of groups that are over do not count.
    pub(crate) fn accused(&self, now: bool, about: impl Fn(&MonitorAction) -> bool) -> Avoided {
        let wanted = |settings: &MonitorConfig| about(&settings.action);
        let monitors = self.everywhere_monitors().into_iter().filter(|(.., settings)| wanted(settings));
        let mut unfit: Avoided =
            monitors.flat_map(|(group, name, settings)| self.failing(group, name, settings)).collect();
        for (name, group) in &self.groups {
            // A monitor where the group runs ends with it: its failure stands as long as the group's there.
            for (server, report) in &self.coordinator.reports {
                let said = report.groups.get(name).filter(|said| !now || said.phase != GroupPhase::Offline);
                let Some(failure) = said.and_then(|said| said.failure.as_ref()) else { continue };
                let by_monitor = match &failure.part {
                    Part::Monitor(monitor) => group.monitors.get(monitor).is_some_and(wanted),
                    Part::Resource(_) => false,
                };
                let then = recovery_of(group, failure).map(|recovery| recovery.then);
                if by_monitor || then == Some(Then::ServerDown) && about(&MonitorAction::ServerDown(None)) {
                    unfit.insert(server.clone(), format!("{} of group {name}: {}", failure.part, failure.message));
                }
            }
        }
        if about(&MonitorAction::ServerDown(None)) {
            unfit.extend(self.asked_to_go_down());
        }
        unfit
    }

    /// Members that are there and may go on running groups.
    pub(crate) fn staying<'a>(&'a self, view: &'a View, config: &'a Config) -> impl Iterator<Item = &'a ServerName> {
        view.members.keys().filter(move |server| {
            let there = **server == self.boot.server || self.connected(server);
            let wanted = config.servers.contains_key(*server) && !view.detached.contains_key(*server);
            there && wanted && !self.leaves(server)
        })
    }

    /// Names the server that is to shut down, if there is one that may. Says why another one that should does not.
    fn shut_down_one(&mut self, view: &View, config: &Config, unfit: &Avoided) {
        let staying: BTreeSet<ServerName> = self.staying(view, config).cloned().collect();
        // Who was told is told until it leaves: the heartbeat that says so may be lost.
        if self.coordinator.down.as_ref().is_some_and(|told| staying.contains(told)) {
            return;
        }
        self.coordinator.down = None;
        // An old failure is none for which a server goes down when another one comes back.
        let wanted = self.accused(true, |action| matches!(action, MonitorAction::ServerDown(_)));
        let mut unfit = unfit.clone();
        unfit.extend(self.shaky().into_iter().map(|server| (server, String::new())));
        let going = view.members.len().saturating_sub(staying.len());
        for (server, why) in wanted.iter().filter(|(server, _)| staying.contains(*server)) {
            let paused = self.paused_on(server).map(|group| Err(paused_text(&group)));
            let may = || may_shut_down(server, &staying, going, config.servers.len(), &unfit);
            match paused.unwrap_or_else(may) {
                Ok(()) => {
                    self.coordinator.down = Some(server.clone());
                    return self.beat_soon();
                }
                Err(refusal) => {
                    self.decline_down(server, &refusal);
                    let message = format!("{server} does not shut down although {why}: {refusal}");
                    self.note_once(&format!("down {server}"), "MonitorFailed", message);
                }
            }
        }
    }

    /// R20: hands everything over and leaves, at the coordinator's word.
    pub(crate) fn heed_shutdown(&mut self) {
        let Some(view) = &self.durable.view else { return };
        if self.leaving {
            // The others were lost since: an unfit server is better than none.
            let alone =
                self.acting() && view.members.len() == 1 && !self.closes_together() && !planted!(LastOneShutsDown);
            if alone && self.down.take().is_some() {
                (self.leaving, self.closing) = (false, None);
                let message = format!("{} does not shut down: no other server is left", self.boot.server);
                self.note("ServerDown", None, true, message);
                self.beat_soon();
            }
            return;
        }
        let me = &self.boot.server;
        let Some(coordinator) = view.coordinator().filter(|_| self.acting()) else { return };
        let told = if coordinator == me {
            self.coordinator.down.as_ref() == Some(me)
        } else {
            let frame = self.peers.get(coordinator).and_then(|peer| peer.frame.as_ref());
            frame.is_some_and(|frame| (frame.lineage, frame.epoch) == view.order() && frame.down.as_ref() == Some(me))
        };
        if !told {
            return;
        }
        let why = self.wishes().1.map(|asked| asked.why);
        let why = why.unwrap_or_else(|| "a monitor or resource with ServerDown failed".to_owned());
        let reason = format!("{me} hands its groups over, leaves and shuts down: {why}");
        self.note("ServerDown", None, true, reason.clone());
        (self.leaving, self.down) = (true, Some(reason));
        self.beat_soon();
    }

    /// What every server says about a monitor that runs everywhere.
    fn said<'a>(
        &'a self,
        group: Option<&'a GroupName>,
        monitor: &'a MonitorName,
    ) -> impl Iterator<Item = (&'a ServerName, &'a MonitorReport)> {
        self.coordinator.reports.iter().filter_map(move |(server, report)| {
            let monitors = match group {
                None => &report.server.monitors,
                Some(group) => report.server.groups.get(group)?,
            };
            Some((server, monitors.get(monitor)?))
        })
    }

    /// Servers on which a group is not to run, and those that it only should not.
    fn avoided(
        &self,
        view: &View,
        config: &Config,
        name: &GroupName,
        group: &GroupConfig,
        unfit: &Avoided,
    ) -> (Avoided, Avoided) {
        let own = group.everywhere.iter().filter(|(_, settings)| matches!(settings.action, MonitorAction::Fail(_)));
        let avoided: Avoided =
            own.flat_map(|(monitor, settings)| self.failing(Some(name), monitor, settings)).collect();
        let failed = self.failures_of(name);
        let shaky = self.shaky();
        let here = self.holders(name).next().map(|(server, _)| server);
        let (asked, mut left) = (self.asked_to_leave(name, false), self.asked_to_leave(name, true));
        left.retain(|server, _| Some(server) != here);
        let bad = |server: &ServerName| {
            let known = asked.contains_key(server) || failed.contains_key(server) || avoided.contains_key(server);
            known || unfit.contains_key(server) || shaky.contains(server)
        };
        let mut better = self.staying(view, config).filter(|server| group.policy.contains(*server) && !bad(server));
        let mut worse = Avoided::new();
        if let Some(first) = better.next() {
            let elsewhere = shaky.iter().filter(|server| Some(*server) != here && !unfit.contains_key(*server));
            worse.extend(elsewhere.map(|server| (server.clone(), "a monitor has failed there just now".to_owned())));
            worse.extend(unfit.clone());
            worse.extend(asked.clone());
            // That it was left once is the weakest objection: it yields to every other one.
            if !left.contains_key(first) || better.any(|server| !left.contains_key(server)) {
                worse.extend(left);
            }
        }
        (avoided, worse)
    }

    /// The server that a group would have to leave, and why, if it was moved too often for that.
    fn stays(&self, name: &GroupName, group: &GroupConfig, avoided: &Avoided) -> Option<(ServerName, String)> {
        let (here, report) = self.holders(name).next()?;
        let why = avoided.get(here)?;
        // A failure of its own has its own limit and hold.
        if report.failure.is_some() {
            return None;
        }
        let limits = limits(group)?;
        let recent = self.coordinator.history.get(name)?.recoveries(self.now, limits.failover_window);
        (recent >= limits.max_failovers as usize).then(|| (here.clone(), why.clone()))
    }

    /// What the monitors of a group that run everywhere say, together.
    pub(crate) fn everywhere(&self, name: &GroupName, group: &GroupConfig) -> BTreeMap<MonitorName, MonitorReport> {
        group.everywhere.keys().map(|monitor| (monitor.clone(), together(self.said(Some(name), monitor)))).collect()
    }
}

impl Watch {
    /// What the monitors of a group have counted here counts no more.
    pub(crate) fn begin_anew(&mut self, group: &GroupName) {
        if let Some(watched) = self.groups.get_mut(group) {
            watched.monitors.begin_anew();
        }
    }

    fn of(&mut self, group: Option<&GroupName>) -> Option<&mut Watched> {
        match group {
            None => Some(&mut self.servers),
            Some(name) => self.groups.get_mut(name),
        }
    }
}

/// Whether a server may shut down. `staying`: members that may run groups, it among them; `going`: those that are
/// leaving or are not heard; `all`: servers of the sub-cluster.
///
/// # Errors
/// Why not.
pub(crate) fn may_shut_down(
    server: &ServerName,
    staying: &BTreeSet<ServerName>,
    going: usize,
    all: usize,
    unfit: &Avoided,
) -> Result<(), String> {
    if going > 0 {
        return Err("another one is leaving or is not heard; one goes after the other".into());
    }
    let left = staying.len().saturating_sub(1);
    if left * 2 < all && !planted!(ShutdownsUncounted) {
        return Err(format!("only {left} of {all} servers would be left, and at least half of them have to"));
    }
    if !staying.iter().any(|other| other != server && !unfit.contains_key(other)) {
        return Err("no other server is better".into());
    }
    Ok(())
}

/// The limits of a group: those of all of its resources are the same.
pub(crate) fn limits(group: &GroupConfig) -> Option<&Recovery> {
    group.resources.values().next().map(|resource| &resource.recovery)
}

/// The time in which every server has looked once more.
fn patience(settings: &MonitorConfig) -> Duration {
    settings.interval + settings.timeout
}

/// Failing if it fails anywhere, and where; Passing if it passes everywhere.
fn together<'a>(said: impl Iterator<Item = (&'a ServerName, &'a MonitorReport)>) -> MonitorReport {
    let said: Vec<(&ServerName, &MonitorReport)> = said.collect();
    let phases: BTreeSet<MonitorPhase> = said.iter().map(|(_, report)| report.phase).collect();
    let phase = match phases.last() {
        None => MonitorPhase::Inactive,
        Some(MonitorPhase::Failing) => MonitorPhase::Failing,
        Some(MonitorPhase::Passing) if phases.len() == 1 => MonitorPhase::Passing,
        Some(MonitorPhase::Inactive) => MonitorPhase::Inactive,
        Some(_) => MonitorPhase::Unknown,
    };
    let told = said.iter().filter(|(_, report)| !report.message.is_empty());
    let message = told.map(|(server, report)| format!("{server}: {}", report.message)).collect::<Vec<_>>().join("; ");
    MonitorReport { phase, failures: said.iter().map(|(_, report)| report.failures).max().unwrap_or(0), message }
}
