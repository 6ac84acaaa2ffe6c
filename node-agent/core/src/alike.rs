//! For the model only: cores that can't behave differently are made equal, so that they are explored once.
//!
//! What is for people is forgotten. Numbers of which only equality or order counts are counted anew. Nothing that a rule
//! reads is rounded.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::Core;
use crate::durable::Durable;
use crate::lock::LockLook;
use crate::names::AcceptorId;
use crate::time::Instant;

/// By how much the numbers of the records of each slot, and of a lock that counts itself, are moved.
#[derive(Debug, Clone, Default)]
pub struct Shift {
    /// The lock that they are about.
    pub lock: AcceptorId,
    /// Per slot. Places in a ring are numbers modulo its length, so they move along.
    pub slots: BTreeMap<u8, i64>,
    /// The lock's own count, if it has one.
    pub counter: Option<i64>,
}

impl Shift {
    /// Everything keeps its number.
    pub fn is_nothing(&self) -> bool {
        self.slots.values().chain(self.counter.iter()).all(|by| *by == 0)
    }

    fn number(&self, slot: u8, number: &mut u64) {
        let by = self.slots.get(&slot).copied().unwrap_or(0);
        // 0 is "never written", in every numbering.
        if *number > 0 {
            *number = number.saturating_add_signed(by);
        }
    }

    /// The number of one record.
    pub fn record(&self, slot: u8, record: &mut crate::lock::LockRecord) {
        self.number(slot, &mut record.sequence);
    }

    /// A look.
    pub fn look(&self, look: &mut LockLook) {
        look.records.iter_mut().for_each(|(slot, record)| self.record(*slot, record));
        if let (Some(counter), Some(by)) = (&mut look.counter, self.counter) {
            *counter = counter.saturating_add_signed(by);
        }
    }

    /// A ledger of the server with this slot.
    pub fn ledger(&self, slot: u8, durable: &mut Durable) {
        self.number(slot, &mut durable.lock_sequence);
        let memory = &mut durable.lock_memory;
        if memory.lock == self.lock && memory.counter > 0 {
            match self.counter {
                Some(by) => memory.counter = memory.counter.saturating_add_signed(by),
                None => self.number(slot, &mut memory.counter),
            }
        }
    }
}

impl Core {
    /// Forgets what is for people, and moments that lie too far back to count.
    pub fn forget(&mut self) {
        self.said.clear();
        (self.resolution, self.trouble) = (None, None);
        (self.lease.anchor, self.lease.smallest_margin) = ("", None);
        self.coordinator.decisions.clear();
        for hearing in self.peers.values_mut().flat_map(|peer| peer.paths.values_mut()) {
            (hearing.latency, hearing.longest_gap, hearing.fell) = (None, Duration::ZERO, false);
            (hearing.counted, hearing.loss, hearing.window) = ((0, 0), (0, 0), self.now);
            (hearing.shown, hearing.since) = ((false, false), Instant::ZERO);
        }
        self.lock.seen = Instant::ZERO;
        if let Some(problem) = &mut self.lock.problem {
            problem.clear();
        }
        let order = self.durable.view.as_ref().map(|view| view.order()).unwrap_or_default();
        // Leaning in an older epoch is never an anchor again (R10).
        self.lock.leaning.retain(|_, ((lineage, epoch, _), _)| (*lineage, *epoch) >= order);
        // Time that is over stays over (R11).
        let over: Vec<_> = self.departures.keys().filter(|key| self.time_is_over(key)).cloned().collect();
        for key in over {
            if let Some(departure) = self.departures.get_mut(&key) {
                departure.anchor = Instant::ZERO;
            }
        }
    }

    /// Counts ledger writes anew, from the last durable one; returns how many were forgotten.
    pub fn recount_writes(&mut self) -> u64 {
        let by = self.written;
        self.issued -= by;
        self.written = 0;
        self.waiting.iter_mut().for_each(|(token, _)| *token -= by);
        self.orders.iter_mut().for_each(|(token, ..)| *token -= by);
        if let Some(proposal) = &mut self.proposal {
            proposal.own_token = proposal.own_token.saturating_sub(by);
        }
        self.releasing.values_mut().for_each(|(token, _)| *token -= by);
        self.machines.values_mut().for_each(|machine| machine.gate = machine.gate.saturating_sub(by));
        by
    }

    /// Counts lock operations and resource operations anew, if nothing of an older one can be answered any more. `open`:
    /// the token of the lock operation under way, outside of this core. Returns its new token.
    pub fn recount_operations(&mut self, open: Option<u64>) -> Option<u64> {
        if self.ops.is_empty() && self.checks.is_empty() && self.fences.is_empty() {
            self.next_op = 0;
        }
        match (&mut self.lock.busy, open) {
            (None, None) => self.lock.next_token = 0,
            (Some((token, ..)), Some(open)) if *token == open => (*token, self.lock.next_token) = (1, 1),
            _ => return open,
        }
        open.map(|_| 1)
    }

    /// Numbers the records on the lock anew.
    pub fn renumber(&mut self, shift: &Shift) {
        let id = self.config.as_ref().and_then(|config| config.servers.get(&self.boot.server)).copied();
        let slot = id.unwrap_or_default();
        shift.ledger(slot, &mut self.durable);
        self.lock.records.iter_mut().for_each(|(slot, record)| shift.record(*slot, record));
        if let Some(writing) = &mut self.lock.writing {
            shift.number(slot, writing);
        }
        self.lock.ring.turn(shift.slots.get(&slot).copied().unwrap_or(0));
    }
}
