//! R16, R21: acting by the settings of the view, and bringing the wanted ones into it, step by step.
//!
//! | condition | of which step | why |
//! |---|---|---|
//! | every member holds the wanted generation, is connected and acts under this view | both | whoever comes back later finds a view whose settings it knows; nobody acts under an older one |
//! | the longest wait has gone by since then | the last, if a wait gets shorter | a deadline given under the longer lease before still stands |
//! | every member reads the same new lock | the last, if the lock changes | a lock that one member does not reach has no vote where it counts |
//! | a lan of the wanted ones connects each two members | the last, if paths go | else the change would be a partition |
//! | whoever is to be removed is no member | the last | a member is never taken its votes and its groups by a name that is missing |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::arbiter::Lock;
use crate::config::{Config, shown};
use crate::core::Core;
use crate::frame::{Frame, Intent};
use crate::lock::{LockLook, LockOp};
use crate::names::{AcceptorId, PathName, ServerName};
use crate::output::Output;
use crate::peers::Peer;
use crate::planted::planted;
use crate::settings::{LockPlace, PathSetting, Plan, Settings, Step, step};
use crate::time::Instant;
use crate::view::{Acceptor, View};

/// The lock that the specification wants, while another one is in force. It is only read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Coming {
    /// Which one.
    pub(crate) at: LockPlace,
    /// The read under way: token, beginning.
    busy: Option<(u64, Instant)>,
    /// Its identity, while it can be used.
    pub(crate) id: Option<AcceptorId>,
    /// Why it can't be used.
    pub(crate) problem: Option<String>,
    /// It has a record of this server already.
    known: bool,
    looked: Instant,
}

impl Core {
    /// Puts together what the rules act by: what a view has to agree about from the view, the rest from the
    /// specification. Paths that only the specification has are read, too: one more path never lets anybody act.
    pub(crate) fn refresh_config(&mut self) {
        let Some(wanted) = self.wanted.clone() else { return };
        let config = match &self.durable.view {
            None => wanted.clone(),
            Some(view) => Arc::new(self.in_force(&wanted, view)),
        };
        let lock = config.lock_place();
        self.peers.retain(|name, _| config.servers.contains_key(name));
        self.config = Some(config);
        self.use_lock(lock);
        let coming = wanted.lock_place().filter(|at| Some(*at) != lock);
        if self.coming.as_ref().map(|coming| coming.at) != coming {
            let blank = |at| Coming { at, busy: None, id: None, problem: None, known: false, looked: Instant::ZERO };
            self.coming = coming.map(blank);
        }
    }

    fn in_force(&self, wanted: &Config, view: &View) -> Config {
        let settings = &view.settings;
        let mut config = Config {
            servers: settings.servers.clone(),
            lock: settings.lock.map(|lock| lock.kind),
            lock_at: settings.lock.map_or(0, |lock| lock.place),
            interval: settings.interval,
            timeout: settings.timeout,
            stall: settings.stall,
            renew: settings.renew,
            io_timeout: settings.io_timeout,
            drain: settings.drain,
            ..wanted.clone()
        };
        if planted!(ServersFromSpec) {
            config.servers.clone_from(&wanted.servers);
        }
        if !planted!(PathsFromSpec) {
            for (name, path) in settings.paths.iter().chain(&self.retiring) {
                config.paths.insert(name.clone(), path.kind);
            }
        }
        let own = view.members.get(&self.boot.server).filter(|member| member.boot == self.boot.boot);
        if let Some(own) = own.filter(|_| !planted!(LeaseFromSpec)) {
            let timing = own.timing;
            (config.lease, config.soft_stop, config.kill) = (timing.lease, timing.soft_stop, timing.kill);
            (config.reset, config.takeover_wait, config.watchdog) =
                (timing.reset, timing.takeover_wait, timing.watchdog);
        }
        config
    }

    /// What the rules act by now; none before there is a specification.
    pub fn in_force_config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// Another lock is in force: nothing that the old one said counts for the new one.
    fn use_lock(&mut self, lock: Option<LockPlace>) {
        if self.lock.at == lock {
            return;
        }
        let mut old = std::mem::take(&mut self.lock);
        let mut former_rings = std::mem::take(&mut old.former_rings);
        if let Some(at) = old.at {
            former_rings.insert(at, old.ring);
        }
        former_rings.retain(|_, ring| ring.free_at().is_some());
        let ring = lock.and_then(|lock| former_rings.remove(&lock)).unwrap_or_default();
        self.lock = Lock { at: lock, next_token: old.next_token, ring, former_rings, stale: true, ..Lock::default() };
        if let Some(coming) = self.coming.take_if(|coming| Some(coming.at) == lock) {
            self.lock.id = coming.id;
            if let Some(id) = coming.id.filter(|id| *id != self.durable.lock_memory.lock) {
                // What was numbered for the old lock can't land late on this one, unless it was in use here before.
                let since = if coming.known { 0 } else { self.durable.lock_sequence };
                self.durable.lock_memory = crate::lock::LockMemory { lock: id, since, ..Default::default() };
            }
        }
    }

