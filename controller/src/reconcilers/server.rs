//! Server objects: condition `AgentReporting`, a first status, and letting go. Making and repairing them is the
//! sub-cluster's.

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::conditions;
use holdfast_api::reasons::{condition, ready};
use holdfast_api::v1::{Server, ServerState};
use kube::runtime::controller::Action;
use kube::{Api, Resource};

use super::operation::local;
use super::reporting::Reporting;
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// The finalizer of a Server.
const FINALIZER: &str = "holdfast.dev/server";

/// When a Server is looked at again whose commands are not all recorded.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Keeps what is not the agent's.
pub(crate) async fn reconcile(server: Arc<Server>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<Server> = context.api_beside(server.as_ref());
    if server.meta().deletion_timestamp.is_some() {
        // The machine is not touched. While it is listed in its sub-cluster the object is made again.
        write::drop_finalizer(&api, server.as_ref(), FINALIZER).await?;
        return Ok(Action::await_change());
    }
    let now = context.now();
    let reporting = Reporting::of([server.as_ref()], now, context.settings.report_timeout);
    write::status(&api, server.as_ref(), |server| {
        let status = server.status.get_or_insert_default();
        if status.report_time.is_none() {
            status.state.get_or_insert(ServerState::Unknown);
            if conditions::get(&status.conditions, condition::READY).is_none() {
                let message = "no agent has reported from this server yet";
                let generation = server.metadata.generation;
                conditions::set(
                    &mut status.conditions,
                    condition::READY,
                    false,
                    ready::UNREPORTED,
                    message,
                    generation,
                    now,
                );
            }
        }
        reporting.set(&mut status.conditions, now);
    })
    .await?;
    if let Some(recorded) = local::record(&server, &context).await? {
        write::status(&api, server.as_ref(), |server| {
            let status = server.status.get_or_insert_default();
            status.commands_recorded = status.commands_recorded.max(Some(recorded));
        })
        .await?;
    }
    if local::is_open(&server) {
        // The Operations that it waits for wake no Server.
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    Ok(Action::requeue(reporting.look_again(now, context.settings.resync)))
}
