//! Sentences that groups and servers have in common.

use holdfast_api::reasons::{condition, hold};
use holdfast_api::v1::{EvidenceKind, Hold, MemberStatus, Resolution, ServerState, SubCluster, Verdict};
use holdfast_api::{conditions, duration::Duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::statement::{Statement, Topic};

pub(super) fn at(time: Option<&Time>) -> String {
    time.map_or_else(String::new, |time| format!(" at {:.0}", time.0))
}

fn since(time: Option<&Time>) -> String {
    time.map_or_else(String::new, |time| format!(" since {:.0}", time.0))
}

pub(super) fn sub_name(sub: &SubCluster) -> &str {
    sub.metadata.name.as_deref().unwrap_or_default()
}

/// What the sub-cluster reports of a server.
pub(super) fn member<'a>(sub: &'a SubCluster, server: &str) -> Option<&'a MemberStatus> {
    sub.status.as_ref()?.members.iter().find(|member| member.name == server)
}

/// That what follows may be old, if it may be.
pub(super) fn stale(list: &[Condition]) -> Option<Statement> {
    let silent = conditions::get(list, condition::AGENT_REPORTING).filter(|one| one.status == "False")?;
    let text = format!("no agent reports ({}); what follows is what was reported last", silent.message);
    Some(Statement::new(Topic::Now, text))
}

/// That the newest specification is not in force, if it is not.
pub(super) fn refused(list: &[Condition]) -> Option<Statement> {
    let refused = conditions::get(list, condition::ACCEPTED).filter(|one| one.status == "False")?;
    let text = format!(
        "the newest specification is not accepted, so the one before is in force, if there is one: {}, {}",
        refused.reason, refused.message
    );
    Some(Statement::new(Topic::Now, text))
}

/// Why the old server was known to have stopped.
pub(super) fn evidence(kind: EvidenceKind, server: &str) -> String {
    match kind {
        EvidenceKind::Clean => format!("{server} had stopped it and said so"),
        EvidenceKind::Rebooted => format!("{server} has booted anew, so nothing of before runs there"),
        EvidenceKind::Power => format!("a fence device says that the power of {server} is off"),
        EvidenceKind::Storage => format!("the storage refuses what {server} writes"),
        EvidenceKind::Time => {
            format!("the takeover wait had passed: without a majority {server} must have stopped everything before")
        }
        EvidenceKind::Operator => format!("an operator confirmed that {server} had stopped"),
    }
}

/// How the sub-cluster came to the view that it has.
pub(super) fn resolution(resolution: &Resolution) -> Option<Statement> {
    let verdict = match resolution.verdict? {
        Verdict::ServerLost => "it was left out of the view",
        Verdict::PeerReturned => "it was heard again in time",
        Verdict::SelfStopped => "this side had no majority and stopped",
        Verdict::NoQuorum => "nobody had a majority",
    };
    let paths =
        if resolution.paths.is_empty() { String::new() } else { format!(" on {}", resolution.paths.join(", ")) };
    let arbiter = resolution.arbiter.map_or_else(String::new, |arbiter| format!("; the tie was broken by {arbiter}"));
    let took = |name: &str, took: &Option<Duration>| took.as_ref().map(|took| format!("{name} {took}"));
    let times: Vec<String> = [
        took("detection", &resolution.detection),
        took("decision", &resolution.resolution),
        took("wait for evidence", &resolution.wait),
    ]
    .into_iter()
    .flatten()
    .collect();
    let text = format!(
        "the sub-cluster decided{} about a server that was silent{paths}: {verdict}{arbiter} ({})",
        at(resolution.time.as_ref()),
        times.join(", ")
    );
    Some(Statement::new(Topic::Last, text))
}

/// That a hold is in force.
pub(super) fn held(one: &Hold) -> Statement {
    let by = if one.by.is_empty() { String::new() } else { format!(", placed by {}", one.by) };
    let until = one.until.as_ref().map_or_else(String::new, |until| format!(", until {:.0}", until.0));
    let message = if one.message.is_empty() { String::new() } else { format!(": {}", one.message) };
    Statement::new(Topic::Here, format!("held by {}{}{until}{by}{message}", one.type_, since(one.since.as_ref())))
}

/// What releases a hold of a group; none if nothing here can say.
pub(super) fn release_of_group(one: &Hold, group: &str) -> Option<Statement> {
    let (text, command) = match one.type_.as_str() {
        hold::STOPPED | hold::MANUAL_START => ("a start releases it", format!("holdfast start {group}")),
        hold::AFTER_FORCE_REINSTATE => {
            ("look at its data first: what other servers wrote may be missing; then", format!("holdfast start {group}"))
        }
        hold::PAUSED => ("nobody acts on it before that:", format!("holdfast resume {group}")),
        hold::FAILURE_LIMIT => ("remove the cause of the failures, then", format!("holdfast clear-failures {group}")),
        hold::BRAKE => ("remove the cause of the moves or losses, then", format!("holdfast clear-failures {group}")),
        _ => return None,
    };
    Some(Statement::new(Topic::Change, format!("{}: {text}", one.type_)).command(command))
}

/// What brings a server back that runs nothing.
pub(super) fn return_of(sub: &SubCluster, server: &str) -> Option<Statement> {
    let full = format!("{}.{server}", sub_name(sub));
    let declared = sub.spec.servers.iter().find(|declared| declared.name == server);
    if declared.is_some_and(|declared| declared.state == holdfast_api::v1::ServerDeclaredState::Detached) {
        let text = format!("set spec.servers[name={server}].state of sub-cluster {} to Active", sub_name(sub));
        return Some(Statement::new(Topic::Change, text).about(server));
    }
    let member = member(sub, server)?;
    let statement = match member.state {
        _ if member.unproven => Statement::new(
            Topic::Change,
            format!(
                "{server} may still run something: its return proves that it does not; if it is off, and only then"
            ),
        )
        .command(format!("holdfast confirm-stopped {full} --confirm {full} --reason \"what was looked at\"")),
        ServerState::Detached => {
            Statement::new(Topic::Change, format!("{server} may run it again once it is reinstated"))
                .command(format!("holdfast reinstate {full}"))
        }
        ServerState::Lost | ServerState::Unknown | ServerState::Suspect | ServerState::Partitioned => {
            let text = format!("{server} has to be seen again: is it on, does its agent run, does a path reach it?");
            Statement::new(Topic::Change, text).command(format!("holdfast why server/{full}"))
        }
        _ => return None,
    };
    Some(statement.about(server))
}
