//! Starts a program inside a control group: born there by `clone3`, because moving a running process costs tens of
//! milliseconds of grace period in the kernel and leaves a moment in which a kill would miss it.
//!
//! Says whether the program could be executed at all; what it does afterwards is the caller's business.

use std::ffi::{CString, NulError, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What to start and how.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Program, an absolute path.
    pub program: &'a Path,
    /// Arguments, the program's name first.
    pub args: &'a [String],
    /// The whole environment.
    pub environment: &'a [(String, String)],
    /// Where it runs.
    pub directory: &'a Path,
    /// Standard input, output and error; none: /dev/null.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
    /// Who it runs as; none: as the caller.
    pub identity: Option<&'a Identity>,
    /// Directory of the control group it is born in; none: the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A text with a zero byte.
    #[error("program, arguments and environment must not contain a zero byte")]
    ZeroByte(#[from] NulError),
    /// The kernel refused a new process.
    #[error("no new process: {0}")]
    Clone(io::Error),
    /// A step of the new process failed before the program ran.
    #[error("{step}: {source}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: io::Error,
    },
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    /// Its number.
    pub pid: i32,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit {code}"),
            Exit::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "ended by {signal}"),
                Err(_) => write!(f, "ended by signal {number}"),
            },
        }
    }
}

const STEPS: [&str; 6] =
    ["", "entering the working directory", "taking the groups", "taking the group", "taking the user", "executing"];

/// Starts the program; returns when it was executed.
///
/// # Errors
/// [`SpawnError`]; then nothing runs.
#[expect(unsafe_code, reason = "clone3 and what a child may do before it executes a program")]
pub fn spawn(what: &Spawn<'_>) -> Result<Child, SpawnError> {
    let program = CString::new(what.program.as_os_str().as_bytes())?;
    let directory = CString::new(what.directory.as_os_str().as_bytes())?;
    let texts = what.args.iter().map(|a| CString::new(a.as_str())).collect::<Result<Vec<_>, _>>()?;
    let variables =
        what.environment.iter().map(|(k, v)| CString::new(format!("{k}={v}"))).collect::<Result<Vec<_>, _>>()?;
    let list = |all: &[CString]| {
        let mut pointers: Vec<*const libc::c_char> = all.iter().map(|t| t.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let (args, environment) = (list(&texts), list(&variables));
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .map_err(|e| SpawnError::Clone(e.into()))?;
    // Above the standard ones, so that putting one in place can't overwrite the next.
    let mut stdio = Vec::new();
    for fd in &what.stdio {
        let raw = fd.as_ref().map_or(null.as_raw_fd(), AsRawFd::as_raw_fd);
        stdio.push(high(raw).map_err(SpawnError::Clone)?);
    }
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| SpawnError::Clone(e.into()))?;
    let failure = high(write.as_raw_fd()).map_err(SpawnError::Clone)?;
    drop(write);

    let plan = Plan {
        program: &program,
        args: args.as_ptr(),
        environment: environment.as_ptr(),
        directory: &directory,
        stdio: [stdio[0].as_raw_fd(), stdio[1].as_raw_fd(), stdio[2].as_raw_fd()],
        identity: what.identity,
        failure: failure.as_raw_fd(),
    };
    // SAFETY: the child makes only system calls on memory prepared above, until it executes or ends.
    let child = unsafe { clone_into(what.cgroup, 0) }.map_err(SpawnError::Clone)?;
    let Some(child) = child else {
        // SAFETY: this is the child.
        unsafe { become_program(&plan) }
    };
    drop(failure);
    let mut report = [0_u8; 5];
    let count = loop {
        match nix::unistd::read(&read, &mut report) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(SpawnError::Clone(error.into())),
            Ok(count) => break count,
        }
    };
    if count < report.len() {
        return Ok(child);
    }
    let _ = child.wait(None);
    let errno = i32::from_ne_bytes([report[1], report[2], report[3], report[4]]);
    let name = STEPS.get(usize::from(report[0])).copied().unwrap_or("preparing");
    let step = match report[0] {
        1 => format!("{name} {}", what.directory.display()),
        5 => format!("{name} {}", what.program.display()),
        _ => name.to_owned(),
    };
    Err(SpawnError::Step { step, source: io::Error::from_raw_os_error(errno) })
}

