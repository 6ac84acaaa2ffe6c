//! Monitors of a group: a service that lives and does not serve.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_api::v1::{MonitorState, TransitionType};
use holdfast_lab::{ClusterOptions, Process, boottime_ns, wait_for};
use nix::sys::signal::Signal;
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// The example `two-servers`, its group changed by a manifest's `spec.monitors`.
fn monitored(name: &str, manifest: &str) -> Trial {
    monitored_with(name, manifest, ClusterOptions::default())
}

pub(crate) fn monitored_with(name: &str, manifest: &str, options: ClusterOptions<'_>) -> Trial {
    let manifest: Value = serde_yaml::from_str(manifest).expect("YAML");
    let monitors = &manifest["spec"]["monitors"];
    assert!(monitors.is_sequence(), "{manifest:?}");
    let change = |documents: &mut [(PathBuf, Value)]| {
        let group = documents.iter_mut().map(|(_, d)| d).find(|d| d["kind"] == "FailoverGroup").expect("a group");
        group["spec"]["monitors"] = monitors.clone();
    };
    let trial = Trial::start_with(name, "two-servers", options, change);
    all_become(&trial, MonitorState::Passing);
    trial
}

/// What docs/operations.md shows.
fn documented() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = fs::read_to_string(path).expect("the page");
    let section = text.split("\n## Monitors\n").nth(1).expect("the section");
    section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a manifest").to_owned()
}

pub(crate) fn all_become(trial: &Trial, wanted: MonitorState) {
    wait_for(&format!("every monitor to be {wanted:?}"), LIMIT, |last| {
        let monitors = trial.status().monitors;
        *last = format!("{monitors:?}");
        Ok((!monitors.is_empty() && monitors.iter().all(|monitor| monitor.state == wanted)).then_some(()))
    })
    .expect("the status shows the monitors");
}

pub(crate) fn nginx(trial: &Trial, server: &str) -> Vec<Process> {
    let all = trial.host(server).processes().expect("its processes");
    all.into_iter().filter(|process| process.args[0].contains("nginx")).collect()
}

/// The page on the shared file system, as the server that has it mounted sees it.
fn page(trial: &Trial, server: &str) -> PathBuf {
    trial.host(server).path("/srv/web/index.html").expect("it is on")
}

#[test]
fn a_service_that_hangs_is_restarted_where_it_is() {
    let trial = monitored("monitor-restart", &documented());
    let active = trial.active();
    let hung = nginx(&trial, &active);
    let before = boottime_ns();
    // It lives and still takes connections: no check of its process sees anything.
    trial.host(&active).signal(&hung, Signal::SIGSTOP).expect("stopped");
    wait_for("another process", LIMIT, |last| {
        let now = nginx(&trial, &active);
        *last = format!("{now:?}");
        Ok((!now.is_empty() && now.iter().all(|process| !hung.contains(process))).then_some(()))
    })
    .expect("the monitor has it restarted");
    trial.served_by(std::slice::from_ref(&active), boottime_ns());
    // Three checks of a second each, two seconds between them, and the grace of 10 s in which a stopped process doesn't
    // hear that it is to end.
    let outage = trial.outage_since(before);
    assert!(outage > Duration::from_secs(13) && outage < Duration::from_secs(20), "the client saw {outage:?}");
    wait_for("the restart to be counted", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?}", status.resources);
        Ok(status.resources.iter().any(|r| r.name == "nginx" && r.restarts == 1).then_some(()))
    })
    .expect("the status says so");
    all_become(&trial, MonitorState::Passing);
    let shown = trial.cluster.holdfast(&["status"]).expect("the whole tree");
    assert!(shown.lines().any(|line| line.contains("monitor answers") && line.contains("Passing")), "{shown}");
    assert_eq!(trial.history(), [active], "it never ran elsewhere");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_group_whose_check_fails_goes_to_the_other_server() {
    let trial = monitored("monitor-failover", &documented());
    let active = trial.active();
    let standby = trial.others(&active);
    let before = boottime_ns();
    // The next start writes it again.
    fs::write(page(&trial, &active), "").expect("emptied");
    let survivor = trial.served_by(&standby, before);
    let status = trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("online").status.expect("a status");
    let failure = status.failures.first().expect("why it went");
    assert_eq!((failure.server.as_str(), failure.resource.as_str()), (active.as_str(), "monitor page"));
    assert!(failure.message.starts_with("exit 1"), "{failure:?}");
    assert_eq!(status.transitions.first().map(|t| t.type_), Some(TransitionType::Failover));
    all_become(&trial, MonitorState::Passing);
    assert_eq!(trial.history(), [active, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_service_that_answers_wrongly_goes_to_the_other_server_although_another_check_hangs_on_its_files() {
    // The second one keeps the file system busy: it has to be ended before that is unmounted.
    let manifest = "
spec:
  monitors:
  - {name: answers, http: {url: 'http://192.0.2.10/'}, interval: 500ms, timeout: 1s, action: Failover}
";
    let busy = "{name: busy, exec: {command: [/bin/sh, -c, 'cd /srv/web; test -e hang || exit 0; sleep 600']}, \
                interval: 100ms, timeout: 10m, action: Report}";
    let trial = monitored("monitor-wrong", &format!("{manifest}  - {busy}\n"));
    let active = trial.active();
    let standby = trial.others(&active);
    fs::write(page(&trial, &active).with_file_name("hang"), "").expect("made");
    wait_for("the check to hang", LIMIT, |last| {
        let all = trial.host(&active).processes()?;
        *last = format!("{all:?}");
        Ok(all.iter().any(|process| process.args.iter().any(|arg| arg == "600")).then_some(()))
    })
    .expect("it sits in the file system");
    let before = boottime_ns();
    fs::remove_file(page(&trial, &active)).expect("removed: the web server answers 403");
    let survivor = trial.served_by(&standby, before);
    trial.comes_clean(&active);
    let status = trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("online").status.expect("a status");
    let failure = status.failures.first().expect("why it went");
    assert!(
        failure.message.starts_with("http://192.0.2.10/ answers 403 Forbidden, http.statuses has 200"),
        "{failure:?}"
    );
    let sleeper = trial.host(&active).processes().expect("its processes");
    assert!(!sleeper.iter().any(|process| process.args.iter().any(|arg| arg == "600")), "{sleeper:?}");
    assert_eq!(trial.history(), [active, survivor]);
    trial.cluster.close().expect("the lab goes");
}
