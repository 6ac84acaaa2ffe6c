//! Transitions that this server saw as coordinator and the API doesn't have yet: it may be away while they happen, and
//! another server may be coordinator when it returns.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::names::GroupName;
use holdfast_core::status::Transition;
use tokio::sync::watch;

use crate::driver_loop::Snapshot;

/// Transitions of a group that are kept; a status has no more.
const KEPT: usize = 10;

/// What is not told yet, by group; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct History {
    groups: Arc<Mutex<BTreeMap<GroupName, Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Newest first.
    all: Vec<Transition>,
    told: bool,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupName, Entry>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, snapshot: &Snapshot) {
        let coordinator = snapshot.status.coordinator.iter().flat_map(|coordinator| &coordinator.groups);
        let now = coordinator.map(|(name, placed)| (name, &placed.transitions));
        let mut groups = self.lock();
        // Only the newest snapshot is seen: what was said in one before, as coordinator, stands in this one, too.
        for (name, transitions) in now.chain(&snapshot.status.history) {
            let entry = groups.entry(name.clone()).or_default();
            // A coordinator that has just begun knows nothing; what was seen before is not lost by that.
            let mut all = transitions.clone();
            let new = |old: &&Transition| !transitions.iter().any(|t| (t.began, t.tag) == (old.began, old.tag));
            all.extend(entry.all.iter().filter(new).cloned());
            all.truncate(KEPT);
            if entry.all != all {
                *entry = Entry { all, told: false };
            }
        }
    }

    /// What the API doesn't have yet.
    pub fn untold(&self) -> Vec<(GroupName, Vec<Transition>)> {
        self.lock().iter().filter(|(_, e)| !e.told).map(|(name, e)| (name.clone(), e.all.clone())).collect()
    }

    /// The API has these now.
    pub fn told(&self, group: &GroupName, transitions: &[Transition]) {
        if let Some(entry) = self.lock().get_mut(group)
            && entry.all == transitions
        {
            entry.told = true;
        }
    }
}

/// Keeps the history for as long as the agent runs, whether the API is there or not.
pub(super) async fn keep(mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>, history: History) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            history.take(&snapshot);
        }
    }
}
