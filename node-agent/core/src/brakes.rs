//! Brakes: what goes on too often in a short time is not gone on with.
//!
//! - **A group that was moved too often** by the sub-cluster itself (its server was lost, it failed there, it went back) is
//!   not moved once more: it stays where it is as long as it is well there, and gets the hold Brake when it is not, until a
//!   person releases it. The moves are counted in the table of assignments, so every member knows them, whoever
//!   coordinates and whatever dies.
//! - **Too many losses**: while more servers than that were lost within that time, nothing that they ran is taken over;
//!   such groups have the hold Brake until the time is over. Servers of one site count once.
//!
//! Clocks of servers do not agree, and the one of a boot ends with it. So the table has the *age* that a move had when it
//! was said, and who reads it adds the time since it heard of it: while nobody knows the time, none passes. A move is
//! counted for too long then, never for too short a time.
//!
//! Brakes only keep things from starting, so no promise about two servers rests on them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_planner::Current;

use crate::config::{Brakes, Config, GroupConfig, Then};
use crate::coordinator::recovery_of;
use crate::core::Core;
use crate::holding::{BRAKE, Holding};
use crate::message::{Assignment, Reason};
use crate::names::{GroupName, ServerName};
use crate::time::Instant;
use crate::view::{Evidence, Tag, View};

/// When the newest assignment of each group was heard of.
pub(crate) type Heard = BTreeMap<GroupName, (Tag, Instant)>;

/// More losses than are acted on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LossBrake {
    /// Those that count now; of a site that was lost, its name.
    pub lost: BTreeSet<String>,
    /// How many would be acted on.
    pub most: usize,
    /// When the oldest that matters is old enough.
    pub until: Instant,
}

impl Core {
    /// A newer assignment is known from now on.
    pub(crate) fn heard_of(&mut self, name: &GroupName, tag: Tag) {
        self.heard.insert(name.clone(), (tag, self.now));
    }

    /// How long ago the group was moved, each time; youngest last.
    fn moves(&self, name: &GroupName) -> Vec<Duration> {
        let Some(known) = self.durable.table.get(name) else { return Vec::new() };
        let heard = self.heard.get(name).filter(|(tag, _)| *tag == known.tag).map_or(self.started, |(_, at)| *at);
        known.moves.iter().map(|age| *age + self.now.since(heard)).collect()
    }

    fn is_moved_too_often(&self, name: &GroupName, brakes: &Brakes) -> bool {
        let recent = self.moves(name).into_iter().filter(|age| *age < brakes.moves_within).count();
        recent >= brakes.max_moves
    }

    /// It does not go back to another server by itself.
    pub(crate) fn stays_by_brake(&self, name: &GroupName) -> bool {
        self.config.as_ref().is_some_and(|config| self.is_moved_too_often(name, &config.brakes))
    }

    /// What the next assignment says of the moves so far, with its own.
    pub(crate) fn moves_with(&self, name: &GroupName, brakes: &Brakes, new: &Assignment) -> Vec<Duration> {
        let known = self.durable.table.get(name);
        let held = |said: &Assignment| said.holds.contains(BRAKE);
        let whole = self.coordinator.clearing.get(name).is_some_and(crate::clearing::Clear::is_whole);
        if whole || known.is_some_and(held) && !held(new) {
            return Vec::new(); // somebody has looked, or the time is over
        }
        let mut moves = self.moves(name);
        // What holds the group is known for as long as it does.
        if !held(new) {
            moves.retain(|age| *age < brakes.moves_within);
        }
        if is_move(new) && known.is_none_or(|known| known.server != new.server) {
            moves.push(Duration::ZERO);
        }
        let surplus = moves.len().saturating_sub(brakes.max_moves);
        moves.split_off(surplus)
    }

    /// Puts the brake on a group, or takes off the one that ends by itself. `asked`: what a person released just now is not
    /// braked again at once.
    pub(crate) fn brake(&self, view: &View, name: &GroupName, group: &GroupConfig, holding: &mut Holding) {
        let Some(config) = &self.config else { return };
        let known = self.durable.table.get(name);
        let held = known.is_some_and(|known| known.holds.contains(BRAKE));
        let whole = self.coordinator.clearing.get(name).is_some_and(crate::clearing::Clear::is_whole);
        if held && !holding.holds.contains(BRAKE) || whole {
            return;
        }
        let too_often = if held {
            known.is_some_and(|known| known.moves.len() >= config.brakes.max_moves)
        } else {
            self.is_moved_too_often(name, &config.brakes) && self.would_move(view, name, group)
        };
        let at_once =
            || self.too_many_losses(view, config).is_some() && (held || self.lost_its_server(view, name, group));
        match too_often || at_once() {
            true => _ = holding.holds.insert(BRAKE.into()),
            false => _ = holding.holds.remove(BRAKE),
        }
    }

