//! What the planner is asked: every server and every group as the coordinator sees them now. *Where* a group should run is
//! the planner's word.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_planner as planner;
use holdfast_planner::{Current, Declared, ServerState};

use crate::config::{Config, GroupConfig};
use crate::core::Core;
use crate::holding::Holding;
use crate::names::{GroupName, ServerName};
use crate::status::Failure;
use crate::time::Instant;
use crate::view::View;

/// What is declared of a group, with `state` of the sub-cluster. Stopped counts once that specification is in force, because
/// then every member holds it durably (R16, R21) and no other coordinator starts what this one has stopped. Before that,
/// and while this server holds an older specification than the one in force, what runs goes on and nothing is started: it
/// might be declared to be stopped.
fn declared(view: &View, config: &Config, online: bool, current: &Current) -> Declared {
    let open = match config.generation.cmp(&view.config_generation) {
        Ordering::Equal => false,
        Ordering::Greater => config.stopped,
        Ordering::Less => true,
    };
    match online {
        true if open && *current != Current::Offline => Declared::Online,
        true if !open && !config.stopped => Declared::Online,
        _ => Declared::Offline,
    }
}

impl Core {
    fn server_state(&self, view: &View, name: &ServerName) -> ServerState {
        let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
        let barred = frame.is_some_and(|frame| frame.barred) && !view.members.contains_key(name);
        let leaving = barred || self.leaves(name) || view.detached.contains_key(name);
        match (view.members.contains_key(name), leaving) {
            (true, false) => ServerState::Member,
            (_, true) => ServerState::Detached,
            (false, false) => ServerState::Lost,
        }
    }

    /// Follows since when servers are there, as long as some group asks for it, and looks again when a delay is over.
    pub(crate) fn count_presence(&mut self, view: &View, config: &Config) {
        let delays: BTreeSet<Duration> =
            self.groups.values().filter_map(|group| group.failback.map(|failback| failback.delay)).collect();
        let there = |name: &&ServerName| !delays.is_empty() && self.server_state(view, name) == ServerState::Member;
        let now = self.now;
        let since = |name: &ServerName| self.coordinator.there.get(name).copied().unwrap_or(now);
        let there: BTreeMap<ServerName, Instant> =
            config.servers.keys().filter(there).map(|name| (name.clone(), since(name))).collect();
        let due = there.values().flat_map(|since| delays.iter().map(|delay| *since + *delay)).filter(|at| *at > now);
        if let Some(next) = due.min() {
            self.wake(next);
        }
        self.coordinator.there = there;
    }

    /// Servers to which a group may go back by itself now.
    fn failback_to(&self, name: &GroupName, group: &GroupConfig) -> BTreeSet<String> {
        let Some(failback) = group.failback.filter(|f| !f.in_window || self.failback_windows.contains(name)) else {
            return BTreeSet::new();
        };
        if self.stays_by_brake(name) {
            return BTreeSet::new();
        }
        let long_enough = |(_, since): &(&ServerName, &Instant)| self.now.since(**since) >= failback.delay;
        self.coordinator.there.iter().filter(long_enough).map(|(server, _)| server.0.clone()).collect()
    }

    pub(crate) fn planner_input(
        &self,
        view: &View,
        config: &Config,
        holds: &BTreeMap<GroupName, Holding>,
    ) -> planner::Input {
        let group = |name: &GroupName, group: &GroupConfig| {
            let next = self.durable.table.get(name).and_then(|assignment| assignment.next.clone());
            let target = self.valid_target(name, group);
            let request = target.and_then(|target| target.server.clone());
            // An operator who starts a group says that the cause of its failures is gone.
            let forgiven = target.is_some_and(|target| target.stop == Some(false));
            let failures = if forgiven { BTreeMap::new() } else { self.failures_of(name) };
            let failed = failures.into_iter().map(|(server, failure)| (server.0, failure.message));
            let current = self.current(view, name, group);
            let held = holds.get(name);
            let next = next.filter(|_| current == Current::Offline);
            planner::Group {
                declared: declared(view, config, group.online, &current),
                holds: held.map(|held| held.holds.clone()).unwrap_or_default(),
                policy: group.policy.iter().map(|server| server.0.clone()).collect(),
                priority: group.priority,
                failback_to: self.failback_to(name, group),
                relations: group.relations.clone(),
                failed_on: self.speaks_against(name).into_iter().chain(failed).collect(),
                request: request.or(next).map(|server| planner::Request { server: server.0 }),
                stop_when_no_server_left: group.stop_when_no_server_left || self.leaving,
                frozen: held.is_some_and(|held| held.paused.is_some()) && self.stays_where_it_is(&current),
                current,
            }
        };
        planner::Input {
            servers: config.servers.keys().map(|name| (name.0.clone(), self.server_state(view, name))).collect(),
            capacity: self
                .coordinator
                .reports
                .iter()
                .filter_map(|(name, report)| Some((name.0.clone(), report.capacity?)))
                .collect(),
            groups: self.groups.iter().map(|(name, config)| (name.0.clone(), group(name, config))).collect(),
        }
    }

    /// Failures of a group on servers, but for those that are forgotten.
    pub(crate) fn failures_of(&self, name: &GroupName) -> BTreeMap<ServerName, Failure> {
        let failures = self.coordinator.reports.iter().filter_map(|(server, report)| {
            let group = report.groups.get(name)?;
            let failure = group.failure.clone()?;
            (!self.is_forgiven(name, server, &failure.part)).then(|| (server.clone(), failure))
        });
        failures.collect()
    }
}
