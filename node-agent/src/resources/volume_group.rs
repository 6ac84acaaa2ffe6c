//! `volumeGroup`: an LVM volume group, active on one server at a time. It is found by its UUID, so neither its name nor
//! those of its disks matter.
//!
//! Three things are kept apart. *Active* is what this kernel has, read from sysfs without touching a disk. *The owner* is
//! recorded in the volume group itself: its system id, which LVM on every other server respects, or with `exclusive: Tag` a
//! tag. *Given by Holdfast* says another tag, `holdfast-OWNER`, which is written before an owner is: only what has it is ever
//! taken from another owner, for only then the sub-cluster's proof that its last server has stopped speaks about that owner.
//! Activation at boot is switched off in the volume group before it is activated for the first time.

mod kernel;
mod lvm;

use holdfast_api::v1::VolumeGroupExclusive;
use holdfast_core::Action;

use super::plan::VolumeGroupPlan;
use super::{Job, Verdict, mounts, tool};
use kernel::Active;
use lvm::Group;

/// Carries an operation out.
pub fn run(plan: &VolumeGroupPlan, action: Action, job: &Job) -> Verdict {
    match action {
        Action::Probe | Action::Monitor => look(plan, &job.told.server),
        Action::Start => start(plan, &job.told.server).unwrap_or_else(Verdict::failed),
        Action::Stop => stop(plan),
    }
}

/// What people call it.
fn title(plan: &VolumeGroupPlan) -> String {
    match &plan.name {
        Some(name) => format!("volume group {name} ({})", dashed(&plan.uuid)),
        None => format!("the volume group with UUID {}", dashed(&plan.uuid)),
    }
}

/// As LVM prints it: 6-4-4-4-4-4-6 characters.
fn dashed(uuid: &str) -> String {
    let (mut rest, mut parts) = (uuid, Vec::new());
    for length in [6, 4, 4, 4, 4, 4] {
        let (part, more) = rest.split_at_checked(length).unwrap_or((rest, ""));
        parts.push(part);
        rest = more;
    }
    parts.push(rest);
    parts.join("-")
}

fn not_found(plan: &VolumeGroupPlan) -> String {
    format!(
        "volumeGroup.uuid: no disk of this server has {}; see whether its disks are attached (lsblk), complete, and listed \
         in LVM's devices file if it has one (lvmdevices)",
        title(plan)
    )
}

/// Whose it is, and so what a start has to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ownership {
    /// This server's already.
    Ours,
    /// Nobody's yet, or this server's, but not marked as given by Holdfast.
    Free,
    /// Holdfast gave it to this one, which has stopped, or start would not have been asked.
    Other(String),
    /// That of somebody of whom the sub-cluster knows nothing. Never taken.
    Stranger(String),
}

/// The owner as recorded. `own`: what this server is called.
fn ownership(group: &Group, exclusive: VolumeGroupExclusive, own: &str) -> Ownership {
    let given = group.given_to();
    let id = group.system_id.as_str();
    match exclusive {
        VolumeGroupExclusive::SystemID if id.is_empty() => Ownership::Free,
        VolumeGroupExclusive::SystemID if id == own && given == [own] => Ownership::Ours,
        VolumeGroupExclusive::SystemID if id == own => Ownership::Free,
        VolumeGroupExclusive::SystemID if given.contains(&id) => Ownership::Other(id.to_owned()),
        VolumeGroupExclusive::SystemID => Ownership::Stranger(id.to_owned()),
        // LVM would refuse it here whatever its tags are.
        VolumeGroupExclusive::Tag if !group.accessible => Ownership::Stranger(id.to_owned()),
        VolumeGroupExclusive::Tag => match given.iter().find(|one| **one != own) {
            Some(other) => Ownership::Other((*other).to_owned()),
            None if given.is_empty() => Ownership::Free,
            None => Ownership::Ours,
        },
    }
}

/// Why a stranger's is not started, and what to do.
fn refusal(group: &Group, plan: &VolumeGroupPlan, own: &str, id: &str) -> String {
    let (title, name) = (title(plan), &group.name);
    match plan.exclusive {
        VolumeGroupExclusive::SystemID => format!(
            "{title} belongs to the server with the LVM system id {id:?}, which did not get it from Holdfast, so nothing proves \
             that it is not in use there. Start the group on that server first; or, if nothing uses it, run here `vgchange \
             --config 'local/extra_system_ids=[\"{id}\"]' --systemid {own} {name}`"
        ),
        VolumeGroupExclusive::Tag => format!(
            "{title} has the LVM system id {id:?}, so that LVM refuses it here whatever its tags are; use exclusive: SystemID, \
             or take the id away on its owner with `vgchange --systemid '' {name}`"
        ),
    }
}

