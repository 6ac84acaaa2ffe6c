//! Of several controllers one acts: the one that holds a Lease. This is the leader election of `coordination.k8s.io/v1`
//! as every Kubernetes controller does it, with its usual times, so any API server will do.
//!
//! - The leader renews every [`RETRY`]. If that fails for [`RENEW_DEADLINE`], counted from when the last renewal that
//!   succeeded was *sent*, it stops acting. Another one may take over only after it has seen no renewal for
//!   [`DURATION`], counted from when it *saw* the last one, which was later. So the leader has stopped
//!   [`DURATION`] − [`RENEW_DEADLINE`] before anybody else begins, and no two clocks are compared with each other.
//! - A leader that is told to stop gives the lease back; candidates watch it and go on at once.
//! - Every request of a leader passes a gate that is closed when its time is over ([`gate`]). What it writes names the
//!   version that it read while it was the leader. A write that was on its way for too long therefore fails on
//!   everything that its successor has written.
//!
//! Two processes that act at once would still do no harm to a group: agents drop a target that was computed from a
//! placement that is no longer the newest. The election is there so that they don't undo each other's work for ever.

mod authority;
mod identity;
mod record;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, Shared};
use futures::{FutureExt, Stream, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, is_conflict, is_not_found};
use crate::write;
use authority::{Authority, gate};
pub use identity::Identity;
use record::Step;

/// Name of the Lease.
const NAME: &str = "holdfast-controller";
/// The namespace of the Lease unless another one is chosen.
pub const NAMESPACE: &str = "holdfast-system";
/// How long a lease stays with a holder that does not renew it.
const DURATION: Duration = Duration::from_secs(15);
/// How long a leader goes on acting after the last renewal that succeeded.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between renewals, and between attempts after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(4);
/// How long work that waits for an answer may go on when the lease is lost; it can't send anything new.
const WIND_UP: Duration = Duration::from_secs(2);

/// Takes part in an election.
#[derive(Debug, Clone)]
pub struct Election {
    /// Namespace of the Lease `holdfast-controller`; made if it is absent. Default [`NAMESPACE`].
    pub namespace: String,
    /// Who this process is.
    pub identity: Arc<Identity>,
}

/// Becomes ready when the work shall end.
pub(crate) type Stop = Shared<future::BoxFuture<'static, ()>>;

/// Why a leader no longer is one.
#[derive(Debug)]
enum Lost {
    /// Somebody else wrote the lease.
    Taken(String),
    /// It was not renewed in time.
    Silence,
}

/// Runs `work` whenever this process is the leader, until `shutdown`. The work gets a client that works only as long
/// as the lease is held, and must end when it is told to.
pub(crate) async fn lead<F>(
    client: Client,
    election: Election,
    shutdown: Stop,
    work: impl Fn(Client, Stop) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut seat = Seat { api: Api::namespaced(client.clone(), &election.namespace), client: client.clone(), election };
    loop {
        let Some((held, authority)) = seat.acquire(shutdown.clone()).await else { return Ok(()) };
        tracing::info!(lease = %seat.name(), identity = %seat.me(), "this controller leads");
        let (lost, told) = oneshot::channel::<()>();
        let until_lost = async move { drop(told.await) };
        let stop = future::select(shutdown.clone(), until_lost.boxed()).map(drop).boxed().shared();
        let mut work = Box::pin(work(gate(client.clone(), authority.clone()), stop));
        let why = tokio::select! {
            outcome = &mut work => {
                seat.release().await;
                return outcome;
            }
            why = seat.keep(held, &authority) => why,
        };
        authority.end();
        tracing::warn!(lease = %seat.name(), ?why, "this controller leads no longer");
        if matches!(&why, Lost::Taken(holder) if Identity::same(holder, seat.me())) {
            tracing::error!(
                "another controller has the same identity, from a copied data directory; this one takes its own"
            );
            seat.election.identity = Arc::new(Identity::fresh());
        }
        drop(lost);
        if timeout(WIND_UP, work).await.is_err() {
            tracing::warn!("an answer of the API server was not waited for");
        }
    }
}

/// The Lease, and who wants it.
struct Seat {
    api: Api<Lease>,
    client: Client,
    election: Election,
}

impl Seat {
    fn me(&self) -> &str {
        self.election.identity.name()
    }

    fn name(&self) -> String {
        format!("{}/{NAME}", self.election.namespace)
    }

