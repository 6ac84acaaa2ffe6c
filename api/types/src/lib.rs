//! The Holdfast API, group `holdfast.dev`, version `v1`: kinds, schemas, defaults, validation and timing arithmetic.
//!
//! Everything here is a pure function of its arguments: no file, no network, no clock. Who reads a clock passes the
//! time in.

pub mod access;
pub mod change;
pub mod claims;
pub mod conditions;
pub mod crds;
pub mod duration;
pub mod error;
pub mod exec;
pub mod measured;
pub mod placement;
pub mod programs;
pub mod reasons;
pub mod references;
pub mod schema;
pub mod support;
pub mod timing;
pub mod v1;
pub mod validation;

/// The API group of every kind.
pub const GROUP: &str = "holdfast.dev";
/// The only version so far.
pub const VERSION: &str = "v1";
/// `apiVersion` of every object.
pub const API_VERSION: &str = "holdfast.dev/v1";

pub use crds::{crds, schema_of};
pub use error::{ErrorKind, FieldError};
