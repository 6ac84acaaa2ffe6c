//! Schedules: faults in an order, made from a seed, run on a world, and shrunk when they fail.

use holdfast_core::config::{FencingMode, LockKind, MonitorAction};
use holdfast_core::orders::Power;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::World;
use crate::setup::{config, fenced, group, monitor, with_quorum_server};
use crate::world::faults::{DiskState, Fault, Moment};
use crate::world::network::Kind;
use crate::world::{Change, Device, Ordered};

/// Time after the last fault in which everything has to be as declared again, in ms.
pub const BOUND_MS: u64 = 40_000;

/// The groups of every schedule.
pub const GROUPS: [&str; 3] = ["web", "db", "net"];

/// What a sub-cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// 2 to 16.
    pub servers: usize,
    /// Its lock.
    pub lock: Option<LockKind>,
    /// On virtual machines.
    pub is_virtual: bool,
    /// `evidence.timeOnVirtualMachines: Allow`.
    pub time_allowed: bool,
    /// With a fence device for every server, or (`Disabled`) with none.
    pub fencing: FencingMode,
}

impl Shape {
    /// A machine that stands still as a whole is not counted out by time: that is refused, or fencing is required.
    fn survives_pauses(self) -> bool {
        self.is_virtual && !self.time_allowed || self.fencing == FencingMode::Required
    }
}

/// A shape and faults with the pauses (ms) before them.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Of the world: delays, drifts, identities.
    pub seed: u64,
    /// See [`Shape`].
    pub shape: Shape,
    /// (pause in ms, fault).
    pub steps: Vec<(u64, Fault)>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// The first broken invariant, by name.
    pub violation: Option<String>,
    /// Simulated seconds.
    pub seconds: f64,
    /// What happened, if asked for.
    pub story: String,
}

