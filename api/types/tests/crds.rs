//! The definitions in `manifests/crds/` are the generated ones, and a stock Kubernetes API server would take them: the
//! schemas are structural, bounded, and their CEL rules compile.

use std::{env, fs, path::PathBuf};

use holdfast_api::crds::{crd_yaml, crds, schema_of};
use serde_json::Value;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds")
}

/// `UPDATE_GOLDEN=1 cargo test -p holdfast-api --test crds` writes the files.
#[test]
fn manifests_are_the_generated_ones() {
    let mut files: Vec<(String, String)> = crds()
        .iter()
        .map(|crd| {
            let head = "# Generated from api/types; change it there, then UPDATE_GOLDEN=1 cargo test -p holdfast-api --test crds\n";
            (format!("{}.yaml", crd.spec.names.plural), format!("{head}{}", crd_yaml(crd)))
        })
        .collect();
    let names: String = files.iter().map(|(name, _)| format!("- {name}\n")).collect();
    files.push((
        "kustomization.yaml".to_string(),
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{names}"),
    ));
    let update = env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        fs::create_dir_all(directory()).expect("manifests/crds can be made");
    }
    for (name, wanted) in files {
        let path = directory().join(&name);
        if update {
            fs::write(&path, &wanted).expect("manifests/crds can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "manifests/crds/{name} differs from the types; run UPDATE_GOLDEN=1 cargo test -p holdfast-api --test crds and look at the difference"
        );
    }
}

fn walk<'a>(path: String, schema: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(&path, schema);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, child) in properties {
            walk(format!("{path}.{name}"), child, visit);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key) {
            walk(format!("{path}[]"), child, visit);
        }
    }
}

#[test]
fn schemas_are_structural_and_bounded() {
    for crd in crds() {
        let plural = &crd.spec.names.plural;
        let schema = schema_of(plural).expect("every kind has a schema");
        walk(plural.clone(), &schema, &mut |path, node| {
            for keyword in ["$ref", "anyOf", "oneOf", "allOf", "not", "nullable", "x-holdfast-choices", "title"] {
                assert!(node.get(keyword).is_none(), "{path} has {keyword}");
            }
            let kind = node.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{path} has no type"));
            let given = |key: &str| node.get(key).is_some();
            match kind {
                "string" => {
                    let root = path.ends_with(".apiVersion") || path.ends_with(".kind");
                    assert!(given("maxLength") || given("enum") || given("format") || root, "{path} has no maxLength")
                }
                "array" => {
                    assert!(
                        given("maxItems") && given("x-kubernetes-list-type"),
                        "{path} has no maxItems or list type"
                    );
                    if node["x-kubernetes-list-type"] == "map" {
                        let items = &node["items"];
                        for key in node["x-kubernetes-list-map-keys"].as_array().expect("a map list has keys") {
                            let key = key.as_str().expect("a key is a name");
                            let required =
                                items["required"].as_array().is_some_and(|r| r.iter().any(|name| name == key));
                            let defaulted = items["properties"][key].get("default").is_some();
                            assert!(required || defaulted, "{path}: key {key} is neither required nor defaulted");
                            let kind = items["properties"][key]["type"].as_str();
                            assert!(matches!(kind, Some("string" | "integer")), "{path}: key {key} is no scalar");
                        }
                    }
                }
                "object" => assert!(
                    given("properties")
                        || given("additionalProperties")
                        || given("x-kubernetes-preserve-unknown-fields")
                        || path.ends_with(".metadata"),
                    "{path} is an object of nothing"
                ),
                _ => {}
            }
            if path.contains(".spec.") && !path.ends_with("[]") && kind != "object" {
                assert!(given("description"), "{path} has no description for kubectl explain");
            }
            for rule in node.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                for part in ["rule", "messageExpression"] {
                    if let Some(text) = rule.get(part).and_then(Value::as_str) {
                        kube_cel::cel::Program::compile(text).unwrap_or_else(|e| panic!("{path}: {text}: {e}"));
                    }
                }
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(!message.is_empty() && !message.contains('\n'), "{path}: message {message:?}");
            }
        });
    }
}

#[test]
fn names_columns_and_fields_are_as_documented() {
    let all: Vec<(String, String, Vec<String>, Vec<String>)> = crds()
        .into_iter()
        .map(|crd| {
            assert_eq!(crd.spec.scope, "Namespaced");
            assert_eq!(crd.spec.names.categories, Some(vec!["holdfast".to_string()]));
            let version = &crd.spec.versions[0];
            assert!(version.subresources.as_ref().is_some_and(|s| s.status.is_some()));
            let columns = version.additional_printer_columns.iter().flatten();
            let columns = columns
                .map(|c| if c.priority.unwrap_or(0) > 0 { format!("({})", c.name) } else { c.name.clone() })
                .collect();
            let fields = version.selectable_fields.iter().flatten().map(|f| f.json_path.clone()).collect();
            (crd.spec.names.kind, crd.spec.names.short_names.unwrap_or_default().join(","), columns, fields)
        })
        .collect();
    let text: Vec<String> = all
        .iter()
        .map(|(kind, short, columns, fields)| format!("{kind} {short}: {} | {}", columns.join(" "), fields.join(" ")))
        .collect();
    assert_eq!(
        text,
        [
            "DataService hds: State Age | ",
            "FailoverGroup fog: Sub-Cluster Desired Phase Server Ready Since (Cause) (Message) Age | .spec.subCluster .status.phase .status.server",
            "Operation hop: Type Target Phase (By) (Message) Age | .spec.type .spec.target.name .status.phase",
            "Server hsrv: Sub-Cluster State Ready (Epoch) (Version) (Watchdog) (Reported) Age | .spec.subCluster",
            "SubCluster hsub: Phase Ready Guarantee Coordinator Epoch Groups (Arbiter) (Timeout) (Cluster-Part) Age | .status.phase",
            "SuperCluster hsc: Ready Health Sub-Clusters Servers Groups Age | ",
        ]
    );
}
