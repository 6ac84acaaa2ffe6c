//! The one way into the thread that owns the core: a bounded queue of events.
//!
//! Results of operations that the core asked for always arrive; frames and messages are dropped when the queue is full,
//! as if the network had lost them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use holdfast_core::Input;
use holdfast_core::config::{Config, GroupConfig};
use holdfast_core::names::GroupName;

use tokio::sync::oneshot;

use crate::commands::Request;
use crate::paths::Wiring;

/// Events that may wait. At 16 servers, 16 paths and the shortest interval (10 ms) that is more than 100 ms of frames.
const CAPACITY: usize = 4096;

/// What may happen to the thread that owns the core.
#[derive(Debug)]
pub enum Event {
    /// Something for the core.
    Input(Input),
    /// New accepted specifications, already durable on this server.
    Adopt(Box<Adoption>),
    /// Somebody gave a command on this server.
    Command {
        /// What.
        request: Request,
        /// Takes what was done, or why it is refused.
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// The guard has another state, or keys have changed: look again and publish.
    Refresh,
    /// The process has to end at once; the reason.
    Fatal(String),
}

/// Accepted specifications in every form that the agent needs.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// For the core.
    pub config: Arc<Config>,
    /// For the core.
    pub groups: BTreeMap<GroupName, Arc<GroupConfig>>,
    /// For the core: what ran before this process started, where that differs.
    pub running: BTreeMap<GroupName, Arc<GroupConfig>>,
    /// For the paths.
    pub wiring: Wiring,
    /// For the paths: those of specifications before, newest first; what of them the view still has stays open (R21).
    pub former: Vec<Wiring>,
    /// For the executor: the specifications as the API has them.
    pub specs: BTreeMap<GroupName, Arc<holdfast_api::v1::FailoverGroup>>,
    /// The sub-cluster as the API has it.
    pub sub_cluster: Arc<holdfast_api::v1::SubCluster>,
    /// For the executor: what specifications name beside themselves.
    pub sources: Arc<crate::resources::Sources>,
    /// The Secrets that its fence devices name.
    pub secrets: crate::fencing::Secrets,
}

/// The sending end.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: SyncSender<Event>,
}

impl Inbox {
    /// The queue.
    pub fn new() -> (Inbox, Receiver<Event>) {
        let (queue, events) = sync_channel(CAPACITY);
        (Inbox { queue }, events)
    }

    /// Delivers something that may be lost: a frame, a message. Returns whether it was taken.
    pub fn offer(&self, input: Input) -> bool {
        self.queue.try_send(Event::Input(input)).is_ok()
    }

    /// Delivers something that must arrive; waits while the queue is full. Returns whether the receiver still exists.
    /// Never call it on the receiving thread.
    pub fn deliver(&self, event: Event) -> bool {
        self.queue.send(event).is_ok()
    }
}
