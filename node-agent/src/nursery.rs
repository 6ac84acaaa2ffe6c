//! Where helpers are born: the hidden program `holdfast nursery`, a small process with one thread, which the agent starts
//! once.
//!
//! A helper that was a copy of the agent would cost more than most helpers do: its page tables at first, and then every
//! page that the agent writes; and a program that is executed anew pays for its relocations each time. The nursery has
//! paid for them, and is small.
//!
//! It decides nothing, and does nothing behind an agent's back: it is in the agent's control group, which the guard kills
//! first, and the kernel kills it with the agent, before anybody can see that the agent has ended (`PR_SET_PDEATHSIG`). The
//! helpers are the agent's children, not its own (`CLONE_PARENT`): the agent sees their ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send, sendmsg,
    setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;

use crate::helper::helper_main;
use crate::spawn::{self, Child, Spawn};

/// Longest wait for a birth. It takes less than a millisecond.
const BIRTH: Duration = Duration::from_secs(5);

/// Descriptors of a request, in their order: directory of the helper's control group, its standard input and output.
const DESCRIPTORS: usize = 3;

/// The agent's end.
#[derive(Debug)]
pub struct Nursery {
    program: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    process: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        spawn::signal(&self.process.pidfd, libc::SIGKILL);
        let _ = self.process.wait(Some(Duration::from_secs(1)));
    }
}

impl Nursery {
    /// One of the `holdfast` program at this path. Nothing is started before the first birth.
    pub fn new(program: &Path) -> Nursery {
        Nursery { program: program.to_owned(), running: Mutex::new(None) }
    }

    /// A helper with this standard input and output, born in a control group. It is a child of this process. A nursery that
    /// has died is replaced once.
    ///
    /// # Errors
    /// When there is no nursery, or the kernel refuses a new process.
    pub fn bear(&self, cgroup: BorrowedFd<'_>, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Child> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = None;
        for _ in 0..2 {
            let nursery = match running.take() {
                Some(nursery) => nursery,
                None => self.start()?,
            };
            // Should one have been born whose number was lost: it was asked for nothing yet, and ends with its control group.
            let Ok(answer) = ask(&nursery, [cgroup, input, output]) else {
                lost = Some(io::Error::other("the process that starts helpers does not answer"));
                continue;
            };
            *running = Some(nursery);
            return match answer {
                // A child that nobody else waits for: its number is not given to another one.
                pid if pid > 0 => Ok(Child { pid, pidfd: spawn::pidfd(pid)? }),
                refused => Err(io::Error::from_raw_os_error(-refused)),
            };
        }
        Err(lost.unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    fn start(&self) -> io::Result<Running> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let limit = TimeVal::new(libc::time_t::try_from(BIRTH.as_secs()).unwrap_or(libc::time_t::MAX), 0);
        setsockopt(&ours, sockopt::ReceiveTimeout, &limit)?;
        let environment: Vec<(String, String)> = std::env::vars().collect();
        let error = io::stderr();
        let process = spawn::spawn(&Spawn {
            program: &self.program,
            args: &["holdfast".to_owned(), "nursery".to_owned()],
            environment: &environment,
            directory: Path::new("/"),
            stdio: [Some(theirs.as_fd()), None, Some(error.as_fd())],
            identity: None,
            cgroup: None,
        })
        .map_err(io::Error::other)?;
        let running = Running { socket: ours, process };
        // Before it ends with this process, it must not be asked for anything.
        number(&running.socket)?;
        Ok(running)
    }
}

fn ask(nursery: &Running, descriptors: [BorrowedFd<'_>; DESCRIPTORS]) -> io::Result<i32> {
    let raw: [RawFd; DESCRIPTORS] = descriptors.map(|fd| fd.as_raw_fd());
    let rights = [ControlMessage::ScmRights(&raw)];
    let socket = nursery.socket.as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    number(&nursery.socket)
}

/// What the nursery says: 0, it is ready; the number of a helper; or an error number, negated.
fn number(socket: &OwnedFd) -> io::Result<i32> {
    let mut bytes = [0_u8; 4];
    loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Ok(4) => return Ok(i32::from_ne_bytes(bytes)),
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The program. Standard input is the socket to the agent; ends with it.
pub fn nursery_main() -> ExitCode {
    if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
        return ExitCode::FAILURE;
    }
    let socket = 0;
    let say = |number: i32| send(socket, &number.to_ne_bytes(), MsgFlags::MSG_NOSIGNAL);
    if say(0).is_err() {
        eprintln!("holdfast nursery is started by the agent, with a socket as its standard input");
        return ExitCode::from(2);
    }
    loop {
        let asked = match request(socket) {
            Ok(Some(asked)) => asked,
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("holdfast nursery: {error}");
                return ExitCode::FAILURE;
            }
        };
        let [cgroup, input, output] = &asked;
        let answer = match spawn::fork_sibling(cgroup.as_fd()) {
            Ok(None) => {
                if become_helper(input, output).is_err() {
                    return ExitCode::FAILURE;
                }
                drop(asked);
                return helper_main();
            }
            Ok(Some(pid)) => pid,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        if say(answer).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

/// The next request; none: the agent has gone.
fn request(socket: RawFd) -> io::Result<Option<[OwnedFd; DESCRIPTORS]>> {
    let mut byte = [0_u8; 1];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; DESCRIPTORS]);
    let message = loop {
        match recvmsg::<()>(socket, &mut data, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut all = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made them for this process.
            #[expect(unsafe_code, reason = "owning descriptors out of a message")]
            all.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    let count = all.len();
    let whole = <[OwnedFd; DESCRIPTORS]>::try_from(all);
    whole.map(Some).map_err(|_| io::Error::other(format!("a request with {count} descriptors")))
}

/// Gives the child its standard input and output, a session and a name.
fn become_helper(input: &OwnedFd, output: &OwnedFd) -> nix::Result<()> {
    nix::unistd::dup2_stdin(input)?;
    nix::unistd::dup2_stdout(output)?;
    nix::unistd::setsid()?;
    nix::sys::prctl::set_name(c"helper")
}
