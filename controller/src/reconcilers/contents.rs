//! Whether what resources run by its path is the same on all servers of a sub-cluster (condition `ContentMismatch`), from what
//! the agents found. A difference would show at a takeover, at the worst moment; nothing is stopped by it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_api::conditions;
use holdfast_api::programs;
use holdfast_api::reasons::condition;
use holdfast_api::v1::{
    DataService, DataServiceServer, DataServiceSpec, FailoverGroup, FailoverGroupSpec, ProgramStatus, Server,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::list;

/// What was found of a data service.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// Per server.
    pub(crate) servers: Vec<DataServiceServer>,
    /// What differs; empty if nothing does.
    pub(crate) mismatch: String,
}

/// A data service on the servers that have looked for its methods.
pub(crate) fn of_service(spec: &DataServiceSpec, groups: &[Arc<FailoverGroup>], servers: &[Arc<Server>]) -> Found {
    let paths = programs::of_data_service(spec);
    // On a file system of a group it is there with the group only.
    let moves = |path: &str| groups.iter().any(|group| programs::moves_with(&group.spec, path));
    let looked = |server: &&Arc<Server>| {
        let reported = server.status.as_ref().is_some_and(|status| status.report_time.is_some());
        reported && paths.iter().all(|path| program(server, path).is_some())
    };
    let servers: Vec<&Arc<Server>> = servers.iter().filter(looked).collect();
    let one = |server: &&Arc<Server>| {
        let digest = digest(spec, server);
        DataServiceServer { server: server.name_any(), installed: digest.is_some(), digest }
    };
    let fixed: BTreeSet<&str> = paths.iter().copied().filter(|path| !moves(path)).collect();
    // Where no group may use it, it need not be there.
    let mut by_sub: BTreeMap<&str, Vec<&Server>> = BTreeMap::new();
    for server in servers.iter().filter(|server| groups.iter().any(|group| may_run(&group.spec, server))) {
        by_sub.entry(&server.spec.sub_cluster).or_default().push(server);
    }
    let wrong: Vec<String> = by_sub.values().filter_map(|servers| difference(&fixed, servers)).collect();
    Found { servers: servers.iter().map(one).collect(), mismatch: wrong.join("; ") }
}

/// What differs in the scripts and data services of a group between the servers that may run it; empty if nothing does.
pub(crate) fn of_group(spec: &FailoverGroupSpec, services: &[Arc<DataService>], servers: &[Arc<Server>]) -> String {
    let mut paths = programs::of_group(spec);
    let methods = services.iter().flat_map(|service| programs::of_data_service(&service.spec));
    paths.extend(methods.filter(|path| !programs::moves_with(spec, path)));
    let servers: Vec<&Server> = servers.iter().filter(|server| may_run(spec, server)).map(AsRef::as_ref).collect();
    difference(&paths, &servers).unwrap_or_default()
}

/// Whether the group may run on the server.
pub(super) fn may_run(spec: &FailoverGroupSpec, server: &Server) -> bool {
    let named = spec.placement.servers.is_empty() || spec.placement.servers.contains(&server.spec.server);
    named && spec.sub_cluster == server.spec.sub_cluster
}

/// Shows the difference as the condition, or that there is none.
pub(crate) fn set(list: &mut Vec<Condition>, mismatch: &str, generation: Option<i64>, now: Timestamp) {
    if mismatch.is_empty() {
        conditions::clear(list, condition::CONTENT_MISMATCH);
        return;
    }
    let mut message: String = mismatch.chars().take(900).collect();
    message.push_str("; install the same everywhere before the next takeover");
    conditions::set(list, condition::CONTENT_MISMATCH, true, "ContentDiffers", &message, generation, now);
}

fn program<'a>(server: &'a Server, path: &str) -> Option<&'a ProgramStatus> {
    server.status.as_ref()?.programs.iter().find(|program| program.path == path)
}

