//! What is read from and written to a formatted area: heartbeats and lock records of one slot, looks at all.
//!
//! One operation at a time per area, in the order of the calls: the caller owns it, so two writes are never in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_core::lock::{LockLook, LockRecord};
use holdfast_core::names::AcceptorId;

use super::device::{Access, Device, DeviceError};
use super::layout::{self, BEAT_BLOCKS, BLOCK, BadBlock, Beat, Header, RING, Ring, TooLarge};
use super::occupied;

/// Why an access to an area failed.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Something else has grown over it.
    #[error(
        "the area at byte {offset} of {path} is no longer kept free: there is {found}; nothing is written to it. Make \
         that smaller, or make an area elsewhere and name it in spec.disks[].area"
    )]
    Overgrown {
        /// The device.
        path: String,
        /// Where the area begins.
        offset: u64,
        /// What reaches into it.
        found: String,
    },
    /// Neither copy of the header can be read.
    #[error(
        "{path} holds no Holdfast area (first copy: {first}; second copy: {second}); format it with \
         `holdfast disk format`, once, from one server"
    )]
    NotFormatted {
        /// The device.
        path: String,
        /// What is wrong with the first copy.
        first: BadBlock,
        /// What is wrong with the second copy.
        second: BadBlock,
    },
    /// The copies of the header are both valid and differ.
    #[error(
        "the two headers on {path} name different locks ({first} and {second}); it was overwritten in part: find out \
         by what, then format it anew"
    )]
    Split {
        /// The device.
        path: String,
        /// In the first copy.
        first: AcceptorId,
        /// In the second copy.
        second: AcceptorId,
    },
    /// Formatted anew since it was opened.
    #[error("the area was formatted anew: it was the lock {before}, it is {after}")]
    Replaced {
        /// At opening.
        before: AcceptorId,
        /// Now.
        after: AcceptorId,
    },
    /// The device confirmed a write and reads something else.
    #[error(
        "the disk confirmed a write into the lock ring of slot {slot} and does not give it back: it reads {found}, \
         record {written} was written; its writes are lost or late, so the lock gives no vote"
    )]
    Lost {
        /// The slot.
        slot: u8,
        /// Sequence of the record.
        written: u64,
        /// What is read.
        found: String,
    },
    /// The same, of a trial.
    #[error("the disk confirmed a write and does not give it back: its writes are lost or late")]
    Forgotten,
    /// A record that doesn't fit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// An open, formatted area.
#[derive(Debug)]
pub struct Area {
    device: Device,
    path: String,
    header: Header,
}

impl Area {
    /// Opens the area at `offset` of a device. For writing, only if nothing else claims its place: a file system on a
    /// data disk may have been grown over an area behind it.
    pub fn open(path: &Path, offset: u64, access: Access) -> Result<Area, AreaError> {
        if access == Access::Write
            && let Some((found, _)) = occupied::by_neighbour(path, offset)?
        {
            return Err(AreaError::Overgrown { path: path.display().to_string(), offset, found });
        }
        let mut device = Device::open(path, offset, access)?;
        let path = path.display().to_string();
        let header = read_header(&mut device, &path)?;
        Ok(Area { device, path, header })
    }

    /// Its header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Writes the heartbeat of a slot.
    pub fn write_beat(&mut self, slot: u8, counter: u64, payload: &[u8]) -> Result<(), AreaError> {
        let blocks = Beat::encode(slot, self.header.lock, counter, payload)?;
        Ok(self.device.write(layout::beat_at(slot), &blocks)?)
    }

    /// The heartbeat in a slot; `None` if there is none or it was caught half written: silence, for this once.
    pub fn read_beat(&mut self, slot: u8) -> Result<Option<Beat>, AreaError> {
        let blocks = self.device.read(layout::beat_at(slot), BEAT_BLOCKS * BLOCK)?;
        Ok(Beat::decode(blocks, slot, self.header.lock).ok().flatten())
    }

    /// Writes a record into the ring of a slot; it is on the medium when this returns.
    pub fn write_lock(&mut self, slot: u8, record: &LockRecord) -> Result<(), AreaError> {
        let block = layout::encode_lock(slot, record)?;
        let at = layout::ring_at(slot) + (layout::ring_position(record.sequence) * BLOCK) as u64;
        Ok(self.device.write(at, &block)?)
    }

    /// Writes a record and looks at all of these slots, the own one among them (R4, R8). What the own ring gives back
    /// must be that record: a write that was confirmed and not made would let two servers each find the other's ballot
    /// missing, and both decide.
    pub fn write_then_look(
        &mut self,
        slot: u8,
        record: &LockRecord,
        slots: &BTreeSet<u8>,
    ) -> Result<LockLook, AreaError> {
        self.write_lock(slot, record)?;
        let look = self.look(slots)?;
        match look.records.get(&slot) {
            Some(found) if found == record => Ok(look),
            other => {
                let found = other.map_or_else(|| "none".to_owned(), |found| format!("record {}", found.sequence));
                Err(AreaError::Lost { slot, written: record.sequence, found })
            }
        }
    }

