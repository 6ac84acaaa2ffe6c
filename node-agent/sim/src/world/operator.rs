//! An operator of the world: orders about servers, as the controller hands them to some agent. He is honest: he confirms
//! a stop, or forces a server, only when everybody else is off, and he keeps them off until he is done.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::Input;
use holdfast_core::config::Target;
use holdfast_core::names::{BootId, GroupName, ServerName};
use holdfast_core::orders::{Order, Power, Wanted};
use holdfast_core::status::ClusterPhase;
use holdfast_core::view::{Evidence, View};
use rand::Rng;
use std::sync::Arc;

use super::host::boot_id;
use super::{Event, MS, World};

/// What the operator did, for the checks.
#[derive(Debug, Clone, Default)]
pub(super) struct Operator {
    /// Orders that stand.
    pub(super) standing: BTreeSet<Order>,
    /// Boots whose end he confirmed, by an order or by forcing another server.
    confirmed: BTreeSet<(ServerName, BootId)>,
    /// Servers of which he said by name that they have stopped, and the lineage that he said it in.
    lost: BTreeSet<(ServerName, u32)>,
    /// Servers that he ordered back, and for which view.
    reinstated: BTreeSet<(ServerName, (u32, u64))>,
    /// He is forcing a server: nobody else touches anything meanwhile.
    busy: bool,
    /// Views that began a lineage, by lineage.
    forced: BTreeMap<u32, View>,
    /// The server that he has fence devices used on, its boot, and what they do.
    fenced: Option<(usize, BootId, Power)>,
    /// The number of the newest shutdown that he ordered.
    shut_down: u128,
    /// Servers that were switched off by an order, with its number.
    switched_off: BTreeSet<(usize, u128)>,
    /// Groups that he started after one, by lineage.
    started: BTreeSet<(GroupName, u32)>,
}

impl World {
    /// He forces a server: nothing else happens meanwhile.
    pub(super) fn operator_is_busy(&self) -> bool {
        self.operator.busy
    }

    fn order(&mut self, view: (u32, u64), server: usize, wanted: Wanted) {
        self.give(view, server, wanted);
        self.hand_over(server);
    }

    fn give(&mut self, view: (u32, u64), server: usize, wanted: Wanted) {
        let name = self.hosts[server].name.clone();
        let order = Order::new(view, name, wanted, "alice");
        self.operator.standing.retain(|known| known.view == order.view);
        self.operator.standing.insert(order);
    }

    /// `server`: hears of it in any case.
    fn hand_over(&mut self, server: usize) {
        // One server with a way to the API is enough, and it may be any.
        let first = self.rng.random_range(0..self.hosts.len());
        let some = self.now / MS;
        for to in 0..self.hosts.len() {
            if to == first || to == server || (some + to as u64).is_multiple_of(2) {
                self.hand_over_orders(to);
            }
        }
    }

    /// Gives a server the orders that stand.
    pub(super) fn hand_over_orders(&mut self, server: usize) {
        let (life, input) = (self.hosts[server].life, Input::Orders(self.operator.standing.clone()));
        self.after(MS, 200 * MS, Event::Input { server, life, input });
    }

    fn newest_order(&self) -> (u32, u64) {
        let views = self.hosts.iter().filter_map(|host| host.ledger.view.as_ref());
        views.map(View::order).max().unwrap_or_default()
    }

    /// A server goes out of service, comes back, or is confirmed to have stopped.
    pub(super) fn operate(&mut self, server: usize, wanted: Wanted) {
        let view = self.newest_order();
        match wanted {
            Wanted::ConfirmStopped => {
                // He goes there and looks: it has no power. What it was until now has ended for good.
                if self.hosts[server].powered {
                    return;
                }
                self.believe(server);
                self.operator.lost.insert((self.hosts[server].name.clone(), view.0));
            }
            Wanted::Reinstate => drop(self.operator.reinstated.insert((self.hosts[server].name.clone(), view))),
            _ => {}
        }
        self.order(view, server, wanted);
    }

    /// The fence devices of a server are used on its present boot; no `power`: what was ordered last stands for the view of now.
    pub fn fence_by_order(&mut self, server: usize, power: Option<Power>) {
        if let Some(power) = power {
            let boot = BootId(boot_id(server, self.hosts[server].boot));
            self.operator.fenced = Some((server, boot, power));
        }
        if let Some((server, boot, power)) = self.operator.fenced {
            self.operate(server, Wanted::Fence { boot, power });
        }
    }

