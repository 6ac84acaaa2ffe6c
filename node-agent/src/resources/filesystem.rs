//! `filesystem`: check, mount, test, unmount. Never a lazy unmount: that would say "stopped" while data is still being
//! written.

mod nfs;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_api::v1::{FilesystemCheck, FilesystemType, Fsck, Holders};
use holdfast_core::Action;
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::holders::Holder;
use super::mounts::{self, Mount};
use super::plan::FilesystemPlan;
use super::{Job, Verdict, holders};
use crate::cgroup::{Cgroup, Hierarchy};
use crate::said::last_lines;
use crate::spawn::Exit;

/// Carries an operation out.
pub fn run(plan: &FilesystemPlan, action: Action, job: &Job) -> Verdict {
    match action {
        Action::Probe => probe(plan),
        Action::Monitor => match probe(plan) {
            found if found.state == super::State::Running => test(plan, found),
            found => found,
        },
        Action::Start => start(plan, job).unwrap_or_else(Verdict::failed),
        Action::Stop => stop(plan, job),
    }
}

/// Device or directory behind the specification's text.
fn source(plan: &FilesystemPlan) -> Result<PathBuf, String> {
    let given = &plan.device;
    if plan.kind == FilesystemType::Nfs {
        return Ok(PathBuf::from(given));
    }
    let path = match given.strip_prefix("UUID=") {
        Some(uuid) => by_uuid(uuid)?,
        None => PathBuf::from(given),
    };
    let meta = fs::metadata(&path)
        .map_err(|e| format!("filesystem.device: {given}: {e}; `lsblk` shows the disks that this server has"))?;
    match plan.kind {
        FilesystemType::Bind if !meta.is_dir() => Err(format!(
            "filesystem.device: {given} is not a directory; name one, or let what makes it start first (dependsOn)"
        )),
        FilesystemType::Bind => Ok(path),
        _ if !meta.file_type().is_block_device() => {
            Err(format!("filesystem.device: {given} is not a block device; name one that this server has"))
        }
        _ => Ok(path),
    }
}

fn by_uuid(uuid: &str) -> Result<PathBuf, String> {
    let link = Path::new("/dev/disk/by-uuid").join(uuid);
    if link.exists() {
        return Ok(link);
    }
    // Without udev there are no links; blkid reads the disks themselves.
    let (exit, text) = tool("blkid", &["-U", uuid])?;
    match (exit, text.trim()) {
        (Exit::Code(0), path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => {
            Err(format!("filesystem.device: no device of this server has UUID={uuid}; `blkid` shows those that it has"))
        }
    }
}

fn device_numbers(path: &Path) -> Option<(u32, u32)> {
    let device = fs::metadata(path).ok()?.rdev();
    Some((libc::major(device), libc::minor(device)))
}

/// Whether the mount shows what the plan wants there.
fn is_ours(plan: &FilesystemPlan, found: &Mount, source: &Path) -> bool {
    match plan.kind {
        FilesystemType::Bind => {
            // Same directory: same device and inode, whatever the names are.
            let same = |a: &Path, b: &Path| match (fs::metadata(a), fs::metadata(b)) {
                (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
                _ => false,
            };
            same(source, &found.point)
        }
        FilesystemType::Nfs => nfs::is_ours(plan, found),
        // Btrfs shows a number that belongs to no device; it names the device as source instead.
        FilesystemType::Btrfs => {
            found.kind == "btrfs" && device_numbers(Path::new(&found.source)) == device_numbers(source)
        }
        kind => found.kind == kind.as_str() && Some(found.device) == device_numbers(source),
    }
}

fn probe(plan: &FilesystemPlan) -> Verdict {
    let table = match mounts::table() {
        Ok(table) => table,
        Err(error) => return Verdict::unknown(format!("the table of mounts can't be read: {error}")),
    };
    let at = mounts::at(&table, &plan.mount_point);
    let source = match source(plan) {
        Ok(source) => source,
        // The device is gone, but its file system may still be mounted.
        Err(problem) => {
            return match at {
                Some(found) if found.kind == plan.kind.as_str() => {
                    Verdict::failed(format!("{problem}; a {} is mounted all the same", found.kind))
                }
                _ => Verdict::stopped().with(problem),
            };
        }
    };
    if at.is_some_and(|found| is_ours(plan, found, &source)) {
        return Verdict::running();
    }
    match elsewhere(plan, &table, &source) {
        Some(other) => {
            Verdict::failed(format!("{} is mounted on {}; unmount it there", plan.device, other.point.display()))
        }
        None => Verdict::stopped(),
    }
}

/// The same device mounted at another place of this server.
fn elsewhere<'a>(plan: &FilesystemPlan, table: &'a [Mount], source: &Path) -> Option<&'a Mount> {
    // A directory of an NFS server may be mounted as often as one likes.
    if matches!(plan.kind, FilesystemType::Bind | FilesystemType::Nfs) {
        return None;
    }
    // What is bound out of our own mount by a bind resource of the group has the same device and is not elsewhere.
    table.iter().find(|m| is_ours(plan, m, source) && m.root == Path::new("/") && m.point != plan.mount_point)
}

