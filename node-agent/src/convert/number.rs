//! One number for a specification, by which servers tell a newer one from an older one: its generation, and before that how
//! often an operator accepted what a restored store has ([`api::AcceptSpec`]).

use holdfast_api::v1 as api;
use holdfast_core::config::ACCEPTANCE;

/// The number of an object's specification.
pub fn number(generation: Option<i64>, accepted: Option<&api::AcceptSpec>) -> u64 {
    let generation = generation.and_then(|g| u64::try_from(g).ok()).unwrap_or(0).min(ACCEPTANCE - 1);
    accepted.map_or(0, |accepted| u64::from(accepted.acceptances)) * ACCEPTANCE + generation
}

/// The number of a group's specification.
pub fn of_group(group: &api::FailoverGroup) -> u64 {
    number(group.metadata.generation, group.status.as_ref().and_then(|status| status.accept_spec.as_ref()))
}

/// The number of a sub-cluster's specification.
pub fn of_sub_cluster(sub: &api::SubCluster) -> u64 {
    number(sub.metadata.generation, sub.status.as_ref().and_then(|status| status.accept_spec.as_ref()))
}

/// The generation in a number.
pub fn generation(number: u64) -> Option<i64> {
    i64::try_from(number % ACCEPTANCE).ok()
}

/// The acceptances in a number; none: no Operation.
pub fn acceptances(number: u64) -> Option<u32> {
    u32::try_from(number / ACCEPTANCE).ok().filter(|count| *count > 0)
}
