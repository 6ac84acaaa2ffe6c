//! Objects as trees of fields, by their schema: which fields an object has, how two objects differ, how an applied
//! configuration is merged into an object. Pure.
//!
//! Objects go by field, maps by key, lists with keys by item, sets by member; everything else is one value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::fieldset::{self, FieldSet};

/// How a value of a schema is taken apart.
enum Shape<'a> {
    /// One value.
    Leaf,
    /// By field or key.
    Object,
    /// By these keys.
    Items(Vec<&'a str>),
    /// By value.
    Members,
}

fn shape<'a>(schema: &'a Value, value: &Value) -> Shape<'a> {
    match value {
        Value::Object(map) => {
            let typed = schema["properties"].is_object() || schema["additionalProperties"].is_object();
            let atomic = schema["x-kubernetes-map-type"] == "atomic";
            let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
            if atomic || map.is_empty() || !(typed || free) { Shape::Leaf } else { Shape::Object }
        }
        Value::Array(list) if !list.is_empty() => match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array();
                Shape::Items(keys.into_iter().flatten().filter_map(Value::as_str).collect())
            }
            Some("set") => Shape::Members,
            _ => Shape::Leaf,
        },
        _ => Shape::Leaf,
    }
}

const NOTHING: &Value = &Value::Null;

fn below<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let property = schema["properties"].get(name);
    property.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object())).unwrap_or(NOTHING)
}

/// The step to an item; keys that are left out have the schema's default.
fn item_step(schema: &Value, keys: &[&str], item: &Value) -> String {
    let properties = &schema["items"]["properties"];
    let of = |key: &str| item.get(key).or_else(|| properties[key].get("default"));
    fieldset::item(&keys.iter().filter_map(|key| Some((*key, of(key)?))).collect())
}

/// The parts of a value with their steps and schemas, in order; none if it is one value.
fn parts<'a>(schema: &'a Value, value: &'a Value) -> Option<Vec<(String, &'a Value, &'a Value)>> {
    match (shape(schema, value), value) {
        (Shape::Object, Value::Object(map)) => {
            Some(map.iter().map(|(name, value)| (fieldset::field(name), below(schema, name), value)).collect())
        }
        (Shape::Items(keys), Value::Array(list)) => {
            Some(list.iter().map(|item| (item_step(schema, &keys, item), &schema["items"], item)).collect())
        }
        (Shape::Members, Value::Array(list)) => {
            Some(list.iter().map(|member| (fieldset::value(member), NOTHING, member)).collect())
        }
        _ => None,
    }
}

/// All fields of a value: its leaves, and the items of lists with keys themselves.
pub(crate) fn fields(schema: &Value, value: &Value) -> FieldSet {
    let Some(parts) = parts(schema, value) else { return FieldSet::leaf() };
    let items = value.is_array();
    let mut out = FieldSet::default();
    for (step, schema, value) in parts {
        let mut set = fields(schema, value);
        set.member |= items;
        out.put(step, set);
    }
    out
}

/// The fields of `new` that `old` does not have or has with another value.
pub(crate) fn changed(schema: &Value, old: &Value, new: &Value) -> FieldSet {
    if old == new {
        return FieldSet::default();
    }
    let (Some(before), Some(after)) = (parts(schema, old), parts(schema, new)) else { return fields(schema, new) };
    let before: BTreeMap<String, &Value> = before.into_iter().map(|(step, _, value)| (step, value)).collect();
    let items = new.is_array();
    let mut out = FieldSet::default();
    for (step, schema, value) in after {
        let set = match before.get(&step) {
            Some(old) => changed(schema, old, value),
            None => {
                let mut set = fields(schema, value);
                set.member |= items;
                set
            }
        };
        out.put(step, set);
    }
    out
}

