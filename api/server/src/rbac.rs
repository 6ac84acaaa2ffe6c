//! Roles and bindings of `rbac.authorization.k8s.io/v1`: whom a binding means, and what a rule allows. Pure.
//!
//! Rules only add up: there is nothing that takes a right away, and who is in no binding has none.

use serde_json::{Value, json};

use crate::authz::Attributes;
use crate::identity::Identity;
use crate::tokens;

/// API group of the kinds.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
/// Stands for everything in a list of a rule.
const ALL: &str = "*";

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    /// Names of objects; none: all.
    names: Vec<String>,
    paths: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == wanted)
}

impl Rule {
    /// Reads a rule of a role.
    fn of(rule: &Value) -> Rule {
        let texts = |field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Rule {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            paths: texts("nonResourceURLs"),
        }
    }

    /// The rules of a Role or ClusterRole.
    pub(crate) fn all_of(role: &Value) -> Vec<Rule> {
        role["rules"].as_array().into_iter().flatten().map(Rule::of).collect()
    }

    /// `resource` is spelled `plural` or `plural/subresource`.
    fn has_resource(&self, resource: &str) -> bool {
        has(&self.resources, resource)
            || resource.split_once('/').is_some_and(|(_, sub)| self.resources.contains(&format!("*/{sub}")))
    }

    fn has_name(&self, name: &str) -> bool {
        // Without a name all objects are meant, and a rule for some of them does not allow that.
        self.names.is_empty() || (!name.is_empty() && self.names.iter().any(|n| n == name))
    }

    /// May this be done by this rule?
    pub(crate) fn allows(&self, action: &Attributes) -> bool {
        let resource = match action.subresource.as_str() {
            "" => action.resource.clone(),
            sub => format!("{}/{sub}", action.resource),
        };
        has(&self.verbs, &action.verb)
            && has(&self.groups, &action.group)
            && self.has_resource(&resource)
            && self.has_name(&action.name)
    }

    /// May this path be read by this rule? A path in a rule may end in `*`.
    pub(crate) fn allows_path(&self, verb: &str, path: &str) -> bool {
        let fits = |rule: &String| rule.strip_suffix('*').map_or(rule == path, |start| path.starts_with(start));
        has(&self.verbs, verb) && self.paths.iter().any(fits)
    }

    /// The wire form.
    pub(crate) fn to_json(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                rule[field] = json!(list);
            }
        }
        rule
    }

    /// True if the rule is about paths.
    pub(crate) fn is_about_paths(&self) -> bool {
        !self.paths.is_empty()
    }
}

/// True if a binding in `namespace` (empty: for the whole cluster) names the identity.
pub(crate) fn binds(binding: &Value, identity: &Identity) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == identity.user,
            Some("Group") => identity.is_in(name),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or_default();
                tokens::account_of(&identity.user) == Some((namespace, name))
            }
            _ => false,
        }
    })
}

/// The first right in `wanted` that `own` does not give, for people; none if there is none. Nobody may hand on more than
/// he has.
pub(crate) fn beyond(wanted: &[Rule], own: &[Rule]) -> Option<String> {
    let any = vec![String::new()];
    for rule in wanted {
        for (verb, group, resource) in product(rule) {
            let names = if rule.names.is_empty() { &any } else { &rule.names };
            let given = |own: &Rule, name: &str| {
                has(&own.verbs, verb) && has(&own.groups, group) && own.has_resource(resource) && own.has_name(name)
            };
            if let Some(name) = names.iter().find(|name| !own.iter().any(|own| given(own, name))) {
                let place = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                let object = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
                return Some(format!("{verb} {place}{object}"));
            }
        }
        for path in &rule.paths {
            // A path with `*` is had only by who has it literally, or everything.
            let given = |own: &Rule, verb: &str| has(&own.verbs, verb) && has(&own.paths, path);
            if let Some(verb) = rule.verbs.iter().find(|verb| !own.iter().any(|own| given(own, verb))) {
                return Some(format!("{verb} {path}"));
            }
        }
    }
    None
}

fn product(rule: &Rule) -> impl Iterator<Item = (&str, &str, &str)> {
    rule.verbs.iter().flat_map(move |verb| {
        rule.groups.iter().flat_map(move |group| {
            rule.resources.iter().map(move |resource| (verb.as_str(), group.as_str(), resource.as_str()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        Rule::of(&json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}))
    }

    fn action(verb: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_beside() {
        let one = rule(&["get"], &[""], &["secrets"], &["key"]);
        assert!(one.allows(&action("get", "secrets", "key")));
        assert!(!one.allows(&action("get", "secrets", "other")) && !one.allows(&action("get", "secrets", "")));
        assert!(!one.allows(&action("list", "secrets", "key")) && !one.allows(&action("get", "secrets/status", "key")));
        let status = rule(&["*"], &["*"], &["*/status"], &[]);
        assert!(
            status.allows(&action("patch", "servers/status", "x")) && !status.allows(&action("patch", "servers", "x"))
        );
        assert!(rule(&["*"], &["*"], &["*"], &[]).allows(&action("patch", "servers/status", "x")));
        assert!(!rule(&["get"], &["apps"], &["secrets"], &[]).allows(&action("get", "secrets", "key")));
        let path = Rule::of(&json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]}));
        assert!(path.allows_path("get", "/metrics") && path.allows_path("get", "/debug/x"));
        assert!(!path.allows_path("get", "/metrics/x") && !path.allows_path("post", "/metrics"));
    }

    #[test]
    fn nobody_hands_on_more_than_he_has() {
        let own = [rule(&["get", "list"], &[""], &["secrets"], &["key"]), rule(&["*"], &["holdfast.dev"], &["*"], &[])];
        let wanted = |rule: Rule| beyond(&[rule], &own);
        assert_eq!(wanted(rule(&["get"], &[""], &["secrets"], &["key"])), None);
        assert_eq!(wanted(rule(&["move"], &["holdfast.dev"], &["failovergroups"], &["a"])), None);
        assert_eq!(wanted(rule(&["get"], &[""], &["secrets"], &[])).as_deref(), Some("get secrets"));
        assert_eq!(wanted(rule(&["get"], &[""], &["secrets"], &["key", "b"])).as_deref(), Some("get secrets \"b\""));
        assert_eq!(wanted(rule(&["*"], &[""], &["secrets"], &["key"])).as_deref(), Some("* secrets \"key\""));
        assert_eq!(wanted(rule(&["get"], &["*"], &["x"], &[])).as_deref(), Some("get x.*"));
        let paths = Rule::of(&json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]}));
        assert_eq!(beyond(&[paths], &own).as_deref(), Some("get /metrics"));
    }
}
