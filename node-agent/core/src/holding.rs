//! Holds: what keeps a group from running, and Paused, under which nobody acts on it at all.
//!
//! A hold stands in the table of assignments, so every member has it durably, whoever coordinates and whether or not
//! there is an API. It is placed and released by the coordinator, for an Operation (R15) or for a command on a server:
//!
//! - Each request is granted once (`Assignment::held_by`), however often it is read.
//! - Paused is placed while the group is Online, Failed or Offline, not on its way. From then on its server checks it and
//!   says what it finds, and neither starts, stops, restarts nor moves anything; no other server may start it. So whatever
//!   an operator does to it by hand meanwhile is the only thing that is done.
//! - Safety stays above it: a server that loses its lease, or leaves, stops the group like any other. What was paused is
//!   then started nowhere before it is resumed.
//! - Before a pause ends, every member that may run the group looks at it anew. Unless all is as it was left, or the
//!   request accepts the differences, it stays paused: what an operator left half done is not run over.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_planner::Current;
use serde::{Deserialize, Serialize};

use crate::clearing::released;
use crate::commands::PATIENCE;
use crate::config::{GroupConfig, Then};
use crate::coordinator::recovery_of;
use crate::core::Core;
use crate::message::Assignment;
use crate::names::{GroupName, ServerName};
use crate::planted::planted;
use crate::status::GroupPhase;
use crate::time::Instant;
use crate::view::{Epoch, View};

/// Holds that an operator releases by starting the group.
pub(crate) const MANUAL_START: &str = "ManualStart";
pub(crate) const STOPPED: &str = "Stopped";
pub(crate) const FAILURE_LIMIT: &str = "FailureLimit";
pub(crate) const AFTER_FORCE_REINSTATE: &str = "AfterForceReinstate";
/// The hold of a brake.
pub const BRAKE: &str = "Brake";
/// The hold under which nobody acts.
pub const PAUSED: &str = "Paused";

/// So many differences are told.
const MOST_DIFFERENCES: usize = 16;

/// What a request does to the holds of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HoldChange {
    /// It is stopped, and stays so.
    Stop,
    /// It may run again, whatever failed.
    Start,
    /// Nobody acts on it.
    Pause {
        /// When the controller is to end that, in seconds since 1970; none: nobody does by itself.
        until: Option<i64>,
    },
    /// It is looked at, and acted on again.
    Resume {
        /// Although what is found is not what was left.
        accept: bool,
    },
}

/// The controller's request, from a running Operation. (Its Stop and Start are targets.)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HoldRequest {
    /// Name of the Operation.
    pub by: String,
    /// What it asks.
    pub change: HoldChange,
    /// Epoch and revision of the placement that was seen; on mismatch the request is dropped (R15).
    pub computed_from: (Epoch, u64),
}

/// What a command on a server asks of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HoldWish {
    /// `SERVER:NUMBER`.
    pub by: String,
    /// Grows with every command of this server, over restarts of its process, too.
    pub number: u64,
    /// What it asks.
    pub change: HoldChange,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Paused {
    /// Who asked for it.
    pub by: String,
    /// Every member has it durably, and nothing that was begun before is under way: it counts from then on, whoever
    /// coordinates next.
    pub committed: bool,
    /// See [`HoldChange::Pause`].
    pub until: Option<i64>,
    /// It is to end by this request, once all have looked.
    pub look: Option<Look>,
}

/// A look at a paused group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Look {
    /// The request that it is for.
    pub by: String,
    /// See [`HoldChange::Resume`].
    pub accept: bool,
    /// What was found that is not as it was left, each in words: then the pause goes on, whatever becomes of it later.
    pub refused: Vec<String>,
}

/// What such a look found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Looked {
    /// The request that it was for.
    pub by: String,
    /// What is not as it was left, each in words; empty: all is.
    pub differences: Vec<String>,
}

/// The holds of a group, as they are to be said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Holding {
    pub(crate) holds: BTreeSet<String>,
    pub(crate) paused: Option<Paused>,
    pub(crate) by: Option<String>,
}

impl Holding {
    /// Something is granted that was not said yet.
    pub(crate) fn is_news(&self, known: Option<&Assignment>) -> bool {
        let (paused, by) = known.map_or((&None, &None), |known| (&known.paused, &known.held_by));
        (&self.paused, &self.by) != (paused, by)
    }

    fn change(&mut self, by: String, change: &HoldChange) {
        match change {
            HoldChange::Stop => _ = self.holds.insert(STOPPED.into()),
            HoldChange::Start => self.start(),
            HoldChange::Pause { until } => {
                let committed = self.paused.as_ref().is_some_and(|paused| paused.committed);
                self.paused = Some(Paused { by: by.clone(), committed, until: *until, look: None });
            }
            HoldChange::Resume { accept } => {
                if let Some(paused) = &mut self.paused {
                    paused.look = Some(Look { by: by.clone(), accept: *accept, refused: Vec::new() });
                }
            }
        }
        self.by = Some(by);
    }

