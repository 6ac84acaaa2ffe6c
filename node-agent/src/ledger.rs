//! The server's durable state on its own disk: one file, two slots, written in turn, each with length, sequence and
//! check sum, so that a crash in the middle of a write leaves the state before it.
//!
//! A missing file is a first start. A file that is there and has no readable slot is *damaged* and stops the start:
//! a server that forgot what it promised must never vote again under its old identity (protocol.md I-g), so making it
//! "fresh" is a person's decision. What the state means is the core's business.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use holdfast_core::durable::Durable;
use holdfast_core::time::Instant;

use crate::clock;

/// Name of the file in the data directory.
pub const FILE: &str = "ledger";

const MAGIC: &[u8; 8] = b"HFLEDGE1";
/// Bytes before the payload: magic, sequence, length, check sum.
const HEAD: usize = 24;
/// Bytes of one slot. Both are allocated at the first start, so that a full file system never stops a promise.
const SLOT: usize = 1 << 20;
/// How many states may wait for the disk. The core waits for each answer it needs, so more than a few mean that the
/// disk hangs; only the newest is written then anyway.
const QUEUE: usize = 64;

/// Why the ledger can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system.
    #[error("the ledger {path} can't be {doing}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Both slots are unreadable.
    #[error(
        "the ledger {path} is damaged (first slot: {first}; second slot: {second}). It holds what this server promised \
         to the others, so it is not replaced by an empty one. Restore it from nothing: stop the agent, make sure that \
         no group runs here, move the file away and start again; the server then joins as a new one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the first slot.
        first: String,
        /// What is wrong with the second slot.
        second: String,
    },
    /// The state is larger than a slot.
    #[error("the state of {found} bytes doesn't fit into the {allowed} bytes of a ledger slot; too many groups")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The most that fits.
        allowed: usize,
    },
    /// The state can't be put into bytes.
    #[error("the state can't be encoded: {0}")]
    Encode(postcard::Error),
    /// The thread is gone.
    #[error("the ledger's thread has ended")]
    Gone,
}

/// The open file.
#[derive(Debug)]
pub struct LedgerFile {
    file: File,
    path: PathBuf,
    sequence: u64,
}

impl LedgerFile {
    /// Opens the ledger in `dir` and reads the newest valid state; `None` if there has never been one.
    pub fn open(dir: &Path) -> Result<Option<(LedgerFile, Durable)>, LedgerError> {
        let path = dir.join(FILE);
        let io = |doing| {
            let path = path.clone();
            move |source| LedgerError::Io { path, doing, source }
        };
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io("opened"))?,
        };
        let mut bytes = vec![0; SLOT];
        let mut slot = |index: u64| -> Result<Result<(u64, Durable), String>, LedgerError> {
            let mut filled = 0;
            while filled < SLOT {
                match file.read_at(&mut bytes[filled..], index * SLOT as u64 + filled as u64) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(io("read")(e)),
                }
            }
            Ok(decode(&bytes[..filled]))
        };
        match (slot(0)?, slot(1)?) {
            (Err(first), Err(second)) => Err(LedgerError::Damaged { path, first, second }),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => {
                Ok(Some((LedgerFile { file, path, sequence: found.0 }, found.1)))
            }
            (Ok(a), Ok(b)) => {
                let newest = if a.0 >= b.0 { a } else { b };
                Ok(Some((LedgerFile { file, path, sequence: newest.0 }, newest.1)))
            }
        }
    }

    /// Makes the ledger of a first start. The file appears with its first state in it, or not at all.
    pub fn create(dir: &Path, state: &Durable) -> Result<LedgerFile, LedgerError> {
        let path = dir.join(FILE);
        let fail = |doing| {
            let path = path.clone();
            move |source| LedgerError::Io { path, doing, source }
        };
        let temporary = dir.join(format!("{FILE}.new"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail("made"))?;
        let mut bytes = encode(1, state)?;
        bytes.resize(2 * SLOT, 0);
        file.write_all(&bytes).map_err(fail("written"))?;
        file.sync_all().map_err(fail("synced"))?;
        std::fs::rename(&temporary, &path).map_err(fail("put in place"))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(fail("synced"))?;
        Ok(LedgerFile { file, path, sequence: 1 })
    }

    /// Writes a state into the older slot; it is on the disk when this returns.
    pub fn write(&mut self, state: &Durable) -> Result<(), LedgerError> {
        let sequence = self.sequence + 1;
        let bytes = encode(sequence, state)?;
        let fail = |doing| {
            let path = self.path.clone();
            move |source| LedgerError::Io { path, doing, source }
        };
        // Sequence 1 stands in slot 0.
        self.file.write_all_at(&bytes, ((sequence + 1) % 2) * SLOT as u64).map_err(fail("written"))?;
        self.file.sync_data().map_err(fail("synced"))?;
        self.sequence = sequence;
        Ok(())
    }
}

