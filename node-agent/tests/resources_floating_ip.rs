//! Floating addresses on real links: two network namespaces joined by a cable (a veth pair).

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Server, eventually, failed, own_network, resource, sh};
use holdfast_agent::resources::plan::PathFacts;
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};

fn address(address: &str) -> Resource {
    resource(serde_json::json!({
        "name": "addr",
        "floatingIP": {"address": address, "path": "pub", "announce": {"count": 3, "interval": "20ms", "repeat": "50ms"}},
    }))
}

/// The other end of the cable, in a namespace of its own.
struct Neighbour(Child);

impl Neighbour {
    /// This thread's network: `eth0` with 192.0.2.1/24 and 2001:db8::1/64; the neighbour's: 192.0.2.2 and 2001:db8::2.
    fn connect() -> Neighbour {
        own_network();
        let child = Command::new("unshare").args(["--net", "sleep", "300"]).spawn().unwrap();
        let neighbour = Neighbour(child);
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", neighbour.0.id());
        eventually("the other namespace exists", Duration::from_secs(5), || {
            std::fs::read_link(&theirs).is_ok_and(|ns| ns != own)
        });
        // The name of the peer must not be that of an interface here.
        sh(&format!("ip link add eth0 type veth peer name eth1 netns {}", neighbour.0.id()));
        sh("sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up");
        sh("ip addr add 2001:db8::1/64 dev eth0 nodad");
        neighbour
            .sh("sysctl -qw net.ipv6.conf.eth1.accept_dad=0; ip addr add 192.0.2.2/24 dev eth1; ip link set eth1 up");
        neighbour.sh("ip addr add 2001:db8::2/64 dev eth1 nodad");
        eventually("the link is up", Duration::from_secs(5), || sh("ip -br link show eth0").contains("LOWER_UP"));
        neighbour
    }

    fn command(&self, command: &str) -> String {
        format!("nsenter --net=/proc/{}/ns/net sh -c '{command}'", self.0.id())
    }

    fn sh(&self, command: &str) -> String {
        sh(&self.command(command))
    }

    fn reaches(&self, address: &str) -> bool {
        let command = self.command(&format!("ping -c 1 -W 1 {address}"));
        Command::new("sh").args(["-c", &command]).stdout(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server() -> Server {
    let server = Server::new();
    let facts = PathFacts { interface: None, endpoint: Some("192.0.2.1".parse().unwrap()) };
    server.network.borrow_mut().insert("pub".to_owned(), facts);
    server
}

fn present(address: &str) -> bool {
    sh("ip -br addr show dev eth0").contains(address)
}

#[test]
fn an_address_comes_to_the_interface_of_its_path_is_announced_and_goes() {
    let neighbour = Neighbour::connect();
    let server = server();
    // The neighbour remembers the address at a server that is dead now.
    neighbour.sh("ip neigh replace 192.0.2.10 lladdr 02:00:00:00:00:99 dev eth1 nud reachable");
    let before = neighbour.sh("cat /proc/net/snmp > /dev/null; ip neigh show 192.0.2.10");
    assert!(before.contains("02:00:00:00:00:99"), "{before}");
    let spec = address("192.0.2.10/24");
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    let began = Instant::now();
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    println!("start with conflict detection: {:?}", began.elapsed());
    assert!(present("192.0.2.10/24"));
    let mac = sh("cat /sys/class/net/eth0/address 2>/dev/null; ip -br link show eth0").to_lowercase();
    let learnt = || {
        let entry = neighbour.sh("ip neigh show 192.0.2.10");
        let found = entry.split_whitespace().skip_while(|w| *w != "lladdr").nth(1).unwrap_or("none").to_owned();
        mac.contains(&found)
    };
    eventually("the neighbour has learnt the new place", Duration::from_secs(1), learnt);
    assert!(neighbour.reaches("192.0.2.10"));
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running, "again");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running);
    // The announcer repeats as long as the address is here.
    neighbour.sh("ip neigh replace 192.0.2.10 lladdr 02:00:00:00:00:98 dev eth1 nud reachable");
    eventually("the repetition has corrected the neighbour", Duration::from_secs(2), learnt);
    let announcer = server.cgroup(&spec).pids();
    assert_eq!(announcer.len(), 1, "one announcer, however often it was started");
    let began = Instant::now();
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    println!("stop: {:?}", began.elapsed());
    assert!(!present("192.0.2.10"));
    assert!(server.cgroup(&spec).pids().is_empty());
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped, "again");
}

