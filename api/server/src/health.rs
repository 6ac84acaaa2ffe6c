//! `/healthz`, `/livez`, `/readyz`: readable by everybody, one line per check with `?verbose`.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use crate::query::Query;
use crate::state::State;

/// Answers a health path; none if the check named behind it does not exist.
pub(crate) fn respond(state: &State, endpoint: &str, check: Option<&str>, query: &Query) -> Option<Response<Body>> {
    let mut checks: Vec<(&str, Option<String>)> = vec![("ping", None)];
    if endpoint != "livez" {
        let unread = (state.feed.applied() == 0).then(|| "the objects are still being read".to_owned());
        checks.push(("store", state.feed.lost()));
        checks.push(("caches", unread));
    }
    if endpoint == "readyz" {
        checks.push(("shutdown", state.stopping.borrow().then(|| "the server is stopping".to_owned())));
    }
    if let Some(name) = check {
        checks.retain(|(check, _)| *check == name);
        if checks.is_empty() {
            return None;
        }
    }
    let failed = checks.iter().any(|(_, failure)| failure.is_some());
    let mut text = String::new();
    if failed || query.has("verbose") {
        for (name, failure) in &checks {
            match failure {
                None => text += &format!("[+]{name} ok\n"),
                Some(why) => text += &format!("[-]{name} failed: {why}\n"),
            }
        }
        text += &format!("{endpoint} check {}\n", if failed { "failed" } else { "passed" });
    } else {
        text += "ok";
    }
    let mut response = Response::new(Body::from(text));
    if failed {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(response)
}
