//! Requests that nobody would write: bodies, patches, selectors and continue tokens, mutated from valid ones.
//!
//! Each test mutates for `FUZZ_SECONDS` (default 0.5; `make fuzz` takes a minute) with the numbers of `FUZZ_SEED` (default
//! 1), so a failure comes again. The whole server answers, in this process and with `dryRun`: whatever comes, it must not
//! panic, must answer in time, and with an object, or with a Status that blames the request.

#[path = "../../../node-agent/fuzz/mutate.rs"]
mod mutate;
mod support;

use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use mutate::Random;
use serde_json::{Value, json};
use support::{World, group, sub_cluster};

const BASE: &str = "/apis/holdfast.dev/v1/namespaces/default";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The longest answer to one request, on a machine that does much else.
const LONGEST: Duration = Duration::from_secs(20);

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; it has to be a number")),
        Err(_) => default,
    }
}

/// A server with objects to change.
async fn world() -> World {
    let world = World::new().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"a": "b"}}, "data": {"k": "v"}});
    world.call("POST", MAPS, map).await.expect(201);
    world.call("POST", &format!("{BASE}/subclusters"), sub_cluster("db")).await.expect(201);
    world.call("POST", &format!("{BASE}/failovergroups"), group("ledger", "db")).await.expect(201);
    world
}

