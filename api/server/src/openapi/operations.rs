//! Which paths there are and what can be done at each, in no document's form yet.

use std::sync::Arc;

use super::schemas::{META, group_version_kind, has_list, list_name, name};
use crate::registry::ResourceDef;
use serde_json::Value;

/// A parameter of the query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) name: &'static str,
    /// `string`, `integer` or `boolean`.
    pub(super) kind: &'static str,
    pub(super) description: &'static str,
}

const fn query(name: &'static str, kind: &'static str, description: &'static str) -> Query {
    Query { name, kind, description }
}

const DRY_RUN: Query = query("dryRun", "string", "All: check and answer as if done, but store nothing.");
const MANAGER: Query =
    query("fieldManager", "string", "Name under which the written fields are kept in managedFields.");
const VALIDATION: Query = query(
    "fieldValidation",
    "string",
    "What to do with unknown and duplicate fields: Ignore drops them, Warn (the default) drops them with a warning, \
     Strict refuses the request.",
);
const FORCE: Query =
    query("force", "boolean", "In an apply: take over fields that others manage. Not for other patches.");
const WRITE: &[Query] = &[DRY_RUN, MANAGER, VALIDATION];
const PATCH: &[Query] = &[DRY_RUN, MANAGER, VALIDATION, FORCE];
const GET: &[Query] =
    &[query("resourceVersion", "string", "Oldest state that may be answered; unset: the newest, 0: any.")];
const LABELS: Query = query("labelSelector", "string", "Only objects whose labels match.");
const FIELDS: Query = query("fieldSelector", "string", "Only objects whose fields match.");
const LIST: &[Query] = &[
    query("allowWatchBookmarks", "boolean", "In a watch: send BOOKMARK events with the state reached."),
    query("continue", "string", "Where the next page begins, from the page before."),
    FIELDS,
    LABELS,
    query("limit", "integer", "Most objects on a page."),
    query("resourceVersion", "string", "State to list or to watch from; unset: the newest, 0: any."),
    query("resourceVersionMatch", "string", "How resourceVersion is meant in a list: NotOlderThan or Exact."),
    query("sendInitialEvents", "boolean", "In a watch: send the present objects first, then a bookmark."),
    query("timeoutSeconds", "integer", "Longest duration of a watch, in seconds."),
    query("watch", "boolean", "Send the changes as they happen instead of a list."),
];
const DELETE: &[Query] = &[
    DRY_RUN,
    query("gracePeriodSeconds", "integer", "Accepted for all kinds; objects here have no grace period."),
    query("orphanDependents", "boolean", "Old form of propagationPolicy: true is Orphan."),
    query("propagationPolicy", "string", "What happens to dependents: Background, Foreground or Orphan."),
];
const DELETE_COLLECTION: &[Query] = &[DRY_RUN, FIELDS, LABELS, DELETE[1], DELETE[2], DELETE[3]];

/// Bodies of objects.
const OBJECT: &[&str] = &["application/json", "application/yaml"];
/// Patches of our kinds: without strategic merge, by which kubectl tells how to apply.
const PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const BUILTIN_PATCHES: &[&str] = &[PATCHES[0], PATCHES[1], "application/strategic-merge-patch+json", PATCHES[2]];

/// A path with its operations.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) path: String,
    pub(super) operations: Vec<Operation>,
}

impl Path {
    /// The variable parts of the path.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        [("namespace", "The namespace."), ("name", "Name of the object.")]
            .into_iter()
            .filter(|(name, _)| self.path.contains(&format!("{{{name}}}")))
    }
}

/// One thing that can be done.
#[derive(Debug)]
pub(super) struct Operation {
    /// HTTP method in lower case.
    pub(super) method: &'static str,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    pub(super) query: &'static [Query],
    /// Media types and schema of the body.
    pub(super) body: Option<(&'static [&'static str], String)>,
    /// Codes and schema of the answer.
    pub(super) answers: &'static [(&'static str, &'static str)],
    pub(super) answer: String,
    pub(super) group_version_kind: Value,
}

const OK: &[(&str, &str)] = &[("200", "Done.")];
const OK_OR_CREATED: &[(&str, &str)] = &[("200", "Done."), ("201", "Created.")];
const CREATED: &[(&str, &str)] = &[("201", "Created.")];

