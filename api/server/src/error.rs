//! The single mapping from failures to Kubernetes `Status` answers: code, reason, message, details.
//!
//! Inner layers build an [`ApiError`] through the constructors here and nowhere else, so the texts that clients parse
//! or people read stand in one file. It does not know about HTTP bodies or media types.

use holdfast_store as store;
use serde_json::{Value, json};

/// What an error is about: fills `details` and the beginning of the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// API group, empty for the core group.
    pub(crate) group: &'a str,
    /// Plural resource name.
    pub(crate) plural: &'a str,
    /// Kind.
    pub(crate) kind: &'a str,
    /// Object name, empty for a collection.
    pub(crate) name: &'a str,
}

impl Target<'_> {
    /// `plural.group`, as it stands at the beginning of messages.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn kind_group(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// One entry of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Machine-readable reason, e.g. `FieldValueInvalid`.
    pub(crate) reason: String,
    /// Text for people.
    pub(crate) message: String,
    /// Path of the field, e.g. `spec.servers[0].name`; empty if no field is meant.
    pub(crate) field: String,
}

impl Cause {
    /// A field's value is wrong; `found` is shown as JSON.
    pub(crate) fn invalid(field: impl Into<String>, found: &Value, text: impl AsRef<str>) -> Cause {
        Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {found}: {}", text.as_ref()),
            field: field.into(),
        }
    }

    /// A field that must be there is missing.
    pub(crate) fn required(field: impl Into<String>, text: impl AsRef<str>) -> Cause {
        let text = text.as_ref();
        let message = if text.is_empty() { "Required value".to_owned() } else { format!("Required value: {text}") };
        Cause { reason: "FieldValueRequired".into(), message, field: field.into() }
    }

    /// A field may not be set or changed here.
    pub(crate) fn forbidden(field: impl Into<String>, text: impl AsRef<str>) -> Cause {
        Cause {
            reason: "FieldValueForbidden".into(),
            message: format!("Forbidden: {}", text.as_ref()),
            field: field.into(),
        }
    }

    /// Something too large or too long.
    pub(crate) fn too_long(field: impl Into<String>, text: impl AsRef<str>) -> Cause {
        Cause {
            reason: "FieldValueTooLong".into(),
            message: format!("Too long: {}", text.as_ref()),
            field: field.into(),
        }
    }
}

/// A failed request, ready to be written as a `Status`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    /// HTTP status and `code`.
    pub(crate) code: u16,
    /// `reason`.
    pub(crate) reason: &'static str,
    /// `message`.
    pub(crate) message: String,
    /// `details`, an object; null when there are none.
    pub(crate) details: Value,
    /// `metadata.continue`, set on an expired continue token.
    pub(crate) next: Option<String>,
}