fn start(plan: &FilesystemPlan, job: &Job) -> Result<Verdict, String> {
    let source = source(plan)?;
    let table = mounts::table().map_err(|e| format!("the table of mounts can't be read: {e}"))?;
    let point = &plan.mount_point;
    if let Some(found) = mounts::at(&table, point) {
        return if is_ours(plan, found, &source) {
            Ok(test(plan, Verdict::running()))
        } else {
            Err(format!("{} is already mounted on {}; unmount it first", found.source, point.display()))
        };
    }
    if let Some(other) = elsewhere(plan, &table, &source) {
        return Err(format!("{} is already mounted on {}; unmount it first", plan.device, other.point.display()));
    }
    fs::create_dir_all(point).map_err(|e| format!("filesystem.mountPoint: {} can't be made: {e}", point.display()))?;
    // The table names mounts by their real path: a symbolic link in between would hide ours.
    let real = fs::canonicalize(point).map_err(|e| format!("filesystem.mountPoint: {}: {e}", point.display()))?;
    if real != *point {
        let (point, real) = (point.display(), real.display());
        return Err(format!("filesystem.mountPoint: {point} leads over a symbolic link to {real}; name that instead"));
    }
    forget_cached_blocks(&source)?;
    let checked = check_before_mount(plan, &source)?;
    attach(plan, &source)?;
    let table = mounts::table().map_err(|e| format!("the table of mounts can't be read: {e}"))?;
    if !mounts::at(&table, point).is_some_and(|found| is_ours(plan, found, &source)) {
        return Err(format!("mount succeeded, but the table of mounts doesn't show it on {}", point.display()));
    }
    let _ = job;
    Ok(test(plan, Verdict::running().with(checked)))
}

/// Drops the blocks of a device that this server's kernel keeps from earlier reads. As long as any program has the
/// device open (multipathd, smartd, a volume manager), they outlive the last mount, and fsck and mount would see the
/// disk as it was before the other server wrote to it.
fn forget_cached_blocks(source: &Path) -> Result<(), String> {
    if !fs::metadata(source).is_ok_and(|found| found.file_type().is_block_device()) {
        return Ok(());
    }
    let fail = |e: std::io::Error| format!("{}: cached blocks can't be dropped: {e}", source.display());
    let device = File::open(source).map_err(fail)?;
    // BLKFLSBUF of linux/fs.h.
    let request = nix::request_code_none!(0x12, 97);
    #[expect(unsafe_code, reason = "an ioctl of block devices")]
    // SAFETY: the call takes no pointer, and the descriptor is open until after it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request as _, 0) };
    if result < 0 { Err(fail(std::io::Error::last_os_error())) } else { Ok(()) }
}

/// fsck by the policy. Auto: what the file system's own tool does at boot (journal replay, quick repair of what is safe);
/// xfs and btrfs replay their logs when they are mounted.
fn check_before_mount(plan: &FilesystemPlan, device: &Path) -> Result<String, String> {
    let name = device.display().to_string();
    match (plan.kind, plan.fsck) {
        (FilesystemType::Bind | FilesystemType::Nfs, _) | (_, Fsck::Never) => Ok(String::new()),
        (FilesystemType::Ext4, Fsck::Auto) => fsck_ext4(&["-p", &name]),
        (FilesystemType::Ext4, Fsck::Always) => fsck_ext4(&["-f", "-p", &name]),
        (FilesystemType::Xfs | FilesystemType::Btrfs, Fsck::Auto) => Ok(String::new()),
        (FilesystemType::Xfs, Fsck::Always) => {
            // The log is replayed by the kernel only, at a mount.
            attach(plan, device)?;
            umount2(&plan.mount_point, MntFlags::empty()).map_err(|e| format!("unmounting after log replay: {e}"))?;
            match tool("xfs_repair", &["-e", &name])? {
                (Exit::Code(0), _) => Ok(String::new()),
                (Exit::Code(4), _) => Ok("xfs_repair corrected errors".to_owned()),
                (exit, text) => Err(by_hand("xfs_repair", exit, &text)),
            }
        }
        (FilesystemType::Btrfs, Fsck::Always) => match tool("btrfs", &["check", "--readonly", &name])? {
            (Exit::Code(0), _) => Ok(String::new()),
            (exit, text) => Err(by_hand("btrfs check", exit, &text)),
        },
    }
}

