//! The guard: what it leaves behind when an agent is frozen past its deadline is nothing.

mod common;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use common::{Disk, HANDS, Server, eventually, own_mounts, own_network, resource, sh};
use holdfast_agent::clock;
use holdfast_agent::deadline::{Deadline, Party, Role, process_start};
use holdfast_agent::guard::kill_list::KillList;
use holdfast_agent::guard::{GuardSettings, dismiss_guard, ensure_guard, guard_alive, guard_state};
use holdfast_agent::watchdog::WatchdogSettings;
use holdfast_api::v1::{Resource, WatchdogMode};
use holdfast_core::time::Instant;
use holdfast_core::{Action, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Guard and a stand-in for the agent, ended with the test.
struct Pair<'a> {
    server: &'a Server,
    agent: Child,
}

impl Pair<'_> {
    fn start(server: &Server) -> Pair<'_> {
        guard(server);
        let base = server.cgroups.base().display().to_string();
        let run_dir = server.run_dir.path().display().to_string();
        let agent = Command::new(HANDS).args(["agent", &run_dir, &base]).spawn().unwrap();
        let pair = Pair { server, agent };
        eventually("the agent has shown up", Duration::from_secs(5), || {
            server.page.party(Role::Agent).is_some_and(|a| a.pid as u32 == pair.agent.id())
        });
        pair
    }

    fn guard(&self) -> Party {
        self.server.page.party(Role::Guard).unwrap()
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if let Some(guard) = self.server.page.party(Role::Guard).filter(Party::exists) {
            let _ = kill(Pid::from_raw(guard.pid), Signal::SIGKILL);
        }
        let log = std::fs::read_to_string(self.server.run_dir.path().join("guard.log")).unwrap_or_default();
        println!("{log}");
    }
}

fn guard(server: &Server) {
    let watchdog = WatchdogSettings {
        mode: WatchdogMode::Disabled,
        device: "/dev/watchdog".into(),
        timeout: Duration::from_secs(2),
    };
    let settings = GuardSettings { cgroup: server.cgroups.base().to_owned(), watchdog };
    ensure_guard(Path::new(HANDS), server.run_dir.path(), &settings).unwrap();
}

/// From the kill point to the end of authority: what the guard has to keep to.
const KILLING: Duration = Duration::from_millis(300);

fn deadline(server: &Server, kill: Instant) {
    let soft = kill - Duration::from_millis(50);
    server.page.publish(Deadline { soft, kill, end: kill + KILLING });
}

fn filesystem(disk: &Disk, point: &Path, kind: &str) -> Resource {
    resource(serde_json::json!({
        "name": format!("data-{kind}"), "filesystem": {"device": disk.device, "mountPoint": point, "type": kind}}))
}

fn mounted(point: &Path) -> bool {
    std::fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(&format!(" {} ", point.display()))
}

