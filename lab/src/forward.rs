//! A door from the machine into the lab: a port on the machine's loopback that leads to a port of a host. So
//! kubectl on the machine reaches the lab's API server, and the machine's own network needs no interface for it.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::error::{Attempt, Result};
use crate::host::Host;

/// How long a connection into the lab may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An open door. Dropping it closes the port; connections that are open end with their peers.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Opens a free port of 127.0.0.1 that leads to `target` as `host` reaches it.
    ///
    /// # Errors
    /// When no port is free.
    pub fn open(host: Arc<Host>, target: SocketAddr) -> Result<Forwarder> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).attempt(|| "opening a port of 127.0.0.1".into())?;
        let address = listener.local_addr().attempt(|| "reading the port's number".into())?;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("forwarder".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let host = Arc::clone(&host);
                    // A connection that can't be served is closed, which its client sees.
                    let _ = std::thread::Builder::new().name("connection".into()).spawn(move || {
                        let _ = serve(stream, &host, target);
                    });
                }
            })
            .attempt(|| "starting the forwarder's thread".into())?;
        Ok(Forwarder { address, stop, thread: Some(thread) })
    }

    /// The machine's side of the door.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread out of accept.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries one connection; this thread moves into the host's network for good.
fn serve(outside: TcpStream, host: &Host, target: SocketAddr) -> io::Result<()> {
    let pid = host.pid().map_err(io::Error::other)?;
    setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
    let inside = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    for stream in [&outside, &inside] {
        stream.set_nodelay(true)?;
    }
    let (from_outside, to_inside) = (outside.try_clone()?, inside.try_clone()?);
    let inward =
        std::thread::Builder::new().name("connection".into()).spawn(move || pump(&from_outside, &to_inside))?;
    pump(&inside, &outside);
    let _ = inward.join();
    Ok(())
}

/// Copies until the end of `from`, then ends both: the protocols carried here never use a half-open connection.
fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
