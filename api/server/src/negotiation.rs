//! Media types both ways: what a body is, which form the answer has, and the answer's headers.

use std::io::Write;

use crate::ops::Content;
use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::decode::{Decoded, decode};
use crate::error::{ApiError, ApiResult};
use crate::protobuf;

/// The largest request body, in bytes; the same as on a stock server.
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Answers from this size on are compressed when the client can read that; the same as on a stock server.
const GZIP_FROM: usize = 128 * 1024;
const BODIES: &[&str] = &["application/json", "application/yaml"];
const ANSWERS: &[&str] = &["application/json", "application/yaml"];

/// The shape of an answer to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The objects themselves.
    Full,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// Only metadata.
    Metadata,
    /// A discovery document of this version (`v2` or `v2beta1`) in the aggregated form.
    Discovery(&'static str),
}

/// Shape and encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Which shape.
    pub(crate) shape: Shape,
    /// YAML instead of JSON.
    pub(crate) yaml: bool,
}

/// Which transformed shapes an endpoint can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Objects, Table, metadata.
    Objects,
    /// Plain documents only.
    Plain,
    /// Plain or aggregated discovery.
    Discovery,
}

struct MediaRange<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> MediaRange<'a> {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).collect();
        let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        MediaRange { kind, parameters, quality }
    }

    fn get(&self, name: &str) -> &str {
        self.parameters.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v)
    }

    fn accepted(&self, offer: Offer) -> Option<Accepted> {
        let yaml = match self.kind {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let shape = match (offer, self.get("as"), self.get("g"), self.get("v")) {
            (_, "", _, _) => Shape::Full,
            (Offer::Objects, "Table", "meta.k8s.io", "v1") => Shape::Table,
            (Offer::Objects, "PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Shape::Metadata
            }
            (Offer::Discovery, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Shape::Discovery("v2"),
            (Offer::Discovery, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                Shape::Discovery("v2beta1")
            }
            _ => return None,
        };
        Some(Accepted { shape, yaml })
    }
}

/// Chooses the answer's form: the first acceptable entry of the highest quality.
pub(crate) fn accept(headers: &HeaderMap, offer: Offer) -> ApiResult<Accepted> {
    let texts: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let mut ranges: Vec<MediaRange<'_>> = texts
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|t| !t.trim().is_empty())
        .map(MediaRange::parse_trimmed)
        .collect();
    if ranges.is_empty() {
        return Ok(Accepted { shape: Shape::Full, yaml: false });
    }
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let found = ranges.iter().filter(|r| r.quality > 0.0).find_map(|range| range.accepted(offer));
    found.ok_or_else(|| ApiError::not_acceptable(ANSWERS))
}

impl<'a> MediaRange<'a> {
    fn parse_trimmed(text: &'a str) -> MediaRange<'a> {
        MediaRange::parse(text.trim())
    }
}

/// The media type of a request body without parameters; JSON if absent.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        kind => kind,
    }
}

/// Decodes a body that is an object in JSON or YAML, or a built-in kind in protobuf.
pub(crate) fn read_body(headers: &HeaderMap, body: &Bytes, builtin: bool) -> ApiResult<Decoded> {
    let yaml = match content_type(headers) {
        "application/json" => false,
        "application/yaml" => true,
        protobuf::MEDIA_TYPE if builtin => {
            let value = protobuf::decode(body).map_err(ApiError::bad_request)?;
            return Ok(Decoded { value, duplicates: Vec::new() });
        }
        other => return Err(ApiError::unsupported_media_type(other, BODIES)),
    };
    decode(body, yaml).map_err(ApiError::bad_request)
}

/// Writes an answer.
pub(crate) fn respond(
    status: StatusCode,
    content: Content,
    accepted: Accepted,
    pretty: bool,
    warnings: &[String],
) -> Response<Body> {
    let content = match content {
        Content::Text(text) if accepted.yaml || pretty => match serde_json::from_slice(&text.whole()) {
            Ok(value) => Content::Tree(value),
            Err(error) => return respond_error(&ApiError::internal(error.to_string())),
        },
        other => other,
    };
    let (body, kind) = match content {
        Content::Text(text) => (Body::new(text), "application/json"),
        Content::Tree(value) if accepted.yaml => match serde_yaml::to_string(&value) {
            Ok(text) => (Body::from(text), "application/yaml"),
            Err(error) => return respond_error(&ApiError::internal(error.to_string())),
        },
        Content::Tree(value) if pretty => (Body::from(format!("{value:#}\n")), "application/json"),
        Content::Tree(value) => (Body::from(format!("{value}\n")), "application/json"),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    add_warnings(headers, warnings);
    response
}

/// Writes an error as a Status.
pub(crate) fn respond_error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let plain = Accepted { shape: Shape::Full, yaml: false };
    let mut response = respond(status, error.status().into(), plain, false, &[]);
    if let Some(seconds) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds one `Warning` header per text.
pub(crate) fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append("warning", value);
        }
    }
}

/// Compresses a large answer if the client can read that. Streams are left alone: they have no known size.
pub(crate) async fn compress(request: &HeaderMap, response: Response<Body>) -> Response<Body> {
    use axum::body::HttpBody as _;
    let wanted = request.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains("gzip"));
    let large = response.body().size_hint().exact().is_some_and(|size| size >= GZIP_FROM as u64);
    if !wanted || !large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return respond_error(&ApiError::internal("the answer could not be read back"));
    };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.remove(http::header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(packed))
        }
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &'static str, offer: Offer) -> Result<Shape, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(text));
        accept(&headers, offer).map(|a| a.shape).map_err(|e| e.code)
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(choose(kubectl, Offer::Objects), Ok(Shape::Table));
        assert_eq!(choose(kubectl, Offer::Plain), Ok(Shape::Full));
        assert_eq!(choose("application/vnd.kubernetes.protobuf,application/json", Offer::Objects), Ok(Shape::Full));
        assert_eq!(choose("application/vnd.kubernetes.protobuf", Offer::Objects), Err(406));
        assert_eq!(choose("application/cbor", Offer::Objects), Err(406));
        assert_eq!(choose("*/*", Offer::Discovery), Ok(Shape::Full));
        let go = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(choose(go, Offer::Discovery), Ok(Shape::Discovery("v2")));
        assert_eq!(
            choose("application/json;q=0.1, application/json;as=Table;g=meta.k8s.io;v=v1", Offer::Objects),
            Ok(Shape::Table)
        );
    }
}
