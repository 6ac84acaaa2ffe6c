//! `agent.sock` in the run directory: whoever connects gets one line of JSON with what this server knows, and the
//! connection is closed. It works without API; `holdfast status --local` reads it. Nothing can be ordered by it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::clock;
use crate::convert::server_status::{Facts, GuardView};
use crate::convert::{Wall, cluster_status, group_status, server_status};
use crate::driver_loop::Snapshot;

/// Name of the socket in the run directory.
pub const SOCKET: &str = "agent.sock";

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

/// Answers for as long as the agent runs.
pub async fn serve(
    listener: UnixListener,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    guard: watch::Receiver<GuardView>,
    facts: Arc<Facts>,
) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the like: not again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let snapshot = snapshots.borrow().clone();
        let mut line = answer(snapshot.as_deref(), &guard.borrow(), &facts).to_string();
        line.push('\n');
        // Who doesn't read within a second gets nothing; the next one must not wait for it.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(line.as_bytes())).await;
    }
}

/// What this server knows, in the words of the API.
fn answer(snapshot: Option<&Snapshot>, guard: &GuardView, facts: &Facts) -> Value {
    let Some(snapshot) = snapshot else {
        return json!({"server": facts.server.0, "sentence": "starting"});
    };
    let now = Timestamp::now();
    let wall = Wall::new(clock::now(), now);
    let status = &snapshot.status;
    let machine = server_status::Machine { facts, guard, problem: None };
    let server = server_status::server_status(snapshot, machine, &Default::default(), None, wall, now);
    let present = status.coordinator.iter().flat_map(|c| c.groups.keys()).map(|name| name.0.clone()).collect();
    let cluster = cluster_status::cluster_status(snapshot, &facts.server.0, &Default::default(), &present, wall, now);
    let placed: serde_json::Map<String, Value> = status
        .coordinator
        .iter()
        .flat_map(|c| &c.groups)
        .map(|(name, group)| {
            let group = group_status::group_status(snapshot, name, group, &Default::default(), wall, now);
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
