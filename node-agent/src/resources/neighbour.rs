//! Asking the network who has an address, and telling it who has it now: ARP (RFC 826, RFC 5227) for IPv4, neighbour
//! discovery (RFC 4861, RFC 4862 §5.4) for IPv6, as raw frames on one interface.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// Questions before an address counts as free. RFC 5227 asks for three within seconds, for networks where every host
/// starts at once; here a host that has the address has had it for long and answers in less than a millisecond.
pub const PROBES: u32 = 3;
/// Time for answers to each question.
pub const PROBE_WAIT: Duration = Duration::from_millis(12);

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Asks who has `address` and gives the hardware address of somebody else who answers, or asks for it, too. Gives the
/// socket as well: see [`Announcer::socket`].
///
/// # Errors
/// When nothing can be sent.
pub fn conflict(index: u32, mac: [u8; 6], address: IpAddr) -> io::Result<(Option<[u8; 6]>, Socket)> {
    let socket = open()?;
    socket.bind(&link_address(index, protocol(address)))?;
    let question = match address {
        IpAddr::V4(v4) => arp(mac, Ipv4Addr::UNSPECIFIED, BROADCAST, [0; 6], v4, 1),
        IpAddr::V6(v6) => solicitation(mac, v6),
    };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    for _ in 0..PROBES {
        transmit(&socket, index, &question)?;
        let until = Instant::now() + PROBE_WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::ZERO);
            let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut watched, timeout).is_err() {
                continue;
            }
            while let Ok(count) = socket.recv(&mut buffer) {
                let frame: Vec<u8> = received(&buffer, count);
                let claimant = match address {
                    IpAddr::V4(v4) => claims_v4(&frame, v4),
                    IpAddr::V6(v6) => claims_v6(&frame, v6),
                };
                if let Some(other) = claimant.filter(|other| *other != mac) {
                    return Ok((Some(other), socket));
                }
            }
        }
    }
    Ok((None, socket))
}

/// A hardware address as people write it.
pub fn name(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Tells everybody on a link where an address is.
#[derive(Debug)]
pub struct Announcer {
    socket: Socket,
    index: u32,
    mac: [u8; 6],
    address: IpAddr,
}

impl Announcer {
    /// One for an address that is now at `mac` on the interface with this number.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open(index: u32, mac: [u8; 6], address: IpAddr) -> io::Result<Announcer> {
        Ok(Announcer { socket: open()?, index, mac, address })
    }

    /// Says it once.
    ///
    /// # Errors
    /// When nothing can be sent.
    pub fn announce(&self) -> io::Result<()> {
        let (mac, index) = (self.mac, self.index);
        match self.address {
            IpAddr::V4(v4) => {
                // As a request (what RFC 5227 calls announcement) and as an answer: there are devices that learn from
                // one kind only.
                transmit(&self.socket, index, &arp(mac, v4, BROADCAST, [0; 6], v4, 1))?;
                transmit(&self.socket, index, &arp(mac, v4, BROADCAST, mac, v4, 2))
            }
            IpAddr::V6(v6) => transmit(&self.socket, index, &advertisement(mac, v6)),
        }
    }

    /// Its socket. The last close of a packet socket waits tens of milliseconds for the kernel's readers: whoever is in
    /// a hurry leaves that to another process.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

#[expect(unsafe_code, reason = "bytes that the kernel has written")]
fn received(buffer: &[MaybeUninit<u8>], count: usize) -> Vec<u8> {
    // SAFETY: the kernel wrote the first `count` bytes.
    buffer.iter().take(count).map(|byte| unsafe { byte.assume_init() }).collect()
}

fn protocol(address: IpAddr) -> u16 {
    (if address.is_ipv4() { libc::ETH_P_ARP } else { libc::ETH_P_IPV6 }) as u16
}

/// Deaf until it is bound: a socket that hears everything first would cost a grace period of the kernel at its binding.
fn open() -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "sockaddr_ll has no safe form")]
fn link_address(index: u32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every address; sockaddr_ll is plain numbers.
    unsafe {
        let address = storage.view_as::<libc::sockaddr_ll>();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index as i32;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }
}