/// Result of anything that ends in an answer.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { code, reason, message: message.into(), details: Value::Null, next: None }
    }

    fn about(code: u16, reason: &'static str, message: String, target: Target<'_>) -> ApiError {
        let mut details = serde_json::Map::new();
        if !target.name.is_empty() {
            details.insert("name".into(), target.name.into());
        }
        if !target.group.is_empty() {
            details.insert("group".into(), target.group.into());
        }
        details.insert("kind".into(), target.plural.into());
        ApiError { code, reason, message, details: Value::Object(details), next: None }
    }

    fn with_causes(mut self, causes: &[Cause]) -> ApiError {
        let list: Vec<Value> = causes
            .iter()
            .map(|c| {
                let mut cause = serde_json::Map::new();
                cause.insert("reason".into(), c.reason.clone().into());
                cause.insert("message".into(), c.message.clone().into());
                if !c.field.is_empty() {
                    cause.insert("field".into(), c.field.clone().into());
                }
                Value::Object(cause)
            })
            .collect();
        if !self.details.is_object() {
            self.details = json!({});
        }
        self.details["causes"] = Value::Array(list);
        self
    }

    /// 400: the request can't be understood.
    pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::plain(400, "BadRequest", message)
    }

    /// 401: no or bad credentials.
    pub(crate) fn unauthorized() -> ApiError {
        ApiError::plain(401, "Unauthorized", "Unauthorized")
    }

    /// 403 that says all by itself.
    pub(crate) fn denied(message: impl Into<String>) -> ApiError {
        ApiError::plain(403, "Forbidden", message)
    }

    /// 403 about an object or collection; `why` follows `is forbidden: `.
    pub(crate) fn forbidden(target: Target<'_>, why: impl AsRef<str>) -> ApiError {
        let subject = if target.name.is_empty() {
            target.resource()
        } else {
            format!("{} \"{}\"", target.resource(), target.name)
        };
        ApiError::about(403, "Forbidden", format!("{subject} is forbidden: {}", why.as_ref()), target)
    }

    /// 403 for a path that is no resource.
    pub(crate) fn forbidden_path(user: &str, verb: &str, path: &str) -> ApiError {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        ApiError { details: json!({}), ..ApiError::plain(403, "Forbidden", message) }
    }

    /// 403: the namespace is going away.
    pub(crate) fn namespace_terminating(target: Target<'_>, namespace: &str) -> ApiError {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        ApiError::forbidden(target, &why).with_causes(&[Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        }])
    }

    /// 404 for an object.
    pub(crate) fn not_found(target: Target<'_>) -> ApiError {
        let message = format!("{} \"{}\" not found", target.resource(), target.name);
        ApiError::about(404, "NotFound", message, target)
    }

    /// 404 for a path that is not served.
    pub(crate) fn no_such_path() -> ApiError {
        let text = "the server could not find the requested resource";
        ApiError { details: json!({}), ..ApiError::plain(404, "NotFound", text) }
    }

    /// 405.
    pub(crate) fn method_not_allowed(text: impl Into<String>) -> ApiError {
        ApiError { details: json!({}), ..ApiError::plain(405, "MethodNotAllowed", text) }
    }

    /// 406, listing what can be answered.
    pub(crate) fn not_acceptable(accepted: &[&str]) -> ApiError {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        ApiError::plain(406, "NotAcceptable", message)
    }

    /// 415, naming what was sent and listing what is accepted.
    pub(crate) fn unsupported_media_type(found: &str, accepted: &[&str]) -> ApiError {
        let message = format!(
            "the body of the request was in an unknown format ({found}) - accepted media types include: {}",
            accepted.join(", ")
        );
        ApiError::plain(415, "UnsupportedMediaType", message)
    }

    /// 409: the name is taken.
    pub(crate) fn already_exists(target: Target<'_>) -> ApiError {
        let message = format!("{} \"{}\" already exists", target.resource(), target.name);
        ApiError::about(409, "AlreadyExists", message, target)
    }

    /// 409: somebody wrote in between.
    pub(crate) fn modified(target: Target<'_>) -> ApiError {
        ApiError::conflict(
            target,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 with another text.
    pub(crate) fn conflict(target: Target<'_>, why: impl AsRef<str>) -> ApiError {
        let message =
            format!("Operation cannot be fulfilled on {} \"{}\": {}", target.resource(), target.name, why.as_ref());
        ApiError::about(409, "Conflict", message, target)
    }

    /// 409 of a server-side apply; `causes` are the conflicts.
    pub(crate) fn apply_conflict(message: impl Into<String>, causes: &[Cause]) -> ApiError {
        ApiError::plain(409, "Conflict", message).with_causes(causes)
    }

    /// 410: the revision or the token is forgotten. `next` is a token that goes on at the newest state.
    pub(crate) fn expired(message: impl Into<String>, next: Option<String>) -> ApiError {
        ApiError { next, ..ApiError::plain(410, "Expired", message) }
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> ApiError {
        ApiError::plain(413, "RequestEntityTooLarge", format!("the request is larger than the limit of {limit} bytes"))
    }

    /// 422: all `causes` of one object together.
    pub(crate) fn invalid(target: Target<'_>, causes: &[Cause]) -> ApiError {
        let line =
            |c: &Cause| if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) };
        let text = match causes {
            [one] => line(one),
            many => format!("[{}]", many.iter().map(line).collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{} \"{}\" is invalid: {text}", target.kind_group(), target.name);
        let mut error = ApiError::about(422, "Invalid", message, target).with_causes(causes);
        error.details["kind"] = target.kind.into();
        error
    }

    /// 422 for a patch that can't be applied, or a query that makes no sense.
    pub(crate) fn unprocessable(message: impl Into<String>) -> ApiError {
        ApiError { details: json!({}), ..ApiError::plain(422, "Invalid", message) }
    }

    /// 500.
    pub(crate) fn internal(message: impl AsRef<str>) -> ApiError {
        let message = format!("Internal error occurred: {}", message.as_ref());
        ApiError::plain(500, "InternalError", message)
    }

    /// 503: the store can't be reached. Clients try again.
    pub(crate) fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError { details: json!({"retryAfterSeconds": 1}), ..ApiError::plain(503, "ServiceUnavailable", message) }
    }

    /// 429: the client asks too much at a time.
    pub(crate) fn too_many_requests(message: impl Into<String>) -> ApiError {
        ApiError { details: json!({"retryAfterSeconds": 1}), ..ApiError::plain(429, "TooManyRequests", message) }
    }

    /// 504: the asked resourceVersion is not reached.
    pub(crate) fn future_revision(asked: u64, current: u64) -> ApiError {
        let mut error = ApiError::plain(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        )
        .with_causes(&[Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }]);
        error.details["retryAfterSeconds"] = 1.into();
        error
    }

    /// Seconds for the `Retry-After` header, if the client should wait and try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.details.get("retryAfterSeconds").and_then(Value::as_u64)
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(next) = &self.next {
            metadata["continue"] = next.clone().into();
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if self.details.is_object() {
            status["details"] = self.details.clone();
        }
        status
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> ApiError {
        match error {
            store::Error::Conflict { key, .. } => {
                ApiError::plain(409, "Conflict", format!("{key} was written by somebody else; read it and try again"))
            }
            store::Error::Compacted { asked, oldest } => {
                ApiError::expired(format!("The resourceVersion {asked} is too old; the oldest known is {oldest}"), None)
            }
            store::Error::Future { asked, current } => ApiError::future_revision(asked, current),
            store::Error::Unavailable(why) => {
                ApiError::unavailable(format!("the store is not available: {why}; try again"))
            }
            store::Error::Full(why) => ApiError::plain(
                507,
                "InsufficientStorage",
                format!("the store is full: {why}; reads go on, writes fail until an administrator makes room"),
            ),
            store::Error::TooLarge { size, .. } => ApiError {
                message: format!(
                    "the object has {size} bytes; at most {} can be stored: shorten it",
                    store::MAX_VALUE_BYTES
                ),
                ..ApiError::too_large(store::MAX_VALUE_BYTES)
            },
            store::Error::Damaged(why) => ApiError::internal(format!("the store is damaged: {why}")),
        }
    }
}

