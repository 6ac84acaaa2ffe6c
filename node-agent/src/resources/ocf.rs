//! `ocf`: a resource agent of another maker, unchanged, by the OCF Resource Agent API 1.0 and 1.1: called with the action
//! as its argument, parameters in the environment, its exit code as answer.
//!
//! Nothing is run with parameters that the agent does not know: an agent that is asked to stop with a misspelt name of a
//! PID file would stop what its default names. So a resource that is refused and was never started here counts as
//! stopped without asking the agent.
//!
//! An agent that can be promoted runs as one plain instance: it is told of no roles and never promoted. Found promoted by
//! somebody else it counts as running, and is demoted before it is stopped, as the contract wants it.

pub mod agents;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::Action;

use super::execute::{self, Execute, RUN, operation_group};
use super::plan::OcfPlan;
use super::{Job, Verdict, account};
use crate::cgroup::Cgroup;
use crate::said;
use crate::spawn::{self, DEFAULT_PATH, Exit, Spawn};

/// How long what a successful stop leaves behind may take to end by itself.
const AFTER_STOP: Duration = Duration::from_millis(500);
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Where agents keep state until the next boot (HA_RSCTMP of the resource-agents package).
const SCRATCH: &str = "/run/resource-agents";
/// What the line begins with in which an agent tells people the reason (OCF_EXIT_REASON_PREFIX).
const REASON: &str = "ocf-exit-reason:";

// Exit codes of the contract.
const SUCCESS: i32 = 0;
const UNIMPLEMENTED: i32 = 3;
const NOT_RUNNING: i32 = 7;
const RUNNING_PROMOTED: i32 = 8;
const FAILED_PROMOTED: i32 = 9;
const DEGRADED: i32 = 190;
const DEGRADED_PROMOTED: i32 = 191;

/// What an exit code means, in words.
fn meaning(code: i32) -> &'static str {
    match code {
        SUCCESS => "success",
        1 => "generic error",
        2 => "invalid argument on this server",
        UNIMPLEMENTED => "action not implemented",
        4 => "insufficient permissions",
        5 => "not installed on this server",
        6 => "not configured: a parameter is wrong",
        NOT_RUNNING => "not running",
        RUNNING_PROMOTED => "running promoted",
        FAILED_PROMOTED => "failed promoted",
        DEGRADED | DEGRADED_PROMOTED => "degraded",
        _ => "no code of the contract",
    }
}

/// Codes that say that the agent could not even begin: argument, permission, installation, configuration.
fn could_not_begin(code: i32) -> bool {
    matches!(code, 2 | 4 | 5 | 6)
}

/// Carries an operation out.
pub fn run(plan: &OcfPlan, action: Action, job: &Job) -> Verdict {
    match action {
        Action::Start => start(plan, job),
        Action::Stop => stop(plan, job),
        Action::Probe => probe(plan, job),
        Action::Monitor => look(plan, job, plan.interval),
    }
}

/// The agent says that it runs promoted.
fn is_promoted(code: i32) -> bool {
    matches!(code, RUNNING_PROMOTED | FAILED_PROMOTED | DEGRADED_PROMOTED)
}

/// Everything that is wrong with the resource on this server.
fn refused(plan: &OcfPlan) -> Option<String> {
    agents::problem(&plan.agent(), agents::describe(&plan.agent()), &plan.parameters)
}

/// The mark that the agent's start was called in this boot and its stop has not succeeded since.
fn mark(state: &Path) -> PathBuf {
    state.join("ocf.started")
}

fn was_started(job: &Job) -> bool {
    mark(&job.state).exists()
}

fn probe(plan: &OcfPlan, job: &Job) -> Verdict {
    if !was_started(job)
        && let Some(problem) = refused(plan)
    {
        return Verdict::stopped().with(problem);
    }
    look(plan, job, Duration::ZERO)
}

/// `interval`: zero marks a probe, to which agents answer "not running" where a recurring check is an error.
fn look(plan: &OcfPlan, job: &Job, interval: Duration) -> Verdict {
    match check(plan, job, interval) {
        Ok((exit, said)) => state(exit, &said, was_started(job)),
        Err(problem) => Verdict::unknown(problem),
    }
}

/// What the answer of a check means. `started`: it was started here, so it may run even if the agent can't look.
fn state(exit: Exit, said: &str, started: bool) -> Verdict {
    let sentence = sentence("monitor", exit, said);
    match exit {
        Exit::Code(SUCCESS) => Verdict::running(),
        Exit::Code(DEGRADED | RUNNING_PROMOTED | DEGRADED_PROMOTED) => Verdict::running().with(sentence),
        Exit::Code(NOT_RUNNING) => Verdict::stopped().with(reason(said)),
        Exit::Code(code) if could_not_begin(code) && !started => Verdict::stopped().with(sentence),
        Exit::Code(_) | Exit::Signal(_) => Verdict::failed(sentence),
    }
}

