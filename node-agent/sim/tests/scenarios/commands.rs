//! C25 on the simulated world: commands that are given on a server, and programs that join a group.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::commands::{Command, program};
use holdfast_core::config::{Failback, GroupConfig, MonitorAction, Recovery, ResourceConfig, Then};
use holdfast_core::names::{GroupName, ResourceName};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group, monitor, recovery};
use holdfast_sim::world::faults::Fault;
use holdfast_sim::world::network::Kind;

use super::{expect, two};

const WHY: &str = "holdfast failover: kernel update";

fn failover(group: &str) -> Command {
    Command::Failover { group: group.into() }
}

fn online(mut world: World) -> World {
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world
}

/// Waits for the answer.
#[track_caller]
fn answer(world: &mut World, token: u64) -> Result<String, String> {
    expect(world, 15_000, "an answer", |world| world.answers.contains_key(&token));
    world.answers[&token].clone()
}

fn app() -> ResourceName {
    program("worker")
}

fn run(restarts: u32) -> Command {
    let config: ResourceConfig = group(&["a", "b"]).resources["app"].clone();
    let recovery = Recovery { restarts, ..recovery() };
    Command::Run { group: "web".into(), program: app(), config: Box::new(ResourceConfig { recovery, ..config }) }
}

/// Servers on which the program runs.
fn workers(world: &World) -> Vec<usize> {
    let key = (GroupName::from("web"), app());
    (0..world.hosts.len()).filter(|server| world.hosts[*server].running.contains(&key)).collect()
}

#[test]
fn failover_moves_the_group_for_good_says_why_and_needs_no_coordinator_of_its_own() {
    let mut back: GroupConfig = group(&["b", "a"]);
    back.failback = Some(Failback { delay: Duration::from_millis(500), in_window: false });
    let mut world = World::new(7, config(2, true), &[("web", back)]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(1));
    // b does not coordinate: it asks a.
    let token = world.command(1, failover("web"), WHY);
    let again = world.command(1, failover("web"), WHY);
    assert_eq!(answer(&mut world, token), Ok("group web has left b, and goes to a".into()), "{}", world.story(60));
    assert!(answer(&mut world, again).is_ok(), "the same command twice is one");
    expect(&mut world, 3000, "moved", |world| world.online("web") == Some(0));
    let placed = world.status(0).and_then(|status| status.coordinator).expect("a coordinates").groups["web"].clone();
    assert_eq!((placed.transitions[0].cause, placed.transitions[0].message.as_str()), ("Operation", WHY));
    // The server that it prefers was left on purpose: nothing brings it back before failureDecay is over.
    world.run_for(15_000);
    assert_eq!(world.online("web"), Some(0), "{}", world.story(60));
    expect(&mut world, 15_000, "back", |world| world.online("web") == Some(1));
}

#[test]
fn what_a_coordinator_saw_is_told_by_it_also_when_it_has_left() {
    let mut world = online(two(config(2, true)));
    world.apply(&Fault::Detach(0, false));
    let left = |world: &World| {
        world.status(0).is_some_and(|status| status.coordinator.is_none()) && world.online("web") == Some(1)
    };
    expect(&mut world, 10_000, "handed over", left);
    let history = &world.status(0).expect("it runs").history[&GroupName::from("web")];
    assert_eq!((history[0].to.clone(), history[0].cause), (Some("b".into()), "Operation"), "{history:?}");
}

#[test]
fn a_server_that_was_left_by_a_command_is_good_enough_when_no_other_one_is_left() {
    let mut world = online(two(config(2, true)));
    let token = world.command(0, failover("web"), WHY);
    assert!(answer(&mut world, token).is_ok());
    expect(&mut world, 3000, "moved", |world| world.online("web") == Some(1));
    world.power_cut(1);
    expect(&mut world, 6000, "taken over", |world| world.online("web") == Some(0));
}

#[test]
fn what_can_not_be_moved_is_refused_with_the_reason_and_nothing_happens_later() {
    let mut world = online(World::new(7, config(2, true), &[("web", group(&["a", "b"])), ("own", group(&["a"]))]));
    let moved = world.moved;
    for (server, what, reason) in [
        (0, "wep", "there is no group wep; a knows own, web"),
        (1, "web", "group web is not on b: it is on a; give the command there"),
        (0, "own", "no other server can take group own: its placement names no other; it stays on a"),
    ] {
        let token = world.command(server, failover(what), WHY);
        assert_eq!(answer(&mut world, token), Err(reason.into()));
    }
    assert_eq!((world.online("web"), world.moved), (Some(0), moved), "{}", world.story(60));
    world.power_cut(1);
    expect(&mut world, 4000, "alone", |world| world.members(0) == ["a"]);
    let moved = world.moved;
    let token = world.command(0, failover("web"), WHY);
    let refused = "no other server can take group web: b is no member now; it stays on a";
    assert_eq!(answer(&mut world, token), Err(refused.into()));
    world.power_on(1);
    expect(&mut world, 6000, "back", |world| world.members(0) == ["a", "b"]);
    world.run_for(5000);
    assert_eq!((world.online("web"), world.moved), (Some(0), moved), "{}", world.story(60));
}

