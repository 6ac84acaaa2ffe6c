//! Everything that can go wrong or be ordered, as values: schedules are lists of these, and lists can be shrunk.

use std::sync::Arc;

use holdfast_core::config::Target;
use holdfast_core::durable::Durable;
use holdfast_core::names::{AcceptorId, BootId, GroupName};
use holdfast_core::{Input, Outcome};
use rand::Rng;

use holdfast_core::orders::{Power, Wanted};

use super::host::boot_id;
use super::network::{Kind, LANS};
use super::{Change, Device, Event, MS, Ordered, World};

/// How the shared disk (or the way to the lock) is from one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    /// Answers within milliseconds.
    Works,
    /// Answers within 400 ms.
    Slow,
    /// Answers with errors; writes may land all the same.
    Errors,
    /// Answers nothing until it works again; writes may land at any time.
    Hangs,
    /// Answers with errors; what is written is left half written.
    Tears,
}

/// What happens on one server that an ambush can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It sends a message of this kind.
    Sends(Kind),
    /// Its record has reached the lock disk, and it has not read yet.
    LockLanded,
    /// It is about to hear what the lock disk says.
    LockAnswers,
    /// It gives the acceptance of a successor to its ledger.
    Accepting,
    /// A view became durable on it.
    Adopts,
    /// A resource starts on it.
    Starts,
    /// Its process is about to carry out the next thing that its core has asked for.
    Acts,
}

/// A fault, an order, or its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Power off, at once.
    PowerCut(usize),
    /// Power on: a new boot.
    PowerOn(usize),
    /// The process dies and is started again after some ms.
    Crash(usize, u64),
    /// SIGSTOP, SIGCONT after some ms.
    Freeze(usize, u64),
    /// Both LANs between two servers, both ways.
    CutLans(usize, usize),
    /// One LAN (0, 1), one way.
    CutOneWay(usize, usize, usize),
    /// Only heartbeats are lost, from one server to another.
    CutFrames(usize, usize),
    /// Every LAN of one server.
    Isolate(usize),
    /// The LANs work inside the set of servers (bits) and outside of it, not between.
    Split(u32),
    /// All LANs work.
    HealLans,
    /// Share of messages lost on all LANs.
    Loss(f64),
    /// Longest delay on LANs in ms.
    Delay(u64),
    /// Longest delay of one kind of message in ms.
    DelayKind(Kind, u64),
    /// Messages of one kind are lost for some ms.
    Mute(Kind, u64),
    /// The way of one server to the lock.
    Disk(usize, DiskState),
    /// The next operation of one server on the lock disk hangs, alone, for up to 3 s.
    HangOne(usize),
    /// The heartbeats that one server writes to the lock disk are lost; its lock records are not.
    SilentOnDisk(usize),
    /// Slowest helper in ms.
    SlowHelpers(u64),
    /// Helpers are stopped for up to so many ms between their look at the deadline and what they then do.
    StoppedHelpers(u64),
    /// The whole machine stands still for some ms: process, guard, helpers, watchdog. Whether its clock counts that.
    Pause(usize, u64, bool),
    /// A server's clock goes on at another rate, in ppm.
    Drift(usize, i64),
    /// Nothing that the guard of this server does can end what runs there any more.
    Unkillable(usize),
    /// The object on the quorum server is deleted.
    DeleteLock,
    /// A server sees another machine write under its number.
    Namesake(usize),
    /// Not a fault: the members of the newest view must be connected to each other, by a LAN that works both ways.
    MembersConnected,
    /// Not a fault: within so many ms every group must run.
    Settles(u64),
    /// Slowest ledger write in ms.
    Fsync(u64),
    /// Share of starts and of stops that fail.
    FailingResources(f64, f64),
    /// Power cut, and the server comes back as if newly installed.
    LoseLedger(usize),
    /// Power cut, and the server comes back with the ledger of an earlier moment (a restored image).
    RevertLedger(usize),
    /// The lock area is formatted anew.
    ReformatLock,
    /// The lock is put back to an earlier state, as from a backup. With `false` only where every server that has seen a
    /// later one is there to notice it: otherwise the rules promise nothing (R4); `true`: in any case.
    RestoreLock(bool),
    /// What the checks of monitors find on a server from now on: whether all is well.
    Checks(usize, bool),
    /// Somebody gives a command on a server.
    Command(usize, Ordered),
    /// The last resource of a group (index) that runs ends by itself, wherever that is.
    KillResource(usize),
    /// The process is asked to end; started again some ms after it has.
    Leave(usize, u64),
    /// An operator moves a group (index) to a server.
    Move(usize, usize),
    /// The Operation ClearFailures on a group; of a server, or of all.
    ClearFailures(usize, Option<usize>),
    /// The group's specification changes; some servers get it later.
    NewSpec(usize),
    /// The group's specification changes, and only this server gets it.
    SpecTo(usize, usize),
    /// A server's store is empty: it hears of no groups.
    EmptyStore(usize),
    /// An operator takes a server out of service; its groups stop instead of moving.
    Detach(usize, bool),
    /// An operator takes a server back into service.
    Reinstate(usize),
    /// An operator orders all servers, or one of them, to shut down; or the newest such order is given again.
    ShutDown(Option<usize>, bool),
    /// An operator has the fence devices of a server used on its present boot, or the newest such order is given again for the
    /// view of now, as the controller does until it is carried out.
    Fence(usize, Option<Power>),
    /// An operator confirms that a server has stopped; he does so only if it is off.
    ConfirmStopped(usize),
    /// After all are down, this one is made the base; the others come back at once, or stay off.
    ForceReinstate(usize, bool),
    /// The sub-cluster's specification changes, for all (at different moments) or for one server.
    Reconfigure(Change, Option<usize>),
    /// A server does not reach the lock at this place.
    NoWayToLock(usize, u64),
    /// Not a fault: from here on nothing that runs may stop.
    NothingMoves,
    /// How the fence devices behave, and whether they switch on again.
    Devices(Device, bool),
    /// When this happens on a server for the n-th time from now on, that fault follows.
    Ambush(usize, Moment, u32, Box<Fault>),
}

