//! Between the API's objects and the core's values, both ways. Pure: no clock, no file, no network; whoever calls
//! passes the time in.

pub mod cluster_status;
pub mod config;
pub mod data_services;
pub mod group_status;
mod monitors;
pub mod number;
pub mod server_status;
mod storage;

use std::time::Duration;

use holdfast_api::duration::Duration as Text;
use holdfast_api::v1 as api;
use holdfast_core::status::MemberState;
use holdfast_core::time::Instant;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Longest message that the schema takes, in bytes.
const MAX_MESSAGE: usize = 1024;

/// The wall time at which this server's clock began, so that the same moment is always the same time in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall {
    /// Wall time of [`Instant::ZERO`].
    pub zero: Timestamp,
}

impl Wall {
    /// From both clocks read at once.
    pub fn new(now: Instant, wall_now: Timestamp) -> Wall {
        Wall { zero: crate::clock::wall(Instant::ZERO, now, wall_now) }
    }

    /// A moment as a time of the API, in whole seconds as Kubernetes has them.
    pub fn time(self, moment: Instant) -> Time {
        let nanos = i64::try_from(moment.0).unwrap_or(i64::MAX);
        let exact = self.zero.checked_add(SignedDuration::from_nanos(nanos)).unwrap_or(self.zero);
        Time(Timestamp::from_second(exact.as_second()).unwrap_or(exact))
    }
}

/// A measured duration: whole milliseconds from 10 ms on, microseconds below.
fn reported(duration: Duration) -> Text {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Text::from(Duration::from_micros(if us >= 10_000 { (us + 500) / 1000 * 1000 } else { us }))
}

/// A duration that is a bound, in whole milliseconds, never shorter than it is.
fn bound(duration: Duration) -> Text {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    Text::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// A text that fits into a message field.
pub(crate) fn clip(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let mut end = MAX_MESSAGE - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

fn server_state(state: MemberState) -> api::ServerState {
    match state {
        MemberState::Joining => api::ServerState::Joining,
        MemberState::Active => api::ServerState::Active,
        MemberState::Detached => api::ServerState::Detached,
        MemberState::Leaving => api::ServerState::Leaving,
        MemberState::Partitioned => api::ServerState::Partitioned,
        MemberState::Suspect => api::ServerState::Suspect,
        MemberState::Lost => api::ServerState::Lost,
        MemberState::Unknown => api::ServerState::Unknown,
    }
}

/// The API's word for what the core calls by the same word; none if it has none.
fn word<T: Copy>(all: &[T], name: &str, text: impl Fn(T) -> &'static str) -> Option<T> {
    all.iter().copied().find(|choice| text(*choice) == name)
}

fn evidence(name: &str) -> Option<api::EvidenceKind> {
    word(api::EvidenceKind::ALL, name, api::EvidenceKind::as_str)
}

fn anchor(name: &str) -> Option<api::Anchor> {
    // The majority of a view of one is the server itself.
    let name = if matches!(name, "Servers" | "Self") { "Majority" } else { name };
    word(api::Anchor::ALL, name, api::Anchor::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_always_the_same_time() {
        let wall = Wall::new(Instant(100_500_000_000), "2026-03-02T01:00:00.7Z".parse().unwrap());
        assert_eq!(wall.time(Instant(99_000_000_000)).0.to_string(), "2026-03-02T00:59:59Z");
        assert_eq!(wall.time(Instant(99_900_000_000)).0.to_string(), "2026-03-02T01:00:00Z");
    }

    #[test]
    fn durations_are_rounded_to_what_the_schema_takes() {
        assert_eq!(reported(Duration::from_nanos(3_004_400_000)).as_str(), "3004ms");
        assert_eq!(reported(Duration::from_nanos(210_400)).as_str(), "210us");
        assert_eq!(bound(Duration::from_micros(4_307_001)).as_str(), "4308ms");
        assert_eq!(clip(&"é".repeat(600)).len(), 1023);
        assert_eq!(anchor("Servers"), Some(api::Anchor::Majority));
        assert_eq!(evidence("Time"), Some(api::EvidenceKind::Time));
    }
}
