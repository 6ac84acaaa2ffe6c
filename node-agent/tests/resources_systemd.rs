//! Units of a real systemd, booted as the first process of a PID namespace, with its own D-Bus and journal.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use common::{HANDS, Server, eventually, failed, own_mounts, resource, sh};
use holdfast_agent::cgroup::Cgroup;
use holdfast_agent::clock;
use holdfast_agent::deadline::{Deadline, Party, Role};
use holdfast_agent::guard::kill_list::KillList;
use holdfast_agent::guard::{GuardSettings, ensure_guard};
use holdfast_agent::watchdog::WatchdogSettings;
use holdfast_api::v1::{Resource, WatchdogMode};
use holdfast_core::{Action, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../lab/tests/systemd.sh");
const LIMIT: Duration = Duration::from_secs(20);

/// A server with a systemd.
struct System {
    server: Server,
    // ORDER: ended before the server's control groups are removed.
    boot: Child,
}

impl System {
    fn boot() -> System {
        own_mounts();
        sh("mount -t tmpfs none /run");
        let server = Server::new();
        let cgroup = server.cgroups.base().join("systemd");
        let boot = Command::new("/bin/sh").arg(BOOT).arg(cgroup).spawn().unwrap();
        let system = System { server, boot };
        eventually("systemd is on its bus", LIMIT, || system.property("", "Version").is_some());
        system
    }

    /// Adds a unit of this text.
    fn unit(&self, name: &str, text: &str) -> Resource {
        std::fs::write(format!("/run/units/{name}"), text).unwrap();
        self.call("Reload", &[]).unwrap();
        self.named(name)
    }

    fn named(&self, name: &str) -> Resource {
        resource(serde_json::json!({"name": "app", "systemd": {"unit": name}}))
    }

    /// Calls the manager as an operator does, past the cluster.
    fn call(&self, method: &str, args: &[&str]) -> Result<String, String> {
        let output = Command::new("busctl")
            .args(["--system", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"])
            .args(["org.freedesktop.systemd1.Manager", method])
            .args(args)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A property of a unit, or of the manager.
    fn property(&self, unit: &str, name: &str) -> Option<String> {
        let (path, interface) = if unit.is_empty() {
            ("/org/freedesktop/systemd1".to_owned(), "org.freedesktop.systemd1.Manager")
        } else {
            let escaped: String = unit
                .bytes()
                .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("_{b:02x}") })
                .collect();
            (format!("/org/freedesktop/systemd1/unit/{escaped}"), "org.freedesktop.systemd1.Unit")
        };
        let output = Command::new("busctl")
            .args(["--system", "get-property", "org.freedesktop.systemd1", &path, interface, name])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then(|| text.split_once(' ').map_or(text.clone(), |(_, value)| value.replace('"', "")))
    }

    fn state(&self, unit: &str) -> String {
        self.property(unit, "ActiveState").unwrap_or_default()
    }

    /// The unit's processes, by the kernel's word.
    fn processes(&self, unit: &str) -> Vec<i32> {
        Cgroup::at(&self.cgroup(unit)).pids()
    }

    fn cgroup(&self, unit: &str) -> PathBuf {
        self.server.cgroups.base().join("systemd/system.slice").join(unit)
    }

    /// The manager itself, as this test numbers it.
    fn manager(&self) -> Pid {
        let all = Cgroup::at(&self.server.cgroups.base().join("systemd/init.scope")).pids();
        let is_systemd = |pid: &&i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd")
        };
        Pid::from_raw(*all.iter().find(is_systemd).unwrap())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = Cgroup::at(&self.server.cgroups.base().join("systemd")).kill(Duration::from_secs(5));
        let _ = self.boot.wait();
    }
}

const PLAIN: &str = "[Service]\nRestart=always\nRestartSec=10ms\nExecStart=/bin/sleep 1000\n";

#[test]
fn a_unit_is_started_checked_and_stopped_as_often_as_one_likes_and_nobody_else_starts_it() {
    let system = System::boot();
    let (server, spec) = (&system.server, system.unit("app.service", PLAIN));
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    for _ in 0..2 {
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
        assert_eq!(system.processes("app.service").len(), 1);
    }
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    // Its own Restart=always does not act: it is the cluster's to decide.
    kill(Pid::from_raw(system.processes("app.service")[0]), Signal::SIGKILL).unwrap();
    eventually("systemd has noticed", LIMIT, || system.state("app.service") == "failed");
    let message = failed(server.run(Action::Monitor, &spec));
    assert!(message.contains("failed with result signal") && message.contains("signal 9"), "{message}");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    for _ in 0..2 {
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
        assert_eq!(system.processes("app.service"), [] as [i32; 0]);
    }
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    // By hand, past the cluster.
    system.call("StartUnit", &["ss", "app.service", "replace"]).unwrap();
    eventually("systemd has refused", LIMIT, || {
        system.property("app.service", "AssertResult").is_some_and(|v| v == "false")
    });
    assert_eq!((system.state("app.service").as_str(), system.processes("app.service").len()), ("inactive", 0));
    // As often as the cluster likes, also in a row: the limit of systemd is not the cluster's.
    for _ in 0..8 {
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    }
}

#[test]
fn what_can_not_or_must_not_be_started_is_refused_with_the_reason_and_the_way_out() {
    let system = System::boot();
    let server = &system.server;
    let refused = |spec: &Resource| {
        assert_eq!(server.run(Action::Probe, spec), Outcome::Stopped);
        let message = failed(server.run(Action::Start, spec));
        assert_eq!(server.run(Action::Stop, spec), Outcome::Stopped);
        message
    };
    let missing = refused(&system.named("nothing.service"));
    assert!(missing.contains("systemd.unit: this server has no unit nothing.service"), "{missing}");
    std::os::unix::fs::symlink("/dev/null", "/run/units/masked.service").unwrap();
    system.call("Reload", &[]).unwrap();
    let masked = refused(&system.named("masked.service"));
    assert!(masked.contains("masked.service is masked") && masked.contains("systemctl unmask"), "{masked}");
    let broken = refused(&system.unit("broken.service", "[Service]\nType=simple\n"));
    assert!(broken.contains("broken.service can't be loaded: bad-setting"), "{broken}");
    let spec = system.unit("boot.service", &format!("{PLAIN}[Install]\nWantedBy=basic.target\n"));
    sh("mkdir -p /run/systemd/system/basic.target.wants && \
        ln -s /run/units/boot.service /run/systemd/system/basic.target.wants/");
    let enabled = refused(&spec);
    assert!(
        enabled.contains("boot.service is enabled") && enabled.contains("systemctl disable boot.service"),
        "{enabled}"
    );
    let spec = system.unit("no.service", "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep 9\n");
    let condition = refused(&spec);
    assert!(condition.contains("no.service was not started: a Condition… of its unit file is not met"), "{condition}");
    let spec = system.unit("needs.service", "[Unit]\nRequires=no-such.service\n[Service]\nExecStart=/bin/sleep 9\n");
    let requires = refused(&spec);
    assert!(requires.contains("no-such.service"), "{requires}");
    let wrong = "[Service]\nExecStart=/bin/sh -c 'echo the port is busy; exit 7'\n";
    let spec = system.unit("wrong.service", wrong);
    let message = refused(&spec);
    assert!(message.contains("exit-code, exit 7 of its main process"), "{message}");
    // What it printed is quoted as far as the journal, which is written beside, has it by then.
    eventually("its last lines are quoted", LIMIT, || {
        failed(server.run(Action::Start, &spec)).contains("its last lines: the port is busy; journalctl -u ")
    });
}

#[test]
fn a_unit_that_runs_though_nobody_of_the_cluster_started_it_is_seen() {
    let system = System::boot();
    let spec = system.unit("app.service", PLAIN);
    system.call("StartUnit", &["ss", "app.service", "replace"]).unwrap();
    assert_eq!(system.server.run(Action::Probe, &spec), Outcome::Running);
    // It is stopped all the same, when the cluster wants that.
    assert_eq!(system.server.run(Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(system.processes("app.service"), [] as [i32; 0]);
    // A service that is only on its way counts as running, for it must not be started elsewhere.
    let slow = system.unit("slow.service", "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n");
    system.call("StartUnit", &["ss", "slow.service", "replace"]).unwrap();
    let outcome = system.server.run_within(Action::Probe, &slow, Duration::from_secs(1));
    assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("still starting: activating (start)")), "{outcome:?}");
}

#[test]
fn a_start_that_takes_too_long_and_one_that_was_cut_off_can_be_stopped_or_taken_over() {
    let system = System::boot();
    let server = &system.server;
    let slow = system.unit("slow.service", "[Service]\nType=notify\nExecStart=/bin/sleep 1000\n");
    let message = failed(server.run_within(Action::Start, &slow, Duration::from_secs(1)));
    assert!(message.contains("slow.service is still starting, and its time (timeouts.start) is over"), "{message}");
    assert_eq!(server.run(Action::Stop, &slow), Outcome::Stopped);
    assert_eq!(system.processes("slow.service"), [] as [i32; 0]);
    // The agent dies in the middle: what its helper began is found when it is up again.
    let file = server.run_dir.path().join("go");
    let text = format!(
        "[Service]\nType=forking\nExecStart=/bin/sh -c 'while ! [ -e {} ]; do sleep 0.05; done; sleep 1000 & exit 0'\n",
        file.display()
    );
    let spec = system.unit("app.service", &text);
    server.executor.borrow().submit(server.operation(Action::Start, &spec, LIMIT));
    server.until("it is starting", || system.state("app.service") == "activating");
    server.restart_killed();
    std::fs::write(&file, "").unwrap();
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(system.processes("app.service"), [] as [i32; 0]);
}

#[test]
fn a_service_that_does_not_end_is_killed_and_one_that_fails_to_undo_is_no_stop() {
    let system = System::boot();
    let server = &system.server;
    let text = "[Service]\nTimeoutStopSec=600\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 0.1; done'\n";
    let deaf = system.unit("deaf.service", text);
    assert_eq!(server.run(Action::Start, &deaf), Outcome::Running);
    assert_eq!(server.run_within(Action::Stop, &deaf, Duration::from_secs(3)), Outcome::Stopped);
    assert_eq!(system.processes("deaf.service"), [] as [i32; 0]);
    // What is left of it by its own setting is nobody's.
    let text = "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'sleep 1000 & exec sleep 1000'\n";
    let loose = system.unit("loose.service", text);
    assert_eq!(server.run(Action::Start, &loose), Outcome::Running);
    eventually("both are there", LIMIT, || system.processes("loose.service").len() == 2);
    assert_eq!(server.run(Action::Stop, &loose), Outcome::Stopped);
    assert_eq!(system.processes("loose.service"), [] as [i32; 0]);
    // What it sets up is in no process.
    let text =
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c 'echo busy; exit 4'\n";
    let setup = system.unit("setup.service", text);
    assert_eq!(server.run(Action::Start, &setup), Outcome::Running);
    for _ in 0..2 {
        let message = failed(server.run(Action::Stop, &setup));
        assert!(
            message.contains("its stop failed") && message.contains("systemctl reset-failed setup.service"),
            "{message}"
        );
    }
    system.call("ResetFailedUnit", &["s", "setup.service"]).unwrap();
    assert_eq!(server.run(Action::Stop, &setup), Outcome::Stopped);
}

#[test]
fn a_manager_that_reads_its_units_anew_is_no_failure_and_one_that_is_gone_is_said_so() {
    let system = System::boot();
    let (server, spec) = (&system.server, system.unit("app.service", PLAIN));
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    system.call("Reexecute", &[]).ok();
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    kill(system.manager(), Signal::SIGSTOP).unwrap();
    assert_eq!(server.run_within(Action::Monitor, &spec, Duration::from_secs(2)), Outcome::Running);
    let outcome = server.run_within(Action::Probe, &spec, Duration::from_secs(1));
    assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("systemd does not answer over D-Bus")), "{outcome:?}");
    // Stopped without it, and for good: it wakes up and does not start it.
    assert_eq!(server.run_within(Action::Stop, &spec, Duration::from_secs(3)), Outcome::Stopped);
    assert_eq!(system.processes("app.service"), [] as [i32; 0]);
    kill(system.manager(), Signal::SIGCONT).unwrap();
    eventually("systemd has noticed", LIMIT, || system.state("app.service") != "active");
    assert_eq!(system.processes("app.service"), [] as [i32; 0]);
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(system.processes("app.service").len(), 1);
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
}

