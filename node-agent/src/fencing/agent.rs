//! One run of one fence agent: parameters as `key=value` lines on standard input, the exit code as answer, in a control
//! group of its own that is killed when the time is over. Nothing secret is on the command line, in the environment, or
//! in what is told.
//!
//! Exit codes (fence-agents, FenceAgentAPI.md): 0 success; `status` and `monitor`: 2 the plug is off; everything else is
//! a failure, and so is silence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::Cgroup;
use crate::spawn::{self, DEFAULT_PATH, Exit, Spawn, find_program};

/// What is read of the output; the rest is dropped. Metadata of the largest agent has about 25 KiB.
const OUTPUT: usize = 128 << 10;
/// A pipe takes so much at once; more parameters than that are a mistake.
const INPUT: usize = 60 << 10;
/// How long what was killed may take to be gone before it counts as hanging in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// How often an agent that says nothing is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Longest text about a run, in characters.
const SAID: usize = 300;

/// What an agent is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Switch off.
    Off,
    /// Switch on.
    On,
    /// On or off?
    Status,
    /// Can the device be reached?
    Monitor,
    /// Describe yourself.
    Metadata,
}

impl Action {
    /// The word that agents know.
    pub fn word(self) -> &'static str {
        match self {
            Action::Off => "off",
            Action::On => "on",
            Action::Status => "status",
            Action::Monitor => "monitor",
            Action::Metadata => "metadata",
        }
    }
}

/// One run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Name in `PATH`, or an absolute path.
    pub agent: &'a str,
    /// What to do.
    pub action: Action,
    /// All parameters but the action.
    pub parameters: &'a BTreeMap<String, String>,
    /// Values that must not be told.
    pub secrets: &'a [String],
    /// Longest time.
    pub timeout: Duration,
    /// Where it runs; none: among the caller's processes (a person runs it).
    pub cgroup: Option<&'a Cgroup>,
    /// Set: end it at once.
    pub cancel: &'a AtomicBool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The exit code; none: a signal.
    pub code: Option<i32>,
    /// What it printed on standard output, as it is.
    pub output: String,
    /// One line for people, without secrets.
    pub said: String,
}

/// Carries it out. Returns when nothing of it is left.
///
/// # Errors
/// A sentence: it could not be started, took too long, or was cancelled.
pub fn run(run: &Run<'_>) -> Result<Ran, String> {
    let program = program(run.agent)?;
    let input = input(run.action, run.parameters)?;
    let text = |e: nix::Error| e.to_string();
    let (their_input, our_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(text)?;
    let (our_input, their_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(text)?;
    let (our_errors, their_errors) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(text)?;
    for end in [&our_input, &our_errors] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(text)?;
    }
    // It fits into the pipe, so this waits for nobody.
    nix::unistd::write(&our_output, input.as_bytes()).map_err(text)?;
    drop(our_output);
    let directory = run.cgroup.map(Cgroup::open).transpose().map_err(|e| e.to_string())?;
    let environment = [("PATH", DEFAULT_PATH), ("HOME", "/"), ("LANG", "C.UTF-8")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let child = spawn::spawn(&Spawn {
        program: &program,
        args: &[program.display().to_string()],
        environment: &environment,
        directory: std::path::Path::new("/"),
        stdio: [Some(their_input.as_fd()), Some(their_output.as_fd()), Some(their_errors.as_fd())],
        identity: None,
        cgroup: directory.as_ref().map(AsFd::as_fd),
    })
    .map_err(|e| format!("{} can't be run: {e}", run.agent))?;
    drop((their_input, their_output, their_errors));

    let until = Instant::now() + run.timeout;
    let mut collected = Collected::new(our_input, our_errors);
    let mut problem = None;
    let exit = loop {
        collected.wait(&child.pidfd, LOOK);
        if let Some(exit) = child.reap() {
            collected.read();
            break Some(exit);
        }
        if run.cancel.load(Ordering::Relaxed) {
            problem = Some("it was called back".to_owned());
        } else if Instant::now() >= until {
            problem = Some(format!("no answer within {:?}", run.timeout));
        }
        if problem.is_some() {
            spawn::signal(&child.pidfd, nix::libc::SIGKILL);
            break None;
        }
    };
    // Nothing may go on behind an answer.
    if let Some(cgroup) = run.cgroup {
        if let Err(e) = cgroup.kill(KILL_WAIT) {
            tracing::error!(agent = run.agent, "{e}; waiting for it");
            while cgroup.populated().unwrap_or(true) {
                std::thread::sleep(LOOK);
            }
        }
        cgroup.remove();
    }
    let Some(exit) = exit.or_else(|| child.wait(None).filter(|_| problem.is_none())) else {
        let said = redact(&collected.last_line(), run.secrets);
        let said = if said.is_empty() { String::new() } else { format!("; last line: {said}") };
        return Err(format!("{}{said}", problem.unwrap_or_else(|| "its end was not seen".to_owned())));
    };
    let line = redact(&collected.last_line(), run.secrets);
    let said = if line.is_empty() { exit.to_string() } else { format!("{exit}: {line}") };
    let code = if let Exit::Code(code) = exit { Some(code) } else { None };
    Ok(Ran { code, output: String::from_utf8_lossy(&collected.output).into_owned(), said })
}

fn program(agent: &str) -> Result<PathBuf, String> {
    let advice = "install the package that has it (Debian: fence-agents), or correct the name";
    if agent.contains('/') {
        return Some(PathBuf::from(agent))
            .filter(|path| path.is_absolute() && path.is_file())
            .ok_or_else(|| format!("there is no fence agent {agent} on this server; {advice}"));
    }
    find_program(agent)
        .or_else(|| DEFAULT_PATH.split(':').map(|dir| PathBuf::from(dir).join(agent)).find(|path| path.is_file()))
        .ok_or_else(|| format!("there is no fence agent {agent} on this server; {advice}"))
}

fn input(action: Action, parameters: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = format!("action={}\n", action.word());
    for (name, value) in parameters {
        if name.contains(['=', '\n', '\0']) || value.contains(['\n', '\0']) {
            return Err(format!("parameter {name:?}: names have no =, names and values no line break"));
        }
        let _ = writeln!(text, "{name}={value}");
    }
    if text.len() > INPUT {
        return Err(format!("its parameters have {} bytes, at most {INPUT} are passed on", text.len()));
    }
    Ok(text)
}

struct Collected {
    streams: [OwnedFd; 2],
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Collected {
    fn new(output: OwnedFd, errors: OwnedFd) -> Collected {
        Collected { streams: [output, errors], output: Vec::new(), errors: Vec::new() }
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

    fn read(&mut self) {
        for (stream, into) in self.streams.iter().zip([&mut self.output, &mut self.errors]) {
            let mut buffer = [0_u8; 4096];
            while let Ok(count @ 1..) = nix::unistd::read(stream, &mut buffer) {
                let room = OUTPUT.saturating_sub(into.len());
                into.extend(buffer.iter().take(count.min(room)));
            }
        }
    }

    /// The last line that says something, errors first.
    fn last_line(&self) -> String {
        [&self.errors, &self.output]
            .into_iter()
            .find_map(|text| {
                let text = String::from_utf8_lossy(text).into_owned();
                let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
                line.map(|line| line.chars().filter(|c| !c.is_control()).take(SAID).collect())
            })
            .unwrap_or_default()
    }
}

/// Takes secrets out of a text.
fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= 3) {
        text = text.replace(secret.as_str(), "***");
    }
    text
}
