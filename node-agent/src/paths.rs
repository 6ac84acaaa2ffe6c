//! The ways to other servers: sealed envelopes over LANs, blocks on the shared disk, compact frames on serial lines; and
//! the lock, on a disk or on a quorum server.
//!
//! Here is only how something is carried. Which path is alive, and what silence means, is the core's decision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::config::PathKind;
use holdfast_core::frame::Frame;
use holdfast_core::lock::LockOp;
use holdfast_core::message::Envelope;
use holdfast_core::names::{PathName, ServerName};
use holdfast_core::settings::{LockPlace, PathSetting};
use holdfast_core::time::Instant;

use crate::inbox::Inbox;
use keys::Keys;
use seal::{Kind, SealError};
use seen::Seen;
use serial::SerialWiring;

pub mod disk;
pub mod keys;
pub mod lan;
pub mod quorum;
pub mod refusals;
pub mod seal;
pub mod seen;
pub mod serial;

/// The paths of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// This server.
    pub me: ServerName,
    /// LANs.
    pub lans: Vec<LanWiring>,
    /// Shared disks with an area that is a path, the lock, or both.
    pub disks: Vec<DiskWiring>,
    /// Serial lines.
    pub serials: Vec<SerialWiring>,
    /// The quorum server, if it is the lock.
    pub quorum: Option<quorum::QuorumWiring>,
}

impl Wiring {
    /// What of it can be read beside what is in force: a path whose name is of another kind there waits, as its heartbeats
    /// would count for that one.
    pub fn beside(&self, in_force: &BTreeMap<PathName, PathSetting>) -> Wiring {
        let fits = |name: &PathName, kind: PathKind| in_force.get(name).is_none_or(|path| path.kind.is_like(kind));
        let mut own = self.clone();
        own.lans.retain(|lan| fits(&lan.name, lan.kind));
        own.serials.retain(|line| fits(&line.name, PathKind::Serial));
        for disk in &mut own.disks {
            disk.path.take_if(|name| !fits(name, PathKind::Disk));
        }
        own.disks.retain(|disk| disk.path.is_some() || disk.lock.is_some());
        own
    }

    /// What of it is still in use, by the digests that the view names.
    pub fn in_use(&self, paths: &BTreeMap<PathName, PathSetting>, lock: Option<LockPlace>) -> Wiring {
        let used = |name: &PathName, wire: u32| paths.get(name).is_some_and(|path| path.wires.contains(&wire));
        let disk = |disk: &&DiskWiring| {
            disk.lock.is_some() && disk.lock == lock || disk.path.as_ref().is_some_and(|name| used(name, disk.wire))
        };
        Wiring {
            me: self.me.clone(),
            lans: self.lans.iter().filter(|lan| used(&lan.name, lan.wire)).cloned().collect(),
            disks: self.disks.iter().filter(disk).cloned().collect(),
            serials: self.serials.iter().filter(|line| used(&line.name, line.wire)).cloned().collect(),
            quorum: self.quorum.clone().filter(|server| Some(server.place) == lock),
        }
    }
}

/// A LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanWiring {
    /// Name of the path.
    pub name: PathName,
    /// Interconnect or public.
    pub kind: PathKind,
    /// UDP port of all servers.
    pub port: u16,
    /// Interface to use; none: the one that the address is on.
    pub interface: Option<String>,
    /// Address of every server.
    pub endpoints: BTreeMap<ServerName, IpAddr>,
    /// Number of every server.
    pub ids: BTreeMap<ServerName, u8>,
    /// Digest of the addresses, as the view names it.
    pub wire: u32,
}

/// A shared disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskWiring {
    /// Its name in the sub-cluster.
    pub disk: String,
    /// Device of the area.
    pub device: PathBuf,
    /// First byte of the area on it.
    pub offset: u64,
    /// Name of the heartbeat path on it, if it is one.
    pub path: Option<PathName>,
    /// Digest of the path, as the view names it.
    pub wire: u32,
    /// It is the cluster lock, the one at this place.
    pub lock: Option<LockPlace>,
    /// Slot of every server.
    pub slots: BTreeMap<ServerName, u8>,
}

/// What was refused on a path: sender, if it is a server of ours, and reason.
pub type Refused = Vec<(Option<ServerName>, String)>;

