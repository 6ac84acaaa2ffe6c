//! Whether a FailoverGroup is accepted: what this version carries out, names that must exist in the sub-cluster, an order
//! of resources that can be followed, and what the sub-cluster allows. Claims are in `claims.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_api::placement;
use holdfast_api::reasons::accepted;
use holdfast_api::support;
use holdfast_api::v1::{DataService, FailoverGroup, FailoverGroupSpec, Resource, SubCluster, SubClusterSpec};

use kube::ResourceExt;

use super::super::{Rejection, is_accepted, list};
use crate::context::age_order;

/// The verdict, but for claims.
pub(crate) fn accept(group: &FailoverGroup, sub_cluster: Option<&SubCluster>) -> Result<(), Rejection> {
    let spec = &group.spec;
    let unsupported = support::unsupported_group(spec);
    if !unsupported.is_empty() {
        let fields: Vec<String> = unsupported.iter().map(ToString::to_string).collect();
        return Err(Rejection::new(accepted::UNSUPPORTED_BY_SERVER, fields.join("; ")));
    }
    let wrong = holdfast_api::validation::validate_monitors(spec);
    if !wrong.is_empty() {
        let fields: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        return Err(Rejection::new(accepted::MONITOR_INVALID, fields.join("; ")));
    }
    let wrong = holdfast_api::validation::validate_data_services(spec);
    if !wrong.is_empty() {
        let fields: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        return Err(Rejection::new(accepted::UNKNOWN_DATA_SERVICE, fields.join("; ")));
    }
    let wrong = placement::validate(group);
    if !wrong.is_empty() {
        let fields: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        return Err(Rejection::new(accepted::PLACEMENT_INVALID, fields.join("; ")));
    }
    let Some(sub) = sub_cluster else {
        let message = format!("spec.subCluster: {} does not exist in this namespace; create it", spec.sub_cluster);
        return Err(Rejection::new(accepted::NOT_FOUND, message));
    };
    known_names(spec, &sub.spec)?;
    if let Some(cycle) = holdfast_api::validation::dependency_cycle(spec) {
        // The agents' own graph: stages and nested file systems count, not only what stands in dependsOn.
        let circle = format!("{} → {}", cycle.join(" → "), cycle.first().map_or("", String::as_str));
        let message = format!(
            "spec.resources: dependsOn goes in a circle: {circle}; take one of these out, or set stage where a resource \
             of an earlier stage depends on one of a later stage"
        );
        return Err(Rejection::new(accepted::DEPENDENCY_CYCLE, message));
    }
    if let Some(problem) = holdfast_api::validation::quorum_server_of_group(&sub.spec, spec) {
        return Err(Rejection::new(accepted::DEPENDENCY_CYCLE, format!("spec.resources: {problem}")));
    }
    allowed(spec, &sub.spec)
}

/// Whether the group may use the data services that it names. `find`: the one of this name in the group's namespace.
pub(crate) fn data_services(
    group: &FailoverGroup,
    sub: &SubCluster,
    find: impl Fn(&str) -> Option<Arc<DataService>>,
) -> Result<(), Rejection> {
    for resource in &group.spec.resources {
        let Some(named) = &resource.data_service else { continue };
        let (at, name) = (format!("{}.dataService.name", path(resource)), &named.name);
        let unknown = |problem: String| Err(Rejection::new(accepted::UNKNOWN_DATA_SERVICE, format!("{at}: {problem}")));
        let Some(service) = find(name).filter(|service| service.metadata.deletion_timestamp.is_none()) else {
            return unknown(format!("there is no DataService {name} in this namespace; create it"));
        };
        let (groups, own) = (&service.spec.groups, group.name_any());
        if !groups.is_empty() && !groups.contains(&own) {
            let message =
                format!("{at}: DataService {name} is for {} only; add {own} to its spec.groups", list(groups));
            return Err(Rejection::new(accepted::POLICY_VIOLATION, message));
        }
        let user = &service.spec.run_as.user;
        if !sub.spec.group_policy.run_as.iter().any(|allowed| allowed == "*" || allowed == user) {
            return Err(forbidden_user(&format!("{at}: DataService {name}"), user, &group.spec, &sub.spec));
        }
    }
    Ok(())
}

