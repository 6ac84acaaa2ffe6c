//! Serial lines between hosts: a pair of pseudo-terminals and a pump between them, which can lose everything or make
//! noise of it. The far ends are the machine's; a host sees its end under the name that its manifests give it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

/// Programs lose a terminal by an ioctl.
mod calls {
    nix::ioctl_none_bad!(hang_up, nix::libc::TIOCVHANGUP);
}

use crate::error::{Attempt, Result};

/// How often noise is made, in ms, and how many bytes of it.
const NOISE: (u16, usize) = (20, 48);

/// What happens to what is sent on a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LineState {
    /// It arrives.
    Through,
    /// It is lost.
    Cut,
    /// It is lost, and random bytes arrive at both ends instead.
    Noise,
}

/// A serial line with two ends. Dropping it takes it away.
#[derive(Debug)]
pub struct SerialLine {
    name: String,
    ends: [PathBuf; 2],
    // Kept open: their settings stay as they are.
    devices: [OwnedFd; 2],
    state: Arc<AtomicU8>,
    ending: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
}

impl SerialLine {
    /// A line that works.
    pub(crate) fn new(name: &str) -> Result<SerialLine> {
        let ((left, left_device, left_path), (right, right_device, right_path)) = (end()?, end()?);
        let state = Arc::new(AtomicU8::new(LineState::Through as u8));
        let ending = Arc::new(AtomicBool::new(false));
        let (how, stop) = (Arc::clone(&state), Arc::clone(&ending));
        let pump = thread::Builder::new()
            .name(format!("line-{name}"))
            .spawn(move || pump(left, right, &how, &stop))
            .attempt(|| format!("starting the pump of the serial line {name}"))?;
        Ok(SerialLine {
            name: name.to_string(),
            ends: [left_path, right_path],
            devices: [left_device, right_device],
            state,
            ending,
            pump: Some(pump),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The machine's name of an end's device, 0 or 1.
    pub(crate) fn end(&self, index: usize) -> &Path {
        &self.ends[index % 2]
    }

    /// Takes an end, 0 or 1, away from everybody who has it open.
    pub(crate) fn hang_up(&self, index: usize) -> Result<()> {
        let device = self.devices[index % 2].as_raw_fd();
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: it takes no argument, and the descriptor is open.
        let done = unsafe { calls::hang_up(device) };
        done.map(drop).attempt(|| format!("hanging up {}", self.end(index).display()))
    }

    /// Changes what happens on it.
    pub(crate) fn set(&self, state: LineState) {
        self.state.store(state as u8, Ordering::Release);
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

/// The pump's side of an end, its device, and the device's name on the machine.
fn end() -> Result<(File, OwnedFd, PathBuf)> {
    let pair = openpty(None, None).attempt(|| "making a pseudo-terminal".into())?;
    let path = ttyname(&pair.slave).attempt(|| "naming a pseudo-terminal".into())?;
    // A terminal echoes until a program says otherwise; a serial line does not.
    let mut settings = tcgetattr(&pair.slave).attempt(|| format!("reading the settings of {}", path.display()))?;
    cfmakeraw(&mut settings);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &settings).attempt(|| format!("making {} raw", path.display()))?;
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).attempt(|| "preparing a pseudo-terminal".into())?;
    Ok((File::from(pair.master), pair.slave, path))
}

fn pump(mut left: File, mut right: File, state: &AtomicU8, ending: &AtomicBool) {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    while !ending.load(Ordering::Acquire) {
        let mut watched = [PollFd::new(left.as_fd(), PollFlags::POLLIN), PollFd::new(right.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut watched, PollTimeout::from(NOISE.0));
        let state = state.load(Ordering::Acquire);
        let through = state == LineState::Through as u8;
        let connected = [carry(&mut left, &mut right, through), carry(&mut right, &mut left, through)];
        if connected != [true, true] {
            // A far end that nobody has open answers at once.
            thread::sleep(Duration::from_millis(NOISE.0.into()));
        }
        if state == LineState::Noise as u8 {
            for end in [&mut left, &mut right] {
                let bytes: Vec<u8> = (0..NOISE.1).map(|_| random(&mut noise)).collect();
                // A full buffer loses it like any line that nobody reads.
                let _ = end.write(&bytes);
            }
        }
    }
}

/// Takes what one end sent and gives it to the other, or drops it. Returns whether anybody has the end open.
fn carry(from: &mut File, to: &mut File, through: bool) -> bool {
    let mut buffer = [0; 4096];
    match from.read(&mut buffer) {
        Ok(length) => {
            if through {
                let _ = to.write(&buffer[..length]);
            }
            true
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// xorshift64: the next byte of something that no frame looks like.
fn random(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 32) as u8
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::time::Duration;

    use super::*;
    use crate::shell::wait_for;

    #[test]
    fn a_line_carries_both_ways_until_it_is_cut_and_makes_noise() {
        let line = SerialLine::new("com").expect("a line");
        let open = |index| OpenOptions::new().read(true).write(true).open(line.end(index)).expect("its device");
        let (mut a, mut b) = (open(0), open(1));
        a.write_all(b"from a\n").expect("a writes");
        let mut found = [0; 7];
        b.read_exact(&mut found).expect("b reads");
        assert_eq!(&found, b"from a\n");
        b.write_all(&[0, 3, 4, 255]).expect("b writes what a terminal would act on");
        let mut found = [0; 4];
        a.read_exact(&mut found).expect("a reads");
        assert_eq!(found, [0, 3, 4, 255]);
        line.set(LineState::Cut);
        fcntl(&a, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a no longer waits");
        b.write_all(b"lost").expect("b writes");
        line.set(LineState::Noise);
        let mut noise = Vec::new();
        wait_for("noise", Duration::from_secs(10), |_| {
            let mut buffer = [0; 4096];
            if let Ok(length) = a.read(&mut buffer) {
                noise.extend_from_slice(&buffer[..length]);
            }
            Ok((noise.len() > 500).then_some(()))
        })
        .expect("noise at both ends");
    }
}
