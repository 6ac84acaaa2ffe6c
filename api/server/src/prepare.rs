//! What the server itself does to an object before it is stored: system metadata, the split between main and status
//! endpoint, generation, rules about finalizers. Pure; identifiers and the time are arguments.
//!
//! Field rules of a kind's own schema are in `schema`, rules over several objects in `admission`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::certificates;
use crate::error::{ApiError, ApiResult, Cause};
use crate::names;
use crate::object::{finalizers, is_deleting, meta, metadata_mut, rfc3339};
use crate::rbac;
use crate::registry::{ResourceDef, events};

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Fields of `metadata` that exist.
const METADATA: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];
/// Fields of `metadata` that only the server sets.
const SYSTEM: &[&str] =
    &["uid", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"];

/// Which endpoint a write came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// The object itself.
    Main,
    /// `/status`.
    Status,
    /// `/finalize` of a namespace.
    Finalize,
    /// `/token` of a ServiceAccount; nothing is stored.
    Token,
    /// `/approval` of a CertificateSigningRequest.
    Approval,
}

/// Removes what is unknown in `metadata` and gives the paths back.
pub(crate) fn prune_metadata(object: &mut Value) -> Vec<String> {
    let metadata = metadata_mut(object);
    let mut unknown = Vec::new();
    metadata.retain(|key, value| {
        let known = METADATA.contains(&key.as_str());
        if !known {
            unknown.push(format!("metadata.{key}"));
        }
        known && !value.is_null() && key != "selfLink"
    });
    for field in ["labels", "annotations"] {
        if let Some(Value::Object(map)) = metadata.get_mut(field) {
            map.retain(|_, value| !value.is_null());
        }
    }
    metadata.retain(|_, value| *value != json!({}) && *value != json!([]) && *value != json!(""));
    unknown
}

/// Completes a new object. `name` must have been chosen already.
pub(crate) fn create(def: &ResourceDef, mut object: Value, uid: String, now: Timestamp) -> ApiResult<Value> {
    if !meta(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let metadata = metadata_mut(&mut object);
    for field in SYSTEM {
        metadata.remove(*field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), rfc3339(now).into());
    if def.generation {
        metadata.insert("generation".into(), 1.into());
    }
    if def.status_subresource
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    if def.is_namespace() {
        let name = meta(&object, "name").to_owned();
        object["status"] = json!({"phase": "Active"});
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        label_with_name(&mut object, name);
    }
    normalize(def, &mut object);
    if def.plural == "events" {
        events::complete(&mut object);
    }
    Ok(object)
}

/// Sets the label that selects a namespace by its name. Labels that are no object are left for the check to name.
fn label_with_name(namespace: &mut Value, name: String) {
    let labels = metadata_mut(namespace).entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

/// What a kind's stored form does not keep as sent.
fn normalize(def: &ResourceDef, object: &mut Value) {
    if def.group == rbac::GROUP
        && let Some(Value::Array(subjects)) = object.get_mut("subjects")
    {
        // Which group is meant depends on the kind of the subject, and no default of a schema can say that.
        for subject in subjects.iter_mut().filter(|s| matches!(s["kind"].as_str(), Some("User" | "Group"))) {
            if matches!(subject["apiGroup"].as_str(), None | Some("")) {
                subject["apiGroup"] = rbac::GROUP.into();
            }
        }
    }
    if def.group.is_empty() && def.plural == "secrets" {
        use base64::Engine as _;
        let Some(Value::Object(texts)) = object.as_object_mut().and_then(|o| o.remove("stringData")) else { return };
        for (key, text) in texts {
            if let Value::String(text) = text {
                let data = base64::engine::general_purpose::STANDARD.encode(text);
                if !object["data"].is_object() {
                    object["data"] = json!({});
                }
                object["data"][key] = data.into();
            }
        }
    }
}

/// Completes a changed object: what this endpoint may not change comes from `old`.
///
/// The caller has compared resourceVersions.
pub(crate) fn update(def: &ResourceDef, old: &Value, mut new: Value, endpoint: Endpoint) -> ApiResult<Value> {
    let name = meta(old, "name");
    for field in ["name", "namespace"] {
        let given = meta(&new, field);
        if given != meta(old, field) && !(field == "namespace" && given.is_empty()) {
            return Err(ApiError::bad_request(format!(
                "metadata.{field}: {given:?} is not the {field} of the object in the URL ({:?}); objects can't be renamed",
                meta(old, field)
            )));
        }
    }
    let uid = meta(&new, "uid");
    if !uid.is_empty() && uid != meta(old, "uid") {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta(old, "uid"));
        return Err(ApiError::conflict(def.target(name), why));
    }
    let mut result = match endpoint {
        Endpoint::Status => with_field(old.clone(), "status", taken(&mut new, "status")),
        Endpoint::Finalize => with_field(old.clone(), "spec", taken(&mut new, "spec")),
        Endpoint::Token => old.clone(),
        Endpoint::Approval => {
            let mut object = old.clone();
            object["status"]["conditions"] = new.pointer("/status/conditions").cloned().unwrap_or_else(|| json!([]));
            object
        }
        Endpoint::Main => {
            new["metadata"]["namespace"] = old["metadata"]["namespace"].clone();
            let old_metadata = &old["metadata"];
            let metadata = metadata_mut(&mut new);
            metadata.retain(|_, value| !value.is_null());
            for field in SYSTEM {
                match old_metadata.get(field) {
                    Some(value) => metadata.insert((*field).into(), value.clone()),
                    None => metadata.remove(*field),
                };
            }
            if certificates::is_request(def) {
                // What was asked for stays, and so does who asked.
                new = with_field(new, "spec", old.get("spec").cloned());
            }
            if def.is_namespace() {
                // The contents are the server's business until they are gone.
                new = with_field(new, "spec", old.get("spec").cloned());
                label_with_name(&mut new, name.to_owned());
            }
            if def.status_subresource { with_field(new, "status", old.get("status").cloned()) } else { new }
        }
    };
    normalize(def, &mut result);
    result["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    Ok(result)
}

fn taken(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut()?.remove(field)
}

fn with_field(mut object: Value, field: &str, value: Option<Value>) -> Value {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) if !value.is_null() => fields.insert(field.into(), value),
            _ => fields.remove(field),
        };
    }
    object
}

