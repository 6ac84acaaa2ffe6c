//! The loads, one after the other on one server, and what is noted of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_store::{Expect, Store};
use http::Method;
use serde_json::json;

use crate::Result;
use crate::client::{Call, Client, Connection, Watchers};
use crate::processes::{Api, Etcd};
use crate::sheet::Sheet;

/// Clients that write or read at the same time.
const CLIENTS: usize = 16;
/// Watches on one HTTP/2 connection; the server allows more.
const STREAMS: usize = 250;
const JSON: &str = "application/json";

/// Everything that is measured, in an order in which the earlier loads leave what the later ones need.
pub(crate) async fn all(api: &Api, etcd: Option<&Etcd>, sheet: &mut Sheet) -> Result<()> {
    let client = &api.client;
    let mut one = client.connect().await?;
    sheet.note("resident memory, idle", api.resident()?);
    for namespace in ["some", "many", "watched", "more"] {
        one.call(post_namespace(namespace)).await?;
    }
    let alone = match etcd {
        Some(etcd) => etcd.store().await?,
        None => api.beside()?,
    };
    store_alone(&alone, sheet).await?;

    requests(client, 1000, |i| create("some", i)).await?;
    let created = requests(client, 9000, |i| create("many", i)).await?;
    sheet.note("create, 16 writers", created.rate());
    sheet.note("create, 16 writers: p99", created.p99());
    sheet.note("resident memory, 10,000 objects", api.resident()?);
    requests(client, 1000, |i| create("many", 9000 + i)).await?;

    sheet.note("status patch, 16 writers", requests(client, 6000, patch_status).await?.rate());
    sheet.note("forced apply, 16 writers", requests(client, 6000, apply).await?.rate());
    let got = requests(client, 30_000, get).await?;
    sheet.note("get, 16 connections", got.rate());
    sheet.note("get, 16 connections: p99", got.p99());
    sheet.note("list of 1,000, one connection", lists(&mut one, "some", 100).await?);
    sheet.note("list of 10,000, one connection", lists(&mut one, "many", 20).await?);

    sheet.note("one write to 100 watchers, last one: p99", fan_out(client, &mut one, 100, 300).await?.p99());
    sheet.note("1,000 writes, 100 watchers: events", burst(client, &mut one).await?);
    sheet.note("one write to 1,000 watchers, last one: p99", fan_out(client, &mut one, 1000, 100).await?.p99());
    let (many, resident) = crowd(api, &mut one).await?;
    sheet.note("one write to 10,000 watchers, last one: p99", many.p99());
    sheet.note("resident memory, 10,000 watchers", resident);

    requests(client, 8000, |i| create("more", i)).await?;
    requests(client, 10_000, |i| create("many", 10_000 + i)).await?;
    sheet.note("resident memory, 20,000 objects", api.resident()?);
    sheet.note("list of 20,000, one connection", lists(&mut one, "many", 10).await?);
    Ok(())
}

/// How long each of several requests took, and all of them together.
struct Times {
    each: Vec<Duration>,
    all: Duration,
}

impl Times {
    /// Requests per second.
    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }

    /// What 99 of 100 did not exceed, in milliseconds.
    fn p99(&self) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort();
        sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
    }
}

/// The store without an API server: keys and values as large as the API server's.
async fn store_alone(store: &Arc<dyn Store>, sheet: &mut Sheet) -> Result<()> {
    const WRITES: usize = 6000;
    let value = Bytes::from(object("alone", 0));
    let key = |i: usize| format!("/alone/failovergroups/{i:05}");
    let writers = (0..CLIENTS).map(|_| (Arc::clone(store), value.clone())).collect();
    let created = together(writers, WRITES, async |(store, value): &mut (Arc<dyn Store>, Bytes), i| {
        store.put(&key(i), value.clone(), Expect::Absent, None).await?;
        Ok(())
    });
    sheet.note("store alone: conditional creates, 16 writers", created.await?.rate());
    let readers = (0..CLIENTS).map(|_| Arc::clone(store)).collect();
    let got = together(readers, 20_000, async |store: &mut Arc<dyn Store>, i| {
        store.get(&key(i % WRITES)).await?;
        Ok(())
    });
    sheet.note("store alone: gets, 16 readers", got.await?.rate());
    Ok(())
}

/// Requests from all clients, each with a connection of its own.
async fn requests(
    client: &Client,
    count: usize,
    call: impl Fn(usize) -> Call + Send + Sync + Clone + 'static,
) -> Result<Times> {
    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(client.connect().await?);
    }
    together(connections, count, async move |connection: &mut Connection, i| {
        connection.call(call(i)).await?;
        Ok(())
    })
    .await
}

/// `work` for every number below `count`, by all workers at once: whoever is free takes the next one.
async fn together<W, F>(workers: Vec<W>, count: usize, work: F) -> Result<Times>
where
    W: Send + 'static,
    F: for<'a> AsyncFn(&'a mut W, usize) -> Result<()>,
{
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let one = async |mut worker: W| -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return Ok(times);
            }
            let begin = Instant::now();
            work(&mut worker, i).await?;
            times.push(begin.elapsed());
        }
    };
    let each = futures::future::try_join_all(workers.into_iter().map(one)).await?.concat();
    Ok(Times { each, all: begin.elapsed() })
}

