//! Reviews: answered on creation and never stored.

use serde_json::{Value, json};

use super::{Answer, check_kind};
use crate::authz::{self, Attributes};
use crate::error::{ApiError, ApiResult};
use crate::identity::Identity;
use crate::negotiation::read_body;
use crate::request::Request;
use crate::state::State;
use crate::tokens;

/// Whom a review by somebody else is about.
fn subject(spec: &Value) -> ApiResult<Identity> {
    let user = spec["user"].as_str().unwrap_or_default();
    let groups: Vec<&str> = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if user.is_empty() && groups.is_empty() {
        return Err(ApiError::bad_request("spec.user: Required value: at least one of user and groups must be given"));
    }
    Ok(Identity::new(user, groups).authenticated())
}

fn user_info(identity: &Identity) -> Value {
    let mut user = json!({"username": identity.user, "groups": identity.groups});
    if !identity.uid.is_empty() {
        user["uid"] = identity.uid.clone().into();
    }
    if !identity.extra.is_empty() {
        user["extra"] = json!(identity.extra);
    }
    user
}

/// Whose token it is, for servers that let this one look at the tokens that they are shown.
async fn token_review(state: &State, spec: &Value) -> ApiResult<Value> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request("spec.token: Required value: the token to be looked at"));
    }
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(match tokens::identify(state, token, &audiences).await? {
        Some((identity, audiences)) => {
            json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences})
        }
        None => {
            json!({"authenticated": false, "error": "the token is not one of this server, has ended, or is for other audiences"})
        }
    })
}

/// POST on a review kind.
pub(crate) async fn review(state: &State, request: &Request) -> ApiResult<Answer> {
    let mut body = read_body(&request.headers, &request.body, request.def.is_builtin())?.value;
    check_kind(&request.def, &body)?;
    let identity = &request.identity;
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let status = match request.def.kind.as_str() {
        "SelfSubjectReview" => json!({ "userInfo": user_info(identity) }),
        "TokenReview" => token_review(state, &body["spec"]).await?,
        kind @ ("SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview") => {
            let spec = &body["spec"];
            let asked_about = if kind == "SelfSubjectAccessReview" { identity.clone() } else { subject(spec)? };
            let identity = &asked_about;
            if kind == "LocalSubjectAccessReview" && text(&spec["resourceAttributes"], "namespace") != request.namespace
            {
                return Err(ApiError::bad_request(format!(
                    "spec.resourceAttributes.namespace must be the namespace in the URL ({:?})",
                    request.namespace
                )));
            }
            let allowed = match (&spec["resourceAttributes"], &spec["nonResourceAttributes"]) {
                (asked @ Value::Object(_), Value::Null) => {
                    let action = Attributes {
                        verb: text(asked, "verb"),
                        group: text(asked, "group"),
                        resource: text(asked, "resource"),
                        subresource: text(asked, "subresource"),
                        namespace: text(asked, "namespace"),
                        name: text(asked, "name"),
                    };
                    authz::allows(identity, &action, state)
                }
                (Value::Null, asked @ Value::Object(_)) => {
                    authz::allows_path(identity, &text(asked, "verb"), &text(asked, "path"), state)
                }
                _ => {
                    return Err(ApiError::bad_request(
                        "spec: exactly one of resourceAttributes and nonResourceAttributes must be given",
                    ));
                }
            };
            json!({"allowed": allowed})
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&body["spec"], "namespace");
            if namespace.is_empty() {
                return Err(ApiError::bad_request("spec.namespace: Required value: no namespace on request"));
            }
            let (resources, paths) = authz::rules(identity, &namespace, state);
            json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
        }
        other => return Err(ApiError::internal(format!("there is no review kind {other}"))),
    };
    crate::object::metadata_mut(&mut body);
    body["status"] = status;
    super::set_kind(&request.def, &mut body);
    Ok(Answer { code: 201, ..Answer::ok(body) })
}
