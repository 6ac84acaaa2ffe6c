//! The documented clusters are taken as they stand; what is wrong is refused with its path, what was found, what to do.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use holdfast_api::{
    crds,
    schema::{Rules, apply_defaults, unknown_fields, validate_with},
    schema_of, support, v1, validation,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn manifests(path: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

/// Schemas and compiled rules by kind, as a server keeps them.
static KINDS: LazyLock<BTreeMap<String, (Value, Rules)>> = LazyLock::new(|| {
    let one = |plural: &str| {
        let schema = schema_of(plural).expect("every kind has a schema");
        let rules = Rules::compile(&schema);
        (schema, rules)
    };
    crds().into_iter().map(|crd| (crd.spec.names.kind, one(&crd.spec.names.plural))).collect()
});

fn kind(object: &Value) -> &'static (Value, Rules) {
    let kind = object["kind"].as_str().expect("a manifest has a kind");
    KINDS.get(kind).unwrap_or_else(|| panic!("{kind} is none of our kinds"))
}

/// What an API server does before it stores an object; the answer is what it would say.
fn admit(object: &mut Value, old: Option<&Value>) -> Vec<String> {
    let (schema, rules) = kind(object);
    let unknown: Vec<String> =
        unknown_fields(schema, object).iter().map(|path| format!("{path}: unknown field")).collect();
    if !unknown.is_empty() {
        return unknown;
    }
    apply_defaults(schema, object);
    validate_with(schema, rules, object, old).iter().map(ToString::to_string).collect()
}

/// The object survives the way through its Rust type.
fn round_trip<T: DeserializeOwned + serde::Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{}: {e}", object["kind"]));
    let mut back = serde_json::to_value(&typed).expect("a typed object has a JSON form");
    apply_defaults(&kind(object).0, &mut back);
    assert_eq!(stripped(&back["spec"]), stripped(&object["spec"]), "{} changes on the way", object["kind"]);
    assert_eq!(stripped(&back["status"]), stripped(&object["status"]), "{} changes on the way", object["kind"]);
}

/// Empty lists and maps say the same as absent ones.
fn stripped(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (k.clone(), stripped(v)))
                .filter(|(_, v)| !(v.is_null() || *v == json!([]) || *v == json!({}) || *v == json!("")))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(stripped).collect()),
        other => other.clone(),
    }
}

#[test]
fn documented_clusters_are_taken() {
    for file in ["a-two-servers", "b-three-servers", "c-mirrored", "reference"] {
        for mut object in manifests(&format!("tests/manifests/{file}.yaml")) {
            let errors = admit(&mut object, None);
            assert!(errors.is_empty(), "{file}: {} {}: {errors:#?}", object["kind"], object["metadata"]["name"]);
            match object["kind"].as_str() {
                Some("SuperCluster") => round_trip::<v1::SuperCluster>(&object),
                Some("SubCluster") => round_trip::<v1::SubCluster>(&object),
                Some("Server") => round_trip::<v1::Server>(&object),
                Some("FailoverGroup") => round_trip::<v1::FailoverGroup>(&object),
                Some("DataService") => round_trip::<v1::DataService>(&object),
                Some("Operation") => round_trip::<v1::Operation>(&object),
                other => panic!("unexpected kind {other:?}"),
            }
            // Applying what is stored changes nothing and is no change.
            let stored = object.clone();
            assert_eq!(admit(&mut object, Some(&stored)), Vec::<String>::new());
            assert_eq!(object, stored);
        }
    }
}

/// Every example is taken whole: nothing in it is wrong, and nothing in it is left undone.
#[test]
fn examples_are_taken_and_carried_out() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut checked = 0;
    for example in fs::read_dir(examples).expect("there are examples").flatten() {
        let files = fs::read_dir(example.path()).expect("an example is a directory").flatten().map(|f| f.path());
        for file in files.filter(|f| f.extension().is_some_and(|e| e == "yaml")) {
            for mut object in manifests(&file.display().to_string()) {
                if object["apiVersion"] != holdfast_api::API_VERSION {
                    continue;
                }
                let mut errors = admit(&mut object, None);
                let beyond = match object["kind"].as_str() {
                    Some("SubCluster") => {
                        let typed: v1::SubCluster = serde_json::from_value(object.clone()).expect("admitted");
                        [support::unsupported_sub_cluster(&typed.spec), validation::validate_sub_cluster(&typed.spec)]
                            .concat()
                    }
                    Some("FailoverGroup") => {
                        let typed: v1::FailoverGroup = serde_json::from_value(object.clone()).expect("admitted");
                        [support::unsupported_group(&typed.spec), validation::validate_group(&typed.spec)].concat()
                    }
                    _ => Vec::new(),
                };
                errors.extend(beyond.iter().map(ToString::to_string));
                assert_eq!(errors, Vec::<String>::new(), "{}: {}", file.display(), object["kind"]);
                checked += 1;
            }
        }
    }
    assert!(checked >= 6, "only {checked} objects were found");
}

