//! The thread that asks the quorum server: one access at a time, none longer than T_io.
//!
//! It has a runtime and connections of its own, so that neither the API of the control plane nor a hung quorum server
//! holds up anything else. An access that has no answer in time is given up and its connections with it; the next one
//! takes the next address. What a lost access may have changed there is settled by that next one, see `quorum::access`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_core::Input;
use holdfast_core::lock::{LockLook, LockOp};
use holdfast_core::settings::LockPlace;
use tokio::sync::mpsc;

use crate::clock;
use crate::inbox::{Event, Inbox};
use crate::quorum::access::{Access, AccessError, Credentials};

/// Operations that may wait. The core has at most one under way.
const QUEUE: usize = 4;

/// A quorum server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumWiring {
    /// Its addresses, tried in turn.
    pub urls: Vec<String>,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Slot of this server.
    pub slot: u8,
    /// T_io.
    pub timeout: Duration,
    /// Which lock it is.
    pub place: LockPlace,
    /// How this server shows who it is.
    pub credentials: Credentials,
}

/// How the quorum server is, as this server sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The address in use.
    pub url: String,
    /// What is wrong; none: the last access worked.
    pub error: Option<String>,
    /// Smoothed time of an access.
    pub latency: Option<Duration>,
}

/// A quorum server in use; it ends when dropped, after the access that is under way.
#[derive(Debug)]
pub struct QuorumServer {
    wiring: QuorumWiring,
    ops: mpsc::Sender<(u64, LockOp)>,
    health: Arc<Mutex<Health>>,
}

impl QuorumServer {
    /// Starts the thread; the quorum server itself may be away.
    pub fn start(wiring: QuorumWiring, inbox: Inbox) -> io::Result<QuorumServer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        let (ops, mut waiting) = mpsc::channel(QUEUE);
        let url = wiring.urls.first().cloned().unwrap_or_default();
        let health = Health { url, error: Some("not asked yet".to_owned()), latency: None };
        let health = Arc::new(Mutex::new(health));
        let mut worker = Worker { wiring: wiring.clone(), health: health.clone(), turn: 0, access: None };
        thread::Builder::new().name("quorum-server".into()).stack_size(512 << 10).spawn(move || {
            let _ = crate::realtime::raise_this_thread();
            runtime.block_on(async move {
                while let Some((token, op)) = waiting.recv().await {
                    let result = worker.operate(&op).await;
                    if !inbox.deliver(Event::Input(Input::Lock { token, result })) {
                        return;
                    }
                }
            });
            // A name that is being looked up can't be called off, and nobody waits for it.
            runtime.shutdown_background();
        })?;
        Ok(QuorumServer { wiring, ops, health })
    }

    /// What it was made from.
    pub fn wiring(&self) -> &QuorumWiring {
        &self.wiring
    }

    /// Gives an operation to the thread. The answer comes as an input, unless an error is returned here.
    pub fn lock(&self, token: u64, op: LockOp) -> Result<(), String> {
        self.ops.try_send((token, op)).map_err(|_| format!("{QUEUE} operations wait for the quorum server"))
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Worker {
    wiring: QuorumWiring,
    health: Arc<Mutex<Health>>,
    /// Which address is next.
    turn: usize,
    access: Option<Access>,
}

impl Worker {
    async fn operate(&mut self, op: &LockOp) -> Result<LockLook, String> {
        let url = self.wiring.urls.get(self.turn % self.wiring.urls.len().max(1)).cloned().unwrap_or_default();
        let (begun, limit) = (clock::now(), self.wiring.timeout);
        let result = tokio::time::timeout(limit, self.swap(&url, op)).await;
        let result = result.unwrap_or_else(|_| Err(AccessError::Silent { url: url.clone(), limit }));
        if result.is_err() {
            (self.turn, self.access) = (self.turn.wrapping_add(1), None);
        }
        self.told(url, &result, clock::now().since(begun));
        result.map_err(|e| e.to_string())
    }

    async fn swap(&mut self, url: &str, op: &LockOp) -> Result<LockLook, AccessError> {
        let QuorumWiring { namespace, name, slot, credentials, .. } = &self.wiring;
        let access = match &mut self.access {
            Some(access) => access,
            none => none.insert(Access::new(credentials.client(url).await?, url, namespace, name)),
        };
        let record = match op {
            LockOp::Look => None,
            LockOp::WriteThenLook(record) => Some(record.as_ref()),
        };
        let object = access.swap(*slot, record).await?;
        Ok(object.look(clock::now()))
    }

    fn told(&self, url: String, result: &Result<LockLook, AccessError>, took: Duration) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let error = result.as_ref().err().map(ToString::to_string);
        if health.error != error {
            match &error {
                Some(e) => tracing::warn!("the quorum server can't be used: {e}"),
                None => tracing::info!(url, "the quorum server can be used"),
            }
        }
        if error.is_none() {
            let before = health.latency.unwrap_or(took);
            health.latency = Some(before - before / 8 + took / 8);
        }
        (health.url, health.error) = (url, error);
    }
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
