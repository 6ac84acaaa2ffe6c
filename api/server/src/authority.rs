//! One set of keys per store: the store keeps a record of the keys that its servers share, and a server whose keys are
//! others does not start on it.
//!
//! A second certificate authority on the same store would cut off every agent and administrator whose requests reach that
//! server, and a server without the key of the Secrets could neither read nor replace them. Both would happen silently,
//! to whoever starts a second server with an empty data directory. So a set of keys is made for an empty store only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::{Error, Expect, Store};
use serde::{Deserialize, Serialize};

use crate::feed::ROOT;
use crate::keys::{FILES, Keys, SecretKeys, secrets};
use crate::pki::PkiError;
use crate::sealed::{PREFIX, SealedStore};

/// Where the record is: outside of what the API serves.
const RECORD: &str = "/holdfast/authority";
/// How often a lost race for the record is repeated.
const ATTEMPTS: usize = 8;

/// Takes the record away, so that the next server puts its own keys on record. For a store whose contents are replaced
/// together with the keys, while no server runs.
pub(crate) async fn forget(store: &dyn Store) -> Result<(), Error> {
    match store.get(RECORD).await?.0 {
        Some(entry) => store.delete(RECORD, entry.modified).await.map(drop),
        None => Ok(()),
    }
}

/// What the store says about the keys of its servers. Fingerprints only; nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Fingerprint of the certificate authority, see [`crate::pki::Ca::fingerprint`].
    ca: String,
    /// Ids of the keys that sign tokens.
    tokens: Vec<String>,
    /// Ids of the keys that seal Secrets.
    secrets: Vec<String>,
}

/// Why a server can't start on a store.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The keys in the data directory are not those of the store.
    #[error(
        "the keys in {} are not those of the store: {problem}; nothing was changed. All servers of one store share {}: \
         copy these files from the directory pki of a server that runs on it, or restore them from a backup",
        .dir.display(), FILES.join(", ")
    )]
    Stranger {
        /// The directory of the keys.
        dir: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A key file can't be used.
    #[error(transparent)]
    Keys(#[from] PkiError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What the record asks of the keys that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// They are the same.
    Same,
    /// They may be used; the record becomes this one. Keys of Secrets that the record names and that are gone here must
    /// have sealed nothing that is still there.
    Changed { record: Record, gone: Vec<String> },
    /// They are those of another store.
    Stranger(String),
}

impl Record {
    fn of(keys: &Keys) -> Record {
        Record { ca: keys.ca().fingerprint(), tokens: keys.tokens().ids(), secrets: keys.secrets().ids() }
    }

    fn compare(&self, own: &Record) -> Verdict {
        if self.ca != own.ca {
            let problem = format!("ca.crt is {}, the store's is {}", own.ca, self.ca);
            return Verdict::Stranger(problem);
        }
        if !self.tokens.iter().any(|id| own.tokens.contains(id)) {
            let (own, theirs) = (own.tokens.join(", "), self.tokens.join(", "));
            return Verdict::Stranger(format!("tokens.keys has {own}, none of the store's ({theirs})"));
        }
        if self == own {
            return Verdict::Same;
        }
        let gone = self.secrets.iter().filter(|id| !own.secrets.contains(id)).cloned().collect();
        Verdict::Changed { record: own.clone(), gone }
    }
}

/// The keys with which a server may serve `store`, and the store through which it sees what they seal. For a store that
/// is new, makes the keys that `data_dir` lacks and puts their fingerprints on record; for every other one the keys have
/// to be there. Secrets that are not sealed with the first key are sealed with it. Does blocking disk access.
///
/// # Errors
/// [`AuthorityError::Stranger`] if the keys are missing or are not those of the store: nothing was changed then, neither
/// here nor there. [`AuthorityError::Store`] with [`Error::Unavailable`] may be tried again.
pub async fn establish(store: Arc<dyn Store>, data_dir: &Path) -> Result<(Keys, Arc<dyn Store>), AuthorityError> {
    let stranger = |problem: String| AuthorityError::Stranger { dir: data_dir.join("pki"), problem };
    let existing = |data_dir: &Path| {
        Keys::load(data_dir).map_err(|error| match error {
            PkiError::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                stranger(format!("{} is missing", path.display()))
            }
            other => other.into(),
        })
    };
    for _ in 0..ATTEMPTS {
        let (entry, _) = store.get(RECORD).await?;
        let (keys, written) = match &entry {
            None => {
                let has_ca = data_dir.join("pki/ca.key").exists() || data_dir.join("pki/ca.crt").exists();
                if !has_ca && !store.list(ROOT, None, 1, None).await?.entries.is_empty() {
                    return Err(stranger("there are none, and the store holds objects already".to_owned()));
                }
                // Sealed by somebody: a restored backup, whose keys have to be there, too.
                let sealed = sealed_with(&*store).await?;
                let keys = if sealed.is_empty() { Keys::load_or_create(data_dir)? } else { existing(data_dir)? };
                if let Some(id) = sealed.iter().find(|id| !keys.secrets().ids().contains(id)) {
                    return Err(stranger(format!("secrets.keys lacks the key {id}, with which Secrets are sealed")));
                }
                let written = put(&*store, &Record::of(&keys), Expect::Absent).await?;
                (keys, written)
            }
            Some(entry) => {
                let record: Record = serde_json::from_slice(&entry.value)
                    .map_err(|error| Error::Damaged(format!("{RECORD} holds no record of keys: {error}")))?;
                let keys = existing(data_dir)?;
                let written = match record.compare(&Record::of(&keys)) {
                    Verdict::Same => true,
                    Verdict::Stranger(problem) => return Err(stranger(problem)),
                    Verdict::Changed { record, gone } => {
                        if let Some(problem) = still_sealed(&*store, &gone).await? {
                            return Err(stranger(problem));
                        }
                        tracing::info!(tokens = ?record.tokens, secrets = ?record.secrets, "the keys have changed");
                        put(&*store, &record, Expect::Modified(entry.modified)).await?
                    }
                };
                (keys, written)
            }
        };
        // Somebody else was faster: what he has written decides.
        if written {
            reseal(&*store, keys.secrets()).await?;
            let sealed = SealedStore::new(store, Arc::clone(keys.secrets()));
            return Ok((keys, Arc::new(sealed)));
        }
    }
    Err(Error::Unavailable(format!("{RECORD} changes all the time")).into())
}

