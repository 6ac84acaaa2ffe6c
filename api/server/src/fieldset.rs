//! Sets of fields, as `managedFields` keeps them (`FieldsV1`). Pure; what the fields of an object are is `typed`'s.
//!
//! A set is a tree. The steps are texts in the wire's own spelling: `f:NAME` for a field, `k:{"key":"value"}` for an
//! item of a list with keys, `v:VALUE` for a member of a set.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A node: whether it is itself in the set, and what is below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// The node itself is in the set.
    pub(crate) member: bool,
    /// Nodes below by step.
    pub(crate) below: BTreeMap<String, FieldSet>,
}

/// The step to a field.
pub(crate) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The step to an item of a list with keys.
pub(crate) fn item(keys: &BTreeMap<&str, &Value>) -> String {
    format!("k:{}", json!(keys))
}

/// The step to a member of a set.
pub(crate) fn value(value: &Value) -> String {
    format!("v:{value}")
}

impl FieldSet {
    /// A set of just this node.
    pub(crate) fn leaf() -> FieldSet {
        FieldSet { member: true, below: BTreeMap::new() }
    }

    /// True if nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.values().all(FieldSet::is_empty)
    }

    /// Puts a set below a step; an empty one leaves no trace.
    pub(crate) fn put(&mut self, step: String, below: FieldSet) {
        if !below.is_empty() {
            self.below.insert(step, below);
        }
    }

    /// What is in either.
    pub(crate) fn union(&self, other: &FieldSet) -> FieldSet {
        let mut out = self.clone();
        out.add(other);
        out
    }

    fn add(&mut self, other: &FieldSet) {
        self.member |= other.member;
        for (step, more) in &other.below {
            match self.below.get_mut(step) {
                Some(below) => below.add(more),
                None => self.put(step.clone(), more.clone()),
            }
        }
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet { member: self.member && other.member, below: BTreeMap::new() };
        for (step, below) in &self.below {
            if let Some(other) = other.below.get(step) {
                out.put_with(step, below.intersection(other));
            }
        }
        out
    }

    /// What is in this one and not in the other.
    pub(crate) fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet { member: self.member && !other.member, below: BTreeMap::new() };
        for (step, below) in &self.below {
            match other.below.get(step) {
                Some(other) => out.put_with(step, below.difference(other)),
                None => out.put_with(step, below.clone()),
            }
        }
        out
    }

    /// As [`FieldSet::put`], with a copy of the step only where it is needed.
    fn put_with(&mut self, step: &str, below: FieldSet) {
        if !below.is_empty() {
            self.below.insert(step.to_owned(), below);
        }
    }

    /// The set without everything at and below the places that `other` has.
    pub(crate) fn without_below(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet { member: self.member, below: BTreeMap::new() };
        for (step, below) in &self.below {
            match other.below.get(step) {
                Some(cut) if cut.member => {}
                Some(cut) => out.put(step.clone(), below.without_below(cut)),
                None => out.put(step.clone(), below.clone()),
            }
        }
        out
    }

    /// The set without the nodes (not what is below them) that `owned` still has something below: an item of which
    /// somebody owns a leaf stays.
    pub(crate) fn without_items_of(&self, owned: &FieldSet) -> FieldSet {
        let mut out = FieldSet { member: self.member && owned.is_empty(), below: BTreeMap::new() };
        let empty = FieldSet::default();
        for (step, below) in &self.below {
            out.put(step.clone(), below.without_items_of(owned.below.get(step).unwrap_or(&empty)));
        }
        out
    }

    /// Only what is below one top-level field, or everything but that.
    pub(crate) fn restricted(&self, name: &str, inside: bool) -> FieldSet {
        let mut out = FieldSet::default();
        for (step, below) in &self.below {
            if (*step == field(name)) == inside {
                out.put(step.clone(), below.clone());
            }
        }
        out
    }

    /// All places of the set, as people read them: `.spec.list[name="a"].leaf`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(String::new(), &mut out);
        out
    }

    fn collect(&self, path: String, out: &mut Vec<String>) {
        for (step, below) in &self.below {
            below.collect(format!("{path}{}", readable(step)), out);
        }
        if self.member {
            out.push(path);
        }
    }

    /// The wire form.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (step, below) in &self.below {
            map.insert(step.clone(), below.to_json());
        }
        Value::Object(map)
    }

    /// Reads the wire form; none if it is not one.
    pub(crate) fn from_json(value: &Value) -> Option<FieldSet> {
        let map = value.as_object()?;
        let mut out = FieldSet { member: map.is_empty() || map.contains_key("."), below: BTreeMap::new() };
        for (step, below) in map.iter().filter(|(step, _)| *step != ".") {
            if !step.starts_with("f:") && !step.starts_with("k:") && !step.starts_with("v:") {
                return None;
            }
            out.below.insert(step.clone(), FieldSet::from_json(below)?);
        }
        Some(out)
    }
}

fn readable(step: &str) -> String {
    match step.split_at(2) {
        ("f:", name) => format!(".{name}"),
        ("k:", keys) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        (_, value) => format!("[={value}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_the_wire_and_combine() {
        let wire = json!({"f:spec": {"f:list": {"k:{\"name\":\"a\"}": {".": {}, "f:x": {}}}, "f:y": {}}});
        let set = FieldSet::from_json(&wire).expect("valid");
        assert_eq!(set.to_json(), wire);
        assert_eq!(set.paths(), [".spec.list[name=\"a\"].x", ".spec.list[name=\"a\"]", ".spec.y"]);
        let y = FieldSet::from_json(&json!({"f:spec": {"f:y": {}}})).expect("valid");
        assert_eq!(set.intersection(&y), y);
        assert_eq!(set.difference(&y).union(&y), set);
        assert!(y.difference(&set).is_empty());
        assert_eq!(FieldSet::from_json(&json!({"x": {}})), None);
    }
}
