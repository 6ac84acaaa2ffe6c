//! One kind's objects in memory with the recent history of their changes.
//!
//! Watchers keep a revision as their position and read the history at their own pace, so there is no buffer per
//! watcher and writers never wait. A watcher whose position fell out of the history is told to list again.
//!
//! INVARIANT: `history` holds every change with a revision above `floor`, in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_store::Revision;
use tokio::sync::watch;

use crate::kept::Kept;

/// Changes younger than this are kept, so that clients resume after a pause; a stock server keeps 5 minutes.
const HISTORY_TIME: Duration = Duration::from_secs(600);
/// Changes per kind that are kept at most, which bounds memory.
const HISTORY_MAX: usize = 4_096;

/// A change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Revision of the change.
    pub(crate) revision: Revision,
    /// State after it, none if deleted.
    pub(crate) now: Option<Arc<Kept>>,
    /// State before it, none if created.
    pub(crate) before: Option<Arc<Kept>>,
    /// When it was seen here.
    seen: Instant,
}

impl Change {
    /// A change seen now.
    pub(crate) fn new(revision: Revision, now: Option<Arc<Kept>>, before: Option<Arc<Kept>>) -> Change {
        Change { revision, now, before, seen: Instant::now() }
    }
}

/// The position is older than the history; the oldest that works is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOld(pub Revision);

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, Arc<Kept>>,
    history: VecDeque<Arc<Change>>,
    floor: Revision,
    /// Revision of the newest change, or of the listing.
    newest: Revision,
}

/// The cache of one kind.
#[derive(Debug)]
pub(crate) struct KindCache {
    inner: Mutex<Inner>,
    changed: watch::Sender<Revision>,
}

impl Default for KindCache {
    fn default() -> Self {
        KindCache { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl KindCache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every update leaves the maps consistent at each step, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts over with a complete listing as of `revision`; history before it is not known.
    pub(crate) fn reset(&self, objects: BTreeMap<String, Arc<Kept>>, revision: Revision) {
        let mut inner = self.lock();
        *inner = Inner { objects, history: VecDeque::new(), floor: revision, newest: revision };
        drop(inner);
        self.changed.send_replace(revision);
    }

    /// Puts changes that precede the listing in front; complete above `floor`.
    pub(crate) fn remember(&self, older: Vec<Change>, floor: Revision) {
        let mut inner = self.lock();
        for change in older.into_iter().rev() {
            inner.history.push_front(Arc::new(change));
        }
        inner.floor = floor;
    }

    /// Applies all changes of one revision together, so that no reader sees half of them.
    pub(crate) fn apply(&self, changes: Vec<Change>) {
        let Some(revision) = changes.last().map(|change| change.revision) else { return };
        let mut inner = self.lock();
        for change in changes {
            match (&change.now, &change.before) {
                (Some(now), _) => {
                    inner.objects.insert(now.key.clone(), Arc::clone(now));
                }
                (None, Some(before)) => {
                    inner.objects.remove(&before.key);
                }
                (None, None) => {}
            }
            inner.history.push_back(Arc::new(change));
        }
        inner.newest = revision;
        while inner.history.len() > HISTORY_MAX
            || inner.history.front().is_some_and(|oldest| oldest.seen.elapsed() > HISTORY_TIME)
        {
            if let Some(oldest) = inner.history.pop_front() {
                inner.floor = oldest.revision;
            }
        }
        drop(inner);
        self.changed.send_replace(revision);
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// How many watches are open.
    pub(crate) fn watchers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Kept>> {
        self.lock().objects.get(key).cloned()
    }

    /// All objects whose key starts with `prefix`, in key order, and the revision of the newest change that they show.
    pub(crate) fn list(&self, prefix: &str) -> (Vec<Arc<Kept>>, Revision) {
        let inner = self.lock();
        let objects = inner
            .objects
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (objects, inner.newest)
    }

    /// The changes after `position`, at most `limit`.
    pub(crate) fn since(&self, position: Revision, limit: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        let inner = self.lock();
        if position < inner.floor {
            return Err(TooOld(inner.floor));
        }
        let start = inner.history.partition_point(|change| change.revision <= position);
        let mut changes: Vec<Arc<Change>> = inner.history.range(start..).take(limit).cloned().collect();
        // A position is a revision: all changes of one revision go out together.
        if let Some(last) = changes.last().map(|change| change.revision) {
            let rest = inner.history.range(start + changes.len()..);
            changes.extend(rest.take_while(|change| change.revision == last).cloned());
        }
        Ok(changes)
    }

    /// Wakes up when something changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;
    use crate::registry::Registry;

    fn object(key: &str, revision: Revision) -> Arc<Kept> {
        let registry = Registry::new(&[]).expect("built-ins");
        let def = registry.find("", "v1", "configmaps").expect("built in");
        Arc::new(Kept::of(
            def,
            &Object { key: key.into(), revision, value: json!({"metadata": {"name": key}}), remembered: false },
        ))
    }

    #[test]
    fn a_position_before_the_history_is_refused_and_never_skips_changes() {
        let cache = KindCache::default();
        cache.reset([("/a".to_owned(), object("/a", 3))].into(), 5);
        assert_eq!(cache.since(4, 10).unwrap_err(), TooOld(5));
        cache.apply(vec![Change::new(7, Some(object("/b", 7)), None)]);
        cache.apply(vec![Change::new(9, None, Some(object("/a", 3)))]);
        let seen: Vec<_> = cache.since(5, 10).expect("known").iter().map(|c| c.revision).collect();
        assert_eq!(seen, [7, 9]);
        assert_eq!(cache.list("/").0.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["/b"]);
        cache.remember(vec![Change::new(4, Some(object("/a", 4)), None)], 2);
        assert_eq!(cache.since(2, 10).expect("known now").len(), 3);
        assert_eq!(cache.since(1, 10).unwrap_err(), TooOld(2));
    }

    #[test]
    fn changes_of_one_revision_are_not_torn_apart() {
        let cache = KindCache::default();
        cache.apply(["/a", "/b", "/c"].map(|key| Change::new(3, Some(object(key, 3)), None)).to_vec());
        assert_eq!(cache.since(0, 1).expect("known").len(), 3);
    }
}
