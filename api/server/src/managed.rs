//! Who set which field: keeps `metadata.managedFields` on every write. Pure; the time is an argument.
//!
//! One entry per manager, operation, version and subresource. A write of the Update kind takes over what it changes; an
//! apply owns exactly what it names and must not change what others own, unless it is forced to.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::Cause;
use crate::fieldset::FieldSet;
use crate::object::{metadata_mut, rfc3339};
use crate::prepare::Endpoint;
use crate::registry::ResourceDef;
use crate::typed;

/// Entries of Update managers that are kept; older ones are folded into one.
const UPDATERS_MAX: usize = 10;
/// The manager that folded entries belong to.
const ANCIENT: &str = "ancient-changes";
/// The name of a manager that gives none.
const UNKNOWN: &str = "unknown";

/// Fields that nobody owns.
static UNTRACKED: LazyLock<FieldSet> = LazyLock::new(|| {
    let set = json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {
            "f:name": {}, "f:namespace": {}, "f:uid": {}, "f:resourceVersion": {}, "f:generation": {},
            "f:creationTimestamp": {}, "f:deletionTimestamp": {}, "f:deletionGracePeriodSeconds": {}, "f:selfLink": {},
            "f:managedFields": {},
        },
    });
    FieldSet::from_json(&set).unwrap_or_default()
});

/// The schema of metadata, as far as objects are merged by it.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    json!({"type": "object", "properties": {
        "name": {"type": "string"}, "generateName": {"type": "string"}, "namespace": {"type": "string"},
        "uid": {"type": "string"}, "resourceVersion": {"type": "string"}, "generation": {"type": "integer"},
        "creationTimestamp": {"type": "string"}, "deletionTimestamp": {"type": "string"},
        "deletionGracePeriodSeconds": {"type": "integer"}, "selfLink": {"type": "string"},
        "managedFields": {"type": "array"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"uid": {"type": "string"}}}},
    }})
});

/// The schema by which a kind's objects are merged: its own with metadata filled in.
pub(crate) fn merge_schema(schema: &Value) -> Value {
    let mut schema = if schema.is_object() { schema.clone() } else { json!({"type": "object"}) };
    schema["properties"]["metadata"] = METADATA.clone();
    for field in ["apiVersion", "kind"] {
        schema["properties"][field] = json!({"type": "string"});
    }
    schema
}

/// Who writes, and how.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    /// Manager, as `fieldManager` or the User-Agent names it.
    pub(crate) manager: String,
    /// Endpoint of the write.
    pub(crate) endpoint: Endpoint,
    /// Version of the request, `group/version`.
    pub(crate) api_version: String,
}

impl Writer {
    /// A writer; without a given manager it is the User-Agent up to the first slash.
    pub(crate) fn new(given: &str, user_agent: &str, endpoint: Endpoint, api_version: String) -> Writer {
        let agent: String =
            user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect();
        let manager = [given, agent.as_str(), UNKNOWN].into_iter().find(|name| !name.is_empty()).unwrap_or(UNKNOWN);
        Writer { manager: manager.into(), endpoint, api_version }
    }

    fn subresource(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Main => "",
            Endpoint::Status => "status",
            Endpoint::Finalize => "finalize",
            Endpoint::Token => "token",
            Endpoint::Approval => "approval",
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    manager: String,
    apply: bool,
    api_version: String,
    subresource: String,
    time: String,
    set: FieldSet,
}

impl Entry {
    fn is_of(&self, writer: &Writer, apply: bool) -> bool {
        self.manager == writer.manager
            && self.apply == apply
            && self.subresource == writer.subresource()
            && (apply || self.api_version == writer.api_version)
    }

    fn read(value: &Value) -> Option<Entry> {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let apply = match value["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let set = FieldSet::from_json(&value["fieldsV1"])?;
        let entry = Entry {
            manager: text("manager"),
            apply,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            set,
        };
        (!entry.api_version.is_empty() && !entry.set.is_empty()).then_some(entry)
    }

    fn write(&self) -> Value {
        let mut out = json!({
            "manager": self.manager, "operation": if self.apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version, "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.set.to_json(),
        });
        if !self.subresource.is_empty() {
            out["subresource"] = self.subresource.clone().into();
        }
        out
    }

    /// The owner as conflicts name it.
    fn owner(&self) -> String {
        let mut owner = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            owner += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.apply {
            owner += &format!(" using {}", self.api_version);
        }
        owner
    }
}

/// The entries of an object; what can't be read is left out.
pub(crate) fn entries(object: &Value) -> Vec<Entry> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Entry::read).collect()
}

