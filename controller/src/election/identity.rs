//! Who a controller is in the election.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::unistd::gethostname;
use uuid::Uuid;

/// The file in a data directory that keeps the identity.
const FILE: &str = "controller.id";

/// A name that no other running process has: `HOST_ID`, of which the id counts and the host is for people.
///
/// A process that was killed should not have to wait for its own lease, so the id is kept in the data directory. A lock
/// on the file, held as long as the process runs, keeps a second process there from using it; that one gets an id for
/// itself alone. Someone who copies a whole data directory and runs both has two of a name: they take the lease from each
/// other, and whoever lost it sees that and stops ([`super::record::continues`]), then gets an id of its own.
#[derive(Debug)]
pub struct Identity {
    name: String,
    _lock: Option<File>,
}

impl Identity {
    /// One for this process alone, which has to wait for a lease of an earlier one.
    pub fn fresh() -> Self {
        Self { name: on_this_host(Uuid::new_v4()), _lock: None }
    }

    /// The one that is kept in this directory, made if there is none.
    ///
    /// # Errors
    /// When the file `controller.id` can't be read or written.
    pub fn kept_in(directory: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let mut file =
            options.create(true).read(true).write(true).truncate(false).mode(0o600).open(directory.join(FILE))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(Self::fresh()),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        let read = (&mut file).take(100).read_to_string(&mut text);
        // An empty or broken file is no reason not to start: the worst is one wait.
        let id = read.ok().and_then(|_| Uuid::try_parse(text.trim()).ok());
        let id = match id {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4();
                file.rewind()?;
                file.set_len(0)?;
                writeln!(file, "{id}")?;
                file.sync_all()?;
                id
            }
        };
        Ok(Self { name: on_this_host(id), _lock: Some(file) })
    }

    /// What stands in `holderIdentity`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether two names are of the same one: hosts don't count, since a data directory may move with its group.
    pub(super) fn same(a: &str, b: &str) -> bool {
        let id = |name: &str| name.rsplit_once('_').map_or(name, |(_, id)| id).to_owned();
        id(a) == id(b)
    }
}

fn on_this_host(id: Uuid) -> String {
    let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    format!("{host}_{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_started_again_is_the_same_one_and_two_at_once_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Identity::kept_in(directory.path()).expect("an identity");
        let beside = Identity::kept_in(directory.path()).expect("an identity");
        assert!(!Identity::same(first.name(), beside.name()), "{first:?} {beside:?}");
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(Identity::kept_in(directory.path()).expect("an identity").name(), name);
        std::fs::write(directory.path().join(FILE), b"\xffnonsense").expect("written");
        let repaired = Identity::kept_in(directory.path()).expect("an identity");
        assert!(!Identity::same(repaired.name(), &name));
    }
}