#[test]
fn without_systemd_nothing_of_a_unit_can_run() {
    own_mounts();
    sh("mount -t tmpfs none /run");
    if std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "systemd") {
        // A process of this machine's own systemd, whose bus is hidden: nothing can be said about its units.
        let server = Server::new();
        let spec = resource(serde_json::json!({"name": "app", "systemd": {"unit": "holdfast-test-none.service"}}));
        let outcome = server.run_within(Action::Probe, &spec, Duration::from_secs(1));
        assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("does not answer")), "{outcome:?}");
        return;
    }
    let server = Server::new();
    let spec = resource(serde_json::json!({"name": "app", "systemd": {"unit": "nginx.service"}}));
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    let message = failed(server.run(Action::Start, &spec));
    assert!(message.contains("not booted with systemd"), "{message}");
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    // A bus without a manager on it, where there should be one.
    sh("mkdir -p /run/systemd/system");
    let outcome = server.run_within(Action::Probe, &spec, Duration::from_secs(1));
    assert!(matches!(&outcome, Outcome::Unknown(m) if m.contains("does not answer")), "{outcome:?}");
}

/// Guard and a stand-in for the agent, ended with the test.
struct Pair<'a> {
    server: &'a Server,
    agent: Child,
}

impl Pair<'_> {
    fn start(server: &Server) -> Pair<'_> {
        let watchdog = WatchdogSettings {
            mode: WatchdogMode::Disabled,
            device: "/dev/watchdog".into(),
            timeout: Duration::from_secs(2),
        };
        let settings = GuardSettings { cgroup: server.cgroups.base().to_owned(), watchdog };
        ensure_guard(Path::new(HANDS), server.run_dir.path(), &settings).unwrap();
        let (base, run_dir) = (server.cgroups.base(), server.run_dir.path());
        let agent = Command::new(HANDS).arg("agent").args([run_dir, base]).spawn().unwrap();
        let pair = Pair { server, agent };
        eventually("the agent has shown up", Duration::from_secs(5), || {
            server.page.party(Role::Agent).is_some_and(|a| a.pid as u32 == pair.agent.id())
        });
        pair
    }

    /// Freezes the agent and lets its authority end.
    fn lose_authority(&self) -> Deadline {
        kill(Pid::from_raw(self.agent.id() as i32), Signal::SIGSTOP).unwrap();
        let kill = clock::now() + Duration::from_millis(50);
        let deadline =
            Deadline { soft: kill - Duration::from_millis(50), kill, end: kill + Duration::from_millis(500) };
        self.server.page.publish(deadline);
        deadline
    }

    fn finished(&self) -> bool {
        KillList::of(self.server.run_dir.path()).entries().unwrap().is_empty() && !self.server.page.enforcing()
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if let Some(guard) = self.server.page.party(Role::Guard).filter(Party::exists) {
            let _ = kill(Pid::from_raw(guard.pid), Signal::SIGKILL);
        }
        println!("{}", std::fs::read_to_string(self.server.run_dir.path().join("guard.log")).unwrap_or_default());
    }
}

