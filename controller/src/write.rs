//! Every write to an object that others write, too: read, change only what is ours, put back with the resourceVersion,
//! and begin again if somebody was faster. Nothing is sent when nothing would change, so that watching our own writes
//! comes to rest.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{Error, is_conflict, is_not_found};

/// Parameters of our writes: they name who writes.
pub(crate) fn post() -> PostParams {
    PostParams { field_manager: Some(crate::NAME.into()), ..PostParams::default() }
}

/// Parameters of our patches.
pub(crate) fn patch() -> PatchParams {
    PatchParams { field_manager: Some(crate::NAME.into()), ..PatchParams::default() }
}

/// Attempts for one write before it is left to the next reconciliation.
pub(crate) const TRIES: usize = 5;

/// Applies `change` to the status of `seen`, a possibly old copy, and writes it if that changes anything. Returns the
/// object as it is now; none if it is gone or another object has its name.
pub(crate) async fn status<K>(api: &Api<K>, seen: &K, change: impl Fn(&mut K)) -> Result<Written<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + PartialEq + Serialize + DeserializeOwned,
{
    let name = seen.name_any();
    let what = || format!("write the status of {} {}", K::kind(&()), full_name(seen));
    let mut base = seen.clone();
    for _ in 0..TRIES {
        let mut wanted = base.clone();
        change(&mut wanted);
        if wanted == base {
            return Ok(Written::Unchanged(base));
        }
        match api.replace_status(&name, &post(), &wanted).await {
            Ok(written) => return Ok(Written::Changed(written)),
            Err(error) if is_not_found(&error) => return Ok(Written::Gone),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(Error::api(what())(error)),
        }
        base = match api.get(&name).await {
            Ok(fresh) if fresh.uid() == seen.uid() => fresh,
            Ok(_) => return Ok(Written::Gone),
            Err(error) if is_not_found(&error) => return Ok(Written::Gone),
            Err(error) => return Err(Error::api(what())(error)),
        };
    }
    Err(Error::Contended(what()))
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written<K> {
    /// The object says so now.
    Changed(K),
    /// It already said so.
    Unchanged(K),
    /// There is no such object any more.
    Gone,
}

impl<K> Written<K> {
    /// Whether this write changed the object.
    pub(crate) fn changed(&self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

/// Adds the finalizer if it is missing and the object is not being deleted.
pub(crate) async fn add_finalizer<K>(api: &Api<K>, seen: &K, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if seen.meta().deletion_timestamp.is_some() || seen.finalizers().iter().any(|f| f == finalizer) {
        return Ok(());
    }
    let mut finalizers = seen.finalizers().to_vec();
    finalizers.push(finalizer.to_string());
    finalize(api, seen, &finalizers).await
}

/// Takes the finalizer away, so that the object may go.
pub(crate) async fn drop_finalizer<K>(api: &Api<K>, seen: &K, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if !seen.finalizers().iter().any(|f| f == finalizer) {
        return Ok(());
    }
    let finalizers: Vec<String> = seen.finalizers().iter().filter(|f| *f != finalizer).cloned().collect();
    finalize(api, seen, &finalizers).await
}

/// Replaces the list as a whole, which is safe only with the resourceVersion that it was read at. A conflict needs nothing:
/// the change that caused it brings the next reconciliation.
async fn finalize<K>(api: &Api<K>, seen: &K, finalizers: &[String]) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({"metadata": {
        "uid": seen.uid(), "resourceVersion": seen.resource_version(), "finalizers": finalizers,
    }});
    match api.patch(&seen.name_any(), &self::patch(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => {
            let what = format!("write the finalizers of {} {}", K::kind(&()), full_name(seen));
            Err(Error::api(what)(error))
        }
    }
}

/// Namespace and name, as people write them.
pub(crate) fn full_name<K: Resource>(object: &K) -> String {
    match object.meta().namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