impl Schedule {
    /// A random schedule.
    pub fn random(seed: u64) -> Schedule {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_0001);
        let shape = Shape { fencing: fencing(seed), ..shape(&mut rng) };
        if rng.random_bool(0.1) {
            let mut steps = harmless(&mut rng, shape);
            add_changes(seed, shape, &mut steps);
            return Schedule { seed, shape, steps };
        }
        let rare = rng.random_bool(0.25);
        let mut steps: Vec<(u64, Fault)> = (0..rng.random_range(10..50))
            .map(|_| {
                let pause = match rng.random_range(0..3) {
                    0 => rng.random_range(1..50),
                    1 => rng.random_range(50..1200),
                    _ => rng.random_range(50..4000),
                };
                (pause, fault(&mut rng, shape, rare, true))
            })
            .collect();
        add_devices(seed, shape, &mut steps);
        add_operator(seed, shape, &mut steps);
        add_fences(seed, shape, &mut steps);
        add_changes(seed, shape, &mut steps);
        add_stops(seed, shape, &mut steps);
        add_checks(seed, shape, &mut steps);
        add_commands(seed, shape, &mut steps);
        add_clears(seed, shape, &mut steps);
        let mut schedule = Schedule { seed, shape, steps };
        schedule.add_pauses();
        schedule.add_shutdowns();
        schedule
    }

    /// Whether an operator takes part.
    fn operated(&self) -> bool {
        use Fault::{ConfirmStopped, Detach, Fence, ForceReinstate, Reinstate, ShutDown};
        let by_hand = |fault: &Fault| {
            matches!(
                fault,
                Detach(..) | Reinstate(_) | ConfirmStopped(_) | ForceReinstate(..) | ShutDown(..) | Fence(..)
            )
        };
        self.steps.iter().any(|(_, fault)| by_hand(fault))
    }

    /// Pauses of groups while things fail, in one of five schedules, drawn apart as above. Not where servers lose what they
    /// know, or an operator makes one of them the base: a pause is what the members of a view know.
    fn add_pauses(&mut self) {
        if self.seed < 80 || self.seed % 5 != 2 || !self.recoverable() || self.operated() {
            return;
        }
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x5eed_0a05);
        for _ in 0..rng.random_range(2..12) {
            let (server, group) = (rng.random_range(0..self.shape.servers), rng.random_range(0..GROUPS.len()));
            let order = match rng.random_range(0..6) {
                0..=3 => Fault::Command(server, Ordered::Pause(group)),
                4 => Fault::Command(server, Ordered::Resume(group)),
                _ => Fault::KillResource(group),
            };
            self.steps.insert(rng.random_range(0..=self.steps.len()), (rng.random_range(1..2500), order));
        }
    }

    /// Shutdowns of all or of one, ordered again and again as a controller does that hears late, and servers that are switched
    /// on in between; in one of seven schedules, drawn apart as above.
    fn add_shutdowns(&mut self) {
        if self.seed < 80 || self.seed % 7 != 3 {
            return;
        }
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x5eed_0c17);
        for _ in 0..rng.random_range(1..4) {
            let mut at = rng.random_range(0..=self.steps.len());
            let only = rng.random_bool(0.3).then(|| rng.random_range(0..self.shape.servers));
            let orders =
                (0..rng.random_range(1..6)).map(|number| (rng.random_range(1..800), Fault::ShutDown(only, number > 0)));
            let orders: Vec<(u64, Fault)> = orders.collect();
            let back = (0..self.shape.servers).map(|server| (rng.random_range(1..1500), Fault::PowerOn(server)));
            for step in orders.into_iter().chain(back.collect::<Vec<_>>()) {
                self.steps.insert(at, step);
                at = rng.random_range(at + 1..=(at + 3).min(self.steps.len()));
            }
        }
    }

    fn pauses(&self) -> bool {
        self.steps.iter().any(|(_, fault)| matches!(fault, Fault::Command(_, Ordered::Pause(_))))
    }

    /// Whether everything can come back by itself: identities that were lost need a person.
    fn recoverable(&self) -> bool {
        let lost = |(_, fault): &(u64, Fault)| {
            let mut fault = fault;
            while let Fault::Ambush(_, _, _, then) = fault {
                fault = then;
            }
            matches!(
                fault,
                Fault::LoseLedger(_)
                    | Fault::RevertLedger(_)
                    | Fault::RestoreLock(_)
                    | Fault::ReformatLock
                    | Fault::DeleteLock
            )
        };
        (self.shape.time_allowed || !self.shape.is_virtual) && !self.steps.iter().any(lost)
    }

    /// The world at the beginning.
    pub fn world(&self) -> World {
        let shape = self.shape;
        let names: Vec<String> = (0..shape.servers).map(|i| crate::setup::server_name(i).0).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let backwards: Vec<&str> = all.iter().rev().copied().collect();
        let mut net = group(&backwards);
        net.shared_data = false;
        let mut settings = match shape.lock {
            Some(LockKind::QuorumServer) => with_quorum_server(shape.servers),
            lock => config(shape.servers, lock.is_some()),
        };
        settings.time_on_virtual_machines = shape.time_allowed;
        let mut settings = fenced(settings, shape.fencing);
        if self.steps.iter().any(|(_, fault)| matches!(fault, Fault::Checks(..))) {
            let action =
                if self.seed % 4 == 3 { MonitorAction::FailAll(None) } else { MonitorAction::ServerDown(None) };
            settings.monitors.insert("link".into(), monitor(300, action));
        }
        let groups = [(GROUPS[0], group(&all)), (GROUPS[1], group(&backwards)), (GROUPS[2], net)];
        let mut world = World::new(self.seed, settings, &groups);
        world.is_virtual = shape.is_virtual;
        world
    }

    /// Runs it to the end or to the first violation.
    pub fn run(&self, story: bool) -> Run {
        let mut world = self.world();
        world.run_for(3000);
        world.take_snapshots();
        let settled = |world: &World| GROUPS.iter().all(|name| world.online(name).is_some());
        world.wait(10_000, settled);
        for (pause, fault) in &self.steps {
            world.run_for(*pause);
            if !world.violations.is_empty() {
                break;
            }
            world.apply(fault);
            if let Fault::Settles(ms) = fault
                && !world.wait(*ms, settled)
                && world.violations.is_empty()
            {
                world.fail("I-i", "a group does not run although it could");
            }
        }
        if let Some(moved) = world.calm {
            world.run_for(5000);
            if world.moved != moved && world.violations.is_empty() {
                world.fail("I-h", "something that ran was stopped although nothing harmful happened");
            }
        }
        world.run_for(2000);
        world.check_refusals();
        if world.violations.is_empty() {
            world.heal();
            // The operator looks every few seconds whether anybody waits for him.
            for _ in 0..if self.operated() { 10 } else { 0 } {
                if !world.wait(3000, settled) && world.violations.is_empty() {
                    world.tidy_up();
                }
            }
            for _ in 0..if self.pauses() { 10 } else { 0 } {
                world.run_for(3000);
                world.resume_all();
            }
            if self.operated() && self.recoverable() && world.violations.is_empty() {
                world.check_lineages();
            }
            if self.recoverable() && !world.wait(BOUND_MS, settled) && world.violations.is_empty() {
                world.fail("I-i", "a group does not run although nothing is wrong any more");
            }
        }
        Run {
            violation: world.violations.first().cloned(),
            seconds: world.now as f64 / 1e9,
            story: if story { world.story(400) } else { String::new() },
        }
    }

    /// The smallest schedule found that still breaks the same invariant.
    pub fn shrink(&self, violation: &str) -> Schedule {
        let check = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
        let wanted = check(violation);
        let fails = |schedule: &Schedule| schedule.run(false).violation.is_some_and(|found| check(&found) == wanted);
        let mut best = self.clone();
        let mut chunk = best.steps.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < best.steps.len() {
                let mut smaller = best.clone();
                let end = (at + chunk).min(smaller.steps.len());
                // The time that passed stays, so that what comes after happens at about the same moment.
                let gone: u64 = smaller.steps.drain(at..end).map(|(pause, _)| pause).sum();
                if let Some((pause, _)) = smaller.steps.get_mut(at) {
                    *pause += gone;
                }
                if fails(&smaller) {
                    best = smaller;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        best
    }
}

/// A shape, by chance.
fn shape(rng: &mut StdRng) -> Shape {
    let servers = match rng.random_range(0..20) {
        0..=8 => 2,
        9..=13 => 3,
        14..=16 => 4,
        17 | 18 => 5,
        _ => rng.random_range(6..=16),
    };
    let lock = match servers {
        2 if rng.random_bool(0.75) => Some(LockKind::Disk),
        2 => Some(LockKind::QuorumServer),
        _ => rng.random_bool(0.4).then_some(LockKind::QuorumServer),
    };
    let is_virtual = rng.random_bool(0.7);
    let time_allowed = rng.random_bool(0.85);
    Shape { servers, lock, is_virtual, time_allowed, fencing: FencingMode::Disabled }
}

/// A third of the sub-clusters have fence devices. Not drawn with the rest, so that all other schedules stay as they were.
fn fencing(seed: u64) -> FencingMode {
    match seed % 6 {
        0 => FencingMode::BestEffort,
        3 => FencingMode::Required,
        _ => FencingMode::Disabled,
    }
}

/// Fence devices that fail and hang.
fn add_devices(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if shape.fencing == FencingMode::Disabled {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_fe9c);
    for _ in 0..rng.random_range(0..6) {
        let device = *[Device::Works, Device::Fails, Device::Hangs].choose(&mut rng).unwrap_or(&Device::Works);
        let fault = Fault::Devices(device, rng.random_bool(0.5));
        steps.insert(rng.random_range(0..=steps.len()), (rng.random_range(1..500), fault));
    }
}

/// An operator who has fence devices used, in half of the schedules that have some, but for the first ones.
fn add_fences(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if shape.fencing == FencingMode::Disabled || seed < 90 || seed % 12 > 5 {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_f0ce);
    for _ in 0..rng.random_range(1..5) {
        let server = rng.random_range(0..shape.servers);
        let power = *[Power::Off, Power::Reboot, Power::Reboot, Power::On].choose(&mut rng).unwrap_or(&Power::Off);
        let at = rng.random_range(0..=steps.len());
        // The controller gives it anew for each view.
        for _ in 0..rng.random_range(1..5) {
            steps.insert(at, (rng.random_range(100..1500), Fault::Fence(server, None)));
        }
        steps.insert(at, (rng.random_range(1..1500), Fault::Fence(server, Some(power))));
    }
}

/// An operator at work, in every fourth schedule, drawn apart like the devices.
fn add_operator(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if seed % 4 != 1 {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_0be7);
    for _ in 0..rng.random_range(1..10) {
        let server = rng.random_range(0..shape.servers);
        let fault = match rng.random_range(0..12) {
            0..=3 => Fault::Detach(server, rng.random_bool(0.3)),
            4..=7 => Fault::Reinstate(server),
            8..=10 => Fault::ConfirmStopped(server),
            _ => Fault::ForceReinstate(server, false),
        };
        steps.insert(rng.random_range(0..=steps.len()), (rng.random_range(1..1500), fault));
    }
}

/// Changes of the specification, in two of seven schedules; not in the first ones, which planted bugs are looked for in.
/// None of them may stop anything.
fn add_changes(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if seed < 60 || !matches!(seed % 7, 1 | 6) {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_c4a6);
    let calm = steps.iter().any(|(_, fault)| *fault == Fault::NothingMoves);
    for _ in 0..rng.random_range(1..9) {
        let change = match rng.random_range(0..12) {
            // Shorter times than those that the harmless faults were made for would not be harmless.
            0..=3 => Change::Timing(if calm { rng.random_range(100..400) } else { rng.random_range(50..400) }),
            4 | 5 if !calm => Change::Lan(rng.random_range(0..2)),
            6 => Change::Rewire(rng.random_range(0..2)),
            7 | 8 if shape.lock.is_some() || shape.servers > 2 => Change::Lock(rng.random_range(0..3)),
            9 => Change::NoLock,
            10 if !calm => Change::RemoveServer(rng.random_range(0..shape.servers)),
            10 | 11 => Change::AddServer,
            _ => Change::Nothing,
        };
        let pause = if rng.random_bool(0.5) { rng.random_range(1..200) } else { rng.random_range(200..6000) };
        let step = (pause, Fault::Reconfigure(change, None));
        steps.insert(rng.random_range(1..=steps.len()), step);
    }
}

/// Clocks that change their rate, helpers and processes that are stopped between any two things that they do, writes that
/// are left half done; and, where that can be survived, machines that stand still as a whole. Not drawn with the rest, as
/// above.
fn add_stops(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_5709);
    for _ in 0..rng.random_range(0..5) {
        let server = rng.random_range(0..shape.servers);
        let ms = rng.random_range(50..3000);
        let fault = match rng.random_range(0..10) {
            0 | 1 => Fault::Drift(server, rng.random_range(-1000..=1000)),
            2 | 3 => Fault::StoppedHelpers(rng.random_range(1..1500)),
            4 if shape.lock == Some(LockKind::Disk) => Fault::Disk(server, DiskState::Tears),
            5 | 6 if shape.survives_pauses() => Fault::Pause(server, ms, rng.random_bool(0.5)),
            _ => Fault::Ambush(server, Moment::Acts, rng.random_range(1..60), Box::new(Fault::Freeze(server, ms))),
        };
        steps.insert(rng.random_range(0..=steps.len()), (rng.random_range(1..500), fault));
    }
}

