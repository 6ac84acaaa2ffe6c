//! The control plane is away, or everything is stopped and started.

use std::time::Duration;

use holdfast_lab::{AGENT, CONTROL, STATE_DIR, StoreKind, boottime_ns, wait_for};

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
fn an_etcd_that_is_restored_from_a_snapshot_changes_nothing_that_runs_and_the_group_says_so() {
    let mut trial = Trial::two_with_etcd("snapshot");
    let active = trial.active();
    let standby = trial.others(&active);
    let control = trial.host(CONTROL);
    let etcdctl = |what: &str| {
        let command = format!("cd {STATE_DIR} && ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:2379 {what}");
        control.exec(&["sh", "-c", &command]).expect("etcdctl does it")
    };
    etcdctl("snapshot save snapshot");
    let declared = |trial: &Trial| trial.cluster.group(GROUP).expect("its object").metadata.generation;
    let before = declared(&trial).expect("a generation");
    trial
        .cluster
        .change(&|documents| {
            let group = documents.iter_mut().find(|(_, document)| document["kind"] == "FailoverGroup");
            group.expect("a group").1["spec"]["placement"]["priority"] = 7.into();
            let sub = documents.iter_mut().find(|(_, document)| document["kind"] == "SubCluster");
            sub.expect("a sub-cluster").1["spec"]["exec"]["enabled"] = true.into();
        })
        .expect("it is changed");
    wait_for("the servers to act by it", LIMIT, |last| {
        let (group, sub) = (trial.status(), trial.cluster.sub_cluster()?.status.unwrap_or_default());
        *last = format!("{:?}, {:?}", group.observed_generation, sub.config_revision);
        Ok((group.observed_generation == Some(before + 1) && sub.config_revision == Some(2)).then_some(()))
    })
    .expect("the change is taken");

    let restored = boottime_ns();
    trial.cluster.stop_control_plane(StoreKind::Etcd).expect("the control plane ends");
    etcdctl("snapshot restore snapshot --data-dir restored && rm -rf etcd && mv restored etcd");
    trial.cluster.start_control_plane(StoreKind::Etcd).expect("the control plane is back");
    assert_eq!(declared(&trial), Some(before), "the store is that of before");
    wait_for("the group to say what happened", LIMIT, |last| {
        let sub = trial.cluster.sub_cluster()?.status.unwrap_or_default();
        let both = [trial.status().conditions, sub.conditions];
        *last = format!("{both:#?}");
        let regressed = both
            .iter()
            .filter(|conditions| conditions.iter().any(|one| one.type_ == "Stalled" && one.reason == "SpecRegressed"));
        Ok((regressed.count() == 2).then_some(()))
    })
    .expect("condition Stalled");
    assert_eq!(trial.status().observed_generation, Some(before + 1), "the servers act by what they had");
    trial.undisturbed_since(restored);
    assert_eq!(trial.history(), std::slice::from_ref(&active));

    // And a takeover is one as before.
    let lost = boottime_ns();
    let victim = active;
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, lost);
    trial.taken_over_since(lost);
    assert_eq!(trial.history(), [victim.clone(), survivor.clone()]);

    // The operator wants what the backup has: it counts, and so does the next change, which has a generation of before.
    let accept = ["accept-spec", GROUP, "-n", "ha", "--reason", "as in the backup"];
    let unconfirmed = trial.cluster.holdfast(&accept).expect_err("unconfirmed");
    assert!(unconfirmed.to_string().contains(&format!("--confirm {GROUP}")), "{unconfirmed}");
    let done = trial.cluster.holdfast(&[&accept[..], &["--confirm", GROUP]].concat()).expect("accepted");
    assert!(done.contains(&format!("the servers act by generation {before} of {GROUP}")), "{done}");
    let status = trial.status();
    assert_eq!((status.observed_generation, status.acceptances), (Some(before), Some(1)));
    assert!(!status.conditions.iter().any(|one| one.type_ == "Stalled"), "{:?}", status.conditions);
    let name = trial.cluster.blueprint().sub_cluster.clone();
    let of_sub = ["accept-spec", "--subcluster", &name, "--confirm", &name, "-n", "ha", "--reason", "as in the backup"];
    let done = trial.cluster.holdfast(&of_sub).expect("accepted");
    assert!(done.contains(&format!("the servers act by generation 1 of {name}")), "{done}");
    trial
        .cluster
        .change(&|documents| {
            let group = documents.iter_mut().find(|(_, document)| document["kind"] == "FailoverGroup");
            group.expect("a group").1["spec"]["placement"]["priority"] = 9.into();
        })
        .expect("it is changed");
    wait_for("the servers to act by the next change", LIMIT, |last| {
        *last = format!("{:?}", trial.status().observed_generation);
        Ok((trial.status().observed_generation == declared(&trial)).then_some(()))
    })
    .expect("the change is taken");

    // A server that was away, and knows only what was before, learns it before it may run anything.
    let (back, epoch) = (boottime_ns(), trial.epoch());
    trial.cluster.power_on(&victim).expect("power is back");
    trial.all_return(epoch);
    trial.undisturbed_since(back);
    trial.cluster.holdfast(&["move", GROUP, "--to", &victim, "-n", "ha"]).expect("moved");
    assert_eq!(trial.history(), [victim.clone(), survivor, victim]);
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
