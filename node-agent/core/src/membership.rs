//! R1, R17–R20: which view this server would like next: formation, a cluster start, losses, returns, leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Config, GroupConfig};
use crate::core::Core;
use crate::frame::{Frame, Intent};
use crate::message::newest_in;
use crate::names::{ChainId, GroupName, ServerName};
use crate::orders::Wanted;
use crate::peers::Verdict;
use crate::planted::planted;
use crate::settings::Settings;
use crate::view::{Acceptor, Departed, Evidence, Member, MemberTiming, Tag, View};

impl Core {
    /// The wanted successor with the view (or, before formation, the pseudo view of everybody) that it succeeds.
    pub(crate) fn wanted_successor(&self) -> Option<(View, View)> {
        let config = self.config.as_ref()?;
        match &self.durable.view {
            None => self.formation(config),
            Some(view) if self.stable_order() != Some(view.order()) => None,
            Some(view) if !view.stopped && view.admits(&self.boot.server, self.boot.boot) => {
                self.next_view(config, view).map(|next| (next, view.clone()))
            }
            Some(view) => self.cluster_start(config, view).map(|next| (next, view.clone())),
        }
    }

    /// This server as a member.
    pub(crate) fn myself(&self, config: &Config) -> Member {
        Member {
            id: config.servers.get(&self.boot.server).copied().unwrap_or(0),
            acceptor: self.durable.acceptor,
            boot: self.boot.boot,
            timing: self.timing_to_join(self.own_timing(config), config.generation),
            is_virtual: self.boot.is_virtual,
        }
    }

    /// What a server promises when it becomes a member. If it holds another specification than the one in force, the
    /// more careful of its own and of the members' times: those fit the settings in force.
    fn timing_to_join(&self, own: MemberTiming, generation: u64) -> MemberTiming {
        let Some(view) = self.durable.view.as_ref().filter(|view| view.config_generation != generation) else {
            return own;
        };
        let all = view.members.values().map(|member| member.timing);
        all.fold(own, |timing, other| timing.with(&other, view.settings.drain))
    }

    fn member_of(&self, frame: &Frame) -> Member {
        Member {
            id: frame.id,
            acceptor: frame.acceptor,
            boot: frame.boot,
            timing: self.timing_to_join(frame.timing, frame.config_generation),
            is_virtual: frame.is_virtual,
        }
    }

    /// The newest frame of a peer that is connected by a LAN.
    pub(crate) fn present(&self, server: &ServerName) -> Option<&Frame> {
        self.peers.get(server).filter(|_| self.connected(server)).and_then(|peer| peer.frame.as_ref())
    }

    /// The first view: everybody is there, blank, connected, and sees the same lock. It is decided unanimously, so a
    /// second formation would need a server that took part in the first one, and that one is not blank any more.
    fn formation(&self, config: &Config) -> Option<(View, View)> {
        let me = &self.boot.server;
        let mut members = BTreeMap::from([(me.clone(), self.myself(config))]);
        for name in config.servers.keys().filter(|name| *name != me) {
            let frame = self.present(name)?;
            let blank = frame.cluster.is_none() && frame.epoch == 0 && frame.intent == Intent::Join;
            let same_lock = !config.has_lock() || frame.lock_reachable && frame.lock == self.lock.id;
            if !blank || !same_lock || frame.config_generation != config.generation {
                return None;
            }
            members.insert(name.clone(), self.member_of(frame));
        }
        if self.leaving || members.len() != config.servers.len() || config.has_lock() && !self.lock_usable() {
            return None;
        }
        let servers = |members: &BTreeMap<ServerName, Member>| -> BTreeMap<_, _> {
            members.iter().map(|(name, member)| (Acceptor::Server(name.clone()), member.acceptor)).collect()
        };
        let base = View {
            cluster: self.boot.fresh_cluster,
            lineage: 0,
            // As random as the cluster's id: both are made by the one formation.
            chain: ChainId(self.boot.fresh_cluster.0),
            epoch: 0,
            acceptors: servers(&members),
            members: members.clone(),
            unanimous: true,
            stopped: false,
            started: true,
            forced: false,
            detached: self.declared_from_the_start(config),
            departed: BTreeMap::new(),
            config_generation: config.generation,
            settings: Settings::of(config),
        };
        let acceptors = self.acceptors_for(&base.settings, &members, &base);
        let value = View { lineage: 1, epoch: 1, unanimous: false, acceptors, ..base.clone() };
        Some((value, base))
    }

