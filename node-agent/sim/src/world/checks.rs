//! The invariants of the protocol, each a named check on the world: on what runs, what is durable, what is said. None
//! of them asks a server for its opinion.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::durable::Durable;
use holdfast_core::frame::Frame;
use holdfast_core::lock::LockRecord;
use holdfast_core::message::{Assignment, Message};
use holdfast_core::names::{AcceptorId, GroupName};
use holdfast_core::view::{Ballot, Evidence, Tag, View};

use super::World;
use super::faults::Moment;

/// (lineage, epoch).
type Order = (u32, u64);

/// What the checks remember.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The view that somebody made durable.
    views: BTreeMap<Order, View>,
    /// Who accepted which successor of a view: servers in their ledgers, the lock by landed records.
    accepted: BTreeMap<(Order, AcceptorId), Vec<View>>,
    /// The highest ballot that an acceptor said it promised.
    promised: BTreeMap<(Order, AcceptorId), Ballot>,
    /// What was said under a tag.
    tags: BTreeMap<(GroupName, Tag), Assignment>,
    /// Highest generation of a group that was ever started.
    generations: BTreeMap<GroupName, u64>,
}

impl Seen {
    /// Whether some view was ever made durable that is so.
    pub(super) fn any(&self, is: impl Fn(&View) -> bool) -> bool {
        self.views.values().any(is)
    }

    /// The newest view that anybody has.
    pub(super) fn newest(&self) -> Option<View> {
        self.views.last_key_value().map(|(_, view)| view.clone())
    }
}

impl World {
    pub(super) fn violation(&mut self, check: &str, text: String) {
        self.say(format!("VIOLATION {check}: {text}"));
        self.violations.push(format!("{check}: {text}"));
    }

    /// Before a resource of `group` starts on `server`.
    pub(super) fn check_start(&mut self, server: usize, group: &GroupName, generation: u64) {
        let me = self.hosts[server].name.clone();
        self.say(format!("{me}: starts a resource of {group}, generation {generation}"));
        // I-b: the moment of truth. An address on a machine that stood still, while its time was counted, may be answered
        // twice for a moment: nothing is shared (R12).
        let shared = self.groups.get(group).is_none_or(|config| config.shared_data);
        let elsewhere = self.hosts.iter().enumerate().find(|(other, host)| {
            *other != server
                && host.powered
                && (shared || !self.is_lagging(*other))
                && host.running.iter().any(|(name, _)| name == group)
        });
        if let Some((_, other)) = elsewhere {
            let text = format!("{group} starts on {me} while it runs on {}", other.name);
            self.violation("I-b", text);
        }
        self.check_departed(server, group);
        self.check_start_after_force(server, group);
        // I-f: what was assigned is started, nothing else; and specs acted on never go back.
        let told = self.hosts[server].ledger.held.get(group).map(|assignment| assignment.generation);
        let running = self.hosts[server].running.iter().any(|(name, _)| name == group);
        if let Some(told) = told.filter(|told| *told != generation && !running) {
            let text = format!("{me} was told to start {group} at generation {told} and starts {generation}");
            self.violation("I-f", text);
        }
        let acted = self.seen.generations.entry(group.clone()).or_default();
        if generation < *acted {
            let text = format!("{group} starts on {me} at generation {generation}, {acted} was acted on before");
            self.violation("I-f", text);
        } else {
            *acted = generation;
        }
        self.happens(server, Moment::Starts);
    }

