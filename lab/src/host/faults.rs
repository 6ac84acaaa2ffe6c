//! Faults of a host that need nothing outside it: its file systems and disks cut, its processes frozen,
//! packets lost on the way in.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::{Host, Process, Running};
use crate::error::{Attempt, LabError, Result};
use crate::loopdev::LoopDevice;
use crate::network::Cable;
use crate::shell::{boottime_ns, finish};

/// File systems are shut down by an ioctl.
mod calls {
    // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number, and flag 2 means "no log flush" in both.
    nix::ioctl_read!(shutdown, b'X', 125, u32);
}
const NO_LOG_FLUSH: u32 = 2;

/// When the power of a host went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutMoment {
    /// CLOCK_BOOTTIME just before the first cable went down, nanoseconds.
    pub begin_ns: u64,
    /// CLOCK_BOOTTIME when the last process was gone, nanoseconds.
    pub end_ns: u64,
}

impl Host {
    /// Everything of a power cut but the cables, which are at the switch: processes stopped where they are, file
    /// systems shut down without a flush, disks cut off, every process killed.
    pub(crate) fn lose_power(&self, begin_ns: u64) -> Result<CutMoment> {
        let disks = {
            let mut power = self.power();
            let running = power.as_mut().ok_or_else(|| self.needs_power())?;
            // First of all nothing returns from the kernel any more: ext4 can answer a sync that was under way with success
            // although its journal was just cut off, and a program would acknowledge what is not on the disk.
            self.cgroup.begin_freezing()?;
            shut_file_systems(running)?;
            for (_, device) in &running.disks {
                device.cut()?;
            }
            std::mem::take(&mut running.disks)
        };
        self.power_off()?;
        disks.into_iter().for_each(|(_, device)| device.detach());
        Ok(CutMoment { begin_ns, end_ns: boottime_ns() })
    }

    /// Makes reads and writes of a shared disk fail on this host from now on, also below a mounted file system.
    ///
    /// # Errors
    /// When the host is off or has no such disk.
    pub fn disk_unreachable(&self, disk: &str) -> Result<()> {
        self.with_disk(disk, LoopDevice::cut)
    }

    /// Undoes [`Host::disk_unreachable`]. File systems that noticed stay broken until they are mounted again.
    ///
    /// # Errors
    /// As [`Host::disk_unreachable`].
    pub fn disk_reachable(&self, disk: &str) -> Result<()> {
        self.with_disk(disk, LoopDevice::restore)
    }

    fn with_disk(&self, disk: &str, action: impl Fn(&LoopDevice) -> Result<()>) -> Result<()> {
        let power = self.power();
        let running = power.as_ref().ok_or_else(|| self.needs_power())?;
        let known = || running.disks.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let (_, device) = running.disks.iter().find(|(name, _)| name == disk).ok_or_else(|| LabError::Unknown {
            kind: "disk",
            name: disk.to_string(),
            known: known(),
        })?;
        action(device)
    }

    /// Stops every process of the host where it stands; network and disks stay connected, as when a virtual
    /// machine is paused.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&self) -> Result<()> {
        self.cgroup.set_frozen(true)
    }

    /// Undoes [`Host::freeze`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        self.cgroup.set_frozen(false)
    }

    /// Stops the node agent, not its guard, by SIGSTOP, and returns what was stopped.
    ///
    /// # Errors
    /// When no agent runs.
    pub fn freeze_agent(&self) -> Result<Vec<Process>> {
        let agents = self.holdfast_processes("agent")?;
        if agents.is_empty() {
            return Err(LabError::Host { host: self.name().into(), message: "no agent runs".into() });
        }
        self.signal(&agents, Signal::SIGSTOP)?;
        Ok(agents)
    }

    /// Drops every packet that comes in from one hardware address; what goes out still arrives there.
    pub(crate) fn drop_incoming(&self, cable: &Cable, from_mac: &str) -> Result<()> {
        let interface = &cable.interface;
        let rules = format!(
            "add table netdev loss_{interface}\n\
             add chain netdev loss_{interface} in {{ type filter hook ingress device \"{interface}\" priority 0; }}\n\
             add rule netdev loss_{interface} in ether saddr {from_mac} drop\n"
        );
        finish(self.enter(&["--net"], &["nft", "-f", "-"])?, Some(&rules)).map(drop)
    }

    /// Undoes every [`Host::drop_incoming`] on an interface.
    pub(crate) fn accept_incoming(&self, cable: &Cable) -> Result<()> {
        let table = format!("loss_{}", cable.interface);
        // Adding first makes deleting succeed when there was no loss.
        let rules = format!("add table netdev {table}\ndelete table netdev {table}\n");
        finish(self.enter(&["--net"], &["nft", "-f", "-"])?, Some(&rules)).map(drop)
    }
}

/// Shuts down every file system that the host has mounted from one of its own disks.
fn shut_file_systems(running: &Running) -> Result<()> {
    let file = format!("/proc/{}/mountinfo", running.pid);
    let text = fs::read_to_string(&file).attempt(|| format!("reading {file}"))?;
    for (device, target) in disk_mounts(&text) {
        if !running.disks.iter().any(|(_, own)| own.path().as_os_str() == device.as_str()) {
            continue;
        }
        let path = PathBuf::from(format!("/proc/{}/root{target}", running.pid));
        let directory = File::open(&path).attempt(|| format!("opening {}", path.display()))?;
        let mut flags = NO_LOG_FLUSH;
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: the kernel reads one u32 that lives through the call.
        let outcome = unsafe { calls::shutdown(directory.as_raw_fd(), &raw mut flags) };
        match outcome {
            // ENOTTY: a file system without the call (btrfs on many kernels); its disk is cut off right after.
            // EIO: it is down already.
            Ok(_) | Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EIO) => {}
            Err(error) => return Err(error).attempt(|| format!("shutting down {}", path.display())),
        }
    }
    Ok(())
}

/// `(device, mount point)` of every mount in the text of a mountinfo file that has a device.
fn disk_mounts(mountinfo: &str) -> Vec<(String, String)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let target = before.split(' ').nth(4)?.replace("\\040", " ");
            let source = after.split(' ').nth(1)?;
            source.starts_with("/dev/").then(|| (source.to_string(), target))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_with_a_device_are_found_in_mountinfo() {
        let text = "36 35 7:3 / /srv/a\\040b rw,relatime shared:1 - ext4 /dev/loop3 rw\n\
                    37 35 0:21 / /proc rw - proc proc rw\n";
        assert_eq!(disk_mounts(text), vec![("/dev/loop3".to_string(), "/srv/a b".to_string())]);
    }
}
