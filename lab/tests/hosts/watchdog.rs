//! Watchdogs that reset a server from outside, so that agent and guard may die or hang together.

use std::time::Duration;

use holdfast_api::v1::EvidenceKind;
use holdfast_lab::{AGENT, ClusterOptions, Process, boottime_ns, wait_for};
use nix::sys::signal::Signal;
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

const W: Duration = Duration::from_secs(1);

/// Servers that are refused without their watchdogs.
fn watched(name: &str) -> Trial {
    let options = ClusterOptions { watchdogs: true, ..ClusterOptions::default() };
    Trial::two_special(name, options, &|document: &mut Value| {
        document["spec"]["watchdog"] = serde_yaml::from_str("{mode: Required, timeout: 1s}").expect("YAML");
    })
}

/// Agent and guard of a server.
fn keepers(trial: &Trial, server: &str) -> Vec<Process> {
    let host = trial.host(server);
    let (agents, guards) = (host.holdfast_processes("agent").expect("agents"), host.holdfast_processes("guard"));
    let all = [agents, guards.expect("guards")].concat();
    assert_eq!(all.len(), 2, "one of each: {all:?}");
    all
}

/// Agent and guard of the active server get a signal at once, and nobody starts them again.
fn both_at_once(trial: &Trial, signal: Signal) {
    let victim = trial.active();
    let standby = trial.others(&victim);
    let guard = trial.cluster.servers().expect("servers")[&victim].status.clone().and_then(|status| status.guard);
    let guard = guard.expect("the guard is reported");
    assert_eq!((guard.watchdog.as_str(), guard.watchdog_timeout.map(|w| w.get())), ("Holdfast lab", Some(W)));
    assert!(trial.cluster.lab().resets().is_empty(), "it is petted");
    let host = trial.host(&victim);
    host.leave_service(AGENT).expect("its supervisor looks away");
    let before = boottime_ns();
    host.signal(&keepers(trial, &victim), signal).expect("the signal");
    assert!(!trial.traces(&victim).is_empty(), "nothing inside stops the group");
    let survivor = trial.served_by(&standby, before);

    let resets = trial.cluster.lab().resets();
    assert_eq!(resets.iter().map(|(host, _)| host).collect::<Vec<_>>(), [&victim]);
    assert!(!host.is_on());
    let late = Duration::from_nanos(resets[0].1.end_ns - before);
    assert!(late < 2 * W, "reset {late:?} after the last pet at the latest");
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    let transition = trial.status().transitions.first().cloned().expect("the takeover is recorded");
    assert_eq!(transition.evidence, Some(EvidenceKind::Time), "{transition:?}");
    let tenures = trial.tenures();
    let first = tenures.iter().find(|tenure| tenure.host == survivor).expect("it wrote");
    assert!(resets[0].1.end_ns < first.span_ns.0, "reset at {}, taken over at {}", resets[0].1.end_ns, first.span_ns.0);

    let epoch = trial.epoch();
    trial.cluster.power_on(&victim).expect("it boots");
    trial.all_return(epoch);
    assert_eq!(trial.history(), [victim, survivor]);
}

#[test]
fn agent_and_guard_killed_together_are_survived_by_a_reset_from_outside() {
    let trial = watched("dog-killed");
    both_at_once(&trial, Signal::SIGKILL);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn agent_and_guard_stopped_together_are_survived_by_a_reset_from_outside() {
    let trial = watched("dog-stopped");
    both_at_once(&trial, Signal::SIGSTOP);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_guard_that_is_killed_alone_or_an_agent_that_leaves_in_order_resets_nothing() {
    let trial = watched("dog-alone");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, host) = (trial.epoch(), trial.host(&active));
    let guards = host.holdfast_processes("guard").expect("its guard");
    host.signal(&guards, Signal::SIGKILL).expect("killed");
    wait_for("a new guard", LIMIT, |last| {
        let now = host.holdfast_processes("guard")?;
        *last = format!("{now:?}");
        Ok((now.len() == 1 && now[0].pid != guards[0].pid).then_some(()))
    })
    .expect("the agent starts another");
    trial.pass(3 * W);
    assert!(trial.cluster.lab().resets().is_empty() && host.is_on());
    trial.served_by(std::slice::from_ref(&active), boottime_ns());
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active.clone()]));

    // The standby's agent leaves: its guard goes with it, and disarms.
    trial.host(&standby).stop_service(AGENT, LIMIT).expect("the agent leaves");
    trial.members_become(std::slice::from_ref(&active), epoch);
    trial.pass(3 * W);
    assert!(trial.cluster.lab().resets().is_empty() && trial.host(&standby).is_on());
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}
