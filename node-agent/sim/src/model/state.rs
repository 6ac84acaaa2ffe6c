//! The state of the model, its steps, and what each step does.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use holdfast_core::config::LockKind;
use holdfast_core::lock::LockOp;
use holdfast_core::message::{Envelope, Message};
use holdfast_core::time::Instant;
use holdfast_core::view::View;
use holdfast_core::{Action, Input, Outcome, Output};

use super::check::Seen;
use super::disk::{Access, Medium};
use super::host::{Host, boot_id};
use super::scenario::{Scenario, TICK, Trouble};
use super::shared::{Shared, print};
use super::step::Step;
use crate::world::network::Kind;

/// A message in flight.
#[derive(Debug, Clone, Hash)]
pub(super) struct Flight {
    from: usize,
    to: usize,
    envelope: Envelope,
}

/// A message in flight: its hash, whether it is delayed, itself.
type InFlight = (u64, bool, Shared<Flight>);

enum Cause {
    Tick,
    Input(Input),
}

/// A whole sub-cluster at one moment.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct State {
    pub(super) now: Instant,
    /// Interval in which the exploration ends.
    pub(super) end: u64,
    /// How often something may still go wrong.
    pub(super) faults: u8,
    /// The interval has just begun, or a process has just ended: processes go on and start now, or in the next interval.
    dawn: bool,
    pub(super) hosts: Vec<Shared<Host>>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Ordered by hash; the same message twice is one.
    flights: Vec<InFlight>,
    medium: Shared<Medium>,
    pub(super) seen: Shared<Seen>,
    disk_path: bool,
    /// W' and D, in ns.
    pub(super) slack: u64,
    pub(super) violation: Option<(&'static str, String)>,
}

impl State {
    /// Servers with power and nothing on their disks.
    pub(super) fn new(scenario: &Scenario) -> State {
        let config = scenario.config();
        State {
            now: Instant(100 * TICK),
            end: u64::MAX,
            faults: 0,
            dawn: true,
            hosts: (0..scenario.servers).map(|i| Shared::new(Host::new(i))).collect(),
            cut: BTreeSet::new(),
            flights: Vec::new(),
            medium: Shared::new(Medium::new(scenario.lock == Some(LockKind::QuorumServer))),
            seen: Shared::new(Seen::default()),
            disk_path: scenario.disk_path,
            slack: (config.reset + config.drain).as_nanos() as u64,
            violation: None,
        }
    }

    /// Formed, the group on the first server only.
    pub(super) fn at_rest(&self, scenario: &Scenario) -> bool {
        let whole = |view: &View| view.epoch > 0 && view.members.len() == scenario.servers;
        self.violation.is_none()
            && self.hosts.iter().enumerate().all(|(i, host)| {
                host.runs == (i == 0) && host.ledger.view.as_ref().is_some_and(whole) && host.writes.is_empty()
            })
    }

    /// The group runs on another server than the first.
    pub(super) fn taken_over(&self) -> bool {
        self.hosts.iter().skip(1).any(|host| host.runs)
    }

    /// Everything that can happen next; what is no fault first.
    pub(super) fn steps(&self, scenario: &Scenario, steps: &mut Vec<Step>) {
        if self.violation.is_some() {
            return;
        }
        if let Some(server) = self.first_writer().filter(|_| scenario.ledger_first) {
            steps.push(Step::Durable(server));
            if self.faults > 0 {
                let has = |trouble| scenario.troubles.contains(&trouble);
                let faults = [
                    (Trouble::Late, Step::LedgerHangs(server)),
                    (Trouble::Freeze, Step::Freeze(server)),
                    (Trouble::Crash, Step::Crash(server)),
                    (Trouble::PowerCut, Step::PowerCut(server)),
                ];
                steps.extend(faults.into_iter().filter(|(trouble, _)| has(*trouble)).map(|(_, step)| step));
            }
            return;
        }
        for (id, _, flight) in self.awaited() {
            steps.push(Step::Deliver { id: *id, way: flight.way(), kind: flight.kind() });
        }
        for (i, host) in self.hosts.iter().enumerate() {
            if !host.writes.is_empty() {
                steps.push(Step::Durable(i));
            }
            if let Some(access) = &host.access {
                steps.push(if access.record.is_some() { Step::Land(i) } else { Step::Look(i) });
            }
            if !host.strays.is_empty() {
                steps.push(Step::Stray(i));
            }
            if self.dawn && host.frozen.is_some() {
                steps.push(Step::Thaw(i));
            }
            if self.dawn && host.core.is_none() {
                steps.push(Step::Start(i));
            }
        }
        let waits = self.hosts.iter().any(|host| host.is_awake() && host.waits());
        if self.now.0 / TICK < self.end && !waits && self.awaited().all(|(_, delayed, _)| *delayed) {
            steps.push(Step::Tick);
        }
        for trouble in scenario.troubles.iter().filter(|_| self.faults > 0) {
            self.troubles(*trouble, steps);
        }
    }

