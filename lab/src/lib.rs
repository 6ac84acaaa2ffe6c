//! Hosts made of namespaces on one machine, and faults for them: what `holdfast lab` and the tests on real hosts
//! are built from.
//!
//! A [`Lab`] has networks (bridges in a namespace of its own), shared disks (image files, a loop device per
//! host) and [`Host`]s (process trees with namespaces of their own, first process `holdfast lab-init`). Nothing
//! of the machine's own network or files is touched, and everything is gone when the lab is dropped.
//! A [`Machine`] is a virtual machine, where a kernel of its own is needed.
//! [`Poller`] sees a service as a client does, `writer` and `overlap` prove who wrote when.
//!
//! The lab runs the `holdfast` binary as a program; it links no code of agent, controller or API server.

mod bench;
mod binary;
mod blueprint;
mod cgroup;
mod cluster;
mod command;
mod devices;
mod disk;
mod error;
mod forward;
mod host;
mod init;
mod lab;
mod loopdev;
mod machine;
mod network;
mod overlap;
mod poller;
mod serial;
mod shell;
mod spec;
mod state;
mod up;
mod writer;

pub use bench::{BenchOptions, What, bench};
pub use binary::holdfast_binary;
pub use blueprint::{Blueprint, DiskPlan, LanPlan, QuorumPlan, SerialPlan, documents};
pub use cgroup::{Cgroup, unified_mount};
pub use cluster::{
    AGENT, Bundle, CLIENT, CONTROL, Cluster, ClusterOptions, Companion, Edit, Inside, POWERED_OFF, Snapshot, StoreKind,
    WITNESS,
};
pub use command::lab_main;
pub use devices::DiskFault;
pub use disk::DiskConfig;
pub use error::{LabError, Result};
pub use forward::Forwarder;
pub use host::{CutMoment, Host, Process, Wiring};
pub use init::init_main;
pub use lab::{CableConfig, HostConfig, Lab, SerialConfig};
pub use loopdev::devices_below;
pub use machine::{Ended, Machine, MachineConfig, WireEnd, wire};
pub use network::Cable;
pub use overlap::{Line, Tenure, check_overlap, merge_tenures, parse_lines};
pub use poller::{Answer, Outage, POLL_INTERVAL, POLL_TIMEOUT, Poller};
pub use serial::{LineState, SerialLine};
pub use shell::{boottime_ns, finish, run, wait_for};
pub use spec::{BIN_DIR, DeviceSpec, HostSpec, LOG_DIR, NodeSpec, STATE_DIR, ServiceSpec};
pub use state::clean;
pub use up::{UpOptions, up};
pub use writer::writer_main;
