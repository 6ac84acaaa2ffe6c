//! An address outside of the servers' subnets: BIRD or FRR on the servers announces it, a router with BIRD follows it, a
//! client behind the router reaches it, wherever the group is.

use std::time::Duration;

use holdfast_lab::{CLIENT, ClusterOptions, Companion, LabError, ServiceSpec, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

const ADDRESS: &str = "203.0.113.10";
/// What all hosts run: routers on one LAN that agree within a few seconds.
const OSPF: &str = "area 0 { interface \"pub\" { hello 1; dead count 3; wait 2; };";

/// A server's BIRD, as docs/operations.md tells to configure it.
fn bird() -> Companion {
    let config = format!(
        "protocol device {{}}\n\
         protocol kernel holdfast {{ learn; ipv4 {{ preference 250; import where krt_source = 72; \
         export where source = RTS_OSPF; }}; }}\n\
         protocol ospf v2 ospf1 {{ ipv4 {{ import all; export where source = RTS_INHERIT && krt_source = 72; }}; {OSPF} }}; }}\n"
    );
    let script = format!(
        "mkdir -p /run/bird; cat > /run/bird.conf <<'END'\n{config}END\nexec bird -f -c /run/bird.conf -s /run/bird/bird.ctl"
    );
    let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let service = ServiceSpec { name: "bird".into(), command, environment: Default::default() };
    Companion { service, ready: "/run/bird/bird.ctl".into() }
}

/// Makes the lab's client a router, with a client of its own behind it.
const ROUTER: &str = "set -e
ip netns add behind
ip link add inside type veth peer name eth0 netns behind
ip addr add 172.16.0.1/24 dev inside
ip link set inside up
ip netns exec behind sh -c 'ip link set lo up; ip addr add 172.16.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.16.0.1'
echo 1 > /proc/sys/net/ipv4/ip_forward
cat > /run/bird.conf <<'END'
protocol device {}
protocol kernel { ipv4 { import none; export all; }; }
protocol ospf v2 ospf1 { ipv4 { import all; export none; }; OSPF interface \"inside\" { stub; }; }; }
END
mkdir -p /run/bird
bird -c /run/bird.conf -s /run/bird/bird.ctl
";

/// A server's FRR, as docs/operations.md tells to configure it.
fn frr() -> Companion {
    let config = "interface pub\n ip ospf hello-interval 1\n ip ospf dead-interval 3\n\
        ip prefix-list HOLDFAST seq 5 permit 203.0.113.10/32\n\
        route-map HOLDFAST permit 10\n match ip address prefix-list HOLDFAST\n\
        router ospf\n timers throttle lsa all 0\n network 192.0.2.0/24 area 0\n redistribute connected route-map HOLDFAST\n";
    let script = format!(
        "mkdir -p /run/frr; chown frr:frr /run/frr; cd /run/frr; touch zebra.conf; cat > ospfd.conf <<'END'\n{config}END\n\
         chown frr:frr *.conf; /usr/lib/frr/zebra -d -f /run/frr/zebra.conf -i /run/frr/zebra.pid\n\
         exec /usr/lib/frr/ospfd -f /run/frr/ospfd.conf -i /run/frr/ospfd.pid"
    );
    let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let service = ServiceSpec { name: "frr".into(), command, environment: Default::default() };
    Companion { service, ready: "/run/frr/ospfd.vty".into() }
}

fn with_address(documents: &mut [(std::path::PathBuf, Value)], router: &str) {
    let more = format!("{{name: routed, virtualIP: {{address: {ADDRESS}, {router}}}, monitor: {{interval: 1s}}}}");
    let more: Value = serde_yaml::from_str(&more).expect("YAML");
    let group = documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == "FailoverGroup");
    let resources = group.and_then(|group| group["spec"]["resources"].as_sequence_mut());
    resources.expect("the example's group").push(more);
}

/// Waits until the client behind the router is answered by this server; gives when it was.
fn answered_by(trial: &Trial, server: &str) -> u64 {
    let url = format!("http://{ADDRESS}/");
    let line = ["ip", "netns", "exec", "behind", "curl", "--silent", "--max-time", "0.3", &url];
    wait_for(&format!("{server} to answer on {ADDRESS}"), LIMIT, |last| {
        let page: Result<String, LabError> = trial.host(CLIENT).exec(&line);
        *last = format!("{page:?}");
        Ok(page.is_ok_and(|page| page.trim() == server).then(boottime_ns))
    })
    .expect("the address is reached")
}

/// Whether the address is on a server, and a route of ours to it: by the kernel's word.
fn here(trial: &Trial, server: &str) -> (bool, bool) {
    let host = trial.host(server);
    let addresses = host.exec(&["ip", "-o", "address", "show", "dev", "lo"]).expect("its addresses");
    let routes = host.exec(&["ip", "route", "show", ADDRESS, "proto", "72"]).expect("its routes");
    (addresses.contains(&format!(" {ADDRESS}/32 ")), !routes.trim().is_empty())
}

#[test]
fn a_routed_address_is_reached_wherever_its_group_is() {
    let silence = ["birdc", "disable", "ospf1"];
    reached_wherever_it_is("virtual-ip", bird(), "router: Bird, protocol: ospf1", &silence, "ospf1 of BIRD is not up");
}

#[test]
fn a_routed_address_that_frr_announces_is_reached_wherever_its_group_is() {
    let silence = ["vtysh", "-c", "configure terminal", "-c", "router ospf", "-c", "no redistribute connected"];
    let why = "ospfd of FRR does not announce 203.0.113.10/32";
    reached_wherever_it_is("virtual-ip-frr", frr(), "router: Frr, protocol: ospf", &silence, why);
}

/// `silence`: makes the daemon of a server announce it no longer; `why`: what is then told.
fn reached_wherever_it_is(name: &str, daemon: Companion, router: &str, silence: &[&str], why: &str) {
    let companions = [daemon];
    let options = ClusterOptions { companions: &companions, ..ClusterOptions::default() };
    let trial = Trial::start_with(name, "two-servers", options, |documents| with_address(documents, router));
    trial.host(CLIENT).exec(&["/bin/sh", "-c", &ROUTER.replace("OSPF", OSPF)]).expect("a router");
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    answered_by(&trial, &first);
    assert_eq!((here(&trial, &first), here(&trial, &second)), ((true, true), (false, false)));

    let before = boottime_ns();
    trial.cluster.holdfast(&["move", GROUP, "--to", &second, "--namespace", "ha"]).expect("it is moved");
    let moved = Duration::from_nanos(answered_by(&trial, &second) - before);
    assert_eq!((here(&trial, &first), here(&trial, &second)), ((false, false), (true, true)));

    // The router believes in the dead server as long as OSPF does: three seconds after its last hello.
    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&second).expect("a power cut");
    let taken = Duration::from_nanos(answered_by(&trial, &first) - before);
    println!("reached again {moved:?} after the order to move, {taken:?} after the power cut");
    trial.cluster.wait_online(GROUP, Some(&first), LIMIT).expect("the status follows");
    assert_eq!(here(&trial, &first), (true, true));
    trial.cluster.power_on(&second).expect("power");
    trial.all_return(epoch + 1);
    assert_eq!(here(&trial, &second), (false, false));
    assert_eq!(trial.history(), [first.clone(), second.clone(), first.clone()]);

    // The daemon no longer announces it: the status says why, and the group goes where it is announced.
    trial.host(&first).exec(silence).expect("it does as told");
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("it goes to the other server");
    answered_by(&trial, &second);
    let failures = format!("{:?}", trial.status().failures);
    assert!(failures.contains(why) || failures == "[]", "{failures}");
    assert_eq!(here(&trial, &first), (false, false));
    trial.cluster.close().expect("the lab goes");
}
