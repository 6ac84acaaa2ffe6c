//! The one thread that owns the core: takes what happens, hands it to the core, carries out what the core asks for.
//!
//! It never waits for a disk, a network or a process: each of those has a thread of its own, and answers by an event.
//! Inputs are drained before timers (R24). It decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use holdfast_api::v1 as api;
use holdfast_core::commands::{Command, program};
use holdfast_core::message::Envelope;
use holdfast_core::names::{GroupName, MonitorName, PathName, ResourceName, ServerName};
use holdfast_core::orders::Power;
use holdfast_core::settings::{LockPlace, PathSetting};
use holdfast_core::status::Status;
use holdfast_core::time::Instant;
use holdfast_core::{Action, Boot, Context, Core, Input, Note, OpId, Output};
use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::commands::Request;
use crate::convert::config::{open_windows, program_config};
use crate::inbox::{Adoption, Event};
use crate::ledger::{Ledger, LedgerError};
use crate::notes::{self, Notes};
use crate::paths::keys::KeyState;
use crate::paths::{Paths, Refused, Wiring, disk::Health, quorum};

/// Least time between two published snapshots.
const PUBLISH_SOON: Duration = Duration::from_millis(50);
/// Time between two snapshots when nothing happens: latencies and gaps move all the same.
const PUBLISH_IDLE: Duration = Duration::from_millis(500);
/// When an answer that was known at once is given.
const AGAIN: Duration = Duration::from_millis(1);
/// Events taken in one go before timers have their turn: a flood must not starve them for good.
const DRAIN: usize = 8192;

/// What a resource operation is, as the core asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// To be answered.
    pub op: OpId,
    /// Group.
    pub group: GroupName,
    /// Resource.
    pub resource: ResourceName,
    /// Generation of the specification.
    pub generation: u64,
    /// What to do.
    pub action: Action,
    /// Of a monitor: how deep it looks.
    pub depth: u8,
    /// What scripts are told.
    pub context: Context,
    /// After this everything that was started for it is killed.
    pub timeout: Duration,
}

/// A check of a monitor.
#[derive(Debug)]
pub struct Check {
    /// To be answered.
    pub op: OpId,
    /// Group; none: a monitor of servers.
    pub group: Option<GroupName>,
    /// Monitor.
    pub monitor: MonitorName,
    /// Generation of the group's specification.
    pub generation: u64,
    /// After this the check has failed.
    pub timeout: Duration,
    /// What happened before does not count; none: counting began before this process.
    pub since: Option<Instant>,
}

/// What the loop needs of this machine beside ledger and paths. None of it may block.
pub trait Effects: Send {
    /// New specifications are in force.
    fn adopt(&mut self, adoption: &Adoption);
    /// Starts an operation; its answer comes as an event.
    fn operate(&mut self, operation: Operation);
    /// Starts a check of a monitor; its answer comes as an event.
    fn check(&mut self, check: Check);
    /// Switches a server off; answers by events.
    fn fence(&mut self, op: OpId, server: &ServerName, power: Option<Power>);
    /// Ends such a call; it still answers.
    fn cancel_fence(&mut self, op: OpId);
    /// How the fence devices were seen last.
    fn fence_devices(&self) -> crate::fencing::View;
    /// This machine is to shut down; nothing is held any more.
    fn power_off(&mut self, reason: &str);
    /// The specification of a program that a command added to a group.
    fn program(&self, group: &GroupName, program: &ResourceName) -> Option<&api::Resource>;
    /// A command adds a program to a group; operations about it follow.
    fn keep_program(&mut self, group: &GroupName, program: &ResourceName, spec: api::Resource);
    /// A program is verified stopped, and will not be started again.
    fn forget_program(&mut self, group: &GroupName, program: &ResourceName);
    /// The group is verified stopped here.
    fn released(&mut self, group: &GroupName);
    /// Groups whose start was refused because they lacked something, and that lack nothing any more; each is told once.
    fn mended(&mut self) -> Vec<GroupName>;
    /// Authority ends then (R9).
    fn deadline(&mut self, soft: Instant, kill: Instant, end: Instant);
    /// The loop works; the executor is asked, too. Says what is stuck, if something is (protocol-why D24).
    fn checkpoint(&mut self, now: Instant) -> Result<(), String>;
}