/// The content of a slot: state and number, which grows with every write.
///
/// # Errors
/// When it is larger than a slot.
pub fn encode(sequence: u64, state: &Durable) -> Result<Vec<u8>, LedgerError> {
    let payload = postcard::to_stdvec(state).map_err(LedgerError::Encode)?;
    if payload.len() > SLOT - HEAD {
        return Err(LedgerError::TooLarge { found: payload.len(), allowed: SLOT - HEAD });
    }
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &payload);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// Reads a slot.
///
/// # Errors
/// Why it holds no whole state.
pub fn decode(slot: &[u8]) -> Result<(u64, Durable), String> {
    let Some((head, rest)) = slot.split_at_checked(HEAD) else {
        return Err(format!("only {} bytes", slot.len()));
    };
    if &head[..8] != MAGIC {
        let blank = head.iter().all(|b| *b == 0);
        return Err(if blank { "never written".to_owned() } else { "not a ledger of this version".to_owned() });
    }
    let number = |at: usize, n: usize| head[at..at + n].iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    let (sequence, length, sum) = (number(8, 8), number(16, 4) as usize, number(20, 4));
    let Some(payload) = rest.get(..length) else {
        return Err(format!("a length of {length} bytes"));
    };
    let computed = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), payload);
    if u64::from(computed) != sum {
        return Err(format!("the check sum is {sum:08x}, the content has {computed:08x}"));
    }
    let (state, left) = postcard::take_from_bytes(payload).map_err(|e| format!("malformed: {e}"))?;
    if left.is_empty() { Ok((sequence, state)) } else { Err(format!("{} bytes too many", left.len())) }
}

