//! Pieces of schemas that several kinds use, and the last step from generated schemas to structural ones.
//!
//! Working with a finished schema (checking, defaulting, pruning an object) is not here.

use schemars::{Schema, SchemaGenerator, json_schema};
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

/// A set of labels.
pub(crate) fn label_set(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 64, "items": label(generator), "x-kubernetes-list-type": "set"})
}

/// An ordered list of labels.
pub(crate) fn label_list(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 64, "items": label(generator), "x-kubernetes-list-type": "atomic"})
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
        .map(|(name, doc)| format!("{name}: {}", doc.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    let mut schema = json_schema!({"type": "string", "enum": names});
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    if !doc.is_empty() {
        schema.insert("description".into(), json!(doc));
    }
    if !meanings.is_empty() {
        schema.insert(CHOICES.into(), json!(meanings.join(" ")));
    }
    schema
}

/// `x-kubernetes-validations` from pairs of rule and message.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// A device name that means the same disk after every boot: `/dev/disk/by-*/…`, `/dev/mapper/…`, or any other name with
/// a directory below `/dev`. The kernel's own names (`/dev/sda1`, `/dev/nvme0n1`, `/dev/loop0`) have none.
pub const STABLE_DEVICE_PATTERN: &str = "^/dev/[A-Za-z0-9_.+:@-]+/[^[:space:]]+$";

/// The stable name of a block device.
pub(crate) fn stable_device(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 253, "pattern": STABLE_DEVICE_PATTERN})
}

/// The name of a network interface.
pub(crate) fn interface(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 15, "pattern": r"^[^/[:space:]]+$"})
}

/// An IP address without prefix length.
pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 2, "maxLength": 45, "pattern": "^[0-9a-fA-F:.]+$"})
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
    json_schema!({"type": "string", "minLength": 4, "maxLength": 49, "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$"})
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

/// Manifests of any kind.
pub(crate) fn manifests(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    })
}
