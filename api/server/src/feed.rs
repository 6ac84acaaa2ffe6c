//! Fills the caches of all kinds from the store and knows how fresh they are.
//!
//! There is one store watch for all kinds together, not one for each. Events of one watch come in revision order, so
//! "everything up to revision R was applied" is one number that holds for every kind, also for those that nobody
//! writes. With it a read proves its freshness by a linearizable read of the store's revision, and bookmarks of idle
//! kinds move on; no progress event of the store is needed (they are unreliable on old etcd versions).
//!
//! A store that was restored from a backup has another history behind the revision that was followed, even if its
//! counter has passed that revision again. So before a watch goes on, the last event that was seen is looked for where it
//! was. If it isn't there everything is read again, and every watch of a client ends with 410.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use holdfast_store::{Error, Event, Revision, Store};
use tokio::sync::watch;

use crate::cache::{Change, KindCache};
use crate::kept::Kept;
use crate::object::Object;
use crate::registry::{Registry, ResourceDef};

/// Everything of the API server is below this prefix.
pub(crate) const ROOT: &str = "/registry/";
/// What is watched: also what others keep in the same etcd, so that their writes do not look like a lag.
const WATCHED: &str = "/";
/// How many revisions before the start are fetched from the store's history, so that watches survive a restart.
const LOOK_BACK: Revision = 5_000;
/// Silence of the store's history that is taken for its end.
const LOOK_BACK_SILENCE: Duration = Duration::from_millis(500);
/// How often a snapshot over all kinds is tried.
const SNAPSHOT_ATTEMPTS: usize = 10;
/// Pause before the store is tried again.
const RETRY: Duration = Duration::from_millis(500);

struct Kind {
    def: Arc<ResourceDef>,
    cache: Arc<KindCache>,
}

/// The caches of all stored kinds.
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    kinds: BTreeMap<String, Kind>,
    /// 0 until the first listing is complete.
    applied: watch::Sender<Revision>,
    /// Why the store can't be followed at present.
    lost: Mutex<Option<String>>,
    /// The newest thing that is known of the store's history.
    last: Mutex<Option<Seen>>,
    /// How many histories were followed.
    history: AtomicU64,
}

/// Something in the history of the store: a key that was written, or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    revision: Revision,
    key: String,
    value: Option<Bytes>,
}

impl Seen {
    fn of(event: &Event) -> Seen {
        let value = match event {
            Event::Put { entry, .. } => Some(entry.value.clone()),
            Event::Delete { .. } => None,
        };
        Seen { revision: event.revision(), key: event.key().to_owned(), value }
    }

    /// Whether the store's history has it; nothing else was written with that revision then.
    async fn is_in(&self, store: &dyn Store) -> Result<bool, Error> {
        let at = async |revision| {
            let page = store.list(&self.key, None, 1, Some(revision)).await?;
            Ok::<_, Error>(page.entries.into_iter().next().filter(|entry| entry.key == self.key))
        };
        let now = at(self.revision).await?;
        Ok(match &self.value {
            Some(value) => now.is_some_and(|entry| entry.modified == self.revision && entry.value == *value),
            None => now.is_none() && at(self.revision - 1).await?.is_some(),
        })
    }
}

impl Feed {
    /// Empty caches; [`Feed::run`] fills them.
    pub(crate) fn new(store: Arc<dyn Store>, registry: &Registry) -> Feed {
        let kind = |def: &Arc<ResourceDef>| Kind { def: Arc::clone(def), cache: Arc::default() };
        let kinds = registry.stored().map(|def| (def.prefix(), kind(def))).collect();
        Feed {
            store,
            kinds,
            applied: watch::Sender::new(0),
            lost: Mutex::new(None),
            last: Mutex::new(None),
            history: AtomicU64::new(0),
        }
    }

    /// The cache of a kind; views share the cache of what they show.
    pub(crate) fn cache(&self, def: &ResourceDef) -> Option<&Arc<KindCache>> {
        self.kinds.get(&def.prefix()).map(|kind| &kind.cache)
    }

    /// The revision up to which everything was applied.
    pub(crate) fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Which history of the store the caches are from. It changes before they do.
    pub(crate) fn history(&self) -> u64 {
        self.history.load(Ordering::SeqCst)
    }

