//! Discovery documents, plain and aggregated, out of the registry. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::registry::{Form, Registry, ResourceDef};
use crate::service_accounts::TOKEN_REQUEST;

/// `GET /api`, plain.
pub(crate) fn core_versions(host: &str) -> Value {
    json!({
        "kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
    })
}

/// `GET /apis`, plain.
pub(crate) fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = named_groups(registry).keys().filter_map(|group| group_entry(registry, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`.
pub(crate) fn group(registry: &Registry, group: &str) -> Option<Value> {
    let mut entry = group_entry(registry, group)?;
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn named_groups(registry: &Registry) -> BTreeMap<&str, Vec<&str>> {
    let mut groups = registry.groups();
    groups.remove("");
    groups
}

fn group_entry(registry: &Registry, group: &str) -> Option<Value> {
    let groups = named_groups(registry);
    let versions: Vec<Value> = groups
        .get(group)?
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    Some(json!({"name": group, "versions": versions, "preferredVersion": versions[0]}))
}

/// `GET /api/v1` and `GET /apis/GROUP/VERSION`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let defs: Vec<&ResourceDef> = of(registry, group, version);
    let first = defs.first()?;
    let mut list = Vec::new();
    for def in &defs {
        let mut entry = Map::new();
        entry.insert("name".into(), def.plural.clone().into());
        entry.insert("singularName".into(), def.singular.clone().into());
        entry.insert("namespaced".into(), def.namespaced.into());
        entry.insert("kind".into(), def.kind.clone().into());
        entry.insert("verbs".into(), json!(def.verbs));
        if !def.short_names.is_empty() {
            entry.insert("shortNames".into(), json!(def.short_names));
        }
        if !def.categories.is_empty() {
            entry.insert("categories".into(), json!(def.categories));
        }
        list.push(Value::Object(entry));
        for sub in def.subresources() {
            let mut entry = json!({
                "name": format!("{}/{sub}", def.plural), "singularName": "", "namespaced": def.namespaced,
                "kind": def.kind, "verbs": subresource_verbs(sub),
            });
            if let Some((group, version, kind)) = other_kind(sub) {
                (entry["group"], entry["version"], entry["kind"]) = (group.into(), version.into(), kind.into());
            }
            list.push(entry);
        }
    }
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": list}))
}

fn of<'a>(registry: &'a Registry, group: &str, version: &str) -> Vec<&'a ResourceDef> {
    registry.all().iter().map(|def| &**def).filter(|d| d.group == group && d.version == version).collect()
}

fn subresource_verbs(sub: &str) -> &'static [&'static str] {
    match sub {
        "finalize" => &["update"],
        "token" => &["create"],
        _ => &["get", "patch", "update"],
    }
}

/// Group, version and kind of what a subresource takes, where it is not the kind itself.
fn other_kind(sub: &str) -> Option<(&'static str, &'static str, &'static str)> {
    (sub == "token").then_some(TOKEN_REQUEST)
}

/// The aggregated form of `/api` (`core`) or `/apis`; `version` is that of the discovery API itself.
pub(crate) fn aggregated(registry: &Registry, core: bool, version: &str) -> Value {
    let groups = registry.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        of(registry, group, version).into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !core {
                metadata["name"] = (*group).into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    let kind = json!({"group": def.group, "version": def.version, "kind": def.kind});
    let mut entry = json!({
        "resource": def.plural, "responseKind": kind, "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": def.singular, "verbs": def.verbs,
    });
    if !def.short_names.is_empty() {
        entry["shortNames"] = json!(def.short_names);
    }
    if !def.categories.is_empty() {
        entry["categories"] = json!(def.categories);
    }
    let subs: Vec<Value> = def
        .subresources()
        .iter()
        .map(|sub| {
            let other = other_kind(sub).map(|(group, version, kind)| json!({"group": group, "version": version, "kind": kind}));
            json!({"subresource": sub, "responseKind": other.unwrap_or_else(|| kind.clone()), "verbs": subresource_verbs(sub)})
        })
        .collect();
    if !subs.is_empty() && def.form == Form::Stored {
        entry["subresources"] = subs.into();
    }
    entry
}

/// `GET /version`: the Kubernetes version whose behaviour this server has.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": concat!("v1.32.0+holdfast.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
