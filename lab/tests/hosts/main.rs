//! Tests on real hosts: whole sub-clusters of the examples in a lab, broken in every way that part of mission.md's
//! fault table names. Each proves "never on two servers" by what a writer in the group left on the shared disk and
//! on the hosts, not by what Holdfast says about itself.

mod acceptance;
mod agents;
mod area;
mod chaos;
mod commands;
mod control_plane;
mod data_service;
mod disk_faults;
mod every_path;
mod examples;
mod exec;
mod failback;
mod faults;
mod fencing;
mod flapping;
mod gitops;
mod harness;
mod inside;
mod killed;
mod missing;
mod monitored_parts;
mod monitors;
mod ocf;
mod operator;
mod own_kernel;
mod partition;
mod paths;
mod pausing;
mod power;
mod process;
mod quorum;
mod reconfigure;
mod shutdown;
mod soak;
mod sources;
mod strangers;
mod systemd;
mod three_servers;
mod two_way;
mod up;
mod upgrade;
mod virtual_ip;
mod watchdog;
mod why;
