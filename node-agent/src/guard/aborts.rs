//! The last call of data services: ABORT_NET and ABORT, when their processes were killed and their addresses are gone.
//!
//! Nothing rests on them, so they get the time that the rest of the stop takes, and what is left of authority; then they
//! are killed. Once begun they are over before anything may start again.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::time::Instant;
use nix::libc;

use super::enforce::end_with;
use super::kill_list::Entry;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::clock;
use crate::helper::state_dir;
use crate::resources::data_service::{self, Abort};
use crate::spawn::{self, Child};

/// How long before the end of authority they are killed: as long as killing takes.
const KILLING: Duration = Duration::from_millis(50);

/// One data service.
pub(super) struct AbortWork {
    abort: Abort,
    group: String,
    resource: String,
    /// The methods run there.
    cgroup: Cgroup,
    begun: bool,
    child: Option<Child>,
}

/// Those of the list, last started first.
pub(super) fn of(entries: &[Entry], cgroups: &Hierarchy) -> Vec<AbortWork> {
    let one = |(number, entry): (usize, &Entry)| {
        let (abort, cgroup) = (entry.abort.clone()?, cgroups.abort(number));
        let (group, resource) = (entry.group.clone(), entry.resource.clone());
        Some(AbortWork { abort, group, resource, cgroup, begun: false, child: None })
    };
    entries.iter().enumerate().rev().filter_map(one).collect()
}

/// What was called of the data services of a list is forgotten: verified, nothing of them is left.
pub(super) fn forget(entries: &[Entry], run_dir: &Path) {
    for entry in entries {
        data_service::forget(&state_dir(run_dir, &entry.group, &entry.resource));
    }
}

impl AbortWork {
    /// Calls it, once.
    pub(super) fn begin(&mut self, cgroups: &Hierarchy, run_dir: &Path) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        // Of a guard before this one, which died over it.
        let _ = self.cgroup.signal_kill();
        let Ok(directory) = cgroups.guard().open() else { return };
        let (abort, run_dir): (Abort, PathBuf) = (self.abort.clone(), run_dir.to_owned());
        let (group, resource, cgroup) = (self.group.clone(), self.resource.clone(), self.cgroup.clone());
        let child = spawn::fork_into(directory.as_fd(), &[], move || {
            data_service::abort(&abort, &run_dir, &group, &resource, &cgroup);
            end_with(0);
        });
        self.child = child.ok();
    }

    /// `rest_is_done`: nothing else is waited for. `end`: of authority.
    pub(super) fn round(&mut self, rest_is_done: bool, end: Instant, left: &mut Vec<String>) {
        let Some(child) = &self.child else { return };
        let of = format!("data service {} of {}/{}", self.abort.plan.service, self.group, self.resource);
        if child.wait(Some(Duration::ZERO)).is_none() {
            if !rest_is_done || clock::now() + KILLING < end {
                left.push(format!("the abort of {of} has not ended yet"));
                return;
            }
            spawn::signal(&child.pidfd, libc::SIGKILL);
            if child.wait(Some(KILLING)).is_none() {
                left.push(format!("the abort of {of} can't be killed"));
                return;
            }
        }
        // What it left running is no part of anything.
        match self.cgroup.kill(KILLING) {
            Ok(()) => {
                self.cgroup.remove();
                self.child = None;
            }
            Err(error) => left.push(format!("the abort of {of}: {error}")),
        }
    }
}
