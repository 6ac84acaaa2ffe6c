//! Settings of a running sub-cluster change (R21): timeout, paths, lock and servers, under a writing client. While they
//! change nothing stops; afterwards it is the new ones that decide.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::v1::{Anchor, PathState, SubClusterStatus};
use holdfast_lab::{AGENT, ClusterOptions, DiskFault, STATE_DIR, WITNESS, boottime_ns, documents, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};
use crate::paths::paths;
use crate::quorum::only;

/// The disk with heartbeat and lock of the example, and the one that comes in its place.
const AREA: &str = "holdfast-area";
const SPARE: &str = "holdfast-spare";

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).expect("YAML")
}

/// The specification of the sub-cluster.
fn sub_cluster(documents: &mut [(PathBuf, Value)]) -> &mut Value {
    let mut all = documents.iter_mut().map(|(_, document)| document);
    all.find(|document| document["kind"] == "SubCluster").expect("a sub-cluster")
}

fn set_timeout(spec: &mut Value, timeout: &str) {
    spec["spec"]["heartbeat"]["timeout"] = timeout.into();
}

/// The example with what `more` adds, of which `less` is declared at first.
fn trial(name: &str, options: ClusterOptions<'_>, more: &dyn Fn(&mut Value), less: &dyn Fn(&mut Value)) -> Trial {
    let declare = |documents: &mut Vec<(PathBuf, Value)>| less(sub_cluster(documents));
    let options = ClusterOptions { declare: Some(&declare), ..options };
    Trial::start_with(name, "two-servers", options, |documents| more(sub_cluster(documents)))
}

/// What shows that the group was not touched, by the kernel's word: the numbers of its processes on a server.
fn processes(trial: &Trial, server: &str) -> Vec<i32> {
    let all = trial.host(server).processes().expect("its processes");
    let own = all.iter().filter(|found| found.args[0].contains("nginx") || found.is_holdfast("lab-writer"));
    own.map(|found| found.pid).collect()
}

fn status(trial: &Trial) -> SubClusterStatus {
    trial.cluster.sub_cluster().expect("an answer").status.unwrap_or_default()
}

/// Applies a change of the SubCluster.
fn apply(trial: &mut Trial, change: &dyn Fn(&mut Value)) {
    trial.cluster.change(&|documents| change(sub_cluster(documents))).expect("the change is accepted");
}

/// Waits until what was applied last is in force.
fn in_force(trial: &Trial) {
    wait_for("the change to be in force", LIMIT, |last| {
        let found = trial.cluster.sub_cluster()?;
        let status = found.status.unwrap_or_default();
        let pending = status.conditions.into_iter().find(|condition| condition.type_ == "ConfigPending");
        *last = format!("{:?} of {:?}, {pending:?}", status.config_revision, found.metadata.generation);
        let wanted = found.metadata.generation.and_then(|generation| u64::try_from(generation).ok());
        Ok((pending.is_none() && status.config_revision == wanted).then_some(()))
    })
    .expect("the servers take it over");
}

/// Changes the SubCluster, waits until that is in force, and sees that it stopped nothing.
fn changed(trial: &mut Trial, change: &dyn Fn(&mut Value)) {
    let active = trial.active();
    let (before, running) = (boottime_ns(), processes(trial, &active));
    apply(trial, change);
    in_force(trial);
    untouched(trial, &active, &running, before);
}

/// The group runs on, on the same server, by the same processes, and its client missed nothing that counts.
fn untouched(trial: &Trial, active: &str, running: &[i32], since: u64) {
    let outage = trial.outage_since(since);
    assert!(outage < Duration::from_secs(1), "the client saw {outage:?}");
    assert_eq!(processes(trial, active), running, "nothing was restarted");
    assert_eq!(trial.active(), active);
}

