//! R1–R4, R6: deciding the successor of a view, once. Paxos among the acceptors of the view, the lock being one.
//!
//! | state | event | next |
//! |---|---|---|
//! | – | a successor is wanted, pre-vote agrees, no reason to wait | phase 1: own promise durable, `Prepare`, ballot on the lock |
//! | phase 1 | quorum of promises | phase 2 with the accepted value of the highest ballot, or ours |
//! | phase 2 | quorum of acceptances | decided: adopt, tell |
//! | any | higher ballot seen | give up, try again later above it |
//! | any | view changed | forget |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::arbiter::Purpose;
use crate::core::Core;
use crate::lock::LockLook;
use crate::message::Message;
use crate::names::ServerName;
use crate::output::Output;
use crate::planted::planted;
use crate::time::Instant;
use crate::view::{Acceptor, Ballot, Epoch, View};

/// Moments (on our clock) at which somebody last acknowledged each server that is left out.
type Anchors = BTreeMap<ServerName, Instant>;

/// A decision that this server tries to bring about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proposal {
    /// The view whose successor it is; before formation: everybody, unanimously.
    pub(crate) base: View,
    pub(crate) ballot: Ballot,
    /// Ours; replaced by an accepted one if phase 1 finds one.
    pub(crate) value: View,
    pub(crate) phase: u8,
    /// Our own promise (phase 1) or acceptance (phase 2) is durable with this token.
    pub(crate) own_token: u64,
    promises: BTreeMap<Acceptor, Option<(Ballot, View)>>,
    accepts: BTreeMap<Acceptor, Anchors>,
    began: Instant,
    sent: Instant,
}

impl Proposal {
    /// How many answers make a quorum.
    fn enough(&self) -> usize {
        if self.value.started && self.base.epoch > 0 && planted!(StartWithoutQuorum) { 1 } else { self.base.quorum() }
    }
}

/// What keeps a wanted successor from being proposed at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Desire {
    /// Members of the wanted view; empty: content.
    pub(crate) members: BTreeSet<ServerName>,
    /// Since when.
    pub(crate) since: Instant,
    /// No new attempt before.
    pub(crate) not_before: Instant,
    /// Highest round seen in this epoch.
    pub(crate) round: u32,
    /// Since when an accepted value is without known outcome.
    pub(crate) accepted_since: Option<Instant>,
}

/// How long another machine under the same number must have been silent before this one takes part. Its heartbeats are
/// looked at once a second, and may be late while its disk is slow.
const NAMESAKE: Duration = Duration::from_secs(10);

impl Core {
    /// Lets the proposer act: want, begin, repeat, give up.
    pub(crate) fn drive_proposal(&mut self) {
        let Some(config) = self.config.clone() else { return };
        if self.outdone() && self.proposal.is_some() {
            self.give_up(Ballot::default());
        }
        if let Some(proposal) = &self.proposal {
            let (began, sent) = (proposal.began, proposal.sent);
            if self.now.since(began) >= config.timeout {
                self.give_up(Ballot::default());
            } else if self.now.since(sent) >= config.interval {
                self.send_proposal();
            } else {
                self.wake(sent + config.interval);
            }
            self.advance_proposal();
            return;
        }
        self.watch_accepted();
        let wanted = self.wanted_successor().filter(|_| !self.outdone());
        let members: BTreeSet<ServerName> = match &wanted {
            Some((value, _)) => value.members.keys().cloned().collect(),
            None => BTreeSet::new(),
        };
        if members != self.desire.members {
            self.desire.members = members;
            self.desire.since = self.now;
            self.beat_soon(); // the others' pre-vote waits for ours
        }
        let finish = self.unknown_outcome(&config);
        let unfinished = || Some((self.durable.accepted.clone()?.1, self.durable.view.clone()?));
        let Some((value, base)) = wanted.or_else(|| if finish && self.acting() { unfinished() } else { None }) else {
            return;
        };
        let ready = self.desire.since.max(self.desire.not_before) + self.patience(&config, &value, &base);
        if self.now < ready && !finish {
            return self.wake(ready);
        }
        if self.now < self.desire.not_before {
            return self.wake(self.desire.not_before);
        }
        if (finish || self.others_agree(&value, &base)) && self.quorum_in_reach(&base) {
            self.begin_proposal(value, base);
        }
    }