#[test]
fn a_group_stays_where_it_is_when_only_the_coordinator_knows_that_nothing_is_better() {
    let mut web: GroupConfig = group(&["b", "a"]);
    for resource in web.resources.values_mut() {
        let decay = Duration::from_secs(1);
        resource.recovery =
            Recovery { decay, failover_window: Duration::from_secs(600), max_failovers: 3, ..recovery() };
    }
    let mut world = World::new(7, config(2, true), &[("web", web)]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(1));
    // It was moved as often as its limit allows.
    for turn in 0..3 {
        let from = 1 - turn % 2;
        let token = world.command(from, failover("web"), WHY);
        assert!(answer(&mut world, token).is_ok(), "{}", world.story(60));
        expect(&mut world, 3000, "moved", |world| world.online("web") == Some(1 - from));
    }
    let (moved, here) = (world.moved, world.online("web").expect("somewhere"));
    let token = world.command(here, failover("web"), WHY);
    let asked = world.now;
    let refused = answer(&mut world, token).expect_err("too often");
    let name = ["a", "b"][here];
    let why = "it was moved 3 times in the last 600 s, and recovery.maxFailovers allows 3 in failoverWindow";
    assert_eq!(refused, format!("group web stays on {name}: {why}"));
    assert!(world.now - asked < 1_000_000_000, "the coordinator says so at once");
    world.run_for(30_000);
    assert_eq!((world.online("web"), world.moved), (Some(here), moved), "{}", world.story(60));
}

/// The coordinator is another server: it says why at once, and what was refused is not done when the reason is gone.
#[test]
fn a_coordinator_elsewhere_says_why_it_refuses_and_keeps_to_it() {
    let mut settings = config(2, true);
    settings.monitors.insert("link".into(), monitor(300, MonitorAction::FailAll(None)));
    let mut world = World::new(7, settings, &[("web", group(&["b", "a"]))]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(1));
    world.apply(&Fault::Checks(0, false));
    world.run_for(3000);
    let (asked, moved) = (world.now, world.moved);
    let token = world.command(1, failover("web"), WHY);
    let refused = "group web stays on b: no other server is better: a is unfit: monitor link fails there: broken";
    assert_eq!(answer(&mut world, token), Err(refused.into()), "{}", world.story(60));
    assert!(world.now - asked < 1_000_000_000);
    let token = world.command(1, Command::Down, "holdfast down");
    assert_eq!(answer(&mut world, token), Err("b does not go down: no other server is better".into()));
    world.apply(&Fault::Checks(0, true));
    world.run_for(5000);
    assert_eq!((world.online("web"), world.moved), (Some(1), moved), "{}", world.story(60));
    // Its answers are lost: then the server itself takes the wish back.
    world.apply(&Fault::Checks(0, false));
    world.run_for(3000);
    world.apply(&Fault::Mute(Kind::Declined, 60_000));
    let token = world.command(1, failover("web"), WHY);
    let refused = answer(&mut world, token).expect_err("nobody answers");
    assert!(refused.contains("the coordinator a has neither agreed nor refused in 10 s"), "{refused}");
    world.apply(&Fault::Checks(0, true));
    world.run_for(5000);
    assert_eq!((world.online("web"), world.moved), (Some(1), moved), "{}", world.story(60));
    let token = world.command(1, failover("web"), WHY);
    assert_eq!(answer(&mut world, token), Ok("group web has left b, and goes to a".into()));
}

#[test]
fn down_hands_over_leaves_and_shuts_down_but_not_the_last_server() {
    let mut world = online(two(config(2, true)));
    let token = world.command(0, Command::Down, "holdfast down: burning smell");
    assert_eq!(answer(&mut world, token), Ok("a hands its groups over, leaves and shuts down".into()));
    expect(&mut world, 5000, "handed over", |world| world.online("web") == Some(1) && world.members(1) == ["b"]);
    expect(&mut world, 2000, "off", |world| !world.hosts[0].powered);
    let status = world.status(1).and_then(|status| status.coordinator).expect("b coordinates");
    assert_eq!(status.groups["web"].phase, holdfast_core::status::GroupPhase::Online);
    assert!(world.log.iter().any(|line| line.contains("shuts down: holdfast down: burning smell")));
    let moved = world.moved;
    let token = world.command(1, Command::Down, "holdfast down");
    let refused = answer(&mut world, token).expect_err("the last one");
    assert!(refused.starts_with("b does not go down: only 0 of 2 servers would be left"), "{refused}");
    world.run_for(15_000);
    assert_eq!((world.online("web"), world.moved), (Some(1), moved), "{}", world.story(60));
}

