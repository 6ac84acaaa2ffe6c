//! Addresses outside of the servers' subnets, announced by a real BIRD to another one, the router.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use common::{HANDS, Server, eventually, failed, own_network, resource, sh};
use holdfast_agent::clock;
use holdfast_agent::deadline::{Deadline, Party, Role};
use holdfast_agent::guard::kill_list::KillList;
use holdfast_agent::guard::{GuardSettings, ensure_guard};
use holdfast_agent::watchdog::WatchdogSettings;
use holdfast_api::v1::{Resource, WatchdogMode};
use holdfast_core::{Action, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ADDRESS: &str = "203.0.113.10";
const LIMIT: Duration = Duration::from_secs(30);

/// The kernel protocols that docs/operations.md tells to configure.
const LEARN: &str = "protocol kernel { learn; ipv4 { preference 250; import where krt_source = 72; export none; }; }\n\
                     protocol kernel { learn; ipv6 { preference 250; import where krt_source = 72; export none; }; }\n";
const TAKE: &str = "protocol kernel { ipv4 { import none; export all; }; }\n";

/// A BIRD in a network namespace.
struct Bird {
    process: Child,
    socket: PathBuf,
}

impl Bird {
    fn start(enter: &[&str], directory: &Path, id: &str, interface: &str, kernel: &str) -> Bird {
        let text = format!(
            "router id {id};\nprotocol device {{}}\n{kernel}protocol ospf v2 ospf1 {{\n\
             ipv4 {{ import all; export where source = RTS_INHERIT; }};\n\
             area 0 {{ interface \"{interface}\" {{ type ptp; hello 1; dead count 3; }}; }};\n}}\n"
        );
        let (config, socket) = (directory.join(format!("{id}.conf")), directory.join(format!("{id}.ctl")));
        std::fs::write(&config, text).unwrap();
        let line = [&["env"], enter, &["bird", "-f", "-c"]].concat();
        let mut command = Command::new(line[0]);
        let process = command.args(&line[1..]).arg(&config).arg("-s").arg(&socket).spawn().unwrap();
        let bird = Bird { process, socket };
        eventually("BIRD answers", LIMIT, || {
            Command::new("birdc")
                .arg("-s")
                .arg(&bird.socket)
                .args(["show", "status"])
                .output()
                .unwrap()
                .status
                .success()
        });
        bird
    }

    fn tell(&self, command: &str) -> String {
        sh(&format!("birdc -s {} {command}", self.socket.display()))
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server with a router beside it.
struct Net {
    server: Server,
    router: Child,
    directory: tempfile::TempDir,
    // ORDER: ended before the namespace of the router.
    _there: Bird,
}

impl Net {
    fn new() -> Net {
        own_network();
        let server = Server::new();
        let router = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let pid = router.id().to_string();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        eventually("the router's namespace", LIMIT, || {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != own)
        });
        sh(&format!(
            "ip link add eth0 type veth peer name eth0 netns {pid} && ip addr add 10.1.0.1/24 dev eth0 && \
             ip addr add 2001:db8::1/64 dev eth0 nodad && ip link set eth0 up && nsenter -t {pid} -n sh -c \
             'ip link set lo up; ip addr add 10.1.0.2/24 dev eth0; ip link set eth0 up'"
        ));
        let directory = tempfile::tempdir().unwrap();
        let there = Bird::start(&["nsenter", "-t", &pid, "-n"], directory.path(), "10.1.0.2", "eth0", TAKE);
        Net { server, router, directory, _there: there }
    }

    fn bird(&self, kernel: &str) -> Bird {
        Bird::start(&[], self.directory.path(), "10.1.0.1", "eth0", kernel)
    }

    fn address(&self, more: serde_json::Value) -> Resource {
        let socket = self.directory.path().join("10.1.0.1.ctl");
        let mut spec = serde_json::json!({"address": ADDRESS, "router": "Bird", "socket": socket});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource(serde_json::json!({"name": "addr", "virtualIP": spec}))
    }

    /// Whether the router sends what is for the address to this server, and gets an answer.
    fn reached(&self) -> bool {
        let pid = self.router.id();
        let ping = format!("nsenter -t {pid} -n ping -c 1 -W 1 {ADDRESS} >/dev/null 2>&1");
        Command::new("/bin/sh").args(["-c", &ping]).status().unwrap().success()
    }

    fn routed(&self) -> bool {
        !sh(&format!("nsenter -t {} -n ip route show {ADDRESS}", self.router.id())).is_empty()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.router.kill();
        let _ = self.router.wait();
    }
}

/// What the kernel has of an address.
fn here(address: &str) -> (bool, String) {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let addresses = sh("ip -o addr show dev lo");
    let length = if address.contains(':') { 128 } else { 32 };
    (
        addresses.contains(&format!(" {address}/{length} ")),
        sh(&format!("ip {family} route show {address}/{length} proto 72 table main")),
    )
}

#[test]
fn an_address_is_announced_while_it_is_here_and_its_loss_is_told() {
    let net = Net::new();
    let (server, spec) = (&net.server, net.address(serde_json::json!({"protocol": "ospf1", "metric": 7})));
    let bird = net.bird(LEARN);
    assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped);
    for _ in 0..2 {
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    }
    let (address, route) = here(ADDRESS);
    assert!(address && route.contains("dev lo") && route.contains("metric 7"), "{route}");
    assert_eq!(route.lines().count(), 1);
    eventually("the router reaches it", LIMIT, || net.reached());
    assert_eq!(
        (server.run(Action::Monitor, &spec), server.run(Action::Probe, &spec)),
        (Outcome::Running, Outcome::Running)
    );
    bird.tell("disable ospf1");
    let message = failed(server.run(Action::Monitor, &spec));
    assert!(message.contains("protocol ospf1 of BIRD is not up: ospf1 OSPF master4 down"), "{message}");
    bird.tell("enable ospf1");
    eventually("it is announced again", LIMIT, || server.run(Action::Monitor, &spec) == Outcome::Running);
    eventually("the router reaches it again", LIMIT, || net.reached());
    // Somebody takes the route, or the address.
    sh(&format!("ip route del {ADDRESS}/32 proto 72"));
    assert!(failed(server.run(Action::Monitor, &spec)).contains("the route to 203.0.113.10 is gone"));
    assert!(matches!(server.run(Action::Probe, &spec), Outcome::Unknown(_)), "half of it is here");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    for _ in 0..2 {
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
        assert_eq!(here(ADDRESS), (false, String::new()));
    }
    eventually("the router has forgotten it", LIMIT, || !net.routed());
    // BIRD is gone: told, and stopped all the same.
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    drop(bird);
    let message = failed(server.run(Action::Monitor, &spec));
    assert!(message.contains("BIRD does not answer on") && message.contains("10.1.0.1.ctl"), "{message}");
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(here(ADDRESS), (false, String::new()));
    let message = failed(server.run(Action::Start, &spec));
    assert!(message.contains("is virtualIP.socket right?"), "{message}");
    assert_eq!(here(ADDRESS), (false, String::new()), "nothing is set up that nobody announces");
}

#[test]
fn ipv6_is_announced_and_what_bird_is_not_configured_for_is_said() {
    let net = Net::new();
    let server = &net.server;
    let bird = net.bird(LEARN);
    let six = net.address(serde_json::json!({"address": "2001:db8:9::10"}));
    assert_eq!(server.run(Action::Start, &six), Outcome::Running);
    let (address, route) = here("2001:db8:9::10");
    assert!(address && route.contains("dev lo"), "{route}");
    assert!(bird.tell("show route table master6").contains("2001:db8:9::10/128"));
    assert_eq!(server.run(Action::Monitor, &six), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &six), Outcome::Stopped);
    assert_eq!(here("2001:db8:9::10"), (false, String::new()));
    let start = |spec: &Resource| failed(server.run_within(Action::Start, spec, Duration::from_secs(2)));
    let wrong = start(&net.address(serde_json::json!({"protocol": "bgp_tor"})));
    assert!(wrong.contains("BIRD can't say what it announces to \"bgp_tor\": syntax error"), "{wrong}");
    drop(bird);
    let bird = net.bird("protocol kernel { ipv4 { import none; export none; }; }\n");
    let spec = net.address(serde_json::json!({}));
    assert!(start(&spec).contains("needs a protocol kernel with `learn;`"), "{}", start(&spec));
    drop(bird);
    // Another route to it, which BIRD likes better.
    let other =
        format!("{}protocol static {{ ipv4; route {ADDRESS}/32 blackhole; }}\n", LEARN.replace("preference 250;", ""));
    let _bird = net.bird(&other);
    let message = start(&spec);
    assert!(message.contains("prefers another route") && message.contains("static1"), "{message}");
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(here(ADDRESS), (false, String::new()));
}

