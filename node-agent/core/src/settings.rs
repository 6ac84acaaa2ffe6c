//! R21: the settings that are in force are a part of the view, and change only from view to view.
//!
//! A specification says what is *wanted*. What the rules act by is in the view, so that all who act under one view act by
//! the same settings, and whoever judges a server of that view knows by which ones it acts. The way from the settings in
//! force to the wanted ones is at most two views, see [`step`]:
//!
//! 1. *prepare*: what is safe under both. Shortest lease, longest waits, every path and every server of both, the lock
//!    in force. Whoever has not heard of this view yet is waited for as long as before.
//! 2. *finish*: the wanted ones, once every member acts under (1) and the deadlines given before are over.
//!
//! A change on top of a change begins again at 1 with what is in force then; as (1) only ever becomes more careful, any
//! number of them in any order is safe, and so is stopping half way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, LockKind, PathKind};
use crate::names::{PathName, ServerName};
use crate::planted::planted;
use crate::view::{MemberTiming, View};

/// Most servers of a sub-cluster: slots on a lock.
const MOST_SERVERS: usize = 16;
/// Most paths of a view, and most places of one path: what a view takes on the lock disk is bounded, and a specification
/// has no more paths. What has no room on the way comes with the last step.
const MOST_PATHS: usize = 16;
const MOST_WIRES: usize = 3;
/// Most bytes of all path names of a view together: two views have to fit one block of a lock disk. The controller takes
/// no more with a lock disk.
const MOST_NAMES: usize = 400;

/// Which lock: what it is, and where, as a digest of its address. Its identity is another thing: it is read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockPlace {
    /// What it is.
    pub kind: LockKind,
    /// Digest of device and offset, or of the object's name and addresses.
    pub place: u64,
}

/// A heartbeat path as the view has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathSetting {
    /// Its kind.
    pub kind: PathKind,
    /// Digests of its addresses or devices; two while it gets others under the same name.
    pub wires: BTreeSet<u32>,
}

/// What all members of a view have to act by in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Settings {
    /// Servers with their ids (slots on the lock).
    pub servers: BTreeMap<ServerName, u8>,
    /// Heartbeat paths.
    pub paths: BTreeMap<PathName, PathSetting>,
    /// The lock, if there is one.
    pub lock: Option<LockPlace>,
    /// H.
    pub interval: Duration,
    /// T.
    pub timeout: Duration,
    /// J.
    pub stall: Duration,
    /// R.
    pub renew: Duration,
    /// T_io.
    pub io_timeout: Duration,
    /// D.
    pub drain: Duration,
}

impl Settings {
    /// The settings that a specification wants.
    pub fn of(config: &Config) -> Settings {
        let path = |(name, kind): (&PathName, &PathKind)| {
            let wires = config.wires.get(name).copied().into_iter().collect();
            (name.clone(), PathSetting { kind: *kind, wires })
        };
        Settings {
            servers: config.servers.clone(),
            paths: config.paths.iter().map(path).collect(),
            lock: config.lock_place(),
            interval: config.interval,
            timeout: config.timeout,
            stall: config.stall,
            renew: config.renew,
            io_timeout: config.io_timeout,
            drain: config.drain,
        }
    }

    /// A path that has this name in `wanted` and is of another kind there. While both are read under one name, a LAN that
    /// is cut would look alive by the heartbeats on a disk; so a name keeps its kind until no view has it any more.
    pub fn changes_kind(&self, wanted: &Settings) -> Option<&PathName> {
        let other = |(name, path): &(&PathName, &PathSetting)| {
            wanted.paths.get(*name).is_some_and(|wanted| !path.kind.is_like(wanted.kind))
        };
        self.paths.iter().find(other).map(|(name, _)| name)
    }

