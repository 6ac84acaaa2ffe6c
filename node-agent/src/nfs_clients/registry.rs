//! Which state directories are in use on this server, told by the driver of `nfsExport` to the process that keeps records:
//!
//! - `directories/KEY`: the state directory of an export; KEY stands for the path of the export.
//! - `loaded/KEY`: the kernel's NFS server has begun with its records.
//! - `lock`: held while a directory is written to, and while the two above change. Who has taken a directory out and got the
//!   lock knows that nobody writes there any more.
//! - `serving`: locked as long as records are kept.
//! - `begun`: the kernel's NFS server has begun since the boot.
//!
//! All of it goes with the next boot, as what is mounted and exported does.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::message::hex;

/// How long somebody else may write, or be started anew. Longer than a disk takes that works.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a lock.
const LOOK: Duration = Duration::from_millis(20);

/// The directories in use.
#[derive(Debug, Clone)]
pub struct Registry(PathBuf);

/// An export with a state directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    key: String,
    pub(super) directory: PathBuf,
}

impl Registry {
    /// That of this server.
    pub fn system() -> Registry {
        Registry("/run/holdfast-nfs".into())
    }

    #[cfg(test)]
    pub(super) fn at(place: &Path) -> Registry {
        Registry(place.to_owned())
    }

    /// From now on clients are recorded there, too.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn add(&self, export: &Path, directory: &Path) -> io::Result<()> {
        let key = key(export);
        let _lock = self.lock(PATIENCE)?;
        if self.directory(&key).as_deref() == Some(directory) {
            return Ok(());
        }
        absent(fs::remove_file(self.path("loaded", &key)))?;
        let aside = self.0.join("new");
        fs::write(&aside, directory.as_os_str().as_bytes())?;
        fs::rename(aside, self.path("directories", &key))
    }

    /// From now on nothing is recorded there any more.
    ///
    /// # Errors
    /// When the files can't be removed, or somebody is still writing into a state directory.
    pub fn remove(&self, export: &Path) -> io::Result<()> {
        let key = key(export);
        if self.directory(&key).is_none() {
            return Ok(());
        }
        absent(fs::remove_file(self.path("directories", &key)))?;
        let _lock = self.lock(PATIENCE)?;
        absent(fs::remove_file(self.path("loaded", &key)))
    }

    /// Whether clients are recorded there for this export.
    pub fn has(&self, export: &Path, directory: &Path) -> bool {
        self.directory(&key(export)).as_deref() == Some(directory)
    }

    /// Whether the kernel's NFS server has begun with the records of this export.
    pub fn is_loaded(&self, export: &Path) -> bool {
        self.path("loaded", &key(export)).exists()
    }

    /// Whether somebody keeps records; a moment between the end of one process and the start of the next does not count.
    pub fn is_served(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            let free = File::open(self.0.join("serving")).is_ok_and(|file| {
                // Shared: two who ask at once don't take each other for what they look for.
                Flock::lock(file, FlockArg::LockSharedNonblock).is_ok()
            });
            if !free && self.0.join("serving").exists() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK);
        }
    }

    /// One restart of the kernel's NFS server at a time.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn restarting(&self) -> io::Result<Flock<File>> {
        self.open("restart").and_then(|file| Ok(Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e)?))
    }

    /// For who keeps records: waits until nobody else does, and holds it.
    pub(super) fn serve(&self) -> io::Result<Flock<File>> {
        Ok(Flock::lock(self.open("serving")?, FlockArg::LockExclusive).map_err(|(_, e)| e)?)
    }

    /// For who keeps records: the directories in use, which stay so as long as the lock is held.
    pub(super) fn entries(&self) -> io::Result<(Flock<File>, Vec<Entry>)> {
        let lock = Flock::lock(self.open("lock")?, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.0.join("directories"))? {
            let key = entry?.file_name().to_string_lossy().into_owned();
            // One that goes meanwhile is not in use.
            entries.extend(self.directory(&key).map(|directory| Entry { key, directory }));
        }
        entries.sort();
        Ok((lock, entries))
    }

    /// For who keeps records: whether this is the first time that it asks since this server has booted.
    pub(super) fn is_first_since_boot(&self) -> io::Result<bool> {
        match OpenOptions::new().write(true).create_new(true).open(self.0.join("begun")) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// For who keeps records, with the lock.
    pub(super) fn loaded(&self, entry: &Entry) -> io::Result<()> {
        fs::write(self.path("loaded", &entry.key), "")
    }

    /// For who keeps records, with the lock.
    pub(super) fn not_loaded(&self, entry: &Entry) -> io::Result<()> {
        absent(fs::remove_file(self.path("loaded", &entry.key)))
    }

    fn directory(&self, key: &str) -> Option<PathBuf> {
        fs::read(self.path("directories", key)).ok().map(|bytes| OsString::from_vec(bytes).into())
    }

    fn path(&self, part: &str, key: &str) -> PathBuf {
        self.0.join(part).join(key)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        for part in ["directories", "loaded"] {
            DirBuilder::new().recursive(true).mode(0o700).create(self.0.join(part))?;
        }
        OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join(name))
    }

    /// Not for ever: a disk that hangs under another group's records must not keep this one from being stopped.
    fn lock(&self, patience: Duration) -> io::Result<Flock<File>> {
        let until = Instant::now() + patience;
        loop {
            match Flock::lock(self.open("lock")?, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err(_) if Instant::now() < until => sleep(LOOK),
                Err(_) => {
                    let message = "the records of NFS clients are being written for more than 5s; does a disk hang?";
                    return Err(io::Error::new(ErrorKind::TimedOut, message));
                }
            }
        }
    }
}

