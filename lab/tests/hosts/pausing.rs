//! Pause and Resume: nobody acts on a paused group, whatever happens to it, with the control plane and without.

use std::process::Output;

use holdfast_api::v1::{GroupPhase, Operation, OperationPhase, ResourceState};
use holdfast_lab::{BIN_DIR, LabError, STATE_DIR, StoreKind, boottime_ns, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{GROUP, LIMIT, Trial};

/// Runs a command that makes an Operation and waits for its end.
fn run(trial: &Trial, args: &[&str]) -> Result<String, LabError> {
    trial.cluster.holdfast(&[args, &["-n", "ha", "--timeout", "60"]].concat())
}

/// Runs `holdfast VERB … --local` on a server.
fn local(trial: &Trial, server: &str, line: &[&str]) -> Output {
    let (program, config) = (format!("{BIN_DIR}/holdfast"), format!("{STATE_DIR}/agent.yaml"));
    let line = [&[program.as_str()], line, &["--local", "--config", config.as_str()]].concat();
    trial.host(server).command(&line).expect("it is on").output().expect("it runs")
}

fn programs(trial: &Trial, server: &str) -> Vec<i32> {
    let all = trial.host(server).processes().expect("its processes");
    all.iter().filter(|process| process.args.concat().contains("nginx")).map(|process| process.pid).collect()
}

/// Somebody works on the service by hand, and leaves it stopped.
fn kill_service(trial: &Trial, server: &str) {
    let running = programs(trial, server);
    assert!(!running.is_empty(), "the service runs");
    for pid in running {
        // Children may be gone with their parent.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

#[test]
fn what_is_done_to_a_paused_group_by_hand_is_left_alone_until_it_is_resumed() {
    let trial = Trial::two("paused");
    let server = trial.active();
    let said = run(&trial, &["pause", GROUP, "--reason", "a new library"]).expect("paused");
    assert!(said.contains(&format!("{GROUP} is paused")), "{said}");
    let held = trial.status().holds.into_iter().find(|held| held.type_ == "Paused").expect("the hold shows");
    assert!(held.by.starts_with("pause-"), "{held:?}");

    for (command, why) in [
        (&["stop", GROUP][..], "is paused, and nobody acts on it"),
        (&["start", GROUP], "is held: Paused"),
        (&["restart", GROUP], "is held: Paused"),
        (&["move", GROUP, "--to", &trial.others(&server)[0]], "is held: Paused"),
    ] {
        let refused = run(&trial, command).expect_err("nobody acts");
        assert!(refused.to_string().contains(why), "{refused}");
    }

    kill_service(&trial, &server);
    wait_for("the loss of the program to show", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?}", status.resources);
        let lost =
            status.resources.iter().any(|resource| resource.name == "nginx" && resource.state == ResourceState::Failed);
        Ok((lost && status.phase == Some(GroupPhase::Failed)).then_some(()))
    })
    .expect("it shows");
    let refused = run(&trial, &["resume", GROUP]).expect_err("it is not as it was left").to_string();
    assert!(refused.contains("is not as it was left: nginx") && refused.contains("--accept-differences"), "{refused}");
    assert!(programs(&trial, &server).is_empty(), "nothing was started meanwhile");

    let before = boottime_ns();
    run(&trial, &["resume", GROUP, "--accept-differences"]).expect("resumed");
    assert_eq!(trial.served_by(std::slice::from_ref(&server), before), server);
    let status = trial.status();
    assert!(status.failures.is_empty() && status.holds.is_empty(), "{:?} {:?}", status.failures, status.holds);
    assert_eq!(trial.history(), [server], "it never left its server");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_paused_group_is_not_taken_over_and_a_pause_ends_by_itself_when_its_time_has_come() {
    let trial = Trial::two("paused-lost");
    let server = trial.active();
    let others = trial.others(&server);
    let sub = trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name");
    let said = run(&trial, &["pause", "--subcluster", &sub]).expect("paused");
    assert!(said.contains(&format!("the one group of SubCluster {sub} is paused")), "{said}");
    let epoch = trial.epoch();
    trial.cluster.power_cut(&server).expect("off");
    trial.members_become(&others, epoch);
    wait_for("the reason to show", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?} {:?}", status.phase, status.decision);
        let held = status.decision.is_some_and(|decision| decision.rule == "Held");
        Ok((held && status.phase == Some(GroupPhase::Offline)).then_some(()))
    })
    .expect("it is proven not to run, and is held");
    assert_eq!(trial.traces(&others[0]), Vec::<String>::new(), "nothing of it was started");

    // A new end: two seconds from now. All is as it was left when its server was lost: it runs nowhere.
    let before = boottime_ns();
    run(&trial, &["pause", GROUP, "--until", "2s"]).expect("paused until then");
    assert_eq!(trial.served_by(&others, before), others[0]);
    wait_for("the hold to be gone", LIMIT, |last| {
        *last = format!("{:?}", trial.status().holds);
        Ok(trial.status().holds.is_empty().then_some(()))
    })
    .expect("it is released");
    trial.cluster.close().expect("the lab goes");
}

