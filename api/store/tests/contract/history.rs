//! Watching, resuming and forgetting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use holdfast_store::{Error, Event, Expect, Revision, Store, WatchStream, compact_automatically};

use crate::world::{World, eventually, in_time, take, text};

/// Writes to keys of its own under `/w/` and returns the acknowledged revisions.
async fn write_many(store: Arc<dyn Store>, writer: usize, count: usize) -> Vec<(Revision, String)> {
    let mut acknowledged = Vec::new();
    let mut present: BTreeMap<String, Revision> = BTreeMap::new();
    for n in 0..count {
        let key = format!("/w/{}/{writer}-{}", n % 2, n % 5);
        let revision = match present.get(&key).copied() {
            Some(modified) if n % 4 == 0 => {
                present.remove(&key);
                store.delete(&key, modified).await.expect("deleted")
            }
            before => {
                let expect = before.map_or(Expect::Absent, Expect::Modified);
                let revision = store.put(&key, text(format!("{writer} {n}")), expect, None).await.expect("written");
                present.insert(key.clone(), revision);
                revision
            }
        };
        acknowledged.push((revision, key));
    }
    acknowledged
}

/// Applies events to a picture of the store, checking each `previous`.
fn replay(events: &[Event], picture: &mut BTreeMap<String, Bytes>) {
    for event in events {
        match event {
            Event::Put { entry, previous } => {
                let before = picture.insert(entry.key.clone(), entry.value.clone());
                assert_eq!(&before, previous, "{event:?}");
                assert_eq!(previous.is_none(), entry.created == entry.modified, "{event:?}");
            }
            Event::Delete { key, previous, .. } => {
                assert!(previous.is_some(), "{event:?}");
                assert_eq!(&picture.remove(key), previous, "{event:?}");
            }
        }
    }
}

fn keys_and_revisions(events: &[Event]) -> Vec<(Revision, String)> {
    events.iter().map(|event| (event.revision(), event.key().to_owned())).collect()
}

pub(crate) async fn a_watch_sees_every_write_once_in_order(world: World) {
    let store = world.open().await;
    let (writers, count) = (6, 100);
    let before = store.revision().await.expect("revision");
    let early = store.watch("/w/", before).await.expect("watch");
    let tasks: Vec<_> = (0..writers).map(|writer| tokio::spawn(write_many(store.clone(), writer, count))).collect();
    // A second one begins somewhere in the middle, a third one at the same place afterwards.
    let middle = store.revision().await.expect("revision");
    let late = store.watch("/w/", middle).await.expect("watch");
    let half = store.watch("/w/1/", before).await.expect("watch");
    let mut written = Vec::new();
    for task in tasks {
        written.extend(task.await.expect("a writer"));
    }
    written.sort();
    written.dedup_by_key(|(revision, _)| *revision);
    assert_eq!(written.len(), writers * count, "every write has its own revision");
    let again = store.watch("/w/", middle).await.expect("watch");

    let collect = |mut watch: WatchStream, expected: Vec<(Revision, String)>| async move {
        let events = take(&mut watch, expected.len()).await;
        assert_eq!(keys_and_revisions(&events), expected);
        events
    };
    let after_middle: Vec<_> = written.iter().filter(|(revision, _)| *revision > middle).cloned().collect();
    let of_half: Vec<_> = written.iter().filter(|(_, key)| key.starts_with("/w/1/")).cloned().collect();
    let all = collect(early, written.clone()).await;
    assert_eq!(collect(late, after_middle.clone()).await, collect(again, after_middle).await);
    collect(half, of_half).await;

    let mut picture = BTreeMap::new();
    replay(&all, &mut picture);
    let listed = store.list("/w/", None, 0, None).await.expect("list").entries;
    assert_eq!(listed.into_iter().map(|e| (e.key, e.value)).collect::<BTreeMap<_, _>>(), picture);
}

pub(crate) async fn a_watch_resumes_from_an_old_revision(world: World) {
    let store = world.open().await;
    let written = write_many(store.clone(), 0, 120).await;
    let whole = take(&mut store.watch("/w/", 0).await.expect("watch"), 120).await;
    assert_eq!(keys_and_revisions(&whole), written);
    for cut in [1, 37, 119] {
        let mut picture = BTreeMap::new();
        replay(&whole[..cut], &mut picture);
        let at = whole[cut - 1].revision();
        let snapshot = store.list("/w/", None, 0, Some(at)).await.expect("an old snapshot").entries;
        assert_eq!(snapshot.into_iter().map(|e| (e.key, e.value)).collect::<BTreeMap<_, _>>(), picture);
        let rest = take(&mut store.watch("/w/", at).await.expect("watch"), 120 - cut).await;
        assert_eq!(rest, whole[cut..]);
    }
    let newest = store.revision().await.expect("revision");
    let future = store.watch("/w/", newest + 1).await.err();
    assert!(matches!(future, Some(Error::Future { .. })), "{future:?}");
    let mut fresh = store.watch("/w/", newest).await.expect("watch");
    let own = store.put("/w/own", text("1"), Expect::Absent, None).await.expect("created");
    assert_eq!(take(&mut fresh, 1).await[0].revision(), own);
}

