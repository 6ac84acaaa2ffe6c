//! Query parameters of requests, checked: what a list, a watch, a write and a deletion are asked to do.

use http::Uri;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// Parameters in order of appearance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Splits and decodes the query of a URI.
    pub(crate) fn of(uri: &Uri) -> ApiResult<Query> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|query| Query(query.0))
            .map_err(|e| ApiError::bad_request(format!("the query can't be read: {e}")))
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// True if the parameter is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// A switch: present and neither `false` nor `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "false" | "0" | "False" | "FALSE"))
    }

    fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("query parameter {name}: {text:?} is not a non-negative integer"))
            }),
        }
    }
}

/// Which state a read may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The newest.
    Newest,
    /// Whatever is in memory.
    Any,
    /// Not older than this revision.
    AtLeast(u64),
    /// Exactly this revision.
    Exact(u64),
}

/// What a list or watch asks for.
#[derive(Debug, Clone)]
pub(crate) struct ListOptions {
    /// `labelSelector` as given.
    pub(crate) label_selector: String,
    /// `fieldSelector` as given.
    pub(crate) field_selector: String,
    /// Objects per page, 0 = all.
    pub(crate) limit: usize,
    /// Continue token, empty on the first page.
    pub(crate) next: String,
    /// Demanded state.
    pub(crate) freshness: Freshness,
    /// `timeoutSeconds`.
    pub(crate) timeout: Option<u64>,
    /// Bookmarks are wanted.
    pub(crate) bookmarks: bool,
    /// Streaming list.
    pub(crate) initial_events: bool,
}

impl ListOptions {
    /// Reads the options; `watch` tells which rules hold for the resourceVersion.
    pub(crate) fn of(query: &Query, watch: bool) -> ApiResult<ListOptions> {
        let next = query.text("continue").to_owned();
        let rv = query.text("resourceVersion");
        let revision = parse_revision(rv)?;
        let rule = query.text("resourceVersionMatch");
        let initial_events = query.flag("sendInitialEvents");
        if watch {
            match (query.has("sendInitialEvents"), rule) {
                (false, "") | (true, "NotOlderThan") => {}
                (true, _) => {
                    return Err(ApiError::unprocessable(
                        "resourceVersionMatch: Forbidden: sendInitialEvents requires resourceVersionMatch=NotOlderThan",
                    ));
                }
                (false, _) => {
                    return Err(ApiError::unprocessable(
                        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
                         sendInitialEvents is provided",
                    ));
                }
            }
        } else if query.has("sendInitialEvents") {
            return Err(ApiError::unprocessable("sendInitialEvents: Forbidden: sendInitialEvents is for watches only"));
        }
        if !next.is_empty() && revision.is_some_and(|r| r > 0) {
            return Err(ApiError::bad_request("specifying resourceVersion is not allowed when using continue"));
        }
        let freshness = match (revision, rule) {
            (None, "") => Freshness::Newest,
            (None, "NotOlderThan") if watch => Freshness::Newest,
            (None, _) => {
                return Err(ApiError::unprocessable(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            (Some(0), "Exact") => {
                return Err(ApiError::unprocessable(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
            (Some(0), "" | "NotOlderThan") => Freshness::Any,
            (Some(revision), "" | "NotOlderThan") => Freshness::AtLeast(revision),
            (Some(revision), "Exact") => Freshness::Exact(revision),
            (_, other) => {
                return Err(ApiError::unprocessable(format!(
                    "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
                )));
            }
        };
        let limit = query.number("limit")?.unwrap_or(0);
        Ok(ListOptions {
            label_selector: query.text("labelSelector").into(),
            field_selector: query.text("fieldSelector").into(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            next,
            freshness,
            timeout: query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
        })
    }
}

/// A resourceVersion given by a client; none if empty.
pub(crate) fn parse_revision(text: &str) -> ApiResult<Option<u64>> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("Invalid value: resourceVersion {text:?} is not a number"))),
    }
}

/// What happens to unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning each.
    Warn,
    /// The request is refused.
    Strict,
}

/// Options of POST, PUT and PATCH.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    /// Everything but storing.
    pub(crate) dry_run: bool,
    /// Level of field validation.
    pub(crate) validation: FieldValidation,
    /// Manager as given, empty if not.
    pub(crate) manager: String,
    /// An apply takes fields over from others.
    pub(crate) force: bool,
}

impl WriteOptions {
    /// Reads the options.
    pub(crate) fn of(query: &Query) -> ApiResult<WriteOptions> {
        let validation = match query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                return Err(ApiError::unprocessable(format!(
                    "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let manager = query.text("fieldManager");
        if manager.len() > 128 || manager.chars().any(char::is_control) {
            return Err(ApiError::unprocessable(format!(
                "fieldManager: Invalid value: {manager:?}: must be at most 128 printable characters"
            )));
        }
        Ok(WriteOptions {
            dry_run: dry_run(query.get("dryRun"))?,
            validation,
            manager: manager.to_owned(),
            force: query.flag("force"),
        })
    }
}

fn dry_run(value: Option<&str>) -> ApiResult<bool> {
    match value {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            Err(ApiError::unprocessable(format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\"")))
        }
    }
}

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They go after the owner.
    Background,
    /// They go before the owner.
    Foreground,
    /// They stay without an owner.
    Orphan,
}

/// Options of DELETE, from body and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    /// Everything but storing.
    pub(crate) dry_run: bool,
    /// What happens to dependents; none: whatever the finalizers already say, else Background.
    pub(crate) propagation: Option<Propagation>,
    /// The uid that the object must have.
    pub(crate) uid: Option<String>,
    /// The resourceVersion that the object must have.
    pub(crate) revision: Option<String>,
}

