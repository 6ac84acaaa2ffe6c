//! A unit of systemd.

use holdfast_api::v1 as api;
use serde::{Deserialize, Serialize};

use super::{PlanError, wrong};

/// A unit of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemdPlan {
    /// Its name, of a service.
    pub unit: String,
}

pub(super) fn plan(spec: &api::Systemd) -> Result<SystemdPlan, PlanError> {
    match holdfast_api::validation::unit_problem(&spec.unit) {
        Some(problem) => Err(wrong("systemd.unit", format!("is {:?}; {problem}", spec.unit))),
        None => Ok(SystemdPlan { unit: spec.unit.clone() }),
    }
}
