//! Schemas and what follows from them: checking, defaulting and pruning objects of any kind.
//!
//! The functions take any structural OpenAPI v3 schema as a plain value, so that the API server treats every kind alike.
//! They read and change values only; who may write what is not decided here. The order of the API server: [`prune`] (or
//! refuse what [`unknown_fields`] finds), [`apply_defaults`], [`validate_structure`], [`Rules::evaluate`].

pub(crate) mod build;
mod defaults;
mod prune;
mod rules;
mod structure;

pub(crate) use build::*;
pub use build::{LABEL_PATTERN, SUBDOMAIN_PATTERN};
pub use defaults::apply_defaults;
pub use prune::{prune, unknown_fields};
pub use rules::{Rules, evaluate_rules};
pub use structure::validate_structure;

use serde_json::Value;

use crate::error::{ErrorKind, FieldError};

/// Everything that is wrong with an object, unknown fields left aside: structure, then rules. `old` is the stored object that
/// `object` would replace. Both already have their defaults. Who validates often keeps [`Rules`] and calls
/// [`validate_with`].
pub fn validate(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    validate_with(schema, &Rules::compile(schema), object, old)
}

/// As [`validate`], with rules that were compiled before from the same schema.
///
/// Where the structure is wrong, a rule that can't be evaluated is a consequence of that and not reported again; where a text
/// or list is too long, no rule is evaluated, because its cost is bounded only within the bounds.
pub fn validate_with(schema: &Value, rules: &Rules, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate_structure(schema, object);
    if errors.iter().any(|e| matches!(e.kind, ErrorKind::TooMany | ErrorKind::TooLong)) {
        return errors;
    }
    let structure_fits = errors.is_empty();
    errors.extend(rules.judge(object, old).into_iter().filter(|j| structure_fits || j.broken).map(|j| j.error));
    errors
}

/// `base.name`; names with dots or brackets are written in brackets.
fn child(base: &str, name: &str) -> String {
    if name.contains(['.', '[', ']']) || name.is_empty() {
        format!("{base}[{name}]")
    } else if base.is_empty() {
        name.to_string()
    } else {
        format!("{base}.{name}")
    }
}

/// The value as short JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_string(),
        Value::Array(items) => format!("a list of {}", items.len()),
        scalar => scalar.to_string(),
    }
}
