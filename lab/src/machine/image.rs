//! The file system that a machine begins with, and stays on: programs, their libraries, kernel modules, and a first process
//! that mounts what a system has, loads the modules and takes scripts from a serial port.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use super::archive::Archive;
use super::modules::Modules;
use super::{MachineConfig, Parts};
use crate::error::{Attempt, Result};

/// Process 1 of a machine.
const INIT: &str = include_str!("init.sh");
/// What every machine has.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "ext4"];
/// Has the ordinary programs in it: shell, cat, mount and so on.
const TOOLBOX: &str = "busybox";
/// Where Debian's dynamic loader looks without being told.
const LIBRARIES: &str = "/lib/x86_64-linux-gnu";

pub(super) fn write(to: &Path, config: &MachineConfig, parts: &Parts) -> Result<()> {
    let what = || format!("writing {}", to.display());
    let mut archive = Archive::new(BufWriter::new(File::create(to).attempt(what)?));
    for directory in ["proc", "sys", "dev", "run", "tmp", "root", "mnt", "etc", "var/lib", "sbin"] {
        archive.directory(Path::new(directory)).attempt(what)?;
    }
    // The kernel opens it for process 1 before anything is mounted.
    archive.device(Path::new("dev/console"), (5, 1)).attempt(what)?;
    archive.link(Path::new("etc/mtab"), "/proc/mounts").attempt(what)?;
    archive.file(Path::new("init"), INIT.as_bytes()).attempt(what)?;
    for name in config.programs.iter().map(String::as_str).chain([TOOLBOX]) {
        program(&mut archive, name, parts)?;
    }
    let modules = Modules::of(&parts.modules)?;
    let wanted: Vec<String> = MODULES.map(str::to_owned).into_iter().chain(config.modules.iter().cloned()).collect();
    for (number, path) in modules.in_order(&wanted)?.iter().enumerate() {
        let content = std::fs::read(path).attempt(|| format!("reading {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        archive.file(Path::new(&format!("modules/{number:03}-{name}")), &content).attempt(what)?;
    }
    archive.finish().attempt(what)
}

fn program(archive: &mut Archive<impl std::io::Write>, name: &str, parts: &Parts) -> Result<()> {
    let found = parts.program(name)?;
    let content = std::fs::read(&found).attempt(|| format!("reading {}", found.display()))?;
    let place = if name.starts_with('/') { name.to_owned() } else { format!("/bin/{name}") };
    archive.file(Path::new(&place), &content).attempt(|| format!("adding {place}"))?;
    for library in parts.libraries(&found)? {
        let content = std::fs::read(&library).attempt(|| format!("reading {}", library.display()))?;
        let file = library.file_name().unwrap_or_default();
        // The loader is named by its whole path in each program.
        let place = if library.starts_with("/lib64") { library.clone() } else { Path::new(LIBRARIES).join(file) };
        archive.file(&place, &content).attempt(|| format!("adding {}", place.display()))?;
    }
    Ok(())
}