/// An ambush that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    server: usize,
    moment: Moment,
    left: u32,
    then: Fault,
}

impl World {
    /// Makes it happen.
    pub fn apply(&mut self, fault: &Fault) {
        if self.operator_is_busy() {
            return;
        }
        if !matches!(fault, Fault::Ambush(..)) {
            self.say(format!("FAULT {fault:?}"));
        }
        match fault.clone() {
            Fault::Devices(device, reboot) => (self.fences.device, self.fences.reboot) = (device, reboot),
            Fault::PowerCut(server) => self.power_cut(server),
            Fault::PowerOn(server) => self.power_on(server),
            Fault::Crash(server, ms) => self.crash_process(server, ms),
            Fault::Freeze(server, ms) => self.freeze(server, ms),
            Fault::CutLans(a, b) => self.cut_lans(a, b),
            Fault::CutOneWay(a, b, lan) => {
                self.cut.insert((a, b, LANS[lan % 2].into()));
            }
            Fault::Isolate(server) => {
                for other in 0..self.hosts.len() {
                    self.cut_lans(server, other);
                }
            }
            Fault::CutFrames(from, to) => {
                self.deaf.insert((from, to));
            }
            Fault::Split(set) => {
                self.cut.clear();
                let inside = |server: usize| set & 1 << server != 0;
                for a in 0..self.hosts.len() {
                    for b in (0..self.hosts.len()).filter(|b| inside(a) != inside(*b)) {
                        self.cut_lans(a, b);
                    }
                }
            }
            Fault::HealLans => {
                self.cut.clear();
                self.deaf.clear();
            }
            Fault::Loss(share) => self.loss = share,
            Fault::Delay(ms) => self.lan_delay = ms * MS,
            Fault::DelayKind(kind, ms) => {
                self.delayed.insert(kind, ms * MS);
            }
            Fault::Mute(kind, ms) => {
                self.muted.insert(kind, self.now + ms * MS);
            }
            Fault::Disk(server, state) => self.set_disk(server, state),
            Fault::HangOne(server) => {
                self.hang_one.insert(server);
            }
            Fault::SilentOnDisk(server) => {
                self.silent_on_disk.insert(server);
            }
            Fault::StoppedHelpers(ms) => self.helper_pause = ms,
            Fault::Pause(server, ms, counts) => self.pause(server, ms, counts),
            Fault::Drift(server, ppm) => self.change_rate(server, ppm),
            Fault::Unkillable(server) => self.hosts[server].unkillable = true,
            Fault::DeleteLock => self.medium.delete(),
            Fault::Namesake(server) => {
                let life = self.hosts[server].life;
                self.input_if_alive(server, life, Input::Namesake);
            }
            Fault::MembersConnected => self.check_connected(),
            Fault::Checks(server, true) => {
                self.checks_find.remove(&server);
            }
            Fault::Checks(server, false) => {
                self.checks_find.insert(server, Outcome::Failed("broken".into()));
            }
            Fault::Command(server, order) => self.ordered(server, order),
            Fault::Settles(_) => {} // the schedule waits
            Fault::SlowHelpers(ms) => self.helper_delay = ms.max(3),
            Fault::Fsync(ms) => self.max_fsync = ms.max(1),
            Fault::FailingResources(starts, stops) => {
                self.failing_starts = starts;
                self.failing_stops = stops;
            }
            Fault::LoseLedger(server) => {
                self.power_cut(server);
                self.lose_ledger(server);
            }
            Fault::RevertLedger(server) => {
                self.power_cut(server);
                let survived = |old: &Durable| self.makes_up_for(old);
                if let Some(old) = self.snapshots.get(&server).cloned().filter(survived) {
                    self.hosts[server].ledger = old;
                    self.reverted.insert(server);
                }
            }
            Fault::ReformatLock => {
                self.medium = super::disk::Medium::new(AcceptorId(self.rng.random()));
            }
            Fault::RestoreLock(any) => {
                let all_see = |old: &super::disk::Medium| any || self.seen_through(old) && self.reverted.is_empty();
                if let Some(old) = self.old_lock.clone().filter(all_see) {
                    self.medium = old;
                    self.lock_restored = true;
                }
            }
            Fault::Leave(server, ms) => {
                self.leave(server);
                self.returning.insert(server, ms);
            }
            Fault::Move(group, server) => self.order_move(group, server),
            Fault::ClearFailures(group, server) => {
                if let Some(name) = self.groups.keys().nth(group % self.groups.len().max(1)).cloned() {
                    self.clear_failures(&name, &[], server);
                }
            }
            Fault::NewSpec(group) => self.new_spec(group, None),
            Fault::SpecTo(group, server) => self.new_spec(group, Some(server)),
            Fault::EmptyStore(server) => {
                let (groups, running) = (Default::default(), Default::default());
                let config = self.hosts[server].known_config.clone().unwrap_or_else(|| self.config.clone());
                let life = self.hosts[server].life;
                let input = Input::Specs { config, groups, running };
                self.after(MS, 5 * MS, Event::Input { server, life, input });
            }
            Fault::Detach(server, stop_groups) => self.operate(server, Wanted::Detach { stop_groups }),
            Fault::Reinstate(server) => self.operate(server, Wanted::Reinstate),
            Fault::ShutDown(only, again) => self.shut_down_all(only, again),
            Fault::Fence(server, power) => self.fence_by_order(server, power),
            Fault::ConfirmStopped(server) => self.operate(server, Wanted::ConfirmStopped),
            // Nobody makes a server the base that is out for good.
            Fault::ForceReinstate(server, _) if self.removed.contains(&server) => {}
            Fault::ForceReinstate(server, alone) => self.force_reinstate(server, alone),
            Fault::Reconfigure(change, only) => self.reconfigure(change, only),
            Fault::NoWayToLock(server, place) => {
                self.unreachable.insert((server, place));
            }
            Fault::KillResource(index) => self.kill_resource(index),
            Fault::NothingMoves => self.calm = Some(self.moved),
            Fault::Ambush(server, moment, left, then) => {
                self.ambushes.push(Waiting { server, moment, left, then: *then });
            }
        }
    }

