//! Restarts, kills and lost backends. A kill of the SQLite backend is one of a child process: this test binary again.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use holdfast_store::{Error, Expect, OpenError, Revision, Store, open};

use crate::world::{World, eventually, in_time, take, text};

/// In the child: the directory of the store to write to until killed.
const CHILD_DIR: &str = "HOLDFAST_STORE_TEST_CHILD_DIR";
const WRITERS: usize = 8;

pub(crate) async fn a_restart_keeps_values_history_and_counter(mut world: World) {
    let store = world.open().await;
    let first = store.put("/a", text("1"), Expect::Absent, None).await.expect("created");
    let second = store.put("/a", text("2"), Expect::Modified(first), None).await.expect("updated");
    let dying = store.put("/dying", text("x"), Expect::Absent, Some(Duration::from_secs(8))).await.expect("created");
    let gone = store.put("/gone", text("x"), Expect::Absent, None).await.expect("created");
    let newest = store.delete("/gone", gone).await.expect("deleted");
    if world.is_sqlite() {
        let refused = open("sqlite", world.dir(), None).err();
        assert!(matches!(refused, Some(OpenError::Locked { .. })), "a second server is refused: {refused:?}");
    }
    drop(store);
    world.kill();
    world.start();

    let store = world.open().await;
    assert_eq!(store.revision().await.expect("revision"), newest);
    let entry = store.get("/a").await.expect("read").0.expect("present");
    assert_eq!((entry.value, entry.created, entry.modified), (text("2"), first, second));
    let old = store.list("/", None, 0, Some(first)).await.expect("an old snapshot");
    assert_eq!(old.entries.iter().map(|e| e.value.clone()).collect::<Vec<_>>(), [text("1")]);
    let mut watch = store.watch("/", first).await.expect("watch");
    let events = take(&mut watch, 4).await;
    assert_eq!(events.iter().map(|e| e.revision()).collect::<Vec<_>>(), [second, dying, gone, newest]);
    // The time to live goes on over the restart.
    let end = take(&mut watch, 1).await;
    assert_eq!(end[0].key(), "/dying");

    // Neither does the counter go back when the newest rows are forgotten before a restart.
    store.compact(end[0].revision()).await.expect("compacted");
    drop((store, watch));
    world.kill();
    world.start();
    let store = world.open().await;
    assert_eq!(store.revision().await.expect("revision"), end[0].revision());
    assert!(store.put("/b", text("1"), Expect::Absent, None).await.expect("created") > end[0].revision());
}

pub(crate) async fn a_kill_loses_nothing_acknowledged(mut world: World) {
    let acknowledged: Vec<(String, Revision)> = if world.is_sqlite() {
        let exe = std::env::current_exe().expect("the test binary");
        let mut child = Command::new(exe)
            .args(["--exact", "crash::child_that_writes_until_killed", "--nocapture"])
            .env(CHILD_DIR, world.dir())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let output = child.stdout.take().expect("a pipe");
        tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            let parse = |line: String| {
                let (key, revision) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
                Some((key.to_owned(), revision.parse().ok()?))
            };
            let mut found: Vec<_> = lines.by_ref().filter_map(parse).take(500).collect();
            child.kill().expect("the child is killed");
            found.extend(lines.filter_map(parse));
            child.wait().expect("the child has ended");
            found
        })
        .await
        .expect("reading the child")
    } else {
        let store = world.open().await;
        let tasks: Vec<_> =
            (0..WRITERS).map(|w| tokio::spawn(write_until_failure(store.clone(), w, |_, _| {}))).collect();
        eventually("500 writes", async || match store.revision().await {
            Ok(revision) if revision > 500 => Ok(()),
            other => Err(other),
        })
        .await;
        world.kill();
        let mut acknowledged = Vec::new();
        for task in tasks {
            acknowledged.extend(in_time("a writer ends", task).await.expect("a writer"));
        }
        world.start();
        acknowledged
    };
    assert!(acknowledged.len() >= 490, "{} writes were acknowledged", acknowledged.len());

    let store = world.open().await;
    let newest = acknowledged.iter().map(|(_, revision)| *revision).max().expect("some");
    assert!(store.revision().await.expect("revision") >= newest);
    for (key, revision) in acknowledged {
        let entry = store.get(&key).await.expect("read").0;
        assert!(
            entry.as_ref().is_some_and(|e| e.modified == revision && e.value == text(key.clone())),
            "{key}: {entry:?}"
        );
    }
}

