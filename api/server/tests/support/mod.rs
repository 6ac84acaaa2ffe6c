//! A server for tests: over TLS on a free port of loopback, and in-process for single requests.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::StreamExt;
use holdfast_apiserver::keys::Keys;
use holdfast_apiserver::pki::Pki;
use holdfast_apiserver::tls::Tls;
use holdfast_apiserver::{Identity, Server, Settings};
use holdfast_store::Store;
use holdfast_store::testing::TempStore;
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// Longest wait for anything that a test expects.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server with its own store and certificates.
pub struct World {
    pub server: Arc<Server>,
    pub store: Arc<dyn Store>,
    /// Keeps the directory of the store.
    pub temporary: Option<TempStore>,
    pub pki: Pki,
    pub dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

/// An answer to a request.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Reply {
    /// The object, which must have come with this status.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.body
    }
}

impl World {
    pub async fn new() -> World {
        World::on(TempStore::new().expect("a store")).await
    }

    /// A server over a temporary store that may hold something already.
    pub async fn on(temporary: TempStore) -> World {
        let world = World::over(temporary.store()).await;
        World { temporary: Some(temporary), ..world }
    }

    /// A server over any store.
    pub async fn over(store: Arc<dyn Store>) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = Keys::load_or_create(dir.path()).expect("keys");
        World::serving(Settings::new(store, keys).expect("CRDs"), dir).await
    }

    /// A server that also serves a kind of the test's own, from its CustomResourceDefinition.
    pub async fn with_kind(crd: Value) -> World {
        let temporary = TempStore::new().expect("a store");
        let dir = tempfile::tempdir().expect("a directory");
        let keys = Keys::load_or_create(dir.path()).expect("keys");
        let mut settings = Settings::new(temporary.store(), keys).expect("CRDs");
        settings.crds.push(crd);
        World { temporary: Some(temporary), ..World::serving(settings, dir).await }
    }

    async fn serving(settings: Settings, dir: tempfile::TempDir) -> World {
        let store = Arc::clone(&settings.store);
        let server = Arc::new(Server::new(settings).expect("a server"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let pki = Pki::load(dir.path(), listener.local_addr().expect("its address"), &[]).expect("certificates");
        let tls = Arc::new(Tls::new(&pki).expect("TLS"));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let server = Arc::clone(&server);
            async move {
                let stopped = async { drop(stopped.await) };
                server.serve(listener, tls, stopped).await.expect("serving");
            }
        });
        tokio::time::timeout(PATIENCE, server.ready()).await.expect("the server becomes ready");
        World { server, store, temporary: None, pki, dir, stop: Some(stop), serving: Some(serving) }
    }

    /// Stops serving the way a process does that was told to stop.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            tokio::time::timeout(PATIENCE, serving).await.expect("serving ends").expect("without a panic");
        }
    }

    /// The administrator.
    pub fn admin() -> Identity {
        Identity::new("admin", ["system:masters"])
    }

    /// Sends a request in-process.
    pub async fn send(&self, identity: Option<Identity>, request: Request<Body>) -> http::Response<Body> {
        self.server.service(identity).oneshot(request).await.expect("infallible")
    }

    /// Sends a request in-process and reads the whole answer.
    pub async fn request(&self, identity: Option<Identity>, request: Request<Body>) -> Reply {
        let response = self.send(identity, request).await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { code: parts.status.as_u16(), headers: parts.headers, body, text }
    }

    /// A request of the administrator with a JSON body.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call_as(World::admin(), method, path, body).await
    }

    /// A request of somebody with a JSON body.
    pub async fn call_as(&self, identity: Identity, method: &str, path: &str, body: Value) -> Reply {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request =
            Request::builder().method(method).uri(path).header("content-type", kind).body(bytes).expect("a request");
        self.request(Some(identity), request).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, Value::Null).await
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_in(path, "application/json").await
    }

    /// Opens a watch in one of the forms that clients ask for.
    pub async fn watch_in(&self, path: &str, form: &str) -> Watch {
        let request = Request::get(path).header("accept", form).body(Body::empty()).expect("a request");
        let response = self.send(Some(World::admin()), request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Watch { stream: response.into_body().into_data_stream(), rest: Vec::new() }
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let body = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.call("POST", "/api/v1/namespaces", body).await.expect(201);
    }

    /// Runs kubectl as the administrator; `input` is its standard input.
    pub async fn kubectl_raw(&self, arguments: &[&str], input: &str) -> Output {
        kubectl(self.kubeconfig(), self.dir.path().join("home"), arguments, input).await
    }

    /// Runs kubectl, which must succeed, and gives its output.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl_raw(arguments, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs kubectl, which must fail, and gives its error text.
    pub async fn kubectl_fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl_raw(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.admin_kubeconfig().to_owned()
    }
}

/// Runs kubectl with its own home, so that no cache of another server is used.
pub async fn kubectl(kubeconfig: PathBuf, home: PathBuf, arguments: &[&str], input: &str) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child = Command::new("kubectl")
            .args(&arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads its input");
        child.wait_with_output().expect("kubectl ends")
    })
    .await
    .expect("no panic")
}

/// The events of a watch.
pub struct Watch {
    stream: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event, none at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("one JSON object per line"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.stream.next()).await.expect("an event in time") {
                Some(chunk) => self.rest.extend_from_slice(&chunk.expect("a chunk")),
                None => return None,
            }
        }
    }

    /// The next event as `TYPE name`.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}

/// Waits until `check` gives something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A two-server sub-cluster of the least that is valid.
pub fn sub_cluster(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "holdfast.dev/v1", "kind": "SubCluster", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "servers": [{"name": "db1", "id": 1}, {"name": "db2", "id": 2}],
            "disks": [{"name": "san1", "device": "/dev/disk/by-id/san1", "area": {"device": "/dev/disk/by-id/san1-part1"}}],
            "heartbeat": {"paths": [
                {"name": "ic", "lan": {"role": "Interconnect", "endpoints": [
                    {"server": "db1", "address": "10.0.0.1"}, {"server": "db2", "address": "10.0.0.2"}]}},
                {"name": "area", "disk": {"disk": "san1"}},
            ]},
            "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san1"}},
        },
    })
}

/// A group of the least that is valid.
pub fn group(name: &str, sub_cluster: &str) -> Value {
    serde_json::json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": name, "namespace": "default"},
        "spec": {"subCluster": sub_cluster, "resources": [{"name": "app", "process": {"command": ["/usr/bin/app"]}}]},
    })
}
