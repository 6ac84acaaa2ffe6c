//! Finding and signalling processes of a host from outside.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Host;
use crate::error::{Attempt, Result};

/// A process of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number, as the machine sees it.
    pub pid: i32,
    /// Its arguments, the program first.
    pub args: Vec<String>,
}

impl Process {
    /// Whether it is `holdfast VERB …`, by its arguments.
    #[must_use]
    pub fn is_holdfast(&self, verb: &str) -> bool {
        let program = self.args.first().map(String::as_str).unwrap_or_default();
        program.rsplit('/').next() == Some("holdfast") && self.args.get(1).map(String::as_str) == Some(verb)
    }
}

impl Host {
    /// Every process of the host that has arguments (kernel threads and zombies have none).
    ///
    /// # Errors
    /// When the host's control group can't be read.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for pid in self.cgroup().processes()? {
            // A process that ended meanwhile has no file.
            let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let args: Vec<String> = text.split_terminator('\0').map(str::to_string).collect();
            if !args.is_empty() {
                found.push(Process { pid, args });
            }
        }
        Ok(found)
    }

    /// The processes that are `holdfast VERB …`, for instance the `agent`, not its `guard`.
    ///
    /// # Errors
    /// As [`Host::processes`].
    pub fn holdfast_processes(&self, verb: &str) -> Result<Vec<Process>> {
        Ok(self.processes()?.into_iter().filter(|process| process.is_holdfast(verb)).collect())
    }

    /// Sends a signal to every process of `processes`.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn signal(&self, processes: &[Process], signal: Signal) -> Result<()> {
        for process in processes {
            kill(Pid::from_raw(process.pid), signal)
                .attempt(|| format!("sending {signal} to {:?} on {}", process.args, self.name()))?;
        }
        Ok(())
    }
}
