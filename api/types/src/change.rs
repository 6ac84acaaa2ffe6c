//! What a change of a specification needs before it is in force: the one rule for those who act by it and those who say
//! beforehand what it will do.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::v1::FailoverGroupSpec;

/// What the resources of a group are, by name. While this stays the same a change of the spec is taken over as the group
/// runs; otherwise it needs a restart of the group. How resources are timed, ordered, checked and recovered is not in it.
///
/// # Errors
/// A resource that can't be written as JSON.
pub fn what_runs(spec: &FailoverGroupSpec) -> serde_json::Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for resource in &spec.resources {
        let mut value = serde_json::to_value(resource)?;
        if let Some(fields) = value.as_object_mut() {
            for live in ["dependsOn", "stage", "critical", "timeouts", "monitor", "recovery"] {
                fields.remove(live);
            }
            if let Some(process) = fields.get_mut("process").and_then(Value::as_object_mut) {
                process.remove("restart");
            }
            if let Some(ocf) = fields.get_mut("ocf").and_then(Value::as_object_mut) {
                ocf.remove("depths");
            }
        }
        all.insert(resource.name.clone(), value);
    }
    Ok(all)
}

/// Names of resources that are not what they were, or were not there, or are not there any more, sorted.
///
/// # Errors
/// As [`what_runs`].
pub fn changed_resources(old: &FailoverGroupSpec, new: &FailoverGroupSpec) -> serde_json::Result<Vec<String>> {
    let (old, new) = (what_runs(old)?, what_runs(new)?);
    let mut names: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| old.get(name) != new.get(name));
    Ok(names)
}
