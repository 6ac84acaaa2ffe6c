//! What the schema has and this version does not carry out. The controller refuses it with
//! `Accepted=False/UnsupportedByServer`; nothing is accepted and ignored.
//!
//! When a part is built, its lines here go away. Which changes of a formed sub-cluster can't be taken is the controller's to
//! say: it knows whether the agents have met.

use crate::{
    error::{ErrorKind, FieldError},
    v1::{
        ControllerBrakes, FailoverGroupSpec, OperationSpec, OperationType, Reservation, Resource, SubClusterSpec,
        SuperClusterSpec,
    },
};

/// Collects what is not carried out.
struct Refusals(Vec<FieldError>);

impl Refusals {
    fn add(&mut self, unsupported: bool, field: impl Into<String>, found: impl ToString, advice: &str) {
        if unsupported {
            let message = format!("this version does not carry it out; {advice}");
            self.0.push(FieldError::new(ErrorKind::NotSupported, field, found.to_string(), message));
        }
    }
}

const REMOVE: &str = "remove the field";

/// Fields of a super-cluster that this version does not carry out.
pub fn unsupported_super_cluster(spec: &SuperClusterSpec) -> Vec<FieldError> {
    let mut r = Refusals(Vec::new());
    r.add(spec.brakes != ControllerBrakes::default(), "spec.brakes", "", "leave the brakes at their defaults");
    r.0
}

/// Fields of a sub-cluster that this version does not carry out.
pub fn unsupported_sub_cluster(spec: &SubClusterSpec) -> Vec<FieldError> {
    let mut r = Refusals(Vec::new());
    for (i, disk) in spec.disks.iter().enumerate() {
        let reserved = disk.reservation != Reservation::None;
        r.add(reserved, format!("spec.disks[{i}].reservation"), disk.reservation, "use None");
    }
    r.0
}

/// Fields of a failover group that this version does not carry out.
pub fn unsupported_group(spec: &FailoverGroupSpec) -> Vec<FieldError> {
    let mut r = Refusals(Vec::new());
    r.add(spec.disaster.is_some(), "spec.disaster", "", REMOVE);
    for (i, one) in spec.resources.iter().enumerate() {
        resource(one, &format!("spec.resources[{i}]"), &mut r);
    }
    r.0
}

fn resource(resource: &Resource, at: &str, r: &mut Refusals) {
    let use_built =
        "use filesystem, floatingIP, virtualIP, process, script, systemd, ocf, volumeGroup, nfsExport or dataService";
    r.add(resource.mirror_disk.is_some(), format!("{at}.mirrorDisk"), "", use_built);
}

/// Fields of an operation that this version does not carry out.
pub fn unsupported_operation(spec: &OperationSpec) -> Vec<FieldError> {
    let mut r = Refusals(Vec::new());
    let on_group =
        matches!(spec.type_, OperationType::Move | OperationType::Stop | OperationType::Start | OperationType::Restart);
    let on_server = matches!(
        spec.type_,
        OperationType::Detach
            | OperationType::Reinstate
            | OperationType::ForceReinstate
            | OperationType::ConfirmStopped
            | OperationType::Fence
    );
    let alone = matches!(
        spec.type_,
        OperationType::ClearFailures
            | OperationType::RotateKey
            | OperationType::Pause
            | OperationType::Resume
            | OperationType::Exec
            | OperationType::Shutdown
            | OperationType::Upgrade
            | OperationType::Drill
            | OperationType::AcceptSpec
    );
    let built = on_group || on_server || alone;
    let all = "use Move, Stop, Start, Restart, Pause, Resume, Exec, ClearFailures, Detach, Reinstate, ForceReinstate, \
               ConfirmStopped, Fence, Shutdown, Upgrade, Drill, AcceptSpec or RotateKey";
    r.add(!built, "spec.type", spec.type_, all);
    if let Some(drill) = &spec.drill {
        let advice = "leave it out; the drill is thought through on the live state";
        r.add(drill.live, "spec.drill.live", drill.live, advice);
    }
    r.0
}
