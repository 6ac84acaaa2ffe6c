//! The backend on an etcd cluster, version 3.4 or newer.
//!
//! What of etcd is used: transactions that compare a key's revision, ranges at a revision, watches from a revision with
//! the value before, compaction, one lease per key with a time to live (so that each expiry has its own revision).
//! What is not: requests for a watch's progress, which etcd 3.4 answers unreliably; freshness is proven by a
//! linearizable read.
//!
//! Every call ends within [`CALL_TIMEOUT`]. A read is tried at the next endpoint when one fails; a write only if it
//! certainly never left this machine, because a second try could not tell its own first one from a stranger's.

mod link;
mod tls;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use futures::StreamExt;

use crate::range::Keys;
use crate::{Entry, Error, Expect, OpenError, Page, Result, Revision, Store, WatchStream};
use link::{Failure, Kind, Links};
pub use tls::TlsFiles;

/// Longest time that a call may take before it ends in [`Error::Unavailable`].
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Entries asked for in one request; more come in several requests from the same snapshot.
const RANGE_ENTRIES: usize = 500;

/// A store in etcd. It connects when it is first used, and again after every loss.
pub struct EtcdStore {
    links: Links,
}

impl EtcdStore {
    /// A store at the given endpoints (`HOST:PORT`), with encryption if there are files for it. Connects when first used.
    ///
    /// # Errors
    /// [`OpenError::Tls`] if a file can't be used, [`Error::Unavailable`] if the list is empty.
    pub fn connect(endpoints: &[String], tls: Option<&TlsFiles>) -> Result<Self, OpenError> {
        let tls = tls.map(tls::load).transpose()?;
        Ok(Self { links: Links::new(endpoints, tls)? })
    }

    /// What a failed call means to the caller; `asked` is the revision that it was about.
    async fn explain(&self, failure: Failure, asked: Revision) -> Error {
        match failure {
            Failure::Compacted => Error::Compacted { asked, oldest: self.oldest(asked).await },
            Failure::Future => match self.revision().await {
                Ok(current) => Error::Future { asked, current },
                Err(error) => error,
            },
            Failure::Full(text) => Error::Full(text),
            Failure::Other(text) => Error::Unavailable(text),
        }
    }

    /// The oldest revision still known. etcd tells it only to a watch that begins too early.
    async fn oldest(&self, forgotten: Revision) -> Revision {
        watch::oldest(&self.links, forgotten).await.unwrap_or(forgotten + 1)
    }

    async fn range(&self, keys: &Keys, options: GetOptions, asked: Revision) -> Result<GetResponse> {
        let options = options.with_range(keys.high.clone());
        let call = |link: link::Link| {
            let (low, options) = (keys.low.clone(), options.clone());
            async move { link.kv().get(low, Some(options)).await }
        };
        match self.links.call(Kind::Read, call).await {
            Ok(response) => Ok(response),
            Err(failure) => Err(self.explain(failure, asked).await),
        }
    }

    /// Does `then` if the key is as expected; otherwise says what is there.
    async fn swap(&self, key: &str, expect: Expect, then: TxnOp) -> Result<Revision, SwapError> {
        let written_at = |revision| Compare::mod_revision(key, CompareOp::Equal, to_etcd(revision));
        let as_expected = match expect {
            Expect::Absent => vec![written_at(0)],
            Expect::Modified(revision) => vec![written_at(revision)],
            Expect::Is { modified, value } => {
                vec![written_at(modified), Compare::value(key, CompareOp::Equal, value)]
            }
        };
        let txn = Txn::new().when(as_expected).and_then([then]).or_else([TxnOp::get(key, None)]);
        let call = |link: link::Link| {
            let txn = txn.clone();
            async move { link.kv().txn(txn).await }
        };
        let response = self.links.call(Kind::Write, call).await.map_err(|failure| match failure {
            Failure::Full(text) => SwapError::Store(Error::Full(text)),
            Failure::Other(text) => SwapError::Store(Error::Unavailable(text)),
            Failure::Compacted | Failure::Future => {
                SwapError::Store(Error::Unavailable("etcd refused a write".to_owned()))
            }
        })?;
        if response.succeeded() {
            return header_revision(response.header()).map_err(SwapError::Store);
        }
        let found = response.op_responses().into_iter().next();
        let current = match found {
            Some(TxnOpResponse::Get(mut found)) => {
                found.take_kvs().pop().map(entry).transpose().map_err(SwapError::Store)?
            }
            _ => return Err(SwapError::Store(Error::Damaged("etcd answered a comparison without the key".to_owned()))),
        };
        Err(SwapError::Conflict(current))
    }
}

enum SwapError {
    Conflict(Option<Entry>),
    Store(Error),
}

