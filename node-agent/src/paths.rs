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
    /// It is the cluster lock.
    pub lock: bool,
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
    quorum: Option<quorum::QuorumServer>,
    serials: Vec<serial::Line>,
    /// Paths that could not even be begun, and why.
    unusable: BTreeMap<PathName, String>,
}

impl Paths {
    /// No path yet.
    pub fn new(keys: Keys, seen: Seen, inbox: Inbox) -> Paths {
        let (lans, disks, serials) = (Vec::new(), Vec::new(), Vec::new());
        Paths { keys, seen, inbox, lans, disks, quorum: None, serials, unusable: BTreeMap::new() }
    }

    /// Brings the paths to this wiring; those that don't change go on undisturbed.
    pub fn rewire(&mut self, wiring: &Wiring) {
        self.lans.retain(|lan| wiring.lans.contains(lan.wiring()));
        self.disks.retain(|disk| wiring.disks.contains(disk.wiring()));
        self.serials.retain(|line| wiring.serials.contains(line.wiring()));
        self.unusable.clear();
        self.quorum = self.quorum.take().filter(|server| wiring.quorum.as_ref() == Some(server.wiring()));
        if let (None, Some(wanted)) = (&self.quorum, &wiring.quorum) {
            match quorum::QuorumServer::start(wanted.clone(), self.inbox.clone()) {
                Ok(started) => self.quorum = Some(started),
                Err(e) => tracing::error!("the quorum server can't be used: {e}"),
            }
        }
        for lan in &wiring.lans {
            if !self.lans.iter().any(|have| have.wiring() == lan) {
                match lan::Lan::start(
                    wiring.me.clone(),
                    lan.clone(),
                    self.keys.clone(),
                    self.seen.clone(),
                    self.inbox.clone(),
                ) {
                    Ok(started) => self.lans.push(started),
                    Err(e) => self.unusable(&lan.name, &e),
                }
            }
        }
        for disk in &wiring.disks {
            if !self.disks.iter().any(|have| have.wiring() == disk) {
                match disk::SharedDisk::start(
                    &wiring.me,
                    disk.clone(),
                    self.keys.clone(),
                    self.seen.clone(),
                    self.inbox.clone(),
                ) {
                    Ok(started) => self.disks.push(started),
                    Err(e) => tracing::error!(disk = disk.disk, "the shared disk can't be used: {e}"),
                }
            }
        }
        for line in &wiring.serials {
            if !self.serials.iter().any(|have| have.wiring() == line) {
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
                disk.beat(keys.seal(Kind::Frame, &path.0, &content)?);
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

    /// Gives an operation to the lock. An error is the answer; else it comes as an input.
    pub fn lock(&self, token: u64, op: LockOp) -> Result<(), String> {
        if let Some(server) = &self.quorum {
            return server.lock(token, op);
        }
        match self.disks.iter().find(|disk| disk.wiring().lock) {
            Some(disk) => disk.lock(token, op),
            None => Err("this server has no lock in its configuration".to_owned()),
        }
    }

    /// State of every shared disk.
    pub fn disks(&self) -> Vec<(String, disk::Health)> {
        self.disks.iter().map(|disk| (disk.wiring().disk.clone(), disk.health())).collect()
    }

    /// State of the quorum server, if there is one.
    pub fn quorum_server(&self) -> Option<quorum::Health> {
        self.quorum.as_ref().map(quorum::QuorumServer::health)
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
