//! Runs one helper: born in a control group of its own, fed one request, killed with all that it started when it has
//! answered or its time is over.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Inner;
use crate::cgroup::Cgroup;
use crate::helper::{Question, Request, Verb};
use crate::monitors;
use crate::resources::{Plan, Verdict, execute};
use crate::said;
use crate::spawn::{self, Child, Exit};

/// How long the kernel may take to end a killed helper.
const KILL_WAIT: Duration = Duration::from_secs(1);
/// How long a helper that has answered may take to end by itself.
const END_WAIT: Duration = Duration::from_millis(100);

/// A descriptor for tokio to wait on.
#[derive(Debug)]
pub(super) struct Descriptor<T: AsFd>(pub T);

impl<T: AsFd> AsRawFd for Descriptor<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A descriptor whose readiness tokio watches.
#[expect(unsafe_code, reason = "AsyncFd::register")]
pub(super) fn watched<T: AsFd>(inner: T) -> io::Result<AsyncFd<Descriptor<T>>> {
    // SAFETY: what is registered here owns its descriptor and gives the same one as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(Descriptor(inner), Interest::READABLE) }?)
}

/// A helper that is waited for even if nobody wants its answer any more: it would stay a zombie as long as the agent lives.
struct Waited(Option<Child>);

impl Drop for Waited {
    fn drop(&mut self) {
        // Without a runtime the agent is ending, and with it the question.
        if let Some(child) = self.0.take().filter(|child| child.reap().is_none())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // It is being killed, which takes a moment; one that hangs in the kernel is left to it.
            runtime.spawn_blocking(move || child.wait(Some(Duration::from_secs(30))));
        }
    }
}

/// Carries the request out in a helper.
pub(super) async fn helper(inner: &Inner, request: Request, until: Instant) -> Verdict {
    let cgroup = inner.settings.cgroups.helper(request.op);
    let victims = killed_on_timeout(inner, &request);
    let limit = request.timeout;
    let field = match request.verb {
        Verb::Start => "timeouts.start of the resource",
        Verb::Stop => "timeouts.stop of the resource",
        Verb::Probe => "timeouts.probe of the resource",
        Verb::Monitor => "monitor.timeout of the resource",
    };
    let question = Question::Operation(Box::new(request));
    let verdict = match timeout_at(until, talk(inner, &cgroup, &question)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(problem)) => Verdict::unknown(format!("the helper could not be run: {problem}")),
        Err(_) => {
            let rest = kill(victims).await;
            Verdict::unknown(format!("{}{rest}", said::too_long(limit, field)))
        }
    };
    // What may still act decides: whatever it said, nobody knows what is left of it.
    let rest = finish(&cgroup).await;
    if rest.is_empty() { verdict } else { Verdict::unknown(format!("{}{rest}", verdict.message)) }
}

/// Carries a check of a monitor out in a helper; `called_back` ends it. Gives what is left of it, if that can't be killed.
pub(super) async fn check(
    inner: &Inner,
    request: monitors::Request,
    until: Instant,
    mut called_back: watch::Receiver<bool>,
) -> (Verdict, Option<Cgroup>) {
    let cgroups = &inner.settings.cgroups;
    let cgroup = if request.plan.acts() { cgroups.helper(request.op) } else { cgroups.check(request.op) };
    let limit = request.timeout;
    let question = Question::Check(Box::new(request));
    let verdict = tokio::select! {
        answer = timeout_at(until, talk(inner, &cgroup, &question)) => match answer {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(problem)) => Verdict::unknown(format!("the helper could not be run: {problem}")),
            Err(_) => Verdict::failed(said::too_long(limit, "timeout of the monitor")),
        },
        _ = called_back.wait_for(|end| *end) => Verdict::unknown("it was called back"),
    };
    // What is left of it is no reason to doubt what was seen: hanging is just what a check is to find out.
    let rest = finish(&cgroup).await;
    if rest.is_empty() {
        return (verdict, None);
    }
    let message = format!("{}{rest}", verdict.message);
    (verdict.with(message), Some(cgroup))
}

