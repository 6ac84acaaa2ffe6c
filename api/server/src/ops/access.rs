//! What a write needs beside the right to write: nobody hands on more rights than he has, and an Operation needs the
//! right to what it does.

use serde_json::Value;

use crate::authz::{self, Attributes, Facts};
use crate::error::{ApiError, ApiResult, Cause};
use crate::identity::MASTERS;
use crate::object::meta;
use crate::rbac::{self, Rule};
use crate::request::Request;
use crate::state::State;

/// Decides about an object (stored form) that is to be written; `old` is what is there.
pub(crate) fn admit(state: &State, request: &Request, old: Option<&Value>, new: &Value) -> ApiResult<()> {
    match (request.def.group.as_str(), request.def.kind.as_str()) {
        (rbac::GROUP, "Role" | "ClusterRole") => role(state, request, old, new),
        (rbac::GROUP, "RoleBinding" | "ClusterRoleBinding") => binding(state, request, old, new),
        (holdfast_api::GROUP, "Operation") if old.is_none() => operation(state, request, new),
        _ => Ok(()),
    }
}

fn role(state: &State, request: &Request, old: Option<&Value>, new: &Value) -> ApiResult<()> {
    if old.is_some_and(|old| old["rules"] == new["rules"]) {
        return Ok(());
    }
    let name = meta(new, "name");
    let escalate = Attributes { name: name.into(), ..request.action("escalate") };
    if authz::allows(&request.identity, &escalate, state) {
        return Ok(());
    }
    grants(state, request, name, &Rule::all_of(new))
}

fn binding(state: &State, request: &Request, old: Option<&Value>, new: &Value) -> ApiResult<()> {
    let (name, reference) = (meta(new, "name"), &new["roleRef"]);
    if let Some(old) = old {
        if old["roleRef"] != *reference {
            let text = "cannot change roleRef; delete the binding and make it anew";
            return Err(ApiError::invalid(request.def.target(name), &[Cause::invalid("roleRef", reference, text)]));
        }
        if old["subjects"] == new["subjects"] {
            return Ok(());
        }
    }
    let role = reference["name"].as_str().unwrap_or_default();
    let plural = if reference["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
    let bind = Attributes { resource: plural.into(), name: role.into(), ..request.action("bind") };
    if request.identity.is_in(MASTERS) || authz::allows(&request.identity, &bind, state) {
        return Ok(());
    }
    match state.role(&request.namespace, reference) {
        Some(rules) => grants(state, request, name, &rules),
        None => Err(ApiError::forbidden(
            request.def.target(name),
            format!(
                "{plural} \"{role}\" not found; what it will allow is not known, so only who may bind it can name it"
            ),
        )),
    }
}

fn grants(state: &State, request: &Request, name: &str, rules: &[Rule]) -> ApiResult<()> {
    let identity = &request.identity;
    if identity.is_in(MASTERS) {
        return Ok(());
    }
    match rbac::beyond(rules, &state.rules(identity, &request.namespace)) {
        None => Ok(()),
        Some(right) => Err(ApiError::forbidden(
            request.def.target(name),
            format!(
                "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held: {right}",
                identity.user, identity.groups
            ),
        )),
    }
}

/// An Operation needs the verb of its type, in lower case, on its target, and says itself who gave it.
fn operation(state: &State, request: &Request, new: &Value) -> ApiResult<()> {
    let (name, spec) = (meta(new, "name"), &new["spec"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let user = &request.identity.user;
    let by = text(&spec["requestedBy"]);
    if !by.is_empty() && by != *user {
        let why = format!("spec.requestedBy is \"{by}\"; it must be the user who creates the operation, \"{user}\"");
        return Err(ApiError::forbidden(request.def.target(name), why));
    }
    let kind = text(&spec["target"]["kind"]);
    let Some(target) = state.registry.find_kind(holdfast_api::API_VERSION, &kind) else { return Ok(()) };
    let action = Attributes {
        verb: text(&spec["type"]).to_lowercase(),
        group: target.group.clone(),
        resource: target.plural.clone(),
        subresource: String::new(),
        namespace: request.namespace.clone(),
        name: text(&spec["target"]["name"]),
    };
    if authz::allows(&request.identity, &action, state) {
        return Ok(());
    }
    let why = format!("{}, which the operation would do to \"{}\"", action.refusal(user), action.name);
    Err(ApiError::forbidden(request.def.target(name), why))
}