    /// I-c, I-d: no departed server may still hold the group. One that has not learnt that it departed, and has not lost
    /// power, must be past its deadline, its reset and the drain.
    fn check_departed(&mut self, server: usize, group: &GroupName) {
        let Some(view) = self.hosts[server].ledger.view.clone() else { return };
        let Some(config) = self.groups.get(group).cloned() else { return };
        // What it was given while the other was a member is its own, also after the other has departed.
        let held = self.hosts[server].ledger.held.get(group);
        if held.is_some_and(|assignment| (assignment.tag.lineage, assignment.tag.epoch) < view.order()) {
            return;
        }
        for ((name, boot), departed) in &view.departed {
            if !matches!(departed.evidence, None | Some(Evidence::Time)) {
                continue;
            }
            let Some(other) = self.hosts.iter().position(|host| host.name == *name) else { continue };
            let host = &self.hosts[other];
            let same = host.powered && *boot == holdfast_core::names::BootId(super::host::boot_id(other, host.boot));
            let learnt = host.ledger.view.as_ref().is_some_and(|known| !known.admits(name, *boot));
            // Who accepted its own end while it held nothing starts nothing any more (R3).
            let accepted = host.ledger.accepted.as_ref();
            let ended = accepted.is_some_and(|(_, value)| !value.admits(name, *boot)) && host.running.is_empty();
            let lags = !config.shared_data && self.is_lagging(other);
            if other == server || !same || learnt || ended || lags || !config.policy.contains(name) {
                continue;
            }
            if host.running.iter().any(|(running, _)| running == group) {
                self.violation("I-c", format!("{group} starts although departed {name} holds it"));
                continue;
            }
            // A member again: what it may do now it does under a view that came after the end that this start rests on.
            let again = host.ledger.view.as_ref().is_some_and(|known| known.order() > view.order());
            let reset = if config.shared_data { self.slack_of(other) } else { self.reset_of(other) };
            let over = host.deadline.2 + reset;
            if !again && self.now < over && host.deadline.2 > 0 {
                let early = (over - self.now) / 1_000_000;
                let proof = departed.evidence.as_ref().map_or("none written", Evidence::name);
                let text = format!(
                    "{group} starts {early} ms before deadline, reset and drain of {name} are over (view {}, evidence {proof})",
                    view.epoch
                );
                self.violation("I-d", text);
            }
        }
    }

    /// I-d: time is evidence about a departed server only when its deadline, its reset and the drain are over. Looked at
    /// whenever a deadline or a view changes, whether or not a group starts then.
    pub(super) fn check_anchors(&mut self) {
        let mut early = None;
        for (judge, host) in self.hosts.iter().enumerate() {
            // Whoever has no authority starts nothing, whatever it thinks; nor does time prove anything to one that stood still.
            let judges = host.powered && !self.is_lagging(judge) && self.now < host.deadline.0;
            let Some(core) = host.core.as_ref().filter(|_| judges) else { continue };
            for ((name, boot), at) in core.time_evidence() {
                let Some(other) = self.hosts.iter().position(|host| host.name == name) else { continue };
                // Of one that stood still nothing is concluded from time, and the checks on starts see to that.
                if self.is_lagging(other) {
                    continue;
                }
                let departed = &self.hosts[other];
                let same = departed.powered && boot.0 == super::host::boot_id(other, departed.boot);
                let (over, evidence) = (departed.deadline.2 + self.slack_of(other), self.moment(judge, at));
                // Who accepted its own end while it held nothing starts nothing any more.
                let ended = departed.ledger.accepted.as_ref().is_some_and(|(_, value)| !value.admits(&name, boot));
                let learnt = departed.ledger.view.as_ref().is_some_and(|known| !known.admits(&name, boot));
                // One that is a member again acts under a newer view, whose coordinator waits for this judge's report.
                let again = departed.ledger.view.as_ref().map(View::order) > host.ledger.view.as_ref().map(View::order);
                if (ended || learnt || again) && departed.running.is_empty() {
                    continue;
                }
                if same && departed.deadline.2 > 0 && evidence < over && self.now < over {
                    let ms = (over - evidence) as f64 / 1e6;
                    early = Some(format!("{} counts {name} out {ms:.1} ms before its time is over", host.name));
                }
            }
        }
        if let Some(text) = early {
            self.violation("I-d", text);
        }
    }

