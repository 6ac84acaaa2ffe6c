//! Shutdown (C17): servers stop their groups in order, leave, and are switched off. The agents carry it out
//! (`closing.rs` of their core); they are asked through `status.requests` of their sub-cluster.
//!
//! A server reports that it took the order and that it has left, from its own ledger. So it does after it was switched on
//! again, and this is how a shutdown ends that had the control plane go with it: the controller that is started with the
//! master cluster finds the Operation still running, and every server of it saying that it was done.

use std::sync::Arc;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    FailoverGroup, GroupPhase, Operation, OperationPhase, OperationType, Server, ServerRequest, ShutDownRequest,
    ShutdownParameters, SubCluster, SubClusterPhase, TargetKind,
};
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::super::list;
use super::super::reporting::Reporting;
use super::carry_out::{Facts, Next, deadline, phase_of, reason, server_of};
use super::pause::is_paused;
use crate::context::Context;
use crate::error::Error;
use crate::write;

const OTHERS: &str = "shut the other sub-clusters down";

/// One sub-cluster of those that it is about.
pub(crate) struct Part {
    sub: Arc<SubCluster>,
    /// The servers of it that are to shut down, and whether they report.
    servers: Vec<(Arc<Server>, bool)>,
    groups: Vec<Arc<FailoverGroup>>,
}

/// What it is about.
pub(crate) struct OnShutdown {
    /// None: there is no such object.
    parts: Option<Vec<Part>>,
    /// The sub-cluster that goes last: the control plane is in it.
    master: Option<String>,
    /// Agents have had the time to say how far they are.
    heard: bool,
}

/// Whether an Operation is of this type.
pub(crate) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::Shutdown
}

/// What it is about, as it is now.
pub(super) fn on(operation: &Operation, context: &Context) -> OnShutdown {
    let (namespace, name) = (operation.namespace(), operation.spec.target.name.as_str());
    let part = |sub: Arc<SubCluster>, only: Option<&Server>| {
        let now = context.now();
        let reports = |server: &Server| Reporting::of([server], now, context.settings.report_timeout).is_fresh();
        let servers = context.servers_of(&sub).into_iter();
        let servers = servers.filter(|server| only.is_none_or(|only| only.uid() == server.uid()));
        let servers = servers.map(|server| (server.clone(), reports(&server))).collect();
        Part { servers, groups: context.groups_of(&sub), sub }
    };
    let mut master = None;
    let parts = match operation.spec.target.kind {
        TargetKind::SuperCluster => {
            let reference = ObjectRef::new(name).within(&namespace.unwrap_or_default());
            context.stores.super_clusters.get(&reference).map(|whole| {
                master = whole.spec.master.as_ref().map(|master| master.sub_cluster.clone());
                context.sub_clusters_of(&whole).into_iter().map(|sub| part(sub, None)).collect()
            })
        }
        TargetKind::Server => context.server(namespace.as_deref(), name).and_then(|server| {
            let sub = context.sub_cluster(namespace.as_deref(), &server.spec.sub_cluster)?;
            Some(vec![part(sub, Some(&server))])
        }),
        _ => context.sub_cluster(namespace.as_deref(), name).map(|sub| vec![part(sub, None)]),
    };
    OnShutdown { parts, master, heard: context.has_listened(context.now()) }
}

/// Whether it has taken too long. The time for which the control plane was switched off with the rest is not known, so who
/// has just been started asks the agents first: they may have been done for days.
fn is_late(operation: &Operation, on: &OnShutdown, now: Timestamp) -> bool {
    on.heard && deadline(operation).is_some_and(|deadline| deadline < now)
}

impl Part {
    fn name(&self) -> String {
        self.sub.name_any()
    }

    /// Whether a server has taken the order, and whether that is over.
    fn taken(operation: &Operation, server: &Server) -> Option<bool> {
        let uid = operation.uid()?;
        server.status.as_ref()?.shut_downs.iter().find(|taken| taken.operation == uid).map(|taken| taken.done)
    }

    /// Servers that still have to go, each with how far it is; none if this sub-cluster is done.
    fn open(&self, operation: &Operation) -> Vec<String> {
        let mut open = Vec::new();
        let mut any = false;
        for (server, reports) in &self.servers {
            let taken = Self::taken(operation, server);
            any |= taken.is_some();
            let name = &server.spec.server;
            match (taken, reports) {
                (Some(true), _) | (_, false) => {}
                (Some(false), true) => {
                    let count = server.status.as_ref().map_or(0, |status| status.groups.len());
                    open.push(match count {
                        0 => format!("{name} waits for the others"),
                        1 => format!("{name} stops its group"),
                        count => format!("{name} stops its {count} groups"),
                    });
                }
                (None, true) => open.push(format!("{name} has not answered")),
            }
        }
        // They said last that all had left; else, whether they are off or cut off from here is not known.
        let stopped = self.sub.status.as_ref().and_then(|status| status.phase) == Some(SubClusterPhase::Stopped);
        if !any && open.is_empty() && !stopped {
            open.push(format!("no server of {} reports", self.name()));
        }
        open
    }
}

