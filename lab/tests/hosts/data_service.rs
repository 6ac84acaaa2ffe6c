//! `examples/data-service`: the methods of a registered service, in their order around mount and address, as they logged
//! it themselves: started, switched off and on, moved, and taken over after a power cut without control plane.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_lab::{AGENT, Cluster, ClusterOptions, Host, StoreKind, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, LogsOnPanic};

/// A service whose method is a file, and a group that would use it on either server.
const TOOLS: &str = "{apiVersion: v1, kind: List, items: [\
    {apiVersion: holdfast.dev/v1, kind: DataService, metadata: {name: tools, namespace: ha}, \
    spec: {methods: [{name: start, path: STATE/tool}]}}, \
    {apiVersion: holdfast.dev/v1, kind: FailoverGroup, metadata: {name: third, namespace: ha}, \
    spec: {subCluster: shop, state: Offline, placement: {servers: [alder, birch]}, \
    resources: [{name: tools, dataService: {name: tools}}]}}]}";
/// Each method's log on the host's own disk, which survives a power cut.
const CALLS: &str = "calls";
/// A second group with the same service, on birch only.
const SPARE: &str = "{apiVersion: holdfast.dev/v1, kind: FailoverGroup, metadata: {name: spare, namespace: ha}, \
    spec: {subCluster: shop, placement: {servers: [birch]}, resources: [{name: www, dataService: {name: www, \
    parameters: {DIRECTORY: /run/spare, LISTEN: '127.0.0.1:8081'}}}]}}";

/// Has every method log its call and what is there when it is called, and adds those that the example does not have.
fn log_calls(documents: &mut Vec<(PathBuf, Value)>) {
    let line = format!(
        "mountpoint -q /srv/web && mount=mounted || mount=-\n\
         ip -o address | grep -q ' 192.0.2.10/' && address=address || address=-\n\
         echo \"$HOLDFAST_GROUP $HOLDFAST_METHOD $1|$2|$3 $mount $address\" >> {}/{CALLS}\n",
        holdfast_lab::STATE_DIR
    );
    let service = documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == "DataService");
    let methods = service.expect("the example's")["spec"]["methods"].as_sequence_mut().expect("its methods");
    for name in ["stop", "abort", "abortNet", "fmInit", "fmStart", "fmStop"] {
        methods.push(serde_yaml::from_str(&format!("{{name: {name}, inline: ''}}")).expect("YAML"));
    }
    for method in methods {
        let text = method["inline"].as_str().expect("inline").to_owned();
        method["inline"] = format!("{line}{text}").into();
    }
    for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "FailoverGroup") {
        document["spec"]["resources"][1]["monitor"] = serde_yaml::from_str("{interval: 500ms}").expect("YAML");
    }
    let spare = (PathBuf::from("spare.yaml"), serde_yaml::from_str(SPARE).expect("YAML"));
    documents.push(spare);
}

/// Calls of this group on a host, without the checks.
fn calls(host: &Host, group: &str) -> Vec<String> {
    let text = std::fs::read_to_string(host.state_dir().join(CALLS)).unwrap_or_default();
    let of_group = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(' '));
    of_group.filter(|line| !line.starts_with("FM_CHECK")).map(str::to_owned).collect()
}

/// Waits until a host has logged this many calls of the group `web`; gives those from `from` on.
fn logged(host: &Host, from: usize, count: usize) -> Vec<String> {
    wait_for(&format!("{} to have called {count} methods", host.name()), LIMIT, |last| {
        let all = calls(host, GROUP);
        *last = format!("{all:#?}");
        Ok((all.len() >= from + count).then(|| all[from..].to_vec()))
    })
    .expect("the methods are called")
}

fn apply(cluster: &Cluster, service: &Value) {
    let file = cluster.host("alder").expect("a host").state_dir().join("service.yaml");
    std::fs::write(&file, serde_yaml::to_string(service).expect("YAML")).expect("a manifest");
    cluster.apply(&file).expect("it is taken");
}