/// Lists of all objects of a namespace, one after the other: how many a second.
async fn lists(connection: &mut Connection, namespace: &str, count: usize) -> Result<f64> {
    let begin = Instant::now();
    for _ in 0..count {
        connection.call((Method::GET, collection(namespace), JSON, Vec::new())).await?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// Single writes to a namespace that so many watch: each is timed from before it is sent until the last watcher has it.
async fn fan_out(client: &Client, one: &mut Connection, watchers: usize, writes: usize) -> Result<Times> {
    let open = client.watch(&watch(one).await?, watchers, STREAMS).await?;
    fan_out_to(&open, one, watchers, writes).await
}

async fn fan_out_to(open: &Watchers, one: &mut Connection, watchers: usize, writes: usize) -> Result<Times> {
    // The first write is what shows that every watch is there.
    let begin = Instant::now();
    let mut each = Vec::new();
    one.call(touch(0)).await?;
    open.until(watchers as u64).await;
    for i in 1..=writes {
        let (before, begin) = (open.events(), Instant::now());
        let (written, seen) = tokio::join!(one.call(touch(i)), open.until(before + watchers as u64));
        written?;
        each.push(seen - begin);
    }
    Ok(Times { each, all: begin.elapsed() })
}

/// A burst of creates in a watched namespace: events per second until the last watcher has the last one.
async fn burst(client: &Client, one: &mut Connection) -> Result<f64> {
    const WATCHERS: usize = 100;
    const WRITES: usize = 1000;
    let open = client.watch(&watch(one).await?, WATCHERS, STREAMS).await?;
    let begin = Instant::now();
    let events = WRITES * WATCHERS;
    let (written, seen) = tokio::join!(requests(client, WRITES, |i| create("watched", i)), open.until(events as u64));
    written?;
    Ok(events as f64 / (seen - begin).as_secs_f64())
}

/// Ten thousand watchers of one kind, and the server's memory with them.
async fn crowd(api: &Api, one: &mut Connection) -> Result<(Times, f64)> {
    const WATCHERS: usize = 10_000;
    let open = api.client.watch(&watch(one).await?, WATCHERS, STREAMS).await?;
    let times = fan_out_to(&open, one, WATCHERS, 30).await?;
    Ok((times, api.resident()?))
}

/// A watch of what happens from now on.
async fn watch(one: &mut Connection) -> Result<String> {
    let answer = one.call((Method::GET, format!("{}?limit=1", collection("watched")), JSON, Vec::new())).await?;
    let list: serde_json::Value = serde_json::from_slice(&answer)?;
    let version = list["metadata"]["resourceVersion"].as_str().ok_or("a list has no resourceVersion")?;
    Ok(format!("{}?watch=1&resourceVersion={version}", collection("watched")))
}

fn collection(namespace: &str) -> String {
    format!("/apis/holdfast.dev/v1/namespaces/{namespace}/failovergroups")
}

fn path(namespace: &str, i: usize) -> String {
    format!("{}/{}", collection(namespace), name(i))
}

fn name(i: usize) -> String {
    format!("group-{i:05}")
}

fn post_namespace(name: &str) -> Call {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    (Method::POST, "/api/v1/namespaces".into(), JSON, body.to_string().into())
}

/// A group with a disk, an address and a program, as JSON of about 1 KiB. The priority is what applies change.
fn object(name: &str, priority: usize) -> Vec<u8> {
    json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup",
        "metadata": {"name": name, "labels": {"team": "payments", "tier": "gold"}},
        "spec": {
            "subCluster": "shop",
            "placement": {"servers": ["alder", "birch", "cedar", "doum"], "priority": priority},
            "recovery": {"restarts": 3},
            "resources": [
                {"name": "data", "filesystem": {
                    "disk": "shared", "device": "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4-part1",
                    "mountPoint": format!("/srv/{name}"), "type": "ext4", "options": ["noatime", "nodiratime"]}},
                {"name": "address", "floatingIP": {"address": "192.0.2.80/24", "path": "pub"}, "dependsOn": ["data"]},
                {"name": "ledger", "dependsOn": ["data", "address"], "process": {
                    "command": ["/opt/ledger/bin/ledgerd", "--config", format!("/srv/{name}/etc/ledger.conf"),
                        "--data", format!("/srv/{name}/data"), "--listen", "192.0.2.80:8443", "--log-format", "json"]}},
            ],
        },
    })
    .to_string()
    .into()
}

fn create(namespace: &str, i: usize) -> Call {
    (Method::POST, collection(namespace), JSON, object(&name(i), i % 1000))
}

fn patch_status(i: usize) -> Call {
    let status = json!({"status": {"phase": "Online", "server": "alder", "epoch": i, "revision": i}}).to_string();
    (Method::PATCH, format!("{}/status", path("many", i)), "application/merge-patch+json", status.into())
}

fn apply(i: usize) -> Call {
    let body = object(&name(i), (i + 1) % 1000);
    let path = format!("{}?fieldManager=bench&force=true", path("many", i));
    (Method::PATCH, path, "application/apply-patch+yaml", body)
}

fn get(i: usize) -> Call {
    (Method::GET, path("many", i * 7919 % 10_000), JSON, Vec::new())
}

/// Changes the one object that everybody watches; makes it at first.
fn touch(i: usize) -> Call {
    let body = object("watched", i % 1000);
    let path = format!("{}/watched?fieldManager=bench&force=true", collection("watched"));
    (Method::PATCH, path, "application/apply-patch+yaml", body)
}
