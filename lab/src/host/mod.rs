//! A host of the lab: a process tree with namespaces of its own for network, mounts, host name, processes, IPC
//! and control groups. This file: power on, power off, running commands. Faults are in `faults`, processes in
//! `processes`.

mod faults;
mod processes;

pub use faults::CutMoment;
pub use processes::Process;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::binary::holdfast_binary;
use crate::cgroup::Cgroup;
use crate::error::{Attempt, LabError, Result};
use crate::loopdev::LoopDevice;
use crate::network::Cable;
use crate::shell::{finish, wait_for};
use crate::spec::{DeviceSpec, HostSpec, NodeSpec, PATH, ServiceSpec};

/// A disk image that a host is wired to, and the names it has there.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// The disk's name in the lab.
    pub disk: String,
    /// The image file.
    pub image: PathBuf,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Stable device names inside the host that lead to it.
    pub links: Vec<PathBuf>,
}

/// What a host is made of; fixed over its life.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) cables: Vec<Cable>,
    pub(crate) disks: Vec<Wiring>,
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) services: Vec<ServiceSpec>,
}

/// A host. All methods take `&self`, so that faults can be injected from several threads.
#[derive(Debug)]
pub struct Host {
    name: String,
    directory: PathBuf,
    cgroup: Cgroup,
    plan: Plan,
    power: Mutex<Option<Running>>,
}

/// A host that is on.
#[derive(Debug)]
struct Running {
    /// The outer stage of `lab-init`; it ends when the host is off.
    outer: Child,
    /// The host's first process, as the machine numbers it.
    pid: i32,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    disks: Vec<(String, LoopDevice)>,
}

