//! Data services: the methods in their order and with their arguments, as they were logged by themselves; a method that
//! fails, one that hangs, one that is not there; and the last call, by the guard.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{GROUP, HANDS, Server, eventually, failed, resource};
use holdfast_agent::clock;
use holdfast_agent::deadline::{Deadline, Party, Role};
use holdfast_agent::guard::{GuardSettings, ensure_guard};
use holdfast_agent::resources::{RegisteredService, Sources};
use holdfast_agent::watchdog::WatchdogSettings;
use holdfast_api::v1::{Resource, WatchdogMode};
use holdfast_core::{Action, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const ALL: [&str; 10] =
    ["start", "stop", "abort", "startNet", "stopNet", "abortNet", "fmInit", "fmStart", "fmStop", "fmCheck"];

/// A service whose methods log how they are called, and then do what `special` says.
struct Trial {
    server: Server,
    log: tempfile::TempDir,
}

impl Trial {
    fn new(methods: &[&str], special: &[(&str, &str)]) -> Trial {
        let trial = Trial { server: Server::new(), log: tempfile::tempdir().unwrap() };
        let method = |name: &&str| {
            let line = format!("echo \"$HOLDFAST_METHOD($1|$2|$3)\" >> {}\n", trial.file().display());
            let more = special.iter().find(|(of, _)| of == name).map_or("", |(_, script)| *script);
            json!({"name": name, "inline": format!("{line}{more}"), "timeout": "2s"})
        };
        trial.register(json!({"methods": methods.iter().map(method).collect::<Vec<_>>()}));
        trial
    }

    fn register(&self, spec: serde_json::Value) {
        let service = RegisteredService {
            spec: serde_json::from_value(spec).unwrap(),
            groups: vec![GROUP.to_owned(), "wages".to_owned()],
        };
        let sources = Sources { data_services: [("db2".to_owned(), service)].into(), ..Sources::default() };
        *self.server.sources.borrow_mut() = Arc::new(sources);
    }

    fn file(&self) -> std::path::PathBuf {
        self.log.path().join("calls")
    }

    /// What was called since the last look.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let _ = std::fs::remove_file(self.file());
        text.lines().map(str::to_owned).collect()
    }

    fn run(&self, action: Action, step: &str) -> Outcome {
        self.server.run(action, &step_of(step))
    }
}

/// A step as the agent makes it of the resource `db`.
fn step_of(name: &str) -> Resource {
    resource(json!({"name": name, "dataService": {"name": "db2", "parameters": {"DB2_PORT": "5000"}}}))
}

#[test]
fn methods_are_called_in_their_order_with_hosted_and_other_groups_and_their_time() {
    let trial = Trial::new(&ALL, &[("start", "env > $0.env")]);
    assert_eq!(trial.run(Action::Probe, "db"), Outcome::Stopped);
    assert_eq!(trial.run(Action::Stop, "db"), Outcome::Stopped);
    assert_eq!(trial.calls(), [""; 0], "nothing was started, so nothing is called");
    for step in ["db", "db.net"] {
        assert_eq!(trial.run(Action::Start, step), Outcome::Running);
    }
    let here = |names: &[&str]| names.iter().map(|name| format!("{name}(ledger|wages|2)")).collect::<Vec<_>>();
    assert_eq!(trial.calls(), here(&["START", "START_NET", "FM_INIT", "FM_START"]));
    for step in ["db", "db.net"] {
        assert_eq!(trial.run(Action::Start, step), Outcome::Running);
        assert_eq!(trial.run(Action::Monitor, step), Outcome::Running);
    }
    assert_eq!(trial.calls(), here(&["FM_CHECK"]), "nothing is started twice");

    // A new agent knows what runs.
    trial.server.restart();
    assert_eq!(trial.run(Action::Probe, "db.net"), Outcome::Running);
    for step in ["db.net", "db"] {
        assert_eq!(trial.run(Action::Stop, step), Outcome::Stopped);
    }
    // The other lists: the group is no longer hosted when these are over.
    let away = ["FM_STOP", "STOP_NET", "STOP"].map(|name| format!("{name}(|ledger,wages|2)"));
    assert_eq!(trial.calls(), away);
    assert_eq!(trial.run(Action::Stop, "db"), Outcome::Stopped);
    assert_eq!((trial.run(Action::Probe, "db"), trial.calls().len()), (Outcome::Stopped, 0));

    let state = trial.server.state(&step_of("db"));
    let told = std::fs::read_to_string(state.join("start.env")).unwrap();
    for line in [
        "DB2_PORT=5000",
        "HOLDFAST_DATA_SERVICE=db2",
        "HOLDFAST_RESOURCE=db",
        "HOLDFAST_REASON=Failover",
        "HOLDFAST_TIMEOUT=2",
    ] {
        assert!(told.lines().any(|l| l == line), "{line} is missing in\n{told}");
    }
}