fn check(plan: &OcfPlan, job: &Job, interval: Duration) -> Result<(Exit, String), String> {
    let cgroup = job.cgroup().child(&operation_group(job.op));
    let answer = call(plan, "monitor", interval, &cgroup, job);
    cgroup.kill(KILL_WAIT.min(job.left())).map_err(|e| e.to_string())?;
    cgroup.remove();
    answer
}

fn start(plan: &OcfPlan, job: &Job) -> Verdict {
    if let Some(problem) = refused(plan) {
        return Verdict::failed(problem);
    }
    if let Err(problem) = fs::create_dir_all(&job.state).and_then(|()| fs::write(mark(&job.state), "")) {
        return Verdict::failed(format!("its start can't be noted in {}: {problem}", job.state.display()));
    }
    let (exit, said) = match call(plan, "start", Duration::ZERO, &job.cgroup().child(RUN), job) {
        Ok(answer) => answer,
        Err(problem) => return Verdict::failed(problem),
    };
    let refusal = sentence("start", exit, &said);
    match exit {
        Exit::Code(SUCCESS) => match look(plan, job, plan.interval) {
            Verdict { state: super::State::Running, message, .. } => Verdict::running().with(message),
            Verdict { message, .. } => Verdict::failed(format!(
                "{} says that it started, and right afterwards that it does not run: {message}",
                plan.agent()
            )),
        },
        Exit::Code(code) if could_not_begin(code) => {
            // The same answer to a check, which acts on nothing, shows that the agent stopped at the parameters.
            if let Ok((Exit::Code(seen), _)) = check(plan, job, Duration::ZERO)
                && (seen == NOT_RUNNING || seen == code)
            {
                let _ = fs::remove_file(mark(&job.state));
            }
            Verdict::failed(refusal)
        }
        _ => Verdict::failed(refusal),
    }
}

fn stop(plan: &OcfPlan, job: &Job) -> Verdict {
    let started = was_started(job);
    if !started && let Some(problem) = refused(plan) {
        return Verdict::stopped().with(format!("nothing was started; {problem}"));
    }
    let cgroup = job.cgroup().child(&operation_group(job.op));
    let ask = |action| call(plan, action, Duration::ZERO, &cgroup, job);
    let stopped = ask("stop").and_then(|answer| match answer.0 {
        // The second answer counts, whatever the first call has done already.
        Exit::Code(code) if is_promoted(code) => ask("demote").and_then(|_| ask("stop")),
        _ => Ok(answer),
    });
    let (exit, said) = match stopped {
        Ok(answer) => answer,
        Err(problem) => return Verdict::failed(problem),
    };
    let message = match exit {
        // Some agents say "not running" where the contract wants success: it is what was asked for.
        Exit::Code(SUCCESS | NOT_RUNNING) => String::new(),
        Exit::Code(code) if could_not_begin(code) && !started => sentence("stop", exit, &said),
        _ => return Verdict::failed(sentence("stop", exit, &said)),
    };
    let all = job.cgroup();
    let message = match execute::end_leftovers(&all, AFTER_STOP.min(job.left()), KILL_WAIT.min(job.left())) {
        Ok(None) => message,
        Ok(Some(left)) => format!("the agent's stop {left}"),
        Err(problem) => return Verdict::unknown(problem),
    };
    let _ = fs::remove_file(mark(&job.state));
    all.remove();
    Verdict::stopped().with(message)
}

/// The reason that the agent gives, else the last lines that it printed.
fn reason(said: &str) -> String {
    let given = said.lines().rev().find_map(|line| line.trim().strip_prefix(REASON));
    given.map_or_else(|| said::last_lines(said), |reason| reason.trim().chars().take(300).collect())
}

fn sentence(action: &str, exit: Exit, said: &str) -> String {
    let how = match exit {
        Exit::Code(code) => format!("exit {code}, {}", meaning(code)),
        Exit::Signal(_) => exit.to_string(),
    };
    let reason = reason(said);
    let said = if reason.is_empty() { "it printed nothing".to_owned() } else { reason };
    format!("the agent's {action}: {how}; {said}")
}

fn call(
    plan: &OcfPlan,
    action: &str,
    interval: Duration,
    cgroup: &Cgroup,
    job: &Job,
) -> Result<(Exit, String), String> {
    let program = plan.agent().program().map_err(|problem| format!("ocf.type: {problem}"))?;
    scratch().map_err(|e| format!("{SCRATCH}, where agents keep their state, can't be made: {e}"))?;
    let mut environment = job.told_environment();
    environment.extend(account::find("root", None)?.environment);
    let instance = instance(&job.group, &job.resource);
    environment.extend(variables(plan, action, interval, job.left(), job.depth, &instance));
    environment.push(("OCF_RESKEY_CRM_meta_on_node".to_owned(), job.told.server.clone()));
    execute::to_end(&Execute {
        what: action,
        program: &program,
        args: &[program.display().to_string(), action.to_owned()],
        environment: &environment,
        directory: Path::new("/"),
        identity: None,
        cgroup,
        state: &job.state,
    })
}

