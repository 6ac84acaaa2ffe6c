//! What the core gets from the examples of the API description.

use super::*;
use holdfast_core::config::MonitorAction;
use serde_json::json;

pub(crate) fn sub_cluster(patch: impl FnOnce(&mut serde_json::Value)) -> api::SubCluster {
    let mut object = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "SubCluster",
        "metadata": {"name": "pg", "namespace": "ha", "generation": 3, "uid": "s1"},
        "spec": {
            "servers": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
            "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san"}},
            "disks": [{"name": "san", "device": "/dev/disk/by-id/wwn-0x51",
                "area": {"device": "/dev/disk/by-id/wwn-0x51-part1", "offset": 4096}}],
            "heartbeat": {"timeout": "1s", "paths": [
                {"name": "ic", "lan": {"role": "Interconnect", "endpoints": [
                    {"server": "a", "address": "10.0.0.1"}, {"server": "b", "address": "10.0.0.2"}]}},
                {"name": "pub", "lan": {"role": "Public", "port": 7000, "interface": "eth0", "endpoints": [
                    {"server": "a", "address": "2001:db8::1"}, {"server": "b", "address": "2001:db8::2"}]}},
                {"name": "area", "disk": {"disk": "san"}}]}
        }
    });
    patch(&mut object);
    serde_json::from_value(object).unwrap()
}

pub(crate) fn group(patch: impl FnOnce(&mut serde_json::Value)) -> api::FailoverGroup {
    let mut object = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup",
        "metadata": {"name": "pg", "namespace": "ha", "generation": 5, "uid": "g1"},
        "spec": {"subCluster": "pg", "recovery": {"restarts": 1}, "resources": [
            {"name": "data", "filesystem": {"disk": "san", "device": "/dev/disk/by-id/wwn-0x51-part2",
                "mountPoint": "/srv/pg", "type": "ext4"}},
            {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}},
            {"name": "postgres", "process": {"command": ["/usr/lib/postgresql/15/bin/postgres", "-D", "/srv/pg/data"]},
                "recovery": {"restarts": 4}}]}
    });
    patch(&mut object);
    serde_json::from_value(object).unwrap()
}

#[test]
fn timing_is_that_of_the_api_and_a_watchdog_lengthens_the_wait() {
    let config = cluster_config(&sub_cluster(|_| {}), None).unwrap();
    assert_eq!(
        (config.generation, config.timeout, config.interval),
        (3, Duration::from_secs(1), Duration::from_millis(100))
    );
    assert_eq!((config.lock, config.watchdog, config.reset), (Some(LockKind::Disk), false, config.stall));
    let with = cluster_config(&sub_cluster(|_| {}), Some(Duration::from_secs(2))).unwrap();
    assert_eq!((with.watchdog, with.reset), (true, Duration::from_secs(4)));
    assert!(with.takeover_wait >= Duration::from_secs(4) + with.lease);
    let disabled = sub_cluster(|o| o["spec"]["watchdog"] = json!({"mode": "Disabled"}));
    assert!(!cluster_config(&disabled, Some(Duration::from_secs(2))).unwrap().watchdog);
    let required = sub_cluster(|o| o["spec"]["watchdog"] = json!({"mode": "Required"}));
    let error = cluster_config(&required, None).unwrap_err();
    assert!(error.contains("Required") && error.contains("/dev/watchdog"), "{error}");
}

#[test]
fn wiring_names_every_path_with_both_ends() {
    let wiring = wiring(&sub_cluster(|_| {}), &"a".into()).unwrap();
    let names: Vec<_> = wiring.lans.iter().map(|lan| (lan.name.0.as_str(), lan.port, lan.endpoints.len())).collect();
    assert_eq!(names, [("ic", 7788, 2), ("pub", 7000, 2)]);
    let disk = &wiring.disks[0];
    assert_eq!((disk.offset, disk.lock.is_some(), disk.path.as_ref().unwrap().0.as_str()), (4096, true, "area"));
    assert_eq!(disk.slots[&ServerName("b".into())], 2);
}

#[test]
fn a_group_becomes_its_resources_in_order_with_their_own_rules() {
    let config = group_config(&group(|_| {}), &sub_cluster(|_| {})).unwrap();
    assert!(config.online && config.auto_start && config.shared_data);
    assert_eq!(config.policy, ["a".into(), "b".into()]);
    let of = |name: &str| &config.resources[name];
    // The process lives in the file system; the address only comes later.
    assert_eq!(of("postgres").after, ["data".into()].into());
    assert_eq!(of("postgres").requires, ["data".into()].into());
    assert!(of("addr").after.contains("postgres") && of("addr").requires.is_empty());
    assert_eq!((of("postgres").recovery.restarts, of("data").recovery.restarts), (4, 1));
    assert_eq!(of("postgres").in_place, None);
    let own = |o: &mut serde_json::Value| o["spec"]["resources"][2]["process"]["restart"] = json!({"backoff": "2s"});
    let in_place = group_config(&group(own), &sub_cluster(|_| {})).unwrap().resources["postgres"].in_place.clone();
    let defaults = InPlace { limit: 3, window: Duration::from_secs(60), backoff: Duration::from_secs(2) };
    assert_eq!(in_place, Some(defaults));
}

