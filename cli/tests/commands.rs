//! The commands as a user runs them: what they print, and their exit status: 0 done, 1 refused, 2 unexpected.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two-servers");

fn holdfast(kubeconfig: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(args).env("KUBECONFIG", kubeconfig).env_remove("HOME").output().expect("the program runs")
}

/// Exit status, standard output, standard error.
fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn check(kubeconfig: &Path, args: &[&str], status: i32, expected: &[&str]) -> String {
    let (code, out, err) = outcome(&holdfast(kubeconfig, args));
    assert_eq!(code, Some(status), "{args:?}\n{out}{err}");
    for part in expected {
        assert!(out.contains(part) || err.contains(part), "{args:?}: no {part:?} in\n{out}{err}");
    }
    out
}

/// A running `holdfast server`; killed when dropped.
struct Server {
    child: Child,
    kubeconfig: PathBuf,
}

impl Server {
    fn start(directory: &Path) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["server", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready: https://127.0.0.1:"), "{line:?}");
        Server { child, kubeconfig: directory.join("admin.kubeconfig") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn exit_status_says_whose_turn_it_is() {
    let home = tempfile::tempdir().expect("a directory");
    let missing = home.path().join("none");
    check(&missing, &["--help"], 0, &["Exit status: 0 done, 1 refused"]);
    check(&missing, &["status", "--speed"], 1, &["unexpected argument '--speed'"]);
    check(&missing, &["get", "fog"], 1, &["no usable kubeconfig", "hint: give one with --kubeconfig FILE"]);
    let dead = home.path().join("dead");
    std::fs::write(
        &dead,
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],
          clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: x, user: {}}]}",
    )
    .expect("a file");
    check(&dead, &["get", "fog"], 2, &["the API server can't be reached", "hint: is it running"]);
}

#[test]
fn validate_lists_every_mistake_with_its_field() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("bad.yaml");
    let text = std::fs::read_to_string(format!("{EXAMPLE}/cluster.yaml")).expect("the example");
    std::fs::write(
        &file,
        text.replace("timeout: 1s", "timout: 1s").replace("{name: birch, id: 2}", "{name: birch, id: 17}"),
    )
    .expect("a file");
    let file = file.to_string_lossy();
    check(
        home.path(),
        &["validate", "-f", &file],
        1,
        &["spec.heartbeat.timout", "spec.servers[1].id", "17", "not valid"],
    );
    check(home.path(), &["validate", "-f", EXAMPLE], 0, &["SubCluster ha/shop: valid"]);
    check(home.path(), &["timing", "-f", EXAMPLE], 0, &["C       takeover wait", "takeoverWait ≥ "]);
}

#[test]
fn objects_are_applied_listed_and_deleted_in_turn_with_kubectl() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(&home.path().join("data"));
    let run = |args: &[&str], status, expected: &[&str]| check(&server.kubeconfig, args, status, expected);
    run(&["status"], 0, &["nothing is declared"]);
    run(&["apply", "-f", EXAMPLE, "--dry-run"], 1, &["namespace/ha created (server dry run)", "not found"]);
    run(&["apply", "-f", EXAMPLE], 0, &["failovergroup.holdfast.dev/web created"]);
    let again = run(&["apply", "-f", EXAMPLE], 0, &[]);
    assert_eq!(again.lines().filter(|line| line.ends_with(" unchanged")).count(), 4, "{again}");

    let kubectl = Command::new("kubectl").args(["apply", "-k", EXAMPLE]).env("KUBECONFIG", &server.kubeconfig).output();
    let (code, out, err) = outcome(&kubectl.expect("kubectl"));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let again = run(&["apply", "-f", EXAMPLE], 0, &[]);
    assert_eq!(again.lines().filter(|line| line.ends_with(" unchanged")).count(), 4, "after kubectl: {again}");

    let table =
        run(&["get", "fog,hsub", "-n", "ha"], 0, &["failovergroup.holdfast.dev/web", "subcluster.holdfast.dev/shop"]);
    assert!(table.lines().next().is_some_and(|header| header.starts_with("NAME ")), "{table}");
    run(&["get", "fog/web", "-n", "ha", "-o", "yaml"], 0, &["kind: FailoverGroup", "mountPoint: /srv/web"]);
    run(&["get", "fogg"], 1, &["does not know a kind \"fogg\"", "hint: it has: "]);
    run(&["status"], 0, &["sub-cluster ha/shop", "server alder", "resource nginx"]);

    let agent = home.path().join("alder.kubeconfig");
    let data = home.path().join("data");
    let (data, out) = (data.to_string_lossy(), agent.to_string_lossy());
    run(
        &["kubeconfig", "--data-dir", &data, "--server", "shop/alder", "--out", &out],
        1,
        &["NAMESPACE/SUBCLUSTER/SERVER"],
    );
    run(&["kubeconfig", "--data-dir", &data, "--server", "ha/shop/alder", "--out", &out], 0, &[]);

    // What the agents have not placed may go; the order is the reverse of the manifests'.
    run(
        &["delete", "fog/none", "-n", "ha"],
        1,
        &["failovergroup.holdfast.dev/none is not there", "--ignore-not-found"],
    );
    run(&["delete", "fog", "web", "-n", "ha"], 0, &["failovergroup.holdfast.dev/web deleted"]);
    run(&["get", "fog", "-n", "ha"], 0, &["No resources found in ha namespace."]);
}