/// Groups that would wait for each other for ever. What is not accepted makes no circle for what is, and of two that were
/// accepted at once the older one stays: nobody's mistake takes the acceptance from a group that had it first.
pub(crate) fn order(group: &FailoverGroup, others: &[Arc<FailoverGroup>]) -> Result<(), Rejection> {
    let stands = |group: &FailoverGroup| {
        group.status.as_ref().is_some_and(|status| is_accepted(&status.conditions, &group.metadata))
    };
    let beside = |other: &&Arc<FailoverGroup>| {
        let beside = other.namespace() == group.namespace() && other.spec.sub_cluster == group.spec.sub_cluster;
        beside && stands(other) && (!stands(group) || age_order(other.as_ref()) < age_order(group))
    };
    let names: Vec<(String, &FailoverGroupSpec)> =
        others.iter().filter(beside).map(|other| (other.name_any(), &other.spec)).collect();
    let others: Vec<(&str, &FailoverGroupSpec)> = names.iter().map(|(name, spec)| (name.as_str(), *spec)).collect();
    let Some(circle) = placement::order_cycle(&group.name_any(), &group.spec, &others) else { return Ok(()) };
    let message = format!(
        "spec.placement.after goes in a circle: {} → {}; take one of these out",
        circle.join(" → "),
        group.name_any()
    );
    Err(Rejection::new(accepted::DEPENDENCY_CYCLE, message))
}

fn path(resource: &Resource) -> String {
    format!("spec.resources[name={}]", resource.name)
}

fn known_names(spec: &FailoverGroupSpec, sub: &SubClusterSpec) -> Result<(), Rejection> {
    let servers: Vec<&str> = sub.servers.iter().map(|server| server.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    for name in &spec.placement.servers {
        if !servers.contains(&name.as_str()) {
            let message = format!(
                "spec.placement.servers: sub-cluster {} has no server {name}; it has {}",
                spec.sub_cluster,
                list(&servers)
            );
            return Err(Rejection::new(accepted::UNKNOWN_SERVER, message));
        }
        if !seen.insert(name) {
            let message =
                format!("spec.placement.servers: {name} is given twice; give each server once, most preferred first");
            return Err(Rejection::new(accepted::UNKNOWN_SERVER, message));
        }
    }
    let disks: Vec<&str> = sub.disks.iter().map(|disk| disk.name.as_str()).collect();
    let lans: Vec<&str> =
        sub.heartbeat.paths.iter().filter(|path| path.lan.is_some()).map(|path| path.name.as_str()).collect();
    for resource in &spec.resources {
        let disk = resource.filesystem.as_ref().and_then(|filesystem| filesystem.disk.as_deref());
        let disk = disk.or(resource.volume_group.as_ref().and_then(|group| group.disk.as_deref()));
        if let Some(disk) = disk.filter(|disk| !disks.contains(disk)) {
            let has = if disks.is_empty() { "none".to_string() } else { list(&disks) };
            let message = format!(
                "{}.{}.disk: sub-cluster {} has no disk {disk}; it has {has}",
                path(resource),
                member(resource),
                spec.sub_cluster
            );
            return Err(Rejection::new(accepted::UNKNOWN_DISK, message));
        }
        let lan = resource.floating_ip.as_ref().and_then(|ip| ip.path.as_deref());
        if let Some(lan) = lan.filter(|lan| !lans.contains(lan)) {
            let message = format!(
                "{}.floatingIP.path: sub-cluster {} has no LAN path {lan}; it has {}",
                path(resource),
                spec.sub_cluster,
                list(&lans)
            );
            return Err(Rejection::new(accepted::NOT_FOUND, message));
        }
    }
    for monitor in &spec.monitors {
        let at = format!("spec.monitors[name={}]", monitor.name);
        if let Some(unknown) = holdfast_api::validation::unknown_place(monitor, sub, &at) {
            let reason = if monitor.disk_io.is_some() { accepted::UNKNOWN_DISK } else { accepted::NOT_FOUND };
            return Err(Rejection::new(reason, unknown.to_string()));
        }
    }
    Ok(())
}

/// What kind of resource it is, by the name of its member.
fn member(resource: &Resource) -> &'static str {
    let r = resource;
    let members = [
        ("filesystem", r.filesystem.is_some()),
        ("floatingIP", r.floating_ip.is_some()),
        ("virtualIP", r.virtual_ip.is_some()),
        ("script", r.script.is_some()),
        ("process", r.process.is_some()),
        ("systemd", r.systemd.is_some()),
        ("ocf", r.ocf.is_some()),
        ("volumeGroup", r.volume_group.is_some()),
        ("mirrorDisk", r.mirror_disk.is_some()),
        ("nfsExport", r.nfs_export.is_some()),
        ("dataService", r.data_service.is_some()),
    ];
    members.into_iter().find(|(_, given)| *given).map_or("none", |(name, _)| name)
}