fn transmit(socket: &Socket, index: u32, frame: &[u8]) -> io::Result<()> {
    let kind = u16::from_be_bytes([frame[12], frame[13]]);
    socket.send_to(frame, &link_address(index, kind)).map(|_| ())
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

fn arp(mac: [u8; 6], sender: Ipv4Addr, to: [u8; 6], target_mac: [u8; 6], target: Ipv4Addr, operation: u16) -> Vec<u8> {
    let mut frame = ethernet(to, mac, libc::ETH_P_ARP as u16);
    // Hardware: Ethernet, protocol: IPv4, lengths 6 and 4.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&target_mac);
    frame.extend_from_slice(&target.octets());
    frame
}

/// Who claims the address in an ARP frame: by having it, or by asking for it with no address of its own (RFC 5227 §2.1.1).
fn claims_v4(frame: &[u8], wanted: Ipv4Addr) -> Option<[u8; 6]> {
    let body = frame.get(14..42)?;
    if body[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac = <[u8; 6]>::try_from(&body[8..14]).ok()?;
    let sender = Ipv4Addr::from(<[u8; 4]>::try_from(&body[14..18]).ok()?);
    let target = Ipv4Addr::from(<[u8; 4]>::try_from(&body[24..28]).ok()?);
    let asks_too = body[7] == 1 && sender.is_unspecified() && target == wanted;
    (sender == wanted || asks_too).then_some(mac)
}

fn ipv6(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, target, &icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let t = target.octets();
    let mut frame = ethernet([0x33, 0x33, t[12], t[13], t[14], t[15]], mac, libc::ETH_P_IPV6 as u16);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(icmp.len() as u16).to_be_bytes());
    // Next header ICMPv6; hop limit 255 proves that it comes from this link.
    frame.extend_from_slice(&[58, 255]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&target.octets());
    frame.extend_from_slice(&icmp);
    frame
}

fn solicitation(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let a = address.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a[13]), u16::from_be_bytes([a[14], a[15]]));
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(&a);
    ipv6(mac, Ipv6Addr::UNSPECIFIED, group, icmp)
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    // Override: replace what is known. Not solicited, no router.
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend_from_slice(&address.octets());
    icmp.extend_from_slice(&[2, 1]);
    icmp.extend_from_slice(&mac);
    ipv6(mac, address, ALL_NODES, icmp)
}

/// Who claims the address in an IPv6 frame: an advertisement of it, or another duplicate detection for it.
fn claims_v6(frame: &[u8], wanted: Ipv6Addr) -> Option<[u8; 6]> {
    let mac = <[u8; 6]>::try_from(frame.get(6..12)?).ok()?;
    let packet = frame.get(14..)?;
    if packet.len() < 64 || packet[6] != 58 || packet[7] != 255 {
        return None;
    }
    let source = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).ok()?);
    let target = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[48..64]).ok()?);
    let claims = match packet[40] {
        136 => true,
        135 => source.is_unspecified(),
        _ => false,
    };
    (claims && target == wanted).then_some(mac)
}

/// The Internet checksum over the pseudo header of RFC 8200 §8.1 and the message.
fn checksum(source: Ipv6Addr, target: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(40 + message.len());
    bytes.extend_from_slice(&source.octets());
    bytes.extend_from_slice(&target.octets());
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 58]);
    bytes.extend_from_slice(message);
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn an_answer_and_a_rival_question_are_claims_and_a_plain_question_is_none() {
        let wanted: Ipv4Addr = "192.0.2.10".parse().unwrap();
        let host: Ipv4Addr = "192.0.2.3".parse().unwrap();
        assert_eq!(claims_v4(&arp(OTHER, wanted, US, US, Ipv4Addr::UNSPECIFIED, 2), wanted), Some(OTHER));
        assert_eq!(claims_v4(&arp(OTHER, Ipv4Addr::UNSPECIFIED, BROADCAST, [0; 6], wanted, 1), wanted), Some(OTHER));
        assert_eq!(claims_v4(&arp(OTHER, host, BROADCAST, [0; 6], wanted, 1), wanted), None);
        assert_eq!(claims_v4(&[0; 20], wanted), None);
    }

    #[test]
    fn neighbour_messages_are_well_formed() {
        let wanted: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let told = advertisement(OTHER, wanted);
        assert_eq!(claims_v6(&told, wanted), Some(OTHER));
        assert_eq!(claims_v6(&solicitation(OTHER, wanted), wanted), Some(OTHER));
        assert_eq!(claims_v6(&told, ALL_NODES), None);
        // A receiver sums everything, checksum included, to zero.
        assert_eq!(checksum(wanted, ALL_NODES, &told[54..]), 0);
    }
}
