//! The lab's networks: one bridge per LAN in a namespace that belongs to the lab (the machine's own network is
//! not touched), one cable per host and LAN. The bridges' namespace is a host of its own, the switch.

use std::net::IpAddr;

use crate::error::Result;
use crate::host::Host;
use crate::shell::finish;

/// A cable from a host to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cable {
    /// The network's name; also the name of the host's interface, unless `interface` says otherwise.
    pub network: String,
    /// Name of the interface inside the host, at most 15 characters.
    pub interface: String,
    /// Name of the port at the switch, at most 15 characters, unique in the lab.
    pub port: String,
    /// Addresses with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Hardware address of the interface; the same at every power-on.
    pub mac: String,
}

/// Commands for `ip -batch` at the switch that make the bridge of network number `index`.
pub(crate) fn bridge_commands(index: usize) -> String {
    let name = bridge_name(index);
    format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set {name} up\n")
}

/// Name of the bridge of network number `index` at the switch.
pub(crate) fn bridge_name(index: usize) -> String {
    format!("lan{index}")
}

/// Commands at the switch that plug a cable in between the bridge and the host whose first process is `pid`.
/// The end of the cable that an earlier power-on left goes first.
pub(crate) fn plug(switch: &Host, bridge: &str, cable: &Cable, pid: i32) -> Result<()> {
    let Cable { port, interface, mac, .. } = cable;
    // Absent is the normal case, and `link add` tells if it is still there.
    let _ = switch.ip_batch(&format!("link del {port}\n"));
    switch.ip_batch(&format!(
        "link add {port} type veth peer name {interface} address {mac} netns {pid}\n\
         link set {port} master {bridge} up\n"
    ))
}

/// Commands inside the host that configure its end.
pub(crate) fn address_commands(cable: &Cable) -> String {
    let mut text = format!("link set {} up\n", cable.interface);
    for (address, prefix) in &cable.addresses {
        let flag = if address.is_ipv6() { " nodad" } else { "" };
        text.push_str(&format!("addr add {address}/{prefix} dev {}{flag}\n", cable.interface));
    }
    text
}

impl Host {
    /// Runs several `ip` commands in the host's network namespace by one program, in order; stops at the first
    /// that fails.
    pub(crate) fn ip_batch(&self, commands: &str) -> Result<()> {
        // Only the network is entered: process numbers stay the machine's, `netns PID` means those.
        let command = self.enter(&["--net"], &["ip", "-batch", "-"])?;
        finish(command, Some(commands)).map(drop)
    }
}