/// Creates keys until the store fails or the process is killed.
async fn write_until_failure(
    store: Arc<dyn Store>,
    writer: usize,
    tell: fn(&str, Revision),
) -> Vec<(String, Revision)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let key = format!("/kill/{writer}/{n}");
        match store.put(&key, text(key.clone()), Expect::Absent, None).await {
            Ok(revision) => {
                tell(&key, revision);
                acknowledged.push((key, revision));
            }
            Err(_) => break,
        }
    }
    acknowledged
}

/// Not a test by itself: what the child of `a_kill_loses_nothing_acknowledged` does.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = open("sqlite", dir.as_ref(), None).expect("the store opens");
    let tell = |key: &str, revision: Revision| println!("acknowledged {key} {revision}");
    let tasks: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(write_until_failure(store.clone(), w, tell))).collect();
    for task in tasks {
        let _ = task.await;
    }
}

pub(crate) async fn a_lost_backend_is_told_quickly(mut world: World) {
    let store = world.open().await;
    let before = store.put("/a", text("1"), Expect::Absent, None).await.expect("created");
    let mut watch = store.watch("/", before).await.expect("watch");
    if world.is_sqlite() {
        // The file cannot be lost without the process; what can end is the store itself.
        drop(store);
        let end = in_time("the end of the watch", watch.next()).await;
        assert!(matches!(end, Some(Err(Error::Unavailable(_)))), "{end:?}");
        return;
    }

    // Frozen: no answer at all.
    world.signal("STOP");
    all_unavailable(&*store).await;
    world.signal("CONT");
    eventually("a write after the thaw", async || store.put("/thawed", text("1"), Expect::Absent, None).await).await;

    // Dead: connections are refused, and the watch ends.
    world.kill();
    let end = loop {
        match in_time("the end of the watch", watch.next()).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(Error::Unavailable(_)))), "{end:?}");
    all_unavailable(&*store).await;
    assert!(matches!(store.watch("/", before).await.err(), Some(Error::Unavailable(_))));

    // Back: the same store goes on.
    world.start();
    let entry = eventually("a read after the restart", async || store.get("/a").await).await.0.expect("present");
    assert_eq!(entry.modified, before);
    let next = store.put("/a", text("2"), Expect::Modified(before), None).await.expect("written");
    let mut watch = store.watch("/a", before).await.expect("watch");
    assert_eq!(take(&mut watch, 1).await[0].revision(), next);

    // With a dead endpoint first in the list, reads and writes go to the living one.
    let living = world.spec();
    let spec = living.replace("etcd://", "etcd://127.0.0.1:1,");
    let store = open(&spec, world.dir(), None).expect("opens");
    store.put("/b", text("1"), Expect::Absent, None).await.expect("written at the second endpoint");
}

/// Every kind of call ends in `Unavailable` within 2 s, and a margin for a busy machine.
async fn all_unavailable(store: &dyn Store) {
    let begun = Instant::now();
    let (put, get, list) =
        tokio::join!(store.put("/x", text("1"), Expect::Absent, None), store.get("/a"), store.list("/", None, 0, None));
    let waited = begun.elapsed();
    for error in [put.err(), get.err(), list.err()] {
        assert!(matches!(error, Some(Error::Unavailable(_))), "{error:?}");
    }
    assert!(waited < Duration::from_millis(3500), "took {waited:?}");
}

/// One transaction of another program, larger than etcd sends in one piece: still one batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_in_fragments_comes_whole() {
    let world = World::etcd();
    let store = world.open().await;
    let before = store.revision().await.expect("revision");
    let endpoint = world.spec().replace("etcd://", "http://");
    let mut client = etcd_client::Client::connect([endpoint], None).await.expect("a client");
    let put = |round: usize| {
        let ops: Vec<_> =
            (0..60).map(|n| etcd_client::TxnOp::put(format!("/f/{n}"), vec![round as u8; 20_000], None)).collect();
        etcd_client::Txn::new().and_then(ops)
    };
    let mut revisions = Vec::new();
    for round in 0..4 {
        let done = client.txn(put(round)).await.expect("a transaction");
        revisions.push(u64::try_from(done.header().expect("header").revision()).expect("positive"));
    }
    let mut watch = store.watch("/f/", before).await.expect("watch");
    // `take` checks that no revision is spread over two batches.
    let events = take(&mut watch, 240).await;
    let expected: Vec<Revision> = revisions.iter().flat_map(|revision| [*revision; 60]).collect();
    assert_eq!(events.iter().map(|e| e.revision()).collect::<Vec<_>>(), expected);
}
