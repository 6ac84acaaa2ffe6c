//! Control groups (version 2): everything that Holdfast starts lives in one, so that it can be found and killed as a
//! whole, whatever it forked.
//!
//! ```text
//! base/agent/PID                  the agent
//! base/guard                      the guard, which outlives the others
//! base/aborts/NUMBER              the last call of a data service
//! base/helpers/OP                 one operation on a resource
//! base/groups/GROUP/RESOURCE      what a resource runs
//! ```
//!
//! A control group that was killed once is not used again, but removed and made anew: kernels since 6.14 compare how
//! often it was killed with how often the *parent's* was, and a process born in it by clone3 dies at once if they differ.
//!
//! What is to be killed, and when, is decided elsewhere.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Why a control group can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error(
        "no control groups of version 2 are mounted; mount them, for example with: mount -t cgroup2 none \
         /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// The configured directory isn't one.
    #[error("cgroup is {0}, which is not a directory of a cgroup2 file system; name one, or leave it out")]
    NotACgroup(PathBuf),
    /// A file of it can't be used.
    #[error("control group {path}: {what}: {source}")]
    Io {
        /// The control group.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Processes are still alive although they were killed.
    #[error("control group {path}: {count} processes are left {waited:?} after SIGKILL: {pids}")]
    Survivors {
        /// The control group.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Which, at most ten, with their state.
        pids: String,
        /// How long they had.
        waited: Duration,
    },
    /// A limit needs a controller that version 2 doesn't have here.
    #[error(
        "limits need the {controller} controller, which control groups of version 2 don't have in {path}; boot with \
         systemd.unified_cgroup_hierarchy=1, delegate the controller, or leave the limit out"
    )]
    NoController {
        /// Which.
        controller: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
}

/// The control groups of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    base: PathBuf,
}

impl Hierarchy {
    /// The one at `configured`, or `holdfast` below the control group that the calling process was started in.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn find(configured: Option<&Path>) -> Result<Hierarchy, CgroupError> {
        if let Some(base) = configured {
            let exists = base.ancestors().find(|p| p.exists()).unwrap_or(base);
            if !is_cgroup2(exists) {
                return Err(CgroupError::NotACgroup(base.to_owned()));
            }
            return Ok(Hierarchy { base: base.to_owned() });
        }
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| CgroupError::Io { path: PathBuf::from("/"), what, source }
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(io("reading /proc/self/mountinfo"))?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(io("reading /proc/self/cgroup"))?;
        own_base(&mounts, &own).map(|base| Hierarchy { base }).ok_or(CgroupError::NotMounted)
    }

    /// The one at an existing base. For helpers and guard, which are told.
    pub fn at(base: &Path) -> Hierarchy {
        Hierarchy { base: base.to_owned() }
    }

    /// Its directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The root of the file system that it lies in, as far as this process sees it.
    pub fn root(&self) -> &Path {
        self.base.ancestors().take_while(|above| is_cgroup2(above) || !above.exists()).last().unwrap_or(&self.base)
    }

    /// Makes the fixed parts and moves the calling process into one of its own below `base/agent`.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn enter_agent(&self) -> Result<(), CgroupError> {
        for name in ["helpers", "groups"] {
            self.fixed(name).create()?;
        }
        let own = self.agent().child(&std::process::id().to_string());
        // With those that earlier agents left empty.
        self.agent().remove();
        own.create()?;
        own.add(0)
    }

    fn fixed(&self, name: &str) -> Cgroup {
        Cgroup { path: self.base.join(name) }
    }

    /// The agent's.
    pub fn agent(&self) -> Cgroup {
        self.fixed("agent")
    }

    /// The guard's.
    pub fn guard(&self) -> Cgroup {
        self.fixed("guard")
    }

    /// That of one last call by the guard. Not below its own, which it makes anew for each child: what is empty there may
    /// vanish before a process is born in it.
    pub fn abort(&self, number: usize) -> Cgroup {
        Cgroup { path: self.base.join("aborts").join(number.to_string()) }
    }

    /// That of all helpers.
    pub fn helpers(&self) -> Cgroup {
        self.fixed("helpers")
    }

    /// That of one operation.
    pub fn helper(&self, op: u64) -> Cgroup {
        Cgroup { path: self.base.join("helpers").join(op.to_string()) }
    }

    /// That of all checks which act on nothing: one that hangs in the kernel holds nobody up.
    pub fn checks(&self) -> Cgroup {
        self.fixed("checks")
    }

    /// That of one of these; of an earlier agent's some may be left, so the agent's number is part of the name.
    pub fn check(&self, op: u64) -> Cgroup {
        self.checks().child(&format!("{}-{op}", std::process::id()))
    }

    /// That of a command of an Operation Exec, by the Operation's uid.
    pub fn exec(&self, uid: &str) -> Cgroup {
        Cgroup { path: self.base.join("exec").join(uid) }
    }

    /// That of all groups.
    pub fn groups(&self) -> Cgroup {
        self.fixed("groups")
    }

    /// That of a group.
    pub fn group(&self, group: &str) -> Cgroup {
        Cgroup { path: self.base.join("groups").join(group) }
    }

    /// That of a resource.
    pub fn resource(&self, group: &str, resource: &str) -> Cgroup {
        Cgroup { path: self.base.join("groups").join(group).join(resource) }
    }

    /// Lets the control groups of a group's resources limit memory or processors.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] where the kernel doesn't offer it in version 2.
    pub fn enable(&self, group: &str, controller: &'static str) -> Result<(), CgroupError> {
        let offers = |dir: &Path| {
            let offered = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            offered.split_whitespace().any(|c| c == controller)
        };
        let write = |dir: &Path| fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        // The control group that the agent was started in, if it was delegated to it.
        if let Some(above) = self.base.parent().filter(|_| !offers(&self.base)) {
            let _ = write(above);
        }
        let group = self.groups().child(group);
        group.create()?;
        for dir in [self.base.clone(), self.groups().path, group.path] {
            if !offers(&dir) || write(&dir).is_err() {
                return Err(CgroupError::NoController { controller, path: dir });
            }
        }
        Ok(())
    }
}