/// Goes on as a second process in another control group, running `work`; standard streams are /dev/null there and all
/// other files closed, except `keep`. Only for processes with one thread.
///
/// # Errors
/// When the kernel refuses a new process.
#[expect(unsafe_code, reason = "clone3 in a process with one thread")]
pub fn fork_into(cgroup: BorrowedFd<'_>, keep: &[RawFd], work: impl FnOnce()) -> io::Result<Child> {
    // SAFETY: the caller has one thread, so no lock is held by another one in the copy.
    match unsafe { clone_into(Some(cgroup), 0) }? {
        Some(child) => Ok(child),
        None => {
            // SAFETY: plain system calls on this process's own descriptors.
            unsafe {
                let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                for fd in 0..3 {
                    libc::dup2(null, fd);
                }
                let mut keep = keep.to_vec();
                keep.sort_unstable();
                let mut from = 3_u32;
                for fd in keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()).filter(|fd| *fd >= 3) {
                    if fd > from {
                        libc::syscall(libc::SYS_close_range, from, fd - 1, 0_u32);
                    }
                    from = fd + 1;
                }
                libc::syscall(libc::SYS_close_range, from, u32::MAX, 0_u32);
                libc::setsid();
            }
            work();
            // SAFETY: ends the copy without running what the original registered for its end.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Goes on as a second process in another control group, as a child of the caller's parent. None in that process; its
/// number in the caller. Only for processes with one thread.
///
/// # Errors
/// When the kernel refuses a new process.
#[expect(unsafe_code, reason = "clone3 in a process with one thread")]
pub fn fork_sibling(cgroup: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    // SAFETY: the caller has one thread, so no lock is held by another one in the copy.
    Ok(unsafe { clone_into(Some(cgroup), libc::CLONE_PARENT as u64) }?.map(|sibling| sibling.pid))
}

struct Plan<'a> {
    program: &'a CString,
    args: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    directory: &'a CString,
    stdio: [RawFd; 3],
    identity: Option<&'a Identity>,
    failure: RawFd,
}

fn high(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a fresh descriptor that nobody else owns.
    #[expect(unsafe_code, reason = "owning the duplicate of a descriptor")]
    unsafe {
        let new = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10);
        if new < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(new)) }
    }
}

/// As `fork`, into a control group, with a descriptor of the child. None in the child. `flags`: more of them.
///
/// # Safety
/// With more than one thread, the child may make system calls only.
#[expect(unsafe_code, reason = "clone3")]
unsafe fn clone_into(cgroup: Option<BorrowedFd<'_>>, flags: u64) -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: plain integers; all zeros is the documented "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64 | flags;
    args.pidfd = &raw mut pidfd as u64;
    // Whose child is another's takes that one's.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        // Spelt out because the constant has changed its type between versions of libc.
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of everything, as with fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(None),
        pid if pid > 0 => {
            // SAFETY: the kernel stored a fresh descriptor.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Child { pid: pid as i32, pidfd }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The rest of the child: only system calls, no allocation.
///
/// # Safety
/// Only in a child fresh from `clone_into`.
#[expect(unsafe_code, reason = "between clone and execve")]
unsafe fn become_program(plan: &Plan<'_>) -> ! {
    // SAFETY: pointers of `plan` are valid copies of the parent's memory; everything else is plain numbers.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::setsid();
        // What the caller has for itself (protection from the OOM killer, real-time priority) is not for others.
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
        }
        let ordinary: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary);
        for (target, fd) in plan.stdio.iter().enumerate() {
            libc::dup2(*fd, target as i32);
        }
        if libc::chdir(plan.directory.as_ptr()) != 0 {
            fail(plan.failure, 1);
        }
        if let Some(identity) = plan.identity {
            if libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) != 0 {
                fail(plan.failure, 2);
            }
            if libc::setgid(identity.gid) != 0 {
                fail(plan.failure, 3);
            }
            if libc::setuid(identity.uid) != 0 {
                fail(plan.failure, 4);
            }
        }
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        libc::execve(plan.program.as_ptr(), plan.args, plan.environment);
        fail(plan.failure, 5)
    }
}

