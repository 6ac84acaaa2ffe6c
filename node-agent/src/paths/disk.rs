//! The thread of one shared disk: writes this server's heartbeat, reads the others', carries out lock operations.
//!
//! Everything goes through one thread in order, so two writes are never in flight (protocol-why D10). A hung disk hangs
//! this thread and nothing else: the core sees silence on the path and no answer from the lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_core::Input;
use holdfast_core::lock::{LockLook, LockOp};
use holdfast_core::names::{AcceptorId, ClusterId, PathName, ServerName};
use holdfast_core::time::Instant;

use super::DiskWiring;
use super::keys::Keys;
use super::refusals::Refusals;
use super::seal::Kind;
use super::seen::{Mark, Seen};
use crate::clock;
use crate::disk::area::{Area, AreaError};
use crate::disk::device::Access;
use crate::inbox::{Event, Inbox};

/// How often a disk that can't be used is tried again, and one that nobody uses is read, so that its loss is known
/// beforehand.
const PROBE: Duration = Duration::from_secs(1);
/// Lock operations that may wait. The core has at most one under way.
const QUEUE: usize = 4;

/// How a shared disk is, as this server sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What is wrong; none: the last access worked.
    pub error: Option<String>,
    /// Since when an access has been under way.
    pub busy_since: Option<Instant>,
    /// Smoothed time of a read.
    pub latency: Option<Duration>,
    /// Identity of the area.
    pub lock: Option<AcceptorId>,
    /// Sub-clusters whose records stand on it.
    pub clusters: BTreeSet<ClusterId>,
}

/// A sealed heartbeat, and the sub-cluster that it is of, once that is formed.
type Beat = (Vec<u8>, Option<ClusterId>);

/// A shared disk in use; it ends when dropped.
#[derive(Debug)]
pub struct SharedDisk {
    wiring: DiskWiring,
    mail: Arc<(Mutex<Mail>, Condvar)>,
    health: Arc<Mutex<Health>>,
    refusals: Arc<Refusals>,
}

#[derive(Debug, Default)]
struct Mail {
    beat: Option<Beat>,
    ops: VecDeque<(u64, LockOp)>,
    /// Slots of all servers, where they have changed.
    slots: Option<BTreeMap<ServerName, u8>>,
    end: bool,
}

impl SharedDisk {
    /// Starts the thread; the disk itself may be missing.
    pub fn start(me: &ServerName, wiring: DiskWiring, keys: Keys, seen: Seen, inbox: Inbox) -> io::Result<SharedDisk> {
        let slot = *wiring
            .slots
            .get(me)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{me} has no slot on {}", wiring.disk)))?;
        let mail = Arc::new((Mutex::new(Mail::default()), Condvar::new()));
        let health = Arc::new(Mutex::new(Health { error: Some("not opened yet".to_owned()), ..Health::default() }));
        let refusals = Arc::new(Refusals::default());
        let worker = Worker {
            me: me.clone(),
            slot,
            wiring: wiring.clone(),
            keys,
            seen,
            inbox,
            health: health.clone(),
            refusals: refusals.clone(),
            area: None,
            looked: Instant::ZERO,
            read: BTreeMap::new(),
            own: None,
        };
        let theirs = mail.clone();
        thread::Builder::new()
            .name(format!("disk-{}", wiring.disk))
            .stack_size(256 << 10)
            .spawn(move || worker.run(&theirs))?;
        Ok(SharedDisk { wiring, mail, health, refusals })
    }

    /// What it was made from.
    pub fn wiring(&self) -> &DiskWiring {
        &self.wiring
    }

    /// Whether this wiring is of this thread: the area and its path are the same.
    pub fn is(&self, wiring: &DiskWiring) -> bool {
        let same = |w: &DiskWiring| (w.device.clone(), w.offset, w.path.clone());
        same(&self.wiring) == same(wiring)
    }

    /// Takes the newest wiring of this area, with the slots of the servers of all: the thread goes on.
    pub fn follow(&mut self, all: &[&DiskWiring]) {
        let own: Vec<DiskWiring> =
            all.iter().filter(|wiring| self.is(wiring)).map(|wiring| (*wiring).clone()).collect();
        let Some(mut newest) = own.first().cloned() else { return };
        for wiring in &own {
            newest.lock = newest.lock.or(wiring.lock);
            for (name, slot) in &wiring.slots {
                if !newest.slots.values().any(|taken| taken == slot) {
                    newest.slots.entry(name.clone()).or_insert(*slot);
                }
            }
        }
        if newest.slots != self.wiring.slots {
            let slots = newest.slots.clone();
            self.with_mail(|mail| mail.slots = Some(slots));
        }
        self.wiring = newest;
    }

    /// Gives the newest sealed heartbeat to the thread; one that it didn't come to is replaced. `cluster`: the sub-cluster
    /// that it is of, once that is formed.
    pub fn beat(&self, sealed: Vec<u8>, cluster: Option<ClusterId>) {
        self.with_mail(|mail| mail.beat = Some((sealed, cluster)));
    }

