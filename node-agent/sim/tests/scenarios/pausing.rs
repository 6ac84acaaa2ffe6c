//! Paused groups on the simulated world: nobody acts on them, whatever happens to them, before they are resumed.

use std::time::Duration;

use holdfast_core::commands::Command;
use holdfast_core::holding::{HoldChange, PAUSED};
use holdfast_core::names::GroupName;
use holdfast_core::status::{GroupPhase, PlacedGroup};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group};
use holdfast_sim::world::faults::Fault;

use super::expect;

const WEB: usize = 0;

/// Group web runs on b, the coordinator is a. Its resources are checked every 200 ms.
fn world() -> World {
    let mut web = group(&["b", "a"]);
    for resource in web.resources.values_mut() {
        if let Some(check) = resource.checks.get_mut(&0) {
            check.interval = Duration::from_millis(200);
        }
    }
    let mut world = World::new(7, config(2, true), &[("web", web)]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(1));
    world
}

fn placed(world: &World) -> PlacedGroup {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator).expect("somebody coordinates");
    coordinator.groups[&GroupName::from("web")].clone()
}

fn is_paused(world: &World) -> bool {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator);
    coordinator.is_some_and(|told| told.groups[&GroupName::from("web")].holds.contains(PAUSED))
}

#[track_caller]
fn order(world: &mut World, server: usize, change: HoldChange) -> Result<String, String> {
    let token = world.command(server, Command::Hold { group: "web".into(), change }, "maintenance");
    expect(world, 15_000, "an answer", |world| world.answers.contains_key(&token));
    world.answers[&token].clone()
}

#[track_caller]
fn paused() -> World {
    let mut world = world();
    world.hold(&"web".into(), HoldChange::Pause { until: None });
    expect(&mut world, 2000, "paused", is_paused);
    world
}

const RESUME: HoldChange = HoldChange::Resume { accept: false };

#[test]
fn what_fails_in_a_pause_is_left_alone_and_shown() {
    let mut world = paused();
    let starts = |world: &World| world.starts.values().map(Vec::len).sum::<usize>();
    let before = starts(&world);
    world.apply(&Fault::KillResource(WEB));
    world.run_for(60_000);
    assert_eq!(starts(&world), before, "{}", world.story(40));
    let told = placed(&world);
    assert_eq!((told.phase, told.server.map(|server| server.0)), (GroupPhase::Failed, Some("b".into())));
    let report = told.report.expect("a report");
    assert!(report.resources.values().any(|resource| resource.phase == GroupPhase::Failed), "{report:?}");
    assert!(told.failures.is_empty(), "nothing is counted: {:?}", told.failures);
}

#[test]
fn a_pause_ends_by_itself_for_nobody_who_left_something_undone() {
    let mut world = paused();
    world.apply(&Fault::KillResource(WEB));
    world.run_for(2000);
    for server in [0, 1] {
        let refused = order(&mut world, server, RESUME).expect_err("it is not as it was left");
        assert!(refused.contains("stays paused") && refused.contains("--accept-differences"), "{refused}");
    }
    world.run_for(30_000);
    assert!(is_paused(&world) && world.online("web").is_none());
    // It is started again where it is, and no failure is counted for it.
    order(&mut world, 0, HoldChange::Resume { accept: true }).expect("resumed");
    expect(&mut world, 3000, "online where it was", |world| world.online("web") == Some(1));
    assert!(placed(&world).failures.is_empty() && placed(&world).holds.is_empty());
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn what_is_as_it_was_left_goes_on_as_if_nothing_had_been() {
    for by_command in [false, true] {
        let mut world = paused();
        world.run_for(10_000);
        if by_command {
            order(&mut world, 1, RESUME).expect("resumed");
        } else {
            world.hold(&"web".into(), RESUME);
        }
        expect(&mut world, 2000, "resumed", |world| !is_paused(world));
        assert_eq!(world.online("web"), Some(1));
        world.apply(&Fault::KillResource(WEB));
        expect(&mut world, 3000, "a failure is acted on", |world| world.online("web").is_none());
        expect(&mut world, 5000, "online again", |world| world.online("web").is_some());
    }
}

#[test]
fn no_other_server_starts_what_is_paused_when_its_server_is_lost() {
    let mut world = paused();
    world.power_cut(1);
    world.run_for(60_000);
    assert_eq!(world.places("web"), Vec::<usize>::new(), "{}", world.story(40));
    // Also not after the coordinator's process, and then both servers, have started anew.
    world.apply(&Fault::Crash(0, 100));
    world.run_for(5000);
    world.power_cut(0);
    world.power_on(0);
    world.power_on(1);
    world.run_for(60_000);
    assert!(is_paused(&world));
    assert_eq!(world.places("web"), Vec::<usize>::new());
    // Nothing of it runs anywhere, as was left where it was offline; it starts where it belongs.
    order(&mut world, 0, HoldChange::Resume { accept: true }).expect("resumed");
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(1));
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn a_server_that_leaves_stops_what_is_paused_and_nobody_else_starts_it() {
    let mut world = paused();
    world.apply(&Fault::Leave(1, 100_000));
    expect(&mut world, 5000, "stopped", |world| world.places("web").is_empty());
    world.run_for(60_000);
    assert_eq!(world.places("web"), Vec::<usize>::new());
    assert!(is_paused(&world));
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn commands_about_a_paused_group_are_refused_with_the_reason() {
    let mut world = paused();
    for change in [HoldChange::Stop, HoldChange::Start] {
        let refused = order(&mut world, 0, change).expect_err("nobody acts");
        assert!(refused.contains("is paused") && refused.contains("holdfast resume web"), "{refused}");
    }
    for command in [Command::Failover { group: "web".into() }, Command::Down] {
        let token = world.command(1, command, "a script");
        expect(&mut world, 15_000, "an answer", |world| world.answers.contains_key(&token));
        let refused = world.answers[&token].clone().expect_err("nobody acts");
        assert!(refused.contains("group web is paused"), "{refused}");
    }
    assert_eq!(
        order(&mut world, 0, HoldChange::Pause { until: None }).map(|said| said.contains("is paused")),
        Ok(true)
    );
    order(&mut world, 0, RESUME).expect("resumed");
    let refused = order(&mut world, 0, RESUME).expect_err("it is not");
    assert!(refused.contains("is not paused"), "{refused}");
}

#[test]
fn a_group_is_stopped_held_and_started_by_commands_on_any_server() {
    for server in [0, 1] {
        let mut world = world();
        order(&mut world, server, HoldChange::Stop).expect("held");
        expect(&mut world, 3000, "stopped", |world| world.places("web").is_empty());
        world.run_for(20_000);
        assert_eq!(world.places("web"), Vec::<usize>::new());
        order(&mut world, server, HoldChange::Start).expect("released");
        expect(&mut world, 3000, "online", |world| world.online("web") == Some(1));
        assert_eq!(world.violations, Vec::<String>::new());
    }
}
