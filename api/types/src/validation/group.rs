//! What the resources of a group are to each other: the order in which they start, and circles in it. What they have
//! exclusively is in [`crate::claims`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use crate::{
    error::{ErrorKind, FieldError},
    v1::{FailoverGroupSpec, FilesystemType, Resource},
};

/// What must be online before each resource starts: what `dependsOn` names, all resources of earlier stages, and for file
/// systems those that they lie in. Names that do not exist are left out.
pub fn resource_graph(spec: &FailoverGroupSpec) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<&str> = spec.resources.iter().map(|r| r.name.as_str()).collect();
    let mut graph = BTreeMap::new();
    for resource in &spec.resources {
        let mut first: BTreeSet<String> =
            resource.depends_on.iter().filter(|name| names.contains(name.as_str())).cloned().collect();
        for other in spec.resources.iter().filter(|other| other.name != resource.name) {
            if other.effective_stage() < resource.effective_stage() || lies_in(resource, other) {
                first.insert(other.name.clone());
            }
        }
        graph.insert(resource.name.clone(), first);
    }
    graph
}

/// Whether a file system is mounted below another one, or is a second mount of a directory in it.
fn lies_in(resource: &Resource, other: &Resource) -> bool {
    let (Some(inner), Some(outer)) = (&resource.filesystem, &other.filesystem) else { return false };
    let below = |path: &str| Path::new(path).starts_with(&outer.mount_point);
    let nested = below(&inner.mount_point) && Path::new(&inner.mount_point) != Path::new(&outer.mount_point);
    nested || (inner.type_ == FilesystemType::Bind && below(&inner.device))
}

/// A circle in [`resource_graph`], as names in which each waits for the next and the last for the first; `None` if there is
/// none.
pub fn dependency_cycle(spec: &FailoverGroupSpec) -> Option<Vec<String>> {
    let graph = resource_graph(spec);
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in graph.keys() {
        // Depth first; `path` is the way from `start`, each with the neighbours that are still to be seen.
        let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
        let neighbours = |name: &str| graph.get(name).into_iter().flatten().map(String::as_str).collect::<Vec<_>>();
        if !done.contains(start.as_str()) {
            path.push((start, neighbours(start)));
        }
        while let Some((name, left)) = path.last_mut() {
            let Some(next) = left.pop() else {
                done.insert(name);
                path.pop();
                continue;
            };
            if let Some(at) = path.iter().position(|(on_way, _)| *on_way == next) {
                return Some(path[at..].iter().map(|(name, _)| (*name).to_string()).collect());
            }
            if !done.contains(next) {
                path.push((next, neighbours(next)));
            }
        }
    }
    None
}

/// What is wrong with a group beyond its schema: a circle of dependencies, one address twice, names of units, what its
/// routers would not understand, where its exports keep their clients, its data services, its monitors.
pub fn validate_group(spec: &FailoverGroupSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(cycle) = dependency_cycle(spec) {
        let circle = format!("{} → {}", cycle.join(" → "), cycle.first().map_or("", String::as_str));
        errors.push(FieldError::new(
            ErrorKind::Invalid,
            "spec.resources",
            circle,
            "resources wait for each other in a circle; take a name out of dependsOn, or set stage where a resource of an \
             earlier stage depends on one of a later stage",
        ));
    }
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (i, resource) in spec.resources.iter().enumerate() {
        let address = resource.floating_ip.as_ref().map(|ip| ("floatingIP", &ip.address));
        let address = address.or(resource.virtual_ip.as_ref().map(|ip| ("virtualIP", &ip.address)));
        let Some((member, address)) = address else { continue };
        if let Some(first) = seen.insert(bare_address(address), &resource.name) {
            errors.push(FieldError::new(
                ErrorKind::Duplicate,
                format!("spec.resources[{i}].{member}.address"),
                format!("{address:?}"),
                format!("resource {first} has the same address; give each its own"),
            ));
        }
    }
    for (i, resource) in spec.resources.iter().enumerate() {
        let Some(systemd) = &resource.systemd else { continue };
        if let Some(problem) = super::unit_problem(&systemd.unit) {
            let field = format!("spec.resources[{i}].systemd.unit");
            errors.push(FieldError::new(ErrorKind::Invalid, field, format!("{:?}", systemd.unit), problem));
        }
    }
    for (i, resource) in spec.resources.iter().enumerate() {
        let Some(problem) = resource.virtual_ip.as_ref().and_then(super::router_problem) else { continue };
        let field = format!("spec.resources[{i}].virtualIP.{}", problem.member);
        errors.push(FieldError::new(ErrorKind::Invalid, field, problem.found, problem.advice));
    }
    errors.extend(super::state_directory_errors(spec));
    errors.extend(super::validate_data_services(spec));
    errors.extend(super::validate_monitors(spec));
    errors
}

/// An address without prefix length, in its usual form.
fn bare_address(text: &str) -> String {
    let bare = text.split('/').next().unwrap_or(text);
    bare.parse::<IpAddr>().map_or_else(|_| bare.to_string(), |ip| ip.to_string())
}
