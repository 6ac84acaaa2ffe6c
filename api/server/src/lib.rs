//! The Kubernetes REST protocol over a store.
//!
//! ```text
//!  connection ─ identity ─▶ router ─▶ authz ─▶ ops/{read,create,update,delete,review} ─▶ sealed ─▶ Store
//!                  tokens ◀──┤                      │        ▲
//!                             ▼                  prepare, schema, admission, managed (pure)
//!                    discovery, health               │
//!                                            feed ─▶ cache ─▶ lists, watch_stream, gc, namespaces
//! ```
//!
//! Invariants: everything that is acknowledged is in the store; what the caches show is a state of the store, with its
//! revision; a watch shows every change once and in order; only `error` makes Status answers; only `negotiation` and
//! `router` know media types; only `sealed` sees what a Secret looks like in the store.
//!
//! Deliberately absent: kinds. They come as CustomResourceDefinitions, the built-ins from `registry/builtin.yaml`.

mod admission;
pub mod authority;
mod authz;
pub mod backup;
mod bootstrap;
mod cache;
pub mod certificates;
mod decode;
mod discovery;
mod error;
mod feed;
mod fieldset;
mod flow;
mod gc;
mod health;
pub mod identity;
pub mod join_tokens;
pub mod jsonpath;
mod kept;
pub mod keys;
mod managed;
pub mod metrics;
mod names;
mod namespaces;
mod negotiation;
mod object;
mod openapi;
mod ops;
mod patch;
mod pieces;
pub mod pki;
mod prepare;
mod probe;
mod protobuf;
mod query;
mod rbac;
pub mod registry;
mod request;
mod router;
mod schema;
mod sealed;
mod selectors;
mod server;
mod service_accounts;
mod state;
mod table;
pub mod tls;
mod tokens;
mod typed;
mod upkeep;
mod watch_stream;

pub use identity::{Acceptor, Connection, Identity, Plain};
pub use registry::{Registry, ResourceDef};
pub use server::{AGENT_LIFE, ApiService, Server, Settings};
