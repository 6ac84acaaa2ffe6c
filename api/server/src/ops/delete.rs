//! DELETE of one object and of a collection.

use std::sync::Arc;

use serde_json::{Value, json};

use super::update::{Outcome, save};
use super::{Answer, now, read};
use crate::decode::decode;
use crate::error::{ApiError, ApiResult, success};
use crate::negotiation::{content_type, read_body};
use crate::object::{Object, is_deleting, meta};
use crate::query::{DeleteOptions, ListOptions, Propagation};
use crate::registry::ResourceDef;
use crate::request::Request;
use crate::state::State;
use crate::{admission, prepare};

/// Finalizer that keeps the owner until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer that keeps the owner until its dependents have forgotten it.
pub(crate) const ORPHAN: &str = "orphan";
/// How often a deletion is tried anew when somebody else wrote in between.
const ATTEMPTS: usize = 100;

/// DELETE of one object.
pub(crate) async fn delete(state: &State, request: &Request) -> ApiResult<Answer> {
    let options = options(request)?;
    delete_object(state, &request.def, &request.namespace, &request.name, &options).await.map(Answer::ok)
}

fn options(request: &Request) -> ApiResult<DeleteOptions> {
    let body = if request.body.is_empty() {
        Value::Null
    } else if content_type(&request.headers).ends_with("json") {
        decode(&request.body, false).map_err(ApiError::bad_request)?.value
    } else {
        read_body(&request.headers, &request.body, true)?.value
    };
    DeleteOptions::of(&request.query, &body)
}

/// Deletes an object or marks it, whichever its finalizers demand.
pub(crate) async fn delete_object(
    state: &State,
    def: &Arc<ResourceDef>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> ApiResult<Value> {
    for _ in 0..ATTEMPTS {
        let old = state.newest(def, namespace, name).await?.ok_or_else(|| ApiError::not_found(def.target(name)))?;
        check_preconditions(def, &old, options)?;
        guard(state, def, std::slice::from_ref(&old.value)).await?;
        let mut new = old.value.clone();
        set_propagation(&mut new, options.propagation);
        prepare::mark_deleted(def, &mut new, now());
        let released = prepare::is_released(def, &new);
        match save(state, def, &old, new, options.dry_run).await? {
            Outcome::Stored(_) | Outcome::Unchanged(_) if released => {
                return Ok(success(def.target(name), meta(&old.value, "uid")));
            }
            Outcome::Stored(value) | Outcome::Unchanged(value) => return Ok(value),
            Outcome::Raced if options.revision.is_some() => break,
            Outcome::Raced => {}
        }
    }
    Err(ApiError::modified(def.target(name)))
}

/// DELETE of a collection: all that the selectors choose, or none if one of them is guarded.
pub(crate) async fn delete_collection(state: &State, request: &Request) -> ApiResult<Answer> {
    let options = options(request)?;
    let list = ListOptions { limit: 0, next: String::new(), ..ListOptions::of(&request.query, false)? };
    let chosen = read::select(state, request, &list).await?.objects;
    let values: Vec<Value> = chosen.iter().map(|object| object.value()).collect();
    guard(state, &request.def, &values).await?;
    for object in &values {
        let (namespace, name) = (meta(object, "namespace"), meta(object, "name"));
        match delete_object(state, &request.def, namespace, name, &options).await {
            Err(error) if error.code == 404 => {}
            other => drop(other?),
        }
    }
    let details = json!({"group": request.def.group, "kind": request.def.plural});
    Ok(Answer::ok(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details, "code": 200,
    })))
}

fn check_preconditions(def: &ResourceDef, old: &Object, options: &DeleteOptions) -> ApiResult<()> {
    let name = meta(&old.value, "name");
    for (wanted, field, title) in
        [(&options.uid, "uid", "UID"), (&options.revision, "resourceVersion", "ResourceVersion")]
    {
        let found = meta(&old.value, field);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why =
                format!("Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {found}");
            return Err(ApiError::conflict(def.target(name), why));
        }
    }
    Ok(())
}

/// Puts the finalizers of the demanded propagation in place of those of another one.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let mut list: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    list.retain(|finalizer| wanted == finalizer.as_str() || (*finalizer != FOREGROUND && *finalizer != ORPHAN));
    if let Some(wanted) = wanted.filter(|wanted| !list.iter().any(|f| f == wanted)) {
        list.push(wanted.into());
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        match list.is_empty() {
            true => metadata.remove("finalizers"),
            false => metadata.insert("finalizers".into(), list.into()),
        };
    }
}

/// The deletion guard, for objects of one kind; for a namespace it covers everything in it.
pub(crate) async fn guard(state: &State, def: &Arc<ResourceDef>, objects: &[Value]) -> ApiResult<()> {
    if def.is_namespace() {
        for namespace in objects {
            guard_namespace(state, def, meta(namespace, "name")).await?;
        }
        return Ok(());
    }
    if !admission::is_guarded(def) {
        return Ok(());
    }
    let referring =
        match admission::referring_kind(def).and_then(|kind| state.registry.find_kind(&def.api_version(), kind)) {
            Some(kind) => values(state, kind).await?,
            None => Vec::new(),
        };
    for object in objects.iter().filter(|object| !is_deleting(object)) {
        let name = meta(object, "name");
        admission::deletion(def, object, &referring).map_err(|why| ApiError::forbidden(def.target(name), why))?;
    }
    Ok(())
}

async fn guard_namespace(state: &State, namespaces: &Arc<ResourceDef>, name: &str) -> ApiResult<()> {
    if matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(ApiError::forbidden(namespaces.target(name), "this namespace may not be deleted"));
    }
    for def in state.registry.stored().filter(|def| admission::is_guarded(def)) {
        let contents = values(state, def).await?;
        // What would go together with the namespace is no reason to keep it: only users outside count, and groups
        // that run.
        let outside: Vec<Value> =
            match admission::referring_kind(def).and_then(|k| state.registry.find_kind(&def.api_version(), k)) {
                Some(kind) => {
                    let all = values(state, kind).await?;
                    all.into_iter().filter(|object| meta(object, "namespace") != name).collect()
                }
                None => Vec::new(),
            };
        for object in contents.iter().filter(|object| meta(object, "namespace") == name && !is_deleting(object)) {
            if let Err(why) = admission::deletion(def, object, &outside) {
                let why =
                    format!("it holds {} \"{}\", which may not be deleted: {why}", def.plural, meta(object, "name"));
                return Err(ApiError::forbidden(namespaces.target(name), why));
            }
        }
    }
    Ok(())
}

async fn values(state: &State, def: &ResourceDef) -> ApiResult<Vec<Value>> {
    Ok(state.all(def).await?.iter().map(|object| object.value()).collect())
}
