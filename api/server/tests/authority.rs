//! Servers on one store share one set of keys, and what the keys protect stays protected.

mod support;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdfast_apiserver::authority::establish;
use holdfast_apiserver::keys::FILES;
use holdfast_store::testing::TempStore;
use holdfast_store::{Expect, Store};
use serde_json::{Value, json};
use support::World;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEY: &str = "/registry/core/secrets/default/key";

/// A server's data directory.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Makes the directory of a further server, as an operator does.
fn copy_keys(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("pki")).expect("made");
    for name in FILES {
        std::fs::copy(from.join("pki").join(name), to.join("pki").join(name)).expect(name);
    }
}

/// Everything that a store and a directory hold.
async fn contents(store: &dyn Store, dir: &Path) -> (Vec<holdfast_store::Entry>, Vec<(std::path::PathBuf, Vec<u8>)>) {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir.join("pki")).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        files.push((path.clone(), std::fs::read(path).expect("read")));
    }
    files.sort();
    (store.list("/", None, 0, None).await.expect("a list").entries, files)
}

async fn refused(store: &TempStore, dir: &Path) -> String {
    let before = contents(&**store, dir).await;
    let error = establish(store.store(), dir).await.err().expect("a server that has other keys must not start");
    assert_eq!(contents(&**store, dir).await, before, "nothing may be changed");
    error.to_string()
}

fn secret(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"password": text}})
}

