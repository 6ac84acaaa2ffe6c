//! What a program starts is in its control group, unless somebody puts it elsewhere. `su` does where `pam_systemd` is
//! configured, as in Debian: logind makes a session scope for whom it starts, and everything in it is out of reach of the
//! executor and the guard. Redis' OCF agent starts its server so.
//!
//! A helper is therefore the subreaper of everything below it (prctl(2), PR_SET_CHILD_SUBREAPER): as long as its operation
//! lasts it stays the ancestor of every daemon, wherever that was put, and puts it back.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cgroup::Cgroup;

/// Whether this process is a helper: in any other one, its descendants are not those of one operation.
static ADOPTED: AtomicBool = AtomicBool::new(false);

/// From now on this process is the ancestor of all that its children leave behind.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt() -> std::io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    ADOPTED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Moves every descendant of this process, a helper, that is not in `all` or below it into `group`.
///
/// # Errors
/// A sentence: one could not be moved, and may run on out of reach.
pub fn bring_back(all: &Cgroup, group: &Cgroup) -> Result<(), String> {
    if !ADOPTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    let below = descendants(me);
    if below.is_empty() {
        return Ok(());
    }
    let inside: BTreeSet<i32> = all.pids().into_iter().collect();
    for pid in below.into_iter().filter(|pid| !inside.contains(pid)) {
        if let Err(problem) = group.add(pid)
            && lives(pid)
        {
            return Err(format!("process {pid} left the control group of its resource: {problem}"));
        }
    }
    Ok(())
}

/// Children, their children, and so on. One that is started meanwhile is in the control group of its parent.
fn descendants(of: i32) -> Vec<i32> {
    let mut found = children(of);
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children(*pid);
        found.extend(more);
        next += 1;
    }
    found
}

/// Those of all threads (proc(5)).
fn children(of: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// A process that has ended, and that nobody has asked about yet, has no threads to move.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
