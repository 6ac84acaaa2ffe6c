//! `holdfast monitor`: C25's check from a script. It runs in the foreground as long as its caller wants it; what follows a
//! failure goes through the agent, as `holdfast failover` and `holdfast down` do.
//!
//! Monitors that are declared (`spec.monitors`) need no process of their own, show in the status, and run on the next
//! server, too. This one is for what a start script knows and a manifest doesn't.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use holdfast_agent::ask::{Ask, ask};
use holdfast_agent::commands::Request;
use holdfast_agent::spawn::{Exit, find_program};
use serde_json::Value;

use crate::args::{LocalArgs, MonitorAction, MonitorArgs};
use crate::commands::local;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Longest reason, in characters; the agent takes no longer one.
const REASON: usize = 256;

/// Runs `monitor`, until the server goes down or it is ended.
///
/// # Errors
/// Before the first check, what makes all of them pointless: no such program, no agent, no such group.
pub(crate) fn run(args: &MonitorArgs, printer: Printer) -> Result {
    let [name, rest @ ..] = args.command.as_slice() else { return Err(Failure::refused("a check is needed")) };
    let program = find_program(name).ok_or_else(|| Failure::refused(format!("there is no program {name:?}")))?;
    if args.action == MonitorAction::Failover && args.group.is_none() {
        return Err(Failure::refused("--action failover needs --group").hint("--action down is about the whole server"));
    }
    if let Some(group) = &args.group {
        let known = groups(&args.local)?;
        if !known.contains(group) {
            return Err(Failure::refused(format!("there is no group {group}; known are {}", known.join(", "))));
        }
    }
    let mut failures = 0;
    loop {
        let here = args.group.as_ref().is_none_or(|group| is_online_here(&args.local, group));
        let outcome = if here { check(&program, rest, args.timeout) } else { Ok(()) };
        match outcome {
            Ok(()) => failures = 0,
            Err(what) => {
                failures += 1;
                printer.note(format!("monitor {}: {what} ({failures} of {})", args.name, args.threshold));
                if failures >= args.threshold {
                    failures = 0;
                    if let Some(end) = act(args, &what, printer) {
                        return end;
                    }
                }
            }
        }
        sleep(Duration::from_secs(args.interval.into()));
    }
}

/// One check.
fn check(program: &PathBuf, args: &[String], timeout: u32) -> std::result::Result<(), String> {
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let never = AtomicBool::new(false);
    let timeout = Duration::from_secs(timeout.into());
    let run = Ask { program, args, environment: &environment, input: "", timeout, cgroup: None, cancel: &never };
    let (problem, said) = match ask(&run) {
        Ok(answer) if answer.exit == Exit::Code(0) => return Ok(()),
        Ok(answer) => (answer.exit.to_string(), answer.last_lines),
        Err(silence) => (silence.problem, silence.last_lines),
    };
    Err(if said.is_empty() { problem } else { format!("{problem}: {said}") })
}

/// What follows the threshold. Gives how the command ends, if it does.
fn act(args: &MonitorArgs, what: &str, printer: Printer) -> Option<Result> {
    let reason = format!("monitor {}: {what}", args.name);
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON).collect();
    let request = match (args.action, &args.group) {
        (MonitorAction::Failover, Some(group)) => Request::Failover { group: group.clone(), reason },
        (MonitorAction::Down, _) => Request::Down { reason },
        _ => {
            printer.note(format!("{reason}; nothing follows (--action report)"));
            return None;
        }
    };
    match (local::order(&args.local, &request), args.action) {
        (Ok(done), MonitorAction::Down) => Some(printer.data(&done)),
        (Ok(done), _) => printer.data(&done).err().map(Err),
        // It may be possible later: then after a whole threshold again.
        (Err(refusal), _) => {
            printer.note(refusal);
            None
        }
    }
}

fn status(local: &LocalArgs) -> Result<Value> {
    let line = local::ask(local, &Request::Status {})?;
    Ok(serde_json::from_str(&line).map_err(anyhow::Error::from)?)
}

/// All groups that the agent knows.
fn groups(local: &LocalArgs) -> Result<Vec<String>> {
    let status = status(local)?;
    let names = |key: &str| status[key].as_object().into_iter().flat_map(|map| map.keys().cloned()).collect::<Vec<_>>();
    let mut all = [names("held"), names("groups")].concat();
    all.sort();
    all.dedup();
    Ok(all)
}

/// While it starts, stops or is somewhere else there is nothing to be checked; nor while nobody can tell.
fn is_online_here(local: &LocalArgs, group: &str) -> bool {
    status(local).is_ok_and(|status| status["held"][group]["phase"] == "Online")
}