/// # Safety
/// Only in a child fresh from `clone_into`.
#[expect(unsafe_code, reason = "between clone and execve")]
unsafe fn fail(pipe: RawFd, step: u8) -> ! {
    let errno = Errno::last_raw().to_ne_bytes();
    let report = [step, errno[0], errno[1], errno[2], errno[3]];
    // SAFETY: a live buffer of this length.
    unsafe {
        libc::write(pipe, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

impl Child {
    /// Waits for its end, at most `limit`; none if it still runs then. Reaps it.
    pub fn wait(&self, limit: Option<Duration>) -> Option<Exit> {
        if !ended(&self.pidfd, limit) {
            return None;
        }
        self.reap()
    }

    /// Its end, if it has ended.
    pub fn reap(&self) -> Option<Exit> {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        use std::os::fd::AsFd;
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
            _ => None,
        }
    }
}

/// Whether the process of a pidfd has ended, waiting at most `limit` (none: for ever).
pub fn ended(pidfd: &OwnedFd, limit: Option<Duration>) -> bool {
    use std::os::fd::AsFd;
    let until = limit.map(|limit| std::time::Instant::now() + limit);
    loop {
        let left = until.map(|until| until.saturating_duration_since(std::time::Instant::now()));
        // Rounded up: a wait of zero would spin.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(count) if count > 0 => return true,
            Ok(_) | Err(Errno::EINTR) if left.is_none_or(|left| !left.is_zero()) => {}
            _ => return false,
        }
    }
}

/// A descriptor of a process that need not be a child; readable once it has ended.
///
/// # Errors
/// `ESRCH` when there is no such process.
#[expect(unsafe_code, reason = "pidfd_open")]
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the result is a fresh descriptor.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

/// Sends a signal to exactly that process; nothing if it has ended.
#[expect(unsafe_code, reason = "pidfd_send_signal")]
pub fn signal(pidfd: &OwnedFd, signal: i32) {
    // SAFETY: plain numbers.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0);
    }
}

/// How a process that is no child ended, if the kernel tells it (Linux 6.15 and later; the descriptor must have been
/// open before the end).
#[expect(unsafe_code, reason = "PIDFD_GET_INFO")]
pub fn exit_of(pidfd: &OwnedFd) -> Option<Exit> {
    // struct pidfd_info of linux/pidfd.h, its first published size: mask, cgroup id, twelve 32-bit numbers of which the
    // last is the exit code.
    #[repr(C)]
    struct Info {
        mask: u64,
        cgroup: u64,
        numbers: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = Info { mask: PIDFD_INFO_EXIT, cgroup: 0, numbers: [0; 11], exit_code: 0 };
    let request = nix::request_code_readwrite!(0xff, 11, size_of::<Info>());
    // SAFETY: the kernel writes at most the size that is part of the request.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request, &raw mut info) };
    if result != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    let status = info.exit_code;
    Some(if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    })
}

/// Finds a program as a shell does: a name without a slash is looked for in `PATH` of this process.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    if name.contains('/') {
        return Some(name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    path.as_bytes()
        .split(|b| *b == b':')
        .map(|dir| Path::new(OsStr::from_bytes(dir)).join(name))
        .find(|candidate| nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok())
}

/// `PATH` where none was given.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