    /// Wakes up when anything was applied.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// Why the caches may be stale, none if the store is being followed.
    pub(crate) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_lost(&self, why: Option<String>) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Waits until everything up to `revision` was applied; false if that takes longer than `patience`.
    pub(crate) async fn reached(&self, revision: Revision, patience: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        tokio::time::timeout(patience, applied.wait_for(|at| *at >= revision && *at > 0)).await.is_ok()
    }

    /// Follows the store for ever.
    pub(crate) async fn run(&self) {
        loop {
            let result = if self.applied() == 0 { self.start().await } else { self.resume().await };
            let Err(error) = result else { continue };
            if let Error::Compacted { oldest, .. } = error {
                tracing::warn!(oldest, "the store forgot changes that were not seen; everything is read again");
                self.history.fetch_add(1, Ordering::SeqCst);
                *self.lock_last() = None;
                self.applied.send_replace(0);
                continue;
            }
            if self.lost().is_none() {
                tracing::warn!(%error, "the store can't be followed; reads are answered from memory until it is back");
            }
            self.set_lost(Some(error.to_string()));
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Goes on where it was, if the store did, too.
    async fn resume(&self) -> Result<(), Error> {
        let applied = self.applied();
        let last = self.lock_last().clone();
        let same = match last {
            // The counter of a store that only went on has not gone back.
            _ if self.store.revision().await? < applied => false,
            Some(last) => last.is_in(&*self.store).await?,
            None => true,
        };
        if same {
            return self.follow(applied).await;
        }
        tracing::error!(
            applied,
            "the store has another history than the one that was followed: it was restored from a backup, or it is another \
             one; everything is read again, and clients have to"
        );
        // ORDER: before the caches change, so that no watcher takes the new history for the rest of its own.
        self.history.fetch_add(1, Ordering::SeqCst);
        *self.lock_last() = None;
        self.applied.send_replace(0);
        self.start().await
    }

    fn lock_last(&self) -> MutexGuard<'_, Option<Seen>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is newer than what is known.
    fn remember_last(&self, seen: Seen) {
        let mut last = self.lock_last();
        if last.as_ref().is_none_or(|last| last.revision <= seen.revision) {
            *last = Some(seen);
        }
    }

    /// Reads everything, then what the store remembers of the time before, then follows.
    async fn start(&self) -> Result<(), Error> {
        let page = self.store.list(ROOT, None, 0, None).await?;
        let mut objects: BTreeMap<&str, BTreeMap<String, Arc<Kept>>> = BTreeMap::new();
        for entry in &page.entries {
            let Some((prefix, kind)) = self.kind(&entry.key) else { continue };
            match Kept::decode(&kind.def, entry) {
                Ok(object) => {
                    objects.entry(prefix).or_default().insert(entry.key.clone(), Arc::new(object));
                }
                Err(error) => tracing::error!(%error, "an object in the store is left out"),
            }
        }
        if let Some(newest) = page.entries.iter().max_by_key(|entry| entry.modified) {
            let value = Some(newest.value.clone());
            self.remember_last(Seen { revision: newest.modified, key: newest.key.clone(), value });
        }
        for (prefix, kind) in &self.kinds {
            kind.cache.reset(objects.remove(prefix.as_str()).unwrap_or_default(), page.revision);
        }
        self.look_back(page.revision).await;
        self.applied.send_replace(page.revision.max(1));
        self.follow(page.revision).await
    }

    /// Fetches changes up to `until` out of the store's history. Best effort: without them clients list again.
    async fn look_back(&self, until: Revision) {
        let mut floor = until.saturating_sub(LOOK_BACK);
        let stream = match self.store.watch(WATCHED, floor).await {
            Err(Error::Compacted { oldest, .. }) => {
                floor = oldest;
                self.store.watch(WATCHED, floor).await
            }
            other => other,
        };
        let Ok(mut stream) = stream else { return };
        let mut older: BTreeMap<&str, Vec<Change>> = BTreeMap::new();
        let mut reached = floor;
        while reached < until {
            match tokio::time::timeout(LOOK_BACK_SILENCE, stream.next()).await {
                Ok(Some(Ok(batch))) => {
                    for event in batch {
                        reached = reached.max(event.revision());
                        if event.revision() <= until {
                            self.remember_last(Seen::of(&event));
                        }
                        let change = self.change(&event).filter(|_| event.revision() <= until);
                        let Some((prefix, _, change)) = change else { continue };
                        older.entry(prefix).or_default().push(change);
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::info!(%error, "the store's history can't be read; clients list again");
                    return;
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        for (prefix, kind) in &self.kinds {
            kind.cache.remember(older.remove(prefix.as_str()).unwrap_or_default(), floor);
        }
    }

    async fn follow(&self, after: Revision) -> Result<(), Error> {
        let mut stream = self.store.watch(WATCHED, after).await?;
        if self.lost().is_some() {
            tracing::info!("the store is followed again");
        }
        self.set_lost(None);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            let newest = batch.iter().map(Event::revision).fold(self.applied(), Revision::max);
            if let Some(last) = batch.last() {
                self.remember_last(Seen::of(last));
            }
            for revision in batch.chunk_by(|a, b| a.revision() == b.revision()) {
                self.apply(revision);
            }
            self.applied.send_replace(newest);
        }
        Err(Error::Unavailable("the watch of the store ended".into()))
    }

    /// Applies all events of one revision.
    fn apply(&self, events: &[Event]) {
        let mut changes: BTreeMap<&str, (&Kind, Vec<Change>)> = BTreeMap::new();
        for (prefix, kind, change) in events.iter().filter_map(|event| self.change(event)) {
            changes.entry(prefix).or_insert_with(|| (kind, Vec::new())).1.push(change);
        }
        for (kind, changes) in changes.into_values() {
            kind.cache.apply(changes);
        }
    }

    fn kind(&self, key: &str) -> Option<(&str, &Kind)> {
        let (at, _) = key.match_indices('/').nth(3)?;
        self.kinds.get_key_value(&key[..=at]).map(|(prefix, kind)| (prefix.as_str(), kind))
    }

    /// The change that an event of the store means; none for keys of no kind and for objects that can't be read.
    fn change(&self, event: &Event) -> Option<(&str, &Kind, Change)> {
        let (key, previous) = match event {
            Event::Put { entry, previous } => (&entry.key, previous),
            Event::Delete { key, previous, .. } => (key, previous),
        };
        let (prefix, kind) = self.kind(key)?;
        let revision = event.revision();
        let report = |error: String| tracing::error!(%error, "a change in the store is left out");
        let known = kind.cache.get(key).filter(|object| object.revision < revision);
        let before = match (known, previous) {
            (Some(known), _) => Some(known),
            (None, Some(bytes)) => {
                let object = Object::from_bytes(&kind.def, key, bytes, revision - 1).map_err(report).ok();
                object.map(|object| Arc::new(Kept::of(&kind.def, &object)))
            }
            (None, None) => None,
        };
        let now = match event {
            Event::Put { entry, .. } => Some(Arc::new(Kept::decode(&kind.def, entry).map_err(report).ok()?)),
            Event::Delete { .. } => {
                before.as_ref()?;
                None
            }
        };
        Some((prefix, kind, Change::new(revision, now, before)))
    }

    /// The objects of a kind below a prefix with the exact revision that they are from.
    pub(crate) fn snapshot(&self, def: &ResourceDef, prefix: &str) -> (Vec<Arc<Kept>>, Revision) {
        // ORDER: read before the objects; whatever was applied until then is in them.
        let applied = self.applied();
        let (objects, newest) = self.cache(def).map(|cache| cache.list(prefix)).unwrap_or_default();
        (objects, applied.max(newest))
    }

    /// Everything in all caches as of one revision, for the collector; none if writes come too fast to get hold of
    /// one.
    pub(crate) fn everything(&self) -> Option<Vec<(Arc<ResourceDef>, Arc<Kept>)>> {
        (0..SNAPSHOT_ATTEMPTS).find_map(|_| {
            let applied = self.applied();
            let mut all = Vec::new();
            for kind in self.kinds.values() {
                let (objects, newest) = kind.cache.list("");
                if newest > applied {
                    return None;
                }
                all.extend(objects.into_iter().map(|object| (Arc::clone(&kind.def), object)));
            }
            Some(all)
        })
    }
}
