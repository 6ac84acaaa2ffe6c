//! From an HTTP request to an operation: authentication result, path, authorization, dispatch, audit.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::authz::{self, Attributes};
use crate::error::{ApiError, ApiResult};
use crate::identity::Identity;
use crate::metrics::Asked;
use crate::negotiation::{self, Accepted, BODY_LIMIT, Offer, Shape, accept, respond, respond_error};
use crate::ops::{Answer, apply, create, delete, now, read, review, update};
use crate::patch::APPLY;
use crate::prepare::Endpoint;
use crate::query::{ListOptions, Query};
use crate::registry::Form;
use crate::request::Request;
use crate::selectors::FieldSelector;
use crate::state::State;
use crate::{discovery, health, service_accounts, tokens, watch_stream};

/// Answers a request. `identity` is none if the peer showed no certificate.
pub(crate) async fn handle(
    state: Arc<State>,
    identity: Option<Identity>,
    request: http::Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers.clone();
    let mut asked = Asked::now();
    let response = match route(&state, identity, parts, body, &mut asked).await {
        Ok(response) => response,
        Err(error) => respond_error(&error),
    };
    state.measured.note(&asked, response.status().as_u16());
    negotiation::compress(&headers, response).await
}

async fn route(
    state: &Arc<State>,
    identity: Option<Identity>,
    parts: http::request::Parts,
    body: Body,
    asked: &mut Asked,
) -> ApiResult<Response<Body>> {
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let query = Query::of(&parts.uri)?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if let [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] = segments.as_slice()
        && reads
        && check.len() < 2
    {
        return health::respond(state, endpoint, check.first().copied(), &query).ok_or_else(ApiError::no_such_path);
    }
    let identity = authenticate(state, identity, &parts.headers).await?;
    // Counted is who asks, whoever he speaks for.
    let _permit = state.flow.enter(&identity)?;
    let identity = impersonate(state, identity, &parts.headers)?;
    let Some(target) = resource_path(&segments) else {
        let verb = if reads { "get".to_owned() } else { parts.method.as_str().to_lowercase() };
        if !authz::allows_path(&identity, &verb, &path, &**state) {
            return Err(ApiError::forbidden_path(&identity.user, &verb, &path));
        }
        if !reads {
            return Err(ApiError::method_not_allowed(format!("{} is not possible on {path}", parts.method)));
        }
        if segments == ["metrics"] {
            return Ok(state.measured.answer());
        }
        if segments.first() == Some(&"openapi") {
            return Ok(state.openapi.answer(&path, parts.uri.query(), &parts.headers)?.map(Body::from));
        }
        return document(state, &segments, &parts.headers, &query);
    };
    let def = state.registry.find(target.group, target.version, target.plural).ok_or_else(ApiError::no_such_path)?;
    if def.namespaced && target.namespace.is_empty() && !target.name.is_empty()
        || !def.namespaced && !target.namespace.is_empty()
    {
        return Err(ApiError::no_such_path());
    }
    let endpoint = match target.subresource {
        "" => Endpoint::Main,
        sub if !def.subresources().contains(&sub) => return Err(ApiError::no_such_path()),
        "status" => Endpoint::Status,
        "token" => Endpoint::Token,
        "approval" => Endpoint::Approval,
        _ => Endpoint::Finalize,
    };
    let request = Request {
        namespace: target.namespace.into(),
        name: target.name.into(),
        endpoint,
        identity,
        accepted: accept(&parts.headers, if reads { Offer::Objects } else { Offer::Plain })?,
        pretty: query.flag("pretty"),
        query,
        body: Bytes::new(),
        headers: parts.headers,
        def: Arc::clone(def),
    };
    let verb = verb(&request, &parts.method).ok_or_else(|| {
        let message = format!("the server does not allow the method {} on the requested resource", parts.method);
        ApiError::method_not_allowed(message)
    })?;
    asked.about(verb, &request.def.group, &request.def.plural);
    operate(state, request, verb, body).await
}

