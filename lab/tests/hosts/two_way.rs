//! Two servers that both work, each the other's standby (C15, U13), and what groups mean for one another.

use std::net::SocketAddr;

use holdfast_lab::{CLIENT, ClusterOptions, Poller, boottime_ns};

use crate::harness::{LIMIT, Trial};

#[test]
fn each_server_is_the_others_standby_and_one_group_goes_home_by_itself() {
    let trial = Trial::start_with("two-way", "two-way-standby", ClusterOptions::default(), |_| {});
    let address = SocketAddr::from(([192, 0, 2, 11], 80));
    let client = trial.cluster.host(CLIENT).expect("a client");
    let wiki = Poller::start(&client, address).expect("a client of the other group");
    let all = trial.cluster.blueprint().servers.clone();
    trial.cluster.wait_online("wiki", Some("birch"), LIMIT).expect("at home");
    assert_eq!(trial.active(), "alder");
    let epoch = trial.epoch();
    let lost = boottime_ns();
    trial.cluster.power_cut("birch").expect("a power cut");
    trial.cluster.wait_online("wiki", Some("alder"), LIMIT).expect("alder takes it over");
    wiki.wait_for_answer(Some("alder"), LIMIT).expect("its client is served");
    trial.undisturbed_since(lost);
    let back = boottime_ns();
    trial.cluster.power_on("birch").expect("power");
    trial.members_become(&all, epoch);
    trial.cluster.wait_online("wiki", Some("birch"), LIMIT).expect("it goes home");
    wiki.wait_for_answer(Some("birch"), LIMIT).expect("its client is served at home");
    trial.undisturbed_since(back);
    let newest = trial.cluster.group("wiki").expect("its object").status.expect("its status").transitions.remove(0);
    assert_eq!(newest.cause, "Failback", "{newest:?}");
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn one_application_in_two_parts_works_on_both_servers_and_as_a_whole_on_one() {
    let trial = Trial::start_with("split", "split-service", ClusterOptions::default(), |_| {});
    let client = trial.cluster.host(CLIENT).expect("a client");
    let second = Poller::start(&client, SocketAddr::from(([192, 0, 2, 11], 80))).expect("a client of the second part");
    let parts = || {
        let ask = |address: &str| client.exec(&["curl", "--silent", "--fail", &format!("http://{address}/part")]);
        ["192.0.2.10", "192.0.2.11"].map(|address| ask(address).expect("it answers").trim().to_owned())
    };
    trial.cluster.wait_online("web-n-z", Some("birch"), LIMIT).expect("at home");
    second.wait_for_answer(Some("birch"), LIMIT).expect("its client is served at home");
    assert_eq!(trial.active(), "alder");
    let kept = ["a-m, first kept on alder", "n-z, first kept on birch"];
    assert_eq!(parts(), kept);

    let lost = boottime_ns();
    trial.cluster.power_cut("birch").expect("a power cut");
    second.wait_for_answer(Some("alder"), LIMIT).expect("alder takes the second part over");
    trial.cluster.wait_online("web-n-z", Some("alder"), LIMIT).expect("the status follows");
    assert_eq!(parts(), kept, "each part has its own data");
    trial.undisturbed_since(lost);
    trial.tenures();
    trial.cluster.close().expect("the lab goes");
}
