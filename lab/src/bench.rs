//! `holdfast lab bench`: what a client loses in a power cut, an application crash and a planned move, how long a
//! cold start takes, and what an idle cluster costs. Measured from outside: by a client that asks every 10 ms and
//! by the kernel's accounting.

mod decisions;
mod groups;
mod report;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::v1::{Resource, Transition};
use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};

use crate::bench::report::{Foretold, Idle, Series};
use crate::cluster::{CONTROL, Cluster, ClusterOptions};
use crate::error::{Attempt, LabError, Result};
use crate::host::Host;
use crate::poller::Poller;
use crate::shell::{boottime_ns, wait_for};
use crate::up::Screen;

/// Longest time for anything that should take seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Rest between two runs, so that one does not measure the tail of the other.
const REST: Duration = Duration::from_secs(2);

/// Name of the measurement that contains the cluster's part.
const POWER_CUT: &str = "power cut of the active server";

/// Name of the measurement that contains the program's own start.
const CRASH: &str = "application crash";

/// How `holdfast lab bench` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchOptions {
    /// Directory (or file) with the example's manifests; one group has a floating address and a process.
    pub example: PathBuf,
    /// Runs of each measurement.
    pub runs: u32,
    /// What is measured.
    pub what: What,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Outages, cold start and what an idle cluster costs.
    Outages,
    /// Decisions about views, on the other examples beside this one, too, and on sixteen servers.
    Decisions,
    /// Large groups: twenty resources, and the checks of a thousand.
    Groups,
}

/// Measures and prints a table: median and worst of all runs, targets, what others need.
///
/// # Errors
/// When the cluster can't be built, or a run does not end well: then there is nothing to report.
pub fn bench(options: &BenchOptions) -> Result<()> {
    let screen = Screen::new();
    match options.what {
        What::Outages => outages(options, &screen),
        What::Decisions => decisions::measure(&decisions::beside(&options.example)?, options.runs, &screen),
        What::Groups => groups::measure(options, &screen),
    }
}

fn outages(options: &BenchOptions, screen: &Screen) -> Result<()> {
    let mut starts = Vec::new();
    let mut measured: Vec<(Vec<Duration>, Option<Transition>)> = FAULTS.iter().map(|_| (Vec::new(), None)).collect();
    let (mut commands, mut foretold) = (Vec::new(), Vec::new());
    let mut cluster = None;
    for run in 1..=options.runs {
        if let Some(old) = cluster.take() {
            Cluster::close(old)?;
        }
        screen.step(&format!("cold start {run} of {}", options.runs));
        let (fresh, took) = cold_start(options)?;
        starts.push(took);
        let poller = fresh.poll_service()?;
        for ((name, fault, ..), (times, last)) in FAULTS.iter().zip(&mut measured) {
            screen.step(&format!("{name} {run} of {}", options.runs));
            let before = newest_transition(&fresh)?.map(|transition| transition.id);
            let Lost { outage, command } = fault(&fresh, &poller)?;
            times.push(outage);
            *last = newest_transition(&fresh)?;
            // A restart in place is no transition.
            let Some(new) = last.as_ref().filter(|transition| Some(transition.id) != before) else { continue };
            let whole = new.actual.as_ref().map_or(Duration::ZERO, |actual| actual.get());
            commands.extend(command.map(|command| command.saturating_sub(whole)));
            foretold.extend(new.predicted.as_ref().map(|predicted| Foretold { predicted: predicted.get(), outage }));
        }
        cluster = Some(fresh);
    }
    let cluster = cluster.ok_or_else(|| LabError::Api("at least one run is needed".into()))?;
    let mut all = vec![Series {
        name: "cold start to the first answer",
        times: starts,
        given: None,
        target: Duration::from_secs(2),
        peers: "Pacemaker 23500 ms",
        chart: String::new(),
    }];
    for ((name, _, target, peers), (times, mut last)) in FAULTS.into_iter().zip(measured) {
        let given = match name {
            POWER_CUT => Some(("cluster part", cluster_part(&cluster)?)),
            // What the program itself needs is known from its last start: a restart in place has no chart.
            CRASH => Some(("program start", program_start(&cluster, last.take())?)),
            _ => None,
        };
        let chart = last.as_ref().map(report::chart).unwrap_or_default();
        all.push(Series { name, times, given, target: Duration::from_millis(target), peers, chart });
    }
    all.push(Series {
        name: "command of a move, beyond it",
        times: commands,
        given: None,
        target: Duration::from_millis(20),
        peers: "",
        chart: String::new(),
    });
    screen.step(&format!("watching the idle cluster for {} s", IDLE.as_secs()));
    let idle = idle_cost(&cluster)?;
    screen.done();
    let timeout = cluster.blueprint().timeout.as_millis();
    screen.line(&format!("\nclient-seen times, {} runs each, heartbeat timeout {timeout} ms", options.runs));
    report::times(&all).iter().for_each(|line| screen.line(line));
    screen.line(&report::foretold(&foretold));
    screen.line("");
    report::idle(&idle).iter().for_each(|line| screen.line(line));
    cluster.close()
}

