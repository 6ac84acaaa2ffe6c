//! Carries out [`holdfast_core::Output::Resource`]: each operation in a helper process, answered by
//! [`Input::ResourceDone`]; a program that ends by itself is reported at once by [`Input::ResourceFailed`].
//!
//! Before each start it writes the kill list and the specification that it starts, durably, so that guard and a
//! restarted agent know what may run. What is started, stopped or restarted when is the core's decision.

mod checks;
mod launch;
mod leftovers;
mod records;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_api::v1 as api;
use holdfast_core::names::{GroupName, ResourceName, ServerName};
use holdfast_core::time::Instant;
use holdfast_core::{Action, Context, Input, OpId, Outcome};
use tokio::runtime::Handle;

use crate::cgroup::{CgroupError, Hierarchy};
use crate::clock;
use crate::deadline::DeadlinePage;
use crate::guard::kill_list::{Entry, KillList};
use crate::helper::{Request, Verb, carry_out, state_dir};
use crate::notes::Notes;
use crate::nursery::Nursery;
use crate::resources::data_service::Abort;
use crate::resources::plan::data_service::declared_name;
use crate::resources::{Network, Plan, Sources, State, Told, Verdict, process};
use crate::said;

pub use checks::Check;
pub use records::{RecordError, RunningGroup, RunningResource};

/// How long what an earlier agent left behind may take to die.
const LEFTOVERS: Duration = Duration::from_secs(5);
/// How often the executor shows that it works, and looks at the size of logs.
const TICK: Duration = Duration::from_secs(1);

/// What an executor needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This server.
    pub server: ServerName,
    /// Run directory.
    pub run_dir: PathBuf,
    /// The control groups; `enter_agent` was called.
    pub cgroups: Hierarchy,
    /// The `holdfast` program; it is called with the argument `nursery`.
    pub program: PathBuf,
    /// The deadline page.
    pub page: Arc<DeadlinePage>,
    /// Where operations run.
    pub runtime: Handle,
    /// Where people are told what no answer to the core says.
    pub notes: Notes,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    /// To be answered.
    pub op: OpId,
    /// Group.
    pub group: GroupName,
    /// Resource.
    pub resource: ResourceName,
    /// Generation of `spec`.
    pub generation: u64,
    /// The specification. For a stop, monitor or probe of something that was started in this boot, the one that it was
    /// started with is used instead; only without either the operation fails.
    pub spec: Option<api::Resource>,
    /// What to do.
    pub action: Action,
    /// Of a monitor of an OCF agent: its depth.
    pub depth: u8,
    /// What scripts are told.
    pub context: Context,
    /// Longest time.
    pub timeout: Duration,
    /// This server's LAN paths, for `floatingIP.path`.
    pub network: Network,
    /// What specifications name beside themselves.
    pub sources: Arc<Sources>,
    /// Of the start of a group: what one of its resources names and is not here. Then nothing of it is started.
    pub lacking: Option<String>,
}

/// Why there is no executor.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Control groups can't be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The run directory can't be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The boot id is unknown.
    #[error(transparent)]
    Boot(#[from] crate::boot::BootError),
}

type Key = (String, String);

/// Carries operations out, all at once; those of one resource one after another.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    nursery: Nursery,
    kill_list: KillList,
    records: records::Records,
    inputs: Box<dyn Fn(Input) + Send + Sync>,
    turns: Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    watches: Mutex<BTreeMap<Key, tokio::task::AbortHandle>>,
    checks: checks::UnderWay,
    /// Resources and monitors whose address somebody else answers for, by group.
    contested: Mutex<BTreeSet<Key>>,
    hanging: checks::Hanging,
    checkpoint: AtomicU64,
}

