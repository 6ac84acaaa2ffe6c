//! Power fencing on real hosts. They have no management board, so the lab is their power switch: a fence agent after the
//! standard contract puts a request into its host's directory, and a thread outside of all hosts pulls the plug.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_api::v1::{EvidenceKind, GroupPhase};
use holdfast_lab::{ClusterOptions, STATE_DIR, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// File in a host's directory that makes a stop of the group fail there.
const STOP_FAILS: &str = "stop-fails";

/// The agent: plugs are servers, requests and answers are files that the lab sees.
const AGENT: &str = r#"#!/bin/sh
d=/var/lib/holdfast
while read -r line; do case "$line" in action=*) action=${line#action=}; ;; plug=*) plug=${line#plug=}; ;; esac; done
case "$action" in
metadata) cat <<'XML'
<?xml version="1.0" ?><resource-agent name="fence_lab" shortdesc="Power of a lab host"><parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="plug" required="1"><content type="string"/></parameter></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/></actions>
</resource-agent>
XML
exit 0;;
esac
[ -e $d/unreachable ] && { echo "Failed: Unable to connect to the power switch" >&2; exit 1; }
case "$action" in
monitor) exit 0;;
status) [ -e "$d/off.$plug" ] && exit 2; exit 0;;
off) echo now >"$d/request.$plug"; while [ ! -e "$d/off.$plug" ]; do sleep 0.01; done; exit 0;;
on) echo now >"$d/on.$plug"; while [ -e "$d/off.$plug" ]; do sleep 0.01; done; exit 0;;
esac
exit 1
"#;

/// Every server can be switched by the lab.
fn fenced(sub_cluster: &mut Value, mode: &str) {
    let spec = &mut sub_cluster["spec"];
    let names: Vec<String> = spec["servers"]
        .as_sequence()
        .expect("servers")
        .iter()
        .map(|server| server["name"].as_str().expect("a name").to_owned())
        .collect();
    let hosts: Vec<String> = names.iter().map(|name| format!("{{server: {name}, plug: {name}}}")).collect();
    let levels: Vec<String> =
        names.iter().map(|name| format!("{{server: {name}, level: 1, devices: [lab]}}")).collect();
    let text = format!(
        "{{mode: {mode}, devices: [{{name: lab, agent: {STATE_DIR}/fence_lab, timeout: 5s, retries: 0, hosts: [{}]}}], \
         levels: [{}]}}",
        hosts.join(", "),
        levels.join(", ")
    );
    spec["fencing"] = serde_yaml::from_str(&text).expect("YAML");
    // So long that elapsed time is never what a takeover rests on.
    spec["heartbeat"]["advanced"]["takeoverWait"] = "20s".into();
}

