//! What a client sees: a thread on a host of the lab that asks a web server for a page every 10 ms and notes
//! each answer. A request is begun every interval whether or not earlier ones were answered, and is given up
//! after 100 ms, so the end of an outage is seen within one interval.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::{Attempt, LabError, Result};
use crate::host::Host;
use crate::shell::{boottime_ns, wait_for};

/// Pause between two requests.
pub const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// After this a request counts as unanswered.
pub const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// An answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// CLOCK_BOOTTIME when the request was begun, nanoseconds.
    pub begun_ns: u64,
    /// CLOCK_BOOTTIME when the whole answer was there, nanoseconds.
    pub answered_ns: u64,
    /// The page, without white space at its ends; in the examples it is the name of the host that serves.
    pub content: String,
}

/// A stretch of time without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// From the last answer before it to the first after it.
    pub length: Duration,
    /// CLOCK_BOOTTIME of the last answer before it, nanoseconds.
    pub begin_ns: u64,
    /// Who answered before.
    pub before: String,
    /// Who answered afterwards.
    pub after: String,
}

/// A running poller. Dropping it ends its thread.
#[derive(Debug)]
pub struct Poller {
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Begins to ask `http://ADDRESS/` from `client`.
    ///
    /// # Errors
    /// When the client is off or its network can't be entered.
    pub fn start(client: &Host, address: SocketAddr) -> Result<Poller> {
        let path = format!("/proc/{}/ns/net", client.pid()?);
        let network = File::open(&path).attempt(|| format!("opening {path}"))?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (to_poller, entered) = std::sync::mpsc::channel();
        let (shared, ended) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("poller".into())
            .spawn(move || {
                let outcome = setns(&network, CloneFlags::CLONE_NEWNET);
                let failed = outcome.is_err();
                let _ = to_poller.send(outcome);
                if !failed {
                    poll_until(address, &ended, &shared);
                }
            })
            .attempt(|| "starting the poller's thread".into())?;
        let entered = entered.recv().map_err(|_| LabError::Api("the poller's thread ended at once".into()))?;
        entered.attempt(|| format!("entering the network of {}", client.name()))?;
        Ok(Poller { answers, stop, thread: Some(thread) })
    }

    /// All answers so far, in the order in which they came.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest answer.
    #[must_use]
    pub fn last(&self) -> Option<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// Waits until a request that was begun after this call is answered with `content` (any, if `None`).
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the newest answer.
    pub fn wait_for_answer(&self, content: Option<&str>, limit: Duration) -> Result<Answer> {
        self.wait_for_answer_after(boottime_ns(), content, limit)
    }

    /// As [`Poller::wait_for_answer`], for requests begun after `after_ns`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the newest answer.
    pub fn wait_for_answer_after(&self, after_ns: u64, content: Option<&str>, limit: Duration) -> Result<Answer> {
        let what = format!("an answer by {}", content.unwrap_or("any server"));
        wait_for(&what, limit, |last| {
            let Some(answer) = self.last() else { return Ok(None) };
            *last = format!("{answer:?}");
            let fits = content.is_none_or(|wanted| wanted == answer.content);
            Ok((fits && answer.begun_ns > after_ns).then_some(answer))
        })
    }