    fn watch_accepted(&mut self) {
        match (&self.durable.accepted, self.desire.accepted_since) {
            (Some(_), None) => self.desire.accepted_since = Some(self.now),
            (None, Some(_)) => self.desire.accepted_since = None,
            _ => {}
        }
    }

    /// R1: an accepted value whose outcome is unknown for 3·H has to be brought to an end.
    pub(crate) fn unknown_outcome(&self, config: &crate::config::Config) -> bool {
        let rank = config.servers.keys().take_while(|name| **name != self.boot.server).count() as u32;
        let waited = 3 * config.interval * (1 + rank);
        self.desire.accepted_since.is_some_and(|since| self.now.since(since) >= waited) && !planted!(UnknownOutcomeLeft)
    }

    /// How long this server leaves it to others: the lowest-named takes it at once, the rest after 3·H each; the side
    /// that runs fewer groups leaves the lock to a rival that is alive there.
    fn patience(&self, config: &crate::config::Config, value: &View, base: &View) -> std::time::Duration {
        let me = &self.boot.server;
        let rank = Self::proposers(value, base).iter().take_while(|name| **name != me).count() as u32;
        let contested = base.acceptors.contains_key(&Acceptor::Lock)
            && !planted!(NoRaceDelay)
            && base.members.keys().filter(|name| !value.members.contains_key(*name)).any(|rival| {
                let theirs = self.groups_held_by(rival);
                let ours = self.durable.held.len();
                let alive =
                    self.verdict(rival) == crate::peers::Verdict::Partitioned || self.leans_on_lock(rival, base);
                alive && (theirs > ours || theirs == ours && rival < me)
            });
        let race = if contested { 2 * (config.interval + config.io_timeout) } else { std::time::Duration::ZERO };
        3 * config.interval * rank + race
    }

