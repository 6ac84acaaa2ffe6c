//! How much one client may ask at a time, so that none takes the server from the others.
//!
//! Counted are the requests of a user that are being read or answered; an open watch is not one of them. Members of
//! `system:masters` are not limited: an administrator must get in when somebody else has gone wild.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{ApiError, ApiResult};
use crate::identity::{Identity, MASTERS};

/// Requests of one user at a time. kubectl and controllers keep below 50; with the limit on bodies it bounds what one
/// user can make the server hold in memory to 300 MiB.
const IN_FLIGHT_MAX: usize = 100;

/// The requests of all users.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    in_flight: Mutex<HashMap<String, usize>>,
}

/// One request; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    flow: &'a Flow,
    user: String,
}

impl Flow {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // Each change is one number, so a panic elsewhere leaves nothing half-done.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, or refuses it with 429. None for those who are not counted.
    pub(crate) fn enter(&self, identity: &Identity) -> ApiResult<Option<Permit<'_>>> {
        if identity.is_in(MASTERS) {
            return Ok(None);
        }
        let mut in_flight = self.lock();
        let count = in_flight.entry(identity.user.clone()).or_default();
        if *count >= IN_FLIGHT_MAX {
            return Err(ApiError::too_many_requests(format!(
                "{IN_FLIGHT_MAX} requests of user \"{}\" are being answered; wait for some of them, then try again",
                identity.user
            )));
        }
        *count += 1;
        drop(in_flight);
        Ok(Some(Permit { flow: self, user: identity.user.clone() }))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.flow.lock();
        match in_flight.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(in_flight.remove(&self.user)),
        }
    }
}
