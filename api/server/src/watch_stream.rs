//! The stream of a watch: initial objects, changes, bookmarks, end.
//!
//! A watcher holds a position in the history of its kind's cache and nothing else, so that a slow client costs no
//! memory and hinders nobody; one that falls out of the history gets an ERROR with 410 and lists again.
//!
//! INVARIANT: every change with a revision up to `position` was sent or does not concern the client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use holdfast_store::Revision;
use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderValue, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cache::{Change, KindCache, TooOld};
use crate::error::{ApiError, ApiResult};
use crate::kept::Kept;
use crate::negotiation::{Shape, add_warnings};
use crate::ops::now;
use crate::ops::read::Filter;
use crate::query::{Freshness, ListOptions};
use crate::request::Request;
use crate::state::{Source, State};
use crate::table::{self, Include};

/// Pause between bookmarks; the same as on a stock server.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// A last bookmark comes this long before the end, so that the next watch starts there.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Changes that are written at once.
const BATCH: usize = 200;
/// Without `timeoutSeconds` a watch lives for a random time in this range, in seconds, so that clients do not all come
/// back together.
const LIFETIME: std::ops::Range<u64> = 1800..3600;

struct Watcher {
    state: Arc<State>,
    cache: Arc<KindCache>,
    /// The history that the position is in.
    history: u64,
    changed: watch::Receiver<Revision>,
    stopping: watch::Receiver<bool>,
    request: Request,
    filter: Filter,
    scope: String,
    include: Include,
    headings: bool,
    position: Revision,
    initial: VecDeque<Arc<Kept>>,
    /// The end of the initial objects must still be announced.
    announce_end: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    finished: bool,
}

/// Answers a watch. Errors before the first event are ordinary answers.
pub(crate) async fn watch(state: &Arc<State>, request: &Request) -> ApiResult<Response<Body>> {
    let def = &*request.def;
    let options = ListOptions::of(&request.query, true)?;
    let filter = Filter::parse(def, &options)?;
    let cache = state.feed.cache(def).ok_or_else(|| ApiError::method_not_allowed("this kind can't be watched"))?;
    let scope = request.scope();
    let mut warnings = Vec::new();
    let resume = match options.freshness {
        Freshness::AtLeast(revision) if !options.initial_events => Some(revision),
        _ => None,
    };
    // ORDER: before anything is read.
    let history = state.feed.history();
    match (state.source(options.freshness).await, resume) {
        (Ok(Source::Stale(warning)), _) => warnings.push(warning),
        // The caches lag far behind. They catch up, and what they show then is new enough; no event is lost meanwhile.
        (Ok(Source::Store | Source::Memory), _) => {}
        // A linearizable read has shown that this store never gave it out: it is from before a restore. To wait for it
        // would be to skip what is written until then.
        (Err(error), Some(revision)) if error.code == 504 => {
            let message = format!("resource version {revision} is of another history of the store; list again");
            return Err(ApiError::expired(message, None));
        }
        (Err(error), _) => return Err(error),
    }
    if state.feed.applied() == 0 {
        return Err(ApiError::unavailable("the server is still reading the store; try again"));
    }
    let (initial, position) = match resume {
        Some(revision) => (Vec::new(), revision),
        None => {
            let (mut objects, revision) = state.feed.snapshot(def, &scope);
            objects.retain(|object| filter.matches(def, object));
            (objects, revision)
        }
    };
    if let Err(TooOld(oldest)) = cache.since(position, 1) {
        return Err(too_old(position, oldest));
    }
    let lifetime = Duration::from_secs(options.timeout.unwrap_or_else(|| rand::random_range(LIFETIME)));
    let start = Instant::now();
    let watcher = Watcher {
        state: Arc::clone(state),
        cache: Arc::clone(cache),
        history,
        changed: cache.subscribe(),
        stopping: state.stopping.clone(),
        include: Include::parse(request.query.get("includeObject"))?,
        request: request.clone(),
        filter,
        scope,
        headings: true,
        position,
        initial: initial.into(),
        announce_end: options.initial_events,
        bookmarks: options.bookmarks,
        next_bookmark: start + BOOKMARK_PERIOD.min(lifetime.saturating_sub(BOOKMARK_BEFORE_END)),
        end: start + lifetime,
        finished: false,
    };
    let chunks = stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(chunk), watcher))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    add_warnings(headers, &warnings);
    Ok(response)
}

fn too_old(position: Revision, oldest: Revision) -> ApiError {
    ApiError::expired(format!("too old resource version: {position} ({oldest})"), None)
}

