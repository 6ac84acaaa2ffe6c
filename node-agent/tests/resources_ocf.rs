//! OCF resource agents: those of the package as they are, and one of the test's own for what those don't do.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Server, failed, own_mounts, resource, sh};
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};

fn agent(name: &str, provider: &str, kind: &str, parameters: &[(&str, &str)]) -> Resource {
    let parameters: std::collections::BTreeMap<_, _> = parameters.iter().copied().collect();
    resource(serde_json::json!({
        "name": name, "ocf": {"provider": provider, "type": kind, "parameters": parameters},
        "monitor": {"interval": "7s"}}))
}

#[test]
fn dummy_is_started_checked_and_stopped_as_often_as_one_likes() {
    let server = Server::new();
    let file = server.run_dir.path().join("dummy.state");
    let spec = agent("plain", "heartbeat", "Dummy", &[("state", &file.display().to_string())]);
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    for _ in 0..2 {
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
        assert!(file.exists());
    }
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Running);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Stopped);
    std::fs::write(&file, "").unwrap();
    for _ in 0..2 {
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
        assert!(!file.exists());
    }
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
}

/// Nothing here promotes; a stop begins with the demotion that the contract wants, whoever has promoted it.
#[test]
fn stateful_that_somebody_has_promoted_runs_and_can_be_stopped() {
    let server = Server::new();
    let file = server.run_dir.path().join("role");
    let spec = agent("role", "heartbeat", "Stateful", &[("state", &file.display().to_string())]);
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "slave");
    std::fs::write(&file, "master\n").unwrap();
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert!(!file.exists());
}

#[test]
fn delay_that_starts_too_slowly_is_killed_and_can_be_stopped() {
    let server = Server::new();
    let spec = agent("slow", "heartbeat", "Delay", &[("startdelay", "60"), ("stopdelay", "0"), ("mondelay", "0")]);
    let began = Instant::now();
    let outcome = server.run_within(Action::Start, &spec, Duration::from_secs(2));
    assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("longer than")), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(server.cgroup(&spec).pids(), [] as [i32; 0]);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    let quick = agent("slow", "heartbeat", "Delay", &[("startdelay", "0"), ("stopdelay", "0"), ("mondelay", "0")]);
    assert_eq!(server.run(Action::Start, &quick), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &quick), Outcome::Stopped);
}

#[test]
fn what_is_refused_is_never_called_not_even_to_stop() {
    let server = Server::new();
    // What a misspelt parameter would make the agent act on: its default.
    std::fs::create_dir_all("/run/resource-agents").unwrap();
    let name = format!("wrong-{}", std::process::id());
    let strangers = format!("/run/resource-agents/Dummy-ledger.{name}.state");
    std::fs::write(&strangers, "").unwrap();
    let wrong = agent(&name, "heartbeat", "Dummy", &[("stat", "/tmp/x")]);
    assert_eq!(server.run(Action::Probe, &wrong), Outcome::Stopped);
    let message = failed(server.run(Action::Start, &wrong));
    assert!(message.contains("ocf.parameters.stat: heartbeat:Dummy has none of that name; it takes"), "{message}");
    assert!(message.contains("state"), "{message}");
    assert_eq!(server.run(Action::Stop, &wrong), Outcome::Stopped);
    assert!(Path::new(&strangers).exists(), "somebody else's instance was stopped");
    std::fs::remove_file(&strangers).unwrap();

    let message = failed(server.run(Action::Start, &agent("a", "heartbeat", "IPaddr2", &[])));
    assert!(message.contains("ocf.parameters.ip: heartbeat:IPaddr2 needs it"), "{message}");
    let roles = agent("r", "heartbeat", "conntrackd", &[]);
    let message = failed(server.run(Action::Start, &roles));
    assert!(message.contains("ocf.type: heartbeat:conntrackd: it does its work only on an instance that is promoted"));
    assert_eq!(server.run(Action::Stop, &roles), Outcome::Stopped);
    let nothing = agent("n", "heartbeat", "Nothing", &[]);
    let message = failed(server.run(Action::Start, &nothing));
    assert!(message.contains("no agent heartbeat:Nothing") && message.contains("holdfast agents list"), "{message}");
    assert_eq!(server.run(Action::Stop, &nothing), Outcome::Stopped);
}

