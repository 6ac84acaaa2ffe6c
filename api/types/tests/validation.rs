//! The start order of a group, circles in it, timing with either watchdog, and what this version refuses to carry out.

use holdfast_api::{
    support,
    v1::{FailoverGroupSpec, OperationSpec, SubClusterSpec, SuperClusterSpec},
    validation,
};
use serde_json::{Value, json};

fn group(resources: Value) -> FailoverGroupSpec {
    serde_json::from_value(json!({"subCluster": "pg", "resources": resources})).expect("the group is well formed")
}

fn mount(name: &str, at: &str) -> Value {
    json!({"name": name, "filesystem": {"device": format!("/dev/vg0/{name}"), "mountPoint": at, "type": "ext4"}})
}

fn order(spec: &FailoverGroupSpec) -> Vec<String> {
    let graph = validation::resource_graph(spec);
    graph
        .iter()
        .map(|(name, first)| format!("{name}: {}", first.iter().cloned().collect::<Vec<_>>().join(" ")))
        .collect()
}

#[test]
fn resources_start_by_stage_nesting_and_given_order() {
    let spec = group(json!([
        {"name": "app", "process": {"command": ["/usr/bin/app"]}},
        {"name": "side", "process": {"command": ["/usr/bin/side"]}, "dependsOn": ["app"]},
        {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}},
        {"name": "late", "script": {"start": {"path": "/s"}, "stop": {"path": "/s"}}, "stage": "Network"},
        mount("logs", "/srv/data/logs"),
        mount("data", "/srv/data"),
        mount("database", "/srv/database"),
        {"name": "www", "filesystem": {"device": "/srv/data/www", "mountPoint": "/var/www", "type": "bind"}},
    ]));
    assert_eq!(
        order(&spec),
        [
            "addr: app data database logs side www",
            "app: data database logs www",
            "data: ",
            "database: ",
            "late: addr app data database logs side www",
            "logs: data",
            "side: app data database logs www",
            "www: data",
        ]
    );
    assert_eq!(validation::dependency_cycle(&spec), None);
    assert!(validation::validate_group(&spec).is_empty());
}

#[test]
fn circles_are_named() {
    let spec = group(json!([
        {"name": "a", "process": {"command": ["/a"]}, "dependsOn": ["c"]},
        {"name": "b", "process": {"command": ["/b"]}, "dependsOn": ["a"]},
        {"name": "c", "process": {"command": ["/c"]}, "dependsOn": ["b"]},
        {"name": "d", "process": {"command": ["/d"]}, "dependsOn": ["a"]},
    ]));
    let mut circle = validation::dependency_cycle(&spec).expect("there is a circle");
    circle.sort();
    assert_eq!(circle, ["a", "b", "c"]);
    // A mount that waits for a program of a later stage is a circle, too.
    let mut data = mount("data", "/srv/data");
    data["dependsOn"] = json!(["app"]);
    let spec = group(json!([data, {"name": "app", "process": {"command": ["/a"]}}]));
    let errors = validation::validate_group(&spec);
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].field.as_str(), errors[0].found.as_str()), ("spec.resources", "app → data → app"));
}

#[test]
fn one_address_in_two_resources_is_refused() {
    let spec = group(json!([
        {"name": "x", "floatingIP": {"address": "2001:db8::10/64", "path": "pub"}},
        {"name": "y", "floatingIP": {"address": "2001:DB8:0::10/64", "interface": "eth1"}},
    ]));
    let errors = validation::validate_group(&spec);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "spec.resources[1].floatingIP.address: Duplicate value: \"2001:DB8:0::10/64\": resource x has the same address; give each its own"
        ]
    );
}

fn sub_cluster(extra: Value) -> SubClusterSpec {
    let mut spec = json!({
        "servers": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
        "disks": [{"name": "san", "device": "/dev/holdfast/san", "area": {"device": "/dev/holdfast/san-area"}}],
        "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san"}},
        "heartbeat": {"timeout": "1s", "paths": [{"name": "area", "disk": {"disk": "san"}}]},
        "evidence": {"drain": "50ms"},
    });
    for (name, value) in extra.as_object().expect("an object") {
        spec[name] = value.clone();
    }
    serde_json::from_value(spec).expect("the sub-cluster is well formed")
}

