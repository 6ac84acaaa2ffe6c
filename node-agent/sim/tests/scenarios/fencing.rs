//! Fence devices on the simulated world: who is switched off when, and who waits for it.

use holdfast_core::config::FencingMode;
use holdfast_core::orders::Power;
use holdfast_sim::World;
use holdfast_sim::setup::{config, fenced, group, with_quorum_server};
use holdfast_sim::world::Device;
use holdfast_sim::world::faults::Fault;

use super::{expect, two};

fn fenced_two(mode: FencingMode) -> World {
    // So long a wait that time is never what a takeover rests on.
    let base = config(2, true);
    let slow = holdfast_core::config::Config { takeover_wait: std::time::Duration::from_secs(60), ..base };
    World::new(7, fenced(slow, mode), &[("web", group(&["a", "b"]))])
}

fn evidence_at(world: &World, server: usize) -> Option<&'static str> {
    world.status(server)?.last_resolution?.evidence
}

#[test]
fn a_server_that_is_verified_off_is_taken_over_without_the_wait() {
    let mut world = fenced_two(FencingMode::BestEffort);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.power_cut(0);
    expect(&mut world, 2500, "taken over", |world| world.online("web") == Some(1));
    assert_eq!((evidence_at(&world, 1), world.fences.fired.as_slice()), (Some("Power"), [0].as_slice()));
    world.run_for(60_000);
    assert_eq!(world.fences.fired, [0], "it is not switched off twice");
}

#[test]
fn in_a_partition_the_loser_is_off_before_its_groups_start_elsewhere() {
    let mut world = fenced_two(FencingMode::Required);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.restart_after_kill = 10_000;
    world.freeze(0, 30_000);
    expect(&mut world, 4000, "taken over", |world| world.online("web") == Some(1));
    assert!(!world.hosts[0].powered, "{}", world.story(80));
    assert_eq!(evidence_at(&world, 1), Some("Power"));
}

#[test]
fn without_its_device_required_waits_and_best_effort_goes_on_by_time() {
    for (mode, place) in [(FencingMode::Required, None), (FencingMode::BestEffort, Some(1))] {
        let mut world = World::new(7, fenced(config(2, true), mode), &[("web", group(&["a", "b"]))]);
        expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
        world.run_for(3000);
        world.fences.device = Device::Fails;
        world.power_cut(0);
        world.run_for(10_000);
        assert_eq!(world.online("web"), place, "{mode:?}\n{}", world.story(80));
        // The device is repaired: it is tried again.
        world.fences.device = Device::Works;
        expect(&mut world, 30_000, "taken over at last", |world| world.online("web") == Some(1));
    }
}

#[test]
fn a_call_under_way_keeps_the_victim_out_and_a_rebooted_one_is_not_hit() {
    let mut world = fenced_two(FencingMode::Required);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.fences.device = Device::Hangs;
    world.power_cut(0);
    world.run_for(1500);
    world.power_on(0);
    expect(&mut world, 2000, "the call is under way", |world| world.members(1) == ["b"]);
    world.fences.device = Device::Works;
    world.fences.reboot = true;
    expect(&mut world, 40_000, "both are members again", |world| {
        world.members(1) == ["a", "b"] && world.online("web").is_some()
    });
    assert!(world.violations.is_empty(), "{}", world.story(120));
}

#[test]
fn a_coordinator_that_dies_while_it_fences_is_followed_by_the_next() {
    let five = fenced(config(5, false), FencingMode::Required);
    let mut world = World::new(7, five, &[("web", group(&["e", "d", "c", "b", "a"]))]);
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(4));
    world.run_for(3000);
    world.fences.device = Device::Hangs;
    world.power_cut(4);
    world.run_for(1500);
    assert_eq!(world.members(0), ["a", "b", "c", "d"]);
    world.power_cut(0);
    world.fences.device = Device::Works;
    expect(&mut world, 5000, "taken over", |world| world.online("web") == Some(3));
    world.fences.fired.sort_unstable();
    assert_eq!(world.fences.fired, [0, 4]);
}

#[test]
fn a_server_whose_stop_fails_is_left_out_and_switched_off() {
    let mut world = fenced_two(FencingMode::BestEffort);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.apply(&Fault::FailingResources(0.0, 1.0));
    let mut moved = group(&["b"]);
    moved.generation = 2;
    world.groups.insert("web".into(), std::sync::Arc::new(moved));
    world.publish();
    expect(&mut world, 5000, "taken over", |world| world.online("web") == Some(1));
    assert_eq!((evidence_at(&world, 1), world.fences.fired.as_slice()), (Some("Power"), [0].as_slice()));
}