    /// The first server whose ledger is about to be written.
    fn first_writer(&self) -> Option<usize> {
        self.hosts.iter().position(|host| host.is_awake() && !host.writes.is_empty() && !host.slow)
    }

    /// Messages that can arrive now.
    fn awaited(&self) -> impl Iterator<Item = &InFlight> {
        self.flights.iter().filter(|(_, _, flight)| self.hosts[flight.to].is_awake())
    }

    fn troubles(&self, trouble: Trouble, steps: &mut Vec<Step>) {
        let servers = || self.hosts.iter().enumerate();
        let awake = || servers().filter(|(_, host)| host.is_awake());
        match trouble {
            Trouble::Loss => {
                steps.extend(self.awaited().map(|(id, _, f)| Step::Lose { id: *id, way: f.way(), kind: f.kind() }));
            }
            Trouble::Late => {
                let flights = self.awaited().filter(|(_, delayed, _)| !delayed);
                steps.extend(flights.map(|(id, _, f)| Step::Delay { id: *id, way: f.way(), kind: f.kind() }));
                let writing = awake().filter(|(_, host)| !host.writes.is_empty() && !host.slow);
                steps.extend(writing.map(|(i, _)| Step::LedgerHangs(i)));
                let asking = awake().filter(|(_, host)| host.access.as_ref().is_some_and(|access| !access.hangs));
                steps.extend(asking.map(|(i, _)| Step::LockHangs(i)));
            }
            Trouble::Freeze => steps.extend(awake().map(|(i, _)| Step::Freeze(i))),
            Trouble::Crash => steps.extend(awake().map(|(i, _)| Step::Crash(i))),
            Trouble::PowerCut => {
                steps.extend(servers().filter(|(_, host)| host.core.is_some()).map(|(i, _)| Step::PowerCut(i)));
            }
            Trouble::Cut if !self.dawn => {}
            Trouble::Cut => {
                for one in 0..self.hosts.len() {
                    steps.extend((one + 1..self.hosts.len()).map(|other| Step::Cut(one, other)));
                }
            }
            Trouble::Lock => {
                steps.extend(awake().filter(|(_, host)| host.access.is_some()).map(|(i, _)| Step::LockFails(i)));
            }
        }
    }

    /// The state after a step.
    pub(super) fn after(&self, step: &Step, scenario: &Scenario) -> State {
        let mut state = self.clone();
        if step.is_fault() {
            state.faults = self.faults.saturating_sub(1);
        }
        use Step::{Crash, Cut, PowerCut, Start, Thaw, Tick};
        state.dawn = matches!(step, Tick | Start(_) | Thaw(_) | Cut(..) | Crash(_) | PowerCut(_));
        state.take(step, scenario);
        state.check_evidence();
        if *step == Step::Tick {
            state.renumber();
        }
        for host in state.hosts.iter_mut().filter(|host| !host.is_sealed()) {
            host.edit().simplify();
            host.seal();
        }
        state.medium.seal();
        state.seen.seal();
        state
    }

