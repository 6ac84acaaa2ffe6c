//! Programs in control groups, as a user sees them: they run, they end, nothing is left.

mod common;

use std::time::{Duration, Instant};

use common::{Server, eventually, failed, resource};
use holdfast_agent::deadline::process_start;
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};

fn program(script: &str) -> Resource {
    resource(serde_json::json!({
        "name": "app",
        "process": {"command": ["/bin/sh", "-c", script], "grace": "300ms", "environment": {"COLOUR": "blue"}},
    }))
}

fn pids(server: &Server, spec: &Resource) -> Vec<i32> {
    server.cgroup(spec).pids()
}

#[test]
fn a_program_runs_is_checked_and_its_end_is_reported_at_once_with_code_and_last_words() {
    let server = Server::new();
    let spec = program(
        "echo ready $COLOUR $HOLDFAST_GROUP $HOLDFAST_EPOCH; read x </dev/null; while [ ! -e go ]; do sleep 0.01; done; echo out of disk >&2; exit 3",
    );
    let spec = {
        let mut spec = spec;
        spec.process.as_mut().unwrap().working_directory = Some(server.run_dir.path().display().to_string());
        spec
    };
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    let began = Instant::now();
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    println!("start took {:?}", began.elapsed());
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running, "a second start is fine");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    let log = std::fs::read_to_string(server.state(&spec).join("log")).unwrap();
    assert_eq!(log, "ready blue ledger 17\n", "started once, with its environment");
    std::fs::write(server.run_dir.path().join("go"), "").unwrap();
    let message = server.failure(Duration::from_secs(2));
    let log = server.state(&spec).join("log");
    let printed = format!("it printed: ready blue ledger 17 / out of disk; all of it: {}", log.display());
    assert!(message.ends_with(&printed), "{message}");
    // Older kernels don't tell how a process ended that is no child.
    assert!(message.contains("exit 3") || message.starts_with("the program ended;"), "{message}");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Stopped);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
}

#[test]
fn a_program_that_ends_at_once_has_not_started() {
    let server = Server::new();
    let message = failed(server.run(Action::Start, &program("echo no journal >&2; exit 3")));
    assert!(message.contains("exit 3") && message.contains("no journal"), "{message}");
    let absent = resource(serde_json::json!({"name": "app", "process": {"command": ["/nonexistent/x"]}}));
    let message = failed(server.run(Action::Start, &absent));
    assert!(message.contains("/nonexistent/x"), "{message}");
    let nobody = resource(serde_json::json!({
        "name": "app", "process": {"command": ["/bin/true"], "runAs": {"user": "no-such-user"}}}));
    let message = failed(server.run(Action::Start, &nobody));
    assert!(message.contains("no-such-user"), "{message}");
    assert_eq!(server.run(Action::Probe, &absent), Outcome::Stopped);
}

#[test]
fn children_that_a_program_left_behind_count_as_running_and_a_stop_kills_all_of_them() {
    let server = Server::new();
    let spec = program("(trap '' TERM; sleep 300) & (setsid sleep 300 &) ; exit 0");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    let left: Vec<(i32, Option<u64>)> = pids(&server, &spec).into_iter().map(|p| (p, process_start(p))).collect();
    assert!(left.len() >= 2, "{left:?}");
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    for (pid, start) in left {
        assert_ne!(process_start(pid), start, "process {pid} survived the stop");
    }
    assert!(!server.cgroup(&spec).path().exists());
    assert!(
        server
            .find(Duration::from_millis(50), &|input| matches!(input, holdfast_core::Input::ResourceFailed { .. }))
            .is_none(),
        "an ordered stop is no failure"
    );
}

#[test]
fn the_end_of_the_last_child_is_reported_too() {
    let server = Server::new();
    let spec = program("sleep 300 & exit 0");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    for pid in pids(&server, &spec) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    server.failure(Duration::from_secs(2));
}

