//! R12 (Power), R19, D27, D28: switching departed servers off, and leaving a server out because a stop failed on it.
//!
//! | state of a call | event | next |
//! |---|---|---|
//! | – | the view left a boot of a server out without evidence; this server coordinates under a lease | `Announced` |
//! | `Announced` | a quorum admits nobody against it ([`crate::fence_exclusion`]) | `Firing` |
//! | `Announced` | anything of the above ends, or a value admits the server | – |
//! | `Firing` | verified off | `Restoring`: evidence Power |
//! | `Firing` | every level failed | `Failed`: again after [`AGAIN`] while nothing else proves it |
//! | `Firing`, `Restoring` | this server has no lease any more | cancelled, then as it ends |
//! | `Restoring` | switched on again, or left off as configured | `Off` |
//!
//! Who fires: the coordinator, so one member of the one view that a quorum decided; two sides never shoot at each
//! other. If it dies, the next view's coordinator fires again: switching off what is off is no harm, and whoever was
//! verified off stays proven, because a boot id never comes back.
//!
//! A call never outlives the authority of its server (the guard kills it at the lease's end), so the time that proves
//! that a departed server holds nothing proves that it fences nobody either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Config, FencingMode};
use crate::core::Core;
use crate::frame::{FenceState, Frame};
use crate::names::{BootId, ServerName};
use crate::orders::Power;
use crate::output::{OpId, Output};
use crate::planted::planted;
use crate::status::FenceStatus;
use crate::time::Instant;
use crate::view::{DepartedKey, View};

/// Pause after a call in which every level failed. Devices have their own retries inside a call.
pub(crate) const AGAIN: Duration = Duration::from_secs(20);

/// A call for one boot of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    op: OpId,
    pub(crate) state: FenceState,
    /// What was ordered; none: what the devices are configured for.
    power: Option<Power>,
    pub(crate) since: Instant,
    message: String,
    cancelled: bool,
    /// When it was verified off.
    off: Option<Instant>,
    /// Every level has failed at least once to switch it off.
    failed: bool,
    /// The newest step ended with an error.
    problem: bool,
}

impl Core {
    /// Fires what has to be fired, and calls back what this server has no authority for any more.
    pub(crate) fn drive_fencing(&mut self) {
        let (Some(view), Some(config)) = (self.durable.view.clone(), self.config.clone()) else { return };
        let ordered = self.ordered_fences(&view);
        let meant = |key: &DepartedKey| view.departed.contains_key(key) || ordered.contains_key(key);
        self.fences.retain(|key, call| call.state.in_flight() || meant(key));
        if self.lost_lease() || self.leans_now(&config) {
            self.announced.clear();
            return self.call_back(|_| true);
        }
        if !self.coordinates() || !self.leased() {
            return self.announced.clear();
        }
        if planted!(FiresBeforeDecision) {
            let silent = |name: &&ServerName| self.verdict(name) == crate::peers::Verdict::Suspected;
            let silent = view.members.keys().filter(|name| **name != self.boot.server).find(silent);
            if let Some(name) = silent.filter(|name| config.fencing.covers(name) && !self.fires(name)).cloned() {
                self.fire((name.clone(), view.members[&name].boot), None);
            }
        }
        self.announced.retain(|key, _| meant(key));
        let departed = view.departed.keys().filter(|key| config.fencing.covers(&key.0));
        let keys: BTreeSet<&DepartedKey> = departed.chain(ordered.keys()).collect();
        for key in keys {
            // What safety asks for comes before what an operator does: nothing is switched on that is to be off first.
            let asked = ordered.get(key).copied();
            let needed = self.fence_due(&view, key).map(|due| (due, asked.filter(|power| *power != Power::On)));
            let by_order = || asked.and_then(|power| Some((self.order_due(&view, key, power)?, Some(power))));
            match needed.or_else(by_order) {
                Some((due, power)) if due <= self.now => {
                    if self.may_fire(&view, key) {
                        self.announced.remove(key);
                        self.fire(key.clone(), power);
                    }
                    continue;
                }
                Some((due, _)) => self.wake(due),
                None => {}
            }
            self.announced.remove(key);
        }
    }

    /// When a call for this boot is due; none: not at all, or not before something else changes.
    fn fence_due(&self, view: &View, key: &DepartedKey) -> Option<Instant> {
        // A server that is a member again under another boot is not to be hit; one that never was none holds nothing.
        if !view.departed.contains_key(key) || view.members.contains_key(&key.0) {
            return None;
        }
        let proven = self.departures.get(key).is_some_and(|departure| departure.seen.is_some());
        let by_a_member = || view.members.keys().any(|name| self.says_it_fires(name, &key.0));
        let again = planted!(FiresTwice) && !self.has_call(&key.0);
        if (proven || self.evidence(key).is_some() || self.has_call(&key.0) || by_a_member()) && !again {
            return None;
        }
        match self.fences.get(key) {
            Some(call) if call.state == FenceState::Failed && !call.cancelled => Some(call.since + AGAIN),
            Some(call) if call.state == FenceState::Off && !planted!(FiresTwice) => None,
            _ => Some(self.now),
        }
    }

