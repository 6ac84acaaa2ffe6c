//! The decision for one group after another, on the board that shows where the others are and go.

use std::cmp::Reverse;

use crate::board::Board;
use crate::{Action, Candidate, Current, Decision, Declared, Group, Input, Phase, Plan, Reason, Rule, ServerState};

/// Decides about every group.
pub fn plan(input: &Input) -> Plan {
    let mut board = Board::new(input);
    let mut plan = Plan::default();
    for group in board.sequence() {
        let decision = decide(&mut board, group);
        board.decided(group, goes(board.group(group), &decision));
        plan.decisions.insert(board.name(group).to_owned(), decision);
    }
    let mut order: Vec<(&String, &Group)> = input.groups.iter().collect();
    // Stable, and the map is sorted by name: equal priorities stay in the order of their names.
    order.sort_by_key(|(_, group)| Reverse(group.priority));
    plan.order = order.into_iter().map(|(name, _)| name.clone()).collect();
    plan
}

/// Reasons that exclude `server` from running the group of that name, seen from where all others are, and from where those
/// that are placed before it go; empty if it may run there.
pub fn exclusions(input: &Input, name: &str, server: &str) -> Vec<Reason> {
    let mut board = Board::new(input);
    let Some(asked) = board.number(name) else { return Vec::new() };
    for group in board.sequence().into_iter().take_while(|group| *group != asked) {
        let decision = decide(&mut board, group);
        board.decided(group, goes(board.group(group), &decision));
    }
    board.against(asked, server, true)
}

/// Reasons that exclude `server` whatever other groups do.
pub(crate) fn exclusions_alone(input: &Input, group: &Group, server: &str) -> Vec<Reason> {
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

/// Where a group stays or goes by a decision. Not where it only waits to be stopped, nor where it would start if something
/// else came first that may never come.
fn goes<'a>(group: &Group, decision: &'a Decision) -> Option<&'a str> {
    match (&decision.action, &group.current) {
        (Action::Start { server }, _) => Some(server),
        (Action::Stop { then, .. }, _) => then.as_deref(),
        (Action::Keep, Current::On { .. }) => decision.server.as_deref(),
        (Action::Wait, Current::On { phase: Phase::Starting, .. }) => decision.server.as_deref(),
        (Action::Wait, Current::Offline) if decision.rule == Rule::WaitForRoom => decision.server.as_deref(),
        _ => None,
    }
}

/// What speaks for and against servers, of one group.
struct Choice {
    /// Looked at: those of the policy and those of the sub-cluster, with what speaks against them.
    against: Vec<(String, Vec<Reason>)>,
    /// Those of the policy, the most wanted first.
    wanted: Vec<String>,
    /// There is no server for all that must be together: it is placed alone.
    alone: bool,
}

impl Choice {
    fn new(board: &Board<'_>, group: usize) -> Self {
        let (known, input) = (board.group(group), board.input());
        let mut servers: Vec<&String> = known.policy.iter().collect();
        servers.extend(input.servers.keys().filter(|server| !known.policy.contains(server)));
        let look = |strict| -> Vec<(String, Vec<Reason>)> {
            servers.iter().map(|server| ((*server).clone(), board.against(group, server, strict))).collect()
        };
        let mut against = look(true);
        let alone = against.iter().all(|(_, reasons)| !reasons.is_empty());
        if alone {
            // Nowhere with all that must be with it: then where it may run itself.
            against = look(false);
        }
        let mut wanted: Vec<(usize, &String)> =
            known.policy.iter().map(|server| (board.unwanted(group, server), server)).collect();
        wanted.sort_by_key(|(unwanted, _)| *unwanted); // stable: then the order of the policy
        Self { against, wanted: wanted.into_iter().map(|(_, server)| server.clone()).collect(), alone }
    }

    fn against(&self, server: &str) -> &[Reason] {
        self.against.iter().find(|(name, _)| name == server).map_or(&[Reason::Lost], |(_, reasons)| reasons)
    }

    fn may_run(&self, server: &str) -> bool {
        self.against(server).is_empty()
    }

    fn preferred(&self) -> Option<String> {
        self.wanted.iter().find(|server| self.may_run(server)).cloned()
    }
}

fn decide(board: &mut Board<'_>, number: usize) -> Decision {
    let group = board.group(number);
    let choice = Choice::new(board, number);
    let wanted = group.is_wanted();
    let (action, server, rule) = match &group.current {
        Current::Conflict { .. } => (Action::Wait, None, Rule::Conflict),
        Current::Unknown { .. } => (Action::Wait, None, Rule::WaitForEvidence),
        // Nobody can be told to stop it there, and what it does there is not known.
        Current::On { server, .. } if !in_view(board.input(), server) => (Action::Wait, None, Rule::WaitForEvidence),
        Current::On { server, phase: Phase::Stuck } => (Action::Wait, Some(server.clone()), Rule::StopUnproven),
        Current::On { server, phase: Phase::Stopping } => (Action::Wait, Some(server.clone()), Rule::InProgress),
        Current::On { server, .. } if group.frozen => (Action::Keep, Some(server.clone()), Rule::Held),
        Current::On { server, .. } if !wanted && board.awaits_stop(number) => wait_for_group(server),
        Current::On { server, .. } if !wanted => (stop(server, None), None, off_rule(group)),
        Current::On { server, phase } => running(board, number, &choice, server, *phase),
        Current::Offline if !wanted => (Action::Keep, None, off_rule(group)),
        Current::Offline => starting(board, number, &choice),
    };
    let candidates = candidates(board.input(), group, &choice, server.as_deref());
    Decision { action, server, rule, candidates }
}

