//! A group that fails wherever it is: a few starts, then a state that stays, with the reason, until somebody has repaired it
//! and says so.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_lab::{ClusterOptions, STATE_DIR, boottime_ns, wait_for};
use nix::sys::signal::Signal;
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// A number by which the program is known.
const PROGRAM: &str = "777704";

fn with_program(documents: &mut [(PathBuf, Value)]) {
    let group = documents.iter_mut().map(|(_, d)| d).find(|d| d["kind"] == "FailoverGroup").expect("a group");
    let shell = format!(
        "echo started >> {STATE_DIR}/starts; [ ! -e {STATE_DIR}/broken ] || {{ echo no licence; exit 3; }}; exec sleep {PROGRAM}"
    );
    let mut app: Value =
        serde_yaml::from_str("{name: app, process: {command: [/bin/sh, -c]}, dependsOn: [data]}").expect("YAML");
    app["process"]["command"].as_sequence_mut().expect("a list").push(shell.into());
    group["spec"]["resources"].as_sequence_mut().expect("a list").push(app);
    group["spec"]["recovery"] =
        serde_yaml::from_str("{restarts: 1, maxFailovers: 2, failoverWindow: 1h, failureDecay: 2s}").expect("YAML");
}

#[test]
fn what_fails_everywhere_ends_stopped_with_the_reason_and_runs_again_when_it_is_repaired_and_started() {
    let trial = Trial::start_with("flapping", "two-servers", ClusterOptions::default(), with_program);
    let first = trial.active();
    let servers = trial.cluster.blueprint().servers.clone();
    let starts = || -> usize {
        let text = |server: &String| std::fs::read_to_string(trial.host(server).state_dir().join("starts"));
        servers.iter().map(|server| text(server).unwrap_or_default().lines().count()).sum()
    };
    assert_eq!(starts(), 1);
    for server in &servers {
        std::fs::write(trial.host(server).state_dir().join("broken"), "").expect("broken");
    }
    let all = trial.host(&first).processes().expect("its processes");
    let app: Vec<_> = all.into_iter().filter(|process| process.args.iter().any(|arg| arg == PROGRAM)).collect();
    trial.host(&first).signal(&app, Signal::SIGKILL).expect("killed");

    wait_for("the hold FailureLimit", LIMIT * 2, |last| {
        let status = trial.status();
        *last = format!("{:?} {:?} {:?}", status.phase, status.holds, status.failures);
        Ok(status.holds.iter().any(|hold| hold.type_ == "FailureLimit").then_some(()))
    })
    .expect("it is stopped for good");
    for server in &servers {
        trial.comes_clean(server);
    }
    // The first server, and two recoveries, each with one restart.
    let tried = starts();
    assert!((4..=7).contains(&tried), "{tried} starts");
    let ready = trial.status().conditions.into_iter().find(|condition| condition.type_ == "Ready").expect("Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Held"), "{ready:?}");
    trial.pass(Duration::from_secs(8));
    assert_eq!(starts(), tried, "nothing is tried any more");

    let before = boottime_ns();
    for server in &servers {
        std::fs::remove_file(trial.host(server).state_dir().join("broken")).expect("repaired");
    }
    trial.cluster.holdfast(&["start", GROUP, "--namespace", "ha"]).expect("it is started");
    trial.cluster.wait_online(GROUP, None, LIMIT).expect("it runs again");
    trial.served_by(&servers, before);
    assert_eq!(starts(), tried + 1);
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}