/// The cluster's part of a takeover, as the agents report it.
fn cluster_part(cluster: &Cluster) -> Result<Duration> {
    let timing = cluster.snapshot()?.sub_cluster.and_then(|object| object.status?.timing);
    let part = timing.and_then(|timing| timing.cluster_part);
    part.map(|part| part.get()).ok_or_else(|| LabError::Api("the sub-cluster reports no timing".into()))
}

/// How long the served program took to start in a transition.
fn program_start(cluster: &Cluster, transition: Option<Transition>) -> Result<Duration> {
    let name = served_process(cluster)?.name;
    Ok(transition.map_or(Duration::ZERO, |transition| report::start_of(&transition, &name)))
}

/// The newest transition of the served group.
fn newest_transition(cluster: &Cluster) -> Result<Option<Transition>> {
    let group = cluster.group(&served_group(cluster)?)?;
    Ok(group.status.and_then(|status| status.transitions.into_iter().next()))
}

/// What a client lost by a fault.
struct Lost {
    /// The longest gap between two answers.
    outage: Duration,
    /// How long the command took that asked for it, if one did.
    command: Option<Duration>,
}

type Fault = fn(&Cluster, &Poller) -> Result<Lost>;

/// What each run measures, in this order, on a cluster of its own: repeated crashes and failovers of one group would
/// run into the limits that its recovery sets. Name, fault, milliseconds allowed beyond what is given, others' figures.
const FAULTS: [(&str, Fault, u64, &str); 3] = [
    ("planned move", planned_move, 200, "Pacemaker 420 ms; keepalived 80 ms (address only)"),
    (CRASH, crash, 50, "Pacemaker 980 ms (monitor every 1 s)"),
    (POWER_CUT, power_cut, 150, "Pacemaker 2450 ms (token 1 s); keepalived 3050 ms (address only)"),
];

/// Builds a cluster and measures from the start of its agents to the first answer that the client gets.
fn cold_start(options: &BenchOptions) -> Result<(Cluster, Duration)> {
    let patient = ClusterOptions { edit: Some(&|documents| restart_in_place(documents)), ..ClusterOptions::default() };
    let cluster = Cluster::build("bench", &options.example, &patient)?;
    cluster.apply(cluster.manifests())?;
    let poller = cluster.poll_service()?;
    let begin = boottime_ns();
    cluster.start_agents()?;
    let answer = poller.wait_for_answer_after(begin, None, LIMIT)?;
    cluster.wait_all_online(LIMIT)?;
    Ok((cluster, Duration::from_nanos(answer.answered_ns.saturating_sub(begin))))
}

/// Lets groups restart in place, and be taken over, as often as the benchmark makes them crash; they would move after the
/// second time, their server would count as failed for an hour, and after some losses a brake would hold them.
fn restart_in_place(documents: &mut [(PathBuf, serde_yaml::Value)]) {
    for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "SubCluster") {
        document["spec"]["brakes"]["maxMovesPerGroup"] = 1000.into();
        document["spec"]["brakes"]["maxLosses"] = 16.into();
    }
    for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "FailoverGroup") {
        document["spec"]["recovery"]["restarts"] = 100.into();
    }
}

