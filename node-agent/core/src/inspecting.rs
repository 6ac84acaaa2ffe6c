//! What runs on this server and was not started by this process: groups that it held before, which go on (R17), and what
//! nobody has started, which is looked for before anybody starts a group anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::core::Core;
use crate::group::{Machine, STOP_AGAIN};
use crate::holding::Looked;
use crate::input::Outcome;
use crate::message::{Assignment, Reason};
use crate::names::{GroupName, ResourceName, ServerName};
use crate::output::{Action, Context, OpId};
use crate::planted::planted;
use crate::time::Instant;
use crate::view::Tag;

/// Probing of a group that this server does not hold: nobody may start it elsewhere while it runs here unexpectedly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Inspection {
    pub(crate) pending: BTreeMap<OpId, ResourceName>,
    pub(crate) found: BTreeMap<ResourceName, String>,
    pub(crate) done: bool,
    again: Option<Instant>,
    /// The request of a pause's end that it is for.
    by: Option<String>,
}

impl Inspection {
    /// Of a group that has just stopped here: nothing of it is left.
    pub(crate) fn of_nothing() -> Inspection {
        Inspection { done: true, ..Inspection::default() }
    }

    pub(crate) fn looked(&self, me: &ServerName) -> Option<Looked> {
        let differences = self.found.iter().map(|(name, what)| format!("{name} on {me}: {what}")).collect();
        Some(Looked { by: self.by.clone()?, differences })
    }
}

impl Core {
    /// New specifications. Groups that are missing are kept as they are (R16).
    pub(crate) fn take_specs(
        &mut self,
        groups: BTreeMap<GroupName, Arc<GroupConfig>>,
        running: BTreeMap<GroupName, Arc<GroupConfig>>,
    ) {
        for (name, config) in &groups {
            if let Some(machine) = self.machines.get_mut(name) {
                machine.refresh(config);
            }
        }
        if planted!(AbsenceIsDeletion) {
            for (_, machine) in self.machines.iter_mut().filter(|(name, _)| !groups.contains_key(*name)) {
                machine.stop("its specification is gone");
            }
            self.groups.retain(|name, _| groups.contains_key(name));
        }
        self.groups.extend(groups);
        // R17: what this boot of the server held before this process started is looked at, under the old deadline.
        let held: Vec<(GroupName, Assignment)> =
            self.durable.held.iter().map(|(n, a)| (n.clone(), a.clone())).collect();
        for (name, assignment) in held {
            if self.machines.contains_key(&name) {
                continue;
            }
            if let Some(config) = running.get(&name).or_else(|| self.groups.get(&name)).cloned() {
                let said = self.stop_under_way(&name, &assignment);
                let mut machine = Machine::new(self.now, assignment, config, 0, true);
                if !self.durable.view.as_ref().is_some_and(|view| view.admits(&self.boot.server, self.boot.boot)) {
                    machine.stop("this server is not in the newest view");
                } else if let Some(said) = said {
                    machine.assignment.tag = said.tag;
                    machine.assignment.reason = said.reason;
                    machine.stop(&format!("stopped by the coordinator ({}), before this process", said.reason.name()));
                }
                self.machines.insert(name, machine.into());
            }
        }
        let unknown: Vec<GroupName> = self
            .groups
            .keys()
            .filter(|name| !self.machines.contains_key(*name) && !self.inspections.contains_key(*name))
            .cloned()
            .collect();
        for name in unknown {
            self.inspect(name, None);
        }
    }

    /// What the coordinator of this view has said about a group that this server holds, if that is not to hold it any more: a
    /// process that ended while it stopped the group knew it, so the coordinator takes it for said and waits. Right because it
    /// only ever stops, and only for who still decides: in another view everything is decided anew.
    fn stop_under_way(&self, name: &GroupName, held: &Assignment) -> Option<Assignment> {
        let (view, said) = (self.durable.view.as_ref()?, self.durable.table.get(name)?);
        let stands = said.tag > held.tag && (said.tag.lineage, said.tag.epoch) == view.order();
        let elsewhere = said.server.as_ref() != Some(&self.boot.server);
        (stands && elsewhere).then(|| said.clone())
    }

    /// Looks at a paused group that is not here, once for each request.
    pub(crate) fn look_for(&mut self, name: &GroupName, by: String) {
        if self.inspections.get(name).is_none_or(|known| known.by.as_ref() != Some(&by)) {
            self.inspect(name.clone(), Some(by));
        }
    }

    /// Looks whether something of a group runs here that nobody started.
    fn inspect(&mut self, name: GroupName, by: Option<String>) {
        let Some(config) = self.groups.get(&name).cloned() else { return };
        let mut inspection = Inspection { by, ..Inspection::default() };
        for (resource, settings) in &config.resources {
            let context = Context { reason: Reason::Start, previous: None, tag: Tag::default() };
            let op = self.resource_op(
                &name,
                resource,
                config.generation,
                (Action::Probe, 0),
                context,
                settings.probe_timeout,
            );
            inspection.pending.insert(op, resource.clone());
        }
        inspection.done = inspection.pending.is_empty();
        self.inspections.insert(name, inspection);
    }

    /// An answer about a group that is looked at; false if it is about something else.
    pub(crate) fn inspected(&mut self, group: &GroupName, op: OpId, outcome: &Outcome) -> bool {
        let Some(inspection) = self.inspections.get_mut(group) else { return false };
        let Some(resource) = inspection.pending.remove(&op) else { return false };
        match outcome {
            Outcome::Running => {
                inspection.found.insert(resource, "it runs here although nobody started it".into());
            }
            Outcome::Unknown(message) => {
                inspection.found.insert(resource, message.clone());
            }
            Outcome::Stopped | Outcome::Failed(_) => {}
        }
        if !inspection.pending.is_empty() {
            return true;
        }
        inspection.done = true;
        if inspection.found.is_empty() {
            return true;
        }
        inspection.again = Some(self.now + STOP_AGAIN);
        let found: Vec<String> = inspection.found.iter().map(|(name, what)| format!("{name}: {what}")).collect();
        let message = format!("not started anywhere while parts of it are on this server: {}", found.join("; "));
        self.note("StopFailed", Some(group.clone()), true, message);
        true
    }

    /// Looks again at what should not run here.
    pub(crate) fn inspect_again(&mut self) {
        let due: Vec<GroupName> = self
            .inspections
            .iter()
            .filter(|(name, inspection)| inspection.again.is_some() && !self.machines.contains_key(*name))
            .filter(|(_, inspection)| inspection.again.is_some_and(|at| at <= self.now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let by = self.inspections.get(&name).and_then(|known| known.by.clone());
            self.inspect(name, by);
        }
        let next: Vec<Instant> = self.inspections.values().filter_map(|inspection| inspection.again).collect();
        for at in next {
            self.wake(at);
        }
    }
}
