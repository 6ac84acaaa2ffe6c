//! The collector: dependents of deleted owners, and the two finalizers that wait for dependents.
//!
//! [`plan`] is pure and looks at everything at once, as of one revision; the loop around it runs after every burst of
//! changes and checks each deletion against the store before doing it, since the caches may lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::error::ApiResult;
use crate::kept::Kept;
use crate::managed;
use crate::object::{finalizers, is_deleting, meta};
use crate::ops::delete::{FOREGROUND, ORPHAN, delete_object};
use crate::ops::now;
use crate::ops::update::save;
use crate::prepare::Endpoint;
use crate::query::{DeleteOptions, Propagation};
use crate::registry::{Registry, ResourceDef};
use crate::state::State;

/// Changes within this time are looked at together.
const BURST: Duration = Duration::from_millis(100);
/// Failed work is tried again after this time even if nothing changes.
const RETRY: Duration = Duration::from_secs(10);

/// An object with its definition.
pub(crate) type Item = (Arc<ResourceDef>, Arc<Kept>);

/// What the collector does to one object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// All owners are gone or wait for it: delete.
    Delete(Propagation),
    /// Remove the owner references with these uids.
    Disown(Vec<String>),
    /// The wait is over: remove this finalizer.
    Release(&'static str),
}

fn owners(object: &Value) -> &[Value] {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn uid(owner: &Value) -> &str {
    owner["uid"].as_str().unwrap_or_default()
}

/// What has to be done; the index is that of the item.
pub(crate) fn plan(items: &[Item], registry: &Registry) -> Vec<(usize, Action)> {
    if !items.iter().any(|(_, object)| object.bound) {
        return Vec::new();
    }
    let by_uid: BTreeMap<&str, &Item> = items.iter().map(|item| (meta(&item.1.head, "uid"), item)).collect();
    let mut dependents: BTreeMap<&str, Vec<(usize, &Value)>> = BTreeMap::new();
    for (index, (_, object)) in items.iter().enumerate().filter(|(_, (_, object))| object.bound) {
        for owner in owners(&object.head) {
            dependents.entry(uid(owner)).or_default().push((index, owner));
        }
    }
    let mut actions = Vec::new();
    for (index, (def, object)) in items.iter().enumerate().filter(|(_, (_, object))| object.bound) {
        let value = &object.head;
        let own = meta(value, "uid");
        let has_dependents = dependents.contains_key(own);
        if !owners(value).is_empty() && !is_deleting(value) {
            let (mut lost, mut waiting, mut solid) = (Vec::new(), Vec::new(), 0);
            for owner in owners(value) {
                match state_of(owner, value, &by_uid, registry) {
                    Owner::Solid => solid += 1,
                    Owner::Lost => lost.push(uid(owner).to_owned()),
                    Owner::Waiting => waiting.push(uid(owner).to_owned()),
                }
            }
            let gone: Vec<String> = [lost, waiting.clone()].concat();
            if solid == 0 {
                let first = !waiting.is_empty() && has_dependents;
                actions.push((
                    index,
                    Action::Delete(if first { Propagation::Foreground } else { Propagation::Background }),
                ));
            } else if !gone.is_empty() {
                actions.push((index, Action::Disown(gone)));
            }
        }
        if is_deleting(value) {
            let held = finalizers(value);
            let waiting_for = dependents.get(own).map_or(&[][..], Vec::as_slice);
            if held.contains(&ORPHAN) {
                for (dependent, _) in waiting_for {
                    actions.push((*dependent, Action::Disown(vec![own.to_owned()])));
                }
                if waiting_for.is_empty() {
                    actions.push((index, Action::Release(ORPHAN)));
                }
            }
            let blocked = waiting_for.iter().any(|(_, owner)| owner["blockOwnerDeletion"] == true);
            if held.contains(&FOREGROUND) && !blocked {
                actions.push((index, Action::Release(FOREGROUND)));
            }
        }
        debug_assert!(def.ttl.is_none(), "objects that vanish by themselves are left out");
    }
    actions
}

enum Owner {
    Solid,
    Lost,
    Waiting,
}

fn state_of(owner: &Value, dependent: &Value, by_uid: &BTreeMap<&str, &Item>, registry: &Registry) -> Owner {
    let Some(def) = owner_def(owner, registry) else { return Owner::Solid };
    match by_uid.get(uid(owner)) {
        Some((_, found)) if def.namespaced && meta(&found.head, "namespace") != meta(dependent, "namespace") => {
            Owner::Lost
        }
        Some((_, found)) if is_deleting(&found.head) && finalizers(&found.head).contains(&FOREGROUND) => Owner::Waiting,
        // It is about to let its dependents go; they must not be collected meanwhile.
        Some(_) => Owner::Solid,
        None => Owner::Lost,
    }
}

/// The kind of an owner; owners of kinds that are not served here are never taken for gone.
fn owner_def<'a>(owner: &Value, registry: &'a Registry) -> Option<&'a Arc<ResourceDef>> {
    registry.find_kind(owner["apiVersion"].as_str()?, owner["kind"].as_str()?)
}

