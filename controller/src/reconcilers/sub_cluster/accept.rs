//! Whether a SubCluster is accepted: its own timing, what this version carries out, the super-cluster that it names, and
//! that nothing changes which can't change while it is formed, or not yet.

use holdfast_api::reasons::accepted;
use holdfast_api::v1::{
    FailoverGroup, GuaranteeLevel, MAX_SUB_CLUSTERS, SubCluster, SubClusterSpec, SubClusterState, SuperCluster,
    WatchdogMode,
};
use holdfast_api::{support, timing, validation};
use kube::ResourceExt;

use super::super::{Rejection, list};
use super::structure::{changed, from_text, is_formed, parts};
use crate::context::super_cluster_of;

/// What the verdict depends on.
pub(crate) struct Facts<'a> {
    /// The object.
    pub(crate) sub_cluster: &'a SubCluster,
    /// The super-cluster that it names, if that exists.
    pub(crate) super_cluster: Option<&'a SuperCluster>,
    /// How many older sub-clusters the super-cluster has.
    pub(crate) older: usize,
    /// Names of its servers that are members now, as they report.
    pub(crate) members: &'a [String],
    /// Its groups that were accepted.
    pub(crate) groups: &'a [&'a FailoverGroup],
}

/// The verdict.
pub(crate) fn accept(facts: &Facts<'_>) -> Result<(), Rejection> {
    let spec = &facts.sub_cluster.spec;
    if super_cluster_of(facts.sub_cluster).is_some() {
        in_super_cluster(facts)?;
    }
    let unsupported = support::unsupported_sub_cluster(spec);
    if !unsupported.is_empty() {
        let fields: Vec<String> = unsupported.iter().map(ToString::to_string).collect();
        return Err(Rejection::new(accepted::UNSUPPORTED_BY_SERVER, fields.join("; ")));
    }
    sound_timing(spec)?;
    let lines: Vec<String> = validation::validate_serial_lines(spec).iter().map(ToString::to_string).collect();
    if !lines.is_empty() {
        return Err(Rejection::new(accepted::INVALID_PATH, lines.join("; ")));
    }
    fits_lock_disk(spec)?;
    independent_quorum_server(facts)?;
    let fencing: Vec<String> = validation::validate_fencing(spec).iter().map(ToString::to_string).collect();
    if !fencing.is_empty() {
        return Err(Rejection::new(accepted::FENCING_INVALID, fencing.join("; ")));
    }
    let monitors: Vec<String> = validation::validate_server_monitors(spec).iter().map(ToString::to_string).collect();
    if !monitors.is_empty() {
        return Err(Rejection::new(accepted::MONITOR_INVALID, monitors.join("; ")));
    }
    unchanged(facts.sub_cluster)?;
    no_member_removed(facts)
}

/// Most bytes of all path names together with a lock disk: two views have to fit one block there.
const PATH_NAMES: usize = 400;

fn fits_lock_disk(spec: &SubClusterSpec) -> Result<(), Rejection> {
    let bytes: usize = spec.heartbeat.paths.iter().map(|path| path.name.len()).sum();
    if spec.quorum.lock_disk.is_none() || bytes <= PATH_NAMES {
        return Ok(());
    }
    let message = format!(
        "spec.heartbeat.paths: their names have {bytes} bytes together; with a lock disk at most {PATH_NAMES}, because the \
         view that names them has to fit one of its blocks. Give shorter names"
    );
    Err(Rejection::new(accepted::INVALID_PATH, message))
}

/// A server that is a member keeps its place: taking it away would be a stop that nobody asked for. The members would not
/// do it either (R21); here it is said at once.
fn no_member_removed(facts: &Facts<'_>) -> Result<(), Rejection> {
    let kept = |name: &&String| facts.sub_cluster.spec.servers.iter().any(|server| server.name == **name);
    let removed: Vec<String> = facts.members.iter().filter(|name| !kept(name)).cloned().collect();
    if removed.is_empty() || !is_formed(facts.sub_cluster) {
        return Ok(());
    }
    let message = format!(
        "spec.servers: {} can't be removed while it is a member; detach it or stop its agent first (its groups move), then \
         this is accepted",
        list(&removed)
    );
    Err(Rejection::new(accepted::UNSUPPORTED_BY_SERVER, message))
}

