//! The guard: a small process of its own that ends everything when authority has ended and nobody else does it (R23).
//!
//! It knows only the deadline page and the kill list, takes no orders, talks to nobody and never waits for anybody. It
//! holds the watchdog, so that the machine is reset when even the guard is stuck. It outlives the agent; both watch each
//! other through the page.

mod aborts;
mod enforce;
pub mod kill_list;
mod settings;
mod units;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_api::v1::WatchdogMode;
use holdfast_core::time::Instant;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::cgroup::Hierarchy;
use crate::clock;
use crate::deadline::{DeadlinePage, GuardFacts, PageError, Role};
use crate::realtime;
use crate::spawn::{self, Exit, Spawn};
use crate::watchdog::{Watchdog, may_pet};
use kill_list::{Entry, KillList};
pub use settings::{GuardSettings, GuardState, guard_state};

/// How often the guard looks at page and list, beside the moments that the page names.
const LOOK: Duration = Duration::from_millis(100);
/// Silence of the agent that the guard mentions.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a new guard may take to be ready.
const READY: Duration = Duration::from_secs(2);
/// How often a watchdog that has to be there and is not is looked for.
const ARM_AGAIN: Duration = Duration::from_secs(1);
/// The guard's own log is begun anew at this size.
const LOG_LIMIT: u64 = 256 * 1024;

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);
/// The log has grown since its size was looked at. True at first: an earlier guard may have filled it.
static SAID: AtomicBool = AtomicBool::new(true);

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// It could not be started.
    #[error("the guard can't be started: {0}")]
    Start(String),
    /// It was started and is not ready.
    #[error("the guard was started, but is not ready after {waited:?}; its log is {log}: {said}")]
    NotReady {
        /// How long it had.
        waited: Duration,
        /// Its log.
        log: PathBuf,
        /// Last line of the log.
        said: String,
    },
    /// The page can't be used.
    #[error(transparent)]
    Page(#[from] PageError),
}

/// Whether a guard is alive and has passed its checkpoint within `within`.
pub fn guard_alive(page: &DeadlinePage, now: Instant, within: Duration) -> bool {
    page.party(Role::Guard).is_some_and(|guard| now.since(guard.checkpoint) <= within && guard.exists())
}

/// File of the guard's log in the run directory.
pub fn log_file(run_dir: &Path) -> PathBuf {
    run_dir.join("guard.log")
}

