//! What every reconciler has at hand: the client, the newest observed objects of all kinds, and how to find those that
//! belong together. Observed objects may be old; whatever must not be decided on an old copy is read again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_api::v1::{
    DataService, FailoverGroup, Operation, OperationStatus, OperationStep, Server, StepState, SubCluster, SuperCluster,
    TargetKind,
};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::{Api, Client, Resource, ResourceExt};

use crate::metrics::Measured;
use crate::reconcilers::failover_group::claims::Held;
use crate::reconcilers::operation::carry_out::is_final;
use crate::reconcilers::operation::{clear_failures, pause};
use crate::{NAME, Settings};

/// The newest observed objects.
pub(crate) struct Stores {
    pub(crate) super_clusters: Store<SuperCluster>,
    pub(crate) sub_clusters: Store<SubCluster>,
    pub(crate) servers: Store<Server>,
    pub(crate) groups: Store<FailoverGroup>,
    pub(crate) data_services: Store<DataService>,
    pub(crate) operations: Store<Operation>,
}

/// The other ends of the stores.
pub(crate) struct Writers {
    pub(crate) super_clusters: Writer<SuperCluster>,
    pub(crate) sub_clusters: Writer<SubCluster>,
    pub(crate) servers: Writer<Server>,
    pub(crate) groups: Writer<FailoverGroup>,
    pub(crate) data_services: Writer<DataService>,
    pub(crate) operations: Writer<Operation>,
}

/// Agents that lost the API server try to reach it again every few seconds, and report as soon as they do.
const COMING_BACK: Duration = Duration::from_secs(60);

/// What every reconciler has at hand.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) measured: Measured,
    pub(crate) stores: Stores,
    pub(crate) recorder: Recorder,
    /// When this process began to act.
    began: Timestamp,
    /// Claims of groups accepted by this process, by uid: the observed objects may not show them yet.
    accepted_claims: Mutex<HashMap<String, Held>>,
    /// Heartbeat keys that were found or made, by uid of the sub-cluster, and when.
    keys_seen: Mutex<HashMap<String, Instant>>,
    /// When steps of running Operations began, by uid and name of the step: only for the time that they took.
    steps_began: Mutex<HashMap<String, BTreeMap<String, Timestamp>>>,
}

