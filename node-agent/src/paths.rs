//! The ways to other servers: sealed envelopes over LANs, blocks on the shared disk.
//!
//! Which path is alive, and what silence means, is the core's decision.

pub mod seal;
