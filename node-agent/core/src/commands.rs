//! C25: what scripts and people order on a server itself, over its local socket. It needs no API, only the agents.
//!
//! | command | what follows |
//! |---|---|
//! | failover | the group leaves this server for a better one; without a better one it stays, and the command is refused |
//! | down | the groups leave, then the server leaves the view and shuts down, as by a monitor with ServerDown |
//! | clear-failures | what was counted against the group is forgotten (`clearing.rs`) |
//! | pause, resume, stop, start | a hold of the group is placed or released (`holding.rs`) |
//! | run | a program joins the group on this server: it is watched, and stopped before everything else of the group |
//!
//! A wish is told to the coordinator with the next report, and it alone decides, because only it knows of all servers
//! whether they are better. So a command stops nothing that would not run elsewhere, and is bound by the same limits as a
//! monitor. If it does not grant a wish, it answers with the reason (`declined.rs`). A wish that it has not answered in
//! [`PATIENCE`] is taken back: a command that was answered with a refusal does nothing later. After the group has left, this server counts as the worse one for `failureDecay`, so that
//! nothing brings the group back by itself; it is good enough if no other server is left, or for another command.
//!
//! A program is a resource of the running group, and of nothing else: it requires all declared resources, so that it is
//! stopped before any of them, and the group is not gone from here before that is verified. It is not declared, so the
//! next server does not start it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::ResourceConfig;
use crate::core::Core;
use crate::fitness::{Avoided, limits, may_shut_down};
use crate::group::Machine;
use crate::holding::{HoldChange, paused_text};
use crate::names::{GroupName, ResourceName, ServerName};
use crate::output::Output;
use crate::planted::planted;
use crate::status::{Asked, GroupPhase, Leave};
use crate::time::Instant;
use crate::view::{Epoch, View};

/// How long the coordinator has to grant a wish: longer than a change of coordinators takes with usual settings.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Programs that a group can have on a server.
pub const MOST_PROGRAMS: usize = 16;
/// What the names of programs begin with: neither a declared resource nor a method of a data service has a colon in its
/// name.
const PROGRAM: &str = "run:";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// `holdfast failover`.
    Failover {
        /// The group.
        group: GroupName,
    },
    /// `holdfast down`.
    Down,
    /// `holdfast clear-failures`.
    ClearFailures {
        /// The group.
        group: GroupName,
        /// Only what was counted against these of its resources; empty: against all.
        resources: BTreeSet<ResourceName>,
    },
    /// `holdfast pause`, `resume`, `stop` and `start`.
    Hold {
        /// The group.
        group: GroupName,
        /// What is to change.
        change: HoldChange,
    },
    /// `holdfast run`.
    Run {
        /// The group.
        group: GroupName,
        /// The program, see [`program`].
        program: ResourceName,
        /// How it is started, watched and stopped; dependencies are filled in.
        config: Box<ResourceConfig>,
    },
    /// `holdfast run --stop`.
    Stop {
        /// The group.
        group: GroupName,
        /// The program.
        program: ResourceName,
    },
}

/// Name of the resource that is this program.
pub fn program(name: &str) -> ResourceName {
    ResourceName(format!("{PROGRAM}{name}"))
}

/// Whether a resource is a program that a command started.
pub fn is_program(name: &ResourceName) -> bool {
    name.0.starts_with(PROGRAM)
}

/// The name that the command gave.
fn short(program: &ResourceName) -> &str {
    program.0.strip_prefix(PROGRAM).unwrap_or(&program.0)
}

/// Something that this server wants of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wish {
    asked: Asked,
    /// Until then it stands.
    until: Instant,
    /// The group is leaving, or has left.
    granted: bool,
    /// Who waits for the answer.
    waiting: Vec<u64>,
}

/// A program that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Awaited {
    started: Vec<u64>,
    stopped: Vec<u64>,
}

/// The commands of this server that are under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Commands {
    leave: BTreeMap<GroupName, Wish>,
    down: Option<Wish>,
    programs: BTreeMap<(GroupName, ResourceName), Awaited>,
    /// Of the newest wish.
    number: u64,
}

impl Core {
    /// Takes a command. Its answer may come at once.
    pub(crate) fn on_command(&mut self, token: u64, command: Command, why: String) {
        let taken = match command {
            Command::Failover { group } => self.wish_to_leave(token, &group, why),
            Command::Down => self.wish_to_go_down(token, why),
            Command::ClearFailures { group, resources } => self.clear(token, &group, resources),
            Command::Hold { group, change } => self.hold(token, &group, change),
            Command::Run { group, program, config } => self.run(token, &group, program, *config),
            Command::Stop { group, program } => self.stop_program(token, &group, program),
        };
        if let Err(refusal) = taken {
            self.answer(token, Err(refusal));
        }
    }

