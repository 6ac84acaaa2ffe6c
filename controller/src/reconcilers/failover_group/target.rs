//! What the controller wants of a group: the planner's answer on the observed state, tagged with the placement that it was
//! computed from, so that the agents drop it when they have moved on (R15).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::placement::{capacity, relations};
use holdfast_api::reasons::hold;
use holdfast_api::v1::{
    ExclusionReason, FailoverGroup, GroupPhase, GroupState, MemberStatus, NoServerLeftAction, OperationType, Server,
    ServerDeclaredState, ServerState, SubCluster, SubClusterState, Target,
};
use holdfast_planner::{Action, Current, Decision, Declared, Group, Input, Phase, Reason, Request, check, plan};
use kube::ResourceExt;

/// What a running Operation asks of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Name of the Operation.
    pub(crate) operation: String,
    /// What it does.
    pub(crate) type_: OperationType,
    /// The server that it names.
    pub(crate) to: Option<String>,
}

/// What else is in the sub-cluster and has a say in where a group may go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    /// Its servers, which say what they have.
    pub(crate) servers: Vec<Arc<Server>>,
    /// Its groups.
    pub(crate) groups: Vec<Arc<FailoverGroup>>,
}

/// The state that a server has for the planner.
fn server_state(sub: &SubCluster, name: &str, declared: ServerDeclaredState) -> holdfast_planner::ServerState {
    use holdfast_planner::ServerState as Planned;
    let status = sub.status.as_ref();
    let reported = status.and_then(|s| s.members.iter().find(|member| member.name == name)).map(|member| member.state);
    let in_view =
        status.and_then(|s| s.view.as_ref()).is_some_and(|view| view.members.iter().any(|member| member == name));
    match reported {
        _ if declared == ServerDeclaredState::Detached => Planned::Detached,
        Some(ServerState::Detached | ServerState::Leaving) => Planned::Detached,
        Some(ServerState::Lost | ServerState::Joining) => Planned::Lost,
        _ if in_view => Planned::Member,
        _ => Planned::Lost,
    }
}

fn current(group: &FailoverGroup) -> Current {
    let Some(status) = &group.status else { return Current::Offline };
    let on = |phase| match &status.server {
        Some(server) => Current::On { server: server.clone(), phase },
        None => Current::Unknown { servers: BTreeSet::new() },
    };
    match status.phase {
        None | Some(GroupPhase::Offline) => Current::Offline,
        // Failed and held nowhere: nothing of it runs, and the failures say where not to try again.
        Some(GroupPhase::Failed) if status.server.is_none() => Current::Offline,
        Some(GroupPhase::Failed) => on(Phase::Failed),
        Some(GroupPhase::Starting) => on(Phase::Starting),
        Some(GroupPhase::Online) => on(Phase::Online),
        Some(GroupPhase::Stopping) => on(Phase::Stopping),
        Some(GroupPhase::Stuck) => on(Phase::Stuck),
        Some(GroupPhase::Unknown) => Current::Unknown { servers: status.server.iter().cloned().collect() },
    }
}

/// Servers that the coordinator excludes because the group failed there.
fn failed_on(group: &FailoverGroup) -> impl Iterator<Item = (String, String)> {
    let status = group.status.iter();
    let candidates = status.flat_map(|status| &status.decision).flat_map(|decision| &decision.candidates);
    let failed = candidates.filter(|candidate| candidate.reasons.contains(&ExclusionReason::Failed));
    failed.map(move |candidate| {
        let mut failures = group.status.iter().flat_map(|status| &status.failures);
        let failure = failures.find(|failure| failure.server == candidate.server);
        let message = failure.map(|failure| format!("{}: {}", failure.resource, failure.message)).unwrap_or_default();
        (candidate.server.clone(), message)
    })
}

