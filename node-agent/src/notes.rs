//! What people want to know: a log line at once, an Event as soon as the API takes it.
//!
//! Bounded: while the API is away for a week, the newest notes are kept and the oldest go; the log has them all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::Note;
use holdfast_core::message::Assignment;
use holdfast_core::names::GroupName;
use holdfast_telemetry::logs::{self, Standing};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;

/// Notes that wait for the API.
const CAPACITY: usize = 256;

/// A note and when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    /// When.
    pub at: Timestamp,
    /// What.
    pub note: Note,
}

/// The queue from the driver loop to the reporter.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    queue: Arc<Mutex<VecDeque<Dated>>>,
    wake: Arc<Notify>,
}

impl Notes {
    /// Logs a note and queues it.
    pub fn push(&self, note: Note) {
        let group = note.group.as_ref().map_or("", |g| g.0.as_str());
        let operation = note.group.as_ref().map(|_| note.operation.as_deref().unwrap_or_default());
        if note.warning {
            tracing::warn!(reason = note.reason, group, epoch = note.epoch, operation, "{}", note.message);
        } else {
            tracing::info!(reason = note.reason, group, epoch = note.epoch, operation, "{}", note.message);
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= CAPACITY {
            queue.pop_front();
        }
        queue.push_back(Dated { at: Timestamp::now(), note });
        self.wake.notify_one();
    }

    /// Says that something is wrong with a group, from outside the core.
    pub fn warn(&self, reason: &'static str, group: &str, message: String) {
        let standing = logs::standing(group);
        let operation = standing.as_ref().map(|standing| standing.operation.clone()).filter(|by| !by.is_empty());
        let epoch = standing.map_or(0, |standing| standing.epoch);
        self.push(Note { reason, group: Some(group.into()), epoch, operation, message, warning: true });
    }

    /// The oldest note, without taking it.
    pub fn oldest(&self) -> Option<Dated> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    /// Takes the oldest note off if it still is this one.
    pub fn done(&self, dated: &Dated) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.front() == Some(dated) {
            queue.pop_front();
        }
    }

    /// Waits until a note may have come.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }
}

/// Log lines about a group say from here on what this table says of it.
pub fn groups_stand(table: &BTreeMap<GroupName, Assignment>) {
    let standing =
        |one: &Assignment| Standing { epoch: one.tag.epoch, operation: one.operation.clone().unwrap_or_default() };
    logs::groups_stand(table.iter().map(|(name, one)| (name.0.clone(), standing(one))).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_without_api_keeps_the_newest_notes() {
        let notes = Notes::default();
        for n in 0..CAPACITY + 3 {
            notes.push(Note {
                reason: "PathDown",
                group: None,
                epoch: 1,
                operation: None,
                message: n.to_string(),
                warning: false,
            });
        }
        let oldest = notes.oldest().unwrap();
        assert_eq!(oldest.note.message, "3");
        notes.done(&oldest);
        assert_eq!(notes.oldest().unwrap().note.message, "4");
    }
}
