//! Sub-clusters whose tie is broken by a quorum server on a machine of its own, or by nobody.

use std::path::PathBuf;

use holdfast_api::v1::{Anchor, QuorumServerState};
use holdfast_lab::{WITNESS, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

fn sub_cluster(documents: &mut [(PathBuf, Value)]) -> &mut Value {
    let mut all = documents.iter_mut().map(|(_, document)| document);
    &mut all.find(|document| document["kind"] == "SubCluster").expect("a sub-cluster")["spec"]
}

/// So that a busy machine that runs four agents looks like no loss.
fn patient(documents: &mut [(PathBuf, Value)]) {
    sub_cluster(documents)["heartbeat"]["timeout"] = "2s".into();
}

/// Without cedar and dogwood.
fn halved(documents: &mut [(PathBuf, Value)]) {
    patient(documents);
    only(documents, &["alder", "birch"]);
}

/// The example without its other servers.
pub(crate) fn only(documents: &mut [(PathBuf, Value)], servers: &[&str]) {
    let stays = |name: &Value| name.as_str().is_some_and(|name| servers.contains(&name));
    let spec = sub_cluster(documents);
    spec["servers"].as_sequence_mut().expect("servers").retain(|server| stays(&server["name"]));
    for path in spec["heartbeat"]["paths"].as_sequence_mut().expect("paths") {
        let endpoints = path["lan"]["endpoints"].as_sequence_mut().expect("endpoints");
        endpoints.retain(|endpoint| stays(&endpoint["server"]));
    }
    let mut all = documents.iter_mut().map(|(_, document)| document);
    let group = all.find(|document| document["kind"] == "FailoverGroup").expect("a group");
    group["spec"]["placement"]["servers"].as_sequence_mut().expect("a policy").retain(stays);
}

fn majority(documents: &mut [(PathBuf, Value)]) {
    patient(documents);
    sub_cluster(documents)["quorum"] = serde_yaml::from_str("{type: Majority}").expect("YAML");
}

impl Trial {
    /// The active server with one more, and the two others.
    fn halves(&self) -> (Vec<String>, Vec<String>) {
        let active = self.active();
        let mut others = self.others(&active);
        (vec![active, others.remove(0)], others)
    }

    fn traces_of(&self, servers: &[String]) -> Vec<String> {
        servers.iter().flat_map(|server| self.traces(server)).collect()
    }

    fn quorum_server_becomes(&self, wanted: QuorumServerState) {
        wait_for(&format!("every server to report the quorum server {wanted:?}"), LIMIT, |last| {
            let servers = self.cluster.servers()?;
            let found = servers.values().filter_map(|server| server.status.as_ref()?.quorum_server.clone());
            let states: Vec<_> = found.map(|server| (server.state, server.message)).collect();
            *last = format!("{states:?}");
            Ok((states.len() == servers.len() && states.iter().all(|(state, _)| *state == wanted)).then_some(()))
        })
        .expect("the API shows it");
        let reachable = if wanted == QuorumServerState::Reachable { "True" } else { "False" };
        wait_for(&format!("condition LockReachable to be {reachable}"), LIMIT, |last| {
            let status = self.cluster.sub_cluster()?.status.unwrap_or_default();
            let found = status.conditions.into_iter().find(|condition| condition.type_ == "LockReachable");
            *last = format!("{found:?}");
            Ok(found.is_some_and(|condition| condition.status == reachable).then_some(()))
        })
        .expect("the sub-cluster shows it");
    }

    /// Cuts the two halves apart; both still reach the quorum server. One of them goes on, for good, and the other has
    /// stopped.
    fn one_half_goes_on(&self) {
        let (one, other) = self.halves();
        let (epoch, before) = (self.epoch(), boottime_ns());
        self.cluster.lab().split(&one, &other).expect("a split");
        let survivor = self.served_by(&self.cluster.blueprint().servers, before + 2_000_000_000);
        self.pass(self.cluster.blueprint().timeout * 3);
        let (lives, stopped) = if one.contains(&survivor) { (&one, &other) } else { (&other, &one) };
        assert_eq!(self.traces_of(stopped), Vec::<String>::new(), "the other half has stopped");
        self.members_become(lives, epoch);
        let survivor = self.active();
        assert!(lives.contains(&survivor) && !self.traces(&survivor).is_empty());
        let resolution = self.cluster.sub_cluster().expect("it is there").status.expect("a status").last_resolution;
        assert_eq!(resolution.and_then(|resolution| resolution.arbiter), Some(Anchor::QuorumServer));
        self.cluster.lab().end_split(&self.cluster.blueprint().servers).expect("cables in");
        self.all_return(epoch + 1);
        assert_eq!(self.active(), survivor, "nothing goes back by itself");
        self.tenures();
    }
}

#[test]
fn of_four_servers_split_in_half_exactly_one_half_goes_on() {
    let trial = Trial::four("quorum-split", patient);
    trial.quorum_server_becomes(QuorumServerState::Reachable);
    trial.one_half_goes_on();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn of_four_servers_split_in_half_without_a_lock_both_halves_stop() {
    let trial = Trial::four("no-lock-split", majority);
    let (one, other) = trial.halves();
    let epoch = trial.epoch();
    trial.cluster.lab().split(&one, &other).expect("a split");
    for server in &trial.cluster.blueprint().servers {
        trial.comes_clean(server);
    }
    trial.pass(trial.cluster.blueprint().timeout * 3);
    assert_eq!(trial.traces_of(&trial.cluster.blueprint().servers), Vec::<String>::new(), "nobody has a majority");
    assert_eq!(trial.epoch(), epoch, "and nobody decided anything");
    let before = boottime_ns();
    trial.cluster.lab().end_split(&trial.cluster.blueprint().servers).expect("cables in");
    trial.served_by(&trial.cluster.blueprint().servers, before);
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn of_two_servers_without_a_shared_disk_one_survives_the_power_cut_of_the_other() {
    let trial = Trial::four("quorum-two", halved);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.taken_over_since(before);
    trial.members_become(&standby, epoch);
    let authority = trial.cluster.servers().expect("an answer")[&survivor].status.clone().and_then(|s| s.authority);
    assert!(authority.is_some_and(|authority| authority.held));
    trial.cluster.power_on(&victim).expect("power");
    trial.all_return(epoch + 1);
    assert_eq!(trial.active(), survivor, "the group does not go back by itself");
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn a_lost_quorum_server_stops_nothing_and_one_lost_server_is_taken_over_without_it() {
    let trial = Trial::four("quorum-lost", patient);
    let victim = trial.active();
    let others = trial.others(&victim);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.lab().power_cut(WITNESS).expect("a power cut");
    trial.quorum_server_becomes(QuorumServerState::Error);
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.undisturbed_since(before);
    assert_eq!(trial.epoch(), epoch, "its loss moves nothing");

    // Three of five acceptors are left.
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&others, before);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    trial.members_become(&others, epoch);
    trial.cluster.power_on_witness().expect("power");
    trial.cluster.power_on(&victim).expect("power");
    trial.all_return(epoch + 1);
    trial.quorum_server_becomes(QuorumServerState::Reachable);
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn without_the_quorum_server_a_split_stops_both_halves_until_it_is_back() {
    let trial = Trial::four("quorum-during", patient);
    let (one, other) = trial.halves();
    let all = trial.cluster.blueprint().servers.clone();
    let epoch = trial.epoch();
    trial.cluster.lab().power_cut(WITNESS).expect("a power cut");
    trial.cluster.lab().split(&one, &other).expect("a split");
    for server in &all {
        trial.comes_clean(server);
    }
    trial.pass(trial.cluster.blueprint().timeout * 2);
    assert_eq!(trial.traces_of(&all), Vec::<String>::new(), "nobody may go on");
    // It comes back in the middle of the split: now one half may.
    trial.cluster.power_on_witness().expect("power");
    // Whoever comes first: who ran the group may lean on it again for a moment, and the others decide all the same.
    let lives = trial.cluster.wait_one_view(&[&one, &other], epoch, LIMIT).expect("one half decides");
    trial.served_by(lives, boottime_ns());
    // And is lost again after it has decided: two of the three acceptors that are left are enough.
    let before = boottime_ns();
    trial.cluster.lab().power_cut(WITNESS).expect("a power cut");
    trial.pass(trial.cluster.blueprint().timeout * 2);
    trial.undisturbed_since(before);
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}
