//! One watch per kind. Each change refreshes the store of its kind and then wakes every object whose state may depend on
//! it. What a woken object does is decided in `reconcilers`.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt, TryStreamExt, future};
use holdfast_api::v1::{
    DataService, FailoverGroup, Operation, OperationType, Server, SubCluster, SuperCluster, TargetKind,
};
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::context::{Context, Writers, super_cluster_of};
use crate::error::Error;
use crate::reconcilers::operation::pause;
use crate::reconcilers::{self, failover_group, unusable};

/// Several changes of one object within this time are looked at once. Each change begins it anew, so it is short.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// Reconciliations of one kind at the same time.
const CONCURRENCY: u16 = 16;
/// How soon a failed reconciliation is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a stop waits for requests that are under way.
const FINISH: Duration = Duration::from_secs(10);

/// Where to send what has to be looked at.
#[derive(Clone)]
struct Wake {
    super_clusters: UnboundedSender<ObjectRef<SuperCluster>>,
    sub_clusters: UnboundedSender<ObjectRef<SubCluster>>,
    servers: UnboundedSender<ObjectRef<Server>>,
    groups: UnboundedSender<ObjectRef<FailoverGroup>>,
    data_services: UnboundedSender<ObjectRef<DataService>>,
    operations: UnboundedSender<ObjectRef<Operation>>,
}

/// What reconcilers wait for.
#[derive(Clone)]
struct Signals {
    /// Every kind has been read once.
    all_seen: watch::Receiver<bool>,
    /// Nothing new shall begin.
    stopped: watch::Receiver<bool>,
}

/// Runs all watches and reconcilers until `shutdown`.
pub(crate) async fn run(
    context: Arc<Context>,
    writers: Writers,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (super_clusters, super_queue) = unbounded();
    let (sub_clusters, sub_queue) = unbounded();
    let (servers, server_queue) = unbounded();
    let (groups, group_queue) = unbounded();
    let (data_services, service_queue) = unbounded();
    let (operations, operation_queue) = unbounded();
    let wake = Wake { super_clusters, sub_clusters, servers, groups, data_services, operations };

    // Nothing is decided before every watch has seen everything once: a group must know all claims.
    let mut watches = JoinSet::new();
    let (w, c) = (&mut watches, &context);
    watch_kind(w, c, &wake, writers.super_clusters, super_cluster_changed);
    watch_kind(w, c, &wake, writers.sub_clusters, sub_cluster_changed);
    watch_kind(w, c, &wake, writers.servers, server_changed);
    watch_kind(w, c, &wake, writers.groups, group_changed);
    watch_kind(w, c, &wake, writers.data_services, data_service_changed);
    watch_kind(w, c, &wake, writers.operations, operation_changed);
    drop(wake);

    let (stop, stopped) = watch::channel(false);
    let (ready, all_seen) = watch::channel(false);
    let signals = Signals { all_seen, stopped };
    let mut workers = JoinSet::new();
    let one = Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    // Operations one after the other: which of two goes first must not depend on who is faster.
    let serial = Config::default().debounce(DEBOUNCE).concurrency(1);
    let (w, x, s) = (&mut workers, &signals, &context.stores);
    reconcile(w, c, x, s.super_clusters.clone(), super_queue, one.clone(), reconcilers::super_cluster::reconcile);
    reconcile(w, c, x, s.sub_clusters.clone(), sub_queue, one.clone(), reconcilers::sub_cluster::reconcile);
    reconcile(w, c, x, s.servers.clone(), server_queue, one.clone(), reconcilers::server::reconcile);
    reconcile(w, c, x, s.groups.clone(), group_queue, one.clone(), failover_group::reconcile);
    reconcile(w, c, x, s.data_services.clone(), service_queue, one, reconcilers::data_service::reconcile);
    reconcile(w, c, x, s.operations.clone(), operation_queue, serial, reconcilers::operation::reconcile);

    // In this one place: a store wakes only the last of several that wait for it.
    let first_sight = async {
        let _ = s.super_clusters.wait_until_ready().await;
        let _ = s.sub_clusters.wait_until_ready().await;
        let _ = s.servers.wait_until_ready().await;
        let _ = s.groups.wait_until_ready().await;
        let _ = s.data_services.wait_until_ready().await;
        let _ = s.operations.wait_until_ready().await;
        tracing::info!("every kind has been read; the controller works");
        let _ = ready.send(true);
        future::pending::<()>().await;
    };
    let ended = tokio::select! {
        () = shutdown => None,
        () = first_sight => None,
        part = watches.join_next() => Some(part),
        part = workers.join_next() => Some(part),
    };
    tracing::info!("the controller stops");
    // What has begun is finished; nothing new begins.
    let _ = stop.send(true);
    let finished = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        tracing::warn!("an answer of the API server was not waited for");
    }
    workers.shutdown().await;
    watches.shutdown().await;
    match ended {
        None => Ok(()),
        Some(Some(Ok(part))) => Err(Error::Ended(part)),
        Some(Some(Err(panic))) => Err(Error::Ended(panic.to_string())),
        Some(None) => Err(Error::Ended("every part".into())),
    }
}