    /// The longest time without an answer among answers that came after `since_ns`, or `None` with fewer than two.
    #[must_use]
    pub fn longest_outage(&self, since_ns: u64) -> Option<Outage> {
        longest_outage(&self.answers(), since_ns)
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The longest gap between two consecutive answers of which the later came after `since_ns`.
fn longest_outage(answers: &[Answer], since_ns: u64) -> Option<Outage> {
    let pairs = answers.iter().zip(answers.iter().skip(1));
    let (before, after) = pairs
        .filter(|(_, later)| later.answered_ns > since_ns)
        .max_by_key(|(earlier, later)| later.answered_ns - earlier.answered_ns)?;
    Some(Outage {
        length: Duration::from_nanos(after.answered_ns - before.answered_ns),
        begin_ns: before.answered_ns,
        before: before.content.clone(),
        after: after.content.clone(),
    })
}

/// A request on its way.
struct Request {
    stream: TcpStream,
    begun_ns: u64,
    sent: bool,
    received: Vec<u8>,
}

fn poll_until(address: SocketAddr, stop: &AtomicBool, answers: &Mutex<Vec<Answer>>) {
    let mut open: Vec<Request> = Vec::new();
    let interval = u64::try_from(POLL_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
    let timeout = u64::try_from(POLL_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
    let mut next_ns = boottime_ns();
    while !stop.load(Ordering::Relaxed) {
        let now = boottime_ns();
        if now >= next_ns {
            next_ns = (next_ns + interval).max(now);
            // An error at once (no route, no descriptor) is an unanswered request.
            open.extend(begin(address, now).ok());
        }
        open.retain(|request| now < request.begun_ns + timeout);
        let ready = wait(&open, next_ns.saturating_sub(now));
        let mut index = 0;
        open.retain_mut(|request| {
            let is_ready = ready.get(index).copied().unwrap_or(false);
            index += 1;
            if !is_ready {
                return true;
            }
            match advance(request) {
                Ok(None) => true,
                Ok(Some(content)) => {
                    let answer = Answer { begun_ns: request.begun_ns, answered_ns: boottime_ns(), content };
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                    false
                }
                Err(_) => false,
            }
        });
    }
}

fn begin(address: SocketAddr, now: u64) -> std::io::Result<Request> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(Request { stream: socket.into(), begun_ns: now, sent: false, received: Vec::new() })
}

/// Waits up to `limit_ns` for any request to make progress; tells which are ready.
fn wait(open: &[Request], limit_ns: u64) -> Vec<bool> {
    let mut watched: Vec<PollFd<'_>> = open
        .iter()
        .map(|request| {
            let events = if request.sent { PollFlags::POLLIN } else { PollFlags::POLLOUT };
            PollFd::new(request.stream.as_fd(), events)
        })
        .collect();
    let limit = PollTimeout::try_from(limit_ns.div_ceil(1_000_000)).unwrap_or(PollTimeout::ZERO);
    if poll(&mut watched, limit).is_err() {
        return Vec::new();
    }
    watched.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect()
}

/// Sends or reads what can be; the page once it is complete. An answer other than 200 is an error.
fn advance(request: &mut Request) -> std::io::Result<Option<String>> {
    if !request.sent {
        if let Some(error) = request.stream.take_error()? {
            return Err(error);
        }
        // A few bytes fit into an empty send buffer at once.
        request.stream.write_all(b"GET / HTTP/1.0\r\nHost: holdfast\r\n\r\n")?;
        request.sent = true;
        return Ok(None);
    }
    let mut chunk = [0; 4096];
    match request.stream.read(&mut chunk) {
        Ok(0) => page(&request.received).map(Some).ok_or_else(|| ErrorKind::InvalidData.into()),
        Ok(count) => {
            request.received.extend_from_slice(&chunk[..count]);
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// The body of an HTTP answer with status 200.
fn page(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.split(' ').nth(1)?;
    (status == "200").then(|| body.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(answered_ns: u64, content: &str) -> Answer {
        Answer { begun_ns: answered_ns - 1, answered_ns, content: content.into() }
    }

    #[test]
    fn longest_outage_is_the_widest_gap_after_the_given_moment() {
        let answers = [answer(10, "a"), answer(500, "a"), answer(510, "a"), answer(700, "b"), answer(710, "b")];
        let outage = longest_outage(&answers, 505).expect("there are gaps after 505");
        assert_eq!((outage.length, outage.begin_ns), (Duration::from_nanos(190), 510));
        assert_eq!((outage.before.as_str(), outage.after.as_str()), ("a", "b"));
        assert_eq!(longest_outage(&answers[..1], 0), None);
    }

    #[test]
    fn only_a_complete_page_with_status_200_counts() {
        assert_eq!(page(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nnode1\n"), Some("node1".into()));
        assert_eq!(page(b"HTTP/1.0 404 Not Found\r\n\r\nno"), None);
        assert_eq!(page(b"HTTP/1.0 200 OK\r\nA: b"), None);
    }
}