/// `live` with the fields of `applied` put over it.
///
/// Items that both have stand in the order of the request, in the places that they have together; an item that only the
/// request has comes before the next one of the request that was there, or last. So nobody's items move but those of the
/// request, and applying the same again moves nothing: two who share a list don't turn it over for ever.
pub(crate) fn merge(schema: &Value, live: &Value, applied: &Value) -> Value {
    let Some(before) = parts(schema, live) else { return applied.clone() };
    let Some(after) = parts(schema, applied) else {
        // What is applied as empty or null names nothing below it, so it takes nothing away there.
        let empty = applied.is_null() || *applied == json!({}) || *applied == json!([]);
        return if empty { live.clone() } else { applied.clone() };
    };
    if let (Value::Object(live), Value::Object(applied)) = (live, applied) {
        let mut out: Map<String, Value> = live.clone();
        for (name, value) in applied {
            let merged = match live.get(name) {
                Some(old) => merge(below(schema, name), old, value),
                None => value.clone(),
            };
            out.insert(name.clone(), merged);
        }
        return Value::Object(out);
    }
    let there: BTreeMap<&str, &Value> = before.iter().map(|(step, _, value)| (step.as_str(), *value)).collect();
    let named: BTreeSet<&str> = after.iter().map(|(step, ..)| step.as_str()).collect();
    let mut wanted = after.iter();
    let mut out: Vec<Value> = Vec::new();
    for (step, _, value) in &before {
        if !named.contains(step.as_str()) {
            out.push((*value).clone());
            continue;
        }
        // This is the place of the next item that both have.
        for (step, schema, value) in wanted.by_ref() {
            if let Some(old) = there.get(step.as_str()) {
                out.push(merge(schema, old, value));
                break;
            }
            out.push((*value).clone());
        }
    }
    out.extend(wanted.map(|(_, _, value)| (*value).clone()));
    Value::Array(out)
}

/// `value` without the fields of `set`; objects and lists that were emptied by it go, too. None if nothing is left.
pub(crate) fn remove(schema: &Value, value: &Value, set: &FieldSet) -> Option<Value> {
    let Some(parts) = parts(schema, value) else { return (!set.member).then(|| value.clone()) };
    let empty = FieldSet::default();
    let keys = match shape(schema, value) {
        Shape::Items(keys) => keys,
        _ => Vec::new(),
    };
    let mut touched = false;
    let mut kept: Vec<(String, Value)> = Vec::new();
    for (step, schema, part) in parts {
        let cut = set.below.get(&step).unwrap_or(&empty);
        if cut.is_empty() {
            kept.push((step, part.clone()));
            continue;
        }
        touched = true;
        // An item is gone when it is cut itself, whatever its leaves are.
        let gone = cut.member && value.is_array();
        if let Some(mut left) = remove(schema, part, cut).filter(|_| !gone) {
            // What stays of an item must still be found by its keys.
            for key in keys.iter().filter(|key| part.get(key).is_some()) {
                left[key] = part[key].clone();
            }
            kept.push((step, left));
        }
    }
    if kept.is_empty() && touched {
        return None;
    }
    Some(match value {
        Value::Array(_) => kept.into_iter().map(|(_, value)| value).collect(),
        _ => Value::Object(kept.into_iter().map(|(step, value)| (step[2..].to_owned(), value)).collect()),
    })
}

