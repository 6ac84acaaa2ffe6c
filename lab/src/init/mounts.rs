//! The file systems that a host sees: the machine's root as a read-only base under a layer of its own in
//! memory (so nothing that happens in a host changes the machine), fresh `/proc`, `/sys`, `/dev`, `/run` and
//! `/tmp`, the host's own disks, and two directories that survive power cuts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{pivot_root, sethostname};

use crate::error::{Attempt, Result};
use crate::spec::{BIN_DIR, HostSpec, LOG_DIR, STATE_DIR};

const NONE: Option<&str> = None;

/// Builds the view and moves this process into it.
pub(super) fn enter(spec: &HostSpec) -> Result<()> {
    sethostname(&spec.hostname).attempt(|| "setting the host name".into())?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).attempt(|| "making mounts private".into())?;
    // Relative paths keep commas and colons of the directory's path out of the option string.
    std::env::set_current_dir(&spec.directory).attempt(|| format!("entering {}", spec.directory.display()))?;
    file_system("tmpfs", "upper", "mode=0755")?;
    make_dir("upper/data")?;
    make_dir("upper/work")?;
    file_system("overlay", "root", "lowerdir=/,upperdir=upper/data,workdir=upper/work")?;
    bind_other_disks()?;
    file_system("proc", "root/proc", "")?;
    file_system("sysfs", "root/sys", "")?;
    file_system("cgroup2", "root/sys/fs/cgroup", "")?;
    file_system("tmpfs", "root/run", "mode=0755")?;
    file_system("tmpfs", "root/tmp", "mode=1777")?;
    devices(spec)?;
    for shown in &spec.nodes {
        // A node of its own would lead nowhere: such a device is found by its place in its file system.
        bind(&shown.node, &inside(&shown.name.to_string_lossy()), false)?;
    }
    bind(Path::new("lib"), &inside(STATE_DIR), true)?;
    bind(Path::new("log"), &inside(LOG_DIR), true)?;
    bind(Path::new("boot_id"), Path::new("root/proc/sys/kernel/random/boot_id"), false)?;
    // Where docs/operations.md installs it, too: there manifests name it.
    for directory in [BIN_DIR, "/usr/bin"] {
        bind(&spec.binary, &inside(&format!("{directory}/holdfast")), false)?;
    }
    fs::write("root/etc/hostname", format!("{}\n", spec.hostname)).attempt(|| "writing /etc/hostname".into())?;

    std::env::set_current_dir("root").attempt(|| "entering the host's root".into())?;
    pivot_root(".", ".").attempt(|| "changing the root".into())?;
    umount2(".", MntFlags::MNT_DETACH).attempt(|| "leaving the machine's root".into())?;
    std::env::set_current_dir("/").attempt(|| "entering /".into())
}

/// A path of the host, before the root is changed.
fn inside(path: &str) -> PathBuf {
    Path::new("root").join(path.trim_start_matches('/'))
}

fn make_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).attempt(|| format!("making {}", path.display()))
}

fn file_system(kind: &str, target: &str, options: &str) -> Result<()> {
    make_dir(target)?;
    let flags = if kind == "overlay" || kind == "tmpfs" { MsFlags::empty() } else { MsFlags::MS_NOSUID };
    mount(Some(kind), target, Some(kind), flags, Some(options)).attempt(|| format!("mounting {kind} on {target}"))
}

/// Binds `source` over `target`, which is made if absent.
fn bind(source: &Path, target: &Path, directory: bool) -> Result<()> {
    if directory {
        make_dir(target)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        fs::write(target, "").attempt(|| format!("making {}", target.display()))?;
    }
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .attempt(|| format!("binding {} on {}", source.display(), target.display()))
}

/// A machine whose `/usr`, `/home` … are disks of their own: they are not part of the base layer, so they are
/// shown read-only at the same place.
fn bind_other_disks() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").attempt(|| "reading the machine's mounts".into())?;
    for target in other_disks(&mounts) {
        let shown = inside(&target);
        if shown.is_dir() {
            bind(Path::new(&target), &shown, true)?;
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(NONE, &shown, NONE, flags, NONE).attempt(|| format!("making {target} read-only"))?;
        }
    }
    Ok(())
}

/// Mount points of disks below the root, out of the text of `/proc/mounts`; what every host makes anew is left out.
fn other_disks(mounts: &str) -> Vec<String> {
    let own = ["/proc", "/sys", "/dev", "/run", "/tmp"];
    let mut found: Vec<String> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(target)) = (fields.next(), fields.next()) else { continue };
        let target = target.replace("\\040", " ");
        let hidden = own.iter().any(|top| Path::new(&target).starts_with(top));
        if source.starts_with("/dev/") && target != "/" && !hidden && !found.contains(&target) {
            found.push(target);
        }
    }
    found
}

/// `/dev` of the host: the nodes that every program expects and the host's own disks, nothing else.
fn devices(spec: &HostSpec) -> Result<()> {
    file_system("tmpfs", "root/dev", "mode=0755")?;
    let nodes = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in nodes {
        node(&inside("/dev").join(name), SFlag::S_IFCHR, 0o666, makedev(major, minor))?;
    }
    file_system("devpts", "root/dev/pts", "newinstance,ptmxmode=0666,mode=0620")?;
    file_system("tmpfs", "root/dev/shm", "mode=1777")?;
    let links = [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    for (target, name) in links {
        link(Path::new(target), &inside("/dev").join(name))?;
    }
    for device in &spec.devices {
        node(&inside(&device.node.to_string_lossy()), SFlag::S_IFBLK, 0o660, device.number)?;
        for name in &device.links {
            link(&device.node, &inside(&name.to_string_lossy()))?;
        }
    }
    Ok(())
}

fn node(path: &Path, kind: SFlag, mode: u32, number: u64) -> Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(mode), number).attempt(|| format!("making {}", path.display()))?;
    // The umask of whoever started the lab took bits away.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).attempt(|| format!("opening {}", path.display()))
}

fn link(target: &Path, name: &Path) -> Result<()> {
    if let Some(parent) = name.parent() {
        make_dir(parent)?;
    }
    symlink(target, name).attempt(|| format!("linking {}", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_beside_the_root_are_shown_and_the_rest_is_not() {
        let mounts = "/dev/sda1 / ext4 rw 0 0\n/dev/sda2 /home ext4 rw 0 0\n/dev/sdb1 /tmp/x ext4 rw 0 0\n\
                      tmpfs /var/cache tmpfs rw 0 0\n/dev/sda2 /home ext4 rw 0 0\n";
        assert_eq!(other_disks(mounts), vec!["/home".to_string()]);
    }
}
