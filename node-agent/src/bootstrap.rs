//! The first specification of a sub-cluster that has to start without API (the master: it runs the API itself).
//!
//! A manifest is read only while nothing was ever read from the API. It is checked by the same functions as the API
//! server and the controller use; what they would not accept is not acted on here either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_api::error::FieldError;
use holdfast_api::v1::{
    DataService, DataServiceStatus, FailoverGroup, FailoverGroupStatus, SubCluster, SubClusterStatus,
};
use holdfast_api::{conditions, reasons, schema, support, validation};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::AgentConfig;
use crate::spec_cache::{CacheError, SpecCache};

/// Why a manifest isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It can't be read.
    #[error("bootstrapManifest {path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("bootstrapManifest {path} is no YAML: {source}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_yaml::Error,
    },
    /// An object would not be accepted.
    #[error("bootstrapManifest {path}: {object} is not acceptable: {problems}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Which object.
        object: String,
        /// What is wrong.
        problems: String,
    },
    /// It has no sub-cluster of this agent.
    #[error("bootstrapManifest {path} has no SubCluster {name} in namespace {namespace}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Name in the agent file.
        name: String,
        /// Namespace in the agent file.
        namespace: String,
    },
    /// What it says can't be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Takes sub-cluster, groups, data services, and the Secrets and ConfigMaps that they name, from the manifest of this
/// agent into the cache.
pub fn load(path: &Path, config: &AgentConfig, cache: &mut SpecCache) -> Result<(), BootstrapError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| BootstrapError::Read { path: path.to_owned(), source })?;
    let yaml = |source| BootstrapError::Yaml { path: path.to_owned(), source };
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).map_err(yaml)?;
        if !value.is_null() {
            objects.push(value);
        }
    }
    let ours = |value: &Value, kind: &str| {
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or(&config.namespace);
        value["kind"] == kind && namespace == config.namespace
    };
    let sub_cluster = objects
        .iter()
        .find(|o| ours(o, "SubCluster") && o["metadata"]["name"] == config.sub_cluster.as_str())
        .ok_or_else(|| BootstrapError::Missing {
            path: path.to_owned(),
            name: config.sub_cluster.clone(),
            namespace: config.namespace.clone(),
        })?;
    let mut sub_cluster: SubCluster = checked(path, sub_cluster, |object: &SubCluster| {
        [support::unsupported_sub_cluster(&object.spec), validation::validate_sub_cluster(&object.spec)].concat()
    })?;
    let status = SubClusterStatus { conditions: accepted(), ..SubClusterStatus::default() };
    (sub_cluster.metadata.generation, sub_cluster.status) = (Some(0), Some(status));
    cache.take_sub_cluster(&sub_cluster, None)?;

    for object in objects.iter().filter(|o| ours(o, "DataService")) {
        let mut service: DataService = checked(path, object, |_: &DataService| Vec::new())?;
        let status = DataServiceStatus { conditions: accepted(), ..DataServiceStatus::default() };
        (service.metadata.generation, service.status) = (Some(0), Some(status));
        cache.take_data_service(&service)?;
    }
    for object in objects.iter().filter(|o| ours(o, "FailoverGroup")) {
        if object["spec"]["subCluster"] != config.sub_cluster.as_str() {
            continue;
        }
        let mut group: FailoverGroup = checked(path, object, |object: &FailoverGroup| {
            [support::unsupported_group(&object.spec), validation::validate_group(&object.spec)].concat()
        })?;
        let status = FailoverGroupStatus { conditions: accepted(), ..FailoverGroupStatus::default() };
        (group.metadata.generation, group.status) = (Some(0), Some(status));
        cache.take_group(&group)?;
    }

    let entries = |name: &str| -> Result<Option<BTreeMap<String, Vec<u8>>>, BootstrapError> {
        let secret = objects.iter().find(|o| ours(o, "Secret") && o["metadata"]["name"] == name);
        let Some(secret) = secret.map(|o| parsed::<Secret>(path, o)).transpose()? else { return Ok(None) };
        let data = secret.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0));
        let text = secret.string_data.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into_bytes()));
        Ok(Some(data.chain(text).collect()))
    };
    let secret = sub_cluster.spec.key_secret(&config.sub_cluster);
    match entries(&secret)? {
        Some(keys) => drop(cache.take_keys(&keys)?),
        None => tracing::warn!(
            secret,
            "the bootstrap manifest has no key Secret; servers hear each other once the API gave it"
        ),
    }
    if let Some(secret) = sub_cluster.spec.quorum.quorum_server.and_then(|server| server.credential_secret) {
        match entries(&secret)? {
            Some(data) => drop(cache.take_quorum_secret(&secret, &data)?),
            None => tracing::warn!(
                secret,
                "the bootstrap manifest has no Secret for the quorum server; it is used once the API gave it"
            ),
        }
    }
    let wanted = cache.references();
    for name in &wanted.secrets {
        match entries(name)? {
            Some(data) => drop(cache.take_resource_secret(name, &data)?),
            None => {
                tracing::warn!(name, "the bootstrap manifest lacks a Secret; what names it starts once the API gave it")
            }
        }
    }
    for name in &wanted.config_maps {
        match objects.iter().find(|o| ours(o, "ConfigMap") && o["metadata"]["name"] == name.as_str()) {
            Some(object) => {
                let map: ConfigMap = parsed(path, object)?;
                cache.take_config_map(name, &map.data.unwrap_or_default())?;
            }
            None => {
                tracing::warn!(
                    name,
                    "the bootstrap manifest lacks a ConfigMap; what names it starts once the API gave it"
                );
            }
        }
    }
    Ok(())
}

