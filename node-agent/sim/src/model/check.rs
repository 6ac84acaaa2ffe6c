//! The invariants, as checks on the state of the model; none of them asks a server for its opinion.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::durable::Durable;
use holdfast_core::frame::Frame;
use holdfast_core::lock::LockRecord;
use holdfast_core::names::AcceptorId;
use holdfast_core::view::{Evidence, View};

use super::host::boot_id;
use super::shared::print;
use super::state::State;

/// (lineage, epoch).
type Order = (u32, u64);

/// What happened, as far as the checks need it.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct Seen {
    /// The view that somebody made durable.
    views: BTreeMap<Order, View>,
    /// Who accepted which successors of a view (by their hashes): servers in their ledgers, the lock by landed records.
    accepted: BTreeMap<(Order, AcceptorId), BTreeSet<u64>>,
}

impl State {
    pub(super) fn violates(&mut self, check: &'static str, text: String) {
        self.violation.get_or_insert((check, text));
    }

    /// A ledger write is durable: I-a, I-f, I-g.
    pub(super) fn check_ledger(&mut self, server: usize, state: &Durable) {
        let host = &self.hosts[server];
        let known = host.ledger.view.as_ref().map_or((0, 0), View::order);
        let name = host.name.clone();
        let base = state.view.as_ref().map_or((0, 0), View::order);
        if base < known {
            self.violates("I-f", format!("{name} went back from epoch {} to {}", known.1, base.1));
        }
        if let Some(view) = state.view.as_ref().filter(|_| base > known) {
            self.check_view(&name.0, view);
        }
        if let Some((_, value)) = &state.accepted {
            self.accepts(base, state.acceptor, value);
        }
    }

    fn check_view(&mut self, server: &str, view: &View) {
        match self.seen.views.get(&view.order()) {
            Some(known) if known != view => {
                let (ours, theirs) = (names(view), names(known));
                return self.violates("I-a", format!("view {} is {ours} on {server}, {theirs} elsewhere", view.epoch));
            }
            Some(_) => return,
            None => {}
        }
        self.seen.edit().views.insert(view.order(), view.clone());
        let Some(base) = self.seen.views.get(&(view.lineage, view.epoch - 1)) else { return };
        let value = print(view);
        let accepted =
            |id: &&AcceptorId| self.seen.accepted.get(&(base.order(), **id)).is_some_and(|all| all.contains(&value));
        let have = base.acceptors.values().filter(accepted).count();
        if have < base.quorum() {
            let all = base.acceptors.len();
            let text = format!("{server} adopts view {} of {}, accepted by {have} of {all}", view.epoch, names(view));
            self.violates("I-g", text);
        }
    }

    fn accepts(&mut self, base: Order, acceptor: AcceptorId, value: &View) {
        let value = print(value);
        if !self.seen.accepted.get(&(base, acceptor)).is_some_and(|all| all.contains(&value)) {
            self.seen.edit().accepted.entry((base, acceptor)).or_default().insert(value);
        }
    }

    pub(super) fn check_record(&mut self, record: &LockRecord) {
        if let Some((_, value)) = &record.accepted {
            self.accepts((record.lineage, record.epoch), record.lock, value);
        }
    }

    /// I-e: no acceptor acknowledges in an epoch in which it has accepted.
    pub(super) fn check_frame(&mut self, server: usize, frame: &Frame) {
        let ledger = &self.hosts[server].ledger;
        let same = ledger.view.as_ref().map_or((0, 0), View::order) == (frame.lineage, frame.epoch);
        if same && ledger.accepted.is_some() && frame.heard.values().any(|heard| heard.granted > 0) {
            self.violates("I-e", format!("{} acknowledges after it has accepted", frame.from));
        }
    }

    /// The group is about to start: I-b, and I-d where time was written down as evidence. (Without evidence a server may
    /// go on with what it took in an earlier view: nobody else was told to run it there.)
    pub(super) fn check_start(&mut self, server: usize) {
        let me = self.hosts[server].name.clone();
        if let Some(other) = (0..self.hosts.len()).find(|i| *i != server && self.hosts[*i].runs) {
            let other = self.hosts[other].name.clone();
            self.violates("I-b", format!("the group starts on {me} while it runs on {other}"));
        }
        let Some(view) = self.hosts[server].ledger.view.clone() else { return };
        for (key, _) in view.departed.iter().filter(|(_, departed)| departed.evidence == Some(Evidence::Time)) {
            if self.over(server, key).is_some_and(|over| self.now.0 < over) {
                self.violates("I-d", format!("the group starts on {me} before the time of {} is over", key.0));
            }
        }
    }

    /// I-d: time is evidence only when deadline, reset and drain of the departed are over, whether or not a group starts.
    pub(super) fn check_evidence(&mut self) {
        for judge in 0..self.hosts.len() {
            let host = &self.hosts[judge];
            // Whoever has no authority starts nothing, whatever it thinks.
            let Some(core) = host.core.as_ref().filter(|_| self.now < host.deadline.0) else { continue };
            for (key, at) in core.time_evidence() {
                let over = self.over(judge, &key).filter(|over| at.0 < *over && self.now.0 < *over);
                if let Some(over) = over {
                    let ms = (over - at.0) / 1_000_000;
                    let text =
                        format!("{} counts {} out {ms} ms before its time is over", self.hosts[judge].name, key.0);
                    self.violates("I-d", text);
                }
            }
        }
    }

    /// When the deadline, the reset and the drain of a departed boot are over. None: it has no power, another boot, or has
    /// learnt that it is out and holds nothing.
    fn over(
        &self,
        judge: usize,
        (name, boot): &(holdfast_core::names::ServerName, holdfast_core::names::BootId),
    ) -> Option<u64> {
        let other = self.hosts.iter().position(|host| host.name == *name).filter(|other| *other != judge)?;
        let host = &self.hosts[other];
        let ended = host.ledger.accepted.as_ref().is_some_and(|(_, value)| !value.admits(name, *boot));
        let learnt = host.ledger.view.as_ref().is_some_and(|known| !known.admits(name, *boot));
        let stopped = (ended || learnt) && !host.runs;
        let held = *boot == boot_id(other, host.boot) && host.deadline.2.0 > 0 && !stopped;
        held.then(|| host.deadline.2.0 + self.slack)
    }
}

fn names(view: &View) -> String {
    let names: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
    names.join("+")
}