/// A path may be longer than the name of a file.
fn key(export: &Path) -> String {
    hex(&Sha256::digest(export.as_os_str().as_bytes()))
}

/// What is not there need not be removed.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(registry: &Registry) -> Vec<PathBuf> {
        registry.entries().unwrap().1.into_iter().map(|entry| entry.directory).collect()
    }

    #[test]
    fn a_directory_is_in_use_from_its_start_to_its_stop() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::at(&place.path().join("run"));
        let (export, state) = (Path::new("/srv/a"), Path::new("/srv/a/.nfs"));
        registry.remove(export).unwrap();
        registry.add(export, state).unwrap();
        registry.add(Path::new("/srv/b"), Path::new("/srv/b/.nfs")).unwrap();
        assert!(registry.has(export, state) && !registry.has(export, Path::new("/srv/other")));
        let mut both = directories(&registry);
        both.sort();
        assert_eq!(both, [Path::new("/srv/a/.nfs"), Path::new("/srv/b/.nfs")]);
        registry.remove(export).unwrap();
        assert_eq!(directories(&registry), [Path::new("/srv/b/.nfs")]);
        assert!(!registry.has(export, state));
    }

    #[test]
    fn what_was_loaded_is_loaded_anew_after_a_stop_or_a_change() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::at(place.path());
        let export = Path::new("/srv/a");
        let load = || {
            let (_lock, entries) = registry.entries().unwrap();
            registry.loaded(&entries[0]).unwrap();
        };
        registry.add(export, Path::new("/srv/a/one")).unwrap();
        assert!(!registry.is_loaded(export));
        load();
        registry.add(export, Path::new("/srv/a/one")).unwrap();
        assert!(registry.is_loaded(export), "nothing has changed");
        registry.add(export, Path::new("/srv/a/two")).unwrap();
        assert!(!registry.is_loaded(export));
        load();
        registry.remove(export).unwrap();
        registry.add(export, Path::new("/srv/a/two")).unwrap();
        assert!(!registry.is_loaded(export));
    }

    #[test]
    fn who_keeps_records_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::at(place.path());
        let serving = registry.serve().unwrap();
        assert!(registry.is_served());
        drop(serving);
        let later = registry.clone();
        let serving = std::thread::spawn(move || later.serve().unwrap());
        assert!(registry.is_served(), "soon");
        drop(serving.join().unwrap());
    }

    #[test]
    fn a_directory_that_is_written_to_is_not_given_up() {
        let place = tempfile::tempdir().unwrap();
        let registry = Registry::at(place.path());
        registry.add(Path::new("/srv/a"), Path::new("/srv/a/.nfs")).unwrap();
        let (lock, _) = registry.entries().unwrap();
        assert_eq!(registry.lock(Duration::ZERO).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(lock);
        registry.remove(Path::new("/srv/a")).unwrap();
    }
}
