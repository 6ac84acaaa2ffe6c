//! Secrets and ConfigMaps in resources: what a program has in its environment, as /proc shows it, a script from a
//! ConfigMap, and what is missing.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, failed, resource};
use holdfast_agent::fencing::Secrets;
use holdfast_agent::resources::Sources;
use holdfast_core::{Action, Outcome};
use serde_json::json;

/// Secret `s` with a password, ConfigMap `c` with two scripts.
fn sources(password: &[u8]) -> Arc<Sources> {
    let entries = [("PASSWORD".to_owned(), password.to_vec()), ("USER_OF_DB".to_owned(), b"ledger".to_vec())];
    let texts = [("start", "echo $1 > $OUT"), ("stop", "rm $OUT")];
    Arc::new(Sources {
        secrets: Secrets([("s".to_owned(), entries.into())].into()),
        config_maps: [("c".to_owned(), texts.map(|(k, v)| (k.to_owned(), v.to_owned())).into())].into(),
        namespace: "ha".to_owned(),
        ..Sources::default()
    })
}

#[test]
fn a_program_has_the_secret_in_its_environment_and_nobody_else_can_read_it() {
    let server = Server::new();
    *server.sources.borrow_mut() = sources(b"swordfish");
    let app = resource(json!({"name": "app", "process": {"command": ["/bin/sleep", "300"], "environmentFrom": ["s"],
        "environment": {"USER_OF_DB": "own"}}}));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    let environment = |server: &Server| {
        let pid = server.cgroup(&app).pids()[0];
        String::from_utf8(std::fs::read(format!("/proc/{pid}/environ")).unwrap()).unwrap().replace('\0', "\n")
    };
    let text = environment(&server);
    assert!(text.contains("PASSWORD=swordfish\n") && text.contains("USER_OF_DB=own\n"), "{text}");
    let found = common::sh(&format!("grep -rl swordfish {} || true", server.run_dir.path().display()));
    for file in found.lines() {
        let mode = std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }

    // A change counts from the next start on, over a restart of the agent, too.
    *server.sources.borrow_mut() = sources(b"changed");
    server.restart();
    assert_eq!(server.run(Action::Monitor, &app), Outcome::Running);
    assert!(environment(&server).contains("PASSWORD=swordfish\n"));
    assert_eq!(server.run(Action::Stop, &app), Outcome::Stopped);
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    assert!(environment(&server).contains("PASSWORD=changed\n"));
    assert_eq!(server.run(Action::Stop, &app), Outcome::Stopped);
}

#[test]
fn a_script_may_stand_in_a_config_map_and_is_stopped_as_it_was_started() {
    let server = Server::new();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("out");
    *server.sources.borrow_mut() = sources(b"x");
    let hook = resource(json!({"name": "hook", "script": {"environment": {"OUT": file},
        "start": {"configMap": {"name": "c", "key": "start"}, "args": ["hello"]}, "stop": {"configMap": {"name": "c", "key": "stop"}}}}));
    assert_eq!(server.run(Action::Start, &hook), Outcome::Running);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello\n");
    *server.sources.borrow_mut() = Arc::default();
    assert_eq!(server.run(Action::Stop, &hook), Outcome::Stopped);
    assert!(!file.exists());
}

#[test]
fn what_a_program_prints_of_a_secret_is_told_to_nobody() {
    let server = Server::new();
    *server.sources.borrow_mut() = sources(b"swordfish");
    let app = |script: &str| {
        resource(json!({"name": "app", "process": {"command": ["/bin/sh", "-c", script], "environmentFrom": ["s"]}}))
    };
    let at_once = failed(server.run(Action::Start, &app("echo no $PASSWORD here; exit 3")));
    assert!(at_once.contains("it printed: no *** here"), "{at_once}");
    let go = server.run_dir.path().join("go");
    let later = app(&format!("until [ -e {} ]; do sleep 0.01; done; echo bad $PASSWORD; exit 3", go.display()));
    assert_eq!(server.run(Action::Start, &later), Outcome::Running);
    std::fs::write(&go, "").unwrap();
    let message = server.failure(Duration::from_secs(10));
    assert!(message.contains(" / bad ***; all of it: "), "{message}");
}

#[test]
fn what_is_missing_is_named_and_nothing_of_the_group_is_started() {
    let server = Server::new();
    *server.sources.borrow_mut() = sources(b"two\0words");
    let refused = |json| failed(server.run(Action::Start, &resource(json)));
    let process = |secret: &str| json!({"name": "app", "process": {"command": ["/bin/sleep", "300"], "environmentFrom": [secret]}});
    let unknown =
        "in namespace ha is not known on this server; create it there, or see in the agent's log why it can't be read";
    assert_eq!(
        refused(process("none")),
        format!("its start failed: resource app: process.environmentFrom: Secret none {unknown}")
    );
    let text = refused(process("s"));
    assert!(
        text.starts_with("its start failed: resource app: process.environmentFrom: key PASSWORD of Secret s in namespace ha is no text"),
        "{text}"
    );
    let script = |key: &str| json!({"name": "hook", "script": {"start": {"configMap": {"name": "c", "key": key}}, "stop": {"inline": "true"}}});
    let text = refused(script("begin"));
    let named = "its start failed: resource hook: script.start.configMap: ConfigMap c in namespace ha has no key begin; it has: start, stop. ";
    assert!(text.starts_with(named), "{text}");
    let agent = json!({"name": "note", "ocf": {"type": "Dummy", "parametersFrom": ["none"]}});
    let text = refused(agent.clone());
    assert!(text.contains(&format!("failed: resource note: ocf.parametersFrom: Secret none {unknown}")), "{text}");
    assert_eq!(server.cgroups.groups().pids(), [] as [i32; 0]);

    // The whole group is looked at before its first resource is started.
    let whole = [json!({"name": "first", "process": {"command": ["/bin/sleep", "300"]}}), script("start"), agent];
    let whole = whole.map(resource);
    let lacking = server.sources.borrow().lacking(&whole);
    assert_eq!(
        lacking.as_deref(),
        Some(
            format!("nothing of the group is started: resource note: ocf.parametersFrom: Secret none {unknown}")
                .as_str()
        )
    );
    assert_eq!(server.sources.borrow().lacking(&whole[..2]), None);
}
