//! What the coordinator says about the sub-cluster: status of the SubCluster object (api.md §3).
//!
//! Other fields than the agents' own (`Accepted`, `AgentReporting`, `acceptedDigest`) are left as they are.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::conditions::{self, State};
use holdfast_api::reasons::{brake_on, condition, ready, stalled};
use holdfast_api::timing::{Timing, recommended_timeout};
use holdfast_api::v1 as api;
use holdfast_core::config::{Config, FencingMode, LockKind, shown};
use holdfast_core::frame::FenceState;
use holdfast_core::status::{
    ClusterPhase, CoordinatorStatus, FenceStatus, GroupPhase, PlacedGroup, Resolution, Status,
};
use holdfast_core::view::{Acceptor, View};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::group_status::regressed;
use super::{Wall, anchor, bound, clip, evidence, number, reported, server_state, word};
use crate::driver_loop::Snapshot;
use crate::inbox::Adoption;
use crate::spec_cache::sub_cluster_regressed;

/// The status as it is to be, from what stands in the API and what the coordinator knows. `present`: the groups that
/// the API has; `stored`: the object there, where that is asked.
pub fn cluster_status(
    snapshot: &Snapshot,
    me: &str,
    old: &api::SubClusterStatus,
    present: &BTreeSet<String>,
    stored: Option<&api::SubCluster>,
    wall: Wall,
    now: Timestamp,
) -> api::SubClusterStatus {
    let status = &snapshot.status;
    let config = snapshot.adoption.as_ref().map(|a| a.config.as_ref());
    let mut new = old.clone();
    if let Some(config) = config {
        new.observed_generation = number::generation(config.generation);
        new.acceptances = number::acceptances(config.generation);
    }
    new.phase = Some(phase(status.phase));
    if let Some(view) = &status.view {
        new.cluster_id = Some(view.cluster.to_string());
        (new.lineage, new.epoch) = (Some(view.lineage), Some(view.epoch));
        let highest = status.highest;
        new.revision = Some(if (highest.lineage, highest.epoch) == view.order() { highest.revision } else { 0 });
        new.config_revision = number::generation(view.config_generation).and_then(|number| u64::try_from(number).ok());
        let same = old.epoch == Some(view.epoch) && old.cluster_id == new.cluster_id;
        let since = old.view.as_ref().and_then(|v| v.since.clone()).filter(|_| same).unwrap_or_else(|| {
            let adopted = status.last_resolution.as_ref().filter(|r| r.epoch == view.epoch).map(|r| wall.time(r.at));
            adopted.unwrap_or(Time(now))
        });
        new.view = Some(api::ViewStatus {
            members: view.members.keys().map(|name| name.0.clone()).collect(),
            coordinator: view.coordinator().map(|name| name.0.clone()).unwrap_or_default(),
            arbiter: Some(arbiter(view)),
            since: Some(since),
        });
        new.guarantee = Some(guarantee(view, config));
    }
    new.timing = snapshot.adoption.as_ref().and_then(|adoption| timing(adoption, status));
    new.members = members(status, config, me);
    if let Some(coordinator) = &status.coordinator {
        new.groups = Some(count(coordinator, present));
        new.orphans = orphans(coordinator, snapshot, present);
    }
    if let Some(resolution) = &status.last_resolution {
        new.last_resolution = Some(last_resolution(resolution, wall));
    }
    set_conditions(&mut new, snapshot, stored, now);
    new
}

/// What a server may say when there is no coordinator: phase and conditions, nothing else.
pub fn without_coordinator(snapshot: &Snapshot, old: &api::SubClusterStatus, now: Timestamp) -> api::SubClusterStatus {
    let mut new = old.clone();
    new.phase = Some(phase(snapshot.status.phase));
    set_conditions(&mut new, snapshot, None, now);
    new
}

/// The parts whose change is worth a report of its own.
pub fn essence(status: &api::SubClusterStatus) -> api::SubClusterStatus {
    let mut essence = status.clone();
    if let Some(timing) = &mut essence.timing {
        (timing.longest_gap, timing.recommended_timeout) = (None, None);
    }
    essence
}

fn phase(phase: ClusterPhase) -> api::SubClusterPhase {
    match phase {
        ClusterPhase::Unformed => api::SubClusterPhase::Unformed,
        ClusterPhase::Forming => api::SubClusterPhase::Forming,
        ClusterPhase::Running => api::SubClusterPhase::Running,
        ClusterPhase::NoQuorum => api::SubClusterPhase::NoQuorum,
        ClusterPhase::Stopped => api::SubClusterPhase::Stopped,
        ClusterPhase::AwaitingForceReinstate => api::SubClusterPhase::AwaitingForceReinstate,
    }
}

