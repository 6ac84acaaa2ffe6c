//! `dataService`: the methods of a registered service, each called with the groups that this server hosts, those that it
//! does not, and its timeout in seconds (row U2). Exit code 0 only is success.
//!
//! What was called stands in a note in the run directory, so that a stop calls nothing of what was never started, nothing
//! twice that succeeded, and ABORT finds what may be half there. A crash takes the note with it: STOP may never be
//! called, and nothing here waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_api::v1::MethodName;
use holdfast_core::Action;
use serde::{Deserialize, Serialize};

use super::execute::{self, Execute, RUN, operation_group};
use super::plan::data_service::{DataServicePlan, MethodPlan, ServiceStep, classic_name, declared_name, second_step};
use super::{Job, Verdict, account, script};
use crate::cgroup::Cgroup;
use crate::helper::state_dir;
use crate::said;
use crate::spawn::{self, DEFAULT_PATH, Exit, Identity, Spawn};

/// How long what a successful stop leaves behind may take to end by itself.
const AFTER_STOP: Duration = Duration::from_millis(500);
const KILL_WAIT: Duration = Duration::from_secs(5);
const NOTE: &str = "data-service.json";

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stand {
    Starting,
    Started,
    Stopping,
}

/// What was called in this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    service: String,
    stand: Stand,
    /// Methods of a stop that have succeeded.
    stopped: BTreeSet<MethodName>,
}

/// Carries an operation out.
pub fn run(plan: &DataServicePlan, action: Action, job: &Job) -> Verdict {
    match action {
        Action::Start => start(plan, job),
        Action::Stop => stop(plan, job),
        Action::Probe => noted(job),
        Action::Monitor => match plan.methods.get(&MethodName::FmCheck) {
            Some(method) if plan.step == ServiceStep::Network => check(plan, method, job),
            _ => noted(job),
        },
    }
}

fn read(state: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(state.join(NOTE)).ok()?).ok()
}

fn note(plan: &DataServicePlan, stand: Stand, stopped: &BTreeSet<MethodName>, job: &Job) -> Result<(), String> {
    let aside = job.state.join("data-service.new");
    let note = Note { service: plan.service.clone(), stand, stopped: stopped.clone() };
    let text = serde_json::to_vec(&note).map_err(|e| e.to_string())?;
    fs::create_dir_all(&job.state)
        .and_then(|()| fs::write(&aside, text))
        .and_then(|()| fs::rename(&aside, job.state.join(NOTE)))
        .map_err(|e| format!("what is called can't be noted in {}: {e}", job.state.display()))
}

/// The state by what was called last: nothing else tells, for the methods may leave no process behind.
fn noted(job: &Job) -> Verdict {
    match read(&job.state).map(|note| note.stand) {
        Some(Stand::Started) => Verdict::running(),
        Some(Stand::Starting | Stand::Stopping) => Verdict::failed("its start or stop did not complete"),
        None => match job.cgroup().populated() {
            Ok(false) => Verdict::stopped(),
            Ok(true) => Verdict::failed("processes are in its control group although no start of it is noted"),
            Err(error) => Verdict::unknown(error.to_string()),
        },
    }
}

fn check(plan: &DataServicePlan, method: &MethodPlan, job: &Job) -> Verdict {
    let found = noted(job);
    if found.state != super::State::Running {
        return found;
    }
    let cgroup = job.cgroup().child(&operation_group(job.op));
    let verdict = match call(plan, MethodName::FmCheck, method, true, &cgroup, job) {
        Ok(_) => Verdict::running(),
        Err(problem) => Verdict::failed(problem),
    };
    cgroup.remove();
    verdict
}

fn start(plan: &DataServicePlan, job: &Job) -> Verdict {
    if read(&job.state).is_some_and(|note| note.stand == Stand::Started) {
        return Verdict::running().with("it was started before");
    }
    let run = job.cgroup().child(RUN);
    // What an earlier start left behind is nobody's; it must not run beside the new one.
    if let Err(error) = run.kill(KILL_WAIT.min(job.left())) {
        return Verdict::unknown(error.to_string());
    }
    if let Err(problem) = note(plan, Stand::Starting, &BTreeSet::new(), job).and_then(|()| prepare_aborts(plan, job)) {
        return Verdict::failed(problem);
    }
    let mut said = String::new();
    for method in plan.step.starts() {
        let Some(what) = plan.methods.get(method) else { continue };
        match call(plan, *method, what, true, &run, job) {
            Ok(line) => said = line,
            Err(problem) => return Verdict::failed(problem),
        }
    }
    match note(plan, Stand::Started, &BTreeSet::new(), job) {
        Ok(()) => Verdict::running().with(said),
        Err(problem) => Verdict::failed(problem),
    }
}

