//! The examples with a service of their own: what was acknowledged before a power cut is there after the takeover, once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use holdfast_lab::{CLIENT, Cluster, ClusterOptions, Host, wait_for};

use crate::harness::LogsOnPanic;

/// A service makes its files, and recovers, meanwhile.
const LIMIT: Duration = Duration::from_secs(60);

/// What a client of the network does with the service of an example. Every call is a connection of its own.
struct Service {
    example: &'static str,
    group: &'static str,
    prepare: fn(&Host) -> Result<(), String>,
    /// Adds a number, once; success means that the service has acknowledged it.
    add: fn(&Host, u32) -> Result<(), String>,
    /// All numbers that are there, each as often as it is.
    all: fn(&Host) -> Result<Vec<u32>, String>,
}

fn run(client: &Host, line: &[&str]) -> Result<String, String> {
    client.exec(line).map_err(|error| error.to_string())
}

fn numbers(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn what_was_acknowledged_survives_a_power_cut_once(service: &Service) {
    let Service { example, group, add, all, .. } = *service;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
    let cluster = Cluster::start(example, &directory, &ClusterOptions::default()).expect("the cluster is built");
    let hosts = ["alder", "birch"].map(|name| cluster.host(name).expect("a host of the example"));
    // ORDER: declared after the cluster, so that it shows the logs before they are gone.
    let _logs = LogsOnPanic(hosts.to_vec());
    cluster.wait_online(group, Some("alder"), LIMIT).expect("the service comes up");
    let client = cluster.host(CLIENT).expect("a client");
    (service.prepare)(&client).expect("the service is prepared");

    let enough = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (client, enough) = (client.clone(), enough.clone());
        move || {
            let mut acknowledged = Vec::new();
            for n in 1..100_000 {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                // One whose answer got lost may be there or not; it is asked for once only.
                if add(&client, n).is_ok() {
                    acknowledged.push(n);
                }
            }
            acknowledged
        }
    });
    let grows_to = |least: usize| {
        wait_for(&format!("{least} numbers"), LIMIT, |last| {
            let found = all(&client);
            *last = format!("{:?}", found.as_ref().map(Vec::len));
            Ok(found.ok().map(|found| found.len()).filter(|found| *found >= least))
        })
        .expect("numbers are added")
    };
    grows_to(20);
    cluster.power_cut("alder").expect("a power cut");
    cluster.wait_online(group, Some("birch"), LIMIT).expect("birch takes it over");
    let after = grows_to(1);
    grows_to(after + 20);
    enough.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u32> = writer.join().expect("the writer");

    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    for n in all(&client).expect("all numbers") {
        *times.entry(n).or_default() += 1;
    }
    let lost: Vec<&u32> = acknowledged.iter().filter(|n| !times.contains_key(n)).collect();
    let twice: Vec<&u32> = times.iter().filter(|(_, count)| **count > 1).map(|(n, _)| n).collect();
    assert!(lost.is_empty() && twice.is_empty(), "acknowledged and lost: {lost:?}; there twice: {twice:?}");
    cluster.close().expect("the lab goes");
}

fn sql(client: &Host, statement: &str) -> Result<String, String> {
    run(client, &["psql", "-Atqc", statement, "host=192.0.2.10 user=postgres connect_timeout=2"])
}

#[test]
fn postgresql_keeps_every_committed_transaction() {
    what_was_acknowledged_survives_a_power_cut_once(&Service {
        example: "postgresql",
        group: "ledger",
        // No key: a row that was written twice would be there twice.
        prepare: |client| sql(client, "create table entries (n integer not null)").map(drop),
        add: |client, n| sql(client, &format!("insert into entries values ({n})")).map(drop),
        all: |client| sql(client, "select n from entries").map(|rows| numbers(&rows)),
    });
}

/// `timeout`, because redis-cli waits as long as TCP does for a server that is gone.
fn redis(client: &Host, command: &[&str]) -> Result<String, String> {
    run(client, &[&["timeout", "2", "redis-cli", "-e", "-h", "192.0.2.10"], command].concat())
}

#[test]
fn redis_keeps_every_acknowledged_write() {
    what_was_acknowledged_survives_a_power_cut_once(&Service {
        example: "redis",
        group: "cache",
        prepare: |_| Ok(()),
        add: |client, n| redis(client, &["rpush", "entries", &n.to_string()]).map(drop),
        all: |client| redis(client, &["lrange", "entries", "0", "-1"]).map(|list| numbers(&list)),
    });
}

fn http(client: &Host, path: &str, more: &[&str]) -> Result<String, String> {
    let url = format!("http://192.0.2.10/files/{path}");
    run(client, &[&["curl", "--silent", "--fail", "--max-time", "2", &url], more].concat())
}

#[test]
fn nginx_keeps_every_acknowledged_upload() {
    what_was_acknowledged_survives_a_power_cut_once(&Service {
        example: "nginx",
        group: "site",
        prepare: |_| Ok(()),
        add: |client, n| http(client, &n.to_string(), &["-X", "PUT", "--data-binary", &format!("{n}\n")]).map(drop),
        // What is in the files, not what they are called: one that is empty is lost.
        all: |client| {
            let list = http(client, "", &[])?;
            let names: Vec<&str> = list.split("href=\"").filter_map(|rest| rest.split('"').next()).collect();
            let names: Vec<&str> = names.into_iter().filter(|name| name.parse::<u32>().is_ok()).collect();
            if names.is_empty() {
                return Ok(Vec::new());
            }
            http(client, &format!("{{{}}}", names.join(",")), &[]).map(|contents| numbers(&contents))
        },
    });
}