/// A quorum server that the sub-cluster carries is away when it is needed (protocol-why D14).
fn independent_quorum_server(facts: &Facts<'_>) -> Result<(), Rejection> {
    let spec = &facts.sub_cluster.spec;
    let own = validation::quorum_server(spec).into_iter().map(|error| error.to_string());
    let groups = facts.groups.iter().filter_map(|group| {
        let problem = validation::quorum_server_of_group(spec, &group.spec)?;
        Some(format!("spec.quorum.quorumServer.urls: group {}: {problem}", group.name_any()))
    });
    let all: Vec<String> = own.chain(groups).collect();
    if all.is_empty() { Ok(()) } else { Err(Rejection::new(accepted::DEPENDENCY_CYCLE, all.join("; "))) }
}

/// Every inequality, for each of the watchdogs that servers may turn out to have.
fn sound_timing(spec: &SubClusterSpec) -> Result<(), Rejection> {
    let given = Some(spec.watchdog.timeout.get());
    let watchdogs = match spec.watchdog.mode {
        WatchdogMode::Disabled => vec![None],
        WatchdogMode::Required => vec![given],
        WatchdogMode::IfPresent => vec![given, None],
    };
    let mut errors: Vec<String> = Vec::new();
    for watchdog in watchdogs {
        let found = timing::Timing::of(spec, watchdog).err().unwrap_or_default();
        let new = found.iter().map(ToString::to_string).filter(|text| !errors.contains(text)).collect::<Vec<_>>();
        errors.extend(new);
    }
    if errors.is_empty() { Ok(()) } else { Err(Rejection::new(accepted::TIMING_INEQUALITY, errors.join("; "))) }
}

fn in_super_cluster(facts: &Facts<'_>) -> Result<(), Rejection> {
    let (sub, spec) = (facts.sub_cluster, &facts.sub_cluster.spec);
    let reference = super_cluster_of(sub).map(|reference| reference.to_string()).unwrap_or_default();
    let Some(super_cluster) = facts.super_cluster else {
        let message =
            format!("spec.superCluster: {reference} does not exist; create it, or correct name and namespace");
        return Err(Rejection::new(accepted::NOT_FOUND, message));
    };
    let above = super_cluster.name_any();
    let namespace = sub.namespace().unwrap_or_default();
    if !allows_namespace(super_cluster, &namespace) {
        let own = super_cluster.namespace().unwrap_or_default();
        let allowed = match super_cluster.spec.allowed_namespaces.as_slice() {
            [] => own,
            names => list(names),
        };
        let message = format!(
            "namespace {namespace}: super-cluster {above} allows {allowed}; add {namespace} to its spec.allowedNamespaces"
        );
        return Err(Rejection::new(accepted::NAMESPACE_NOT_ALLOWED, message));
    }
    if facts.older >= MAX_SUB_CLUSTERS {
        let message = format!(
            "super-cluster {above} already has {} older sub-clusters and may have {MAX_SUB_CLUSTERS}; name another \
             super-cluster in spec.superCluster, or delete a sub-cluster",
            facts.older
        );
        return Err(Rejection::new(accepted::TOO_MANY_SUB_CLUSTERS, message));
    }
    let is_master = super_cluster.namespace() == sub.namespace()
        && super_cluster.spec.master.as_ref().is_some_and(|master| master.sub_cluster == sub.name_any());
    if is_master && spec.state == SubClusterState::Stopped {
        let message = format!(
            "spec.state is Stopped: this is the master of super-cluster {above} and runs the control plane; name another \
             sub-cluster in its spec.master first"
        );
        return Err(Rejection::new(accepted::MASTER_CANNOT_STOP, message));
    }
    let broken = broken_policy(super_cluster, sub);
    if !broken.is_empty() {
        return Err(Rejection::new(accepted::POLICY_VIOLATION, broken.join("; ")));
    }
    Ok(())
}

/// Whether sub-clusters of the namespace may join.
pub(crate) fn allows_namespace(super_cluster: &SuperCluster, namespace: &str) -> bool {
    match super_cluster.spec.allowed_namespaces.as_slice() {
        [] => super_cluster.namespace().as_deref() == Some(namespace),
        names => names.iter().any(|name| name == namespace || name == "*"),
    }
}

