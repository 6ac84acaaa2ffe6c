//! Time as a value.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on this server's CLOCK_BOOTTIME, in nanoseconds: it never jumps and counts suspend (domain.md §4.3).
/// Moments of two servers can't be compared; only durations travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// The beginning of the clock; also "never" where a moment only matters if it is recent.
    pub const ZERO: Instant = Instant(0);

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// One moment of many at which debug builds check what would cost too much at each.
    #[cfg(debug_assertions)]
    pub(crate) fn is_sample(self) -> bool {
        (self.0 / 1000).is_multiple_of(32)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}
