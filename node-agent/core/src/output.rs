//! What a core asks of its shell.

use std::time::Duration;

use crate::durable::Durable;
use crate::frame::Frame;
use crate::lock::LockOp;
use crate::message::{Message, Reason};
use crate::names::{GroupName, MonitorName, ResourceName, ServerName};
use crate::orders::Power;
use crate::settings::LockPlace;
use crate::time::Instant;
use crate::view::{Epoch, Tag};

/// Number of a resource operation or fence call, unique per process.
pub type OpId = u64;

/// An output; see the contract in the crate's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Write it, with fsync; answer [`crate::Input::Durable`].
    Persist {
        /// To be answered.
        token: u64,
        /// The whole state.
        state: Box<Durable>,
    },
    /// Send this heartbeat to every peer on every path (LAN, disk, serial), now.
    Heartbeat(Box<Frame>),
    /// Send a message to one peer over the best LAN: interconnects first, all that may work if in doubt.
    Send {
        /// Receiver.
        to: ServerName,
        /// What.
        message: Box<Message>,
    },
    /// Carry out a lock operation; answer [`crate::Input::Lock`].
    Lock {
        /// To be answered.
        token: u64,
        /// Which lock: the one in force, or the one that is wanted.
        lock: LockPlace,
        /// What to do.
        op: LockOp,
    },
    /// R9: authority until then. Goes to the deadline page for guard and helpers. All three may be in the past
    /// (everything has to stop now); [`Instant::ZERO`] if this server never had a lease.
    Deadline {
        /// Graceful stop begins.
        soft: Instant,
        /// The guard kills.
        kill: Instant,
        /// Nothing runs any more.
        end: Instant,
    },
    /// Carry out a resource operation in a helper; answer [`crate::Input::ResourceDone`].
    Resource {
        /// To be answered.
        op: OpId,
        /// Group.
        group: GroupName,
        /// Resource.
        resource: ResourceName,
        /// Generation of the specification to use. For a stop, monitor or probe: the one that it was started with.
        generation: u64,
        /// What to do.
        action: Action,
        /// Of a monitor: how deep it looks; 0 is the plainest, and of every other action.
        depth: u8,
        /// What scripts are told.
        context: Context,
        /// After this the helper and all that it started for this operation is killed and the outcome is Unknown.
        timeout: Duration,
    },
    /// Carry out a check of a monitor in a helper; answer [`crate::Input::ResourceDone`]: `Running` if all is well,
    /// `Failed` if not, `Unknown` if the check itself could not be carried out. It must be over before any stop of a
    /// resource of the group begins: it may hold files of the group.
    Check {
        /// To be answered.
        op: OpId,
        /// Group; none: a monitor of the sub-cluster's servers.
        group: Option<GroupName>,
        /// Monitor.
        monitor: MonitorName,
        /// Generation of the group's specification to use.
        generation: u64,
        /// Without an answer until then the check has failed.
        timeout: Duration,
        /// What happened before does not count: the group was not Online here, or an action has answered it. None: it
        /// has been Online since before this process, and counts from where the process before began to count.
        since: Option<Instant>,
    },
    /// Switch this server off by its fence devices, level by level, as the newest specification has them; answer
    /// [`crate::Input::FencedOff`] when that is verified, and in any case [`crate::Input::FenceEnded`].
    Fence {
        /// To be answered.
        op: OpId,
        /// The server.
        server: ServerName,
        /// What an operator wants done, also to switch it on only; none: what the devices are configured for.
        power: Option<Power>,
    },
    /// End this call at once, with everything that it started; [`crate::Input::FenceEnded`] is still to be answered.
    FenceCancel {
        /// The call.
        op: OpId,
    },
    /// The answer to [`crate::Input::Command`]: what was done, or why it is refused.
    Answer {
        /// Of the command.
        token: u64,
        /// One sentence.
        answer: Result<String, String>,
    },
    /// The program of this command is part of the group from now on: its specification is to be kept.
    Program {
        /// Of the command.
        token: u64,
        /// The group.
        group: GroupName,
        /// The resource that it is.
        program: ResourceName,
    },
    /// The program is verified stopped, and no part of the group any more: what was kept of it may be forgotten.
    ProgramEnded {
        /// The group.
        group: GroupName,
        /// The program.
        program: ResourceName,
    },
    /// The group is verified stopped here; its kill-list entries and running specification may be forgotten.
    Released {
        /// The group.
        group: GroupName,
    },
    /// Something that people want to know: a log line and an Event.
    Note(Note),
    /// Clean leave is complete: end the process.
    Exit,
    /// Clean leave is complete: shut this machine down. The process goes on, outside of every view, until that ends it.
    PowerOff {
        /// Why.
        reason: String,
    },
}

/// A resource operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Is it running here?
    Probe,
    /// Start it; idempotent.
    Start,
    /// Stop it and verify; idempotent.
    Stop,
    /// Check it.
    Monitor,
}

/// Why and under which authority an operation runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Context {
    /// `HOLDFAST_REASON`.
    pub reason: Reason,
    /// `HOLDFAST_PREVIOUS_SERVER`.
    pub previous: Option<ServerName>,
    /// Tag of the assignment (`HOLDFAST_EPOCH` is its epoch).
    pub tag: Tag,
}

/// An event for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// Event reason of api.md §9.
    pub reason: &'static str,
    /// The group that it is about, none: the sub-cluster or server.
    pub group: Option<GroupName>,
    /// Epoch of the newest view that this server knows; 0 without one.
    pub epoch: Epoch,
    /// On whose behalf the group is where it is, see [`crate::message::Assignment::operation`].
    pub operation: Option<String>,
    /// One sentence.
    pub message: String,
    /// Something is wrong.
    pub warning: bool,
}