/// What keeps it from being started whoever owns it.
fn unusable(group: &Group, plan: &VolumeGroupPlan) -> Result<(), String> {
    if group.exported {
        return Err(format!("it is exported; bring it in with `vgimport {}`", group.name));
    }
    if group.shared {
        return Err(
            "it is shared through a lock manager of LVM (lvmlockd), which would let several servers use it; make \
                    it an ordinary one with `vgchange --locktype none`"
                .to_owned(),
        );
    }
    if group.missing_disks > 0 && !plan.allow_partial {
        return Err(format!(
            "{} of its disks can't be found on this server (`pvs --select vg_uuid={}`); attach them, or set \
             volumeGroup.allowPartial to use what is left",
            group.missing_disks,
            dashed(&plan.uuid)
        ));
    }
    if group.volumes.iter().all(|volume| volume.skipped) {
        return Err("it has no volumes that are activated; make one with lvcreate".to_owned());
    }
    Ok(())
}

/// Names of the volumes that should be active and are not.
fn inactive(group: &Group, active: &[Active]) -> Vec<String> {
    let is_active = |uuid: &str| active.iter().any(|a| a.volume == uuid);
    let missing = group.volumes.iter().filter(|volume| !volume.skipped && !is_active(&volume.uuid));
    missing.map(|volume| volume.name.clone()).collect()
}

/// What probe and monitor say. `found`: what LVM sees, `own`: what this server is called.
fn state(plan: &VolumeGroupPlan, active: &[Active], found: Result<Option<(Group, String)>, String>) -> Verdict {
    let names = || active.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    match found {
        // The kernel is the proof, and reading it needed no disk.
        Err(problem) if active.is_empty() => Verdict::stopped().with(problem),
        Ok(None) if active.is_empty() => Verdict::stopped().with(not_found(plan)),
        Ok(Some(_)) if active.is_empty() => Verdict::stopped(),
        Err(problem) => Verdict::failed(format!("{} are active, but LVM can't look: {problem}", names())),
        Ok(None) => Verdict::failed(format!("{} are active, but {}", names(), not_found(plan))),
        Ok(Some((group, own))) => {
            let missing = inactive(&group, active);
            match ownership(&group, plan.exclusive, &own) {
                Ownership::Other(other) | Ownership::Stranger(other) => Verdict::failed(format!(
                    "{} are active here, but {} belongs to {other} now: it was taken over, or changed by hand",
                    names(),
                    title(plan)
                )),
                _ if !missing.is_empty() => Verdict::failed(format!(
                    "these volumes are not active: {}; a restart of the resource activates them",
                    missing.join(", ")
                )),
                _ => Verdict::running(),
            }
        }
    }
}

/// What this server is called as an owner. `system_id`: LVM's, may be empty.
fn own_name(plan: &VolumeGroupPlan, server: &str, system_id: String) -> Result<String, String> {
    match plan.exclusive {
        VolumeGroupExclusive::Tag => Ok(server.to_owned()),
        VolumeGroupExclusive::SystemID if system_id.is_empty() => {
            Err("volumeGroup.exclusive: this server has no LVM system id; set global/system_id_source = \"uname\" in \
                 /etc/lvm/lvm.conf on every server of the sub-cluster (each needs another one), or use exclusive: Tag"
                .to_owned())
        }
        VolumeGroupExclusive::SystemID => Ok(system_id),
    }
}

fn look(plan: &VolumeGroupPlan, server: &str) -> Verdict {
    let active = match kernel::active(&plan.uuid) {
        Ok(active) => active,
        Err(error) => return Verdict::unknown(format!("/sys/block can't be read: {error}")),
    };
    let found = lvm::find(&plan.uuid).and_then(|(group, system_id)| match group {
        Some(group) => Ok(Some((group, own_name(plan, server, system_id)?))),
        None => Ok(None),
    });
    state(plan, &active, found)
}

