//! Secrets and ConfigMaps that objects name for their resources and monitors: what agents have to hold, and may read.

use std::collections::BTreeSet;

use crate::v1::{ConfigMapKey, DataServiceSpec, FailoverGroupSpec, Monitor, SubClusterSpec};

/// Names in the object's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
}

impl References {
    /// These and those.
    pub fn extend(&mut self, other: References) {
        self.secrets.extend(other.secrets);
        self.config_maps.extend(other.config_maps);
    }

    fn script(&mut self, config_map: Option<&ConfigMapKey>) {
        self.config_maps.extend(config_map.map(|key| key.name.clone()));
    }
}

/// What a group names: `process.environmentFrom`, `ocf.parametersFrom`, `http.caSecret`, `script.*.configMap`.
pub fn of_group(spec: &FailoverGroupSpec) -> References {
    let mut found = References::default();
    for resource in &spec.resources {
        found.secrets.extend(resource.process.iter().flat_map(|process| process.environment_from.clone()));
        found.secrets.extend(resource.ocf.iter().flat_map(|ocf| ocf.parameters_from.clone()));
        if let Some(script) = &resource.script {
            for source in [Some(&script.start), Some(&script.stop), script.check.as_ref()].into_iter().flatten() {
                found.script(source.config_map.as_ref());
            }
        }
    }
    found.secrets.extend(authorities(&spec.monitors));
    found
}

/// What a sub-cluster names for its monitors: `http.caSecret`.
pub fn of_sub_cluster(spec: &SubClusterSpec) -> References {
    References { secrets: authorities(&spec.monitors).collect(), ..References::default() }
}

fn authorities(monitors: &[Monitor]) -> impl Iterator<Item = String> + '_ {
    monitors.iter().filter_map(|monitor| monitor.http.as_ref()?.ca_secret.clone())
}

/// What a data service names: `methods[].configMap`.
pub fn of_data_service(spec: &DataServiceSpec) -> References {
    let mut found = References::default();
    for method in &spec.methods {
        found.script(method.config_map.as_ref());
    }
    found
}