impl Watcher {
    /// The next piece of the stream; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.finished {
                return None;
            }
            let mut out = Vec::new();
            self.write_initial(&mut out);
            if out.is_empty() {
                self.write_changes(&mut out);
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            if *self.stopping.borrow() || Instant::now() >= self.end {
                return None;
            }
            if self.bookmarks && Instant::now() >= self.next_bookmark {
                self.write_bookmark(&mut out, false);
                return Some(out.into());
            }
            let wake = if self.bookmarks { self.next_bookmark.min(self.end) } else { self.end };
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() { return None },
                _ = self.stopping.wait_for(|stop| *stop) => return None,
                () = sleep_until(wake) => {}
            }
        }
    }

    fn write_initial(&mut self, out: &mut Vec<u8>) {
        for _ in 0..BATCH {
            let Some(object) = self.initial.pop_front() else { break };
            self.write(out, "ADDED", &object);
        }
        if self.initial.is_empty() && self.announce_end {
            self.announce_end = false;
            self.write_bookmark(out, true);
        }
    }

    fn write_changes(&mut self, out: &mut Vec<u8>) {
        // ORDER: marked as seen before the history is read; what comes later wakes up again.
        self.changed.mark_unchanged();
        // ORDER: read before the history; everything up to it is in the history then.
        let applied = self.state.feed.applied();
        let changes = self.cache.since(self.position, BATCH);
        // ORDER: after the changes; they are of this history if it is still the same.
        let restored = self.state.feed.history() != self.history;
        match changes {
            _ if restored => self.write_end(out, &ApiError::expired("the store was restored from a backup", None)),
            Err(TooOld(oldest)) => self.write_end(out, &too_old(self.position, oldest)),
            Ok(changes) => {
                let complete = changes.len() < BATCH;
                for change in changes {
                    self.write_change(out, &change);
                    self.position = change.revision;
                }
                if complete {
                    self.position = self.position.max(applied);
                } else {
                    self.changed.mark_changed();
                }
            }
        }
    }

    fn write_end(&mut self, out: &mut Vec<u8>, error: &ApiError) {
        let line = json!({"type": "ERROR", "object": error.status()});
        out.extend_from_slice(format!("{line}\n").as_bytes());
        self.finished = true;
    }

    fn write_change(&mut self, out: &mut Vec<u8>, change: &Change) {
        let wanted = |object: &Option<Arc<Kept>>| {
            object
                .as_ref()
                .filter(|o| o.key.starts_with(&self.scope) && self.filter.matches(&self.request.def, o))
                .cloned()
        };
        match (wanted(&change.before), wanted(&change.now)) {
            (Some(_), Some(now)) => self.write(out, "MODIFIED", &now),
            (None, Some(now)) => self.write(out, "ADDED", &now),
            (Some(before), None) => self.write_tree(out, "DELETED", &before.at(change.revision)),
            (None, None) => {}
        }
    }

    /// Most watchers want what is kept, and as text.
    fn write(&mut self, out: &mut Vec<u8>, kind: &str, object: &Kept) {
        match object.served(&self.request.def) {
            Some(text) if self.request.accepted.shape == Shape::Full => {
                out.extend_from_slice(b"{\"type\":\"");
                out.extend_from_slice(kind.as_bytes());
                out.extend_from_slice(b"\",\"object\":");
                out.extend_from_slice(&text);
                out.extend_from_slice(b"}\n");
            }
            _ => self.write_tree(out, kind, &object.value()),
        }
    }

    fn write_tree(&mut self, out: &mut Vec<u8>, kind: &str, stored: &Value) {
        let served = self.request.def.shown(stored).into_owned();
        let object = match self.request.accepted.shape {
            Shape::Table => {
                let metadata = json!({"resourceVersion": served["metadata"]["resourceVersion"]});
                let headings = std::mem::take(&mut self.headings);
                table::table(&self.request.def, metadata, &[served], self.include, headings, now())
            }
            Shape::Metadata => table::metadata_only(&served),
            Shape::Full | Shape::Discovery(_) => served,
        };
        let line = json!({"type": kind, "object": object});
        out.extend_from_slice(format!("{line}\n").as_bytes());
    }

    fn write_bookmark(&mut self, out: &mut Vec<u8>, end_of_initial: bool) {
        let mut metadata = json!({"resourceVersion": self.position.to_string(), "creationTimestamp": null});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let def = &self.request.def;
        let object = match self.request.accepted.shape {
            Shape::Table => {
                let headings = std::mem::take(&mut self.headings);
                table::table(def, metadata, &[], self.include, headings, now())
            }
            Shape::Metadata => table::metadata_only(&json!({"metadata": metadata})),
            Shape::Full | Shape::Discovery(_) => {
                json!({"apiVersion": def.api_version(), "kind": def.kind, "metadata": metadata})
            }
        };
        let line = json!({"type": "BOOKMARK", "object": object});
        out.extend_from_slice(format!("{line}\n").as_bytes());
        let time = Instant::now();
        let last = self.end - BOOKMARK_BEFORE_END;
        self.next_bookmark = if time < last { (time + BOOKMARK_PERIOD).min(last) } else { self.end + BOOKMARK_PERIOD };
    }
}
