//! The machine as a whole: takes an input, lets the rules act, hands out what they ask for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::arbiter::Lock;
use crate::config::{Config, GroupConfig};
use crate::coordinator::{Coordinator, MemberReport};
use crate::durable::Durable;
use crate::frame::Frame;
use crate::hosted::Hosted;
use crate::hosting::Reporter;
use crate::input::{Boot, Input};
use crate::inspecting::Inspection;
use crate::knowledge::Departure;
use crate::lease::Lease;
use crate::message::{Envelope, Message, newest_in};
use crate::names::{GroupName, MonitorName, PathName, ResourceName, ServerName};
use crate::output::{Note, OpId, Output};
use crate::peers::{Links, Peer, moment};
use crate::planted::planted;
use crate::proposer::{Desire, Proposal};
use crate::reconfigure::Coming;
use crate::settings::PathSetting;
use crate::status::Resolution;
use crate::time::Instant;
use crate::view::{DepartedKey, Epoch, MemberTiming, Tag};

/// One server's state machine. See the crate's documentation for the contract.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Core {
    pub(crate) boot: Boot,
    pub(crate) durable: Durable,
    /// What the shell's specification says.
    pub(crate) wanted: Option<Arc<Config>>,
    /// What the rules act by: of the view where there is one (R21), see `refresh_config`.
    pub(crate) config: Option<Arc<Config>>,
    /// Paths of the view before, which others may still use.
    pub(crate) retiring: BTreeMap<PathName, PathSetting>,
    /// Since when every member is seen to act under the newest view.
    pub(crate) all_adopted: Option<Instant>,
    /// H and T of views before, if their H was shorter; see [`Core::pace`].
    pub(crate) former_pace: Option<(std::time::Duration, std::time::Duration)>,
    /// When another machine was last seen under this server's number.
    pub(crate) namesake: Option<Instant>,
    pub(crate) groups: BTreeMap<GroupName, Arc<GroupConfig>>,
    pub(crate) now: Instant,
    pub(crate) started: Instant,
    pub(crate) heard: crate::brakes::Heard,
    /// Silences count from here at the earliest.
    pub(crate) baseline: Instant,
    pub(crate) peers: BTreeMap<ServerName, Peer>,
    pub(crate) links: Links,
    pub(crate) lease: Lease,
    pub(crate) lock: Lock,
    /// The lock that is wanted, if it is another one than the one in force.
    pub(crate) coming: Option<Coming>,
    pub(crate) proposal: Option<Proposal>,
    pub(crate) desire: Desire,
    pub(crate) departures: BTreeMap<DepartedKey, Departure>,
    pub(crate) fences: BTreeMap<DepartedKey, crate::fencing::Call>,
    /// Calls that are to begin, with the sequence of the first heartbeat that says so.
    pub(crate) announced: BTreeMap<DepartedKey, Option<u64>>,
    /// Groups that were stopped, until that is durable: ledger write and tag.
    pub(crate) releasing: BTreeMap<GroupName, (u64, crate::view::Tag)>,
    /// Boots that a fence device has ended.
    pub(crate) ended: BTreeSet<DepartedKey>,
    pub(crate) machines: BTreeMap<GroupName, Hosted>,
    pub(crate) inspections: BTreeMap<GroupName, Inspection>,
    pub(crate) failures: BTreeMap<GroupName, crate::status::Failure>,
    /// Groups that failed here, with how long that is remembered.
    pub(crate) relapses: BTreeMap<GroupName, crate::relapse::Relapse>,
    pub(crate) reporter: Reporter,
    pub(crate) coordinator: Coordinator,
    pub(crate) ops: BTreeMap<OpId, (GroupName, ResourceName)>,
    /// Checks of monitors that are under way.
    pub(crate) checks: BTreeMap<OpId, (GroupName, MonitorName)>,
    /// Monitors that run whatever this server holds.
    pub(crate) watch: crate::fitness::Watch,
    /// What was ordered on this server and is under way.
    pub(crate) commands: crate::commands::Commands,
    pub(crate) clear_wishes: BTreeMap<GroupName, crate::clearing::Wish>,
    pub(crate) hold_wishes: BTreeMap<GroupName, crate::holding::Wish>,
    pub(crate) next_op: OpId,
    pub(crate) leaving: bool,
    /// Groups whose window for a failback is open.
    pub(crate) failback_windows: BTreeSet<GroupName>,
    /// Why this server is to shut down, once it has left.
    pub(crate) down: Option<String>,
    /// The order to shut down that is being carried out.
    pub(crate) closing: Option<crate::closing::Closing>,
    /// What operators ordered through this server.
    pub(crate) given: BTreeSet<crate::orders::Order>,
    pub(crate) force: crate::force::Force,
    pub(crate) resolution: Option<Resolution>,
    /// When a loss was first seen, and how long the silence was then.
    pub(crate) trouble: Option<(Instant, std::time::Duration)>,
    pub(crate) exited: bool,
    outputs: VecDeque<Output>,
    /// Outputs that wait for the ledger: (token, output).
    pub(crate) waiting: VecDeque<(u64, Output)>,
    pub(crate) issued: u64,
    pub(crate) written: u64,
    /// What is not durable yet.
    pub(crate) orders: VecDeque<Given>,
    /// The newest assignment that is durable here.
    pub(crate) stable_table: Tag,
    stable: Option<(u32, Epoch)>,
    next_wake: Instant,
    pub(crate) next_beat: Instant,
    last_sequence: u64,
    pub(crate) said: BTreeSet<String>,
}

