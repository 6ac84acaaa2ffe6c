//! Making an area, and looking at one with every daemon down: what `holdfast disk format` and `disk inspect` do.
//!
//! Formatting destroys what a disk held, so it looks first, and it makes a new lock identity every time.

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_core::names::AcceptorId;

use super::area::{Area, AreaError};
use super::device::{Access, Device, DeviceError};
use super::layout::{self, AREA, BLOCK, Header, Ring, SLOTS};

/// Whether to format over something that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    No,
    /// The person named what is to be destroyed.
    Yes,
}

/// Why an area was not made.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// There is something on it.
    #[error(
        "{path} holds {found} at byte {at}; formatting destroys it. If that is what you want, say so explicitly, \
         else choose another partition or offset"
    )]
    Occupied {
        /// The device.
        path: String,
        /// What was found.
        found: String,
        /// Where.
        at: u64,
    },
    /// Too small.
    #[error(
        "{path} ends at byte {end}, the area from byte {offset} needs {AREA} bytes; enlarge it or lower the offset"
    )]
    TooSmall {
        /// The device.
        path: String,
        /// Its size.
        end: u64,
        /// Where the area was to begin.
        offset: u64,
    },
    /// No random numbers for the identity.
    #[error(transparent)]
    Random(#[from] crate::boot::BootError),
}

/// Makes an area at `offset` of a device and returns its header. With [`Force::No`], refuses if a file system, a
/// partition table, a volume or an area is found where the area would be, or at the beginning of the device when that
/// makes the offset part of it.
pub fn format(path: &Path, offset: u64, force: Force) -> Result<Header, FormatError> {
    let lock = AcceptorId(crate::boot::random_id()?);
    let mut device = Device::open(path, offset, Access::Write)?;
    let end = device.size()?;
    if offset.checked_add(AREA).is_none_or(|needed| needed > end) {
        return Err(FormatError::TooSmall { path: path.display().to_string(), end, offset });
    }
    if force == Force::No
        && let Some((found, at)) = occupied(path, offset)?
    {
        return Err(FormatError::Occupied { path: path.display().to_string(), found, at });
    }
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let header = Header { lock, created, size: AREA };
    // The old headers go first and the new ones come last: an interrupted format is no area.
    let empty = vec![0; layout::SLOT_BLOCKS * BLOCK];
    for slot in 0..=SLOTS {
        device.write(layout::beat_at(slot), &empty)?;
    }
    device.write(layout::header_at(1), &header.encode(1))?;
    device.write(layout::header_at(0), &header.encode(0))?;
    Ok(header)
}

/// Something that a disk may hold: name, position of its magic from the beginning of its region, the magic.
const SIGNATURES: &[(&str, u64, &[u8])] = &[
    ("an ext2, ext3 or ext4 file system", 0x438, &[0x53, 0xef]),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("swap space", BLOCK as u64 - 10, b"SWAPSPACE2"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an encrypted volume (LUKS)", 0, b"LUKS\xba\xbe"),
    ("a member of a software RAID", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("an NTFS file system", 3, b"NTFS    "),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an MBR partition table or a FAT file system", 510, &[0x55, 0xaa]),
];

/// What would be destroyed. An area at an offset may lie on a data disk on purpose (the offset is kept free), so only
/// its own region is looked at then.
fn occupied(path: &Path, offset: u64) -> Result<Option<(String, u64)>, FormatError> {
    if let Ok(area) = Area::open(path, offset, Access::Read) {
        return Ok(Some((format!("a Holdfast area (lock {})", area.header().lock), offset)));
    }
    let mut device = Device::open(path, offset, Access::Read)?;
    let length = AREA as usize;
    let bytes = device.read(0, length)?;
    for (name, at, magic) in SIGNATURES {
        let at = *at as usize;
        if bytes.get(at..at + magic.len()) == Some(magic) {
            return Ok(Some(((*name).to_owned(), offset + at as u64)));
        }
    }
    if offset > 0
        && let Some(at) = bytes.iter().position(|b| *b != 0)
    {
        // Inside a data disk anything but zeros may be somebody's data.
        return Ok(Some(("data".to_owned(), offset + at as u64)));
    }
    Ok(None)
}

/// What stands in an area, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its header.
    pub header: Header,
    /// What was ever written, by slot.
    pub slots: Vec<Slot>,
}

/// One slot of an [`Inspection`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its number (`servers[].id`).
    pub slot: u8,
    /// Counter and size of its heartbeat. The heartbeat itself is sealed with the sub-cluster's key.
    pub beat: Option<(u64, usize)>,
    /// Its ring.
    pub ring: Ring,
}

