//! The second kind of host: a virtual machine with a kernel of its own, for what the machine at hand may not have
//! (device-mapper, an NFS server) or must not be tried on (a kernel's mounts that hang). QEMU, in software; a Debian kernel;
//! and an initial file system made of a few programs, which is all there is: nothing of this machine's files can be reached
//! from inside, and nothing is left behind.
//!
//! `scripts/setup.sh test` fetches QEMU, the kernel and the programs into a directory beside Cargo's artefacts; nothing of it
//! is installed. [`Machine::boot`] starts all machines of a test at once, [`Machine::sh`] runs a shell script in one. A machine
//! ends with its value, with the thread that started it, and with this process, however that ends.

mod archive;
mod image;
mod modules;
mod parts;

use std::fmt::Write as _;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Attempt, LabError, Result};
use crate::shell::wait_for;
use parts::Parts;

/// Longest time to boot. In software on a loaded machine it takes ten times as long as on an idle one.
const BOOT: Duration = Duration::from_secs(90);
/// How much of the console is shown when a machine fails.
const CONSOLE_TAIL: usize = 3000;

/// What a machine has.
#[derive(Debug, Clone, Default)]
pub struct MachineConfig {
    /// Its name, also its host name.
    pub name: String,
    /// Kernel modules, by name; what they need comes with them. Disks, network and ext4 need not be named.
    pub modules: Vec<String>,
    /// Programs, by name (looked for as a shell does) or by absolute path (then found there inside, too).
    pub programs: Vec<String>,
    /// Images that are its disks, /dev/vda and so on in this order. Two machines may have the same one.
    pub disks: Vec<PathBuf>,
    /// Ends of wires; all together they are one network card, eth0.
    pub wires: Vec<WireEnd>,
}

/// One end of a wire between two machines.
#[derive(Debug, Clone)]
pub struct WireEnd {
    own: PathBuf,
    other: PathBuf,
}

/// A wire; its two ends go to two machines. `directory` has to outlive them.
#[must_use]
pub fn wire(directory: &Path) -> (WireEnd, WireEnd) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (one, two) = (directory.join(format!("wire-{number}.a")), directory.join(format!("wire-{number}.b")));
    (WireEnd { own: one.clone(), other: two.clone() }, WireEnd { own: two, other: one })
}

/// What a script ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

/// A machine that is on.
#[derive(Debug)]
pub struct Machine {
    name: String,
    directory: PathBuf,
    qemu: Child,
    /// Where scripts go in and answers come out; none before it has booted.
    shell: Option<BufReader<UnixStream>>,
}

impl Machine {
    /// Starts machines, all at once, and waits until each takes commands.
    ///
    /// # Errors
    /// [`LabError::Missing`] for a part that `scripts/setup.sh test` has not fetched; [`LabError::Timeout`] with the end of
    /// the console for a machine that does not boot.
    pub fn boot(configs: &[MachineConfig]) -> Result<Vec<Machine>> {
        let parts = Parts::find()?;
        let mut machines = configs.iter().map(|c| Machine::start(c, &parts)).collect::<Result<Vec<Machine>>>()?;
        for machine in &mut machines {
            machine.ready()?;
        }
        Ok(machines)
    }