/// The ledger's thread: writes in order, answers by a callback.
#[derive(Debug, Clone)]
pub struct Ledger {
    queue: SyncSender<(u64, Box<Durable>)>,
    pending: Arc<AtomicU64>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Ledger {
    /// Starts the thread. `durable` is called with each token once the state under it, and all before it, are on the
    /// disk. After a failed write nothing is answered any more and `failed` is called once.
    pub fn start(
        file: LedgerFile,
        durable: impl Fn(u64) + Send + 'static,
        failed: impl FnOnce(LedgerError) + Send + 'static,
    ) -> io::Result<Ledger> {
        let (queue, states) = sync_channel(QUEUE);
        let pending = Arc::new(AtomicU64::new(0));
        let since = pending.clone();
        let reason = Arc::new(Mutex::new(None));
        let told = reason.clone();
        thread::Builder::new().name("ledger".into()).stack_size(256 << 10).spawn(move || {
            if let Err(e) = serve(file, &states, &since, durable) {
                if let Ok(mut reason) = told.lock() {
                    *reason = Some(e.to_string());
                }
                failed(e);
            }
        })?;
        Ok(Ledger { queue, pending, failed: reason })
    }

    /// Queues a state. Never blocks on the disk; fails when the disk has hung for so long that the queue is full, or
    /// when a write failed.
    pub fn persist(&self, token: u64, state: Box<Durable>) -> Result<(), LedgerError> {
        if let Ok(reason) = self.failed.lock()
            && reason.is_some()
        {
            return Err(LedgerError::Gone);
        }
        let _ = self.pending.compare_exchange(0, clock::now().0.max(1), Ordering::AcqRel, Ordering::Acquire);
        match self.queue.try_send((token, state)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(LedgerError::Io {
                path: PathBuf::from(FILE),
                doing: "written",
                source: io::Error::new(io::ErrorKind::TimedOut, "the disk under the data directory hangs"),
            }),
            Err(TrySendError::Disconnected(_)) => Err(LedgerError::Gone),
        }
    }

    /// Since when the oldest unwritten state waits; `None` if nothing does. Heartbeats stop when that is too long ago
    /// (protocol-why D24).
    pub fn waiting_since(&self) -> Option<Instant> {
        match self.pending.load(Ordering::Acquire) {
            0 => None,
            since => Some(Instant(since)),
        }
    }
}

/// Writes what comes; of several waiting states only the newest has to be written, for each contains all before it.
fn serve(
    mut file: LedgerFile,
    states: &Receiver<(u64, Box<Durable>)>,
    pending: &AtomicU64,
    durable: impl Fn(u64),
) -> Result<(), LedgerError> {
    while let Ok((token, state)) = states.recv() {
        let mut tokens = vec![token];
        let mut newest = state;
        while let Ok((token, state)) = states.try_recv() {
            tokens.push(token);
            newest = state;
        }
        pending.store(clock::now().0.max(1), Ordering::Release);
        file.write(&newest)?;
        // A state queued right now sets it again at the beginning of its own write.
        pending.store(0, Ordering::Release);
        tokens.into_iter().for_each(&durable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::names::{AcceptorId, BootId};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn state(n: u64) -> Durable {
        Durable { boot_counter: n, ..Durable::fresh(AcceptorId(5), BootId(6)) }
    }

    fn reopen(dir: &Path) -> Durable {
        LedgerFile::open(dir).unwrap().unwrap().1
    }

    #[test]
    fn the_newest_state_is_read_back_and_a_missing_file_is_a_first_start() {
        let dir = tempfile::tempdir().unwrap();
        assert!(LedgerFile::open(dir.path()).unwrap().is_none());
        let mut file = LedgerFile::create(dir.path(), &state(1)).unwrap();
        assert_eq!(reopen(dir.path()), state(1));
        for n in 2..8 {
            file.write(&state(n)).unwrap();
            assert_eq!(reopen(dir.path()), state(n));
        }
        let (mut file, _) = LedgerFile::open(dir.path()).unwrap().unwrap();
        file.write(&state(9)).unwrap();
        assert_eq!(reopen(dir.path()), state(9));
    }

    /// A crash can leave any prefix of a write, or any mixture of old and new sectors, in the slot being written.
    #[test]
    fn whatever_a_crash_leaves_of_a_write_the_state_before_it_or_the_new_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LedgerFile::create(dir.path(), &state(1)).unwrap();
        for n in 2..=4 {
            file.write(&state(n)).unwrap();
        }
        let path = dir.path().join(FILE);
        let old = std::fs::read(&path).unwrap();
        file.write(&state(5)).unwrap();
        let new = std::fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..new.len()).filter(|i| old[*i] != new[*i]).collect();
        assert!(changed.iter().all(|i| *i < SLOT), "sequence 5 goes into slot 0");
        for cut in 0..=changed.len() {
            for mixed in [&changed[..cut], &changed[cut..]] {
                let mut torn = old.clone();
                mixed.iter().for_each(|i| torn[*i] = new[*i]);
                let whole = mixed.len() == changed.len();
                std::fs::write(&path, &torn).unwrap();
                assert_eq!(reopen(dir.path()).boot_counter, if whole { 5 } else { 4 }, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_damaged_ledger_stops_the_start_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        LedgerFile::create(dir.path(), &state(1)).unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEAD + 3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = LedgerFile::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("check sum") && error.contains("never written") && error.contains("move the file"));
        std::fs::write(&path, b"").unwrap();
        assert!(
            matches!(LedgerFile::open(dir.path()), Err(LedgerError::Damaged { .. })),
            "an empty file is no first start"
        );
    }

    #[test]
    fn every_token_is_answered_after_its_state_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = LedgerFile::create(dir.path(), &state(0)).unwrap();
        let (tell, told) = channel();
        let at = dir.path().to_owned();
        let durable = move |token| {
            let on_disk = reopen(&at).boot_counter;
            tell.send((token, on_disk)).unwrap();
        };
        let ledger = Ledger::start(file, durable, |e| panic!("{e}")).unwrap();
        for token in 1..=50 {
            ledger.persist(token, Box::new(state(token))).unwrap();
        }
        for token in 1..=50 {
            let (answered, on_disk) = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(answered, token);
            assert!(on_disk >= token, "token {token} answered with {on_disk} on disk");
        }
        assert_eq!(ledger.waiting_since(), None);
    }

    #[test]
    fn a_failed_write_is_never_answered() {
        let dir = tempfile::tempdir().unwrap();
        LedgerFile::create(dir.path(), &state(0)).unwrap();
        let read_only = File::open(dir.path().join(FILE)).unwrap();
        let file = LedgerFile { file: read_only, path: dir.path().join(FILE), sequence: 1 };
        let (tell, told) = channel();
        let ledger = Ledger::start(file, |_| panic!("answered"), move |e| tell.send(e.to_string()).unwrap()).unwrap();
        ledger.persist(1, Box::new(state(1))).unwrap();
        let error = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(error.contains("can't be written"), "{error}");
        assert!(ledger.persist(2, Box::new(state(2))).is_err());
    }
}
