//! What a sub-cluster *decides*: who is alive, which view is the newest, who holds a lease, who runs which group.
//!
//! Pure state machines after `protocol.md` (rules R1–R24, cited at the code). No IO, no clock, no thread, no random
//! source: time enters as a value, messages enter and leave as values, maps are ordered; the same inputs give the
//! same outputs, byte for byte. One seeded simulator can therefore run whole sub-clusters through any schedule.
//!
//! # The caller's contract
//!
//! ```text
//!           Input                            Output
//!  paths ───────────▶ Core::handle ──▶ Core::poll_output ───▶ ledger, paths, lock disk, guard, executor
//!  timer ───────────▶ Core::tick    ◀── Core::next_deadline
//! ```
//!
//! 1. After every `handle` or `tick`, take outputs until there are none, and carry them out **in order**, before the
//!    next input. Waiting for completion is only needed where an input reports it.
//! 2. [`Output::Persist`] is durable when [`Input::Durable`] with its token comes back. Nothing that depends on it
//!    is put out before. If the ledger can't be written, stop the process: the guard does the rest.
//! 3. Drain waiting inputs before calling `tick` (R24), and never call with a `now` before the last one.
//! 4. Every effect may fail; its failure comes back as an input.

#![forbid(unsafe_code)]

pub mod compact;
pub mod config;
pub mod durable;
pub mod frame;
pub mod lock;
pub mod message;
pub mod names;
pub mod orders;
pub mod settings;
pub mod status;
mod steady;
pub mod time;
pub mod view;

#[cfg(feature = "planted")]
pub mod alike;
mod arbiter;
pub mod behind;
mod brakes;
pub mod clearing;
pub mod closing;
pub mod commands;
mod coordinator;
mod core;
mod declined;
mod detach;
mod explain;
mod fence_exclusion;
mod fence_orders;
mod fencing;
mod fitness;
mod force;
mod group;
pub mod holding;
mod hosted;
mod hosting;
mod input;
mod inspecting;
mod knowledge;
mod lease;
mod membership;
mod monitors;
mod output;
mod peers;
#[cfg(not(feature = "planted"))]
mod planted;
#[cfg(feature = "planted")]
pub mod planted;
mod proposer;
mod question;
mod reconfigure;
mod relapse;
pub mod restarting;
mod ring;
mod transition;

pub use crate::core::Core;
pub use input::{Boot, Input, Outcome};
pub use output::{Action, Context, Note, OpId, Output};