impl DeleteOptions {
    /// Reads the options; what the body says goes before the query.
    pub(crate) fn of(query: &Query, body: &Value) -> ApiResult<DeleteOptions> {
        if !body.is_null() {
            let kind = body.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
            if !body.is_object() || kind != "DeleteOptions" {
                return Err(ApiError::bad_request(format!(
                    "the body must be a DeleteOptions object, found kind {kind:?}"
                )));
            }
        }
        let field = |name: &str| body.get(name).and_then(Value::as_str).or(query.get(name)).filter(|v| !v.is_empty());
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        let orphan = orphan.or(query.has("orphanDependents").then(|| query.flag("orphanDependents")));
        let propagation = match (field("propagationPolicy"), orphan) {
            (Some(_), Some(_)) => {
                return Err(ApiError::unprocessable(
                    "DeleteOptions is invalid: propagationPolicy: Invalid value: orphanDependents and propagationPolicy \
                     can't be set together",
                ));
            }
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), None) => {
                return Err(ApiError::unprocessable(format!(
                    "DeleteOptions is invalid: propagationPolicy: Unsupported value: \"{other}\": supported values: \
                     \"Background\", \"Foreground\", \"Orphan\""
                )));
            }
        };
        let dry = body.get("dryRun").and_then(Value::as_array).and_then(|list| list.first()).and_then(Value::as_str);
        let precondition =
            |name: &str| body.get("preconditions").and_then(|p| p.get(name)).and_then(Value::as_str).map(str::to_owned);
        Ok(DeleteOptions {
            dry_run: dry_run(dry.or(query.get("dryRun")))?,
            propagation,
            uid: precondition("uid"),
            revision: precondition("resourceVersion"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().expect("a URI")).expect("a query")
    }

    #[test]
    fn list_options_refuse_contradictions() {
        let of = |text: &str, watch| ListOptions::of(&query(text), watch).map(|o| o.freshness).map_err(|e| e.code);
        assert_eq!(of("", false), Ok(Freshness::Newest));
        assert_eq!(of("resourceVersion=0", false), Ok(Freshness::Any));
        assert_eq!(of("resourceVersion=7&resourceVersionMatch=Exact", false), Ok(Freshness::Exact(7)));
        assert_eq!(of("resourceVersionMatch=Exact", false), Err(422));
        assert_eq!(of("resourceVersion=0&resourceVersionMatch=Exact", false), Err(422));
        assert_eq!(of("resourceVersion=x", false), Err(400));
        assert_eq!(of("continue=abc&resourceVersion=7", false), Err(400));
        assert_eq!(of("sendInitialEvents=true", true), Err(422));
        assert_eq!(of("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true), Ok(Freshness::Newest));
    }

    #[test]
    fn delete_options_come_from_body_and_query() {
        let options = DeleteOptions::of(
            &query("propagationPolicy=Background"),
            &json!({"kind": "DeleteOptions", "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}}),
        )
        .expect("valid");
        assert_eq!((options.propagation, options.uid.as_deref()), (Some(Propagation::Foreground), Some("u")));
        assert!(DeleteOptions::of(&query("dryRun=Some"), &Value::Null).is_err());
        assert!(DeleteOptions::of(&query(""), &json!({"propagationPolicy": "Never"})).is_err());
    }
}