/// A sub-cluster that is taken, to be broken.
fn sub_cluster() -> Value {
    manifests("tests/manifests/a-two-servers.yaml").swap_remove(0)
}

fn group() -> Value {
    manifests("tests/manifests/a-two-servers.yaml").swap_remove(1)
}

fn operation() -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Operation", "metadata": {"generateName": "move-", "namespace": "ha"},
        "spec": {"type": "Move", "target": {"kind": "FailoverGroup", "name": "pg"}, "move": {"to": "b"}},
    })
}

/// Sets what stands at a JSON pointer; `null` removes it.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a parent");
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}")) {
        Value::Object(map) if value.is_null() => {
            map.remove(name);
        }
        Value::Object(map) => {
            map.insert(name.to_string(), value);
        }
        Value::Array(items) => match name.parse::<usize>() {
            Ok(i) => items[i] = value,
            Err(_) => items.push(value),
        },
        other => panic!("{parent} is {other}"),
    }
}

#[track_caller]
fn refused(mut object: Value, changes: &[(&str, Value)], expected: &[&str]) {
    for (pointer, value) in changes {
        set(&mut object, pointer, value.clone());
    }
    assert_eq!(admit(&mut object, None), expected);
}

fn servers(count: u64) -> Value {
    (1..=count).map(|id| json!({"name": format!("s{id}"), "id": id.min(16)})).collect()
}