    fn start(&mut self) {
        for hold in [MANUAL_START, STOPPED, FAILURE_LIMIT, AFTER_FORCE_REINSTATE, BRAKE] {
            self.holds.remove(hold);
        }
    }
}

/// How the end of a pause that was asked for ends.
enum End {
    Over,
    Refused(Vec<String>),
}

/// A command that waits for the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wish {
    asked: HoldWish,
    until: Instant,
    waiting: Vec<u64>,
}

impl Core {
    /// What keeps a group from running, after what is asked.
    pub(crate) fn holding(&self, view: &View, name: &GroupName, group: &GroupConfig) -> Holding {
        let assignment = self.durable.table.get(name);
        let mut holding = Holding {
            holds: assignment.map(|assignment| assignment.holds.clone()).unwrap_or_default(),
            paused: assignment.and_then(|assignment| assignment.paused.clone()),
            by: assignment.and_then(|assignment| assignment.held_by.clone()),
        };
        let before_this_start = assignment.is_none_or(|assignment| assignment.tag.epoch < view.epoch);
        let running = self.holders(name).next().is_some();
        if !group.auto_start && !running && (assignment.is_none() || view.started && before_this_start) {
            holding.holds.insert(MANUAL_START.into());
        }
        // R22: after a force-reinstate a person looks first. What was said in an older lineage is about another chain.
        let before_force = assignment.map_or(view.forced, |assignment| assignment.tag.lineage < view.lineage);
        if before_force && !planted!(ForceStartsGroups) {
            holding.holds.insert(AFTER_FORCE_REINSTATE.into());
        }
        // R20: the operator who took its server out of service wants it stopped, not moved.
        let stops = |server: &ServerName| view.detached.get(server).is_some_and(|detached| detached.stop_groups);
        let told = assignment.and_then(|assignment| assignment.server.as_ref());
        if self.holders(name).map(|(server, _)| server).chain(told).any(stops) {
            holding.holds.insert(STOPPED.into());
        }
        match self.valid_target(name, group).and_then(|target| target.stop) {
            Some(true) => _ = holding.holds.insert(STOPPED.into()),
            Some(false) => holding.start(),
            None => {}
        }
        if let Some((by, change)) = self.change_to_grant(view, name, group) {
            holding.change(by, &change);
        }
        if let Some(clear) = self.coordinator.clearing.get(name) {
            released(&mut holding.holds, clear);
        }
        if let Some((server, report)) = self.holders(name).next()
            && let Some(failure) = &report.failure
            && !self.is_forgiven(name, server, &failure.part)
        {
            let recovery = recovery_of(group, failure);
            let history = self.coordinator.history.get(name);
            let too_often = recovery.is_some_and(|recovery| {
                let recoveries = history.map_or(0, |history| history.recoveries(self.now, recovery.failover_window));
                recovery.then == Then::Stop || recoveries >= recovery.max_failovers as usize
            });
            if too_often {
                holding.holds.insert(FAILURE_LIMIT.into());
            }
        }
        self.brake(view, name, group, &mut holding);
        if let Some(paused) = holding.paused.as_mut().filter(|paused| !paused.committed) {
            paused.committed = assignment.is_some_and(|known| known.paused.is_some() && self.all_pause(name, known));
        }
        match holding.paused.as_ref().and_then(|paused| self.end_of(name, group, paused)) {
            Some(End::Over) => holding.paused = None,
            Some(End::Refused(differences)) => {
                if let Some(look) = holding.paused.as_mut().and_then(|paused| paused.look.as_mut()) {
                    look.refused = differences;
                }
            }
            None => {}
        }
        match holding.paused {
            Some(_) => holding.holds.insert(PAUSED.into()),
            None => holding.holds.remove(PAUSED),
        };
        holding
    }

