//! Join tokens and certificates: who gets which certificate, and who does not.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_apiserver::Identity;
use holdfast_apiserver::join_tokens::{NAMESPACE, TYPE, secret_name};
use http::Request;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use support::{Reply, World, sub_cluster, until};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const TOKEN: &str = "abcdef.0123456789abcdef";
const DB1: &str = "holdfast:server:default:db:db1";
const DB2: &str = "holdfast:server:default:db:db2";

/// A PKCS #10 request, in base64.
fn pkcs10(key: &KeyPair, user: &str, group: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    STANDARD.encode(params.serialize_request(key).expect("signed").pem().expect("PEM"))
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn request(name: &str, key: &KeyPair, user: &str) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": pkcs10(key, user, "holdfast:servers"), "signerName": "holdfast.dev/agent", "usages": ["client auth"]}})
}

/// Puts a token into the store that ends in so many seconds.
async fn make_token(world: &World, seconds: i64, uses: u32) {
    let until =
        (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": {"name": secret_name("abcdef")}, "stringData": {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "expiration": until, "usage-bootstrap-authentication": "true",
        "server": "default/db/db1", "uses": uses.to_string()}});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let _ = world.call("DELETE", &format!("{path}/{}", secret_name("abcdef")), Value::Null).await;
    world.call("POST", &path, secret).await.expect(201);
}

/// A request that shows a token.
async fn with_token(world: &World, token: &str, method: &str, path: &str, body: Value) -> Reply {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(axum::body::Body::from(body.to_string()));
    world.request(None, request.expect("a request")).await
}

async fn ask(world: &World, body: Value) -> Reply {
    with_token(world, TOKEN, "POST", REQUESTS, body).await
}

fn message(status: &Value) -> String {
    status["message"].as_str().expect("a message").to_owned()
}

