//! The policies for a stock Kubernetes API server (`manifests/admission`) decide as this one does, in the same words. They are
//! evaluated here as a Kubernetes API server would: match conditions, variables in order, validations, message expressions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::Key;
use kube_cel::cel::{Context, ExecutionError, Program, Value as Cel, to_value};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authz::{self, Attributes, Facts};
use crate::identity::{AUTHENTICATED, Identity};
use crate::rbac::Rule;
use crate::registry::ResourceDef;

/// The policy of a file, and that its binding enforces it.
fn policy(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/admission").join(file);
    let text = std::fs::read_to_string(path).expect("a manifest");
    let documents = serde_yaml::Deserializer::from_str(&text).map(|d| Value::deserialize(d).expect("YAML"));
    let [policy, binding] = documents.collect::<Vec<_>>().try_into().expect("a policy and its binding");
    assert_eq!(binding["spec"], json!({"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}));
    policy
}

/// A request as policies see it, with what its user may do.
struct Asked {
    request: Value,
    object: Value,
    old: Value,
    allowed: BTreeSet<String>,
}

/// One step of `authorizer.group(…).resource(…)…`: what was asked for until now, and this.
fn asks(member: &'static str) -> impl Fn(This<Cel>, Arc<String>) -> Result<Cel, ExecutionError> + Send + Sync {
    move |This(so_far): This<Cel>, value: Arc<String>| {
        let mut fields = members(&so_far);
        fields.insert(Key::from(member), Cel::String(value));
        Ok(Cel::Map(fields.into()))
    }
}

fn members(map: &Cel) -> HashMap<Key, Cel> {
    let Cel::Map(map) = map else { panic!("{map:?} is no map") };
    (*map.map).clone()
}

impl Asked {
    fn context(&self) -> Context<'static> {
        let mut context = Context::default().with_all();
        for (name, value) in [("request", &self.request), ("object", &self.object), ("oldObject", &self.old)] {
            context.add_variable_from_value(name, to_value(value).expect("a CEL value"));
        }
        context.add_variable_from_value("authorizer", Cel::Map(HashMap::<Key, Cel>::new().into()));
        for member in ["group", "resource", "namespace", "name", "check"] {
            context.add_function(member, asks(member));
        }
        let allowed = self.allowed.clone();
        context.add_function("allowed", move |This(asked): This<Cel>| -> Result<bool, ExecutionError> {
            let asked = members(&asked);
            let text = |member: &str| match asked.get(&Key::from(member)) {
                Some(Cel::String(text)) => text.to_string(),
                _ => String::new(),
            };
            let asked = ["group", "resource", "namespace", "name", "check"].map(text);
            Ok(allowed.contains(&asked.join(" ")))
        });
        context
    }

    /// Why a policy refuses, none if it does not.
    fn judge(&self, policy: &Value) -> Option<String> {
        let spec = &policy["spec"];
        let mut context = self.context();
        let run = |context: &Context<'_>, expression: &Value| {
            let text = expression.as_str().expect("an expression");
            let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            program.execute(context).map_err(|error| format!("{text}: {error}"))
        };
        let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();
        for condition in list("matchConditions") {
            if run(&context, &condition["expression"]).expect("a condition") == Cel::Bool(false) {
                return None;
            }
        }
        let mut variables: BTreeMap<String, Cel> = BTreeMap::new();
        for variable in list("variables") {
            let name = variable["name"].as_str().expect("a name").to_owned();
            // A variable that nobody asks for may have no value, as in Kubernetes.
            let Ok(value) = run(&context, &variable["expression"]) else { continue };
            variables.insert(name, value);
            let known: HashMap<Key, Cel> =
                variables.iter().map(|(name, value)| (Key::from(name.as_str()), value.clone())).collect();
            context.add_variable_from_value("variables", Cel::Map(known.into()));
        }
        list("validations").iter().find_map(|validation| {
            assert_eq!(validation["reason"], "Forbidden");
            let passed = run(&context, &validation["expression"]);
            (passed != Ok(Cel::Bool(true))).then(|| match run(&context, &validation["messageExpression"]) {
                Ok(Cel::String(text)) => text.to_string(),
                other => panic!("{other:?} is no message; the rule said {passed:?}"),
            })
        })
    }
}

#[test]
fn deletions_are_refused_in_the_same_words() {
    let policy = policy("deletion.yaml");
    let confirmed = json!({"holdfast.dev/confirm-delete": "x"});
    let group = |state: &str, status: Value| json!({"spec": {"state": state}, "status": status});
    let cases = [
        ("FailoverGroup", json!({"spec": {"state": "Online"}}), None),
        ("FailoverGroup", group("Online", json!({"phase": "Online", "server": "db1"})), None),
        ("FailoverGroup", group("Online", json!({"phase": "Offline", "transitions": [{"id": 1}]})), None),
        ("FailoverGroup", group("Offline", json!({"phase": "Stopping", "server": "db1"})), None),
        ("FailoverGroup", group("Offline", json!({"phase": "Offline", "transitions": [{"id": 1}]})), None),
        ("SubCluster", json!({"spec": {}}), None),
        ("SubCluster", group("Active", json!({"phase": "Running", "groups": {"total": 0}})), None),
        ("SubCluster", group("Stopped", json!({"phase": "Running", "groups": {"total": 0}})), None),
        ("SubCluster", group("Stopped", json!({"phase": "Running", "groups": {"total": 1}})), Some("subCluster")),
        ("SuperCluster", json!({"spec": {}, "status": {"subClusters": {"total": 0}}}), None),
        ("SuperCluster", json!({"spec": {}, "status": {"subClusters": {"total": 1}}}), Some("superCluster")),
        ("DataService", json!({"spec": {"state": "Enabled"}, "status": {"usedBy": ["a", "b"]}}), None),
        ("DataService", json!({"spec": {"state": "Enabled"}}), None),
    ];
    for (kind, object, referring) in cases {
        for annotations in [Value::Null, json!({"holdfast.dev/confirm-delete": "other"}), confirmed.clone()] {
            let mut object = object.clone();
            object["metadata"] = json!({"name": "x", "namespace": "ha"});
            if !annotations.is_null() {
                object["metadata"]["annotations"] = annotations;
            }
            let def = ResourceDef::from_crd(&json!({"spec": {
                "group": "holdfast.dev", "names": {"kind": kind, "plural": kind.to_lowercase()},
                "versions": [{"name": "v1", "storage": true}],
            }}));
            // A policy counts who belongs to an object, this server names them: here the only one is called 1.
            let member = match referring {
                Some("subCluster") => {
                    json!([{"metadata": {"name": "1", "namespace": "ha"}, "spec": {"subCluster": "x"}}])
                }
                Some(_) => {
                    json!([{"metadata": {"name": "1", "namespace": "ha"}, "spec": {"superCluster": {"name": "x"}}}])
                }
                None => json!([]),
            };
            let own = super::deletion(&def.expect("valid"), &object, member.as_array().expect("a list")).err();
            let request = json!({"operation": "DELETE", "kind": {"kind": kind}, "name": "x", "namespace": "ha"});
            let asked = Asked { request, object: Value::Null, old: object.clone(), allowed: BTreeSet::new() };
            assert_eq!(asked.judge(&policy), own, "{kind} {object}");
        }
    }
}

/// Nothing is bound; every group belongs to the sub-cluster that its name begins with.
struct World;

impl Facts for World {
    fn rules(&self, _: &Identity, _: &str) -> Vec<Rule> {
        Vec::new()
    }

    fn secrets(&self, _: &str, _: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn sub_cluster_of(&self, _: &str, group: &str) -> Option<String> {
        group.split('-').next().map(str::to_owned)
    }

    fn lock_of(&self, _: &str, _: &str) -> Option<(String, String)> {
        None
    }
}

#[test]
fn agents_write_only_what_is_their_own_in_the_same_words() {
    let policy = policy("agents.yaml");
    let user = "holdfast:server:ha:db:db1";
    for (operation, verb) in [("CREATE", "create"), ("UPDATE", "update"), ("DELETE", "delete")] {
        for (resource, name) in [
            ("servers", "db.db1"),
            ("servers", "db.db2"),
            ("subclusters", "db"),
            ("subclusters", "web"),
            ("failovergroups", "db-ledger"),
            ("failovergroups", "web-shop"),
            ("operations", "move-1"),
        ] {
            for (subresource, namespace) in [("", "ha"), ("status", "ha"), ("status", "other")] {
                let action = Attributes {
                    verb: verb.into(),
                    group: holdfast_api::GROUP.into(),
                    resource: resource.into(),
                    subresource: subresource.into(),
                    namespace: namespace.into(),
                    name: name.into(),
                };
                let identity = Identity::new(user, [AUTHENTICATED]);
                let own = (!authz::allows(&identity, &action, &World)).then(|| action.refusal(user));
                let request = json!({
                    "operation": operation, "name": name, "namespace": namespace, "subResource": subresource,
                    "resource": {"resource": resource}, "userInfo": {"username": user},
                });
                let old = json!({"spec": {"subCluster": name.split('-').next()}});
                let asked = Asked { request, object: old.clone(), old, allowed: BTreeSet::new() };
                assert_eq!(asked.judge(&policy), own, "{action:?}");
            }
        }
    }
    let request = json!({"operation": "DELETE", "userInfo": {"username": "alice"}});
    let alice = Asked { request, object: Value::Null, old: Value::Null, allowed: BTreeSet::new() };
    assert_eq!(alice.judge(&policy), None, "others are not its matter");
}

#[test]
fn an_operation_needs_the_right_to_what_it_does_in_the_same_words() {
    let policy = policy("operations.yaml");
    let asked = |by: Value, allowed: &[&str]| Asked {
        request: json!({"operation": "CREATE", "namespace": "ha", "userInfo": {"username": "alice"}}),
        object: json!({"spec": {"type": "ForceReinstate", "target": {"kind": "Server", "name": "db.db1"}, "requestedBy": by}}),
        old: Value::Null,
        allowed: allowed.iter().map(|right| (*right).to_owned()).collect(),
    };
    let right = "holdfast.dev servers ha db.db1 forcereinstate";
    assert_eq!(asked(json!("alice"), &[right]).judge(&policy), None);
    assert_eq!(asked(json!(""), &[right]).judge(&policy), None);
    let other = "spec.requestedBy is \"bob\"; it must be the user who creates the operation, \"alice\"";
    assert_eq!(asked(json!("bob"), &[right]).judge(&policy).as_deref(), Some(other));
    let refusal = "User \"alice\" cannot forcereinstate resource \"servers\" in API group \"holdfast.dev\" in the \
        namespace \"ha\", which the operation would do to \"db.db1\"";
    let near = "holdfast.dev servers ha db.db2 forcereinstate";
    assert_eq!(asked(json!("alice"), &[near]).judge(&policy).as_deref(), Some(refusal));
}
