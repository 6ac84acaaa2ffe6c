//! Asking LVM, and telling it. Reports are JSON (`--reportformat json`, lvmreport(7)); everything is selected by UUID, so
//! that two volume groups of one name are no danger.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tool::{self, Done};
use super::{dashed, title};
use crate::resources::plan::VolumeGroupPlan;
use crate::said;
use holdfast_api::v1::VolumeGroupExclusive;

/// What a tag begins with that says to whom Holdfast has given a volume group.
pub(super) const GIVEN: &str = "holdfast-";

/// What is asked about volume groups. The last one is known to LVM from 2.03.12 on.
const GROUP_FIELDS: &str =
    "vg_uuid,vg_name,vg_systemid,vg_tags,vg_missing_pv_count,vg_exported,vg_lock_type,vg_autoactivation";

/// A volume group as LVM sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// Empty: none.
    pub(super) system_id: String,
    pub(super) tags: Vec<String>,
    pub(super) missing_disks: u32,
    pub(super) exported: bool,
    /// Activated by whoever boots.
    pub(super) autoactivated: bool,
    /// Kept by a lock manager of LVM's own.
    pub(super) shared: bool,
    /// LVM lets this server use it.
    pub(super) accessible: bool,
    /// Without inner parts.
    pub(super) volumes: Vec<Volume>,
}

/// A volume of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) name: String,
    /// Without dashes.
    pub(super) uuid: String,
    /// Not activated with the others, as its maker wished.
    pub(super) skipped: bool,
}

impl Group {
    /// Owners to whom Holdfast has given it: one, but for the moment in which the owner changes.
    pub(super) fn given_to(&self) -> Vec<&str> {
        self.tags.iter().filter_map(|tag| tag.strip_prefix(GIVEN)).collect()
    }
}

#[derive(Deserialize)]
struct Report<T> {
    report: Vec<T>,
}

#[derive(Deserialize)]
struct Groups {
    vg: Vec<GroupRow>,
}

#[derive(Deserialize)]
struct GroupRow {
    vg_uuid: String,
    vg_name: String,
    vg_systemid: String,
    vg_tags: String,
    vg_missing_pv_count: String,
    vg_exported: String,
    vg_lock_type: String,
    vg_autoactivation: String,
}

#[derive(Deserialize)]
struct Volumes {
    lv: Vec<VolumeRow>,
}

#[derive(Deserialize)]
struct VolumeRow {
    vg_uuid: String,
    lv_uuid: String,
    lv_name: String,
    lv_skip_activation: String,
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    let report: Report<T> = serde_json::from_str(text)
        .map_err(|e| format!("LVM's report is not understood ({e}): {}", said::last_lines(text)))?;
    Ok(report.report)
}

fn plain(uuid: &str) -> String {
    uuid.chars().filter(|c| *c != '-').collect()
}

/// The volume group of this UUID in two reports: of volume groups, and of volumes. `own`: the system id of this server,
/// empty if it has none.
pub(super) fn group(uuid: &str, groups: &str, volumes: &str, own: &str) -> Result<Option<Group>, String> {
    let groups = parse::<Groups>(groups)?;
    let Some(row) = groups.into_iter().flat_map(|g| g.vg).find(|row| plain(&row.vg_uuid) == uuid) else {
        return Ok(None);
    };
    let volumes = parse::<Volumes>(volumes)?.into_iter().flat_map(|v| v.lv);
    let volumes = volumes.filter(|row| plain(&row.vg_uuid) == uuid).map(|row| Volume {
        name: row.lv_name,
        uuid: plain(&row.lv_uuid),
        skipped: !row.lv_skip_activation.is_empty(),
    });
    let count = &row.vg_missing_pv_count;
    Ok(Some(Group {
        accessible: row.vg_systemid.is_empty() || row.vg_systemid == own,
        name: row.vg_name,
        tags: row.vg_tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        missing_disks: count.parse().map_err(|_| format!("LVM reports {count:?} missing disks"))?,
        exported: !row.vg_exported.is_empty(),
        autoactivated: !row.vg_autoactivation.is_empty(),
        shared: matches!(row.vg_lock_type.as_str(), "dlm" | "sanlock" | "idm"),
        system_id: row.vg_systemid,
        volumes: volumes.collect(),
    }))
}

