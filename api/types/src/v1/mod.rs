//! The six kinds of `holdfast.dev/v1`, one file per kind; large kinds have their parts in files of their own.
//!
//! Rust names follow the schema: `subCluster` is `sub_cluster`. A default that does not depend on anything else stands
//! in the schema; a default that is derived from other fields is `None` here and has an accessor.

#![allow(clippy::duplicated_attributes, reason = "the printer columns of a kind have the same keys")]

/// Declares an enumeration of the API: text forms, schema, and the meaning of each choice for `kubectl explain`. The text
/// of a choice is its name unless another one is given; `pub enum Name = Choice` makes that choice the default.
macro_rules! choices {
    (
        $(#[doc = $doc:expr])*
        pub enum $name:ident $(= $default:ident)? {
            $( $(#[doc = $vdoc:expr])* $variant:ident $(= $text:literal)? ),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[doc = $vdoc])* $(#[serde(rename = $text)])? $variant, )+ }

        $(impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        })?

        impl $name {
            /// All choices, in the order in which the documentation lists them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text that stands in manifests.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => choices!(@text $variant $($text)?)),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                crate::schema::choices(
                    concat!($($doc, "\n"),*),
                    &[$((choices!(@text $variant $($text)?), concat!($($vdoc, "\n"),*))),+],
                )
            }
        }
    };
    (@text $variant:ident) => { stringify!($variant) };
    (@text $variant:ident $text:literal) => { $text };
}

pub mod common;
pub mod data_service;
pub mod effective;
pub mod failover_group;
pub mod failover_group_status;
pub mod heartbeat;
pub mod monitors;
pub mod operation;
pub mod operation_parameters;
pub mod resources;
pub mod resources_other;
pub(crate) mod rules;
pub mod server;
pub mod sub_cluster;
pub mod sub_cluster_status;
pub mod super_cluster;

pub use common::*;
pub use data_service::*;
pub use effective::*;
pub use failover_group::*;
pub use failover_group_status::*;
pub use heartbeat::*;
pub use monitors::*;
pub use operation::*;
pub use operation_parameters::*;
pub use resources::*;
pub use server::*;
pub use sub_cluster::*;
pub use sub_cluster_status::*;
pub use super_cluster::*;
