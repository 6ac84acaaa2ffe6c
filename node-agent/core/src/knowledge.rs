//! R6, R10–R12: learning and adopting views, telling them, and the evidence about servers that departed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::Core;
use crate::message::Message;
use crate::names::{BootId, GroupName, ServerName};
use crate::output::Output;
use crate::planted::planted;
use crate::status::Resolution;
use crate::time::Instant;
use crate::view::{Acceptor, DepartedKey, Epoch, Evidence, Member, View};

/// What this server knows about one departed boot of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Departure {
    /// R10: the last moment at which anybody of the deciding quorum acknowledged it; unknown: now.
    pub(crate) anchor: Instant,
    /// Seen with our own eyes: a clean stop, or a new boot (with its moment).
    pub(crate) seen: Option<(Evidence, Instant)>,
}

impl Core {
    /// Compares the sender's knowledge with ours: whoever is behind is told, and answered nothing else.
    pub(crate) fn compare_knowledge(&mut self, from: &ServerName, order: (u32, Epoch)) {
        let Some(stable) = self.stable_order() else { return };
        let Some(config) = self.config.clone() else { return };
        if order >= stable {
            return;
        }
        let Some(peer) = self.peers.get_mut(from) else { return };
        if self.now.since(peer.told) < config.interval {
            return;
        }
        peer.told = self.now;
        self.tell(from.clone());
    }

    /// Tells one server the newest view.
    fn tell(&mut self, to: ServerName) {
        let Some(view) = self.durable.view.clone() else { return };
        let elapsed = view
            .departed
            .keys()
            .filter_map(|key| Some((key.0.clone(), self.now.since(self.departures.get(key)?.anchor))))
            .collect();
        self.emit(Output::Send { to, message: Box::new(Message::Learn { view, elapsed }) });
    }

    /// Tells every configured server, members and others.
    pub(crate) fn tell_everybody(&mut self) {
        let Some(config) = self.config.clone() else { return };
        let me = self.boot.server.clone();
        for name in config.servers.keys().filter(|name| **name != me) {
            self.tell(name.clone());
        }
    }

    /// R6: somebody tells a view.
    pub(crate) fn on_learn(&mut self, view: View, elapsed: BTreeMap<ServerName, Duration>) {
        if let Some(own) = &self.durable.view {
            if own.cluster != view.cluster {
                let message = format!("a peer is in sub-cluster {}, this server in {}", view.cluster, own.cluster);
                return self.note_once("foreign", "PartitionDetected", message);
            }
            if view.order() <= own.order() || view.lineage > own.lineage && planted!(LowerLineageGoesOn) {
                return;
            }
            if self.is_rival_chain(view.lineage, view.chain) {
                return self.note_rival_chain("a peer", view.lineage);
            }
        }
        let anchors = elapsed.into_iter().map(|(name, elapsed)| (name, self.now - elapsed)).collect();
        self.adopt(view, anchors);
    }