/// Starts a guard for this run directory, unless one is alive; a living one takes over changed settings within
/// [`LOOK`]. Blocks until it is ready. `program`: the `holdfast` program, called with `guard RUN_DIR`.
///
/// # Errors
/// [`GuardError`].
pub fn ensure_guard(program: &Path, run_dir: &Path, settings: &GuardSettings) -> Result<(), GuardError> {
    let start = |e: &dyn std::fmt::Display| GuardError::Start(e.to_string());
    let page = DeadlinePage::open_or_create(run_dir)?;
    settings.save(run_dir).map_err(|e| start(&e))?;
    let living = |page: &DeadlinePage| page.party(Role::Guard).is_some_and(|guard| guard.exists());
    if living(&page) {
        return Ok(());
    }
    let log = log_file(run_dir);
    let error = OpenOptions::new().append(true).create(true).mode(0o640).open(&log).map_err(|e| start(&e))?;
    let cgroup = Hierarchy::at(&settings.cgroup).guard().open().map_err(|e| start(&e))?;
    let environment: Vec<(String, String)> = std::env::vars().filter(|(name, _)| name == "PATH").collect();
    let child = spawn::spawn(&Spawn {
        program,
        args: &["holdfast".to_owned(), "guard".to_owned(), run_dir.display().to_string()],
        environment: &environment,
        directory: Path::new("/"),
        stdio: [None, None, Some(error.as_fd())],
        identity: None,
        cgroup: Some(cgroup.as_fd()),
    })
    .map_err(|e| start(&e))?;
    let began = std::time::Instant::now();
    // The first process ends when the second one, the guard, runs: so the guard is nobody's child here.
    let exit = child.wait(Some(READY));
    while !living(&page) && began.elapsed() < READY && matches!(exit, Some(Exit::Code(0))) {
        std::thread::sleep(Duration::from_millis(1));
    }
    if living(&page) {
        return Ok(());
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    let said = text.lines().last().unwrap_or("it said nothing").to_owned();
    Err(GuardError::NotReady { waited: READY, log, said })
}

/// Asks the guard to end; it does so only when nothing is held, and disarms the watchdog then.
pub fn dismiss_guard(page: &DeadlinePage) {
    if let Some(guard) = page.party(Role::Guard)
        && let Ok(pidfd) = spawn::pidfd(guard.pid)
        && guard.exists()
    {
        spawn::signal(&pidfd, Signal::SIGTERM as i32);
    }
}

/// The program `holdfast guard RUN_DIR`. Returns at once; the guard itself goes on in the background.
#[expect(unsafe_code, reason = "fork in a process with one thread")]
pub fn guard_main(run_dir: &Path) -> ExitCode {
    let settings = match GuardSettings::load(run_dir) {
        Ok(settings) => settings,
        Err(error) => {
            say(&format!("holdfast guard is started by the agent: {error}"));
            return ExitCode::from(2);
        }
    };
    // SAFETY: nothing has started a thread yet.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Parent { .. }) => return ExitCode::SUCCESS,
        Ok(nix::unistd::ForkResult::Child) => {}
        Err(error) => {
            say(&format!("fork: {error}"));
            return ExitCode::FAILURE;
        }
    }
    match Guard::begin(run_dir, settings) {
        Ok(mut guard) => guard.run(),
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// A line for the log. Its file is on a tmpfs, so this never waits; a failure is ignored, for there is nobody to tell.
fn say(text: &str) {
    use std::io::Write;
    let seconds = clock::now().0 as f64 / 1e9;
    let _ = writeln!(io::stderr(), "[{seconds:.6}] guard {}: {text}", std::process::id());
    SAID.store(true, Ordering::Relaxed);
}

struct Guard {
    run_dir: PathBuf,
    settings: GuardSettings,
    page: DeadlinePage,
    list: KillList,
    held: Vec<Entry>,
    /// The list is there and can't be read: something is held, nobody knows what.
    unreadable: bool,
    /// Identity of the list's file when `held` was read.
    list_seen: Option<Seen>,
    settings_seen: Option<Seen>,
    watchdog: Option<Watchdog>,
    watchdog_problem: Option<String>,
    /// When the watchdog is petted, or looked for again.
    next_pet: Instant,
    facts: GuardFacts,
    warnings: Vec<String>,
    agent_silent: bool,
    _lock: Flock<File>,
}

/// Identity, length and time of a file: another one after every change.
pub(crate) type Seen = (u64, u64, i64, i64);

/// [`Seen`] of a file; none if there is none.
pub(crate) fn seen(path: &Path) -> Option<Seen> {
    fs::metadata(path).ok().map(|m| (m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

impl Guard {
    fn begin(run_dir: &Path, settings: GuardSettings) -> Result<Guard, String> {
        let lock = File::create(run_dir.join("guard.lock")).map_err(|e| format!("guard.lock: {e}"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| format!("another guard of {} is alive ({e})", run_dir.display()))?;
        let page = DeadlinePage::open(run_dir).map_err(|e| e.to_string())?;
        let mut guard = Guard {
            run_dir: run_dir.to_owned(),
            list: KillList::of(run_dir),
            held: Vec::new(),
            unreadable: false,
            list_seen: None,
            settings_seen: settings::seen(run_dir),
            settings,
            page,
            watchdog: None,
            watchdog_problem: None,
            next_pet: clock::now(),
            facts: GuardFacts::default(),
            warnings: Vec::new(),
            agent_silent: false,
            _lock: lock,
        };
        guard.protect();
        enforce::rehearse(&Hierarchy::at(&guard.settings.cgroup));
        guard.arm();
        guard.page.claim(Role::Guard);
        Ok(guard)
    }

    fn protect(&mut self) {
        if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
            self.warn(format!("not protected from the OOM killer: {error}"));
        }
        match realtime::raise_this_thread() {
            Ok(()) => self.facts.real_time = true,
            Err(error) => self.warn(format!("no real-time priority: {error}; under full load it may act late")),
        }
        match realtime::lock_memory() {
            Ok(()) => self.facts.memory_locked = true,
            Err(error) => self.warn(format!("memory is not locked: {error}; when memory is short it may act late")),
        }
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            extern "C" fn note(_: i32) {
                ASKED_TO_END.store(true, Ordering::Relaxed);
            }
            let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
            #[expect(unsafe_code, reason = "sigaction")]
            // SAFETY: the handler only stores into an atomic.
            let set = unsafe { sigaction(signal, &action) };
            if let Err(error) = set {
                self.warn(format!("{signal} is not handled: {error}"));
            }
        }
        #[expect(unsafe_code, reason = "sigaction")]
        // SAFETY: ignoring needs no handler.
        let _ = unsafe { nix::sys::signal::signal(Signal::SIGHUP, SigHandler::SigIgn) };
    }

    fn warn(&mut self, text: String) {
        say(&format!("warning: {text}"));
        self.warnings.push(text);
    }

    /// Opens the watchdog as the settings say.
    fn arm(&mut self) {
        let wanted = self.settings.watchdog.clone();
        self.watchdog = None;
        let mut problem = None;
        if wanted.mode != WatchdogMode::Disabled {
            match Watchdog::arm(&wanted.device, wanted.timeout) {
                Ok(watchdog) => {
                    say(&format!("{} ({}), {:?}", wanted.device.display(), watchdog.identity(), watchdog.timeout()));
                    self.watchdog = Some(watchdog);
                }
                Err(error) => problem = Some(error.to_string()),
            }
        }
        self.next_pet = clock::now();
        self.trouble(problem);
        self.publish();
    }

    /// Keeps why the watchdog does not work, and says each change once.
    fn trouble(&mut self, problem: Option<String>) {
        if problem != self.watchdog_problem {
            match &problem {
                Some(problem) => say(&format!("warning: {problem}")),
                None => say("the watchdog works"),
            }
            self.watchdog_problem = problem;
            self.publish();
        }
    }

    /// A server that must have a watchdog takes no part without one, so a device that comes late (its driver is loaded
    /// after the agent) may be armed at any time: no promise to others rests on its absence.
    fn arm_late(&mut self, now: Instant) {
        let required = self.settings.watchdog.mode == WatchdogMode::Required;
        if required && self.watchdog.is_none() && self.nothing_held() && now >= self.next_pet + ARM_AGAIN {
            self.arm();
        }
    }

    fn publish(&mut self) {
        self.facts.watchdog = self.watchdog.as_ref().map(Watchdog::timeout);
        self.page.set_facts(self.facts);
        let state = GuardState {
            pid: std::process::id(),
            watchdog: self.watchdog.as_ref().map(|w| w.identity().to_owned()),
            watchdog_timeout: self.facts.watchdog,
            watchdog_problem: self.watchdog_problem.clone(),
            warnings: self.warnings.clone(),
        };
        if let Err(error) = state.save(&self.run_dir) {
            say(&format!("warning: its state can't be shown: {error}"));
        }
    }

    fn run(&mut self) -> ExitCode {
        // An earlier guard died over it: nothing may start before it is finished.
        if self.page.enforcing() {
            self.look();
            self.enforce();
        }
        loop {
            self.page.checkpoint(Role::Guard);
            self.look();
            let (now, deadline) = (clock::now(), self.page.deadline());
            if !self.nothing_held() && now >= deadline.kill {
                self.enforce();
                continue;
            }
            self.pet(now, deadline.end);
            self.arm_late(now);
            if ASKED_TO_END.swap(false, Ordering::Relaxed) {
                if self.nothing_held() {
                    if let Some(watchdog) = self.watchdog.take() {
                        let _ = watchdog.disarm();
                    }
                    say("asked to end; nothing is held");
                    return ExitCode::SUCCESS;
                }
                say("asked to end, but groups are held: it stays until they are stopped");
            }
            self.watch_agent(now);
            let pet = self.watchdog.as_ref().map(|_| self.next_pet);
            let wake = [Some(now + LOOK), (deadline.kill > now).then_some(deadline.kill), pet];
            sleep_until(wake.into_iter().flatten().min().unwrap_or(now + LOOK));
        }
    }

    fn nothing_held(&self) -> bool {
        self.held.is_empty() && !self.unreadable
    }

    /// Reads what has changed.
    fn look(&mut self) {
        let path = self.run_dir.join("kill.list");
        let found = seen(&path);
        if found != self.list_seen || self.list_seen.is_none() {
            match self.list.entries() {
                Ok(entries) => {
                    self.held = entries;
                    self.unreadable = false;
                    self.list_seen = found;
                }
                Err(error) if !self.unreadable => {
                    // What was read last is still held, as far as anybody knows.
                    self.unreadable = true;
                    say(&format!("warning: the kill list can't be read: {error}; all control groups count as held"));
                }
                Err(_) => {}
            }
        }
        // New settings are taken only while nothing is held: until then nobody has to look for them.
        let found = if self.nothing_held() { settings::seen(&self.run_dir) } else { self.settings_seen };
        if found != self.settings_seen {
            self.settings_seen = found;
            match GuardSettings::load(&self.run_dir) {
                Ok(settings) if settings != self.settings => {
                    if let Some(watchdog) = self.watchdog.take() {
                        let _ = watchdog.disarm();
                    }
                    self.settings = settings;
                    self.arm();
                }
                Ok(_) => {}
                Err(error) => say(&format!("warning: new settings are not taken: {error}")),
            }
        }
        // Only this process writes it, apart from what a new guard says before it finds this one.
        let log = log_file(&self.run_dir);
        if SAID.swap(false, Ordering::Relaxed)
            && fs::metadata(&log).is_ok_and(|m| m.len() > LOG_LIMIT)
            && let Ok(file) = OpenOptions::new().write(true).open(&log)
        {
            let _ = file.set_len(0);
        }
    }

    fn pet(&mut self, now: Instant, end: Instant) {
        let Some(watchdog) = &self.watchdog else { return };
        if now < self.next_pet || !may_pet(now, end, self.nothing_held(), self.facts.gave_up_petting) {
            return;
        }
        self.next_pet = now + watchdog.period();
        let device = self.settings.watchdog.device.display();
        let failed = |error| format!("watchdog.device {device}: petting it: {error}; the machine may be reset");
        let problem = watchdog.pet().err().map(failed);
        self.trouble(problem);
    }

    fn watch_agent(&mut self, now: Instant) {
        let Some(agent) = self.page.party(Role::Agent) else { return };
        let silence = now.since(agent.checkpoint);
        let silent = silence > SILENCE;
        if silent && !self.agent_silent {
            let state = if agent.exists() { "does not pass its checkpoint" } else { "is gone" };
            say(&format!("the agent (process {}) {state} since {silence:?}", agent.pid));
        } else if !silent && self.agent_silent {
            say("the agent works again");
        }
        self.agent_silent = silent;
    }

    /// Stops everything that is held, again and again until that is verified.
    fn enforce(&mut self) {
        let began = clock::now();
        let end = self.page.deadline().end;
        say(&format!("authority has ended and {} resources may run: stopping them", self.held.len()));
        self.page.set_enforcing(true);
        let cgroups = Hierarchy::at(&self.settings.cgroup);
        let mut enforcement = enforce::Enforcement::begin(&self.page, cgroups, self.held.clone(), &self.run_dir);
        loop {
            self.page.checkpoint(Role::Guard);
            let left = enforcement.round();
            let now = clock::now();
            if left.is_empty() {
                break;
            }
            if now >= end && !self.facts.gave_up_petting {
                self.facts.gave_up_petting = true;
                self.publish();
                let reset = if self.watchdog.is_some() { "the watchdog will reset the machine" } else { "NO WATCHDOG" };
                say(&format!(
                    "not verified stopped at the end of authority, never petting again, {reset}: {}",
                    left.join("; ")
                ));
            }
            self.pet(now, end);
            std::thread::sleep(Duration::from_millis(1));
        }
        while let Err(error) = self.list.clear() {
            say(&format!("the kill list can't be emptied: {error}"));
            std::thread::sleep(LOOK);
        }
        self.held.clear();
        self.list_seen = None;
        say(&format!("verified stopped after {:?}", clock::now().since(began)));
        self.page.set_enforcing(false);
    }
}

fn sleep_until(moment: Instant) {
    use nix::sys::time::TimeSpec;
    use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
    let time = TimeSpec::new((moment.0 / 1_000_000_000) as i64, (moment.0 % 1_000_000_000) as i64);
    // Woken early by a signal: the loop looks and sleeps again.
    let _ = clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &time);
}
