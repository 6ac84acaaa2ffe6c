//! What the guard is told, and what it tells about itself, as files in the run directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::watchdog::WatchdogSettings;

const SETTINGS: &str = "guard.json";
const STATE: &str = "guard.state";

/// What a guard needs to know beside the page and the kill list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardSettings {
    /// Base of the control groups.
    pub cgroup: PathBuf,
    /// The watchdog.
    pub watchdog: WatchdogSettings,
}

/// What the guard could arrange, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardState {
    /// Its process number.
    pub pid: u32,
    /// Identity of the watchdog that it holds.
    pub watchdog: Option<String>,
    /// Timeout of the watchdog as read back.
    pub watchdog_timeout: Option<Duration>,
    /// Why no watchdog works although one is wanted, or looked for; none: it works, or none is to be used.
    pub watchdog_problem: Option<String>,
    /// What the system refused it, one sentence each.
    pub warnings: Vec<String>,
}

/// What the guard of a run directory last said about itself.
pub fn guard_state(run_dir: &Path) -> Option<GuardState> {
    serde_json::from_slice(&fs::read(run_dir.join(STATE)).ok()?).ok()
}

fn save<T: Serialize>(run_dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let path = run_dir.join(name);
    let aside = run_dir.join(format!("{name}.new"));
    let text = serde_json::to_vec(value)?;
    // Unchanged settings are no news for a living guard.
    if fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(&aside, text)?;
    fs::rename(aside, path)
}

impl GuardSettings {
    pub(super) fn save(&self, run_dir: &Path) -> io::Result<()> {
        save(run_dir, SETTINGS, self)
    }

    pub(super) fn load(run_dir: &Path) -> io::Result<GuardSettings> {
        let path = run_dir.join(SETTINGS);
        let text = fs::read(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

impl GuardState {
    pub(super) fn save(&self, run_dir: &Path) -> io::Result<()> {
        save(run_dir, STATE, self)
    }
}

pub(super) fn seen(run_dir: &Path) -> Option<super::Seen> {
    super::seen(&run_dir.join(SETTINGS))
}