/// Reads everything of an area; slots that were never written are left out.
pub fn inspect(path: &Path, offset: u64) -> Result<Inspection, AreaError> {
    let mut area = Area::open(path, offset, Access::Read)?;
    let mut slots = Vec::new();
    for slot in 1..=SLOTS {
        let beat = area.read_beat(slot)?.map(|beat| (beat.counter, beat.payload.len()));
        let ring = area.read_ring(slot)?;
        if beat.is_some() || ring != Ring::Blank {
            slots.push(Slot { slot, beat, ring });
        }
    }
    Ok(Inspection { header: area.header(), slots })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "lock {}, formatted {} s after 1970, {} bytes",
            self.header.lock, self.header.created, self.header.size
        )?;
        for slot in &self.slots {
            write!(f, "slot {}: ", slot.slot)?;
            match slot.beat {
                Some((counter, size)) => write!(f, "heartbeat {counter} of {size} bytes; ")?,
                None => write!(f, "no heartbeat; ")?,
            }
            match &slot.ring {
                Ring::Blank => writeln!(f, "ring never written")?,
                Ring::Newest(r) => writeln!(
                    f,
                    "boot {} record {}: sub-cluster {}, lineage {} epoch {}, ballot {}.{}, lean counter {}, newest view {}.{}",
                    r.boot_counter,
                    r.sequence,
                    r.cluster,
                    r.lineage,
                    r.epoch,
                    r.ballot.round,
                    r.ballot.proposer,
                    r.lean,
                    r.view.lineage,
                    r.view.epoch
                )?,
                Ring::Damaged(bad) => {
                    let reasons: Vec<_> = bad.iter().map(|(at, reason)| format!("block {at}: {reason}")).collect();
                    writeln!(f, "DAMAGED, no vote: {}", reasons.join("; "))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn blank(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    #[test]
    fn what_mkfs_made_is_not_destroyed_unless_told() {
        let file = blank(8 << 20);
        let made = std::process::Command::new("mkfs.ext4").arg("-qF").arg(file.path()).status();
        assert!(made.is_ok_and(|s| s.success()), "mkfs.ext4 is part of every Debian system");
        let error = format(file.path(), 0, Force::No).unwrap_err().to_string();
        assert!(error.contains("ext4") && error.contains("destroys"), "{error}");
        format(file.path(), 0, Force::Yes).unwrap();
        let again = format(file.path(), 0, Force::No).unwrap_err().to_string();
        assert!(again.contains("a Holdfast area"), "{again}");
    }

    #[test]
    fn partition_tables_and_foreign_data_are_found_at_an_offset_too() {
        let file = blank(8 << 20);
        file.as_file().write_all_at(&[0x55, 0xaa], 510).unwrap();
        assert!(matches!(format(file.path(), 0, Force::No), Err(FormatError::Occupied { at: 510, .. })));
        // The gap before the first partition is what an offset is for.
        format(file.path(), 1 << 20, Force::No).unwrap();
        file.as_file().write_all_at(b"rows of a table", 5 << 20).unwrap();
        assert!(matches!(format(file.path(), 4 << 20, Force::No), Err(FormatError::Occupied { .. })));
        assert!(matches!(format(file.path(), 7 << 20, Force::No), Err(FormatError::TooSmall { .. })));
        let odd = format(file.path(), 100, Force::No).unwrap_err().to_string();
        assert!(odd.contains("multiple of 4096"), "{odd}");
    }

    #[test]
    fn an_inspection_tells_slots_apart() {
        let file = blank(2 << 20);
        let header = format(file.path(), 0, Force::No).unwrap();
        let mut area = Area::open(file.path(), 0, Access::Write).unwrap();
        area.write_beat(2, 41, b"x").unwrap();
        file.as_file().write_all_at(b"rubbish", layout::ring_at(3)).unwrap();
        let text = inspect(file.path(), 0).unwrap().to_string();
        assert!(text.contains(&header.lock.to_string()), "{text}");
        assert!(text.contains("slot 2: heartbeat 41 of 1 bytes; ring never written"), "{text}");
        assert!(text.contains("slot 3: no heartbeat; DAMAGED, no vote: block 0: no Holdfast block"), "{text}");
    }
}
