//! The embedded backend: one SQLite file, every write a row of its history.
//!
//! ```text
//!  callers ──jobs──▶ writer thread ──one transaction per batch──▶ history ◀──snapshots── readers (4 connections)
//!                        │                                            ▲
//!                        └──after the commit──▶ recent events ──▶ watchers (fall back to history when behind)
//! ```
//!
//! - The write-ahead log with `synchronous=FULL` makes a commit durable before anybody hears of it. Writers that wait
//!   at the same time share one commit and so one flush of the disk ([`writer`]).
//! - A row of `history` is one revision. A snapshot is "the newest row of each key up to revision R"; a watch is "the
//!   rows after R" ([`watch`]). Nothing is ever updated in place.
//! - `meta` keeps the counter apart from the rows, so it does not go back when compaction drops the newest row.
//!
//! What it deliberately does not do: share its file with another process. A lock file refuses a second server, because
//! the counter and the recent events live in the memory of this one.

mod schema;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::{Entry, Error, Expect, OpenError, Page, Result, Revision, Store, WatchStream, range};
use watch::Recent;
use writer::{Job, Op, Writer};

/// Connections for reading. Reads are short; more would only compete for the same disk and page cache.
const READERS: usize = 4;

/// The file's name inside the data directory.
const FILE_NAME: &str = "store.sqlite";

/// A store in one SQLite file. Dropping it waits for the writes in progress and closes the file.
pub struct SqliteStore {
    writer: Writer,
    shared: Arc<Shared>,
}

/// What the readers, the watchers and the writer have in common.
struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    recent: Recent,
}

impl SqliteStore {
    /// Opens or makes `DIR/store.sqlite`. Blocks for the time of a few disk accesses.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another process has it open, [`OpenError::Directory`] if the directory cannot be
    /// made, [`OpenError::Store`] if the file is damaged or cannot be written.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory { path: dir.to_path_buf(), source })?;
        let lock = schema::lock(dir)?;
        let path = dir.join(FILE_NAME);
        let connection = schema::open_writer(&path)?;
        let revision = schema::read_meta(&connection)?.revision;
        let recent = Recent::new(revision);
        let shared = Arc::new(Shared { path, idle: Mutex::new(Vec::new()), permits: Semaphore::new(READERS), recent });
        let writer = Writer::start(connection, lock, Arc::clone(&shared))?;
        Ok(Self { writer, shared })
    }

    /// Everything below a prefix at one moment, from a file that another process may be using and writing. Blocks.
    ///
    /// # Errors
    /// [`OpenError::Directory`] if there is no such file, [`OpenError::Store`] if it can't be read.
    pub(crate) fn snapshot(dir: &Path, prefix: &str) -> Result<Page, OpenError> {
        let path = dir.join(FILE_NAME);
        std::fs::metadata(&path).map_err(|source| OpenError::Directory { path: path.clone(), source })?;
        let mut connection = schema::open_reader(&path)?;
        let transaction = connection.transaction().map_err(|e| schema::failed("begin a read", e))?;
        Ok(schema::snapshot(&transaction, &range::Keys::page(prefix, None), 0, None)?)
    }

    async fn write(&self, op: Op) -> Result<Revision> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Job { op, reply })?;
        answer.await.map_err(|_| Error::Unavailable("the writer of the store has ended".to_owned()))?
    }
}

impl Shared {
    /// Runs `read` on one of the reading connections, inside one transaction: everything it sees is one snapshot.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.permits.acquire().await.map_err(|error| Error::Unavailable(error.to_string()))?;
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => schema::open_reader(&shared.path)?,
            };
            let transaction = connection.transaction().map_err(|e| schema::failed("begin a read", e))?;
            let result = read(&transaction);
            transaction.finish().map_err(|e| schema::failed("end a read", e))?;
            shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        })
        .await;
        drop(permit);
        done.map_err(|error| Error::Unavailable(format!("a read of the store did not finish: {error}")))?
    }
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision)> {
        let key = key.to_owned();
        self.shared
            .read(move |c| {
                Ok((schema::newest(c, &key)?.and_then(schema::Row::into_entry), schema::read_meta(c)?.revision))
            })
            .await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page> {
        let keys = range::Keys::page(prefix, after);
        self.shared.read(move |c| schema::snapshot(c, &keys, limit, at)).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Revision> {
        crate::check_size(key, &value, &expect)?;
        let key = key.to_owned();
        self.write(Op::Put { key, value, expect, ttl }).await
    }

    async fn delete(&self, key: &str, modified: Revision) -> Result<Revision> {
        let key = key.to_owned();
        self.write(Op::Delete { key, modified }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let current = self.shared.recent.newest();
        if after > current {
            return Err(Error::Future { asked: after, current });
        }
        self.shared.read(move |c| schema::check_known(c, after)).await?;
        Ok(watch::stream(Arc::clone(&self.shared), range::Keys::page(prefix, None), after).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let compacted = self.write(Op::Compact { revision }).await?;
        // The rows go in small steps between other writes, so that nobody waits for a long deletion.
        while self.write(Op::Sweep).await? < compacted {}
        Ok(())
    }

    async fn revision(&self) -> Result<Revision> {
        // This process is the only writer, so what it has committed is the newest there is.
        Ok(self.shared.recent.newest())
    }
}
