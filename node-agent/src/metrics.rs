//! What the agent measures, for Prometheus: the same state that it reports to the API, asked here instead of there, so that it
//! is seen with the API away, too. Answered on the address `metrics` of the agent's file.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::duration::Duration as Text;
use holdfast_api::v1 as api;
use holdfast_telemetry::described;
use holdfast_telemetry::metrics::{Described, Metrics, Sample};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::clock;
use crate::config::AgentConfig;
use crate::convert::server_status::{Facts, GuardView, Machine};
use crate::convert::{Wall, group_status, server_status};
use crate::driver_loop::Snapshot;

described! {
    /// All that an agent measures.
    INFO Gauge "holdfast_agent_info" ["namespace", "sub_cluster", "server", "version"] "1; whose agent it is, and its version.";
    LEASE Gauge "holdfast_lease_held" [] "1 while this server may run groups.";
    MARGIN Gauge "holdfast_lease_smallest_margin_seconds" []
        "What was left of the lease when it was renewed at the last moment so far, in seconds: small means nearly lost.";
    EPOCH Gauge "holdfast_epoch" [] "Epoch of the view that this server knows; a step is a decision about who is a member.";
    COORDINATOR Gauge "holdfast_coordinator" [] "1 on the server that assigns the groups.";
    STATE Gauge "holdfast_server_state" ["state"] "1 for the state that this server is in.";
    PATH_UP Gauge "holdfast_path_up" ["path", "peer"] "1 while heartbeats pass both ways.";
    PATH_LATENCY Gauge "holdfast_path_latency_seconds" ["path", "peer"] "Time of a heartbeat there and back, in seconds.";
    PATH_LOSS Gauge "holdfast_path_loss_ratio" ["path", "peer"] "Lost heartbeats, 0 to 1.";
    PATH_GAP Gauge "holdfast_path_longest_gap_seconds" ["path", "peer"]
        "Longest time between two heartbeats, in seconds: the timeout has to stay well above it.";
    DISK Gauge "holdfast_disk_reachable" ["disk"] "1 while reads of the shared disk succeed in time.";
    QUORUM_SERVER Gauge "holdfast_quorum_server_reachable" [] "1 while the quorum server would answer.";
    GUARD Gauge "holdfast_guard_present" [] "1 while the guard runs, which ends what no lease covers.";
    WATCHDOG Gauge "holdfast_watchdog_armed" [] "1 while a watchdog device resets this server if it gets stuck.";
    FENCE Gauge "holdfast_fence_device_usable" ["device", "server"] "1 if the device answered when it was last looked at.";
    GROUP Gauge "holdfast_agent_group_phase" ["group", "phase"] "1 for the phase of each group that this server holds.";
    RESTARTS Gauge "holdfast_resource_restarts" ["group", "resource"] "Restarts in place since the group was started here.";
    MONITOR Gauge "holdfast_monitor_failures" ["group", "monitor"]
        "Failures in a row of a monitor; group is empty for monitors of the server.";
    FAILURES Gauge "holdfast_group_failures" ["group", "server", "resource"]
        "Failures that are remembered against a group on a server; on the coordinator only.";
    LAST Gauge "holdfast_group_last_transition_seconds" ["group", "type"]
        "How long the newest start, stop, move or failover took, in seconds; on the coordinator only.";
    TRANSITIONS Counter "holdfast_group_transitions_total" ["group"]
        "Starts, stops, moves and failovers of a group since it was first placed; on the coordinator only.";
}

/// Metrics that ask the state of this agent.
pub(crate) fn of(
    config: &AgentConfig,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    guard: watch::Receiver<GuardView>,
    facts: Arc<Facts>,
) -> Metrics {
    let metrics = Metrics::default();
    let (namespace, sub_cluster) = (config.namespace.clone(), config.sub_cluster.clone());
    metrics.state(move || {
        let snapshot = snapshots.borrow().clone();
        let guard = guard.borrow().clone();
        let info = [&namespace, &sub_cluster, &facts.server.0, env!("CARGO_PKG_VERSION")];
        let mut samples = vec![Sample::new(&INFO, &info, 1.0)];
        if let Some(snapshot) = snapshot {
            samples.extend(of_snapshot(&snapshot, &guard, &facts));
        }
        samples
    });
    metrics
}

