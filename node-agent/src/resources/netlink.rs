//! Addresses and links of this network namespace, over a blocking rtnetlink socket: needed by short-lived helpers and by
//! the guard, which have no asynchronous runtime. A few requests, nothing more.

pub mod routes;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// `IFF_…`.
    flags: u32,
}

impl Link {
    /// Administratively up.
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Connected to something.
    pub fn has_carrier(&self) -> bool {
        self.flags & libc::IFF_LOWER_UP as u32 != 0
    }

    /// Neighbours are found by ARP or neighbour discovery on it.
    pub fn has_neighbours(&self) -> bool {
        self.mac.is_some() && self.flags & (libc::IFF_NOARP | libc::IFF_LOOPBACK) as u32 == 0
    }
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Number of the interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// An open socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

const HEADER: usize = 16;

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> io::Result<Netlink> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // The kernel answers at once; a limit all the same, since the guard must never hang.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.request(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16])?;
        Ok(answers.iter().filter(|(kind, _)| *kind == libc::RTM_NEWLINK).filter_map(|(_, body)| link(body)).collect())
    }

    /// All addresses.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let answers = self.request(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8])?;
        Ok(answers
            .iter()
            .filter(|(kind, _)| *kind == libc::RTM_NEWADDR)
            .filter_map(|(_, body)| address(body))
            .collect())
    }

    /// Adds an address; an IPv6 one without the kernel's own duplicate detection, which takes a second and was done
    /// before.
    ///
    /// # Errors
    /// `EEXIST` if it is there, else whatever the kernel says.
    pub fn add(&mut self, what: Address) -> io::Result<()> {
        let mut body = address_body(what);
        if what.address.is_ipv6() {
            attribute(&mut body, libc::IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes());
        }
        self.request(libc::RTM_NEWADDR, libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body).map(|_| ())
    }

    /// Removes an address.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if it isn't there, else whatever the kernel says.
    pub fn delete(&mut self, what: Address) -> io::Result<()> {
        self.request(libc::RTM_DELADDR, libc::NLM_F_ACK, &address_body(what)).map(|_| ())
    }

    /// Removes an address from every interface that has it and looks whether it is gone. Gives from where it was removed.
    ///
    /// # Errors
    /// When it is still there, or the kernel doesn't say.
    pub fn delete_everywhere(&mut self, address: IpAddr) -> io::Result<Vec<u32>> {
        let mut from = Vec::new();
        for found in self.addresses()?.into_iter().filter(|a| a.address == address) {
            match self.delete(found) {
                Ok(()) => from.push(found.index),
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                Err(error) => return Err(error),
            }
        }
        if self.addresses()?.iter().any(|a| a.address == address) {
            return Err(io::Error::other(format!("{address} is still there after its removal")));
        }
        Ok(from)
    }

    fn request(&mut self, kind: u16, flags: i32, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + body.len();
        let mut message = Vec::with_capacity(length);
        message.extend_from_slice(&(length as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0_u8; 65_536];
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..count).unwrap_or_default();
            while rest.len() >= HEADER {
                let length = number(rest, 0) as usize;
                if length < HEADER || length > rest.len() {
                    return Err(io::Error::other("the kernel's answer is malformed"));
                }
                let (kind, sequence) = (short(rest, 4), number(rest, 8));
                let body = &rest[HEADER..length];
                rest = &rest[align(length).min(rest.len())..];
                // An answer to an earlier request that ended in an error.
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => {
                        return match number(body, 0) as i32 {
                            0 => Ok(answers),
                            error => Err(io::Error::from_raw_os_error(-error)),
                        };
                    }
                    _ => answers.push((kind, body.to_vec())),
                }
            }
        }
    }
}

fn align(length: usize) -> usize {
    length.div_ceil(4) * 4
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(align(body.len()), 0);
}

fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(short(bytes, 0));
        if length < 4 || length > bytes.len() {
            break;
        }
        found.push((short(bytes, 2), &bytes[4..length]));
        bytes = &bytes[align(length).min(bytes.len())..];
    }
    found
}

fn address_body(what: Address) -> Vec<u8> {
    let family = if what.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = vec![family as u8, what.prefix, 0, 0];
    body.extend_from_slice(&what.index.to_ne_bytes());
    match what.address {
        IpAddr::V4(v4) => {
            attribute(&mut body, libc::IFA_LOCAL, &v4.octets());
            attribute(&mut body, libc::IFA_ADDRESS, &v4.octets());
            if what.prefix < 31 {
                let host = u32::MAX.checked_shr(u32::from(what.prefix)).unwrap_or(0);
                attribute(&mut body, libc::IFA_BROADCAST, &(v4.to_bits() | host).to_be_bytes());
            }
        }
        IpAddr::V6(v6) => attribute(&mut body, libc::IFA_ADDRESS, &v6.octets()),
    }
    body
}

fn address(body: &[u8]) -> Option<Address> {
    let (family, prefix, index) = (*body.first()?, *body.get(1)?, number(body, 4));
    let all = attributes(body.get(8..)?);
    // On a point-to-point link IFA_ADDRESS is the other end, IFA_LOCAL always this one.
    let value = [libc::IFA_LOCAL, libc::IFA_ADDRESS]
        .iter()
        .find_map(|wanted| all.iter().find(|(kind, _)| kind == wanted).map(|(_, value)| *value))?;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => return None,
    };
    Some(Address { index, address, prefix })
}

fn link(body: &[u8]) -> Option<Link> {
    let (index, flags) = (number(body, 4), number(body, 8));
    let all = attributes(body.get(16..)?);
    let value = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let name = value(libc::IFLA_IFNAME)?;
    let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned();
    let mac = value(libc::IFLA_ADDRESS).and_then(|mac| mac.try_into().ok());
    Some(Link { index, name, mac, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_with_its_address() {
        let mut netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let loopback = links.iter().find(|l| l.name == "lo").unwrap();
        assert!(!loopback.has_neighbours());
        if loopback.is_up() {
            let addresses = netlink.addresses().unwrap();
            let expected = Address { index: loopback.index, address: "127.0.0.1".parse().unwrap(), prefix: 8 };
            assert!(addresses.contains(&expected), "{addresses:?}");
        }
    }
}
