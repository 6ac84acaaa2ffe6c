//! What follows when the monitors of a group fail, on the simulated world.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::Outcome;
use holdfast_core::config::{GroupConfig, InPlace, MonitorAction, MonitorConfig, Recovery, Then};
use holdfast_core::names::GroupName;
use holdfast_core::status::{GroupReport, MonitorPhase};
use holdfast_planner::{Relations, Strength};
use holdfast_sim::World;
use holdfast_sim::setup::{self, config, group, recovery};
use holdfast_sim::world::faults::Fault;

use super::expect;

fn limits(then: Then, max_failovers: u32) -> Recovery {
    Recovery { then, max_failovers, restarts: 0, decay: Duration::from_secs(5), ..recovery() }
}

/// Every second.
fn monitor(action: MonitorAction) -> MonitorConfig {
    setup::monitor(1000, action)
}

/// The group of two servers with a monitor.
fn monitored(action: MonitorAction) -> World {
    let mut group: GroupConfig = group(&["a", "b"]);
    group.monitors.insert("answers".into(), monitor(action));
    let mut world = World::new(7, config(2, true), &[("web", group)]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world
}

fn fails() -> Outcome {
    Outcome::Failed("answers 500".into())
}

fn report(world: &World, server: usize) -> Arc<GroupReport> {
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
fn a_program_with_restarts_of_its_own_uses_these_first_each_after_its_backoff() {
    let mut web = group(&["a", "b"]);
    web.monitors.insert("answers".into(), monitor(MonitorAction::Restart("app".into())));
    let app = web.resources.get_mut("app").expect("the example");
    app.in_place = Some(InPlace { limit: 2, window: Duration::from_secs(600), backoff: Duration::from_secs(4) });
    app.recovery.restarts = 1;
    let mut world = World::new(7, config(2, true), &[("web", web)]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world.checks_find.insert(0, fails());
    let runs = |world: &World| world.hosts[0].running.iter().any(|(_, name)| name.0 == "app");
    for restart in 1..=3 {
        expect(&mut world, 8000, "stopped", |world| !runs(world));
        let stopped = world.now;
        expect(&mut world, 8000, "started again", runs);
        let waited = (world.now - stopped) / 1_000_000;
        // The third one is by its recovery, which does not wait.
        assert_eq!(waited >= 3500, restart < 3, "restart {restart} after {waited} ms\n{}", world.story(40));
        assert_eq!(report(&world, 0).resources["app"].restarts, restart);
    }
    expect(&mut world, 20_000, "on the other server", |world| world.online("web") == Some(1));
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
    // Three recoveries count. Once both have failed nothing runs until that is forgotten, and the start after that is one.
    // Each run is of three resources.
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

/// Two groups on three servers, the first one with these limits, and a monitor of servers.
fn watched(action: MonitorAction, max_failovers: u32) -> World {
    let mut config = config(3, false);
    config.monitors.insert("link".into(), monitor(action));
    let mut web = group(&["a", "b"]);
    web.resources.values_mut().for_each(|resource| resource.recovery.max_failovers = max_failovers);
    let mut world = World::new(7, config, &[("web", web), ("db", group(&["a", "c"]))]);
    expect(&mut world, 3000, "online", |world| places(world) == (Some(0), Some(0)));
    world
}

fn places(world: &World) -> (Option<usize>, Option<usize>) {
    (world.online("web"), world.online("db"))
}

#[test]
fn a_server_that_a_monitor_calls_unfit_gives_all_groups_to_better_ones_and_gets_none() {
    let mut world = watched(MonitorAction::FailAll(None), 3);
    world.checks_find.insert(0, fails());
    expect(&mut world, 10_000, "both moved", |world| places(world) == (Some(1), Some(2)));
    assert!(world.log.iter().any(|line| line.contains("MonitorFailed: monitor link, on a: answers 500")));
    // Where a group has no better server it stays: b is the last one of web, c the last one of db.
    world.checks_find.insert(1, fails());
    world.run_for(20_000);
    assert_eq!((places(&world), world.moved), ((Some(1), Some(2)), 6), "{}", world.story(60));
    // The only server that is left is used although it is unfit.
    world.power_cut(1);
    expect(&mut world, 10_000, "taken over", |world| world.online("web") == Some(0));
    world.checks_find.clear();
    world.run_for(20_000);
    assert_eq!(places(&world), (Some(0), Some(2)), "nothing goes back by itself\n{}", world.story(60));
}

#[test]
fn what_fails_on_all_servers_at_once_moves_nothing() {
    let mut world = watched(MonitorAction::FailAll(None), 3);
    world.checks_find.extend([(0, fails()), (1, fails()), (2, fails())]);
    world.run_for(60_000);
    assert_eq!((places(&world), world.moved), ((Some(0), Some(0)), 0), "{}", world.story(60));
}

#[test]
fn a_monitor_that_fails_now_here_and_now_there_moves_a_group_only_so_often() {
    let mut world = watched(MonitorAction::FailAll(None), 3);
    for round in 0..6 {
        let (bad, good) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        world.checks_find.insert(bad, fails());
        world.checks_find.remove(&good);
        world.run_for(20_000);
    }
    // Three moves of three resources each; then it stays on b, whatever is said of that, and it is told.
    let of_web =
        world.log.iter().filter(|line| line.contains("GroupMoved web") || line.contains("GroupFailedOver web"));
    assert_eq!(of_web.count(), 3, "{}", world.story(200));
    assert_eq!(world.online("web"), Some(1));
    assert!(world.log.iter().any(|line| line.contains("group web stays on b although monitor link fails there")));
}

#[test]
fn a_group_is_not_placed_where_its_own_monitor_fails() {
    let mut web = group(&["a", "b"]);
    web.everywhere.insert("disk".into(), monitor(MonitorAction::Fail(limits(Then::Failover, 3))));
    let mut world = World::new(7, config(3, false), &[("web", web), ("db", group(&["a", "c"]))]);
    world.checks_find.insert(1, fails());
    expect(&mut world, 3000, "online", |world| places(world) == (Some(0), Some(0)));
    expect(&mut world, 10_000, "b is known to be bad", |world| {
        let coordinator = (0..3).find_map(|server| world.status(server)?.coordinator).expect("a coordinator");
        let told = &coordinator.groups[&GroupName::from("web")].everywhere["disk"];
        told.phase == MonitorPhase::Failing && told.message == "b: answers 500"
    });
    world.checks_find.insert(0, fails());
    world.run_for(20_000);
    assert_eq!((world.online("web"), world.moved), (Some(0), 0), "it fails on both: it stays\n{}", world.story(60));
    world.checks_find.remove(&1);
    expect(&mut world, 10_000, "on the good one", |world| places(world) == (Some(1), Some(0)));
}

fn said(world: &World, part: &str) -> usize {
    world.log.iter().filter(|line| line.contains(part)).count()
}

#[test]
fn a_server_that_is_to_go_down_hands_its_groups_over_first_and_half_of_all_servers_stay() {
    let mut world = watched(MonitorAction::ServerDown(None), 3);
    world.checks_find.insert(0, fails());
    expect(&mut world, 15_000, "down", |world| said(world, "a: powers off") == 1);
    expect(&mut world, 5000, "taken over", |world| places(world) == (Some(1), Some(2)));
    assert_eq!(said(&world, "GroupFailedOver"), 0, "everything was handed over, nothing was lost\n{}", world.story(60));
    assert_eq!(world.members(1), ["b", "c"]);
    // Of three servers one may go, not two.
    world.checks_find.insert(1, fails());
    world.run_for(30_000);
    assert_eq!((said(&world, "powers off"), places(&world)), (1, (Some(1), Some(2))), "{}", world.story(60));
    assert_eq!(said(&world, "only 1 of 3 servers would be left"), 1, "{}", world.story(60));
    // Repaired and switched on, it comes back; then the other one may go.
    world.checks_find.remove(&0);
    world.power_on(0);
    expect(&mut world, 20_000, "b is down", |world| said(world, "b: powers off") == 1);
    expect(&mut world, 5000, "on a", |world| places(world) == (Some(0), Some(2)));
}

#[test]
fn a_server_that_is_to_shut_down_goes_on_when_the_others_are_lost_meanwhile() {
    let mut config = config(2, true);
    config.monitors.insert("link".into(), monitor(MonitorAction::ServerDown(None)));
    let mut world = World::new(7, config, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world.apply(&Fault::SlowHelpers(2000));
    world.checks_find.insert(0, fails());
    expect(&mut world, 15_000, "a hands over", |world| said(world, "a hands its groups over") == 1);
    world.power_cut(1);
    expect(&mut world, 10_000, "a goes on", |world| said(world, "a does not shut down: no other server is left") == 1);
    expect(&mut world, 20_000, "online again", |world| world.online("web") == Some(0));
    world.run_for(10_000);
    assert_eq!(said(&world, "powers off"), 0, "{}", world.story(60));
}

#[test]
fn a_group_that_can_go_nowhere_else_stays_on_an_unfit_server() {
    let apart = |other: &str| Relations {
        separate_from: [(other.to_owned(), Strength::Required)].into(),
        ..Relations::default()
    };
    let web = GroupConfig { priority: 10, relations: apart("db"), ..group(&["a", "b"]) };
    let db = GroupConfig { priority: 900, relations: apart("web"), ..group(&["b"]) };
    let mut config = config(2, true);
    config.monitors.insert("link".into(), monitor(MonitorAction::FailAll(None)));
    let mut world = World::new(7, config, &[("web", web), ("db", db)]);
    expect(&mut world, 3000, "online", |world| places(world) == (Some(0), Some(1)));
    let moved = world.moved;
    world.checks_find.insert(0, fails());
    world.run_for(20_000);
    assert_eq!((places(&world), world.moved), ((Some(0), Some(1)), moved), "{}", world.story(60));
    // Nor is it left without a server when it has to start anew there.
    world.power_cut(0);
    world.power_on(0);
    expect(&mut world, 20_000, "online again", |world| places(world) == (Some(0), Some(1)));
}

#[test]
fn what_fails_on_all_servers_shuts_none_down_nor_does_it_one_after_the_other() {
    let mut world = watched(MonitorAction::ServerDown(None), 3);
    world.checks_find.extend([(0, fails()), (1, fails()), (2, fails())]);
    world.run_for(60_000);
    assert_eq!((said(&world, "powers off"), world.moved), (0, 0), "{}", world.story(60));

    // Not even if that were asked for: somebody has to be better.
    let down = MonitorConfig { unless_all_fail: false, ..monitor(MonitorAction::ServerDown(None)) };
    let mut config = config(4, true);
    config.monitors.insert("link".into(), down);
    let mut world = World::new(7, config, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world.checks_find.extend((0..4).map(|server| (server, fails())));
    world.run_for(60_000);
    assert_eq!((said(&world, "powers off"), world.online("web")), (0, Some(0)), "{}", world.story(60));
    // Two of four are better: both of the others go, one after the other, and no third one.
    world.checks_find.retain(|server, _| *server < 2);
    world.run_for(30_000);
    assert_eq!(said(&world, "powers off"), 2, "{}", world.story(60));
    world.checks_find.insert(2, fails());
    world.run_for(30_000);
    assert_eq!(
        (said(&world, "powers off"), world.members(3)),
        (2, vec!["c".into(), "d".into()]),
        "{}",
        world.story(60)
    );
}

#[test]
fn a_resource_that_can_not_be_restarted_takes_its_server_down_but_never_the_last_one() {
    let mut web = group(&["a", "b"]);
    web.monitors.insert("answers".into(), monitor(MonitorAction::Restart("app".into())));
    let app = web.resources.get_mut("app").expect("the example");
    (app.recovery.restarts, app.recovery.then) = (0, Then::ServerDown);
    let mut world = World::new(7, config(2, true), &[("web", web)]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world.checks_find.extend([(0, fails()), (1, fails())]);
    expect(&mut world, 15_000, "a is down", |world| said(world, "a: powers off") == 1);
    expect(&mut world, 5000, "on b", |world| world.places("web") == [1]);
    world.run_for(60_000);
    assert_eq!(said(&world, "powers off"), 1, "{}", world.story(60));
    assert!(said(&world, "b does not shut down although") >= 1, "{}", world.story(60));
}
