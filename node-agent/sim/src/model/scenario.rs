//! Where explorations begin, and how far they go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::config::{Config, GroupConfig, LockKind, PathKind};
use holdfast_core::names::GroupName;

use super::state::State;
use super::step::Step;
use crate::setup::{self, server_name};

/// Heartbeat interval, in ns: one step of the model's clock.
pub(super) const TICK: u64 = 100_000_000;

/// The only group.
pub(super) const GROUP: &str = "web";

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A message is lost.
    Loss,
    /// A message, a ledger write or a lock operation takes longer than an interval, as long as may be.
    Late,
    /// A process is frozen, for as long as may be.
    Freeze,
    /// A process ends, and may start again.
    Crash,
    /// A machine loses its power, and may start again with another boot.
    PowerCut,
    /// A LAN between two servers is cut, or works again.
    Cut,
    /// A lock operation fails; what it wrote may land late or never.
    Lock,
}

/// Everything that may go wrong.
pub const ALL: &[Trouble] =
    &[Trouble::Loss, Trouble::Late, Trouble::Freeze, Trouble::Crash, Trouble::PowerCut, Trouble::Cut, Trouble::Lock];

/// A sub-cluster in trouble, and a bound.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For people.
    pub name: &'static str,
    /// 2 or 3.
    pub servers: usize,
    /// Its lock.
    pub lock: Option<LockKind>,
    /// Heartbeats go over the lock disk, too.
    pub disk_path: bool,
    /// LANs that are cut at the beginning, both ways.
    pub cut: &'static [(usize, usize)],
    /// Intervals after the cut before anything else may go wrong.
    pub lead: u64,
    /// Intervals that are explored.
    pub ticks: u64,
    /// How often something may go wrong.
    pub faults: u8,
    /// What may.
    pub troubles: &'static [Trouble],
    /// A ledger write is durable before anything else happens, unless something goes wrong with it or its server right
    /// then. Otherwise it takes its time beside all other steps.
    pub ledger_first: bool,
}

const DISK: Scenario = Scenario {
    name: "2 servers and a lock disk, LAN cut",
    servers: 2,
    lock: Some(LockKind::Disk),
    disk_path: false,
    cut: &[(0, 1)],
    lead: 3,
    ticks: 9,
    faults: 1,
    troubles: ALL,
    ledger_first: true,
};

const THREE: Scenario =
    Scenario { name: "3 servers, one cut off", servers: 3, lock: None, cut: &[(0, 1), (0, 2)], ticks: 8, ..DISK };

/// The sub-clusters and what happens to them first, with one further fault.
pub const SCENARIOS: [Scenario; 7] = [
    DISK,
    Scenario { name: "2 servers and a lock disk that carries heartbeats, LAN cut", disk_path: true, ..DISK },
    THREE,
    Scenario { name: "3 servers, one LAN between two of them cut", cut: &[(0, 2)], ..THREE },
    Scenario {
        name: "3 servers and a quorum server, one cut off",
        lock: Some(LockKind::QuorumServer),
        ticks: 6,
        ..THREE
    },
    Scenario { name: "2 servers and a lock disk, all well", cut: &[], lead: 0, ticks: 13, ..DISK },
    Scenario { name: "3 servers, all well", cut: &[], lead: 0, ticks: 13, ..THREE },
];

/// What goes wrong beside a quorum server.
const QUORUM_SERVER_TROUBLES: [&[Trouble]; 5] =
    [&[Trouble::Loss], &[Trouble::Late], &[Trouble::Crash], &[Trouble::Cut], &[Trouble::Lock]];

/// What `make model` explores.
pub fn explorations() -> Vec<Scenario> {
    let mut all = Vec::new();
    // Every order of all steps, ledger writes among them, without further faults.
    all.extend(SCENARIOS[..5].iter().map(|scenario| Scenario { faults: 0, ledger_first: false, ..scenario.clone() }));
    all.extend_from_slice(&SCENARIOS[..4]);
    // Kind by kind, which is the same with one fault. Freezes and power cuts there did not end within a quarter of an hour.
    all.extend(QUORUM_SERVER_TROUBLES.map(|troubles| Scenario { troubles, ..SCENARIOS[4].clone() }));
    all.extend_from_slice(&SCENARIOS[5..]);
    all.push(Scenario { ledger_first: false, ..THREE });
    all
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Scenario { name, ticks, faults, .. } = self;
        write!(f, "{name}; {ticks} intervals, {faults} faults")?;
        if *faults > 0 && self.troubles != ALL {
            write!(f, " of {:?}", self.troubles)?;
        }
        if self.ledger_first { write!(f, ", ledger writes first") } else { write!(f, ", ledger writes in any order") }
    }
}

impl Scenario {
    /// Times as short as the rules allow: timeout 4 H, E 5 H, W' and D 1 H, and C = E + W' + D exactly, because clocks
    /// have one rate here (R11).
    pub(super) fn config(&self) -> Arc<Config> {
        let ms = Duration::from_millis;
        let mut config = setup::config(self.servers, self.lock.is_some());
        config.lock = self.lock;
        config.paths = BTreeMap::from([("lan".into(), PathKind::Interconnect)]);
        if self.disk_path {
            config.paths.insert("area".into(), PathKind::Disk);
        }
        // A loop that runs once per interval is not a stalled one.
        (config.interval, config.timeout, config.stall) = (ms(100), ms(400), ms(100));
        (config.soft_stop, config.kill, config.lease) = (ms(400), ms(450), ms(500));
        (config.renew, config.io_timeout) = (ms(25), ms(25));
        (config.reset, config.drain, config.takeover_wait) = (ms(100), ms(100), ms(700));
        config.grace = ms(500);
        Arc::new(config)
    }

    pub(super) fn groups(&self) -> BTreeMap<GroupName, Arc<GroupConfig>> {
        let names: Vec<String> = (0..self.servers).map(|i| server_name(i).0).collect();
        let mut group = setup::group(&names.iter().map(String::as_str).collect::<Vec<_>>());
        group.resources.retain(|name, _| name.0 == "data");
        BTreeMap::from([(GROUP.into(), Arc::new(group))])
    }

    /// The sub-cluster formed and at rest with the group on the first server, without the faults of the bound; then
    /// the cut, and `lead` intervals.
    pub(super) fn start(&self) -> State {
        let mut state = State::new(self);
        for _ in 0..30 {
            state = self.one_interval(state);
        }
        assert!(state.at_rest(self), "{}: the start is not at rest", self.name);
        state.cut = self.cut.iter().copied().collect();
        for _ in 0..self.lead {
            state = self.one_interval(state);
        }
        state.end = state.now.0 / TICK + self.ticks;
        state.faults = self.faults;
        state
    }

    /// Everything that waits happens in the order of its listing, then time passes.
    fn one_interval(&self, mut state: State) -> State {
        loop {
            let mut steps = Vec::new();
            state.steps(self, &mut steps);
            let step = steps.into_iter().find(|step| *step != Step::Tick).unwrap_or(Step::Tick);
            state = state.after(&step, self);
            if step == Step::Tick {
                return state;
            }
        }
    }
}
