//! `systemd`: a service of systemd, started and stopped by its manager over D-Bus.
//!
//! The manager keeps the service's processes, not the agent; what makes that safe is in `hold`. Where the system was not
//! booted with systemd there is no manager, and a unit exists only in a manager: nothing of it can run.

pub(crate) mod hold;
pub(crate) mod manager;
pub(crate) mod state;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use holdfast_core::Action;

use self::hold::Record;
use self::manager::{JobEnd, Manager, Trouble, block_on, booted};
use self::state::{Facts, Finding, judge};
use super::plan::SystemdPlan;
use super::{Job, Verdict};
use crate::ask::{Ask, ask};
use crate::clock;
use crate::spawn::find_program;

/// How long the kernel may take to end what was killed.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// One attempt to get an answer. Messages are lost while the manager replaces itself, so it is asked again.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two looks at a unit that is on its way.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a service has to survive before its start counts: most wrong arguments and busy ports show within it.
const SURVIVAL: Duration = Duration::from_millis(20);
/// Most time for the last lines of its journal.
const JOURNAL: Duration = Duration::from_millis(500);
const NO_SYSTEMD: &str = "this system was not booted with systemd, so it has no units";

/// Carries an operation out.
pub fn run(plan: &SystemdPlan, action: Action, job: &Job) -> Verdict {
    let record = match hold::record(&job.state) {
        Ok(record) => record,
        Err(error) => return Verdict::unknown(format!("what was started can't be read: {error}")),
    };
    // Whatever was started here had a manager; then nothing is said without it.
    if record.is_none() && !booted() {
        return match action {
            Action::Start => Verdict::failed(format!("systemd.unit: {NO_SYSTEMD}; use process or script")),
            _ => Verdict::stopped().with(NO_SYSTEMD),
        };
    }
    match action {
        Action::Start => start(plan, job),
        Action::Stop => stop(plan, record, job),
        Action::Probe => probe(plan, record.as_ref(), job),
        Action::Monitor => check(plan, record.as_ref(), job),
    }
}

/// Whether a process is in the unit's control group. If the kernel doesn't say, there may be.
fn processes(unit: &Facts, record: Option<&Record>, job: &Job) -> bool {
    let cgroup = match record {
        _ if !unit.control_group.is_empty() => hold::cgroup(&job.cgroups, &unit.control_group),
        Some(record) => crate::cgroup::Cgroup::at(&record.cgroup),
        None => return false,
    };
    cgroup.populated().unwrap_or(true)
}

async fn facts(plan: &SystemdPlan, until: Instant) -> Result<Facts, Trouble> {
    let attempt = until.min(Instant::now() + ATTEMPT);
    Manager::connect(attempt).await?.facts(&plan.unit).await
}

