//! Checks of monitors. They run beside everything else, each in a helper of its own, and are over before a resource of
//! their group is stopped: one that has a file of the group open, or hangs, must not make a stop fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::names::{GroupName, MonitorName};
use holdfast_core::time::Instant;
use holdfast_core::{Input, OpId, Outcome};
use tokio::sync::watch;

use super::{Executor, Inner, launch, lock};
use crate::cgroup::Cgroup;
use crate::clock;
use crate::monitors::{Plan, Request};
use crate::resources::{State, Verdict};

/// The helper says itself that a check took too long; so much later it is taken for stuck.
const GRACE: Duration = Duration::from_secs(2);

/// One check.
#[derive(Debug, Clone)]
pub struct Check {
    /// To be answered.
    pub op: OpId,
    /// Group; none: a monitor of servers.
    pub group: Option<GroupName>,
    /// Monitor.
    pub monitor: MonitorName,
    /// What is checked, or why that is not known: then nothing is.
    pub plan: Result<Plan, String>,
    /// Longest time.
    pub timeout: Duration,
    /// What was seen before does not count; none: counting began before this process.
    pub since: Option<Instant>,
}

/// Says to a check that it is to end; is closed when the check has.
type Leash = Arc<watch::Sender<bool>>;

/// Checks under way.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<BTreeMap<Option<GroupName>, BTreeMap<OpId, Leash>>>);

/// What is left of checks that hang in the kernel. Their monitors begin no other one: a disk that is dead for a day must
/// not gather a process every few seconds.
#[derive(Default)]
pub(super) struct Hanging(Mutex<BTreeMap<(Option<GroupName>, MonitorName), Cgroup>>);

impl Hanging {
    fn note(&self, check: (Option<GroupName>, MonitorName), left: Cgroup) {
        lock(&self.0).insert(check, left);
    }

    fn still(&self, check: &(Option<GroupName>, MonitorName)) -> bool {
        let mut all = lock(&self.0);
        let Some(left) = all.get(check) else { return false };
        if left.populated().unwrap_or(true) {
            return true;
        }
        left.remove();
        all.remove(check);
        false
    }
}

impl UnderWay {
    fn begin(&self, group: &Option<GroupName>, op: OpId) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        lock(&self.0).entry(group.clone()).or_default().insert(op, Arc::new(sender));
        receiver
    }

    fn end(&self, group: &Option<GroupName>, op: OpId) {
        let mut all = lock(&self.0);
        if let Some(checks) = all.get_mut(group) {
            checks.remove(&op);
            if checks.is_empty() {
                all.remove(group);
            }
        }
    }

    /// Calls all checks of a group back, and those of the server: nobody knows which files these have open.
    pub(super) fn call_back(&self, group: &GroupName) -> CalledBack {
        let all = lock(&self.0);
        let checks = [Some(group.clone()), None].into_iter().filter_map(|of| all.get(&of));
        let checks: Vec<_> = checks.flat_map(|checks| checks.values().cloned()).collect();
        for check in &checks {
            check.send_replace(true);
        }
        CalledBack(checks)
    }
}

/// Checks that were called back.
pub(super) struct CalledBack(Vec<Leash>);

impl CalledBack {
    /// Returns when nothing of them is left, or can't be killed.
    pub(super) async fn over(self) {
        for check in self.0 {
            check.closed().await;
        }
    }
}

impl Executor {
    /// Carries a check out; answers by an input. Returns at once.
    pub fn check(&self, check: Check) {
        let inner = Arc::clone(&self.inner);
        // Before anything later can be submitted.
        let called_back = inner.checks.begin(&check.group, check.op);
        self.inner.settings.runtime.spawn(async move {
            let began = clock::now();
            let (op, of, monitor) = (check.op, check.group.clone(), check.monitor.clone());
            let verdict = inner.look(check, called_back).await;
            inner.checks.end(&of, op);
            if let Some(group) = &of {
                inner.tell_contest(&(group.0.clone(), monitor.0.clone()), &verdict);
            }
            let group = of.map(|group| group.0).unwrap_or_default();
            let took = clock::now().since(began);
            let (state, message) = (verdict.state, verdict.message.as_str());
            if state == State::Running {
                tracing::trace!(group, %monitor, ?took, "checked");
            } else {
                tracing::info!(group, %monitor, ?state, ?took, message, "a monitor is not content");
            }
            let outcome: Outcome = verdict.outcome();
            (inner.inputs)(Input::ResourceDone { op, outcome, took });
        });
    }
}

impl Inner {
    async fn look(&self, check: Check, called_back: watch::Receiver<bool>) -> Verdict {
        let plan = match check.plan {
            Ok(plan) => plan,
            Err(problem) => return Verdict::unknown(problem),
        };
        if self.settings.page.enforcing() {
            return Verdict::unknown("the guard has not finished to stop what an earlier lease held");
        }
        let name = (check.group.clone(), check.monitor.clone());
        if self.hanging.still(&name) {
            return Verdict::failed("no answer: the check before still hangs in the kernel");
        }
        let request = Request {
            server: self.settings.server.0.clone(),
            group: check.group.map(|group| group.0).unwrap_or_default(),
            monitor: check.monitor.0,
            op: check.op,
            plan,
            timeout: check.timeout,
            since: check.since.map(|since| since.0),
            run_dir: self.settings.run_dir.clone(),
            cgroup: self.settings.cgroups.base().to_owned(),
        };
        let until = tokio::time::Instant::now() + check.timeout + GRACE;
        let (verdict, left) = launch::check(self, request, until, called_back).await;
        if let Some(left) = left {
            self.hanging.note(name, left);
        }
        verdict
    }
}
