//! PUT and PATCH, also on subresources.

use holdfast_store::{Error, Expect};
use serde_json::Value;

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

/// How often a patch is applied anew when somebody else wrote in between. Each attempt means that another write came
/// through, so this is only reached under a storm of writes to one object.
const PATCH_ATTEMPTS: usize = 100;

/// What became of a write.
pub(crate) enum Outcome {
    /// The object as it is now, in its served form.
    Done(Value),
    /// Somebody else wrote in between.
    Raced,
}

/// One write of a changed object.
pub(crate) struct Change {
    /// The object in its served form.
    pub(crate) object: Value,
    /// Texts about fields that occur twice in the request.
    pub(crate) findings: Vec<String>,
    /// The entries of `managedFields` that an apply has worked out; none: a write of the Update kind.
    pub(crate) applied: Option<Value>,
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
    let mut attempts = PATCH_ATTEMPTS;
    loop {
        attempts -= 1;
        let old = state.newest(def, &request.namespace, &request.name).await?;
        let old = old.ok_or_else(|| ApiError::not_found(request.target()))?;
        let revision = meta(&body, "resourceVersion");
        let given = !matches!(revision, "" | "0");
        if !given && !def.is_builtin() {
            let cause = Cause::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
            return Err(ApiError::invalid(request.target(), &[cause]));
        }
        check_revision(def, &old, revision)?;
        let mut warnings = Vec::new();
        let findings = duplicate_findings(&decoded.duplicates);
        let change = Change { object: body.clone(), findings, applied: None };
        match write(state, request, &options, &old, change, &mut warnings).await? {
            Outcome::Done(value) => return Ok(Answer { warnings, ..Answer::ok(value) }),
            Outcome::Raced if given || attempts == 0 => return Err(ApiError::modified(request.target())),
            Outcome::Raced => {}
        }
    }
}

/// PATCH of every type.
pub(crate) async fn patch(state: &State, request: &Request) -> ApiResult<Answer> {
    let def = &*request.def;
    let options = WriteOptions::of(&request.query)?;
    if options.force {
        return Err(ApiError::unprocessable("force: Forbidden: may not be specified for non-apply patch"));
    }
    let patch = PatchBody::parse(def, content_type(&request.headers), &request.body)?;
    let mut attempts = PATCH_ATTEMPTS;
    loop {
        attempts -= 1;
        let old = state.newest(def, &request.namespace, &request.name).await?;
        let old = old.ok_or_else(|| ApiError::not_found(request.target()))?;
        let mut body = patch.apply(def, &request.name, &def.present(&old.value))?;
        check_kind(def, &body)?;
        let revision = meta(&body, "resourceVersion").to_owned();
        check_revision(def, &old, &revision)?;
        metadata_mut(&mut body);
        let mut warnings = Vec::new();
        let findings = duplicate_findings(patch.duplicates());
        let change = Change { object: body, findings, applied: None };
        match write(state, request, &options, &old, change, &mut warnings).await? {
            Outcome::Done(value) => return Ok(Answer { warnings, ..Answer::ok(value) }),
            Outcome::Raced if patch.names_revision() || attempts == 0 => {
                return Err(ApiError::modified(request.target()));
            }
            Outcome::Raced => {}
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

/// Completes, checks and stores a changed object (served form) on top of `old`.
pub(crate) async fn write(
    state: &State,
    request: &Request,
    options: &WriteOptions,
    old: &Object,
    change: Change,
    warnings: &mut Vec<String>,
) -> ApiResult<Outcome> {
    let def = &*request.def;
    let name = meta(&old.value, "name");
    let new = def.absorb(change.object);
    let edited = managed::edited(&old.value, &new).filter(|_| request.endpoint == Endpoint::Main);
    let stored = prepare::update(def, &old.value, new, request.endpoint)?;
    let mut stored = check(def, stored, Some(&old.value), options.validation, change.findings, warnings)?;
    invalid_if_any(def, name, &check_immutable(def, &old.value, &stored))?;
    access::admit(state, request, Some(&old.value), &stored)?;
    if certificates::is_request(def) && request.endpoint == Endpoint::Approval {
        certificates::approve(state, request, &old.value, &mut stored)?;
    }
    prepare::count_generation(def, &old.value, &mut stored);
    match &change.applied {
        Some(applied) => set_managed(&mut stored, applied),
        None => {
            let stored_def = state.stored_def(def);
            let writer = request.writer(options, stored_def);
            managed::update(stored_def, &writer, &old.value, &mut stored, edited, now());
        }
    }
    set_revision(&mut stored, old.revision);
    save(state, def, old, stored, options.dry_run).await
}

/// Takes `managedFields` over from another object.
pub(crate) fn set_managed(object: &mut Value, from: &Value) {
    let metadata = metadata_mut(object);
    match from.pointer("/metadata/managedFields") {
        Some(entries) => metadata.insert("managedFields".into(), entries.clone()),
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
        return Ok(Outcome::Done(def.present(&old.value)));
    }
    if dry_run {
        return Ok(Outcome::Done(def.present(&new)));
    }
    let result = if released {
        state.store.delete(&old.key, old.revision).await
    } else {
        state.store.put(&old.key, encode(&new).into(), Expect::Modified(old.revision), def.ttl).await
    };
    match result {
        Ok(revision) => {
            set_revision(&mut new, revision);
            Ok(Outcome::Done(def.present(&new)))
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
