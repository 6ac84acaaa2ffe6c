//! The link of an interface, and an address that others may have, too.

use std::io;

use super::plan;
use crate::resources::netlink::{Link, Netlink};
use crate::resources::plan::Interface;
use crate::resources::{Verdict, floating_ip, neighbour};

pub(super) fn link(wanted: &Interface) -> Verdict {
    answered(Netlink::open().and_then(|mut netlink| {
        Ok(match floating_ip::interface(wanted, &mut netlink)? {
            // An adapter that is gone is a link that is gone.
            Err(problem) => Verdict::failed(problem),
            Ok(link) => floating_ip::down(&link).map_or_else(Verdict::running, Verdict::failed),
        })
    }))
}

/// What a person does about an address that is gone.
const REMOVED: &str = "if nobody meant to remove it, a restart of its resource brings it back";

pub(super) fn address(plan: &plan::Address) -> Verdict {
    answered(Netlink::open().and_then(|mut netlink| {
        let address = plan.address;
        let on: Vec<u32> = netlink.addresses()?.iter().filter(|a| a.address == address).map(|a| a.index).collect();
        if on.is_empty() {
            return Ok(Verdict::failed(format!("{address} is not on this server; {REMOVED}")));
        }
        let Some(wanted) = &plan.interface else { return Ok(Verdict::running()) };
        Ok(match floating_ip::interface(wanted, &mut netlink)? {
            Err(problem) => Verdict::failed(problem),
            Ok(link) if !on.contains(&link.index) => {
                Verdict::failed(format!("{address} is not on {}; {REMOVED}", link.name))
            }
            Ok(link) => match floating_ip::down(&link) {
                Some(problem) => Verdict::failed(problem),
                None => rival(plan, &link)?,
            },
        })
    }))
}

/// Whether somebody else on the network answers for the address.
fn rival(plan: &plan::Address, link: &Link) -> io::Result<Verdict> {
    let Some(mac) = link.mac.filter(|_| link.has_neighbours()) else { return Ok(Verdict::running()) };
    let (other, _) = neighbour::conflict(link.index, mac, plan.address)?;
    Ok(other.map_or_else(Verdict::running, |other| {
        let who = neighbour::name(other);
        Verdict::contested(format!(
            "{} is used by somebody else on {}, too: {who} answers for it; remove it there",
            plan.address, link.name
        ))
    }))
}

fn answered(result: io::Result<Verdict>) -> Verdict {
    result.unwrap_or_else(|error| Verdict::unknown(format!("the network can't be looked at: {error}")))
}