fn stop(plan: &DataServicePlan, job: &Job) -> Verdict {
    let noted = read(&job.state);
    match (&noted, job.cgroup().populated()) {
        (None, Ok(false)) => return Verdict::stopped().with("nothing of it was started"),
        (_, Err(error)) => return Verdict::unknown(error.to_string()),
        _ => {}
    }
    let mut done = noted.filter(|note| note.stand == Stand::Stopping).map(|note| note.stopped).unwrap_or_default();
    if let Err(problem) = note(plan, Stand::Stopping, &done, job) {
        return Verdict::failed(problem);
    }
    let mut said = String::new();
    for method in plan.step.stops() {
        let Some(what) = plan.methods.get(method).filter(|_| !done.contains(method)) else { continue };
        let cgroup = job.cgroup().child(&operation_group(job.op));
        match call(plan, *method, what, false, &cgroup, job) {
            Ok(line) => said = line,
            Err(problem) => return Verdict::failed(problem),
        }
        done.insert(*method);
        if let Err(problem) = note(plan, Stand::Stopping, &done, job) {
            return Verdict::failed(problem);
        }
    }
    for all in over_by_now(plan, job) {
        match execute::end_leftovers(&all, AFTER_STOP.min(job.left()), KILL_WAIT.min(job.left())) {
            Ok(None) => {}
            Ok(Some(left)) => said = format!("its methods {left}"),
            Err(problem) => return Verdict::unknown(problem),
        }
        all.remove();
    }
    if let Err(error) = fs::remove_file(job.state.join(NOTE)) {
        return Verdict::unknown(format!("its note can't be removed: {error}"));
    }
    Verdict::stopped().with(said)
}

/// The control groups in which nothing may be left when the step is stopped. A service that supplies STOP and no STOP_NET
/// ends with STOP what START_NET began: until then it is left alone.
fn over_by_now(plan: &DataServicePlan, job: &Job) -> Vec<Cgroup> {
    match plan.step {
        ServiceStep::Network if plan.has(MethodName::Stop) && !plan.has(MethodName::StopNet) => Vec::new(),
        ServiceStep::Network => vec![job.cgroup()],
        ServiceStep::Service => {
            vec![job.cgroup(), job.cgroups.resource(&job.group, &second_step(&job.resource))]
        }
    }
}

/// The groups that use the service and are hosted here when the call is over, and the others. `hosted`: this one is.
fn lists(plan: &DataServicePlan, hosted: bool, job: &Job) -> (String, String) {
    let resources = job.state.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let is_hosted = |group: &str| {
        let notes = fs::read_dir(resources.join(group)).into_iter().flatten().flatten();
        let stands: Vec<Stand> = notes
            .filter_map(|resource| read(&resource.path()))
            .filter(|note| note.service == plan.service)
            .map(|note| note.stand)
            .collect();
        !stands.is_empty() && !stands.contains(&Stand::Stopping)
    };
    let all: BTreeSet<&str> = job.sharers.iter().map(String::as_str).chain([job.group.as_str()]).collect();
    let (here, elsewhere): (Vec<&str>, Vec<&str>) =
        all.into_iter().partition(|group| if *group == job.group { hosted } else { is_hosted(group) });
    (here.join(","), elsewhere.join(","))
}

/// Arguments of a call, the program's own first.
fn arguments(plan: &DataServicePlan, lists: &(String, String), seconds: u128, extra: &[String]) -> Vec<String> {
    let mut args = Vec::new();
    if plan.positional {
        args.extend([lists.0.clone(), lists.1.clone(), seconds.to_string()]);
    }
    args.extend_from_slice(extra);
    args
}

/// Variables that a method has beside those of every program.
fn variables(
    plan: &DataServicePlan,
    method: MethodName,
    lists: &(String, String),
    seconds: u128,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = plan.parameters.clone().into_iter().collect();
    let own = [
        ("HOLDFAST_DATA_SERVICE", plan.service.clone()),
        ("HOLDFAST_METHOD", classic_name(method).to_owned()),
        ("HOLDFAST_HOSTED_GROUPS", lists.0.clone()),
        ("HOLDFAST_OTHER_GROUPS", lists.1.clone()),
        ("HOLDFAST_TIMEOUT", seconds.to_string()),
    ];
    all.extend(own.map(|(name, value)| (name.to_owned(), value)));
    all
}

/// Seconds, rounded up, as shells count.
fn seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000)
}