    /// Everything that a ledger says when it becomes durable. Returns whether it holds a newer view.
    pub(super) fn check_ledger(&mut self, server: usize, state: &Durable) -> bool {
        let mut adopted = false;
        let name = self.hosts[server].name.clone();
        if let Some(view) = &state.view {
            // I-f: knowledge never goes back.
            let known = self.seen_order.get(&server).copied().unwrap_or_default();
            if view.order() < known && !self.reverted.contains(&server) {
                self.violation("I-f", format!("{name} went back from epoch {} to {}", known.1, view.epoch));
            }
            // R22: two force-reinstates make two chains that never meet.
            let before = self.hosts[server].ledger.view.as_ref();
            if before.is_some_and(|before| before.lineage == view.lineage && before.chain != view.chain) {
                self.violation("R22", format!("{name} goes over to another chain of its lineage {}", view.lineage));
            }
            if view.order() > known {
                self.seen_order.insert(server, view.order());
                self.check_view(&name.0, view);
                adopted = true;
            }
        }
        let base = state.view.as_ref().map_or((0, 0), View::order);
        // I-a: nothing is accepted below a promise that was given before.
        if let Some((ballot, _)) = &state.accepted
            && state.accepted != self.hosts[server].ledger.accepted
            && self.seen.promised.get(&(base, state.acceptor)).is_some_and(|promised| ballot < promised)
        {
            let text = format!("{name} accepts its own round {} after promising a higher ballot", ballot.round);
            self.violation("I-a", text);
        }
        if let Some((_, value)) = &state.accepted {
            self.accepts(base, state.acceptor, value);
        }
        // I-f: an assignment is taken in its own epoch only.
        for (group, assignment) in &state.held {
            let known = self.hosts[server].ledger.held.get(group).map(|known| known.tag);
            let order = (assignment.tag.lineage, assignment.tag.epoch);
            let news = known != Some(assignment.tag);
            let ended = state.accepted.as_ref().is_some_and(|(_, value)| !value.admits(&name, state.boot));
            if news && ended {
                let text = format!("{name} takes {group} after it has accepted a view without itself");
                self.violation("I-e", text);
            }
            if news && order != base {
                let text = format!("{name} takes {group} under epoch {} in epoch {}", order.1, base.1);
                self.violation("I-f", text);
            }
        }
        for (group, assignment) in &state.table {
            let key = (group.clone(), assignment.tag);
            match self.seen.tags.get(&key) {
                Some(known) if known != assignment => {
                    let (server, other) = (assignment.server.clone(), known.server.clone());
                    let text = format!("two assignments of {group} under one tag: {server:?} and {other:?}");
                    self.violation("I-f", text);
                }
                Some(_) => {}
                None => {
                    self.seen.tags.insert(key, assignment.clone());
                }
            }
        }
        adopted
    }

    /// I-a: one successor per epoch. I-g: decided by a quorum of the acceptors that its predecessor names, with the
    /// state that they had.
    fn check_view(&mut self, server: &str, view: &View) {
        match self.seen.views.get(&view.order()) {
            // Another chain of the lineage (R22): what is decided there has nothing to do with this one.
            Some(known) if known.chain != view.chain && view.lineage > 1 => return,
            Some(known) if known != view => {
                let (ours, theirs) = (names(view), names(known));
                let text = format!("view {} is {ours} on {server} and {theirs} elsewhere", view.epoch);
                return self.violation("I-a", text);
            }
            Some(_) => return,
            None => {}
        }
        self.seen.views.insert(view.order(), view.clone());
        let base = self.seen.views.get(&(view.lineage, view.epoch - 1)).cloned();
        self.check_operator(view, base.as_ref());
        let Some(base) = base else { return };
        self.check_settings(&base, view);
        // I-c: whoever joins holds nothing; the ledger of a machine without power says nothing about what runs.
        for (name, member) in view.members.iter().filter(|(name, member)| !base.admits(name, member.boot)) {
            let holds = self.hosts.iter().any(|host| {
                let same = host.name == *name && host.ledger.boot == member.boot;
                host.powered && same && !host.ledger.held.is_empty()
            });
            if holds {
                return self.violation("I-c", format!("{name} joins in view {} while it holds groups", view.epoch));
            }
        }
        let have: BTreeSet<&AcceptorId> = base
            .acceptors
            .values()
            .filter(|id| self.seen.accepted.get(&(base.order(), **id)).is_some_and(|values| values.contains(view)))
            .collect();
        if have.len() < base.quorum() {
            let text = format!(
                "view {} with {} was adopted by {server}, but only {} of {} acceptors had accepted it",
                view.epoch,
                names(view),
                have.len(),
                base.acceptors.len()
            );
            self.violation("I-g", text);
        }
    }

