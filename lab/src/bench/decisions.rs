//! How long the surviving servers need from the suspicion of a lost one to a decided view, for each kind of tie-breaker, as
//! the winner reports it; and what heartbeats cost on many servers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml::{Value, to_value};

use super::report::{self, Decided};
use super::{LIMIT, settle};
use crate::cluster::{Cluster, ClusterOptions};
use crate::error::{LabError, Result};
use crate::shell::wait_for;
use crate::up::Screen;

/// Servers of the largest sub-cluster.
const MANY: u8 = 16;
/// Heartbeat timeout of the largest one. So many hosts on one machine have to share its cores.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time until all of them have met: their agents start at once, on the cores of one machine.
const MEETING: Duration = Duration::from_secs(300);

/// What a measurement changes in its example.
type Change = fn(&mut [(PathBuf, Value)]);

/// Name, example beside the one that the benchmark was given, change.
const KINDS: [(&str, &str, Change); 5] = [
    ("2 servers, lock disk", "two-servers", |_| {}),
    ("2 servers, quorum server", "four-servers", |documents| only(documents, 2)),
    ("3 servers, majority", "three-servers", |_| {}),
    ("16 servers, quorum server", "four-servers", many),
    ("16 servers, majority", "four-servers", |documents| {
        many(documents);
        sub_cluster(documents)["quorum"] = from("{type: Majority}");
    }),
];

/// Every kind, `runs` times each; on the largest, the cost of heartbeats over four LANs as well. Each is told as soon as it
/// is known.
pub(super) fn measure(examples: &Path, runs: u32, screen: &Screen) -> Result<()> {
    let mut beating = false;
    screen.done();
    screen.line(&format!("\n{}", report::decision_head()));
    for (name, example, change) in KINDS {
        screen.step(&format!("building {name}"));
        let edit = |documents: &mut Vec<(PathBuf, Value)>| {
            super::restart_in_place(documents);
            // Else a virtual machine that was lost has to be reinstated by a person before the next run.
            sub_cluster(documents)["evidence"]["timeOnVirtualMachines"] = "Allow".into();
            change(documents);
        };
        let options = ClusterOptions { edit: Some(&edit), ..ClusterOptions::default() };
        let cluster = Cluster::start("decide", &examples.join(example), &options)?;
        let servers = &cluster.blueprint().servers;
        screen.step(&format!("{name}: waiting until all have met"));
        match cluster.wait_view(servers, 0, MEETING) {
            Ok(()) => {}
            // Not a fault of theirs: sixteen agents can be more than the cores of one machine.
            Err(error @ LabError::Timeout { .. }) if servers.len() == usize::from(MANY) => {
                screen.done();
                screen.line(&format!("{name}: not measured, this machine does not carry them: {error}"));
                cluster.close()?;
                continue;
            }
            Err(error) => return Err(error),
        }
        if servers.len() == usize::from(MANY) && !std::mem::replace(&mut beating, true) {
            screen.step("watching the heartbeats of 16 servers over 4 paths");
            let mut idle = super::idle_cost(&cluster)?;
            idle.retain(|host| servers.contains(&host.host));
            screen.done();
            report::heartbeats(&idle, PATIENCE, 4).iter().for_each(|line| screen.line(line));
        }
        let mut times = Vec::new();
        for run in 0..runs {
            screen.step(&format!("{name}: decision {} of {runs}", run + 1));
            // Each in turn, so that the coordinator and the group's server are among the lost.
            times.push(decide(&cluster, &servers[run as usize % servers.len()].clone())?);
        }
        screen.done();
        screen.line(&report::decision(&Decided { name, timeout: cluster.blueprint().timeout, times }));
        cluster.close()?;
    }
    Ok(())
}

/// Cuts a server's power and returns what the others needed from its suspicion to their view.
fn decide(cluster: &Cluster, victim: &str) -> Result<Duration> {
    settle(cluster)?;
    let epoch = cluster.epoch()?;
    cluster.power_cut(victim)?;
    let rest: Vec<String> = cluster.blueprint().servers.iter().filter(|name| *name != victim).cloned().collect();
    cluster.wait_view(&rest, epoch, LIMIT)?;
    let took = wait_for("the decision to be reported", LIMIT, |last| {
        let status = cluster.sub_cluster()?.status.unwrap_or_default();
        *last = format!("{:?}", status.last_resolution);
        let known = status.last_resolution.filter(|resolution| resolution.epoch > Some(epoch));
        Ok(known.and_then(|resolution| resolution.resolution))
    })?;
    let epoch = cluster.epoch()?;
    cluster.power_on(victim)?;
    cluster.wait_view(&cluster.blueprint().servers, epoch, LIMIT)?;
    Ok(took.get())
}

