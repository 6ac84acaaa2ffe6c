//! What stands on the lock disk for one server, and what a look at it returns (R4, R8). Not the layout: the shell's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{AcceptorId, ClusterId};
use crate::time::Instant;
use crate::view::{Ballot, Epoch, View};

/// The newest thing that a server wrote into its ring. Every write is a whole record, so that one read of the newest
/// valid slot says everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// The sub-cluster.
    pub cluster: ClusterId,
    /// The lock that it was written for.
    pub lock: AcceptorId,
    /// Boot counter of the writer: first key of the order of its records.
    pub boot_counter: u64,
    /// Second key; counts up with every write, and starts above everything read.
    pub sequence: u64,
    /// Lineage of the writer.
    pub lineage: u32,
    /// Epoch that `ballot`, `accepted` and `lean` belong to.
    pub epoch: Epoch,
    /// Its ballot in that epoch; round 0: none.
    pub ballot: Ballot,
    /// What it accepted through the lock in that epoch.
    pub accepted: Option<(Ballot, View)>,
    /// Counts its leaning on the lock in that epoch; 0: never.
    pub lean: u64,
    /// The newest view that it adopted.
    pub view: View,
}

/// An operation on the lock disk. At most one is under way per server; a write without an answer may have landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockOp {
    /// Read the header and everybody's ring.
    Look,
    /// Write into the own ring, wait until it is on the disk, then look.
    WriteThenLook(Box<LockRecord>),
}

/// What a look returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockLook {
    /// Identity of the area, made when it was formatted.
    pub lock: AcceptorId,
    /// Newest valid record per slot (`servers[].id`); absent: formatted and never written.
    pub records: BTreeMap<u8, LockRecord>,
    /// Slots whose newest content can't be told (checks fail although the write is old): the lock has no vote.
    pub damaged: Vec<u8>,
    /// When the read was complete, on the reader's clock.
    pub completed: Instant,
}
