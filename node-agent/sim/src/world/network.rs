//! LANs between the hosts: cut in either direction, losing, repeating, delaying, reordering, and silent for one kind of
//! message only.

use holdfast_core::Input;
use holdfast_core::message::Message;
use holdfast_core::names::PathName;
use rand::Rng;

use super::{Event, MS, World};

/// What a message is about: faults aim at kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Heartbeat.
    Frame,
    /// Phase 1.
    Prepare,
    /// Its answer.
    Promise,
    /// Phase 2.
    Accept,
    /// Its answer.
    Accepted,
    /// A decided view is told.
    Learn,
    /// A member says what it runs.
    Report,
    /// The coordinator's table.
    Assign,
    /// The coordinator refuses what a command asks.
    Declined,
}

impl Kind {
    pub(crate) fn of(message: &Message) -> Kind {
        match message {
            Message::Prepare { .. } => Kind::Prepare,
            Message::Promise { .. } | Message::Refused { .. } => Kind::Promise,
            Message::Accept { .. } => Kind::Accept,
            Message::Accepted { .. } => Kind::Accepted,
            Message::Learn { .. } => Kind::Learn,
            Message::Report { .. } => Kind::Report,
            Message::Assign { .. } => Kind::Assign,
            Message::Declined { .. } => Kind::Declined,
        }
    }
}

/// The two LANs.
pub(super) const LANS: [&str; 2] = ["ic", "pub"];

impl World {
    /// The LANs that a server has open: all that it acts by and those that are wanted.
    pub(super) fn open_lans(&self, server: usize) -> Vec<&'static str> {
        let config = self.hosts[server].core.as_ref().and_then(|core| core.in_force_config());
        LANS.into_iter().filter(|lan| config.is_none_or(|config| config.paths.contains_key(*lan))).collect()
    }

    pub(super) fn send(&mut self, from: usize, to: usize, path: PathName, kind: Kind, input: Input) {
        if from == to || self.cut.contains(&(from, to, path)) || !self.hosts[to].powered {
            return;
        }
        if kind == Kind::Frame && self.deaf.contains(&(from, to)) {
            return;
        }
        if self.muted.get(&kind).is_some_and(|until| self.now < *until) {
            return;
        }
        if self.loss > 0.0 && self.rng.random_bool(self.loss) {
            return;
        }
        let life = self.hosts[to].life;
        let copies = if self.loss > 0.0 && self.rng.random_bool(0.02) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.loss > 0.0 && self.rng.random_bool(0.02);
            let usual = self.delayed.get(&kind).copied().unwrap_or(self.lan_delay);
            let high = if slow { 400 * MS } else { usual };
            self.after(MS / 20, high.max(MS / 10), Event::Input { server: to, life, input: input.clone() });
        }
    }
}
