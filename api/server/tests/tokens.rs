//! ServiceAccounts and their tokens, as kubectl and programs with a bearer token use them.

mod support;

use axum::body::Body;
use holdfast_apiserver::Identity;
use http::Request;
use serde_json::{Value, json};
use support::{Reply, World, until};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A request with a token, over a connection of somebody.
async fn with_token(world: &World, identity: Option<Identity>, token: &str, path: &str) -> Reply {
    let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty());
    world.request(identity, request.expect("a request")).await
}

async fn account(world: &World, name: &str) -> Value {
    let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    world.call("POST", ACCOUNTS, body).await.expect(201)
}

async fn token(world: &World, name: &str, spec: Value) -> Reply {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    world.call("POST", &format!("{ACCOUNTS}/{name}/token"), body).await
}

async fn good_token(world: &World, name: &str) -> String {
    let answer = token(world, name, json!({})).await.expect(201);
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_has_a_default_account_which_comes_back() {
    let world = World::new().await;
    world.namespace("ha").await;
    for namespace in ["default", "ha"] {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let there = async || {
            until("the account is there", || async { (world.get(&path).await.code == 200).then_some(()) }).await
        };
        there().await;
        world.call("DELETE", &path, Value::Null).await.expect(200);
        there().await;
    }
    world.call("DELETE", "/api/v1/namespaces/ha", Value::Null).await.expect(200);
    until("the namespace goes", || async { (world.get("/api/v1/namespaces/ha").await.code == 404).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_only_as_it_was_signed_and_only_while_its_account_exists() {
    let world = World::new().await;
    account(&world, "ci").await;
    let token = good_token(&world, "ci").await;
    let me = async |token: &str| with_token(&world, None, token, "/api/v1/namespaces/default/configmaps").await;
    let refused = me(&token).await.expect(403);
    let message = refused["message"].as_str().expect("a message");
    assert!(message.contains("User \"system:serviceaccount:default:ci\" cannot list"), "{message}");

    // A wrong token outweighs every certificate, also the administrator's.
    let last = if token.ends_with('A') { "B" } else { "A" };
    let changed = format!("{}{last}", &token[..token.len() - 1]);
    let without_signature = token.rsplit_once('.').expect("three parts").0;
    for wrong in ["", "x", "a.b.c", without_signature, &changed] {
        with_token(&world, Some(World::admin()), wrong, "/api").await.expect(401);
    }
    let basic = Request::get("/api").header("authorization", "Basic YTpi").body(Body::empty()).expect("a request");
    world.request(Some(World::admin()), basic).await.expect(401);
    // And a good one counts before the certificate.
    let who = with_token(&world, Some(World::admin()), &token, "/api/v1/namespaces/default/configmaps").await;
    who.expect(403);

    world.call("DELETE", &format!("{ACCOUNTS}/ci"), Value::Null).await.expect(200);
    until("the token ends with its account", || async { (me(&token).await.code == 401).then_some(()) }).await;
    account(&world, "ci").await;
    let new = good_token(&world, "ci").await;
    me(&new).await.expect(403);
    me(&token).await.expect(401);

    // Keys of another store sign nothing here.
    let other = World::new().await;
    account(&other, "ci").await;
    me(&good_token(&other, "ci").await).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_with_a_life_and_an_audience_or_refused_with_the_field() {
    let world = World::new().await;
    account(&world, "ci").await;
    for (spec, field) in [
        (json!({"expirationSeconds": 599}), "spec.expirationSeconds"),
        (json!({"expirationSeconds": 1_u64 << 33}), "spec.expirationSeconds"),
        (json!({"expirationSeconds": "x"}), "spec.expirationSeconds"),
        (json!({"audiences": "x"}), "spec.audiences"),
        (json!({"boundObjectRef": {"kind": "Pod", "name": "p"}}), "spec.boundObjectRef"),
    ] {
        let status = token(&world, "ci", spec.clone()).await.expect(422);
        assert!(status["message"].as_str().expect("a message").contains(field), "{spec}: {status}");
    }
    token(&world, "nobody", json!({})).await.expect(404);
    let nobody = Identity::new("eve", ["visitors"]);
    world.call_as(nobody, "POST", &format!("{ACCOUNTS}/ci/token"), json!({})).await.expect(403);

    let vault = token(&world, "ci", json!({"audiences": ["vault"], "expirationSeconds": 7200})).await.expect(201);
    assert_eq!(vault["spec"]["expirationSeconds"], 7200);
    let vault = vault["status"]["token"].as_str().expect("a token").to_owned();
    with_token(&world, None, &vault, "/api").await.expect(401);
    let review = async |token: &str, audiences: Value| {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
        world.call("POST", REVIEWS, body).await.expect(201)["status"].clone()
    };
    assert_eq!(review(&vault, json!([])).await["authenticated"], false);
    let known = review(&vault, json!(["x", "vault"])).await;
    assert_eq!((&known["authenticated"], &known["audiences"]), (&json!(true), &json!(["vault"])));
    let own = review(&good_token(&world, "ci").await, json!([])).await;
    assert_eq!(own["user"]["username"], "system:serviceaccount:default:ci");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(own["user"]["groups"], groups);
    assert_eq!(review("nonsense", json!([])).await["authenticated"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_of_accounts_need_their_namespace_and_take_the_group_that_fits() {
    let world = World::new().await;
    let bind = async |name: &str, subject: Value| {
        let body = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}, "subjects": [subject]});
        world.call("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", body).await
    };
    let missing = bind("a", json!({"kind": "ServiceAccount", "name": "ci"})).await.expect(422);
    assert!(missing["message"].as_str().expect("a message").contains("namespace: Required value"), "{missing}");
    bind(
        "a",
        json!({"kind": "ServiceAccount", "name": "ci", "namespace": "x", "apiGroup": "rbac.authorization.k8s.io"}),
    )
    .await
    .expect(422);
    let made = bind("a", json!({"kind": "ServiceAccount", "name": "ci", "namespace": "x"})).await.expect(201);
    assert_eq!(made["subjects"][0], json!({"kind": "ServiceAccount", "name": "ci", "namespace": "x"}));
    let made = bind("b", json!({"kind": "User", "name": "ci"})).await.expect(201);
    assert_eq!(made["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
}

mod kubectl {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_creates_tokens_and_acts_with_them() {
        let world = World::new().await;
        let admin = async |arguments: &[&str]| world.kubectl(arguments, "").await;
        admin(&["create", "serviceaccount", "ci"]).await;
        assert!(admin(&["get", "sa"]).await.contains("ci"));
        let token = admin(&["create", "token", "ci", "--duration", "20m"]).await.trim().to_owned();
        let error = world.kubectl_fails(&["create", "token", "ci", "--duration", "1m"], "").await;
        assert!(error.contains("less than 10 minutes"), "{error}");

        // A kubeconfig without certificate, so that the token is all there is.
        let mut config: Value =
            serde_yaml::from_str(&std::fs::read_to_string(world.kubeconfig()).expect("read")).expect("YAML");
        config["users"][0]["user"] = json!({});
        let path = world.dir.path().join("token.kubeconfig");
        std::fs::write(&path, config.to_string()).expect("written");
        let ci = async |arguments: &[&str]| {
            let arguments: Vec<&str> = ["--token", &token].into_iter().chain(arguments.iter().copied()).collect();
            let output = support::kubectl(path.clone(), world.dir.path().join("ci-home"), &arguments, "").await;
            (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let (_, me) = ci(&["auth", "whoami"]).await;
        assert!(
            me.contains("system:serviceaccount:default:ci") && me.contains("system:serviceaccounts:default"),
            "{me}"
        );
        assert_eq!(ci(&["auth", "can-i", "create", "configmaps"]).await.1, "no\n");
        admin(&["create", "role", "maps", "--verb=create,get,list,watch", "--resource=configmaps"]).await;
        admin(&["create", "rolebinding", "ci", "--role=maps", "--serviceaccount=default:ci"]).await;
        until("the binding counts", || async {
            (ci(&["auth", "can-i", "create", "configmaps"]).await.1 == "yes\n").then_some(())
        })
        .await;
        let (ok, text) = ci(&["create", "configmap", "m"]).await;
        assert!(ok, "{text}");
        assert!(!ci(&["get", "secrets"]).await.0);
        let as_ci = admin(&["auth", "can-i", "create", "configmaps", "--as=system:serviceaccount:default:ci"]).await;
        assert_eq!(as_ci, "yes\n");
        admin(&["delete", "serviceaccount", "ci"]).await;
        let (ok, text) = ci(&["get", "configmaps"]).await;
        assert!(!ok && text.contains("Unauthorized") || text.contains("must be logged in"), "{text}");
    }
}
