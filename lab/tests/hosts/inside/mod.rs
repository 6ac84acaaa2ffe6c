//! C1, C17: the control plane is a group of the master sub-cluster. It is switched off and on with everything else, taken
//! over like any other group, and what needs it only to be told about never notices.

mod trial;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use holdfast_api::v1::{FailoverGroup, MonitorState, OperationPhase, Transition, TransitionType};
use holdfast_lab::{LabError, POWERED_OFF, boottime_ns, wait_for};
use serde_json::Value as Json;

use crate::harness::LIMIT;
use trial::{GROUPS, GitOps, Trial, generations};

/// How long the Operation may take. Everything is off for longer.
const TIMEOUT: Duration = Duration::from_secs(20);
const SHUT_DOWN: [&str; 11] = [
    "shutdown",
    "--supercluster",
    "demo",
    "-n",
    "ha",
    "--confirm",
    "demo",
    "--reason",
    "new power supplies",
    "--timeout",
    "20",
];

fn mark(trial: &Trial, server: &str) -> PathBuf {
    trial.host(server).state_dir().join(POWERED_OFF)
}

/// Waits until a server has switched itself off, once, with nothing left on it; says when that was.
fn goes_off(trial: &Trial, server: &str) -> SystemTime {
    let off = mark(trial, server);
    wait_for(&format!("{server} to switch itself off"), LIMIT, |_| Ok(off.exists().then_some(()))).expect("it does");
    trial.comes_clean(server);
    let written = std::fs::metadata(&off).and_then(|file| file.modified());
    written.expect("the time of the file")
}

/// Whether the control plane still worked at that time, by what its writer left on the servers.
fn control_plane_worked_at(trial: &Trial, time: SystemTime) -> bool {
    let files = trial.servers().into_iter().map(|server| trial.acknowledged(&server, "control-plane"));
    let newest = files.filter_map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok()).max();
    newest.is_some_and(|newest| newest >= time)
}

/// The Operation of the shutdown has ended as it should, whoever was there to see it.
fn succeeds(trial: &Trial) {
    wait_for("the Operation to end", LIMIT, |last| {
        let text = match trial.bundle.holdfast(&["get", "hop", "-n", "ha", "-o", "json"]) {
            Ok(text) => text,
            Err(error) => {
                *last = error.to_string();
                return Ok(None);
            }
        };
        let list: Json = serde_json::from_str(&text).map_err(|error| LabError::Api(error.to_string()))?;
        let mut all = list["items"].as_array().into_iter().flatten();
        let carried_out = all.find(|operation| operation["spec"]["mode"] == "Execute");
        *last = format!("{carried_out:?}");
        let phase = carried_out.map(|operation| &operation["status"]["phase"]);
        Ok(phase.is_some_and(|phase| phase == OperationPhase::Succeeded.as_str()).then_some(()))
    })
    .expect("it has succeeded");
}

/// The last thing that happened to a group.
fn newest_of(trial: &Trial, group: &str) -> Transition {
    trial.bundle.group(group).expect("its object").status.expect("its status").transitions.remove(0)
}

#[test]
fn shutdown_and_power_on_of_a_super_cluster_with_its_control_plane_inside() {
    let trial = Trial::start("inside");
    let (master, shop) = (trial.bundle.servers("master").expect("two"), trial.bundle.servers("shop").expect("two"));
    let declared = generations(&trial.bundle);
    let gitops = GitOps::begin(&trial.bundle);
    trial.all_members("master");
    trial.all_members("shop");
    gitops.goes_on(1);

    let unconfirmed = trial.bundle.holdfast(&SHUT_DOWN[..5]).expect_err("unconfirmed").to_string();
    assert!(unconfirmed.contains("--confirm demo"), "{unconfirmed}");
    let plan = trial.bundle.holdfast(&[&SHUT_DOWN[..], &["--plan"]].concat()).expect("a plan");
    let steps: Vec<&str> = plan.lines().filter(|line| line.starts_with("shut ")).collect();
    assert_eq!(steps, ["shut the other sub-clusters down", "shut master down"], "{plan}");
    let begun = Instant::now();
    let lost = trial.bundle.holdfast(&SHUT_DOWN).expect_err("the API server goes with the rest").to_string();
    assert!(lost.contains("after the next start holdfast get hop/shutdown-demo-"), "{lost}");

    let shop_off = shop.iter().map(|server| goes_off(&trial, server)).max().expect("two servers");
    let master_off = master.iter().map(|server| goes_off(&trial, server)).min().expect("two servers");
    assert!(shop_off < master_off && control_plane_worked_at(&trial, shop_off), "the master goes last");
    for server in trial.servers() {
        trial.bundle.power_cut(&server).expect("off");
        let times = std::fs::read_to_string(mark(&trial, &server)).expect("the file");
        assert_eq!(times.lines().count(), 1, "{server} was switched off once");
        std::fs::remove_file(mark(&trial, &server)).expect("for the next time");
    }
    let file_systems = trial.bundle.sub_clusters().iter().flat_map(|sub| &sub.disks);
    for disk in file_systems.filter(|disk| disk.file_system.is_some()) {
        trial.bundle.lab().check_ext4(&disk.name).expect("it was unmounted cleanly");
    }

    let late = "the time of the Operation to be over";
    wait_for(late, TIMEOUT * 2, |_| Ok((begun.elapsed() > TIMEOUT).then_some(()))).expect("time passes");
    let before = boottime_ns();
    for server in trial.servers().iter().rev() {
        trial.bundle.power_on(server).expect("power");
    }
    for client in [&trial.web, &trial.wiki] {
        client.wait_for_answer_after(before, None, LIMIT).expect("it is served again");
    }
    trial.api_answers();
    trial.all_online();
    trial.all_members("master");
    trial.all_members("shop");
    succeeds(&trial);
    gitops.goes_on(3);
    gitops.end();
    assert_eq!(generations(&trial.bundle), declared, "nothing was changed");
    for (group, _) in GROUPS {
        let (starts, newest) = (trial.starts_since(group, before), newest_of(&trial, group));
        assert_eq!(starts.len(), 1, "{group} was started once: {starts:?}");
        assert_eq!(newest.type_, TransitionType::Start, "{group}: {newest:?}");
    }
    assert!(trial.servers().iter().all(|server| !mark(&trial, server).exists()), "nobody shuts down again");
    trial.bundle.close().expect("the lab goes");
}

