//! Rules that CEL can't say: the timing arithmetic of a sub-cluster, where its quorum server is, what a serial line can
//! carry, what monitors say, and what the resources of a group are to each other.
//!
//! Rules over several objects are the controller's; the rules that one object shows by itself stand in its schema.

mod data_service;
mod fencing;
mod group;
mod monitors;
mod quorum;
mod router;
mod serial;
mod state_directory;
mod unit;

use std::time::Duration;

pub use data_service::validate_data_services;
pub use fencing::validate_fencing;
pub use group::{dependency_cycle, resource_graph, validate_group};
pub use monitors::{Target, unknown_place, validate_monitors, validate_server_monitors};
pub use quorum::{quorum_server, quorum_server_of_group};
pub use router::{RouterProblem, router_problem};
pub use serial::validate_serial_lines;
pub use state_directory::state_directory_errors;
pub use unit::unit_problem;

use crate::{
    error::FieldError,
    timing::Timing,
    v1::{SubClusterSpec, WatchdogMode},
};

/// The timing inequalities, the serial lines, the quorum server's addresses, the fence devices and the monitors of a sub-cluster. With
/// `watchdog.mode: IfPresent` the inequalities must hold with and without the device, because either can be found on a
/// server.
pub fn validate_sub_cluster(spec: &SubClusterSpec) -> Vec<FieldError> {
    let device: Option<Duration> = Some(spec.watchdog.timeout.get());
    let cases: &[Option<Duration>] = match spec.watchdog.mode {
        WatchdogMode::Required => &[device],
        WatchdogMode::Disabled => &[None],
        WatchdogMode::IfPresent => &[device, None],
    };
    let mut errors: Vec<FieldError> = validate_serial_lines(spec);
    for watchdog in cases {
        for error in Timing::of(spec, *watchdog).err().unwrap_or_default() {
            // The same field breaks the same rule in both cases; the first case has the larger numbers.
            let known = |e: &FieldError| e.field == error.field && rule(e) == rule(&error);
            if !errors.iter().any(known) {
                errors.push(error);
            }
        }
    }
    errors.extend(quorum_server(spec));
    errors.extend(validate_fencing(spec));
    errors.extend(validate_server_monitors(spec));
    errors
}

/// The formula at the begin of a timing message.
fn rule(error: &FieldError) -> &str {
    error.message.split(" does not hold").next().unwrap_or_default()
}
