//! Fills what an object leaves out with the defaults of its schema, as a Kubernetes API server does: top-down, so that a
//! default object gets the defaults of its own fields, too.

use serde_json::Value;

/// Fills absent fields that have a default. A `null` where the schema allows none counts as absent: it becomes the default,
/// or goes away when there is none. `apiVersion`, `kind` and `metadata` are never touched.
pub fn apply_defaults(schema: &Value, object: &mut Value) {
    if let (Some(properties), Some(map)) = (schema.get("properties").and_then(Value::as_object), object.as_object_mut())
    {
        for (name, property) in properties {
            if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") && property.get("default").is_none() {
                continue;
            }
            fill(property, map, name);
            if let Some(value) = map.get_mut(name) {
                nested(property, value);
            }
        }
    }
}

fn nullable(schema: &Value) -> bool {
    schema.get("nullable").and_then(Value::as_bool) == Some(true)
}

fn fill(property: &Value, map: &mut serde_json::Map<String, Value>, name: &str) {
    let absent = match map.get(name) {
        None => true,
        Some(Value::Null) => !nullable(property),
        Some(_) => false,
    };
    if absent {
        match property.get("default") {
            Some(default) => {
                map.insert(name.to_string(), default.clone());
            }
            None => {
                map.remove(name);
            }
        }
    }
}

fn nested(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, property) in properties.into_iter().flatten() {
                fill(property, map, name);
                if let Some(value) = map.get_mut(name) {
                    nested(property, value);
                }
            }
            if let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) {
                let names: Vec<String> =
                    map.keys().filter(|k| !properties.is_some_and(|p| p.contains_key(*k))).cloned().collect();
                for name in names {
                    fill(additional, map, &name);
                    if let Some(value) = map.get_mut(&name) {
                        nested(additional, value);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for item in items {
                    if item.is_null()
                        && !nullable(schema)
                        && let Some(default) = schema.get("default")
                    {
                        *item = default.clone();
                    }
                    nested(schema, item);
                }
            }
        }
        _ => {}
    }
}
