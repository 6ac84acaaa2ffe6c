//! One server of the model.

use std::collections::VecDeque;

use holdfast_core::alike::Shift;
use holdfast_core::durable::Durable;
use holdfast_core::lock::LockRecord;
use holdfast_core::names::{AcceptorId, BootId, ClusterId, ServerName};
use holdfast_core::time::Instant;
use holdfast_core::{Boot, Core, Input};

use super::disk::Access;

#[derive(Debug, Clone, Hash)]
pub(super) struct Host {
    pub(super) name: ServerName,
    pub(super) core: Option<Core>,
    /// Since when its process is stopped by a signal; disks and peers go on.
    pub(super) frozen: Option<Instant>,
    pub(super) boot: u64,
    pub(super) ledger: Durable,
    /// Ledger writes that are not durable yet, in order.
    pub(super) writes: VecDeque<(u64, Durable)>,
    /// The oldest of them hangs.
    pub(super) slow: bool,
    pub(super) access: Option<Access>,
    /// Writes to the lock that nobody waits for any more; they may land late or never.
    pub(super) strays: Vec<LockRecord>,
    /// What arrived while it was frozen.
    pub(super) inbox: VecDeque<Input>,
    /// (soft stop, kill, end), as the guard knows them.
    pub(super) deadline: (Instant, Instant, Instant),
    /// The group really runs here.
    pub(super) runs: bool,
}

pub(super) fn boot_id(server: usize, boot: u64) -> BootId {
    BootId((server as u128 + 1) << 64 | u128::from(boot))
}

impl Host {
    pub(super) fn new(index: usize) -> Host {
        Host {
            name: crate::setup::server_name(index),
            core: None,
            frozen: None,
            boot: 1,
            ledger: Durable::fresh(AcceptorId(index as u128 + 1), boot_id(index, 1)),
            writes: VecDeque::new(),
            slow: false,
            access: None,
            strays: Vec::new(),
            inbox: VecDeque::new(),
            deadline: Default::default(),
            runs: false,
        }
    }

    /// Takes part in what happens now.
    pub(super) fn is_awake(&self) -> bool {
        self.core.is_some() && self.frozen.is_none()
    }

    /// Something that it gave away comes to its end in this interval.
    pub(super) fn waits(&self) -> bool {
        !self.writes.is_empty() && !self.slow || self.access.as_ref().is_some_and(|access| !access.hangs)
    }

    pub(super) fn start(&mut self, index: usize, now: Instant) {
        let about = Boot {
            server: self.name.clone(),
            boot: boot_id(index, self.boot),
            is_virtual: false,
            deadline: self.deadline,
            capacity: None,
            fresh_cluster: ClusterId(0xc1),
        };
        self.core = Some(Core::new(now, about, self.ledger.clone()));
    }

    /// The process ends. What was given to the lock may still land; what was given to the ledger and is not durable by
    /// now is lost (that it became durable right before is another path).
    pub(super) fn stop(&mut self) {
        self.core = None;
        self.frozen = None;
        self.inbox.clear();
        (self.writes, self.slow) = (VecDeque::new(), false);
        self.strays.extend(self.access.take().and_then(|access| access.record));
    }

    /// Makes this host equal to all that can't behave differently. What a frozen process will hear names numbers.
    pub(super) fn simplify(&mut self) {
        let Some(core) = self.core.as_mut().filter(|_| self.inbox.is_empty()) else { return };
        core.forget();
        let by = core.recount_writes();
        self.writes.iter_mut().for_each(|(token, _)| *token -= by);
        let open = self.access.as_ref().map(|access| access.token);
        if let (Some(token), Some(access)) = (core.recount_operations(open), &mut self.access) {
            access.token = token;
        }
    }

    /// Numbers the records on the lock anew.
    pub(super) fn renumber(&mut self, slot: u8, shift: &Shift) {
        if let Some(core) = &mut self.core {
            core.renumber(shift);
        }
        shift.ledger(slot, &mut self.ledger);
        self.writes.iter_mut().for_each(|(_, state)| shift.ledger(slot, state));
        self.strays.iter_mut().for_each(|record| shift.record(slot, record));
        if let Some(access) = &mut self.access {
            access.record.iter_mut().for_each(|record| shift.record(slot, record));
            access.swapped.iter_mut().for_each(|look| shift.look(look));
        }
        for input in &mut self.inbox {
            if let Input::Lock { result: Ok(look), .. } = input {
                shift.look(look);
            }
        }
    }

    /// The next ledger write changes what this server decided, promised or accepted.
    pub(super) fn next_write_matters(&self) -> bool {
        self.writes.front().is_some_and(|(_, state)| {
            state.promised != self.ledger.promised
                || state.accepted != self.ledger.accepted
                || state.view != self.ledger.view
        })
    }
}
