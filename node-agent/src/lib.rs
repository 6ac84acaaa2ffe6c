//! The IO around the core: paths, disk area, ledger, resource drivers, guard.
//!
//! `holdfast-core` decides; here is everything that touches a clock, a disk, a network, a process. The core has one
//! thread of its own and is never asked to wait for anything.

pub mod boot;
pub mod clock;
pub mod config;
pub mod disk;
pub mod inbox;
pub mod ledger;
pub mod paths;
pub mod realtime;

#[cfg(test)]
mod testing;
