//! The drivers of resources: probe, start, stop, monitor of volume groups, file systems, floating and routed addresses,
//! processes, scripts, units of systemd, OCF agents and data services.
//!
//! They run in a helper process, block, and say what they verified. An operation is idempotent: a start of what runs
//! and a stop of what is stopped succeed. Nothing here decides *whether* something may run: the helper has asked the
//! deadline page before, and what follows a failure is the core's decision.

pub mod account;
pub mod data_service;
pub mod execute;
pub mod filesystem;
pub mod floating_ip;
pub mod holders;
pub mod mounts;
pub mod neighbour;
pub mod netlink;
pub mod nfs_export;
pub mod ocf;
pub mod plan;
pub mod process;
pub mod script;
pub mod sources;
pub mod stray;
pub mod systemd;
pub mod tool;
pub mod virtual_ip;
pub mod volume_group;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::{Action, Outcome};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Hierarchy};
use crate::deadline::DeadlinePage;
pub use plan::{Network, Plan, PlanError};
pub use sources::{RegisteredService, Sources};

/// What an operation found or did, and a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The state of the resource on this server.
    pub state: State,
    /// What people want to know; may be empty when nothing is remarkable.
    pub message: String,
    /// It failed because somebody else answers for its address.
    #[serde(default)]
    pub contested: bool,
}

/// State of a resource on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Verified: it runs.
    Running,
    /// Verified: nothing of it is here.
    Stopped,
    /// It may be half there.
    Failed,
    /// It can't be told; counts as running.
    Unknown,
}

impl Verdict {
    /// It runs.
    pub fn running() -> Verdict {
        Verdict { state: State::Running, message: String::new(), contested: false }
    }

    /// Nothing of it is here.
    pub fn stopped() -> Verdict {
        Verdict { state: State::Stopped, message: String::new(), contested: false }
    }

    /// It failed.
    pub fn failed(message: impl Into<String>) -> Verdict {
        Verdict { state: State::Failed, message: message.into(), contested: false }
    }

    /// It failed: somebody else answers for its address.
    pub fn contested(message: impl Into<String>) -> Verdict {
        Verdict { contested: true, ..Verdict::failed(message) }
    }

    /// Nobody knows.
    pub fn unknown(message: impl Into<String>) -> Verdict {
        Verdict { state: State::Unknown, message: message.into(), contested: false }
    }

    /// The same with a sentence.
    pub fn with(mut self, message: impl Into<String>) -> Verdict {
        self.message = message.into();
        self
    }

    /// As the core wants it.
    pub fn outcome(self) -> Outcome {
        match self.state {
            State::Running => Outcome::Running,
            State::Stopped => Outcome::Stopped,
            State::Failed => Outcome::Failed(self.message),
            State::Unknown => Outcome::Unknown(self.message),
        }
    }
}

/// What scripts and programs are told about why they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// `HOLDFAST_REASON`.
    pub reason: String,
    /// `HOLDFAST_PREVIOUS_SERVER`, may be empty.
    pub previous: String,
    /// `HOLDFAST_SERVER`.
    pub server: String,
    /// `HOLDFAST_EPOCH`.
    pub epoch: u64,
}

/// One operation, as a driver sees it.
#[derive(Debug)]
pub struct Job {
    /// The group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// What is told.
    pub told: Told,
    /// Length of the whole operation, for `HOLDFAST_TIMEOUT`.
    pub timeout: Duration,
    /// When the executor kills the helper.
    pub until: Instant,
    /// The control groups.
    pub cgroups: Hierarchy,
    /// Directory of this resource in the run directory: records, logs, inline scripts. Made when first needed.
    pub state: PathBuf,
    /// The deadline page.
    pub page: Arc<DeadlinePage>,
    /// Number of the operation.
    pub op: u64,
    /// The groups of this sub-cluster that use the same data service.
    pub sharers: Vec<String>,
    /// Of a monitor: how deep it looks. Only OCF agents have deeper ones than 0.
    pub depth: u8,
}

impl Job {
    /// The control group of the resource.
    pub fn cgroup(&self) -> Cgroup {
        self.cgroups.resource(&self.group, &self.resource)
    }

    /// Time left before the executor kills the helper, less what it takes to report.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).saturating_sub(Duration::from_millis(50))
    }

    /// Variables that a program gets; `PATH` is the agent's own.
    pub fn told_environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| crate::spawn::DEFAULT_PATH.to_owned());
        [
            ("PATH", path),
            ("HOLDFAST_REASON", self.told.reason.clone()),
            ("HOLDFAST_PREVIOUS_SERVER", self.told.previous.clone()),
            ("HOLDFAST_SERVER", self.told.server.clone()),
            ("HOLDFAST_GROUP", self.group.clone()),
            ("HOLDFAST_RESOURCE", self.resource.clone()),
            ("HOLDFAST_EPOCH", self.told.epoch.to_string()),
            // Seconds, rounded up, as shells count.
            ("HOLDFAST_TIMEOUT", self.timeout.as_millis().div_ceil(1000).to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .to_vec()
    }
}

/// Carries an operation out.
pub fn run(plan: &Plan, action: Action, job: &Job) -> Verdict {
    match plan {
        Plan::Filesystem(plan) => filesystem::run(plan, action, job),
        Plan::FloatingIp(plan) => floating_ip::run(plan, action, job),
        Plan::Process(plan) => process::run(plan, action, job),
        Plan::Script(plan) => script::run(plan, action, job),
        Plan::Ocf(plan) => ocf::run(plan, action, job),
        Plan::VolumeGroup(plan) => volume_group::run(plan, action, job),
        Plan::NfsExport(plan) => nfs_export::run(plan, action),
        Plan::Systemd(plan) => systemd::run(plan, action, job),
        Plan::VirtualIp(plan) => virtual_ip::run(plan, action, job),
        Plan::DataService(plan) => data_service::run(plan, action, job),
    }
}
