//! Commands on a server (C25), and programs that they add to groups.

use std::sync::Arc;

use holdfast_core::Input;
use holdfast_core::commands::{Command, is_program};
use holdfast_core::config::{GroupConfig, ResourceConfig};
use holdfast_core::names::{GroupName, ResourceName};

use super::{Event, World};

impl World {
    /// Somebody gives a command on a server; its number is the key in [`World::answers`].
    pub fn command(&mut self, server: usize, command: Command, why: &str) -> u64 {
        self.commands += 1;
        let token = self.commands;
        self.say(format!("COMMAND {token} on {}: {command:?}", self.hosts[server].name));
        if let Command::Run { config, .. } = &command {
            self.programs.insert(token, (**config).clone());
        }
        let (life, input) = (self.hosts[server].life, Input::Command { token, command, why: why.to_owned() });
        self.at(self.now, Event::Input { server, life, input });
        token
    }

    /// A program is part of what is known as running, which a restarted process is told.
    pub(super) fn keep_program(&mut self, server: usize, token: u64, group: &GroupName, program: &ResourceName) {
        let Some(config) = self.programs.get(&token).cloned() else { return };
        let Some(spec) = self.hosts[server].running_specs.get_mut(group) else { return };
        let after: std::collections::BTreeSet<ResourceName> =
            spec.resources.keys().filter(|name| !is_program(name)).cloned().collect();
        let config = ResourceConfig { requires: after.clone(), after, ..config };
        Arc::make_mut(spec).resources.insert(program.clone(), config);
    }

    /// A group is started under a specification; what commands added to it before runs on.
    pub(super) fn starts_under(&mut self, server: usize, group: &GroupName, spec: &Arc<GroupConfig>) {
        let mut spec = spec.clone();
        let before = self.hosts[server].running_specs.get(group);
        for (name, program) in before.iter().flat_map(|before| &before.resources) {
            if is_program(name) {
                Arc::make_mut(&mut spec).resources.insert(name.clone(), program.clone());
            }
        }
        self.hosts[server].running_specs.insert(group.clone(), spec);
    }

    /// What a group lacked on a server is there.
    pub fn mend(&mut self, server: usize, group: &str) {
        let input = Input::Mended { group: GroupName::from(group) };
        let life = self.hosts[server].life;
        self.at(self.now, Event::Input { server, life, input });
    }

    /// A program of a group ends by itself.
    pub fn kill_program(&mut self, server: usize, group: &str, resource: &ResourceName) {
        let key = (GroupName::from(group), resource.clone());
        if self.hosts[server].running.remove(&key) {
            let life = self.hosts[server].life;
            let input = Input::ResourceFailed { group: key.0, resource: key.1, message: "signal 9".into() };
            self.at(self.now, Event::Input { server, life, input });
        }
    }
}
