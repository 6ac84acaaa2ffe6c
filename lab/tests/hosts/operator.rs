//! What an operator does about single servers, on real hosts: out of service and back, back after a power cut (C20), and
//! the base after all were down (C21).

use std::collections::BTreeSet;

use holdfast_api::v1::{ServerState, ServerStatus, SubClusterPhase};
use holdfast_lab::{boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

fn manual(sub_cluster: &mut Value) {
    let spec = &mut sub_cluster["spec"];
    spec["returnPolicy"] = "Manual".into();
    // How long the first server of a start waits for the other one.
    spec["startup"] = serde_yaml::from_str("{gracePeriod: 5s}").expect("YAML");
}

/// Runs a command that makes an Operation and waits for its end.
fn run(trial: &Trial, args: &[&str]) -> Result<String, holdfast_lab::LabError> {
    trial.cluster.holdfast(&[args, &["-n", "ha", "--timeout", "60"]].concat())
}

/// The name of a server's object.
fn object(trial: &Trial, server: &str) -> String {
    format!("{}.{server}", trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name"))
}

/// Waits until a server reports what `is` wants.
fn reports(trial: &Trial, server: &str, what: &str, is: impl Fn(&ServerStatus) -> bool) -> ServerStatus {
    wait_for(&format!("{server} to report {what}"), LIMIT, |last| {
        let status = trial.cluster.servers()?.remove(server).and_then(|server| server.status).unwrap_or_default();
        *last = format!("{:?} {:?} {:?}", status.state, status.holds, status.conditions);
        Ok(is(&status).then_some(status))
    })
    .expect("the server reports")
}

fn is_detached(status: &ServerStatus, hold: &str) -> bool {
    status.state == Some(ServerState::Detached) && status.holds.iter().any(|held| held.type_ == hold)
}

fn ready_message(status: &ServerStatus) -> String {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.map(|ready| ready.message.clone()).unwrap_or_default()
}

/// Waits until the sub-cluster says that a person has to decide.
fn asks_for_an_operator(trial: &Trial) {
    wait_for("the sub-cluster to ask for an operator", LIMIT, |last| {
        let status = trial.cluster.sub_cluster()?.status.unwrap_or_default();
        *last = format!("{:?}", status.phase);
        Ok((status.phase == Some(SubClusterPhase::AwaitingForceReinstate)).then_some(()))
    })
    .expect("it asks");
}

#[test]
fn every_server_is_taken_out_and_back_under_a_writing_client() {
    let trial = Trial::two("rolling");
    let first = trial.active();
    let mut order = trial.others(&first);
    order.push(first.clone());
    // The standby first, then the one that runs the group: it moves once.
    for server in &order {
        let name = object(&trial, server);
        run(&trial, &["detach", &name]).expect("detached");
        trial.comes_clean(server);
        reports(&trial, server, "Detached", |status| is_detached(status, "Detached"));
        let epoch = trial.epoch();
        // Maintenance: the machine is switched off and on, and still stays out.
        trial.cluster.power_cut(server).expect("off");
        trial.cluster.power_on(server).expect("on");
        reports(&trial, server, "Detached again", |status| {
            is_detached(status, "Detached") && status.epoch == Some(epoch)
        });
        let last = trial.others(server);
        let refused = run(&trial, &["detach", &object(&trial, &last[0])]).expect_err("the last one");
        assert!(refused.to_string().contains("is the last server in service"), "{refused}");
        run(&trial, &["reinstate", &name]).expect("reinstated");
        trial.all_return(epoch);
    }
    let standby = trial.others(&first);
    assert_eq!(trial.active(), standby[0], "the group moved once, and nothing moves it back");
    assert_eq!(trial.history(), [first, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_group_is_restarted_where_it_runs_and_stays_there() {
    let trial = Trial::two("restart");
    let server = trial.active();
    let programs = || -> BTreeSet<i32> {
        let all = trial.host(&server).processes().expect("its processes");
        all.iter().filter(|process| process.args.concat().contains("nginx")).map(|process| process.pid).collect()
    };
    let (before, old) = (boottime_ns(), programs());
    assert!(!old.is_empty(), "the service runs");
    let said = run(&trial, &["restart", GROUP, "--reason", "a new library"]).expect("restarted");
    assert!(said.contains(&format!("{GROUP} was restarted on {server}")), "{said}");
    assert_eq!(trial.served_by(std::slice::from_ref(&server), before), server);
    assert!(programs().is_disjoint(&old), "every program of it is a new one");
    let status = trial.status();
    let newest = status.transitions.first().expect("a transition");
    assert_eq!((newest.cause.as_str(), &newest.from, &newest.to), ("Operation", &server, &server));
    assert!(status.failures.is_empty() && status.holds.is_empty(), "{:?} {:?}", status.failures, status.holds);
    // One resource: its program is a new one, and the file that the start script of the page made is the old one.
    let (old, page) = (programs(), trial.host(&server).processes().expect("its processes"));
    let writers = |all: &[holdfast_lab::Process]| -> BTreeSet<i32> {
        all.iter().filter(|one| one.args.concat().contains("write")).map(|one| one.pid).collect()
    };
    assert!(!writers(&page).is_empty(), "the other program runs");
    let said = run(&trial, &["restart", GROUP, "--resource", "nginx"]).expect("restarted");
    assert!(said.contains(&format!("nginx of {GROUP} was restarted on {server}")), "{said}");
    assert!(!programs().is_empty() && programs().is_disjoint(&old), "every program of it is a new one");
    let after = trial.host(&server).processes().expect("its processes");
    assert_eq!(writers(&after), writers(&page), "the other program was left alone");
    assert_eq!(trial.status().transitions.len(), status.transitions.len(), "the group stayed online");
    let refused = run(&trial, &["restart", GROUP, "--resource", "nginz"]).expect_err("no such resource");
    assert!(refused.to_string().contains("has no resource nginz; it has"), "{refused}");
    run(&trial, &["stop", GROUP]).expect("stopped");
    let refused = run(&trial, &["restart", GROUP]).expect_err("nothing to restart");
    assert!(refused.to_string().contains("is held: Stopped"), "{refused}");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn recovery_when_one_server_was_down_makes_it_the_standby_and_moves_nothing() {
    let trial = Trial::two_with("c20", &manual);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    let epoch = trial.epoch();
    trial.cluster.power_on(&victim).expect("power");
    reports(&trial, &victim, "that it waits to be reinstated", |status| {
        is_detached(status, "UncleanReturn") && ready_message(status).contains("has to be reinstated")
    });
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    run(&trial, &["reinstate", &object(&trial, &victim)]).expect("reinstated");
    trial.all_return(epoch);
    trial.pass(std::time::Duration::from_secs(1));
    assert_eq!(trial.active(), survivor, "it is the standby now");
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn recovery_when_both_were_down_needs_a_base_and_groups_wait_to_be_started() {
    let trial = Trial::two_with("c21", &manual);
    let (older, first) = (trial.active(), trial.epoch());
    let standby = trial.others(&older);
    let before = boottime_ns();
    trial.cluster.power_cut(&older).expect("a power cut");
    let newer = trial.served_by(&standby, before);
    trial.cluster.wait_online(GROUP, Some(&newer), LIMIT).expect("the status follows");
    trial.members_become(std::slice::from_ref(&newer), first);
    let newest = trial.epoch();
    trial.cluster.power_cut(&newer).expect("the other one, too");

    // The one with the older state, alone: it starts nothing and says who was last.
    trial.cluster.power_on(&older).expect("power");
    asks_for_an_operator(&trial);
    let status =
        reports(&trial, &older, "who was last", |status| ready_message(status).contains("an operator has to decide"));
    assert!(ready_message(&status).contains(&format!("view {newest} had, without this server, {newer}")), "{status:?}");
    assert!(trial.traces(&older).is_empty());

    let name = object(&trial, &older);
    let refused = run(&trial, &["force-reinstate", &name]).expect_err("without confirmation");
    assert!(refused.to_string().contains(&format!("--confirm {name}")), "{refused}");
    let force = ["force-reinstate", &name, "--confirm", &name, "--reason", "the newer one burnt down"];
    run(&trial, &force).expect("it is the base");
    wait_for("the group to be held", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?} {:?}", status.phase, status.holds);
        Ok(status.holds.iter().any(|hold| hold.type_ == "AfterForceReinstate").then_some(()))
    })
    .expect("it is held");
    assert!(trial.traces(&older).is_empty(), "nothing starts by itself");
    run(&trial, &["start", GROUP]).expect("started");
    assert_eq!(trial.active(), older);

    // The other one comes back: it learns of it, stays out, and is taken back as the standby.
    trial.cluster.power_on(&newer).expect("power");
    reports(&trial, &newer, "that it was left out", |status| is_detached(status, "Detached"));
    let epoch = trial.epoch();
    run(&trial, &["reinstate", &object(&trial, &newer)]).expect("reinstated");
    trial.all_return(epoch);
    assert_eq!(trial.active(), older);
    assert_eq!(trial.history(), [older.clone(), newer, older]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_base_that_is_lost_for_good_is_followed_by_another_one_once_its_end_is_confirmed() {
    let trial = Trial::two_with("c21-base", &manual);
    let [first, second] = &trial.cluster.blueprint().servers[..] else { panic!("two servers") };
    let awaits = |server: &String| {
        reports(&trial, server, "that an operator has to decide", |status| {
            ready_message(status).contains("an operator has to decide")
        });
        asks_for_an_operator(&trial);
    };
    let force = |server: &str| {
        let name = object(&trial, server);
        run(&trial, &["force-reinstate", &name, "--confirm", &name, "--reason", "the other one burnt down"])
    };
    for server in [first, second] {
        trial.cluster.power_cut(server).expect("a power cut");
    }
    trial.cluster.power_on(first).expect("power");
    awaits(first);
    force(first).expect("it is the base");
    run(&trial, &["start", GROUP]).expect("started");
    trial.cluster.power_on(second).expect("power");
    reports(&trial, second, "that it was left out", |status| is_detached(status, "Detached"));

    trial.cluster.power_cut(first).expect("the base burns down");
    awaits(second);
    let refused = force(second).expect_err("the base may live").to_string();
    let told = format!("{first} was made the base before (lineage 2); start it");
    assert!(refused.contains(&told) && refused.contains(&format!("holdfast confirm-stopped {first}")), "{refused}");
    assert!(trial.traces(second).is_empty());
    let name = object(&trial, first);
    std::thread::scope(|scope| {
        let trial_ = &trial;
        let confirm = ["confirm-stopped", &name, "--confirm", &name, "--reason", "only ashes are left"];
        let confirmed = scope.spawn(move || run(trial_, &confirm));
        wait_for("the word to be handed on", LIMIT, |last| {
            let requests = trial.cluster.sub_cluster()?.status.unwrap_or_default().requests;
            *last = format!("{requests:?}");
            Ok(requests.iter().any(|request| request.server == *first).then_some(()))
        })
        .expect("the agents hear of it");
        force(second).expect("it is the base now");
        confirmed.join().expect("no panic").expect("the word counted");
    });
    assert!(trial.traces(second).is_empty(), "nothing starts by itself");
    run(&trial, &["start", GROUP]).expect("started");
    assert_eq!(trial.active(), *second);
    // It was only lost, after all: it stays out.
    trial.cluster.power_on(first).expect("power");
    reports(&trial, first, "that it was left out", |status| {
        is_detached(status, "Detached") && status.lineage == Some(3)
    });
    assert!(trial.traces(first).is_empty());
    assert_eq!(trial.active(), *second);
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}