/// Every guard rail that the sub-cluster breaks.
fn broken_policy(super_cluster: &SuperCluster, sub: &SubCluster) -> Vec<String> {
    let (policy, spec, above) = (&super_cluster.spec.policy, &sub.spec, super_cluster.name_any());
    let mut broken = Vec::new();
    let paths = spec.heartbeat.paths.len();
    if paths < usize::from(policy.minimum_paths) {
        broken.push(format!(
            "spec.heartbeat.paths: {paths} given, super-cluster {above} demands at least {}; add a path of another kind",
            policy.minimum_paths
        ));
    }
    let timeout = &spec.heartbeat.timeout;
    let allowed = &policy.timeout;
    if *timeout < allowed.min || *timeout > allowed.max {
        broken.push(format!(
            "spec.heartbeat.timeout: {timeout}, super-cluster {above} allows {}..{}",
            allowed.min, allowed.max
        ));
    }
    // Without a watchdog the guarantee can't be Full in this version; whether a device is there shows in the status.
    if policy.minimum_guarantee == GuaranteeLevel::Full && spec.watchdog.mode == WatchdogMode::Disabled {
        broken.push(format!(
            "spec.watchdog.mode: Disabled gives guarantee UserSpace, super-cluster {above} demands Full; set Required"
        ));
    }
    broken
}

/// A formed sub-cluster keeps its structure.
fn unchanged(sub: &SubCluster) -> Result<(), Rejection> {
    let accepted_digest = sub.status.as_ref().and_then(|status| status.accepted_digest.as_deref());
    let (true, Some(text)) = (is_formed(sub), accepted_digest) else { return Ok(()) };
    let changed = changed(&from_text(text), &parts(&sub.spec));
    if changed.is_empty() {
        return Ok(());
    }
    let fields: Vec<String> = changed.iter().map(|part| format!("spec.{part}")).collect();
    let message = format!(
        "{}: this version can't change {} of a sub-cluster that has formed; what was accepted before stays in force. Put the \
         old value back (a new heartbeat key: an Operation of type RotateKey), or delete the sub-cluster and create it anew",
        list(&fields),
        if fields.len() == 1 { "it" } else { "them" },
    );
    Err(Rejection::new(accepted::UNSUPPORTED_BY_SERVER, message))
}

#[cfg(test)]
mod tests {
    use holdfast_api::v1::{AdvancedTiming, ObjectReference, SubClusterPhase};

    use super::super::structure::to_text;
    use super::super::tests::{sub_cluster, super_cluster};
    use super::*;

    fn verdict(sub: &SubCluster, above: Option<&SuperCluster>, older: usize) -> Result<(), (&'static str, String)> {
        accept(&Facts { sub_cluster: sub, super_cluster: above, older, members: &[], groups: &[] })
            .map_err(|r| (r.reason, r.message))
    }

    fn within(mut sub: SubCluster, name: &str) -> SubCluster {
        sub.spec.super_cluster = Some(ObjectReference { name: name.into(), namespace: None });
        sub
    }

    #[test]
    fn a_sound_sub_cluster_needs_no_super_cluster() {
        assert_eq!(verdict(&sub_cluster("db"), None, 0), Ok(()));
    }

    #[test]
    fn a_lease_that_is_too_short_shows_both_sides() {
        let mut sub = sub_cluster("db");
        sub.spec.heartbeat.advanced =
            Some(AdvancedTiming { lease: Some("300ms".parse().unwrap()), ..AdvancedTiming::default() });
        let (reason, message) = verdict(&sub, None, 0).unwrap_err();
        assert_eq!(reason, "TimingInequality");
        assert!(
            message.contains("spec.heartbeat.advanced.lease") && message.contains("300ms is less than"),
            "{message}"
        );
    }

