//! One machine: its process, its ledger, its guard, its helpers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::config::{Config, GroupConfig, ResourceConfig};
use holdfast_core::durable::Durable;
use holdfast_core::names::{AcceptorId, BootId, ClusterId, GroupName, ResourceName, ServerName};
use holdfast_core::planted::Mutation;
use holdfast_core::time::Instant;
use holdfast_core::{Action, Boot, Core, Input, Outcome};
use rand::Rng;

use super::{Event, MS, Moment, World};

/// One machine.
pub struct Host {
    /// Its name.
    pub name: ServerName,
    pub(super) core: Option<Core>,
    /// Counts processes: what was meant for an older one is lost.
    pub(super) life: u64,
    /// Has power.
    pub powered: bool,
    /// Was shut down for a monitor's sake, and not switched on since.
    pub(super) shut_down: bool,
    /// Its process is stopped by a signal.
    pub frozen: bool,
    pub boot: u64,
    /// What its disk holds.
    pub(super) ledger: Durable,
    pub(super) offset: u64,
    /// Clock rate error in parts per million.
    pub(super) drift: i64,
    /// (soft stop, kill, end), as the guard knows them.
    pub(super) deadline: (Moment, Moment, Moment),
    pub(super) guard_at: Moment,
    /// When the ledger write given last will be done.
    pub(super) written_at: Moment,
    /// What really runs here.
    pub running: BTreeSet<(GroupName, ResourceName)>,
    /// The sub-cluster's specification that it was given last, kept beside the ledger.
    pub(super) known_config: Option<Arc<Config>>,
    /// The groups' likewise.
    pub(super) known_specs: BTreeMap<GroupName, Arc<GroupConfig>>,
    /// Specifications under which groups were started here, kept beside the ledger.
    pub(super) running_specs: BTreeMap<GroupName, Arc<GroupConfig>>,
    /// Programs that commands added to groups, as its process knows them.
    pub(super) programs: BTreeMap<GroupName, BTreeMap<ResourceName, ResourceConfig>>,
    /// Helpers that have looked at the deadline and not acted yet: (process, operation).
    pub(super) helpers: BTreeSet<(u64, u64)>,
    /// The machine stands still: since when, until when, and whether its clock goes on.
    pub(super) paused: Option<(Moment, Moment, bool)>,
    /// Until then it may act on what it knew before a pause.
    pub(super) lagging: Moment,
    /// Its guard can't end what runs here.
    pub(super) unkillable: bool,
    /// W' by the last view that had it as a member.
    pub(super) reset: Option<Duration>,
    /// Its guard is killing what runs there.
    pub(super) killing: bool,
    pub(super) pending: VecDeque<Input>,
    pub(super) next_tick: Moment,
    /// Its process left cleanly.
    pub exited: bool,
}

impl Host {
    pub(super) fn new(index: usize, rng: &mut impl Rng) -> Host {
        Host {
            name: crate::setup::server_name(index),
            core: None,
            life: 0,
            powered: true,
            shut_down: false,
            frozen: false,
            boot: 1,
            ledger: Durable::fresh(AcceptorId(rng.random()), BootId(boot_id(index, 1))),
            offset: rng.random_range(1_000_000_000..1_000_000_000_000),
            // Up to the bound of 0.1 %.
            drift: rng.random_range(-900..=900) * 10 / 9,
            deadline: (0, 0, 0),
            guard_at: 0,
            written_at: 0,
            running: BTreeSet::new(),
            known_config: None,
            known_specs: BTreeMap::new(),
            running_specs: BTreeMap::new(),
            programs: BTreeMap::new(),
            helpers: BTreeSet::new(),
            paused: None,
            lagging: 0,
            unkillable: false,
            reset: None,
            killing: false,
            pending: VecDeque::new(),
            next_tick: 0,
            exited: false,
        }
    }
}

pub(super) fn boot_id(server: usize, boot: u64) -> u128 {
    (server as u128 + 1) << 64 | u128::from(boot)
}

impl World {
    /// A server's own clock: another beginning, another rate.
    pub(super) fn clock(&self, server: usize, moment: Moment) -> Instant {
        let host = &self.hosts[server];
        let skew = (moment as i128 * i128::from(host.drift) / 1_000_000) as i64;
        Instant((host.offset + moment).saturating_add_signed(skew))
    }

    /// The world's moment of a reading of a server's clock.
    pub(super) fn moment(&self, server: usize, instant: Instant) -> Moment {
        let host = &self.hosts[server];
        let local = i128::from(instant.0) - i128::from(host.offset);
        (local * 1_000_000 / i128::from(1_000_000 + host.drift)).max(0) as u64 + 1
    }

