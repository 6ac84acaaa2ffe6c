//! Devices that are missing when the agent starts, or vanish under it: network cards, serial lines, watchdogs (the shared
//! disk is in `disk_faults.rs`). Each is named with its server on that path only, and is used again when it is back.

use holdfast_api::v1::PathState;
use holdfast_lab::{AGENT, ClusterOptions, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{LIMIT, Trial};
use crate::paths::{LINE, paths, told};

/// Two servers with everything; the interconnect is bound to its interface, the public LAN to its address only.
fn equipped(name: &str, watchdog: &'static str) -> Trial {
    let options = ClusterOptions { watchdogs: true, ..ClusterOptions::default() };
    Trial::two_special(name, options, &|document: &mut Value| {
        paths(document, LINE, true);
        document["spec"]["heartbeat"]["paths"][0]["lan"]["interface"] = "ic".into();
        document["spec"]["watchdog"] = serde_yaml::from_str(watchdog).expect("YAML");
    })
}

/// Waits until a condition of a server has this status, with a message that contains `part`.
fn condition(trial: &Trial, server: &str, type_: &str, status: &str, part: &str) {
    wait_for(&format!("{type_} of {server} to be {status} with {part:?}"), LIMIT, |last| {
        let all = trial.cluster.servers()?[server].status.clone().map(|s| s.conditions).unwrap_or_default();
        let found = all.into_iter().find(|found| found.type_ == type_);
        *last = format!("{found:?}");
        Ok(found.is_some_and(|c| c.status == status && c.message.contains(part)).then_some(()))
    })
    .expect("the server says so");
}

/// Takes a device file away, to another name.
fn hide(trial: &Trial, server: &str, device: &str) {
    let script = format!("touch {device}.hidden && mount --move {device} {device}.hidden && rm {device}");
    trial.host(server).exec(&["sh", "-c", &script]).expect("it is hidden");
}

fn show(trial: &Trial, server: &str, device: &str) {
    let script = format!("touch {device} && mount --move {device}.hidden {device} && rm {device}.hidden");
    trial.host(server).exec(&["sh", "-c", &script]).expect("it is back");
}

#[test]
fn devices_that_vanish_under_an_agent_are_named_on_their_paths_only_and_are_used_again() {
    let trial = equipped("vanishes", "{mode: IfPresent, timeout: 1s}");
    let lab = trial.cluster.lab();
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let both = |path, state| {
        trial.path_becomes(&active, &standby, path, state);
        trial.path_becomes(&standby, &active, path, state);
    };
    // Of the server that runs the group.
    for path in ["ic", "pub", "area", "com"] {
        both(path, PathState::Up);
    }
    lab.remove_interface(&active, "ic").expect("the card is out");
    let path = told(&trial, &active, "ic", "over the interface ic");
    assert!(path.state == PathState::Error && path.message.contains("No such device"), "{path:?}");
    trial.path_becomes(&standby, &active, "ic", PathState::Down);
    both("pub", PathState::Up);
    lab.add_interface(&active, "ic").expect("the card is in");
    both("ic", PathState::Up);

    let ends = &trial.cluster.blueprint().serials[0].devices;
    let end = ends.keys().position(|server| *server == active).expect("it has an end");
    hide(&trial, &active, "/dev/ttyS0");
    lab.hang_up_serial("com", end).expect("the adapter is out");
    let path = told(&trial, &active, "com", "/dev/ttyS0 can't be opened: No such file or directory");
    assert_eq!(path.state, PathState::Error);
    trial.path_becomes(&standby, &active, "com", PathState::Down);
    show(&trial, &active, "/dev/ttyS0");
    both("com", PathState::Up);

    condition(&trial, &active, "WatchdogArmed", "True", "Holdfast lab");
    lab.set_watchdog(&active, false).expect("it fails");
    condition(&trial, &active, "WatchdogArmed", "False", "watchdog.device /dev/watchdog: petting it: No such device");
    lab.set_watchdog(&active, true).expect("it works");
    condition(&trial, &active, "WatchdogArmed", "True", "Holdfast lab");
    for path in ["ic", "pub", "area", "com"] {
        both(path, PathState::Up);
    }
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active]));
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn devices_that_are_missing_when_an_agent_starts_are_named_and_it_takes_part_without_them() {
    let trial = equipped("missing", "{mode: IfPresent, timeout: 1s}");
    let lab = trial.cluster.lab();
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.host(&standby).stop_service(AGENT, LIMIT).expect("the agent leaves");
    trial.members_become(std::slice::from_ref(&active), epoch);
    lab.remove_interface(&standby, "ic").expect("the card is out");
    for device in ["/dev/ttyS0", "/dev/watchdog"] {
        hide(&trial, &standby, device);
    }
    trial.host(&standby).start_service(AGENT).expect("the agent starts");
    trial.all_return(epoch + 1);
    told(&trial, &standby, "ic", "10.0.0.");
    let path = told(&trial, &standby, "ic", "over the interface ic can't be bound: No such device");
    assert_eq!(path.state, PathState::Error);
    let path = told(&trial, &standby, "com", "/dev/ttyS0 can't be opened: No such file or directory");
    assert_eq!(path.state, PathState::Error);
    condition(&trial, &standby, "WatchdogArmed", "False", "watchdog.device /dev/watchdog does not exist");
    trial.path_becomes(&standby, &active, "pub", PathState::Up);
    trial.path_becomes(&standby, &active, "area", PathState::Up);
    lab.add_interface(&standby, "ic").expect("the card is in");
    show(&trial, &standby, "/dev/ttyS0");
    trial.path_becomes(&standby, &active, "ic", PathState::Up);
    trial.path_becomes(&standby, &active, "com", PathState::Up);

    // An address that no interface has is not the network's fault, and is said so.
    let pub_lan = trial.cluster.blueprint().lans.iter().find(|lan| lan.name == "pub").expect("pub");
    let address = format!("{}/{}", pub_lan.addresses[&standby], pub_lan.prefix);
    let del = |verb: &str| trial.host(&standby).exec(&["ip", "address", verb, &address, "dev", "pub"]);
    del("del").expect("the address is gone");
    trial.path_becomes(&active, &standby, "pub", PathState::Down);
    // The API is on that network: what the agent says is heard once it is there again, or from the agent itself.
    let said = trial.host(&standby).exec(&["sh", "-c", "tail -n 40 /var/log/holdfast/agent.log"]).expect("its log");
    assert!(said.contains(&format!("{} is on no interface of this server", pub_lan.addresses[&standby])), "{said}");
    del("add").expect("the address is back");
    trial.path_becomes(&standby, &active, "pub", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_server_without_the_watchdog_that_it_must_have_takes_no_part_says_why_and_joins_when_it_is_there() {
    let trial = equipped("must-have", "{mode: Required, timeout: 1s}");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let host = trial.host(&standby);
    host.stop_service(AGENT, LIMIT).expect("the agent leaves");
    trial.members_become(std::slice::from_ref(&active), epoch);
    hide(&trial, &standby, "/dev/watchdog");
    host.start_service(AGENT).expect("the agent starts");
    condition(&trial, &standby, "WatchdogArmed", "False", "watchdog.device /dev/watchdog does not exist");
    let part = "watchdog.mode is Required and this server's guard holds no watchdog (/dev/watchdog)";
    condition(&trial, &standby, "Ready", "False", part);
    trial.pass(trial.cluster.blueprint().timeout * 2);
    assert_eq!(trial.epoch(), epoch + 1, "it does not join");
    // Its driver is loaded late.
    show(&trial, &standby, "/dev/watchdog");
    trial.all_return(epoch + 1);
    condition(&trial, &standby, "WatchdogArmed", "True", "Holdfast lab");
    condition(&trial, &standby, "Ready", "True", "");
    assert!(trial.cluster.lab().resets().is_empty());
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}
