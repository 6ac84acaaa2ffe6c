//! A simulated sub-cluster: real cores on virtual time, with network, lock disk, ledgers, guards and executors made of
//! values. Everything follows from a seed. The checks read this world, never a server's own opinion of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use holdfast_core::commands::Command;
use holdfast_core::config::{Config, GroupConfig, ResourceConfig};
use holdfast_core::durable::Durable;
use holdfast_core::frame::Frame;
use holdfast_core::lock::LockRecord;
use holdfast_core::message::Envelope;
use holdfast_core::names::{AcceptorId, BootId, GroupName, PathName, ResourceName};
use holdfast_core::status::{ClusterPhase, GroupPhase, Status};
use holdfast_core::{Action, Core, Input, Outcome, Output};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

mod checks;
mod commands;
pub mod disk;
pub mod faults;
mod fence;
mod host;
mod machine;
pub mod network;
mod operator;
pub mod reconfigure;

pub use commands::Ordered;
use disk::Medium;
use faults::{DiskState, Waiting};
pub use fence::{Device, Fences};
use host::{Host, boot_id};
use network::Kind;
pub use reconfigure::Change;

/// One millisecond of the world.
pub const MS: u64 = 1_000_000;

/// One moment of the world, in ns.
type Moment = u64;

#[derive(Debug, Clone)]
enum Event {
    Input {
        server: usize,
        life: u64,
        input: Input,
    },
    Tick {
        server: usize,
        life: u64,
    },
    Durable {
        server: usize,
        life: u64,
        token: u64,
        state: Box<Durable>,
    },
    Beat {
        server: usize,
        life: u64,
        frame: Box<Frame>,
    },
    Landed {
        server: usize,
        place: u64,
        record: Box<LockRecord>,
    },
    Looked {
        server: usize,
        life: u64,
        token: u64,
        place: u64,
    },
    Act {
        server: usize,
        life: u64,
        op: u64,
        key: (GroupName, ResourceName),
        generation: u64,
        action: Action,
    },
    /// A helper that has looked at the deadline goes on and starts something.
    Effect {
        server: usize,
        life: u64,
        op: u64,
        key: (GroupName, ResourceName),
        generation: u64,
    },
    /// A swap on a quorum server that forgets to look what it is about to replace.
    Swapped {
        server: usize,
        life: u64,
        token: u64,
        place: u64,
        read: Box<Medium>,
        record: Option<Box<LockRecord>>,
    },
    Resume {
        server: usize,
        life: u64,
    },
    /// What was started ends by itself.
    Ends {
        server: usize,
        key: (GroupName, ResourceName),
    },
    Guard {
        server: usize,
    },
    Kill {
        server: usize,
        boot: u64,
    },
    Fence(fence::FenceStep),
    Start {
        server: usize,
    },
    Publish,
    Thaw {
        server: usize,
    },
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

/// The world.
pub struct World {
    /// ns since its beginning.
    pub now: Moment,
    rng: StdRng,
    /// The machines.
    pub hosts: Vec<Host>,
    /// How each server's way to the lock is.
    hosts_disk: Vec<DiskState>,
    /// The sub-cluster's specification.
    pub config: Arc<Config>,
    /// The groups'.
    pub groups: BTreeMap<GroupName, Arc<GroupConfig>>,
    /// Every specification that there ever was.
    all_specs: BTreeMap<(GroupName, u64), Arc<GroupConfig>>,
    /// The machines are virtual.
    pub is_virtual: bool,
    queue: BinaryHeap<Reverse<Queued>>,
    serial: u64,
    /// Cut directions: (from, to, path).
    pub cut: BTreeSet<(usize, usize, PathName)>,
    /// Directions in which heartbeats are lost.
    deaf: BTreeSet<(usize, usize)>,
    muted: BTreeMap<Kind, Moment>,
    /// Longest delay of one kind of message.
    delayed: BTreeMap<Kind, u64>,
    loss: f64,
    lan_delay: u64,
    medium: Medium,
    /// Locks that came later, by their place.
    other_locks: BTreeMap<u64, Medium>,
    /// Locks that a server does not reach.
    unreachable: BTreeSet<(usize, u64)>,
    /// Servers that were removed for good.
    removed: BTreeSet<usize>,
    /// Timing of the specification at the beginning.
    first: Arc<Config>,
    hung: Vec<(usize, u64, u64)>,
    hang_one: BTreeSet<usize>,
    silent_on_disk: BTreeSet<usize>,
    /// Servers that are started again so many ms after they have left.
    returning: BTreeMap<usize, u64>,
    ambushes: Vec<Waiting>,
    /// Ledgers and lock of an earlier moment.
    snapshots: BTreeMap<usize, Durable>,
    old_lock: Option<Medium>,
    reverted: BTreeSet<usize>,
    /// The lock was put back from a copy.
    lock_restored: bool,
    seen: checks::Seen,
    seen_order: BTreeMap<usize, (u32, u64)>,
    /// Programs of commands, by the command.
    programs: BTreeMap<u64, ResourceConfig>,
    /// Commands that were given, and what was said with them.
    given: BTreeMap<u64, (Command, String)>,
    pauses: commands::Pauses,
    /// Answers to commands.
    pub answers: BTreeMap<u64, Result<String, String>>,
    commands: u64,
    /// What the checks found.
    pub violations: Vec<String>,
    /// The story so far.
    pub log: Vec<String>,
    /// How often something that ran was stopped, by anybody.
    pub moved: u64,
    /// What `moved` must still be at the end of the schedule.
    pub calm: Option<u64>,
    failing_stops: f64,
    failing_starts: f64,
    max_fsync: u64,
    helper_delay: u64,
    /// How long a helper may be stopped between its look at the deadline and what it then does, in ms.
    helper_pause: u64,
    /// How long the supervisor takes to restart an agent that the guard killed, in ms.
    pub restart_after_kill: u64,
    /// What checks of monitors find on a server; where nothing stands all is well.
    pub checks_find: BTreeMap<usize, Outcome>,
    /// A resource that ends so many ms after each start of it.
    pub short_lived: Option<(ResourceName, u64)>,
    /// How often a resource was started, or was to be.
    pub starts: BTreeMap<(GroupName, ResourceName), Vec<Moment>>,
    /// The fence devices.
    pub fences: Fences,
    operator: operator::Operator,
}

impl World {
    /// Machines with power and nothing on their disks.
    pub fn new(seed: u64, config: Config, groups: &[(&str, GroupConfig)]) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let hosts: Vec<Host> = (0..config.servers.len()).map(|index| Host::new(index, &mut rng)).collect();
        let lock = AcceptorId(rng.random());
        let groups = groups.iter().map(|(name, group)| (GroupName::from(*name), Arc::new(group.clone()))).collect();
        let first = Arc::new(config);
        let mut world = World {
            now: 0,
            rng,
            hosts_disk: vec![DiskState::Works; hosts.len()],
            hosts,
            config: first.clone(),
            groups,
            all_specs: BTreeMap::new(),
            is_virtual: true,
            queue: BinaryHeap::new(),
            serial: 0,
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            muted: BTreeMap::new(),
            delayed: BTreeMap::new(),
            loss: 0.0,
            lan_delay: MS / 2,
            medium: Medium::new(lock),
            other_locks: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            removed: BTreeSet::new(),
            first,
            hung: Vec::new(),
            hang_one: BTreeSet::new(),
            silent_on_disk: BTreeSet::new(),
            returning: BTreeMap::new(),
            ambushes: Vec::new(),
            snapshots: BTreeMap::new(),
            old_lock: None,
            reverted: BTreeSet::new(),
            lock_restored: false,
            seen: checks::Seen::default(),
            seen_order: BTreeMap::new(),
            programs: BTreeMap::new(),
            given: BTreeMap::new(),
            pauses: commands::Pauses::default(),
            answers: BTreeMap::new(),
            commands: 0,
            violations: Vec::new(),
            log: Vec::new(),
            moved: 0,
            calm: None,
            failing_stops: 0.0,
            failing_starts: 0.0,
            max_fsync: 3,
            helper_delay: 40,
            helper_pause: 0,
            restart_after_kill: 30,
            checks_find: BTreeMap::new(),
            short_lived: None,
            starts: BTreeMap::new(),
            fences: Fences::default(),
            operator: operator::Operator::default(),
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
        let delay = self.rng.random_range(low..=high.max(low));
        self.at(self.now + delay, event);
    }

