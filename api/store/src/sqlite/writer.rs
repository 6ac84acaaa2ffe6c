//! The one thread that writes. It takes all jobs that wait, up to a bound, into one transaction, commits once, and only
//! then answers and publishes: what was acknowledged is on the disk, and nobody sees what might still be lost.
//!
//! If the transaction fails, all of it is rolled back and every job in it is answered with the error: none of them
//! happened, except that after a failed flush of the disk this is not certain, which is what `Unavailable` says.
//!
//! The queue is not bounded by itself: each caller waits for its answer, so it is as long as there are callers.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{Shared, schema};
use crate::{Entry, Error, Event, Expect, OpenError, Result, Revision};

/// Most jobs in one transaction.
const BATCH_JOBS: usize = 512;
/// Most keys whose time has ended that go in one transaction.
const BATCH_EXPIRED: i64 = 512;
/// Revisions that one step of a compaction goes through.
const SWEEP_REVISIONS: Revision = 2000;
/// Longest sleep of the thread: the clock of the wall may be set, so the times of expiry are looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Wait before expiries are tried again after a batch could not be stored, e.g. on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// Something for the writer to do, and where the answer goes.
pub(super) struct Job {
    pub(super) op: Op,
    pub(super) reply: oneshot::Sender<Result<Revision>>,
}

/// What there is to do. Each is answered with a revision.
pub(super) enum Op {
    /// Write a key; the answer is the revision of the write.
    Put { key: String, value: Bytes, expect: Expect, ttl: Option<Duration> },
    /// Delete a key; the answer is the revision of the deletion.
    Delete { key: String, modified: Revision },
    /// Refuse history before the revision from now on; the answer is the oldest revision still known.
    Compact { revision: Revision },
    /// Remove some of the forgotten rows; the answer is the revision up to which they are gone.
    Sweep,
}

/// The handle of the thread.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; it owns the connection and the lock of the directory until the handle is dropped.
    pub(super) fn start(connection: Connection, lock: File, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                run(connection, &queue, &shared);
                shared.recent.close();
                drop(lock);
            })
            .map_err(|error| Error::Unavailable(format!("could not start the writer's thread: {error}")))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job.
    pub(super) fn send(&self, job: Job) -> Result<()> {
        let gone = || Error::Unavailable("the writer of the store has ended".to_owned());
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends when the queue is empty and closed; after that the file may be opened again.
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the store panicked");
        }
    }
}

fn run(mut connection: Connection, queue: &Receiver<Job>, shared: &Shared) {
    let mut failing = false;
    loop {
        let sleep = if failing { RETRY } else { until_next_expiry(&connection).unwrap_or(RETRY) };
        let first = match queue.recv_timeout(sleep) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let jobs = first.into_iter().chain(queue.try_iter().take(BATCH_JOBS - 1));
        let (ops, replies): (Vec<Op>, Vec<_>) = jobs.map(|job| (job.op, job.reply)).unzip();
        let outcomes = match commit(&mut connection, ops) {
            Ok((outcomes, events)) => {
                failing = false;
                shared.recent.publish(events);
                outcomes
            }
            Err(error) => {
                failing = true;
                tracing::warn!(writes = replies.len(), %error, "nothing of a batch was stored");
                replies.iter().map(|_| Err(same(&error))).collect()
            }
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A caller that has gone away does not want to know.
            let _ = reply.send(outcome);
        }
    }
}

/// The error of a batch, once for each of its jobs.
fn same(error: &Error) -> Error {
    match error {
        Error::Damaged(text) => Error::Damaged(text.clone()),
        Error::Unavailable(text) => Error::Unavailable(text.clone()),
        Error::Full(text) => Error::Full(text.clone()),
        other => Error::Unavailable(other.to_string()),
    }
}

/// Carries out the operations and the expiries that are due in one transaction.
fn commit(connection: &mut Connection, ops: Vec<Op>) -> Result<(Vec<Result<Revision>>, Vec<Event>)> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|e| schema::failed("begin a write", e))?;
    let before = schema::read_meta(&transaction)?;
    let mut batch = Batch { connection: &transaction, meta: before, events: Vec::new() };
    let outcomes = ops.into_iter().map(|op| batch.apply(op)).collect::<Result<Vec<_>>>()?;
    batch.expire(now_ms())?;
    let Batch { meta, events, .. } = batch;
    if meta != before {
        execute(
            &transaction,
            "UPDATE meta SET revision = ?, compacted = ?, swept = ?",
            params![meta.revision, meta.compacted, meta.swept],
        )?;
    }
    transaction.commit().map_err(|e| schema::failed("commit a write", e))?;
    Ok((outcomes, events))
}

/// The state of one transaction.
struct Batch<'a> {
    connection: &'a Connection,
    meta: schema::Meta,
    events: Vec<Event>,
}