    fn start(config: &MachineConfig, parts: &Parts) -> Result<Machine> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("holdfast-machine-{}-{number}-{}", std::process::id(), config.name));
        std::fs::create_dir_all(&directory).attempt(|| format!("making {}", directory.display()))?;
        let image = directory.join("initrd");
        if let Err(error) = image::write(&image, config, parts) {
            let _ = std::fs::remove_dir_all(&directory);
            return Err(error);
        }
        let mut command = Command::new("setpriv");
        // Even a test that is killed leaves no machine behind.
        command.args(["--pdeathsig", "KILL", "--"]).args(arguments(config, parts, &directory, &image));
        command.env("LD_LIBRARY_PATH", parts.library_path()).current_dir(&directory);
        let log = std::fs::File::create(directory.join("qemu.log")).attempt(|| "making qemu.log".into())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let qemu = command.spawn().map_err(|source| LabError::Spawn { program: "setpriv".into(), source })?;
        Ok(Machine { name: config.name.clone(), directory, qemu, shell: None })
    }

    fn ready(&mut self) -> Result<()> {
        let (socket, name) = (self.directory.join("shell"), self.name.clone());
        let stream = wait_for(&format!("machine {name} to start"), BOOT, |last| {
            *last = self.said();
            if let Ok(Some(status)) = self.qemu.try_wait() {
                return Err(self.failed(&format!("QEMU ended with {status}")));
            }
            Ok(UnixStream::connect(&socket).ok())
        })?;
        self.shell = Some(BufReader::new(stream));
        match self.line(Instant::now() + BOOT)?.as_str() {
            "ready" => Ok(()),
            other => Err(self.failed(&format!("it greets with {other:?}"))),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a shell script to its end, within `limit`; what it leaves running must not keep its output open.
    ///
    /// # Errors
    /// [`LabError::Host`] when it takes longer, or the machine is gone. After that the machine takes no more scripts.
    pub fn script(&mut self, text: &str, limit: Duration) -> Result<Ended> {
        let until = Instant::now() + limit;
        let line = format!("{}\n", STANDARD.encode(text));
        let Some(shell) = &mut self.shell else { return Err(self.failed("it is off")) };
        if let Err(error) = shell.get_mut().write_all(line.as_bytes()) {
            return Err(self.failed(&error.to_string()));
        }
        let header = self.line(until).map_err(|error| during(error, text))?;
        let numbers: Vec<usize> = header.split(' ').filter_map(|number| number.parse().ok()).collect();
        let &[code, output, errors] = numbers.as_slice() else {
            return Err(self.failed(&format!("it answers {header:?}")));
        };
        let output = self.exactly(output, until)?;
        let errors = self.exactly(errors, until)?;
        Ok(Ended { code: i32::try_from(code).unwrap_or(i32::MAX), output, errors })
    }

    /// Runs a shell script that has to succeed, within a minute; gives its output without blanks around it.
    ///
    /// # Errors
    /// As [`Machine::script`], and [`LabError::Command`] when it fails.
    pub fn sh(&mut self, text: &str) -> Result<String> {
        let ended = self.script(text, Duration::from_secs(60))?;
        if ended.code == 0 {
            return Ok(ended.output.trim().to_owned());
        }
        let output = format!("{} {}", ended.errors.trim(), ended.output.trim());
        Err(LabError::Command {
            command: format!("{}: {text}", self.name),
            status: format!("exit {}", ended.code),
            output,
        })
    }

    /// Takes the power away, now.
    pub fn power_cut(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        self.shell = None;
    }

    fn line(&mut self, until: Instant) -> Result<String> {
        let mut bytes = Vec::new();
        while bytes.last() != Some(&b'\n') {
            let mut one = [0];
            self.fill(&mut one, until)?;
            bytes.push(one[0]);
        }
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    fn exactly(&mut self, length: usize, until: Instant) -> Result<String> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, until)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn fill(&mut self, buffer: &mut [u8], until: Instant) -> Result<()> {
        let Some(shell) = &mut self.shell else { return Err(self.failed("it is off")) };
        let mut filled = 0;
        while filled < buffer.len() {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let read = match shell.get_ref().set_read_timeout(Some(left)) {
                Ok(()) => shell.read(&mut buffer[filled..]),
                Err(error) => Err(error),
            };
            match read {
                Ok(0) => return Err(self.failed("it has ended")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.shell = None;
                    return Err(self.failed("it has not answered in time"));
                }
                Err(error) => return Err(self.failed(&error.to_string())),
            }
        }
        Ok(())
    }

    /// The end of what its console and QEMU have said.
    fn said(&self) -> String {
        let mut text = String::new();
        for file in ["qemu.log", "console.log"] {
            let bytes = std::fs::read(self.directory.join(file)).unwrap_or_default();
            let tail = &bytes[bytes.len().saturating_sub(CONSOLE_TAIL)..];
            if !tail.is_empty() {
                let _ = write!(text, "\n--- {file}\n{}", String::from_utf8_lossy(tail));
            }
        }
        text
    }

    fn failed(&self, what: &str) -> LabError {
        LabError::Host { host: self.name.clone(), message: format!("{what}{}", self.said()) }
    }
}

fn during(error: LabError, script: &str) -> LabError {
    match error {
        LabError::Host { host, message } => LabError::Host { host, message: format!("during `{script}`: {message}") },
        other => other,
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_cut();
        if std::thread::panicking() {
            eprintln!("machine {}:{}", self.name, self.said());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// QEMU and its arguments.
fn arguments(config: &MachineConfig, parts: &Parts, directory: &Path, image: &Path) -> Vec<String> {
    let mut all: Vec<String> = vec![parts.qemu.display().to_string()];
    for data in &parts.qemu_data {
        all.extend(["-L".into(), data.display().to_string()]);
    }
    // In software: it boots in seconds, and there are machines whose /dev/kvm is there and hangs.
    let fixed = "-nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max -smp 1 -m 640";
    all.extend(fixed.split(' ').map(str::to_owned));
    let (kernel, image) = (parts.kernel.display(), image.display());
    all.extend(["-kernel".into(), kernel.to_string(), "-initrd".into(), image.to_string()]);
    let line = format!("console=ttyS0 quiet panic=-1 host={}", config.name);
    all.extend(["-append".into(), line]);
    let mut add = |option: &str, value: String| all.extend([format!("-{option}"), value]);
    add("chardev", format!("file,id=console,path={}", directory.join("console.log").display()));
    add("serial", "chardev:console".into());
    add("device", "virtio-serial-pci".into());
    add("chardev", format!("socket,id=shell,path={},server=on,wait=off", directory.join("shell").display()));
    add("device", "virtserialport,chardev=shell,name=shell".into());
    for (number, disk) in config.disks.iter().enumerate() {
        // Shared on purpose: who may write when is what is tested.
        let file = disk.display();
        add("drive", format!("file={file},format=raw,if=none,id=disk{number},file.locking=off"));
        add("device", format!("virtio-blk-pci,drive=disk{number},share-rw=on"));
    }
    for (number, wire) in config.wires.iter().enumerate() {
        let (own, other) = (wire.own.display(), wire.other.display());
        let ends = format!("local.type=unix,local.path={own},remote.type=unix,remote.path={other}");
        add("netdev", format!("dgram,id=wire{number},{ends}"));
        add("netdev", format!("hubport,id=plug{number},hubid=0,netdev=wire{number}"));
    }
    if !config.wires.is_empty() {
        add("netdev", "hubport,id=card,hubid=0".into());
        let tail = config.name.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)));
        let [high, low] = tail.to_be_bytes();
        add("device", format!("virtio-net-pci,netdev=card,romfile=,mac=52:54:00:12:{high:02x}:{low:02x}"));
    }
    all
}
