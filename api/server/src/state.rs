//! What all requests share: store, registry, caches; and reading through them with a stated freshness.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::{self as store, Store};
use serde_json::Value;
use tokio::sync::watch;

use crate::authz::{Facts, named_secrets};
use crate::error::{ApiError, ApiResult};
use crate::feed::Feed;
use crate::flow::Flow;
use crate::identity::Identity;
use crate::keys::Keys;
use crate::object::Object;
use crate::openapi::Documents;
use crate::query::Freshness;
use crate::rbac::{self, Rule};
use crate::registry::{Registry, ResourceDef};

/// How long a read waits for a resourceVersion that is not reached yet; the same as on a stock server.
const FUTURE_PATIENCE: Duration = Duration::from_secs(3);
/// How long the caches may lag behind a linearizable read before the store is asked directly.
const LAG_PATIENCE: Duration = Duration::from_secs(1);

/// The shared state.
pub(crate) struct State {
    /// Where objects live.
    pub(crate) store: Arc<dyn Store>,
    /// The keys of the store.
    pub(crate) keys: Keys,
    /// Longest life of an agent's certificate.
    pub(crate) agent_life: Duration,
    /// What is served.
    pub(crate) registry: Registry,
    /// What describes it.
    pub(crate) openapi: Documents,
    /// The caches.
    pub(crate) feed: Feed,
    /// Who asks how much.
    pub(crate) flow: Flow,
    /// Becomes true when streams should end.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Where a read may be answered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// From memory, which is as fresh as asked.
    Memory,
    /// From memory, which may be stale; the warning says why.
    Stale(String),
    /// From the store.
    Store,
}

impl State {
    /// What was applied, and then the newest revision: never less, unless the store was restored from a backup.
    async fn newest_revision(&self) -> store::Result<(store::Revision, store::Revision)> {
        let applied = self.feed.applied();
        Ok((applied, self.store.revision().await?))
    }

    /// Decides where a read of this freshness is answered from, waiting for the caches if needed.
    pub(crate) async fn source(&self, freshness: Freshness) -> ApiResult<Source> {
        match freshness {
            Freshness::Any if self.feed.applied() > 0 => Ok(Source::Memory),
            Freshness::Any | Freshness::Newest => match self.newest_revision().await {
                // The store has gone back, and the caches have not noticed yet.
                Ok((before, revision)) if revision < before => Ok(Source::Store),
                Ok((_, revision)) if self.feed.reached(revision, LAG_PATIENCE).await => Ok(Source::Memory),
                Ok(_) => Ok(Source::Store),
                Err(store::Error::Unavailable(why)) if self.feed.applied() > 0 => Ok(Source::Stale(format!(
                    "the store is not available ({why}); this is the state of revision {}",
                    self.feed.applied()
                ))),
                Err(error) => Err(error.into()),
            },
            Freshness::AtLeast(revision) => {
                if self.feed.reached(revision, FUTURE_PATIENCE).await {
                    return Ok(Source::Memory);
                }
                let current = self.store.revision().await?;
                if current < revision { Err(ApiError::future_revision(revision, current)) } else { Ok(Source::Store) }
            }
            Freshness::Exact(_) => Ok(Source::Store),
        }
    }

    /// The stored form of one object as new as asked, and a warning if it may be stale.
    pub(crate) async fn read(
        &self,
        def: &ResourceDef,
        namespace: &str,
        name: &str,
        freshness: Freshness,
    ) -> ApiResult<(Option<Arc<Object>>, Option<String>)> {
        let key = def.key(namespace, name);
        let cached = || self.feed.cache(def).and_then(|cache| cache.get(&key));
        if freshness != Freshness::Newest && self.source(freshness).await? == Source::Memory {
            return Ok((cached(), None));
        }
        match self.newest(def, namespace, name).await {
            Ok(object) => Ok((object.map(Arc::new), None)),
            Err(error) if error.code == 503 && self.feed.applied() > 0 => {
                let warning = format!("{}; this is the state of revision {}", error.message, self.feed.applied());
                Ok((cached(), Some(warning)))
            }
            Err(error) => Err(error),
        }
    }

    /// The stored form of one object by a linearizable read: what writes start from.
    pub(crate) async fn newest(&self, def: &ResourceDef, namespace: &str, name: &str) -> ApiResult<Option<Object>> {
        let (entry, _) = self.store.get(&def.key(namespace, name)).await?;
        entry.map(|entry| self.decode(def, &entry)).transpose()
    }

