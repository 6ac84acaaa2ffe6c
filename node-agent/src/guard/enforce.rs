//! The emergency stop (R23, protocol-why D7): SIGKILL to agent and helpers, then to groups; addresses dropped; file
//! systems shut down without writing anything back; unmounted; volumes taken out of the kernel; OCF agents and systemd told to
//! stop; all of it verified.
//!
//! What may hang (a file system on a dead disk) is done by a child each, so that nothing keeps the others from being
//! stopped and the guard from noticing.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::time::Instant;
use nix::libc;

use super::aborts::{self, AbortWork};
use super::kill_list::{Entry, MountEntry};
use super::say;
use super::units::{self, UnitWork};
use crate::cgroup::{Cgroup, Hierarchy};
use crate::deadline::{DeadlinePage, Party, Role};
use crate::helper::state_dir;
use crate::resources::netlink::Netlink;
use crate::resources::plan::{NfsExportPlan, OcfPlan, VolumeGroupPlan};
use crate::resources::{filesystem, nfs_export, ocf, script, volume_group};
use crate::spawn::{self, Child, Exit};

/// How long a round waits for one child; one that takes longer goes on beside the next rounds.
const CHILD_WAIT: Duration = Duration::from_millis(100);

/// One emergency stop.
pub(super) struct Enforcement {
    cgroups: Hierarchy,
    /// The agent that had authority: a new one, started by its supervisor meanwhile, is let alone.
    agent: Option<(Party, OwnedFd)>,
    entries: Vec<Entry>,
    mounts: Vec<MountWork>,
    tools: Vec<ToolWork>,
    units: Vec<UnitWork>,
    aborts: Vec<AbortWork>,
    /// End of authority.
    end: Instant,
    run_dir: PathBuf,
}

/// A resource that only a program of its own can stop.
struct ToolWork {
    group: String,
    resource: String,
    tool: Tool,
    /// The attempt under way, and whether nobody was left when it began who could have started it again meanwhile.
    stop: Option<(Child, bool)>,
    done: bool,
}

/// Which.
#[derive(Clone)]
enum Tool {
    Ocf(OcfPlan),
    Volumes(VolumeGroupPlan),
    Export(NfsExportPlan),
}

impl Tool {
    fn of(entry: &Entry) -> Option<Tool> {
        let volumes = entry.volumes.clone().map(Tool::Volumes);
        let export = entry.export.clone().map(Tool::Export);
        entry.ocf.clone().map(Tool::Ocf).or(volumes).or(export)
    }

    /// For messages.
    fn name(&self) -> &'static str {
        match self {
            Tool::Ocf(_) => "the agent",
            Tool::Volumes(_) => "the removal of the volumes",
            Tool::Export(_) => "the end of the export",
        }
    }
}

struct MountWork {
    mount: MountEntry,
    group: Cgroup,
    shutdown: Option<Child>,
    unmount: Option<Child>,
    done: bool,
}

impl Enforcement {
    /// Kills the agent and all helpers: from here on nobody acts for the old authority.
    pub(super) fn begin(page: &DeadlinePage, cgroups: Hierarchy, entries: Vec<Entry>, run_dir: &Path) -> Enforcement {
        let agent = page.party(Role::Agent);
        let agent = agent.and_then(|a| spawn::pidfd(a.pid).ok().map(|fd| (a, fd))).filter(|(a, _)| a.exists());
        if let Some((_, pidfd)) = &agent {
            spawn::signal(pidfd, libc::SIGKILL);
        }
        // Checks act on nothing, so they are not waited for: one may hang on a disk for ever.
        for cgroup in [cgroups.agent(), cgroups.helpers(), cgroups.checks(), cgroups.groups()] {
            kill(&cgroup);
        }
        let units = units::of(&entries, run_dir);
        units.iter().for_each(|unit| unit.strike(true));
        // Last started first: what was mounted inside another file system goes before it.
        let mounts = entries
            .iter()
            .rev()
            .filter_map(|entry| {
                let mount = entry.mount.clone()?;
                Some(MountWork {
                    mount,
                    group: cgroups.group(&entry.group),
                    shutdown: None,
                    unmount: None,
                    done: false,
                })
            })
            .collect();
        let tools = entries
            .iter()
            .rev()
            .filter_map(|entry| {
                let (group, resource, tool) = (entry.group.clone(), entry.resource.clone(), Tool::of(entry)?);
                Some(ToolWork { group, resource, tool, stop: None, done: false })
            })
            .collect();
        let (aborts, end) = (aborts::of(&entries, &cgroups), page.deadline().end);
        Enforcement { cgroups, agent, entries, mounts, tools, units, aborts, end, run_dir: run_dir.to_owned() }
    }