/// A group as the planner sees it. `offline`: it shall not run, whatever the spec says.
fn planned(sub: &SubCluster, group: &FailoverGroup, ask: Option<&Ask>, offline: bool) -> Group {
    let stopped = sub.spec.state == SubClusterState::Stopped;
    let is_start = ask.is_some_and(|ask| ask.type_ == OperationType::Start);
    let is_stop = ask.is_some_and(|ask| ask.type_ == OperationType::Stop);
    let holds = group.status.iter().flat_map(|status| &status.holds).map(|hold| hold.type_.clone());
    // A Start releases these; the agents do that when they take its target.
    let holds = holds.filter(|hold| !(is_start && super::released_by_start(hold)));
    let paused = group.status.iter().flat_map(|status| &status.holds).any(|hold| hold.type_ == hold::PAUSED);
    let leaves = |member: &&MemberStatus| member.state == ServerState::Leaving;
    let mut leaving = sub.status.iter().flat_map(|status| &status.members).filter(leaves);
    let here = group.status.as_ref().and_then(|status| status.server.as_ref());
    let stays = !leaving.any(|member| Some(&member.name) == here);
    let offline = offline || stopped || is_stop || group.spec.state == GroupState::Offline;
    Group {
        declared: if offline { Declared::Offline } else { Declared::Online },
        holds: holds.collect(),
        policy: group.spec.placement_servers(&sub.spec),
        priority: group.spec.placement.priority,
        // When a group goes back by itself the agents know: they have seen since when the server is there.
        failback_to: BTreeSet::new(),
        relations: relations(&group.spec.placement),
        current: current(group),
        // An operator who starts a group says that the cause of its failures is gone; the agents forgive them, too.
        failed_on: if is_start { BTreeMap::new() } else { failed_on(group).collect() },
        request: ask.and_then(|ask| ask.to.clone()).map(|server| Request { server }),
        frozen: paused && stays,
        stop_when_no_server_left: group.spec.recovery.no_server_left == NoServerLeftAction::Stop,
    }
}

/// The planner's question about one group, among those beside it.
pub(crate) fn question(
    sub: &SubCluster,
    group: &FailoverGroup,
    beside: &Beside,
    ask: Option<&Ask>,
    offline: bool,
) -> Input {
    let mut input = whole(sub, beside);
    input.groups.insert(group.name_any(), planned(sub, group, ask, offline));
    input
}

/// The planner's question about a whole sub-cluster.
pub(crate) fn whole(sub: &SubCluster, beside: &Beside) -> Input {
    let servers = sub.spec.servers.iter();
    let has = |server: &Arc<Server>| {
        let has = server.status.as_ref()?.capacity.as_ref()?;
        // Without both numbers there is no limit that anyone knows of.
        let all = capacity(Some(has.cpu.as_ref()?), Some(has.memory.as_ref()?));
        Some((server.spec.server.clone(), all))
    };
    let groups = beside.groups.iter().map(|other| (other.name_any(), planned(sub, other, None, false)));
    Input {
        servers: servers.map(|s| (s.name.clone(), server_state(sub, &s.name, s.state))).collect(),
        capacity: beside.servers.iter().filter_map(has).collect(),
        groups: groups.collect(),
    }
}

/// The planner's decision about one group.
pub(crate) fn decide(
    sub: &SubCluster,
    group: &FailoverGroup,
    beside: &Beside,
    ask: Option<&Ask>,
    offline: bool,
) -> Option<Decision> {
    let question = question(sub, group, beside, ask, offline);
    let mut plan = plan(&question);
    let wrong = check(&question, &plan);
    if !wrong.is_empty() {
        // Nothing is asked for then; what runs is not touched.
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        tracing::error!(group = %group.name_any(), wrong = wrong.join("; "), "a plan that must not be carried out");
        return None;
    }
    plan.decisions.remove(&group.name_any())
}

/// Why the group can't run on `server`, by the planner; empty if it can.
pub(crate) fn exclusions(sub: &SubCluster, group: &FailoverGroup, beside: &Beside, server: &str) -> Vec<Reason> {
    holdfast_planner::exclusions(&question(sub, group, beside, None, false), &group.name_any(), server)
}

