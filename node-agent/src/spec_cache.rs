//! The last accepted specifications, the heartbeat keys and the credentials for the quorum server, durable on this server: what it acts by while the API is
//! away, for however long.
//!
//! An object that vanishes from the API stays here (absence is not deletion, protocol-why D13); only one whose deletion
//! was seen and admitted is dropped. Whether a specification is accepted is the controller's decision; it arrives as
//! the condition `Accepted` for exactly the object's generation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::conditions;
use holdfast_api::reasons::condition::ACCEPTED;
use holdfast_api::v1::{
    DataService, FailoverGroup, FailoverGroupStatus, GroupPhase, GroupState, SubCluster, SubClusterSpec,
    SubClusterStatus,
};
use holdfast_core::names::GroupName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::convert::number;
use crate::fencing::topology::{Secrets, secret_names};

mod data_services;
mod references;

pub use references::ConfigMaps;

/// Directory in the data directory.
pub const DIRECTORY: &str = "specs";
/// What the view may still act by while it is on the way to the newest specification.
const FORMER: &str = "former.json";
const KEYS: &str = "keys.json";
const QUORUM_SECRETS: &str = "quorum-secrets.json";
const FENCE_SECRETS: &str = "secrets.json";

/// Why the cache can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The system.
    #[error("{path} can't be {doing}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that isn't what it was.
    #[error(
        "{path} is damaged: {reason}. It says how to stop what may run here, so the agent does not start without it. \
         Remove the file only if nothing of it runs on this server; the specification then comes from the API again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

/// What is held.
#[derive(Debug, Clone, Default)]
pub struct Specs {
    /// The sub-cluster; none before it was read for the first time.
    pub sub_cluster: Option<Arc<SubCluster>>,
    /// Generations of it that may still be in force in a view, oldest first (R21).
    pub former: Vec<Arc<SubCluster>>,
    /// Its groups.
    pub groups: BTreeMap<GroupName, Arc<FailoverGroup>>,
    /// The data services of the namespace.
    pub data_services: BTreeMap<String, Arc<DataService>>,
    /// Heartbeat keys by number.
    pub keys: BTreeMap<String, Vec<u8>>,
    /// Secrets for quorum servers, by name: also those that a former sub-cluster names, whose lock may still be in force.
    pub quorum_secrets: Secrets,
    /// Secrets that resources and monitors name.
    pub resource_secrets: Secrets,
    /// ConfigMaps that scripts and methods name.
    pub config_maps: ConfigMaps,
    /// Secrets that fence devices name.
    pub secrets: Secrets,
}

/// The directory and what it holds.
#[derive(Debug)]
pub struct SpecCache {
    directory: PathBuf,
    specs: Specs,
}

impl SpecCache {
    /// Opens the cache in the data directory; an absent one is made, empty.
    pub fn open(data_dir: &Path) -> Result<SpecCache, CacheError> {
        let directory = data_dir.join(DIRECTORY);
        let groups = directory.join("groups");
        fs::create_dir_all(&groups).map_err(fail(&groups, "made"))?;
        let mut specs =
            Specs { sub_cluster: read(&directory.join("sub-cluster.json"))?.map(Arc::new), ..Specs::default() };
        let former: Vec<SubCluster> = read(&directory.join(FORMER))?.unwrap_or_default();
        specs.former = former.into_iter().map(Arc::new).collect();
        specs.keys = read_secret(&directory.join(KEYS))?;
        specs.quorum_secrets = read_secrets(&directory.join(QUORUM_SECRETS))?;
        specs.secrets = read_secrets(&directory.join(FENCE_SECRETS))?;
        specs.data_services = data_services::open(&directory)?;
        (specs.resource_secrets, specs.config_maps) = references::open(&directory)?;
        for entry in fs::read_dir(&groups).map_err(fail(&groups, "read"))? {
            let path = entry.map_err(fail(&groups, "read"))?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            if let Some(group) = read::<FailoverGroup>(&path)? {
                let name = GroupName(group.metadata.name.clone().unwrap_or_default());
                specs.groups.insert(name, Arc::new(group));
            }
        }
        Ok(SpecCache { directory, specs })
    }

    /// What is held now.
    pub fn specs(&self) -> &Specs {
        &self.specs
    }

