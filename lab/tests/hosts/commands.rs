//! C25: the commands of scripts and of people on a server itself, which need nothing but the agents.

use std::path::Path;
use std::process::{Child, Output};
use std::time::Duration;

use holdfast_lab::{AGENT, BIN_DIR, ClusterOptions, POWERED_OFF, Process, STATE_DIR, StoreKind, boottime_ns, wait_for};
use nix::sys::signal::Signal;

use crate::harness::{GROUP, LIMIT, Trial};

/// Runs `holdfast VERB …` on a server.
fn holdfast(trial: &Trial, server: &str, verb: &str, rest: &[&str]) -> Output {
    let (program, config) = (format!("{BIN_DIR}/holdfast"), format!("{STATE_DIR}/agent.yaml"));
    let line = [&[program.as_str(), verb, "--config", config.as_str()], rest].concat();
    trial.host(server).command(&line).expect("it is on").output().expect("it runs")
}

/// What a command did.
#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Why a command did nothing.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Numbers by which the program and the child that it leaves are known.
const PROGRAM: [&str; 2] = ["777701", "777702"];

fn workers(trial: &Trial, server: &str) -> Vec<Process> {
    let all = trial.host(server).processes().expect("its processes");
    all.into_iter().filter(|process| process.args.len() == 2 && PROGRAM.contains(&process.args[1].as_str())).collect()
}

#[test]
fn commands_on_a_server_need_neither_api_server_nor_controller_nor_etcd() {
    let trial = Trial::two_with_etcd("commands");
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    trial.cluster.stop_control_plane(StoreKind::Etcd).expect("API server, controller and etcd are down");

    let wrong = refused(&holdfast(&trial, &first, "failover", &["wep"]));
    assert_eq!(wrong, format!("error: there is no group wep; {first} knows web"));
    let wrong = refused(&holdfast(&trial, &second, "failover", &[GROUP]));
    assert_eq!(wrong, format!("error: group web is not on {second}: it is on {first}; give the command there"));

    let cleared = done(&holdfast(&trial, &second, "clear-failures", &[GROUP, "--local"]));
    assert_eq!(cleared, "failures of group web are forgotten, and FailureLimit does not hold it");
    let wrong = refused(&holdfast(&trial, &second, "clear-failures", &[GROUP, "--local", "--resource", "nginz"]));
    assert_eq!(wrong, "error: group web has no resource nginz; it has address, data, nginx, page, writer");

    let wrong = refused(&holdfast(&trial, &first, "monitor", &["--name", "fan", "--", "/usr/bin/true"]));
    assert!(wrong.starts_with("error: --action failover needs --group"), "{wrong}");

    let before = boottime_ns();
    let said = done(&holdfast(&trial, &first, "failover", &[GROUP, "--reason", "the fan is loud"]));
    assert_eq!(said, format!("group web has left {first}, and goes to {second}"));
    assert_eq!(trial.traces(&first), Vec::<String>::new(), "when the command has ended, nothing of the group is left");
    trial.served_by(std::slice::from_ref(&second), before);
    trial.undisturbed_since(before);

    // A check from a script, that fails on the second server.
    let before = boottime_ns();
    let mark = trial.host(&second).path("/run/broken").expect("it is on");
    let check = ["--name", "fan", "--group", GROUP, "--interval", "1", "--threshold", "2", "--", "/usr/bin/test"];
    let check = [&check[..], &["!", "-e", "/run/broken"]].concat();
    let (program, config) = (format!("{BIN_DIR}/holdfast"), format!("{STATE_DIR}/agent.yaml"));
    let line = [&[program.as_str(), "monitor", "--config", config.as_str()], &check[..]].concat();
    let mut monitor = trial.host(&second).command(&line).expect("it is on").spawn().expect("it runs");
    trial.pass(Duration::from_secs(2));
    trial.undisturbed_since(before);
    let broken = boottime_ns();
    std::fs::write(&mark, "").expect("broken");
    trial.served_by(std::slice::from_ref(&first), broken);
    assert!(monitor.try_wait().expect("it is ours").is_none(), "it watches on, for when the group comes back");
    std::fs::remove_file(&mark).expect("repaired");
    monitor.kill().and_then(|()| monitor.wait()).expect("it is ended");

    // Down: to the second server, and out. The last one stays.
    let (before, off) = (boottime_ns(), trial.host(&first).state_dir().join(POWERED_OFF));
    let said = done(&holdfast(&trial, &first, "down", &["--reason", "smoke"]));
    assert_eq!(said, format!("{first} hands its groups over, leaves and shuts down"));
    trial.served_by(std::slice::from_ref(&second), before);
    wait_for("the machine to be told", LIMIT, |_| Ok(off.exists().then_some(()))).expect("it goes down");
    trial.comes_clean(&first);
    let last = refused(&holdfast(&trial, &second, "down", &[]));
    assert!(last.starts_with(&format!("error: {second} does not go down: ")), "{last}");
    let alone = refused(&holdfast(&trial, &second, "failover", &[GROUP]));
    let why = format!("error: no other server can take group web: {first} is no member now; it stays on {second}");
    assert_eq!(alone, why);

    // What was done shows, once there is somebody to show it.
    trial.cluster.start_control_plane(StoreKind::Etcd).expect("the control plane is back");
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("the status catches up");
    // Who coordinated then is no member any more; it tells the rest.
    wait_for("the command in the history", LIMIT, |last| {
        let said: Vec<String> = trial.status().transitions.into_iter().map(|t| t.message).collect();
        *last = format!("{said:?}");
        Ok(said.iter().any(|message| message == "holdfast down: smoke").then_some(()))
    })
    .expect("the server that left tells it");
    assert_eq!(trial.history(), [first.clone(), second.clone(), first, second]);
    trial.cluster.close().expect("the lab goes");
}

