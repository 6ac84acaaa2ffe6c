//! Monitors of parts of a server: a disk or the hardware is lost on the server that runs the group, and is whole on the
//! other one. More of them is in faults.rs.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_api::v1::{MonitorState, PathState};
use holdfast_lab::{ClusterOptions, DiskFault, POWERED_OFF, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};
use crate::monitors::monitored_with;

/// The disk with heartbeat and lock.
pub(crate) const AREA: &str = "holdfast-area";

/// Why the group went away from a server, as its status tells.
pub(crate) fn failure(trial: &Trial, survivor: &str, victim: &str) -> (String, String) {
    let status = trial.cluster.wait_online(GROUP, Some(survivor), LIMIT).expect("online").status.expect("a status");
    let failure = status.failures.iter().find(|failure| failure.server == victim);
    let failure = failure.unwrap_or_else(|| panic!("{:?}", status.failures));
    (failure.resource.clone(), failure.message.clone())
}

/// The control group of this name somewhere below another one.
fn below(path: &Path, name: &str) -> PathBuf {
    let mut open = vec![path.to_owned()];
    while let Some(next) = open.pop() {
        if next.file_name().is_some_and(|found| found == name) {
            return next;
        }
        let inner = fs::read_dir(&next).into_iter().flatten().flatten().map(|entry| entry.path());
        open.extend(inner.filter(|path| path.is_dir()));
    }
    panic!("no {name} below {}", path.display());
}

/// How many control groups directly below one have a process. One whose first thread has ended shows no arguments.
fn populated(path: &Path) -> usize {
    let all = fs::read_dir(path).into_iter().flatten().flatten();
    let events = all.filter_map(|entry| fs::read_to_string(entry.path().join("cgroup.events")).ok());
    events.filter(|text| text.contains("populated 1")).count()
}

#[test]
fn a_disk_that_hangs_moves_the_group_and_holds_up_neither_its_stop_nor_the_agent() {
    let manifest = "
spec:
  monitors:
  - {name: disk, diskIO: {device: /dev/holdfast/area}, interval: 200ms, timeout: 1s, threshold: 2, action: Failover}
  - {name: page, http: {url: 'http://192.0.2.10/'}, interval: 200ms, timeout: 1s, action: Report}
";
    let options = ClusterOptions { faulty_disks: true, ..ClusterOptions::default() };
    let trial = monitored_with("monitor-disk", manifest, options);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let before = boottime_ns();
    trial.cluster.lab().set_disk(&victim, AREA, DiskFault::Hang).expect("it has an area");
    let survivor = trial.served_by(&standby, before);
    trial.comes_clean(&victim);
    assert_eq!(
        failure(&trial, &survivor, &victim),
        ("monitor disk".into(), "no answer: the check before still hangs in the kernel".into())
    );
    // Two failed checks, of which the first one hangs and the second one finds that: nothing waits for the disk.
    let host = trial.host(&victim);
    let hanging = || populated(&below(host.cgroup().path(), "checks"));
    assert_eq!(hanging(), 1);
    trial.all_active();
    trial.cluster.lab().set_disk(&victim, AREA, DiskFault::None).expect("it has an area");
    trial.path_becomes(&victim, &survivor, "area", PathState::Up);
    wait_for("what hung to end", LIMIT, |last| {
        *last = hanging().to_string();
        Ok((hanging() == 0).then_some(()))
    })
    .expect("the kernel lets go of it");
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

/// Whether a server was told to shut down.
fn told_to_go(trial: &Trial, server: &str) -> bool {
    trial.host(server).state_dir().join(POWERED_OFF).exists()
}

/// Waits until a server says this of its monitor.
fn monitor_becomes(trial: &Trial, server: &str, wanted: MonitorState) {
    wait_for(&format!("the monitor of {server} to be {wanted:?}"), LIMIT, |last| {
        let monitors =
            trial.cluster.servers()?[server].status.clone().map(|status| status.monitors).unwrap_or_default();
        *last = format!("{monitors:?}");
        Ok(monitors.iter().any(|monitor| monitor.state == wanted).then_some(()))
    })
    .expect("the API shows it");
}

#[test]
fn a_server_with_broken_hardware_hands_its_group_over_and_goes_down_but_not_the_last_one() {
    let check = "{name: hardware, exec: {command: [/usr/bin/test, '!', -e, /run/broken]}, interval: 200ms, timeout: 2s, \
                 threshold: 2, action: ServerDown}";
    let monitors: Value = serde_yaml::from_str(&format!("[{check}]")).expect("YAML");
    let trial = Trial::two_with("server-down", &|spec| spec["spec"]["monitors"] = monitors.clone());
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    monitor_becomes(&trial, &first, MonitorState::Passing);
    let break_it = |server: &str| {
        let file = trial.host(server).path("/run/broken").expect("it is on");
        fs::write(file, "").expect("broken");
    };
    let (epoch, before) = (trial.epoch(), boottime_ns());
    break_it(&first);
    trial.served_by(std::slice::from_ref(&second), before);
    trial.members_become(std::slice::from_ref(&second), epoch);
    trial.comes_clean(&first);
    // A move, not a loss: nobody had to be waited for.
    trial.undisturbed_since(before);
    wait_for("the machine to be told", LIMIT, |_| Ok(told_to_go(&trial, &first).then_some(()))).expect("it goes down");

    // The last one stays, and says so.
    let alone = boottime_ns();
    break_it(&second);
    monitor_becomes(&trial, &second, MonitorState::Failing);
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.undisturbed_since(alone);
    assert!(!told_to_go(&trial, &second));

    // Repaired and switched on, the first one is the better one.
    let (epoch, back) = (trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&first).expect("its power goes");
    trial.cluster.power_on(&first).expect("power");
    trial.served_by(std::slice::from_ref(&first), back);
    trial.members_become(std::slice::from_ref(&first), epoch);
    wait_for("the machine to be told", LIMIT, |_| Ok(told_to_go(&trial, &second).then_some(()))).expect("it goes down");
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}
