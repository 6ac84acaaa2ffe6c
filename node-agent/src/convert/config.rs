//! Accepted API objects to what the core, the paths and the executor act by.
//!
//! Nothing is validated twice: the controller accepts only what passes the same functions. What can't be converted all
//! the same is told and leaves what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::placement::{is_open, relations};
use holdfast_api::timing::Timing;
use holdfast_api::v1 as api;
use holdfast_api::validation::resource_graph;
use holdfast_core::clearing::{Clear, ClearRequest};
use holdfast_core::commands::is_program;
use holdfast_core::config::{
    Brakes, CheckConfig, Config, Failback, GroupConfig, InPlace, LockKind, PathKind, Recovery, ResourceConfig, Target,
    Then,
};
use holdfast_core::holding::{HoldChange, HoldRequest};
use holdfast_core::names::{BootId, GroupName, PathName, ResourceName, ServerName};
use holdfast_core::orders::{Order, Power, Wanted};
use holdfast_core::restarting::RestartRequest;
use holdfast_core::settings::LockPlace;
use sha2::{Digest, Sha256};

use super::{monitors, number};
use crate::convert::data_services;
use crate::convert::storage::needs;
use crate::executor::RunningGroup;
use crate::inbox::Adoption;
use crate::paths::quorum::QuorumWiring;
use crate::paths::serial::SerialWiring;
use crate::paths::{DiskWiring, LanWiring, Wiring};
use crate::quorum::access::Credentials;
use crate::resources::Sources;
use crate::resources::plan::data_service::steps_of;
use crate::spec_cache::{Specs, is_deleted};

/// Groups that can't be acted on, with the reason.
pub type LeftOut = Vec<(GroupName, String)>;

/// Everything that is in force with these specifications. `watchdog`: timeout of the device that this server's guard
/// holds, as it was read back. `running`: what ran here before this process started. `credentials`: the agent's own.
pub fn adoption(
    specs: &Specs,
    me: &ServerName,
    watchdog: Option<Duration>,
    running: &[RunningGroup],
    credentials: &Path,
) -> Result<(Adoption, LeftOut), String> {
    let sub_cluster = specs.sub_cluster.clone().ok_or("the sub-cluster is not known yet")?;
    let config = cluster_config(&sub_cluster, watchdog)?;
    if !config.servers.contains_key(me) {
        let names = config.servers.keys().map(|name| name.0.as_str()).collect::<Vec<_>>().join(", ");
        return Err(format!(
            "this server is called {me} in the agent file, but the sub-cluster has {names}; correct one of them"
        ));
    }
    let of = |object: &api::SubCluster| -> Result<Wiring, String> {
        let mut wiring = wiring(object, me)?;
        wiring.quorum = quorum_wiring(object, me, config.io_timeout, specs, credentials);
        Ok(wiring)
    };
    let wiring = of(&sub_cluster)?;
    // One that did not have this server yet has nothing to keep open here.
    let former = specs.former.iter().rev().filter_map(|object| of(object).ok()).collect();
    let services = &specs.data_services;
    let mut groups = BTreeMap::new();
    let mut left_out = Vec::new();
    let mut all = specs.groups.clone();
    for (name, group) in &mut all {
        let made = data_services::expanded(group, services).and_then(|expanded| {
            if let Some(expanded) = expanded {
                *group = Arc::new(expanded);
            }
            let mut config = group_config(group, &sub_cluster)?;
            data_services::switch(&mut config, &group.spec.resources, services);
            Ok(config)
        });
        match made {
            Ok(config) => drop(groups.insert(name.clone(), Arc::new(config))),
            Err(reason) => left_out.push((name.clone(), reason)),
        }
    }
    let running = running
        .iter()
        .filter_map(|group| {
            let mut config = running_config(group, all.get(&group.group).map(AsRef::as_ref), &sub_cluster)?;
            data_services::switch(&mut config, group.resources.values().map(|resource| &resource.spec), services);
            Some((group.group.clone(), Arc::new(config)))
        })
        .collect();
    let adoption = Adoption {
        config: Arc::new(config),
        groups,
        running,
        wiring,
        former,
        sources: Arc::new(Sources {
            namespace: sub_cluster.metadata.namespace.clone().unwrap_or_default(),
            secrets: specs.resource_secrets.clone(),
            config_maps: specs.config_maps.clone(),
            ..data_services::sources(services, &all)
        }),
        specs: all,
        sub_cluster,
        secrets: specs.secrets.clone(),
    };
    Ok((adoption, left_out))
}