/// What was given to the ledger: the token, (lineage, epoch) of the view, and the newest assignment.
type Given = (u64, Option<(u32, Epoch)>, Tag);

impl Core {
    /// A core for one run of the process. `durable` is what the ledger holds, or [`Durable::fresh`] on the first start;
    /// nothing is put out before the first input or `tick`.
    pub fn new(now: Instant, boot: Boot, durable: Durable) -> Core {
        let stable = durable.view.as_ref().map(|view| view.order());
        let stable_table = newest_in(&durable.table);
        Core {
            boot,
            durable,
            wanted: None,
            config: None,
            retiring: BTreeMap::new(),
            all_adopted: None,
            former_pace: None,
            namesake: None,
            groups: BTreeMap::new(),
            now,
            started: now,
            heard: BTreeMap::new(),
            baseline: now,
            peers: BTreeMap::new(),
            links: Links::new(),
            lease: Lease::default(),
            lock: Lock::default(),
            coming: None,
            proposal: None,
            desire: Desire::default(),
            departures: BTreeMap::new(),
            fences: BTreeMap::new(),
            announced: BTreeMap::new(),
            releasing: BTreeMap::new(),
            ended: BTreeSet::new(),
            machines: BTreeMap::new(),
            inspections: BTreeMap::new(),
            failures: BTreeMap::new(),
            relapses: BTreeMap::new(),
            reporter: Reporter::default(),
            coordinator: Coordinator::default(),
            ops: BTreeMap::new(),
            checks: BTreeMap::new(),
            watch: Default::default(),
            commands: Default::default(),
            clear_wishes: BTreeMap::new(),
            hold_wishes: BTreeMap::new(),
            next_op: 0,
            leaving: false,
            failback_windows: BTreeSet::new(),
            down: None,
            closing: None,
            given: BTreeSet::new(),
            force: Default::default(),
            resolution: None,
            trouble: None,
            exited: false,
            outputs: VecDeque::new(),
            waiting: VecDeque::new(),
            issued: 0,
            written: 0,
            orders: VecDeque::new(),
            stable_table,
            stable,
            next_wake: now,
            next_beat: now,
            last_sequence: 0,
            said: BTreeSet::new(),
        }
        .recover()
    }

    /// R17: same boot or a new one?
    fn recover(mut self) -> Core {
        if let Some(view) = &self.durable.view {
            // Nobody's last acknowledgement is known any more: now is the safe side (R10).
            let departed = view.departed.keys().map(|key| (key.clone(), Departure { anchor: self.now, seen: None }));
            self.departures = departed.collect();
            let (soft, kill, end) = self.boot.deadline;
            self.lease.end = end;
            self.lease.points = (soft, kill);
            self.lock.stale = true;
        }
        if planted!(HeldForgotten) {
            self.durable.held.clear();
        }
        if self.durable.boot != self.boot.boot {
            // A new boot: nothing of the old one runs here. If it was a member and did not leave, its end was unclean.
            self.durable.boot_counter += 1;
            self.durable.boot = self.boot.boot;
            self.durable.held.clear();
            if planted!(OldBootActs)
                && let Some(member) =
                    self.durable.view.as_mut().and_then(|view| view.members.get_mut(&self.boot.server))
            {
                member.boot = self.boot.boot;
            }
            let member = self.durable.view.as_ref().is_some_and(|view| view.members.contains_key(&self.boot.server));
            if member && !self.durable.clean {
                self.durable.barred = true;
            }
            self.persist();
        }
        self
    }

