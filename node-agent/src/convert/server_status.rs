//! What this server says about itself: status of its Server object (api.md §4).

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_api::conditions::{self, State};
use holdfast_api::reasons::{condition, hold, ready, stalled};
use holdfast_api::v1 as api;
use holdfast_core::names::{PathName, ServerName};
use holdfast_core::status::{GroupPhase, MemberState, PathStatus};
use holdfast_planner::Amount;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Wall, anchor, clip, reported, server_state};
use crate::driver_loop::Snapshot;
use crate::fencing::{Checked, Seen};
use crate::paths::disk::Health;

/// What doesn't change while the agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// This server.
    pub server: ServerName,
    /// The kernel's boot id.
    pub boot: String,
    /// The boot before ended without a clean leave.
    pub unclean: bool,
    /// It is a virtual machine.
    pub is_virtual: bool,
    /// Distribution.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Processors and memory.
    pub capacity: Option<Amount>,
}

/// The guard as the agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardView {
    /// It runs.
    pub present: bool,
    /// It stops what an earlier lease held.
    pub enforcing: bool,
    /// Something is held that it watches over.
    pub holding: bool,
    /// Name of the watchdog device that it holds.
    pub watchdog: Option<String>,
    /// Why no watchdog works although one is to.
    pub watchdog_problem: Option<String>,
    /// Timeout read back from it.
    pub watchdog_timeout: Option<Duration>,
    /// Real-time priority.
    pub real_time: bool,
    /// Locked memory.
    pub memory_locked: bool,
}

/// What is reported of the machine beside what the driver loop knows.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// What doesn't change.
    pub facts: &'a Facts,
    /// The guard.
    pub guard: &'a GuardView,
    /// Programs that resources run.
    pub programs: &'a [api::ProgramStatus],
    /// Resources that can't be carried out here.
    pub unusable: &'a [api::UnusableResource],
    /// Results of operators' commands.
    pub exec: &'a [api::ExecResult],
    /// Commands that were given here and have no Operation yet.
    pub commands: &'a [api::GivenCommand],
    /// Why this server can't act on the newest specification, if it can't.
    pub problem: Option<&'a str>,
}

/// The whole status; `old` is what stands in the API: times of conditions continue.
pub fn server_status(
    snapshot: &Snapshot,
    machine: Machine<'_>,
    old: &api::ServerStatus,
    generation: Option<i64>,
    wall: Wall,
    now: Timestamp,
) -> api::ServerStatus {
    let (status, facts) = (&snapshot.status, machine.facts);
    let mut new = api::ServerStatus {
        observed_generation: generation,
        report_time: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        lineage: status.view.as_ref().map(|view| view.lineage),
        epoch: status.view.as_ref().map(|view| view.epoch),
        refused: status.force_refused.as_deref().map(clip).unwrap_or_default(),
        shut_downs: status
            .shut_downs
            .iter()
            .map(|(id, done)| api::ShutDownStatus { operation: uuid::Uuid::from_u128(*id).to_string(), done: *done })
            .collect(),
        state: Some(server_state(status.member)),
        boot: Some(api::Boot {
            id: facts.boot.clone(),
            time: Some(wall.time(holdfast_core::time::Instant::ZERO)),
            unclean: facts.unclean,
        }),
        authority: Some(api::Authority {
            held: status.leased,
            anchor: anchor(status.lease_anchor),
            smallest_margin: status.smallest_margin.map(reported),
        }),
        paths: paths(snapshot, wall),
        keys: snapshot.keys.sealing.map(|sealing| api::HeartbeatKeys { sealing, held: snapshot.keys.held.clone() }),
        disks: disks(snapshot),
        quorum_server: quorum_server(snapshot),
        fence_devices: fence_devices(snapshot),
        guard: Some(guard_status(machine.guard)),
        platform: Some(api::Platform {
            r#virtual: facts.is_virtual,
            os: clip(&facts.os),
            kernel: facts.kernel.clone(),
        }),
        agent: Some(api::AgentInfo { version: env!("CARGO_PKG_VERSION").to_owned(), features: Vec::new() }),
        capacity: facts.capacity.map(|all| capacity(all, snapshot)),
        groups: status
            .groups
            .iter()
            .filter(|(_, g)| g.phase != GroupPhase::Offline)
            .map(|(n, _)| n.0.clone())
            .collect(),
        monitors: status
            .monitors
            .iter()
            .map(|(name, report)| super::group_status::monitor(name, Some(report)))
            .collect(),
        programs: machine.programs.to_vec(),
        unusable_resources: machine.unusable.to_vec(),
        exec: machine.exec.to_vec(),
        commands: machine.commands.iter().filter(|one| Some(one.id) > old.commands_recorded).cloned().collect(),
        commands_recorded: old.commands_recorded,
        holds: holds(snapshot, facts, old, now),
        conditions: old.conditions.clone(),
    };
    let mut list = std::mem::take(&mut new.conditions);
    set_conditions(&mut list, snapshot, machine, &new, generation, now);
    new.conditions = list;
    new
}

