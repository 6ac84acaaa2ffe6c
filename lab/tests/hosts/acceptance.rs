//! What is tried before a cluster goes live: a test for each line of the second table of docs/faults.md, named after it. Those
//! of shutdown and recovery are in `shutdown.rs` and `operator.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_lab::{AGENT, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// How long the first server of a start waits for the other one.
const GRACE: Duration = Duration::from_secs(4);

fn patient(sub_cluster: &mut Value) {
    sub_cluster["spec"]["startup"] = serde_yaml::from_str("{gracePeriod: 4s}").expect("YAML");
}

fn run(trial: &Trial, args: &[&str]) -> String {
    trial.cluster.holdfast(&[args, &["-n", "ha", "--timeout", "60"]].concat()).expect("it is done")
}

/// All servers shut down in order, and without power.
fn all_down(trial: &Trial) {
    run(trial, &["shutdown", "--subcluster", "shop", "--confirm", "shop", "--reason", "acceptance"]);
    for server in &trial.cluster.blueprint().servers {
        trial.comes_clean(server);
        trial.cluster.power_cut(server).expect("off");
    }
}

#[test]
fn start_of_all_servers_brings_every_group_up() {
    let trial = Trial::two("start-all");
    let servers = trial.cluster.blueprint().servers.clone();
    all_down(&trial);
    let (before, epoch) = (boottime_ns(), trial.epoch());
    for server in servers.iter().rev() {
        trial.cluster.power_on(server).expect("power");
    }
    trial.served_by(&servers[..1], before);
    trial.all_return(epoch);
    trial.cluster.wait_all_online(LIMIT).expect("every group");
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn start_of_one_server_waits_for_the_other_and_then_goes_on_alone() {
    let trial = Trial::two_with("start-one", &patient);
    // Once the one that was active, once the other one.
    for server in trial.cluster.blueprint().servers.clone() {
        let other = trial.others(&server);
        all_down(&trial);
        let (before, began, epoch) = (boottime_ns(), Instant::now(), trial.epoch());
        trial.cluster.power_on(&server).expect("power");
        trial.served_by(std::slice::from_ref(&server), before);
        let waited = began.elapsed();
        assert!(waited >= GRACE, "it started after {waited:?}, and the other one might have come");
        trial.cluster.power_on(&other[0]).expect("power");
        trial.all_return(epoch);
        trial.pass(Duration::from_secs(1));
        assert_eq!(trial.active(), server, "who comes later is the standby");
    }
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn failover_by_detachment_by_shutdown_of_the_system_and_by_a_power_cut_keeps_the_service() {
    let trial = Trial::two("failover");
    // Detached by the operator.
    let (first, second) = (trial.active(), trial.others(&trial.active())[0].clone());
    let (object, before) = (format!("shop.{first}"), boottime_ns());
    run(&trial, &["detach", &object]);
    trial.served_by(std::slice::from_ref(&second), before);
    trial.comes_clean(&first);
    let epoch = trial.epoch();
    run(&trial, &["reinstate", &object]);
    trial.all_return(epoch);
    // The system shuts down: the agent is asked to end, then the power goes.
    let before = boottime_ns();
    trial.host(&second).stop_service(AGENT, Duration::from_secs(20)).expect("the agent ends");
    trial.cluster.power_cut(&second).expect("off");
    trial.served_by(std::slice::from_ref(&first), before);
    let epoch = trial.epoch();
    trial.cluster.power_on(&second).expect("power");
    trial.all_return(epoch);
    // The power is cut.
    let before = boottime_ns();
    trial.cluster.power_cut(&first).expect("a power cut");
    trial.served_by(std::slice::from_ref(&second), before);
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("the status follows");
    assert_eq!(trial.history(), [first.clone(), second.clone(), first, second]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn group_is_moved_stopped_and_started_and_the_disk_lets_go_of_it() {
    let trial = Trial::two("group");
    let (first, second) = (trial.active(), trial.others(&trial.active())[0].clone());
    let before = boottime_ns();
    run(&trial, &["move", GROUP, "--to", &second]);
    trial.served_by(std::slice::from_ref(&second), before);
    trial.comes_clean(&first);
    run(&trial, &["stop", GROUP]);
    for server in [&first, &second] {
        assert!(trial.traces(server).is_empty(), "nothing of it is left on {server}: {:?}", trial.traces(server));
    }
    assert!(trial.status().failures.is_empty(), "the file system let go");
    // Every line about the group says in which sub-cluster and epoch that was.
    let log = fs::read_to_string(trial.host(&second).log_dir().join("agent.log")).expect("its log");
    let about: Vec<&str> = log.lines().filter(|line| line.contains(&format!("group=\"{GROUP}\""))).collect();
    let complete = |line: &&&str| line.contains(" epoch=") && line.ends_with(" sub_cluster=ha/shop");
    assert!(!about.is_empty() && about.iter().all(|line| complete(&line)), "{about:#?}");
    let before = boottime_ns();
    run(&trial, &["start", GROUP]);
    wait_for("the client to be served again", LIMIT, |last| {
        let answer = trial.poller.last();
        *last = format!("{answer:?}");
        Ok(answer.filter(|answer| answer.begun_ns > before).map(drop))
    })
    .expect("it is served");
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn every_line_of_the_acceptance_table_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/faults.md")).expect("the page");
    let table = page.split("\n## Before going live\n").nth(1).expect("the section");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| item"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let items: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    assert_eq!(items, ["start", "start", "start", "shutdown", "failover", "failover", "group", "recovery", "recovery"]);
    let own = [include_str!("acceptance.rs"), include_str!("shutdown.rs"), include_str!("operator.rs")];
    let sources = [&own[..], &[include_str!("inside/mod.rs")]].concat();
    let written: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split("()").next())
        .collect();
    for line in &lines {
        let [item, _, _, tests] = line.as_slice() else { panic!("{line:?}") };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{line:?} has no test");
        for test in tests {
            assert!(test.starts_with(item) && written.contains(test), "{test} is no test about {item}");
        }
    }
}
