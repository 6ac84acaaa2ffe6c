//! Who may do what: everything is refused unless a role says otherwise, and a role gives what it names and nothing else.

mod support;

use axum::body::Body;
use holdfast_apiserver::Identity;
use http::Request;
use serde_json::{Value, json};
use support::{Reply, World, group, sub_cluster};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const OPERATIONS: &str = "/apis/holdfast.dev/v1/namespaces/default/operations";

fn user(name: &str) -> Identity {
    Identity::new(name, Vec::<String>::new())
}

fn rbac(kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    object.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    object
}

fn binding(name: &str, role: (&str, &str), who: &str) -> Value {
    let more = json!({"roleRef": {"kind": role.0, "name": role.1}, "subjects": [{"kind": "User", "name": who}]});
    rbac("RoleBinding", name, more)
}

/// The caches, which authorization asks, follow the store: a read of the newest state waits for them.
async fn settle(world: &World) {
    world.get(&format!("{RBAC}/rolebindings")).await.expect(200);
}

/// One served resource.
#[derive(Debug, Clone)]
struct Served {
    group: String,
    version: String,
    name: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
}

/// Everything that discovery tells, the self reviews left aside.
async fn served(world: &World) -> Vec<Served> {
    let mut documents = vec![("".to_owned(), "v1".to_owned(), world.get("/api/v1").await.expect(200))];
    for group in world.get("/apis").await.expect(200)["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            let path = version["groupVersion"].as_str().expect("text");
            let (group, version) = path.split_once('/').expect("a group and a version");
            documents.push((group.into(), version.into(), world.get(&format!("/apis/{path}")).await.expect(200)));
        }
    }
    let mut all = Vec::new();
    for (group, version, document) in documents {
        for resource in document["resources"].as_array().expect("resources") {
            let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
            all.push(Served {
                group: group.clone(),
                version: version.clone(),
                name: text("name"),
                kind: text("kind"),
                namespaced: resource["namespaced"] == true,
                verbs: resource["verbs"]
                    .as_array()
                    .expect("verbs")
                    .iter()
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect(),
            });
        }
    }
    all.retain(|resource| !resource.name.starts_with("selfsubject"));
    assert!(all.len() > 25, "{all:?}");
    all
}

impl Served {
    /// A request for a verb that changes nothing.
    fn request(&self, verb: &str) -> Request<Body> {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let (plural, subresource) = self.name.split_once('/').unwrap_or((&self.name, ""));
        let scope = if self.namespaced { "/namespaces/default" } else { "" };
        let all = format!("{root}/{}{scope}/{plural}", self.version);
        let one = if subresource.is_empty() { format!("{all}/x") } else { format!("{all}/x/{subresource}") };
        let (method, path) = match verb {
            "get" => ("GET", one),
            "list" => ("GET", all),
            "watch" => ("GET", format!("{all}?watch=true&timeoutSeconds=1")),
            "create" if !subresource.is_empty() => ("POST", format!("{one}?dryRun=All")),
            "create" => ("POST", format!("{all}?dryRun=All")),
            "update" => ("PUT", format!("{one}?dryRun=All")),
            "patch" => ("PATCH", format!("{one}?dryRun=All")),
            "delete" => ("DELETE", format!("{one}?dryRun=All")),
            "deletecollection" => ("DELETE", format!("{all}?dryRun=All")),
            other => panic!("an unknown verb {other}"),
        };
        let api_version =
            if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) };
        let body = json!({"apiVersion": api_version, "kind": self.kind, "metadata": {"name": "x"}});
        let kind = if verb == "patch" { "application/merge-patch+json" } else { "application/json" };
        let body =
            if matches!(verb, "create" | "update" | "patch") { Body::from(body.to_string()) } else { Body::empty() };
        Request::builder().method(method).uri(path).header("content-type", kind).body(body).expect("a request")
    }
}