    /// Acceptors of a view with these members: the members if odd or one; with the lock if even; without a lock one
    /// departed acceptor keeps its vote, so that an even view can lose a server (protocol-why D3, D21).
    pub(crate) fn acceptors_for(
        &self,
        settings: &Settings,
        members: &BTreeMap<ServerName, Member>,
        base: &View,
    ) -> BTreeMap<Acceptor, crate::names::AcceptorId> {
        let mut acceptors: BTreeMap<_, _> =
            members.iter().map(|(name, member)| (Acceptor::Server(name.clone()), member.acceptor)).collect();
        if acceptors.len() % 2 == 1 {
            return acceptors;
        }
        if planted!(LockAlone) && settings.lock.is_some() && acceptors.len() == 2 {
            acceptors.clear();
        }
        if let Some(lock) = self.lock_id_for(settings, base) {
            acceptors.insert(Acceptor::Lock, lock);
            return acceptors;
        }
        if planted!(ShrinksToTwo) {
            return acceptors;
        }
        let departed = base.acceptors.iter().find(|(acceptor, _)| match acceptor {
            // A vote of a server that is removed for good would never be given.
            Acceptor::Server(name) => !members.contains_key(name) && settings.servers.contains_key(name),
            Acceptor::Lock => false,
        });
        if let Some((acceptor, id)) = departed {
            acceptors.insert(acceptor.clone(), *id);
        }
        acceptors
    }