fn parameters(operation: &Operation) -> ShutdownParameters {
    operation.spec.shutdown.clone().unwrap_or_default()
}

fn step_of(sub: &str) -> String {
    format!("shut {sub} down")
}

/// The steps with the sub-clusters of each, in their order. Their names do not change while it runs.
fn stages<'a>(operation: &Operation, on: &'a OnShutdown) -> Vec<(String, Vec<&'a Part>)> {
    let parts: Vec<&Part> = on.parts.iter().flatten().collect();
    if operation.spec.target.kind != TargetKind::SuperCluster {
        return vec![(step_of(&operation.spec.target.name), parts)];
    }
    let order = parameters(operation).order;
    let named = |name: &String| (step_of(name), parts.iter().copied().filter(|part| part.name() == *name).collect());
    let master = on.master.as_ref().filter(|master| !order.contains(master));
    let rest = |part: &&Part| !order.contains(&part.name()) && Some(&part.name()) != master;
    let mut stages: Vec<(String, Vec<&Part>)> = order.iter().map(named).collect();
    stages.push((OTHERS.to_owned(), parts.iter().copied().filter(rest).collect()));
    stages.extend(master.map(named));
    stages
}

/// What the agents of a sub-cluster are asked for.
fn requests(operation: &Operation, part: &Part) -> Vec<ServerRequest> {
    let Some(status) = &part.sub.status else { return Vec::new() };
    let (Some(uid), Some(epoch)) = (operation.uid(), status.epoch) else { return Vec::new() };
    let open = part.servers.iter().filter(|(server, reports)| *reports && Part::taken(operation, server) != Some(true));
    let request = |(server, _): &(Arc<Server>, bool)| ServerRequest {
        operation: operation.name_any(),
        server: server.spec.server.clone(),
        type_: OperationType::Shutdown,
        stop_groups: false,
        shut_down: Some(ShutDownRequest {
            uid: uid.clone(),
            together: operation.spec.target.kind != TargetKind::Server,
            power_off: parameters(operation).power_off,
        }),
        fence: None,
        by: operation.spec.requested_by.clone().unwrap_or_else(|| "an operator".into()),
        lineage: status.lineage.unwrap_or(1),
        epoch,
    };
    open.map(request).collect()
}