    fn take(&mut self, step: &Step, scenario: &Scenario) {
        match step {
            Step::Deliver { id, .. } => {
                if let Some(flight) = self.land_flight(*id) {
                    self.input(flight.to, Input::Message(Box::new(flight.envelope.clone())));
                }
            }
            Step::Lose { id, .. } => {
                self.land_flight(*id);
            }
            Step::Delay { id, .. } => {
                for flight in self.flights.iter_mut().filter(|(known, ..)| known == id) {
                    flight.1 = true;
                }
            }
            Step::LedgerHangs(i) => self.hosts[*i].edit().slow = true,
            Step::LockHangs(i) => {
                if let Some(access) = &mut self.hosts[*i].edit().access {
                    access.hangs = true;
                }
            }
            Step::Durable(i) => {
                let input = self.write(*i);
                self.input(*i, input);
            }
            Step::Land(i) => self.lands(*i),
            Step::Look(i) => {
                let Some(access) = self.hosts[*i].edit().access.take() else { return };
                let mut look = access.swapped.unwrap_or_else(|| self.medium.look(self.now));
                look.completed = self.now;
                self.input(*i, Input::Lock { token: access.token, result: Ok(look) });
            }
            Step::LockFails(i) => {
                let host = self.hosts[*i].edit();
                let Some(access) = host.access.take() else { return };
                host.strays.extend(access.record);
                self.input(*i, Input::Lock { token: access.token, result: Err("I/O error".into()) });
            }
            Step::Stray(i) => {
                let host = self.hosts[*i].edit();
                let record = host.strays.remove(0);
                let last = host.strays.is_empty() && host.access.as_ref().is_none_or(|access| access.record.is_none());
                self.check_record(&record);
                self.medium.edit().land(*i as u8 + 1, record, last);
            }
            Step::Freeze(i) => self.hosts[*i].edit().frozen = Some(self.now),
            Step::Thaw(i) => {
                self.hosts[*i].edit().frozen = None;
                // R24: what waits comes before what is due.
                let inbox = std::mem::take(&mut self.hosts[*i].edit().inbox);
                let mut todo: VecDeque<_> = inbox.into_iter().map(|input| (*i, Cause::Input(input))).collect();
                todo.push_back((*i, Cause::Tick));
                self.run(todo);
            }
            Step::Start(i) => {
                self.hosts[*i].edit().start(*i, self.now);
                let specs =
                    Input::Specs { config: scenario.config(), groups: scenario.groups(), running: Default::default() };
                self.input(*i, specs);
            }
            Step::Crash(i) => self.stop(*i),
            Step::PowerCut(i) => {
                self.stop(*i);
                let host = self.hosts[*i].edit();
                (host.runs, host.deadline) = (false, Default::default());
                host.boot += 1;
            }
            Step::Cut(one, other) => {
                if !self.cut.remove(&(*one, *other)) {
                    self.cut.insert((*one, *other));
                }
            }
            Step::Tick => self.tick(),
        }
    }

    fn tick(&mut self) {
        self.now = self.now + Duration::from_nanos(TICK);
        let reset = Duration::from_nanos(self.slack / 2);
        for i in 0..self.hosts.len() {
            let (_, kill, end) = self.hosts[i].deadline;
            if self.hosts[i].runs && self.now >= kill {
                // R23 at its slowest: the agent dies at the kill point, what it ran goes on until the reset.
                if self.hosts[i].core.is_some() {
                    self.stop(i);
                }
                if self.now >= end + reset {
                    self.hosts[i].edit().runs = false;
                }
            }
        }
        for i in 0..self.hosts.len() {
            if self.hosts[i].is_awake() {
                self.run(VecDeque::from([(i, Cause::Tick)]));
            }
        }
    }

    /// Counts the records on the lock anew, so that states are equal that have only needed more or fewer of them.
    fn renumber(&mut self) {
        let shift = self.medium.shift();
        if shift.is_nothing() {
            return;
        }
        self.medium.edit().renumber(&shift);
        for (i, host) in self.hosts.iter_mut().enumerate() {
            host.edit().renumber(i as u8 + 1, &shift);
        }
    }

    fn stop(&mut self, server: usize) {
        self.hosts[server].edit().stop();
        self.flights.retain(|(_, _, flight)| flight.to != server);
    }

    fn land_flight(&mut self, id: u64) -> Option<Shared<Flight>> {
        let at = self.flights.iter().position(|(known, ..)| *known == id)?;
        Some(self.flights.remove(at).2)
    }

    fn lands(&mut self, server: usize) {
        let Some(record) = self.hosts[server].edit().access.as_mut().and_then(|access| access.record.take()) else {
            return;
        };
        self.check_record(&record);
        let last = self.hosts[server].strays.is_empty();
        self.medium.edit().land(server as u8 + 1, record, last);
        self.swapped(server);
    }

    /// A quorum server reads at the moment of the write.
    fn swapped(&mut self, server: usize) {
        if let Some(swaps) = self.medium.swaps {
            self.medium.edit().swaps = Some(swaps + 1);
            let look = self.medium.look(self.now);
            if let Some(access) = &mut self.hosts[server].edit().access {
                access.swapped = Some(look);
            }
        }
    }

    /// The oldest ledger write becomes durable; the input that says so.
    fn write(&mut self, server: usize) -> Input {
        let Some((token, state)) = self.hosts[server].edit().writes.pop_front() else {
            return Input::Durable { token: 0 };
        };
        self.check_ledger(server, &state);
        let host = self.hosts[server].edit();
        (host.ledger, host.slow) = (state, false);
        Input::Durable { token }
    }

    fn input(&mut self, server: usize, input: Input) {
        self.run(VecDeque::from([(server, Cause::Input(input))]));
    }

