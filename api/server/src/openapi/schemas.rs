//! The schema of every kind and its list, under the name by which documents refer to it, in the v3 form.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::meta;
use crate::registry::ResourceDef;

/// Beginning of the names of the shared schemas.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// Beginning of a reference.
pub(super) const REFERENCE: &str = "#/components/schemas/";

const API_VERSION: &str = "Group and version of this form of the object. The server may convert other versions of it and \
                           refuses those that it does not know.";
const KIND: &str = "What the object is, in CamelCase. It cannot be changed.";

/// All schemas by name.
pub(super) fn all(defs: &[Arc<ResourceDef>]) -> Map<String, Value> {
    let mut schemas = meta::schemas();
    for def in defs {
        schemas.insert(name(def), kind(def));
        if has_list(def) {
            schemas.insert(list_name(def), list(def));
        }
    }
    schemas
}

/// Name of a kind's schema: the group's parts in reverse, as on a stock server.
pub(super) fn name(def: &ResourceDef) -> String {
    let group = match def.group.as_str() {
        "" => "io.k8s.api.core".to_owned(),
        group => match group.strip_suffix(".k8s.io") {
            Some(first) => format!("io.k8s.api.{first}"),
            None => group.rsplit('.').collect::<Vec<_>>().join("."),
        },
    };
    format!("{group}.{}.{}", def.version, def.kind)
}

/// Name of the schema of a kind's list.
pub(super) fn list_name(def: &ResourceDef) -> String {
    let name = name(def);
    format!("{}{}", name.strip_suffix(&def.kind).unwrap_or(&name), def.list_kind)
}

/// Whether the kind can be listed.
pub(super) fn has_list(def: &ResourceDef) -> bool {
    def.verbs.iter().any(|verb| verb == "list")
}

/// A v3 reference.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{name}")})
}

/// Group, version and kind, as operations carry them.
pub(super) fn group_version_kind(def: &ResourceDef, kind: &str) -> Value {
    json!({"group": def.group, "version": def.version, "kind": kind})
}

fn kind(def: &ResourceDef) -> Value {
    let mut schema = def.schema.clone();
    schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(def, &def.kind)]);
    schema["type"] = "object".into();
    let described = |text: &str| json!({"description": text, "type": "string"});
    schema["properties"]["apiVersion"] = described(API_VERSION);
    schema["properties"]["kind"] = described(KIND);
    schema["properties"]["metadata"] = json!({
        "description": "Name, namespace, labels and what the server keeps about the object.",
        "allOf": [reference(&format!("{META}.ObjectMeta"))],
    });
    schema
}

fn list(def: &ResourceDef) -> Value {
    json!({
        "description": format!("A list of {}.", def.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            "metadata": {
                "description": "State of the store that the list shows, and where the next page begins.",
                "allOf": [reference(&format!("{META}.ListMeta"))],
            },
            "items": {
                "description": format!("The {}, by namespace and name.", def.plural),
                "type": "array",
                "items": reference(&name(def)),
            },
        },
        "x-kubernetes-group-version-kind": [group_version_kind(def, &def.list_kind)],
    })
}

/// Takes from `schemas` what `value` refers to, directly or through others.
pub(super) fn closure(value: &Value, schemas: &Map<String, Value>) -> Map<String, Value> {
    let mut wanted = BTreeSet::new();
    collect(value, &mut wanted);
    let mut found = Map::new();
    while let Some(name) = wanted.pop_first() {
        if let (false, Some(schema)) = (found.contains_key(&name), schemas.get(&name)) {
            collect(schema, &mut wanted);
            found.insert(name, schema.clone());
        }
    }
    found
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE)) {
                names.insert(name.to_owned());
            }
            fields.values().for_each(|value| collect(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}
