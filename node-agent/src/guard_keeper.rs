//! Keeps a guard alive beside the agent (C7, R23): starts it, gives it its settings, watches it, starts another one.
//!
//! What the guard does is its own business; here is only that there is one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use holdfast_api::v1::{SubCluster, WatchdogMode};
use holdfast_core::Input;
use tokio::sync::watch;

use crate::clock;
use crate::convert::server_status::GuardView;
use crate::deadline::DeadlinePage;
use crate::guard::kill_list::KillList;
use crate::guard::{GuardError, GuardSettings, Seen, ensure_guard, guard_alive, guard_state, seen};
use crate::inbox::{Event, Inbox};
use crate::watchdog::WatchdogSettings;

/// How often the guard is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A guard that has not passed its checkpoint for so long is stuck.
const SILENT: Duration = Duration::from_secs(2);
/// How long a living guard may take to take over changed settings.
const SETTLE: Duration = Duration::from_secs(1);
/// So long the agent goes on without a guard while it tries to start another one (p of R23).
const WITHOUT: Duration = Duration::from_secs(5);

/// The keeper; clones are the same one.
#[derive(Debug, Clone)]
pub struct GuardKeeper {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    run_dir: PathBuf,
    cgroup: PathBuf,
    page: Arc<DeadlinePage>,
    watchdog: Mutex<WatchdogSettings>,
    /// The kill list when it was read last, and whether it named anything.
    list: Mutex<Option<(Option<Seen>, bool)>>,
}

/// The watchdog settings of a sub-cluster; before one is known none is used.
pub fn watchdog_settings(sub_cluster: Option<&SubCluster>) -> WatchdogSettings {
    match sub_cluster.map(|s| &s.spec.watchdog) {
        Some(spec) => {
            WatchdogSettings { mode: spec.mode, device: PathBuf::from(&spec.device), timeout: spec.timeout.get() }
        }
        None => WatchdogSettings {
            mode: WatchdogMode::Disabled,
            device: PathBuf::from("/dev/watchdog"),
            timeout: Duration::from_secs(2),
        },
    }
}

impl GuardKeeper {
    /// Starts a guard, or takes over the one that lives. Blocks until it is ready.
    pub fn start(
        program: PathBuf,
        run_dir: PathBuf,
        cgroup: PathBuf,
        page: Arc<DeadlinePage>,
        watchdog: WatchdogSettings,
    ) -> Result<GuardKeeper, GuardError> {
        let inner =
            Inner { program, run_dir, cgroup, page, watchdog: Mutex::new(watchdog.clone()), list: Mutex::default() };
        let keeper = GuardKeeper { inner: Arc::new(inner) };
        keeper.ensure(&watchdog)?;
        keeper.settle(&watchdog);
        Ok(keeper)
    }

    fn ensure(&self, watchdog: &WatchdogSettings) -> Result<(), GuardError> {
        let settings = GuardSettings { cgroup: self.inner.cgroup.clone(), watchdog: watchdog.clone() };
        ensure_guard(&self.inner.program, &self.inner.run_dir, &settings)
    }

    /// Waits until the guard has taken the settings over, as far as that can be told from outside.
    fn settle(&self, watchdog: &WatchdogSettings) {
        let wanted = watchdog.mode != WatchdogMode::Disabled && watchdog.device.exists();
        let began = clock::now();
        while self.timeout().is_some() != wanted && clock::now().since(began) < SETTLE {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Timeout of the watchdog that the guard holds, as the device says it.
    pub fn timeout(&self) -> Option<Duration> {
        self.inner.page.facts().watchdog
    }

    /// Gives the guard the settings of this sub-cluster, if they are others, and returns the watchdog's timeout. Blocks
    /// for at most about a second, and only when the settings change.
    pub fn configure(&self, sub_cluster: &SubCluster) -> Option<Duration> {
        let wanted = watchdog_settings(Some(sub_cluster));
        let changed = {
            let mut settings = self.inner.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = *settings != wanted;
            settings.clone_from(&wanted);
            changed
        };
        if changed {
            match self.ensure(&wanted) {
                Ok(()) => self.settle(&wanted),
                Err(e) => tracing::error!("{e}"),
            }
        }
        self.timeout()
    }

    /// The guard as status shows it.
    pub fn view(&self) -> GuardView {
        let facts = self.inner.page.facts();
        let state = guard_state(&self.inner.run_dir);
        GuardView {
            present: guard_alive(&self.inner.page, clock::now(), SILENT),
            enforcing: self.inner.page.enforcing(),
            holding: self.holding(),
            watchdog: facts.watchdog.and_then(|_| state.as_ref()?.watchdog.clone()),
            watchdog_problem: state.and_then(|state| state.watchdog_problem),
            watchdog_timeout: facts.watchdog,
            real_time: facts.real_time,
            memory_locked: facts.memory_locked,
        }
    }

    /// Whether the kill list names anything. It is read only when it has changed: this is asked four times a second.
    fn holding(&self) -> bool {
        let list = KillList::of(&self.inner.run_dir);
        let found = seen(list.path());
        let mut known = self.inner.list.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((at, holding)) if at == found => holding,
            _ => {
                let holding = list.entries().is_ok_and(|entries| !entries.is_empty());
                *known = Some((found, holding));
                holding
            }
        }
    }

    /// Starts the thread that watches the guard. `seen` gets every change; after [`WITHOUT`] without a guard the agent
    /// leaves: it stops everything while it still can.
    pub fn watch(
        &self,
        inbox: Inbox,
        seen: watch::Sender<GuardView>,
        timeout: watch::Sender<Option<Duration>>,
    ) -> std::io::Result<()> {
        let keeper = self.clone();
        thread::Builder::new().name("guard-keeper".into()).stack_size(256 << 10).spawn(move || {
            let mut lost_since = None;
            let mut left = false;
            loop {
                thread::sleep(LOOK);
                let now = clock::now();
                let view = keeper.view();
                if view.present {
                    lost_since = None;
                } else {
                    let since = *lost_since.get_or_insert(now);
                    let settings = keeper.inner.watchdog.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if since == now {
                        tracing::error!("the guard is lost; starting another one");
                    }
                    if let Err(e) = keeper.ensure(&settings) {
                        tracing::error!("{e}");
                    }
                    if now.since(since) > WITHOUT && !left {
                        left = true;
                        tracing::error!(
                            "no guard for {WITHOUT:?}: leaving, so that everything is stopped while it can be"
                        );
                        inbox.deliver(Event::Input(Input::Leave));
                    }
                }
                let facts = keeper.timeout();
                timeout.send_if_modified(|old| std::mem::replace(old, facts) != facts);
                seen.send_if_modified(|old| {
                    let changed = *old != view;
                    *old = view;
                    changed
                });
            }
        })?;
        Ok(())
    }
}
