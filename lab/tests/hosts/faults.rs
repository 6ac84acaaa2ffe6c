//! The fault table, line by line: what breaks, and what has to be seen from outside: by the client, on the disk, in the API.
//!
//! docs/faults.md is the table; a test at the end compares the two. Lines that need a kernel of their own: `own_kernel`. What else can be done to a host stands in the other
//! files here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_api::v1::{EvidenceKind, MonitorState, PathState};
use holdfast_lab::{ClusterOptions, DiskFault, boottime_ns, wait_for};
use nix::sys::signal::Signal;

use crate::harness::{GROUP, LIMIT, Trial};
use crate::monitored_parts::{AREA, failure};
use crate::monitors::{all_become, monitored_with, nginx};

/// Waits until larger messages of a server to its peer use this LAN.
fn exchange_runs_over(trial: &Trial, server: &str, path: &str) {
    wait_for(&format!("the exchange of {server} to use {path}"), LIMIT, |last| {
        let paths = trial.cluster.servers()?[server].status.clone().map(|status| status.paths).unwrap_or_default();
        *last = format!("{paths:?}");
        Ok(paths.iter().any(|found| found.path == path && found.carries_exchange).then_some(()))
    })
    .expect("the API shows it");
}

#[test]
fn server_cpu_fault_fails_over_to_the_standby() {
    let trial = Trial::two("power-active");
    let victim = trial.active();
    let standby = trial.others(&victim);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.taken_over_since(before);

    let online = trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    let status = online.status.expect("a status");
    let transition = status.transitions.first().expect("the takeover is recorded");
    assert_eq!((transition.from.as_str(), transition.to.as_str()), (victim.as_str(), survivor.as_str()));
    assert_eq!(transition.evidence, Some(EvidenceKind::Time), "{transition:?}");
    assert!(status.epoch.expect("an epoch") > epoch, "a new view was decided");
    assert!(transition.chart.iter().any(|step| step.step.starts_with("start ")), "{transition:?}");

    trial.cluster.power_on(&victim).expect("power");
    trial.all_return(status.epoch.expect("an epoch"));
    trial.pass(Duration::from_secs(1));
    assert_eq!(trial.active(), survivor, "the group does not go back by itself");
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn server_display_keyboard_or_mouse_changes_nothing() {
    let trial = Trial::two("faults-console");
    let active = trial.active();
    let (epoch, before) = (trial.epoch(), boottime_ns());
    for server in &trial.cluster.blueprint().servers {
        let host = trial.host(server);
        // No process of Holdfast or of the group has a terminal whose loss it could notice.
        let pid = host.pid().expect("it is on");
        for entry in fs::read_dir(format!("/proc/{pid}/root/proc")).expect("its processes").flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let after_name = stat.rsplit(')').next().expect("a name").split_whitespace().collect::<Vec<_>>();
            assert_eq!(after_name[4], "0", "{stat} has a terminal");
        }
        for process in host.processes().expect("its processes") {
            let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
            let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            let bad = ["/dev/tty", "/dev/pts", "/dev/console", "/dev/input", "/dev/fb", "/dev/dri"];
            let bad: Vec<_> =
                open.filter(|file| bad.iter().any(|start| file.to_string_lossy().starts_with(start))).collect();
            assert!(bad.is_empty(), "{:?} has {bad:?} open", process.args);
        }
    }
    trial.pass(trial.cluster.blueprint().timeout);
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active]));
    trial.cluster.close().expect("the lab goes");
}

#[test]
#[ignore = "needs an array in a kernel of its own; dm-raid without metadata stands still there when a disk goes"]
fn shared_disk_one_disk_of_a_raid_changes_nothing() {
    panic!("hosts share the kernel of this machine, and its md devices");
}

#[test]
#[ignore = "needs an array in a kernel of its own; dm-raid without metadata stands still there when a disk goes"]
fn shared_disk_several_disks_of_a_raid_lose_the_service_and_it_is_reported() {
    panic!("hosts share the kernel of this machine, and its md devices");
}

