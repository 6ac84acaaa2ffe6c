//! C17: servers, a sub-cluster and a whole super-cluster are shut down by an Operation, and start as ever.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use holdfast_api::v1::{GroupPhase, OperationPhase, SubClusterPhase};
use holdfast_lab::{ClusterOptions, LabError, POWERED_OFF, StoreKind, boottime_ns, wait_for};
use serde_json::Value as Json;
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

fn shut_down(trial: &Trial, args: &[&str]) -> Result<String, LabError> {
    let name = args[1];
    let command = ["shutdown", "-n", "ha", "--confirm", name, "--reason", "new power supplies"];
    trial.cluster.holdfast(&[&command[..], args].concat())
}

fn mark(trial: &Trial, server: &str) -> PathBuf {
    trial.host(server).state_dir().join(POWERED_OFF)
}

/// Waits until a server has switched itself off, and takes its power.
fn goes_off(trial: &Trial, server: &str) {
    let off = mark(trial, server);
    wait_for(&format!("{server} to switch itself off"), LIMIT, |_| Ok(off.exists().then_some(()))).expect("it does");
    trial.comes_clean(server);
    trial.cluster.power_cut(server).expect("off");
    std::fs::remove_file(off).expect("for the next time");
}

#[test]
fn shutdown_of_a_server_and_of_all_is_followed_by_an_ordinary_start() {
    let trial = Trial::two("shutdown");
    let (first, servers) = (trial.active(), trial.cluster.blueprint().servers.clone());
    let standby = trial.others(&first);
    let sub = trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name");

    let unconfirmed = trial.cluster.holdfast(&["shutdown", "--subcluster", &sub, "-n", "ha"]).expect_err("unconfirmed");
    assert!(unconfirmed.to_string().contains(&format!("--confirm {sub}")), "{unconfirmed}");
    let refused = shut_down(&trial, &["--supercluster", "demo", "--first", "shoe"]).expect_err("no such sub-cluster");
    assert!(refused.to_string().contains("spec.shutdown.order: demo has no sub-cluster shoe"), "{refused}");

    // One of two: its group goes to the other. The last one is not taken.
    let (before, object) = (boottime_ns(), format!("{sub}.{first}"));
    shut_down(&trial, &["--server", &object]).expect("shut down");
    trial.served_by(&standby, before);
    goes_off(&trial, &first);
    let last = shut_down(&trial, &["--server", &format!("{sub}.{}", standby[0])]).expect_err("the last one");
    assert!(last.to_string().contains("is the last server in service"), "{last}");
    let epoch = trial.epoch();
    trial.cluster.power_on(&first).expect("power");
    trial.all_return(epoch);

    // All: the plan says what stops, nothing of the group is left, and each switches itself off.
    let plan = shut_down(&trial, &["--subcluster", &sub, "--plan"]).expect("a plan");
    assert!(plan.contains(&format!("shut {sub} down\n")) && plan.contains(&format!("interrupts {GROUP}")), "{plan}");
    let said = shut_down(&trial, &["--subcluster", &sub]).expect("shut down");
    assert!(said.contains("switched off; the next start is an ordinary one"), "{said}");
    let status = trial.cluster.sub_cluster().expect("the sub-cluster").status.expect("a status");
    assert_eq!(status.phase, Some(SubClusterPhase::Stopped));
    for server in &servers {
        goes_off(&trial, server);
    }
    let before = boottime_ns();
    for server in &servers {
        trial.cluster.power_on(server).expect("power");
    }
    trial.served_by(&servers, before);
    trial.all_return(epoch);
    trial.cluster.wait_all_online(LIMIT).expect("all is as before");
    assert!(servers.iter().all(|server| !mark(&trial, server).exists()), "nobody shuts down again");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn shutdown_of_a_super_cluster_with_its_control_plane_ends_after_the_next_start() {
    // The stop takes so long that the control plane is gone before any server says that it was done.
    let edit = |documents: &mut [(PathBuf, Value)]| {
        for (_, document) in documents.iter_mut() {
            if document["kind"] == "SuperCluster" {
                document["spec"]["master"] = serde_yaml::from_str("{subCluster: shop, group: web}").expect("YAML");
            } else if document["kind"] == "FailoverGroup" {
                let page = document["spec"]["resources"].as_sequence_mut().expect("resources");
                let page = page.iter_mut().find(|resource| resource["name"] == "page").expect("the script");
                page["script"]["stop"]["inline"] = "sleep 3".into();
            }
        }
    };
    let trial = Trial::start_with("shutdown-all", "two-servers", ClusterOptions::default(), edit);
    let servers = trial.cluster.blueprint().servers.clone();
    let active = trial.active();
    let stopping = || {
        let all = trial.host(&active).processes()?;
        Ok(all.iter().any(|process| process.args == ["sleep", "3"]).then_some(()))
    };
    let answer = thread::scope(|scope| {
        let command = scope.spawn(|| shut_down(&trial, &["--supercluster", "demo"]));
        wait_for("the group to stop", LIMIT, |_| stopping()).expect("it does");
        trial.cluster.stop_control_plane(StoreKind::Sqlite).expect("it goes with its group");
        command.join().expect("it ends")
    });
    let lost = answer.expect_err("nobody answers any more").to_string();
    assert!(lost.contains("after the next start holdfast get hop/shutdown-demo-"), "{lost}");
    for server in &servers {
        goes_off(&trial, server);
    }

    let before = boottime_ns();
    for server in &servers {
        trial.cluster.power_on(server).expect("power");
    }
    trial.cluster.start_control_plane(StoreKind::Sqlite).expect("the control plane is back");
    trial.served_by(&servers, before);
    wait_for("the Operation to end", LIMIT, |last| {
        let list: Json = serde_json::from_str(&trial.cluster.holdfast(&["get", "hop", "-n", "ha", "-o", "json"])?)
            .map_err(|error| LabError::Api(error.to_string()))?;
        *last = list["items"][0]["status"].to_string();
        Ok((list["items"][0]["status"]["phase"] == OperationPhase::Succeeded.as_str()).then_some(()))
    })
    .expect("it has succeeded");
    trial.undisturbed_since(boottime_ns() - 1);
    assert!(servers.iter().all(|server| !mark(&trial, server).exists()), "nobody shuts down again");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_sub_cluster_that_is_declared_stopped_stays_so_until_it_is_declared_running() {
    let mut trial = Trial::two("declared-stopped");
    let first = trial.active();
    let declare = |trial: &mut Trial, state: &str| {
        let edit = |documents: &mut Vec<(PathBuf, Value)>| {
            let sub = documents.iter_mut().find(|(_, document)| document["kind"] == "SubCluster");
            sub.expect("a sub-cluster").1["spec"]["state"] = state.into();
        };
        trial.cluster.change(&edit).expect("it is applied");
    };
    let is = |trial: &Trial, phase: GroupPhase| {
        wait_for(&format!("the group to be {phase}"), LIMIT, |last| {
            let status = trial.status();
            *last = format!("{:?}", status.phase);
            Ok((status.phase == Some(phase)).then_some(()))
        })
        .expect("it becomes so");
    };
    declare(&mut trial, "Stopped");
    is(&trial, GroupPhase::Offline);
    trial.cluster.blueprint().servers.iter().for_each(|server| trial.comes_clean(server));
    let refused = trial.cluster.holdfast(&["start", GROUP, "-n", "ha"]).expect_err("it is declared Stopped");
    assert!(refused.to_string().contains("has spec.state: Stopped"), "{refused}");

    // Neither a lost server nor a start of everything starts it.
    let servers = trial.cluster.blueprint().servers.clone();
    trial.cluster.power_cut(&first).expect("a power cut");
    trial.pass(Duration::from_secs(4));
    trial.cluster.power_cut(&trial.others(&first)[0]).expect("a power cut");
    let epoch = trial.epoch();
    for server in &servers {
        trial.cluster.power_on(server).expect("power");
    }
    trial.all_return(epoch);
    trial.pass(Duration::from_secs(2));
    is(&trial, GroupPhase::Offline);
    servers.iter().for_each(|server| assert_eq!(trial.traces(server), Vec::<String>::new(), "{server} started it"));

    let before = boottime_ns();
    declare(&mut trial, "Running");
    trial.served_by(&servers, before);
    is(&trial, GroupPhase::Online);
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}
