//! Checks an object against the structure that its schema describes: types, choices, bounds, patterns, required fields,
//! duplicates. CEL rules and unknown fields are not looked at here.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
    sync::{OnceLock, RwLock},
};

use regex::Regex;
use serde_json::Value;

use super::{child, shown};
use crate::error::{ErrorKind, FieldError};

/// Everything in which the object differs from the structure that the schema describes.
pub fn validate_structure(schema: &Value, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, object, "", &mut errors);
    errors
}

fn check(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && schema.get("nullable").and_then(Value::as_bool) == Some(true) {
        return;
    }
    if !type_fits(schema, value) {
        errors.push(wrong_type(schema, value, path));
        return;
    }
    choices(schema, value, path, errors);
    match value {
        Value::String(text) => string(schema, text, path, errors),
        Value::Number(_) => number(schema, value, path, errors),
        Value::Array(items) => array(schema, items, path, errors),
        Value::Object(map) => object(schema, map, path, errors),
        Value::Bool(_) | Value::Null => {}
    }
    alternatives(schema, value, path, errors);
}

fn type_fits(schema: &Value, value: &Value) -> bool {
    if schema.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    }
}

fn wrong_type(schema: &Value, value: &Value, path: &str) -> FieldError {
    let wanted = match schema.get("type").and_then(Value::as_str) {
        Some("string") => "a string",
        Some("integer") => "an integer",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        Some("object") => "an object",
        _ => "an integer or a string",
    };
    let (is, hint) = match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("a boolean", "; write it in quotes"),
        Value::Number(_) => ("a number", "; write it in quotes"),
        Value::String(_) => ("a string", "; write it without quotes"),
        Value::Array(_) => ("a list", ""),
        Value::Object(_) => ("an object", ""),
    };
    let quotes = match (schema.get("type").and_then(Value::as_str), value) {
        (Some("string"), Value::Bool(_) | Value::Number(_)) => true,
        (Some("integer" | "number"), Value::String(text)) => text.parse::<f64>().is_ok(),
        (Some("boolean"), Value::String(text)) => text == "true" || text == "false",
        _ => false,
    };
    let hint = if quotes { hint } else { "" };
    let message = format!("must be {wanted}, is {is}{hint}");
    FieldError::new(ErrorKind::TypeInvalid, path, shown(value), message)
}

fn choices(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let list: Vec<String> = allowed.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_string)).collect();
        let message = format!("must be one of {}", list.join(", "));
        errors.push(FieldError::new(ErrorKind::NotSupported, path, shown(value), message));
    }
}

/// A bound that must be a whole number; definitions carry some of them as floating-point numbers.
fn bound(schema: &Value, key: &str) -> Option<u64> {
    let value = schema.get(key)?;
    value.as_u64().or_else(|| value.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64))
}

/// `at least 2`, `at most 16`, `2 to 16`: what a pair of bounds allows.
fn range(min: Option<u64>, max: Option<u64>) -> String {
    match (min, max) {
        (Some(min), Some(max)) if min == max => format!("exactly {min}"),
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "any number of".to_string(),
    }
}

