//! The emergency stop of systemd's units: their processes belong to systemd, not to the agent.
//!
//! The guard itself takes the permit away and kills; the manager is asked by a child, for it may not answer. Then the unit
//! is sealed, see [`hold::seal`].

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::enforce::end_with;
use super::kill_list::Entry;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::helper::state_dir;
use crate::resources::systemd::{self, hold};
use crate::spawn::{self, Child, Exit};

/// How long a round waits for the manager, before it goes on without it.
const ANSWER: Duration = Duration::from_millis(60);
/// How long the kernel may take in one round to end what was killed.
const KILL_WAIT: Duration = Duration::from_millis(20);

/// A unit.
pub(super) struct UnitWork {
    unit: String,
    state: PathBuf,
    /// The manager is being asked, and whether nobody was left when that began who could have started it again meanwhile.
    asked: Option<(Child, bool)>,
    done: bool,
}

/// The units of the list, last started first.
pub(super) fn of(entries: &[Entry], run_dir: &Path) -> Vec<UnitWork> {
    let units = entries.iter().rev().filter_map(|entry| {
        let state = state_dir(run_dir, &entry.group, &entry.resource);
        Some(UnitWork { unit: entry.unit.clone()?, state, asked: None, done: false })
    });
    units.collect()
}

impl UnitWork {
    /// Keeps it from being started, and kills. `first`: what the unit's own stop does is not to be killed later.
    pub(super) fn strike(&self, first: bool) {
        if self.done {
            return;
        }
        let _ = hold::forbid(&self.state);
        if let Ok(Some(record)) = hold::record(&self.state)
            && (first || !record.outlives)
        {
            let _ = Cgroup::at(&record.cgroup).signal_kill();
        }
    }

    /// One attempt. `quiet`: nobody is left who could start it again.
    pub(super) fn round(&mut self, quiet: bool, cgroups: &Hierarchy, left: &mut Vec<String>) {
        if self.done {
            return;
        }
        match self.attempt(quiet, cgroups) {
            Ok(stopped) if stopped && quiet => self.done = true,
            Ok(_) => left.push(format!("{} is not verified stopped yet", self.unit)),
            Err(problem) => left.push(format!("{}: {problem}", self.unit)),
        }
    }

    fn attempt(&mut self, quiet: bool, cgroups: &Hierarchy) -> Result<bool, String> {
        let text = |e: std::io::Error| e.to_string();
        hold::forbid(&self.state).map_err(text)?;
        // Its start was not reached.
        let Some(record) = hold::record(&self.state).map_err(text)? else { return Ok(true) };
        if self.asked.is_none() {
            let cgroup = cgroups.guard().open().map_err(|e| e.to_string())?;
            let (record, state) = (record.clone(), self.state.clone());
            let child = spawn::fork_into(cgroup.as_fd(), &[], move || {
                end_with(i32::from(!systemd::emergency_stop(&record, &state)));
            });
            self.asked = Some((child.map_err(text)?, quiet));
        }
        let answer = self.asked.as_ref().map(|(child, quiet)| (child.wait(Some(ANSWER)), *quiet));
        match answer {
            Some((Some(Exit::Code(0)), began_quiet)) => {
                self.asked = None;
                return Ok(began_quiet);
            }
            Some((Some(_), _)) => self.asked = None,
            Some((None, _)) | None => {}
        }
        let sealed = hold::seal(&record, KILL_WAIT);
        if sealed && quiet {
            hold::forget(&self.state).map_err(text)?;
        }
        Ok(sealed)
    }
}
