//! The kill list: what the guard has to stop when authority ends (R23). The agent appends before each start; an entry is
//! forgotten only when its group is verified stopped.
//!
//! One line of JSON per entry, in the run directory. Written by one process at a time: the agent, or the guard once it has
//! killed the agent and keeps a new one from starting anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::resources::data_service::Abort;
use crate::resources::plan::{FilesystemPlan, NfsExportPlan, OcfPlan, Plan, VolumeGroupPlan};

/// Something that may run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Control group of all that it runs.
    pub cgroup: PathBuf,
    /// Address to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// File system to shut down and unmount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountEntry>,
    /// Agent whose own stop has to be called: what it started may be in no process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocf: Option<OcfPlan>,
    /// Volume group whose volumes the kernel has to lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<VolumeGroupPlan>,
    /// Directory that clients must not reach any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<NfsExportPlan>,
    /// Unit of systemd: its processes are in no control group of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Data service that gets a last call, whatever it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
    /// Routes of ours to the address go with it, which ends their announcement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,
}

/// A file system of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountEntry {
    /// As it was started: what is mounted there by somebody else must be left alone.
    pub plan: FilesystemPlan,
}

impl Entry {
    /// The entry of something that is in processes only.
    pub fn processes(group: &str, resource: &str, cgroup: &Path) -> Entry {
        Entry {
            group: group.to_owned(),
            resource: resource.to_owned(),
            cgroup: cgroup.to_owned(),
            address: None,
            mount: None,
            ocf: None,
            volumes: None,
            export: None,
            unit: None,
            abort: None,
            routed: false,
        }
    }

    /// The entry of a resource.
    pub fn new(group: &str, resource: &str, cgroup: &Path, plan: &Plan) -> Entry {
        let mut entry = Entry::processes(group, resource, cgroup);
        match plan {
            Plan::Filesystem(plan) => entry.mount = Some(MountEntry { plan: plan.clone() }),
            Plan::FloatingIp(plan) => entry.address = Some(plan.address),
            Plan::Ocf(plan) => {
                // Taken away at once, as every address; its agent's stop comes on top.
                entry.address = plan.address();
                entry.ocf = Some(plan.clone());
            }
            Plan::VolumeGroup(plan) => entry.volumes = Some(plan.clone()),
            Plan::NfsExport(plan) => entry.export = Some(plan.clone()),
            Plan::VirtualIp(plan) => (entry.address, entry.routed) = (Some(plan.address), true),
            Plan::Systemd(plan) => entry.unit = Some(plan.unit.clone()),
            // The executor adds the last call.
            Plan::Process(_) | Plan::Script(_) | Plan::DataService(_) => {}
        }
        entry
    }
}

/// The entries of a list that were not released.
pub fn read(text: &[u8]) -> Vec<Entry> {
    let mut live: Vec<Entry> = Vec::new();
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        // A line that was not finished belongs to a start that never happened: it waits for the whole line.
        match serde_json::from_slice(line) {
            Ok(Line::Hold(entry)) if !live.contains(&entry) => live.push(*entry),
            Ok(Line::Released(group)) => live.retain(|entry| entry.group != group),
            Ok(Line::Hold(_)) | Err(_) => {}
        }
    }
    live
}

/// Changes are made one after the other: what one thread adds must not vanish because another one saw that nothing else
/// was held, and emptied the list.
fn alone() -> MutexGuard<'static, ()> {
    static CHANGES: Mutex<()> = Mutex::new(());
    CHANGES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Hold(Box<Entry>),
    Released(String),
}

/// The list of one run directory.
#[derive(Debug, Clone)]
pub struct KillList {
    path: PathBuf,
}

impl KillList {
    /// The one in `run_dir`; it need not exist.
    pub fn of(run_dir: &Path) -> KillList {
        KillList { path: run_dir.join("kill.list") }
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What may run, in the order in which it was started.
    ///
    /// # Errors
    /// When the file is there and can't be read. The guard then kills everything below the base of control groups.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(read(&text))
    }

    /// Adds an entry durably, unless it is there.
    ///
    /// # Errors
    /// When it can't be written: then nothing may be started.
    pub fn hold(&self, entry: &Entry) -> io::Result<()> {
        let _alone = alone();
        if self.entries()?.contains(entry) {
            return Ok(());
        }
        self.append(&Line::Hold(Box::new(entry.clone())))
    }

    /// Forgets the entries of a group.
    ///
    /// # Errors
    /// When it can't be written: the guard would then stop what is stopped already.
    pub fn release(&self, group: &str) -> io::Result<()> {
        let _alone = alone();
        let live = self.entries()?;
        if live.iter().all(|entry| entry.group == group) {
            return self.clear();
        }
        self.append(&Line::Released(group.to_owned()))
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the file can't be replaced.
    pub fn clear(&self) -> io::Result<()> {
        let aside = self.path.with_extension("new");
        File::create(&aside)?.sync_all()?;
        fs::rename(aside, &self.path)
    }

    fn append(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // Ends a line that an earlier process did not finish.
        let torn = fs::read(&self.path).is_ok_and(|old| old.last().is_some_and(|b| *b != b'\n'));
        if torn {
            text.insert(0, b'\n');
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(&text)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: &str, resource: &str) -> Entry {
        let cgroup = format!("/sys/fs/cgroup/holdfast/groups/{group}/{resource}");
        let address = Some("192.0.2.10".parse().unwrap());
        Entry { address, ..Entry::processes(group, resource, Path::new(&cgroup)) }
    }

    #[test]
    fn what_was_started_stays_listed_until_its_group_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let list = KillList::of(dir.path());
        assert_eq!(list.entries().unwrap(), []);
        for (group, resource) in [("a", "x"), ("b", "y"), ("a", "z"), ("a", "x")] {
            list.hold(&entry(group, resource)).unwrap();
        }
        list.release("a").unwrap();
        assert_eq!(list.entries().unwrap(), [entry("b", "y")]);
        list.hold(&entry("a", "x")).unwrap();
        assert_eq!(list.entries().unwrap(), [entry("b", "y"), entry("a", "x")]);
        list.release("a").unwrap();
        list.release("b").unwrap();
        assert_eq!(fs::metadata(dir.path().join("kill.list")).unwrap().len(), 0);
    }

    #[test]
    fn a_line_cut_off_by_a_crash_harms_neither_what_was_before_nor_what_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let list = KillList::of(dir.path());
        list.hold(&entry("a", "x")).unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.path().join("kill.list")).unwrap();
        file.write_all(b"{\"hold\":{\"gro").unwrap();
        assert_eq!(list.entries().unwrap(), [entry("a", "x")]);
        list.hold(&entry("b", "y")).unwrap();
        assert_eq!(list.entries().unwrap(), [entry("a", "x"), entry("b", "y")]);
    }
}