pub(crate) async fn a_slow_watcher_misses_nothing(world: World) {
    let store = world.open().await;
    let before = store.revision().await.expect("revision");
    let mut slow = store.watch("/s/", before).await.expect("watch");
    // More events and more bytes than any buffer on the way holds; the writers are not held up by nobody reading.
    let written = Mutex::new(Vec::new());
    let (store_ref, written_ref) = (&store, &written);
    let value = "v".repeat(8000);
    let value_ref = value.as_str();
    in_time(
        "writing while a watcher sleeps",
        futures::stream::iter(0..5000).for_each_concurrent(128, |n| async move {
            let key = format!("/s/{n}");
            let revision = store_ref.put(&key, text(value_ref), Expect::Absent, None).await.expect("created");
            written_ref.lock().expect("lock").push((revision, key));
        }),
    )
    .await;
    let mut written = written.into_inner().expect("lock");
    written.sort();
    let events = take(&mut slow, 5000).await;
    assert_eq!(keys_and_revisions(&events), written);
    let own = store.put("/s/own", text("1"), Expect::Absent, None).await.expect("created");
    assert_eq!(take(&mut slow, 1).await[0].revision(), own);
}

pub(crate) async fn compaction_forgets_the_past_and_nothing_else(world: World) {
    let store = world.open().await;
    let written = write_many(store.clone(), 0, 60).await;
    let a = store.put("/c/stays", text("a"), Expect::Absent, None).await.expect("created");
    let b = store.put("/c/goes", text("b"), Expect::Absent, None).await.expect("created");
    let at = store.delete("/c/goes", b).await.expect("deleted");
    let after = store.put("/c/stays", text("a2"), Expect::Modified(a), None).await.expect("updated");
    let present = store.list("/", None, 0, None).await.expect("list");
    let snapshot = store.list("/", None, 0, Some(at)).await.expect("list");

    store.compact(at).await.expect("compacted");
    assert_eq!(store.list("/", None, 0, None).await.expect("list"), present);
    assert_eq!(store.list("/", None, 0, Some(at)).await.expect("the oldest snapshot"), snapshot);
    for old in [0, written[3].0, at - 1] {
        let refused = store.list("/", None, 0, Some(old)).await;
        assert!(
            matches!(refused, Err(Error::Compacted { asked, oldest }) if asked == old.max(asked) && oldest == at),
            "{refused:?}"
        );
        let refused = first_error(store.watch("/", old).await).await;
        assert!(matches!(refused, Error::Compacted { oldest, .. } if oldest == at), "{old}: {refused:?}");
    }
    let event = take(&mut store.watch("/", at).await.expect("watch"), 1).await;
    match &event[0] {
        Event::Put { entry, previous } => {
            assert_eq!((entry.modified, previous), (after, &Some(text("a"))), "the value before is still known");
        }
        other => panic!("{other:?}"),
    }
    store.compact(a).await.expect("what is forgotten already changes nothing");
    let future = store.compact(after + 1000).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");

    // Even when the newest write was a deletion and all history goes, the counter does not go back.
    let stays = store.get("/c/stays").await.expect("read").0.expect("present");
    let newest = store.delete("/c/stays", stays.modified).await.expect("deleted");
    store.compact(newest).await.expect("compacted");
    assert_eq!(store.revision().await.expect("revision"), newest);
    assert!(store.put("/c/again", text("1"), Expect::Absent, None).await.expect("created") > newest);
}

/// The error of a watch, whether it comes at once or as the first item.
async fn first_error(watch: Result<WatchStream, Error>) -> Error {
    match watch {
        Err(error) => error,
        Ok(mut watch) => match in_time("the end of a watch", watch.next()).await {
            Some(Err(error)) => {
                assert!(watch.next().await.is_none(), "nothing comes after the error");
                error
            }
            other => panic!("{other:?}"),
        },
    }
}

pub(crate) async fn old_history_is_forgotten_by_itself(world: World) {
    let store = world.open().await;
    let keep = Duration::from_secs(2);
    let task = compact_automatically(store.clone(), keep);
    let first = store.put("/k", text("1"), Expect::Absent, None).await.expect("created");
    let second = store.put("/k", text("2"), Expect::Modified(first), None).await.expect("updated");
    let begun = std::time::Instant::now();
    eventually("the first revision is forgotten", async || match store.list("/", None, 0, Some(first)).await {
        Err(Error::Compacted { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(begun.elapsed() >= keep, "forgotten after {:?}", begun.elapsed());
    let entry = store.get("/k").await.expect("read").0.expect("present");
    assert_eq!((entry.modified, entry.value), (second, text("2")));
    drop(task);
}
