//! PUT and PATCH, also on subresources.

use holdfast_store::Error;
use serde_json::Value;

use super::base::{Bases, expectation};
use super::{Answer, access, check, check_kind, duplicate_findings, invalid_if_any, now, set_kind};
use crate::error::{ApiError, ApiResult, Cause};
use crate::negotiation::{content_type, read_body};
use crate::object::{Object, encode, meta, metadata_mut, set_revision};
use crate::patch::PatchBody;
use crate::prepare::{self, Endpoint};
use crate::query::WriteOptions;
use crate::registry::ResourceDef;
use crate::request::Request;
use crate::state::State;
use crate::{certificates, managed};

/// What became of a write.
pub(crate) enum Outcome {
    /// It was stored, or deleted since nothing held it any longer: the object in its served form.
    Stored(Value),
    /// There was nothing to store, or it was not to be stored: the object as it would be, in its served form.
    Unchanged(Value),
    /// Somebody else wrote in between.
    Raced,
}

/// One write of a changed object.
pub(crate) struct Change {
    /// The object in its served form.
    pub(crate) object: Value,
    /// Texts about fields that occur twice in the request.
    pub(crate) findings: Vec<String>,
    /// An apply has worked out its `managedFields`; otherwise this is a write of the Update kind.
    pub(crate) applied: bool,
}

/// PUT.
pub(crate) async fn replace(state: &State, request: &Request) -> ApiResult<Answer> {
    let def = &*request.def;
    let options = WriteOptions::of(&request.query)?;
    let decoded = read_body(&request.headers, &request.body, request.def.is_builtin())?;
    check_kind(def, &decoded.value)?;
    let mut body = decoded.value;
    set_kind(def, &mut body);
    if !body["metadata"].is_object() {
        return Err(ApiError::bad_request("metadata must be an object with at least name and resourceVersion"));
    }
    if meta(&body, "name").is_empty() {
        return Err(ApiError::bad_request("metadata.name is missing; it must be the name in the URL"));
    }
    let revision = meta(&body, "resourceVersion");
    let given = !matches!(revision, "" | "0");
    let findings = duplicate_findings(&decoded.duplicates);
    let mut bases = Bases::default();
    loop {
        let old = bases.next(state, request).await?.ok_or_else(|| ApiError::not_found(request.target()))?;
        let attempt = async {
            if !given && !def.is_builtin() {
                let cause =
                    Cause::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
                return Err(ApiError::invalid(request.target(), &[cause]));
            }
            check_revision(def, &old, revision)?;
            let change = Change { object: body.clone(), findings: findings.clone(), applied: false };
            write(state, request, &options, &old, change).await
        };
        let result = attempt.await;
        if bases.settles(state, request, &old, &result).await? {
            match result? {
                (Outcome::Stored(value) | Outcome::Unchanged(value), warnings) => {
                    return Ok(Answer { warnings, ..Answer::ok(value) });
                }
                (Outcome::Raced, _) if given => return Err(ApiError::modified(request.target())),
                (Outcome::Raced, _) => {}
            }
        }
    }
}

/// PATCH of every type but apply.
pub(crate) async fn patch(state: &State, request: &Request) -> ApiResult<Answer> {
    let def = &*request.def;
    let options = WriteOptions::of(&request.query)?;
    if options.force {
        return Err(ApiError::unprocessable("force: Forbidden: may not be specified for non-apply patch"));
    }
    let patch = PatchBody::parse(def, content_type(&request.headers), &request.body)?;
    let mut bases = Bases::default();
    loop {
        let old = bases.next(state, request).await?.ok_or_else(|| ApiError::not_found(request.target()))?;
        let attempt = async {
            let mut body = patch.apply(def, &request.name, &def.shown(&old.value))?;
            check_kind(def, &body)?;
            check_revision(def, &old, meta(&body, "resourceVersion"))?;
            metadata_mut(&mut body);
            let change = Change { object: body, findings: duplicate_findings(patch.duplicates()), applied: false };
            write(state, request, &options, &old, change).await
        };
        let result = attempt.await;
        if bases.settles(state, request, &old, &result).await? {
            match result? {
                (Outcome::Stored(value) | Outcome::Unchanged(value), warnings) => {
                    return Ok(Answer { warnings, ..Answer::ok(value) });
                }
                (Outcome::Raced, _) if patch.names_revision() => return Err(ApiError::modified(request.target())),
                (Outcome::Raced, _) => {}
            }
        }
    }
}