    /// One attempt at everything that isn't verified yet. Gives what is left, nothing when all is verified stopped.
    pub(super) fn round(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        // Before each look: a process that was being born when the first kill went out.
        for cgroup in [self.cgroups.helpers(), self.cgroups.groups()] {
            kill(&cgroup);
        }
        self.units.iter().for_each(|unit| unit.strike(false));
        self.drop_addresses();
        self.shut_down();
        for cgroup in [self.cgroups.helpers(), self.cgroups.groups()] {
            if let Err(error) = cgroup.wait_empty(Duration::from_millis(20)) {
                left.push(error.to_string());
            }
        }
        if let Some((agent, pidfd)) = &self.agent
            && !spawn::ended(pidfd, Some(Duration::from_millis(5)))
        {
            left.push(format!("the agent, process {}, is still there", agent.pid));
        }
        // Only now, with nobody left who could act, does "gone" stay true.
        let quiet = left.is_empty();
        left.extend(self.drop_addresses());
        if left.is_empty() {
            self.aborts.iter_mut().for_each(|abort| abort.begin(&self.cgroups, &self.run_dir));
        }
        self.call_tools(quiet);
        // Before the unmounts, which their processes would keep busy.
        for unit in &mut self.units {
            unit.round(quiet, &self.cgroups, &mut left);
        }
        self.unmount(quiet, &mut left);
        self.hear_tools(&mut left);
        let rest_is_done = left.is_empty();
        self.aborts.iter_mut().for_each(|abort| abort.round(rest_is_done, self.end, &mut left));
        if left.is_empty() {
            aborts::forget(&self.entries, &self.run_dir);
            // Of all groups, as all were killed, on the list or not.
            if let Err(error) = script::killed(&self.run_dir) {
                left.push(format!("notes of scripts: {error}"));
                return left;
            }
            for group in self.entries.iter().map(|e| e.group.as_str()).collect::<BTreeSet<_>>() {
                self.cgroups.group(group).remove();
            }
        }
        left
    }

    /// Gives what could not be removed.
    fn drop_addresses(&self) -> Vec<String> {
        let all: BTreeSet<(IpAddr, bool)> =
            self.entries.iter().filter_map(|entry| Some((entry.address?, entry.routed))).collect();
        let dropped = |address, routed| {
            let mut netlink = Netlink::open()?;
            if routed {
                netlink.delete_host_routes(address)?;
            }
            netlink.delete_everywhere(address)
        };
        let left = |(address, routed)| Some(format!("address {address}: {}", dropped(address, routed).err()?));
        all.into_iter().filter_map(left).collect()
    }

    /// All at once, each in a child. An agent may need a file system that is shut down already: then its stop fails, and
    /// is tried again when that is unmounted; so is a volume that a file system was still on.
    fn call_tools(&mut self, quiet: bool) {
        let Ok(cgroup) = self.cgroups.guard().open() else { return };
        for (number, work) in self.tools.iter_mut().enumerate().filter(|(_, w)| !w.done && w.stop.is_none()) {
            let (group, resource, tool) = (work.group.clone(), work.resource.clone(), work.tool.clone());
            let state = state_dir(&self.run_dir, &group, &resource);
            let own = self.cgroups.guard().child(&format!("stop-{number}"));
            let child = spawn::fork_into(cgroup.as_fd(), &[], move || {
                let stopped = match &tool {
                    Tool::Ocf(plan) => ocf::emergency_stop(plan, &group, &resource, &state, &own),
                    Tool::Volumes(plan) => volume_group::emergency_stop(plan),
                    Tool::Export(plan) => nfs_export::emergency_stop(plan),
                };
                end_with(i32::from(!stopped));
            });
            work.stop = child.ok().map(|child| (child, quiet));
        }
    }

    /// What the programs that were called have come to.
    fn hear_tools(&mut self, left: &mut Vec<String>) {
        for work in self.tools.iter_mut().filter(|w| !w.done) {
            let of = format!("{} of {}/{}", work.tool.name(), work.group, work.resource);
            match work.stop.as_ref().map(|(child, quiet)| (child.wait(Some(CHILD_WAIT)), *quiet)) {
                None => left.push(format!("{of} can't be called")),
                Some((None, _)) => left.push(format!("{of} has not stopped it yet")),
                Some((Some(exit), began_quiet)) => {
                    work.stop = None;
                    work.done = exit == Exit::Code(0) && began_quiet;
                    if !work.done {
                        left.push(format!("{of} could not stop it"));
                    }
                }
            }
        }
    }