    /// Gives inputs to cores and carries out what they ask for, until nothing is left that takes no time.
    fn run(&mut self, mut todo: VecDeque<(usize, Cause)>) {
        while let Some((i, cause)) = todo.pop_front() {
            if self.hosts[i].core.is_none() {
                continue;
            }
            let now = self.now;
            let host = self.hosts[i].edit();
            let Some(core) = host.core.as_mut().filter(|_| host.frozen.is_none()) else {
                if let Cause::Input(input) = cause {
                    host.inbox.push_back(input);
                }
                continue;
            };
            match cause {
                Cause::Tick => core.tick(now),
                Cause::Input(input) => {
                    core.handle(now, input);
                }
            }
            let outputs: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
            for output in outputs {
                self.carry_out(i, output, &mut todo);
            }
            while !self.hosts[i].writes.is_empty() && !self.hosts[i].next_write_matters() {
                let input = self.write(i);
                todo.push_back((i, Cause::Input(input)));
            }
        }
    }

    fn carry_out(&mut self, from: usize, output: Output, todo: &mut VecDeque<(usize, Cause)>) {
        match output {
            Output::Persist { token, state } => self.hosts[from].edit().writes.push_back((token, *state)),
            Output::Heartbeat(frame) => {
                self.check_frame(from, &frame);
                for to in (0..self.hosts.len()).filter(|to| *to != from && self.connects(from, *to)) {
                    todo.push_back((to, Cause::Input(Input::Frame { path: "lan".into(), frame: frame.clone() })));
                }
                if self.disk_path {
                    self.medium.edit().beats.insert(from, (*frame).clone());
                }
                for (_, beat) in self.medium.beats.iter().filter(|(other, _)| **other != from) {
                    let frame = Box::new(beat.clone());
                    todo.push_back((from, Cause::Input(Input::Frame { path: "area".into(), frame })));
                }
            }
            Output::Send { to, message } => self.send(from, &to.0, *message, todo),
            Output::Lock { token, op, .. } => {
                let record = match op {
                    LockOp::Look => None,
                    LockOp::WriteThenLook(record) => Some(*record),
                };
                let host = self.hosts[from].edit();
                let old = host.access.replace(Access { token, record, swapped: None, hangs: false });
                host.strays.extend(old.and_then(|old| old.record));
            }
            Output::Deadline { soft, kill, end } => self.hosts[from].edit().deadline = (soft, kill, end),
            Output::Resource { op, action, .. } => {
                let outcome = self.act(from, action);
                let input = Input::ResourceDone { op, outcome, took: Duration::from_millis(1) };
                todo.push_back((from, Cause::Input(input)));
            }
            // No group of the model has monitors.
            Output::Check { .. } => {}
            Output::Released { .. } | Output::Note(_) | Output::Exit | Output::PowerOff { .. } => {}
            // Nobody gives a command on a server of the model.
            Output::Answer { .. } | Output::Program { .. } | Output::ProgramEnded { .. } => {}
            // No server of the model has a fence device.
            Output::Fence { .. } | Output::FenceCancel { .. } => {}
        }
    }

    fn connects(&self, one: usize, other: usize) -> bool {
        !self.cut.contains(&(one.min(other), one.max(other)))
    }

    /// What belongs to the decision flies; reports and tables arrive at once.
    fn send(&mut self, from: usize, to: &str, message: Message, todo: &mut VecDeque<(usize, Cause)>) {
        let Some(to) = self.hosts.iter().position(|host| host.name.0 == to) else { return };
        if !self.connects(from, to) || self.hosts[to].core.is_none() {
            return;
        }
        let at_once = matches!(message, Message::Report { .. } | Message::Assign { .. });
        let boot = boot_id(from, self.hosts[from].boot);
        let envelope = Envelope { from: self.hosts[from].name.clone(), boot, message };
        if at_once {
            return todo.push_back((to, Cause::Input(Input::Message(Box::new(envelope)))));
        }
        let flight = Flight { from, to, envelope };
        let id = print(&flight);
        if let Err(at) = self.flights.binary_search_by_key(&id, |(known, ..)| *known) {
            self.flights.insert(at, (id, false, Shared::new(flight)));
        }
    }

    /// A helper acts at once; before a start it looks at the deadline.
    fn act(&mut self, server: usize, action: Action) -> Outcome {
        match action {
            Action::Start if self.now >= self.hosts[server].deadline.0 => Outcome::Failed("no authority".into()),
            Action::Start => {
                self.check_start(server);
                self.hosts[server].edit().runs = true;
                Outcome::Running
            }
            Action::Stop => {
                self.hosts[server].edit().runs = false;
                Outcome::Stopped
            }
            Action::Probe | Action::Monitor if self.hosts[server].runs => Outcome::Running,
            Action::Probe | Action::Monitor => Outcome::Stopped,
        }
    }
}

impl Flight {
    fn way(&self) -> (usize, usize) {
        (self.from, self.to)
    }

    fn kind(&self) -> Kind {
        Kind::of(&self.envelope.message)
    }
}
