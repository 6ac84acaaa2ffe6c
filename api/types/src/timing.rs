//! All timing arithmetic of a sub-cluster, in one place: what is derived from `timeout`, and every inequality that must hold,
//! with both sides. Symbols are those of the protocol description; rule numbers (R…) and inequalities (I…) likewise.
//!
//! No clock and no measurement here. Exact integer arithmetic in nanoseconds: a bound that safety rests on is never rounded in
//! the wrong direction.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    duration::Duration as Text,
    error::{ErrorKind, FieldError},
    v1::{SubClusterSpec, TimingStatus},
};

/// Clock rate error to allow for, in thousandths (ρ = 0.001): no synchronised clocks are needed, only clocks that run at about
/// the same rate.
pub const DRIFT_THOUSANDTHS: u32 = 1;

/// Every time that one server, or all of them together, act by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// H: time between two signs of life. Default T/10, at most 1 s.
    pub interval: Duration,
    /// T: silence on all paths for so long makes a server suspect.
    pub timeout: Duration,
    /// J: the scheduling stall of a busy server to tolerate. Default T/5.
    pub stall: Duration,
    /// E: how long a server may run groups after the send time of the last acknowledged frame. Default: as long as C ≤ T
    /// allows, at least 1.3·E_soft and 4·H.
    pub lease: Duration,
    /// E_soft: without acknowledgement the server begins to stop its groups. 3·H + 2·(R + T_io).
    pub soft_stop: Duration,
    /// E_kill: the guard kills what is left. Half way between E_soft and E.
    pub kill: Duration,
    /// R: time between two renewals at the lock. T/20.
    pub renew: Duration,
    /// T_io: longest time for one access to the lock. A lock disk: T/20. A quorum server: `quorumServer.timeout`, default
    /// T/10.
    pub io_timeout: Duration,
    /// W: the watchdog's timeout; none without watchdog.
    pub watchdog: Option<Duration>,
    /// p: how often the guard pets the watchdog. W/4.
    pub pet: Option<Duration>,
    /// W': time after E in which a stuck server is certainly reset. 2·W with a watchdog; without one J, the bound that the
    /// weaker guarantee UserSpace rests on.
    pub reset: Duration,
    /// D: how long after a reset a write may still reach the storage.
    pub drain: Duration,
    /// C: from the last acknowledgement of a server to the start of its groups elsewhere.
    pub takeover_wait: Duration,
    /// T_lock: budget for getting the lock, T/5 (I10), in which two accesses fit.
    pub lock: Duration,
    /// The cluster's part of an outage: max(T, C). Getting the lock comes on top of T when it takes long, see
    /// [`Timing::cluster_part_with`].
    pub cluster_part: Duration,
}

/// One inequality with both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inequality {
    /// Where it comes from, for example `I1`.
    pub rule: &'static str,
    /// What it says, in symbols.
    pub formula: &'static str,
    /// The left side.
    pub left: Duration,
    /// The right side; the inequality holds when left ≥ right.
    pub right: Duration,
    /// The field to change when it does not hold.
    pub field: &'static str,
    /// What to do when it does not hold.
    pub advice: String,
}

impl Inequality {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.left >= self.right
    }
}

const TIMEOUT: &str = "spec.heartbeat.timeout";
const INTERVAL: &str = "spec.heartbeat.interval";
const STALL: &str = "spec.heartbeat.advanced.stall";
const LEASE: &str = "spec.heartbeat.advanced.lease";
const TAKEOVER_WAIT: &str = "spec.heartbeat.advanced.takeoverWait";
const QUORUM_TIMEOUT: &str = "spec.quorum.quorumServer.timeout";
const WATCHDOG: &str = "spec.watchdog.timeout";

fn nanos(d: Duration) -> i128 {
    i128::try_from(d.as_nanos()).unwrap_or(i128::MAX)
}

fn from_nanos(n: i128) -> Duration {
    Duration::from_nanos(u64::try_from(n.max(0)).unwrap_or(u64::MAX))
}

/// How people read a time: in the unit that fits, `748ms`.
fn text(d: Duration) -> String {
    Text::from(d).to_string()
}

/// R11: C = (1+ρ)/(1−ρ)·(E + W') + (1+ρ)·D, rounded up to a whole millisecond.
pub fn takeover_wait(lease: Duration, reset: Duration, drain: Duration) -> Duration {
    let rho = i128::from(DRIFT_THOUSANDTHS);
    let (fast, slow) = (1000 + rho, 1000 - rho);
    // Over the common denominator 1000·(1−ρ), so that only one rounding happens, upwards.
    let numerator = 1000 * fast * (nanos(lease) + nanos(reset)) + slow * fast * nanos(drain);
    let denominator = 1000 * slow * 1_000_000;
    from_nanos((numerator + denominator - 1) / denominator * 1_000_000)
}