    /// Takes a sub-cluster as read from the API; returns whether something changed. Durable when it returns. `in_force`:
    /// the generation of the newest view; what is older is forgotten.
    pub fn take_sub_cluster(&mut self, fresh: &SubCluster, in_force: Option<u64>) -> Result<bool, CacheError> {
        let accepted = fresh.status.as_ref().is_some_and(|s| is_accepted(&s.conditions, &fresh.metadata));
        let held = self.specs.sub_cluster.as_deref();
        if !accepted || held.is_some_and(|held| sub_cluster_regressed(held, fresh)) {
            return Ok(false);
        }
        let accept_spec = fresh.status.as_ref().and_then(|status| status.accept_spec.clone());
        let status =
            accept_spec.map(|spec| SubClusterStatus { accept_spec: Some(spec), ..SubClusterStatus::default() });
        let mut taken = SubCluster { metadata: trimmed(&fresh.metadata), spec: fresh.spec.clone(), status };
        if held == Some(&taken) {
            return Ok(false);
        }
        taken.metadata.managed_fields = None;
        let differs = |held: &Arc<SubCluster>| {
            held.spec != taken.spec || number::of_sub_cluster(held) != number::of_sub_cluster(&taken)
        };
        if let Some(held) = self.specs.sub_cluster.clone().filter(differs) {
            // First what is in force, then what replaces it: a crash in between forgets nothing.
            let old = |object: &SubCluster| Some(number::of_sub_cluster(object)) < in_force;
            let mut former = self.specs.former.clone();
            former.retain(|object| !old(object));
            former.push(held);
            write(&self.directory.join(FORMER), &former.iter().map(AsRef::as_ref).collect::<Vec<&SubCluster>>())?;
            self.specs.former = former;
        }
        write(&self.directory.join("sub-cluster.json"), &taken)?;
        self.specs.sub_cluster = Some(Arc::new(taken));
        Ok(true)
    }

    /// Takes a group as read from the API. Of a generation that isn't accepted only the controller's requests and a
    /// deletion are taken, beside the specification accepted before. Returns whether something changed.
    pub fn take_group(&mut self, fresh: &FailoverGroup) -> Result<bool, CacheError> {
        let Some(name) = fresh.metadata.name.clone() else { return Ok(false) };
        let status = fresh.status.clone().unwrap_or_default();
        let held = self.specs.groups.get(name.as_str());
        if held.is_some_and(|held| group_regressed(held, fresh)) {
            return Ok(false);
        }
        let accepted = is_accepted(&status.conditions, &fresh.metadata);
        let mut taken = match held {
            _ if accepted => {
                FailoverGroup { metadata: trimmed(&fresh.metadata), spec: fresh.spec.clone(), status: None }
            }
            Some(held) if held.metadata.uid == fresh.metadata.uid => FailoverGroup {
                metadata: ObjectMeta { generation: held.metadata.generation, ..trimmed(&fresh.metadata) },
                spec: held.spec.clone(),
                status: None,
            },
            _ => return Ok(false),
        };
        // Where the group stood when its deletion was asked for says whether that may stop it.
        let phase = match held.filter(|held| held.metadata.deletion_timestamp.is_some()) {
            _ if fresh.metadata.deletion_timestamp.is_none() => None,
            Some(held) => held.status.as_ref().and_then(|s| s.phase),
            None => status.phase,
        };
        let FailoverGroupStatus { target, clear_failures, restart, pause, mut accept_spec, .. } = status;
        if !accepted {
            // It goes with the specification that it is about.
            accept_spec = held.and_then(|held| held.status.as_ref()?.accept_spec.clone());
        }
        let rest =
            FailoverGroupStatus { target, clear_failures, restart, pause, phase, accept_spec, ..Default::default() };
        taken.status = Some(rest).filter(|rest| *rest != FailoverGroupStatus::default());
        if held.is_some_and(|held| **held == taken) {
            return Ok(false);
        }
        write(&self.group_file(&name), &taken)?;
        self.specs.groups.insert(GroupName(name), Arc::new(taken));
        Ok(true)
    }

