//! What is served: one [`ResourceDef`] per resource, built from CustomResourceDefinition JSON, also for built-ins.
//!
//! Nothing here knows HTTP, the store or a particular kind; the built-ins' peculiarities are flags of the definition.

pub(crate) mod events;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::schema::Rules;
use serde_json::{Value, json};

use crate::error::Target;
use crate::jsonpath::JsonPath;
use crate::managed;

/// The built-in kinds, in the shape of CustomResourceDefinitions, one YAML document each.
const BUILTIN: &str = include_str!("builtin.yaml");

/// How long an Event lives after its newest write; the same as on a stock server.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// How long a request for a certificate lives after its newest write, signed or not; those that a stock server lets wait
/// live as long.
const REQUEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// A column of a Table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// OpenAPI format, may be empty.
    pub format: String,
    /// What the column shows.
    pub description: String,
    /// 0: always shown; larger: only with `-o wide`.
    pub priority: i64,
    /// Where the value is.
    pub path: JsonPath,
}

/// How a resource is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Stored as served.
    Stored,
    /// events.k8s.io/v1, a view of the stored core/v1 Event.
    EventView,
    /// Answered on creation and never stored.
    Review,
}

/// One served resource.
#[derive(Debug, Clone)]
pub struct ResourceDef {
    /// API group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of a list, usually `KIND` + `List`.
    pub list_kind: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories, e.g. `holdfast`.
    pub categories: Vec<String>,
    /// False: objects are cluster-scoped.
    pub namespaced: bool,
    /// Structural schema (`openAPIV3Schema`) of the whole object.
    pub schema: Value,
    /// The schema by which objects are merged: that of the whole object, metadata included.
    pub(crate) merge_schema: Value,
    /// The rules of the schema, compiled.
    pub rules: Arc<Rules>,
    /// True if `/status` exists and the main endpoint ignores `status`.
    pub status_subresource: bool,
    /// Printer columns after `Name`.
    pub columns: Vec<Column>,
    /// Fields usable in `fieldSelector` beside name and namespace.
    pub selectable_fields: BTreeMap<String, JsonPath>,
    /// Verbs of the main endpoint.
    pub verbs: Vec<String>,
    /// How it is kept.
    pub form: Form,
    /// True if `metadata.generation` is counted: the kinds that are custom resources elsewhere.
    pub generation: bool,
    /// Objects vanish by themselves this long after their newest write.
    pub ttl: Option<Duration>,
}

/// Why a definition can't be served.
#[derive(Debug, thiserror::Error)]
#[error("the definition of {name} can't be served: {why}")]
pub struct DefinitionError {
    name: String,
    why: String,
}

