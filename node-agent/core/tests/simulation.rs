//! Random faults on whole sub-clusters, from seeds. Under all faults: nothing runs twice, no epoch has two successors.
//! After the faults: every group runs again within a bound.
//!
//! `HOLDFAST_SEED=n cargo test -p holdfast-core --test simulation` replays one seed and prints its story.

mod world;

use holdfast_core::names::PathName;
use rand::Rng;
use world::{World, config, group, with_quorum_server};

/// Time after the last fault in which everything has to be as declared again.
const BOUND_MS: u64 = 40_000;

fn shape(seed: u64) -> World {
    let config = match seed % 6 {
        0 | 1 => config(2, true),
        2 => config(3, false),
        3 => config(4 + (seed / 6 % 2) as usize, false),
        4 => with_quorum_server(2),
        _ => with_quorum_server(3 + (seed / 6 % 2) as usize),
    };
    let servers = config.servers.len();
    let names = ["a", "b", "c", "d", "e"];
    let all = &names[..servers];
    let mut backwards = all.to_vec();
    backwards.reverse();
    let mut last = group(&backwards);
    last.shared_data = false;
    World::new(seed, config, &[("web", group(all)), ("db", group(&backwards)), ("net", last)])
}

/// One random fault.
fn disturb(world: &mut World) {
    let n = world.hosts.len();
    let server = world.rng.random_range(0..n);
    let other = world.rng.random_range(0..n);
    match world.rng.random_range(0..16) {
        0 | 1 => world.power_cut(server),
        2 | 3 => world.power_on(server),
        4 => {
            let restart = world.rng.random_range(20..2000);
            world.crash_process(server, restart);
        }
        5 | 6 => {
            let ms = world.rng.random_range(50..3000);
            world.freeze(server, ms);
        }
        7 if server != other => world.cut_lans(server, other),
        8 => {
            let path: PathName = if world.rng.random_bool(0.5) { "ic".into() } else { "pub".into() };
            world.cut.insert((server, other, path)); // one way only
        }
        9 => {
            for to in 0..n {
                world.cut_lans(server, to);
            }
        }
        10 | 11 => world.cut.clear(),
        12 => world.loss = if world.rng.random_bool(0.5) { 0.0 } else { world.rng.random_range(0.01..0.4) },
        13 => world.hosts[server].disk_reachable = world.rng.random_bool(0.6),
        14 => {
            world.failing_starts = world.rng.random_range(0.0..0.3);
            world.failing_stops = world.rng.random_range(0.0..0.3);
        }
        15 => world.max_fsync = world.rng.random_range(1..400),
        _ => {}
    }
    let lan = world.cut.len();
    let loss = world.loss;
    world.say(format!("faults: {lan} cuts, loss {loss:.2}"));
}

fn check(seed: u64, verbose: bool) -> Result<u64, String> {
    let mut world = shape(seed);
    let fail = |world: &World, what: String| {
        let story = if verbose { world.story(400) } else { String::new() };
        Err(format!("seed {seed}: {what}\n{story}"))
    };
    world.run_for(3000);
    for _ in 0..40 {
        disturb(&mut world);
        let pause =
            if world.rng.random_bool(0.3) { world.rng.random_range(1..50) } else { world.rng.random_range(50..4000) };
        world.run_for(pause);
        if !world.violations.is_empty() {
            return fail(&world, world.violations.join("; "));
        }
    }
    world.heal();
    world.say("HEALED".into());
    let settled = world.wait(BOUND_MS, |world| ["web", "db", "net"].iter().all(|name| world.online(name).is_some()));
    if !world.violations.is_empty() {
        return fail(&world, world.violations.join("; "));
    }
    if !settled {
        return fail(&world, "I-i: a group does not run although nothing is wrong any more".into());
    }
    Ok(world.now / 1_000_000_000)
}

#[test]
fn nothing_runs_twice_and_everything_comes_back() {
    if let Ok(seed) = std::env::var("HOLDFAST_SEED") {
        let seed = seed.parse().expect("HOLDFAST_SEED is a number");
        if let Err(story) = check(seed, true) {
            panic!("{story}");
        }
        return;
    }
    let schedules: u64 = std::env::var("HOLDFAST_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(120);
    let mut simulated = 0;
    let mut failures = Vec::new();
    for seed in 0..schedules {
        match check(seed, false) {
            Ok(seconds) => simulated += seconds,
            Err(what) => failures.push(what),
        }
    }
    println!("{schedules} schedules, {simulated} simulated seconds, {} violations", failures.len());
    assert!(failures.is_empty(), "replay with HOLDFAST_SEED=n:\n{}", failures.join("\n"));
}