    fn accepts(&mut self, base: Order, acceptor: AcceptorId, value: &View) {
        let values = self.seen.accepted.entry((base, acceptor)).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }

    pub(super) fn check_lock_record(&mut self, record: &LockRecord) {
        if let Some((_, value)) = &record.accepted {
            self.accepts((record.lineage, record.epoch), record.lock, value);
        }
    }

    /// I-a: who has promised a ballot accepts no lower one for the same successor.
    pub(super) fn check_vote(&mut self, server: usize, message: &Message) {
        let acceptor = self.hosts[server].ledger.acceptor;
        match message {
            Message::Promise { order, ballot, .. } => {
                let promised = self.seen.promised.entry((*order, acceptor)).or_default();
                *promised = (*promised).max(*ballot);
            }
            Message::Accepted { order, ballot, .. } => {
                let promised = self.seen.promised.get(&(*order, acceptor)).copied().unwrap_or_default();
                if *ballot < promised {
                    let name = self.hosts[server].name.clone();
                    let text = format!("{name} accepts round {} after promising {}", ballot.round, promised.round);
                    self.violation("I-a", text);
                }
            }
            _ => {}
        }
    }

    /// I-e: no acceptor acknowledges in an epoch in which it has accepted.
    pub(super) fn check_frame(&mut self, server: usize, frame: &Frame) {
        let ledger = &self.hosts[server].ledger;
        let order = ledger.view.as_ref().map_or((0, 0), View::order);
        let says = frame.heard.values().any(|heard| heard.granted > 0);
        if says && ledger.accepted.is_some() && order == (frame.lineage, frame.epoch) {
            let text = format!("{} acknowledges in epoch {} after it has accepted", frame.from, frame.epoch);
            self.violation("I-e", text);
        }
    }

    /// R1: a view of which two members are not connected is replaced.
    pub(super) fn check_connected(&mut self) {
        let Some(view) = self.seen.newest() else { return };
        let members: Vec<usize> =
            (0..self.hosts.len()).filter(|i| view.members.contains_key(&self.hosts[*i].name)).collect();
        let works = |a: usize, b: usize, lan: &str| {
            !self.cut.contains(&(a, b, lan.into())) && !self.cut.contains(&(b, a, lan.into()))
        };
        let apart = members
            .iter()
            .flat_map(|a| members.iter().map(move |b| (*a, *b)))
            .find(|(a, b)| a < b && !super::network::LANS.iter().any(|lan| works(*a, *b, lan)));
        if let Some((a, b)) = apart {
            let (a, b) = (self.hosts[a].name.clone(), self.hosts[b].name.clone());
            self.violation("R1", format!("{a} and {b} are members of view {} without a LAN", view.epoch));
        }
    }

    /// A server without a valid lease runs nothing.
    pub(super) fn check_leases(&mut self) {
        for server in 0..self.hosts.len() {
            let (host, slack) = (&self.hosts[server], self.slack_of(server));
            let awake = host.powered && !self.is_lagging(server);
            if awake && !host.running.is_empty() && self.now > host.deadline.2 + slack {
                let late = (self.now - host.deadline.2) / 1_000_000;
                let text = format!("{} runs groups {late} ms after its lease has ended", host.name);
                self.violation("lease", text);
            }
        }
    }
}

fn names(view: &View) -> String {
    let names: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
    names.join("+")
}