#[test]
fn the_groups_of_a_frozen_agent_are_gone_shortly_after_the_deadline() {
    own_mounts();
    own_network();
    sh("ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up");
    let server = Server::new();
    let mut pair = Pair::start(&server);
    let place = tempfile::tempdir().unwrap();
    let (ext4, xfs) = (Disk::new(32, "mkfs.ext4 -q"), Disk::new(320, "mkfs.xfs -q"));
    let points = [place.path().join("ext4"), place.path().join("xfs")];
    assert_eq!(server.run(Action::Start, &filesystem(&ext4, &points[0], "ext4")), Outcome::Running);
    assert_eq!(server.run(Action::Start, &filesystem(&xfs, &points[1], "xfs")), Outcome::Running);
    // A program that keeps both busy, writes all the time, ignores signals and has forked away.
    let script = format!(
        "(cd {}; exec setsid sh -c \"trap '' TERM; exec 3>{}/f; while :; do echo x >&3; echo x >> y; done\") & exit 0",
        points[0].display(),
        points[1].display()
    );
    let app = resource(serde_json::json!({"name": "app", "process": {"command": ["/bin/sh", "-c", script]}}));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    let addr = resource(serde_json::json!({
        "name": "addr", "floatingIP": {"address": "192.0.2.10/24", "interface": "eth0"}}));
    assert_eq!(server.run(Action::Start, &addr), Outcome::Running);
    let programs: Vec<(i32, Option<u64>)> =
        server.cgroups.groups().pids().into_iter().map(|pid| (pid, process_start(pid))).collect();
    assert!(programs.len() >= 2, "{programs:?}");

    kill(Pid::from_raw(pair.agent.id() as i32), Signal::SIGSTOP).unwrap();
    let killing = clock::now() + Duration::from_millis(300);
    deadline(&server, killing);
    while clock::now() + Duration::from_millis(20) < killing {
        assert!(points.iter().all(|p| mounted(p)), "nothing is touched before the deadline");
        std::thread::sleep(Duration::from_millis(2));
    }
    let left = || {
        let mut left: Vec<String> =
            points.iter().filter(|p| mounted(p)).map(|p| format!("mount {}", p.display())).collect();
        left.extend(programs.iter().filter(|(pid, start)| process_start(*pid) == *start).map(|p| format!("{p:?}")));
        if sh("ip -br addr show dev eth0").contains("192.0.2.10") {
            left.push("address".to_owned());
        }
        left
    };
    while !left().is_empty() && clock::now() < killing + Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let late = clock::now().since(killing);
    println!("all gone {late:?} after the kill deadline");
    assert!(left().is_empty(), "{:?}", left());
    assert!(late < KILLING, "{late:?}: the other server may start already");
    assert!(!pair.agent.wait().unwrap().success(), "the frozen agent was killed");
    eventually("the list is empty", Duration::from_secs(2), || {
        KillList::of(server.run_dir.path()).entries().unwrap().is_empty() && !server.page.enforcing()
    });
    assert!(guard_alive(&server.page, clock::now(), Duration::from_secs(1)), "the guard goes on");
    assert!(!server.page.facts().gave_up_petting);
    // Evidence from the disk itself: its journal was not closed, so nothing was written back at the unmount.
    let state = sh(&format!("dumpe2fs -h {} 2>/dev/null", ext4.device));
    assert!(state.contains("needs_recovery"), "the file system was flushed and closed:\n{state}");
}

#[test]
fn what_an_agent_of_another_maker_holds_in_no_process_is_stopped_by_its_own_stop() {
    own_network();
    sh(
        "ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up; ip addr add 192.0.2.1/24 dev eth0",
    );
    let server = Server::new();
    let pair = Pair::start(&server);
    let state = server.run_dir.path().join("dummy.state");
    let dummy =
        resource(serde_json::json!({"name": "dummy", "ocf": {"type": "Dummy", "parameters": {"state": state}}}));
    let parameters = serde_json::json!({"ip": "192.0.2.10", "cidr_netmask": "24", "nic": "eth0"});
    let addr = resource(serde_json::json!({"name": "addr", "ocf": {"type": "IPaddr2", "parameters": parameters}}));
    // Refused, so never started: nobody may be asked to stop what its parameters don't name.
    let wrong = resource(serde_json::json!({"name": "wrong", "ocf": {"type": "Nothing"}}));
    common::failed(server.run(Action::Start, &wrong));
    for spec in [&dummy, &addr] {
        assert_eq!(server.run(Action::Start, spec), Outcome::Running, "{}", spec.name);
    }
    assert!(state.exists() && sh("ip -br addr show dev eth0").contains("192.0.2.10"));
    kill(Pid::from_raw(pair.agent.id() as i32), Signal::SIGSTOP).unwrap();
    deadline(&server, clock::now() + Duration::from_millis(50));
    let began = clock::now();
    eventually("the guard has finished", Duration::from_secs(10), || {
        KillList::of(server.run_dir.path()).entries().unwrap().is_empty() && !server.page.enforcing()
    });
    println!("all stopped {:?} after", clock::now().since(began));
    assert!(!state.exists() && !sh("ip -br addr show dev eth0").contains("192.0.2.10"));
    assert!(sh("ip -br addr show dev eth0").contains("192.0.2.1/24"), "the server's own address stays");
}