/// An agent of the test's own in a view of the file systems of its own.
fn install(body: &str) {
    own_mounts();
    sh("mount -t tmpfs none /usr/lib/ocf/resource.d && mkdir /usr/lib/ocf/resource.d/test");
    let text = format!(
        "#!/bin/sh\nif [ $1 = meta-data ]; then cat <<'END'\n<?xml version=\"1.0\"?><resource-agent name=\"Own\"><parameters>\
         <parameter name=\"dir\" required=\"1\"><content type=\"string\"/></parameter></parameters><actions>\
         <action name=\"start\" timeout=\"9s\"/><action name=\"stop\" timeout=\"9s\"/><action name=\"monitor\"/>\
         </actions></resource-agent>\nEND\nexit 0\nfi\nenv >$OCF_RESKEY_dir/env.$1\n{body}\n"
    );
    let path = "/usr/lib/ocf/resource.d/test/Own";
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn agents_are_told_what_the_contract_says_and_their_daemons_belong_to_the_resource() {
    install(
        "case $1 in start) sleep 300 >/dev/null 2>&1 & echo $! >$OCF_RESKEY_dir/pid;;\n\
         monitor) kill -0 $(cat $OCF_RESKEY_dir/pid 2>/dev/null) 2>/dev/null || exit 7;;\n\
         stop) rm -f $OCF_RESKEY_dir/pid;; esac",
    );
    let server = Server::new();
    let dir = server.run_dir.path().display().to_string();
    let spec = agent("own", "test", "Own", &[("dir", &dir)]);
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    let told = |action: &str| std::fs::read_to_string(format!("{dir}/env.{action}")).unwrap();
    assert!(told("monitor").lines().any(|line| line == "OCF_RESKEY_CRM_meta_interval=0"), "a probe");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let start = told("start");
    for line in [
        "OCF_ROOT=/usr/lib/ocf",
        "OCF_RA_VERSION_MAJOR=1",
        "OCF_RA_VERSION_MINOR=1",
        "OCF_RESOURCE_INSTANCE=ledger.own",
        "OCF_RESOURCE_TYPE=Own",
        "OCF_RESOURCE_PROVIDER=test",
        "OCF_CHECK_LEVEL=0",
        "OCF_RESKEY_CRM_meta_name=start",
        "OCF_RESKEY_CRM_meta_on_node=db1",
        "HA_RSCTMP=/run/resource-agents",
        "HOLDFAST_REASON=Failover",
        "LC_ALL=C",
    ] {
        assert!(start.lines().any(|found| found == line), "{line} is missing in\n{start}");
    }
    let timeout = start.lines().find_map(|line| line.strip_prefix("OCF_RESKEY_CRM_meta_timeout=")).unwrap();
    assert!((15_000..=20_000).contains(&timeout.parse::<u32>().unwrap()), "{timeout} ms of 20 s");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    assert!(told("monitor").lines().any(|line| line == "OCF_RESKEY_CRM_meta_interval=7000"));
    let daemon: i32 = std::fs::read_to_string(format!("{dir}/pid")).unwrap().trim().parse().unwrap();
    assert_eq!(server.cgroup(&spec).pids(), [daemon], "the guard ends what is in there");
    // This agent's stop leaves it running: it ends all the same.
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(server.cgroup(&spec).pids(), [] as [i32; 0]);
}

#[test]
fn an_agent_that_fails_is_quoted_and_a_stop_that_fails_is_no_stop() {
    install(
        "[ -e $OCF_RESKEY_dir/$1 ] && { echo ocf-exit-reason:no licence >&2; exit $(cat $OCF_RESKEY_dir/$1); }; exit 0",
    );
    let server = Server::new();
    let dir = server.run_dir.path().display().to_string();
    let says = |action: &str, code: u8| std::fs::write(format!("{dir}/{action}"), code.to_string()).unwrap();
    let spec = agent("own", "test", "Own", &[("dir", &dir)]);
    // Its parameters are no good to it: neither its start nor its stop can have done anything.
    says("start", 6);
    says("monitor", 6);
    says("stop", 6);
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    let message = failed(server.run(Action::Start, &spec));
    assert!(
        message.contains("its start failed: the agent's start: exit 6, not configured")
            && message.contains("no licence; all that it printed: "),
        "{message}"
    );
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    // It broke half way: what it says afterwards proves nothing.
    says("start", 1);
    says("monitor", 1);
    let message = failed(server.run(Action::Start, &spec));
    assert!(message.contains("exit 1, generic error"), "{message}");
    for code in [1, 3, 5, 6] {
        says("stop", code);
        let message = failed(server.run(Action::Stop, &spec));
        assert!(message.contains(&format!("its stop failed: the agent's stop: exit {code}")), "{message}");
    }
    says("monitor", 5);
    assert!(failed(server.run(Action::Probe, &spec)).contains("exit 5, not installed"), "it may run");
    std::fs::remove_file(format!("{dir}/stop")).unwrap();
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    // Started, it says, and does not run.
    std::fs::remove_file(format!("{dir}/start")).unwrap();
    says("monitor", 7);
    assert!(failed(server.run(Action::Start, &spec)).contains("does not run"));
}

/// As `su` does where pam_systemd is configured: what it starts gets a control group of somebody else's.
#[test]
fn a_daemon_that_leaves_its_control_group_is_brought_back_and_ends_with_its_resource() {
    install(
        "case $1 in start) group=$(cat $OCF_RESKEY_dir/elsewhere)/cgroup.procs\n\
         setsid sh -c \"echo \\$\\$ >$group; echo \\$\\$ >$OCF_RESKEY_dir/pid; exec sleep 300\" >/dev/null 2>&1 &\n\
         while ! [ -s $OCF_RESKEY_dir/pid ]; do sleep 0.05; done;;\n\
         monitor) kill -0 $(cat $OCF_RESKEY_dir/pid 2>/dev/null) 2>/dev/null || exit 7;;\n\
         stop) rm -f $OCF_RESKEY_dir/pid;; esac",
    );
    let server = Server::new();
    let dir = server.run_dir.path();
    let spec = agent("own", "test", "Own", &[("dir", &dir.display().to_string())]);
    // Beside the control group of the groups.
    let base = server.cgroup(&spec).path().ancestors().nth(3).expect("the base").to_owned();
    let elsewhere = base.join(format!("elsewhere-{}", std::process::id()));
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(dir.join("elsewhere"), elsewhere.display().to_string()).unwrap();
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let pid: i32 = std::fs::read_to_string(dir.join("pid")).unwrap().trim().parse().unwrap();
    assert_eq!(server.cgroup(&spec).pids(), [pid], "it belongs to the resource");
    assert_eq!(std::fs::read_to_string(elsewhere.join("cgroup.procs")).unwrap(), "");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    assert_eq!(server.cgroup(&spec).pids(), [pid], "a check takes it nowhere");
    // The agent's own stop does not end it.
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "it runs on: {stat}");
    std::fs::remove_dir(&elsewhere).unwrap();
}