/// Writes the record; false if it is not as expected.
async fn put(store: &dyn Store, record: &Record, expect: Expect) -> Result<bool, AuthorityError> {
    let bytes = serde_json::to_vec(record).map_err(|error| Error::Damaged(error.to_string()))?;
    match store.put(RECORD, Bytes::from(bytes), expect, None).await {
        Ok(_) => Ok(true),
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The ids of all keys that have sealed something that is there.
async fn sealed_with(store: &dyn Store) -> Result<BTreeSet<String>, AuthorityError> {
    let page = store.list(PREFIX, None, 0, None).await?;
    Ok(page.entries.iter().filter_map(|entry| secrets::sealed_with(&entry.value)).map(str::to_owned).collect())
}

/// What still needs one of the keys that are gone.
async fn still_sealed(store: &dyn Store, gone: &[String]) -> Result<Option<String>, AuthorityError> {
    if gone.is_empty() {
        return Ok(None);
    }
    let page = store.list(PREFIX, None, 0, None).await?;
    let needs = |id: &String| page.entries.iter().filter(|e| secrets::sealed_with(&e.value) == Some(id)).count();
    Ok(gone.iter().find_map(|id| {
        let count = needs(id);
        (count > 0).then(|| format!("secrets.keys lacks the key {id}, with which {count} Secrets are sealed"))
    }))
}

/// Seals every Secret with the first key that is not yet: those of before there were keys, and those of an older key. A
/// write through the API would not do it, as a write that changes nothing is none.
async fn reseal(store: &dyn Store, keys: &SecretKeys) -> Result<(), AuthorityError> {
    let newest = keys.ids().into_iter().next();
    let mut count = 0;
    for entry in store.list(PREFIX, None, 0, None).await?.entries {
        let value = match secrets::sealed_with(&entry.value) {
            Some(id) if Some(id) == newest.as_deref() => continue,
            None => entry.value.to_vec(),
            Some(_) => match keys.open(&entry.key, &entry.value) {
                Ok(value) => value,
                Err(why) => {
                    tracing::error!(key = entry.key, why, "a Secret does not open; it is left as it is");
                    continue;
                }
            },
        };
        let Some(sealed) = keys.seal(&entry.key, &value) else { continue };
        match store.put(&entry.key, Bytes::from(sealed), Expect::Modified(entry.modified), None).await {
            Ok(_) => count += 1,
            // Somebody wrote it or deleted it just now, which leaves nothing to do for whoever has the newest key.
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if count > 0 {
        tracing::info!(count, "sealed Secrets with the first key of secrets.keys");
    }
    Ok(())
}

/// Reads a record as it is in a store, for tests of the reader.
///
/// # Errors
/// What is wrong with it.
pub fn check_record(bytes: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<Record>(bytes).map(drop).map_err(|error| error.to_string())
}
