//! Joins the driver loop with executor and deadline page: finds the specification that an operation is about.
//!
//! Older generations are kept while their group may run, so that a resource can be restarted as it was started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::v1 as api;
use holdfast_core::commands::is_program;
use holdfast_core::names::{GroupName, MonitorName, ResourceName, ServerName};
use holdfast_core::orders::Power;
use holdfast_core::time::Instant;
use holdfast_core::{Action, OpId};

use crate::deadline::{Deadline, DeadlinePage, Role};
use crate::driver_loop::{Check, Effects, Operation};
use crate::executor::{self, Executor, RunningGroup};
use crate::fencing::{Fencer, topology::topology};
use crate::inbox::Adoption;
use crate::monitors::{self, Facts, SharedDisk};
use crate::resources::plan::PathFacts;
use crate::resources::{Network, Sources};

/// The executor shows that it works every second; so long a silence is no delay any more.
const EXECUTOR: Duration = Duration::from_secs(4);

/// One generation of a group.
#[derive(Default)]
struct Spec {
    resources: BTreeMap<ResourceName, api::Resource>,
    /// None of one that ran before this process: what was started is remembered, not how it was monitored.
    monitors: Option<Vec<api::Monitor>>,
}

/// Executor, page and the specifications that operations may be about.
pub struct Machine {
    executor: Executor,
    fencer: Fencer,
    fencing: tokio::sync::watch::Receiver<crate::fencing::View>,
    page: Arc<DeadlinePage>,
    network: Network,
    sources: Arc<Sources>,
    disks: BTreeMap<String, SharedDisk>,
    /// Of the sub-cluster.
    monitors: Vec<api::Monitor>,
    /// The command that shuts this machine down.
    power_off: Vec<String>,
    specs: BTreeMap<GroupName, BTreeMap<u64, Spec>>,
    /// Those that commands added; of no generation, because they are declared nowhere.
    programs: BTreeMap<GroupName, BTreeMap<ResourceName, api::Resource>>,
    /// Groups whose start was refused because they lack something; whether they are verified stopped since.
    lacking: BTreeMap<GroupName, bool>,
    /// Something that they may lack has come, or one of them has stopped.
    look_again: bool,
}

impl Machine {
    /// `running`: what was started before this process. `power_off`: what shuts this machine down.
    pub fn new(
        executor: Executor,
        (fencer, fencing): (Fencer, tokio::sync::watch::Receiver<crate::fencing::View>),
        page: Arc<DeadlinePage>,
        running: &[RunningGroup],
        power_off: Vec<String>,
    ) -> Machine {
        let mut specs: BTreeMap<GroupName, BTreeMap<u64, Spec>> = BTreeMap::new();
        let mut programs: BTreeMap<GroupName, BTreeMap<ResourceName, api::Resource>> = BTreeMap::new();
        for group in running {
            for (name, resource) in &group.resources {
                if is_program(name) {
                    let of_group = programs.entry(group.group.clone()).or_default();
                    of_group.insert(name.clone(), resource.spec.clone());
                    continue;
                }
                let generations = specs.entry(group.group.clone()).or_default();
                generations
                    .entry(resource.generation)
                    .or_default()
                    .resources
                    .insert(name.clone(), resource.spec.clone());
            }
        }
        Machine {
            executor,
            fencer,
            fencing,
            page,
            network: Network::new(),
            sources: Arc::default(),
            disks: BTreeMap::new(),
            monitors: Vec::new(),
            power_off,
            specs,
            programs,
            lacking: BTreeMap::new(),
            look_again: false,
        }
    }
}

impl Machine {
    /// What the resources of a group name and is not here. Of one that runs nothing: it goes on with what it was
    /// started with, whatever vanished since.
    fn lacks(&self, group: &GroupName, generation: u64) -> Option<String> {
        let spec = self.specs.get(group)?.get(&generation).filter(|_| !self.executor.has_of(group))?;
        self.sources.lacking(spec.resources.values())
    }

    /// What a monitor checks here.
    fn monitor_plan(
        &self,
        group: Option<&GroupName>,
        monitor: &MonitorName,
        generation: u64,
    ) -> Result<monitors::Plan, String> {
        let generations = group.and_then(|group| self.specs.get(group));
        let asked = generations.and_then(|g| g.get(&generation));
        let newest = || generations?.values().rev().find_map(|spec| spec.monitors.as_ref());
        let all = match group {
            None => Some(&self.monitors),
            Some(_) => asked.and_then(|spec| spec.monitors.as_ref()).or_else(newest),
        };
        let spec = all.and_then(|all| all.iter().find(|spec| spec.name == monitor.0));
        let spec = spec.ok_or("its specification is not known on this server")?;
        let none = BTreeMap::new();
        let resources = asked.map_or(&none, |spec| &spec.resources);
        monitors::Plan::new(
            spec,
            &Facts { network: &self.network, disks: &self.disks, resources, sources: &self.sources },
        )
    }
}

