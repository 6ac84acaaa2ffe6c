//! What operators order about servers (R19, R20, R22): values, and which of them are in force.
//!
//! An order is not a message that is carried out when it arrives, but a fact that stands for a while: it names the view
//! that it was given for and is void under every other one. What it asks for ends in a view, so it is carried out once,
//! whoever repeats it, and one that arrives late is no order any more.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::closing::ShutDownId;
use crate::core::Core;
use crate::names::{BootId, ServerName};
use crate::view::{Epoch, View};

/// Longest `by`, in bytes: it stands in views, and those have to fit into a block of the lock disk.
pub const MAX_BY: usize = 64;

/// So many orders of one server are told to the others at once.
const MAX_TOLD: usize = 16;

/// An operator's order about one server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Lineage and epoch of the view that it was given for.
    pub view: (u32, Epoch),
    /// The server that it is about.
    pub server: ServerName,
    /// What is to happen.
    pub wanted: Wanted,
    /// Who asks for it.
    pub by: String,
}

/// What an order asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Wanted {
    /// Out of service until it is reinstated.
    Detach {
        /// Its groups stop and are held; else they move.
        stop_groups: bool,
    },
    /// Back as a standby.
    Reinstate,
    /// What its departed incarnations held has ended: the operator has looked.
    ConfirmStopped,
    /// It becomes the base of a new lineage.
    ForceReinstate,
    /// Its fence devices are used (`fence_orders.rs`).
    Fence {
        /// The boot that is to end, or after which it is to be switched on again.
        boot: BootId,
        /// What they do.
        power: Power,
    },
    /// It stops its groups, leaves, and is switched off (`closing.rs`).
    ShutDown {
        /// Number of the shutdown.
        id: ShutDownId,
        /// All servers of the sub-cluster are ordered to.
        together: bool,
        /// The machine is switched off; else the agent stays, out of the view.
        power_off: bool,
    },
}

/// What fence devices do to a server by order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Power {
    /// Off, and it stays off.
    Off,
    /// Off, and on again once that is verified.
    Reboot,
    /// On.
    On,
}

impl Order {
    /// An order; `by` is cut to [`MAX_BY`] bytes.
    pub fn new(view: (u32, Epoch), server: ServerName, wanted: Wanted, by: &str) -> Order {
        let end = by.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_BY).last();
        Order { view, server, wanted, by: by[..end.unwrap_or(0)].to_owned() }
    }
}

impl Core {
    /// The orders that this server was given and that are not void.
    pub(crate) fn own_orders(&self) -> BTreeSet<Order> {
        let Some(view) = self.stable_order() else { return BTreeSet::new() };
        self.given.iter().filter(|order| order.view == view).take(MAX_TOLD).cloned().collect()
    }

    /// All orders for `view`, whoever was given them: one server with a way to the operator is enough.
    pub(crate) fn orders_for(&self, view: &View) -> BTreeSet<Order> {
        let told = self.peers.values().filter_map(|peer| peer.frame.as_ref()).flat_map(|frame| frame.orders.iter());
        self.given.iter().chain(told).filter(|order| order.view == view.order()).cloned().collect()
    }

    /// The order for a server of the kind that `pick` takes.
    pub(crate) fn order_about(&self, view: &View, server: &ServerName, pick: impl Fn(Wanted) -> bool) -> Option<Order> {
        self.orders_for(view).into_iter().find(|order| order.server == *server && pick(order.wanted))
    }
}
