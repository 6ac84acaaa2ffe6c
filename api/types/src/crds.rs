//! CustomResourceDefinitions of the six kinds: what `holdfast crds` prints, what `manifests/crds/` holds, and what our own
//! API server serves from.

use std::sync::OnceLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::{
    schema,
    v1::{self, rules},
};

/// The definitions of all kinds, by plural name. They are constants of the program: built once, then copied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    static ALL: OnceLock<Vec<CustomResourceDefinition>> = OnceLock::new();
    ALL.get_or_init(build).clone()
}

fn build() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        crd::<v1::DataService, v1::DataServiceSpec, v1::DataServiceStatus>(None),
        crd::<v1::FailoverGroup, v1::FailoverGroupSpec, v1::FailoverGroupStatus>(None),
        crd::<v1::Operation, v1::OperationSpec, v1::OperationStatus>(Some(rules::operation_object())),
        crd::<v1::Server, v1::ServerSpec, v1::ServerStatus>(None),
        crd::<v1::SubCluster, v1::SubClusterSpec, v1::SubClusterStatus>(None),
        crd::<v1::SuperCluster, v1::SuperClusterSpec, v1::SuperClusterStatus>(None),
    ];
    all.sort_by(|a, b| a.spec.names.plural.cmp(&b.spec.names.plural));
    all
}

/// One definition: names, columns and subresources from the kind; the schema from its parts, so that it is structural and
/// has the meanings of choices in its descriptions.
fn crd<K: CustomResourceExt, Spec: JsonSchema, Status: JsonSchema>(rules: Option<Value>) -> CustomResourceDefinition {
    let mut crd = K::crd();
    for version in &mut crd.spec.versions {
        let description = version
            .schema
            .as_ref()
            .and_then(|s| s.open_api_v3_schema.as_ref())
            .and_then(|s| s.description.clone())
            .unwrap_or_default();
        let mut root = json!({
            "type": "object",
            "description": description,
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string", "description": "Version of the schema: holdfast.dev/v1."},
                "kind": {"type": "string", "description": "Kind of the object."},
                "metadata": {"type": "object"},
                "spec": schema::structural::<Spec>(schema::Part::Spec),
                "status": schema::structural::<Status>(schema::Part::Status),
            },
        });
        if let Some(rules) = &rules {
            root["x-kubernetes-validations"] = rules.clone();
        }
        let props: JSONSchemaProps = match serde_json::from_value(root) {
            Ok(props) => props,
            // The schema is a constant of the program; `tests/crds.rs` shows that it converts.
            Err(error) => unreachable!("schema of {}: {error}", crd.spec.names.kind),
        };
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(props) });
    }
    crd
}

/// A definition as the YAML that `manifests/crds/` holds.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> String {
    let mut value = serde_json::to_value(crd).unwrap_or_default();
    whole_numbers(&mut value);
    serde_yaml::to_string(&value).unwrap_or_default()
}

/// Bounds are floating-point numbers in a definition; whole ones are written as such.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(n) if !n.is_i64() && !n.is_u64() => {
            if let Some(f) = n.as_f64()
                && f.fract() == 0.0
                && f.abs() < 9.1e15
            {
                *value = json!(f as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// The schema of a kind, by plural name, as a plain value: what the functions of [`crate::schema`] take.
pub fn schema_of(plural: &str) -> Option<Value> {
    let crd = crds().into_iter().find(|crd| crd.spec.names.plural == plural)?;
    let props = crd.spec.versions.into_iter().next()?.schema?.open_api_v3_schema?;
    let mut value = serde_json::to_value(props).ok()?;
    whole_numbers(&mut value);
    Some(value)
}