#[test]
fn a_program_is_restarted_then_the_group_fails_over_and_the_program_never_outlives_its_group() {
    let mut world = online(two(config(2, true)));
    let token = world.command(0, run(1), "holdfast run");
    assert_eq!(answer(&mut world, token), Ok("worker runs in group web on a, and is watched".into()));
    let again = world.command(0, run(1), "holdfast run");
    assert!(answer(&mut world, again).is_ok(), "it runs already");
    assert_eq!(workers(&world), [0]);
    let wrong = world.command(1, run(1), "holdfast run");
    assert_eq!(answer(&mut world, wrong), Err("group web is not on b: it is on a; give the command there".into()));
    world.kill_program(0, "web", &app());
    expect(&mut world, 3000, "restarted", |world| workers(world) == [0] && world.online("web") == Some(0));
    world.kill_program(0, "web", &app());
    expect(&mut world, 4000, "failed over", |world| world.online("web") == Some(1));
    assert_eq!(workers(&world), Vec::<usize>::new(), "the next server does not start it by itself");
}

#[test]
fn a_program_is_adopted_by_a_restarted_agent_and_stops_before_its_group_moves() {
    let mut world = online(two(config(2, true)));
    let token = world.command(0, run(1), "holdfast run");
    assert!(answer(&mut world, token).is_ok());
    world.crash_process(0, 50);
    world.run_for(200);
    expect(&mut world, 3000, "adopted", |world| workers(world) == [0] && world.online("web") == Some(0));
    // A new specification that needs no restart does not lose it.
    let newer = GroupConfig { generation: 2, priority: 7, ..group(&["a", "b"]) };
    world.groups.insert("web".into(), Arc::new(newer));
    world.publish();
    world.run_for(1000);
    assert_eq!(workers(&world), [0]);
    let token = world.command(0, failover("web"), WHY);
    assert!(answer(&mut world, token).is_ok(), "{}", world.story(60));
    assert_eq!(workers(&world), Vec::<usize>::new(), "the group is gone only when its program is");
    expect(&mut world, 3000, "moved", |world| world.online("web") == Some(1));
}

#[test]
fn a_program_that_does_not_start_is_refused_and_one_that_is_stopped_stays_stopped() {
    let mut world = online(two(config(2, true)));
    let moved = world.moved;
    world.apply(&Fault::FailingResources(1.0, 0.0));
    let token = world.command(0, run(3), "holdfast run");
    assert_eq!(answer(&mut world, token), Err("worker does not start: start failed".into()));
    world.apply(&Fault::FailingResources(0.0, 0.0));
    world.run_for(2000);
    assert_eq!((world.online("web"), workers(&world)), (Some(0), vec![]));
    assert!(world.moved <= moved + 1, "only what was left of the program was stopped\n{}", world.story(60));
    let token = world.command(0, run(3), "holdfast run");
    assert!(answer(&mut world, token).is_ok());
    let stop = Command::Stop { group: "web".into(), program: app() };
    for _ in 0..2 {
        let token = world.command(0, stop.clone(), "holdfast run --stop");
        assert_eq!(answer(&mut world, token), Ok("worker does not run in group web on a".into()));
        assert_eq!(workers(&world), Vec::<usize>::new());
    }
    world.crash_process(0, 50);
    world.run_for(3000);
    assert_eq!((world.online("web"), workers(&world)), (Some(0), vec![]), "{}", world.story(60));
}

#[test]
fn what_follows_the_end_of_a_program_is_bound_by_the_limits_of_the_group() {
    let mut web: GroupConfig = group(&["a", "b"]);
    for resource in web.resources.values_mut() {
        resource.recovery = Recovery { then: Then::Report, max_failovers: 1, ..recovery() };
    }
    let mut world = online(World::new(7, config(2, true), &[("web", web)]));
    for server in [0, 1] {
        let token = world.command(server, run(0), "holdfast run");
        assert!(answer(&mut world, token).is_ok(), "{}", world.story(60));
        world.kill_program(server, "web", &app());
        if server == 0 {
            expect(&mut world, 4000, "failed over", |world| world.online("web") == Some(1));
        }
    }
    expect(&mut world, 4000, "held", |world| {
        let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator);
        coordinator.is_some_and(|c| c.groups["web"].holds.contains("FailureLimit"))
    });
    expect(&mut world, 4000, "stopped", |world| world.places("web").is_empty());
}
