//! An object as read from the store, and small accessors for metadata. No policy here.

use holdfast_store::Entry;
use serde_json::{Map, Value};

use crate::registry::ResourceDef;

/// A stored object with the revision of its newest write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    /// Key in the store.
    pub(crate) key: String,
    /// Revision of the newest write; for a deleted object the revision of the deletion.
    pub(crate) revision: u64,
    /// The object in its stored form, with `metadata.resourceVersion`.
    pub(crate) value: Value,
    /// It comes from memory, and the store may hold something else by now.
    pub(crate) remembered: bool,
}

impl Object {
    /// Decodes an entry; defaults are filled in, since the schema may be newer than the object.
    pub(crate) fn decode(def: &ResourceDef, entry: &Entry) -> Result<Object, String> {
        Object::from_bytes(def, &entry.key, &entry.value, entry.modified)
    }

    /// Like [`Object::decode`] for bytes whose revision is known otherwise, e.g. that of a deletion.
    pub(crate) fn from_bytes(def: &ResourceDef, key: &str, bytes: &[u8], revision: u64) -> Result<Object, String> {
        let unreadable =
            |error| crate::sealed::why_unreadable(key, bytes).unwrap_or(format!("{key} holds no JSON: {error}"));
        let mut value: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        if !value["metadata"].is_object() {
            return Err(format!("{key} holds no object with metadata"));
        }
        crate::schema::defaults(def, &mut value);
        set_revision(&mut value, revision);
        Ok(Object { key: key.into(), revision, value, remembered: false })
    }
}

/// The bytes to store: everything but the resourceVersion, which the store itself knows. It is taken out.
pub(crate) fn encode(value: &mut Value) -> Vec<u8> {
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    value.to_string().into_bytes()
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn set_revision(value: &mut Value, revision: u64) {
    value["metadata"]["resourceVersion"] = revision.to_string().into();
}

/// A text in `metadata`, empty if absent.
pub(crate) fn meta<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata` as an object, created if absent or null.
pub(crate) fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value["metadata"].is_object() {
        value["metadata"] = Value::Object(Map::new());
    }
    match &mut value["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// The finalizers, in order.
pub(crate) fn finalizers(value: &Value) -> Vec<&str> {
    let list = value.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// True once deletion was asked for.
pub(crate) fn is_deleting(value: &Value) -> bool {
    !meta(value, "deletionTimestamp").is_empty()
}

/// RFC 3339 in UTC with whole seconds.
pub(crate) fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