    /// Reads the lock to come now and then.
    pub(crate) fn look_at_coming_lock(&mut self) {
        let (Some(config), now) = (self.config.clone(), self.now) else { return };
        let Some(coming) = &mut self.coming else { return };
        if let Some((_, begun)) = coming.busy {
            if now.since(begun) >= config.timeout && coming.problem.is_none() {
                (coming.id, coming.problem) = (None, Some("it does not answer".into()));
            }
            return self.wake(begun + config.timeout);
        }
        let next = coming.looked + config.timeout;
        if coming.looked != Instant::ZERO && now < next {
            return self.wake(next);
        }
        self.lock.next_token += 1;
        let token = self.lock.next_token;
        (coming.busy, coming.looked) = (Some((token, now)), now);
        let lock = coming.at;
        self.emit_now(Output::Lock { token, lock, op: LockOp::Look });
    }

    /// What the lock to come says. One that belongs to others or can't be read whole is none.
    pub(crate) fn coming_lock_done(&mut self, token: u64, result: Result<LockLook, String>) {
        let cluster = self.durable.view.as_ref().map(|view| view.cluster);
        let own = self.wanted.as_ref().and_then(|wanted| wanted.servers.get(&self.boot.server)).copied();
        let Some(coming) = &mut self.coming else { return };
        if coming.busy.is_none_or(|(expected, _)| expected != token) {
            return;
        }
        coming.busy = None;
        let problem = match &result {
            Err(problem) => Some(problem.clone()),
            Ok(look) if !look.damaged.is_empty() => Some(format!("the blocks of slots {:?} are damaged", look.damaged)),
            Ok(look) => {
                let foreign = look.records.values().find(|record| Some(record.cluster) != cluster);
                foreign.map(|record| format!("it belongs to sub-cluster {}", record.cluster))
            }
        };
        let before = coming.id;
        coming.id = result.as_ref().ok().filter(|_| problem.is_none()).map(|look| look.lock);
        coming.known = result.is_ok_and(|look| own.is_some_and(|own| look.records.contains_key(&own)));
        coming.problem = problem;
        if coming.id != before {
            self.beat_soon();
        }
    }

