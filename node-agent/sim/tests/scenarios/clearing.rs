//! ClearFailures on the simulated world: by a command on a server, and as an Operation asks for it.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::commands::Command;
use holdfast_core::config::{GroupConfig, Recovery, Then};
use holdfast_core::names::GroupName;
use holdfast_core::status::{GroupPhase, PlacedGroup};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group, recovery};
use holdfast_sim::world::faults::Fault;

use super::expect;

const HOUR: Duration = Duration::from_secs(3600);

/// Remembers failures for an hour, and fails over `times`.
fn mindful(servers: &[&str], times: u32) -> GroupConfig {
    let mut config: GroupConfig = group(servers);
    for resource in config.resources.values_mut() {
        let (failover_window, decay) = (HOUR, HOUR);
        resource.recovery =
            Recovery { restarts: 0, max_failovers: times, failover_window, decay, then: Then::Failover, ..recovery() };
    }
    config
}

fn world(web: GroupConfig) -> World {
    World::new(7, config(2, true), &[("web", web)])
}

fn placed(world: &World) -> PlacedGroup {
    let coordinator = (0..2).find_map(|server| world.status(server)?.coordinator).expect("somebody coordinates");
    coordinator.groups[&GroupName::from("web")].clone()
}

#[track_caller]
fn clear(world: &mut World, server: usize, resources: &[&str]) -> Result<String, String> {
    let resources: BTreeSet<_> = resources.iter().map(|name| (*name).into()).collect();
    let token = world.command(server, Command::ClearFailures { group: "web".into(), resources }, "it is mended");
    expect(world, 15_000, "an answer", |world| world.answers.contains_key(&token));
    world.answers[&token].clone()
}

/// Fails wherever it is tried, until it is tried nowhere.
#[track_caller]
fn failed_everywhere(web: GroupConfig) -> World {
    let mut world = world(web);
    world.fail_starts(1.0);
    let down =
        |world: &World| world.status(0).and_then(|s| s.coordinator).is_some_and(|_| placed(world).failures.len() == 2);
    expect(&mut world, 10_000, "failed on both", down);
    world.run_for(3000);
    world.fail_starts(0.0);
    world.run_for(30_000);
    assert_eq!(world.places("web"), Vec::<usize>::new(), "remembered for an hour");
    world
}

#[test]
fn what_failed_everywhere_is_tried_again_when_its_failures_are_cleared_on_any_server() {
    for server in [0, 1] {
        let mut world = failed_everywhere(mindful(&["a", "b"], 3));
        let said = "failures of group web are forgotten, and FailureLimit does not hold it";
        assert_eq!(clear(&mut world, server, &[]), Ok(said.into()), "{}", world.story(60));
        expect(&mut world, 3000, "online where it is to be", |world| world.online("web") == Some(0));
        assert!(placed(&world).failures.is_empty(), "{:?}", placed(&world).failures);
    }
}

#[test]
fn the_hold_failure_limit_goes_with_the_failures_and_no_other_hold_does() {
    let mut world = failed_everywhere(mindful(&["a", "b"], 1));
    assert_eq!(placed(&world).holds, BTreeSet::from(["FailureLimit".to_owned()]));
    // Of one resource: what the group as a whole has used up stays.
    let (data, app) = (clear(&mut world, 1, &["data"]), clear(&mut world, 1, &["app"]));
    assert!(data.is_ok() && app.is_ok(), "{data:?} {app:?}");
    world.run_for(5000);
    assert_eq!(placed(&world).holds, BTreeSet::from(["FailureLimit".to_owned()]));
    assert!(clear(&mut world, 1, &[]).is_ok());
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    // It can fail over as often as at first.
    world.kill_program(0, "web", &"app".into());
    expect(&mut world, 3000, "failed over", |world| world.online("web") == Some(1));

    let mut manual = mindful(&["a", "b"], 1);
    manual.auto_start = false;
    let mut world = self::world(manual);
    world.run_for(5000);
    assert_eq!(placed(&world).holds, BTreeSet::from(["ManualStart".to_owned()]));
    assert!(clear(&mut world, 0, &[]).is_ok());
    world.run_for(10_000);
    assert_eq!(placed(&world).holds, BTreeSet::from(["ManualStart".to_owned()]));
    assert_eq!(world.places("web"), Vec::<usize>::new());
}

#[test]
fn a_stop_that_is_not_proven_is_tried_at_once_and_nothing_starts_before_it_is() {
    let mut world = world(mindful(&["a", "b"], 3));
    expect(&mut world, 3000, "online", |world| world.online("web") == Some(0));
    world.apply(&Fault::FailingResources(0.0, 1.0));
    world.kill_program(0, "web", &"app".into());
    expect(&mut world, 3000, "stuck", |world| placed(world).phase == GroupPhase::Stuck);
    // Long enough for the longest pause between two stops.
    world.run_for(120_000);
    let told = placed(&world).report.expect("it is on a").resources["app"].message.clone();
    assert!(told.contains("follows in 60 s") && told.contains("holdfast clear-failures"), "{told}");
    assert!(clear(&mut world, 1, &[]).is_ok());
    world.run_for(5000);
    assert_eq!((placed(&world).phase, world.places("web")), (GroupPhase::Stuck, vec![0]), "{}", world.story(60));
    world.run_for(2000);
    world.apply(&Fault::FailingResources(0.0, 0.0));
    assert!(clear(&mut world, 1, &[]).is_ok());
    expect(&mut world, 2000, "online", |world| world.online("web").is_some());
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn an_operation_clears_once_and_only_where_and_what_it_names() {
    let mut world = failed_everywhere(mindful(&["a", "b"], 3));
    let web = GroupName::from("web");
    world.clear_failures(&web, &[], Some(1));
    expect(&mut world, 3000, "online on the server whose failures are forgotten", |world| {
        world.online("web") == Some(1)
    });
    let left: Vec<_> = placed(&world).failures.into_keys().collect();
    assert_eq!(left, ["a".into()]);
    // The request stands until the Operation is over; what fails after it counts.
    world.kill_program(1, "web", &"app".into());
    expect(&mut world, 3000, "failed", |world| placed(world).failures.len() == 2);
    world.publish();
    world.run_for(20_000);
    assert_eq!((placed(&world).failures.len(), world.places("web")), (2, vec![]), "{}", world.story(60));
    let failed = placed(&world).failures.into_values().next().expect("two").part.to_string();
    let other = if failed == "app" { "data" } else { "app" };
    world.clear_failures(&web, &[other], None);
    world.run_for(5000);
    assert!(!placed(&world).failures.is_empty(), "failures of {failed} are no failures of {other}");
}