#[test]
fn timing_must_hold_with_either_watchdog() {
    assert!(validation::validate_sub_cluster(&sub_cluster(json!({}))).is_empty());
    let wait = |mode: &str| {
        let heartbeat = json!({"timeout": "1s", "advanced": {"takeoverWait": "2s"}, "paths": []});
        let spec = sub_cluster(json!({"heartbeat": heartbeat, "watchdog": {"mode": mode, "timeout": "2s"}}));
        validation::validate_sub_cluster(&spec).iter().map(|e| e.field.clone()).collect::<Vec<_>>()
    };
    assert_eq!(wait("Disabled"), Vec::<String>::new());
    // With a watchdog the other side waits for its reset: 2 s are too short.
    assert_eq!(wait("Required"), ["spec.heartbeat.advanced.takeoverWait"]);
    assert_eq!(wait("IfPresent"), ["spec.heartbeat.advanced.takeoverWait"]);
}

#[test]
fn a_serial_line_is_fast_enough_and_belongs_to_one_path() {
    let line = |name: &str, baud: u32, device: &str| {
        let devices = json!([{"server": "a", "device": device}, {"server": "b", "device": "/dev/ttyS9"}]);
        json!({"name": name, "serial": {"baudRate": baud, "devices": devices}})
    };
    let told = |timeout: &str, paths: Value| {
        let spec = sub_cluster(json!({"heartbeat": {"timeout": timeout, "paths": paths}}));
        validation::validate_sub_cluster(&spec).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told("1s", json!([line("com", 9600, "/dev/ttyS0")])), Vec::<String>::new());
    // 640 bits every 100 ms, and a quarter to spare.
    assert_eq!(
        told("1s", json!([line("com", 4800, "/dev/ttyS0")])),
        [
            "spec.heartbeat.paths[0].serial.baudRate: Invalid value: 4800: a heartbeat on the line takes 134ms, and one is \
          due every 100ms; use at least 8000 bit/s, or a longer heartbeat.interval"
        ]
    );
    assert_eq!(
        told("10s", json!([line("com", 4800, "/dev/ttyS0"), line("com2", 9600, "/dev/ttyS0")])),
        [
            "spec.heartbeat.paths[1].serial.devices[0].device: Duplicate value: /dev/ttyS0: path com uses it on a, too; \
             give every serial path a line of its own",
            "spec.heartbeat.paths[1].serial.devices[1].device: Duplicate value: /dev/ttyS9: path com uses it on b, too; \
             give every serial path a line of its own"
        ]
    );
}

fn fields(errors: &[holdfast_api::FieldError]) -> Vec<&str> {
    errors.iter().map(|e| e.field.as_str()).collect()
}

