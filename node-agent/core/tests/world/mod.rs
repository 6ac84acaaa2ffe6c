//! A simulated sub-cluster: real cores on virtual time, with network, lock disk, ledgers, guards and executors made
//! of values. Everything follows from a seed. The checks read this world, never a server's own opinion of it.

#![allow(unreachable_pub, dead_code, reason = "shared by several test programs, each of which uses a part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::config::{Config, GroupConfig, LockKind, PathKind, Recovery, ResourceConfig, Then};
use holdfast_core::durable::Durable;
use holdfast_core::frame::Frame;
use holdfast_core::lock::{LockLook, LockOp, LockRecord};
use holdfast_core::message::Envelope;
use holdfast_core::names::{AcceptorId, BootId, ClusterId, GroupName, PathName, ResourceName, ServerName};
use holdfast_core::status::{ClusterPhase, GroupPhase, Status};
use holdfast_core::time::Instant;
use holdfast_core::view::View;
use holdfast_core::{Action, Boot, Core, Input, Outcome, Output};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MS: u64 = 1_000_000;

/// One moment of the world, in ns.
type Moment = u64;

#[derive(Debug, Clone)]
enum Event {
    Input { server: usize, life: u64, input: Input },
    Tick { server: usize, life: u64 },
    Durable { server: usize, life: u64, token: u64, state: Box<Durable> },
    Beat { server: usize, life: u64, frame: Box<Frame> },
    Lock { server: usize, life: u64, token: u64, op: LockOp, written: bool },
    Act { server: usize, life: u64, op: u64, group: GroupName, resource: ResourceName, action: Action },
    Guard { server: usize },
    Kill { server: usize, boot: u64 },
    Start { server: usize },
    Thaw { server: usize },
}

