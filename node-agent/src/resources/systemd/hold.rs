//! What keeps a unit from running where the cluster doesn't want it, without the manager's good will: a drop-in that ties
//! each start to a file (the permit), and the control group.
//!
//! Without the permit systemd itself refuses every start: one by hand, by a socket, and one that was queued by a helper
//! which is dead by now. With `Restart=no` it doesn't start it again by itself either.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Hierarchy};

/// Where drop-ins live that end with the boot (systemd.unit(5)). The name sorts behind those of people.
const RUNTIME_UNITS: &str = "/run/systemd/system";
const DROP_IN: &str = "zz-holdfast.conf";

/// What was begun on this server. Written before the start is asked for, removed when the unit is verified stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The unit.
    pub unit: String,
    /// Its control group, from the root of the file system.
    pub cgroup: PathBuf,
    /// What it has set up may be in no process (RemainAfterExit).
    pub outlives: bool,
    /// Its last stop ended in failure: what is in no process may be left.
    #[serde(default)]
    pub stop_failed: bool,
}

fn record_file(state: &Path) -> PathBuf {
    state.join("systemd.json")
}

/// The file without which the unit doesn't start.
fn permit(state: &Path) -> PathBuf {
    state.join("permit")
}

/// Whether a start was begun here that was not verified stopped since.
///
/// # Errors
/// When there is a record that can't be read: something may run.
pub(crate) fn record(state: &Path) -> io::Result<Option<Record>> {
    match fs::read(record_file(state)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Notes that it is about to be started.
pub(crate) fn remember(state: &Path, record: &Record) -> io::Result<()> {
    fs::create_dir_all(state)?;
    let aside = state.join("systemd.new");
    fs::write(&aside, serde_json::to_vec(record)?)?;
    fs::rename(aside, record_file(state))
}

/// Lets systemd start it.
pub(super) fn allow(state: &Path) -> io::Result<()> {
    fs::create_dir_all(state)?;
    fs::write(permit(state), "")
}

/// From now on systemd refuses to start it.
pub(crate) fn forbid(state: &Path) -> io::Result<()> {
    remove(&permit(state))
}

/// It is verified stopped.
pub(crate) fn forget(state: &Path) -> io::Result<()> {
    remove(&record_file(state))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the drop-in; gives its path, and whether it is new: systemd has to read it then.
pub(super) fn install(unit: &str, group: &str, state: &Path, cgroups: &Hierarchy) -> io::Result<(PathBuf, bool)> {
    let directory = Path::new(RUNTIME_UNITS).join(format!("{unit}.d"));
    let path = directory.join(DROP_IN);
    let text = drop_in(group, state, agents_unit(cgroups));
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok((path, false));
    }
    fs::create_dir_all(&directory)?;
    // Hidden files are none of its drop-ins: it never reads half a one.
    let aside = directory.join(format!(".{DROP_IN}.new"));
    fs::write(&aside, text)?;
    fs::rename(aside, &path)?;
    Ok((path, true))
}

/// The unit that the agent itself runs in.
fn agents_unit(cgroups: &Hierarchy) -> Option<String> {
    let above = cgroups.base().parent()?.file_name()?.to_str()?;
    above.ends_with(".service").then(|| above.to_owned())
}

fn drop_in(group: &str, state: &Path, agent: Option<String>) -> String {
    // A percent sign begins a specifier of systemd.
    let permit = permit(state).display().to_string().replace('%', "%%");
    // When the machine is shut down, the agent stops it, not systemd behind the agent's back: that ends later ones first.
    let order = agent.map(|unit| format!("Before={unit}\n")).unwrap_or_default();
    format!(
        "# By Holdfast: this unit belongs to failover group {group}, which alone starts it, here or elsewhere.\n\
         # It vanishes with the next boot. If the group is gone: remove this file and run systemctl daemon-reload.\n\
         [Unit]\nAssertPathExists={permit}\n{order}\n[Service]\nRestart=no\n"
    )
}

/// The control group that a unit has, or will have, by the manager's name for it.
pub(super) fn cgroup(cgroups: &Hierarchy, name: &str) -> Cgroup {
    Cgroup::at(&cgroups.root().join(name.trim_start_matches('/')))
}

/// Lets a control group live again that [`seal`] has frozen and that the manager has not removed since.
pub(super) fn unseal(cgroup: &Cgroup) {
    if cgroup.path().join("cgroup.freeze").exists() {
        let _ = cgroup.set("cgroup.freeze", "0");
    }
}

/// Ends a unit without its manager. Gives whether that is proven.
///
/// The permit is gone and `Restart=no`, so the manager begins no new start of it. What belongs to a start that it had
/// begun enters this control group before it runs, and nothing runs in a frozen one, which stays until the manager has
/// seen the unit end. So nothing of the unit runs any more, now or when the manager wakes up.
///
/// What is in no process only the unit's own stop ends: that one is left alone here.
pub(crate) fn seal(record: &Record, kill: Duration) -> bool {
    if record.outlives {
        return false;
    }
    let cgroup = Cgroup::at(&record.cgroup);
    // Made if it is not there: the manager takes the one that it finds.
    if cgroup.create().is_err() || cgroup.set("cgroup.freeze", "1").is_err() {
        return false;
    }
    cgroup.kill(kill).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_ties_every_start_to_the_permit() {
        let text = drop_in("web", Path::new("/run/h/100%/web/app"), Some("holdfast-agent.service".into()));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "[Unit]",
                "AssertPathExists=/run/h/100%%/web/app/permit",
                "Before=holdfast-agent.service",
                "",
                "[Service]",
                "Restart=no"
            ]
        );
    }

    #[test]
    fn the_stop_of_what_is_in_no_process_is_not_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("setup.service");
        let record =
            Record { unit: "setup.service".into(), cgroup: cgroup.clone(), outlives: true, stop_failed: false };
        assert!(!seal(&record, Duration::ZERO) && !cgroup.exists(), "nothing is proven, nothing is touched");
    }

    #[test]
    fn what_was_begun_is_known_until_it_is_verified_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let begun =
            Record { unit: "web.service".into(), cgroup: "/x/web.service".into(), outlives: false, stop_failed: false };
        assert_eq!(record(dir.path()).unwrap(), None);
        remember(dir.path(), &begun).unwrap();
        assert_eq!(record(dir.path()).unwrap(), Some(begun));
        fs::write(record_file(dir.path()), "{").unwrap();
        assert!(record(dir.path()).is_err(), "something may run");
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        assert_eq!(record(dir.path()).unwrap(), None);
    }
}
