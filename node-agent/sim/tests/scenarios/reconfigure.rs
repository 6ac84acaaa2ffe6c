//! What changes of the settings (R21) do to running groups.

use holdfast_sim::World;
use holdfast_sim::setup::{config, group};
use holdfast_sim::world::faults::Fault;
use holdfast_sim::world::reconfigure::Change;

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