    /// Decodes an entry with the schema of the stored form.
    pub(crate) fn decode(&self, def: &ResourceDef, entry: &store::Entry) -> ApiResult<Object> {
        Object::decode(self.stored_def(def), entry).map_err(ApiError::internal)
    }

    /// The definition of the stored form: for a view that of the kind that it shows.
    pub(crate) fn stored_def<'a>(&'a self, def: &'a ResourceDef) -> &'a ResourceDef {
        self.registry.stored().find(|other| other.prefix() == def.prefix()).map_or(def, |other| other)
    }

    /// All objects of a kind (in the stored form), as new as the newest; for decisions over several objects.
    pub(crate) async fn all(&self, def: &ResourceDef) -> ApiResult<Vec<Arc<Object>>> {
        match self.source(Freshness::Newest).await? {
            Source::Memory => Ok(self.feed.snapshot(def, &def.prefix()).0),
            Source::Stale(why) => Err(ApiError::unavailable(why)),
            Source::Store => {
                let page = self.store.list(&def.prefix(), None, 0, None).await?;
                page.entries.iter().map(|entry| self.decode(def, entry).map(Arc::new)).collect()
            }
        }
    }

    /// An object of our kinds as the caches show it.
    pub(crate) fn cached(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let def = self.registry.find_kind(holdfast_api::API_VERSION, kind)?;
        self.feed.cache(def)?.get(&def.key(namespace, name))
    }
}

impl State {
    fn cached_all(&self, plural: &str, namespace: &str) -> Vec<Arc<Object>> {
        let Some(def) = self.registry.find(rbac::GROUP, "v1", plural) else { return Vec::new() };
        let prefix = if def.namespaced { format!("{}{namespace}/", def.prefix()) } else { def.prefix() };
        self.feed.snapshot(def, &prefix).0
    }

    /// The rules of the role that a binding in this namespace refers to; none if there is no such role.
    pub(crate) fn role(&self, namespace: &str, reference: &Value) -> Option<Vec<Rule>> {
        let plural = if reference["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
        let def = self.registry.find(rbac::GROUP, "v1", plural)?;
        let role = self.feed.cache(def)?.get(&def.key(namespace, reference["name"].as_str()?))?;
        Some(Rule::all_of(&role.value))
    }
}

impl Facts for State {
    fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let mut bindings = self.cached_all("clusterrolebindings", "");
        if !namespace.is_empty() {
            bindings.extend(self.cached_all("rolebindings", namespace));
        }
        let mine = bindings.iter().filter(|binding| rbac::binds(&binding.value, identity));
        mine.filter_map(|binding| self.role(namespace, &binding.value["roleRef"])).flatten().collect()
    }

    fn secrets(&self, namespace: &str, sub_cluster: &str) -> BTreeSet<String> {
        let object = self.cached("SubCluster", namespace, sub_cluster);
        let mut names = object.map(|object| named_secrets(sub_cluster, &object.value["spec"])).unwrap_or_default();
        let groups = self.registry.find_kind(holdfast_api::API_VERSION, "FailoverGroup");
        for group in groups.map(|def| self.feed.snapshot(def, &def.prefix()).0).into_iter().flatten() {
            let ours = crate::object::meta(&group.value, "namespace") == namespace
                && group.value["spec"]["subCluster"] == sub_cluster;
            if ours && let Ok(spec) = serde_json::from_value(group.value["spec"].clone()) {
                names.extend(holdfast_api::references::of_group(&spec).secrets);
            }
        }
        names
    }

    fn sub_cluster_of(&self, namespace: &str, group: &str) -> Option<String> {
        let object = self.cached("FailoverGroup", namespace, group)?;
        object.value.pointer("/spec/subCluster")?.as_str().map(str::to_owned)
    }

    fn lock_of(&self, namespace: &str, sub_cluster: &str) -> Option<(String, String)> {
        let object = self.cached("SubCluster", namespace, sub_cluster)?;
        let lease = object.value.pointer("/spec/quorum/quorumServer/lease")?;
        Some((lease["namespace"].as_str()?.to_owned(), lease["name"].as_str()?.to_owned()))
    }
}
