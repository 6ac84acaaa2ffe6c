//! Running the system's own programs (`ip`, `mkfs`, `nft` …) and waiting for conditions. Does not know hosts.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Attempt, LabError, Result};

/// Set once the user wants to end; every wait of the lab looks at it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of the lab in this process end with [`LabError::Interrupted`].
pub(crate) fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Undoes [`interrupt`], for taking down, which also waits.
pub(crate) fn forget_interrupt() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}

/// Runs `program` with `args` to its end and returns its standard output.
///
/// # Errors
/// [`LabError::Spawn`] when it can't be started, [`LabError::Command`] when it fails.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    finish(command, None)
}

/// Runs a prepared command to its end, with `input` on its standard input, and returns its standard output.
///
/// # Errors
/// As [`run`].
pub fn finish(mut command: Command, input: Option<&str>) -> Result<String> {
    let line = command_line(&command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|source| LabError::Spawn { program: command.get_program().to_string_lossy().into_owned(), source })?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends without reading its input tells the reason by its status.
        let _ = pipe.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().attempt(|| format!("waiting for `{line}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let output_text = format!("{} {}", stderr.trim(), stdout.trim()).trim().to_string();
    Err(LabError::Command { command: line, status: output.status.to_string(), output: output_text })
}

/// The command as a person would type it (without quoting).
pub(crate) fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Waits until `check` says `Ok(Some(value))`. `check` returns `Ok(None)` and writes into its argument what
/// it saw, for the message when time is up; it is asked every 5 ms at first, later every 50 ms.
///
/// # Errors
/// [`LabError::Timeout`] after `limit`, with what was seen last; errors of `check` at once;
/// [`LabError::Interrupted`] when the user ends `holdfast lab up`.
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut(&mut String) -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut last = String::new();
    loop {
        if let Some(value) = check(&mut last)? {
            return Ok(value);
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(LabError::Interrupted);
        }
        let waited = start.elapsed();
        if waited >= limit {
            return Err(LabError::Timeout { what: what.to_string(), waited, last });
        }
        std::thread::sleep(Duration::from_millis(if waited < Duration::from_millis(200) { 5 } else { 50 }));
    }
}

/// CLOCK_BOOTTIME in nanoseconds: it never jumps, counts suspend, and is the same for all hosts of a lab, as
/// they share one kernel.
#[must_use]
pub fn boottime_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(|time| {
            u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
        })
        .unwrap_or(0)
}
