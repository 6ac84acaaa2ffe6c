//! An object as the caches keep it: its text, which is what most clients want, and what is asked of all objects again and
//! again. As a tree it would need five times as much memory, and time with every answer.

use std::sync::OnceLock;

use bytes::Bytes;
use holdfast_store::Entry;
use serde_json::{Map, Value};

use crate::object::{Object, set_revision};
use crate::registry::{Form, ResourceDef};

/// What of `metadata` stands in [`Kept::head`].
const HEAD: [&str; 8] =
    ["name", "namespace", "uid", "labels", "ownerReferences", "finalizers", "deletionTimestamp", "resourceVersion"];

/// An object in a cache.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Key in the store.
    pub(crate) key: String,
    /// Revision of the newest write.
    pub(crate) revision: u64,
    /// The stored form, with `metadata.resourceVersion`, as compact JSON.
    pub(crate) json: Bytes,
    /// An object with the part of `metadata` by which objects are found, owned and collected, and nothing else.
    pub(crate) head: Value,
    /// Whether the collector may have to do with it: it has an owner, or is being deleted.
    pub(crate) bound: bool,
    /// The selectable fields, in the order of the definition.
    fields: Box<[String]>,
    tree: OnceLock<Value>,
}

impl Kept {
    /// What the store holds, see [`Object::decode`].
    pub(crate) fn decode(def: &ResourceDef, entry: &Entry) -> Result<Kept, String> {
        Object::decode(def, entry).map(|object| Kept::of(def, &object))
    }

    /// The kept form of an object of this kind in its stored form.
    pub(crate) fn of(def: &ResourceDef, object: &Object) -> Kept {
        let mut head = Map::new();
        for field in HEAD {
            if let Some(value) = object.value["metadata"].get(field) {
                head.insert(field.to_owned(), value.clone());
            }
        }
        let bound = head.contains_key("ownerReferences") || head.contains_key("deletionTimestamp");
        let field = |field: &String| def.field(&object.value, field).unwrap_or_default();
        Kept {
            key: object.key.clone(),
            revision: object.revision,
            json: object.value.to_string().into(),
            head: Value::Object(Map::from_iter([("metadata".to_owned(), Value::Object(head))])),
            bound,
            fields: def.selectable_fields.keys().map(field).collect(),
            tree: OnceLock::new(),
        }
    }

    /// The object in its stored form.
    pub(crate) fn value(&self) -> Value {
        // It is our own text: written from a tree.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// As [`Kept::value`], kept from then on: for the few objects that every request asks.
    pub(crate) fn tree(&self) -> &Value {
        self.tree.get_or_init(|| self.value())
    }

    /// The same state with another revision: what a watch shows for a deletion.
    pub(crate) fn at(&self, revision: u64) -> Value {
        let mut value = self.value();
        set_revision(&mut value, revision);
        value
    }

    /// Value of a field for `fieldSelector`, empty if the object does not have it; `def` is that of the stored form.
    pub(crate) fn field(&self, def: &ResourceDef, field: &str) -> String {
        match def.selectable_fields.keys().position(|known| known == field) {
            Some(at) => self.fields.get(at).cloned().unwrap_or_default(),
            None => def.field(&self.head, field).unwrap_or_default(),
        }
    }

    /// The text that clients of this kind are shown: what is kept, unless they see another view of it.
    pub(crate) fn served(&self, def: &ResourceDef) -> Option<Bytes> {
        (def.form == Form::Stored).then(|| self.json.clone())
    }
}
