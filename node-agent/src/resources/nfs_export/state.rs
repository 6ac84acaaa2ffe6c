//! The state directory of an export: has the clients recorded there that may reclaim their files and locks, and lets them do
//! so. What records them is [`crate::nfs_clients`]; this is the driver's part (docs/decisions/0018).
//!
//! The kernel reads records, and begins a grace period in which they are good for something, only when its NFS server
//! begins. So it is started anew once for every export that comes; clients of other exports reclaim at the same time.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use super::{INSTALL, RUN, kernel};
use crate::nfs_clients::Registry;
use crate::resources::plan::NfsExportPlan;
use crate::resources::{Verdict, tool};

/// What clients take for one server though it may be any of ours. They reclaim only from the server that they know; the
/// kernel gives its host name at its start for it, which is another one everywhere.
const SCOPE: &str = "holdfast";

/// A restart of the server ends the locks of NFS 3 of all its exports, and clients do not learn of it.
const OLD: &str = "the NFS server of this server serves NFS 3, whose locks can't be kept; write vers3=n below [nfsd] into \
                   /etc/nfs.conf and restart nfs-server while no group exports anything here, or remove stateDirectory";

const SERVE: &str = "`holdfast nfs-clients` does not run on this server; put manifests/systemd/nfsdcld.service.d/holdfast.conf \
                     into /etc/systemd/system/nfsdcld.service.d, then `systemctl daemon-reload` and `systemctl restart nfsdcld`";

/// Of an export that is there: whether its clients are recorded.
pub(super) fn look(plan: &NfsExportPlan) -> Verdict {
    let Some(directory) = &plan.state_directory else { return Verdict::running() };
    let registry = Registry::system();
    let shown = directory.display();
    if !registry.has(&plan.path, directory) || !registry.is_loaded(&plan.path) {
        return Verdict::failed(format!("clients are not recorded in {shown}; a restart of the resource begins it"));
    }
    if !registry.is_served() {
        return Verdict::failed(format!("clients are not recorded in {shown}: {SERVE}"));
    }
    Verdict::running()
}

/// From here on clients are recorded, and those that were before may reclaim.
pub(super) fn keep(plan: &NfsExportPlan) -> Result<(), String> {
    let Some(directory) = &plan.state_directory else { return Ok(()) };
    let wrong = |error: &dyn std::fmt::Display| {
        format!("nfsExport.stateDirectory: {}: {error}; is its file system in the group?", directory.display())
    };
    let registry = Registry::system();
    if !registry.is_served() {
        return Err(format!("nfsExport.stateDirectory: {SERVE}"));
    }
    if kernel::serves_old_versions() {
        return Err(format!("nfsExport.stateDirectory: {OLD}"));
    }
    make(directory).map_err(|error| wrong(&error))?;
    registry.add(&plan.path, directory).map_err(|error| wrong(&error))?;
    // Of several exports that start at once the first one restarts the server for all of them.
    let _alone = registry.restarting().map_err(|error| wrong(&error))?;
    if !registry.is_loaded(&plan.path) {
        restart()?;
    }
    if registry.is_loaded(&plan.path) {
        return Ok(());
    }
    Err(format!(
        "nfsExport.stateDirectory: the NFS server began without the clients in {}; the journal of nfsdcld.service says why. \
         Nothing else may serve the kernel's pipe nfsd/cld: is a nfsdcld still there?",
        directory.display()
    ))
}

/// From here on nothing is recorded there: what is known now is for the next server.
pub(super) fn leave(plan: &NfsExportPlan) -> Result<(), String> {
    Registry::system().remove(&plan.path).map_err(|error| format!("nfsExport.stateDirectory: {error}"))
}

/// Only the directory itself: what is above it is on the switched file system, or nothing is there.
fn make(directory: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Ends the kernel's NFS server and starts it with as many threads as it had; the table of exports stays.
fn restart() -> Result<(), String> {
    let threads = kernel::threads();
    if threads == 0 {
        return Err(format!("nfsExport: the NFS server does not run on this server; {RUN}"));
    }
    tool::run("rpc.nfsd", &["0"], INSTALL)?.succeeded()?;
    let started = in_scope(move || tool::run("rpc.nfsd", &[&threads.to_string()], INSTALL)?.succeeded());
    started
        .map(drop)
        .map_err(|problem| format!("the NFS server was stopped and does not start again: {problem}; {RUN}"))
}

/// Under another host name, which nobody but what it starts sees.
fn in_scope(start: impl FnOnce() -> Result<String, String> + Send) -> Result<String, String> {
    let scoped = || {
        // Of this thread alone.
        unshare(CloneFlags::CLONE_NEWUTS).map_err(|error| format!("a host name for the NFS server: {error}"))?;
        nix::unistd::sethostname(SCOPE).map_err(|error| format!("the host name {SCOPE}: {error}"))?;
        start()
    };
    std::thread::scope(|scope| scope.spawn(scoped).join()).unwrap_or_else(|_| Err("a thread broke off".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_made_but_nothing_above_it() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        make(&state).unwrap();
        make(&state).unwrap();
        assert!(state.is_dir());
        assert!(make(&place.path().join("not/mounted")).is_err());
    }
}
