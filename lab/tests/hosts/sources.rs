//! A password from a Secret and a script from a ConfigMap: what is missing, what the running program has in its
//! environment by its kernel's word, and the same after a takeover without any control plane.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_lab::{Cluster, ClusterOptions, Host, STATE_DIR, StoreKind, wait_for};
use serde_yaml::Value;

use crate::harness::{LIMIT, LogsOnPanic};

/// Before the program a script, so that it can be seen whether anything was started.
fn declared() -> Vec<(PathBuf, Value)> {
    let group = format!(
        "{{apiVersion: holdfast.dev/v1, kind: FailoverGroup, metadata: {{name: vault, namespace: ha}}, spec: {{subCluster: shop, \
         resources: [{{name: first, script: {{start: {{inline: 'touch {STATE_DIR}/first'}}, stop: {{inline: 'true'}}}}}}, \
         {{name: hook, dependsOn: [first], script: {{start: {{configMap: {{name: hooks, key: start}}}}, \
         stop: {{configMap: {{name: hooks, key: stop}}}}}}}}, \
         {{name: app, dependsOn: [hook], process: {{command: [/bin/sleep, '7777'], environmentFrom: [vault-env]}}}}]}}}}"
    );
    let map = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: hooks, namespace: ha}}, data: {{start: 'echo $HOLDFAST_SERVER >> \
         {STATE_DIR}/hook', stop: 'true'}}}}"
    );
    [group, map].iter().map(|text| (PathBuf::from("vault.yaml"), serde_yaml::from_str(text).expect("YAML"))).collect()
}

const SECRET: &str =
    "{apiVersion: v1, kind: Secret, metadata: {name: vault-env, namespace: ha}, stringData: {PASSWORD: swordfish}}";

/// The password of the program on a host, as /proc shows it; none where it does not run.
fn password(host: &Host) -> Option<String> {
    let all = host.processes().expect("its processes");
    let app = all.iter().find(|process| process.args == ["/bin/sleep", "7777"])?;
    let text = std::fs::read(format!("/proc/{}/environ", app.pid)).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.split('\0').find_map(|line| line.strip_prefix("PASSWORD=")).map(str::to_owned)
}

fn has(host: &Host, file: &str) -> bool {
    host.state_dir().join(file).exists()
}

#[test]
fn secrets_and_scripts_of_objects_are_there_where_the_group_is_and_without_control_plane() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-servers");
    let edit = |documents: &mut Vec<(PathBuf, Value)>| documents.extend(declared());
    let options = ClusterOptions { store: StoreKind::Etcd, edit: Some(&edit), ..ClusterOptions::default() };
    let cluster = Cluster::start("sources", &directory, &options).expect("the cluster is built");
    let host = |name: &str| -> Arc<Host> { cluster.host(name).expect("a host of the example") };
    // ORDER: declared after the cluster, so that it shows the logs before they are gone.
    let _logs = LogsOnPanic(["alder", "birch"].map(host).to_vec());
    let both = ["alder", "birch"].map(host);

    let failures = wait_for("both servers to refuse it", LIMIT, |last| {
        let status = cluster.group("vault")?.status.unwrap_or_default();
        *last = format!("{status:?}");
        Ok((status.failures.len() == 2).then_some(status.failures))
    })
    .expect("the status says so");
    for failure in &failures {
        let text = "its start failed: nothing of the group is started: resource app: process.environmentFrom: Secret vault-env \
            in namespace ha is not known on this server; create it there";
        assert!(failure.message.starts_with(text), "{failure:?}");
    }
    assert!(both.iter().all(|host| !has(host, "first") && !has(host, "hook")), "nothing of the group was started");

    let file = both[0].state_dir().join("secret.yaml");
    std::fs::write(&file, SECRET).expect("a manifest");
    cluster.apply(&file).expect("it is taken");
    // Nobody has to say so: both servers see that they lack nothing any more.
    let online = cluster.wait_online("vault", None, LIMIT).expect("the group comes online");
    let active = online.status.and_then(|status| status.server).expect("a server");
    let (from, to) = if active == "alder" { (&both[0], &both[1]) } else { (&both[1], &both[0]) };
    assert_eq!((password(from).as_deref(), password(to)), (Some("swordfish"), None));
    assert!(has(from, "hook") && !has(to, "hook"));

    // The Secret goes: what runs goes on.
    cluster.holdfast(&["delete", "secret", "vault-env", "--namespace", "ha"]).expect("it is deleted");
    cluster.stop_control_plane(StoreKind::Etcd).expect("the API, its store and the controller are away");
    assert_eq!(password(from).as_deref(), Some("swordfish"));
    cluster.power_cut(from.name()).expect("a power cut");
    wait_for("the other server to have taken it over", LIMIT, |last| {
        *last = format!("{:?}", password(to));
        Ok((password(to).as_deref() == Some("swordfish")).then_some(()))
    })
    .expect("with the same password");
    assert_eq!(
        std::fs::read_to_string(to.state_dir().join("hook")).expect("the script ran"),
        format!("{}\n", to.name())
    );

    // Nobody was told.
    for host in &both {
        for log in std::fs::read_dir(host.log_dir()).expect("its logs") {
            let text = std::fs::read_to_string(log.expect("a log").path()).expect("a log");
            assert!(!text.contains("swordfish"), "{} tells the password", host.name());
        }
    }
    cluster.start_control_plane(StoreKind::Etcd).expect("the API is back");
    let online = cluster.wait_online("vault", Some(to.name()), LIMIT).expect("the status follows");
    assert!(!serde_json::to_string(&online).expect("JSON").contains("swordfish"));
    cluster.close().expect("the lab goes");
}