impl Context {
    pub(crate) fn new(client: Client, settings: Settings, measured: Measured) -> (Self, Writers) {
        let (super_clusters, super_clusters_writer) = store();
        let (sub_clusters, sub_clusters_writer) = store();
        let (servers, servers_writer) = store();
        let (groups, groups_writer) = store();
        let (data_services, data_services_writer) = store();
        let (operations, operations_writer) = store();
        let mut reporter = Reporter::from(NAME);
        if settings.instance.is_some() {
            reporter.instance.clone_from(&settings.instance);
        }
        let context = Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            measured,
            began: Timestamp::now(),
            stores: Stores { super_clusters, sub_clusters, servers, groups, data_services, operations },
            accepted_claims: Mutex::default(),
            keys_seen: Mutex::default(),
            steps_began: Mutex::default(),
        };
        let writers = Writers {
            super_clusters: super_clusters_writer,
            sub_clusters: sub_clusters_writer,
            servers: servers_writer,
            groups: groups_writer,
            data_services: data_services_writer,
            operations: operations_writer,
        };
        (context, writers)
    }

    /// The present time; conditions take it as the time of a change.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether agents have had the time to report to this process. Before, what they said last may be as old as the time for
    /// which everything was switched off, and that they are silent says nothing.
    pub(crate) fn has_listened(&self, now: Timestamp) -> bool {
        self.began.saturating_add(COMING_BACK).is_ok_and(|heard| heard < now)
    }

    /// The API of one kind in the namespace of `object`.
    pub(crate) fn api_beside<K, O>(&self, object: &O) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        O: Resource,
    {
        Api::namespaced(self.client.clone(), object.meta().namespace.as_deref().unwrap_or("default"))
    }

    /// The sub-cluster that a group or server names.
    pub(crate) fn sub_cluster(&self, namespace: Option<&str>, name: &str) -> Option<Arc<SubCluster>> {
        self.stores.sub_clusters.get(&ObjectRef::new(name).within(namespace?))
    }

    /// The group that an Operation names.
    pub(crate) fn group(&self, namespace: Option<&str>, name: &str) -> Option<Arc<FailoverGroup>> {
        self.stores.groups.get(&ObjectRef::new(name).within(namespace?))
    }

    /// The data service that a group names.
    pub(crate) fn data_service(&self, namespace: Option<&str>, name: &str) -> Option<Arc<DataService>> {
        self.stores.data_services.get(&ObjectRef::new(name).within(namespace?))
    }

    /// All groups of the namespace that name the data service, by name.
    pub(crate) fn groups_with(&self, service: &DataService) -> Vec<Arc<FailoverGroup>> {
        let (namespace, name) = (service.namespace(), service.name_any());
        let named = |r: &holdfast_api::v1::Resource| r.data_service.as_ref().is_some_and(|s| s.name == name);
        sorted(
            self.stores
                .groups
                .state_filter(|group| group.namespace() == namespace && group.spec.resources.iter().any(named)),
        )
    }

    /// The server that an Operation names.
    pub(crate) fn server(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Server>> {
        self.stores.servers.get(&ObjectRef::new(name).within(namespace?))
    }

    /// All groups that name the sub-cluster, by name.
    pub(crate) fn groups_of(&self, sub_cluster: &SubCluster) -> Vec<Arc<FailoverGroup>> {
        let (namespace, name) = (sub_cluster.namespace(), sub_cluster.name_any());
        sorted(
            self.stores.groups.state_filter(|group| group.namespace() == namespace && group.spec.sub_cluster == name),
        )
    }

    /// All Server objects of the sub-cluster, by name.
    pub(crate) fn servers_of(&self, sub_cluster: &SubCluster) -> Vec<Arc<Server>> {
        let (namespace, name) = (sub_cluster.namespace(), sub_cluster.name_any());
        sorted(
            self.stores
                .servers
                .state_filter(|server| server.namespace() == namespace && server.spec.sub_cluster == name),
        )
    }

    /// All Server objects of the namespace of `object`, by name.
    pub(crate) fn servers_beside<O: Resource>(&self, object: &O) -> Vec<Arc<Server>> {
        sorted(self.stores.servers.state_filter(|server| server.meta().namespace == object.meta().namespace))
    }

    /// All data services of the namespace of `object`, by name.
    pub(crate) fn services_beside<O: Resource>(&self, object: &O) -> Vec<Arc<DataService>> {
        sorted(self.stores.data_services.state_filter(|service| service.meta().namespace == object.meta().namespace))
    }

    /// All sub-clusters that name the super-cluster, by namespace and name.
    pub(crate) fn sub_clusters_of(&self, super_cluster: &SuperCluster) -> Vec<Arc<SubCluster>> {
        sorted(
            self.stores
                .sub_clusters
                .state_filter(|sub| super_cluster_of(sub) == Some(ObjectRef::from_obj(super_cluster))),
        )
    }

    /// The Operations on one group, oldest first.
    pub(crate) fn operations_on(&self, group: &FailoverGroup) -> Vec<Arc<Operation>> {
        let (namespace, name) = (group.namespace(), group.name_any());
        let mut operations = self.stores.operations.state_filter(|operation| {
            operation.namespace() == namespace
                && operation.spec.target.kind == TargetKind::FailoverGroup
                && operation.spec.target.name == name
        });
        operations.sort_by_key(|operation| age_order(operation.as_ref()));
        operations
    }

    /// The running Operations that want failures of a group forgotten, oldest first: on the group, or on one of its servers.
    pub(crate) fn clears_of(&self, group: &FailoverGroup) -> Vec<Arc<Operation>> {
        let (namespace, name) = (group.namespace(), group.name_any());
        let mut operations = self.stores.operations.state_filter(|operation| {
            let target = &operation.spec.target;
            let about = match target.kind {
                TargetKind::FailoverGroup => target.name == name,
                TargetKind::Server => {
                    target.name.rsplit_once('.').is_some_and(|(sub, _)| sub == group.spec.sub_cluster)
                }
                _ => false,
            };
            about && operation.namespace() == namespace && clear_failures::asks(operation, group)
        });
        operations.sort_by_key(|operation| age_order(operation.as_ref()));
        operations
    }

    /// The running Operations that want a group paused or resumed, oldest first: on the group, or on what it is part of.
    pub(crate) fn pauses_of(&self, group: &FailoverGroup) -> Vec<Arc<Operation>> {
        let namespace = group.namespace();
        let mut operations = self
            .stores
            .operations
            .state_filter(|operation| operation.namespace() == namespace && pause::asks(operation, group));
        operations.sort_by_key(|operation| age_order(operation.as_ref()));
        operations
    }

    /// The Operations on groups of one sub-cluster that are not over.
    pub(crate) fn unfinished_operations_in(&self, sub_cluster: &SubCluster) -> Vec<Arc<Operation>> {
        let (namespace, name) = (sub_cluster.namespace(), sub_cluster.name_any());
        let open = self.stores.operations.state_filter(|operation| {
            let phase = operation.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
            operation.namespace() == namespace
                && operation.spec.target.kind == TargetKind::FailoverGroup
                && !is_final(phase)
        });
        let of_it = |operation: &Arc<Operation>| {
            let group = self.group(namespace.as_deref(), &operation.spec.target.name);
            group.is_some_and(|group| group.spec.sub_cluster == name)
        };
        open.into_iter().filter(of_it).collect()
    }

    /// Claims that this process has accepted; whoever changes them holds the lock from the decision to the entry.
    pub(crate) fn accepted_claims(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.accepted_claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the keys were last looked at, by uid of the sub-cluster.
    pub(crate) fn keys_seen(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.keys_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the steps of an Operation began, as far as this process saw it.
    pub(crate) fn steps_began(&self, uid: &str) -> BTreeMap<String, Timestamp> {
        let all = self.steps_began.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).cloned().unwrap_or_default()
    }

    /// Remembers the steps that run now and did not before.
    pub(crate) fn remember_steps(&self, uid: &str, status: &OperationStatus, now: Timestamp) {
        // One that began in an earlier second was begun before this process looked.
        let fresh = |step: &&OperationStep| {
            let start = step.start_time.as_ref().map(|time| time.0.as_second());
            step.state == StepState::Running && start == Some(now.as_second())
        };
        for step in status.steps.iter().filter(fresh) {
            let mut all = self.steps_began.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(uid.to_string()).or_default().entry(step.name.clone()).or_insert(now);
        }
    }

    /// Forgets an Operation that is over.
    pub(crate) fn forget_steps(&self, uid: &str) {
        self.steps_began.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The super-cluster that a sub-cluster names, in the namespace that it means.
pub(crate) fn super_cluster_of(sub_cluster: &SubCluster) -> Option<ObjectRef<SuperCluster>> {
    let reference = sub_cluster.spec.super_cluster.as_ref()?;
    let namespace = reference.namespace.clone().or_else(|| sub_cluster.namespace())?;
    Some(ObjectRef::new(&reference.name).within(&namespace))
}

/// Sorts by age; objects of the same second by namespace and name, so that every process sees the same order.
pub(crate) fn age_order<K: Resource>(object: &K) -> (Option<Timestamp>, Option<String>, String) {
    let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
    (created, object.meta().namespace.clone(), object.name_any())
}

fn sorted<K: Resource>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_key(|object| (object.meta().namespace.clone(), object.name_any()));
    objects
}
