//! OpenAPI documents of everything that is served, made once from the registry, and the answers to requests for them.
//!
//! ```text
//!  registry ─▶ schemas (kinds, lists, metadata) ─┬─▶ v3: one document per group and version
//!           └▶ operations (paths, verbs) ────────┴─▶ v2: one document ─▶ protobuf
//! ```
//!
//! Everything here is pure: the same registry gives the same bytes. kubectl reads v3 for `explain` and to learn what
//! the PATCH operations can do; other clients read v2, some of them only as protobuf.
//!
//! What it deliberately does not do: describe v3 as protobuf. Clients that can read it can read JSON too.

mod meta;
mod operations;
mod protobuf;
mod schemas;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{ApiError, ApiResult};
use crate::registry::ResourceDef;

const JSON: &str = "application/json";
/// The form of v2 that Go clients ask for, in its two spellings; the second one is what the answer says.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// All documents, ready to be sent.
#[derive(Debug)]
pub(crate) struct Documents {
    index: Document,
    /// By `api/v1` or `apis/GROUP/VERSION`.
    v3: BTreeMap<String, Document>,
    v2: Document,
    v2_protobuf: Document,
}

#[derive(Debug)]
struct Document {
    body: Bytes,
    hash: String,
    media: &'static str,
}

impl Documents {
    /// Describes `defs`.
    pub(crate) fn new(defs: &[Arc<ResourceDef>]) -> Self {
        let schemas = schemas::all(defs);
        let v3: BTreeMap<String, Document> =
            v3::documents(defs, &schemas).into_iter().map(|(path, value)| (path, Document::json(&value))).collect();
        let urls: serde_json::Map<String, Value> = v3
            .iter()
            .map(|(path, document)| {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        let v2 = v2::document(defs, &schemas);
        Self {
            index: Document::json(&json!({"paths": urls})),
            v3,
            v2_protobuf: Document::new(protobuf::document(&v2), PROTOBUF[1]),
            v2: Document::json(&v2),
        }
    }

    /// Answers `GET` of `path`, which begins with `/openapi/`; `query` is the part of the URL after `?`.
    ///
    /// # Errors
    /// 404 for a path that does not exist, 406 if the client accepts no form that exists.
    pub(crate) fn answer(&self, path: &str, query: Option<&str>, headers: &HeaderMap) -> ApiResult<Response<Bytes>> {
        let path = path.trim_end_matches('/');
        if path == "/openapi/v2" {
            let document = match accepted(headers, &[JSON, PROTOBUF[0], PROTOBUF[1]])? {
                JSON => &self.v2,
                _ => &self.v2_protobuf,
            };
            return Ok(document.respond(headers, false));
        }
        if path == "/openapi/v3" {
            accepted(headers, &[JSON])?;
            return Ok(self.index.respond(headers, false));
        }
        let (key, document) = path
            .strip_prefix("/openapi/v3/")
            .and_then(|key| self.v3.get_key_value(key))
            .ok_or_else(ApiError::no_such_path)?;
        accepted(headers, &[JSON])?;
        let asked = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("hash="));
        Ok(match asked {
            Some(hash) if hash != document.hash => moved(&format!("/openapi/v3/{key}?hash={}", document.hash)),
            Some(_) => document.respond(headers, true),
            None => document.respond(headers, false),
        })
    }
}

impl Document {
    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes(), JSON)
    }

    fn new(body: Vec<u8>, media: &'static str) -> Self {
        let hash = Sha256::digest(&body).iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02X}");
            text
        });
        Self { body: Bytes::from(body), hash, media }
    }

    /// The document, or 304 if the client has it. With `for_ever` it may be kept without asking again.
    fn respond(&self, headers: &HeaderMap, for_ever: bool) -> Response<Bytes> {
        let etag = format!("\"{}\"", self.hash);
        let has_it = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim().trim_start_matches("W/") == etag || tag.trim() == "*");
        let mut response = Response::new(if has_it { Bytes::new() } else { self.body.clone() });
        if has_it {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let head = response.headers_mut();
        head.insert(CONTENT_TYPE, HeaderValue::from_static(self.media));
        head.insert(VARY, HeaderValue::from_static("Accept"));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            head.insert(ETAG, etag);
        }
        if for_ever {
            head.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            head.insert(EXPIRES, HeaderValue::from_static("Fri, 31 Dec 9999 23:59:59 GMT"));
        } else {
            head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        }
        response
    }
}

fn moved(to: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// The first media type of the client's list that is offered. The first offer is meant by `*/*` and by no list.
fn accepted<'a>(headers: &HeaderMap, offered: &[&'a str]) -> ApiResult<&'a str> {
    let mut asked = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|entry| entry.split(';').next().unwrap_or_default().trim())
        .filter(|entry| !entry.is_empty())
        .peekable();
    if asked.peek().is_none() {
        return Ok(offered[0]);
    }
    asked
        .find_map(|entry| match entry {
            "*/*" | "application/*" => Some(offered[0]),
            entry => offered.iter().copied().find(|offer| offer.eq_ignore_ascii_case(entry)),
        })
        .ok_or_else(|| ApiError::not_acceptable(offered))
}

#[cfg(test)]
mod tests;
