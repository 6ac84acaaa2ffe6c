//! Files that resources run by their path: what has to be the same on every server.
//!
//! What lies on a file system of the group itself is there on one server only, and the same for all: left out.

use std::collections::BTreeSet;

use crate::v1::{DataServiceSpec, FailoverGroupSpec};

/// `script.start`, `stop` and `check` of a group.
pub fn of_group(spec: &FailoverGroupSpec) -> BTreeSet<&str> {
    let scripts = spec.resources.iter().filter_map(|resource| resource.script.as_ref());
    let sources = scripts.flat_map(|script| [Some(&script.start), Some(&script.stop), script.check.as_ref()]).flatten();
    sources.filter_map(|source| source.path.as_deref()).filter(|path| !moves_with(spec, path)).collect()
}

/// The methods of a data service.
pub fn of_data_service(spec: &DataServiceSpec) -> BTreeSet<&str> {
    spec.methods.iter().filter_map(|method| method.path.as_deref()).collect()
}

/// Whether the file is on a file system that the group mounts.
pub fn moves_with(spec: &FailoverGroupSpec, path: &str) -> bool {
    let mounts = spec.resources.iter().filter_map(|resource| resource.filesystem.as_ref());
    mounts.into_iter().any(|filesystem| std::path::Path::new(path).starts_with(&filesystem.mount_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_with_the_group_is_not_compared() {
        let group: FailoverGroupSpec = serde_json::from_value(serde_json::json!({
            "subCluster": "db",
            "resources": [
                {"name": "data", "filesystem": {"device": "/dev/vg/data", "mountPoint": "/srv/app", "type": "ext4"}},
                {"name": "app", "script": {
                    "start": {"path": "/opt/app/start"}, "stop": {"path": "/srv/app/stop"}, "check": {"inline": "true"}}},
                {"name": "more", "script": {"start": {"path": "/srv/application"}, "stop": {"path": "/opt/app/start"}}},
            ],
        }))
        .unwrap();
        assert_eq!(of_group(&group), ["/opt/app/start", "/srv/application"].into());
    }
}