/// The parts whose change is worth a report of its own: without measurements and report time.
pub fn essence(status: &api::ServerStatus) -> api::ServerStatus {
    let mut essence = status.clone();
    essence.report_time = None;
    for path in &mut essence.paths {
        (path.latency, path.loss_percent, path.longest_gap) = (None, None, None);
    }
    for device in &mut essence.fence_devices {
        device.time = None;
    }
    for disk in &mut essence.disks {
        disk.read_latency = None;
    }
    if let Some(server) = &mut essence.quorum_server {
        server.latency = None;
    }
    if let Some(authority) = &mut essence.authority {
        authority.smallest_margin = None;
    }
    essence
}

/// What the machine has, and what the groups that it holds require.
fn capacity(all: Amount, snapshot: &Snapshot) -> api::Capacity {
    let groups = snapshot.adoption.as_ref().map(|adoption| &adoption.groups);
    let held = snapshot.status.groups.iter().filter(|(_, group)| group.phase != GroupPhase::Offline);
    let used =
        held.filter_map(|(name, _)| Some(groups?.get(name)?.relations.requires)).fold(Amount::default(), Amount::plus);
    let cpu = |amount: Amount| match amount.cpu_milli % 1000 {
        0 => Some(Quantity((amount.cpu_milli / 1000).to_string())),
        _ => Some(Quantity(format!("{}m", amount.cpu_milli))),
    };
    let memory = |amount: Amount| Some(Quantity(format!("{}Mi", amount.memory >> 20)));
    api::Capacity { cpu: cpu(all), memory: memory(all), used_cpu: cpu(used), used_memory: memory(used) }
}

fn paths(snapshot: &Snapshot, wall: Wall) -> Vec<api::PathStatus> {
    let one = |peer: &ServerName, path: &PathName, seen: &PathStatus| {
        let error = snapshot.path_errors.get(path);
        let refused = refusal(snapshot, path, peer);
        let state = match (error, seen.receiving, seen.two_way) {
            (_, true, true) => api::PathState::Up,
            (_, true, false) => api::PathState::OneWay,
            (Some(_), false, _) => api::PathState::Error,
            (None, false, _) => api::PathState::Down,
        };
        let (expected, received) = seen.loss;
        let lost = expected.saturating_sub(received);
        api::PathStatus {
            path: path.0.clone(),
            peer: peer.0.clone(),
            state,
            since: Some(wall.time(seen.since)),
            latency: seen.latency.map(reported),
            loss_percent: (expected > 0).then(|| format!("{:.1}", lost as f64 * 100.0 / expected as f64)),
            longest_gap: (!seen.longest_gap.is_zero()).then(|| reported(seen.longest_gap)),
            carries_exchange: seen.carries_exchange,
            message: error.filter(|_| state == api::PathState::Error).or(refused).map(|e| clip(e)).unwrap_or_default(),
        }
    };
    let peers = snapshot.status.peers.iter();
    peers.flat_map(|(peer, seen)| seen.paths.iter().map(move |(path, seen)| one(peer, path, seen))).collect()
}

/// Why heartbeats of `peer` are refused on `path`, or those of somebody who is no server of ours.
fn refusal<'a>(snapshot: &'a Snapshot, path: &PathName, peer: &ServerName) -> Option<&'a String> {
    let list = snapshot.refused.get(path)?;
    let of = |who: Option<&ServerName>| list.iter().find(|(sender, _)| sender.as_ref() == who).map(|(_, why)| why);
    // What is said of this server itself (somebody else has its name or number) stands with every peer.
    let peers = &snapshot.status.peers;
    let own = || list.iter().find(|(sender, _)| sender.as_ref().is_some_and(|s| !peers.contains_key(s)));
    of(Some(peer)).or_else(|| own().map(|(_, why)| why)).or_else(|| of(None))
}

