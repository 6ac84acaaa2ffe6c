//! `script`: programs of the user that start, stop and check something. Exit code 0 only is success.
//!
//! Without a check, the state is what the last successful start or stop said, kept per boot in the run directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::Action;

use super::execute::{self, Execute, RUN, operation_group};
use super::plan::{Program, ScriptPlan, Source};
use super::{Job, State, Verdict, account};
use crate::cgroup::Cgroup;
use crate::helper::state_dirs;
use crate::said;
use crate::spawn::{Exit, Identity};

/// Exit code of a check: not running.
const NOT_RUNNING: i32 = 7;
/// How long what a successful stop leaves behind may take to end by itself.
const AFTER_STOP: Duration = Duration::from_millis(500);
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Carries an operation out.
pub fn run(plan: &ScriptPlan, action: Action, job: &Job) -> Verdict {
    match action {
        Action::Start => start(plan, job),
        Action::Stop => stop(plan, job),
        Action::Probe | Action::Monitor => look(plan, job),
    }
}

fn look(plan: &ScriptPlan, job: &Job) -> Verdict {
    let Some(check) = &plan.check else { return remembered(job) };
    let cgroup = job.cgroup().child(&operation_group(job.op));
    let verdict = match script(plan, check, "check", &cgroup, job) {
        Ok((Exit::Code(0), _)) => Verdict::running(),
        Ok((Exit::Code(NOT_RUNNING), said)) => Verdict::stopped().with(said),
        Ok((exit, said)) => Verdict::failed(sentence("check", exit, &said)),
        Err(problem) => Verdict::unknown(problem),
    };
    match cgroup.kill(KILL_WAIT.min(job.left())) {
        Ok(()) => cgroup.remove(),
        Err(error) => return Verdict::unknown(error.to_string()),
    }
    verdict
}

/// Note of one that was killed without its stop.
const KILLED: &str = "killed";

/// Everything of all groups was killed: no note may say any more that a script runs, and none that it is stopped, as
/// what it did beside its processes may still be there.
///
/// # Errors
/// A note can't be changed.
pub fn killed(run_dir: &Path) -> std::io::Result<()> {
    let below = |directory: &Path| -> std::io::Result<Vec<PathBuf>> {
        match fs::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.path()))
                .filter(|path| !matches!(path, Ok(path) if !path.is_dir()))
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    for group in below(&state_dirs(run_dir))? {
        for state in below(&group)?.into_iter().filter(|state| note(state).exists()) {
            keep(&state, KILLED)?;
        }
    }
    Ok(())
}

fn note(state: &Path) -> PathBuf {
    state.join("script.state")
}

fn keep(state: &Path, what: &str) -> std::io::Result<()> {
    let aside = state.join("script.new");
    fs::create_dir_all(state)?;
    fs::write(&aside, what)?;
    fs::rename(&aside, note(state))
}

fn remembered(job: &Job) -> Verdict {
    match fs::read_to_string(note(&job.state)).as_deref() {
        Ok("started") => Verdict::running(),
        Ok(KILLED) => Verdict::failed("the guard has killed what it ran, and its stop was not called since"),
        Ok(_) => Verdict::failed("its start or stop did not complete"),
        Err(_) => match job.cgroup().populated() {
            Ok(false) => Verdict::stopped(),
            Ok(true) => Verdict::failed("processes are in its control group although no start of it is recorded"),
            Err(error) => Verdict::unknown(error.to_string()),
        },
    }
}

fn remember(job: &Job, state: &str) -> Result<(), String> {
    keep(&job.state, state).map_err(|e| format!("its state can't be kept in {}: {e}", job.state.display()))
}

fn start(plan: &ScriptPlan, job: &Job) -> Verdict {
    if plan.check.is_none() && remembered(job).state == State::Running {
        return Verdict::running().with("it was started before");
    }
    if let Err(problem) = remember(job, "starting") {
        return Verdict::failed(problem);
    }
    let cgroup = job.cgroup().child(RUN);
    match script(plan, &plan.start, "start", &cgroup, job) {
        Ok((Exit::Code(0), said)) => match remember(job, "started") {
            Ok(()) => Verdict::running().with(said),
            Err(problem) => Verdict::failed(problem),
        },
        Ok((exit, said)) => Verdict::failed(sentence("start", exit, &said)),
        Err(problem) => Verdict::failed(problem),
    }
}

