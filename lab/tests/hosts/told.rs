//! What the cluster tells by itself: Events, and lines of its logs.

use std::fs;

use holdfast_lab::{LabError, boottime_ns, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value as Json;

use crate::harness::{GROUP, LIMIT, Trial};

/// An Event, as `REASON REGARDING/NAME RELATED/NAME: NOTE`.
fn events(trial: &Trial) -> Result<Vec<String>, LabError> {
    let text = trial.cluster.holdfast(&["get", "events.events.k8s.io", "-n", "ha", "-o", "json"])?;
    let list: Json = serde_json::from_str(&text).map_err(|error| LabError::Api(error.to_string()))?;
    let words = |event: &Json| {
        let of = |field: &str| {
            let object = &event[field];
            format!("{}/{}", object["kind"].as_str().unwrap_or("-"), object["name"].as_str().unwrap_or("-"))
        };
        let word = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}: {}", word("reason"), of("regarding"), of("related"), word("note"))
    };
    Ok(list["items"].as_array().into_iter().flatten().map(words).collect())
}

/// Waits until an Event begins like this.
fn told(trial: &Trial, beginning: &str) {
    wait_for(beginning, LIMIT, |last| {
        let all = events(trial)?;
        *last = format!("{all:#?}");
        Ok(all.iter().any(|event| event.starts_with(beginning)).then_some(()))
    })
    .expect("the Event");
}

/// Lines of the agent's log on a server that are about the group.
fn lines(trial: &Trial, server: &str) -> Vec<String> {
    let logs = fs::read_dir(trial.host(server).log_dir()).expect("its logs").flatten();
    let text: String = logs
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("agent"))
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect();
    let about = |line: &&str| line.contains(&format!("group={GROUP}")) || line.contains(&format!("group=\"{GROUP}\""));
    text.lines().filter(about).map(str::to_owned).collect()
}

#[test]
fn what_happens_is_told_with_whom_it_is_about_and_who_wanted_it() {
    let trial = Trial::two("told");
    let (first, epoch) = (trial.active(), trial.epoch());
    let second = trial.others(&first)[0].clone();

    // A program dies and is started again where it is.
    let web = trial.host(&first).processes().expect("its processes");
    let web: Vec<_> = web.into_iter().filter(|process| process.args[0].contains("nginx")).collect();
    trial.host(&first).signal(&web, Signal::SIGKILL).expect("killed");
    told(&trial, &format!("ResourceRestarted FailoverGroup/{GROUP} Server/"));
    trial.cluster.wait_online(GROUP, Some(&first), LIMIT).expect("it runs again");

    // An operator moves the group.
    let said =
        trial.cluster.holdfast(&["move", GROUP, "--to", &second, "-n", "ha", "--reason", "told"]).expect("moved");
    let text = trial.cluster.holdfast(&["get", "hop", "-n", "ha", "-o", "name"]).expect("Operations");
    let operation =
        text.lines().next().and_then(|line| line.split('/').nth(1)).unwrap_or_else(|| panic!("{text} {said}"));
    told(&trial, &format!("GroupMoved FailoverGroup/{GROUP} Operation/{operation}: "));
    told(&trial, &format!("GroupStopped FailoverGroup/{GROUP} Operation/{operation}: "));
    told(&trial, &format!("GroupStarted FailoverGroup/{GROUP} Operation/{operation}: "));
    let found = lines(&trial, &second);
    let started = found.iter().filter(|line| line.contains("action=Start")).collect::<Vec<_>>();
    let whole = |line: &&&String| {
        line.contains(&format!("operation={operation}")) && line.contains("epoch=") && line.contains("sub_cluster=ha/")
    };
    assert!(!started.is_empty() && started.iter().all(|line| whole(&line)), "{found:#?}");

    // Its server loses its power: nobody wanted what follows.
    let before = boottime_ns();
    trial.cluster.power_cut(&second).expect("no power");
    trial.served_by(std::slice::from_ref(&first), before);
    told(&trial, "ServerLost SubCluster/");
    let newest = lines(&trial, &first);
    let newest = newest.last().expect("a line about the group");
    assert!(!newest.contains(operation), "{newest}");
    trial.cluster.power_on(&second).expect("power");
    trial.all_return(epoch);
    told(&trial, "ServerReturned SubCluster/");
    trial.cluster.close().expect("the lab goes");
}