impl Effects for Machine {
    fn adopt(&mut self, adoption: &Adoption) {
        let facts = |lan: &crate::paths::LanWiring| PathFacts {
            interface: lan.interface.clone(),
            endpoint: lan.endpoints.get(&adoption.wiring.me).copied(),
        };
        self.network = adoption.wiring.lans.iter().map(|lan| (lan.name.0.clone(), facts(lan))).collect();
        self.sources = adoption.sources.clone();
        self.look_again = true;
        self.disks = monitors::plan::shared_disks(&adoption.sub_cluster.spec, &adoption.wiring.me);
        self.monitors.clone_from(&adoption.sub_cluster.spec.monitors);
        self.fencer.adopt(topology(&adoption.sub_cluster.spec, &adoption.secrets));
        for (name, group) in &adoption.specs {
            let generation = adoption.groups.get(name).map_or(0, |config| config.generation);
            let resources = group.spec.resources.iter().map(|r| (ResourceName(r.name.clone()), r.clone())).collect();
            let spec = Spec { resources, monitors: Some(group.spec.monitors.clone()) };
            self.specs.entry(name.clone()).or_default().insert(generation, spec);
        }
    }

    fn operate(&mut self, operation: Operation) {
        let Operation { op, group, resource, generation, action, depth, context, timeout } = operation;
        let generations = self.specs.get(&group);
        let declared = generations.and_then(|g| g.get(&generation)).and_then(|s| s.resources.get(&resource));
        let spec = self.program(&group, &resource).or(declared).cloned();
        let (network, sources) = (self.network.clone(), self.sources.clone());
        let lacking = if action == Action::Start { self.lacks(&group, generation) } else { None };
        match (action, &lacking) {
            (Action::Start, Some(_)) => drop(self.lacking.insert(group.clone(), false)),
            (Action::Start, None) => drop(self.lacking.remove(&group)),
            _ => {}
        }
        self.executor.submit(executor::Operation {
            op,
            group,
            resource,
            generation,
            spec,
            action,
            depth,
            context,
            timeout,
            network,
            sources,
            lacking,
        });
    }

    fn check(&mut self, check: Check) {
        let Check { op, group, monitor, generation, timeout, since } = check;
        let plan = self.monitor_plan(group.as_ref(), &monitor, generation);
        self.executor.check(executor::Check { op, group, monitor, plan, timeout, since });
    }

    fn fence_devices(&self) -> crate::fencing::View {
        self.fencing.borrow().clone()
    }

    fn fence(&mut self, op: OpId, server: &ServerName, power: Option<Power>) {
        self.fencer.fire(op, server, power);
    }

    fn cancel_fence(&mut self, op: OpId) {
        self.fencer.cancel(op);
    }

    fn power_off(&mut self, reason: &str) {
        tracing::warn!(command = ?self.power_off, "shutting this server down: {reason}");
        let command = self.power_off.clone();
        // It may wait for this process to end.
        std::thread::spawn(move || {
            let [program, args @ ..] = command.as_slice() else { return };
            let problem = match std::process::Command::new(program).args(args).status() {
                Ok(status) if status.success() => return,
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::error!(
                ?command,
                "this server can't be shut down: {problem}; it stays out until it is started anew"
            );
        });
    }

    fn program(&self, group: &GroupName, program: &ResourceName) -> Option<&api::Resource> {
        self.programs.get(group)?.get(program)
    }

    fn keep_program(&mut self, group: &GroupName, program: &ResourceName, spec: api::Resource) {
        self.programs.entry(group.clone()).or_default().insert(program.clone(), spec);
    }

    fn forget_program(&mut self, group: &GroupName, program: &ResourceName) {
        if let Some(programs) = self.programs.get_mut(group) {
            programs.remove(program);
        }
        self.executor.forget(group, program);
    }

    fn mended(&mut self) -> Vec<GroupName> {
        if !std::mem::take(&mut self.look_again) {
            return Vec::new();
        }
        let newest = |group: &GroupName| self.specs.get(group).and_then(|g| g.keys().next_back().copied());
        let whole = |group: &GroupName| newest(group).is_some_and(|newest| self.lacks(group, newest).is_none());
        let stopped = self.lacking.iter().filter(|(_, stopped)| **stopped).map(|(group, _)| group);
        let mended: Vec<GroupName> = stopped.filter(|group| whole(group)).cloned().collect();
        self.lacking.retain(|group, _| !mended.contains(group));
        mended
    }

    fn released(&mut self, group: &GroupName) {
        if let Some(stopped) = self.lacking.get_mut(group) {
            (*stopped, self.look_again) = (true, true);
        }
        self.executor.released(group);
        self.programs.remove(group);
        // Nothing of it runs: the newest is what the next start is about.
        if let Some(generations) = self.specs.get_mut(group) {
            while generations.len() > 1 {
                generations.pop_first();
            }
        }
    }

    fn deadline(&mut self, soft: Instant, kill: Instant, end: Instant) {
        self.page.publish(Deadline { soft, kill, end });
    }

    fn checkpoint(&mut self, now: Instant) -> Result<(), String> {
        if now.since(self.executor.checkpoint()) > EXECUTOR {
            return Err(format!("the executor has not shown for more than {EXECUTOR:?} that it works"));
        }
        self.page.checkpoint(Role::Agent);
        Ok(())
    }
}
