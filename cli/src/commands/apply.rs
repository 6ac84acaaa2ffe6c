//! `holdfast apply`: creates what is not there and changes what is, what others need first (`manifest.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::args::ApplyArgs;
use crate::client::{Api, Body, Kinds};
use crate::commands::merge;
use crate::errors::{Failure, Result};
use crate::manifest::{self, Manifest};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// All manifests are tried; the last refusal is returned, the ones before it are printed.
pub(crate) async fn run(args: ApplyArgs, printer: Printer) -> Result {
    let manifests = manifest::load(&args.files.files)?;
    let api = Api::connect(&args.client).await?;
    let kinds = api.kinds().await?;
    let mut failure: Option<Failure> = None;
    for manifest in manifests {
        let outcome = apply(&api, &kinds, args.client.namespace.as_deref(), args.dry_run, &manifest).await;
        match outcome {
            Ok(Applied { name, did, .. }) => {
                let suffix = if args.dry_run { " (server dry run)" } else { "" };
                printer.data(&format!("{name} {did}{suffix}"))?;
            }
            Err(error) => {
                if let Some(earlier) =
                    failure.replace(error.context(format!("{}: {}", manifest.source, manifest.label())))
                {
                    printer.note(earlier);
                }
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What became of a manifest.
#[derive(Debug)]
pub(crate) struct Applied {
    /// KIND/NAME.
    pub(crate) name: String,
    /// `created`, `configured` or `unchanged`.
    pub(crate) did: &'static str,
    /// The object as the server has it now; after a dry run, as it would have it.
    pub(crate) object: Value,
}

/// Applies one manifest. `given`: the namespace of the command line.
///
/// # Errors
/// What the server answers, or that it can't be reached; a manifest that contradicts the command line.
pub(crate) async fn apply(
    api: &Api,
    kinds: &Kinds,
    given: Option<&str>,
    dry_run: bool,
    manifest: &Manifest,
) -> Result<Applied> {
    let kind = kinds.of_manifest(manifest.api_version()?, manifest.kind()?)?;
    if let (Some(given), Some(own)) = (given, manifest.namespace())
        && given != own
    {
        return Err(Failure::refused(format!("the manifest says namespace {own}, --namespace says {given}"))
            .hint("leave --namespace out, or take the namespace out of the manifest"));
    }
    let namespace = kind.namespaced.then(|| manifest.namespace().unwrap_or(api.namespace()));
    let query = if dry_run {
        "?fieldManager=holdfast-cli&fieldValidation=Strict&dryRun=All"
    } else {
        "?fieldManager=holdfast-cli&fieldValidation=Strict"
    };
    let mut wanted = manifest.object.clone();
    if let (Some(namespace), Some(metadata)) = (namespace, wanted.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("namespace".into(), json!(namespace));
    }
    let Some(name) = manifest.name() else {
        let object: Value = create(api, &format!("{}{query}", kind.path(namespace, None)), &wanted).await?;
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        return Ok(Applied { name: format!("{}/{name}", kind.full_name()), did: "created", object });
    };
    let label = format!("{}/{name}", kind.full_name());
    remember(&mut wanted)?;
    let path = kind.path(namespace, Some(name));
    let Some(live) = api.find(&path).await? else {
        let object = create(api, &format!("{}{query}", kind.path(namespace, None)), &wanted).await?;
        return Ok(Applied { name: label, did: "created", object });
    };
    let last = live
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(merge::LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let patch = merge::patch(&last, &wanted, &live);
    if says_nothing_new(&patch, &last, &wanted) {
        return Ok(Applied { name: label, did: "unchanged", object: live });
    }
    let body = Body { content_type: "application/merge-patch+json", value: &patch };
    let object: Value = api.send(Method::PATCH, &format!("{path}{query}"), Some(body)).await?;
    Ok(Applied { name: label, did: "configured", object })
}

async fn create(api: &Api, path: &str, object: &Value) -> Result<Value> {
    api.send(Method::POST, path, Some(Body { content_type: "application/json", value: object })).await
}

/// Puts the manifest itself into its annotation, for the next time; in kubectl's form, so that both can take turns.
fn remember(object: &mut Value) -> Result {
    let annotations = object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Failure::refused("metadata: missing or not a map; it holds at least the name"))?
        .entry("annotations")
        .or_insert_with(|| json!({}));
    let Some(annotations) = annotations.as_object_mut() else {
        return Err(Failure::refused("metadata.annotations: not a map; allowed: a map of strings"));
    };
    annotations.remove(merge::LAST_APPLIED);
    let text = serde_json::to_string(object).map_err(anyhow::Error::from)? + "\n";
    object["metadata"]["annotations"][merge::LAST_APPLIED] = Value::String(text);
    Ok(())
}

/// Whether a patch would only write the same manifest into its annotation, in another order of fields.
fn says_nothing_new(patch: &Value, last: &Value, wanted: &Value) -> bool {
    let only = json!({"metadata": {"annotations": {merge::LAST_APPLIED: wanted["metadata"]["annotations"][merge::LAST_APPLIED]}}});
    let kept = wanted["metadata"]["annotations"][merge::LAST_APPLIED]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    *patch == json!({}) || (*patch == only && kept.as_ref() == Some(last))
}