impl ResourceDef {
    /// Reads a CustomResourceDefinition in its JSON form; the served version that is stored is taken.
    pub fn from_crd(crd: &Value) -> Result<ResourceDef, DefinitionError> {
        let spec = &crd["spec"];
        let name = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
        let fail = |why: String| DefinitionError { name: name.clone(), why };
        let version = spec["versions"]
            .as_array()
            .and_then(|versions| versions.iter().find(|v| v["storage"] == true))
            .ok_or_else(|| fail("no version is marked as stored".into()))?;
        let kind = text(&spec["names"]["kind"]);
        if kind.is_empty() || text(&spec["names"]["plural"]).is_empty() {
            return Err(fail("spec.names.kind and spec.names.plural are required".into()));
        }
        let path = |value: &Value| JsonPath::parse(&text(value)).map_err(|e| fail(e.to_string()));
        let mut columns = Vec::new();
        for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
            columns.push(Column {
                name: text(&column["name"]),
                kind: text(&column["type"]),
                format: text(&column["format"]),
                description: text(&column["description"]),
                priority: column["priority"].as_i64().unwrap_or(0),
                path: path(&column["jsonPath"])?,
            });
        }
        if columns.is_empty() {
            columns.push(Column {
                name: "Age".into(),
                kind: "date".into(),
                format: String::new(),
                description: "Time since the object was created.".into(),
                priority: 0,
                path: path(&json!(".metadata.creationTimestamp"))?,
            });
        }
        let mut selectable_fields = BTreeMap::new();
        for field in version["selectableFields"].as_array().into_iter().flatten() {
            let name = text(&field["jsonPath"]).trim_start_matches('.').to_owned();
            selectable_fields.insert(name, path(&field["jsonPath"])?);
        }
        let or = |value: &Value, other: String| if text(value).is_empty() { other } else { text(value) };
        Ok(ResourceDef {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&spec["names"]["plural"]),
            singular: or(&spec["names"]["singular"], kind.to_lowercase()),
            list_kind: or(&spec["names"]["listKind"], format!("{kind}List")),
            kind,
            short_names: texts(&spec["names"]["shortNames"]),
            categories: texts(&spec["names"]["categories"]),
            namespaced: spec["scope"] != "Cluster",
            merge_schema: managed::merge_schema(&version["schema"]["openAPIV3Schema"]),
            rules: Arc::new(Rules::compile(&version["schema"]["openAPIV3Schema"])),
            schema: version["schema"]["openAPIV3Schema"].clone(),
            status_subresource: version["subresources"]["status"].is_object(),
            columns,
            selectable_fields,
            verbs: ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
                .map(str::to_owned)
                .to_vec(),
            form: Form::Stored,
            generation: true,
            ttl: None,
        })
    }

    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What an error about object `name` refers to.
    pub(crate) fn target<'a>(&'a self, name: &'a str) -> Target<'a> {
        Target { group: &self.group, plural: &self.plural, kind: &self.kind, name }
    }

    /// Prefix of the keys of all objects, with a slash at the end. Views share the prefix of what they show.
    pub fn prefix(&self) -> String {
        let group = if self.group.is_empty() || self.form == Form::EventView { "core" } else { &self.group };
        format!("/registry/{group}/{}/", self.plural)
    }

    /// Key of one object; `namespace` is empty for cluster-scoped kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix())
        } else {
            format!("{}{name}", self.prefix())
        }
    }

    /// True for kinds of Kubernetes itself, whose Go types kubectl knows: strategic merge patches come for them.
    pub fn is_builtin(&self) -> bool {
        !self.generation
    }

    /// Subresources that can be written, beside the main endpoint.
    pub fn subresources(&self) -> Vec<&'static str> {
        let mut list = Vec::new();
        if self.is_namespace() {
            list.push("finalize");
        }
        if self.group.is_empty() && self.plural == "serviceaccounts" {
            list.push("token");
        }
        if crate::certificates::is_request(self) {
            list.push("approval");
        }
        if self.status_subresource {
            list.push("status");
        }
        list
    }

    /// True for core/v1 Namespace.
    pub fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }

    /// From the stored form to the served one.
    pub fn present(&self, stored: Value) -> Value {
        match self.form {
            Form::EventView => events::to_view(&stored),
            Form::Stored | Form::Review => stored,
        }
    }

    /// As [`ResourceDef::present`], to look at.
    pub(crate) fn shown<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        match self.form {
            Form::EventView => Cow::Owned(events::to_view(stored)),
            Form::Stored | Form::Review => Cow::Borrowed(stored),
        }
    }

    /// From the served form to the stored one.
    pub fn absorb(&self, served: Value) -> Value {
        match self.form {
            Form::EventView => events::to_core(served),
            Form::Stored | Form::Review => served,
        }
    }

    /// Value of a field for `fieldSelector`; none if the kind does not offer the field.
    pub fn field(&self, object: &Value, field: &str) -> Option<String> {
        let found = match field {
            "metadata.name" => object.pointer("/metadata/name"),
            "metadata.namespace" if self.namespaced => object.pointer("/metadata/namespace"),
            other => self.selectable_fields.get(other)?.first(object),
        };
        Some(match found {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        })
    }

    /// True if `fieldSelector` may name the field.
    pub fn has_field(&self, field: &str) -> bool {
        field == "metadata.name"
            || (self.namespaced && field == "metadata.namespace")
            || self.selectable_fields.contains_key(field)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// All served resources, in the order of discovery.
#[derive(Debug, Clone)]
pub struct Registry {
    defs: Vec<Arc<ResourceDef>>,
}

impl Registry {
    /// The built-ins and the kinds that `crds` define.
    pub fn new(crds: &[Value]) -> Result<Registry, DefinitionError> {
        let mut defs = Vec::new();
        for document in serde_yaml::Deserializer::from_str(BUILTIN) {
            let value: Value = serde::Deserialize::deserialize(document)
                .map_err(|e| DefinitionError { name: "a built-in kind".into(), why: e.to_string() })?;
            defs.push(builtin(ResourceDef::from_crd(&value)?, &value));
        }
        for crd in crds {
            defs.push(ResourceDef::from_crd(crd)?);
        }
        Ok(Registry { defs: defs.into_iter().map(Arc::new).collect() })
    }

    /// Takes the built-in kinds away whose plural is not named.
    pub(crate) fn keep(&mut self, plurals: &[&str]) {
        self.defs.retain(|def| !def.is_builtin() || plurals.contains(&def.plural.as_str()));
    }

    /// Everything that is served.
    pub fn all(&self) -> &[Arc<ResourceDef>] {
        &self.defs
    }

    /// What is stored: without reviews and views.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.defs.iter().filter(|def| def.form == Form::Stored)
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<ResourceDef>> {
        self.defs.iter().find(|d| d.group == group && d.version == version && d.plural == plural)
    }

    /// The resource of an `apiVersion` and `kind`, as owner references name it.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<ResourceDef>> {
        let (group, _) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.defs.iter().find(|d| d.group == group && d.kind == kind)
    }

    /// Group names with their versions, core group first as the empty name.
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for def in &self.defs {
            let versions = groups.entry(&def.group).or_default();
            if !versions.contains(&def.version.as_str()) {
                versions.push(&def.version);
            }
        }
        groups
    }
}

