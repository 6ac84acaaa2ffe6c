//! The rules that are more than one object's schema: which deletions are let through. Pure; what must be looked up is
//! an argument. That stale reports are refused is a rule of the schemas.

use serde_json::Value;

use crate::object::meta;
use crate::registry::ResourceDef;

/// Annotation that confirms a deletion with the object's name.
const CONFIRM: &str = "holdfast.dev/confirm-delete";

/// True if the deletion of this kind's objects is guarded: then [`deletion`] decides, with all objects that may refer
/// to the object.
pub(crate) fn is_guarded(def: &ResourceDef) -> bool {
    def.group == holdfast_api::GROUP
        && matches!(def.kind.as_str(), "FailoverGroup" | "SubCluster" | "SuperCluster" | "DataService")
}

/// The kind whose objects refer to objects of a guarded kind.
pub(crate) fn referring_kind(def: &ResourceDef) -> Option<&'static str> {
    match def.kind.as_str() {
        "SubCluster" | "DataService" => Some("FailoverGroup"),
        "SuperCluster" => Some("SubCluster"),
        _ => None,
    }
}

/// Decides about a deletion; the error says why not and what to do.
///
/// `referring` are the objects of [`referring_kind`] in all namespaces.
pub(crate) fn deletion(def: &ResourceDef, object: &Value, referring: &[Value]) -> Result<(), String> {
    let name = meta(object, "name");
    let confirmed = object["metadata"]["annotations"][CONFIRM] == *name;
    let confirm = format!("confirm the deletion with the annotation {CONFIRM}: {name}");
    match def.kind.as_str() {
        "FailoverGroup" => group_deletion(object, confirmed, &confirm),
        "SubCluster" => {
            let users = names_of(referring, |group| {
                meta(group, "namespace") == meta(object, "namespace") && group["spec"]["subCluster"] == *name
            });
            let unformed = matches!(text(object, "/status/phase"), "" | "Unformed");
            let state = text(object, "/spec/state");
            if confirmed || (users.is_empty() && (unformed || state == "Stopped")) {
                return Ok(());
            }
            if users.is_empty() {
                return Err(format!(
                    "the sub-cluster is in use (spec.state {state:?}, status.phase {:?}); set spec.state to Stopped \
                     first, or {confirm}",
                    text(object, "/status/phase")
                ));
            }
            Err(format!("failover groups belong to the sub-cluster: {users}; delete them first, or {confirm}"))
        }
        "SuperCluster" => {
            let users = names_of(referring, |sub_cluster| {
                let reference = &sub_cluster["spec"]["superCluster"];
                let namespace = reference["namespace"].as_str().unwrap_or(meta(sub_cluster, "namespace"));
                reference["name"] == *name && namespace == meta(object, "namespace")
            });
            if confirmed || users.is_empty() {
                return Ok(());
            }
            Err(format!(
                "sub-clusters belong to the super-cluster: {users}; remove their spec.superCluster first, or {confirm}"
            ))
        }
        "DataService" => {
            let reported = object.pointer("/status/usedBy").and_then(Value::as_array);
            let reported: Vec<&str> = reported.into_iter().flatten().filter_map(Value::as_str).collect();
            if reported.is_empty() {
                return Ok(());
            }
            Err(format!(
                "failover groups use the data service: {}; remove it from their spec.resources first",
                reported.join(", ")
            ))
        }
        _ => Ok(()),
    }
}

fn group_deletion(group: &Value, confirmed: bool, confirm: &str) -> Result<(), String> {
    let (state, phase) = (text(group, "/spec/state"), text(group, "/status/phase"));
    let placed = !text(group, "/status/server").is_empty()
        || group.pointer("/status/transitions").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let never_placed = !placed && matches!(phase, "" | "Offline");
    if confirmed || never_placed || (state == "Offline" && phase == "Offline") {
        return Ok(());
    }
    let server = text(group, "/status/server");
    let at = if server.is_empty() { String::new() } else { format!(" on {server}") };
    Err(format!(
        "the group is not offline (spec.state {state:?}, status.phase {phase:?}{at}); set spec.state to Offline and wait \
         for status.phase Offline, or {confirm}"
    ))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn names_of(objects: &[Value], used: impl Fn(&Value) -> bool) -> String {
    objects.iter().filter(|object| used(object)).map(|object| meta(object, "name")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod policies;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn def(kind: &str) -> ResourceDef {
        ResourceDef::from_crd(&json!({"spec": {
            "group": "holdfast.dev", "names": {"kind": kind, "plural": kind.to_lowercase()},
            "versions": [{"name": "v1", "storage": true}],
        }}))
        .expect("valid")
    }

    #[test]
    fn a_running_group_is_kept_until_offline_or_confirmed() {
        let group = |state: &str, phase: &str, confirm: &str| {
            json!({
                "metadata": {"name": "ledger", "annotations": {"holdfast.dev/confirm-delete": confirm}},
                "spec": {"state": state}, "status": {"phase": phase, "server": if phase == "Online" {"db1"} else {""},
                "transitions": [{"id": 1}]}
            })
        };
        let check = |object: Value| deletion(&def("FailoverGroup"), &object, &[]);
        let refused = check(group("Online", "Online", "")).expect_err("must be refused");
        assert!(refused.contains("on db1") && refused.contains("holdfast.dev/confirm-delete: ledger"), "{refused}");
        assert!(check(group("Offline", "Stopping", "")).is_err());
        assert!(check(group("Offline", "Offline", "")).is_ok());
        assert!(check(group("Online", "Online", "ledger")).is_ok());
        assert!(check(group("Online", "Online", "other")).is_err());
        assert!(check(json!({"metadata": {"name": "new"}, "spec": {"state": "Online"}})).is_ok());
    }

    #[test]
    fn a_sub_cluster_with_groups_is_kept() {
        let object = json!({"metadata": {"name": "db", "namespace": "ha"}, "spec": {"state": "Stopped"}, "status": {"phase": "Running"}});
        let group = |ns: &str| json!({"metadata": {"name": "ledger", "namespace": ns}, "spec": {"subCluster": "db"}});
        assert!(deletion(&def("SubCluster"), &object, &[group("ha")]).is_err());
        assert!(deletion(&def("SubCluster"), &object, &[group("other")]).is_ok());
    }
}
