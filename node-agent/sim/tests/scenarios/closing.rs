//! C17: an operator shuts servers down, on the simulated world.

use holdfast_core::config::GroupConfig;
use holdfast_planner::AfterScope;
use holdfast_sim::World;
use holdfast_sim::setup::{config, group, with_quorum_server};
use holdfast_sim::world::faults::Fault;

use super::{expect, two};

const ALL: Fault = Fault::ShutDown(None, false);

fn off(world: &World) -> bool {
    world.hosts.iter().all(|host| !host.powered)
}

/// Three servers; `app` comes after `db`, which is on another one.
fn three() -> World {
    let mut app: GroupConfig = group(&["b", "a", "c"]);
    app.relations.after.insert("db".into(), AfterScope::Any);
    World::new(7, config(3, false), &[("db", group(&["a", "b", "c"])), ("app", app)])
}

#[test]
fn all_shut_down_in_order_and_come_up_as_after_any_start() {
    let mut world = three();
    expect(&mut world, 3000, "online", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    world.apply(&ALL);
    // Never db without app.
    for _ in 0..400 {
        world.run_for(5);
        let (db, app) = (world.places("db").len(), world.places("app").len());
        assert!(app <= db || db == 1, "{}", world.story(80));
        assert!(!(app > 0 && world.online("db").is_none()), "db stops before app\n{}", world.story(80));
    }
    expect(&mut world, 3000, "off", off);
    for server in 0..3 {
        world.power_on(server);
    }
    expect(&mut world, 6000, "back", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    assert_eq!(world.members(0), ["a", "b", "c"]);
}

#[test]
fn each_of_those_that_shut_down_together_can_start_again_alone() {
    for survivor in 0..2 {
        let mut world = two(config(2, true));
        expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
        world.apply(&ALL);
        expect(&mut world, 3000, "off", off);
        world.power_on(survivor);
        expect(&mut world, 12_000, "goes on alone", |world| world.online("web") == Some(survivor));
    }
}

#[test]
fn an_order_to_shut_down_is_carried_out_once_however_often_it_is_given() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.apply(&ALL);
    for _ in 0..5 {
        world.run_for(100);
        world.apply(&Fault::ShutDown(None, true));
    }
    expect(&mut world, 3000, "off", off);
    world.power_on(0);
    world.power_on(1);
    expect(&mut world, 6000, "back", |world| world.online("web") == Some(0));
    world.apply(&Fault::ShutDown(None, true));
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0), "{}", world.story(80));
    world.apply(&ALL);
    expect(&mut world, 3000, "a new order counts", off);
}

#[test]
fn one_server_that_is_shut_down_hands_its_groups_over() {
    let mut world = three();
    expect(&mut world, 3000, "online", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    world.apply(&Fault::ShutDown(Some(0), false));
    expect(&mut world, 4000, "moved", |world| world.online("db") == Some(1) && !world.hosts[0].powered);
    assert_eq!(world.members(1), ["b", "c"]);
    world.power_on(0);
    expect(&mut world, 6000, "it comes back", |world| world.members(1) == ["a", "b", "c"]);
}

#[test]
fn a_server_that_is_lost_meanwhile_does_not_keep_the_others_on() {
    let mut world = three();
    expect(&mut world, 3000, "online", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    world.apply(&ALL);
    world.run_for(20);
    world.power_cut(1);
    expect(&mut world, 9000, "off", off);
}

#[test]
fn a_process_that_ends_meanwhile_takes_the_order_again() {
    let mut world = three();
    expect(&mut world, 3000, "online", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    world.apply(&ALL);
    world.run_for(210);
    world.crash_process(0, 50);
    for _ in 0..10 {
        world.run_for(500);
        world.apply(&Fault::ShutDown(None, true));
    }
    expect(&mut world, 3000, "off", off);
}

#[test]
fn a_server_that_is_out_of_service_shuts_down_with_the_others_and_stays_out_afterwards() {
    let mut world = three();
    expect(&mut world, 3000, "online", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    world.apply(&Fault::Detach(2, false));
    expect(&mut world, 3000, "out", |world| world.members(0) == ["a", "b"]);
    world.apply(&ALL);
    expect(&mut world, 3000, "off", off);
    for server in 0..3 {
        world.power_on(server);
    }
    expect(&mut world, 8000, "back", |world| world.online("db") == Some(0) && world.online("app") == Some(1));
    world.run_for(3000);
    assert_eq!(world.members(0), ["a", "b"], "{}", world.story(80));
}

#[test]
fn with_a_quorum_server_four_shut_down_together_and_two_of_them_can_start_again() {
    let all = ["a", "b", "c", "d"];
    let mut world = World::new(7, with_quorum_server(4), &[("web", group(&all))]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world.apply(&ALL);
    expect(&mut world, 3000, "off", off);
    world.power_on(2);
    world.power_on(3);
    expect(&mut world, 15_000, "they go on", |world| world.online("web") == Some(2));
}
