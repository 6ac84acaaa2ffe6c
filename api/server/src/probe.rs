//! The store's newest revision, read once for all who ask at the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as Cell, PoisonError};

use holdfast_store::{Error, Result, Revision, Store};
use tokio::sync::Mutex;

/// One read at a time; who comes while it is under way takes part in the next one.
///
/// Right because a linearizable read that begins after a request has come shows every write that was acknowledged before
/// the request was sent; that others share it changes nothing. One that had begun before might not show the newest.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    begun: AtomicU64,
    turn: Mutex<()>,
    /// Number and result of the newest read that has ended; of its errors only the one by which all of them would end.
    last: Cell<(u64, Option<Result<Revision, String>>)>,
}

impl Probe {
    /// The newest revision.
    pub(crate) async fn revision(&self, store: &dyn Store) -> Result<Revision> {
        let before = self.begun.load(Ordering::SeqCst);
        let _turn = self.turn.lock().await;
        if let (number, Some(result)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && *number > before
        {
            return result.clone().map_err(Error::Unavailable);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let result = store.revision().await;
        let shared = match &result {
            Ok(revision) => Some(Ok(*revision)),
            Err(Error::Unavailable(why)) => Some(Err(why.clone())),
            Err(_) => None,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (number, shared);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use holdfast_store::Expect;
    use holdfast_store::testing::TempStore;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_shown_less_than_was_acknowledged_before_it_asked() {
        let temporary = TempStore::new().expect("a store");
        let (store, probe) = (temporary.store(), Arc::new(Probe::default()));
        let tasks = (0..8).map(|task| {
            let (store, probe) = (Arc::clone(&store), Arc::clone(&probe));
            tokio::spawn(async move {
                for i in 0..50 {
                    let key = format!("/registry/x/{task}-{i}");
                    let written = store.put(&key, Bytes::from_static(b"{}"), Expect::Absent, None).await.expect("put");
                    assert!(probe.revision(&*store).await.expect("a revision") >= written);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
    }
}
