//! Routes to single addresses that routing daemons announce.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

use super::{Netlink, attribute, attributes, number};

/// Who made the route (`rtm_protocol`): a number that nobody else uses, by which daemons tell ours from others.
pub const PROTOCOL: u8 = 72;

/// A route of ours in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRoute {
    /// Where it leads.
    pub address: IpAddr,
    /// Number of the interface.
    pub index: u32,
    /// Its metric; 0 on IPv4 and 1024 on IPv6 where none was given.
    pub metric: u32,
}

impl Netlink {
    /// The routes of ours to an address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn host_routes(&mut self, address: IpAddr) -> io::Result<Vec<HostRoute>> {
        let mut body = vec![family(address)];
        body.resize(12, 0);
        let answers = self.request(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &body)?;
        let routes = answers.iter().filter(|(kind, _)| *kind == libc::RTM_NEWROUTE);
        Ok(routes.filter_map(|(_, body)| route(body)).filter(|route| route.address == address).collect())
    }

    /// Adds a route to an address of this server, on the interface that has it.
    ///
    /// # Errors
    /// `EEXIST` if it is there, else whatever the kernel says.
    pub fn add_host_route(&mut self, address: IpAddr, index: u32, metric: Option<u32>) -> io::Result<()> {
        let body = route_body(address, index, metric);
        self.request(libc::RTM_NEWROUTE, libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body).map(drop)
    }

    /// Removes the routes of ours to an address and looks whether they are gone. Gives how many there were.
    ///
    /// # Errors
    /// When one is still there, or the kernel doesn't say.
    pub fn delete_host_routes(&mut self, address: IpAddr) -> io::Result<usize> {
        let found = self.host_routes(address)?;
        for route in &found {
            let body = route_body(address, route.index, Some(route.metric));
            match self.request(libc::RTM_DELROUTE, libc::NLM_F_ACK, &body) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                _ => {}
            }
        }
        if !self.host_routes(address)?.is_empty() {
            return Err(io::Error::other(format!("the route to {address} is still there after its removal")));
        }
        Ok(found.len())
    }
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn route_body(address: IpAddr, index: u32, metric: Option<u32>) -> Vec<u8> {
    let (length, scope) = if address.is_ipv4() { (32, libc::RT_SCOPE_LINK) } else { (128, libc::RT_SCOPE_UNIVERSE) };
    let table = libc::RT_TABLE_MAIN;
    let mut body = vec![family(address), length, 0, 0, table, PROTOCOL, scope, libc::RTN_UNICAST, 0, 0, 0, 0];
    match address {
        IpAddr::V4(v4) => attribute(&mut body, libc::RTA_DST, &v4.octets()),
        IpAddr::V6(v6) => attribute(&mut body, libc::RTA_DST, &v6.octets()),
    }
    attribute(&mut body, libc::RTA_OIF, &index.to_ne_bytes());
    if let Some(metric) = metric {
        attribute(&mut body, libc::RTA_PRIORITY, &metric.to_ne_bytes());
    }
    body
}

/// A route of ours to one address; none if it is any other route.
fn route(body: &[u8]) -> Option<HostRoute> {
    let (family, length, table, protocol) = (*body.first()?, *body.get(1)?, *body.get(4)?, *body.get(5)?);
    if protocol != PROTOCOL || table != libc::RT_TABLE_MAIN {
        return None;
    }
    let all = attributes(body.get(12..)?);
    let value = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let to = value(libc::RTA_DST)?;
    let address = match (i32::from(family), length) {
        (libc::AF_INET, 32) => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(to).ok()?)),
        (libc::AF_INET6, 128) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(to).ok()?)),
        _ => return None,
    };
    let index = number(value(libc::RTA_OIF)?, 0);
    Some(HostRoute { address, index, metric: value(libc::RTA_PRIORITY).map_or(0, |metric| number(metric, 0)) })
}