#[test]
fn methods_are_called_around_mount_and_address_wherever_the_group_goes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data-service");
    let options = ClusterOptions { edit: Some(&log_calls), ..ClusterOptions::default() };
    let cluster = Cluster::start("data-service", &directory, &options).expect("the cluster is built");
    let host = |name: &str| -> Arc<Host> { cluster.host(name).expect("a host of the example") };
    // ORDER: declared after the cluster, so that it shows the logs before they are gone.
    let _logs = LogsOnPanic(["alder", "birch"].map(host).to_vec());
    let (alder, birch) = (host("alder"), host("birch"));
    cluster.wait_online(GROUP, Some("alder"), LIMIT).expect("the service comes up");
    cluster.wait_online("spare", Some("birch"), LIMIT).expect("the other one, too");
    let up = |hosted: &str, others: &str, address: &str| {
        vec![
            format!("START {hosted}|{others}|20 mounted {address}"),
            format!("START_NET {hosted}|{others}|30 mounted address"),
            format!("FM_INIT {hosted}|{others}|60 mounted address"),
            format!("FM_START {hosted}|{others}|60 mounted address"),
        ]
    };
    let down = |hosted: &str, others: &str, address: &str| {
        vec![
            format!("FM_STOP {hosted}|{others}|60 mounted address"),
            format!("STOP_NET {hosted}|{others}|30 mounted address"),
            format!("STOP {hosted}|{others}|60 mounted {address}"),
        ]
    };
    assert_eq!(logged(&alder, 0, 4), up("web", "spare", "-"));

    // Switched off and on: mount and address stay where they are.
    let name = "service.yaml";
    let text = std::fs::read_to_string(directory.join(name)).expect("the example");
    let mut documents = vec![(PathBuf::from(name), serde_yaml::from_str(&text).expect("YAML"))];
    log_calls(&mut documents);
    let mut service = documents.remove(0).1;
    service["spec"]["state"] = "Disabled".into();
    apply(&cluster, &service);
    assert_eq!(logged(&alder, 4, 3), down("", "spare,web", "address"));
    service["spec"]["state"] = "Enabled".into();
    apply(&cluster, &service);
    assert_eq!(logged(&alder, 7, 4), up("web", "spare", "address"));
    cluster.wait_online("spare", Some("birch"), LIMIT).expect("the other one, too");
    wait_for("the other one to be started again", LIMIT, |last| {
        let all = calls(&birch, "spare");
        *last = format!("{all:#?}");
        Ok(all.last().is_some_and(|call| all.len() == 11 && call.starts_with("FM_START")).then_some(()))
    })
    .expect("its methods are called");

    // Stopped and started by Operations: the same, without a change of what is declared.
    cluster.holdfast(&["stop", "--data-service", "www", "--namespace", "ha"]).expect("it is stopped");
    assert_eq!(logged(&alder, 11, 3), down("", "spare,web", "address"));
    cluster.holdfast(&["start", "--data-service", "www", "--namespace", "ha"]).expect("it is started");
    assert_eq!(logged(&alder, 14, 4), up("web", "spare", "address"));

    // Methods that are files: what differs between the servers is said before a takeover finds out.
    for (host, text) in [(&alder, "#!/bin/sh\n"), (&birch, "#!/bin/sh\nexit 1\n")] {
        let tool = host.state_dir().join("tool");
        std::fs::write(&tool, text).expect("a file");
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    }
    apply(&cluster, &serde_yaml::from_str(&TOOLS.replace("STATE", holdfast_lab::STATE_DIR)).expect("YAML"));
    let unlike = format!("{}/tool is not the same on ", holdfast_lab::STATE_DIR);
    wait_for("the difference to be seen", LIMIT, |last| {
        *last = cluster.holdfast(&["get", "hds", "tools", "-n", "ha", "-o", "yaml"])?;
        let status: Value = serde_yaml::from_str(last).unwrap_or_default();
        let servers = status["status"]["servers"].as_sequence().cloned().unwrap_or_default();
        let installed = servers.iter().filter(|server| server["installed"] == Value::Bool(true)).count();
        Ok((installed == 2 && last.contains("type: ContentMismatch") && last.contains(&unlike)).then_some(()))
    })
    .expect("status.servers and the condition");
    wait_for("the group to say so", LIMIT, |last| {
        *last = cluster.holdfast(&["status", "--namespace", "ha"])?;
        Ok(last.contains(&unlike).then_some(()))
    })
    .expect("it needs attention");

    // Moved: what the group of the other server is told, it tells, too.
    cluster.holdfast(&["move", GROUP, "--to", "birch", "--namespace", "ha"]).expect("it is moved");
    assert_eq!(logged(&birch, 0, 4), up("spare,web", "", "-"));
    assert_eq!(logged(&alder, 18, 3), down("", "spare,web", "-"));

    // Taken over without control plane, by an agent that knows the service from its own disk.
    cluster.wait_online(GROUP, Some("birch"), LIMIT).expect("the status follows");
    cluster.stop_control_plane(StoreKind::Sqlite).expect("the API is away");
    let agents = alder.holdfast_processes("agent").expect("its agent");
    alder.signal(&agents, nix::sys::signal::Signal::SIGKILL).expect("killed");
    wait_for("a new agent", LIMIT, |last| {
        let now = alder.holdfast_processes("agent")?;
        *last = format!("{now:?}");
        Ok((!now.is_empty() && now.iter().all(|process| !agents.contains(process))).then_some(()))
    })
    .expect("its supervisor starts it");
    assert!(alder.service_runs(AGENT).expect("it is on"));
    cluster.power_cut("birch").expect("a power cut");
    assert_eq!(logged(&alder, 21, 4), up("web", "spare", "-"));
    assert_eq!(calls(&birch, GROUP).len(), 4, "nothing was called when the power went: {:?}", calls(&birch, GROUP));
    // The first check comes half a second after the start.
    let all = wait_for("a check", LIMIT, |last| {
        *last = std::fs::read_to_string(alder.state_dir().join(CALLS)).unwrap_or_default();
        Ok(last.contains("web FM_CHECK web|spare|5 mounted address").then(|| last.clone()))
    })
    .expect("it is checked");
    assert!(!all.contains("ABORT"), "{all}");
    cluster.start_control_plane(StoreKind::Sqlite).expect("the API is back");
    cluster.wait_online(GROUP, Some("alder"), LIMIT).expect("the status follows");
    cluster.close().expect("the lab goes");
}