fn fsck_ext4(args: &[&str]) -> Result<String, String> {
    let (exit, text) = tool("fsck.ext4", args)?;
    interpret_fsck(exit, &last_lines(&text))
}

/// What a tool said that found what it does not repair.
fn by_hand(name: &str, exit: Exit, text: &str) -> String {
    format!("{name}: {exit}: {}; repair the file system by hand, then start the group", last_lines(text))
}

/// Meaning of fsck's exit code, a set of bits: 1 corrected, 2 corrected and the root file system needs a reboot (this
/// is not the root file system), 4 errors left, 8 operational error, 16 usage, 32 cancelled, 128 library.
fn interpret_fsck(exit: Exit, said: &str) -> Result<String, String> {
    match exit {
        Exit::Code(0) => Ok(String::new()),
        Exit::Code(code) if code & !3 == 0 => Ok("fsck corrected errors".to_owned()),
        Exit::Code(code) if code & 4 != 0 => Err(format!(
            "fsck left errors uncorrected ({said}); repair the file system by hand (fsck.ext4 without -p), then start the group"
        )),
        exit => Err(format!(
            "fsck could not check it: {exit}: {said}; the kernel's log (`dmesg`) says whether the disk can be read"
        )),
    }
}

/// Runs a tool of file systems; gives its end and what it printed.
fn tool(name: &str, args: &[&str]) -> Result<(Exit, String), String> {
    let done = super::tool::run(name, args, "install it or set filesystem.fsck: Never")?;
    let text = done.text();
    Ok((done.exit, text))
}

fn attach(plan: &FilesystemPlan, source: &Path) -> Result<(), String> {
    if plan.kind == FilesystemType::Nfs {
        return nfs::mount(plan);
    }
    const NONE: Option<&str> = None;
    let (flags, data) = mounts::parse_options(&plan.options).map_err(|p| format!("filesystem.options: {p}"))?;
    let point = &plan.mount_point;
    let failed = |e: Errno| {
        let hint = match e {
            Errno::EINVAL => "; is the type right, and does the kernel know all options? The kernel's log says more",
            Errno::EBUSY => "; the device or the mount point is in use: `lsblk` and `findmnt` show by what",
            Errno::EUCLEAN => "; the file system is damaged: repair it by hand, then start the group",
            _ => "; the kernel's log (`dmesg`) says more",
        };
        format!("mounting {} on {} as {} failed: {e}{hint}", source.display(), point.display(), plan.kind)
    };
    if plan.kind == FilesystemType::Bind {
        if !data.is_empty() {
            return Err(format!("filesystem.options: {data:?} has no meaning for a bind mount; only generic flags do"));
        }
        mount(Some(source), point, NONE, MsFlags::MS_BIND, NONE).map_err(failed)?;
        if !flags.is_empty() {
            let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
            if let Err(error) = mount(NONE, point, NONE, again, NONE) {
                let _ = umount2(point, MntFlags::empty());
                return Err(failed(error));
            }
        }
        return Ok(());
    }
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(source), point, Some(plan.kind.as_str()), flags, data).map_err(failed)
}