/// Everything that a report needs, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When it was taken.
    pub at: Instant,
    /// The core's word.
    pub status: Status,
    /// Shared disks.
    pub disks: Vec<(String, Health)>,
    /// The quorum server, if there is one.
    pub quorum_server: Option<quorum::Health>,
    /// LAN and serial paths that can't be used here, with the reason.
    pub path_errors: BTreeMap<PathName, String>,
    /// What was refused lately, by path and sender.
    pub refused: BTreeMap<PathName, Refused>,
    /// Which heartbeat keys there are.
    pub keys: KeyState,
    /// The specifications in force.
    pub adoption: Option<Arc<Adoption>>,
    /// What is stuck, if something is: heartbeats have stopped.
    pub stuck: Option<String>,
    /// How the fence devices were seen last.
    pub fencing: crate::fencing::View,
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A clean leave is complete.
    #[error("left cleanly")]
    Left,
    /// A promise can't be kept durable.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Something else that the agent can't go on after.
    #[error("{0}")]
    Fatal(String),
}

/// The loop's state.
pub struct Driver<E: Effects> {
    core: Core,
    me: ServerName,
    boot: Boot,
    events: Receiver<Event>,
    /// Answers that were known at once.
    answers: VecDeque<Input>,
    ledger: Ledger,
    paths: Paths,
    effects: E,
    notes: Notes,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    adoption: Option<Arc<Adoption>>,
    /// What of the paths and locks was in use when they were opened last.
    wired: (BTreeMap<PathName, PathSetting>, Option<LockPlace>),
    published: Instant,
    dirty: bool,
    sentence: String,
    stuck: Option<String>,
    /// Groups whose window for a failback is open, as the core was told.
    windows: BTreeSet<GroupName>,
    /// Why heartbeats can't be sent.
    silent: Option<String>,
    last: Option<Status>,
    /// What is refused on the paths, as it was last told.
    refused: BTreeMap<PathName, Refused>,
    /// Commands that wait for the core's answer, with the program that they are about.
    commands: BTreeMap<u64, (Option<api::Resource>, Reply)>,
    next_command: u64,
}

/// Takes the answer to a command.
type Reply = oneshot::Sender<Result<String, String>>;

impl<E: Effects> Driver<E> {
    /// A loop around a core that was made from what the ledger holds.
    #[expect(clippy::too_many_arguments, reason = "called once; each argument is another part of the machine")]
    pub fn new(
        core: Core,
        boot: Boot,
        events: Receiver<Event>,
        ledger: Ledger,
        paths: Paths,
        effects: E,
        notes: Notes,
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    ) -> Driver<E> {
        Driver {
            core,
            me: boot.server.clone(),
            boot,
            events,
            answers: VecDeque::new(),
            ledger,
            paths,
            effects,
            notes,
            snapshots,
            adoption: None,
            wired: Default::default(),
            windows: BTreeSet::new(),
            published: Instant::ZERO,
            dirty: true,
            sentence: String::new(),
            stuck: None,
            silent: None,
            last: None,
            refused: BTreeMap::new(),
            commands: BTreeMap::new(),
            next_command: 0,
        }
    }

    /// Runs until the core says that the process may end, or until it can't go on.
    pub fn run(mut self) -> Ended {
        loop {
            match self.turn() {
                Ok(()) => {}
                Err(ended) => {
                    self.publish(clock::now());
                    return ended;
                }
            }
        }
    }

