//! A kind's own schema applied to its objects: the server's side of `holdfast_api::schema`.

use holdfast_api::error::FieldError;
use holdfast_api::schema::{apply_defaults, prune, validate_structure};
use serde_json::Value;

use crate::error::Cause;
use crate::registry::ResourceDef;

/// What came out of checking an object.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Paths of unknown fields, which have been dropped.
    pub(crate) unknown: Vec<String>,
    /// What is wrong.
    pub(crate) causes: Vec<Cause>,
}

/// Fills in defaults.
pub(crate) fn defaults(def: &ResourceDef, value: &mut Value) {
    apply_defaults(&def.schema, value);
}

/// Drops unknown fields, fills in defaults and checks structure and rules.
pub(crate) fn check(def: &ResourceDef, value: &mut Value, old: Option<&Value>) -> Checked {
    let unknown = prune(&def.schema, value);
    apply_defaults(&def.schema, value);
    let mut errors = validate_structure(&def.schema, value);
    // A rule that can't be evaluated says nothing that the structure's errors do not say better.
    let sound = errors.is_empty();
    errors.extend(def.rules.evaluate(value, old).into_iter().filter(|error| sound || !error.found.is_empty()));
    Checked { unknown, causes: errors.iter().map(cause).collect() }
}

/// An error as a cause of a Status.
pub(crate) fn cause(error: &FieldError) -> Cause {
    Cause { reason: error.kind.cause_reason().into(), message: error.detail(), field: error.field.clone() }
}
