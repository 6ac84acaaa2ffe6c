//! One file per kind with the reading and writing; what is decided stands in pure functions beside it.

mod contents;
pub(crate) mod data_service;
pub(crate) mod failover_group;
pub(crate) mod operation;
pub(crate) mod reporting;
pub(crate) mod server;
pub(crate) mod sub_cluster;
pub(crate) mod super_cluster;
pub(crate) mod unusable;

use std::time::Duration;

use holdfast_api::conditions;
use holdfast_api::reasons::{accepted, condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

/// Why an object is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// One of `reasons::accepted`.
    pub(crate) reason: &'static str,
    /// What was found, what is allowed, what to do.
    pub(crate) message: String,
}

impl Rejection {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Sets the condition `Accepted` for the generation that was looked at.
pub(crate) fn set_accepted(
    conditions: &mut Vec<Condition>,
    meta: &ObjectMeta,
    verdict: &Result<(), Rejection>,
    now: Timestamp,
) {
    let (state, reason, message) = match verdict {
        Ok(()) => (true, accepted::ACCEPTED, ""),
        Err(rejection) => (false, rejection.reason, rejection.message.as_str()),
    };
    conditions::set(conditions, condition::ACCEPTED, state, reason, message, meta.generation, now);
}

/// Whether exactly this generation was accepted.
pub(crate) fn is_accepted(conditions: &[Condition], meta: &ObjectMeta) -> bool {
    conditions::is_true_for(conditions, condition::ACCEPTED, meta.generation)
}

/// Whether the condition speaks of this generation, with whatever verdict.
pub(crate) fn is_decided(conditions: &[Condition], meta: &ObjectMeta) -> bool {
    conditions::get(conditions, condition::ACCEPTED).is_some_and(|c| c.observed_generation == meta.generation)
}

/// The annotation that confirms a deletion; its value must be the name of the object.
pub(crate) const CONFIRM_DELETE: &str = "holdfast.dev/confirm-delete";

/// Whether the deletion was confirmed by name.
pub(crate) fn deletion_confirmed(meta: &ObjectMeta) -> bool {
    let confirmed = meta.annotations.as_ref().and_then(|annotations| annotations.get(CONFIRM_DELETE));
    confirmed.is_some() && confirmed == meta.name.as_ref()
}

/// Names as in a sentence: `a`, `a and b`, `a, b and c`.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_string(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// From `now` until `then`, at least a moment, so that a deadline that is due is not waited for in a circle.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default().max(Duration::from_millis(50))
}
