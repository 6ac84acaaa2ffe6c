//! A serial line between two servers: a thread that writes the newest heartbeat in its compact form and reads the
//! peer's.
//!
//! Nothing waits for it. A heartbeat that the line didn't come to is replaced by the next one. A device that is missing,
//! hangs or vanishes is an error of this path; it is opened again until it works.
//!
//! A compact frame is authenticated, not encrypted: it holds no secret, and a check over bytes needs no number that must
//! never repeat, for which there is no room. Bound in are key, namespace, sub-cluster and path. What protects from
//! repetition is in the frame: boot counter and send time, which the core wants to see grow.
//!
//! ```text
//! byte 0       version (1) in the two high bits; the low six bits of the key's number
//! bytes 1-49   the compact frame
//! bytes 50-59  the first 10 bytes of HMAC-SHA-256
//! ```
//!
//! 80 bits are enough on a line that takes 180 attempts a second.

mod framing;
mod port;

pub use framing::{CONTENT, Deframer, FRAME, encode as encode_frame};

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_core::Input;
use holdfast_core::compact::{COMPACT, Compact};
use holdfast_core::frame::Frame;
use holdfast_core::names::{PathName, ServerName};
use holdfast_core::time::Instant;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::keys::Keys;
use super::refusals::Refusals;
use super::seal::{Keyring, SealError, TAG};
use super::seen::{Mark, Seen};
use crate::clock;
use crate::inbox::Inbox;
use port::Port;

const VERSION: u8 = 1;
/// How long a wait lasts at most, and how often a device that can't be used is tried again, in ms.
const LOOK: u16 = 250;
/// A line that takes no byte for so long hangs.
const HANGS: Duration = Duration::from_secs(1);
/// So many bytes that are no frame, without one in between, are told.
const NOISE: usize = 4 * FRAME;

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialWiring {
    /// Digest of the devices, as the view names it.
    pub wire: u32,
    /// Name of the path.
    pub name: PathName,
    /// Speed in bit/s.
    pub baud: u32,
    /// The device on this server.
    pub device: PathBuf,
    /// The other server, and its number.
    pub peer: (ServerName, u8),
}

/// Puts a compact frame into the content of a frame of the line.
pub fn seal(keys: &Keyring, path: &PathName, compact: &[u8; COMPACT]) -> Result<[u8; CONTENT], SealError> {
    let mut content = [0; CONTENT];
    let number = keys.sealing();
    content[0] = VERSION << 6 | number as u8 & 0x3f;
    content[1..=COMPACT].copy_from_slice(compact);
    let tag = keys.tag(number, &path.0, &content[..=COMPACT]).ok_or(SealError::NoKey)?;
    content[COMPACT + 1..].copy_from_slice(&tag);
    Ok(content)
}

/// Takes a compact frame out again, if one of the keys authenticates it.
pub fn open<'a>(keys: &Keyring, path: &PathName, content: &'a [u8; CONTENT]) -> Result<&'a [u8], SealError> {
    if content[0] >> 6 != VERSION {
        return Err(SealError::Malformed(CONTENT));
    }
    let (said, tag) = content.split_at(CONTENT - TAG);
    let alike: Vec<u32> = keys.numbers().filter(|number| *number as u8 & 0x3f == content[0] & 0x3f).collect();
    match alike.iter().any(|number| keys.verifies(*number, &path.0, said, tag)) {
        true => Ok(&said[1..]),
        false => Err(match alike.first() {
            Some(number) => SealError::Authentication(*number),
            None => keys.unknown(u32::from(content[0] & 0x3f)),
        }),
    }
}

/// A running serial line; it ends when dropped.
#[derive(Debug)]
pub struct Line {
    wiring: SerialWiring,
    shared: Arc<Shared>,
    wake: UnixStream,
}

#[derive(Debug, Default)]
struct Shared {
    next: Mutex<Option<[u8; FRAME]>>,
    error: Mutex<Option<String>>,
    refusals: Refusals,
    end: AtomicBool,
}

impl Line {
    /// Starts the thread; the device itself may be missing.
    pub fn start(wiring: SerialWiring, keys: Keys, seen: Seen, inbox: Inbox) -> io::Result<Line> {
        let error = Mutex::new(Some("not opened yet".to_owned()));
        let shared = Arc::new(Shared { error, ..Shared::default() });
        let (wake, woken) = UnixStream::pair()?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true)?;
        }
        let worker = Worker { wiring: wiring.clone(), shared: shared.clone(), keys, seen, inbox, woken };
        thread::Builder::new()
            .name(format!("serial-{}", wiring.name))
            .stack_size(192 << 10)
            .spawn(move || worker.run())?;
        Ok(Line { wiring, shared, wake })
    }

    /// What it was made from.
    pub fn wiring(&self) -> &SerialWiring {
        &self.wiring
    }

    /// Gives the newest heartbeat to the thread.
    pub fn beat(&self, keys: &Keyring, frame: &Frame) -> Result<(), SealError> {
        let compact = Compact::of(frame, &self.wiring.peer.0, &self.wiring.name);
        match compact.encode() {
            Ok(bytes) => {
                let line = framing::encode(&seal(keys, &self.wiring.name, &bytes)?);
                *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                // A full pipe has woken it already.
                let _ = (&self.wake).write(&[1]);
            }
            Err(e) => set(&self.wiring, &self.shared, Some(e.to_string())),
        }
        Ok(())
    }

    /// What keeps this server from using the line, if anything does.
    pub fn error(&self) -> Option<String> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was refused on it lately.
    pub fn refusals(&self) -> &Refusals {
        &self.shared.refusals
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        let _ = (&self.wake).write(&[1]);
    }
}

