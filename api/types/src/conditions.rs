//! Conditions of an object: set and read one by its type.
//!
//! No clock here: whoever sets a condition passes the time, and it only becomes the transition time when the condition
//! really changes between True, False and Unknown.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The state that a condition reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl State {
    /// The text that stands in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// The longest message that a condition may carry, in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// Sets the condition `type_`. The transition time changes only with the state. Returns whether anything changed, so
/// that a writer can leave out a write that would say nothing new.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    state: impl Into<State>,
    reason: &str,
    message: &str,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let status = state.into().as_str();
    let mut message = message.to_string();
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE - '…'.len_utf8();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    let mut wanted = Condition {
        type_: type_.to_string(),
        status: status.to_string(),
        reason: reason.to_string(),
        message,
        observed_generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(existing) => {
            if existing.status == wanted.status {
                wanted.last_transition_time = existing.last_transition_time.clone();
            }
            let changed = *existing != wanted;
            *existing = wanted;
            changed
        }
        None => {
            conditions.push(wanted);
            true
        }
    }
}

/// Removes the condition `type_`: for types that are absent when they do not hold. Returns whether it was there.
pub fn clear(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|c| c.type_ != type_);
    conditions.len() != before
}

/// The condition `type_`, if it is reported.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition `type_` is reported as True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Whether the condition `type_` is True for exactly this generation of the object. An agent acts on a spec only when
/// this holds for `Accepted`.
pub fn is_true_for(conditions: &[Condition], type_: &str, generation: Option<i64>) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True" && c.observed_generation == generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::{condition, ready};

    #[test]
    fn transition_time_changes_only_with_the_state() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut all = Vec::new();
        assert!(set(&mut all, condition::READY, false, ready::STARTING, "", Some(1), at(10)));
        assert!(set(&mut all, condition::READY, false, ready::MOVING, "to b", Some(2), at(20)));
        let ready = get(&all, condition::READY).expect("it was set");
        assert_eq!((ready.last_transition_time.0, ready.reason.as_str()), (at(10), "Moving"));
        assert!(!set(&mut all, condition::READY, false, "Moving", "to b", Some(2), at(30)), "nothing new was said");
        assert!(set(&mut all, condition::READY, true, ready::CONVERGED, "", Some(2), at(40)));
        assert_eq!(get(&all, condition::READY).map(|c| c.last_transition_time.0), Some(at(40)));
        assert!(is_true_for(&all, condition::READY, Some(2)) && !is_true_for(&all, condition::READY, Some(3)));
        assert!(clear(&mut all, condition::READY) && !clear(&mut all, condition::READY));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let mut all = Vec::new();
        set(&mut all, condition::READY, false, "X", &"ü".repeat(2000), None, Timestamp::UNIX_EPOCH);
        assert!(all[0].message.len() <= MAX_MESSAGE && all[0].message.ends_with('…'));
    }
}
