//! R8, R9: until when this server may run groups.
//!
//! A lease is a promise about the past: "at `t_s` I asked, and a quorum of the acceptors of my view, none of which had
//! accepted a successor, answered". Whoever decides a later view knows from the same acceptors when they last
//! answered, and starts nothing of ours before `t_s + E`, our reset and the drain are over. So the deadline counts
//! from *send* times only, never from receipts.

use std::time::Duration;

use crate::config::{Config, LockKind};
use crate::core::Core;
use crate::output::Output;
use crate::planted::planted;
use crate::time::Instant;
use crate::view::Acceptor;

/// The lease and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Lease {
    /// Until then; [`Instant::ZERO`]: never had one.
    pub(crate) end: Instant,
    /// The soft stop and the kill, by the settings that they were given under.
    pub(crate) points: (Instant, Instant),
    /// The lock's grant in this epoch.
    pub(crate) lock_grant: Instant,
    /// The lock refused in this epoch: another server has a ballot there. For good (R8).
    pub(crate) lock_refused: bool,
    /// Own lean counter in this epoch.
    pub(crate) lean: u64,
    /// When the last lean began.
    pub(crate) leaned_at: Instant,
    /// No lean before: the first acknowledgements of a new epoch are on their way, and a lean that was not needed
    /// moves the anchor that others have to wait from (R10).
    pub(crate) lean_not_before: Instant,
    /// What the last renewal rested on.
    pub(crate) anchor: &'static str,
    /// Smallest time to the soft stop ever seen at a renewal.
    pub(crate) smallest_margin: Option<Duration>,
    /// What the guard was told last: soft stop, kill, end.
    pub(crate) told: (Instant, Instant, Instant),
}

impl Lease {
    /// A new epoch: nothing that was granted in the old one counts, but the deadline stands.
    pub(crate) fn new_epoch(&mut self, lean_not_before: Instant) {
        self.lean_not_before = lean_not_before;
        self.lock_grant = Instant::ZERO;
        self.lock_refused = false;
        self.lean = 0;
        self.leaned_at = Instant::ZERO;
    }
}

impl Core {
    /// Own vote counts for the own lease unless a successor of the view was accepted (R3).
    fn withdrawn(&self) -> bool {
        self.durable.accepted.is_some() && !planted!(OwnVoteKept)
    }

    /// This server may act under its newest view, and that view is durable.
    pub(crate) fn acting(&self) -> bool {
        self.durable.view.as_ref().is_some_and(|view| {
            let named = view.admits(&self.boot.server, self.boot.boot)
                || view.members.contains_key(&self.boot.server) && planted!(BootNotNamed);
            !view.stopped && self.stable_order() == Some(view.order()) && named
        })
    }

    /// The quorum-th newest grant, with or without the lock's.
    fn quorum_grant(&self, with_lock: bool) -> Instant {
        let Some(view) = &self.durable.view else { return Instant::ZERO };
        let mut grants: Vec<Instant> = view
            .acceptors
            .keys()
            .map(|acceptor| match acceptor {
                Acceptor::Lock if with_lock => self.lease.lock_grant,
                Acceptor::Lock => Instant::ZERO,
                Acceptor::Server(name) if *name == self.boot.server => {
                    if self.withdrawn() {
                        Instant::ZERO
                    } else {
                        self.now
                    }
                }
                Acceptor::Server(name) => self.peers.get(name).map_or(Instant::ZERO, |peer| peer.grant),
            })
            .collect();
        grants.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = if planted!(OneAckIsEnough) { view.quorum().min(2) } else { view.quorum() };
        grants.get(quorum - 1).copied().unwrap_or(Instant::ZERO)
    }

    /// R9: renews the deadline and tells the guard.
    pub(crate) fn renew_lease(&mut self) {
        let Some(config) = self.config.clone() else { return };
        if self.acting() {
            let grant = self.quorum_grant(true);
            let (soft, kill, end) = self.deadlines();
            // R9: each of the three points only moves on, by itself. A lease that was given under longer settings (R21) ends
            // later than what is granted now, for a while; its soft stop may be earlier all the same, and must not stop what
            // is granted again and again. Whoever stops at a point has the time of its own grant to the next one.
            let next =
                (soft.max(grant + config.soft_stop), kill.max(grant + config.kill), end.max(grant + config.lease));
            if grant > Instant::ZERO && next != (soft, kill, end) {
                let servers = self.quorum_grant(false);
                let alone = self.durable.view.as_ref().is_some_and(|view| view.acceptors.len() == 1);
                self.lease.anchor = if alone {
                    "Self"
                } else if servers >= grant {
                    "Servers"
                } else {
                    config.lock.map_or("", LockKind::name)
                };
                if end > self.now {
                    let margin = soft.since(self.now);
                    self.lease.smallest_margin = Some(self.lease.smallest_margin.map_or(margin, |old| old.min(margin)));
                }
                self.lease.points = (next.0, next.1);
                self.lease.end = next.2;
            }
        }
        let (soft, kill, end) = self.deadlines();
        if (soft, kill, end) != self.lease.told {
            self.lease.told = (soft, kill, end);
            self.emit_now(Output::Deadline { soft, kill, end });
        }
        self.wake(soft);
        self.wake(end);
    }

    /// (soft stop, kill, end).
    pub(crate) fn deadlines(&self) -> (Instant, Instant, Instant) {
        let (soft, kill) = self.lease.points;
        (soft, kill, self.lease.end)
    }

    /// Groups may be started and kept: before the soft stop, and acting.
    pub(crate) fn leased(&self) -> bool {
        self.acting() && self.now < self.deadlines().0
    }

    /// R8: whether it is time to lean on the lock: the servers' acknowledgements alone leave less than two retries
    /// before the soft stop, and the last attempt is R ago.
    pub(crate) fn should_lean(&mut self) -> bool {
        let Some(config) = self.config.clone() else { return false };
        let has_lock = self.durable.view.as_ref().is_some_and(|view| view.acceptors.contains_key(&Acceptor::Lock));
        if !has_lock || planted!(NeverLeans) || !self.acting() || self.lease.lock_refused || self.withdrawn() {
            return false;
        }
        let begin = self.lean_due(&config);
        if self.now < begin {
            self.wake(begin);
            return false;
        }
        let next = self.lease.leaned_at + config.renew;
        if self.now < next {
            self.wake(next);
            return false;
        }
        true
    }

    /// When the servers' acknowledgements alone leave less than two retries before the soft stop.
    fn lean_due(&self, config: &Config) -> Instant {
        let two_retries = 2 * (config.renew + config.io_timeout);
        (self.quorum_grant(false) + config.soft_stop - two_retries).max(self.lease.lean_not_before)
    }

    /// The lease rests on the lock, or is about to.
    pub(crate) fn leans_now(&self, config: &Config) -> bool {
        let has_lock = self.durable.view.as_ref().is_some_and(|view| view.acceptors.contains_key(&Acceptor::Lock));
        has_lock && self.now >= self.lean_due(config)
    }
}
