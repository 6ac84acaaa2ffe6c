//! The heartbeat of a serial line: what fits into 64 bytes on the wire (protocol-why D32).
//!
//! A serial line connects two servers and is too slow for whole frames. It carries who speaks, which view that server
//! is in, what it heard and whether it holds nothing; no groups, no intents, no links, so nothing that a decision about
//! members or groups rests on. Whatever a compact frame says is true in the same words as in the frame that it was
//! made of, or older (times are rounded down to whole microseconds), so hearing one never allows more than hearing
//! the whole frame would.

use crate::core::Core;
use crate::frame::Frame;
use crate::names::{AcceptorId, BootId, PathName, ServerName};
use crate::peers::{Known, Word, moment};
use crate::time::Instant;
use crate::view::{Acceptor, Epoch};

/// Size of a compact frame, in bytes.
pub const COMPACT: usize = 49;

/// The part of a heartbeat that a serial line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compact {
    /// `servers[].id` of the sender, 1..16.
    pub id: u8,
    /// It holds no group.
    pub idle: bool,
    /// It runs on a virtual machine.
    pub is_virtual: bool,
    /// As in [`Frame`]; at most 32 bits.
    pub boot_counter: u64,
    /// [`BootId::folded`].
    pub boot: u64,
    /// [`AcceptorId::folded`].
    pub acceptor: u64,
    /// As in [`Frame`], rounded down to whole microseconds; at most 2^48 of them (8 years).
    pub sequence: u64,
    /// As in [`Frame`]; at most 16 bits.
    pub lineage: u32,
    /// As in [`Frame`]; at most 40 bits.
    pub epoch: Epoch,
    /// The receiver's newest sequence that arrived on this line, and its age in µs (at most 24 bits; more is cut).
    pub echo: Option<(u64, u32)>,
    /// [`crate::frame::Heard::granted`] for the receiver, rounded down to whole microseconds.
    pub granted: u64,
}

/// A number that a compact frame has no room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {found}; a compact frame has room for at most {allowed}")]
pub struct NoRoom {
    /// What it is.
    pub what: &'static str,
    /// Its value.
    pub found: u64,
    /// The greatest.
    pub allowed: u64,
}

/// Bytes that are no compact frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCompact {
    /// Too short or too long.
    #[error("{0} bytes instead of {COMPACT}")]
    Length(usize),
    /// No server has such a number.
    #[error("the server number {0}; they are 1..16")]
    Id(u8),
    /// An echo that isn't there has a value all the same.
    #[error("an echo where none is announced")]
    Echo,
}

const IDLE: u8 = 1 << 5;
const VIRTUAL: u8 = 1 << 6;
const ECHO: u8 = 1 << 7;

impl BootId {
    /// Its two halves combined: 64 bits, as random as the id itself.
    pub fn folded(self) -> u64 {
        fold(self.0)
    }
}

impl AcceptorId {
    /// Its two halves combined: 64 bits, as random as the id itself.
    pub fn folded(self) -> u64 {
        fold(self.0)
    }
}

fn fold(id: u128) -> u64 {
    (id >> 64) as u64 ^ id as u64
}

/// Whole microseconds, in ns.
fn whole(sequence: u64) -> u64 {
    sequence / 1000 * 1000
}

impl Compact {
    /// What `frame` says to `to` on the serial line `path`.
    pub fn of(frame: &Frame, to: &ServerName, path: &PathName) -> Compact {
        let heard = frame.heard.get(to);
        Compact {
            id: frame.id,
            idle: frame.held.is_empty(),
            is_virtual: frame.is_virtual,
            boot_counter: frame.boot_counter,
            boot: frame.boot.folded(),
            acceptor: frame.acceptor.folded(),
            sequence: whole(frame.sequence),
            lineage: frame.lineage,
            epoch: frame.epoch,
            echo: heard.and_then(|heard| heard.paths.get(path)).map(|(seq, age)| (whole(*seq), (*age).min(0xff_ffff))),
            granted: heard.map_or(0, |heard| whole(heard.granted)),
        }
    }

