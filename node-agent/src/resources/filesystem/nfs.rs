//! What is different about a directory of an NFS server: it has no device here, `mount.nfs` talks to the server, and a server
//! that is gone must not keep a stop from ending.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::resources::mounts::Mount;
use crate::resources::plan::FilesystemPlan;
use crate::resources::tool;

/// How long a forced unmount is tried: what waits for the server gives up one after the other.
const FORCE: Duration = Duration::from_secs(2);

/// Whether the mount shows this directory of this server, written `host:/path`.
pub(super) fn is_ours(plan: &FilesystemPlan, found: &Mount) -> bool {
    let plain = |text: &str| text.trim_end_matches('/').to_owned();
    matches!(found.kind.as_str(), "nfs" | "nfs4") && plain(&found.source) == plain(&plan.device)
}

/// Mounts it by `mount.nfs`, which agrees with the server about versions and ports.
pub(super) fn mount(plan: &FilesystemPlan) -> Result<(), String> {
    let mut options = plan.options.clone();
    if !options.iter().flat_map(|o| o.split(',')).any(|option| option.starts_with("retry=")) {
        // Else it tries for two minutes and never says why.
        options.push("retry=0".to_owned());
    }
    let point = plan.mount_point.display().to_string();
    let args = [plan.device.as_str(), &point, "-o", &options.join(",")];
    tool::run("mount.nfs", &args, "install the package nfs-common")?.succeeded().map(|_| ())
}

/// Writes everything back, within `limit`; false if the server does not answer.
pub(super) fn flushed(point: &Path, limit: Duration) -> bool {
    let (done, told) = mpsc::channel();
    let point = point.to_owned();
    // It ends when the forced unmount makes the kernel give up, or with this process.
    std::thread::spawn(move || {
        let synced = File::open(&point).map_err(|_| ()).and_then(|root| nix::unistd::syncfs(&root).map_err(|_| ()));
        let _ = done.send(synced.is_ok());
    });
    told.recv_timeout(limit).unwrap_or(false)
}

/// Unmounts although the server does not answer: what waits for it gets an error.
pub(super) fn force(point: &Path) -> nix::Result<()> {
    let until = Instant::now() + FORCE;
    loop {
        match umount2(point, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::mounts::parse_table;

    #[test]
    fn a_mount_is_told_by_server_and_directory() {
        let spec = serde_json::json!({"name": "d", "filesystem": {
            "device": "192.0.2.1:/srv/share/", "mountPoint": "/mnt", "type": "nfs"}});
        let spec = serde_json::from_value(spec).unwrap();
        let crate::resources::Plan::Filesystem(plan) = crate::resources::Plan::new(&spec, &Default::default()).unwrap()
        else {
            panic!("no file system")
        };
        let mounted = |kind: &str, source: &str| {
            let line = format!("40 1 0:45 / /mnt rw - {kind} {source} rw,vers=4.2\n");
            is_ours(&plan, &parse_table(line.as_bytes())[0])
        };
        assert!(mounted("nfs4", "192.0.2.1:/srv/share") && mounted("nfs", "192.0.2.1:/srv/share/"));
        assert!(!mounted("nfs4", "192.0.2.2:/srv/share") && !mounted("ext4", "192.0.2.1:/srv/share"));
    }
}
