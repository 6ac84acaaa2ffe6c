//! Runs one program that answers and ends: parameters on standard input, what it prints, its exit code, within a time.
//! In a control group of its own nothing of it goes on behind its answer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::Cgroup;
use crate::said;
use crate::spawn::{self, Child, Exit, Spawn};

/// What is read of the output; the rest is dropped. Metadata of the largest agent has about 50 KiB.
const OUTPUT: usize = 128 << 10;
/// A pipe takes so much at once.
pub const INPUT: usize = 60 << 10;
/// How long what was killed may take to be gone before it counts as hanging in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// How often a program that says nothing is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// One run.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The program, with its directory.
    pub program: &'a Path,
    /// Arguments, without the program's own name.
    pub args: &'a [String],
    /// All variables that it gets.
    pub environment: &'a [(String, String)],
    /// Standard input, at most [`INPUT`] bytes.
    pub input: &'a str,
    /// Longest time.
    pub timeout: Duration,
    /// Where it runs; none: among the caller's processes (a person runs it).
    pub cgroup: Option<&'a Cgroup>,
    /// Set: end it at once.
    pub cancel: &'a AtomicBool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub exit: Exit,
    /// What it printed on standard output, as it is.
    pub output: String,
    /// What it printed on standard error, as it is.
    pub errors: String,
    /// The last lines that say something, of its errors if there are any, else of its output.
    pub last_lines: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// A sentence.
    pub problem: String,
    /// As in [`Answer`].
    pub last_lines: String,
}

impl Silence {
    fn of(problem: impl ToString) -> Silence {
        Silence { problem: problem.to_string(), last_lines: String::new() }
    }
}

/// Carries it out. Returns when nothing of it is left.
///
/// # Errors
/// It could not be started, took too long, or was cancelled.
pub fn ask(ask: &Ask<'_>) -> Result<Answer, Silence> {
    let (their_input, our_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(Silence::of)?;
    let (mut collected, [their_output, their_errors]) = Collected::pipes(OUTPUT).map_err(Silence::of)?;
    // It fits into the pipe, so this waits for nobody.
    nix::unistd::write(&our_output, ask.input.as_bytes()).map_err(Silence::of)?;
    drop(our_output);
    let directory = ask.cgroup.map(Cgroup::open).transpose().map_err(Silence::of)?;
    let program = ask.program.display().to_string();
    let args: Vec<String> = std::iter::once(&program).chain(ask.args).cloned().collect();
    let child = spawn::spawn(&Spawn {
        program: ask.program,
        args: &args,
        environment: ask.environment,
        directory: Path::new("/"),
        stdio: [Some(their_input.as_fd()), Some(their_output.as_fd()), Some(their_errors.as_fd())],
        identity: None,
        cgroup: directory.as_ref().map(AsFd::as_fd),
    })
    .map_err(|e| Silence::of(format!("{program} can't be run: {e}")))?;
    drop((their_input, their_output, their_errors));

    let called_back = || ask.cancel.load(Ordering::Relaxed);
    let exit = collected.until_end(&child, Instant::now() + ask.timeout, called_back);
    let problem = match exit {
        Some(_) => String::new(),
        None if called_back() => "it was called back".to_owned(),
        None => format!("no answer within {:?}", ask.timeout),
    };
    if exit.is_none() {
        spawn::signal(&child.pidfd, nix::libc::SIGKILL);
    }
    // Nothing may go on behind an answer.
    if let Some(cgroup) = ask.cgroup {
        if let Err(e) = cgroup.kill(KILL_WAIT) {
            tracing::error!(program, "{e}; waiting for it");
            while cgroup.populated().unwrap_or(true) {
                std::thread::sleep(LOOK);
            }
        }
        cgroup.remove();
    }
    let last_lines = collected.last_lines();
    match exit {
        Some(exit) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Answer { exit, output: text(&collected.output), errors: text(&collected.errors), last_lines })
        }
        None => {
            child.wait(None);
            Err(Silence { problem, last_lines })
        }
    }
}

/// What a program has printed so far, up to a limit; the rest is read and forgotten, so that it never waits.
pub(crate) struct Collected {
    streams: [OwnedFd; 2],
    limit: usize,
    /// Its standard output.
    pub(crate) output: Vec<u8>,
    /// Its standard error.
    pub(crate) errors: Vec<u8>,
}

impl Collected {
    /// Collects at most `limit` bytes of each stream; the two ends are for the program.
    pub(crate) fn pipes(limit: usize) -> nix::Result<(Collected, [OwnedFd; 2])> {
        let (output, their_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (errors, their_errors) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        for end in [&output, &errors] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let collected = Collected { streams: [output, errors], limit, output: Vec::new(), errors: Vec::new() };
        Ok((collected, [their_output, their_errors]))
    }

    /// Reads until the program ends. None if `until` comes first, or it is called back.
    pub(crate) fn until_end(&mut self, child: &Child, until: Instant, called_back: impl Fn() -> bool) -> Option<Exit> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.wait(&child.pidfd, left.min(LOOK));
            if let Some(exit) = child.reap() {
                self.read();
                return Some(exit);
            }
            if left.is_zero() || called_back() {
                return None;
            }
        }
    }

    /// Waits for output or the process's end.
    fn wait(&mut self, pidfd: &OwnedFd, limit: Duration) {
        let mut watched = [
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.streams[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.streams[1].as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut watched, PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO));
        let closed = watched[1..].iter().any(|fd| fd.revents().is_some_and(|e| e.contains(PollFlags::POLLHUP)));
        self.read();
        // A stream that was closed is always ready: it must not make this spin.
        if closed {
            spawn::ended(pidfd, Some(limit));
        }
    }

    /// Takes what is there.
    fn read(&mut self) {
        for (stream, into) in self.streams.iter().zip([&mut self.output, &mut self.errors]) {
            let mut buffer = [0_u8; 4096];
            while let Ok(count @ 1..) = nix::unistd::read(stream, &mut buffer) {
                let room = self.limit.saturating_sub(into.len());
                into.extend(buffer.iter().take(count.min(room)));
            }
        }
    }

    /// The last lines that say something: of the errors if there are any.
    pub(crate) fn last_lines(&self) -> String {
        let mut each =
            [&self.errors, &self.output].into_iter().map(|text| said::last_lines(&String::from_utf8_lossy(text)));
        each.find(|lines| !lines.is_empty()).unwrap_or_default()
    }
}
