//! Whether the store is linearizable: clients read and write a few keys at once while faults happen, everything that they
//! asked and were answered is recorded with its time, and the record is held against the store's own history.
//!
//! The store gives every write a revision, so there is nothing to search for: the order is claimed, and what remains is to
//! check that it explains every answer, and that what ended before something else began stands before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_store::testing::{EtcdCluster, TempStore};
use holdfast_store::{Error, Event, Expect, Revision, Store, open};

const KEYS: u64 = 3;
const CLIENTS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(30);

/// What was asked and what came back.
#[derive(Debug, Clone)]
enum Answer {
    /// A write of this value, expecting that revision of the key (0: absent), got this revision.
    Written { expected: Revision, value: String, revision: Revision },
    /// A write of this value whose outcome is not known.
    Unknown { value: String },
    /// A write that was refused because the key was at this revision (0: absent).
    Refused { expected: Revision, found: Revision },
    /// A read of the key: revision of the key (0: absent), and of the store.
    Read { found: Revision, store: Revision },
}

#[derive(Debug, Clone)]
struct Call {
    key: String,
    begin: Instant,
    end: Instant,
    answer: Answer,
}

type Record = Arc<Mutex<Vec<Call>>>;

/// One client: reads a key, then tries to replace what it read, now and then with something older.
async fn client(store: Arc<dyn Store>, id: u64, record: Record, stop: Arc<AtomicBool>) {
    let mut older = BTreeMap::new();
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let key = format!("/lin/{}", (id + n) % KEYS);
        let begin = Instant::now();
        let read = match n % 3 {
            0 => store.list(&key, None, 1, None).await.map(|page| (page.entries.into_iter().next(), page.revision)),
            _ => store.get(&key).await,
        };
        let end = Instant::now();
        let Ok((entry, at)) = read else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let found = entry.map_or(0, |entry| entry.modified);
        let push = |begin, end, answer| {
            record.lock().expect("lock").push(Call { key: key.clone(), begin, end, answer });
        };
        push(begin, end, Answer::Read { found, store: at });

        let expected = if n % 5 == 4 { older.insert(key.clone(), found).unwrap_or(0) } else { found };
        let expect = if expected == 0 { Expect::Absent } else { Expect::Modified(expected) };
        let value = format!("{id}-{n}");
        let begin = Instant::now();
        let written = store.put(&key, Bytes::from(value.clone()), expect, None).await;
        let end = Instant::now();
        match written {
            Ok(revision) => push(begin, end, Answer::Written { expected, value, revision }),
            Err(Error::Conflict { current, .. }) => {
                let found = current.map_or(0, |entry| entry.modified);
                push(begin, end, Answer::Refused { expected, found });
            }
            Err(Error::Unavailable(_)) => push(begin, end, Answer::Unknown { value }),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The newest revision of the key up to `at`; 0 if there is none.
fn newest(history: &[(Revision, String)], at: Revision) -> Revision {
    let count = history.partition_point(|(revision, _)| *revision <= at);
    if count == 0 { 0 } else { history[count - 1].0 }
}

/// Holds the record against the history of each key, in the order of revisions.
fn check(record: &[Call], history: &BTreeMap<String, Vec<(Revision, String)>>) {
    let none = Vec::new();
    let history_of = |key: &str| history.get(key).unwrap_or(&none);
    // The revision that an answer proves to have been reached by its end.
    let mut reached: Vec<(Instant, Revision)> = Vec::new();
    let mut seen_values = BTreeMap::new();
    for call in record {
        let history = history_of(&call.key);
        match &call.answer {
            Answer::Written { expected, value, revision } => {
                assert!(
                    history.contains(&(*revision, value.clone())),
                    "acknowledged, but not in the history: {call:?}"
                );
                assert_eq!(newest(history, revision - 1), *expected, "replaced something else than expected: {call:?}");
                reached.push((call.end, *revision));
            }
            Answer::Unknown { .. } => {}
            Answer::Refused { expected, found } => {
                assert_ne!(expected, found, "refused without a reason: {call:?}");
                assert!(*found == 0 || newest(history, *found) == *found, "never there: {call:?}");
                reached.push((call.end, *found));
            }
            Answer::Read { found, store } => {
                assert_eq!(newest(history, *store), *found, "a read that shows no state that there was: {call:?}");
                reached.push((call.end, *store));
            }
        }
    }
    reached.sort();
    // The largest revision that was proven before each moment.
    let mut highest = 0;
    let marks: Vec<(Instant, Revision)> = reached
        .into_iter()
        .map(|(at, revision)| {
            highest = highest.max(revision);
            (at, highest)
        })
        .collect();
    let before = |moment: Instant| {
        let count = marks.partition_point(|(at, _)| *at < moment);
        if count == 0 { 0 } else { marks[count - 1].1 }
    };
    for call in record {
        let floor = before(call.begin);
        let history = history_of(&call.key);
        match &call.answer {
            Answer::Written { revision, .. } => {
                assert!(*revision > floor, "before what had ended at {floor}: {call:?}")
            }
            Answer::Read { store, .. } => assert!(*store >= floor, "older than what had ended at {floor}: {call:?}"),
            Answer::Refused { found, .. } => {
                assert!(*found >= newest(history, floor), "older than what had ended at {floor}: {call:?}");
            }
            Answer::Unknown { value } => {
                let times: Vec<_> = history.iter().filter(|(_, written)| written == value).collect();
                assert!(times.len() <= 1, "done twice: {call:?}");
                assert!(times.iter().all(|(revision, _)| *revision > floor), "before it was asked for: {call:?}");
            }
        }
    }
    for (revision, value) in history.values().flatten() {
        assert_eq!(seen_values.insert(value.clone(), *revision), None, "the value {value} was written twice");
    }
}

/// Runs clients while `faults` happen; then checks what they saw and what a watch saw from the beginning.
async fn run(stores: Vec<Arc<dyn Store>>, faults: impl Future<Output = ()>) {
    let start = stores[0].revision().await.expect("a revision");
    let (record, stop) = (Record::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .zip(stores.iter().cycle())
        .map(|(id, store)| tokio::spawn(client(store.clone(), id, record.clone(), stop.clone())))
        .collect();
    faults.await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("it ends").expect("no panic");
    }
    // A write whose outcome was unknown may still be on its way; it is behind the last one of all.
    let end = stores[0].put("/lin/end", Bytes::new(), Expect::Absent, None).await.expect("the last write");
    let mut watch = stores[0].watch("/lin/", start).await.expect("a watch");
    let mut history: BTreeMap<String, Vec<(Revision, String)>> = BTreeMap::new();
    let mut last = start;
    while last < end {
        let batch =
            tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("goes on").expect("well");
        for event in batch {
            assert!(event.revision() > last, "{event:?} after {last}");
            last = event.revision();
            let Event::Put { entry, .. } = event else { panic!("{event:?}") };
            let value = String::from_utf8(entry.value.to_vec()).expect("text");
            history.entry(entry.key).or_default().push((entry.modified, value));
        }
    }
    history.remove("/lin/end");
    let record = record.lock().expect("lock").clone();
    let acknowledged = record.iter().filter(|call| matches!(call.answer, Answer::Written { .. })).count();
    let refused = record.iter().filter(|call| matches!(call.answer, Answer::Refused { .. })).count();
    assert!(acknowledged > 100 && refused > 10, "too little happened: {acknowledged} writes, {refused} refusals");
    check(&record, &history);
}

/// Waits until that many more calls were answered by writing something.
async fn progress(store: &Arc<dyn Store>, writes: Revision) {
    let begin = Instant::now();
    let mut goal = None;
    loop {
        assert!(begin.elapsed() < PATIENCE, "nothing is written any more");
        if let Ok(now) = store.revision().await
            && now >= *goal.get_or_insert(now + writes)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_linearizable() {
    let temporary = TempStore::new().expect("a store");
    let store = temporary.store();
    run(vec![store.clone()], async {
        for _ in 0..5 {
            progress(&store, 100).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_linearizable_while_members_die_and_stand_still() {
    let mut etcd = EtcdCluster::new(3).expect("certificates");
    etcd.start().expect("etcd is installed (package etcd-server)");
    let mut stores = Vec::new();
    for first in 0..3 {
        let store = open(&etcd.spec(first), &etcd.file("unused"), Some(&etcd.tls())).expect("a store");
        let begin = Instant::now();
        while let Err(error) = store.revision().await {
            assert!(begin.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stores.push(store);
    }
    let watcher = stores[0].clone();
    run(stores, async {
        for member in 0..3 {
            etcd.kill(member);
            progress(&watcher, 50).await;
            etcd.start_one(member).expect("it starts");
            progress(&watcher, 50).await;
            etcd.signal(member, "STOP").expect("it runs");
            progress(&watcher, 50).await;
            etcd.signal(member, "CONT").expect("it runs");
            progress(&watcher, 50).await;
        }
        etcd.kill_all();
        etcd.start().expect("they start");
        progress(&watcher, 50).await;
    })
    .await;
}

/// The check itself finds what it is for.
#[test]
#[should_panic(expected = "older than what had ended")]
fn a_read_of_the_past_is_found() {
    let base = Instant::now();
    let at = |ms| base + Duration::from_millis(ms);
    let call = |begin, end, answer| Call { key: "/lin/0".into(), begin: at(begin), end: at(end), answer };
    let write = |expected, value: &str, revision| Answer::Written { expected, value: value.into(), revision };
    let record =
        [call(0, 1, write(0, "a", 1)), call(2, 3, write(1, "b", 2)), call(4, 5, Answer::Read { found: 1, store: 1 })];
    check(&record, &[("/lin/0".to_owned(), vec![(1, "a".to_owned()), (2, "b".to_owned())])].into());
}
