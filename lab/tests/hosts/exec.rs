//! U10: a command on many servers at once, with the output of each.

use std::fs;

use holdfast_lab::LabError;

use crate::harness::Trial;

fn exec(trial: &Trial, args: &[&str], command: &[&str]) -> Result<String, LabError> {
    let sub = trial.cluster.sub_cluster().expect("the sub-cluster").metadata.name.expect("a name");
    let all = [&["exec", "--subcluster", &sub, "-n", "ha", "--timeout", "60"], args, &["--"], command].concat();
    trial.cluster.holdfast(&all)
}

#[test]
fn a_command_runs_once_on_every_server_that_is_named_and_its_output_comes_back() {
    let trial = Trial::two_with("exec", &|sub_cluster| {
        sub_cluster["spec"]["exec"] = serde_yaml::from_str("{enabled: true}").expect("YAML");
    });
    let servers = trial.others("");
    let line = "echo here is $HOLDFAST_SERVER; echo careful >&2; echo once >> /run/done";
    let said = exec(&trial, &[], &["/bin/sh", "-c", line]).expect("it ran");
    for server in &servers {
        let part = format!(".{server}: exit 0\nhere is {server}\ncareful\n");
        assert!(said.contains(&part), "{said}");
        let done = trial.host(server).path("/run/done").expect("it is on");
        assert_eq!(fs::read_to_string(&done).expect("it ran there"), "once\n");
    }

    let only = exec(&trial, &["--server", &servers[1]], &["/bin/sh", "-c", "echo twice >> /run/done"]).expect("it ran");
    assert!(
        only.contains(&format!(".{}: exit 0", servers[1])) && !only.contains(&format!(".{}:", servers[0])),
        "{only}"
    );
    let first = trial.host(&servers[0]).path("/run/done").expect("it is on");
    assert_eq!(fs::read_to_string(&first).expect("it ran there before"), "once\n");

    // It fails on one of them, hangs with what it started, or names what is not there.
    let fails = format!("[ $HOLDFAST_SERVER = {} ] || exit 3", servers[0]);
    let failed = exec(&trial, &[], &["/bin/sh", "-c", &fails]).expect_err("it failed on one").to_string();
    assert!(
        failed.contains("it ended with 0 on 1 of 2 servers") && failed.contains(&format!("{}: exit 3", servers[1])),
        "{failed}"
    );
    let late = exec(&trial, &["--command-timeout", "1s"], &["/bin/sh", "-c", "echo begun; sleep 777703 & wait"]);
    let late = late.expect_err("it does not end").to_string();
    assert!(late.contains("no answer within 1s") && late.contains("begun"), "{late}");
    for server in &servers {
        let left = trial.host(server).processes().expect("its processes");
        assert!(
            left.iter().all(|process| !process.args.concat().contains("777703")),
            "nothing of it is left on {server}"
        );
    }
    let unknown = exec(&trial, &["--server", "elm"], &["/bin/true"]).expect_err("there is no elm").to_string();
    assert!(unknown.contains("has no server elm") && unknown.contains("nothing was run"), "{unknown}");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn no_command_runs_where_the_sub_cluster_does_not_allow_it() {
    let trial = Trial::two("exec-off");
    let refused = exec(&trial, &[], &["/bin/sh", "-c", "touch /run/done"]).expect_err("it is not allowed").to_string();
    assert!(refused.contains("spec.exec.enabled of") && refused.contains("set it to true"), "{refused}");
    for server in trial.others("") {
        let done = trial.host(&server).path("/run/done").expect("it is on");
        assert!(!done.exists());
    }
    trial.cluster.close().expect("the lab goes");
}