    /// Takes one input. Says whether [`Core::status`] may be another one after it.
    pub fn handle(&mut self, now: Instant, input: Input) -> bool {
        self.advance(now);
        match input {
            Input::Frame { path, frame } => {
                if !self.take_frame(path, *frame) {
                    return false;
                }
            }
            Input::Compact { path, compact } => {
                if !self.take_compact(path, compact) {
                    return false;
                }
            }
            Input::Message(envelope) => self.on_message(*envelope),
            Input::Namesake => self.namesake = Some(self.now),
            Input::Durable { token } => self.on_durable(token),
            Input::Lock { token, result } => self.lock_done(token, result),
            // Most answers of a large group: the rules have nothing to look at.
            Input::ResourceDone { op, outcome, .. } if self.still_runs(op, &outcome) => return false,
            Input::ResourceDone { op, outcome, took } => self.resource_done(op, outcome, took),
            Input::ResourceFailed { group, resource, message } => self.resource_failed(&group, &resource, message),
            Input::Mended { group } => self.mended(&group),
            Input::Specs { config, groups, running } => {
                self.wanted = Some(config);
                self.refresh_config();
                self.take_specs(groups, running);
            }
            Input::FencedOff { op, message } => self.fenced_off(op, message),
            Input::FenceEnded { op, result } => self.fence_ended(op, result),
            Input::Orders(orders) => {
                self.given = orders;
                self.beat_soon();
            }
            Input::FailbackWindows(open) => self.failback_windows = open,
            Input::Command { token, command, why } => self.on_command(token, command, why),
            Input::Leave => self.asked_to_end(),
        }
        self.settle();
        true
    }