#[test]
fn shared_disk_hba_io_errors_are_seen_by_a_monitor_and_fail_over() {
    let manifest = "
spec:
  monitors:
  - {name: disk, diskIO: {device: /dev/holdfast/area}, interval: 200ms, timeout: 1s, threshold: 2, action: Failover}
";
    let options = ClusterOptions { faulty_disks: true, ..ClusterOptions::default() };
    let trial = monitored_with("faults-hba", manifest, options);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.lab().set_disk(&victim, AREA, DiskFault::Errors).expect("it has an area");
    let survivor = trial.served_by(&standby, before);
    trial.comes_clean(&victim);
    let (what, why) = failure(&trial, &survivor, &victim);
    assert_eq!(what, "monitor disk");
    assert!(why.contains("Input/output error"), "{why}");
    assert_eq!(trial.epoch(), epoch, "no server was lost");
    trial.cluster.lab().set_disk(&victim, AREA, DiskFault::None).expect("it has an area");
    trial.path_becomes(&victim, &survivor, "area", PathState::Up);
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn interconnect_nic_cable_or_switch_stops_nothing_and_exchange_moves_to_the_public_lan() {
    let trial = Trial::two("interconnect");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.lab().link_down(&active, "ic").expect("cable out");
    trial.path_becomes(&active, &standby, "ic", PathState::Down);
    trial.path_becomes(&standby, &active, "ic", PathState::Down);
    trial.path_becomes(&standby, &active, "pub", PathState::Up);
    exchange_runs_over(&trial, &active, "pub");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    trial.cluster.lab().link_up(&active, "ic").expect("cable in");
    trial.path_becomes(&active, &standby, "ic", PathState::Up);
    exchange_runs_over(&trial, &active, "ic");
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch, "no new view was needed");
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn public_lan_nic_cable_or_switch_is_seen_by_a_monitor_and_fails_over() {
    let manifest = "
spec:
  monitors:
  - {name: public, link: {path: pub}, interval: 200ms, timeout: 1s, threshold: 2, action: Failover}
  - {name: client, icmp: {targets: [192.0.2.1, 192.0.2.2], minReachable: 2}, interval: 1s, action: Report}
  - {name: alone, address: {resource: address}, interval: 1s, action: Report}
  - {name: one, process: {pattern: '^/usr/sbin/nginx', max: 1}, interval: 1s, action: Report}
  - {name: group, process: {resource: nginx}, interval: 1s, action: Report}
  - {name: room, usage: {of: FileSystem, path: /srv/web, maxPercent: 95}, interval: 1s, action: Report}
  - {name: memory, usage: {of: Memory, maxPercent: 100}, interval: 1s, action: Report}
  - {name: disk, diskIO: {disk: shared, write: true}, interval: 1s, action: Report}
";
    let trial = monitored_with("monitor-link", manifest, ClusterOptions::default());
    let victim = trial.active();
    let standby = trial.others(&victim);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.lab().link_down(&victim, "pub").expect("the cable is out");
    let survivor = trial.served_by(&standby, before);
    trial.comes_clean(&victim);
    trial.cluster.lab().link_up(&victim, "pub").expect("the cable is in");
    trial.path_becomes(&victim, &survivor, "pub", PathState::Up);
    let (what, why) = failure(&trial, &survivor, &victim);
    assert_eq!(what, "monitor public");
    assert!(why.contains("has no carrier"), "{why}");
    assert_eq!(trial.epoch(), epoch, "no server was lost");
    assert_eq!(trial.history(), [victim, survivor], "it does not come back");
    all_become(&trial, MonitorState::Passing);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn software_application_stops_and_is_restarted() {
    let trial = Trial::two("app-killed");
    let active = trial.active();
    let victims = nginx(&trial, &active);
    assert!(!victims.is_empty(), "the web server runs on {active}");
    let before = boottime_ns();
    trial.host(&active).signal(&victims, Signal::SIGKILL).expect("killed");
    trial.served_by(std::slice::from_ref(&active), boottime_ns());
    let outage = trial.outage_since(before);
    assert!(outage < Duration::from_secs(1), "the client saw {outage:?}");
    assert_ne!(nginx(&trial, &active), victims);
    wait_for("the restart to be counted", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?}", status.resources);
        Ok(status.resources.iter().any(|r| r.name == "nginx" && r.restarts == 1).then_some(()))
    })
    .expect("the status says so");
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn software_application_hangs_is_seen_by_a_monitor_and_fails_over() {
    let manifest = "
spec:
  monitors:
  - {name: answers, http: {url: 'http://192.0.2.10/'}, interval: 200ms, timeout: 500ms, threshold: 2, action: Failover}
";
    let trial = monitored_with("faults-hang", manifest, ClusterOptions::default());
    let active = trial.active();
    let standby = trial.others(&active);
    let before = boottime_ns();
    // It lives and still takes connections: no check of its process sees anything.
    trial.host(&active).signal(&nginx(&trial, &active), Signal::SIGSTOP).expect("stopped");
    let survivor = trial.served_by(&standby, before);
    trial.comes_clean(&active);
    let (what, why) = failure(&trial, &survivor, &active);
    assert_eq!(what, "monitor answers");
    assert!(!why.is_empty());
    // The grace of 10 s is most of it: a stopped program does not hear that it is to end.
    let outage = trial.outage_since(before);
    assert!(outage < Duration::from_secs(20), "the client saw {outage:?}");
    assert_eq!(trial.history(), [active, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn every_line_of_the_fault_table_has_its_tests_and_every_test_its_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("../docs/faults.md")).expect("the table");
    let table = table.split("\n## ").next().expect("its first part");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| place"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let places = lines.iter().map(|line| line[0]).collect::<Vec<_>>();
    let wanted = ["server"; 2].into_iter().chain(["shared disk"; 3]).chain(["interconnect", "public LAN"]);
    assert_eq!(places, wanted.chain(["software"; 2]).collect::<Vec<_>>(), "the table has nine lines");
    let mut named = BTreeSet::new();
    for line in &lines {
        let [place, _, _, tests] = line.as_slice() else { panic!("{line:?}") };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{line:?} has no test");
        for test in tests {
            assert!(test.starts_with(&place.to_lowercase().replace(' ', "_")), "{test} is not about {place}");
            named.insert(test.to_owned());
        }
    }
    let sources = [include_str!("faults.rs"), include_str!("own_kernel.rs")];
    let written: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| source.split("#[test]").skip(1))
        .filter_map(|rest| rest.split("fn ").nth(1)?.split("()").next())
        .map(str::to_owned)
        .filter(|name| places.iter().any(|place| name.starts_with(&place.to_lowercase().replace(' ', "_"))))
        .collect();
    assert_eq!(named, written);
}
