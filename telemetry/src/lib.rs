//! What a process shows of itself to machines: the form of its logs ([`logs`]), and its metrics ([`metrics`]), which it
//! answers over HTTP ([`endpoint`]) where it has no API of its own. What there is to measure is known to the rooms that
//! do it; nothing here knows what a cluster is.

pub mod endpoint;
pub mod logs;
pub mod metrics;
mod process;
