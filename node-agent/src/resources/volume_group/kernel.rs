//! Which volumes of a volume group this kernel has, and taking them out of it. Device-mapper devices of LVM have the UUID
//! `LVM-` with 32 characters of the volume group's, 32 of the volume's, and for inner parts a dash and their kind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::tool;

const BLOCK: &str = "/sys/block";

/// A device of a volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Active {
    /// Name in /dev/mapper.
    pub(super) name: String,
    /// UUID of the volume, without dashes; with the kind behind it for inner parts.
    pub(super) volume: String,
    /// Major and minor number.
    pub(super) device: Option<(u32, u32)>,
    pub(super) place: PathBuf,
}

impl Active {
    /// Devices that are built on it.
    pub(super) fn holders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place.join("holders")).into_iter().flatten().flatten();
        entries.map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy())).collect()
    }
}

/// The devices of a volume group.
pub(super) fn active(group: &str) -> io::Result<Vec<Active>> {
    active_below(Path::new(BLOCK), group)
}

fn active_below(block: &Path, group: &str) -> io::Result<Vec<Active>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(block)? {
        let place = entry?.path();
        let read = |file: &str| fs::read_to_string(place.join(file)).map(|text| text.trim().to_owned());
        // Other devices have no such file; one that went meanwhile is not active.
        let Ok(uuid) = read("dm/uuid") else { continue };
        let Some(volume) = uuid.strip_prefix("LVM-").and_then(|rest| rest.strip_prefix(group)) else { continue };
        let device = read("dev").ok().and_then(|text| {
            let (major, minor) = text.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let name = read("dm/name").unwrap_or_default();
        found.push(Active { name, volume: volume.to_owned(), device, place });
    }
    Ok(found)
}

/// Removes all that is not in use; gives what is left. Volumes lie on each other (a snapshot on its origin), so it goes on as
/// long as one more can be removed.
pub(super) fn remove_all(group: &str) -> io::Result<Vec<Active>> {
    let mut left = active(group)?;
    loop {
        for volume in &left {
            // Without waiting for udev, which may be what hangs; that it worked is seen below.
            let _ = tool::run("dmsetup", &["remove", "--noudevsync", &volume.name], "");
        }
        let now = active(group)?;
        if now.is_empty() || now.len() == left.len() {
            return Ok(now);
        }
        left = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_told_by_the_uuid_that_the_kernel_shows() {
        let block = tempfile::tempdir().unwrap();
        let (group, other) = ("a".repeat(32), "b".repeat(32));
        for (device, uuid) in [
            ("dm-0", format!("LVM-{group}{}", "1".repeat(32))),
            ("dm-1", format!("LVM-{group}{}-real", "2".repeat(32))),
            ("dm-2", format!("LVM-{other}{}", "3".repeat(32))),
            ("dm-3", "CRYPT-LUKS2-x".to_owned()),
            ("vda", String::new()),
        ] {
            let place = block.path().join(device);
            fs::create_dir_all(place.join("dm")).unwrap();
            fs::write(place.join("dev"), "253:7\n").unwrap();
            fs::write(place.join("dm/name"), format!("vg-{device}\n")).unwrap();
            if device != "vda" {
                fs::write(place.join("dm/uuid"), format!("{uuid}\n")).unwrap();
            }
        }
        let mut found = active_below(block.path(), &group).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = found.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["vg-dm-0", "vg-dm-1"]);
        assert_eq!((found[0].volume.as_str(), found[0].device), ("1".repeat(32).as_str(), Some((253, 7))));
    }
}
