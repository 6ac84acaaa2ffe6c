//! Reads protobuf bodies of the built-in kinds: typed Go clients (`kubectl create namespace`, `kubectl auth can-i`,
//! controllers built on controller-runtime) send nothing else for them. Answers are always JSON.
//!
//! Field numbers are those of the `generated.proto` files of Kubernetes; a field that stands in no table is skipped, as
//! protobuf demands. Custom kinds have no protobuf form.

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// Media type of these bodies.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper nesting than any of the tables has means that the body is broken.
const DEPTH: usize = 12;

/// How a field is read. Go clients send empty texts and zeros of fields that JSON leaves out; only pointers keep them.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Bytes,
    Number,
    /// A number behind a pointer: zero counts.
    NumberPointer,
    Flag,
    Time,
    TextMap,
    BytesMap,
    One(Message),
    /// A message behind a pointer: there even when empty.
    Pointer(Message),
    Many(Message),
}

type Field = (u64, &'static str, Kind);
type Message = &'static [Field];

use Kind::{Bytes, BytesMap, Flag, Many, Number, NumberPointer, One, Pointer, Text, TextMap, Texts, Time};

const OWNER: Message = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Flag),
    (7, "blockOwnerDeletion", Flag),
];
const METADATA: Message = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Number),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", NumberPointer),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Many(OWNER)),
    (14, "finalizers", Texts),
];
const NAMESPACE: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "spec", One(&[(1, "finalizers", Texts)])),
    (3, "status", One(&[(1, "phase", Text), (2, "conditions", Many(CONDITION))])),
];
const CONDITION: Message = &[
    (1, "type", Text),
    (2, "status", Text),
    (4, "lastTransitionTime", Time),
    (5, "reason", Text),
    (6, "message", Text),
];
const CONFIG_MAP: Message =
    &[(1, "metadata", One(METADATA)), (2, "data", TextMap), (3, "binaryData", BytesMap), (4, "immutable", Flag)];
const SECRET: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "data", BytesMap),
    (3, "type", Text),
    (4, "stringData", TextMap),
    (5, "immutable", Flag),
];
const REFERENCE: Message = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];
const SOURCE: Message = &[(1, "component", Text), (2, "host", Text)];
const SERIES: Message = &[(1, "count", Number), (2, "lastObservedTime", Time)];
const CORE_EVENT: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "involvedObject", Pointer(REFERENCE)),
    (3, "reason", Text),
    (4, "message", Text),
    (5, "source", One(SOURCE)),
    (6, "firstTimestamp", Time),
    (7, "lastTimestamp", Time),
    (8, "count", Number),
    (9, "type", Text),
    (10, "eventTime", Time),
    (11, "series", Pointer(SERIES)),
    (12, "action", Text),
    (13, "related", Pointer(REFERENCE)),
    (14, "reportingComponent", Text),
    (15, "reportingInstance", Text),
];
const EVENT: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "eventTime", Time),
    (3, "series", Pointer(SERIES)),
    (4, "reportingController", Text),
    (5, "reportingInstance", Text),
    (6, "action", Text),
    (7, "reason", Text),
    (8, "regarding", One(REFERENCE)),
    (9, "related", Pointer(REFERENCE)),
    (10, "note", Text),
    (11, "type", Text),
    (12, "deprecatedSource", One(SOURCE)),
    (13, "deprecatedFirstTimestamp", Time),
    (14, "deprecatedLastTimestamp", Time),
    (15, "deprecatedCount", Number),
];
const LEASE: Message = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "holderIdentity", Text),
            (2, "leaseDurationSeconds", NumberPointer),
            (3, "acquireTime", Time),
            (4, "renewTime", Time),
            (5, "leaseTransitions", NumberPointer),
            (6, "strategy", Text),
            (7, "preferredHolder", Text),
        ]),
    ),
];
const SERVICE_ACCOUNT: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "secrets", Many(REFERENCE)),
    (3, "imagePullSecrets", Many(&[(1, "name", Text)])),
    (4, "automountServiceAccountToken", Flag),
];
const TOKEN_REQUEST: Message = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "audiences", Texts),
            (
                3,
                "boundObjectRef",
                Pointer(&[(1, "kind", Text), (2, "apiVersion", Text), (3, "name", Text), (4, "uid", Text)]),
            ),
            (4, "expirationSeconds", NumberPointer),
        ]),
    ),
];
const TOKEN_REVIEW: Message =
    &[(1, "metadata", One(METADATA)), (2, "spec", One(&[(1, "token", Text), (2, "audiences", Texts)]))];
