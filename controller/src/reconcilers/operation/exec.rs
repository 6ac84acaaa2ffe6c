//! Exec (U10): a command on many servers at once, with the output of each. The agents are told of the Operation in
//! `status.exec` of their sub-cluster, look themselves what it runs, and report in `status.exec` of their server.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::exec::{beginning, names};
use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    ExecRequest, ExecResult, Operation, OperationOutput, OperationPhase, OperationType, Server, SubCluster, TargetKind,
};
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::super::list;
use super::carry_out::{Facts, Next, reason};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// A server has so long beyond the command's own time before it counts as silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// All outputs together: an object in etcd has at most 1.5 MiB.
const ALL_OUTPUT: usize = 512 << 10;
/// The schema's limit, of one.
const OUTPUT: usize = 8 << 10;
/// The schema's limit, of their number.
const MOST: usize = 2048;
/// So many servers are named in a message.
const NAMED: usize = 8;

/// Its sub-clusters with all their servers; none: there is no such object.
pub(crate) type OnServers = Option<Vec<(Arc<SubCluster>, Vec<Arc<Server>>)>>;

/// Whether an Operation is of this type.
pub(crate) fn is(operation: &Operation) -> bool {
    operation.spec.type_ == OperationType::Exec
}

/// What it is about, as it is now.
pub(super) fn on_servers(operation: &Operation, context: &Context) -> OnServers {
    let (namespace, name) = (operation.namespace(), operation.spec.target.name.as_str());
    let subs = match operation.spec.target.kind {
        TargetKind::SuperCluster => {
            let reference = ObjectRef::new(name).within(&namespace.unwrap_or_default());
            context.sub_clusters_of(context.stores.super_clusters.get(&reference)?.as_ref())
        }
        _ => vec![context.sub_cluster(namespace.as_deref(), name)?],
    };
    Some(subs.into_iter().map(|sub| (sub.clone(), context.servers_of(&sub))).collect())
}

/// The servers that it names: SUBCLUSTER.SERVER, with the object if there is one.
fn servers<'a>(operation: &Operation, on: &'a OnServers) -> Vec<(String, Option<&'a Server>)> {
    let Some(exec) = &operation.spec.exec else { return Vec::new() };
    let of_sub = |(sub, objects): &'a (Arc<SubCluster>, Vec<Arc<Server>>)| {
        let name = sub.name_any();
        let named = sub.spec.servers.iter().filter(move |server| names(exec, &name, &server.name));
        named.map(|server| {
            let object = objects.iter().find(|object| object.spec.server == server.name);
            (format!("{}.{}", sub.name_any(), server.name), object.map(AsRef::as_ref))
        })
    };
    on.iter().flatten().flat_map(of_sub).collect()
}

fn result<'a>(operation: &Operation, server: Option<&'a Server>) -> Option<&'a ExecResult> {
    let uid = operation.uid()?;
    server?.status.as_ref()?.exec.iter().find(|result| result.id == uid)
}

/// Tells the agents of it while it runs.
pub(super) async fn carry_out(operation: &Operation, on: &OnServers, context: &Context) -> Result<(), Error> {
    let running = operation.status.as_ref().is_some_and(|status| status.phase == Some(OperationPhase::Running));
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let uid = operation.uid().unwrap_or_default();
    for (sub, _) in on.iter().flatten() {
        let api: Api<SubCluster> = context.api_beside(sub.as_ref());
        write::status(&api, sub.as_ref(), |fresh| {
            let Some(status) = &mut fresh.status else { return };
            status.exec.retain(|asked| asked.uid != uid);
            if running && !ends {
                status.exec.push(ExecRequest { operation: operation.name_any(), uid: uid.clone() });
                status.exec.sort_by(|a, b| a.uid.cmp(&b.uid));
            }
        })
        .await?;
    }
    Ok(())
}

/// It has not begun yet.
pub(super) fn begin(facts: &Facts<'_>, on: &OnServers, next: &mut Next<'_>) {
    let operation = facts.operation;
    let target = &operation.spec.target;
    let Some(exec) = &operation.spec.exec else { return };
    let Some(subs) = on else {
        let message = format!("spec.target.name: there is no {} {} in this namespace", target.kind, target.name);
        return next.fail(accepted::NOT_FOUND, &message);
    };
    if let Some(ahead) = facts.ahead {
        return next.wait(reason::WAITING_FOR_OPERATION, &format!("Operation {ahead} on the same target goes first"));
    }
    let off: Vec<String> =
        subs.iter().filter(|(sub, _)| !sub.spec.exec.enabled).map(|(sub, _)| sub.name_any()).collect();
    if !off.is_empty() {
        let message =
            format!("spec.exec.enabled of {} is false: no commands are run there; set it to true", list(&off));
        return next.fail(reason::REFUSED, &message);
    }
    let known = |name: &String| {
        let one =
            |(sub, server): (&SubCluster, &str)| name == server || *name == format!("{}.{server}", sub.name_any());
        subs.iter().flat_map(|(sub, _)| sub.spec.servers.iter().map(|s| (sub.as_ref(), s.name.as_str()))).any(one)
    };
    let unknown: Vec<&String> = exec.servers.iter().filter(|name| !known(name)).collect();
    if !unknown.is_empty() {
        let message = format!(
            "spec.exec.servers: {} {} has no server {}; nothing was run",
            target.kind,
            target.name,
            list(&unknown)
        );
        return next.fail(accepted::NOT_FOUND, &message);
    }
    let count = servers(operation, on).len();
    match count {
        0 => next.fail(accepted::NOT_FOUND, &format!("{} {} has no servers", target.kind, target.name)),
        1..=MOST => {
            let command = exec.command.join(" ");
            next.run(vec![format!("run on {count} servers: {command}").chars().take(250).collect()]);
        }
        _ => next.fail(reason::REFUSED, &format!("it is about {count} servers, and {MOST} is the most; name them")),
    }
}

