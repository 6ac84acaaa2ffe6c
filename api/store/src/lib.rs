//! The one contract that every backend of the API server's store keeps, and the backends.
//!
//! A store is an ordered map from keys to bytes with **one** revision counter for everything in it. Every
//! acknowledged write has its own revision, larger than all before it; the counter never goes back, not even over a
//! restart. What is acknowledged is durable. `tests/contract.rs` is the same suite for every backend.
//!
//! What is not here: objects, kinds, JSON. Those are the API server's.

mod compaction;
mod etcd;
mod range;
mod spec;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;

pub use compaction::{Compaction, HISTORY, compact_automatically};
pub use etcd::{EtcdStore, TlsFiles};
pub use spec::{OpenError, open, snapshot};
pub use sqlite::SqliteStore;

/// Largest value that every backend takes, in bytes. etcd refuses requests above 1.5 MiB; this leaves room for the key
/// and the comparison in the same request.
pub const MAX_VALUE_BYTES: usize = 1_500_000;

/// Largest value that a write can compare with, in bytes: both are in one request, and etcd refuses those above 1.5 MiB.
pub const MAX_EXPECTED_BYTES: usize = 64 * 1024;

/// A point in the store's history. 0 is "before anything"; the first write makes 1 or more.
pub type Revision = u64;

/// A key with its value as of some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, e.g. `/registry/holdfast.dev/subclusters/ha/db`.
    pub key: String,
    /// The stored bytes.
    pub value: Bytes,
    /// Revision of the write that created the key (last time it came to exist).
    pub created: Revision,
    /// Revision of the newest write of the key.
    pub modified: Revision,
}

/// What a write expects to find; otherwise it is refused with [`Error::Conflict`] and nothing changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key's newest write has this revision.
    Modified(Revision),
    /// As [`Expect::Modified`], and the value is this one, of at most [`MAX_EXPECTED_BYTES`]. For who remembers the key from
    /// before: after a restore the same revision may be another write.
    Is {
        /// Revision of the key's newest write.
        modified: Revision,
        /// Its value.
        value: Bytes,
    },
}

/// One page of a range read, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The snapshot that all entries are from.
    pub revision: Revision,
    /// Entries of the same snapshot after the last one of this page.
    pub more: bool,
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key was written; `previous` is the value before, absent if the key was created.
    Put {
        /// The state after the write.
        entry: Entry,
        /// The value before the write.
        previous: Option<Bytes>,
    },
    /// The key was deleted, or its time to live ended.
    Delete {
        /// The key.
        key: String,
        /// Revision of the deletion.
        revision: Revision,
        /// The last value.
        previous: Option<Bytes>,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Event::Put { entry, .. } => &entry.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// Revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { entry, .. } => entry.modified,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The expectation did not hold; `current` is what is there now.
    #[error("{key} is not as expected")]
    Conflict {
        /// The key that was to be written.
        key: String,
        /// What is stored there, none if absent.
        current: Option<Entry>,
    },
    /// The revision is older than what the store remembers.
    #[error("revision {asked} is forgotten; the oldest still known is {oldest}")]
    Compacted {
        /// The revision that was asked for.
        asked: Revision,
        /// The oldest revision that can be read or watched from.
        oldest: Revision,
    },
    /// The revision lies in the future.
    #[error("revision {asked} is not reached yet; the newest is {current}")]
    Future {
        /// The revision that was asked for.
        asked: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The backend can't be reached or can't write. The outcome of a write is unknown; try again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The value is larger than [`MAX_VALUE_BYTES`], or the expected one than [`MAX_EXPECTED_BYTES`]; nothing was written.
    #[error(
        "the value of {key} has {size} bytes; at most {MAX_VALUE_BYTES} can be stored, and {MAX_EXPECTED_BYTES} compared"
    )]
    TooLarge {
        /// The key that was to be written.
        key: String,
        /// Size of the value in bytes.
        size: usize,
    },
    /// The backend has no room for more: its quota or its disk is used up. Reads go on. Trying again helps only once somebody
    /// has made room.
    #[error("the store is full: {0}")]
    Full(String),
    /// The backend holds something that we did not write.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A stream of batches of changes; all events of one revision are in one batch. Ends with an error when the watch
/// can't go on: after [`Error::Compacted`] the caller lists again, after [`Error::Unavailable`] it may watch again from
/// the last revision that it has seen. Nothing is sent while nothing changes.
pub type WatchStream = BoxStream<'static, Result<Vec<Event>>>;

/// The contract. All reads are linearizable unless they name a revision.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key, with the newest revision of the store at that moment.
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision)>;

    /// Reads the keys that start with `prefix`, in order, after the key `after` (exclusive), at most `limit`
    /// (0 = all), from the snapshot `at` (none = newest).
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page>;

    /// Writes a key if `expect` holds; `ttl` makes it vanish by itself after that time unless written again: not before
    /// it (a clock set forward aside), normally within seconds of it, and after a change of etcd's leader up to `ttl`
    /// later. Values above [`MAX_VALUE_BYTES`] are refused with [`Error::TooLarge`].
    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Revision>;

    /// Deletes a key whose newest write is `modified`.
    async fn delete(&self, key: &str, modified: Revision) -> Result<Revision>;

    /// All changes of keys that start with `prefix` with a revision greater than `after`, in order, none left out.
    /// `after` below the oldest known revision is [`Error::Compacted`] (from this call or as the stream's only item),
    /// above the newest it is [`Error::Future`]. A slow reader never holds up a writer.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream>;

    /// Forgets history before `revision`: afterwards `revision` is the oldest snapshot and the oldest `after` of a
    /// watch. Present values stay, the counter goes on. A revision that is forgotten already changes nothing.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// The newest revision, by a linearizable read.
    async fn revision(&self) -> Result<Revision>;
}

/// Refuses a write that not every backend can take.
fn check_size(key: &str, value: &Bytes, expect: &Expect) -> Result<()> {
    let compared = match expect {
        Expect::Is { value, .. } => value.len(),
        Expect::Absent | Expect::Modified(_) => 0,
    };
    for (size, most) in [(value.len(), MAX_VALUE_BYTES), (compared, MAX_EXPECTED_BYTES)] {
        if size > most {
            return Err(Error::TooLarge { key: key.to_owned(), size });
        }
    }
    Ok(())
}
