//! `holdfast lab-init`: the first process of a lab host. It makes the host's namespaces and mounts, then serves
//! as its process number 1.
//!
//! Two stages, because a process can't enter a new PID namespace itself, only its children can:
//! the outer stage joins the host's cgroup, makes the namespaces, forks, prints `pid N` (as the machine sees
//! it) and waits; the inner stage mounts the host's view, prints `ready` and supervises. Standard input is the
//! lab's command channel and at the same time the host's power cord: at its end the inner stage exits and the
//! kernel kills everything else in the host.

mod mounts;
mod supervisor;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, setsid};

use crate::error::{Attempt, LabError, Result};
use crate::spec::HostSpec;

/// Runs `lab-init` with the arguments after its name: `--spec FILE`. Returns when the host is off.
///
/// Must be called before the program starts threads: it forks.
///
/// # Errors
/// Wrong arguments, an unreadable file, or a namespace or mount that the kernel refuses.
pub fn init_main(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let args: Vec<OsString> = args.into_iter().collect();
    let [flag, file] = args.as_slice() else {
        return Err(usage());
    };
    if flag != "--spec" {
        return Err(usage());
    }
    let file = PathBuf::from(file);
    let text = fs::read(&file).attempt(|| format!("reading {}", file.display()))?;
    let spec: HostSpec = serde_json::from_slice(&text).map_err(|error| LabError::Manifest {
        file,
        field: "host spec".into(),
        problem: error.to_string(),
    })?;
    outer(&spec)
}

fn usage() -> LabError {
    LabError::Missing {
        what: "the arguments `--spec FILE`".into(),
        hint: "this command is run by the lab itself, use `holdfast lab up`".into(),
    }
}

fn outer(spec: &HostSpec) -> Result<()> {
    // A session of its own: Ctrl-C at the terminal of `lab up` reaches only `lab up`.
    setsid().attempt(|| "starting a session".into())?;
    fs::write(spec.cgroup.join("cgroup.procs"), "0").attempt(|| format!("joining {}", spec.cgroup.display()))?;
    let namespaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).attempt(|| "making the host's namespaces (needs root)".into())?;
    #[expect(unsafe_code, reason = "a new PID namespace begins with a fork")]
    // SAFETY: the program has one thread at this point (contract of `init_main`).
    match unsafe { fork() }.attempt(|| "forking the host's first process".into())? {
        ForkResult::Child => {
            let outcome = mounts::enter(spec).and_then(|()| {
                say("ready")?;
                supervisor::run(spec)
            });
            if let Err(error) = outcome {
                let _ = say(&format!("error {error}"));
                std::process::exit(1);
            }
            std::process::exit(0);
        }
        ForkResult::Parent { child } => {
            say(&format!("pid {child}"))?;
            // Whatever it ends with: off is off.
            let _ = waitpid(child, None);
            Ok(())
        }
    }
}

/// One line to the lab.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).attempt(|| "answering the lab".into())
}
