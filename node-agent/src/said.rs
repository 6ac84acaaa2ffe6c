//! How a failure is worded, the same for every kind of resource: what was done, how it ended, the last lines that were printed,
//! and what to do. Whoever reports adds the resource and the server.

use std::path::Path;
use std::time::Duration;

use holdfast_core::Action;

use crate::resources::plan::Plan;
use crate::resources::process::log_file;
use crate::resources::{State, Verdict};

/// What stands before a quotation.
const PRINTED: &str = "it printed: ";
/// Lines that are quoted.
const LINES: usize = 3;
/// Characters that are quoted of them.
const CHARACTERS: usize = 300;

/// The last three lines that say something, with ` / ` between them, at most 300 characters: of more, the end.
pub fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(LINES).collect();
    lines.reverse();
    let joined: Vec<char> = lines.join(" / ").chars().filter(|c| !c.is_control()).collect();
    let from = joined.len().saturating_sub(CHARACTERS);
    joined[from..].iter().collect()
}

/// Last lines as the end of a sentence.
pub fn heard(lines: &str) -> String {
    if lines.is_empty() { "it printed nothing".to_owned() } else { format!("{PRINTED}{lines}") }
}

/// What is said about an operation that took too long.
pub fn too_long(limit: Duration, field: &str) -> String {
    format!("it took longer than {limit:?} and was killed; if it needs longer, raise {field}")
}

/// The verdict of an operation with what was done in front, and where to look further behind, if it
/// failed.
pub fn worded(action: Action, plan: Option<&Plan>, state: &Path, mut verdict: Verdict) -> Verdict {
    let what = match (action, verdict.state) {
        (Action::Start, State::Failed | State::Unknown) => "its start failed",
        (Action::Stop, State::Failed | State::Unknown | State::Running) => "its stop failed",
        (Action::Monitor, State::Failed | State::Unknown) => "its check failed",
        (Action::Probe, State::Failed | State::Unknown) => "its probe failed",
        _ => return verdict,
    };
    let found = match (verdict.message.is_empty(), verdict.state) {
        (true, State::Running) => "it still runs".to_owned(),
        (true, _) => "no reason was given".to_owned(),
        (false, _) => verdict.message,
    };
    verdict.message = with_advice(plan, state, format!("{what}: {found}"));
    verdict
}

/// A failure with where a person finds more than is quoted. `state`: the resource's state directory, where all output goes.
pub fn with_advice(plan: Option<&Plan>, state: &Path, message: String) -> String {
    match plan {
        Some(Plan::Process(_)) if message.contains(PRINTED) => {
            format!("{message}; all of it: {}", log_file(state).display())
        }
        Some(Plan::Ocf(_)) => format!("{message}; all that it printed: {}", state.display()),
        Some(Plan::Script(_) | Plan::DataService(_)) if message.contains(PRINTED) => {
            format!("{message}; all of it: {}", state.display())
        }
        Some(Plan::Systemd(plan)) => format!("{message}; journalctl -u {} tells more", plan.unit),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_quoted_and_not_more() {
        assert_eq!(last_lines("one\ntwo\n\n three \nfour\n"), "two / three / four");
        assert_eq!(heard(&last_lines(" \n")), "it printed nothing");
        assert_eq!(last_lines(&"é".repeat(400)).chars().count(), CHARACTERS);
        assert_eq!(last_lines(&format!("{}end\u{7}", "x".repeat(400))).chars().last(), Some('d'));
    }

    #[test]
    fn a_failure_says_what_was_done_and_a_success_nothing_more() {
        let state = Path::new("/run/state");
        let failed = worded(Action::Start, None, state, Verdict::failed("exit 3; it printed: no room"));
        assert_eq!(failed.message, "its start failed: exit 3; it printed: no room");
        assert_eq!(worded(Action::Stop, None, state, Verdict::running()).message, "its stop failed: it still runs");
        assert_eq!(worded(Action::Monitor, None, state, Verdict::running()).message, "");
        assert_eq!(worded(Action::Stop, None, state, Verdict::stopped()).message, "");
    }
}
