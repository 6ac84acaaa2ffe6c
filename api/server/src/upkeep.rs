//! Work that goes on beside requests: forgetting old history, and things to be done once at the start.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ApiResult;
use crate::state::State;

/// How often the store is asked for its revision.
const PERIOD: Duration = Duration::from_secs(60);
/// History is kept for this many periods: ten minutes, twice of what a stock server keeps.
const KEPT: usize = 10;
/// Pause before something is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Repeats `work` until it succeeds.
pub(crate) async fn until_done<F: Future<Output = ApiResult<()>>>(what: &str, work: impl Fn() -> F) {
    let mut reported = false;
    while let Err(error) = work().await {
        if !std::mem::replace(&mut reported, true) {
            tracing::warn!(what, message = %error.message, "failed; it is tried again until it succeeds");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Lets the store forget what is older than [`KEPT`] periods, for ever.
pub(crate) async fn compact(state: Arc<State>) {
    let mut marks = VecDeque::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        // While the store can't be followed nothing is forgotten, so that following can go on without a gap.
        if state.feed.lost().is_some() {
            continue;
        }
        let Ok(revision) = state.store.revision().await else { continue };
        marks.push_back(revision);
        if marks.len() <= KEPT {
            continue;
        }
        if let Some(oldest) = marks.pop_front()
            && let Err(error) = state.store.compact(oldest).await
        {
            tracing::warn!(%error, revision = oldest, "the store could not forget old history");
        }
    }
}
