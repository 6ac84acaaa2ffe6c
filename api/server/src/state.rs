//! What all requests share: store, registry, caches; and reading through them with a stated freshness.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::{self as store, MAX_EXPECTED_BYTES, Store};
use serde_json::Value;
use tokio::sync::watch;

use crate::authz::{Facts, named_secrets};
use crate::error::{ApiError, ApiResult};
use crate::feed::Feed;
use crate::flow::Flow;
use crate::identity::Identity;
use crate::kept::Kept;
use crate::keys::Keys;
use crate::metrics::Measured;
use crate::object::Object;
use crate::openapi::Documents;
use crate::probe::Probe;
use crate::query::Freshness;
use crate::rbac::{self, Rule};
use crate::registry::{Registry, ResourceDef};
use crate::sealed;

/// How long a read waits for a resourceVersion that is not reached yet; the same as on a stock server.
const FUTURE_PATIENCE: Duration = Duration::from_secs(3);
/// How long the caches may lag behind a linearizable read before the store is asked directly.
const LAG_PATIENCE: Duration = Duration::from_secs(1);

/// The field of a group that names its sub-cluster; one of its selectable fields.
const SUB_CLUSTER: &str = "spec.subCluster";

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
    /// Which revision is the newest.
    pub(crate) probe: Probe,
    /// Who asks how much.
    pub(crate) flow: Flow,
    /// What is counted.
    pub(crate) measured: Measured,
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
        Ok((applied, self.probe.revision(&*self.store).await?))
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
    ) -> ApiResult<(Option<Arc<Kept>>, Option<String>)> {
        let key = def.key(namespace, name);
        let cached = || self.feed.cache(def).and_then(|cache| cache.get(&key));
        let source = self.source(freshness).await?;
        if source == Source::Memory
            && let Some(object) = cached()
        {
            return Ok((Some(object), None));
        }
        match source {
            Source::Stale(warning) => Ok((cached(), Some(warning))),
            // What the caches could not read is not in them, and there all the same.
            Source::Memory | Source::Store => {
                let object = self.newest(def, namespace, name).await?;
                Ok((object.map(|object| Arc::new(Kept::of(self.stored_def(def), &object))), None))
            }
        }
    }

    /// The stored form of one object by a linearizable read: what writes start from.
    pub(crate) async fn newest(&self, def: &ResourceDef, namespace: &str, name: &str) -> ApiResult<Option<Object>> {
        let (entry, _) = self.store.get(&def.key(namespace, name)).await?;
        entry.map(|entry| self.decode(def, &entry)).transpose()
    }

    /// The stored form of one object from memory, for a write that compares it with what the store holds.
    pub(crate) fn remembered(&self, def: &ResourceDef, namespace: &str, name: &str) -> Option<Object> {
        let kept = self.feed.cache(def)?.get(&def.key(namespace, name))?;
        // A sealed value can't be compared with, and a large one costs more than it saves.
        let fits = !kept.key.starts_with(sealed::PREFIX) && kept.json.len() <= MAX_EXPECTED_BYTES;
        let object =
            || Object { key: kept.key.clone(), revision: kept.revision, value: kept.value(), remembered: true };
        (fits && self.feed.lost().is_none()).then(object)
    }

    /// Decodes an entry with the schema of the stored form.
    pub(crate) fn decode(&self, def: &ResourceDef, entry: &store::Entry) -> ApiResult<Object> {
        Object::decode(self.stored_def(def), entry).map_err(ApiError::internal)
    }

    /// As [`State::decode`], in the form of the caches.
    pub(crate) fn keep(&self, def: &ResourceDef, entry: &store::Entry) -> ApiResult<Arc<Kept>> {
        Kept::decode(self.stored_def(def), entry).map(Arc::new).map_err(ApiError::internal)
    }

    /// The definition of the stored form: for a view that of the kind that it shows.
    pub(crate) fn stored_def<'a>(&'a self, def: &'a ResourceDef) -> &'a ResourceDef {
        self.registry.stored().find(|other| other.prefix() == def.prefix()).map_or(def, |other| other)
    }

    /// All objects of a kind (in the stored form), as new as the newest; for decisions over several objects.
    pub(crate) async fn all(&self, def: &ResourceDef) -> ApiResult<Vec<Arc<Kept>>> {
        match self.source(Freshness::Newest).await? {
            Source::Memory => Ok(self.feed.snapshot(def, &def.prefix()).0),
            Source::Stale(why) => Err(ApiError::unavailable(why)),
            Source::Store => {
                let page = self.store.list(&def.prefix(), None, 0, None).await?;
                page.entries.iter().map(|entry| self.keep(def, entry)).collect()
            }
        }
    }

    /// An object of our kinds as the caches show it, with its definition.
    pub(crate) fn cached(&self, kind: &str, namespace: &str, name: &str) -> Option<(&Arc<ResourceDef>, Arc<Kept>)> {
        let def = self.registry.find_kind(holdfast_api::API_VERSION, kind)?;
        Some((def, self.feed.cache(def)?.get(&def.key(namespace, name))?))
    }
}

