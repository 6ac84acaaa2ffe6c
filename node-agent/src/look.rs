//! Looks at things of this server that the API is told about: at once when others are wanted, and again and again, as they
//! change by themselves.

use std::time::Duration;

use tokio::sync::watch;

/// How often the same is looked at again.
const AGAIN: Duration = Duration::from_secs(60);

/// Looks at what is wanted whenever that changes, and every minute; gives what was found.
pub fn follow<W, F>(
    mut wanted: watch::Receiver<W>,
    mut look: impl FnMut(&W) -> Vec<F> + Send + 'static,
) -> watch::Receiver<Vec<F>>
where
    W: Clone + Send + Sync + 'static,
    F: PartialEq + Send + Sync + 'static,
{
    let (found, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        loop {
            let these = wanted.borrow_and_update().clone();
            // A path may lead to a file server that does not answer: this task waits for it, and nobody else does.
            let looked = tokio::task::spawn_blocking(move || {
                let now = look(&these);
                (look, now)
            });
            let Ok((after, now)) = looked.await else { return };
            look = after;
            found.send_if_modified(|before| renew(before, now));
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    });
    receiver
}

/// Whether it is another one now.
pub fn renew<T: PartialEq>(before: &mut T, now: T) -> bool {
    let differs = *before != now;
    *before = now;
    differs
}