impl Batch<'_> {
    /// The outer error fails the whole batch, the inner one only this operation.
    fn apply(&mut self, op: Op) -> Result<Result<Revision>> {
        match op {
            Op::Put { key, value, expect, ttl } => {
                let current = schema::newest(self.connection, &key)?.and_then(schema::Row::into_entry);
                let expected = match (expect, &current) {
                    (Expect::Absent, None) => true,
                    (Expect::Modified(revision), Some(entry)) => entry.modified == revision,
                    (Expect::Is { modified, value }, Some(entry)) => entry.modified == modified && entry.value == value,
                    _ => false,
                };
                if !expected {
                    return Ok(Err(Error::Conflict { key, current }));
                }
                let at = ttl.map(|ttl| now_ms().saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
                self.write(key, Some(value), current, at).map(Ok)
            }
            Op::Delete { key, modified } => {
                let current = schema::newest(self.connection, &key)?.and_then(schema::Row::into_entry);
                if current.as_ref().is_none_or(|entry| entry.modified != modified) {
                    return Ok(Err(Error::Conflict { key, current }));
                }
                self.write(key, None, current, None).map(Ok)
            }
            Op::Compact { revision } if revision > self.meta.revision => {
                Ok(Err(Error::Future { asked: revision, current: self.meta.revision }))
            }
            Op::Compact { revision } => {
                self.meta.compacted = self.meta.compacted.max(revision);
                Ok(Ok(self.meta.compacted))
            }
            Op::Sweep => self.sweep().map(Ok),
        }
    }

    /// Adds a row to the history; no value is a deletion. `expires` is in ms since 1970.
    fn write(
        &mut self,
        key: String,
        value: Option<Bytes>,
        current: Option<Entry>,
        expires: Option<i64>,
    ) -> Result<Revision> {
        self.meta.revision += 1;
        let revision = self.meta.revision;
        let created = current.as_ref().map_or(revision, |entry| entry.created);
        execute(
            self.connection,
            "INSERT INTO history (revision, key, created, previous, value) VALUES (?, ?, ?, ?, ?)",
            params![revision, key.as_bytes(), created, current.as_ref().map(|entry| entry.modified), value.as_deref()],
        )?;
        match expires {
            Some(at) => execute(
                self.connection,
                "INSERT INTO expiry (key, at) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET at = ?2",
                params![key.as_bytes(), at],
            )?,
            None => execute(self.connection, "DELETE FROM expiry WHERE key = ?", params![key.as_bytes()])?,
        };
        let row = schema::Row { revision, key, created, value };
        self.events.push(schema::event(row, current.map(|entry| entry.value)));
        Ok(revision)
    }

    /// Deletes keys whose time has ended: real deletions, each with its revision and its event.
    fn expire(&mut self, now: i64) -> Result<()> {
        let due: Vec<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT key FROM expiry WHERE at <= ? ORDER BY at LIMIT ?")
            .and_then(|mut statement| statement.query_map([now, BATCH_EXPIRED], |row| row.get(0))?.collect())
            .map_err(|e| schema::failed("read the times of expiry", e))?;
        for key in due {
            let key = String::from_utf8(key)
                .map_err(|_| Error::Damaged("a key with a time to live is no text".to_owned()))?;
            match schema::newest(self.connection, &key)?.and_then(schema::Row::into_entry) {
                Some(entry) => self.write(key, None, Some(entry), None).map(drop)?,
                None => return Err(Error::Damaged(format!("{key} has a time to live but does not exist"))),
            }
        }
        Ok(())
    }

    /// Each row makes its predecessor go, once it is so old that nobody may ask for the time before it. A deletion goes
    /// itself. The work is in proportion to the revisions gone through, not to what is stored.
    fn sweep(&mut self) -> Result<Revision> {
        let (from, to) = (self.meta.swept, self.meta.compacted.min(self.meta.swept + SWEEP_REVISIONS));
        execute(
            self.connection,
            "DELETE FROM history WHERE revision IN
             (SELECT previous FROM history WHERE revision > ? AND revision <= ? AND previous IS NOT NULL)",
            params![from, to],
        )?;
        execute(
            self.connection,
            "DELETE FROM history WHERE revision > ? AND revision <= ? AND value IS NULL",
            params![from, to],
        )?;
        self.meta.swept = to;
        Ok(to)
    }
}

fn execute(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(|e| schema::failed("write the store", e))
}

fn until_next_expiry(connection: &Connection) -> Result<Duration> {
    let next: Option<i64> = connection
        .prepare_cached("SELECT min(at) FROM expiry")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(|e| schema::failed("read the times of expiry", e))?;
    let Some(next) = next else { return Ok(LONGEST_SLEEP) };
    let wait = u64::try_from(next.saturating_sub(now_ms())).unwrap_or(0);
    Ok(Duration::from_millis(wait).min(LONGEST_SLEEP))
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
