//! A resource that is a data service, as the core sees it: two resources, one in front of the addresses and one behind
//! them (row U8). Both are there whatever methods the agent supplies, so that a change of the methods changes no group.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::reasons::hold;
use holdfast_api::v1 as api;
use holdfast_api::v1::MethodName;
use holdfast_core::config::GroupConfig;
use holdfast_core::names::GroupName;

use crate::resources::plan::data_service::{ServiceStep, declared_name, second_step};
use crate::resources::{RegisteredService, Sources};

/// Beside the methods' own times: a method that takes too long is named, before its step takes too long.
const MARGIN: Duration = Duration::from_secs(2);

/// What the agent holds of data services, by name.
pub type Held = BTreeMap<String, Arc<api::DataService>>;

/// The group with both steps of its data services; none if it has none.
///
/// # Errors
/// A data service is not known on this server.
pub fn expanded(group: &api::FailoverGroup, services: &Held) -> Result<Option<api::FailoverGroup>, String> {
    if group.spec.resources.iter().all(|resource| resource.data_service.is_none()) {
        return Ok(None);
    }
    let mut resources = Vec::new();
    for resource in &group.spec.resources {
        let Some(named) = &resource.data_service else {
            resources.push(resource.clone());
            continue;
        };
        let service = services.get(&named.name).ok_or_else(|| {
            format!("resource {}: DataService {} is not known on this server yet", resource.name, named.name)
        })?;
        let mut first = with_times(resource.clone(), ServiceStep::Service, &service.spec);
        let below = mounts_below(&group.spec, named, &service.spec);
        first.depends_on.extend(below.into_iter().filter(|name| !resource.depends_on.contains(name)));
        let mut second = with_times(resource.clone(), ServiceStep::Network, &service.spec);
        second.name = second_step(&resource.name);
        second.stage = Some(api::Stage::Network);
        second.depends_on = first.depends_on.iter().chain([&resource.name]).cloned().collect();
        resources.extend([first, second]);
    }
    // Who names it and comes after the addresses itself means all of it.
    let seconds: Vec<String> = resources.iter().map(|r| r.name.clone()).filter(|n| declared_name(n) != n).collect();
    for resource in resources.iter_mut().filter(|r| declared_name(&r.name) == r.name) {
        let late = resource.data_service.is_none() && resource.effective_stage() == api::Stage::Network;
        let more = seconds.iter().filter(|s| late && resource.depends_on.iter().any(|on| on == declared_name(s)));
        let more: Vec<String> = more.cloned().collect();
        resource.depends_on.extend(more);
    }
    let mut group = group.clone();
    group.spec.resources = resources;
    Ok(Some(group))
}

/// Its methods' times where the resource gives none.
fn with_times(mut resource: api::Resource, step: ServiceStep, service: &api::DataServiceSpec) -> api::Resource {
    let time = |methods: &[MethodName]| -> Option<Duration> {
        let called = service.methods.iter().filter(|method| methods.contains(&method.name));
        Some(called.map(|method| method.timeout.get()).sum::<Duration>() + MARGIN)
    };
    let times = resource.timeouts.get_or_insert_default();
    times.start = times.start.take().or(time(step.starts()).map(Into::into));
    times.stop = times.stop.take().or(time(step.stops()).map(Into::into));
    let asks = service.methods.iter().any(|method| method.name == MethodName::FmCheck);
    if step == ServiceStep::Network && asks {
        let monitor = resource.monitor.get_or_insert_default();
        monitor.timeout = monitor.timeout.take().or(time(&[MethodName::FmCheck]).map(Into::into));
    }
    resource
}

/// File systems of the group that hold its methods, or what its parameters name: it can't go on without them.
fn mounts_below(
    group: &api::FailoverGroupSpec,
    named: &api::DataServiceResource,
    service: &api::DataServiceSpec,
) -> Vec<String> {
    let mut used: Vec<&str> = named.parameters.values().map(String::as_str).collect();
    for method in &service.methods {
        used.extend(method.path.as_deref());
        used.extend(method.args.iter().map(String::as_str));
    }
    let mounts = group.resources.iter().filter_map(|r| Some((r, r.filesystem.as_ref()?)));
    let below = mounts.filter(|(_, f)| used.iter().any(|path| Path::new(path).starts_with(&f.mount_point)));
    below.map(|(resource, _)| resource.name.clone()).collect()
}