/// Whether `server` hears the coordinator: a detached server that still holds a group does until it is empty.
pub(crate) fn in_view(input: &Input, server: &str) -> bool {
    matches!(input.servers.get(server), Some(ServerState::Member | ServerState::Detached))
}

/// A group that runs nowhere and should.
fn starting(board: &mut Board<'_>, number: usize, choice: &Choice) -> (Action, Option<String>, Rule) {
    let group = board.group(number);
    let requested = group.request.as_ref().map(|request| &request.server).filter(|server| choice.may_run(server));
    let (server, rule) = match (requested.cloned(), choice.preferred()) {
        (Some(server), _) => (server, Rule::Requested),
        (None, Some(server)) => (server, Rule::Preference),
        (None, None) => {
            let first: Vec<&str> = choice.wanted.iter().map(String::as_str).collect();
            // Nobody leaves for a group that could not start then either.
            let come: Vec<&str> = first.iter().copied().filter(|server| board.comes_now(number, server)).collect();
            return match board.make_room(number, &come) {
                Some(server) => (Action::Wait, Some(server), Rule::WaitForRoom),
                None => (Action::Wait, None, Rule::NoServerLeft),
            };
        }
    };
    if !board.comes_now(number, &server) {
        return (Action::Wait, Some(server), Rule::WaitForGroup);
    }
    (Action::Start { server: server.clone() }, Some(server), rule)
}

/// A group that a member holds and that should run.
fn running(
    board: &mut Board<'_>,
    number: usize,
    choice: &Choice,
    here: &str,
    phase: Phase,
) -> (Action, Option<String>, Rule) {
    let group = board.group(number);
    let requested = group.request.as_ref().map(|request| request.server.clone());
    // Of those that must be together one goes ahead only when all are there: while some are elsewhere another may lead,
    // and they would follow each other around.
    let free = !choice.alone && board.set_is_online(number, here);
    let may_go = |target: &String| target != here && choice.may_run(target) && free;
    if let Some(target) = requested.filter(may_go) {
        return (stop(here, Some(&target)), Some(target), Rule::Requested);
    }
    if choice.may_run(here) && phase != Phase::Failed {
        let rank = |server: &str| group.policy.iter().position(|allowed| allowed == server);
        let better = choice.preferred().filter(|server| rank(server) < rank(here));
        return match better.filter(|server| group.failback_to.contains(server) && free) {
            Some(target) if group.request.is_none() && phase == Phase::Online => {
                (stop(here, Some(&target)), Some(target), Rule::Failback)
            }
            _ if phase == Phase::Starting => (Action::Wait, Some(here.into()), Rule::InProgress),
            _ => (Action::Keep, Some(here.into()), Rule::Stay),
        };
    }
    let others = |reason: &Reason| matches!(reason, Reason::NoCapacity | Reason::SeparateFrom | Reason::Together);
    let rule = match phase == Phase::Failed || !choice.against(here).iter().all(others) {
        true => Rule::Recovery,
        false => Rule::Relation,
    };
    let target = choice.preferred().or_else(|| {
        // What failed takes the place of less important groups; what leaves for others does not push on.
        let first: Vec<&str> = choice.wanted.iter().map(String::as_str).filter(|_| rule == Rule::Recovery).collect();
        board.make_room(number, &first)
    });
    match target {
        Some(target) => (stop(here, Some(&target)), Some(target), rule),
        None if group.stop_when_no_server_left && board.awaits_stop(number) => wait_for_group(here),
        None if group.stop_when_no_server_left && rule == Rule::Relation => (stop(here, None), None, rule),
        None if group.stop_when_no_server_left => (stop(here, None), None, Rule::NoServerLeft),
        None => (Action::Keep, Some(here.into()), Rule::NoServerLeft),
    }
}

fn stop(server: &str, then: Option<&str>) -> Action {
    Action::Stop { server: server.into(), then: then.map(Into::into) }
}

/// It stops when what comes after it has stopped.
fn wait_for_group(here: &str) -> (Action, Option<String>, Rule) {
    (Action::Wait, Some(here.to_owned()), Rule::WaitForGroup)
}

fn off_rule(group: &Group) -> Rule {
    if group.declared == Declared::Offline { Rule::DeclaredOffline } else { Rule::Held }
}

/// The servers that were not chosen, each with its reasons.
fn candidates(input: &Input, group: &Group, choice: &Choice, chosen: Option<&str>) -> Vec<Candidate> {
    let others = input.servers.keys().filter(|server| Some(server.as_str()) != chosen);
    others
        .map(|server| {
            let mut reasons = choice.against(server).to_vec();
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
