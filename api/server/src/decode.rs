//! Reads JSON and YAML bodies and notices keys that occur twice, which serde_json would drop silently.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels of lists and objects within each other that an object may have. No kind needs half of it. What is stored has
/// up to five levels more (`managedFields` repeats the object's own), and the reader of the store stops at 128: an object
/// that is written must be readable again.
pub(crate) const DEPTH_MAX: usize = 100;

/// Levels of lists and objects of a value; 0 for a scalar. Stops counting above [`DEPTH_MAX`], so it never goes deep
/// itself.
pub(crate) fn depth(value: &Value) -> usize {
    fn count(value: &Value, left: usize) -> usize {
        let deepest = match value {
            _ if left == 0 => return 0,
            Value::Array(list) => list.iter().map(|value| count(value, left - 1)).max(),
            Value::Object(map) => map.values().map(|value| count(value, left - 1)).max(),
            _ => return 0,
        };
        1 + deepest.unwrap_or(0)
    }
    count(value, DEPTH_MAX + 1)
}

/// The error about a value that has more levels than are allowed.
pub(crate) fn too_deep() -> String {
    format!("lists and objects are nested more than {DEPTH_MAX} levels deep")
}

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    /// The content; of a key that occurs twice the last value.
    pub(crate) value: Value,
    /// Paths of the fields that occur twice, e.g. `spec.state`.
    pub(crate) duplicates: Vec<String>,
}

/// Decodes a body. The error says what is wrong and where.
pub(crate) fn decode(body: &[u8], yaml: bool) -> Result<Decoded, String> {
    let duplicates = RefCell::new(Vec::new());
    let seed = Seed { path: String::new(), duplicates: &duplicates };
    let value = if yaml {
        let text = std::str::from_utf8(body).map_err(|e| format!("the body is not UTF-8: {e}"))?;
        let mut documents = serde_yaml::Deserializer::from_str(text);
        let Some(first) = documents.next() else { return Err("the body is empty".into()) };
        let value = seed.deserialize(first).map_err(|e| format!("the body is not valid YAML: {e}"))?;
        if documents.next().is_some() {
            return Err("the body holds several YAML documents; send one object per request".into());
        }
        value
    } else {
        let mut json = serde_json::Deserializer::from_slice(body);
        let value = seed.deserialize(&mut json).map_err(|e| format!("the body is not valid JSON: {e}"))?;
        json.end().map_err(|e| format!("the body is not valid JSON: {e}"))?;
        value
    };
    if depth(&value) > DEPTH_MAX {
        return Err(format!("the body is not valid: {}", too_deep()));
    }
    Ok(Decoded { value, duplicates: duplicates.into_inner() })
}

struct Seed<'a> {
    path: String,
    duplicates: &'a RefCell<Vec<String>>,
}

impl Seed<'_> {
    fn below(&self, step: &str) -> Seed<'_> {
        let dot = if self.path.is_empty() || step.starts_with('[') { "" } else { "." };
        Seed { path: format!("{}{dot}{step}", self.path), duplicates: self.duplicates }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can express")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below(&format!("[{}]", list.len())))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let below = self.below(&key);
            if map.contains_key(&key) {
                self.duplicates.borrow_mut().push(below.path.clone());
            }
            let value = entries.next_value_seed(below)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A map key; YAML's numbers and booleans become texts, as the YAML→JSON conversion of other clients does.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a text")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_found_with_their_path() {
        let json = br#"{"spec":{"a":1,"a":2,"list":[{"b":1,"b":2}]}}"#;
        let decoded = decode(json, false).expect("valid");
        assert_eq!(decoded.value, json!({"spec": {"a": 2, "list": [{"b": 2}]}}));
        assert_eq!(decoded.duplicates, ["spec.a", "spec.list[0].b"]);
        let yaml = b"spec:\n  a: 1\n  1: x\n  n: ~\n  t: 2026-03-02T01:00:00Z\n";
        assert_eq!(
            decode(yaml, true).expect("valid").value,
            json!({"spec": {"a": 1, "1": "x", "n": null, "t": "2026-03-02T01:00:00Z"}})
        );
    }

    #[test]
    fn broken_bodies_are_refused() {
        assert!(decode(b"{\"a\":1} x", false).is_err());
        assert!(decode(b"{", false).is_err());
        assert!(decode(b"a: 1\n---\nb: 2\n", true).is_err());
        assert!(decode(b"a: [", true).is_err());
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(decode(nested(DEPTH_MAX).as_bytes(), false).is_ok());
        for (levels, yaml) in [(DEPTH_MAX + 1, false), (DEPTH_MAX + 1, true), (100_000, false), (100_000, true)] {
            assert!(decode(nested(levels).as_bytes(), yaml).is_err(), "{levels} levels");
        }
    }
}
