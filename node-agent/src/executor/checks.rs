//! Checks of monitors. They run beside everything else, each in a helper of its own, and are over before a resource of
//! their group is stopped: one that has a file of the group open, or hangs, must not make a stop fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_api::v1 as api;
use holdfast_core::names::{GroupName, MonitorName};
use holdfast_core::{Input, OpId, Outcome};
use tokio::sync::watch;

use super::{Executor, Inner, launch, lock};
use crate::clock;
use crate::monitors::Request;
use crate::resources::{State, Verdict};

/// The helper says itself that a check took too long; so much later it is taken for stuck.
const GRACE: Duration = Duration::from_secs(2);

/// One check.
#[derive(Debug, Clone)]
pub struct Check {
    /// To be answered.
    pub op: OpId,
    /// Group.
    pub group: GroupName,
    /// Monitor.
    pub monitor: MonitorName,
    /// The specification; without it nothing is checked.
    pub spec: Option<api::Monitor>,
    /// Longest time.
    pub timeout: Duration,
}

/// Says to a check that it is to end; is closed when the check has.
type Leash = Arc<watch::Sender<bool>>;

/// Checks under way.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<BTreeMap<GroupName, BTreeMap<OpId, Leash>>>);

impl UnderWay {
    fn begin(&self, group: &GroupName, op: OpId) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        lock(&self.0).entry(group.clone()).or_default().insert(op, Arc::new(sender));
        receiver
    }

    fn end(&self, group: &GroupName, op: OpId) {
        let mut all = lock(&self.0);
        if let Some(checks) = all.get_mut(group) {
            checks.remove(&op);
            if checks.is_empty() {
                all.remove(group);
            }
        }
    }

    /// Calls all checks of a group back.
    pub(super) fn call_back(&self, group: &GroupName) -> CalledBack {
        let checks: Vec<_> = lock(&self.0).get(group).into_iter().flat_map(|c| c.values().cloned()).collect();
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
            let (op, group, monitor) = (check.op, check.group.clone(), check.monitor.clone());
            let verdict = inner.look(check, called_back).await;
            inner.checks.end(&group, op);
            let took = clock::now().since(began);
            let (state, message) = (verdict.state, verdict.message.as_str());
            if state == State::Running {
                tracing::trace!(%group, %monitor, ?took, "checked");
            } else {
                tracing::info!(%group, %monitor, ?state, ?took, message, "a monitor is not content");
            }
            let outcome: Outcome = verdict.outcome();
            (inner.inputs)(Input::ResourceDone { op, outcome, took });
        });
    }
}

impl Inner {
    async fn look(&self, check: Check, called_back: watch::Receiver<bool>) -> Verdict {
        let Some(monitor) = check.spec else {
            return Verdict::unknown("its specification is not known on this server");
        };
        if self.settings.page.enforcing() {
            return Verdict::unknown("the guard has not finished to stop what an earlier lease held");
        }
        let server = self.settings.server.0.clone();
        let request = Request { server, group: check.group.0, op: check.op, monitor, timeout: check.timeout };
        let until = tokio::time::Instant::now() + check.timeout + GRACE;
        launch::check(&self.settings, request, until, called_back).await
    }
}
