//! Commands that were given on a server itself stand in the API as finished Operations (`origin: Local`): the controller
//! makes them of what agents report. They are records: nobody carries them out, and one that no server reports fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    GivenCommand, MoveParameters, Operation, OperationOrigin, OperationSpec, OperationStatus, OperationStep,
    OperationTarget, OperationType, PauseParameters, ResourceParameters, ResumeParameters, Server, StepState,
    TargetKind,
};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::carry_out::{Next, is_final};
use super::phase_of;
use crate::context::Context;
use crate::error::{Error, is_conflict};

/// Which command of which server an Operation records: `SERVER/NUMBER`.
const GIVEN: &str = "holdfast.dev/given-on";

/// Whether an Operation is such a record.
pub(super) fn is(operation: &Operation) -> bool {
    operation.annotations().contains_key(GIVEN)
}

/// The Operation that records a command.
fn operation(server: &Server, given: &GivenCommand) -> Operation {
    let on = server.name_any();
    let target = OperationTarget { kind: TargetKind::FailoverGroup, name: given.group.clone() };
    let mut spec = OperationSpec::new(given.type_, target);
    // The API wants it of everything with a name of its own, so that no repository repeats an Operation.
    spec.not_after = Some(given.done.clone());
    spec.reason = Some(given.reason.clone()).filter(|reason| !reason.is_empty());
    match given.type_ {
        OperationType::Move => spec.move_ = Some(MoveParameters::default()),
        OperationType::ClearFailures => {
            spec.clear_failures = Some(ResourceParameters { resource: given.resource.clone() });
        }
        OperationType::Pause => spec.pause = Some(PauseParameters { until: given.until.clone() }),
        OperationType::Resume => {
            spec.resume = Some(ResumeParameters { accept_differences: given.accept_differences });
        }
        _ => {}
    }
    let type_ = given.type_.as_str().to_lowercase();
    // A name of one server's command and no other's; the name of a Server has a dot.
    let name = format!("{type_}-{}-{}-{}", given.group, on.replace('.', "-"), given.id);
    let mut operation = Operation::new(&name, spec);
    operation.metadata.namespace = server.namespace();
    operation.annotations_mut().insert(GIVEN.to_owned(), format!("{on}/{}", given.id));
    operation
}

/// Makes the Operations of what a server reports. The number up to which all of them are finished, if that is news.
pub(crate) async fn record(server: &Server, context: &Context) -> Result<Option<u64>, Error> {
    let Some(status) = &server.status else { return Ok(None) };
    let mut recorded = status.commands_recorded;
    let mut given: Vec<&GivenCommand> = status.commands.iter().filter(|one| Some(one.id) > recorded).collect();
    given.sort_by_key(|one| one.id);
    let api: Api<Operation> = context.api_beside(server);
    for command in given {
        let wanted = operation(server, command);
        let name = wanted.name_any();
        let found = api.get_opt(&name).await.map_err(Error::api(format!("read Operation {name}")))?;
        match found {
            Some(found) if is_final(phase_of(&found)) => recorded = Some(command.id),
            Some(_) => break,
            None => {
                match api.create(&PostParams::default(), &wanted).await {
                    Err(error) if !is_conflict(&error) => {
                        return Err(Error::api(format!("make Operation {name}"))(error));
                    }
                    _ => {}
                }
                break;
            }
        }
    }
    Ok(recorded.filter(|_| recorded != status.commands_recorded))
}

/// Whether a server reports commands that are not recorded yet.
pub(crate) fn is_open(server: &Server) -> bool {
    let status = server.status.as_ref();
    status.is_some_and(|status| status.commands.iter().any(|one| Some(one.id) > status.commands_recorded))
}

/// The command that an Operation says it records, as its server reports it.
fn reported(record: &Operation, context: &Context) -> Option<(Arc<Server>, GivenCommand)> {
    let (server, number) = record.annotations().get(GIVEN)?.rsplit_once('/')?;
    let server = context.server(record.namespace().as_deref(), server)?;
    let number: u64 = number.parse().ok()?;
    let commands = server.status.iter().flat_map(|status| &status.commands);
    let command = commands.into_iter().find(|one| one.id == number)?.clone();
    // Whoever makes an Operation by hand records nothing else by it.
    let same = record.spec.type_ == command.type_ && record.spec.target.name == command.group;
    (same && record.spec.target.kind == TargetKind::FailoverGroup).then_some((server, command))
}

/// The status of a record: what was done, when, and what the agent said of it.
pub(super) fn finished_status(record: &Operation, context: &Context) -> OperationStatus {
    let began = BTreeMap::new();
    let mut next = Next::of(record, &began, context.now());
    match reported(record, context) {
        Some((server, command)) => {
            let took = command.done.0.duration_since(command.given.0);
            let took = u64::try_from(took.as_millis()).unwrap_or(0);
            next.set_origin(OperationOrigin::Local);
            next.set_steps(vec![OperationStep {
                name: format!("{} {} on {}", command.type_.as_str(), command.group, server.spec.server),
                state: StepState::Done,
                start_time: Some(command.given.clone()),
                took: Some(std::time::Duration::from_millis(took).into()),
                ..OperationStep::default()
            }]);
            next.succeed(&format!("given on {}: {}", server.spec.server, command.message));
        }
        None => {
            let message = format!(
                "the annotation {GIVEN} says that this records a command on a server, and that server reports none like \
                 it; nothing was done; leave the annotation away"
            );
            next.fail(accepted::NOT_FOUND, &message);
        }
    }
    next.into_status()
}