#[test]
fn any_subset_of_the_methods_will_do() {
    let trial = Trial::new(&["startNet", "stopNet", "fmStart", "fmStop"], &[("startNet", "sleep 300 &")]);
    for step in ["db", "db.net"] {
        assert_eq!(trial.run(Action::Start, step), Outcome::Running);
        assert_eq!(trial.run(Action::Monitor, step), Outcome::Running);
    }
    for step in ["db.net", "db"] {
        assert_eq!(trial.run(Action::Stop, step), Outcome::Stopped);
    }
    let names: Vec<String> = trial.calls().iter().map(|call| call.split('(').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["START_NET", "FM_START", "FM_STOP", "STOP_NET"]);
    assert_eq!(trial.server.cgroups.groups().pids(), [] as [i32; 0], "what STOP_NET left behind is gone");

    // What START_NET began may be STOP's to end.
    let trial = Trial::new(&["startNet", "stop"], &[("startNet", "sleep 300 &\necho $! > $0.pid")]);
    for step in ["db", "db.net"] {
        assert_eq!(trial.run(Action::Start, step), Outcome::Running);
    }
    assert_eq!(trial.run(Action::Stop, "db.net"), Outcome::Stopped);
    assert_eq!(trial.server.cgroup(&step_of("db.net")).pids().len(), 1, "it lives until STOP");
    assert_eq!(trial.run(Action::Stop, "db"), Outcome::Stopped);
    assert_eq!(trial.server.cgroups.groups().pids(), [] as [i32; 0]);
}

#[test]
fn a_method_that_fails_ends_the_step_and_a_stop_goes_on_where_it_failed() {
    let server_says = "test -e $0.ok || { echo no licence >&2; exit 4; }";
    let trial = Trial::new(&ALL, &[("fmInit", server_says), ("stopNet", server_says)]);
    assert_eq!(trial.run(Action::Start, "db"), Outcome::Running);
    let message = failed(trial.run(Action::Start, "db.net"));
    let printed = "its start failed: FM_INIT of data service db2: exit 4; it printed: no licence; all of it: ";
    assert!(message.starts_with(printed), "{message}");
    assert!(failed(trial.run(Action::Probe, "db.net")).contains("did not complete"));
    trial.calls();
    let message = failed(trial.run(Action::Stop, "db.net"));
    assert!(message.starts_with("its stop failed: STOP_NET of data service db2: exit 4"), "{message}");
    std::fs::write(trial.server.state(&step_of("db.net")).join("stopNet.ok"), "").unwrap();
    assert_eq!(trial.run(Action::Stop, "db.net"), Outcome::Stopped);
    let names: Vec<String> = trial.calls().iter().map(|call| call.split('(').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["FM_STOP", "STOP_NET", "STOP_NET"], "what had succeeded is not called again");
}

