//! The lock and the disk path: rings of records on a shared disk or one object on a quorum server, heartbeat blocks,
//! and what goes wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::Input;
use holdfast_core::config::LockKind;
use holdfast_core::frame::Frame;
use holdfast_core::lock::{LOCK_RING, LockLook, LockOp, LockRecord};
use holdfast_core::names::AcceptorId;
use holdfast_core::planted::Mutation;
use holdfast_core::settings::LockPlace;
use holdfast_core::view::View;
use rand::Rng;

use super::faults::DiskState;
use super::{Event, MS, World};

/// What is on the medium.
#[derive(Debug, Clone)]
pub struct Medium {
    /// Identity, made when it was formatted.
    pub(super) lock: AcceptorId,
    /// Per slot, per position: record and number of the landing.
    pub(super) rings: BTreeMap<u8, BTreeMap<u64, (u64, LockRecord)>>,
    pub(super) beats: BTreeMap<usize, Frame>,
    landed: u64,
    /// How often the object on the quorum server was changed.
    swaps: u64,
    /// Places where a write was left half done: (slot, place).
    torn: BTreeSet<(u8, u64)>,
    /// The object on the quorum server is gone.
    deleted: bool,
}

impl Medium {
    pub(super) fn new(lock: AcceptorId) -> Medium {
        Medium {
            lock,
            rings: BTreeMap::new(),
            beats: BTreeMap::new(),
            landed: 0,
            swaps: 0,
            torn: BTreeSet::new(),
            deleted: false,
        }
    }

    fn land(&mut self, slot: u8, record: LockRecord) {
        self.landed += 1;
        self.torn.remove(&(slot, record.sequence % LOCK_RING));
        self.rings.entry(slot).or_default().insert(record.sequence % LOCK_RING, (self.landed, record));
    }

    /// A write ends in the middle: neither the old record nor the new one can be read.
    fn tear(&mut self, slot: u8, sequence: u64) {
        let place = sequence % LOCK_RING;
        self.rings.entry(slot).or_default().remove(&place);
        self.torn.insert((slot, place));
    }

    /// Slots of which can't be told what was written last: a place that can't be read is more than the next write's.
    fn damaged(&self) -> Vec<u8> {
        let newest = self.newest();
        let next = |slot: &u8| newest.get(slot).map_or(0, |record| record.sequence) + 1;
        let bad = |slot: &u8| {
            let places: Vec<u64> = self.torn.iter().filter(|(s, _)| s == slot).map(|(_, place)| *place).collect();
            places.len() > 1 || places.first().is_some_and(|place| *place != next(slot) % LOCK_RING)
        };
        let slots: BTreeSet<u8> = self.torn.iter().map(|(slot, _)| *slot).collect();
        slots.into_iter().filter(bad).collect()
    }

    /// The object on the quorum server is deleted.
    pub(super) fn delete(&mut self) {
        self.deleted = true;
    }

    /// It is put back as it was.
    pub(super) fn restore(&mut self) {
        self.deleted = false;
    }

    /// The newest record per slot: the highest (boot counter, sequence), wherever it stands (protocol-why D10).
    fn newest(&self) -> BTreeMap<u8, LockRecord> {
        let order = |(landed, record): &&(u64, LockRecord)| {
            if Mutation::LateWriteWins.is_planted() { (0, *landed) } else { (record.boot_counter, record.sequence) }
        };
        let newest =
            |ring: &BTreeMap<u64, (u64, LockRecord)>| ring.values().max_by_key(order).map(|(_, record)| record.clone());
        self.rings.iter().filter_map(|(slot, ring)| Some((*slot, newest(ring)?))).collect()
    }
}

impl World {
    /// A write reaches the medium, whoever has given it away meanwhile.
    pub(super) fn landed(&mut self, server: usize, at: u64, record: LockRecord) {
        if record.lock == self.medium_at(at).lock {
            self.check_lock_record(&record);
        }
        let (name, place) = (&self.hosts[server].name, record.sequence % LOCK_RING);
        let (epoch, round, lean) = (record.epoch, record.ballot.round, record.lean);
        let number = record.sequence;
        self.say(format!("{name}: record {number} reaches place {place}: epoch {epoch}, round {round}, lean {lean}"));
        self.medium_at(at).land((server + 1) as u8, record);
    }

