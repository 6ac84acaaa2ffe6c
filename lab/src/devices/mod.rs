//! Devices that the lab makes itself: files of a FUSE file system, whose reads, writes and ioctls it answers. A disk with
//! faults is the file below a loop device; a watchdog is bound into its host as a device. So the real code of agent and
//! guard runs against them.

mod disk;
mod in_lab;
mod watchdog;

pub use disk::DiskFault;
pub(crate) use in_lab::Resetter;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::devices::disk::FaultyDisk;
use crate::devices::watchdog::PseudoWatchdog;
use crate::error::{Attempt, LabError, Result};
use crate::shell::boottime_ns;

/// Names and sizes never change.
const TTL: Duration = Duration::from_secs(3600);
/// Directory of a lab where the file system is mounted.
const MOUNT_POINT: &str = "devices";

/// The devices of a lab. Dropping it ends the file system.
pub(crate) struct Devices {
    mount_point: PathBuf,
    files: Files,
    _session: BackgroundSession,
}

/// All files; a file's inode is its place, counted from 2.
type Files = Arc<Mutex<Vec<DeviceFile>>>;

struct DeviceFile {
    host: String,
    name: String,
    kind: Kind,
}

enum Kind {
    Disk(FaultyDisk),
    Watchdog(PseudoWatchdog),
}

impl Devices {
    /// Mounts the file system below a lab's directory.
    ///
    /// # Errors
    /// When the machine has no FUSE.
    pub(crate) fn mount(directory: &Path) -> Result<Devices> {
        if !Path::new("/dev/fuse").exists() {
            return Err(LabError::Missing {
                what: "FUSE (/dev/fuse) for disks with faults and watchdogs".into(),
                hint: "load the driver with `modprobe fuse`".into(),
            });
        }
        let mount_point = directory.join(MOUNT_POINT);
        fs::create_dir_all(&mount_point).attempt(|| format!("making {}", mount_point.display()))?;
        let files = Files::default();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("holdfast-lab".into())];
        let session = fuser::spawn_mount(Server { files: Arc::clone(&files) }, &mount_point, &config)
            .attempt(|| format!("mounting a FUSE file system on {}", mount_point.display()))?;
        Ok(Devices { mount_point, files, _session: session })
    }

    /// Adds a disk with faults for one host and returns its file.
    pub(crate) fn add_disk(&self, host: &str, disk: &str, image: &Path) -> Result<PathBuf> {
        Ok(self.add(host, disk, Kind::Disk(FaultyDisk::new(image)?)))
    }

    /// Adds a watchdog for a host and returns its file.
    pub(crate) fn add_watchdog(&self, host: &str) -> PathBuf {
        self.add(host, "watchdog", Kind::Watchdog(PseudoWatchdog::new()))
    }

    fn add(&self, host: &str, name: &str, kind: Kind) -> PathBuf {
        let file = DeviceFile { host: host.into(), name: name.into(), kind };
        let path = self.mount_point.join(file.file_name());
        lock(&self.files).push(file);
        path
    }

    /// Changes what a disk does for a host.
    pub(crate) fn set_disk(&self, host: &str, disk: &str, fault: DiskFault) -> Result<()> {
        self.with_disk(host, disk, |found| {
            found.set(fault);
            Ok(())
        })
    }

    /// Makes the late writes of a host; returns how many were left by a host that is off.
    pub(crate) fn land_writes(&self, host: &str, disk: &str) -> Result<usize> {
        self.with_disk(host, disk, |found| found.land().attempt(|| format!("writing what {host} left for {disk}")))
    }

    fn with_disk<T>(&self, host: &str, disk: &str, act: impl FnOnce(&mut FaultyDisk) -> Result<T>) -> Result<T> {
        let mut files = lock(&self.files);
        let disks = files.iter_mut().filter(|file| file.host == host);
        let mut known = Vec::new();
        for file in disks {
            match &mut file.kind {
                Kind::Disk(found) if file.name == disk => return act(found),
                Kind::Disk(_) => known.push(file.name.clone()),
                Kind::Watchdog(_) => {}
            }
        }
        let known = known.join(", ");
        Err(LabError::Unknown { kind: "disk with faults of this host", name: disk.into(), known })
    }

    /// A host's watchdog works, or answers every call with an error.
    pub(crate) fn set_watchdog(&self, host: &str, works: bool) {
        self.each(host, |kind| {
            if let Kind::Watchdog(watchdog) = kind {
                watchdog.set(works);
            }
        });
    }

    /// The power of a host goes: its disks take nothing more, its watchdog is no longer armed.
    pub(crate) fn power_lost(&self, host: &str) {
        self.each(host, |kind| match kind {
            Kind::Disk(disk) => disk.set(DiskFault::Errors),
            Kind::Watchdog(watchdog) => *watchdog = PseudoWatchdog::new(),
        });
    }

    /// The power of a host is back.
    pub(crate) fn power_restored(&self, host: &str) {
        self.each(host, |kind| match kind {
            Kind::Disk(disk) => disk.set(DiskFault::None),
            Kind::Watchdog(watchdog) => *watchdog = PseudoWatchdog::new(),
        });
    }

    fn each(&self, host: &str, act: impl Fn(&mut Kind)) {
        lock(&self.files).iter_mut().filter(|file| file.host == host).for_each(|file| act(&mut file.kind));
    }

    /// Hosts whose watchdog is due now.
    pub(crate) fn due(&self) -> Vec<String> {
        let now = boottime_ns();
        let files = lock(&self.files);
        let due = files.iter().filter(|file| matches!(&file.kind, Kind::Watchdog(watchdog) if watchdog.is_due(now)));
        due.map(|file| file.host.clone()).collect()
    }

    /// Answers everything that waits, so that no process of a host hangs in the kernel any more.
    pub(crate) fn release(&self) {
        for file in lock(&self.files).iter_mut() {
            if let Kind::Disk(disk) = &mut file.kind {
                disk.set(DiskFault::Errors);
            }
        }
    }
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Devices").field("mount_point", &self.mount_point).finish_non_exhaustive()
    }
}

