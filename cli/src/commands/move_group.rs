//! `holdfast move`: makes an Operation of type Move and shows its steps until it has ended. The controller and the
//! agents carry it out; ending this command does not end the move.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_api::v1::{Operation, OperationPhase, StepState};
use http::Method;
use serde_json::{Value, json};

use crate::args::MoveArgs;
use crate::client::{Api, Body};
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// How often it looks how far the operation is.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command.
///
/// # Errors
/// When the operation is refused, fails, or has not ended in time.
pub(crate) async fn run(args: MoveArgs, printer: Printer) -> Result {
    let api = Api::connect(&args.client).await?;
    let operations = format!("/apis/{}/namespaces/{}/operations", holdfast_api::API_VERSION, api.namespace());
    let mut operation = json!({
        "apiVersion": holdfast_api::API_VERSION,
        "kind": "Operation",
        "metadata": {"generateName": format!("move-{}-", args.group)},
        "spec": {
            "type": "Move",
            "target": {"kind": "FailoverGroup", "name": args.group},
            "move": {"to": args.to},
            "timeout": format!("{}s", args.timeout),
        },
    });
    if let Some(reason) = &args.reason {
        operation["spec"]["reason"] = json!(reason);
    }
    let body = Body { content_type: "application/json", value: &operation };
    let created: Value = api.send(Method::POST, &operations, Some(body)).await?;
    let name = created.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    printer.note(format!("operation {name}"));
    follow(&api, &args, &format!("{operations}/{name}"), &name, printer).await
}

async fn follow(api: &Api, args: &MoveArgs, path: &str, name: &str, printer: Printer) -> Result {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(args.timeout);
    let mut said = BTreeSet::new();
    loop {
        let operation: Operation = api.send(Method::GET, path, None).await?;
        let status = operation.status.unwrap_or_default();
        for step in &status.steps {
            if matches!(step.state, StepState::Done | StepState::Failed) && said.insert(step.name.clone()) {
                let took = step.took.as_ref().map_or_else(String::new, |took| format!(" ({took})"));
                printer.note(
                    format!("  {} {}{took} {}", step.name, step.state.as_str().to_lowercase(), step.message).trim_end(),
                );
            }
        }
        let phase = status.phase.unwrap_or_default();
        let words = status
            .conditions
            .iter()
            .map(|condition| condition.message.as_str())
            .find(|text| !text.is_empty())
            .unwrap_or("");
        match phase {
            OperationPhase::Succeeded => return printer.data(&format!("{} runs on {}", args.group, args.to)),
            OperationPhase::Failed
            | OperationPhase::Cancelled
            | OperationPhase::Superseded
            | OperationPhase::Expired => {
                return Err(Failure::refused(format!(
                    "the move of {} to {} ended as {phase}: {words}",
                    args.group, args.to
                ))
                .hint(format!("holdfast get hop/{name} -o yaml shows every step")));
            }
            OperationPhase::Pending | OperationPhase::Running | OperationPhase::AwaitingOperator => {}
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::refused(format!(
                "the move of {} to {} is still {phase} after {} s: {words}",
                args.group, args.to, args.timeout
            ))
            .hint(format!("it goes on; holdfast get hop/{name} -w shows how far it is")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