fn accepted() -> Vec<Condition> {
    let mut list = Vec::new();
    let (type_, reason) = (reasons::condition::ACCEPTED, reasons::accepted::ACCEPTED);
    conditions::set(&mut list, type_, true, reason, "by the bootstrap manifest", Some(0), Timestamp::now());
    list
}

/// Schema with defaults, then what only Rust can check.
fn checked<K: DeserializeOwned>(
    path: &Path,
    object: &Value,
    check: impl Fn(&K) -> Vec<FieldError>,
) -> Result<K, BootstrapError> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let crds = holdfast_api::crds::crds();
    let definition = crds.iter().find(|crd| crd.spec.names.kind == kind);
    let version = definition.and_then(|crd| crd.spec.versions.first());
    let spec = version.and_then(|v| v.schema.as_ref()).and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = spec.and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default();
    let mut object = object.clone();
    schema::apply_defaults(&schema, &mut object);
    refuse(path, &object, schema::validate(&schema, &object, None))?;
    let unknown = schema::unknown_fields(&schema, &object);
    if !unknown.is_empty() {
        return Err(refused(path, &object, format!("unknown fields: {}", unknown.join(", "))));
    }
    let typed: K = parsed(path, &object)?;
    refuse(path, &object, check(&typed))?;
    Ok(typed)
}

fn parsed<K: DeserializeOwned>(path: &Path, object: &Value) -> Result<K, BootstrapError> {
    serde_json::from_value(object.clone()).map_err(|e| refused(path, object, e.to_string()))
}

