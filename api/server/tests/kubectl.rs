//! kubectl over TLS with the administrator's kubeconfig: what an operator types has to work as on a stock server.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;
use support::{PATIENCE, World};

/// A manifest of the examples.
fn example(file: &str) -> String {
    format!("{}/../../examples/two-servers/{file}", env!("CARGO_MANIFEST_DIR"))
}

async fn apply_example(world: &World) {
    world.kubectl(&["apply", "-f", &example("cluster.yaml"), "-f", &example("web.yaml")], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_changes_and_leaves_alone() {
    let world = World::new().await;
    let (cluster, web) = (example("cluster.yaml"), example("web.yaml"));
    let apply = ["apply", "-f", cluster.as_str(), "-f", web.as_str()];
    let first = world.kubectl(&apply, "").await;
    for line in
        ["namespace/ha created", "subcluster.holdfast.dev/shop created", "failovergroup.holdfast.dev/web created"]
    {
        assert!(first.contains(line), "{first}");
    }
    let read = ["get", "fog", "web", "-n", "ha", "-o", "jsonpath={.metadata.resourceVersion} {.metadata.generation}"];
    let before = world.kubectl(&read, "").await;
    let again = world.kubectl(&apply, "").await;
    // kubectl says `configured` for objects whose lists got defaults: it compares with the manifest. Nothing is stored.
    assert!(again.contains("supercluster.holdfast.dev/demo unchanged"), "{again}");
    assert_eq!(world.kubectl(&read, "").await, before);
    assert_eq!(world.kubectl(&["diff", "-f", &cluster, "-f", &web], "").await, "", "nothing differs");

    let text = std::fs::read_to_string(&web).expect("the example");
    let changed = text.replace("subCluster: shop\n", "subCluster: shop\n  state: Offline\n");
    let output = world.kubectl_raw(&["diff", "-f", "-"], &changed).await;
    assert!(String::from_utf8_lossy(&output.stdout).contains("+  state: Offline"), "{output:?}");
    assert!(world.kubectl(&["apply", "-f", "-"], &changed).await.contains("web configured"));
    let now = world
        .kubectl(&["get", "fog", "web", "-n", "ha", "-o", "jsonpath={.spec.state} {.metadata.generation}"], "")
        .await;
    assert_eq!(now, "Offline 2");
    // A field that leaves the manifest goes back to its default.
    world.kubectl(&["apply", "-f", &web], "").await;
    assert_eq!(world.kubectl(&["get", "fog", "web", "-n", "ha", "-o", "jsonpath={.spec.state}"], "").await, "Online");
    let dry = world.kubectl(&["apply", "--dry-run=server", "-f", "-"], &changed).await;
    assert!(dry.contains("web configured (server dry run)"), "{dry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_are_refused_with_the_field() {
    let world = World::new().await;
    let text = std::fs::read_to_string(example("cluster.yaml")).expect("the example");
    world.kubectl(&["create", "namespace", "ha"], "").await;
    for (from, to, expected) in [
        // An older kubectl refuses this one itself, in its own words.
        ("heartbeat:\n    #", "heartbeet: {}\n  heartbeat:\n    #", "heartbeet\""),
        ("timeout: 1s", "timeout: 1", "spec.heartbeat.timeout"),
        ("  - {name: birch, id: 2}\n", "", "spec.servers"),
        ("  - {name: birch, id: 2}\n", "  - {name: birch, id: 2}\n  - {name: cedar, id: 3}\n", "spec"),
    ] {
        assert!(text.contains(from), "the example changed: {from:?} is not in it");
        let error = world.kubectl_fails(&["apply", "-f", "-"], &text.replacen(from, to, 1)).await;
        assert!(error.contains(expected), "{expected}: {error}");
        let left = world.kubectl(&["get", "hsub", "-n", "ha", "-o", "name"], "").await;
        assert_eq!(left, "", "nothing was stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_columns_objects_and_selections() {
    let world = World::new().await;
    apply_example(&world).await;
    let table = world.kubectl(&["get", "hsub,fog", "-n", "ha"], "").await;
    assert!(table.contains("NAME") && table.contains("subcluster.holdfast.dev/shop"), "{table}");
    let wide = world.kubectl(&["get", "hsub", "-A", "-o", "wide", "--show-labels"], "").await;
    for heading in ["NAMESPACE", "NAME", "PHASE", "READY", "COORDINATOR", "ARBITER", "TIMEOUT", "AGE", "LABELS"] {
        assert!(wide.contains(heading), "{heading}: {wide}");
    }
    let everything = world.kubectl(&["get", "holdfast", "-n", "ha", "-o", "name"], "").await;
    assert!(
        everything.contains("supercluster.holdfast.dev/demo") && everything.contains("failovergroup.holdfast.dev/web")
    );
    let yaml = world.kubectl(&["get", "subclusters", "shop", "-n", "ha", "-o", "yaml"], "").await;
    assert!(yaml.contains("kind: SubCluster") && yaml.contains("type: LockDisk"), "{yaml}");
    world.kubectl(&["label", "fog", "web", "-n", "ha", "tier=front"], "").await;
    let select = async |selector| world.kubectl(&["get", "fog", "-n", "ha", "-o", "name", "-l", selector], "").await;
    assert_eq!(select("tier in (front,back)").await, "failovergroup.holdfast.dev/web\n");
    assert_eq!(select("tier!=front").await, "");
    let field = ["get", "fog", "-A", "-o", "name", "--field-selector", "spec.subCluster=shop"];
    assert_eq!(world.kubectl(&field, "").await, "failovergroup.holdfast.dev/web\n");
    let missing = world.kubectl_fails(&["get", "fog", "none", "-n", "ha"], "").await;
    assert_eq!(missing, "Error from server (NotFound): failovergroups.holdfast.dev \"none\" not found\n");
    let sorted = world.kubectl(&["get", "ns", "--sort-by=.metadata.name"], "").await;
    assert!(sorted.contains("default") && sorted.contains("Active"), "{sorted}");
    let resources = world.kubectl(&["api-resources"], "").await;
    assert!(resources.contains("failovergroups") && resources.contains("fog"), "{resources}");
}

/// What came to kubectl after 1.20 (`patch --subresource`, `events`, `auth whoami`). The test script leaves this module out,
/// and says so, where kubectl is older than 1.28, as Debian 12's is; the same is tested there by single requests.
mod kubectl_1_28 {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn describe_and_explain_tell_what_there_is_to_know() {
        let world = World::new().await;
        apply_example(&world).await;
        let uid = world.kubectl(&["get", "fog", "web", "-n", "ha", "-o", "jsonpath={.metadata.uid}"], "").await;
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "web.1", "namespace": "ha"},
            "eventTime": "2026-03-02T01:00:00.123456Z", "reportingController": "holdfast-subcluster", "reportingInstance": "alder",
            "action": "Start", "reason": "GroupStarted", "note": "online on alder", "type": "Normal",
            "regarding": {"apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "name": "web", "namespace": "ha", "uid": uid},
        });
        world.kubectl(&["create", "-f", "-"], &event.to_string()).await;
        let text = world.kubectl(&["describe", "fog", "web", "-n", "ha"], "").await;
        for part in ["Sub Cluster:", "shop", "GroupStarted", "holdfast-subcluster", "online on alder"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let events = world.kubectl(&["get", "events", "-n", "ha"], "").await;
        assert!(events.contains("failovergroup/web") && events.contains("GroupStarted"), "{events}");
        assert!(world.kubectl(&["events", "-n", "ha"], "").await.contains("GroupStarted"));
        let explained = world.kubectl(&["explain", "subcluster.spec.heartbeat.timeout"], "").await;
        assert!(explained.contains("KIND:       SubCluster") && explained.contains("FIELD: timeout"), "{explained}");
        assert!(world.kubectl(&["explain", "fog", "--recursive"], "").await.contains("mountPoint"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn status_patches_satisfy_a_wait_and_show_in_a_watch() {
        let world = World::new().await;
        apply_example(&world).await;
        let mut watching = Command::new("kubectl")
            .args(["get", "fog", "web", "-n", "ha", "-w", "-o", "jsonpath={.status.phase}{\"\\n\"}"])
            .env("KUBECONFIG", world.kubeconfig())
            .env("HOME", world.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let output = BufReader::new(watching.stdout.take().expect("piped"));
        let (line, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let reader = std::thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        // The first line is the state at the beginning.
        let mut next =
            async || tokio::time::timeout(PATIENCE, lines.recv()).await.expect("a line in time").expect("a line");
        assert_eq!(next().await, "");
        let wait = ["wait", "fog/web", "-n", "ha", "--for=condition=Ready", "--timeout=20s"];
        let waiting = world.kubectl(&wait, "");
        let patch = json!({"status": {"phase": "Online", "server": "alder", "observedGeneration": 1, "conditions": [{
            "type": "Ready", "status": "True", "observedGeneration": 1, "reason": "Converged", "message": "",
            "lastTransitionTime": "2026-03-02T01:00:00Z"}]}});
        let patch = patch.to_string();
        let arguments = ["patch", "fog", "web", "-n", "ha", "--subresource=status", "--type=merge", "-p", &patch];
        let patching = async {
            // The wait must have begun; it is over only after the patch in any order.
            world.kubectl(&arguments, "").await
        };
        let (waited, patched) = tokio::join!(waiting, patching);
        assert!(waited.contains("condition met") && patched.contains("patched"), "{waited}{patched}");
        assert_eq!(next().await, "Online");
        watching.kill().expect("kubectl runs until it is ended");
        watching.wait().expect("kubectl ends");
        reader.join().expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn delete_waits_for_the_end_and_respects_the_guard() {
        let world = World::new().await;
        apply_example(&world).await;
        let online = r#"{"status":{"phase":"Online","server":"alder"}}"#;
        world
            .kubectl(&["patch", "fog", "web", "-n", "ha", "--subresource=status", "--type=merge", "-p", online], "")
            .await;
        let refused = world.kubectl_fails(&["delete", "fog", "web", "-n", "ha"], "").await;
        assert!(
            refused.contains("Error from server (Forbidden)") && refused.contains("set spec.state to Offline"),
            "{refused}"
        );
        world.kubectl_fails(&["delete", "namespace", "ha"], "").await;
        world.kubectl_fails(&["delete", "fog", "--all", "-n", "ha"], "").await;
        world.kubectl_fails(&["replace", "--force", "-f", &example("web.yaml")], "").await;
        world.kubectl(&["annotate", "fog", "web", "-n", "ha", "holdfast.dev/confirm-delete=web"], "").await;
        let deleted = world.kubectl(&["delete", "fog", "web", "-n", "ha", "--cascade=foreground"], "").await;
        assert!(deleted.contains("\"web\" deleted"), "{deleted}");
        assert_eq!(world.kubectl(&["get", "fog", "-n", "ha", "-o", "name"], "").await, "");
        let deleted = world.kubectl(&["delete", "namespace", "ha", "--timeout=20s"], "").await;
        assert!(deleted.contains("namespace \"ha\" deleted"), "{deleted}");
        assert_eq!(world.kubectl(&["get", "hsub", "-A", "-o", "name"], "").await, "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_agents_kubeconfig_opens_only_what_is_its_own() {
        let world = World::new().await;
        apply_example(&world).await;
        let config = world.dir.path().join("agent.kubeconfig");
        let text = world.pki.agent_kubeconfig(world.pki.url(), "ha", "shop", "alder").expect("a kubeconfig");
        std::fs::write(&config, text).expect("written");
        let agent = async |arguments: &[&str]| {
            let output = support::kubectl(config.clone(), world.dir.path().join("agent-home"), arguments, "").await;
            (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let (ok, who) = agent(&["auth", "whoami"]).await;
        assert!(ok && who.contains("holdfast:server:ha:shop:alder") && who.contains("system:authenticated"), "{who}");
        assert!(agent(&["get", "hsub", "-n", "ha"]).await.0);
        assert_eq!(agent(&["auth", "can-i", "list", "subclusters.holdfast.dev", "-n", "default"]).await.1, "no\n");
        let (ok, text) = agent(&["delete", "hsub", "shop", "-n", "ha"]).await;
        assert!(!ok && text.contains("cannot delete resource \"subclusters\" in API group \"holdfast.dev\""), "{text}");
        let (ok, text) = agent(&[
            "patch",
            "fog",
            "web",
            "-n",
            "ha",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"phase":"Offline"}}"#,
        ])
        .await;
        assert!(ok, "{text}");
    }
}
