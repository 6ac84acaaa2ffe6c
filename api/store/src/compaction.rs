//! Forgetting history by itself, so that a store does not grow for ever.
//!
//! Once in a while the newest revision is noted with the time; what was noted longer ago than the history to keep is
//! forgotten. After a restart the notes begin anew, so more is kept than asked for, never less.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{Revision, Store};

/// History that clients may rely on to resume a watch or a list. Stock servers keep 5 minutes; agents and controllers
/// that were away for a restart of their host should come back without a new list.
pub const HISTORY: Duration = Duration::from_secs(600);

/// Notes per history length: the history kept is at most a tenth longer than asked for.
const NOTES: u32 = 10;

/// The task that compacts. Dropping it ends the task.
#[derive(Debug)]
pub struct Compaction {
    task: JoinHandle<()>,
}

impl Drop for Compaction {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts forgetting everything that is older than `keep` (normally [`HISTORY`]; above 0). A store that is not
/// available is tried again at the next note.
pub fn compact_automatically(store: Arc<dyn Store>, keep: Duration) -> Compaction {
    let task = tokio::spawn(async move {
        let mut ticks = tokio::time::interval((keep / NOTES).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut notes = VecDeque::new();
        loop {
            ticks.tick().await;
            match store.revision().await {
                Ok(revision) => notes.push_back((Instant::now(), revision)),
                Err(error) => tracing::debug!(%error, "no note of the revision for the compaction"),
            }
            if let Some(revision) = take_old(&mut notes, Instant::now(), keep) {
                match store.compact(revision).await {
                    Ok(()) => tracing::debug!(revision, "forgot the history before"),
                    Err(error) => tracing::warn!(revision, %error, "could not forget old history; trying again later"),
                }
            }
        }
    });
    Compaction { task }
}

/// Takes the notes that are old enough, and returns the revision of the newest of them.
fn take_old(notes: &mut VecDeque<(Instant, Revision)>, now: Instant, keep: Duration) -> Option<Revision> {
    let old = notes.iter().take_while(|(noted, _)| now.duration_since(*noted) >= keep).count();
    notes.drain(..old).next_back().map(|(_, revision)| revision)
}
