//! What the controller measures, for Prometheus: its own work, and the state of everything that it watches, so that one
//! place to ask is enough for alerts. Only the controller that leads shows the state; what it shows may be as old as its watches.

use std::sync::{Arc, Weak};
use std::time::Instant;

use holdfast_api::v1::OperationPhase;
use holdfast_telemetry::described;
use holdfast_telemetry::metrics::{Counters, Gauges, Histograms, Metrics, Sample};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};

use crate::context::Context;

described! {
    /// All that a controller measures.
    LEADER Gauge "holdfast_controller_leader" [] "1 on the controller that acts, 0 on one that stands by.";
    RECONCILES Counter "holdfast_controller_reconciles_total" ["kind", "result"]
        "Objects that were looked at; result is success or error.";
    TOOK Histogram "holdfast_controller_reconcile_seconds" ["kind"] "Time of one look, in seconds.";
    CONDITION Gauge "holdfast_condition" ["kind", "namespace", "name", "condition"]
        "1 if the condition of the object is True, 0 if it is False, -1 if it is Unknown.";
    GROUP Gauge "holdfast_group_phase" ["namespace", "sub_cluster", "group", "server", "phase"]
        "1 for the phase of each group and the server that has it.";
    SUB_CLUSTER Gauge "holdfast_sub_cluster_phase" ["namespace", "sub_cluster", "phase"] "1 for the phase of each sub-cluster.";
    MEMBERS Gauge "holdfast_sub_cluster_members" ["namespace", "sub_cluster"] "Servers in the view of each sub-cluster.";
    RECOMMENDED Gauge "holdfast_sub_cluster_recommended_timeout_seconds" ["namespace", "sub_cluster"]
        "Shortest heartbeat timeout that the gaps measured on the paths allow, in seconds.";
    TIMEOUT Gauge "holdfast_sub_cluster_timeout_seconds" ["namespace", "sub_cluster"]
        "The heartbeat timeout that is declared, in seconds.";
    REPORTED Gauge "holdfast_server_report_timestamp_seconds" ["namespace", "server"]
        "When each server's agent last reported, in seconds since 1970.";
    ATTENTION Gauge "holdfast_attention" ["namespace", "super_cluster"] "What needs a person, per super-cluster; at most 50.";
    OPERATIONS Gauge "holdfast_operations" ["type", "phase"] "Operations by type and phase.";
}

/// Upper bounds of the histogram, in seconds.
const BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// What is counted as it happens.
#[derive(Clone)]
pub(crate) struct Measured {
    leader: Gauges,
    reconciles: Counters,
    took: Histograms,
}

impl Measured {
    /// Registered with the metrics of the process.
    pub(crate) fn new(all: &Metrics) -> Measured {
        let leader = all.gauges(&LEADER);
        leader.get_or_create(&Vec::new()).set(0);
        Measured { leader, reconciles: all.counters(&RECONCILES), took: all.histograms(&TOOK, BOUNDS) }
    }

    /// Whether this controller acts.
    pub(crate) fn leads(&self, leads: bool) {
        self.leader.get_or_create(&Vec::new()).set(i64::from(leads));
    }

    /// Notes a look at an object.
    pub(crate) fn looked(&self, kind: &str, begun: Instant, good: bool) {
        let kind = ("kind", kind.to_owned());
        self.took.get_or_create(&vec![kind.clone()]).observe(begun.elapsed().as_secs_f64());
        let result = if good { "success" } else { "error" };
        self.reconciles.get_or_create(&vec![kind, ("result", result.to_owned())]).inc();
    }
}

/// The state that a leading controller shows, for as long as it leads.
pub(crate) fn samples(context: &Weak<Context>) -> Vec<Sample> {
    context.upgrade().map(|context| of_stores(&context)).unwrap_or_default()
}

fn of_stores(context: &Arc<Context>) -> Vec<Sample> {
    let stores = &context.stores;
    let mut samples = Vec::new();
    for sub in stores.sub_clusters.state() {
        let (namespace, name) = (sub.namespace().unwrap_or_default(), sub.name_any());
        let labels = [namespace.as_str(), name.as_str()];
        samples.push(Sample::new(&TIMEOUT, &labels, sub.spec.heartbeat.timeout.get().as_secs_f64()));
        let Some(status) = &sub.status else { continue };
        conditions(&mut samples, sub.as_ref(), &status.conditions);
        let phase = status.phase.unwrap_or_default();
        samples.push(Sample::new(&SUB_CLUSTER, &[labels[0], labels[1], phase.as_str()], 1.0));
        let members = status.view.as_ref().map_or(0, |view| view.members.len());
        samples.push(Sample::new(&MEMBERS, &labels, members as f64));
        let recommended = status.timing.as_ref().and_then(|timing| timing.recommended_timeout.as_ref());
        samples.extend(recommended.map(|time| Sample::new(&RECOMMENDED, &labels, time.get().as_secs_f64())));
    }
    for group in stores.groups.state() {
        let Some(status) = &group.status else { continue };
        conditions(&mut samples, group.as_ref(), &status.conditions);
        let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
        let phase = status.phase.unwrap_or_default();
        let server = status.server.as_deref().unwrap_or_default();
        let labels = [namespace.as_str(), &group.spec.sub_cluster, &name, server, phase.as_str()];
        samples.push(Sample::new(&GROUP, &labels, 1.0));
    }
    for server in stores.servers.state() {
        let Some(status) = &server.status else { continue };
        conditions(&mut samples, server.as_ref(), &status.conditions);
        let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
        let reported = status.report_time.as_ref().map(|time| time.0.as_second() as f64);
        samples.extend(reported.map(|time| Sample::new(&REPORTED, &[&namespace, &name], time)));
    }
    for super_cluster in stores.super_clusters.state() {
        let Some(status) = &super_cluster.status else { continue };
        conditions(&mut samples, super_cluster.as_ref(), &status.conditions);
        let (namespace, name) = (super_cluster.namespace().unwrap_or_default(), super_cluster.name_any());
        samples.push(Sample::new(&ATTENTION, &[&namespace, &name], status.attention.len() as f64));
    }
    let mut operations = std::collections::BTreeMap::<_, u32>::new();
    for operation in stores.operations.state() {
        let phase = operation.status.as_ref().and_then(|status| status.phase).unwrap_or(OperationPhase::Pending);
        *operations.entry((operation.spec.type_.as_str(), phase.as_str())).or_default() += 1;
    }
    let counted =
        operations.into_iter().map(|((of, phase), count)| Sample::new(&OPERATIONS, &[of, phase], count.into()));
    samples.extend(counted);
    samples
}

fn conditions<K: Resource<DynamicType = ()>>(samples: &mut Vec<Sample>, object: &K, conditions: &[Condition]) {
    let (kind, namespace, name) = (K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
    for condition in conditions {
        let value = match condition.status.as_str() {
            "True" => 1.0,
            "False" => 0.0,
            _ => -1.0,
        };
        samples.push(Sample::new(&CONDITION, &[&kind, &namespace, &name, &condition.type_], value));
    }
}