#[test]
fn what_is_not_built_is_named() {
    assert!(support::unsupported_sub_cluster(&sub_cluster(json!({}))).is_empty());
    let much = sub_cluster(json!({
        "state": "Stopped",
        "servers": [{"name": "a", "id": 1, "site": "hall-a"}, {"name": "b", "id": 2, "state": "Detached"}],
        "brakes": {"maxLosses": 1},
        "disks": [{"name": "d", "device": "/dev/sdb", "reservation": "PersistentReservation"}],
        "monitors": [{"name": "m", "http": {"url": "https://192.0.2.10/"}, "action": "FailoverAll"}],
    }));
    assert_eq!(fields(&support::unsupported_sub_cluster(&much)), ["spec.disks[0].reservation"]);
    let built = group(json!([
        mount("data", "/srv"),
        {"name": "app", "process": {"command": ["/a"]}, "recovery": {"restarts": 0, "then": "Stop"}},
        {"name": "s", "script": {"start": {"path": "/s"}, "stop": {"inline": "exit 0"}}, "stage": "Network", "critical": false},
        {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}, "timeouts": {"start": "5s"}, "monitor": {"interval": "1s"}},
    ]));
    assert!(support::unsupported_group(&built).is_empty());
    let mut much: FailoverGroupSpec = group(json!([
        {"name": "mirror", "mirrorDisk": {"device": "/dev/drbd0",
            "volumes": [{"server": "a", "backing": "/dev/vg/x"}, {"server": "b", "backing": "/dev/vg/x"}],
            "endpoints": [{"server": "a", "address": "10.0.0.1", "port": 1}, {"server": "b", "address": "10.0.0.2", "port": 1}]}},
        {"name": "s", "script": {"start": {"configMap": {"name": "c", "key": "k"}}, "stop": {"path": "/s"}}},
        {"name": "ex", "nfsExport": {"path": "/srv/x", "fsid": "1", "clients": [{"network": "*"}], "stateDirectory": "/srv/x/s"}, "recovery": {"then": "ServerDown"}},
    ]));
    assert_eq!(fields(&support::unsupported_group(&much)), ["spec.resources[0].mirrorDisk"]);
    assert_eq!(
        support::unsupported_group(&much)[0].to_string(),
        "spec.resources[0].mirrorDisk: Unsupported value: this version does not carry it out; use filesystem, floatingIP, virtualIP, process, script, systemd, ocf, volumeGroup, nfsExport or dataService"
    );
    let routed = |router: &str| {
        let ip = json!({"address": "203.0.113.10", "router": router});
        support::unsupported_group(&group(json!([{"name": "addr", "virtualIP": ip}])))
    };
    assert!(routed("Bird").is_empty());
    assert!(routed("Frr").is_empty());
    let misread = |ip: Value| validation::validate_group(&group(json!([{"name": "addr", "virtualIP": ip}])));
    for (ip, found) in [
        (json!({"address": "203.0.113.10", "router": "Frr", "metric": 5}), "metric"),
        (json!({"address": "2001:db8::1", "router": "Frr", "protocol": "ospf"}), "protocol"),
        (json!({"address": "203.0.113.10", "router": "Bird", "protocol": "a b"}), "protocol"),
    ] {
        assert_eq!(fields(&misread(ip)), [format!("spec.resources[0].virtualIP.{found}")]);
    }
    assert!(misread(json!({"address": "203.0.113.10", "router": "Frr", "protocol": "ospf"})).is_empty());
    let agent = |ocf: Value| {
        let found = support::unsupported_group(&group(json!([{"name": "app", "ocf": ocf}])));
        fields(&found).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(agent(json!({"type": "apache", "parameters": {"configfile": "/etc/a.conf"}})), [] as [&str; 0]);
    assert_eq!(agent(json!({"type": "apache", "parametersFrom": ["s"], "depths": [{"depth": 10}]})), [] as [&str; 0]);
    much = group(json!([{"name": "app", "process": {"command": ["/a"]}}]));
    much.monitors = serde_json::from_value(json!([
        {"name": "ok", "http": {"url": "http://192.0.2.10/"}, "action": "Stop"},
        {"name": "tls", "http": {"url": "https://192.0.2.10/", "caSecret": "ca"}, "action": "Report"},
        {"name": "disk", "usage": {"of": "Memory", "maxPercent": 90}, "action": "ServerDown"},
        {"name": "all", "tcp": {"address": "a:1"}, "action": "Report", "scope": "Everywhere"},
    ]))
    .expect("well formed");
    assert_eq!(support::unsupported_group(&much), []);
    much.monitors[1].http.as_mut().expect("a web server").url = "http://192.0.2.10/".into();
    assert_eq!(fields(&holdfast_api::validation::validate_group(&much)), ["spec.monitors[1].http.caSecret"]);
    let operation =
        |value: Value| serde_json::from_value::<OperationSpec>(value).expect("the operation is well formed");
    let target = json!({"kind": "FailoverGroup", "name": "pg"});
    assert!(
        support::unsupported_operation(&operation(json!({"type": "Move", "target": target, "move": {"to": "b"}})))
            .is_empty()
    );
    let mirror = operation(json!({"type": "ResolveMirror", "target": {"kind": "FailoverGroup", "name": "pg"}}));
    assert_eq!(fields(&support::unsupported_operation(&mirror)), ["spec.type"]);
    let drill = operation(json!({
        "type": "Drill", "target": {"kind": "SubCluster", "name": "pg"},
        "drill": {"live": true, "scenarios": [{"name": "new", "apply": [{"kind": "FailoverGroup"}]}]},
    }));
    assert_eq!(fields(&support::unsupported_operation(&drill)), ["spec.drill.live"]);
    let braked: SuperClusterSpec =
        serde_json::from_value(json!({"brakes": {"maxMovesPerMinute": 1}})).expect("well formed");
    assert_eq!(fields(&support::unsupported_super_cluster(&braked)), ["spec.brakes"]);
    assert!(support::unsupported_super_cluster(&SuperClusterSpec::default()).is_empty());
}