/// Watches one kind for ever: errors are logged and tried again with growing delay.
fn watch_kind<K>(
    tasks: &mut JoinSet<String>,
    context: &Arc<Context>,
    wake: &Wake,
    writer: Writer<K>,
    changed: fn(&Context, &Wake, &K),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (context, wake) = (context.clone(), wake.clone());
    let api: Api<K> = Api::all(context.client.clone());
    tasks.spawn(async move {
        let changes = watcher(api, watcher::Config::default()).default_backoff().reflect(writer).touched_objects();
        changes
            .for_each(|change| {
                match change {
                    Ok(object) => changed(&context, &wake, &object),
                    Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "a watch failed; trying again"),
                }
                future::ready(())
            })
            .await;
        format!("the watch of {}", K::kind(&()))
    });
}

/// Runs the reconciler of one kind until it is told to stop.
fn reconcile<K, F>(
    tasks: &mut JoinSet<String>,
    context: &Arc<Context>,
    signals: &Signals,
    store: Store<K>,
    queue: UnboundedReceiver<ObjectRef<K>>,
    config: Config,
    reconciler: fn(Arc<K>, Arc<Context>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let context = context.clone();
    let Signals { mut all_seen, mut stopped } = signals.clone();
    tasks.spawn(async move {
        let stop = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
        .shared();
        let seen = async move {
            let _ = all_seen.wait_for(|seen| *seen).await;
        };
        future::select(Box::pin(seen), stop.clone()).await;
        let queue = queue.map(Ok::<_, std::convert::Infallible>).take_until(stop);
        applier(
            move |object, context| {
                let measured = context.measured.clone();
                let work = reconciler(object, context);
                async move {
                    let begun = std::time::Instant::now();
                    let outcome = work.await;
                    measured.looked(&K::kind(&()), begun, outcome.is_ok());
                    outcome
                }
                .boxed()
            },
            |object: Arc<K>, error: &Error, _| {
                tracing::warn!(kind = %K::kind(&()), object = %crate::write::full_name(object.as_ref()), %error, "trying again");
                Action::requeue(RETRY)
            },
            context.clone(),
            store,
            queue,
            config,
        )
        // Errors of reconcilers were logged above; what is left are objects that went in the meantime.
        .into_stream()
        .for_each(|_| future::ready(()))
        .await;
        format!("the reconciler of {}", K::kind(&()))
    });
}

/// Wakes an object. A closed queue means that the controller is stopping.
fn send<K: Resource<DynamicType = ()>>(queue: &UnboundedSender<ObjectRef<K>>, object: ObjectRef<K>) {
    let _ = queue.unbounded_send(object);
}

fn super_cluster_changed(context: &Context, wake: &Wake, super_cluster: &SuperCluster) {
    send(&wake.super_clusters, ObjectRef::from_obj(super_cluster));
    for sub in context.sub_clusters_of(super_cluster) {
        send(&wake.sub_clusters, ObjectRef::from_obj(sub.as_ref()));
    }
}

fn sub_cluster_changed(context: &Context, wake: &Wake, sub_cluster: &SubCluster) {
    send(&wake.sub_clusters, ObjectRef::from_obj(sub_cluster));
    for group in context.groups_of(sub_cluster) {
        send(&wake.groups, ObjectRef::from_obj(group.as_ref()));
    }
    // They may have waited for it to have a quorum.
    for operation in context.unfinished_operations_in(sub_cluster) {
        send(&wake.operations, ObjectRef::from_obj(operation.as_ref()));
    }
    let Some(super_cluster) = super_cluster_of(sub_cluster) else { return };
    // One that goes makes room for the next: 128 are accepted.
    if context.stores.sub_clusters.get(&ObjectRef::from_obj(sub_cluster)).is_none() {
        let others = context.stores.sub_clusters.state_filter(|o| super_cluster_of(o).as_ref() == Some(&super_cluster));
        for other in others {
            send(&wake.sub_clusters, ObjectRef::from_obj(other.as_ref()));
        }
    }
    send(&wake.super_clusters, super_cluster);
}

fn server_changed(context: &Context, wake: &Wake, server: &Server) {
    send(&wake.servers, ObjectRef::from_obj(server));
    // It may have found other programs.
    for service in context.services_beside(server) {
        send(&wake.data_services, ObjectRef::from_obj(service.as_ref()));
    }
    // The owner undoes an edit that names another sub-cluster.
    let owners = server.owner_references().iter().filter(|owner| owner.kind == SubCluster::kind(&()));
    let names: BTreeSet<&str> =
        owners.map(|owner| owner.name.as_str()).chain([server.spec.sub_cluster.as_str()]).collect();
    for name in names {
        let Some(sub_cluster) = context.sub_cluster(server.namespace().as_deref(), name) else { continue };
        send(&wake.sub_clusters, ObjectRef::from_obj(sub_cluster.as_ref()));
        // It may have found that it can, or can't, carry them out.
        for group in context.groups_of(&sub_cluster).iter().filter(|group| unusable::concerns(server, group)) {
            send(&wake.groups, ObjectRef::from_obj(group.as_ref()));
        }
        if let Some(super_cluster) = super_cluster_of(&sub_cluster) {
            send(&wake.super_clusters, super_cluster);
        }
    }
}

fn group_changed(context: &Context, wake: &Wake, group: &FailoverGroup) {
    send(&wake.groups, ObjectRef::from_obj(group));
    failover_group::forget(context, group);
    for other in failover_group::waiting_for_others(context).into_iter().chain(failover_group::naming(context, group)) {
        send(&wake.groups, other);
    }
    let about = [context.operations_on(group), context.clears_of(group), context.pauses_of(group)];
    for operation in about.into_iter().flatten() {
        send(&wake.operations, ObjectRef::from_obj(operation.as_ref()));
    }
    for service in group.spec.resources.iter().filter_map(|resource| resource.data_service.as_ref()) {
        let namespace = group.namespace().unwrap_or_default();
        send(&wake.data_services, ObjectRef::new(&service.name).within(&namespace));
    }
    if let Some(sub_cluster) = context.sub_cluster(group.namespace().as_deref(), &group.spec.sub_cluster) {
        // A sub-cluster that is being deleted waits for its groups.
        if sub_cluster.meta().deletion_timestamp.is_some() {
            send(&wake.sub_clusters, ObjectRef::from_obj(sub_cluster.as_ref()));
        }
        if let Some(super_cluster) = super_cluster_of(&sub_cluster) {
            send(&wake.super_clusters, super_cluster);
        }
    }
}

fn data_service_changed(context: &Context, wake: &Wake, service: &DataService) {
    send(&wake.data_services, ObjectRef::from_obj(service));
    // What was refused without it may be accepted now, and the other way round.
    for group in context.groups_with(service) {
        send(&wake.groups, ObjectRef::from_obj(group.as_ref()));
    }
}

fn operation_changed(context: &Context, wake: &Wake, operation: &Operation) {
    send(&wake.operations, ObjectRef::from_obj(operation));
    if operation.spec.target.kind == TargetKind::Server && operation.spec.type_ == OperationType::ClearFailures {
        let sub = operation.spec.target.name.rsplit_once('.').map(|(sub, _)| sub).unwrap_or_default();
        let sub = context.sub_cluster(operation.namespace().as_deref(), sub);
        for group in sub.iter().flat_map(|sub| context.groups_of(sub)) {
            send(&wake.groups, ObjectRef::from_obj(group.as_ref()));
        }
    }
    // They may be about the groups of many sub-clusters; which, their steps say.
    for group in context.stores.groups.state() {
        let asked = group.status.as_ref().and_then(|status| status.pause.as_ref());
        let asked = asked.is_some_and(|asked| asked.operation == operation.name_any());
        if operation.namespace() == group.namespace() && (asked || pause::asks(operation, &group)) {
            send(&wake.groups, ObjectRef::from_obj(group.as_ref()));
        }
    }
    if operation.spec.target.kind != TargetKind::FailoverGroup {
        return;
    }
    if let Some(group) = context.group(operation.namespace().as_deref(), &operation.spec.target.name) {
        send(&wake.groups, ObjectRef::from_obj(group.as_ref()));
        for other in context.operations_on(&group) {
            if other.metadata.uid != operation.metadata.uid {
                send(&wake.operations, ObjectRef::from_obj(other.as_ref()));
            }
        }
    }
}
