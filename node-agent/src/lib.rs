//! The IO around the core: paths, disk area, ledger, resource drivers, guard.
//!
//! `holdfast-core` decides; here is everything that touches a clock, a disk, a network, a process. The core has one
//! thread of its own and is never asked to wait for anything.

pub mod api_client;
pub mod api_sync;
pub mod ask;
pub mod boot;
pub mod bootstrap;
pub mod cgroup;
pub mod clock;
pub mod commands;
pub mod config;
pub mod convert;
pub mod deadline;
pub mod disk;
pub mod driver_loop;
pub mod effects;
pub mod exec;
pub mod executor;
pub mod fencing;
pub mod given;
pub mod guard;
pub mod guard_keeper;
pub mod helper;
pub mod inbox;
pub mod join;
pub mod ledger;
pub mod local_socket;
pub mod look;
pub mod metadata;
pub mod metrics;
pub mod monitors;
pub mod nfs_clients;
pub mod notes;
pub mod nursery;
pub mod paths;
pub mod programs;
pub mod quorum;
pub mod realtime;
mod redact;
pub mod resources;
pub mod run;
pub mod said;
pub mod spawn;
pub mod spec_cache;
pub mod unusable;
pub mod watchdog;

pub use run::{AgentError, agent_main};

#[cfg(test)]
mod testing;
