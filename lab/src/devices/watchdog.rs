//! What a watchdog's driver does, by linux/watchdog.h: armed when opened, put off by a pet, disarmed only by the magic
//! character before the close. Time is an argument.

use std::time::Duration;

use fuser::Errno;

/// A driver's timeout before a program sets another.
const FIRST_TIMEOUT: Duration = Duration::from_secs(60);
/// WDIOF_SETTIMEOUT, WDIOF_MAGICCLOSE and WDIOF_KEEPALIVEPING.
const ABILITIES: u32 = 0x0080 | 0x0100 | 0x8000;
/// Its name, as WDIOC_GETSUPPORT gives it.
const IDENTITY: &[u8] = b"Holdfast lab";

const GET_SUPPORT: u32 = nix::request_code_read!(b'W', 0, 40) as u32;
const KEEP_ALIVE: u32 = nix::request_code_read!(b'W', 5, 4) as u32;
const SET_TIMEOUT: u32 = nix::request_code_readwrite!(b'W', 6, 4) as u32;
const GET_TIMEOUT: u32 = nix::request_code_read!(b'W', 7, 4) as u32;

/// A watchdog of a host.
#[derive(Debug)]
pub(super) struct PseudoWatchdog {
    fails: bool,
    open: bool,
    may_disarm: bool,
    timeout: Duration,
    /// When it resets the host, CLOCK_BOOTTIME in ns; none: it is not armed.
    due: Option<u64>,
}

impl PseudoWatchdog {
    pub(super) fn new() -> PseudoWatchdog {
        PseudoWatchdog { fails: false, open: false, may_disarm: false, timeout: FIRST_TIMEOUT, due: None }
    }

    /// One that fails resets nothing.
    pub(super) fn set(&mut self, works: bool) {
        self.fails = !works;
        if self.fails {
            self.due = None;
        }
    }

    /// One program at a time.
    pub(super) fn open(&mut self, now: u64) -> Result<(), Errno> {
        if self.fails {
            return Err(Errno::ENODEV);
        }
        if self.open {
            return Err(Errno::EBUSY);
        }
        self.open = true;
        self.may_disarm = false;
        self.pet(now);
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.open = false;
        if self.may_disarm {
            self.due = None;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], now: u64) {
        self.may_disarm = bytes.contains(&b'V');
        self.pet(now);
    }

    pub(super) fn ioctl(&mut self, request: u32, given: &[u8], now: u64) -> Result<Vec<u8>, Errno> {
        let seconds = |timeout: Duration| i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX).to_ne_bytes().to_vec();
        if self.fails {
            return Err(Errno::ENODEV);
        }
        match request {
            GET_SUPPORT => {
                let mut info = [ABILITIES.to_ne_bytes().as_slice(), &[0; 4], IDENTITY].concat();
                info.resize(40, 0);
                Ok(info)
            }
            KEEP_ALIVE => {
                self.pet(now);
                Ok(vec![0; 4])
            }
            SET_TIMEOUT => {
                let asked = given.try_into().map(i32::from_ne_bytes).map_err(|_| Errno::EINVAL)?;
                if !(1..=60).contains(&asked) {
                    return Err(Errno::EINVAL);
                }
                self.timeout = Duration::from_secs(u64::from(asked.unsigned_abs()));
                self.pet(now);
                Ok(seconds(self.timeout))
            }
            GET_TIMEOUT => Ok(seconds(self.timeout)),
            _ => Err(Errno::ENOTTY),
        }
    }

    /// Whether the host is to be reset now.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    fn pet(&mut self, now: u64) {
        self.due = Some(now + u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_is_due_a_timeout_after_the_last_pet_also_when_its_program_has_died() {
        let mut dog = PseudoWatchdog::new();
        assert!(!dog.is_due(1000 * SECOND));
        dog.open(0).expect("free");
        assert_eq!(dog.open(0), Err(Errno::EBUSY));
        assert_eq!(dog.ioctl(SET_TIMEOUT, &2_i32.to_ne_bytes(), 0), Ok(2_i32.to_ne_bytes().to_vec()));
        dog.ioctl(KEEP_ALIVE, &[], SECOND).expect("a pet");
        dog.close();
        assert!(!dog.is_due(3 * SECOND - 1) && dog.is_due(3 * SECOND));
    }

    #[test]
    fn only_the_magic_character_before_the_close_disarms_it() {
        let mut dog = PseudoWatchdog::new();
        dog.open(0).expect("free");
        dog.write(b"V", 1);
        dog.write(b"x", 2);
        dog.close();
        assert!(dog.is_due(1000 * SECOND));
        dog.open(3).expect("free");
        dog.write(b"V", 4);
        dog.close();
        assert!(!dog.is_due(1000 * SECOND));
    }
}