    #[test]
    fn the_super_cluster_decides_who_belongs_to_it() {
        let sub = within(sub_cluster("db"), "bank");
        assert_eq!(verdict(&sub, None, 0).unwrap_err().0, "NotFound");
        let mut bank = super_cluster("bank");
        assert_eq!(verdict(&sub, Some(&bank), 127), Ok(()));
        let (reason, message) = verdict(&sub, Some(&bank), 128).unwrap_err();
        assert_eq!(reason, "TooManySubClusters");
        assert!(message.contains("128"), "{message}");
        bank.spec.allowed_namespaces = vec!["payments".into()];
        let (reason, message) = verdict(&sub, Some(&bank), 0).unwrap_err();
        assert_eq!(reason, "NamespaceNotAllowed");
        assert!(message.contains("namespace ha") && message.contains("allows payments"), "{message}");
        bank.spec.allowed_namespaces = vec!["*".into()];
        assert_eq!(verdict(&sub, Some(&bank), 0), Ok(()));
    }

    #[test]
    fn every_broken_guard_rail_is_named() {
        let mut sub = within(sub_cluster("db"), "bank");
        sub.spec.heartbeat.paths.truncate(1);
        sub.spec.watchdog.mode = WatchdogMode::Disabled;
        let mut bank = super_cluster("bank");
        bank.spec.policy.timeout.min = "2s".parse().unwrap();
        bank.spec.policy.minimum_guarantee = GuaranteeLevel::Full;
        let (reason, message) = verdict(&sub, Some(&bank), 0).unwrap_err();
        assert_eq!(reason, "PolicyViolation");
        for part in ["spec.heartbeat.paths: 1 given", "spec.heartbeat.timeout: 1s", "2s..300s", "spec.watchdog.mode"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[test]
    fn only_the_master_cannot_be_stopped() {
        let mut sub = within(sub_cluster("master"), "bank");
        sub.spec.state = SubClusterState::Stopped;
        assert_eq!(verdict(&sub, Some(&super_cluster("bank")), 0).unwrap_err().0, "MasterCannotStop");
        sub.metadata.name = Some("db".into());
        assert_eq!(verdict(&sub, Some(&super_cluster("bank")), 0), Ok(()));
    }

    #[test]
    fn what_no_view_carries_stays_in_a_formed_sub_cluster() {
        let mut sub = sub_cluster("db");
        let digest = to_text(&parts(&sub.spec));
        sub.spec.watchdog.timeout = "9s".parse().unwrap();
        let status = sub.status.get_or_insert_default();
        status.accepted_digest = Some(digest);
        status.phase = Some(SubClusterPhase::Unformed);
        assert_eq!(
            verdict(&sub, None, 0).map_err(|(reason, _)| reason).err().filter(|r| *r == "UnsupportedByServer"),
            None
        );
        sub.status.as_mut().unwrap().phase = Some(SubClusterPhase::NoQuorum);
        sub.spec.watchdog.mode = WatchdogMode::Disabled;
        let (reason, message) = verdict(&sub, None, 0).unwrap_err();
        assert_eq!(reason, "UnsupportedByServer");
        assert!(message.starts_with("spec.watchdog: "), "{message}");
    }

    #[test]
    fn the_timeout_of_a_formed_sub_cluster_may_change() {
        let mut sub = sub_cluster("db");
        let digest = to_text(&parts(&sub.spec));
        sub.spec.heartbeat.timeout = "2s".parse().unwrap();
        let status = sub.status.get_or_insert_default();
        (status.accepted_digest, status.phase) = (Some(digest), Some(SubClusterPhase::Running));
        assert_eq!(verdict(&sub, None, 0), Ok(()));
    }

    #[test]
    fn a_member_is_not_removed_before_it_has_left() {
        let mut sub = sub_cluster("db");
        sub.status.get_or_insert_default().phase = Some(SubClusterPhase::Running);
        let members = ["db1".to_string(), "db3".to_string()];
        let facts = |members| Facts { sub_cluster: &sub, super_cluster: None, older: 0, members, groups: &[] };
        let refused = accept(&facts(&members)).unwrap_err();
        assert!(refused.message.starts_with("spec.servers: db3 can't be removed"), "{}", refused.message);
        assert!(accept(&facts(&members[..1])).is_ok());
    }

    #[test]
    fn names_that_no_block_of_a_lock_disk_takes_are_refused() {
        let mut sub = sub_cluster("db");
        sub.spec.heartbeat.paths[0].name = "x".repeat(400);
        let (reason, message) = verdict(&sub, None, 0).unwrap_err();
        assert!(reason == "InvalidPath" && message.contains("at most 400"), "{message}");
    }
}