/// Plays mutated inputs; `requests` makes the requests of one input.
async fn play(name: &str, seeds: &[Vec<u8>], requests: impl Fn(&[u8]) -> Vec<Request<Vec<u8>>>) {
    let world = world().await;
    let mut random = Random::new(setting("FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs_f64(setting("FUZZ_SECONDS", 0.5));
    let (mut count, mut taken, mut valid) = (0_u64, 0_u64, seeds.iter());
    loop {
        let input = match valid.next() {
            Some(seed) => seed.clone(),
            None if Instant::now() < end => random.input(seeds),
            None => break,
        };
        for request in requests(&input) {
            let shown = format!("{name}: {} {}\n{}", request.method(), request.uri(), String::from_utf8_lossy(&input));
            let answer = world.request(Some(World::admin()), request.map(Body::from));
            let reply = tokio::time::timeout(LONGEST, answer).await.unwrap_or_else(|_| panic!("no answer: {shown}"));
            // 504 says that a revision is not reached yet.
            assert!(reply.code < 500 || reply.code == 504, "{} {}: {shown}", reply.code, reply.text);
            let status = reply.body["kind"] == "Status" && reply.body["code"] == reply.code;
            assert!(reply.code < 300 || status, "no Status: {} {shown}", reply.text);
            taken += u64::from(reply.code < 300);
            count += 1;
        }
    }
    println!("{name}: {count} requests, {taken} taken");
    assert!(taken > 0, "not even a valid one is taken");
    world.get(&format!("{BASE}/subclusters/db")).await.expect(200);
}

fn request(method: &str, path: &str, kind: &str, body: &[u8]) -> Request<Vec<u8>> {
    Request::builder().method(method).uri(path).header("content-type", kind).body(body.to_vec()).expect("a request")
}

/// The values, and each with one part of it replaced by something else, or taken out: every part, by everything.
fn with_odd_parts(values: &[Value]) -> Vec<Vec<u8>> {
    fn pointers(value: &Value, here: &str, out: &mut Vec<String>) {
        let below: Vec<(String, &Value)> = match value {
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
            }
            Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
            _ => Vec::new(),
        };
        out.push(here.to_owned());
        below.into_iter().for_each(|(step, value)| pointers(value, &format!("{here}/{step}"), out));
    }
    let others = [
        json!(null),
        json!(""),
        json!("x"),
        json!(-1),
        json!(0.5),
        json!(true),
        json!([]),
        json!({}),
        json!([{}]),
        json!({"x": [0]}),
    ];
    let mut out: Vec<Vec<u8>> = values.iter().map(|value| value.to_string().into_bytes()).collect();
    for value in values {
        let mut places = Vec::new();
        pointers(value, "", &mut places);
        for place in places {
            for other in &others {
                let mut odd = value.clone();
                *odd.pointer_mut(&place).expect("a place of the value") = other.clone();
                out.push(odd.to_string().into_bytes());
            }
            let Some((parent, step)) = place.rsplit_once('/') else { continue };
            let mut odd = value.clone();
            if let Some(map) = odd.pointer_mut(parent).and_then(Value::as_object_mut) {
                map.remove(&step.replace("~1", "/").replace("~0", "~"));
                out.push(odd.to_string().into_bytes());
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "labels": {"a": "b"},
        "finalizers": ["a/b"], "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "m", "uid": "u"}],
        "managedFields": [{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:k": {}}}}]},
        "data": {"k": "v"}});
    let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y, annotations: &a {b: c}}\ndata: *a\n".to_vec();
    let mut seeds = with_odd_parts(&[map, sub_cluster("n"), group("n", "db")]);
    seeds.push(yaml);
    seeds.push(b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01n\x1a\0\x22\0".to_vec());
    play("bodies", &seeds, |input| {
        let mut requests = Vec::new();
        for (path, kind) in [
            (MAPS.to_owned(), "application/json"),
            (MAPS.to_owned(), "application/yaml"),
            (MAPS.to_owned(), "application/vnd.kubernetes.protobuf"),
            (format!("{BASE}/subclusters"), "application/yaml"),
            (format!("{BASE}/failovergroups"), "application/json"),
            ("/api/v1/namespaces".to_owned(), "application/json"),
        ] {
            requests.push(request("POST", &format!("{path}?dryRun=All&fieldValidation=Ignore"), kind, input));
        }
        requests.push(request("PUT", &format!("{MAPS}/m?dryRun=All"), "application/json", input));
        requests.push(request("DELETE", &format!("{MAPS}/m?dryRun=All"), "application/json", input));
        requests
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches() {
    let applied = json!({"apiVersion": "holdfast.dev/v1", "kind": "SubCluster", "metadata": {"name": "db"},
        "spec": {"servers": [{"name": "db2", "site": "b"}], "heartbeat": {"timeout": "5s"}}});
    let seeds = with_odd_parts(&[
        json!({"metadata": {"labels": {"a": null, "c": "d"}}, "data": {"k": "w"}, "spec": {"servers": null}}),
        json!([{"op": "test", "path": "/metadata/labels/a", "value": "b"}, {"op": "add", "path": "/metadata/labels/x~1y", "value": "z"},
            {"op": "copy", "from": "/data", "path": "/data/k"}, {"op": "move", "from": "/data/k", "path": "/data/l"},
            {"op": "replace", "path": "/spec/servers/0/id", "value": 7}, {"op": "remove", "path": "/metadata/labels"}]),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "finalizers": ["a/b"]}, "data": {"k": "w"}}),
        applied,
    ]);
    play("patches", &seeds, |input| {
        let mut requests = Vec::new();
        for item in
            [format!("{MAPS}/m"), format!("{BASE}/subclusters/db"), format!("{BASE}/failovergroups/ledger/status")]
        {
            for kind in ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"] {
                let path = format!("{item}?dryRun=All&fieldManager=f");
                requests.push(request("PATCH", &path, &format!("application/{kind}"), input));
            }
        }
        requests
    })
    .await;
}

/// Every byte as `%XX`, which is what a query can carry.
fn escaped(input: &[u8]) -> String {
    input.iter().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors() {
    let seeds: Vec<Vec<u8>> = [
        "a=b,c!=d,e in (f,g),h notin (i),!j,k,l>3,m<-4",
        "holdfast.dev/sub-cluster==db",
        "metadata.name=m,metadata.namespace!=x\\,y\\=z\\\\",
        "data.k=v",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    play("selectors", &seeds, |input| {
        let text = escaped(input);
        ["labelSelector", "fieldSelector", "limit", "resourceVersion", "timeoutSeconds", "fieldManager"]
            .map(|name| request("GET", &format!("{MAPS}?{name}={text}"), "application/json", b""))
            .into()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_tokens() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    // What a server gives, as it is and taken out of its wrapping.
    let world = world().await;
    world
        .call("POST", MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "z"}}))
        .await
        .expect(201);
    let first = world.get(&format!("{MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    let inner = URL_SAFE_NO_PAD.decode(&token).expect("base64");
    play("continue tokens", &[inner], |input| {
        let wrapped = URL_SAFE_NO_PAD.encode(input);
        [wrapped, escaped(input)]
            .map(|token| request("GET", &format!("{MAPS}?limit=1&continue={token}"), "application/json", b""))
            .into()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bearer_tokens() {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let world = world().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ci"}});
    world.call("POST", accounts, account).await.expect(201);
    let made = world.call("POST", &format!("{accounts}/ci/token"), json!({})).await.expect(201);
    let token = made["status"]["token"].as_str().expect("a token").to_owned();
    let send = async |token: &[u8]| {
        let Ok(value) = http::HeaderValue::from_bytes(&[b"Bearer ", token].concat()) else { return None };
        let request = Request::get("/api").header("authorization", value).body(Body::empty()).expect("a request");
        Some(world.request(Some(World::admin()), request).await.code)
    };
    assert_eq!(send(token.as_bytes()).await, Some(200));
    let seeds = [token.clone().into_bytes(), b"abcdef.0123456789abcdef".to_vec()];
    let mut random = Random::new(setting("FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs_f64(setting("FUZZ_SECONDS", 0.5));
    while Instant::now() < end {
        let input = random.input(&seeds);
        let code = send(&input).await;
        // Space around a token is no part of it.
        let same = String::from_utf8_lossy(&input).trim() == token;
        assert!(code.is_none() || code == Some(401) || same && code == Some(200), "{code:?}: {input:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_tokens_and_reviews() {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let seeds = with_odd_parts(&[
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": null}}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "a.b.c", "audiences": ["x"]}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}, "secrets": [{"name": "y"}]}),
    ]);
    play("requests for tokens", &seeds, |input| {
        let json = "application/json";
        [format!("{accounts}/default/token?dryRun=All"), format!("{accounts}?dryRun=All&fieldValidation=Ignore")]
            .into_iter()
            .chain(["/apis/authentication.k8s.io/v1/tokenreviews".to_owned()])
            .map(|path| request("POST", &path, json, input))
            .collect()
    })
    .await;
}

#[test]
fn key_files_sealed_values_and_records() {
    use holdfast_apiserver::authority::check_record;
    use holdfast_apiserver::keys::{Keys, SecretKeys, TokenKeys};
    let dir = tempfile::tempdir().expect("a directory");
    let keys = Keys::load_or_create(dir.path()).expect("keys");
    let read = |name: &str| std::fs::read(dir.path().join("pki").join(name)).expect("read");
    let sealed = [b"holdfast:sealed:v1:", keys.secrets().ids()[0].as_bytes(), b":", &[0; 60]].concat();
    let record = br#"{"ca":"sha256:00","tokens":["a"],"secrets":["b"]}"#.to_vec();
    check_record(&record).expect("a record");
    let seeds = [read("tokens.keys"), read("secrets.keys"), sealed, record];
    let mut random = Random::new(setting("FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs_f64(setting("FUZZ_SECONDS", 0.5));
    while Instant::now() < end {
        let input = random.input(&seeds);
        let text = String::from_utf8_lossy(&input);
        // Whatever stands there: no panic, and nothing opens that was not sealed.
        drop((SecretKeys::parse(&text).map(drop), TokenKeys::parse(&text).map(drop), check_record(&input)));
        assert!(keys.secrets().open("/registry/core/secrets/a/b", &input).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_certificates() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "holdfast:server:default:db:db1");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "holdfast:servers");
    let made = params.serialize_request(&key).expect("signed");
    let body = |bytes: &[u8]| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "x"}, "spec":
            {"request": STANDARD.encode(bytes), "signerName": "holdfast.dev/agent", "usages": ["client auth"], "expirationSeconds": 600}})
    };
    let pem = made.pem().expect("PEM").into_bytes();
    let mut seeds = with_odd_parts(&[body(&pem)]);
    seeds.extend([pem, made.der().to_vec()]);
    play("requests for certificates", &seeds, |input| {
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests?dryRun=All&fieldValidation=Ignore";
        let wrapped = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(input)
        );
        // Changed as JSON, as PEM and as DER: what none has signed is never taken.
        let impersonated = |bytes: &[u8]| {
            let mut made = request("POST", path, "application/json", bytes);
            made.headers_mut()
                .insert("impersonate-user", http::HeaderValue::from_static("holdfast:server:default:db:db1"));
            made
        };
        vec![
            impersonated(input),
            impersonated(body(input).to_string().as_bytes()),
            impersonated(body(wrapped.as_bytes()).to_string().as_bytes()),
        ]
    })
    .await;
}

/// A file that says it is a backup. Whatever is taken is exactly what was written: the checksum sees to that, so the parser
/// is also played the lines with a checksum that fits.
#[test]
fn backups() {
    use holdfast_apiserver::backup::Backup;
    use sha2::{Digest, Sha256};

    let backup = Backup {
        created: "2026-03-02T01:00:00Z".into(),
        revision: 7,
        entries: vec![("/registry/core/configmaps/ha/a".into(), b"{}".to_vec())],
        files: vec![("pki/ca.crt".into(), b"x".to_vec())],
    };
    let whole = backup.to_bytes();
    let end = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
    let seeds = [whole[..end].to_vec()];
    let mut random = Random::new(setting("FUZZ_SEED", 1));
    let deadline = Instant::now() + Duration::from_secs_f64(setting("FUZZ_SECONDS", 0.5));
    let (mut count, mut taken) = (0_u64, 0_u64);
    while Instant::now() < deadline {
        let mut input = if count == 0 { seeds[0].clone() } else { random.input(&seeds) };
        let bare = Backup::parse(&input);
        assert!(bare.is_err(), "taken without its it printed: {input:?}");
        let sum: String = Sha256::digest(&input).iter().map(|byte| format!("{byte:02x}")).collect();
        input.extend(format!("{{\"entries\":1,\"files\":1,\"sha256\":\"{sum}\"}}\n").into_bytes());
        if let Ok(read) = Backup::parse(&input) {
            taken += 1;
            assert!(read.entries.iter().all(|(key, _)| key.starts_with("/registry/")), "{read:?}");
            assert!(
                read.files.iter().all(|(name, _)| name.starts_with("pki/") && name.matches('/').count() == 1),
                "{read:?}"
            );
            assert_eq!(Backup::parse(&read.to_bytes()).as_ref(), Ok(&read), "what was read is written and read again");
        }
        count += 1;
    }
    println!("backups: {count} files, {taken} taken");
    assert!(taken > 0, "not even a valid one is taken");
}
