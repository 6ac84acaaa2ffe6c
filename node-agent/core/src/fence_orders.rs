//! Operation Fence: an operator has the fence devices of a server used.
//!
//! The order names a boot, so it is carried out once, whoever repeats it: a boot that has ended does not come back, and
//! another boot of the same server is not meant. (Only a process that neither saw the end of that boot nor hears a later
//! one may do it again, to a server that is no member, until the controller has taken the order back.) A member is left
//! out of the view first, as one that can't stop a group is (D27), and then hit like every departed server: never while
//! it is a member, and never beside its admission ([`crate::fence_exclusion`]). It does not matter whether its end is
//! proven already: the operator wants the power off.
//!
//! The view that leaves it out makes the order void, so it says itself what the devices are to do: whoever coordinates
//! does that, and nobody lets the same boot in again before it is done. What the view says stands until then, also if the
//! Operation is cancelled.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::fencing::AGAIN;
use crate::frame::FenceState;
use crate::names::ServerName;
use crate::orders::{Power, Wanted};
use crate::planted::planted;
use crate::time::Instant;
use crate::view::{DepartedKey, View};

impl Core {
    /// What was ordered for this view, and what the view itself says, by boot.
    pub(crate) fn ordered_fences(&self, view: &View) -> BTreeMap<DepartedKey, Power> {
        let covered = |name: &ServerName| self.config.as_ref().is_some_and(|config| config.fencing.covers(name));
        let orders = self.orders_for(view).into_iter().filter(|order| covered(&order.server));
        let fence = orders.filter_map(|order| match order.wanted {
            Wanted::Fence { boot, power } => Some(((order.server, boot), power)),
            _ => None,
        });
        let begun = view.departed.iter().filter_map(|(key, departed)| Some((key.clone(), departed.power?)));
        // The newest order counts.
        begun.chain(fence).collect()
    }

    /// How the present boot of a member is to be switched off; not before another member is there that goes on without it:
    /// it alone can let the others in again (found by the simulator, seed 1335).
    pub(crate) fn ordered_off(&self, view: &View, name: &ServerName) -> Option<Power> {
        let boot = view.members.get(name)?.boot;
        let there = |other: &ServerName| {
            *other == self.boot.server || self.present(other).is_some_and(|frame| view.admits(other, frame.boot))
        };
        if !view.members.keys().any(|other| other != name && there(other)) {
            return None;
        }
        self.ordered_fences(view).get(&(name.clone(), boot)).copied().filter(|power| *power != Power::On)
    }

    /// A server that is no member, and that is to be switched off before it may become one.
    pub(crate) fn is_about_to_be_hit(&self, view: &View, name: &ServerName) -> bool {
        let ordered = self.ordered_fences(view);
        let due = |(key, power): (&DepartedKey, &Power)| *power != Power::On && !self.is_carried_out(key, *power);
        ordered.iter().filter(|(key, _)| key.0 == *name).any(due)
    }

    /// When an order is due; none: not at all, or not before something else changes.
    pub(crate) fn order_due(&self, view: &View, key: &DepartedKey, power: Power) -> Option<Instant> {
        if view.members.contains_key(&key.0) && !planted!(OrderHitsMember) {
            return None;
        }
        let by_a_member = || view.members.keys().any(|name| self.says_it_fires(name, &key.0));
        if self.is_carried_out(key, power) || self.has_call(&key.0) || by_a_member() {
            return None;
        }
        match self.fences.get(key) {
            Some(call) if call.state == FenceState::Failed => Some(call.since + AGAIN),
            _ => Some(self.now),
        }
    }

    /// What was ordered is so: that boot has ended by a device, or the server speaks from another one.
    pub(crate) fn is_carried_out(&self, key: &DepartedKey, power: Power) -> bool {
        let speaks = self.present(&key.0);
        if power == Power::On {
            return speaks.is_some() || self.fences.get(key).is_some_and(|call| call.state == FenceState::On);
        }
        let says = |frame: &crate::frame::Frame| frame.fences.get(key).is_some_and(|state| *state == FenceState::Off);
        self.ended.contains(key) && !self.has_call(&key.0)
            || self.peers.values().filter_map(|peer| peer.frame.as_ref()).any(says)
            || speaks.is_some_and(|frame| frame.boot != key.1)
    }
}
