//! SubCluster: accepts or refuses it, makes its Server objects and heartbeat key, shows who reports, and lets it go when
//! no group names it.

pub(crate) mod accept;
mod guarantee;
mod lock;
mod servers;
pub(crate) mod structure;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_api::conditions;
use holdfast_api::reasons::{condition, ready};
use holdfast_api::v1::{FailoverGroup, GuaranteeLevel, Server, ServerState, SubCluster, SubClusterPhase};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use rand::RngCore;
use serde::de::DeserializeOwned;

use self::servers::Change;
use super::reporting::Reporting;
use super::{Rejection, list, set_accepted};
use crate::context::{Context, age_order, super_cluster_of};
use crate::error::{Error, is_conflict, is_not_found};
use crate::write;

pub(crate) use accept::allows_namespace;

/// The finalizer of a SubCluster.
const FINALIZER: &str = "holdfast.dev/subcluster";
/// A heartbeat key that was there is looked for again after so long.
const KEY_CHECK: Duration = Duration::from_secs(30);

/// Looks at one sub-cluster.
pub(crate) async fn reconcile(sub: Arc<SubCluster>, context: Arc<Context>) -> Result<Action, Error> {
    let api: Api<SubCluster> = context.api_beside(sub.as_ref());
    let now = context.now();
    let all = context.stores.servers.state_filter(|server| servers::belongs(&sub, server));
    let reporting = Reporting::of(all.iter().map(AsRef::as_ref), now, context.settings.report_timeout);

    if sub.meta().deletion_timestamp.is_some() {
        let groups: Vec<String> = context.groups_of(&sub).iter().map(|group| group.name_any()).collect();
        if groups.is_empty() {
            return let_go(&api, &sub, &all, &context).await;
        }
        write::status(&api, sub.as_ref(), |fresh| {
            let status = fresh.status.get_or_insert_default();
            reporting.set(&mut status.conditions, now);
            let message = format!("named by {}; delete the groups first", list(&groups));
            let type_ = condition::DELETION_BLOCKED;
            conditions::set(&mut status.conditions, type_, true, ready::DELETION_BLOCKED, &message, None, now);
        })
        .await?;
        return Ok(Action::requeue(reporting.look_again(now, context.settings.resync)));
    }

    let verdict = verdict(&sub, &all, &context);
    if verdict.is_ok() {
        write::add_finalizer(&api, sub.as_ref(), FINALIZER).await?;
        ensure_key(&sub, &context).await?;
        ensure_servers(&sub, &all, &context).await?;
    }
    // The verdict is about the generation that was looked at, whatever stands there by the time of the write.
    let digest = verdict.is_ok().then(|| structure::to_text(&structure::parts(&sub.spec)));
    let above = super_cluster_of(&sub).and_then(|reference| context.stores.super_clusters.get(&reference));
    let wanted = above.map_or(GuaranteeLevel::UserSpace, |above| above.spec.policy.minimum_guarantee);
    write::status(&api, sub.as_ref(), |fresh| {
        let status = fresh.status.get_or_insert_default();
        set_accepted(&mut status.conditions, sub.meta(), &verdict, now);
        if digest.is_some() {
            status.accepted_digest.clone_from(&digest);
        }
        conditions::clear(&mut status.conditions, condition::DELETION_BLOCKED);
        reporting.set(&mut status.conditions, now);
        lock::set(&mut status.conditions, &sub.spec, all.iter().map(AsRef::as_ref), sub.metadata.generation, now);
        let guaranteed = status.guarantee.clone();
        guarantee::set(&mut status.conditions, guaranteed.as_ref(), wanted, sub.metadata.generation, now);
        if status.phase.is_none() {
            status.phase = Some(SubClusterPhase::Unformed);
        }
        if conditions::get(&status.conditions, condition::READY).is_none() {
            let (type_, reason) = (condition::READY, ready::UNREPORTED);
            let (message, generation) = ("no agent has reported yet", sub.metadata.generation);
            conditions::set(&mut status.conditions, type_, false, reason, message, generation, now);
        }
    })
    .await?;
    Ok(Action::requeue(reporting.look_again(now, context.settings.resync)))
}

