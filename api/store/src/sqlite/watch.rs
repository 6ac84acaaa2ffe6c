//! Watching: the newest events in memory for those who keep up, the history on disk for those who do not.
//!
//! INVARIANT: the memory is bounded and the writer never waits for a watcher. A watcher that falls behind the events
//! in memory reads its next ones from the history and misses none; if they are forgotten there too, its stream ends
//! with [`Error::Compacted`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use tokio::sync::watch;

use super::{Shared, schema};
use crate::range::Keys;
use crate::{Error, Event, Result, Revision};

/// Most events kept in memory.
const RECENT_EVENTS: usize = 4096;
/// Most bytes of events kept in memory.
const RECENT_BYTES: usize = 16 << 20;
/// Most events in one batch of a stream.
const BATCH_EVENTS: usize = 512;

/// The newest events, and the bell that rings when there are more.
pub(super) struct Recent {
    events: Mutex<Window>,
    bell: watch::Sender<Bell>,
}

#[derive(Debug, Clone, Copy)]
struct Bell {
    newest: Revision,
    closed: bool,
}

struct Window {
    /// Every event after this revision is in `events`.
    after: Revision,
    events: VecDeque<Event>,
    bytes: usize,
}

impl Recent {
    /// Nothing in memory yet; the store is at `revision`.
    pub(super) fn new(revision: Revision) -> Self {
        let events = Window { after: revision, events: VecDeque::new(), bytes: 0 };
        Self { events: Mutex::new(events), bell: watch::Sender::new(Bell { newest: revision, closed: false }) }
    }

    /// The newest committed revision.
    pub(super) fn newest(&self) -> Revision {
        self.bell.borrow().newest
    }

    /// Ends all watchers.
    pub(super) fn close(&self) {
        self.bell.send_modify(|bell| bell.closed = true);
    }

    /// Takes in the events of a commit, in order, and wakes the watchers.
    pub(super) fn publish(&self, committed: Vec<Event>) {
        let Some(newest) = committed.last().map(Event::revision) else { return };
        {
            let mut window = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            for event in committed {
                window.bytes += schema::size(&event);
                window.events.push_back(event);
            }
            while window.events.len() > RECENT_EVENTS || window.bytes > RECENT_BYTES {
                let Some(oldest) = window.events.pop_front() else { break };
                window.bytes -= schema::size(&oldest);
                window.after = oldest.revision();
            }
        }
        self.bell.send_modify(|bell| bell.newest = newest);
    }

    /// The events of `keys` after a revision, none if the memory does not reach back that far.
    fn after(&self, keys: &Keys, after: Revision) -> Option<schema::Chapter> {
        let window = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if after < window.after {
            return None;
        }
        let first = window.events.partition_point(|event| event.revision() <= after);
        let mut chapter = schema::Chapter { events: Vec::new(), upto: after };
        for event in window.events.range(first..) {
            chapter.upto = event.revision();
            if keys.contain(event.key()) {
                chapter.events.push(event.clone());
                if chapter.events.len() >= BATCH_EVENTS {
                    break;
                }
            }
        }
        Some(chapter)
    }
}

/// The changes of `keys` after a revision, for ever.
pub(super) fn stream(
    shared: Arc<Shared>,
    keys: Keys,
    after: Revision,
) -> impl Stream<Item = Result<Vec<Event>>> + Send {
    struct State {
        shared: Arc<Shared>,
        bell: watch::Receiver<Bell>,
        keys: Keys,
        after: Revision,
    }
    let bell = shared.recent.bell.subscribe();
    let start = State { shared, bell, keys, after };
    futures::stream::try_unfold(Some(start), |state| async move {
        let Some(mut state) = state else { return Ok(None) };
        loop {
            let Bell { newest, closed } = *state.bell.borrow_and_update();
            if closed {
                return Err(Error::Unavailable("the store was closed".to_owned()));
            }
            if state.after < newest {
                let chapter = match state.shared.recent.after(&state.keys, state.after) {
                    Some(chapter) => chapter,
                    None => {
                        let (keys, after) = (state.keys.clone(), state.after);
                        state.shared.read(move |c| schema::history(c, &keys, after, BATCH_EVENTS)).await?
                    }
                };
                state.after = chapter.upto;
                if !chapter.events.is_empty() {
                    return Ok(Some((chapter.events, Some(state))));
                }
            } else if state.bell.changed().await.is_err() {
                return Err(Error::Unavailable("the store was closed".to_owned()));
            }
        }
    })
}