fn start(plan: &VolumeGroupPlan, server: &str) -> Result<Verdict, String> {
    let (group, system_id) = lvm::find(&plan.uuid)?;
    let own = own_name(plan, server, system_id)?;
    let group = group.ok_or_else(|| not_found(plan))?;
    unusable(&group, plan).map_err(|problem| format!("{}: {problem}", title(plan)))?;
    let owner = ownership(&group, plan.exclusive, &own);
    let active = kernel::active(&plan.uuid).map_err(|e| format!("/sys/block can't be read: {e}"))?;
    if let (Ownership::Other(other), Some(stale)) = (&owner, active.first()) {
        return Err(format!(
            "{} belongs to {other}, but {} is still active here from an earlier time; stop the group here first",
            title(plan),
            stale.name
        ));
    }
    let message = match &owner {
        Ownership::Ours => String::new(),
        Ownership::Free => {
            lvm::take(&group, plan, &own, None)?;
            format!("{} is {own}'s now", title(plan))
        }
        Ownership::Other(other) => {
            lvm::take(&group, plan, &own, Some(other))?;
            format!("{} was {other}'s, which has stopped it, and is {own}'s now", title(plan))
        }
        Ownership::Stranger(id) => return Err(refusal(&group, plan, &own, id)),
    };
    // Read again: the change is seen as every other server sees it, or nothing is activated.
    let group = lvm::find(&plan.uuid)?.0.ok_or_else(|| not_found(plan))?;
    if ownership(&group, plan.exclusive, &own) != Ownership::Ours {
        return Err(format!(
            "{} was to become {own}'s, and is not; look at `vgs -o +vg_systemid,vg_tags`",
            title(plan)
        ));
    }
    lvm::activate(plan)?;
    let active = kernel::active(&plan.uuid).map_err(|e| format!("/sys/block can't be read: {e}"))?;
    let missing = inactive(&group, &active);
    if missing.is_empty() {
        return Ok(Verdict::running().with(message));
    }
    Err(format!(
        "LVM activated {} without an error, but not {}; see activation/volume_list in /etc/lvm/lvm.conf",
        title(plan),
        missing.join(", ")
    ))
}

fn stop(plan: &VolumeGroupPlan) -> Verdict {
    let unreadable = |error: std::io::Error| Verdict::unknown(format!("/sys/block can't be read: {error}"));
    match kernel::active(&plan.uuid) {
        Ok(active) if active.is_empty() => return Verdict::stopped(),
        Ok(_) => {}
        Err(error) => return unreadable(error),
    }
    let by_lvm = lvm::deactivate(plan);
    // Where LVM can't, because the disks are gone or somebody else has become the owner, the kernel still can.
    let left = match kernel::active(&plan.uuid) {
        Ok(left) if left.is_empty() => return Verdict::stopped(),
        Ok(_) => match kernel::remove_all(&plan.uuid) {
            Ok(left) => left,
            Err(error) => return unreadable(error),
        },
        Err(error) => return unreadable(error),
    };
    match (left.as_slice(), by_lvm) {
        ([], Ok(_)) => Verdict::stopped(),
        ([], Err(problem)) => Verdict::stopped().with(format!("removed from the kernel, as LVM could not: {problem}")),
        (left, by_lvm) => {
            let users: Vec<String> = left.iter().map(user).collect();
            let lvm = by_lvm.err().map(|problem| format!("; {problem}")).unwrap_or_default();
            Verdict::failed(format!("still active: {}{lvm}", users.join("; ")))
        }
    }
}

/// Who uses a volume, as far as the kernel tells.
fn user(volume: &Active) -> String {
    let table = mounts::table().unwrap_or_default();
    let mounted = table.iter().filter(|m| Some(m.device) == volume.device).map(|m| m.point.display().to_string());
    let users: Vec<String> = mounted.chain(volume.holders()).collect();
    if users.is_empty() {
        let name = &volume.name;
        format!("{name}, open in a program or in another mount namespace (`lsof /dev/mapper/{name}`)")
    } else {
        format!("{}, in use by {}", volume.name, users.join(", "))
    }
}

/// For the guard: takes the volumes out of the kernel, which touches no disk. Says whether none is left.
pub fn emergency_stop(plan: &VolumeGroupPlan) -> bool {
    kernel::remove_all(&plan.uuid).is_ok_and(|left| left.is_empty())
}

#[cfg(test)]
#[path = "volume_group/tests.rs"]
mod tests;
