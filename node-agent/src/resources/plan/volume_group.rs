//! Plans of volume groups.
use holdfast_api::v1::{self as api, VolumeGroupExclusive};
use serde::{Deserialize, Serialize};

use super::{PlanError, wrong};

/// An LVM volume group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeGroupPlan {
    /// Its UUID: 32 characters, without the dashes that LVM prints.
    pub uuid: String,
    /// Its name, for messages.
    pub name: Option<String>,
    /// How its owner is recorded.
    pub exclusive: VolumeGroupExclusive,
    /// Use it with disks missing.
    pub allow_partial: bool,
}

pub(super) fn volume_group(spec: &api::VolumeGroup) -> Result<VolumeGroupPlan, PlanError> {
    let uuid: String = spec.uuid.chars().filter(|c| *c != '-').collect();
    // The alphabet of LVM's identifiers.
    if uuid.len() != 32 || !uuid.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '!' | '#')) {
        let found = &spec.uuid;
        return Err(wrong(
            "volumeGroup.uuid",
            format!(
                "is {found:?}; write what `vgs -o vg_name,vg_uuid` prints, 32 letters and digits with dashes or without"
            ),
        ));
    }
    Ok(VolumeGroupPlan { uuid, name: spec.name.clone(), exclusive: spec.exclusive, allow_partial: spec.allow_partial })
}