fn string(schema: &Value, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    let (min, max) = (bound(schema, "minLength"), bound(schema, "maxLength"));
    let found = || shown(&Value::from(text));
    if max.is_some_and(|max| length > max) {
        let message = format!("has {length} characters; allowed are {}", range(min, max));
        errors.push(FieldError::new(ErrorKind::TooLong, path, found(), message));
        return;
    }
    if min.is_some_and(|min| length < min) {
        let message = if length == 0 {
            "must not be empty".to_string()
        } else {
            format!("has {length} characters; allowed are {}", range(min, max))
        };
        errors.push(FieldError::new(ErrorKind::Invalid, path, found(), message));
        return;
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && matches(pattern, text) == Some(false)
    {
        errors.push(FieldError::new(ErrorKind::Invalid, path, found(), meaning(pattern)));
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let wrong = match format {
        "date-time" if text.parse::<jiff::Timestamp>().is_err() => "must be a time such as 2026-03-01T08:00:00Z",
        "ipv4" if text.parse::<Ipv4Addr>().is_err() => "must be an IPv4 address",
        "ipv6" if text.parse::<Ipv6Addr>().is_err() => "must be an IPv6 address",
        _ => return,
    };
    errors.push(FieldError::new(ErrorKind::Invalid, path, found(), wrong));
}

/// What a pattern asks for, in words where we have them.
fn meaning(pattern: &str) -> String {
    match pattern {
        super::LABEL_PATTERN => {
            "must consist of lower case letters, digits and '-', and begin and end with a letter or digit".to_string()
        }
        super::SUBDOMAIN_PATTERN => {
            "must consist of lower case letters, digits, '-' and '.', and begin and end with a letter or digit"
                .to_string()
        }
        crate::duration::PATTERN => {
            "must be a duration: numbers with the units ms, s, m, h, for example 500ms, 30s or 1m30s".to_string()
        }
        _ => format!("must match {pattern}"),
    }
}

/// Whether the text has a match; `None` for patterns that are no regular expression. Compiled patterns are kept: their number
/// is that of the patterns in the schemas that are served.
fn matches(pattern: &str, text: &str) -> Option<bool> {
    static KNOWN: OnceLock<RwLock<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let known = KNOWN.get_or_init(RwLock::default);
    if let Ok(map) = known.read()
        && let Some(regex) = map.get(pattern)
    {
        return regex.as_ref().map(|r| r.is_match(text));
    }
    let regex = Regex::new(pattern).ok();
    let answer = regex.as_ref().map(|r| r.is_match(text));
    if let Ok(mut map) = known.write() {
        map.insert(pattern.to_string(), regex);
    }
    answer
}

fn number(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(n) = value.as_f64() else { return };
    let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
    let exclusive = |key: &str| schema.get(key).and_then(Value::as_bool) == Some(true);
    let (min, max) = (limit("minimum"), limit("maximum"));
    let below = min.is_some_and(|min| n < min || (exclusive("exclusiveMinimum") && n == min));
    let above = max.is_some_and(|max| n > max || (exclusive("exclusiveMaximum") && n == max));
    let invalid = |message: String| FieldError::new(ErrorKind::Invalid, path, shown(value), message);
    if below || above {
        errors.push(invalid(match (min, max) {
            (Some(min), Some(max)) => format!("must lie in {min}..{max}"),
            (Some(min), None) if exclusive("exclusiveMinimum") => format!("must be greater than {min}"),
            (Some(min), None) => format!("must be at least {min}"),
            (None, Some(max)) if exclusive("exclusiveMaximum") => format!("must be less than {max}"),
            (_, max) => format!("must be at most {}", max.unwrap_or_default()),
        }));
    }
    if let Some(step) = limit("multipleOf").filter(|step| *step > 0.0)
        && (n / step).fract() != 0.0
    {
        errors.push(invalid(format!("must be a multiple of {step}")));
    }
    if schema.get("format").and_then(Value::as_str) == Some("int32")
        && value.as_i64().is_none_or(|n| i32::try_from(n).is_err())
        && value.as_f64().is_some_and(|n| n.fract() == 0.0)
    {
        errors.push(invalid("must fit into 32 bits".to_string()));
    }
}

fn array(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let count = items.len() as u64;
    let (min, max) = (bound(schema, "minItems"), bound(schema, "maxItems"));
    if min.is_some_and(|min| count < min) || max.is_some_and(|max| count > max) {
        let kind = if max.is_some_and(|max| count > max) { ErrorKind::TooMany } else { ErrorKind::Invalid };
        let entries = if count == 1 { "1 entry".to_string() } else { format!("{count} entries") };
        errors.push(FieldError::new(kind, path, entries, format!("must have {} entries", range(min, max))));
        if kind == ErrorKind::TooMany {
            return;
        }
    }
    if let Some(schema) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            check(schema, item, &format!("{path}[{i}]"), errors);
        }
    }
    let unique = schema.get("uniqueItems").and_then(Value::as_bool) == Some(true);
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => {
            let keys: Vec<&str> = schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            duplicates(items, path, errors, |item| {
                let key: Option<BTreeMap<&str, &Value>> =
                    keys.iter().map(|key| item.get(*key).map(|value| (*key, value))).collect();
                key.and_then(|key| serde_json::to_string(&key).ok())
            });
        }
        Some("set") => duplicates(items, path, errors, |item| Some(item.to_string())),
        _ if unique => duplicates(items, path, errors, |item| Some(item.to_string())),
        _ => {}
    }
}

fn duplicates(items: &[Value], path: &str, errors: &mut Vec<FieldError>, key: impl Fn(&Value) -> Option<String>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (i, item) in items.iter().enumerate() {
        let Some(key) = key(item) else { continue };
        if let Some(first) = seen.get(&key) {
            let message = format!("stands at {path}[{first}] already; each may be there once");
            errors.push(FieldError::new(ErrorKind::Duplicate, format!("{path}[{i}]"), key, message));
        } else {
            seen.insert(key, i);
        }
    }
}

fn object(schema: &Value, map: &serde_json::Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            errors.push(FieldError::new(ErrorKind::Required, child(path, name), "", "must be given"));
        }
    }
    let count = map.len() as u64;
    let (min, max) = (bound(schema, "minProperties"), bound(schema, "maxProperties"));
    if min.is_some_and(|min| count < min) || max.is_some_and(|max| count > max) {
        let kind = if max.is_some_and(|max| count > max) { ErrorKind::TooMany } else { ErrorKind::Invalid };
        errors.push(FieldError::new(
            kind,
            path,
            format!("{count} entries"),
            format!("must have {} entries", range(min, max)),
        ));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|a| a.is_object());
    for (name, value) in map {
        if let Some(schema) = properties.and_then(|p| p.get(name)).or(additional) {
            check(schema, value, &child(path, name), errors);
        }
    }
}

fn alternatives(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let branches = |key: &str| schema.get(key).and_then(Value::as_array);
    let passes = |branch: &Value| {
        let mut inner = Vec::new();
        check(branch, value, path, &mut inner);
        inner.is_empty()
    };
    for branch in branches("allOf").into_iter().flatten() {
        check(branch, value, path, errors);
    }
    let invalid = |message: &str| FieldError::new(ErrorKind::Invalid, path, shown(value), message);
    if branches("anyOf").is_some_and(|all| !all.iter().any(passes)) {
        errors.push(invalid("must fit at least one of the forms that the schema allows"));
    }
    if branches("oneOf").is_some_and(|all| all.iter().filter(|b| passes(b)).count() != 1) {
        errors.push(invalid("must fit exactly one of the forms that the schema allows"));
    }
    if schema.get("not").is_some_and(passes) {
        errors.push(invalid("has a form that the schema excludes"));
    }
}