    /// A server is verified off. What he ordered about that boot is done, and he takes it back, as the controller does.
    pub(super) fn hears_of_fence(&mut self, server: usize) {
        let boot = BootId(boot_id(server, self.hosts[server].boot));
        self.operator.fenced = self.operator.fenced.filter(|(about, meant, _)| (*about, *meant) != (server, boot));
        let name = self.hosts[server].name.clone();
        let done = |order: &Order| {
            order.server == name && matches!(order.wanted, Wanted::Fence { boot: meant, .. } if meant == boot)
        };
        let before = self.operator.standing.len();
        self.operator.standing.retain(|order| !done(order));
        if self.operator.standing.len() != before {
            (0..self.hosts.len()).for_each(|to| self.hand_over_orders(to));
        }
    }

    /// C17: all servers shut down, or one of them. `again`: the same order once more, as the controller gives it until it knows
    /// that it was carried out.
    pub(super) fn shut_down_all(&mut self, only: Option<usize>, again: bool) {
        self.operator.shut_down += u128::from(!again);
        let (view, id) = (self.newest_order(), self.operator.shut_down);
        let wanted = Wanted::ShutDown { id, together: only.is_none(), power_off: true };
        let servers: Vec<usize> = only.map_or((0..self.hosts.len()).collect(), |server| vec![server]);
        for server in &servers {
            self.give(view, *server, wanted);
        }
        if let Some(first) = servers.first() {
            self.hand_over(*first);
        }
    }

    /// C17: whoever is switched off by an order is so once. Whether it was one.
    pub(super) fn check_ordered(&mut self, server: usize) -> bool {
        let boot = BootId(boot_id(server, self.hosts[server].boot));
        let taken =
            self.hosts[server].ledger.shut_downs.last().filter(|taken| taken.done && taken.boot == boot).copied();
        if let Some(taken) = taken
            && !self.operator.switched_off.insert((server, taken.id))
        {
            let name = self.hosts[server].name.clone();
            self.violation("C17", format!("{name} is switched off twice by one order"));
        }
        taken.is_some()
    }

    /// All boots of a server so far are over.
    fn believe(&mut self, server: usize) {
        let over = self.hosts[server].boot + u64::from(!self.hosts[server].powered);
        for boot in 1..over {
            let key = (self.hosts[server].name.clone(), BootId(boot_id(server, boot)));
            self.operator.confirmed.insert(key);
        }
    }

