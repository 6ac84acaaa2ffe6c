//! Detach, Reinstate, ForceReinstate, ConfirmStopped, and Fence (`fence.rs`): Operations on servers (api.md §8).
//!
//! The agents carry them out; they are asked through `status.requests` of the sub-cluster. A request names the view that it
//! was made for and is void under any other one, so it is made anew while the Operation runs and what it asks for is not
//! so: nothing is carried out twice, and nothing late.

use std::sync::Arc;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    DetachGroups, FailoverGroup, GroupPhase, MemberStatus, Operation, OperationPhase, OperationType, Server,
    ServerDeclaredState, ServerRequest, ServerState, SubCluster, SubClusterPhase,
};
use kube::api::Api;
use kube::{Resource, ResourceExt};

use super::super::failover_group::target::{Beside, exclusions};

use super::carry_out::{Facts, Next, deadline, phase_of, reason, reasons, server_of};
use super::fence;
use super::pause::is_paused;
use crate::context::Context;
use crate::error::Error;
use crate::write;

const BEGIN_LINEAGE: &str = "begin lineage ";

/// What the steps depend on beside the sub-cluster.
pub(crate) struct OnServer {
    /// The target.
    pub(crate) server: Option<Arc<Server>>,
    /// Its agent reports.
    pub(crate) reports: bool,
}

/// Whether an Operation is of this kind.
pub(crate) fn is(operation: &Operation) -> bool {
    use OperationType as T;
    matches!(operation.spec.type_, T::Detach | T::Reinstate | T::ForceReinstate | T::ConfirmStopped | T::Fence)
}

pub(super) fn member<'a>(sub: &'a SubCluster, server: &str) -> Option<&'a MemberStatus> {
    sub.status.as_ref()?.members.iter().find(|member| member.name == server)
}

pub(super) fn is_member(sub: &SubCluster, server: &str) -> bool {
    let view = sub.status.as_ref().and_then(|status| status.view.as_ref());
    view.is_some_and(|view| view.members.iter().any(|name| name == server))
}

pub(super) fn is_detached(sub: &SubCluster, server: &str) -> bool {
    member(sub, server).is_some_and(|member| member.detached)
}

fn is_declared_detached(sub: &SubCluster, server: &str) -> bool {
    sub.spec.servers.iter().any(|entry| entry.name == server && entry.state == ServerDeclaredState::Detached)
}

fn lineage_of(server: &Server) -> Option<(u32, u64)> {
    let status = server.status.as_ref()?;
    Some((status.lineage.unwrap_or(1), status.epoch?))
}

