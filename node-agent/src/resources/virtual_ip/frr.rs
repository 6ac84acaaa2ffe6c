//! FRRouting's `vtysh`: what its daemons make of our address. Read only; zebra learns the address from the kernel.
//!
//! zebra prefers the connected route, which comes and goes with the address on the loopback interface, to any other one to
//! it; that is what its daemons redistribute. Answers are the daemons' own JSON.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use super::{Known, LOOPBACK};
use crate::ask::{Ask, ask};
use crate::spawn::{Exit, find_program};

/// Age of a link state advertisement that is being withdrawn, in seconds (RFC 2328, MaxAge).
const WITHDRAWN: u64 = 3600;

/// Asks what FRR makes of an address of ours. `protocol`: the daemon that is to announce it.
///
/// # Errors
/// A sentence: FRR can't be asked.
pub(super) fn known(sockets: &Path, address: IpAddr, protocol: Option<&str>, limit: Duration) -> Result<Known, String> {
    let (net, ip) =
        if address.is_ipv4() { (format!("{address}/32"), "ip") } else { (format!("{address}/128"), "ipv6") };
    let routes = talk(sockets, &format!("show {ip} route {net} json"), limit)?;
    if let Err(why) = used(&net, &routes[&net]) {
        return Ok(Known::Not(why));
    }
    let announced = match protocol {
        Some("ospf") => {
            let command = format!("show ip ospf database external {address} self-originate json");
            in_ospf(&talk(sockets, &command, limit)?, address)
        }
        Some("bgp") => {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            in_bgp(&talk(sockets, &format!("show bgp {family} unicast {net} json"), limit)?)
        }
        // Plans have no other one.
        _ => true,
    };
    Ok(match protocol.filter(|_| !announced) {
        None => Known::Announced,
        Some(daemon) => Known::Not(format!(
            "{daemon}d of FRR does not announce {net}; its configuration needs `redistribute connected`, with a route-map \
             that permits it"
        )),
    })
}

/// Whether the route that zebra uses is that of the address on the loopback interface.
fn used(net: &str, routes: &Value) -> Result<(), String> {
    let Some(routes) = routes.as_array() else {
        return Err(format!("zebra of FRR has not learnt {net} from the kernel"));
    };
    let selected = routes.iter().find(|route| route["selected"] == true);
    let on_loopback = |route: &&Value| {
        let hops = route["nexthops"].as_array();
        hops.is_some_and(|hops| hops.iter().any(|hop| hop["interfaceName"] == LOOPBACK))
    };
    match selected {
        Some(route) if on_loopback(&route) => Ok(()),
        Some(route) => Err(format!("zebra of FRR prefers a route of {} to {net}", route["protocol"])),
        None => Err(format!("zebra of FRR uses none of its routes to {net}")),
    }
}

fn in_ospf(answer: &Value, address: IpAddr) -> bool {
    let all = answer["asExternalLinkStates"].as_array();
    let ours = |state: &Value| {
        state["linkStateId"] == address.to_string()
            && state["networkMask"] == 32
            && state["lsaAge"].as_u64().is_some_and(|age| age < WITHDRAWN)
    };
    all.is_some_and(|all| all.iter().any(ours))
}

fn in_bgp(answer: &Value) -> bool {
    let best = |path: &Value| path["sourced"] == true && path["bestpath"]["overall"] == true;
    answer["paths"].as_array().is_some_and(|paths| paths.iter().any(best))
}

fn talk(sockets: &Path, command: &str, limit: Duration) -> Result<Value, String> {
    let program = find_program("vtysh").ok_or("vtysh is not in PATH on this server; install the package frr")?;
    let place = sockets.display();
    let silent = |why: &dyn std::fmt::Display| format!("FRR does not answer on {place}: {why}");
    let path = std::env::var("PATH").unwrap_or_else(|_| crate::spawn::DEFAULT_PATH.to_owned());
    let answer = ask(&Ask {
        program: &program,
        args: &["--vty_socket".to_owned(), place.to_string(), "-c".to_owned(), command.to_owned()],
        environment: &[("PATH".to_owned(), path), ("LC_ALL".to_owned(), "C".to_owned())],
        input: "",
        timeout: limit,
        cgroup: None,
        cancel: &AtomicBool::new(false),
    })
    .map_err(|silence| silent(&format!("{} {}", silence.problem, silence.last_lines).trim_end()))?;
    if answer.exit != Exit::Code(0) {
        return Err(silent(&format!("`{command}`: {}: {}", answer.exit, answer.last_lines)));
    }
    serde_json::from_str(&answer.output).map_err(|_| silent(&format!("`{command}`: {}", answer.last_lines)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_route_over_the_loopback_interface_that_is_in_use_is_ours() {
        let route = |protocol: &str, interface: &str, selected: bool| json!({"protocol": protocol, "selected": selected, "nexthops": [{"interfaceName": interface}]});
        let net = "10.9.9.9/32";
        let of = |routes: Value| used(net, &routes);
        assert_eq!(of(json!([route("kernel", "lo", false), route("connected", "lo", true)])), Ok(()));
        assert!(of(json!([route("ospf", "eth0", true)])).unwrap_err().contains("prefers a route of \"ospf\""));
        assert!(of(Value::Null).unwrap_err().contains("has not learnt 10.9.9.9/32"));
    }

    #[test]
    fn what_is_being_withdrawn_is_announced_no_longer() {
        let state =
            |age: u64| json!({"asExternalLinkStates": [{"linkStateId": "10.9.9.9", "networkMask": 32, "lsaAge": age}]});
        let address = "10.9.9.9".parse().unwrap();
        assert!(in_ospf(&state(17), address) && !in_ospf(&state(3600), address) && !in_ospf(&json!({}), address));
        let path = |sourced: bool| json!({"paths": [{"sourced": sourced, "bestpath": {"overall": true}}]});
        assert!(in_bgp(&path(true)) && !in_bgp(&path(false)) && !in_bgp(&json!({})));
    }
}
