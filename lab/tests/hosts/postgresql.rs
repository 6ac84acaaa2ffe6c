//! `examples/postgresql`: what was committed before a power cut is there after the takeover, once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use holdfast_lab::{CLIENT, Cluster, ClusterOptions, Host, wait_for};

use crate::harness::LogsOnPanic;

const GROUP: &str = "ledger";
/// PostgreSQL makes its files, and recovers, meanwhile.
const LIMIT: Duration = Duration::from_secs(60);

/// One statement by a client of the network, as a connection of its own.
fn ask(client: &Host, statement: &str) -> Result<String, String> {
    let server = "host=192.0.2.10 user=postgres connect_timeout=2";
    client.exec(&["psql", "-Atqc", statement, server]).map_err(|error| error.to_string())
}

#[test]
fn every_committed_transaction_survives_a_power_cut_once() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/postgresql");
    let cluster = Cluster::start("postgresql", &directory, &ClusterOptions::default()).expect("the cluster is built");
    let hosts = ["alder", "birch"].map(|name| cluster.host(name).expect("a host of the example"));
    // ORDER: declared after the cluster, so that it shows the logs before they are gone.
    let _logs = LogsOnPanic(hosts.to_vec());
    cluster.wait_online(GROUP, Some("alder"), LIMIT).expect("the database comes up");
    let client = cluster.host(CLIENT).expect("a client");
    // No key: a row that was written twice would be there twice.
    ask(&client, "create table entries (n integer not null)").expect("a table");

    let enough = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (client, enough) = (client.clone(), enough.clone());
        move || {
            let mut committed = Vec::new();
            for n in 1..100_000 {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                // A commit whose answer got lost may be there or not; it is asked for once only.
                if ask(&client, &format!("insert into entries values ({n})")).is_ok() {
                    committed.push(n);
                }
            }
            committed
        }
    });
    let count = || {
        ask(&client, "select count(*) from entries").and_then(|n| n.trim().parse::<u32>().map_err(|e| e.to_string()))
    };
    let grows_to = |least: u32| {
        wait_for(&format!("{least} rows"), LIMIT, |last| {
            *last = format!("{:?}", count());
            Ok(count().ok().filter(|rows| *rows >= least))
        })
        .expect("rows are written")
    };
    grows_to(20);
    cluster.power_cut("alder").expect("a power cut");
    cluster.wait_online(GROUP, Some("birch"), LIMIT).expect("birch takes it over");
    let after = grows_to(1);
    grows_to(after + 20);
    enough.store(true, Ordering::Relaxed);
    let committed: Vec<u32> = writer.join().expect("the writer");

    let rows = ask(&client, "select n from entries").expect("all rows");
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    for n in rows.lines().filter_map(|line| line.trim().parse().ok()) {
        *times.entry(n).or_default() += 1;
    }
    let lost: Vec<&u32> = committed.iter().filter(|n| !times.contains_key(n)).collect();
    let twice: Vec<&u32> = times.iter().filter(|(_, count)| **count > 1).map(|(n, _)| n).collect();
    assert!(lost.is_empty() && twice.is_empty(), "committed and lost: {lost:?}; there twice: {twice:?}");
    cluster.close().expect("the lab goes");
}
