//! Namespaces: a deleted one empties itself before it goes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::managed;
use crate::object::{Object, is_deleting, meta, rfc3339};
use crate::ops::delete::delete_object;
use crate::ops::now;
use crate::ops::update::save;
use crate::prepare::Endpoint;
use crate::query::{DeleteOptions, Propagation};
use crate::registry::ResourceDef;
use crate::state::State;

/// The condition of a namespace whose contents can't be deleted.
const BLOCKED: &str = "NamespaceDeletionContentFailure";

fn def(state: &State) -> Option<&Arc<ResourceDef>> {
    state.registry.find("", "v1", "namespaces")
}

/// Goes on with the deletion of every namespace that is being deleted.
pub(crate) async fn finish_all(state: &State) {
    let Some(def) = def(state) else { return };
    for namespace in state.feed.snapshot(def, &def.prefix()).0 {
        if !is_deleting(&namespace.head) {
            continue;
        }
        let name = meta(&namespace.head, "name");
        if let Err(error) = finish(state, def, name).await {
            tracing::warn!(namespace = name, message = %error.message, "the deletion of a namespace is tried again later");
        }
    }
}

async fn finish(state: &State, def: &Arc<ResourceDef>, name: &str) -> ApiResult<()> {
    let Some(current) = state.newest(def, "", name).await? else { return Ok(()) };
    if !is_deleting(&current.value) {
        return Ok(());
    }
    let (mut left, mut refused) = (0, Vec::new());
    for kind in state.registry.stored().filter(|kind| kind.namespaced) {
        // Read from the store: an object that the caches do not show yet must not be left behind.
        let page = state.store.list(&format!("{}{name}/", kind.prefix()), None, 0, None).await?;
        for entry in &page.entries {
            left += 1;
            let object = state.decode(kind, entry)?;
            if is_deleting(&object.value) {
                continue;
            }
            if let Err(error) = empty(state, kind, &object).await {
                refused.push(error.message);
            }
        }
    }
    let mut new = current.value.clone();
    if left == 0 {
        new["spec"]["finalizers"] = json!([]);
    } else {
        set_condition(&mut new, &refused);
    }
    managed::by_server(def, "holdfast-namespaces", Endpoint::Status, &current.value, &mut new, now());
    // A lost race is repeated with the next change.
    save(state, def, &current, new, false).await.map(drop)
}

async fn empty(state: &State, kind: &Arc<ResourceDef>, object: &Object) -> ApiResult<()> {
    let options = DeleteOptions {
        dry_run: false,
        propagation: Some(Propagation::Background),
        uid: Some(meta(&object.value, "uid").to_owned()),
        revision: None,
    };
    let (namespace, name) = (meta(&object.value, "namespace"), meta(&object.value, "name"));
    match delete_object(state, kind, namespace, name, &options).await {
        Ok(_) => {
            tracing::info!(target: "audit", user = "system:namespace-controller", verb = "delete", object = %object.key);
            Ok(())
        }
        Err(error) if error.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Shows why the namespace stays; nothing changes while the reasons are the same.
fn set_condition(namespace: &mut Value, refused: &[String]) {
    let message = refused.join("; ");
    let status = if refused.is_empty() { "False" } else { "True" };
    let old = namespace.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let same = |c: &Value| c["type"] == BLOCKED && c["status"] == status && c["message"] == message.as_str();
    if old.iter().any(same) || (refused.is_empty() && old.is_empty()) {
        return;
    }
    namespace["status"]["conditions"] = json!([{
        "type": BLOCKED, "status": status, "message": message, "lastTransitionTime": rfc3339(now()),
        "reason": if refused.is_empty() { "ContentDeleted" } else { "ContentDeletionFailed" },
    }]);
}
