//! ClearFailures: what was counted against a group is forgotten, so that it is tried again as if nothing had failed.
//!
//! The coordinator grants it, by an assignment that says nothing else than before, with a new tag and what is forgotten. So
//! it has the rules of every assignment (R14, R15): asked of an older placement it is void, each server carries it out once,
//! and who was not there learns it with the table. Counters are all that it touches:
//!
//! - What is not proven to have stopped stays so: its stop is tried again at once, and nothing starts before it is proven.
//! - Of all holds only FailureLimit and Brake go, and only if the whole group is meant: what an operator or a rule holds was not
//!   counted.
//! - While a departed server may hold the group, or two say that they do, nothing is granted: what is said about the group
//!   then stays as it was said to them.
//!
//! What a server reports that has not heard of it yet counts no more. The next one waits until all members have heard of the
//! last, because the table keeps only one.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_planner::{Current, Phase};
use serde::{Deserialize, Serialize};

use crate::commands::PATIENCE;
use crate::config::GroupConfig;
use crate::core::Core;
use crate::message::{Assignment, Reason};
use crate::names::{GroupName, ResourceName, ServerName};
use crate::planted::planted;
use crate::status::Part;
use crate::time::Instant;
use crate::view::{Epoch, Tag, View};

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clear {
    /// Who asks, and once: the name of an Operation, or `SERVER:NUMBER` for a command.
    pub by: String,
    /// Only what was counted against these resources; empty: against all, and against monitors.
    pub resources: BTreeSet<ResourceName>,
    /// Only what was counted on this server.
    pub server: Option<ServerName>,
}

impl Clear {
    /// The whole group everywhere: then the holds FailureLimit and Brake and the count of its failovers go, too.
    pub fn is_whole(&self) -> bool {
        self.resources.is_empty() && self.server.is_none()
    }

    /// Whether it is about this resource.
    pub(crate) fn is_about(&self, resource: &ResourceName) -> bool {
        self.resources.is_empty() || self.resources.contains(resource)
    }

    fn covers(&self, server: &ServerName, part: &Part) -> bool {
        let here = self.server.as_ref().is_none_or(|only| only == server);
        here && match part {
            Part::Resource(name) => self.is_about(name),
            Part::Monitor(_) => self.resources.is_empty(),
        }
    }
}

/// The controller's request, from a running Operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClearRequest {
    /// What is to be forgotten.
    pub clear: Clear,
    /// Epoch and revision of the placement that was seen; on mismatch the request is dropped (R15).
    pub computed_from: (Epoch, u64),
}

/// What was forgotten last of a group, as the table keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cleared {
    /// Tag of the assignment that said so first.
    pub tag: Tag,
    /// What was counted before.
    pub clear: Clear,
}

/// A command that waits for the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wish {
    clear: Clear,
    until: Instant,
    waiting: Vec<u64>,
}

impl Core {
    /// What is to be forgotten now, per group.
    pub(crate) fn clears_to_grant(&self, view: &View) -> BTreeMap<GroupName, Clear> {
        let one = |(name, group): (&GroupName, &std::sync::Arc<GroupConfig>)| {
            let clear = self.wanted_clear(name, group)?;
            let placed = !matches!(self.current(view, name, group), Current::Unknown { .. } | Current::Conflict { .. });
            placed.then(|| (name.clone(), clear))
        };
        self.groups.iter().filter_map(one).collect()
    }

    fn wanted_clear(&self, name: &GroupName, group: &GroupConfig) -> Option<Clear> {
        let known = self.durable.table.get(name);
        let last = known.and_then(|known| known.cleared.as_ref());
        let heard = last.is_none_or(|last| self.coordinator.reports.values().all(|report| report.highest >= last.tag));
        let placed = known.map_or((0, 0), |known| (known.tag.epoch, known.tag.revision));
        let asked = group.clear.iter().filter(|asked| asked.computed_from == placed).map(|asked| &asked.clear);
        let told = self.coordinator.reports.values().filter_map(|report| report.server.clear.get(name));
        let open = |clear: &&Clear| last.is_none_or(|last| last.clear.by != clear.by);
        asked.chain(told).find(open).filter(|_| heard).cloned()
    }

    /// What a server reports of this part counts no more: it is being forgotten, or the server has not heard yet that it was.
    pub(crate) fn is_forgiven(&self, name: &GroupName, server: &ServerName, part: &Part) -> bool {
        let now = self.coordinator.clearing.get(name);
        let last = self.durable.table.get(name).and_then(|known| known.cleared.as_ref());
        let unheard =
            last.filter(|last| self.coordinator.reports.get(server).is_some_and(|report| report.highest < last.tag));
        now.into_iter().chain(unheard.map(|last| &last.clear)).any(|clear| clear.covers(server, part))
    }

