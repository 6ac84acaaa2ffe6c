//! The store goes away and comes back under a running server.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use holdfast_apiserver::keys::Keys;
use holdfast_apiserver::{Identity, Server, Settings};
use holdfast_store::testing::TempStore;
use holdfast_store::{Entry, Error, Expect, Page, Result, Revision, Store, WatchStream};
use http::Request;
use serde_json::{Value, json};
use support::{PATIENCE, until};
use tower::ServiceExt;

/// A store with a switch.
struct Switched {
    inner: Arc<Mutex<Arc<dyn Store>>>,
    down: Arc<AtomicBool>,
}

impl Switched {
    fn check(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) {
            Err(Error::Unavailable("the test switched it off".into()))
        } else {
            Ok(())
        }
    }

    fn inner(&self) -> Arc<dyn Store> {
        self.inner.lock().expect("lock").clone()
    }
}

#[async_trait::async_trait]
impl Store for Switched {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision)> {
        self.check()?;
        self.inner().get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page> {
        self.check()?;
        self.inner().list(prefix, after, limit, at).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Revision> {
        self.check()?;
        self.inner().put(key, value, expect, ttl).await
    }

    async fn delete(&self, key: &str, modified: Revision) -> Result<Revision> {
        self.check()?;
        self.inner().delete(key, modified).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.check()?;
        let down = Arc::clone(&self.down);
        let lost = async move {
            while !down.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let end = futures::stream::once(async { Err(Error::Unavailable("the test switched it off".into())) });
        Ok(self.inner().watch(prefix, after).await?.take_until(lost).chain(end).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.check()?;
        self.inner().compact(revision).await
    }

    async fn revision(&self) -> Result<Revision> {
        self.check()?;
        self.inner().revision().await
    }
}

async fn call(server: &Server, method: &str, path: &str, body: Value) -> (u16, http::HeaderMap, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).body(body).expect("a request");
    let service = server.service(Some(Identity::new("admin", ["system:masters"])));
    let (parts, body) = service.oneshot(request).await.expect("infallible").into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    (parts.status.as_u16(), parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_from_memory_and_writes_say_try_again() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let temporary = TempStore::new().expect("a store");
    let down = Arc::new(AtomicBool::new(false));
    let store = Arc::new(Switched { inner: Arc::new(Mutex::new(temporary.store())), down: Arc::clone(&down) });
    let keys = Keys::load_or_create(temporary.dir()).expect("keys");
    let server = Server::new(Settings::new(store, keys).expect("CRDs")).expect("a server");
    tokio::time::timeout(PATIENCE, server.ready()).await.expect("the server becomes ready");
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    assert_eq!(call(&server, "POST", MAPS, map("before")).await.0, 201);
    assert_eq!(call(&server, "GET", MAPS, Value::Null).await.2["items"][0]["metadata"]["name"], "before");

    down.store(true, Ordering::SeqCst);
    let (code, headers, status) = call(&server, "POST", MAPS, map("during")).await;
    assert_eq!((code, status["reason"].as_str()), (503, Some("ServiceUnavailable")));
    assert_eq!(headers["retry-after"], "1");
    for path in [MAPS.to_owned(), format!("{MAPS}/before")] {
        let (code, headers, _) = call(&server, "GET", &path, Value::Null).await;
        assert_eq!(code, 200);
        assert!(headers["warning"].to_str().expect("text").contains("the store is not available"), "{headers:?}");
    }
    until("the server says that it is not ready", || async {
        (call(&server, "GET", "/readyz", Value::Null).await.0 == 500).then_some(())
    })
    .await;
    assert_eq!(call(&server, "GET", "/livez", Value::Null).await.0, 200);

    down.store(false, Ordering::SeqCst);
    until("the server is ready again", || async {
        (call(&server, "GET", "/readyz", Value::Null).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(call(&server, "POST", MAPS, map("after")).await.0, 201);
    let (_, headers, list) = call(&server, "GET", MAPS, Value::Null).await;
    assert!(!headers.contains_key("warning"));
    assert_eq!(
        list["items"].as_array().expect("items").len(),
        2,
        "nothing acknowledged was lost, nothing refused stored"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_another_past_ends_every_watch_even_if_its_counter_is_ahead() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    // What a restored store is after a while: the same beginning, another middle, and more writes than the first.
    let (first, second) = (TempStore::new().expect("a store"), TempStore::new().expect("a store"));
    {
        let keys = Keys::load_or_create(second.dir()).expect("keys");
        let server = Server::new(Settings::new(second.store(), keys).expect("CRDs")).expect("a server");
        tokio::time::timeout(PATIENCE, server.ready()).await.expect("the server becomes ready");
        for n in 0..30 {
            assert_eq!(call(&server, "POST", MAPS, map(&format!("other{n}"))).await.0, 201);
        }
    }
    let down = Arc::new(AtomicBool::new(false));
    let inner = Arc::new(Mutex::new(first.store()));
    let store = Arc::new(Switched { inner: Arc::clone(&inner), down: Arc::clone(&down) });
    let keys = Keys::load_or_create(first.dir()).expect("keys");
    let server = Server::new(Settings::new(store, keys).expect("CRDs")).expect("a server");
    tokio::time::timeout(PATIENCE, server.ready()).await.expect("the server becomes ready");
    assert_eq!(call(&server, "POST", MAPS, map("mine")).await.0, 201);
    let list = call(&server, "GET", MAPS, Value::Null).await.2;
    let old = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    assert!(old.parse::<u64>().expect("a number") < second.store().revision().await.expect("a revision"));
    let open = async || {
        let request = Request::builder().uri(format!("{MAPS}?watch=1&resourceVersion={old}")).body(Body::empty());
        let service = server.service(Some(Identity::new("admin", ["system:masters"])));
        service.oneshot(request.expect("a request")).await.expect("infallible").into_body().into_data_stream()
    };
    let mut watch = open().await;

    // An outage that is none: the same store comes back, and the watch goes on.
    down.store(true, Ordering::SeqCst);
    let ready = async || (call(&server, "GET", "/readyz", Value::Null).await.0 == 200).then_some(());
    until("the server notices", || async { ready().await.is_none().then_some(()) }).await;
    down.store(false, Ordering::SeqCst);
    until("the server is ready again", ready).await;
    assert_eq!(call(&server, "POST", MAPS, map("more")).await.0, 201);
    let mut next = async || {
        let chunk =
            tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("an event").expect("a chunk");
        serde_json::from_slice::<Value>(&chunk).expect("JSON")
    };
    assert_eq!(next().await["object"]["metadata"]["name"], "more");

    down.store(true, Ordering::SeqCst);
    *inner.lock().expect("lock") = second.store();
    until("the server notices", || async { ready().await.is_none().then_some(()) }).await;
    down.store(false, Ordering::SeqCst);
    let end = next().await;
    assert_eq!((end["type"].as_str(), end["object"]["code"].as_u64()), (Some("ERROR"), Some(410)), "{end}");
    let (code, _, list) = call(&server, "GET", MAPS, Value::Null).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(30)), "nothing of the other history is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_changes_what_the_store_has_and_not_what_the_server_remembers() {
    const MAP: &str = "/api/v1/namespaces/default/configmaps/mine";
    let (first, second) = (TempStore::new().expect("a store"), TempStore::new().expect("a store"));
    let inner = Arc::new(Mutex::new(first.store()));
    let store = Arc::new(Switched { inner: Arc::clone(&inner), down: Arc::default() });
    let keys = Keys::load_or_create(first.dir()).expect("keys");
    let server = Server::new(Settings::new(store, keys).expect("CRDs")).expect("a server");
    tokio::time::timeout(PATIENCE, server.ready()).await.expect("the server becomes ready");
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"a": "1", "b": "1"}});
    assert_eq!(call(&server, "POST", "/api/v1/namespaces/default/configmaps", map).await.0, 201);

    // The store is exchanged for one of another past, in which the same revision wrote something else, and the server
    // has not noticed: its watch goes on.
    let key = "/registry/core/configmaps/default/mine";
    let entry = first.store().get(key).await.expect("read").0.expect("present");
    let mut other: Value = serde_json::from_slice(&entry.value).expect("JSON");
    other["data"] = json!({"a": "2", "theirs": "2"});
    let mut revision = 0;
    while revision < entry.modified - 1 {
        let filler = Bytes::from_static(b"{}");
        revision = second.store().put(&format!("/filler/{revision}"), filler, Expect::Absent, None).await.expect("put");
    }
    let written = second.store().put(key, other.to_string().into(), Expect::Absent, None).await.expect("put");
    assert_eq!(written, entry.modified);
    *inner.lock().expect("lock") = second.store();

    // To what is remembered this would change nothing.
    let (code, _, same) = merge(&server, MAP, json!({"data": {"a": "1"}})).await;
    assert_eq!((code, &same["data"]), (200, &json!({"a": "1", "theirs": "2"})));
    let (code, _, more) = merge(&server, MAP, json!({"data": {"c": "3"}})).await;
    assert_eq!((code, &more["data"]), (200, &json!({"a": "1", "theirs": "2", "c": "3"})));
    let stored = second.store().get(key).await.expect("read").0.expect("present").value;
    assert_eq!(serde_json::from_slice::<Value>(&stored).expect("JSON")["data"], more["data"]);
}

async fn merge(server: &Server, path: &str, body: Value) -> (u16, http::HeaderMap, Value) {
    let request = Request::builder().method("PATCH").uri(path).header("content-type", "application/merge-patch+json");
    let request = request.body(Body::from(body.to_string())).expect("a request");
    let service = server.service(Some(Identity::new("admin", ["system:masters"])));
    let (parts, body) = service.oneshot(request).await.expect("infallible").into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    (parts.status.as_u16(), parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}