#[test]
fn failover_and_move_of_the_control_plane_inside_leave_the_other_sub_cluster_alone() {
    let trial = Trial::start("inside-lost");
    let victim = trial.active("control-plane");
    let other = trial.bundle.servers("master").expect("two").into_iter().find(|server| *server != victim);
    let other = other.expect("a second one");
    let gitops = GitOps::begin(&trial.bundle);

    // What was acknowledged just before is there afterwards.
    let note = trial.bundle.lab().directory().join("note.yaml");
    let text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: note, namespace: ha}, data: {said: just before}}";
    std::fs::write(&note, text).expect("a file");
    trial.bundle.apply(&note).expect("acknowledged");
    let lost = boottime_ns();
    trial.bundle.power_cut(&victim).expect("a power cut");
    trial.api_answers();
    trial.bundle.wait_online("control-plane", Some(&other), LIMIT).expect("it was taken over");
    let kept = trial.bundle.holdfast(&["get", "configmap/note", "-n", "ha", "-o", "yaml"]).expect("it is there");
    assert!(kept.contains("just before"), "{kept}");
    trial.web_undisturbed_since(lost);
    gitops.end();

    // The servers of the other sub-cluster hear the API server where it is now.
    let group = trial.bundle.group("web").expect("its object");
    let generation = group.metadata.generation.expect("a generation");
    let patch = "{apiVersion: holdfast.dev/v1, kind: FailoverGroup, metadata: {name: web, namespace: ha}, \
                 spec: {subCluster: shop, placement: {servers: [alder, birch], priority: 7}, resources: RESOURCES}}";
    let resources = serde_json::to_string(&group.spec.resources).expect("JSON");
    std::fs::write(&note, patch.replace("RESOURCES", &resources)).expect("a file");
    trial.bundle.apply(&note).expect("changed");
    let taken = |found: &FailoverGroup| {
        found.status.as_ref().is_some_and(|status| status.observed_generation == Some(generation + 1))
    };
    trial.bundle.wait_group("web", "act by the change", LIMIT, taken).expect("they take it");

    // Its server comes back as the standby, and then it is moved there, by itself.
    trial.bundle.power_on(&victim).expect("power");
    trial.all_members("master");
    assert_eq!(trial.active("control-plane"), other, "it does not go back by itself");
    let moved = boottime_ns();
    trial.bundle.holdfast(&["move", "control-plane", "--to", &victim, "-n", "ha"]).expect("it is moved");
    trial.api_answers();
    trial.bundle.wait_online("control-plane", Some(&victim), LIMIT).expect("it runs there");
    trial.web_undisturbed_since(moved);

    // Its own check asks as a client does, whichever server runs it.
    let passes = |found: &FailoverGroup| {
        let monitors = found.status.as_ref().map(|status| status.monitors.as_slice()).unwrap_or_default();
        monitors.iter().any(|monitor| monitor.name == "answers" && monitor.state == MonitorState::Passing)
    };
    trial.bundle.wait_group("control-plane", "pass its check", LIMIT, passes).expect("it answers");

    let hosts = |group: &str| trial.starts_since(group, 0).into_iter().map(|(host, _)| host).collect::<Vec<String>>();
    assert_eq!(hosts("control-plane"), [victim.clone(), other, victim]);
    assert_eq!(hosts("web").len(), 1, "it was never stopped");
    assert_eq!(hosts("wiki").len(), 1, "it was never stopped");
    trial.bundle.close().expect("the lab goes");
}

#[test]
fn start_after_all_lost_power_brings_the_control_plane_inside_back_with_the_rest() {
    let trial = Trial::start("inside-dark");
    let declared = generations(&trial.bundle);
    for server in trial.servers() {
        trial.bundle.power_cut(&server).expect("a power cut");
    }
    let back = boottime_ns();
    for server in trial.servers() {
        trial.bundle.power_on(&server).expect("power");
    }
    trial.api_answers();
    trial.web.wait_for_answer_after(back, None, LIMIT).expect("the client of web is served again");
    trial.all_members("master");
    trial.all_members("shop");
    trial.all_online();
    assert_eq!(generations(&trial.bundle), declared);
    for (group, _) in GROUPS {
        // Whoever is cut off last may have taken something over, for a moment.
        let starts = trial.starts_since(group, back);
        assert_eq!(starts.len(), 1, "{group} was started once: {starts:?}");
    }
    trial.bundle.close().expect("the lab goes");
}
