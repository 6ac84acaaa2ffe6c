//! Cables are pulled.

use holdfast_api::v1::PathState;
use holdfast_lab::{boottime_ns, wait_for};

use crate::harness::{LIMIT, Trial};

#[test]
fn a_path_that_loses_one_way_is_not_up_and_moves_nothing() {
    let trial = Trial::two("one-way");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    trial.cluster.lab().one_way_loss(&active, &standby, "ic").expect("loss");
    wait_for("the path to be shown as broken", LIMIT, |last| {
        let servers = trial.cluster.servers()?;
        let mut states = Vec::new();
        for server in servers.values() {
            let paths = server.status.iter().flat_map(|status| &status.paths);
            states.extend(paths.filter(|path| path.path == "ic").map(|path| path.state));
        }
        *last = format!("{states:?}");
        Ok((states.len() == 2 && states.iter().all(|state| *state != PathState::Up)).then_some(()))
    })
    .expect("neither side takes a one-way path for a good one");
    trial.pass(trial.cluster.blueprint().timeout * 2);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn with_both_lans_cut_exactly_one_server_goes_on_and_no_write_is_lost() {
    let trial = Trial::two("both-lans");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let epoch = trial.epoch();
    trial.cluster.lab().cut_all_lans(&active).expect("cables out");
    // Either may win the lock; what counts is that the kernel of one of them has nothing of the group any more, and
    // that the other has all of it, for good.
    let limit = trial.cluster.blueprint().timeout * 4;
    trial.pass(limit);
    let (on_active, on_standby) = (trial.traces(&active), trial.traces(&standby));
    assert!(on_active.is_empty() != on_standby.is_empty(), "{active}: {on_active:?}\n{standby}: {on_standby:?}");
    let survivor = if on_active.is_empty() { standby.clone() } else { active.clone() };

    trial.cluster.lab().restore_all_lans(&active).expect("cables in");
    // One view without the other, one with both again.
    trial.all_return(epoch + 1);
    trial.cluster.wait_online("web", Some(&survivor), LIMIT).expect("it runs where it ran");
    trial.served_by(std::slice::from_ref(&survivor), boottime_ns());
    let mut expected = vec![active];
    expected.extend((survivor != expected[0]).then_some(survivor));
    assert_eq!(trial.history(), expected);
    trial.cluster.close().expect("the lab goes");
}
