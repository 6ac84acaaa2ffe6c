//! A unit of a real systemd in a group: moved, taken over after a power cut, and from a frozen Holdfast.

use holdfast_lab::{AGENT, ClusterOptions, Companion, Process, ServiceSpec, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// Boots systemd and writes the unit; the host's own /run has both, as every boot makes it anew.
const BOOT: &str = include_str!("../systemd.sh");
const UNIT: &str = "app.service";

fn systemd() -> Companion {
    let unit = r"[Service]\nRestart=always\nExecStart=/bin/sleep 77777\n";
    let script = format!("mkdir -p /run/units; printf '{unit}' > /run/units/{UNIT}\n{BOOT}");
    let command = ["/bin/sh", "-c", &script, "systemd", "/sys/fs/cgroup/systemd"].map(str::to_owned).to_vec();
    let service = ServiceSpec { name: "systemd".into(), command, environment: Default::default() };
    Companion { service, ready: "/run/systemd/journal/stdout".into() }
}

fn with_unit(documents: &mut [(std::path::PathBuf, Value)]) {
    let more = format!("{{name: app, systemd: {{unit: {UNIT}}}, dependsOn: [data]}}");
    let more: Value = serde_yaml::from_str(&more).expect("YAML");
    let group = documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == "FailoverGroup");
    let resources = group.and_then(|group| group["spec"]["resources"].as_sequence_mut());
    resources.expect("the example's group").push(more);
}

fn trial(name: &str) -> Trial {
    let companions = [systemd()];
    let options = ClusterOptions { companions: &companions, ..ClusterOptions::default() };
    Trial::start_with(name, "two-servers", options, with_unit)
}

/// The unit's processes on a host, by the kernel's word.
fn app(trial: &Trial, server: &str) -> Vec<Process> {
    let host = trial.host(server);
    let all = if host.is_on() { host.processes().expect("its processes") } else { Vec::new() };
    all.into_iter().filter(|process| process.args == ["/bin/sleep", "77777"]).collect()
}

fn runs_only_on(trial: &Trial, server: &str) {
    for name in &trial.cluster.blueprint().servers {
        assert_eq!(app(trial, name).len(), usize::from(name == server), "on {name}");
    }
}

#[test]
fn a_unit_of_systemd_is_moved_and_taken_over_with_its_group() {
    let trial = trial("systemd");
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    runs_only_on(&trial, &first);
    trial.cluster.holdfast(&["move", GROUP, "--to", &second, "--namespace", "ha"]).expect("it is moved");
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("online there");
    runs_only_on(&trial, &second);

    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&second).expect("a power cut");
    trial.served_by(std::slice::from_ref(&first), before);
    trial.cluster.wait_online(GROUP, Some(&first), LIMIT).expect("the status follows");
    runs_only_on(&trial, &first);
    trial.cluster.power_on(&second).expect("power");
    trial.all_return(epoch + 1);
    runs_only_on(&trial, &first);

    // The agent is replaced: the same process serves on.
    let (before, agents) = (app(&trial, &first), trial.host(&first).holdfast_processes("agent").expect("its agent"));
    trial.host(&first).signal(&agents, nix::sys::signal::Signal::SIGKILL).expect("killed");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    trial.all_active();
    assert_eq!(app(&trial, &first), before);
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn the_guard_ends_a_unit_of_systemd_where_holdfast_itself_is_frozen() {
    let trial = trial("systemd-frozen");
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    runs_only_on(&trial, &first);
    trial.host(&first).leave_service(AGENT).expect("its supervisor looks away");
    let before = boottime_ns();
    trial.host(&first).freeze_agent().expect("an agent to freeze");
    // From the moment on in which it runs on the second one, it must not be on the first.
    wait_for("the unit to run on the other server", LIMIT, |last| {
        let there = app(&trial, &second);
        let here = app(&trial, &first);
        *last = format!("{there:?}");
        assert!(there.is_empty() || here.is_empty(), "on both: {here:?} and {there:?}");
        Ok((!there.is_empty()).then_some(()))
    })
    .expect("it is taken over");
    trial.served_by(std::slice::from_ref(&second), before);
    runs_only_on(&trial, &second);
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("the status follows");
    assert_eq!(trial.history(), [first, second]);
    trial.cluster.close().expect("the lab goes");
}