    fn answer(&mut self, token: u64, answer: Result<String, String>) {
        self.emit_now(Output::Answer { token, answer });
    }

    pub(crate) fn answer_all(&mut self, tokens: Vec<u64>, answer: &Result<String, String>) {
        for token in tokens {
            self.answer(token, answer.clone());
        }
    }

    fn wish_to_leave(&mut self, token: u64, group: &GroupName, why: String) -> Result<(), String> {
        let granted = !self.here(group)?.is_wanted();
        self.unless_paused(group)?;
        if !granted {
            self.somewhere_else(group)?;
        }
        let new = self.wish(why, granted);
        self.commands.leave.entry(group.clone()).or_insert(new).waiting.push(token);
        Ok(())
    }

    fn wish(&mut self, why: String, granted: bool) -> Wish {
        let asked = Asked { why, number: self.number_of_wish() };
        Wish { asked, until: self.now + PATIENCE, granted, waiting: Vec::new() }
    }

    /// The clock goes on over restarts of the process.
    fn number_of_wish(&mut self) -> u64 {
        self.commands.number = self.now.0.max(self.commands.number + 1);
        self.commands.number
    }

    fn clear(&mut self, token: u64, group: &GroupName, resources: BTreeSet<ResourceName>) -> Result<(), String> {
        self.known(group)?;
        let number = self.number_of_wish();
        self.wish_to_clear(token, group, resources, number)
    }

    fn hold(&mut self, token: u64, group: &GroupName, change: HoldChange) -> Result<(), String> {
        self.known(group)?;
        let number = self.number_of_wish();
        self.wish_to_hold(token, group, change, number)
    }

    fn wish_to_go_down(&mut self, token: u64, why: String) -> Result<(), String> {
        let me = self.boot.server.clone();
        if self.down.is_none() {
            let view = self.durable.view.clone().filter(|_| self.acting());
            let (Some(view), Some(config)) = (view, self.config.clone()) else {
                return Err(format!("{me} is no member of the sub-cluster now, so it has nothing to hand over"));
            };
            let staying: BTreeSet<ServerName> = self.staying(&view, &config).cloned().collect();
            let going = view.members.len().saturating_sub(staying.len());
            may_shut_down(&me, &staying, going, config.servers.len(), &Avoided::new())
                .map_err(|refusal| format!("{me} does not go down: {refusal}"))?;
        }
        let new = self.wish(why, self.down.is_some());
        self.commands.down.get_or_insert(new).waiting.push(token);
        Ok(())
    }

    fn run(
        &mut self,
        token: u64,
        group: &GroupName,
        program: ResourceName,
        mut config: ResourceConfig,
    ) -> Result<(), String> {
        let me = self.boot.server.clone();
        self.unless_paused(group)?;
        let machine = self.here(group)?;
        if !machine.is_wanted() || machine.failure().is_some() {
            return Err(format!("group {group} is being stopped on {me}; nothing is started in it"));
        }
        if machine.is_ending(&program) {
            return Err(format!("{} is being stopped; run the command again when it has ended", short(&program)));
        }
        if !machine.has(&program) {
            let count = machine.programs().count();
            if count >= MOST_PROGRAMS {
                return Err(format!(
                    "group {group} has {count} programs on {me} already, and {MOST_PROGRAMS} is the most"
                ));
            }
            config.after = machine.config.resources.keys().filter(|name| !is_program(name)).cloned().collect();
            if planted!(ProgramAlone) {
                config.after.clear();
            }
            config.requires.clone_from(&config.after);
        }
        let online = machine.phase() == GroupPhase::Online;
        let now = self.now;
        self.emit_now(Output::Program { token, group: group.clone(), program: program.clone() });
        if let Some(machine) = self.machines.get_mut(group) {
            machine.load(now, program.clone(), config, !online);
        }
        if online {
            self.commands.programs.entry((group.clone(), program)).or_default().started.push(token);
        } else {
            // Who asks may be what the group waits for: its own start script.
            let name = short(&program);
            self.answer(token, Ok(format!("{name} is started as soon as the other parts of group {group} run")));
        }
        Ok(())
    }

    fn stop_program(&mut self, token: u64, group: &GroupName, program: ResourceName) -> Result<(), String> {
        self.known(group)?;
        self.unless_paused(group)?;
        if let Some(machine) = self.machines.get_mut(group) {
            machine.unload(&program);
        }
        self.commands.programs.entry((group.clone(), program)).or_default().stopped.push(token);
        Ok(())
    }

    fn known(&self, group: &GroupName) -> Result<(), String> {
        let known = self.known_groups();
        if known.contains(group) {
            return Ok(());
        }
        let names: Vec<&str> = known.iter().map(|name| name.0.as_str()).collect();
        Err(match names.as_slice() {
            [] => format!("there is no group {group}: {} knows of none", self.boot.server),
            names => format!("there is no group {group}; {} knows {}", self.boot.server, names.join(", ")),
        })
    }