fn arbiter(view: &View) -> api::Anchor {
    let kind = view.settings.lock.map(|lock| lock.kind).filter(|_| view.acceptors.contains_key(&Acceptor::Lock));
    match kind {
        None => api::Anchor::Majority,
        Some(LockKind::Disk) => api::Anchor::LockDisk,
        Some(LockKind::QuorumServer) => api::Anchor::QuorumServer,
    }
}

/// What "never active on two servers" rests on for the members of a view. The lowest of all members counts.
pub fn guarantee(view: &View, config: Option<&Config>) -> api::Guarantee {
    let list = |pick: &dyn Fn(&holdfast_core::view::Member) -> bool| -> Vec<&str> {
        view.members.iter().filter(|(_, member)| pick(member)).map(|(name, _)| name.0.as_str()).collect()
    };
    let bare = list(&|member| !member.timing.watchdog);
    let machines = list(&|member| member.is_virtual);
    let allowed = config.is_some_and(|config| config.time_on_virtual_machines);
    let mut told = Vec::new();
    if !bare.is_empty() {
        told.push(format!(
            "no watchdog on {}: a stuck server is stopped by its own kernel and guard process, if they still run",
            bare.join(", ")
        ));
    }
    if !machines.is_empty() {
        let names = machines.join(", ");
        told.push(if allowed {
            format!("{names} may be paused from outside (virtual machines), and elapsed time is allowed as evidence")
        } else {
            format!(
                "{names} may be paused from outside (virtual machines); elapsed time is no evidence for shared data"
            )
        });
    }
    let (level, reason) = match (bare.is_empty(), machines.is_empty()) {
        (true, true) => {
            let reset = view.members.values().map(|member| member.timing.reset).max().unwrap_or_default();
            told.push(format!("a watchdog resets a stuck server within {}", bound(reset)));
            (api::GuaranteeLevel::Full, "HardwareWatchdog")
        }
        (_, false) if allowed => (api::GuaranteeLevel::UserSpace, "TimeOnVirtualMachines"),
        (false, _) => (api::GuaranteeLevel::UserSpace, "NoWatchdog"),
        // With time refused, what has shared data waits for other evidence; what has none may be taken over by time.
        (true, false) => (api::GuaranteeLevel::UserSpace, "VirtualMachines"),
    };
    api::Guarantee { level, reason: reason.to_owned(), message: clip(&told.join("; ")) }
}

pub(super) fn timing(adoption: &Adoption, status: &Status) -> Option<api::TimingStatus> {
    let watchdog = adoption.config.watchdog.then(|| adoption.config.reset / 2);
    let mut shown = Timing::of(&adoption.sub_cluster.spec, watchdog).ok()?.status();
    let gaps = status.peers.values().flat_map(|peer| peer.paths.values()).map(|path| path.longest_gap);
    let longest = gaps.max().unwrap_or_default();
    if !longest.is_zero() {
        shown.longest_gap = Some(reported(longest));
        shown.recommended_timeout = Some(bound(recommended_timeout(longest)));
    }
    Some(shown)
}

fn fencing(call: &FenceStatus) -> api::FencingStatus {
    let state = match call.state {
        FenceState::Announced | FenceState::Firing | FenceState::Restoring => api::FencingState::Firing,
        FenceState::Off => api::FencingState::Off,
        FenceState::On => api::FencingState::On,
        FenceState::Failed => api::FencingState::Failed,
    };
    let boot = uuid::Uuid::from_u128(call.boot.0).to_string();
    api::FencingStatus { boot, state, failed: call.problem, message: clip(&call.message) }
}

fn members(status: &Status, config: Option<&Config>, me: &str) -> Vec<api::MemberStatus> {
    let mut groups: BTreeMap<&str, u32> = BTreeMap::new();
    for placed in status.coordinator.iter().flat_map(|c| c.groups.values()) {
        if let Some(server) = &placed.server {
            *groups.entry(&server.0).or_default() += 1;
        }
    }
    let names: BTreeSet<&str> = config.map_or_else(
        || status.peers.keys().map(|name| name.0.as_str()).chain([me]).collect(),
        |config| config.servers.keys().map(|name| name.0.as_str()).collect(),
    );
    let one = |name: &str| {
        let (state, up, all) = if name == me {
            // Of its own paths those count as up on which anybody hears it.
            let mut paths: BTreeMap<&str, bool> = BTreeMap::new();
            for (path, seen) in status.peers.values().flat_map(|peer| peer.paths.iter()) {
                *paths.entry(&path.0).or_default() |= seen.two_way;
            }
            (status.member, paths.values().filter(|up| **up).count(), paths.len())
        } else {
            match status.peers.get(name) {
                Some(peer) => (peer.state, peer.paths.values().filter(|p| p.two_way).count(), peer.paths.len()),
                None => (holdfast_core::status::MemberState::Unknown, 0, 0),
            }
        };
        api::MemberStatus {
            name: name.to_owned(),
            state: server_state(state),
            groups: groups.get(name).copied().unwrap_or(0),
            paths_up: up as u32,
            paths_down: (all - up) as u32,
            detached: status.absences.get(name).is_some_and(|absence| absence.detached.is_some()),
            unproven: status.absences.get(name).is_some_and(|absence| absence.unproven),
            fencing: status.fences.get(name).map(fencing),
            message: status.absences.get(name).map(|absence| clip(&absence.message)).unwrap_or_default(),
        }
    };
    names.into_iter().map(one).collect()
}