#[test]
fn a_script_without_a_check_does_not_count_as_started_after_the_guard_killed_what_it_ran() {
    own_mounts();
    let server = Server::new();
    let pair = Pair::start(&server);
    let file = server.run_dir.path().join("lock");
    let hook = resource(serde_json::json!({"name": "hook", "script": {
        "start": {"inline": format!("touch {0}; sleep 300 & exit 0", file.display())},
        "stop": {"inline": format!("rm -f {}", file.display())}}}));
    assert_eq!(server.run(Action::Start, &hook), Outcome::Running);
    kill(Pid::from_raw(pair.agent.id() as i32), Signal::SIGSTOP).unwrap();
    deadline(&server, clock::now() + Duration::from_millis(100));
    eventually("the guard is done", Duration::from_secs(5), || {
        KillList::of(server.run_dir.path()).entries().unwrap().is_empty() && !server.page.enforcing()
    });
    assert_eq!(server.cgroup(&hook).pids(), [] as [i32; 0]);
    // The agent is started again, and has authority again.
    server.restart();
    server.authority(Duration::from_secs(600));
    for (action, what) in [(Action::Probe, "its probe failed"), (Action::Monitor, "its check failed")] {
        let message = common::failed(server.run(action, &hook));
        assert_eq!(message, format!("{what}: the guard has killed what it ran, and its stop was not called since"));
    }
    assert!(file.exists(), "what it did beside its processes is still there");
    assert_eq!(server.run(Action::Stop, &hook), Outcome::Stopped);
    assert!(!file.exists());
    assert_eq!(server.run(Action::Start, &hook), Outcome::Running);
    assert_ne!(server.cgroup(&hook).pids(), [] as [i32; 0]);
    assert_eq!(server.run(Action::Stop, &hook), Outcome::Stopped);
}

#[test]
fn a_group_in_use_keeps_what_somebody_in_it_has_just_made() {
    let server = Server::new();
    let own = server.cgroups.guard();
    own.create().unwrap();
    let mut inside = Command::new("/bin/sleep").arg("300").spawn().unwrap();
    own.add(inside.id() as i32).unwrap();
    // Made by a child of the guard, for the program that it is about to start, while the guard begins another child.
    let made = own.child("stop-0");
    let place = made.open().unwrap();
    own.open().unwrap();
    let born = std::fs::write(made.path().join("cgroup.procs"), inside.id().to_string());
    assert!(born.is_ok(), "it vanished: {born:?}");
    drop(place);
    inside.kill().unwrap();
    inside.wait().unwrap();
    // Not in use, it is made anew.
    let number = |group: &holdfast_agent::cgroup::Cgroup| {
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(group.path()).unwrap())
    };
    let before = number(&own);
    own.open().unwrap();
    assert_ne!(number(&own), before);
}

#[test]
fn a_group_is_let_alone_while_its_deadline_moves_on_and_a_guard_without_a_list_lets_the_agent_live() {
    let server = Server::new();
    let mut pair = Pair::start(&server);
    let app = resource(serde_json::json!({"name": "app", "process": {"command": ["/bin/sleep", "300"]}}));
    server.authority(Duration::from_secs(5));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    for _ in 0..10 {
        deadline(&server, clock::now() + Duration::from_millis(300));
        std::thread::sleep(Duration::from_millis(50));
    }
    server.authority(Duration::from_secs(5));
    assert_eq!(server.run(Action::Monitor, &app), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &app), Outcome::Stopped);
    server.executor.borrow().released(&common::GROUP.into());
    // I5: nothing is held, so losing authority needs no reset and no kill.
    deadline(&server, clock::now());
    std::thread::sleep(Duration::from_millis(300));
    assert!(pair.agent.try_wait().unwrap().is_none());
    assert!(guard_alive(&server.page, clock::now(), Duration::from_secs(1)));
    dismiss_guard(&server.page);
    let guard = pair.guard();
    eventually("the guard has ended", Duration::from_secs(2), || !guard.exists());
}

