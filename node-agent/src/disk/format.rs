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
use super::occupied;

/// Whether to format over something that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    No,
    /// Whatever is there is to be destroyed, except for an area that a sub-cluster may be using.
    Overwrite,
    /// That, too, if it is the lock of this identity: told twice, and by a name that only this area has.
    Discard(AcceptorId),
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
    /// The place belongs to something that goes on living beside the area, so no force helps.
    #[error(
        "{path} holds {found} (from byte {at}), which has this place, too; make that smaller or choose an offset behind it"
    )]
    Claimed {
        /// The device.
        path: String,
        /// What was found.
        found: String,
        /// Where it begins.
        at: u64,
    },
    /// A sub-cluster lives there.
    #[error(
        "{path} has an area at byte {at} that is used by {resident}; without it that sub-cluster has no lock and one path \
         less. Shut it down as a whole first, or, if it is gone for ever, name its lock: {lock}"
    )]
    InUse {
        /// The device.
        path: String,
        /// Where the area begins.
        at: u64,
        /// Who.
        resident: String,
        /// The lock that has to be named.
        lock: AcceptorId,
    },
    /// Another lock was named than the one that is there.
    #[error(
        "{path} holds the lock {found} at byte {at}, not {named}; look at it with `holdfast disk inspect` and name the right one"
    )]
    OtherLock {
        /// The device.
        path: String,
        /// Where the area begins.
        at: u64,
        /// What is there.
        found: AcceptorId,
        /// What was named.
        named: AcceptorId,
    },
    /// The area that is there can't be read.
    #[error(transparent)]
    Area(#[from] AreaError),
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
/// partition table, a volume or an area is found where the area would be, or if that place belongs to a file system at
/// the start of the device or to a partition. An area that a sub-cluster may be using takes [`Force::Discard`].
pub fn format(path: &Path, offset: u64, force: Force) -> Result<Header, FormatError> {
    let lock = AcceptorId(crate::boot::random_id()?);
    let mut device = Device::open(path, offset, Access::Write)?;
    let end = device.size()?;
    if offset.checked_add(AREA).is_none_or(|needed| needed > end) {
        return Err(FormatError::TooSmall { path: path.display().to_string(), end, offset });
    }
    refuse_occupied(path, offset, force)?;
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

/// What speaks against formatting here.
fn refuse_occupied(path: &Path, offset: u64, force: Force) -> Result<(), FormatError> {
    let (name, at) = (path.display().to_string(), offset);
    let occupied = |found, at| FormatError::Occupied { path: name.clone(), found, at };
    if let Ok(mut area) = Area::open(path, offset, Access::Read) {
        let lock = area.header().lock;
        return match force {
            Force::No => Err(occupied(format!("a Holdfast area (lock {lock})"), at)),
            Force::Discard(named) if named == lock => Ok(()),
            Force::Discard(named) => Err(FormatError::OtherLock { path: name, at, found: lock, named }),
            Force::Overwrite => match occupied::resident(&mut area)? {
                Some(resident) => Err(FormatError::InUse { path: name, at, resident, lock }),
                None => Ok(()),
            },
        };
    }
    if let Some((found, at)) = occupied::by_neighbour(path, offset)? {
        return Err(FormatError::Claimed { path: name, found, at });
    }
    let found = if force == Force::No { occupied::by_data(path, offset)? } else { None };
    found.map_or(Ok(()), |(found, at)| Err(occupied(found, at)))
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
        format(file.path(), 0, Force::Overwrite).unwrap();
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
    fn the_lock_of_a_sub_cluster_is_destroyed_only_when_it_is_named() {
        use super::super::layout::tests::record;
        let file = blank(2 << 20);
        let header = format(file.path(), 0, Force::No).unwrap();
        let mut area = Area::open(file.path(), 0, Access::Write).unwrap();
        let mut written = holdfast_core::lock::LockRecord { lock: header.lock, ..record(2, 1) };
        area.write_lock(1, &written).unwrap();
        let error = format(file.path(), 0, Force::Overwrite).unwrap_err().to_string();
        assert!(error.contains("is used by the sub-cluster") && error.contains(&header.lock.to_string()), "{error}");
        let other = format(file.path(), 0, Force::Discard(AcceptorId(1))).unwrap_err();
        assert!(matches!(other, FormatError::OtherLock { .. }), "{other}");
        assert_eq!(inspect(file.path(), 0).unwrap().header, header, "nothing was touched");
        format(file.path(), 0, Force::Discard(header.lock)).unwrap();

        // One that was shut down as a whole needs it no more.
        let header = inspect(file.path(), 0).unwrap().header;
        let mut area = Area::open(file.path(), 0, Access::Write).unwrap();
        (written.lock, written.view.stopped) = (header.lock, true);
        area.write_lock(1, &written).unwrap();
        format(file.path(), 0, Force::Overwrite).unwrap();
    }

    #[test]
    fn an_area_in_which_heartbeats_move_is_in_use() {
        let file = blank(2 << 20);
        format(file.path(), 0, Force::No).unwrap();
        let mut area = Area::open(file.path(), 0, Access::Write).unwrap();
        area.write_beat(2, 1, b"beat").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for counter in 2.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    area.write_beat(2, counter, b"beat").unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            });
            let error = format(file.path(), 0, Force::Overwrite).unwrap_err().to_string();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(error.contains("server with id 2 writes heartbeats"), "{error}");
        });
    }

    #[test]
    fn an_area_is_not_made_inside_a_file_system_and_not_used_when_one_grew_over_it() {
        let file = blank(32 << 20);
        let run = |program: &str, arguments: &[&str]| {
            let done = std::process::Command::new(program).args(arguments).output().unwrap();
            assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let path = file.path().to_str().unwrap();
        run("mkfs.ext4", &["-qF", path, "24m"]);
        let inside = format(file.path(), 20 << 20, Force::Overwrite).unwrap_err().to_string();
        assert!(inside.contains("ext4 file system that reaches") && inside.contains("to byte 25165824"), "{inside}");
        format(file.path(), 24 << 20, Force::No).unwrap();
        Area::open(file.path(), 24 << 20, Access::Write).unwrap();
        run("resize2fs", &[path, "30m"]);
        let grown = Area::open(file.path(), 24 << 20, Access::Write).unwrap_err().to_string();
        assert!(grown.contains("no longer kept free") && grown.contains("ext4"), "{grown}");
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
