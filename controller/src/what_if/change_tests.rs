//! What `holdfast plan -f` and a Drill of manifests promise.

use holdfast_api::v1::{FailbackMode, GroupPhase};
use serde_json::{Value, json};

use super::super::manifests;
use super::*;
use crate::reconcilers::failover_group::tests::{group, placed, running};
use crate::reconcilers::sub_cluster::tests::sub_cluster;

/// Ledger runs on db1 of db1 and db2; a stop took 40 ms and a start 110 ms.
fn live() -> Live {
    let sub_cluster = running(sub_cluster("db"), &["db1", "db2"]);
    let mut ledger = placed(group("ledger"), GroupPhase::Online, "db1");
    ledger.status.as_mut().unwrap().transitions = serde_json::from_value(json!([{
        "id": 1, "type": "Move", "from": "db2", "to": "db1", "actual": "150ms",
        "chart": [{"step": "stop on db2", "at": "0ms", "took": "40ms"}, {"step": "start data", "at": "40ms", "took": "90ms"}],
    }]))
    .unwrap();
    let claims = holdfast_api::claims::texts(&ledger.spec);
    ledger.status.as_mut().unwrap().claims = claims;
    let scene = Scene { sub_cluster, servers: Vec::new(), groups: vec![Arc::new(ledger)] };
    Live { scenes: vec![scene], ..Live::default() }
}

/// As a manifest: without status and defaults.
fn manifest(name: &str, edit: impl Fn(&mut Value)) -> Value {
    let mut object = serde_json::to_value(group(name)).unwrap();
    object["metadata"] = json!({"name": name});
    object["spec"] = json!({"subCluster": "db", "resources": [
        {"name": "data", "filesystem": {"disk": "san", "device": "/dev/disk/by-id/wwn-0x51-part2", "mountPoint": "/srv/ledger",
            "type": "ext4"}},
        {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}},
        {"name": "app", "process": {"command": ["/usr/bin/ledgerd"]}},
    ]});
    object.as_object_mut().unwrap().remove("status");
    edit(&mut object);
    object
}

fn told(manifests: &[Value]) -> String {
    let live = live();
    let changes = manifests::read(manifests, "ha", &live).unwrap();
    let (parts, notes) = change(&live, &changes);
    let step = |step: &holdfast_planner::Step| {
        let does = if step.does == Does::Stop { "stop" } else { "start" };
        format!("{}ms {does} {} on {}", step.at.as_millis(), step.group, step.server)
    };
    let what = &parts[0].what;
    let steps: Vec<String> = what.forecast.steps.iter().map(step).collect();
    let away = |(name, one): (&String, &holdfast_planner::Interruption)| {
        format!("{name} to {} {:?}", one.to.as_deref().unwrap_or("nowhere"), one.outage)
    };
    let away: Vec<String> = what.forecast.interruptions.iter().map(away).collect();
    let waiting: Vec<String> =
        what.forecast.waiting.iter().map(|(name, (rule, _))| format!("{name} waits: {}", rule.name())).collect();
    let all = [steps, away, waiting, what.notes.clone(), notes].concat();
    assert_eq!(parts[0].sub_cluster, "ha/db");
    all.join(" | ")
}

/// Another group on disks and addresses of its own.
fn other(name: &str, edit: impl Fn(&mut Value)) -> Value {
    manifest(name, |o| {
        o["spec"]["resources"] = json!([{"name": "app", "process": {"command": ["/usr/bin/true"]}}]);
        edit(o);
    })
}

#[test]
fn what_is_the_same_once_its_defaults_are_filled_in_changes_nothing() {
    assert_eq!(told(&[manifest("ledger", |_| {})]), "ledger: nothing changes");
}

#[test]
fn a_change_that_needs_a_restart_is_done_at_once_only_if_that_is_asked_for() {
    let command = |o: &mut Value| o["spec"]["resources"][2]["process"]["command"] = json!(["/usr/bin/other"]);
    let waits = told(&[manifest("ledger", command)]);
    assert!(waits.starts_with("ledger: the change of app needs a restart of the group and is taken at its"), "{waits}");
    let at_once = told(&[manifest("ledger", |o| {
        command(o);
        o["spec"]["change"] = json!({"onRestartNeeded": "Restart"});
    })]);
    let wanted =
        "0ms stop ledger on db1 | 40ms start ledger on db1 | ledger to db1 Some(150ms) | ledger: the change of app";
    assert!(at_once.starts_with(wanted), "{at_once}");
    let timed = told(&[manifest("ledger", |o| o["spec"]["resources"][2]["timeouts"] = json!({"start": "5s"}))]);
    assert_eq!(timed, "ledger: what changes is taken over as it runs, without a restart");
}

