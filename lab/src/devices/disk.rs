//! A host's cable to a shared disk, with the faults that a disk has: it answers with errors, does not answer, says that
//! it has written what it has not, or writes late.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use fuser::{Errno, ReplyData, ReplyEmpty, ReplyWrite};

use crate::error::{Attempt, Result};

/// What a shared disk does for one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskFault {
    /// It works; what waited is carried out.
    #[default]
    None,
    /// Every access fails at once; what waited fails.
    Errors,
    /// No access is answered; each is carried out once the disk works again.
    Hang,
    /// Writes are confirmed and not made; reads work.
    LostWrites,
    /// Writes are taken and not answered; reads work. The writes are made once the disk works again, or when the lab says
    /// so, even if the host that sent them is long dead: a queue of the storage that is slow.
    LateWrites,
}

/// What a host asked for, with the way to answer.
enum Request {
    Read { at: u64, length: usize, reply: ReplyData },
    Write { at: u64, bytes: Vec<u8>, reply: ReplyWrite },
    Flush { reply: ReplyEmpty },
}

/// A disk as one host reaches it.
pub(super) struct FaultyDisk {
    image: File,
    size: u64,
    fault: DiskFault,
    waiting: Vec<Request>,
    late: Vec<(u64, Vec<u8>)>,
}

impl FaultyDisk {
    pub(super) fn new(image: &Path) -> Result<FaultyDisk> {
        let what = || format!("opening the disk image {}", image.display());
        let file = OpenOptions::new().read(true).write(true).open(image).attempt(what)?;
        let size = file.metadata().attempt(what)?.len();
        Ok(FaultyDisk { image: file, size, fault: DiskFault::None, waiting: Vec::new(), late: Vec::new() })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Changes what it does, also with what waits.
    pub(super) fn set(&mut self, fault: DiskFault) {
        let kept = self.fault == DiskFault::LateWrites && fault == DiskFault::Errors;
        self.fault = fault;
        for request in std::mem::take(&mut self.waiting) {
            match request {
                // It is in the storage's queue; that its sender hears nothing of it any more changes nothing there.
                Request::Write { at, bytes, reply } if kept => {
                    reply.error(Errno::EIO);
                    self.late.push((at, bytes));
                }
                other => self.serve(other),
            }
        }
    }

    /// Makes the writes that are late, in their order, and returns how many they were.
    pub(super) fn land(&mut self) -> io::Result<usize> {
        for request in std::mem::take(&mut self.waiting) {
            match request {
                Request::Write { at, bytes, reply } => {
                    self.image.write_all_at(&bytes, at)?;
                    reply.written(length_of(&bytes));
                }
                other => self.waiting.push(other),
            }
        }
        let late = std::mem::take(&mut self.late);
        for (at, bytes) in &late {
            self.image.write_all_at(bytes, *at)?;
        }
        Ok(late.len())
    }

    pub(super) fn read(&mut self, at: u64, length: u32, reply: ReplyData) {
        self.serve(Request::Read { at, length: length as usize, reply });
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8], reply: ReplyWrite) {
        self.serve(Request::Write { at, bytes: bytes.to_vec(), reply });
    }

    pub(super) fn flush(&mut self, reply: ReplyEmpty) {
        self.serve(Request::Flush { reply });
    }

    fn serve(&mut self, request: Request) {
        match (self.fault, request) {
            (DiskFault::Hang, request) => self.waiting.push(request),
            (DiskFault::LateWrites, request @ Request::Write { .. }) => self.waiting.push(request),
            (DiskFault::Errors, Request::Read { reply, .. }) => reply.error(Errno::EIO),
            (DiskFault::Errors, Request::Write { reply, .. }) => reply.error(Errno::EIO),
            (DiskFault::Errors, Request::Flush { reply }) => reply.error(Errno::EIO),
            (DiskFault::LostWrites, Request::Write { bytes, reply, .. }) => reply.written(length_of(&bytes)),
            (_, Request::Read { at, length, reply }) => {
                let mut bytes = vec![0; length.min(usize::try_from(self.size.saturating_sub(at)).unwrap_or(length))];
                match self.image.read_exact_at(&mut bytes, at) {
                    Ok(()) => reply.data(&bytes),
                    Err(error) => reply.error(error.into()),
                }
            }
            (_, Request::Write { at, bytes, reply }) => match self.image.write_all_at(&bytes, at) {
                Ok(()) => reply.written(length_of(&bytes)),
                Err(error) => reply.error(error.into()),
            },
            // The image is in memory of the machine, which no host's power cut reaches.
            (_, Request::Flush { reply }) => reply.ok(),
        }
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
