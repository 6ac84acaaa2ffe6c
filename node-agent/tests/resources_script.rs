//! Scripts: told why, ended when their time is over, success is exit code 0 only.

mod common;

use std::time::{Duration, Instant};

use common::{Server, failed, resource};
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};

fn script(start: &str, stop: &str, check: Option<&str>) -> Resource {
    let mut script = serde_json::json!({"start": {"inline": start}, "stop": {"inline": stop}});
    if let Some(check) = check {
        script["check"] = serde_json::json!({"inline": check});
    }
    resource(serde_json::json!({"name": "hook", "script": script}))
}

#[test]
fn scripts_are_told_why_and_run_as_their_user() {
    let server = Server::new();
    let out = tempfile::tempdir().unwrap();
    common::sh(&format!("chmod 777 {}", out.path().display()));
    let file = out.path().join("told");
    let mut spec = script("env | sort > $OUT; id -un >> $OUT; echo $1 >> $OUT", "rm $OUT", None);
    let parts = spec.script.as_mut().unwrap();
    parts.environment.insert("OUT".to_owned(), file.display().to_string());
    parts.run_as.user = "nobody".to_owned();
    parts.start.args = vec!["first argument".to_owned()];
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let told = std::fs::read_to_string(&file).unwrap();
    for line in [
        "HOLDFAST_REASON=Failover",
        "HOLDFAST_PREVIOUS_SERVER=db2",
        "HOLDFAST_SERVER=db1",
        "HOLDFAST_GROUP=ledger",
        "HOLDFAST_EPOCH=17",
        "HOLDFAST_TIMEOUT=20",
        "USER=nobody",
        "first argument",
    ] {
        assert!(told.lines().any(|l| l == line), "{line} is missing in\n{told}");
    }
    assert!(told.lines().any(|l| l == "nobody"), "ran as nobody:\n{told}");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running, "remembered, without a check");
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert!(!file.exists());
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Stopped);
}

#[test]
fn only_exit_code_0_is_success_and_a_check_tells_stopped_from_failed() {
    let server = Server::new();
    let dir = server.run_dir.path().display().to_string();
    let spec = script(
        &format!("#!/bin/bash -e\n[[ -e {dir}/ok ]] || {{ echo no licence >&2; exit 4; }}; touch {dir}/up"),
        &format!("rm -f {dir}/up"),
        Some(&format!("test -e {dir}/broken && exit 1; test -e {dir}/up || exit 7")),
    );
    let message = failed(server.run(Action::Start, &spec));
    assert!(message.contains("exit 4") && message.contains("no licence"), "{message}");
    std::fs::write(format!("{dir}/ok"), "").unwrap();
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Stopped);
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    std::fs::write(format!("{dir}/broken"), "").unwrap();
    assert!(failed(server.run(Action::Monitor, &spec)).contains("exit 1"));
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
}

#[test]
fn a_start_that_takes_too_long_is_killed_with_its_children_and_counts_as_unknown() {
    let server = Server::new();
    let spec = script("sleep 300 & sleep 300", "true", None);
    let began = Instant::now();
    let outcome = server.run_within(Action::Start, &spec, Duration::from_millis(400));
    assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("longer than")), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(server.cgroup(&spec).pids(), [] as [i32; 0]);
    let zombies = || {
        let own = format!(" Z {} ", std::process::id());
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|e| std::fs::read_to_string(e.path().join("stat")).is_ok_and(|s| s.contains(&own))).count()
    };
    common::eventually("the killed helper was waited for", Duration::from_secs(5), || zombies() == 0);
    assert!(failed(server.run(Action::Probe, &spec)).contains("did not complete"));
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
}

#[test]
fn a_stop_or_check_that_takes_too_long_ends_only_itself() {
    let server = Server::new();
    let spec = script("sleep 300 &", "sleep 300", Some("sleep 300"));
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let running = server.cgroup(&spec).pids();
    for action in [Action::Stop, Action::Monitor] {
        let outcome = server.run_within(action, &spec, Duration::from_millis(300));
        assert!(matches!(outcome, Outcome::Unknown(_)), "{action:?}: {outcome:?}");
        assert_eq!(server.cgroup(&spec).pids(), running, "{action:?}");
    }
}

#[test]
fn what_a_successful_stop_leaves_behind_is_killed() {
    let server = Server::new();
    let spec = script("sleep 300 &", "true", None);
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(server.cgroup(&spec).pids(), [] as [i32; 0]);
}

#[test]
fn what_a_killed_agent_had_under_way_ends_before_the_next_one_acts_and_what_was_started_goes_on() {
    let server = Server::new();
    let dir = server.run_dir.path().display().to_string();
    let start = format!("sleep 300 & touch {dir}/starting; while ! [ -e {dir}/go ]; do sleep 0.02; done");
    let spec = script(&start, &format!("touch {dir}/stopping; sleep 300"), None);
    let submit = |action, sign: &str| {
        server.executor.borrow().submit(server.operation(action, &spec, Duration::from_secs(600)));
        server.until(sign, || server.run_dir.path().join(sign).exists());
    };
    submit(Action::Start, "starting");
    server.restart_killed();
    assert_eq!(server.cgroup(&spec).pids(), [] as [i32; 0], "the start does not go on");
    assert!(failed(server.run(Action::Probe, &spec)).contains("did not complete"));
    std::fs::write(format!("{dir}/go"), "").unwrap();
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let running = server.cgroup(&spec).pids();
    assert_eq!(running.len(), 1);
    server.restart_killed();
    assert_eq!(server.cgroup(&spec).pids(), running, "its start was complete");
    submit(Action::Stop, "stopping");
    server.restart_killed();
    assert_eq!(server.cgroup(&spec).pids(), running, "the stop does not go on");
}
