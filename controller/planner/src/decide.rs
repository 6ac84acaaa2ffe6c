//! The decision for one group after another. Groups do not influence one another here.

use std::cmp::Reverse;

use crate::{Action, Candidate, Current, Decision, Declared, Group, Input, Phase, Plan, Reason, Rule, ServerState};

/// Decides about every group.
pub fn plan(input: &Input) -> Plan {
    let decisions = input.groups.iter().map(|(name, group)| (name.clone(), decide(input, group))).collect();
    let mut order: Vec<(&String, &Group)> = input.groups.iter().collect();
    // Stable, and the map is sorted by name: equal priorities stay in the order of their names.
    order.sort_by_key(|(_, group)| Reverse(group.priority));
    Plan { decisions, order: order.into_iter().map(|(name, _)| name.clone()).collect() }
}

/// Reasons that exclude `server` from running `group` at all; empty if it may.
pub fn exclusions(input: &Input, group: &Group, server: &str) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match input.servers.get(server) {
        Some(ServerState::Member) => {}
        Some(ServerState::Detached) => reasons.push(Reason::Detached),
        Some(ServerState::Lost) | None => reasons.push(Reason::Lost),
    }
    if !group.policy.iter().any(|allowed| allowed == server) {
        reasons.push(Reason::NotInPolicy);
    }
    if group.failed_on.contains_key(server) {
        reasons.push(Reason::Failed);
    }
    reasons
}

fn decide(input: &Input, group: &Group) -> Decision {
    let may_run = |server: &str| exclusions(input, group, server).is_empty();
    let preferred = group.policy.iter().find(|server| may_run(server)).cloned();
    let requested = group.request.as_ref().map(|request| request.server.clone()).filter(|server| may_run(server));
    let wanted = group.declared == Declared::Online && group.holds.is_empty();

    let (action, server, rule) = match &group.current {
        Current::Conflict { .. } => (Action::Wait, None, Rule::Conflict),
        Current::Unknown { .. } => (Action::Wait, None, Rule::WaitForEvidence),
        // Nobody can be told to stop it there, and what it does there is not known.
        Current::On { server, .. } if !in_view(input, server) => (Action::Wait, None, Rule::WaitForEvidence),
        Current::On { server, phase: Phase::Stuck } => (Action::Wait, Some(server.clone()), Rule::StopUnproven),
        Current::On { server, phase: Phase::Stopping } => (Action::Wait, Some(server.clone()), Rule::InProgress),
        Current::On { server, .. } if !wanted => (stop(server, None), None, off_rule(group)),
        Current::On { server, phase } => running(input, group, server, *phase, requested, preferred),
        Current::Offline if !wanted => (Action::Keep, None, off_rule(group)),
        Current::Offline => match (requested, preferred) {
            (Some(server), _) => (Action::Start { server: server.clone() }, Some(server), Rule::Requested),
            (None, Some(server)) => (Action::Start { server: server.clone() }, Some(server), Rule::Preference),
            (None, None) => (Action::Wait, None, Rule::NoServerLeft),
        },
    };
    let candidates = candidates(input, group, server.as_deref());
    Decision { action, server, rule, candidates }
}

/// Whether `server` hears the coordinator: a detached server that still holds a group does until it is empty.
pub(crate) fn in_view(input: &Input, server: &str) -> bool {
    matches!(input.servers.get(server), Some(ServerState::Member | ServerState::Detached))
}

/// A group that a member holds and that should run.
fn running(
    input: &Input,
    group: &Group,
    here: &str,
    phase: Phase,
    requested: Option<String>,
    preferred: Option<String>,
) -> (Action, Option<String>, Rule) {
    if let Some(target) = requested.filter(|target| target != here) {
        return (stop(here, Some(&target)), Some(target), Rule::Requested);
    }
    if exclusions(input, group, here).is_empty() && phase != Phase::Failed {
        let rank = |server: &str| group.policy.iter().position(|allowed| allowed == server);
        let better = preferred.filter(|server| rank(server) < rank(here));
        return match better {
            Some(target) if group.failback && group.request.is_none() && phase == Phase::Online => {
                (stop(here, Some(&target)), Some(target), Rule::Failback)
            }
            _ if phase == Phase::Starting => (Action::Wait, Some(here.into()), Rule::InProgress),
            _ => (Action::Keep, Some(here.into()), Rule::Stay),
        };
    }
    match preferred {
        Some(target) if target == here => (stop(here, Some(here)), Some(target), Rule::Recovery),
        Some(target) => (stop(here, Some(&target)), Some(target), Rule::Recovery),
        None if group.stop_when_no_server_left => (stop(here, None), None, Rule::NoServerLeft),
        None => (Action::Keep, Some(here.into()), Rule::NoServerLeft),
    }
}

fn stop(server: &str, then: Option<&str>) -> Action {
    Action::Stop { server: server.into(), then: then.map(Into::into) }
}

fn off_rule(group: &Group) -> Rule {
    if group.declared == Declared::Offline { Rule::DeclaredOffline } else { Rule::Held }
}

/// The servers that were not chosen, each with its reasons.
fn candidates(input: &Input, group: &Group, chosen: Option<&str>) -> Vec<Candidate> {
    let others = input.servers.keys().filter(|server| Some(server.as_str()) != chosen);
    others
        .map(|server| {
            let mut reasons = exclusions(input, group, server);
            let eligible = reasons.is_empty();
            if eligible {
                reasons.push(match &group.current {
                    Current::Unknown { .. } => Reason::NoEvidence,
                    Current::On { server: holder, .. } if !in_view(input, holder) => Reason::NoEvidence,
                    _ => Reason::LowerPreference,
                });
            }
            Candidate { server: server.clone(), eligible, reasons }
        })
        .collect()
}
