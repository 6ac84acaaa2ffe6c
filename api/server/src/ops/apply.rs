//! Server-side apply: PATCH with a configuration that names what its manager wants, and nothing else.

use holdfast_api::error::ErrorKind;
use holdfast_api::schema::{prune, validate_structure};
use serde_json::Value;

use super::base::Bases;
use super::update::{Change, Outcome, check_revision, write};
use super::{Answer, check_kind, create, invalid_if_any, now};
use crate::authz;
use crate::decode::{Decoded, decode};
use crate::error::{ApiError, ApiResult};
use crate::managed;
use crate::object::{meta, metadata_mut};
use crate::prepare::{self, Endpoint};
use crate::query::WriteOptions;
use crate::request::Request;
use crate::schema;
use crate::state::State;
use crate::typed;

/// PATCH with `application/apply-patch+yaml`.
pub(crate) async fn apply(state: &State, request: &Request) -> ApiResult<Answer> {
    let def = &*request.def;
    let options = WriteOptions::of(&request.query)?;
    if options.manager.is_empty() {
        return Err(ApiError::unprocessable(
            "PatchOptions is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let body = read(request)?;
    check_configuration(request, &body)?;
    let stored_def = state.stored_def(def);
    let writer = request.writer(&options, stored_def);
    let config = def.absorb(body.clone());
    let revision = meta(&body, "resourceVersion");
    let mut bases = Bases::default();
    loop {
        let Some(old) = bases.next(state, request).await? else {
            match create_applied(state, request, &options, body.clone(), &config).await {
                // Somebody else created it meanwhile: then it is merged.
                Err(error) if error.reason == "AlreadyExists" && !options.dry_run => continue,
                other => return other,
            }
        };
        let attempt = async {
            check_revision(def, &old, revision)?;
            let applied = managed::apply(stored_def, &writer, &old.value, &config, options.force, now());
            if !applied.conflicts.is_empty() {
                return Err(ApiError::apply_conflict(
                    managed::conflict_message(&applied.conflicts),
                    &applied.conflicts,
                ));
            }
            let change = Change { object: def.present(applied.object), findings: Vec::new(), applied: true };
            write(state, request, &options, &old, change).await
        };
        let result = attempt.await;
        if bases.settles(state, request, &old, &result).await? {
            match result? {
                (Outcome::Stored(value) | Outcome::Unchanged(value), warnings) => {
                    return Ok(Answer { warnings, ..Answer::ok(value) });
                }
                (Outcome::Raced, _) if !revision.is_empty() => return Err(ApiError::modified(request.target())),
                (Outcome::Raced, _) => {}
            }
        }
    }
}

/// Reads the configuration and completes its name and namespace from the URL.
fn read(request: &Request) -> ApiResult<Value> {
    let def = &*request.def;
    // JSON is YAML; the reader of JSON is the faster one.
    let json = request.body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    let Decoded { mut value, duplicates } = decode(&request.body, !json).map_err(ApiError::bad_request)?;
    check_kind(def, &value)?;
    if !duplicates.is_empty() {
        return Err(ApiError::bad_request(format!("error decoding: duplicate fields {}", duplicates.join(", "))));
    }
    if !value["metadata"].is_null() && !value["metadata"].is_object() {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    let metadata = metadata_mut(&mut value);
    if metadata.remove("managedFields").is_some_and(|entries| entries.as_array().is_some_and(|list| !list.is_empty())) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    for (field, wanted) in [("name", &request.name), ("namespace", &request.namespace)] {
        let given = metadata.get(field).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != wanted {
            return Err(ApiError::bad_request(format!(
                "metadata.{field} {given:?} is not the one in the URL ({wanted:?})"
            )));
        }
        if !wanted.is_empty() {
            metadata.insert(field.into(), wanted.clone().into());
        }
    }
    Ok(value)
}

/// Refuses what the schema does not know or can't take apart, under every level of field validation.
fn check_configuration(request: &Request, body: &Value) -> ApiResult<()> {
    let def = &*request.def;
    let mut known = body.clone();
    let mut problems: Vec<String> = prepare::prune_metadata(&mut known)
        .iter()
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    problems.extend(prune(&def.schema, &mut known).iter().map(|path| format!(".{path}: field not declared in schema")));
    problems.extend(typed::ambiguities(&def.merge_schema, body, ""));
    if !problems.is_empty() {
        let object = match request.namespace.as_str() {
            "" => request.name.clone(),
            namespace => format!("{namespace}/{}", request.name),
        };
        return Err(ApiError::bad_request(format!(
            "failed to create typed patch object ({object}; {}, Kind={}): {}",
            def.api_version(),
            def.kind,
            problems.join(", ")
        )));
    }
    // Only types: what is missing may stand in the object already.
    let wrong = validate_structure(&def.schema, body);
    let causes: Vec<_> = wrong.iter().filter(|e| e.kind == ErrorKind::TypeInvalid).map(schema::cause).collect();
    invalid_if_any(def, &request.name, &causes)
}

async fn create_applied(
    state: &State,
    request: &Request,
    options: &WriteOptions,
    body: Value,
    config: &Value,
) -> ApiResult<Answer> {
    if request.endpoint != Endpoint::Main {
        return Err(ApiError::not_found(request.target()));
    }
    if !meta(&body, "uid").is_empty() {
        return Err(ApiError::conflict(
            request.target(),
            "uid mismatch: the object does not exist, the request names its uid",
        ));
    }
    let action = request.action("create");
    if !authz::allows(&request.identity, &action, state) {
        return Err(ApiError::forbidden(request.target(), action.refusal(&request.identity.user)));
    }
    create::create_object(state, request, options, body, Vec::new(), Some(config)).await
}