/// The longest lease for which the takeover wait stays within the timeout; below zero it is zero.
fn longest_lease(timeout: Duration, reset: Duration, drain: Duration) -> Duration {
    let rho = i128::from(DRIFT_THOUSANDTHS);
    let (fast, slow) = (1000 + rho, 1000 - rho);
    let lease = (1000 * nanos(timeout) - fast * nanos(drain)) * slow / (fast * 1000) - nanos(reset);
    // Whole milliseconds are easier to read, and down is the safe direction.
    from_nanos(lease / 1_000_000 * 1_000_000)
}

/// The shortest timeout for which gaps as long as the longest measured one are still within the stall to tolerate (T/5 by
/// default), rounded up to 100 ms and within 100ms..300s (C23).
pub fn recommended_timeout(longest_gap: Duration) -> Duration {
    let step = 100_000_000;
    let wanted = (5 * nanos(longest_gap) + step - 1) / step * step;
    from_nanos(wanted.clamp(step, 300_000_000_000))
}

impl Timing {
    /// The times of a sub-cluster. `watchdog` is the timeout that the device reads back, or none without device. All violated
    /// inequalities are returned, each with both sides.
    pub fn of(spec: &SubClusterSpec, watchdog: Option<Duration>) -> Result<Self, Vec<FieldError>> {
        let timing = Self::derive(spec, watchdog);
        let given_wait = spec.heartbeat.advanced.as_ref().map(|a| a.takeover_wait.get()).filter(|w| !w.is_zero());
        let errors: Vec<FieldError> = timing
            .inequalities(spec, given_wait)
            .into_iter()
            .filter(|i| !i.holds())
            .map(|i| {
                let message = format!(
                    "{} does not hold ({}): {} is less than {}; {}",
                    i.formula,
                    i.rule,
                    text(i.left),
                    text(i.right),
                    i.advice
                );
                FieldError::new(ErrorKind::Invalid, i.field, found(spec, i.field), message)
            })
            .collect();
        if errors.is_empty() { Ok(timing) } else { Err(errors) }
    }

    /// H alone: the given one, or a tenth of the timeout and at most 1 s.
    pub fn interval(spec: &SubClusterSpec) -> Duration {
        let derived = || (spec.heartbeat.timeout.get() / 10).min(Duration::from_secs(1));
        spec.heartbeat.interval.as_ref().map_or_else(derived, Text::get)
    }

    fn derive(spec: &SubClusterSpec, watchdog: Option<Duration>) -> Self {
        let heartbeat = &spec.heartbeat;
        let advanced = heartbeat.advanced.as_ref();
        let timeout = heartbeat.timeout.get();
        let interval = Self::interval(spec);
        let stall = advanced.and_then(|a| a.stall.as_ref()).map_or(timeout / 5, Text::get);
        let renew = timeout / 20;
        let quorum_server = spec.quorum.quorum_server.as_ref();
        let io_timeout =
            quorum_server.map_or(timeout / 20, |server| server.timeout.as_ref().map_or(timeout / 10, Text::get));
        let soft_stop = 3 * interval + 2 * (renew + io_timeout);
        let reset = watchdog.map_or(stall, |w| 2 * w);
        let drain = spec.evidence.drain.get();
        let lease = advanced
            .and_then(|a| a.lease.as_ref())
            .map_or_else(|| longest_lease(timeout, reset, drain).max(soft_stop * 13 / 10).max(4 * interval), Text::get);
        let kill = soft_stop + lease.saturating_sub(soft_stop) / 2;
        let given = advanced.map_or(Duration::ZERO, |a| a.takeover_wait.get());
        let takeover_wait = takeover_wait(lease, reset, drain).max(given);
        Self {
            interval,
            timeout,
            stall,
            lease,
            soft_stop,
            kill,
            renew,
            io_timeout,
            watchdog,
            pet: watchdog.map(|w| w / 4),
            reset,
            drain,
            takeover_wait,
            // A ballot takes two accesses.
            lock: (timeout / 5).max(2 * io_timeout),
            cluster_part: timeout.max(takeover_wait),
        }
    }

