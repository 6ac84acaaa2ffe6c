//! What can't change while a sub-cluster is formed, because it is no part of the view that its servers agree about: the
//! name of the Secret with the heartbeat key, and the watchdog. It is refused, and digests of what was accepted tell which
//! part it is. Everything else goes through views (R21).

use std::collections::BTreeMap;

use holdfast_api::v1::{SubCluster, SubClusterPhase, SubClusterSpec};
use serde::Serialize;
use serde_json::Value;
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
    let millis = |duration: &holdfast_api::duration::Duration| duration.get().as_micros().to_string();
    let entries = [
        ("heartbeat.keySecret", digest(&spec.heartbeat.key_secret)),
        ("watchdog", digest(&(spec.watchdog.mode, &spec.watchdog.device, millis(&spec.watchdog.timeout)))),
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

/// 64 bits of SHA-256 over the JSON form.
fn digest<T: Serialize>(value: &T) -> String {
    // Our own types always have a JSON form; an empty one would only make two unlike things look alike here.
    let json = serde_json::to_value(value).unwrap_or(Value::Null);
    Sha256::digest(json.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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
        assert_eq!(changes(|spec| spec.watchdog.timeout = "9s".parse().unwrap()), ["watchdog"]);
        assert_eq!(changes(|spec| spec.heartbeat.key_secret = Some("other".into())), ["heartbeat.keySecret"]);
    }

    #[test]
    fn what_a_view_can_change_is_no_obstacle() {
        let none: Vec<String> = vec![];
        assert_eq!(changes(|spec| spec.servers.reverse()), none);
        assert_eq!(changes(|spec| spec.heartbeat.timeout = "2s".parse().unwrap()), none);
        assert_eq!(changes(|spec| spec.heartbeat.paths[0].name = "other".into()), none);
    }

    #[test]
    fn the_text_fits_its_field() {
        assert!(to_text(&parts(&sub_cluster("db").spec)).len() <= 512);
    }
}