    /// The change that is granted now, and whose it is.
    fn change_to_grant(&self, view: &View, name: &GroupName, group: &GroupConfig) -> Option<(String, HoldChange)> {
        let known = self.durable.table.get(name);
        let placed = known.map_or((0, 0), |known| (known.tag.epoch, known.tag.revision));
        let asked = group.hold.iter().filter(|asked| asked.computed_from == placed);
        let asked = asked.map(|asked| (&asked.by, &asked.change));
        let told = self.coordinator.reports.values().filter_map(|report| report.server.hold.get(name));
        let told = told.map(|wish| (&wish.by, &wish.change));
        let paused = known.is_some_and(|known| known.paused.is_some());
        let steady = match self.current(view, name, group) {
            Current::Offline => true,
            Current::On { phase, .. } => {
                matches!(phase, holdfast_planner::Phase::Online | holdfast_planner::Phase::Failed)
            }
            Current::Unknown { .. } | Current::Conflict { .. } => false,
        };
        let open = |(by, change): &(&String, &HoldChange)| {
            let fits = match change {
                HoldChange::Pause { .. } => paused || steady,
                HoldChange::Resume { .. } => paused,
                // Nobody acts on what is paused, whoever asks.
                HoldChange::Stop | HoldChange::Start => !paused,
            };
            fits && known.and_then(|known| known.held_by.as_ref()) != Some(by)
        };
        asked.chain(told).find(open).map(|(by, change)| (by.clone(), change.clone()))
    }

    /// What all that may run a paused group have found, if all have looked for this request.
    fn found(&self, name: &GroupName, group: &GroupConfig, look: &Look) -> Option<Vec<String>> {
        let concerned = |(server, report): &(&ServerName, &crate::coordinator::MemberReport)| {
            let holds = report.groups.get(name).is_some_and(|said| said.phase != GroupPhase::Offline);
            group.policy.contains(*server) || holds
        };
        let mut all = Vec::new();
        for (_, report) in self.coordinator.reports.iter().filter(concerned) {
            let looked = report.groups.get(name)?.looked.as_ref().filter(|looked| looked.by == look.by)?;
            all.extend(looked.differences.iter().cloned());
        }
        all.truncate(MOST_DIFFERENCES);
        Some(all)
    }

    /// How an end that was asked for ends, once all have looked.
    fn end_of(&self, name: &GroupName, group: &GroupConfig, paused: &Paused) -> Option<End> {
        let look = paused.look.as_ref().filter(|look| paused.committed && look.refused.is_empty())?;
        let found = self.found(name, group, look)?;
        let over = found.is_empty() || look.accept || planted!(ResumesUnseen);
        Some(if over { End::Over } else { End::Refused(found) })
    }

    /// Its holder is to go on as it is: it does not leave.
    pub(crate) fn stays_where_it_is(&self, current: &Current) -> bool {
        matches!(current, Current::On { server, .. } if !self.leaves(&ServerName(server.clone())))
    }

    /// Every member has what was said last about a group, and nothing that one of them began before is under way.
    fn all_pause(&self, name: &GroupName, known: &Assignment) -> bool {
        let all = self.coordinator.reports.values().all(|report| report.highest >= known.tag)
            && self.holders(name).all(|(_, report)| report.paused);
        all || planted!(PauseNotAwaited)
    }

    /// Holds that count.
    pub(crate) fn counting_holds(&self, assignment: &Assignment) -> BTreeSet<String> {
        let committed = assignment.paused.as_ref().is_some_and(|paused| paused.committed);
        assignment.holds.iter().filter(|hold| *hold != PAUSED || committed).cloned().collect()
    }

    /// Tells people which holds come and go with a new assignment.
    pub(crate) fn note_holds(&mut self, name: &GroupName, new: &Assignment) {
        let (known, by) = (self.durable.table.get(name), new.operation.clone());
        let (old, new) = (known.map(|known| self.counting_holds(known)).unwrap_or_default(), self.counting_holds(new));
        for hold in new.difference(&old) {
            let warning = [FAILURE_LIMIT, AFTER_FORCE_REINSTATE, BRAKE].contains(&hold.as_str());
            self.note_by("HoldPlaced", Some(name.clone()), warning, format!("held: {hold}"), by.clone());
        }
        for hold in old.difference(&new) {
            self.note_by("HoldReleased", Some(name.clone()), false, format!("no longer held: {hold}"), by.clone());
        }
    }

    /// Whether nobody is to act on a group that this server holds, and for which request it is to be looked at.
    pub(crate) fn pause_of(&self, name: &GroupName) -> (bool, Option<&str>) {
        let paused = self.durable.table.get(name).and_then(|known| known.paused.as_ref());
        let look = paused.and_then(|paused| paused.look.as_ref()).map(|look| look.by.as_str());
        (paused.is_some(), look)
    }

