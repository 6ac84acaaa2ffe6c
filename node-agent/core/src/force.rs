//! R22: one server becomes the base of a new lineage, because a person says so.
//!
//! | state | event | next |
//! |---|---|---|
//! | – | an order for this server and for its newest view, and nobody goes on without a person | claim on the lock, or, where none can be reached, decided |
//! | claimed | the look after the claim shows no other claim, lineage or chain | decided |
//! | claimed | it shows one | refused, with the reason; the claim is taken back |
//!
//! Who decides is the operator: his word is the evidence about every other server, so no acceptor is asked. What the
//! machine adds is that it can't be done twice by mistake: of two servers that claim on one lock, at least one reads the
//! other's claim (write, then read, as in R4), and whoever has learnt of a force-reinstate elsewhere refuses its own.

use std::collections::BTreeMap;

use crate::arbiter::Purpose;
use crate::config::Config;
use crate::core::Core;
use crate::lock::LockLook;
use crate::names::{ChainId, ServerName};
use crate::orders::{Order, Wanted};
use crate::peers::Verdict;
use crate::planted::planted;
use crate::view::{Acceptor, Departed, Detachment, Evidence, View};

/// How far an ordered force-reinstate is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Force {
    /// This order's claim stands on the lock, and nobody else's did after it.
    claimed: Option<Order>,
    /// The order that was refused, and why.
    refused: Option<(Order, String)>,
}

