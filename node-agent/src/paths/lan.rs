//! One LAN path: a UDP socket bound to this server's own address on that network, and a thread that receives.
//!
//! Sending never waits: a full send buffer loses a datagram like a busy network does. A missing address or interface
//! is no error to stop for; the socket is bound all the same and works as soon as the address is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use holdfast_core::Input;
use holdfast_core::names::{BootId, ServerName};
use holdfast_core::time::Instant;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::keys::Keys;
use super::refusals::Refusals;
use super::seal::Kind;
use super::seen::{Mark, Seen};
use super::{LanWiring, SendError};
use crate::clock;
use crate::inbox::Inbox;

/// The largest datagram that is sent; larger ones don't fit into UDP with its headers. Above the network's frame size
/// the kernel sends fragments.
pub const MAX_DATAGRAM: usize = 60 << 10;
/// How often a thread looks whether it has to end, or to bind again.
const LOOK: Duration = Duration::from_millis(250);
/// Receive buffer of the socket, in bytes: some hundred frames while the thread has no processor.
const BUFFER: usize = 512 << 10;

/// A running LAN path; it ends when dropped.
#[derive(Debug)]
pub struct Lan {
    wiring: LanWiring,
    me: ServerName,
    own: IpAddr,
    shared: Arc<Shared>,
}

/// Who else is on the path, and where: while a server gets another address, at both.
#[derive(Debug, Default)]
struct Peers {
    addresses: BTreeMap<ServerName, BTreeSet<IpAddr>>,
    ids: BTreeMap<ServerName, u8>,
}

#[derive(Debug, Default)]
struct Shared {
    peers: Mutex<Peers>,
    socket: Mutex<Option<Arc<UdpSocket>>>,
    error: Mutex<Option<String>>,
    heard: Mutex<BTreeMap<ServerName, Instant>>,
    refusals: Refusals,
    end: AtomicBool,
}

impl Lan {
    /// Binds and starts the receiving thread. Fails only if this server has no endpoint on the path or no thread can be
    /// made.
    pub fn start(me: ServerName, wiring: LanWiring, keys: Keys, seen: Seen, inbox: Inbox) -> io::Result<Lan> {
        let own = wiring.endpoints.get(&me).copied().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the path {} has no endpoint for {me}", wiring.name))
        })?;
        let shared = Arc::new(Shared::default());
        follow(&shared, &[&wiring]);
        let receiver = Receiver {
            own,
            me: me.clone(),
            wiring: wiring.clone(),
            shared: shared.clone(),
            keys,
            seen,
            inbox,
            boots: BTreeMap::new(),
        };
        let _ = receiver.bind();
        thread::Builder::new()
            .name(format!("lan-{}", wiring.name))
            .stack_size(192 << 10)
            .spawn(move || receiver.run())?;
        Ok(Lan { wiring, me, own, shared })
    }

    /// What it was made from.
    pub fn wiring(&self) -> &LanWiring {
        &self.wiring
    }

    /// Whether this wiring is of this socket: nothing that a socket has to be opened anew for differs.
    pub fn is(&self, wiring: &LanWiring) -> bool {
        let same = |w: &LanWiring| (w.name.clone(), w.kind, w.port, w.interface.clone());
        same(&self.wiring) == same(wiring) && wiring.endpoints.get(&self.me) == Some(&self.own)
    }

    /// Takes the endpoints of all wirings of this socket, the newest first.
    pub fn follow(&self, all: &[&LanWiring]) {
        let own: Vec<&LanWiring> = all.iter().copied().filter(|wiring| self.is(wiring)).collect();
        follow(&self.shared, &own);
    }

    /// Sends to every other server.
    pub fn broadcast(&self, sealed: &[u8]) -> Result<(), SendError> {
        let all: Vec<ServerName> = match self.shared.peers.lock() {
            Ok(peers) => peers.addresses.keys().filter(|to| **to != self.me).cloned().collect(),
            Err(_) => return Ok(()),
        };
        all.iter().try_for_each(|to| self.send(to, sealed))
    }

    /// Sends to one server. What the network refuses counts as lost; only what can never be sent is an error.
    pub fn send(&self, to: &ServerName, sealed: &[u8]) -> Result<(), SendError> {
        if sealed.len() > MAX_DATAGRAM {
            return Err(SendError::TooLarge { found: sealed.len(), allowed: MAX_DATAGRAM });
        }
        let socket = self.shared.socket.lock().ok().and_then(|socket| socket.clone());
        let addresses = self.shared.peers.lock().ok().and_then(|peers| peers.addresses.get(to).cloned());
        let (Some(socket), Some(addresses)) = (socket, addresses) else {
            return Ok(());
        };
        for address in addresses {
            let address = SockAddr::from(SocketAddr::new(address, self.wiring.port));
            match SockRef::from(&*socket).send_to_with_flags(sealed, &address, libc::MSG_DONTWAIT) {
                Ok(_) => self.set_error(None),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => self.set_error(Some(self.told(to, &e))),
            }
        }
        Ok(())
    }

    /// Why nothing can be sent to a server: the system's word alone would not say what is missing here.
    fn told(&self, to: &ServerName, error: &io::Error) -> String {
        let (own, over) = (self.own, over(self.wiring.interface.as_deref()));
        // Without IP_FREEBIND an address that nobody has is refused.
        match UdpSocket::bind((own, 0)) {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {
                format!("{own} is on no interface of this server; sending to {to}{over} fails: {error}")
            }
            _ => format!("sending to {to}{over} fails: {error}"),
        }
    }

    /// When a frame of this server last arrived here.
    pub fn heard(&self, from: &ServerName) -> Option<Instant> {
        self.shared.heard.lock().ok()?.get(from).copied()
    }

    /// What keeps this server from using the path, if anything does.
    pub fn error(&self) -> Option<String> {
        self.shared.error.lock().ok()?.clone()
    }

    /// What was refused on it lately.
    pub fn refusals(&self) -> &Refusals {
        &self.shared.refusals
    }

    fn set_error(&self, error: Option<String>) {
        set(&self.wiring, &self.shared, error);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
    }
}