#[test]
fn a_method_that_hangs_is_killed_when_its_own_time_is_over() {
    let trial =
        Trial::new(&ALL, &[("start", "sleep 300 & sleep 300"), ("fmCheck", "sleep 300"), ("stopNet", "sleep 300")]);
    let began = Instant::now();
    let message = failed(trial.run(Action::Start, "db"));
    let wanted = "its start failed: START of data service db2: it took longer than 2s and was killed; it printed nothing; \
                  if it needs longer, raise its timeout in the DataService";
    assert_eq!(message, wanted);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(trial.server.cgroups.groups().pids(), [] as [i32; 0]);
    assert_eq!(trial.run(Action::Start, "db.net"), Outcome::Running);
    for (action, name) in [(Action::Monitor, "FM_CHECK"), (Action::Stop, "STOP_NET")] {
        let message = failed(trial.run(action, "db.net"));
        assert!(message.contains(&format!("failed: {name} of data service db2: it took longer than 2s")), "{message}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let trial = Trial::new(&["start"], &[]);
    trial.register(json!({"methods": [{"name": "start", "path": "/opt/db2/start"}], "runAs": {"user": "nobody"}}));
    let message = failed(trial.run(Action::Start, "db"));
    assert!(
        message.starts_with("its start failed: START of data service db2: ") && message.contains("/opt/db2/start"),
        "{message}"
    );
    *trial.server.sources.borrow_mut() = Arc::default();
    let other = resource(json!({"name": "other", "dataService": {"name": "db2"}}));
    let message = failed(trial.server.run(Action::Start, &other));
    assert_eq!(
        message,
        "its start failed: resource other: dataService.name: DataService db2 is not known on this server"
    );
}

/// Ends the guard with the test.
struct Guarded<'a>(&'a Server);

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.0.page.party(Role::Guard).filter(Party::exists) {
            let _ = kill(Pid::from_raw(guard.pid), Signal::SIGKILL);
        }
        println!("{}", std::fs::read_to_string(self.0.run_dir.path().join("guard.log")).unwrap_or_default());
    }
}

#[test]
fn the_guard_kills_a_service_and_calls_abort_once_and_no_longer_than_it_may() {
    let special = [
        ("start", "(trap '' TERM; while :; do sleep 1; done) &"),
        ("abort", "sleep 300"), // hangs: the stop is verified in time all the same
    ];
    let trial = Trial::new(&ALL, &special);
    let server = &trial.server;
    let watchdog = WatchdogSettings {
        mode: WatchdogMode::Disabled,
        device: "/dev/watchdog".into(),
        timeout: Duration::from_secs(2),
    };
    let settings = GuardSettings { cgroup: server.cgroups.base().to_owned(), watchdog };
    ensure_guard(Path::new(HANDS), server.run_dir.path(), &settings).unwrap();
    let _guard = Guarded(server);
    for step in ["db", "db.net"] {
        assert_eq!(trial.run(Action::Start, step), Outcome::Running);
    }
    assert!(!server.cgroups.groups().pids().is_empty());
    trial.calls();
    let killing = clock::now() + Duration::from_millis(100);
    let end = killing + Duration::from_millis(600);
    server.page.publish(Deadline { soft: killing, kill: killing, end });
    eventually("the guard has verified the stop", Duration::from_secs(5), || {
        clock::now() >= killing
            && !server.page.enforcing()
            && server.cgroups.groups().pids().is_empty()
            && std::fs::metadata(server.run_dir.path().join("kill.list")).is_ok_and(|list| list.len() == 0)
    });
    assert_eq!(trial.calls(), ["ABORT_NET(|ledger,wages|2)", "ABORT(|ledger,wages|2)"]);
    assert_eq!(server.cgroups.abort(0).pids(), [] as [i32; 0], "nothing of it is left");
    let log = std::fs::read_to_string(server.run_dir.path().join("guard.log")).unwrap();
    assert!(!log.contains("never petting again"), "in time:\n{log}");
    // As after a crash: a start begins anew.
    server.authority(Duration::from_secs(600));
    server.restart();
    for step in ["db", "db.net"] {
        assert_eq!(trial.run(Action::Probe, step), Outcome::Stopped);
    }
}
