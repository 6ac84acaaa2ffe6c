//! Programs that commands added to a group (see `commands.rs`), as resources of its machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Machine, Resource, State};
use crate::commands::is_program;
use crate::config::{GroupConfig, ResourceConfig};
use crate::names::ResourceName;
use crate::time::Instant;

/// What is special about a resource that a command added.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Program {
    /// It has run, or nobody waits for it: its failures are failures of the group.
    pub(super) proven: bool,
    /// It is no part of the group any more once it has stopped.
    pub(super) ends: bool,
    /// Why its first start failed.
    pub(super) problem: Option<String>,
}

/// Those of a group that runs since before this process.
pub(super) fn known(config: &GroupConfig) -> BTreeMap<ResourceName, Program> {
    let program = |name: &ResourceName| (name.clone(), Program { proven: true, ..Program::default() });
    config.resources.keys().filter(|name| is_program(name)).map(program).collect()
}

impl Machine {
    /// A program joins the group, unless it has already. `proven`: nobody waits for its first start.
    pub(crate) fn load(&mut self, now: Instant, name: ResourceName, config: ResourceConfig, proven: bool) {
        if self.programs.contains_key(&name) {
            return;
        }
        Arc::make_mut(&mut self.config).resources.insert(name.clone(), config);
        self.resources.insert(name.clone(), Resource::new(State::Stopped, now));
        self.programs.insert(name, Program { proven, ..Program::default() });
    }

    /// A program is to stop, and to leave the group.
    pub(crate) fn unload(&mut self, name: &ResourceName) {
        let Some(program) = self.programs.get_mut(name) else { return };
        program.ends = true;
        match self.resources.get_mut(name) {
            Some(resource) if matches!(resource.state, State::Running | State::NeedsProbe | State::GivenUp) => {
                resource.state = State::NeedsStop;
            }
            Some(resource) if resource.state == State::Stopped => self.part_with(name),
            // It is being started, probed or stopped: then comes its stop, or its end.
            _ => {}
        }
    }

    /// A program that has stopped for good is no part of the group any more.
    pub(super) fn part_with(&mut self, name: &ResourceName) {
        if self.programs.get(name).is_some_and(|program| program.ends)
            && let Some(program) = self.programs.remove(name)
        {
            self.resources.remove(name);
            Arc::make_mut(&mut self.config).resources.remove(name);
            self.ended.push((name.clone(), program.problem));
        }
    }

    /// Programs that have left the group since this was asked last.
    pub(crate) fn take_ended(&mut self) -> Vec<(ResourceName, Option<String>)> {
        std::mem::take(&mut self.ended)
    }

    /// Whether some have.
    pub(crate) fn any_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    pub(crate) fn programs(&self) -> impl Iterator<Item = &ResourceName> {
        self.programs.keys()
    }

    pub(crate) fn has(&self, program: &ResourceName) -> bool {
        self.programs.contains_key(program)
    }

    pub(crate) fn is_ending(&self, program: &ResourceName) -> bool {
        self.programs.get(program).is_some_and(|program| program.ends)
    }

    /// It runs, and is to go on.
    pub(crate) fn runs(&self, program: &ResourceName) -> bool {
        let running = self.resources.get(program).is_some_and(|resource| resource.state == State::Running);
        running && !self.is_ending(program)
    }
}