#[test]
fn a_quorum_server_that_the_sub_cluster_itself_carries_is_refused() {
    let endpoints = json!([{"server": "a", "address": "10.0.0.1"}, {"server": "b", "address": "10.0.0.2"}]);
    let with = |url: &str| {
        sub_cluster(json!({
            "heartbeat": {"timeout": "1s", "paths": [
                {"name": "ic", "lan": {"role": "Interconnect", "endpoints": endpoints}}]},
            "quorum": {"type": "QuorumServer", "quorumServer": {"urls": ["https://192.0.2.99:7443", url],
                "lease": {"namespace": "ha", "name": "pg"}}},
        }))
    };
    assert_eq!(validation::validate_sub_cluster(&with("https://witness.example.org:7443")), []);
    for (url, why) in [
        ("https://a:7443", "a is a server of the sub-cluster"),
        ("https://10.0.0.2:7443", "it is an address of server b"),
        ("https://127.0.0.1:7443", "on every server it is that server itself"),
        ("https://[::1]:7443", "on every server it is that server itself"),
        ("https://", "it is no URL of a server"),
    ] {
        let errors = validation::validate_sub_cluster(&with(url));
        assert_eq!(fields(&errors), ["spec.quorum.quorumServer.urls[1]"], "{url}");
        assert!(errors[0].message.contains(why), "{url}: {}", errors[0].message);
    }
    let address = |ip: &str| group(json!([{"name": "addr", "floatingIP": {"address": ip, "path": "pub"}}]));
    assert_eq!(validation::quorum_server_of_group(&with("https://w"), &address("192.0.2.10/24")), None);
    let found = validation::quorum_server_of_group(&with("https://w"), &address("192.0.2.99/24")).expect("a circle");
    assert!(found.contains("resource addr holds 192.0.2.99"), "{found}");
}