    /// What is safe and works under both: see [`step`].
    fn with(&self, wanted: &Settings) -> Settings {
        let mut servers = self.servers.clone();
        for (name, id) in &wanted.servers {
            // A slot has one owner. One that is still taken is free in the last step.
            if servers.len() < MOST_SERVERS && !servers.values().any(|taken| taken == id) {
                servers.entry(name.clone()).or_insert(*id);
            }
        }
        let mut paths = self.paths.clone();
        for (name, path) in &wanted.paths {
            let names: usize = paths.keys().chain([name]).map(|name| name.0.len()).sum();
            let room = paths.len() < MOST_PATHS && names <= MOST_NAMES;
            match paths.get_mut(name) {
                Some(known) if known.wires.len() < MOST_WIRES => known.wires.extend(&path.wires),
                None if room => drop(paths.insert(name.clone(), path.clone())),
                Some(_) | None => {}
            }
        }
        Settings {
            servers,
            paths,
            lock: self.lock,
            interval: self.interval.min(wanted.interval),
            timeout: self.timeout.max(wanted.timeout),
            stall: self.stall.min(wanted.stall),
            renew: self.renew.min(wanted.renew),
            io_timeout: self.io_timeout.min(wanted.io_timeout),
            drain: self.drain.max(wanted.drain),
        }
    }
}

impl MemberTiming {
    /// The shorter promises (lease and reset) and the longer wait of two: who still keeps to the longer ones is waited for
    /// all the same. The points of a lease stay together: they fit each other.
    pub fn with(&self, other: &MemberTiming, drain: Duration) -> MemberTiming {
        let pace = if other.lease < self.lease { other } else { self };
        let longer = self.reset.max(other.reset);
        let reset = if planted!(ResetFallsLast) { longer } else { self.reset.min(other.reset) };
        let wait = self.takeover_wait.max(other.takeover_wait).max(least_wait(pace.lease, longer, drain));
        MemberTiming {
            lease: pace.lease,
            soft_stop: pace.soft_stop,
            kill: pace.kill,
            reset,
            takeover_wait: wait,
            watchdog: self.watchdog && other.watchdog,
        }
    }
}

/// R11: the least C with which a lease may be given, for clocks that are wrong by at most ρ = 1/1000 (domain.md A1).
pub fn least_wait(lease: Duration, reset: Duration, drain: Duration) -> Duration {
    // Over one denominator, so that it is rounded once, up: never above a C that was computed in whole milliseconds.
    let nanos = ((lease + reset).as_nanos() * 1001 * 1000 + drain.as_nanos() * 1001 * 999).div_ceil(999 * 1000);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Settings with what each member promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of all.
    pub settings: Settings,
    /// Of each.
    pub timings: BTreeMap<ServerName, MemberTiming>,
}

impl Plan {
    /// What is in force in a view.
    pub fn of(view: &View) -> Plan {
        let timings = view.members.iter().map(|(name, member)| (name.clone(), member.timing)).collect();
        Plan { settings: view.settings.clone(), timings }
    }

    fn with(&self, wanted: &Plan) -> Plan {
        let settings = self.settings.with(&wanted.settings);
        let both = |(name, timing): (&ServerName, &MemberTiming)| {
            let wanted = wanted.timings.get(name).unwrap_or(timing);
            let same = wanted == timing && settings.drain == self.settings.drain;
            (name.clone(), if same { *timing } else { timing.with(wanted, settings.drain) })
        };
        Plan { timings: self.timings.iter().map(both).collect(), settings }
    }

    /// Somebody is waited for less long than in `before`.
    pub(crate) fn waits_less(&self, before: &Plan) -> bool {
        let less = |(name, timing): (&ServerName, &MemberTiming)| {
            before.timings.get(name).is_some_and(|old| timing.takeover_wait < old.takeover_wait)
        };
        self.timings.iter().any(less)
    }

    /// The longest C of all members.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.timings.values().map(|timing| timing.takeover_wait).max().unwrap_or_default()
    }
}

/// The next step from what is in force to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What is safe under both; may be taken as soon as everybody holds the wanted specification.
    Prepare(Plan),
    /// What is wanted; has conditions.
    Finish(Plan),
}

/// The next step; none: what is wanted is in force.
pub fn step(in_force: &Plan, wanted: &Plan) -> Option<Step> {
    if in_force == wanted {
        return None;
    }
    let both = in_force.with(wanted);
    Some(if both == *in_force { Step::Finish(wanted.clone()) } else { Step::Prepare(both) })
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
