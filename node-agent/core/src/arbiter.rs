//! R4, R5, R8: this server's dealings with the lock: one operation at a time, ballots before leaning before looking.
//!
//! The lock answers nothing, be it a disk or an object on a quorum server: a server *is* promised or granted something only because it wrote its own
//! record, waited until that was durable, and then read nobody else's claim. Whoever comes later does the same and sees
//! ours. Both orders of two servers are safe; reading before writing would not be (protocol-why D4). A quorum server
//! does both in one compare-and-swap, which is the same with nothing in between.

use std::collections::BTreeMap;

use crate::config::LockKind;
use crate::core::Core;
use crate::lock::{LockLook, LockMemory, LockOp, LockRecord};
use crate::names::{AcceptorId, ServerName};
use crate::output::Output;
use crate::planted::planted;
use crate::ring::Ring;
use crate::settings::LockPlace;
use crate::time::Instant;
use crate::view::{Acceptor, Ballot, Epoch, View};

/// Why an operation was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// A phase (1 or 2) of this ballot.
    Ballot(Ballot, u8),
    /// Leaning, clock read at.
    Lean(Instant),
    /// A force-reinstate is claimed (R22).
    Claim,
    /// The own record is brought up to date after an adoption.
    Refresh,
    /// Is it still there, and what do others say?
    Look,
}

/// Why the lock disk is not written although it answers.
const FULL_RING: &str =
    "too many writes to the lock disk failed and may still land: it is read, not written, for a minute";

/// What is known of the lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Lock {
    /// Which one it is.
    pub(crate) at: Option<LockPlace>,
    /// The operation under way: token, purpose, beginning.
    pub(crate) busy: Option<(u64, Purpose, Instant)>,
    /// Identity of the area as last read.
    pub(crate) id: Option<AcceptorId>,
    /// Why it can't be used, if so.
    pub(crate) problem: Option<String>,
    /// The problem is only that the last access had no good answer.
    pub(crate) unanswered: bool,
    /// The problem is only that it went back to an older state (D9): it can still be told what is known.
    pub(crate) outdated: bool,
    /// It carries another chain of our lineage.
    pub(crate) rival: bool,
    /// Completion of the last good operation.
    pub(crate) seen: Instant,
    /// Beginning of the last look.
    pub(crate) looked: Instant,
    /// Newest records as last read, by slot.
    pub(crate) records: BTreeMap<u8, LockRecord>,
    /// R10: per slot (lineage, epoch, lean counter) and completion of the first read that returned it.
    pub(crate) leaning: BTreeMap<u8, ((u32, Epoch, u64), Instant)>,
    /// The own record is older than what we know.
    pub(crate) stale: bool,
    /// What the own record says for the successor of the view in this epoch: it may only grow.
    pub(crate) own: (Ballot, Option<(Ballot, View)>),
    pub(crate) next_token: u64,
    /// Where the own records go, on a disk.
    pub(crate) ring: Ring,
    /// Rings of locks that were in force before, while late writes may land in them.
    pub(crate) former_rings: BTreeMap<LockPlace, Ring>,
    /// The number of the record that the operation under way writes.
    pub(crate) writing: Option<u64>,
}

impl Lock {
    /// Why it gives no vote at the moment, if so.
    pub(crate) fn trouble(&self, now: Instant) -> Option<&str> {
        self.problem.as_deref().or_else(|| self.ring.is_full(now).then_some(FULL_RING))
    }
}

