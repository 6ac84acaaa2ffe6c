//! What arrives on a path and is not taken: whose it is and why, for people.
//!
//! Anybody on a network can send rubbish, so each reason is logged once and then once a minute, and forgotten when it has
//! not come again for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::names::{PathName, ServerName};
use holdfast_core::time::Instant;

use crate::clock;

/// A refusal is shown for so long after the last time.
pub const SHOWN: Duration = Duration::from_secs(10);
/// The same refusal is logged again after so long.
const LOGGED: Duration = Duration::from_secs(60);

/// The newest refusal of every sender of a path; `None`: of a sender that is no server of ours.
#[derive(Debug, Default)]
pub struct Refusals {
    newest: Mutex<BTreeMap<Option<ServerName>, Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    last: Instant,
    logged: Instant,
}

impl Refusals {
    /// Something was refused on `path`.
    pub fn refuse(&self, path: &PathName, sender: Option<&ServerName>, reason: String) {
        let now = clock::now();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let before = newest.get(&sender.cloned());
        let told = before.filter(|b| b.reason == reason && now.since(b.logged) < LOGGED).map(|b| b.logged);
        if told.is_none() {
            let server = sender.map_or("nobody of this sub-cluster", |name| name.0.as_str());
            tracing::warn!(%path, server, "refused: {reason}");
        }
        newest.insert(sender.cloned(), Refusal { reason, last: now, logged: told.unwrap_or(now) });
    }

    /// What was refused lately.
    pub fn shown(&self, now: Instant) -> Vec<(Option<ServerName>, String)> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.retain(|_, refusal| now.since(refusal.last) < LOGGED);
        let lately = newest.iter().filter(|(_, refusal)| now.since(refusal.last) < SHOWN);
        lately.map(|(sender, refusal)| (sender.clone(), refusal.reason.clone())).collect()
    }
}
