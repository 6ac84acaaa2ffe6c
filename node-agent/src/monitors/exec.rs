//! A program whose exit code and output say whether all is well.

use std::path::Path;
use std::time::Instant;

use holdfast_api::v1::ExecCheck;

use super::{Request, late, pattern};
use crate::ask::Collected;
use crate::resources::{Verdict, account};
use crate::said;
use crate::spawn::{self, Exit, Spawn};

/// Output that counts, per stream.
const OUTPUT: usize = 64 * 1024;

pub(super) fn run(check: &ExecCheck, request: &Request) -> Verdict {
    match execute(check, request) {
        Ok((Some(exit), collected)) => judge(check, exit, &collected),
        Ok((None, collected)) => {
            let verdict = late("the program did not end", request.timeout);
            let message = format!("{}{}", verdict.message, last(&collected));
            verdict.with(message)
        }
        Err(problem) => Verdict::unknown(problem),
    }
}

/// How it ended, none if it did not in time. It is born in the helper's own control group, so that the executor, or the
/// guard, ends it with the helper and all that it started.
fn execute(check: &ExecCheck, request: &Request) -> Result<(Option<Exit>, Collected), String> {
    let until = Instant::now() + request.timeout;
    let account = account::find(&check.run_as.user, check.run_as.group.as_deref())?;
    let name = check.command.first().map(String::as_str).unwrap_or_default();
    let program = spawn::find_program(name)
        .ok_or_else(|| format!("exec.command: there is no program {name:?} in PATH; name it with its directory"))?;
    let path = std::env::var("PATH").unwrap_or_else(|_| spawn::DEFAULT_PATH.to_owned());
    let mut environment: Vec<(String, String)> = [
        ("PATH", path),
        ("HOLDFAST_SERVER", request.server.clone()),
        ("HOLDFAST_GROUP", request.group.clone()),
        ("HOLDFAST_MONITOR", request.monitor.clone()),
        // Seconds, rounded up, as shells count.
        ("HOLDFAST_TIMEOUT", request.timeout.as_millis().div_ceil(1000).to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    environment.extend(account.environment);
    let (mut collected, [output, errors]) = Collected::pipes(OUTPUT).map_err(|e| e.to_string())?;
    let child = spawn::spawn(&Spawn {
        program: &program,
        args: &check.command,
        environment: &environment,
        directory: Path::new("/"),
        stdio: [None, Some(std::os::fd::AsFd::as_fd(&output)), Some(std::os::fd::AsFd::as_fd(&errors))],
        identity: account.identity.as_ref(),
        cgroup: None,
    })
    .map_err(|e| format!("exec.command: {name} can't be run: {e}"))?;
    drop((output, errors));
    let exit = collected.until_end(&child, until, || false);
    Ok((exit, collected))
}

fn judge(check: &ExecCheck, exit: Exit, collected: &Collected) -> Verdict {
    let expected = matches!(exit, Exit::Code(code) if check.exit_codes.iter().any(|good| i32::from(*good) == code));
    if !expected {
        return Verdict::failed(format!("{exit}{}", last(collected)));
    }
    let Some(text) = &check.output else { return Verdict::running() };
    match pattern(text) {
        Err(verdict) => verdict,
        Ok(pattern) if pattern.is_match(&collected.output) || pattern.is_match(&collected.errors) => Verdict::running(),
        Ok(_) => Verdict::failed(format!("the output does not match {text:?}{}", last(collected))),
    }
}

fn last(collected: &Collected) -> String {
    format!("; {}", said::heard(&collected.last_lines()))
}
