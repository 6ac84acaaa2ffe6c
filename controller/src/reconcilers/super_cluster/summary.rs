//! Everything below a super-cluster in numbers, its health, and where its control plane runs.

use holdfast_api::conditions;
use holdfast_api::reasons::{accepted, condition, ready};
use holdfast_api::v1::{
    FailoverGroup, GroupCounts, GroupPhase, GroupState, Health, ManagementServer, Server, ServerCounts,
    ServerDeclaredState, ServerState, SubCluster, SubClusterCounts, SubClusterPhase, SuperCluster,
};
use kube::ResourceExt;

/// One sub-cluster with everything in it.
#[derive(Clone)]
pub(crate) struct Below<'a> {
    /// The sub-cluster.
    pub(crate) sub_cluster: &'a SubCluster,
    /// Its Server objects.
    pub(crate) servers: Vec<&'a Server>,
    /// Its groups.
    pub(crate) groups: Vec<&'a FailoverGroup>,
}

/// What a sub-cluster counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// As declared.
    Ready,
    /// It works, with something lost.
    Degraded,
    /// It does not work, or nobody reports.
    Down,
    /// It was never accepted.
    Rejected,
}

/// The state that a server has for its sub-cluster; its own word counts only while it is a member.
pub(crate) fn server_state(below: &Below<'_>, name: &str) -> ServerState {
    let status = below.sub_cluster.status.as_ref();
    let member = status.and_then(|status| status.members.iter().find(|member| member.name == name));
    member.map_or(ServerState::Unknown, |member| member.state)
}

/// What the sub-cluster counts as.
pub(crate) fn state(below: &Below<'_>) -> State {
    let sub = below.sub_cluster;
    let Some(status) = &sub.status else { return State::Down };
    let refused = conditions::get(&status.conditions, condition::ACCEPTED).is_some_and(|c| c.status == "False");
    // A refused change leaves what was accepted before running.
    if refused && status.accepted_digest.is_none() {
        return State::Rejected;
    }
    let works = matches!(status.phase, Some(SubClusterPhase::Running | SubClusterPhase::Stopped));
    if !works || !conditions::is_true(&status.conditions, condition::AGENT_REPORTING) {
        return State::Down;
    }
    let active = |declared: ServerDeclaredState, name: &str| {
        declared == ServerDeclaredState::Detached || server_state(below, name) == ServerState::Active
    };
    let whole = sub.spec.servers.iter().all(|server| active(server.state, &server.name));
    let ready = conditions::get(&status.conditions, condition::READY).is_none_or(|ready| ready.status == "True");
    if whole && ready && !refused { State::Ready } else { State::Degraded }
}

/// The sums.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) sub_clusters: SubClusterCounts,
    pub(crate) servers: ServerCounts,
    pub(crate) groups: GroupCounts,
    pub(crate) health: Health,
    /// Reason and message of the condition Ready, when it is not True.
    pub(crate) trouble: Option<(&'static str, String)>,
}