    /// Waits for something, takes all that is there, then lets timers act.
    fn turn(&mut self) -> Result<(), Ended> {
        let now = clock::now();
        let next = self.core_due(now).min(self.publication_due());
        // What was answered at once is taken a little later, so that asking again at once is no endless loop.
        let next = if self.answers.is_empty() { next } else { next.min(now + AGAIN) };
        match self.events.recv_timeout(next.since(now)) {
            Ok(event) => self.event(event)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Ended::Fatal("nothing can happen any more".into())),
        }
        for _ in 0..DRAIN {
            let Ok(event) = self.events.try_recv() else { break };
            self.event(event)?;
        }
        for answer in std::mem::take(&mut self.answers) {
            self.input(answer)?;
        }
        for group in self.effects.mended() {
            self.input(Input::Mended { group })?;
        }
        let now = clock::now();
        let working = self.working(now);
        if working != self.stuck {
            match &working {
                Some(reason) => tracing::error!("heartbeats stop: {reason}"),
                None => tracing::info!("heartbeats go on"),
            }
            self.stuck = working;
            self.dirty = true;
        }
        if now >= self.core_due(now) {
            self.core.tick(now);
            self.outputs()?;
        }
        if now >= self.publication_due() {
            self.tell_windows()?;
            self.publish(now);
        }
        Ok(())
    }

    /// When the core wants its turn. Without a specification it has nothing to do with time.
    fn core_due(&self, now: Instant) -> Instant {
        if self.adoption.is_some() { self.core.next_deadline() } else { now + PUBLISH_IDLE }
    }

    fn event(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            // Without a specification nothing was ever started here.
            Event::Input(Input::Leave) if self.adoption.is_none() => Err(Ended::Left),
            Event::Input(input) => self.input(input),
            Event::Adopt(adoption) => {
                let adoption = Arc::new(*adoption);
                self.effects.adopt(&adoption);
                self.adoption = Some(adoption.clone());
                self.rewire();
                self.dirty = true;
                let Adoption { config, groups, running, .. } = (*adoption).clone();
                self.input(Input::Specs { config, groups, running })
            }
            Event::Refresh => {
                self.dirty = true;
                Ok(())
            }
            Event::Command { request, reply } => self.command(&request, reply),
            Event::Fatal(reason) => Err(Ended::Fatal(reason)),
        }
    }

    /// Hands a command to the core; its answer comes with [`Output::Answer`].
    fn command(&mut self, request: &Request, reply: Reply) -> Result<(), Ended> {
        let (command, why, resource) = match self.as_the_core_takes_it(request) {
            Ok(command) => command,
            Err(refusal) => {
                // Who asked may be gone; then nobody is to be told.
                let _ = reply.send(Err(refusal));
                return Ok(());
            }
        };
        self.next_command += 1;
        let token = self.next_command;
        self.commands.insert(token, (resource, reply));
        self.dirty = true;
        self.input(Input::Command { token, command, why })
    }

    fn as_the_core_takes_it(&self, request: &Request) -> Result<(Command, String, Option<api::Resource>), String> {
        let Some(adoption) = &self.adoption else {
            return Err(format!("{} does not know its sub-cluster yet", self.me));
        };
        let mut resource = None;
        let (command, why) = request.command(|run| {
            let (group, name, spec) = (GroupName(run.group.clone()), program(&run.name), run.resource()?);
            if self.effects.program(&group, &name).is_some_and(|known| *known != spec) {
                return Err(format!(
                    "another program is called {} in group {group}; stop it first, or choose another name",
                    run.name
                ));
            }
            let config = program_config(&spec, adoption.specs.get(&group).map(|group| &group.spec))?;
            resource = Some(spec);
            Ok(config)
        })?;
        Ok((command, why, resource))
    }

    /// Which groups may go back by the clock, if that has changed.
    fn tell_windows(&mut self) -> Result<(), Ended> {
        let Some(adoption) = &self.adoption else { return Ok(()) };
        let open = open_windows(&adoption.specs, jiff::Timestamp::now());
        if open == self.windows {
            return Ok(());
        }
        self.windows.clone_from(&open);
        self.input(Input::FailbackWindows(open))
    }

    /// Opens and closes paths and locks: the wanted ones, and of former specifications what the view still has (R21).
    fn rewire(&mut self) {
        let Some(adoption) = &self.adoption else { return };
        let (paths, lock) = (self.core.paths_in_use(), self.core.lock_in_force());
        let former: Vec<Wiring> = adoption.former.iter().map(|wiring| wiring.in_use(&paths, lock)).collect();
        let wanted = adoption.wiring.beside(&paths);
        let all: Vec<&Wiring> = std::iter::once(&wanted).chain(&former).collect();
        self.paths.rewire(&all);
        self.wired = (paths, lock);
    }

    fn input(&mut self, input: Input) -> Result<(), Ended> {
        let often =
            matches!(input, Input::Frame { .. } | Input::Compact { .. } | Input::Durable { .. } | Input::Lock { .. });
        self.dirty |= self.core.handle(clock::now(), input) && !often;
        self.outputs()
    }

    /// Carries out everything that the core asked for, in its order.
    fn outputs(&mut self) -> Result<(), Ended> {
        while let Some(output) = self.core.poll_output() {
            self.dirty |= !matches!(
                output,
                Output::Heartbeat(_)
                    | Output::Deadline { .. }
                    | Output::Lock { .. }
                    | Output::Send { .. }
                    | Output::Resource { action: Action::Monitor, .. }
            );
            match output {
                Output::Persist { token, state } => {
                    notes::groups_stand(&state.table);
                    self.ledger.persist(token, state)?;
                }
                Output::Heartbeat(frame) => {
                    // D24: what can't act must not look alive.
                    if self.stuck.is_none() {
                        let problem = self.paths.heartbeat(&frame).err().map(|e| e.to_string());
                        if problem != self.silent {
                            match &problem {
                                Some(e) => tracing::warn!("heartbeats can't be sent: {e}"),
                                None => tracing::info!("heartbeats are sent"),
                            }
                            self.silent = problem;
                        }
                    }
                }
                Output::Send { to, message } => self.send(&to, *message),
                Output::Lock { token, lock, op } => {
                    // D24: nor may it renew its authority there.
                    let given = self.stuck.clone().map_or_else(|| self.paths.lock(token, lock, op), Err);
                    if let Err(e) = given {
                        self.answers.push_back(Input::Lock { token, result: Err(e) });
                    }
                }
                Output::Deadline { soft, kill, end } => self.effects.deadline(soft, kill, end),
                Output::Resource { op, group, resource, generation, action, depth, context, timeout } => {
                    self.effects.operate(Operation {
                        op,
                        group,
                        resource,
                        generation,
                        action,
                        depth,
                        context,
                        timeout,
                    });
                }
                Output::Check { op, group, monitor, generation, timeout, since } => {
                    self.effects.check(Check { op, group, monitor, generation, timeout, since });
                }
                Output::Fence { op, server, power } => self.effects.fence(op, &server, power),
                Output::FenceCancel { op } => self.effects.cancel_fence(op),
                Output::Released { group } => self.effects.released(&group),
                Output::Answer { token, answer } => {
                    if let Some((_, reply)) = self.commands.remove(&token) {
                        let _ = reply.send(answer);
                    }
                }
                Output::Program { token, group, program } => {
                    if let Some(spec) = self.commands.get(&token).and_then(|(spec, _)| spec.clone()) {
                        self.effects.keep_program(&group, &program, spec);
                    }
                }
                Output::ProgramEnded { group, program } => self.effects.forget_program(&group, &program),
                Output::Note(note) => self.notes.push(note),
                Output::PowerOff { reason } => self.effects.power_off(&reason),
                Output::Exit => return Err(Ended::Left),
            }
        }
        Ok(())
    }

    fn send(&self, to: &ServerName, message: holdfast_core::message::Message) {
        let envelope = Envelope { from: self.me.clone(), boot: self.boot.boot, message };
        let two_way: BTreeSet<PathName> = self
            .last
            .as_ref()
            .and_then(|status| status.peers.get(to))
            .map(|peer| peer.paths.iter().filter(|(_, path)| path.two_way).map(|(name, _)| name.clone()).collect())
            .unwrap_or_default();
        // Three missed heartbeats are a doubt: then all LANs are used at once.
        let interval = self.core.in_force_config().map_or(Duration::from_secs(1), |config| config.interval);
        if let Err(e) = self.paths.send(to, &envelope, &two_way, clock::now(), interval * 3) {
            tracing::error!(%to, "a message can't be sent: {e}");
        }
    }

    /// What is stuck behind this loop. A slow disk under the ledger is no death, so it gets as long as a peer gets.
    fn working(&mut self, now: Instant) -> Option<String> {
        let limit = self.core.in_force_config().map_or(Duration::from_secs(30), |config| config.timeout);
        if let Some(since) = self.ledger.waiting_since()
            && now.since(since) > limit
        {
            return Some(format!("the ledger has not been written for more than {limit:?}; its disk hangs"));
        }
        self.effects.checkpoint(now).err()
    }

    fn publication_due(&self) -> Instant {
        self.published + if self.dirty { PUBLISH_SOON } else { PUBLISH_IDLE }
    }

    /// What is refused on the paths; each reason is an Event when it appears.
    fn tell_refusals(&mut self, now: Instant) -> BTreeMap<PathName, Refused> {
        let refused = self.paths.refusals(now);
        for (path, list) in &refused {
            for (sender, reason) in list {
                let told = self.refused.get(path).is_some_and(|told| told.iter().any(|(s, _)| s == sender));
                if !told {
                    let of = sender.as_ref().map(|server| format!(" of {server}")).unwrap_or_default();
                    let message = format!("path {path}: heartbeats{of} are refused: {reason}");
                    self.notes.push(Note {
                        reason: "HeartbeatRefused",
                        group: None,
                        epoch: 0,
                        operation: None,
                        message,
                        warning: true,
                    });
                }
            }
        }
        self.refused.clone_from(&refused);
        refused
    }

    fn publish(&mut self, now: Instant) {
        if (self.core.paths_in_use(), self.core.lock_in_force()) != self.wired {
            self.rewire();
        }
        let status = self.core.status(now);
        if status.sentence != self.sentence {
            tracing::info!("{}", status.sentence);
            self.sentence.clone_from(&status.sentence);
        }
        let snapshot = Snapshot {
            at: now,
            status: status.clone(),
            disks: self.paths.disks(),
            quorum_server: self.paths.quorum_server(),
            path_errors: self.paths.errors(),
            refused: self.tell_refusals(now),
            keys: self.paths.keys(),
            adoption: self.adoption.clone(),
            stuck: self.stuck.clone(),
            fencing: self.effects.fence_devices(),
        };
        self.last = Some(status);
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
        self.published = now;
        self.dirty = false;
    }
}

#[cfg(test)]
#[path = "driver_loop_tests.rs"]
mod tests;