/// The target that should stand in the status now; none when nothing is asked for and what runs is what is wanted.
///
/// `accepted`: the present spec is accepted; else only an Operation is followed. `offline`: the object goes, stop it.
pub(crate) fn target(
    sub: &SubCluster,
    group: &FailoverGroup,
    beside: &Beside,
    ask: Option<&Ask>,
    accepted: bool,
    offline: bool,
) -> Option<Target> {
    let status = group.status.as_ref();
    // Before the servers have met there is nobody to ask.
    sub.status.as_ref().and_then(|status| status.epoch)?;
    let tagged = |server: Option<&str>, state| {
        Some(Target {
            server: server.unwrap_or_default().to_string(),
            state,
            // Zero before the first placement, which is what the agents compare with then.
            epoch: status.and_then(|s| s.epoch).unwrap_or_default(),
            revision: status.and_then(|s| s.revision),
            operation: ask.map(|ask| ask.operation.clone()).unwrap_or_default(),
        })
    };
    if let Some(ask) = ask {
        if ask.type_ == OperationType::Stop {
            return tagged(None, GroupState::Offline);
        }
        // The agents know where it starts again. A target for the moment in which it is offline could name a better server.
        if ask.type_ == OperationType::Restart && !offline {
            return None;
        }
        // What the agents have taken is not asked for again: a new tag would make them forgive failures of this very
        // attempt and try the same server for ever. It is asked for again when it was dropped, not taken.
        let asked_before = status.and_then(|s| s.target.as_ref()).filter(|target| target.operation == ask.operation);
        let phase = status.and_then(|s| s.phase);
        let taken = match ask.type_ {
            OperationType::Move => phase != Some(GroupPhase::Online),
            _ => !status.iter().flat_map(|s| &s.holds).any(|hold| super::released_by_start(&hold.type_)),
        };
        if let (Some(before), true) = (asked_before, taken) {
            return Some(before.clone());
        }
        let decision = decide(sub, group, beside, Some(ask), offline)?;
        return tagged(ask.to.as_deref().or(decision.server.as_deref()), GroupState::Online);
    }
    if !accepted && !offline {
        return None;
    }
    match decide(sub, group, beside, None, offline)?.action {
        Action::Start { server } => tagged(Some(&server), GroupState::Online),
        Action::Stop { then, .. } => match then {
            Some(server) => tagged(Some(&server), GroupState::Online),
            None => tagged(None, GroupState::Offline),
        },
        // Under way: what asked for it stays as it was computed, so that it is not written again at every step.
        Action::Wait => status.and_then(|s| s.target.clone()).filter(|target| target.operation.is_empty()),
        Action::Keep => None,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::v1::{Candidate, CandidateVerdict, Hold};

    use super::super::super::sub_cluster::tests::sub_cluster;
    use super::super::tests::{group, placed, running};
    use super::*;

    fn sub(members: &[&str]) -> SubCluster {
        running(sub_cluster("db"), members)
    }

    fn ask(type_: OperationType, to: Option<&str>) -> Ask {
        Ask { operation: "op-1".into(), type_, to: to.map(String::from) }
    }

    fn words(target: Option<Target>) -> String {
        target.map_or("nothing".into(), |t| {
            let revision = t.revision.map_or("-".into(), |revision| revision.to_string());
            format!("{} on [{}] from {}/{revision} by [{}]", t.state, t.server, t.epoch, t.operation)
        })
    }

    #[test]
    fn nothing_is_wanted_before_the_servers_have_met_and_when_all_is_well() {
        assert_eq!(target(&sub_cluster("db"), &group("ledger"), &Beside::default(), None, true, false), None);
        let online = placed(group("ledger"), GroupPhase::Online, "db2");
        assert_eq!(target(&sub(&["db1", "db2"]), &online, &Beside::default(), None, true, false), None);
    }

    #[test]
    fn the_declared_state_is_wanted_from_the_placement_that_was_seen() {
        let both = sub(&["db1", "db2"]);
        let fresh = group("ledger");
        assert_eq!(
            words(target(&both, &fresh, &Beside::default(), None, true, false)),
            "Online on [db1] from 0/- by []"
        );
        let mut stopping = placed(group("ledger"), GroupPhase::Online, "db2");
        stopping.spec.state = GroupState::Offline;
        assert_eq!(
            words(target(&both, &stopping, &Beside::default(), None, true, false)),
            "Offline on [] from 17/412 by []"
        );
        // Of an unaccepted spec nothing is wanted; a deletion that may go on still stops the group.
        assert_eq!(words(target(&both, &stopping, &Beside::default(), None, false, false)), "nothing");
        let confirmed = placed(group("ledger"), GroupPhase::Online, "db2");
        assert_eq!(
            words(target(&both, &confirmed, &Beside::default(), None, false, true)),
            "Offline on [] from 17/412 by []"
        );
    }

    #[test]
    fn a_hold_and_a_lost_server_are_respected() {
        let mut held = group("ledger");
        let hold = Hold { name: "stop-1".into(), type_: "Stopped".into(), ..Default::default() };
        held.status.get_or_insert_default().holds = vec![hold];
        assert_eq!(words(target(&sub(&["db1", "db2"]), &held, &Beside::default(), None, true, false)), "nothing");
        assert_eq!(
            words(target(&sub(&["db2"]), &group("ledger"), &Beside::default(), None, true, false)),
            "Online on [db2] from 0/- by []"
        );
        let unknown = placed(group("ledger"), GroupPhase::Unknown, "db1");
        assert_eq!(words(target(&sub(&["db2"]), &unknown, &Beside::default(), None, true, false)), "nothing");
    }

    #[test]
    fn an_operation_is_followed_with_its_name() {
        let (both, online) = (sub(&["db1", "db2"]), placed(group("ledger"), GroupPhase::Online, "db1"));
        let to = target(&both, &online, &Beside::default(), Some(&ask(OperationType::Move, Some("db2"))), true, false);
        assert_eq!(words(to), "Online on [db2] from 17/412 by [op-1]");
        let stop = target(&both, &online, &Beside::default(), Some(&ask(OperationType::Stop, None)), true, false);
        assert_eq!(words(stop), "Offline on [] from 17/412 by [op-1]");
        let mut held = placed(group("ledger"), GroupPhase::Offline, "");
        let hold = Hold { name: "stop-1".into(), type_: "Stopped".into(), ..Default::default() };
        held.status.get_or_insert_default().holds = vec![hold];
        let start = target(&both, &held, &Beside::default(), Some(&ask(OperationType::Start, None)), true, false);
        assert_eq!(words(start), "Online on [db1] from 17/412 by [op-1]");
    }

    #[test]
    fn nothing_else_is_asked_for_while_a_restart_has_the_group_offline() {
        let (both, stopped) = (sub(&["db1", "db2"]), placed(group("ledger"), GroupPhase::Offline, ""));
        let restart = ask(OperationType::Restart, None);
        assert_eq!(words(target(&both, &stopped, &Beside::default(), Some(&restart), true, false)), "nothing");
    }

    #[test]
    fn what_the_agents_have_taken_is_not_asked_for_again() {
        let both = sub(&["db1", "db2"]);
        let to_db2 = ask(OperationType::Move, Some("db2"));
        let mut moving = placed(group("ledger"), GroupPhase::Online, "db1");
        let asked = target(&both, &moving, &Beside::default(), Some(&to_db2), true, false);
        moving.status.as_mut().unwrap().target.clone_from(&asked);
        // Still where it was, under a newer tag: it was dropped.
        moving.status.as_mut().unwrap().revision = Some(413);
        assert_eq!(
            words(target(&both, &moving, &Beside::default(), Some(&to_db2), true, false)),
            "Online on [db2] from 17/413 by [op-1]"
        );
        for phase in [GroupPhase::Stopping, GroupPhase::Offline, GroupPhase::Starting, GroupPhase::Failed] {
            let taken = placed(moving.clone(), phase, "db2");
            assert_eq!(target(&both, &taken, &Beside::default(), Some(&to_db2), true, false), asked, "{phase}");
        }
    }

    #[test]
    fn what_is_under_way_is_not_written_again() {
        let both = sub(&["db1", "db2"]);
        let mut group = group("ledger");
        let wanted = target(&both, &group, &Beside::default(), None, true, false);
        group.status.get_or_insert_default().target.clone_from(&wanted);
        let mut starting = placed(group, GroupPhase::Starting, "db1");
        starting.status.as_mut().unwrap().revision = Some(413);
        assert_eq!(target(&both, &starting, &Beside::default(), None, true, false), wanted);
    }

    #[test]
    fn exclusions_come_from_the_coordinator_too() {
        let mut failed = placed(group("ledger"), GroupPhase::Online, "db1");
        let candidate = Candidate {
            server: "db2".into(),
            verdict: CandidateVerdict::Excluded,
            reasons: vec![ExclusionReason::Failed],
        };
        failed.status.as_mut().unwrap().decision =
            Some(holdfast_api::v1::Decision { candidates: vec![candidate], ..Default::default() });
        assert_eq!(exclusions(&sub(&["db1", "db2"]), &failed, &Beside::default(), "db2"), [Reason::Failed]);
        assert_eq!(exclusions(&sub(&["db1"]), &failed, &Beside::default(), "db2"), [Reason::Lost, Reason::Failed]);
    }

    #[test]
    fn a_start_forgives_the_failures_on_every_server_and_nothing_else_does() {
        let mut failed = placed(group("ledger"), GroupPhase::Failed, "");
        let candidate = |server: &str| Candidate {
            server: server.into(),
            verdict: CandidateVerdict::Excluded,
            reasons: vec![ExclusionReason::Failed],
        };
        let status = failed.status.as_mut().unwrap();
        status.server = None;
        status.decision = Some(holdfast_api::v1::Decision {
            candidates: vec![candidate("db1"), candidate("db2")],
            ..Default::default()
        });
        let both = sub(&["db1", "db2"]);
        let wanted = |ask: Option<&Ask>| decide(&both, &failed, &Beside::default(), ask, false).unwrap().server;
        assert_eq!(wanted(None), None);
        assert_eq!(wanted(Some(&ask(OperationType::Start, None))).as_deref(), Some("db1"));
    }
}
