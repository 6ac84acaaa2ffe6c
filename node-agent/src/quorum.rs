//! The cluster lock as one object on an API server outside the sub-cluster (R5, docs/quorum-server.md): its form, one
//! access to it, and what an administrator does with it.
//!
//! What a lock's answer means is the core's decision; the thread that asks for a running agent is `paths::quorum`.

pub mod access;
pub mod admin;
pub mod object;
