//! What the router of a `virtualIP` would not understand.

use std::net::IpAddr;

use crate::v1::{Router, VirtualIp};

/// A member of a `virtualIP` that its router can't take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterProblem {
    /// The member.
    pub member: &'static str,
    /// What it is.
    pub found: String,
    /// What to write.
    pub advice: &'static str,
}

/// The first one; none: the router understands it.
pub fn router_problem(spec: &VirtualIp) -> Option<RouterProblem> {
    let problem = |member, found, advice| Some(RouterProblem { member, found, advice });
    let protocol = spec.protocol.as_deref();
    match (spec.router, protocol, spec.metric) {
        // It becomes part of a line that BIRD reads.
        (Router::Bird, Some(name), _) if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => problem(
            "protocol",
            format!("{name:?}"),
            "write the name of a protocol of BIRD's: letters, digits and underscores",
        ),
        (Router::Frr, Some(name), _) if !frr_announces(name, &spec.address) => problem(
            "protocol",
            format!("{name:?}"),
            "with Frr write ospf (IPv4) or bgp, or leave it out: then FRR is asked only whether it uses the address",
        ),
        (Router::Frr, _, Some(metric)) => problem(
            "metric",
            metric.to_string(),
            "FRR announces the address itself, not its route: leave it out, and use `set metric` in the route-map",
        ),
        _ => None,
    }
}

fn frr_announces(protocol: &str, address: &str) -> bool {
    protocol == "bgp" || protocol == "ospf" && !address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6())
}