/// A monitor of servers that finds faults here and there, in every fifth schedule, drawn apart as above.
fn add_checks(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if seed < 60 || seed % 5 != 3 {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_c4ec);
    for _ in 0..rng.random_range(1..10) {
        let fault = Fault::Checks(rng.random_range(0..shape.servers), rng.random_bool(0.3));
        steps.insert(rng.random_range(0..=steps.len()), (rng.random_range(1..3000), fault));
    }
}

/// Commands on servers, in one of eleven schedules, drawn apart as above.
fn add_commands(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if seed < 60 || seed % 11 != 10 {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_c25c);
    for _ in 0..rng.random_range(4..20) {
        let (server, group) = (rng.random_range(0..shape.servers), rng.random_range(0..GROUPS.len()));
        let order = match rng.random_range(0..16) {
            0..=5 => Ordered::Run(group),
            6 | 7 => Ordered::Stop(group),
            8 | 9 => Ordered::Ends(group),
            10..=14 => Ordered::Failover(group),
            _ => Ordered::Down,
        };
        let step = (rng.random_range(1..1500), Fault::Command(server, order));
        steps.insert(rng.random_range(0..=steps.len()), step);
    }
}

/// Failures that are cleared while things fail, in one of nine schedules, drawn apart as above.
fn add_clears(seed: u64, shape: Shape, steps: &mut Vec<(u64, Fault)>) {
    if seed < 60 || seed % 9 != 4 {
        return;
    }
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_c1ea);
    for _ in 0..rng.random_range(3..12) {
        let (server, group) = (rng.random_range(0..shape.servers), rng.random_range(0..GROUPS.len()));
        let fault = match rng.random_range(0..6) {
            0 => Fault::FailingResources(rng.random_range(0.0..0.9), rng.random_range(0.0..0.9)),
            1 => Fault::ClearFailures(group, Some(server)),
            2 | 3 => Fault::ClearFailures(group, None),
            _ => Fault::Command(server, Ordered::ClearFailures(group)),
        };
        let step = (rng.random_range(1..1500), fault);
        steps.insert(rng.random_range(0..=steps.len()), step);
    }
}