/// The finished Operations that were given on a server, by their times.
fn records(trial: &Trial) -> Result<Vec<String>, LabError> {
    let text = trial.cluster.holdfast(&["get", "hop", "-n", "ha", "-o", "json"])?;
    let wrong = |error: serde_json::Error| LabError::Api(error.to_string());
    let list: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
    let mut all = Vec::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let operation: Operation = serde_json::from_value(item.clone()).map_err(wrong)?;
        let Some(status) = operation.status.filter(|status| status.phase == Some(OperationPhase::Succeeded)) else {
            continue;
        };
        let step = status.steps[0].clone();
        let words = step.name.split(' ').collect::<Vec<_>>();
        let origin = status.origin.expect("an origin");
        let number = operation.metadata.name.and_then(|name| name.rsplit('-').next()?.parse::<u64>().ok());
        all.push((number, format!("{} of {} on {}: Succeeded, {origin}", words[0].to_lowercase(), words[1], words[3])));
    }
    all.sort();
    Ok(all.into_iter().map(|(_, words)| words).collect())
}

#[test]
fn holds_are_placed_and_released_on_a_server_while_the_control_plane_is_down() {
    let trial = Trial::two_with_etcd("paused-local");
    let server = trial.active();
    let other = trial.others(&server).remove(0);
    trial.cluster.stop_control_plane(StoreKind::Etcd).expect("API server, controller and etcd are down");
    let ok = |line: &[&str]| {
        let output = local(&trial, &other, line);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(ok(&["pause", GROUP]), "group web is paused: nobody acts on it before holdfast resume web");
    kill_service(&trial, &server);
    let refused = local(&trial, &server, &["resume", GROUP]);
    let why = String::from_utf8_lossy(&refused.stderr).trim().to_owned();
    assert!(why.starts_with("error: group web stays paused, because it is not as it was left: nginx"), "{refused:?}");
    assert!(programs(&trial, &server).is_empty(), "nothing was started meanwhile");
    let before = boottime_ns();
    assert_eq!(ok(&["resume", GROUP, "--accept-differences"]), "group web is resumed");
    assert_eq!(trial.served_by(std::slice::from_ref(&server), before), server);

    assert_eq!(ok(&["stop", GROUP]), "group web is held, and stops where it runs");
    trial.comes_clean(&server);
    let before = boottime_ns();
    assert_eq!(ok(&["start", GROUP, "--reason", "enough"]), "group web is no longer held");
    let serves = trial.served_by(&[server, other.clone()], before);

    // What was done stands in the API when it is back, in its order, and is not done once more.
    trial.cluster.start_control_plane(StoreKind::Etcd).expect("it is back");
    wait_for("the records", LIMIT, |last| {
        let records = records(&trial)?;
        last.clone_from(&records.join("; "));
        Ok((records.len() == 4).then_some(records))
    })
    .map(|records| {
        let of = |verb: &str| format!("{verb} of {GROUP} on {other}: Succeeded, Local");
        assert_eq!(records, ["pause", "resume", "stop", "start"].map(of));
    })
    .expect("an Operation for each");
    let before = boottime_ns();
    trial.pass(trial.cluster.blueprint().timeout * 3);
    trial.undisturbed_since(before);
    assert_eq!(trial.active(), serves);
    trial.cluster.close().expect("the lab goes");
}