    /// All at once, each in a child: stops the kernel from writing back.
    fn shut_down(&mut self) {
        let Ok(cgroup) = self.cgroups.guard().open() else { return };
        for work in self.mounts.iter_mut().filter(|w| !w.done && w.shutdown.is_none()) {
            let mount = work.mount.clone();
            work.shutdown = spawn::fork_into(cgroup.as_fd(), &[], move || shut_down(&mount)).ok();
        }
        for work in self.mounts.iter().filter(|w| !w.done) {
            if let Some(child) = &work.shutdown {
                child.wait(Some(CHILD_WAIT));
            }
        }
    }

    /// `quiet`: nobody is left who could mount it again.
    fn unmount(&mut self, quiet: bool, left: &mut Vec<String>) {
        let Ok(cgroup) = self.cgroups.guard().open() else { return };
        for work in self.mounts.iter_mut().filter(|w| !w.done) {
            if work.unmount.is_none() {
                let (mount, group, cgroups) = (work.mount.clone(), work.group.clone(), self.cgroups.clone());
                work.unmount = spawn::fork_into(cgroup.as_fd(), &[], move || {
                    let gone = filesystem::emergency_unmount(&mount.plan, &group, &cgroups, Duration::from_millis(80));
                    end_with(i32::from(!gone));
                })
                .ok();
            }
            match work.unmount.as_ref().map(|child| child.wait(Some(CHILD_WAIT))) {
                Some(Some(Exit::Code(0))) => {
                    work.done = quiet;
                    work.unmount = None;
                }
                // Busy, or failed: tried again in the next round.
                Some(Some(_)) | None => {
                    work.unmount = None;
                    left.push(format!("{} is still mounted", work.mount.plan.mount_point.display()));
                }
                Some(None) => left.push(format!("unmounting {} hangs", work.mount.plan.mount_point.display())),
            }
        }
    }
}

fn kill(cgroup: &Cgroup) {
    if let Err(error) = cgroup.signal_kill() {
        say(&format!("warning: {error}"));
    }
}

#[expect(unsafe_code, reason = "_exit")]
pub(super) fn end_with(code: i32) -> ! {
    // SAFETY: a forked copy ends without running what belongs to the original.
    unsafe { libc::_exit(code) }
}

/// Shuts a file system down without flushing its log, as a power cut would: nothing of it reaches the disk any more.
#[expect(unsafe_code, reason = "EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN")]
fn shut_down(mount: &MountEntry) {
    if !filesystem::is_mounted(&mount.plan) {
        return;
    }
    // Nothing of these two is written back to a disk of this server.
    if !holdfast_api::claims::is_on_disk(mount.plan.kind) {
        return;
    }
    let Ok(root) = File::open(&mount.plan.mount_point) else { return };
    // _IOR('X', 125, __u32) of both; 2 is EXT4_GOING_FLAGS_NOLOGFLUSH and XFS_FSOP_GOING_FLAGS_NOLOGFLUSH.
    let request = nix::request_code_read!(b'X', 125, size_of::<u32>());
    let mut flags: u32 = 2;
    // SAFETY: the kernel reads one 32-bit number.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), request as _, &raw mut flags) };
    drop(root);
    if result != 0 {
        // Btrfs has no such call before Linux 6.19: read-only is the next best, it ends further writes.
        filesystem::make_read_only(&mount.plan);
    }
}

/// Goes through all that an emergency needs, on nothing: so that the program's pages are in memory (and locked there)
/// when the disk that it came from hangs.
pub(super) fn rehearse(cgroups: &Hierarchy) {
    let trial = cgroups.guard().child("rehearsal");
    let Ok(directory) = trial.open() else { return };
    if let Ok(child) = spawn::fork_into(directory.as_fd(), &[], || {
        let _ = crate::resources::mounts::table();
        std::thread::sleep(Duration::from_secs(1));
    }) {
        let _ = trial.kill(Duration::from_secs(1));
        child.wait(Some(Duration::from_secs(1)));
    }
    // An address of the documentation range, which nobody has.
    let nobody = IpAddr::from([192, 0, 2, 255]);
    let _ = Netlink::open().and_then(|mut netlink| netlink.delete_everywhere(nobody));
    trial.remove();
}
