//! One file per verb.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod merge;
pub(crate) mod table;