    /// Its bytes, little-endian: number and flags 1, boot counter 4, boot 8, acceptor 8, sequence 6, lineage 2,
    /// epoch 5, echo 6, its age 3, grant 6. Times are in µs.
    pub fn encode(&self) -> Result<[u8; COMPACT], NoRoom> {
        let flags = [(self.idle, IDLE), (self.is_virtual, VIRTUAL), (self.echo.is_some(), ECHO)];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
        let (echo, age) = self.echo.unwrap_or_default();
        let mut out = [0; COMPACT];
        let mut at = 0;
        for (what, value, bytes) in [
            ("the server number", u64::from(self.id), 1),
            ("the boot counter", self.boot_counter, 4),
            ("the boot", self.boot, 8),
            ("the acceptor", self.acceptor, 8),
            ("the uptime in µs", self.sequence / 1000, 6),
            ("the lineage", u64::from(self.lineage), 2),
            ("the epoch", self.epoch, 5),
            ("the echo in µs", echo / 1000, 6),
            ("the age of the echo in µs", u64::from(age), 3),
            ("the grant in µs", self.granted / 1000, 6),
        ] {
            let allowed = if at == 0 { 16 } else { u64::MAX >> (64 - 8 * bytes) };
            if value > allowed {
                return Err(NoRoom { what, found: value, allowed });
            }
            out[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            at += bytes;
        }
        out[0] |= flags;
        Ok(out)
    }

    /// Reads what [`Compact::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Compact, NotCompact> {
        if bytes.len() != COMPACT {
            return Err(NotCompact::Length(bytes.len()));
        }
        let mut at = 0;
        let mut next = |length: usize| {
            let value = bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            at += length;
            value
        };
        let head = next(1) as u8;
        let id = head & !(IDLE | VIRTUAL | ECHO);
        if !(1..=16).contains(&id) {
            return Err(NotCompact::Id(id));
        }
        let (boot_counter, boot, acceptor, sequence) = (next(4), next(8), next(8), next(6) * 1000);
        let (lineage, epoch) = (next(2) as u32, next(5));
        let (echo, age, granted) = (next(6) * 1000, next(3) as u32, next(6) * 1000);
        if head & ECHO == 0 && (echo, age) != (0, 0) {
            return Err(NotCompact::Echo);
        }
        Ok(Compact {
            id,
            idle: head & IDLE != 0,
            is_virtual: head & VIRTUAL != 0,
            boot_counter,
            boot,
            acceptor,
            sequence,
            lineage,
            epoch,
            echo: (head & ECHO != 0).then_some((echo, age)),
            granted,
        })
    }
}

impl Core {
    /// Takes a heartbeat of a serial line: a sign of life, echoes, and the evidence that it carries.
    pub(crate) fn hear_compact(&mut self, path: PathName, compact: Compact) {
        let now = self.now;
        let Some(config) = self.config.clone() else { return };
        let sender = config.servers.iter().find(|(_, id)| **id == compact.id);
        let Some(from) = sender.map(|(name, _)| name.clone()).filter(|name| *name != self.boot.server) else { return };
        if config.paths.get(&path) != Some(&crate::config::PathKind::Serial) {
            return;
        }
        let peer = self.peers.entry(from.clone()).or_default();
        let known = Known { counter: compact.boot_counter, boot: compact.boot, acceptor: compact.acceptor };
        if !peer.meets(known, &path, compact.sequence, now, config.timeout) {
            return;
        }
        peer.compact = Some(compact);
        let hearing = peer.hearing(&path, now);
        hearing.arrived(now, compact.sequence, config.interval, config.timeout);
        if let Some((sequence, age)) = compact.echo {
            hearing.echo(now, sequence, age);
        }
        let life = peer.lives(moment(compact.sequence), now);
        let order = (compact.lineage, compact.epoch);
        if let Some(view) = &self.durable.view {
            let acceptor = view.acceptors.get(&Acceptor::Server(from.clone()));
            let word = Word {
                order,
                admitted: view.members.get(&from).is_some_and(|member| member.boot.folded() == compact.boot),
                votes: acceptor.is_some_and(|acceptor| acceptor.folded() == compact.acceptor),
                sequence: compact.sequence,
                granted: Some(Instant(compact.granted)),
            };
            self.acknowledge(&from, &word);
        }
        if life {
            // A whole frame of the same boot says that it is of our sub-cluster; a compact one does not name it.
            let whole = self.peers.get(&from).and_then(|peer| peer.frame.as_ref());
            let ours = whole.is_some_and(|frame| frame.boot.folded() == compact.boot);
            let is = |boot: BootId| boot.folded() == compact.boot;
            self.watch_departed(&from, is, order, compact.idle && ours, compact.is_virtual);
            self.compare_knowledge(&from, order);
        }
    }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