/// `Status` of something that succeeded without an object to show.
pub(crate) fn success(target: Target<'_>, uid: &str) -> Value {
    let mut details = json!({"name": target.name, "kind": target.plural, "uid": uid});
    if !target.group.is_empty() {
        details["group"] = target.group.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'_> = Target { group: "holdfast.dev", plural: "subclusters", kind: "SubCluster", name: "db" };

    #[test]
    fn messages_are_those_that_kubectl_users_know() {
        assert_eq!(ApiError::not_found(TARGET).message, "subclusters.holdfast.dev \"db\" not found");
        assert_eq!(ApiError::already_exists(TARGET).message, "subclusters.holdfast.dev \"db\" already exists");
        assert_eq!(
            ApiError::modified(TARGET).message,
            "Operation cannot be fulfilled on subclusters.holdfast.dev \"db\": the object has been modified; please \
             apply your changes to the latest version and try again"
        );
        let error = ApiError::invalid(
            TARGET,
            &[Cause::required("spec.a", ""), Cause::invalid("spec.b", &json!("x"), "must be a number")],
        );
        assert_eq!(
            error.message,
            "SubCluster.holdfast.dev \"db\" is invalid: [spec.a: Required value, spec.b: Invalid value: \"x\": must be a number]"
        );
        assert_eq!(error.details["kind"], "SubCluster");
        assert_eq!(error.details["causes"][1]["field"], "spec.b");
    }
}