fn refuse(path: &Path, object: &Value, errors: Vec<FieldError>) -> Result<(), BootstrapError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(refused(path, object, errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

fn refused(path: &Path, object: &Value, problems: String) -> BootstrapError {
    let name =
        format!("{} {}", object["kind"].as_str().unwrap_or("?"), object["metadata"]["name"].as_str().unwrap_or("?"));
    BootstrapError::Refused { path: path.to_owned(), object: name, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: holdfast.dev/v1
kind: SubCluster
metadata: {name: db, namespace: ha}
spec:
  servers: [{name: a, id: 1}, {name: b, id: 2}, {name: c, id: 3}]
  quorum: {type: Majority}
  heartbeat:
    timeout: 1s
    paths:
    - name: ic
      lan: {role: Interconnect, endpoints: [{server: a, address: 10.1.0.1}, {server: b, address: 10.1.0.2}, {server: c, address: 10.1.0.3}]}
    - name: pub
      lan: {role: Public, endpoints: [{server: a, address: 10.2.0.1}, {server: b, address: 10.2.0.2}, {server: c, address: 10.2.0.3}]}
---
apiVersion: holdfast.dev/v1
kind: FailoverGroup
metadata: {name: web, namespace: ha}
spec: {subCluster: db, resources: [{name: app, process: {command: [/bin/sleep, '1']}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: db-heartbeat, namespace: ha}
stringData: {'1': sixteen-bytes-or-more}
";

    fn take(text: &str) -> Result<SpecCache, BootstrapError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.yaml");
        std::fs::write(&path, text).unwrap();
        let config = AgentConfig {
            api: Vec::new(),
            namespace: "ha".into(),
            sub_cluster: "db".into(),
            server: "a".into(),
            credentials: "/c".into(),
            bootstrap_manifest: Some(path.clone()),
            data_dir: dir.path().to_owned(),
            run_dir: "/r".into(),
            cgroup: None,
            metrics: None,
            power_off: vec!["true".into()],
        };
        let mut cache = SpecCache::open(dir.path()).unwrap();
        load(&path, &config, &mut cache)?;
        Ok(cache)
    }

    #[test]
    fn a_manifest_is_enough_to_act_on() {
        let cache = take(MANIFEST).unwrap();
        let me = "a".into();
        let (adoption, left_out) =
            crate::convert::config::adoption(cache.specs(), &me, None, &[], Path::new("/c")).unwrap();
        assert!(left_out.is_empty() && adoption.groups.contains_key("web"));
        assert_eq!((adoption.wiring.lans.len(), cache.specs().keys.len()), (2, 1));
    }

    #[test]
    fn secrets_and_config_maps_of_resources_come_with_it() {
        let text = MANIFEST.replace(
            "resources: [{name: app, process: {command: [/bin/sleep, '1']}}]",
            "resources: [{name: app, process: {command: [/bin/sleep, '1'], environmentFrom: [env]}}, {name: hook, script: \
             {start: {configMap: {name: hooks, key: up}}, stop: {configMap: {name: hooks, key: down}}}}]",
        ) + "---\n{apiVersion: v1, kind: Secret, metadata: {name: env, namespace: ha}, stringData: {PASSWORD: swordfish}}
---\n{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: ha}, stringData: {X: y}}
---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: hooks, namespace: ha}, data: {up: 'true', down: 'false'}}
";
        let cache = take(&text).unwrap();
        let (adoption, _) =
            crate::convert::config::adoption(cache.specs(), &"a".into(), None, &[], Path::new("/c")).unwrap();
        let resources = &adoption.specs["web"].spec.resources;
        assert_eq!(adoption.sources.lacking(resources), None);
        assert_eq!(cache.specs().resource_secrets.0.keys().collect::<Vec<_>>(), ["env"]);
        let shown = format!("{:?}", adoption.sources.plan(&resources[0], &Default::default()).unwrap());
        assert!(shown.contains("PASSWORD") && !shown.contains("swordfish"), "{shown}");
    }

    #[test]
    fn what_the_controller_would_refuse_is_refused_here_too() {
        let misspelt = take(&MANIFEST.replace("timeout: 1s", "timout: 1s")).unwrap_err().to_string();
        assert!(misspelt.contains("SubCluster db") && misspelt.contains("timout"), "{misspelt}");
        let timing = take(&MANIFEST.replace("timeout: 1s", "{timeout: 1s, interval: 900ms}")).unwrap_err().to_string();
        assert!(timing.contains("SubCluster db") || timing.contains("no YAML"), "{timing}");
        let unsupported = take(&MANIFEST.replace(
            "process: {command: [/bin/sleep, '1']}",
            "nfsExport: {directory: /srv, clients: [{match: '*'}], stateDirectory: /srv/state}",
        ));
        assert!(unsupported.unwrap_err().to_string().contains("FailoverGroup web"));
        assert!(take("kind: List").unwrap_err().to_string().contains("no SubCluster db in namespace ha"));
    }
}