    /// Gives a lock operation to the thread. The answer comes as an input, unless an error is returned here.
    pub fn lock(&self, token: u64, op: LockOp) -> Result<(), String> {
        self.with_mail(|mail| {
            if mail.ops.len() >= QUEUE {
                return Err(format!("the disk {} does not answer, {QUEUE} operations wait for it", self.wiring.disk));
            }
            mail.ops.push_back((token, op));
            Ok(())
        })
    }

    /// How the disk is.
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was refused on it lately.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    fn with_mail<T>(&self, change: impl FnOnce(&mut Mail) -> T) -> T {
        let (mail, wake) = &*self.mail;
        let result = change(&mut mail.lock().unwrap_or_else(PoisonError::into_inner));
        wake.notify_one();
        result
    }
}

impl Drop for SharedDisk {
    fn drop(&mut self) {
        self.with_mail(|mail| mail.end = true);
    }
}

enum Task {
    Slots(BTreeMap<ServerName, u8>),
    Beat(Beat),
    Lock(u64, LockOp),
    Probe,
    End,
}

/// The next thing to do; the lock goes first because a decision waits for it.
fn next(mail: &(Mutex<Mail>, Condvar)) -> Task {
    let guard = mail.0.lock().unwrap_or_else(PoisonError::into_inner);
    let idle = |mail: &mut Mail| mail.beat.is_none() && mail.ops.is_empty() && mail.slots.is_none() && !mail.end;
    let (mut mail, _) = mail.1.wait_timeout_while(guard, PROBE, idle).unwrap_or_else(PoisonError::into_inner);
    if let Some(slots) = mail.slots.take() {
        Task::Slots(slots)
    } else if mail.end && mail.ops.is_empty() {
        Task::End
    } else if let Some((token, op)) = mail.ops.pop_front() {
        Task::Lock(token, op)
    } else if let Some(beat) = mail.beat.take() {
        Task::Beat(beat)
    } else {
        Task::Probe
    }
}

struct Worker {
    me: ServerName,
    slot: u8,
    wiring: DiskWiring,
    keys: Keys,
    seen: Seen,
    inbox: Inbox,
    health: Arc<Mutex<Health>>,
    refusals: Arc<Refusals>,
    area: Option<Area>,
    /// When the lock records were last read.
    looked: Instant,
    /// Counter of the newest heartbeat read, by slot.
    read: BTreeMap<u8, u64>,
    /// The own slot, once something was written into it.
    own: Option<Own>,
}

/// What this server knows of its own heartbeat slot.
#[derive(Debug, Clone, Copy)]
struct Own {
    /// Counter of the heartbeat that was written last.
    written: u64,
    /// Counter of the one that was last read back.
    read: u64,
    /// When that was.
    looked: Instant,
}

impl Worker {
    fn run(mut self, mail: &(Mutex<Mail>, Condvar)) {
        let _ = crate::realtime::raise_this_thread();
        loop {
            let task = next(mail);
            let task = match task {
                Task::End => return,
                Task::Slots(slots) => {
                    self.wiring.slots = slots;
                    continue;
                }
                task => task,
            };
            self.health(|health| health.busy_since = Some(clock::now()));
            let alive = match task {
                Task::Lock(token, op) => {
                    let result = self.access(|worker, area| worker.lock(area, &op));
                    self.inbox.deliver(Event::Input(Input::Lock { token, result }))
                }
                Task::Beat((sealed, cluster)) => {
                    let _ = self.access(|worker, area| worker.beat(area, &sealed, cluster));
                    true
                }
                Task::Probe => {
                    let _ = self.access(|worker, area| worker.look(area).map(drop));
                    true
                }
                Task::End | Task::Slots(_) => false,
            };
            self.health(|health| health.busy_since = None);
            if !alive {
                return;
            }
        }
    }

    fn health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Opens the area if it isn't open, does something with it, and keeps what went wrong. After an error the device is
    /// opened anew: it may be another path to it.
    fn access<T>(&mut self, act: impl FnOnce(&mut Worker, &mut Area) -> Result<T, AreaError>) -> Result<T, String> {
        let opened = match self.area.take() {
            Some(area) => Ok(area),
            // Whose it is has to be known before anything is written.
            None => Area::open(&self.wiring.device, self.wiring.offset, Access::Write).and_then(|mut area| {
                self.look(&mut area)?;
                Ok(area)
            }),
        };
        let result = opened.and_then(|mut area| {
            let done = act(self, &mut area)?;
            self.area = Some(area);
            Ok(done)
        });
        let error = result.as_ref().err().map(ToString::to_string);
        self.health(|health| {
            if health.error != error {
                match &error {
                    Some(e) => tracing::warn!(disk = self.wiring.disk, "{e}"),
                    None => tracing::info!(disk = self.wiring.disk, "the shared disk can be used"),
                }
                health.error.clone_from(&error);
            }
        });
        result.map_err(|e| e.to_string())
    }