/// Adds everything up.
pub(crate) fn summary(all: &[Below<'_>]) -> Summary {
    let mut sum = Summary::default();
    let (mut silent, mut not_online) = (0, 0);
    for below in all {
        sum.sub_clusters.total += 1;
        match state(below) {
            State::Ready => sum.sub_clusters.ready += 1,
            State::Degraded => sum.sub_clusters.degraded += 1,
            State::Down => sum.sub_clusters.down += 1,
            State::Rejected => sum.sub_clusters.rejected += 1,
        }
        let conditions = below.sub_cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        silent += u32::from(!conditions::is_true(conditions, condition::AGENT_REPORTING));
        for server in &below.sub_cluster.spec.servers {
            sum.servers.total += 1;
            match server_state(below, &server.name) {
                ServerState::Active => sum.servers.active += 1,
                ServerState::Detached => sum.servers.detached += 1,
                ServerState::Lost => sum.servers.lost += 1,
                _ => {}
            }
        }
        for group in &below.groups {
            sum.groups.total += 1;
            let status = group.status.clone().unwrap_or_default();
            let wanted = group.spec.state == GroupState::Online;
            not_online += u32::from(wanted && status.phase != Some(GroupPhase::Online));
            match status.phase {
                Some(GroupPhase::Online) => sum.groups.online += 1,
                Some(GroupPhase::Offline) => sum.groups.offline += 1,
                Some(GroupPhase::Failed | GroupPhase::Stuck) => sum.groups.failed += 1,
                _ => {}
            }
            sum.groups.held += u32::from(!status.holds.is_empty());
        }
    }
    let (subs, groups) = (&sum.sub_clusters, &sum.groups);
    (sum.health, sum.trouble) = if subs.total == silent {
        let message = if subs.total == 0 { "no sub-cluster names this super-cluster" } else { "no agent reports" };
        (Health::Unknown, Some((ready::UNREPORTED, message.to_string())))
    } else if subs.down > 0 {
        (
            Health::Critical,
            Some((
                ready::NO_QUORUM,
                format!("{} of {} sub-clusters do not work or do not report", subs.down, subs.total),
            )),
        )
    } else if groups.failed > 0 {
        (
            Health::Critical,
            Some((ready::RESOURCE_FAILED, format!("{} of {} groups failed", groups.failed, groups.total))),
        )
    } else if sum.servers.lost > 0 {
        (
            Health::Degraded,
            Some((ready::SERVER_LOST, format!("{} of {} servers are lost", sum.servers.lost, sum.servers.total))),
        )
    } else if subs.rejected > 0 {
        (
            Health::Degraded,
            Some(("Rejected", format!("{} of {} sub-clusters are not accepted", subs.rejected, subs.total))),
        )
    } else if subs.degraded > 0 {
        (Health::Degraded, Some(("Degraded", format!("{} of {} sub-clusters are degraded", subs.degraded, subs.total))))
    } else if not_online > 0 {
        let message = format!("{not_online} of {} groups are declared Online and are not online", groups.total);
        (Health::Degraded, Some((if groups.held > 0 { ready::HELD } else { ready::STARTING }, message)))
    } else {
        (Health::Healthy, None)
    };
    sum
}

/// The server that runs the control plane, if the master group runs.
pub(crate) fn management_server(super_cluster: &SuperCluster, all: &[Below<'_>]) -> Option<ManagementServer> {
    let master = super_cluster.spec.master.as_ref()?;
    let group = master_group(super_cluster, all)?;
    let status = group.status.as_ref().filter(|status| status.phase == Some(GroupPhase::Online))?;
    Some(ManagementServer {
        sub_cluster: master.sub_cluster.clone(),
        server: status.server.clone()?,
        since: status.since.clone(),
    })
}

fn master_group<'a>(super_cluster: &SuperCluster, all: &[Below<'a>]) -> Option<&'a FailoverGroup> {
    let master = super_cluster.spec.master.as_ref()?;
    let home = all.iter().find(|below| {
        let sub = below.sub_cluster;
        sub.name_any() == master.sub_cluster && sub.namespace() == super_cluster.namespace()
    })?;
    home.groups.iter().find(|group| group.name_any() == master.group).copied()
}

/// Why there is no usable master: reason and message of the condition MasterMissing.
pub(crate) fn master_missing(super_cluster: &SuperCluster, all: &[Below<'_>]) -> Option<(&'static str, String)> {
    let Some(master) = &super_cluster.spec.master else {
        let message =
            "spec.master is not given: this super-cluster does not run its own control plane highly available";
        return Some((condition::MASTER_MISSING, message.into()));
    };
    if master_group(super_cluster, all).is_some() {
        return None;
    }
    let message = format!(
        "spec.master: there is no group {} in a sub-cluster {} of this super-cluster in namespace {}",
        master.group,
        master.sub_cluster,
        super_cluster.namespace().unwrap_or_default()
    );
    Some((accepted::NOT_FOUND, message))
}