impl Core {
    /// Begins the most important lock operation if none is under way.
    pub(crate) fn schedule_lock(&mut self) {
        let Some(config) = self.config.clone() else { return };
        if !config.has_lock() {
            return;
        }
        let hung = self.lock.busy.is_some_and(|(_, _, begun)| self.now.since(begun) >= config.io_timeout);
        if hung && planted!(TwoWritesInFlight) {
            self.lock.busy = None;
        }
        if let Some((_, _, begun)) = self.lock.busy {
            // A hung operation stays the only one: a second write could land before it (protocol-why D10).
            if self.now.since(begun) >= config.timeout && self.lock.problem.is_none() {
                self.lock.problem = Some("the lock does not answer".into());
                self.lock.unanswered = true;
            } else {
                self.wake(begun + config.timeout);
            }
            return;
        }
        if let Some((ballot, phase)) = self.ballot_to_write() {
            return self.begin_lock(Purpose::Ballot(ballot, phase));
        }
        if self.should_lean() {
            self.lease.leaned_at = self.now;
            return self.begin_lock(Purpose::Lean(self.now));
        }
        if self.claim_to_write().is_some() {
            return self.begin_lock(Purpose::Claim);
        }
        // Also by a server that is in no view: a claim that was refused is to be taken back.
        let claimed = self.own_record().is_some_and(|own| own.claim > 0);
        if self.lock.stale && (self.acting() || claimed) {
            return self.begin_lock(Purpose::Refresh);
        }
        // Often enough that a partitioned server learns at once what was decided without it.
        let pause = if self.everybody_connected() { config.timeout } else { config.interval };
        let next = self.lock.looked + pause;
        if self.now >= next || self.lock.looked == Instant::ZERO {
            // The newest view has to get there, however often a write fails; not more often than it is looked at.
            let newest = self.durable.view.as_ref().map(View::order);
            let told = self.own_record().is_some_and(|own| Some(own.view.order()) >= newest && own.claim == 0);
            self.begin_lock(if told || !self.acting() { Purpose::Look } else { Purpose::Refresh });
        } else {
            self.wake(next);
        }
    }

    fn begin_lock(&mut self, wanted: Purpose) {
        self.lock.next_token += 1;
        let token = self.lock.next_token;
        self.lock.looked = self.now;
        // Nothing is written to a lock that was not read before: its identity and our own last record count. A swap
        // checks the identity itself and settles what had no answer, so with a quorum server the two retries of R8 are
        // not spent on reading.
        let swaps = self.lock_swaps();
        // Also where the view does not count the lock among its acceptors: whoever was left out reads there who goes on
        // (protocol-why D20), or that another server was made the base (R22).
        let tells = matches!(wanted, Purpose::Refresh | Purpose::Claim);
        let view = self.durable.view.clone();
        let view = view.filter(|view| tells || view.acceptors.contains_key(&Acceptor::Lock));
        // A lock that went back to an older state has no vote, but is told what it lacks: a server that was away, and can't
        // know, must not decide by it (found by the simulator, seed 6118).
        let lacks = wanted == Purpose::Refresh && self.lock.outdated && !planted!(RestoredLockUntold);
        let usable = self.lock.problem.is_none() || swaps && self.lock.unanswered || lacks;
        let known = self.lock.id.filter(|_| usable);
        let record = match (wanted, known, view) {
            (Purpose::Look, _, _) => None,
            (_, Some(lock), Some(view)) => self.next_number(swaps).map(|number| (lock, view, number)),
            _ => None,
        };
        self.lock.writing = record.as_ref().map(|(_, _, number)| *number);
        let Some((lock, view, sequence)) = record else {
            self.lock.busy = Some((token, Purpose::Look, self.now));
            return self.ask_lock(token, LockOp::Look);
        };
        match wanted {
            Purpose::Ballot(ballot, phase) => {
                self.lock.own.0 = self.lock.own.0.max(ballot);
                if phase == 2 {
                    self.lock.own.1 = self.durable.accepted.clone();
                }
            }
            // Above whatever an earlier process may have written that is not read yet: with a number that the others know
            // already they would count from the earlier leaning (R10). Found by the model.
            Purpose::Lean(_) => {
                let above = if planted!(LeanNumbersAgain) { 0 } else { self.now.0 / 1000 };
                self.lease.lean = (self.lease.lean + 1).max(above);
            }
            Purpose::Claim | Purpose::Refresh | Purpose::Look => {}
        }
        self.lock.stale = false;
        // A new process, or a server that was installed anew in the same slot, goes on above everything read
        // (protocol-why D10): its record must not be hidden behind an older one.
        let boot_counter = self.own_record().map_or(0, |own| own.boot_counter);
        self.durable.lock_sequence = sequence;
        let record = LockRecord {
            cluster: view.cluster,
            lock,
            boot_counter: self.durable.boot_counter.max(boot_counter),
            sequence,
            lineage: view.lineage,
            epoch: view.epoch,
            ballot: self.lock.own.0,
            accepted: self.lock.own.1.clone(),
            lean: self.lease.lean,
            claim: wanted.claims(&view),
            view,
        };
        self.lock.busy = Some((token, wanted, self.now));
        // Not behind our own ledger: the lock is an acceptor by itself, and its vote counts beside ours, not instead.
        self.ask_lock(token, LockOp::WriteThenLook(Box::new(record)));
    }

