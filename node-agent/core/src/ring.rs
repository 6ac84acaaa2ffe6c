//! Which place of its ring on the lock disk a server writes next (R4, protocol-why D10).
//!
//! A write that failed may still land, much later, over whatever stands at its place by then. So a place whose last write
//! failed is left out for a while: the newest record never stands where an older one may yet arrive.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lock::LOCK_RING;
use crate::time::Instant;

/// How long a write that failed may still land. Longer than a fabric keeps a frame (10 s on Fibre Channel) and than a
/// SCSI command may run (30 s by Linux' default).
pub(crate) const LATE: Duration = Duration::from_secs(60);

/// Places that may be left out at once: with fewer than this left, the newest record would soon be overwritten by the
/// next but one write.
const MOST_DOUBTFUL: usize = 5;

/// The places of the own ring in which a late write may land, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Ring {
    doubtful: BTreeMap<u64, Instant>,
    begun: bool,
}

impl Ring {
    /// The number of the next record. `issued`: the highest number given out so far, over restarts of the process as far
    /// as the ledger knows; `landed`: the highest number read. `None`: too many places are in doubt.
    pub(crate) fn next(&mut self, now: Instant, issued: u64, landed: u64) -> Option<u64> {
        if !self.begun {
            // What an older process gave to the disk, and the one that it may have been about to give.
            self.begun = true;
            let unseen = landed + 1..=issued.max(landed) + 1;
            self.doubtful.extend(unseen.rev().take(LOCK_RING as usize).map(|number| (number % LOCK_RING, now)));
        }
        self.doubtful.retain(|_, since| now.since(*since) < LATE);
        if self.is_full(now) {
            return None;
        }
        let first = issued.max(landed) + 1;
        (first..first + LOCK_RING).find(|number| !self.doubtful.contains_key(&(number % LOCK_RING)))
    }

    /// The write of this record failed or had no answer: it may land late.
    pub(crate) fn failed(&mut self, now: Instant, number: u64) {
        self.doubtful.insert(number % LOCK_RING, now);
    }

    /// Whether so many writes may still land that none may be added.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.doubtful.values().filter(|since| now.since(**since) < LATE).count() > MOST_DOUBTFUL
    }

    /// Every number moves by so many.
    #[cfg(feature = "planted")]
    pub(crate) fn turn(&mut self, by: i64) {
        let turned = |place: u64| (place as i64 + by).rem_euclid(LOCK_RING as i64) as u64;
        self.doubtful = std::mem::take(&mut self.doubtful).into_iter().map(|(place, at)| (turned(place), at)).collect();
    }

    /// When the first place is free again.
    pub(crate) fn free_at(&self) -> Option<Instant> {
        self.doubtful.values().min().map(|since| *since + LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_failed_write_is_left_out_until_it_can_not_land_any_more() {
        let (mut ring, start) = (Ring { begun: true, ..Ring::default() }, Instant(0));
        assert_eq!(ring.next(start, 7, 7), Some(8));
        ring.failed(start, 8);
        let numbers = (0..).scan(8, |issued, _| {
            *issued = ring.next(start, *issued, 7)?;
            Some(*issued)
        });
        assert!(numbers.take(100).all(|number| number % LOCK_RING != 0));
        assert_eq!(ring.next(start + LATE, 15, 15), Some(16));
    }

    #[test]
    fn a_new_process_leaves_out_what_an_older_one_may_have_written_last() {
        let mut ring = Ring::default();
        assert_eq!(ring.next(Instant(0), 9, 7), Some(11), "8 and 9 were given to the disk, 10 perhaps");
    }

    #[test]
    fn with_most_places_in_doubt_nothing_is_written() {
        let mut ring = Ring { begun: true, ..Ring::default() };
        (1..=6).for_each(|number| ring.failed(Instant(0), number));
        assert_eq!(ring.next(Instant(0), 6, 0), None);
        assert_eq!(ring.free_at(), Some(Instant(0) + LATE));
    }
}
