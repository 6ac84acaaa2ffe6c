//! Operations go on when the controller, the coordinator and every agent are killed at the boundaries of their steps: each
//! is carried out, once.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use holdfast_api::v1::{OperationStatus, StepState};
use holdfast_lab::{CONTROL, ClusterOptions, LabError, wait_for};
use serde_json::Value as Json;
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};
use crate::upgrade::kill;

/// Each start leaves a line here, on the group's disk.
const STARTS: &str = "/srv/web/starts";

/// Each start and stop of the group takes long enough for the control plane to be back before it has ended.
fn slow() -> Value {
    let (start, stop) = (format!("sleep 2; uname -n >> {STARTS}; sync"), "sleep 2");
    serde_yaml::from_str(&format!(
        "{{name: slow, dependsOn: [nginx], script: {{start: {{inline: '{start}'}}, stop: {{inline: '{stop}'}}}}}}"
    ))
    .expect("YAML")
}

/// The steps that run now, as OPERATION/STEP.
fn running(trial: &Trial) -> Result<Option<String>, LabError> {
    let text = trial.cluster.holdfast(&["get", "hop", "-n", "ha", "-o", "json"])?;
    let wrong = |error: serde_json::Error| LabError::Api(error.to_string());
    let list: Json = serde_json::from_str(&text).map_err(wrong)?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().find_map(|one| {
        let status: OperationStatus = serde_json::from_value(one["status"].clone()).ok()?;
        let step = status.steps.into_iter().find(|step| step.state == StepState::Running)?;
        Some(format!("{}/{}", one["metadata"]["name"].as_str()?, step.name))
    }))
}

/// Runs a command while everything that carries its Operation out is killed whenever a step begins. How often that was.
fn under_fire(trial: &Trial, line: &[&str]) -> usize {
    let more = ["-n", "ha", "--timeout", "120", "--reason", "a test"];
    let mut killed: BTreeSet<String> = BTreeSet::new();
    let said = thread::scope(|scope| {
        let command = scope.spawn(|| trial.cluster.holdfast(&[line, &more].concat()));
        while !command.is_finished() {
            // The control plane may be away: it is one of those that are killed.
            let Some(step) = running(trial).ok().flatten().filter(|step| !killed.contains(step)) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            for server in &trial.cluster.blueprint().servers {
                kill(trial, server, "agent");
            }
            kill(trial, CONTROL, "server");
            killed.insert(step);
        }
        command.join().expect("the command ends")
    });
    println!("{line:?}: killed at {killed:?}");
    said.unwrap_or_else(|error| panic!("{line:?}, killed at {killed:?}: {error}"));
    killed.len()
}

#[test]
fn operations_survive_the_death_of_the_controller_the_coordinator_and_the_agents_at_their_steps() {
    let trial = Trial::start_with("ops-killed", "two-servers", ClusterOptions::default(), |documents| {
        for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "FailoverGroup") {
            let resources = document["spec"]["resources"].as_sequence_mut().expect("resources");
            resources.push(slow());
        }
    });
    let (first, epoch) = (trial.active(), trial.epoch());
    let second = trial.others(&first)[0].clone();
    let mut known = 0;
    let mut started = |server: &str, times: usize, what: &str| {
        trial.cluster.wait_online(GROUP, Some(server), LIMIT).expect("it is online there");
        let file = trial.host(server).path(STARTS).expect("the server is on");
        let starts = fs::read_to_string(file).expect("its disk is mounted there");
        let new: Vec<&str> = starts.lines().skip(known).collect();
        assert_eq!(new, vec![server; times], "{what} starts the group {times} times");
        known += times;
    };

    started(&first, 1, "the cluster");
    assert!(under_fire(&trial, &["move", GROUP, "--to", &second]) > 0);
    started(&second, 1, "a move");
    assert!(under_fire(&trial, &["restart", GROUP]) > 0);
    started(&second, 1, "a restart");
    assert!(under_fire(&trial, &["stop", GROUP]) > 0);
    trial.comes_clean(&second);
    assert!(under_fire(&trial, &["start", GROUP]) > 0);
    // It was nowhere: it starts where it is to be by its order of servers.
    started(&first, 1, "a start");
    assert!(under_fire(&trial, &["restart", GROUP, "--resource", "slow"]) > 0);
    started(&first, 1, "a restart of the resource");

    under_fire(&trial, &["pause", GROUP]);
    let holds = || trial.status().holds.into_iter().map(|hold| hold.type_.to_string()).collect::<Vec<_>>();
    assert_eq!(holds(), ["Paused"]);
    under_fire(&trial, &["resume", GROUP]);
    wait_for("the pause to be over", LIMIT, |_| Ok(holds().is_empty().then_some(()))).expect("released");
    under_fire(&trial, &["clear-failures", GROUP]);
    started(&first, 0, "a pause, its end, or forgotten failures");

    assert!(under_fire(&trial, &["detach", &first]) > 0);
    started(&second, 1, "the loss of its server");
    under_fire(&trial, &["reinstate", &first]);
    trial.all_return(epoch);
    started(&second, 0, "a standby that is back");
    assert_eq!(trial.history(), [first.clone(), second.clone(), first, second]);
    trial.cluster.close().expect("the lab goes");
}
