//! The documented clusters are taken as they stand; what is wrong is refused with its path, what was found, what to do.

use std::{fs, path::PathBuf};

use holdfast_api::{
    schema::{apply_defaults, unknown_fields, validate},
    schema_of, v1,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn manifests(path: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

fn schema(object: &Value) -> Value {
    let kind = object["kind"].as_str().expect("a manifest has a kind");
    schema_of(&format!("{}s", kind.to_lowercase())).expect("the kind is one of ours")
}

/// What an API server does before it stores an object; the answer is what it would say.
fn admit(object: &mut Value, old: Option<&Value>) -> Vec<String> {
    let schema = schema(object);
    let unknown: Vec<String> =
        unknown_fields(&schema, object).iter().map(|path| format!("{path}: unknown field")).collect();
    if !unknown.is_empty() {
        return unknown;
    }
    apply_defaults(&schema, object);
    validate(&schema, object, old).iter().map(ToString::to_string).collect()
}

/// The object survives the way through its Rust type.
fn round_trip<T: DeserializeOwned + serde::Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{}: {e}", object["kind"]));
    let mut back = serde_json::to_value(&typed).expect("a typed object has a JSON form");
    apply_defaults(&schema(object), &mut back);
    assert_eq!(stripped(&back["spec"]), stripped(&object["spec"]), "{} changes on the way", object["kind"]);
    assert_eq!(stripped(&back["status"]), stripped(&object["status"]), "{} changes on the way", object["kind"]);
}

/// Empty lists and maps say the same as absent ones.
fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (k.clone(), stripped(v)))
                .filter(|(_, v)| !(v.is_null() || *v == json!([]) || *v == json!({}) || *v == json!("")))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(stripped).collect()),
        other => other.clone(),
    }
}

#[test]
fn documented_clusters_are_taken() {
    for file in ["a-two-servers", "b-three-servers", "c-mirrored", "reference"] {
        for mut object in manifests(&format!("tests/manifests/{file}.yaml")) {
            let errors = admit(&mut object, None);
            assert!(errors.is_empty(), "{file}: {} {}: {errors:#?}", object["kind"], object["metadata"]["name"]);
            match object["kind"].as_str() {
                Some("SuperCluster") => round_trip::<v1::SuperCluster>(&object),
                Some("SubCluster") => round_trip::<v1::SubCluster>(&object),
                Some("Server") => round_trip::<v1::Server>(&object),
                Some("FailoverGroup") => round_trip::<v1::FailoverGroup>(&object),
                Some("DataService") => round_trip::<v1::DataService>(&object),
                Some("Operation") => round_trip::<v1::Operation>(&object),
                other => panic!("unexpected kind {other:?}"),
            }
            // Applying what is stored changes nothing and is no change.
            let stored = object.clone();
            assert_eq!(admit(&mut object, Some(&stored)), Vec::<String>::new());
            assert_eq!(object, stored);
        }
    }
}
