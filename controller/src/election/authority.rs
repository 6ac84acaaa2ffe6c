//! How long a leader may act, and the gate that its requests pass.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use nix::time::{ClockId, clock_gettime};

/// The time until which this process is the leader.
///
/// Measured with the clock that also runs while the machine sleeps, so that a laptop that was shut or a virtual machine
/// that was suspended does not wake up as a leader.
#[derive(Debug)]
pub(super) struct Authority {
    until: Mutex<Duration>,
}

impl Authority {
    /// The present time, since the machine was started.
    pub(super) fn now() -> Duration {
        // A clock that every supported kernel has; without it there is no authority.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
    }

    /// A leader for `time` from now.
    pub(super) fn starting_now(time: Duration) -> Arc<Self> {
        Arc::new(Self { until: Mutex::new(Self::now().saturating_add(time)) })
    }

    /// A renewal that was sent at `sent` succeeded.
    pub(super) fn extend(&self, sent: Duration, time: Duration) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(sent.saturating_add(time));
    }

    /// It is over.
    pub(super) fn end(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
    }

    /// How long it still lasts.
    pub(super) fn left(&self) -> Duration {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).saturating_sub(Self::now())
    }
}

/// A request that a leader of the past wanted to send.
#[derive(Debug, thiserror::Error)]
#[error("not sent: this controller leads no longer")]
struct NotTheLeader;

/// A client that sends nothing once the authority has ended.
///
/// Here and not at every write: what is read for the next attempt of a write must not be read by a leader of the past
/// either, or the attempt would name a version that its successor wrote, and undo it.
pub(super) fn gate(client: Client, authority: Arc<Authority>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, authority) = (client.clone(), authority.clone());
        async move {
            if authority.left().is_zero() {
                return Err(Box::new(NotTheLeader) as Box<dyn std::error::Error + Send + Sync>);
            }
            client.send(request).await.map_err(Into::into)
        }
    });
    Client::new(service, namespace)
}
