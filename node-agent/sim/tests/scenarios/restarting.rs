//! Restart of a group where it runs, as an Operation asks for it.

use holdfast_core::names::GroupName;
use holdfast_core::status::PlacedGroup;
use holdfast_sim::World;
use holdfast_sim::setup::{config, group};

use super::expect;

/// Group web runs on b, the coordinator is a.
fn world() -> World {
    let mut world = World::new(7, config(2, true), &[("web", group(&["b", "a"]))]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(1));
    world
}

fn placed(world: &World) -> PlacedGroup {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator).expect("somebody coordinates");
    coordinator.groups[&GroupName::from("web")].clone()
}

fn is_restarted(world: &World, by: &str) -> bool {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator);
    let placed = coordinator.and_then(|told| told.groups.get(&GroupName::from("web")).cloned());
    let told = placed.and_then(|placed| placed.assignment).filter(|told| told.server.is_some());
    world.online("web") == Some(1) && told.is_some_and(|told| told.restarted.as_deref() == Some(by))
}

/// Transitions that an Operation caused, with whence and where to.
fn restarts(world: &World) -> Vec<(String, String)> {
    let caused = placed(world).transitions.into_iter().filter(|transition| transition.cause == "Operation");
    let place = |server: Option<holdfast_core::names::ServerName>| server.map(|server| server.0).unwrap_or_default();
    caused.map(|transition| (place(transition.from), place(transition.to))).collect()
}

#[test]
fn a_group_is_restarted_once_where_it_runs_and_no_failure_is_counted() {
    let mut world = world();
    let by = world.restart(&"web".into(), 1, &[]);
    expect(&mut world, 2000, "stopped", |world| world.online("web").is_none());
    expect(&mut world, 3000, "restarted", |world| is_restarted(world, &by));
    // The request stands until the Operation is over, and is read again and again.
    world.publish();
    world.run_for(20_000);
    assert_eq!(restarts(&world), [("b".into(), "b".into())], "{}", world.story(60));
    let told = placed(&world);
    assert!(told.failures.is_empty() && told.holds.is_empty(), "{:?} {:?}", told.failures, told.holds);
    // Computed anew, it is another one.
    let by = world.restart(&"web".into(), 1, &[]);
    expect(&mut world, 5000, "restarted again", |world| is_restarted(world, &by));
    assert_eq!(restarts(&world).len(), 2);
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn a_request_about_another_server_or_an_older_placement_stops_nothing() {
    let mut world = world();
    world.restart(&"web".into(), 0, &[]);
    world.run_for(10_000);
    assert_eq!(restarts(&world), [], "it does not run on a");
    let by = world.restart(&"web".into(), 1, &[]);
    expect(&mut world, 5000, "restarted", |world| is_restarted(world, &by));
    let mut stale = (*world.groups[&GroupName::from("web")]).clone();
    if let Some(request) = &mut stale.restart {
        request.by = "late".into();
    }
    world.groups.insert("web".into(), stale.into());
    world.publish();
    world.run_for(10_000);
    assert_eq!(restarts(&world).len(), 1, "{}", world.story(60));
}

#[test]
fn whoever_coordinates_ends_a_restart_that_another_one_began() {
    for ms in [0, 5, 10, 20, 40, 80, 120, 160, 200, 300, 400, 600, 900] {
        let mut world = world();
        let by = world.restart(&"web".into(), 1, &[]);
        world.run_for(ms);
        world.power_cut(0);
        expect(&mut world, 30_000, &format!("restarted after {ms} ms"), |world| is_restarted(world, &by));
        assert_eq!(world.places("web"), [1]);
        assert_eq!(world.violations, Vec::<String>::new(), "{ms} ms");
    }
}

#[test]
fn one_resource_is_restarted_with_what_requires_it_while_the_rest_of_the_group_runs_on() {
    let mut web = group(&["b", "a"]);
    for (name, resource) in &mut web.resources {
        // The address only comes after the data; the program can't go on without it.
        if name.0 == "app" {
            resource.requires = ["data".into()].into();
        } else {
            resource.requires.clear();
        }
    }
    let mut world = World::new(7, config(2, true), &[("web", web)]);
    expect(&mut world, 5000, "online", |world| world.online("web") == Some(1));
    let starts = |world: &World, name: &str| world.starts[&("web".into(), name.into())].len();
    let by = world.restart(&"web".into(), 1, &["data"]);
    let done =
        |world: &World| placed(world).report.and_then(|report| report.part_restarted.clone()) == Some(by.clone());
    expect(&mut world, 5000, "restarted", |world| world.online("web") == Some(1) && done(world));
    world.publish();
    world.run_for(20_000);
    assert_eq!(
        (starts(&world, "data"), starts(&world, "app"), starts(&world, "addr")),
        (2, 2, 1),
        "{}",
        world.story(60)
    );
    let told = placed(&world);
    assert!(told.failures.is_empty() && restarts(&world).is_empty(), "no failure, and no change of place");
    // Not once more by whoever coordinates next, nor after the process was started anew.
    world.power_cut(0);
    world.apply(&holdfast_sim::world::faults::Fault::Crash(1, 50));
    world.run_for(20_000);
    assert_eq!((starts(&world, "data"), world.online("web")), (2, Some(1)), "{}", world.story(60));
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn a_restart_of_a_resource_is_told_as_done_only_when_it_was() {
    for ms in (0..=400).step_by(5) {
        let mut world = world();
        let starts = |world: &World| world.starts[&("web".into(), "data".into())].len();
        let by = world.restart(&"web".into(), 1, &["data"]);
        world.run_for(ms);
        world.apply(&holdfast_sim::world::faults::Fault::Crash(1, 50));
        let done =
            |world: &World| placed(world).report.and_then(|report| report.part_restarted.clone()) == Some(by.clone());
        let what = format!("restarted, with a new process after {ms} ms");
        expect(&mut world, 20_000, &what, |world| world.online("web") == Some(1) && done(world));
        // Where the process ended after the start and before the note, the next one does it again.
        assert!((2..=3).contains(&starts(&world)), "{ms} ms: {} starts\n{}", starts(&world), world.story(60));
        assert_eq!(world.violations, Vec::<String>::new(), "{ms} ms");
    }
}
