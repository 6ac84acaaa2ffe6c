//! `agent.sock` in the run directory: whoever connects says one line of JSON ([`Request`]) and gets one line of JSON, and the
//! connection is closed. It works without API. Only the super-user may connect, and nobody else is listened to.

use std::fs::Permissions;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::clock;
use crate::commands::{Answer, LONGEST, Request};
use crate::convert::server_status::{Facts, GuardView};
use crate::convert::{Wall, cluster_status, group_status, server_status};
use crate::driver_loop::Snapshot;
use crate::given::Given;
use crate::inbox::{Event, Inbox};

/// Name of the socket in the run directory.
pub const SOCKET: &str = "agent.sock";
/// Connections at once; the next one waits. Each takes a little memory, for as long as its command takes.
const AT_ONCE: usize = 32;
/// How long somebody may take to say what is wanted, and to take the answer.
const SLOW: Duration = Duration::from_secs(5);

/// Path of the socket.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

/// Binds the socket, for root only. One that an earlier agent left behind is replaced.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    let path = path(run_dir);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// What the core says.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What the guard says.
    pub guard: watch::Receiver<GuardView>,
    /// What this machine is.
    pub facts: Arc<Facts>,
    /// The way to the core.
    pub inbox: Inbox,
    /// What was commanded here, for the record.
    pub given: Given,
}

/// Answers for as long as the agent runs.
pub async fn serve(listener: UnixListener, sources: Sources) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the like: not again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let sources = sources.clone();
        tokio::spawn(async move {
            converse(stream, &sources).await;
            drop(place);
        });
    }
}

/// One question, one answer.
async fn converse(mut stream: UnixStream, sources: &Sources) {
    // The file's mode says the same; this also holds for a descriptor that was handed on.
    let root = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
    let asked = if root { ask(&mut stream).await } else { Err("only the super-user may ask the agent".to_owned()) };
    let answer = match asked {
        Ok(Request::Status {}) => {
            let snapshot = sources.snapshots.borrow().clone();
            status(snapshot.as_deref(), &sources.guard.borrow(), &sources.facts)
        }
        Ok(request) => {
            tracing::info!(?request, "a command was given on this server");
            let given = Timestamp::now();
            let answer = carry_out(request.clone(), &sources.inbox).await;
            if let Answer::Done(done) = &answer {
                sources.given.note(&request, given, done).await;
            }
            json!(answer)
        }
        Err(refusal) => json!(Answer::Refused(refusal)),
    };
    let mut line = answer.to_string();
    line.push('\n');
    // Who doesn't read gets nothing.
    let _ = tokio::time::timeout(SLOW, stream.write_all(line.as_bytes())).await;
}

/// Reads what is asked.
async fn ask(stream: &mut UnixStream) -> Result<Request, String> {
    let mut line = Vec::new();
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
    let mut reader = BufReader::new(stream).take(most);
    match tokio::time::timeout(SLOW, reader.read_until(b'\n', &mut line)).await {
        Err(_) => Err(format!("no command came within {} s", SLOW.as_secs())),
        Ok(Err(error)) => Err(format!("the command can't be read: {error}")),
        // Without its end it may be half of one.
        Ok(Ok(_)) if line.last() != Some(&b'\n') => Err("the command does not end with a newline".to_owned()),
        Ok(Ok(_)) => Request::parse(&line),
    }
}

/// Gives a command to the core and waits for its answer.
async fn carry_out(request: Request, inbox: &Inbox) -> Answer {
    let (reply, answer) = oneshot::channel();
    inbox.deliver(Event::Command { request, reply });
    match answer.await {
        Ok(Ok(done)) => Answer::Done(done),
        Ok(Err(refusal)) => Answer::Refused(refusal),
        Err(_) => Answer::Refused("the agent ended before it had an answer".to_owned()),
    }
}

/// Asks the agent of a run directory; gives its line. Blocks until it answers.
///
/// # Errors
/// When no agent is there, or it ends without an answer.
pub fn call(run_dir: &Path, request: &Request) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(path(run_dir))?;
    // It may have answered and hung up already: a refusal that waits to be read says more than a broken pipe.
    let said = stream.write_all(request.line().as_bytes());
    let mut line = String::new();
    io::BufReader::new(&stream).read_line(&mut line)?;
    if line.is_empty() {
        said?;
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent ended before it had an answer"));
    }
    Ok(line)
}

/// What this server knows, in the words of the API.
fn status(snapshot: Option<&Snapshot>, guard: &GuardView, facts: &Facts) -> Value {
    let Some(snapshot) = snapshot else {
        return json!({"server": facts.server.0, "sentence": "starting"});
    };
    let now = Timestamp::now();
    let wall = Wall::new(clock::now(), now);
    let status = &snapshot.status;
    let machine =
        server_status::Machine { facts, guard, programs: &[], unusable: &[], exec: &[], commands: &[], problem: None };
    let server = server_status::server_status(snapshot, machine, &Default::default(), None, wall, now);
    let present = status.coordinator.iter().flat_map(|c| c.groups.keys()).map(|name| name.0.clone()).collect();
    let cluster =
        cluster_status::cluster_status(snapshot, &facts.server.0, &Default::default(), &present, None, wall, now);
    let placed: serde_json::Map<String, Value> = status
        .coordinator
        .iter()
        .flat_map(|c| &c.groups)
        .map(|(name, group)| {
            let group = group_status::group_status(snapshot, name, group, &Default::default(), None, wall, now);
            (name.0.clone(), json!(group))
        })
        .collect();
    let held: serde_json::Map<String, Value> = status
        .groups
        .iter()
        .map(|(name, group)| {
            let resources: serde_json::Map<String, Value> =
                group.resources.iter().map(|(name, r)| (name.0.clone(), json!(r.phase.name()))).collect();
            let group = json!({
                "phase": group.phase.name(), "generation": group.generation, "resources": resources,
                "epoch": group.tag.epoch, "revision": group.tag.revision, "message": group.message,
            });
            (name.0.clone(), group)
        })
        .collect();
    json!({
        "server": facts.server.0,
        "sentence": status.sentence,
        "stuck": snapshot.stuck,
        "isCoordinator": status.coordinator.is_some(),
        "status": server,
        "subCluster": cluster,
        "held": held,
        "groups": placed,
    })
}