/// Cuts the power of the active server, sees the takeover, and has it back as the standby. Returns both.
fn power_cut(trial: &Trial) -> (String, String) {
    let victim = trial.active();
    let (standby, epoch, before) = (trial.others(&victim), trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.taken_over_since(before);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    trial.cluster.power_on(&victim).expect("power");
    // One view without it, one with both again.
    trial.all_return(epoch + 1);
    (victim, survivor)
}

#[test]
fn the_timeout_changes_both_ways_and_the_new_one_decides() {
    let mut trial = Trial::two_with("change-timeout", &|spec| set_timeout(spec, "2s"));
    // Two seconds would not pass for a takeover within three times 500 ms, nor 500 ms for one of 2 s.
    changed(&mut trial, &|spec| set_timeout(spec, "500ms"));
    let (first, second) = power_cut(&trial);
    changed(&mut trial, &|spec| set_timeout(spec, "2s"));
    // Changed again before it is in force, and back: only the last one counts.
    let (active, before) = (trial.active(), boottime_ns());
    let running = processes(&trial, &active);
    for timeout in ["700ms", "3s", "2s"] {
        apply(&mut trial, &|spec| set_timeout(spec, timeout));
    }
    in_force(&trial);
    untouched(&trial, &active, &running, before);
    power_cut(&trial);
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}

/// Local addresses of the UDP sockets of a server, as its kernel shows them.
fn sockets(trial: &Trial, server: &str) -> String {
    trial.host(server).exec(&["ss", "-Huan"]).expect("its sockets")
}

#[test]
fn a_lan_is_added_and_another_removed_and_the_new_one_carries_alone() {
    const NEW: &str = "[{name: ic2, lan: {role: Interconnect, endpoints: [{server: alder, address: 10.0.2.1}, {server: birch, address: 10.0.2.2}]}}]";
    let without = |name: &'static str| {
        move |spec: &mut Value| {
            let list = spec["spec"]["heartbeat"]["paths"].as_sequence_mut().expect("paths");
            list.retain(|path| path["name"] != name);
        }
    };
    let mut trial = trial("change-lans", ClusterOptions::default(), &|spec| paths(spec, NEW, false), &without("ic2"));
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let both = |trial: &Trial, path: &str, state| {
        trial.path_becomes(&active, &standby, path, state);
        trial.path_becomes(&standby, &active, path, state);
    };
    changed(&mut trial, &|spec| paths(spec, NEW, false));
    both(&trial, "ic2", PathState::Up);
    changed(&mut trial, &without("ic"));
    for server in [&active, &standby] {
        wait_for("the removed LAN's sockets to be closed", LIMIT, |last| {
            *last = sockets(&trial, server);
            Ok((!last.contains("10.0.0.") && last.contains("10.0.2.")).then_some(()))
        })
        .expect("only the new one is open");
        wait_for("the removed LAN to be gone from the status", LIMIT, |last| {
            let shown = crate::paths::shown(&trial, server, "ic");
            *last = format!("{shown:?}");
            Ok(shown.is_none().then_some(()))
        })
        .expect("a removed path has no state");
    }

    // The API is on pub: only what the servers send each other there is lost.
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let lab = trial.cluster.lab();
    lab.one_way_loss(&active, &standby, "pub").expect("loss");
    lab.one_way_loss(&standby, &active, "pub").expect("loss");
    both(&trial, "pub", PathState::Down);
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch, "one LAN works: nothing moves");

    // The same name on other addresses: back to the network of before, while that is the only LAN.
    let moved = |spec: &mut Value| {
        let list = spec["spec"]["heartbeat"]["paths"].as_sequence_mut().expect("paths");
        let path = list.iter_mut().find(|path| path["name"] == "ic2").expect("ic2");
        path["lan"]["endpoints"] = yaml("[{server: alder, address: 10.0.0.1}, {server: birch, address: 10.0.0.2}]");
    };
    changed(&mut trial, &moved);
    let lab = trial.cluster.lab();
    for server in [&active, &standby] {
        lab.link_down(server, "ic2").expect("cable out");
    }
    both(&trial, "ic2", PathState::Up);
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

/// A disk more, with an area.
fn with_spare(spec: &mut Value) {
    let disks = spec["spec"]["disks"].as_sequence_mut().expect("disks");
    disks.push(yaml("{name: spare, device: /dev/holdfast/spare, area: {device: /dev/holdfast/spare}}"));
}

fn without_spare(spec: &mut Value) {
    spec["spec"]["disks"].as_sequence_mut().expect("disks").retain(|disk| disk["name"] != "spare");
}

/// Lock and heartbeat go to the other disk.
fn to_spare(spec: &mut Value) {
    with_spare(spec);
    spec["spec"]["quorum"]["lockDisk"]["disk"] = "spare".into();
    let list = spec["spec"]["heartbeat"]["paths"].as_sequence_mut().expect("paths");
    list.iter_mut().find(|path| path["name"] == "area").expect("the path")["disk"]["disk"] = "spare".into();
}

/// The bytes of the lock records of both servers on a disk, see docs/disk-area.md.
fn rings(trial: &Trial, disk: &str) -> Vec<u8> {
    let host = trial.host("alder");
    let wiring = host.disks().iter().find(|wiring| wiring.disk == disk).expect("it has that disk");
    let bytes = fs::read(&wiring.image).expect("the image");
    [1, 2].iter().flat_map(|slot| bytes[65536 * slot + 16384..65536 * slot + 49152].to_vec()).collect()
}