/// What the verdict depends on, as observed.
fn verdict(sub: &SubCluster, all: &[Arc<Server>], context: &Context) -> Result<(), Rejection> {
    let super_cluster = super_cluster_of(sub).and_then(|reference| context.stores.super_clusters.get(&reference));
    let own_age = age_order(sub);
    let older = super_cluster.as_ref().map_or(0, |above| {
        let siblings = context.sub_clusters_of(above);
        let counts = |other: &&Arc<SubCluster>| {
            let namespace = other.namespace().unwrap_or_default();
            allows_namespace(above, &namespace) && age_order(other.as_ref()) < own_age
        };
        siblings.iter().filter(counts).count()
    });
    let groups = context.groups_of(sub);
    // One that was refused does nothing, to the sub-cluster neither.
    let taken = |group: &&FailoverGroup| {
        group.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, condition::ACCEPTED))
    };
    let groups: Vec<&FailoverGroup> = groups.iter().map(AsRef::as_ref).filter(taken).collect();
    let super_cluster = super_cluster.as_deref();
    let members: Vec<String> = all
        .iter()
        .filter(|server| server.status.as_ref().and_then(|status| status.state) == Some(ServerState::Active))
        .map(|server| server.spec.server.clone())
        .collect();
    accept::accept(&accept::Facts { sub_cluster: sub, super_cluster, older, members: &members, groups: &groups })
}

/// Makes the Secret with the heartbeat key, if there is none.
async fn ensure_key(sub: &SubCluster, context: &Context) -> Result<(), Error> {
    let name = sub.spec.heartbeat.key_secret.clone().unwrap_or_else(|| format!("{}-heartbeat", sub.name_any()));
    let seen = format!("{}/{name}", sub.uid().unwrap_or_default());
    if context.keys_seen().get(&seen).is_some_and(|at| at.elapsed() < KEY_CHECK) {
        return Ok(());
    }
    let api: Api<Secret> = context.api_beside(sub);
    let full = format!("{}/{name}", sub.namespace().unwrap_or_default());
    if api.get_metadata_opt(&name).await.map_err(Error::api(format!("read Secret {full}")))?.is_none() {
        let mut key = [0_u8; 32];
        rand::rng().fill_bytes(&mut key);
        let mut secret = Secret {
            data: Some(BTreeMap::from([("1".to_string(), ByteString(key.to_vec()))])),
            type_: Some("Opaque".into()),
            ..Secret::default()
        };
        secret.metadata.name = Some(name);
        secret.labels_mut().insert(servers::LABEL.into(), sub.name_any());
        secret.metadata.owner_references = sub.controller_owner_ref(&()).map(|owner| vec![owner]);
        match api.create(&write::post(), &secret).await {
            Ok(_) => tracing::info!(secret = %full, "made a heartbeat key"),
            // Somebody made one in the meantime: that is the key.
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(Error::api(format!("create Secret {full}"))(error)),
        }
    }
    context.keys_seen().insert(seen, Instant::now());
    Ok(())
}

