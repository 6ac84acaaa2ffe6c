//! Resources of a running group that are switched off and on, and that fail while others need them.

use std::collections::BTreeSet;

use super::*;
use crate::config::{Recovery, ResourceConfig, Then};
use crate::message::Reason;
use crate::view::Tag;

fn resource(after: &[&str], requires: &[&str]) -> ResourceConfig {
    let names = |list: &[&str]| list.iter().map(|name| ResourceName::from(*name)).collect::<BTreeSet<_>>();
    let second = Duration::from_secs(1);
    ResourceConfig {
        after: names(after),
        requires: names(requires),
        enabled: true,
        critical: true,
        start_timeout: second,
        stop_timeout: second,
        probe_timeout: second,
        checks: BTreeMap::new(),
        monitor_threshold: 1,
        in_place: None,
        recovery: Recovery {
            restarts: 0,
            window: second,
            then: Then::Failover,
            max_failovers: 1,
            failover_window: second,
            decay: second,
        },
    }
}

/// A service in two parts with an address between them, and a program that lives on the service.
fn config() -> GroupConfig {
    GroupConfig {
        generation: 1,
        online: true,
        auto_start: true,
        policy: Vec::new(),
        priority: 100,
        failback: None,
        relations: Default::default(),
        resources: BTreeMap::from([
            ("db".into(), resource(&[], &[])),
            ("addr".into(), resource(&["db"], &[])),
            ("db.net".into(), resource(&["db", "addr"], &["db"])),
            ("web".into(), resource(&["db"], &["db"])),
        ]),
        monitors: BTreeMap::new(),
        everywhere: BTreeMap::new(),
        shared_data: false,
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

/// Lets the machine act until it wants nothing more; every operation succeeds, but for `refused`. Gives what was done.
fn settle(machine: &mut Machine, refused: Option<&str>) -> Vec<String> {
    let (mut done, mut op) = (Vec::new(), 0);
    for _ in 0..20 {
        let requests = machine.requests(Instant(1), true, &mut Vec::new());
        if requests.is_empty() {
            return done;
        }
        for request in requests {
            op += 1;
            machine.begun(Instant(1), &request, op);
            let Request { resource, action, .. } = request;
            let outcome = match action {
                _ if refused == Some(resource.0.as_str()) => Outcome::Failed("refused".into()),
                Action::Stop => Outcome::Stopped,
                _ => Outcome::Running,
            };
            done.push(format!("{action:?} {resource}"));
            machine.done(Instant(1), &resource, op, outcome, Duration::ZERO);
        }
    }
    panic!("it does not settle: {done:?}");
}

fn machine() -> Machine {
    let assignment = Assignment {
        tag: Tag::default(),
        server: None,
        generation: 1,
        reason: Reason::Start,
        previous: None,
        next: None,
        holds: BTreeSet::new(),
        paused: None,
        held_by: None,
        part_restarted: None,
        operation: None,
        moves: Vec::new(),
        cleared: None,
        restarted: None,
    };
    Machine::new(Instant(1), assignment, Arc::new(config()), 0, false)
}

fn switched(on: bool) -> Arc<GroupConfig> {
    let mut config = config();
    for name in ["db", "db.net"] {
        config.resources.get_mut(name).expect("a resource").enabled = on;
    }
    Arc::new(config)
}

#[test]
fn what_is_switched_off_stops_in_order_while_its_group_runs_on() {
    let mut machine = machine();
    assert_eq!(settle(&mut machine, None), ["Start db", "Start addr", "Start web", "Start db.net"]);
    machine.refresh(&switched(false));
    // The address is not touched; what can't do without the service is restarted around it.
    assert_eq!(settle(&mut machine, None), ["Stop db.net", "Stop web", "Stop db", "Start web"]);
    assert_eq!(machine.phase(), GroupPhase::Online);
    machine.refresh(&switched(true));
    assert_eq!(settle(&mut machine, None), ["Start db", "Start db.net"]);
    assert_eq!(machine.phase(), GroupPhase::Online);
    machine.stop("a test");
    assert_eq!(settle(&mut machine, None), ["Stop db.net", "Stop web", "Stop addr", "Stop db"]);
    assert!(machine.is_gone());
}

#[test]
fn a_group_starts_without_what_is_switched_off() {
    let mut machine = machine();
    machine.refresh(&switched(false));
    assert_eq!(settle(&mut machine, None), ["Start addr", "Start web"]);
    assert_eq!(machine.phase(), GroupPhase::Online);
}

#[test]
fn a_start_that_fails_after_it_was_switched_off_fails_nothing() {
    let mut machine = machine();
    let requests = machine.requests(Instant(1), true, &mut Vec::new());
    machine.begun(Instant(1), &requests[0], 99);
    machine.refresh(&switched(false));
    machine.done(Instant(1), &"db".into(), 99, Outcome::Failed("no licence".into()), Duration::ZERO);
    assert_eq!(settle(&mut machine, None), ["Stop db", "Start addr", "Start web"]);
    assert_eq!((machine.phase(), machine.failure()), (GroupPhase::Online, None));
    // Nor does a stop that fails count as one.
    machine.refresh(&switched(true));
    settle(&mut machine, None);
    machine.refresh(&switched(false));
    settle(&mut machine, Some("db.net"));
    assert_eq!(machine.phase(), GroupPhase::Stuck);
}

/// A running service on which a web server is being started, and what restarts it has.
fn starting(critical: bool) -> Machine {
    let mut config = config();
    config.resources.get_mut("db").expect("a resource").recovery.restarts = 1;
    config.resources.get_mut("web").expect("a resource").critical = critical;
    let mut machine = machine();
    machine.config = Arc::new(config);
    for (op, name) in [(1, "db"), (2, "web"), (3, "addr")] {
        let requests = machine.requests(Instant(1), true, &mut Vec::new());
        let start = requests.iter().find(|request| request.resource.0 == name).expect("a start");
        machine.begun(Instant(1), start, op);
        if name != "web" {
            machine.done(Instant(1), &name.into(), op, Outcome::Running, Duration::ZERO);
        }
    }
    machine
}

#[test]
fn what_was_starting_when_its_requirement_failed_is_restarted_with_it() {
    let mut machine = starting(true);
    machine.exited(Instant(1), &"db".into(), "it ended".into());
    assert_eq!(settle(&mut machine, None), Vec::<String>::new(), "its start has to end first");
    machine.done(Instant(1), &"web".into(), 2, Outcome::Running, Duration::ZERO);
    let restarted = settle(&mut machine, None);
    assert_eq!(restarted[..3], ["Stop web", "Stop db", "Start db"], "{restarted:?}");
    assert!(restarted.contains(&"Start web".into()), "{restarted:?}");
    assert_eq!(machine.phase(), GroupPhase::Online);
}

#[test]
fn what_was_given_up_does_not_keep_its_requirement_from_being_restarted() {
    let mut machine = starting(false);
    machine.done(Instant(1), &"web".into(), 2, Outcome::Failed("no licence".into()), Duration::ZERO);
    settle(&mut machine, None);
    machine.exited(Instant(1), &"db".into(), "it ended".into());
    let restarted = settle(&mut machine, None);
    assert!(restarted.ends_with(&["Start db.net".into()]) && restarted.contains(&"Start db".into()), "{restarted:?}");
    assert_eq!(machine.phase(), GroupPhase::Online);
}