/// Something could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It could not be put into bytes.
    #[error("it can't be encoded: {0}")]
    Encode(#[from] postcard::Error),
    /// Larger than a datagram.
    #[error("a message of {found} bytes is larger than the {allowed} bytes that one datagram takes")]
    TooLarge {
        /// Its size, sealed.
        found: usize,
        /// The most.
        allowed: usize,
    },
}

/// All paths of this server, as they are wired now.
#[derive(Debug)]
pub struct Paths {
    keys: Keys,
    seen: Seen,
    inbox: Inbox,
    lans: Vec<lan::Lan>,
    disks: Vec<disk::SharedDisk>,
    quorum: Vec<quorum::QuorumServer>,
    serials: Vec<serial::Line>,
    /// Paths that could not even be begun, and why.
    unusable: BTreeMap<PathName, String>,
}

impl Paths {
    /// No path yet.
    pub fn new(keys: Keys, seen: Seen, inbox: Inbox) -> Paths {
        let (lans, disks, serials) = (Vec::new(), Vec::new(), Vec::new());
        Paths { keys, seen, inbox, lans, disks, quorum: Vec::new(), serials, unusable: BTreeMap::new() }
    }

    /// Brings the paths to these wirings, the wanted one first, then what is still in force of former ones; those that
    /// don't change go on undisturbed. A LAN on the same own address and a disk on the same device are one, whatever else
    /// differs.
    pub fn rewire(&mut self, all: &[&Wiring]) {
        let Some(me) = all.first().map(|wiring| wiring.me.clone()) else { return };
        let lans: Vec<&LanWiring> = all.iter().flat_map(|wiring| &wiring.lans).collect();
        let disks: Vec<&DiskWiring> = all.iter().flat_map(|wiring| &wiring.disks).collect();
        let serials: Vec<&SerialWiring> = all.iter().flat_map(|wiring| &wiring.serials).collect();
        let quorum: Vec<&quorum::QuorumWiring> = all.iter().filter_map(|wiring| wiring.quorum.as_ref()).collect();
        self.lans.retain(|lan| lans.iter().any(|wiring| lan.is(wiring)));
        self.disks.retain(|disk| disks.iter().any(|wiring| disk.is(wiring)));
        self.serials.retain(|line| serials.contains(&line.wiring()));
        self.quorum.retain(|server| quorum.contains(&server.wiring()));
        self.unusable.clear();
        for wiring in quorum {
            if !self.quorum.iter().any(|have| have.wiring().place == wiring.place) {
                match quorum::QuorumServer::start(wiring.clone(), self.inbox.clone()) {
                    Ok(started) => self.quorum.push(started),
                    Err(e) => tracing::error!("the quorum server can't be used: {e}"),
                }
            }
        }
        for lan in &lans {
            if !self.lans.iter().any(|have| have.is(lan)) {
                let (keys, seen, inbox) = (self.keys.clone(), self.seen.clone(), self.inbox.clone());
                match lan::Lan::start(me.clone(), (*lan).clone(), keys, seen, inbox) {
                    Ok(started) => self.lans.push(started),
                    Err(e) => self.unusable(&lan.name, &e),
                }
            }
        }
        for lan in &self.lans {
            lan.follow(&lans);
        }
        for disk in &disks {
            if !self.disks.iter().any(|have| have.is(disk)) {
                let (keys, seen, inbox) = (self.keys.clone(), self.seen.clone(), self.inbox.clone());
                match disk::SharedDisk::start(&me, (*disk).clone(), keys, seen, inbox) {
                    Ok(started) => self.disks.push(started),
                    Err(e) => tracing::error!(disk = disk.disk, "the shared disk can't be used: {e}"),
                }
            }
        }
        for disk in &mut self.disks {
            disk.follow(&disks);
        }
        for line in serials {
            if !self.serials.iter().any(|have| have.wiring().device == line.device) {
                match serial::Line::start(line.clone(), self.keys.clone(), self.seen.clone(), self.inbox.clone()) {
                    Ok(started) => self.serials.push(started),
                    Err(e) => self.unusable(&line.name, &e),
                }
            }
        }
    }

    fn unusable(&mut self, path: &PathName, error: &std::io::Error) {
        tracing::error!(%path, "the path can't be used: {error}");
        self.unusable.insert(path.clone(), error.to_string());
    }

