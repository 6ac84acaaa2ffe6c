//! The machine as a whole: takes an input, lets the rules act, hands out what they ask for.

use std::collections::VecDeque;

use crate::durable::Durable;
use crate::input::{Boot, Input};
use crate::output::Output;
use crate::time::Instant;

/// One server's state machine. See the crate's documentation for the contract.
#[derive(Debug, Clone)]
pub struct Core {
    boot: Boot,
    durable: Durable,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A core for one run of the process. `durable` is what the ledger holds, or [`Durable::fresh`] on the first start;
    /// nothing is put out before the first `tick`.
    pub fn new(_now: Instant, boot: Boot, durable: Durable) -> Core {
        Core { boot, durable, outputs: VecDeque::new() }
    }

    /// Takes one input.
    pub fn handle(&mut self, _now: Instant, _input: Input) {}

    /// Lets time pass. Call when [`Core::next_deadline`] is reached, after all waiting inputs.
    pub fn tick(&mut self, _now: Instant) {}

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `tick` has to be called at the latest.
    pub fn next_deadline(&self) -> Instant {
        Instant::ZERO
    }

    /// What this server knows now.
    pub fn status(&self, _now: Instant) -> crate::status::Status {
        unreachable!("{:?} {:?}", self.boot, self.durable)
    }
}