/// Puts the agent on every host.
fn install(trial: &Trial) {
    for name in &trial.cluster.blueprint().servers {
        let path = trial.host(name).state_dir().join("fence_lab");
        fs::write(&path, AGENT).expect("the agent");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
}

/// Pulls plugs on request while `work` is done; gives (server, when it was off), in ns.
fn with_switch<T>(trial: &Trial, work: impl FnOnce() -> T) -> (T, Vec<(String, u64)>) {
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let switch = scope.spawn(|| {
            let mut pulled = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for by in &trial.cluster.blueprint().servers {
                    for plug in &trial.cluster.blueprint().servers {
                        let directory = trial.host(by).state_dir();
                        if fs::remove_file(directory.join(format!("on.{plug}"))).is_ok() {
                            trial.cluster.power_on(plug).expect("power");
                            fs::remove_file(directory.join(format!("off.{plug}"))).expect("it was off");
                        }
                        if fs::remove_file(directory.join(format!("request.{plug}"))).is_err() {
                            continue;
                        }
                        if trial.host(plug).is_on() {
                            trial.cluster.power_cut(plug).expect("a power cut");
                        }
                        pulled.push((plug.clone(), boottime_ns()));
                        fs::write(directory.join(format!("off.{plug}")), "").expect("an answer");
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            pulled
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        (done, switch.join().expect("the switch"))
    })
}

#[test]
fn a_server_without_power_is_taken_over_as_soon_as_its_switch_says_so() {
    let trial = Trial::two_with("fence-power", &|document| fenced(document, "Required"));
    install(&trial);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let before = boottime_ns();
    let (survivor, pulled) = with_switch(&trial, || {
        trial.cluster.power_cut(&victim).expect("a power cut");
        trial.served_by(&standby, before)
    });
    assert_eq!(pulled.iter().map(|(server, _)| server).collect::<Vec<_>>(), [&victim]);
    let outage = trial.outage_since(before);
    assert!(outage < Duration::from_secs(10), "the wait of 20 s was not needed: {outage:?}");
    let online = trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    let status = online.status.expect("a status");
    assert_eq!(status.transitions[0].evidence, Some(EvidenceKind::Power), "{:?}", status.transitions[0]);
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_frozen_machine_is_off_before_its_group_starts_elsewhere() {
    let trial = Trial::two_with("fence-frozen", &|document| fenced(document, "Required"));
    install(&trial);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let before = boottime_ns();
    let ((), pulled) = with_switch(&trial, || {
        // Guard and all: nothing on it stops anything, and it could go on at any moment.
        trial.host(&victim).freeze().expect("a freeze");
        trial.served_by(&standby, before);
    });
    assert_eq!(pulled.iter().map(|(server, _)| server).collect::<Vec<_>>(), [&victim]);
    assert!(!trial.host(&victim).is_on());
    trial.cluster.wait_online(GROUP, Some(&standby[0]), LIMIT).expect("the status follows");
    let tenures = trial.tenures();
    let first = tenures.iter().find(|tenure| tenure.host == standby[0]).expect("it wrote");
    assert!(pulled[0].1 <= first.span_ns.0, "off at {}, taken over at {}", pulled[0].1, first.span_ns.0);
    assert_eq!(trial.history(), [victim, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn the_loser_of_a_partition_is_switched_off_and_no_write_is_lost() {
    let trial = Trial::two_with("fence-partition", &|document| fenced(document, "BestEffort"));
    install(&trial);
    let active = trial.active();
    let before = boottime_ns();
    let (survivor, pulled) = with_switch(&trial, || {
        trial.cluster.lab().cut_all_lans(&active).expect("cables out");
        wait_for("one of them to be off", LIMIT, |_| {
            Ok(trial.cluster.blueprint().servers.iter().any(|name| !trial.host(name).is_on()).then_some(()))
        })
        .expect("the loser is switched off");
        let on = |name: &&String| trial.host(name).is_on();
        let survivor = trial.cluster.blueprint().servers.iter().find(on).expect("one is left").clone();
        if survivor == active {
            trial.cluster.lab().restore_all_lans(&active).expect("cables in");
        }
        trial.served_by(std::slice::from_ref(&survivor), before)
    });
    let off: Vec<String> = pulled.into_iter().map(|(server, _)| server).collect();
    assert_eq!(off, trial.others(&survivor), "exactly the loser");
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    assert_eq!(trial.history().last(), Some(&survivor));
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn without_its_switch_a_group_that_requires_it_waits_and_says_why() {
    let trial = Trial::two_with("fence-silent", &|document| fenced(document, "Required"));
    install(&trial);
    for name in &trial.cluster.blueprint().servers {
        fs::write(trial.host(name).state_dir().join("unreachable"), "").expect("a file");
    }
    let victim = trial.active();
    let standby = trial.others(&victim);
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    // Longer than the wait that would be enough without `Required`.
    trial.pass(Duration::from_secs(25));
    assert_eq!(trial.traces(&standby[0]), Vec::<String>::new());
    wait_for("the sub-cluster to say why", LIMIT, |last| {
        let found = trial.cluster.sub_cluster()?;
        let conditions = found.status.map(|status| status.conditions).unwrap_or_default();
        *last = format!("{conditions:?}");
        let stalled = conditions.iter().find(|c| c.type_ == "Stalled" && c.reason == "FenceFailed");
        Ok(stalled.filter(|c| c.message.contains("Unable to connect to the power switch")).map(|_| ()))
    })
    .expect("condition Stalled");
    let list = trial.cluster.holdfast(&["fence", "list", "shop", "-n", "ha"]).expect("a list");
    let line = list.lines().find(|line| line.starts_with(&victim)).expect("a line about it");
    let seen = format!("{}   FAILED: ", standby[0]);
    assert!(line.contains("fence_lab") && line.contains(&seen), "who looks at it and what that sees:\n{list}");
    // It is repaired, and tried again by itself.
    let ((), pulled) = with_switch(&trial, || {
        for name in &trial.cluster.blueprint().servers {
            let _ = fs::remove_file(trial.host(name).state_dir().join("unreachable"));
        }
        trial.served_by(&standby, before);
    });
    assert_eq!(pulled.len(), 1);
    trial.cluster.wait_online(GROUP, Some(&standby[0]), LIMIT).expect("the status follows");
    assert_eq!(trial.history(), [victim, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_server_where_a_stop_fails_is_off_before_the_group_starts_elsewhere() {
    let name = "fence-stop-fails";
    let trial = Trial::start_with(name, "two-servers", ClusterOptions::default(), |documents| {
        for (_, document) in documents {
            match document["kind"].as_str() {
                Some("SubCluster") => fenced(document, "Required"),
                Some("FailoverGroup") => {
                    document["spec"]["resources"].as_sequence_mut().expect("resources").push(latch())
                }
                _ => {}
            }
        }
    });
    install(&trial);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let marker = trial.host(&victim).state_dir().join(STOP_FAILS);
    fs::write(&marker, "").expect("a file");
    let before = boottime_ns();
    let ((), pulled) = with_switch(&trial, || {
        // What is below goes on running: the writer, too.
        let move_ = trial.cluster.holdfast(&["move", GROUP, "--to", &standby[0], "-n", "ha", "--timeout", "20"]);
        println!("the move: {move_:?}");
        trial.served_by(&standby, before);
    });
    assert_eq!(pulled.iter().map(|(server, _)| server).collect::<Vec<_>>(), [&victim], "exactly that server");
    let online = trial.cluster.wait_online(GROUP, Some(&standby[0]), LIMIT).expect("the status follows");
    let transition = online.status.expect("a status").transitions.remove(0);
    assert_eq!(transition.evidence, Some(EvidenceKind::Power), "{transition:?}");
    let tenures = trial.tenures();
    let first = tenures.iter().find(|tenure| tenure.host == standby[0]).expect("it wrote");
    assert!(pulled[0].1 <= first.span_ns.0, "off at {}, taken over at {}", pulled[0].1, first.span_ns.0);

    // Repaired, it is a standby again.
    fs::remove_file(&marker).expect("repaired");
    fs::remove_file(trial.host(&standby[0]).state_dir().join(format!("off.{victim}"))).expect("its switch says on");
    let epoch = trial.epoch();
    trial.cluster.power_on(&victim).expect("power");
    trial.all_return(epoch);
    assert_eq!(trial.history(), [victim, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn an_operator_switches_a_server_that_works_off_and_on_again() {
    let trial = Trial::start_with("fence-ordered", "two-servers", ClusterOptions::default(), |documents| {
        documents.iter_mut().filter(|(_, d)| d["kind"] == "SubCluster").for_each(|(_, d)| fenced(d, "BestEffort"));
    });
    install(&trial);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let operation = |action: &str, more: &[&str]| {
        trial.cluster.holdfast(&[&["fence", action, &victim, "-n", "ha", "--timeout", "60"], more].concat())
    };
    let unsure = operation("power-off", &["--reason", "it smokes"]).expect_err("not confirmed").to_string();
    assert!(unsure.contains(&format!("--confirm {victim}")), "{unsure}");
    let sure = ["--reason", "it smokes", "--confirm", &victim];
    let plan = operation("power-off", &[&sure[..], &["--plan"]].concat()).expect("a plan");
    assert!(plan.contains(&format!("fences {victim}")) && plan.contains(&format!("interrupts {GROUP}")), "{plan}");
    assert_eq!(trial.history(), std::slice::from_ref(&victim), "nothing was done");

    let before = boottime_ns();
    let (said, pulled) = with_switch(&trial, || {
        let said = operation("power-off", &sure).expect("it is switched off");
        trial.served_by(&standby, before);
        trial.cluster.wait_online(GROUP, Some(&standby[0]), LIMIT).expect("the status follows");
        said
    });
    assert!(said.contains(&format!("{victim} is verified off")), "{said}");
    assert_eq!(pulled.iter().map(|(server, _)| server).collect::<Vec<_>>(), [&victim], "that server, once");
    assert!(!trial.host(&victim).is_on());

    let epoch = trial.epoch();
    let (said, pulled) = with_switch(&trial, || operation("power-on", &sure).expect("it is switched on"));
    assert!(said.contains(&format!("{victim} has power")) && pulled.is_empty(), "{said}");
    trial.all_return(epoch);
    assert_eq!(trial.history(), [victim.clone(), standby[0].clone()], "the group stays where it is");

    // A standby, off and on; nothing moves.
    let (before, epoch) = (boottime_ns(), trial.epoch());
    let (said, pulled) = with_switch(&trial, || operation("reboot", &sure).expect("it is off and on"));
    assert!(said.contains(&victim) && pulled.len() == 1, "{said} {pulled:?}");
    trial.all_return(epoch);
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [victim.clone(), standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

/// A resource above the writer whose stop fails where the file is.
fn latch() -> Value {
    let text = format!(
        "{{name: latch, script: {{start: {{inline: 'exit 0'}}, stop: {{inline: 'test ! -e {STATE_DIR}/{STOP_FAILS}'}}}}, \
         dependsOn: [nginx, writer]}}"
    );
    serde_yaml::from_str(&text).expect("YAML")
}

#[test]
fn what_no_switch_and_no_time_can_prove_waits_for_the_word_of_an_operator() {
    let trial = Trial::two_with("fence-confirm", &|document| {
        fenced(document, "Required");
        // Time is no evidence here however long it is, so nothing has to be longer than usual.
        document["spec"]["heartbeat"]["advanced"].as_mapping_mut().expect("times").remove("takeoverWait");
    });
    install(&trial);
    for name in &trial.cluster.blueprint().servers {
        fs::write(trial.host(name).state_dir().join("unreachable"), "").expect("a file");
    }
    let victim = trial.active();
    let standby = trial.others(&victim);
    let object = format!("shop.{victim}");
    let confirm = |given: &str| {
        let args =
            ["confirm-stopped", &object, "--confirm", given, "--reason", "its plug is out, I have it in my hand"];
        trial.cluster.holdfast(&[&args[..], &["-n", "ha", "--timeout", "20"]].concat())
    };
    let early = confirm(&object).expect_err("it lives").to_string();
    assert!(early.contains(&format!("nothing waits for evidence about {victim}")), "{early}");

    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let told = trial.cluster.wait_group(GROUP, "wait for evidence", LIMIT, |group| {
        let status = group.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        status.phase == Some(GroupPhase::Unknown) && ready.is_some_and(|ready| ready.message.contains(&victim))
    });
    told.expect("it says whose end is not proven");
    trial.pass(trial.cluster.blueprint().timeout * 5);
    assert_eq!(trial.traces(&standby[0]), Vec::<String>::new());
    let wrong = confirm(&format!("shop.{}", standby[0])).expect_err("another name").to_string();
    assert!(wrong.contains(&format!("--confirm {object}")), "{wrong}");
    assert_eq!(trial.traces(&standby[0]), Vec::<String>::new(), "not before the word");

    let said = boottime_ns();
    confirm(&object).expect("it is taken");
    trial.served_by(&standby, said);
    let online = trial.cluster.wait_online(GROUP, Some(&standby[0]), LIMIT).expect("the status follows");
    let transition = online.status.expect("a status").transitions.remove(0);
    assert_eq!(transition.evidence, Some(EvidenceKind::Operator), "{transition:?}");
    assert!(trial.outage_since(before) > trial.cluster.blueprint().timeout * 5);
    assert_eq!(trial.history(), [victim, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}