    /// Every inequality, with the advice for who breaks it. `given_wait` is the takeover wait that the spec gives.
    fn inequalities(&self, spec: &SubClusterSpec, given_wait: Option<Duration>) -> Vec<Inequality> {
        let advanced = spec.heartbeat.advanced.as_ref();
        let gives_interval = spec.heartbeat.interval.is_some();
        let gives_stall = advanced.is_some_and(|a| a.stall.is_some());
        let gives_lease = advanced.is_some_and(|a| a.lease.is_some());
        let lease_field = if gives_lease { LEASE } else { TIMEOUT };
        let quorum_timeout = spec.quorum.quorum_server.as_ref().is_some_and(|server| server.timeout.is_some());
        let silence = 3 * self.interval + self.stall;
        let least_lease = self.soft_stop * 13 / 10;
        let computed_wait = takeover_wait(self.lease, self.reset, self.drain);
        let mut all = vec![
            Inequality {
                rule: "I1",
                formula: "timeout ≥ 3·interval + stall",
                left: self.timeout,
                right: silence,
                field: if gives_interval {
                    INTERVAL
                } else if gives_stall {
                    STALL
                } else {
                    TIMEOUT
                },
                advice: format!("raise timeout to {} or leave interval and stall out", text(silence)),
            },
            Inequality {
                rule: "lease covers four signs of life",
                formula: "lease ≥ 4·interval",
                left: self.lease,
                right: 4 * self.interval,
                field: lease_field,
                advice: format!("raise lease to {} or leave it out", text(4 * self.interval)),
            },
            Inequality {
                rule: "I6",
                formula: "soft stop ≥ 2·renew + 2·I/O timeout",
                left: self.soft_stop,
                right: 2 * self.renew + 2 * self.io_timeout,
                field: TIMEOUT,
                advice: "raise timeout".to_string(),
            },
            Inequality {
                rule: "R8, R11",
                formula: "soft stop ≥ 3·interval + 2·(renew + I/O timeout)",
                left: self.soft_stop,
                right: 3 * self.interval + 2 * (self.renew + self.io_timeout),
                field: TIMEOUT,
                advice: "raise timeout".to_string(),
            },
            Inequality {
                rule: "I5, R11",
                formula: "lease ≥ 1.3·soft stop, so that stopping and killing fit in between",
                left: self.lease,
                right: least_lease,
                field: lease_field,
                advice: format!(
                    "raise lease to {} or leave it out{}",
                    text(least_lease),
                    if gives_interval { ", or lower interval" } else { "" }
                ),
            },
            Inequality {
                rule: "I5, R11",
                formula: "kill ≥ soft stop",
                left: self.kill,
                right: self.soft_stop,
                field: lease_field,
                advice: "raise lease or leave it out".to_string(),
            },
            Inequality {
                rule: "I5, R11",
                formula: "lease ≥ kill",
                left: self.lease,
                right: self.kill,
                field: lease_field,
                advice: "raise lease or leave it out".to_string(),
            },
            Inequality {
                rule: "I10",
                formula: "timeout/5 ≥ lock",
                left: self.timeout / 5,
                right: self.lock,
                field: if quorum_timeout { QUORUM_TIMEOUT } else { TIMEOUT },
                advice: if quorum_timeout {
                    format!("give at most {}, or raise heartbeat.timeout", text(self.timeout / 10))
                } else {
                    "raise timeout".to_string()
                },
            },
            Inequality {
                rule: "I7, R11",
                formula: "takeoverWait ≥ (1+ρ)/(1−ρ)·(lease + reset) + (1+ρ)·drain",
                left: given_wait.unwrap_or(self.takeover_wait),
                right: computed_wait,
                field: TAKEOVER_WAIT,
                advice: format!(
                    "with lease {}, reset {}, drain {} give at least {}, or 0ms to have it computed",
                    text(self.lease),
                    text(self.reset),
                    text(self.drain),
                    text(computed_wait)
                ),
            },
        ];
        if let (Some(watchdog), Some(pet)) = (self.watchdog, self.pet) {
            all.push(Inequality {
                rule: "I2",
                formula: "watchdog ≥ 3·petting period",
                left: watchdog,
                right: 3 * pet,
                field: WATCHDOG,
                advice: "raise the watchdog's timeout".to_string(),
            });
            all.push(Inequality {
                rule: "watchdogs count whole seconds",
                formula: "watchdog ≥ 1s",
                left: watchdog,
                right: Duration::from_secs(1),
                field: WATCHDOG,
                advice: "give 1s or more, or watchdog.mode Disabled".to_string(),
            });
        }
        all
    }

