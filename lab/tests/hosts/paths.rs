//! Heartbeat paths of every kind: serial lines, IPv6, several LANs, and what does not belong on them.

use holdfast_api::v1::{HeartbeatKeys, PathState, PathStatus, ResolutionCause};
use holdfast_lab::{AGENT, CLIENT, LineState, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{LIMIT, Trial};

/// Adds paths to a SubCluster, and takes the one over the disk away if `disk` says so.
pub(crate) fn paths(spec: &mut Value, added: &str, disk: bool) {
    let list = spec["spec"]["heartbeat"]["paths"].as_sequence_mut().expect("the example has paths");
    if !disk {
        list.retain(|path| path.get("disk").is_none());
    }
    let added: Vec<Value> = serde_yaml::from_str(added).expect("YAML");
    list.extend(added);
}

/// A serial line between the two servers.
pub(crate) const LINE: &str =
    "[{name: com, serial: {devices: [{server: alder, device: /dev/ttyS0}, {server: birch, device: /dev/ttyS0}]}}]";

/// What the API shows of a path.
pub(crate) fn shown(trial: &Trial, server: &str, path: &str) -> Option<PathStatus> {
    let servers = trial.cluster.servers().expect("the API answers");
    let status = servers.get(server)?.status.clone()?;
    status.paths.into_iter().find(|found| found.path == path)
}

/// Waits until the API shows a message on a path that contains `part`.
pub(crate) fn told(trial: &Trial, server: &str, path: &str, part: &str) -> PathStatus {
    wait_for(&format!("{server} to say {part:?} about {path}"), LIMIT, |last| {
        let found = shown(trial, server, path);
        *last = format!("{found:?}");
        Ok(found.filter(|found| found.message.contains(part)))
    })
    .expect("the API shows what is wrong")
}

#[test]
fn a_serial_line_is_up_and_its_loss_or_noise_moves_nothing() {
    let trial = Trial::two_with("serial-line", &|spec| paths(spec, LINE, true));
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let both = |state| {
        trial.path_becomes(&active, &standby, "com", state);
        trial.path_becomes(&standby, &active, "com", state);
    };
    both(PathState::Up);
    assert!(shown(&trial, &standby, "com").and_then(|path| path.latency).is_some(), "its latency is measured");
    trial.cluster.lab().set_serial("com", LineState::Cut).expect("the line is cut");
    both(PathState::Down);
    trial.cluster.lab().set_serial("com", LineState::Through).expect("the line works");
    both(PathState::Up);
    trial.cluster.lab().set_serial("com", LineState::Noise).expect("the line is noisy");
    both(PathState::Down);
    told(&trial, &active, "com", "bytes arrive that are no frame");
    trial.path_becomes(&standby, &active, "ic", PathState::Up);
    trial.cluster.lab().set_serial("com", LineState::Through).expect("the line works");
    both(PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch, "no new view was needed");
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn with_only_a_serial_line_left_servers_are_partitioned_and_not_suspected() {
    let trial = Trial::two_with("serial-left", &|spec| paths(spec, LINE, false));
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let epoch = trial.epoch();
    trial.path_becomes(&active, &standby, "com", PathState::Up);
    trial.cluster.lab().cut_all_lans(&standby).expect("cables out");
    let resolution = wait_for("the partition to be resolved", LIMIT, |last| {
        let status = trial.cluster.sub_cluster()?.status.unwrap_or_default();
        *last = format!("{:?}", status.last_resolution);
        Ok(status.last_resolution.filter(|resolution| resolution.epoch > Some(epoch)))
    });
    // Either may win the lock; when the one that is cut off does, the API hears of it later.
    trial.cluster.lab().restore_all_lans(&standby).expect("cables in");
    let resolution = resolution.expect("the API shows it");
    assert_eq!(resolution.cause, Some(ResolutionCause::Partition));
    assert_eq!(resolution.paths, ["ic", "pub"], "the line was alive");
    trial.all_return(epoch + 1);
    trial.cluster.wait_online("web", None, LIMIT).expect("it runs");
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn any_number_of_lans_of_both_families_work_and_the_last_one_is_enough() {
    const LANS: &str = "[
        {name: ic6, lan: {role: Interconnect, endpoints: [{server: alder, address: 'fd00:6::1'}, {server: birch, address: 'fd00:6::2'}]}},
        {name: ic2, lan: {role: Interconnect, port: 7790, endpoints: [{server: alder, address: 10.0.2.1}, {server: birch, address: 10.0.2.2}]}},
        {name: pub6, lan: {role: Public, endpoints: [{server: alder, address: 'fd00:7::1'}, {server: birch, address: 'fd00:7::2'}]}}]";
    let trial = Trial::two_with("many-lans", &|spec| paths(spec, LANS, false));
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let all = ["ic", "pub", "ic6", "ic2", "pub6"];
    for path in all {
        trial.path_becomes(&active, &standby, path, PathState::Up);
        trial.path_becomes(&standby, &active, path, PathState::Up);
        let seen = shown(&trial, &active, path).expect("it is up");
        assert!(seen.latency.is_some() && seen.loss_percent.is_some(), "{seen:?}");
    }
    // The API is on pub; every other LAN that connects the servers goes, but one of IPv6.
    for path in ["ic", "ic2", "pub6"] {
        trial.cluster.lab().link_down(&standby, path).expect("cable out");
        trial.path_becomes(&active, &standby, path, PathState::Down);
    }
    trial.cluster.lab().one_way_loss(&active, &standby, "pub").expect("loss");
    trial.cluster.lab().one_way_loss(&standby, &active, "pub").expect("loss");
    trial.path_becomes(&active, &standby, "pub", PathState::Down);
    trial.path_becomes(&active, &standby, "ic6", PathState::Up);
    wait_for("the exchange to run over IPv6", LIMIT, |last| {
        let path = shown(&trial, &active, "ic6");
        *last = format!("{path:?}");
        Ok(path.filter(|path| path.carries_exchange))
    })
    .expect("messages have a way");
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch, "one LAN works: nothing moves");
    // Assignments go over it: a move works.
    let args = ["move", "web", "--to", &standby, "-n", "ha"];
    trial.cluster.holdfast(&args).expect("a move");
    trial.cluster.wait_online("web", Some(&standby), LIMIT).expect("it moved");
    assert_eq!(trial.history(), [active, standby]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn what_strangers_send_is_shown_with_their_address_and_changes_nothing() {
    let trial = Trial::two("strangers");
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    let client = trial.host(CLIENT);
    let address = trial.cluster.blueprint().lans.iter().find(|lan| lan.name == "pub").expect("pub").addresses[&active];
    let stranger = format!("for i in $(seq 50); do echo rubbish >/dev/udp/{address}/7788; sleep 0.1; done");
    client.exec(&["bash", "-c", &stranger]).expect("the client sends rubbish");
    let path = told(&trial, &active, "pub", "8 bytes that are no Holdfast envelope");
    assert_eq!(path.state, PathState::Up);
    assert!(path.message.contains("from 192.0.2."), "{}", path.message);
    assert_eq!(shown(&trial, &active, "ic").expect("it is there").message, "", "that path has nothing to do with it");
    trial.path_becomes(&standby, &active, "pub", PathState::Up);
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_key_is_rotated_under_traffic_and_the_old_one_is_refused_afterwards() {
    let trial = Trial::two_with("rotation", &|spec| paths(spec, LINE, true));
    let active = trial.active();
    let standby = trial.others(&active).remove(0);
    let all = ["ic", "pub", "area", "com"];
    let since = |path: &str| {
        let (a, b) = (shown(&trial, &active, path), shown(&trial, &standby, path));
        [a, b].map(|path| path.map(|path| (path.state, path.since)))
    };
    for path in all {
        trial.path_becomes(&active, &standby, path, PathState::Up);
        trial.path_becomes(&standby, &active, path, PathState::Up);
    }
    let (epoch, before, up) = (trial.epoch(), boottime_ns(), all.map(since));
    let keys = || -> Vec<_> {
        let servers = trial.cluster.servers().expect("the API answers");
        servers.values().map(|server| server.status.clone().and_then(|status| status.keys)).collect()
    };
    assert!(keys().iter().all(|keys| keys.as_ref().is_some_and(|keys| (keys.sealing, &keys.held[..]) == (1, &[1]))));

    let file = trial.cluster.lab().directory().join("rotate.yaml");
    std::fs::write(&file, ROTATE).expect("a manifest");
    trial.cluster.apply(&file).expect("the operation is taken");
    wait_for("every server to have key 2 and no other", LIMIT, |last| {
        let found = keys();
        *last = format!("{found:?}");
        let done = |keys: &Option<HeartbeatKeys>| keys.as_ref().is_some_and(|k| (k.sealing, &k.held[..]) == (2, &[2]));
        Ok(found.iter().all(done).then_some(()))
    })
    .expect("the key is rotated");
    trial.pass(trial.cluster.blueprint().timeout * 2);
    assert_eq!(all.map(since), up, "no path was down for a moment");
    trial.undisturbed_since(before);
    assert_eq!((trial.epoch(), trial.history()), (epoch, vec![active.clone()]));

    // A server that comes back with nothing but the old key is not heard, and both sides say why.
    let host = trial.host(&standby);
    host.stop_service(AGENT, LIMIT).expect("the agent leaves");
    trial.members_become(std::slice::from_ref(&active), epoch);
    let keys = host.state_dir().join("agent/specs/keys.json");
    let old = "{\"1\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"}";
    std::fs::write(&keys, old).expect("an old key");
    let public = trial.cluster.blueprint().public_lan().expect("pub").name.clone();
    // Without the API, which would give it the new key at once.
    trial.cluster.lab().link_down(&standby, &public).expect("cable out");
    host.start_service(AGENT).expect("the agent starts");
    let refused = told(&trial, &active, "ic", "sealed with key 1, this server has 2");
    assert_eq!(refused.peer, standby);
    trial.cluster.lab().link_up(&standby, &public).expect("cable in");
    trial.all_return(epoch + 1);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

const ROTATE: &str = "
apiVersion: holdfast.dev/v1
kind: Operation
metadata: {name: new-key, namespace: ha}
spec: {type: RotateKey, target: {kind: SubCluster, name: shop}, notAfter: '2099-01-01T00:00:00Z'}
";