    /// Makes `view` the newest one that this server knows (R6). Nothing is acknowledged, promised or started under it
    /// before it is durable.
    pub(crate) fn adopt(&mut self, view: View, anchors: BTreeMap<ServerName, Instant>) {
        let old = self.durable.view.replace(view.clone());
        self.durable.promised = Default::default();
        self.durable.accepted = None;
        let member = view.admits(&self.boot.server, self.boot.boot);
        if member {
            self.durable.clean = view.stopped;
            self.durable.barred = false;
        } else if self.leaving && self.durable.held.is_empty() && self.machines.is_empty() {
            self.durable.clean = true;
        }
        self.retire(old.as_ref());
        self.persist();
        for peer in self.peers.values_mut() {
            peer.granted = 0;
            peer.grant = Instant::ZERO;
            if !planted!(NoResetAtAdoption) {
                peer.last_heard = self.now;
            }
        }
        // Two heartbeats; two retries at the lock still fit before the soft stop of the deadline that stands (D5).
        let patience = self.config.as_ref().map_or(Duration::ZERO, |config| 2 * self.pace(config));
        self.lease.new_epoch(self.now + patience);
        self.forget_lock_purpose();
        self.lock.own = Default::default();
        self.lock.stale = true;
        self.proposal = None;
        self.announced.clear();
        self.desire = Default::default();
        let old_departures = std::mem::take(&mut self.departures);
        self.departures = view
            .departed
            .keys()
            .map(|key| {
                // What was known of an earlier departure of the same boot says nothing about this one.
                let again = old.as_ref().is_some_and(|old| old.admits(&key.0, key.1));
                let known = old_departures.get(key).filter(|_| !again || planted!(EvidenceReused)).cloned();
                let anchor = known.as_ref().map(|departure| departure.anchor);
                let anchor = anchor.or_else(|| anchors.get(&key.0).copied()).unwrap_or(self.now);
                let ended = (self.ended.contains(key) && !planted!(JoinsOff)).then_some((Evidence::Power, self.now));
                (key.clone(), Departure { anchor, seen: known.and_then(|departure| departure.seen).or(ended) })
            })
            .collect();
        self.coordinator.new_epoch();
        self.reporter.new_epoch();
        self.remember_resolution(old.as_ref(), &view);
        let names: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
        let reconfigured = old.as_ref().is_some_and(|old| old.members.keys().eq(view.members.keys()));
        let what = match () {
            () if view.stopped => "shut down",
            () if reconfigured && old.as_ref().is_some_and(|old| old.settings != view.settings) => "reconfigured",
            () => "formed",
        };
        self.note("ViewDecided", None, false, format!("view {} {what} with {}", view.epoch, names.join(", ")));
        if view.coordinator() == Some(&self.boot.server) {
            self.note_comings_and_goings(old.as_ref(), &view);
        }
        let generation = old.as_ref().map(|old| old.config_generation);
        if generation.is_some_and(|old| old != view.config_generation) && view.coordinator() == Some(&self.boot.server)
        {
            let message = format!("generation {} of the sub-cluster is in force", view.config_generation);
            self.note("ConfigAdopted", None, false, message);
        }
        if !member {
            let held = !self.machines.is_empty();
            self.stop_everything("this server is not in the newest view");
            if held {
                self.note("LeaseLost", None, true, "left out of the newest view: stopping everything".into());
            }
        }
        self.beat_soon();
    }

    /// Tells people who was left out without having said that it leaves, and who is there again.
    fn note_comings_and_goings(&mut self, old: Option<&View>, view: &View) {
        let Some(old) = old else { return };
        let lost: Vec<ServerName> = lost(old, view).cloned().collect();
        for name in lost {
            let evidence = self.resolution.as_ref().filter(|known| known.epoch == view.epoch).map(|known| known.cause);
            let why = if evidence == Some("Partition") { "no LAN connects it" } else { "it is silent" };
            self.note("ServerLost", None, true, format!("{name} was left out of view {}: {why}", view.epoch));
        }
        let returned =
            view.members.keys().filter(|name| !old.members.contains_key(*name) && **name != self.boot.server);
        for name in returned.cloned().collect::<Vec<_>>() {
            self.note("ServerReturned", None, false, format!("{name} is in view {}", view.epoch));
        }
    }

    /// C4: how the loss was resolved, for people.
    fn remember_resolution(&mut self, old: Option<&View>, view: &View) {
        let Some(old) = old else { return };
        let lost: Vec<ServerName> = lost(old, view).cloned().collect();
        let Some(first) = lost.first() else { return };
        let trouble = self.trouble.take();
        let (began, detection) = trouble.unwrap_or((self.now, Duration::ZERO));
        let silent = self.verdict(first) == crate::peers::Verdict::Suspected;
        self.resolution = Some(Resolution {
            epoch: view.epoch,
            cause: if silent { "PeerSilent" } else { "Partition" },
            verdict: if silent { "ServerLost" } else { "Partition" },
            paths: self.silent_paths(first),
            arbiter: match self.config.as_ref().and_then(|config| config.lock) {
                Some(kind) if old.acceptors.contains_key(&Acceptor::Lock) => kind.name(),
                _ => "Majority",
            },
            evidence: None,
            detection,
            resolution: self.now.since(began),
            wait: None,
            at: self.now,
            lost,
        });
    }

