//! What a sub-cluster does in the situations that people know, on the simulated world.

mod world;

use world::{World, config, group, server_name};

fn two() -> World {
    World::new(7, config(2, true), &[("web", group(&["a", "b"]))])
}

fn three() -> World {
    World::new(7, config(3, false), &[("web", group(&["a", "b", "c"]))])
}

#[track_caller]
fn expect(world: &mut World, ms: u64, what: &str, condition: impl Fn(&World) -> bool) {
    let held = world.wait(ms, condition);
    assert!(held && world.violations.is_empty(), "{what}: {:?}\n{}", world.violations, world.story(120));
}

#[test]
fn two_servers_form_and_bring_the_group_up_on_the_preferred_one() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    assert_eq!(world.members(1), ["a", "b"]);
}

#[test]
fn a_lost_server_is_taken_over_about_one_timeout_later() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(5000);
    world.power_cut(0);
    let cut = world.now;
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    let took = (world.now - cut) / 1_000_000;
    // timeout 1000 ms, five lock and ledger writes of <= 6 ms, two starts in a row of <= 40 ms
    assert!(took < 1150, "took {took} ms\n{}", world.story(80));
}

#[test]
fn a_server_lost_right_after_the_start_is_taken_over_as_fast() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    let cut = world.now;
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    let took = (world.now - cut) / 1_000_000;
    assert!(took < 1150, "took {took} ms\n{}", world.story(80));
}

#[test]
fn losing_the_standby_moves_nothing() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.power_cut(1);
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0), "{}", world.story(80));
    assert_eq!(world.members(0), ["a"]);
    assert!(!world.log.iter().any(|line| line.contains("LeaseLost")), "{}", world.story(80));
}

#[test]
fn one_healthy_lan_is_enough() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.cut.insert((0, 1, "ic".into()));
    world.cut.insert((1, 0, "ic".into()));
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0));
    assert_eq!(world.members(0), ["a", "b"], "{}", world.story(80));
}

#[test]
fn with_all_lans_cut_the_server_that_runs_the_group_survives() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.cut_lans(0, 1);
    world.run_for(6000);
    assert_eq!(world.places("web"), [0], "{}", world.story(80));
    assert_eq!(world.members(0), ["a"]);
    assert_eq!(world.members(1), ["a"], "the loser has learnt it from the lock");
    world.heal();
    expect(&mut world, 10_000, "both again", |world| world.members(0).len() == 2);
    assert_eq!(world.online("web"), Some(0));
}

#[test]
fn a_returning_server_is_kept_out_until_reinstated_unless_the_policy_is_automatic() {
    let mut settings = config(2, true);
    settings.automatic_return = false;
    let mut world = World::new(7, settings, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    world.power_on(0);
    world.run_for(8000);
    assert_eq!(world.members(1), ["b"], "{}", world.story(80));
    let mut settings = config(2, true);
    settings.generation = 2;
    world.config = settings.into();
    world.publish();
    expect(&mut world, 8000, "back", |world| world.members(1).len() == 2);
    assert_eq!(world.online("web"), Some(1), "a returning server takes nothing");
}

#[test]
fn a_crashed_agent_comes_back_without_stopping_its_group() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(2000);
    world.crash_process(0, 100);
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0), "{}", world.story(80));
    assert!(!world.log.iter().any(|line| line.contains("guard")), "{}", world.story(80));
}

#[test]
fn a_frozen_agent_is_killed_by_its_guard_before_the_other_starts() {
    let mut world = two();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.restart_after_kill = 30_000;
    world.freeze(0, 60_000);
    expect(&mut world, 5000, "taken over", |world| world.online("web") == Some(1));
}

#[test]
fn a_clean_stop_and_start_of_everything_needs_no_operator() {
    let mut settings = config(2, true);
    settings.automatic_return = false;
    let mut world = World::new(7, settings, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    for server in [0, 1] {
        world.leave(server);
    }
    expect(&mut world, 5000, "all left", |world| world.hosts.iter().all(|host| host.exited));
    assert!(world.places("web").is_empty());
    for server in [0, 1] {
        world.power_cut(server);
        world.power_on(server);
    }
    expect(&mut world, 20_000, "all back", |world| world.online("web").is_some() && world.members(0).len() == 2);
}

#[test]
fn three_servers_lose_one_and_go_on() {
    let mut world = three();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(2000);
    world.power_cut(0);
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    assert_eq!(world.members(1), ["b", "c"]);
}

#[test]
fn time_on_virtual_machines_covers_addresses_but_not_shared_data() {
    let mut settings = config(3, false);
    settings.time_on_virtual_machines = false;
    let mut address = group(&["a", "b", "c"]);
    address.shared_data = false;
    let mut world = World::new(7, settings, &[("web", group(&["a", "b", "c"])), ("net", address)]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0) && world.online("net") == Some(0));
    world.power_cut(0);
    expect(&mut world, 3000, "the address is taken over", |world| world.online("net") == Some(1));
    world.run_for(10_000);
    assert!(world.places("web").is_empty(), "a paused machine may still write\n{}", world.story(80));
    let status = world.status(1).expect("it runs");
    let groups = &status.coordinator.expect("b coordinates").groups;
    assert_eq!(groups["net"].transitions[0].evidence, Some("Time"));
    assert_eq!(groups["web"].phase.name(), "Unknown");
}

#[test]
fn of_three_servers_the_one_that_is_cut_off_stops() {
    let mut world = three();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.cut_lans(0, 1);
    world.cut_lans(0, 2);
    expect(&mut world, 4000, "taken over", |world| world.online("web") == Some(1));
    assert_eq!(world.places("web"), [1]);
}

#[test]
fn a_broken_link_between_two_of_three_leaves_two_that_agree() {
    let mut world = three();
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.cut_lans(1, 2);
    world.run_for(8000);
    assert_eq!(world.online("web"), Some(0), "{}", world.story(100));
    assert_eq!(world.members(0).len(), 2, "{}", world.story(100));
}

#[test]
fn sixteen_servers_form_and_survive_the_loss_of_seven() {
    let names: Vec<String> = (0..16).map(|i| server_name(i).0).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(7, config(16, false), &[("web", group(&names))]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    for server in 0..7 {
        world.power_cut(server);
    }
    expect(&mut world, 6000, "taken over", |world| world.online("web") == Some(7));
}

#[test]
fn a_server_that_is_lost_while_it_stops_a_group_may_still_run_it() {
    // It is told to stop the group because it may not run it any more, and then nothing is heard of it.
    let base = config(2, true);
    let slow = holdfast_core::config::Config { takeover_wait: std::time::Duration::from_secs(20), ..base };
    let mut world = World::new(7, slow, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.failing_stops = 1.0;
    let mut moved = group(&["b"]);
    moved.generation = 2;
    world.groups.insert("web".into(), std::sync::Arc::new(moved));
    world.publish();
    world.run_for(500);
    world.freeze(0, 60_000);
    world.restart_after_kill = 60_000;
    world.run_for(10_000);
    assert_eq!(world.online("web"), None, "{}", world.story(80));
    expect(&mut world, 15_000, "taken over after the wait", |world| world.online("web") == Some(1));
}
