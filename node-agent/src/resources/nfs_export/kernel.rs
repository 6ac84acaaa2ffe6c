//! The kernel's NFS server, seen and told through its file system /proc/fs/nfsd (nfsd(7), and
//! Documentation/filesystems/nfs of Linux for `clients`, which Linux 5.3 and later have).

use std::fs;
use std::path::Path;

use crate::resources::mounts;

const NFSD: &str = "/proc/fs/nfsd";

/// How many threads serve; 0: it does not run.
pub(super) fn threads() -> u32 {
    let text = fs::read_to_string(Path::new(NFSD).join("threads"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Whether clients may come by NFS 2 or 3.
pub(super) fn serves_old_versions() -> bool {
    fs::read_to_string(Path::new(NFSD).join("versions")).is_ok_and(|versions| has_old(&versions))
}

/// `versions` is for example `+3 +4 -4.0 +4.1 +4.2`.
fn has_old(versions: &str) -> bool {
    versions.split_whitespace().any(|version| matches!(version, "+2" | "+3"))
}

/// Number of the super block that a path is on: that of the mount it is in, for btrfs shows others for its files.
pub(super) fn device(path: &Path) -> Option<(u32, u32)> {
    let table = mounts::table().ok()?;
    let above = table.iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.as_os_str().len()).map(|mount| mount.device)
}

/// Makes the kernel forget all that clients have open or locked on a file system: such a file keeps it from being unmounted
/// as long as its client is there. Gives how many clients of NFS 4 were dismissed; they come back by themselves.
pub(super) fn release(path: &Path, device: Option<(u32, u32)>) -> Result<usize, String> {
    // Locks of NFS 3, and from Linux 6.9 on also what clients of NFS 4 have there.
    let text = path.display().to_string();
    fs::write(Path::new(NFSD).join("unlock_filesystem"), format!("{text}\n"))
        .map_err(|e| format!("the locks of clients on {text} can't be released: {e}"))?;
    let Some(device) = device else { return Ok(0) };
    let mut dismissed = 0;
    for entry in fs::read_dir(Path::new(NFSD).join("clients")).into_iter().flatten().flatten() {
        // One that goes meanwhile has nothing open.
        let Ok(states) = fs::read_to_string(entry.path().join("states")) else { continue };
        if !has_open(&states, device) {
            continue;
        }
        // Waits until it is done.
        match fs::write(entry.path().join("ctl"), b"expire\n") {
            Ok(()) => dismissed += 1,
            Err(_) if !entry.path().exists() => {}
            Err(error) => return Err(format!("a client that has files open on {text} can't be dismissed: {error}")),
        }
    }
    Ok(dismissed)
}

/// Whether a client's states (a line each, with `superblock: "fd:00:12"`: major, minor and inode, in hexadecimal but for the
/// last) name a file of this super block.
fn has_open(states: &str, (major, minor): (u32, u32)) -> bool {
    let prefix = format!("superblock: \"{major:02x}:{minor:02x}:");
    states.lines().any(|line| line.contains(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_told_by_their_sign() {
        assert!(has_old("-2 +3 +4 +4.1 +4.2\n") && has_old("+2 -3 +4"));
        assert!(!has_old("-2 -3 +4 -4.0 +4.1 +4.2\n") && !has_old(""));
    }

    #[test]
    fn an_open_file_is_told_by_its_super_block() {
        let states = "- 0x000000010000000100000001: { type: open, access: rw, deny: --, superblock: \"fe:10:12\", \
                      filename: \"/file\", owner: \"open id:\\x00\" }\n";
        assert!(has_open(states, (0xfe, 0x10)));
        assert!(!has_open(states, (0xfe, 0x1)) && !has_open("", (0xfe, 0x10)));
    }
}