#[test]
fn a_guard_that_is_killed_is_replaced_and_the_new_one_knows_what_is_held() {
    let server = Server::new();
    let pair = Pair::start(&server);
    let first = pair.guard();
    guard(&server);
    assert_eq!(pair.guard().pid, first.pid, "a second one is not started beside a living one");
    let app = resource(serde_json::json!({"name": "app", "process": {"command": ["/bin/sleep", "300"]}}));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    kill(Pid::from_raw(first.pid), Signal::SIGKILL).unwrap();
    eventually("it is seen to be gone", Duration::from_secs(2), || {
        !guard_alive(&server.page, clock::now(), Duration::from_secs(1))
    });
    guard(&server);
    assert_ne!(pair.guard().pid, first.pid);
    dismiss_guard(&server.page);
    deadline(&server, clock::now() + Duration::from_millis(50));
    let cgroup = server.cgroup(&app);
    eventually("the new guard stops what the old one was to stop", Duration::from_secs(2), || cgroup.pids().is_empty());
    assert!(pair.guard().exists(), "asked to end while something was held, it stayed");
    let state = guard_state(server.run_dir.path()).unwrap();
    assert_eq!(state.pid as i32, pair.guard().pid);
    let status = std::fs::read_to_string(format!("/proc/{}/status", state.pid)).unwrap();
    let rss = status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default();
    println!("guard: {rss}");
}

#[test]
fn a_mount_that_somebody_else_keeps_busy_is_shut_down_but_not_called_stopped() {
    own_mounts();
    let server = Server::new();
    let pair = Pair::start(&server);
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let disk = Disk::new(32, "mkfs.ext4 -q");
    assert_eq!(server.run(Action::Start, &filesystem(&disk, &point, "ext4")), Outcome::Running);
    // Not of the group, and the policy spares it.
    let mut foreign = Command::new("sleep").arg("300").current_dir(&point).spawn().unwrap();
    deadline(&server, clock::now() + Duration::from_millis(50));
    eventually("the guard gives petting up", Duration::from_secs(3), || server.page.facts().gave_up_petting);
    assert!(server.page.enforcing() && mounted(&point));
    let error = std::fs::write(point.join("late"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "the disk can still be written: {error}");
    assert!(foreign.try_wait().unwrap().is_none(), "a process that is not the group's was ended");
    // A new agent may not start anything meanwhile.
    server.authority(Duration::from_secs(60));
    let app = resource(serde_json::json!({"name": "app", "process": {"command": ["/bin/sleep", "300"]}}));
    let outcome = server.run_within(Action::Start, &app, Duration::from_millis(200));
    assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("guard")), "{outcome:?}");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    eventually("the guard finishes", Duration::from_secs(3), || !server.page.enforcing());
    assert!(!mounted(&point));
    assert!(server.page.facts().gave_up_petting, "once not verified in time, it never pets again");
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    drop(pair);
}

#[test]
fn what_a_dead_guard_had_begun_is_finished_by_the_next_before_anything_starts() {
    let server = Server::new();
    let app = resource(serde_json::json!({"name": "app", "process": {"command": ["/bin/sleep", "300"]}}));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    // As a guard leaves it that is killed in the middle; a new agent has authority by then.
    server.page.set_enforcing(true);
    let pair = Pair::start(&server);
    let cgroup = server.cgroup(&app);
    eventually("it is stopped", Duration::from_secs(2), || cgroup.pids().is_empty() && !server.page.enforcing());
    assert!(KillList::of(server.run_dir.path()).entries().unwrap().is_empty());
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    drop(pair);
}
