//! A block device, or a regular file in tests, opened so that a write that returned is on the medium.
//!
//! No retry and no timeout here: a hung disk hangs the caller, which therefore is a thread of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::layout::BLOCK;

/// An open device; offsets are counted from the beginning of the area on it.
#[derive(Debug)]
pub struct Device {
    file: File,
    offset: u64,
    path: PathBuf,
    buffer: Aligned,
}

/// Whether a device is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    Write,
}

/// Why a device can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct DeviceError {
    /// The device.
    pub path: String,
    /// What the system says.
    pub source: io::Error,
}

impl Device {
    /// Opens a block device with O_DIRECT and O_DSYNC: no cache in between, and a write is durable when it returns. A
    /// regular file on a file system that can't do O_DIRECT is opened without it; anything else is refused.
    pub fn open(path: &Path, offset: u64, access: Access) -> Result<Device, DeviceError> {
        let fail = |source| DeviceError { path: path.display().to_string(), source };
        if !offset.is_multiple_of(BLOCK as u64) {
            return Err(fail(io::Error::other(format!(
                "the offset {offset} of the area is not a multiple of {BLOCK} bytes; choose one that is"
            ))));
        }
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(fail(io::Error::other("neither a block device nor a regular file")));
        }
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(access == Access::Write)
                .custom_flags(flags | libc::O_CLOEXEC)
                .open(path)
        };
        let file = match open(libc::O_DIRECT | libc::O_DSYNC) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && kind.is_file() => open(libc::O_DSYNC),
            other => other,
        };
        Ok(Device { file: file.map_err(fail)?, offset, path: path.to_owned(), buffer: Aligned::new(16 * BLOCK) })
    }

    /// Reads `length` bytes (a multiple of the block size).
    pub fn read(&mut self, at: u64, length: usize) -> Result<&[u8], DeviceError> {
        self.buffer.reserve(length);
        let start = self.offset + at;
        let result = self.file.read_exact_at(self.buffer.part(length), start);
        match result {
            Ok(()) => Ok(self.buffer.part(length)),
            Err(source) => Err(self.fail(source)),
        }
    }

    /// Writes whole blocks and returns when they are on the medium. One block is written by one request, so that at
    /// most one block is torn by a loss of power.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        debug_assert!(bytes.len().is_multiple_of(BLOCK));
        self.buffer.reserve(bytes.len());
        self.buffer.part(bytes.len()).copy_from_slice(bytes);
        let start = self.offset + at;
        let result = self.file.write_all_at(self.buffer.part(bytes.len()), start);
        result.map_err(|source| self.fail(source))
    }

    /// Bytes of the device, from its beginning.
    pub fn size(&self) -> Result<u64, DeviceError> {
        use std::io::{Seek, SeekFrom};
        (&self.file).seek(SeekFrom::End(0)).map_err(|source| self.fail(source))
    }

    fn fail(&self, source: io::Error) -> DeviceError {
        DeviceError { path: self.path.display().to_string(), source }
    }
}

/// Memory that begins at a multiple of the block size, as O_DIRECT demands.
#[derive(Debug)]
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(size: usize) -> Aligned {
        let bytes = vec![0; size + BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Aligned { bytes, start }
    }

    fn reserve(&mut self, size: usize) {
        if self.bytes.len() < size + BLOCK {
            *self = Aligned::new(size);
        }
    }

    fn part(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length]
    }
}
