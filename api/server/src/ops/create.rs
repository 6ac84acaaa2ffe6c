//! POST on a collection.

use holdfast_store::{Error, Expect};
use serde_json::Value;

use super::update::set_managed;
use super::{Answer, access, check, check_kind, duplicate_findings, now, set_kind};
use crate::error::{ApiError, ApiResult, Cause};
use crate::negotiation::read_body;
use crate::object::{encode, is_deleting, meta, metadata_mut, set_revision};
use crate::query::{Freshness, WriteOptions};
use crate::request::Request;
use crate::state::State;
use crate::{certificates, managed, names, prepare};

/// How often a generated name is made anew when it is taken.
const GENERATE_ATTEMPTS: usize = 8;

/// Creates an object.
pub(crate) async fn create(state: &State, request: &Request) -> ApiResult<Answer> {
    let options = WriteOptions::of(&request.query)?;
    let decoded = read_body(&request.headers, &request.body, request.def.is_builtin())?;
    check_kind(&request.def, &decoded.value)?;
    create_object(state, request, &options, decoded.value, duplicate_findings(&decoded.duplicates), None).await
}

/// Creates an object from a decoded body. An apply brings its configuration in the stored form.
pub(crate) async fn create_object(
    state: &State,
    request: &Request,
    options: &WriteOptions,
    mut body: Value,
    findings: Vec<String>,
    applied: Option<&Value>,
) -> ApiResult<Answer> {
    let def = &*request.def;
    let stored_def = state.stored_def(def);
    let writer = request.writer(options, stored_def);
    set_kind(def, &mut body);
    place(request, &mut body)?;
    let given = meta(&body, "name").to_owned();
    let prefix = meta(&body, "generateName").to_owned();
    if given.is_empty() && prefix.is_empty() {
        return Err(ApiError::invalid(
            def.target(""),
            &[Cause::required("metadata.name", "name or generateName is required")],
        ));
    }
    if !given.is_empty() && !request.name.is_empty() && given != request.name {
        return Err(ApiError::bad_request(format!(
            "metadata.name {given:?} is not the name in the URL ({:?})",
            request.name
        )));
    }
    if def.namespaced {
        check_namespace(state, request, if given.is_empty() { &prefix } else { &given }).await?;
    }
    let mut attempts = if given.is_empty() { GENERATE_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let name = if given.is_empty() { names::generate(&prefix) } else { given.clone() };
        let mut object = body.clone();
        metadata_mut(&mut object).insert("name".into(), name.clone().into());
        let mut warnings = Vec::new();
        let stored = prepare::create(def, def.absorb(object), uuid::Uuid::new_v4().to_string(), now())?;
        let mut stored = check(def, stored, None, options.validation, findings.clone(), &mut warnings)?;
        access::admit(state, request, None, &stored)?;
        if certificates::is_request(def) {
            certificates::create(state, request, options.dry_run, &mut stored).await?;
        }
        match applied {
            None => managed::update(stored_def, &writer, &Value::Null, &mut stored, None, now()),
            Some(config) => {
                let mut applied = managed::apply(stored_def, &writer, &Value::Null, config, false, now());
                set_managed(&mut stored, managed::taken(&mut applied.object));
            }
        }
        let key = def.key(&request.namespace, &name);
        let result = if options.dry_run {
            let (existing, revision) = state.store.get(&key).await?;
            match existing {
                Some(current) => Err(Error::Conflict { key, current: Some(current) }),
                None => Ok(revision),
            }
        } else {
            state.store.put(&key, encode(&mut stored).into(), Expect::Absent, def.ttl).await
        };
        match result {
            Ok(revision) => {
                set_revision(&mut stored, revision);
                return Ok(Answer { code: 201, content: def.present(stored).into(), warnings });
            }
            Err(Error::Conflict { .. }) if attempts > 0 => {}
            Err(Error::Conflict { .. }) => return Err(ApiError::already_exists(def.target(&name))),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Fills `metadata.namespace` from the URL.
fn place(request: &Request, body: &mut Value) -> ApiResult<()> {
    if !body["metadata"].is_null() && !body["metadata"].is_object() {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    let given = meta(body, "namespace").to_owned();
    let metadata = metadata_mut(body);
    if !request.def.namespaced {
        if !given.is_empty() {
            return Err(ApiError::bad_request(format!(
                "metadata.namespace {given:?}: {} are cluster-scoped and have no namespace",
                request.def.plural
            )));
        }
        metadata.remove("namespace");
        return Ok(());
    }
    if !given.is_empty() && given != request.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: metadata.namespace is \
             {given:?}, the URL says {:?}",
            request.namespace
        )));
    }
    metadata.insert("namespace".into(), request.namespace.clone().into());
    Ok(())
}

/// The namespace must exist and not be going away.
async fn check_namespace(state: &State, request: &Request, name: &str) -> ApiResult<()> {
    let Some(namespaces) = state.registry.find("", "v1", "namespaces") else { return Ok(()) };
    let namespace = &request.namespace;
    let cached = state.read(namespaces, "", namespace, Freshness::Any).await?.0;
    let found = match cached {
        Some(found) => Some(found),
        None => state.read(namespaces, "", namespace, Freshness::Newest).await?.0,
    };
    match found {
        None => Err(ApiError::not_found(namespaces.target(namespace))),
        Some(found) if is_deleting(&found.head) => {
            Err(ApiError::namespace_terminating(request.def.target(name), namespace))
        }
        Some(_) => Ok(()),
    }
}
