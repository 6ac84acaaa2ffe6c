//! OpenAPI 3.0: one document per group and version, complete in itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::operations::{self, Operation};
use super::schemas::{closure, reference};
use crate::registry::ResourceDef;

/// The documents by `api/v1` or `apis/GROUP/VERSION`.
pub(super) fn documents(defs: &[Arc<ResourceDef>], schemas: &Map<String, Value>) -> BTreeMap<String, Value> {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for def in defs {
        let key = match def.group.as_str() {
            "" => format!("api/{}", def.version),
            group => format!("apis/{group}/{}", def.version),
        };
        let entry = paths.entry(key).or_default();
        for path in operations::paths(def) {
            entry.insert(path.path.clone(), path_item(&path));
        }
    }
    let document = |paths: Map<String, Value>| {
        let paths = Value::Object(paths);
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Holdfast", "version": env!("CARGO_PKG_VERSION")},
            "components": {"schemas": closure(&paths, schemas)},
            "paths": paths,
        })
    };
    paths.into_iter().map(|(key, paths)| (key, document(paths))).collect()
}

fn path_item(path: &operations::Path) -> Value {
    let parameter = |(name, text): (&str, &str)| {
        json!({
            "name": name, "in": "path", "required": true, "description": text,
            "schema": {"type": "string", "uniqueItems": true},
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
    let content = |media: &[&str], schema: &str| -> Value {
        media
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": reference(schema)})))
            .collect::<Map<_, _>>()
            .into()
    };
    let parameters: Vec<Value> = operation
        .query
        .iter()
        .map(|query| {
            json!({
                "name": query.name, "in": "query", "description": query.description,
                "schema": {"type": query.kind, "uniqueItems": true},
            })
        })
        .collect();
    let answers: Map<String, Value> = operation
        .answers
        .iter()
        .map(|(code, text)| {
            let content = content(&["application/json", "application/yaml"], &operation.answer);
            ((*code).to_owned(), json!({"description": text, "content": content}))
        })
        .collect();
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "description": operation.description,
        "parameters": parameters,
        "responses": answers,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.group_version_kind,
    });
    if let Some((media, schema)) = &operation.body {
        // A deletion needs no options.
        let required = operation.method != "delete";
        described["requestBody"] = json!({"content": content(media, schema), "required": required});
    }
    described
}
