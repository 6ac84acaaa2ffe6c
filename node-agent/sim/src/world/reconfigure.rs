//! Changes of the sub-cluster's specification, and what has to hold of the settings in every chain of views (R21).

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::config::LockKind;
use holdfast_core::names::{AcceptorId, PathName};
use holdfast_core::view::View;
use rand::Rng;

use super::disk::Medium;
use super::faults::DiskState;
use super::host::Host;
use super::network::LANS;
use super::{Event, MS, World};

/// A change of the sub-cluster's specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// All times that follow from the timeout, in percent of those at the beginning.
    Timing(u32),
    /// One LAN (0, 1) goes, unless it is the last one, or comes back.
    Lan(usize),
    /// One LAN gets other addresses.
    Rewire(usize),
    /// The lock is replaced by the one at this place, or there is one from now on.
    Lock(u64),
    /// No lock any more; only with three servers and more.
    NoLock,
    /// One more server.
    AddServer,
    /// A server is asked to leave and goes for good.
    RemoveServer(usize),
    /// A server is missing in the specification, and goes on.
    ForgetServer(usize),
    /// Nothing that a view has to agree about.
    Nothing,
}

impl World {
    /// The lock at a place, made when it is first looked at.
    pub(super) fn medium_at(&mut self, place: u64) -> &mut Medium {
        if place == 0 {
            return &mut self.medium;
        }
        let id = AcceptorId(self.medium.lock.0 ^ u128::from(place) << 64);
        self.other_locks.entry(place).or_insert_with(|| Medium::new(id))
    }

    /// W' of a server, in ns: what its machine really keeps to under the last view that had it as a member.
    pub(super) fn reset_of(&self, server: usize) -> u64 {
        let host = &self.hosts[server];
        let member = host.ledger.view.as_ref().and_then(|view| view.members.get(&host.name));
        let last = host.reset.unwrap_or(self.first.reset);
        member.map_or(last, |member| member.timing.reset).as_nanos() as u64
    }

    /// W' and D of a server, in ns.
    pub(super) fn slack_of(&self, server: usize) -> u64 {
        let view = self.hosts[server].ledger.view.as_ref();
        let drain = view.map_or(self.first.drain, |view| view.settings.drain);
        self.reset_of(server) + drain.as_nanos() as u64
    }

    pub(super) fn reconfigure(&mut self, change: Change, only: Option<usize>) {
        let mut config = (*self.config).clone();
        config.generation += 1;
        match change {
            Change::Nothing => {}
            Change::Timing(percent) => {
                let first = self.first.clone();
                let scaled = |time: Duration| time * percent / 100;
                (config.interval, config.timeout) = (scaled(first.interval), scaled(first.timeout));
                (config.lease, config.soft_stop) = (scaled(first.lease), scaled(first.soft_stop));
                (config.kill, config.stall) = (scaled(first.kill), scaled(first.stall));
                (config.renew, config.io_timeout) = (scaled(first.renew), scaled(first.io_timeout));
                config.reset = scaled(first.reset);
                config.takeover_wait = least_wait(config.lease, config.reset, config.drain) + Duration::from_millis(1);
            }
            Change::Lan(lan) => {
                let name = PathName::from(LANS[lan % 2]);
                let lans = config.paths.values().filter(|kind| kind.is_lan()).count();
                if config.paths.contains_key(&name) && lans > 1 {
                    config.paths.remove(&name);
                } else {
                    let kind = self.first.paths[&name];
                    config.paths.insert(name, kind);
                }
            }
            Change::Rewire(lan) => *config.wires.entry(LANS[lan % 2].into()).or_default() += 1,
            Change::Lock(place) if config.servers.len() > 2 && self.first.lock.is_none() => {
                (config.lock, config.lock_at) = (Some(LockKind::QuorumServer), place);
            }
            Change::Lock(place) => (config.lock, config.lock_at) = (config.lock.or(self.first.lock), place),
            Change::NoLock if config.servers.len() > 2 => config.lock = None,
            Change::NoLock => {}
            Change::AddServer if self.hosts.len() < 16 => {
                let index = self.hosts.len();
                let host = Host::new(index, &mut self.rng);
                config.servers.insert(host.name.clone(), (index + 1) as u8);
                self.hosts.push(host);
                self.hosts_disk.push(DiskState::Works);
                self.at(self.now + 50 * MS, Event::Start { server: index });
            }
            Change::AddServer => {}
            Change::RemoveServer(server) => {
                let least = if config.lock.is_some() { 2 } else { 3 };
                let name = self.hosts[server].name.clone();
                // Nobody takes a member away for good that is off or the only one: it leaves first, and others go on.
                let off = self.hosts[server].core.is_none();
                let needed = |view: &View| view.members.contains_key(&name) && (off || view.members.len() == 1);
                let needed = self.seen.newest().is_some_and(|view| needed(&view));
                // Somebody has to be left that the groups may run on.
                let all_gone = self.groups.values().any(|group| {
                    group.policy.iter().all(|other| *other == name || !config.servers.contains_key(other))
                });
                if config.servers.len() > least && !needed && !all_gone && config.servers.remove(&name).is_some() {
                    self.removed.insert(server);
                    self.leave(server);
                }
            }
            Change::ForgetServer(server) => drop(config.servers.remove(&self.hosts[server].name)),
        }
        self.config = Arc::new(config);
        for server in (0..self.hosts.len()).filter(|server| only.is_none_or(|only| only == *server)) {
            let life = self.hosts[server].life;
            let input = self.specs(server);
            let latest = if self.rng.random_bool(0.8) { 50 * MS } else { 2000 * MS };
            self.after(MS, latest, Event::Input { server, life, input });
        }
    }

    /// R21, on two views of a chain: a lease grows only where everybody waits long enough for it already, and settings
    /// change only when every member acts under the ones before.
    pub(super) fn check_settings(&mut self, base: &View, view: &View) {
        let mut wrong = None;
        for (name, member) in &view.members {
            let Some(old) = base.members.get(name).filter(|old| old.boot == member.boot) else { continue };
            let (new, drain) = (member.timing, view.settings.drain);
            if new.lease > old.timing.lease && old.timing.takeover_wait < least_wait(new.lease, new.reset, drain) {
                wrong = Some(format!("view {} raises the lease of {name} before the wait for it", view.epoch));
            }
            let Some(host) = self.hosts.iter().find(|host| host.name == *name) else { continue };
            let behind = host.ledger.view.as_ref().is_none_or(|known| known.order() < base.order());
            if base.settings != view.settings && behind && host.powered && host.ledger.boot == member.boot {
                wrong =
                    Some(format!("view {} has other settings, and {name} does not know the one before", view.epoch));
            }
        }
        if let Some(text) = wrong {
            self.violation("R21", text);
        }
    }
}

/// R11, with ρ = 1/1000, in floating point and rounded down to a µs: not the core's own sum.
fn least_wait(lease: Duration, reset: Duration, drain: Duration) -> Duration {
    let seconds = 1.001 / 0.999 * (lease + reset).as_secs_f64() + 1.001 * drain.as_secs_f64();
    Duration::from_micros((seconds * 1e6) as u64)
}