/// In words, what differs. A server that has not looked yet says nothing.
fn difference(paths: &BTreeSet<&str>, servers: &[&Server]) -> Option<String> {
    let mut wrong = Vec::new();
    for path in paths {
        let mut by_digest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for server in servers {
            match program(server, path) {
                Some(ProgramStatus { digest: Some(digest), .. }) => {
                    by_digest.entry(digest).or_default().push(&server.spec.server);
                }
                Some(program) => wrong.push(format!("{path} on {}: {}", server.spec.server, program.message)),
                None => {}
            }
        }
        if by_digest.len() > 1 {
            let sides: Vec<String> = by_digest.values().map(|names| list(names)).collect();
            wrong.push(format!("{path} is not the same on {}", sides.join(" as on ")));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// Of all methods; none if one is not there.
fn digest(spec: &DataServiceSpec, server: &Server) -> Option<String> {
    let mut methods: Vec<_> = spec.methods.iter().collect();
    methods.sort_by_key(|method| method.name.as_str());
    let mut all = Sha256::new();
    let mut add = |text: &str| {
        all.update(text.len().to_be_bytes());
        all.update(text);
    };
    for method in methods {
        add(method.name.as_str());
        if let Some(path) = &method.path {
            add(program(server, path)?.digest.as_deref()?);
        }
        add(method.inline.as_deref().unwrap_or_default());
        if let Some(key) = &method.config_map {
            add(&key.name);
            add(&key.key);
        }
        method.args.iter().for_each(|argument| add(argument));
    }
    Some(format!("sha256:{:x}", all.finalize()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(name: &str, programs: serde_json::Value) -> Arc<Server> {
        let server = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Server", "metadata": {"name": format!("db.{name}"), "namespace": "ha"},
            "spec": {"subCluster": "db", "server": name, "id": 1},
            "status": {"reportTime": "2026-03-01T00:00:00Z", "programs": programs},
        });
        Arc::new(serde_json::from_value(server).unwrap())
    }

    fn group(resources: serde_json::Value) -> Arc<FailoverGroup> {
        let group = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "ledger", "namespace": "ha"},
            "spec": {"subCluster": "db", "placement": {"servers": ["db1", "db2"]}, "resources": resources},
        });
        Arc::new(serde_json::from_value(group).unwrap())
    }

    #[test]
    fn what_differs_between_servers_is_named_with_the_servers() {
        let service: DataServiceSpec = serde_json::from_value(json!({"methods": [
            {"name": "start", "path": "/opt/start"}, {"name": "stop", "inline": "true"},
        ]}))
        .unwrap();
        let user = group(json!([{"name": "db2", "dataService": {"name": "db2"}}]));
        let with = |digest: &str| json!([{"path": "/opt/start", "digest": digest}]);
        let missing = json!([{"path": "/opt/start", "message": "there is no such file"}]);
        let look = |servers: &[Arc<Server>]| of_service(&service, std::slice::from_ref(&user), servers);

        let same = look(&[server("db1", with("sha256:1")), server("db2", with("sha256:1"))]);
        assert_eq!(same.mismatch, "");
        assert!(same.servers.iter().all(|server| server.installed));
        assert_eq!(same.servers[0].digest, same.servers[1].digest);
        let other = look(&[server("db1", with("sha256:1")), server("db2", with("sha256:2"))]);
        assert_eq!(other.mismatch, "/opt/start is not the same on db1 as on db2");
        assert_ne!(other.servers[0].digest, other.servers[1].digest);
        let gone = look(&[server("db1", with("sha256:1")), server("db2", missing.clone())]);
        assert_eq!(gone.mismatch, "/opt/start on db2: there is no such file");
        assert_eq!((gone.servers[1].installed, &gone.servers[1].digest), (false, &None));
        // Nobody uses it there.
        assert_eq!(of_service(&service, &[], &[server("db1", missing)]).mismatch, "");
        // A server that has not looked says nothing.
        assert_eq!(look(&[server("db1", json!([]))]), Found::default());
    }

    #[test]
    fn only_servers_that_may_run_a_group_are_compared_and_nothing_that_moves_with_it() {
        let spec = &group(json!([
            {"name": "data", "filesystem": {"device": "/dev/vg/data", "mountPoint": "/srv/app", "type": "ext4"}},
            {"name": "app", "script": {"start": {"path": "/opt/start"}, "stop": {"path": "/srv/app/stop"}}},
        ]))
        .spec;
        let with = |digest: &str| json!([{"path": "/opt/start", "digest": digest}, {"path": "/srv/app/stop", "message": "there is no such file"}]);
        let servers = |other: &str| [server("db1", with("sha256:1")), server(other, with("sha256:2"))];
        assert_eq!(of_group(spec, &[], &servers("db2")), "/opt/start is not the same on db1 as on db2");
        assert_eq!(of_group(spec, &[], &servers("db3")), "");
    }
}
