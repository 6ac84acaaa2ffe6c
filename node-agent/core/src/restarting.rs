//! Restart: a group is stopped and started where it runs, because an Operation asks for it.
//!
//! The coordinator grants it by the assignment that stops the group and says where it goes next: to where it was. From then
//! on it needs neither the controller nor this coordinator; whoever coordinates starts it. The assignment names the
//! Operation, and what is said later about the group repeats that, so that each Operation restarts it once, whoever
//! coordinates and however often the request is read.
//!
//! Nothing is stopped that would not start again: only a group that is to stay where it is, whose specification every
//! server holds that may run it, and which is not older than one that was acted on (R16).

use crate::config::GroupConfig;
use crate::core::Core;
use crate::message::Assignment;
use crate::names::{GroupName, ServerName};
use crate::view::Epoch;

/// The controller's request, from a running Operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RestartRequest {
    /// Name of the Operation.
    pub by: String,
    /// The server that ran the group then; of one that runs elsewhere nothing is asked.
    pub server: ServerName,
    /// Epoch and revision of the placement that was seen; on mismatch the request is dropped (R15).
    pub computed_from: (Epoch, u64),
}

impl Core {
    /// By which Operation a group that is online on `server`, and is to stay there, is restarted now.
    pub(crate) fn restart_to_grant(&self, name: &GroupName, group: &GroupConfig, server: &str) -> Option<String> {
        let known = self.durable.table.get(name)?;
        let asked = group.restart.as_ref()?;
        let valid = asked.computed_from == (known.tag.epoch, known.tag.revision) && asked.server.0 == server;
        let open = known.restarted.as_ref() != Some(&asked.by);
        let starts_again = known.generation <= group.generation && self.known_everywhere(group, name);
        (valid && open && starts_again).then(|| asked.by.clone())
    }
}

/// A stop after which the group starts where it was.
pub(crate) fn in_place(server: &str, blank: Assignment) -> Assignment {
    let server = ServerName(server.to_owned());
    Assignment { previous: Some(server.clone()), next: Some(server), ..blank }
}
