//! What operators do about single servers (C20, C21), on the simulated world.

use holdfast_core::config::Config;
use holdfast_core::status::{ClusterPhase, MemberState};
use holdfast_sim::World;
use holdfast_sim::setup::{config, group};
use holdfast_sim::world::faults::Fault;

use super::{expect, two};

fn manual() -> Config {
    Config { automatic_return: false, ..config(2, true) }
}

fn state(world: &World, server: usize) -> Option<MemberState> {
    world.status(server).map(|status| status.member)
}

/// What `of` says about why `server` is not a member.
fn waits_for(world: &World, of: usize, server: &str) -> String {
    world.status(of).map(|status| status.absences[server].message.clone()).unwrap_or_default()
}

#[test]
fn a_detached_server_hands_its_groups_over_and_stays_out_until_it_is_reinstated() {
    let mut world = World::new(7, config(3, false), &[("web", group(&["a", "b", "c"]))]);
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.apply(&Fault::Detach(0, false));
    expect(&mut world, 3000, "moved", |world| world.online("web") == Some(1));
    expect(&mut world, 2000, "left", |world| world.members(1) == ["b", "c"]);
    assert_eq!(state(&world, 0), Some(MemberState::Detached));
    // Over a restart, a reboot, another coordinator, and both at once.
    world.crash_process(0, 50);
    world.run_for(4000);
    world.power_cut(0);
    world.power_on(0);
    world.power_cut(1);
    expect(&mut world, 4000, "taken over", |world| world.online("web") == Some(2));
    world.power_on(1);
    expect(&mut world, 6000, "b is back", |world| world.members(2) == ["b", "c"]);
    world.run_for(4000);
    assert_eq!(state(&world, 0), Some(MemberState::Detached), "{}", world.story(80));
    assert!(waits_for(&world, 1, "a").contains("detached (by alice)"), "{}", waits_for(&world, 1, "a"));
    world.apply(&Fault::Reinstate(0));
    expect(&mut world, 4000, "back", |world| world.members(2) == ["a", "b", "c"]);
    world.run_for(3000);
    assert_eq!(world.online("web"), Some(2), "a server that comes back takes nothing");
}

#[test]
fn a_handover_goes_on_whenever_an_agent_is_killed() {
    // Who has the group and hands it over, who is killed; a coordinates until it has left.
    for (holder, killed) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)] {
        for delay in (0..300).step_by(10) {
            let policy = if holder == 0 { ["a", "b", "c"] } else { ["b", "a", "c"] };
            let mut world = World::new(7, config(3, false), &[("web", group(&policy))]);
            expect(&mut world, 2000, "online", |world| world.online("web") == Some(holder));
            world.apply(&Fault::Detach(holder, false));
            world.run_for(delay);
            world.crash_process(killed, 50);
            let what = format!("handed over by {holder}, {killed} killed after {delay} ms");
            expect(&mut world, 3000, &what, |world| world.online("web") == Some(1 - holder));
        }
    }
}

#[test]
fn groups_of_a_server_that_is_detached_with_stop_are_held() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.apply(&Fault::Detach(0, true));
    expect(&mut world, 3000, "left", |world| world.members(1) == ["b"]);
    world.run_for(3000);
    assert!(world.places("web").is_empty(), "{}", world.story(80));
    let status = world.status(1).and_then(|status| status.coordinator).expect("b coordinates");
    assert!(status.groups["web"].holds.contains("Stopped"));
}

#[test]
fn the_last_server_can_not_be_detached() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.apply(&Fault::Detach(1, false));
    expect(&mut world, 3000, "left", |world| world.members(0) == ["a"]);
    world.apply(&Fault::Detach(0, false));
    world.run_for(5000);
    assert_eq!((world.online("web"), world.members(0)), (Some(0), vec!["a".to_owned()]), "{}", world.story(80));
}

