//! The deadline page: a small file in the run directory, mapped into the agent, the guard and every helper, through
//! which the agent says until when it has authority (protocol.md R9) and both watch each other (design.md C7, R23).
//!
//! Whatever reads it never blocks and never sees half of a deadline, even if the writer was killed in the middle. It
//! decides nothing: whoever reads the numbers does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use holdfast_core::names::BootId;
use holdfast_core::time::Instant;

use crate::boot::Host;
use crate::clock;

/// Name of the file in the run directory.
pub const FILE: &str = "deadline";

const MAGIC: u64 = u64::from_le_bytes(*b"HFDLINE1");
const SIZE: usize = 4096;

/// The file, byte for byte. All times are CLOCK_BOOTTIME in nanoseconds; everything is in the machine's byte order
/// because it never leaves the machine.
#[repr(C)]
struct Layout {
    magic: AtomicU64,
    boot: [AtomicU64; 2],
    /// Counts publications; the deadline is in `slots[count % 2]`.
    count: AtomicU64,
    slots: [Slot; 2],
    agent: PartyWords,
    guard: PartyWords,
    /// Not 0: the guard is stopping what an earlier lease held; nothing may start.
    enforcing: AtomicU64,
    /// Bits of [`GuardFacts`].
    facts: AtomicU64,
    /// Watchdog timeout as read back, in milliseconds; 0: the guard holds no watchdog.
    watchdog_ms: AtomicU64,
}

#[repr(C)]
struct Slot {
    soft: AtomicU64,
    kill: AtomicU64,
    end: AtomicU64,
}

#[repr(C)]
struct PartyWords {
    pid: AtomicU64,
    start: AtomicU64,
    checkpoint: AtomicU64,
}

/// Until when the server has authority (R9). [`Instant::ZERO`] in all three: it never had any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline {
    /// From here on nothing is started any more.
    pub soft: Instant,
    /// From here on the guard kills.
    pub kill: Instant,
    /// From here on nothing runs and the watchdog is not petted.
    pub end: Instant,
}

/// A process that takes part: the agent or the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// Its process number.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of /proc/PID/stat): with the number it names one process.
    pub start: u64,
    /// When it last passed its checkpoint.
    pub checkpoint: Instant,
}

impl Party {
    /// Whether exactly this process still exists and is no zombie.
    pub fn exists(&self) -> bool {
        process_start(self.pid) == Some(self.start)
    }
}

/// What the guard could arrange for itself; shown in status and part of the guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardFacts {
    /// Runs with real-time priority.
    pub real_time: bool,
    /// Its memory can't be paged out.
    pub memory_locked: bool,
    /// It could not verify that everything is stopped and never pets the watchdog again.
    pub gave_up_petting: bool,
    /// Timeout of the watchdog that it holds, as the device says it.
    pub watchdog: Option<Duration>,
}

/// Which of the two parties a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The agent.
    Agent,
    /// The guard.
    Guard,
}

/// Why the page can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The file can't be made, opened or mapped.
    #[error("deadline page {path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file isn't a deadline page of this boot.
    #[error("deadline page {path}: {found}; remove the file while no agent runs and start the agent again")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// The boot id is unknown.
    #[error(transparent)]
    Boot(#[from] crate::boot::BootError),
}

/// The mapped page. One agent writes the deadline; everybody reads it.
#[derive(Debug)]
pub struct DeadlinePage {
    map: NonNull<Layout>,
}

#[expect(unsafe_code, reason = "a shared mapping of atomics")]
// SAFETY: the mapping lives as long as the value, and everything in it is an atomic.
unsafe impl Send for DeadlinePage {}
#[expect(unsafe_code, reason = "a shared mapping of atomics")]
// SAFETY: as above.
unsafe impl Sync for DeadlinePage {}

