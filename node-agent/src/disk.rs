//! The CLUSTER area on a shared disk: its layout, the device under it, and what is read from and written to it.
//!
//! Who may write when is the core's decision; the thread that does it for a running agent is `paths::disk`.

pub mod area;
pub mod device;
pub mod format;
pub mod layout;

mod occupied;
