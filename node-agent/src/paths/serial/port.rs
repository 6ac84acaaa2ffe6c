//! A serial device: opened, made raw, set to a speed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Calls of tty_ioctl(4) for any speed; nix has those for the classic ones.
mod calls {
    nix::ioctl_read_bad!(get, libc::TCGETS2, libc::termios2);
    nix::ioctl_write_ptr_bad!(set, libc::TCSETS2, libc::termios2);
    nix::ioctl_write_int_bad!(flush, libc::TCFLSH);
}

/// An open line. Reads and writes never wait. At the end its unsent bytes are thrown away, so that closing a line whose
/// other end is gone doesn't wait for them.
#[derive(Debug)]
pub(super) struct Port {
    file: Flock<File>,
}

impl Port {
    /// Opens a device: 8 data bits, no parity, one stop bit, no flow control, modem lines ignored.
    pub(super) fn open(device: &Path, baud: u32) -> io::Result<Port> {
        // Without O_NONBLOCK the open itself would wait for a modem.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(device)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
            Errno::EWOULDBLOCK => io::Error::other("another process uses it; a serial path needs a line of its own"),
            e => e.into(),
        })?;
        raw(file.as_raw_fd(), baud)?;
        Ok(Port { file })
    }

    /// For poll(2).
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "TCFLSH with any file descriptor")]
        // SAFETY: an open file and a number.
        let _ = unsafe { calls::flush(self.file.as_raw_fd(), libc::TCIOFLUSH) };
    }
}

#[expect(unsafe_code, reason = "TCGETS2 and TCSETS2 have no wrapper")]
fn raw(fd: RawFd, baud: u32) -> io::Result<()> {
    let not_serial = |e: Errno| match e {
        Errno::ENOTTY => io::Error::other("it is no serial device"),
        e => e.into(),
    };
    // SAFETY: the structure is plain numbers, the kernel fills it in.
    let mut settings: libc::termios2 = unsafe { std::mem::zeroed() };
    // SAFETY: an open file, and a structure that lives through the call.
    unsafe { calls::get(fd, &raw mut settings) }.map_err(not_serial)?;
    settings.c_iflag = libc::IGNBRK;
    (settings.c_oflag, settings.c_lflag) = (0, 0);
    settings.c_cflag = libc::CS8 | libc::CREAD | libc::CLOCAL | libc::BOTHER;
    (settings.c_ispeed, settings.c_ospeed) = (baud, baud);
    (settings.c_cc[libc::VMIN], settings.c_cc[libc::VTIME]) = (1, 0);
    // SAFETY: as above.
    unsafe { calls::set(fd, &raw const settings) }?;
    // SAFETY: an open file and a number.
    unsafe { calls::flush(fd, libc::TCIOFLUSH) }?;
    Ok(())
}
