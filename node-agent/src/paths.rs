//! The ways to other servers: sealed envelopes over LANs, blocks on the shared disk; and the lock, on a disk or on a
//! quorum server.
//!
//! Here is only how something is carried. Which path is alive, and what silence means, is the core's decision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use holdfast_core::config::PathKind;
use holdfast_core::frame::Frame;
use holdfast_core::lock::LockOp;
use holdfast_core::message::Envelope;
use holdfast_core::names::{PathName, ServerName};
use holdfast_core::time::Instant;

use crate::inbox::Inbox;
use seal::{Keyring, Kind, SealError};

pub mod disk;
pub mod lan;
pub mod quorum;
pub mod seal;

/// The paths of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// This server.
    pub me: ServerName,
    /// LANs.
    pub lans: Vec<LanWiring>,
    /// Shared disks with an area that is a path, the lock, or both.
    pub disks: Vec<DiskWiring>,
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

/// The keys in use, shared by all threads that seal or open; none before the Secret was read for the first time.
pub type Keys = Arc<RwLock<Option<Arc<Keyring>>>>;

/// The keys in force.
pub fn current(keys: &Keys) -> Result<Arc<Keyring>, SealError> {
    keys.read().ok().and_then(|keys| keys.clone()).ok_or(SealError::NoKey)
}

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
    inbox: Inbox,
    lans: Vec<lan::Lan>,
    disks: Vec<disk::SharedDisk>,
    quorum: Option<quorum::QuorumServer>,
}

impl Paths {
    /// No path yet.
    pub fn new(keys: Keys, inbox: Inbox) -> Paths {
        Paths { keys, inbox, lans: Vec::new(), disks: Vec::new(), quorum: None }
    }

    /// Brings the paths to this wiring; those that don't change go on undisturbed.
    pub fn rewire(&mut self, wiring: &Wiring) {
        self.lans.retain(|lan| wiring.lans.contains(lan.wiring()));
        self.disks.retain(|disk| wiring.disks.contains(disk.wiring()));
        self.quorum = self.quorum.take().filter(|server| wiring.quorum.as_ref() == Some(server.wiring()));
        if let (None, Some(wanted)) = (&self.quorum, &wiring.quorum) {
            match quorum::QuorumServer::start(wanted.clone(), self.inbox.clone()) {
                Ok(started) => self.quorum = Some(started),
                Err(e) => tracing::error!("the quorum server can't be used: {e}"),
            }
        }
        for lan in &wiring.lans {
            if !self.lans.iter().any(|have| have.wiring() == lan) {
                match lan::Lan::start(wiring.me.clone(), lan.clone(), self.keys.clone(), self.inbox.clone()) {
                    Ok(started) => self.lans.push(started),
                    Err(e) => tracing::error!(path = %lan.name, "the LAN path can't be used: {e}"),
                }
            }
        }
        for disk in &wiring.disks {
            if !self.disks.iter().any(|have| have.wiring() == disk) {
                match disk::SharedDisk::start(&wiring.me, disk.clone(), self.keys.clone(), self.inbox.clone()) {
                    Ok(started) => self.disks.push(started),
                    Err(e) => tracing::error!(disk = disk.disk, "the shared disk can't be used: {e}"),
                }
            }
        }
    }

    /// Sends a heartbeat to everybody on every path: sealed once per path, never waiting for any of them.
    pub fn heartbeat(&self, frame: &Frame) -> Result<(), SendError> {
        let keys = current(&self.keys)?;
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
        let keys = current(&self.keys)?;
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

    /// What is wrong with a LAN path here, by name; absent if it can be used.
    pub fn lan_errors(&self) -> BTreeMap<PathName, String> {
        self.lans.iter().filter_map(|lan| Some((lan.wiring().name.clone(), lan.error()?))).collect()
    }
}
