//! For tests: a store that goes away with its test, and a cluster of etcd.

mod etcd;

use std::ops::Deref;
use std::sync::Arc;

use crate::{OpenError, SqliteStore, Store};
pub use etcd::{EtcdCluster, signal};

/// A SQLite store in its own temporary directory, removed when this is dropped.
pub struct TempStore {
    // ORDER: the store closes its file before the directory is removed.
    store: Arc<dyn Store>,
    dir: tempfile::TempDir,
}

impl TempStore {
    /// Makes an empty store.
    ///
    /// # Errors
    /// [`OpenError`] if the system's temporary directory cannot be written.
    pub fn new() -> Result<Self, OpenError> {
        let dir = tempfile::tempdir().map_err(|source| OpenError::Directory { path: std::env::temp_dir(), source })?;
        let store = Arc::new(SqliteStore::open(dir.path())?);
        Ok(Self { store, dir })
    }

    /// The store, to be handed to a server.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The directory that holds the file.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Deref for TempStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}