/// Ends the file system of a lab, also one whose process died; fine when there is none. Loop devices are detached first.
pub(crate) fn unmount(directory: &Path) -> Result<()> {
    let mount_point = directory.join(MOUNT_POINT);
    match nix::mount::umount2(&mount_point, nix::mount::MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).attempt(|| format!("unmounting {}", mount_point.display())),
    }
}

impl DeviceFile {
    fn file_name(&self) -> String {
        format!("{}.{}", self.host, self.name)
    }

    fn attributes(&self, index: usize) -> FileAttr {
        let size = match &self.kind {
            Kind::Disk(disk) => disk.size(),
            Kind::Watchdog(_) => 0,
        };
        attributes(INodeNo(index as u64 + 2), FileType::RegularFile, size)
    }
}

fn attributes(ino: INodeNo, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

/// A poisoned lock means that another thread of a test panicked; the state under it is still whole.
fn lock(files: &Files) -> MutexGuard<'_, Vec<DeviceFile>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What answers the kernel. One thread; nothing in it waits, what is not to be answered now is kept.
struct Server {
    files: Files,
}

impl Server {
    fn with<T>(&self, ino: INodeNo, act: impl FnOnce(usize, &mut DeviceFile) -> T) -> Option<T> {
        let index = usize::try_from(ino.0).ok()?.checked_sub(2)?;
        lock(&self.files).get_mut(index).map(|file| act(index, file))
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A write that hangs shall not keep the loop device from sending a read. Kernels without it only do that.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let files = lock(&self.files);
        match files.iter().enumerate().find(|(_, file)| name == file.file_name().as_str()) {
            Some((index, file)) => reply.entry(&TTL, &file.attributes(index), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if ino == INodeNo::ROOT {
            return reply.attr(&TTL, &attributes(ino, FileType::Directory, 0));
        }
        match self.with(ino, |index, file| file.attributes(index)) {
            Some(found) => reply.attr(&TTL, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.with(ino, |_, file| match &mut file.kind {
            Kind::Watchdog(watchdog) => watchdog.open(boottime_ns()),
            Kind::Disk(_) => Ok(()),
        });
        match opened {
            // Without a cache: another host writes to the same image.
            Some(Ok(())) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Some(Err(error)) => reply.error(error),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.with(ino, |_, file| {
            if let Kind::Watchdog(watchdog) = &mut file.kind {
                watchdog.close();
            }
        });
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.with(ino, |_, file| match &mut file.kind {
            Kind::Disk(disk) => disk.read(offset, size, reply),
            Kind::Watchdog(_) => reply.error(Errno::EINVAL),
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.with(ino, |_, file| match &mut file.kind {
            Kind::Disk(disk) => disk.write(offset, data, reply),
            Kind::Watchdog(watchdog) => {
                watchdog.write(data, boottime_ns());
                reply.written(u32::try_from(data.len()).unwrap_or(0));
            }
        });
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.with(ino, |_, file| match &mut file.kind {
            Kind::Disk(disk) => disk.flush(reply),
            Kind::Watchdog(_) => reply.error(Errno::EINVAL),
        });
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.with(ino, |_, file| match &mut file.kind {
            Kind::Watchdog(watchdog) => match watchdog.ioctl(cmd, in_data, boottime_ns()) {
                Ok(answer) => reply.ioctl(0, &answer),
                Err(error) => reply.error(error),
            },
            Kind::Disk(_) => reply.error(Errno::ENOTTY),
        });
    }
}
