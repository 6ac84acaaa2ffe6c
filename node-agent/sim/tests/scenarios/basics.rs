//! Start, loss, partition, return.

use holdfast_sim::World;
use holdfast_sim::setup::{config, group, server_name, with_quorum_server};
use holdfast_sim::world::faults::{DiskState, Fault};

use super::{expect, two};

fn three() -> World {
    World::new(7, config(3, false), &[("web", group(&["a", "b", "c"]))])
}

#[test]
fn two_servers_form_and_bring_the_group_up_on_the_preferred_one() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    assert_eq!(world.members(1), ["a", "b"]);
}

#[test]
fn who_starts_waits_for_one_that_is_there_and_has_not_read_the_lock_yet() {
    for reads_after in (0..400).step_by(20) {
        let mut world = two(config(2, true));
        expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
        (0..2).for_each(|server| world.power_cut(server));
        world.set_disk(0, DiskState::Errors);
        (0..2).for_each(|server| world.power_on(server));
        world.run_for(reads_after);
        world.set_disk(0, DiskState::Works);
        expect(&mut world, 4000, "online", |world| world.online("web").is_some());
        assert_eq!(world.online("web"), Some(0), "a read the lock after {reads_after} ms: {}", world.story(80));
    }
}

#[test]
fn a_lost_server_is_taken_over_about_one_timeout_later() {
    let mut world = two(config(2, true));
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
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    let cut = world.now;
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    let took = (world.now - cut) / 1_000_000;
    assert!(took < 1150, "took {took} ms\n{}", world.story(80));
}

#[test]
fn losing_the_standby_moves_nothing() {
    let mut world = two(config(2, true));
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
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.cut.insert((0, 1, "ic".into()));
    world.cut.insert((1, 0, "ic".into()));
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0));
    assert_eq!(world.members(0), ["a", "b"], "{}", world.story(80));
}

#[test]
fn with_all_lans_cut_the_server_that_runs_the_group_survives() {
    let mut world = two(config(2, true));
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
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(2000);
    world.crash_process(0, 100);
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0), "{}", world.story(80));
    assert!(!world.log.iter().any(|line| line.contains("guard")), "{}", world.story(80));
}

#[test]
fn a_frozen_agent_is_killed_by_its_guard_before_the_other_starts() {
    let mut world = two(config(2, true));
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
fn a_copy_of_a_server_takes_no_part_as_long_as_the_other_one_is_seen() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    world.power_cut(1);
    // This boot has the ledger of b and is not named; with the lock it would be a quorum.
    world.power_on(1);
    for _ in 0..30 {
        world.apply(&Fault::Namesake(1));
        world.run_for(1000);
        assert!(world.places("web").is_empty(), "{}", world.story(80));
        assert!(!world.log.iter().any(|line| line.contains("ViewDecided: view 2")), "{}", world.story(80));
    }
    expect(&mut world, 20_000, "the other one is off", |world| world.online("web") == Some(1));
}

#[test]
fn one_that_its_view_names_does_not_mind_a_copy_of_itself() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(1);
    for _ in 0..8 {
        world.apply(&Fault::Namesake(0));
        world.run_for(500);
        assert_eq!(world.online("web"), Some(0), "{}", world.story(80));
    }
    assert_eq!(world.members(0), ["a"]);
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
    world.apply(&Fault::FailingResources(0.0, 1.0));
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

