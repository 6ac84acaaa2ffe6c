//! The table of mounts, mount options, and the identity of a mount. Reading and parsing only.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::MsFlags;

/// One line of /proc/self/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount.
    pub id: u64,
    /// Device of the super block, as `st_dev` shows it for most file systems.
    pub device: (u32, u32),
    /// What of the file system is shown: `/`, or the directory of a bind mount.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// Source, as it was given.
    pub source: String,
}

/// The mounts that this process sees, oldest first.
///
/// # Errors
/// When /proc isn't mounted.
pub fn table() -> io::Result<Vec<Mount>> {
    Ok(parse_table(&fs::read("/proc/self/mountinfo")?))
}

/// Parses the text of mountinfo; lines that aren't understood are left out.
pub fn parse_table(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let ascii = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
    let id = ascii(fields.next()?)?.parse().ok()?;
    let device = ascii(fields.nth(1)?)?;
    let (major, minor) = device.split_once(':')?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    // The number of optional fields varies; a lone dash ends them.
    fields.by_ref().find(|field| *field == b"-")?;
    let kind = ascii(fields.next()?)?;
    let source = String::from_utf8_lossy(unescape(fields.next()?).as_os_str().as_bytes()).into_owned();
    Some(Mount { id, device: (major.parse().ok()?, minor.parse().ok()?), root, point, kind, source })
}

/// The kernel writes blanks, tabs, line ends and backslashes as octal numbers.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        let octal = (text[i] == b'\\').then(|| text.get(i + 1..i + 4)).flatten();
        match octal.and_then(|o| std::str::from_utf8(o).ok()).and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                i += 4;
            }
            None => {
                bytes.push(text[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The uppermost mount at exactly this point.
pub fn at<'a>(table: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    table.iter().rev().find(|m| m.point == point)
}

/// Mounts below (not at) this point.
pub fn below<'a>(table: &'a [Mount], point: &Path) -> Vec<&'a Mount> {
    table.iter().filter(|m| m.point != point && m.point.starts_with(point)).collect()
}

/// Splits mount options into the kernel's generic flags and those of the file system.
///
/// # Errors
/// A sentence that names an option which isn't allowed here.
pub fn parse_options(options: &[String]) -> Result<(MsFlags, String), String> {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options.iter().flat_map(|o| o.split(',')) {
        let (set, clear) = match option {
            "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" | "nomand" => {
                let clear = match option {
                    "rw" => MsFlags::MS_RDONLY,
                    "suid" => MsFlags::MS_NOSUID,
                    "dev" => MsFlags::MS_NODEV,
                    "exec" => MsFlags::MS_NOEXEC,
                    "async" => MsFlags::MS_SYNCHRONOUS,
                    "atime" => MsFlags::MS_NOATIME,
                    "diratime" => MsFlags::MS_NODIRATIME,
                    _ => MsFlags::empty(),
                };
                (MsFlags::empty(), clear)
            }
            "ro" => (MsFlags::MS_RDONLY, MsFlags::empty()),
            "nosuid" => (MsFlags::MS_NOSUID, MsFlags::empty()),
            "nodev" => (MsFlags::MS_NODEV, MsFlags::empty()),
            "noexec" => (MsFlags::MS_NOEXEC, MsFlags::empty()),
            "sync" => (MsFlags::MS_SYNCHRONOUS, MsFlags::empty()),
            "dirsync" => (MsFlags::MS_DIRSYNC, MsFlags::empty()),
            "noatime" => (MsFlags::MS_NOATIME, MsFlags::MS_RELATIME | MsFlags::MS_STRICTATIME),
            "nodiratime" => (MsFlags::MS_NODIRATIME, MsFlags::empty()),
            "relatime" => (MsFlags::MS_RELATIME, MsFlags::MS_NOATIME | MsFlags::MS_STRICTATIME),
            "strictatime" => (MsFlags::MS_STRICTATIME, MsFlags::MS_NOATIME | MsFlags::MS_RELATIME),
            "lazytime" => (MsFlags::MS_LAZYTIME, MsFlags::empty()),
            "nolazytime" => (MsFlags::empty(), MsFlags::MS_LAZYTIME),
            "remount" | "bind" | "rbind" | "move" | "loop" | "user" | "users" | "owner" | "group" | "auto"
            | "noauto" | "nofail" | "_netdev" => {
                return Err(format!(
                    "{option:?} belongs into /etc/fstab or mount(8); leave it out (a bind mount is type: bind)"
                ));
            }
            "" => continue,
            other if other.starts_with("x-") => {
                return Err(format!("{other:?} is for other programs and has no effect here; leave it out"));
            }
            other => {
                data.push(other);
                continue;
            }
        };
        flags = (flags - clear) | set;
    }
    Ok((flags, data.join(",")))
}

/// Number of the mount that a path leads to, without asking the file system itself: the magic links below /proc/PID
/// lead to the exact mount that a process uses.
#[expect(unsafe_code, reason = "statx")]
pub fn mount_id(path: &Path) -> io::Result<u64> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a plain structure that the kernel fills.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a live C string and a structure of the right size.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            text.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            libc::STATX_MNT_ID,
            &raw mut out,
        )
    };
    match result {
        0 if out.stx_mask & libc::STATX_MNT_ID != 0 => Ok(out.stx_mnt_id),
        0 => Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than 5.8 and doesn't name mounts")),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_with_its_blanks() {
        let text = b"36 35 98:0 /sub /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/root rw,errors=continue\n\
                     37 35 0:44 / /mnt/a\\040b/c rw - tmpfs none rw\nnonsense\n";
        let table = parse_table(text);
        assert_eq!(table.len(), 2);
        let found = at(&table, Path::new("/mnt/a b")).unwrap();
        assert_eq!((found.id, found.device, found.kind.as_str()), (36, (98, 0), "ext4"));
        assert_eq!((found.root.as_path(), found.source.as_str()), (Path::new("/sub"), "/dev/root"));
        assert_eq!(below(&table, Path::new("/mnt/a b")).len(), 1);
    }

    #[test]
    fn options_are_split_into_flags_and_data_and_later_ones_win() {
        let options = |list: &[&str]| parse_options(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let (flags, data) = options(&["noatime,nosuid", "data=ordered", "ro", "rw", "commit=5"]).unwrap();
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_NOSUID);
        assert_eq!(data, "data=ordered,commit=5");
        assert!(options(&["bind"]).unwrap_err().contains("type: bind"));
        assert!(options(&["x-systemd.automount"]).unwrap_err().contains("x-systemd.automount"));
    }
}
