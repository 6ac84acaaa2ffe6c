//! Where exports keep who their clients are: it has to go with the group, and be there before the export is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::resource_graph;
use crate::{
    error::{ErrorKind, FieldError},
    v1::{FailoverGroupSpec, FilesystemType, Resource},
};

/// What is wrong with the `stateDirectory` of each export of a group.
pub fn state_directory_errors(spec: &FailoverGroupSpec) -> Vec<FieldError> {
    let graph = resource_graph(spec);
    let check = |(i, resource): (usize, &Resource)| {
        let directory = resource.nfs_export.as_ref()?.state_directory.as_deref()?;
        let before = |other: &str| waits_for(&graph, &resource.name).contains(other);
        let advice = problem(spec, directory, &before)?;
        let field = format!("spec.resources[{i}].nfsExport.stateDirectory");
        Some(FieldError::new(ErrorKind::Invalid, field, format!("{directory:?}"), advice))
    };
    spec.resources.iter().enumerate().filter_map(check).collect()
}

fn problem(spec: &FailoverGroupSpec, directory: &str, before: &dyn Fn(&str) -> bool) -> Option<String> {
    let path = Path::new(directory);
    if !path.is_absolute() {
        return Some("write an absolute path".into());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Some("write it without `..`".into());
    }
    let inside = |resource: &&Resource| resource.filesystem.as_ref().is_some_and(|f| path.starts_with(&f.mount_point));
    let depth = |resource: &&Resource| {
        resource.filesystem.as_ref().map_or(0, |f| Path::new(&f.mount_point).components().count())
    };
    let Some(holder) = spec.resources.iter().filter(inside).max_by_key(depth) else {
        return Some(format!("it has to go with the group, so write a directory in {}", mount_points(spec)));
    };
    let filesystem = holder.filesystem.as_ref()?;
    let name = &holder.name;
    if filesystem.type_ == FilesystemType::Nfs {
        return Some(format!("{name} is an NFS mount; write a directory in a file system of the group's own disks"));
    }
    if path == Path::new(&filesystem.mount_point) {
        let example = Path::new(&filesystem.mount_point).join(".nfs");
        return Some(format!(
            "it gets files of its own, so write a directory in {name}, for example {}",
            example.display()
        ));
    }
    (!before(name)).then(|| format!("the export starts before the file system {name}; add {name} to its dependsOn"))
}

/// What is online before a resource starts, in any number of steps.
fn waits_for<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, name: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![name]);
    while let Some(name) = todo.pop() {
        let next = graph.get(name).into_iter().flatten().map(String::as_str);
        todo.extend(next.filter(|next| seen.insert(*next)));
    }
    seen
}

/// For the advice.
fn mount_points(spec: &FailoverGroupSpec) -> String {
    let own =
        |r: &Resource| r.filesystem.as_ref().filter(|f| f.type_ != FilesystemType::Nfs).map(|f| f.mount_point.clone());
    let all: Vec<String> = spec.resources.iter().filter_map(own).collect();
    if all.is_empty() { "a file system of it; it has none now".to_owned() } else { all.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn errors(resources: Value) -> Vec<String> {
        let spec: FailoverGroupSpec =
            serde_json::from_value(json!({"subCluster": "db", "resources": resources})).unwrap();
        state_directory_errors(&spec).iter().map(ToString::to_string).collect()
    }

    fn mount(name: &str, point: &str, kind: &str) -> Value {
        json!({"name": name, "filesystem": {"device": "/dev/vg/x", "mountPoint": point, "type": kind}})
    }

    fn export(state: &str) -> Value {
        json!({"name": "share", "nfsExport": {"path": "/srv/share", "fsid": "1", "clients": [{"network": "*"}], "stateDirectory": state}})
    }

    #[test]
    fn it_lies_in_a_file_system_of_the_group_that_is_there_first() {
        let data = mount("data", "/srv/share", "ext4");
        let of = |state: &str| errors(json!([data, export(state)]));
        assert!(of("/srv/share/.nfs").is_empty() && of("/srv//share/a/b").is_empty());
        let error = "spec.resources[1].nfsExport.stateDirectory: Invalid value: ";
        let elsewhere = "it has to go with the group, so write a directory in /srv/share";
        assert_eq!(of("/srv/shared/x"), [format!("{error}\"/srv/shared/x\": {elsewhere}")]);
        assert_eq!(of("srv/share/x"), [format!("{error}\"srv/share/x\": write an absolute path")]);
        assert_eq!(of("/srv/share/../x"), [format!("{error}\"/srv/share/../x\": write it without `..`")]);
        let at = "it gets files of its own, so write a directory in data, for example /srv/share/.nfs";
        assert_eq!(of("/srv/share/"), [format!("{error}\"/srv/share/\": {at}")]);
        let none = errors(json!([export("/srv/share/.nfs")]));
        assert!(none[0].ends_with("write a directory in a file system of it; it has none now"), "{none:?}");
    }

    #[test]
    fn the_innermost_file_system_counts() {
        let both = json!([mount("data", "/srv", "xfs"), mount("in", "/srv/in", "nfs"), export("/srv/in/state")]);
        assert!(errors(both)[0].contains("in is an NFS mount; write a directory in a file system of the group's own"));
        let mut late = mount("data", "/srv/share", "ext4");
        late["stage"] = json!("Network");
        let mut share = export("/srv/share/.nfs");
        let between = json!({"name": "app", "process": {"command": ["/a"]}, "stage": "Network", "dependsOn": ["data"]});
        share["stage"] = json!("Network");
        share["dependsOn"] = json!(["app"]);
        assert!(errors(json!([late, between, share])).is_empty(), "by way of another one");
        let late = errors(json!([late, export("/srv/share/.nfs")]));
        assert!(
            late[0].ends_with("the export starts before the file system data; add data to its dependsOn"),
            "{late:?}"
        );
    }
}
