//! C22: rolling upgrades by an Operation, under a client that writes and a pipeline that applies the manifests again and
//! again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use holdfast_api::v1::{OperationPhase, OperationStatus, StepState};
use holdfast_lab::{CONTROL, ClusterOptions, LabError, STATE_DIR, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use serde_yaml::Value;

use crate::harness::{LIMIT, Trial};

/// The one Operation that there is.
fn operation(trial: &Trial) -> Result<(String, OperationStatus), LabError> {
    let text = trial.cluster.holdfast(&["get", "hop", "-n", "ha", "-o", "json"])?;
    let wrong = |error: serde_json::Error| LabError::Api(error.to_string());
    let list: Json = serde_json::from_str(&text).map_err(wrong)?;
    let one = &list["items"][0];
    let name = one["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok((name, serde_json::from_value(one["status"].clone()).unwrap_or_default()))
}

/// Waits until the operator is asked to service a server, and says which.
fn awaits(trial: &Trial, server: &str) -> String {
    wait_for(&format!("{server} to be out of service for its upgrade"), LIMIT, |last| {
        let (name, status) = operation(trial)?;
        let message = status.conditions.iter().map(|one| one.message.clone()).collect::<Vec<_>>().join("; ");
        let here = message.contains(&format!("shop.{server} is out of service; holdfast proceed {name}"));
        *last = format!("{:?} {message}", status.phase);
        Ok((status.phase == Some(OperationPhase::AwaitingOperator) && here).then_some(name))
    })
    .expect("it waits for the operator")
}

/// Applies what is applied, once a second, until it is told to end.
fn pipeline(trial: &Trial, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        trial.cluster.apply(trial.cluster.manifests()).expect("applied again");
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn two_servers_are_serviced_one_after_the_other_and_the_group_moves_once() {
    let trial = Trial::two("upgrade");
    let first = trial.active();
    let standby = trial.others(&first);
    let ends = AtomicBool::new(false);
    let sub = trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name");
    let epoch = trial.epoch();
    let said = thread::scope(|scope| {
        scope.spawn(|| pipeline(&trial, &ends));
        let command =
            scope.spawn(|| trial.cluster.holdfast(&["upgrade", "--subcluster", &sub, "-n", "ha", "--timeout", "120"]));
        for server in standby.iter().chain([&first]) {
            let name = awaits(&trial, server);
            trial.comes_clean(server);
            // The service: another kernel.
            trial.cluster.power_cut(server).expect("off");
            trial.cluster.power_on(server).expect("on");
            trial.cluster.holdfast(&["proceed", &name, "-n", "ha"]).expect("it goes on");
        }
        let said = command.join().expect("the command ends");
        ends.store(true, Ordering::Relaxed);
        said
    });
    assert!(said.expect("upgraded").contains("2 servers were serviced and are back"));
    trial.all_return(epoch);
    assert_eq!(trial.history(), [first, standby[0].clone()], "the group moved once, and nothing moves it back");
    let (name, status) = operation(&trial).expect("the record");
    assert_eq!(status.phase, Some(OperationPhase::Succeeded));
    let late = trial.cluster.holdfast(&["proceed", &name, "-n", "ha"]).expect_err("it is over");
    assert!(late.to_string().contains("waits for no operator: it is Succeeded"), "{late}");
    trial.cluster.close().expect("the lab goes");
}

/// Kills the processes of a host that run a verb of holdfast; each is started again by its supervisor.
pub(crate) fn kill(trial: &Trial, host: &str, verb: &str) {
    let found = trial.host(host).holdfast_processes(verb).expect("its processes");
    assert!(!found.is_empty(), "{verb} runs on {host}");
    trial.host(host).signal(&found, Signal::SIGKILL).expect("killed");
}

#[test]
fn an_upgrade_survives_the_death_of_the_controller_the_coordinator_and_the_agent_at_every_step() {
    let trial = Trial::three("upgrade-killed");
    let (first, epoch) = (trial.active(), trial.epoch());
    let sub = trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name");
    let said = thread::scope(|scope| {
        let command =
            scope.spawn(|| trial.cluster.holdfast(&["upgrade", "--subcluster", &sub, "-n", "ha", "--timeout", "240"]));
        let mut killed: BTreeSet<String> = BTreeSet::new();
        while !command.is_finished() {
            // The control plane may be away: it is one of those that are killed.
            let found = operation(&trial).and_then(|found| Ok((found, trial.cluster.sub_cluster()?)));
            let Ok(((name, status), object)) = found else {
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            let running = status.steps.iter().find(|step| step.state == StepState::Running);
            let Some(step) = running.map(|step| step.name.clone()).filter(|step| !killed.contains(step)) else {
                if status.phase == Some(OperationPhase::AwaitingOperator) {
                    // It may have been gone on with, or the control plane may be away.
                    let _ = trial.cluster.holdfast(&["proceed", &name, "-n", "ha"]);
                }
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            let coordinator = object.status.and_then(|status| Some(status.view?.coordinator)).expect("a coordinator");
            let serviced = step.rsplit('.').next().expect("a server");
            for server in BTreeSet::from([coordinator.as_str(), serviced]) {
                kill(&trial, server, "agent");
            }
            kill(&trial, CONTROL, "server");
            killed.insert(step);
        }
        let said = command.join().expect("the command ends");
        let now = || (trial.status(), trial.cluster.sub_cluster().map(|sub| sub.status));
        assert_eq!(killed.len(), 9, "each of three steps of three servers: {killed:?}; {said:?}; now: {:#?}", now());
        said
    });
    assert!(said.expect("upgraded").contains("3 servers were serviced and are back"));
    trial.all_return(epoch);
    let history = trial.history();
    assert_eq!((history.len(), history.first()), (2, Some(&first)), "the group moved once: {history:?}");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn three_servers_are_serviced_by_a_command_and_one_on_which_it_fails_ends_it() {
    let edit = |documents: &mut [(PathBuf, Value)]| {
        for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "SubCluster") {
            document["spec"]["exec"] = serde_yaml::from_str("{enabled: true}").expect("YAML");
        }
    };
    let trial = Trial::start_with("upgrade-three", "three-servers", ClusterOptions::default(), edit);
    let servers = trial.cluster.blueprint().servers.clone();
    let first = trial.active();
    let sub = trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name");
    let mark = |server: &str| trial.host(server).state_dir().join("serviced");
    let upgrade = |script: &str| {
        let line = ["upgrade", "--subcluster", &sub, "-n", "ha", "--timeout", "120", "--", "/bin/sh", "-c", script];
        trial.cluster.holdfast(&line)
    };
    // No group is where the command runs.
    let script = format!("! ip address | grep -q 192.0.2.10 && uname -n > {STATE_DIR}/serviced");
    let said = upgrade(&script).expect("upgraded");
    assert!(said.contains("3 servers were serviced and are back"), "{said}");
    for server in &servers {
        let written = std::fs::read_to_string(mark(server)).expect("the command ran there");
        assert_eq!(written.trim(), server);
    }
    assert_eq!(trial.history().len(), 2, "the group moved once: {:?}", trial.history());
    assert_eq!(trial.history()[0], first);

    let failed = upgrade("echo no space; exit 3").expect_err("the command fails").to_string();
    assert!(failed.contains("exit 3; it printed last: no space; the server stays out of service until"), "{failed}");
    trial.cluster.close().expect("the lab goes");
}