impl SwapError {
    fn of(self, key: &str) -> Error {
        match self {
            SwapError::Conflict(current) => Error::Conflict { key: key.to_owned(), current },
            SwapError::Store(error) => error,
        }
    }
}

#[async_trait::async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision)> {
        let call = |link: link::Link| async move { link.kv().get(key, None).await };
        let mut response = match self.links.call(Kind::Read, call).await {
            Ok(response) => response,
            Err(failure) => return Err(self.explain(failure, 0).await),
        };
        let found = response.take_kvs().pop().map(entry).transpose()?;
        Ok((found, header_revision(response.header())?))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page> {
        let mut snapshot = at;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let last = entries.last().map(|entry| entry.key.as_str()).or(after);
            let keys = Keys::page(prefix, last);
            let wanted = if limit == 0 { RANGE_ENTRIES } else { RANGE_ENTRIES.min(limit - entries.len()) };
            let mut options = GetOptions::new().with_limit(i64::try_from(wanted).unwrap_or(i64::MAX));
            if let Some(at) = snapshot {
                // etcd takes 0 for "now"; its revision 1 is the empty store.
                options = options.with_revision(to_etcd(at.max(1)));
            }
            let mut response = self.range(&keys, options, snapshot.unwrap_or(0)).await?;
            let revision = match snapshot {
                Some(at) => at,
                None => header_revision(response.header())?,
            };
            snapshot = Some(revision);
            let more = response.more();
            for found in response.take_kvs() {
                entries.push(entry(found)?);
            }
            if !more || (limit > 0 && entries.len() >= limit) {
                return Ok(Page { entries, revision, more });
            }
        }
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Revision> {
        crate::check_size(key, &value, &expect)?;
        let lease = match ttl {
            Some(ttl) => Some(self.links.grant(ttl).await?),
            None => None,
        };
        let options = lease.map(|lease| PutOptions::new().with_lease(lease));
        let written = self.swap(key, expect, TxnOp::put(key, value, options)).await;
        if let (Err(SwapError::Conflict(_)), Some(lease)) = (&written, lease) {
            self.links.revoke_later(lease);
        }
        written.map_err(|error| error.of(key))
    }

    async fn delete(&self, key: &str, modified: Revision) -> Result<Revision> {
        if modified == 0 {
            // To etcd, revision 0 of a key is its absence, and deleting what is absent would succeed.
            let (current, _) = self.get(key).await?;
            return Err(Error::Conflict { key: key.to_owned(), current });
        }
        self.swap(key, Expect::Modified(modified), TxnOp::delete(key, None)).await.map_err(|error| error.of(key))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let current = self.revision().await?;
        if after > current {
            return Err(Error::Future { asked: after, current });
        }
        Ok(watch::open(&self.links, &Keys::page(prefix, None), after).await?.boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        if revision == 0 {
            return Ok(());
        }
        let call = |link: link::Link| async move { link.kv().compact(to_etcd(revision), None).await };
        match self.links.call(Kind::Write, call).await {
            Ok(_) | Err(Failure::Compacted) => Ok(()),
            Err(failure) => Err(self.explain(failure, revision).await),
        }
    }

    async fn revision(&self) -> Result<Revision> {
        // Counting the keys of an empty range costs etcd nothing but the proof that it is up to date.
        let call =
            |link: link::Link| async move { link.kv().get([0], Some(GetOptions::new().with_count_only())).await };
        match self.links.call(Kind::Read, call).await {
            Ok(response) => header_revision(response.header()),
            Err(Failure::Other(text) | Failure::Full(text)) => Err(Error::Unavailable(text)),
            Err(Failure::Compacted | Failure::Future) => {
                Err(Error::Damaged("etcd refused the newest revision".to_owned()))
            }
        }
    }
}

/// etcd counts in signed numbers; ours never come near the end.
fn to_etcd(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn from_etcd(revision: i64) -> Result<Revision> {
    Revision::try_from(revision).map_err(|_| Error::Damaged(format!("etcd gave the revision {revision}")))
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Result<Revision> {
    let header = header.ok_or_else(|| Error::Damaged("etcd answered without a header".to_owned()))?;
    from_etcd(header.revision())
}

fn entry(found: KeyValue) -> Result<Entry> {
    let found = found.0;
    let key = String::from_utf8(found.key).map_err(|error| {
        Error::Damaged(format!("the key {} in etcd is no text", String::from_utf8_lossy(error.as_bytes())))
    })?;
    Ok(Entry {
        key,
        value: Bytes::from(found.value),
        created: from_etcd(found.create_revision)?,
        modified: from_etcd(found.mod_revision)?,
    })
}
