//! What a sub-cluster does in the situations that people know, on the simulated world.

mod basics;
mod brakes;
mod clearing;
mod closing;
mod commands;
mod fencing;
mod flapping;
mod monitors;
mod operator;
mod pausing;
mod placement;
mod reconfigure;
mod restarting;

use holdfast_core::config::Config;
use holdfast_sim::World;
use holdfast_sim::setup::group;

/// Two servers with one group.
fn two(settings: Config) -> World {
    World::new(7, settings, &[("web", group(&["a", "b"]))])
}

/// Within `ms` milliseconds, without a violation.
#[track_caller]
fn expect(world: &mut World, ms: u64, what: &str, condition: impl Fn(&World) -> bool) {
    let held = world.wait(ms, condition);
    assert!(held && world.violations.is_empty(), "{what}: {:?}\n{}", world.violations, world.story(120));
}