    /// From now on this share of starts fails.
    pub fn fail_starts(&mut self, share: f64) {
        self.failing_starts = share;
    }

    /// Springs the ambushes that waited for this.
    pub(super) fn happens(&mut self, server: usize, moment: Moment) {
        if self.ambushes.is_empty() {
            return;
        }
        let mut sprung = Vec::new();
        for waiting in &mut self.ambushes {
            if waiting.server == server && waiting.moment == moment && waiting.left > 0 {
                waiting.left -= 1;
                if waiting.left == 0 {
                    sprung.push(waiting.then.clone());
                }
            }
        }
        self.ambushes.retain(|waiting| waiting.left > 0);
        for fault in sprung {
            self.apply(&fault);
        }
    }

    /// Every link and every message gets through again.
    pub(super) fn repair_network(&mut self) {
        self.ambushes.clear();
        self.cut.clear();
        self.deaf.clear();
        self.muted.clear();
        self.delayed.clear();
        self.loss = 0.0;
        self.lan_delay = MS / 2;
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        self.repair_network();
        self.hang_one.clear();
        self.silent_on_disk.clear();
        self.failing_starts = 0.0;
        self.failing_stops = 0.0;
        self.max_fsync = 3;
        (self.helper_delay, self.helper_pause) = (40, 0);
        self.medium.restore();
        (self.fences.device, self.fences.reboot) = (Device::Works, true);
        self.unreachable.clear();
        self.checks_find.clear();
        // Who is to go for good, and was stopped before the others could go on without it, is started again.
        let newest = self.seen.newest();
        let needed = |name| newest.as_ref().is_some_and(|view| view.members.contains_key(name));
        self.removed.retain(|server| !needed(&self.hosts[*server].name));
        for server in (0..self.hosts.len()).filter(|server| !self.removed.contains(server)).collect::<Vec<_>>() {
            self.set_disk(server, DiskState::Works);
            self.power_on(server);
            self.at(self.now, Event::Thaw { server });
            if self.hosts[server].core.is_none() {
                self.at(self.now + 100 * MS, Event::Start { server });
            }
        }
        // Whoever comes back reads the specifications again.
        for seconds in [0, 2, 8] {
            self.at(self.now + seconds * 1000 * MS, Event::Publish);
        }
    }

