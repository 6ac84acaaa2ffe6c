//! A helper: a process that carries out one operation on one resource, or one check of a monitor, and ends. It is born in
//! the nursery.
//!
//! Every effect on the server, and every look that may hang, happens in such a process, inside a control group of its own, so that a frozen or hung
//! operation can be killed without a trace (protocol-why D6). Right before it acts on a start it looks at the deadline
//! page again. It reads one request from standard input and writes one [`Verdict`] and a newline to standard output, both
//! JSON.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::Action;
use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchy;
use crate::clock;
use crate::deadline::DeadlinePage;
use crate::monitors;
use crate::resources::{self, Job, Plan, Told, Verdict, stray};

/// What a helper is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// Do something with a resource.
    Operation(Box<Request>),
    /// Carry a check of a monitor out.
    Check(Box<monitors::Request>),
}

/// An operation on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// Of a monitor: how deep.
    pub depth: u8,
    /// The group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Number of the operation.
    pub op: u64,
    /// What the resource is.
    pub plan: Plan,
    /// What it is told.
    pub told: Told,
    /// Time for the operation; the executor kills the helper after it.
    pub timeout: Duration,
    /// Run directory of the agent.
    pub run_dir: PathBuf,
    /// Base of the control groups.
    pub cgroup: PathBuf,
    /// The groups of this sub-cluster that use the same data service.
    pub sharers: Vec<String>,
}

/// [`Action`] as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// [`Action::Probe`].
    Probe,
    /// [`Action::Start`].
    Start,
    /// [`Action::Stop`].
    Stop,
    /// [`Action::Monitor`].
    Monitor,
}

impl From<Action> for Verb {
    fn from(action: Action) -> Verb {
        match action {
            Action::Probe => Verb::Probe,
            Action::Start => Verb::Start,
            Action::Stop => Verb::Stop,
            Action::Monitor => Verb::Monitor,
        }
    }
}

impl From<Verb> for Action {
    fn from(verb: Verb) -> Action {
        match verb {
            Verb::Probe => Action::Probe,
            Verb::Start => Action::Start,
            Verb::Stop => Action::Stop,
            Verb::Monitor => Action::Monitor,
        }
    }
}

/// Directory of a resource's state in the run directory.
pub fn state_dir(run_dir: &std::path::Path, group: &str, resource: &str) -> PathBuf {
    state_dirs(run_dir).join(group).join(resource)
}

/// Where those of all groups are, each in a directory of its group.
pub fn state_dirs(run_dir: &std::path::Path) -> PathBuf {
    run_dir.join("resources")
}

/// The process. Ends with 0 if it could answer, whatever the answer is.
pub fn helper_main() -> ExitCode {
    let mut text = String::new();
    let request = std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())
        .and_then(|_| serde_json::from_str::<Question>(&text).map_err(|e| e.to_string()));
    let verdict = match request {
        Ok(Question::Operation(request)) => match (DeadlinePage::open(&request.run_dir), stray::adopt()) {
            (Ok(page), Ok(())) => carry_out(*request, Arc::new(page)),
            (Err(error), _) => Verdict::unknown(error.to_string()),
            (_, Err(error)) => Verdict::unknown(format!("this helper can't adopt what its programs leave: {error}")),
        },
        Ok(Question::Check(request)) => monitors::run(&request),
        Err(problem) => {
            eprintln!("a helper gets a request on standard input: {problem}");
            return ExitCode::from(2);
        }
    };
    let answer = serde_json::to_string(&verdict).map_err(std::io::Error::other);
    // The newline flushes it: the answer counts, although a thread that hangs on a disk keeps this process from ending.
    let answered = answer.and_then(|text| std::io::stdout().write_all(format!("{text}\n").as_bytes()));
    if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Carries an operation out in this process.
pub(crate) fn carry_out(request: Request, page: Arc<DeadlinePage>) -> Verdict {
    let began = Instant::now();
    let job = Job {
        state: state_dir(&request.run_dir, &request.group, &request.resource),
        group: request.group,
        resource: request.resource,
        told: request.told,
        timeout: request.timeout,
        until: began + request.timeout,
        cgroups: Hierarchy::at(&request.cgroup),
        page: Arc::clone(&page),
        op: request.op,
        sharers: request.sharers,
        depth: request.depth,
    };
    // R14: the last look before acting. Frozen behind it, this process is killed by the guard.
    if request.verb == Verb::Start && !page.may_start(clock::now()) {
        return Verdict::failed("not started: this server's authority has ended");
    }
    resources::run(&request.plan, request.verb.into(), &job)
}
