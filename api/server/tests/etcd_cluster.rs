//! Two API servers over three members of a real etcd, with TLS and client certificates, through the faults that a store
//! has: what was acknowledged stays, and every watch sees each change once.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_store::testing::EtcdCluster;
use holdfast_store::{Store, open};
use serde_json::{Value, json};
use support::{World, until};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Longest wait for something after a fault.
const PATIENCE: Duration = Duration::from_secs(30);

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"count": "0"}})
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a resourceVersion")
}

fn count(object: &Value) -> u64 {
    object["data"]["count"].as_str().and_then(|text| text.parse().ok()).expect("a count")
}

/// A store that prefers this member.
async fn store(etcd: &EtcdCluster, first: usize) -> Arc<dyn Store> {
    let store = open(&etcd.spec(first), &etcd.file("unused"), Some(&etcd.tls())).expect("a store");
    until("etcd answers", || async { store.revision().await.ok() }).await;
    store
}

async fn two_servers(etcd: &EtcdCluster) -> [Arc<World>; 2] {
    [Arc::new(World::over(store(etcd, 0).await).await), Arc::new(World::over(store(etcd, 1).await).await)]
}

/// Counts in an object of its own, one write after another, and keeps what was acknowledged.
struct Writer {
    acknowledged: Arc<Mutex<Vec<(u64, u64)>>>,
    refused: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    async fn start(world: Arc<World>, name: &'static str) -> Writer {
        world.call("POST", MAPS, map(name)).await.expect(201);
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (refused, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (acknowledged, refused, stop) = (acknowledged.clone(), refused.clone(), stop.clone());
            async move {
                let path = format!("{MAPS}/{name}");
                for n in 1_u64.. {
                    let reply = world.call("PATCH", &path, json!({"data": {"count": n.to_string()}})).await;
                    match reply.code {
                        200 => acknowledged.lock().expect("lock").push((n, version(&reply.body))),
                        // Whether it was written nobody knows; a number that was used is not used again.
                        503 => {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => panic!("{name} {n}: {}", reply.text),
                    }
                    if stop.load(Ordering::SeqCst) && reply.code == 200 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
        Writer { acknowledged, refused, stop, task }
    }

    fn written(&self) -> usize {
        self.acknowledged.lock().expect("lock").len()
    }

    /// Waits for some more acknowledged writes.
    async fn goes_on(&self, what: &str) {
        let goal = self.written() + 10;
        let begin = Instant::now();
        while self.written() < goal {
            assert!(begin.elapsed() < PATIENCE, "writes don't go on: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::SeqCst);
        tokio::time::timeout(PATIENCE, self.task).await.expect("the last write").expect("no panic");
        self.acknowledged.lock().expect("lock").clone()
    }
}

/// Follows all maps from `after` until the name `end` is deleted; the counts of each object with their versions.
async fn follow(world: Arc<World>, mut after: u64) -> BTreeMap<String, Vec<(u64, u64)>> {
    let mut seen: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    loop {
        let mut watch = world.watch(&format!("{MAPS}?watch=1&resourceVersion={after}")).await;
        while let Some(event) = watch.next().await {
            let object = &event["object"];
            let (kind, name) = (event["type"].as_str().expect("a type"), object["metadata"]["name"].as_str());
            assert_ne!(kind, "ERROR", "{event}");
            assert!(version(object) > after, "sent again, or out of order after {after}: {event}");
            after = version(object);
            match (kind, name.expect("a name")) {
                ("DELETED", "end") => return seen,
                (_, name) => seen.entry(name.to_owned()).or_default().push((count(object), after)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_and_no_event_skipped_or_repeated() {
    let mut etcd = EtcdCluster::new(3).expect("certificates");
    etcd.start().expect("etcd is installed (package etcd-server)");
    let worlds = two_servers(&etcd).await;
    let begin = version(&worlds[0].get(MAPS).await.expect(200));
    let watchers: Vec<_> = worlds.iter().map(|world| tokio::spawn(follow(world.clone(), begin))).collect();
    let writers = [Writer::start(worlds[0].clone(), "a").await, Writer::start(worlds[1].clone(), "b").await];
    let go_on = async |what: &str| {
        for writer in &writers {
            writer.goes_on(what).await;
        }
    };
    // Each member once: one of them is the leader, and one is the member that a server prefers.
    for member in 0..3 {
        etcd.kill(member);
        go_on("one member is lost").await;
        etcd.start_one(member).expect("it starts");
        go_on("it is back").await;
    }
    // A member whose disk stands still looks like one that stands still.
    for member in 0..3 {
        etcd.signal(member, "STOP").expect("it runs");
        go_on("one member stands still").await;
        etcd.signal(member, "CONT").expect("it runs");
        go_on("it goes on").await;
    }
    let newest = worlds[0].store.revision().await.expect("a revision");
    worlds[1].store.compact(newest).await.expect("compacted");
    go_on("history is forgotten").await;

    let refused: Vec<u64> = writers.iter().map(|writer| writer.refused.load(Ordering::SeqCst)).collect();
    etcd.kill_all();
    for (writer, before) in writers.iter().zip(refused) {
        until("a write is refused", || async { (writer.refused.load(Ordering::SeqCst) > before).then_some(()) }).await;
    }
    assert_eq!(worlds[0].get(MAPS).await.code, 200, "reads go on from memory");
    etcd.start().expect("they start");
    go_on("all are back").await;

    let [a, b] = writers;
    let acknowledged = BTreeMap::from([("a", a.end().await), ("b", b.end().await)]);
    worlds[0].call("POST", MAPS, map("end")).await.expect(201);
    worlds[1].call("DELETE", &format!("{MAPS}/end"), Value::Null).await.expect(200);
    for watcher in watchers {
        let seen = tokio::time::timeout(PATIENCE, watcher).await.expect("the end").expect("no panic");
        for (name, acknowledged) in &acknowledged {
            let seen = &seen[*name];
            assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "counted back or twice: {seen:?}");
            let missing: Vec<_> = acknowledged.iter().filter(|write| !seen.contains(write)).collect();
            assert!(missing.is_empty(), "{name}: acknowledged, but not seen: {missing:?}");
        }
    }
    for (name, acknowledged) in &acknowledged {
        for world in &worlds {
            let now = world.get(&format!("{MAPS}/{name}")).await.expect(200);
            assert_eq!(acknowledged.last(), Some(&(count(&now), version(&now))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_etcd_are_one_api() {
    let mut etcd = EtcdCluster::new(3).expect("certificates");
    etcd.start().expect("etcd is installed (package etcd-server)");
    let worlds = two_servers(&etcd).await;
    let mut watch = worlds[1].watch(&format!("{MAPS}?watch=1")).await;
    for n in 0..50 {
        let (here, there) = (&worlds[n % 2], &worlds[(n + 1) % 2]);
        let name = format!("m{n}");
        here.call("POST", MAPS, map(&name)).await.expect(201);
        // At once, without waiting for a cache.
        there.get(&format!("{MAPS}/{name}")).await.expect(200);
        let list = there.get(MAPS).await.expect(200);
        assert_eq!(list["items"].as_array().map(Vec::len), Some(n + 1), "a list sees what was written elsewhere");
        assert_eq!(watch.brief().await, format!("ADDED {name}"));
    }

    // Names that servers choose are different ones, and of two writers of one version one wins.
    let mut tasks = Vec::new();
    for n in 0..8 {
        let world = worlds[n % 2].clone();
        tasks.push(tokio::spawn(async move {
            let mut names = Vec::new();
            for _ in 0..25 {
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}});
                let made = world.call("POST", MAPS, body).await.expect(201);
                names.push(made["metadata"]["name"].as_str().expect("a name").to_owned());
                loop {
                    let mut object = world.get(&format!("{MAPS}/m0")).await.expect(200);
                    object["data"]["count"] = (count(&object) + 1).to_string().into();
                    match world.call("PUT", &format!("{MAPS}/m0"), object).await.code {
                        200 => break,
                        409 => {}
                        code => panic!("{code}"),
                    }
                }
            }
            names
        }));
    }
    let mut names = Vec::new();
    for task in tasks {
        names.extend(task.await.expect("no panic"));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 200);
    assert_eq!(count(&worlds[0].get(&format!("{MAPS}/m0")).await.expect(200)), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_etcd_makes_every_client_list_again() {
    let mut etcd = EtcdCluster::new(3).expect("certificates");
    etcd.start().expect("etcd is installed (package etcd-server)");
    let worlds = two_servers(&etcd).await;
    worlds[0].call("POST", MAPS, map("kept")).await.expect(201);
    etcd.save("backup").expect("etcdctl takes a snapshot (package etcd-client)");
    for n in 0..20 {
        let made =
            async |world: &World| matches!(world.call("POST", MAPS, map(&format!("lost{n}"))).await.code, 201 | 409);
        until("a write after the backup", || async { made(&worlds[n % 2]).await.then_some(()) }).await;
    }
    let listed = worlds[0].get(MAPS).await.expect(200);
    let old = version(&listed);
    let mut watches = Vec::new();
    for world in &worlds {
        watches.push(world.watch(&format!("{MAPS}?watch=1&resourceVersion={old}")).await);
    }

    etcd.kill_all();
    etcd.restore("backup").expect("restored");
    etcd.start().expect("they start");
    let mut lists = Vec::new();
    for (world, mut watch) in worlds.iter().zip(watches) {
        let event = watch.next().await.expect("the reason of the end");
        assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)), "{event}");
        assert_eq!(watch.next().await, None);
        let list = until("the state of the backup", || async {
            let list = world.get(MAPS).await;
            let names = |list: &Value| list["items"].as_array().map(Vec::len);
            (list.code == 200 && names(&list.body) == Some(1) && !list.headers.contains_key("warning"))
                .then_some(list.body)
        })
        .await;
        assert_eq!(list["items"][0]["metadata"]["name"], "kept");
        lists.push(list);
    }
    for (world, list) in worlds.iter().zip(lists) {
        // Whoever comes back late with a version of the time that is gone is told, too, and does not wait for it.
        let late = world.get(&format!("{MAPS}?watch=1&resourceVersion={old}")).await;
        assert_eq!(late.code, 410, "{}", late.text);
        let mut watch = world.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&list))).await;
        let name = if Arc::ptr_eq(world, &worlds[0]) { "new0" } else { "new1" };
        world.call("POST", MAPS, map(name)).await.expect(201);
        let mut names = Vec::new();
        while names.last().is_none_or(|last| last != &format!("ADDED {name}")) {
            names.push(watch.brief().await);
        }
        assert!(names.iter().all(|name| name.starts_with("ADDED new")), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_at_its_quota_refuses_writes_and_nothing_else() {
    let mut etcd = EtcdCluster::new(1).expect("certificates");
    etcd.arguments = vec!["--quota-backend-bytes=8000000".into()];
    etcd.start().expect("etcd is installed (package etcd-server)");
    let world = World::over(store(&etcd, 0).await).await;
    let mut watch = world.watch(&format!("{MAPS}?watch=1")).await;
    let large = |n: usize| {
        let mut object = map(&format!("large{n}"));
        object["data"]["text"] = "x".repeat(900_000).into();
        object
    };
    let mut written = 0;
    let refused = loop {
        let reply = world.call("POST", MAPS, large(written)).await;
        if reply.code != 201 {
            break reply;
        }
        assert_eq!(watch.brief().await, format!("ADDED large{written}"));
        written += 1;
        assert!(written < 50, "the quota was never reached");
    };
    assert_eq!((refused.code, refused.body["reason"].as_str()), (507, Some("InsufficientStorage")), "{}", refused.text);
    let message = refused.body["message"].as_str().expect("a message");
    assert!(message.contains("quota") && message.contains("makes room"), "{message}");
    assert!(!refused.headers.contains_key("retry-after"), "to try again at once would not help");
    let list = world.get(MAPS).await;
    assert!(!list.headers.contains_key("warning"), "{:?}", list.headers);
    assert_eq!(list.expect(200)["items"].as_array().map(Vec::len), Some(written));
    // What makes room works.
    world.call("DELETE", &format!("{MAPS}/large0"), Value::Null).await.expect(200);
    assert_eq!(watch.brief().await, "DELETED large0");
}