impl Core {
    /// Nothing goes on here without a person: this server has had time to look around, nobody that it hears leads, and
    /// what it knows can't be continued by a quorum (R18).
    pub(crate) fn awaits_force(&self, config: &Config, view: &View) -> bool {
        let leads = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            self.verdict(name) != Verdict::Suspected && frame.is_some_and(|frame| frame.leased)
        };
        let others = || config.servers.keys().filter(|name| **name != self.boot.server);
        let looked = self.started.max(self.lease.end);
        let patient = self.now.since(looked) >= config.grace || others().all(|name| self.connected(name));
        // Somebody of the view could decide its successor, or will when it has waited long enough.
        let here = |name: &ServerName| *name == self.boot.server || self.connected(name);
        let able = view.members.keys().any(|name| here(name) && !view.detached.contains_key(name));
        let allowed = self.somebody_acts(view) || self.start_permitted(config, view) && able;
        let continues = allowed && self.quorum_in_reach(view);
        !self.leased() && patient && !continues && !others().any(leads)
    }

    /// Whom the operator should look for first.
    pub(crate) fn awaiting_in_words(&self, view: &View) -> String {
        let last: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
        let me = &self.boot.server;
        let (verb, advice) = if view.members.contains_key(me) {
            ("had", format!("holdfast force-reinstate {me} makes this one the base, if no other one is to be"))
        } else {
            ("had, without this server,", "what it knows is older than theirs: start one of them if possible".into())
        };
        format!(
            "no quorum can be reached and an operator has to decide: the last view {} {verb} {}; {advice}",
            view.epoch,
            last.join(", ")
        )
    }

    /// The order for this server, if there is one.
    fn force_order(&self, view: &View) -> Option<Order> {
        let wanted = |order: &&Order| order.server == self.boot.server && order.wanted == Wanted::ForceReinstate;
        self.given.iter().filter(wanted).find(|order| order.view == view.order()).cloned()
    }

    /// Carries an order out as far as it can be.
    pub(crate) fn drive_force(&mut self) {
        let (Some(view), Some(config)) = (self.durable.view.clone(), self.config.clone()) else { return };
        let Some(order) = self.force_order(&view).filter(|_| self.stable_order() == Some(view.order())) else {
            return self.force = Force::default();
        };
        if let Err(why) = self.may_force(&config, &view) {
            return self.refuse_force(order, why);
        }
        if let Some(problem) = self.lock.problem.as_ref().filter(|_| !self.lock.unanswered && self.lock.rival) {
            return self.refuse_force(order, problem.clone());
        }
        // A lock that nobody can read holds nobody up: it is the operator's word that counts.
        let no_lock = !config.has_lock() || self.lock.problem.is_some();
        let claimed = self.force.claimed.as_ref() == Some(&order);
        if claimed || no_lock {
            self.begin_lineage(&config, &view, &order);
        }
    }

    fn refuse_force(&mut self, order: Order, why: String) {
        self.force.claimed = None;
        let refusal = Some((order, why.clone()));
        if self.force.refused != refusal {
            self.force.refused = refusal;
            self.note("ForceRefused", None, true, format!("force-reinstate is refused: {why}"));
        }
    }

    /// Why the order is not carried out, for people.
    pub(crate) fn force_refused(&self) -> Option<String> {
        self.force.refused.as_ref().map(|(_, why)| why.clone())
    }

    /// The lineage to be claimed on the lock now, if one is.
    pub(crate) fn claim_to_write(&self) -> Option<Order> {
        let (view, config) = (self.durable.view.as_ref()?, self.config.as_ref()?);
        let order = self.force_order(view)?;
        let refused = self.force.refused.as_ref().is_some_and(|(refused, _)| *refused == order);
        let claimed = self.force.claimed.is_some();
        (!refused && !claimed && self.lock_usable() && self.may_force(config, view).is_ok()).then_some(order)
    }

    /// Our claim is on the lock, and this is what the others' records say.
    pub(crate) fn claim_answered(&mut self, order: Order, look: &LockLook) {
        let Some(view) = self.durable.view.clone() else { return };
        let own = self.config.as_ref().and_then(|config| config.servers.get(&self.boot.server)).copied();
        let rival = look.records.iter().find(|(slot, record)| Some(**slot) != own && record.claim > view.lineage);
        match rival {
            Some((slot, _)) if !planted!(SecondForce) => {
                self.lock.stale = true; // takes the claim back
                let why = format!(
                    "the lock says that the server with id {slot} is being made the base, too; start that one first"
                );
                self.refuse_force(order, why);
            }
            _ => self.force.claimed = Some(order),
        }
    }

    /// Why this server must not become the base.
    fn may_force(&self, config: &Config, view: &View) -> Result<(), String> {
        if !self.awaits_force(config, view) {
            return Err("the sub-cluster goes on, or can go on, without it".into());
        }
        if self.outdone() {
            return Err("another machine goes on under its name and number; switch one of the two off".into());
        }
        if !self.machines.is_empty() || !self.durable.held.is_empty() {
            return Err("this server still holds groups of its last view".into());
        }
        if config.detached.contains(&self.boot.server) {
            return Err("the specification says state: Detached of this server; set it to Active".into());
        }
        // The second force of D31: the operator would begin a second chain beside the first. If the base is lost, too, its
        // end has to be confirmed by name like that of any other server.
        let orders = self.orders_for(view);
        let lost = |name: &ServerName| {
            orders.iter().any(|order| order.server == *name && order.wanted == Wanted::ConfirmStopped)
        };
        let forced = view.detached.get(&self.boot.server).is_some_and(|detached| detached.forced);
        if forced && !view.members.keys().all(lost) && !planted!(SecondForce) {
            let base: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
            return Err(format!(
                "{0} was made the base before (lineage {1}); start it, and reinstate this one. If it is lost for good: \
                 holdfast confirm-stopped {0}, and while that waits this again",
                base.join(", "),
                view.lineage
            ));
        }
        Ok(())
    }

    /// The first view of the new lineage. The operator's word is the evidence about everybody but this boot of this
    /// server, and nobody comes back into it by itself.
    fn begin_lineage(&mut self, config: &Config, view: &View, order: &Order) {
        let me = self.boot.server.clone();
        let word = || Some(Evidence::Operator { by: order.by.clone() });
        let mut departed: BTreeMap<_, _> = view.departed.clone();
        for (name, member) in &view.members {
            let takeover_wait = member.timing.takeover_wait.max(config.takeover_wait);
            let left = Departed { is_virtual: member.is_virtual, takeover_wait, evidence: None, power: None };
            departed.entry((name.clone(), member.boot)).or_insert(left);
        }
        departed.retain(|(name, boot), _| *name != me || *boot != self.boot.boot);
        for left in departed.values_mut() {
            left.evidence = left.evidence.take().or_else(word);
        }
        let left_out = |name: &ServerName| {
            let known = view.detached.get(name).cloned().unwrap_or_default();
            (name.clone(), Detachment { ordered: Some(order.by.clone()), forced: true, ..known })
        };
        let others = config.servers.keys().filter(|name| **name != me && !planted!(OthersNotDetached));
        let value = View {
            cluster: view.cluster,
            lineage: view.lineage + 1,
            chain: ChainId(self.boot.fresh_cluster.0),
            epoch: view.epoch + 1,
            members: BTreeMap::from([(me.clone(), self.myself(config))]),
            acceptors: BTreeMap::from([(Acceptor::Server(me.clone()), self.durable.acceptor)]),
            unanimous: false,
            stopped: false,
            started: true,
            forced: true,
            detached: others.map(left_out).collect(),
            departed,
            config_generation: view.config_generation,
            settings: view.settings.clone(),
        };
        let message = format!("lineage {} begins with this server as the base, by {}", value.lineage, order.by);
        self.note("ForceReinstated", None, true, message);
        self.force = Force::default();
        self.adopt(value, BTreeMap::new());
        // The mark: whoever reads the lock from now on learns of it (D31).
        self.lock.stale = true;
        self.tell_everybody();
    }

    /// R22: `other` is of the same lineage as what this server knows, but not of the same chain.
    pub(crate) fn is_rival_chain(&self, lineage: u32, chain: ChainId) -> bool {
        let same = |view: &View| view.lineage == lineage && view.chain != chain;
        self.durable.view.as_ref().is_some_and(same) && !planted!(EqualLineageAdmitted)
    }

    /// Says that there are two chains.
    pub(crate) fn note_rival_chain(&mut self, whose: &str, lineage: u32) {
        let message = format!(
            "{whose} is in another chain of lineage {lineage}: two servers were made the base; keep one of them, and \
             install the agent of the other one anew (empty data directory)"
        );
        self.note_once("chain", "PartitionDetected", message);
    }
}

impl Purpose {
    /// Lineage to be claimed by a write for this purpose.
    pub(crate) fn claims(&self, view: &View) -> u32 {
        if matches!(self, Purpose::Claim) { view.lineage + 1 } else { 0 }
    }
}