#[test]
fn a_server_whose_stop_fails_stays_if_nothing_can_end_it_from_outside() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.apply(&Fault::FailingResources(0.0, 1.0));
    let mut moved = group(&["b"]);
    moved.generation = 2;
    world.groups.insert("web".into(), std::sync::Arc::new(moved));
    world.publish();
    world.run_for(20_000);
    assert_eq!((world.members(1), world.places("web")), (vec!["a".to_owned(), "b".to_owned()], vec![0]));
}

/// Whose lease rests on the lock alone can't count on those that know of its call to keep the victim out.
#[test]
fn a_call_is_cancelled_before_its_server_leans_on_the_lock() {
    let three = fenced(with_quorum_server(3), FencingMode::Required);
    let mut world = World::new(7, three, &[("web", group(&["a", "b", "c"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.fences.device = Device::Hangs;
    world.power_cut(2);
    expect(&mut world, 3000, "the call begins", |world| world.story(20).contains("a: fences c"));
    world.cut_lans(0, 1);
    expect(&mut world, 800, "cancelled", |world| {
        world.story(200).contains("a: FenceFailed: c could not be fenced: cancelled")
    });
    assert_eq!(world.members(0), ["a", "b"], "{}", world.story(60));
    assert_eq!(world.online("web"), Some(0), "a goes on by the lock\n{}", world.story(60));
}

/// The controller gives an order anew for every view until it is carried out.
fn ordered(world: &mut World, ms: u64, what: &str, condition: impl Fn(&World) -> bool) {
    for _ in 0..ms / 100 {
        if condition(world) {
            return;
        }
        world.run_for(100);
        world.fence_by_order(0, None);
    }
    assert!(condition(world), "{what}: {}", world.story(80));
}

#[test]
fn an_operator_has_a_member_switched_off_and_it_is_left_out_first() {
    for (servers, lock) in [(2, true), (3, false)] {
        for victim in 0..2 {
            let names = ["a", "b", "c"];
            let base = fenced(config(servers, lock), FencingMode::BestEffort);
            let mut world = World::new(7, base, &[("web", group(&names[..servers]))]);
            expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
            world.run_for(3000);
            world.fences.reboot = true;
            world.fence_by_order(victim, Some(Power::Off));
            ordered(&mut world, 3000, "it is off", |world| !world.hosts[victim].powered);
            ordered(&mut world, 2000, "taken over", |world| world.online("web") == Some(1 - victim));
            for _ in 0..50 {
                world.run_for(200);
                world.fence_by_order(0, None);
            }
            assert_eq!(world.fences.fired, [victim], "once, and not switched on again: {}", world.story(60));

            // Its next boot is not meant. It comes back as after any loss.
            world.fence_by_order(victim, Some(Power::On));
            ordered(&mut world, 3000, "it is on", |world| world.hosts[victim].powered);
            ordered(&mut world, 6000, "it is back", |world| world.members(1 - victim).len() == servers);
            world.run_for(5000);
            assert_eq!(world.fences.fired, [victim], "{}", world.story(60));
            assert_eq!(world.online("web"), Some(1 - victim), "nothing moves back by itself");
        }
    }
}

#[test]
fn a_server_whose_end_is_proven_is_switched_off_all_the_same_and_a_reboot_hits_one_boot() {
    let mut world = World::new(7, fenced(config(3, false), FencingMode::BestEffort), &[("web", group(&["a", "b"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.run_for(3000);
    world.leave(2);
    expect(&mut world, 4000, "c has left", |world| world.members(0).len() == 2);
    world.fence_by_order(2, Some(Power::Reboot));
    ordered(&mut world, 3000, "c is hit", |world| world.fences.fired == [2]);
    ordered(&mut world, 8000, "c is back in another boot", |world| world.members(0).len() == 3);
    for _ in 0..50 {
        world.run_for(200);
        world.fence_by_order(0, None);
    }
    assert_eq!((world.fences.fired.as_slice(), world.members(0).len()), ([2].as_slice(), 3), "{}", world.story(60));
}

#[test]
fn a_coordinator_that_dies_after_an_ordered_fence_leaves_nothing_to_be_done_twice() {
    for ms in (0..1500).step_by(50) {
        let mut world =
            World::new(7, fenced(config(4, false), FencingMode::BestEffort), &[("web", group(&["a", "b"]))]);
        expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
        world.run_for(3000);
        world.fence_by_order(3, Some(Power::Reboot));
        for _ in 0..ms / 50 {
            world.run_for(50);
            world.fence_by_order(0, None);
        }
        world.power_cut(0);
        ordered(&mut world, 10_000, "taken over, and d is back in another boot", |world| {
            world.online("web") == Some(1) && world.members(1) == ["b", "c", "d"] && world.hosts[3].boot >= 2
        });
        assert!(world.fences.fired.iter().filter(|hit| **hit == 3).count() <= 2, "{ms} ms: {}", world.story(60));
    }
}