    /// Since when every member is seen to act under the newest view. Until then what the view before had is kept up.
    pub(crate) fn watch_adoption(&mut self) {
        let Some(view) = &self.durable.view else { return };
        let me = &self.boot.server;
        let adopted = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            frame.is_some_and(|frame| (frame.lineage, frame.epoch) == view.order() && view.admits(name, frame.boot))
        };
        if self.all_adopted.is_some()
            || self.stable_order() != Some(view.order())
            || !view.members.keys().all(|name| name == me || adopted(name))
        {
            return;
        }
        self.all_adopted = Some(self.now);
        if !self.retiring.is_empty() {
            self.retiring.clear();
            self.refresh_config();
        }
    }

    /// The view before has been replaced.
    pub(crate) fn retire(&mut self, old: Option<&View>) {
        self.keep_pace(old);
        self.all_adopted = None;
        for (name, path) in old.iter().flat_map(|old| &old.settings.paths) {
            let retiring = self.retiring.entry(name.clone()).or_insert_with(|| path.clone());
            retiring.wires.extend(&path.wires);
        }
        self.refresh_config();
    }

    fn keep_pace(&mut self, old: Option<&View>) {
        let (Some(config), Some(old)) = (&self.config, old) else { return };
        let kept = self.former_pace.filter(|(interval, _)| self.pace(config) == *interval);
        let (interval, timeout) = (old.settings.interval, old.settings.timeout);
        let (interval, timeout) = kept.map_or((interval, timeout), |(i, t)| (interval.min(i), timeout.max(t)));
        let shorter = self.durable.view.as_ref().is_some_and(|view| interval < view.settings.interval);
        self.former_pace = shorter.then_some((interval, timeout));
    }

    /// H, the pace of heartbeats. A view that makes it longer makes the lease longer, too, but until that is given the
    /// deadline of the view before stands, and has room for three of its own intervals only. So its pace is kept until all
    /// act under the new view and what was given to them before is over (E is shorter than T).
    pub(crate) fn pace(&self, config: &Config) -> Duration {
        let over = |timeout: Duration| self.all_adopted.is_some_and(|since| self.now >= since + timeout);
        match self.former_pace {
            Some((interval, timeout)) if !over(timeout) => interval.min(config.interval),
            _ => config.interval,
        }
    }

    /// The lock that counts now.
    pub fn lock_in_force(&self) -> Option<LockPlace> {
        self.lock.at
    }

    /// Paths that are to be read beside the wanted ones, with what they are wired to; see [`Core::in_force_config`].
    pub fn paths_in_use(&self) -> BTreeMap<PathName, PathSetting> {
        let view = self.durable.view.iter().flat_map(|view| &view.settings.paths);
        let mut all: BTreeMap<PathName, PathSetting> = BTreeMap::new();
        for (name, path) in view.chain(&self.retiring) {
            all.entry(name.clone()).or_insert_with(|| path.clone()).wires.extend(&path.wires);
        }
        all
    }

    /// The settings of what every member wants, once all hold the same specification and act under this view.
    fn common_plan(&self, wanted: &Config, view: &View) -> Result<Plan, String> {
        let mut timings = BTreeMap::from([(self.boot.server.clone(), wanted.timing())]);
        let lasting = view.members.keys().filter(|name| **name != self.boot.server);
        for name in lasting {
            let frame = self.peers.get(name).filter(|_| self.connected(name)).and_then(|peer| peer.frame.as_ref());
            let Some(frame) = frame.filter(|frame| view.admits(name, frame.boot)) else {
                return Err(format!("no LAN connects {name}"));
            };
            if frame.config_generation != wanted.generation {
                let (theirs, ours) = (shown(frame.config_generation), shown(wanted.generation));
                return Err(format!("{name} holds generation {theirs}, this server {ours}"));
            }
            if frame.intent != Intent::Join {
                return Err(format!("{name} leaves"));
            }
            timings.insert(name.clone(), frame.timing);
        }
        if self.all_adopted.is_none() && !planted!(AdoptionNotAwaited) {
            return Err(format!("not every member acts under view {} yet", view.epoch));
        }
        Ok(Plan { settings: Settings::of(wanted), timings })
    }

    /// R21: the view of the next step, none if nothing is to be changed, or why the change has to wait.
    pub(crate) fn next_settings(&self, view: &View) -> Result<Option<View>, String> {
        let Some(wanted) = &self.wanted else { return Ok(None) };
        if wanted.generation < view.config_generation {
            return Err(format!(
                "generation {} is in force, and this server holds {} only",
                shown(view.config_generation),
                shown(wanted.generation)
            ));
        }
        let now = Plan::of(view);
        if wanted.generation == view.config_generation && now.settings == Settings::of(wanted) {
            // All that may differ is what single servers promise: that is looked at when they are there.
            let same = |name: &ServerName, frame: &Frame| now.timings.get(name) == Some(&frame.timing);
            let mut known = self.peers.iter().filter_map(|(name, peer)| Some((name, peer.frame.as_ref()?)));
            let own = now.timings.get(&self.boot.server) == Some(&wanted.timing());
            if own && known.all(|(name, frame)| !view.admits(name, frame.boot) || same(name, frame)) {
                return Ok(None);
            }
        }
        if self.leaving {
            return Err("this server leaves".into());
        }
        let wish = self.common_plan(wanted, view)?;
        if let Some(path) = now.settings.changes_kind(&wish.settings) {
            return Err(format!("path {path} is of another kind in force; give the new one another name"));
        }
        let next = match step(&now, &wish) {
            Some(Step::Prepare(_)) if planted!(RaisedAtOnce) && !wish.waits_less(&now) => Step::Finish(wish),
            Some(Step::Prepare(_)) if planted!(WaitFallsAtOnce) && wish.waits_less(&now) => Step::Finish(wish),
            None => Step::Finish(wish), // only the generation is another one
            Some(next) => next,
        };
        let mut value = self.successor(view);
        let plan = match next {
            Step::Prepare(plan) => plan,
            Step::Finish(plan) => {
                self.may_finish(wanted, view, &now, &plan)?;
                value.config_generation = wanted.generation;
                plan
            }
        };
        value.settings = plan.settings;
        for (name, timing) in plan.timings {
            if let Some(member) = value.members.get_mut(&name) {
                member.timing = timing;
            }
        }
        value.acceptors = self.acceptors_for(&value.settings, &value.members, view);
        Ok(Some(value))
    }

    /// The conditions of the last step; see the table above.
    fn may_finish(&self, wanted: &Config, view: &View, now: &Plan, plan: &Plan) -> Result<(), String> {
        if plan.waits_less(now) && !planted!(WaitFallsAtOnce) {
            let over = self.all_adopted.map(|since| since + now.longest_wait());
            let left = over.map_or(now.longest_wait(), |over| over.since(self.now));
            if left > Duration::ZERO {
                return Err(format!("the longer leases of before end in {} ms at the latest", left.as_millis()));
            }
        }
        for (name, id) in &now.settings.servers {
            match plan.settings.servers.get(name) {
                None if view.members.contains_key(name) => {
                    return Err(format!("{name} is still a member; detach it before it is removed"));
                }
                Some(wanted) if wanted != id => {
                    return Err(format!("{name} has the id {id} and is to have {wanted}; a name keeps its id"));
                }
                _ => {}
            }
        }
        if plan.settings.lock != now.settings.lock && !planted!(LockNotAwaited) {
            self.new_lock_in_reach(view)?;
        }
        if plan.settings.lock.is_none() && view.members.len() == 2 {
            return Err("two servers need a lock; the third one has to join before the lock goes".into());
        }
        let goes = |name: &PathName| !plan.settings.paths.contains_key(name);
        if now.settings.paths.iter().any(|(name, path)| goes(name) || plan.settings.paths[name] != *path) {
            self.connected_by(wanted, view)?;
        }
        Ok(())
    }

    /// R21: formatted, its id known, and read by all members.
    fn new_lock_in_reach(&self, view: &View) -> Result<(), String> {
        let Some(coming) = &self.coming else { return Ok(()) };
        let noun = coming.at.kind.noun();
        let Some(id) = coming.id else {
            let why = coming.problem.as_deref().unwrap_or("it was not read yet");
            return Err(format!("the new {noun} can't be used: {why}"));
        };
        for name in view.members.keys().filter(|name| **name != self.boot.server) {
            let seen = self.peers.get(name).and_then(|peer| peer.frame.as_ref()).and_then(|frame| frame.lock_to_come);
            match seen {
                None => return Err(format!("{name} can't use the new {noun}")),
                Some(other) if other != id => {
                    return Err(format!("the new {noun} is {id} here and {other} on {name}: they are two"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Each two members are connected both ways by a LAN that stays.
    fn connected_by(&self, wanted: &Config, view: &View) -> Result<(), String> {
        let lans: Vec<&PathName> =
            wanted.paths.iter().filter(|(_, kind)| kind.is_lan()).map(|(name, _)| name).collect();
        let limit = Peer::echo_limit(self.config.as_deref().unwrap_or(wanted));
        let me = &self.boot.server;
        // From hears to on a LAN that stays, as from's newest frame tells.
        let told = |from: &ServerName, to: &ServerName| {
            let frame = self.peers.get(from).and_then(|peer| peer.frame.as_ref());
            let heard = frame.and_then(|frame| frame.heard.get(to));
            let fresh = |age: u32| Duration::from_micros(u64::from(age)) < limit;
            heard.is_some_and(|heard| lans.iter().any(|lan| heard.paths.get(*lan).is_some_and(|(_, age)| fresh(*age))))
        };
        let own = |name: &ServerName| {
            let (Some(peer), Some(config)) = (self.peers.get(name), &self.config) else { return false };
            lans.iter().any(|lan| peer.two_way(config, self.now, lan))
        };
        let names: Vec<&ServerName> = view.members.keys().collect();
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                let connected = match (*a == me, *b == me) {
                    (true, _) => own(b),
                    (_, true) => own(a),
                    _ => told(a, b) && told(b, a),
                };
                if !connected {
                    return Err(format!("no LAN of the wanted ones connects {a} and {b} both ways"));
                }
            }
        }
        Ok(())
    }

    /// Whether the wanted specification is in force, and if not, why not: in words for people.
    pub(crate) fn config_pending(&self) -> Option<String> {
        let view = self.durable.view.as_ref()?;
        if self.wanted.as_ref().is_some_and(|wanted| !wanted.servers.contains_key(&self.boot.server)) {
            return Some("this server is removed".into());
        }
        let generation = self.wanted.as_ref()?.generation;
        if !self.acting() {
            let other = generation != view.config_generation;
            return other.then(|| "the members of the view decide about it".into());
        }
        match self.next_settings(view) {
            Ok(None) => None,
            Ok(Some(_)) => Some("it is being taken over".into()),
            Err(why) => Some(why),
        }
    }

    /// The lock that a view with these settings after `base` has, if it is known.
    pub(crate) fn lock_id_for(&self, settings: &Settings, base: &View) -> Option<AcceptorId> {
        settings.lock?;
        if settings.lock != base.settings.lock {
            return self.coming.as_ref().and_then(|coming| coming.id);
        }
        // The lock stays the same over the whole chain; another area under the same device has no vote (D9). One that
        // was not read yet since the last odd view is as if there were none.
        base.acceptors.get(&Acceptor::Lock).copied().or(self.lock.id)
    }
}
