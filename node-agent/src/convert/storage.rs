//! What the resources of a group have to do with the storage of others: shared data, and what lies on what.

use std::path::Path;

use holdfast_api::v1 as api;

/// Whether a resource can't go on while another one, which it starts after, is restarted: it names it, it lives in a file
/// system of it, or it may be a file system in its volumes.
pub(super) fn needs(spec: &api::FailoverGroupSpec, resource: &api::Resource, other: &str) -> bool {
    if resource.depends_on.iter().any(|name| name == other) {
        return true;
    }
    let other = spec.resources.iter().find(|r| r.name == other);
    if other.is_some_and(|r| r.volume_group.is_some()) {
        // The device's name doesn't tell.
        return resource.filesystem.as_ref().is_some_and(|f| holdfast_api::claims::is_on_disk(f.type_));
    }
    let Some(below) = other.and_then(|r| r.filesystem.as_ref()) else { return false };
    let mut used: Vec<&str> = Vec::new();
    if let Some(filesystem) = &resource.filesystem {
        used.extend([filesystem.device.as_str(), filesystem.mount_point.as_str()]);
    }
    if let Some(process) = &resource.process {
        used.extend(process.command.iter().map(String::as_str));
        used.extend(process.working_directory.as_deref());
    }
    if let Some(script) = &resource.script {
        used.extend(script.working_directory.as_deref());
        for source in [Some(&script.start), Some(&script.stop), script.check.as_ref()].into_iter().flatten() {
            used.extend(source.path.as_deref());
            used.extend(source.args.iter().map(String::as_str));
        }
    }
    if let Some(export) = &resource.nfs_export {
        used.push(&export.path);
    }
    used.extend(resource.ocf.iter().flat_map(|ocf| ocf.parameters.values().map(String::as_str)));
    used.into_iter().any(|path| Path::new(path).starts_with(&below.mount_point))
}
