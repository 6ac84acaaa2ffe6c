//! `process`: a program in a control group of its own. The control group is the unit: a program that forks away and
//! ends still runs as long as one of its children does.
//!
//! The end of the program is seen by the executor, not here; restarting it is the core's decision.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::Action;
use serde::{Deserialize, Serialize};

use super::plan::ProcessPlan;
use super::{Job, Verdict, account};
use crate::deadline::process_start;
use crate::said;
use crate::spawn::{self, Exit, Spawn};

/// How long a program has to survive before its start counts: most wrong arguments and busy ports show within it.
const SURVIVAL: Duration = Duration::from_millis(10);
/// How long the kernel may take to end what was killed.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Size at which a log is rotated; one older one is kept.
pub const LOG_LIMIT: u64 = 1 << 20;

/// Which program was started: enough to find it again after a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its number.
    pub pid: i32,
    /// Its start time in clock ticks; with the number it names one process.
    pub start: u64,
    /// Its start was reported as successful. Otherwise what is found in the control group is half started.
    pub complete: bool,
}

/// File of the record in the resource's state directory.
pub fn record_file(state: &Path) -> PathBuf {
    state.join("process.json")
}

/// File that standard output and error go to.
pub fn log_file(state: &Path) -> PathBuf {
    state.join("log")
}

/// Reads the record; none if there is none or it can't be read.
pub fn record(state: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(record_file(state)).ok()?).ok()
}

/// Carries an operation out.
pub fn run(plan: &ProcessPlan, action: Action, job: &Job) -> Verdict {
    match action {
        Action::Probe | Action::Monitor => look(job),
        Action::Start => start(plan, job),
        Action::Stop => stop(plan, job),
    }
}

fn look(job: &Job) -> Verdict {
    let populated = match job.cgroup().populated() {
        Ok(populated) => populated,
        Err(error) => return Verdict::unknown(error.to_string()),
    };
    match (populated, record(&job.state)) {
        (false, _) => Verdict::stopped().with("no process of it is left"),
        (true, Some(record)) if !record.complete => Verdict::failed("its start did not complete"),
        (true, None) => Verdict::failed("processes are in its control group although no start of it is recorded"),
        (true, Some(record)) if process_start(record.pid) == Some(record.start) => Verdict::running(),
        (true, Some(_)) => Verdict::running().with("the program has ended, but processes that it started run on"),
    }
}

fn start(plan: &ProcessPlan, job: &Job) -> Verdict {
    let found = look(job);
    match found.state {
        super::State::Running => return found,
        super::State::Unknown => return found,
        super::State::Stopped => {}
        // What an interrupted start left behind is nobody's; it must not run beside the new one.
        super::State::Failed => {
            if let Err(error) = job.cgroup().kill(KILL_WAIT) {
                return Verdict::unknown(error.to_string());
            }
        }
    }
    match launch(plan, job) {
        Ok(verdict) => verdict,
        Err(problem) => {
            let _ = fs::remove_file(record_file(&job.state));
            match job.cgroup().kill(KILL_WAIT) {
                Ok(()) => Verdict::failed(problem),
                Err(error) => Verdict::unknown(format!("{problem}; {error}")),
            }
        }
    }
}

