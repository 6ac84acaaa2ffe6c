//! Runs a program that starts, stops or checks something, to its end. What it prints goes to a file that shows the last
//! run, so what it leaves running can't block on a pipe that nobody reads.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::stray;
use crate::cgroup::Cgroup;
use crate::spawn::{self, Exit, Identity, Spawn};

/// Control group, below the resource's, of a start and of all that it leaves running.
pub const RUN: &str = "run";

/// Control group, below the resource's, of an operation that must not end what runs when it is killed.
pub fn operation_group(op: u64) -> String {
    format!("op-{op}")
}

/// Whether a control group is one of these.
pub fn is_operation_group(name: &str) -> bool {
    name.strip_prefix("op-").is_some_and(|number| number.parse::<u64>().is_ok())
}

/// In the state of a resource: a program that starts it was begun, and its end was not seen.
const UNDER_WAY: &str = "start.under-way";

/// Whether a program that starts the resource was begun and its end was not seen: it may run on in [`RUN`].
pub fn start_is_under_way(state: &Path) -> bool {
    state.join(UNDER_WAY).exists()
}

/// None of them runs on.
pub fn start_has_ended(state: &Path) {
    // On a tmpfs, where nothing but its absence keeps it from being removed; one that stays ends what is started once more.
    let _ = fs::remove_file(state.join(UNDER_WAY));
}

/// How often it is looked where the program's processes are.
const LOOK: Duration = Duration::from_millis(50);

/// One run.
#[derive(Debug)]
pub struct Execute<'a> {
    /// What it does, for messages and the name of its log.
    pub what: &'a str,
    /// The program.
    pub program: &'a Path,
    /// Arguments, the program's name first.
    pub args: &'a [String],
    /// All variables that it gets.
    pub environment: &'a [(String, String)],
    /// Where it runs.
    pub directory: &'a Path,
    /// As whom; none: as the agent.
    pub identity: Option<&'a Identity>,
    /// Its control group.
    pub cgroup: &'a Cgroup,
    /// Directory of its log.
    pub state: &'a Path,
}

/// Gives how it ended and the end of what it printed, at most 4096 bytes.
///
/// # Errors
/// A sentence: it could not be run.
pub fn to_end(run: &Execute<'_>) -> Result<(Exit, String), String> {
    // The executor kills this process and the program when the time is over.
    let (exit, tail) = within(run, None)?;
    Ok((exit.ok_or_else(|| format!("the end of the {} program was not seen", run.what))?, tail))
}

/// The same within a time of its own; no exit: it runs on, to be killed with its control group.
///
/// # Errors
/// A sentence: it could not be run.
pub fn within(run: &Execute<'_>, limit: Option<Duration>) -> Result<(Option<Exit>, String), String> {
    let text = |e: std::io::Error| e.to_string();
    let what = run.what;
    fs::create_dir_all(run.state).map_err(text)?;
    let output = run.state.join(format!("{what}.log"));
    // Anew for each run: it is bounded by the run's length and shows the last one.
    let mut log = File::options().read(true).write(true).create(true).truncate(true).open(&output).map_err(text)?;
    let directory = run.cgroup.open().map_err(|e| e.to_string())?;
    let starts = run.cgroup.path().file_name().is_some_and(|name| name == RUN);
    if starts {
        fs::write(run.state.join(UNDER_WAY), "").map_err(text)?;
    }
    let child = spawn::spawn(&Spawn {
        program: run.program,
        args: run.args,
        environment: run.environment,
        directory: run.directory,
        stdio: [None, Some(log.as_fd()), Some(log.as_fd())],
        identity: run.identity,
        cgroup: Some(directory.as_fd()),
    })
    .map_err(|e| format!("the {what} program can't be run: {e}"))?;
    let began = Instant::now();
    let all = run.cgroup.path().parent().map_or_else(|| run.cgroup.clone(), Cgroup::at);
    let exit = loop {
        let (looked, left) = (Instant::now(), limit.map(|limit| limit.saturating_sub(began.elapsed())));
        let exit = child.wait(Some(left.map_or(LOOK, |left| left.min(LOOK))));
        // What goes astray is out of reach of whoever ends this operation: not for longer than a moment.
        stray::bring_back(&all, run.cgroup)?;
        // It has ended, and its end can't be learnt.
        let lost = exit.is_none() && looked.elapsed() < LOOK && left.is_none();
        if exit.is_some() || lost || left.is_some_and(|left| left.is_zero()) {
            break exit;
        }
    };
    if starts && exit.is_some() {
        start_has_ended(run.state);
    }
    let length = log.metadata().map(|m| m.len()).unwrap_or(0);
    let mut tail = Vec::new();
    let _ = log.seek(SeekFrom::Start(length.saturating_sub(4096)));
    let _ = log.take(4096).read_to_end(&mut tail);
    Ok((exit, String::from_utf8_lossy(&tail).into_owned()))
}

/// What a program left running in a control group after it said that all is stopped is ended. Gives a sentence about it.
///
/// # Errors
/// A sentence: something hangs in the kernel.
pub fn end_leftovers(all: &Cgroup, wait: Duration, kill: Duration) -> Result<Option<String>, String> {
    if all.wait_empty(wait).is_ok() {
        return Ok(None);
    }
    let left = all.pids();
    all.kill(kill).map_err(|e| e.to_string())?;
    let list: Vec<String> = left.iter().take(10).map(ToString::to_string).collect();
    Ok(Some(format!("left processes {} running; they were killed", list.join(", "))))
}
