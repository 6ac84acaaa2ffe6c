//! Programs of operations that were under way when the agent ended. They outlive the helper that started them, and would go on
//! beside the next operation: a start that is carried out late may leave an address or a mount behind a verified stop.

use std::path::Path;

use super::LEFTOVERS;
use crate::cgroup::{Cgroup, CgroupError, Hierarchy};
use crate::helper::state_dir;
use crate::resources::execute::{self, RUN};

/// Ends them. What completed starts left running goes on.
///
/// # Errors
/// When one can't be killed.
pub(super) fn end_programs(cgroups: &Hierarchy, run_dir: &Path) -> Result<(), CgroupError> {
    for group in cgroups.groups().children() {
        for resource in group.children() {
            let state = state_dir(run_dir, name(&group), name(&resource));
            let in_start = execute::start_is_under_way(&state);
            for part in resource.children() {
                if execute::is_operation_group(name(&part)) || name(&part) == RUN && in_start {
                    part.kill(LEFTOVERS)?;
                    part.remove();
                }
            }
            execute::start_has_ended(&state);
        }
    }
    Ok(())
}

fn name(cgroup: &Cgroup) -> &str {
    cgroup.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