    /// The lock is a quorum server: each access is a compare-and-swap.
    fn lock_swaps(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.lock == Some(LockKind::QuorumServer))
    }

    fn ask_lock(&mut self, token: u64, op: LockOp) {
        if let Some(lock) = self.lock.at {
            self.emit_now(Output::Lock { token, lock, op });
        }
    }

    /// The number of the next own record, above everything issued and read. None while too many earlier writes may
    /// still land: then there is no place left where a record is safe.
    fn next_number(&mut self, swaps: bool) -> Option<u64> {
        let (issued, landed) = (self.durable.lock_sequence, self.own_record().map_or(0, |own| own.sequence));
        if swaps || planted!(PlacesReused) {
            return Some(issued.max(landed) + 1);
        }
        let memory = self.durable.lock_memory;
        let landed = if Some(memory.lock) == self.lock.id { landed.max(memory.since) } else { landed };
        let number = self.lock.ring.next(self.now, issued, landed);
        if number.is_none() {
            self.note_once("ring", "PathDown", FULL_RING.into());
            if let Some(at) = self.lock.ring.free_at() {
                self.wake(at);
            }
        }
        number
    }

    /// This server's record as last read.
    fn own_record(&self) -> Option<&LockRecord> {
        let id = self.config.as_ref().and_then(|config| config.servers.get(&self.boot.server));
        id.and_then(|id| self.lock.records.get(id))
    }

    /// A new view: what the operation under way says of the epoch before counts for nothing in the new one, though the
    /// ballot may have the same number (found by the simulator). What it reads is read all the same.
    pub(crate) fn forget_lock_purpose(&mut self) {
        if let Some((_, purpose, _)) = &mut self.lock.busy
            && !planted!(OldAnswerCounts)
        {
            *purpose = Purpose::Look;
        }
    }

    /// The lock's answer.
    pub(crate) fn lock_done(&mut self, token: u64, result: Result<LockLook, String>) {
        let Some((expected, purpose, _)) = self.lock.busy.filter(|(expected, _, _)| *expected == token) else {
            return self.coming_lock_done(token, result);
        };
        debug_assert_eq!(expected, token);
        self.lock.busy = None;
        let look = match result {
            Ok(look) => look,
            Err(problem) => {
                if self.lock.problem.as_ref() != Some(&problem) {
                    let noun = self.config.as_ref().and_then(|config| config.lock).map_or("lock", LockKind::noun);
                    self.note("PathDown", None, true, format!("the {noun} can't be used: {problem}"));
                }
                self.lock.problem = Some(problem);
                (self.lock.unanswered, self.lock.outdated) = (true, false);
                if let Some(number) = self.lock.writing.take() {
                    // Durable, so that the next process goes on above it, too.
                    // Only a disk has places: a swap that comes too late finds another content and does nothing.
                    if !self.lock_swaps() {
                        self.lock.ring.failed(self.now, number);
                    }
                    self.persist();
                }
                if planted!(UnansweredSwapCounts)
                    && let Purpose::Ballot(ballot, phase) = purpose
                    && let Some(lock) = self.lock.id
                {
                    let (records, completed) = (self.lock.records.clone(), self.now);
                    let look = LockLook { lock, counter: None, records, damaged: Vec::new(), completed };
                    return self.lock_answered(ballot, phase, &look, Ballot::default());
                }
                self.ballot_failed(purpose);
                return;
            }
        };
        self.lock.id = Some(look.lock);
        self.lock.seen = look.completed;
        self.remember_leaning(&look);
        self.lock.records = look.records.clone();
        self.remember_counter(&look);
        let (foreign, distrusted) = (self.lock_problem(&look), self.distrusts(&look));
        self.lock.outdated = foreign.is_none() && distrusted.is_some();
        self.lock.problem = foreign.or(distrusted);
        self.lock.rival =
            look.records.values().any(|record| self.is_rival_chain(record.view.lineage, record.view.chain));
        self.lock.unanswered = false;
        if self.learn_from_lock(&look) {
            return; // everything that was under way belongs to an older epoch
        }
        let Some(view) = self.durable.view.clone() else { return };
        if self.lock.problem.is_none() || self.lock.outdated {
            self.recover_own_record(&look, &view);
        }
        if self.lock.problem.is_some() {
            return self.ballot_failed(purpose);
        }
        let rival = self.highest_rival(&look, &view);
        match purpose {
            Purpose::Ballot(ballot, phase) => self.lock_answered(ballot, phase, &look, rival),
            Purpose::Lean(asked) => {
                let refused = rival > Ballot::default() && !planted!(LeanNeverRefused);
                let asked = if planted!(LeanGrantsAtCompletion) { self.now } else { asked };
                if refused {
                    self.lease.lock_refused = true;
                } else if view.order() == self.stable_order().unwrap_or_default() {
                    self.lease.lock_grant = self.lease.lock_grant.max(asked);
                }
            }
            Purpose::Claim => {
                if let Some(order) = self.claim_to_write() {
                    self.claim_answered(order, &look);
                }
            }
            Purpose::Refresh | Purpose::Look => {
                if rival > Ballot::default() {
                    self.lease.lock_refused = true;
                }
            }
        }
    }

    /// After a restart of the process: what we ourselves wrote in this epoch stands.
    fn recover_own_record(&mut self, look: &LockLook, view: &View) {
        let own = self.config.as_ref().and_then(|config| config.servers.get(&self.boot.server));
        if let Some(record) = own.and_then(|id| look.records.get(id))
            && (record.lineage, record.epoch) == view.order()
        {
            if record.ballot > self.lock.own.0 {
                self.lock.own.0 = record.ballot;
            }
            let newer = record.accepted.as_ref().map(|(ballot, _)| *ballot)
                > self.lock.own.1.as_ref().map(|(ballot, _)| *ballot);
            if newer {
                self.lock.own.1 = record.accepted.clone();
            }
            self.lease.lean = self.lease.lean.max(record.lean);
        }
    }

    /// Why a readable lock still has no vote (I-g): another area than the view names, foreign or damaged blocks.
    fn lock_problem(&self, look: &LockLook) -> Option<String> {
        let view = self.durable.view.as_ref();
        if let Some(named) = view.and_then(|view| view.acceptors.get(&Acceptor::Lock))
            && *named != look.lock
            && !planted!(BlankLockVotes)
        {
            return Some(format!(
                "the lock is {}, but the sub-cluster's lock is {named}: it was made anew or is another one",
                look.lock
            ));
        }
        if let Some(record) =
            look.records.values().find(|record| view.is_none_or(|view| record.cluster != view.cluster))
        {
            return Some(format!("the lock belongs to sub-cluster {}", record.cluster));
        }
        let rival = |record: &&LockRecord| self.is_rival_chain(record.view.lineage, record.view.chain);
        if let Some(record) = look.records.values().find(rival) {
            return Some(format!(
                "the lock carries another chain of lineage {}: two servers were made the base",
                record.view.lineage
            ));
        }
        if !look.damaged.is_empty() {
            return Some(format!("the blocks of slots {:?} can't be read whole", look.damaged));
        }
        None
    }

    /// D9: it shows less than this server has seen of it.
    fn distrusts(&self, look: &LockLook) -> Option<String> {
        if self.durable.lock_memory.distrusted && !planted!(RestoredLockVotes) {
            let lock = look.lock;
            return Some(format!(
                "the lock {lock} went back to an older state: it was restored from a copy and has forgotten promises; \
                 make a new lock"
            ));
        }
        None
    }

    /// D9: a lock that shows an older state than this server has seen of it was put back, and is never trusted again.
    fn remember_counter(&mut self, look: &LockLook) {
        if !look.damaged.is_empty() {
            return;
        }
        let counter = look.counter.unwrap_or_else(|| self.own_record().map_or(0, |own| own.sequence));
        let memory = &mut self.durable.lock_memory;
        if memory.lock != look.lock {
            *memory = LockMemory { lock: look.lock, counter, since: 0, distrusted: false };
        } else if counter >= memory.counter {
            memory.counter = counter;
        } else if !memory.distrusted {
            memory.distrusted = true;
            self.persist();
        }
    }

    /// R10: the first read that returned a rival's newest lean counter.
    fn remember_leaning(&mut self, look: &LockLook) {
        for (slot, record) in &look.records {
            let counter = (record.lineage, record.epoch, record.lean);
            match self.lock.leaning.get(slot) {
                Some((known, _)) if *known == counter => {}
                _ => {
                    self.lock.leaning.insert(*slot, (counter, look.completed));
                }
            }
        }
    }

    /// R10: the anchor that the lock adds for `server` in `order`, if it ever leaned there.
    pub(crate) fn lock_anchor(&self, server: &ServerName, view: &View) -> Option<Instant> {
        let member = view.members.get(server)?;
        let ((lineage, epoch, lean), at) = self.lock.leaning.get(&member.id)?;
        ((*lineage, *epoch) == view.order() && *lean > 0).then_some(*at)
    }

    /// R1: a rival that nobody hears any more shows life at the lock: it leaned since.
    pub(crate) fn leans_on_lock(&self, server: &ServerName, view: &View) -> bool {
        let interval = self.config.as_ref().map_or(Default::default(), |config| config.interval);
        let heard = self.peers.get(server).map_or(self.started, |peer| peer.received);
        self.lock_anchor(server, view).is_some_and(|leaned| leaned > heard + interval)
    }

    /// Views on the lock that are newer than ours.
    fn learn_from_lock(&mut self, look: &LockLook) -> bool {
        let Some(view) = &self.durable.view else { return false };
        let newest = look
            .records
            .values()
            .filter(|record| record.cluster == view.cluster && record.lock == look.lock)
            .filter(|record| !self.is_rival_chain(record.view.lineage, record.view.chain))
            .map(|record| &record.view)
            .max_by_key(|view| view.order());
        match newest {
            Some(newer) if newer.order() > view.order() => {
                let newer = newer.clone();
                self.adopt(newer, BTreeMap::new());
                true
            }
            _ => false,
        }
    }

    /// The highest ballot of another server for the successor of `view`.
    fn highest_rival(&self, look: &LockLook, view: &View) -> Ballot {
        let own = self.config.as_ref().and_then(|config| config.servers.get(&self.boot.server)).copied();
        let rivals = look.records.iter().filter(|(slot, _)| Some(**slot) != own).map(|(_, record)| record);
        rivals
            .filter(|record| (record.lineage, record.epoch) == view.order())
            .map(|record| {
                let accepted = record.accepted.as_ref().map(|(ballot, _)| *ballot).unwrap_or_default();
                if planted!(BallotsIgnored) { accepted } else { record.ballot.max(accepted) }
            })
            .max()
            .unwrap_or_default()
    }

    /// The accepted pair with the highest ballot among all blocks of this epoch.
    pub(crate) fn accepted_on_lock(look: &LockLook, view: &View) -> Option<(Ballot, View)> {
        let records = look.records.values().filter(|record| (record.lineage, record.epoch) == view.order());
        records.filter_map(|record| record.accepted.clone()).max_by_key(|(ballot, _)| *ballot)
    }

    /// The lock can be read and written and is the one that the newest view names (or any, before formation).
    pub(crate) fn lock_usable(&self) -> bool {
        let Some(config) = &self.config else { return false };
        let hung = self.lock.busy.is_some_and(|(_, _, begun)| self.now.since(begun) >= config.timeout);
        config.has_lock() && self.lock.id.is_some() && self.lock.problem.is_none() && !hung
    }

    pub(crate) fn everybody_connected(&self) -> bool {
        let Some(view) = &self.durable.view else { return true };
        view.members.keys().all(|name| *name == self.boot.server || self.connected(name))
    }
}