    /// Nobody acts on what is paused, whoever asks.
    fn unless_paused(&self, group: &GroupName) -> Result<(), String> {
        if self.pause_of(group).0 { Err(paused_text(group)) } else { Ok(()) }
    }

    /// The group, if this server holds it.
    fn here(&self, group: &GroupName) -> Result<&Machine, String> {
        self.known(group)?;
        if let Some(machine) = self.machines.get(group) {
            return Ok(machine);
        }
        let me = &self.boot.server;
        let told = self.durable.table.get(group);
        let place = match told.map(|told| (&told.server, &told.next)) {
            Some((Some(server), _)) if server != me => format!("it is on {server}; give the command there"),
            Some((None, Some(next))) => format!("it is on its way to {next}"),
            _ => "it does not run".to_owned(),
        };
        Err(format!("group {group} is not on {me}: {place}"))
    }

    /// Whether any other server may take a group, as far as this one can tell. The coordinator knows more.
    fn somewhere_else(&self, group: &GroupName) -> Result<(), String> {
        let me = &self.boot.server;
        let view = self.durable.view.as_ref().filter(|_| self.acting());
        let (Some(view), Some(spec)) = (view, self.groups.get(group)) else {
            return Err(format!("{me} is no member of the sub-cluster now, and can hand nothing over"));
        };
        let mut reasons = Vec::new();
        for server in spec.policy.iter().filter(|server| *server != me) {
            let Some(problem) = self.absent(view, server) else { return Ok(()) };
            reasons.push(format!("{server} {problem}"));
        }
        let reasons = if reasons.is_empty() { "its placement names no other".to_owned() } else { reasons.join(", ") };
        Err(format!("no other server can take group {group}: {reasons}; it stays on {me}"))
    }

    /// What of this server's wishes the coordinator is told.
    pub(crate) fn wishes(&self) -> (BTreeMap<GroupName, Leave>, Option<Asked>) {
        let leave = |wish: &Wish| Leave { asked: wish.asked.clone(), left: wish.granted };
        let leave = self.commands.leave.iter().map(|(group, wish)| (group.clone(), leave(wish))).collect();
        (leave, self.commands.down.as_ref().map(|wish| wish.asked.clone()))
    }

    /// The coordinator does not grant a wish. One that is being carried out all the same, for another reason, stands.
    pub(crate) fn on_declined(&mut self, order: (u32, Epoch), group: Option<GroupName>, number: u64, why: &str) {
        if self.durable.view.as_ref().is_none_or(|view| view.order() != order) {
            return;
        }
        let me = self.boot.server.clone();
        let ours = |wish: &Wish| wish.asked.number == number && !wish.granted;
        let (wish, refusal) = match &group {
            Some(name) => {
                let runs = self.machines.get(name).is_some_and(|machine| machine.is_wanted());
                let stands = runs && self.commands.leave.get(name).is_some_and(ours);
                let wish = if stands { self.commands.leave.remove(name) } else { None };
                (wish, format!("group {name} stays on {me}: {why}"))
            }
            None if self.leaving => return,
            None => (self.commands.down.take_if(|wish| ours(wish)), format!("{me} does not go down: {why}")),
        };
        if let Some(wish) = wish {
            self.answer_all(wish.waiting, &Err(refusal));
            self.beat_soon();
        }
    }

    /// Looks how far the commands are.
    pub(crate) fn drive_commands(&mut self) {
        self.drive_wishes();
        self.drive_down();
        self.drive_clears();
        self.drive_holds();
        self.drive_programs();
    }

    fn drive_wishes(&mut self) {
        let groups: Vec<GroupName> = self.commands.leave.keys().cloned().collect();
        for group in groups {
            let Some(mut wish) = self.commands.leave.remove(&group) else { continue };
            if self.drive_wish(&group, &mut wish) {
                if wish.until > self.now {
                    self.wake(wish.until);
                }
                self.commands.leave.insert(group, wish);
            }
        }
    }

