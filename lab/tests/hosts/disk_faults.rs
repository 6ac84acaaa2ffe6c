//! The shared disk fails, hangs, forgets what it confirmed, and writes late: under the real code of agent and kernel, by a
//! file system of the lab's below the loop devices.

use std::fs;
use std::os::unix::fs::FileExt;

use holdfast_api::v1::{DiskState, PathState};
use holdfast_lab::{AGENT, ClusterOptions, DiskFault, boottime_ns, wait_for};
use nix::sys::signal::Signal;

use crate::harness::{GROUP, LIMIT, Trial};

/// The disk with heartbeat and lock.
const AREA: &str = "holdfast-area";
/// Bytes at its beginning that hold both copies of the header.
const HEADER: usize = 2 * 4096;

fn faulty(name: &str) -> Trial {
    let options = ClusterOptions { faulty_disks: true, ..ClusterOptions::default() };
    Trial::two_special(name, options, &|_| {})
}

impl Trial {
    fn area(&self, server: &str, fault: DiskFault) {
        self.cluster.lab().set_disk(server, AREA, fault).expect("the server has an area");
    }

    /// Waits until a server says this of its shared disk.
    fn disk_becomes(&self, server: &str, state: DiskState, message: &str) {
        wait_for(&format!("the disk of {server} to be {state:?}"), LIMIT, |last| {
            let disks = self.cluster.servers()?[server].status.clone().map(|status| status.disks).unwrap_or_default();
            *last = format!("{disks:?}");
            Ok(disks.iter().any(|disk| disk.state == state && disk.message.contains(message)).then_some(()))
        })
        .expect("the API shows it");
    }

    /// Waits for a condition of the sub-cluster.
    fn told(&self, condition: &str, status: &str, part: &str) {
        wait_for(&format!("{condition} to be {status} with {part:?}"), LIMIT, |last| {
            let found = self.cluster.sub_cluster()?.status.unwrap_or_default().conditions;
            let found = found.into_iter().find(|found| found.type_ == condition);
            *last = format!("{found:?}");
            Ok(found.is_some_and(|c| c.status == status && c.message.contains(part)).then_some(()))
        })
        .expect("the sub-cluster says so");
    }
}