/// Asks the agents for what the running step is about, and for nothing when none runs.
pub(super) async fn carry_out(operation: &Operation, on: &OnShutdown, context: &Context) -> Result<(), Error> {
    let status = operation.status.clone().unwrap_or_default();
    let running = status.phase == Some(OperationPhase::Running);
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let step = status.steps.iter().find(|step| step.state == holdfast_api::v1::StepState::Running);
    let step = step.filter(|_| running && !ends).map(|step| step.name.as_str());
    for (name, parts) in stages(operation, on) {
        for part in parts {
            let wanted = if step == Some(name.as_str()) { requests(operation, part) } else { Vec::new() };
            let api: Api<SubCluster> = context.api_beside(part.sub.as_ref());
            write::status(&api, part.sub.as_ref(), |fresh| {
                let Some(status) = &mut fresh.status else { return };
                status.requests.retain(|request| request.operation != operation.name_any());
                status.requests.extend(wanted.iter().cloned());
                status.requests.sort_by(|a, b| (&a.operation, &a.server).cmp(&(&b.operation, &b.server)));
            })
            .await?;
        }
    }
    Ok(())
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: &OnShutdown, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target;
    let Some(parts) = &on.parts else {
        let message = format!("spec.target.name: there is no {} {} in this namespace", target.kind, target.name);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(ahead) = facts.ahead {
        return next.wait(reason::WAITING_FOR_OPERATION, &format!("Operation {ahead} on the same target goes first"));
    }
    let order = parameters(operation).order;
    let whole = target.kind == TargetKind::SuperCluster;
    if !order.is_empty() && !whole {
        let message = "spec.shutdown.order names sub-clusters of a super-cluster; the servers of one sub-cluster leave \
                       together, and its groups stop in reverse spec.placement.after; remove it";
        return next.fail(reason::REFUSED, message);
    }
    let unknown: Vec<&String> = order.iter().filter(|name| !parts.iter().any(|part| part.name() == **name)).collect();
    if !unknown.is_empty() {
        let message = format!("spec.shutdown.order: {} has no sub-cluster {}", target.name, list(&unknown));
        return next.fail(accepted::NOT_FOUND, &message);
    }
    if let Some(master) = on.master.as_ref().filter(|master| order.contains(master)) {
        let message = format!(
            "spec.shutdown.order: {master} is the master cluster, which goes last: nobody could see the others through"
        );
        return next.fail(reason::REFUSED, &message);
    }
    let epoch = parts.first().and_then(|part| part.sub.status.as_ref()?.epoch).unwrap_or_default();
    let meta = match (parts.as_slice(), target.kind) {
        ([part], TargetKind::SubCluster) => Some(&part.sub.metadata),
        ([part], TargetKind::Server) => part.servers.first().map(|(server, _)| &server.metadata),
        _ => None,
    };
    if let Some(message) = meta.and_then(|meta| super::begin::broken(operation, meta, epoch)) {
        return next.fail(reason::PRECONDITION_FAILED, &message);
    }
    let only = parts.iter().flat_map(|part| &part.servers).map(|(server, _)| server.spec.server.as_str());
    let only = only.clone().next().filter(|_| target.kind == TargetKind::Server);
    let there = |group: &&Arc<FailoverGroup>| only.is_none() || server_of(group) == only;
    let groups = parts.iter().flat_map(|part| &part.groups).filter(there);
    let paused: Vec<String> = groups.filter(|group| is_paused(group)).map(|group| group.name_any()).collect();
    if !paused.is_empty() {
        let message = format!("{} is paused, and nobody acts on it; holdfast resume comes first", list(&paused));
        return next.fail(reason::REFUSED, &message);
    }
    if let (Some(server), [part]) = (only, parts.as_slice()) {
        let view = part.sub.status.as_ref().and_then(|status| status.view.clone()).unwrap_or_default();
        if view.members == [server.to_owned()] {
            let message = format!(
                "{server} is the last server in service of {name}; shut the sub-cluster down: its groups stop in order \
                 then, and it starts again by itself",
                name = part.name()
            );
            return next.fail(reason::REFUSED, &message);
        }
    }
    if !parts.iter().flat_map(|part| &part.servers).any(|(_, reports)| *reports) {
        let message = format!("no agent of {} {} reports now", target.kind, target.name);
        return next.wait(reason::WAITING_FOR_AGENTS, &message);
    }
    next.run(stages(operation, on).into_iter().map(|(name, _)| name).collect());
}

/// It runs: what the agents report moves it on.
pub(super) fn go_on(facts: &Facts<'_>, on: &OnShutdown, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target.name;
    if on.parts.is_none() {
        return next.fail(accepted::NOT_FOUND, &format!("{} {target} is gone", operation.spec.target.kind));
    }
    let stages = stages(operation, on);
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    for number in 0..next.steps() {
        if !next.is_running(number) {
            continue;
        }
        let name = next.status().steps[number].name.clone();
        let parts = stages.iter().find(|(stage, _)| *stage == name).map(|(_, parts)| parts.as_slice());
        // What never formed, or has no servers, has nothing to shut down.
        let parts =
            parts.unwrap_or_default().iter().filter(|part| part.sub.status.as_ref().is_some_and(|s| s.epoch.is_some()));
        let open: Vec<String> = parts.flat_map(|part| part.open(operation)).collect();
        if open.is_empty() {
            next.step_done(number);
            continue;
        }
        let few: Vec<&String> = open.iter().take(8).collect();
        let more = if open.len() > 8 { format!(" and {} more", open.len() - 8) } else { String::new() };
        next.say_waiting(&format!("{}{more}", list(&few)));
        if ends {
            let message = format!("cancelled; who took the order goes on; open: {}{more}", list(&few));
            return next.finish(OperationPhase::Cancelled, OperationPhase::Cancelled.as_str(), &message);
        }
        if is_late(operation, on, facts.now) {
            let message = format!("not done within spec.timeout {}: {}{more}", operation.spec.timeout, list(&few));
            next.fail(reason::TIMEOUT, &message);
        }
        return;
    }
    let off = if parameters(operation).power_off {
        "switched off; the next start is an ordinary one"
    } else {
        "out of service; each comes back when its agent, or the machine, is started anew"
    };
    next.succeed(&format!("the servers of {target} have stopped their groups, left, and are {off}"));
}

/// Names of the groups that it interrupts.
pub(super) fn interrupted(on: &OnShutdown) -> Vec<String> {
    let groups = on.parts.iter().flatten().flat_map(|part| &part.groups);
    let mut names: Vec<String> =
        groups.filter(|group| phase_of(group) == GroupPhase::Online).map(|group| group.name_any()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::sub_cluster::tests::sub_cluster;
    use super::*;

    fn operation(kind: &str, parameters: &Value) -> Operation {
        serde_json::from_value(json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Operation",
            "metadata": {"name": "off", "namespace": "ha", "uid": "u"},
            "spec": {"type": "Shutdown", "target": {"kind": kind, "name": "bank"}, "shutdown": parameters},
        }))
        .unwrap()
    }

    fn server(name: &str, status: &Value) -> Arc<Server> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "holdfast.dev/v1", "kind": "Server", "metadata": {"name": format!("db.{name}")},
                "spec": {"subCluster": "db", "server": name, "id": 1}, "status": status,
            }))
            .unwrap(),
        )
    }

    fn part(name: &str, servers: Vec<(Arc<Server>, bool)>) -> Part {
        let mut sub = sub_cluster(name);
        let status = sub.status.get_or_insert_default();
        (status.epoch, status.phase) = (Some(7), Some(SubClusterPhase::Running));
        Part { sub: Arc::new(sub), servers, groups: Vec::new() }
    }

    #[test]
    fn it_waits_for_those_that_report_and_is_not_taken_in_by_silence() {
        let operation = operation("SubCluster", &json!({}));
        let taken = |done: bool| json!({"groups": ["ledger"], "shutDowns": [{"operation": "u", "done": done}]});
        let blank = json!({"shutDowns": [{"operation": "another", "done": true}]});
        let two = |a: &Value, a_reports, b: &Value, b_reports| {
            part("db", vec![(server("db1", a), a_reports), (server("db2", b), b_reports)])
        };
        let open = |part: &Part| part.open(&operation).join(", ");
        assert_eq!(open(&two(&blank, true, &taken(false), true)), "db1 has not answered, db2 stops its group");
        assert_eq!(open(&two(&taken(true), true, &taken(true), false)), "");
        assert_eq!(open(&two(&taken(true), true, &blank, false)), "", "it was off before");
        let silent = two(&blank, false, &blank, false);
        assert_eq!(open(&silent), "no server of db reports");
        let mut stopped = silent;
        Arc::make_mut(&mut stopped.sub).status.as_mut().unwrap().phase = Some(SubClusterPhase::Stopped);
        assert_eq!(open(&stopped), "");
        let asked: Vec<String> =
            requests(&operation, &two(&taken(true), true, &blank, true)).into_iter().map(|one| one.server).collect();
        assert_eq!(asked, ["db2"], "who was done is not asked again");
    }

    #[test]
    fn the_time_for_which_all_was_off_makes_it_late_only_once_the_agents_had_time_to_say_so() {
        let mut operation = operation("SubCluster", &json!({}));
        operation.spec.timeout = "5m".parse().unwrap();
        let step = json!([{"name": "shut db down", "state": "Running", "startTime": "2026-03-06T18:00:00Z"}]);
        operation.status.get_or_insert_default().steps = serde_json::from_value(step).unwrap();
        let late = |heard: bool, now: &str| {
            let on = OnShutdown { parts: Some(Vec::new()), master: None, heard };
            is_late(&operation, &on, now.parse().unwrap())
        };
        assert!(!late(true, "2026-03-06T18:04:59Z"));
        assert!(late(true, "2026-03-06T18:05:01Z"), "it was there all the time");
        assert!(!late(false, "2026-03-09T07:00:00Z"), "it was switched on again just now");
    }

    #[test]
    fn those_that_are_named_go_first_and_the_master_last() {
        let operation = operation("SuperCluster", &json!({"order": ["web"]}));
        let parts = ["master", "db", "web", "mail"].map(|name| part(name, Vec::new()));
        let on = OnShutdown { parts: Some(parts.into()), master: Some("master".into()), heard: true };
        let stages: Vec<(String, Vec<String>)> = stages(&operation, &on)
            .into_iter()
            .map(|(step, parts)| (step, parts.into_iter().map(Part::name).collect()))
            .collect();
        let wanted = [
            ("shut web down", vec!["web"]),
            ("shut the other sub-clusters down", vec!["db", "mail"]),
            ("shut master down", vec!["master"]),
        ];
        let wanted = wanted.map(|(step, parts)| (step.to_owned(), parts.into_iter().map(str::to_owned).collect()));
        assert_eq!(stages, wanted);
    }
}