/// Starts `holdfast monitor` on a server; what it says goes to the file.
fn monitor(trial: &Trial, server: &str, action: &str, said: &Path) -> Child {
    let check = ["--interval", "1", "--threshold", "2", "--", "/usr/bin/test", "!", "-e", "/run/broken"];
    let (program, config) = (format!("{BIN_DIR}/holdfast"), format!("{STATE_DIR}/agent.yaml"));
    let line = [program.as_str(), "monitor", "--config", config.as_str(), "--name", "fan", "--action", action];
    let mut command = trial.host(server).command(&[&line[..], &check[..]].concat()).expect("it is on");
    let out = std::fs::File::create(said).expect("a file");
    command.stderr(out.try_clone().expect("a file")).stdout(out).spawn().expect("it runs")
}

/// Waits until a monitor has said this.
fn says(said: &Path, text: &str) {
    wait_for(&format!("the monitor to say {text:?}"), LIMIT, |last| {
        *last = std::fs::read_to_string(said).unwrap_or_default();
        Ok(last.contains(text).then_some(()))
    })
    .expect("it is said");
}

#[test]
fn a_start_script_runs_a_program_on_each_server_and_checks_of_scripts_report_or_shut_the_server_down() {
    let line = format!(
        "set -e\n{BIN_DIR}/holdfast run --config {STATE_DIR}/agent.yaml --group {GROUP} --name worker -- /bin/sleep {}\n",
        PROGRAM[1]
    );
    let trial = Trial::start_with("run-script", "two-servers", ClusterOptions::default(), |documents| {
        let group = documents.iter_mut().map(|(_, d)| d).find(|d| d["kind"] == "FailoverGroup").expect("a group");
        let script = &mut group["spec"]["resources"][1]["script"]["start"]["inline"];
        let text = script.as_str().expect("the start script of the page").replacen("set -e\n", &line, 1);
        assert!(text.contains("--name worker"), "{text}");
        *script = text.into();
    });
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    let works = |server: &str| {
        wait_for(&format!("the program on {server}"), LIMIT, |last| {
            let found = workers(&trial, server);
            *last = format!("{found:?}");
            Ok((found.len() == 1).then_some(()))
        })
        .expect("the start script has run it");
    };
    works(&first);
    assert_eq!(workers(&trial, &second), []);

    // Stopped, and once more: it is gone, and the group does not notice.
    let before = boottime_ns();
    let stop = ["--group", GROUP, "--name", "worker", "--stop"];
    for _ in 0..2 {
        let said = done(&holdfast(&trial, &first, "run", &stop));
        assert_eq!(said, format!("worker does not run in group web on {first}"));
        assert_eq!(workers(&trial, &first), []);
    }

    // A check that only reports.
    let said = trial.host(&first).state_dir().join("monitor.said");
    let mark = trial.host(&first).path("/run/broken").expect("it is on");
    let mut reports = monitor(&trial, &first, "report", &said);
    std::fs::write(&mark, "").expect("broken");
    says(&said, "monitor fan: exit 1; nothing follows (--action report)");
    assert!(reports.try_wait().expect("it is ours").is_none(), "it watches on");
    reports.kill().and_then(|()| reports.wait()).expect("it is ended");
    trial.undisturbed_since(before);

    // One that shuts the server down: the group goes to the other one, with the program.
    let (before, off) = (boottime_ns(), trial.host(&first).state_dir().join(POWERED_OFF));
    let mut down = monitor(&trial, &first, "down", &said);
    says(&said, &format!("{first} hands its groups over, leaves and shuts down"));
    assert!(down.wait().expect("it is ours").success(), "nothing is left to be watched");
    trial.served_by(std::slice::from_ref(&second), before);
    wait_for("the machine to be told", LIMIT, |_| Ok(off.exists().then_some(()))).expect("it goes down");
    trial.comes_clean(&first);
    assert_eq!(workers(&trial, &first), []);
    works(&second);

    // The last one stays, and says why.
    let before = boottime_ns();
    let said = trial.host(&second).state_dir().join("monitor.said");
    std::fs::write(trial.host(&second).path("/run/broken").expect("it is on"), "").expect("broken");
    let mut last = monitor(&trial, &second, "down", &said);
    says(&said, &format!("{second} does not go down: only 0 of 2 servers would be left"));
    last.kill().and_then(|()| last.wait()).expect("it is ended");
    trial.undisturbed_since(before);
    works(&second);
    assert_eq!(trial.history(), [first, second]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_program_that_is_run_in_a_group_is_restarted_fails_the_group_over_and_never_outlives_it() {
    let trial = Trial::two("run");
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    let shell = format!("sleep {} & exec sleep {}", PROGRAM[0], PROGRAM[1]);
    let command = ["--group", GROUP, "--name", "worker", "--restarts", "1", "--", "/bin/sh", "-c", &shell];
    let run = |server: &str| holdfast(&trial, server, "run", &command);
    let wrong = refused(&run(&second));
    assert_eq!(wrong, format!("error: group web is not on {second}: it is on {first}; give the command there"));
    let before = boottime_ns();
    let missing = ["--group", GROUP, "--name", "worker", "--", "/no/such/program"];
    let wrong = refused(&holdfast(&trial, &first, "run", &missing));
    assert!(wrong.starts_with("error: worker does not start: "), "{wrong}");
    for _ in 0..2 {
        assert_eq!(done(&run(&first)), format!("worker runs in group web on {first}, and is watched"));
        assert_eq!(workers(&trial, &first).len(), 2);
    }
    let other = ["--group", GROUP, "--name", "worker", "--", "/bin/sleep", "5"];
    let wrong = refused(&holdfast(&trial, &first, "run", &other));
    assert!(wrong.contains("another program is called worker in group web"), "{wrong}");

    // A new agent watches it on.
    let (agents, old) = (trial.host(&first).holdfast_processes("agent").expect("its agent"), workers(&trial, &first));
    trial.host(&first).signal(&agents, Signal::SIGKILL).expect("killed");
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.all_active();
    assert_eq!(workers(&trial, &first), old);
    trial.undisturbed_since(before);
    // Its agent hangs, and the guard ends the group: the program with it.
    let epoch = trial.epoch();
    trial.host(&first).leave_service(AGENT).expect("its supervisor looks away");
    let before = boottime_ns();
    trial.host(&first).freeze_agent().expect("an agent to freeze");
    trial.served_by(std::slice::from_ref(&second), before);
    assert_eq!(workers(&trial, &first), []);
    trial.host(&first).start_service(AGENT).expect("its supervisor looks again");
    trial.all_return(epoch + 1);
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("online");

    // A program that ends is started again.
    let undisturbed = boottime_ns();
    assert!(done(&run(&second)).contains("is watched"));
    let kill = |how: &str| {
        let victims = workers(&trial, &second);
        trial.host(&second).signal(&victims, Signal::SIGKILL).expect("killed");
        wait_for(how, LIMIT, |last| {
            let now = workers(&trial, &second);
            *last = format!("{now:?}");
            Ok(now.iter().all(|process| !victims.contains(process)).then_some(now.len()))
        })
        .expect("something follows")
    };
    kill("another program");
    wait_for("two processes", LIMIT, |_| Ok((workers(&trial, &second).len() == 2).then_some(()))).expect("restarted");
    trial.undisturbed_since(undisturbed);

    // The one restart is used up.
    let before = boottime_ns();
    kill("the end");
    trial.served_by(std::slice::from_ref(&first), before);
    trial.comes_clean(&second);
    assert_eq!(workers(&trial, &second), []);
    trial.cluster.wait_online(GROUP, Some(&first), LIMIT).expect("online");

    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}