/// Waits until every server is in the view and the group is online, and names the group's server.
fn settle(cluster: &Cluster) -> Result<String> {
    let group = served_group(cluster)?;
    cluster.wait_view(&cluster.blueprint().servers, 0, LIMIT)?;
    let online = cluster.wait_online(&group, None, LIMIT)?;
    let quiet = boottime_ns() + u64::try_from(REST.as_nanos()).unwrap_or(0);
    wait_for("a rest", LIMIT, |_| Ok((boottime_ns() > quiet).then_some(())))?;
    online
        .status
        .and_then(|status| status.server)
        .ok_or_else(|| LabError::Api(format!("group {group} is online and names no server")))
}

/// The group that the client asks.
fn served_group(cluster: &Cluster) -> Result<String> {
    let groups = cluster.snapshot()?.groups;
    let served = groups.into_iter().find(|group| group.spec.resources.iter().any(|r| r.floating_ip.is_some()));
    served
        .and_then(|group| group.metadata.name)
        .ok_or_else(|| LabError::Api("no group of the example has a floating address".into()))
}

/// The longest gap between answers from `since` until the service is steady again for half a second.
fn outage(poller: &Poller, since: u64) -> Result<Duration> {
    let until = boottime_ns() + 500_000_000;
    wait_for("a steady service", LIMIT, |_| Ok((boottime_ns() > until).then_some(())))?;
    let outage = poller.longest_outage(since).ok_or_else(|| LabError::Api("the client got no answers".into()))?;
    Ok(outage.length)
}

fn power_cut(cluster: &Cluster, poller: &Poller) -> Result<Lost> {
    let victim = settle(cluster)?;
    let since = boottime_ns();
    cluster.power_cut(&victim)?;
    wait_until_served(poller, since, |content| content != victim)?;
    let length = outage(poller, since)?;
    let rest: Vec<String> = cluster.blueprint().servers.iter().filter(|name| **name != victim).cloned().collect();
    cluster.wait_view(&rest, 0, LIMIT)?;
    cluster.power_on(&victim)?;
    Ok(Lost { outage: length, command: None })
}

fn planned_move(cluster: &Cluster, poller: &Poller) -> Result<Lost> {
    let from = settle(cluster)?;
    let to = cluster.blueprint().servers.iter().find(|server| **server != from);
    let to = to.ok_or_else(|| LabError::Api("there is no other server".into()))?;
    let group = served_group(cluster)?;
    let since = boottime_ns();
    cluster.holdfast(&["move", &group, "--to", to, "--namespace", &cluster.blueprint().namespace])?;
    let command = Some(Duration::from_nanos(boottime_ns() - since));
    wait_until_served(poller, since, |content| content == to)?;
    Ok(Lost { outage: outage(poller, since)?, command })
}

/// Kills what listens on the service's port and waits until it is served again, on the same server.
fn crash(cluster: &Cluster, poller: &Poller) -> Result<Lost> {
    let server = settle(cluster)?;
    let host = cluster.host(&server)?;
    let program = served_program(cluster)?;
    let processes: Vec<_> = host
        .processes()?
        .into_iter()
        .filter(|process| !process.args[0].ends_with("/holdfast") && process.args.join(" ").contains(&program))
        .collect();
    if processes.is_empty() {
        return Err(LabError::Host { host: server, message: format!("{program} does not run there") });
    }
    let since = boottime_ns();
    host.signal(&processes, Signal::SIGKILL)?;
    wait_until_served(poller, boottime_ns(), |_| true)?;
    Ok(Lost { outage: outage(poller, since)?, command: None })
}

/// Program of the served group's process; its command line has it somewhere (nginx renames its processes).
fn served_program(cluster: &Cluster) -> Result<String> {
    let program = served_process(cluster)?.process.and_then(|process| process.command.into_iter().next());
    program.ok_or_else(|| LabError::Api("the group with the address has no process".into()))
}

