//! DataService: not carried out yet, and says so. Which groups name it is shown, and deletion waits for them.

use std::sync::Arc;

use holdfast_api::reasons::{accepted, condition, ready};
use holdfast_api::v1::DataService;
use holdfast_api::{conditions, support};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};

use super::{Rejection, deletion_confirmed, list, set_accepted};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// The finalizer of a DataService.
const FINALIZER: &str = "holdfast.dev/dataservice";

/// Refuses it and shows who names it.
pub(crate) async fn reconcile(service: Arc<DataService>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<DataService> = context.api_beside(service.as_ref());
    let (namespace, name) = (service.namespace(), service.name_any());
    let mut used_by: Vec<String> = context
        .stores
        .groups
        .state_filter(|group| {
            let named = |r: &holdfast_api::v1::Resource| r.data_service.as_ref().is_some_and(|s| s.name == name);
            group.namespace() == namespace && group.spec.resources.iter().any(named)
        })
        .iter()
        .map(|group| group.name_any())
        .collect();
    used_by.sort();
    let deleting = service.meta().deletion_timestamp.is_some();
    if deleting && (used_by.is_empty() || deletion_confirmed(service.meta())) {
        write::drop_finalizer(&api, service.as_ref(), FINALIZER).await?;
        return Ok(Action::await_change());
    }
    let unsupported: Vec<String> =
        support::unsupported_data_service(&service.spec).iter().map(ToString::to_string).collect();
    let verdict = Err(Rejection::new(accepted::UNSUPPORTED_BY_SERVER, unsupported.join("; ")));
    let now = context.now();
    write::status(&api, service.as_ref(), |fresh| {
        let status = fresh.status.get_or_insert_default();
        status.observed_generation = service.metadata.generation;
        status.used_by.clone_from(&used_by);
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
