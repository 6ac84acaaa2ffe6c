//! Server-side apply and `managedFields`: who owns what, and what happens when two want the same.

mod support;

use axum::body::Body;
use serde_json::{Value, json};
use support::{Reply, World, sub_cluster};

const SUBS: &str = "/apis/holdfast.dev/v1/namespaces/default/subclusters";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn apply(world: &World, path: &str, manager: &str, body: Value) -> Reply {
    let join = if path.contains('?') { '&' } else { '?' };
    let request = http::Request::patch(format!("{path}{join}fieldManager={manager}"))
        .header("content-type", "application/apply-patch+yaml")
        .body(Body::from(body.to_string()))
        .expect("a request");
    world.request(Some(World::admin()), request).await
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn owned(object: &Value, manager: &str, operation: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let found = entries.into_iter().find(|e| e["manager"] == manager && e["operation"] == operation);
    found.map(|entry| entry["fieldsV1"].clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_creates_merges_takes_back_and_leaves_others_alone() {
    let world = World::new().await;
    let item = format!("{MAPS}/m");
    let made = apply(&world, &item, "git", map(json!({"a": "1", "b": "2"}))).await.expect(201);
    assert_eq!(owned(&made, "git", "Apply"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let same = apply(&world, &item, "git", map(json!({"a": "1", "b": "2"}))).await.expect(200);
    assert_eq!(same, made, "the same again changes nothing, not even a time");

    let other = apply(&world, &item, "ops", map(json!({"b": "2", "c": "3"}))).await.expect(200);
    assert_eq!(other["data"], json!({"a": "1", "b": "2", "c": "3"}), "the same value is shared");
    let less = apply(&world, &item, "git", map(json!({"a": "1"}))).await.expect(200);
    assert_eq!(less["data"], json!({"a": "1", "b": "2", "c": "3"}), "ops still wants b");
    let less = apply(&world, &item, "ops", map(json!({"c": "3"}))).await.expect(200);
    assert_eq!(less["data"], json!({"a": "1", "c": "3"}), "nobody wants b any longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disputed_field_is_a_conflict_until_it_is_forced() {
    let world = World::new().await;
    let item = format!("{MAPS}/m");
    apply(&world, &item, "git", map(json!({"a": "1", "b": "1"}))).await.expect(201);
    let refused = apply(&world, &item, "ops", map(json!({"a": "2"}))).await.expect(409);
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"git\": .data.a");
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"git\"", "field": ".data.a"}])
    );
    let refused = apply(&world, &item, "ops", map(json!({"a": "2", "b": "2"}))).await.expect(409);
    assert_eq!(refused["message"], "Apply failed with 2 conflicts: conflicts with \"git\":\n- .data.a\n- .data.b");
    let forced = apply(&world, &format!("{item}?force=true"), "ops", map(json!({"a": "2"}))).await.expect(200);
    assert_eq!(forced["data"], json!({"a": "2", "b": "1"}));
    assert_eq!(owned(&forced, "git", "Apply"), json!({"f:data": {"f:b": {}}}));

    // An ordinary write takes over what it changes, from an apply as well.
    let patched =
        world.call("PATCH", &format!("{item}?fieldManager=hand"), json!({"data": {"b": "9"}})).await.expect(200);
    assert_eq!(owned(&patched, "hand", "Update"), json!({"f:data": {"f:b": {}}}));
    assert_eq!(owned(&patched, "git", "Apply"), Value::Null, "an entry without fields goes");
    let refused = apply(&world, &item, "git", map(json!({"b": "1"}))).await.expect(409);
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"hand\" using v1: .data.b");
    world.call("PATCH", &format!("{item}?force=true"), json!({"data": {"b": "9"}})).await.expect(422);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_with_keys_are_merged_by_item_and_status_is_apart() {
    let world = World::new().await;
    let item = format!("{SUBS}/db");
    let made = apply(&world, &item, "git", sub_cluster("db")).await.expect(201);
    assert_eq!(made["spec"]["state"], "Running");
    assert_eq!(owned(&made, "git", "Apply")["f:spec"].get("f:state"), None, "a default is not the manager's");
    let site = json!({"apiVersion": "holdfast.dev/v1", "kind": "SubCluster", "metadata": {"name": "db"},
        "spec": {"servers": [{"name": "db2", "site": "hall-b"}]}});
    // `site` has a default that nobody owns, so this is no conflict.
    let merged = apply(&world, &item, "ops", site).await.expect(200);
    let servers = merged["spec"]["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), 2);
    let db2 = servers.iter().find(|server| server["name"] == "db2").expect("db2");
    assert_eq!((db2["site"].as_str(), db2["id"].as_i64()), (Some("hall-b"), Some(2)));
    assert_eq!(
        owned(&merged, "ops", "Apply"),
        json!({"f:spec": {"f:servers": {"k:{\"name\":\"db2\"}": {".": {}, "f:name": {}, "f:site": {}}}}})
    );
    let status = json!({"apiVersion": "holdfast.dev/v1", "kind": "SubCluster", "spec": {"state": "Stopped"}, "status": {
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Converged", "message": "", "lastTransitionTime": "2026-03-02T01:00:00Z"}]}});
    let reported = apply(&world, &format!("{item}/status"), "controller", status.clone()).await.expect(200);
    assert_eq!(reported["spec"]["state"], "Running");
    let entry = &owned(&reported, "controller", "Apply");
    assert!(
        entry["f:status"]["f:conditions"].get("k:{\"type\":\"Accepted\"}").is_some() && entry.get("f:spec").is_none(),
        "{entry}"
    );
    let mut other = status;
    other["status"]["conditions"][0]["type"] = json!("Ready");
    let both = apply(&world, &format!("{item}/status"), "agent", other).await.expect(200);
    assert_eq!(both["status"]["conditions"].as_array().expect("conditions").len(), 2);
    apply(
        &world,
        &format!("{SUBS}/none/status"),
        "agent",
        json!({"apiVersion": "holdfast.dev/v1", "kind": "SubCluster"}),
    )
    .await
    .expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_applies_are_refused_with_the_place() {
    let world = World::new().await;
    let item = format!("{SUBS}/db");
    let mut unknown = sub_cluster("db");
    unknown["spec"]["heartbeet"] = json!(1);
    let refused = apply(&world, &item, "git", unknown).await.expect(400);
    assert_eq!(
        refused["message"],
        "failed to create typed patch object (default/db; holdfast.dev/v1, Kind=SubCluster): .spec.heartbeet: field not \
         declared in schema"
    );
    let mut twice = sub_cluster("db");
    twice["spec"]["servers"][1]["name"] = json!("db1");
    apply(&world, &item, "git", twice).await.expect(400);
    apply(&world, &item, "", sub_cluster("db")).await.expect(422);
    let mut managed = sub_cluster("db");
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    apply(&world, &item, "git", managed).await.expect(400);
    apply(&world, &format!("{SUBS}/other"), "git", sub_cluster("db")).await.expect(400);
    assert_eq!(world.get(SUBS).await.expect(200)["items"], json!([]));
    let dry = apply(&world, &format!("{item}?dryRun=All"), "git", sub_cluster("db")).await.expect(201);
    assert_eq!(dry["metadata"]["name"], "db");
    world.get(&item).await.expect(404);
}

/// `--show-managed-fields` and the take-over of client-side ownership are newer than 1.20; see the test script.
mod kubectl_1_28 {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_applies_on_the_server_and_takes_over_from_itself() {
        let world = World::new().await;
        let file = format!("{}/../../examples/two-servers/cluster.yaml", env!("CARGO_MANIFEST_DIR"));
        world.kubectl(&["apply", "-f", &file], "").await;
        let first = world.kubectl(&["apply", "--server-side", "-f", &file], "").await;
        assert!(first.contains("subcluster.holdfast.dev/shop serverside-applied"), "{first}");
        let read = ["get", "hsub", "shop", "-n", "ha", "-o", "jsonpath={.metadata.resourceVersion}"];
        let before = world.kubectl(&read, "").await;
        world.kubectl(&["apply", "--server-side", "-f", &file], "").await;
        assert_eq!(world.kubectl(&read, "").await, before);
        let yaml = world.kubectl(&["get", "hsub", "shop", "-n", "ha", "-o", "yaml", "--show-managed-fields"], "").await;
        assert!(yaml.contains("manager: kubectl\n") && yaml.contains("operation: Apply"), "{yaml}");
        assert!(
            !yaml.contains("manager: kubectl-client-side-apply"),
            "the ownership of the client-side apply went over: {yaml}"
        );
        assert_eq!(world.kubectl(&["diff", "--server-side", "-f", &file], "").await, "");
        let conflict = std::fs::read_to_string(&file).expect("the example").replace("timeout: 1s", "timeout: 2s");
        let refused =
            world.kubectl_fails(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &conflict).await;
        assert!(refused.contains("conflict with \"kubectl\": .spec.heartbeat.timeout"), "{refused}");
    }
}