/// The lock decided the newest change of the view.
fn decided_by_the_lock(trial: &Trial, epoch: u64) {
    wait_for("the API to show what decided", LIMIT, |last| {
        let resolution = status(trial).last_resolution;
        *last = format!("{resolution:?}");
        Ok(resolution.filter(|found| found.epoch > Some(epoch) && found.arbiter == Some(Anchor::LockDisk)).map(drop))
    })
    .expect("the lock broke the tie");
}

#[test]
fn the_lock_moves_to_another_disk_and_a_partition_is_decided_there() {
    let mut trial = trial("change-lock", ClusterOptions::default(), &with_spare, &without_spare);
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    changed(&mut trial, &to_spare);
    trial.path_becomes(&active, &standby, "area", PathState::Up);
    trial.path_becomes(&standby, &active, "area", PathState::Up);

    let (old, new) = (rings(&trial, AREA), rings(&trial, SPARE));
    let epoch = trial.epoch();
    trial.cluster.lab().cut_all_lans(&active).expect("cables out");
    trial.pass(trial.cluster.blueprint().timeout * 4);
    let (on_active, on_standby) = (trial.traces(&active), trial.traces(&standby));
    assert!(on_active.is_empty() != on_standby.is_empty(), "{active}: {on_active:?}\n{standby}: {on_standby:?}");
    let survivor = if on_active.is_empty() { &standby } else { &active };
    assert_eq!(rings(&trial, AREA), old, "the old lock was not asked");
    assert_ne!(rings(&trial, SPARE), new, "the new one was");
    trial.cluster.lab().restore_all_lans(&active).expect("cables in");
    trial.all_return(epoch + 1);
    decided_by_the_lock(&trial, epoch);
    trial.cluster.wait_online(GROUP, Some(survivor), LIMIT).expect("it runs where it ran");
    let mut expected = vec![active.clone()];
    expected.extend((*survivor != active).then(|| survivor.clone()));
    assert_eq!(trial.history(), expected);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_broken_lock_is_replaced_while_both_servers_live_and_the_new_one_decides() {
    let options = ClusterOptions { faulty_disks: true, ..ClusterOptions::default() };
    let mut trial = trial("broken-lock", options, &with_spare, &without_spare);
    let lock_reachable = |trial: &Trial, wanted: &str| {
        wait_for(&format!("LockReachable to be {wanted}"), LIMIT, |last| {
            let found = status(trial).conditions.into_iter().find(|found| found.type_ == "LockReachable");
            *last = format!("{found:?}");
            Ok(found.is_some_and(|found| found.status == wanted).then_some(()))
        })
        .expect("the sub-cluster shows it");
    };
    for server in &trial.cluster.blueprint().servers {
        trial.cluster.lab().set_disk(server, AREA, DiskFault::Errors).expect("it has that disk");
    }
    lock_reachable(&trial, "False");
    changed(&mut trial, &to_spare);
    lock_reachable(&trial, "True");
    // One of two goes on only with the vote of a lock.
    let epoch = trial.epoch();
    let victim = trial.active();
    let (standby, before) = (trial.others(&victim), boottime_ns());
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.taken_over_since(before);
    decided_by_the_lock(&trial, epoch);
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

/// A third server, on every LAN; three of them need no lock.
fn with_third(spec: &mut Value) {
    let spec = &mut spec["spec"];
    spec["servers"].as_sequence_mut().expect("servers").push(yaml("{name: cedar, id: 3}"));
    for path in spec["heartbeat"]["paths"].as_sequence_mut().expect("paths") {
        let address = if path["name"] == "ic" { "10.0.0.3" } else { "192.0.2.3" };
        let endpoints = path["lan"]["endpoints"].as_sequence_mut().expect("endpoints");
        endpoints.push(yaml(&format!("{{server: cedar, address: {address}}}")));
    }
    spec["quorum"] = yaml("{type: Majority}");
}

fn waits_for(trial: &Trial, part: &str) {
    wait_for(&format!("ConfigPending to say {part:?}"), LIMIT, |last| {
        let found = status(trial).conditions.into_iter().find(|found| found.type_ == "ConfigPending");
        *last = format!("{found:?}");
        Ok(found.filter(|found| found.message.contains(part)).map(drop))
    })
    .expect("the sub-cluster says what it waits for");
}

/// Changes that name a lock which does not exist yet leave the old one in force, with its own credentials.
#[test]
fn another_quorum_server_with_other_credentials_decides_once_it_is_there_and_the_old_one_until_then() {
    let two = |documents: &mut [(PathBuf, Value)]| only(documents, &["alder", "birch"]);
    let mut trial = Trial::start_with("change-witness", "four-servers", ClusterOptions::default(), two);
    let witness = trial.host(WITNESS);
    let data = format!("{STATE_DIR}/quorum-server");
    let (secret, admin) = (format!("{STATE_DIR}/other.yaml"), format!("{data}/admin.kubeconfig"));
    let issue = ["holdfast", "lock", "credentials", "ha/other", "--data-dir", &data, "--secret", "ha/other", "--out"];
    witness.exec(&[issue.as_slice(), &[secret.as_str()]].concat()).expect("credentials");
    trial.cluster.apply(&witness.state_dir().join("other.yaml")).expect("the Secret");
    let (first, before) = (trial.active(), boottime_ns());
    let running = processes(&trial, &first);
    apply(&mut trial, &|spec| {
        let server = &mut spec["spec"]["quorum"]["quorumServer"];
        server["lease"]["name"] = "other".into();
        server["credentialSecret"] = "other".into();
    });
    waits_for(&trial, "the new quorum server can't be used");
    untouched(&trial, &first, &running, before);
    let (_, second) = power_cut(&trial);

    witness.exec(&["holdfast", "lock", "create", "ha/other", "--kubeconfig", &admin]).expect("the new lock");
    in_force(&trial);
    let inspect = |name: &str| {
        witness.exec(&["holdfast", "lock", "inspect", name, "--kubeconfig", &admin]).expect("the lock is readable")
    };
    let (old, new) = (inspect("ha/quartet"), inspect("ha/other"));
    power_cut(&trial);
    assert_eq!(inspect("ha/quartet"), old, "the old lock was not asked");
    assert_ne!(inspect("ha/other"), new, "the new one was");
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_third_server_joins_later_and_leaves_again_and_at_each_moment_one_that_is_lost_is_taken_over() {
    let more = |documents: &mut [(PathBuf, Value)]| only(documents, &["alder", "birch", "cedar"]);
    let declare = |documents: &mut Vec<(PathBuf, Value)>| only(documents, &["alder", "birch"]);
    let options = ClusterOptions { declare: Some(&declare), ..ClusterOptions::default() };
    let mut trial = Trial::start_with("change-servers", "four-servers", options, more);
    let quorum =
        sub_cluster(&mut documents(trial.cluster.manifests()).expect("the manifests"))["spec"]["quorum"].clone();
    let two = trial.cluster.blueprint().servers.clone();
    let (first, before) = (trial.active(), boottime_ns());
    let running = processes(&trial, &first);

    // It is declared and away: the two stay two with their lock, which decides about the loss of one.
    apply(&mut trial, &with_third);
    waits_for(&trial, "the third one has to join before the lock goes");
    untouched(&trial, &first, &running, before);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&first).expect("a power cut");
    let second = trial.served_by(&trial.others(&first), before);
    trial.taken_over_since(before);
    trial.cluster.power_on(&first).expect("power");
    trial.members_become(&two, epoch + 1);

    let (epoch, before) = (trial.epoch(), boottime_ns());
    let running = processes(&trial, &second);
    let third = trial.host("cedar");
    third.start_service(AGENT).expect("the agent starts");
    trial.all_return(epoch);
    in_force(&trial);
    untouched(&trial, &second, &running, before);
    // Three need no lock any more.
    trial.cluster.lab().power_cut(WITNESS).expect("a power cut");
    let (_, third_tenure) = power_cut(&trial);
    assert_eq!(third_tenure, first, "the group may not run on the new one");
    trial.cluster.power_on_witness().expect("power");

    // Out of service first, then removed.
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let running = processes(&trial, &first);
    apply(&mut trial, &|spec| {
        spec["spec"]["servers"][2]["state"] = "Detached".into();
        spec["spec"]["quorum"] = quorum.clone();
    });
    trial.members_become(&two, epoch);
    in_force(&trial);
    trial.cluster.change(&|documents| only(documents, &["alder", "birch"])).expect("it is removed");
    in_force(&trial);
    untouched(&trial, &first, &running, before);
    power_cut(&trial);
    assert_eq!(trial.history(), [first.clone(), second.clone(), first, second]);
    trial.cluster.close().expect("the lab goes");
}