    /// Tells the machines which of them are paused, and looks at groups that are not here.
    pub(crate) fn drive_pauses(&mut self) {
        let now = self.now;
        let here: Vec<GroupName> = self.machines.keys().cloned().collect();
        for name in here {
            let (paused, look) = self.pause_of(&name);
            let look = look.map(str::to_owned);
            let Some(machine) = self.machines.get(&name) else { continue };
            if machine.is_other_pause(paused, look.as_deref())
                && let Some(machine) = self.machines.get_mut(&name)
            {
                machine.set_pause(now, paused, look);
            }
        }
        let looks = self.durable.table.iter().filter_map(|(name, known)| {
            let look = known.paused.as_ref()?.look.as_ref()?;
            let absent = !self.machines.contains_key(name) && self.groups.contains_key(name);
            absent.then(|| (name.clone(), look.by.clone()))
        });
        for (name, by) in looks.collect::<Vec<_>>() {
            self.look_for(&name, by);
        }
    }

    /// `holdfast pause`, `resume`, `stop` or `start` on this server.
    pub(crate) fn wish_to_hold(
        &mut self,
        token: u64,
        group: &GroupName,
        change: HoldChange,
        number: u64,
    ) -> Result<(), String> {
        let me = &self.boot.server;
        if !self.acting() {
            return Err(format!("{me} is no member of the sub-cluster now; give the command on a server that is"));
        }
        let known = self.durable.table.get(group);
        let paused = known.is_some_and(|known| known.paused.is_some());
        match change {
            HoldChange::Resume { .. } if !paused => return Err(format!("group {group} is not paused")),
            HoldChange::Stop | HoldChange::Start if paused => return Err(paused_text(group)),
            _ => {}
        }
        let wish = HoldWish { by: format!("{me}:{number}"), number, change };
        let until = self.now + PATIENCE;
        let new = || Wish { asked: wish.clone(), until, waiting: Vec::new() };
        let open = self.hold_wishes.entry(group.clone()).or_insert_with(new);
        if open.asked.change != wish.change {
            return Err(format!("another command about group {group} is being carried out; give this one after it"));
        }
        open.waiting.push(token);
        self.beat_soon();
        Ok(())
    }

    /// What the coordinator is told of these.
    pub(crate) fn told_holds(&self) -> BTreeMap<GroupName, HoldWish> {
        self.hold_wishes.iter().map(|(group, wish)| (group.clone(), wish.asked.clone())).collect()
    }

    /// Looks how far they are.
    pub(crate) fn drive_holds(&mut self) {
        let groups: Vec<GroupName> = self.hold_wishes.keys().cloned().collect();
        for group in groups {
            let Some(wish) = self.hold_wishes.remove(&group) else { continue };
            let known = self.durable.table.get(&group);
            let granted = known.is_some_and(|known| known.held_by.as_ref() == Some(&wish.asked.by));
            let paused = known.and_then(|known| known.paused.as_ref());
            let committed = paused.is_some_and(|paused| paused.committed);
            let look = paused.and_then(|paused| paused.look.as_ref()).filter(|look| look.by == wish.asked.by);
            let refused = look.filter(|look| !look.refused.is_empty()).map(|look| differs_text(&group, &look.refused));
            let paused = paused.is_some();
            let answer = match &wish.asked.change {
                _ if refused.is_some() => refused.map(Err),
                HoldChange::Pause { .. } if granted && committed => {
                    Some(Ok(format!("group {group} is paused: nobody acts on it before holdfast resume {group}")))
                }
                HoldChange::Resume { .. } if granted && !paused => Some(Ok(format!("group {group} is resumed"))),
                HoldChange::Stop if granted => Some(Ok(format!("group {group} is held, and stops where it runs"))),
                HoldChange::Start if granted => Some(Ok(format!("group {group} is no longer held"))),
                _ if self.now < wish.until => None,
                _ => Some(Err(format!("nothing is changed about group {group}: {}", self.no_answer()))),
            };
            match answer {
                Some(answer) => {
                    self.answer_all(wish.waiting, &answer);
                    self.beat_soon();
                }
                None => {
                    self.wake(wish.until);
                    self.hold_wishes.insert(group, wish);
                }
            }
        }
    }

    /// A member that holds a paused group, and the group.
    pub(crate) fn paused_on(&self, server: &ServerName) -> Option<GroupName> {
        let said = self.coordinator.reports.get(server)?;
        let here = said.groups.iter().filter(|(_, report)| report.phase != GroupPhase::Offline);
        here.map(|(name, _)| name).find(|name| self.pause_of(name).0).cloned()
    }
}

/// That nobody acts on a group.
pub(crate) fn paused_text(group: &GroupName) -> String {
    format!("group {group} is paused, and nobody acts on it; give the command after holdfast resume {group}")
}

/// Why a group stays paused.
pub fn differs_text(group: &GroupName, differences: &[String]) -> String {
    format!(
        "group {group} stays paused, because it is not as it was left: {}. Bring it back to that, or accept it: what should \
         run is then started where the group is (holdfast resume {group} --accept-differences)",
        differences.join("; ")
    )
}
