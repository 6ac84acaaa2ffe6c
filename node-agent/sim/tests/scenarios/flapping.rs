//! A group that fails always and everywhere, for a day: it is tried less and less often, ends in a state that stays, with
//! the reason, and runs again as soon as the cause is gone and somebody says so.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::config::{Config, Failback, GroupConfig, MonitorAction, Recovery, Target, Then};
use holdfast_core::names::GroupName;
use holdfast_core::status::PlacedGroup;
use holdfast_core::{Outcome, names::ResourceName};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group, monitor};

use super::expect;

const HOUR: u64 = 3_600_000;

/// Two servers whose times are 300 times longer, so that a day is as much work as five minutes.
fn slow() -> Config {
    let mut slow = config(2, true);
    for time in [
        &mut slow.interval,
        &mut slow.timeout,
        &mut slow.stall,
        &mut slow.lease,
        &mut slow.soft_stop,
        &mut slow.kill,
        &mut slow.renew,
        &mut slow.io_timeout,
        &mut slow.reset,
        &mut slow.drain,
        &mut slow.takeover_wait,
    ] {
        *time *= 300;
    }
    slow
}

/// What is wrong with the group.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    /// Its program never starts.
    Start,
    /// Its program ends so many ms after each start.
    Ends(u64),
    /// A monitor with this action always fails.
    Monitor(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Restart,
    Failover,
}

/// The limits of the API's defaults.
fn defaults() -> Recovery {
    Recovery {
        restarts: 2,
        window: Duration::from_secs(600),
        then: Then::Failover,
        max_failovers: 3,
        failover_window: Duration::from_secs(3600),
        decay: Duration::from_secs(3600),
    }
}

/// The limits that forbid least.
fn loosest() -> Recovery {
    let second = Duration::from_secs(1);
    let (restarts, max_failovers) = (100, 100);
    Recovery { restarts, max_failovers, window: second, failover_window: second, decay: second, ..defaults() }
}

fn failing(servers: &[&str], recovery: &Recovery, failback: bool, wrong: Wrong) -> GroupConfig {
    let mut failing: GroupConfig = group(servers);
    for resource in failing.resources.values_mut() {
        resource.recovery = recovery.clone();
        resource.checks.clear();
    }
    failing.failback = failback.then_some(Failback { delay: Duration::ZERO, in_window: false });
    if let Wrong::Monitor(answer) = wrong {
        let action = match answer {
            Answer::Restart => MonitorAction::Restart("app".into()),
            Answer::Failover => MonitorAction::Fail(recovery.clone()),
        };
        let mut asks = monitor(10_000, action);
        asks.unless_all_fail = false;
        failing.monitors.insert("asks".into(), asks);
    }
    failing
}

fn placed(world: &World) -> Option<PlacedGroup> {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator)?;
    coordinator.groups.get(&GroupName::from("web")).cloned()
}

/// Starts of the program in a day, those of its last six hours, and what people are told.
fn a_day(mut world: World, wrong: Wrong) -> (World, usize, usize, String) {
    match wrong {
        Wrong::Start => world.fail_starts(1.0),
        Wrong::Ends(ms) => world.short_lived = Some(("app".into(), ms)),
        Wrong::Monitor(_) => {
            for server in 0..2 {
                world.checks_find.insert(server, Outcome::Failed("no answer".into()));
            }
        }
    }
    world.run_for(24 * HOUR);
    assert_eq!(world.violations, Vec::<String>::new(), "{}", world.story(60));
    // The first resource that starts is the one whose start fails.
    let tried = |name: &str| world.starts.get(&(GroupName::from("web"), ResourceName::from(name))).cloned();
    let starts = tried("app").into_iter().chain(tried("data")).max_by_key(Vec::len).unwrap_or_default();
    let late = starts.iter().filter(|at| **at > world.now - 6 * HOUR * 1_000_000).count();
    let told = placed(&world).map(|group| {
        let report = group.report.iter().flat_map(|report| &report.resources);
        let resources = report.map(|(name, resource)| format!("{name}: {}", resource.message));
        let failures = group.failures.iter().map(|(server, failure)| format!("{server}: {}", failure.message));
        let holds = group.holds.iter().cloned();
        resources.chain(failures).chain(holds).collect::<Vec<_>>().join(", ")
    });
    (world, starts.len(), late, told.unwrap_or_default())
}

#[test]
fn what_always_fails_is_tried_less_and_less_and_comes_back_when_it_is_cured_and_started() {
    let causes = [
        Wrong::Start,
        Wrong::Ends(20),
        Wrong::Ends(60_000),
        Wrong::Monitor(Answer::Restart),
        Wrong::Monitor(Answer::Failover),
    ];
    for wrong in causes {
        for (failback, then) in
            [(false, Then::Failover), (true, Then::Failover), (false, Then::Stop), (false, Then::Report)]
        {
            let recovery = Recovery { then, ..defaults() };
            let config = failing(&["a", "b"], &recovery, failback, wrong);
            let (mut world, starts, late, told) = a_day(World::new(7, slow(), &[("web", config)]), wrong);
            println!("{wrong:?} then {then:?} failback {failback}: {starts} starts, {late} late: {told}");
            assert!(
                starts <= 40 && late == 0,
                "{wrong:?}, {then:?}, {failback}: {starts} starts, {late} late\n{}",
                world.story(80)
            );
            assert!(!told.is_empty(), "{wrong:?}, {then:?}: no reason");
            if then == Then::Report {
                continue; // it goes on with what is left of it
            }
            // Cured, and started by an operator.
            world.fail_starts(0.0);
            world.short_lived = None;
            world.checks_find.clear();
            let tag = placed(&world).and_then(|group| group.assignment).expect("it was placed").tag;
            let mut config = (*world.groups[&GroupName::from("web")]).clone();
            config.target = Some(Target {
                by: "operator".into(),
                server: None,
                computed_from: (tag.epoch, tag.revision),
                stop: Some(false),
            });
            world.groups.insert("web".into(), Arc::new(config));
            world.publish();
            expect(&mut world, 200_000, "online", |world| world.online("web").is_some());
        }
    }
}

/// However the limits are set: no server is busy with it, and no group wanders for ever.
#[test]
fn the_loosest_limits_are_bounded_too() {
    for servers in [&["a", "b"][..], &["a"]] {
        for wrong in [Wrong::Start, Wrong::Ends(20), Wrong::Monitor(Answer::Failover)] {
            let config = failing(servers, &loosest(), true, wrong);
            let (world, starts, late, told) = a_day(World::new(7, slow(), &[("web", config)]), wrong);
            println!("{servers:?} {wrong:?}: {starts} starts, {late} late: {told}");
            assert!(
                starts <= 700 && late <= 160,
                "{servers:?}, {wrong:?}: {starts} starts, {late} late\n{}",
                world.story(80)
            );
            assert!(!told.is_empty(), "{servers:?}, {wrong:?}: no reason");
        }
    }
}
