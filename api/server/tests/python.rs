//! The Python client of Kubernetes, unmodified, from its Debian package.

mod support;

use std::process::{Command, Stdio};

use support::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_reads_writes_applies_and_watches() {
    let world = World::new().await;
    let (config, home) = (world.kubeconfig(), world.dir.path().join("home"));
    std::fs::create_dir(&home).expect("a directory");
    let run = tokio::task::spawn_blocking(move || {
        // Debian's own interpreter: its packages are not those of another one that may stand before it in PATH.
        Command::new("timeout")
            .args(["120", "/usr/bin/python3", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py")])
            .env("KUBECONFIG", config)
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .stdin(Stdio::null())
            .output()
            .expect("python3 is installed")
    });
    let output = run.await.expect("no panic");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stdout), "done: typed\ndone: custom\ndone: dynamic_client\n");
}