/// It runs: what the agents report ends it.
pub(super) fn go_on(facts: &Facts<'_>, on: &OnServers, next: &mut Next<'_>) {
    let operation = facts.operation;
    let Some(exec) = &operation.spec.exec else { return };
    let all = servers(operation, on);
    let ends = operation.spec.cancel || operation.meta().deletion_timestamp.is_some();
    let began = operation.status.iter().flat_map(|status| &status.steps).find_map(|step| step.start_time.as_ref());
    let limit = (exec.timeout.get() + PATIENCE).min(operation.spec.timeout.get());
    let late = began.is_some_and(|began| began.0.checked_add(limit).is_ok_and(|end| end < facts.now));
    let silent: Vec<&String> =
        all.iter().filter(|(_, server)| result(operation, *server).is_none()).map(|(name, _)| name).collect();
    if !silent.is_empty() && !ends && !late {
        let (count, few) = (silent.len(), silent.iter().take(NAMED).collect::<Vec<_>>());
        return next.say_waiting(&format!(
            "{} of {} have ended; {count} have not: {}",
            all.len() - count,
            all.len(),
            list(&few)
        ));
    }
    let share = (ALL_OUTPUT / all.len().max(1)).min(OUTPUT);
    let outputs: Vec<OperationOutput> =
        all.iter().map(|(name, server)| output(name, result(operation, *server), share)).collect();
    let bad: Vec<String> = outputs.iter().filter(|one| one.exit_code != Some(0)).map(in_words).collect();
    let good = outputs.len() - bad.len();
    next.set_outputs(outputs);
    if ends {
        let phase = OperationPhase::Cancelled;
        let message = format!(
            "cancelled; it had ended on {} of {} servers, and is ended on the others",
            all.len() - silent.len(),
            all.len()
        );
        return next.finish(phase, phase.as_str(), &message);
    }
    if bad.is_empty() {
        return next.succeed(&format!("it ended with 0 on {good} servers"));
    }
    let more = if bad.len() > NAMED { ", …" } else { "" };
    let few: Vec<&String> = bad.iter().take(NAMED).collect();
    next.fail(
        reason::COMMAND_FAILED,
        &format!("it ended with 0 on {good} of {} servers; {}{more}", all.len(), list(&few)),
    );
}

fn in_words(output: &OperationOutput) -> String {
    let server = output.server.as_deref().unwrap_or_default();
    match (output.exit_code, &output.message) {
        (Some(code), _) => format!("{server}: exit {code}"),
        (None, message) => format!("{server}: {}", message.as_deref().unwrap_or_default()),
    }
}

fn output(server: &str, result: Option<&ExecResult>, most: usize) -> OperationOutput {
    let server = Some(server.to_owned());
    let Some(result) = result else {
        let message = Some("no answer: its agent does not report, or may not run commands".to_owned());
        return OperationOutput { server, message, ..OperationOutput::default() };
    };
    let kept = beginning(&result.output, most);
    let message = match result.message.as_str() {
        "" if kept.len() < result.output.len() => {
            Some(format!("only the first {} bytes are kept of so many servers", kept.len()))
        }
        "" => None,
        message => Some(message.to_owned()),
    };
    let output = Some(kept.to_owned()).filter(|text| !text.is_empty());
    OperationOutput { server, exit_code: result.exit_code, output, message, ..OperationOutput::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_cut_so_that_all_fit_into_one_object_and_a_silent_server_is_said() {
        let result =
            ExecResult { id: "u".into(), exit_code: Some(0), output: "ä".repeat(100), message: String::new() };
        let cut = output("db.db1", Some(&result), 15);
        assert_eq!(cut.output.as_deref(), Some("äääääää"));
        assert!(cut.message.as_deref().is_some_and(|said| said.contains("first 14 bytes")), "{cut:?}");
        assert_eq!(output("db.db1", Some(&result), 1000).message, None);
        assert_eq!(
            in_words(&output("db.db2", None, 1000)),
            "db.db2: no answer: its agent does not report, or may not run commands"
        );
    }
}