const REQUEST_CONDITION: Message = &[
    (1, "type", Text),
    (2, "reason", Text),
    (3, "message", Text),
    (4, "lastUpdateTime", Time),
    (5, "lastTransitionTime", Time),
    (6, "status", Text),
];
const CERTIFICATE_REQUEST: Message = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "request", Bytes),
            (5, "usages", Texts),
            (7, "signerName", Text),
            (8, "expirationSeconds", NumberPointer),
        ]),
    ),
    (3, "status", One(&[(1, "conditions", Many(REQUEST_CONDITION)), (2, "certificate", Bytes)])),
];
const SUBJECT_REVIEW: Message = &[(1, "metadata", One(METADATA))];
const RESOURCE_ATTRIBUTES: Message = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];
const PATH_ATTRIBUTES: Message = &[(1, "path", Text), (2, "verb", Text)];
const ACCESS_REVIEW: Message = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "resourceAttributes", Pointer(RESOURCE_ATTRIBUTES)),
            (2, "nonResourceAttributes", Pointer(PATH_ATTRIBUTES)),
        ]),
    ),
];
const SUBJECT_ACCESS_REVIEW: Message = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "resourceAttributes", Pointer(RESOURCE_ATTRIBUTES)),
            (2, "nonResourceAttributes", Pointer(PATH_ATTRIBUTES)),
            (3, "user", Text),
            (4, "groups", Texts),
            (6, "uid", Text),
        ]),
    ),
];
const RULE: Message = &[
    (1, "verbs", Texts),
    (2, "apiGroups", Texts),
    (3, "resources", Texts),
    (4, "resourceNames", Texts),
    (5, "nonResourceURLs", Texts),
];
const ROLE: Message = &[(1, "metadata", One(METADATA)), (2, "rules", Many(RULE)), (3, "aggregationRule", Pointer(&[]))];
const BINDING: Message = &[
    (1, "metadata", One(METADATA)),
    (2, "subjects", Many(&[(1, "kind", Text), (2, "apiGroup", Text), (3, "name", Text), (4, "namespace", Text)])),
    (3, "roleRef", One(&[(1, "apiGroup", Text), (2, "kind", Text), (3, "name", Text)])),
];
const RULES_REVIEW: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(&[(1, "namespace", Text)]))];
const DELETE_OPTIONS: Message = &[
    (1, "gracePeriodSeconds", NumberPointer),
    (2, "preconditions", Pointer(&[(1, "uid", Text), (2, "resourceVersion", Text)])),
    (3, "orphanDependents", Flag),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];
/// The envelope: what kind the content is, and the content.
const UNKNOWN: Message = &[(1, "typeMeta", One(&[(1, "apiVersion", Text), (2, "kind", Text)])), (2, "raw", Bytes)];

fn message(api_version: &str, kind: &str) -> Option<Message> {
    Some(match (api_version, kind) {
        (_, "DeleteOptions") => DELETE_OPTIONS,
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "Event") => CORE_EVENT,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "TokenReview") => TOKEN_REVIEW,
        ("certificates.k8s.io/v1", "CertificateSigningRequest") => CERTIFICATE_REQUEST,
        ("events.k8s.io/v1", "Event") => EVENT,
        ("coordination.k8s.io/v1", "Lease") => LEASE,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SUBJECT_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SubjectAccessReview" | "LocalSubjectAccessReview") => SUBJECT_ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES_REVIEW,
        ("rbac.authorization.k8s.io/v1", "Role" | "ClusterRole") => ROLE,
        ("rbac.authorization.k8s.io/v1", "RoleBinding" | "ClusterRoleBinding") => BINDING,
        _ => return None,
    })
}

/// Decodes a body into the object's JSON form.
pub(crate) fn decode(body: &[u8]) -> Result<Value, String> {
    let broken = |why: &str| format!("the body is not a Kubernetes protobuf object: {why}");
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with k8s\\0"))?;
    let envelope = read(rest, UNKNOWN, 0).map_err(broken)?;
    let text = |field: &str| envelope["typeMeta"][field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let Some(fields) = message(&api_version, &kind) else {
        return Err(format!("apiVersion {api_version:?}, kind {kind:?} can't be read as protobuf; send JSON or YAML"));
    };
    let raw = match envelope["raw"].as_str().map(|text| STANDARD.decode(text)) {
        Some(Ok(raw)) => raw,
        _ => Vec::new(),
    };
    let mut object = read(&raw, fields, 0).map_err(broken)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

const STANDARD: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

/// The value of a field on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("it is cut off")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(length).map_err(|_| "a length is too large")?;
    let (head, rest) = bytes.split_at_checked(length).ok_or("it is cut off")?;
    *bytes = rest;
    Ok(head)
}

fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Wire<'a>), &'static str> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => Wire::Bytes(take(bytes, 8)?),
        2 => {
            let length = varint(bytes)?;
            Wire::Bytes(take(bytes, length)?)
        }
        5 => Wire::Bytes(take(bytes, 4)?),
        _ => return Err("it has a field of an unknown type"),
    };
    Ok((tag >> 3, value))
}

