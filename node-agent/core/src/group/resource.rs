//! One resource of a group on this server: the state that it is in, and what is counted about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff;
use crate::config::ResourceConfig;
use crate::output::OpId;
use crate::planted::planted;
use crate::status::{GroupPhase, ResourceReport};
use crate::time::Instant;

/// Checks that are due within this time begin together: the rules are looked at once for all of them.
const SLOT: Duration = Duration::from_millis(100);

/// The end of the slot that a moment is in.
pub(super) fn slot(at: Instant) -> Instant {
    let length = u64::try_from(SLOT.as_nanos()).unwrap_or(1);
    Instant(at.0.div_ceil(length).saturating_mul(length))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    NeedsProbe,
    Probing(OpId),
    Stopped,
    Starting(OpId, Instant),
    Running,
    NeedsStop,
    Stopping(OpId),
    Stuck(Instant),
    GivenUp,
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Resource {
    pub(super) state: State,
    /// Moments of restarts by its recovery.
    pub(super) restarts: Vec<Instant>,
    /// Moments of restarts before its recovery was asked.
    pub(super) in_place: Vec<Instant>,
    /// Not started again before.
    pub(super) not_before: Instant,
    pub(super) restarted: u32,
    /// It is on its way down and up again for its own sake, not only because of what it requires.
    pub(super) restarting: bool,
    /// Restarts since it was steady last.
    pub(super) in_a_row: u32,
    /// Since when it runs, if it does.
    pub(super) since: Instant,
    pub(super) message: String,
    /// Its own checks by depth. One that is missing is due at once: it is new in the specification.
    pub(super) looks: BTreeMap<u8, Look>,
    /// The check under way and its depth. One at a time: what a deep one does must not disturb a plain one.
    pub(super) check: Option<(OpId, u8)>,
    /// To be given up once stopped.
    pub(super) give_up: bool,
    /// Stops that have failed since one succeeded.
    pub(super) failed_stops: u32,
}

/// A check of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Look {
    pub(super) next: Instant,
    /// Failures in a row. Of this depth: what a plain check does not see, it can't take back either.
    pub(super) misses: u32,
}

impl Resource {
    pub(super) fn new(state: State, now: Instant) -> Resource {
        Resource {
            state,
            restarts: Vec::new(),
            in_place: Vec::new(),
            not_before: now,
            restarted: 0,
            restarting: false,
            in_a_row: 0,
            since: now,
            message: String::new(),
            looks: BTreeMap::new(),
            check: None,
            give_up: false,
            failed_stops: 0,
        }
    }

    /// It runs, and nothing is known of how well.
    pub(super) fn runs(&mut self, now: Instant, config: &ResourceConfig) {
        self.state = State::Running;
        self.since = now;
        self.looks =
            config.checks.iter().map(|(d, c)| (*d, Look { next: slot(now + c.interval), misses: 0 })).collect();
    }

    /// It is to be started again, not before this pause is over.
    pub(super) fn again(&mut self, now: Instant, pause: Duration) {
        self.restarted += 1;
        self.restarting = true;
        self.in_a_row += 1;
        let pause = pause.max(backoff::pause(self.in_a_row));
        self.not_before = now + pause;
        if !pause.is_zero() {
            self.message =
                format!("{}; restart {} in a row, after {} ms", self.message, self.in_a_row, pause.as_millis());
        }
    }

    /// A stop failed. It counts as running, and the stop is tried again.
    pub(super) fn stuck(&mut self, now: Instant, message: &str) {
        self.failed_stops = self.failed_stops.saturating_add(1);
        let pause = backoff::stop_pause(self.failed_stops);
        self.state = State::Stuck(now + pause);
        self.message = format!(
            "{message}; {} stops in a row failed, the next one follows in {} s, or at once by holdfast clear-failures; end \
             what still runs of it here, it is started nowhere before that is proven",
            self.failed_stops,
            pause.as_secs()
        );
    }

    /// Nothing was counted. What has not been proven to have stopped still has not.
    pub(super) fn forget(&mut self, now: Instant, wanted: bool) {
        self.restarts.clear();
        self.in_place.clear();
        (self.restarted, self.in_a_row, self.give_up) = (0, 0, false);
        self.not_before = now;
        for look in self.looks.values_mut() {
            look.misses = 0;
        }
        match self.state {
            State::GivenUp if wanted => {
                // It was stopped before it was given up.
                self.state = State::Stopped;
                self.message.clear();
            }
            State::Stuck(_) if planted!(ClearedCountsAsStopped) => self.state = State::Stopped,
            _ => {}
        }
        self.try_stop_now(now);
    }

    pub(super) fn try_stop_now(&mut self, now: Instant) {
        if let State::Stuck(again) = &mut self.state {
            *again = now;
        }
    }

    /// When the next check is due, and its depth: of several, the one that has waited longest.
    pub(super) fn next_check(&self, config: &ResourceConfig) -> Option<(Instant, u8)> {
        let made = config.checks.iter().filter(|(_, check)| check.interval > Duration::ZERO);
        made.map(|(depth, _)| (self.looks.get(depth).map_or(Instant::ZERO, |look| look.next), *depth)).min()
    }

    pub(super) fn report(&self) -> ResourceReport {
        ResourceReport {
            phase: match self.state {
                State::Stopped => GroupPhase::Offline,
                State::NeedsProbe | State::Probing(_) | State::Starting(..) => GroupPhase::Starting,
                State::Running => GroupPhase::Online,
                State::NeedsStop | State::Stopping(_) => GroupPhase::Stopping,
                State::Stuck(_) => GroupPhase::Stuck,
                State::GivenUp | State::Lost => GroupPhase::Failed,
            },
            restarts: self.restarted,
            message: self.message.clone(),
        }
    }
}