    /// Writes the block of a slot that is for nothing else, and reads it back. One at a time per server.
    pub fn try_out(&mut self, slot: u8, token: [u8; 16]) -> Result<(), AreaError> {
        let block = layout::encode_trial(slot, self.header.lock, token);
        self.device.write(layout::trial_at(slot), &block)?;
        if self.device.read(layout::trial_at(slot), BLOCK)? == block.as_slice() {
            return Ok(());
        }
        Err(AreaError::Forgotten)
    }

    /// What the ring of a slot says.
    pub fn read_ring(&mut self, slot: u8) -> Result<Ring, AreaError> {
        let bytes = self.device.read(layout::ring_at(slot), RING * BLOCK)?;
        Ok(layout::decode_ring(bytes, slot, self.header.lock))
    }

    /// Reads header and rings of these slots (R4, R8). The header is read again each time: a disk that was replaced or
    /// formatted under way is another acceptor (protocol-why D9).
    pub fn look(&mut self, slots: &BTreeSet<u8>) -> Result<LockLook, AreaError> {
        let header = read_header(&mut self.device, &self.path)?;
        if header.lock != self.header.lock {
            let before = std::mem::replace(&mut self.header, header).lock;
            return Err(AreaError::Replaced { before, after: header.lock });
        }
        let mut records = BTreeMap::new();
        let mut damaged = Vec::new();
        for slot in slots {
            match self.read_ring(*slot)? {
                Ring::Blank => {}
                Ring::Newest(record) => {
                    records.insert(*slot, *record);
                }
                Ring::Damaged(_) => damaged.push(*slot),
            }
        }
        Ok(LockLook { lock: header.lock, counter: None, records, damaged, completed: crate::clock::now() })
    }
}

/// Reads both copies of the header: one good copy suffices.
fn read_header(device: &mut Device, path: &str) -> Result<Header, AreaError> {
    let bytes = device.read(layout::header_at(0), 2 * BLOCK)?;
    let (first, second) = bytes.split_at(BLOCK);
    match (Header::decode(first, 0), Header::decode(second, 1)) {
        (Ok(a), Ok(b)) if a.lock != b.lock => {
            Err(AreaError::Split { path: path.to_owned(), first: a.lock, second: b.lock })
        }
        (Ok(header), _) | (_, Ok(header)) => Ok(header),
        (Err(first), Err(second)) => Err(AreaError::NotFormatted { path: path.to_owned(), first, second }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{Force, format};
    use super::super::layout::tests::record;
    use super::*;

    fn formatted() -> (tempfile::NamedTempFile, Area) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        format(file.path(), 0, Force::No).unwrap();
        let area = Area::open(file.path(), 0, Access::Write).unwrap();
        (file, area)
    }

    fn for_lock(area: &Area, sequence: u64) -> LockRecord {
        LockRecord { lock: area.header().lock, ..record(2, sequence) }
    }

    #[test]
    fn two_servers_see_each_others_records_and_heartbeats() {
        let (file, mut a) = formatted();
        let mut b = Area::open(file.path(), 0, Access::Write).unwrap();
        let slots = BTreeSet::from([1, 2]);
        assert!(a.look(&slots).unwrap().records.is_empty());
        for sequence in 1..=20 {
            a.write_lock(1, &for_lock(&a, sequence)).unwrap();
        }
        b.write_lock(2, &for_lock(&b, 1)).unwrap();
        let look = b.look(&slots).unwrap();
        assert_eq!((look.records[&1].sequence, look.records[&2].sequence), (20, 1));
        assert!(look.damaged.is_empty());
        a.write_beat(1, 1, b"one").unwrap();
        a.write_beat(1, 2, b"two").unwrap();
        assert_eq!(b.read_beat(1).unwrap().unwrap().payload, b"two");
        assert_eq!(b.read_beat(2).unwrap(), None);
    }

    #[test]
    fn a_write_that_the_disk_does_not_give_back_is_no_vote() {
        let (_file, mut area) = formatted();
        let slots = BTreeSet::from([1, 2]);
        let newest = for_lock(&area, 8);
        assert_eq!(area.write_then_look(1, &newest, &slots).unwrap().records[&1], newest);
        // As if the write had not been made: the ring reads what stood there before.
        let error = area.write_then_look(1, &for_lock(&area, 7), &slots).unwrap_err().to_string();
        assert!(error.contains("slot 1") && error.contains("reads record 8, record 7 was written"), "{error}");
    }

    #[test]
    fn a_lost_header_copy_is_survived_and_a_new_format_is_another_lock() {
        let (file, mut area) = formatted();
        let before = area.header().lock;
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &[0; 100], 0).unwrap();
        assert_eq!(Area::open(file.path(), 0, Access::Read).unwrap().header().lock, before);
        format(file.path(), 0, Force::Overwrite).unwrap();
        let error = area.look(&BTreeSet::from([1])).unwrap_err().to_string();
        assert!(error.contains(&before.to_string()), "{error}");
    }

    #[test]
    fn an_unformatted_disk_says_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        let error = Area::open(file.path(), 0, Access::Read).unwrap_err().to_string();
        assert!(error.contains("holdfast disk format"), "{error}");
    }
}