impl DeadlinePage {
    /// Opens the page of this boot in `run_dir`, or makes it: without any authority, with nobody known. A page of an
    /// earlier boot is replaced. For the agent.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn open_or_create(run_dir: &Path) -> Result<DeadlinePage, PageError> {
        let boot = Host::default().boot_id()?;
        let path = run_dir.join(FILE);
        match DeadlinePage::map(&path, Some(boot)) {
            Ok(page) => return Ok(page),
            Err(PageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(PageError::Foreign { .. }) => {}
            Err(error) => return Err(error),
        }
        let fail = |what| {
            let path = path.clone();
            move |source| PageError::Io { path, what, source }
        };
        fs::create_dir_all(run_dir).map_err(fail("making the run directory"))?;
        // Made aside and renamed, so that nobody ever maps a page that isn't whole.
        let aside = run_dir.join(format!("{FILE}.{}", std::process::id()));
        let mut content = vec![0_u8; SIZE];
        for (i, word) in [MAGIC, (boot.0 >> 64) as u64, boot.0 as u64].into_iter().enumerate() {
            content[i * 8..i * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .map_err(fail("making it"))?;
        file.write_all(&content).map_err(fail("filling it"))?;
        fs::rename(&aside, &path).map_err(fail("putting it in place"))?;
        DeadlinePage::map(&path, Some(boot))
    }

    /// Opens an existing page of this boot. For guard and helpers.
    ///
    /// # Errors
    /// [`PageError`]; without a page there is no authority.
    pub fn open(run_dir: &Path) -> Result<DeadlinePage, PageError> {
        DeadlinePage::map(&run_dir.join(FILE), Some(Host::default().boot_id()?))
    }

    #[expect(unsafe_code, reason = "mmap")]
    fn map(path: &Path, boot: Option<BootId>) -> Result<DeadlinePage, PageError> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let fail = |what| {
            let path = path.to_owned();
            move |source: io::Error| PageError::Io { path, what, source }
        };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(fail("opening it"))?;
        let length = file.metadata().map_err(fail("looking at it"))?.len();
        let foreign = |found: String| PageError::Foreign { path: path.to_owned(), found };
        if length != SIZE as u64 {
            return Err(foreign(format!("it has {length} bytes instead of {SIZE}")));
        }
        let size = std::num::NonZeroUsize::new(SIZE).unwrap_or(std::num::NonZeroUsize::MIN);
        // SAFETY: a shared mapping of a file of at least this size; nobody shrinks it.
        let address =
            unsafe { mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0) };
        let address = address.map_err(|e| fail("mapping it")(e.into()))?;
        let page = DeadlinePage { map: address.cast() };
        let layout = page.layout();
        if layout.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(foreign("it does not begin like one".to_owned()));
        }
        let [high, low] = [0, 1].map(|i| u128::from(layout.boot[i].load(Ordering::Relaxed)));
        let found = BootId(high << 64 | low);
        if boot.is_some_and(|boot| boot != found) {
            return Err(foreign(format!("it was made in boot {found}, which is over")));
        }
        Ok(page)
    }

    #[expect(unsafe_code, reason = "view of the mapping")]
    fn layout(&self) -> &Layout {
        // SAFETY: mapped, large enough, aligned to a page, and all fields are atomics valid for any bits.
        unsafe { self.map.as_ref() }
    }

    /// Publishes a deadline. A deadline of three zeros says nothing about authority that an earlier process of this boot
    /// got, so it never overwrites one.
    pub fn publish(&self, deadline: Deadline) {
        let layout = self.layout();
        if deadline == Deadline::default() {
            return;
        }
        let count = layout.count.load(Ordering::Relaxed);
        // A reader looks only at the slot that `count` names. The other one is written, then named.
        let slot = &layout.slots[(count.wrapping_add(1) % 2) as usize];
        fence(Ordering::Release);
        slot.soft.store(deadline.soft.0, Ordering::Relaxed);
        slot.kill.store(deadline.kill.0, Ordering::Relaxed);
        slot.end.store(deadline.end.0, Ordering::Relaxed);
        layout.count.store(count.wrapping_add(1), Ordering::Release);
    }

    /// The newest deadline, whole.
    pub fn deadline(&self) -> Deadline {
        let layout = self.layout();
        loop {
            let count = layout.count.load(Ordering::Acquire);
            let slot = &layout.slots[(count % 2) as usize];
            let deadline = Deadline {
                soft: Instant(slot.soft.load(Ordering::Relaxed)),
                kill: Instant(slot.kill.load(Ordering::Relaxed)),
                end: Instant(slot.end.load(Ordering::Relaxed)),
            };
            fence(Ordering::Acquire);
            // Same count: the slot was not touched, since a writer only touches the other one before it counts on. A
            // writer killed in between leaves `count` as it is, so this loop ends without it.
            if layout.count.load(Ordering::Relaxed) == count {
                return deadline;
            }
        }
    }

    /// Whether something may be started at `now`.
    pub fn may_start(&self, now: Instant) -> bool {
        now < self.deadline().soft && !self.enforcing()
    }

    fn words(&self, role: Role) -> &PartyWords {
        match role {
            Role::Agent => &self.layout().agent,
            Role::Guard => &self.layout().guard,
        }
    }

    /// The calling process is from now on the agent, or the guard.
    pub fn claim(&self, role: Role) {
        let pid = std::process::id();
        let words = self.words(role);
        words.pid.store(0, Ordering::Release);
        words.start.store(process_start(pid as i32).unwrap_or(0), Ordering::Relaxed);
        words.checkpoint.store(clock::now().0, Ordering::Relaxed);
        words.pid.store(u64::from(pid), Ordering::Release);
    }

    /// The calling process works; to be called by what proves it (core and executor, or the guard's loop).
    pub fn checkpoint(&self, role: Role) {
        self.words(role).checkpoint.store(clock::now().0, Ordering::Release);
    }

    /// Who is agent or guard; none before the first claim.
    pub fn party(&self, role: Role) -> Option<Party> {
        let words = self.words(role);
        let pid = i32::try_from(words.pid.load(Ordering::Acquire)).ok().filter(|pid| *pid > 0)?;
        Some(Party {
            pid,
            start: words.start.load(Ordering::Relaxed),
            checkpoint: Instant(words.checkpoint.load(Ordering::Acquire)),
        })
    }

    /// The guard is stopping what an earlier lease held.
    pub fn enforcing(&self) -> bool {
        self.layout().enforcing.load(Ordering::Acquire) != 0
    }

    /// For the guard: see [`DeadlinePage::enforcing`].
    pub fn set_enforcing(&self, yes: bool) {
        self.layout().enforcing.store(u64::from(yes), Ordering::SeqCst);
    }

    /// For the guard: what it could arrange.
    pub fn set_facts(&self, facts: GuardFacts) {
        let bits =
            u64::from(facts.real_time) | u64::from(facts.memory_locked) << 1 | u64::from(facts.gave_up_petting) << 2;
        let ms = facts.watchdog.map_or(0, |w| u64::try_from(w.as_millis()).unwrap_or(u64::MAX));
        self.layout().watchdog_ms.store(ms, Ordering::Relaxed);
        self.layout().facts.store(bits, Ordering::Release);
    }

    /// What the guard could arrange.
    pub fn facts(&self) -> GuardFacts {
        let bits = self.layout().facts.load(Ordering::Acquire);
        let ms = self.layout().watchdog_ms.load(Ordering::Relaxed);
        GuardFacts {
            real_time: bits & 1 != 0,
            memory_locked: bits & 2 != 0,
            gave_up_petting: bits & 4 != 0,
            watchdog: (ms > 0).then(|| Duration::from_millis(ms)),
        }
    }
}