    /// Every server can tell that this is an older state of the lock, or lacks nothing that was decided since. One that
    /// was away all the time can't, and starting it first is not survived (docs/safety.md).
    pub(super) fn seen_through(&self, old: &Medium) -> bool {
        let newest = self.seen.newest().map(|view| view.order());
        self.hosts.iter().enumerate().all(|(server, host)| {
            let (slot, memory) = ((server + 1) as u8, host.ledger.lock_memory);
            let own = old.newest().get(&slot).map_or(0, |record| record.sequence);
            let shown = if old.swaps > 0 { old.swaps } else { own };
            memory.lock == old.lock && memory.counter > shown || host.ledger.view.as_ref().map(View::order) == newest
        })
    }

    /// The process gives an operation to the disk.
    pub(super) fn lock_begins(&mut self, server: usize, life: u64, token: u64, lock: LockPlace, op: LockOp) {
        let place = lock.place;
        let reached = !self.unreachable.contains(&(server, place));
        let state = if reached { self.hosts_disk[server] } else { DiskState::Errors };
        if lock.kind == LockKind::QuorumServer {
            return self.swap(server, life, (token, place), op, state);
        }
        if self.hang_one.remove(&server) {
            let late = self.rng.random_range(100 * MS..3000 * MS);
            if let LockOp::WriteThenLook(record) = op {
                self.at(self.now + late, Event::Landed { server, place, record });
            }
            let input = Input::Lock { token, result: Err("timed out".into()) };
            return self.at(self.now + late, Event::Input { server, life, input });
        }
        let fail = Input::Lock { token, result: Err("I/O error".into()) };
        match (state, op) {
            (DiskState::Works | DiskState::Slow, op) => {
                let high = if state == DiskState::Slow { 400 * MS } else { 3 * MS };
                match op {
                    LockOp::WriteThenLook(record) => {
                        let delay = self.rng.random_range(MS / 5..=high);
                        self.at(self.now + delay, Event::Landed { server, place, record });
                        self.after(delay + MS / 5, delay + high, Event::Looked { server, life, token, place });
                    }
                    LockOp::Look => self.after(MS / 5, high, Event::Looked { server, life, token, place }),
                }
            }
            (DiskState::Errors, op) => {
                // A failed write may have landed, may land late, or never.
                if let LockOp::WriteThenLook(record) = op
                    && self.rng.random_bool(0.5)
                {
                    self.after(MS / 5, 3000 * MS, Event::Landed { server, place, record });
                }
                self.after(MS, 5 * MS, Event::Input { server, life, input: fail });
            }
            (DiskState::Tears, op) => {
                if let LockOp::WriteThenLook(record) = op {
                    self.medium.tear((server + 1) as u8, record.sequence);
                }
                self.after(MS, 5 * MS, Event::Input { server, life, input: fail });
            }
            (DiskState::Hangs, op) => {
                // No answer before it works again; what was written may land at any time until then.
                if let LockOp::WriteThenLook(record) = op {
                    self.after(MS, 3000 * MS, Event::Landed { server, place, record });
                }
                self.hung.push((server, life, token));
            }
        }
    }

    /// R5: everything at one moment; the answer may be lost although the swap has landed.
    fn swap(&mut self, server: usize, life: u64, (token, place): (u64, u64), op: LockOp, state: DiskState) {
        if self.medium_at(place).deleted {
            if !Mutation::AbsentObjectMade.is_planted() {
                let input = Input::Lock { token, result: Err("the object is gone".into()) };
                return self.after(MS, 20 * MS, Event::Input { server, life, input });
            }
            let medium = self.medium_at(place);
            medium.deleted = false;
            medium.rings.clear();
        }
        if Mutation::StaleSwapTaken.is_planted() && state == DiskState::Works {
            let record = if let LockOp::WriteThenLook(record) = op { Some(record) } else { None };
            let read = Box::new(self.medium_at(place).clone());
            return self.after(MS, 20 * MS, Event::Swapped { server, life, token, place, read, record });
        }
        let unanswered = state != DiskState::Works || self.loss > 0.0 && self.rng.random_bool(self.loss);
        if !unanswered || self.rng.random_bool(0.5) {
            self.medium_at(place).swaps += 1;
            if let LockOp::WriteThenLook(record) = op {
                self.landed(server, place, *record);
            }
        }
        match state {
            DiskState::Hangs => self.hung.push((server, life, token)),
            _ if unanswered => {
                let input = Input::Lock { token, result: Err("no answer".into()) };
                let late = self.config.io_timeout.as_nanos() as u64;
                self.after(late, late, Event::Input { server, life, input });
            }
            _ => {
                let (records, took) = (self.medium_at(place).newest(), self.rng.random_range(MS / 5..20 * MS));
                let completed = self.clock(server, self.now + took);
                let medium = self.medium_at(place);
                let (lock, counter) = (medium.lock, Some(medium.swaps));
                let look = LockLook { lock, counter, records, damaged: Vec::new(), completed };
                let input = Input::Lock { token, result: Ok(look) };
                self.at(self.now + took, Event::Input { server, life, input });
            }
        }
    }