    /// The successor that a member of the newest view wants now, if any.
    fn next_view(&self, config: &Config, view: &View) -> Option<View> {
        let me = &self.boot.server;
        let replaced = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            frame.is_some_and(|frame| !view.admits(name, frame.boot))
        };
        let left_out = self.to_be_left_out(view);
        if left_out.contains(me) {
            return None; // the others go on without us
        }
        let stays = |name: &&ServerName| !replaced(name) && !left_out.contains(*name);
        let living: BTreeSet<ServerName> = view.members.keys().filter(stays).cloned().collect();
        let clique = self.best_clique(&living);
        let mut detached = self.wanted_detachments(config, view);
        // R20: a detached member leaves as one whose process ends does, but only if somebody is there to go on.
        let goes_on = clique.iter().any(|name| !view.detached.contains_key(name) && !self.leaves(name));
        let wants_out = |name: &ServerName| view.detached.contains_key(name) && goes_on;
        let gone = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            name != me
                && frame.is_some_and(|frame| {
                    (frame.intent == Intent::Leave || wants_out(name))
                        && (frame.held.is_empty() || planted!(LeavesHolding))
                        && (frame.lineage, frame.epoch) == view.order()
                })
        };
        let i_leave = self.leaving && !self.waits_for_all() || wants_out(me);
        let i_am_done = i_leave && self.machines.is_empty() && self.durable.held.is_empty();
        let mut staying: BTreeSet<ServerName> =
            clique.iter().filter(|name| !(gone(name) || i_am_done && *name == me)).cloned().collect();
        let closed = !staying.is_empty() && staying.iter().all(|name| self.has_closed(view, name));
        if staying.is_empty() || closed {
            let all = clique.len() == view.members.len() || view.members.len() == 1;
            let kept = Self::members_among(view, &clique);
            let heir = config.servers.keys().filter(|name| !clique.contains(*name));
            if all && (closed || !heir.into_iter().any(|name| self.may_join(config, view, &kept, name).is_ok())) {
                // R20: the last one turns off the light; the members stay, so that they can start again.
                let mut value = self.successor(view);
                value.stopped = true;
                return Some(value);
            }
            // Whoever waits outside is let in before the last one goes, and who was lost, and can't be asked, is left out.
            staying.clone_from(&clique);
        }
        if !staying.contains(me) {
            return None; // the others decide the view without us
        }
        let mut members = Self::members_among(view, &staying);
        // Who leaves lets nobody in, unless nobody else is there to do it.
        let alone = staying.iter().all(|name| name == me || self.leaves(name) || wants_out(name));
        if !self.leaving || alone && !self.closes_together() {
            for name in config.servers.keys().filter(|name| !staying.contains(*name)) {
                if self.may_join(config, view, &members, name).is_ok()
                    && let Some(frame) = self.present(name)
                {
                    members.insert(name.clone(), self.member_of(frame));
                    if !planted!(DetachedJoins) {
                        detached.remove(name);
                    }
                }
            }
        }
        let confirmed = self.confirmed_stopped(view);
        let same =
            members.len() == view.members.len() && members.iter().all(|(name, member)| view.admits(name, member.boot));
        if same && detached == view.detached && confirmed.is_empty() {
            return self.next_settings(view).ok().flatten();
        }
        let mut value = self.successor(view);
        value.detached = detached;
        for (key, by) in confirmed {
            if let Some(departed) = value.departed.get_mut(&key) {
                departed.evidence = Some(Evidence::Operator { by });
            }
        }
        for (name, member) in
            view.members.iter().filter(|(name, member)| members.get(*name).is_none_or(|m| m.boot != member.boot))
        {
            let evidence = if gone(name) { Some(Evidence::Clean) } else { None };
            let power = self.ordered_off(view, name);
            let departed =
                Departed { is_virtual: member.is_virtual, takeover_wait: member.timing.takeover_wait, evidence, power };
            value.departed.insert((name.clone(), member.boot), departed);
        }
        self.complete(view, value, members)
    }

    fn members_among(view: &View, names: &BTreeSet<ServerName>) -> BTreeMap<ServerName, Member> {
        let chosen = view.members.iter().filter(|(name, _)| names.contains(*name));
        chosen.map(|(name, member)| (name.clone(), member.clone())).collect()
    }

    /// Fills members and acceptors in. A server that comes back with the boot that departed is no departed one any
    /// more: its next departure needs evidence of its own (found by the simulator, seed 278).
    fn complete(&self, view: &View, mut value: View, members: BTreeMap<ServerName, Member>) -> Option<View> {
        if !planted!(EvidenceReused) {
            value.departed.retain(|(name, boot), _| members.get(name).is_none_or(|member| member.boot != *boot));
        }
        value.acceptors = self.acceptors_for(&value.settings, &members, view);
        value.members = members;
        Some(value)
    }

    /// The view with the next number and everything as it is; what evidence is known is written down, what was
    /// written down before is dropped: it binds nobody any more, but for a boot that is still to be switched off.
    pub(crate) fn successor(&self, view: &View) -> View {
        let stands = |key: &_, departed: &Departed| {
            departed.evidence.is_none() || departed.power.is_some_and(|power| !self.is_carried_out(key, power))
        };
        let departed = view.departed.iter().filter(|(key, departed)| stands(key, departed));
        let departed = departed
            .map(|(key, departed)| (key.clone(), Departed { evidence: self.evidence(key), ..departed.clone() }))
            .collect();
        let (unanimous, started, stopped, forced) = (false, false, false, false);
        View { epoch: view.epoch + 1, unanimous, started, stopped, forced, departed, ..view.clone() }
    }

    /// R19: why a server may not become a member now, in words for people.
    pub(crate) fn may_join(
        &self,
        config: &Config,
        view: &View,
        members: &BTreeMap<ServerName, Member>,
        name: &ServerName,
    ) -> Result<(), String> {
        let Some(frame) = self.present(name) else { return Err("no LAN connects it both ways".into()) };
        if frame.intent != Intent::Join {
            return Err("it does not want to".into());
        }
        if self.is_to_be_removed(name) {
            return Err("it is to be removed".into());
        }
        let permitted = self.order_about(view, name, |wanted| wanted == Wanted::Reinstate).is_some();
        if self.is_about_to_be_hit(view, name) && !permitted {
            return Err("an operator has it switched off by its fence devices; reinstate it if they can't".into());
        }
        if let Some(detachment) = view.detached.get(name).filter(|_| !planted!(DetachedJoins)) {
            if config.detached.contains(name) {
                return Err("the specification says state: Detached; set it to Active".into());
            }
            if let Some(by) = detachment.ordered.as_ref().filter(|_| !permitted) {
                let left = if detachment.forced { "a force-reinstate left it out" } else { "it is detached" };
                return Err(format!("{left} (by {by}) and has to be reinstated"));
            }
        }
        if frame.barred && !config.automatic_return && !permitted {
            return Err("it came back after a failure and has to be reinstated".into());
        }
        if (frame.lineage, frame.epoch) != view.order() && !planted!(JoinsHolding) {
            return Err("it is learning the newest view".into());
        }
        if !frame.held.is_empty() && !planted!(JoinsHolding) {
            return Err("it still holds groups".into());
        }
        if frame.config_generation < config.generation {
            return Err("it does not hold the newest specification yet".into());
        }
        if let Some(group) = self.spec_behind(frame).filter(|_| !planted!(JoinsBehind)) {
            return Err(format!("it does not hold the newest specification of {group} yet"));
        }
        let unheard = self.table_behind(frame) && !planted!(JoinsBehind);
        if unheard && !planted!(JoinsWithoutHolds) {
            return Err("it is learning what was said about groups, and which of them are held".into());
        }
        let steady = |other: &ServerName| {
            let since = self.peers.get(other).and_then(|peer| peer.connected_since);
            since.is_some_and(|since| self.now.since(since) >= config.timeout)
        };
        let names: BTreeSet<ServerName> = members.keys().cloned().chain([name.clone()]).collect();
        if !steady(name) || self.best_clique(&names) != names {
            return Err("it is not connected to every member long enough".into());
        }
        let unproven = view.departed.iter().any(|((departed, boot), _)| {
            departed == name
                && self.evidence(&(departed.clone(), *boot)).is_none()
                && *boot != frame.boot
                && !self.rebooted(name, *boot)
        });
        if unproven {
            return Err(self.unproven_in_words(config, view, name));
        }
        if self.is_off(name, frame.boot) {
            return Err("a fence device has switched it off, and nothing was heard of it since".into());
        }
        if self.fence_in_flight(config, name) {
            return Err("a fence device is being used on it, or may be by a server that was lost".into());
        }
        // Two would need each other without it; a larger view loses nothing by growing (protocol-why D20). Nobody joins
        // who sees another lock.
        let Some(kind) = config.lock.filter(|_| (members.len() + 1).is_multiple_of(2)) else { return Ok(()) };
        if planted!(GrowsWithoutLock) {
            return Ok(());
        }
        if members.len() == 1 && !(self.lock_usable() && frame.lock_reachable && frame.lock == self.lock.id) {
            return Err(format!("the {} is not reachable from both", kind.noun()));
        }
        if self.lock.id.is_none() || frame.lock.is_some_and(|seen| Some(seen) != self.lock.id) {
            return Err(format!("it does not see the same {}", kind.noun()));
        }
        Ok(())
    }

    /// R16, R19: a group that runs or ran of which a joiner holds an older specification than this server. Every member
    /// holds what is acted on; so does whoever is left over of them, also right after it has joined. Who never heard of
    /// a group that is not to run (deleted, perhaps) can't start it.
    fn spec_behind(&self, frame: &Frame) -> Option<&GroupName> {
        if planted!(SpecRegresses) {
            return None;
        }
        let behind = |(name, group): &(&GroupName, &Arc<GroupConfig>)| {
            let theirs = frame.specs.get(*name);
            self.durable.table.contains_key(*name) && theirs.map_or(group.online, |theirs| *theirs < group.generation)
        };
        self.groups.iter().find(behind).map(|(name, _)| name)
    }

    /// A joiner has not heard of everything that was said about groups. Every member has what counts (holds); so has
    /// whoever is left over of them, also right after it has joined (found by the simulator, seed 632).
    pub(crate) fn table_behind(&self, frame: &Frame) -> bool {
        frame.table.unwrap_or_default() < newest_in(&self.durable.table)
    }

    /// The newest assignment that a server knows of that wants to join.
    pub(crate) fn table_of_joiner(&self) -> Option<Tag> {
        let member = |view: &View| view.admits(&self.boot.server, self.boot.boot);
        (!self.durable.view.as_ref().is_none_or(member)).then_some(self.stable_table)
    }

    /// What others have to know of a server that wants to join.
    pub(crate) fn specs_of_joiner(&self) -> BTreeMap<GroupName, u64> {
        let member = |view: &View| view.admits(&self.boot.server, self.boot.boot);
        if self.durable.view.as_ref().is_none_or(member) {
            return BTreeMap::new();
        }
        self.groups.iter().map(|(name, group)| (name.clone(), group.generation)).collect()
    }

    /// The newest specification does not have it any more.
    fn is_to_be_removed(&self, name: &ServerName) -> bool {
        let newest = self.wanted.as_ref().zip(self.durable.view.as_ref());
        newest.is_some_and(|(wanted, view)| {
            wanted.generation >= view.config_generation && !wanted.servers.contains_key(name)
        })
    }

    /// R18: nobody acts under the newest view any more; a quorum of its acceptors may decide the next one.
    fn cluster_start(&self, config: &Config, view: &View) -> Option<View> {
        let me = &self.boot.server;
        let mine = view.members.get(me)?;
        let forgot = mine.acceptor != self.durable.acceptor && !planted!(LostStateVotes);
        let detached = |name: &ServerName| view.detached.contains_key(name) && !planted!(DetachedJoins);
        if self.leaving || forgot || detached(me) || !self.start_permitted(config, view) {
            return None;
        }
        let frames: BTreeMap<&ServerName, &Frame> =
            config.servers.keys().filter_map(|name| Some((name, self.present(name)?))).collect();
        let behind = |frame: &&&Frame| (frame.lineage, frame.epoch) != view.order();
        let acting = |(name, frame): (&&ServerName, &&Frame)| !view.stopped && view.admits(name, frame.boot);
        if frames.values().any(|frame| behind(&frame)) || frames.iter().any(acting) {
            return None;
        }
        let everybody = config.servers.keys().all(|name| name == me || detached(name) || frames.contains_key(name));
        let patient = self.now.since(self.started) < config.grace;
        if !everybody && patient {
            return None;
        }
        let mut members = BTreeMap::from([(me.clone(), self.myself(config))]);
        for (name, frame) in frames {
            let barred = frame.barred && !config.automatic_return && !view.members.contains_key(name);
            let lock =
                !config.has_lock() || frame.lock.is_none() || self.lock.id.is_none() || frame.lock == self.lock.id;
            let fired_at = !view.members.contains_key(name) && self.fence_in_flight(config, name);
            // R16: members hold what was acted on. Who was none may lack it, and go on alone later.
            let lacks = || self.spec_behind(frame).is_some() || self.table_behind(frame);
            let behind = !view.members.contains_key(name) && lacks();
            let stays_out = barred || detached(name) || self.is_to_be_removed(name) || fired_at || behind;
            if frame.intent == Intent::Join && !stays_out && frame.held.is_empty() && lock {
                members.insert(name.clone(), self.member_of(frame));
            }
        }
        if members.len() == 2 && config.has_lock() {
            // As in R19: two only with the lock in reach of both (protocol-why D20).
            let reaches = |frame: &Frame| self.lock_usable() && frame.lock_reachable && frame.lock == self.lock.id;
            members.retain(|name, _| name == me || self.present(name).is_some_and(reaches));
            // Who has just begun has not read the lock yet: that is as good as not being there yet.
            if members.len() < 2 && patient {
                return None;
            }
        }
        let names: BTreeSet<ServerName> = members.keys().cloned().collect();
        if self.best_clique(&names) != names {
            return None;
        }
        let mut value = self.successor(view);
        value.started = true;
        if !view.stopped {
            for (name, member) in &view.members {
                let key = (name.clone(), member.boot);
                let evidence = self.evidence(&key).or_else(|| {
                    let back = members.contains_key(name) && !member.is_virtual;
                    back.then_some(Evidence::Rebooted)
                });
                let departed = Departed {
                    is_virtual: member.is_virtual,
                    takeover_wait: member.timing.takeover_wait,
                    evidence,
                    power: None,
                };
                value.departed.insert(key, departed);
            }
        }
        self.complete(view, value, members)
    }

    /// Whether a start from the newest known view needs no operator (R18): it was shut down as a whole, or the return
    /// policy says so.
    pub(crate) fn start_permitted(&self, config: &Config, view: &View) -> bool {
        view.stopped || config.automatic_return
    }

    /// Somebody (this server included) acts under the newest view, as far as can be seen.
    pub(crate) fn somebody_acts(&self, view: &View) -> bool {
        !view.stopped
            && view.members.iter().any(|(name, member)| {
                if *name == self.boot.server {
                    return member.boot == self.boot.boot;
                }
                let peer = self.peers.get(name);
                let frame = peer.and_then(|peer| peer.frame.as_ref());
                self.verdict(name) != Verdict::Suspected && frame.is_some_and(|frame| frame.boot == member.boot)
            })
    }
}
