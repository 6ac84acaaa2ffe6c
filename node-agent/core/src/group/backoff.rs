//! Restarts in a row get further apart: no settings of restarts, windows and backoffs make a server busy with nothing but
//! starting what does not last. So do stops that fail.

use std::time::Duration;

/// Restarts in a row that follow at once: as many as the defaults of `process.restart` and `recovery` allow together. A
/// service that ends now and then does not wait.
const AT_ONCE: u32 = 5;
/// The pause before the next one; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause: as long as Kubernetes makes it for a container.
const LONGEST: Duration = Duration::from_secs(300);
/// What has run for this long begins anew.
pub(super) const STEADY: Duration = Duration::from_secs(600);

/// A stop that failed is tried again after this time: it often only had to wait for somebody's process.
pub(crate) const STOP_AGAIN: Duration = Duration::from_secs(5);
/// The longest pause between two stops: whoever removes the cause does not wait for long.
const STOP_LONGEST: Duration = Duration::from_secs(60);

/// The pause before a stop; `failed`: so many in a row have failed.
pub(crate) fn stop_pause(failed: u32) -> Duration {
    STOP_AGAIN.saturating_mul(1 << failed.saturating_sub(1).min(8)).min(STOP_LONGEST)
}

/// The pause before a restart; `count`: it is that many in a row with this one.
pub(super) fn pause(count: u32) -> Duration {
    match count.checked_sub(AT_ONCE + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_restarts_follow_at_once_and_then_the_pause_doubles_up_to_its_limit() {
        let pauses: Vec<u64> = (1..=16).map(|count| pause(count).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(u32::MAX), LONGEST);
        let stops: Vec<u64> = (1..=6).map(|failed| stop_pause(failed).as_secs()).collect();
        assert_eq!((stops, stop_pause(u32::MAX)), (vec![5, 10, 20, 40, 60, 60], STOP_LONGEST));
    }
}
