//! The tables, and every query that reads them. Functions here take a connection and know nothing of threads.
//!
//! Keys are stored as bytes, so that their order is the order of bytes, as in every other backend.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::range::Keys;
use crate::{Entry, Error, Event, OpenError, Page, Result, Revision};

/// `previous` is the revision of the key's row before this one, null where the key came to exist. `value` is null
/// where the key was deleted. `expiry` holds the present keys with a time to live; `at` is in ms since 1970, because
/// it has to mean something after a restart.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS history (
        revision INTEGER PRIMARY KEY,
        key      BLOB NOT NULL,
        created  INTEGER NOT NULL,
        previous INTEGER,
        value    BLOB
    );
    CREATE INDEX IF NOT EXISTS history_by_key ON history (key, revision);
    CREATE TABLE IF NOT EXISTS expiry (key BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS expiry_by_time ON expiry (at);
    CREATE TABLE IF NOT EXISTS meta (
        id        INTEGER PRIMARY KEY CHECK (id = 1),
        revision  INTEGER NOT NULL,
        compacted INTEGER NOT NULL,
        swept     INTEGER NOT NULL
    );
    INSERT OR IGNORE INTO meta VALUES (1, 0, 0, 0);
";

/// Written into the file's header; a file of another layout is refused, not guessed at.
const LAYOUT: i64 = 1;

/// How long a connection waits for another one of this process, e.g. while the log is written back.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes of values after which a page of history ends, so that a watcher far behind needs bounded memory.
const HISTORY_PAGE_BYTES: usize = 4 << 20;

/// The counters of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    /// The newest revision.
    pub(super) revision: Revision,
    /// History before this revision is forgotten.
    pub(super) compacted: Revision,
    /// Rows up to this revision have made their predecessors go; less than `compacted` while a compaction runs.
    pub(super) swept: Revision,
}

/// A row of the history.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) revision: Revision,
    pub(super) key: String,
    pub(super) created: Revision,
    pub(super) value: Option<Bytes>,
}

impl Row {
    /// The entry, none if this row is a deletion.
    pub(super) fn into_entry(self) -> Option<Entry> {
        let value = self.value?;
        Some(Entry { key: self.key, value, created: self.created, modified: self.revision })
    }
}

/// Turns an error of SQLite into ours, with what was attempted.
pub(super) fn failed(attempt: &str, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Damaged(format!("could not {attempt}: {error}"))
        }
        Some(ErrorCode::DiskFull) => Error::Full(format!("could not {attempt}: {error}")),
        _ => Error::Unavailable(format!("could not {attempt}: {error}")),
    }
}

/// Takes the lock that keeps a second process out. It is held as long as the file is open.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("store.lock");
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_path_buf() }),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Directory { path, source }),
    }
}

/// Opens the one connection that writes, and makes the tables.
pub(super) fn open_writer(path: &Path) -> Result<Connection> {
    let prepare = || -> rusqlite::Result<(Connection, i64)> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if layout == 0 {
            connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;"))?;
        }
        connection.set_prepared_statement_cache_capacity(32);
        Ok((connection, if layout == 0 { LAYOUT } else { layout }))
    };
    let (connection, layout) = prepare().map_err(|e| failed(&format!("open {}", path.display()), e))?;
    if layout != LAYOUT {
        return Err(Error::Damaged(format!(
            "{} has layout {layout}, this program reads layout {LAYOUT}; it was written by another version",
            path.display()
        )));
    }
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let open = || -> rusqlite::Result<Connection> {
        // Readers need write access to the shared index of the log, so the file itself is opened for writing.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|e| failed(&format!("open {}", path.display()), e))
}

/// Reads the counters.
pub(super) fn read_meta(connection: &Connection) -> Result<Meta> {
    connection
        .prepare_cached("SELECT revision, compacted, swept FROM meta")
        .and_then(|mut statement| {
            statement
                .query_row([], |row| Ok(Meta { revision: row.get(0)?, compacted: row.get(1)?, swept: row.get(2)? }))
        })
        .map_err(|e| failed("read the store's revision", e))
}

/// Refuses a revision that is forgotten.
pub(super) fn check_known(connection: &Connection, asked: Revision) -> Result<()> {
    let oldest = read_meta(connection)?.compacted;
    if asked < oldest { Err(Error::Compacted { asked, oldest }) } else { Ok(()) }
}