fn lvm(args: &[&str]) -> Result<Done, String> {
    tool::run("lvm", args, "install the package lvm2")
}

/// What LVM knows of the volume group, whoever owns it (none: its disks are not here), and this server's system id, empty if it
/// has none.
pub(super) fn find(uuid: &str) -> Result<(Option<Group>, String), String> {
    let ask = |what: &str, fields: &str| {
        let done = lvm(&[what, "--foreign", "--shared", "--reportformat", "json", "-o", fields])?;
        // Exit 5 says that some device or volume group could not be read whole; what could be read is in the report.
        match done.exit {
            crate::spawn::Exit::Code(5) if parse::<serde_json::Value>(&done.output).is_ok() => Ok(done.output),
            _ => done.succeeded(),
        }
    };
    let groups = ask("vgs", GROUP_FIELDS)?;
    let volumes = ask("lvs", "vg_uuid,lv_uuid,lv_name,lv_skip_activation")?;
    let own = parse_system_id(&lvm(&["systemid"])?.succeeded()?).to_owned();
    Ok((group(uuid, &groups, &volumes, &own)?, own))
}

/// The system id in what `lvm systemid` prints: `system ID: db1`; empty: this server has none.
pub(super) fn parse_system_id(text: &str) -> &str {
    text.lines().find_map(|line| line.trim().strip_prefix("system ID:")).unwrap_or_default().trim()
}

/// Makes this server the owner. `from`: the present one, if it is another.
///
/// First the tag of the new owner, then the system id, then the tags of old ones: wherever it is interrupted, the recorded
/// owner has its tag, so the next start can go on. Nothing activates the volumes by itself from here on.
pub(super) fn take(group: &Group, plan: &VolumeGroupPlan, own: &str, from: Option<&str>) -> Result<(), String> {
    let select = format!("vg_uuid={}", dashed(&plan.uuid));
    // Without it LVM would refuse to touch what is another server's.
    let foreign = format!("local/extra_system_ids=[\"{}\"]", from.unwrap_or_default());
    let by_id = plan.exclusive == VolumeGroupExclusive::SystemID;
    let config: &[&str] = if by_id && from.is_some() { &["--config", &foreign] } else { &[] };
    let which = ["--select", &select];
    let change = |what: &[&str], which: &[&str]| {
        let args = [&["vgchange", "-y"], config, what, which].concat();
        let failed = |problem| format!("making {} {own}'s: {problem}", title(plan));
        lvm(&args).and_then(Done::succeeded).map(|_| ()).map_err(failed)
    };
    if group.autoactivated {
        change(&["--setautoactivation", "n"], &which)?;
    }
    let tag = format!("{GIVEN}{own}");
    if !group.tags.contains(&tag) {
        change(&["--addtag", &tag], &which)?;
    }
    if by_id && group.system_id != own {
        // This one takes no selection; of two with one name LVM takes neither.
        change(&["--systemid", own], &[&group.name])?;
    }
    let old: Vec<&String> = group.tags.iter().filter(|t| t.starts_with(GIVEN) && **t != tag).collect();
    old.into_iter().try_for_each(|tag| change(&["--deltag", tag], &which))
}

/// Activates all volumes.
pub(super) fn activate(plan: &VolumeGroupPlan) -> Result<(), String> {
    // Degraded: a RAID that is whole without the missing disk is used, as when the machine boots.
    let mode = if plan.allow_partial { "partial" } else { "degraded" };
    let select = format!("vg_uuid={}", dashed(&plan.uuid));
    let done = lvm(&["vgchange", "--activationmode", mode, "-ay", "--select", &select])?;
    done.succeeded().map(|_| ()).map_err(|problem| format!("activating {}: {problem}", title(plan)))
}

/// Deactivates all volumes.
pub(super) fn deactivate(plan: &VolumeGroupPlan) -> Result<(), String> {
    let select = format!("vg_uuid={}", dashed(&plan.uuid));
    let done = lvm(&["vgchange", "-an", "--select", &select])?;
    done.succeeded().map(|_| ()).map_err(|problem| format!("deactivating {}: {problem}", title(plan)))
}