/// What makes an applied configuration ambiguous: items without their keys, and items or members that occur twice.
/// Each is a path with a text.
pub(crate) fn ambiguities(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut out = Vec::new();
    match (shape(schema, value), value) {
        (Shape::Object, Value::Object(map)) => {
            for (name, value) in map {
                out.extend(ambiguities(below(schema, name), value, &format!("{path}.{name}")));
            }
        }
        (Shape::Items(keys), Value::Array(list)) => {
            let mut seen = Vec::new();
            for (at, entry) in list.iter().enumerate() {
                let properties = &schema["items"]["properties"];
                for key in &keys {
                    if entry.get(key).is_none() && properties[key].get("default").is_none() {
                        out.push(format!("{path}: element {at}: associative list with keys has an element that omits key field {key:?}"));
                    }
                }
                let step = item_step(schema, &keys, entry);
                if seen.contains(&step) {
                    out.push(format!("{path}: duplicate entries for key {}", &step[2..]));
                }
                seen.push(step);
                out.extend(ambiguities(&schema["items"], entry, &format!("{path}[{at}]")));
            }
        }
        (Shape::Members, Value::Array(list)) => {
            for (at, member) in list.iter().enumerate() {
                if list[..at].contains(member) {
                    out.push(format!("{path}: set has duplicate value {member}"));
                }
            }
        }
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {
            "a": {"type": "string"},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "atomic": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "properties": {"name": {"type": "string"}, "x": {"type": "integer"}, "y": {"type": "integer"}}}},
        }})
    }

    #[test]
    fn fields_are_leaves_and_items() {
        let object =
            json!({"a": "1", "atomic": ["x"], "set": ["m"], "list": [{"name": "i", "x": 1}], "map": {"k": "v"}});
        assert_eq!(
            fields(&schema(), &object).to_json(),
            json!({"f:a": {}, "f:atomic": {}, "f:set": {"v:\"m\"": {}}, "f:map": {"f:k": {}},
                "f:list": {"k:{\"name\":\"i\"}": {".": {}, "f:name": {}, "f:x": {}}}})
        );
    }

    #[test]
    fn merging_keeps_what_others_have_and_the_order_of_the_request() {
        let live = json!({"a": "1", "list": [{"name": "i", "x": 1}, {"name": "j", "y": 2}], "set": ["m"], "atomic": ["x", "y"]});
        let applied = json!({"list": [{"name": "k"}, {"name": "j", "x": 5}], "set": ["n"], "atomic": ["z"]});
        let merged = merge(&schema(), &live, &applied);
        assert_eq!(
            merged,
            json!({"a": "1", "list": [{"name": "i", "x": 1}, {"name": "k"}, {"name": "j", "x": 5, "y": 2}],
                "set": ["m", "n"], "atomic": ["z"]})
        );
        assert_eq!(
            changed(&schema(), &live, &merged).to_json(),
            json!({"f:atomic": {}, "f:set": {"v:\"n\"": {}},
                "f:list": {"k:{\"name\":\"k\"}": {".": {}, "f:name": {}}, "k:{\"name\":\"j\"}": {"f:x": {}}}})
        );
    }

    #[test]
    fn items_stand_in_the_order_of_the_request_and_stay_when_it_is_repeated() {
        let list = |names: &[&str]| json!({"list": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        let live = list(&["a", "x", "b", "y"]);
        let merged = merge(&schema(), &live, &list(&["b", "n", "a", "m"]));
        assert_eq!(merged, list(&["b", "x", "n", "a", "y", "m"]));
        assert_eq!(merge(&schema(), &merged, &list(&["b", "n", "a", "m"])), merged);
        assert_eq!(merge(&schema(), &merged, &list(&["y"])), merged, "who names one item moves none");
    }

    #[test]
    fn what_is_applied_as_empty_takes_nothing_away() {
        let live = json!({"list": [{"name": "i"}], "set": ["m"], "map": {"k": "v"}, "atomic": ["x"]});
        for empty in [json!({"list": [], "set": [], "map": {}}), json!({"list": null, "set": null, "map": null})] {
            assert_eq!(merge(&schema(), &live, &empty), live);
        }
        assert_eq!(merge(&schema(), &live, &json!({"atomic": []}))["atomic"], json!([]), "one value is replaced");
    }

    #[test]
    fn removing_takes_emptied_parents_along() {
        let object = json!({"a": "1", "list": [{"name": "i", "x": 1}, {"name": "j"}], "map": {"k": "v"}});
        let set = FieldSet::from_json(
            &json!({"f:map": {"f:k": {}}, "f:list": {"k:{\"name\":\"i\"}": {".": {}, "f:name": {}, "f:x": {}}}}),
        );
        let left = remove(&schema(), &object, &set.expect("valid"));
        assert_eq!(left, Some(json!({"a": "1", "list": [{"name": "j"}]})));
    }

    #[test]
    fn ambiguous_lists_are_reported() {
        let object = json!({"list": [{"x": 1}, {"name": "a"}, {"name": "a"}], "set": ["m", "m"]});
        assert_eq!(ambiguities(&schema(), &object, "").len(), 3);
    }
}
