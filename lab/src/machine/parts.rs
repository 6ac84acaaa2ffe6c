//! What machines are made of: QEMU, a kernel with its modules, programs and their libraries. From the directory that
//! `scripts/setup.sh test` has filled with unpacked packages, and what is not there, from this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Attempt, LabError, Result};

/// Where everything is.
#[derive(Debug)]
pub(super) struct Parts {
    /// Unpacked packages.
    root: PathBuf,
    pub(super) qemu: PathBuf,
    /// Where QEMU's own files are.
    pub(super) qemu_data: Vec<PathBuf>,
    pub(super) kernel: PathBuf,
    pub(super) modules: PathBuf,
}

fn missing(what: String) -> LabError {
    LabError::Missing { what, hint: "run scripts/setup.sh test (make test does)".into() }
}

impl Parts {
    /// Looks in the directory that `HOLDFAST_MACHINE` names, else in `machine` beside Cargo's artefacts.
    ///
    /// # Errors
    /// [`LabError::Missing`] for what `scripts/setup.sh test` fetches.
    pub(super) fn find() -> Result<Parts> {
        let directory = match std::env::var_os("HOLDFAST_MACHINE") {
            Some(given) => PathBuf::from(given),
            None => {
                let own = std::env::current_exe().attempt(|| "reading the path of this program".into())?;
                // target/debug/deps/PROGRAM, or target/debug/PROGRAM.
                let near = own.ancestors().skip(2).take(2).map(|above| above.join("machine"));
                near.clone().find(|directory| directory.is_dir()).ok_or_else(|| {
                    let looked: Vec<String> = near.map(|directory| directory.display().to_string()).collect();
                    missing(format!("the parts of virtual machines in {}", looked.join(" or ")))
                })?
            }
        };
        let root = directory.join("root");
        let kernel = only(&root.join("boot"), "vmlinuz-")?;
        let version = kernel.file_name().map(|n| n.to_string_lossy().replacen("vmlinuz-", "", 1)).unwrap_or_default();
        let mut parts = Parts {
            modules: root.join("lib/modules").join(version),
            qemu_data: ["usr/share/qemu", "usr/share/seabios"].map(|data| root.join(data)).to_vec(),
            qemu: PathBuf::new(),
            kernel,
            root,
        };
        parts.qemu_data.retain(|data| data.is_dir());
        parts.qemu = parts.program("qemu-system-x86_64")?;
        Ok(parts)
    }

    /// A program by name or absolute path.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        const PLACES: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
        let candidates: Vec<PathBuf> = if name.starts_with('/') {
            vec![PathBuf::from(name)]
        } else {
            let roots = [self.root.as_path(), Path::new("/")];
            roots.iter().flat_map(|root| PLACES.map(|place| root.join(place).join(name))).collect()
        };
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| missing(format!("the program {name}")))
    }

    /// For the dynamic loader.
    pub(super) fn library_path(&self) -> String {
        const PLACES: [&str; 4] =
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio", "usr/lib"];
        PLACES.map(|place| self.root.join(place).display().to_string()).join(":")
    }

    /// The libraries of a program; none for one that needs none. The loader itself is told apart by its absolute name.
    pub(super) fn libraries(&self, program: &Path) -> Result<Vec<PathBuf>> {
        let mut ldd = Command::new("ldd");
        ldd.arg(program).env("LD_LIBRARY_PATH", self.library_path());
        let output = ldd.output().map_err(|source| LabError::Spawn { program: "ldd".into(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(line) = text.lines().find(|line| line.contains("not found")) {
            return Err(missing(format!("a library of {}: {}", program.display(), line.trim())));
        }
        Ok(libraries(&text))
    }
}

/// What `ldd` prints: `libc.so.6 => /lib/libc.so.6 (0x…)`, and the loader as `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

/// The one file of a directory whose name begins so; of several, the newest.
fn only(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(directory).map_err(|_| missing(format!("a kernel in {}", directory.display())))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.sort();
    found.pop().ok_or_else(|| missing(format!("a kernel in {}", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_read_from_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(text), expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
