//! Schemas of what all kinds share: metadata, lists, options, Status. Names, fields and descriptions are those of
//! Kubernetes, from the `k8s-openapi` crate; how lists are merged is added here, because the crate leaves it out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Patch, Status};
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::schemas::{META, REFERENCE};

/// How structured merges treat fields: definition, field (empty: the definition itself), extensions.
fn merging() -> [(&'static str, &'static str, Value); 6] {
    let atomic = || json!({"x-kubernetes-list-type": "atomic"});
    [
        (
            "ObjectMeta",
            "ownerReferences",
            json!({
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
                "x-kubernetes-patch-merge-key": "uid", "x-kubernetes-patch-strategy": "merge",
            }),
        ),
        ("ObjectMeta", "finalizers", json!({"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"})),
        ("ObjectMeta", "managedFields", atomic()),
        ("OwnerReference", "", json!({"x-kubernetes-map-type": "atomic"})),
        ("StatusDetails", "causes", atomic()),
        ("DeleteOptions", "dryRun", atomic()),
    ]
}

/// The shared schemas by their full names, with v3 references.
pub(super) fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.definitions_path = REFERENCE.trim_end_matches('/').trim_start_matches('#').into();
    });
    let mut generator = settings.into_generator();
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Patch>();
    generator.subschema_for::<Status>();
    let mut found = generator.take_definitions(true);
    for schema in found.values_mut() {
        tidy(schema);
    }
    for (definition, field, extensions) in merging() {
        let place = found.get_mut(&format!("{META}.{definition}")).and_then(|schema| match field {
            "" => Some(schema),
            field => schema.get_mut("properties")?.get_mut(field),
        });
        if let (Some(Value::Object(place)), Value::Object(extensions)) = (place, extensions) {
            place.extend(extensions);
        }
    }
    if let Some(Value::Object(status)) = found.get_mut(&format!("{META}.Status")) {
        let kind = json!([{"group": "", "version": "v1", "kind": "Status"}]);
        status.insert("x-kubernetes-group-version-kind".into(), kind);
    }
    found
}

/// OpenAPI 3.0 ignores what stands beside a reference, so the reference moves into `allOf`.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(tidy);
            if fields.len() > 1
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".into(), json!([{"$ref": reference}]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