    /// Lets time pass. Call when [`Core::next_deadline`] is reached, after all waiting inputs.
    pub fn tick(&mut self, now: Instant) {
        self.advance(now);
        self.settle();
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `tick` has to be called at the latest.
    pub fn next_deadline(&self) -> Instant {
        self.next_wake
    }

    fn advance(&mut self, now: Instant) {
        let now = now.max(self.now);
        // R24: a gap in our own loop is not the others' silence.
        if let Some(config) = &self.config
            && now.since(self.now) > config.stall
            && now.since(self.next_wake) > config.stall
            && !planted!(StallSuspectsAll)
        {
            self.restart_silence();
        }
        self.now = now;
    }

    /// Lets every rule look at the new state, in the order in which they depend on each other.
    pub(crate) fn settle(&mut self) {
        self.next_wake = self.next_beat.max(self.now + std::time::Duration::from_millis(1));
        let Some(config) = self.config.clone() else { return };
        for name in config.servers.keys().filter(|name| **name != self.boot.server) {
            self.peers.entry(name.clone()).or_default();
        }
        self.watch_adoption();
        self.watch_silence();
        self.watch_trouble();
        self.renew_lease();
        self.drive_proposal();
        self.drive_force();
        // Before a lean on the lock: it ends what may not go on under it.
        self.drive_fencing();
        self.schedule_lock();
        self.look_at_coming_lock();
        self.renew_lease();
        self.watch_evidence();
        self.drive_machines();
        self.drive_watch();
        self.send_report();
        self.drive_coordinator();
        // What the coordinator just said may concern this server.
        self.drive_machines();
        self.send_report();
        self.heed_shutdown();
        self.heed_order_to_shut_down();
        self.drive_commands();
        self.drive_leave();
        self.beat(&config);
    }

    fn on_message(&mut self, envelope: Envelope) {
        let Envelope { from, boot, message } = envelope;
        if self.is_new_to_view(&from) {
            if let Message::Learn { view, elapsed } = message {
                self.on_learn(view, elapsed);
            }
            return;
        }
        let known = self.peers.get(&from).and_then(|peer| peer.frame.as_ref());
        // Only the incarnation whose heartbeats arrive is listened to.
        if known.is_none_or(|frame| frame.boot != boot) {
            return;
        }
        match message {
            Message::Prepare { order, ballot } => self.on_prepare(from, order, ballot),
            Message::Promise { order, ballot, accepted } => self.on_promise(from, order, ballot, accepted),
            Message::Accept { order, ballot, value } => self.on_accept(from, order, ballot, value),
            Message::Accepted { order, ballot, elapsed } => self.on_accepted(from, order, ballot, elapsed),
            Message::Refused { order, promised } => self.on_refused(order, promised),
            Message::Learn { view, elapsed } => self.on_learn(view, elapsed),
            Message::Report { order, number, highest, capacity, table, groups, server } => {
                let groups = groups.into_iter().map(|(name, report)| (name, Arc::new(report))).collect();
                self.on_report(from, order, MemberReport { number, highest, capacity, groups, server }, table);
            }
            Message::Assign { order, table } => {
                let coordinator = self.durable.view.as_ref().and_then(|view| view.coordinator().cloned());
                if coordinator == Some(from) {
                    self.take_table(order, &table);
                }
            }
            Message::Declined { order, group, number, why } => {
                let coordinator = self.durable.view.as_ref().and_then(|view| view.coordinator().cloned());
                if coordinator == Some(from) {
                    self.on_declined(order, group, number, &why);
                }
            }
        }
    }

    /// A server that the specification has, and the newest view that is known here has not: who was away while the others
    /// were replaced learns from those that came (R6; found by the simulator, seed 15037).
    fn is_new_to_view(&self, from: &ServerName) -> bool {
        let unknown = |config: &Arc<Config>| !config.servers.contains_key(from);
        let declared = |wanted: &Arc<Config>| wanted.servers.contains_key(from);
        self.config.as_ref().is_some_and(unknown) && self.wanted.as_ref().is_some_and(declared)
    }

    /// Some rule wants to look now.
    pub(crate) fn is_due(&self) -> bool {
        self.now >= self.next_wake
    }

    /// What all rules would ask for now, beside a later end of the lease; heartbeats without what was heard.
    #[cfg(debug_assertions)]
    pub(crate) fn would_ask(&self) -> Vec<Output> {
        let mut thorough = self.clone();
        thorough.outputs.clear();
        thorough.settle();
        let asked = thorough.outputs.into_iter().chain(thorough.waiting.into_iter().map(|(_, output)| output));
        let one = |output| match output {
            Output::Deadline { .. } => None,
            Output::Heartbeat(frame) => Some(Output::Heartbeat(Box::new(Frame { heard: BTreeMap::new(), ..*frame }))),
            other => Some(other),
        };
        asked.filter_map(one).collect()
    }

    /// The next heartbeat goes out now, not at its time: others wait for what it says.
    pub(crate) fn beat_soon(&mut self) {
        self.next_beat = self.now;
        self.wake(self.now);
    }

    fn beat(&mut self, config: &Config) {
        if self.now < self.next_beat {
            return self.wake(self.next_beat);
        }
        self.next_beat = self.now + self.pace(config);
        self.wake(self.next_beat);
        // A server that the view does not name any more has nothing to say, and no number to say it under.
        let Some(id) = config.servers.get(&self.boot.server).copied() else { return };
        let sequence =
            if planted!(SequenceRestarts) { self.now.since(self.started).as_nanos() as u64 } else { self.now.0 };
        if moment(sequence) <= moment(self.last_sequence) {
            return; // two in one instant: the next one says it
        }
        self.last_sequence = sequence;
        let (lineage, epoch) = self.stable.unwrap_or((0, 0));
        let newest = self.durable.view.as_ref().map(|view| view.order());
        // R22: half of a frame about one lineage and half about the next looks like a second chain to the others.
        if self.stable.is_some() && newest.map(|(newest, _)| newest) != Some(lineage) {
            return; // as soon as the new one is durable
        }
        // R3, R6: nothing is acknowledged after an acceptance, nor between two epochs.
        let silent = self.durable.accepted.is_some() && !planted!(AcknowledgesAfterAcceptance);
        let acknowledging = !silent && newest == self.stable;
        let frame = Frame {
            cluster: self.stable.and(self.durable.view.as_ref()).map(|view| view.cluster),
            from: self.boot.server.clone(),
            id,
            acceptor: self.durable.acceptor,
            boot_counter: self.durable.boot_counter,
            boot: self.boot.boot,
            sequence,
            lineage,
            epoch,
            chain: self.stable.and(self.durable.view.as_ref()).map(|view| view.chain).unwrap_or_default(),
            heard: self.heard(config, acknowledging),
            leased: self.leased(),
            lock_reachable: self.lock_usable(),
            lock: self.lock.id,
            intent: self.intent(),
            timing: self.own_timing(config),
            lock_to_come: self.coming.as_ref().and_then(|coming| coming.id),
            is_virtual: self.boot.is_virtual,
            config_generation: config.generation,
            held: self.held_tags(),
            specs: self.specs_of_joiner(),
            table: self.table_of_joiner(),
            barred: self.durable.barred,
            stop_failed: self.asks_to_be_left_out(),
            fences: self.fence_states(),
            orders: self.own_orders(),
            candidate: self.desire.members.clone(),
            down: self.coordinator.down.clone(),
            refused: self.refused_to_shut_down(),
            reports: self.coordinator.reports.iter().map(|(name, report)| (name.clone(), report.number)).collect(),
        };
        self.announced_with(sequence);
        self.emit_now(Output::Heartbeat(Box::new(frame)));
    }

    /// What this server would promise by its specification: to be written into views.
    pub(crate) fn own_timing(&self, config: &Config) -> MemberTiming {
        self.wanted.as_ref().map_or_else(|| config.timing(), |wanted| wanted.timing())
    }

    /// Asks for a `tick` at `at`.
    pub(crate) fn wake(&mut self, at: Instant) {
        if at > self.now && at < self.next_wake {
            self.next_wake = at;
        } else if at == self.now {
            self.next_wake = self.next_wake.min(self.now + std::time::Duration::from_millis(1));
        }
    }

    /// Writes the ledger; what is emitted from now on waits for it.
    pub(crate) fn persist(&mut self) -> u64 {
        self.issued += 1;
        let token = self.issued;
        let order = self.durable.view.as_ref().map(|view| view.order());
        self.orders.push_back((token, order, newest_in(&self.durable.table)));
        self.outputs.push_back(Output::Persist { token, state: Box::new(self.durable.clone()) });
        token
    }

    fn on_durable(&mut self, token: u64) {
        self.written = self.written.max(token.min(self.issued));
        let before = self.stable;
        while let Some((at, order, table)) = self.orders.front().copied().filter(|(at, ..)| *at <= self.written) {
            self.orders.pop_front();
            debug_assert!(at <= self.issued);
            self.stable = order;
            self.stable_table = table;
        }
        while self.waiting.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, output)) = self.waiting.pop_front() {
                self.outputs.push_back(output);
            }
        }
        let releasing = self.releasing.len();
        self.releasing.retain(|_, (token, _)| *token > self.written);
        if self.stable != before || self.releasing.len() < releasing {
            self.beat_soon();
        }
        self.advance_proposal();
    }

    /// Everything up to this token is durable.
    pub(crate) fn durable_token(&self) -> u64 {
        self.written
    }

    /// (lineage, epoch) of the newest view that is durable.
    pub(crate) fn stable_order(&self) -> Option<(u32, Epoch)> {
        self.stable
    }

    /// Puts out what may depend on anything that was persisted before: not before that is durable.
    pub(crate) fn emit(&mut self, output: Output) {
        if self.issued > self.written && !planted!(SpeaksBeforeDurable) {
            self.waiting.push_back((self.issued, output));
        } else {
            self.outputs.push_back(output);
        }
    }

    /// Puts out what depends on nothing that is not durable.
    pub(crate) fn emit_now(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn note(&mut self, reason: &'static str, group: Option<GroupName>, warning: bool, message: String) {
        let known = group.as_ref().and_then(|name| self.durable.table.get(name));
        let operation = known.and_then(|known| known.operation.clone());
        self.note_by(reason, group, warning, message, operation);
    }

    /// The same on behalf of somebody.
    pub(crate) fn note_by(
        &mut self,
        reason: &'static str,
        group: Option<GroupName>,
        warning: bool,
        message: String,
        operation: Option<String>,
    ) {
        let epoch = self.durable.view.as_ref().map_or(0, |view| view.epoch);
        self.emit_now(Output::Note(Note { reason, group, epoch, operation, message, warning }));
    }

    /// Says the same sentence under one key only once per process.
    pub(crate) fn note_once(&mut self, key: &str, reason: &'static str, message: String) {
        if self.said.insert(format!("{key}: {message}")) {
            self.note(reason, None, true, message);
        }
    }
}
