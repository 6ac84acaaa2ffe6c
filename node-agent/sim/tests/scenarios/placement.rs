//! Groups that have to do with one another, and groups that go back: what the planner says, carried out.

use std::time::Duration;

use holdfast_core::config::{Failback, GroupConfig};
use holdfast_planner::{AfterScope, Relations, Strength};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group};
use holdfast_sim::world::faults::Fault;

use super::expect;

fn related(policy: &[&str], priority: u16, relations: Relations) -> GroupConfig {
    GroupConfig { priority, relations, ..group(policy) }
}

fn apart_from(other: &str) -> Relations {
    Relations { separate_from: [(other.to_owned(), Strength::Required)].into(), ..Relations::default() }
}

#[test]
fn the_test_system_makes_room_for_the_ledger_and_comes_back_when_there_is_another_server() {
    let ledger = related(&["a", "b"], 500, apart_from("test"));
    let test = related(&["b", "a"], 10, Relations::default());
    let mut world = World::new(7, config(2, true), &[("ledger", ledger), ("test", test)]);
    let both = |world: &World, ledger, test| world.online("ledger") == ledger && world.online("test") == test;
    expect(&mut world, 2000, "each on its own", |world| both(world, Some(0), Some(1)));
    world.run_for(3000);
    world.power_cut(0);
    for _ in 0..400 {
        world.run_for(10);
        assert!(world.places("ledger").is_empty() || world.places("test").is_empty(), "{}", world.story(80));
    }
    expect(&mut world, 10, "the ledger is on b, where the test system was", |world| both(world, Some(1), None));
    world.power_on(0);
    expect(&mut world, 20_000, "the test system is on a", |world| both(world, Some(1), Some(0)));
}

#[test]
fn a_group_starts_after_the_one_that_it_needs_there() {
    let after = Relations { after: [("db".to_owned(), AfterScope::SameServer)].into(), ..Relations::default() };
    let groups = [("app", related(&["a", "b"], 900, after)), ("db", group(&["b", "a"]))];
    let mut world = World::new(7, config(2, true), &groups);
    for _ in 0..200 {
        world.run_for(10);
        assert!(world.places("app").is_empty() || world.online("db").is_some(), "{}", world.story(80));
    }
    expect(&mut world, 10, "both on b", |world| world.online("app") == Some(1) && world.online("db") == Some(1));
}

#[test]
fn a_group_goes_back_when_its_server_has_been_there_for_long_enough() {
    let failback = Some(Failback { delay: Duration::from_secs(10), in_window: false });
    let mut world = World::new(7, config(2, true), &[("web", GroupConfig { failback, ..group(&["a", "b"]) })]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    world.power_on(0);
    expect(&mut world, 20_000, "a is back", |world| world.members(1) == ["a", "b"]);
    world.run_for(9500);
    assert_eq!(world.online("web"), Some(1), "too early\n{}", world.story(80));
    expect(&mut world, 2500, "it went back", |world| world.online("web") == Some(0));
}

#[test]
fn a_failure_whose_cause_is_mended_speaks_no_longer_against_its_server_and_no_other_is_forgiven() {
    let mut web = group(&["a", "b"]);
    web.resources.values_mut().for_each(|resource| resource.recovery.decay = Duration::from_secs(600));
    let mut world = World::new(7, config(2, true), &[("web", web)]);
    world.apply(&Fault::FailingResources(1.0, 0.0));
    world.run_for(10_000);
    world.apply(&Fault::FailingResources(0.0, 0.0));
    world.run_for(10_000);
    assert_eq!(world.online("web"), None, "both failures are remembered\n{}", world.story(60));
    world.mend(1, "web");
    expect(&mut world, 2000, "online on b", |world| world.online("web") == Some(1));
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(1), "a is not forgiven\n{}", world.story(60));
}