/// True if two states of an object differ in nothing but the times of their entries: a write of that is none.
pub(crate) fn same_but_times(old: &Value, new: &Value) -> bool {
    let entry = |old: &Value, new: &Value| same_but(old, new, "time", |_, _| true);
    // The entries are sorted by time, so equal ones need not be at the same place.
    let entries = |old: &Value, new: &Value| match (old.as_array(), new.as_array()) {
        (Some(old), Some(new)) => old.len() == new.len() && old.iter().all(|old| new.iter().any(|new| entry(old, new))),
        _ => old == new,
    };
    same_but(old, new, "metadata", |old, new| same_but(old, new, "managedFields", entries))
}

/// True if two objects are the same, with its own comparison for one field.
fn same_but(old: &Value, new: &Value, field: &str, within: impl Fn(&Value, &Value) -> bool) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    let same = |name: &str, old: &Value, new: &Value| if name == field { within(old, new) } else { old == new };
    old.len() == new.len() && old.iter().all(|(name, old)| new.get(name).is_some_and(|new| same(name, old, new)))
}

fn store(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.set.is_empty());
    entries.sort_by(|a, b| (!a.apply, &a.time, &a.manager).cmp(&(!b.apply, &b.time, &b.manager)));
    let metadata = metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.iter().map(Entry::write).collect());
    }
}

/// Takes the entries out of an object, in their wire form.
pub(crate) fn taken(object: &mut Value) -> Option<Value> {
    metadata_mut(object).remove("managedFields")
}

/// What a client that edits `managedFields` by itself wants: none if it leaves them alone.
pub(crate) fn edited(old: &Value, new: &Value) -> Option<Vec<Entry>> {
    let given = new.pointer("/metadata/managedFields")?;
    (Some(given) != old.pointer("/metadata/managedFields")).then(|| entries(new))
}

/// The fields of a set that a write through this endpoint can own.
fn tracked(set: &FieldSet, def: &ResourceDef, endpoint: Endpoint) -> FieldSet {
    let set = set.without_below(&UNTRACKED);
    match endpoint {
        Endpoint::Status | Endpoint::Approval => set.restricted("status", true),
        Endpoint::Main if def.status_subresource => set.restricted("status", false),
        Endpoint::Main | Endpoint::Finalize | Endpoint::Token => set,
    }
}

/// Keeps the entries over a write of the Update kind. `old` is null for a new object; `edited` are entries that the
/// client itself put in.
pub(crate) fn update(
    def: &ResourceDef,
    writer: &Writer,
    old: &Value,
    new: &mut Value,
    edited: Option<Vec<Entry>>,
    now: Timestamp,
) {
    let cleared = edited.as_ref().is_some_and(Vec::is_empty);
    let mut list = edited.unwrap_or_else(|| entries(old));
    if cleared {
        store(new, list);
        return;
    }
    let schema = &def.merge_schema;
    let endpoint = if old.is_null() { Endpoint::Main } else { writer.endpoint };
    let changed = tracked(&typed::changed(schema, old, new), def, endpoint);
    let vanished = match old {
        Value::Null => FieldSet::default(),
        old => typed::fields(schema, old).difference(&typed::fields(schema, new)),
    };
    if changed.is_empty() && vanished.is_empty() {
        store(new, list);
        return;
    }
    let lost = changed.union(&vanished);
    let mut mine = None;
    for (at, entry) in list.iter_mut().enumerate() {
        if entry.is_of(writer, false) {
            mine = Some(at);
            entry.set = entry.set.difference(&vanished).union(&changed);
            entry.time = rfc3339(now);
        } else {
            entry.set = entry.set.difference(&lost);
        }
    }
    if mine.is_none() && !changed.is_empty() {
        list.push(Entry {
            manager: writer.manager.clone(),
            apply: false,
            api_version: writer.api_version.clone(),
            subresource: writer.subresource().into(),
            time: rfc3339(now),
            set: changed,
        });
    }
    fold(&mut list);
    store(new, list);
}

