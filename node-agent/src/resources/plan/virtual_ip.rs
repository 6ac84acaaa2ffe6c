//! An address that is found by routing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use holdfast_api::v1 as api;
use serde::{Deserialize, Serialize};

use super::{PlanError, wrong};

/// Where Debian's package puts the socket of BIRD.
const BIRD_SOCKET: &str = "/run/bird/bird.ctl";

/// An address that is found by routing, announced by BIRD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIpPlan {
    /// The address.
    pub address: IpAddr,
    /// The protocol instance that has to announce it; none: whichever does.
    pub protocol: Option<String>,
    /// Metric of the route; none: the kernel's default.
    pub metric: Option<u32>,
    /// BIRD's control socket.
    pub socket: PathBuf,
}

pub(super) fn plan(spec: &api::VirtualIp) -> Result<VirtualIpPlan, PlanError> {
    let address = IpAddr::from_str(&spec.address).ok();
    let address =
        address.filter(|a| !a.is_unspecified() && !a.is_multicast() && !a.is_loopback()).ok_or_else(|| {
            let found = &spec.address;
            wrong("virtualIP.address", format!("is {found:?}; write an address without prefix length, as 203.0.113.10"))
        })?;
    if spec.router != api::Router::Bird {
        return Err(wrong("virtualIP.router", format!("{} is not carried out by this version; use Bird", spec.router)));
    }
    // It becomes part of a line that BIRD reads.
    let wild = |name: &&String| !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if let Some(name) = spec.protocol.as_ref().filter(wild) {
        return Err(wrong(
            "virtualIP.protocol",
            format!("is {name:?}; write the name of a protocol of BIRD's: letters, digits and underscores"),
        ));
    }
    Ok(VirtualIpPlan {
        address,
        protocol: spec.protocol.clone(),
        metric: spec.metric,
        socket: spec.socket.as_deref().unwrap_or(BIRD_SOCKET).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bird_would_not_understand_is_refused() {
        let spec = |more: serde_json::Value| {
            let mut all = serde_json::json!({"address": "203.0.113.10", "router": "Bird"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            plan(&serde_json::from_value(all).unwrap())
        };
        let fine = spec(serde_json::json!({"protocol": "ospf1", "metric": 5})).unwrap();
        assert_eq!((fine.metric, fine.socket.to_str()), (Some(5), Some(BIRD_SOCKET)));
        for (more, field) in [
            (serde_json::json!({"protocol": "ospf1\ndisable all"}), "virtualIP.protocol"),
            (serde_json::json!({"address": "203.0.113.10/32"}), "virtualIP.address"),
            (serde_json::json!({"router": "Frr"}), "virtualIP.router"),
        ] {
            assert_eq!(spec(more).unwrap_err().field, field);
        }
    }
}