    /// It is down, or is to be, because of what happened to it, not because of what anybody asked.
    fn would_move(&self, view: &View, name: &GroupName, group: &GroupConfig) -> bool {
        let fails_over = |(_, report): (&ServerName, &std::sync::Arc<crate::status::GroupReport>)| {
            let recovery = report.failure.as_ref().and_then(|failure| recovery_of(group, failure));
            recovery.is_some_and(|recovery| recovery.then == Then::Failover)
        };
        let goes_on = |known: &Assignment| match (&known.server, known.reason) {
            (None, reason) => matches!(reason, Reason::Recovery | Reason::Failback),
            (Some(_), reason) => matches!(reason, Reason::Recovery | Reason::Failover),
        };
        match self.current(view, name, group) {
            Current::On { .. } => self.holders(name).any(fails_over),
            Current::Offline => {
                self.lost_its_server(view, name, group) || self.durable.table.get(name).is_some_and(goes_on)
            }
            Current::Unknown { .. } | Current::Conflict { .. } => false,
        }
    }

    /// It is proven to be down because its server was lost.
    fn lost_its_server(&self, view: &View, name: &GroupName, group: &GroupConfig) -> bool {
        let told = self.durable.table.get(name).and_then(|known| known.server.as_ref());
        told.is_some_and(|server| !view.members.contains_key(server))
            && self.current(view, name, group) == Current::Offline
    }

    /// More independent losses than are acted on.
    pub(crate) fn too_many_losses(&self, view: &View, config: &Config) -> Option<LossBrake> {
        let brakes = &config.brakes;
        // Who said that it goes, or was switched off by an operator, is no loss.
        let unasked = view
            .departed
            .iter()
            .filter(|(key, departed)| departed.power.is_none() && self.evidence(key) != Some(Evidence::Clean));
        let mut lost: BTreeMap<String, Instant> = BTreeMap::new();
        for (key, _) in unasked {
            let Some(departure) = self.departures.get(key) else { continue };
            let site = config.sites.get(&key.0).cloned().unwrap_or_else(|| key.0.0.clone());
            let at = lost.entry(site).or_insert(departure.anchor);
            // A site is lost once, when the first of its servers is.
            *at = (*at).min(departure.anchor);
        }
        lost.retain(|_, at| self.now < *at + brakes.losses_within);
        if lost.len() <= brakes.max_losses {
            return None;
        }
        // So many of the oldest have to be old enough.
        let mut times: Vec<Instant> = lost.values().copied().collect();
        times.sort_unstable();
        let until = times[lost.len() - brakes.max_losses - 1] + brakes.losses_within;
        Some(LossBrake { lost: lost.into_keys().collect(), most: brakes.max_losses, until })
    }

    /// The same, for people.
    pub(crate) fn loss_brake(&self) -> Option<LossBrake> {
        self.too_many_losses(self.durable.view.as_ref()?, self.config.as_ref()?)
    }

    /// Says once that it holds, and looks again when it is over.
    pub(crate) fn watch_losses(&mut self, view: &View, config: &Config) {
        let Some(brake) = self.too_many_losses(view, config) else { return };
        self.wake(brake.until);
        let key = format!("losses of view {}", view.epoch);
        self.note_once(&key, "BrakeOn", brake.text(config.brakes.losses_within));
    }
}

impl LossBrake {
    /// For people. `within`: the time that it is about.
    pub fn text(&self, within: Duration) -> String {
        let all: Vec<&str> = self.lost.iter().map(String::as_str).collect();
        format!(
            "{} were lost within {} s, more than brakes.maxLosses ({}): what they ran is not taken over before that time is \
             over, unless somebody starts it (holdfast start)",
            all.join(", "),
            within.as_secs(),
            self.most
        )
    }
}

/// It brings a group to another server, and nobody asked for that.
fn is_move(new: &Assignment) -> bool {
    new.server.is_some()
        && new.previous.is_some()
        && new.previous != new.server
        && matches!(new.reason, Reason::Failover | Reason::Recovery | Reason::Failback)
}
