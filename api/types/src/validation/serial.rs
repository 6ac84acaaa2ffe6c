//! Serial lines: fast enough for the heartbeat, and each for one path.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{
    duration::Duration as Text,
    error::{ErrorKind, FieldError},
    timing::Timing,
    v1::SubClusterSpec,
};

/// Bits on the line for one heartbeat: 64 bytes with start and stop bit (protocol-why D32).
const FRAME_BITS: u32 = 64 * 10;
/// Bits of line for every heartbeat: a quarter more, so that one that was late is caught up with.
const NEEDED_BITS: u64 = 800;

/// Every serial line carries a heartbeat in each interval, and no device is used by two paths.
pub fn validate_serial_lines(spec: &SubClusterSpec) -> Vec<FieldError> {
    let interval = Timing::interval(spec);
    let mut errors = Vec::new();
    let mut users: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (i, path) in spec.heartbeat.paths.iter().enumerate() {
        let Some(serial) = &path.serial else { continue };
        let at = format!("spec.heartbeat.paths[{i}].serial");
        let needed = NEEDED_BITS * 1_000_000 / u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
        if u64::from(serial.baud_rate) < needed {
            let takes = Duration::from_secs(1) * FRAME_BITS / serial.baud_rate.max(1);
            let takes = Duration::from_millis(u64::try_from(takes.as_millis()).unwrap_or(u64::MAX) + 1);
            let (takes, every) = (Text::from(takes), Text::from(interval));
            let message = format!(
                "a heartbeat on the line takes {takes}, and one is due every {every}; use at least {needed} bit/s, or a \
                 longer heartbeat.interval"
            );
            let found = serial.baud_rate.to_string();
            errors.push(FieldError::new(ErrorKind::Invalid, format!("{at}.baudRate"), found, message));
        }
        for (j, end) in serial.devices.iter().enumerate() {
            if let Some(other) = users.insert((&end.server, &end.device), &path.name) {
                let message =
                    format!("path {other} uses it on {}, too; give every serial path a line of its own", end.server);
                let field = format!("{at}.devices[{j}].device");
                errors.push(FieldError::new(ErrorKind::Duplicate, field, end.device.clone(), message));
            }
        }
    }
    errors
}
