//! Watching in etcd: whole revisions, in order, none left out.
//!
//! - etcd lets a watch begin at the very revision of a compaction, although a deletion with that revision may be gone.
//!   So a watch after R asks for R itself and drops what it has already: then etcd's own check is ours.
//! - An answer larger than etcd's limit comes in fragments. The last revision of a fragment may go on in the next one
//!   and is held back until then.
//! - The value before a change is missing if a compaction overtook the watch; then the watch has to end.

use bytes::Bytes;
use etcd_client::{EventType, WatchOptions, WatchResponse};
use futures::Stream;
use tokio::time::timeout;

use super::link::{Failure, Kind, Link, Links};
use super::{CALL_TIMEOUT, entry, from_etcd, to_etcd};
use crate::range::Keys;
use crate::{Error, Event, Result, Revision};

/// Opens a watch of `keys` after a revision.
pub(super) async fn open(
    links: &Links,
    keys: &Keys,
    after: Revision,
) -> Result<impl Stream<Item = Result<Vec<Event>>> + Send + use<>> {
    let options = WatchOptions::new()
        .with_range(keys.high.clone())
        .with_start_revision(to_etcd(after.max(1)))
        .with_prev_key()
        .with_fragment();
    let stream = begin(links, &keys.low, options).await.map_err(Error::Unavailable)?;
    let state = State { stream, after, held: Vec::new() };
    Ok(futures::stream::try_unfold(state, |mut state| async move {
        loop {
            let events = state.next().await?;
            if !events.is_empty() {
                return Ok(Some((events, state)));
            }
        }
    }))
}

/// The revision of the last compaction, as told to a watch that begins before it.
pub(super) async fn oldest(links: &Links, forgotten: Revision) -> Option<Revision> {
    let options = WatchOptions::new().with_start_revision(to_etcd(forgotten.max(1)));
    let mut stream = begin(links, &[0], options).await.ok()?;
    let told = async {
        while let Ok(Some(response)) = stream.message().await {
            if response.compact_revision() > 0 {
                return from_etcd(response.compact_revision()).ok();
            }
        }
        None
    };
    timeout(CALL_TIMEOUT, told).await.ok()?
}

/// Makes the watch and waits until etcd has confirmed it.
async fn begin(links: &Links, low: &[u8], options: WatchOptions) -> Result<etcd_client::WatchStream, String> {
    let call = |link: Link| {
        let (low, options) = (low.to_vec(), options.clone());
        async move { link.watch().watch(low, Some(options)).await }
    };
    links.call(Kind::Read, call).await.map_err(|failure| match failure {
        Failure::Other(text) | Failure::Full(text) => text,
        Failure::Compacted | Failure::Future => "etcd refused a watch".to_owned(),
    })
}

struct State {
    stream: etcd_client::WatchStream,
    /// Everything up to here was given out.
    after: Revision,
    /// Events of one revision that may not be complete.
    held: Vec<Event>,
}

impl State {
    /// The events of the next answer; may be none.
    async fn next(&mut self) -> Result<Vec<Event>> {
        let response = match self.stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(Error::Unavailable("etcd ended a watch".to_owned())),
            Err(error) => return Err(Error::Unavailable(format!("a watch of etcd broke: {error}"))),
        };
        if response.compact_revision() > 0 {
            return Err(Error::Compacted { asked: self.after, oldest: from_etcd(response.compact_revision())? });
        }
        if response.canceled() {
            return Err(Error::Unavailable(format!("etcd ended a watch: {}", response.cancel_reason())));
        }
        let fragment = response.0.fragment;
        let mut events = std::mem::take(&mut self.held);
        events.append(&mut self.events(response)?);
        if fragment && let Some(last) = events.last().map(Event::revision) {
            let complete = events.partition_point(|event| event.revision() < last);
            self.held = events.split_off(complete);
        }
        if let Some(last) = events.last() {
            self.after = last.revision();
        }
        Ok(events)
    }

    fn events(&self, response: WatchResponse) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for event in response.0.events {
            let event = etcd_client::Event(event);
            let kind = event.event_type();
            let changed = event.0.kv.ok_or_else(|| Error::Damaged("etcd sent an event without its key".to_owned()))?;
            let changed = entry(etcd_client::KeyValue(changed))?;
            if changed.modified <= self.after {
                continue;
            }
            let previous = event.0.prev_kv.map(|previous| Bytes::from(previous.value));
            let created = kind == EventType::Put && changed.created == changed.modified;
            if previous.is_none() && !created {
                return Err(Error::Compacted { asked: self.after, oldest: changed.modified });
            }
            events.push(match kind {
                EventType::Put => Event::Put { entry: changed, previous },
                EventType::Delete => Event::Delete { key: changed.key, revision: changed.modified, previous },
            });
        }
        Ok(events)
    }
}