/// The sub-cluster as the core sees it.
pub fn cluster_config(object: &api::SubCluster, watchdog: Option<Duration>) -> Result<Config, String> {
    let spec = &object.spec;
    if spec.watchdog.mode == api::WatchdogMode::Required && watchdog.is_none() {
        return Err(format!(
            "watchdog.mode is Required and this server's guard holds no watchdog ({}); this server does not take part",
            spec.watchdog.device
        ));
    }
    let watchdog = watchdog.filter(|_| spec.watchdog.mode != api::WatchdogMode::Disabled);
    let timing = Timing::of(spec, watchdog).map_err(|errors| {
        let all = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>();
        format!("the timing of the sub-cluster does not hold on this server: {}", all.join("; "))
    })?;
    let paths = spec.heartbeat.paths.iter().filter_map(|path| Some((PathName(path.name.clone()), kind(path)?)));
    Ok(Config {
        generation: number::of_sub_cluster(object),
        servers: spec.servers.iter().map(|s| (ServerName(s.name.clone()), s.id)).collect(),
        detached: spec
            .servers
            .iter()
            .filter(|s| s.state == api::ServerDeclaredState::Detached)
            .map(|s| ServerName(s.name.clone()))
            .collect(),
        paths: paths.collect(),
        wires: spec.heartbeat.paths.iter().map(|path| (PathName(path.name.clone()), path_digest(spec, path))).collect(),
        lock_at: lock_place(spec).map_or(0, |lock| lock.place),
        lock: match spec.quorum.type_ {
            api::QuorumType::Majority => None,
            api::QuorumType::LockDisk => Some(LockKind::Disk),
            api::QuorumType::QuorumServer => Some(LockKind::QuorumServer),
        },
        interval: timing.interval,
        timeout: timing.timeout,
        stall: timing.stall,
        lease: timing.lease,
        soft_stop: timing.soft_stop,
        kill: timing.kill,
        renew: timing.renew,
        io_timeout: timing.io_timeout,
        reset: timing.reset,
        watchdog: timing.watchdog.is_some(),
        drain: timing.drain,
        takeover_wait: timing.takeover_wait,
        grace: spec.startup.grace_period.get(),
        automatic_return: spec.return_policy == api::ReturnPolicy::Automatic,
        time_on_virtual_machines: spec.evidence.time_on_virtual_machines == api::TimeOnVirtualMachines::Allow,
        fencing: crate::fencing::topology::core_config(spec),
        stopped: spec.state == api::SubClusterState::Stopped,
        brakes: Brakes {
            max_losses: spec.max_losses(),
            losses_within: spec.brakes.losses_within.get(),
            max_moves: usize::from(spec.brakes.max_moves_per_group),
            moves_within: spec.brakes.moves_within.get(),
        },
        sites: spec
            .servers
            .iter()
            .filter(|server| !server.site.is_empty())
            .map(|server| (server.name.as_str().into(), server.site.clone()))
            .collect(),
        monitors: monitors::of_servers(spec),
    })
}

/// A number that changes with the place of a path: addresses, devices.
fn path_digest(spec: &api::SubClusterSpec, path: &api::HeartbeatPath) -> u32 {
    let words = match (&path.lan, &path.disk, &path.serial) {
        (Some(lan), ..) => {
            let mut ends: Vec<String> = lan.endpoints.iter().map(|e| format!("{}={}", e.server, e.address)).collect();
            ends.sort();
            format!("lan {:?} {} {:?} {}", lan.role, lan.port, lan.interface, ends.join(" "))
        }
        (_, Some(disk), _) => format!("disk {}", disk_digest(spec, &disk.disk)),
        (.., Some(serial)) => {
            let mut ends: Vec<String> = serial.devices.iter().map(|e| format!("{}={}", e.server, e.device)).collect();
            ends.sort();
            format!("serial {} {}", serial.baud_rate, ends.join(" "))
        }
        _ => String::new(),
    };
    number(words.as_bytes()) as u32
}