fn phase(sub: &SubCluster) -> SubClusterPhase {
    sub.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

/// The lineage that a running ForceReinstate brings.
fn number(next: &Operation) -> Option<u32> {
    let step = next.status.as_ref()?.steps.first()?;
    step.name.strip_prefix(BEGIN_LINEAGE)?.split(' ').next()?.parse().ok()
}

/// Lineage and epoch of the newest view that any of these servers knows.
pub(super) fn newest<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Option<(u32, u64)> {
    servers.into_iter().filter_map(lineage_of).max()
}

/// What the agents are asked for by this Operation. `newest`: the newest view that any other server that still reports knows of.
fn request(
    operation: &Operation,
    sub: &SubCluster,
    server: &Server,
    newest: Option<(u32, u64)>,
) -> Option<ServerRequest> {
    let running = operation.status.as_ref().is_some_and(|status| status.phase == Some(OperationPhase::Running));
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let name = &server.spec.server;
    let status = sub.status.as_ref()?;
    let shown = (status.lineage.unwrap_or(1), status.epoch?);
    let ((lineage, epoch), open) = match operation.spec.type_ {
        OperationType::Detach => (shown, !is_detached(sub, name)),
        OperationType::Reinstate => (shown, is_detached(sub, name) || !is_member(sub, name)),
        // Nobody decides a view now; the word counts for who is made the base, and by what that server knows.
        OperationType::ConfirmStopped if phase(sub) == SubClusterPhase::AwaitingForceReinstate => (newest?, true),
        OperationType::ConfirmStopped => (shown, member(sub, name).is_some_and(|member| member.unproven)),
        OperationType::Fence => (shown, true),
        _ => (lineage_of(server)?, true),
    };
    let done = operation.spec.type_ == OperationType::ForceReinstate && Some(lineage) >= number(operation);
    let stop_groups = operation.spec.detach.as_ref().is_some_and(|detach| detach.groups == DetachGroups::Stop);
    (running && !ends && open && !done).then(|| ServerRequest {
        operation: operation.name_any(),
        server: name.clone(),
        type_: operation.spec.type_,
        stop_groups,
        shut_down: None,
        fence: fence::request(operation),
        by: operation.spec.requested_by.clone().unwrap_or_else(|| "an operator".into()),
        lineage,
        epoch,
    })
}

/// What the agents are asked for about a server, in the view that its sub-cluster shows.
pub(super) fn view_request(
    operation: &Operation,
    sub: &SubCluster,
    server: &str,
    type_: OperationType,
) -> Option<ServerRequest> {
    let status = sub.status.as_ref()?;
    Some(ServerRequest {
        operation: operation.name_any(),
        server: server.to_owned(),
        type_,
        stop_groups: false,
        shut_down: None,
        fence: None,
        by: operation.spec.requested_by.clone().unwrap_or_else(|| "an operator".into()),
        lineage: status.lineage.unwrap_or(1),
        epoch: status.epoch?,
    })
}

/// Asks the agents for what is still to be done.
pub(super) async fn carry_out(
    operation: &Operation,
    sub: &SubCluster,
    server: &Server,
    newest: Option<(u32, u64)>,
    context: &Context,
) -> Result<(), Error> {
    let api: Api<SubCluster> = context.api_beside(sub);
    let name = operation.name_any();
    write::status(&api, sub, |fresh| {
        let wanted = request(operation, fresh, server, newest);
        let Some(status) = &mut fresh.status else { return };
        status.requests.retain(|request| request.operation != name);
        status.requests.extend(wanted);
        status.requests.sort_by(|a, b| a.operation.cmp(&b.operation));
    })
    .await?;
    Ok(())
}

/// The Operation is over: nothing is asked for any more.
pub(super) async fn withdraw(operation: &Operation, sub: &SubCluster, context: &Context) -> Result<(), Error> {
    let api: Api<SubCluster> = context.api_beside(sub);
    let name = operation.name_any();
    write::status(&api, sub, |fresh| {
        if let Some(status) = &mut fresh.status {
            status.requests.retain(|request| request.operation != name);
        }
    })
    .await?;
    Ok(())
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: &OnServer, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target.name;
    let (Some(sub), Some(server)) = (facts.sub_cluster, on.server.as_deref()) else {
        return next.fail(accepted::NOT_FOUND, &not_found(target));
    };
    if let Some(ahead) = facts.ahead {
        let message = format!("Operation {ahead} on the same server goes first");
        return next.wait(reason::WAITING_FOR_OPERATION, &message);
    }
    if let Some(message) = super::begin::broken_precondition(operation, server, sub) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    let name = server.spec.server.as_str();
    if operation.spec.type_ == OperationType::ForceReinstate {
        return begin_force(on, server, sub, next);
    }
    let awaits = facts.reporting && phase(sub) == SubClusterPhase::AwaitingForceReinstate;
    if awaits && operation.spec.type_ == OperationType::ConfirmStopped {
        // A server that was made the base is lost, too: another one may only be made the base once its end is confirmed.
        return next.run(vec![format!("note that {name} has stopped")]);
    }
    if awaits {
        let message = format!(
            "no server of {} acts, so there is none that {name} could be taken into or out of; if no other server can \
             be started, one of them has to be made the base: holdfast force-reinstate",
            sub.name_any()
        );
        return next.fail(reason::REFUSED, &message);
    }
    if !facts.reporting || phase(sub) != SubClusterPhase::Running {
        let what = if facts.reporting { "has no quorum" } else { "has no agent that reports" };
        return next.wait(reason::WAITING_FOR_AGENTS, &format!("sub-cluster {} {what} now", sub.name_any()));
    }
    match operation.spec.type_ {
        OperationType::Detach => begin_detach(facts, sub, name, next),
        OperationType::Fence => fence::begin(operation, sub, server, on.reports, next),
        OperationType::Reinstate if is_declared_detached(sub, name) => {
            let message = format!("spec.servers[{name}].state of {} is Detached; set it to Active", sub.name_any());
            next.fail(reason::REFUSED, &message);
        }
        OperationType::Reinstate if is_member(sub, name) && !is_detached(sub, name) => {
            next.succeed(&format!("{name} is in service already"));
        }
        OperationType::Reinstate => next.run(vec![format!("{name} joins as a standby")]),
        _ if member(sub, name).is_some_and(|member| member.unproven) => {
            next.run(vec![format!("note that {name} has stopped")]);
        }
        _ => {
            let message = format!("nothing waits for evidence about {name}; it was not lost, or its end is proven");
            next.fail(reason::REFUSED, &message);
        }
    }
}

pub(super) fn not_found(target: &str) -> String {
    format!("spec.target.name: there is no Server {target} in this namespace; they are called SUBCLUSTER.SERVER")
}

fn begin_detach(facts: &Facts<'_>, sub: &SubCluster, name: &str, next: &mut Next<'_>) {
    if is_detached(sub, name) && !is_member(sub, name) {
        return next.succeed(&format!("{name} is detached already"));
    }
    let view = sub.status.as_ref().and_then(|status| status.view.clone()).unwrap_or_default();
    if !view.members.iter().any(|other| other != name && !is_detached(sub, other)) {
        let message = format!(
            "{name} is the last server in service; reinstate another one first, or stop the groups and its agent"
        );
        return next.fail(reason::REFUSED, &message);
    }
    let stops = facts.operation.spec.detach.as_ref().is_some_and(|detach| detach.groups == DetachGroups::Stop);
    let names: Vec<String> = groups_on(facts.beside, name).map(|group| group.name_any()).collect();
    if let Some(message) = paused_on(facts.beside, name) {
        return next.fail(reason::REFUSED, &message);
    }
    if !stops && let Some(message) = no_way_out(sub, facts.beside, name) {
        return next.fail(reason::NOT_ELIGIBLE, &format!("{message}; with spec.detach.groups: Stop it is stopped"));
    }
    let mut steps = Vec::new();
    if !names.is_empty() {
        let what = if stops { "stop" } else { "move" };
        steps.push(format!("{what} {} off {name}", names.join(", ")).chars().take(250).collect());
    }
    steps.push(format!("{name} leaves the view"));
    next.run(steps);
}

fn groups_on<'a>(beside: &'a Beside, server: &'a str) -> impl Iterator<Item = &'a FailoverGroup> {
    let all = beside.groups.iter().map(AsRef::as_ref);
    all.filter(move |group| server_of(group) == Some(server) && phase_of(group) != GroupPhase::Offline)
}

fn paused_on(beside: &Beside, server: &str) -> Option<String> {
    let paused: Vec<String> =
        groups_on(beside, server).filter(|group| is_paused(group)).map(|group| group.name_any()).collect();
    let names = paused.join(", ");
    (!paused.is_empty())
        .then(|| format!("{names} is paused on {server}, and nobody acts on it; holdfast resume comes first"))
}

/// Why the groups of a server can't leave it; none: each has another one that may run it.
pub(super) fn no_way_out(sub: &SubCluster, beside: &Beside, server: &str) -> Option<String> {
    if let Some(paused) = paused_on(beside, server) {
        return Some(paused);
    }
    let view = sub.status.as_ref().and_then(|status| status.view.clone()).unwrap_or_default();
    groups_on(beside, server).find_map(|group| {
        let others = view.members.iter().filter(|other| *other != server);
        let why: Vec<String> = others
            .map(|other| (other, exclusions(sub, group, beside, other)))
            .map(|(other, why)| if why.is_empty() { String::new() } else { format!("{other}: {}", reasons(&why)) })
            .collect();
        let nowhere = why.iter().all(|why| !why.is_empty());
        let name = group.name_any();
        nowhere.then(|| format!("{name} runs on {server} and no other server may run it: {}", why.join("; ")))
    })
}

fn begin_force(on: &OnServer, server: &Server, sub: &SubCluster, next: &mut Next<'_>) {
    let name = &server.spec.server;
    if !on.reports {
        return next.wait(reason::WAITING_FOR_AGENTS, &format!("the agent of {name} does not report"));
    }
    if phase(sub) != SubClusterPhase::AwaitingForceReinstate {
        let message = format!(
            "{} is {}; a server is made the base only while no quorum can be reached (AwaitingForceReinstate)",
            sub.name_any(),
            phase(sub)
        );
        return next.fail(reason::REFUSED, &message);
    }
    match lineage_of(server) {
        Some((lineage, _)) => next.run(vec![format!("{BEGIN_LINEAGE}{} with {name} as the base", lineage + 1)]),
        None => next.fail(reason::REFUSED, &format!("{name} was never a member; there is nothing to go on from")),
    }
}

/// It runs.
pub(super) fn go_on(facts: &Facts<'_>, on: &OnServer, next: &mut Next<'_>) {
    let operation = facts.operation;
    let Some((sub, server)) = facts.sub_cluster.zip(on.server.as_deref()) else {
        return next.fail(accepted::NOT_FOUND, &format!("the Server {} is gone", operation.spec.target.name));
    };
    let name = server.spec.server.as_str();
    let stands = facts.reporting && phase(sub) == SubClusterPhase::Running;
    let seen = member(sub, name);
    let mut waits = seen.map(|member| member.message.clone()).unwrap_or_default();
    match operation.spec.type_ {
        OperationType::Detach if stands && is_detached(sub, name) => {
            let last = next.steps() - 1;
            if last > 0 && seen.is_some_and(|member| member.groups == 0) {
                next.step_done(0);
            }
            if !is_member(sub, name) {
                next.step_done(last);
                return next.succeed(&format!("{name} is detached; holdfast reinstate takes it back"));
            }
        }
        OperationType::Reinstate if stands && is_member(sub, name) && !is_detached(sub, name) => {
            next.step_done(0);
            return next.succeed(&format!("{name} is in service; its groups do not come back by themselves"));
        }
        OperationType::Fence if stands => match fence::go_on(operation, sub, server, on.reports, next) {
            Some(text) => waits = text,
            None => return,
        },
        OperationType::ConfirmStopped if stands && seen.is_some_and(|member| !member.unproven) => {
            next.step_done(0);
            return next.succeed(&format!("{name} counts as stopped by the operator's word"));
        }
        OperationType::ConfirmStopped if phase(sub) == SubClusterPhase::AwaitingForceReinstate => {
            waits = "it counts for the server that is made the base now: holdfast force-reinstate".into();
        }
        OperationType::ConfirmStopped if seen.is_some_and(|member| member.state != ServerState::Lost) => {
            waits = format!("an operator's word does not count about a boot of {name} whose heartbeats arrive");
        }
        OperationType::ForceReinstate => {
            let now = lineage_of(server).map(|(lineage, _)| lineage);
            if now.is_some() && now >= number(operation) {
                next.step_done(0);
                let message = format!(
                    "{name} is the base of lineage {}; every group is held until it is started (holdfast start), the \
                     other servers wait to be reinstated",
                    now.unwrap_or_default()
                );
                return next.succeed(&message);
            }
            let refused = server.status.as_ref().map(|status| status.refused.clone()).unwrap_or_default();
            if !refused.is_empty() {
                return next.fail(reason::REFUSED, &refused);
            }
        }
        _ => {}
    }
    next.say_waiting(&waits);
    if operation.spec.cancel || operation.meta().deletion_timestamp.is_some() {
        let message = format!("cancelled; {name} is {}", seen.map_or(ServerState::Unknown, |member| member.state));
        return next.finish(OperationPhase::Cancelled, OperationPhase::Cancelled.as_str(), &message);
    }
    if deadline(operation).is_some_and(|deadline| deadline < facts.now) {
        let message = format!("not done within spec.timeout {}: {waits}", operation.spec.timeout);
        next.fail(reason::TIMEOUT, &message);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::super::failover_group::tests::{group, placed, running};
    use super::super::super::sub_cluster::tests::sub_cluster;
    use super::super::about::About;
    use super::super::carry_out::next;
    use super::*;

    /// An Operation on db1 of db1 and db2; ledger is online there.
    struct Stage {
        operation: Operation,
        sub: SubCluster,
        server: Server,
        beside: Beside,
    }

    fn stage(spec: &Value) -> Stage {
        let mut operation = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Operation",
            "metadata": {"name": "op-1", "namespace": "ha", "uid": "u", "generation": 1, "creationTimestamp": "2026-03-01T00:00:00Z"},
            "spec": {"target": {"kind": "Server", "name": "db.db1"}, "requestedBy": "alice"},
        });
        operation["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let server = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Server", "metadata": {"name": "db.db1", "namespace": "ha"},
            "spec": {"subCluster": "db", "server": "db1", "id": 1}, "status": {"lineage": 1, "epoch": 15},
        });
        let mut sub = running(sub_cluster("db"), &["db1", "db2"]);
        let member = |name: &str| MemberStatus { name: name.into(), state: ServerState::Active, ..Default::default() };
        sub.status.as_mut().unwrap().members = vec![member("db1"), member("db2")];
        Stage {
            operation: serde_json::from_value(operation).unwrap(),
            sub,
            server: serde_json::from_value(server).unwrap(),
            beside: beside(placed(group("ledger"), GroupPhase::Online, "db1")),
        }
    }

    fn beside(group: FailoverGroup) -> Beside {
        Beside { servers: Vec::new(), groups: vec![Arc::new(group)] }
    }

    impl Stage {
        fn look(&mut self) -> String {
            let on = About::Server(OnServer { server: Some(Arc::new(self.server.clone())), reports: true });
            let facts = Facts {
                operation: &self.operation,
                about: &on,
                group: None,
                sub_cluster: Some(&self.sub),
                beside: &self.beside,
                reporting: true,
                ahead: None,
                planned: None,
                began: &BTreeMap::new(),
                now: "2026-03-01T00:00:01Z".parse().unwrap(),
            };
            let status = next(&facts);
            self.operation.status = Some(status.clone());
            let ready = holdfast_api::conditions::get(&status.conditions, "Ready").unwrap();
            format!("{} {}", status.phase.unwrap(), ready.message)
        }

        /// What the agents are asked for: type, lineage, epoch.
        fn asks(&self) -> Option<(OperationType, u32, u64)> {
            request(&self.operation, &self.sub, &self.server, Some((2, 20))).map(|r| (r.type_, r.lineage, r.epoch))
        }

        fn member(&mut self) -> &mut MemberStatus {
            &mut self.sub.status.as_mut().unwrap().members[0]
        }
    }

    #[test]
    fn a_detachment_is_asked_for_until_the_view_has_it_and_is_over_when_the_server_has_left() {
        let mut stage = stage(&json!({"type": "Detach"}));
        assert_eq!(stage.asks(), None, "not before it runs");
        assert_eq!(stage.look(), "Running move ledger off db1");
        assert_eq!(stage.asks(), Some((OperationType::Detach, 1, 17)));
        stage.sub.status.as_mut().unwrap().epoch = Some(18);
        assert_eq!(stage.asks(), Some((OperationType::Detach, 1, 18)), "another view came first");
        stage.member().detached = true;
        stage.member().groups = 1;
        assert_eq!(stage.asks(), None);
        assert_eq!(stage.look(), "Running move ledger off db1");
        stage.member().groups = 0;
        assert_eq!(stage.look(), "Running db1 leaves the view");
        stage.sub = running(stage.sub.clone(), &["db2"]);
        assert!(stage.look().starts_with("Succeeded db1 is detached"));
    }

    #[test]
    fn what_can_not_be_done_is_refused_with_the_way_out() {
        let detach = json!({"type": "Detach"});
        let mut last = stage(&detach);
        last.sub = running(last.sub.clone(), &["db1"]);
        assert!(last.look().starts_with("Failed db1 is the last server in service"));
        let mut nowhere = stage(&detach);
        let mut only = group("ledger");
        only.spec.placement.servers = vec!["db1".into()];
        nowhere.beside = beside(placed(only, GroupPhase::Online, "db1"));
        let end = nowhere.look();
        assert!(end.starts_with("Failed ledger runs on db1 and no other") && end.contains("groups: Stop"), "{end}");
        let mut declared = stage(&json!({"type": "Reinstate"}));
        declared.sub.spec.servers[0].state = ServerDeclaredState::Detached;
        assert!(declared.look().contains("set it to Active"));
        assert!(stage(&json!({"type": "Reinstate"})).look().starts_with("Succeeded db1 is in service already"));
        assert!(stage(&json!({"type": "ConfirmStopped"})).look().starts_with("Failed nothing waits for evidence"));
        assert!(stage(&json!({"type": "ForceReinstate"})).look().contains("only while no quorum can be reached"));
    }

    #[test]
    fn a_server_that_can_not_come_back_yet_says_why() {
        let mut stage = stage(&json!({"type": "Reinstate"}));
        stage.sub = running(stage.sub.clone(), &["db2"]);
        stage.member().state = ServerState::Detached;
        stage.member().message = "no LAN connects it both ways".into();
        stage.look();
        assert_eq!(stage.asks(), Some((OperationType::Reinstate, 1, 17)));
        assert_eq!(stage.look(), "Running db1 joins as a standby: no LAN connects it both ways");
        stage.sub = running(stage.sub.clone(), &["db1", "db2"]);
        assert!(stage.look().starts_with("Succeeded db1 is in service"));
        assert_eq!(stage.asks(), None);
    }

    #[test]
    fn a_base_that_is_lost_is_confirmed_by_what_the_next_one_knows() {
        let mut stage = stage(&json!({"type": "ConfirmStopped"}));
        stage.sub.status.as_mut().unwrap().phase = Some(SubClusterPhase::AwaitingForceReinstate);
        assert_eq!(stage.look(), "Running note that db1 has stopped");
        assert_eq!(stage.asks(), Some((OperationType::ConfirmStopped, 2, 20)), "not by what db1 told last");
        assert!(stage.look().ends_with("made the base now: holdfast force-reinstate"));
        // Another one is the base.
        stage.sub = running(stage.sub.clone(), &["db2"]);
        stage.member().state = ServerState::Lost;
        assert_eq!(stage.asks(), None);
        assert!(stage.look().starts_with("Succeeded db1 counts as stopped"));
    }

    #[test]
    fn a_fence_means_one_boot_and_ends_when_that_is_off_or_another_one_reports() {
        let mut stage = stage(&json!({"type": "Fence", "fence": {"action": "Reboot"}}));
        assert!(stage.look().starts_with("Failed sub-cluster db uses no fence device on db1"));
        let fencing =
            json!({"mode": "BestEffort", "devices": [], "levels": [{"server": "db1", "level": 1, "devices": []}]});
        stage.sub.spec.fencing = Some(serde_json::from_value(fencing).unwrap());
        stage.operation.status = None;
        assert!(stage.look().starts_with("Failed db1 has never reported"));
        let boot = |id: &str| Some(serde_json::from_value(json!({"id": id, "unclean": false})).unwrap());
        stage.server.status.as_mut().unwrap().boot = boot("one");
        stage.operation.status = None;
        assert_eq!(stage.look(), "Running db1 is left out of the view");
        let asked = request(&stage.operation, &stage.sub, &stage.server, None).unwrap().fence.unwrap();
        assert_eq!((asked.boot.as_str(), asked.action.as_str()), ("one", "Reboot"));
        stage.sub = running(stage.sub.clone(), &["db2"]);
        assert_eq!(stage.look(), "Running switch db1 off and on, boot one: the coordinator has not begun");
        let seen = |boot: &str, state: &str, failed: bool| {
            let seen = json!({"boot": boot, "state": state, "failed": failed, "message": "level 1: ipmi"});
            Some(serde_json::from_value(seen).unwrap())
        };
        stage.member().fencing = seen("none", "Off", false);
        assert!(stage.look().ends_with("the coordinator has not begun"), "another boot is not meant");
        stage.member().fencing = seen("one", "Failed", true);
        assert!(stage.look().contains("level 1: ipmi; it is tried again"));
        let begun = stage.operation.status.clone();
        stage.member().fencing = seen("one", "Off", true);
        assert!(stage.look().starts_with("Failed db1 is off, but was not switched on again: level 1: ipmi"));
        stage.operation.status.clone_from(&begun);
        stage.member().fencing = seen("one", "Off", false);
        assert!(stage.look().starts_with("Succeeded db1 was verified off, and switched on again"));
        // Nobody knows what became of it, but it runs again.
        stage.operation.status = begun;
        stage.member().fencing = None;
        stage.server.status.as_mut().unwrap().boot = boot("two");
        assert!(stage.look().starts_with("Succeeded db1 runs in another boot"));
    }

    #[test]
    fn a_base_is_asked_for_by_what_that_server_itself_knows() {
        let mut stage = stage(&json!({"type": "ForceReinstate"}));
        stage.sub.status.as_mut().unwrap().phase = Some(SubClusterPhase::AwaitingForceReinstate);
        assert_eq!(stage.look(), "Running begin lineage 2 with db1 as the base");
        assert_eq!(stage.asks(), Some((OperationType::ForceReinstate, 1, 15)));
        let mut refused =
            Stage { operation: stage.operation.clone(), ..self::stage(&json!({"type": "ForceReinstate"})) };
        refused.server.status.as_mut().unwrap().refused = "db2 was made the base before".into();
        assert_eq!(refused.look(), "Failed db2 was made the base before");
        stage.server.status.as_mut().unwrap().lineage = Some(2);
        assert_eq!(stage.asks(), None);
        assert!(stage.look().starts_with("Succeeded db1 is the base of lineage 2"));
    }
}