    /// Waits for the lease and takes it; none if `shutdown` came first.
    async fn acquire(&self, shutdown: Stop) -> Option<(Lease, Arc<Authority>)> {
        let changes = watcher::watch_object(self.api.clone(), NAME).default_backoff();
        let mut changes = std::pin::pin!(changes);
        let mut told = String::new();
        let mut seen: Option<(Option<Lease>, Instant)> = None;
        loop {
            let wait = match &seen {
                None => None,
                Some((lease, since)) => match record::next(lease.as_ref(), self.me(), since.elapsed()) {
                    Step::Wait(left) => {
                        let holder = record::holder(lease.as_ref());
                        if told != holder {
                            tracing::info!(lease = %self.name(), holder, "another controller leads; this one stands by");
                            holder.clone_into(&mut told);
                        }
                        Some(left)
                    }
                    Step::Take => {
                        let authority = Authority::starting_now(RENEW_DEADLINE);
                        match timeout(ANSWER, self.take(lease.as_ref())).await {
                            Ok(Ok(lease)) => return Some((lease, authority)),
                            // Somebody was faster; the news is on its way.
                            Ok(Err(error)) if is_conflict(&error) => {}
                            Ok(Err(error)) => self.complain(&mut told, &error.to_string()),
                            Err(_) => self.complain(&mut told, "the API server did not answer"),
                        }
                        Some(RETRY)
                    }
                },
            };
            let pause = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.clone() => return None,
                news = next_change(&mut changes) => match news {
                    Ok(lease) => {
                        // A watch that begins again repeats what is known; only a change begins the time anew.
                        let version = |lease: Option<&Lease>| lease.and_then(|l| l.metadata.resource_version.clone());
                        let known = seen.as_ref().is_some_and(|(old, _)| version(old.as_ref()) == version(lease.as_ref()));
                        if !known {
                            seen = Some((lease, Instant::now()));
                        }
                    }
                    Err(error) => self.complain(&mut told, &error),
                },
                () = pause => {}
            }
        }
    }

    /// Says once what is wrong.
    fn complain(&self, told: &mut String, error: &str) {
        if told != error {
            tracing::warn!(lease = %self.name(), error, "the lease can't be had; trying again");
            error.clone_into(told);
        }
    }

    /// Writes ourselves into the lease, if it still is as it was seen.
    async fn take(&self, seen: Option<&Lease>) -> kube::Result<Lease> {
        let wanted = record::taken(seen, self.me(), DURATION, now());
        if seen.is_some() {
            return self.api.replace(NAME, &write::post(), &wanted).await;
        }
        let mut wanted = wanted;
        wanted.metadata.name = Some(NAME.into());
        match self.api.create(&write::post(), &wanted).await {
            Err(error) if is_not_found(&error) => {
                let name = Some(self.election.namespace.clone());
                let namespace = Namespace { metadata: ObjectMeta { name, ..Default::default() }, ..Default::default() };
                match Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await {
                    Ok(_) => tracing::info!(namespace = %self.election.namespace, "made the namespace of the lease"),
                    Err(error) if is_conflict(&error) => {}
                    Err(error) => return Err(error),
                }
                self.api.create(&write::post(), &wanted).await
            }
            other => other,
        }
    }

    /// Renews until that is no longer possible.
    async fn keep(&self, mut held: Lease, authority: &Authority) -> Lost {
        loop {
            sleep(RETRY.min(authority.left())).await;
            let left = authority.left();
            if left.is_zero() {
                return Lost::Silence;
            }
            let sent = Authority::now();
            let wanted = record::renewed(&held, DURATION, now());
            let answer = timeout(left.min(ANSWER), self.api.replace(NAME, &write::post(), &wanted)).await;
            match answer {
                Ok(Ok(lease)) => {
                    authority.extend(sent, RENEW_DEADLINE);
                    held = lease;
                }
                Ok(Err(error)) if is_conflict(&error) || is_not_found(&error) => {
                    match timeout(authority.left(), self.api.get_opt(NAME)).await {
                        // A renewal whose answer was lost: it is ours, but how old it is nobody knows.
                        Ok(Ok(Some(lease))) if record::continues(&lease, &held, self.me()) => held = lease,
                        Ok(Ok(lease)) => return Lost::Taken(record::holder(lease.as_ref()).to_owned()),
                        Ok(Err(error)) => tracing::warn!(%error, "the lease can't be read"),
                        Err(_) => return Lost::Silence,
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "the lease is not renewed; trying again"),
                Err(_) => tracing::warn!("the lease is not renewed: no answer; trying again"),
            }
        }
    }

    /// Gives the lease back, so that another one need not wait. If that fails it ends by itself.
    async fn release(&self) {
        let attempt = async {
            loop {
                let Some(lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
                if !record::is_mine(&lease, self.me()) {
                    return Ok(());
                }
                let wanted = record::released(&lease, now());
                match self.api.replace(NAME, &write::post(), &wanted).await {
                    Err(error) if is_conflict(&error) => {}
                    other => return other.map(drop),
                }
            }
        };
        match timeout(ANSWER, attempt).await {
            Ok(Ok(())) => tracing::info!(lease = %self.name(), "gave the lease back"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.name(), %error, "the lease is not given back; it ends by itself")
            }
            Err(_) => tracing::warn!(lease = %self.name(), "the lease is not given back; it ends by itself"),
        }
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// The next state of the lease. A watch never ends; it fails and begins again.
async fn next_change<S>(changes: &mut S) -> Result<Option<Lease>, String>
where
    S: Stream<Item = watcher::Result<Option<Lease>>> + Unpin,
{
    match changes.try_next().await {
        Ok(Some(lease)) => Ok(lease),
        Ok(None) => future::pending().await,
        Err(error) => Err(error.to_string()),
    }
}
