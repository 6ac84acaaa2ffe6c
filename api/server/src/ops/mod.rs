//! The operations on resources, one file per sort of operation.

pub(crate) mod access;
pub(crate) mod apply;
pub(crate) mod base;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod read;
pub(crate) mod review;
pub(crate) mod update;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use crate::error::{ApiError, ApiResult, Cause};
use crate::object::meta;
use crate::pieces::Pieces;
use crate::prepare;
use crate::query::FieldValidation;
use crate::registry::ResourceDef;
use crate::schema;

/// What stands in an answer.
#[derive(Debug)]
pub(crate) enum Content {
    /// Something made for it.
    Tree(Value),
    /// What was kept as compact JSON, or is put together from that.
    Text(Pieces),
}

impl From<Value> for Content {
    fn from(tree: Value) -> Content {
        Content::Tree(tree)
    }
}

impl From<Bytes> for Content {
    fn from(text: Bytes) -> Content {
        Content::Text(Pieces::new([text]))
    }
}

/// What an operation answers with.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) code: u16,
    /// The object in its served form, or a Status.
    pub(crate) content: Content,
    /// Texts for `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// 200 with an object.
    pub(crate) fn ok(content: impl Into<Content>) -> Answer {
        Answer { code: 200, content: content.into(), warnings: Vec::new() }
    }
}

/// Now, as the object model writes times.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Checks a completed object (stored form) by schema and metadata rules, drops unknown fields and fills defaults.
///
/// `extra` are unknown and duplicate fields that were found before. Returns the checked object in its stored form.
pub(crate) fn check(
    def: &ResourceDef,
    stored: Value,
    old: Option<&Value>,
    validation: FieldValidation,
    extra: Vec<String>,
    warnings: &mut Vec<String>,
) -> ApiResult<Value> {
    let mut served = def.present(stored);
    let old_served = old.map(|old| def.shown(old));
    let old_served = old_served.as_deref();
    let mut findings = extra;
    findings.extend(prepare::prune_metadata(&mut served).iter().map(|path| format!("unknown field \"{path}\"")));
    let checked = schema::check(def, &mut served, old_served);
    findings.extend(checked.unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    if !findings.is_empty() {
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => warnings.append(&mut findings),
            FieldValidation::Strict => {
                let message = format!(
                    "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                    def.kind,
                    def.version,
                    def.kind,
                    findings.join(", ")
                );
                return Err(ApiError::bad_request(message));
            }
        }
    }
    let mut causes = prepare::check_metadata(def, &served, old_served);
    causes.extend(checked.causes);
    invalid_if_any(def, meta(&served, "name"), &causes)?;
    Ok(def.absorb(served))
}

/// 422 with all causes, if there are any.
pub(crate) fn invalid_if_any(def: &ResourceDef, name: &str, causes: &[Cause]) -> ApiResult<()> {
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(def.target(name), causes)) }
}

/// The texts for fields that occur twice.
pub(crate) fn duplicate_findings(paths: &[String]) -> Vec<String> {
    paths.iter().map(|path| format!("duplicate field \"{path}\"")).collect()
}

/// Checks that the body is meant for this endpoint.
pub(crate) fn check_kind(def: &ResourceDef, body: &Value) -> ApiResult<()> {
    if !body.is_object() {
        return Err(ApiError::bad_request(format!("the body must be a {} object", def.kind)));
    }
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version == def.api_version() && kind == def.kind {
        return Ok(());
    }
    // The typed clients of built-in kinds leave both out now and then; the endpoint says what is meant.
    if def.is_builtin() && api_version.is_empty() && kind.is_empty() {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the body is of apiVersion {api_version:?}, kind {kind:?}; this path takes apiVersion {:?}, kind {:?}",
        def.api_version(),
        def.kind
    )))
}

/// Sets apiVersion and kind where a client left them out.
pub(crate) fn set_kind(def: &ResourceDef, object: &mut Value) {
    object["apiVersion"] = def.api_version().into();
    object["kind"] = def.kind.clone().into();
}