#[test]
fn a_disk_that_hangs_or_fails_on_one_server_is_that_path_down_and_nothing_else() {
    let trial = faulty("disk-hangs");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let shown = |state| {
        trial.path_becomes(&active, &standby, "area", state);
        trial.path_becomes(&standby, &active, "area", state);
        trial.path_becomes(&active, &standby, "ic", PathState::Up);
        trial.path_becomes(&standby, &active, "pub", PathState::Up);
    };
    shown(PathState::Up);
    // On the active one, whose lock it is, too.
    for (fault, state, message) in [
        (DiskFault::Hang, DiskState::Hung, "no answer for"),
        (DiskFault::Errors, DiskState::Error, "Input/output error"),
    ] {
        for server in [&standby, &active] {
            trial.area(server, fault);
            trial.disk_becomes(server, state, message);
            shown(PathState::Down);
            trial.told("LockReachable", "False", server);
            trial.pass(trial.cluster.blueprint().timeout);
            trial.area(server, DiskFault::None);
            trial.disk_becomes(server, DiskState::Reachable, "");
            shown(PathState::Up);
        }
    }
    trial.told("LockReachable", "True", "");
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active.clone()]));

    // While it hangs, the agent goes on with everything else.
    trial.area(&active, DiskFault::Hang);
    trial.disk_becomes(&active, DiskState::Hung, "no answer for");
    trial.cluster.holdfast(&["move", GROUP, "--to", &standby, "-n", "ha"]).expect("a move");
    trial.cluster.wait_online(GROUP, Some(&standby), LIMIT).expect("it moved");
    trial.area(&active, DiskFault::None);
    shown(PathState::Up);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active, standby]));
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_disk_that_fails_everywhere_or_confirms_what_it_does_not_write_is_an_alarm_and_moves_nothing() {
    let trial = faulty("disk-errors");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    for server in [&active, &standby] {
        trial.area(server, DiskFault::Errors);
    }
    for server in [&active, &standby] {
        trial.disk_becomes(server, DiskState::Error, "Input/output error");
        trial.told("LockReachable", "False", &format!("{server}: Error"));
    }
    trial.path_becomes(&active, &standby, "area", PathState::Down);
    trial.told("PathsHealthy", "False", &format!("area to {standby}"));
    trial.pass(trial.cluster.blueprint().timeout * 2);
    for server in [&active, &standby] {
        trial.area(server, DiskFault::None);
    }
    trial.told("LockReachable", "True", "");
    trial.path_becomes(&active, &standby, "area", PathState::Up);

    trial.area(&standby, DiskFault::LostWrites);
    trial.path_becomes(&active, &standby, "area", PathState::Down);
    wait_for("the standby to say what is wrong with its slot", LIMIT, |last| {
        let path = crate::paths::shown(&trial, &standby, "area");
        *last = format!("{path:?}");
        Ok(path.filter(|path| path.message.contains("confirms writes that it does not make")).map(drop))
    })
    .expect("it is shown");
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.area(&standby, DiskFault::None);
    trial.path_becomes(&active, &standby, "area", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active]));
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn without_the_lock_nobody_takes_over_and_the_reason_is_told_until_the_disk_is_back() {
    let trial = faulty("disk-survivor");
    let victim = trial.active();
    let standby = trial.others(&victim);
    let epoch = trial.epoch();
    trial.area(&standby[0], DiskFault::Hang);
    trial.path_becomes(&victim, &standby[0], "area", PathState::Down);
    trial.cluster.power_cut(&victim).expect("a power cut");
    trial.told("QuorumHeld", "False", "lock: ");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    assert_eq!(trial.traces(&standby[0]), Vec::<String>::new(), "without the lock it must not start");
    assert_eq!(trial.epoch(), epoch);
    let back = boottime_ns();
    trial.area(&standby[0], DiskFault::None);
    trial.served_by(&standby, back);
    trial.members_become(&standby, epoch);
    assert_eq!(trial.history(), [victim, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_lock_whose_writes_are_lost_decides_for_nobody() {
    let trial = faulty("disk-forgets");
    let active = trial.active();
    let standby = trial.others(&active);
    let epoch = trial.epoch();
    // Each would find the other's ballot missing, and both would go on.
    trial.area(&active, DiskFault::LostWrites);
    trial.path_becomes(&standby[0], &active, "area", PathState::Down);
    let before = boottime_ns();
    trial.cluster.lab().cut_all_lans(&active).expect("cables out");
    trial.served_by(&standby, before);
    trial.comes_clean(&active);
    trial.members_become(&standby, epoch);
    // Nor for the one that is left, once it is the only one whose writes are lost.
    trial.area(&active, DiskFault::None);
    trial.cluster.lab().restore_all_lans(&active).expect("cables in");
    trial.all_return(epoch + 1);
    let epoch = trial.epoch();
    trial.area(&active, DiskFault::LostWrites);
    trial.path_becomes(&standby[0], &active, "area", PathState::Down);
    trial.cluster.power_cut(&standby[0]).expect("a power cut");
    trial.told("QuorumHeld", "False", "lock: ");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    assert_eq!((trial.traces(&active), trial.epoch()), (Vec::<String>::new(), epoch), "it must not start");
    trial.cluster.power_on(&standby[0]).expect("power");
    let server = trial.served_by(&trial.cluster.blueprint().servers, boottime_ns());
    trial.cluster.wait_online(GROUP, Some(&server), LIMIT).expect("the status follows");
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_lock_write_that_lands_long_after_its_server_died_changes_nothing() {
    let trial = faulty("disk-late");
    let victim = trial.active();
    let standby = trial.others(&victim);
    let epoch = trial.epoch();
    // Its ballot stays in the queue of the storage.
    trial.area(&victim, DiskFault::LateWrites);
    trial.disk_becomes(&victim, DiskState::Hung, "no answer for");
    let before = boottime_ns();
    trial.cluster.lab().cut_all_lans(&victim).expect("cables out");
    trial.served_by(&standby, before);
    trial.comes_clean(&victim);
    trial.members_become(&standby, epoch);
    trial.cluster.power_cut(&victim).expect("a power cut");
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let landed = trial.cluster.lab().land_writes(&victim, AREA).expect("the image is there");
    assert!(landed > 0, "something was on its way");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch);
    trial.cluster.power_on(&victim).expect("power");
    trial.all_return(epoch);
    assert_eq!(trial.history(), [victim, standby[0].clone()]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_damaged_or_vanished_area_is_named_on_that_server_and_path_only_and_heals() {
    let trial = faulty("disk-damaged");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    // Both copies of its header, as by a partitioning tool that looked for no owner.
    let image = trial.cluster.lab().directory().join(format!("{AREA}.img"));
    let image = fs::OpenOptions::new().read(true).write(true).open(image).expect("the image");
    let mut header = vec![0; HEADER];
    image.read_exact_at(&mut header, 0).expect("a header");
    image.write_all_at(&vec![0; HEADER], 0).expect("zeros");
    for server in [&active, &standby] {
        trial.disk_becomes(server, DiskState::Error, "/dev/holdfast/area holds no Holdfast area");
        trial.told("LockReachable", "False", &format!("{server}: Error"));
    }
    trial.path_becomes(&active, &standby, "area", PathState::Down);
    trial.path_becomes(&active, &standby, "ic", PathState::Up);
    image.write_all_at(&header, 0).expect("the header");
    trial.path_becomes(&active, &standby, "area", PathState::Up);
    trial.path_becomes(&standby, &active, "area", PathState::Up);

    // The device vanishes from one server, name and all.
    let host = trial.host(&standby);
    let link = host.exec(&["readlink", "/dev/holdfast/area"]).expect("a link").trim().to_owned();
    host.exec(&["rm", "/dev/holdfast/area"]).expect("it is removed");
    trial.area(&standby, DiskFault::Errors);
    trial.disk_becomes(&standby, DiskState::Error, "/dev/holdfast/area: No such file or directory");
    trial.disk_becomes(&active, DiskState::Reachable, "");
    trial.path_becomes(&active, &standby, "area", PathState::Down);
    trial.path_becomes(&standby, &active, "pub", PathState::Up);
    // An agent that starts without it works, too.
    host.stop_service(AGENT, LIMIT).expect("the agent leaves");
    trial.members_become(std::slice::from_ref(&active), epoch);
    host.start_service(AGENT).expect("the agent starts");
    trial.disk_becomes(&standby, DiskState::Error, "/dev/holdfast/area: No such file or directory");
    trial.path_becomes(&standby, &active, "ic", PathState::Up);
    trial.area(&standby, DiskFault::None);
    host.exec(&["ln", "-s", &link, "/dev/holdfast/area"]).expect("it is back");
    trial.all_return(epoch + 1);
    trial.path_becomes(&standby, &active, "area", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn an_agent_that_was_stopped_while_its_disk_hung_comes_back_by_itself() {
    let trial = faulty("disk-asleep");
    let active = trial.active();
    let sleeper = trial.others(&active).remove(0);
    let before = boottime_ns();
    for (lost_too, fault) in [(false, DiskFault::Hang), (true, DiskFault::Hang), (false, DiskFault::LateWrites)] {
        let epoch = trial.epoch();
        trial.area(&sleeper, fault);
        trial.disk_becomes(&sleeper, DiskState::Hung, "no answer for");
        let agents = trial.host(&sleeper).freeze_agent().expect("an agent to stop");
        trial.members_become(std::slice::from_ref(&active), epoch);
        if lost_too {
            // The one that is left can't use the lock either.
            trial.area(&active, DiskFault::Errors);
            trial.disk_becomes(&active, DiskState::Error, "Input/output error");
        }
        trial.pass(trial.cluster.blueprint().timeout * 2);
        trial.host(&sleeper).signal(&agents, Signal::SIGCONT).expect("it goes on");
        trial.area(&active, DiskFault::None);
        trial.pass(trial.cluster.blueprint().timeout);
        trial.area(&sleeper, DiskFault::None);
        trial.all_return(epoch + 1);
        trial.disk_becomes(&sleeper, DiskState::Reachable, "");
    }
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn without_lock_and_peer_a_server_stops_its_groups_and_starts_them_again_when_the_peer_goes_on() {
    // So long a timeout that a busy machine stops the group before the kill: the guard can end an agent that waits for a
    // hung disk, but the kernel keeps it until the disk answers, and until then nobody tells the API anything.
    let options = ClusterOptions { faulty_disks: true, ..ClusterOptions::default() };
    let trial = Trial::two_special("disk-alone", options, &|document| {
        document["spec"]["heartbeat"]["timeout"] = "3s".into();
    });
    let active = trial.active();
    let sleeper = trial.others(&active).remove(0);
    let epoch = trial.epoch();
    for fault in [DiskFault::Errors, DiskFault::Hang] {
        for server in [&active, &sleeper] {
            trial.area(server, fault);
        }
        trial.told("LockReachable", "False", &active);
        let agents = trial.host(&sleeper).freeze_agent().expect("an agent to stop");
        trial.comes_clean(&active);
        trial.told("QuorumHeld", "False", "lock: ");
        assert_eq!(trial.epoch(), epoch, "nobody decided anything");
        let back = boottime_ns();
        // The other agent goes on before any disk works.
        trial.host(&sleeper).signal(&agents, Signal::SIGCONT).expect("it goes on");
        let served = trial.served_by(&trial.cluster.blueprint().servers, back);
        trial.cluster.wait_online(GROUP, Some(&served), LIMIT).expect("the status follows");
        for server in [&active, &sleeper] {
            trial.area(server, DiskFault::None);
        }
        trial.all_active();
        trial.told("LockReachable", "True", "");
        trial.path_becomes(&active, &sleeper, "area", PathState::Up);
        trial.path_becomes(&sleeper, &active, "area", PathState::Up);
    }
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}