/// The identity that the credentials of the request prove.
async fn authenticate(state: &State, identity: Option<Identity>, headers: &HeaderMap) -> ApiResult<Identity> {
    // A token is what counts where there is one: a good certificate does not outweigh a wrong one.
    if let Some(header) = headers.get(AUTHORIZATION) {
        return tokens::authenticate(state, header).await;
    }
    match identity {
        Some(identity) if identity.until.is_some_and(|until| until < now().as_second()) => {
            Err(ApiError::unauthorized())
        }
        Some(identity) if !identity.is_anonymous() => Ok(identity.authenticated()),
        _ => Err(ApiError::unauthorized()),
    }
}

/// Replaces the identity by the one that `Impersonate-*` headers name, if the user may do that.
fn impersonate(state: &State, identity: Identity, headers: &HeaderMap) -> ApiResult<Identity> {
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let users = all("impersonate-user");
    let Some(user) = users.first() else {
        if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Err(ApiError::bad_request("Impersonate-Group, -Uid and -Extra need Impersonate-User"));
        }
        return Ok(identity);
    };
    let action = |resource: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut groups = all("impersonate-group");
    let account = tokens::account_of(user);
    let whom = match account {
        Some((namespace, name)) => Attributes { namespace: namespace.into(), ..action("serviceaccounts", name) },
        None => action("users", user),
    };
    let wanted = std::iter::once(whom).chain(groups.iter().map(|group| action("groups", group)));
    for action in wanted {
        if !authz::allows(&identity, &action, state) {
            let target = crate::error::Target { group: "", plural: &action.resource, kind: "", name: &action.name };
            return Err(ApiError::forbidden(target, action.refusal(&identity.user)));
        }
    }
    if let Some((namespace, _)) = account
        && groups.is_empty()
    {
        groups.extend(tokens::account_groups(namespace));
    }
    let mut other = Identity::new(user, groups);
    other.uid = all("impersonate-uid").into_iter().next().unwrap_or_default();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            other.extra.insert(key.to_owned(), all(name.as_str()));
        }
    }
    Ok(other.authenticated())
}

struct ResourcePath<'a> {
    group: &'a str,
    version: &'a str,
    namespace: &'a str,
    plural: &'a str,
    name: &'a str,
    subresource: &'a str,
}

/// Takes the path of a resource apart; none for every other path.
fn resource_path<'a>(segments: &[&'a str]) -> Option<ResourcePath<'a>> {
    let (group, version, rest) = match segments {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, name, subresource) = match rest {
        ["namespaces"] => ("", "namespaces", "", ""),
        ["namespaces", name] => ("", "namespaces", *name, ""),
        ["namespaces", name, sub @ ("status" | "finalize")] => ("", "namespaces", *name, *sub),
        ["namespaces", namespace, plural] => (*namespace, *plural, "", ""),
        ["namespaces", namespace, plural, name] => (*namespace, *plural, *name, ""),
        ["namespaces", namespace, plural, name, sub] => (*namespace, *plural, *name, *sub),
        [plural] => ("", *plural, "", ""),
        [plural, name] => ("", *plural, *name, ""),
        [plural, name, sub] => ("", *plural, *name, *sub),
        _ => return None,
    };
    Some(ResourcePath { group, version, namespace, plural, name, subresource })
}

/// What is readable beside resources.
fn document(state: &State, segments: &[&str], headers: &HeaderMap, query: &Query) -> ApiResult<Response<Body>> {
    let registry = &state.registry;
    let offer = if matches!(segments, ["api"] | ["apis"]) { Offer::Discovery } else { Offer::Plain };
    let accepted = accept(headers, offer)?;
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let found = match (segments, accepted.shape) {
        (["version"], _) => Some(discovery::version()),
        (["api"], Shape::Discovery(version)) => Some(discovery::aggregated(registry, true, version)),
        (["api"], _) => Some(discovery::core_versions(host)),
        (["apis"], Shape::Discovery(version)) => Some(discovery::aggregated(registry, false, version)),
        (["apis"], _) => Some(discovery::groups(registry)),
        (["api", version], _) => discovery::resources(registry, "", version),
        (["apis", group], _) => discovery::group(registry, group),
        (["apis", group, version], _) => discovery::resources(registry, group, version),
        _ => None,
    };
    Ok(tagged(found.ok_or_else(ApiError::no_such_path)?, accepted, headers, query.flag("pretty")))
}