/// Makes, repairs and deletes Server objects.
async fn ensure_servers(sub: &SubCluster, existing: &[Arc<Server>], context: &Context) -> Result<(), Error> {
    let api: Api<Server> = context.api_beside(sub);
    for change in servers::changes(sub, existing.iter().map(AsRef::as_ref)) {
        tracing::debug!(sub_cluster = %write::full_name(sub), ?change, "writing a Server");
        let (name, done) = match change {
            Change::Create(server) => (server.name_any(), api.create(&write::post(), &server).await.map(|_| ())),
            Change::Repair(name, patch) => {
                let done = api.patch(&name, &write::patch(), &Patch::Merge(patch)).await.map(|_| ());
                (name, done)
            }
            Change::Delete(name) => {
                // The one that was seen: another one of that name may be wanted again.
                if let Some(server) = existing.iter().find(|server| server.name_any() == name) {
                    delete_exactly(&api, server.as_ref()).await?;
                }
                continue;
            }
        };
        match done {
            Ok(()) => {}
            // What we saw is old; the news about it is on its way and brings the next look.
            Err(error) if is_conflict(&error) || is_not_found(&error) => {}
            Err(error) => return Err(Error::api(format!("write Server {name}"))(error)),
        }
    }
    Ok(())
}

/// Deletes what was made for the sub-cluster, then lets it go.
async fn let_go(
    api: &Api<SubCluster>,
    sub: &SubCluster,
    servers: &[Arc<Server>],
    context: &Context,
) -> Result<Action, Error> {
    let server_api: Api<Server> = context.api_beside(sub);
    for server in servers {
        delete_exactly(&server_api, server.as_ref()).await?;
    }
    let secret_api: Api<Secret> = context.api_beside(sub);
    let labelled = ListParams::default().labels(&format!("{}={}", servers::LABEL, sub.name_any()));
    let secrets = secret_api.list(&labelled).await.map_err(Error::api("list Secrets"))?;
    for secret in &secrets.items {
        // A key that a person made is that person's.
        if secret.owner_references().iter().any(|owner| Some(&owner.uid) == sub.metadata.uid.as_ref()) {
            delete_exactly(&secret_api, secret).await?;
        }
    }
    write::drop_finalizer(api, sub, FINALIZER).await?;
    tracing::info!(sub_cluster = %write::full_name(sub), "let go");
    Ok(Action::await_change())
}

/// Deletes this object and no other one of the same name.
async fn delete_exactly<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let exactly = Preconditions { uid: object.uid(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match api.delete(&object.name_any(), &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(Error::api(format!("delete {} {}", K::kind(&()), write::full_name(object)))(error)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use holdfast_api::v1::SuperCluster;
    use serde_json::json;

    use super::*;

    /// Two servers, a lock disk, two LANs and a disk path; timeout 1 s.
    pub(crate) fn sub_cluster(name: &str) -> SubCluster {
        let lan = |name: &str, role: &str, net: u8| {
            json!({"name": name, "lan": {"role": role, "endpoints": [
                {"server": "db1", "address": format!("10.0.{net}.1")}, {"server": "db2", "address": format!("10.0.{net}.2")},
            ]}})
        };
        serde_json::from_value(json!({
            "apiVersion": "holdfast.dev/v1", "kind": "SubCluster",
            "metadata": {"name": name, "namespace": "ha", "uid": format!("uid-{name}"), "generation": 1},
            "spec": {
                "servers": [{"name": "db1", "id": 1}, {"name": "db2", "id": 2}],
                "disks": [{"name": "san", "device": "/dev/disk/by-id/wwn-0x51",
                    "area": {"device": "/dev/disk/by-id/wwn-0x51-part1"}}],
                "heartbeat": {"timeout": "1s", "paths": [
                    lan("ic", "Interconnect", 0), lan("pub", "Public", 1), {"name": "area", "disk": {"disk": "san"}},
                ]},
                "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san"}},
                "watchdog": {"mode": "IfPresent"},
            },
        }))
        .unwrap()
    }

    /// A super-cluster in the same namespace whose master is `master`.
    pub(crate) fn super_cluster(name: &str) -> SuperCluster {
        serde_json::from_value(json!({
            "apiVersion": "holdfast.dev/v1", "kind": "SuperCluster",
            "metadata": {"name": name, "namespace": "ha", "uid": format!("uid-{name}"), "generation": 1},
            "spec": {"master": {"subCluster": "master", "group": "control-plane"}},
        }))
        .unwrap()
    }
}
