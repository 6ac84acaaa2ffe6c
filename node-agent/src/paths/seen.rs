//! The newest heartbeat of every server, kept over restarts of the agent: what was recorded on a network and is sent
//! again to an agent that has just started is no sign of life, and no evidence of anything (protocol-why D26).
//!
//! While the process runs, the core refuses repetitions by itself. Here is what it would not know after a start: the
//! boot counter and send time that had arrived before. They are written once a second by a thread of their own, so that
//! a slow disk delays nothing; what came in the last second before a crash may be repeated once.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use holdfast_core::compact::Compact;
use holdfast_core::frame::Frame;
use holdfast_core::names::ServerName;
use holdfast_core::time::Instant;
use serde::{Deserialize, Serialize};

use crate::clock;

/// File in the data directory.
pub const FILE: &str = "heard";
const EVERY: Duration = Duration::from_secs(1);
/// Another boot of a server is remembered once the one before was silent for so long: of two machines with one name the
/// second is not to shut the first one out after the next start.
const SILENT: Duration = Duration::from_secs(10);
/// Size of the file: sixteen servers fit many times.
const SIZE: usize = 4096;

/// Who says something, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    acceptor: u64,
    counter: u64,
    boot: u64,
    /// In µs, as all paths can carry it.
    sent: u64,
}

impl From<&Frame> for Mark {
    fn from(frame: &Frame) -> Mark {
        let (acceptor, boot) = (frame.acceptor.folded(), frame.boot.folded());
        Mark { acceptor, counter: frame.boot_counter, boot, sent: frame.sequence / 1000 }
    }
}

impl From<&Compact> for Mark {
    fn from(compact: &Compact) -> Mark {
        let Compact { acceptor, boot, boot_counter: counter, sequence, .. } = *compact;
        Mark { acceptor, counter, boot, sent: sequence / 1000 }
    }
}

/// The newest heartbeat of every server.
pub type Marks = BTreeMap<ServerName, Mark>;

/// What was heard, before the start and since.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    before: Arc<Marks>,
    newest: Arc<Mutex<Newest>>,
}

/// The newest heartbeat of every server, and when it arrived.
type Newest = BTreeMap<ServerName, (Mark, Instant)>;

impl Seen {
    /// Reads the file of a data directory and keeps it up to date from now on. A damaged file counts as none.
    pub fn open(data_dir: &Path) -> io::Result<Seen> {
        let path = data_dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let mut bytes = vec![0; SIZE];
        let length = file.read_at(&mut bytes, 0)?;
        let before = match decode(&bytes[..length]) {
            Ok(marks) => marks,
            Err(reason) => {
                tracing::warn!("{}: {reason}; what was heard before this start is not known", path.display());
                Marks::new()
            }
        };
        let kept = before.iter().map(|(name, mark)| (name.clone(), (*mark, Instant::ZERO))).collect();
        let newest: Arc<Mutex<Newest>> = Arc::new(Mutex::new(kept));
        let theirs = Arc::downgrade(&newest);
        thread::Builder::new().name("heard".into()).stack_size(128 << 10).spawn(move || keep(&path, &file, &theirs))?;
        Ok(Seen { before: Arc::new(before), newest })
    }

    /// Takes a heartbeat, unless it was sent before this process started.
    pub fn take(&self, from: &ServerName, mark: Mark) -> Result<(), String> {
        if let Some(before) = self.before.get(from).filter(|before| before.acceptor == mark.acceptor) {
            if mark.counter < before.counter {
                return Err(format!(
                    "{from} speaks from its boot number {}, and boot number {} was heard before: a repetition, or a \
                     machine that was set back to an earlier state",
                    mark.counter, before.counter
                ));
            }
            if mark.boot == before.boot && mark.sent <= before.sent {
                return Err(format!("a heartbeat of {from} is repeated: it was sent before this agent started"));
            }
        }
        let now = clock::now();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let later = newest.get(from).is_none_or(|(known, at)| {
            if known.boot == mark.boot {
                return known.sent < mark.sent;
            }
            (known.acceptor != mark.acceptor || known.counter < mark.counter) && now.since(*at) >= SILENT
        });
        if later {
            newest.insert(from.clone(), (mark, now));
        }
        Ok(())
    }
}