impl Executor {
    /// An executor. Ends what operations of an earlier agent are still under way, so that none of them acts behind this
    /// one's back.
    ///
    /// # Errors
    /// [`ExecutorError`]; among others when such an operation, or a program of it, hangs in the kernel: it may still act.
    pub fn new(settings: Settings, inputs: impl Fn(Input) + Send + Sync + 'static) -> Result<Executor, ExecutorError> {
        let helpers = settings.cgroups.helpers();
        helpers.create()?;
        helpers.kill(LEFTOVERS)?;
        leftovers::end_programs(&settings.cgroups, &settings.run_dir)?;
        let checks = settings.cgroups.checks();
        checks.create()?;
        // They act on nothing: one that hangs in the kernel keeps no agent from starting.
        checks.signal_kill()?;
        for old in helpers.children().into_iter().chain(checks.children()) {
            old.remove();
        }
        let records = records::Records::open(&settings.run_dir, crate::boot::Host::default().boot_id()?)?;
        let inner = Arc::new(Inner {
            nursery: Nursery::new(&settings.program),
            kill_list: KillList::of(&settings.run_dir),
            records,
            settings,
            inputs: Box::new(inputs),
            turns: Mutex::default(),
            watches: Mutex::default(),
            checks: checks::UnderWay::default(),
            contested: Mutex::default(),
            hanging: checks::Hanging::default(),
            checkpoint: AtomicU64::new(clock::now().0),
        });
        let ticker = Arc::downgrade(&inner);
        inner.settings.runtime.spawn(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                let Some(inner) = ticker.upgrade() else { return };
                inner.tick();
            }
        });
        Ok(Executor { inner })
    }

    /// What was started in this boot and not released: groups to be adopted again, whose programs are watched from now
    /// on. To be called once, before the first operation.
    pub fn recover(&self) -> Vec<RunningGroup> {
        let groups = self.inner.records.all();
        for group in &groups {
            for (resource, running) in &group.resources {
                if matches!(running.plan, Plan::Process(_)) {
                    Inner::watch(&self.inner, &(group.group.0.clone(), resource.0.clone()));
                }
            }
        }
        groups
    }

    /// Carries an operation out; answers by an input. Returns at once.
    pub fn submit(&self, operation: Operation) {
        let inner = Arc::clone(&self.inner);
        let checks = (operation.action == Action::Stop).then(|| inner.checks.call_back(&operation.group));
        self.inner.settings.runtime.spawn(async move {
            let began = clock::now();
            if let Some(checks) = checks {
                checks.over().await;
            }
            let op = operation.op;
            let key = (operation.group.0.clone(), operation.resource.0.clone());
            let turn = Arc::clone(lock(&inner.turns).entry(key.clone()).or_default());
            let _turn = turn.lock().await;
            let (action, group, resource) = (operation.action, operation.group.clone(), operation.resource.clone());
            let epoch = operation.context.tag.epoch;
            let mut verdict = inner.perform(operation).await;
            let known = inner.records.resource(&group, &resource);
            if let Some(known) = &known {
                verdict.message = known.plan.redacted(&verdict.message);
            }
            let state = state_dir(&inner.settings.run_dir, &key.0, &key.1);
            let verdict = said::worded(action, known.as_ref().map(|known| &known.plan), &state, verdict);
            let took = clock::now().since(began);
            if verdict.state == State::Running || action != Action::Stop && verdict.state == State::Unknown {
                Inner::watch(&inner, &key);
            }
            log(action, &group, &resource, epoch, &verdict, took);
            inner.tell_contest(&key, &verdict);
            let outcome = match (action, verdict.state) {
                // A stop that finds it running has failed.
                (Action::Stop, State::Running) => Outcome::Failed(verdict.message),
                _ => verdict.outcome(),
            };
            (inner.inputs)(Input::ResourceDone { op, outcome, took });
        });
    }

    /// The group is verified stopped: forgets its kill-list entries and what was started.
    pub fn released(&self, group: &GroupName) {
        lock(&self.inner.watches).retain(|(g, _), watch| {
            if *g == group.0 {
                watch.abort();
            }
            *g != group.0
        });
        lock(&self.inner.turns).retain(|(g, _), _| *g != group.0);
        if let Err(error) = self.inner.kill_list.release(&group.0) {
            tracing::warn!(%group, %error, "the kill list can't be shortened; the guard may stop what is stopped already");
        }
        self.inner.records.forget(group);
        self.inner.settings.cgroups.group(&group.0).remove();
    }

    /// A resource is verified stopped, and no part of its group any more: a restarted agent is not to start it. What the
    /// kill list has of it goes with the group.
    pub fn forget(&self, group: &GroupName, resource: &ResourceName) {
        if let Err(error) = self.inner.records.forget_resource(group, resource) {
            tracing::warn!(%group, %resource, %error, "what was started can't be forgotten; a restarted agent will start it again");
        }
    }

    /// Whether something of the group was started in this boot and not released.
    pub fn has_of(&self, group: &GroupName) -> bool {
        self.inner.records.has(group)
    }

    /// When the executor last showed that it works; at most a little more than a second ago if it does.
    pub fn checkpoint(&self) -> Instant {
        Instant(self.inner.checkpoint.load(Ordering::Relaxed))
    }
}