/// Tries that the file system really works. A hanging disk makes this hang, too; the executor's timeout answers then.
fn test(plan: &FilesystemPlan, verdict: Verdict) -> Verdict {
    if plan.check == FilesystemCheck::MountTable {
        return verdict;
    }
    let read_only = nix::sys::statvfs::statvfs(&plan.mount_point)
        .is_ok_and(|s| s.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    let asked_read_only = mounts::parse_options(&plan.options).is_ok_and(|(f, _)| f.contains(MsFlags::MS_RDONLY));
    let result = match (read_only, asked_read_only) {
        (true, false) => {
            return Verdict::failed("it has become read-only: the kernel saw errors; look into the kernel's log");
        }
        (_, true) => fs::read_dir(&plan.mount_point).map(|mut entries| {
            let _ = entries.next();
        }),
        (false, false) => write_and_read(&plan.mount_point),
    };
    match result {
        Ok(()) => verdict,
        // It works; there is no room on it, and there is none on another server either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
            verdict.with(format!("{} is full: the write test was left out", plan.mount_point.display()))
        }
        Err(error) => {
            let point = plan.mount_point.display();
            let message = format!(
                "the read/write test on {point} failed: {error}; the kernel's log (`dmesg`) says what the disk answers"
            );
            Verdict::failed(message)
        }
    }
}

fn write_and_read(point: &Path) -> std::io::Result<()> {
    let path = point.join(".holdfast-check");
    let text = format!("{}\n", crate::clock::now().0);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    let read = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    if read == text { Ok(()) } else { Err(std::io::Error::other("what was written is not what was read")) }
}

fn stop(plan: &FilesystemPlan, job: &Job) -> Verdict {
    let source = source(plan);
    let group = job.cgroups.group(&job.group);
    let mut message = String::new();
    let until = Instant::now() + job.left();
    loop {
        let table = match mounts::table() {
            Ok(table) => table,
            Err(error) => return Verdict::unknown(format!("the table of mounts can't be read: {error}")),
        };
        let Some(found) = mounts::at(&table, &plan.mount_point) else { break };
        let ours = match &source {
            Ok(source) => is_ours(plan, found, source),
            Err(_) => found.kind == plan.kind.as_str() || plan.kind == FilesystemType::Bind,
        };
        if !ours {
            // Somebody mounted something else there; ours is not visible, or below it.
            let hidden = table
                .iter()
                .any(|m| m.point == plan.mount_point && source.as_ref().is_ok_and(|source| is_ours(plan, m, source)));
            if hidden {
                let over = &found.source;
                return Verdict::failed(format!(
                    "{over} is mounted over it on {}; unmount that first",
                    plan.mount_point.display()
                ));
            }
            break;
        }
        match detach(plan, until, &mut message) {
            Ok(()) => {}
            Err(Errno::EBUSY) => {
                let nested = mounts::below(&table, &plan.mount_point);
                if !nested.is_empty() {
                    let list: Vec<String> = nested.iter().map(|m| m.point.display().to_string()).collect();
                    let list = list.join(", ");
                    let message = format!(
                        "busy: other file systems are mounted below: {list}; unmount them, or make them resources of the group"
                    );
                    return Verdict::failed(message);
                }
                let left = until.saturating_duration_since(Instant::now());
                let (done, others) = holders::end(found.id, plan.holders, &group, &job.cgroups, left.mul_f64(0.8));
                if !done.is_empty() {
                    message = done;
                } else if !others.is_empty() || left.is_zero() {
                    return busy(plan.holders, &others, &message);
                } else {
                    // Freed between the two looks, or held by the kernel itself (a loop device, swap, an export).
                    std::thread::sleep(Duration::from_millis(20));
                }
                if until.saturating_duration_since(Instant::now()).is_zero() {
                    return busy(plan.holders, &others, &message);
                }
            }
            Err(error) => {
                let point = plan.mount_point.display();
                let message = format!("unmounting {point} failed: {error}; the kernel's log (`dmesg`) says more");
                return Verdict::failed(message);
            }
        }
    }
    match &source {
        Ok(device) if holdfast_api::claims::is_on_disk(plan.kind) => match still_used(device) {
            Ok(()) => Verdict::stopped().with(message),
            Err(problem) => Verdict::failed(problem),
        },
        _ => Verdict::stopped().with(message),
    }
}

/// Unmounts what can be unmounted, after writing it back, so that the unmount itself has little left to write.
fn detach(plan: &FilesystemPlan, until: Instant, message: &mut String) -> nix::Result<()> {
    let point = &plan.mount_point;
    match plan.kind {
        FilesystemType::Bind => {}
        // Half of the time for the server to take what is not written yet.
        FilesystemType::Nfs if !nfs::flushed(point, until.saturating_duration_since(Instant::now()) / 2) => {
            *message = "its server does not answer: what was not written yet is lost".to_owned();
            return nfs::force(point);
        }
        FilesystemType::Nfs => {}
        _ => {
            if let Ok(root) = File::open(point) {
                let _ = nix::unistd::syncfs(&root);
            }
        }
    }
    umount2(point, MntFlags::UMOUNT_NOFOLLOW)
}

