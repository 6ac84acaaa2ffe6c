//! The three-way merge of `apply`: what to change so that an object becomes as its manifest says, leaving alone what
//! others wrote. Pure. The last manifest is kept in the annotation that kubectl uses, so both can take turns.

use serde_json::{Map, Value};

/// Where the last applied manifest is kept.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A JSON merge patch (RFC 7396) that turns `live` into what `wanted` says: sets what differs, and removes what
/// `last` had and `wanted` no longer has. Empty object: nothing to do.
pub(crate) fn patch(last: &Value, wanted: &Value, live: &Value) -> Value {
    let mut changes = Map::new();
    if let (Some(wanted), Some(live)) = (wanted.as_object(), live.as_object()) {
        let empty = Map::new();
        diff(last.as_object().unwrap_or(&empty), wanted, live, &mut changes);
    }
    Value::Object(changes)
}

fn diff(
    last: &Map<String, Value>,
    wanted: &Map<String, Value>,
    live: &Map<String, Value>,
    changes: &mut Map<String, Value>,
) {
    for (key, value) in wanted {
        match (value, live.get(key)) {
            (Value::Object(wanted), Some(Value::Object(live))) => {
                let empty = Map::new();
                let last = last.get(key).and_then(Value::as_object).unwrap_or(&empty);
                let mut inner = Map::new();
                diff(last, wanted, live, &mut inner);
                if !inner.is_empty() {
                    changes.insert(key.clone(), Value::Object(inner));
                }
            }
            // A null in a manifest means "not given", as in a patch.
            (Value::Null, None) => {}
            // A patch can only set a list as a whole; one that has just gained defaults is left alone.
            (value, Some(live)) if last.get(key) == Some(value) && has_all_of(live, value) => {}
            (value, Some(same)) if value == same => {}
            (value, _) => {
                changes.insert(key.clone(), value.clone());
            }
        }
    }
    for key in last.keys() {
        if !wanted.contains_key(key) && live.contains_key(key) {
            changes.insert(key.clone(), Value::Null);
        }
    }
}

/// Whether `live` says everything that `wanted` says, and maybe more fields.
fn has_all_of(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, value)| match live.get(key) {
            Some(live) => has_all_of(live, value),
            None => value.is_null(),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| has_all_of(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_what_differs_removes_what_left_and_keeps_what_others_wrote() {
        let last = json!({"spec": {"a": 1, "gone": {"x": 1}, "list": [1]}, "metadata": {"labels": {"mine": "1"}}});
        let wanted = json!({"spec": {"a": 2, "list": [1, 2]}, "metadata": {"labels": {}}});
        let live = json!({
            "spec": {"a": 1, "gone": {"x": 1}, "list": [1], "defaulted": 5},
            "metadata": {"labels": {"mine": "1", "theirs": "2"}, "uid": "u"},
            "status": {"phase": "Online"},
        });
        assert_eq!(
            patch(&last, &wanted, &live),
            json!({"spec": {"a": 2, "gone": null, "list": [1, 2]}, "metadata": {"labels": {"mine": null}}})
        );
    }

    #[test]
    fn the_same_manifest_again_changes_nothing() {
        let manifest = json!({"spec": {"a": 1, "deep": {"b": [1, {"c": 2}]}}});
        let live =
            json!({"spec": {"a": 1, "deep": {"b": [1, {"c": 2, "defaulted": 3}], "defaulted": true}}, "status": {}});
        assert_eq!(patch(&manifest, &manifest, &live), json!({}));
        let edited = json!({"spec": {"a": 1, "deep": {"b": [1, {"c": 3, "defaulted": 3}], "defaulted": true}}});
        assert_eq!(patch(&manifest, &manifest, &edited), json!({"spec": {"deep": {"b": [1, {"c": 2}]}}}));
    }

    #[test]
    fn what_the_patch_says_is_what_the_object_becomes() {
        // Compared with an obviously correct reading of RFC 7396.
        fn merge(target: &mut Value, patch: &Value) {
            let Value::Object(patch) = patch else { return *target = patch.clone() };
            if !target.is_object() {
                *target = json!({});
            }
            let Value::Object(target) = target else { return };
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        let last = json!({"spec": {"union": {"lan": {"role": "Public"}}, "n": 1}});
        let wanted = json!({"spec": {"union": {"disk": {"disk": "san"}}}});
        let mut live = json!({"spec": {"union": {"lan": {"role": "Public", "port": 7788}}, "n": 1, "other": 1}});
        let change = patch(&last, &wanted, &live);
        merge(&mut live, &change);
        assert_eq!(live, json!({"spec": {"union": {"disk": {"disk": "san"}}, "other": 1}}));
    }
}
