//! The control plane is away, or everything is stopped and started.

use std::time::Duration;

use holdfast_lab::{AGENT, StoreKind, boottime_ns, wait_for};

use crate::harness::{GROUP, LIMIT, Trial};

#[test]
fn a_takeover_needs_neither_api_server_nor_controller_nor_etcd() {
    let trial = Trial::two_with_etcd("no-control");
    let victim = trial.active();
    let standby = trial.others(&victim);
    trial.cluster.stop_control_plane(StoreKind::Etcd).expect("API server, controller and etcd are down");
    assert!(trial.cluster.group(GROUP).is_err(), "the API is away");
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.taken_over_since(before);

    trial.cluster.start_control_plane(StoreKind::Etcd).expect("the control plane is back");
    let online = trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status catches up");
    let transitions = online.status.expect("a status").transitions;
    assert_eq!(transitions.first().map(|t| t.from.as_str()), Some(victim.as_str()), "{transitions:?}");
    trial.pass(Duration::from_secs(2));
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn everything_can_be_stopped_in_order_and_started_again() {
    let trial = Trial::two("clean");
    let first = trial.active();
    let servers = trial.cluster.blueprint().servers.clone();
    for server in &servers {
        trial.host(server).stop_service(AGENT, LIMIT).expect("the agent ends");
    }
    for server in &servers {
        trial.comes_clean(server);
    }
    trial.cluster.stop_control_plane(StoreKind::Sqlite).expect("the control plane ends");
    let data = trial.cluster.blueprint().disks.iter().find(|disk| disk.file_system.is_some()).expect("a data disk");
    trial.cluster.lab().check_ext4(&data.name).expect("the file system was unmounted cleanly");

    let before = boottime_ns();
    trial.cluster.start_control_plane(StoreKind::Sqlite).expect("the control plane is back");
    for server in &servers {
        trial.host(server).start_service(AGENT).expect("the agent starts");
    }
    trial.served_by(&servers, before);
    trial.all_active();
    wait_for("the group to be online", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?} on {:?}", status.phase, status.server);
        Ok((status.phase == Some(holdfast_api::v1::GroupPhase::Online)).then_some(()))
    })
    .expect("it is online again");
    // Servers end one after the other: the first hands the group to the second, which stops it.
    let history = trial.history();
    assert!(history.len() <= 3 && history[0] == first, "{history:?}");
    trial.cluster.close().expect("the lab goes");
}
