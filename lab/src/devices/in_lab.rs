//! The lab's own devices as faults of its hosts, and the thread that resets a host when its watchdog is due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Devices, DiskFault};
use crate::error::{Attempt, Result};
use crate::host::CutMoment;

/// How often watchdogs are looked at.
const TICK: Duration = Duration::from_millis(2);

/// Watches the watchdogs of a lab from outside its hosts. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Resetter {
    ending: Arc<AtomicBool>,
    resets: Arc<Mutex<Vec<(String, CutMoment)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Resetter {
    /// Starts it; `cut` takes the power of a host.
    pub(crate) fn start(
        devices: Arc<Devices>,
        cut: impl Fn(&str) -> Result<CutMoment> + Send + 'static,
    ) -> Result<Resetter> {
        let ending = Arc::new(AtomicBool::new(false));
        let resets = Arc::new(Mutex::new(Vec::new()));
        let (stop, done) = (Arc::clone(&ending), Arc::clone(&resets));
        let work = move || {
            while !stop.load(Ordering::Acquire) {
                for host in devices.due() {
                    match cut(&host) {
                        Ok(moment) => {
                            done.lock().unwrap_or_else(PoisonError::into_inner).push((host, moment));
                        }
                        // It is off already; so is its watchdog.
                        Err(error) => {
                            tracing::debug!(host, %error, "no reset");
                            devices.power_lost(&host);
                        }
                    }
                }
                thread::sleep(TICK);
            }
        };
        let thread = thread::Builder::new()
            .name("resetter".into())
            .spawn(work)
            .attempt(|| "starting the thread that resets hosts".into())?;
        Ok(Resetter { ending, resets, thread: Some(thread) })
    }

    /// Every reset so far, in order.
    pub(crate) fn resets(&self) -> Vec<(String, CutMoment)> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Resetter {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl crate::lab::Lab {
    /// Changes what a shared disk does for a host that was made with [`crate::HostConfig::faulty_disks`].
    ///
    /// # Errors
    /// When it has no such disk.
    pub fn set_disk(&self, host: &str, disk: &str, fault: DiskFault) -> Result<()> {
        self.devices()?.set_disk(host, disk, fault)
    }

    /// Makes the writes that [`DiskFault::LateWrites`] holds back for a host; returns how many of them a host had sent that
    /// has lost its power since.
    ///
    /// # Errors
    /// When it has no such disk, or the image can't be written.
    pub fn land_writes(&self, host: &str, disk: &str) -> Result<usize> {
        self.devices()?.land_writes(host, disk)
    }

    /// Hosts that their watchdogs reset, in order. They stay off until they are switched on.
    #[must_use]
    pub fn resets(&self) -> Vec<(String, CutMoment)> {
        self.resetter().map(|resetter| resetter.resets()).unwrap_or_default()
    }
}