/// Waits until the status names a failure of the group on a server with these words.
fn told(cluster: &Cluster, server: &str, words: &str) {
    wait_for(&format!("{words:?} about {server}"), LIMIT, |last| {
        let failures = cluster.group(GROUP)?.status.map(|status| status.failures).unwrap_or_default();
        *last = format!("{failures:#?}");
        Ok(failures.iter().any(|failure| failure.server == server && failure.message.contains(words)).then_some(()))
    })
    .expect("the group's status says so");
}

#[test]
fn a_method_that_fails_or_hangs_is_named_with_what_it_said_and_the_group_runs_elsewhere() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data-service");
    let edit = |documents: &mut Vec<(PathBuf, Value)>| {
        for (_, document) in documents.iter_mut() {
            if document["kind"] == "DataService" {
                let methods = document["spec"]["methods"].as_sequence_mut().expect("its methods");
                let fails = "[ -e /run/broken ] && { echo opening; echo 'cannot open the journal' >&2; exit 3; }\n";
                let net = methods.iter_mut().find(|method| method["name"] == "startNet").expect("it has one");
                net["inline"] = format!("{fails}{}", net["inline"].as_str().expect("inline")).into();
                let hangs = "{name: fmStart, timeout: 2s, inline: '[ ! -e /run/hangs ] || { echo waiting for the licence; sleep 777703; }'}";
                methods.push(serde_yaml::from_str(hangs).expect("YAML"));
            }
            if document["kind"] == "FailoverGroup" {
                document["spec"]["recovery"] = serde_yaml::from_str("{restarts: 1, failureDecay: 8s}").expect("YAML");
                document["spec"]["resources"][1]["monitor"] = serde_yaml::from_str("{interval: 500ms}").expect("YAML");
            }
        }
    };
    let options = ClusterOptions { edit: Some(&edit), ..ClusterOptions::default() };
    let cluster = Cluster::start("data-service-fails", &directory, &options).expect("the cluster is built");
    let host = |name: &str| -> Arc<Host> { cluster.host(name).expect("a host of the example") };
    // ORDER: declared after the cluster, so that it shows the logs before they are gone.
    let _logs = LogsOnPanic(["alder", "birch"].map(host).to_vec());
    cluster.wait_online(GROUP, Some("alder"), LIMIT).expect("the service comes up");
    let with = |server: &str, word: &str| -> Vec<holdfast_lab::Process> {
        let all = host(server).processes().expect("its processes");
        all.into_iter().filter(|process| process.args.iter().any(|arg| arg.contains(word))).collect()
    };
    // The service dies, and can't be started here again.
    std::fs::write(host("alder").path("/run/broken").expect("it is on"), "").expect("broken");
    host("alder").signal(&with("alder", "nginx"), nix::sys::signal::Signal::SIGKILL).expect("killed");
    told(
        &cluster,
        "alder",
        "START_NET of data service www: exit 3; it printed: opening / cannot open the journal; all of it: ",
    );
    cluster.wait_online(GROUP, Some("birch"), LIMIT).expect("the other server has it");
    // It dies there, too, and hangs when it is started: it is killed, named, and goes back to the repaired server.
    std::fs::remove_file(host("alder").path("/run/broken").expect("it is on")).expect("repaired");
    std::fs::write(host("birch").path("/run/hangs").expect("it is on"), "").expect("broken");
    host("birch").signal(&with("birch", "nginx"), nix::sys::signal::Signal::SIGKILL).expect("killed");
    let hung =
        "FM_START of data service www: it took longer than 2s and was killed; it printed: waiting for the licence";
    told(&cluster, "birch", hung);
    cluster.wait_online(GROUP, Some("alder"), LIMIT).expect("it is good again");
    assert!(with("birch", "777703").is_empty() && with("birch", "nginx").is_empty(), "nothing is left of it");
    cluster.close().expect("the lab goes");
}