/// Counts the generation up if anything outside metadata and status differs.
pub(crate) fn count_generation(def: &ResourceDef, old: &Value, new: &mut Value) {
    if def.generation && !declared(old).eq(declared(new)) {
        raise_generation(new);
    }
}

/// Counts the generation up.
pub(crate) fn raise_generation(object: &mut Value) {
    let next = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0) + 1;
    object["metadata"]["generation"] = next.into();
}

/// The fields in which a user says what he wants, in their order.
fn declared(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"))
}

/// Sets the mark of deletion; the object stays until its finalizers are gone.
pub(crate) fn mark_deleted(def: &ResourceDef, object: &mut Value, now: Timestamp) {
    if is_deleting(object) {
        return;
    }
    let metadata = metadata_mut(object);
    metadata.insert("deletionTimestamp".into(), rfc3339(now).into());
    metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
    if def.generation {
        raise_generation(object);
    }
    if def.is_namespace() {
        object["status"]["phase"] = "Terminating".into();
    }
}

/// True if nothing holds a deleted object any longer.
pub(crate) fn is_released(def: &ResourceDef, object: &Value) -> bool {
    let held = def.is_namespace()
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    is_deleting(object) && finalizers(object).is_empty() && !held
}

/// Everything that is wrong with `metadata`.
pub(crate) fn check_metadata(def: &ResourceDef, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    for (field, good, kind) in [
        ("labels", metadata["labels"].is_null() || metadata["labels"].is_object(), "object"),
        ("annotations", metadata["annotations"].is_null() || metadata["annotations"].is_object(), "object"),
        ("finalizers", metadata["finalizers"].is_null() || metadata["finalizers"].is_array(), "array"),
        ("ownerReferences", metadata["ownerReferences"].is_null() || metadata["ownerReferences"].is_array(), "array"),
        ("name", metadata["name"].is_string(), "string"),
        ("generateName", metadata["generateName"].is_null() || metadata["generateName"].is_string(), "string"),
    ] {
        if !good {
            let field = format!("metadata.{field}");
            let text = format!("{field} in body must be of type {kind}");
            causes.push(Cause { reason: "FieldValueTypeInvalid".into(), ..Cause::invalid(field, &Value::Null, text) });
        }
    }
    if old.is_none() {
        let name = meta(object, "name");
        let checked = if def.is_namespace() { names::dns_label(name) } else { names::dns_subdomain(name) };
        if let Err(why) = checked {
            causes.push(Cause::invalid("metadata.name", &metadata["name"], why));
        }
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if let Err(why) = names::qualified_name(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), why));
        }
        match value.as_str().map(names::label_value) {
            Some(Ok(())) => {}
            Some(Err(why)) => causes.push(Cause::invalid("metadata.labels", value, why)),
            None => {
                causes.push(Cause::invalid("metadata.labels", value, format!("the value of {key:?} must be a string")))
            }
        }
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if let Err(why) = names::qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), why));
        }
        match value.as_str() {
            Some(text) => size += key.len() + text.len(),
            None => causes.push(Cause::invalid(
                "metadata.annotations",
                value,
                format!("the value of {key:?} must be a string"),
            )),
        }
    }
    if size > ANNOTATIONS_MAX {
        causes.push(Cause::too_long("metadata.annotations", format!("may not be more than {ANNOTATIONS_MAX} bytes")));
    }
    causes.extend(check_finalizers(object, old));
    causes.extend(check_owners(object));
    causes
}

fn check_finalizers(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, finalizer) in
        object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let checked = finalizer.as_str().ok_or("must be a string".to_owned()).and_then(names::qualified_name);
        if let Err(why) = checked {
            causes.push(Cause::invalid(format!("metadata.finalizers[{at}]"), finalizer, why));
        }
    }
    if let Some(old) = old.filter(|old| is_deleting(old)) {
        let before = finalizers(old);
        let added: Vec<&str> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            causes.push(Cause::forbidden("metadata.finalizers", text));
        }
    }
    causes
}

fn check_owners(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut controllers = 0;
    for (at, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(format!("metadata.ownerReferences[{at}].{field}"), ""));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let text = "only one reference can have controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &json!(controllers), text));
    }
    causes
}