impl Host {
    /// Prepares a host that is off: its directories and its control group.
    pub(crate) fn new(name: &str, directory: PathBuf, cgroup: Cgroup, plan: Plan) -> Result<Host> {
        for part in ["root", "upper", "lib", "log"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).attempt(|| format!("making {}", path.display()))?;
        }
        Ok(Host { name: name.to_string(), directory, cgroup, plan, power: Mutex::new(None) })
    }

    /// Its name, also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its cables.
    #[must_use]
    pub fn cables(&self) -> &[Cable] {
        &self.plan.cables
    }

    /// Its disks.
    #[must_use]
    pub fn disks(&self) -> &[Wiring] {
        &self.plan.disks
    }

    /// Its control group.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The machine's directory that the host sees as `/var/lib/holdfast`; survives power cuts.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("lib")
    }

    /// The machine's directory with the logs of the host's services; survives power cuts.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.power().is_some()
    }

    /// The number that the machine gives to the host's first process.
    ///
    /// # Errors
    /// [`LabError::Power`] when it is off.
    pub fn pid(&self) -> Result<i32> {
        self.power().as_ref().map(|running| running.pid).ok_or_else(|| self.needs_power())
    }

    /// A poisoned lock means that another thread of a test panicked; the state under it is still whole.
    fn power(&self) -> MutexGuard<'_, Option<Running>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn needs_power(&self) -> LabError {
        LabError::Power { host: self.name.clone(), found: "off", needed: "on" }
    }

    /// Starts the first process with a new boot id and fresh loop devices; cables are plugged in by the lab.
    pub(crate) fn start_init(&self) -> Result<()> {
        let mut power = self.power();
        if power.is_some() {
            return Err(LabError::Power { host: self.name.clone(), found: "on", needed: "off" });
        }
        let boot_id = self.directory.join("boot_id");
        fs::write(&boot_id, format!("{}\n", uuid::Uuid::new_v4()))
            .attempt(|| format!("writing {}", boot_id.display()))?;
        let mut disks = Vec::new();
        let mut devices = Vec::new();
        for wiring in &self.plan.disks {
            let device = LoopDevice::attach(&wiring.image, wiring.sector_size)?;
            devices.push(DeviceSpec {
                node: device.path().to_path_buf(),
                number: device.number(),
                links: wiring.links.clone(),
            });
            disks.push((wiring.disk.clone(), device));
        }
        let binary = holdfast_binary()?;
        let spec = HostSpec {
            hostname: self.name.clone(),
            directory: self.directory.clone(),
            binary: binary.clone(),
            cgroup: self.cgroup.path().to_path_buf(),
            devices,
            nodes: self.plan.nodes.clone(),
            services: self.plan.services.clone(),
        };
        let file = self.directory.join("spec.json");
        let text = serde_json::to_vec_pretty(&spec)
            .map_err(|error| LabError::Host { host: self.name.clone(), message: error.to_string() })?;
        fs::write(&file, text).attempt(|| format!("writing {}", file.display()))?;
        let errors = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_dir().join("init.log"))
            .attempt(|| "opening the log of lab-init".into())?;
        let mut outer = Command::new(&binary)
            .arg("lab-init")
            .arg("--spec")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|source| LabError::Spawn { program: binary.display().to_string(), source })?;
        let pipes = outer.stdin.take().zip(outer.stdout.take());
        let (commands, output) = pipes.expect("both were asked for above");
        let mut answers = BufReader::new(output);
        // The two stages write to one pipe: `pid` comes before or after `ready`.
        let (mut pid, mut ready) = (None, false);
        while pid.is_none() || !ready {
            let line = self.read_line(&mut answers)?;
            match line.split_once(' ') {
                Some(("pid", number)) => pid = number.parse().ok(),
                None if line == "ready" => ready = true,
                _ => {
                    // Nothing of the host may outlive a failed start.
                    drop(commands);
                    self.cgroup.kill()?;
                    let _ = outer.wait();
                    let message = line.strip_prefix("error ").unwrap_or(&line).to_string();
                    return Err(LabError::Host { host: self.name.clone(), message });
                }
            }
        }
        let pid = pid.expect("the loop above ends with a number");
        *power = Some(Running { outer, pid, commands, answers, disks });
        Ok(())
    }

    fn read_line(&self, answers: &mut BufReader<ChildStdout>) -> Result<String> {
        let mut line = String::new();
        answers.read_line(&mut line).attempt(|| format!("reading from lab-init of {}", self.name))?;
        if line.is_empty() {
            let log = fs::read_to_string(self.log_dir().join("init.log")).unwrap_or_default();
            return Err(LabError::Host {
                host: self.name.clone(),
                message: format!("lab-init ended: {}", log.lines().last().unwrap_or("its log is empty")),
            });
        }
        Ok(line.trim_end().to_string())
    }

    /// Sends a command to the host's first process and returns the answer without its `ok`.
    fn tell(&self, command: &str) -> Result<String> {
        let mut power = self.power();
        let running = power.as_mut().ok_or_else(|| self.needs_power())?;
        writeln!(running.commands, "{command}").attempt(|| format!("telling {} to {command}", self.name))?;
        let line = self.read_line(&mut running.answers)?;
        match line.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim().to_string()),
            None => Err(LabError::Host {
                host: self.name.clone(),
                message: line.strip_prefix("error ").unwrap_or(&line).to_string(),
            }),
        }
    }

    /// Starts a service and keeps it running: when it ends, it is started again at once.
    ///
    /// # Errors
    /// When the host is off or has no such service.
    pub fn start_service(&self, name: &str) -> Result<()> {
        self.tell(&format!("start {name}")).map(drop)
    }

    /// Ends a service by SIGTERM, leaves it down, and waits up to `limit` until it has ended.
    ///
    /// # Errors
    /// When the host is off, has no such service, or it doesn't end in time.
    pub fn stop_service(&self, name: &str, limit: Duration) -> Result<()> {
        self.tell(&format!("stop {name}"))?;
        wait_for(&format!("{name} on {} to end", self.name), limit, |last| {
            *last = self.tell(&format!("state {name}"))?;
            Ok((last == "down").then_some(()))
        })
    }

    /// Lets a service run on, but leaves it down once it ends.
    ///
    /// # Errors
    /// When the host is off or has no such service.
    pub fn leave_service(&self, name: &str) -> Result<()> {
        self.tell(&format!("leave {name}")).map(drop)
    }

    /// Whether a service runs.
    ///
    /// # Errors
    /// When the host is off or has no such service.
    pub fn service_runs(&self, name: &str) -> Result<bool> {
        Ok(self.tell(&format!("state {name}"))? != "down")
    }

    /// A command that will run inside the host: in all its namespaces and its control group.
    ///
    /// # Errors
    /// When the host is off.
    pub fn command<S: AsRef<OsStr>>(&self, line: &[S]) -> Result<Command> {
        let all = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"];
        let mut command = self.enter(&all, line)?;
        let procs = self.cgroup.create("exec")?.procs_file();
        let procs =
            fs::OpenOptions::new().write(true).open(&procs).attempt(|| format!("opening {}", procs.display()))?;
        #[expect(unsafe_code, reason = "a command must be in the host's cgroup before it runs")]
        // SAFETY: one write to an open file between fork and exec.
        unsafe {
            command.pre_exec(move || (&procs).write_all(b"0"));
        }
        Ok(command)
    }

    /// A command that enters some of the host's namespaces.
    pub(crate) fn enter<S: AsRef<OsStr>>(&self, namespaces: &[&str], line: &[S]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid()?.to_string()]).args(namespaces).arg("--").args(line);
        command.env("PATH", PATH).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command inside the host to its end and returns its standard output.
    ///
    /// # Errors
    /// When the host is off, or the command fails.
    pub fn exec<S: AsRef<OsStr>>(&self, line: &[S]) -> Result<String> {
        finish(self.command(line)?, None)
    }

    /// A path of the host as the machine sees it while the host is on.
    ///
    /// # Errors
    /// When the host is off.
    pub fn path(&self, inside: &str) -> Result<PathBuf> {
        Ok(Path::new(&format!("/proc/{}/root", self.pid()?)).join(inside.trim_start_matches('/')))
    }

    /// Ends every process of the host and lets go of its disks. File systems are not shut down first: what
    /// their caches hold is still written, as the last mount goes. [`crate::Lab::power_cut`] is the other one.
    pub(crate) fn power_off(&self) -> Result<()> {
        let Some(mut running) = self.power().take() else { return Ok(()) };
        // Killed before it is thawed: what was frozen does not run for another moment.
        self.cgroup.kill()?;
        self.cgroup.set_frozen(false)?;
        running.outer.wait().attempt(|| format!("waiting for {} to be off", self.name))?;
        let limit = Duration::from_secs(10);
        wait_for(&format!("the processes of {} to be gone", self.name), limit, |last| {
            let left = self.cgroup.processes()?;
            *last = format!("{left:?}");
            Ok(left.is_empty().then_some(()))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.power_off() {
            tracing::warn!(host = self.name, %error, "the host could not be powered off");
        }
    }
}
