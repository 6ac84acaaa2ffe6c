//! One run of one fence agent: parameters as `key=value` lines on standard input, the exit code as answer, in a control
//! group of its own that is killed when the time is over. Nothing secret is on the command line, in the environment, or
//! in what is told.
//!
//! Exit codes (fence-agents, FenceAgentAPI.md): 0 success; `status` and `monitor`: 2 the plug is off; everything else is
//! a failure, and so is silence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::ask::{Ask, INPUT, ask};
use crate::cgroup::Cgroup;
use crate::redact::redact;
use crate::spawn::{DEFAULT_PATH, Exit, find_program};

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
    let environment = [("PATH", DEFAULT_PATH), ("HOME", "/"), ("LANG", "C.UTF-8")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let answer = ask(&Ask {
        program: &program,
        args: &[],
        environment: &environment,
        input: &input,
        timeout: run.timeout,
        cgroup: run.cgroup,
        cancel: run.cancel,
    })
    .map_err(|silence| {
        let line = redact(&silence.last_lines, run.secrets);
        let said = if line.is_empty() { String::new() } else { format!("; it printed: {line}") };
        format!("{}{said}", silence.problem)
    })?;
    let (exit, line) = (answer.exit, redact(&answer.last_lines, run.secrets));
    let said = if line.is_empty() { exit.to_string() } else { format!("{exit}: {line}") };
    let code = if let Exit::Code(code) = exit { Some(code) } else { None };
    Ok(Ran { code, output: answer.output, said })
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