impl Inner {
    /// Tells people that somebody else answers for an address, once until nobody does.
    fn tell_contest(&self, part: &Key, verdict: &Verdict) {
        let mut contested = lock(&self.contested);
        if !verdict.contested {
            contested.remove(part);
        } else if contested.insert(part.clone()) {
            let (group, part) = part;
            self.settings.notes.warn("AddressConflict", group, format!("{part}: {}", verdict.message));
        }
    }

    fn tick(&self) {
        self.checkpoint.store(clock::now().0, Ordering::Relaxed);
        let watched: Vec<Key> = lock(&self.watches).keys().cloned().collect();
        for (group, resource) in watched {
            if let Err(error) = process::bound_log(&state_dir(&self.settings.run_dir, &group, &resource)) {
                tracing::warn!(%group, %resource, %error, "its log can't be bounded");
            }
        }
    }

    async fn perform(&self, operation: Operation) -> Verdict {
        let until = tokio::time::Instant::now() + operation.timeout;
        for (what, name) in [("group", &operation.group.0), ("resource", &operation.resource.0)] {
            // They become directories.
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Verdict::failed(format!("the {what} name {name:?} is no name of an object"));
            }
        }
        while self.settings.page.enforcing() {
            if tokio::time::Instant::now() >= until {
                return Verdict::unknown("the guard has not finished to stop what an earlier lease held");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let (Action::Start, Some(problem)) = (operation.action, &operation.lacking) {
            return Verdict::failed(problem.clone());
        }
        let plan = match self.plan(&operation) {
            Ok(plan) => plan,
            Err(problem) => return Verdict::failed(problem),
        };
        let key = (operation.group.0.clone(), operation.resource.0.clone());
        match operation.action {
            Action::Start => {
                if let Err(verdict) = self.before_start(&operation, &plan) {
                    return verdict;
                }
            }
            // Its end is wanted now.
            Action::Stop => self.unwatch(&key),
            Action::Probe | Action::Monitor => {}
        }
        let request = Request {
            verb: operation.action.into(),
            depth: operation.depth,
            group: key.0,
            resource: key.1,
            op: operation.op,
            sharers: operation.sources.sharers(&plan),
            plan,
            told: Told {
                reason: operation.context.reason.name().to_owned(),
                previous: operation.context.previous.map_or_else(String::new, |server| server.0),
                server: self.settings.server.0.clone(),
                epoch: operation.context.tag.epoch,
            },
            timeout: until.saturating_duration_since(tokio::time::Instant::now()),
            run_dir: self.settings.run_dir.clone(),
            cgroup: self.settings.cgroups.base().to_owned(),
        };
        if request.verb == Verb::Monitor && request.plan.is_seen_in_the_kernel() {
            return self.look_here(request, until).await;
        }
        launch::helper(self, request, until).await
    }

    /// Carries a check out in this process. It only reads tables of the kernel: it has no effect, waits for no disk and
    /// no program, and so needs no process that could be killed; a thousand of them would cost as many.
    async fn look_here(&self, request: Request, until: tokio::time::Instant) -> Verdict {
        let (page, limit) = (Arc::clone(&self.settings.page), request.timeout);
        let looked = tokio::task::spawn_blocking(move || carry_out(request, page));
        match tokio::time::timeout_at(until, looked).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => Verdict::unknown(format!("it could not be looked at: {error}")),
            Err(_) => Verdict::unknown(format!("the kernel did not answer within {limit:?}")),
        }
    }