fn follow(shared: &Shared, all: &[&LanWiring]) {
    let Ok(mut peers) = shared.peers.lock() else { return };
    *peers = Peers::default();
    for wiring in all {
        for (name, address) in &wiring.endpoints {
            peers.addresses.entry(name.clone()).or_default().insert(*address);
        }
        for (name, id) in &wiring.ids {
            peers.ids.entry(name.clone()).or_insert(*id);
        }
    }
}

/// Keeps the newest error and logs each change once.
fn set(wiring: &LanWiring, shared: &Shared, error: Option<String>) {
    let Ok(mut now) = shared.error.lock() else { return };
    if *now != error {
        match &error {
            Some(e) => tracing::warn!(path = %wiring.name, "{e}"),
            None => tracing::info!(path = %wiring.name, "the path can be used again"),
        }
        *now = error;
    }
}

struct Receiver {
    own: IpAddr,
    me: ServerName,
    wiring: LanWiring,
    shared: Arc<Shared>,
    keys: Keys,
    seen: Seen,
    inbox: Inbox,
    /// The boot that every server speaks from, and the one before.
    boots: BTreeMap<ServerName, (BootId, Option<BootId>)>,
}

impl Receiver {
    fn bind(&self) -> Option<Arc<UdpSocket>> {
        let bound = open(self.own, self.wiring.port, self.wiring.interface.as_deref()).map(Arc::new);
        let socket = bound.as_ref().ok().cloned();
        if let Ok(mut shared) = self.shared.socket.lock() {
            shared.clone_from(&socket);
        }
        let over = over(self.wiring.interface.as_deref());
        let error = bound.err().map(|e| format!("{} port {}{over} can't be bound: {e}", self.own, self.wiring.port));
        set(&self.wiring, &self.shared, error);
        socket
    }

