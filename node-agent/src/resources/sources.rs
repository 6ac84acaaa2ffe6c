//! What the specification of a resource names beside itself, as this server holds it.

use std::collections::BTreeMap;

use holdfast_api::v1 as api;

use super::plan::{Plan, PlanError, data_service};
use super::{Network, plan};

/// Everything of that kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources {
    /// Data services by name.
    pub data_services: BTreeMap<String, RegisteredService>,
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
        let Some(named) = &resource.data_service else { return Plan::new(resource, network) };
        let service = self.data_services.get(&named.name).ok_or_else(|| {
            let problem = format!("DataService {} is not known on this server", named.name);
            plan::wrong("dataService.name", problem)
        })?;
        data_service::plan(&resource.name, named, &service.spec).map(Plan::DataService)
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
