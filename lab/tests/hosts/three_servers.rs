//! Three servers: a majority goes on.

use holdfast_lab::boottime_ns;

use crate::harness::{GROUP, LIMIT, Trial};

#[test]
fn two_of_three_servers_take_over_what_the_third_left() {
    let trial = Trial::three("three-lost");
    let victim = trial.active();
    let others = trial.others(&victim);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&others, before);
    trial.taken_over_since(before);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    trial.members_become(&others, epoch);
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn the_one_of_three_that_is_cut_off_stops_before_the_others_start() {
    let trial = Trial::three("three-split");
    let lonely = trial.active();
    let others = trial.others(&lonely);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.lab().cut_all_lans(&lonely).expect("cables out");
    let survivor = trial.served_by(&others, before);
    assert_eq!(trial.traces(&lonely), Vec::<String>::new(), "a minority stops everything");
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    trial.cluster.lab().restore_all_lans(&lonely).expect("cables in");
    trial.all_return(epoch + 1);
    assert_eq!(trial.active(), survivor);
    assert_eq!(trial.history(), [lonely, survivor]);
    trial.cluster.close().expect("the lab goes");
}
