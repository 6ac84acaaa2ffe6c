//! ServiceAccounts: every namespace has one called `default`, and tokens for them are issued on request.

use serde_json::{Value, json};

use crate::bootstrap;
use crate::error::{ApiError, ApiResult, Cause};
use crate::negotiation::read_body;
use crate::object::{is_deleting, meta, rfc3339};
use crate::ops::{Answer, now};
use crate::query::WriteOptions;
use crate::request::Request;
use crate::state::State;
use crate::tokens::{self, ISSUER};

/// The ServiceAccount that every namespace has.
const DEFAULT: &str = "default";
/// API group, version and kind of a request for a token.
pub(crate) const TOKEN_REQUEST: (&str, &str, &str) = ("authentication.k8s.io", "v1", "TokenRequest");
/// Life of a token that asks for none, in seconds; as on a stock server.
const LIFE: i64 = 3600;
/// The shortest and the longest life, in seconds; as on a stock server.
const LIFE_LIMITS: (i64, i64) = (600, 1 << 32);

/// Makes what is missing. What is there is left as it is.
pub(crate) async fn ensure_all(state: &State) {
    let (Some(accounts), Some(namespaces)) = (tokens::accounts(state), state.registry.find("", "v1", "namespaces"))
    else {
        return;
    };
    for namespace in state.feed.snapshot(namespaces, &namespaces.prefix()).0 {
        let name = meta(&namespace.head, "name");
        let there = state.feed.cache(accounts).is_some_and(|cache| cache.get(&accounts.key(name, DEFAULT)).is_some());
        if there || is_deleting(&namespace.head) {
            continue;
        }
        let object =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT, "namespace": name}});
        if let Err(error) = bootstrap::make(state, accounts, object).await {
            tracing::warn!(namespace = name, message = %error.message, "a default ServiceAccount is made later");
        }
    }
}

/// POST on `serviceaccounts/NAME/token`.
pub(crate) async fn issue_token(state: &State, request: &Request) -> ApiResult<Answer> {
    let options = WriteOptions::of(&request.query)?;
    let body = read_body(&request.headers, &request.body, true)?.value;
    let (group, version, kind) = TOKEN_REQUEST;
    let api_version = format!("{group}/{version}");
    let said = |field: &str| body[field].as_str().unwrap_or_default();
    if !body.is_object()
        || !matches!((said("apiVersion"), said("kind")), ("", "") | ("authentication.k8s.io/v1", "TokenRequest"))
    {
        return Err(ApiError::bad_request(format!("this path takes apiVersion {api_version:?}, kind {kind:?}")));
    }
    let spec = Wanted::of(request, &body)?;
    let account = state.newest(&request.def, &request.namespace, &request.name).await?;
    let account = account.filter(|account| !is_deleting(&account.value));
    let account = account.ok_or_else(|| ApiError::not_found(request.target()))?.value;
    let (from, id) = (now(), uuid::Uuid::new_v4().to_string());
    let claims = tokens::claims(&account, &spec.audiences, from.as_second(), spec.seconds, &id);
    let until =
        jiff::Timestamp::from_second(from.as_second() + spec.seconds).map_err(|e| ApiError::internal(e.to_string()))?;
    let mut status = json!({"expirationTimestamp": rfc3339(until), "token": ""});
    if !options.dry_run {
        let token = state.keys.tokens().sign(&claims);
        status["token"] = token.ok_or_else(|| ApiError::internal("the system gives no random numbers"))?.into();
        tracing::info!(target: "audit", user = %request.identity.user, verb = "create", token = %id, of = %claims["sub"].as_str().unwrap_or_default(), until = %rfc3339(until));
    }
    let value = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": request.name, "namespace": request.namespace, "creationTimestamp": rfc3339(from)},
        "spec": {"audiences": spec.audiences, "expirationSeconds": spec.seconds, "boundObjectRef": null},
        "status": status,
    });
    Ok(Answer { code: 201, ..Answer::ok(value) })
}

/// What is asked for.
struct Wanted {
    audiences: Vec<String>,
    seconds: i64,
}

impl Wanted {
    fn of(request: &Request, body: &Value) -> ApiResult<Wanted> {
        let spec = &body["spec"];
        let invalid = |field: &str, value: &Value, why: &str| {
            Err(ApiError::invalid(request.target(), &[Cause::invalid(field, value, why)]))
        };
        let (shortest, longest) = LIFE_LIMITS;
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => LIFE,
            value => match value.as_i64() {
                Some(seconds) if seconds < shortest => {
                    return invalid("spec.expirationSeconds", value, "may not specify a duration less than 10 minutes");
                }
                Some(seconds) if seconds <= longest => seconds,
                _ => {
                    return invalid(
                        "spec.expirationSeconds",
                        value,
                        "may not specify a duration larger than 2^32 seconds",
                    );
                }
            },
        };
        if !spec["boundObjectRef"].is_null() {
            let why = "tokens are bound to their ServiceAccount only; leave it out, and delete the ServiceAccount to end them";
            return invalid("spec.boundObjectRef", &spec["boundObjectRef"], why);
        }
        let audiences = match &spec["audiences"] {
            Value::Null => Vec::new(),
            Value::Array(list) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
            }
            other => return invalid("spec.audiences", other, "must be a list of texts"),
        };
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
        Ok(Wanted { audiences, seconds })
    }
}
