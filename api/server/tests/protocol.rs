//! The protocol by single requests: what clients rely on beyond what kubectl shows.

mod support;

use holdfast_apiserver::Identity;
use serde_json::{Value, json};
use support::{World, group, sub_cluster, until};

const SUBS: &str = "/apis/holdfast.dev/v1/namespaces/default/subclusters";
const GROUPS: &str = "/apis/holdfast.dev/v1/namespaces/default/failovergroups";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn rv(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("a text").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_lives_from_create_to_delete() {
    let world = World::new().await;
    let created = world.call("POST", SUBS, sub_cluster("db")).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["spec"]["state"], "Running", "defaults are filled in");
    assert_eq!(world.call("POST", SUBS, sub_cluster("db")).await.expect(409)["reason"], "AlreadyExists");

    let item = format!("{SUBS}/db");
    let read = world.get(&item).await.expect(200);
    assert_eq!(read, created);

    // The same again changes nothing, not even the resourceVersion.
    let same = world.call("PUT", &item, read.clone()).await.expect(200);
    assert_eq!(rv(&same), rv(&read));

    let labelled = world.call("PATCH", &item, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 1, "metadata does not count as a new generation");
    assert!(rv(&labelled) > rv(&read));

    let stale = world.call("PUT", &item, read.clone()).await.expect(409);
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on subclusters.holdfast.dev \"db\": the object has been modified; please apply \
         your changes to the latest version and try again"
    );

    let stopped = world
        .call("PATCH", &item, json!({"spec": {"state": "Stopped"}, "status": {"phase": "Formed"}}))
        .await
        .expect(200);
    assert_eq!(stopped["metadata"]["generation"], 2);
    assert!(stopped.get("status").is_none(), "the main endpoint leaves status alone");

    let gone = world.call("DELETE", &item, Value::Null).await.expect(200);
    assert_eq!((gone["kind"].as_str(), gone["status"].as_str()), (Some("Status"), Some("Success")));
    assert_eq!(gone["details"]["uid"], created["metadata"]["uid"]);
    let missing = world.get(&item).await.expect(404);
    assert_eq!(missing["message"], "subclusters.holdfast.dev \"db\" not found");
    assert_eq!(missing["details"], json!({"name": "db", "group": "holdfast.dev", "kind": "subclusters"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_objects_are_refused_with_every_field_and_nothing_is_stored() {
    let world = World::new().await;
    let mut bad = sub_cluster("db");
    bad["spec"]["servers"] = json!([{"name": "db1", "id": 1}]);
    bad["spec"]["state"] = json!("Sleeping");
    bad["metadata"]["labels"] = json!({"a b": "c"});
    let status = world.call("POST", SUBS, bad).await.expect(422);
    assert_eq!((status["reason"].as_str(), status["details"]["kind"].as_str()), (Some("Invalid"), Some("SubCluster")));
    let fields: Vec<&str> =
        status["details"]["causes"].as_array().expect("causes").iter().filter_map(|c| c["field"].as_str()).collect();
    for field in ["spec.servers", "spec.state", "metadata.labels"] {
        assert!(fields.contains(&field), "{field} is missing in {fields:?}: {}", status["message"]);
    }

    let mut unknown = sub_cluster("db");
    unknown["spec"]["heartbeet"] = json!(1);
    unknown["metadata"]["lables"] = json!({});
    let strict = world.call("POST", &format!("{SUBS}?fieldValidation=Strict"), unknown.clone()).await.expect(400);
    let message = strict["message"].as_str().expect("a message");
    for part in ["strict decoding error: ", "unknown field \"spec.heartbeet\"", "unknown field \"metadata.lables\""] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(world.get(SUBS).await.expect(200)["items"], json!([]), "nothing was stored");

    let warned = world.call("POST", SUBS, unknown).await;
    let warnings: Vec<_> =
        warned.headers.get_all("warning").iter().map(|w| w.to_str().expect("text").to_owned()).collect();
    assert!(warnings.contains(&"299 - \"unknown field \\\"spec.heartbeet\\\"\"".to_owned()), "{warnings:?}");
    assert!(warned.expect(201)["spec"].get("heartbeet").is_none());

    let twice = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"a":"1","a":"2"}}"#;
    let request = http::Request::post(format!("{MAPS}?fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(twice.into())
        .expect("a request");
    let reply = world.request(Some(World::admin()), request).await.expect(400);
    assert!(reply["message"].as_str().expect("a message").contains("duplicate field \"data.a\""), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_get_the_right_status() {
    let world = World::new().await;
    world.call("POST", MAPS, map("m")).await.expect(201);
    for (method, path, body, code, reason) in [
        ("GET", "/apis/nothing.dev/v1/things", Value::Null, 404, "NotFound"),
        ("GET", "/apis/holdfast.dev/v1/namespaces/default/things", Value::Null, 404, "NotFound"),
        ("PUT", MAPS, map("m"), 405, "MethodNotAllowed"),
        ("POST", "/api/v1/configmaps", map("n"), 405, "MethodNotAllowed"),
        ("POST", "/api/v1/namespaces/missing/configmaps", map("n"), 404, "NotFound"),
        ("POST", MAPS, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}), 400, "BadRequest"),
        ("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}), 422, "Invalid"),
        ("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "X"}}), 422, "Invalid"),
        (
            "POST",
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "other"}}),
            400,
            "BadRequest",
        ),
        ("PUT", "/api/v1/namespaces/default/configmaps/m", map("n"), 400, "BadRequest"),
        ("PUT", "/api/v1/namespaces/default/configmaps/none", map("none"), 404, "NotFound"),
        ("GET", "/api/v1/configmaps?labelSelector=a%20in%20b", Value::Null, 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?fieldSelector=spec.x=1", Value::Null, 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?continue=xyz", Value::Null, 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?resourceVersion=abc", Value::Null, 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?resourceVersion=99999999", Value::Null, 504, "Timeout"),
        // A watch does not wait for a version that no store of this history gave out: the client lists again (decision 0014).
        ("GET", "/api/v1/configmaps?watch=1&resourceVersion=99999999", Value::Null, 410, "Expired"),
        ("POST", &format!("{MAPS}?dryRun=Some"), map("n"), 422, "Invalid"),
        ("DELETE", "/api/v1/namespaces/default", Value::Null, 403, "Forbidden"),
    ] {
        let reply = world.call(method, path, body).await;
        assert_eq!(
            (reply.code, reply.body["reason"].as_str()),
            (code, Some(reason)),
            "{method} {path}: {}",
            reply.text
        );
        assert_eq!(reply.body["kind"], "Status");
    }
    let send = |kind: &'static str, accept: &'static str, body: String| {
        let request = http::Request::post(MAPS).header("content-type", kind).header("accept", accept);
        world.request(Some(World::admin()), request.body(body.into()).expect("a request"))
    };
    let unknown_type = send("application/cbor", "*/*", "x".into()).await.expect(415);
    assert!(unknown_type["message"].as_str().expect("text").contains("application/json, application/yaml"));
    send("application/json", "application/cbor", map("n").to_string()).await.expect(406);
    send("application/json", "*/*", format!("\"{}\"", "x".repeat(4 << 20))).await.expect(413);
    send("application/yaml", "*/*", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\n".into()).await.expect(201);

    let anonymous = http::Request::get(MAPS).body(axum::body::Body::empty()).expect("a request");
    world.request(None, anonymous).await.expect(401);
    let token = http::Request::get(MAPS).header("authorization", "Bearer x").body(axum::body::Body::empty());
    world.request(Some(World::admin()), token.expect("a request")).await.expect(401);
    let health = http::Request::get("/readyz?verbose").body(axum::body::Body::empty()).expect("a request");
    let health = world.request(None, health).await;
    assert!(health.code == 200 && health.text.ends_with("readyz check passed\n"), "{}", health.text);
    assert_eq!(world.get("/version").await.expect(200)["minor"], "32");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_every_change_once_in_order_and_goes_on_where_it_ended() {
    let world = World::new().await;
    world.call("POST", MAPS, map("first")).await.expect(201);
    let list = world.get(MAPS).await.expect(200);
    let mut watch = world.watch(&format!("{MAPS}?watch=true&resourceVersion={}", rv(&list))).await;
    let mut selected = world.watch(&format!("{MAPS}?watch=true&labelSelector=color%3Dred")).await;
    let mut fresh = world.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dfirst")).await;
    assert_eq!(fresh.brief().await, "ADDED first");

    let item = format!("{MAPS}/first");
    world.call("PATCH", &item, json!({"metadata": {"labels": {"color": "red"}}})).await.expect(200);
    world.call("PATCH", &item, json!({"metadata": {"labels": {"color": "blue"}}})).await.expect(200);
    world.call("POST", MAPS, map("second")).await.expect(201);
    world.call("DELETE", &item, Value::Null).await.expect(200);

    let mut last = rv(&list);
    for expected in ["MODIFIED", "MODIFIED", "ADDED", "DELETED"] {
        let event = watch.next().await.expect("an event");
        assert_eq!(event["type"], expected);
        assert!(rv(&event["object"]) > last, "revisions grow strictly, also in deletions");
        last = rv(&event["object"]);
    }
    assert_eq!(selected.brief().await, "ADDED first");
    assert_eq!(selected.brief().await, "DELETED first");
    assert_eq!(fresh.brief().await, "MODIFIED first");

    // The stream ends by itself, a bookmark before; and everything after the old list is there for a second watch.
    let mut again = world
        .watch(&format!("{MAPS}?watch=1&resourceVersion={}&timeoutSeconds=1&allowWatchBookmarks=true", rv(&list)))
        .await;
    for expected in ["MODIFIED first", "MODIFIED first", "ADDED second", "DELETED first"] {
        assert_eq!(again.brief().await, expected);
    }
    let bookmark = again.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(rv(&bookmark["object"]) >= last);
    assert!(again.next().await.is_none(), "the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streaming_list_announces_the_end_of_what_was_there() {
    let world = World::new().await;
    world.call("POST", MAPS, map("a")).await.expect(201);
    world.call("POST", MAPS, map("b")).await.expect(201);
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = world.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    assert_eq!(watch.brief().await, "ADDED b");
    let end = watch.next().await.expect("a bookmark");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    world.call("POST", MAPS, map("c")).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED c");
    world.call("GET", &format!("{MAPS}?watch=true&sendInitialEvents=true"), Value::Null).await.expect(422);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_the_state_of_the_first_page() {
    let world = World::new().await;
    for at in 0..7 {
        world.call("POST", MAPS, map(&format!("m{at}"))).await.expect(201);
    }
    let first = world.get("/api/v1/configmaps?limit=3").await.expect(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    world.call("DELETE", &format!("{MAPS}/m5"), Value::Null).await.expect(200);
    world.call("POST", MAPS, map("m35")).await.expect(201);
    let mut names: Vec<String> = Vec::new();
    let mut page = first.clone();
    loop {
        names.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|i| i["metadata"]["name"].as_str().expect("a name").into()),
        );
        assert_eq!(rv(&page), rv(&first));
        let Some(next) = page["metadata"]["continue"].as_str() else { break };
        page = world.get(&format!("/api/v1/configmaps?limit=3&continue={next}")).await.expect(200);
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);

    let token = first["metadata"]["continue"].as_str().expect("a token");
    world.store.compact(world.store.revision().await.expect("a revision")).await.expect("compacted");
    let expired = world.get(&format!("/api/v1/configmaps?limit=3&continue={token}")).await.expect(410);
    assert_eq!(expired["reason"], "Expired");
    let fresh = expired["metadata"]["continue"].as_str().expect("a token that works");
    let rest = world.get(&format!("/api/v1/configmaps?continue={fresh}")).await.expect(200);
    assert_eq!(rest["items"][0]["metadata"]["name"], "m3");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_spec_are_written_apart() {
    let world = World::new().await;
    world.call("POST", SUBS, sub_cluster("db")).await.expect(201);
    world.call("POST", GROUPS, group("ledger", "db")).await.expect(201);
    let status_path = format!("{GROUPS}/ledger/status");
    let mut object = world.get(&status_path).await.expect(200);
    object["status"] = json!({"clusterID": "6f0c1d9e-3b1f-4a0e-9b8e-8a5b2a7f1c11", "epoch": 17, "revision": 4, "phase": "Online", "server": "db1"});
    object["spec"]["state"] = json!("Offline");
    object["metadata"]["labels"] = json!({"ignored": "yes"});
    let written = world.call("PUT", &status_path, object.clone()).await.expect(200);
    assert_eq!(written["status"]["phase"], "Online");
    assert_eq!(written["spec"]["state"], "Online");
    assert!(written["metadata"].get("labels").is_none());
    assert_eq!(written["metadata"]["generation"], 1);

    world.call("PUT", &status_path, object).await.expect(409);
    let stale = world.call("PATCH", &status_path, json!({"status": {"epoch": 16, "revision": 9}})).await.expect(422);
    assert!(
        stale["message"].as_str().expect("text").contains("the report is older than the one that stands here"),
        "{stale}"
    );
    world.call("PATCH", &status_path, json!({"status": {"phase": "Dancing"}})).await.expect(422);
    world
        .call(
            "PATCH",
            &status_path,
            json!({"status": {"epoch": 18, "revision": 0, "phase": "Offline", "server": null}}),
        )
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_a_deleted_object_until_the_last_is_removed() {
    let world = World::new().await;
    let mut object = map("held");
    object["metadata"]["finalizers"] = json!(["holdfast.dev/a", "holdfast.dev/b"]);
    world.call("POST", MAPS, object).await.expect(201);
    let item = format!("{MAPS}/held");
    let marked = world.call("DELETE", &item, Value::Null).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = world.call("DELETE", &item, Value::Null).await.expect(200);
    assert_eq!(rv(&again), rv(&marked), "a second deletion changes nothing");
    let added = world
        .call("PATCH", &item, json!({"metadata": {"finalizers": ["holdfast.dev/a", "holdfast.dev/c"]}}))
        .await
        .expect(422);
    assert_eq!(added["details"]["causes"][0]["field"], "metadata.finalizers");
    world
        .call("PATCH", &item, json!({"metadata": {"deletionTimestamp": null, "finalizers": ["holdfast.dev/b"]}}))
        .await
        .expect(200);
    assert!(world.get(&item).await.expect(200)["metadata"]["deletionTimestamp"].is_string(), "the mark stays");
    let patch = json!([
        {"op": "test", "path": "/metadata/finalizers/0", "value": "holdfast.dev/b"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]);
    let request = http::Request::patch(&item).header("content-type", "application/json-patch+json");
    world.request(Some(World::admin()), request.body(patch.to_string().into()).expect("a request")).await.expect(200);
    world.get(&item).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_go_with_their_owners_in_the_demanded_order() {
    let world = World::new().await;
    let path = |name: &str| format!("{MAPS}/{name}");
    let child_of = async |name: &str, owner: &Value| {
        let mut child = map(name);
        child["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": true,
        }]);
        world.call("POST", MAPS, child).await.expect(201)
    };
    let gone = async |name: &str| {
        let path = path(name);
        until(&format!("{name} is gone"), || async { (world.get(&path).await.code == 404).then_some(()) }).await;
    };
    let owner = world.call("POST", MAPS, map("owner")).await.expect(201);
    child_of("child", &owner).await;
    world.call("DELETE", &path("owner"), Value::Null).await.expect(200);
    gone("child").await;

    let owner = world.call("POST", MAPS, map("owner")).await.expect(201);
    child_of("child", &owner).await;
    let answer = world.call("DELETE", &path("owner"), json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(answer["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    gone("owner").await;
    world.get(&path("child")).await.expect(404);

    let owner = world.call("POST", MAPS, map("owner")).await.expect(201);
    child_of("child", &owner).await;
    world.call("DELETE", &format!("{}?propagationPolicy=Orphan", path("owner")), Value::Null).await.expect(200);
    gone("owner").await;
    assert!(world.get(&path("child")).await.expect(200)["metadata"].get("ownerReferences").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_empties_itself_and_takes_nothing_new_meanwhile() {
    let world = World::new().await;
    world.namespace("ha").await;
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["holdfast.dev/a"]);
    world.call("POST", "/api/v1/namespaces/ha/configmaps", held).await.expect(201);
    world.call("POST", "/api/v1/namespaces/ha/configmaps", map("free")).await.expect(201);
    let marked = world.call("DELETE", "/api/v1/namespaces/ha", Value::Null).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    until("the free object is gone", || async {
        (world.get("/api/v1/namespaces/ha/configmaps/free").await.code == 404).then_some(())
    })
    .await;
    let refused = world.call("POST", "/api/v1/namespaces/ha/configmaps", map("late")).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    world
        .call("PATCH", "/api/v1/namespaces/ha/configmaps/held", json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    until("the namespace is gone", || async { (world.get("/api/v1/namespaces/ha").await.code == 404).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_production_is_not_deleted_by_accident() {
    let world = World::new().await;
    world.namespace("ha").await;
    let groups = "/apis/holdfast.dev/v1/namespaces/ha/failovergroups";
    let mut ledger = group("ledger", "db");
    ledger["metadata"]["namespace"] = json!("ha");
    world.call("POST", groups, ledger).await.expect(201);
    let item = format!("{groups}/ledger");
    let online = json!({"status": {"clusterID": "6f0c1d9e-3b1f-4a0e-9b8e-8a5b2a7f1c11", "epoch": 1, "revision": 1, "phase": "Online", "server": "db1"}});
    world.call("PATCH", &format!("{item}/status"), online).await.expect(200);
    for path in [item.as_str(), groups, "/api/v1/namespaces/ha"] {
        let refused = world.call("DELETE", path, Value::Null).await.expect(403);
        let message = refused["message"].as_str().expect("text");
        assert!(
            message.contains("is forbidden") && message.contains("holdfast.dev/confirm-delete: ledger"),
            "{message}"
        );
    }
    let confirm = json!({"metadata": {"annotations": {"holdfast.dev/confirm-delete": "ledger"}}});
    world.call("PATCH", &item, confirm).await.expect(200);
    world.call("DELETE", &item, Value::Null).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let world = World::new().await;
    let dry = world.call("POST", &format!("{SUBS}?dryRun=All"), sub_cluster("db")).await.expect(201);
    assert!(dry["metadata"]["uid"].is_string());
    world.get(&format!("{SUBS}/db")).await.expect(404);
    let real = world.call("POST", SUBS, sub_cluster("db")).await.expect(201);
    world.call("POST", &format!("{SUBS}?dryRun=All"), sub_cluster("db")).await.expect(409);
    let patched =
        world.call("PATCH", &format!("{SUBS}/db?dryRun=All"), json!({"spec": {"state": "Stopped"}})).await.expect(200);
    assert_eq!(
        (patched["spec"]["state"].as_str(), patched["metadata"]["generation"].as_i64()),
        (Some("Stopped"), Some(2))
    );
    world.call("DELETE", &format!("{SUBS}/db"), json!({"kind": "DeleteOptions", "dryRun": ["All"]})).await.expect(200);
    assert_eq!(world.get(&format!("{SUBS}/db")).await.expect(200), real);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_one_object_in_two_spellings() {
    let world = World::new().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "db1-", "namespace": "default"},
        "eventTime": "2026-03-02T01:00:00.123456Z", "reportingController": "holdfast", "reportingInstance": "db1",
        "action": "Watch", "reason": "PathDown", "note": "ic is silent", "type": "Warning",
        "regarding": {"apiVersion": "holdfast.dev/v1", "kind": "Server", "name": "db.db1", "namespace": "default"},
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let created = world.call("POST", path, event.clone()).await.expect(201);
    assert_eq!(created["eventTime"], event["eventTime"], "microseconds are kept");
    let core = "/api/v1/namespaces/default/events";
    let found =
        world.get(&format!("{core}?fieldSelector=involvedObject.name%3Ddb.db1,reason%3DPathDown")).await.expect(200);
    assert_eq!(found["items"][0]["message"], "ic is silent");
    assert_eq!(found["items"][0]["apiVersion"], "v1");
    let item = format!("{core}/{}", created["metadata"]["name"].as_str().expect("a name"));
    world.call("PATCH", &item, json!({"count": 3, "message": "ic is still silent"})).await.expect(200);
    let seen = world.get(&format!("{path}?fieldSelector=regarding.kind%3DServer")).await.expect(200);
    assert_eq!(
        (seen["items"][0]["note"].as_str(), seen["items"][0]["deprecatedCount"].as_i64()),
        (Some("ic is still silent"), Some(3))
    );
    let mut incomplete = event;
    incomplete.as_object_mut().expect("an object").remove("reportingController");
    world.call("POST", path, incomplete).await.expect(422);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reads_its_namespace_and_writes_its_own_status_only() {
    let world = World::new().await;
    world.call("POST", SUBS, sub_cluster("db")).await.expect(201);
    world.call("POST", GROUPS, group("ledger", "db")).await.expect(201);
    world.call("POST", GROUPS, group("shop", "web")).await.expect(201);
    world.namespace("other").await;
    for name in ["db-heartbeat", "other"] {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"1": "key"}});
        let secret = world.call("POST", "/api/v1/namespaces/default/secrets", secret).await.expect(201);
        assert_eq!((secret["data"]["1"].as_str(), secret.get("stringData")), (Some("a2V5"), None));
    }
    let ask = async |method: &str, path: &str, body: Value| {
        let agent = Identity::new("holdfast:server:default:db:db1", ["holdfast:servers"]);
        world.call_as(agent, method, path, body).await
    };
    // The caches, which authorization asks, follow the store.
    world.get(GROUPS).await.expect(200);
    ask("GET", SUBS, Value::Null).await.expect(200);
    ask("GET", "/api/v1/namespaces/default/secrets/db-heartbeat", Value::Null).await.expect(200);
    ask("PATCH", &format!("{GROUPS}/ledger/status"), json!({"status": {"phase": "Offline"}})).await.expect(200);
    for (method, path, body) in [
        ("GET", "/api/v1/namespaces/default/secrets/other".to_owned(), Value::Null),
        ("GET", "/api/v1/namespaces/default/secrets".to_owned(), Value::Null),
        ("GET", "/apis/holdfast.dev/v1/subclusters".to_owned(), Value::Null),
        ("GET", "/apis/holdfast.dev/v1/namespaces/other/subclusters".to_owned(), Value::Null),
        ("PATCH", format!("{GROUPS}/shop/status"), json!({"status": {"phase": "Offline"}})),
        ("PATCH", format!("{GROUPS}/ledger"), json!({"spec": {"state": "Offline"}})),
        ("DELETE", format!("{SUBS}/db"), Value::Null),
    ] {
        ask(method, &path, body).await.expect(403);
    }
    let refused = ask("DELETE", &format!("{SUBS}/db"), Value::Null).await.expect(403);
    assert_eq!(
        refused["message"],
        "subclusters.holdfast.dev \"db\" is forbidden: User \"holdfast:server:default:db:db1\" cannot delete resource \
         \"subclusters\" in API group \"holdfast.dev\" in the namespace \"default\""
    );
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {
        "verb": "update", "group": "holdfast.dev", "resource": "failovergroups", "subresource": "status", "name": "ledger", "namespace": "default"}}});
    let answer = ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_tells_both_forms_and_is_not_sent_twice() {
    let world = World::new().await;
    let plain = world.get("/apis/holdfast.dev/v1").await.expect(200);
    let names: Vec<&str> =
        plain["resources"].as_array().expect("resources").iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(names.contains(&"failovergroups") && names.contains(&"failovergroups/status"), "{names:?}");
    world.get("/apis/").await.expect(200);
    let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let ask = |tag: Option<String>| {
        let mut request = http::Request::get("/apis").header("accept", format!("{kind},application/json"));
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        world.request(Some(World::admin()), request.body(axum::body::Body::empty()).expect("a request"))
    };
    let first = ask(None).await;
    assert_eq!(first.headers["content-type"], kind);
    assert!(
        first.text.contains("\"responseKind\":{\"group\":\"holdfast.dev\",\"kind\":\"SubCluster\",\"version\":\"v1\"}")
    );
    let tag = first.headers["etag"].to_str().expect("text").to_owned();
    assert_eq!(ask(Some(tag)).await.code, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_for_those_who_can_read_that() {
    let world = World::new().await;
    let mut large = map("large");
    large["data"]["text"] = json!("abcdefgh".repeat(40_000));
    world.call("POST", MAPS, large).await.expect(201);
    let request = http::Request::get(format!("{MAPS}/large")).header("accept-encoding", "gzip");
    let reply = world.request(Some(World::admin()), request.body(axum::body::Body::empty()).expect("a request")).await;
    assert_eq!(reply.headers["content-encoding"], "gzip");
    assert!(reply.text.len() < 50_000);
    assert!(!world.get(&format!("{MAPS}/large")).await.headers.contains_key("content-encoding"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_grow_without_bound_is_refused_and_the_server_stays_readable() {
    let world = World::new().await;
    world.call("POST", MAPS, map("m")).await.expect(201);
    let item = format!("{MAPS}/m");
    let patch = async |operations: Value| {
        let request = http::Request::patch(&item).header("content-type", "application/json-patch+json");
        world.request(Some(World::admin()), request.body(operations.to_string().into()).expect("a request")).await
    };
    // Each copy doubles the object.
    let mut doubling = vec![json!({"op": "add", "path": "/data/k0", "value": "x".repeat(1000)})];
    doubling.extend((0..40).map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/k{at}")})));
    assert_eq!(patch(Value::Array(doubling)).await.expect(413)["reason"], "RequestEntityTooLarge");
    // Each step is one level deeper than the one before; `managedFields` is free in its depth.
    let mut path = "/metadata/managedFields/0/fieldsV1/f:data".to_owned();
    let mut nesting = Vec::new();
    for _ in 0..200 {
        path += "/f:a";
        nesting.push(json!({"op": "add", "path": path, "value": {}}));
    }
    let refused = patch(Value::Array(nesting)).await.expect(400);
    assert_eq!(refused["message"], "lists and objects are nested more than 100 levels deep");
    let mut deep = json!("x");
    for _ in 0..110 {
        deep = json!({"f:a": deep});
    }
    world.call("PATCH", &item, json!({"metadata": {"managedFields": [{"fieldsV1": deep}]}})).await.expect(400);
    // A patch may test what an operation before it has put there.
    let tested = json!([{"op": "remove", "path": "/data"}, {"op": "test", "path": "/data", "value": null}]);
    assert_eq!(patch(tested).await.expect(200).get("data"), None);
    let labels = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": "x"}});
    assert_eq!(world.call("POST", "/api/v1/namespaces", labels).await.expect(422)["reason"], "Invalid");
    let same = apply_text(&world, "stringData: {password: x}").await;
    assert_eq!(
        apply_text(&world, "stringData: {password: x}").await,
        same,
        "what is stored otherwise is the same, too"
    );
}

/// Applies a Secret and gives its resourceVersion.
async fn apply_text(world: &World, fields: &str) -> Value {
    let body = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{fields}\n");
    let request = http::Request::patch("/api/v1/namespaces/default/secrets/s?fieldManager=git")
        .header("content-type", "application/apply-patch+yaml");
    let reply = world.request(Some(World::admin()), request.body(body.into()).expect("a request")).await;
    assert!(matches!(reply.code, 200 | 201), "{}", reply.text);
    reply.body["metadata"]["resourceVersion"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_take_the_server_from_the_others() {
    use tower::ServiceExt;
    let world = World::new().await;
    let greedy = || Identity::new("greedy", Vec::<String>::new());
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    // Requests whose bodies never end are being answered all the time.
    let open: Vec<_> = (0..100)
        .map(|_| {
            let endless = futures::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
            let request = http::Request::post(path).body(axum::body::Body::from_stream(endless)).expect("a request");
            tokio::spawn(world.server.service(Some(greedy())).oneshot(request))
        })
        .collect();
    let ask = async |who: Identity| world.call_as(who, "POST", path, review.clone()).await;
    let refused =
        support::until("the limit is reached", async || Some(ask(greedy()).await).filter(|r| r.code == 429)).await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body["reason"], "TooManyRequests");
    assert_eq!(refused.body["details"]["retryAfterSeconds"], 1);
    ask(Identity::new("modest", Vec::<String>::new())).await.expect(201);
    ask(World::admin()).await.expect(201);
    open.iter().for_each(tokio::task::JoinHandle::abort);
    support::until("requests that ended count no more", async || Some(ask(greedy()).await).filter(|r| r.code == 201))
        .await;
}
