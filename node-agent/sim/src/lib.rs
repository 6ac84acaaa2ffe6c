//! Whole sub-clusters of the real core in one process, on virtual time, from a seed.
//!
//! [`world`] is everything that a core can't see: network, disks, power, clocks, guards, and the invariants. [`schedule`]
//! makes faults from seeds, replays and shrinks them. [`aimed`] has the schedules that bring out each planted bug.

pub mod aimed;
pub mod model;
pub mod schedule;
pub mod setup;
pub mod world;

pub use world::World;