/// A resourceVersion that is given must be the current one.
pub(crate) fn check_revision(def: &ResourceDef, old: &Object, given: &str) -> ApiResult<()> {
    if matches!(given, "" | "0") {
        return Ok(());
    }
    let name = meta(&old.value, "name");
    if given.parse::<u64>().is_err() {
        let cause =
            Cause::invalid("metadata.resourceVersion", &given.into(), "must be the number that the server gave");
        return Err(ApiError::invalid(def.target(name), &[cause]));
    }
    if given != meta(&old.value, "resourceVersion") { Err(ApiError::modified(def.target(name))) } else { Ok(()) }
}

/// Completes, checks and stores a changed object (served form) on top of `old`. Gives texts for `Warning` headers, too.
pub(crate) async fn write(
    state: &State,
    request: &Request,
    options: &WriteOptions,
    old: &Object,
    change: Change,
) -> ApiResult<(Outcome, Vec<String>)> {
    let mut warnings = Vec::new();
    let def = &*request.def;
    let name = meta(&old.value, "name");
    let mut new = def.absorb(change.object);
    let applied = change.applied.then(|| managed::taken(&mut new));
    let edited = managed::edited(&old.value, &new).filter(|_| request.endpoint == Endpoint::Main);
    let stored = prepare::update(def, &old.value, new, request.endpoint)?;
    let mut stored = check(def, stored, Some(&old.value), options.validation, change.findings, &mut warnings)?;
    invalid_if_any(def, name, &check_immutable(def, &old.value, &stored))?;
    access::admit(state, request, Some(&old.value), &stored)?;
    if certificates::is_request(def) && request.endpoint == Endpoint::Approval {
        certificates::approve(state, request, &old.value, &mut stored)?;
    }
    prepare::count_generation(def, &old.value, &mut stored);
    match applied {
        Some(entries) => set_managed(&mut stored, entries),
        None => {
            let stored_def = state.stored_def(def);
            let writer = request.writer(options, stored_def);
            managed::update(stored_def, &writer, &old.value, &mut stored, edited, now());
        }
    }
    set_revision(&mut stored, old.revision);
    Ok((save(state, def, old, stored, options.dry_run).await?, warnings))
}

/// Replaces `managedFields`.
pub(crate) fn set_managed(object: &mut Value, entries: Option<Value>) {
    let metadata = metadata_mut(object);
    match entries {
        Some(entries) => metadata.insert("managedFields".into(), entries),
        None => metadata.remove("managedFields"),
    };
}

/// Stores a changed object, or deletes it if nothing holds it any longer. A write without effect stores nothing.
pub(crate) async fn save(
    state: &State,
    def: &ResourceDef,
    old: &Object,
    mut new: Value,
    dry_run: bool,
) -> ApiResult<Outcome> {
    let released = prepare::is_released(def, &new);
    if !released && managed::same_but_times(&old.value, &new) {
        return Ok(Outcome::Unchanged(def.shown(&old.value).into_owned()));
    }
    if dry_run {
        return Ok(Outcome::Unchanged(def.present(new)));
    }
    let result = match released {
        // A deletion compares no value.
        true if old.remembered => return Ok(Outcome::Raced),
        true => state.store.delete(&old.key, old.revision).await,
        false => state.store.put(&old.key, encode(&mut new).into(), expectation(old), def.ttl).await,
    };
    match result {
        Ok(revision) => {
            set_revision(&mut new, revision);
            Ok(Outcome::Stored(def.present(new)))
        }
        Err(Error::Conflict { .. }) => Ok(Outcome::Raced),
        Err(error) => Err(error.into()),
    }
}

/// Secrets and ConfigMaps that are marked immutable keep their contents.
fn check_immutable(def: &ResourceDef, old: &Value, new: &Value) -> Vec<Cause> {
    if !(def.group.is_empty() && matches!(def.plural.as_str(), "secrets" | "configmaps")) {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if def.plural == "secrets" && old["type"] != new["type"] {
        causes.push(Cause::invalid("type", &new["type"], "field is immutable"));
    }
    if old["immutable"] == true {
        for field in ["immutable", "data", "binaryData"] {
            if old[field] != new[field] {
                causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    causes
}