/// Base below the control group that `own` (the text of /proc/self/cgroup) names, in the first cgroup2 mount of
/// `mounts` (the text of /proc/self/mountinfo) that shows it.
fn own_base(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Where an agent was started that has moved already.
    let own = own.rsplit_once("/holdfast/agent/").map_or(own, |(started, _)| started);
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        if back.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = front.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // In a namespace of its own, a process sees its control group as "/", whatever the mount shows as its root.
        let below = if root.starts_with("/..") { own } else { own.strip_prefix(root.trim_end_matches('/'))? };
        Some(Path::new(point).join(below.trim_start_matches('/')).join("holdfast"))
    })
}

fn is_cgroup2(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

/// One control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The one at a path.
    pub fn at(path: &Path) -> Cgroup {
        Cgroup { path: path.to_owned() }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One below it.
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup { path: self.path.join(name) }
    }

    fn io(&self, what: impl Into<String>) -> impl FnOnce(io::Error) -> CgroupError {
        let (path, what) = (self.path.clone(), what.into());
        move |source| CgroupError::Io { path, what, source }
    }

    /// Makes it and what is above it; fine if it exists.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn create(&self) -> Result<(), CgroupError> {
        fs::create_dir_all(&self.path).map_err(self.io("making it"))
    }

    /// Makes it (anew if no process is in it or below it) and opens it, for a process to be born in.
    ///
    /// # Errors
    /// When the directory can't be made or opened.
    pub fn open(&self) -> Result<OwnedFd, CgroupError> {
        // One that is in use keeps what is below it: somebody in it may just have made that, for a process to be born there.
        if !self.populated()? {
            self.remove();
        }
        self.create()?;
        File::open(&self.path).map(OwnedFd::from).map_err(self.io("opening it"))
    }

    /// Moves a process into it; 0: the calling one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).map_err(self.io(format!("moving process {pid} in")))
    }

    /// Whether a live process is in it or below it. A control group that doesn't exist has none.
    ///
    /// # Errors
    /// When the kernel doesn't say: that counts as populated.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => Ok(!text.lines().any(|line| line == "populated 0")),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(self.io("reading cgroup.events")(error)),
        }
    }

    /// The processes in it and below it.
    pub fn pids(&self) -> Vec<i32> {
        let mut found: Vec<i32> = fs::read_to_string(self.path.join("cgroup.procs"))
            .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default();
        for child in self.children() {
            found.extend(child.pids());
        }
        found
    }

    /// The control groups directly below it.
    pub fn children(&self) -> Vec<Cgroup> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| Cgroup { path: e.path() })
            .collect()
    }

    /// Sends SIGKILL to all in it and below it; they are not verified gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal_kill(&self) -> Result<(), CgroupError> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Ok(()) => Ok(()),
            // No such file, but the directory is there: a kernel before 5.14.
            Err(error) if gone(&error) && self.path.exists() => self.kill_one_by_one(),
            Err(error) if gone(&error) => Ok(()),
            Err(error) => Err(self.io("writing cgroup.kill")(error)),
        }
    }

    /// Frozen processes can't fork, so what is found is all there is; SIGKILL works on them.
    fn kill_one_by_one(&self) -> Result<(), CgroupError> {
        let freeze = self.path.join("cgroup.freeze");
        fs::write(&freeze, "1").map_err(self.io("freezing it"))?;
        let until = Instant::now() + Duration::from_millis(200);
        while !fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default().contains("frozen 1")
            && Instant::now() < until
        {
            thread::sleep(Duration::from_millis(1));
        }
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        fs::write(&freeze, "0").map_err(self.io("thawing it"))
    }

    /// Kills all in it and below it and waits until they are gone, at most `limit`.
    ///
    /// # Errors
    /// [`CgroupError::Survivors`] when some are left: they hang in the kernel and may still act.
    pub fn kill(&self, limit: Duration) -> Result<(), CgroupError> {
        let began = Instant::now();
        self.signal_kill()?;
        self.wait_empty(limit.saturating_sub(began.elapsed()))
    }

    /// Waits until no process is left in it, at most `limit`.
    ///
    /// # Errors
    /// As [`Cgroup::kill`].
    pub fn wait_empty(&self, limit: Duration) -> Result<(), CgroupError> {
        let began = Instant::now();
        let mut pause = Duration::from_micros(100);
        while self.populated()? {
            if began.elapsed() >= limit {
                let pids = self.pids();
                let text: Vec<String> = pids.iter().take(10).map(|pid| describe(*pid)).collect();
                return Err(CgroupError::Survivors {
                    path: self.path.clone(),
                    count: pids.len(),
                    pids: text.join(", "),
                    waited: limit,
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Removes it and the empty ones below it, as far as no process is left in them.
    pub fn remove(&self) {
        for child in self.children() {
            child.remove();
        }
        let _ = fs::remove_dir(&self.path);
    }

    /// Writes a limit.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        fs::write(self.path.join(file), value).map_err(self.io(format!("writing {value} to {file}")))
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Number, name and state of a process, for messages: `4711 (postgres, D)`.
pub fn describe(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name = text.find('(').zip(text.rfind(')')).and_then(|(a, b)| text.get(a + 1..b));
    let state = text.rfind(')').and_then(|at| text.get(at + 2..at + 3));
    match (name, state) {
        (Some(name), Some(state)) => format!("{pid} ({name}, {state})"),
        _ => pid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_lies_below_the_own_control_group() {
        let unified = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let base = |mounts: &str, own: &str| own_base(mounts, own).map(|p| p.display().to_string());
        let own = "4:memory:/x\n0::/lab/a.service\n";
        let found = base(unified, own);
        assert_eq!(found.as_deref(), Some("/sys/fs/cgroup/unified/lab/a.service/holdfast"));
        // A process that was already moved finds the same base again.
        let moved = base(unified, "0::/lab/a.service/holdfast/agent/4711\n");
        assert_eq!(moved, found);
        assert_eq!(base(unified, "0::/\n").as_deref(), Some("/sys/fs/cgroup/unified/holdfast"));
        let part = "30 23 0:26 /lab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(base(part, own).as_deref(), Some("/sys/fs/cgroup/a.service/holdfast"));
        assert_eq!(base("1 1 0:1 / / rw - ext4 /dev/a rw\n", own), None);
    }
}