fn disks(snapshot: &Snapshot) -> Vec<api::DiskStatus> {
    let ours = snapshot.status.view.as_ref().map(|view| view.cluster);
    let lock = snapshot.adoption.as_ref().and_then(|a| a.sub_cluster.spec.quorum.lock_disk.as_ref());
    let timeout = snapshot.adoption.as_ref().map_or(Duration::from_secs(3), |a| a.config.timeout);
    let one = |(name, health): &(String, Health)| {
        let foreign =
            ours.and_then(|ours| health.clusters.iter().find(|found| **found != ours).map(|found| (found, ours)));
        let waiting = health.busy_since.map(|since| snapshot.at.since(since)).filter(|waited| *waited > timeout);
        let (state, message) = if let Some(waited) = waiting {
            (api::DiskState::Hung, format!("no answer for {} s", waited.as_secs()))
        } else if let Some(error) = &health.error {
            (api::DiskState::Error, error.clone())
        } else if let Some((foreign, ours)) = foreign {
            (api::DiskState::Foreign, format!("the area belongs to the sub-cluster {foreign}, this one is {ours}"))
        } else if let Some(Err(problem)) = &snapshot.status.lock
            && lock.is_some_and(|lock| lock.disk == *name)
        {
            // It answers, and still is no lock of ours: formatted anew, restored from a copy, damaged.
            (api::DiskState::Error, problem.clone())
        } else {
            (api::DiskState::Reachable, String::new())
        };
        let latency = health.latency.map(reported);
        api::DiskStatus { name: name.clone(), state, read_latency: latency, message: clip(&message) }
    };
    snapshot.disks.iter().map(one).collect()
}

/// The quorum server: whether it answers, and whether what it answers is our lock.
fn quorum_server(snapshot: &Snapshot) -> Option<api::QuorumServerStatus> {
    let health = snapshot.quorum_server.as_ref()?;
    let (state, message) = match (&health.error, &snapshot.status.lock) {
        (Some(error), _) => (api::QuorumServerState::Error, error.clone()),
        (None, Some(Err(problem))) => (api::QuorumServerState::Foreign, problem.clone()),
        (None, _) => (api::QuorumServerState::Reachable, String::new()),
    };
    let latency = health.latency.map(reported);
    Some(api::QuorumServerStatus { url: clip(&health.url), state, latency, message: clip(&message) })
}

fn fence_devices(snapshot: &Snapshot) -> Vec<api::FenceDeviceStatus> {
    let one = |checked: &Checked| {
        let (state, message) = match &checked.result {
            Ok(Seen::On) => (api::FenceDeviceState::Working, format!("{} has power", checked.server)),
            Ok(Seen::Off) => (api::FenceDeviceState::Working, format!("{} is off", checked.server)),
            Err(problem) => (api::FenceDeviceState::Failed, problem.clone()),
        };
        api::FenceDeviceStatus {
            device: checked.device.clone(),
            server: checked.server.clone(),
            state,
            message: clip(&message),
            time: Some(Time(checked.at)),
        }
    };
    snapshot.fencing.checked.iter().map(one).collect()
}

/// Whether this server could fence the others: state, reason, message; none where no device is configured.
pub(super) fn fencing_ready(snapshot: &Snapshot) -> Option<(State, &'static str, String)> {
    let view = &snapshot.fencing;
    if !view.configured {
        return None;
    }
    let problem = |c: &Checked| Some(format!("{} for {}: {}", c.device, c.server, c.result.as_ref().err()?));
    let bad: Vec<String> = view.checked.iter().filter_map(problem).collect();
    Some(match (view.checked.is_empty(), bad.is_empty()) {
        (true, _) => (State::Unknown, "NotLookedAt", "the devices are being looked at".to_owned()),
        (_, true) => (State::True, "Working", format!("{} devices answer", view.checked.len())),
        (_, false) => (State::False, stalled::FENCE_FAILED, bad.join("; ")),
    })
}

fn guard_status(guard: &GuardView) -> api::GuardStatus {
    let state = match (guard.present, guard.enforcing, guard.holding) {
        (false, ..) => api::GuardState::Lost,
        (true, true, _) => api::GuardState::Stopping,
        (true, false, true) => api::GuardState::Watching,
        (true, false, false) => api::GuardState::Idle,
    };
    api::GuardStatus {
        state,
        watchdog: guard.watchdog.clone().unwrap_or_default(),
        watchdog_timeout: guard.watchdog_timeout.map(super::bound),
        real_time: guard.real_time,
        memory_locked: guard.memory_locked,
    }
}

/// What keeps this server out: an operator or its declared state, or its own unclean end (C20). Both can hold.
fn holds(snapshot: &Snapshot, facts: &Facts, old: &api::ServerStatus, now: Timestamp) -> Vec<api::Hold> {
    let Some(absence) = snapshot.status.absences.get(&facts.server) else { return Vec::new() };
    let detached = absence.detached.as_ref();
    let by = detached.and_then(|detached| detached.ordered.clone()).unwrap_or_else(|| "holdfast".to_owned());
    let kinds =
        [(detached.is_some(), hold::DETACHED, by), (absence.barred, hold::UNCLEAN_RETURN, "holdfast".to_owned())];
    let one = |(_, type_, by): (bool, &str, String)| api::Hold {
        name: type_.to_lowercase(),
        type_: type_.to_owned(),
        by,
        since: Some(old.holds.iter().find(|h| h.type_ == type_).and_then(|h| h.since.clone()).unwrap_or(Time(now))),
        until: None,
        message: clip(&absence.message),
    };
    kinds.into_iter().filter(|(holds, ..)| *holds).map(one).collect()
}

