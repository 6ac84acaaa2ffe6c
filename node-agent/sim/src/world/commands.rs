//! Commands on a server (C25), and programs that they add to groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_core::Input;
use holdfast_core::clearing::{Clear, ClearRequest};
use holdfast_core::commands::{Command, PATIENCE, is_program, program};
use holdfast_core::config::{GroupConfig, ResourceConfig};
use holdfast_core::holding::{HoldChange, HoldRequest, PAUSED};
use holdfast_core::names::{GroupName, ResourceName};
use holdfast_core::restarting::RestartRequest;

use super::host::Host;
use super::{Event, World};

/// A command on a server, as a value; the numbers are groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered {
    /// `holdfast failover`.
    Failover(usize),
    /// `holdfast down`.
    Down,
    /// `holdfast run`: always the same program.
    Run(usize),
    /// `holdfast run --stop`.
    Stop(usize),
    /// `holdfast clear-failures`.
    ClearFailures(usize),
    /// `holdfast pause`.
    Pause(usize),
    /// `holdfast resume --accept-differences`.
    Resume(usize),
    /// `holdfast resume`; not while anything else happens that could stop something just then.
    ResumeAsLeft(usize),
    /// Not a command: that program ends by itself.
    Ends(usize),
}

fn worker() -> ResourceName {
    program("worker")
}

/// What operators were told of pauses.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    told: BTreeSet<GroupName>,
    /// What ran of each group then, and where.
    left: BTreeMap<GroupName, BTreeSet<(usize, ResourceName)>>,
    /// When somebody asked last for the end of one: what was asked may be granted for a while.
    ended: BTreeMap<GroupName, u64>,
}

impl Pauses {
    fn told(&mut self, group: GroupName, runs: BTreeSet<(usize, ResourceName)>, now: u64) {
        let limit = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX).saturating_mul(3);
        if self.ended.get(&group).is_none_or(|at| now > at + limit) {
            self.left.insert(group.clone(), runs);
            self.told.insert(group);
        }
    }

    fn ends(&mut self, group: &GroupName, now: u64) {
        self.told.remove(group);
        self.ended.insert(group.clone(), now);
    }

    fn stands(&self, group: &GroupName) -> bool {
        self.told.contains(group)
    }
}

impl World {
    /// Somebody gives a command on a server; its number is the key in [`World::answers`].
    pub fn command(&mut self, server: usize, command: Command, why: &str) -> u64 {
        self.commands += 1;
        let token = self.commands;
        self.say(format!("COMMAND {token} on {}: {command:?}", self.hosts[server].name));
        if let Command::Run { config, .. } = &command {
            self.programs.insert(token, (**config).clone());
        }
        if let Command::Hold { group, change: HoldChange::Resume { .. } } = &command {
            self.pauses.ends(group, self.now);
        }
        self.given.insert(token, (command.clone(), why.to_owned()));
        let (life, input) = (self.hosts[server].life, Input::Command { token, command, why: why.to_owned() });
        self.at(self.now, Event::Input { server, life, input });
        token
    }

    /// A program is part of what is known as running once something of its group has been started, and a restarted process
    /// is told of it.
    pub(super) fn keep_program(&mut self, server: usize, token: u64, group: &GroupName, program: &ResourceName) {
        let Some(config) = self.programs.get(&token).cloned() else { return };
        let host = &mut self.hosts[server];
        host.programs.entry(group.clone()).or_default().insert(program.clone(), config);
        if let Some(spec) = host.running_specs.get(group).cloned() {
            self.starts_under(server, group, &spec);
        }
    }

    /// A program is no part of its group any more.
    pub(super) fn forget_program(&mut self, server: usize, group: &GroupName, program: &ResourceName) {
        let host = &mut self.hosts[server];
        if let Some(programs) = host.programs.get_mut(group) {
            programs.remove(program);
        }
        if let Some(spec) = host.running_specs.get_mut(group) {
            Arc::make_mut(spec).resources.remove(program);
        }
    }

    /// A group is started under a specification; what commands added to it before runs on.
    pub(super) fn starts_under(&mut self, server: usize, group: &GroupName, spec: &Arc<GroupConfig>) {
        let host = &mut self.hosts[server];
        let mut spec = spec.clone();
        let before = host.running_specs.get(group).into_iter().flat_map(|before| &before.resources);
        let before = before.filter(|(name, _)| is_program(name));
        let declared: BTreeSet<ResourceName> =
            spec.resources.keys().filter(|name| !is_program(name)).cloned().collect();
        let config = |config: &ResourceConfig| {
            let after = declared.clone();
            ResourceConfig { requires: after.clone(), after, ..config.clone() }
        };
        let known = host.programs.get(group).into_iter().flatten();
        let programs: Vec<(ResourceName, ResourceConfig)> = before
            .map(|(name, program)| (name.clone(), program.clone()))
            .chain(known.map(|(name, program)| (name.clone(), config(program))))
            .collect();
        if !programs.is_empty() {
            Arc::make_mut(&mut spec).resources.extend(programs);
        }
        host.running_specs.insert(group.clone(), spec);
    }