/// Looks until the unit has settled or the time is over.
async fn settled(
    plan: &SystemdPlan,
    record: Option<&Record>,
    job: &Job,
    until: Instant,
) -> Result<(Finding, Facts), Trouble> {
    let mut on_its_way = None;
    loop {
        let found = facts(plan, until).await.map(|facts| {
            let stop_failed = record.is_some_and(|record| record.stop_failed);
            (judge(&facts, processes(&facts, record, job), stop_failed), facts)
        });
        let over = Instant::now() + PAUSE >= until;
        match found {
            Ok((Finding::Pending(_), _)) if !over => on_its_way = found.ok(),
            Err(Trouble::Silent(_)) if !over => {}
            // The last question was cut off by the time: what was known before says more.
            Err(silent @ Trouble::Silent(_)) => return on_its_way.ok_or(silent),
            found => return found,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn look(plan: &SystemdPlan, record: Option<&Record>, job: &Job, time: Duration) -> Result<(Finding, Facts), Trouble> {
    let until = Instant::now() + time;
    block_on(settled(plan, record, job, until)).and_then(|found| found)
}

fn probe(plan: &SystemdPlan, record: Option<&Record>, job: &Job) -> Verdict {
    match look(plan, record, job, job.left().mul_f64(0.9)) {
        Ok((Finding::Runs(remark), _)) => Verdict::running().with(remark),
        Ok((Finding::Stopped(why), _)) => Verdict::stopped().with(why),
        // Also if nobody of the cluster started it: it must not be started elsewhere beside it.
        Ok((Finding::Pending(what) | Finding::Left(what), _)) => Verdict::unknown(what),
        Err(trouble) => Verdict::unknown(trouble.to_string()),
    }
}

fn check(plan: &SystemdPlan, record: Option<&Record>, job: &Job) -> Verdict {
    match look(plan, record, job, job.left().mul_f64(0.8)) {
        Ok((Finding::Runs(remark), _)) => Verdict::running().with(remark),
        Ok((Finding::Stopped(why), _)) if why.is_empty() => Verdict::stopped(),
        Ok((Finding::Stopped(why), unit)) => Verdict::failed(format!("{why}{}", journal(&unit, job))),
        Ok((Finding::Pending(what) | Finding::Left(what), _)) => Verdict::failed(what),
        // A manager that is busy with itself is no failure of the service, which runs on meanwhile.
        Err(trouble @ Trouble::Silent(_)) if record.is_some_and(|r| Path::new(&r.cgroup).exists()) => {
            let cgroup = record.map(|record| crate::cgroup::Cgroup::at(&record.cgroup).populated());
            match cgroup {
                Some(Ok(true)) => Verdict::running().with(format!("{trouble}; its processes are there")),
                _ => Verdict::unknown(trouble.to_string()),
            }
        }
        Err(trouble) => Verdict::unknown(trouble.to_string()),
    }
}

fn start(plan: &SystemdPlan, job: &Job) -> Verdict {
    // Time to say what it has come to.
    let limit = Instant::now() + job.left().mul_f64(0.9);
    let outcome = block_on(bring_up(plan, job, limit)).map_err(|trouble| trouble.to_string());
    match outcome.and_then(|outcome| outcome) {
        Ok(verdict) => verdict,
        Err(problem) => {
            // What this start has queued must not be carried out behind its answer.
            match hold::forbid(&job.state) {
                Ok(()) => Verdict::failed(problem),
                Err(error) => Verdict::unknown(format!("{problem}; the permit to start it can't be removed: {error}")),
            }
        }
    }
}

async fn bring_up(plan: &SystemdPlan, job: &Job, limit: Instant) -> Result<Verdict, String> {
    let text = |trouble: Trouble| trouble.to_string();
    let unit = &plan.unit;
    settled(plan, None, job, Instant::now() + ATTEMPT.min(job.left())).await.map_err(text)?;
    let manager = Manager::connect(limit).await.map_err(text)?;
    let mut facts = manager.facts(unit).await.map_err(text)?;
    let mut triggers = Vec::new();
    for trigger in &facts.triggered_by {
        triggers.push((trigger.clone(), manager.file_state(trigger).await.map_err(text)?));
    }
    if let Some(problem) = state::refusal(unit, &facts, &triggers) {
        return Err(format!("systemd.unit: {problem}"));
    }
    let (drop_in, new) = hold::install(unit, &job.group, &job.state, &job.cgroups)
        .map_err(|e| format!("its drop-in can't be written: {e}"))?;
    let drop_in = drop_in.display().to_string();
    if new || facts.outdated || !facts.drop_ins.contains(&drop_in) {
        manager.reload().await.map_err(text)?;
        facts = manager.facts(unit).await.map_err(text)?;
    }
    if !facts.drop_ins.contains(&drop_in) {
        return Err(format!(
            "systemd does not read {drop_in}, without which {unit} could start outside of the cluster"
        ));
    }
    if facts.restart != "no" {
        return Err(format!(
            "systemd.unit: {unit} has Restart={} from a drop-in that is read after {drop_in}; the cluster restarts it, so \
             remove that line",
            facts.restart
        ));
    }
    let mut record = expected(&manager, &facts, job).await.map_err(text)?;
    hold::remember(&job.state, &record).map_err(|e| format!("what is started can't be noted: {e}"))?;
    hold::unseal(&crate::cgroup::Cgroup::at(&record.cgroup));
    // R14: reading the units anew takes its time.
    if !job.page.may_start(clock::now()) {
        return Err("not started: this server's authority has ended".to_owned());
    }
    hold::allow(&job.state).map_err(|e| format!("the permit to start it can't be written: {e}"))?;
    if !matches!(judge(&facts, false, false), Finding::Runs(_)) {
        manager.reset_failed(unit).await.map_err(text)?;
        let end = manager.carry_out("StartUnit", unit, limit).await.map_err(text)?;
        started(plan, &end, job, limit).await?;
    }
    let facts = manager.facts(unit).await.map_err(text)?;
    if !facts.control_group.is_empty() {
        record.cgroup = hold::cgroup(&job.cgroups, &facts.control_group).path().to_owned();
        hold::remember(&job.state, &record).map_err(|e| format!("what was started can't be noted: {e}"))?;
    }
    Ok(Verdict::running())
}

/// What is known of the unit's control group before it is started.
async fn expected(manager: &Manager, unit: &Facts, job: &Job) -> Result<Record, Trouble> {
    let name = if unit.control_group.is_empty() {
        state::control_group(&manager.control_group().await?, &unit.slice, &unit.id)
    } else {
        unit.control_group.clone()
    };
    Ok(Record {
        unit: unit.id.clone(),
        cgroup: hold::cgroup(&job.cgroups, &name).path().to_owned(),
        outlives: unit.outlives,
        stop_failed: false,
    })
}

/// Whether the end of the start job has led to a unit that runs.
async fn started(plan: &SystemdPlan, end: &JobEnd, job: &Job, limit: Instant) -> Result<(), String> {
    let word = match end {
        JobEnd::GoesOn => {
            return Err(format!("{} is still starting, and its time (timeouts.start) is over", plan.unit));
        }
        JobEnd::Result(word) => Some(word.as_str()),
        JobEnd::Unheard => None,
    };
    if word.is_none_or(|word| word == "done") {
        tokio::time::sleep(SURVIVAL).await;
    }
    match settled(plan, None, job, limit).await {
        Ok((Finding::Runs(_), _)) => Ok(()),
        Ok((_, facts)) => Err(format!("{}{}", state::start_failed(word, &facts), journal(&facts, job))),
        Err(trouble) => Err(format!("{} was told to start, but {trouble}", plan.unit)),
    }
}

fn stop(plan: &SystemdPlan, record: Option<Record>, job: &Job) -> Verdict {
    // First of all: what is queued, or starts it by itself, does so no more.
    if let Err(error) = hold::forbid(&job.state) {
        return Verdict::unknown(format!("the permit to start it can't be removed: {error}"));
    }
    let outcome = block_on(take_down(plan, record.clone(), job)).and_then(|outcome| outcome);
    let verdict = match (outcome, record) {
        (Ok(verdict), _) => verdict,
        (Err(trouble @ Trouble::Silent(_)), Some(record)) => {
            if hold::seal(&record, KILL_WAIT.min(job.left())) {
                Verdict::stopped().with(format!("{trouble}; its processes were killed"))
            } else {
                Verdict::unknown(format!("{trouble}; nothing else proves that it has stopped"))
            }
        }
        (Err(trouble), _) => Verdict::unknown(trouble.to_string()),
    };
    if verdict.state != super::State::Stopped {
        return verdict;
    }
    match hold::forget(&job.state) {
        Ok(()) => verdict,
        Err(error) => Verdict::unknown(format!("that it stopped can't be noted: {error}")),
    }
}

async fn take_down(plan: &SystemdPlan, record: Option<Record>, job: &Job) -> Result<Verdict, Trouble> {
    // A grace longer than the operation would end in "unknown" instead of a kill.
    let grace = Instant::now() + job.left().mul_f64(0.8);
    let before = facts_in(plan, grace).await?;
    let was_up = !matches!(before.active.as_str(), "inactive" | "failed");
    if was_up || before.job {
        let manager = Manager::connect(grace).await?;
        match manager.carry_out("StopUnit", &plan.unit, grace).await {
            // Refused: it went meanwhile, or else it is seen below.
            Ok(_) | Err(Trouble::Refused(_)) => {}
            Err(silent) => return Err(silent),
        }
    }
    let (mut finding, mut facts) = settled(plan, record.as_ref(), job, grace).await?;
    let mut said = String::new();
    if matches!(finding, Finding::Pending(_) | Finding::Left(_)) {
        let name = Some(&facts.control_group).filter(|name| !name.is_empty());
        let cgroup = name.map(|name| hold::cgroup(&job.cgroups, name));
        let cgroup = cgroup.or(record.as_ref().map(|record| crate::cgroup::Cgroup::at(&record.cgroup)));
        if let Some(cgroup) = cgroup {
            let left = cgroup.pids();
            if let Err(error) = cgroup.kill(KILL_WAIT.min(job.left().mul_f64(0.5))) {
                return Ok(Verdict::unknown(error.to_string()));
            }
            let list: Vec<String> = left.iter().take(10).map(ToString::to_string).collect();
            said = format!("processes {} did not end in time and were killed", list.join(", "));
            (finding, facts) = settled(plan, record.as_ref(), job, Instant::now() + job.left()).await?;
        }
    }
    // What its stop should have undone outside of its processes may be left.
    if let Some(mut record) = record.filter(|record| was_up && record.outlives && facts.active == "failed") {
        record.stop_failed = true;
        if let Err(error) = hold::remember(&job.state, &record) {
            return Ok(Verdict::unknown(format!("that its stop failed can't be noted: {error}")));
        }
        finding = judge(&facts, false, true);
    }
    Ok(match finding {
        Finding::Stopped(why) => Verdict::stopped().with(if said.is_empty() { why } else { said }),
        Finding::Runs(_) => Verdict::failed(format!("it runs after its stop: {} ({})", facts.active, facts.sub)),
        Finding::Pending(what) => Verdict::unknown(what),
        Finding::Left(what) => Verdict::failed(format!("{what}{}", journal(&facts, job))),
    })
}

/// The first answer, as long as nobody gives one.
async fn facts_in(plan: &SystemdPlan, until: Instant) -> Result<Facts, Trouble> {
    loop {
        match facts(plan, until).await {
            Err(Trouble::Silent(_)) if Instant::now() + PAUSE < until => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// The last lines that the unit printed in this run, for a message; nothing if the journal can't be read. Never so late that
/// the operation would end without its own answer.
fn journal(unit: &Facts, job: &Job) -> String {
    let until = Instant::now() + JOURNAL.min(job.left().mul_f64(0.5));
    loop {
        let lines = last_lines(unit, until);
        if !lines.is_empty() {
            return format!("; its last lines: {}", lines.join(" | "));
        }
        // What it printed right before its end may not have been stored yet.
        if Instant::now() + PAUSE >= until {
            return String::new();
        }
        std::thread::sleep(PAUSE);
    }
}

fn last_lines(unit: &Facts, until: Instant) -> Vec<String> {
    let Some(program) = find_program("journalctl") else { return Vec::new() };
    // Not by the number of the run: the journal doesn't know that of a program which ended before it looked.
    let of = format!("_SYSTEMD_UNIT={}", unit.id);
    let since = format!("@{}.{:06}", unit.began / 1_000_000, unit.began % 1_000_000);
    let args = ["--quiet", "--no-pager", "--output", "cat", "--lines", "3", "--since", &since, &of].map(str::to_owned);
    let answer = ask(&Ask {
        program: &program,
        args: &args,
        environment: &[("LC_ALL".to_owned(), "C".to_owned())],
        input: "",
        timeout: until.saturating_duration_since(Instant::now()),
        cgroup: None,
        cancel: &AtomicBool::new(false),
    });
    let text = answer.map(|answer| answer.output).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.chars().take(300).collect()).collect()
}

/// Asks the manager for the guard, in a process of its own: gives whether it says that the unit is stopped. What must not
/// go on running meanwhile is killed again and again, unless the unit's own stop has to undo something.
pub(crate) fn emergency_stop(record: &Record, state: &Path) -> bool {
    let plan = SystemdPlan { unit: record.unit.clone() };
    let cgroup = crate::cgroup::Cgroup::at(&record.cgroup);
    let outcome = block_on(async {
        let manager = Manager::connect(Instant::now() + ATTEMPT).await.ok()?;
        let before = manager.facts(&plan.unit).await.ok()?;
        manager.queue_stop(&plan.unit).await.ok();
        loop {
            if !record.outlives {
                cgroup.kill(Duration::from_millis(20)).ok()?;
            }
            let unit = facts(&plan, Instant::now() + ATTEMPT).await.ok()?;
            let was_up = !matches!(before.active.as_str(), "inactive" | "failed");
            let stop_failed = record.stop_failed || (was_up && unit.active == "failed");
            match judge(&unit, cgroup.populated().unwrap_or(true), stop_failed) {
                Finding::Stopped(_) => return Some(true),
                Finding::Left(_) if stop_failed && record.outlives => {
                    let _ = hold::remember(state, &Record { stop_failed, ..record.clone() });
                    return Some(false);
                }
                // A unit that failed with processes left of it has nobody else who ends them.
                Finding::Left(_) => cgroup.kill(KILL_WAIT).ok()?,
                Finding::Runs(_) | Finding::Pending(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    });
    let stopped = matches!(outcome, Ok(Some(true)));
    if stopped {
        let _ = hold::forget(state);
    }
    stopped
}
