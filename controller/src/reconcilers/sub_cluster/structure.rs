//! What can't change while a sub-cluster is formed: servers, paths, timing, quorum. A change of these has to go through a
//! view of the servers (R21), which this version can't do; it is refused, and digests of what was accepted tell which
//! part it is.

use std::collections::BTreeMap;

use holdfast_api::v1::{SubCluster, SubClusterPhase, SubClusterSpec};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Digests by the name of the field below `spec`.
pub(crate) type Parts = BTreeMap<String, String>;

/// Whether servers of it may be acting by the accepted structure.
pub(crate) fn is_formed(sub_cluster: &SubCluster) -> bool {
    let Some(status) = &sub_cluster.status else { return false };
    let begun = status.phase.is_some_and(|phase| phase != SubClusterPhase::Unformed);
    status.cluster_id.is_some() || status.epoch.is_some() || begun
}

/// The digests of a spec.
pub(crate) fn parts(spec: &SubClusterSpec) -> Parts {
    let used = |disk: &str| {
        let locks = spec.quorum.lock_disk.as_ref().is_some_and(|lock| lock.disk == disk);
        locks || spec.heartbeat.paths.iter().any(|path| path.disk.as_ref().is_some_and(|path| path.disk == disk))
    };
    let advanced = spec.heartbeat.advanced.clone().unwrap_or_default();
    let millis = |duration: &holdfast_api::duration::Duration| duration.get().as_micros().to_string();
    let servers: Vec<_> = spec.servers.iter().map(|server| json!({"name": server.name, "id": server.id})).collect();
    let disks: Vec<_> = spec.disks.iter().filter(|disk| used(&disk.name)).collect();
    let entries = [
        ("servers", digest(&servers)),
        ("disks", digest(&disks)),
        ("heartbeat.paths", digest(&spec.heartbeat.paths)),
        ("heartbeat.timeout", digest(&millis(&spec.heartbeat.timeout))),
        ("heartbeat.interval", digest(&spec.heartbeat.interval.as_ref().map(millis))),
        ("heartbeat.advanced", {
            let given = (advanced.stall.as_ref().map(millis), advanced.lease.as_ref().map(millis));
            digest(&(given, millis(&advanced.takeover_wait)))
        }),
        ("heartbeat.keySecret", digest(&spec.heartbeat.key_secret)),
        ("quorum", digest(&spec.quorum)),
        ("watchdog", digest(&(spec.watchdog.mode, &spec.watchdog.device, millis(&spec.watchdog.timeout)))),
        ("evidence.drain", digest(&millis(&spec.evidence.drain))),
    ];
    entries.into_iter().map(|(name, digest)| (name.to_string(), digest)).collect()
}

/// The parts in which a spec differs from what was accepted.
pub(crate) fn changed(accepted: &Parts, wanted: &Parts) -> Vec<String> {
    let differs = |name: &&String| accepted.get(*name).is_some_and(|digest| Some(digest) != wanted.get(*name));
    wanted.keys().filter(differs).cloned().collect()
}

/// The text form, for `status.acceptedDigest`.
pub(crate) fn to_text(parts: &Parts) -> String {
    parts.iter().map(|(name, digest)| format!("{name}={digest}")).collect::<Vec<_>>().join(" ")
}

/// Reads the text form. Words that mean nothing to this version are left out.
pub(crate) fn from_text(text: &str) -> Parts {
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, digest)| (name.to_string(), digest.to_string())).collect()
}

/// 64 bits of SHA-256 over the JSON form; the order of lists that have keys does not count.
fn digest<T: Serialize>(value: &T) -> String {
    // Our own types always have a JSON form; an empty one would only make two unlike things look alike here.
    let mut json = serde_json::to_value(value).unwrap_or(Value::Null);
    sort(&mut json);
    Sha256::digest(json.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            let key = |item: &Value| {
                let name = item.get("name").or_else(|| item.get("server"))?;
                name.as_str().map(str::to_string)
            };
            if items.iter().all(|item| key(item).is_some()) {
                items.sort_by_key(key);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(sort),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sub_cluster;
    use super::*;

    fn changes(edit: impl Fn(&mut SubClusterSpec)) -> Vec<String> {
        let before = sub_cluster("db").spec;
        let mut after = before.clone();
        edit(&mut after);
        changed(&from_text(&to_text(&parts(&before))), &parts(&after))
    }

    #[test]
    fn the_changed_part_is_named() {
        assert_eq!(changes(|spec| spec.heartbeat.timeout = "2s".parse().unwrap()), ["heartbeat.timeout"]);
        assert_eq!(changes(|spec| spec.heartbeat.paths[0].name = "other".into()), ["heartbeat.paths"]);
        assert_eq!(
            changes(|spec| {
                spec.servers.pop();
                spec.disks[0].area = None;
            }),
            ["disks", "servers"]
        );
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        let none: Vec<String> = vec![];
        assert_eq!(changes(|spec| spec.servers.reverse()), none);
        assert_eq!(changes(|spec| spec.heartbeat.timeout = "1000ms".parse().unwrap()), none);
        assert_eq!(changes(|spec| spec.servers[0].site = "hall-b".into()), none);
    }

    #[test]
    fn the_text_fits_its_field() {
        assert!(to_text(&parts(&sub_cluster("db").spec)).len() <= 512);
    }
}