    /// The API no longer has these groups: those whose admitted deletion was seen are dropped, all others stay. Returns
    /// whether something changed.
    pub fn vanished(&mut self, present: impl Fn(&str) -> bool) -> Result<bool, CacheError> {
        let gone: Vec<GroupName> = self
            .specs
            .groups
            .iter()
            .filter(|(name, group)| !present(&name.0) && is_deleted(group))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            let path = self.group_file(&name.0);
            fs::remove_file(&path).map_err(fail(&path, "removed"))?;
            sync_directory(&self.directory.join("groups"))?;
            self.specs.groups.remove(name);
        }
        Ok(!gone.is_empty())
    }

    /// Takes the keys of the Secret; returns whether something changed.
    pub fn take_keys(&mut self, keys: &BTreeMap<String, Vec<u8>>) -> Result<bool, CacheError> {
        if self.specs.keys == *keys {
            return Ok(false);
        }
        write_secret(&self.directory.join(KEYS), keys)?;
        self.specs.keys.clone_from(keys);
        Ok(true)
    }

    /// Takes a Secret for a quorum server; returns whether something changed. Those that no sub-cluster names any more,
    /// this one or a former one, are forgotten.
    pub fn take_quorum_secret(&mut self, name: &str, data: &BTreeMap<String, Vec<u8>>) -> Result<bool, CacheError> {
        let all = self.specs.former.iter().chain(&self.specs.sub_cluster);
        let wanted: BTreeSet<String> = all.filter_map(|object| quorum_secret_name(&object.spec)).collect();
        let secrets = with(&self.specs.quorum_secrets, name, data, &wanted);
        if secrets == self.specs.quorum_secrets {
            return Ok(false);
        }
        write_secrets(&self.directory.join(QUORUM_SECRETS), &secrets)?;
        self.specs.quorum_secrets = secrets;
        Ok(true)
    }

    /// Takes a Secret that a fence device names; returns whether something changed. Those that none names any more are
    /// forgotten.
    pub fn take_secret(&mut self, name: &str, data: &BTreeMap<String, Vec<u8>>) -> Result<bool, CacheError> {
        let wanted = self.specs.sub_cluster.as_ref().map(|object| secret_names(&object.spec)).unwrap_or_default();
        let secrets = with(&self.specs.secrets, name, data, &wanted);
        if secrets == self.specs.secrets {
            return Ok(false);
        }
        write_secrets(&self.directory.join(FENCE_SECRETS), &secrets)?;
        self.specs.secrets = secrets;
        Ok(true)
    }

    fn group_file(&self, name: &str) -> PathBuf {
        // Names of objects have no slash and are never "." or "..".
        self.directory.join("groups").join(format!("{name}.json"))
    }
}

/// Whether the deletion of a group was asked for and may stop it (api.md §10): it is declared Offline, or did not run
/// when it was asked for, or the deletion is confirmed by name. `holdfast.dev/on-delete: Orphan` leaves it running.
pub fn is_deleted(group: &FailoverGroup) -> bool {
    let annotation = |name: &str| group.metadata.annotations.as_ref().and_then(|a| a.get(name));
    let confirmed = annotation("holdfast.dev/confirm-delete").is_some()
        && annotation("holdfast.dev/confirm-delete") == group.metadata.name.as_ref();
    let phase = group.status.as_ref().and_then(|status| status.phase);
    let idle = matches!(phase, None | Some(GroupPhase::Offline));
    let may_stop = group.spec.state == GroupState::Offline || confirmed || idle;
    let orphan = annotation("holdfast.dev/on-delete").is_some_and(|word| word == "Orphan");
    group.metadata.deletion_timestamp.is_some() && may_stop && !orphan
}

fn is_accepted(list: &[Condition], metadata: &ObjectMeta) -> bool {
    conditions::is_true_for(list, ACCEPTED, metadata.generation)
}

/// The same object with a specification of a lower number, or with another one under the number that is held: the store was
/// restored from an older state, and may have been changed since. What was acted on counts: members compare numbers
/// only, so one number must mean one specification, for all of them and for ever.
fn regressed<S: PartialEq>(held: (&ObjectMeta, u64, &S), fresh: (&ObjectMeta, u64, &S)) -> bool {
    held.0.uid == fresh.0.uid && (fresh.1 < held.1 || fresh.1 == held.1 && fresh.2 != held.2)
}

