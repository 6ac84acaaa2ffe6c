//! Changed manifests, first in thought and then for real.

use std::fs;
use std::path::PathBuf;

use holdfast_lab::{boottime_ns, wait_for};
use serde_json::{Value, json};

use crate::harness::{GROUP, LIMIT, Trial};

/// A file with the group as it is declared, changed.
fn manifest(trial: &Trial, file: &str, change: impl Fn(&mut Value)) -> PathBuf {
    let group = trial.cluster.group(GROUP).expect("the group");
    let mut object = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": GROUP, "namespace": "ha"},
        "spec": group.spec,
    });
    change(&mut object);
    let path = trial.cluster.lab().directory().join(file);
    fs::write(&path, object.to_string()).expect("a file");
    path
}

/// What tells one process of the service from the next.
fn process(trial: &Trial, server: &str) -> String {
    trial.host(server).exec(&["cat", "/run/web.pid"]).expect("it runs")
}

#[test]
fn what_a_plan_says_of_changed_manifests_is_what_applying_them_does_and_the_plan_stores_nothing() {
    let trial = Trial::two("planfile");
    let (here, there) = (trial.active(), trial.others(&trial.active())[0].clone());
    let holdfast = |args: &[&str]| trial.cluster.holdfast(args);
    let plan = |file: &PathBuf| -> Value {
        let text = holdfast(&["plan", "-f", &file.to_string_lossy(), "-n", "ha", "-o", "json"]).expect("a plan");
        serde_json::from_str(&text).expect("JSON")
    };
    let steps = |plan: &Value| -> Vec<String> {
        let step = |step: &Value| {
            let word = |field: &str| step[field].as_str().expect("a word").to_owned();
            format!("{} {} on {}", word("does"), word("group"), word("server"))
        };
        plan["subClusters"][0]["steps"].as_array().expect("steps").iter().map(step).collect()
    };
    let generation = || trial.cluster.group(GROUP).expect("the group").metadata.generation;
    let declared = generation();

    // A program that stops in another way: the group restarts where it is, because that is asked for.
    let other_program = manifest(&trial, "program.json", |group| {
        let resources = group["spec"]["resources"].as_array_mut().expect("resources");
        let page = resources.iter_mut().find(|resource| resource["name"] == "page").expect("the page");
        page["script"]["stop"] = json!({"inline": "true"});
        group["spec"]["change"] = json!({"onRestartNeeded": "Restart"});
    });
    let restart = plan(&other_program);
    assert_eq!(steps(&restart), [format!("Stop {GROUP} on {here}"), format!("Start {GROUP} on {here}")], "{restart}");
    let file = other_program.to_string_lossy();
    let drill =
        holdfast(&["drill", "--subcluster", "shop", "--apply", &file, "-n", "ha", "--reason", "as a rehearsal"]);
    let drill = drill.expect("a drill");
    assert!(drill.contains("program: survives") && drill.contains("1 groups are interrupted, 0 do not"), "{drill}");

    // One more group, and the mistake that the server's schema finds.
    let new = manifest(&trial, "new.json", |group| {
        group["metadata"]["name"] = json!("batch");
        group["spec"]["resources"] = json!([{"name": "app", "process": {"command": ["/usr/bin/sleep", "infinity"]}}]);
        group["spec"]["monitors"] = json!([]);
        group["spec"]["placement"] = json!({"servers": [there]});
    });
    assert_eq!(steps(&plan(&new)), [format!("Start batch on {there}")]);
    let wrong = manifest(&trial, "wrong.json", |group| group["spec"]["state"] = json!("Off"));
    let refused = holdfast(&["plan", "-f", &wrong.to_string_lossy(), "-n", "ha"]).expect_err("no such state");
    assert!(refused.to_string().contains("spec.state"), "{refused}");
    let unknown = manifest(&trial, "unknown.json", |group| group["spec"]["placement"] = json!({"servers": ["nobody"]}));
    let unaccepted = holdfast(&["plan", "-f", &unknown.to_string_lossy(), "-n", "ha"]).expect("a plan for people");
    for words in ["sub-cluster ha/shop\n", "no group is interrupted\n", "would not be accepted (UnknownServer)"] {
        assert!(unaccepted.contains(words), "{words:?} in {unaccepted}");
    }
    println!("{unaccepted}");

    assert_eq!(generation(), declared, "no plan was stored");
    assert!(trial.cluster.group("batch").is_err(), "nor was the new group");
    assert_eq!(trial.history(), std::slice::from_ref(&here), "nor was anything done");
    let before = process(&trial, &here);
    let apply = |file: &PathBuf| {
        let since = boottime_ns();
        holdfast(&["apply", "-f", &file.to_string_lossy(), "-n", "ha"]).expect("it is applied");
        since
    };

    apply(&other_program);
    wait_for("the service to be another process", LIMIT, |last| {
        *last = trial.host(&here).exec(&["cat", "/run/web.pid"]).unwrap_or_default();
        Ok((!last.is_empty() && *last != before).then_some(()))
    })
    .expect("the restart that was told");
    trial.cluster.wait_online(GROUP, Some(&here), LIMIT).expect("it is back");
    assert_eq!(trial.history(), std::slice::from_ref(&here), "and was nowhere else");
    apply(&new);
    trial.cluster.wait_online("batch", Some(&there), LIMIT).expect("it is where the plan said");

    let elsewhere =
        manifest(&trial, "elsewhere.json", |group| group["spec"]["placement"] = json!({"servers": [there]}));
    let moves = plan(&elsewhere);
    assert_eq!(steps(&moves), [format!("Stop {GROUP} on {here}"), format!("Start {GROUP} on {there}")], "{moves}");
    assert_eq!(moves["subClusters"][0]["groups"][0]["to"], there.as_str(), "{moves}");
    let since = apply(&elsewhere);
    assert_eq!(trial.served_by(std::slice::from_ref(&there), since), there);
    trial.cluster.wait_online(GROUP, Some(&there), LIMIT).expect("the status follows");

    let offline = manifest(&trial, "offline.json", |group| group["spec"]["state"] = json!("Offline"));
    let stops = plan(&offline);
    assert_eq!(steps(&stops), [format!("Stop {GROUP} on {there}")], "{stops}");
    assert_eq!(stops["subClusters"][0]["groups"][0]["staysAway"]["rule"], "DeclaredOffline", "{stops}");
    assert_eq!(trial.history(), [here, there]);
    trial.cluster.close().expect("the lab goes");
}