    /// After all are down: `base` alone is started and made the base, if it waits for that. Then the others come back, unless
    /// `alone`.
    pub(super) fn force_reinstate(&mut self, base: usize, alone: bool) {
        self.operator.busy = true;
        let others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != base).collect();
        for other in &others {
            self.power_cut(*other);
            self.believe(*other);
        }
        self.repair_network();
        self.set_disk(base, super::faults::DiskState::Works);
        // What ran on it must not run on under another view.
        self.power_cut(base);
        self.believe(base);
        self.power_on(base);
        let waits = self.wait(12_000, |world| world.phase(base) == Some(ClusterPhase::AwaitingForceReinstate));
        if waits && self.violations.is_empty() {
            let view = self.hosts[base].ledger.view.as_ref().map(View::order).unwrap_or_default();
            self.order(view, base, Wanted::ForceReinstate);
            self.wait(3000, |world| world.lineage(base) > view.0);
        }
        self.operator.standing.clear();
        for server in 0..self.hosts.len() {
            self.hand_over_orders(server);
        }
        self.run_for(300);
        if !alone {
            for other in &others {
                self.power_on(*other);
            }
            let lineage = self.lineage(base);
            self.wait(10_000, |world| others.iter().all(|other| world.lineage(*other) >= lineage));
        }
        self.operator.busy = false;
    }

    fn lineage(&self, server: usize) -> u32 {
        self.hosts[server].ledger.view.as_ref().map_or(0, |view| view.lineage)
    }

    /// What an operator does when everything works again: whoever waits for him comes back, and what is held is started.
    pub fn tidy_up(&mut self) {
        // What was ordered to shut down may have done so only now.
        for server in 0..self.hosts.len() {
            if !self.removed.contains(&server) {
                self.power_on(server);
            }
        }
        let Some(coordinator) = (0..self.hosts.len())
            .find(|server| self.status(*server).is_some_and(|status| status.leased && status.coordinator.is_some()))
        else {
            if let Some(base) = self.waiting_base() {
                self.force_reinstate(base, false);
            }
            return;
        };
        let Some(status) = self.status(coordinator) else { return };
        for (name, absence) in &status.absences {
            let Some(server) = self.hosts.iter().position(|host| host.name == *name) else { continue };
            if absence.detached.is_some() || absence.barred {
                self.operate(server, Wanted::Reinstate);
            }
        }
        let mut changed = false;
        for (name, group) in status.coordinator.iter().flat_map(|coordinator| &coordinator.groups) {
            let (Some(tag), Some(config)) = (group.assignment.as_ref().map(|a| a.tag), self.groups.get(name)) else {
                continue;
            };
            if !group.holds.is_empty() {
                let mut config = (**config).clone();
                let computed_from = (tag.epoch, tag.revision);
                config.target = Some(Target { by: "operator".into(), server: None, computed_from, stop: Some(false) });
                self.groups.insert(name.clone(), Arc::new(config));
                self.operator.started.insert((name.clone(), self.lineage(coordinator)));
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
    }

    /// A server that waits to be made the base, if everybody who could say otherwise waits, too.
    fn waiting_base(&self) -> Option<usize> {
        let waits = |server: &usize| self.phase(*server) == Some(ClusterPhase::AwaitingForceReinstate);
        let newest = |server: &usize| {
            let (host, view) = (&self.hosts[*server], self.hosts[*server].ledger.view.as_ref());
            view.map(|view| (view.order(), view.members.contains_key(&host.name)))
        };
        let all = (0..self.hosts.len()).all(|server| waits(&server));
        (0..self.hosts.len()).filter(|_| all).max_by_key(newest)
    }

    /// R12, R20, R22: what operators said stands in views, and nothing else under their name. `base`: the view before.
    pub(super) fn check_operator(&mut self, view: &View, base: Option<&View>) {
        let by_word = |view: &View| -> BTreeSet<(ServerName, BootId)> {
            let words = view.departed.iter().filter(|(_, d)| matches!(d.evidence, Some(Evidence::Operator { .. })));
            words.map(|(key, _)| key.clone()).collect()
        };
        if let Some((name, _)) = by_word(view).difference(&self.operator.confirmed).next() {
            let text = format!("view {} says that an operator confirmed the end of {name}, and nobody did", view.epoch);
            return self.violation("R12", text);
        }
        if view.forced {
            let before = self.operator.forced.insert(view.lineage, view.clone());
            let member = view.members.keys().next().cloned();
            let earlier = self.operator.forced.get(&(view.lineage - 1));
            let again = earlier.zip(member.as_ref()).is_some_and(|(earlier, base)| {
                let back = |view: &View| view.lineage == earlier.lineage && view.members.contains_key(base);
                // That one is lost for good, and he has said so.
                let lost = |name: &ServerName| self.operator.lost.contains(&(name.clone(), earlier.lineage));
                earlier.detached.contains_key(base) && !self.seen.any(back) && !earlier.members.keys().all(lost)
            });
            if again {
                let text =
                    format!("{} is made the base although another one was", member.unwrap_or_else(|| "?".into()));
                return self.violation("R22", text);
            }
            if before.is_some_and(|before| before.chain == view.chain && before != *view) {
                self.violation("R22", format!("two views begin lineage {}", view.lineage));
            }
        }
        let Some(base) = base.filter(|base| base.lineage == view.lineage) else { return };
        for (name, member) in &view.members {
            let joins = !base.admits(name, member.boot);
            let ordered = self.operator.reinstated.contains(&(name.clone(), base.order()));
            let kept_out = base.detached.get(name).is_some_and(|detached| detached.ordered.is_some()) && !ordered;
            let left_out = self.operator.forced.get(&view.lineage).is_some_and(|forced| {
                // One that was declared later was not left out by it.
                forced.settings.servers.contains_key(name)
                    && !forced.members.contains_key(name)
                    && !self.operator.reinstated.iter().any(|(back, order)| back == name && order.0 == view.lineage)
            });
            if joins && (kept_out || left_out) {
                return self.violation("R20", format!("{name} joins in view {} without being reinstated", view.epoch));
            }
        }
    }

    /// R22: nobody starts a group that a force-reinstate holds: only what an operator started since runs. A helper that
    /// has begun before its server learnt of the force finishes what it was given then.
    pub(super) fn check_start_after_force(&mut self, server: usize, group: &GroupName) {
        let held = self.hosts[server].ledger.held.get(group);
        let lineage = held.map_or(self.lineage(server), |assignment| assignment.tag.lineage);
        if lineage > 1 && !self.operator.started.contains(&(group.clone(), lineage)) {
            self.violation("R22", format!("{group} starts in lineage {lineage} although no operator started it"));
        }
    }

    /// R22: once everybody hears everybody, nobody goes on in an older lineage.
    pub fn check_lineages(&mut self) {
        let newest = (0..self.hosts.len()).map(|server| self.lineage(server)).max().unwrap_or_default();
        // Who was removed for good, and who is declared in no view yet, is told nothing.
        let told = self.seen.newest().map(|view| view.settings.servers).unwrap_or_default();
        let behind = (0..self.hosts.len())
            .find(|server| told.contains_key(&self.hosts[*server].name) && self.lineage(*server) < newest)
            .filter(|server| !self.removed.contains(server));
        if let Some(server) = behind {
            let name = self.hosts[server].name.clone();
            self.violation(
                "R22",
                format!("{name} is still in lineage {}, others are in {newest}", self.lineage(server)),
            );
        }
    }
}
