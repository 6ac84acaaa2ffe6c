//! Checks of monitors: a program, a TCP connection, a request to a web server. Each runs in a helper process, once.
//!
//! A check that finds no answer in time has failed: that is how a service that hangs is seen. One that could not be
//! carried out at all (no such program, no such name) says nothing about the service: [`crate::resources::State::Unknown`].

mod exec;
mod net;

use std::time::Duration;

use holdfast_api::v1 as api;
use serde::{Deserialize, Serialize};

use crate::resources::Verdict;

/// One check, as a helper is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// This server.
    pub server: String,
    /// The group.
    pub group: String,
    /// Number of the operation.
    pub op: u64,
    /// The monitor.
    pub monitor: api::Monitor,
    /// Longest time.
    pub timeout: Duration,
}

/// Carries it out: `Running` if all is well, `Failed` if not.
pub fn run(request: &Request) -> Verdict {
    let monitor = &request.monitor;
    if let Some(check) = &monitor.exec {
        return exec::run(check, request);
    }
    if let Some(check) = &monitor.tcp {
        return net::tcp(check, request.timeout);
    }
    if let Some(check) = &monitor.http {
        return net::http(check, request.timeout);
    }
    Verdict::unknown("the monitor has no member that this version carries out; allowed are exec, http and tcp")
}

/// A pattern as the specification has it.
fn pattern(text: &str) -> Result<regex::bytes::Regex, Verdict> {
    regex::bytes::Regex::new(text).map_err(|_| Verdict::unknown(format!("{text:?} is no regular expression")))
}

/// The sentence about a check without an end.
fn late(what: &str, limit: Duration) -> Verdict {
    Verdict::failed(format!("{what} within {limit:?}"))
}
