//! Sub-clusters and groups as the schedules use them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::config::{
    Brakes, CheckConfig, Config, Fencing, FencingMode, GroupConfig, LockKind, MonitorAction, MonitorConfig, PathKind,
    Recovery, ResourceConfig, Then,
};
use holdfast_core::names::{PathName, ResourceName, ServerName};

/// Recovery that never runs out of failovers, so that a schedule may go on for long.
pub fn recovery() -> Recovery {
    Recovery {
        restarts: 2,
        window: Duration::from_secs(600),
        then: Then::Failover,
        max_failovers: 1000,
        failover_window: Duration::from_secs(3600),
        decay: Duration::from_secs(20),
    }
}

fn resource(after: &[&str]) -> ResourceConfig {
    let names: BTreeSet<ResourceName> = after.iter().map(|name| ResourceName::from(*name)).collect();
    ResourceConfig {
        after: names.clone(),
        requires: names,
        critical: true,
        start_timeout: Duration::from_secs(5),
        stop_timeout: Duration::from_secs(5),
        probe_timeout: Duration::from_secs(5),
        checks: BTreeMap::from([(
            0,
            CheckConfig { interval: Duration::from_secs(10), timeout: Duration::from_secs(5) },
        )]),
        monitor_threshold: 1,
        in_place: None,
        enabled: true,
        recovery: recovery(),
    }
}

/// A group with a file system, a program on it, and an address.
pub fn group(servers: &[&str]) -> GroupConfig {
    GroupConfig {
        generation: 1,
        online: true,
        auto_start: true,
        policy: servers.iter().map(|name| ServerName::from(*name)).collect(),
        priority: 100,
        failback: None,
        relations: Default::default(),
        resources: BTreeMap::from([
            ("data".into(), resource(&[])),
            ("app".into(), resource(&["data"])),
            ("addr".into(), resource(&["data"])),
        ]),
        monitors: BTreeMap::new(),
        everywhere: BTreeMap::new(),
        shared_data: true,
        restart_on_change: false,
        digest: 1,
        stop_when_no_server_left: true,
        fence_on_stop_failure: true,
        target: None,
        clear: None,
        restart: None,
        hold: None,
    }
}

/// `servers` servers with two LANs and, with a lock, the disk path. Timeout 1 s, lease 700 ms, C 955 ms.
pub fn config(servers: usize, has_lock: bool) -> Config {
    let ms = Duration::from_millis;
    let mut paths =
        BTreeMap::from([(PathName::from("ic"), PathKind::Interconnect), (PathName::from("pub"), PathKind::Public)]);
    if has_lock {
        paths.insert("area".into(), PathKind::Disk);
    }
    Config {
        generation: 1,
        servers: (0..servers).map(|i| (server_name(i), (i + 1) as u8)).collect(),
        detached: BTreeSet::new(),
        paths,
        wires: BTreeMap::new(),
        lock_at: 0,
        lock: has_lock.then_some(LockKind::Disk),
        interval: ms(100),
        timeout: ms(1000),
        stall: ms(200),
        lease: ms(700),
        soft_stop: ms(500),
        kill: ms(600),
        renew: ms(50),
        io_timeout: ms(50),
        reset: ms(200),
        watchdog: false,
        drain: ms(50),
        takeover_wait: ms(955),
        grace: Duration::from_secs(5),
        automatic_return: true,
        time_on_virtual_machines: true,
        fencing: Fencing::default(),
        stopped: false,
        // Schedules lose more, and move more often, than any of these defaults lets pass.
        brakes: Brakes {
            max_losses: servers,
            losses_within: Duration::from_secs(60),
            max_moves: 1000,
            moves_within: Duration::from_secs(3600),
        },
        sites: BTreeMap::new(),
        monitors: BTreeMap::new(),
    }
}

/// A monitor with this pause between its checks (ms), failed at the third failure in a row.
pub fn monitor(interval: u64, action: MonitorAction) -> MonitorConfig {
    let interval = Duration::from_millis(interval);
    MonitorConfig {
        interval,
        timeout: interval,
        threshold: 3,
        success_threshold: 1,
        initial_delay: 2 * interval,
        action,
        unless_all_fail: true,
    }
}

/// The same with a fence device for every server.
pub fn fenced(config: Config, mode: FencingMode) -> Config {
    Config { fencing: Fencing { mode, servers: config.servers.keys().cloned().collect() }, ..config }
}

/// Any number of servers with a quorum server: no heartbeat path on it, and an access may take twice as long.
pub fn with_quorum_server(servers: usize) -> Config {
    let ms = Duration::from_millis;
    let mut config = config(servers, true);
    config.lock = Some(LockKind::QuorumServer);
    config.paths.remove("area");
    (config.io_timeout, config.soft_stop, config.kill) = (ms(100), ms(600), ms(700));
    (config.lease, config.takeover_wait) = (ms(800), ms(1054));
    config
}

/// a, b, c …
pub fn server_name(index: usize) -> ServerName {
    ServerName(char::from(b'a' + index as u8).to_string())
}