    fn fire(&mut self, key: DepartedKey, power: Option<Power>) {
        self.next_op += 1;
        let op = self.next_op;
        let server = key.0.clone();
        let (since, state) = (self.now, FenceState::Firing);
        let failed = self.fences.get(&key).is_some_and(|call| call.failed);
        if planted!(FiringIsOff) {
            self.proven_off(&key);
        }
        let message = String::new();
        let call = Call { op, state, power, since, message, cancelled: false, off: None, failed, problem: false };
        self.fences.insert(key, call);
        self.emit(Output::Fence { op, server, power });
        self.beat_soon();
    }

    /// Cancels the calls for these boots.
    pub(crate) fn call_back(&mut self, which: impl Fn(&DepartedKey) -> bool) {
        let open: Vec<OpId> = self
            .fences
            .iter_mut()
            .filter(|(key, call)| which(key) && call.state.in_flight() && !call.cancelled)
            .map(|(_, call)| {
                call.cancelled = true;
                call.op
            })
            .collect();
        for op in open {
            self.emit_now(Output::FenceCancel { op });
        }
    }

    /// The device says that the server is off, and was asked after it had switched it off.
    pub(crate) fn fenced_off(&mut self, op: OpId, message: String) {
        let now = self.now;
        let Some((key, call)) = self.fences.iter_mut().find(|(_, call)| call.op == op) else { return };
        if call.state != FenceState::Firing {
            return;
        }
        (call.state, call.since, call.message) = (FenceState::Restoring, now, message.clone());
        call.off = Some(now);
        let key = key.clone();
        self.proven_off(&key);
        // Whatever boot was heard last has ended, too, if it had booted again meanwhile. What still arrives of it is late.
        let heard = self.peers.get(&key.0).and_then(|peer| peer.frame.as_ref());
        self.ended.extend(heard.map(|frame| (key.0.clone(), frame.boot)));
        self.ended.insert(key.clone());
        self.note("FenceDone", None, false, format!("{} is verified off: {message}", key.0));
        self.beat_soon();
    }

    /// Nothing of the call is in flight any more.
    pub(crate) fn fence_ended(&mut self, op: OpId, result: Result<(), String>) {
        let now = self.now;
        let Some((key, call)) = self.fences.iter_mut().find(|(_, call)| call.op == op) else { return };
        let server = key.0.clone();
        let off = call.state == FenceState::Restoring;
        let switched_on = call.power == Some(Power::On);
        call.state = match off {
            true => FenceState::Off,
            false if switched_on && result.is_ok() => FenceState::On,
            false => FenceState::Failed,
        };
        (call.since, call.problem) = (now, result.is_err());
        call.failed |= !off && !call.cancelled && !switched_on;
        if let Err(message) = result {
            call.message.clone_from(&message);
            let what = match off {
                true => "is off, but was not switched on again",
                false if switched_on => "could not be switched on",
                false => "could not be fenced",
            };
            self.note("FenceFailed", None, true, format!("{server} {what}: {message}"));
        }
        self.beat_soon();
    }

    /// R12: what a boot of a server held ended with its power. Only a fact about that boot, so it needs no view.
    fn proven_off(&mut self, key: &DepartedKey) {
        if let Some(departure) = self.departures.get_mut(key)
            && departure.seen.is_none()
        {
            departure.seen = Some((crate::view::Evidence::Power, self.now));
        }
    }

    /// What a fellow member says that it has verified.
    pub(crate) fn learn_fencing(&mut self, frame: &Frame) {
        if !self.durable.view.as_ref().is_some_and(|view| view.admits(&frame.from, frame.boot)) {
            return;
        }
        for (key, _) in frame.fences.iter().filter(|(_, state)| state.is_off()) {
            self.proven_off(key);
        }
    }

    /// Whether elapsed time may count as evidence about a server that can be fenced: with `Required` never, with
    /// `BestEffort` once every level has failed. Not before: whoever configured devices wants the server off first.
    /// A server that is a member again (a cluster start readmits all at once) is past being switched off.
    pub(crate) fn time_may_prove(&self, config: &Config, key: &DepartedKey) -> bool {
        let back = self.durable.view.as_ref().is_some_and(|view| view.members.contains_key(&key.0));
        if back || !config.fencing.covers(&key.0) {
            return back || config.fencing.mode != FencingMode::Required;
        }
        let failed = |frame: &Frame| frame.fences.get(key) == Some(&FenceState::Failed);
        config.fencing.mode == FencingMode::BestEffort
            && (self.fences.get(key).is_some_and(|call| call.failed)
                || self.peers.values().filter_map(|peer| peer.frame.as_ref()).any(failed))
    }

