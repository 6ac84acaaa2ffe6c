//! The lock as the model has it: rings of records, and the operation that a server has under way.

use std::collections::BTreeMap;

use holdfast_core::alike::Shift;
use holdfast_core::frame::Frame;
use holdfast_core::lock::{LOCK_RING, LockLook, LockRecord};
use holdfast_core::names::AcceptorId;
use holdfast_core::time::Instant;

/// What is on the medium.
#[derive(Debug, Clone, Hash)]
pub(super) struct Medium {
    pub(super) lock: AcceptorId,
    rings: BTreeMap<u8, BTreeMap<u64, LockRecord>>,
    /// Heartbeats on the disk path, by server.
    pub(super) beats: BTreeMap<usize, Frame>,
    /// How often a quorum server's object was changed; a disk does not count.
    pub(super) swaps: Option<u64>,
}

/// A lock operation under way.
#[derive(Debug, Clone, Hash)]
pub(super) struct Access {
    pub(super) token: u64,
    /// To be written; none when it has landed, or if this is only a look.
    pub(super) record: Option<LockRecord>,
    /// What a swap returned, on its way back.
    pub(super) swapped: Option<LockLook>,
    /// Takes as long as may be.
    pub(super) hangs: bool,
}

/// The number of the newest record, and of swaps, after a renumbering: so high that none before it falls below 1.
const FIRST: u64 = 1000;

fn newest(ring: &BTreeMap<u64, LockRecord>) -> Option<&LockRecord> {
    ring.values().max_by_key(|record| (record.boot_counter, record.sequence))
}

impl Medium {
    pub(super) fn new(counts: bool) -> Medium {
        let swaps = counts.then_some(0);
        Medium { lock: AcceptorId(0x10c4), rings: BTreeMap::new(), beats: BTreeMap::new(), swaps }
    }

    /// A record lands at its place in the writer's ring. `last`: nothing that the writer gave away before can land any
    /// more. Then whatever it gives away later has a higher number, and what stands below the newest is never read again.
    pub(super) fn land(&mut self, slot: u8, record: LockRecord, last: bool) {
        let ring = self.rings.entry(slot).or_default();
        ring.insert(record.sequence % LOCK_RING, record);
        if last && let Some(newest) = newest(ring).cloned() {
            *ring = BTreeMap::from([(newest.sequence % LOCK_RING, newest)]);
        }
    }

    /// Numbers the newest record of every slot, and the swaps, anew: only order and places count.
    pub(super) fn shift(&self) -> Shift {
        let by = |number: u64| FIRST as i64 - number as i64;
        let slots = self.rings.iter().filter_map(|(slot, ring)| Some((*slot, by(newest(ring)?.sequence)))).collect();
        Shift { lock: self.lock, slots, counter: self.swaps.map(by) }
    }

    pub(super) fn renumber(&mut self, shift: &Shift) {
        for (slot, ring) in &mut self.rings {
            let records = std::mem::take(ring).into_values();
            ring.extend(records.map(|mut record| {
                shift.record(*slot, &mut record);
                (record.sequence % LOCK_RING, record)
            }));
        }
        if let (Some(swaps), Some(by)) = (&mut self.swaps, shift.counter) {
            *swaps = swaps.saturating_add_signed(by);
        }
    }

    /// The newest record of every slot.
    pub(super) fn look(&self, completed: Instant) -> LockLook {
        let records = self.rings.iter().filter_map(|(slot, ring)| Some((*slot, newest(ring)?.clone()))).collect();
        LockLook { lock: self.lock, counter: self.swaps, records, damaged: Vec::new(), completed }
    }
}
