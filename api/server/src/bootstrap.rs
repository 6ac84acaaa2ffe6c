//! What is there from the start: the namespaces `default` and `kube-system`, and the roles.

use holdfast_store::{Error, Expect};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::identity::MASTERS;
use crate::object::{encode, meta};
use crate::ops::now;
use crate::registry::ResourceDef;
use crate::state::State;
use crate::{join_tokens, prepare, rbac, schema};

/// The roles that a stock Kubernetes API server gets, too.
const ROLES: &str = include_str!("../../../manifests/rbac/roles.yaml");

/// Makes what is missing. What is there is left as it is: an administrator may have changed it.
pub(crate) async fn ensure(state: &State) -> ApiResult<()> {
    if let Some(roles) = state.registry.find(rbac::GROUP, "v1", "clusterroles") {
        for role in roles_at_start().map_err(ApiError::internal)? {
            make(state, roles, role).await?;
        }
    }
    if let Some(bindings) = state.registry.find(rbac::GROUP, "v1", "clusterrolebindings") {
        make(
            state,
            bindings,
            json!({
                "apiVersion": bindings.api_version(), "kind": bindings.kind, "metadata": {"name": "cluster-admin"},
                "roleRef": {"apiGroup": rbac::GROUP, "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"apiGroup": rbac::GROUP, "kind": "Group", "name": MASTERS}],
            }),
        )
        .await?;
    }
    if state.registry.find("", "v1", "secrets").is_some()
        && let Some(namespaces) = state.registry.find("", "v1", "namespaces")
    {
        let name = join_tokens::NAMESPACE;
        make(state, namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
    }
    // ORDER: last; whoever waits for the server to be ready waits for it.
    let Some(namespaces) = state.registry.find("", "v1", "namespaces") else { return Ok(()) };
    make(state, namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})).await
}

fn roles_at_start() -> Result<Vec<Value>, String> {
    let mut roles = vec![json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "cluster-admin"},
        "rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ],
    })];
    for document in serde_yaml::Deserializer::from_str(ROLES) {
        roles.push(serde::Deserialize::deserialize(document).map_err(|e| format!("manifests/rbac/roles.yaml: {e}"))?);
    }
    Ok(roles)
}

/// Makes an object if there is none of its name.
pub(crate) async fn make(state: &State, def: &ResourceDef, object: Value) -> ApiResult<()> {
    let (namespace, name) = (meta(&object, "namespace").to_owned(), meta(&object, "name").to_owned());
    let mut object = prepare::create(def, object, uuid::Uuid::new_v4().to_string(), now())?;
    let checked = schema::check(def, &mut object, None);
    if !checked.causes.is_empty() || !checked.unknown.is_empty() {
        return Err(ApiError::invalid(def.target(&name), &checked.causes));
    }
    match state.store.put(&def.key(&namespace, &name), encode(&mut object).into(), Expect::Absent, None).await {
        Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
