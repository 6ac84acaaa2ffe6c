//! Programs die, hang, or are moved.

use std::time::Duration;

use holdfast_api::v1::EvidenceKind;
use holdfast_lab::{AGENT, Process, boottime_ns, wait_for};
use nix::sys::signal::Signal;

use crate::harness::{GROUP, LIMIT, Trial};

/// The web server's processes on a host.
fn nginx(trial: &Trial, server: &str) -> Vec<Process> {
    let all = trial.host(server).processes().expect("its processes");
    all.into_iter().filter(|process| process.args[0].contains("nginx")).collect()
}

#[test]
fn an_agent_that_dies_comes_back_without_stopping_its_groups() {
    let trial = Trial::two("agent-killed");
    let active = trial.active();
    let (web, agents) = (nginx(&trial, &active), trial.host(&active).holdfast_processes("agent").expect("its agent"));
    assert!(!agents.is_empty(), "an agent runs on {active}");
    let before = boottime_ns();
    trial.host(&active).signal(&agents, Signal::SIGKILL).expect("killed");
    wait_for("a new agent", LIMIT, |last| {
        let now = trial.host(&active).holdfast_processes("agent")?;
        *last = format!("{now:?}");
        Ok((!now.is_empty() && now.iter().all(|process| !agents.contains(process))).then_some(()))
    })
    .expect("the agent is started again");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    trial.all_active();
    assert_eq!(nginx(&trial, &active), web, "the same processes serve on");
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_frozen_agents_groups_are_stopped_by_its_guard_before_the_other_server_starts_them() {
    let trial = Trial::two("agent-frozen");
    let active = trial.active();
    let standby = trial.others(&active);
    let epoch = trial.epoch();
    // Without this the agent that the guard kills is started again so soon that the server stays a member, and
    // starts the group again itself.
    trial.host(&active).leave_service(AGENT).expect("its supervisor looks away");
    let before = boottime_ns();
    trial.host(&active).freeze_agent().expect("an agent to freeze");
    let survivor = trial.served_by(&standby, before);
    assert_eq!(trial.traces(&active), Vec::<String>::new(), "the guard has removed everything of the group");
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    assert_eq!(trial.history(), [active.clone(), survivor]);
    // The guard has killed the frozen agent.
    trial.host(&active).start_service(AGENT).expect("its supervisor looks again");
    trial.all_return(epoch + 1);
    assert_eq!(trial.active(), trial.tenures().last().expect("a tenure").host, "the group stays");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_frozen_agent_that_is_started_again_in_time_loses_the_group_for_a_moment_only() {
    let trial = Trial::two("agent-revived");
    let active = trial.active();
    let before = boottime_ns();
    let frozen = trial.host(&active).freeze_agent().expect("an agent to freeze");
    wait_for("a new agent", LIMIT, |last| {
        let now = trial.host(&active).holdfast_processes("agent")?;
        *last = format!("{now:?}");
        Ok((!now.is_empty() && now.iter().all(|process| !frozen.contains(process))).then_some(()))
    })
    .expect("the guard kills the frozen agent, its supervisor starts another");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    trial.served_by(&trial.cluster.blueprint().servers, boottime_ns());
    let outage = trial.outage_since(before);
    assert!(outage < trial.cluster.blueprint().timeout * 3, "the client saw {outage:?}");
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_planned_move_loses_little_and_nothing_is_written_twice() {
    let trial = Trial::two("move");
    let from = trial.active();
    let to = trial.others(&from).remove(0);
    let before = boottime_ns();
    let namespace = trial.cluster.blueprint().namespace.clone();
    trial.cluster.holdfast(&["move", GROUP, "--to", &to, "--namespace", &namespace]).expect("it is moved");
    trial.served_by(std::slice::from_ref(&to), before);
    let outage = trial.outage_since(before);
    assert!(outage < Duration::from_secs(1), "the client saw {outage:?}");
    trial.comes_clean(&from);
    let status = trial.cluster.wait_online(GROUP, Some(&to), LIMIT).expect("online there").status.expect("a status");
    assert_ne!(
        status.transitions.first().and_then(|t| t.evidence),
        Some(EvidenceKind::Time),
        "it was stopped in order"
    );
    assert_eq!(trial.history(), [from, to]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn an_agent_that_holds_nothing_and_was_stopped_for_a_while_comes_back_by_itself() {
    for (name, trial) in [("two", Trial::two("agent-asleep")), ("three", Trial::three("agents-asleep"))] {
        let active = trial.active();
        let sleeper = trial.others(&active).remove(0);
        let others: Vec<String> =
            trial.cluster.blueprint().servers.iter().filter(|server| **server != sleeper).cloned().collect();
        let before = boottime_ns();
        for pause in [1, 4] {
            let epoch = trial.epoch();
            let agents = trial.host(&sleeper).freeze_agent().expect("an agent to stop");
            trial.members_become(&others, epoch);
            trial.pass(trial.cluster.blueprint().timeout * pause);
            trial.host(&sleeper).signal(&agents, Signal::SIGCONT).expect("it goes on");
            trial.all_return(epoch + 1);
            let now = trial.host(&sleeper).holdfast_processes("agent").expect("its agent");
            assert_eq!(now, agents, "{name}: the same process");
        }
        trial.undisturbed_since(before);
        assert_eq!(trial.history(), [active], "{name}");
        trial.cluster.close().expect("the lab goes");
    }
}