/// Waits until the guard has finished; gives how long after the kill deadline no process of the unit was left.
fn guarded(system: &System, pair: &Pair<'_>, unit: &str) -> Duration {
    let deadline = pair.lose_authority();
    eventually("its processes are gone", LIMIT, || system.processes(unit).is_empty());
    let gone = clock::now().since(deadline.kill);
    eventually("the guard has finished", LIMIT, || pair.finished());
    println!("{unit}: gone {gone:?}, verified {:?} after the kill deadline", clock::now().since(deadline.kill));
    assert!(!system.server.page.facts().gave_up_petting, "verified in time");
    gone
}

#[test]
fn the_guard_ends_a_unit_and_undoes_what_is_in_no_process() {
    let system = System::boot();
    let server = &system.server;
    let pair = Pair::start(server);
    let sign = server.run_dir.path().join("sign");
    let text = format!(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/touch {0}\nExecStop=/bin/rm {0}\n",
        sign.display()
    );
    let mut setup = system.unit("setup.service", &text);
    setup.name = "setup".into();
    // Deaf, and it would be started again at once.
    let deaf = "[Service]\nRestart=always\nRestartSec=0\nTimeoutStopSec=600\n\
                ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 0.1; done'\n";
    let app = system.unit("app.service", deaf);
    for spec in [&setup, &app] {
        assert_eq!(server.run(Action::Start, spec), Outcome::Running);
    }
    assert!(sign.exists());
    guarded(&system, &pair, "app.service");
    assert!(!sign.exists(), "its own stop has undone it");
    assert_ne!(system.state("app.service"), "active");
    assert_eq!(system.processes("app.service"), [] as [i32; 0]);
}

#[test]
fn the_guard_ends_a_unit_whose_manager_is_frozen_and_it_stays_down_when_that_wakes_up() {
    let system = System::boot();
    let server = &system.server;
    let pair = Pair::start(server);
    // Its next command follows when the first ends, however it ends.
    let text = "[Service]\nType=oneshot\nExecStartPre=-/bin/sleep 1000\nExecStart=/bin/sleep 2000\n";
    let spec = system.unit("app.service", text);
    server.executor.borrow().submit(server.operation(Action::Start, &spec, LIMIT));
    server.until("it is starting", || system.processes("app.service").len() == 1);
    kill(system.manager(), Signal::SIGSTOP).unwrap();
    guarded(&system, &pair, "app.service");
    kill(system.manager(), Signal::SIGCONT).unwrap();
    eventually("systemd answers again", LIMIT, || system.property("", "Version").is_some());
    // Nothing of it runs, whatever systemd has still begun: what it did begin is frozen before its first instruction.
    for _ in 0..20 {
        for pid in system.processes("app.service") {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            assert_ne!(name.trim(), "sleep", "process {pid} runs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
