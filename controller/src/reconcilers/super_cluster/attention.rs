//! What needs a human, worst first: one list for a whole super-cluster, short enough to read.

use holdfast_api::reasons::{condition, ready};
use holdfast_api::v1::{Attention, GroupPhase, GroupState, GuaranteeLevel, ServerState, SubClusterPhase, SuperCluster};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Resource, ResourceExt};

use super::super::reporting::SILENT;
use super::summary::{Below, server_state};

/// At most so many entries.
const MAX: usize = 50;

/// How bad it is; the first is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// Service is lost, or may be lost at the next failure without a chance to take over.
    Critical,
    /// Service goes on with less than was declared.
    Degraded,
    /// Somebody asked for something that is not done.
    Refused,
}

/// The list.
pub(crate) fn attention(super_cluster: &SuperCluster, all: &[Below<'_>]) -> Vec<Attention> {
    let mut found = Vec::new();
    for below in all {
        sub_cluster(super_cluster, below, &mut found);
        servers(below, &mut found);
        groups(below, &mut found);
    }
    // Worst first, then the oldest, then by name: the same list until something changes.
    found.sort_by(|(a_severity, a), (b_severity, b)| {
        let key = |a: &Attention| {
            (a.since.as_ref().map(|since| since.0), a.kind.clone(), a.namespace.clone(), a.name.clone())
        };
        a_severity.cmp(b_severity).then_with(|| key(a).cmp(&key(b)))
    });
    found.into_iter().take(MAX).map(|(_, attention)| attention).collect()
}

type Found = Vec<(Severity, Attention)>;

fn entry<K: Resource<DynamicType = ()>>(object: &K, reason: &str, since: Option<Time>, message: &str) -> Attention {
    Attention {
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        reason: reason.to_string(),
        since,
        message: message.to_string(),
    }
}

/// A condition that has this state, as an entry.
fn from_condition<K: Resource<DynamicType = ()>>(
    object: &K,
    conditions: &[Condition],
    type_: &str,
    state: &str,
    severity: Severity,
) -> Option<(Severity, Attention)> {
    let condition = conditions.iter().find(|c| c.type_ == type_ && c.status == state)?;
    let since = Some(condition.last_transition_time.clone());
    Some((severity, entry(object, &condition.reason, since, &condition.message)))
}

fn sub_cluster(super_cluster: &SuperCluster, below: &Below<'_>, found: &mut Found) {
    let sub = below.sub_cluster;
    let status = sub.status.clone().unwrap_or_default();
    let c = &status.conditions;
    found.extend(from_condition(sub, c, condition::STALLED, "True", Severity::Critical));
    let silent = from_condition(sub, c, condition::AGENT_REPORTING, "False", Severity::Critical);
    let is_silent = silent.is_some();
    // Of one that was refused nobody expects a report.
    let refused = from_condition(sub, c, condition::ACCEPTED, "False", Severity::Refused);
    if refused.is_none() || status.accepted_digest.is_some() {
        found.extend(silent);
    }
    found.extend(refused);
    if !is_silent {
        found.extend(from_condition(sub, c, condition::LOCK_REACHABLE, "False", Severity::Degraded));
    }
    if status.phase == Some(SubClusterPhase::NoQuorum) && !is_silent {
        let since = status.view.as_ref().and_then(|view| view.since.clone());
        let message = "not enough servers see each other; nothing is started until they do";
        found.push((Severity::Critical, entry(sub, ready::NO_QUORUM, since, message)));
    }
    let wanted = super_cluster.spec.policy.minimum_guarantee;
    if let Some(guarantee) = &status.guarantee
        && wanted == GuaranteeLevel::Full
        && guarantee.level != GuaranteeLevel::Full
    {
        let message = format!("guarantee {} ({}), the super-cluster demands Full", guarantee.level, guarantee.message);
        found.push((Severity::Degraded, entry(sub, &guarantee.reason, None, &message)));
    }
}

fn servers(below: &Below<'_>, found: &mut Found) {
    for server in &below.servers {
        let status = server.status.clone().unwrap_or_default();
        let stalled = from_condition(*server, &status.conditions, condition::STALLED, "True", Severity::Degraded);
        if stalled.is_some() {
            found.extend(stalled);
            continue;
        }
        let state = server_state(below, &server.spec.server);
        let (reason, message) = match state {
            ServerState::Lost => {
                (ready::SERVER_LOST, "lost; its groups were taken over where that is possible".to_string())
            }
            ServerState::Partitioned | ServerState::Suspect => (state.as_str(), "cut off from the others".to_string()),
            // Its words may be old; that it is alive the others say.
            _ => {
                let c = &status.conditions;
                let silent = from_condition(*server, c, condition::AGENT_REPORTING, "False", Severity::Degraded);
                found.extend(silent.filter(|(_, attention)| attention.reason == SILENT));
                continue;
            }
        };
        let since = below.sub_cluster.status.as_ref().and_then(|status| status.view.as_ref()?.since.clone());
        found.push((Severity::Degraded, entry(*server, reason, since, &message)));
    }
}

fn groups(below: &Below<'_>, found: &mut Found) {
    for group in &below.groups {
        let status = group.status.clone().unwrap_or_default();
        let c = &status.conditions;
        found.extend(from_condition(*group, c, condition::ACCEPTED, "False", Severity::Refused));
        found.extend(from_condition(*group, c, condition::DELETION_BLOCKED, "True", Severity::Refused));
        let stalled = from_condition(*group, c, condition::STALLED, "True", Severity::Critical);
        if stalled.is_some() {
            found.extend(stalled);
            continue;
        }
        match status.phase {
            Some(GroupPhase::Failed | GroupPhase::Stuck | GroupPhase::Unknown) => {
                let ready = c.iter().find(|c| c.type_ == condition::READY && c.status == "False");
                let (reason, message) = ready.map_or((ready::RESOURCE_FAILED, ""), |c| (&c.reason, &c.message));
                found.push((Severity::Critical, entry(*group, reason, status.since.clone(), message)));
            }
            Some(GroupPhase::Offline) if group.spec.state == GroupState::Online => {
                let hold = status.holds.first();
                let (reason, message) = hold.map_or((ready::NO_SERVER_LEFT, "no server runs it"), |hold| {
                    (hold.type_.as_str(), hold.message.as_str())
                });
                let since = hold.and_then(|hold| hold.since.clone()).or(status.since.clone());
                let severity = if hold.is_some() { Severity::Refused } else { Severity::Critical };
                found.push((severity, entry(*group, reason, since, message)));
            }
            _ => {}
        }
    }
}