/// As [`regressed`], of a group.
pub fn group_regressed(held: &FailoverGroup, fresh: &FailoverGroup) -> bool {
    let of = number::of_group;
    regressed((&held.metadata, of(held), &held.spec), (&fresh.metadata, of(fresh), &fresh.spec))
}

/// As [`regressed`], of a sub-cluster.
pub fn sub_cluster_regressed(held: &SubCluster, fresh: &SubCluster) -> bool {
    let of = number::of_sub_cluster;
    regressed((&held.metadata, of(held), &held.spec), (&fresh.metadata, of(fresh), &fresh.spec))
}

/// What of the metadata says something to an agent.
fn trimmed(metadata: &ObjectMeta) -> ObjectMeta {
    let own = |annotations: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        annotations
            .iter()
            .filter(|(key, _)| key.starts_with("holdfast.dev/"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        generation: metadata.generation,
        deletion_timestamp: metadata.deletion_timestamp.clone(),
        annotations: metadata.annotations.as_ref().map(own).filter(|a| !a.is_empty()),
        ..ObjectMeta::default()
    }
}

fn fail(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { path: path.clone(), doing, source }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CacheError> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fail(path, "read"))?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| CacheError::Damaged { path: path.to_owned(), reason: e.to_string() })
}

/// A Secret's entries, kept as text; absent: none.
fn read_secret(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, CacheError> {
    decoded(read(path)?.unwrap_or_default()).map_err(|reason| CacheError::Damaged { path: path.to_owned(), reason })
}

fn write_secret(path: &Path, entries: &BTreeMap<String, Vec<u8>>) -> Result<(), CacheError> {
    write(path, &encoded(entries))
}

/// Name of the Secret with the credentials for the quorum server, if there is one.
pub fn quorum_secret_name(spec: &SubClusterSpec) -> Option<String> {
    spec.quorum.quorum_server.as_ref()?.credential_secret.clone()
}

/// These Secrets with one more or another content, without those that are not wanted.
fn with(secrets: &Secrets, name: &str, data: &BTreeMap<String, Vec<u8>>, wanted: &BTreeSet<String>) -> Secrets {
    let mut all = secrets.0.clone();
    all.insert(name.to_owned(), data.clone());
    all.retain(|name, _| wanted.contains(name));
    Secrets(all)
}

fn read_secrets(path: &Path) -> Result<Secrets, CacheError> {
    let texts: BTreeMap<String, BTreeMap<String, String>> = read(path)?.unwrap_or_default();
    let decode = |(name, data): (String, BTreeMap<String, String>)| match decoded(data) {
        Ok(entries) => Ok((name, entries)),
        Err(e) => Err(CacheError::Damaged { path: path.to_owned(), reason: format!("Secret {name}: {e}") }),
    };
    texts.into_iter().map(decode).collect::<Result<_, _>>().map(Secrets)
}

fn write_secrets(path: &Path, secrets: &Secrets) -> Result<(), CacheError> {
    let texts: BTreeMap<&String, _> = secrets.0.iter().map(|(name, data)| (name, encoded(data))).collect();
    write(path, &texts)
}

fn decoded(texts: BTreeMap<String, String>) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let decode = |(name, text): (String, String)| match STANDARD.decode(text) {
        Ok(bytes) => Ok((name, bytes)),
        Err(e) => Err(format!("key {name}: {e}")),
    };
    texts.into_iter().map(decode).collect()
}