struct Queued(Moment, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// One machine.
pub struct Host {
    pub name: ServerName,
    core: Option<Core>,
    /// Counts processes: what was meant for an older one is lost.
    life: u64,
    pub powered: bool,
    pub frozen: bool,
    boot: u64,
    pub ledger: Durable,
    offset: u64,
    /// Clock rate error in parts per million.
    drift: i64,
    deadline: (Moment, Moment, Moment),
    guard_at: Moment,
    /// When the ledger write given last will be done.
    written_at: Moment,
    /// What really runs here.
    pub running: BTreeSet<(GroupName, ResourceName)>,
    pending: VecDeque<Input>,
    pub disk_reachable: bool,
    next_tick: Moment,
    pub exited: bool,
}

/// The world.
pub struct World {
    pub now: Moment,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub config: Arc<Config>,
    pub groups: BTreeMap<GroupName, Arc<GroupConfig>>,
    queue: BinaryHeap<Reverse<Queued>>,
    serial: u64,
    /// Cut directions: (from, to, path).
    pub cut: BTreeSet<(usize, usize, PathName)>,
    pub loss: f64,
    disk: BTreeMap<u8, LockRecord>,
    beats: BTreeMap<usize, Frame>,
    lock: AcceptorId,
    /// How often the object on the quorum server was changed.
    swaps: u64,
    /// (lineage, epoch) -> the view that somebody made durable.
    views: BTreeMap<(u32, u64), View>,
    pub violations: Vec<String>,
    pub log: Vec<String>,
    pub failing_stops: f64,
    pub failing_starts: f64,
    pub max_fsync: u64,
    /// How long the supervisor takes to restart an agent that the guard killed, in ms.
    pub restart_after_kill: u64,
}

pub fn recovery() -> Recovery {
    Recovery {
        restarts: 2,
        window: Duration::from_secs(600),
        then: Then::Failover,
        max_failovers: 1000,
        failover_window: Duration::from_secs(3600),
        decay: Duration::from_secs(20),
    }
}

fn resource(after: &[&str]) -> ResourceConfig {
    let names: BTreeSet<ResourceName> = after.iter().map(|name| ResourceName::from(*name)).collect();
    ResourceConfig {
        after: names.clone(),
        requires: names,
        critical: true,
        start_timeout: Duration::from_secs(5),
        stop_timeout: Duration::from_secs(5),
        probe_timeout: Duration::from_secs(5),
        monitor_interval: Duration::from_secs(10),
        monitor_timeout: Duration::from_secs(5),
        monitor_threshold: 1,
        recovery: recovery(),
    }
}

/// A group with a file system, a program on it, and an address.
pub fn group(servers: &[&str]) -> GroupConfig {
    GroupConfig {
        generation: 1,
        online: true,
        auto_start: true,
        policy: servers.iter().map(|name| ServerName::from(*name)).collect(),
        priority: 100,
        failback: false,
        resources: BTreeMap::from([
            ("data".into(), resource(&[])),
            ("app".into(), resource(&["data"])),
            ("addr".into(), resource(&["data"])),
        ]),
        shared_data: true,
        restart_on_change: false,
        digest: 1,
        stop_when_no_server_left: true,
        target: None,
    }
}

/// Any number of servers with a quorum server: no heartbeat path on it, and an access may take twice as long.
pub fn with_quorum_server(servers: usize) -> Config {
    let ms = Duration::from_millis;
    let mut config = config(servers, true);
    config.lock = Some(LockKind::QuorumServer);
    config.paths.remove("area");
    (config.io_timeout, config.soft_stop, config.kill) = (ms(100), ms(600), ms(700));
    (config.lease, config.takeover_wait) = (ms(800), ms(1054));
    config
}

pub fn config(servers: usize, has_lock: bool) -> Config {
    let ms = Duration::from_millis;
    let mut paths =
        BTreeMap::from([(PathName::from("ic"), PathKind::Interconnect), (PathName::from("pub"), PathKind::Public)]);
    if has_lock {
        paths.insert("area".into(), PathKind::Disk);
    }
    Config {
        generation: 1,
        servers: (0..servers).map(|i| (server_name(i), (i + 1) as u8)).collect(),
        paths,
        lock: has_lock.then_some(LockKind::Disk),
        interval: ms(100),
        timeout: ms(1000),
        stall: ms(200),
        lease: ms(700),
        soft_stop: ms(500),
        kill: ms(600),
        renew: ms(50),
        io_timeout: ms(50),
        reset: ms(200),
        watchdog: false,
        drain: ms(50),
        takeover_wait: ms(955),
        grace: Duration::from_secs(5),
        automatic_return: true,
        time_on_virtual_machines: true,
        stopped: false,
    }
}

pub fn server_name(index: usize) -> ServerName {
    ServerName(char::from(b'a' + index as u8).to_string())
}

impl World {
    pub fn new(seed: u64, config: Config, groups: &[(&str, GroupConfig)]) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let hosts = (0..config.servers.len())
            .map(|i| Host {
                name: server_name(i),
                core: None,
                life: 0,
                powered: true,
                frozen: false,
                boot: 1,
                ledger: Durable::fresh(AcceptorId(rng.random()), BootId(boot_id(i, 1))),
                offset: rng.random_range(1_000_000_000..1_000_000_000_000),
                drift: rng.random_range(-900..=900),
                deadline: (0, 0, 0),
                guard_at: 0,
                written_at: 0,
                running: BTreeSet::new(),
                pending: VecDeque::new(),
                disk_reachable: true,
                next_tick: 0,
                exited: false,
            })
            .collect();
        let lock = AcceptorId(rng.random());
        let groups = groups.iter().map(|(name, group)| (GroupName::from(*name), Arc::new(group.clone()))).collect();
        let mut world = World {
            now: 0,
            rng,
            hosts,
            config: Arc::new(config),
            groups,
            queue: BinaryHeap::new(),
            serial: 0,
            cut: BTreeSet::new(),
            loss: 0.0,
            disk: BTreeMap::new(),
            beats: BTreeMap::new(),
            lock,
            swaps: 0,
            views: BTreeMap::new(),
            violations: Vec::new(),
            log: Vec::new(),
            failing_stops: 0.0,
            failing_starts: 0.0,
            max_fsync: 3,
            restart_after_kill: 30,
        };
        for server in 0..world.hosts.len() {
            world.at(0, Event::Start { server });
        }
        world
    }

    fn at(&mut self, moment: Moment, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse(Queued(moment.max(self.now), self.serial, event)));
    }

    fn after(&mut self, low: u64, high: u64, event: Event) {
        let delay = self.rng.random_range(low..=high);
        self.at(self.now + delay, event);
    }

    pub fn say(&mut self, text: String) {
        if self.log.len() < 200_000 {
            self.log.push(format!("{:>10.3} ms  {text}", self.now as f64 / MS as f64));
        }
    }

    /// A server's own clock: another beginning, another rate.
    fn clock(&self, server: usize, moment: Moment) -> Instant {
        let host = &self.hosts[server];
        let skew = (moment as i128 * i128::from(host.drift) / 1_000_000) as i64;
        Instant((host.offset + moment).saturating_add_signed(skew))
    }

    /// The world's moment of a reading of a server's clock.
    fn moment(&self, server: usize, instant: Instant) -> Moment {
        let host = &self.hosts[server];
        let local = i128::from(instant.0) - i128::from(host.offset);
        (local * 1_000_000 / i128::from(1_000_000 + host.drift)).max(0) as u64 + 1
    }

    pub fn run_until(&mut self, moment: Moment) {
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.0 > moment || !self.violations.is_empty() {
                break;
            }
            let Some(Reverse(Queued(at, _, event))) = self.queue.pop() else { break };
            self.now = at;
            self.step(event);
        }
        self.now = self.now.max(moment);
    }

    pub fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + ms * MS);
    }

    /// Runs until `condition` holds; false if it does not within the time.
    pub fn wait(&mut self, ms: u64, condition: impl Fn(&World) -> bool) -> bool {
        let end = self.now + ms * MS;
        while self.now < end && self.violations.is_empty() {
            if condition(self) {
                return true;
            }
            self.run_for(10);
        }
        condition(self)
    }

    fn alive(&self, server: usize, life: u64) -> bool {
        let host = &self.hosts[server];
        host.powered && host.core.is_some() && host.life == life
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Input { server, life, input } => {
                if self.alive(server, life) {
                    self.input(server, input);
                }
            }
            Event::Tick { server, life } => {
                if self.alive(server, life) && !self.hosts[server].frozen && self.now >= self.hosts[server].next_tick {
                    let now = self.clock(server, self.now);
                    if let Some(core) = &mut self.hosts[server].core {
                        core.tick(now);
                    }
                    self.drain(server);
                }
            }
            Event::Durable { server, life, token, state } => {
                // The disk finishes what was given to it even if the process is gone, not if the power is.
                if self.hosts[server].powered && self.hosts[server].life == life {
                    self.check_view(server, &state);
                    self.hosts[server].ledger = *state;
                    if self.alive(server, life) {
                        self.input(server, Input::Durable { token });
                    }
                }
            }
            Event::Beat { server, life, frame } => {
                if self.alive(server, life) && self.hosts[server].disk_reachable {
                    self.beats.insert(server, *frame);
                }
            }
            Event::Lock { server, life, token, op, written } => self.lock_io(server, life, token, op, written),
            Event::Act { server, life, op, group, resource, action } => {
                self.act(server, life, op, group, resource, action)
            }
            Event::Guard { server } => self.guard(server),
            Event::Kill { server, boot } => {
                if self.hosts[server].powered
                    && self.hosts[server].boot == boot
                    && !self.hosts[server].running.is_empty()
                {
                    self.say(format!("{}: guard has killed everything", self.hosts[server].name));
                    self.hosts[server].running.clear();
                }
            }
            Event::Start { server } => self.start(server),
            Event::Thaw { server } => self.thaw(server),
        }
    }

    fn start(&mut self, server: usize) {
        if !self.hosts[server].powered || self.hosts[server].core.is_some() {
            return;
        }
        let now = self.clock(server, self.now);
        let boot = BootId(boot_id(server, self.hosts[server].boot));
        let fresh = ClusterId(self.rng.random());
        let lease_end = match self.hosts[server].deadline.2 {
            0 => Instant::ZERO,
            end => self.clock(server, end),
        };
        let host = &mut self.hosts[server];
        host.life += 1;
        host.frozen = false;
        host.exited = false;
        host.pending.clear();
        let about = Boot { server: host.name.clone(), boot, is_virtual: true, fresh_cluster: fresh, lease_end };
        host.core = Some(Core::new(now, about, host.ledger.clone()));
        let life = host.life;
        let name = host.name.clone();
        self.say(format!("{name}: process {life} starts"));
        let input = Input::Specs { config: self.config.clone(), groups: self.groups.clone(), running: BTreeMap::new() };
        self.input(server, input);
    }

    /// Gives everybody the present specifications.
    /// What stands on the lock now, as a backup has it.
    pub fn copy_of_lock(&self) -> (BTreeMap<u8, LockRecord>, u64) {
        (self.disk.clone(), self.swaps)
    }

    /// Puts the lock back to an older state, as a restored backup does.
    pub fn put_lock_back(&mut self, (records, swaps): (BTreeMap<u8, LockRecord>, u64)) {
        (self.disk, self.swaps) = (records, swaps);
    }

    pub fn publish(&mut self) {
        for server in 0..self.hosts.len() {
            let life = self.hosts[server].life;
            let input =
                Input::Specs { config: self.config.clone(), groups: self.groups.clone(), running: BTreeMap::new() };
            self.after(MS, 20 * MS, Event::Input { server, life, input });
        }
    }

    fn input(&mut self, server: usize, input: Input) {
        if self.hosts[server].frozen {
            self.hosts[server].pending.push_back(input);
            return;
        }
        let now = self.clock(server, self.now);
        if let Some(core) = &mut self.hosts[server].core {
            core.handle(now, input);
        }
        self.drain(server);
    }

    fn drain(&mut self, server: usize) {
        while let Some(output) = self.hosts[server].core.as_mut().and_then(Core::poll_output) {
            self.carry_out(server, output);
        }
        let Some(core) = &self.hosts[server].core else { return };
        let at = self.moment(server, core.next_deadline()).max(self.now + 1);
        let life = self.hosts[server].life;
        self.hosts[server].next_tick = at;
        self.at(at, Event::Tick { server, life });
    }

    fn carry_out(&mut self, server: usize, output: Output) {
        let life = self.hosts[server].life;
        match output {
            Output::Persist { token, state } => {
                // Writes are done in order: a later one is never durable before an earlier one.
                let delay = self.rng.random_range(MS / 2..=self.max_fsync * MS);
                let at = (self.now + delay).max(self.hosts[server].written_at);
                self.hosts[server].written_at = at;
                self.at(at, Event::Durable { server, life, token, state });
            }
            Output::Heartbeat(frame) => {
                for to in 0..self.hosts.len() {
                    for path in ["ic", "pub"] {
                        self.send(server, to, path.into(), Input::Frame { path: path.into(), frame: frame.clone() });
                    }
                }
                if self.config.lock == Some(LockKind::Disk) {
                    self.after(MS / 5, 3 * MS, Event::Beat { server, life, frame });
                    self.read_beats(server, life);
                }
            }
            Output::Send { to, message } => {
                let Some(index) = self.hosts.iter().position(|host| host.name == to) else { return };
                let boot = BootId(boot_id(server, self.hosts[server].boot));
                let envelope = Envelope { from: self.hosts[server].name.clone(), boot, message: *message };
                for path in ["ic", "pub"] {
                    self.send(server, index, path.into(), Input::Message(Box::new(envelope.clone())));
                }
            }
            Output::Lock { token, op } => {
                self.after(MS / 5, 3 * MS, Event::Lock { server, life, token, op, written: false });
            }
            Output::Deadline { soft, kill, end } => {
                let deadline = (self.moment(server, soft), self.moment(server, kill), self.moment(server, end));
                self.hosts[server].deadline = deadline;
                if self.hosts[server].guard_at <= self.now {
                    self.hosts[server].guard_at = deadline.1;
                    self.at(deadline.1, Event::Guard { server });
                }
            }
            Output::Resource { op, group, resource, action, .. } => {
                self.after(2 * MS, 40 * MS, Event::Act { server, life, op, group, resource, action });
            }
            Output::Released { .. } => {}
            Output::Note(note) => {
                let group = note.group.map(|group| format!(" {group}")).unwrap_or_default();
                self.say(format!("{}: {}{group}: {}", self.hosts[server].name, note.reason, note.message));
            }
            Output::Exit => {
                self.say(format!("{}: has left", self.hosts[server].name));
                self.hosts[server].core = None;
                self.hosts[server].exited = true;
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, path: PathName, input: Input) {
        if from == to || self.cut.contains(&(from, to, path)) || !self.hosts[to].powered {
            return;
        }
        if self.loss > 0.0 && self.rng.random_bool(self.loss) {
            return;
        }
        let life = self.hosts[to].life;
        let copies = if self.loss > 0.0 && self.rng.random_bool(0.02) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.loss > 0.0 && self.rng.random_bool(0.02);
            let high = if slow { 400 * MS } else { MS / 2 };
            self.after(MS / 20, high, Event::Input { server: to, life, input: input.clone() });
        }
    }

    fn read_beats(&mut self, server: usize, life: u64) {
        if !self.hosts[server].disk_reachable {
            return;
        }
        let frames: Vec<Frame> =
            self.beats.iter().filter(|(from, _)| **from != server).map(|(_, f)| f.clone()).collect();
        for frame in frames {
            let input = Input::Frame { path: "area".into(), frame: Box::new(frame) };
            self.after(MS / 5, 3 * MS, Event::Input { server, life, input });
        }
    }

    fn lock_io(&mut self, server: usize, life: u64, token: u64, op: LockOp, written: bool) {
        if !self.hosts[server].powered || self.hosts[server].life != life {
            return;
        }
        if !self.hosts[server].disk_reachable {
            let input = Input::Lock { token, result: Err("I/O error".into()) };
            return self.after(MS, 5 * MS, Event::Input { server, life, input });
        }
        let slot = (server + 1) as u8;
        if self.config.lock == Some(LockKind::QuorumServer) {
            return self.swap(server, life, token, &op);
        }
        if let (LockOp::WriteThenLook(record), false) = (&op, written) {
            self.disk.insert(slot, (**record).clone());
            return self.after(MS / 5, 3 * MS, Event::Lock { server, life, token, op, written: true });
        }
        let completed = self.clock(server, self.now);
        let look =
            LockLook { lock: self.lock, counter: None, records: self.disk.clone(), damaged: Vec::new(), completed };
        self.input_if_alive(server, life, Input::Lock { token, result: Ok(look) });
    }

    /// R5: everything at one moment; the answer may be lost although the swap has landed.
    fn swap(&mut self, server: usize, life: u64, token: u64, op: &LockOp) {
        if let LockOp::WriteThenLook(record) = op {
            self.disk.insert((server + 1) as u8, (**record).clone());
        }
        self.swaps += 1;
        if self.loss > 0.0 && self.rng.random_bool(self.loss) {
            let input = Input::Lock { token, result: Err("no answer".into()) };
            let late = self.config.io_timeout.as_nanos() as u64;
            return self.after(late, late, Event::Input { server, life, input });
        }
        let (records, took) = (self.disk.clone(), self.rng.random_range(MS / 5..20 * MS));
        let completed = self.clock(server, self.now + took);
        let look = LockLook { lock: self.lock, counter: Some(self.swaps), records, damaged: Vec::new(), completed };
        let input = Input::Lock { token, result: Ok(look) };
        self.at(self.now + took, Event::Input { server, life, input });
    }

    fn input_if_alive(&mut self, server: usize, life: u64, input: Input) {
        if self.alive(server, life) {
            self.input(server, input);
        }
    }

    /// A helper acts, whether its agent is frozen or not; on a start it checks the deadline itself.
    fn act(&mut self, server: usize, life: u64, op: u64, group: GroupName, resource: ResourceName, action: Action) {
        if !self.hosts[server].powered || self.hosts[server].life != life || self.hosts[server].core.is_none() {
            return;
        }
        let key = (group.clone(), resource.clone());
        let outcome = match action {
            Action::Start if self.now >= self.hosts[server].deadline.0 => Outcome::Failed("no authority".into()),
            Action::Start if self.failing_starts > 0.0 && self.rng.random_bool(self.failing_starts) => {
                if self.rng.random_bool(0.5) {
                    self.begin(server, key);
                }
                Outcome::Failed("start failed".into())
            }
            Action::Start => {
                self.begin(server, key);
                Outcome::Running
            }
            Action::Stop if self.failing_stops > 0.0 && self.rng.random_bool(self.failing_stops) => {
                Outcome::Unknown("stop timed out".into())
            }
            Action::Stop => {
                self.hosts[server].running.remove(&key);
                Outcome::Stopped
            }
            Action::Probe | Action::Monitor => {
                if self.hosts[server].running.contains(&key) {
                    Outcome::Running
                } else {
                    Outcome::Stopped
                }
            }
        };
        let input = Input::ResourceDone { op, outcome, took: Duration::from_millis(10) };
        self.input_if_alive(server, life, input);
    }

    /// I-b: the moment of truth.
    fn begin(&mut self, server: usize, key: (GroupName, ResourceName)) {
        let elsewhere = self.hosts.iter().enumerate().find(|(other, host)| {
            *other != server && host.powered && host.running.iter().any(|(group, _)| *group == key.0)
        });
        if let Some((_, other)) = elsewhere {
            let text = format!(
                "I-b: {} of {} starts on {} while it runs on {}",
                key.1, key.0, self.hosts[server].name, other.name
            );
            self.violation(text);
        }
        self.hosts[server].running.insert(key);
    }

    fn violation(&mut self, text: String) {
        self.say(format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    /// I-a: one successor per epoch.
    fn check_view(&mut self, server: usize, state: &Durable) {
        let Some(view) = &state.view else { return };
        match self.views.get(&view.order()) {
            Some(known) if known != view => {
                let text = format!("I-a: {} has another view {} than others", self.hosts[server].name, view.epoch);
                self.violation(text);
            }
            Some(_) => {}
            None => {
                self.views.insert(view.order(), view.clone());
            }
        }
    }

    /// R23 with the guard's own stall: at the kill point the agent dies at once, everything else at some moment before
    /// deadline and reset are over.
    fn guard(&mut self, server: usize) {
        let (_, kill, end) = self.hosts[server].deadline;
        if !self.hosts[server].powered {
            return;
        }
        if self.now < kill {
            self.hosts[server].guard_at = kill;
            return self.at(kill, Event::Guard { server });
        }
        self.hosts[server].guard_at = 0;
        if self.hosts[server].running.is_empty() {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: guard kills the agent, deadline is over"));
        self.stop_process(server);
        let boot = self.hosts[server].boot;
        let reset = self.config.reset.as_nanos() as u64 * 99 / 100;
        let latest = end + reset;
        let at = self.rng.random_range(self.now..=latest.max(self.now));
        self.at(at, Event::Kill { server, boot });
        self.at(latest + self.restart_after_kill * MS, Event::Start { server });
    }

    fn stop_process(&mut self, server: usize) {
        self.hosts[server].core = None;
        self.hosts[server].frozen = false;
        self.hosts[server].pending.clear();
    }

    // --- faults ---

    pub fn power_cut(&mut self, server: usize) {
        if !self.hosts[server].powered {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: POWER CUT"));
        self.stop_process(server);
        let host = &mut self.hosts[server];
        host.powered = false;
        host.running.clear();
        host.deadline = (0, 0, 0);
        host.guard_at = 0;
        host.life += 1;
    }

    pub fn power_on(&mut self, server: usize) {
        if self.hosts[server].powered {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: POWER ON"));
        self.hosts[server].powered = true;
        self.hosts[server].boot += 1;
        self.at(self.now + 10 * MS, Event::Start { server });
    }

    pub fn crash_process(&mut self, server: usize, restart_after_ms: u64) {
        if self.hosts[server].core.is_none() {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: process crashes"));
        self.stop_process(server);
        self.at(self.now + restart_after_ms * MS, Event::Start { server });
    }

    pub fn freeze(&mut self, server: usize, ms: u64) {
        if self.hosts[server].core.is_none() {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: frozen for {ms} ms"));
        self.hosts[server].frozen = true;
        self.at(self.now + ms * MS, Event::Thaw { server });
    }

    fn thaw(&mut self, server: usize) {
        if !self.hosts[server].frozen {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: thawed"));
        self.hosts[server].frozen = false;
        while let Some(input) = self.hosts[server].pending.pop_front() {
            self.input(server, input);
        }
        self.drain(server);
    }

    pub fn leave(&mut self, server: usize) {
        let life = self.hosts[server].life;
        self.at(self.now, Event::Input { server, life, input: Input::Leave });
    }

    pub fn cut_lans(&mut self, a: usize, b: usize) {
        for path in ["ic", "pub"] {
            self.cut.insert((a, b, path.into()));
            self.cut.insert((b, a, path.into()));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0.0;
        self.failing_starts = 0.0;
        self.failing_stops = 0.0;
        self.max_fsync = 3;
        for server in 0..self.hosts.len() {
            self.hosts[server].disk_reachable = true;
            self.power_on(server);
            self.at(self.now, Event::Thaw { server });
            if self.hosts[server].core.is_none() {
                self.at(self.now + 100 * MS, Event::Start { server });
            }
        }
    }

    // --- what is seen ---

    pub fn status(&self, server: usize) -> Option<Status> {
        let now = self.clock(server, self.now);
        self.hosts[server].core.as_ref().map(|core| core.status(now))
    }

    /// The servers where anything of a group really runs.
    pub fn places(&self, group: &str) -> Vec<usize> {
        (0..self.hosts.len()).filter(|i| self.hosts[*i].running.iter().any(|(name, _)| name.0 == group)).collect()
    }

    /// Every resource of the group runs on exactly one server, and that server says so.
    pub fn online(&self, group: &str) -> Option<usize> {
        let places = self.places(group);
        let [server] = places.as_slice() else { return None };
        let status = self.status(*server)?;
        let report = status.groups.get(&GroupName::from(group))?;
        (report.phase == GroupPhase::Online).then_some(*server)
    }

    pub fn phase(&self, server: usize) -> Option<ClusterPhase> {
        self.status(server).map(|status| status.phase)
    }

    pub fn members(&self, server: usize) -> Vec<String> {
        let status = self.status(server);
        status.and_then(|s| s.view).map(|view| view.members.keys().map(|n| n.0.clone()).collect()).unwrap_or_default()
    }

    pub fn story(&self, last: usize) -> String {
        let from = self.log.len().saturating_sub(last);
        let mut text = self.log[from..].join("\n");
        for i in 0..self.hosts.len() {
            let status = self.status(i);
            let sentence = status.map(|status| status.sentence).unwrap_or_else(|| "no process".into());
            text.push_str(&format!("\n{}: {sentence}; runs {:?}", self.hosts[i].name, self.hosts[i].running));
        }
        text
    }
}

fn boot_id(server: usize, boot: u64) -> u128 {
    (server as u128 + 1) << 64 | u128::from(boot)
}
