//! The two clocks of the agent: CLOCK_BOOTTIME for everything that decides, wall time for what people read.
//!
//! The core never sees either; it gets moments as values.

use std::time::Duration;

use holdfast_core::time::Instant;
use k8s_openapi::jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Now on CLOCK_BOOTTIME: never jumps, counts suspend, the same for every process of this boot.
///
/// # Panics
/// If the kernel has no CLOCK_BOOTTIME: every Linux since 2.6.39 has it.
pub fn now() -> Instant {
    let t = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists on every supported kernel");
    let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// A moment of this boot as a time that people read, computed from the present wall time: a wall clock that was set in
/// between shifts it, which is why nothing is ever decided by it.
pub fn wall(moment: Instant, now: Instant, wall_now: Timestamp) -> Timestamp {
    let shift = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    let nanos = if moment <= now { -shift(now.since(moment)) } else { shift(moment.since(now)) };
    wall_now.checked_add(k8s_openapi::jiff::SignedDuration::from_nanos(nanos)).unwrap_or(wall_now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_distance_from_now() {
        let wall_now: Timestamp = "2026-03-02T01:00:00Z".parse().unwrap();
        let at = wall(Instant(5_000_000_000), Instant(8_000_000_000), wall_now);
        assert_eq!(at.to_string(), "2026-03-02T00:59:57Z");
    }

    #[test]
    fn the_clock_is_the_one_of_proc_uptime() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
        let now = now().0 as f64 / 1e9;
        assert!((now - uptime).abs() < 5.0, "BOOTTIME {now} s, /proc/uptime {uptime} s");
    }
}