#[test]
fn an_address_that_somebody_else_answers_for_is_refused_unless_told_to_take_it() {
    let neighbour = Neighbour::connect();
    let server = server();
    for (wanted, short) in [("192.0.2.10/24", "192.0.2.10"), ("2001:db8::10/64", "2001:db8::10")] {
        neighbour.sh(&format!("ip addr add {wanted} dev eth1 {}", if short.contains(':') { "nodad" } else { "" }));
        let mut spec = address(wanted);
        let message = failed(server.run(Action::Start, &spec));
        let mac = neighbour.sh("ip -br link show eth1").split_whitespace().nth(2).unwrap().to_owned();
        assert!(message.contains("used by somebody else on eth0") && message.contains(&mac), "{message}");
        let told = server.told();
        assert!(matches!(&told[..], [one] if one.starts_with("AddressConflict: ") && one.contains(&mac)), "{told:?}");
        assert!(!present(short));
        assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
        spec.floating_ip.as_mut().unwrap().on_conflict = holdfast_api::v1::OnConflict::Take;
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
        assert!(present(short));
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    }
}

#[test]
fn who_has_an_address_is_not_asked_again_right_after_it_was_given_up() {
    let neighbour = Neighbour::connect();
    let server = server();
    let spec = address("192.0.2.10/24");
    // Questions about an address that nobody here has yet are asked in nobody's name (RFC 5227).
    let rule = "arp operation request arp saddr ip 0.0.0.0 counter";
    neighbour.sh(&format!(
        "nft \"add table arp t; add chain arp t in {{ type filter hook input priority 0; }}; add rule arp t in {rule}\""
    ));
    let questions = || {
        let rules = neighbour.sh("nft list chain arp t in");
        let count = rules.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        count.and_then(|count| count.parse::<u32>().ok()).unwrap_or_else(|| panic!("no counter in {rules}"))
    };
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(questions(), 3);
    // Slow machines get more attempts: what counts is one restart that took less than a second.
    let restarted = (0..10).any(|_| {
        let (asked, began) = (questions(), Instant::now());
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
        let quick = began.elapsed() < Duration::from_secs(1);
        assert!(!quick || questions() == asked, "asked about its own address after {:?}", began.elapsed());
        quick
    });
    assert!(restarted, "no restart took less than a second");
    let asked = questions();
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    let stopped = Instant::now();
    eventually("it is another's turn", Duration::from_secs(5), || stopped.elapsed() > Duration::from_millis(1100));
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    assert_eq!(questions(), asked + 3, "given up for longer: asked again");
}

#[test]
fn an_ipv6_address_can_be_reached_at_once() {
    let neighbour = Neighbour::connect();
    let server = server();
    let spec = address("2001:db8::10/64");
    let began = Instant::now();
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    println!("start with duplicate detection: {:?}", began.elapsed());
    assert!(neighbour.reaches("2001:db8::10"));
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert!(!present("2001:db8::10"));
}

#[test]
fn a_cable_that_is_pulled_or_an_address_that_was_taken_away_is_seen() {
    let neighbour = Neighbour::connect();
    let server = server();
    let spec = address("192.0.2.10/24");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    neighbour.sh("ip link set eth1 down");
    let message = failed(server.run(Action::Monitor, &spec));
    assert!(message.contains("eth0 has no carrier"), "{message}");
    neighbour.sh("ip link set eth1 up");
    eventually("the link is back", Duration::from_secs(5), || server.run(Action::Monitor, &spec) == Outcome::Running);
    sh("ip addr del 192.0.2.10/24 dev eth0");
    assert_eq!(server.run(Action::Monitor, &spec), Outcome::Stopped);
    server.network.borrow_mut().clear();
    let elsewhere = resource(serde_json::json!({
        "name": "other", "floatingIP": {"address": "192.0.2.11/24", "interface": "eth7"}}));
    let message = failed(server.run(Action::Start, &elsewhere));
    assert!(message.contains("no interface \"eth7\"") && message.contains("eth0"), "{message}");
}
