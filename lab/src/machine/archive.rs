//! The cpio archive (format "newc") that a kernel unpacks as its first file system: documented in
//! Documentation/driver-api/early-userspace/buffer-format.rst of Linux.

use std::collections::BTreeSet;
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written. Directories come by themselves before what is in them.
pub(super) struct Archive<W> {
    to: W,
    number: u32,
    seen: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Archive<W> {
        Archive { to, number: 0, seen: BTreeSet::new() }
    }

    /// A file that anybody may execute; the first one of a name counts.
    pub(super) fn file(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        self.add(path, FILE, (0, 0), content)
    }

    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        self.add(path, DIRECTORY, (0, 0), &[])
    }

    pub(super) fn link(&mut self, path: &Path, target: &str) -> Result<()> {
        self.add(path, LINK, (0, 0), target.as_bytes())
    }

    pub(super) fn device(&mut self, path: &Path, numbers: (u32, u32)) -> Result<()> {
        self.add(path, CHARACTER_DEVICE, numbers, &[])
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()
    }

    fn add(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if path.as_os_str().is_empty() || !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(&path.to_string_lossy(), mode, device, content)
    }

    /// Thirteen numbers as eight hexadecimal digits behind the magic one: inode, mode, user, group, links, time, size,
    /// device of the file (2), device that it is (2), length of the name with its zero, checksum (unused).
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.number += 1;
        let length = |length: usize| u32::try_from(length).map_err(std::io::Error::other);
        let (size, named) = (length(content.len())?, length(name.len() + 1)?);
        let numbers = [self.number, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, named, 0];
        let mut head = String::from("070701");
        for number in numbers {
            head.push_str(&format!("{number:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    /// Everything begins at a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes)?;
        let zeros = bytes.len().next_multiple_of(4) - bytes.len();
        self.to.write_all(&[0; 3][..zeros])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file(Path::new("/etc/a"), b"hello").unwrap();
        archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        // 110 bytes of head, the name with its zero, filled up to a multiple of four: a directory comes before its file.
        let directory =
            "070701000000010000".to_owned() + "41ed" + &"0".repeat(23) + "1" + &"0".repeat(55) + "4" + &"0".repeat(8);
        assert_eq!(&text[..114], directory + "etc\0");
        let file = &text[116..];
        assert!(file.starts_with("070701000000020000") && file[18..].starts_with("81ed"), "{file}");
        assert_eq!(&file[54..62], "00000005", "its length");
        assert_eq!(&file[110..128], "etc/a\0hello\0\0\0".to_owned() + "0707");
        assert!(text.contains("TRAILER!!!") && text.len().is_multiple_of(4));
    }
}