#[test]
fn fence_devices_are_listed_by_server_and_level_with_who_has_looked_at_them() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(&home.path().join("data"));
    let run = |args: &[&str], status, expected: &[&str]| check(&server.kubeconfig, args, status, expected);
    let example = EXAMPLE.replace("two-servers", "fenced-servers");
    run(&["validate", "-f", &example], 0, &["SubCluster ha/shop: valid"]);
    run(&["apply", "-f", &example], 0, &["subcluster.holdfast.dev/shop created", "secret/ipmi created"]);
    let list = run(&["fence", "list", "shop", "-n", "ha"], 0, &[]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = list.lines().map(words).collect();
    assert_eq!(
        lines,
        [
            "SERVER LEVEL DEVICE AGENT PLUG FROM LAST LOOK",
            "alder 1 board fence_ipmilan 198.51.100.1 - nobody has looked yet",
            "birch 1 board fence_ipmilan 198.51.100.2 - nobody has looked yet",
        ]
    );
    assert!(!list.contains("change-me"), "no password is shown");
    run(&["fence", "list", "nowhere", "-n", "ha"], 1, &["\"nowhere\" not found"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .arg("crds")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn agents_of_other_makers_are_listed_and_described() {
    // The commands of docs/operations.md.
    let document =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).expect("docs");
    for command in ["holdfast agents list\n", "holdfast agents describe heartbeat:IPaddr2\n"] {
        assert!(document.contains(command), "{command}");
    }
    let nowhere = Path::new("/nonexistent");
    let list =
        check(nowhere, &["agents", "list"], 0, &["heartbeat:IPaddr2", "Manages virtual IPv4 and IPv6 addresses"]);
    let of =
        |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is listed"));
    assert!(
        of("heartbeat:sg_persist ").contains("can't be used: it does its work only on an instance that is promoted")
    );
    assert!(!of("heartbeat:redis ").contains("can't be used"), "{list}");
    let plain = "It can be promoted. A group runs it as one plain instance, without roles.";
    check(nowhere, &["agents", "describe", "redis"], 0, &[plain]);
    check(
        nowhere,
        &["agents", "describe", "nginx"],
        0,
        &["Deeper checks:", "  depth 10 30s, every 30s", "  depth 20 45s"],
    );
    let described = check(nowhere, &["agents", "describe", "heartbeat:IPaddr2"], 0, &[]);
    for line in ["  start    20s", "  monitor  20s, every 10s", "  ip (required): IPv4 or IPv6 address"] {
        assert!(described.lines().any(|found| found == line), "no {line:?} in\n{described}");
    }
    check(
        nowhere,
        &["agents", "describe", "heartbeat:Nothing"],
        1,
        &["no agent heartbeat:Nothing", "holdfast agents list"],
    );
    check(nowhere, &["agents", "describe", "../../bin:sh"], 1, &["the provider is", "heartbeat:IPaddr2"]);
}

#[test]
fn a_user_may_do_what_a_role_says_and_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let server = Server::start(&data);
    check(&server.kubeconfig, &["apply", "-f", EXAMPLE], 0, &[]);
    let admin = std::fs::read_to_string(&server.kubeconfig).expect("a kubeconfig");
    let url = admin.split_whitespace().find(|word| word.starts_with("https://")).expect("a URL");
    let anna = home.path().join("anna.kubeconfig");
    let (data, out) = (data.to_string_lossy(), anna.to_string_lossy());
    let issue = ["kubeconfig", "--data-dir", &data, "--api", url, "--out", &out, "--group", "operators", "--user"];
    check(
        &server.kubeconfig,
        &[&issue[..], &["system:admin"]].concat(),
        1,
        &["does not begin with system: or holdfast:"],
    );
    check(&server.kubeconfig, &[&issue[..], &["anna"]].concat(), 0, &["credentials of user anna"]);
    check(&anna, &["get", "fog", "-n", "ha"], 1, &["User \"anna\" cannot list resource \"failovergroups\""]);

    let kubectl = |config: &Path, args: &[&str]| {
        let output = Command::new("kubectl").args(args).env("KUBECONFIG", config).output().expect("kubectl");
        let (code, out, err) = outcome(&output);
        (code, format!("{out}{err}"))
    };
    let bind =
        ["create", "rolebinding", "operators", "-n", "ha", "--clusterrole=holdfast-operator", "--group=operators"];
    assert_eq!(kubectl(&server.kubeconfig, &bind).0, Some(0));
    // The list is as new as the newest write, and what authorization asks is what lists are answered from.
    assert!(kubectl(&server.kubeconfig, &["get", "rolebindings", "-n", "ha"]).1.contains("holdfast-operator"));
    check(&anna, &["get", "fog", "-n", "ha"], 0, &["web"]);
    // kubectl warns of a verb that it does not know.
    let (_, may) = kubectl(&anna, &["auth", "can-i", "move", "failovergroups/web", "-n", "ha"]);
    assert!(may.starts_with("yes\n"), "{may}");
    let (code, text) = kubectl(&anna, &["delete", "fog", "web", "-n", "ha"]);
    assert!(code == Some(1) && text.contains("User \"anna\" cannot delete resource \"failovergroups\""), "{text}");
    check(
        &anna,
        &["force-reinstate", "shop.alder", "-n", "ha", "--reason", "x", "--confirm", "shop.alder"],
        1,
        &["cannot forcereinstate"],
    );
}

#[test]
fn a_shell_and_man_learn_every_command_from_the_flags_themselves() {
    let home = tempfile::tempdir().expect("a directory");
    let none = home.path().join("none");
    let script = home.path().join("completion");
    std::fs::write(&script, check(&none, &["completion", "bash"], 0, &[])).expect("written");
    // What bash would offer after `holdfast clear-f` and `holdfast get --out`.
    let offered = |line: &str, word: &str| {
        let ask = format!(
            "source {}; COMP_WORDS=({line} {word}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _holdfast holdfast {word}; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["-c", &ask]).output().expect("bash runs");
        outcome(&output).1.trim().to_owned()
    };
    assert_eq!(offered("holdfast", "clear-f"), "clear-failures");
    assert_eq!(offered("holdfast get", "--out"), "--output");
    check(&none, &["completion", "tcsh"], 1, &["[possible values: bash, elvish, fish, powershell, zsh]"]);
    let pages = home.path().join("man1");
    check(&none, &["man", "--out", pages.to_str().expect("UTF-8")], 0, &["manual pages written to"]);
    for (page, says) in [("holdfast.1", "Failover clusters for Linux servers"), ("holdfast-detach.1", "reinstated")] {
        let text = std::fs::read_to_string(pages.join(page)).expect("a page");
        assert!(text.contains(says), "{page}: {text}");
    }
    check(&none, &["man", "--out", "/proc/none"], 1, &["can't be written into /proc/none", "hint: name a directory"]);
}

#[test]
fn kubectl_runs_it_as_its_plugin() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(&home.path().join("data"));
    let programs = home.path().join("bin");
    std::fs::create_dir(&programs).expect("a directory");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_holdfast"), programs.join("kubectl-holdfast")).expect("a link");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
    let kubectl = |args: &[&str]| {
        let mut command = Command::new("kubectl");
        command.arg("holdfast").args(args).env("PATH", &path).env("KUBECONFIG", &server.kubeconfig);
        outcome(&command.output().expect("kubectl runs"))
    };
    let (code, out, err) = kubectl(&["apply", "-f", EXAMPLE]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = kubectl(&["get", "hsub", "-n", "ha", "-o", "name"]);
    assert_eq!((code, out.trim()), (Some(0), "subcluster.holdfast.dev/shop"), "{err}");
    let (code, _, err) = kubectl(&["detach"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("Usage: kubectl holdfast detach"), "{err}");
}

#[test]
fn logs_are_objects_on_request() {
    let home = tempfile::tempdir().expect("a directory");
    let run = |format: &str| {
        Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["server", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(home.path().join("data"))
            .env("HOLDFAST_LOG_FORMAT", format)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts")
    };
    let mut child = run("json");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let mut object = || -> serde_json::Value {
        serde_json::from_str(&lines.next().expect("another line").expect("a line")).expect("an object")
    };
    let audited = std::iter::repeat_with(&mut object).find(|object| object["target"] == "audit").expect("a write");
    let said = std::iter::repeat_with(object).find(|object| object["message"].is_string()).expect("a message");
    let _ = child.kill();
    let _ = child.wait();
    for field in ["timestamp", "level", "user", "verb", "resource"] {
        assert!(audited[field].is_string(), "no {field} in {audited}");
    }
    assert!(said["timestamp"].is_string() && said["target"].is_string(), "{said}");
    let refused = run("xml").wait_with_output().expect("it ends");
    let (code, _, err) = outcome(&refused);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("HOLDFAST_LOG_FORMAT=xml: no such form; allowed: text, json"), "{err}");
}
