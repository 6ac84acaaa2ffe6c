//! The README is true: every command in it runs, in order, and its manifests are those of the example.
//!
//! The commands run in one shell, in network and process namespaces of their own, so that the server's usual port is
//! free and nothing is left running. Four lines stand for something that a test can't do inside itself:
//! `make demo` is the program call that it ends in; `make test`, `cargo build` and the PATH to its result are left out,
//! because this test is their outcome. A line that ends in `&` is waited for until it says `ready:`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut found = Vec::new();
    let mut current: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut current, line.strip_prefix("```")) {
            (None, Some(opened)) => current = Some((opened == language, String::new())),
            (Some(_), Some(_)) => found.extend(current.take().filter(|(wanted, _)| *wanted).map(|(_, text)| text)),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// What the shell runs for a line of the README.
fn script_of(line: &str) -> String {
    match line {
        "make demo" => "holdfast lab up examples/two-servers --once".into(),
        "make test" => ":".into(),
        line if line.starts_with("cargo build ") || line.starts_with("export PATH=") => ":".into(),
        line if line.ends_with('&') => {
            format!(
                "{} > ~/ready 2> ~/server.log &\nserver=$!\nuntil grep -q ready: ~/ready; do kill -0 $server; sleep 0.05; done",
                line.trim_end_matches('&')
            )
        }
        line => line.into(),
    }
}

#[test]
fn every_command_runs() {
    let home = tempfile::tempdir().expect("a home");
    let mut script = String::from("set -euo pipefail\nip link set lo up\n");
    let mut count = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        script.push_str(&format!("echo {}\n{}\n", shell_words(&format!("$ {line}")), script_of(line)));
        count += 1;
    }
    assert!(count > 10, "the README has {count} commands");
    let binary = Path::new(env!("CARGO_BIN_EXE_holdfast"));
    let path =
        format!("{}:{}", binary.parent().expect("a directory").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", &script])
        .current_dir(root())
        .env("HOME", home.path())
        .env("PATH", path)
        .env("HOLDFAST_BIN", binary)
        .env_remove("KUBECONFIG")
        .output()
        .expect("unshare, of util-linux");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(home.path().join("server.log")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n--- server.log\n{log}");
    // Evidence that the commands did something, in the words of kubectl and of the program.
    for expected in [
        "client-seen outage",
        "failovergroup.holdfast.dev/web created",
        "subcluster.holdfast.dev/shop condition met",
        "lock ",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}

fn shell_words(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The objects of a YAML text that are of our kinds.
fn objects(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|object| object["apiVersion"] == holdfast_api::API_VERSION)
        .collect()
}

#[test]
fn its_manifests_are_those_of_the_example() {
    let directory = root().join("examples/two-servers");
    let mut example = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the example") {
        example.extend(objects(&std::fs::read_to_string(entry.expect("an entry").path()).expect("a manifest")));
    }
    for object in blocks("yaml").iter().flat_map(|block| objects(block)) {
        let same = example.iter().find(|other| other["kind"] == object["kind"]).expect("a kind of the example");
        assert_eq!(&object, same);
    }
}