fn set_conditions(
    list: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    snapshot: &Snapshot,
    machine: Machine<'_>,
    new: &api::ServerStatus,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut set = |type_: &str, state: State, reason: &str, message: &str| {
        conditions::set(list, type_, state, reason, message, generation, now);
    };
    let guard = machine.guard;
    // Without any specification it takes no part; with an older one that goes on being in force.
    let bars = machine.problem.filter(|_| snapshot.adoption.is_none());
    let sentence = bars.or(snapshot.stuck.as_deref()).unwrap_or(&snapshot.status.sentence);
    let (is_ready, reason) = match snapshot.status.member {
        _ if bars.is_some() => (State::False, "TakesNoPart"),
        _ if snapshot.stuck.is_some() => (State::False, "Stuck"),
        MemberState::Active => (State::True, ready::ACTIVE),
        MemberState::Joining | MemberState::Unknown => (State::False, ready::STARTING),
        MemberState::Leaving => (State::False, ready::STOPPING),
        MemberState::Detached => (State::False, ready::HELD),
        MemberState::Partitioned | MemberState::Suspect | MemberState::Lost => (State::False, ready::SERVER_LOST),
    };
    set(condition::READY, is_ready, reason, sentence);

    let mut down: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in new.paths.iter().filter(|path| path.state != api::PathState::Up) {
        down.entry(&path.path).or_default().push(&path.peer);
    }
    let told: Vec<String> = down.iter().map(|(path, peers)| format!("{path} to {}", peers.join(", "))).collect();
    let refused = snapshot.refused.iter().flat_map(|(path, list)| list.iter().map(move |one| (path, one)));
    let refused: Vec<String> = refused
        .map(|(path, (sender, why))| match sender {
            Some(server) => format!("{path} refuses {server}: {why}"),
            None => format!("{path} refuses a stranger: {why}"),
        })
        .collect();
    let down = (!told.is_empty()).then(|| format!("not two-way: {}", told.join("; ")));
    let (healthy, reason, message) = match (new.paths.is_empty(), down) {
        (true, _) => (State::Unknown, "NoPeer", "no peer is configured yet".to_owned()),
        (false, Some(down)) => (State::False, "PathDown", [vec![down], refused].concat().join("; ")),
        (false, None) if refused.is_empty() => (State::True, "AllUp", String::new()),
        (false, None) => (State::False, "HeartbeatRefused", refused.join("; ")),
    };
    set(condition::PATHS_HEALTHY, healthy, reason, &clip(&message));

    let problem = guard.watchdog_problem.clone();
    let (armed, reason, message) = match (&guard.watchdog, problem) {
        _ if !guard.present => (State::False, "GuardLost", "the guard process is gone; it is started again".to_owned()),
        (Some(_), Some(problem)) => (State::False, "Failing", problem),
        (Some(device), None) => (State::True, "Armed", device.clone()),
        (None, problem) => {
            let told = problem.unwrap_or_else(|| "no watchdog device stands behind the guard".to_owned());
            (State::False, "NoDevice", told)
        }
    };
    set(condition::WATCHDOG_ARMED, armed, reason, &message);

    let pending = machine.problem.filter(|_| bars.is_none());
    if let Some(problem) = pending {
        set(condition::CONFIG_PENDING, State::True, "NotAdopted", problem);
    }
    let fencing = fencing_ready(snapshot);
    if let Some((state, reason, message)) = &fencing {
        set(condition::FENCING_READY, *state, reason, message);
    }
    let held = new.holds.first();
    if let Some(held) = held {
        set(condition::HELD, State::True, &held.type_, &held.message);
    }
    // The one that no declaration explains: somebody has to look at the machine.
    let unclean = new.holds.iter().find(|held| held.type_ == hold::UNCLEAN_RETURN);
    if let Some(unclean) = unclean {
        set(condition::STALLED, State::True, stalled::UNCLEAN_RETURN, &unclean.message);
    }
    if held.is_none() {
        conditions::clear(list, condition::HELD);
    }
    if unclean.is_none() {
        conditions::clear(list, condition::STALLED);
    }
    if fencing.is_none() {
        conditions::clear(list, condition::FENCING_READY);
    }
    if pending.is_none() {
        conditions::clear(list, condition::CONFIG_PENDING);
    }
}