/// All paths of a kind.
pub(super) fn paths(def: &Arc<ResourceDef>) -> Vec<Path> {
    let root = match def.group.as_str() {
        "" => format!("/api/{}", def.version),
        group => format!("/apis/{group}/{}", def.version),
    };
    let collection = match def.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", def.plural),
        false => format!("{root}/{}", def.plural),
    };
    let item = format!("{collection}/{{name}}");
    let make = Make { def };
    let mut paths = Vec::new();
    let mut add = |path: String, operations: Vec<Option<Operation>>| {
        let operations: Vec<Operation> = operations.into_iter().flatten().collect();
        if !operations.is_empty() {
            paths.push(Path { path, operations });
        }
    };
    if def.namespaced {
        add(format!("{root}/{}", def.plural), vec![make.list("ForAllNamespaces", "")]);
    }
    let scope = if def.namespaced { "Namespaced" } else { "" };
    add(collection, vec![make.list("", scope), make.create(scope), make.delete_collection(scope)]);
    add(item.clone(), vec![make.get(scope, ""), make.replace(scope, ""), make.patch(scope, ""), make.delete(scope)]);
    // What a token's request says is no kind of this document.
    for sub in def.subresources().into_iter().filter(|sub| *sub != "token") {
        let operations = match sub {
            "finalize" => vec![make.replace(scope, sub)],
            _ => vec![make.get(scope, sub), make.replace(scope, sub), make.patch(scope, sub)],
        };
        add(format!("{item}/{sub}"), operations);
    }
    paths
}

struct Make<'a> {
    def: &'a ResourceDef,
}

impl Make<'_> {
    fn list(&self, suffix: &str, scope: &str) -> Option<Operation> {
        let made = self.operation("list", "list", "get", scope, suffix, "List or watch")?;
        Some(Operation {
            query: LIST,
            answer: if has_list(self.def) { list_name(self.def) } else { made.answer },
            ..made
        })
    }

    fn create(&self, scope: &str) -> Option<Operation> {
        let made = self.operation("create", "post", "post", scope, "", "Create")?;
        Some(Operation { query: WRITE, body: Some((OBJECT, name(self.def))), answers: CREATED, ..made })
    }

    fn delete_collection(&self, scope: &str) -> Option<Operation> {
        let made =
            self.operation("deletecollection", "deletecollection", "delete", scope, "", "Delete all matching")?;
        let body = Some((OBJECT, format!("{META}.DeleteOptions")));
        Some(Operation { query: DELETE_COLLECTION, body, answer: format!("{META}.Status"), ..made })
    }

    fn get(&self, scope: &str, sub: &str) -> Option<Operation> {
        Some(Operation { query: GET, ..self.operation("get", "get", "get", scope, sub, "Read")? })
    }

    fn replace(&self, scope: &str, sub: &str) -> Option<Operation> {
        let made = self.operation("update", "put", "put", scope, sub, "Replace")?;
        Some(Operation { query: WRITE, body: Some((OBJECT, name(self.def))), ..made })
    }

    fn patch(&self, scope: &str, sub: &str) -> Option<Operation> {
        let made = self.operation("patch", "patch", "patch", scope, sub, "Change parts of")?;
        let media = if self.def.is_builtin() { BUILTIN_PATCHES } else { PATCHES };
        // Only an apply to the object itself creates.
        let answers = if sub.is_empty() { OK_OR_CREATED } else { OK };
        Some(Operation { query: PATCH, body: Some((media, format!("{META}.Patch"))), answers, ..made })
    }

    fn delete(&self, scope: &str) -> Option<Operation> {
        let made = self.operation("delete", "delete", "delete", scope, "", "Delete")?;
        let body = Some((OBJECT, format!("{META}.DeleteOptions")));
        Some(Operation { query: DELETE, body, answer: format!("{META}.Status"), ..made })
    }

    /// What all operations have in common; none if the kind lacks the verb.
    fn operation(
        &self,
        verb: &str,
        action: &'static str,
        method: &'static str,
        scope: &str,
        suffix: &str,
        words: &str,
    ) -> Option<Operation> {
        let def = self.def;
        if !def.verbs.iter().any(|known| known == verb) {
            return None;
        }
        let group = if def.group.is_empty() { "core" } else { &def.group };
        let tag = format!("{}_{}", group.replace('.', "_"), def.version);
        let id = [verb, &camel(group), &camel(&def.version), scope, &def.kind, &camel(suffix)].concat();
        let description = match suffix {
            "" | "ForAllNamespaces" => format!("{words} {}.", def.plural),
            sub => format!("{words} the {sub} of {}.", def.plural),
        };
        Some(Operation {
            method,
            action,
            id,
            tag,
            description,
            query: &[],
            body: None,
            answers: OK,
            answer: name(def),
            group_version_kind: group_version_kind(def, &def.kind),
        })
    }
}

/// `holdfast.dev` → `HoldfastDev`.
fn camel(text: &str) -> String {
    let capitalized = |part: &str| {
        let mut letters = part.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    text.split('.').map(capitalized).collect()
}
