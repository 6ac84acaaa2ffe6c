//! What becomes of a group whose object is being deleted. Deleting never stops production by accident: it needs the group
//! Offline by its spec, or its name as a confirmation.

use holdfast_api::reasons::{accepted, hold, ready};
use holdfast_api::v1::{FailoverGroup, GroupPhase, GroupState};
use kube::ResourceExt;

use super::super::operation::pause::is_paused;
use super::super::{CONFIRM_DELETE, deletion_confirmed};

/// What an object that goes shall do to its group.
const ON_DELETE: &str = "holdfast.dev/on-delete";

/// Where a deletion stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It is not being deleted.
    None,
    /// Nothing of it runs; the object may go.
    Go,
    /// It may be stopped, and the object waits for that.
    Stop,
    /// Nobody said that it may be stopped: it keeps running.
    Blocked {
        /// Reason of the condition DeletionBlocked.
        reason: &'static str,
        /// What to do.
        message: String,
    },
}

/// Whether agents ever placed the group, as far as its object shows.
pub(crate) fn ever_placed(group: &FailoverGroup) -> bool {
    group.status.as_ref().is_some_and(|status| {
        // Agents report epoch 0 of a group that has no placement yet.
        status.epoch.is_some_and(|epoch| epoch > 0)
            || status.server.is_some()
            || status.phase.is_some_and(|phase| phase != GroupPhase::Offline)
    })
}

/// Where the deletion of `group` stands.
pub(crate) fn deletion(group: &FailoverGroup) -> Deletion {
    if group.metadata.deletion_timestamp.is_none() {
        return Deletion::None;
    }
    let name = group.name_any();
    let phase = group.status.as_ref().and_then(|status| status.phase);
    let may_stop = group.spec.state == GroupState::Offline || deletion_confirmed(&group.metadata);
    if !ever_placed(group) || (may_stop && phase == Some(GroupPhase::Offline)) {
        return Deletion::Go;
    }
    if let Some(asked) = group.annotations().get(ON_DELETE) {
        return Deletion::Blocked {
            reason: accepted::UNSUPPORTED_BY_SERVER,
            message: format!(
                "annotation {ON_DELETE}: {asked}: this version can't let a group run on without its object; remove the \
                 annotation, and set spec.state: Offline or the annotation {CONFIRM_DELETE}: {name}"
            ),
        };
    }
    if may_stop && is_paused(group) {
        return Deletion::Blocked {
            reason: hold::PAUSED,
            message: format!(
                "the group is paused, and nobody acts on it; holdfast resume {name} has it stopped and deleted"
            ),
        };
    }
    if may_stop {
        return Deletion::Stop;
    }
    let phase = phase.map_or_else(|| "Unknown".to_string(), |phase| phase.to_string());
    Deletion::Blocked {
        reason: ready::DELETION_BLOCKED,
        message: format!(
            "spec.state is Online and the group is {phase}: it keeps running. To stop and delete it set spec.state: Offline, \
             or the annotation {CONFIRM_DELETE}: {name}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{group, placed};
    use super::*;

    fn deleted(mut group: FailoverGroup) -> FailoverGroup {
        group.metadata.deletion_timestamp = serde_json::from_value(serde_json::json!("2026-03-01T00:00:00Z")).unwrap();
        group
    }

    fn annotated(mut group: FailoverGroup, key: &str, value: &str) -> FailoverGroup {
        group.annotations_mut().insert(key.into(), value.into());
        group
    }

    fn offline(mut group: FailoverGroup) -> FailoverGroup {
        group.spec.state = GroupState::Offline;
        group
    }

    #[test]
    fn what_runs_is_not_stopped_by_accident() {
        let online = deleted(placed(group("ledger"), GroupPhase::Online, "db1"));
        let Deletion::Blocked { message, .. } = deletion(&online) else { panic!("deleted under a running group") };
        assert!(message.contains("holdfast.dev/confirm-delete: ledger"), "{message}");
        // The name of another group confirms nothing, and Offline by a hold is no intention to delete.
        let wrong = annotated(online.clone(), CONFIRM_DELETE, "reports");
        assert!(matches!(deletion(&wrong), Deletion::Blocked { .. }));
        let held = deleted(placed(group("ledger"), GroupPhase::Offline, ""));
        assert!(matches!(deletion(&held), Deletion::Blocked { .. }));
        // Nor is silence.
        let unknown = deleted(placed(offline(group("ledger")), GroupPhase::Unknown, ""));
        assert_eq!(deletion(&unknown), Deletion::Stop);
    }

    #[test]
    fn it_stops_first_and_then_goes() {
        let online = deleted(placed(group("ledger"), GroupPhase::Online, "db1"));
        let confirmed = annotated(online, CONFIRM_DELETE, "ledger");
        assert_eq!(deletion(&confirmed), Deletion::Stop);
        assert_eq!(deletion(&placed(confirmed, GroupPhase::Offline, "")), Deletion::Go);
        assert_eq!(deletion(&deleted(placed(offline(group("ledger")), GroupPhase::Offline, ""))), Deletion::Go);
    }

    #[test]
    fn what_was_never_placed_goes_at_once() {
        assert_eq!(deletion(&deleted(group("ledger"))), Deletion::Go);
        let mut seen = deleted(placed(group("ledger"), GroupPhase::Offline, ""));
        seen.status.as_mut().unwrap().epoch = Some(0);
        assert_eq!(deletion(&seen), Deletion::Go);
        assert_eq!(deletion(&group("ledger")), Deletion::None);
    }

    #[test]
    fn to_orphan_is_refused_with_the_way_out() {
        let online = annotated(deleted(placed(group("ledger"), GroupPhase::Online, "db1")), ON_DELETE, "Orphan");
        let Deletion::Blocked { reason, message } = deletion(&annotated(online, CONFIRM_DELETE, "ledger")) else {
            panic!("an unsupported wish was followed")
        };
        assert_eq!(reason, "UnsupportedByServer");
        assert!(message.starts_with("annotation holdfast.dev/on-delete: Orphan"), "{message}");
    }
}
