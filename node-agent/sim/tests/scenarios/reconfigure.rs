//! What changes of the settings (R21) do to running groups.

use holdfast_core::config::Config;
use holdfast_sim::World;
use holdfast_sim::setup::{config, group};
use holdfast_sim::world::faults::Fault;
use holdfast_sim::world::reconfigure::Change;

use super::expect;

/// The lease of before ends later than the first short ones, but its soft stop is earlier.
#[test]
fn a_timeout_that_becomes_much_shorter_stops_nothing() {
    let mut world = World::new(7, config(2, true), &[("web", group(&["a", "b"]))]);
    assert!(world.wait(2000, |world| world.online("web") == Some(0)), "{}", world.story(80));
    for percent in [800, 50, 400, 100] {
        world.apply(&Fault::Reconfigure(Change::Timing(percent), None));
        world.run_for(20_000);
        let lost = world.log.iter().any(|line| line.contains("LeaseLost"));
        assert!(!lost && world.online("web") == Some(0), "at {percent} %: {}", world.story(120));
        assert!(world.violations.is_empty(), "{:?}", world.violations);
    }
}

/// The sub-cluster of three with this specification, declared to be stopped.
fn stopped(generation: u64) -> Config {
    Config { generation, stopped: true, ..config(3, false) }
}

#[test]
fn a_sub_cluster_that_is_declared_stopped_stays_so_whoever_coordinates() {
    let mut world = World::new(7, config(3, false), &[("web", group(&["a", "b"])), ("db", group(&["b", "c"]))]);
    let online = |world: &World| world.online("web").is_some() && world.online("db").is_some();
    let nothing = |world: &World| world.places("web").is_empty() && world.places("db").is_empty();
    expect(&mut world, 2000, "online", online);
    world.config = stopped(2).into();
    world.publish();
    expect(&mut world, 3000, "stopped", nothing);
    assert_eq!(world.members(0), ["a", "b", "c"], "the servers stay");
    // Nothing starts by another coordinator, nor when all servers lose power.
    world.power_cut(0);
    world.run_for(4000);
    assert!(nothing(&world), "{}", world.story(80));
    (1..3).for_each(|server| world.power_cut(server));
    (0..3).for_each(|server| world.power_on(server));
    world.run_for(6000);
    assert!(nothing(&world), "{}", world.story(80));
    world.config = Config { generation: 3, ..config(3, false) }.into();
    world.publish();
    expect(&mut world, 6000, "online again", online);
}

#[test]
fn stopped_counts_once_every_member_knows_it_and_nothing_starts_meanwhile() {
    let mut world = World::new(7, config(3, false), &[("web", group(&["a", "b"])), ("db", group(&["b", "c"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0) && world.online("db") == Some(1));
    world.config = stopped(2).into();
    world.publish_to(0);
    world.publish_to(1);
    world.run_for(3000);
    assert_eq!((world.online("web"), world.online("db")), (Some(0), Some(1)), "c does not know: {}", world.story(80));
    // What is lost now is not started elsewhere: it is declared to be stopped, as far as the coordinator knows.
    world.power_cut(1);
    world.run_for(4000);
    assert_eq!((world.online("web"), world.places("db").len()), (Some(0), 0), "{}", world.story(80));
    // Two of three without a lock change no settings (R21), so the third one has to come back.
    world.publish_to(2);
    world.power_on(1);
    expect(&mut world, 6000, "stopped", |world| world.places("web").is_empty() && world.places("db").is_empty());
    world.run_for(3000);
    assert!(world.places("web").is_empty() && world.places("db").is_empty(), "{}", world.story(80));
}