fn allowed(spec: &FailoverGroupSpec, sub: &SubClusterSpec) -> Result<(), Rejection> {
    let allows = |allowed: &[String], asked: &str| allowed.iter().any(|name| name == "*" || name == asked);
    let policy = &sub.group_policy;
    for resource in &spec.resources {
        let member = member(resource);
        if !allows(&policy.resource_types, member) {
            let message = format!(
                "{}.{member}: sub-cluster {} allows {} in spec.groupPolicy.resourceTypes",
                path(resource),
                spec.sub_cluster,
                allowed_names(&policy.resource_types)
            );
            return Err(Rejection::new(accepted::POLICY_VIOLATION, message));
        }
        // Agents of other makers run as root, by their contract.
        if resource.ocf.is_some() && !allows(&policy.run_as, "root") {
            let message = format!(
                "{}.ocf: agents run as root, sub-cluster {} allows {} in spec.groupPolicy.runAs",
                path(resource),
                spec.sub_cluster,
                allowed_names(&policy.run_as)
            );
            return Err(Rejection::new(accepted::RUN_AS_NOT_ALLOWED, message));
        }
        let run_as = resource.process.as_ref().map(|process| &process.run_as);
        let run_as = run_as.or(resource.script.as_ref().map(|script| &script.run_as));
        if let Some(run_as) = run_as.filter(|run_as| !allows(&policy.run_as, &run_as.user)) {
            return Err(forbidden_user(&format!("{}.{member}", path(resource)), &run_as.user, spec, sub));
        }
    }
    for monitor in &spec.monitors {
        if let Some(exec) = monitor.exec.as_ref().filter(|exec| !allows(&policy.run_as, &exec.run_as.user)) {
            let at = format!("spec.monitors[name={}].exec", monitor.name);
            return Err(forbidden_user(&at, &exec.run_as.user, spec, sub));
        }
    }
    Ok(())
}

fn forbidden_user(at: &str, user: &str, spec: &FailoverGroupSpec, sub: &SubClusterSpec) -> Rejection {
    let message = format!(
        "{at}.runAs.user: {user}, sub-cluster {} allows {} in spec.groupPolicy.runAs",
        spec.sub_cluster,
        allowed_names(&sub.group_policy.run_as)
    );
    Rejection::new(accepted::RUN_AS_NOT_ALLOWED, message)
}

