//! Who does not belong to the sub-cluster: heartbeats of others, a second machine with the name or the number of a server,
//! an area that is somebody else's. Each is named where a person looks, and nothing else is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::v1::{DiskState, PathState};
use holdfast_lab::{
    AGENT, BIN_DIR, CableConfig, ClusterOptions, Host, HostConfig, STATE_DIR, ServiceSpec, boottime_ns, documents,
    wait_for,
};

use crate::harness::{LIMIT, Trial};
use crate::paths::{shown, told};

/// The stranger's host.
const STRANGER: &str = "cedar";
const AREA: &str = "holdfast-area";
const LANS: [&str; 2] = ["ic", "pub"];

/// What a stranger believes.
struct Belief<'a> {
    /// Its own name.
    server: &'a str,
    /// Its number; none: that of the server of this name.
    id: Option<u8>,
    /// Name of the sub-cluster.
    sub_cluster: &'a str,
    /// The heartbeat keys, in base64; none: the right ones.
    key: Option<&'a str>,
}

const RIGHT: Belief<'static> = Belief { server: STRANGER, id: Some(3), sub_cluster: "shop", key: None };

/// A machine with an agent on the networks of the sub-cluster, off.
fn stranger(trial: &Trial, area: bool) -> Arc<Host> {
    let networks = trial.cluster.blueprint().lans.iter().map(|lan| CableConfig {
        network: lan.network.clone(),
        interface: None,
        addresses: vec![(trial.cluster.blueprint().spare_address(lan, 7).expect("an address"), lan.prefix)],
    });
    let command =
        [&format!("{BIN_DIR}/holdfast"), "agent", "--config", &format!("{STATE_DIR}/agent.yaml")].map(str::to_owned);
    let agent = ServiceSpec { name: AGENT.into(), command: command.to_vec(), environment: BTreeMap::new() };
    let disks = if area { vec![(AREA.to_owned(), vec!["/dev/holdfast/area".into()])] } else { Vec::new() };
    let config = HostConfig { networks: networks.collect(), disks, services: vec![agent], ..HostConfig::default() };
    trial.cluster.lab().add_host(STRANGER, &config).expect("another host")
}

/// Installs an agent that believes this, without an API, and switches its machine on.
fn begin(trial: &Trial, host: &Arc<Host>, belief: &Belief<'_>) {
    let all = documents(trial.cluster.manifests()).expect("the manifests");
    let mut object =
        all.into_iter().map(|(_, d)| d).find(|document| document["kind"] == "SubCluster").expect("a sub-cluster");
    object["metadata"]["name"] = belief.sub_cluster.into();
    let spec = &mut object["spec"];
    if let Some(id) = belief.id {
        // In the place of the second server.
        spec["servers"][1] = serde_yaml::from_str(&format!("{{name: {}, id: {id}}}", belief.server)).expect("YAML");
    }
    spec["startup"]["gracePeriod"] = "3s".into();
    for path in spec["heartbeat"]["paths"].as_sequence_mut().expect("paths").iter_mut() {
        let Some(lan) = trial.cluster.blueprint().lans.iter().find(|lan| path["name"] == lan.name.as_str()) else {
            continue;
        };
        let own = trial.cluster.blueprint().spare_address(lan, 7).expect("an address");
        let endpoints = path["lan"]["endpoints"].as_sequence_mut().expect("endpoints");
        let place = usize::from(endpoints[0]["server"] != belief.server);
        endpoints[place] =
            serde_yaml::from_str(&format!("{{server: {}, address: {own}}}", belief.server)).expect("YAML");
    }
    let known = trial.host(&trial.cluster.blueprint().servers[0]).state_dir().join("agent/specs/keys.json");
    let known = fs::read_to_string(known).expect("the keys of a server");
    let keys = belief.key.map_or(known, |key| format!("{{\"1\": \"{key}\"}}"));
    let secret = format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: {}-heartbeat, namespace: ha}}, data: {keys}}}",
        belief.sub_cluster
    );
    let object = serde_yaml::to_string(&object).expect("YAML");
    fs::write(host.state_dir().join("bootstrap.yaml"), format!("{object}---\n{secret}\n")).expect("a manifest");
    let agent = serde_json::json!({
        "namespace": "ha", "subCluster": belief.sub_cluster, "server": belief.server,
        "credentials": format!("{STATE_DIR}/none"), "bootstrapManifest": format!("{STATE_DIR}/bootstrap.yaml"),
        "dataDir": format!("{STATE_DIR}/agent"), "runDir": "/run/holdfast", "cgroup": "/sys/fs/cgroup/holdfast",
    });
    fs::write(host.state_dir().join("agent.yaml"), agent.to_string()).expect("an agent file");
    trial.cluster.power_on(STRANGER).expect("power");
}

