//! Evaluates the CEL rules (`x-kubernetes-validations`) of a schema on an object.
//!
//! The walk is ours, because entries of a list with keys must be compared with the old entry of the same key, wherever it
//! stood; expressions are compiled and evaluated by kube-cel.

use kube_cel::{CompiledSchema, ErrorKind as CelKind, compile_schema, validate_compiled};
use serde_json::{Map, Value};

use super::{child, shown};
use crate::error::{ErrorKind, FieldError};

/// All rules of a schema, compiled once; cheap to evaluate often. Can be shared between threads.
#[derive(Debug)]
pub struct Rules {
    own: Option<CompiledSchema>,
    properties: Vec<(String, Rules)>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    keys: Option<Vec<String>>,
    /// Whether entries of this list can be found again in the old list.
    correlated: bool,
    /// Whether there is any rule here or below.
    any: bool,
}

/// Everything in which the object breaks a rule. `old` is the stored object that `object` would replace; rules about changes
/// are left out without it. Compiles the rules each time; who evaluates often keeps [`Rules`].
pub fn evaluate_rules(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    Rules::compile(schema).evaluate(object, old)
}

impl Rules {
    /// Compiles the rules of a schema. A rule that does not compile is an error of each evaluation: nothing passes by a
    /// broken rule.
    pub fn compile(schema: &Value) -> Self {
        let own = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
            .filter(|rules| !rules.is_empty())
            .map(|_| compile_schema(&only_own_rules(schema)));
        let properties: Vec<(String, Self)> = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.clone(), Self::compile(schema)))
            .filter(|(_, rules)| rules.any)
            .collect();
        let below = |key: &str| {
            schema.get(key).filter(|s| s.is_object()).map(Self::compile).filter(|rules| rules.any).map(Box::new)
        };
        let (additional, items) = (below("additionalProperties"), below("items"));
        let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
        let keys = (list_type == Some("map")).then(|| {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
        });
        let any = own.is_some() || !properties.is_empty() || additional.is_some() || items.is_some();
        Self { own, properties, additional, items, correlated: keys.is_some(), keys, any }
    }

    /// Everything in which the object breaks a rule.
    pub fn evaluate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.judge(object, old).into_iter().map(|judgement| judgement.error).collect()
    }

    /// As [`Rules::evaluate`], telling broken rules from those that could not be evaluated.
    pub(super) fn judge(&self, object: &Value, old: Option<&Value>) -> Vec<Judgement> {
        let mut errors = Vec::new();
        self.walk(object, old, "", &mut errors);
        errors
    }

    fn walk(&self, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<Judgement>) {
        // What has not changed was judged when it was written; should it break a newer rule, that is no fault of this write.
        if value.is_null() || old == Some(value) {
            return;
        }
        if let Some(own) = &self.own {
            for error in validate_compiled(own, value, old).err().into_iter().flatten() {
                errors.push(judgement(error, value, path));
            }
        }
        match value {
            Value::Object(map) => {
                for (name, rules) in &self.properties {
                    if let Some(value) = map.get(name) {
                        rules.walk(value, old.and_then(|o| o.get(name)), &child(path, name), errors);
                    }
                }
                if let Some(rules) = &self.additional {
                    for (name, value) in map {
                        rules.walk(value, old.and_then(|o| o.get(name)), &child(path, name), errors);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(rules) = &self.items {
                    for (i, item) in items.iter().enumerate() {
                        let old = old.filter(|_| self.correlated).and_then(|old| self.same_entry(old, item));
                        rules.walk(item, old, &format!("{path}[{i}]"), errors);
                    }
                }
            }
            _ => {}
        }
    }

    fn same_entry<'a>(&self, old: &'a Value, item: &Value) -> Option<&'a Value> {
        let keys = self.keys.as_ref()?;
        old.as_array()?.iter().find(|entry| keys.iter().all(|key| entry.get(key) == item.get(key)))
    }
}

/// The schema with the rules of its top only, and of what is below it just what values are converted by where these rules
/// look: the library converts, and goes through, every level that it is given. A rule that looks at a field names it;
/// those that it compares without looking into them are compared as they stand. Defaults go: the object has its
/// defaults already.
fn only_own_rules(schema: &Value) -> Value {
    let texts = schema.get("x-kubernetes-validations").map(Value::to_string).unwrap_or_default();
    let mut kept = converts_by(schema, &texts).unwrap_or_else(|| Value::Object(Map::new()));
    if let Some(rules) = schema.get("x-kubernetes-validations") {
        kept["x-kubernetes-validations"] = rules.clone();
    }
    kept
}

/// What of a schema makes its values other CEL values than their JSON does: times, maps whose keys are data, embedded
/// objects; none if it is nothing. Fields whose names are not in the texts of the rules are left out.
fn converts_by(schema: &Value, texts: &str) -> Option<Value> {
    let map = schema.as_object()?;
    let mut kept = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "format" if matches!(value.as_str(), Some("int32" | "int64" | "float" | "double")) => {}
            "format" | "x-kubernetes-int-or-string" | "x-kubernetes-embedded-resource" => {
                kept.insert(key.clone(), value.clone());
            }
            "additionalProperties" if value != false => {
                let below = converts_by(value, texts).unwrap_or_else(|| Value::Object(Map::new()));
                kept.insert(key.clone(), below);
            }
            "items" => kept.extend(converts_by(value, texts).map(|items| (key.clone(), items))),
            "properties" => {
                let named = value.as_object().into_iter().flatten().filter(|(name, _)| texts.contains(name.as_str()));
                let below: Map<String, Value> =
                    named.filter_map(|(name, schema)| Some((name.clone(), converts_by(schema, texts)?))).collect();
                kept.extend((!below.is_empty()).then(|| (key.clone(), Value::Object(below))));
            }
            _ => {}
        }
    }
    if kept.is_empty() {
        return None;
    }
    kept.extend(map.get("type").map(|kind| ("type".to_owned(), kind.clone())));
    Some(Value::Object(kept))
}

/// What came of a rule that did not pass.
pub(super) struct Judgement {
    pub(super) error: FieldError,
    /// The rule was evaluated and is broken; otherwise it could not be evaluated, which is never a pass.
    pub(super) broken: bool,
}

fn judgement(error: kube_cel::ValidationError, value: &Value, path: &str) -> Judgement {
    let field = match error.field_path.strip_prefix('.').unwrap_or(&error.field_path) {
        "" => path.to_string(),
        below if below.starts_with('[') || path.is_empty() => format!("{path}{below}"),
        below => format!("{path}.{below}"),
    };
    let kind = match error.reason.as_deref() {
        Some("FieldValueRequired") => ErrorKind::Required,
        Some("FieldValueForbidden") => ErrorKind::Forbidden,
        Some("FieldValueDuplicate") => ErrorKind::Duplicate,
        _ => ErrorKind::Invalid,
    };
    // What stands at the field that the rule points to.
    let pointed = error.field_path.split('.').filter(|s| !s.is_empty()).try_fold(value, |v, name| v.get(name));
    let broken = error.kind == CelKind::ValidationFailure;
    let message =
        if broken { error.message } else { format!("the rule {} can't be evaluated: {}", error.rule, error.message) };
    Judgement { error: FieldError::new(kind, field, pointed.map(shown).unwrap_or_default(), message), broken }
}