/// Applies the flags that a built-in's definition carries beside the CRD's own fields.
fn builtin(mut def: ResourceDef, document: &Value) -> ResourceDef {
    def.generation = false;
    match document["x-form"].as_str() {
        Some("EventView") => def.form = Form::EventView,
        Some("Review") => {
            def.form = Form::Review;
            def.verbs = vec!["create".into()];
        }
        _ => {}
    }
    if def.plural == "events" {
        def.ttl = Some(EVENT_TTL);
    }
    if crate::certificates::is_request(&def) {
        def.ttl = Some(REQUEST_TTL);
    }
    if def.is_namespace() {
        // A stock server offers no deletecollection on namespaces either.
        def.verbs.retain(|verb| verb != "deletecollection");
    }
    def
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_definitions_are_complete() {
        let registry = Registry::new(&[]).expect("the built-ins are valid");
        for (group, version, plural) in [
            ("", "v1", "namespaces"),
            ("", "v1", "events"),
            ("", "v1", "secrets"),
            ("", "v1", "configmaps"),
            ("", "v1", "serviceaccounts"),
            ("authentication.k8s.io", "v1", "tokenreviews"),
            ("certificates.k8s.io", "v1", "certificatesigningrequests"),
            ("events.k8s.io", "v1", "events"),
            ("coordination.k8s.io", "v1", "leases"),
            ("authentication.k8s.io", "v1", "selfsubjectreviews"),
            ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
            ("authorization.k8s.io", "v1", "selfsubjectrulesreviews"),
            ("authorization.k8s.io", "v1", "subjectaccessreviews"),
            ("authorization.k8s.io", "v1", "localsubjectaccessreviews"),
            ("rbac.authorization.k8s.io", "v1", "roles"),
            ("rbac.authorization.k8s.io", "v1", "rolebindings"),
            ("rbac.authorization.k8s.io", "v1", "clusterroles"),
            ("rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
        ] {
            let def = registry.find(group, version, plural).unwrap_or_else(|| panic!("{plural}.{group}"));
            assert_eq!(def.schema["type"], "object", "{plural}.{group}");
            assert!(def.is_builtin());
        }
    }
}
