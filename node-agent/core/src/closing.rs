//! C17: servers shut down because an Operation orders it, one of them or a whole sub-cluster.
//!
//! | who is ordered | what follows |
//! |---|---|
//! | one server | it hands its groups over, leaves the view, and switches itself off |
//! | all, together | no server starts anything more; groups stop, those that come after others first; when nobody holds anything the stopped view is decided, with all of them as members, and each switches itself off |
//!
//! Together means that nobody leaves the view before all have stopped: so each of them can start the sub-cluster again,
//! and none waits for one that went later and does not come back.
//!
//! An order is void under every other view and is given anew as long as its Operation runs; a server that comes back when
//! that is over must not heed it again. So whoever takes one writes its number down first, and takes none with a number
//! that it has carried out, or that it took in another boot of its machine. It says so with its heartbeats, and as long as
//! one that was ordered has neither begun nor refused the coordinator decides nothing: it would move groups to a server
//! that is about to go.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::frame::Intent;
use crate::names::{BootId, ServerName};
use crate::orders::{Order, Wanted};
use crate::output::Output;
use crate::peers::Verdict;
use crate::planted::planted;
use crate::view::View;

/// Number of a shutdown: the uid of its Operation.
pub type ShutDownId = u128;

/// So many orders are remembered. An older one that is still given then belongs to an Operation that was overtaken by as
/// many others.
const REMEMBERED: usize = 8;

/// An order to shut down that this server took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShutDown {
    /// Its number.
    pub id: ShutDownId,
    /// The boot that took it.
    pub boot: BootId,
    /// This server has left, and holds nothing.
    pub done: bool,
}

/// An order to shut down that this process carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Closing {
    together: bool,
    power_off: bool,
}