/// Keeps the newest error and logs each change once.
fn set(wiring: &SerialWiring, shared: &Shared, error: Option<String>) {
    let mut now = shared.error.lock().unwrap_or_else(PoisonError::into_inner);
    if *now != error {
        match &error {
            Some(e) => tracing::warn!(path = %wiring.name, "{e}"),
            None => tracing::info!(path = %wiring.name, "the serial line can be used"),
        }
        *now = error;
    }
}

struct Worker {
    wiring: SerialWiring,
    shared: Arc<Shared>,
    keys: Keys,
    seen: Seen,
    inbox: Inbox,
    woken: UnixStream,
}

/// What is being written.
#[derive(Default)]
struct Sending {
    frame: Option<[u8; FRAME]>,
    /// Bytes of it that are gone.
    done: usize,
    /// When the line last took a byte, or had nothing to take.
    moved: Instant,
}

impl Worker {
    fn run(self) {
        let _ = crate::realtime::raise_this_thread();
        while !self.ended() {
            let device = self.wiring.device.display();
            let problem = match Port::open(&self.wiring.device, self.wiring.baud) {
                Ok(port) => self.serve(&port).err().map(|e| format!("{device}: {e}")),
                Err(e) => Some(format!("{device} can't be opened: {e}")),
            };
            if problem.is_some() {
                set(&self.wiring, &self.shared, problem);
                thread::sleep(Duration::from_millis(LOOK.into()));
            }
        }
    }

    fn ended(&self) -> bool {
        self.shared.end.load(Ordering::Acquire)
    }

    /// Reads and writes until the device fails, or until the end.
    fn serve(&self, port: &Port) -> io::Result<()> {
        set(&self.wiring, &self.shared, None);
        let mut deframer = Deframer::default();
        let mut sending = Sending { moved: clock::now(), ..Sending::default() };
        let mut buffer = [0; 4096];
        while !self.ended() {
            self.refill(&mut sending);
            let wanted =
                if sending.frame.is_some() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            let mut watched =
                [PollFd::new(port.file().as_fd(), wanted), PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, PollTimeout::from(LOOK)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let ready = watched[0].revents().unwrap_or(PollFlags::empty());
            let _ = (&self.woken).read(&mut buffer);
            if ready.contains(PollFlags::POLLIN) {
                match port.file().read(&mut buffer) {
                    Ok(0) => return Err(io::Error::other("the device is gone")),
                    Ok(length) => self.take(&mut deframer, &buffer[..length]),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            } else if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                return Err(io::Error::other("the device is gone"));
            }
            if ready.contains(PollFlags::POLLOUT) {
                self.write(port, &mut sending)?;
            }
            let hangs = clock::now().since(sending.moved) > HANGS;
            let error = hangs.then(|| format!("{}: it takes no bytes", self.wiring.device.display()));
            set(&self.wiring, &self.shared, error);
        }
        Ok(())
    }

    /// Takes the newest heartbeat, unless one is half written.
    fn refill(&self, sending: &mut Sending) {
        if sending.done > 0 {
            return;
        }
        if sending.frame.is_none() {
            sending.moved = clock::now();
        }
        if let Some(next) = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            sending.frame = Some(next);
        }
    }

    fn write(&self, port: &Port, sending: &mut Sending) -> io::Result<()> {
        let Some(frame) = sending.frame else { return Ok(()) };
        match port.file().write(&frame[sending.done..]) {
            Ok(written) => {
                sending.done += written;
                sending.moved = clock::now();
                if sending.done >= FRAME {
                    (sending.frame, sending.done) = (None, 0);
                }
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn take(&self, deframer: &mut Deframer, bytes: &[u8]) {
        for content in deframer.push(bytes) {
            if let Err(reason) = self.take_frame(&content) {
                self.shared.refusals.refuse(&self.wiring.name, Some(&self.wiring.peer.0), reason);
            }
        }
        if deframer.garbage() >= NOISE {
            let reason = "bytes arrive that are no frame: noise, another speed at the other end, or something else \
                          that is connected";
            self.shared.refusals.refuse(&self.wiring.name, None, reason.to_owned());
        }
    }

    fn take_frame(&self, content: &[u8; CONTENT]) -> Result<(), String> {
        let keys = self.keys.current().map_err(|e| e.to_string())?;
        let compact = open(&keys, &self.wiring.name, content).map_err(|e| e.to_string())?;
        let compact = Compact::decode(compact).map_err(|e| e.to_string())?;
        let (peer, id) = &self.wiring.peer;
        if compact.id != *id {
            return Err(format!(
                "server number {} speaks on the line, {peer} has number {id}: two servers with one number, or a line \
                 that leads back to this server",
                compact.id
            ));
        }
        self.seen.take(peer, Mark::from(&compact))?;
        self.inbox.offer(Input::Compact { path: self.wiring.name.clone(), compact });
        Ok(())
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
