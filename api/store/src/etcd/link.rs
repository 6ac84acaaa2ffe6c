//! The connections to the members of an etcd cluster, and which of them is asked.
//!
//! One connection per endpoint, made when first needed. Calls go to the member that answered last; when it fails, the
//! next one is preferred from then on.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient, WatchClient};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::CALL_TIMEOUT;
use super::tls::{self, Tls};
use crate::{Error, Result};

/// Longest time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd refuses clients that ping more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// Longest wait for the answer to a ping; then watches on the connection end.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Doing it again changes nothing.
    Read,
    /// Done again only if the first try never reached etcd.
    Write,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The revision is forgotten.
    Compacted,
    /// The revision is not reached yet.
    Future,
    /// There is no room; nothing was written.
    Full(String),
    /// Everything else, in words, with the endpoint.
    Other(String),
}

/// A connection to one member.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
}

impl Link {
    /// Reads and writes. An answer may be as large as the entries that were asked for.
    pub(super) fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(usize::MAX)
    }

    /// Watches. etcd splits what is larger than its own limit (1.5 MiB), but not a single event with two values.
    pub(super) fn watch(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(16 << 20)
    }
}

struct Member {
    endpoint: String,
    link: OnceCell<Link>,
}

/// All members.
#[derive(Clone)]
pub(super) struct Links {
    members: Arc<[Member]>,
    preferred: Arc<AtomicUsize>,
    tls: Option<Arc<Tls>>,
}

impl Links {
    pub(super) fn new(endpoints: &[String], tls: Option<Tls>) -> Result<Self> {
        if endpoints.is_empty() {
            return Err(Error::Unavailable("no etcd endpoint is given".to_owned()));
        }
        let members =
            endpoints.iter().map(|endpoint| Member { endpoint: endpoint.clone(), link: OnceCell::new() }).collect();
        Ok(Self { members, preferred: Arc::new(AtomicUsize::new(0)), tls: tls.map(Arc::new) })
    }

    /// Makes a call at one member after another until one succeeds, the outcome is unknown or the time is over.
    pub(super) async fn call<T, F>(&self, kind: Kind, call: impl Fn(Link) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        // A single member gets a second try, on a new connection.
        let tries = self.members.len().max(2);
        let mut last = Failure::Other("etcd was not asked".to_owned());
        for tried in 0..tries {
            let index = self.preferred.load(Ordering::Relaxed) % self.members.len();
            let member = &self.members[index];
            let left = deadline.saturating_duration_since(Instant::now());
            // A member that hangs must leave some time for the next one, if there is one and it may be asked.
            let patience = if kind == Kind::Read && self.members.len() > 1 && tried == 0 { left / 2 } else { left };
            let tls = self.tls.as_deref();
            let attempt = async { call(member.link(tls).await?).await };
            let (failure, again) = match timeout(patience, attempt).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => judge(&member.endpoint, kind, tls, &error),
                Err(_) => {
                    let text = format!("etcd at {} did not answer within {} ms", member.endpoint, patience.as_millis());
                    (Failure::Other(text), kind == Kind::Read)
                }
            };
            if matches!(failure, Failure::Other(_)) {
                // Whoever saw the failure first moves the preference; the others find it moved.
                let next = (index + 1) % self.members.len();
                let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
            }
            last = failure;
            if !again || Instant::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    /// Makes a lease that ends after `ttl`, rounded up to seconds, or etcd's smallest (2 s by default).
    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64> {
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        // Two leases instead of one do no harm: the one without keys ends by itself.
        let call = |link: Link| async move { link.client.lease_client().grant(seconds, None).await };
        match self.call(Kind::Read, call).await {
            Ok(granted) => Ok(granted.id()),
            Err(Failure::Full(text)) => Err(Error::Full(text)),
            Err(Failure::Other(text)) => Err(Error::Unavailable(text)),
            Err(Failure::Compacted | Failure::Future) => Err(Error::Unavailable("etcd refused a lease".to_owned())),
        }
    }

    /// Gives back a lease that was not used. If that fails the lease ends by itself.
    pub(super) fn revoke_later(&self, lease: i64) {
        let links = self.clone();
        tokio::spawn(async move {
            let call = |link: Link| async move { link.client.lease_client().revoke(lease).await };
            if let Err(failure) = links.call(Kind::Read, call).await {
                tracing::debug!(lease, ?failure, "an unused lease was not given back");
            }
        });
    }
}

impl Member {
    async fn link(&self, tls: Option<&Tls>) -> Result<Link, etcd_client::Error> {
        let connect = async || {
            let mut options = ConnectOptions::new()
                .with_connect_timeout(CONNECT_TIMEOUT)
                .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
                // A member that lost its cluster must end its watches, not go silent.
                .with_require_leader(true);
            let scheme = if let Some(tls) = tls {
                options = options.with_tls(tls.options.clone());
                "https"
            } else {
                "http"
            };
            let client = Client::connect([format!("{scheme}://{}", self.endpoint)], Some(options)).await?;
            Ok(Link { client })
        };
        self.link.get_or_try_init(connect).await.cloned()
    }
}

/// What an error means, and whether the call may be made again.
fn judge(endpoint: &str, kind: Kind, tls: Option<&Tls>, error: &etcd_client::Error) -> (Failure, bool) {
    let text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    if text.contains("required revision has been compacted") {
        return (Failure::Compacted, false);
    }
    if text.contains("required revision is a future revision") {
        return (Failure::Future, false);
    }
    if text.contains("database space exceeded") {
        return (Failure::Full(format!("etcd at {endpoint} has reached its quota")), false);
    }
    let never_sent = not_connected(error);
    let why = if never_sent { "cannot be reached" } else { "failed" };
    // The innermost cause says the most; etcd's own answers have none.
    let (text, advice) = match causes(error) {
        Some(cause) if never_sent => (cause, String::new()),
        Some(cause) => {
            let advice = tls::advice(&cause, tls.map(|tls| &tls.files));
            (cause, advice)
        }
        None => (text, String::new()),
    };
    (Failure::Other(format!("etcd at {endpoint} {why}: {text}{advice}")), never_sent || kind == Kind::Read)
}

/// The innermost cause of a call that failed on its way; none if etcd answered.
fn causes(error: &etcd_client::Error) -> Option<String> {
    let etcd_client::Error::GRpcStatus(status) = error else { return None };
    let mut innermost = status.source()?;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    Some(innermost.to_string())
}

/// Whether the connection was refused, so that nothing can have been done.
fn not_connected(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}
