//! Backup and restore as an administrator does them: real servers, real kubectl, from the file into etcd and back.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast_store::testing::EtcdCluster;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ha}
---
apiVersion: holdfast.dev/v1
kind: SuperCluster
metadata: {name: bank, namespace: ha}
spec: {policy: {minimumPaths: 3}}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: ha}
stringData: {password: hunter2}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: ha}
data: {color: "green"}
"#;

fn holdfast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast")).args(args).env_remove("KUBECONFIG").output().expect("it runs")
}

#[track_caller]
fn check(args: &[&str], status: i32, expected: &str) {
    let output = holdfast(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}{err}");
    assert!(out.contains(expected) || err.contains(expected), "{args:?}: no {expected:?} in\n{out}{err}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name")
}

/// A running `holdfast server`; killed when dropped.
struct Server {
    child: Child,
    data: PathBuf,
    url: String,
}

impl Server {
    fn start(data: &Path, more: &[String]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["server", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let url = line.strip_prefix("ready: ").and_then(|rest| rest.split(',').next()).expect("its address").to_owned();
        Server { child, data: data.to_owned(), url }
    }

    fn kubectl(&self, args: &[&str]) -> Output {
        // The credentials that the backup holds, at the address that this server has.
        Command::new("kubectl")
            .args(args)
            .args(["--server", &self.url])
            .env("KUBECONFIG", self.data.join("admin.kubeconfig"))
            .env("HOME", &self.data)
            .output()
            .expect("kubectl is installed (package kubernetes-client)")
    }

    /// Uid, generation and content of an object.
    #[track_caller]
    fn object(&self, kind: &str, name: &str) -> Value {
        let output = self.kubectl(&["get", kind, name, "-n", "ha", "-o", "json"]);
        let object: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{kind}/{name}: {}", String::from_utf8_lossy(&output.stderr)));
        let meta = &object["metadata"];
        serde_json::json!([meta["uid"], meta["generation"], meta["creationTimestamp"], object["spec"], object["data"]])
    }

    fn names(&self) -> Vec<String> {
        let output = self.kubectl(&["get", "configmaps", "-n", "ha", "-o", "name"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut names: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn incarnation(&self) -> Option<u64> {
        let output = self.kubectl(&["get", "hsc", "bank", "-n", "ha", "-o", "json"]);
        serde_json::from_slice::<Value>(&output.stdout).ok()?.pointer("/status/storeIncarnation")?.as_u64()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_backup_made_while_writing_is_one_moment_and_goes_from_any_store_to_any_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let first = Arc::new(Server::start(&at("first"), &[]));
    std::fs::write(at("objects.yaml"), OBJECTS).expect("written");
    let applied = first.kubectl(&["apply", "-f", text(&at("objects.yaml"))]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

    // Somebody writes meanwhile: what was acknowledged before is in it, and nothing without what came before it.
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = std::thread::spawn({
        let (first, stop, made) = (first.clone(), stop.clone(), made.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                let n = made.load(Ordering::SeqCst);
                let name = format!("w{n:05}");
                assert!(first.kubectl(&["create", "configmap", &name, "-n", "ha"]).status.success());
                made.store(n + 1, Ordering::SeqCst);
            }
        }
    });
    let begin = Instant::now();
    while made.load(Ordering::SeqCst) < 3 {
        assert!(begin.elapsed() < PATIENCE, "nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = made.load(Ordering::SeqCst);
    check(&["backup", "--data-dir", text(&at("first")), "-o", text(&at("one.backup"))], 0, "saved");
    let after = made.load(Ordering::SeqCst) + 1;
    stop.store(true, Ordering::SeqCst);
    writer.join().expect("no panic");
    let mode = std::fs::metadata(at("one.backup")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    check(&["backup", "--data-dir", text(&at("first")), "-o", text(&at("one.backup"))], 1, "exists already");

    // Nothing of a damaged file gets anywhere.
    let good = std::fs::read(at("one.backup")).expect("read");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (bytes, reason) in [
        (good[..good.len() - 100].to_vec(), "cut off"),
        (flipped, "checksum"),
        (String::from_utf8_lossy(&good).replacen("\"version\":1", "\"version\":7", 1).into_bytes(), "version 7"),
        (b"apiVersion: v1\n".to_vec(), "no backup of Holdfast"),
    ] {
        std::fs::write(at("bad.backup"), bytes).expect("written");
        check(&["restore", text(&at("bad.backup")), "--data-dir", text(&at("second"))], 1, reason);
        assert!(!at("second").exists(), "nothing was changed");
    }

    // Into an etcd that asks for certificates.
    let mut etcd = EtcdCluster::new(1).expect("certificates");
    etcd.start().expect("etcd is installed (package etcd-server)");
    let flags: Vec<String> = [
        ("--store", etcd.spec(0)),
        ("--etcd-ca", text(&etcd.file("ca.pem")).to_owned()),
        ("--etcd-cert", text(&etcd.file("client.pem")).to_owned()),
        ("--etcd-key", text(&etcd.file("client.key")).to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    let with_flags = |args: &[&str], status: i32, expected: &str| {
        let all: Vec<&str> = args.iter().copied().chain(flags.iter().map(String::as_str)).collect();
        check(&all, status, expected);
    };
    let second_dir = at("second");
    with_flags(&["restore", text(&at("one.backup")), "--data-dir", text(&second_dir)], 0, "store incarnation 1");
    let second = Server::start(&second_dir, &flags);
    for (kind, name) in [("hsc", "bank"), ("secret", "key"), ("configmap", "settings"), ("configmap", "w00000")] {
        assert_eq!(second.object(kind, name), first.object(kind, name), "{kind} {name}");
    }
    assert_eq!(second.incarnation(), Some(1));
    let names = second.names();
    let written = names.len() - 1;
    assert!((before..=after).contains(&written), "{before} to {after} were written: {names:?}");
    let expected: Vec<_> = (0..written).map(|n| format!("configmap/w{n:05}")).collect();
    assert_eq!(
        names.iter().filter(|name| name.starts_with("configmap/w")).collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    let ca = |data: &Path| std::fs::read(data.join("pki/ca.crt")).expect("an authority");
    assert_eq!(ca(&at("first")), ca(&second_dir), "agents and users go on with the credentials that they have");

    // And from there into a file; what is there already is kept unless told otherwise.
    with_flags(&["backup", "--data-dir", text(&second_dir), "-o", text(&at("two.backup"))], 0, "saved");
    drop(second);
    check(&["restore", text(&at("two.backup")), "--data-dir", text(&at("third"))], 0, "store incarnation 2");
    check(&["restore", text(&at("one.backup")), "--data-dir", text(&at("third"))], 1, "--replace");
    let third = Server::start(&at("third"), &[]);
    assert_eq!((third.names(), third.incarnation()), (names, Some(2)));
    assert_eq!(third.object("secret", "key"), first.object("secret", "key"));
    check(
        &["restore", text(&at("one.backup")), "--data-dir", text(&at("third")), "--replace"],
        1,
        "in use by another server",
    );
    drop(third);
    check(
        &["restore", text(&at("one.backup")), "--data-dir", text(&at("third")), "--replace"],
        0,
        "store incarnation 3",
    );
}
