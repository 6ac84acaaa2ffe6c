//! What was started in this boot and with which specification, in the run directory. A restarted agent adopts it again,
//! and stops it in the way in which it was started, whatever the specification says by then.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_api::v1 as api;
use holdfast_core::names::{BootId, GroupName, ResourceName};
use serde::{Deserialize, Serialize};

use crate::resources::Plan;

/// A group of which something was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningGroup {
    /// The group.
    pub group: GroupName,
    /// Its resources that were started, whether they run or not.
    pub resources: BTreeMap<ResourceName, RunningResource>,
}

/// A resource that was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningResource {
    /// Generation of the specification.
    pub generation: u64,
    /// As it was carried out on this server.
    pub plan: Plan,
    /// As it was declared.
    pub spec: api::Resource,
}

/// Why the records can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file can't be used.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file doesn't hold what was written.
    #[error(
        "{path} is damaged ({problem}); stop what runs of its group by hand, remove the file, start the agent again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The records of one run directory.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    groups: Mutex<BTreeMap<GroupName, RunningGroup>>,
}

fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> RecordError + 'a {
    move |source| RecordError::Io { path: path.to_owned(), what, source }
}

impl Records {
    /// Reads the records of this boot. What an earlier boot left is removed: nothing of it can run any more.
    pub(super) fn open(run_dir: &Path, boot: BootId) -> Result<Records, RecordError> {
        let mark = run_dir.join("boot");
        let directory = run_dir.join("running");
        if fs::read_to_string(&mark).ok().as_deref() != Some(boot.to_string().as_str()) {
            for old in ["running", "resources"] {
                let old = run_dir.join(old);
                match fs::remove_dir_all(&old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(&old, "removing what an earlier boot left")(error));
                    }
                    _ => {}
                }
            }
            let list = run_dir.join("kill.list");
            match fs::remove_file(&list) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&list, "removing what an earlier boot left")(error));
                }
                _ => {}
            }
            fs::create_dir_all(run_dir).map_err(failed(run_dir, "making it"))?;
            fs::write(&mark, boot.to_string()).map_err(failed(&mark, "writing it"))?;
        }
        fs::create_dir_all(&directory).map_err(failed(&directory, "making it"))?;
        let mut groups = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(failed(&directory, "reading it"))? {
            let path = entry.map_err(failed(&directory, "reading it"))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = fs::read(&path).map_err(failed(&path, "reading it"))?;
            let group: RunningGroup = serde_json::from_slice(&text)
                .map_err(|e| RecordError::Damaged { path: path.clone(), problem: e.to_string() })?;
            groups.insert(group.group.clone(), group);
        }
        Ok(Records { directory, groups: Mutex::new(groups) })
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, BTreeMap<GroupName, RunningGroup>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, group: &GroupName) -> PathBuf {
        self.directory.join(format!("{group}.json"))
    }

    pub(super) fn all(&self) -> Vec<RunningGroup> {
        self.groups().values().cloned().collect()
    }

    pub(super) fn resource(&self, group: &GroupName, resource: &ResourceName) -> Option<RunningResource> {
        self.groups().get(group)?.resources.get(resource).cloned()
    }

    pub(super) fn has(&self, group: &GroupName) -> bool {
        self.groups().contains_key(group)
    }

    /// Durable when it returns.
    pub(super) fn remember(
        &self,
        group: &GroupName,
        resource: &ResourceName,
        running: RunningResource,
    ) -> Result<(), RecordError> {
        let mut groups = self.groups();
        let entry = groups
            .entry(group.clone())
            .or_insert_with(|| RunningGroup { group: group.clone(), resources: BTreeMap::new() });
        if entry.resources.get(resource) == Some(&running) {
            return Ok(());
        }
        entry.resources.insert(resource.clone(), running);
        self.write(entry)
    }

    /// Durable when it returns.
    pub(super) fn forget_resource(&self, group: &GroupName, resource: &ResourceName) -> Result<(), RecordError> {
        let mut groups = self.groups();
        let Some(entry) = groups.get_mut(group) else { return Ok(()) };
        match entry.resources.remove(resource) {
            Some(_) => self.write(entry),
            None => Ok(()),
        }
    }

    fn write(&self, group: &RunningGroup) -> Result<(), RecordError> {
        let path = self.file(&group.group);
        let aside = path.with_extension("new");
        let text = serde_json::to_vec(group)
            .map_err(|e| RecordError::Damaged { path: path.clone(), problem: e.to_string() })?;
        // For root only: a plan may hold what a Secret says.
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside);
        let mut file = made.map_err(failed(&aside, "making it"))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed(&aside, "writing it"))?;
        fs::rename(&aside, &path).map_err(failed(&path, "putting it in place"))
    }

    pub(super) fn forget(&self, group: &GroupName) {
        self.groups().remove(group);
        let path = self.file(group);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "it can't be removed; a restarted agent will probe the group again");
            }
            _ => {}
        }
    }
}