/// Unique on the server, for agents make names of files of it. Resources have no dot in their names.
fn instance(group: &str, resource: &str) -> String {
    format!("{group}.{resource}")
}

fn scratch() -> std::io::Result<()> {
    if Path::new(SCRATCH).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(SCRATCH)?;
    // As the package's tmpfiles.d makes it at boot.
    fs::set_permissions(SCRATCH, fs::Permissions::from_mode(0o1755))
}

/// What the contract puts into the environment. Times are in milliseconds; several agents divide the timeout into their
/// own waits.
fn variables(
    plan: &OcfPlan,
    action: &str,
    interval: Duration,
    timeout: Duration,
    depth: u8,
    instance: &str,
) -> Vec<(String, String)> {
    let mut all = agents::contract(&plan.agent(), instance);
    let more = [
        ("OCF_CHECK_LEVEL", depth.to_string()),
        ("OCF_EXIT_REASON_PREFIX", REASON.to_owned()),
        ("OCF_RESKEY_CRM_meta_name", action.to_owned()),
        ("OCF_RESKEY_CRM_meta_interval", interval.as_millis().to_string()),
        ("OCF_RESKEY_CRM_meta_timeout", timeout.as_millis().to_string()),
        ("HA_RSCTMP", SCRATCH.to_owned()),
    ];
    all.extend(more.map(|(name, value)| (name.to_owned(), value)));
    all.extend(plan.parameters.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), value.clone())));
    all
}

/// The guard's stop: what an agent started may be in no process that can be killed (an address, a mount), so its own
/// stop is called, and success is the only proof. `state`: the resource's directory. Runs in a process of the guard's
/// own, the agent in `cgroup`. Gives whether it is stopped.
pub(crate) fn emergency_stop(plan: &OcfPlan, group: &str, resource: &str, state: &Path, cgroup: &Cgroup) -> bool {
    // Refused, or its start was not reached: nothing of it is here, and its parameters may name what is not its own.
    if !mark(state).exists() {
        return true;
    }
    let (Ok(program), Ok(directory)) = (plan.agent().program(), cgroup.open()) else { return false };
    let ask = |action: &str| {
        let mut environment = variables(plan, action, Duration::ZERO, plan.stop, 0, &instance(group, resource));
        environment.extend([("PATH", DEFAULT_PATH), ("HOME", "/root")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        // Unlike `call`: it writes no file, and nobody else ends it when its time is over.
        let child = spawn::spawn(&Spawn {
            program: &program,
            args: &[program.display().to_string(), action.to_owned()],
            environment: &environment,
            directory: Path::new("/"),
            stdio: [None, None, None],
            identity: None,
            cgroup: Some(directory.as_fd()),
        });
        child.ok().and_then(|child| child.wait(Some(plan.stop)))
    };
    let ended = match ask("stop") {
        Some(Exit::Code(code)) if is_promoted(code) => {
            ask("demote");
            ask("stop")
        }
        ended => ended,
    };
    let stopped = ended == Some(Exit::Code(SUCCESS));
    // Nothing of it goes on behind the answer, nor beside the next attempt.
    let ended = cgroup.kill(KILL_WAIT).is_ok();
    cgroup.remove();
    stopped && ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::State;

    #[test]
    fn every_exit_code_of_a_check_has_its_meaning() {
        let of = |code, started| state(Exit::Code(code), "", started).state;
        for (code, fresh, started) in [
            (0, State::Running, State::Running),
            (1, State::Failed, State::Failed),
            (2, State::Stopped, State::Failed),
            (3, State::Failed, State::Failed),
            (4, State::Stopped, State::Failed),
            (5, State::Stopped, State::Failed),
            (6, State::Stopped, State::Failed),
            (7, State::Stopped, State::Stopped),
            (8, State::Running, State::Running),
            (9, State::Failed, State::Failed),
            (190, State::Running, State::Running),
            (191, State::Running, State::Running),
            (77, State::Failed, State::Failed),
        ] {
            assert_eq!((of(code, false), of(code, true)), (fresh, started), "exit {code}");
        }
        assert_eq!(state(Exit::Signal(9), "", false).state, State::Failed);
    }

    #[test]
    fn the_agents_own_reason_comes_before_its_last_line() {
        let said = "Nov 22 ERROR: x\nocf-exit-reason:IP address 10.0.0.300 not valid\nusage: start|stop\n";
        let text = sentence("start", Exit::Code(6), said);
        assert!(text.contains("exit 6, not configured") && text.ends_with("IP address 10.0.0.300 not valid"), "{text}");
        assert!(sentence("stop", Exit::Code(1), "").ends_with("it printed nothing"));
    }
}