/// Writes what changed until nobody is left who could change it.
fn keep(path: &Path, file: &File, newest: &Weak<Mutex<Newest>>) {
    let mut written = Marks::new();
    let mut failed = false;
    loop {
        thread::sleep(EVERY);
        let Some(newest) = newest.upgrade() else { return };
        let newest_now = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let marks: Marks = newest_now.into_iter().map(|(name, (mark, _))| (name, mark)).collect();
        drop(newest);
        if marks == written {
            continue;
        }
        // Not synced: after a crash of the machine it is some seconds old, which costs as many seconds of protection.
        match file.write_all_at(&encode(&marks), 0) {
            Ok(()) => (written, failed) = (marks, false),
            Err(e) if !failed => {
                tracing::warn!("{} can't be written: {e}", path.display());
                failed = true;
            }
            Err(_) => {}
        }
    }
}

/// Length, CRC-32C and postcard form, padded.
pub fn encode(marks: &Marks) -> Vec<u8> {
    let content = postcard::to_stdvec(marks).unwrap_or_default();
    let mut out = (content.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    out.extend_from_slice(&content);
    out.resize(SIZE.max(out.len()), 0);
    out
}

/// Reads what [`Seen`] wrote; nothing written yet is nothing heard.
pub fn decode(bytes: &[u8]) -> Result<Marks, String> {
    if bytes.is_empty() {
        return Ok(Marks::new());
    }
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or("it is too short")?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let content = rest.get(..word(0) as usize).ok_or("it is too short for what it announces")?;
    if crc32c::crc32c(content) != word(4) {
        return Err("its check sum is wrong".to_owned());
    }
    postcard::from_bytes(content).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{frame, wait};

    fn of(sequence: u64, counter: u64, boot: u128) -> Mark {
        let boot = holdfast_core::names::BootId(boot);
        Mark::from(&Frame { boot_counter: counter, boot, ..frame("b", sequence) })
    }

    #[test]
    fn what_was_heard_before_a_restart_is_a_repetition_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let b: ServerName = "b".into();
        let first = Seen::open(dir.path()).unwrap();
        for sequence in [1_000_000, 9_000_000, 5_000_000] {
            // The same heartbeats on other paths are the core's matter.
            first.take(&b, of(sequence, 3, 33)).unwrap();
        }
        wait("the file to be written", || {
            let marks = decode(&std::fs::read(dir.path().join(FILE)).unwrap()).ok()?;
            marks.get("b").filter(|mark| mark.sent == 9_000).map(drop)
        });
        drop(first);

        let second = Seen::open(dir.path()).unwrap();
        for recorded in [of(1_000_000, 3, 33), of(9_000_000, 3, 33)] {
            assert!(second.take(&b, recorded).unwrap_err().contains("sent before this agent started"));
        }
        let earlier = second.take(&b, of(99_000_000, 2, 22)).unwrap_err();
        assert!(earlier.contains("boot number 2, and boot number 3 was heard before"), "{earlier}");
        second.take(&b, of(9_001_000, 3, 33)).expect("the next one of the same boot, though its agent was restarted");
        second.take(&b, of(1_000, 4, 44)).expect("the first one of the next boot");
        second.take(&"c".into(), of(1, 1, 1)).expect("somebody else");
        let fresh = Frame { acceptor: holdfast_core::names::AcceptorId(8), ..frame("b", 1) };
        second.take(&b, Mark::from(&fresh)).expect("a server that was installed anew");
    }

    #[test]
    fn a_damaged_file_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = encode(&[("b".into(), of(9_000_000, 3, 33))].into());
        bytes[9] ^= 1;
        std::fs::write(dir.path().join(FILE), bytes).unwrap();
        Seen::open(dir.path()).unwrap().take(&"b".into(), of(1, 1, 1)).unwrap();
    }
}