/// Ends whatever a helper left behind: nothing may go on acting for what was answered. Gives a sentence about what
/// survived, or nothing.
async fn finish(cgroup: &Cgroup) -> String {
    let rest = kill(vec![cgroup.clone()]).await;
    cgroup.remove();
    rest
}

/// What a timeout ends beside the helper: all that it started for this operation, but nothing that was started before.
fn killed_on_timeout(inner: &Inner, request: &Request) -> Vec<Cgroup> {
    let cgroups = &inner.settings.cgroups;
    let mut all = vec![cgroups.helper(request.op)];
    let resource = cgroups.resource(&request.group, &request.resource);
    match (&request.plan, request.verb) {
        // A start's own check runs beside it, and ends with it.
        (Plan::Script(_) | Plan::Ocf(_) | Plan::DataService(_), verb) => {
            if verb == Verb::Start {
                all.push(resource.child(execute::RUN));
            }
            all.push(resource.child(&execute::operation_group(request.op)));
        }
        (Plan::Process(_) | Plan::FloatingIp(_), Verb::Start) => all.push(resource),
        _ => {}
    }
    all
}

/// Kills them; gives a sentence about what survived, or nothing.
async fn kill(cgroups: Vec<Cgroup>) -> String {
    let killed = tokio::task::spawn_blocking(move || {
        let failures = cgroups.iter().filter_map(|cgroup| cgroup.kill(KILL_WAIT).err());
        failures.map(|e| format!("; {e}")).collect::<String>()
    });
    killed.await.unwrap_or_else(|e| format!("; killing it failed: {e}"))
}

async fn talk(inner: &Inner, cgroup: &Cgroup, question: &Question) -> Result<Verdict, String> {
    let text = |e: io::Error| e.to_string();
    let question = serde_json::to_vec(question).map_err(|e| e.to_string())?;
    let (their_input, our_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
    let (our_input, their_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
    let mut child = Waited(Some(start(inner, cgroup, their_input, their_output)?));
    let mut sender = pipe::Sender::from_owned_fd(our_output).map_err(text)?;
    let mut receiver = pipe::Receiver::from_owned_fd(our_input).map_err(text)?;
    let mut answer = Vec::new();
    let ask = async {
        let sent = sender.write_all(&question).await;
        drop(sender);
        sent
    };
    let (sent, received) = tokio::join!(ask, receive(&mut receiver, &mut answer));
    received.map_err(text)?;
    let Some(running) = &child.0 else { return Err("it is gone".to_owned()) };
    if let Ok(verdict) = serde_json::from_slice::<Verdict>(&answer) {
        // One that does not end, because a thread of it hangs, has answered all the same; it is killed next.
        if timeout_at(Instant::now() + END_WAIT, wait(running)).await.is_ok() {
            child.0 = None;
        }
        return Ok(verdict);
    }
    let exit = wait(running).await.map_err(text)?;
    child.0 = None;
    let sent = sent.err().map(|e| format!("; it did not take its request: {e}")).unwrap_or_default();
    Err(format!("it ended without an answer ({exit}){sent}"))
}

/// Reads the answer: up to its newline, or to the end of a helper that gives none.
async fn receive(receiver: &mut pipe::Receiver, answer: &mut Vec<u8>) -> io::Result<()> {
    while answer.last() != Some(&b'\n') && receiver.read_buf(answer).await? > 0 {}
    Ok(())
}

fn start(inner: &Inner, cgroup: &Cgroup, input: OwnedFd, output: OwnedFd) -> Result<Child, String> {
    let directory = cgroup.open().map_err(|e| e.to_string())?;
    inner.nursery.bear(directory.as_fd(), input.as_fd(), output.as_fd()).map_err(|e| e.to_string())
}

async fn wait(child: &Child) -> io::Result<Exit> {
    let watched = watched(child.pidfd.try_clone()?)?;
    loop {
        let mut ready = watched.readable().await?;
        if let Some(exit) = child.reap() {
            return Ok(exit);
        }
        if spawn::ended(&child.pidfd, Some(Duration::ZERO)) {
            return Err(io::Error::other("somebody else waited for it"));
        }
        ready.clear_ready();
    }
}