    pub(super) fn alive(&self, server: usize, life: u64) -> bool {
        let host = &self.hosts[server];
        host.powered && host.core.is_some() && host.life == life
    }

    pub(super) fn start(&mut self, server: usize) {
        if !self.hosts[server].powered || self.hosts[server].core.is_some() {
            return;
        }
        // What the guard has begun is finished before a new process begins anything.
        if self.hosts[server].killing {
            return self.at(self.now + MS, Event::Start { server });
        }
        let now = self.clock(server, self.now);
        let boot = BootId(boot_id(server, self.hosts[server].boot));
        let fresh = ClusterId(self.rng.random());
        let deadline = match self.hosts[server].deadline {
            (_, _, 0) => Default::default(),
            (soft, kill, end) => (self.clock(server, soft), self.clock(server, kill), self.clock(server, end)),
        };
        let host = &mut self.hosts[server];
        host.life += 1;
        host.frozen = false;
        host.exited = false;
        host.programs.clear();
        host.helpers.clear(); // what an earlier process left behind is ended first
        host.pending.clear();
        let is_virtual = self.is_virtual;
        let about =
            Boot { server: host.name.clone(), boot, is_virtual, capacity: None, fresh_cluster: fresh, deadline };
        host.core = Some(Core::new(now, about, host.ledger.clone()));
        let life = host.life;
        let name = host.name.clone();
        self.say(format!("{name}: process {life} starts"));
        if self.hosts[server].known_specs.is_empty()
            && let Input::Specs { groups, .. } = self.specs(server)
        {
            self.hosts[server].known_specs = groups;
        }
        let config = self.hosts[server].known_config.get_or_insert_with(|| self.config.clone()).clone();
        let host = &self.hosts[server];
        let (groups, running) = (host.known_specs.clone(), host.running_specs.clone());
        self.input(server, Input::Specs { config, groups, running });
        if !self.operator.standing.is_empty() {
            self.hand_over_orders(server);
        }
    }

