//! A data service of a group: one of its two steps (rows U1, U2, U8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_api::v1 as api;
use holdfast_api::v1::MethodName;
use holdfast_core::names::ResourceName;
use serde::{Deserialize, Serialize};

use super::{PlanError, Program, Source, wrong};

/// Behind the name of the resource that is a data service's second step. No name in a manifest has a dot.
const SECOND: &str = ".net";

/// Name of the second step of the resource `name`.
pub fn second_step(name: &str) -> String {
    format!("{name}{SECOND}")
}

/// The resources of the core that a resource of the manifest may be.
pub fn steps_of(name: &str) -> BTreeSet<ResourceName> {
    [ResourceName::from(name), ResourceName(second_step(name))].into()
}

/// The name in the manifest of what a step belongs to; any other name as it is.
pub fn declared_name(step: &str) -> &str {
    step.strip_suffix(SECOND).unwrap_or(step)
}

/// Which methods a start and a stop call: in front of the addresses, or behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceStep {
    /// START; STOP.
    Service,
    /// START_NET, FM_INIT, FM_START; FM_STOP, STOP_NET.
    Network,
}

impl ServiceStep {
    /// Of the resource with this name.
    pub fn of(name: &str) -> ServiceStep {
        if declared_name(name) == name { ServiceStep::Service } else { ServiceStep::Network }
    }

    /// What a start calls, in this order.
    pub fn starts(self) -> &'static [MethodName] {
        match self {
            ServiceStep::Service => &[MethodName::Start],
            ServiceStep::Network => &[MethodName::StartNet, MethodName::FmInit, MethodName::FmStart],
        }
    }

    /// What a stop calls, in this order.
    pub fn stops(self) -> &'static [MethodName] {
        match self {
            ServiceStep::Service => &[MethodName::Stop],
            ServiceStep::Network => &[MethodName::FmStop, MethodName::StopNet],
        }
    }
}

/// The name that the documents of the field have for a method.
pub fn classic_name(method: MethodName) -> &'static str {
    match method {
        MethodName::Start => "START",
        MethodName::Stop => "STOP",
        MethodName::Abort => "ABORT",
        MethodName::StartNet => "START_NET",
        MethodName::StopNet => "STOP_NET",
        MethodName::AbortNet => "ABORT_NET",
        MethodName::FmInit => "FM_INIT",
        MethodName::FmStart => "FM_START",
        MethodName::FmStop => "FM_STOP",
        MethodName::FmCheck => "FM_CHECK",
    }
}

/// One step of a data service, with all that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataServicePlan {
    /// Name of the DataService.
    pub service: String,
    /// Which step.
    pub step: ServiceStep,
    /// All its methods, those of the other step, too.
    pub methods: BTreeMap<MethodName, MethodPlan>,
    /// `arguments: Positional`.
    pub positional: bool,
    /// The group's parameters for it.
    pub parameters: BTreeMap<String, String>,
    /// User, name or number.
    pub user: String,
    /// Group, name or number; none: the user's own.
    pub group: Option<String>,
}

impl DataServicePlan {
    /// Whether the agent supplies this method.
    pub fn has(&self, method: MethodName) -> bool {
        self.methods.contains_key(&method)
    }
}

/// A method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodPlan {
    /// What is run, with the arguments that come last.
    pub program: Program,
    /// Longest time for one call.
    pub timeout: Duration,
}

/// The step that the resource `name` stands for.
///
/// # Errors
/// Names the method that can't be carried out.
pub fn plan(
    name: &str,
    resource: &api::DataServiceResource,
    service: &api::DataServiceSpec,
) -> Result<DataServicePlan, PlanError> {
    let mut methods = BTreeMap::new();
    for method in &service.methods {
        let source = match (&method.path, &method.inline, &method.config_map) {
            (Some(path), None, None) => Source::Path(path.into()),
            (None, Some(text), None) => Source::Inline(text.clone()),
            _ => {
                let field = format!("dataService {}: methods.{}", resource.name, method.name);
                return Err(wrong(&field, "give exactly one of path, inline and configMap"));
            }
        };
        let program = Program { source, args: method.args.clone() };
        methods.insert(method.name, MethodPlan { program, timeout: method.timeout.get() });
    }
    Ok(DataServicePlan {
        service: resource.name.clone(),
        step: ServiceStep::of(name),
        methods,
        positional: service.arguments == api::MethodArguments::Positional,
        parameters: resource.parameters.clone(),
        user: service.run_as.user.clone(),
        group: service.run_as.group.clone(),
    })
}
