//! What can happen to a core: one closed list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_planner::Amount;

use crate::commands::Command;
use crate::compact::Compact;
use crate::config::{Config, GroupConfig};
use crate::frame::Frame;
use crate::lock::LockLook;
use crate::message::Envelope;
use crate::names::{BootId, ClusterId, GroupName, PathName, ResourceName, ServerName};
use crate::orders::Order;
use crate::output::OpId;
use crate::time::Instant;

/// Facts about this machine and boot that the shell knows at start.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Boot {
    /// This server.
    pub server: ServerName,
    /// The kernel's boot id.
    pub boot: BootId,
    /// Runs on a virtual machine.
    pub is_virtual: bool,
    /// Processors and memory that it has for groups; none: not known, there is no limit.
    pub capacity: Option<Amount>,
    /// Soft stop, kill and end of the lease that the deadline page holds from an earlier process of the same boot, by the
    /// settings that it was given under; all [`Instant::ZERO`] if there is none.
    pub deadline: (Instant, Instant, Instant),
    /// A random number, used as id if this server proposes the formation of the sub-cluster.
    pub fresh_cluster: ClusterId,
}

/// An input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// An authenticated heartbeat arrived on a path.
    Frame {
        /// The path.
        path: PathName,
        /// The frame.
        frame: Box<Frame>,
    },
    /// An authenticated heartbeat arrived on a serial line.
    Compact {
        /// The path.
        path: PathName,
        /// What it carries.
        compact: Compact,
    },
    /// An authenticated message arrived.
    Message(Box<Envelope>),
    /// Another machine writes heartbeats under this server's number right now: a copy of its disk is in use. Repeated as
    /// long as that is seen.
    Namesake,
    /// The write with this token, and all before it, are durable.
    Durable {
        /// Token of `Output::Persist`.
        token: u64,
    },
    /// A lock operation ended.
    Lock {
        /// Token of `Output::Lock`.
        token: u64,
        /// What was seen, or why it failed.
        result: Result<LockLook, String>,
    },
    /// A resource operation or check ended.
    ResourceDone {
        /// Which.
        op: OpId,
        /// How.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// A started resource failed by itself (its process exited).
    ResourceFailed {
        /// Its group.
        group: GroupName,
        /// The resource.
        resource: ResourceName,
        /// What was seen.
        message: String,
    },
    /// What a group lacked on this server (a Secret that it names) is there now.
    Mended {
        /// The group.
        group: GroupName,
    },
    /// The accepted specifications, already held durably by this server. Whole, not a difference; groups that are
    /// missing here are kept as they are (absence is not deletion, R16).
    Specs {
        /// The sub-cluster.
        config: Arc<Config>,
        /// Its groups.
        groups: BTreeMap<GroupName, Arc<GroupConfig>>,
        /// Specifications under which groups run on this server since before this process started: their resources
        /// are probed, monitored and stopped as they were started.
        running: BTreeMap<GroupName, Arc<GroupConfig>>,
    },
    /// A fence device has switched the server of [`crate::Output::Fence`] off and, asked afterwards, says that it is off.
    /// The call goes on until `FenceEnded`.
    FencedOff {
        /// Which call.
        op: OpId,
        /// Which level and devices, for people.
        message: String,
    },
    /// Nothing of a fence call is in flight any more.
    FenceEnded {
        /// Which call.
        op: OpId,
        /// Why it failed: every level, or what followed `FencedOff`.
        result: Result<(), String>,
    },
    /// All orders of operators that this server was given and that stand. Whole, not a difference.
    Orders(BTreeSet<Order>),
    /// The groups whose window for a failback is open now, by this server's clock. Whole, not a difference.
    FailbackWindows(BTreeSet<GroupName>),
    /// Somebody gave a command on this server; answer [`crate::Output::Answer`].
    Command {
        /// To be answered.
        token: u64,
        /// What.
        command: Command,
        /// The command as it was given, and the reason, for people.
        why: String,
    },
    /// The process was asked to end (SIGTERM): leave cleanly.
    Leave,
}

/// How a resource operation ended. Anything that isn't proven is `Unknown` and counts as running (domain.md S5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Start, monitor, probe: it runs here.
    Running,
    /// Stop, probe: verified that nothing of it is left here. Monitor: it does not run although it should.
    Stopped,
    /// It failed and may be half there; a stop is needed.
    Failed(String),
    /// Timed out or can't be told.
    Unknown(String),
}