    /// Sends a heartbeat to everybody on every path: sealed once per path, never waiting for any of them.
    pub fn heartbeat(&self, frame: &Frame) -> Result<(), SendError> {
        self.keys.choose(crate::clock::now());
        let keys = self.keys.current()?;
        // The lines first: they have no error that the frame can be at fault for.
        for line in &self.serials {
            line.beat(&keys, frame)?;
        }
        let content = postcard::to_stdvec(frame)?;
        for lan in &self.lans {
            let sealed = keys.seal(Kind::Frame, &lan.wiring().name.0, &content)?;
            lan.broadcast(&sealed)?;
        }
        for disk in &self.disks {
            if let Some(path) = &disk.wiring().path {
                disk.beat(keys.seal(Kind::Frame, &path.0, &content)?, frame.cluster);
            }
        }
        Ok(())
    }

    /// Sends a message to one server over the best LAN: the first interconnect that is two-way and was heard within
    /// `fresh`, else such a public LAN, else (in doubt) all of them.
    pub fn send(
        &self,
        to: &ServerName,
        message: &Envelope,
        two_way: &BTreeSet<PathName>,
        now: Instant,
        fresh: Duration,
    ) -> Result<(), SendError> {
        let keys = self.keys.current()?;
        let content = postcard::to_stdvec(message)?;
        let sure = |lan: &&lan::Lan| {
            two_way.contains(&lan.wiring().name) && lan.heard(to).is_some_and(|at| now.since(at) <= fresh)
        };
        let best = [PathKind::Interconnect, PathKind::Public]
            .into_iter()
            .find_map(|kind| self.lans.iter().filter(|lan| lan.wiring().kind == kind).find(sure));
        let chosen: Vec<&lan::Lan> = best.map_or_else(|| self.lans.iter().collect(), |lan| vec![lan]);
        for lan in chosen {
            lan.send(to, &keys.seal(Kind::Message, &lan.wiring().name.0, &content)?)?;
        }
        Ok(())
    }

    /// Gives an operation to a lock. An error is the answer; else it comes as an input.
    pub fn lock(&self, token: u64, at: LockPlace, op: LockOp) -> Result<(), String> {
        if let Some(server) = self.quorum.iter().find(|server| server.wiring().place == at) {
            return server.lock(token, op);
        }
        match self.disks.iter().find(|disk| disk.wiring().lock == Some(at)) {
            Some(disk) => disk.lock(token, op),
            None => Err("this server has no such lock in its configuration".to_owned()),
        }
    }

    /// State of every shared disk.
    pub fn disks(&self) -> Vec<(String, disk::Health)> {
        self.disks.iter().map(|disk| (disk.wiring().disk.clone(), disk.health())).collect()
    }

    /// State of the quorum server, if there is one; while it is replaced, of the one that is wanted.
    pub fn quorum_server(&self) -> Option<quorum::Health> {
        self.quorum.last().map(quorum::QuorumServer::health)
    }

    /// What is wrong with a LAN or serial path here, by name; absent if it can be used.
    pub fn errors(&self) -> BTreeMap<PathName, String> {
        let lans = self.lans.iter().filter_map(|lan| Some((lan.wiring().name.clone(), lan.error()?)));
        let lines = self.serials.iter().filter_map(|line| Some((line.wiring().name.clone(), line.error()?)));
        self.unusable.clone().into_iter().chain(lans).chain(lines).collect()
    }

    /// What was refused lately, by path and sender.
    pub fn refusals(&self, now: Instant) -> BTreeMap<PathName, Refused> {
        let lans = self.lans.iter().map(|lan| (lan.wiring().name.clone(), lan.refusals()));
        let disks = self.disks.iter().filter_map(|disk| Some((disk.wiring().path.clone()?, disk.refusals())));
        let lines = self.serials.iter().map(|line| (line.wiring().name.clone(), line.refusals()));
        let all = lans.chain(disks).chain(lines).map(|(path, refusals)| (path, refusals.shown(now)));
        all.filter(|(_, shown)| !shown.is_empty()).collect()
    }

    /// Which keys there are.
    pub fn keys(&self) -> keys::KeyState {
        self.keys.state()
    }
}
