//! Brakes: a group that is moved too often stays down until somebody has looked, and too many losses are not acted on.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::commands::Command;
use holdfast_core::config::{Brakes, Config, Failback};
use holdfast_core::names::GroupName;
use holdfast_core::status::{CoordinatorStatus, PlacedGroup};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group};
use holdfast_sim::world::faults::Fault;

use super::expect;

fn braked(mut settings: Config, edit: impl Fn(&mut Brakes)) -> Config {
    edit(&mut settings.brakes);
    settings
}

fn coordinator(world: &World) -> Option<CoordinatorStatus> {
    (0..2).find_map(|server| world.status(server)?.coordinator)
}

fn placed(world: &World) -> Option<PlacedGroup> {
    coordinator(world)?.groups.get(&GroupName::from("web")).cloned()
}

fn is_braked(world: &World) -> bool {
    placed(world).is_some_and(|placed| placed.holds == BTreeSet::from(["Brake".to_owned()]))
}

/// The server that runs the group loses power, and all power comes back once the group is elsewhere.
#[track_caller]
fn lose(world: &mut World, from: usize, to: usize) {
    world.power_cut(from);
    expect(world, 10_000, "taken over", |world| world.online("web") == Some(to));
    world.power_on(from);
    let all = world.members(to).len() + 1;
    expect(world, 20_000, "it is back", |world| world.members(to).len() == all);
}

#[test]
fn a_group_that_was_moved_too_often_is_not_moved_again_before_somebody_has_looked() {
    // Each loss ends the process that coordinated and counted.
    let settings = braked(config(2, true), |brakes| brakes.max_moves = 3);
    let mut world = World::new(7, settings, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(0));
    lose(&mut world, 0, 1);
    lose(&mut world, 1, 0);
    lose(&mut world, 0, 1);
    world.power_cut(1);
    expect(&mut world, 10_000, "held", is_braked);
    world.run_for(600_000);
    assert_eq!(world.places("web"), Vec::<usize>::new(), "{}", world.story(60));
    world.power_on(1);
    world.run_for(20_000);
    assert!(is_braked(&world) && world.places("web").is_empty(), "a return is no reason: {}", world.story(60));

    let resources = BTreeSet::new();
    let token = world.command(1, Command::ClearFailures { group: "web".into(), resources }, "it is mended");
    expect(&mut world, 15_000, "an answer", |world| world.answers.contains_key(&token));
    assert!(world.answers[&token].is_ok(), "{:?}", world.answers[&token]);
    expect(&mut world, 5000, "online where it is to be", |world| world.online("web") == Some(0));
    lose(&mut world, 0, 1);
}

#[test]
fn moves_that_are_long_ago_and_those_that_somebody_asks_for_do_not_count() {
    let settings = braked(config(2, true), |brakes| {
        (brakes.max_moves, brakes.moves_within) = (2, Duration::from_secs(100));
    });
    let mut world = World::new(7, settings, &[("web", group(&["a", "b"]))]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(0));
    for _ in 0..2 {
        lose(&mut world, 0, 1);
        world.run_for(60_000);
        lose(&mut world, 1, 0);
        world.run_for(60_000);
    }
    lose(&mut world, 0, 1);
    for to in [0, 1, 0, 1] {
        world.apply(&Fault::Move(0, to));
        expect(&mut world, 10_000, "moved as asked", |world| world.online("web") == Some(to));
    }
}

#[test]
fn a_group_that_was_moved_too_often_stays_where_it_is_well_although_it_would_rather_be_elsewhere() {
    let mut back = group(&["a", "b"]);
    back.failback = Some(Failback { delay: Duration::ZERO, in_window: false });
    let settings = braked(config(2, true), |brakes| brakes.max_moves = 3);
    let mut world = World::new(7, settings, &[("web", back)]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(0));
    // There, back, and there again.
    for end in [0, 1] {
        world.power_cut(0);
        expect(&mut world, 10_000, "taken over", |world| world.online("web") == Some(1));
        world.power_on(0);
        expect(&mut world, 20_000, "it is back", |world| world.members(1).len() == 2);
        world.run_for(20_000);
        assert_eq!(world.online("web"), Some(end), "{}", world.story(60));
    }
    assert!(placed(&world).is_some_and(|placed| placed.holds.is_empty()));
}

/// Five servers lose two, of which the second ran the group; when it was taken over, in seconds after the first loss.
fn taken_over_after(settings: Config) -> u64 {
    let mut world = World::new(7, settings, &[("web", group(&["d", "a"]))]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(3));
    let since = world.now;
    world.power_cut(4);
    expect(&mut world, 10_000, "without e", |world| world.members(0).len() == 4);
    world.power_cut(3);
    expect(&mut world, 10_000, "without d", |world| world.members(0).len() == 3);
    world.run_for(2000);
    let told = coordinator(&world).and_then(|coordinator| coordinator.brake).map(|brake| brake.lost.len());
    assert_eq!(told, is_braked(&world).then_some(2), "{}", world.story(60));
    expect(&mut world, 60_000, "taken over", |world| world.online("web") == Some(0));
    assert_eq!(coordinator(&world).and_then(|coordinator| coordinator.brake), None);
    (world.now - since) / 1_000_000_000
}

#[test]
fn after_more_losses_than_are_acted_on_nothing_is_taken_over_before_their_time_is_over() {
    let limited = |most: usize| {
        braked(config(5, false), |brakes| (brakes.max_losses, brakes.losses_within) = (most, Duration::from_secs(30)))
    };
    assert!(taken_over_after(limited(2)) < 15);
    let waited = taken_over_after(limited(1));
    assert!((28..35).contains(&waited), "{waited}");
    let mut of_one_site = limited(1);
    of_one_site.sites = [("d".into(), "south".to_owned()), ("e".into(), "south".to_owned())].into();
    assert!(taken_over_after(of_one_site) < 15);
}