#[test]
fn monitors_of_servers_and_of_all_servers_are_about_what_every_server_has() {
    let told = |monitor: Value| {
        let mut monitor = monitor;
        monitor["name"] = "m".into();
        let spec = sub_cluster(json!({"monitors": [monitor]}));
        validation::validate_sub_cluster(&spec).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told(json!({"usage": {"of": "Memory", "maxPercent": 95}, "action": "ServerDown"})), "");
    for (bad, begin) in [
        (
            json!({"link": {"path": "dsl"}, "action": "FailoverAll"}),
            "link.path: Invalid value: \"dsl\": the sub-cluster has no such LAN path",
        ),
        (
            json!({"diskIO": {"disk": "nas"}, "action": "FailoverAll"}),
            "diskIO.disk: Invalid value: \"nas\": the sub-cluster has no such disk",
        ),
        (
            json!({"tcp": {"address": "a:1"}, "scope": "Everywhere", "action": "Report"}),
            "scope: Invalid value: Everywhere: monitors of a sub-cluster",
        ),
        (
            json!({"process": {"resource": "app"}, "action": "Report"}),
            "process.resource: Invalid value: \"app\": is no process resource",
        ),
    ] {
        let text = told(bad);
        assert!(text.starts_with(&format!("spec.monitors[0].{begin}")), "{text}");
    }
    let mut spec = group(json!([{"name": "app", "process": {"command": ["/a"]}}]));
    let mut of_group = |monitor: Value| {
        let mut monitor = monitor;
        (monitor["name"], monitor["scope"]) = ("m".into(), "Everywhere".into());
        spec.monitors = vec![serde_json::from_value(monitor).expect("well formed")];
        holdfast_api::validation::validate_group(&spec).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(of_group(json!({"tcp": {"address": "a:1"}, "action": "Failover"})), "");
    let text = of_group(json!({"tcp": {"address": "a:1"}, "action": "Stop"}));
    assert!(
        text.starts_with("spec.monitors[0].action: Invalid value: \"Stop\": acts only where the group runs"),
        "{text}"
    );
    let text = of_group(json!({"process": {"resource": "app"}, "action": "Report"}));
    assert!(text.contains("process.resource: Invalid value: \"app\": with scope Everywhere"), "{text}");
}

#[test]
fn patterns_and_addresses_of_monitors_are_checked_before_they_are_used() {
    let mut spec = group(json!([{"name": "app", "process": {"command": ["/a"]}},
        {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}}]));
    let mut told = |monitor: Value| {
        let mut monitor = monitor;
        monitor["name"] = "m".into();
        monitor["action"] = "Report".into();
        spec.monitors = vec![serde_json::from_value(monitor).expect("well formed")];
        holdfast_api::validation::validate_group(&spec).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    for good in
        ["http://192.0.2.10/", "http://db.example:8080/healthz?deep=1", "http://[2001:db8::10]:8080", "http://a"]
    {
        assert_eq!(told(json!({"http": {"url": good, "body": "^ok"}})), "");
    }
    for good in ["192.0.2.10:5432", "db.example:1", "[2001:db8::10]:65535"] {
        assert_eq!(told(json!({"tcp": {"address": good}})), "");
    }
    for (bad, part) in [
        ("http://", "is no URL"),
        ("http://a:99999/", "the port is 1..65535"),
        ("http://u:p@a/", "a user or password can't be given"),
        ("http:///x", "is no URL"),
    ] {
        let text = told(json!({"http": {"url": bad}}));
        assert!(text.starts_with("spec.monitors[0].http.url: Invalid value: ") && text.contains(part), "{bad}: {text}");
    }
    for (bad, part) in [("2001:db8::10:5432", "in brackets"), ("a:0", "1..65535"), (":80", "not empty")] {
        let text = told(json!({"tcp": {"address": bad}}));
        assert!(
            text.starts_with("spec.monitors[0].tcp.address: Invalid value: ") && text.contains(part),
            "{bad}: {text}"
        );
    }
    let text = told(json!({"exec": {"command": ["/a"], "output": "up("}}));
    assert!(
        text.contains("spec.monitors[0].exec.output") && text.contains("no regular expression: unclosed group"),
        "{text}"
    );
    let text = told(json!({"journal": {"match": "I/O error|["}}));
    assert!(
        text.starts_with("spec.monitors[0].journal.match: ") && text.contains("unclosed character class"),
        "{text}"
    );
    for good in [
        json!({"process": {"resource": "app"}}),
        json!({"process": {"pattern": "^/usr/sbin/x", "min": 0, "max": 0}}),
        json!({"icmp": {"targets": ["192.0.2.1", "fe80::1%eth0", "gw.example"], "minReachable": 2}}),
        json!({"address": {"resource": "addr"}}),
        json!({"diskIO": {"disk": "san", "write": true}}),
        json!({"diskIO": {"device": "/dev/disk/by-id/x"}}),
        json!({"usage": {"of": "FileSystem", "path": "/srv", "maxPercent": 90}}),
    ] {
        assert_eq!(told(good), "");
    }
    for (bad, begin) in [
        (
            json!({"process": {"resource": "addr"}}),
            "process.resource: Invalid value: \"addr\": is no process resource of the group; it has app",
        ),
        (json!({"process": {"pattern": "x", "max": 0}}), "process.max: Invalid value: \"0\": is less than min, 1,"),
        (
            json!({"process": {"pattern": "x", "min": 0}}),
            "process.min: Invalid value: \"0\": without max any number would do",
        ),
        (
            json!({"icmp": {"targets": ["a"], "minReachable": 2}}),
            "icmp.minReachable: Invalid value: \"2\": there are only 1 targets",
        ),
        (
            json!({"icmp": {"targets": ["http://a/"]}}),
            "icmp.targets: Invalid value: \"http://a/\": is neither an address nor the name",
        ),
        (
            json!({"address": {"resource": "app"}}),
            "address.resource: Invalid value: \"app\": is no floatingIP or virtualIP resource of the group; it has addr",
        ),
        (
            json!({"diskIO": {"device": "/dev/disk/by-id/x", "write": true}}),
            "diskIO.device: Invalid value: \"/dev/disk/by-id/x\": only the area",
        ),
    ] {
        let text = told(bad);
        assert!(text.starts_with(&format!("spec.monitors[0].{begin}")), "{text}");
    }
    let text = told(json!({"exec": {"command": ["/a"]}, "resource": "app"}));
    assert!(text.starts_with("spec.monitors[0].resource: Invalid value: \"app\": only action Restart"), "{text}");
}
