//! Random sequences of faults: what may happen, and which of it from a seed. Pure: the same seed gives the same sequence.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Faults of one sequence, fewest and most.
const STEPS: std::ops::RangeInclusive<usize> = 3..=7;
/// Longest pause before a fault.
const PAUSE: Duration = Duration::from_millis(1500);

/// What a sequence is played on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Two servers, shared disk with lock, two LANs, a serial line, disks that can fail.
    Two,
    /// The same with watchdogs, so that agent and guard may die together.
    Watched,
    /// Three servers, two LANs, majority.
    Three,
}

/// One fault, or the end of one. Servers are numbers in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    LanDown { server: usize, lan: usize },
    LanUp { server: usize, lan: usize },
    LossFrom { server: usize, to: usize, lan: usize },
    NoLossAt { server: usize, lan: usize },
    LineCut,
    LineNoise,
    LineWorks,
    AreaHangs { server: usize },
    AreaFails { server: usize },
    AreaForgets { server: usize },
    AreaIsLate { server: usize },
    LateWritesLand { server: usize },
    AreaWorks { server: usize },
    PowerCut { server: usize },
    PowerOn { server: usize },
    KillAgent { server: usize },
    StopAgent { server: usize },
    ContinueAgent { server: usize },
    KillGuard { server: usize },
    KillBoth { server: usize },
    StopBoth { server: usize },
    KillApplication,
    Move,
}

/// A sequence: what happens, each after a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) seed: u64,
    pub(super) stage: Stage,
    pub(super) timeout: Duration,
    pub(super) steps: Vec<(Duration, Fault)>,
}

impl Stage {
    pub(super) fn servers(self) -> usize {
        if self == Stage::Three { 3 } else { 2 }
    }
}

impl Sequence {
    /// The sequence of a seed.
    pub(super) fn of(seed: u64) -> Sequence {
        let mut random = StdRng::seed_from_u64(seed);
        let stage = *[Stage::Two, Stage::Two, Stage::Watched, Stage::Three].choose(&mut random).expect("some");
        let timeout = Duration::from_millis(*[500, 700, 1000].choose(&mut random).expect("some"));
        let count = random.random_range(STEPS);
        // Servers whose guard, not whose agent, is hit in this sequence.
        let unguarded: Vec<usize> = (0..stage.servers()).filter(|_| random.random_bool(0.5)).collect();
        let mut under_way = BTreeSet::new();
        let steps = (0..count).map(|_| {
            let pause = Duration::from_millis(random.random_range(0..PAUSE.as_millis() as u64));
            (pause, next(stage, &unguarded, &mut under_way, &mut random))
        });
        Sequence { seed, stage, timeout, steps: steps.collect() }
    }
}

/// The next fault: rather often the end of one that is under way, so that what happens while things heal is seen, too.
fn next(stage: Stage, unguarded: &[usize], under_way: &mut BTreeSet<Fault>, random: &mut StdRng) -> Fault {
    if random.random_bool(0.3)
        && let Some(ended) = under_way.iter().copied().collect::<Vec<_>>().choose(random)
    {
        under_way.remove(ended);
        return end(*ended).unwrap_or(*ended);
    }
    let server = random.random_range(0..stage.servers());
    let lan = random.random_range(0..2);
    let to = (server + random.random_range(1..stage.servers())) % stage.servers();
    let everywhere = [
        Fault::LanDown { server, lan },
        Fault::LanDown { server, lan },
        Fault::LossFrom { server, to, lan },
        Fault::PowerCut { server },
        Fault::KillAgent { server },
        Fault::StopAgent { server },
        Fault::KillGuard { server },
        Fault::KillApplication,
        Fault::Move,
    ];
    let of_two = [
        Fault::LineCut,
        Fault::LineNoise,
        Fault::AreaHangs { server },
        Fault::AreaFails { server },
        Fault::AreaForgets { server },
        Fault::AreaIsLate { server },
    ];
    let of_watched = [Fault::KillBoth { server }, Fault::StopBoth { server }];
    let mut possible = everywhere.to_vec();
    // A stopped agent is its guard's to kill: without guard and watchdog nobody stops the group, and the guarantee says so.
    if stage != Stage::Watched {
        let kept = if unguarded.contains(&server) { Fault::StopAgent { server } } else { Fault::KillGuard { server } };
        possible.retain(|fault| *fault != kept);
    }
    if stage != Stage::Three {
        possible.extend(of_two);
    }
    if stage == Stage::Watched {
        possible.extend(of_watched);
        possible.extend(of_watched);
    }
    let chosen = *possible.choose(random).expect("some");
    if end(chosen).is_some() {
        under_way.insert(chosen);
    }
    chosen
}

/// What ends a fault, if it lasts.
fn end(fault: Fault) -> Option<Fault> {
    match fault {
        Fault::LanDown { server, lan } => Some(Fault::LanUp { server, lan }),
        Fault::LossFrom { to, lan, .. } => Some(Fault::NoLossAt { server: to, lan }),
        Fault::LineCut | Fault::LineNoise => Some(Fault::LineWorks),
        Fault::AreaIsLate { server } => Some(Fault::LateWritesLand { server }),
        Fault::AreaHangs { server } | Fault::AreaFails { server } | Fault::AreaForgets { server } => {
            Some(Fault::AreaWorks { server })
        }
        Fault::PowerCut { server } | Fault::KillBoth { server } | Fault::StopBoth { server } => {
            Some(Fault::PowerOn { server })
        }
        Fault::StopAgent { server } => Some(Fault::ContinueAgent { server }),
        _ => None,
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sequence { seed, stage, timeout, .. } = self;
        write!(formatter, "sequence {seed} ({stage:?}, timeout {timeout:?}):")?;
        for (pause, fault) in &self.steps {
            write!(formatter, "\n  +{} ms {fault:?}", pause.as_millis())?;
        }
        Ok(())
    }
}