/// Collects for ever.
pub(crate) async fn run(state: Arc<State>) {
    let mut applied = state.feed.subscribe();
    loop {
        if tokio::time::timeout(RETRY, applied.changed()).await.is_ok() {
            tokio::time::sleep(BURST).await;
            applied.mark_unchanged();
        }
        if state.feed.applied() == 0 || state.feed.lost().is_some() {
            continue;
        }
        let Some(everything) = state.feed.everything() else {
            applied.mark_changed();
            continue;
        };
        let items: Vec<Item> = everything.into_iter().filter(|(def, _)| def.ttl.is_none()).collect();
        for (index, action) in plan(&items, &state.registry) {
            let (def, object) = &items[index];
            if let Err(error) = act(&state, def, object, &action).await {
                tracing::warn!(object = %object.key, ?action, message = %error.message, "the collector tries again later");
            }
        }
        crate::namespaces::finish_all(&state).await;
        crate::service_accounts::ensure_all(&state).await;
    }
}

async fn act(state: &State, def: &Arc<ResourceDef>, object: &Kept, action: &Action) -> ApiResult<()> {
    let (namespace, name) = (meta(&object.head, "namespace"), meta(&object.head, "name"));
    let Some(current) = state.newest(def, namespace, name).await? else { return Ok(()) };
    if meta(&current.value, "uid") != meta(&object.head, "uid") {
        return Ok(());
    }
    let mut new = current.value.clone();
    match action {
        Action::Delete(propagation) => {
            if any_owner_lives(state, &current.value).await? {
                return Ok(());
            }
            let options = DeleteOptions {
                dry_run: false,
                propagation: Some(*propagation),
                uid: Some(meta(&current.value, "uid").to_owned()),
                revision: Some(meta(&current.value, "resourceVersion").to_owned()),
            };
            tracing::info!(target: "audit", user = "system:collector", verb = "delete", object = %current.key);
            return delete_object(state, def, namespace, name, &options).await.map(drop);
        }
        Action::Disown(uids) => remove(&mut new, "ownerReferences", |owner| uids.iter().any(|u| u == uid(owner))),
        Action::Release(finalizer) => remove(&mut new, "finalizers", |f| f == finalizer),
    }
    managed::by_server(def, "holdfast-collector", Endpoint::Main, &current.value, &mut new, now());
    // A lost race is repeated: the other write is a change, and every change starts a new round.
    save(state, def, &current, new, false).await.map(drop)
}

fn remove(object: &mut Value, field: &str, unwanted: impl Fn(&Value) -> bool) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    if let Some(Value::Array(list)) = metadata.get_mut(field) {
        list.retain(|item| !unwanted(item));
        if list.is_empty() {
            metadata.remove(field);
        }
    }
}

/// Asks the store itself whether an owner exists that does not wait for this dependent.
async fn any_owner_lives(state: &State, dependent: &Value) -> ApiResult<bool> {
    for owner in owners(dependent) {
        let Some(def) = owner_def(owner, &state.registry) else { return Ok(true) };
        let namespace = if def.namespaced { meta(dependent, "namespace") } else { "" };
        let found = state.newest(def, namespace, owner["name"].as_str().unwrap_or_default()).await?;
        let lives = found.is_some_and(|found| {
            meta(&found.value, "uid") == uid(owner)
                && !(is_deleting(&found.value) && finalizers(&found.value).contains(&FOREGROUND))
        });
        if lives {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;

    fn item(registry: &Registry, name: &str, owner: Option<&str>, deleting_with: Option<&str>) -> Item {
        let mut value = json!({"metadata": {"name": name, "namespace": "ha", "uid": format!("uid-{name}")}});
        if let Some(owner) = owner {
            value["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": format!("uid-{owner}"),
                "blockOwnerDeletion": true
            }]);
        }
        if let Some(finalizer) = deleting_with {
            value["metadata"]["deletionTimestamp"] = "2026-03-02T01:00:00Z".into();
            value["metadata"]["finalizers"] = json!([finalizer]);
        }
        let def = registry.find("", "v1", "configmaps").expect("built in");
        (Arc::clone(def), Arc::new(Kept::of(def, &Object { key: name.into(), revision: 1, value, remembered: false })))
    }

    #[test]
    fn dependents_follow_their_owners() {
        let registry = Registry::new(&[]).expect("built-ins");
        let plan = |items: &[Item]| super::plan(items, &registry);
        let item = |name, owner, with| item(&registry, name, owner, with);
        assert_eq!(plan(&[item("a", None, None), item("b", Some("a"), None)]), []);
        assert_eq!(plan(&[item("b", Some("a"), None)]), [(0, Action::Delete(Propagation::Background))]);
        assert_eq!(
            plan(&[item("a", None, Some(FOREGROUND)), item("b", Some("a"), None)]),
            [(1, Action::Delete(Propagation::Background))],
            "the dependent goes first and holds the owner meanwhile"
        );
        assert_eq!(plan(&[item("a", None, Some(FOREGROUND))]), [(0, Action::Release(FOREGROUND))]);
        assert_eq!(
            plan(&[item("a", None, Some(ORPHAN)), item("b", Some("a"), None)]),
            [(1, Action::Disown(vec!["uid-a".into()]))]
        );
        assert_eq!(plan(&[item("a", None, Some(ORPHAN))]), [(0, Action::Release(ORPHAN))]);
        let (def, b) = item("b", Some("a"), None);
        let mut pod = Object { key: b.key.clone(), revision: b.revision, value: b.value(), remembered: false };
        pod.value["metadata"]["ownerReferences"][0]["kind"] = "Pod".into();
        let foreign = Arc::new(Kept::of(&def, &pod));
        assert_eq!(plan(&[(def, foreign)]), [], "owners of kinds that are not served are not taken for gone");
    }
}
