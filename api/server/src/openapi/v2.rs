//! OpenAPI 2.0 (Swagger): one document of everything. What v2 cannot say is left out; what is left stands on its own.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::operations::{self, Operation};
use super::schemas::REFERENCE;
use crate::registry::ResourceDef;

/// Where definitions are in v2.
const DEFINITIONS: &str = "#/definitions/";
/// Keywords that v2 does not have, and rules that only the server evaluates.
const UNKNOWN: &[&str] = &["anyOf", "oneOf", "not", "nullable", "writeOnly", "deprecated", "x-kubernetes-validations"];

/// The document.
pub(super) fn document(defs: &[Arc<ResourceDef>], schemas: &Map<String, Value>) -> Value {
    let mut paths = Map::new();
    for path in defs.iter().flat_map(operations::paths) {
        paths.insert(path.path.clone(), path_item(&path));
    }
    let definitions: Map<String, Value> = schemas.iter().map(|(name, s)| (name.clone(), schema(s))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Holdfast", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "definitions": definitions,
    })
}

/// A v3 schema in the words of v2.
fn schema(v3: &Value) -> Value {
    let Value::Object(fields) = v3 else { return v3.clone() };
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match key.as_str() {
            key if UNKNOWN.contains(&key) => continue,
            "$ref" => {
                let name = value.as_str().unwrap_or_default();
                format!("{DEFINITIONS}{}", name.strip_prefix(REFERENCE).unwrap_or(name)).into()
            }
            // A reference with a description beside it: in v2 readers take both. Other combinations are rules.
            "allOf" => {
                if let [single] = value.as_array().map_or(&[][..], Vec::as_slice)
                    && single.get("$ref").is_some()
                    && let Value::Object(single) = schema(single)
                {
                    out.extend(single);
                }
                continue;
            }
            // Names of fields, not keywords.
            "properties" => match value {
                Value::Object(fields) => {
                    fields.iter().map(|(name, s)| (name.clone(), schema(s))).collect::<Map<_, _>>().into()
                }
                other => other.clone(),
            },
            "items" | "additionalProperties" => schema(value),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if out.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        // As a stock server writes it: readers know the format, not the extension.
        out.insert("type".into(), "string".into());
        out.insert("format".into(), "int-or-string".into());
    }
    Value::Object(out)
}

fn path_item(path: &operations::Path) -> Value {
    let parameter = |(name, text): (&str, &str)| {
        json!({
            "name": name, "in": "path", "required": true, "description": text,
            "type": "string", "uniqueItems": true,
        })
    };
    let mut item = Map::new();
    let variables: Vec<Value> = path.variables().map(parameter).collect();
    if !variables.is_empty() {
        item.insert("parameters".into(), variables.into());
    }
    for operation in &path.operations {
        item.insert(operation.method.into(), describe(operation));
    }
    Value::Object(item)
}

fn describe(operation: &Operation) -> Value {
    let refer = |name: &str| json!({"$ref": format!("{DEFINITIONS}{name}")});
    let mut parameters: Vec<Value> = operation
        .query
        .iter()
        .map(|query| {
            json!({
                "name": query.name, "in": "query", "description": query.description,
                "type": query.kind, "uniqueItems": true,
            })
        })
        .collect();
    if let Some((_, schema)) = &operation.body {
        let required = operation.method != "delete";
        parameters.insert(0, json!({"name": "body", "in": "body", "required": required, "schema": refer(schema)}));
    }
    let answers: Map<String, Value> = operation
        .answers
        .iter()
        .map(|(code, text)| ((*code).to_owned(), json!({"description": text, "schema": refer(&operation.answer)})))
        .collect();
    let consumes = operation.body.as_ref().map_or(&["*/*"][..], |(media, _)| media);
    json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "description": operation.description,
        "consumes": consumes,
        "produces": ["application/json", "application/yaml"],
        "schemes": ["https"],
        "parameters": parameters,
        "responses": answers,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.group_version_kind,
    })
}
