//! The clients that one directory knows, a file each, named by the SHA-256 of its id:
//!
//! - `current`: who has files or locks since the server began, or since the grace period before last ended.
//! - `recovery`: who may reclaim; there only while the server is in its grace period.
//!
//! A server that begins turns `current` into `recovery`. One that ended during its grace period left a `recovery`, which goes
//! on to count: who came meanwhile has got nothing that is not in it.
//!
//! Every change is on the disk when its function returns. Nothing stays open, so that the file system can be unmounted.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::message::{Client, hex};

/// A directory with records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn of(directory: &Path) -> Records {
        Records(directory.to_owned())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    /// Notes a client.
    pub(super) fn create(&self, client: &Client) -> Result<()> {
        let current = self.current();
        make(&current)?;
        let (file, aside) = (current.join(name(&client.id)), current.join("new"));
        let mut written = File::create(&aside)?;
        written.write_all(client.to_line().as_bytes())?;
        written.sync_all()?;
        fs::rename(aside, file)?;
        sync(&current)
    }

    /// Forgets a client: it may not reclaim, neither now nor after the next crash.
    pub(super) fn remove(&self, id: &[u8]) -> Result<()> {
        for directory in [self.current(), self.recovery()] {
            match fs::remove_file(directory.join(name(id))) {
                Ok(()) => sync(&directory)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The server begins: gives who may reclaim.
    pub(super) fn grace_start(&self) -> Result<Vec<Client>> {
        let (current, recovery) = (self.current(), self.recovery());
        if recovery.is_dir() {
            remove_all(&current)?;
        } else {
            make(&current)?;
            fs::rename(&current, &recovery)?;
        }
        make(&current)?;
        sync(&self.0)?;
        fs::read_dir(&recovery)?.filter_map(|entry| entry.and_then(|entry| read(&entry.path())).transpose()).collect()
    }

    /// Nobody may reclaim any more.
    pub(super) fn grace_done(&self) -> Result<()> {
        remove_all(&self.recovery())?;
        sync(&self.0)
    }

    /// Forgets everybody.
    pub(super) fn forget(&self) -> Result<()> {
        remove_all(&self.current())?;
        remove_all(&self.recovery())?;
        sync(&self.0)
    }

    fn current(&self) -> PathBuf {
        self.0.join("current")
    }

    fn recovery(&self) -> PathBuf {
        self.0.join("recovery")
    }
}

/// An id may be longer than the name of a file.
fn name(id: &[u8]) -> String {
    hex(&Sha256::digest(id))
}

/// None for what a crash left half written: its client was never told that it has anything.
fn read(file: &Path) -> Result<Option<Client>> {
    if file.file_name().is_some_and(|name| name == "new") {
        return Ok(None);
    }
    match fs::read_to_string(file) {
        Ok(line) => Ok(Client::from_line(&line)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// The directory above has to be there: it is in a file system that may not be mounted.
fn make(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove_all(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn sync(directory: &Path) -> Result<()> {
    File::open(directory)?.sync_all().map_err(|e| Error::new(e.kind(), format!("{}: {e}", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> Client {
        Client { id: id.into(), principal: vec![1, 2] }
    }

    fn may(records: &Records) -> Vec<Client> {
        let mut all = records.grace_start().unwrap();
        all.sort();
        all
    }

    #[test]
    fn who_had_something_may_reclaim_until_the_grace_period_ends() {
        let place = tempfile::tempdir().unwrap();
        let records = Records::of(place.path());
        assert_eq!(may(&records), [], "a new directory");
        records.grace_done().unwrap();
        records.create(&client("a")).unwrap();
        records.create(&client("b")).unwrap();
        records.create(&client("b")).unwrap();
        records.remove(b"b").unwrap();
        records.remove(b"never there").unwrap();
        assert_eq!(may(&records), [client("a")]);
        // a came back, c is new; the server ends before its grace period does.
        records.create(&client("a")).unwrap();
        records.create(&client("c")).unwrap();
        assert_eq!(may(&records), [client("a")], "c can't have got anything");
        records.create(&client("a")).unwrap();
        records.grace_done().unwrap();
        records.create(&client("c")).unwrap();
        assert_eq!(may(&records), [client("a"), client("c")]);
        records.remove(b"a").unwrap();
        assert_eq!(may(&records), [client("c")], "its lease ran out in the grace period");
    }

    #[test]
    fn who_does_not_come_back_is_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let records = Records::of(place.path());
        records.create(&client("a")).unwrap();
        assert_eq!(may(&records), [client("a")]);
        records.grace_done().unwrap();
        assert_eq!(may(&records), []);
    }

    #[test]
    fn what_was_not_written_to_its_end_counts_for_nothing() {
        let place = tempfile::tempdir().unwrap();
        let records = Records::of(place.path());
        records.create(&client("a")).unwrap();
        fs::write(place.path().join("current/new"), "6").unwrap();
        fs::write(place.path().join("current/other"), b"\xff\xfe").unwrap();
        assert_eq!(may(&records), [client("a")]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_not_made() {
        let place = tempfile::tempdir().unwrap();
        let records = Records::of(&place.path().join("not/mounted"));
        assert!(records.create(&client("a")).is_err() && records.grace_start().is_err());
        assert!(!place.path().join("not").exists());
    }
}