fn allowed_names(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { list(names) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::set_accepted;
    use super::super::super::sub_cluster::tests::sub_cluster;
    use super::super::tests::group;
    use super::*;

    fn verdict(edit: impl Fn(&mut FailoverGroup, &mut SubCluster)) -> Result<(), (&'static str, String)> {
        let (mut group, mut sub) = (group("ledger"), sub_cluster("db"));
        edit(&mut group, &mut sub);
        accept(&group, Some(&sub)).map_err(|r| (r.reason, r.message))
    }

    fn resources(json: serde_json::Value) -> Vec<Resource> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_sound_group_is_accepted_once_its_sub_cluster_exists() {
        assert_eq!(verdict(|_, _| {}), Ok(()));
        assert_eq!(accept(&group("ledger"), None).unwrap_err().reason, "NotFound");
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let (reason, message) = verdict(|group, _| group.spec.placement.servers = vec!["db9".into()]).unwrap_err();
        assert_eq!(reason, "UnknownServer");
        assert!(message.ends_with("no server db9; it has db1 and db2"), "{message}");
        let (reason, message) = verdict(|_, sub| sub.spec.disks.clear()).unwrap_err();
        assert_eq!(reason, "UnknownDisk");
        let begin = "spec.resources[name=data].filesystem.disk: sub-cluster db has no disk san";
        assert!(message.starts_with(begin), "{message}");
        let monitored = |monitor: serde_json::Value| {
            verdict(|group, _| {
                let mut monitor = monitor.clone();
                monitor["name"] = "m".into();
                monitor["action"] = "Report".into();
                group.spec.monitors = vec![serde_json::from_value(monitor).unwrap()];
            })
        };
        let (reason, message) = monitored(json!({"link": {"path": "dsl"}})).unwrap_err();
        assert_eq!(reason, "NotFound");
        let begin =
            "spec.monitors[name=m].link.path: Invalid value: \"dsl\": the sub-cluster has no such LAN path; it has ic";
        assert!(message.starts_with(begin), "{message}");
        let (reason, message) = monitored(json!({"diskIO": {"disk": "nas"}})).unwrap_err();
        assert_eq!(reason, "UnknownDisk");
        assert!(message.ends_with("the sub-cluster has no such disk; it has san"), "{message}");
        assert_eq!(monitored(json!({"diskIO": {"disk": "san"}})), Ok(()));
    }

    #[test]
    fn a_circle_is_shown() {
        let process =
            |name: &str, on: &[&str]| json!({"name": name, "dependsOn": on, "process": {"command": ["/bin/true"]}});
        let (reason, message) = verdict(|group, _| {
            group.spec.resources = resources(json!([
                process("a", &["b"]),
                process("b", &["c", "d"]),
                process("c", &[]),
                process("d", &["b"]),
            ]));
        })
        .unwrap_err();
        assert_eq!(reason, "DependencyCycle");
        assert!(message.contains("b → d → b;"), "{message}");
        // A stage is an order, too: the agents would never start this.
        let (reason, message) = verdict(|group, _| {
            group.spec.resources = resources(json!([
                process("app", &["addr"]),
                {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "interface": "eth0"}},
            ]));
        })
        .unwrap_err();
        assert_eq!(reason, "DependencyCycle");
        assert!(message.contains("set stage"), "{message}");
        // Two ways to the same place are no circle.
        let diamond = verdict(|group, _| {
            group.spec.resources = resources(json!([
                process("a", &["b", "c"]),
                process("b", &["d"]),
                process("c", &["d"]),
                process("d", &[]),
            ]));
        });
        assert_eq!(diamond, Ok(()));
    }

    #[test]
    fn a_circle_of_groups_is_refused_to_who_closes_it() {
        let after = |name: &str, other: &str, accepted: bool| {
            let mut group = group(name);
            group.spec.placement.after = serde_json::from_value(json!([{"group": other}])).unwrap();
            let status = group.status.get_or_insert_default();
            let verdict = if accepted { Ok(()) } else { Err(Rejection::new(accepted::NOT_FOUND, String::new())) };
            set_accepted(&mut status.conditions, &group.metadata, &verdict, "2026-03-01T00:00:01Z".parse().unwrap());
            group
        };
        let of = |group: &FailoverGroup, other: FailoverGroup| order(group, &[Arc::new(other)]).map_err(|r| r.message);
        let closes = of(&after("app", "db", false), after("db", "app", true)).unwrap_err();
        assert!(closes.contains("app → db → app"), "{closes}");
        // What was refused takes nothing from what runs; of two that came in at once the first by age and name stays.
        assert_eq!(of(&after("db", "app", true), after("app", "db", false)), Ok(()));
        assert_eq!(of(&after("app", "db", true), after("db", "app", true)), Ok(()));
        assert!(of(&after("db", "app", true), after("app", "db", true)).is_err());
    }

    #[test]
    fn a_group_uses_only_data_services_that_are_there_and_meant_for_it() {
        let verdict = |service: Option<serde_json::Value>, allowed: &str| {
            let (mut group, mut sub) = (group("ledger"), sub_cluster("db"));
            group.spec.resources = resources(json!([{"name": "db", "dataService": {"name": "db2"}}]));
            sub.spec.group_policy.run_as = vec![allowed.to_string()];
            let service: Option<DataService> = service.map(|spec| {
                serde_json::from_value(json!({"apiVersion": "holdfast.dev/v1", "kind": "DataService",
                    "metadata": {"name": "db2"}, "spec": spec}))
                .unwrap()
            });
            let find = |name: &str| service.clone().filter(|_| name == "db2").map(Arc::new);
            data_services(&group, &sub, find).map_err(|r| (r.reason, r.message))
        };
        let methods = json!([{"name": "start", "path": "/opt/db2/start"}]);
        let sound = json!({"methods": methods, "groups": ["ledger", "wages"]});
        assert_eq!(verdict(Some(sound.clone()), "*"), Ok(()));
        assert_eq!(verdict(Some(sound.clone()), "root"), Ok(()));
        let (reason, message) = verdict(None, "*").unwrap_err();
        assert_eq!(reason, "UnknownDataService");
        let begin = "spec.resources[name=db].dataService.name: there is no DataService db2 in this namespace";
        assert!(message.starts_with(begin), "{message}");
        let (reason, message) = verdict(Some(json!({"methods": methods, "groups": ["wages"]})), "*").unwrap_err();
        assert_eq!(reason, "PolicyViolation");
        assert!(message.ends_with("DataService db2 is for wages only; add ledger to its spec.groups"), "{message}");
        let (reason, message) = verdict(Some(sound), "ledger").unwrap_err();
        assert_eq!(reason, "RunAsNotAllowed");
        assert!(message.contains("DataService db2.runAs.user: root, sub-cluster "), "{message}");
    }

    #[test]
    fn the_sub_cluster_says_what_groups_may_use() {
        let (reason, message) = verdict(|_, sub| sub.spec.group_policy.run_as = vec!["ledger".into()]).unwrap_err();
        assert_eq!(reason, "RunAsNotAllowed");
        assert!(message.contains("runAs.user: root, sub-cluster db allows ledger"), "{message}");
        let (reason, message) = verdict(|group, sub| {
            sub.spec.group_policy.run_as = vec!["ledger".into()];
            group.spec.resources = resources(json!([{"name": "addr", "ocf": {"type": "IPaddr2"}}]));
        })
        .unwrap_err();
        assert_eq!(reason, "RunAsNotAllowed");
        assert!(message.contains("agents run as root, sub-cluster db allows ledger"), "{message}");
        let monitor =
            json!({"name": "m", "exec": {"command": ["/a"], "runAs": {"user": "mallory"}}, "action": "Report"});
        let (reason, message) = verdict(|group, sub| {
            group.spec.monitors = vec![serde_json::from_value(monitor.clone()).unwrap()];
            sub.spec.group_policy.run_as = vec!["root".into(), "ledger".into()];
        })
        .unwrap_err();
        assert_eq!(reason, "RunAsNotAllowed");
        assert!(message.starts_with("spec.monitors[name=m].exec.runAs.user: mallory, sub-cluster db"), "{message}");
        let monitor = json!({"name": "m", "tcp": {"address": "a:0"}, "action": "Report"});
        let (reason, message) =
            verdict(|group, _| group.spec.monitors = vec![serde_json::from_value(monitor.clone()).unwrap()])
                .unwrap_err();
        assert_eq!(reason, "MonitorInvalid");
        assert!(message.starts_with("spec.monitors[0].tcp.address: "), "{message}");
        let (reason, message) =
            verdict(|_, sub| sub.spec.group_policy.resource_types = vec!["filesystem".into()]).unwrap_err();
        assert_eq!(reason, "PolicyViolation");
        assert!(message.starts_with("spec.resources[name=addr].floatingIP: "), "{message}");
    }
}
