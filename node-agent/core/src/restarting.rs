//! Restart: a group is stopped and started where it runs, because an Operation asks for it.
//!
//! The coordinator grants it by the assignment that stops the group and says where it goes next: to where it was. From then
//! on it needs neither the controller nor this coordinator; whoever coordinates starts it. The assignment names the
//! Operation, and what is said later about the group repeats that, so that each Operation restarts it once, whoever
//! coordinates and however often the request is read.
//!
//! With resources it is no stop of the group: its server stops and starts them, with what can't go on without them, as after
//! a failure that is not counted, and the group stays online with the rest.
//!
//! Nothing is stopped that would not start again: only a group that is to stay where it is, whose specification every
//! server holds that may run it, and which is not older than one that was acted on (R16).

use std::collections::BTreeSet;

use holdfast_planner::{Current, Decision, Phase, Rule};
use serde::{Deserialize, Serialize};

use crate::config::GroupConfig;
use crate::core::Core;
use crate::message::Assignment;
use crate::names::{GroupName, ResourceName, ServerName};
use crate::status::GroupPhase;
use crate::view::Epoch;

/// The controller's request, from a running Operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RestartRequest {
    /// Name of the Operation.
    pub by: String,
    /// The server that ran the group then; of one that runs elsewhere nothing is asked.
    pub server: ServerName,
    /// Only these of its resources, with what can't go on without them; empty: the whole group.
    pub resources: BTreeSet<ResourceName>,
    /// Epoch and revision of the placement that was seen; on mismatch the request is dropped (R15).
    pub computed_from: (Epoch, u64),
}

/// A restart of some of the resources of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartRestart {
    /// Name of the Operation.
    pub by: String,
    /// The resources.
    pub resources: BTreeSet<ResourceName>,
}

impl Core {
    /// By which Operation a group that is online on `server`, and is to stay there, is restarted now.
    pub(crate) fn restart_to_grant(&self, name: &GroupName, group: &GroupConfig, server: &str) -> Option<String> {
        let known = self.durable.table.get(name)?;
        let asked = group.restart.as_ref()?;
        let valid = asked.computed_from == (known.tag.epoch, known.tag.revision) && asked.server.0 == server;
        let open = known.restarted.as_ref() != Some(&asked.by);
        let starts_again = known.generation <= group.generation && self.known_everywhere(group, name);
        (valid && open && starts_again && asked.resources.is_empty()).then(|| asked.by.clone())
    }

    /// What is said again about a group that is online, and is to stay there, because some of its resources are to be
    /// restarted. Its server does that once for each Operation; for everybody else nothing changes.
    pub(crate) fn part_restart(
        &self,
        name: &GroupName,
        group: &GroupConfig,
        decision: &Decision,
        current: Option<&Current>,
    ) -> Option<Assignment> {
        let Some(Current::On { server, phase: Phase::Online }) = current else { return None };
        let known = self.durable.table.get(name)?;
        let asked = group.restart.as_ref().filter(|asked| !asked.resources.is_empty())?;
        let valid = asked.computed_from == (known.tag.epoch, known.tag.revision) && asked.server.0 == *server;
        let open = known.part_restarted.as_ref().map(|part| &part.by) != Some(&asked.by);
        let (by, resources) = (asked.by.clone(), asked.resources.clone());
        let part_restarted = Some(PartRestart { by, resources });
        (valid && open && decision.rule == Rule::Stay).then(|| Assignment {
            server: Some(ServerName(server.clone())),
            next: None,
            part_restarted,
            ..known.clone()
        })
    }

    /// Begins what the table asks for here, and notes durably what is done.
    ///
    /// Noted afterwards, not before: a process that ends in between leaves to the next one to do it, or to do it again.
    /// The other way round a restart that never began would be told as done.
    pub(crate) fn drive_part_restarts(&mut self) {
        if !self.takes_on() {
            return;
        }
        let open = self.machines.iter().filter_map(|(name, machine)| {
            let asked = self.durable.table.get(name).filter(|assignment| self.is_for_us(name, assignment));
            let part = asked?.part_restarted.clone()?;
            let news = machine.assignment.part_restarted.as_ref() != Some(&part);
            (news && machine.is_wanted()).then(|| (name.clone(), part))
        });
        let mut noted = false;
        for (name, part) in open.collect::<Vec<_>>() {
            let Some(machine) = self.machines.get_mut(&name) else { continue };
            if machine.restarts(&part) && machine.phase() == GroupPhase::Online {
                if let Some(held) = self.durable.held.get_mut(&name) {
                    held.part_restarted = Some(part.clone());
                }
                machine.part_is_restarted(part);
                noted = true;
            } else if !machine.restarts(&part) {
                machine.restart_part(part);
            }
        }
        if noted {
            self.persist();
            self.beat_soon();
        }
    }
}

/// A stop after which the group starts where it was.
pub(crate) fn in_place(server: &str, blank: Assignment) -> Assignment {
    let server = ServerName(server.to_owned());
    Assignment { previous: Some(server.clone()), next: Some(server), ..blank }
}
