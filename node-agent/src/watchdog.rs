//! The hardware watchdog: opens, arms, pets, reads back, disarms (domain.md §4.3, watchdog facts). Whether a pet is
//! allowed is one pure function; when it is due is the guard's business.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_api::v1::WatchdogMode;
use holdfast_core::time::Instant;
use nix::libc;
use serde::{Deserialize, Serialize};

/// How the watchdog is to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchdogSettings {
    /// IfPresent, Required or Disabled.
    pub mode: WatchdogMode,
    /// The device, e.g. `/dev/watchdog`.
    pub device: PathBuf,
    /// W: it resets the machine this long after the last pet. Whole seconds, 1..60.
    pub timeout: Duration,
}

/// Why there is no watchdog.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The device doesn't exist.
    #[error(
        "watchdog.device {0} does not exist; load the driver (softdog is one without hardware), or set watchdog.mode: Disabled"
    )]
    Absent(PathBuf),
    /// It can't be opened or asked.
    #[error("watchdog.device {device}: {what}: {source}{hint}")]
    Io {
        /// The device.
        device: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// The device can't be set as short as asked: others would wait too short for a reset.
    #[error(
        "watchdog.timeout: {device} was asked for {asked:?} and says {found:?}; set watchdog.timeout to at least that, or \
         use another device"
    )]
    TooLong {
        /// The device.
        device: PathBuf,
        /// As configured.
        asked: Duration,
        /// As read back.
        found: Duration,
    },
}

/// An armed watchdog. Dropping it leaves it armed, as the end of the process does: the machine is reset unless it is
/// opened again in time.
#[derive(Debug)]
pub struct Watchdog {
    device: PathBuf,
    file: File,
    timeout: Duration,
    identity: String,
}

/// `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
struct Info {
    options: u32,
    firmware: u32,
    identity: [u8; 32],
}

impl Watchdog {
    /// Opens the device, which arms it, and sets its timeout; the value read back counts.
    ///
    /// # Errors
    /// [`WatchdogError`]; then it is not armed (or was disarmed again).
    pub fn arm(device: &Path, timeout: Duration) -> Result<Watchdog, WatchdogError> {
        if !device.exists() {
            return Err(WatchdogError::Absent(device.to_owned()));
        }
        let fail = |what, hint| {
            let device = device.to_owned();
            move |source| WatchdogError::Io { device, what, source, hint }
        };
        let file = OpenOptions::new()
            .write(true)
            .open(device)
            .map_err(fail("opening it", "; only one program may have it open: is another watchdog service running?"))?;
        let mut watchdog =
            Watchdog { device: device.to_owned(), file, timeout: Duration::ZERO, identity: String::new() };
        match watchdog.set_up(timeout) {
            Ok(()) => Ok(watchdog),
            Err(error) => {
                let _ = watchdog.disarm();
                Err(error)
            }
        }
    }

    fn set_up(&mut self, asked: Duration) -> Result<(), WatchdogError> {
        let device = self.device.clone();
        let fail = |what| {
            let device = device.clone();
            move |source| WatchdogError::Io { device, what, source, hint: "; is it a watchdog device?" }
        };
        let mut info = Info { options: 0, firmware: 0, identity: [0; 32] };
        self.ioctl(nix::request_code_read!(b'W', 0, size_of::<Info>()), &raw mut info)
            .map_err(fail("asking what it is"))?;
        let length = info.identity.iter().position(|b| *b == 0).unwrap_or(info.identity.len());
        self.identity = String::from_utf8_lossy(&info.identity[..length]).trim().to_owned();
        let mut seconds = i32::try_from(asked.as_secs()).unwrap_or(i32::MAX);
        // Some devices have one timeout only and refuse this; the value read back decides.
        let set = self.ioctl(nix::request_code_readwrite!(b'W', 6, size_of::<i32>()), &raw mut seconds);
        let mut found: i32 = 0;
        self.ioctl(nix::request_code_read!(b'W', 7, size_of::<i32>()), &raw mut found)
            .map_err(fail("reading its timeout back"))?;
        let found = Duration::from_secs(u64::try_from(found).unwrap_or(0));
        if found > asked {
            return Err(WatchdogError::TooLong { device, asked, found });
        }
        if found.is_zero() {
            set.map_err(fail("setting its timeout"))?;
        }
        self.timeout = found;
        self.pet().map_err(fail("petting it"))
    }

    #[expect(unsafe_code, reason = "ioctls of linux/watchdog.h")]
    fn ioctl<T>(&self, request: libc::c_ulong, argument: *mut T) -> io::Result<()> {
        // SAFETY: each request is called with the type that it is defined with; the size is part of it.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), request as _, argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Puts the reset off by the timeout from now.
    ///
    /// # Errors
    /// When the device fails; the machine will then be reset.
    pub fn pet(&self) -> io::Result<()> {
        let mut nothing: i32 = 0;
        self.ioctl(nix::request_code_read!(b'W', 5, size_of::<i32>()), &raw mut nothing)
    }

    /// Disarms it. Only when nothing is held.
    ///
    /// # Errors
    /// When the device fails. A driver with `nowayout` stays armed without an error.
    pub fn disarm(mut self) -> io::Result<()> {
        // The magic character, then the close.
        self.file.write_all(b"V")
    }

    /// W, as the device says it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What it is, e.g. `i6300ESB timer`.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Time between two pets: a third of the timeout at most (I2).
    pub fn period(&self) -> Duration {
        self.timeout / 3
    }
}

/// R23, I2: a pet is allowed only while there is authority or nothing is held, and never again after a stop that could
/// not be verified.
pub fn may_pet(now: Instant, end: Instant, nothing_held: bool, gave_up: bool) -> bool {
    !gave_up && (nothing_held || now < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pet_needs_authority_or_empty_hands() {
        let (before, at, after) = (Instant(9), Instant(10), Instant(11));
        assert!(may_pet(before, at, false, false));
        assert!(!may_pet(at, at, false, false));
        assert!(!may_pet(after, at, false, false));
        assert!(may_pet(after, at, true, false));
        assert!(!may_pet(before, at, true, true));
    }

    #[test]
    fn what_is_no_watchdog_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("watchdog");
        let message = Watchdog::arm(&absent, Duration::from_secs(2)).unwrap_err().to_string();
        assert!(message.contains("does not exist") && message.contains("Disabled"), "{message}");
        std::fs::write(&absent, "").unwrap();
        let message = Watchdog::arm(&absent, Duration::from_secs(2)).unwrap_err().to_string();
        assert!(message.contains("is it a watchdog device?"), "{message}");
    }
}