    pub(super) fn input(&mut self, server: usize, input: Input) {
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

    pub(super) fn input_if_alive(&mut self, server: usize, life: u64, input: Input) {
        if self.alive(server, life) {
            self.input(server, input);
        }
    }

    pub(super) fn tick(&mut self, server: usize, life: u64) {
        if self.alive(server, life) && !self.hosts[server].frozen && self.now >= self.hosts[server].next_tick {
            let now = self.clock(server, self.now);
            if let Some(core) = &mut self.hosts[server].core {
                core.tick(now);
            }
            self.drain(server);
        }
    }

    /// A ledger write is done. The disk finishes what was given to it even if the process is gone, not if the power is.
    pub(super) fn written(&mut self, server: usize, life: u64, token: u64, state: Durable) {
        if self.hosts[server].powered && self.hosts[server].life == life {
            let adopted = self.check_ledger(server, &state);
            let host = &mut self.hosts[server];
            if let Some(member) = state.view.as_ref().and_then(|view| view.members.get(&host.name)) {
                host.reset = Some(member.timing.reset);
            }
            self.hosts[server].ledger = state;
            if adopted {
                self.check_anchors();
                self.happens(server, super::faults::Moment::Adopts);
            }
            self.input_if_alive(server, life, Input::Durable { token });
        }
    }

    /// A helper acts, whether its agent is frozen or not; on a start it checks the deadline itself (R14).
    pub(super) fn act(
        &mut self,
        server: usize,
        life: u64,
        op: u64,
        key: (GroupName, ResourceName),
        generation: u64,
        action: Action,
    ) {
        if !self.hosts[server].powered || self.hosts[server].life != life || self.hosts[server].core.is_none() {
            return;
        }
        match action {
            Action::Stop => self.check_stop(server, &key),
            Action::Start => self.starts.entry(key.clone()).or_default().push(self.now),
            Action::Probe | Action::Monitor => {}
        }
        let late = self.now >= self.hosts[server].deadline.0 && !Mutation::HelperDoesNotLook.is_planted();
        let outcome = match action {
            Action::Start if late => Outcome::Failed("no authority".into()),
            Action::Start if self.failing_starts > 0.0 && self.rng.random_bool(self.failing_starts) => {
                if self.rng.random_bool(0.5) {
                    self.begin(server, key, generation);
                }
                Outcome::Failed("start failed".into())
            }
            Action::Start if self.helper_pause > 0 => {
                self.hosts[server].helpers.insert((life, op));
                let event = Event::Effect { server, life, op, key, generation };
                return self.after(0, self.helper_pause * MS, event);
            }
            Action::Start => {
                self.begin(server, key, generation);
                Outcome::Running
            }
            Action::Stop if self.failing_stops > 0.0 && self.rng.random_bool(self.failing_stops) => {
                Outcome::Unknown("stop timed out".into())
            }
            Action::Stop => {
                self.moved += u64::from(self.hosts[server].running.remove(&key));
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

    /// A helper carries a check of a monitor out.
    pub(super) fn check(&mut self, server: usize, life: u64, op: u64) {
        let outcome = self.checks_find.get(&server).cloned().unwrap_or(Outcome::Running);
        let input = Input::ResourceDone { op, outcome, took: Duration::from_millis(10) };
        self.after(2 * MS, self.helper_delay * MS, Event::Input { server, life, input });
    }

    /// A helper has looked at the deadline some time ago, and acts, whatever its agent does; unless somebody has ended it.
    pub(super) fn effect(
        &mut self,
        server: usize,
        life: u64,
        op: u64,
        key: (GroupName, ResourceName),
        generation: u64,
    ) {
        if self.hosts[server].powered && self.hosts[server].helpers.remove(&(life, op)) {
            self.begin(server, key, generation);
            let input = Input::ResourceDone { op, outcome: Outcome::Running, took: Duration::from_millis(10) };
            self.input_if_alive(server, life, input);
        }
    }

    fn begin(&mut self, server: usize, key: (GroupName, ResourceName), generation: u64) {
        self.check_start(server, &key.0, generation);
        self.check_pause(server, &key.0);
        if let Some((_, ms)) = self.short_lived.as_ref().filter(|(short, _)| *short == key.1) {
            self.at(self.now + ms * MS, Event::Ends { server, key: key.clone() });
        }
        // The start itself may have been what an ambush waited for.
        if self.hosts[server].powered {
            self.hosts[server].running.insert(key);
        }
    }

    /// R23 with the guard's own stall: at the kill point the agent dies at once, everything else at some moment before
    /// deadline and reset are over.
    pub(super) fn guard(&mut self, server: usize) {
        let (_, kill, end) = self.hosts[server].deadline;
        if !self.hosts[server].powered {
            return;
        }
        if self.now < kill {
            self.hosts[server].guard_at = kill;
            return self.at(kill, Event::Guard { server });
        }
        self.hosts[server].guard_at = 0;
        // What is about to start stands in the kill list already.
        let spared = self.hosts[server].helpers.is_empty() || Mutation::HelpersSpared.is_planted();
        if self.hosts[server].running.is_empty() && spared || Mutation::GuardSleeps.is_planted() {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: guard kills the agent, deadline is over"));
        self.stop_process(server);
        if !Mutation::HelpersSpared.is_planted() {
            self.hosts[server].helpers.clear();
        }
        let boot = self.hosts[server].boot;
        self.hosts[server].killing = true;
        let reset = self.reset_of(server) * 99 / 100;
        let latest = end + reset;
        let at = self.rng.random_range(self.now..=latest.max(self.now));
        self.at(at, Event::Kill { server, boot });
        self.at(latest.max(self.now) + self.restart_after_kill * MS, Event::Start { server });
    }

    /// The guard has killed everything that ran here.
    pub(super) fn killed(&mut self, server: usize, boot: u64) {
        let host = &mut self.hosts[server];
        host.killing &= host.boot != boot;
        if host.powered && host.boot == boot && !host.running.is_empty() && host.unkillable {
            // Nobody pets the watchdog any more: it resets the machine.
            if !Mutation::PetsUnverified.is_planted() {
                self.power_cut(server);
                self.power_on(server);
            }
        } else if host.powered && host.boot == boot && !host.running.is_empty() {
            self.say(format!("{}: guard has killed everything", self.hosts[server].name));
            self.hosts[server].running.clear();
            self.moved += 1;
        }
    }

    pub(super) fn stop_process(&mut self, server: usize) {
        self.hosts[server].core = None;
        self.hosts[server].frozen = false;
        self.hosts[server].pending.clear();
    }

    pub(super) fn thaw(&mut self, server: usize) {
        if !self.hosts[server].frozen {
            return;
        }
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: thawed"));
        self.hosts[server].frozen = false;
        self.drain(server);
        if Mutation::StallSuspectsAll.is_planted() {
            let now = self.clock(server, self.now);
            if let Some(core) = &mut self.hosts[server].core {
                core.tick(now);
            }
        }
        // What it does with one may spring an ambush that freezes it again: the rest waits on.
        while !self.hosts[server].frozen
            && let Some(input) = self.hosts[server].pending.pop_front()
        {
            self.input(server, input);
        }
        self.drain(server);
    }
}
