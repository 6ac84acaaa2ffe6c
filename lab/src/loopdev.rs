//! Loop devices: one per host on the same image file, so that each host has its own view (and page cache) of a
//! shared disk, as with a cable of its own. Direct I/O where the image's file system allows it, so that what one
//! host has written is at once what the other reads.
//!
//! Nobody but the host keeps a device open: at the last close the kernel drops the device's page cache, as it does
//! for a disk that only one machine uses. An opener of the lab's would keep pages that the other host has since
//! written anew, and the next check of the file system would read them. So a lab that is killed leaves its
//! devices attached until `holdfast lab clean`.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Attempt, LabError, Result};
use crate::shell::wait_for;

const DIRECT_IO: u32 = 16;
/// Bytes that remain reachable of a disk that was cut off: a sector, less than any file system or lock area reads.
const CUT_SIZE: u64 = 4096;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const EMPTY: LoopInfo64 = LoopInfo64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    sizelimit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// The loop driver is controlled by ioctls.
mod calls {
    use super::{LoopConfig, LoopInfo64};
    nix::ioctl_none_bad!(get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, LoopConfig);
    nix::ioctl_write_ptr_bad!(set_status, 0x4C04, LoopInfo64);
    nix::ioctl_read_bad!(get_status, 0x4C05, LoopInfo64);
    nix::ioctl_none_bad!(detach, 0x4C01);
}

/// A loop device that this process attached. Dropping it detaches it as soon as nobody has it mounted.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    number: u64,
}

impl LoopDevice {
    /// Attaches `image` to a free loop device with sectors of this many bytes, 512 or 4096.
    ///
    /// # Errors
    /// When the machine has no loop driver, or the image can't be opened.
    pub(crate) fn attach(image: &Path, sector_size: u32) -> Result<LoopDevice> {
        let backing = OpenOptions::new()
            .read(true)
            .write(true)
            .open(image)
            .attempt(|| format!("opening the disk image {}", image.display()))?;
        let control = File::open("/dev/loop-control").map_err(|source| LabError::Missing {
            what: format!("loop devices (/dev/loop-control: {source})"),
            hint: "load the driver with `modprobe loop`".into(),
        })?;
        let backing_fd = u32::try_from(backing.as_raw_fd()).expect("the number of an open file is not negative");
        wait_for(&format!("a free loop device for {}", image.display()), Duration::from_secs(5), |last| {
            #[expect(unsafe_code, reason = "ioctl")]
            // SAFETY: the call takes no pointer.
            let free =
                unsafe { calls::get_free(control.as_raw_fd()) }.attempt(|| "asking for a free loop device".into())?;
            let path = PathBuf::from(format!("/dev/loop{free}"));
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) => {
                    // The node appears a moment after the device when udev or devtmpfs is behind.
                    *last = format!("{}: {error}", path.display());
                    return Ok(None);
                }
            };
            let info = LoopInfo64 { flags: DIRECT_IO, file_name: short_name(image), ..EMPTY };
            let config = LoopConfig { fd: backing_fd, block_size: sector_size, info, reserved: [0; 8] };
            #[expect(unsafe_code, reason = "ioctl")]
            // SAFETY: `config` has the kernel's layout and lives through the call.
            match unsafe { calls::configure(file.as_raw_fd(), &raw const config) } {
                Ok(_) => {
                    let number = file.metadata().attempt(|| format!("reading {}", path.display()))?.rdev();
                    Ok(Some(LoopDevice { path, number }))
                }
                Err(nix::errno::Errno::EBUSY) => {
                    *last = format!("{} was taken by somebody else", path.display());
                    Ok(None)
                }
                Err(error) => Err(error).attempt(|| format!("attaching {} to {}", image.display(), path.display())),
            }
        })
    }

    /// Its path on the machine, `/dev/loopN`.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its device number (major and minor).
    #[must_use]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Cuts the device off from its image, also under a mounted file system: reads and writes fail from now on.
    /// What the host had already handed to the disk before is let through first, nothing after.
    ///
    /// # Errors
    /// When the driver refuses.
    pub(crate) fn cut(&self) -> Result<()> {
        self.set_size_limit(CUT_SIZE)
    }

    /// Undoes [`LoopDevice::cut`].
    ///
    /// # Errors
    /// When the driver refuses.
    pub(crate) fn restore(&self) -> Result<()> {
        self.set_size_limit(0)
    }

    fn set_size_limit(&self, bytes: u64) -> Result<()> {
        let what = || format!("setting the reachable size of {}", self.path.display());
        let file = open(&self.path)?;
        let mut info = EMPTY;
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: `info` has the kernel's layout and lives through the call.
        unsafe { calls::get_status(file.as_raw_fd(), &raw mut info) }.attempt(what)?;
        info.sizelimit = bytes;
        // EAGAIN: dirty pages came back between the driver's flush and its check; it asks to be called again.
        wait_for(&what(), Duration::from_secs(2), |last| {
            #[expect(unsafe_code, reason = "ioctl")]
            // SAFETY: as above.
            match unsafe { calls::set_status(file.as_raw_fd(), &raw const info) } {
                Ok(_) => Ok(Some(())),
                Err(nix::errno::Errno::EAGAIN) => {
                    *last = "the driver asked to try again".into();
                    Ok(None)
                }
                Err(error) => Err(error).attempt(what),
            }
        })
    }

    /// Detaches it now, or, while a file system on it is mounted, as soon as that is gone.
    pub(crate) fn detach(self) {
        drop(self);
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = detach_device(&self.path) {
            tracing::warn!(%error, "a loop device stays; try `holdfast lab clean`");
        }
    }
}

/// The machine's loop devices whose image lies below `directory`, as `(device, image)`.
///
/// # Errors
/// When `/sys/block` can't be listed.
pub fn devices_below(directory: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").attempt(|| "listing /sys/block".into())?.flatten() {
        if let Ok(text) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            let image = PathBuf::from(text.trim_end().trim_end_matches(" (deleted)"));
            if image.starts_with(directory) {
                found.push((Path::new("/dev").join(entry.file_name()), image));
            }
        }
    }
    Ok(found)
}

fn open(device: &Path) -> Result<File> {
    File::open(device).attempt(|| format!("opening {}", device.display()))
}

/// Detaches a device now, or, while it is in use, at its last close.
///
/// # Errors
/// When it can't be opened.
pub(crate) fn detach_device(device: &Path) -> Result<()> {
    let file = open(device)?;
    if file.metadata().is_ok_and(|data| data.file_type().is_block_device()) {
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: the call takes no pointer.
        unsafe { calls::detach(file.as_raw_fd()) }.attempt(|| format!("detaching {}", device.display()))?;
    }
    Ok(())
}

/// The name that the driver shows for a device: as much of the path as its field holds, ended by a zero.
fn short_name(image: &Path) -> [u8; 64] {
    let mut name = [0; 64];
    let bytes = image.as_os_str().as_encoded_bytes();
    let length = bytes.len().min(63);
    name[..length].copy_from_slice(&bytes[..length]);
    name
}