    /// Who may propose `value`: the members that stay, or, when nobody acts under the old view, those that come back.
    fn proposers<'a>(value: &'a View, base: &View) -> Vec<&'a ServerName> {
        let staying = |(name, member): &(&ServerName, &crate::view::Member)| base.admits(name, member.boot);
        let staying: Vec<&ServerName> = value.members.iter().filter(staying).map(|(name, _)| name).collect();
        if !staying.is_empty() {
            return staying;
        }
        value.members.keys().filter(|name| base.members.contains_key(*name)).collect()
    }

    /// R1: non-binding pre-vote. Everybody who would stay says the same set in its frames.
    fn others_agree(&self, value: &View, base: &View) -> bool {
        Self::proposers(value, base).into_iter().filter(|name| **name != self.boot.server).all(|name| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            frame.is_some_and(|frame| frame.candidate == self.desire.members)
        })
    }

    /// Without a quorum in reach a ballot only disturbs.
    pub(crate) fn quorum_in_reach(&self, base: &View) -> bool {
        let reachable = base.acceptors.keys().filter(|acceptor| match acceptor {
            Acceptor::Lock => self.lock_usable(),
            Acceptor::Server(name) => *name == self.boot.server || self.connected(name),
        });
        reachable.count() >= base.quorum()
    }

    fn begin_proposal(&mut self, value: View, base: View) {
        let id = self.config.as_ref().and_then(|config| config.servers.get(&self.boot.server)).copied().unwrap_or(0);
        let round = self.desire.round.max(self.durable.promised.round).max(self.lock.own.0.round) + 1;
        let ballot = Ballot { round, proposer: id };
        self.desire.round = round;
        let own = self.is_acceptor_of(&base);
        let mut promises = BTreeMap::new();
        if own {
            self.durable.promised = ballot;
            promises.insert(Acceptor::Server(self.boot.server.clone()), self.durable.accepted.clone());
        }
        let own_token = self.persist();
        self.proposal = Some(Proposal {
            base,
            ballot,
            value,
            phase: 1,
            own_token,
            promises,
            accepts: BTreeMap::new(),
            began: self.now,
            sent: self.now,
        });
        self.send_proposal();
        self.advance_proposal();
    }

    /// Whether this server, with the state that it has, is an acceptor of `base` (I-g).
    pub(crate) fn is_acceptor_of(&self, base: &View) -> bool {
        let named = base.acceptors.get(&Acceptor::Server(self.boot.server.clone()));
        named == Some(&self.durable.acceptor) || named.is_some() && planted!(LostStateVotes)
    }

    /// Asks every server acceptor that has not answered yet. The lock is asked by `schedule_lock`.
    fn send_proposal(&mut self) {
        let Some(proposal) = &mut self.proposal else { return };
        proposal.sent = self.now;
        let order = proposal.base.order();
        let ballot = proposal.ballot;
        let (message, answered): (Message, BTreeSet<Acceptor>) = match proposal.phase {
            1 => (Message::Prepare { order, ballot }, proposal.promises.keys().cloned().collect()),
            _ => (
                Message::Accept { order, ballot, value: proposal.value.clone() },
                proposal.accepts.keys().cloned().collect(),
            ),
        };
        let open: Vec<ServerName> = proposal
            .base
            .acceptors
            .keys()
            .filter(|acceptor| !answered.contains(acceptor))
            .filter_map(|acceptor| match acceptor {
                Acceptor::Server(name) if *name != self.boot.server => Some(name.clone()),
                _ => None,
            })
            .collect();
        for to in open {
            self.emit(Output::Send { to, message: Box::new(message.clone()) });
        }
        if let Some(interval) = self.config.as_ref().map(|config| config.interval) {
            self.wake(self.now + interval);
        }
    }

    /// The ballot and phase that the lock has to hear next.
    pub(crate) fn ballot_to_write(&self) -> Option<(Ballot, u8)> {
        let proposal = self.proposal.as_ref()?;
        let asked = proposal.base.acceptors.contains_key(&Acceptor::Lock) && proposal.base.epoch > 0;
        let open = match proposal.phase {
            1 => !proposal.promises.contains_key(&Acceptor::Lock),
            _ => !proposal.accepts.contains_key(&Acceptor::Lock),
        };
        (asked && open && self.lock_usable()).then_some((proposal.ballot, proposal.phase))
    }

    /// R4: our block is on the disk, and this is what the others' say.
    pub(crate) fn lock_answered(&mut self, ballot: Ballot, phase: u8, look: &LockLook, rival: Ballot) {
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.ballot != ballot || proposal.phase != phase {
            return;
        }
        if rival > ballot && !planted!(NoReadAfterWrite) {
            return self.give_up(rival);
        }
        match phase {
            1 => {
                let accepted = Core::accepted_on_lock(look, &proposal.base);
                proposal.promises.insert(Acceptor::Lock, accepted);
            }
            _ => {
                proposal.accepts.insert(Acceptor::Lock, Anchors::new());
            }
        }
        self.advance_proposal();
    }

    /// The lock could not be asked: others may still make a quorum.
    pub(crate) fn ballot_failed(&mut self, purpose: Purpose) {
        if let Purpose::Ballot(..) = purpose {
            self.advance_proposal();
        }
    }

    /// R2: somebody asks for a promise.
    pub(crate) fn on_prepare(&mut self, from: ServerName, order: (u32, Epoch), ballot: Ballot) {
        if !self.votes_in(order) {
            return;
        }
        if ballot < self.durable.promised {
            let promised = self.durable.promised;
            return self.emit(Output::Send { to: from, message: Box::new(Message::Refused { order, promised }) });
        }
        self.yield_to(order, ballot);
        if ballot > self.durable.promised && !planted!(PromiseForgotten) {
            self.durable.promised = ballot;
            self.persist();
        }
        let accepted = self.durable.accepted.clone();
        self.emit(Output::Send { to: from, message: Box::new(Message::Promise { order, ballot, accepted }) });
    }

    /// Promising or accepting a higher ballot ends an own attempt below it: as an acceptor this server must not accept
    /// that any more, and what it writes to the lock must not be another ballot's value.
    fn yield_to(&mut self, order: (u32, Epoch), ballot: Ballot) {
        let lower = |proposal: &Proposal| proposal.base.order() == order && proposal.ballot < ballot;
        if self.proposal.as_ref().is_some_and(lower) && !planted!(OwnBallotKept) {
            self.give_up(ballot);
        }
    }

    /// R3: somebody asks for acceptance.
    pub(crate) fn on_accept(&mut self, from: ServerName, order: (u32, Epoch), ballot: Ballot, value: View) {
        if !self.votes_in(order) {
            return;
        }
        if ballot < self.durable.promised {
            let promised = self.durable.promised;
            return self.emit(Output::Send { to: from, message: Box::new(Message::Refused { order, promised }) });
        }
        self.yield_fencing(&value);
        if self.admits_under_fire(&value) {
            return; // the proposer asks again
        }
        self.yield_to(order, ballot);
        if self.durable.accepted.as_ref().map(|(accepted, _)| *accepted) != Some(ballot) {
            // From this line on we acknowledge nobody in this epoch, and our own vote is withdrawn from our lease.
            self.durable.promised = ballot;
            self.durable.accepted = Some((ballot, value.clone()));
            self.persist();
        }
        let elapsed =
            self.acceptance_anchors(&value).into_iter().map(|(name, anchor)| (name, self.now.since(anchor))).collect();
        self.emit(Output::Send { to: from, message: Box::new(Message::Accepted { order, ballot, elapsed }) });
    }

    /// Another machine goes on under this server's number, and the newest view does not name this boot. One of the two is
    /// a copy, and a copy has the vote of the other one: given by both it would count twice (I-g), with the lock as the
    /// second vote of a quorum on either side. The one that the view names goes on; this one gives no vote, asks for
    /// none, and writes nothing to the lock, until the other one was silent for long.
    pub(crate) fn outdone(&self) -> bool {
        let seen = self.namesake.is_some_and(|at| self.now.since(at) < NAMESAKE);
        seen && !self.acting()
    }

    /// Whether this server may answer for the successor of `order`: only in its own newest, durable epoch.
    fn votes_in(&self, order: (u32, Epoch)) -> bool {
        if self.outdone() {
            return false;
        }
        match &self.durable.view {
            None => order == (0, 0),
            Some(view) => order == view.order() && self.stable_order() == Some(order) && self.is_acceptor_of(view),
        }
    }

    /// This server has accepted a successor without itself: it starts nothing any more in this epoch, so that nobody has
    /// to wait for what it does not hold.
    pub(crate) fn accepted_own_end(&self) -> bool {
        let accepted = self.durable.accepted.as_ref();
        accepted.is_some_and(|(_, value)| !value.admits(&self.boot.server, self.boot.boot))
    }

    /// R3: when this server last acknowledged each member; itself counts as heard now if it is left out and not
    /// verifiably stopped (protocol-why D33).
    fn acceptance_anchors(&self, value: &View) -> Anchors {
        let Some(view) = &self.durable.view else { return Anchors::new() };
        let me = &self.boot.server;
        let anchor = |name: &ServerName| {
            if name == me {
                let stopped = self.machines.is_empty() && self.durable.held.is_empty();
                if value.admits(me, self.boot.boot) || stopped || planted!(VictimsVoteIgnored) {
                    Instant::ZERO
                } else {
                    self.now
                }
            } else {
                self.peers.get(name).map_or(self.started, |peer| peer.last_heard.max(self.started))
            }
        };
        view.members.keys().map(|name| (name.clone(), anchor(name))).collect()
    }

    /// R2, R3: answers.
    pub(crate) fn on_promise(
        &mut self,
        from: ServerName,
        order: (u32, Epoch),
        ballot: Ballot,
        accepted: Option<(Ballot, View)>,
    ) {
        let acceptor = self.acceptor_of(&from);
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.phase == 1
            && proposal.ballot == ballot
            && proposal.base.order() == order
            && acceptor.is_some_and(|id| Core::has_vote(&proposal.base, &from, id))
        {
            proposal.promises.insert(Acceptor::Server(from), accepted);
            self.advance_proposal();
        }
    }

    pub(crate) fn on_accepted(
        &mut self,
        from: ServerName,
        order: (u32, Epoch),
        ballot: Ballot,
        elapsed: BTreeMap<ServerName, std::time::Duration>,
    ) {
        let (now, acceptor) = (self.now, self.acceptor_of(&from));
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.phase == 2
            && proposal.ballot == ballot
            && proposal.base.order() == order
            && acceptor.is_some_and(|id| Core::has_vote(&proposal.base, &from, id))
        {
            // Nothing is added for the way here: later is the safe side.
            let anchors = elapsed.into_iter().map(|(name, elapsed)| (name, now - elapsed)).collect();
            proposal.accepts.insert(Acceptor::Server(from), anchors);
            self.advance_proposal();
        }
    }

    pub(crate) fn on_refused(&mut self, order: (u32, Epoch), promised: Ballot) {
        if self.proposal.as_ref().is_some_and(|proposal| proposal.base.order() == order && promised > proposal.ballot) {
            self.give_up(promised);
        }
    }

    /// The acceptor id that a peer's frames carry: a server that lost its state is another one and has no vote.
    fn acceptor_of(&self, server: &ServerName) -> Option<crate::names::AcceptorId> {
        self.peers.get(server).and_then(|peer| peer.frame.as_ref()).map(|frame| frame.acceptor)
    }

    /// A server votes as the acceptor that the view names, and as no other (I-g).
    fn has_vote(base: &View, server: &ServerName, id: crate::names::AcceptorId) -> bool {
        let named = base.acceptors.get(&Acceptor::Server(server.clone()));
        named == Some(&id) || named.is_some() && planted!(LostStateVotes)
    }

    /// Later, above `seen`; servers with other ids come back at other times.
    fn give_up(&mut self, seen: Ballot) {
        let Some(config) = self.config.clone() else { return };
        let Some(proposal) = self.proposal.take() else { return };
        self.desire.round = self.desire.round.max(seen.round).max(proposal.ballot.round);
        self.desire.not_before = self.now + config.interval * (1 + u32::from(proposal.ballot.proposer) % 8);
        self.wake(self.desire.not_before);
    }

    /// From promises to acceptances to the decision.
    pub(crate) fn advance_proposal(&mut self) {
        let durable = self.durable_token();
        let me = Acceptor::Server(self.boot.server.clone());
        let Some(proposal) = &mut self.proposal else { return };
        let own_durable = durable >= proposal.own_token;
        if proposal.phase == 1 {
            let counted = proposal.promises.keys().filter(|acceptor| **acceptor != me || own_durable).count();
            if counted < proposal.enough() {
                return;
            }
            let accepted = proposal.promises.values().flatten().max_by_key(|(ballot, _)| *ballot);
            if let Some((_, value)) = accepted
                && !planted!(AcceptedValueIgnored)
            {
                proposal.value = value.clone();
            }
            let value = proposal.value.clone();
            self.yield_fencing(&value);
            if self.admits_under_fire(&value) {
                return self.give_up(Ballot::default());
            }
            let Some(proposal) = &mut self.proposal else { return };
            proposal.phase = 2;
            let (ballot, base) = (proposal.ballot, proposal.base.clone());
            if self.is_acceptor_of(&base) {
                self.durable.accepted = Some((ballot, value.clone()));
                let anchors = self.acceptance_anchors(&value);
                let token = self.persist();
                if let Some(proposal) = &mut self.proposal {
                    proposal.accepts.insert(me, anchors);
                    proposal.own_token = token;
                }
            }
            return self.send_proposal();
        }
        let counted = proposal.accepts.keys().filter(|acceptor| **acceptor != me || own_durable).count();
        if counted < proposal.enough() {
            return;
        }
        let Some(proposal) = self.proposal.take() else { return };
        self.decided(proposal, own_durable);
    }

    /// R6, R10: a quorum has accepted; the anchors are the latest of the deciding quorum's.
    fn decided(&mut self, proposal: Proposal, own_durable: bool) {
        let me = Acceptor::Server(self.boot.server.clone());
        let mut anchors = Anchors::new();
        for (acceptor, known) in &proposal.accepts {
            if *acceptor == me && !own_durable || *acceptor != me && planted!(OwnAnchorOnly) {
                continue;
            }
            for (name, anchor) in known {
                let entry = anchors.entry(name.clone()).or_default();
                *entry = (*entry).max(*anchor);
            }
        }
        if proposal.accepts.contains_key(&Acceptor::Lock) && !planted!(NoLockAnchor) {
            for name in proposal.base.members.keys() {
                if let Some(anchor) = self.lock_anchor(name, &proposal.base) {
                    let entry = anchors.entry(name.clone()).or_default();
                    *entry = (*entry).max(anchor);
                }
            }
        }
        self.adopt(proposal.value, anchors);
        self.tell_everybody();
    }
}
