//! What the specification of a resource names beside itself, as this server holds it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::v1 as api;

use crate::fencing::Secrets;
use crate::spec_cache::ConfigMaps;

use super::plan::{Plan, PlanError, data_service};
use super::{Network, plan};

/// Everything of that kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources {
    /// The namespace of them all.
    pub namespace: String,
    /// Data services by name.
    pub data_services: BTreeMap<String, RegisteredService>,
    /// Secrets; they stand in no log.
    pub secrets: Secrets,
    /// ConfigMaps.
    pub config_maps: ConfigMaps,
}

/// A registered data service.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredService {
    /// What it is.
    pub spec: api::DataServiceSpec,
    /// The groups of this sub-cluster that use it, by name.
    pub groups: Vec<String>,
}

impl Sources {
    /// A resource, ready to be carried out on this server.
    ///
    /// # Errors
    /// Names what can't be carried out, or is not known here.
    pub fn plan(&self, resource: &api::Resource, network: &Network) -> Result<Plan, PlanError> {
        if let Some(named) = &resource.data_service {
            return data_service::plan(&resource.name, named, &self.service(named)?).map(Plan::DataService);
        }
        let (resource, secrets) = self.resolved(resource)?;
        Ok(Plan::new(&resource, network)?.with_secrets(secrets))
    }

    /// What of all that these resources name is not here: the first of it, with its resource. A group of which a part
    /// can't be started is not begun, so that it stops nowhere half way.
    pub fn lacking<'a>(&self, resources: impl IntoIterator<Item = &'a api::Resource>) -> Option<String> {
        resources.into_iter().find_map(|resource| {
            let problem = match &resource.data_service {
                Some(named) => self.service(named).err(),
                None => self.resolved(resource).err(),
            };
            let problem = problem?;
            Some(format!(
                "nothing of the group is started: resource {}: {problem}",
                data_service::declared_name(&resource.name)
            ))
        })
    }

    /// The data service with all texts of its methods.
    fn service(&self, named: &api::DataServiceResource) -> Result<api::DataServiceSpec, PlanError> {
        let service = self.data_services.get(&named.name).ok_or_else(|| {
            let problem = format!("DataService {} is not known on this server", named.name);
            plan::wrong("dataService.name", problem)
        })?;
        let mut spec = service.spec.clone();
        for method in &mut spec.methods {
            let field = format!("dataService {}: methods.{}.configMap", named.name, method.name);
            if let Some(text) = self.text(method.config_map.take().as_ref(), &field)? {
                method.inline = Some(text);
            }
        }
        Ok(spec)
    }

    /// The resource with everything in it that it names: texts of ConfigMaps, values of Secrets. What stands in the
    /// specification itself counts more. And the names of the variables or parameters that are from Secrets.
    pub(crate) fn resolved(&self, resource: &api::Resource) -> Result<(api::Resource, BTreeSet<String>), PlanError> {
        let mut resource = resource.clone();
        let mut secrets = BTreeSet::new();
        if let Some(process) = &mut resource.process {
            let from = std::mem::take(&mut process.environment_from);
            secrets = self.fill(&mut process.environment, &from, "process.environmentFrom")?;
        }
        if let Some(ocf) = &mut resource.ocf {
            let from = std::mem::take(&mut ocf.parameters_from);
            secrets = self.fill(&mut ocf.parameters, &from, "ocf.parametersFrom")?;
        }
        if let Some(script) = &mut resource.script {
            let sources = [
                ("start", Some(&mut script.start)),
                ("stop", Some(&mut script.stop)),
                ("check", script.check.as_mut()),
            ];
            for (name, source) in sources {
                let Some(source) = source else { continue };
                if let Some(text) = self.text(source.config_map.take().as_ref(), &format!("script.{name}.configMap"))? {
                    source.inline = Some(text);
                }
            }
        }
        Ok((resource, secrets))
    }

    /// Adds all keys of these Secrets with their values; of two Secrets with the same key the later one counts. Gives
    /// the names of those that were added.
    fn fill(
        &self,
        values: &mut BTreeMap<String, String>,
        names: &[String],
        field: &str,
    ) -> Result<BTreeSet<String>, PlanError> {
        let mut all = BTreeMap::new();
        for name in names {
            let entries = self.secrets.0.get(name).ok_or_else(|| self.unknown("Secret", name, field))?;
            for (key, value) in entries {
                let text = String::from_utf8(value.clone()).ok().filter(|text| !text.contains('\0'));
                let namespace = &self.namespace;
                let text = text.ok_or_else(|| {
                    let problem = format!(
                        "key {key} of Secret {name} in namespace {namespace} is no text (UTF-8 without NUL), so it can't \
                         be a variable or parameter; remove the key or write text"
                    );
                    plan::wrong(field, problem)
                })?;
                all.insert(key.clone(), text);
            }
        }
        all.retain(|key, _| !values.contains_key(key));
        let added = all.keys().cloned().collect();
        values.extend(all);
        Ok(added)
    }

    /// One text of a Secret.
    ///
    /// # Errors
    /// It is not here, has no such key, or that is no text.
    pub fn entry(&self, name: &str, key: &str, field: &str) -> Result<String, PlanError> {
        let entries = self.secrets.0.get(name).ok_or_else(|| self.unknown("Secret", name, field))?;
        let value = entries.get(key).and_then(|value| String::from_utf8(value.clone()).ok());
        value.ok_or_else(|| {
            let (namespace, has) = (&self.namespace, entries.keys().cloned().collect::<Vec<_>>().join(", "));
            let problem =
                format!("Secret {name} in namespace {namespace} has no text {key}; it has: {has}. Add the key to it");
            plan::wrong(field, problem)
        })
    }

    fn text(&self, key: Option<&api::ConfigMapKey>, field: &str) -> Result<Option<String>, PlanError> {
        let Some(api::ConfigMapKey { name, key }) = key else { return Ok(None) };
        let map = self.config_maps.get(name).ok_or_else(|| self.unknown("ConfigMap", name, field))?;
        let has = || map.keys().cloned().collect::<Vec<_>>().join(", ");
        let text = map.get(key).ok_or_else(|| {
            let (namespace, has) = (&self.namespace, has());
            let problem = format!(
                "ConfigMap {name} in namespace {namespace} has no key {key}; it has: {has}. Add the key to it, or name another one"
            );
            plan::wrong(field, problem)
        })?;
        Ok(Some(text.clone()))
    }

    fn unknown(&self, kind: &str, name: &str, field: &str) -> PlanError {
        let namespace = &self.namespace;
        let problem = format!(
            "{kind} {name} in namespace {namespace} is not known on this server; create it there, or see in the agent's \
             log why it can't be read"
        );
        plan::wrong(field, problem)
    }

    /// The groups of this sub-cluster that use what the plan uses.
    pub fn sharers(&self, plan: &Plan) -> Vec<String> {
        match plan {
            Plan::DataService(plan) => {
                self.data_services.get(&plan.service).map(|service| service.groups.clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}
