//! Which resources of a group can't be carried out on a server that may run it (condition `UnusableResource`), by the word of
//! the agents. Said before a start or a takeover fails by it; nothing is stopped by it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_api::conditions;
use holdfast_api::reasons::condition;
use holdfast_api::v1::{FailoverGroup, Server, UnusableResource};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::{contents, list};

/// In words, which resource on which servers, and why; empty if there is none.
pub(crate) fn of_group(group: &FailoverGroup, servers: &[Arc<Server>]) -> String {
    let mut by_problem: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for server in servers.iter().filter(|server| contents::may_run(&group.spec, server)) {
        for found in reported(server).iter().filter(|found| found.group == group.name_any()) {
            // What it speaks of may be gone from the group since.
            if group.spec.resources.iter().any(|resource| resource.name == found.resource) {
                let servers = by_problem.entry((&found.resource, &found.message)).or_default();
                servers.push(&server.spec.server);
            }
        }
    }
    let one = |((resource, problem), servers): (&(&str, &str), &Vec<&str>)| {
        format!("{resource} can't be carried out on {}: {problem}", list(servers))
    };
    by_problem.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Shows it as the condition, or that there is nothing to show.
pub(crate) fn set(list: &mut Vec<Condition>, unusable: &str, generation: Option<i64>, now: Timestamp) {
    if unusable.is_empty() {
        conditions::clear(list, condition::UNUSABLE_RESOURCE);
    } else {
        conditions::set(list, condition::UNUSABLE_RESOURCE, true, "AgentRefuses", unusable, generation, now);
    }
}

/// Whether what the server reports can change what is said of the group: it names it, or something was said.
pub(crate) fn concerns(server: &Server, group: &FailoverGroup) -> bool {
    let said =
        group.status.as_ref().is_some_and(|s| conditions::get(&s.conditions, condition::UNUSABLE_RESOURCE).is_some());
    said || reported(server).iter().any(|found| found.group == group.name_any())
}

fn reported(server: &Server) -> &[UnusableResource] {
    server.status.as_ref().map_or(&[], |status| &status.unusable_resources)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(name: &str, found: &[(&str, &str, &str)]) -> Arc<Server> {
        let found: Vec<_> = found.iter().map(|(g, r, m)| json!({"group": g, "resource": r, "message": m})).collect();
        let server = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Server", "metadata": {"name": format!("db.{name}"), "namespace": "ha"},
            "spec": {"subCluster": "db", "server": name, "id": 1}, "status": {"unusableResources": found},
        });
        Arc::new(serde_json::from_value(server).unwrap())
    }

    #[test]
    fn what_can_not_be_carried_out_is_named_with_the_servers_that_may_run_the_group() {
        let group: FailoverGroup = serde_json::from_value(json!({
            "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "ledger", "namespace": "ha"},
            "spec": {"subCluster": "db", "placement": {"servers": ["db1", "db2"]},
                "resources": [{"name": "app", "ocf": {"type": "X"}}, {"name": "web", "ocf": {"type": "nginx"}}]},
        }))
        .unwrap();
        let wrong = ("ledger", "app", "no agent");
        let servers = [
            server("db1", &[wrong, ("ledger", "web", "no such parameter")]),
            server("db2", &[wrong, ("ledger", "former", "no agent"), ("other", "web", "no agent")]),
            server("db3", &[wrong]),
        ];
        assert_eq!(
            of_group(&group, &servers),
            "app can't be carried out on db1 and db2: no agent; web can't be carried out on db1: no such parameter"
        );
        assert_eq!(of_group(&group, &[server("db1", &[])]), "");
        assert!(concerns(&servers[0], &group) && !concerns(&server("db1", &[("other", "app", "no agent")]), &group));
    }
}
