//! R12, R19: the use of a fence device on a server and the admission of that server exclude each other.
//!
//! Whoever fires and whoever admits are different servers, and what one knows of the other is as old as a heartbeat. So
//! both ask the acceptors, as for a view:
//!
//! - A call is *announced* in heartbeats first. It begins when a quorum of the acceptors, servers all of them, has
//!   acknowledged such a heartbeat in the present epoch. Who has accepted a successor acknowledges nothing (R7).
//! - A server does not accept a successor that admits somebody while it knows of a call for that server, announced or in
//!   flight, or while it does not know what another member does.
//!
//! Two quorums share a server. It either accepted the admission first, and then acknowledges no announcement in this
//! epoch; or it acknowledged the announcement first, and accepts no admission until the call has ended. What a server
//! knows is in no ledger: a new process does not accept before it has heard every member again, or was silent about it
//! for as long as that member's authority lasts (C).
//!
//! The authority of who fires may rest on the lock alone for a while; then those that know of the call may count it as
//! ended. So nobody fires who has to lean on the lock, and a call is cancelled before the first lean.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::core::Core;
use crate::frame::FenceState::Announced;
use crate::frame::Frame;
use crate::names::ServerName;
use crate::planted::planted;
use crate::time::Instant;
use crate::view::{Acceptor, DepartedKey, View};

impl Core {
    /// Announces a call that is due; begins it once a quorum will admit nobody against it. Returns whether it may begin.
    pub(crate) fn may_fire(&mut self, view: &View, key: &DepartedKey) -> bool {
        if planted!(FiresUnannounced) {
            return true;
        }
        match self.announced.get(key) {
            Some(Some(sent)) => self.respected(view, *sent),
            Some(None) => false,
            None => {
                self.announced.insert(key.clone(), None);
                self.beat_soon();
                false
            }
        }
    }

    /// Heartbeats say from now on what is announced.
    pub(crate) fn announced_with(&mut self, sequence: u64) {
        for sent in self.announced.values_mut().filter(|sent| sent.is_none()) {
            *sent = Some(sequence);
        }
        if !self.announced.is_empty() {
            self.wake(self.now); // who is the only acceptor waits for nobody
        }
    }