    /// A planted bug: what was read before is put back with the own record, whatever others have put in since.
    pub(super) fn swap_unseen(
        &mut self,
        server: usize,
        life: u64,
        (token, place): (u64, u64),
        read: Medium,
        record: Option<Box<LockRecord>>,
    ) {
        let swaps = self.medium_at(place).swaps + 1;
        *self.medium_at(place) = Medium { swaps, ..read };
        if let Some(record) = record {
            self.landed(server, place, *record);
        }
        let completed = self.clock(server, self.now);
        let medium = self.medium_at(place);
        let (lock, records) = (medium.lock, medium.newest());
        let look = LockLook { lock, counter: Some(swaps), records, damaged: Vec::new(), completed };
        self.input_if_alive(server, life, Input::Lock { token, result: Ok(look) });
    }

    /// What stands on the lock now, as a backup has it.
    pub fn copy_of_lock(&self) -> Medium {
        self.medium.clone()
    }

    /// Puts the lock back to an older state, as a restored backup does.
    pub fn put_lock_back(&mut self, copy: Medium) {
        self.medium = copy;
    }

    /// A new lock in the place of the old one, blank, as an operator makes it.
    pub fn replace_lock(&mut self) {
        self.medium = Medium::new(AcceptorId(self.medium.lock.0 ^ 1));
    }

    /// The newest record of every slot.
    pub fn lock_records(&self) -> BTreeMap<u8, LockRecord> {
        self.medium.newest()
    }

    /// What hung is answered, with an error, when the disk works again.
    pub(super) fn release_hung(&mut self, server: usize) {
        let hung = std::mem::take(&mut self.hung);
        for (host, life, token) in hung {
            if host == server {
                let input = Input::Lock { token, result: Err("timed out".into()) };
                self.after(MS, 5 * MS, Event::Input { server, life, input });
            } else {
                self.hung.push((host, life, token));
            }
        }
    }

    pub(super) fn looked(&mut self, server: usize, life: u64, token: u64, place: u64) {
        if !self.alive(server, life) {
            return;
        }
        match self.hosts_disk[server] {
            DiskState::Works | DiskState::Slow => {}
            DiskState::Errors | DiskState::Tears => {
                return self.input(server, Input::Lock { token, result: Err("I/O error".into()) });
            }
            DiskState::Hangs => return self.hung.push((server, life, token)),
        }
        let completed = self.clock(server, self.now);
        let medium = self.medium_at(place);
        let (lock, damaged) = (medium.lock, medium.damaged());
        let mut records = medium.newest();
        records.retain(|slot, _| !damaged.contains(slot));
        let look = LockLook { lock, counter: None, records, damaged, completed };
        self.input(server, Input::Lock { token, result: Ok(look) });
    }

    /// The heartbeat goes to the disk, and the others' come from there.
    pub(super) fn disk_beat(&mut self, server: usize, life: u64, frame: &Frame) {
        if !self.first.paths.contains_key("area") || self.hosts_disk[server] != DiskState::Works {
            return;
        }
        if !self.silent_on_disk.contains(&server) {
            self.after(MS / 5, 3 * MS, Event::Beat { server, life, frame: Box::new(frame.clone()) });
        }
        let frames: Vec<Frame> =
            self.medium.beats.iter().filter(|(from, _)| **from != server).map(|(_, f)| f.clone()).collect();
        for frame in frames {
            let input = Input::Frame { path: "area".into(), frame: Box::new(frame) };
            self.after(MS / 5, 3 * MS, Event::Input { server, life, input });
        }
    }
}
