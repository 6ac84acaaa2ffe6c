//! `holdfast lab up --once` over every example, as `make demo ONCE=1` runs it.

use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_lab::{holdfast_binary, unified_mount};

/// Runs it and returns what it printed.
fn up_once(example: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
    let mut child = Command::new(holdfast_binary().expect("the binary is built"))
        .args(["lab", "up", "--once"])
        .arg(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let name = format!("holdfast-lab-up-{}-0", child.id());
    let stdout = std::io::read_to_string(child.stdout.take().expect("a pipe")).expect("its output");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}\n{stdout}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(!std::env::temp_dir().join(&name).exists(), "files are left");
    assert!(!unified_mount().expect("cgroup2").join(&name).exists(), "a cgroup is left");
    stdout
}

#[test]
fn every_example_comes_up_survives_a_power_cut_and_leaves_nothing() {
    for example in
        ["two-servers", "three-servers", "four-servers", "fenced-servers", "two-way-standby", "split-service"]
    {
        let shown = up_once(example);
        for part in ["cutting the power of alder", "(ServerLost", "Detect ", "start address", "client-seen outage"] {
            assert!(shown.contains(part), "{example}: {part:?} is missing in\n{shown}");
        }
    }
}