    fn beat(&mut self, area: &mut Area, sealed: &[u8], cluster: Option<ClusterId>) -> Result<(), AreaError> {
        if self.is_foreign(cluster) {
            // Its slots are the heartbeats of others: who is here by mistake harms nobody.
            return if clock::now().since(self.looked) < PROBE { Ok(()) } else { self.look(area).map(drop) };
        }
        self.look_at_own_slot(area)?;
        // The counter only has to differ from the last one; the clock of this boot does that over restarts, too.
        let counter = clock::now().0;
        area.write_beat(self.slot, counter, sealed)?;
        let first = Own { written: counter, read: counter, looked: clock::now() };
        self.own = Some(Own { written: counter, ..self.own.unwrap_or(first) });
        let begun = clock::now();
        let others: Vec<(ServerName, u8)> =
            self.wiring.slots.iter().filter(|(name, _)| **name != self.me).map(|(n, s)| (n.clone(), *s)).collect();
        for (server, slot) in others {
            if let Some(beat) = area.read_beat(slot)?
                && let before = self.read.insert(slot, beat.counter)
                && before != Some(beat.counter)
            {
                self.take(&server, &beat.payload, before.is_none());
            }
        }
        self.measured(begun);
        Ok(())
    }

    /// Whether only other sub-clusters have lock records in the area.
    fn is_foreign(&self, cluster: Option<ClusterId>) -> bool {
        let clusters = &self.health.lock().unwrap_or_else(PoisonError::into_inner).clusters;
        !clusters.is_empty() && !cluster.is_some_and(|own| clusters.contains(&own))
    }

    /// Nobody else writes into our slot, and what we write arrives there. Once a second, as it costs a read.
    fn look_at_own_slot(&mut self, area: &mut Area) -> Result<(), AreaError> {
        let (Some(path), Some(own)) = (&self.wiring.path, self.own) else { return Ok(()) };
        let now = clock::now();
        if now.since(own.looked) < PROBE {
            return Ok(());
        }
        let Some(found) = area.read_beat(self.slot)?.map(|beat| beat.counter) else { return Ok(()) };
        let old = (own.read..own.written).contains(&found);
        let read = if old || found == own.written { found } else { own.read };
        self.own = Some(Own { looked: now, read, ..own });
        if found != own.written {
            let (me, slot) = (&self.me, self.slot);
            let reason = if old {
                format!(
                    "slot {slot} of the area reads an older heartbeat of {me}, not what was written last: the disk \
                     confirms writes that it does not make"
                )
            } else {
                self.inbox.offer(Input::Namesake);
                format!("another machine writes into slot {slot} of the area, the one of {me}: it has its number")
            };
            self.refusals.refuse(path, Some(me), reason);
        }
        Ok(())
    }

    /// Hands a heartbeat on if it is sealed with our key and of the server whose slot it stands in.
    fn take(&self, server: &ServerName, payload: &[u8], first: bool) {
        let Some(path) = &self.wiring.path else { return };
        match self.frame(path, server, payload) {
            Ok(frame) => {
                self.inbox.offer(Input::Frame { path: path.clone(), frame: Box::new(frame) });
            }
            // What stands there at the start was written at any time, by anybody: nobody has to hear of it.
            Err(reason) if first => tracing::debug!(%path, %server, "not taken: {reason}"),
            Err(reason) => self.refusals.refuse(path, Some(server), reason),
        }
    }

    fn frame(
        &self,
        path: &PathName,
        server: &ServerName,
        payload: &[u8],
    ) -> Result<holdfast_core::frame::Frame, String> {
        let opened = self.keys.current().and_then(|keys| keys.open(&path.0, payload)).map_err(|e| e.to_string())?;
        if opened.kind != Kind::Frame {
            return Err("a message where heartbeats stand".to_owned());
        }
        let frame: holdfast_core::frame::Frame = postcard::from_bytes(&opened.content).map_err(|e| e.to_string())?;
        if frame.from != *server {
            return Err(format!("a heartbeat of {} stands in the slot of {server}: both use one number", frame.from));
        }
        self.seen.take(server, Mark::from(&frame))?;
        self.keys.heard(server, opened.highest, clock::now());
        Ok(frame)
    }

    fn lock(&mut self, area: &mut Area, op: &LockOp) -> Result<LockLook, AreaError> {
        match op {
            LockOp::WriteThenLook(record) => {
                self.looked(area, |area, own, slots| area.write_then_look(own, record, slots))
            }
            LockOp::Look => self.look(area),
        }
    }

    fn look(&mut self, area: &mut Area) -> Result<LockLook, AreaError> {
        self.looked(area, |area, _, slots| area.look(slots))
    }

    fn looked(
        &mut self,
        area: &mut Area,
        look: impl FnOnce(&mut Area, u8, &BTreeSet<u8>) -> Result<LockLook, AreaError>,
    ) -> Result<LockLook, AreaError> {
        let begun = clock::now();
        let look = look(area, self.slot, &self.wiring.slots.values().copied().collect())?;
        self.measured(begun);
        self.looked = clock::now();
        self.health(|health| {
            health.lock = Some(look.lock);
            health.clusters = look.records.values().map(|record| record.cluster).collect();
        });
        Ok(look)
    }

    fn measured(&self, begun: Instant) {
        let took = clock::now().since(begun);
        self.health(|health| {
            let before = health.latency.unwrap_or(took);
            health.latency = Some(before - before / 8 + took / 8);
        });
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