fn read(mut bytes: &[u8], fields: Message, depth: usize) -> Result<Value, &'static str> {
    if depth > DEPTH {
        return Err("it is nested too deeply");
    }
    let mut out = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = next(&mut bytes)?;
        let Some((_, name, kind)) = fields.iter().find(|(n, ..)| *n == number) else { continue };
        set(&mut out, name, *kind, wire, depth)?;
    }
    Ok(Value::Object(out))
}

fn set(out: &mut Map<String, Value>, name: &str, kind: Kind, wire: Wire<'_>, depth: usize) -> Result<(), &'static str> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a text is not UTF-8");
    let value = match (kind, wire) {
        (Number | NumberPointer, Wire::Number(number)) => {
            // Negative numbers stand as their two's complement.
            let number = number.cast_signed();
            (number != 0 || matches!(kind, NumberPointer)).then(|| json!(number))
        }
        (Flag, Wire::Number(flag)) => Some(json!(flag != 0)),
        (Text, Wire::Bytes(bytes)) => Some(text(bytes)?).filter(|text| !text.is_empty()).map(Value::String),
        (Bytes, Wire::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Time, Wire::Bytes(bytes)) => time(bytes)?,
        (One(fields), Wire::Bytes(bytes)) => {
            Some(read(bytes, fields, depth + 1)?).filter(|value| *value != json!({}) || name == "spec")
        }
        (Pointer(fields), Wire::Bytes(bytes)) => Some(read(bytes, fields, depth + 1)?),
        (Texts | Many(_), Wire::Bytes(bytes)) => {
            let item = if let Many(fields) = kind { read(bytes, fields, depth + 1)? } else { text(bytes)?.into() };
            if let Value::Array(list) = out.entry(name).or_insert_with(|| json!([])) {
                list.push(item);
            }
            None
        }
        (TextMap | BytesMap, Wire::Bytes(bytes)) => {
            let value = if matches!(kind, BytesMap) { Bytes } else { Text };
            let entry = match value {
                Bytes => read(bytes, &[(1, "key", Text), (2, "value", Bytes)], depth + 1)?,
                _ => read(bytes, &[(1, "key", Text), (2, "value", Text)], depth + 1)?,
            };
            let key = entry["key"].as_str().unwrap_or_default().to_owned();
            if let Value::Object(map) = out.entry(name).or_insert_with(|| json!({})) {
                map.insert(key, entry.get("value").cloned().unwrap_or_else(|| "".into()));
            }
            None
        }
        _ => return Err("a field has the wrong type"),
    };
    if let Some(value) = value {
        out.insert(name.to_owned(), value);
    }
    Ok(())
}

/// Seconds and nanoseconds as RFC 3339; an empty message is the absent time.
fn time(bytes: &[u8]) -> Result<Option<Value>, &'static str> {
    let fields = read(bytes, &[(1, "seconds", NumberPointer), (2, "nanos", Number)], 0)?;
    let Some(seconds) = fields["seconds"].as_i64() else { return Ok(None) };
    let nanos = fields["nanos"].as_i64().and_then(|nanos| i32::try_from(nanos).ok()).unwrap_or(0);
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    let text =
        if nanos == 0 { crate::object::rfc3339(time) } else { time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string() };
    Ok(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        [&[number << 3 | 2, length], content].concat()
    }

    #[test]
    fn an_object_is_read_and_broken_ones_are_refused() {
        let metadata =
            [field(1, b"ha"), field(2, b""), field(8, b""), field(11, &[field(1, b"a"), field(2, b"b")].concat())];
        let raw = [field(1, &metadata.concat()), field(2, b"")].concat();
        let envelope = [field(1, &[field(1, b"v1"), field(2, b"Namespace")].concat()), field(2, &raw)].concat();
        let body = [MAGIC, &envelope].concat();
        assert_eq!(
            decode(&body).expect("valid"),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ha", "labels": {"a": "b"}}, "spec": {}})
        );
        for end in 0..body.len() {
            // Every cut is an error or a smaller object, never a panic.
            let _ = decode(&body[..end]);
        }
        assert!(decode(b"{}").is_err());
    }

    #[test]
    fn times_keep_their_microseconds() {
        assert_eq!(time(&[8, 1, 16, 232, 7]).expect("valid"), Some("1970-01-01T00:00:01.000001Z".into()));
        assert_eq!(time(&[]).expect("valid"), None);
    }
}