/// Groups that have an object, or that run without one.
fn count(coordinator: &CoordinatorStatus, present: &BTreeSet<String>) -> api::GroupCounts {
    let counted: Vec<&PlacedGroup> = coordinator
        .groups
        .iter()
        .filter(|(name, g)| present.contains(&name.0) || g.server.is_some())
        .map(|(_, g)| g)
        .collect();
    let number = |pick: &dyn Fn(&PlacedGroup) -> bool| counted.iter().filter(|g| pick(g)).count() as u32;
    api::GroupCounts {
        total: counted.len() as u32,
        online: number(&|g| g.phase == GroupPhase::Online),
        offline: number(&|g| g.phase == GroupPhase::Offline),
        failed: number(&|g| matches!(g.phase, GroupPhase::Failed | GroupPhase::Stuck)),
        held: number(&|g| !g.holds.is_empty()),
    }
}

fn orphans(coordinator: &CoordinatorStatus, snapshot: &Snapshot, present: &BTreeSet<String>) -> Vec<api::Orphan> {
    let specs = snapshot.adoption.as_ref().map(|a| &a.specs);
    let running = coordinator.groups.iter().filter_map(|(name, g)| Some((name, g.server.as_ref()?)));
    running
        .filter(|(name, _)| !present.contains(&name.0))
        .map(|(name, server)| api::Orphan {
            name: name.0.clone(),
            server: server.0.clone(),
            claims: specs.and_then(|s| s.get(name)).map(|g| holdfast_api::claims::texts(&g.spec)).unwrap_or_default(),
        })
        .collect()
}

fn last_resolution(resolution: &Resolution, wall: Wall) -> api::Resolution {
    api::Resolution {
        epoch: Some(resolution.epoch),
        cause: word(api::ResolutionCause::ALL, resolution.cause, api::ResolutionCause::as_str),
        paths: resolution.paths.iter().map(|path| path.0.clone()).collect(),
        // A partition that ends without a member is the loss of that member.
        verdict: word(api::Verdict::ALL, resolution.verdict, api::Verdict::as_str).or(Some(api::Verdict::ServerLost)),
        arbiter: anchor(resolution.arbiter),
        evidence: resolution.evidence.and_then(evidence),
        detection: Some(reported(resolution.detection)),
        resolution: Some(reported(resolution.resolution)),
        wait: resolution.wait.map(reported),
        time: Some(wall.time(resolution.at)),
    }
}