/// True if authorization let the request through, whatever became of it then.
async fn passes(world: &World, who: &str, resource: &Served, verb: &str) -> bool {
    let response = world.send(Some(user(who)), resource.request(verb)).await;
    if response.status() != 403 {
        return true;
    }
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let status: Value = serde_json::from_slice(&bytes).expect("a Status");
    let message = status["message"].as_str().expect("a message");
    // Other refusals come after authorization: an Operation's own verb, the guard of a namespace.
    let words =
        format!("User \"{who}\" cannot {verb} resource \"{}\" in API group \"{}\"", resource.name, resource.group);
    !message.contains(&words)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_on_every_kind_is_refused_until_a_role_names_it() {
    let world = World::new().await;
    let all = served(&world).await;
    let mut pairs = Vec::new();
    for resource in &all {
        for verb in &resource.verbs {
            assert!(!passes(&world, "nobody", resource, verb).await, "{verb} {resource:?} without any role");
            pairs.push((resource, verb.as_str()));
        }
    }
    // One user and one role for each pair.
    for (at, (resource, verb)) in pairs.iter().enumerate() {
        let rules = json!({"rules": [{"verbs": [verb], "apiGroups": [resource.group], "resources": [resource.name]}]});
        world
            .call("POST", &format!("{RBAC}/clusterroles"), rbac("ClusterRole", &format!("r{at}"), rules))
            .await
            .expect(201);
        let (path, kind) = match resource.namespaced {
            true => (BINDINGS.to_owned(), "RoleBinding"),
            false => (format!("{RBAC}/clusterrolebindings"), "ClusterRoleBinding"),
        };
        let mut bound = binding(&format!("b{at}"), ("ClusterRole", &format!("r{at}")), &format!("u{at}"));
        bound["kind"] = json!(kind);
        world.call("POST", &path, bound).await.expect(201);
    }
    settle(&world).await;
    for (at, (resource, verb)) in pairs.iter().enumerate() {
        let who = format!("u{at}");
        assert!(passes(&world, &who, resource, verb).await, "{verb} {resource:?} with its role");
        for other in resource.verbs.iter().filter(|other| other != verb) {
            assert!(!passes(&world, &who, resource, other).await, "{other} {resource:?} with a role for {verb}");
        }
        // The next resource, and the same one in all namespaces.
        let (next, _) = pairs[(at + resource.verbs.len()) % pairs.len()];
        if (next.name.as_str(), &next.group) != (resource.name.as_str(), &resource.group)
            && next.verbs.iter().any(|v| v == verb)
        {
            assert!(!passes(&world, &who, next, verb).await, "{verb} {next:?} with a role for {resource:?}");
        }
        let (plural, _) = resource.name.split_once('/').unwrap_or((&resource.name, ""));
        if resource.namespaced && *verb == "list" {
            let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
            let everywhere = format!("{root}/{}/{plural}", resource.version);
            world.call_as(user(&who), "GET", &everywhere, Value::Null).await.expect(403);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_himself_or_others_more_than_he_has() {
    let world = World::new().await;
    let rules = json!({"rules": [
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]},
    ]});
    let (bind, escalate) = ("bind", "escalate");
    // Every verb on roles but the two that would make all of it pointless.
    let mut limited = rules.clone();
    limited["rules"][0]["verbs"] = json!(["get", "list", "create", "update", "patch", "delete"]);
    world.call("POST", ROLES, rbac("Role", "limited", limited)).await.expect(201);
    world.call("POST", BINDINGS, binding("limited", ("Role", "limited"), "mallory")).await.expect(201);
    settle(&world).await;
    let by = async |who: &str, path: &str, body: Value| -> Reply { world.call_as(user(who), "POST", path, body).await };
    let reads = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}]});
    by("mallory", ROLES, rbac("Role", "less", reads)).await.expect(201);
    let secrets = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let refused = by("mallory", ROLES, rbac("Role", "more", secrets.clone())).await.expect(403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"mallory\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held: get secrets"
    );
    let grown = world.call_as(user("mallory"), "PATCH", &format!("{ROLES}/limited"), secrets.clone()).await;
    grown.expect(403);
    by("mallory", BINDINGS, binding("admin", ("ClusterRole", "cluster-admin"), "mallory")).await.expect(403);
    by("mallory", BINDINGS, binding("unknown", ("Role", "later"), "mallory")).await.expect(403);
    by("mallory", BINDINGS, binding("friend", ("Role", "less"), "friend")).await.expect(201);
    // With the verbs that are made for it, it is allowed.
    let trusted = json!({"rules": [
        {"verbs": ["create", bind, escalate], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"]},
        {"verbs": [bind], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["holdfast-view"]},
    ]});
    world.call("POST", ROLES, rbac("Role", "trusted", trusted)).await.expect(201);
    world.call("POST", BINDINGS, binding("trusted", ("Role", "trusted"), "trent")).await.expect(201);
    settle(&world).await;
    by("trent", ROLES, rbac("Role", "more", secrets)).await.expect(201);
    by("trent", BINDINGS, binding("view", ("ClusterRole", "holdfast-view"), "victor")).await.expect(201);
    by("trent", BINDINGS, binding("admin", ("ClusterRole", "holdfast-admin"), "trent")).await.expect(403);
    // Where a binding points to stays.
    let moved = json!({"roleRef": {"name": "more"}});
    let refused = world.call("PATCH", &format!("{BINDINGS}/friend"), moved).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "roleRef", "{refused}");
    for (bad, field) in [
        (json!({"rules": [{"verbs": [], "apiGroups": [""], "resources": ["x"]}]}), "rules[0].verbs"),
        (json!({"rules": [{"verbs": ["get"], "apiGroups": [""]}]}), "rules[0].resources"),
        (
            json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["x"], "nonResourceURLs": ["/x"]}]}),
            "rules[0].nonResourceURLs",
        ),
    ] {
        let refused = world.call("POST", ROLES, rbac("Role", "bad", bad)).await.expect(422);
        assert_eq!(refused["details"]["causes"][0]["field"], field, "{refused}");
    }
    let mut robot = binding("robot", ("Role", "less"), "robot");
    robot["subjects"][0]["kind"] = json!("Robot");
    let refused = world.call("POST", BINDINGS, robot).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .expect("text")
            .contains("subjects[0].kind: Unsupported value: \"Robot\": must be one of User, Group, ServiceAccount"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_needs_its_own_verb_on_its_target_and_the_callers_name() {
    let world = World::new().await;
    world.call("POST", "/apis/holdfast.dev/v1/namespaces/default/subclusters", sub_cluster("db")).await.expect(201);
    world
        .call("POST", "/apis/holdfast.dev/v1/namespaces/default/failovergroups", group("ledger", "db"))
        .await
        .expect(201);
    let rules = json!({"rules": [
        {"verbs": ["create"], "apiGroups": ["holdfast.dev"], "resources": ["operations"]},
        {"verbs": ["stop"], "apiGroups": ["holdfast.dev"], "resources": ["failovergroups"], "resourceNames": ["ledger"]},
    ]});
    world.call("POST", ROLES, rbac("Role", "stopper", rules)).await.expect(201);
    world.call("POST", BINDINGS, binding("stopper", ("Role", "stopper"), "bob")).await.expect(201);
    world.call("POST", BINDINGS, binding("operator", ("ClusterRole", "holdfast-operator"), "olga")).await.expect(201);
    world.call("POST", BINDINGS, binding("view", ("ClusterRole", "holdfast-view"), "victor")).await.expect(201);
    settle(&world).await;
    let ask = async |who: &str, verb: &str, target: (&str, &str), by: &str| {
        let mut operation = json!({"apiVersion": "holdfast.dev/v1", "kind": "Operation", "metadata": {"generateName": "o-"},
            "spec": {"type": verb, "target": {"kind": target.0, "name": target.1}}});
        if verb == "Move" {
            operation["spec"]["move"] = json!({"to": "db2"});
        }
        if !by.is_empty() {
            operation["spec"]["requestedBy"] = json!(by);
        }
        world.call_as(user(who), "POST", OPERATIONS, operation).await
    };
    let ledger = ("FailoverGroup", "ledger");
    ask("bob", "Stop", ledger, "").await.expect(201);
    ask("bob", "Stop", ledger, "bob").await.expect(201);
    let refused = ask("bob", "Move", ledger, "").await.expect(403);
    let message = refused["message"].as_str().expect("text");
    assert!(
        message.contains("User \"bob\" cannot move resource \"failovergroups\" in API group \"holdfast.dev\" in the namespace \"default\", which the operation would do to \"ledger\""),
        "{message}"
    );
    ask("bob", "Stop", ("FailoverGroup", "other"), "").await.expect(403);
    let refused = ask("bob", "Stop", ledger, "alice").await.expect(403);
    assert!(refused["message"].as_str().expect("text").contains("spec.requestedBy is \"alice\""), "{refused}");
    ask("olga", "Move", ledger, "").await.expect(201);
    ask("olga", "Detach", ("Server", "db.db1"), "").await.expect(201);
    ask("olga", "RotateKey", ("SubCluster", "db"), "").await.expect(403);
    ask("victor", "Stop", ledger, "").await.expect(403);
    world.call_as(user("victor"), "GET", OPERATIONS, Value::Null).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_answer_what_the_rules_say() {
    let world = World::new().await;
    world.call("POST", BINDINGS, binding("view", ("ClusterRole", "holdfast-view"), "victor")).await.expect(201);
    settle(&world).await;
    let review = async |kind: &str, path: &str, spec: Value| {
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
        world.call("POST", path, body).await
    };
    let asked = |verb: &str, namespace: &str| json!({"verb": verb, "group": "holdfast.dev", "resource": "subclusters", "namespace": namespace});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for (verb, namespace, allowed) in
        [("list", "default", true), ("list", "other", false), ("delete", "default", false)]
    {
        let spec = json!({"user": "victor", "resourceAttributes": asked(verb, namespace)});
        let answer = review("SubjectAccessReview", path, spec).await.expect(201);
        assert_eq!(answer["status"]["allowed"], allowed, "{verb} {namespace}");
    }
    let spec = json!({"user": "root", "groups": ["system:masters"], "resourceAttributes": asked("delete", "x")});
    assert_eq!(review("SubjectAccessReview", path, spec).await.expect(201)["status"]["allowed"], true);
    review("SubjectAccessReview", path, json!({"resourceAttributes": asked("list", "x")})).await.expect(400);
    let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let spec = |namespace: &str| json!({"user": "victor", "resourceAttributes": asked("watch", namespace)});
    let answer = review("LocalSubjectAccessReview", local, spec("default")).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    review("LocalSubjectAccessReview", local, spec("other")).await.expect(400);
}

mod kubectl {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_makes_roles_and_a_user_has_them() {
        let world = World::new().await;
        let admin = async |arguments: &[&str]| world.kubectl(arguments, "").await;
        admin(&["create", "role", "reader", "--verb=get,list,watch", "--resource=configmaps"]).await;
        admin(&["create", "rolebinding", "reader", "--role=reader", "--user=rita", "--group=readers"]).await;
        admin(&["create", "clusterrole", "metrics", "--verb=get", "--non-resource-url=/metrics"]).await;
        admin(&["create", "clusterrolebinding", "metrics", "--clusterrole=metrics", "--group=readers"]).await;
        assert!(admin(&["get", "rolebindings"]).await.contains("reader"));
        assert!(admin(&["describe", "role", "reader"]).await.contains("configmaps"));
        let text = holdfast_apiserver::pki::issue_user_kubeconfig(world.dir.path(), world.pki.url(), "rita", None);
        let config = world.dir.path().join("rita.kubeconfig");
        std::fs::write(&config, text.expect("a kubeconfig")).expect("written");
        let rita = async |arguments: &[&str]| {
            let output = support::kubectl(config.clone(), world.dir.path().join("rita-home"), arguments, "").await;
            (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        settle(&world).await;
        assert!(rita(&["get", "configmaps"]).await.0);
        let (ok, text) = rita(&["create", "configmap", "m"]).await;
        assert!(!ok && text.contains("User \"rita\" cannot create resource \"configmaps\""), "{text}");
        let (_, list) = rita(&["auth", "can-i", "--list"]).await;
        assert!(list.contains("configmaps") && list.contains("[get list watch]"), "{list}");
        assert_eq!(rita(&["auth", "can-i", "get", "secrets"]).await.1, "no\n");
        // The administrator looks with somebody else's eyes.
        assert_eq!(admin(&["auth", "can-i", "get", "/metrics", "--as=x", "--as-group=readers"]).await, "yes\n");
        admin(&["delete", "rolebinding", "reader"]).await;
        settle(&world).await;
        assert!(!rita(&["get", "configmaps"]).await.0, "what was taken away is gone at once");
    }
}
