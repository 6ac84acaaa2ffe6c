//! What is known about labs outside the process that runs one: a state file in each lab's directory, and from
//! it the removal of what a lab left behind that was killed.
//!
//! Most goes by itself when the process of a lab dies: its hosts lose power (their command channel ends), with
//! them go namespaces and mounts. What stays are the directory with the images, their loop devices, the empty
//! control groups, and hosts that were frozen at that moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::devices;
use crate::disk::remove_tree;
use crate::error::{Attempt, LabError, Result};
use crate::loopdev::{detach_device, devices_below};
use crate::shell::wait_for;

const PREFIX: &str = "holdfast-lab-";
const FILE: &str = "state.json";

/// Who runs a lab and what it made outside its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// The process that runs it.
    pub(crate) pid: u32,
    /// Its start time in clock ticks since boot: a number that is used again belongs to another process.
    pub(crate) start_time: u64,
    /// Control group of the lab.
    pub(crate) cgroup: PathBuf,
}

/// Directory of the lab called `id`.
pub(crate) fn lab_directory(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{id}"))
}

/// Writes the state file of a lab that this process runs.
pub(crate) fn record(directory: &Path, cgroup: &Path) -> Result<()> {
    let pid = std::process::id();
    let state = State { pid, start_time: start_time(pid).unwrap_or(0), cgroup: cgroup.to_path_buf() };
    let text = serde_json::to_vec(&state).map_err(|error| LabError::Api(error.to_string()))?;
    let path = directory.join(FILE);
    fs::write(&path, text).attempt(|| format!("writing {}", path.display()))
}

/// Removes what dead labs left on this machine; labs that run are not touched. Returns one line per lab removed.
///
/// # Errors
/// When something can't be removed; what was removed before stays removed.
pub fn clean() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let parent = std::env::temp_dir();
    for entry in fs::read_dir(&parent).attempt(|| format!("listing {}", parent.display()))?.flatten() {
        let directory = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A directory without a state file is a lab that is being made at this moment, or is not ours.
        let Ok(text) = fs::read(directory.join(FILE)) else { continue };
        let path = directory.join(FILE);
        let state: State = serde_json::from_slice(&text).map_err(|error| LabError::Manifest {
            file: path,
            field: "state".into(),
            problem: format!("{error}; remove the directory by hand if it is no lab's"),
        })?;
        if start_time(state.pid) == Some(state.start_time) {
            continue;
        }
        remove_left_overs(&directory, &Cgroup::at(state.cgroup.clone()))?;
        removed.push(format!("{} (of process {}, which is gone)", directory.display(), state.pid));
    }
    Ok(removed)
}

/// Removes the processes, loop devices, devices with faults, control groups and files of a lab.
pub(crate) fn remove_left_overs(directory: &Path, cgroup: &Cgroup) -> Result<()> {
    cgroup.remove()?;
    let limit = Duration::from_secs(10);
    wait_for(&format!("the loop devices of {} to be detached", directory.display()), limit, |last| {
        let left = devices_below(directory)?;
        *last = format!("{left:?}");
        for (device, _) in &left {
            if let Err(error) = detach_device(device) {
                *last = format!("{last} {error}");
            }
        }
        Ok(left.is_empty().then_some(()))
    })?;
    devices::unmount(directory)?;
    remove_tree(directory)
}

/// Start time of a process in clock ticks, field 22 of its stat file; `None` when it is gone.
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_found_and_that_of_a_process_that_never_was_is_not() {
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }
}
