//! What stands on the lock for one server, and what a look at it returns (R4, R5, R8). Not the layout: the shell's.
//!
//! A lock disk is written and then read; a quorum server does both in one step. What follows from what is read is the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{AcceptorId, ClusterId};
use crate::time::Instant;
use crate::view::{Ballot, Epoch, View};

/// The newest thing that a server wrote to the lock. Every write is a whole record, so that one read of the newest
/// valid slot says everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Grows with every leaning on the lock in that epoch, over restarts of the process, too; 0: never.
    pub lean: u64,
    /// The lineage that it is about to begin by a force-reinstate (R22); 0: none. Whoever reads it begins none itself.
    pub claim: u32,
    /// The newest view that it adopted.
    pub view: View,
}

/// An operation on the lock. At most one is under way per server; a write without an answer may have landed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LockOp {
    /// Read everybody's newest record. On a quorum server by a swap, too: it settles an earlier one without an answer.
    Look,
    /// Write the own record, wait until it is durable, then look (disk); or both in one swap (quorum server).
    WriteThenLook(Box<LockRecord>),
}

/// Places of a server's ring: a write goes to the place `sequence` modulo this.
pub const LOCK_RING: u64 = 8;

/// What a look returned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockLook {
    /// Identity of the lock, made when the disk was formatted or the object was created.
    pub lock: AcceptorId,
    /// How often it was changed, if it counts that itself (a quorum server does).
    pub counter: Option<u64>,
    /// Newest valid record per slot (`servers[].id`); absent: never written.
    pub records: BTreeMap<u8, LockRecord>,
    /// Slots whose newest content can't be told (checks fail although the write is old): the lock has no vote.
    pub damaged: Vec<u8>,
    /// When the read was complete, on the reader's clock.
    pub completed: Instant,
}

/// What a server remembers of the lock, to tell a lock that was put back to an older state (restored from a copy, a
/// disk reverted to a snapshot): such a lock has forgotten promises and has no vote (protocol-why D9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LockMemory {
    /// The lock that this is about.
    pub lock: AcceptorId,
    /// The highest counter seen: its own, or the sequence of this server's record where it has none.
    pub counter: u64,
    /// The highest number of a record of this server before it came to this lock: those up to it never were given to it.
    pub since: u64,
    /// It went back once: it has no vote for ever. Only another identity, admitted by a view, has one again.
    pub distrusted: bool,
}
