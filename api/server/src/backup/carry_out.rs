//! Making a backup out of a store and a directory, and the other way round.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_store::{Entry, Error, Expect, Store};
use serde_json::Value;

use super::{Backup, DIRECTORY};
use crate::authority;
use crate::feed::ROOT;

/// Where super-clusters are, whose status counts the restores.
const SUPER_CLUSTERS: &str = "/registry/holdfast.dev/superclusters/";

/// A file or directory that can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}: {source}", path = .path.display())]
pub struct Unusable {
    /// Which one.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Unusable {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
        let path = path.to_path_buf();
        move |source| Unusable { path, source }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Objects that are there now.
    pub objects: usize,
    /// Objects that were there and are not in the backup.
    pub deleted: usize,
    /// What `status.storeIncarnation` of every super-cluster says now.
    pub incarnation: u64,
}

/// Whether a key stays out of backups: Events and Leases.
pub fn is_left_out(key: &str) -> bool {
    matches!(key.split('/').nth(3), Some("events" | "leases"))
}

/// Makes the store hold what the backup holds. Whether it may, the caller has decided: `present` is what it holds now.
///
/// Uids, generations and everything else of the objects stay as they were; resourceVersions are new. A restore that was cut
/// off is repeated.
///
/// # Errors
/// When the store can't be read or written, or somebody else writes it at the same time.
pub async fn restore(backup: &Backup, store: &dyn Store, present: Vec<Entry>) -> Result<Restored, Error> {
    let present: BTreeMap<String, Entry> = present.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    let old = present.iter().filter(|(key, _)| key.starts_with(SUPER_CLUSTERS)).map(|(_, entry)| entry.value.as_ref());
    let saved = backup.entries.iter().filter(|(key, _)| key.starts_with(SUPER_CLUSTERS)).map(|(_, v)| v.as_slice());
    let incarnation = 1 + old.chain(saved).map(incarnation_of).max().unwrap_or(0);
    let mut wanted = BTreeMap::new();
    for (key, value) in backup.entries.iter().filter(|(key, _)| !is_left_out(key)) {
        let value = if key.starts_with(SUPER_CLUSTERS) { with_incarnation(value, incarnation) } else { value.clone() };
        wanted.insert(key.as_str(), Bytes::from(value));
    }
    // The keys come from the backup, too.
    authority::forget(store).await?;
    let mut deleted = 0;
    for (key, entry) in &present {
        if !wanted.contains_key(key.as_str()) {
            store.delete(key, entry.modified).await?;
            deleted += 1;
        }
    }
    for (key, value) in &wanted {
        let expect = match present.get(*key) {
            Some(entry) if entry.value == *value => continue,
            Some(entry) => Expect::Modified(entry.modified),
            None => Expect::Absent,
        };
        store.put(key, value.clone(), expect, None).await?;
    }
    let now = store.list(ROOT, None, 0, None).await?.entries;
    let now: BTreeMap<&str, &Bytes> = now.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
    if let Some(key) = wanted
        .keys()
        .find(|key| now.get(*key) != wanted.get(*key).as_ref())
        .or_else(|| now.keys().find(|key| !wanted.contains_key(*key)))
    {
        let text =
            format!("{key} is not as in the backup: somebody wrote it meanwhile; stop every server of this store");
        return Err(Error::Unavailable(text));
    }
    Ok(Restored { objects: wanted.len(), deleted, incarnation })
}

fn incarnation_of(value: &[u8]) -> u64 {
    let value: Value = serde_json::from_slice(value).unwrap_or_default();
    value.pointer("/status/storeIncarnation").and_then(Value::as_u64).unwrap_or(0)
}

fn with_incarnation(value: &[u8], incarnation: u64) -> Vec<u8> {
    let Ok(mut object) = serde_json::from_slice::<Value>(value) else { return value.to_vec() };
    if !object["status"].is_object() {
        object["status"] = Value::Object(serde_json::Map::new());
    }
    object["status"]["storeIncarnation"] = incarnation.into();
    object.to_string().into_bytes()
}

/// The files of a data directory that belong into a backup, by name.
///
/// # Errors
/// With the path that can't be read. A directory without certificates gives none.
pub fn read_files(data_dir: &Path) -> Result<Vec<(String, Vec<u8>)>, Unusable> {
    let directory = data_dir.join(DIRECTORY);
    let names = match fs::read_dir(&directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Unusable::at(&directory)(error)),
    };
    let mut files = Vec::new();
    for entry in names {
        let path = entry.map_err(Unusable::at(&directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What a write that was cut off left behind begins with a dot.
        if !path.is_file() || name.starts_with('.') {
            continue;
        }
        files.push((format!("{DIRECTORY}{name}"), fs::read(&path).map_err(Unusable::at(&path))?));
    }
    files.sort();
    Ok(files)
}

/// Puts the files of a backup into a data directory, for its owner only. Others there stay.
///
/// # Errors
/// With the path that can't be written.
pub fn write_files(backup: &Backup, data_dir: &Path) -> Result<(), Unusable> {
    let directory = data_dir.join(DIRECTORY);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(Unusable::at(&directory))?;
    for (name, content) in &backup.files {
        let path = data_dir.join(name);
        keep_file(&path, content, true).map_err(Unusable::at(&path))?;
    }
    Ok(())
}

/// Writes a file for its owner only, whole or not at all, and durably.
///
/// # Errors
/// When it can't be written, or is there already and may not be replaced.
pub fn keep_file(path: &Path, content: &[u8], replace: bool) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    if !replace && path.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let part = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        if replace {
            fs::rename(&part, path)
        } else {
            fs::hard_link(&part, path).and_then(|()| fs::remove_file(&part))
        }?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}
