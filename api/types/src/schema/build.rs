//! Pieces of schemas that several kinds use, and the last step from generated schemas to structural ones.
//!
//! Working with a finished schema (checking, defaulting, pruning an object) is not here.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

/// What an RFC 1123 label looks like: names of servers, paths, disks, resources.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What an RFC 1123 subdomain looks like: names of objects, Secrets, namespaces.
pub const SUBDOMAIN_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Marks the text of choices until [`structural`] has moved it into the description.
const CHOICES: &str = "x-holdfast-choices";

/// The name of a server, path, disk or resource: an RFC 1123 label.
pub(crate) fn label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL_PATTERN})
}

/// The name of an object of the API.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": SUBDOMAIN_PATTERN})
}

/// A set of labels. The bound keeps the estimated cost of rules over it within what a stock API server allows.
pub(crate) fn label_set(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 32, "items": label(generator), "x-kubernetes-list-type": "set"})
}

/// An ordered list of labels, bounded for the same reason.
pub(crate) fn label_list(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 16, "items": label(generator), "x-kubernetes-list-type": "atomic"})
}

/// A set of names of objects.
pub(crate) fn object_name_set(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 128, "items": object_name(generator), "x-kubernetes-list-type": "set"})
}

/// A measured duration, possibly below a millisecond.
pub(crate) fn reported_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": crate::duration::MAX_LENGTH, "pattern": crate::duration::REPORTED_PATTERN
    })
}

/// An amount as Kubernetes writes it: `2`, `500m`, `4Gi`.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 32, "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"})
}

/// The schema of an enumeration; `variants` are names with their meanings.
pub(crate) fn choices(doc: &str, variants: &[(&str, &str)]) -> Schema {
    let names: Vec<&str> = variants.iter().map(|(name, _)| *name).collect();
    let meanings: Vec<String> = variants
        .iter()
        .filter(|(_, doc)| !doc.trim().is_empty())
        .map(|(name, doc)| format!("- {name}: {}", doc.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    let mut schema = json_schema!({"type": "string", "enum": names});
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    if !doc.is_empty() {
        schema.insert("description".into(), json!(doc));
    }
    if !meanings.is_empty() {
        schema.insert(CHOICES.into(), json!(meanings.join("\n")));
    }
    schema
}

/// A CEL rule with the message for who breaks it.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// A CEL rule whose failure is shown at a field below.
pub(crate) fn rule_at(field: &str, rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message, "fieldPath": field})
}

/// A CEL rule whose message is an expression; the plain message serves when that can't be evaluated.
pub(crate) fn rule_with(rule: &str, message: &str, expression: &str) -> Value {
    json!({"rule": rule, "message": message, "messageExpression": expression})
}

/// The stable name of a block device: `/dev/disk/by-*/…`, `/dev/mapper/…`, or any other name with a directory below
/// `/dev`. The kernel's own names (`/dev/sda1`, `/dev/nvme0n1`, `/dev/loop0`) have none.
pub(crate) fn stable_device(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 253, "x-kubernetes-validations": crate::v1::rules::stable_device()
    })
}

/// The name of a network interface.
pub(crate) fn interface(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 15, "pattern": r"^[^/\s]+$"})
}

/// An IP address without prefix length.
pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 2, "maxLength": 45,
        "x-kubernetes-validations":
            [rule_with("isIP(self)", "must be an IPv4 or IPv6 address", "self + ' is not an IPv4 or IPv6 address'")]
    })
}

/// An absolute path.
pub(crate) fn absolute_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^/"})
}

/// What a file system is mounted from: a stable device name, `UUID=`, `host:/path`, or a directory outside `/dev`.
pub(crate) fn filesystem_device(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 2, "maxLength": 1024})
}

/// An IP address with prefix length.
pub(crate) fn cidr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 4, "maxLength": 49,
        "x-kubernetes-validations": [rule_with(
            "isCIDR(self)",
            "must be an address with prefix length",
            "self + ' is not an address with prefix length, such as 192.0.2.10/24 or 2001:db8::10/64'",
        )]
    })
}

/// Environment variables.
pub(crate) fn environment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 256, "additionalProperties": {"type": "string", "maxLength": 4096}
    })
}

/// Parameters by name.
pub(crate) fn parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 256, "additionalProperties": {"type": "string", "maxLength": 4096}
    })
}

/// Arguments of a program.
pub(crate) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 256, "items": {"type": "string", "maxLength": 4096},
        "x-kubernetes-list-type": "atomic"
    })
}

/// A program and its arguments.
pub(crate) fn command(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = arguments(generator);
    schema.insert("minItems".into(), json!(1));
    schema
}

/// A program, by its absolute path, and its arguments.
pub(crate) fn program(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = command(generator);
    schema.insert(
        "x-kubernetes-validations".into(),
        json!([rule_with(
            "self[0].startsWith('/')",
            "the program is written with its absolute path",
            "'write the absolute path of the program; ' + self[0] + ' is none'",
        )]),
    );
    schema
}

/// Manifests of any kind.
pub(crate) fn manifests(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    })
}

/// Which part of an object a schema is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Declared by people: has defaults.
    Spec,
    /// Reported: nothing is filled in that nobody reported.
    Status,
}

/// The schema of a type by the rules for structural schemas: no references, no alternatives, no null, every string, list and
/// map bounded, every list with a list type.
pub(crate) fn structural<T: JsonSchema>(part: Part) -> Value {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut value = settings.into_generator().into_root_schema_for::<T>().to_value();
    clean(&mut value, part);
    value
}

fn clean(node: &mut Value, part: Part) {
    let Some(map) = node.as_object_mut() else { return };
    // An optional value is `anyOf: [it, null]` or has the types [it, null]; absent is how we say "not given".
    if let Some(Value::Array(branches)) = map.remove("anyOf") {
        for branch in branches {
            if let Value::Object(branch) = branch
                && branch.get("type") != Some(&json!("null"))
                && branch.get("nullable") != Some(&json!(true))
            {
                for (key, value) in branch {
                    map.entry(key).or_insert(value);
                }
            }
        }
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let first = types.iter().find(|t| *t != &json!("null")).cloned().unwrap_or_default();
        map.insert("type".into(), first);
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    for key in ["nullable", "title", "$schema"] {
        map.remove(key);
    }
    if part == Part::Status {
        map.remove("default");
    }
    if let Some(Value::String(format)) = map.get_mut("format") {
        match format.as_str() {
            "uint8" | "uint16" | "int8" | "int16" => *format = "int32".into(),
            "uint32" | "uint64" => *format = "int64".into(),
            _ => {}
        }
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text
            .split("\n\n")
            .map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
    if let Some(choices) = map.remove(CHOICES).as_ref().and_then(Value::as_str) {
        let own = map.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{own}\n\n{choices}");
        map.insert("description".into(), json!(text.trim()));
    }
    match map.get("type").and_then(Value::as_str) {
        Some("string") if !map.contains_key("enum") && !map.contains_key("format") => {
            map.entry("maxLength").or_insert(json!(1024));
        }
        Some("array") => {
            map.entry("maxItems").or_insert(json!(64));
            map.entry("x-kubernetes-list-type").or_insert(json!("atomic"));
        }
        Some("object") if map.get("additionalProperties").is_some_and(Value::is_object) => {
            map.entry("maxProperties").or_insert(json!(256));
        }
        _ => {}
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(|property| clean(property, part));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(key) {
            clean(child, part);
        }
    }
}
