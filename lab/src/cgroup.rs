//! Control groups (version 2): every host of a lab is one, so that all its processes can be found, frozen and
//! killed at once. No controllers are enabled and no limits set.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Attempt, LabError, Result};
use crate::shell::wait_for;

/// A directory of the cgroup2 file system.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

/// Where cgroup version 2 is mounted on this machine, from `/proc/mounts`.
///
/// # Errors
/// [`LabError::Missing`] when it is not mounted.
pub fn unified_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").attempt(|| "reading /proc/mounts".into())?;
    find_unified(&mounts).ok_or_else(|| LabError::Missing {
        what: "control groups version 2".into(),
        hint: "mount them: `mount -t cgroup2 none /sys/fs/cgroup` (any directory will do)".into(),
    })
}

/// The first cgroup2 mount point in the text of `/proc/mounts`.
fn find_unified(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let target = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(target))
    })
}

impl Cgroup {
    /// Makes the cgroup `name` below the machine's cgroup2 mount.
    ///
    /// # Errors
    /// When there is no cgroup2, or the directory can't be made.
    pub fn create_top(name: &str) -> Result<Cgroup> {
        Cgroup { path: unified_mount()? }.create(name)
    }

    /// The cgroup at a path that already exists (left over by a dead lab).
    #[must_use]
    pub fn at(path: PathBuf) -> Cgroup {
        Cgroup { path }
    }

    /// Makes a cgroup below this one; fine if it exists.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn create(&self, name: &str) -> Result<Cgroup> {
        let path = self.path.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).attempt(|| format!("making the cgroup {}", path.display()))
            }
            _ => Ok(Cgroup { path }),
        }
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file that takes processes in.
    #[must_use]
    pub fn procs_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// All processes in it and below it, as this process sees their numbers.
    ///
    /// # Errors
    /// When a directory of it can't be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for directory in self.tree()? {
            match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // ENODEV and ENOENT: it was removed between listing and reading.
                Err(error) if gone(&error) => {}
                Err(error) => return Err(error).attempt(|| format!("reading {}", directory.display())),
            }
        }
        Ok(found)
    }

    /// Kills every process in it and below it, children being forked included.
    ///
    /// # Errors
    /// When the kernel refuses (`cgroup.kill` needs Linux 5.14).
    pub fn kill(&self) -> Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if gone(&error) => Ok(()),
            other => other.attempt(|| format!("killing the cgroup {} (needs Linux 5.14)", self.path.display())),
        }
    }

    /// Has the kernel freeze everything in it, and does not wait: what runs stops at once, what is in a system call stops
    /// before it returns from it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin_freezing(&self) -> Result<()> {
        self.want_frozen("1")
    }

    fn want_frozen(&self, wanted: &str) -> Result<()> {
        fs::write(self.path.join("cgroup.freeze"), wanted)
            .attempt(|| format!("freezing the cgroup {}", self.path.display()))
    }

    /// Freezes or thaws everything in it, and waits until that is so.
    ///
    /// # Errors
    /// When the kernel refuses, or it takes more than 5 s.
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        let wanted = if frozen { "1" } else { "0" };
        self.want_frozen(wanted)?;
        let line = format!("frozen {wanted}");
        wait_for(&format!("{} to have {line}", self.path.display()), Duration::from_secs(5), |last| {
            *last = fs::read_to_string(self.path.join("cgroup.events")).attempt(|| "reading cgroup.events".into())?;
            Ok(last.lines().any(|found| found == line).then_some(()))
        })
    }

    /// Kills what is in it and removes it with everything below.
    ///
    /// # Errors
    /// When it isn't gone within 10 s.
    pub fn remove(&self) -> Result<()> {
        self.kill()?;
        wait_for(&format!("the cgroup {} to be removed", self.path.display()), Duration::from_secs(10), |last| {
            for directory in self.tree()?.iter().rev() {
                match fs::remove_dir(directory) {
                    Err(error) if !gone(&error) => *last = format!("{}: {error}", directory.display()),
                    _ => {}
                }
            }
            Ok((!self.path.exists()).then_some(()))
        })
    }

    /// This directory and all below it, parents first.
    fn tree(&self) -> Result<Vec<PathBuf>> {
        let mut found = vec![self.path.clone()];
        let mut next = 0;
        while let Some(directory) = found.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&directory) {
                Err(error) if gone(&error) => continue,
                other => other.attempt(|| format!("listing {}", directory.display()))?,
            };
            found.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        Ok(found)
    }
}

/// Whether the error says that the cgroup has been removed.
fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_hierarchy_is_found_beside_version_one() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_unified(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_unified("proc /proc proc rw 0 0\n"), None);
    }
}