#[test]
fn a_program_that_ignores_its_signal_is_killed_after_the_grace() {
    let server = Server::new();
    let spec = program("trap '' TERM; while :; do sleep 300; done");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let began = Instant::now();
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_restarted_agent_adopts_what_runs_and_sees_its_end() {
    let server = Server::new();
    let spec = program("exec sleep 300");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let before = pids(&server, &spec);
    server.restart();
    let groups = server.executor.borrow().recover();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].resources.values().next().unwrap().spec, spec);
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Running);
    assert_eq!(pids(&server, &spec), before, "nothing was started anew");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(before[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
    let message = server.failure(Duration::from_secs(2));
    assert!(message.contains("ended"), "{message}");
    server.executor.borrow().released(&common::GROUP.into());
    server.restart();
    assert!(server.executor.borrow().recover().is_empty());
}

#[test]
fn what_a_half_done_start_left_is_replaced() {
    let server = Server::new();
    let spec = program("exec sleep 300");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let old = pids(&server, &spec);
    // As if the helper had been killed before it could report.
    let record = server.state(&spec).join("process.json");
    let text = std::fs::read_to_string(&record).unwrap().replace("\"complete\":true", "\"complete\":false");
    std::fs::write(&record, text).unwrap();
    assert!(failed(server.run(Action::Probe, &spec)).contains("did not complete"));
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let new = pids(&server, &spec);
    assert_eq!(new.len(), 1);
    assert_ne!(new, old);
    eventually("the old one is gone", Duration::from_secs(1), || process_start(old[0]).is_none());
}

#[test]
fn nothing_starts_after_the_deadline_and_the_helper_looks_for_itself() {
    let server = Server::new();
    let spec = program("exec sleep 300");
    server.authority(Duration::ZERO);
    assert!(failed(server.run(Action::Start, &spec)).contains("authority has ended"));
    assert!(!server.run_dir.path().join("kill.list").exists(), "not even listed");
    // The helper alone, as if it had been frozen between the executor's look and its own.
    let request = holdfast_agent::helper::Request {
        verb: holdfast_agent::helper::Verb::Start,
        depth: 0,
        group: common::GROUP.to_owned(),
        resource: "app".to_owned(),
        op: 99,
        plan: holdfast_agent::resources::Plan::new(&spec, &Default::default()).unwrap(),
        told: Default::default(),
        timeout: Duration::from_secs(5),
        run_dir: server.run_dir.path().to_owned(),
        cgroup: server.cgroups.base().to_owned(),
        sharers: Vec::new(),
    };
    let text = serde_json::to_string(&holdfast_agent::helper::Question::Operation(Box::new(request))).unwrap();
    let file = server.run_dir.path().join("request");
    std::fs::write(&file, text).unwrap();
    let answer = common::sh(&format!("{} helper < {}", common::HANDS, file.display()));
    assert!(answer.contains("authority has ended"), "{answer}");
    assert!(pids(&server, &spec).is_empty());
    // A stop is always allowed.
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
}

#[test]
fn a_log_stays_bounded() {
    let server = Server::new();
    let spec = program("head -c 3000000 /dev/zero | tr '\\0' x; echo; exec sleep 300");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let log = server.state(&spec).join("log");
    let length = |path: &std::path::Path| std::fs::metadata(path).map(|m| m.len()).unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(5);
    while !(server.state(&spec).join("log.1").exists() && length(&log) <= 1 << 20) {
        assert!(Instant::now() < until, "log has {} bytes", length(&log));
        server.find(Duration::from_millis(20), &|_| false);
    }
}

#[test]
fn a_limit_is_set_or_refused_with_the_reason_but_never_ignored() {
    let server = Server::new();
    let mut spec = program("exec sleep 300");
    let limits = serde_json::json!({"memory": "64Mi", "cpu": "500m"});
    spec.process.as_mut().unwrap().limits = serde_json::from_value(limits).unwrap();
    let outcome = server.run(Action::Start, &spec);
    let read = |file: &str| std::fs::read_to_string(server.cgroup(&spec).path().join(file)).unwrap_or_default();
    match outcome {
        Outcome::Running => {
            assert_eq!(read("memory.max").trim(), "67108864");
            assert_eq!(read("cpu.max").trim(), "50000 100000");
        }
        // Where the controllers are bound to version 1, as on this kind of machine.
        other => {
            let message = failed(other);
            assert!(message.contains("limits need the memory controller"), "{message}");
            assert!(pids(&server, &spec).is_empty());
        }
    }
}

#[test]
fn operations_go_on_after_the_process_that_helpers_are_born_of_was_killed() {
    let server = Server::new();
    let spec = program("sleep 300");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    for _ in 0..2 {
        let nursery = nursery();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(nursery), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(server.run(Action::Probe, &spec), Outcome::Running);
    }
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
}

/// The one child of this process that gives birth to helpers.
fn nursery() -> i32 {
    let me = std::process::id().to_string();
    let of_mine = |pid: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("stat");
        let parent = status.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
        parent.as_deref() == Some(&me) && read("cmdline").contains("nursery") && read("comm").trim() != "helper"
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found: Vec<i32> = pids.filter(of_mine).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}
