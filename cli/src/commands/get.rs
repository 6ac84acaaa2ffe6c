//! `holdfast get`: objects as the server's table, or as YAML, JSON or names.

use kube::core::WatchEvent;
use serde_json::{Value, json};

use crate::args::{GetArgs, OutputFormat};
use crate::client::{Api, Kind};
use crate::commands::table::{self, Style};
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// Unknown kinds, objects that are not there, what the server answers.
pub(crate) async fn run(args: GetArgs, printer: Printer) -> Result {
    let api = Api::connect(&args.client).await?;
    let kinds = api.kinds().await?;
    let (words, names) = split(&args.kind, &args.names)?;
    let kinds = kinds.called(&words)?;
    if !names.is_empty() && (kinds.len() > 1 || args.all_namespaces) {
        return Err(Failure::refused("names need exactly one kind and one namespace")
            .hint("holdfast get KIND NAME… -n NAMESPACE"));
    }
    if args.watch {
        let [kind] = kinds.as_slice() else {
            return Err(Failure::refused("only one kind can be watched at a time")
                .hint("holdfast status --watch shows the whole tree"));
        };
        return watch(&api, kind, &names, &args, printer).await;
    }
    match args.output {
        None | Some(OutputFormat::Wide) => tables(&api, &kinds, &names, &args, printer).await,
        Some(format) => objects(&api, &kinds, &names, &args, format, printer).await,
    }
}

/// `KIND/NAME` → kind and names.
pub(crate) fn split(kind: &str, names: &[String]) -> Result<(String, Vec<String>)> {
    match kind.split_once('/') {
        None => Ok((kind.to_owned(), names.to_vec())),
        Some((kind, name)) if names.is_empty() => Ok((kind.to_owned(), vec![name.to_owned()])),
        Some(_) => Err(Failure::refused("KIND/NAME takes no further names").hint("holdfast get KIND NAME NAME …")),
    }
}

/// Paths of the requests that give the wanted objects of one kind.
fn paths(api: &Api, kind: &Kind, names: &[String], args: &GetArgs) -> Vec<String> {
    let namespace = (!args.all_namespaces).then(|| api.namespace());
    if names.is_empty() {
        let query = args
            .selector
            .as_deref()
            .map_or_else(String::new, |selector| format!("?labelSelector={}", encoded(selector)));
        return vec![kind.path(namespace, None) + &query];
    }
    names.iter().map(|name| kind.path(namespace, Some(name))).collect()
}

/// Percent-encoding of everything that has a meaning in a query.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

async fn tables(api: &Api, kinds: &[&Kind], names: &[String], args: &GetArgs, printer: Printer) -> Result {
    let mut blocks = Vec::new();
    for kind in kinds {
        // Several named objects make one table.
        let mut whole: Option<Value> = None;
        for path in paths(api, kind, names, args) {
            let table = api.table(&path).await?;
            match &mut whole {
                None => whole = Some(table),
                Some(whole) => append_rows(whole, &table),
            }
        }
        let prefix = (kinds.len() > 1).then(|| kind.full_name());
        let style = Style {
            wide: args.output == Some(OutputFormat::Wide),
            namespaces: args.all_namespaces && kind.namespaced,
            prefix: prefix.as_deref(),
            rows_only: false,
        };
        blocks.push(table::render(&whole.unwrap_or_default(), style));
    }
    blocks.retain(|block| !block.is_empty());
    if blocks.is_empty() {
        printer.note(if args.all_namespaces {
            "No resources found".to_owned()
        } else {
            format!("No resources found in {} namespace.", api.namespace())
        });
        return Ok(());
    }
    printer.data(&blocks.join("\n"))
}

fn append_rows(whole: &mut Value, more: &Value) {
    if let (Some(rows), Some(new)) =
        (whole.get_mut("rows").and_then(Value::as_array_mut), more.get("rows").and_then(Value::as_array))
    {
        rows.extend(new.iter().cloned());
    }
}