/// Whether it is to be stopped: declared so, or held by an Operation.
fn is_off(service: &api::DataService) -> bool {
    let held = service.status.iter().flat_map(|status| &status.holds).any(|known| known.type_ == hold::STOPPED);
    held || service.spec.state == api::DataServiceState::Disabled
}

/// Switches off what is Disabled or held.
pub fn switch<'a>(config: &mut GroupConfig, resources: impl IntoIterator<Item = &'a api::Resource>, services: &Held) {
    for resource in resources {
        let service = resource.data_service.as_ref().and_then(|named| services.get(&named.name));
        let disabled = service.is_some_and(|service| is_off(service));
        if let Some(config) = config.resources.get_mut(resource.name.as_str()) {
            config.enabled = !disabled;
        }
    }
}

/// What operations need to know: each data service with the groups of this sub-cluster that use it.
pub fn sources(services: &Held, groups: &BTreeMap<GroupName, Arc<api::FailoverGroup>>) -> Sources {
    let uses = |group: &api::FailoverGroup, name: &str| {
        group.spec.resources.iter().any(|r| r.data_service.as_ref().is_some_and(|named| named.name == name))
    };
    let one = |(name, service): (&String, &Arc<api::DataService>)| {
        let users = groups.iter().filter(|(_, group)| uses(group, name)).map(|(group, _)| group.0.clone()).collect();
        (name.clone(), RegisteredService { spec: service.spec.clone(), groups: users })
    };
    Sources { data_services: services.iter().map(one).collect(), ..Sources::default() }
}

#[cfg(test)]
mod tests {
    use holdfast_core::names::ResourceName;
    use serde_json::json;

    use super::*;

    fn services(state: &str) -> Held {
        let object = json!({"apiVersion": "holdfast.dev/v1", "kind": "DataService", "metadata": {"name": "db2"},
            "spec": {"state": state, "methods": [
                {"name": "startNet", "path": "/srv/bank/start", "timeout": "5s"},
                {"name": "fmStart", "path": "/opt/fm", "timeout": "7s"}, {"name": "stop", "inline": "true"}]}});
        Held::from([("db2".to_owned(), Arc::new(serde_json::from_value(object).unwrap()))])
    }

    fn group() -> api::FailoverGroup {
        let object = json!({"apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "bank"},
            "spec": {"subCluster": "db", "resources": [
                {"name": "data", "filesystem": {"device": "/dev/disk/by-id/x", "mountPoint": "/srv/bank", "type": "ext4"}},
                {"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "interface": "eth0"}},
                {"name": "tell", "script": {"start": {"inline": "true"}, "stop": {"inline": "true"}},
                    "stage": "Network", "dependsOn": ["db"]},
                {"name": "db", "dataService": {"name": "db2"}}]}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_data_service_has_a_step_in_front_of_the_addresses_and_one_behind_them() {
        let group = expanded(&group(), &services("Enabled")).unwrap().unwrap();
        let graph = holdfast_api::validation::resource_graph(&group.spec);
        let after = |name: &str| graph[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(after("db"), ["data"]);
        assert_eq!(after("addr"), ["data", "db"]);
        assert_eq!(after("db.net"), ["addr", "data", "db"]);
        assert_eq!(after("tell"), ["addr", "data", "db", "db.net"]);
        let find = |name: &str| group.spec.resources.iter().find(|r| r.name == name).unwrap();
        assert_eq!(find("db.net").start_timeout(), Duration::from_secs(14), "startNet and fmStart");
        assert_eq!(find("db").stop_timeout(), Duration::from_secs(62), "stop, at its default");
        // Its method lies in the file system.
        assert_eq!(find("db").depends_on, ["data"]);
        assert_eq!(find("db.net").depends_on, ["data", "db"]);
    }

    #[test]
    fn what_is_not_known_or_switched_off_is_not_started() {
        let problem = expanded(&group(), &Held::new()).unwrap_err();
        assert_eq!(problem, "resource db: DataService db2 is not known on this server yet");
        for (state, enabled) in [("Enabled", true), ("Disabled", false)] {
            let services = services(state);
            let group = expanded(&group(), &services).unwrap().unwrap();
            let sub_cluster = crate::convert::config::tests::sub_cluster(|_| {});
            let mut config = crate::convert::config::group_config(&group, &sub_cluster).unwrap();
            switch(&mut config, &group.spec.resources, &services);
            let is_on = |name: &str| config.resources[&ResourceName::from(name)].enabled;
            assert_eq!((is_on("db"), is_on("db.net"), is_on("addr")), (enabled, enabled, true));
        }
    }
}
