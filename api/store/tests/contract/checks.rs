//! Writing, reading, pages and times to live.

use std::time::{Duration, Instant};

use futures::StreamExt;
use holdfast_store::{Error, Event, Expect, MAX_EXPECTED_BYTES, MAX_VALUE_BYTES};

use crate::world::{World, in_time, take, text};

pub(crate) async fn a_write_needs_what_it_expects(world: World) {
    let store = world.open().await;
    let first = store.put("/a", text("1"), Expect::Absent, None).await.expect("created");
    assert!(first >= 1);
    let is = |modified, value: &str| Expect::Is { modified, value: text(value.to_owned()) };
    let wrong = [Expect::Absent, Expect::Modified(first + 1), Expect::Modified(0)];
    // A revision with another value is what a store that was restored from a backup may have.
    for wrong in wrong.into_iter().chain([is(first, "2"), is(first, ""), is(first + 1, "1"), is(0, "1")]) {
        match store.put("/a", text("x"), wrong.clone(), None).await {
            Err(Error::Conflict { key, current: Some(current) }) => {
                assert_eq!((key.as_str(), current.value, current.modified), ("/a", text("1"), first));
            }
            other => panic!("{wrong:?}: {other:?}"),
        }
    }
    let second = store.put("/a", text("2"), Expect::Modified(first), None).await.expect("updated");
    assert!(second > first);
    let (entry, revision) = store.get("/a").await.expect("read");
    let entry = entry.expect("present");
    assert_eq!((entry.value, entry.created, entry.modified, revision), (text("2"), first, second, second));

    for wrong in [first, 0, second + 1] {
        let refused = store.delete("/a", wrong).await;
        assert!(
            matches!(&refused, Err(Error::Conflict { current: Some(c), .. }) if c.modified == second),
            "{refused:?}"
        );
    }
    let second = store.put("/a", text("3"), is(second, "2"), None).await.expect("it is what it is");
    let third = store.delete("/a", second).await.expect("deleted");
    assert!(third > second);
    assert_eq!(store.get("/a").await.expect("read"), (None, third));
    let again = store.put("/a", text("x"), is(second, "3"), None).await;
    let modified = store.put("/a", text("x"), Expect::Modified(second), None).await;
    for refused in [store.delete("/a", second).await, modified, again] {
        assert!(matches!(&refused, Err(Error::Conflict { current: None, .. })), "{refused:?}");
    }
    let fourth = store.put("/a", text(""), Expect::Absent, None).await.expect("created again, empty");
    let entry = store.get("/a").await.expect("read").0.expect("present");
    assert_eq!((entry.value.len(), entry.created), (0, fourth));

    let largest = "x".repeat(MAX_VALUE_BYTES);
    store.put("/b", text(largest.clone()), Expect::Absent, None).await.expect("the largest value");
    assert_eq!(store.get("/b").await.expect("read").0.expect("present").value, text(largest.clone()));
    let refused = store.put("/c", text(largest.clone() + "x"), Expect::Absent, None).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let (expected, old) = ("y".repeat(MAX_EXPECTED_BYTES), "/d");
    let modified = store.put(old, text(expected.clone()), Expect::Absent, None).await.expect("a value to expect");
    let modified = store.put(old, text(largest), is(modified, &expected), None).await.expect("the largest request");
    let refused = store.put(old, text("x"), is(modified, &(expected.clone() + "y")), None).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.get("/c").await.expect("read").0, None);
}