/// The newest row of a key, which may be a deletion.
pub(super) fn newest(connection: &Connection, key: &str) -> Result<Option<Row>> {
    connection
        .prepare_cached(
            "SELECT revision, key, created, value FROM history WHERE key = ? ORDER BY revision DESC LIMIT 1",
        )
        .and_then(|mut statement| statement.query_row([key.as_bytes()], read_row).optional())
        .map_err(|e| failed(&format!("read {key}"), e))
}

/// One page of the snapshot `at`.
pub(super) fn snapshot(connection: &Connection, keys: &Keys, limit: usize, at: Option<Revision>) -> Result<Page> {
    let current = read_meta(connection)?.revision;
    let at = at.unwrap_or(current);
    if at > current {
        return Err(Error::Future { asked: at, current });
    }
    check_known(connection, at)?;
    // One entry more than asked for tells whether there are more.
    let wanted = if limit == 0 { usize::MAX } else { limit.saturating_add(1) };
    let read = || -> rusqlite::Result<Vec<Entry>> {
        // The first statement runs on the index alone and in its order, so a short page of many keys costs little; as
        // one statement with a join, SQLite would go through all keys first.
        let mut newest = connection.prepare_cached(
            "SELECT max(revision) FROM history WHERE key >= ? AND key < ? AND revision <= ? GROUP BY key ORDER BY key",
        )?;
        let mut row =
            connection.prepare_cached("SELECT revision, key, created, value FROM history WHERE revision = ?")?;
        let mut revisions = newest.query(params![keys.low, keys.high, at])?;
        let mut entries = Vec::new();
        while entries.len() < wanted
            && let Some(found) = revisions.next()?
        {
            let revision: Revision = found.get(0)?;
            entries.extend(row.query_row([revision], read_row)?.into_entry());
        }
        Ok(entries)
    };
    let mut entries = read().map_err(|e| failed("list the store", e))?;
    let more = limit > 0 && entries.len() > limit;
    if more {
        entries.truncate(limit);
    }
    Ok(Page { entries, revision: at, more })
}

/// A part of the history, in order.
pub(super) struct Chapter {
    /// The events of the asked keys.
    pub(super) events: Vec<Event>,
    /// Every event up to here is in `events` or before it.
    pub(super) upto: Revision,
}

/// Reads the events of `keys` after a revision: all there are, or at most `limit`.
pub(super) fn history(connection: &Connection, keys: &Keys, after: Revision, limit: usize) -> Result<Chapter> {
    check_known(connection, after)?;
    let newest = read_meta(connection)?.revision;
    let read = || -> rusqlite::Result<Chapter> {
        // The `+` keeps SQLite on the order of revisions; by the index on keys it would have to sort everything.
        let mut statement = connection.prepare_cached(
            "SELECT h.revision, h.key, h.created, h.value, p.value
             FROM history h LEFT JOIN history p ON p.revision = h.previous
             WHERE h.revision > ?1 AND +h.key >= ?2 AND +h.key < ?3 ORDER BY h.revision LIMIT ?4",
        )?;
        let limit_sql = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![after, keys.low, keys.high, limit_sql])?;
        let mut events = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let previous: Option<Vec<u8>> = row.get(4)?;
            let event = event(read_row(row)?, previous.map(Bytes::from));
            bytes += size(&event);
            let upto = event.revision();
            events.push(event);
            if events.len() >= limit || bytes >= HISTORY_PAGE_BYTES {
                return Ok(Chapter { events, upto });
            }
        }
        Ok(Chapter { events, upto: newest })
    };
    read().map_err(|e| failed("read the history", e))
}

/// The event that a row of history stands for.
pub(super) fn event(row: Row, previous: Option<Bytes>) -> Event {
    let Row { revision, key, created, value } = row;
    match value {
        Some(value) => Event::Put { entry: Entry { key, value, created, modified: revision }, previous },
        None => Event::Delete { key, revision, previous },
    }
}

/// Bytes that an event keeps in memory, about.
pub(super) fn size(event: &Event) -> usize {
    let (key, value, previous) = match event {
        Event::Put { entry, previous } => (&entry.key, entry.value.len(), previous),
        Event::Delete { key, previous, .. } => (key, 0, previous),
    };
    128 + key.len() + value + previous.as_ref().map_or(0, Bytes::len)
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let key: Vec<u8> = row.get(1)?;
    let key = String::from_utf8(key)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, e.into()))?;
    let value: Option<Vec<u8>> = row.get(3)?;
    Ok(Row { revision: row.get(0)?, key, created: row.get(2)?, value: value.map(Bytes::from) })
}
