//! Process number 1 of a host, after its mounts are made: starts, restarts and reaps.
//!
//! Commands come as lines on standard input, each is answered by one line on standard output, `ok …` or
//! `error …`: `start NAME` (and keep it running: a service that dies is started again at once), `stop NAME`
//! (SIGTERM, and leave it down), `leave NAME` (no signal, but leave it down when it ends), `state NAME` (`up PID` or `down`), `ping`. The end of input means power off.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::say;
use crate::error::{Attempt, Result};
use crate::spec::{HostSpec, LOG_DIR, PATH, ServiceSpec};

/// A service that ends sooner than this after its start is started again only after the same time, so that a
/// program that can't start does not keep the machine busy.
const SHORT_LIFE: Duration = Duration::from_millis(200);

struct Service {
    spec: ServiceSpec,
    wanted: bool,
    pid: Option<Pid>,
    started: Instant,
    /// Earliest moment of the next start.
    not_before: Instant,
}

/// Supervises until the lab closes the command channel.
pub(super) fn run(spec: &HostSpec) -> Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().attempt(|| "blocking SIGCHLD".into())?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .attempt(|| "watching for children".into())?;
    let now = Instant::now();
    let mut services: BTreeMap<String, Service> = spec
        .services
        .iter()
        .map(|service| {
            let state = Service { spec: service.clone(), wanted: false, pid: None, started: now, not_before: now };
            (service.name.clone(), state)
        })
        .collect();
    let mut input = Vec::new();
    loop {
        let timeout = start_what_is_due(&mut services);
        let stdin = std::io::stdin();
        let mut watched =
            [PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).attempt(|| "waiting for commands".into()),
        }
        let commands = watched[0].revents().is_some_and(|events| !events.is_empty());
        while let Ok(Some(_)) = children.read_signal() {}
        reap(&mut services);
        if commands {
            let mut chunk = [0; 4096];
            let count = stdin.lock().read(&mut chunk).attempt(|| "reading commands".into())?;
            if count == 0 {
                return Ok(());
            }
            input.extend_from_slice(&chunk[..count]);
            while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = input.drain(..=end).collect();
                say(&answer(String::from_utf8_lossy(&line).trim(), &mut services))?;
            }
        }
    }
}

/// Carries one command out and words the answer.
fn answer(line: &str, services: &mut BTreeMap<String, Service>) -> String {
    let (verb, name) = line.split_once(' ').unwrap_or((line, ""));
    if verb == "ping" {
        return "ok".into();
    }
    let known = services.keys().cloned().collect::<Vec<_>>().join(", ");
    let Some(service) = services.get_mut(name) else {
        return format!("error no service is named {name:?}; there are: {known}");
    };
    match verb {
        "start" => {
            service.wanted = true;
            service.not_before = Instant::now();
            start_what_is_due(services);
            "ok".into()
        }
        "stop" => {
            service.wanted = false;
            if let Some(pid) = service.pid {
                let _ = kill(pid, Signal::SIGTERM);
            }
            "ok".into()
        }
        "leave" => {
            service.wanted = false;
            "ok".into()
        }
        "state" => match service.pid {
            Some(pid) => format!("ok up {pid}"),
            None => "ok down".into(),
        },
        _ => format!("error unknown command {verb:?}; allowed: start, stop, leave, state, ping"),
    }
}

/// Starts every wanted service that is down and due; returns how long until the next is due.
fn start_what_is_due(services: &mut BTreeMap<String, Service>) -> PollTimeout {
    let now = Instant::now();
    let mut next: Option<Duration> = None;
    for service in services.values_mut().filter(|service| service.wanted && service.pid.is_none()) {
        if service.not_before <= now {
            match start(&service.spec) {
                Ok(pid) => {
                    service.pid = Some(pid);
                    service.started = now;
                    continue;
                }
                Err(error) => {
                    note(&service.spec.name, &format!("cannot start: {error}"));
                    service.not_before = now + SHORT_LIFE;
                }
            }
        }
        let left = service.not_before.saturating_duration_since(now) + Duration::from_millis(1);
        next = Some(next.map_or(left, |known| known.min(left)));
    }
    next.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
}

fn start(spec: &ServiceSpec) -> std::io::Result<Pid> {
    let [program, args @ ..] = spec.command.as_slice() else {
        return Err(std::io::Error::other("its command is empty"));
    };
    let cgroup = Path::new("/sys/fs/cgroup").join(&spec.name);
    fs::create_dir_all(&cgroup)?;
    let procs = OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))?;
    let log = log_file(&spec.name)?;
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
    command.envs(&spec.environment).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    #[expect(unsafe_code, reason = "a service must be in its cgroup and have a clean signal mask before it runs")]
    // SAFETY: only a write to an open file and signal calls happen between fork and exec.
    unsafe {
        command.pre_exec(move || {
            (&procs).write_all(b"0")?;
            SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?))
}

/// Collects every process that has ended, its own services and whatever was orphaned to it.
fn reap(services: &mut BTreeMap<String, Service>) {
    let now = Instant::now();
    loop {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal.to_string()),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        if let Some(service) = services.values_mut().find(|service| service.pid == Some(pid)) {
            note(&service.spec.name, &format!("process {pid} ended with {how}"));
            service.pid = None;
            let short = now.duration_since(service.started) < SHORT_LIFE;
            service.not_before = if short { now + SHORT_LIFE } else { now };
        }
    }
}

fn log_file(service: &str) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(Path::new(LOG_DIR).join(format!("{service}.log")))
}

/// A line of the supervisor in a service's log. A log that can't be written changes nothing else.
fn note(service: &str, text: &str) {
    if let Ok(mut log) = log_file(service) {
        let _ = writeln!(log, "lab-init: {text}");
    }
}
