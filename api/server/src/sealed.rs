//! The seam between the server and its store at which Secrets are sealed and opened: everything above it sees them
//! readable, nothing below it does.
//!
//! A value that does not open is passed on as it is. It is no object then: reads of it fail with the reason
//! ([`why_unreadable`]), lists leave it out with an error in the log, and because every write begins with a read, it is
//! neither overwritten nor deleted. A value that is not sealed, as a server of before wrote it, is read as it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use holdfast_store::{Entry, Error, Event, Expect, Page, Result, Revision, Store, WatchStream};

use crate::keys::SecretKeys;
use crate::keys::secrets::sealed_with;

/// The keys of the store whose values are sealed: those of core/v1 Secrets.
pub(crate) const PREFIX: &str = "/registry/core/secrets/";

/// A store whose Secrets are sealed.
pub(crate) struct SealedStore {
    inner: Arc<dyn Store>,
    keys: Arc<SecretKeys>,
}

impl SealedStore {
    pub(crate) fn new(inner: Arc<dyn Store>, keys: Arc<SecretKeys>) -> SealedStore {
        SealedStore { inner, keys }
    }
}

impl SealedStore {
    /// The same expectation of the sealed value: it is sealed otherwise each time, so it is read and compared open.
    async fn as_sealed(&self, key: &str, modified: Revision, expected: &Bytes) -> Result<Expect> {
        match self.inner.get(key).await?.0 {
            Some(found) if found.modified == modified && open(&self.keys, key, found.value.clone()) == *expected => {
                Ok(Expect::Is { modified, value: found.value })
            }
            found => {
                let current = found.map(|entry| open_entry(&self.keys, entry));
                Err(Error::Conflict { key: key.to_owned(), current })
            }
        }
    }
}

/// Why a value is no object: it is still sealed.
pub(crate) fn why_unreadable(key: &str, value: &[u8]) -> Option<String> {
    let id = sealed_with(value)?;
    Some(format!(
        "{key} is sealed with the key {id} and does not open: pki/secrets.keys of this server lacks that key (copy the \
         file from the server that wrote it), or the value was changed or moved in the store (restore it from a backup)"
    ))
}

fn open(keys: &SecretKeys, key: &str, value: Bytes) -> Bytes {
    if !key.starts_with(PREFIX) || sealed_with(&value).is_none() {
        return value;
    }
    keys.open(key, &value).map_or(value, Bytes::from)
}

fn open_entry(keys: &SecretKeys, entry: Entry) -> Entry {
    Entry { value: open(keys, &entry.key, entry.value), ..entry }
}

fn open_event(keys: &SecretKeys, event: Event) -> Event {
    match event {
        Event::Put { entry, previous } => {
            let previous = previous.map(|value| open(keys, &entry.key, value));
            Event::Put { entry: open_entry(keys, entry), previous }
        }
        Event::Delete { key, revision, previous } => {
            let previous = previous.map(|value| open(keys, &key, value));
            Event::Delete { key, revision, previous }
        }
    }
}

fn open_error(keys: &SecretKeys, error: Error) -> Error {
    match error {
        Error::Conflict { key, current } => {
            Error::Conflict { key, current: current.map(|entry| open_entry(keys, entry)) }
        }
        other => other,
    }
}

#[async_trait::async_trait]
impl Store for SealedStore {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision)> {
        let (entry, revision) = self.inner.get(key).await?;
        Ok((entry.map(|entry| open_entry(&self.keys, entry)), revision))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page> {
        let page = self.inner.list(prefix, after, limit, at).await?;
        let entries = page.entries.into_iter().map(|entry| open_entry(&self.keys, entry)).collect();
        Ok(Page { entries, ..page })
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Revision> {
        if !key.starts_with(PREFIX) {
            return self.inner.put(key, value, expect, ttl).await;
        }
        let sealed = self.keys.seal(key, &value);
        let value = sealed.map(Bytes::from).ok_or_else(|| Error::Unavailable(format!("{key} could not be sealed")))?;
        let expect = match expect {
            Expect::Is { modified, value } => self.as_sealed(key, modified, &value).await?,
            other => other,
        };
        self.inner.put(key, value, expect, ttl).await.map_err(|error| open_error(&self.keys, error))
    }

    async fn delete(&self, key: &str, modified: Revision) -> Result<Revision> {
        self.inner.delete(key, modified).await.map_err(|error| open_error(&self.keys, error))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let keys = Arc::clone(&self.keys);
        let stream = self.inner.watch(prefix, after).await?;
        let open = move |batch: Result<Vec<Event>>| {
            batch.map(|events| events.into_iter().map(|event| open_event(&keys, event)).collect())
        };
        Ok(stream.map(open).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn revision(&self) -> Result<Revision> {
        self.inner.revision().await
    }
}