    /// Notes when the trouble began that may end in a new view: for the time chart only.
    pub(crate) fn watch_trouble(&mut self) {
        let Some(view) = self.durable.view.clone() else { return };
        if !self.acting() {
            return;
        }
        let mut worst: Option<(ServerName, &'static str, Duration)> = None;
        for name in view.members.keys().filter(|name| **name != self.boot.server) {
            let silence =
                self.peers.get(name).map_or(Duration::ZERO, |peer| self.now.since(peer.received.max(self.baseline)));
            match self.verdict(name) {
                crate::peers::Verdict::Suspected => worst = Some((name.clone(), "ServerSuspected", silence)),
                crate::peers::Verdict::Partitioned => {
                    let lan = self.config.as_ref().map_or(silence, |config| config.timeout);
                    worst = worst.or(Some((name.clone(), "PartitionDetected", lan)));
                }
                crate::peers::Verdict::Connected => {}
            }
        }
        match (worst, self.trouble) {
            (Some((name, reason, silence)), None) => {
                self.trouble = Some((self.now, silence));
                let message = match reason {
                    "ServerSuspected" => format!("{name} is silent on all paths for {} ms", silence.as_millis()),
                    _ => format!("{name} is alive, but no LAN connects it any more"),
                };
                self.note(reason, None, true, message);
            }
            (None, Some(_)) => self.trouble = None,
            _ => {}
        }
    }

    /// R12: what a departed server itself shows: that it stopped, or that it rebooted. `is` says whether it speaks from
    /// that boot, `idle` that it holds nothing.
    pub(crate) fn watch_departed(
        &mut self,
        from: &ServerName,
        is: impl Fn(BootId) -> bool,
        order: (u32, Epoch),
        idle: bool,
        is_virtual: bool,
    ) {
        // The view that left it out, not the newest one that is durable here: a member of the view before may still
        // start something under that one.
        let left_out = self.durable.view.as_ref().map(|view| view.order()).unwrap_or_default();
        let left_out = if planted!(CleanBeforeLearning) { (0, 0) } else { left_out };
        for ((name, boot), departure) in &mut self.departures {
            if name != from || departure.seen.is_some() {
                continue;
            }
            // Clean: it knows the view that left it out, so it starts nothing more, and it holds nothing.
            if is(*boot) && order >= left_out && idle {
                departure.seen = Some((Evidence::Clean, self.now));
            } else if !is(*boot) && !is_virtual {
                departure.seen = Some((Evidence::Rebooted, self.now));
            }
        }
    }

    /// Whether a new boot of a physical machine was seen.
    pub(crate) fn rebooted(&self, server: &ServerName, boot: BootId) -> bool {
        let departure = self.departures.get(&(server.clone(), boot));
        departure.is_some_and(|departure| matches!(departure.seen, Some((Evidence::Rebooted, _))))
    }

    /// The evidence for one departed boot, of the kinds that cover everything it may hold: what others wrote into the
    /// view, what was seen here, or that its time is over.
    pub(crate) fn evidence(&self, key: &DepartedKey) -> Option<Evidence> {
        let departed = self.durable.view.as_ref()?.departed.get(key)?;
        if let Some(evidence) = &departed.evidence {
            return Some(evidence.clone());
        }
        let allowed = self.config.as_ref().is_some_and(|config| {
            (!departed.is_virtual || config.time_on_virtual_machines || planted!(TimeOnPausedMachine))
                && (self.time_may_prove(config, key) || planted!(RequiredIgnored))
        });
        self.seen_evidence(key).or_else(|| (allowed && self.time_is_over(key)).then_some(Evidence::Time))
    }

    /// R12, R13: whether the evidence for one departed boot covers a group. Time on a virtual machine proves nothing
    /// about shared data (a paused machine writes when it is resumed), but an address that has been taken over is at
    /// worst answered twice for a moment.
    pub(crate) fn covers(&self, key: &DepartedKey, group: &GroupName) -> Option<Evidence> {
        self.evidence(key).or_else(|| {
            let shared = self.groups.get(group).is_none_or(|config| config.shared_data);
            (!shared && self.time_is_over(key)).then_some(Evidence::Time)
        })
    }

    fn seen_evidence(&self, key: &DepartedKey) -> Option<Evidence> {
        let (evidence, at) = self.departures.get(key)?.seen.clone()?;
        let drain = self.config.as_ref().map_or(Duration::ZERO, |config| config.drain);
        // After a reboot the writes of the old incarnation may still drain (A3); a clean stop has none.
        (evidence == Evidence::Clean || self.now.since(at) >= drain).then_some(evidence)
    }

    /// R10, R11: per departed boot, the moment from which time is evidence about it.
    pub fn time_evidence(&self) -> BTreeMap<DepartedKey, Instant> {
        let Some(view) = &self.durable.view else { return BTreeMap::new() };
        let open = view.departed.iter().filter(|(_, departed)| departed.evidence.is_none());
        open.filter_map(|(key, departed)| Some((key.clone(), self.departures.get(key)?.anchor + Self::wait(departed))))
            .collect()
    }

    fn wait(departed: &crate::view::Departed) -> Duration {
        match departed.takeover_wait {
            _ if planted!(NoWait) => Duration::ZERO,
            wait if planted!(WaitWithoutReset) => wait.saturating_sub(Duration::from_millis(250)),
            wait => wait,
        }
    }

    /// R11: C after the anchor.
    pub(crate) fn time_is_over(&self, key: &DepartedKey) -> bool {
        let Some(departed) = self.durable.view.as_ref().and_then(|view| view.departed.get(key)) else { return false };
        self.departures.get(key).is_some_and(|departure| self.now >= departure.anchor + Self::wait(departed))
    }

    /// Wakes when time or drain brings new evidence, and notes the first one for people.
    pub(crate) fn watch_evidence(&mut self) {
        let Some(view) = self.durable.view.clone() else { return };
        let drain = self.config.as_ref().map_or(Duration::ZERO, |config| config.drain);
        for (key, departed) in view.departed.iter().filter(|(_, departed)| departed.evidence.is_none()) {
            if let Some(departure) = self.departures.get(key) {
                let (over, seen) =
                    (departure.anchor + departed.takeover_wait, departure.seen.as_ref().map(|(_, at)| *at + drain));
                self.wake(over);
                if let Some(at) = seen {
                    self.wake(at);
                }
            }
        }
        let Some(resolution) = &self.resolution else { return };
        if resolution.evidence.is_some() {
            return;
        }
        let keys: Vec<&DepartedKey> = view.departed.keys().filter(|(name, _)| resolution.lost.contains(name)).collect();
        let evidence: Option<Vec<Evidence>> = keys.iter().map(|key| self.evidence(key)).collect();
        let Some(last) = evidence.and_then(|all| all.last().cloned()) else { return };
        let wait = self.now.since(resolution.at);
        let lost: Vec<String> = resolution.lost.iter().map(|name| name.0.clone()).collect();
        if let Some(resolution) = &mut self.resolution {
            resolution.evidence = Some(last.name());
            resolution.wait = Some(wait);
        }
        self.note(
            "EvidenceAccepted",
            None,
            false,
            format!("{} no longer holds anything: {}", lost.join(", "), last.name()),
        );
    }
}

/// The members of a view that the next one leaves out without proof that they have stopped.
fn lost<'a>(old: &'a View, view: &'a View) -> impl Iterator<Item = &'a ServerName> {
    let without_proof = |(name, member): &(&ServerName, &Member)| {
        let departed = view.departed.get(&((*name).clone(), member.boot));
        departed.is_some_and(|departed| departed.evidence.is_none())
    };
    old.members.iter().filter(without_proof).map(|(name, _)| name)
}
