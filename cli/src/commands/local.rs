//! `holdfast failover`, `down` and `run`, and with `--local` `stop`, `start`, `pause`, `resume` and `clear-failures`: C25, on
//! the server itself, through its agent's socket. They need no API.
//!
//! What may be done is the agents' to decide; here stands how they are asked, and how their answer is told.

use std::io::ErrorKind;

use holdfast_agent::commands::{Answer, HoldChange, Program, Request};
use holdfast_agent::config::AgentConfig;
use holdfast_agent::local_socket;

use crate::args::{ClearFailuresArgs, DownArgs, FailoverArgs, GroupArgs, LocalArgs, PauseArgs, ResumeArgs, RunArgs};
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs `failover`.
///
/// # Errors
/// Why the group stays.
pub(crate) fn failover(args: &FailoverArgs, printer: Printer) -> Result {
    let request = Request::Failover { group: args.group.clone(), reason: args.reason.clone() };
    printer.data(&order(&args.local, &request)?)
}

/// Runs `clear-failures --local`.
///
/// # Errors
/// Why they are not forgotten.
pub(crate) fn clear_failures(args: ClearFailuresArgs, printer: Printer) -> Result {
    let ClearFailuresArgs { group, resource, here, wait, .. } = args;
    let (group, reason) = (group.unwrap_or_default(), wait.reason.unwrap_or_default());
    printer.data(&order(&here.agent, &Request::ClearFailures { group, resource, reason })?)
}

/// Runs `pause --local`.
///
/// # Errors
/// Why it is not paused.
pub(crate) fn pause(args: PauseArgs, printer: Printer) -> Result {
    let change = HoldChange::Pause { until: args.until.map(|until| until.0.as_second()) };
    let (group, reason) = (args.target.group.unwrap_or_default(), args.wait.reason.unwrap_or_default());
    printer.data(&order(&args.here.agent, &Request::Hold { group, change, reason })?)
}

/// Runs `resume --local`.
///
/// # Errors
/// Why it stays paused.
pub(crate) fn resume(args: ResumeArgs, printer: Printer) -> Result {
    let change = HoldChange::Resume { accept: args.accept_differences };
    let (group, reason) = (args.target.group.unwrap_or_default(), args.wait.reason.unwrap_or_default());
    printer.data(&order(&args.here.agent, &Request::Hold { group, change, reason })?)
}

/// Runs `start --local` and `stop --local`.
///
/// # Errors
/// Why nothing changes.
pub(crate) fn hold(args: GroupArgs, change: HoldChange, printer: Printer) -> Result {
    let (group, reason) = (args.group.unwrap_or_default(), args.wait.reason.unwrap_or_default());
    printer.data(&order(&args.here.agent, &Request::Hold { group, change, reason })?)
}

/// Runs `down`.
///
/// # Errors
/// Why the server stays.
pub(crate) fn down(args: &DownArgs, printer: Printer) -> Result {
    printer.data(&order(&args.local, &Request::Down { reason: args.reason.clone() })?)
}

/// Runs `run`.
///
/// # Errors
/// Why the program does not run, or has not stopped.
pub(crate) fn run(args: RunArgs, printer: Printer) -> Result {
    let RunArgs { group, name, user, directory, restarts, window, grace, stop, local, command } = args;
    let request = if stop {
        Request::Stop { group, name }
    } else {
        Request::Run(Program { group, name, command, directory, user, restarts, window, grace })
    };
    printer.data(&order(&local, &request)?)
}

/// Gives a command to the agent of this server and waits for its answer.
///
/// # Errors
/// What the agent refuses, or why it can't be asked.
pub(crate) fn order(local: &LocalArgs, request: &Request) -> Result<String> {
    let line = ask(local, request)?;
    match serde_json::from_str(&line) {
        Ok(Answer::Done(done)) => Ok(done),
        Ok(Answer::Refused(refusal)) => Err(Failure::refused(refusal)),
        Err(error) => Err(anyhow::Error::from(error).context(format!("the agent answered {line:?}")).into()),
    }
}

/// Says a line to the agent of this server and gives its own.
///
/// # Errors
/// Why it can't be asked.
pub(crate) fn ask(local: &LocalArgs, request: &Request) -> Result<String> {
    // The agent says the same, but the file and the socket may be somewhere else: here nothing was sent yet.
    Request::parse(request.line().as_bytes()).map_err(Failure::refused)?;
    let config = AgentConfig::load(&local.config).map_err(|error| {
        Failure::refused_by(error)
            .hint("--config names the agent's file; the command works on a server of the sub-cluster")
    })?;
    let socket = local_socket::path(&config.run_dir);
    local_socket::call(&config.run_dir, request).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::refused(format!(
            "the agent of {} does not run: nobody answers at {}",
            config.server,
            socket.display()
        ))
        .hint("start it (systemctl start holdfast-agent); without it this server runs no group"),
        ErrorKind::PermissionDenied => {
            Failure::refused(format!("{} is for the super-user only", socket.display())).hint("run the command as root")
        }
        _ => Failure::from(anyhow::Error::from(error).context(format!("asking the agent at {}", socket.display()))),
    })
}