/// Folds the oldest Update entries into one when there are too many.
fn fold(list: &mut Vec<Entry>) {
    list.retain(|entry| !entry.set.is_empty());
    let updaters = list.iter().filter(|entry| !entry.apply).count();
    if updaters <= UPDATERS_MAX {
        return;
    }
    list.sort_by(|a, b| (a.apply, a.manager != ANCIENT, &a.time).cmp(&(b.apply, b.manager != ANCIENT, &b.time)));
    let surplus = updaters - UPDATERS_MAX + 1;
    let folded: Vec<Entry> = list.drain(..surplus).collect();
    let Some(last) = folded.last() else { return };
    let set = folded.iter().fold(FieldSet::default(), |set, entry| set.union(&entry.set));
    list.insert(0, Entry { manager: ANCIENT.into(), subresource: String::new(), set, ..last.clone() });
}

/// Keeps the entries over a change that the server makes by itself.
pub(crate) fn by_server(
    def: &ResourceDef,
    manager: &str,
    endpoint: Endpoint,
    old: &Value,
    new: &mut Value,
    now: Timestamp,
) {
    let writer = Writer { manager: manager.into(), endpoint, api_version: def.api_version() };
    update(def, &writer, old, new, None, now);
}

/// What an apply comes to.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The object with the configuration merged in, with its entries.
    pub(crate) object: Value,
    /// What others own and the configuration would change; empty if forced.
    pub(crate) conflicts: Vec<Cause>,
}

/// Merges a configuration into an object on behalf of its manager. `live` is null if there is none yet.
pub(crate) fn apply(
    def: &ResourceDef,
    writer: &Writer,
    live: &Value,
    config: &Value,
    force: bool,
    now: Timestamp,
) -> Applied {
    let schema = &def.merge_schema;
    let named = tracked(&typed::fields(schema, config), def, writer.endpoint);
    let mut list = entries(live);
    let before = list.iter().position(|entry| entry.is_of(writer, true)).map(|at| list.remove(at));
    let mut object = if live.is_null() { config.clone() } else { typed::merge(schema, live, config) };

    // What the manager no longer names goes, unless somebody else has it, too.
    let owned = list.iter().fold(named.clone(), |set, entry| set.union(&entry.set));
    let given_up = before.as_ref().map(|entry| entry.set.difference(&owned)).unwrap_or_default();
    if !given_up.is_empty() {
        let keeps_items = given_up.without_items_of(&owned);
        if let Some(left) = typed::remove(schema, &object, &keeps_items) {
            // An object that is named as empty stays as such when what was in it is given up.
            object = typed::merge(schema, &left, config);
        }
    }
    let changed = typed::changed(schema, live, &object).intersection(&named);
    let mut conflicts = Vec::new();
    for entry in &mut list {
        let disputed = entry.set.intersection(&changed);
        if disputed.is_empty() {
            continue;
        }
        if force {
            entry.set = entry.set.difference(&disputed);
            continue;
        }
        let message = format!("conflict with {}", entry.owner());
        conflicts.extend(disputed.paths().into_iter().map(|field| Cause {
            reason: "FieldManagerConflict".into(),
            message: message.clone(),
            field,
        }));
    }
    let same = before.as_ref().is_some_and(|entry| entry.set == named && entry.api_version == writer.api_version);
    let time = match &before {
        Some(entry) if same && changed.is_empty() && given_up.is_empty() => entry.time.clone(),
        _ => rfc3339(now),
    };
    list.push(Entry {
        manager: writer.manager.clone(),
        apply: true,
        api_version: writer.api_version.clone(),
        subresource: writer.subresource().into(),
        time,
        set: named,
    });
    store(&mut object, list);
    Applied { object, conflicts }
}

/// The message of a refused apply.
pub(crate) fn conflict_message(conflicts: &[Cause]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", one.message, one.field);
    }
    let mut text = format!("Apply failed with {} conflicts:", conflicts.len());
    let mut owner = "";
    for conflict in conflicts {
        if conflict.message != owner {
            owner = &conflict.message;
            text += &format!(" {}:", owner.replacen("conflict", "conflicts", 1));
        }
        text += &format!("\n- {}", conflict.field);
    }
    text
}