    /// A quorum of the acceptors, without the lock, knows what was sent then and had accepted no successor at that time.
    /// Only heartbeats over a LAN count: a serial line carries no announcements.
    fn respected(&self, view: &View, sent: u64) -> bool {
        let (me, Some(config)) = (&self.boot.server, &self.config) else { return false };
        let knows = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            frame.filter(|frame| (frame.lineage, frame.epoch) == view.order()).is_some_and(|frame| {
                let lan = |path| config.paths.get(path).is_some_and(|kind| kind.is_lan());
                let heard = frame.heard.get(me);
                view.acceptors.get(&Acceptor::Server(name.clone())) == Some(&frame.acceptor)
                    && heard.is_some_and(|heard| {
                        heard.granted >= sent
                            && heard.paths.iter().any(|(path, (sequence, _))| lan(path) && *sequence >= sent)
                    })
            })
        };
        let agrees = |acceptor: &&Acceptor| match acceptor {
            Acceptor::Lock => false,
            Acceptor::Server(name) if name == me => self.is_acceptor_of(view) && self.durable.accepted.is_none(),
            Acceptor::Server(name) => knows(name),
        };
        view.acceptors.keys().filter(agrees).count() >= view.quorum()
    }

    /// What a value admits comes before a call of ours: nothing is announced any more, and what has begun is called
    /// back. It is accepted once that has ended.
    pub(crate) fn yield_fencing(&mut self, value: &View) {
        if Self::admits_blindly() {
            return;
        }
        let admitted = self.admitted_by(value);
        self.announced.retain(|key, _| !admitted.contains(&key.0));
        self.call_back(|key| admitted.contains(&key.0));
    }

    /// Whether `value` admits a server on which a fence device may be in use: an acceptor of it would break its word.
    pub(crate) fn admits_under_fire(&self, value: &View) -> bool {
        if Self::admits_blindly() {
            return false;
        }
        self.admitted_by(value).iter().any(|name| self.under_fire(name))
    }

    /// For planted bugs only.
    fn admits_blindly() -> bool {
        let accepts = planted!(AcceptsUnderFire);
        accepts || planted!(JoinsUnderFire)
    }

    fn admitted_by(&self, value: &View) -> BTreeSet<ServerName> {
        let member = |name: &ServerName| self.durable.view.as_ref().is_some_and(|view| view.members.contains_key(name));
        value.members.keys().filter(|name| !member(name)).cloned().collect()
    }

    /// A call for this server is announced or in flight, or a member may have one that was not heard of here.
    pub(crate) fn under_fire(&self, server: &ServerName) -> bool {
        let (Some(view), Some(config)) = (&self.durable.view, &self.config) else { return false };
        let unsure = |name: &&ServerName| {
            **name != self.boot.server && *name != server && !self.word_of_now(name, view) && !self.is_over(name, view)
        };
        self.fires(server)
            || self.peers.keys().any(|name| self.says_it_fires(name, server) && !self.is_over(name, view))
            || config.fencing.covers(server) && view.members.keys().any(|name| unsure(&name))
    }

    /// The newest heartbeat of a member is of this epoch, and from after the start of this process: what the process
    /// before may have acknowledged is in it.
    fn word_of_now(&self, name: &ServerName, view: &View) -> bool {
        let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
        frame.filter(|frame| (frame.lineage, frame.epoch) == view.order()).is_some_and(|frame| {
            let heard = frame.heard.get(&self.boot.server);
            heard.is_some_and(|heard| heard.paths.values().any(|(sequence, _)| *sequence >= self.started.0))
        })
    }

    /// The authority of a server that is silent, or that departed, is over, and with it its calls.
    fn is_over(&self, name: &ServerName, view: &View) -> bool {
        let peer = self.peers.get(name);
        if view.stopped {
            return true; // nobody acts under it, nor under any view before
        }
        if let Some(member) = view.members.get(name) {
            let heard = peer.map_or(Instant::ZERO, |peer| peer.received);
            return self.now >= heard.max(self.started) + member.timing.takeover_wait;
        }
        let boot = peer.and_then(|peer| peer.frame.as_ref()).map(|frame| frame.boot);
        view.departed.keys().any(|key| key.0 == *name && Some(key.1) == boot && self.is_silenced(key))
    }

    /// A departed boot of a server has no authority any more.
    fn is_silenced(&self, key: &DepartedKey) -> bool {
        self.evidence(key).is_some() || self.time_is_over(key)
    }

    /// R19, D28: why nobody proposes to admit this server now: a call for it may be under way here, at a member, or at a
    /// server that departed after its last word.
    pub(crate) fn fence_in_flight(&self, config: &Config, server: &ServerName) -> bool {
        let departed = self.durable.view.iter().flat_map(|view| view.departed.keys());
        let mut lost = departed.filter(|key| key.0 != *server && !self.is_silenced(key));
        !planted!(JoinsUnderFire) && (self.under_fire(server) || config.fencing.covers(server) && lost.next().is_some())
    }

    /// A call of ours for this server is announced or in flight.
    pub(crate) fn fires(&self, server: &ServerName) -> bool {
        self.announced.keys().any(|key| key.0 == *server) || self.has_call(server)
    }

    /// The newest frame of `peer` says that a call of its is announced or in flight.
    pub(crate) fn says_it_fires(&self, peer: &ServerName, server: &ServerName) -> bool {
        let frame = self.peers.get(peer).and_then(|peer| peer.frame.as_ref());
        frame.is_some_and(|frame| frame.fences.iter().any(|(key, state)| key.0 == *server && state.in_flight()))
    }

    /// Others wait for the acknowledgement of what a heartbeat announces.
    pub(crate) fn answer_announcement(&mut self, before: Option<&Frame>, frame: &Frame) {
        let new = |(key, state): (&DepartedKey, _)| {
            state == &Announced && before.and_then(|before| before.fences.get(key)) != Some(&Announced)
        };
        if frame.fences.iter().any(new) {
            self.beat_soon();
        }
    }
}