/// The first process among the resources of the served group.
fn served_process(cluster: &Cluster) -> Result<Resource> {
    let group = cluster.group(&served_group(cluster)?)?;
    let process = group.spec.resources.into_iter().find(|resource| resource.process.is_some());
    process.ok_or_else(|| LabError::Api("the group with the address has no process".into()))
}

fn wait_until_served(poller: &Poller, since: u64, fits: impl Fn(&str) -> bool) -> Result<()> {
    wait_for("the client to be served again", LIMIT, |last| {
        let Some(answer) = poller.last() else { return Ok(None) };
        *last = format!("{answer:?}");
        Ok((answer.begun_ns > since && fits(&answer.content)).then_some(()))
    })
}

/// What Holdfast's own processes cost on every server and on the control host.
fn idle_cost(cluster: &Cluster) -> Result<Vec<Idle>> {
    settle(cluster)?;
    let mut hosts = cluster.blueprint().servers.clone();
    hosts.push(CONTROL.into());
    let mut before = Vec::new();
    for name in &hosts {
        before.push(Cost::of(&*cluster.host(name)?)?);
    }
    let begin = boottime_ns();
    let end = begin + u64::try_from(IDLE.as_nanos()).unwrap_or(0);
    wait_for("the end of the idle time", LIMIT, |_| Ok((boottime_ns() > end).then_some(())))?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(100);
    let mut all = Vec::new();
    for (name, before) in hosts.into_iter().zip(before) {
        let after = Cost::of(&*cluster.host(&name)?)?;
        if after.ticks < before.ticks {
            return Err(LabError::Host { host: name, message: "its agent ended while it was watched".into() });
        }
        let milliseconds = ((boottime_ns() - begin) / 1_000_000).max(1);
        let permille = |ticks: u64| ticks * 1_000_000 / per_second / milliseconds;
        all.push(Idle {
            host: name,
            permille: permille(after.ticks.saturating_sub(before.ticks)),
            permille_helpers: permille(after.helper_ticks.saturating_sub(before.helper_ticks)),
            resident_kib: after.resident_kib,
            anonymous_kib: after.anonymous_kib,
            program_kib: after.program_kib,
        });
    }
    Ok(all)
}

/// What agent, guard and server processes of a host have used so far.
#[derive(Debug, Default)]
struct Cost {
    /// Processor time of all their threads.
    ticks: u64,
    /// Processor time of the helpers that they started and that have ended: the checks of resources.
    helper_ticks: u64,
    /// Resident memory (VmRSS), summed: pages of the program that several of them have mapped count in each.
    resident_kib: u64,
    /// The part of it that is heaps, stacks and written data (RssAnon), summed: each process has its own.
    anonymous_kib: u64,
    /// The most that one of them has of the program's file (RssFile): all of them have the same file.
    program_kib: u64,
}

impl Cost {
    fn of(host: &Host) -> Result<Cost> {
        let mut cost = Cost::default();
        for process in host.processes()? {
            if !["agent", "guard", "server"].iter().any(|verb| process.is_holdfast(verb)) {
                continue;
            }
            let read = |file: &str| {
                let path = format!("/proc/{}/{file}", process.pid);
                fs::read_to_string(&path).attempt(|| format!("reading {path}"))
            };
            let stat = read("stat")?;
            let fields: Vec<&str> =
                stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
            // utime, stime, cutime and cstime are fields 14 to 17 of the file; the first one after the name is field 3.
            let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            cost.ticks += ticks(11) + ticks(12);
            cost.helper_ticks += ticks(13) + ticks(14);
            let status = read("status")?;
            cost.resident_kib += kib(&status, "VmRSS:");
            cost.anonymous_kib += kib(&status, "RssAnon:");
            cost.program_kib = cost.program_kib.max(kib(&status, "RssFile:"));
        }
        Ok(cost)
    }
}

/// A line of a file in /proc that gives KiB.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