impl Core {
    /// The orders to shut down about a server, for this view, with their numbers.
    fn shut_down_orders<'a>(
        &'a self,
        view: &'a View,
        server: &'a ServerName,
    ) -> impl Iterator<Item = (ShutDownId, &'a Order)> {
        let told = self.peers.values().filter_map(|peer| peer.frame.as_ref()).flat_map(|frame| frame.orders.iter());
        self.given.iter().chain(told).filter_map(move |order| match order.wanted {
            Wanted::ShutDown { id, .. } if order.view == view.order() && order.server == *server => Some((id, order)),
            _ => None,
        })
    }

    /// Takes an order to shut down.
    pub(crate) fn heed_order_to_shut_down(&mut self) {
        let me = self.boot.server.clone();
        let Some(view) = self.durable.view.as_ref() else { return };
        let stays_out = !view.members.contains_key(&me) && self.stable_order() == Some(view.order());
        if self.closing.is_some() || !(self.acting() || stays_out) {
            return;
        }
        let open = self.shut_down_orders(view, &me).find(|(id, _)| !self.has_heeded(*id));
        let Some(order) = open.map(|(_, order)| order.clone()) else { return };
        let Wanted::ShutDown { id, together, power_off } = order.wanted else { return };
        self.durable.shut_downs.retain(|taken| taken.id != id);
        let forgotten = (self.durable.shut_downs.len() + 1).saturating_sub(REMEMBERED);
        self.durable.shut_downs.drain(..forgotten);
        self.durable.shut_downs.push(ShutDown { id, boot: self.boot.boot, done: false });
        self.closing = Some(Closing { together, power_off });
        self.leaving = true;
        self.persist();
        let reason = format!("{me} shuts down by order of {}", order.by);
        self.down = power_off.then(|| reason.clone());
        self.note("ServerDown", None, true, reason);
        self.beat_soon();
    }

    /// An order with this number is none any more.
    fn has_heeded(&self, id: ShutDownId) -> bool {
        let mine = self.durable.shut_downs.iter().find(|taken| taken.id == id);
        mine.is_some_and(|taken| self.has_ended(taken)) && !planted!(ShutsDownAgain)
    }

    /// Orders that this server took, each with whether it is none any more; the newest last.
    pub(crate) fn shut_downs(&self) -> Vec<(ShutDownId, bool)> {
        self.durable.shut_downs.iter().map(|taken| (taken.id, self.has_ended(taken))).collect()
    }

    /// It was carried out, or the machine was started anew since.
    fn has_ended(&self, taken: &ShutDown) -> bool {
        taken.done || taken.boot != self.boot.boot
    }

    /// The numbers of orders for this view that this server does not heed again, for the others to know.
    pub(crate) fn refused_to_shut_down(&self) -> BTreeSet<ShutDownId> {
        let Some(view) = &self.durable.view else { return BTreeSet::new() };
        let orders = self.shut_down_orders(view, &self.boot.server).map(|(id, _)| id);
        orders.filter(|id| self.has_heeded(*id)).collect()
    }

    /// A member was ordered to shut down, and has neither begun nor refused.
    pub(crate) fn awaits_shut_down(&self, view: &View) -> bool {
        let open = |name: &ServerName, id: ShutDownId| {
            if *name == self.boot.server {
                return self.closing.is_none() && !self.has_heeded(id);
            }
            self.present(name).is_some_and(|frame| frame.intent == Intent::Join && !frame.refused.contains(&id))
        };
        view.members.keys().any(|name| self.shut_down_orders(view, name).any(|(id, _)| open(name, id)))
    }

    /// This server leaves when all do.
    pub(crate) fn closes_together(&self) -> bool {
        self.closing.is_some_and(|closing| closing.together)
    }

    /// It stays in the view until nobody in it holds anything.
    pub(crate) fn waits_for_all(&self) -> bool {
        self.closes_together() && !planted!(ClosesAlone)
    }

    /// What this server wants of the view.
    pub(crate) fn intent(&self) -> Intent {
        match (self.leaving, self.waits_for_all()) {
            (false, _) => Intent::Join,
            (true, true) => Intent::Close,
            (true, false) => Intent::Leave,
        }
    }

    /// A member that waits for nothing but the others: it holds nothing, and takes nothing more.
    pub(crate) fn has_closed(&self, view: &View, name: &ServerName) -> bool {
        if *name == self.boot.server {
            return self.closes_together() && self.machines.is_empty() && self.durable.held.is_empty();
        }
        let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
        frame.is_some_and(|frame| {
            frame.intent == Intent::Close && frame.held.is_empty() && (frame.lineage, frame.epoch) == view.order()
        })
    }

    /// Whoever is heard knows that the sub-cluster has stopped: one that did not would count as one that crashed.
    fn end_is_known(&self) -> bool {
        let Some(view) = self.durable.view.as_ref().filter(|view| view.stopped && self.closes_together()) else {
            return true;
        };
        view.members.keys().filter(|name| **name != self.boot.server).all(|name| {
            let frame = self.peers.get(name).and_then(|peer| peer.frame.as_ref());
            let behind = frame.is_some_and(|frame| (frame.lineage, frame.epoch) < view.order());
            !behind || self.verdict(name) == Verdict::Suspected
        })
    }

    /// The machine shuts down, or somebody ends the process.
    pub(crate) fn asked_to_end(&mut self) {
        self.leaving = true;
        let stays = self.closing.is_some_and(|closing| !closing.power_off);
        if (self.down.take().is_some() || stays) && self.exited {
            self.emit(Output::Exit);
        }
    }

    /// R20: leaving ends when nothing is held and the view goes on without us, or when there is no view to care for.
    pub(crate) fn drive_leave(&mut self) {
        if !self.leaving || self.exited {
            return;
        }
        let alone = self.durable.view.as_ref().is_none_or(|view| view.members.len() == 1);
        // Alone and closing, the coordinator that it is stops the groups in their order.
        if !self.acting() || alone && !self.closes_together() {
            self.stop_everything("this server leaves");
        } else if alone {
            self.stop_unknown("this server leaves");
        }
        let idle = self.machines.is_empty() && self.durable.held.is_empty();
        if !idle {
            return;
        }
        let cut_off = self.acting() && !self.leased();
        if (!self.acting() || cut_off) && self.end_is_known() {
            self.exited = true;
            if !self.acting() && !self.durable.clean {
                self.durable.clean = true;
                self.persist();
            }
            if let Some(taken) = self.durable.shut_downs.last_mut().filter(|_| self.closing.is_some()) {
                taken.done = true;
                self.persist();
            }
            match (self.down.clone(), self.closing) {
                (Some(reason), _) => self.emit(Output::PowerOff { reason }),
                // It stays, answers, and takes part in nothing until it is started anew.
                (None, Some(closing)) if !closing.power_off => {}
                (None, _) => self.emit(Output::Exit),
            }
        }
    }
}
