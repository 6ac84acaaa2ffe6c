//! What is read at three in the morning, as text.

use serde_json::{Value, json};

use super::{Subject, group, server, statement, subject};

fn sub(members: Value, resolution: Value) -> holdfast_api::v1::SubCluster {
    let mut status = json!({"epoch": 17, "phase": "Running", "members": members});
    if resolution != Value::Null {
        status["lastResolution"] = resolution;
    }
    serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "SubCluster", "metadata": {"name": "shop", "namespace": "ha"},
        "spec": {
            "servers": [{"name": "alder", "id": 1}, {"name": "birch", "id": 2}],
            "heartbeat": {"timeout": "1s", "paths": [{"name": "ic", "lan": {"role": "Interconnect", "endpoints": [
                {"server": "alder", "address": "10.0.0.1"}, {"server": "birch", "address": "10.0.0.2"}]}}]},
            "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san1"}},
            "disks": [{"name": "san1", "device": "/dev/disk/by-id/wwn-1"}],
        },
        "status": status,
    }))
    .expect("a sub-cluster")
}

fn web(state: &str, status: Value) -> holdfast_api::v1::FailoverGroup {
    serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "web", "namespace": "ha"},
        "spec": {"subCluster": "shop", "state": state, "placement": {"servers": ["alder", "birch"]},
            "resources": [{"name": "app", "process": {"command": ["/bin/true"]}}]},
        "status": status,
    }))
    .expect("a group")
}

fn told(group: &holdfast_api::v1::FailoverGroup, sub: &holdfast_api::v1::SubCluster) -> String {
    statement::text("group ha/web", &group::why(group, sub))
}

#[test]
fn after_a_takeover_it_tells_what_was_lost_how_that_is_known_how_long_it_took_and_how_to_bring_it_back() {
    let shop = sub(
        json!([
            {"name": "alder", "state": "Detached", "message": "it came back after a failure and has to be reinstated (or set returnPolicy: Automatic)"},
            {"name": "birch", "state": "Active"},
        ]),
        json!({"epoch": 17, "cause": "PeerSilent", "paths": ["ic"], "verdict": "ServerLost", "arbiter": "LockDisk",
            "evidence": "Time", "detection": "1004ms", "resolution": "12ms", "wait": "280ms", "time": "2026-03-02T00:59:56Z"}),
    );
    let status = json!({
        "phase": "Online", "server": "birch", "since": "2026-03-02T01:00:01Z",
        "decision": {"server": "birch", "rule": "Stay", "candidates": [
            {"server": "alder", "verdict": "Excluded", "reasons": ["Detached"]}]},
        "transitions": [
            {"id": 31, "type": "Failover", "from": "alder", "to": "birch", "cause": "ServerLost", "evidence": "Time",
             "epoch": 17, "time": "2026-03-02T00:59:53Z", "predicted": "1300ms", "actual": "1340ms",
             "message": "alder silent on ic for 1004 ms",
             "chart": [{"step": "Detect", "at": "0ms", "took": "1004ms"}, {"step": "start app", "at": "1296ms", "took": "44ms"}]}],
    });
    assert_eq!(
        told(&web("Online", status), &shop),
        "\
group ha/web
now
  Online on birch since 2026-03-02T01:00:01Z
why
  it runs on birch and may; what runs well is not moved by itself
why not elsewhere
  alder: it is out of service: it came back after a failure and has to be reinstated (or set returnPolicy: Automatic)
what happened last
  Failover from alder to birch at 2026-03-02T00:59:53Z because alder was lost (alder silent on ic for 1004 ms); it could start because the takeover wait had passed: without a majority alder must have stopped everything before; it was away for 1340ms, 1300ms were expected
    Detect      at 0ms      took 1004ms
    start app   at 1296ms   took 44ms
  the sub-cluster decided at 2026-03-02T00:59:56Z about a server that was silent on ic: it was left out of the view; the tie was broken by LockDisk (detection 1004ms, decision 12ms, wait for evidence 280ms)
what would change it
  alder may run it again once it is reinstated
    holdfast reinstate shop.alder
"
    );
}