fn encoded(entries: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&String, String> {
    entries.iter().map(|(name, bytes)| (name, STANDARD.encode(bytes))).collect()
}

/// Replaces a file as a whole: after a crash it has the old content or the new one.
pub(crate) fn write(path: &Path, content: &impl Serialize) -> Result<(), CacheError> {
    let bytes = serde_json::to_vec(content).map_err(|e| CacheError::Damaged {
        path: path.to_owned(),
        reason: format!("it can't be written as JSON: {e}"),
    })?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fail(&temporary, "made"))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail(&temporary, "written"))?;
    fs::rename(&temporary, path).map_err(fail(path, "put in place"))?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> Result<(), CacheError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(fail(path, "synced"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(generation: i64, accepted: i64, mount: &str, extra: serde_json::Value) -> FailoverGroup {
        let mut object = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup",
            "metadata": {"name": "ledger", "namespace": "ha", "uid": "u1", "generation": generation,
                "resourceVersion": "77", "managedFields": []},
            "spec": {"subCluster": "db", "resources": [
                {"name": "data", "filesystem": {"device": "/dev/disk/by-id/x", "mountPoint": mount, "type": "ext4"}}]},
            "status": {"phase": "Online", "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
                "message": "", "observedGeneration": accepted, "lastTransitionTime": "2026-03-02T01:00:00Z"}]}
        });
        json_patch(&mut object, extra);
        serde_json::from_value(object).unwrap()
    }

    fn json_patch(object: &mut serde_json::Value, patch: serde_json::Value) {
        match (object, patch) {
            (serde_json::Value::Object(object), serde_json::Value::Object(patch)) => {
                for (key, value) in patch {
                    json_patch(object.entry(key).or_insert(json!({})), value);
                }
            }
            (object, patch) => *object = patch,
        }
    }

    fn mount_point(cache: &SpecCache) -> String {
        cache.specs().groups["ledger"].spec.resources[0].filesystem.as_ref().unwrap().mount_point.clone()
    }

    #[test]
    fn only_accepted_generations_are_taken_and_they_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = SpecCache::open(dir.path()).unwrap();
        assert!(!cache.take_group(&group(1, 0, "/srv/a", json!({}))).unwrap());
        assert!(cache.take_group(&group(1, 1, "/srv/a", json!({}))).unwrap());
        assert!(!cache.take_group(&group(1, 1, "/srv/a", json!({"status": {"phase": "Stopping"}}))).unwrap());
        assert!(!cache.take_group(&group(2, 1, "/srv/b", json!({}))).unwrap());
        assert_eq!(mount_point(&SpecCache::open(dir.path()).unwrap()), "/srv/a");
        assert!(cache.take_group(&group(2, 2, "/srv/b", json!({}))).unwrap());
        assert!(!cache.take_group(&group(1, 1, "/srv/a", json!({}))).unwrap(), "a restored backup");
        // And changed since: the same number, another specification. Whoever has not seen it would take them for one.
        assert!(!cache.take_group(&group(2, 2, "/srv/c", json!({}))).unwrap());
        assert!(cache.take_group(&group(3, 3, "/srv/c", json!({}))).unwrap());
        let mut cache = SpecCache::open(dir.path()).unwrap();
        assert_eq!(mount_point(&cache), "/srv/c");
        assert!(!cache.take_group(&group(2, 2, "/srv/b", json!({}))).unwrap());
        assert_eq!(mount_point(&SpecCache::open(dir.path()).unwrap()), "/srv/c");
    }

    #[test]
    fn what_a_restored_store_has_is_taken_once_it_is_accepted_and_never_lost_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut cache = SpecCache::open(directory.path()).expect("empty");
        let by = |acceptances: u32| json!({"status": {"acceptSpec": {"uid": "o", "acceptances": acceptances}}});
        assert!(cache.take_group(&group(7, 7, "/new", json!({}))).expect("taken"));
        for (generation, mount) in [(3, "/old"), (7, "/other")] {
            let restored = group(generation, generation, mount, json!({}));
            assert!(group_regressed(&cache.specs().groups["ledger"], &restored));
            assert!(!cache.take_group(&restored).expect("held"));
            assert_eq!(mount_point(&cache), "/new");
        }
        assert!(cache.take_group(&group(3, 3, "/old", by(1))).expect("accepted"));
        assert_eq!(mount_point(&cache), "/old");
        // Restored once more, from before that.
        assert!(!cache.take_group(&group(9, 9, "/lost", json!({}))).expect("held"));
        // Of a generation that is refused nothing is taken, also not that it would count more.
        cache.take_group(&group(4, 3, "/refused", by(2))).expect("looked at");
        assert_eq!(number::of_group(&cache.specs().groups["ledger"]), 1_000_000_003);
        assert!(cache.take_group(&group(4, 4, "/next", by(1))).expect("taken"));
        let again = SpecCache::open(directory.path()).expect("what was written");
        assert_eq!(number::of_group(&again.specs().groups["ledger"]), 1_000_000_004);
        assert_eq!(mount_point(&again), "/next");
    }

    #[test]
    fn a_target_arrives_even_while_a_newer_spec_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = SpecCache::open(dir.path()).unwrap();
        cache.take_group(&group(1, 1, "/srv/a", json!({}))).unwrap();
        let target = json!({"status": {"target": {"server": "db2", "epoch": 4}}});
        assert!(cache.take_group(&group(2, 1, "/srv/b", target)).unwrap());
        let held = &cache.specs().groups["ledger"];
        assert_eq!(held.status.as_ref().unwrap().target.as_ref().unwrap().server, "db2");
        assert_eq!((mount_point(&cache), held.metadata.generation), ("/srv/a".to_owned(), Some(1)));
    }

    #[test]
    fn a_group_that_vanishes_is_kept_unless_its_deletion_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = SpecCache::open(dir.path()).unwrap();
        cache.take_group(&group(1, 1, "/srv/a", json!({}))).unwrap();
        assert!(!cache.vanished(|_| false).unwrap());
        assert_eq!(SpecCache::open(dir.path()).unwrap().specs().groups.len(), 1);
        // It ran when the deletion was asked for, nobody confirmed it: it goes on.
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-03-02T01:00:00Z"}});
        assert!(cache.take_group(&group(1, 1, "/srv/a", deleted.clone())).unwrap());
        assert!(!cache.vanished(|_| false).unwrap());
        let mut confirmed = deleted;
        confirmed["metadata"]["annotations"] = json!({"holdfast.dev/confirm-delete": "ledger"});
        assert!(cache.take_group(&group(1, 1, "/srv/a", confirmed)).unwrap());
        assert!(!cache.vanished(|_| true).unwrap());
        assert!(cache.vanished(|_| false).unwrap());
        assert_eq!(SpecCache::open(dir.path()).unwrap().specs().groups.len(), 0);
    }

    #[test]
    fn keys_are_kept_for_root_only_and_damage_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut cache = SpecCache::open(dir.path()).unwrap();
        let keys = BTreeMap::from([("1".to_owned(), vec![0, 255, 7])]);
        assert!(cache.take_keys(&keys).unwrap() && !cache.take_keys(&keys).unwrap());
        assert_eq!(SpecCache::open(dir.path()).unwrap().specs().keys, keys);
        let file = dir.path().join(DIRECTORY).join("keys.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "{").unwrap();
        let error = SpecCache::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("keys.json is damaged"), "{error}");
    }

    #[test]
    fn credentials_of_a_quorum_server_stay_while_its_lock_may_be_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = SpecCache::open(directory.path()).unwrap();
        let object = |generation: i64, secret: &str| -> SubCluster {
            let server = json!({"urls": ["https://192.0.2.100:7443"], "lease": {"namespace": "ha", "name": secret},
                "credentialSecret": secret});
            let value = json!({
                "apiVersion": "holdfast.dev/v1", "kind": "SubCluster",
                "metadata": {"name": "db", "namespace": "ha", "uid": "u", "generation": generation},
                "spec": {"servers": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
                    "heartbeat": {"timeout": "1s", "paths": []},
                    "quorum": {"type": "QuorumServer", "quorumServer": server}},
                "status": {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                    "observedGeneration": generation, "lastTransitionTime": "2026-03-02T01:00:00Z"}]}
            });
            serde_json::from_value(value).unwrap()
        };
        let entries = |text: &str| BTreeMap::from([("token".to_string(), text.as_bytes().to_vec())]);
        let held = |cache: &SpecCache| cache.specs().quorum_secrets.0.keys().cloned().collect::<Vec<_>>();
        for (generation, secret, expected) in [(1, "x", vec!["x"]), (2, "y", vec!["x", "y"]), (3, "z", vec!["y", "z"])]
        {
            // When the third one comes, the second one is in force: the first lock is asked no more.
            let in_force = u64::try_from(generation).unwrap() - 1;
            assert!(cache.take_sub_cluster(&object(generation, secret), Some(in_force)).unwrap());
            assert!(cache.take_quorum_secret(secret, &entries(secret)).unwrap());
            assert!(!cache.take_quorum_secret(secret, &entries(secret)).unwrap(), "the same again is no change");
            assert_eq!(held(&cache), expected);
        }
        let again = SpecCache::open(directory.path()).unwrap();
        assert_eq!(again.specs().quorum_secrets, cache.specs().quorum_secrets, "they survive a restart");
        assert_eq!(again.specs().quorum_secrets.0["y"], entries("y"));
    }
}
