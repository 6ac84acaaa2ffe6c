//! JSON patch and merge patch on a served object. Pure.

use json_patch::{CopyOperation as PatchCopy, MoveOperation as PatchMove, Patch, PatchOperation};
use serde_json::Value;

use crate::decode::{DEPTH_MAX, decode, depth, too_deep};
use crate::error::{ApiError, ApiResult, Cause};
use crate::negotiation::BODY_LIMIT;
use crate::registry::ResourceDef;

/// Operations that a JSON patch may have at most, as on a stock server.
const OPERATIONS_MAX: usize = 10_000;

/// Server-side apply, which is no patch of this file but has its place among the patch types.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// A patch of one of the accepted types.
#[derive(Debug, Clone)]
pub(crate) enum PatchBody {
    /// RFC 6902.
    Json(Patch),
    /// RFC 7396, with the paths of fields that occur twice in it.
    Merge(Value, Vec<String>),
}

/// The patch types of a kind; strategic merge only where kubectl knows the Go type.
pub(crate) fn accepted_types(def: &ResourceDef) -> Vec<&'static str> {
    let mut types = vec!["application/json-patch+json", "application/merge-patch+json", APPLY];
    if def.is_builtin() {
        types.push("application/strategic-merge-patch+json");
    }
    types
}

impl PatchBody {
    /// Reads a patch by its content type.
    pub(crate) fn parse(def: &ResourceDef, content_type: &str, body: &[u8]) -> ApiResult<PatchBody> {
        match content_type {
            "application/json-patch+json" => {
                let patch: Patch = serde_json::from_slice(body)
                    .map_err(|e| ApiError::bad_request(format!("the body is not a JSON patch (RFC 6902): {e}")))?;
                if patch.len() > OPERATIONS_MAX {
                    return Err(ApiError::too_large(OPERATIONS_MAX));
                }
                Ok(PatchBody::Json(patch))
            }
            // A plain merge is what strategic merge comes to for the built-in kinds as they are used here.
            "application/strategic-merge-patch+json" if def.is_builtin() => merge(body),
            "application/merge-patch+json" => merge(body),
            other => Err(ApiError::unsupported_media_type(other, &accepted_types(def))),
        }
    }

    /// Applies the patch. `name` is the object's, for messages.
    pub(crate) fn apply(&self, def: &ResourceDef, name: &str, object: &Value) -> ApiResult<Value> {
        let mut patched = object.clone();
        match self {
            PatchBody::Merge(patch, _) => json_patch::merge(&mut patched, patch),
            PatchBody::Json(patch) => {
                let mut copied = 0;
                for operation in patch.iter() {
                    if tests_absence(operation, &patched) {
                        continue;
                    }
                    check_growth(operation, &patched, &mut copied)?;
                    json_patch::patch(&mut patched, std::slice::from_ref(operation)).map_err(|error| {
                        let cause = Cause {
                            reason: "FieldValueInvalid".into(),
                            message: format!("the JSON patch can't be applied: {error}"),
                            field: String::new(),
                        };
                        ApiError::invalid(def.target(name), &[cause])
                    })?;
                }
            }
        }
        if !patched.is_object() {
            return Err(ApiError::bad_request("the patch leaves no object"));
        }
        Ok(patched)
    }

    /// Fields that occur twice in the patch.
    pub(crate) fn duplicates(&self) -> &[String] {
        match self {
            PatchBody::Merge(_, duplicates) => duplicates,
            PatchBody::Json(_) => &[],
        }
    }

    /// True if the patch itself names the resourceVersion: then a stale one is a conflict.
    pub(crate) fn names_revision(&self) -> bool {
        match self {
            PatchBody::Merge(patch, _) => patch.pointer("/metadata/resourceVersion").is_some_and(|v| !v.is_null()),
            PatchBody::Json(patch) => patch.iter().any(|operation| {
                !matches!(operation, PatchOperation::Test(_))
                    && operation.path().as_str() == "/metadata/resourceVersion"
            }),
        }
    }
}

/// Refuses what a small patch could blow up: copies double an object each time, and nest it in itself. `copied` counts
/// the bytes that the operations before have copied and moved.
fn check_growth(operation: &PatchOperation, object: &Value, copied: &mut usize) -> ApiResult<()> {
    let put = match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Copy(PatchCopy { from, .. }) | PatchOperation::Move(PatchMove { from, .. }) => {
            let value = object.pointer(from.as_str());
            *copied += value.map_or(0, |value| value.to_string().len());
            if *copied > BODY_LIMIT {
                return Err(ApiError::too_large(BODY_LIMIT));
            }
            value
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    let levels = operation.path().tokens().count() + put.map_or(0, depth);
    if put.is_some() && levels > DEPTH_MAX { Err(ApiError::bad_request(too_deep())) } else { Ok(()) }
}

/// A test for null passes where there is nothing. Kubernetes' patch library takes it so, and clients that add the first
/// finalizer rely on it.
fn tests_absence(operation: &PatchOperation, object: &Value) -> bool {
    matches!(operation, PatchOperation::Test(test) if test.value.is_null() && object.pointer(test.path.as_str()).is_none())
}

fn merge(body: &[u8]) -> ApiResult<PatchBody> {
    let decoded = decode(body, false).map_err(ApiError::bad_request)?;
    if !decoded.value.is_object() {
        return Err(ApiError::bad_request("a merge patch must be a JSON object"));
    }
    Ok(PatchBody::Merge(decoded.value, decoded.duplicates))
}