/// Whether the plan's file system is mounted at its place.
pub fn is_mounted(plan: &FilesystemPlan) -> bool {
    let Ok(table) = mounts::table() else { return true };
    mounts::at(&table, &plan.mount_point).is_some_and(|found| match source(plan) {
        Ok(source) => is_ours(plan, found, &source),
        Err(_) => found.kind == plan.kind.as_str(),
    })
}

/// For the guard: unmounts what the plan mounted, without writing anything first, within `limit`. Ends holders as a stop
/// would. Says whether it is gone.
pub fn emergency_unmount(plan: &FilesystemPlan, group: &Cgroup, cgroups: &Hierarchy, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    // What waits for an NFS server would wait for ever.
    let force = if plan.kind == FilesystemType::Nfs { MntFlags::MNT_FORCE } else { MntFlags::empty() };
    while is_mounted(plan) {
        match umount2(&plan.mount_point, MntFlags::UMOUNT_NOFOLLOW | force) {
            Ok(()) => {}
            Err(Errno::EBUSY) if Instant::now() < until => {
                // The group's own processes are killed already; others only if the policy allows it.
                if plan.holders == Holders::Any
                    && let Ok(id) = mounts::mount_id(&plan.mount_point)
                {
                    holders::end(id, plan.holders, group, cgroups, Duration::from_millis(20));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return false,
        }
    }
    true
}

/// For the guard: the next best where a file system can't be shut down.
pub fn make_read_only(plan: &FilesystemPlan) {
    const NONE: Option<&str> = None;
    let _ = mount(NONE, &plan.mount_point, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE);
}

fn busy(policy: Holders, others: &[Holder], done: &str) -> Verdict {
    let list: Vec<String> = others.iter().take(10).map(ToString::to_string).collect();
    let who = if list.is_empty() {
        "the kernel itself (a loop device, swap or an export)".to_owned()
    } else {
        list.join("; ")
    };
    let hint = match policy {
        Holders::GroupOnly if !list.is_empty() => {
            "; they are not the group's; end them, or set filesystem.holders: Any"
        }
        Holders::Report if !list.is_empty() => "; filesystem.holders: Report ends none; end them by hand",
        _ if list.is_empty() => "; `losetup`, `swapon` and `exportfs` show which; end that",
        _ => "",
    };
    let done = if done.is_empty() { String::new() } else { format!("{done}; ") };
    Verdict::failed(format!("{done}busy: it is held by {who}{hint}"))
}

/// After the unmount nothing may have the device claimed any more: a copy of the mount in another mount namespace
/// would go on writing.
fn still_used(device: &Path) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(device) {
            Ok(_) => return Ok(()),
            // The super block is given up a moment after the unmount returns.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && began.elapsed() < Duration::from_millis(500) => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                return Err(format!(
                    "unmounted here, but {} is still in use: it is mounted in another mount namespace (a container or a \
                     service with private mounts), or claimed by another device; {}",
                    device.display(),
                    namespaces_with(device)
                ));
            }
            // A device that is gone or fails to open isn't used by a mount that we could see.
            Err(_) => return Ok(()),
        }
    }
}

fn namespaces_with(device: &Path) -> String {
    let Some(numbers) = device_numbers(device) else { return String::new() };
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt")) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        let table = mounts::parse_table(&fs::read(entry.path().join("mountinfo")).unwrap_or_default());
        if table.iter().any(|m| m.device == numbers) {
            found.push(crate::cgroup::describe(pid));
        }
    }
    if found.is_empty() { "no process shows it".to_owned() } else { format!("seen by {}", found.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_fsck_are_bits() {
        assert_eq!(interpret_fsck(Exit::Code(0), ""), Ok(String::new()));
        assert_eq!(interpret_fsck(Exit::Code(1), ""), Ok("fsck corrected errors".to_owned()));
        assert_eq!(interpret_fsck(Exit::Code(3), ""), Ok("fsck corrected errors".to_owned()));
        assert!(interpret_fsck(Exit::Code(5), "x").unwrap_err().contains("by hand"));
        assert!(interpret_fsck(Exit::Code(8), "No such file").unwrap_err().contains("No such file"));
        assert!(interpret_fsck(Exit::Signal(9), "").is_err());
    }
}