fn set_conditions(
    new: &mut api::SubClusterStatus,
    snapshot: &Snapshot,
    stored: Option<&api::SubCluster>,
    now: Timestamp,
) {
    let held = snapshot.adoption.as_ref().map(|adoption| &adoption.sub_cluster);
    let older = stored.zip(held).filter(|(stored, held)| sub_cluster_regressed(held, stored));
    let regressed = older.map(|(stored, _)| regressed(new.observed_generation, stored.metadata.generation));
    let status = &snapshot.status;
    let generation = new.observed_generation;
    let sentence = clip(&status.sentence);
    let (held, reason) = match status.phase {
        ClusterPhase::Running => (State::True, "Quorum"),
        ClusterPhase::Stopped => (State::True, "Stopped"),
        ClusterPhase::Unformed | ClusterPhase::Forming => (State::False, "Forming"),
        ClusterPhase::NoQuorum => (State::False, ready::NO_QUORUM),
        ClusterPhase::AwaitingForceReinstate => (State::False, stalled::AWAITING_FORCE_REINSTATE),
    };
    let missing: Vec<&str> = new
        .members
        .iter()
        .filter(|m| m.state != api::ServerState::Active && !m.detached)
        .map(|m| m.name.as_str())
        .collect();
    let stopping = snapshot.adoption.as_ref().is_some_and(|a| a.config.stopped);
    let (is_ready, why, message) = match status.phase {
        ClusterPhase::Running if stopping && new.groups.as_ref().is_some_and(|g| g.offline < g.total) => {
            (State::False, ready::STOPPING, "groups are being stopped as declared".to_owned())
        }
        ClusterPhase::Running if missing.is_empty() => (State::True, ready::CONVERGED, sentence.clone()),
        ClusterPhase::Running => (State::False, ready::SERVER_LOST, format!("no member: {}", missing.join(", "))),
        ClusterPhase::Stopped => (State::True, ready::CONVERGED, "stopped as declared".to_owned()),
        ClusterPhase::Unformed | ClusterPhase::Forming => (State::False, ready::STARTING, sentence.clone()),
        ClusterPhase::NoQuorum | ClusterPhase::AwaitingForceReinstate => {
            (State::False, ready::NO_QUORUM, sentence.clone())
        }
    };
    let list = &mut new.conditions;
    let mut set = |type_: &str, state: State, reason: &str, message: &str| {
        conditions::set(list, type_, state, reason, message, generation, now);
    };
    set(condition::QUORUM_HELD, held, reason, &sentence);
    set(condition::READY, is_ready, why, &message);
    let down: BTreeSet<String> = status
        .peers
        .iter()
        .flat_map(|(peer, seen)| {
            seen.paths.iter().filter(|(_, p)| !p.two_way).map(move |(n, _)| format!("{n} to {peer}"))
        })
        .collect();
    if !status.peers.is_empty() {
        let told = down.into_iter().collect::<Vec<_>>().join(", ");
        let (state, reason) = if told.is_empty() { (State::True, "AllUp") } else { (State::False, "PathDown") };
        set(condition::PATHS_HEALTHY, state, reason, &told);
    }
    let pending = status
        .view
        .as_ref()
        .zip(snapshot.adoption.as_ref())
        .filter(|(view, adoption)| view.config_generation != adoption.config.generation);
    if let Some((view, adoption)) = pending {
        let told = format!(
            "generation {} is in force, {} is to be",
            shown(view.config_generation),
            shown(adoption.config.generation)
        );
        let told = status.config_pending.as_ref().map_or(told.clone(), |why| format!("{told}: {why}"));
        set(condition::CONFIG_PENDING, State::True, "NotAdopted", &told);
    } else {
        conditions::clear(list, condition::CONFIG_PENDING);
    }
    let mode = snapshot.adoption.as_ref().map(|adoption| adoption.config.fencing.mode).unwrap_or_default();
    match super::server_status::fencing_ready(snapshot) {
        Some(_) if mode == FencingMode::Disabled => {
            let told = "the devices are not used by themselves; set spec.fencing.mode to BestEffort or Required";
            conditions::set(list, condition::FENCING_READY, State::False, "Disabled", told, generation, now);
        }
        Some((state, reason, message)) => {
            conditions::set(list, condition::FENCING_READY, state, reason, &message, generation, now);
        }
        None => {
            conditions::clear(list, condition::FENCING_READY);
        }
    }
    let within = snapshot.adoption.as_ref().map(|adoption| adoption.config.brakes.losses_within).unwrap_or_default();
    match status.coordinator.as_ref().and_then(|coordinator| coordinator.brake.as_ref()) {
        Some(brake) => {
            let (type_, reason) = (condition::BRAKE_ON, brake_on::TOO_MANY_LOSSES);
            conditions::set(list, type_, State::True, reason, &brake.text(within), generation, now);
        }
        None => {
            conditions::clear(list, condition::BRAKE_ON);
        }
    }
    let failed = status.fences.iter().filter(|(_, call)| call.state == FenceState::Failed);
    let unfenced: Vec<String> =
        failed.map(|(server, call)| format!("{server} could not be fenced: {}", call.message)).collect();
    if status.phase != ClusterPhase::AwaitingForceReinstate && !unfenced.is_empty() {
        let told = unfenced.join("; ");
        conditions::set(list, condition::STALLED, State::True, stalled::FENCE_FAILED, &told, generation, now);
    } else if status.phase == ClusterPhase::AwaitingForceReinstate {
        conditions::set(
            list,
            condition::STALLED,
            State::True,
            stalled::AWAITING_FORCE_REINSTATE,
            &sentence,
            generation,
            now,
        );
    } else if let Some(text) = regressed {
        let (type_, reason) = (condition::STALLED, stalled::SPEC_REGRESSED);
        conditions::set(list, type_, State::True, reason, &text, generation, now);
    } else {
        conditions::clear(list, condition::STALLED);
    }
}
