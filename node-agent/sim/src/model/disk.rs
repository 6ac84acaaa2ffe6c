//! The lock as the model has it: rings of records, and the operation that a server has under way.

use std::collections::BTreeMap;

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

impl Medium {
    pub(super) fn new(counts: bool) -> Medium {
        let swaps = counts.then_some(0);
        Medium { lock: AcceptorId(0x10c4), rings: BTreeMap::new(), beats: BTreeMap::new(), swaps }
    }

    /// A record lands at its place in the writer's ring.
    pub(super) fn land(&mut self, slot: u8, record: LockRecord) {
        self.rings.entry(slot).or_default().insert(record.sequence % LOCK_RING, record);
    }

    /// The newest record of every slot.
    pub(super) fn look(&self, completed: Instant) -> LockLook {
        let newest = |ring: &BTreeMap<u64, LockRecord>| {
            ring.values().max_by_key(|record| (record.boot_counter, record.sequence)).cloned()
        };
        let records = self.rings.iter().filter_map(|(slot, ring)| Some((*slot, newest(ring)?))).collect();
        LockLook { lock: self.lock, counter: self.swaps, records, damaged: Vec::new(), completed }
    }
}
