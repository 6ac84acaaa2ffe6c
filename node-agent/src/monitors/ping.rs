//! Answers to ping: ICMP echo (RFC 792) and ICMPv6 echo (RFC 4443), over raw sockets.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use holdfast_api::v1::IcmpCheck;
use socket2::{Domain, Protocol, Socket, Type};

use super::{advised, late};
use crate::resources::Verdict;

/// Questions within one check: a single packet that is lost is no failure.
const QUESTIONS: u32 = 3;

/// What became of one target.
enum Found {
    Answer,
    /// It could not be asked, for this reason.
    Unasked(String),
}

/// All targets are asked at once; enough answers end it.
pub(super) fn run(check: &IcmpCheck, limit: Duration) -> Verdict {
    let until = Instant::now() + limit;
    let (sender, receiver) = channel();
    for (number, target) in (0_u16..).zip(&check.targets) {
        let (sender, target) = (sender.clone(), target.clone());
        std::thread::spawn(move || {
            if let Some(found) = ask(&target, number, until) {
                let _ = sender.send((target, found));
            }
        });
    }
    drop(sender);
    let needed = usize::from(check.min_reachable);
    let (mut answers, mut unasked) = (Vec::new(), Vec::new());
    while let Ok((target, found)) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        match found {
            Found::Answer => answers.push(target),
            Found::Unasked(problem) => unasked.push((target, problem)),
        }
        if answers.len() >= needed {
            return Verdict::running();
        }
    }
    if answers.len() + unasked.len() >= needed {
        // Those that could not be asked may all be well.
        let problems: Vec<String> = unasked.iter().map(|(target, problem)| format!("{target}: {problem}")).collect();
        return Verdict::unknown(problems.join("; "));
    }
    let asked = |target: &&String| !answers.contains(*target) && !unasked.iter().any(|(other, _)| other == *target);
    let silent: Vec<&str> = check.targets.iter().filter(asked).map(String::as_str).collect();
    let verdict = late(&format!("no answer to ping from {}", silent.join(", ")), limit);
    let verdict = match needed {
        1 => verdict,
        _ => verdict.clone().with(format!("{} of {needed} needed targets answer; {}", answers.len(), verdict.message)),
    };
    let target = silent.first().copied().unwrap_or_default();
    advised(verdict, || format!("`ip route get {target}` shows the way there; look at it, and for a firewall"))
}

/// None: it was asked and did not answer in time.
fn ask(target: &str, number: u16, until: Instant) -> Option<Found> {
    let address = match (target, 0).to_socket_addrs().map(|mut all| all.next()) {
        Ok(Some(address)) => address,
        Ok(None) => return Some(Found::Unasked("it has no address; correct the name, or give an address".into())),
        Err(error) => {
            return Some(Found::Unasked(format!(
                "it can't be looked up: {error}; correct the name, or give an address"
            )));
        }
    };
    match echo(address, number, until) {
        Ok(true) => Some(Found::Answer),
        Ok(false) => None,
        Err(error) => Some(Found::Unasked(format!("ping can't be used: {error}"))),
    }
}

/// Asks until it answers or the time is over.
fn echo(address: SocketAddr, number: u16, until: Instant) -> io::Result<bool> {
    let (domain, protocol) = match address.ip() {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    // The kernel gives this socket only what comes from there.
    if let Err(error) = socket.connect(&address.into()) {
        return unreachable(error);
    }
    let id = std::process::id() as u16;
    let pause = until.saturating_duration_since(Instant::now()) / QUESTIONS;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    for _ in 0..QUESTIONS {
        if let Err(error) = socket.send(&request(address.ip(), id, number))
            && !unreachable(error)?
        {
            std::thread::sleep(pause);
            continue;
        }
        let next = (Instant::now() + pause).min(until);
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match socket.recv(&mut buffer) {
                Ok(count) if is_answer(&received(&buffer, count), address.ip(), id, number) => return Ok(true),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => drop(unreachable(error)?),
            }
        }
    }
    Ok(false)
}

/// No way to the target is no answer from it; whatever else fails is this server's own.
fn unreachable(error: io::Error) -> io::Result<bool> {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    match error.kind() {
        HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => Ok(false),
        // A router, or the target itself, says no.
        io::ErrorKind::ConnectionRefused => Ok(false),
        _ => Err(error),
    }
}

#[expect(unsafe_code, reason = "bytes that the kernel has written")]
fn received(buffer: &[MaybeUninit<u8>], count: usize) -> Vec<u8> {
    // SAFETY: the kernel wrote the first `count` bytes.
    buffer.iter().take(count).map(|byte| unsafe { byte.assume_init() }).collect()
}

/// Type, code, checksum, identifier, sequence number, and data of our own.
fn request(to: IpAddr, id: u16, number: u16) -> Vec<u8> {
    let mut message = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&number.to_be_bytes());
    message.extend_from_slice(b"holdfast");
    if to.is_ipv4() {
        // For IPv6 the kernel fills it in (RFC 3542 §3.1).
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether a packet answers this request. Raw IPv4 sockets give the IP header, too, IPv6 ones do not.
fn is_answer(packet: &[u8], from: IpAddr, id: u16, number: u16) -> bool {
    let (message, kind) = match from {
        IpAddr::V4(_) => {
            let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
            (packet.get(header..).unwrap_or_default(), 0)
        }
        IpAddr::V6(_) => (packet, 129),
    };
    message.first() == Some(&kind)
        && message.get(4..6) == Some(&id.to_be_bytes())
        && message.get(6..8) == Some(&number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero_and_only_its_own_answer_is_one() {
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let mut message = request(v4, 77, 3);
        assert_eq!(checksum(&message), 0, "a receiver sums everything, checksum included, to zero");
        let packet = |message: &[u8]| [&[0x45_u8][..], &[0; 19], message].concat();
        assert!(!is_answer(&packet(&message), v4, 77, 3), "what was asked is no answer");
        message[0] = 0;
        assert!(is_answer(&packet(&message), v4, 77, 3));
        assert!(!is_answer(&packet(&message), v4, 78, 3) && !is_answer(&packet(&message), v4, 77, 4));
        assert!(!is_answer(&[], v4, 77, 3) && !is_answer(&[0x4f], v4, 77, 3));
        message[0] = 129;
        assert!(is_answer(&message, v6, 77, 3));
    }
}
