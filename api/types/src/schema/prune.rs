//! Fields that the schema does not have: find them, or take them away.
//!
//! `apiVersion`, `kind` and `metadata` of an object, and of an embedded one, are always known.

use serde_json::Value;

use super::child;

/// Paths of all fields that the schema does not have, in the order in which they stand.
pub fn unknown_fields(schema: &Value, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut copy = object.clone();
    walk(schema, &mut copy, "", true, &mut found, false);
    found
}

/// Takes away all fields that the schema does not have, and returns their paths.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, object, "", true, &mut found, true);
    found
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn walk(schema: &Value, value: &mut Value, path: &str, resource: bool, found: &mut Vec<String>, remove: bool) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties").filter(|a| !matches!(a, Value::Bool(false)));
            let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
            let mut gone = Vec::new();
            for (name, value) in map.iter_mut() {
                let path = child(path, name);
                if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                match (properties.and_then(|p| p.get(name)), additional) {
                    (Some(property), _) => {
                        walk(property, value, &path, flag(property, "x-kubernetes-embedded-resource"), found, remove);
                    }
                    (None, Some(additional)) => {
                        let embedded = flag(additional, "x-kubernetes-embedded-resource");
                        walk(additional, value, &path, embedded, found, remove);
                    }
                    (None, None) if preserve => {}
                    (None, None) => {
                        found.push(path);
                        gone.push(name.clone());
                    }
                }
            }
            if remove {
                for name in gone {
                    map.remove(&name);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                let embedded = flag(schema, "x-kubernetes-embedded-resource");
                for (i, item) in items.iter_mut().enumerate() {
                    walk(schema, item, &format!("{path}[{i}]"), embedded, found, remove);
                }
            }
        }
        _ => {}
    }
}
