//! Operation Exec (U10): commands that operators run on this server. Only where `spec.exec.enabled` of the accepted
//! sub-cluster says so; and what is run stands in the Operation, which only those can make who have the verb for it, not
//! in the request, which agents of other servers can write.
//!
//! Each runs at most once, also when the agent ends meanwhile: a file with the Operation's uid is made before the start, and
//! its result is written into it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_api::v1::{
    ExecResult, Operation, OperationMode, OperationPhase, OperationType, StepState, SubCluster, TargetKind,
};
use tokio::sync::{mpsc, watch};

use crate::ask::{self, Ask};
use crate::cgroup::Hierarchy;
use crate::convert::clip;
use crate::spawn::{self, Exit};

/// As much of the output as is reported.
const OUTPUT: usize = 8 << 10;

/// A command that is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Name of the Operation.
    pub operation: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Longest time.
    pub timeout: Duration,
}

/// All that are to be run now, by the Operation's uid; none before the API was asked.
pub type Jobs = Option<BTreeMap<String, Job>>;

/// What an Operation asks of this server; none: nothing.
pub fn job(operation: &Operation, uid: &str, sub: &SubCluster, server: &str) -> Option<Job> {
    let spec = &operation.spec;
    let asks = matches!(spec.type_, OperationType::Exec | OperationType::Upgrade)
        && spec.mode == OperationMode::Execute
        && !spec.cancel
        && operation.metadata.uid.as_deref() == Some(uid)
        && operation.status.as_ref().and_then(|status| status.phase) == Some(OperationPhase::Running);
    let name = sub.metadata.name.as_deref().unwrap_or_default();
    let ours = match spec.target.kind {
        TargetKind::SubCluster => spec.target.name == name,
        TargetKind::SuperCluster => sub.spec.super_cluster.as_ref().is_some_and(|whole| whole.name == spec.target.name),
        _ => false,
    };
    let (command, timeout) = match (&spec.exec, &spec.upgrade) {
        (Some(exec), _) if holdfast_api::exec::names(exec, name, server) => (exec.command.clone(), exec.timeout.get()),
        // Only while it is this server's turn.
        (None, Some(upgrade)) if is_serviced(operation, &format!("{name}.{server}")) => {
            (upgrade.command.clone(), spec.timeout.get())
        }
        _ => return None,
    };
    let named = asks && ours && !command.is_empty();
    named.then_some(Job { operation: operation.metadata.name.clone()?, command, timeout })
}

fn is_serviced(operation: &Operation, server: &str) -> bool {
    let step = holdfast_api::exec::service_step(server);
    let steps = operation.status.iter().flat_map(|status| &status.steps);
    steps.into_iter().any(|one| one.name == step && one.state == StepState::Running)
}

/// Where they run and are noted.
#[derive(Debug, Clone)]
pub struct Place {
    /// Directory for notes.
    pub directory: PathBuf,
    /// Control groups of this agent.
    pub cgroups: Hierarchy,
    /// This server.
    pub server: String,
}

/// What is known of a command that is asked for.
enum Known {
    New,
    Ended(ExecResult),
}

impl Place {
    fn file(&self, uid: &str) -> PathBuf {
        self.directory.join(uid)
    }

    /// Notes that it begins, durably; or gives what came of it before.
    fn begin(&self, uid: &str) -> io::Result<Known> {
        fs::create_dir_all(&self.directory)?;
        match OpenOptions::new().write(true).create_new(true).open(self.file(uid)) {
            Ok(file) => {
                file.sync_all()?;
                File::open(&self.directory)?.sync_all()?;
                Ok(Known::New)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let text = fs::read_to_string(self.file(uid))?;
                let lost = "the agent ended while the command ran; look on this server what it did";
                Ok(Known::Ended(serde_json::from_str(&text).unwrap_or_else(|_| failed(uid, lost))))
            }
            Err(error) => Err(error),
        }
    }

    fn end(&self, result: &ExecResult) -> io::Result<()> {
        let new = self.directory.join(format!("{}.new", result.id));
        let mut file = File::create(&new)?;
        file.write_all(serde_json::to_string(result)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, self.file(&result.id))
    }