#[test]
fn what_issue_two_lists_is_refused() {
    refused(sub_cluster(), &[("/spec/heartbeet", json!({}))], &["spec.heartbeet: unknown field"]);
    refused(
        group(),
        &[("/spec/resources/1/floatingIP/adress", json!("x"))],
        &["spec.resources[1].floatingIP.adress: unknown field"],
    );
    refused(
        sub_cluster(),
        &[("/spec/servers/0/id", json!("1"))],
        &["spec.servers[0].id: Invalid value: \"1\": must be an integer, is a string; write it without quotes"],
    );
    refused(
        group(),
        &[("/spec/placement", json!({"requires": {"cpu": 2}}))],
        &["spec.placement.requires.cpu: Invalid value: 2: must be a string, is a number; write it in quotes"],
    );
    let alone = [
        ("/spec/servers", json!([{"name": "a", "id": 1}])),
        ("/spec/disks", Value::Null),
        (
            "/spec/quorum",
            json!({"type": "QuorumServer", "quorumServer": {"urls": ["https://w"], "lease": {"namespace": "ha", "name": "x"}}}),
        ),
        (
            "/spec/heartbeat/paths",
            json!([{"name": "ic", "lan": {"role": "Interconnect", "endpoints": [{"server": "a", "address": "10.0.0.1"}]}}]),
        ),
    ];
    refused(sub_cluster(), &alone, &["spec.servers: Invalid value: 1 entry: must have 2 to 16 entries"]);
    let endpoints: Value =
        (1..=17).map(|i| json!({"server": format!("s{i}"), "address": format!("10.0.0.{i}")})).collect();
    let many = [
        ("/spec/servers", servers(17)),
        ("/spec/disks", Value::Null),
        ("/spec/quorum", json!({"type": "Majority"})),
        ("/spec/heartbeat/paths", json!([{"name": "ic", "lan": {"role": "Interconnect", "endpoints": endpoints}}])),
    ];
    refused(
        sub_cluster(),
        &many,
        &[
            "spec.heartbeat.paths[0].lan.endpoints: Too many: 17 entries: must have 1 to 16 entries",
            "spec.servers: Too many: 17 entries: must have 2 to 16 entries",
        ],
    );
    let third = [
        ("/spec/servers/-", json!({"name": "c", "id": 3})),
        ("/spec/heartbeat/paths/0/lan/endpoints/-", json!({"server": "c", "address": "10.0.0.3"})),
        ("/spec/heartbeat/paths/1/lan/endpoints/-", json!({"server": "c", "address": "192.0.2.3"})),
    ];
    refused(
        sub_cluster(),
        &third,
        &[
            "spec.servers: Invalid value: a list of 3: with a shared disk exactly 2 servers: take servers out, or remove disks and use quorum Majority or QuorumServer",
            "spec.quorum.type: Invalid value: \"LockDisk\": a lock disk serves exactly 2 servers; use Majority or QuorumServer",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/interval", json!("300ms")), ("/spec/heartbeat/advanced", json!({"lease": "1100ms"}))],
        &[
            "spec.heartbeat: Invalid value: an object: advanced.lease 1100ms is shorter than four intervals of 300ms; raise it or leave it out",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/interval", json!("400ms"))],
        &[
            "spec.heartbeat: Invalid value: an object: timeout 1s is shorter than three intervals of 400ms; raise timeout, or leave interval and stall out",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/timeout", json!("50ms"))],
        &["spec.heartbeat.timeout: Invalid value: \"50ms\": 50ms is outside 100ms..300s"],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/timeout", json!("1 second"))],
        &[
            "spec.heartbeat.timeout: Invalid value: \"1 second\": must be a duration: numbers with the units ms, s, m, h, for example 500ms, 30s or 1m30s",
        ],
    );
}

#[test]
fn other_rules_of_a_sub_cluster() {
    let ids = "spec.servers: Invalid value: a list of 2: two servers have the same id; give each its own, 1..16";
    refused(sub_cluster(), &[("/spec/servers/1/id", json!(1))], &[ids]);
    refused(
        sub_cluster(),
        &[("/spec/servers/1/name", json!("a"))],
        &[
            "spec.servers[1]: Duplicate value: {\"name\":\"a\"}: stands at spec.servers[0] already; each may be there once",
            "spec.heartbeat.paths: Invalid value: a list of 3: a lan path has an endpoint of a server that is not in servers; remove it or correct the name",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/quorum", json!({"type": "Majority"}))],
        &[
            "spec.quorum.type: Invalid value: \"Majority\": two servers have no majority when one is lost; use quorum LockDisk or QuorumServer, or add a third server",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/quorum/lockDisk", Value::Null)],
        &["spec.quorum: Invalid value: an object: with type LockDisk give lockDisk, and no other member"],
    );
    refused(
        sub_cluster(),
        &[("/spec/disks/0/area", Value::Null)],
        &[
            "spec.quorum.lockDisk: Invalid value: an object: names no entry of disks that has an area; add the disk with an area, or correct the name",
            "spec.heartbeat.paths: Invalid value: a list of 3: a disk path names no entry of disks that has an area; add the disk with an area, or correct the name",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/paths/0/disk", json!({"disk": "san"}))],
        &["spec.heartbeat.paths[0]: Invalid value: an object: give exactly one of lan, disk, serial"],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/paths/1/lan/endpoints", json!([{"server": "a", "address": "192.0.2.1"}]))],
        &[
            "spec.heartbeat.paths: Invalid value: a list of 3: lan path pub lacks the endpoint of a server; give one for every server",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/heartbeat/paths/0/lan/endpoints/0/address", json!("10.0.0.300"))],
        &[
            "spec.heartbeat.paths[0].lan.endpoints[0].address: Invalid value: \"10.0.0.300\": 10.0.0.300 is not an IPv4 or IPv6 address",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/watchdog", json!({"timeout": "1500ms"}))],
        &[
            "spec.watchdog.timeout: Invalid value: \"1500ms\": 1500ms is not possible: watchdogs count whole seconds, 1s..60s",
        ],
    );
    refused(
        sub_cluster(),
        &[("/spec/returnPolicy", json!("Sometimes"))],
        &["spec.returnPolicy: Unsupported value: \"Sometimes\": must be one of Manual, Automatic"],
    );
    refused(sub_cluster(), &[("/spec/quorum", Value::Null)], &["spec.quorum: Required value: must be given"]);
}

#[test]
fn device_names_must_be_stable() {
    for device in ["/dev/sda1", "/dev/loop0", "/dev/nvme0n1p1", "/srv/disk.img"] {
        let mut object = sub_cluster();
        set(&mut object, "/spec/disks/0/device", json!(device));
        let errors = admit(&mut object, None);
        assert_eq!(errors.len(), 1, "{device}: {errors:?}");
        assert!(errors[0].starts_with("spec.disks[0].device: ") && errors[0].contains("stable name"), "{errors:?}");
        let mut object = group();
        set(&mut object, "/spec/resources/0/filesystem/device", json!(device));
        let errors = admit(&mut object, None);
        assert_eq!(errors.len(), 1, "{device}: {errors:?}");
        assert!(errors[0].starts_with("spec.resources[0].filesystem.device: "), "{errors:?}");
    }
    for device in ["/dev/disk/by-id/wwn-0x51", "/dev/mapper/mpatha", "/dev/vg0/data", "/dev/holdfast/san"] {
        let mut object = sub_cluster();
        set(&mut object, "/spec/disks/0/device", json!(device));
        assert_eq!(admit(&mut object, None), Vec::<String>::new(), "{device}");
    }
}

#[test]
fn rules_of_a_group() {
    refused(
        group(),
        &[("/spec/resources/1/systemd", json!({"unit": "x.service"}))],
        &[
            "spec.resources[1]: Invalid value: an object: give exactly one of filesystem, floatingIP, virtualIP, script, process, systemd, ocf, volumeGroup, mirrorDisk, nfsExport, dataService",
        ],
    );
    refused(
        group(),
        &[("/spec/resources/2/dependsOn", json!(["postgres"]))],
        &[
            "spec.resources: Invalid value: a list of 3: dependsOn of postgres names itself or what is not in the list; correct the name",
        ],
    );
    refused(
        group(),
        &[("/spec/resources/1/floatingIP/interface", json!("eth0"))],
        &[
            "spec.resources[1].floatingIP: Invalid value: an object: give exactly one of path (a LAN heartbeat path) and interface",
        ],
    );
    refused(
        group(),
        &[("/spec/resources/1/floatingIP/address", json!("192.0.2.10"))],
        &[
            "spec.resources[1].floatingIP.address: Invalid value: \"192.0.2.10\": 192.0.2.10 is not an address with prefix length, such as 192.0.2.10/24 or 2001:db8::10/64",
        ],
    );
    refused(
        group(),
        &[("/spec/placement", json!({"failback": {"mode": "Window"}}))],
        &["spec.placement.failback: Invalid value: an object: give window with mode Window, and only then"],
    );
    refused(
        group(),
        &[("/spec/monitors/0/resource", Value::Null)],
        &["spec.monitors[0]: Invalid value: an object: action Restart needs resource: what to restart"],
    );
    refused(
        group(),
        &[("/spec/monitors/0/resource", json!("mysql"))],
        &[
            "spec.monitors: Invalid value: a list of 1: a monitor names a resource that is not in resources; correct the name",
        ],
    );
    refused(
        group(),
        &[("/spec/resources/2/process/command/0", json!("postgres"))],
        &[
            "spec.resources[2].process.command: Invalid value: a list of 3: write the absolute path of the program; postgres is none",
        ],
    );
}

#[test]
fn rules_of_an_operation() {
    assert_eq!(admit(&mut operation(), None), Vec::<String>::new());
    refused(
        operation(),
        &[("/metadata", json!({"name": "move-1", "namespace": "ha"}))],
        &[": give metadata.generateName (and use create), or spec.notAfter; so that a repository can't repeat an operation"]
            .map(|tail| Box::leak(format!("Invalid value: an object{tail}").into_boxed_str()) as &str),
    );
    refused(
        operation(),
        &[("/spec/type", json!("Detach"))],
        &[
            "spec: Invalid value: an object: parameters of another type than Detach are given; remove them",
            "spec.target.kind: Invalid value: \"FailoverGroup\": Detach can not be asked of a FailoverGroup",
        ],
    );
    let fence = [
        ("/spec/type", json!("Fence")),
        ("/spec/move", Value::Null),
        ("/spec/target", json!({"kind": "Server", "name": "pg.a"})),
    ];
    refused(
        operation(),
        &fence,
        &["spec: Invalid value: an object: Fence is dangerous: give requestedBy, reason and confirm"],
    );
    let mut confirmed = fence.to_vec();
    confirmed.extend([
        ("/spec/requestedBy", json!("alice")),
        ("/spec/reason", json!("it burns")),
        ("/spec/confirm", json!("pg.b")),
    ]);
    refused(
        operation(),
        &confirmed,
        &["spec.confirm: Invalid value: \"pg.b\": confirm must be the name of the target, pg.a"],
    );
}

/// Admits `object` with changes as a replacement of itself.
#[track_caller]
fn change_refused(mut object: Value, changes: &[(&str, Value)], expected: &[&str]) {
    assert_eq!(admit(&mut object, None), Vec::<String>::new());
    let old = object.clone();
    for (pointer, value) in changes {
        set(&mut object, pointer, value.clone());
    }
    assert_eq!(admit(&mut object, Some(&old)), expected);
}

#[test]
fn rules_about_changes() {
    let id = "spec.servers[0].id: Invalid value: 3: the id of a server can't be changed; remove the server and add it under another name";
    change_refused(sub_cluster(), &[("/spec/servers/0/id", json!(3))], &[id]);
    // The order of the list is no change: entries are compared by name.
    change_refused(sub_cluster(), &[("/spec/servers", json!([{"name": "b", "id": 2}, {"name": "a", "id": 1}]))], &[]);
    let line = |name: &Value| {
        let ends = json!([{"server": "a", "device": "/dev/ttyS0"}, {"server": "b", "device": "/dev/ttyS0"}]);
        json!({"name": name, "serial": {"devices": ends}})
    };
    let lan = sub_cluster()["spec"]["heartbeat"]["paths"][0]["name"].clone();
    change_refused(
        sub_cluster(),
        &[("/spec/heartbeat/paths/0", line(&lan))],
        &[
            "spec.heartbeat.paths: Invalid value: a list of 3: a path keeps its kind (lan, disk, serial) as long as it has its name; give the new path a new name",
        ],
    );
    change_refused(sub_cluster(), &[("/spec/heartbeat/paths/0", line(&json!("line")))], &[]);
    let web = manifests("tests/manifests/b-three-servers.yaml").swap_remove(0);
    let without_c = [
        ("/spec/servers", json!([{"name": "a", "id": 1}, {"name": "b", "id": 2}, {"name": "d", "id": 4}])),
        ("/spec/heartbeat/paths/0/lan/endpoints/2/server", json!("d")),
        ("/spec/heartbeat/paths/1/lan/endpoints/2/server", json!("d")),
    ];
    change_refused(
        web.clone(),
        &without_c,
        &[
            "spec.servers: Invalid value: a list of 3: a server that leaves must be Detached first: set its state to Detached, apply, then remove it",
        ],
    );
    let mut detached = web;
    set(&mut detached, "/spec/servers/2/state", json!("Detached"));
    change_refused(detached, &without_c, &[]);
    change_refused(
        group(),
        &[("/spec/subCluster", json!("other"))],
        &[
            "spec.subCluster: Invalid value: \"other\": the sub-cluster of a group can't be changed; make a new object instead",
        ],
    );
    let fixed =
        "spec: Invalid value: an object: an operation can't be changed, except cancel and proceed; make a new one";
    change_refused(operation(), &[("/spec/move", json!({"to": "a"}))], &[fixed]);
    change_refused(operation(), &[("/spec/reason", json!("because"))], &[fixed]);
    change_refused(operation(), &[("/spec/cancel", json!(true)), ("/spec/proceed", json!(1))], &[]);
    let mut cancelled = operation();
    set(&mut cancelled, "/spec/cancel", json!(true));
    change_refused(
        cancelled,
        &[("/spec/cancel", json!(false))],
        &["spec.cancel: Invalid value: false: a cancellation can't be taken back"],
    );
}

#[test]
fn older_reports_do_not_replace_newer_ones() {
    let reference = manifests("tests/manifests/reference.yaml");
    for kind in ["SubCluster", "FailoverGroup"] {
        let object = reference.iter().find(|o| o["kind"] == kind).expect("the reference has every kind").clone();
        let stale = [
            "status: Invalid value: an object: the report is older than the one that stands here; read the object again",
        ];
        change_refused(object.clone(), &[("/status/epoch", json!(16))], &stale);
        change_refused(object.clone(), &[("/status/revision", json!(1))], &stale);
        change_refused(object.clone(), &[("/status/epoch", json!(18)), ("/status/revision", json!(1))], &[]);
        change_refused(object, &[("/status/clusterID", json!("another")), ("/status/epoch", json!(1))], &[]);
    }
}
