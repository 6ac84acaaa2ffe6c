//! Reads of a certain state, and the forms in which they are answered: what caches, consoles and garbage collectors of
//! clients rely on.

mod support;

use holdfast_store::testing::TempStore;
use serde_json::{Value, json};
use support::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().expect("a resourceVersion").to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

async fn make(world: &World, name: &str) -> Value {
    world.call("POST", MAPS, map(name)).await.expect(201)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_exactly_the_state_that_was_asked_for_until_it_is_forgotten() {
    let world = World::new().await;
    make(&world, "a").await;
    let then = version(&make(&world, "b").await);
    world.call("DELETE", &format!("{MAPS}/a"), Value::Null).await.expect(200);
    make(&world, "c").await;
    let exact = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={then}");
    let list = world.get(&exact).await.expect(200);
    assert_eq!((names(&list), version(&list)), (vec!["a", "b"], then.clone()));
    let page = world.get(&format!("{exact}&limit=1")).await.expect(200);
    assert_eq!(names(&page), ["a"]);
    let more = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    let newer =
        world.get(&format!("{MAPS}?resourceVersionMatch=NotOlderThan&resourceVersion={then}")).await.expect(200);
    assert_eq!(names(&newer), ["b", "c"]);

    world.store.compact(world.store.revision().await.expect("a revision")).await.expect("forgotten");
    assert_eq!(world.get(&exact).await.expect(410)["reason"], "Expired");
    let expired = world.get(&format!("{MAPS}?limit=1&continue={more}")).await.expect(410);
    let onward = expired["metadata"]["continue"].as_str().expect("a token that goes on at the newest state");
    let rest = world.get(&format!("{MAPS}?limit=5&continue={onward}")).await.expect(200);
    assert_eq!(names(&rest), ["b", "c"], "what follows a, as it is now");
    let future = world.get(&format!("{MAPS}?resourceVersion=99999999")).await.expect(504);
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{future}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_forgotten_state_says_so_and_a_new_list_goes_on() {
    let temporary = TempStore::new().expect("a store");
    let first = World::over(temporary.store()).await;
    let old = version(&make(&first, "a").await);
    make(&first, "b").await;
    drop(first);
    // Another server has nothing in memory from before its start.
    let store = temporary.store();
    store.compact(store.revision().await.expect("a revision")).await.expect("forgotten");
    let world = World::over(store).await;
    let gone = world.get(&format!("{MAPS}?watch=1&resourceVersion={old}")).await.expect(410);
    assert_eq!((&gone["reason"], &gone["code"]), (&json!("Expired"), &json!(410)));
    let list = world.get(MAPS).await.expect(200);
    assert_eq!(names(&list), ["a", "b"]);
    let mut watch = world.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&list))).await;
    make(&world, "c").await;
    assert_eq!(watch.brief().await, "ADDED c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_comes_as_tables_or_as_metadata() {
    let world = World::new().await;
    make(&world, "a").await;
    let rows = |event: &Value| event["object"]["rows"].as_array().expect("rows").clone();
    for (include, kind) in [("", json!("PartialObjectMetadata")), ("&includeObject=Object", json!("ConfigMap"))] {
        let mut watch = world.watch_in(&format!("{MAPS}?watch=1{include}"), TABLE).await;
        let event = watch.next().await.expect("an event");
        assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
        assert_eq!(event["object"]["columnDefinitions"][0]["name"], "Name");
        assert_eq!(rows(&event)[0]["cells"][0], "a");
        assert_eq!(rows(&event)[0]["object"]["kind"], kind);
        world.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"k": include}})).await.expect(200);
        let next = watch.next().await.expect("an event");
        assert_eq!(next["type"], "MODIFIED");
        let headings = next["object"]["columnDefinitions"].as_array().map_or(0, Vec::len);
        assert_eq!((headings, rows(&next).len()), (0, 1), "columns are told once: {next}");
    }
    let mut bare = world.watch_in(&format!("{MAPS}?watch=1&includeObject=None"), TABLE).await;
    assert_eq!(rows(&bare.next().await.expect("an event"))[0]["object"], Value::Null);
    let mut metadata = world.watch_in(&format!("{MAPS}?watch=1"), METADATA).await;
    let event = metadata.next().await.expect("an event");
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert_eq!((&event["object"]["metadata"]["name"], &event["object"]["data"]), (&json!("a"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_names_another_object_or_state_changes_nothing() {
    let world = World::new().await;
    let one = make(&world, "a").await;
    let path = format!("{MAPS}/a");
    let changed = world.call("PATCH", &path, json!({"data": {"k": "1"}})).await.expect(200);
    for preconditions in [json!({"uid": "another"}), json!({"resourceVersion": version(&one)})] {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
        let refused = world.call("DELETE", &path, body).await.expect(409);
        assert_eq!(refused["reason"], "Conflict", "{refused}");
    }
    let mut stale = map("a");
    stale["metadata"]["resourceVersion"] = version(&one).into();
    assert_eq!(world.call("PUT", &path, stale.clone()).await.expect(409)["reason"], "Conflict");
    assert_eq!(world.call("PATCH", &path, stale).await.expect(409)["reason"], "Conflict");
    let mut another = map("a");
    another["metadata"]["uid"] = "another".into();
    assert_eq!(world.call("PUT", &path, another).await.expect(409)["reason"], "Conflict");
    assert_eq!(world.get(&path).await.expect(200), changed, "it is as it was");
    let body = json!({"preconditions": {"uid": one["metadata"]["uid"], "resourceVersion": version(&changed)}});
    world.call("DELETE", &path, body).await.expect(200);
    world.get(&path).await.expect(404);
}
