//! Who reports: condition `AgentReporting` from the report times of Server objects. Silence says nothing about whether a
//! server runs; that is decided by the servers themselves.

use std::time::Duration;

use holdfast_api::conditions;
use holdfast_api::reasons::{condition, ready};
use holdfast_api::v1::Server;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{list, until};

/// Reason of `AgentReporting` while reports are fresh.
pub(crate) const REPORTING: &str = "Reporting";
/// Reason of `AgentReporting` when reports have stopped.
pub(crate) const SILENT: &str = "Silent";

/// Who of some servers reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reporting {
    /// Servers with a fresh report.
    fresh: Vec<String>,
    /// Servers whose last report is too old, with its time.
    silent: Vec<(String, Timestamp)>,
    /// Servers that never reported.
    never: Vec<String>,
    /// When the first of the fresh reports gets too old.
    next: Option<Timestamp>,
}

impl Reporting {
    /// Looks at the Server objects. A report from the future, by a clock that runs ahead, is fresh.
    pub(crate) fn of<'a>(servers: impl IntoIterator<Item = &'a Server>, now: Timestamp, timeout: Duration) -> Self {
        let mut reporting = Self::default();
        for server in servers {
            let name = server.spec.server.clone();
            match server.status.as_ref().and_then(|status| status.report_time.as_ref()) {
                None => reporting.never.push(name),
                Some(time) => {
                    let end = time.0.saturating_add(timeout).unwrap_or(Timestamp::MAX);
                    if end < now {
                        reporting.silent.push((name, time.0));
                    } else {
                        reporting.fresh.push(name);
                        reporting.next = Some(reporting.next.map_or(end, |next| next.min(end)));
                    }
                }
            }
        }
        // Stores have no order; a message must not change with it.
        reporting.fresh.sort();
        reporting.silent.sort();
        reporting.never.sort();
        reporting
    }

    /// At least one agent reports, so what stands in status is fresh.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Sets the condition. The message changes only when somebody begins or stops to report.
    pub(crate) fn set(&self, conditions: &mut Vec<Condition>, now: Timestamp) {
        let silent: Vec<String> = self
            .silent
            .iter()
            .map(|(name, time)| format!("no report of {name} since {}", time.strftime("%Y-%m-%dT%H:%M:%SZ")))
            .chain((!self.never.is_empty()).then(|| format!("{} never reported", list(&self.never))))
            .collect();
        let (state, reason, message) = match (self.is_fresh(), silent.is_empty()) {
            (true, true) => (true, REPORTING, String::new()),
            (true, false) => (true, REPORTING, format!("{} reports; {}", list(&self.fresh), silent.join(", "))),
            (false, _) if self.silent.is_empty() => {
                (false, ready::UNREPORTED, "no agent has reported yet; is it running on the servers?".to_string())
            }
            (false, _) => (false, SILENT, format!("{}; what is shown may be old", silent.join(", "))),
        };
        conditions::set(conditions, condition::AGENT_REPORTING, state, reason, &message, None, now);
    }

    /// How long until the condition may change by the passing of time alone; at most `resync`.
    pub(crate) fn look_again(&self, now: Timestamp, resync: Duration) -> Duration {
        // A second later, so that the comparison is certain to come out the other way.
        self.next.map_or(resync, |next| (until(now, next) + Duration::from_secs(1)).min(resync))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::v1::{ServerSpec, ServerStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(150);

    fn server(name: &str, report: Option<&str>) -> Server {
        let spec = ServerSpec { sub_cluster: "db".into(), server: name.into(), id: 1, ..Default::default() };
        let mut server = Server::new(&format!("db.{name}"), spec);
        server.status =
            report.map(|time| ServerStatus { report_time: Some(Time(time.parse().unwrap())), ..Default::default() });
        server
    }

    fn condition(servers: &[Server], now: &str) -> (String, String, String) {
        let now = now.parse().unwrap();
        let mut conditions = Vec::new();
        Reporting::of(servers, now, TIMEOUT).set(&mut conditions, now);
        let c = conditions.remove(0);
        (c.status, c.reason, c.message)
    }

    #[test]
    fn one_fresh_report_keeps_the_status_fresh() {
        let servers = [server("db1", Some("2026-03-01T00:00:00Z")), server("db2", Some("2026-03-01T00:02:00Z"))];
        let all = condition(&servers, "2026-03-01T00:02:30Z");
        assert_eq!(all, ("True".into(), "Reporting".into(), String::new()));
        let one = condition(&servers, "2026-03-01T00:02:31Z");
        let message = "db2 reports; no report of db1 since 2026-03-01T00:00:00Z";
        assert_eq!(one, ("True".into(), "Reporting".into(), message.into()));
        // The text does not age: nothing is written while nothing happens.
        assert_eq!(one, condition(&servers, "2026-03-01T00:03:31Z"));
    }

    #[test]
    fn silence_and_no_report_at_all_are_told_apart() {
        let silent = [server("db1", Some("2026-03-01T00:00:00Z")), server("db2", None)];
        let (status, reason, message) = condition(&silent, "2026-03-01T01:00:00Z");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Silent"));
        assert!(message.starts_with("no report of db1 since 2026-03-01T00:00:00Z, db2 never reported"), "{message}");
        let (status, reason, _) = condition(&[server("db1", None)], "2026-03-01T01:00:00Z");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Unreported"));
    }

    #[test]
    fn the_next_look_is_just_after_the_first_report_gets_old() {
        let now: Timestamp = "2026-03-01T00:02:00Z".parse().unwrap();
        let servers = [server("db1", Some("2026-03-01T00:00:00Z")), server("db2", Some("2026-03-01T00:01:59Z"))];
        let reporting = Reporting::of(&servers, now, TIMEOUT);
        assert_eq!(reporting.look_again(now, Duration::from_secs(60)), Duration::from_secs(31));
        assert_eq!(reporting.look_again(now, Duration::from_secs(10)), Duration::from_secs(10));
    }
}
