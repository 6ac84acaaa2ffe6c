//! Who may do what. Pure: what depends on objects is asked through [`Facts`].
//!
//! Members of `system:masters` may do everything. A node agent, `holdfast:server:NAMESPACE:SUBCLUSTER:SERVER`, may
//! read its namespace's kinds and the Secrets that its sub-cluster names, write the status of its own Server, its
//! sub-cluster and that sub-cluster's groups, swap the Lease that is its sub-cluster's lock, and report Events. The user
//! of one lock, `holdfast:lock:NAMESPACE:NAME`, may swap that Lease and nothing else. Who shows a join token may ask for
//! a certificate, as an agent may for its next one. Bindings add nothing to these three.
//! Everybody else may do what roles and bindings say, and without any ask who they are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::certificates;
use crate::identity::{AUTHENTICATED, Identity, MASTERS};
use crate::join_tokens;
use crate::rbac::Rule;

const GROUP: &str = holdfast_api::GROUP;
const LEASES: &str = "coordination.k8s.io";
/// What every authenticated user may read, beside everything below these.
const PATHS: &[&str] = &["/api", "/apis", "/healthz", "/livez", "/readyz", "/openapi", "/version"];
const READ: &[&str] = &["get", "list", "watch"];
const REVIEWS: &[(&str, &str)] = &[
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// An action on a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Verb as in discovery, e.g. `deletecollection`.
    pub(crate) verb: String,
    /// API group.
    pub(crate) group: String,
    /// Plural.
    pub(crate) resource: String,
    /// Subresource, empty for the object itself.
    pub(crate) subresource: String,
    /// Namespace, empty for all or for cluster-scoped kinds.
    pub(crate) namespace: String,
    /// Name, empty for all.
    pub(crate) name: String,
}

impl Attributes {
    /// The text after `is forbidden: `.
    pub(crate) fn refusal(&self, user: &str) -> String {
        let resource = match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        };
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        format!("User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}", self.verb, self.group)
    }
}

/// What decisions depend on.
pub(crate) trait Facts {
    /// The rules that bindings give an identity: everywhere, and in this namespace if it is not empty.
    fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule>;
    /// Names of the Secrets that a sub-cluster names.
    fn secrets(&self, namespace: &str, sub_cluster: &str) -> BTreeSet<String>;
    /// The sub-cluster of a group.
    fn sub_cluster_of(&self, namespace: &str, group: &str) -> Option<String>;
    /// Namespace and name of the Lease that a sub-cluster names as its lock.
    fn lock_of(&self, namespace: &str, sub_cluster: &str) -> Option<(String, String)>;
}

/// The agent behind an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Agent<'a> {
    namespace: &'a str,
    sub_cluster: &'a str,
    server: &'a str,
}

fn agent(identity: &Identity) -> Option<Agent<'_>> {
    let parts: Vec<&str> = identity.user.strip_prefix("holdfast:server:")?.split(':').collect();
    match parts[..] {
        [namespace, sub_cluster, server] => Some(Agent { namespace, sub_cluster, server }),
        _ => None,
    }
}

/// The lock behind an identity: namespace and name of its Lease.
fn lock(identity: &Identity) -> Option<(&str, &str)> {
    identity.user.strip_prefix("holdfast:lock:")?.split_once(':')
}

/// A swap of a lock, or the read before it. Nothing else, above all neither creation nor deletion: a lock that can come
/// back blank by itself could grant twice.
fn swaps_lock(action: &Attributes, namespace: &str, name: &str) -> bool {
    matches!(action.verb.as_str(), "get" | "update")
        && (action.group.as_str(), action.resource.as_str(), action.subresource.as_str()) == (LEASES, "leases", "")
        && (action.namespace.as_str(), action.name.as_str()) == (namespace, name)
}

/// May this path, which is no resource, be read?
pub(crate) fn allows_path(identity: &Identity, verb: &str, path: &str, facts: &dyn Facts) -> bool {
    if identity.is_in(MASTERS) {
        return true;
    }
    let below = |start: &&str| path == *start || path.strip_prefix(*start).is_some_and(|rest| rest.starts_with('/'));
    let open = matches!(verb, "get" | "head") && PATHS.iter().any(below);
    identity.is_in(AUTHENTICATED)
        && (open || (bindings_count(identity) && facts.rules(identity, "").iter().any(|r| r.allows_path(verb, path))))
}

/// False for those whose rights are built in: no binding, not even one for everybody, gives a server or a lock more.
fn bindings_count(identity: &Identity) -> bool {
    !identity.user.starts_with("holdfast:server:")
        && !identity.user.starts_with("holdfast:lock:")
        && !is_joining(identity)
}

/// True for who shows a join token.
fn is_joining(identity: &Identity) -> bool {
    identity.user.starts_with(join_tokens::USER)
}

