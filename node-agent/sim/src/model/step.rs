//! What can happen next.

use crate::world::network::Kind;

/// One step. Servers are numbers from 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A message arrives.
    Deliver {
        /// Which: hash of the message.
        id: u64,
        /// Sender and receiver.
        way: (usize, usize),
        /// What it is about.
        kind: Kind,
    },
    /// The oldest ledger write of a server becomes durable.
    Durable(usize),
    /// What a server writes to the lock lands; on a quorum server the swap is done.
    Land(usize),
    /// A server reads the lock, or a swap's answer arrives.
    Look(usize),
    /// A write that nobody waits for lands.
    Stray(usize),
    /// A frozen process goes on.
    Thaw(usize),
    /// A process starts.
    Start(usize),
    /// A heartbeat interval passes: when nothing waits that does not hang.
    Tick,
    /// Fault: a message is lost.
    Lose {
        /// As in `Deliver`.
        id: u64,
        /// As in `Deliver`.
        way: (usize, usize),
        /// As in `Deliver`.
        kind: Kind,
    },
    /// Fault: a message takes as long as may be.
    Delay {
        /// As in `Deliver`.
        id: u64,
        /// As in `Deliver`.
        way: (usize, usize),
        /// As in `Deliver`.
        kind: Kind,
    },
    /// Fault: the oldest ledger write of a server takes as long as may be.
    LedgerHangs(usize),
    /// Fault: the lock operation of a server takes as long as may be.
    LockHangs(usize),
    /// Fault: a process is frozen.
    Freeze(usize),
    /// Fault: a process ends.
    Crash(usize),
    /// Fault: a machine loses its power; it comes back with another boot.
    PowerCut(usize),
    /// Fault: a LAN is cut, or works again.
    Cut(usize, usize),
    /// Fault: a lock operation is answered with an error; what was written may land late or never.
    LockFails(usize),
}

impl Step {
    /// Something goes wrong: it counts against the bound.
    pub fn is_fault(&self) -> bool {
        use Step::*;
        matches!(
            self,
            Lose { .. }
                | Delay { .. }
                | LedgerHangs(_)
                | LockHangs(_)
                | Freeze(_)
                | Crash(_)
                | PowerCut(_)
                | Cut(..)
                | LockFails(_)
        )
    }
}
