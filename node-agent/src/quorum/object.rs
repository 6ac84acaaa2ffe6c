//! The state of a lock in the annotation of a Lease, and what one swap does to it (R5). Pure: text in, text out.
//!
//! One state for everybody: identity, a counter, the newest view, and per server its ballot, its accepted pair and its
//! lean counter. Invariants:
//! - the identity is the uid that the API server gave to the Lease: who creates it again creates another lock, and a
//!   state that was copied from another object is refused (protocol-why D9);
//! - every swap raises the counter, a mere look, too: so a swap whose answer was lost has landed before the next one
//!   or never will, and a lock that was put back to an older state shows it;
//! - what a server wrote for a view older than the newest one here binds nobody any more: its accepted pair goes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use holdfast_core::lock::{LockLook, LockRecord};
use holdfast_core::names::{AcceptorId, ClusterId};
use holdfast_core::time::Instant;
use holdfast_core::view::{Ballot, Epoch, View};
use serde::{Deserialize, Serialize};

/// The annotation that holds the state.
pub const ANNOTATION: &str = "holdfast.dev/lock";
/// State of a lock that nobody has used.
pub const BLANK: &str = "1:blank";
/// Version of the text form.
const VERSION: &str = "1";
/// The longest state in bytes. A Kubernetes API server takes 256 KiB of annotations; the rest is for others.
pub const MAX_TEXT: usize = 240 << 10;

/// Why a state can't be used, or a record not be put into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// Made by a version that this one can't read, or no state at all.
    #[error("annotation {ANNOTATION} begins with {0:?}; this program knows version {VERSION}")]
    Version(String),
    /// Changed by somebody else.
    #[error("annotation {ANNOTATION} is damaged: {0}; nobody but Holdfast may change it")]
    Damaged(String),
    /// Not the object that the state was written for.
    #[error("its state is a copy from the lock {0}; make a new lock with `holdfast lock create --replace`")]
    Copied(AcceptorId),
    /// Made again since the record was made.
    #[error("it is the lock {found}, not {wanted}: it was made anew")]
    Replaced {
        /// The lock that the record is for.
        wanted: AcceptorId,
        /// This one.
        found: AcceptorId,
    },
    /// Somebody else's.
    #[error("it is in use by the sub-cluster {0}; every sub-cluster needs a lock of its own")]
    Foreign(ClusterId),
    /// Too large for an API server.
    #[error("its state would have {0} bytes, at most {MAX_TEXT} are possible")]
    TooLarge(usize),
}

/// What stands there for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Boot counter of the writer.
    pub boot_counter: u64,
    /// Counts its writes.
    pub sequence: u64,
    /// Lineage of the writer.
    pub lineage: u32,
    /// Epoch that the rest belongs to.
    pub epoch: Epoch,
    /// Its highest ballot in that epoch; round 0: none.
    pub ballot: Ballot,
    /// What it accepted through the lock in that epoch.
    pub accepted: Option<(Ballot, View)>,
    /// Grows whenever it leans on the lock in that epoch; 0: never.
    pub lean: u64,
    /// The lineage that it is about to begin by a force-reinstate; 0: none.
    pub claim: u32,
}

/// The state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Identity.
    pub lock: AcceptorId,
    /// How often it was swapped.
    pub counter: u64,
    /// The newest view that any server brought; none: never used.
    pub view: Option<View>,
    /// By slot (`servers[].id`).
    pub entries: BTreeMap<u8, Entry>,
}

/// The form on the wire: a value that several servers accepted stands there once.
#[derive(Serialize, Deserialize)]
struct Wire {
    lock: AcceptorId,
    counter: u64,
    view: Option<View>,
    values: Vec<View>,
    entries: BTreeMap<u8, WireEntry>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    boot_counter: u64,
    sequence: u64,
    lineage: u32,
    epoch: Epoch,
    ballot: Ballot,
    accepted: Option<(Ballot, u8)>,
    lean: u64,
    claim: u32,
}