fn of_snapshot(snapshot: &Snapshot, guard: &GuardView, facts: &Facts) -> Vec<Sample> {
    let now = Timestamp::now();
    let wall = Wall::new(clock::now(), now);
    let machine = Machine { facts, guard, programs: &[], unusable: &[], exec: &[], commands: &[], problem: None };
    let server = server_status::server_status(snapshot, machine, &Default::default(), None, wall, now);
    let mut samples = of_server(&server);
    samples.push(flag(&COORDINATOR, &[], snapshot.status.coordinator.is_some()));
    for (group, report) in &snapshot.status.groups {
        samples.push(Sample::new(&GROUP, &[&group.0, report.phase.name()], 1.0));
        for (resource, report) in &report.resources {
            samples.push(Sample::new(&RESTARTS, &[&group.0, &resource.0], f64::from(report.restarts)));
        }
    }
    for (name, group) in snapshot.status.coordinator.iter().flat_map(|coordinator| &coordinator.groups) {
        let status = group_status::group_status(snapshot, name, group, &Default::default(), None, wall, now);
        samples.extend(of_group(&name.0, &status));
    }
    samples
}

/// What a server's own report says.
fn of_server(server: &api::ServerStatus) -> Vec<Sample> {
    let mut samples = Vec::new();
    if let Some(state) = server.state {
        samples.push(Sample::new(&STATE, &[state.as_str()], 1.0));
    }
    // As exact as a float is; epochs are small.
    samples.extend(server.epoch.map(|epoch| Sample::new(&EPOCH, &[], epoch as f64)));
    if let Some(authority) = &server.authority {
        samples.push(flag(&LEASE, &[], authority.held));
        samples.extend(seconds(&MARGIN, &[], authority.smallest_margin.as_ref()));
    }
    for path in &server.paths {
        let labels = [path.path.as_str(), path.peer.as_str()];
        samples.push(flag(&PATH_UP, &labels, path.state == api::PathState::Up));
        samples.extend(seconds(&PATH_LATENCY, &labels, path.latency.as_ref()));
        samples.extend(seconds(&PATH_GAP, &labels, path.longest_gap.as_ref()));
        let loss = path.loss_percent.as_ref().and_then(|percent| percent.parse::<f64>().ok());
        samples.extend(loss.map(|percent| Sample::new(&PATH_LOSS, &labels, percent / 100.0)));
    }
    for disk in &server.disks {
        samples.push(flag(&DISK, &[&disk.name], disk.state == api::DiskState::Reachable));
    }
    if let Some(quorum) = &server.quorum_server {
        samples.push(flag(&QUORUM_SERVER, &[], quorum.state == api::QuorumServerState::Reachable));
    }
    if let Some(guard) = &server.guard {
        samples.push(flag(&GUARD, &[], guard.state != api::GuardState::Lost));
        samples.push(flag(&WATCHDOG, &[], guard.watchdog_timeout.is_some()));
    }
    for device in &server.fence_devices {
        let usable = device.state == api::FenceDeviceState::Working;
        samples.push(flag(&FENCE, &[&device.device, &device.server], usable));
    }
    samples.extend(server.monitors.iter().map(|monitor| failures("", monitor)));
    samples
}

/// What the coordinator reports of a group.
fn of_group(name: &str, group: &api::FailoverGroupStatus) -> Vec<Sample> {
    let mut samples: Vec<Sample> = group.monitors.iter().map(|monitor| failures(name, monitor)).collect();
    for failure in &group.failures {
        samples.push(Sample::new(&FAILURES, &[name, &failure.server, &failure.resource], f64::from(failure.count)));
    }
    if let Some(newest) = group.transitions.first() {
        samples.push(Sample::new(&TRANSITIONS, &[name], newest.id as f64));
        samples.extend(seconds(&LAST, &[name, newest.type_.as_str()], newest.actual.as_ref()));
    }
    samples
}

fn failures(group: &str, monitor: &api::MonitorStatus) -> Sample {
    Sample::new(&MONITOR, &[group, &monitor.name], f64::from(monitor.failures))
}

fn flag(of: &'static Described, labels: &[&str], yes: bool) -> Sample {
    Sample::new(of, labels, f64::from(u8::from(yes)))
}

fn seconds(of: &'static Described, labels: &[&str], text: Option<&Text>) -> Option<Sample> {
    text.map(|text| Sample::new(of, labels, Duration::as_secs_f64(&text.get())))
}
