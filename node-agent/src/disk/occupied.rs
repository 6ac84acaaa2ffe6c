//! What stands where an area is to be made: what a format would destroy, and whether somebody lives there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::area::{Area, AreaError};
use super::device::{Access, Device, DeviceError};
use super::layout::{AREA, BLOCK, Ring, SLOTS};

/// How long heartbeats in an area are watched: the longest heartbeat interval of the API (10 s) and two more seconds.
const WATCH: Duration = Duration::from_secs(12);
/// Bytes from the beginning of a device that hold every superblock below.
const HEAD: usize = 0x1_1000;

/// Something that a disk may hold: name, position of its magic from the beginning of its region, the magic.
const SIGNATURES: &[(&str, usize, &[u8])] = &[
    ("an ext2, ext3 or ext4 file system", 0x438, &[0x53, 0xef]),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("swap space", BLOCK - 10, b"SWAPSPACE2"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an encrypted volume (LUKS)", 0, b"LUKS\xba\xbe"),
    ("a member of a software RAID", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("an NTFS file system", 3, b"NTFS    "),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an MBR partition table or a FAT file system", 510, &[0x55, 0xaa]),
];

/// The first thing whose magic stands in `bytes`, and where.
fn signature(bytes: &[u8]) -> Option<(&'static str, usize)> {
    let found = SIGNATURES.iter().find(|(_, at, magic)| bytes.get(*at..*at + magic.len()) == Some(magic));
    found.map(|(name, at, _)| (*name, *at))
}

/// What a format of the area at `offset` would destroy, and the byte of the device at which it stands.
pub(super) fn by_data(path: &Path, offset: u64) -> Result<Option<(String, u64)>, DeviceError> {
    let mut device = Device::open(path, offset, Access::Read)?;
    let bytes = device.read(0, AREA as usize)?;
    if let Some((name, at)) = signature(bytes) {
        return Ok(Some((name.to_owned(), offset + at as u64)));
    }
    if offset > 0
        && let Some(at) = bytes.iter().position(|b| *b != 0)
    {
        // Inside a data disk anything but zeros may be somebody's data.
        return Ok(Some(("data".to_owned(), offset + at as u64)));
    }
    Ok(None)
}

/// Whose place it is although it is empty: free blocks of a file system that begins at the start of the device, or a
/// partition. An area at an offset lives on a data disk for ever, so this is looked at again whenever one is opened
/// for writing: a file system may have been grown over it.
pub(super) fn by_neighbour(path: &Path, offset: u64) -> Result<Option<(String, u64)>, DeviceError> {
    if offset == 0 {
        return Ok(None);
    }
    let mut device = Device::open(path, 0, Access::Read)?;
    // Whoever is at the start has at least its superblock there; a smaller device has no room for an area either.
    let length = usize::try_from(device.size()?).unwrap_or(HEAD).min(HEAD) / BLOCK * BLOCK;
    let found = reaching(device.read(0, length)?).filter(|(_, end)| *end > offset);
    let found = found.map(|(name, end)| {
        let reach = if end == u64::MAX { "as far as can be told to the end".into() } else { format!("to byte {end}") };
        (format!("{name} that reaches from the start of the device {reach}"), 0)
    });
    Ok(found.or_else(|| partition(path, offset)))
}

/// What begins at the start of a device, and the byte at which it ends; `u64::MAX` where only its own tools know.
/// Partition tables end at once: the kernel tells where partitions are.
fn reaching(head: &[u8]) -> Option<(&'static str, u64)> {
    let (name, _) = signature(head)?;
    let little = |at: usize, size: usize| {
        let bytes = head.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let big = |at: usize, size: usize| {
        let bytes = head.get(at..at + size).unwrap_or_default();
        bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let end = match name {
        // The superblock is at 1024: block count at 4, its upper half at 0x150 with the feature 64bit (0x80 of the
        // incompatible features at 0x60), block size 1024 << the number at 24. Source: the kernel's documentation
        // of ext4, "Super Block".
        name if name.contains("ext4") => {
            let wide = little(1024 + 0x60, 4) & 0x80 != 0;
            let blocks = little(1024 + 4, 4) | if wide { little(1024 + 0x150, 4) << 32 } else { 0 };
            let size = 1024u64.checked_shl(little(1024 + 24, 4).try_into().unwrap_or(u32::MAX));
            size.and_then(|size| size.checked_mul(blocks))
        }
        // sb_blocksize at 4, sb_dblocks at 8, big-endian (XFS Algorithms & Data Structures, "Superblocks").
        name if name.contains("XFS") => big(4, 4).checked_mul(big(8, 8)),
        // The superblock is at 64 KiB; in it, at 0xc9, this device's item: its size after its 8-byte number (btrfs
        // on-disk format, "Superblock").
        name if name.contains("btrfs") => Some(little(0x1_0000 + 0xc9 + 8, 8)),
        name if name.contains("partition table") => Some(0),
        _ => None,
    };
    Some((name, end.unwrap_or(u64::MAX)))
}

/// The partition of a whole disk that the area would lie in, by the kernel's word.
fn partition(path: &Path, offset: u64) -> Option<(String, u64)> {
    let number = fs::metadata(path).ok()?.rdev();
    let disk = format!("/sys/dev/block/{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
    for entry in fs::read_dir(disk).ok()?.flatten() {
        // Both are in units of 512 bytes whatever the sectors are (the kernel's ABI, sysfs-block).
        let value = |name: &str| fs::read_to_string(entry.path().join(name)).ok()?.trim().parse::<u64>().ok();
        let (Some(_), Some(start), Some(size)) = (value("partition"), value("start"), value("size")) else { continue };
        let (start, end) = (start * 512, (start + size) * 512);
        if start < offset + AREA && offset < end {
            return Some((format!("the partition {}", entry.file_name().to_string_lossy()), start));
        }
    }
    None
}

/// Who may be living in the area that is there. Heartbeats that move are a proof of life; but a sub-cluster that is
/// content writes nothing to its lock for days, so one that was not shut down as a whole counts as alive.
pub(super) fn resident(area: &mut Area) -> Result<Option<String>, AreaError> {
    let mut newest: BTreeMap<_, _> = BTreeMap::new();
    for slot in 1..=SLOTS {
        if let Ring::Newest(record) = area.read_ring(slot)? {
            newest.insert(record.view.order(), record);
        }
    }
    if let Some(((lineage, epoch), record)) = newest.pop_last()
        && !record.view.stopped
    {
        let members: Vec<String> = record.view.members.keys().map(ToString::to_string).collect();
        let members = members.join(", ");
        return Ok(Some(format!("the sub-cluster {} (view {lineage}.{epoch} of {members})", record.cluster)));
    }
    let first = beats(area)?;
    let began = Instant::now();
    while !first.is_empty() && began.elapsed() < WATCH {
        std::thread::sleep(Duration::from_millis(200));
        let now = beats(area)?;
        if let Some((slot, _)) = now.iter().find(|(slot, counter)| first.get(slot) != Some(counter)) {
            return Ok(Some(format!("a sub-cluster whose server with id {slot} writes heartbeats at this moment")));
        }
    }
    Ok(None)
}

/// The counter of every slot's heartbeat.
fn beats(area: &mut Area) -> Result<BTreeMap<u8, u64>, AreaError> {
    let mut found = BTreeMap::new();
    for slot in 1..=SLOTS {
        if let Some(beat) = area.read_beat(slot)? {
            found.insert(slot, beat.counter);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn image(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    /// Makes a file system of 320 MiB at the start of a larger image.
    fn made(program: &str, arguments: &[&str], trailing: &[&str]) -> tempfile::NamedTempFile {
        let file = image(336 << 20);
        let made = Command::new(program).args(arguments).arg(file.path()).args(trailing).output().unwrap();
        assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
        file
    }

    #[test]
    fn free_blocks_of_a_file_system_are_its_own_and_what_lies_behind_it_is_free() {
        let systems = [
            ("ext4", made("mkfs.ext4", &["-qF"], &["320m"])),
            ("XFS", made("mkfs.xfs", &["-q", "-d", "size=320m"], &[])),
            ("btrfs", made("mkfs.btrfs", &["-q", "-b", "320m"], &[])),
        ];
        for (name, file) in systems {
            let (found, _) = by_neighbour(file.path(), 318 << 20).unwrap().expect(name);
            assert!(found.contains(name) && found.contains("to byte 335544320"), "{found}");
            assert_eq!(by_neighbour(file.path(), 320 << 20).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn what_has_no_size_that_we_can_read_owns_the_device() {
        let file = image(8 << 20);
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), b"LABELONE", 512).unwrap();
        let (found, _) = by_neighbour(file.path(), 4 << 20).unwrap().expect("a physical volume");
        assert!(found.contains("LVM") && found.contains("to the end"), "{found}");
    }
}