#[test]
fn the_guard_ends_the_announcement_with_the_address() {
    let net = Net::new();
    let (server, spec) = (&net.server, net.address(serde_json::json!({"protocol": "ospf1"})));
    let bird = net.bird(LEARN);
    let watchdog = WatchdogSettings {
        mode: WatchdogMode::Disabled,
        device: "/dev/watchdog".into(),
        timeout: Duration::from_secs(2),
    };
    let settings = GuardSettings { cgroup: server.cgroups.base().to_owned(), watchdog };
    ensure_guard(Path::new(HANDS), server.run_dir.path(), &settings).unwrap();
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    eventually("the router reaches it", LIMIT, || net.reached());
    // BIRD itself hangs: what it announces ends with its neighbour's patience, the address at once.
    kill(Pid::from_raw(bird.process.id() as i32), Signal::SIGSTOP).unwrap();
    let soft = clock::now();
    let deadline = Deadline { soft, kill: soft + Duration::from_millis(20), end: soft + Duration::from_millis(300) };
    server.page.publish(deadline);
    eventually("address and route are gone", LIMIT, || here(ADDRESS) == (false, String::new()));
    let gone = clock::now().since(deadline.kill);
    println!("gone {gone:?} after the kill deadline");
    assert!(gone < Duration::from_millis(280), "{gone:?}");
    eventually("the list is empty", Duration::from_secs(2), || {
        KillList::of(server.run_dir.path()).entries().unwrap().is_empty()
    });
    kill(Pid::from_raw(bird.process.id() as i32), Signal::SIGCONT).unwrap();
    eventually("the router has forgotten it", LIMIT, || !net.routed());
    if let Some(guard) = server.page.party(Role::Guard).filter(Party::exists) {
        kill(Pid::from_raw(guard.pid), Signal::SIGKILL).unwrap();
    }
}
