//! What follows when the monitors of a group fail, on the simulated world.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::Outcome;
use holdfast_core::config::{GroupConfig, MonitorAction, MonitorConfig, Recovery, Then};
use holdfast_core::names::GroupName;
use holdfast_core::status::{GroupReport, MonitorPhase};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group, recovery};

use super::expect;

fn limits(then: Then, max_failovers: u32) -> Recovery {
    Recovery { then, max_failovers, restarts: 0, decay: Duration::from_secs(5), ..recovery() }
}

/// The group of two servers with a monitor: every second, failed at the third failure.
fn monitored(action: MonitorAction) -> World {
    let monitor = MonitorConfig {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        threshold: 3,
        success_threshold: 1,
        initial_delay: Duration::from_secs(2),
        action,
    };
    let mut group: GroupConfig = group(&["a", "b"]);
    group.monitors.insert("answers".into(), monitor);
    let mut world = World::new(7, config(2, true), &[("web", group)]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world
}

fn fails() -> Outcome {
    Outcome::Failed("answers 500".into())
}

fn report(world: &World, server: usize) -> GroupReport {
    world.status(server).expect("it is up").groups.get(&GroupName::from("web")).expect("it holds the group").clone()
}

fn phase(world: &World, server: usize) -> MonitorPhase {
    report(world, server).monitors.get("answers").expect("the monitor").phase
}

fn held(world: &World) -> bool {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator);
    coordinator.is_some_and(|c| c.groups[&GroupName::from("web")].holds.contains("FailureLimit"))
}

#[test]
fn a_monitor_passes_after_its_delay_and_less_than_its_threshold_of_failures_does_nothing() {
    let mut world = monitored(MonitorAction::Fail(limits(Then::Failover, 3)));
    world.run_for(1500);
    assert_eq!(phase(&world, 0), MonitorPhase::Unknown, "not before the initial delay\n{}", world.story(40));
    expect(&mut world, 2000, "passing", |world| phase(world, 0) == MonitorPhase::Passing);
    let before = world.moved;
    for _ in 0..5 {
        world.checks_find.insert(0, fails());
        expect(&mut world, 4000, "two failures", |world| report(world, 0).monitors["answers"].failures == 2);
        world.checks_find.clear();
        expect(&mut world, 2000, "passing", |world| report(world, 0).monitors["answers"].failures == 0);
    }
    // A check that can't be carried out says nothing about the service, but is not called Passing.
    world.checks_find.insert(0, Outcome::Unknown("no such program".into()));
    world.run_for(10_000);
    assert_eq!(phase(&world, 0), MonitorPhase::Unknown);
    assert_eq!((world.online("web"), world.moved), (Some(0), before), "{}", world.story(40));
}

#[test]
fn restart_restarts_the_resource_where_it_is_until_its_restarts_are_used_up() {
    let mut world = monitored(MonitorAction::Restart("app".into()));
    world.checks_find.insert(0, fails());
    let restarts = |world: &World| report(world, 0).resources["app"].restarts;
    expect(&mut world, 8000, "restarted", |world| restarts(world) == 1 && world.online("web") == Some(0));
    assert_eq!(world.moved, 1, "only the program was stopped: not its file system, not the address");
    assert!(world.log.iter().any(|line| line.contains("MonitorFailed web: monitor answers: answers 500")));
    // Every restart takes a whole threshold after the delay: 2 s and 3 checks of 1 s.
    world.run_for(3500);
    assert_eq!(restarts(&world), 1, "counted anew after the restart\n{}", world.story(40));
    // Two restarts in place, as the resource's recovery says, then the other server.
    expect(&mut world, 20_000, "on the other server", |world| world.online("web") == Some(1));
    world.run_for(10_000);
    assert_eq!((world.online("web"), phase(&world, 1)), (Some(1), MonitorPhase::Passing), "{}", world.story(60));
}

#[test]
fn failover_goes_to_the_other_server_at_once_and_the_failure_names_the_monitor() {
    let mut world = monitored(MonitorAction::Fail(limits(Then::Failover, 3)));
    world.checks_find.insert(0, fails());
    expect(&mut world, 8000, "on the other server", |world| world.online("web") == Some(1));
    let told = (0..2).find_map(|server| world.status(server)?.coordinator).expect("a coordinator");
    let failure = told.groups[&GroupName::from("web")].failures.values().next().cloned().expect("a failure");
    assert_eq!((failure.part.to_string().as_str(), failure.message.as_str()), ("monitor answers", "answers 500"));
    world.run_for(10_000);
    assert_eq!(world.online("web"), Some(1), "it does not come back\n{}", world.story(60));
}

#[test]
fn a_monitor_that_fails_everywhere_ends_at_the_failover_limit_not_in_going_back_and_forth() {
    let mut world = monitored(MonitorAction::Fail(limits(Then::Failover, 3)));
    world.checks_find.extend([(0, fails()), (1, fails())]);
    expect(&mut world, 200_000, "held", held);
    world.run_for(10_000);
    // Three failovers count. Once both have failed nothing runs until that is forgotten, so each is of two runs, and
    // each run of three resources.
    assert!(world.moved <= 18, "{} stops\n{}", world.moved, world.story(200));
    let before = world.moved;
    world.run_for(300_000);
    assert_eq!((world.places("web"), world.moved), (vec![], before), "{}", world.story(60));
}

#[test]
fn stop_stops_the_group_and_holds_it() {
    let mut world = monitored(MonitorAction::Fail(limits(Then::Stop, 3)));
    world.checks_find.insert(0, fails());
    expect(&mut world, 8000, "stopped and held", |world| world.places("web").is_empty() && held(world));
    world.run_for(60_000);
    assert!(world.places("web").is_empty(), "{}", world.story(60));
}

#[test]
fn report_only_says_so_and_takes_it_back() {
    let mut world = monitored(MonitorAction::Report);
    world.checks_find.insert(0, fails());
    expect(&mut world, 8000, "failing", |world| phase(world, 0) == MonitorPhase::Failing);
    world.run_for(20_000);
    let said = world.log.iter().filter(|line| line.contains("MonitorFailed")).count();
    assert_eq!((world.online("web"), world.moved, said), (Some(0), 0, 1), "{}", world.story(60));
    world.checks_find.clear();
    expect(&mut world, 3000, "passing", |world| phase(world, 0) == MonitorPhase::Passing);
}

#[test]
fn a_changed_specification_neither_shortens_the_initial_delay_nor_begins_it_anew() {
    let mut world = monitored(MonitorAction::Report);
    let publish = |world: &mut World, generation: u64| {
        let mut changed = (*world.groups[&GroupName::from("web")]).clone();
        (changed.generation, changed.priority) = (generation, 7);
        world.groups.insert("web".into(), Arc::new(changed));
        world.publish();
    };
    let passes = |world: &World, generation: u64| {
        let report = report(world, 0);
        report.generation == generation && report.monitors["answers"].phase == MonitorPhase::Passing
    };
    world.run_for(1000);
    publish(&mut world, 2);
    world.run_for(700);
    assert_eq!((report(&world, 0).generation, phase(&world, 0)), (2, MonitorPhase::Unknown), "{}", world.story(40));
    expect(&mut world, 1000, "passing", |world| passes(world, 2));
    world.run_for(2000);
    // It is old enough by now: what is counted anew is asked for at once.
    publish(&mut world, 3);
    expect(&mut world, 500, "passing again", |world| passes(world, 3));
}