fn stop(plan: &ScriptPlan, job: &Job) -> Verdict {
    if let Err(problem) = remember(job, "stopping") {
        return Verdict::failed(problem);
    }
    let cgroup = job.cgroup().child(&operation_group(job.op));
    let said = match script(plan, &plan.stop, "stop", &cgroup, job) {
        Ok((Exit::Code(0), said)) => said,
        Ok((exit, said)) => return Verdict::failed(sentence("stop", exit, &said)),
        Err(problem) => return Verdict::failed(problem),
    };
    let all = job.cgroup();
    let message = match execute::end_leftovers(&all, AFTER_STOP.min(job.left()), KILL_WAIT.min(job.left())) {
        Ok(None) => said,
        Ok(Some(left)) => format!("the stop script {left}"),
        Err(problem) => return Verdict::unknown(problem),
    };
    let _ = fs::remove_file(note(&job.state));
    all.remove();
    Verdict::stopped().with(message)
}

fn sentence(what: &str, exit: Exit, said: &str) -> String {
    format!("the {what} script: {exit}; {}", said::heard(said))
}

/// Runs one script to its end; gives how it ended and the last lines that it printed.
fn script(
    plan: &ScriptPlan,
    program: &Program,
    what: &str,
    cgroup: &Cgroup,
    job: &Job,
) -> Result<(Exit, String), String> {
    let text = |e: std::io::Error| e.to_string();
    let account = account::find(&plan.user, plan.group.as_deref())?;
    fs::create_dir_all(&job.state).map_err(text)?;
    let (path, mut args) = prepare(program, what, &job.state, account.identity.as_ref())?;
    args.extend(program.args.clone());
    let mut environment = job.told_environment();
    environment.extend(account.environment);
    environment.extend(plan.environment.clone());
    let (exit, tail) = execute::to_end(&Execute {
        what,
        program: &path,
        args: &args,
        environment: &environment,
        directory: &plan.directory,
        identity: account.identity.as_ref(),
        cgroup,
        state: &job.state,
    })?;
    Ok((exit, said::last_lines(&tail)))
}

/// Puts an inline script into the run directory, for its user's eyes only, and says what to execute, with the first
/// arguments.
pub(super) fn prepare(
    program: &Program,
    what: &str,
    state: &Path,
    identity: Option<&Identity>,
) -> Result<(PathBuf, Vec<String>), String> {
    if let Source::Inline(script) = &program.source {
        let owner = identity.map(|i| (i.uid, i.gid));
        inline(state, what, script, owner).map_err(|e| format!("the inline script {what} can't be written: {e}"))?;
    }
    Ok(prepared(program, what, state))
}

/// What to execute, with the first arguments: of an inline script the interpreter of its first line, else /bin/sh. Not the
/// file itself: run directories are often mounted without permission to execute.
pub(super) fn prepared(program: &Program, what: &str, state: &Path) -> (PathBuf, Vec<String>) {
    match &program.source {
        Source::Path(path) => (path.clone(), vec![path.display().to_string()]),
        Source::Inline(script) => {
            let (interpreter, argument) = interpreter(script);
            let mut args = vec![interpreter.to_owned()];
            args.extend(argument.map(str::to_owned));
            args.push(state.join(what).display().to_string());
            (PathBuf::from(interpreter), args)
        }
    }
}

fn inline(state: &Path, what: &str, script: &str, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    let aside = state.join(format!("{what}.new"));
    fs::write(&aside, script)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o700))?;
    if let Some((uid, gid)) = owner {
        chown(&aside, Some(uid), Some(gid))?;
    }
    fs::rename(&aside, state.join(what))
}

/// Interpreter and its argument of a script's first line, as the kernel reads it: everything behind the first blank is
/// one argument.
fn interpreter(script: &str) -> (&str, Option<&str>) {
    let line = script.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim).unwrap_or_default();
    match line.split_once([' ', '\t']) {
        _ if line.is_empty() => ("/bin/sh", None),
        Some((interpreter, argument)) => (interpreter, Some(argument.trim())),
        None => (line, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter() {
        assert_eq!(interpreter("#! /usr/bin/env  python3 -u\nx"), ("/usr/bin/env", Some("python3 -u")));
        assert_eq!(interpreter("#!/bin/bash\n"), ("/bin/bash", None));
        assert_eq!(interpreter("echo hello"), ("/bin/sh", None));
    }
}
