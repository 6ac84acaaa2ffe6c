//! R12 (Operator), R20: what operators and the specification say about single servers, as the next view is to have it.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::core::Core;
use crate::names::ServerName;
use crate::orders::Wanted;
use crate::peers::Verdict;
use crate::planted::planted;
use crate::status::Absence;
use crate::view::{DepartedKey, Detachment, View};

impl Core {
    /// Servers that are declared Detached before there is a view: they take part in the formation, which needs
    /// everybody, and leave right after it. Somebody has to stay.
    pub(crate) fn declared_from_the_start(&self, config: &Config) -> BTreeMap<ServerName, Detachment> {
        let declared = config.servers.keys().filter(|name| config.detached.contains(*name));
        let all = config.detached.len() >= config.servers.len();
        let entry = |name: &ServerName| (name.clone(), Detachment { declared: true, ..Detachment::default() });
        declared.filter(|_| !all).map(entry).collect()
    }

    /// Who is to stay out by the next view. A server that comes back by an order is taken off when it joins.
    pub(crate) fn wanted_detachments(&self, config: &Config, view: &View) -> BTreeMap<ServerName, Detachment> {
        let mut wanted = view.detached.clone();
        // Somebody has to be left who can run groups: the last one can't be detached.
        let others = |wanted: &BTreeMap<ServerName, Detachment>, name: &ServerName| {
            view.members.keys().any(|member| member != name && !wanted.contains_key(member))
        };
        // Two members with different specifications would undo each other's views for ever, so all have to hold the
        // same one (R16).
        let holds = |name: &ServerName| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            *name == self.boot.server || frame.is_some_and(|frame| frame.config_generation == config.generation)
        };
        if view.members.keys().all(holds) {
            for name in config.servers.keys() {
                let declared = config.detached.contains(name);
                if declared && (wanted.contains_key(name) || others(&wanted, name)) {
                    wanted.entry(name.clone()).or_default().declared = true;
                } else if let Some(known) = wanted.get_mut(name).filter(|_| !declared) {
                    known.declared = false;
                }
            }
            wanted.retain(|name, _| config.servers.contains_key(name));
        }
        for order in self.orders_for(view).into_iter().filter(|order| config.servers.contains_key(&order.server)) {
            match order.wanted {
                Wanted::Detach { stop_groups }
                    if wanted.contains_key(&order.server) || others(&wanted, &order.server) =>
                {
                    let entry = wanted.entry(order.server).or_default();
                    entry.ordered.get_or_insert(order.by);
                    entry.stop_groups |= stop_groups;
                }
                // A member that is on its way out stays.
                Wanted::Reinstate if view.members.contains_key(&order.server) => {
                    if let Some(entry) = wanted.get_mut(&order.server) {
                        *entry = Detachment { declared: entry.declared, ..Detachment::default() };
                    }
                }
                _ => {}
            }
        }
        wanted.retain(|_, detachment| !detachment.is_over());
        wanted
    }

    /// R12: departed boots about which an operator gave his word, and which do not show the opposite.
    pub(crate) fn confirmed_stopped(&self, view: &View) -> BTreeMap<DepartedKey, String> {
        let orders = self.orders_for(view);
        let word = |(server, boot): &DepartedKey| {
            let order = orders.iter().find(|order| {
                order.wanted == Wanted::ConfirmStopped && (order.server == *server || planted!(OneWordForAll))
            })?;
            (!self.is_alive(server, *boot)).then(|| order.by.clone())
        };
        let open = view.departed.keys().filter(|key| self.evidence(key).is_none());
        open.filter_map(|key| Some((key.clone(), word(key)?))).collect()
    }

    /// Heartbeats of this boot of a server arrive: whoever says that it has stopped is wrong.
    fn is_alive(&self, server: &ServerName, boot: crate::names::BootId) -> bool {
        let frame = self.peers.get(server).and_then(|peer| peer.frame.as_ref());
        frame.is_some_and(|frame| frame.boot == boot) && self.verdict(server) != Verdict::Suspected
    }

    /// R19: what is missing before a server that has rebooted may come back, and the way out.
    pub(crate) fn unproven_in_words(&self, config: &Config, view: &View, name: &ServerName) -> String {
        let open = view.departed.iter().filter(|(key, _)| key.0 == *name && self.evidence(key).is_none());
        let machine = open.clone().any(|(_, departed)| departed.is_virtual) && !config.time_on_virtual_machines;
        if !machine {
            return "there is no evidence yet that its old incarnation has ended".into();
        }
        format!(
            "nothing proves that its old incarnation has ended: a virtual machine can be paused or copied, so neither \
             time nor its reboot counts (evidence.timeOnVirtualMachines: Refuse); make sure that no older instance of \
             {name} runs anywhere and say so: holdfast confirm-stopped {name}"
        )
    }

    /// Every configured server that is not an ordinary member, and what it waits for.
    pub(crate) fn absences(&self) -> BTreeMap<ServerName, Absence> {
        let (Some(view), Some(config)) = (&self.durable.view, &self.config) else { return BTreeMap::new() };
        let one = |name: &ServerName| {
            let unproven = view.departed.keys().any(|key| key.0 == *name && self.evidence(key).is_none());
            let detached = view.detached.get(name);
            let member = view.members.contains_key(name);
            let barred = if *name == self.boot.server {
                self.durable.barred
            } else {
                self.peers.get(name).and_then(|peer| peer.frame.as_ref()).is_some_and(|frame| frame.barred)
            };
            let message = match (detached, member) {
                (None, true) => String::new(),
                (Some(_), true) => "its groups are being handed over; then it leaves the view".into(),
                (_, false) if *name == self.boot.server => self.why_not_admitted(config, view),
                (_, false) => self.may_join(config, view, &view.members, name).err().unwrap_or_default(),
            };
            Absence {
                member,
                detached: detached.cloned(),
                barred: barred && !member && !config.automatic_return,
                unproven,
                alive: self.verdict(name) != Verdict::Suspected || *name == self.boot.server,
                message,
            }
        };
        config.servers.keys().map(|name| (name.clone(), one(name))).collect()
    }
}