/// The text of a Secret as the API gives it.
async fn password(world: &World) -> String {
    let object = world.get(&format!("{SECRETS}/key")).await.expect(200);
    let text = STANDARD.decode(object["data"]["password"].as_str().expect("a text")).expect("base64");
    String::from_utf8(text).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_starts_with_the_keys_of_the_first_and_with_no_others() {
    let store = TempStore::new().expect("a store");
    let (first, second, fresh, other) = (directory(), directory(), directory(), directory());
    establish(store.store(), first.path()).await.expect("the first server makes the keys");
    establish(store.store(), first.path()).await.expect("and starts again");
    copy_keys(first.path(), second.path());
    establish(store.store(), second.path()).await.expect("a server with copied keys starts");

    let error = refused(&store, fresh.path()).await;
    assert!(
        error.contains("ca.key is missing") && error.contains("copy these files from the directory pki"),
        "{error}"
    );
    let elsewhere = TempStore::new().expect("a store");
    establish(elsewhere.store(), other.path()).await.expect("keys of another store");
    let error = refused(&store, other.path()).await;
    assert!(error.contains("ca.crt is sha256:") && error.contains("the store's is sha256:"), "{error}");
    for file in ["tokens.keys", "secrets.keys"] {
        let theirs = std::fs::read(other.path().join("pki").join(file)).expect("read");
        let path = second.path().join("pki").join(file);
        std::fs::remove_file(&path).expect("removed");
        assert!(refused(&store, second.path()).await.contains(&format!("{file} is missing")));
        copy_keys(first.path(), second.path());
        if file == "tokens.keys" {
            std::fs::write(&path, theirs).expect("written");
            assert!(refused(&store, second.path()).await.contains("tokens.keys has"));
            copy_keys(first.path(), second.path());
        }
    }
    establish(store.store(), second.path()).await.expect("with the right keys again");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_never_made_anew_for_a_store_with_objects() {
    let store = TempStore::new().expect("a store");
    let world = World::over(store.store()).await;
    world.namespace("ha").await;
    let error = refused(&store, directory().path()).await;
    assert!(error.contains("holds objects already"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_secret_says_is_not_in_the_store_and_comes_back_through_every_way_of_reading() {
    let (store, dir) = (TempStore::new().expect("a store"), directory());
    // A value from before there were keys.
    let old = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old", "namespace": "default", "uid": "u"}, "data": {"a": "b2xk"}});
    let put = |key: &'static str, value: Value| store.put(key, Bytes::from(value.to_string()), Expect::Absent, None);
    put("/registry/core/secrets/default/old", old).await.expect("written");
    std::fs::create_dir(dir.path().join("pki")).expect("made");
    holdfast_apiserver::pki::Ca::load_or_create(dir.path()).expect("a CA from before there were other keys");
    let (_, sealed) = establish(store.store(), dir.path()).await.expect("keys");
    let world = World::over(Arc::clone(&sealed)).await;
    world.call("POST", SECRETS, secret("correct horse")).await.expect(201);
    let mut watch = world.watch(&format!("{SECRETS}?watch=1&fieldSelector=metadata.name=key&resourceVersion=0")).await;
    assert_eq!(watch.brief().await, "ADDED key");
    world
        .call("PATCH", &format!("{SECRETS}/key"), json!({"stringData": {"password": "battery staple"}}))
        .await
        .expect(200);
    assert_eq!(watch.next().await.expect("an event")["object"]["data"]["password"], STANDARD.encode("battery staple"));
    assert_eq!(password(&world).await, "battery staple");
    let list = world.get(SECRETS).await.expect(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "the old one, too: {list}");
    // Another server on the same store, which has to read the history, too.
    let second = World::over(sealed).await;
    assert_eq!(password(&second).await, "battery staple");
    second.call("DELETE", &format!("{SECRETS}/key"), Value::Null).await.expect(200);
    assert_eq!(watch.brief().await, "DELETED key");

    drop(world);
    for entry in std::fs::read_dir(store.dir()).expect("the store's directory") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("read");
        for text in ["correct horse", "battery staple"] {
            for needle in [text.to_owned(), STANDARD.encode(text)] {
                assert!(!bytes.windows(needle.len()).any(|part| part == needle.as_bytes()), "{needle} is readable");
            }
        }
    }
    let entry = store.get("/registry/core/secrets/default/old").await.expect("read").0.expect("there");
    assert!(entry.value.starts_with(b"holdfast:sealed:v1:"), "what was there before is sealed at the start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_open_is_neither_overwritten_nor_deleted() {
    let (store, dir) = (TempStore::new().expect("a store"), directory());
    let (_, sealed) = establish(store.store(), dir.path()).await.expect("keys");
    let world = World::over(sealed).await;
    world.call("POST", SECRETS, secret("correct horse")).await.expect(201);
    // Somebody with access to the store puts one Secret's bytes under another name.
    let bytes = store.get(KEY).await.expect("read").0.expect("there").value;
    let moved = "/registry/core/secrets/default/moved";
    store.put(moved, bytes.clone(), Expect::Absent, None).await.expect("written");
    let path = format!("{SECRETS}/moved");
    for (method, body) in
        [("GET", Value::Null), ("DELETE", Value::Null), ("PATCH", json!({"data": {}})), ("PUT", secret("x"))]
    {
        let mut body = body;
        if method == "PUT" {
            body["metadata"]["name"] = "moved".into();
        }
        let status = world.call(method, &path, body).await.expect(500);
        let message = status["message"].as_str().expect("a message");
        assert!(message.contains("does not open") && message.contains("secrets.keys"), "{method}: {message}");
    }
    world.call("DELETE", SECRETS, Value::Null).await;
    assert_eq!(store.get(moved).await.expect("read").0.expect("still there").value, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_secrets_is_changed_by_restarts_without_losing_one() {
    let (store, dir, second) = (TempStore::new().expect("a store"), directory(), directory());
    let (_, sealed) = establish(store.store(), dir.path()).await.expect("keys");
    let world = World::over(sealed).await;
    world.call("POST", SECRETS, secret("correct horse")).await.expect(201);
    copy_keys(dir.path(), second.path());
    let file = dir.path().join("pki/secrets.keys");
    let old = std::fs::read_to_string(&file).expect("read");
    let new = STANDARD.encode([7; 32]);

    std::fs::write(&file, &new).expect("written");
    let error = refused(&store, dir.path()).await;
    assert!(error.contains("with which 1 Secrets are sealed"), "{error}");
    std::fs::write(&file, format!("{new}\n{old}")).expect("written");
    let (_, sealed) = establish(store.store(), dir.path()).await.expect("both keys");
    let world = World::over(sealed).await;
    assert_eq!(password(&world).await, "correct horse");
    std::fs::write(&file, &new).expect("written");
    let (_, sealed) = establish(store.store(), dir.path()).await.expect("the old key is needed no more");
    assert_eq!(password(&World::over(sealed).await).await, "correct horse");
    assert!(refused(&store, second.path()).await.contains("secrets.keys lacks the key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_sealed_secrets_is_served_with_its_own_keys_only() {
    let (store, dir) = (TempStore::new().expect("a store"), directory());
    let (_, sealed) = establish(store.store(), dir.path()).await.expect("keys");
    let world = World::over(sealed).await;
    world.call("POST", SECRETS, secret("correct horse")).await.expect(201);
    // Only what the API serves was put back, into a new store.
    let restored = TempStore::new().expect("a store");
    for entry in store.list("/registry/", None, 0, None).await.expect("a list").entries {
        restored.put(&entry.key, entry.value, Expect::Absent, None).await.expect("written");
    }
    let (elsewhere, other, half) = (TempStore::new().expect("a store"), directory(), directory());
    establish(elsewhere.store(), other.path()).await.expect("keys of another store");
    assert!(refused(&restored, other.path()).await.contains("with which Secrets are sealed"));
    holdfast_apiserver::pki::Ca::load_or_create(half.path()).expect("a CA");
    assert!(refused(&restored, half.path()).await.contains("tokens.keys is missing"));
    let (_, sealed) = establish(restored.store(), dir.path()).await.expect("the keys of the backup");
    assert_eq!(password(&World::over(sealed).await).await, "correct horse");
}