fn launch(plan: &ProcessPlan, job: &Job) -> Result<Verdict, String> {
    let text = |e: std::io::Error| e.to_string();
    let account = account::find(&plan.user, plan.group.as_deref())?;
    let name = plan.command.first().map(String::as_str).unwrap_or_default();
    let program = spawn::find_program(name)
        .ok_or_else(|| format!("process.command: there is no program {name:?} in PATH; name it with its directory"))?;
    let cgroup = job.cgroup();
    if plan.memory.is_some() {
        job.cgroups.enable(&job.group, "memory").map_err(|e| e.to_string())?;
    }
    if plan.cpu_milli.is_some() {
        job.cgroups.enable(&job.group, "cpu").map_err(|e| e.to_string())?;
    }
    let directory = cgroup.open().map_err(|e| e.to_string())?;
    if let Some(bytes) = plan.memory {
        cgroup.set("memory.max", &bytes.to_string()).map_err(|e| e.to_string())?;
    }
    if let Some(milli) = plan.cpu_milli {
        // Microseconds of processor time per period of 100 ms; the kernel's least quota is 1 ms.
        cgroup.set("cpu.max", &format!("{} 100000", (milli * 100).max(1000))).map_err(|e| e.to_string())?;
    }
    fs::create_dir_all(&job.state).map_err(text)?;
    let log = open_log(&job.state).map_err(text)?;
    let before = log.metadata().map_err(text)?.len();
    let mut environment = job.told_environment();
    environment.extend(account.environment);
    environment.extend(plan.environment.clone());
    let child = spawn::spawn(&Spawn {
        program: &program,
        args: &plan.command,
        environment: &environment,
        directory: &plan.directory,
        stdio: [None, Some(log.as_fd()), Some(log.as_fd())],
        identity: account.identity.as_ref(),
        cgroup: Some(directory.as_fd()),
    })
    .map_err(|e| e.to_string())?;
    let mut record = Record { pid: child.pid, start: process_start(child.pid).unwrap_or(0), complete: false };
    write_record(&job.state, &record).map_err(text)?;
    let ended = child.wait(Some(SURVIVAL));
    if let Some(exit) = ended {
        let forked_away = exit == Exit::Code(0) && cgroup.populated().unwrap_or(true);
        if !forked_away {
            let said = said::heard(&last_lines(&job.state, before));
            return Err(format!("{} ended at once: {exit}; {said}", program.display()));
        }
    }
    record.complete = true;
    write_record(&job.state, &record).map_err(text)?;
    Ok(Verdict::running())
}

fn stop(plan: &ProcessPlan, job: &Job) -> Verdict {
    let cgroup = job.cgroup();
    if let Some(record) = record(&job.state)
        && let Ok(pidfd) = spawn::pidfd(record.pid)
        && process_start(record.pid) == Some(record.start)
    {
        spawn::signal(&pidfd, plan.stop_signal);
        // A grace longer than the operation would end in "unknown" instead of a kill.
        let most = job.left().mul_f64(0.8);
        spawn::ended(&pidfd, Some(plan.grace.min(most)));
    }
    let was_left = cgroup.populated().unwrap_or(true);
    let left = cgroup.pids();
    if let Err(error) = cgroup.kill(KILL_WAIT.min(job.left())) {
        return Verdict::unknown(error.to_string());
    }
    let _ = fs::remove_file(record_file(&job.state));
    cgroup.remove();
    if was_left && !left.is_empty() {
        let list: Vec<String> = left.iter().take(10).map(ToString::to_string).collect();
        return Verdict::stopped()
            .with(format!("processes {} did not end within the grace and were killed", list.join(", ")));
    }
    Verdict::stopped()
}

fn write_record(state: &Path, record: &Record) -> std::io::Result<()> {
    let aside = state.join("process.new");
    fs::write(&aside, serde_json::to_vec(record)?)?;
    fs::rename(aside, record_file(state))
}

fn open_log(state: &Path) -> std::io::Result<File> {
    // Appending: after the file was cut, the next line of the program goes to its beginning.
    OpenOptions::new().append(true).create(true).mode(0o640).read(true).open(log_file(state))
}

/// Keeps a log below [`LOG_LIMIT`]: what it holds is moved to `log.1` when it is larger. Called every second, so a
/// program may exceed the limit by what it writes in a second.
///
/// # Errors
/// When a file can't be read or written.
pub fn bound_log(state: &Path) -> std::io::Result<()> {
    let path = log_file(state);
    let Ok(meta) = fs::metadata(&path) else { return Ok(()) };
    if meta.len() <= LOG_LIMIT {
        return Ok(());
    }
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    file.seek(SeekFrom::Start(meta.len() - LOG_LIMIT))?;
    let mut tail = Vec::new();
    (&mut file).take(LOG_LIMIT).read_to_end(&mut tail)?;
    File::create(state.join("log.1"))?.write_all(&tail)?;
    file.set_len(0)
}

/// Last lines of the log that were written after `from`.
pub fn last_lines(state: &Path, from: u64) -> String {
    let Ok(mut file) = File::open(log_file(state)) else { return String::new() };
    let length = file.metadata().map(|m| m.len()).unwrap_or(0);
    let begin = from.min(length).max(length.saturating_sub(4096));
    let mut tail = Vec::new();
    if file.seek(SeekFrom::Start(begin)).is_err() || file.take(4096).read_to_end(&mut tail).is_err() {
        return String::new();
    }
    said::last_lines(&String::from_utf8_lossy(&tail))
}