/// Calls a method and waits for its end; gives its last lines. Within its own time: what takes longer is killed.
fn call(
    plan: &DataServicePlan,
    method: MethodName,
    what: &MethodPlan,
    hosted: bool,
    cgroup: &Cgroup,
    job: &Job,
) -> Result<String, String> {
    let name = classic_name(method);
    let of = |problem: String| format!("{name} of data service {}: {problem}", plan.service);
    let account = account::find(&plan.user, plan.group.as_deref()).map_err(of)?;
    let (program, mut args) =
        script::prepare(&what.program, method.as_str(), &job.state, account.identity.as_ref()).map_err(of)?;
    let limit = what.timeout.min(job.left());
    let lists = lists(plan, hosted, job);
    args.extend(arguments(plan, &lists, seconds(limit), &what.program.args));
    let own = variables(plan, method, &lists, seconds(limit));
    let mut environment: BTreeMap<String, String> = job.told_environment().into_iter().collect();
    environment.insert("HOLDFAST_RESOURCE".to_owned(), declared_name(&job.resource).to_owned());
    environment.extend(account.environment);
    environment.extend(own);
    let environment: Vec<(String, String)> = environment.into_iter().collect();
    let call = Execute {
        what: method.as_str(),
        program: &program,
        args: &args,
        environment: &environment,
        directory: Path::new("/"),
        identity: account.identity.as_ref(),
        cgroup,
        state: &job.state,
    };
    let (exit, tail) = execute::within(&call, Some(limit)).map_err(of)?;
    let said = said::last_lines(&tail);
    let heard = said::heard(&said);
    match exit {
        Some(Exit::Code(0)) => Ok(said),
        Some(exit) => Err(of(format!("{exit}; {heard}"))),
        None => {
            cgroup.kill(KILL_WAIT).map_err(|e| of(e.to_string()))?;
            Err(of(format!(
                "it took longer than {limit:?} and was killed; {heard}; if it needs longer, raise its timeout in the DataService"
            )))
        }
    }
}

/// Verified by the guard: nothing of it is left, and a start begins anew, as after a crash.
pub(crate) fn forget(state: &Path) {
    // Its directory is on a tmpfs; without a note there is nothing to forget.
    let _ = fs::remove_file(state.join(NOTE));
}

/// What the guard needs to tidy up where the agent can't any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// The service.
    pub plan: DataServicePlan,
    /// The groups of this sub-cluster that use it.
    pub sharers: Vec<String>,
}

impl Abort {
    /// None for a step or service that has nothing to call.
    pub(crate) fn of(plan: &DataServicePlan, sharers: Vec<String>) -> Option<Abort> {
        let supplied = plan.has(MethodName::Abort) || plan.has(MethodName::AbortNet);
        (supplied && plan.step == ServiceStep::Service).then(|| Abort { plan: plan.clone(), sharers })
    }
}

/// Inline ABORT methods are put where the guard finds them: it writes nothing.
fn prepare_aborts(plan: &DataServicePlan, job: &Job) -> Result<(), String> {
    let account = account::find(&plan.user, plan.group.as_deref())?;
    for method in [MethodName::AbortNet, MethodName::Abort] {
        if let Some(what) = plan.methods.get(&method).filter(|_| plan.step == ServiceStep::Service) {
            script::prepare(&what.program, method.as_str(), &job.state, account.identity.as_ref())?;
        }
    }
    Ok(())
}

/// ABORT_NET and ABORT of a service whose processes were killed and whose addresses are gone, each if the step before it
/// was begun in this boot. What they answer changes nothing: a crash is survived without them. Runs in a process of the
/// guard's own, the methods in `cgroup`, which the guard ends.
pub(crate) fn abort(abort: &Abort, run_dir: &Path, group: &str, resource: &str, cgroup: &Cgroup) {
    let Ok(account) = account::find(&abort.plan.user, abort.plan.group.as_deref()) else { return };
    let own = state_dir(run_dir, group, resource);
    let others = abort.sharers.iter().map(String::as_str).chain([group]).collect::<BTreeSet<_>>();
    // Authority has ended: this server hosts nothing any more.
    let lists = (String::new(), others.into_iter().collect::<Vec<_>>().join(","));
    for (method, step) in
        [(MethodName::AbortNet, state_dir(run_dir, group, &second_step(resource))), (MethodName::Abort, own.clone())]
    {
        let Some(what) = abort.plan.methods.get(&method).filter(|_| read(&step).is_some()) else { continue };
        let call = EmergencyCall { abort, method, what, lists: &lists, state: &own, group, resource };
        call.carry_out(account.identity.as_ref(), &account.environment, cgroup);
    }
}

struct EmergencyCall<'a> {
    abort: &'a Abort,
    method: MethodName,
    what: &'a MethodPlan,
    lists: &'a (String, String),
    state: &'a Path,
    group: &'a str,
    resource: &'a str,
}

impl EmergencyCall<'_> {
    fn carry_out(&self, identity: Option<&Identity>, account: &[(String, String)], cgroup: &Cgroup) {
        let Ok(directory) = cgroup.open() else { return };
        let (program, mut args): (PathBuf, Vec<String>) =
            script::prepared(&self.what.program, self.method.as_str(), self.state);
        let seconds = seconds(self.what.timeout);
        args.extend(arguments(&self.abort.plan, self.lists, seconds, &self.what.program.args));
        let mut environment: Vec<(String, String)> =
            [("PATH", DEFAULT_PATH), ("HOLDFAST_GROUP", self.group), ("HOLDFAST_RESOURCE", self.resource)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec();
        environment.extend_from_slice(account);
        environment.extend(variables(&self.abort.plan, self.method, self.lists, seconds));
        let child = spawn::spawn(&Spawn {
            program: &program,
            args: &args,
            environment: &environment,
            directory: Path::new("/"),
            stdio: [None, None, None],
            identity,
            cgroup: Some(directory.as_fd()),
        });
        if let Ok(child) = child {
            child.wait(Some(self.what.timeout));
        }
    }
}