    /// Power off.
    pub fn power_cut(&mut self, server: usize) {
        if !self.hosts[server].powered {
            return;
        }
        self.stop_process(server);
        let host = &mut self.hosts[server];
        host.powered = false;
        host.running.clear();
        host.helpers.clear();
        host.paused = None;
        host.unkillable = false;
        host.killing = false;
        host.running_specs.clear();
        host.deadline = (0, 0, 0);
        host.guard_at = 0;
        host.life += 1;
        self.moved += 1;
    }

    /// Power on, with a new boot.
    pub fn power_on(&mut self, server: usize) {
        if self.hosts[server].powered {
            return;
        }
        self.hosts[server].powered = true;
        self.hosts[server].shut_down = false;
        self.hosts[server].boot += 1;
        self.at(self.now + 10 * MS, Event::Start { server });
    }

    /// The process dies.
    pub fn crash_process(&mut self, server: usize, restart_after_ms: u64) {
        if self.hosts[server].core.is_none() {
            return;
        }
        self.stop_process(server);
        self.at(self.now + restart_after_ms * MS, Event::Start { server });
    }

    /// The process is stopped for some ms.
    pub fn freeze(&mut self, server: usize, ms: u64) {
        if self.hosts[server].core.is_none() {
            return;
        }
        self.hosts[server].frozen = true;
        self.at(self.now + ms * MS, Event::Thaw { server });
    }

    /// The process is asked to end.
    pub fn leave(&mut self, server: usize) {
        let life = self.hosts[server].life;
        self.at(self.now, Event::Input { server, life, input: Input::Leave });
    }

    /// No LAN between two servers.
    pub fn cut_lans(&mut self, a: usize, b: usize) {
        for path in LANS {
            self.cut.insert((a, b, path.into()));
            self.cut.insert((b, a, path.into()));
        }
    }

    /// How the disk is from a server.
    pub fn set_disk(&mut self, server: usize, state: DiskState) {
        self.hosts_disk[server] = state;
        if matches!(state, DiskState::Works | DiskState::Slow) {
            self.release_hung(server);
        }
    }

    fn lose_ledger(&mut self, server: usize) {
        let boot = BootId(boot_id(server, self.hosts[server].boot));
        self.hosts[server].ledger = Durable::fresh(AcceptorId(self.rng.random()), boot);
        self.seen_order.remove(&server);
    }

    /// As an Operation does: a target computed from the placement that is durable somewhere now.
    fn order_move(&mut self, index: usize, server: usize) {
        let Some((name, config)) = self.groups.iter().nth(index % self.groups.len().max(1)) else { return };
        let (name, mut config) = (name.clone(), (**config).clone());
        let tags = self.hosts.iter().filter_map(|host| host.ledger.table.get(&name)).map(|assignment| assignment.tag);
        let Some(tag) = tags.max() else { return };
        let target = Some(self.hosts[server].name.clone());
        config.target = Some(Target {
            by: "operator".into(),
            server: target,
            computed_from: (tag.epoch, tag.revision),
            stop: None,
        });
        self.groups.insert(name, Arc::new(config));
        self.publish();
    }

    fn new_spec(&mut self, index: usize, only: Option<usize>) {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        let Some(name) = names.get(index % names.len().max(1)) else { return };
        if let Some(config) = self.groups.get_mut(name) {
            let mut next = (**config).clone();
            next.generation += 1;
            next.digest += 1;
            *config = Arc::new(next);
        }
        // It arrives everywhere, but not at the same time.
        for server in (0..self.hosts.len()).filter(|server| only.is_none_or(|only| only == *server)) {
            let life = self.hosts[server].life;
            let input = self.specs(server);
            self.after(MS, if only.is_some() { 5 * MS } else { 2000 * MS }, Event::Input { server, life, input });
        }
    }

    /// What a ledger that is put back from a copy lacks is known to everybody else. With a decision of its own that nobody
    /// has heard of, or with the lock put back, too, or replaced since, nothing makes up for it (docs/safety.md).
    fn makes_up_for(&self, old: &Durable) -> bool {
        let Some(newest) = self.seen.newest() else { return false };
        let known = |ledger: &Durable| ledger.view.as_ref() == Some(&newest) && ledger.accepted.is_none();
        let same_lock = old.view.as_ref().is_some_and(|view| view.settings.lock == newest.settings.lock);
        same_lock && !self.lock_restored && self.hosts.iter().all(|host| known(&host.ledger))
    }
}
