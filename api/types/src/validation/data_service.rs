//! What a group's resources say about data services, as far as the group alone shows it. Whether the data service exists
//! and may be used is the controller's to say.

use std::collections::BTreeMap;

use crate::{
    error::{ErrorKind, FieldError},
    v1::FailoverGroupSpec,
};

/// A data service that a group uses twice, and parameters that can't be environment variables.
pub fn validate_data_services(spec: &FailoverGroupSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (i, resource) in spec.resources.iter().enumerate() {
        let Some(service) = &resource.data_service else { continue };
        let at = format!("spec.resources[{i}].dataService");
        if let Some(first) = seen.insert(&service.name, &resource.name) {
            errors.push(FieldError::new(
                ErrorKind::Duplicate,
                format!("{at}.name"),
                format!("{:?}", service.name),
                format!(
                    "resource {first} of the group uses the same data service; its methods are told the name of the group \
                     only, so use it once, or register another data service with the same methods"
                ),
            ));
        }
        for name in service.parameters.keys().filter(|name| !is_variable(name)) {
            errors.push(FieldError::new(
                ErrorKind::Invalid,
                format!("{at}.parameters"),
                format!("{name:?}"),
                "parameters become environment variables; letters, digits and _ make a name, no digit first, and names that \
                 begin with HOLDFAST_ are Holdfast's own",
            ));
        }
    }
    errors
}

fn is_variable(name: &str) -> bool {
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    good && name.starts_with(|c: char| !c.is_ascii_digit()) && !name.starts_with("HOLDFAST_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_service_is_used_once_and_its_parameters_are_variables() {
        let spec: FailoverGroupSpec = serde_json::from_value(serde_json::json!({"subCluster": "db", "resources": [
            {"name": "a", "dataService": {"name": "db2", "parameters": {"DB2_PORT": "1", "9": "x", "A=B": "", "HOLDFAST_GROUP": "y"}}},
            {"name": "b", "dataService": {"name": "db2"}},
        ]}))
        .unwrap();
        let errors = validate_data_services(&spec);
        let said: Vec<(&str, &str)> = errors.iter().map(|e| (e.field.as_str(), e.found.as_str())).collect();
        let parameters = "spec.resources[0].dataService.parameters";
        assert_eq!(said[..3], [(parameters, "\"9\""), (parameters, "\"A=B\""), (parameters, "\"HOLDFAST_GROUP\"")]);
        assert_eq!(said[3].0, "spec.resources[1].dataService.name");
        assert!(errors[3].message.starts_with("resource a of the group"), "{}", errors[3].message);
    }
}