#[test]
fn a_server_that_is_declared_detached_leaves_and_comes_back_when_it_is_declared_active() {
    let mut world = two(config(2, true));
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    let declared = Config { generation: 2, detached: ["a".into()].into(), ..config(2, true) };
    world.config = declared.into();
    world.publish();
    expect(&mut world, 4000, "moved", |world| world.online("web") == Some(1) && world.members(1) == ["b"]);
    world.apply(&Fault::Reinstate(0));
    world.run_for(4000);
    assert_eq!(world.members(1), ["b"], "what is declared wins: {}", waits_for(&world, 1, "a"));
    world.config = Config { generation: 3, ..config(2, true) }.into();
    world.publish();
    expect(&mut world, 4000, "back", |world| world.members(1).len() == 2);
}

#[test]
fn after_a_power_cut_a_server_waits_to_be_reinstated_and_becomes_the_standby() {
    let mut world = two(manual());
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    world.power_on(0);
    expect(&mut world, 6000, "seen", |world| waits_for(world, 1, "a").contains("reinstated"));
    assert_eq!(state(&world, 0), Some(MemberState::Detached));
    world.apply(&Fault::Reinstate(0));
    expect(&mut world, 4000, "back", |world| world.members(1).len() == 2);
    world.run_for(3000);
    assert_eq!(world.online("web"), Some(1));
}

#[test]
fn a_rebooted_virtual_machine_comes_back_when_an_operator_confirms_its_end() {
    let mut world = two(Config { time_on_virtual_machines: false, ..config(2, true) });
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    world.run_for(4000);
    assert!(world.places("web").is_empty(), "a paused machine may still write");
    // The operator looks while it is off: that is what he may confirm.
    world.power_on(0);
    world.run_for(4000);
    let words = waits_for(&world, 1, "a");
    assert!(words.contains("holdfast confirm-stopped a"), "{words}");
    assert!(world.status(0).is_some_and(|status| status.sentence.contains("holdfast confirm-stopped a")));
    world.power_cut(0);
    world.apply(&Fault::ConfirmStopped(0));
    expect(&mut world, 3000, "its group starts", |world| world.online("web") == Some(1));
    world.power_on(0);
    expect(&mut world, 6000, "back", |world| world.members(1).len() == 2);
}

#[test]
fn when_all_were_down_one_is_made_the_base_and_nothing_starts_by_itself() {
    let mut world = two(manual());
    expect(&mut world, 2000, "online", |world| world.online("web") == Some(0));
    world.power_cut(0);
    expect(&mut world, 3000, "taken over", |world| world.online("web") == Some(1));
    world.power_cut(1);
    // The one with the older state alone: it says who was last.
    world.power_on(0);
    expect(&mut world, 9000, "waits", |world| world.phase(0) == Some(ClusterPhase::AwaitingForceReinstate));
    let sentence = world.status(0).map(|status| status.sentence).unwrap_or_default();
    assert!(sentence.contains("the last view 2 had, without this server, b"), "{sentence}");
    world.apply(&Fault::ForceReinstate(0, true));
    assert_eq!(world.status(0).and_then(|status| status.view).map(|view| view.lineage), Some(2), "{}", world.story(60));
    world.run_for(4000);
    assert!(world.places("web").is_empty(), "{}", world.story(60));
    let status = world.status(0).and_then(|status| status.coordinator).expect("a coordinates");
    assert!(status.groups["web"].holds.contains("AfterForceReinstate"));
    // A second force is refused: the lock tells b of the first.
    world.apply(&Fault::ForceReinstate(1, true));
    assert!(world.log.iter().any(|line| line.contains("b: ForceRefused") && line.contains("a was made the base")));
    // The base was cut off, too, meanwhile: it is the one that may go on.
    world.apply(&Fault::ForceReinstate(0, false));
    let detached = |world: &World| state(world, 1) == Some(MemberState::Detached) && world.members(0) == ["a"];
    expect(&mut world, 9000, "b knows", detached);
    world.tidy_up();
    let back = |world: &World| world.members(0).len() == 2 && world.online("web") == Some(0);
    expect(&mut world, 5000, "both, and the group", back);
}