    fn run(mut self) {
        // Refused by some containers; the agent warns about it once, for all its threads.
        let _ = crate::realtime::raise_this_thread();
        let mut buffer = vec![0; 64 << 10];
        let mut socket = self.shared.socket.lock().ok().and_then(|socket| socket.clone());
        while !self.shared.end.load(Ordering::Acquire) {
            let Some(open) = &socket else {
                thread::sleep(LOOK);
                socket = self.bind();
                continue;
            };
            match open.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if let Err(reason) = self.take(&buffer[..length]) {
                        let sender = self.at(from.ip());
                        let reason = format!("from {}: {reason}", from.ip());
                        self.shared.refusals.refuse(&self.wiring.name, sender.as_ref(), reason);
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    if !self.is_on_its_interface(open) {
                        socket = self.bind();
                    }
                }
                Err(e) => {
                    set(&self.wiring, &self.shared, Some(format!("receiving fails: {e}")));
                    thread::sleep(LOOK);
                    socket = self.bind();
                }
            }
        }
    }

    /// A socket stays on the interface that it was bound to when that goes, and another one comes under its name.
    fn is_on_its_interface(&self, socket: &UdpSocket) -> bool {
        let Some(wanted) = &self.wiring.interface else { return true };
        matches!(SockRef::from(socket).device(), Ok(Some(found)) if found == wanted.as_bytes())
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), String> {
        let keys = self.keys.current().map_err(|e| e.to_string())?;
        let opened = keys.open(&self.wiring.name.0, datagram).map_err(|e| e.to_string())?;
        let content = opened.content;
        match opened.kind {
            Kind::Frame => {
                let frame: holdfast_core::frame::Frame = postcard::from_bytes(&content).map_err(|e| e.to_string())?;
                self.check(&frame)?;
                self.seen.take(&frame.from, Mark::from(&frame))?;
                self.keys.heard(&frame.from, opened.highest, clock::now());
                if let Ok(mut heard) = self.shared.heard.lock() {
                    heard.insert(frame.from.clone(), clock::now());
                }
                self.inbox.offer(Input::Frame { path: self.wiring.name.clone(), frame: Box::new(frame) });
            }
            Kind::Message => {
                let message: holdfast_core::message::Envelope =
                    postcard::from_bytes(&content).map_err(|e| e.to_string())?;
                if message.from == self.me || !self.knows(&message.from) {
                    return Err(format!("a message of {:?}, which has no endpoint on this path", message.from.0));
                }
                self.inbox.offer(Input::Message(Box::new(message)));
            }
        }
        Ok(())
    }

    /// The server whose endpoint this address is.
    fn at(&self, address: IpAddr) -> Option<ServerName> {
        let peers = self.shared.peers.lock().ok()?;
        peers.addresses.iter().find(|(_, known)| known.contains(&address)).map(|(name, _)| name.clone())
    }

    fn knows(&self, server: &ServerName) -> bool {
        self.shared.peers.lock().is_ok_and(|peers| peers.addresses.contains_key(server))
    }

    /// Whether a heartbeat is of one of our servers, and of only one machine.
    fn check(&mut self, frame: &holdfast_core::frame::Frame) -> Result<(), String> {
        let from = &frame.from;
        if *from == self.me {
            return Err(format!("it says that it is {from}, like this server: two machines run an agent of that name"));
        }
        if !self.knows(from) {
            return Err(format!("a heartbeat of {:?}, which has no endpoint on this path", from.0));
        }
        let ids = self.shared.peers.lock().map(|peers| peers.ids.clone()).unwrap_or_default();
        let id = ids.get(from).copied().unwrap_or_default();
        if frame.id != id {
            let other = ids.iter().find(|(_, other)| **other == frame.id).map(|(name, _)| name);
            let other = other.map_or_else(String::new, |other| format!(", which is the number of {other}"));
            return Err(format!(
                "{from} has number {} by its own configuration{other}; here {from} has number {id}; give both servers \
                 the same SubCluster",
                frame.id
            ));
        }
        let boots = self.boots.entry(from.clone()).or_insert((frame.boot, None));
        if frame.boot == boots.0 {
            return Ok(());
        }
        // A machine that boots again never speaks from its old boot any more.
        let both = boots.1 == Some(frame.boot);
        *boots = (frame.boot, Some(boots.0));
        if both {
            // The core takes one of them; which one is not this path's to say.
            let reason = format!("two machines say that they are {from}: boots {} and {}", boots.0, frame.boot);
            self.shared.refusals.refuse(&self.wiring.name, Some(from), reason);
        }
        Ok(())
    }
}

/// The interface that a path is bound to, in words.
fn over(interface: Option<&str>) -> String {
    interface.map(|name| format!(" over the interface {name}")).unwrap_or_default()
}

/// A socket bound to this server's own address, which need not exist yet (IP_FREEBIND).
fn open(own: IpAddr, port: u16, interface: Option<&str>) -> io::Result<UdpSocket> {
    let domain = if own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if own.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    // As large as the system allows; less is no reason to stop.
    let _ = socket.set_recv_buffer_size(BUFFER);
    socket.set_read_timeout(Some(LOOK))?;
    socket.bind(&SockAddr::from(SocketAddr::new(own, port)))?;
    Ok(socket.into())
}

#[cfg(test)]
#[path = "lan_tests.rs"]
mod tests;