fn is_signed(object: &Value) -> bool {
    object["status"]["certificate"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_the_certificate_of_its_server_for_as_many_keys_as_it_has_uses() {
    let world = World::new().await;
    let (first, second) = (key(), key());
    ask(&world, request("none", &first, DB1)).await.expect(401);
    make_token(&world, 3600, 1).await;
    // For nothing else than a request for a certificate.
    with_token(&world, TOKEN, "GET", "/api/v1/namespaces/kube-system/secrets", Value::Null).await.expect(403);
    with_token(&world, TOKEN, "GET", REQUESTS, Value::Null).await.expect(403);
    with_token(&world, "abcdef.0123456789abcdee", "POST", REQUESTS, request("x", &first, DB1)).await.expect(401);
    let other = ask(&world, request("other", &first, DB2)).await.expect(403);
    assert!(message(&other).contains("is for the server \"default/db/db1\", not for \"default/db/db2\""), "{other}");
    assert!(message(&other).contains("holdfast token create --server default/db/db2"), "{other}");
    for user in ["admin", "holdfast:server:default:db", "holdfast:server:default:db:db1:x"] {
        assert!(
            message(&ask(&world, request("x", &first, user)).await.expect(422)).contains("the subject is"),
            "{user}"
        );
    }
    let mut masters = request("masters", &first, DB1);
    masters["spec"]["request"] = pkcs10(&first, DB1, "system:masters").into();
    ask(&world, masters).await.expect(422);
    let mut serving = request("serving", &first, DB1);
    serving["spec"]["usages"] = json!(["server auth", "client auth"]);
    assert!(message(&ask(&world, serving).await.expect(422)).contains("spec.usages"));
    let mut foreign = request("foreign", &first, DB1);
    foreign["spec"]["signerName"] = "kubernetes.io/kube-apiserver-client".into();
    ask(&world, foreign).await.expect(403);

    let made = ask(&world, request("first", &first, DB1)).await.expect(201);
    assert!(is_signed(&made), "{made}");
    assert_eq!(made["spec"]["username"], "system:bootstrap:abcdef");
    assert_eq!(made["status"]["conditions"][0]["type"], "Approved");
    // After a crash the same key asks again; another one does not get anything.
    assert!(is_signed(&ask(&world, request("again", &first, DB1)).await.expect(201)));
    let used_up = ask(&world, request("second", &second, DB1)).await.expect(403);
    assert!(message(&used_up).contains("used up"), "{used_up}");

    make_token(&world, -1, 1).await;
    ask(&world, request("late", &second, DB1)).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_its_next_certificate_while_its_server_is_listed_and_no_other() {
    let world = World::new().await;
    let agent = || Identity::new(DB1, ["holdfast:servers"]);
    let ask =
        async |name: &str, user: &str| world.call_as(agent(), "POST", REQUESTS, request(name, &key(), user)).await;
    assert!(is_signed(&ask("before-the-sub-cluster-is-there", DB1).await.expect(201)));
    ask("of-another", DB2).await.expect(403);
    world.call("POST", "/apis/holdfast.dev/v1/namespaces/default/subclusters", sub_cluster("db")).await.expect(201);
    assert!(is_signed(&ask("listed", DB1).await.expect(201)));
    let stranger = Identity::new("holdfast:server:default:db:db9", ["holdfast:servers"]);
    let body = request("not-listed", &key(), "holdfast:server:default:db:db9");
    let refused = world.call_as(stranger, "POST", REQUESTS, body).await.expect(403);
    assert!(message(&refused).contains("has no server \"db9\" any more"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_ask_for_waits_for_an_approval_by_who_may_give_it() {
    let world = World::new().await;
    let first = key();
    let pending = world.call("POST", REQUESTS, request("pending", &first, DB1)).await.expect(201);
    assert!(!is_signed(&pending));
    // Nobody says for himself who asks, or writes the answer at once.
    let mut forged = request("forged", &first, DB1);
    forged["spec"]["username"] = DB1.into();
    forged["status"] = json!({"certificate": "eA==", "conditions": [{"type": "Approved", "status": "True"}]});
    let forged = world.call("POST", REQUESTS, forged).await.expect(201);
    assert_eq!((&forged["spec"]["username"], &forged["status"]), (&json!("admin"), &Value::Null));
    let rules = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"], "verbs": ["get", "update"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "a"}, "rules": rules});
    world.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    world.kubectl(&["create", "clusterrolebinding", "a", "--clusterrole=a", "--user=half"], "").await;
    let can = ["auth", "can-i", "update", "certificatesigningrequests/approval", "--as=half"];
    until("the binding counts", || async { world.kubectl_raw(&can, "").await.status.success().then_some(()) }).await;
    let error = world.kubectl_fails(&["certificate", "approve", "pending", "--as=half"], "").await;
    assert!(error.contains("cannot approve resource \"signers\""), "{error}");
    world.kubectl(&["certificate", "approve", "pending"], "").await;
    let approved = world.get(&format!("{REQUESTS}/pending")).await.expect(200);
    assert!(is_signed(&approved), "{approved}");
    world.kubectl(&["certificate", "deny", "forged"], "").await;
    assert!(!is_signed(&world.get(&format!("{REQUESTS}/forged")).await.expect(200)));
    assert!(world.kubectl(&["get", "csr"], "").await.contains("holdfast.dev/agent"));
    // What was asked for stays as it was.
    let mut other = approved.clone();
    other["spec"]["request"] = pkcs10(&key(), DB2, "holdfast:servers").into();
    let after = world.call("PUT", &format!("{REQUESTS}/pending"), other).await.expect(200);
    assert_eq!(after["spec"], approved["spec"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_certificate_is_of_the_agent_and_the_servers_own_authority_and_ends_as_asked() {
    let world = World::new().await;
    let mut body = request("short", &key(), DB1);
    body["spec"]["expirationSeconds"] = 7200.into();
    let agent = Identity::new(DB1, ["holdfast:servers"]);
    let made = world.call_as(agent.clone(), "POST", REQUESTS, body.clone()).await.expect(201);
    let pem = STANDARD.decode(made["status"]["certificate"].as_str().expect("signed")).expect("base64");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let certificate = pem.parse_x509().expect("a certificate");
    let (_, ca) = x509_parser::pem::parse_x509_pem(world.pki.ca_pem().as_bytes()).expect("PEM");
    certificate.verify_signature(Some(ca.parse_x509().expect("a certificate").public_key())).expect("signed by the CA");
    assert_eq!(certificate.subject().to_string(), format!("CN={DB1}, O=holdfast:servers"));
    let left = certificate.validity().not_after.timestamp() - jiff::Timestamp::now().as_second();
    assert!((7100..=7200).contains(&left), "{left}");
    assert!(!certificate.is_ca());
    body["metadata"]["name"] = "too-short".into();
    body["spec"]["expirationSeconds"] = 599.into();
    assert!(
        message(&world.call_as(agent, "POST", REQUESTS, body).await.expect(422)).contains("spec.expirationSeconds")
    );
    // A certificate that has ended counts no more on a connection that it once opened.
    let past = Identity { until: Some(1), ..Identity::new(DB1, ["holdfast:servers"]) };
    world.call_as(past, "GET", "/api", Value::Null).await.expect(401);
}