    /// Adds a line to the story.
    pub fn say(&mut self, text: String) {
        if self.log.len() < 200_000 {
            self.log.push(format!("{:>10.3} ms  {text}", self.now as f64 / MS as f64));
        }
    }

    /// Lets the world go on until a moment, or until a check fails.
    pub fn run_until(&mut self, moment: Moment) {
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.0 > moment || !self.violations.is_empty() {
                break;
            }
            let Some(Reverse(Queued(at, _, event))) = self.queue.pop() else { break };
            self.now = at;
            match self.asleep(&event) {
                Some(until) => self.at(until, event),
                None => self.step(event),
            }
        }
        if self.violations.is_empty() {
            self.now = self.now.max(moment);
            self.check_leases();
        }
    }

    /// See [`World::run_until`].
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

    /// Keeps ledgers and lock as they are now, for the faults that put them back.
    pub fn take_snapshots(&mut self) {
        self.snapshots = self.hosts.iter().map(|host| host.ledger.clone()).enumerate().collect();
        self.old_lock = Some(self.medium.clone());
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Input { server, life, mut input } => {
                if let Input::Specs { config, groups, .. } = &mut input
                    && self.hosts[server].powered
                {
                    // What a server holds never goes back, however long an older one was on its way.
                    let known = self.hosts[server].known_config.clone();
                    *config = known.filter(|known| known.generation > config.generation).unwrap_or(config.clone());
                    self.hosts[server].known_config = Some(config.clone());
                    for (name, spec) in groups.iter_mut() {
                        let known = self.hosts[server].known_specs.entry(name.clone()).or_insert_with(|| spec.clone());
                        if known.generation <= spec.generation {
                            *known = spec.clone();
                        }
                        *spec = known.clone();
                    }
                }
                if matches!(input, Input::Lock { .. }) {
                    self.happens(server, faults::Moment::LockAnswers);
                }
                self.input_if_alive(server, life, input);
            }
            Event::Tick { server, life } => self.tick(server, life),
            Event::Durable { server, life, token, state } => self.written(server, life, token, *state),
            Event::Beat { server, life, frame } => {
                if self.alive(server, life) && self.hosts_disk[server] == DiskState::Works {
                    self.medium.beats.insert(server, *frame);
                }
            }
            Event::Landed { server, place, record } => {
                self.landed(server, place, *record);
                self.happens(server, faults::Moment::LockLanded);
            }
            Event::Looked { server, life, token, place } => {
                self.happens(server, faults::Moment::LockAnswers);
                self.looked(server, life, token, place);
            }
            Event::Act { server, life, op, key, generation, action } => {
                self.act(server, life, op, key, generation, action);
            }
            Event::Effect { server, life, op, key, generation } => self.effect(server, life, op, key, generation),
            Event::Swapped { server, life, token, place, read, record } => {
                self.swap_unseen(server, life, (token, place), *read, record)
            }
            Event::Ends { server, key: (group, resource) } => self.kill_program(server, &group.0, &resource),
            Event::Resume { server, life } => self.resume(server, life),
            Event::Guard { server } => self.guard(server),
            Event::Kill { server, boot } => self.killed(server, boot),
            Event::Fence(step) => self.fence_step(step),
            Event::Start { server } => self.start(server),
            Event::Publish => self.publish(),
            Event::Thaw { server } => self.thaw(server),
        }
    }

    fn specs(&mut self, server: usize) -> Input {
        let all = self.groups.iter().map(|(name, spec)| ((name.clone(), spec.generation), spec.clone()));
        self.all_specs.extend(all);
        let running = self.hosts[server].running_specs.clone();
        Input::Specs { config: self.config.clone(), groups: self.groups.clone(), running }
    }

    /// Gives everybody the present specifications.
    pub fn publish(&mut self) {
        (0..self.hosts.len()).for_each(|server| self.publish_to(server));
    }

    /// Gives one server the present specifications; the others learn them when their agents start anew.
    pub fn publish_to(&mut self, server: usize) {
        let life = self.hosts[server].life;
        let input = self.specs(server);
        self.after(MS, 20 * MS, Event::Input { server, life, input });
    }

    fn drain(&mut self, server: usize) {
        // Frozen in the middle: the rest is carried out after the thaw.
        while self.goes_on(server)
            && let Some(output) = self.hosts[server].core.as_mut().and_then(Core::poll_output)
        {
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
                if state.accepted.is_some() && state.accepted != self.hosts[server].ledger.accepted {
                    self.happens(server, faults::Moment::Accepting);
                }
                // Writes are done in order: a later one is never durable before an earlier one.
                let delay = self.rng.random_range(MS / 2..=self.max_fsync * MS);
                let at = (self.now + delay).max(self.hosts[server].written_at);
                self.hosts[server].written_at = at;
                self.at(at, Event::Durable { server, life, token, state });
            }
            Output::Heartbeat(frame) => {
                self.check_frame(server, &frame);
                for to in 0..self.hosts.len() {
                    for path in self.open_lans(server) {
                        let input = Input::Frame { path: path.into(), frame: frame.clone() };
                        self.send(server, to, path.into(), Kind::Frame, input);
                    }
                }
                self.disk_beat(server, life, &frame);
            }
            Output::Send { to, message } => {
                let Some(index) = self.hosts.iter().position(|host| host.name == to) else { return };
                let boot = BootId(boot_id(server, self.hosts[server].boot));
                let kind = Kind::of(&message);
                self.check_vote(server, &message);
                let envelope = Envelope { from: self.hosts[server].name.clone(), boot, message: *message };
                for path in self.open_lans(server) {
                    self.send(server, index, path.into(), kind, Input::Message(Box::new(envelope.clone())));
                }
                self.happens(server, faults::Moment::Sends(kind));
            }
            Output::Lock { token, lock, op } => self.lock_begins(server, life, token, lock, op),
            Output::Deadline { soft, kill, end } => {
                let deadline = (self.moment(server, soft), self.moment(server, kill), self.moment(server, end));
                self.hosts[server].deadline = deadline;
                self.check_anchors();
                if self.hosts[server].guard_at <= self.now {
                    self.hosts[server].guard_at = deadline.1;
                    self.at(deadline.1, Event::Guard { server });
                }
            }
            Output::Resource { op, group, resource, generation, action, .. } => {
                if action == Action::Start
                    && let Some(spec) = self.all_specs.get(&(group.clone(), generation))
                {
                    let spec = spec.clone();
                    self.starts_under(server, &group, &spec);
                }
                let key = (group, resource);
                self.after(2 * MS, self.helper_delay * MS, Event::Act { server, life, op, key, generation, action });
            }
            Output::Check { op, .. } => self.check(server, life, op),
            Output::Released { group } => {
                self.hosts[server].running_specs.remove(&group);
                self.hosts[server].programs.remove(&group);
            }
            Output::Answer { token, answer } => {
                self.say(format!("{}: answers {token}: {answer:?}", self.hosts[server].name));
                self.check_answer(server, token, &answer);
                self.answers.insert(token, answer);
            }
            Output::Program { token, group, program } => self.keep_program(server, token, &group, &program),
            Output::ProgramEnded { group, program } => self.forget_program(server, &group, &program),
            Output::Fence { op, server: target, power } => self.fence(server, op, &target, power),
            Output::FenceCancel { op } => self.cancel_fence(server, op),
            Output::Note(note) => {
                let group = note.group.map(|group| format!(" {group}")).unwrap_or_default();
                self.say(format!("{}: {}{group}: {}", self.hosts[server].name, note.reason, note.message));
            }
            Output::PowerOff { reason } => self.shut_down(server, &reason),
            Output::Exit => {
                self.say(format!("{}: has left", self.hosts[server].name));
                self.hosts[server].core = None;
                self.hosts[server].exited = true;
                if let Some(ms) = self.returning.remove(&server) {
                    self.at(self.now + ms * MS, Event::Start { server });
                }
            }
        }
    }

    /// A check of the schedule failed.
    pub fn fail(&mut self, check: &str, text: &str) {
        self.violation(check, text.to_owned());
    }

    // --- what is seen ---

    /// What a server says about itself.
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

    /// Where the sub-cluster is in its life, after one server.
    pub fn phase(&self, server: usize) -> Option<ClusterPhase> {
        self.status(server).map(|status| status.phase)
    }

    /// Members of the newest view that a server knows.
    pub fn members(&self, server: usize) -> Vec<String> {
        let status = self.status(server);
        status.and_then(|s| s.view).map(|view| view.members.keys().map(|n| n.0.clone()).collect()).unwrap_or_default()
    }

    /// The last lines of the story, and where everybody stands.
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
