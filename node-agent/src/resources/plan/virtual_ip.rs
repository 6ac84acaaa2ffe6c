//! An address that is found by routing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use holdfast_api::v1::{self as api, Router};
use holdfast_api::validation::router_problem;
use serde::{Deserialize, Serialize};

use super::{PlanError, wrong};

/// Where Debian's package puts the socket of BIRD.
const BIRD_SOCKET: &str = "/run/bird/bird.ctl";

/// Where FRR's daemons have their sockets.
const FRR_SOCKETS: &str = "/run/frr";

/// An address that is found by routing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIpPlan {
    /// The address.
    pub address: IpAddr,
    /// Who announces it.
    #[serde(default = "bird_by_default")]
    pub router: Router,
    /// The protocol instance that has to announce it, of FRR its daemon ospf or bgp; none: whichever does.
    pub protocol: Option<String>,
    /// Metric of the route; none: the kernel's default.
    pub metric: Option<u32>,
    /// BIRD's control socket, or the directory of those of FRR.
    pub socket: PathBuf,
}

pub(super) fn plan(spec: &api::VirtualIp) -> Result<VirtualIpPlan, PlanError> {
    let address = IpAddr::from_str(&spec.address).ok();
    let address =
        address.filter(|a| !a.is_unspecified() && !a.is_multicast() && !a.is_loopback()).ok_or_else(|| {
            let found = &spec.address;
            wrong("virtualIP.address", format!("is {found:?}; write an address without prefix length, as 203.0.113.10"))
        })?;
    if let Some(problem) = router_problem(spec) {
        return Err(wrong(
            &format!("virtualIP.{}", problem.member),
            format!("is {}; {}", problem.found, problem.advice),
        ));
    }
    let socket = match spec.router {
        Router::Bird => BIRD_SOCKET,
        Router::Frr => FRR_SOCKETS,
    };
    Ok(VirtualIpPlan {
        address,
        router: spec.router,
        protocol: spec.protocol.clone(),
        metric: spec.metric,
        socket: spec.socket.as_deref().unwrap_or(socket).into(),
    })
}

/// The router of what an agent started that knew no other one.
fn bird_by_default() -> Router {
    Router::Bird
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_router_would_not_understand_is_refused() {
        let spec = |more: serde_json::Value| {
            let mut all = serde_json::json!({"address": "203.0.113.10", "router": "Bird"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            plan(&serde_json::from_value(all).unwrap())
        };
        let fine = spec(serde_json::json!({"protocol": "ospf1", "metric": 5})).unwrap();
        assert_eq!((fine.metric, fine.socket.to_str()), (Some(5), Some(BIRD_SOCKET)));
        let frr = spec(serde_json::json!({"router": "Frr", "protocol": "ospf"})).unwrap();
        assert_eq!((frr.router, frr.socket.to_str()), (Router::Frr, Some(FRR_SOCKETS)));
        for (more, field) in [
            (serde_json::json!({"protocol": "ospf1\ndisable all"}), "virtualIP.protocol"),
            (serde_json::json!({"address": "203.0.113.10/32"}), "virtualIP.address"),
            (serde_json::json!({"router": "Frr", "protocol": "rip"}), "virtualIP.protocol"),
            (serde_json::json!({"router": "Frr", "protocol": "ospf", "address": "2001:db8::1"}), "virtualIP.protocol"),
            (serde_json::json!({"router": "Frr", "metric": 5}), "virtualIP.metric"),
        ] {
            assert_eq!(spec(more).unwrap_err().field, field);
        }
    }
}
