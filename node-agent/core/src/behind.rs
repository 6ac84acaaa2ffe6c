//! On whose behalf something is said about a group: the name of an Operation, or `SERVER:NUMBER` for a command on a server.
//! People find it in log lines and Events; nothing is decided by it.

use holdfast_planner::{Decision, Rule};

use crate::config::GroupConfig;
use crate::core::Core;
use crate::message::Assignment;
use crate::names::GroupName;

impl Core {
    /// Who is behind an assignment that is about to be said, if anybody is. What only goes on, or is said again, keeps its
    /// own; what the cluster does by itself has none.
    pub(crate) fn behind(
        &self,
        name: &GroupName,
        group: &GroupConfig,
        decision: &Decision,
        new: &Assignment,
    ) -> Option<String> {
        let known = self.durable.table.get(name);
        let news =
            |of: fn(&Assignment) -> Option<&String>| of(new).filter(|by| known.and_then(of) != Some(*by)).cloned();
        let placed = known.map_or((0, 0), |known| (known.tag.epoch, known.tag.revision));
        let target = || {
            let holds_change = known.map_or(!new.holds.is_empty(), |known| known.holds != new.holds);
            let target = group.target.as_ref().filter(|target| target.computed_from == placed)?;
            (decision.rule == Rule::Requested || holds_change).then(|| target.by.clone())
        };
        let goes_on = |known: &&Assignment| {
            let arrives = known.server.is_none() && known.next.is_some() && new.server == known.next;
            arrives || new.server.is_some() && new.server == known.server
        };
        news(|one| one.held_by.as_ref())
            .or_else(|| news(|one| one.restarted.as_ref()))
            .or_else(|| news(|one| one.part_restarted.as_ref().map(|part| &part.by)))
            .or_else(|| news(|one| one.cleared.as_ref().map(|cleared| &cleared.clear.by)))
            .or_else(target)
            .or_else(|| {
                new.previous.as_ref().filter(|_| new.server.is_none()).and_then(|from| self.command_behind(name, from))
            })
            .or_else(|| known.filter(goes_on).and_then(|known| known.operation.clone()))
    }
}
