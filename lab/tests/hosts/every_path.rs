//! Every heartbeat path alone, and every two of them together, cut on servers that have four kinds: only the loss of both
//! LANs moves anything.

use holdfast_api::v1::PathState;
use holdfast_lab::{LineState, boottime_ns};

use crate::harness::{GROUP, LIMIT, Trial};
use crate::paths::{LINE, paths};

const PATHS: [&str; 4] = ["ic", "pub", "area", "com"];
/// The disk below the path `area`.
const AREA: &str = "holdfast-area";

/// Cuts a path at `server`, or heals it.
fn set(trial: &Trial, server: &str, path: &str, works: bool) {
    let lab = trial.cluster.lab();
    let done = match (path, works) {
        ("area", true) => trial.host(server).disk_reachable(AREA),
        ("area", false) => trial.host(server).disk_unreachable(AREA),
        ("com", works) => lab.set_serial("com", if works { LineState::Through } else { LineState::Cut }),
        (lan, true) => lab.link_up(server, lan),
        (lan, false) => lab.link_down(server, lan),
    };
    done.unwrap_or_else(|error| panic!("path {path}, works: {works}: {error}"));
}

/// What both servers show of the paths, as far as the API hears them: without `pub` the standby has no way to it.
fn all_become(trial: &Trial, active: &str, standby: &str, cut: &[&str]) {
    for path in PATHS {
        let state = if cut.contains(&path) { PathState::Down } else { PathState::Up };
        trial.path_becomes(active, standby, path, state);
        if !cut.contains(&"pub") {
            trial.path_becomes(standby, active, path, state);
        }
    }
}

#[test]
fn every_path_and_every_two_of_them_can_be_lost_and_only_both_lans_decide_something() {
    let trial = Trial::two_with("every-path", &|spec| paths(spec, LINE, true));
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let epoch = trial.epoch();
    all_become(&trial, &active, &standby, &[]);
    let pairs = PATHS.iter().enumerate().flat_map(|(at, one)| PATHS[at + 1..].iter().map(move |two| vec![*one, *two]));
    let combinations: Vec<Vec<&str>> = PATHS.iter().map(|path| vec![*path]).chain(pairs).collect();
    assert_eq!(combinations.len(), 10);
    for cut in combinations.iter().filter(|cut| **cut != ["ic", "pub"]) {
        let before = boottime_ns();
        cut.iter().for_each(|path| set(&trial, &standby, path, false));
        all_become(&trial, &active, &standby, cut);
        trial.pass(trial.cluster.blueprint().timeout);
        assert_eq!(trial.epoch(), epoch, "{cut:?}: a LAN works, nothing moves");
        trial.undisturbed_since(before);
        cut.iter().for_each(|path| set(&trial, &standby, path, true));
        all_become(&trial, &active, &standby, &[]);
        assert_eq!(trial.epoch(), epoch, "{cut:?}: nothing moves when they are back either");
    }
    assert_eq!(trial.history(), std::slice::from_ref(&active));

    // Disk and line go on working: nobody is taken for dead, and one of them has to stop.
    ["ic", "pub"].iter().for_each(|path| set(&trial, &standby, path, false));
    trial.pass(trial.cluster.blueprint().timeout * 4);
    let (on_active, on_standby) = (trial.traces(&active), trial.traces(&standby));
    assert!(on_active.is_empty() != on_standby.is_empty(), "{active}: {on_active:?}\n{standby}: {on_standby:?}");
    let survivor = if on_active.is_empty() { standby.clone() } else { active.clone() };
    ["ic", "pub"].iter().for_each(|path| set(&trial, &standby, path, true));
    trial.all_return(epoch + 1);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("it runs where it ran");
    all_become(&trial, &active, &standby, &[]);
    let mut expected = vec![active];
    expected.extend((survivor != expected[0]).then_some(survivor));
    assert_eq!(trial.history(), expected);
    trial.cluster.close().expect("the lab goes");
}