/// A request for a certificate, or the look whether it was signed. Which certificates are signed for whom is decided
/// where the request is read.
fn asks_for_certificate(action: &Attributes) -> bool {
    matches!(action.verb.as_str(), "create" | "get")
        && (action.group.as_str(), action.resource.as_str(), action.subresource.as_str())
            == (certificates::GROUP, "certificatesigningrequests", "")
}

/// May this be done?
pub(crate) fn allows(identity: &Identity, action: &Attributes, facts: &dyn Facts) -> bool {
    if identity.is_in(MASTERS) {
        return true;
    }
    if !identity.is_in(AUTHENTICATED) {
        return false;
    }
    if action.verb == "create" && REVIEWS.contains(&(action.group.as_str(), action.resource.as_str())) {
        return true;
    }
    if is_joining(identity) {
        return asks_for_certificate(action);
    }
    if let Some((namespace, name)) = lock(identity) {
        return swaps_lock(action, namespace, name);
    }
    match agent(identity) {
        Some(agent) => allows_agent(&agent, action, facts),
        None => bindings_count(identity) && facts.rules(identity, &action.namespace).iter().any(|r| r.allows(action)),
    }
}

fn allows_agent(agent: &Agent<'_>, action: &Attributes, facts: &dyn Facts) -> bool {
    if asks_for_certificate(action) {
        return true;
    }
    if action.namespace != agent.namespace {
        return false;
    }
    let verb = action.verb.as_str();
    let read = READ.contains(&verb);
    match (action.group.as_str(), action.resource.as_str(), action.subresource.as_str()) {
        (GROUP, _, "") => read,
        (GROUP, resource, "status") if matches!(verb, "update" | "patch") => match resource {
            "servers" => action.name == format!("{}.{}", agent.sub_cluster, agent.server),
            "subclusters" => action.name == agent.sub_cluster,
            "failovergroups" => {
                facts.sub_cluster_of(agent.namespace, &action.name).as_deref() == Some(agent.sub_cluster)
            }
            _ => false,
        },
        (GROUP, _, "status") => read,
        ("" | "events.k8s.io", "events", "") => read || matches!(verb, "create" | "patch" | "update"),
        (LEASES, "leases", "") => facts
            .lock_of(agent.namespace, agent.sub_cluster)
            .is_some_and(|(namespace, name)| swaps_lock(action, &namespace, &name)),
        // Scripts of groups may stand in ConfigMaps.
        ("", "configmaps", "") => read,
        ("", "secrets", "") => {
            read && !action.name.is_empty() && facts.secrets(agent.namespace, agent.sub_cluster).contains(&action.name)
        }
        _ => false,
    }
}

/// The Secrets that a SubCluster's spec names, the implied heartbeat key included.
pub(crate) fn named_secrets(sub_cluster: &str, spec: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(spec, &mut names);
    if spec.pointer("/heartbeat/keySecret").and_then(Value::as_str).is_none() {
        names.insert(format!("{sub_cluster}-heartbeat"));
    }
    names
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(name) if key.ends_with("Secret") => {
                        names.insert(name.clone());
                    }
                    Value::Array(sources) if key == "parametersFrom" => {
                        names.extend(sources.iter().filter_map(secret_source));
                    }
                    other => collect(other, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        _ => {}
    }
}

/// A member of `parametersFrom`: the Secret's name, bare or in a reference.
fn secret_source(source: &Value) -> Option<String> {
    let name = source.as_str().or(source["secret"].as_str()).or(source["name"].as_str());
    name.map(str::to_owned)
}