    /// Forgets those that nobody asks for any more.
    fn keep(&self, wanted: &BTreeMap<String, Job>, running: &BTreeMap<String, Arc<AtomicBool>>) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !wanted.contains_key(&name) && !running.contains_key(&name) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    fn run(&self, uid: &str, job: &Job, cancel: &AtomicBool) -> ExecResult {
        let name = job.command.first().map(String::as_str).unwrap_or_default();
        let Some(program) = spawn::find_program(name) else {
            return failed(uid, &format!("there is no program {name:?} in PATH; name it with its directory"));
        };
        let path = std::env::var("PATH").unwrap_or_else(|_| spawn::DEFAULT_PATH.to_owned());
        let environment =
            [("PATH", path), ("HOLDFAST_SERVER", self.server.clone()), ("HOLDFAST_OPERATION", job.operation.clone())]
                .map(|(name, value)| (name.to_owned(), value));
        let cgroup = self.cgroups.exec(uid);
        let answer = ask::ask(&Ask {
            program: &program,
            args: job.command.get(1..).unwrap_or_default(),
            environment: &environment,
            input: "",
            timeout: job.timeout,
            cgroup: Some(&cgroup),
            cancel,
        });
        match answer {
            Ok(answer) => {
                let output: String = [answer.output, answer.errors].concat();
                let kept = holdfast_api::exec::beginning(&output, OUTPUT);
                let message = match answer.exit {
                    Exit::Code(_) if kept.len() == output.len() => String::new(),
                    Exit::Code(_) => format!("it wrote {} bytes, of which the first are kept", output.len()),
                    exit => exit.to_string(),
                };
                let exit_code = if let Exit::Code(code) = answer.exit { Some(code) } else { None };
                ExecResult { id: uid.to_owned(), exit_code, output: kept.to_owned(), message }
            }
            Err(silence) if silence.last_lines.is_empty() => failed(uid, &silence.problem),
            Err(silence) => failed(uid, &format!("{}; it printed last: {}", silence.problem, silence.last_lines)),
        }
    }
}

fn failed(uid: &str, message: &str) -> ExecResult {
    ExecResult { id: uid.to_owned(), message: clip(message), ..ExecResult::default() }
}

/// Runs what is asked for, each at once, and gives the results of what is still asked for.
pub fn follow(mut jobs: watch::Receiver<Jobs>, place: Place) -> watch::Receiver<Vec<ExecResult>> {
    let (results, receiver) = watch::channel(Vec::<ExecResult>::new());
    let (ended, mut ends) = mpsc::unbounded_channel::<ExecResult>();
    tokio::spawn(async move {
        let mut running: BTreeMap<String, Arc<AtomicBool>> = BTreeMap::new();
        loop {
            if let Some(wanted) = jobs.borrow_and_update().clone() {
                for (_, cancel) in running.iter().filter(|(uid, _)| !wanted.contains_key(*uid)) {
                    cancel.store(true, Ordering::Relaxed);
                }
                place.keep(&wanted, &running);
                results.send_if_modified(|all| {
                    let before = all.len();
                    all.retain(|result| wanted.contains_key(&result.id));
                    all.len() != before
                });
                for (uid, job) in wanted {
                    if running.contains_key(&uid) || results.borrow().iter().any(|result| result.id == uid) {
                        continue;
                    }
                    match place.begin(&uid) {
                        Ok(Known::New) => {
                            let cancel = Arc::new(AtomicBool::new(false));
                            running.insert(uid.clone(), cancel.clone());
                            start(place.clone(), uid, job, cancel, ended.clone());
                        }
                        Ok(Known::Ended(result)) => results.send_modify(|all| all.push(result)),
                        Err(error) => {
                            let why = format!("not run: {} can't be written: {error}", place.directory.display());
                            results.send_modify(|all| all.push(failed(&uid, &why)));
                        }
                    }
                }
            }
            tokio::select! {
                changed = jobs.changed() => if changed.is_err() { return },
                Some(result) = ends.recv() => {
                    running.remove(&result.id);
                    results.send_modify(|all| all.push(result));
                }
            }
        }
    });
    receiver
}

fn start(place: Place, uid: String, job: Job, cancel: Arc<AtomicBool>, ended: mpsc::UnboundedSender<ExecResult>) {
    tracing::info!(operation = job.operation, command = ?job.command, "an operator's command runs");
    // A thread of its own: it may take a day, and others wait for the runtime's.
    let work = move || {
        let result = place.run(&uid, &job, &cancel);
        if let Err(error) = place.end(&result) {
            tracing::error!(operation = job.operation, "its result can't be kept: {error}");
        }
        ended.send(result).ok();
    };
    if let Err(error) = std::thread::Builder::new().name("exec".into()).spawn(work) {
        tracing::error!("a command can't be run: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_once_and_a_lost_result_is_said_to_be_lost() {
        let directory = tempfile::tempdir().unwrap();
        let cgroups = Hierarchy::at(&directory.path().join("cgroup"));
        let place = Place { directory: directory.path().join("exec"), cgroups, server: "db1".into() };
        assert!(matches!(place.begin("u-1").unwrap(), Known::New));
        let Known::Ended(lost) = place.begin("u-1").unwrap() else { panic!("it began before") };
        assert!(lost.exit_code.is_none() && lost.message.contains("the agent ended"), "{lost:?}");
        let result = ExecResult { id: "u-1".into(), exit_code: Some(3), output: "no\n".into(), message: String::new() };
        place.end(&result).unwrap();
        let Known::Ended(kept) = place.begin("u-1").unwrap() else { panic!("it has ended") };
        assert_eq!(kept, result);
        place.keep(&BTreeMap::new(), &BTreeMap::new());
        assert!(matches!(place.begin("u-1").unwrap(), Known::New), "nobody asks for it any more");
    }
}
