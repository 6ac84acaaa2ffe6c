//! What stands in a Lease, and what follows from it. No clock, no requests.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::Identity;

/// What a candidate does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes itself into the lease as it was seen.
    Take,
    /// Waits that long for a change.
    Wait(Duration),
}

/// The next step of the candidate `me`, who has seen this lease for as long as `unchanged`.
///
/// Safe, because a holder stops before it has been silent for the lease's duration, and `unchanged` began after its last
/// renewal. One's own lease is taken at once: [`Identity`] says why nobody else goes by that name.
pub(super) fn next(seen: Option<&Lease>, me: &str, unchanged: Duration) -> Step {
    let Some(lease) = seen else { return Step::Take };
    let holder = holder(Some(lease));
    if holder.is_empty() || Identity::same(holder, me) {
        return Step::Take;
    }
    match duration(lease).checked_sub(unchanged) {
        Some(left) if !left.is_zero() => Step::Wait(left),
        _ => Step::Take,
    }
}

/// Who holds it; empty if nobody does.
pub(super) fn holder(lease: Option<&Lease>) -> &str {
    lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref()).unwrap_or_default()
}

/// Whether `me` holds it.
pub(super) fn is_mine(lease: &Lease, me: &str) -> bool {
    Identity::same(holder(Some(lease)), me)
}

/// Whether a lease that differs from what was written last is still that of `me`, and not of somebody with the same
/// name who took it: that one would have begun a time of its own.
pub(super) fn continues(lease: &Lease, held: &Lease, me: &str) -> bool {
    let begun = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
    is_mine(lease, me) && lease.metadata.uid == held.metadata.uid && begun(lease) == begun(held)
}

/// The lease in the hands of `me`.
pub(super) fn taken(seen: Option<&Lease>, me: &str, duration: Duration, now: MicroTime) -> Lease {
    let mut lease = seen.cloned().unwrap_or_default();
    let old = lease.spec.take().unwrap_or_default();
    let transitions = match (seen, &old.holder_identity) {
        (None, _) => 0,
        (Some(_), Some(holder)) if Identity::same(holder, me) => old.lease_transitions.unwrap_or(0),
        (Some(_), _) => old.lease_transitions.unwrap_or(0).saturating_add(1),
    };
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(seconds(duration)),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions),
        ..old
    });
    lease
}

/// The lease, held on.
pub(super) fn renewed(held: &Lease, duration: Duration, now: MicroTime) -> Lease {
    let mut lease = held.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.lease_duration_seconds = Some(seconds(duration));
    spec.renew_time = Some(now);
    lease
}

/// The lease in nobody's hands.
pub(super) fn released(held: &Lease, now: MicroTime) -> Lease {
    let mut lease = held.clone();
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.acquire_time = Some(now.clone());
    spec.renew_time = Some(now);
    lease
}

/// How long the lease lasts; one that doesn't say it as long as ours.
fn duration(lease: &Lease) -> Duration {
    let given = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    given.and_then(|seconds| u64::try_from(seconds).ok()).map_or(super::DURATION, Duration::from_secs)
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).expect("a time"))
    }

    fn held_by(holder: &str) -> Lease {
        taken(None, holder, 15 * SECOND, at(100))
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_was_silent_for_its_whole_duration() {
        assert_eq!(next(None, "a_1", Duration::ZERO), Step::Take);
        let other = held_by("b_2");
        assert_eq!(next(Some(&other), "a_1", Duration::ZERO), Step::Wait(15 * SECOND));
        assert_eq!(next(Some(&other), "a_1", 14 * SECOND), Step::Wait(SECOND));
        assert_eq!(next(Some(&other), "a_1", 15 * SECOND), Step::Take);
        assert_eq!(next(Some(&released(&other, at(101))), "a_1", Duration::ZERO), Step::Take);
        // The holder's own duration counts, not ours.
        let longer = renewed(&other, 60 * SECOND, at(101));
        assert_eq!(next(Some(&longer), "a_1", 15 * SECOND), Step::Wait(45 * SECOND));
        // The same process, started again, even on another host.
        assert_eq!(next(Some(&held_by("b_1")), "a_1", Duration::ZERO), Step::Take);
    }

    #[test]
    fn the_record_counts_changes_of_hands_as_kubernetes_does() {
        let spec = |lease: &Lease| lease.spec.clone().expect("a spec");
        let first = held_by("a_1");
        assert_eq!(spec(&first).lease_transitions, Some(0));
        let renewed = renewed(&first, 15 * SECOND, at(102));
        assert_eq!((spec(&renewed).acquire_time, spec(&renewed).renew_time), (Some(at(100)), Some(at(102))));
        let again = taken(Some(&renewed), "a_1", 15 * SECOND, at(110));
        assert_eq!((spec(&again).lease_transitions, spec(&again).acquire_time), (Some(0), Some(at(110))));
        let free = released(&again, at(120));
        assert_eq!(spec(&free).holder_identity.as_deref(), Some(""));
        let next = taken(Some(&free), "b_2", 15 * SECOND, at(121));
        assert_eq!((spec(&next).lease_transitions, holder(Some(&next))), (Some(1), "b_2"));
    }

    #[test]
    fn a_second_process_of_the_same_name_is_noticed() {
        let mine = held_by("a_1");
        let late = renewed(&mine, 15 * SECOND, at(102));
        assert!(continues(&late, &mine, "a_1"), "a renewal whose answer was lost");
        assert!(!continues(&taken(Some(&mine), "a_1", 15 * SECOND, at(103)), &mine, "a_1"));
        assert!(!continues(&taken(Some(&mine), "b_2", 15 * SECOND, at(103)), &mine, "a_1"));
    }
}
