//! The server over a real etcd, which others use too and which is killed and started again.

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_store::{Expect, Store};
use serde_json::{Value, json};
use support::{PATIENCE, World, until};

struct Etcd {
    dir: tempfile::TempDir,
    ports: (u16, u16),
    process: Child,
}

fn start(dir: &std::path::Path, (client, peer): (u16, u16)) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    Command::new("etcd")
        .args(["--name", "one", "--log-level", "error", "--logger", "zap", "--data-dir"])
        .arg(dir)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (package etcd-server)")
}

impl Etcd {
    fn new() -> Etcd {
        let port = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let (dir, ports) = (tempfile::tempdir().expect("a directory"), (port(), port()));
        let process = start(dir.path(), ports);
        Etcd { dir, ports, process }
    }

    fn kill(&mut self) {
        self.process.kill().expect("etcd is killed");
        self.process.wait().expect("etcd has ended");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_may_be_shared_and_may_go_away_for_a_while() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let mut etcd = Etcd::new();
    let spec = format!("etcd://127.0.0.1:{}", etcd.ports.0);
    let store = holdfast_store::open(&spec, etcd.dir.path(), None).expect("a store");
    until("etcd answers", || async { store.revision().await.ok() }).await;
    let world = World::over(std::sync::Arc::clone(&store)).await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    world.call("POST", MAPS, map("first")).await.expect(201);

    // Somebody else's writes are no reason to wait for the caches.
    let foreign: &dyn Store = &*store;
    foreign.put("/elsewhere/x", Bytes::from_static(b"y"), Expect::Absent, None).await.expect("written");
    let begin = Instant::now();
    assert_eq!(world.get(MAPS).await.expect(200)["items"][0]["metadata"]["name"], "first");
    assert!(begin.elapsed() < Duration::from_millis(800), "the list took {:?}", begin.elapsed());

    let mut watch = world.watch(&format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.brief().await, "ADDED first");
    etcd.kill();
    let refused = tokio::time::timeout(PATIENCE, world.call("POST", MAPS, map("lost"))).await.expect("an answer");
    assert_eq!(refused.expect(503)["reason"], "ServiceUnavailable");
    let stale = tokio::time::timeout(PATIENCE, world.get(MAPS)).await.expect("an answer");
    assert!(stale.headers.contains_key("warning"), "{:?}", stale.headers);
    assert_eq!(stale.expect(200)["items"].as_array().map(Vec::len), Some(1));

    etcd.process = start(etcd.dir.path(), etcd.ports);
    // A write whose answer was lost may have been made: then the next attempt says that it exists.
    let made = |code| matches!(code, 201 | 409);
    until("writes work again", || async { made(world.call("POST", MAPS, map("second")).await.code).then_some(()) })
        .await;
    assert_eq!(watch.brief().await, "ADDED second", "the open watch goes on without a gap");
    let page = world.get(&format!("{MAPS}?limit=1")).await.expect(200);
    let next = page["metadata"]["continue"].as_str().expect("a token");
    let rest = world.get(&format!("{MAPS}?limit=1&continue={next}")).await.expect(200);
    assert_eq!(rest["items"][0]["metadata"]["name"], "second");
    world.call("DELETE", &format!("{MAPS}/first"), Value::Null).await.expect(200);
    assert_eq!(watch.brief().await, "DELETED first");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_new_servers_on_one_etcd_one_makes_the_keys_and_secrets_are_unreadable_there() {
    use holdfast_apiserver::authority::establish;
    let etcd = Etcd::new();
    let spec = format!("etcd://127.0.0.1:{}", etcd.ports.0);
    let store = holdfast_store::open(&spec, etcd.dir.path(), None).expect("a store");
    until("etcd answers", || async { store.revision().await.ok() }).await;
    let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let start = |dir: usize| establish(std::sync::Arc::clone(&store), dirs[dir].path());
    let both: [_; 2] = tokio::join!(start(0), start(1)).into();
    assert_eq!(both.iter().filter(|outcome| outcome.is_ok()).count(), 1, "one certificate authority per store");
    let loser = both.iter().position(Result::is_err).expect("one was later");
    for file in holdfast_apiserver::keys::FILES {
        let [from, to] = [1 - loser, loser].map(|dir| dirs[dir].path().join("pki").join(file));
        std::fs::copy(from, to).expect("copied");
    }
    let (_, sealed) = start(loser).await.expect("with the keys of the other it starts");

    let world = World::over(sealed).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"p": "correct horse"}});
    world.call("POST", "/api/v1/namespaces/default/secrets", secret).await.expect(201);
    let raw = store.get("/registry/core/secrets/default/key").await.expect("read").0.expect("there").value;
    assert!(raw.starts_with(b"holdfast:sealed:v1:") && !raw.windows(4).any(|part| part == b"data"), "{raw:?}");
}