const KINDS: [Kind; 7] =
    [Kind::Prepare, Kind::Promise, Kind::Accept, Kind::Accepted, Kind::Learn, Kind::Report, Kind::Assign];

/// One random fault. `rare`: also those that lose identities. `ambush`: also those that wait for a moment.
fn fault(rng: &mut StdRng, shape: Shape, rare: bool, ambush: bool) -> Fault {
    let n = shape.servers;
    let server = rng.random_range(0..n);
    let other = (server + rng.random_range(1..n)) % n;
    match rng.random_range(0..36) {
        0 | 1 => Fault::PowerCut(server),
        2 | 3 => Fault::PowerOn(server),
        4 => Fault::Crash(server, rng.random_range(20..2000)),
        5 | 6 => Fault::Freeze(server, rng.random_range(50..3000)),
        7..=9 => Fault::CutLans(server, other),
        10 => Fault::CutOneWay(server, other, rng.random_range(0..2)),
        11 | 12 => Fault::Isolate(server),
        13..=15 => Fault::HealLans,
        16 => Fault::Loss(if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.01..0.4) }),
        17 => Fault::Delay(if rng.random_bool(0.5) { 1 } else { rng.random_range(1..300) }),
        18 if rng.random_bool(0.5) => {
            Fault::DelayKind(*KINDS.choose(rng).unwrap_or(&Kind::Assign), rng.random_range(1..2000))
        }
        18 | 19 => Fault::Mute(*KINDS.choose(rng).unwrap_or(&Kind::Learn), rng.random_range(100..3000)),
        20..=22 if shape.lock.is_some() => {
            let states = [DiskState::Works, DiskState::Works, DiskState::Slow, DiskState::Errors, DiskState::Hangs];
            Fault::Disk(server, *states.choose(rng).unwrap_or(&DiskState::Works))
        }
        23 => Fault::FailingResources(rng.random_range(0.0..0.3), rng.random_range(0.0..0.3)),
        24 if rng.random_bool(0.3) => Fault::SlowHelpers(rng.random_range(3..1500)),
        24 => Fault::Fsync(rng.random_range(1..400)),
        25 => Fault::Leave(server, rng.random_range(500..6000)),
        26 => Fault::Move(rng.random_range(0..3), server),
        27 => Fault::NewSpec(rng.random_range(0..3)),
        28 if rng.random_bool(0.5) => Fault::EmptyStore(server),
        28 => Fault::SpecTo(rng.random_range(0..3), server),
        29 if rare && rng.random_bool(0.5) => match rng.random_range(0..4) {
            0 => Fault::LoseLedger(server),
            1 => Fault::RevertLedger(server),
            2 => Fault::RestoreLock(false),
            _ => Fault::ReformatLock,
        },
        34 => Fault::CutFrames(server, other),
        35 if shape.lock.is_some() => Fault::HangOne(server),
        30..=33 if ambush => {
            let moment = match rng.random_range(0..10) {
                0 => Moment::LockLanded,
                1 => Moment::LockAnswers,
                2 | 3 => Moment::Adopts,
                4 => Moment::Starts,
                _ => Moment::Sends(*KINDS.choose(rng).unwrap_or(&Kind::Accepted)),
            };
            let then = fault(rng, shape, rare, false);
            Fault::Ambush(server, moment, rng.random_range(1..4), Box::new(then))
        }
        _ => Fault::HealLans,
    }
}

/// Faults that must not move anything: one LAN, an empty store, short freezes, the way to the lock, slow ledgers.
fn harmless(rng: &mut StdRng, shape: Shape) -> Vec<(u64, Fault)> {
    let n = shape.servers;
    let count = rng.random_range(5..20);
    let faults = (0..count).map(|_| {
        let server = rng.random_range(0..n);
        let other = (server + rng.random_range(1..n)) % n;
        let fault = match rng.random_range(0..7) {
            0 => Fault::CutOneWay(server, other, 0),
            1 => Fault::HealLans,
            2 | 3 => Fault::EmptyStore(server),
            4 => Fault::Freeze(server, rng.random_range(1..150)),
            5 if shape.lock.is_some() => {
                Fault::Disk(server, if rng.random_bool(0.5) { DiskState::Errors } else { DiskState::Works })
            }
            _ => Fault::Crash(server, rng.random_range(20..100)),
        };
        (rng.random_range(100..2500), fault)
    });
    std::iter::once((0, Fault::NothingMoves)).chain(faults).collect()
}
