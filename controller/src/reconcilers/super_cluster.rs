//! SuperCluster: sums, health and what needs a human, over everything below it. It changes nothing below.

mod attention;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use holdfast_api::reasons::{accepted, condition, ready};
use holdfast_api::v1::SuperCluster;
use holdfast_api::{conditions, support};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};

use self::summary::Below;
use super::{CONFIRM_DELETE, Rejection, deletion_confirmed, list, set_accepted};
use crate::context::Context;
use crate::error::Error;
use crate::write;

/// The finalizer of a SuperCluster.
const FINALIZER: &str = "holdfast.dev/supercluster";

/// Changes below it within this time are summed up at once. A debounce of the queue would begin anew at each change, and with
/// many servers there is always one.
const PAUSE: Duration = Duration::from_millis(300);

/// Looks at one super-cluster.
pub(crate) async fn reconcile(super_cluster: Arc<SuperCluster>, context: Arc<Context>) -> Result<Action, Error> {
    tokio::time::sleep(PAUSE).await;
    let newest = context.stores.super_clusters.get(&ObjectRef::from_obj(super_cluster.as_ref()));
    let Some(super_cluster) = newest else { return Ok(Action::await_change()) };
    let api: Api<SuperCluster> = context.api_beside(super_cluster.as_ref());
    let now = context.now();
    let subs = context.sub_clusters_of(&super_cluster);
    let names: Vec<String> = subs.iter().map(|sub| write::full_name(sub.as_ref())).collect();
    let deleting = super_cluster.meta().deletion_timestamp.is_some();
    if deleting && (names.is_empty() || deletion_confirmed(super_cluster.meta())) {
        // Sub-clusters run on by themselves.
        write::drop_finalizer(&api, super_cluster.as_ref(), FINALIZER).await?;
        return Ok(Action::await_change());
    }

    let servers: Vec<_> = subs.iter().map(|sub| context.servers_of(sub)).collect();
    let groups: Vec<_> = subs.iter().map(|sub| context.groups_of(sub)).collect();
    let all: Vec<Below<'_>> = subs
        .iter()
        .zip(servers.iter().zip(&groups))
        .map(|(sub, (servers, groups))| Below {
            sub_cluster: sub.as_ref(),
            servers: servers.iter().map(AsRef::as_ref).collect(),
            groups: groups.iter().map(AsRef::as_ref).collect(),
        })
        .collect();
    let summary = summary::summary(&all);
    let attention = attention::attention(&super_cluster, &all);
    let management = summary::management_server(&super_cluster, &all);
    let missing = summary::master_missing(&super_cluster, &all);
    let unsupported = support::unsupported_super_cluster(&super_cluster.spec);
    let fields: Vec<String> = unsupported.iter().map(ToString::to_string).collect();
    let verdict = match fields.is_empty() {
        true => Ok(()),
        false => Err(Rejection::new(accepted::UNSUPPORTED_BY_SERVER, fields.join("; "))),
    };

    write::status(&api, super_cluster.as_ref(), |fresh| {
        let name = fresh.name_any();
        let status = fresh.status.get_or_insert_default();
        let generation = super_cluster.metadata.generation;
        status.observed_generation = generation;
        status.health = Some(summary.health);
        status.sub_clusters = Some(summary.sub_clusters.clone());
        status.servers = Some(summary.servers.clone());
        status.groups = Some(summary.groups.clone());
        status.management_server.clone_from(&management);
        status.attention.clone_from(&attention);
        let c = &mut status.conditions;
        set_accepted(c, super_cluster.meta(), &verdict, now);
        let (state, reason, message) = match &summary.trouble {
            None => (true, ready::CONVERGED, ""),
            Some((reason, message)) => (false, *reason, message.as_str()),
        };
        conditions::set(c, condition::READY, state, reason, message, generation, now);
        match &missing {
            Some((reason, message)) => {
                conditions::set(c, condition::MASTER_MISSING, true, reason, message, generation, now);
            }
            None => {
                conditions::clear(c, condition::MASTER_MISSING);
            }
        }
        if deleting {
            let message = format!(
                "named by {}; delete them or take spec.superCluster out of them, or confirm with the annotation \
                 {CONFIRM_DELETE}: {name}",
                list(&names)
            );
            conditions::set(c, condition::DELETION_BLOCKED, true, ready::DELETION_BLOCKED, &message, None, now);
        } else {
            conditions::clear(c, condition::DELETION_BLOCKED);
        }
    })
    .await?;
    Ok(Action::requeue(context.settings.resync))
}