    /// Somebody gives a command, or the program that one started ends by itself.
    pub(super) fn ordered(&mut self, server: usize, order: Ordered) {
        let group = |index: usize| self.groups.keys().nth(index % self.groups.len().max(1)).cloned();
        let why = &format!("command {}", self.commands + 1);
        match order {
            Ordered::Down => drop(self.command(server, Command::Down, why)),
            Ordered::Failover(index) => {
                let Some(group) = group(index) else { return };
                self.command(server, Command::Failover { group }, why);
            }
            Ordered::ClearFailures(index) => {
                let Some(group) = group(index) else { return };
                self.command(server, Command::ClearFailures { group, resources: BTreeSet::new() }, why);
            }
            Ordered::Pause(index) | Ordered::Resume(index) | Ordered::ResumeAsLeft(index) => {
                let Some(group) = group(index) else { return };
                let pause = matches!(order, Ordered::Pause(_));
                let resume = HoldChange::Resume { accept: matches!(order, Ordered::Resume(_)) };
                let change = if pause { HoldChange::Pause { until: None } } else { resume };
                self.command(server, Command::Hold { group, change }, why);
            }
            Ordered::Run(index) => {
                let Some(group) = group(index) else { return };
                let Some(app) = self.groups.get(&group).and_then(|config| config.resources.values().next()) else {
                    return;
                };
                let config = Box::new(app.clone());
                self.command(server, Command::Run { group, program: worker(), config }, why);
            }
            Ordered::Stop(index) => {
                let Some(group) = group(index) else { return };
                self.command(server, Command::Stop { group, program: worker() }, why);
            }
            Ordered::Ends(index) => {
                let Some(group) = group(index) else { return };
                self.kill_program(server, &group.0, &worker());
            }
        }
    }

    /// As an Operation does: failures are to be forgotten of the placement that is durable somewhere now.
    pub fn clear_failures(&mut self, group: &GroupName, resources: &[&str], server: Option<usize>) {
        let tags = self.hosts.iter().filter_map(|host| host.ledger.table.get(group)).map(|assignment| assignment.tag);
        let (Some(tag), Some(config)) = (tags.max(), self.groups.get(group)) else { return };
        self.commands += 1;
        let clear = Clear {
            by: format!("clear-{}", self.commands),
            resources: resources.iter().map(|name| ResourceName::from(*name)).collect(),
            server: server.map(|server| self.hosts[server].name.clone()),
        };
        let mut config = (**config).clone();
        config.clear = Some(ClearRequest { clear, computed_from: (tag.epoch, tag.revision) });
        self.groups.insert(group.clone(), Arc::new(config));
        self.publish();
    }

    /// As an Operation does: a group that is online on `server` is to be restarted there, or some of its resources, by the placement that is durable
    /// somewhere now. Returns the name of the Operation.
    pub fn restart(&mut self, group: &GroupName, server: usize, resources: &[&str]) -> String {
        self.commands += 1;
        let by = format!("restart-{}", self.commands);
        let tags = self.hosts.iter().filter_map(|host| host.ledger.table.get(group)).map(|assignment| assignment.tag);
        if let (Some(tag), Some(config)) = (tags.max(), self.groups.get(group)) {
            let (server, computed_from) = (self.hosts[server].name.clone(), (tag.epoch, tag.revision));
            let mut config = (**config).clone();
            let resources = resources.iter().map(|name| ResourceName::from(*name)).collect();
            config.restart = Some(RestartRequest { by: by.clone(), server, resources, computed_from });
            self.groups.insert(group.clone(), Arc::new(config));
            self.publish();
        }
        by
    }

    /// As an Operation does: the holds of a group are to change, by the placement that is durable somewhere now. Returns
    /// the name of the Operation.
    pub fn hold(&mut self, group: &GroupName, change: HoldChange) -> String {
        self.commands += 1;
        let by = format!("hold-{}", self.commands);
        if matches!(change, HoldChange::Resume { .. }) {
            self.pauses.ends(group, self.now);
        }
        let tags = self.hosts.iter().filter_map(|host| host.ledger.table.get(group)).map(|assignment| assignment.tag);
        if let (Some(tag), Some(config)) = (tags.max(), self.groups.get(group)) {
            let mut config = (**config).clone();
            config.hold = Some(HoldRequest { by: by.clone(), change, computed_from: (tag.epoch, tag.revision) });
            self.groups.insert(group.clone(), Arc::new(config));
            self.publish();
        }
        by
    }

