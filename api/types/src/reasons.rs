//! The words of the API: condition types, their reasons, hold types and event reasons, each as one constant, so that
//! code, documents, command line and tests cite the same words.

/// Declares string constants whose value is their name.
macro_rules! words {
    ($(#[$all_doc:meta])* $all:ident: $( $(#[$doc:meta])* $constant:ident = $word:literal ),+ $(,)?) => {
        $( $(#[$doc])* pub const $constant: &str = $word; )+
        $(#[$all_doc])*
        pub const $all: &[&str] = &[$($constant),+];
    };
}

/// Condition types.
pub mod condition {
    words! {
        /// Every condition type.
        ALL:
        /// What is observed equals what is effectively declared.
        READY = "Ready",
        /// The spec of this generation is taken; False names what to change.
        ACCEPTED = "Accepted",
        /// The group runs completely on one server.
        ONLINE = "Online",
        /// The newest view has a quorum of its acceptors.
        QUORUM_HELD = "QuorumHeld",
        /// Every server reaches the lock. False: servers that lose sight of each other may stop all their groups. Absent
        /// where there is no lock.
        LOCK_REACHABLE = "LockReachable",
        /// The guarantee is at least what the super-cluster demands.
        GUARANTEE_MET = "GuaranteeMet",
        /// Status comes from agents and is fresh.
        AGENT_REPORTING = "AgentReporting",
        /// Every heartbeat path is up.
        PATHS_HEALTHY = "PathsHealthy",
        /// A watchdog device stands behind the guard.
        WATCHDOG_ARMED = "WatchdogArmed",
        /// The fence devices answer and have the right parameters.
        FENCING_READY = "FencingReady",
        /// Another server could take the group over right now.
        STANDBY_AVAILABLE = "StandbyAvailable",
        /// The operation is over.
        COMPLETE = "Complete",
        /// Work towards the declared state goes on. Absent when false.
        RECONCILING = "Reconciling",
        /// A human is needed. Absent when false.
        STALLED = "Stalled",
        /// A hold is in force; its type is the reason. Absent when false.
        HELD = "Held",
        /// The newest spec is not yet in force everywhere. Absent when false.
        CONFIG_PENDING = "ConfigPending",
        /// Deletion waits for something. Absent when false.
        DELETION_BLOCKED = "DeletionBlocked",
        /// Programs or scripts differ between servers. Absent when false.
        CONTENT_MISMATCH = "ContentMismatch",
        /// A resource can't be carried out on a server that may run the group. Absent when false.
        UNUSABLE_RESOURCE = "UnusableResource",
        /// `placement` names groups that the sub-cluster does not have. Absent when false.
        UNKNOWN_GROUP = "UnknownGroup",
        /// A brake stopped further action. Absent when false.
        BRAKE_ON = "BrakeOn",
        /// The super-cluster names no usable master. Absent when false.
        MASTER_MISSING = "MasterMissing",
        /// The operation or resource failed. Absent when false.
        FAILED = "Failed",
    }
}

/// Reasons of the condition `Accepted`.
pub mod accepted {
    words! {
        /// Every reason of `Accepted`.
        ALL:
        /// The spec is taken.
        ACCEPTED = "Accepted",
        /// The super-cluster already has 128 older sub-clusters.
        TOO_MANY_SUB_CLUSTERS = "TooManySubClusters",
        /// The super-cluster does not admit this namespace.
        NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed",
        /// A guard rail of the super-cluster is broken.
        POLICY_VIOLATION = "PolicyViolation",
        /// Another group has the same disk, mount point or address.
        CLAIM_CONFLICT = "ClaimConflict",
        /// Resources depend on each other in a circle.
        DEPENDENCY_CYCLE = "DependencyCycle",
        /// A server is named that the sub-cluster does not have.
        UNKNOWN_SERVER = "UnknownServer",
        /// A disk is named that the sub-cluster does not have.
        UNKNOWN_DISK = "UnknownDisk",
        /// A data service is named that does not exist, is not accepted, or can't be used as it is.
        UNKNOWN_DATA_SERVICE = "UnknownDataService",
        /// The sub-cluster does not let groups run as this user.
        RUN_AS_NOT_ALLOWED = "RunAsNotAllowed",
        /// The schema has the field, this version does not carry it out.
        UNSUPPORTED_BY_SERVER = "UnsupportedByServer",
        /// The OCF agent is a promotable one.
        PROMOTABLE_UNSUPPORTED = "PromotableUnsupported",
        /// A heartbeat path can't work; the message says which and why.
        INVALID_PATH = "InvalidPath",
        /// A timing rule is broken; the message has both sides.
        TIMING_INEQUALITY = "TimingInequality",
        /// Fence devices and levels do not fit together.
        FENCING_INVALID = "FencingInvalid",
        /// A monitor's pattern or address is none; the message says which and why.
        MONITOR_INVALID = "MonitorInvalid",
        /// A relation to another group, or a time zone, can never be as it is said; the message says which and why.
        PLACEMENT_INVALID = "PlacementInvalid",
        /// The master sub-cluster can't be stopped.
        MASTER_CANNOT_STOP = "MasterCannotStop",
        /// The group names a sub-cluster, or the sub-cluster a super-cluster, that does not exist (yet).
        NOT_FOUND = "NotFound",
    }
}

/// Reasons of the condition `Ready`.
pub mod ready {
    words! {
        /// Every reason of `Ready`.
        ALL:
        /// Observed equals declared.
        CONVERGED = "Converged",
        /// The server is an active member.
        ACTIVE = "Active",
        /// Start-up is under way.
        STARTING = "Starting",
        /// A stop is under way.
        STOPPING = "Stopping",
        /// A move is under way.
        MOVING = "Moving",
        /// A hold keeps it from the declared state.
        HELD = "Held",
        /// Deletion waits.
        DELETION_BLOCKED = "DeletionBlocked",
        /// No server may and can run the group.
        NO_SERVER_LEFT = "NoServerLeft",
        /// The sub-cluster has no quorum.
        NO_QUORUM = "NoQuorum",
        /// A critical resource failed.
        RESOURCE_FAILED = "ResourceFailed",
        /// The server was lost.
        SERVER_LOST = "ServerLost",
        /// No agent has reported yet.
        UNREPORTED = "Unreported",
    }
}

/// Reasons of the condition `Stalled`.
pub mod stalled {
    words! {
        /// Every reason of `Stalled`.
        ALL:
        /// A stop could not be proven.
        STOP_UNPROVEN = "StopUnproven",
        /// Every server was down; one must be declared the base.
        AWAITING_FORCE_REINSTATE = "AwaitingForceReinstate",
        /// A server came back after an unclean end.
        UNCLEAN_RETURN = "UncleanReturn",
        /// A limit of failures was reached.
        FAILURE_LIMIT = "FailureLimit",
        /// Both sides of a mirror were written.
        MIRROR_SPLIT = "MirrorSplit",
        /// The stored spec is older than one already acted on.
        SPEC_REGRESSED = "SpecRegressed",
        /// A fence device did not do its work.
        FENCE_FAILED = "FenceFailed",
    }
}

/// Types of holds, which are also the reasons of the condition `Held`.
pub mod hold {
    words! {
        /// Every hold type.
        ALL:
        /// An operator stopped it.
        STOPPED = "Stopped",
        /// `startup: Manual` and nobody started it yet.
        MANUAL_START = "ManualStart",
        /// An operator paused it.
        PAUSED = "Paused",
        /// The server is detached.
        DETACHED = "Detached",
        /// The server came back after an unclean end.
        UNCLEAN_RETURN = "UncleanReturn",
        /// The sub-cluster was rebuilt from one server.
        AFTER_FORCE_REINSTATE = "AfterForceReinstate",
        /// A limit of failures was reached.
        FAILURE_LIMIT = "FailureLimit",
        /// A brake stopped it.
        BRAKE = "Brake",
        /// The stored spec is older than one already acted on.
        SPEC_REGRESSED = "SpecRegressed",
        /// The disaster ticket is elsewhere.
        TICKET_LOST = "TicketLost",
    }
}

/// Reasons of the condition BrakeOn.
pub mod brake_on {
    words! {
        /// Every reason of it.
        ALL:
        /// A group was moved more often than `brakes.maxMovesPerGroup`.
        TOO_MANY_MOVES = "TooManyMoves",
        /// More servers were lost than `brakes.maxLosses`.
        TOO_MANY_LOSSES = "TooManyLosses",
    }
}

/// Reasons of Events.
pub mod event {
    words! {
        /// Every event reason.
        ALL:
        /// A server is silent on all paths.
        SERVER_SUSPECTED = "ServerSuspected",
        /// A server is silent on the LANs, alive elsewhere.
        PARTITION_DETECTED = "PartitionDetected",
        /// A new view was decided.
        VIEW_DECIDED = "ViewDecided",
        /// A server left the view without saying so.
        SERVER_LOST = "ServerLost",
        /// A server came back.
        SERVER_RETURNED = "ServerReturned",
        /// Too much goes on: a brake stops further action.
        BRAKE_ON = "BrakeOn",
        /// A heartbeat path went down.
        PATH_DOWN = "PathDown",
        /// A heartbeat path came up.
        PATH_UP = "PathUp",
        /// Heartbeats on a path are refused: another key, another sub-cluster, a name or number used twice.
        HEARTBEAT_REFUSED = "HeartbeatRefused",
        /// A group was started.
        GROUP_STARTED = "GroupStarted",
        /// A group was stopped.
        GROUP_STOPPED = "GroupStopped",
        /// A group was taken over.
        GROUP_FAILED_OVER = "GroupFailedOver",
        /// A group was moved.
        GROUP_MOVED = "GroupMoved",
        /// A resource failed.
        RESOURCE_FAILED = "ResourceFailed",
        /// A resource was restarted in place.
        RESOURCE_RESTARTED = "ResourceRestarted",
        /// A stop failed or timed out.
        STOP_FAILED = "StopFailed",
        /// A monitor reached its threshold.
        MONITOR_FAILED = "MonitorFailed",
        /// Evidence that a server has stopped was accepted.
        EVIDENCE_ACCEPTED = "EvidenceAccepted",
        /// A fence device confirmed its work.
        FENCE_DONE = "FenceDone",
        /// No fence device could switch a server off.
        FENCE_FAILED = "FenceFailed",
        /// A server lost its right to run groups.
        LEASE_LOST = "LeaseLost",
        /// A hold came into force.
        HOLD_PLACED = "HoldPlaced",
        /// A hold was released.
        HOLD_RELEASED = "HoldReleased",
        /// Somebody else answers for an address of a group.
        ADDRESS_CONFLICT = "AddressConflict",
        /// A new configuration is in force.
        CONFIG_ADOPTED = "ConfigAdopted",
    }
}