pub(crate) async fn of_concurrent_writers_one_wins(world: World) {
    let store = world.open().await;
    store.put("/counter", text("0"), Expect::Absent, None).await.expect("created");
    let add = || {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                loop {
                    let entry = store.get("/counter").await.expect("read").0.expect("present");
                    let number: u32 = String::from_utf8_lossy(&entry.value).parse().expect("a number");
                    match store
                        .put("/counter", text((number + 1).to_string()), Expect::Modified(entry.modified), None)
                        .await
                    {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    };
    for task in (0..8).map(|_| add()).collect::<Vec<_>>() {
        task.await.expect("a writer");
    }
    assert_eq!(store.get("/counter").await.expect("read").0.expect("present").value, text("200"));
}

pub(crate) async fn pages_show_one_snapshot_while_writers_go_on(world: World) {
    let store = world.open().await;
    // More than any backend reads in one piece; and neighbours that do not belong to the prefix.
    let names: Vec<String> = (0..1203).map(|n| format!("/r/a/{n:05}")).collect();
    let (store_ref, names_ref) = (&store, &names);
    futures::stream::iter(names_ref)
        .for_each_concurrent(64, |name| async move {
            store_ref.put(name, text(format!("old {name}")), Expect::Absent, None).await.expect("created");
        })
        .await;
    for neighbour in ["/r/a", "/r/a0", "/r/Z/1", "/r/b/1"] {
        store.put(neighbour, text("x"), Expect::Absent, None).await.expect("created");
    }

    let first = store.list("/r/a/", None, 100, None).await.expect("first page");
    assert_eq!((first.entries.len(), first.more), (100, true));
    let writer = tokio::spawn({
        let (store, names) = (store.clone(), names.clone());
        async move {
            for (n, name) in names.iter().enumerate() {
                let entry = store.get(name).await.expect("read").0.expect("present");
                if n % 3 == 0 {
                    store.delete(name, entry.modified).await.expect("deleted");
                } else {
                    store.put(name, text("new"), Expect::Modified(entry.modified), None).await.expect("updated");
                }
                store.put(&format!("{name}+"), text("new"), Expect::Absent, None).await.expect("created");
            }
        }
    });
    let mut seen = first.entries;
    let mut more = first.more;
    while more {
        let after = seen.last().expect("not empty").key.clone();
        let page = store.list("/r/a/", Some(&after), 100, Some(first.revision)).await.expect("a page");
        assert_eq!(page.revision, first.revision);
        more = page.more;
        seen.extend(page.entries);
    }
    writer.await.expect("the writer");
    let all_at_once = store.list("/r/a/", None, 0, Some(first.revision)).await.expect("the snapshot");
    assert_eq!(seen, all_at_once.entries);
    assert_eq!(seen.iter().map(|e| &e.key).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert!(seen.iter().all(|e| e.value == text(format!("old {}", e.key)) && e.modified <= first.revision));

    let now = store.list("/r/a/", None, 0, None).await.expect("the present");
    let kept: Vec<String> =
        names.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, name)| name.clone()).collect();
    let mut expected: Vec<String> = kept.into_iter().chain(names.iter().map(|name| format!("{name}+"))).collect();
    expected.sort();
    assert_eq!(now.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>(), expected);
    assert!(now.entries.iter().all(|e| e.value == text("new")));

    let newest = store.revision().await.expect("revision");
    assert_eq!(now.revision, newest);
    let future = store.list("/", None, 0, Some(newest + 1)).await;
    assert!(
        matches!(future, Err(Error::Future { asked, current }) if asked == newest + 1 && current == newest),
        "{future:?}"
    );
    let before_all = store.list("/", None, 0, Some(0)).await.expect("the time before everything");
    assert!(before_all.entries.is_empty() && !before_all.more);
    assert_eq!(store.list("", None, 0, None).await.expect("everything").entries.len(), expected.len() + 4);
}

pub(crate) async fn a_time_to_live_ends_in_a_deletion(world: World) {
    let store = world.open().await;
    let mut watch = store.watch("/ttl/", store.revision().await.expect("revision")).await.expect("watch");
    let ttl = Duration::from_secs(4);
    let begun = Instant::now();
    let kept = store.put("/ttl/kept", text("1"), Expect::Absent, Some(ttl)).await.expect("created");
    let extended = store.put("/ttl/extended", text("1"), Expect::Absent, Some(ttl)).await.expect("created");
    store.put("/ttl/gone-1", text("g1"), Expect::Absent, Some(ttl)).await.expect("created");
    let last = store.put("/ttl/gone-2", text("g2"), Expect::Absent, Some(ttl)).await.expect("created");
    let refused = store.put("/ttl/gone-2", text("x"), Expect::Absent, Some(ttl)).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    store.put("/ttl/kept", text("2"), Expect::Modified(kept), None).await.expect("kept for ever");
    store.put("/ttl/extended", text("2"), Expect::Modified(extended), Some(ttl * 3)).await.expect("extended");
    take(&mut watch, 6).await;

    let mut gone = take(&mut watch, 2).await;
    let waited = begun.elapsed();
    assert!(waited >= ttl, "gone after {waited:?}");
    assert!(gone[0].revision() > last && gone[1].revision() > gone[0].revision(), "{gone:?}");
    gone.sort_by(|a, b| a.key().cmp(b.key()));
    for (event, key, value) in [(&gone[0], "/ttl/gone-1", "g1"), (&gone[1], "/ttl/gone-2", "g2")] {
        match event {
            Event::Delete { key: found, previous, .. } => {
                assert_eq!((found.as_str(), previous), (key, &Some(text(value))))
            }
            other => panic!("{other:?}"),
        }
    }
    let left: Vec<String> =
        store.list("/ttl/", None, 0, None).await.expect("list").entries.into_iter().map(|e| e.key).collect();
    assert_eq!(left, ["/ttl/extended", "/ttl/kept"]);
    let end = take(&mut watch, 1).await;
    assert_eq!(end[0].key(), "/ttl/extended");
    assert!(begun.elapsed() >= ttl * 3);
    assert_eq!(store.revision().await.expect("revision"), end[0].revision());
    let kept = store.get("/ttl/kept").await.expect("read").0.expect("present");
    assert_eq!(kept.value, text("2"));
    // Nothing more happens: the next event is our own.
    let own = store.put("/ttl/own", text(""), Expect::Absent, None).await.expect("created");
    let next = in_time("the next event", watch.next()).await.expect("goes on").expect("no error");
    assert_eq!(next.iter().map(Event::revision).collect::<Vec<_>>(), [own]);
}