fn four_with_quorum_server() -> World {
    let mut world = World::new(7, with_quorum_server(4), &[("web", group(&["a", "b", "c", "d"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(2000);
    world
}

fn lose_lock(world: &mut World) {
    for server in 0..world.hosts.len() {
        world.set_disk(server, DiskState::Errors);
    }
}

fn split(world: &mut World) {
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut_lans(one, other);
    }
}

#[test]
fn of_four_servers_split_in_half_the_side_that_runs_the_group_gets_the_quorum_server() {
    let mut world = four_with_quorum_server();
    split(&mut world);
    world.run_for(6000);
    assert_eq!(world.places("web"), [0], "{}", world.story(80));
    assert_eq!(world.members(0), ["a", "b"]);
    assert_eq!(world.members(2), ["a", "b"], "the losers have learnt it from the quorum server");
    world.heal();
    expect(&mut world, 10_000, "all again", |world| world.members(0).len() == 4);
    assert_eq!(world.online("web"), Some(0));
}

#[test]
fn of_four_servers_split_in_half_without_a_lock_nobody_goes_on() {
    let mut world = World::new(7, config(4, false), &[("web", group(&["a", "b", "c", "d"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    split(&mut world);
    world.run_for(6000);
    assert!(world.places("web").is_empty(), "{}", world.story(80));
    world.heal();
    expect(&mut world, 10_000, "online again", |world| world.online("web").is_some());
}

#[test]
fn without_the_quorum_server_four_survive_one_loss_and_no_split_and_can_start() {
    let mut world = four_with_quorum_server();
    lose_lock(&mut world);
    world.run_for(5000);
    assert_eq!(world.online("web"), Some(0), "its loss alone stops nothing\n{}", world.story(80));
    for server in 0..4 {
        world.power_cut(server);
        world.power_on(server);
    }
    expect(&mut world, 10_000, "all back", |world| world.members(0).len() == 4 && world.online("web").is_some());
    split(&mut world);
    world.run_for(6000);
    assert!(world.places("web").is_empty(), "half of four, and nobody breaks the tie\n{}", world.story(80));
    world.heal();
    let whole = |world: &World| (0..4).all(|server| world.members(server).len() == 4);
    expect(&mut world, 10_000, "online again", |world| world.online("web").is_some() && whole(world));
    let active = world.online("web").expect("it runs");
    lose_lock(&mut world);
    world.power_cut(active);
    expect(&mut world, 6000, "taken over", |world| world.online("web").is_some_and(|now| now != active));
    assert_eq!(world.members((active + 1) % 4).len(), 3);
}

#[test]
fn a_quorum_server_that_is_back_is_said_to_be_there_at_once() {
    let mut world = four_with_quorum_server();
    lose_lock(&mut world);
    expect(&mut world, 10_000, "it is missed", |world| {
        world.status(0).and_then(|s| s.lock).is_some_and(|l| l.is_err())
    });
    world.run_for(10_000);
    for server in 0..world.hosts.len() {
        world.set_disk(server, DiskState::Works);
    }
    expect(&mut world, 3000, "it is back", |world| world.status(0).and_then(|s| s.lock).is_some_and(|l| l.is_ok()));
}

#[test]
fn a_quorum_server_that_was_put_back_from_a_copy_breaks_no_tie_any_more() {
    let mut world = four_with_quorum_server();
    let copy = world.copy_of_lock();
    split(&mut world);
    world.run_for(6000);
    world.heal();
    expect(&mut world, 10_000, "all again", |world| world.members(0).len() == 4);
    world.put_lock_back(copy);
    world.run_for(2000);
    let problem = world.status(0).expect("it runs").lock.expect("it has a lock").expect_err("it is not trusted");
    assert!(problem.contains("went back to an older state"), "{problem}");
    // For good, also over a restart, and however high it counts by then.
    world.run_for(20_000);
    for server in 0..4 {
        world.crash_process(server, 50);
    }
    expect(&mut world, 10_000, "online", |world| world.online("web").is_some());
    split(&mut world);
    world.run_for(6000);
    assert!(world.places("web").is_empty(), "nobody has more than half\n{}", world.story(80));
}

#[test]
fn a_new_lock_gets_a_vote_when_a_server_leaves_and_comes_back() {
    let mut world = World::new(7, with_quorum_server(2), &[("web", group(&["a", "b"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.replace_lock();
    world.run_for(2000);
    let problem = world.status(0).expect("it runs").lock.expect("it has a lock").expect_err("it has no vote");
    assert!(problem.contains("it was made anew"), "{problem}");
    // The two of them are enough to agree on one, and one needs no lock; so the next view of two names the new one.
    world.leave(1);
    expect(&mut world, 5000, "one left", |world| world.members(0) == ["a"]);
    world.power_cut(1);
    world.power_on(1);
    expect(&mut world, 10_000, "both again", |world| world.members(0).len() == 2);
    world.run_for(2000);
    assert_eq!(world.status(0).expect("it runs").lock, Some(Ok(())));
    world.power_cut(0);
    expect(&mut world, 4000, "taken over", |world| world.online("web") == Some(1));
}

#[test]
fn a_server_that_was_installed_anew_is_not_hidden_behind_its_older_records() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    for _ in 0..3 {
        world.power_cut(1);
        expect(&mut world, 10_000, "one left", |world| world.members(0).len() == 1);
        world.power_on(1);
        expect(&mut world, 10_000, "both again", |world| world.members(0).len() == 2);
    }
    world.run_for(2000);
    let before = world.lock_records()[&2].boot_counter;
    world.power_cut(1);
    world.apply(&Fault::LoseLedger(1));
    world.power_on(1);
    expect(&mut world, 20_000, "both again", |world| world.members(0).len() == 2 && world.members(1).len() == 2);
    world.run_for(3000);
    let own = &world.lock_records()[&2];
    assert!(before > 2 && own.boot_counter >= before, "{before}, then {}", own.boot_counter);
}

#[test]
fn a_machine_that_stood_still_is_not_counted_out_by_time() {
    for counts in [true, false] {
        for allowed in [false, true] {
            let mut settings = config(2, true);
            settings.time_on_virtual_machines = allowed;
            let mut world = World::new(7, settings, &[("web", group(&["a", "b"]))]);
            expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
            world.run_for(3000);
            world.apply(&Fault::Pause(0, 5000, counts));
            world.run_for(4000);
            if allowed {
                // The price of `evidence.timeOnVirtualMachines: Allow`, which status.guarantee names.
                assert!(world.violations.iter().any(|what| what.starts_with("I-b")), "{}", world.story(80));
                continue;
            }
            assert_eq!(world.places("web"), [0], "b waits\n{}", world.story(80));
            // The machine goes on, learns that it was left out, stops, and says so.
            expect(&mut world, 6000, "taken over", |world| world.online("web") == Some(1));
        }
    }
}