#[test]
fn only_what_needs_a_restart_changes_the_digest() {
    let digest = |patch: &dyn Fn(&mut serde_json::Value)| {
        group_config(&group(|o| patch(o)), &sub_cluster(|_| {})).unwrap().digest
    };
    let plain = digest(&|_| {});
    assert_eq!(plain, digest(&|o| o["spec"]["resources"][0]["timeouts"] = json!({"start": "5s"})));
    assert_eq!(plain, digest(&|o| o["spec"]["placement"] = json!({"servers": ["b"]})));
    assert_eq!(plain, digest(&|o| o["spec"]["resources"][2]["process"]["restart"] = json!({"limit": 9})));
    assert_ne!(plain, digest(&|o| o["spec"]["resources"][0]["filesystem"]["options"] = json!(["noatime"])));
}

#[test]
fn monitors_act_within_the_limits_of_the_group_and_need_no_restart() {
    let with = |o: &mut serde_json::Value| {
        o["spec"]["recovery"] = json!({"maxFailovers": 7, "then": "Report"});
        o["spec"]["monitors"] = json!([
            {"name": "a", "tcp": {"address": "192.0.2.10:1"}, "action": "Restart", "resource": "postgres"},
            {"name": "b", "tcp": {"address": "192.0.2.10:1"}, "action": "Failover", "interval": "2s", "threshold": 5},
            {"name": "c", "tcp": {"address": "192.0.2.10:1"}, "action": "Stop"},
            {"name": "d", "tcp": {"address": "192.0.2.10:1"}, "action": "Report"},
            {"name": "e", "tcp": {"address": "192.0.2.10:1"}, "action": "ServerDown", "scope": "Everywhere"}]);
    };
    let config = group_config(&group(with), &sub_cluster(|_| {})).unwrap();
    let fail = |name: &str| match &config.monitors[name].action {
        MonitorAction::Fail(recovery) => (recovery.then, recovery.max_failovers),
        other => panic!("{other:?}"),
    };
    assert_eq!(config.monitors["a"].action, MonitorAction::Restart("postgres".into()));
    assert_eq!((fail("b"), fail("c")), ((Then::Failover, 7), (Then::Stop, 7)));
    assert_eq!(config.monitors["d"].action, MonitorAction::Report);
    assert_eq!((config.monitors.len(), config.everywhere.len()), (4, 1));
    assert!(
        matches!(&config.everywhere["e"].action, MonitorAction::ServerDown(Some(limits)) if limits.max_failovers == 7)
    );
    let monitors = json!([{"name": "m", "link": {"path": "pub"}, "action": "FailoverAll", "unlessAllFail": false}]);
    let servers = cluster_config(&sub_cluster(|o| o["spec"]["monitors"] = monitors), None).unwrap().monitors;
    assert_eq!((&servers["m"].action, servers["m"].unless_all_fail), (&MonitorAction::FailAll(None), false));
    assert_eq!((config.monitors["b"].interval, config.monitors["b"].threshold), (Duration::from_secs(2), 5));
    assert_eq!((config.monitors["c"].timeout, config.monitors["c"].threshold), (Duration::from_secs(5), 3));
    let without = group_config(&group(|o| o["spec"]["recovery"] = json!({})), &sub_cluster(|_| {})).unwrap();
    assert_eq!(config.digest, without.digest);
}

#[test]
fn only_an_operations_target_reaches_the_core() {
    let target = |target: serde_json::Value| {
        group_config(&group(|o| o["status"] = json!({"target": target})), &sub_cluster(|_| {})).unwrap().target
    };
    assert_eq!(target(json!({"server": "b", "epoch": 4, "revision": 7})), None);
    let moved = target(json!({"server": "b", "epoch": 4, "revision": 7, "operation": "move-1"})).unwrap();
    assert_eq!((moved.server, moved.computed_from, moved.stop), (Some("b".into()), (4, 7), Some(false)));
    let stop = target(json!({"state": "Offline", "epoch": 4, "operation": "stop-1"})).unwrap();
    assert_eq!((stop.server, stop.computed_from, stop.stop), (None, (4, 0), Some(true)));
}

#[test]
fn a_server_that_the_sub_cluster_does_not_have_says_so() {
    let specs = Specs { sub_cluster: Some(Arc::new(sub_cluster(|_| {}))), ..Specs::default() };
    let error = adoption(&specs, &"db1".into(), None, &[], Path::new("/c")).unwrap_err();
    assert!(error.contains("called db1") && error.contains("a, b"), "{error}");
}
