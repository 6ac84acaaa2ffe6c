//! Facts about this machine and this boot of it, read once at start: boot id, when it booted, whether it is virtual,
//! what it is. Nothing here decides anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use holdfast_core::names::BootId;
use holdfast_planner::Amount;
use rand::TryRngCore;

/// Why a fact could not be found.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel's boot id is missing: nothing can be told apart from the boot before.
    #[error("the boot id in {path} can't be read: {reason}; it needs a mounted /proc of a Linux kernel")]
    BootId {
        /// Where it was looked for.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Where the facts are read from; another root only in tests.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Host { root: PathBuf::from("/") }
    }
}

impl Host {
    /// The files under `root` stand for those of the machine.
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(path.trim_start_matches('/')))
    }

    /// The kernel's boot id: one incarnation of the machine.
    pub fn boot_id(&self) -> Result<BootId, BootError> {
        const PATH: &str = "/proc/sys/kernel/random/boot_id";
        let fail = |reason: String| BootError::BootId { path: PathBuf::from(PATH), reason };
        let text = self.read(PATH).map_err(|e| fail(e.to_string()))?;
        let id = uuid::Uuid::parse_str(text.trim()).map_err(|e| fail(format!("{:?}: {e}", text.trim())))?;
        if id.is_nil() {
            return Err(fail("it is all zeros".to_owned()));
        }
        Ok(BootId(id.as_u128()))
    }

    /// Whether this is a virtual machine: a hypervisor flag of the processor, a hypervisor in /sys, or a product name
    /// that only virtual machines have. In doubt it is one: time alone then proves nothing about it (domain.md A5).
    pub fn is_virtual(&self) -> bool {
        let flag = self.read("/proc/cpuinfo").is_ok_and(|text| {
            text.lines()
                .filter(|line| line.starts_with("flags") || line.starts_with("Features"))
                .any(|line| line.split_whitespace().any(|word| word == "hypervisor"))
        });
        let hypervisor = self.read("/sys/hypervisor/type").is_ok_and(|text| !text.trim().is_empty());
        let named = ["sys_vendor", "product_name", "bios_vendor", "board_vendor"].iter().any(|file| {
            self.read(&format!("/sys/class/dmi/id/{file}")).is_ok_and(|text| {
                const VIRTUAL: [&str; 12] = [
                    "QEMU",
                    "KVM",
                    "VMware",
                    "VirtualBox",
                    "innotek",
                    "Xen",
                    "Bochs",
                    "Parallels",
                    "BHYVE",
                    "OpenStack",
                    "Amazon EC2",
                    "Google Compute Engine",
                ];
                VIRTUAL.iter().any(|name| text.contains(name)) || text.trim() == "Virtual Machine"
            })
        });
        // Metal instances of a cloud carry the cloud's vendor name, but no hypervisor flag; erring on the side of
        // "virtual" only asks for an explicit permission.
        flag || hypervisor || named
    }

    /// Name and version of the distribution, as in os-release; empty if it doesn't say.
    pub fn os(&self) -> String {
        let text = self.read("/etc/os-release").or_else(|_| self.read("/usr/lib/os-release")).unwrap_or_default();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|v| v.trim_matches('"').to_owned())
        };
        value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_default()
    }

    /// Kernel release.
    pub fn kernel(&self) -> String {
        self.read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
    }

    /// What groups may require of this machine: its processors and its memory; none if it can't be told.
    pub fn capacity(&self) -> Option<Amount> {
        let processors = thread::available_parallelism().ok()?.get();
        Some(Amount { cpu_milli: processors as u64 * 1000, memory: self.memory()? })
    }

    /// Total memory in bytes, if the kernel says.
    fn memory(&self) -> Option<u64> {
        let text = self.read("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

/// A random 128-bit number for an id.
pub fn random_id() -> Result<u128, BootError> {
    let mut bytes = [0; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|e| BootError::Random(e.to_string()))?;
    Ok(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    #[test]
    fn a_machine_with_a_hypervisor_flag_is_virtual_and_one_without_any_sign_is_not() {
        let metal = [("proc/cpuinfo", "flags\t\t: fpu vme\n"), ("sys/class/dmi/id/sys_vendor", "Supermicro\n")];
        assert!(!host(&metal).1.is_virtual());
        assert!(host(&[("proc/cpuinfo", "flags\t\t: fpu hypervisor lahf_lm\n")]).1.is_virtual());
        assert!(host(&[("sys/class/dmi/id/product_name", "Virtual Machine\n")]).1.is_virtual());
        assert!(host(&[("sys/hypervisor/type", "xen\n")]).1.is_virtual());
    }

    #[test]
    fn the_boot_id_is_the_kernels() {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(Host::default().boot_id().unwrap().to_string(), text.trim());
        let (_dir, bad) = host(&[("proc/sys/kernel/random/boot_id", "no\n")]);
        assert!(bad.boot_id().unwrap_err().to_string().contains("\"no\""));
    }
}
