//! Schedules aimed at one planted bug each, for bugs that chance brings out too rarely: the shape in which the bug
//! matters, and the faults at the moments at which it matters. Each is run with several seeds (delays, drifts).

use holdfast_core::config::{FencingMode, LockKind};
use holdfast_core::planted::Mutation;

use crate::schedule::{Schedule, Shape};
use crate::world::faults::{DiskState, Fault, Moment};
use crate::world::network::Kind;

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
    use Fault::{CutFrames, CutLans, Disk, HangOne, LoseLedger, Move, Mute, PowerCut, PowerOn, ReformatLock};
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
        Mutation::OwnVoteKept | Mutation::AcknowledgesAfterAcceptance | Mutation::AcknowledgesAnyEpoch => (
            shape(3, Some(LockKind::QuorumServer)),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (0, Move(WEB, 1)),
                (3000, CutLans(0, 2)),
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
        // protocol-why D10: a write of a that hung lands after a has won the lock; b looks only then.
        Mutation::LateWriteWins => (
            disk(),
            vec![
                (0, CutLans(0, 1)),
                (800 + seed % 100, Disk(1, DiskState::Errors)),
                (0, HangOne(0)),
                (5000, Disk(1, DiskState::Works)),
                (4000, Fault::HealLans),
            ],
        ),
        Mutation::TwoWritesInFlight => (
            disk(),
            vec![
                (0, CutLans(0, 1)),
                (500, HangOne(0)),
                (300, Disk(1, DiskState::Errors)),
                (5000, Disk(1, DiskState::Works)),
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
                when(0, Moment::Sends(Kind::Prepare), 1, Fault::Delay(300)),
                (4000, Fault::HealLans),
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
        // A standby that was frozen wakes up: it must not take its own stall for the other's death.
        Mutation::StallSuspectsAll | Mutation::TicksBeforeInputs => (
            disk(),
            vec![
                (0, Move(DB, 0)),
                (0, Move(NET, 0)),
                (3000, Fault::NothingMoves),
                (0, Fault::Freeze(1, 1100 + 37 * (seed % 20))),
            ],
        ),
        _ => return None,
    };
    Some(Schedule { seed, shape, steps })
}
