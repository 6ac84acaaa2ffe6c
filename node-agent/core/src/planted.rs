//! Planted bugs, one per rule: the proof that the simulator and the model see what the rule prevents. They exist only in
//! the package `holdfast-core-planted`, which compiles these same sources; in the product every `planted!` is `false`.

#[cfg(feature = "planted")]
use std::cell::Cell;

/// `planted!(Name)`: whether this bug is to be made here. A constant `false` outside of the simulator's build.
macro_rules! planted {
    ($mutation:ident) => {{
        #[cfg(feature = "planted")]
        let planted = crate::planted::Mutation::$mutation.is_planted();
        #[cfg(not(feature = "planted"))]
        let planted = false;
        planted
    }};
}
pub(crate) use planted;

#[cfg(feature = "planted")]
macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident: $rule:literal,)+) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutation {
            /// All of them, in the order of the rules.
            pub const ALL: &[Mutation] = &[$(Mutation::$name,)+];

            /// Its name, as on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Mutation::$name => stringify!($name),)+ }
            }

            /// The rule that it breaks.
            pub fn rule(self) -> &'static str {
                match self { $(Mutation::$name => $rule,)+ }
            }

            /// What it does, in a sentence.
            pub fn text(self) -> &'static str {
                match self { $(Mutation::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

#[cfg(feature = "planted")]
mutations! {
    /// A value that some have accepted, and of which nobody knows whether it was decided, is left as it is.
    UnknownOutcomeLeft: "R1",
    /// The side of a partition that runs fewer groups does not leave the lock to the other.
    NoRaceDelay: "R1",
    /// A member without a LAN to another is no reason for a new view while it is alive on the disk.
    PartitionIgnored: "R1",
    /// Whoever hears everybody wants all of them, whether or not they hear each other.
    CliqueIgnored: "R1",
    /// A promise is forgotten: lower ballots are accepted after it.
    PromiseForgotten: "R2",
    /// A server goes on with its own attempt, and accepts it, after it has promised a higher ballot to another.
    OwnBallotKept: "R2",
    /// A proposer puts its own value through although a promise reported an accepted one.
    AcceptedValueIgnored: "R2",
    /// A server goes on acknowledging frames after it has accepted a successor.
    AcknowledgesAfterAcceptance: "R3",
    /// A server's own vote counts for its lease although it has accepted a successor.
    OwnVoteKept: "R3",
    /// A server that accepts a view without itself does not count as heard at that moment.
    VictimsVoteIgnored: "R3",
    /// A server that has accepted a view without itself, while it held nothing, still takes assignments.
    StartsAfterOwnEnd: "R3",
    /// Answers leave before the ledger has them.
    SpeaksBeforeDurable: "R3",
    /// A ballot on the lock counts without a look at the other blocks after the write.
    NoReadAfterWrite: "R4",
    /// Only accepted values of others count on the lock, not their ballots.
    BallotsIgnored: "R4",
    /// A second operation on the lock begins while one hangs.
    TwoWritesInFlight: "R4",
    /// The place of a write that failed is used again at once.
    PlacesReused: "R4",
    /// The lock decides alone between two servers.
    LockAlone: "R4",
    /// An answer to a ballot of the view before counts for a ballot of the same number in the next one.
    OldAnswerCounts: "R4",
    /// A swap on the quorum server that had no answer counts as made.
    UnansweredSwapCounts: "R5",
    /// A swap is made on what was read before, whatever others have put in since (the simulator's quorum server).
    StaleSwapTaken: "R5",
    /// An object that is gone is made anew by the next swap (the simulator's quorum server).
    AbsentObjectMade: "R5",
    /// A lock that was put back to an older state has a vote.
    RestoredLockVotes: "R5",
    /// A lock that was put back to an older state is not told the newest view.
    RestoredLockUntold: "R5",
    /// A lock with another identity than the view names has a vote (formatted anew, replaced).
    BlankLockVotes: "I-g",
    /// A server that lost its ledger votes as the acceptor that it was.
    LostStateVotes: "I-g",
    /// `last_heard` is not reset when a view is adopted.
    NoResetAtAdoption: "R6",
    /// Frames of any epoch are acknowledged, and acknowledgements of any epoch count.
    AcknowledgesAnyEpoch: "R7",
    /// A new boot is acknowledged, and acts, under a view that names the old one.
    BootNotNamed: "R7",
    /// Send times begin anew with every process.
    SequenceRestarts: "R7",
    /// A lean on the lock grants although another server has a ballot there.
    LeanNeverRefused: "R8",
    /// A lean grants from its completion, not from the clock read before it.
    LeanGrantsAtCompletion: "R8",
    /// The server never leans on the lock.
    NeverLeans: "R8",
    /// One acknowledgement is enough for the lease.
    OneAckIsEnough: "R9",
    /// The lease counts from the receipt of an acknowledgement, not from the send that it acknowledges.
    LeaseFromReceipt: "R9",
    /// The anchor is taken from the servers only, not from the lock.
    NoLockAnchor: "R10",
    /// The anchor is the proposer's own, not the latest of the deciding quorum's.
    OwnAnchorOnly: "R10",
    /// A process numbers its leaning on the lock by what it has read there, not above what the one before it may have written.
    LeanNumbersAgain: "R10",
    /// Groups of a departed server start without waiting.
    NoWait: "R11",
    /// The wait forgets the reset and the drain.
    WaitWithoutReset: "R11",
    /// An earlier departure's evidence is used for a later one of the same boot.
    EvidenceReused: "R12",
    /// Time counts on a virtual machine, too, where data is shared and nobody has allowed it.
    TimeOnPausedMachine: "R12",
    /// Time counts although fencing is required.
    RequiredIgnored: "R12",
    /// A fence call that has begun counts as a server that is off.
    FiringIsOff: "R12",
    /// A member that is silent is switched off before a view without it is decided.
    FiresBeforeDecision: "R12",
    /// A server that was verified off is switched off again.
    FiresTwice: "R12",
    /// A server that an operator has switched off is hit while it is a member.
    OrderHitsMember: "R12",
    /// A departed server that holds nothing counts as stopped before it knows that it departed.
    CleanBeforeLearning: "R12",
    /// A group that nobody reports counts as Offline although a departed server may hold it.
    UnknownIsOffline: "R13",
    /// The coordinator does not wait for the reports of all members.
    ReportsNotAwaited: "R14",
    /// Assignments of an older epoch are carried out.
    OldEpochTaken: "R14",
    /// A move starts without the proof that the old server has stopped.
    MoveWithoutStop: "R14",
    /// A group that is moved before its server has said anything of it counts as stopped there.
    UnheardHasStopped: "R14",
    /// The revision starts at one with every coordinator.
    RevisionRestarts: "R14",
    /// A target computed from an older placement is carried out.
    StaleTarget: "R15",
    /// A start does not wait until every member holds the specification.
    SpecNotAwaited: "R16",
    /// A specification older than one that was acted on is started, and nobody looks whether a joiner holds the newest.
    SpecRegresses: "R16",
    /// A server starts the specification that it holds, not the one that it was told.
    StartsOtherSpec: "R16",
    /// An empty store means that there are no groups.
    AbsenceIsDeletion: "R16",
    /// A server takes its lease from its specification, not from the view.
    LeaseFromSpec: "R21",
    /// Heartbeat paths are those of the specification, not of the view.
    PathsFromSpec: "R21",
    /// The servers are those of the specification, not of the view.
    ServersFromSpec: "R21",
    /// The lease is raised by the view that raises the wait, not by one after it.
    RaisedAtOnce: "R21",
    /// The wait falls together with the lease, while the longer leases of before still stand.
    WaitFallsAtOnce: "R21",
    /// The reset falls together with the wait for it, while some still keep to the longer one.
    ResetFallsLast: "R21",
    /// The lock is changed before all members reach the new one.
    LockNotAwaited: "R21",
    /// The next step is taken before all members act under the last one.
    AdoptionNotAwaited: "R21",
    /// A new boot goes on under the view that names the old one.
    OldBootActs: "R17",
    /// A restarted process forgets what it holds.
    HeldForgotten: "R17",
    /// The first server of a start decides alone.
    StartWithoutQuorum: "R18",
    /// A joiner that still holds groups, or does not know the newest view, is admitted.
    JoinsHolding: "R19",
    /// A server says that it holds a group no more before its ledger says so.
    ReleasedTooSoon: "R12",
    /// A server becomes a member although it lacks specifications that were acted on.
    JoinsBehind: "R19",
    /// A server becomes a member while a fence device is being used on it.
    JoinsUnderFire: "R19",
    /// A fence device is used without a word to the others before.
    FiresUnannounced: "R19",
    /// A view is accepted that admits a server on which a fence device is being used.
    AcceptsUnderFire: "R19",
    /// A boot that was verified off becomes a member, because it was heard of shortly before.
    JoinsOff: "R19",
    /// One server grows to two while the lock is out of reach.
    GrowsWithoutLock: "R19",
    /// A view of two without a lock gives its departed third no vote.
    ShrinksToTwo: "R20",
    /// A server on which a stop has failed stays a member.
    StopFailureIgnored: "R20",
    /// A server has left when it says so, not when its groups are stopped.
    LeavesHolding: "R20",
    /// A detached server is admitted again as soon as it wants to be.
    DetachedJoins: "R20",
    /// An operator's word about one server counts for every departed one.
    OneWordForAll: "R12",
    /// A force-reinstate does not look whether there was one elsewhere.
    SecondForce: "R22",
    /// Two chains of one lineage take each other for one.
    EqualLineageAdmitted: "R22",
    /// A server goes on in its lineage although it is told a higher one.
    LowerLineageGoesOn: "R22",
    /// A force-reinstate leaves the others free to come back by themselves.
    OthersNotDetached: "R22",
    /// After a force-reinstate the groups start by themselves.
    ForceStartsGroups: "R22",
    /// An own stall counts as everybody's silence, and timers are looked at before the inputs that waited.
    StallSuspectsAll: "R24",
    /// The newest record of a ring is the one that landed last (the simulator's disk).
    LateWriteWins: "R4",
    /// A helper does not look at the deadline before it acts (the simulator's executor).
    HelperDoesNotLook: "R14",
    /// The guard kills what runs, not the helper that is about to start more (the simulator's guard).
    HelpersSpared: "R23",
    /// A guard that can't prove that everything is gone goes on petting the watchdog (the simulator's guard).
    PetsUnverified: "R23",
    /// The guard kills nobody (the simulator's guard).
    GuardSleeps: "R23",
    /// Servers shut down for a monitor's sake, however few are left.
    ShutdownsUncounted: "C24",
    /// A server that is to shut down does so although all others were lost meanwhile.
    LastOneShutsDown: "C24",
    /// An order to shut down that was carried out is heeded again when it is given again.
    ShutsDownAgain: "C17",
    /// Servers that shut down together leave one after the other.
    ClosesAlone: "C17",
    /// `holdfast failover` answers that a group has left as soon as it is being stopped.
    AnsweredBeforeGone: "C25",
    /// A program that was run in a group requires nothing of it, and is not stopped before the rest.
    ProgramAlone: "C25",
    /// What is stuck in a stop counts as stopped when its failures are forgotten.
    ClearedCountsAsStopped: "I-b",
    /// Whoever clears failures releases every hold of the group.
    ClearReleasesAll: "R22",
    /// A failure of a paused group has it restarted.
    PausedIsTouched: "paused",
    /// A pause ends whatever the look at the group found.
    ResumesUnseen: "paused",
    /// A server becomes a member although it has not heard which groups are held.
    JoinsWithoutHolds: "paused",
    /// A pause counts as soon as its coordinator has it.
    PauseNotAwaited: "paused",
    /// What the coordinator has declined is granted when something changes, although the command was refused.
    DeclinedIsGranted: "C25",
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
}

#[cfg(feature = "planted")]
impl Mutation {
    /// Makes this bug in every core of this thread until the next call.
    pub fn plant(mutation: Option<Mutation>) {
        PLANTED.set(mutation);
    }

    /// Whether it is made now.
    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }

    /// The bug with this name.
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::ALL.iter().copied().find(|mutation| mutation.name() == name)
    }
}