/// An answer that clients may keep: with an ETag, and 304 if they have it already.
fn tagged(value: Value, accepted: Accepted, headers: &HeaderMap, pretty: bool) -> Response<Body> {
    let hash = Sha256::digest(format!("{accepted:?}{pretty}{value}"));
    let mut response = respond(StatusCode::OK, value.into(), accepted, pretty, &[]);
    let tag: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains(&tag));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    if let Shape::Discovery(version) = accepted.shape {
        let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        }
    }
    response
}

/// The verb for authorization, none if the method makes no sense here.
fn verb(request: &Request, method: &Method) -> Option<&'static str> {
    let collection = request.name.is_empty();
    let everywhere = request.def.namespaced && request.namespace.is_empty();
    let verb = match *method {
        Method::GET | Method::HEAD if collection && request.query.flag("watch") => "watch",
        Method::GET | Method::HEAD if collection => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST if collection && !everywhere => "create",
        Method::POST if request.endpoint == Endpoint::Token => "create",
        Method::PUT if !collection => "update",
        Method::PATCH if !collection => "patch",
        Method::DELETE if collection && !everywhere => "deletecollection",
        Method::DELETE if !collection => "delete",
        _ => return None,
    };
    let offered = match request.endpoint {
        Endpoint::Main => request.def.verbs.iter().any(|v| v == verb),
        Endpoint::Status | Endpoint::Approval => matches!(verb, "get" | "update" | "patch"),
        Endpoint::Finalize => verb == "update",
        Endpoint::Token => verb == "create",
    };
    offered.then_some(verb)
}

async fn operate(
    state: &Arc<State>,
    mut request: Request,
    verb: &'static str,
    body: Body,
) -> ApiResult<Response<Body>> {
    let mut action = request.action(verb);
    if action.name.is_empty() && matches!(verb, "list" | "watch") {
        // A list of one name needs no more rights than a get of it.
        let selector = request.query.get("fieldSelector").and_then(|text| FieldSelector::parse(text).ok());
        action.name = selector.and_then(|s| s.exact("metadata.name").map(str::to_owned)).unwrap_or_default();
    }
    if !authz::allows(&request.identity, &action, &**state) {
        let error = ApiError::forbidden(request.target(), action.refusal(&request.identity.user));
        audit(&request, verb, error.code);
        return Err(error);
    }
    if matches!(verb, "get" | "list" | "watch") {
        return match verb {
            "watch" => watch_stream::watch(state, &request).await,
            "list" => Ok(answer(&request, read::list(state, &request).await?)),
            _ => Ok(answer(&request, read::get(state, &request).await?)),
        };
    }
    request.body = read_all(body).await?;
    let result = match verb {
        "create" if request.def.form == Form::Review => review::review(state, &request).await,
        "create" if request.endpoint == Endpoint::Token => service_accounts::issue_token(state, &request).await,
        "create" => create::create(state, &request).await,
        "update" => update::replace(state, &request).await,
        "patch" if negotiation::content_type(&request.headers) == APPLY => apply::apply(state, &request).await,
        "patch" => update::patch(state, &request).await,
        "deletecollection" => {
            ListOptions::of(&request.query, false)?;
            delete::delete_collection(state, &request).await
        }
        _ => delete::delete(state, &request).await,
    };
    if request.def.form != Form::Review {
        audit(&request, verb, result.as_ref().map_or_else(|error| error.code, |answer| answer.code));
    }
    Ok(answer(&request, result?))
}

async fn read_all(body: Body) -> ApiResult<Bytes> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
    }
}

fn answer(request: &Request, answer: Answer) -> Response<Body> {
    let status = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::OK);
    respond(status, answer.content, request.accepted, request.pretty, &answer.warnings)
}

/// One line per write.
fn audit(request: &Request, verb: &str, code: u16) {
    let action = request.action(verb);
    tracing::info!(
        target: "audit",
        user = %request.identity.user,
        verb,
        group = %action.group,
        resource = %action.resource,
        subresource = %action.subresource,
        namespace = %request.namespace,
        name = %request.name,
        dry_run = request.query.has("dryRun"),
        code,
    );
}