fn from(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or(Value::Null)
}

fn of_kind<'a>(documents: &'a mut [(PathBuf, Value)], kind: &str) -> Option<&'a mut Value> {
    documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == kind)
}

/// The spec of the SubCluster; of an example without one, something that nobody looks at.
fn sub_cluster(documents: &mut [(PathBuf, Value)]) -> &mut Value {
    match documents.iter().position(|(_, document)| document["kind"] == "SubCluster") {
        Some(at) => &mut documents[at].1["spec"],
        None => &mut documents[0].1["spec"],
    }
}

/// The first `count` servers of an example.
fn only(documents: &mut [(PathBuf, Value)], count: usize) {
    let spec = sub_cluster(documents);
    let cut = |list: &mut Value| {
        if let Some(list) = list.as_sequence_mut() {
            list.truncate(count);
        }
    };
    cut(&mut spec["servers"]);
    for path in spec["heartbeat"]["paths"].as_sequence_mut().into_iter().flatten() {
        cut(&mut path["lan"]["endpoints"]);
    }
    if let Some(group) = of_kind(documents, "FailoverGroup") {
        cut(&mut group["spec"]["placement"]["servers"]);
    }
}

/// Sixteen servers with four LANs in the place of what the example has. Its public network stays, with its address.
fn many(documents: &mut [(PathBuf, Value)]) {
    let names: Vec<String> = (1..=MANY).map(|number| format!("s{number:02}")).collect();
    let lan = |path: &str, role: &str, network: &str| {
        // From 21 on: the addresses below belong to the example's groups.
        let ends = names.iter().zip(21..).map(|(name, host)| format!("{{server: {name}, address: {network}.{host}}}"));
        let ends = ends.collect::<Vec<_>>().join(", ");
        from(&format!("{{name: {path}, lan: {{role: {role}, endpoints: [{ends}]}}}}"))
    };
    let spec = sub_cluster(documents);
    let servers = names.iter().zip(1..).map(|(name, id)| format!("{{name: {name}, id: {id}}}")).collect::<Vec<_>>();
    spec["servers"] = from(&format!("[{}]", servers.join(", ")));
    spec["heartbeat"]["timeout"] = format!("{}s", PATIENCE.as_secs()).into();
    spec["heartbeat"]["paths"] = Value::Sequence(vec![
        lan("ic", "Interconnect", "10.0.0"),
        lan("ic2", "Interconnect", "10.0.1"),
        lan("ic3", "Interconnect", "10.0.2"),
        lan("pub", "Public", "192.0.2"),
    ]);
    if let Some(group) = of_kind(documents, "FailoverGroup") {
        group["spec"]["placement"]["servers"] = to_value(&names).unwrap_or(Value::Null);
    }
}

/// Beside which directory the other examples are.
pub(super) fn beside(example: &Path) -> Result<PathBuf> {
    let directory = example.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    directory.filter(|parent| KINDS.iter().all(|(_, name, _)| parent.join(name).is_dir())).ok_or_else(|| {
        LabError::Missing {
            what: format!("the examples two-servers, three-servers and four-servers beside {}", example.display()),
            hint: "run it with examples/two-servers of a checkout".into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::{Blueprint, documents};

    #[test]
    fn sixteen_servers_on_four_lans_are_made_of_the_example_of_four() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/four-servers");
        let mut all = documents(&path).expect("the example is readable");
        many(&mut all);
        let plan = Blueprint::from_documents(&path, &all).expect("a lab");
        assert_eq!((plan.servers.len(), plan.lans.len()), (16, 4));
        assert!(plan.lans.iter().all(|lan| lan.addresses.len() == 16));
        let mut all = documents(&path).expect("the example is readable");
        only(&mut all, 2);
        let plan = Blueprint::from_documents(&path, &all).expect("a lab");
        assert_eq!(plan.servers, ["alder", "birch"]);
        assert!(plan.quorum_server.is_some());
    }
}