    /// What was said about a group, to be said again with a new tag, because something of it is forgotten. It must not be
    /// taken for an order to start or stop anything.
    pub(crate) fn renewal(
        &self,
        view: &View,
        known: Option<&Assignment>,
        current: Option<&Current>,
        blank: Assignment,
    ) -> Option<Assignment> {
        let Some(known) = known else { return Some(blank) };
        let this_epoch = (known.tag.lineage, known.tag.epoch) == view.order();
        let (holds, paused, held_by) = (blank.holds.clone(), blank.paused.clone(), blank.held_by.clone());
        let same = Assignment { holds, paused, held_by, ..known.clone() };
        match current? {
            Current::Unknown { .. } | Current::Conflict { .. } => None,
            // What an older epoch said and its server never heard is over: what runs is what counts.
            Current::On { server, phase: Phase::Starting | Phase::Online | Phase::Failed } if !this_epoch => {
                Some(Assignment { server: Some(ServerName(server.clone())), next: None, ..same })
            }
            Current::On { .. } => Some(same),
            // Nobody is told by it to start: its server is gone, or there is none.
            Current::Offline if known.server.as_ref().is_none_or(|server| !view.members.contains_key(server)) => {
                Some(same)
            }
            Current::Offline => {
                let again = matches!(known.reason, Reason::Failover | Reason::Recovery);
                Some(Assignment { reason: if again { Reason::Recovery } else { blank.reason }, ..blank })
            }
        }
    }

    /// A server takes an assignment after which less counts than before.
    pub(crate) fn clear_failures_of(&mut self, name: &GroupName, clear: &Clear) {
        let (now, me) = (self.now, self.boot.server.clone());
        if clear.is_whole()
            && let Some(history) = self.coordinator.history.get_mut(name)
        {
            history.forget();
        }
        if clear.server.as_ref().is_some_and(|only| *only != me) {
            return;
        }
        let covered = self.failures.get(name).is_some_and(|failure| clear.covers(&me, &failure.part));
        if covered || clear.resources.is_empty() {
            self.failures.remove(name);
            self.relapses.remove(name);
        }
        if let Some(machine) = self.machines.get_mut(name) {
            machine.forget(now, clear);
        }
        if clear.resources.is_empty() {
            self.watch.begin_anew(name);
        }
        self.note("FailuresCleared", Some(name.clone()), false, format!("what had failed on {me} is forgotten"));
        self.beat_soon();
    }

    /// `holdfast clear-failures` on this server.
    pub(crate) fn wish_to_clear(
        &mut self,
        token: u64,
        group: &GroupName,
        resources: BTreeSet<ResourceName>,
        number: u64,
    ) -> Result<(), String> {
        let me = &self.boot.server;
        if !self.acting() {
            return Err(format!("{me} is no member of the sub-cluster now; give the command on a server that is"));
        }
        let known: BTreeSet<&ResourceName> = self.groups.get(group).iter().flat_map(|g| g.resources.keys()).collect();
        if !resources.is_empty() && !resources.iter().any(|name| known.contains(name)) {
            let asked = resources.first().map(|name| name.0.clone()).unwrap_or_default();
            let names: Vec<&str> = known.iter().map(|name| name.0.as_str()).collect();
            return Err(format!("group {group} has no resource {asked}; it has {}", names.join(", ")));
        }
        let by = format!("{me}:{number}");
        let until = self.now + PATIENCE;
        let wish = Wish { clear: Clear { by, resources, server: None }, until, waiting: Vec::new() };
        let open = self.clear_wishes.entry(group.clone()).or_insert_with(|| wish.clone());
        if open.clear.resources != wish.clear.resources {
            return Err(format!(
                "failures of group {group} are being cleared already; give the command again after that"
            ));
        }
        open.waiting.push(token);
        Ok(())
    }

    /// What the coordinator is told of these.
    pub(crate) fn told_clears(&self) -> BTreeMap<GroupName, Clear> {
        self.clear_wishes.iter().map(|(group, wish)| (group.clone(), wish.clear.clone())).collect()
    }

    /// Looks how far they are.
    pub(crate) fn drive_clears(&mut self) {
        let groups: Vec<GroupName> = self.clear_wishes.keys().cloned().collect();
        for group in groups {
            let Some(wish) = self.clear_wishes.remove(&group) else { continue };
            let last = self.durable.table.get(&group).and_then(|known| known.cleared.as_ref());
            let answer = if last.is_some_and(|last| last.clear.by == wish.clear.by) {
                let what = match wish.clear.resources.first() {
                    None => format!("failures of group {group} are forgotten, and FailureLimit does not hold it"),
                    Some(resource) => format!("failures of {resource} in group {group} are forgotten"),
                };
                Ok(what)
            } else if self.now < wish.until {
                self.wake(wish.until);
                self.clear_wishes.insert(group, wish);
                continue;
            } else {
                Err(format!("failures of group {group} are not cleared: {}", self.no_answer()))
            };
            self.answer_all(wish.waiting, &answer);
            self.beat_soon();
        }
    }
}

/// Holds that remain when these failures are forgotten.
pub(crate) fn released(holds: &mut BTreeSet<String>, clear: &Clear) {
    if clear.is_whole() {
        holds.remove(crate::holding::FAILURE_LIMIT);
        holds.remove(crate::holding::BRAKE);
    }
    if planted!(ClearReleasesAll) {
        holds.clear();
    }
}
