//! How long a server remembers that a group failed on it: `failureDecay`, and twice as long after each further failure
//! there in a row, up to a day. So a group that fails wherever it is tried is tried again less and less often, and not with
//! the same rhythm for ever; meanwhile it stays where it is good, or is down with the reason.
//!
//! It is in a row if the group fails again before it has been well there for as long as the last failure was remembered,
//! and ten minutes more: what takes a while to fail is no better. A new specification begins anew: it may be the cure.

use std::time::Duration;

use crate::time::Instant;

/// Longest memory, if `failureDecay` is not longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The least time for which it has to be well.
const STEADY: Duration = Duration::from_secs(600);

/// Failures of one group on this server in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Relapse {
    /// Of the specification that failed.
    generation: u64,
    count: u32,
    at: Instant,
    memory: Duration,
}

impl Relapse {
    /// It has failed now. `known`: what is known of the failure before.
    pub(crate) fn after(known: Option<&Relapse>, now: Instant, generation: u64, decay: Duration) -> Relapse {
        let in_a_row = known.filter(|known| known.generation == generation && known.counts(now));
        let count = in_a_row.map_or(1, |known| known.count.saturating_add(1));
        let doubled = decay.saturating_mul(1 << (count - 1).min(31));
        Relapse { generation, count, at: now, memory: doubled.min(LONGEST.max(decay)) }
    }

    /// Whether the failure still speaks against this server.
    pub(crate) fn is_remembered(&self, now: Instant) -> bool {
        now.since(self.at) < self.memory
    }

    /// Whether a failure now would be one in a row.
    pub(crate) fn counts(&self, now: Instant) -> bool {
        now.since(self.at) < self.memory * 2 + STEADY
    }

    /// For people, if it is more than one failure.
    pub(crate) fn words(&self) -> Option<String> {
        let seconds = self.memory.as_secs();
        (self.count > 1)
            .then(|| format!("failed here {} times in a row; not tried here again for {seconds} s", self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_doubles_with_each_failure_in_a_row_and_a_good_time_or_a_new_specification_ends_the_row() {
        let (hour, mut now) = (Duration::from_secs(3600), Instant(1));
        let mut known = None;
        let mut hours = Vec::new();
        for _ in 0..7 {
            let relapse = Relapse::after(known.as_ref(), now, 1, hour);
            hours.push(relapse.memory.as_secs() / 3600);
            now = now + relapse.memory;
            assert!(!relapse.is_remembered(now) && relapse.counts(now));
            known = Some(relapse);
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 24, 24]);
        assert_eq!(Relapse::after(known.as_ref(), now, 2, hour).memory, hour, "another specification");
        let well = now + LONGEST + STEADY;
        assert_eq!(Relapse::after(known.as_ref(), well, 1, hour).memory, hour, "it was well for more than a day");
        let second = Duration::from_secs(1);
        let first = Relapse::after(None, now, 1, second);
        let again = Relapse::after(Some(&first), now + Duration::from_secs(300), 1, second);
        assert_eq!(again.memory, second * 2, "a short memory makes no short row");
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(Relapse::after(None, now, 1, week).memory, week, "as declared");
    }
}
