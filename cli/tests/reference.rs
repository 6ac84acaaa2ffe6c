//! `docs/reference` is what the schemas say. `UPDATE_DOCS=1 cargo test -p holdfast --test reference` (or `make docs`) writes it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use holdfast_api::{crds, schema_of};
use holdfast_telemetry::metrics::{Described, OF_EVERY_PROCESS};
use serde_json::Value;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference")
}

/// One line of Markdown: no line breaks, no column separators, no tags.
fn line(text: &str) -> String {
    code(text).replace('<', "&lt;")
}

/// What stands between backquotes, where tags are no tags.
fn code(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn text<'a>(schema: &'a Value, field: &str) -> &'a str {
    schema.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Type and bounds, as short as they can be said.
fn type_of(schema: &Value) -> String {
    let mut said = match text(schema, "type") {
        "array" => format!("list of {}", schema.get("items").map_or_else(|| "anything".into(), type_of)),
        "object" if schema.get("additionalProperties").is_some() => "map".into(),
        "" => "anything".into(),
        other => other.to_owned(),
    };
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        said = choices.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    }
    let bound = |low: &str, high: &str| match (schema.get(low), schema.get(high)) {
        (Some(low), Some(high)) => format!(", {low} to {high}"),
        (Some(low), None) => format!(", from {low}"),
        _ => String::new(),
    };
    said + &bound("minimum", "maximum") + &bound("minItems", "maxItems")
}

/// A table row for every field below `schema`, depth first, in the order of their names.
fn rows(path: &str, schema: &Value, out: &mut String) {
    let required = |name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|other| other == name))
    };
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{path}.{name}");
        let default = match field.get("default") {
            Some(value) => format!("`{}`", code(&value.to_string())),
            None if required(name) => "required".into(),
            None => String::new(),
        };
        writeln!(out, "| `{path}` | {} | {default} | {} |", line(&type_of(field)), line(text(field, "description")))
            .expect("a string");
        match field.get("items") {
            Some(items) => rows(&format!("{path}[]"), items, out),
            None => rows(&path, field, out),
        }
    }
}

/// Every CEL rule below `schema`, with the place where it holds.
fn rules(path: &str, schema: &Value, out: &mut Vec<String>) {
    for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        let place = if path.is_empty() { "the object" } else { path };
        out.push(format!("- `{place}`: {} (`{}`)", line(text(rule, "message")), code(text(rule, "rule"))));
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        rules(&format!("{path}.{name}"), field, out);
    }
    if let Some(items) = schema.get("items") {
        rules(&format!("{path}[]"), items, out);
    }
}

fn page(kind: &str, plural: &str, short: &str) -> String {
    let schema = schema_of(plural).expect("a schema");
    let mut out = format!(
        "# {kind}\n\n{}\n\n`{}`, plural `{plural}`, short `{short}`. Generated from the schema by `make docs`.\n",
        text(&schema, "description"),
        holdfast_api::API_VERSION
    );
    for part in ["spec", "status"] {
        writeln!(out, "\n## {part}\n\n| field | type | default | meaning |\n|---|---|---|---|").expect("a string");
        rows(part, &schema["properties"][part], &mut out);
    }
    let mut all = Vec::new();
    rules("", &schema, &mut all);
    if !all.is_empty() {
        writeln!(out, "\n## Rules\n\n{}", all.join("\n").replace("`.", "`")).expect("a string");
    }
    out
}

/// The page of the metrics.
fn metrics() -> String {
    let mut out = String::from(
        "# Metrics\n\nGenerated from the code by `make docs`. How to let Prometheus have them, and alerts and a dashboard about \
         them: [Metrics and logs](../operations.md#metrics-and-logs).\n",
    );
    let parts: [(&str, Vec<&Described>); 4] = [
        ("API server: `GET /metrics` at its own address", holdfast_apiserver::metrics::LIST.to_vec()),
        (
            "Controller: there, too, with `holdfast server`; else `--metrics`",
            holdfast_controller::metrics::LIST.to_vec(),
        ),
        ("Agent: `metrics` in its file", holdfast_agent::metrics::LIST.to_vec()),
        ("Every process", OF_EVERY_PROCESS.to_vec()),
    ];
    for (title, list) in parts {
        writeln!(out, "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|").expect("a string");
        for metric in list {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels = metric.labels.join(", ");
            writeln!(out, "| `{}` | {kind} | {labels} | {} |", metric.name, line(metric.help)).expect("a string");
        }
    }
    out
}

#[test]
fn the_reference_says_what_the_schemas_say() {
    let mut pages = Vec::new();
    let mut index = String::from(
        "# Reference\n\nAll kinds of `holdfast.dev/v1`. Generated from the schemas by `make docs`; `kubectl explain` says the same.\n\n",
    );
    for crd in crds() {
        let names = &crd.spec.names;
        let short = names.short_names.as_deref().and_then(<[String]>::first).cloned().unwrap_or_default();
        pages.push((format!("{}.md", names.plural), page(&names.kind, &names.plural, &short)));
        let schema = schema_of(&names.plural).expect("a schema");
        writeln!(index, "- [{}]({}.md): {}", names.kind, names.plural, line(text(&schema, "description")))
            .expect("a string");
    }
    index.push_str("\n[Metrics](metrics.md): what the processes answer to Prometheus.\n");
    pages.push(("metrics.md".into(), metrics()));
    pages.push(("README.md".into(), index));
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    if update {
        std::fs::create_dir_all(directory()).expect("docs/reference");
    }
    for (name, wanted) in pages {
        let path = directory().join(&name);
        if update {
            std::fs::write(&path, &wanted).expect("docs/reference can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/reference/{name} differs from the schemas; run `make docs` and look at the difference"
        );
    }
}