    /// The cluster's part of an outage when getting the lock takes `lock`: max(T + lock, C).
    pub fn cluster_part_with(&self, lock: Duration) -> Duration {
        (self.timeout + lock).max(self.takeover_wait)
    }

    /// What `status.timing` of a sub-cluster shows, without the measured values.
    pub fn status(&self) -> TimingStatus {
        let shown = |d: Duration| Some(Text::from(d));
        TimingStatus {
            detection: shown(self.timeout),
            lock: shown(self.lock),
            lease: shown(self.lease),
            soft_stop: shown(self.soft_stop),
            watchdog: self.watchdog.map(Text::from),
            drain: shown(self.drain),
            takeover_wait: shown(self.takeover_wait),
            cluster_part: shown(self.cluster_part),
            longest_gap: None,
            recommended_timeout: None,
        }
    }

    /// The whole arithmetic as text, for `holdfast timing`: every value with its formula, every inequality with both sides.
    pub fn table(&self, spec: &SubClusterSpec) -> String {
        let given = |given: bool, formula: &'static str| if given { "given" } else { formula };
        let advanced = spec.heartbeat.advanced.as_ref();
        let lease_given = advanced.is_some_and(|a| a.lease.is_some());
        let reset = if self.watchdog.is_some() { "2·W" } else { "J (no watchdog: guarantee UserSpace)" };
        let io_timeout = match &spec.quorum.quorum_server {
            Some(server) => given(server.timeout.is_some(), "T/10"),
            None => "T/20",
        };
        let mut rows = vec![
            ("T", "timeout", self.timeout, "given"),
            ("H", "interval", self.interval, given(spec.heartbeat.interval.is_some(), "T/10, at most 1s")),
            ("J", "stall", self.stall, given(advanced.is_some_and(|a| a.stall.is_some()), "T/5")),
            ("R", "renew", self.renew, "T/20"),
            ("T_io", "I/O timeout", self.io_timeout, io_timeout),
            ("T_lock", "lock", self.lock, "T/5, at least two accesses"),
            ("E_soft", "soft stop", self.soft_stop, "3·H + 2·(R + T_io)"),
            ("E_kill", "kill", self.kill, "E_soft + (E − E_soft)/2"),
            ("E", "lease", self.lease, given(lease_given, "so that C ≤ T, at least 1.3·E_soft and 4·H")),
        ];
        if let (Some(watchdog), Some(pet)) = (self.watchdog, self.pet) {
            rows.push(("W", "watchdog", watchdog, "read back from the device"));
            rows.push(("p", "petting period", pet, "W/4"));
        }
        rows.push(("W'", "reset", self.reset, reset));
        rows.push(("D", "drain", self.drain, "evidence.drain"));
        rows.push(("C", "takeover wait", self.takeover_wait, "(1+ρ)/(1−ρ)·(E + W') + (1+ρ)·D, ρ = 0.001"));
        rows.push(("", "cluster part", self.cluster_part, "max(T, C); beyond T also what getting the lock takes"));
        let mut out = String::new();
        for (symbol, name, value, formula) in rows {
            // Writing to a String can't fail.
            let _ = writeln!(out, "{symbol:<7} {name:<15} {:>10}  {formula}", text(value));
        }
        out.push('\n');
        let given_wait = advanced.map(|a| a.takeover_wait.get()).filter(|w| !w.is_zero());
        for i in self.inequalities(spec, given_wait) {
            let mark = if i.holds() { "ok " } else { "NO " };
            let _ = writeln!(out, "{mark} {} ≥ {}  {} ({})", text(i.left), text(i.right), i.formula, i.rule);
        }
        out
    }
}

/// What the spec has at a field that an inequality points to.
fn found(spec: &SubClusterSpec, field: &str) -> String {
    let advanced = spec.heartbeat.advanced.as_ref();
    let value = match field {
        INTERVAL => spec.heartbeat.interval.as_ref(),
        STALL => advanced.and_then(|a| a.stall.as_ref()),
        LEASE => advanced.and_then(|a| a.lease.as_ref()),
        TAKEOVER_WAIT => advanced.map(|a| &a.takeover_wait),
        WATCHDOG => Some(&spec.watchdog.timeout),
        QUORUM_TIMEOUT => spec.quorum.quorum_server.as_ref().and_then(|server| server.timeout.as_ref()),
        _ => Some(&spec.heartbeat.timeout),
    };
    value.map(|v| format!("{:?}", v.as_str())).unwrap_or_default()
}