    /// A call of ours for this server is in flight.
    pub(crate) fn has_call(&self, server: &ServerName) -> bool {
        self.fences.iter().any(|(key, call)| key.0 == *server && call.state.in_flight())
    }

    /// R19: nothing was heard of this server since it was verified off, whichever boot of it that ended.
    pub(crate) fn is_off(&self, server: &ServerName, boot: BootId) -> bool {
        let heard = self.peers.get(server).map_or(Instant::ZERO, |peer| peer.received);
        let key = (server.clone(), boot);
        let says = |frame: &Frame| frame.fences.get(&key).is_some_and(|state| state.is_off());
        let off = self.ended.contains(&key)
            || self.fences.iter().any(|(key, call)| key.0 == *server && call.off.is_some_and(|off| heard <= off))
            || self.peers.values().filter_map(|peer| peer.frame.as_ref()).any(says);
        off && !planted!(JoinsOff)
    }

    /// What frames say about calls.
    pub(crate) fn fence_states(&self) -> BTreeMap<DepartedKey, FenceState> {
        // What was switched on, or could not be, proves nothing, nor does a call that was taken back.
        let nothing = |call: &Call| !call.state.in_flight() && call.power == Some(Power::On);
        let taken_back = |call: &Call| call.cancelled && call.state == FenceState::Failed;
        let said = self.fences.iter().filter(|(_, call)| !taken_back(call) && !nothing(call));
        let said = said.map(|(key, call)| (key.clone(), call.state));
        let ended = self.ended.iter().map(|key| (key.clone(), FenceState::Off));
        let announced = self.announced.keys().map(|key| (key.clone(), FenceState::Announced));
        ended.chain(said).chain(announced).collect()
    }

    /// For people: the newest call per server.
    pub(crate) fn fence_status(&self) -> BTreeMap<ServerName, FenceStatus> {
        let one = |boot: BootId, call: &Call| {
            let (state, since, problem) = (call.state, call.since, call.problem);
            FenceStatus { boot, state, since, problem, message: call.message.clone() }
        };
        let mut newest: BTreeMap<ServerName, (BootId, &Call)> = BTreeMap::new();
        for (key, call) in &self.fences {
            let known = newest.entry(key.0.clone()).or_insert((key.1, call));
            if call.since > known.1.since {
                *known = (key.1, call);
            }
        }
        let own = newest.into_iter().map(|(server, (boot, call))| (server, one(boot, call)));
        let mut told: BTreeMap<ServerName, FenceStatus> = own.collect();
        // What another one has carried out.
        let ordered = self.durable.view.as_ref().map(|view| self.ordered_fences(view)).unwrap_or_default();
        for ((server, boot), power) in ordered {
            let key = (server, boot);
            if !self.fences.contains_key(&key) && self.is_carried_out(&key, power) {
                let state = if power == Power::On { FenceState::On } else { FenceState::Off };
                let message = "a fellow server did it, or it runs in another boot".to_owned();
                let status = FenceStatus { boot, state, since: self.started, problem: false, message };
                told.insert(key.0, status);
            }
        }
        told
    }

    /// D27: a stop failed here whose group says `onStopFailure: Fence`, somebody or something can end this server from
    /// outside, and another member may run the group. Then the others leave this server out, and evidence follows.
    pub(crate) fn asks_to_be_left_out(&self) -> bool {
        let (Some(view), Some(config)) = (&self.durable.view, &self.config) else { return false };
        let ended_from_outside = config.fencing.covers(&self.boot.server) || config.watchdog;
        let elsewhere = |policy: &[ServerName]| {
            policy.iter().any(|name| *name != self.boot.server && view.members.contains_key(name))
        };
        ended_from_outside
            && !planted!(StopFailureIgnored)
            && self.machines.values().any(|machine| {
                machine.stop_failed() && machine.config.fence_on_stop_failure && elsewhere(&machine.config.policy)
            })
    }

    /// Members that ask to be left out, or that an operator has switched off; none if nobody would stay.
    pub(crate) fn to_be_left_out(&self, view: &View) -> BTreeSet<ServerName> {
        let asks = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            *name == self.boot.server && self.asks_to_be_left_out()
                || frame.is_some_and(|frame| frame.stop_failed && view.admits(name, frame.boot))
                || self.ordered_off(view, name).is_some()
        };
        let asking: BTreeSet<ServerName> = view.members.keys().filter(|name| asks(name)).cloned().collect();
        if asking.len() == view.members.len() { Default::default() } else { asking }
    }
}