#[test]
fn a_group_that_stands_still_names_every_hold_and_the_command_that_releases_it() {
    let shop = sub(json!([{"name": "alder", "state": "Active"}, {"name": "birch", "state": "Active"}]), Value::Null);
    let status = json!({
        "phase": "Offline",
        "holds": [
            {"name": "failurelimit", "type": "FailureLimit", "by": "holdfast", "since": "2026-03-02T00:10:00Z", "message": "it failed too often"},
            {"name": "stop-x7", "type": "Stopped", "by": "anna", "message": "index rebuild"}],
        "failures": [{"server": "alder", "resource": "app", "count": 3, "lastTime": "2026-03-02T00:09:00Z", "message": "exit 3"}],
        "decision": {"server": "", "rule": "Held", "candidates": [
            {"server": "alder", "verdict": "Excluded", "reasons": ["Failed"]},
            {"server": "birch", "verdict": "Eligible", "reasons": ["LowerPreference"]}]},
    });
    assert_eq!(
        told(&web("Online", status), &shop),
        "\
group ha/web
now
  Offline
why
  held by FailureLimit since 2026-03-02T00:10:00Z, placed by holdfast: it failed too often
  held by Stopped, placed by anna: index rebuild
why not elsewhere
  alder: it failed there (app 3 times, last at 2026-03-02T00:09:00Z: exit 3)
  birch: it could run it, but another one comes first
what would change it
  FailureLimit: remove the cause of the failures, then
    holdfast clear-failures web
  Stopped: a start releases it
    holdfast start web
"
    );
}

#[test]
fn who_may_still_run_it_is_named_with_what_an_operator_may_confirm_and_only_then() {
    let shop = sub(
        json!([{"name": "alder", "state": "Lost", "unproven": true}, {"name": "birch", "state": "Active"}]),
        Value::Null,
    );
    let status = json!({"phase": "Unknown", "server": "alder",
        "decision": {"server": "", "rule": "WaitForEvidence", "candidates": [
            {"server": "birch", "verdict": "Excluded", "reasons": ["NoEvidence"]}]}});
    let text = told(&web("Online", status), &shop);
    assert!(text.contains("a lost server may still run it; it starts nowhere before"), "{text}");
    assert!(text.contains("  birch: a lost server may still run it\n"), "{text}");
    let command = "    holdfast confirm-stopped shop.alder --confirm shop.alder --reason";
    assert_eq!(text.matches(command).count(), 1, "{text}");
    assert!(text.contains("if it is off, and only then"), "{text}");
}

#[test]
fn a_group_that_did_not_go_back_says_why_and_how_to_move_it() {
    let shop = sub(json!([{"name": "alder", "state": "Active"}, {"name": "birch", "state": "Active"}]), Value::Null);
    let status = json!({"phase": "Online", "server": "birch",
        "decision": {"server": "birch", "rule": "Stay", "candidates": [
            {"server": "alder", "verdict": "Eligible", "reasons": ["LowerPreference"]}]}});
    let text = told(&web("Online", status), &shop);
    assert!(text.contains("it does not go back to alder by itself: placement.failback.mode is Manual"), "{text}");
    assert!(text.contains("have it on alder\n    holdfast move web --to alder\n"), "{text}");
}

#[test]
fn a_server_tells_what_keeps_it_out_and_what_brings_it_back() {
    let shop = sub(
        json!([{"name": "alder", "state": "Detached", "detached": true, "message": "detached by anna; it has to be reinstated"}]),
        Value::Null,
    );
    let alder = serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Server", "metadata": {"name": "shop.alder", "namespace": "ha"},
        "spec": {"subCluster": "shop", "server": "alder", "id": 1, "state": "Active"},
        "status": {"state": "Detached", "holds": [{"name": "detached", "type": "Detached", "by": "anna"}],
            "paths": [{"path": "ic", "peer": "birch", "state": "Down", "message": "nothing heard"}]},
    }))
    .expect("a server");
    assert_eq!(
        statement::text("server ha/shop.alder", &server::why(&alder, &shop)),
        "\
server ha/shop.alder
now
  Detached
why
  detached by anna; it has to be reinstated
  held by Detached, placed by anna
  its path ic to birch is Down: nothing heard
what would change it
  alder may run it again once it is reinstated
    holdfast reinstate shop.alder
"
    );
}

#[test]
fn what_is_asked_about_is_a_group_or_a_server() {
    assert_eq!(subject("fog/web").expect("a group"), Subject::Group("web".into()));
    assert_eq!(subject("server/shop.alder").expect("a server"), Subject::Server("shop.alder".into()));
    for wrong in ["web", "group/", "pod/web"] {
        let message = subject(wrong).expect_err(wrong).to_string();
        assert!(message.contains(wrong) && message.contains("hint: write group/NAME"), "{message}");
    }
}