async fn objects(
    api: &Api,
    kinds: &[&Kind],
    names: &[String],
    args: &GetArgs,
    format: OutputFormat,
    printer: Printer,
) -> Result {
    let mut items = Vec::new();
    for kind in kinds {
        for path in paths(api, kind, names, args) {
            let answer: Value = api.send(http::Method::GET, &path, None).await?;
            match answer.get("items").and_then(Value::as_array) {
                Some(list) => items.extend(list.iter().map(|item| with_type(item, kind))),
                None => items.push(with_type(&answer, kind)),
            }
        }
    }
    if format == OutputFormat::Name {
        let lines: Vec<String> = items.iter().map(|item| named(item, kinds)).collect();
        return printer.data(&lines.join("\n"));
    }
    let whole = match <[Value; 1]>::try_from(items) {
        Ok([single]) if !names.is_empty() => single,
        Ok([single]) => json!({"apiVersion": "v1", "kind": "List", "items": [single]}),
        Err(items) => json!({"apiVersion": "v1", "kind": "List", "items": items}),
    };
    printer.data(&text_of(&whole, format)?)
}

/// Items of a list carry no type of their own.
fn with_type(item: &Value, kind: &Kind) -> Value {
    let mut whole = json!({"apiVersion": kind.api_version, "kind": kind.kind});
    if let (Some(whole), Some(item)) = (whole.as_object_mut(), item.as_object()) {
        whole.extend(item.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    whole
}

fn named(item: &Value, kinds: &[&Kind]) -> String {
    let kind = kinds.iter().find(|kind| item.get("kind").is_some_and(|name| *name == kind.kind.as_str()));
    let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
    kind.map_or_else(|| name.to_owned(), |kind| format!("{}/{name}", kind.full_name()))
}

fn text_of(value: &Value, format: OutputFormat) -> Result<String> {
    Ok(match format {
        OutputFormat::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?,
        _ => serde_yaml::to_string(value).map_err(anyhow::Error::from)?,
    })
}

/// What is there, then every change, until the server ends the watch or the user the command.
async fn watch(api: &Api, kind: &Kind, names: &[String], args: &GetArgs, printer: Printer) -> Result {
    let namespace = (!args.all_namespaces).then(|| api.namespace());
    let mut query = "?watch=1".to_owned();
    match names {
        [] => {}
        [name] => query.push_str(&format!("&fieldSelector=metadata.name%3D{}", encoded(name))),
        _ => return Err(Failure::refused("at most one object can be watched by name")),
    }
    if let Some(selector) = &args.selector {
        query.push_str(&format!("&labelSelector={}", encoded(selector)));
    }
    let as_table = matches!(args.output, None | Some(OutputFormat::Wide));
    let mut header = false;
    api.watch(&(kind.path(namespace, None) + &query), as_table, |event| {
        let object = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => object,
            WatchEvent::Bookmark(_) => return Ok(()),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        match args.output {
            None | Some(OutputFormat::Wide) => {
                let style = Style {
                    wide: args.output.is_some(),
                    namespaces: args.all_namespaces && kind.namespaced,
                    prefix: None,
                    rows_only: std::mem::replace(&mut header, true),
                };
                printer.data(&table::render(&object, style))
            }
            Some(OutputFormat::Name) => printer.data(&named(&object, &[kind])),
            Some(OutputFormat::Yaml) => printer.data(&format!("---\n{}", text_of(&object, OutputFormat::Yaml)?)),
            Some(OutputFormat::Json) => printer.data(&text_of(&object, OutputFormat::Json)?),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_name_may_stand_together() {
        assert_eq!(split("fog/x", &[]).expect("split"), ("fog".into(), vec!["x".into()]));
        assert!(split("fog/x", &["y".into()]).is_err());
    }

    #[test]
    fn a_selector_survives_the_query() {
        assert_eq!(encoded("a in (b, c),d!=e&f"), "a%20in%20%28b,%20c%29,d%21%3De%26f");
    }
}
