//! Checks of monitors. Each runs in a helper process, once.
//!
//! A check that finds no answer in time has failed: that is how a service or a disk that hangs is seen. One that could not
//! be carried out at all (no such program, no such name) says nothing: [`crate::resources::State::Unknown`].

mod disk;
mod exec;
mod journal;
mod net;
mod network;
mod ping;
pub mod plan;
mod processes;
mod tls;
mod usage;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resources::{State, Verdict};
pub use plan::{Facts, Plan, SharedDisk};

/// Those that know their own end say so themselves; the others are left this much later.
const SLACK: Duration = Duration::from_millis(100);

/// One check, as a helper is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// This server.
    pub server: String,
    /// The group; empty: a monitor of servers.
    pub group: String,
    /// The monitor.
    pub monitor: String,
    /// Number of the operation.
    pub op: u64,
    /// What is checked.
    pub plan: Plan,
    /// Longest time.
    pub timeout: Duration,
    /// What happened before (CLOCK_BOOTTIME, ns) does not count; none: counting began before the agent's process.
    pub since: Option<u64>,
    /// Run directory of the agent.
    pub run_dir: PathBuf,
    /// Base of the control groups.
    pub cgroup: PathBuf,
}

/// Carries it out: `Running` if all is well, `Failed` if not.
///
/// In a thread of its own: one that hangs in the kernel can't be interrupted, but it can be left.
pub fn run(request: &Request) -> Verdict {
    let (sender, receiver) = channel();
    let (work, limit) = (request.clone(), request.timeout);
    std::thread::spawn(move || sender.send(check(&work)));
    match receiver.recv_timeout(limit + SLACK) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => match request.plan {
            Plan::DiskIo(_) => advised(late("no answer", limit), || disk::LOG.to_owned()),
            _ => late("no answer", limit),
        },
        Err(RecvTimeoutError::Disconnected) => Verdict::unknown("the check ended without an answer"),
    }
}

fn check(request: &Request) -> Verdict {
    match &request.plan {
        Plan::Exec(check) => exec::run(check, request),
        Plan::Http { check, authorities } => net::http(check, authorities.as_ref(), request.timeout),
        Plan::Tcp(check) => net::tcp(check, request.timeout),
        Plan::Process { of, min, max } => processes::run(of, *min, *max, request),
        Plan::Icmp(check) => ping::run(check, request.timeout),
        Plan::Link(interface) => network::link(interface),
        Plan::DiskIo(plan) => disk::run(plan, &request.run_dir),
        Plan::Address(plan) => network::address(plan),
        Plan::Usage(check) => usage::run(check, request.timeout),
        Plan::Journal(check) => journal::run(check, request),
    }
}

/// A pattern as the specification has it.
fn pattern(text: &str) -> Result<regex::bytes::Regex, Verdict> {
    regex::bytes::Regex::new(text).map_err(|_| Verdict::unknown(format!("{text:?} is no regular expression")))
}

/// A failure with what a person does next.
fn advised(verdict: Verdict, advice: impl FnOnce() -> String) -> Verdict {
    if verdict.state != State::Failed {
        return verdict;
    }
    let message = format!("{}; {}", verdict.message, advice());
    verdict.with(message)
}

/// The sentence about a check without an end.
fn late(what: &str, limit: Duration) -> Verdict {
    Verdict::failed(format!("{what} within {limit:?}"))
}