#[test]
fn another_placement_moves_the_group_and_offline_stops_it() {
    let moves = told(&[manifest("ledger", |o| o["spec"]["placement"] = json!({"servers": ["db2"]}))]);
    assert!(
        moves.starts_with("0ms stop ledger on db1 | 40ms start ledger on db2 | ledger to db2 Some(150ms)"),
        "{moves}"
    );
    let prefers = |mode: FailbackMode| {
        told(&[manifest("ledger", |o| {
            o["spec"]["placement"] = json!({"servers": ["db2", "db1"], "failback": {"mode": mode}});
        })])
    };
    assert!(!prefers(FailbackMode::Manual).contains("stop"), "{}", prefers(FailbackMode::Manual));
    assert!(
        prefers(FailbackMode::Automatic).contains("40ms start ledger on db2"),
        "{}",
        prefers(FailbackMode::Automatic)
    );
    let stops = told(&[manifest("ledger", |o| o["spec"]["state"] = json!("Offline"))]);
    assert_eq!(stops, "0ms stop ledger on db1 | ledger to nowhere None");
}

#[test]
fn a_new_group_starts_where_it_prefers_to_be_unless_it_waits_for_an_operator_or_for_a_server() {
    let starts = told(&[other("batch", |o| o["spec"]["placement"] = json!({"servers": ["db2"]}))]);
    assert!(starts.starts_with("0ms start batch on db2 | never measured"), "{starts}");
    let manual = told(&[other("batch", |o| o["spec"]["startup"] = json!("Manual"))]);
    assert_eq!(manual, "batch waits for an operator (spec.startup: Manual): holdfast start batch");
    let apart = told(&[other("batch", |o| {
        o["spec"]["placement"] = json!({"servers": ["db1"], "separateFrom": [{"group": "ledger"}]});
    })]);
    assert!(apart.contains("batch waits: NoServerLeft"), "{apart}");
}

#[test]
fn what_the_controller_would_not_accept_is_told_in_its_words_and_changes_nothing() {
    let unknown = told(&[manifest("ledger", |o| o["spec"]["placement"] = json!({"servers": ["db9"]}))]);
    assert!(
        unknown.starts_with("FailoverGroup ha/ledger would not be accepted (UnknownServer): spec.placement.servers:")
    );
    assert!(unknown.ends_with("its servers go on by what they have"), "{unknown}");
    let taken = told(&[manifest("batch", |_| {})]);
    assert!(taken.contains("FailoverGroup ha/batch would not be accepted (ClaimConflict): "), "{taken}");
    let unit = |o: &mut Value| o["spec"]["resources"] = json!([{"name": "app", "systemd": {"unit": "batch.service"}}]);
    let twice = told(&[other("batch", unit), other("second", unit)]);
    assert!(twice.contains("start batch on db1") && !twice.contains("start second"), "{twice}");
    assert!(twice.contains("FailoverGroup ha/second would not be accepted (ClaimConflict): "), "{twice}");
}

#[test]
fn a_manifest_that_would_not_be_stored_is_refused_with_its_place() {
    let refused = |manifest: Value| manifests::read(&[manifest], "ha", &live()).unwrap_err();
    let typo = refused(manifest("ledger", |o| o["spec"]["stat"] = json!("Offline")));
    assert_eq!(typo, "apply[0]: FailoverGroup ledger: spec.stat: the kind has no such field");
    let wrong = refused(manifest("ledger", |o| o["spec"]["state"] = json!("Off")));
    assert!(wrong.starts_with("apply[0]: FailoverGroup ledger: spec.state: "), "{wrong}");
    let moved = refused(manifest("ledger", |o| o["spec"]["subCluster"] = json!("web")));
    assert!(moved.starts_with("apply[0]: FailoverGroup ledger: spec.subCluster: "), "{moved}");
    let kind = refused(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ha"}}));
    assert!(kind.contains("found v1 Namespace, allowed: SubCluster and FailoverGroup of holdfast.dev/"), "{kind}");
    let away = refused(manifest("ledger", |o| o["metadata"]["namespace"] = json!("shop")));
    assert!(away.contains("found shop, allowed: ha"), "{away}");
}

#[test]
fn a_stopped_sub_cluster_stops_its_groups() {
    let mut object = serde_json::to_value(sub_cluster("db")).unwrap();
    object["spec"]["state"] = json!("Stopped");
    object.as_object_mut().unwrap().remove("status");
    object["metadata"] = json!({"name": "db", "namespace": "ha"});
    let stops = told(&[object]);
    assert!(stops.starts_with("0ms stop ledger on db1 | ledger to nowhere None"), "{stops}");
}
