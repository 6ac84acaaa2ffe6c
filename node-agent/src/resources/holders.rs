//! Who keeps a mount busy, and ending them: only processes that use exactly this mount, found by the number of the
//! mount and not by its device, which a bind mount shares with the file system that it shows (ending all users of that
//! has brought down whole hosts).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_api::v1::Holders;
use nix::libc;

use super::mounts::mount_id;
use crate::cgroup::{Cgroup, Hierarchy, describe};
use crate::spawn;

/// A process that uses a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// By what, e.g. `working directory`.
    pub by: BTreeSet<&'static str>,
    /// Belongs to the group.
    pub own: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by: Vec<&str> = self.by.iter().copied().collect();
        write!(f, "{} by {}", describe(self.pid), by.join(", "))
    }
}

/// All processes that use the mount with this number. `group`: the control group whose processes are the group's own.
pub fn find(mount: u64, group: &Cgroup) -> Vec<Holder> {
    let own: BTreeSet<i32> = group.pids().into_iter().collect();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let by = uses(&entry.path(), mount);
        if !by.is_empty() {
            found.push(Holder { pid, by, own: own.contains(&pid) });
        }
    }
    found
}

fn uses(process: &Path, mount: u64) -> BTreeSet<&'static str> {
    let mut by = BTreeSet::new();
    let leads_there = |path: &Path| mount_id(path).is_ok_and(|id| id == mount);
    for (link, name) in [("cwd", "working directory"), ("root", "root directory"), ("exe", "program")] {
        if leads_there(&process.join(link)) {
            by.insert(name);
        }
    }
    for (directory, name) in [("fd", "open file"), ("map_files", "mapped file")] {
        let Ok(entries) = fs::read_dir(process.join(directory)) else { continue };
        if entries.flatten().any(|entry| leads_there(&entry.path())) {
            by.insert(name);
        }
    }
    by
}

/// Ends the holders that `policy` allows to end: asks, then kills. Gives a sentence about what was done, and the
/// holders that are not to be ended.
///
/// The agent, the guard, helpers and process 1 are never ended.
pub fn end(mount: u64, policy: Holders, group: &Cgroup, cgroups: &Hierarchy, limit: Duration) -> (String, Vec<Holder>) {
    let ours: BTreeSet<i32> = [cgroups.agent(), cgroups.guard(), cgroups.helpers(), cgroups.checks()]
        .iter()
        .flat_map(Cgroup::pids)
        .chain([1])
        .collect();
    let may_end = |holder: &Holder| match policy {
        Holders::Any => !ours.contains(&holder.pid),
        Holders::GroupOnly => holder.own,
        Holders::Report => false,
    };
    let until = Instant::now() + limit;
    // Half of the time to end by themselves, at most two seconds.
    let asked_until = Instant::now() + (limit / 2).min(Duration::from_secs(2));
    let mut ended: BTreeSet<String> = BTreeSet::new();
    let mut asked: BTreeSet<i32> = BTreeSet::new();
    loop {
        let all = find(mount, group);
        let (victims, others): (Vec<Holder>, Vec<Holder>) = all.into_iter().partition(|h| may_end(h));
        if victims.is_empty() || Instant::now() >= until {
            let done: Vec<String> = ended.into_iter().collect();
            let sentence =
                if done.is_empty() { String::new() } else { format!("ended what kept it busy: {}", done.join("; ")) };
            return (sentence, [victims, others].concat());
        }
        let kill = Instant::now() >= asked_until;
        for holder in &victims {
            // Looked at again through the descriptor, so that a number that was reused in between is spared.
            let Ok(pidfd) = spawn::pidfd(holder.pid) else { continue };
            if uses(Path::new(&format!("/proc/{}", holder.pid)), mount).is_empty() {
                continue;
            }
            if kill {
                spawn::signal(&pidfd, libc::SIGKILL);
            } else if asked.insert(holder.pid) {
                ended.insert(holder.to_string());
                spawn::signal(&pidfd, libc::SIGTERM);
            }
        }
        let pause = Instant::now() + Duration::from_millis(20);
        for holder in &victims {
            if let Ok(pidfd) = spawn::pidfd(holder.pid) {
                spawn::ended(&pidfd, Some(pause.saturating_duration_since(Instant::now())));
            }
        }
    }
}
