//! What `holdfast plan --lose` promises.

use holdfast_api::v1::{self as api, GroupPhase, Losses};
use serde_json::{Value, json};

use super::*;
use crate::reconcilers::failover_group::tests::{group, placed, running};
use crate::reconcilers::sub_cluster::tests::sub_cluster;

/// Ledger runs on db1 of db1 and db2; it was taken over before, and its start took 110 ms then.
fn scene(is_virtual: bool) -> Scene {
    let mut sub_cluster = running(sub_cluster("db"), &["db1", "db2"]);
    sub_cluster.status.as_mut().unwrap().timing = serde_json::from_value(json!({"clusterPart": "1300ms"})).unwrap();
    let mut ledger = placed(group("ledger"), GroupPhase::Online, "db1");
    ledger.status.as_mut().unwrap().transitions = serde_json::from_value(json!([{
        "id": 1, "type": "Failover", "from": "db2", "to": "db1", "actual": "1410ms",
        "chart": [{"step": "Detect", "at": "0ms", "took": "1300ms"}, {"step": "start data", "at": "1300ms", "took": "90ms"}],
    }]))
    .unwrap();
    let server = |name: &str| -> Arc<Server> {
        let object: Value = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Server", "metadata": {"name": format!("db.{name}"), "namespace": "ha"},
            "spec": {"subCluster": "db", "server": name, "id": 1, "state": "Active"},
            "status": {"platform": {"virtual": is_virtual, "os": "", "kernel": ""}},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    };
    Scene { sub_cluster, servers: vec![server("db1"), server("db2")], groups: vec![Arc::new(ledger)] }
}

fn servers(names: &[&str]) -> Losses {
    Losses { servers: names.iter().map(|name| (*name).to_owned()).collect(), ..Losses::default() }
}

fn words(what: &WhatIf) -> String {
    let one = |(name, one): (&String, &Interruption)| {
        let outage = one.outage.map_or("?".to_owned(), |outage| format!("{}ms", outage.as_millis()));
        format!("{name} to {} {outage}", one.to.as_deref().unwrap_or("nowhere"))
    };
    let groups: Vec<String> = what.forecast.interruptions.iter().map(one).collect();
    format!("{} | fences {} | {}", groups.join(", "), what.fences.join(", "), what.notes.join("; "))
}

#[test]
fn the_group_of_a_lost_server_is_back_on_the_other_after_the_wait_and_its_measured_start() {
    assert_eq!(words(&lose(&scene(false), &servers(&["db1"])).unwrap()), "ledger to db2 1410ms | fences  | ");
    assert_eq!(words(&lose(&scene(false), &servers(&["db2"])).unwrap()), " | fences  | ");
}

#[test]
fn shared_data_of_a_virtual_machine_waits_for_other_evidence_than_time() {
    let what = words(&lose(&scene(true), &servers(&["db1"])).unwrap());
    assert!(what.starts_with("ledger to nowhere ? | fences  | elapsed time proves nothing about db1"), "{what}");
    let mut fenced = scene(true);
    fenced.sub_cluster.spec.fencing = serde_json::from_value(json!({
        "mode": "Required", "devices": [{"name": "ipmi", "agent": "fence_ipmilan", "hosts": [{"server": "db1", "plug": "1"}]}],
        "levels": [{"server": "db1", "level": 1, "devices": ["ipmi"]}],
    }))
    .unwrap();
    let what = words(&lose(&fenced, &servers(&["db1"])).unwrap());
    assert!(what.starts_with("ledger to db2 ? | fences db1 | ledger waits until db1 is fenced"), "{what}");
}

#[test]
fn who_can_t_be_a_majority_stops_and_a_lock_alone_stops_nobody() {
    let with_lock = Losses { lock: true, ..servers(&["db1"]) };
    let what = words(&lose(&scene(false), &with_lock).unwrap());
    assert!(what.starts_with("ledger to nowhere ? | fences  | what is left is no majority"), "{what}");
    let lock = Losses { lock: true, ..Losses::default() };
    assert_eq!(words(&lose(&scene(false), &lock).unwrap()), " | fences  | ");
}

#[test]
fn one_path_moves_nothing_and_all_of_them_leave_one_server() {
    let paths = |names: &[&str]| Losses { paths: names.iter().map(|n| (*n).to_owned()).collect(), ..Losses::default() };
    let what = words(&lose(&scene(false), &paths(&["ic"])).unwrap());
    assert!(what.starts_with(" | fences  | a LAN path is left"), "{what}");
    let what = words(&lose(&scene(false), &paths(&["ic", "pub"])).unwrap());
    assert!(what.starts_with("ledger to db2 1410ms | fences  | no LAN path is left"), "{what}");
}

#[test]
fn a_lost_disk_takes_its_groups_and_its_lock_with_it() {
    let disk = Losses { disks: vec!["san".into()], ..Losses::default() };
    let what = words(&lose(&scene(false), &disk).unwrap());
    assert!(what.contains("ledger to nowhere ?") && what.contains("ledger needs a disk that is lost"), "{what}");
    let both = Losses { disks: vec!["san".into()], ..servers(&["db2"]) };
    assert!(words(&lose(&scene(false), &both).unwrap()).contains("what is left is no majority"));
}

#[test]
fn a_name_that_is_not_there_is_told_with_those_that_are() {
    let error = lose(&scene(false), &servers(&["db9"])).unwrap_err();
    assert_eq!(error, "the sub-cluster has no server db9; it has: db1, db2");
    let site = api::Losses { sites: vec!["hall-a".into()], ..Losses::default() };
    assert_eq!(lose(&scene(false), &site).unwrap_err(), "the sub-cluster has no site hall-a; it has: none");
}