    /// Whether the wish still stands.
    fn drive_wish(&mut self, group: &GroupName, wish: &mut Wish) -> bool {
        let (now, me) = (self.now, self.boot.server.clone());
        let machine = self.machines.get(group);
        if machine.is_some_and(|machine| machine.is_wanted()) {
            if !wish.granted && now < wish.until {
                return true;
            }
            let refusal = if wish.granted {
                // Nothing better was left: then this server was good enough.
                format!("group {group} came back to {me}: no other server runs it")
            } else {
                format!("group {group} stays on {me}: {}", self.no_answer())
            };
            self.answer_all(std::mem::take(&mut wish.waiting), &Err(refusal));
            self.beat_soon();
            return false;
        }
        if !wish.granted {
            wish.granted = true;
            let limits = self.groups.get(group).and_then(|spec| limits(spec));
            wish.until = now + limits.map(|limits| limits.decay).unwrap_or_default();
        }
        let gone = machine.is_none();
        let answer = if gone || planted!(AnsweredBeforeGone) {
            let told = self.durable.table.get(group);
            let to = told.and_then(|told| told.server.clone().or_else(|| told.next.clone())).filter(|to| *to != me);
            let to = to.map(|to| format!(", and goes to {to}")).unwrap_or_default();
            Some(Ok(format!("group {group} has left {me}{to}")))
        } else if machine.is_some_and(|machine| machine.stop_failed()) {
            Some(Err(format!("group {group} is to leave {me}, but its stop is not proven: its status says why")))
        } else {
            None
        };
        if let Some(answer) = answer {
            self.answer_all(std::mem::take(&mut wish.waiting), &answer);
        }
        !gone || now < wish.until
    }

    /// Why nothing has followed in [`PATIENCE`], for people.
    pub(crate) fn no_answer(&self) -> String {
        let coordinator = self.durable.view.as_ref().and_then(View::coordinator);
        let heard = |name: &ServerName| *name == self.boot.server || self.connected(name);
        let seconds = PATIENCE.as_secs();
        match coordinator {
            None => format!("there was no coordinator for {seconds} s"),
            Some(name) if !heard(name) => {
                format!("the coordinator {name} is not heard, and did not agree in {seconds} s")
            }
            Some(name) => format!(
                "the coordinator {name} has neither agreed nor refused in {seconds} s; `holdfast status` there says what it waits for"
            ),
        }
    }

    fn drive_down(&mut self) {
        let (now, me) = (self.now, self.boot.server.clone());
        let told = self.down.is_some() && self.leaving;
        let Some(wish) = &mut self.commands.down else { return };
        let answer = match (told, wish.granted) {
            (true, _) => {
                wish.granted = true;
                Ok(format!("{me} hands its groups over, leaves and shuts down"))
            }
            // It was the last one when its turn had come.
            (false, true) => Err(format!("{me} does not go down: no other server is left")),
            (false, false) if now < wish.until => {
                let until = wish.until;
                return self.wake(until);
            }
            (false, false) => Err(format!("{me} does not go down: {}", self.no_answer())),
        };
        let Some(wish) = &mut self.commands.down else { return };
        let waiting = std::mem::take(&mut wish.waiting);
        if answer.is_err() {
            self.commands.down = None;
            self.beat_soon();
        }
        self.answer_all(waiting, &answer);
    }

    /// What happened to programs, as far as somebody waits for it.
    fn drive_programs(&mut self) {
        let mut problems = BTreeMap::new();
        for (group, machine) in self.machines.iter_mut().filter(|(_, machine)| machine.any_ended()) {
            for (program, problem) in machine.take_ended() {
                problems.insert((group.clone(), program), problem);
            }
        }
        for (group, program) in problems.keys() {
            let (group, program) = (group.clone(), program.clone());
            self.emit_now(Output::ProgramEnded { group, program });
        }
        let keys: Vec<(GroupName, ResourceName)> = self.commands.programs.keys().cloned().collect();
        for key in keys {
            let (group, program) = &key;
            let name = short(program);
            let machine = self.machines.get(group);
            let there = machine.is_some_and(|machine| machine.has(program));
            let leaving = machine.is_none_or(|machine| !machine.is_wanted());
            let runs = machine.is_some_and(|machine| machine.runs(program));
            let me = &self.boot.server;
            let started = match problems.get(&key) {
                Some(Some(problem)) => Some(Err(format!("{name} does not start: {problem}"))),
                _ if runs => Some(Ok(format!("{name} runs in group {group} on {me}, and is watched"))),
                _ if leaving => Some(Err(format!("group {group} was stopped on {me} meanwhile, and {name} with it"))),
                _ if !there => Some(Err(format!("{name} was stopped meanwhile"))),
                _ => None,
            };
            let stopped = (!there).then(|| Ok(format!("{name} does not run in group {group} on {me}")));
            let Entry::Occupied(mut entry) = self.commands.programs.entry(key) else { continue };
            let awaited = entry.get_mut();
            let mut answers = Vec::new();
            if let Some(answer) = started {
                answers.push((std::mem::take(&mut awaited.started), answer));
            }
            if let Some(answer) = stopped {
                answers.push((std::mem::take(&mut awaited.stopped), answer));
            }
            if awaited.started.is_empty() && awaited.stopped.is_empty() {
                entry.remove();
            }
            for (tokens, answer) in answers {
                self.answer_all(tokens, &answer);
            }
        }
    }
}
