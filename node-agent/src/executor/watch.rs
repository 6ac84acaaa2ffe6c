//! Sees the end of a program at once: through a descriptor of the process while the program itself lives, through its
//! control group when it has forked away and left children.

use std::io;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::launch::watched;
use crate::cgroup::Cgroup;
use crate::deadline::process_start;
use crate::resources::process::{Record, last_lines, record};
use crate::{said, spawn};

/// Returns when nothing of the program is left, with a sentence about its end.
pub(super) async fn end_of(state: &Path, cgroup: &Cgroup) -> String {
    let mut how = "it was seen to be gone".to_owned();
    let record = record(state);
    if let Some(record) = &record {
        match end_of_program(record).await {
            Ok(Some(exit)) => how = exit,
            Ok(None) => {}
            Err(error) => how = format!("its process can't be watched: {error}"),
        }
    }
    match end_of_group(cgroup).await {
        Ok(()) => {}
        // Without notice of its end, the resource's own check will find it.
        Err(error) => return format!("{how}; its control group can't be watched: {error}"),
    }
    let last = last_lines(state, 0);
    if last.is_empty() { how } else { format!("{how}; {}", said::heard(&last)) }
}

/// Waits for the end of the program; says how it ended if that is known.
async fn end_of_program(record: &Record) -> io::Result<Option<String>> {
    let pidfd = match spawn::pidfd(record.pid) {
        Ok(pidfd) => pidfd,
        Err(_) => return Ok(None),
    };
    // Opened by number: is it still the same process?
    if process_start(record.pid) != Some(record.start) {
        return Ok(None);
    }
    let watched = watched(pidfd)?;
    loop {
        let mut ready = watched.readable().await?;
        if spawn::ended(&watched.get_ref().0, Some(std::time::Duration::ZERO)) {
            break;
        }
        ready.clear_ready();
    }
    // Known once the process is reaped, which its parent does right after its end.
    for _ in 0..10 {
        if let Some(exit) = spawn::exit_of(&watched.get_ref().0) {
            return Ok(Some(format!("the program ended: {exit}")));
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(Some("the program ended".to_owned()))
}

/// Waits until no process is left in a control group.
async fn end_of_group(cgroup: &Cgroup) -> io::Result<()> {
    if !cgroup.populated().map_err(io::Error::other)? {
        return Ok(());
    }
    let notify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    notify.add_watch(&cgroup.path().join("cgroup.events"), AddWatchFlags::IN_MODIFY)?;
    let watched = watched(notify)?;
    // Looked at after each event, and once after the watch stands.
    while cgroup.populated().map_err(io::Error::other)? {
        let mut ready = watched.readable().await?;
        while watched.get_ref().0.read_events().is_ok() {}
        ready.clear_ready();
    }
    Ok(())
}