impl Drop for DeadlinePage {
    #[expect(unsafe_code, reason = "munmap")]
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size, and no reference into it outlives `self`.
        let _ = unsafe { nix::sys::mman::munmap(self.map.cast(), SIZE) };
    }
}

/// Start time of a live process in clock ticks since boot; none if it doesn't exist or is a zombie.
pub fn process_start(pid: i32) -> Option<u64> {
    // The kernel gives the whole line to one read that is large enough; it has at most 52 numbers.
    let mut line = [0_u8; 2048];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
    let text = str::from_utf8(&line[..length]).ok()?;
    // The name in parentheses may hold anything; what follows the last one is well formed.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_sees_parts_of_two_deadlines() {
        let dir = tempfile::tempdir().unwrap();
        let page = DeadlinePage::open_or_create(dir.path()).unwrap();
        let other = DeadlinePage::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while last < 200_000 {
                    let d = other.deadline();
                    assert_eq!((d.kill.0, d.end.0), (d.soft.0 * 2, d.soft.0 * 3));
                    assert!(d.soft.0 >= last, "went back from {last} to {}", d.soft.0);
                    last = d.soft.0;
                }
            });
            for n in 1..=200_000_u64 {
                page.publish(Deadline { soft: Instant(n), kill: Instant(2 * n), end: Instant(3 * n) });
            }
            reader.join().unwrap();
        });
    }

    #[test]
    fn the_page_survives_its_writer_and_a_restarted_agent_does_not_erase_it() {
        let dir = tempfile::tempdir().unwrap();
        let deadline = Deadline { soft: Instant(5), kill: Instant(6), end: Instant(7) };
        DeadlinePage::open_or_create(dir.path()).unwrap().publish(deadline);
        let again = DeadlinePage::open_or_create(dir.path()).unwrap();
        again.publish(Deadline::default());
        assert_eq!(again.deadline(), deadline);
        again.claim(Role::Agent);
        let me = again.party(Role::Agent).unwrap();
        assert!(me.exists() && me.pid == std::process::id() as i32);
        assert_eq!(again.party(Role::Guard), None);
    }

    #[test]
    fn a_file_that_is_no_page_is_named_and_replaced_only_by_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "x").unwrap();
        let message = DeadlinePage::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("it has 1 bytes instead of 4096"), "{message}");
        assert_eq!(DeadlinePage::open_or_create(dir.path()).unwrap().deadline(), Deadline::default());
    }
}