impl State {
    fn cached_all(&self, plural: &str, namespace: &str) -> Vec<Arc<Kept>> {
        let Some(def) = self.registry.find(rbac::GROUP, "v1", plural) else { return Vec::new() };
        let prefix = if def.namespaced { format!("{}{namespace}/", def.prefix()) } else { def.prefix() };
        self.feed.snapshot(def, &prefix).0
    }

    /// The rules of the role that a binding in this namespace refers to; none if there is no such role.
    pub(crate) fn role(&self, namespace: &str, reference: &Value) -> Option<Vec<Rule>> {
        let plural = if reference["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
        let def = self.registry.find(rbac::GROUP, "v1", plural)?;
        let role = self.feed.cache(def)?.get(&def.key(namespace, reference["name"].as_str()?))?;
        Some(Rule::all_of(role.tree()))
    }
}

impl Facts for State {
    fn rules(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let mut bindings = self.cached_all("clusterrolebindings", "");
        if !namespace.is_empty() {
            bindings.extend(self.cached_all("rolebindings", namespace));
        }
        let mine = bindings.iter().filter(|binding| rbac::binds(binding.tree(), identity));
        mine.filter_map(|binding| self.role(namespace, &binding.tree()["roleRef"])).flatten().collect()
    }

    fn secrets(&self, namespace: &str, sub_cluster: &str) -> BTreeSet<String> {
        let object = self.cached("SubCluster", namespace, sub_cluster);
        let spec = object.map(|(_, object)| object.value()["spec"].take());
        let mut names = spec.map(|spec| named_secrets(sub_cluster, &spec)).unwrap_or_default();
        let Some(groups) = self.registry.find_kind(holdfast_api::API_VERSION, "FailoverGroup") else { return names };
        for group in self.feed.snapshot(groups, &groups.key(namespace, "")).0 {
            let ours = group.field(groups, SUB_CLUSTER) == sub_cluster;
            if ours && let Ok(spec) = serde_json::from_value(group.value()["spec"].take()) {
                names.extend(holdfast_api::references::of_group(&spec).secrets);
            }
        }
        names
    }

    fn sub_cluster_of(&self, namespace: &str, group: &str) -> Option<String> {
        let (def, group) = self.cached("FailoverGroup", namespace, group)?;
        Some(group.field(def, SUB_CLUSTER)).filter(|name| !name.is_empty())
    }

    fn lock_of(&self, namespace: &str, sub_cluster: &str) -> Option<(String, String)> {
        let object = self.cached("SubCluster", namespace, sub_cluster)?.1.value();
        let lease = object.pointer("/spec/quorum/quorumServer/lease")?;
        Some((lease["namespace"].as_str()?.to_owned(), lease["name"].as_str()?.to_owned()))
    }
}