impl Object {
    /// Reads the annotation of the Lease with this uid.
    pub fn read(text: &str, uid: AcceptorId) -> Result<Object, BadObject> {
        let damaged = |why: &dyn std::fmt::Display| BadObject::Damaged(why.to_string());
        if text == BLANK {
            return Ok(Object { lock: uid, counter: 0, view: None, entries: BTreeMap::new() });
        }
        let mut parts = text.splitn(3, ':');
        let version = parts.next().unwrap_or_default();
        if version != VERSION {
            return Err(BadObject::Version(version.chars().take(16).collect()));
        }
        let sum = parts.next().and_then(|sum| u32::from_str_radix(sum, 16).ok()).ok_or_else(|| damaged(&"no sum"))?;
        let bytes = STANDARD_NO_PAD.decode(parts.next().unwrap_or_default()).map_err(|e| damaged(&e))?;
        if crc32c::crc32c(&bytes) != sum {
            return Err(damaged(&"the check sum differs"));
        }
        let wire: Wire = postcard::from_bytes(&bytes).map_err(|e| damaged(&e))?;
        if wire.lock != uid {
            return Err(BadObject::Copied(wire.lock));
        }
        let mut entries = BTreeMap::new();
        for (slot, e) in wire.entries {
            let accepted = match e.accepted {
                None => None,
                Some((ballot, index)) => {
                    let value = wire.values.get(usize::from(index)).ok_or_else(|| damaged(&"a value is missing"))?;
                    Some((ballot, value.clone()))
                }
            };
            let WireEntry { boot_counter, sequence, lineage, epoch, ballot, lean, claim, .. } = e;
            entries.insert(slot, Entry { boot_counter, sequence, lineage, epoch, ballot, accepted, lean, claim });
        }
        Ok(Object { lock: wire.lock, counter: wire.counter, view: wire.view, entries })
    }

    /// The text for the annotation.
    pub fn text(&self) -> Result<String, BadObject> {
        let mut values: Vec<View> = Vec::new();
        let mut place = |view: &View| {
            let known = values.iter().position(|value| value == view).unwrap_or_else(|| {
                values.push(view.clone());
                values.len() - 1
            });
            // At most one value per slot, and slots are numbers below 256.
            u8::try_from(known).unwrap_or(u8::MAX)
        };
        let entries = self.entries.iter().map(|(slot, e)| {
            let accepted = e.accepted.as_ref().map(|(ballot, view)| (*ballot, place(view)));
            let Entry { boot_counter, sequence, lineage, epoch, ballot, lean, claim, .. } = e.clone();
            (*slot, WireEntry { boot_counter, sequence, lineage, epoch, ballot, accepted, lean, claim })
        });
        let entries = entries.collect();
        let wire = Wire { lock: self.lock, counter: self.counter, view: self.view.clone(), values, entries };
        let bytes = postcard::to_stdvec(&wire).map_err(|e| BadObject::Damaged(e.to_string()))?;
        let text = format!("{VERSION}:{:08x}:{}", crc32c::crc32c(&bytes), STANDARD_NO_PAD.encode(&bytes));
        if text.len() > MAX_TEXT { Err(BadObject::TooLarge(text.len())) } else { Ok(text) }
    }

    /// R5: one swap by the server in `slot`: its record goes in, if it has one. What it may conclude is in
    /// [`Object::look`] of the same state. A foreign object is left as it is.
    pub fn swap(&mut self, slot: u8, record: Option<&LockRecord>) -> Result<(), BadObject> {
        if let Some(record) = record {
            if record.lock != self.lock {
                return Err(BadObject::Replaced { wanted: record.lock, found: self.lock });
            }
            if let Some(view) = self.view.as_ref().filter(|view| view.cluster != record.cluster) {
                return Err(BadObject::Foreign(view.cluster));
            }
            self.put(slot, record);
        }
        self.counter += 1;
        Ok(())
    }

    fn put(&mut self, slot: u8, record: &LockRecord) {
        let LockRecord { boot_counter, sequence, lineage, epoch, ballot, lean, claim, .. } = *record;
        let accepted = record.accepted.clone();
        self.entries.insert(slot, Entry { boot_counter, sequence, lineage, epoch, ballot, accepted, lean, claim });
        let newest = self.view.as_ref().map(View::order).max(Some(record.view.order()));
        if self.view.as_ref().map(View::order) != newest {
            self.view = Some(record.view.clone());
        }
        for entry in self.entries.values_mut() {
            if Some((entry.lineage, entry.epoch)) < newest {
                entry.accepted = None;
            }
        }
    }

    /// What the core is told: every record with the newest view, so that whoever is behind learns it from any.
    pub fn look(&self, completed: Instant) -> LockLook {
        let records = self.view.iter().flat_map(|view| {
            self.entries.iter().map(move |(slot, e)| {
                let record = LockRecord {
                    cluster: view.cluster,
                    lock: self.lock,
                    boot_counter: e.boot_counter,
                    sequence: e.sequence,
                    lineage: e.lineage,
                    epoch: e.epoch,
                    ballot: e.ballot,
                    accepted: e.accepted.clone(),
                    lean: e.lean,
                    claim: e.claim,
                    view: view.clone(),
                };
                (*slot, record)
            })
        });
        let records = records.collect();
        LockLook { lock: self.lock, counter: Some(self.counter), records, damaged: Vec::new(), completed }
    }

    /// For people, in the column HOLDER of a list: who is in the newest view.
    pub fn holder(&self) -> Option<String> {
        let view = self.view.as_ref()?;
        let names: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
        Some(format!("{} (view {})", names.join(", "), view.epoch))
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
