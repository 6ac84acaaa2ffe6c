//! DataService: accepts or refuses it, shows which groups name it, and lets it go only when none does.

use std::sync::Arc;

use holdfast_api::conditions;
use holdfast_api::reasons::{condition, ready};
use holdfast_api::v1::DataService;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};

use super::{Rejection, contents, deletion_confirmed, list, set_accepted};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// The finalizer of a DataService.
const FINALIZER: &str = "holdfast.dev/dataservice";

/// Looks at one data service.
pub(crate) async fn reconcile(service: Arc<DataService>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<DataService> = context.api_beside(service.as_ref());
    let name = service.name_any();
    let used_by: Vec<String> = context.groups_with(&service).iter().map(|group| group.name_any()).collect();
    let deleting = service.meta().deletion_timestamp.is_some();
    if deleting && (used_by.is_empty() || deletion_confirmed(service.meta())) {
        write::drop_finalizer(&api, service.as_ref(), FINALIZER).await?;
        return Ok(Action::await_change());
    }
    // Its schema says all that is wrong with one.
    let verdict: Result<(), Rejection> = Ok(());
    if !deleting {
        // Before a group may use it: it can't vanish under one.
        write::add_finalizer(&api, service.as_ref(), FINALIZER).await?;
    }
    let now = context.now();
    let servers = context.servers_beside(service.as_ref());
    let found = contents::of_service(&service.spec, &context.groups_with(&service), &servers);
    write::status(&api, service.as_ref(), |fresh| {
        let status = fresh.status.get_or_insert_default();
        status.observed_generation = service.metadata.generation;
        status.used_by.clone_from(&used_by);
        status.servers.clone_from(&found.servers);
        contents::set(&mut status.conditions, &found.mismatch, service.metadata.generation, now);
        set_accepted(&mut status.conditions, service.meta(), &verdict, now);
        if deleting {
            let message = format!(
                "used by {}; take it out of their resources, or confirm with the annotation {}: {}",
                list(&used_by),
                super::CONFIRM_DELETE,
                name
            );
            let type_ = condition::DELETION_BLOCKED;
            conditions::set(&mut status.conditions, type_, true, ready::DELETION_BLOCKED, &message, None, now);
        } else {
            conditions::clear(&mut status.conditions, condition::DELETION_BLOCKED);
        }
    })
    .await?;
    Ok(Action::await_change())
}
