//! Which resources can't be carried out on this server as they are declared: their OCF agent is not installed, or does not
//! take their parameters. Reported as soon as a group is accepted, before a start or a takeover finds it (condition
//! `UnusableResource`).

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::v1::{FailoverGroup, UnusableResource};
use tokio::sync::watch;

use crate::convert::clip;
use crate::look;
use crate::redact::redact;
use crate::resources::Sources;
use crate::resources::ocf::agents::{self, Known, Name};
use crate::spec_cache::Specs;

/// As many as the schema takes.
const MOST: usize = 256;

/// A resource that an agent is to carry out. Its parameters may be secrets: there is no debug form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    group: String,
    resource: String,
    agent: Name,
    /// None while a Secret that has some of them is not known here.
    parameters: Option<BTreeMap<String, String>>,
    /// Those of them that stand in a Secret.
    secrets: BTreeSet<String>,
}

/// The resources with an agent of all groups that may run on this server.
pub fn wanted(specs: &Specs, server: &str) -> BTreeSet<Wanted> {
    let sources = Sources { secrets: specs.resource_secrets.clone(), ..Sources::default() };
    let here = |group: &&FailoverGroup| {
        let servers = &group.spec.placement.servers;
        servers.is_empty() || servers.iter().any(|name| name == server)
    };
    let groups = specs.groups.iter().map(|(name, group)| (name, group.as_ref())).filter(|(_, group)| here(group));
    groups.flat_map(|(name, group)| of_group(&name.0, group, &sources)).collect()
}

fn of_group(name: &str, group: &FailoverGroup, sources: &Sources) -> Vec<Wanted> {
    let one = |resource: &holdfast_api::v1::Resource| {
        let ocf = resource.ocf.as_ref()?;
        let resolved = sources.resolved(resource).ok();
        let (parameters, secrets) = match resolved {
            Some((resource, secrets)) => (resource.ocf.map(|ocf| ocf.parameters), secrets),
            None => (None, BTreeSet::new()),
        };
        let agent = Name::new(&ocf.provider, &ocf.type_).ok()?;
        Some(Wanted { group: name.to_owned(), resource: resource.name.clone(), agent, parameters, secrets })
    };
    group.spec.resources.iter().filter_map(one).collect()
}

/// Looks when others are wanted and every minute; an agent whose file is the same is not asked again.
pub fn follow(wanted: watch::Receiver<BTreeSet<Wanted>>) -> watch::Receiver<Vec<UnusableResource>> {
    let known = Known::default();
    look::follow(wanted, move |resources| look(resources, &known))
}

fn look(wanted: &BTreeSet<Wanted>, known: &Known) -> Vec<UnusableResource> {
    // What kept an agent from answering may be over.
    known.forget_failures();
    wanted.iter().filter_map(|resource| unusable(resource, known)).take(MOST).collect()
}

fn unusable(wanted: &Wanted, known: &Known) -> Option<UnusableResource> {
    let described = known.describe(&wanted.agent);
    let problem = match (&described, &wanted.parameters) {
        (Ok(_), None) => agents::unusable(&wanted.agent).map(|why| format!("ocf.type: {}: {why}", wanted.agent)),
        (_, given) => agents::problem(&wanted.agent, described, given.as_ref().unwrap_or(&BTreeMap::new())),
    }?;
    let values = wanted.parameters.iter().flatten().filter(|(name, _)| wanted.secrets.contains(*name));
    let message = clip(&redact(&problem, values.map(|(_, value)| value)));
    Some(UnusableResource { group: wanted.group.clone(), resource: wanted.resource.clone(), message })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_core::names::GroupName;

    use super::*;

    /// Two groups, one of which may not run on db1.
    fn specs(secrets: &[(&str, &str)]) -> Specs {
        let group = |name: &str, server: &str, ocf: serde_json::Value| {
            let group = serde_json::json!({
                "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": name, "namespace": "ha"},
                "spec": {"subCluster": "db", "placement": {"servers": [server]}, "resources": [{"name": "app", "ocf": ocf}]},
            });
            (GroupName(name.to_owned()), Arc::new(serde_json::from_value(group).unwrap()))
        };
        let absent = serde_json::json!({"provider": "nobody", "type": "Absent"});
        let delay = serde_json::json!({"type": "Delay", "parametersFrom": ["times"]});
        let groups = [group("a", "db1", absent.clone()), group("b", "db2", absent), group("c", "db1", delay)].into();
        let mut specs = Specs { groups, ..Specs::default() };
        if !secrets.is_empty() {
            let entries = secrets.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
            specs.resource_secrets.0.insert("times".to_owned(), entries);
        }
        specs
    }

    fn said(secrets: &[(&str, &str)]) -> Vec<String> {
        let found = look(&wanted(&specs(secrets), "db1"), &Known::default());
        found.into_iter().map(|found| format!("{}/{}: {}", found.group, found.resource, found.message)).collect()
    }

    #[test]
    fn an_absent_agent_and_wrong_parameters_are_named_and_no_secret_is_told() {
        // Before the Secret is here, nothing is said about what may stand in it.
        let [absent] = said(&[]).try_into().unwrap();
        let expected = "a/app: ocf.type: there is no agent nobody:Absent on this server (";
        assert!(absent.starts_with(expected), "{absent}");
        assert_eq!(said(&[("startdelay", "30")]).len(), 1, "nothing is wrong with it");
        let wrong = said(&[("startdelay", "swordfish"), ("delay", "30")]).remove(1);
        assert!(
            wrong.starts_with("c/app: ocf.parameters.delay: heartbeat:Delay has none of that name; it takes"),
            "{wrong}"
        );
        assert!(wrong.contains("ocf.parameters.startdelay: heartbeat:Delay takes an integer"), "{wrong}");
        assert!(!wrong.contains("swordfish"), "{wrong}");
    }
}