/// A number that changes with the place of a disk's area.
fn disk_digest(spec: &api::SubClusterSpec, name: &str) -> u64 {
    let area = spec.disks.iter().find(|disk| disk.name == name).and_then(|disk| disk.area.as_ref());
    area.map_or(0, |area| number(format!("{} {}", area.device, area.offset).as_bytes()))
}

/// Which lock the specification has.
fn lock_place(spec: &api::SubClusterSpec) -> Option<LockPlace> {
    if let Some(lock) = &spec.quorum.lock_disk {
        return Some(LockPlace { kind: LockKind::Disk, place: disk_digest(spec, &lock.disk) });
    }
    let server = spec.quorum.quorum_server.as_ref()?;
    let text = format!("{} {} {}", server.lease.namespace, server.lease.name, server.urls.join(" "));
    Some(LockPlace { kind: LockKind::QuorumServer, place: number(text.as_bytes()) })
}

/// The first 64 bits of SHA-256.
fn number(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn kind(path: &api::HeartbeatPath) -> Option<PathKind> {
    match (&path.lan, &path.disk, &path.serial) {
        (Some(lan), ..) => Some(match lan.role {
            api::LanRole::Interconnect => PathKind::Interconnect,
            api::LanRole::Public => PathKind::Public,
        }),
        (_, Some(_), _) => Some(PathKind::Disk),
        (.., Some(_)) => Some(PathKind::Serial),
        _ => None,
    }
}

/// What an Operation asks of a server, if it is something that agents carry out.
pub fn order(request: &api::ServerRequest) -> Option<Order> {
    let wanted = match request.type_ {
        api::OperationType::Detach => Wanted::Detach { stop_groups: request.stop_groups },
        api::OperationType::Reinstate => Wanted::Reinstate,
        api::OperationType::ConfirmStopped => Wanted::ConfirmStopped,
        api::OperationType::ForceReinstate => Wanted::ForceReinstate,
        api::OperationType::Fence => {
            let asked = request.fence.as_ref()?;
            let power = match asked.action {
                api::FenceAction::PowerOff => Power::Off,
                api::FenceAction::Reboot => Power::Reboot,
                api::FenceAction::PowerOn => Power::On,
            };
            Wanted::Fence { boot: BootId(uuid::Uuid::parse_str(&asked.boot).ok()?.as_u128()), power }
        }
        api::OperationType::Shutdown => {
            let asked = request.shut_down.as_ref()?;
            let id = uuid::Uuid::parse_str(&asked.uid).ok()?.as_u128();
            Wanted::ShutDown { id, together: asked.together, power_off: asked.power_off }
        }
        _ => return None,
    };
    Some(Order::new((request.lineage, request.epoch), ServerName(request.server.clone()), wanted, &request.by))
}

/// The heartbeat paths of this server, and the lock if it is a disk.
pub fn wiring(object: &api::SubCluster, me: &ServerName) -> Result<Wiring, String> {
    let spec = &object.spec;
    let slots: BTreeMap<ServerName, u8> = spec.servers.iter().map(|s| (ServerName(s.name.clone()), s.id)).collect();
    let mut lans = Vec::new();
    for path in &spec.heartbeat.paths {
        let Some(lan) = &path.lan else { continue };
        let mut endpoints = BTreeMap::new();
        for endpoint in &lan.endpoints {
            let address: IpAddr = endpoint.address.parse().map_err(|_| {
                format!("heartbeat.paths {}: {:?} of {} is no address", path.name, endpoint.address, endpoint.server)
            })?;
            endpoints.insert(ServerName(endpoint.server.clone()), address);
        }
        lans.push(LanWiring {
            name: PathName(path.name.clone()),
            kind: kind(path).unwrap_or(PathKind::Public),
            port: lan.port,
            interface: lan.interface.clone(),
            endpoints,
            ids: slots.clone(),
            wire: path_digest(spec, path),
        });
    }
    let lock = spec.quorum.lock_disk.as_ref().map(|lock| lock.disk.as_str());
    let mut disks = Vec::new();
    for disk in &spec.disks {
        let is_path = |path: &&api::HeartbeatPath| path.disk.as_ref().is_some_and(|d| d.disk == disk.name);
        let path = spec.heartbeat.paths.iter().find(is_path);
        let lock = lock_place(spec).filter(|_| lock == Some(disk.name.as_str()));
        if path.is_none() && lock.is_none() {
            continue;
        }
        let area = disk
            .area
            .as_ref()
            .ok_or_else(|| format!("disks {}: it carries a heartbeat path or the lock, but has no area", disk.name))?;
        disks.push(DiskWiring {
            disk: disk.name.clone(),
            device: PathBuf::from(&area.device),
            offset: area.offset,
            wire: path.map_or(0, |path| path_digest(spec, path)),
            path: path.map(|path| PathName(path.name.clone())),
            lock,
            slots: slots.clone(),
        });
    }
    let mut serials = Vec::new();
    for path in &spec.heartbeat.paths {
        let Some(serial) = &path.serial else { continue };
        let lacks = |what: &str| format!("heartbeat.paths {}: the serial line has no {what}", path.name);
        let own = serial.devices.iter().find(|device| device.server == me.0);
        let device = &own.ok_or_else(|| lacks(&format!("device for {me}")))?.device;
        let other = serial.devices.iter().find(|device| device.server != me.0);
        let peer = other.and_then(|other| slots.get_key_value(other.server.as_str()));
        let (peer, id) = peer.ok_or_else(|| lacks("device for another server"))?;
        serials.push(SerialWiring {
            wire: path_digest(spec, path),
            name: PathName(path.name.clone()),
            baud: serial.baud_rate,
            device: PathBuf::from(device),
            peer: (peer.clone(), *id),
        });
    }
    Ok(Wiring { me: me.clone(), lans, disks, serials, quorum: None })
}

/// The quorum server, if the sub-cluster has one.
fn quorum_wiring(
    object: &api::SubCluster,
    me: &ServerName,
    timeout: Duration,
    specs: &Specs,
    credentials: &Path,
) -> Option<QuorumWiring> {
    let server = object.spec.quorum.quorum_server.as_ref()?;
    let slot = object.spec.servers.iter().find(|entry| entry.name == me.0)?.id;
    let credentials = match &server.credential_secret {
        None => Credentials::Agent(credentials.to_owned()),
        Some(name) => match specs.quorum_secrets.0.get(name).filter(|entries| !entries.is_empty()) {
            None => Credentials::Missing(name.clone()),
            Some(entries) => Credentials::Secret(entries.clone()),
        },
    };
    let (namespace, name) = (server.lease.namespace.clone(), server.lease.name.clone());
    let place = lock_place(&object.spec)?;
    Some(QuorumWiring { urls: server.urls.clone(), namespace, name, slot, timeout, place, credentials })
}

/// A group as the core sees it.
pub fn group_config(object: &api::FailoverGroup, sub_cluster: &api::SubCluster) -> Result<GroupConfig, String> {
    let spec = &object.spec;
    if let Some(circle) = holdfast_api::validation::dependency_cycle(spec) {
        return Err(format!("its resources depend on each other in a circle: {}", circle.join(", ")));
    }
    let status = object.status.as_ref();
    Ok(GroupConfig {
        generation: number::of_group(object),
        online: spec.state == api::GroupState::Online && !is_deleted(object),
        auto_start: spec.startup == api::GroupStartup::Auto,
        policy: spec.placement_servers(&sub_cluster.spec).into_iter().map(ServerName).collect(),
        priority: spec.placement.priority,
        failback: failback(&spec.placement.failback),
        relations: relations(&spec.placement),
        resources: resources(spec)?,
        monitors: monitors::of_group(spec, api::MonitorScope::Online),
        everywhere: monitors::of_group(spec, api::MonitorScope::Everywhere),
        shared_data: spec.resources.iter().any(holdfast_api::claims::is_shared_data),
        restart_on_change: spec.change.on_restart_needed == api::OnRestartNeeded::Restart,
        digest: digest(spec)?,
        stop_when_no_server_left: spec.recovery.no_server_left == api::NoServerLeftAction::Stop,
        fence_on_stop_failure: spec.recovery.on_stop_failure == api::StopFailureAction::Fence,
        target: status.and_then(|s| s.target.as_ref()).and_then(target),
        clear: status.and_then(|s| s.clear_failures.as_ref()).map(clear),
        restart: status.and_then(|s| s.restart.as_ref()).map(restart),
        hold: status.and_then(|s| s.pause.as_ref()).map(pause),
    })
}

/// What ran before this process started, if it differs from what is accepted now. Resources that were not started
/// then are not part of it.
fn running_config(
    running: &RunningGroup,
    accepted: Option<&api::FailoverGroup>,
    sub_cluster: &api::SubCluster,
) -> Option<GroupConfig> {
    let (programs, declared): (Vec<_>, Vec<_>) = running.resources.iter().partition(|(name, _)| is_program(name));
    let generation = running.resources.values().map(|r| r.generation).max()?;
    let same = accepted.is_some_and(|accepted| number::of_group(accepted) == generation);
    if same && programs.is_empty() {
        return None;
    }
    let mut object = accepted.cloned().unwrap_or_else(|| {
        let spec = api::FailoverGroupSpec {
            sub_cluster: sub_cluster.metadata.name.clone().unwrap_or_default(),
            state: api::GroupState::Online,
            startup: api::GroupStartup::Auto,
            placement: api::Placement::default(),
            recovery: api::Recovery::default(),
            change: api::Change::default(),
            disaster: None,
            resources: Vec::new(),
            monitors: Vec::new(),
        };
        api::FailoverGroup::new(&running.group.0, spec)
    });
    object.metadata.generation = number::generation(generation);
    let accepted = number::acceptances(generation);
    let accept_spec = accepted.map(|acceptances| api::AcceptSpec { acceptances, ..api::AcceptSpec::default() });
    object.status.get_or_insert_default().accept_spec = accept_spec;
    if !same {
        object.spec.resources = declared.into_iter().map(|(_, r)| r.spec.clone()).collect();
    }
    let mut config = group_config(&object, sub_cluster).ok()?;
    let after: BTreeSet<ResourceName> = config.resources.keys().cloned().collect();
    for (name, program) in programs {
        let program = program_config(&program.spec, Some(&object.spec)).ok()?;
        let program = ResourceConfig { after: after.clone(), requires: after.clone(), ..program };
        config.resources.insert(name.clone(), program);
    }
    Some(config)
}

/// A program that a command adds to a group, without its place among the others. Its limits are the group's.
///
/// # Errors
/// A sentence.
pub fn program_config(
    resource: &api::Resource,
    group: Option<&api::FailoverGroupSpec>,
) -> Result<ResourceConfig, String> {
    let of_group = group.map(|group| group.recovery.clone()).unwrap_or_default();
    let own = resource.recovery.as_ref().ok_or("a program says itself how often it is restarted")?;
    Ok(ResourceConfig {
        after: BTreeSet::new(),
        requires: BTreeSet::new(),
        enabled: true,
        critical: true,
        start_timeout: resource.start_timeout(),
        stop_timeout: resource.stop_timeout(),
        probe_timeout: resource.probe_timeout(),
        checks: checks(resource),
        monitor_threshold: u32::from(resource.check_threshold()),
        in_place: None,
        recovery: Recovery {
            restarts: u32::from(own.restarts.unwrap_or(of_group.restarts)),
            window: own.window.as_ref().unwrap_or(&of_group.window).get(),
            then: Then::Failover,
            max_failovers: u32::from(of_group.max_failovers),
            failover_window: of_group.failover_window.get(),
            decay: of_group.failure_decay.get(),
        },
    })
}

/// The groups whose window for a failback is open at `now`, by this server's clock.
pub fn open_windows(
    groups: &BTreeMap<GroupName, Arc<api::FailoverGroup>>,
    now: jiff::Timestamp,
) -> BTreeSet<GroupName> {
    let open = |group: &api::FailoverGroup| {
        group.spec.placement.failback.window.as_ref().is_some_and(|window| is_open(window, now))
    };
    groups.iter().filter(|(_, group)| open(group)).map(|(name, _)| name.clone()).collect()
}

fn failback(spec: &api::Failback) -> Option<Failback> {
    let in_window = match spec.mode {
        api::FailbackMode::Manual => return None,
        api::FailbackMode::Automatic => false,
        api::FailbackMode::Window => true,
    };
    Some(Failback { delay: spec.delay.get(), in_window })
}

/// A target by an Operation. What the controller computes without one is what the coordinator's planner says anyway.
fn target(target: &api::Target) -> Option<Target> {
    if target.operation.is_empty() {
        return None;
    }
    let online = target.state == api::GroupState::Online;
    Some(Target {
        by: target.operation.clone(),
        server: Some(&target.server).filter(|name| online && !name.is_empty()).map(|name| ServerName(name.clone())),
        computed_from: (target.epoch, target.revision.unwrap_or(0)),
        stop: Some(!online),
    })
}

fn clear(asked: &api::ClearFailures) -> ClearRequest {
    let server = Some(&asked.server).filter(|name| !name.is_empty());
    let clear = Clear {
        by: asked.operation.clone(),
        resources: Some(&asked.resource).filter(|name| !name.is_empty()).map(|name| steps_of(name)).unwrap_or_default(),
        server: server.map(|name| ServerName(name.clone())),
    };
    ClearRequest { clear, computed_from: (asked.epoch, asked.revision.unwrap_or(0)) }
}

fn restart(asked: &api::GroupRestart) -> RestartRequest {
    RestartRequest {
        by: asked.operation.clone(),
        server: ServerName(asked.server.clone()),
        resources: Some(&asked.resource).filter(|name| !name.is_empty()).map(|name| steps_of(name)).unwrap_or_default(),
        computed_from: (asked.epoch, asked.revision.unwrap_or(0)),
    }
}

fn pause(asked: &api::GroupPause) -> HoldRequest {
    let until = asked.until.as_ref().map(|until| until.0.as_second());
    let resume = HoldChange::Resume { accept: asked.accept_differences };
    HoldRequest {
        by: asked.operation.clone(),
        change: if asked.resume { resume } else { HoldChange::Pause { until } },
        computed_from: (asked.epoch, asked.revision.unwrap_or(0)),
    }
}

fn recovery(spec: &api::FailoverGroupSpec, resource: &api::Resource) -> Result<Recovery, String> {
    let own = spec.recovery_of(resource);
    Ok(Recovery {
        restarts: u32::from(own.restarts),
        window: own.window,
        then: match own.then {
            api::RecoveryAction::Failover => Then::Failover,
            api::RecoveryAction::Stop => Then::Stop,
            api::RecoveryAction::Report => Then::Report,
            api::RecoveryAction::ServerDown => Then::ServerDown,
        },
        max_failovers: u32::from(spec.recovery.max_failovers),
        failover_window: spec.recovery.failover_window.get(),
        decay: spec.recovery.failure_decay.get(),
    })
}

fn checks(resource: &api::Resource) -> BTreeMap<u8, CheckConfig> {
    let checks = resource.checks().into_iter();
    checks.map(|(depth, check)| (depth, CheckConfig { interval: check.interval, timeout: check.timeout })).collect()
}

fn in_place(restart: &api::ProcessRestart) -> InPlace {
    InPlace { limit: u32::from(restart.limit), window: restart.window.get(), backoff: restart.backoff.get() }
}

fn resources(spec: &api::FailoverGroupSpec) -> Result<BTreeMap<ResourceName, ResourceConfig>, String> {
    let mut graph = resource_graph(spec);
    let one = |resource: &api::Resource| {
        let after: BTreeSet<ResourceName> =
            graph.remove(&resource.name).unwrap_or_default().into_iter().map(ResourceName).collect();
        let config = ResourceConfig {
            requires: after.iter().filter(|name| needs(spec, resource, &name.0)).cloned().collect(),
            after,
            enabled: true,
            critical: resource.critical,
            start_timeout: resource.start_timeout(),
            stop_timeout: resource.stop_timeout(),
            probe_timeout: resource.probe_timeout(),
            checks: checks(resource),
            monitor_threshold: u32::from(resource.check_threshold()),
            in_place: resource.process.as_ref().and_then(|process| process.restart.as_ref()).map(in_place),
            recovery: recovery(spec, resource)?,
        };
        Ok((ResourceName(resource.name.clone()), config))
    };
    spec.resources.iter().map(one).collect()
}

/// A number that changes with everything whose change needs a restart.
fn digest(spec: &api::FailoverGroupSpec) -> Result<u64, String> {
    let all = holdfast_api::change::what_runs(spec).map_err(|e| e.to_string())?;
    let text = serde_json::to_vec(&all).map_err(|e| e.to_string())?;
    Ok(number(&text))
}

#[cfg(test)]
#[path = "config_tests.rs"]
pub(crate) mod tests;