/// `resourceRules` and `nonResourceRules` of a SelfSubjectRulesReview.
pub(crate) fn rules(identity: &Identity, namespace: &str, facts: &dyn Facts) -> (Value, Value) {
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: Vec<String>| {
        let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    };
    if identity.is_in(MASTERS) {
        let paths = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        return (json!([rule(&["*"], &["*"], &["*"], vec![])]), paths);
    }
    let mut resources: Vec<Value> =
        REVIEWS.iter().map(|(group, plural)| rule(&["create"], &[group], &[plural], vec![])).collect();
    if let Some(agent) = agent(identity).filter(|agent| agent.namespace == namespace) {
        let own = |resource: &str, name: String| rule(&["update", "patch"], &[GROUP], &[resource], vec![name]);
        resources.push(rule(READ, &[GROUP], &["*"], vec![]));
        resources.push(rule(READ, &[""], &["configmaps"], vec![]));
        resources.push(rule(
            &["get", "list", "watch", "create", "patch", "update"],
            &["", "events.k8s.io"],
            &["events"],
            vec![],
        ));
        resources.push(own("servers/status", format!("{}.{}", agent.sub_cluster, agent.server)));
        resources.push(own("subclusters/status", agent.sub_cluster.into()));
        let secrets: Vec<String> = facts.secrets(agent.namespace, agent.sub_cluster).into_iter().collect();
        if !secrets.is_empty() {
            resources.push(rule(READ, &[""], &["secrets"], secrets));
        }
        if let Some((_, name)) = facts.lock_of(agent.namespace, agent.sub_cluster).filter(|(ns, _)| ns == namespace) {
            resources.push(rule(&["get", "update"], &[LEASES], &["leases"], vec![name]));
        }
    }
    if let Some((_, name)) = lock(identity).filter(|(of, _)| *of == namespace) {
        resources.push(rule(&["get", "update"], &[LEASES], &["leases"], vec![name.to_owned()]));
    }
    let paths: Vec<String> = PATHS.iter().flat_map(|path| [(*path).to_owned(), format!("{path}/*")]).collect();
    let mut paths = vec![json!({"verbs": ["get"], "nonResourceURLs": paths})];
    if bindings_count(identity) {
        let (of_paths, of_resources): (Vec<Rule>, Vec<Rule>) =
            facts.rules(identity, namespace).into_iter().partition(Rule::is_about_paths);
        resources.extend(of_resources.iter().map(Rule::to_json));
        paths.extend(of_paths.iter().map(Rule::to_json));
    }
    (Value::Array(resources), Value::Array(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World;

    impl Facts for World {
        fn rules(&self, _: &Identity, _: &str) -> Vec<Rule> {
            Rule::all_of(&json!({"rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]}))
        }

        fn secrets(&self, _: &str, sub_cluster: &str) -> BTreeSet<String> {
            named_secrets(sub_cluster, &json!({"quorum": {"quorumServer": {"credentialSecret": "q"}}}))
        }

        fn sub_cluster_of(&self, _: &str, group: &str) -> Option<String> {
            Some(if group == "ledger" { "db" } else { "web" }.into())
        }

        fn lock_of(&self, namespace: &str, sub_cluster: &str) -> Option<(String, String)> {
            Some((namespace.to_owned(), format!("{sub_cluster}-lock")))
        }
    }

    fn may(verb: &str, group: &str, resource: &str, name: &str, namespace: &str) -> bool {
        may_as("holdfast:server:ha:db:db1", verb, group, resource, name, namespace)
    }

    fn may_as(user: &str, verb: &str, group: &str, resource: &str, name: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let action = Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        allows(&Identity::new(user, [AUTHENTICATED]), &action, &World)
    }

    #[test]
    fn a_lock_is_swapped_by_its_own_sub_cluster_only_and_never_made_or_deleted() {
        let by = |user: &str, verb: &str, name: &str, ns: &str| may_as(user, verb, LEASES, "leases", name, ns);
        for (user, name) in [("holdfast:lock:ha:db", "db"), ("holdfast:server:ha:db:db1", "db-lock")] {
            assert!(by(user, "get", name, "ha") && by(user, "update", name, "ha"), "{user}");
            assert!(!by(user, "update", name, "other") && !by(user, "update", "web", "ha"), "{user}");
            for verb in ["create", "delete", "deletecollection", "list", "watch", "patch"] {
                assert!(!by(user, verb, name, "ha"), "{user} {verb}");
            }
        }
        assert!(!may_as("holdfast:lock:ha:db", "get", "", "secrets", "db", "ha"));
        assert!(!may_as("holdfast:lock:ha:db", "list", GROUP, "subclusters", "", "ha"));
    }

    #[test]
    fn bindings_add_nothing_to_what_servers_and_locks_may_do() {
        assert!(may_as("alice", "delete", "", "configmaps", "m", "ha"));
        for user in ["holdfast:server:ha:db:db1", "holdfast:server:broken", "holdfast:lock:ha:db", "holdfast:lock:x"] {
            assert!(!may_as(user, "delete", "", "configmaps", "m", "ha"), "{user}");
        }
        assert!(!may_as("alice", "delete", "", "secrets", "m", "ha"));
    }

    #[test]
    fn an_agent_writes_only_what_is_its_own() {
        assert!(may("update", GROUP, "servers/status", "db.db1", "ha"));
        assert!(!may("update", GROUP, "servers/status", "db.db2", "ha"));
        assert!(!may("update", GROUP, "servers", "db.db1", "ha"));
        assert!(may("patch", GROUP, "failovergroups/status", "ledger", "ha"));
        assert!(!may("patch", GROUP, "failovergroups/status", "shop", "ha"));
        assert!(may("list", GROUP, "failovergroups", "", "ha"));
        assert!(!may("list", GROUP, "failovergroups", "", "other"));
        assert!(!may("list", GROUP, "failovergroups", "", ""));
        assert!(may("get", "", "secrets", "db-heartbeat", "ha"));
        assert!(may("get", "", "secrets", "q", "ha"));
        assert!(!may("get", "", "secrets", "other", "ha"));
        assert!(!may("list", "", "secrets", "", "ha"));
        assert!(may("create", "events.k8s.io", "events", "", "ha"));
        assert!(!may("delete", GROUP, "subclusters", "db", "ha"));
    }
}