    /// An operator resumes what is paused.
    pub fn resume_all(&mut self) {
        let coordinators = (0..self.hosts.len()).filter_map(|server| Some((server, self.status(server)?.coordinator?)));
        let paused: Vec<(usize, GroupName)> = coordinators
            .flat_map(|(server, told)| {
                let held = told.groups.into_iter().filter(|(_, group)| group.holds.contains(PAUSED));
                held.map(move |(name, _)| (server, name))
            })
            .collect();
        for (server, group) in paused {
            let change = HoldChange::Resume { accept: true };
            self.command(server, Command::Hold { group, change }, "all is well again");
        }
    }

    fn runs_of(&self, group: &GroupName) -> BTreeSet<(usize, ResourceName)> {
        let hosts = self.hosts.iter().enumerate();
        let all = hosts.flat_map(|(server, host)| host.running.iter().map(move |key| (server, key)));
        all.filter(|(_, (name, _))| name == group).map(|(server, (_, resource))| (server, resource.clone())).collect()
    }

    /// Whoever was told that a group is paused can count on it: nobody starts anything of it.
    pub(super) fn check_pause(&mut self, server: usize, group: &GroupName) {
        if self.pauses.stands(group) {
            let text = format!("{} starts something of {group}, which is paused", self.hosts[server].name);
            self.violation("paused", text);
        }
    }

    /// C25: what a command answers is so.
    pub(super) fn check_answer(&mut self, server: usize, token: u64, answer: &Result<String, String>) {
        let (Some((command, _)), Ok(said)) = (self.given.get(&token), answer) else { return };
        let running = &self.hosts[server].running;
        let said = said.clone();
        let wrong = match command {
            Command::Failover { group } => running.iter().any(|(name, _)| name == group),
            Command::Stop { group, program } => running.contains(&(group.clone(), program.clone())),
            Command::Hold { group, change: HoldChange::Pause { .. } } => {
                let (group, runs) = (group.clone(), self.runs_of(group));
                return self.pauses.told(group, runs, self.now);
            }
            Command::Hold { group, change: HoldChange::Resume { accept: false } } => {
                self.pauses.left.get(group).is_some_and(|left| *left != self.runs_of(group))
            }
            Command::Hold { .. } | Command::Down | Command::ClearFailures { .. } | Command::Run { .. } => false,
        };
        if wrong {
            let text = format!("{} answers {said:?} while it runs {running:?}", self.hosts[server].name);
            self.violation("C25", text);
        }
    }

    /// C25: a group does not move for a command that its coordinator has refused. One that the server took back by itself,
    /// because nobody answered, may have been granted just then.
    pub(crate) fn check_refusals(&mut self) {
        let taken_back = format!("{} s", PATIENCE.as_secs());
        let refused = |(token, (_, why)): (&u64, &(Command, String))| {
            let refusal = self.answers.get(token)?.as_ref().err()?;
            (refusal.contains("stays on") && !refusal.contains(&taken_back)).then(|| why.clone())
        };
        let refused: BTreeSet<String> = self.given.iter().filter_map(refused).collect();
        let coordinators = (0..self.hosts.len()).filter_map(|server| self.status(server)?.coordinator);
        let transitions =
            coordinators.flat_map(|coordinator| coordinator.groups.into_values()).flat_map(|group| group.transitions);
        let moved = transitions.map(|transition| transition.message).find(|why| refused.contains(why));
        if let Some(why) = moved {
            self.violation("C25", format!("a group was moved for {why}, which was refused"));
        }
    }

    /// C25: nothing is taken from under a program that was run in a group.
    pub(super) fn check_stop(&mut self, server: usize, (group, resource): &(GroupName, ResourceName)) {
        let beneath = !is_program(resource)
            && self.hosts[server].running.iter().any(|(name, other)| name == group && is_program(other));
        if beneath {
            let text = format!("{} stops {resource} of {group} under a program", self.hosts[server].name);
            self.violation("C25", text);
        }
    }

    /// What a group lacked on a server is there.
    pub fn mend(&mut self, server: usize, group: &str) {
        let input = Input::Mended { group: GroupName::from(group) };
        let life = self.hosts[server].life;
        self.at(self.now, Event::Input { server, life, input });
    }

    /// The last resource of a group that runs ends by itself.
    pub fn kill_resource(&mut self, index: usize) {
        let Some(group) = self.groups.keys().nth(index % self.groups.len().max(1)).cloned() else { return };
        let runs =
            |host: &Host| host.running.iter().rfind(|(name, _)| *name == group).map(|(_, resource)| resource.clone());
        let place = self.hosts.iter().enumerate().find_map(|(server, host)| Some((server, runs(host)?)));
        if let Some((server, resource)) = place {
            self.kill_program(server, &group.0, &resource);
        }
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