    fn plan(&self, operation: &Operation) -> Result<Plan, String> {
        let started = self.records.resource(&operation.group, &operation.resource);
        match (operation.action, started, &operation.spec) {
            (Action::Stop | Action::Monitor | Action::Probe, Some(started), _) => Ok(started.plan),
            (_, _, Some(spec)) => {
                let plan = operation.sources.plan(spec, &operation.network);
                plan.map_err(|e| format!("resource {}: {e}", declared_name(&operation.resource.0)))
            }
            _ => Err("its specification is not known on this server".to_owned()),
        }
    }

    fn before_start(&self, operation: &Operation, plan: &Plan) -> Result<(), Verdict> {
        if !self.settings.page.may_start(clock::now()) {
            return Err(Verdict::failed("not started: this server's authority has ended"));
        }
        let cgroup = self.settings.cgroups.resource(&operation.group.0, &operation.resource.0);
        let mut entry = Entry::new(&operation.group.0, &operation.resource.0, cgroup.path(), plan);
        if let Plan::DataService(plan) = plan {
            let sharers = operation.sources.data_services.get(&plan.service).map(|service| service.groups.clone());
            entry.abort = Abort::of(plan, sharers.unwrap_or_default());
        }
        let refuse = |what: &str, error: &dyn std::fmt::Display| {
            Err(Verdict::failed(format!("not started, because {what} can't be written: {error}")))
        };
        if let Err(error) = self.kill_list.hold(&entry) {
            return refuse("the kill list", &error);
        }
        let Some(spec) = &operation.spec else { return Ok(()) };
        let running = RunningResource { generation: operation.generation, plan: plan.clone(), spec: spec.clone() };
        match self.records.remember(&operation.group, &operation.resource, running) {
            Ok(()) => Ok(()),
            Err(error) => refuse("what is started", &error),
        }
    }

    fn unwatch(&self, key: &Key) {
        if let Some(watch) = lock(&self.watches).remove(key) {
            watch.abort();
        }
    }

    /// Watches the program of a process resource, unless that is done already.
    fn watch(this: &Arc<Inner>, key: &Key) {
        let known = this.records.resource(&GroupName(key.0.clone()), &ResourceName(key.1.clone()));
        let Some(plan) = known.map(|known| known.plan).filter(|plan| matches!(plan, Plan::Process(_))) else { return };
        let mut watches = lock(&this.watches);
        if watches.get(key).is_some_and(|watch| !watch.is_finished()) {
            return;
        }
        let (inner, key_of_task) = (Arc::clone(this), key.clone());
        let task = this.settings.runtime.spawn(async move {
            let (group, resource) = key_of_task;
            let state = state_dir(&inner.settings.run_dir, &group, &resource);
            let cgroup = inner.settings.cgroups.resource(&group, &resource);
            let message = plan.redacted(&watch::end_of(&state, &cgroup).await);
            let message = said::with_advice(Some(&plan), &state, message);
            tracing::warn!(%group, %resource, %message, "a program has ended by itself");
            (inner.inputs)(Input::ResourceFailed {
                group: GroupName(group),
                resource: ResourceName(resource),
                message,
            });
        });
        watches.insert(key.clone(), task.abort_handle());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log(action: Action, group: &GroupName, resource: &ResourceName, epoch: u64, verdict: &Verdict, took: Duration) {
    let (state, message) = (verdict.state, verdict.message.as_str());
    match (action, state) {
        (_, State::Failed | State::Unknown) => {
            tracing::warn!(%group, %resource, epoch, ?action, ?state, ?took, message, "operation failed");
        }
        (Action::Monitor, State::Running) => {
            tracing::trace!(%group, %resource, ?took, message, "checked");
        }
        _ => tracing::info!(%group, %resource, epoch, ?action, ?state, ?took, message, "operation done"),
    }
}