/// Gives it what another agent promised and was told, as in a copy of that machine.
fn copy(of: &Host, to: &Host) {
    let (from, to) = (of.state_dir().join("agent"), to.state_dir().join("agent"));
    let copy = format!("cp -a {} {} && rm -r {}/specs", from.display(), to.display(), to.display());
    holdfast_lab::run("sh", &["-c", &copy]).expect("a copy");
}

/// Switches its machine off and forgets what its agent knew.
fn end(trial: &Trial, host: &Host) {
    trial.cluster.power_cut(STRANGER).expect("a power cut");
    let _ = fs::remove_dir_all(host.state_dir().join("agent"));
}

#[test]
fn heartbeats_of_another_key_sub_cluster_or_server_are_refused_by_address_and_change_nothing() {
    let trial = Trial::two("foreign-frames");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let host = stranger(&trial, false);
    // Named after the second server, in whose place it stands, the first one is whom it speaks to.
    let spoken_to = trial.cluster.blueprint().servers[0].clone();
    let key = "/////////////////////w==";
    for (belief, part) in [
        (Belief { key: Some(key), ..RIGHT }, "the authentication fails: another key 1,"),
        (Belief { sub_cluster: "other", ..RIGHT }, "the authentication fails: another key 1, another sub-cluster"),
        (RIGHT, "a heartbeat of \"cedar\", which has no endpoint on this path"),
    ] {
        begin(&trial, &host, &belief);
        for lan in LANS {
            let path = told(&trial, &spoken_to, lan, part);
            assert_eq!(path.state, PathState::Up, "{path:?}");
            assert!(path.message.starts_with("from "), "it says who sends: {}", path.message);
        }
        end(&trial, &host);
        for lan in LANS {
            wait_for("the message to be gone", LIMIT, |last| {
                let path = shown(&trial, &spoken_to, lan).expect("it is there");
                *last = path.message.clone();
                Ok(path.message.is_empty().then_some(()))
            })
            .expect("nobody is refused any more");
        }
    }
    trial.path_becomes(&active, &standby, "area", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active]));
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_second_machine_with_the_name_of_a_server_is_told_and_pushes_nobody_out() {
    let trial = Trial::two("same-name");
    // The name of the second server, which speaks to the first; the group runs on the second.
    let [first, second] = &trial.cluster.blueprint().servers[..] else { panic!("two servers") };
    if trial.active() != *second {
        trial.cluster.holdfast(&["move", "web", "--to", second, "-n", "ha"]).expect("a move");
        trial.cluster.wait_online("web", Some(second), LIMIT).expect("it moved");
    }
    let (epoch, before, history) = (trial.epoch(), boottime_ns(), trial.history());
    let host = stranger(&trial, false);
    let same = Belief { server: second, id: None, ..RIGHT };
    for copied in [false, true] {
        if copied {
            copy(&trial.host(second), &host);
        }
        begin(&trial, &host, &same);
        for lan in LANS {
            let path = told(&trial, first, lan, &format!("two machines say that they are {second}: boots "));
            assert_eq!((path.peer.as_str(), path.state), (second.as_str(), PathState::Up));
        }
        trial.path_becomes(second, first, "pub", PathState::Up);
        trial.pass(trial.cluster.blueprint().timeout * 3);
        end(&trial, &host);
        assert_eq!(trial.epoch(), epoch, "copied: {copied}");
    }
    // Nor does it shut the first one out of the memory of who was heard.
    trial.host(first).stop_service(AGENT, LIMIT).expect("the agent leaves");
    trial.members_become(std::slice::from_ref(second), epoch);
    trial.host(first).start_service(AGENT).expect("it is back");
    trial.all_return(epoch + 1);
    trial.path_becomes(first, second, "pub", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), history);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_second_machine_with_name_and_number_of_a_server_is_told_on_the_disk_path_only() {
    let trial = Trial::two("same-slot");
    let active = trial.active();
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let host = stranger(&trial, true);
    let [first, second] = &trial.cluster.blueprint().servers[..] else { panic!("two servers") };
    // A new machine under another name, with the number of the second server, finds records of a sub-cluster that it does
    // not know in the area, and writes nothing there.
    begin(&trial, &host, &Belief { id: Some(2), ..RIGHT });
    told(&trial, first, "ic", &format!("a heartbeat of \"{STRANGER}\", which has no endpoint on this path"));
    for (from, to) in [(first, second), (second, first)] {
        let path = shown(&trial, from, "area").expect("it is there");
        assert_eq!((path.peer, path.state, path.message), (to.clone(), PathState::Up, String::new()));
    }
    end(&trial, &host);
    // A copy of the second one's disk, as the second one.
    copy(&trial.host(second), &host);
    begin(&trial, &host, &Belief { server: second, id: None, ..RIGHT });
    told(&trial, second, "area", &format!("another machine writes into slot 2 of the area, the one of {second}"));
    for (from, to) in [(first, second), (second, first)] {
        for lan in LANS {
            trial.path_becomes(from, to, lan, PathState::Up);
        }
    }
    // Long past its grace time it has taken nothing, although the lock and its vote would be a quorum.
    trial.pass(trial.cluster.blueprint().timeout * 15);
    end(&trial, &host);
    trial.path_becomes(first, second, "area", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active]));
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn an_area_of_another_sub_cluster_or_a_blank_one_is_named_and_nothing_is_written_to_it() {
    let image_of = |trial: &Trial| trial.cluster.lab().directory().join(format!("{AREA}.img"));
    let other = Trial::two("area-of-others");
    let theirs = fs::read(image_of(&other)).expect("the image");
    let their_id = other.cluster.sub_cluster().expect("it is there").status.and_then(|status| status.cluster_id);
    let their_id = their_id.expect("it has an id");
    other.cluster.close().expect("the lab goes");

    let options = ClusterOptions { faulty_disks: true, ..ClusterOptions::default() };
    let trial = Trial::two_special("area-foreign", options, &|_| {});
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let image = fs::OpenOptions::new().read(true).write(true).open(image_of(&trial)).expect("the image");
    let mut ours = vec![0; theirs.len()];
    image.read_exact_at(&mut ours, 0).expect("the area");
    // The wrong volume is shown to both servers.
    image.write_all_at(&theirs, 0).expect("another area");
    for server in [&active, &standby] {
        disk_says(&trial, server, DiskState::Foreign, &format!("belongs to the sub-cluster {their_id}"));
    }
    trial.path_becomes(&active, &standby, "area", PathState::Down);
    trial.path_becomes(&standby, &active, "pub", PathState::Up);
    // What was on its way before it was looked at may have been written.
    image.write_all_at(&theirs, 0).expect("another area");
    trial.pass(trial.cluster.blueprint().timeout * 3);
    let mut now = vec![0; theirs.len()];
    image.read_exact_at(&mut now, 0).expect("the area");
    assert!(now == theirs, "something was written to the area of others");

    image.write_all_at(&ours, 0).expect("the right one");
    for server in [&active, &standby] {
        disk_says(&trial, server, DiskState::Reachable, "");
    }
    // Somebody formats it under way: it is no lock that has promised anything.
    let format = ["holdfast", "disk", "format", "--device", "/dev/holdfast/area", "--overwrite"];
    let refusal = trial.host(&standby).exec(&format).expect_err("it is in use").to_string();
    let lock = refusal.split("--discard-lock ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let lock = lock.unwrap_or_else(|| panic!("no way out is told: {refusal}")).trim_end_matches(['`', '.', ',']);
    let format = [&format[..], &["--discard-lock", lock]].concat();
    trial.host(&standby).exec(&format).expect("it is formatted");
    for server in [&active, &standby] {
        disk_says(&trial, server, DiskState::Error, &format!("but the sub-cluster's lock is {lock}"));
    }
    trial.pass(Duration::from_secs(1));
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active]));
    trial.cluster.close().expect("the lab goes");
}

/// Waits until a server says this of its shared disk.
fn disk_says(trial: &Trial, server: &str, state: DiskState, part: &str) {
    wait_for(&format!("the disk of {server} to be {state:?} with {part:?}"), LIMIT, |last| {
        let disks = trial.cluster.servers()?[server].status.clone().map(|status| status.disks).unwrap_or_default();
        *last = format!("{disks:?}");
        Ok(disks.iter().any(|disk| disk.state == state && disk.message.contains(part)).then_some(()))
    })
    .expect("the API shows it");
}
