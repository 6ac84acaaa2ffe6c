//! Schedules aimed at one planted bug each, for bugs that chance brings out too rarely: the shape in which the bug
//! matters, and the faults at the moments at which it matters. Each is run with several seeds (delays, drifts).

use holdfast_core::config::{FencingMode, LockKind};
use holdfast_core::orders::Power;
use holdfast_core::planted::Mutation;

use crate::schedule::{Schedule, Shape};
use crate::world::faults::{DiskState, Fault, Moment};
use crate::world::network::Kind;
use crate::world::{Change, Device, Ordered};

/// Index of the groups: the second one prefers the last server, the others the first.
const WEB: usize = 2;
const DB: usize = 0;
const NET: usize = 1;

fn shape(servers: usize, lock: Option<LockKind>) -> Shape {
    Shape { servers, lock, is_virtual: true, time_allowed: true, fencing: FencingMode::Disabled }
}

fn when(server: usize, moment: Moment, count: u32, then: Fault) -> (u64, Fault) {
    (0, Fault::Ambush(server, moment, count, Box::new(then)))
}

/// The schedule that brings a bug out, if there is one; see [`Schedule::random`] for the others.
pub fn at(mutation: Mutation, seed: u64) -> Option<Schedule> {
    use Fault::{
        Checks, CutFrames, CutLans, CutOneWay, DelayKind, DeleteLock, Devices, Disk, FailingResources, Freeze, HangOne,
        HealLans, Isolate, LoseLedger, MembersConnected, Move, Mute, NothingMoves, Pause, PowerCut, PowerOn,
        ReformatLock, RestoreLock, Settles, SilentOnDisk, SlowHelpers, SpecTo, StoppedHelpers, Unkillable,
    };
    let disk = || shape(2, Some(LockKind::Disk));
    let (shape, steps) = match mutation {
        // protocol-why D33: b takes part in the decision that leaves it out, and the other two of its quorum have not
        // heard it for long.
        Mutation::VictimsVoteIgnored => (
            shape(5, None),
            vec![
                (0, Move(WEB, 1)),
                (3000, CutFrames(1, 0)),
                (0, CutFrames(1, 2)),
                when(0, Moment::Sends(Kind::Accept), 2, Fault::Split(0b00111)),
                when(1, Moment::Sends(Kind::Accepted), 1, Fault::Split(0b00010)),
                (4000, Fault::HealLans),
            ],
        ),
        // protocol-why D2: a and b accept a view without c; b never learns it and is kept alive by c; a takes the lock.
        Mutation::OwnVoteKept | Mutation::AcknowledgesAfterAcceptance => (
            shape(3, Some(LockKind::QuorumServer)),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (0, Move(WEB, 1)),
                (3000, CutLans(0, 2)),
                (0, Disk(1, DiskState::Errors)),
                (0, Disk(2, DiskState::Errors)),
                when(1, Moment::Sends(Kind::Accepted), 1, CutLans(0, 1)),
                when(1, Moment::Sends(Kind::Accepted), 1, Mute(Kind::Prepare, 10_000)),
                (6000, Fault::HealLans),
            ],
        ),
        // b and c decide without a; then c forgets everything, and b is away: a and c must not decide again.
        Mutation::LostStateVotes => (
            shape(3, None),
            vec![
                (0, PowerCut(0)),
                (4000, PowerCut(1)),
                (0, LoseLedger(2)),
                (500, PowerOn(0)),
                (0, PowerOn(2)),
                (15_000, PowerOn(1)),
            ],
        ),
        // a and the lock decide without b; the lock is formatted anew, a is away: b and the lock must not decide again.
        Mutation::BlankLockVotes => (
            disk(),
            vec![(0, PowerCut(1)), (4000, PowerCut(0)), (0, ReformatLock), (500, PowerOn(1)), (15_000, PowerOn(0))],
        ),
        // protocol-why D10: a write of a that failed lands after a has won the lock; b looks only then.
        Mutation::LateWriteWins | Mutation::PlacesReused => (
            disk(),
            vec![
                (0, CutLans(0, 1)),
                (700, Disk(1, DiskState::Errors)),
                (100 + seed * 7 % 100, Disk(0, DiskState::Errors)),
                (60, Disk(0, DiskState::Works)),
                when(0, Moment::Adopts, 1, Disk(0, DiskState::Errors)),
                (5000, Disk(1, DiskState::Works)),
                (4000, Fault::HealLans),
            ],
        ),
        // The same with one that hangs while others are written, until its place in the ring is the newest one's.
        Mutation::TwoWritesInFlight => (
            disk(),
            vec![
                (0, CutLans(0, 1)),
                (300 + seed * 37 % 500, HangOne(0)),
                (200, Disk(1, DiskState::Errors)),
                when(0, Moment::Adopts, 1, Disk(0, DiskState::Errors)),
                (6000, Disk(1, DiskState::Works)),
                (4000, Fault::HealLans),
            ],
        ),
        // protocol-why D2c: two of five leave while b is cut off from those that stay.
        Mutation::NoResetAtAdoption => (
            shape(5, None),
            vec![
                (0, Move(WEB, 1)),
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, Fault::Leave(3, 20_000)),
                (0, Fault::Leave(4, 20_000)),
                when(0, Moment::Sends(Kind::Prepare), 1, CutLans(0, 1)),
                when(0, Moment::Sends(Kind::Prepare), 1, CutLans(1, 2)),
                when(0, Moment::Sends(Kind::Prepare), 1, Fault::DelayKind(Kind::Accept, 600)),
                when(0, Moment::Adopts, 1, Fault::DelayKind(Kind::Accept, 1)),
                (4000, Fault::HealLans),
            ],
        ),
        // Two want the lock: a stops between its promise and its acceptance, then b does, and a goes on.
        Mutation::BallotsIgnored | Mutation::NoReadAfterWrite => (
            disk(),
            vec![
                (0, Move(WEB, 1)),
                (3000, CutLans(0, 1)),
                when(0, Moment::Accepting, 1, Fault::Freeze(0, 150)),
                when(1, Moment::Accepting, 1, Fault::Freeze(1, 400)),
                when(0, Moment::Adopts, 1, Disk(0, DiskState::Errors)),
                when(1, Moment::Adopts, 1, Disk(1, DiskState::Errors)),
                (6000, Fault::HealLans),
            ],
        ),
        // c hears and is heard, but on no LAN both ways: it is left out, and nobody tells it.
        Mutation::AcknowledgesAnyEpoch => (
            shape(3, None),
            vec![
                (0, CutOneWay(0, 2, 0)),
                (0, CutOneWay(1, 2, 0)),
                (0, CutOneWay(2, 0, 1)),
                (0, CutOneWay(2, 1, 1)),
                (900, Mute(Kind::Learn, 5000)),
                (6000, Fault::HealLans),
            ],
        ),
        // a stops cleanly, comes back with the same boot, takes a group, and is lost again.
        Mutation::EvidenceReused => (
            disk(),
            vec![
                (0, Isolate(0)),
                (4000, Fault::HealLans),
                (5000, Move(DB, 0)),
                (3000, Isolate(0)),
                when(1, Moment::Accepting, 1, Disk(0, DiskState::Hangs)),
            ],
        ),
        // b takes the longer lease of its new specification at once, and is lost before anybody waits longer for it.
        Mutation::LeaseFromSpec => (
            disk(),
            vec![
                (0, Move(WEB, 1)),
                (3000, Fault::Reconfigure(Change::Timing(400), Some(1))),
                (700, Isolate(1)),
                (0, Disk(1, DiskState::Errors)),
                (6000, Fault::HealLans),
            ],
        ),
        // The way by which the servers still hear each other is missing in the new specification.
        Mutation::PathsFromSpec => (
            disk(),
            vec![
                (0, Move(WEB, 1)),
                (0, CutOneWay(0, 1, 0)),
                (0, CutOneWay(1, 0, 0)),
                (3000, Fault::NothingMoves),
                (0, Fault::Reconfigure(Change::Lan(1), None)),
                (6000, Fault::Reconfigure(Change::Lan(1), None)),
            ],
        ),
        // A member that runs a group is missing in the new specification.
        Mutation::ServersFromSpec => (
            shape(3, None),
            vec![
                (0, Move(WEB, 2)),
                (3000, Fault::NothingMoves),
                (0, Fault::Reconfigure(Change::ForgetServer(2), None)),
                (6000, Fault::Reconfigure(Change::Nothing, None)),
            ],
        ),
        Mutation::RaisedAtOnce => (disk(), vec![(0, Fault::Reconfigure(Change::Timing(300), None))]),
        // b does not hear of the view with the shorter lease and wait, and keeps its longer lease.
        Mutation::WaitFallsAtOnce => (
            disk(),
            vec![
                (0, Fault::Reconfigure(Change::Timing(400), None)),
                (6000, Move(WEB, 1)),
                (3000, Fault::Reconfigure(Change::Timing(100), None)),
                when(0, Moment::Adopts, 1, Isolate(1)),
                when(0, Moment::Adopts, 1, Disk(1, DiskState::Errors)),
                (8000, Fault::HealLans),
            ],
        ),
        // b does not reach the new lock, and needs one soon.
        Mutation::LockNotAwaited => (
            disk(),
            vec![
                (0, Move(WEB, 1)),
                (0, Move(DB, 1)),
                (0, Move(NET, 1)),
                (3000, Fault::NoWayToLock(1, 1)),
                (0, Fault::NothingMoves),
                (0, Fault::Reconfigure(Change::Lock(1), None)),
                (6000, CutLans(0, 1)),
                (0, Disk(0, DiskState::Errors)),
            ],
        ),
        // b has heard of nothing yet when the second step is due.
        Mutation::AdoptionNotAwaited => (
            disk(),
            vec![
                (0, Mute(Kind::Learn, 900)),
                (0, Fault::Reconfigure(Change::Timing(300), None)),
                (4000, Fault::HealLans),
            ],
        ),
        // A move that was carried out must not be carried out again when its server comes back.
        Mutation::StaleTarget => (
            disk(),
            vec![
                (0, Move(WEB, 1)),
                (3000, PowerCut(1)),
                (3000, PowerOn(1)),
                (0, Fault::NothingMoves),
                (3000, Fault::HealLans),
            ],
        ),
        // a starts a specification that b does not hold, and is lost before b hears of it.
        Mutation::SpecNotAwaited => (
            shape(3, Some(LockKind::QuorumServer)),
            vec![
                (0, Move(WEB, 2)),
                (3000, SpecTo(WEB, 0)),
                (0, SpecTo(WEB, 2)),
                (100, PowerCut(2)),
                (0, Mute(Kind::Assign, 6000)),
                (2500, PowerCut(0)),
                (4000, Fault::HealLans),
            ],
        ),
        // a acts on a specification while it is alone; b comes back with the older one, and a is lost.
        Mutation::SpecRegresses => (
            disk(),
            vec![
                (0, PowerCut(1)),
                (2500, PowerCut(0)),
                (0, SpecTo(WEB, 0)),
                (100, PowerOn(0)),
                (100, SpecTo(WEB, 0)),
                (9000, PowerOn(1)),
                (3000, PowerCut(0)),
                (4000, Fault::HealLans),
            ],
        ),
        // b, idle, is not heard by a; it takes part in the decision that leaves it out while an assignment is on its way.
        Mutation::StartsAfterOwnEnd => (
            shape(3, None),
            vec![
                (0, CutFrames(1, 0)),
                (850, Fault::DelayKind(Kind::Assign, 600)),
                (10 + seed * 7 % 130, Move(WEB, 1)),
                (0, Mute(Kind::Learn, 3000)),
                (4000, Fault::HealLans),
            ],
        ),
        // The coordinator's word arrives at c a view later, when web runs elsewhere.
        Mutation::OldEpochTaken => (
            shape(3, None),
            vec![
                (0, Fault::DelayKind(Kind::Assign, 8000)),
                (500, Move(WEB, 2)),
                (60 + seed * 7 % 60, Isolate(1)),
                when(0, Moment::Adopts, 1, Mute(Kind::Assign, 20_000)),
                (1500, Fault::HealLans),
                (10_000, Fault::HealLans),
            ],
        ),
        // b holds a newer specification than the coordinator knows.
        Mutation::StartsOtherSpec => (
            disk(),
            vec![
                (0, Fault::DelayKind(Kind::Assign, 300)),
                (0, Move(WEB, 1)),
                (100 + seed * 17 % 200, SpecTo(WEB, 1)),
                (6000, Fault::HealLans),
            ],
        ),
        // Two proposers of different successors: c agrees with one and then with the other.
        Mutation::PromiseForgotten => (
            shape(5, None),
            vec![
                (0, Fault::DelayKind(Kind::Accept, 900)),
                (0, Fault::DelayKind(Kind::Prepare, 400)),
                (0, Fault::DelayKind(Kind::Accepted, 900)),
                (0, PowerCut(4)),
                (9000, Fault::HealLans),
            ],
        ),
        // Both want to go on without the other. a hears b's messages, not its heartbeats, and waits for its slow disk in
        // phase 1 when b asks for a promise.
        Mutation::OwnBallotKept => (
            disk(),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, CutFrames(1, 0)),
                (0, CutOneWay(0, 1, 0)),
                (0, CutOneWay(0, 1, 1)),
                (850, Disk(0, DiskState::Slow)),
                (0, Disk(1, DiskState::Slow)),
                (6000, Fault::HealLans),
            ],
        ),
        // protocol-why D1: b and c go on acknowledging each other.
        Mutation::OneAckIsEnough => {
            (shape(5, None), vec![(0, Move(WEB, 1)), (3000, Fault::Split(0b00110)), (6000, Fault::HealLans)])
        }
        // The loser of a partition can't prove that it has stopped, and the LANs come back.
        Mutation::JoinsHolding => (
            disk(),
            vec![
                (0, Fault::FailingResources(0.0, 1.0)),
                (0, Isolate(0)),
                (4000, Fault::HealLans),
                (4000, Fault::HealLans),
            ],
        ),
        // protocol-why D6: a helper is slow, and its server loses the lease meanwhile.
        Mutation::HelperDoesNotLook => (
            disk(),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, Move(WEB, 1)),
                when(0, Moment::Sends(Kind::Assign), 2, SlowHelpers(3000)),
                when(0, Moment::Sends(Kind::Assign), 2, Isolate(1)),
                when(0, Moment::Sends(Kind::Assign), 2, Disk(1, DiskState::Errors)),
                (5000, Fault::HealLans),
            ],
        ),
        // The survivor of two must keep what it runs.
        Mutation::NeverLeans => (
            disk(),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, Fault::NothingMoves),
                (0, CutLans(0, 1)),
                (0, Disk(1, DiskState::Errors)),
            ],
        ),
        // a decides without e and is gone before anybody hears of it; b, which does not hear d by then, must not decide
        // something else.
        Mutation::AcceptedValueIgnored => (
            shape(5, None),
            vec![
                (0, Mute(Kind::Learn, 5000)),
                (0, PowerCut(4)),
                (150, CutFrames(3, 1)),
                when(0, Moment::Adopts, 1, PowerCut(0)),
                (9000, Fault::HealLans),
            ],
        ),
        // b has won the lock, and nothing of that stands there but its ballot; a leans on.
        Mutation::LeanNeverRefused => (
            disk(),
            vec![(0, CutLans(0, 1)), when(1, Moment::Adopts, 1, Disk(1, DiskState::Errors)), (6000, Fault::HealLans)],
        ),
        // c is taken out of service and wants back.
        Mutation::DetachedJoins => (shape(3, None), vec![(0, Fault::Detach(2, false)), (6000, Fault::HealLans)]),
        // All are switched off and on again; the order is still given, because nobody has told the controller.
        Mutation::ShutsDownAgain => (
            disk(),
            vec![
                (0, Fault::ShutDown(None, false)),
                (2000, PowerOn(0)),
                (0, PowerOn(1)),
                (4000, Fault::ShutDown(None, true)),
                (3000, Fault::HealLans),
            ],
        ),
        // Both are switched off, the one that was first comes back alone.
        Mutation::ClosesAlone => (
            disk(),
            vec![
                (0, Move(WEB, 0)),
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, Fault::ShutDown(None, false)),
                (2000, PowerOn(1)),
                (0, Settles(12_000)),
            ],
        ),
        // d is off, and the operator says so; e, cut off, still runs a group.
        Mutation::OneWordForAll => (
            Shape { time_allowed: false, ..shape(5, None) },
            vec![
                (0, Move(WEB, 4)),
                (3000, PowerCut(3)),
                (0, Isolate(4)),
                (3000, Fault::ConfirmStopped(3)),
                (4000, Fault::HealLans),
            ],
        ),
        // b was last, then a was made the base, as the lock says; then somebody wants to force b.
        Mutation::SecondForce => (
            disk(),
            vec![
                (0, PowerCut(0)),
                (4000, Fault::ForceReinstate(0, true)),
                (500, Fault::ForceReinstate(1, true)),
                (500, PowerOn(0)),
            ],
        ),
        // Without a lock b can't know that a was made the base; later they meet.
        Mutation::EqualLineageAdmitted => (
            shape(3, None),
            vec![
                (0, Fault::ForceReinstate(0, true)),
                (500, Fault::ForceReinstate(1, true)),
                (500, PowerOn(0)),
                (6000, Fault::HealLans),
            ],
        ),
        // b and c, a majority of the old lineage, start while they can't hear the base.
        Mutation::LowerLineageGoesOn => (
            shape(3, None),
            vec![
                (0, Fault::ForceReinstate(0, true)),
                (0, Isolate(0)),
                (0, PowerOn(1)),
                (0, PowerOn(2)),
                (9000, Fault::HealLans),
            ],
        ),
        // Both were down, a was made the base, b comes back.
        Mutation::OthersNotDetached | Mutation::ForceStartsGroups => {
            (disk(), vec![(0, PowerCut(0)), (4000, Fault::ForceReinstate(0, false)), (5000, Fault::HealLans)])
        }
        // A standby that was frozen wakes up: it must not take its own stall for the other's death.
        Mutation::StallSuspectsAll => (
            disk(),
            vec![
                (0, Move(WEB, 1)),
                (3000, Fault::NothingMoves),
                (seed * 13 % 100, Fault::Freeze(0, 930 + seed * 7 % 65)),
            ],
        ),
        // Two of three decide with each other before the quorum server answers, and decide again at once.
        Mutation::OldAnswerCounts => {
            let again = (0..8).map(|i| (3000, Fault::Reconfigure(Change::Timing(150 + i % 2 * 50), None)));
            let steps = [(0, PowerCut(0)), (2000, HealLans)].into_iter().chain(again).collect();
            (shape(3, Some(LockKind::QuorumServer)), steps)
        }
        // A process of a ends while its leaning is on its way. The next one looks before that lands, stands still until b
        // has seen it, and leans, too.
        Mutation::LeanNumbersAgain => (
            disk(),
            vec![
                (0, CutLans(0, 1)),
                (0, SilentOnDisk(0)),
                (250 + seed * 37 % 250, Disk(0, DiskState::Slow)),
                (60, Fault::Crash(0, 2)),
                (1, Disk(0, DiskState::Works)),
                when(0, Moment::LockAnswers, 1, Freeze(0, 350)),
                (380, Freeze(0, 5000)),
                (6000, HealLans),
            ],
        ),
        // b comes back without the specification by which a took over, and is left over before a has told it anything.
        Mutation::JoinsBehind => (
            disk(),
            vec![
                (0, PowerCut(1)),
                (seed * 3 % 300, SpecTo(WEB, 0)),
                (0, SpecTo(NET, 0)),
                (0, SpecTo(DB, 0)),
                (4000, Mute(Kind::Assign, 12_000)),
                (0, PowerOn(1)),
                when(1, Moment::Adopts, 2, PowerCut(0)),
                (13_000, PowerOn(0)),
            ],
        ),
        // c is lost while starts fail: its groups are sent on by the same coordinator, in the same epoch.
        Mutation::RevisionRestarts => (
            shape(3, None),
            vec![
                (0, Fault::FailingResources(0.9, 0.0)),
                (0, PowerCut(2)),
                (3000 + seed * 97 % 3000, Fault::FailingResources(0.0, 0.0)),
            ],
        ),
        // a and b accept a view without c, a does not hear that b has, and c is back: nobody acknowledges anybody.
        Mutation::UnknownOutcomeLeft => (
            shape(3, None),
            vec![
                (0, Isolate(2)),
                when(0, Moment::Sends(Kind::Accept), 1, Mute(Kind::Accepted, 1500)),
                when(0, Moment::Sends(Kind::Accept), 1, HealLans),
                (8000, HealLans),
            ],
        ),
        // Everything runs on a. Whoever runs it keeps it.
        Mutation::NoRaceDelay => (
            disk(),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, NothingMoves),
                (seed * 13 % 100, CutLans(0, 1)),
                (4000, HealLans),
            ],
        ),
        Mutation::PartitionIgnored => (disk(), vec![(0, CutLans(0, 1)), (5000, MembersConnected)]),
        // protocol-why D19: b and c do not hear each other, a hears both.
        Mutation::CliqueIgnored => (shape(3, None), vec![(0, CutLans(1, 2)), (6000, MembersConnected)]),
        // protocol-why D3: the disk dies, the LANs work.
        Mutation::LockAlone => (
            disk(),
            vec![(0, NothingMoves), (0, Disk(0, DiskState::Errors)), (0, Disk(1, DiskState::Errors)), (5000, HealLans)],
        ),
        Mutation::UnansweredSwapCounts => (
            shape(2, Some(LockKind::QuorumServer)),
            vec![
                (0, CutLans(0, 1)),
                when(0, Moment::Accepting, 1, Disk(0, DiskState::Errors)),
                when(1, Moment::Accepting, 1, Disk(1, DiskState::Errors)),
                (4000, HealLans),
            ],
        ),
        Mutation::StaleSwapTaken => {
            (shape(2, Some(LockKind::QuorumServer)), vec![(0, CutLans(0, 1)), (4000, HealLans)])
        }
        // a and the lock decide without b; the object is deleted, a is away: b must not find a blank one.
        Mutation::AbsentObjectMade => (
            shape(2, Some(LockKind::QuorumServer)),
            vec![(0, PowerCut(1)), (4000, PowerCut(0)), (0, DeleteLock), (500, PowerOn(1)), (15_000, PowerOn(0))],
        ),
        // The same with one that is put back from a copy, of which b has seen more.
        Mutation::RestoredLockVotes => (
            shape(2, Some(LockKind::QuorumServer)),
            vec![
                (2000, Move(WEB, 1)),
                (3000, PowerCut(1)),
                (4000, PowerCut(0)),
                (0, RestoreLock(false)),
                (500, PowerOn(1)),
                (15_000, PowerOn(0)),
            ],
        ),
        // The same while b is away, which has seen nothing newer; a goes on, and b, back without a LAN, reads the lock.
        Mutation::RestoredLockUntold => (
            disk(),
            vec![
                (0, PowerCut(1)),
                (4000, RestoreLock(true)),
                (0, CutLans(0, 1)),
                (2000, PowerOn(1)),
                (15_000, HealLans),
            ],
        ),
        // b reboots so fast that nobody misses it.
        Mutation::BootNotNamed => (
            Shape { is_virtual: false, ..shape(3, None) },
            vec![
                (0, Move(WEB, 1)),
                (3000, DelayKind(Kind::Prepare, 400)),
                (0, PowerCut(1)),
                (5 + seed * 7 % 100, PowerOn(1)),
                (5000, HealLans),
            ],
        ),
        // A machine stands still with what it runs, while its clock goes on or not, and goes on later.
        Mutation::TimeOnPausedMachine => (
            Shape { time_allowed: false, ..disk() },
            vec![(0, Pause(0, 4000, seed.is_multiple_of(2))), (8000, HealLans)],
        ),
        Mutation::RequiredIgnored | Mutation::FiringIsOff => (
            Shape { fencing: FencingMode::Required, ..disk() },
            vec![(0, Devices(Device::Fails, true)), (0, Pause(0, 4000, seed.is_multiple_of(2))), (8000, HealLans)],
        ),
        // It takes long to agree on a view without c.
        Mutation::FiresBeforeDecision => (
            Shape { fencing: FencingMode::BestEffort, ..shape(3, None) },
            vec![(0, DelayKind(Kind::Prepare, 1500)), (0, Isolate(2)), (4000, HealLans)],
        ),
        // It takes long to agree on a view without c.
        Mutation::OrderHitsMember => (
            Shape { fencing: FencingMode::BestEffort, ..shape(3, None) },
            vec![
                (0, DelayKind(Kind::Prepare, 1500)),
                (0, Fault::Fence(2, Some(Power::Off))),
                (400, Fault::Fence(2, None)),
                (4000, HealLans),
            ],
        ),
        Mutation::FiresTwice => {
            (Shape { fencing: FencingMode::Required, ..disk() }, vec![(0, PowerCut(1)), (4000, HealLans)])
        }
        // protocol-why D28: c is back while the device is still at work.
        Mutation::JoinsUnderFire => (
            Shape { fencing: FencingMode::BestEffort, ..shape(3, None) },
            vec![(0, Devices(Device::Slow, true)), (0, Isolate(2)), (1100, HealLans), (6000, HealLans)],
        ),
        // a has asked for a view with d, and dies; b goes on with it, and decides. The next process of a, which does not
        // hear d, has the lease of the one before, and learns of the decision late.
        Mutation::FiresUnannounced => (
            Shape { fencing: FencingMode::Required, ..shape(4, None) },
            vec![
                (0, Devices(Device::Fails, true)),
                (0, Isolate(3)),
                (4000, HealLans),
                when(0, Moment::Sends(Kind::Prepare), 1, Fault::Crash(0, 60 + seed * 11 % 200)),
                when(0, Moment::Sends(Kind::Prepare), 1, CutLans(0, 3)),
                when(0, Moment::Sends(Kind::Prepare), 1, DelayKind(Kind::Learn, 700)),
                when(0, Moment::Sends(Kind::Prepare), 1, Devices(Device::Works, true)),
                (6000, HealLans),
            ],
        ),
        // The same, but the decision is slow, and a begins before it.
        Mutation::AcceptsUnderFire => (
            Shape { fencing: FencingMode::Required, ..shape(4, None) },
            vec![
                (0, Devices(Device::Fails, true)),
                (0, Isolate(3)),
                (4000, HealLans),
                when(0, Moment::Sends(Kind::Prepare), 1, Fault::Crash(0, 170 + seed * 11 % 120)),
                when(0, Moment::Sends(Kind::Prepare), 1, CutLans(0, 3)),
                when(0, Moment::Sends(Kind::Prepare), 1, DelayKind(Kind::Promise, 200 + seed * 17 % 200)),
                when(0, Moment::Sends(Kind::Prepare), 1, Devices(Device::Works, true)),
                (6000, HealLans),
            ],
        ),
        // Ledgers are slow; db is moved on before its new server has heard that it was to come.
        Mutation::UnheardHasStopped => (
            shape(3, None),
            vec![
                (0, Fault::Fsync(90)),
                (0, StoppedHelpers(900)),
                (0, Move(DB, 1)),
                when(0, Moment::Sends(Kind::Assign), 1 + (seed % 12) as u32, Move(DB, 2)),
                (6000, HealLans),
            ],
        ),
        // A stop fails on a, which is left out and killed; its next process verifies the stops, and is let in before the
        // ledger has that.
        Mutation::ReleasedTooSoon => (
            Shape { fencing: FencingMode::BestEffort, ..disk() },
            vec![
                (0, Devices(Device::Fails, false)),
                (0, Fault::Fsync(300)),
                (0, FailingResources(0.0, 1.0)),
                (0, Move(WEB, 1)),
                (500 + seed * 31 % 600, FailingResources(0.0, 0.0)),
                (8000, HealLans),
            ],
        ),
        // The lease becomes longer and then short again; b stands still when the wait for the long ones falls.
        Mutation::ResetFallsLast => (
            shape(3, None),
            vec![
                (0, Fault::Reconfigure(Change::Timing(300), None)),
                (6000, Fault::Reconfigure(Change::Timing(60), None)),
                when(0, Moment::Adopts, 2, Freeze(1, 3000)),
                (8000, HealLans),
            ],
        ),
        // protocol-why D20: b comes back while the disk is away, and is lost again.
        Mutation::GrowsWithoutLock => (
            disk(),
            vec![
                (0, Isolate(1)),
                (4000, Disk(0, DiskState::Errors)),
                (0, Disk(1, DiskState::Errors)),
                (500, HealLans),
                (4000, NothingMoves),
                (0, Isolate(1)),
                (4000, HealLans),
            ],
        ),
        // protocol-why D21: two are left of three, one of the two is lost, and the third comes back.
        Mutation::ShrinksToTwo => {
            (shape(3, None), vec![(0, PowerCut(2)), (4000, PowerCut(1)), (1000, PowerOn(2)), (0, Settles(8000))])
        }
        // protocol-why D27: what is to move can't be stopped.
        Mutation::StopFailureIgnored => (
            Shape { fencing: FencingMode::BestEffort, ..disk() },
            vec![(0, FailingResources(0.0, 1.0)), (0, Move(WEB, 1)), (1000, Settles(15_000))],
        ),
        // protocol-why D6: a helper is stopped between its look at the deadline and what it does.
        Mutation::HelpersSpared => (
            disk(),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, Move(WEB, 1)),
                when(0, Moment::Sends(Kind::Assign), 2, StoppedHelpers(4000)),
                when(0, Moment::Sends(Kind::Assign), 2, Isolate(1)),
                when(0, Moment::Sends(Kind::Assign), 2, Disk(1, DiskState::Errors)),
                (6000, HealLans),
            ],
        ),
        // What runs on a can't be killed, and the next process there is slow to stop it.
        Mutation::PetsUnverified => {
            (disk(), vec![(0, Unkillable(0)), (0, SlowHelpers(2500)), (0, Freeze(0, 60_000)), (8000, HealLans)])
        }
        // Two of three fail, one after the other; the seed says what follows.
        Mutation::ShutdownsUncounted => {
            (shape(3, None), vec![(0, Checks(0, false)), (8000, Checks(1, false)), (12_000, HealLans)])
        }
        // web moves away from under a program that was run in it.
        Mutation::ProgramAlone => (
            disk(),
            vec![
                (0, Move(WEB, 0)),
                (2000, Fault::Command(0, Ordered::Run(WEB))),
                (1500 + seed * 10, Move(WEB, 1)),
                (4000, HealLans),
            ],
        ),
        // a is no better place for db, and says so; b's next words are lost, and a is well again before it hears from b.
        Mutation::DeclinedIsGranted if seed % 4 == 3 => (
            disk(),
            vec![
                (0, Checks(0, false)),
                (4000, Move(DB, 1)),
                (3000, Fault::Command(1, Ordered::Failover(DB))),
                when(0, Moment::Sends(Kind::Declined), 1, Mute(Kind::Report, 5000)),
                (300, Checks(0, true)),
                (6000, HealLans),
            ],
        ),
        // a can't stop what b is to run.
        Mutation::ClearedCountsAsStopped => (
            disk(),
            vec![
                (0, Move(WEB, 0)),
                (4000, FailingResources(0.0, 1.0)),
                (0, Move(WEB, 1)),
                (3000, Fault::Command(0, Ordered::ClearFailures(WEB))),
                (8000, FailingResources(0.0, 0.0)),
            ],
        ),
        // Held after a force-reinstate.
        Mutation::ClearReleasesAll => (
            disk(),
            vec![
                (0, PowerCut(0)),
                (4000, Fault::ForceReinstate(0, false)),
                (2000, Fault::Command(0, Ordered::ClearFailures(WEB))),
                (5000, HealLans),
            ],
        ),
        // What fails in a pause is left to the operator, and so is when it ends.
        Mutation::PausedIsTouched => (
            disk(),
            vec![(0, Fault::Command(0, Ordered::Pause(WEB))), (3000, Fault::KillResource(WEB)), (3000, HealLans)],
        ),
        Mutation::ResumesUnseen => (
            disk(),
            vec![
                (0, Fault::Command(0, Ordered::Pause(WEB))),
                (3000, Fault::KillResource(WEB)),
                (3000, Fault::Command(0, Ordered::ResumeAsLeft(WEB))),
                (3000, HealLans),
            ],
        ),
        // c is heard again while it is being switched off.
        Mutation::JoinsOff => (
            Shape { fencing: FencingMode::BestEffort, ..shape(3, None) },
            vec![(0, Isolate(2)), (1000 + seed * 40 % 1200, HealLans), (6000, HealLans)],
        ),
        // b comes back, and is left over before a has told it what is paused.
        Mutation::JoinsWithoutHolds => (
            disk(),
            vec![
                (0, PowerCut(1)),
                (5000, Fault::Command(0, Ordered::Pause(WEB))),
                (3000, Mute(Kind::Assign, 12_000)),
                (0, PowerOn(1)),
                when(1, Moment::Adopts, 2, PowerCut(0)),
                (13_000, HealLans),
            ],
        ),
        // a is told that web is paused; before b hears of that, a is lost.
        Mutation::PauseNotAwaited => (
            shape(3, None),
            vec![
                (0, Move(WEB, 1)),
                (4000, Mute(Kind::Assign, 3000)),
                (0, Fault::Command(0, Ordered::Pause(WEB))),
                (200, Fault::KillResource(WEB)),
                (3000, HealLans),
            ],
        ),
        // b is lost while a hands its groups over to it.
        Mutation::LastOneShutsDown => (
            disk(),
            vec![
                (0, SlowHelpers(1500)),
                (0, Move(WEB, 0)),
                (6000, Checks(0, false)),
                (2000 + seed * 100, PowerCut(1)),
                (15_000, HealLans),
            ],
        ),
        _ => return None,
    };
    Some(Schedule { seed, shape, steps })
}
