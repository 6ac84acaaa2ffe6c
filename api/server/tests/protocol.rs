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
