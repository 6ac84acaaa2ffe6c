//! Manifests in an Operation: read as the API server would, with the same schema, defaults and rules, against what is
//! there.

use holdfast_api::v1::{FailoverGroup, SubCluster};
use holdfast_api::{API_VERSION, schema, schema_of};
use kube::ResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::change::{Changes, Live};

/// What the manifests declare. The `spec` of a manifest takes the place of the one that is there; all else stays.
/// `namespace`: of those that name none, and the only one allowed.
///
/// # Errors
/// A manifest that is not understood, or that the API server would not store; the message says which one and why.
pub(crate) fn read(manifests: &[Value], namespace: &str, live: &Live) -> Result<Changes, String> {
    let mut changes = Changes::default();
    for (number, manifest) in manifests.iter().enumerate() {
        let at = |problem: String| format!("apply[{number}]: {problem}");
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        if version != API_VERSION || !matches!(kind, "SubCluster" | "FailoverGroup") {
            return Err(at(format!(
                "found {version} {kind}, allowed: SubCluster and FailoverGroup of {API_VERSION}; leave out what else the \
                 files hold"
            )));
        }
        if name.is_empty() {
            return Err(at(format!("metadata.name of the {kind} is missing; every object has one")));
        }
        if !["", namespace].contains(&text("/metadata/namespace")) {
            return Err(at(format!(
                "metadata.namespace of {kind} {name}: found {}, allowed: {namespace}, that of the Operation",
                text("/metadata/namespace")
            )));
        }
        let wrong = |problem: String| at(format!("{kind} {name}: {problem}"));
        let is = |sub: &&SubCluster| sub.namespace().as_deref() == Some(namespace);
        let subs: Vec<&SubCluster> = live.scenes.iter().map(|scene| &scene.sub_cluster).filter(is).collect();
        let has = |sub: &str| {
            let names: Vec<String> = subs.iter().map(|sub| sub.name_any()).collect();
            match names.iter().any(|name| name == sub) {
                true => Ok(()),
                false => Err(format!("sub-cluster {sub} is not drilled; drilled: {}", names.join(", "))),
            }
        };
        if kind == "SubCluster" {
            has(name).map_err(wrong)?;
            let old = subs.iter().find(|sub| sub.name_any() == name).copied();
            changes.sub_clusters.push(stored(manifest, "subclusters", namespace, old).map_err(wrong)?);
        } else {
            let mut groups = live.scenes.iter().flat_map(|scene| &scene.groups);
            let old = groups.find(|group| group.namespace().as_deref() == Some(namespace) && group.name_any() == name);
            let group: FailoverGroup =
                stored(manifest, "failovergroups", namespace, old.map(AsRef::as_ref)).map_err(wrong)?;
            has(&group.spec.sub_cluster).map_err(|problem| wrong(format!("spec.subCluster: {problem}")))?;
            changes.groups.push(group);
        }
    }
    Ok(changes)
}

/// The object as it would be stored.
fn stored<T: Serialize + DeserializeOwned>(
    manifest: &Value,
    plural: &str,
    namespace: &str,
    old: Option<&T>,
) -> Result<T, String> {
    let schema = schema_of(plural).ok_or_else(|| format!("this version has no {plural}"))?;
    let unknown = schema::unknown_fields(&schema, manifest);
    if let Some(field) = unknown.first() {
        return Err(format!("{field}: the kind has no such field"));
    }
    let old = old.map(serde_json::to_value).transpose().map_err(|error| error.to_string())?;
    let part = |of: &Value| {
        let mut object = json!({
            "apiVersion": of["apiVersion"], "kind": of["kind"],
            "metadata": {"name": of["metadata"]["name"], "namespace": namespace}, "spec": of["spec"],
        });
        schema::apply_defaults(&schema, &mut object);
        object
    };
    let mut object = part(manifest);
    let before = old.as_ref().map(part);
    let wrong: Vec<String> =
        schema::validate(&schema, &object, before.as_ref()).iter().map(ToString::to_string).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    match (&old, &before) {
        (Some(old), Some(before)) => {
            let changed = before["spec"] != object["spec"];
            object["metadata"] = old["metadata"].clone();
            if changed {
                object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
            }
            if let Some(status) = old.get("status") {
                object["status"] = status.clone();
            }
        }
        _ => {
            // It has none yet; two new ones must not look like one.
            object["metadata"]["uid"] = json!(format!("new {plural} {}", object["metadata"]["name"]));
            object["metadata"]["generation"] = json!(1);
        }
    }
    serde_json::from_value(object).map_err(|error| error.to_string())
}
