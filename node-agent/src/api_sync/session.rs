//! One connection to the API: watches in, reports out, until something fails.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use holdfast_api::v1::{DataService, FailoverGroup, Operation, SubCluster};
use holdfast_core::Input;
use holdfast_core::orders::Order;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::report::Reporter;
use super::{ApiError, Found, Sources, events, within};
use crate::config::AgentConfig;
use crate::convert::config as convert;
use crate::executor::RunningGroup;
use crate::fencing::topology::secret_names;
use crate::given::Given;
use crate::guard_keeper::GuardKeeper;
use crate::inbox::{self, Inbox};
use crate::paths::keys::Keys;
use crate::paths::seal::Keyring;
use crate::resources::ocf::agents;
use crate::spec_cache::{SpecCache, quorum_secret_name};
use crate::{boot, clock, exec, look, programs, unusable};

/// Time between two complete reports.
const FULL: Duration = Duration::from_secs(60);
/// Time between two reports of changes in the long run.
const SOON: Duration = Duration::from_secs(1);
/// So many reports of changes may follow each other at once after a quiet time: a takeover is three of them.
const BURST: u32 = 3;

type Watch<K> = Pin<Box<dyn Stream<Item = Result<Event<K>, watcher::Error>> + Send>>;

/// Takes specifications: keeps them durably, then hands them to the driver loop.
pub struct Follower {
    config: AgentConfig,
    cache: SpecCache,
    keys: Keys,
    inbox: Inbox,
    /// Groups that ran before this process started, as they were started.
    running: Vec<RunningGroup>,
    /// Timeout of the watchdog that the guard holds, as it was read back.
    watchdog: watch::Receiver<Option<Duration>>,
    guard: GuardKeeper,
    /// What OCF agents of this server propose.
    agents: agents::Known,
    /// Programs that resources run.
    programs: watch::Sender<BTreeSet<String>>,
    /// Resources that OCF agents are to carry out.
    ocf: watch::Sender<BTreeSet<unusable::Wanted>>,
    /// Groups that the API has; unknown before it was asked.
    present: Option<BTreeSet<String>>,
    /// Orders that were handed on.
    orders: BTreeSet<Order>,
    /// Commands that operators want run here.
    exec: watch::Sender<exec::Jobs>,
    /// Said already.
    refused: BTreeMap<String, String>,
}

impl Follower {
    /// A follower over an opened cache.
    pub fn new(
        config: AgentConfig,
        cache: SpecCache,
        keys: Keys,
        inbox: Inbox,
        running: Vec<RunningGroup>,
        watchdog: watch::Receiver<Option<Duration>>,
        guard: GuardKeeper,
    ) -> Follower {
        let (orders, refused) = (BTreeSet::new(), BTreeMap::new());
        let agents = agents::Known::default();
        let programs = watch::Sender::new(programs::wanted(cache.specs()));
        let ocf = watch::Sender::new(unusable::wanted(cache.specs(), &config.server));
        Follower {
            config,
            cache,
            keys,
            inbox,
            running,
            watchdog,
            guard,
            agents,
            programs,
            ocf,
            present: None,
            exec: watch::Sender::new(None),
            orders,
            refused,
        }
    }

    /// Looks at what groups need on this server, whenever they need something else, and runs what operators want run.
    pub(super) fn look(&self, place: exec::Place, given: &Given) -> Found {
        let (programs, ocf) = (self.programs.subscribe(), self.ocf.subscribe());
        let exec = exec::follow(self.exec.subscribe(), place);
        Found {
            programs: programs::follow(programs),
            unusable: unusable::follow(ocf),
            exec,
            commands: given.subscribe(),
        }
    }

    fn knows_sub_cluster(&self) -> bool {
        self.cache.specs().sub_cluster.is_some()
    }

    /// Groups that the API has; before it was asked, those that are held here.
    pub fn present(&self) -> BTreeSet<String> {
        self.present.clone().unwrap_or_else(|| self.cache.specs().groups.keys().map(|name| name.0.clone()).collect())
    }

    /// The Secret with the keys; none before the sub-cluster is known.
    fn key_secret(&self) -> Option<String> {
        let sub_cluster = self.cache.specs().sub_cluster.as_ref()?;
        Some(sub_cluster.spec.key_secret(&self.config.sub_cluster))
    }

    /// The Secret with the credentials for the quorum server, if it needs one.
    fn quorum_secret(&self) -> Option<String> {
        quorum_secret_name(&self.cache.specs().sub_cluster.as_ref()?.spec)
    }

    /// Puts the keys of the cache into force.
    pub fn adopt_keys(&mut self) {
        let data = &self.cache.specs().keys;
        if data.is_empty() {
            return;
        }
        let made = boot::random_id().map_err(|e| e.to_string()).and_then(|process| {
            Keyring::new(&self.config.namespace, &self.config.sub_cluster, data, process).map_err(|e| e.to_string())
        });
        match made {
            Ok(ring) => {
                self.keys.replace(ring, clock::now());
                self.inbox.deliver(inbox::Event::Refresh);
                self.said("keys", None);
            }
            Err(e) => self.said("keys", Some(format!("the heartbeat keys can't be used: {e}"))),
        }
    }

    /// Hands what the cache holds to the driver loop. What can't be acted on is said once and leaves what is in force.
    pub fn adopt(&mut self) {
        if !self.knows_sub_cluster() {
            return;
        }
        let specs = self.cache.specs();
        self.programs.send_if_modified(|before| look::renew(before, programs::wanted(specs)));
        self.ocf.send_if_modified(|before| look::renew(before, unusable::wanted(specs, &self.config.server)));
        // The guard first: the times depend on the watchdog that it can arm.
        let watchdog = self.cache.specs().sub_cluster.clone().and_then(|spec| self.guard.configure(&spec));
        let me = self.config.server_name();
        let mut specs = self.cache.specs().clone();
        for group in specs.groups.values_mut() {
            if let Some(with_times) = self.agents.with_proposed_times(group) {
                *group = Arc::new(with_times);
            }
        }
        let made = convert::adoption(&specs, &me, watchdog, &self.running, &self.config.credentials);
        match made {
            Ok((adoption, left_out)) => {
                self.said("sub-cluster", None);
                for (group, reason) in left_out {
                    self.said(&group.0, Some(format!("group {group} is not acted on: {reason}")));
                }
                self.inbox.deliver(inbox::Event::Adopt(Box::new(adoption)));
            }
            Err(reason) => self.said("sub-cluster", Some(reason)),
        }
    }

    /// Hands on what operators order about servers. Nothing of it is kept: an order is for one view only, and what it led
    /// to stands in the next one.
    fn take_requests(&mut self, object: &SubCluster) {
        let requests = object.status.iter().flat_map(|status| &status.requests);
        let orders: BTreeSet<Order> = requests.filter_map(convert::order).collect();
        if orders != self.orders {
            self.orders.clone_from(&orders);
            self.inbox.deliver(inbox::Event::Input(Input::Orders(orders)));
        }
    }

    /// Looks what Operations want run here. What is known is not read again: an Operation can't be changed, and one that is
    /// cancelled is no longer asked for.
    async fn take_exec(&mut self, object: &SubCluster, operations: &Api<Operation>) -> Result<(), ApiError> {
        let enabled = self.cache.specs().sub_cluster.as_ref().is_some_and(|accepted| accepted.spec.exec.enabled);
        let known = self.exec.borrow().clone().unwrap_or_default();
        let mut jobs = BTreeMap::new();
        for asked in object.status.iter().flat_map(|status| &status.exec).filter(|_| enabled) {
            let uid = &asked.uid;
            if uid.is_empty() || !uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
                continue; // it becomes the name of a file
            }
            if let Some(job) = known.get(uid) {
                jobs.insert(uid.clone(), job.clone());
                continue;
            }
            let what = format!("Operation {}", asked.operation);
            let operation = match within(&what, operations.get_opt(&asked.operation)).await {
                Err(error) if error.code().is_some() => {
                    self.said("exec", Some(format!("a command is not run: {error}")));
                    continue;
                }
                read => read?,
            };
            let me = &self.config.server;
            if let Some(job) = operation.and_then(|operation| exec::job(&operation, uid, object, me)) {
                jobs.insert(uid.clone(), job);
            }
        }
        self.exec.send_if_modified(|before| {
            let differs = before.as_ref() != Some(&jobs);
            *before = Some(jobs);
            differs
        });
        Ok(())
    }

    /// Why the newest sub-cluster or its keys can't be acted on, if so.
    fn problem(&self) -> Option<String> {
        let told: Vec<&str> =
            ["sub-cluster", "keys"].iter().filter_map(|about| Some(self.refused.get(*about)?.as_str())).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Logs each problem once, and again only when it changes.
    fn said(&mut self, about: &str, problem: Option<String>) {
        match problem {
            None => drop(self.refused.remove(about)),
            Some(problem) => {
                if self.refused.get(about) != Some(&problem) {
                    tracing::error!("{problem}");
                    self.refused.insert(about.to_owned(), problem);
                }
            }
        }
    }

    /// The Secrets that fence devices name.
    fn fence_secrets(&self) -> BTreeSet<String> {
        self.cache.specs().sub_cluster.as_ref().map(|object| secret_names(&object.spec)).unwrap_or_default()
    }

    /// The object of an event. One that can't be read is said, and ends nothing else: a group may name what the agent
    /// is not allowed to read yet, or any more, and the others go on. Whether the API is there, the other watches see.
    fn readable<K>(&mut self, event: Option<Result<Event<K>, watcher::Error>>, what: &'static str) -> Option<K> {
        match applied(event, what) {
            Ok(object) => {
                self.said(what, None);
                object
            }
            Err(error) => {
                self.said(what, Some(error.to_string()));
                None
            }
        }
    }

    fn take_fence_secret(&mut self, secret: &Secret) -> Result<(), ApiError> {
        let data: BTreeMap<String, Vec<u8>> =
            secret.data.iter().flatten().map(|(name, bytes)| (name.clone(), bytes.0.clone())).collect();
        let name = secret.metadata.name.clone().unwrap_or_default();
        if self.cache.take_secret(&name, &data)? {
            self.adopt();
        }
        Ok(())
    }

    fn take_secret(&mut self, secret: &Secret) -> Result<(), ApiError> {
        let data = entries(secret);
        // An emptied Secret takes no key away: without one the servers would not hear each other.
        if !data.is_empty() && self.cache.take_keys(&data)? {
            self.adopt_keys();
        }
        Ok(())
    }

    /// As with the keys: without credentials nobody could lean on the lock.
    fn take_quorum_secret(&mut self, secret: &Secret) -> Result<(), ApiError> {
        let data = entries(secret);
        let name = secret.metadata.name.clone().unwrap_or_default();
        if !data.is_empty() && self.cache.take_quorum_secret(&name, &data)? {
            self.adopt();
        }
        Ok(())
    }
}

fn entries(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(name, bytes)| (name.clone(), bytes.0.clone())).collect()
}

/// What the watch of groups has brought since it began anew.
#[derive(Default)]
struct Listing {
    names: BTreeSet<String>,
    complete: bool,
}

/// Runs until something fails (the error), or until the last report after the end was asked for (`Ok`).
pub(super) async fn run(
    client: Client,
    config: &AgentConfig,
    follower: &mut Follower,
    sources: &Sources,
    found: Found,
    renewed: &Notify,
) -> Result<(), ApiError> {
    let sub_clusters: Api<SubCluster> = Api::namespaced(client.clone(), &config.namespace);
    let groups: Api<FailoverGroup> = Api::namespaced(client.clone(), &config.namespace);
    let services: Api<DataService> = Api::namespaced(client.clone(), &config.namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &config.namespace);
    let operations: Api<Operation> = Api::namespaced(client.clone(), &config.namespace);
    let mut reporter = Reporter::new(client.clone(), config.clone(), sources.clone(), found.clone());
    let mut poster = events::Poster::new(client.clone(), config.clone(), sources.notes.clone());

    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut sub_cluster: Watch<SubCluster> = Box::pin(watcher::watcher(sub_clusters, named(&config.sub_cluster)));
    let of_ours = watcher::Config::default().fields(&format!("spec.subCluster={}", config.sub_cluster));
    let mut group: Watch<FailoverGroup> = Box::pin(watcher::watcher(groups, of_ours));
    let mut service: Watch<DataService> = Box::pin(watcher::watcher(services, watcher::Config::default()));
    let mut services_present = BTreeSet::new();
    let mut secret: Option<(String, Watch<Secret>)> = None;
    let mut quorum_secret: Option<(String, Watch<Secret>)> = None;

    // One watch per name: an agent may read no others.
    let mut fence_secrets: (BTreeSet<String>, SelectAll<Watch<Secret>>) = Default::default();

    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &config.namespace);
    let mut resource_secrets: (BTreeSet<String>, SelectAll<Watch<Secret>>) = Default::default();
    let mut texts: (BTreeSet<String>, SelectAll<Watch<ConfigMap>>) = Default::default();

    let mut listing = Listing::default();
    let mut snapshots = sources.snapshots.clone();
    let mut guard = sources.guard.clone();
    let mut watchdog = follower.watchdog.clone();
    let mut found = found;
    let (mut next_full, mut earliest, mut changed) = (Instant::now(), Instant::now(), true);
    let mut spent_until = Instant::now();
    loop {
        for (watched, wanted) in [(&mut secret, follower.key_secret()), (&mut quorum_secret, follower.quorum_secret())]
        {
            if watched.as_ref().map(|(name, _)| name) != wanted.as_ref() {
                *watched = wanted.map(|name| {
                    let stream: Watch<Secret> = Box::pin(watcher::watcher(secrets.clone(), named(&name)));
                    (name, stream)
                });
            }
        }
        let wanted = follower.fence_secrets();
        if fence_secrets.0 != wanted {
            let watches =
                wanted.iter().map(|name| -> Watch<Secret> { Box::pin(watcher::watcher(secrets.clone(), named(name))) });
            fence_secrets = (wanted.clone(), watches.collect());
        }
        let wanted = follower.cache.references();
        if resource_secrets.0 != wanted.secrets {
            let watch = |name: &String| patient(watcher::watcher(secrets.clone(), named(name)));
            resource_secrets = (wanted.secrets.clone(), wanted.secrets.iter().map(watch).collect());
        }
        if texts.0 != wanted.config_maps {
            let watch = |name: &String| patient(watcher::watcher(config_maps.clone(), named(name)));
            texts = (wanted.config_maps.clone(), wanted.config_maps.iter().map(watch).collect());
        }
        let report_at = if changed { earliest.min(next_full) } else { next_full };
        tokio::select! {
            event = sub_cluster.next() => {
                if let Some(object) = applied(event, "the sub-cluster")? {
                    let in_force = snapshots.borrow().as_ref().and_then(|s| s.status.view.as_ref()).map(|v| v.config_generation);
                    if follower.cache.take_sub_cluster(&object, in_force)? && listing.complete {
                        follower.adopt();
                    }
                    follower.take_requests(&object);
                    follower.take_exec(&object, &operations).await?;
                    poster.knows_sub_cluster(&object);
                    reporter.knows_sub_cluster(object);
                }
            }
            event = group.next() => follow_group(event, follower, &mut listing, &mut reporter, &mut poster)?,
            event = service.next() => {
                if follow_service(event, follower, &mut services_present)? && listing.complete {
                    follower.adopt();
                }
            }
            event = next_of(&mut secret) => {
                if let Some(object) = applied(event, "the heartbeat keys")? {
                    follower.take_secret(&object)?;
                }
            }
            event = next_of(&mut quorum_secret) => {
                if let Some(object) = applied(event, "the credentials for the quorum server")? {
                    follower.take_quorum_secret(&object)?;
                }
            }
            event = fence_secrets.1.next(), if !fence_secrets.1.is_empty() => {
                if let Some(object) = applied(event, "the Secrets of fence devices")? {
                    follower.take_fence_secret(&object)?;
                }
            }
            event = resource_secrets.1.next(), if !resource_secrets.1.is_empty() => {
                if let Some(object) = follower.readable(event, "the Secrets of resources and monitors") {
                    let name = object.metadata.name.clone().unwrap_or_default();
                    if follower.cache.take_resource_secret(&name, &entries(&object))? && listing.complete {
                        follower.adopt();
                    }
                }
            }
            event = texts.1.next(), if !texts.1.is_empty() => {
                if let Some(object) = follower.readable(event, "the ConfigMaps of scripts") {
                    let name = object.metadata.name.clone().unwrap_or_default();
                    if follower.cache.take_config_map(&name, &object.data.unwrap_or_default())? && listing.complete {
                        follower.adopt();
                    }
                }
            }
            result = watchdog.changed() => {
                if result.is_ok() {
                    follower.adopt();
                }
            }
            result = snapshots.changed(), if !changed => changed = result.is_ok(),
            result = guard.changed(), if !changed => changed = result.is_ok(),
            result = found.programs.changed(), if !changed => changed = result.is_ok(),
            result = found.unusable.changed(), if !changed => changed = result.is_ok(),
            result = found.exec.changed(), if !changed => changed = result.is_ok(),
            result = found.commands.changed(), if !changed => changed = result.is_ok(),
            () = tokio::time::sleep_until(report_at) => {
                let full = Instant::now() >= next_full;
                let wrote = reporter.report(&follower.present(), follower.problem().as_deref(), full).await?;
                let now = Instant::now();
                changed = false;
                snapshots.mark_unchanged();
                // Looked at often, written at most once a second in the long run.
                earliest = now + Duration::from_millis(100);
                if wrote {
                    spent_until = spent_until.max(now) + SOON;
                    earliest = earliest.max(spent_until - SOON * (BURST - 1));
                }
                if full {
                    next_full = now + FULL;
                }
            }
            () = sources.notes.wait() => poster.post().await?,
            () = renewed.notified() => return Err(ApiError::Renewed),
            () = sources.ending.notified() => {
                poster.post().await?;
                reporter.report(&follower.present(), follower.problem().as_deref(), true).await?;
                return Ok(());
            }
        }
    }
}

/// A watch that waits longer and longer between tries that fail.
fn patient<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
) -> Watch<K> {
    Box::pin(events.default_backoff())
}

/// The object of an event, if it brings one.
fn applied<K>(event: Option<Result<Event<K>, watcher::Error>>, what: &'static str) -> Result<Option<K>, ApiError> {
    match event.ok_or(ApiError::Ended(what))?.map_err(|source| ApiError::Watch { what, source })? {
        Event::Apply(object) | Event::InitApply(object) => Ok(Some(object)),
        // Absence is not deletion: what is in force stays in force.
        Event::Delete(_) | Event::Init | Event::InitDone => Ok(None),
    }
}

async fn next_of(secret: &mut Option<(String, Watch<Secret>)>) -> Option<Result<Event<Secret>, watcher::Error>> {
    match secret {
        Some((_, stream)) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Gives whether something changed.
fn follow_service(
    event: Option<Result<Event<DataService>, watcher::Error>>,
    follower: &mut Follower,
    present: &mut BTreeSet<String>,
) -> Result<bool, ApiError> {
    const WHAT: &str = "the data services";
    let name = |service: &DataService| service.metadata.name.clone().unwrap_or_default();
    let cache = &mut follower.cache;
    Ok(match event.ok_or(ApiError::Ended(WHAT))?.map_err(|source| ApiError::Watch { what: WHAT, source })? {
        Event::Init => {
            present.clear();
            false
        }
        Event::InitApply(service) | Event::Apply(service) => {
            present.insert(name(&service));
            cache.take_data_service(&service)?
        }
        Event::InitDone => cache.data_services_vanished(|name| present.contains(name))?,
        Event::Delete(service) => {
            present.remove(&name(&service));
            cache.data_services_vanished(|name| present.contains(name))?
        }
    })
}

fn follow_group(
    event: Option<Result<Event<FailoverGroup>, watcher::Error>>,
    follower: &mut Follower,
    listing: &mut Listing,
    reporter: &mut Reporter,
    poster: &mut events::Poster,
) -> Result<(), ApiError> {
    const WHAT: &str = "the groups";
    let name = |group: &FailoverGroup| group.metadata.name.clone().unwrap_or_default();
    let mut take = |follower: &mut Follower, group: FailoverGroup| -> Result<bool, ApiError> {
        if group.spec.sub_cluster != follower.config.sub_cluster {
            return Ok(false);
        }
        let changed = follower.cache.take_group(&group)?;
        poster.knows_group(&group);
        reporter.knows_group(group);
        Ok(changed)
    };
    match event.ok_or(ApiError::Ended(WHAT))?.map_err(|source| ApiError::Watch { what: WHAT, source })? {
        Event::Init => *listing = Listing::default(),
        Event::InitApply(group) => {
            listing.names.insert(name(&group));
            take(follower, group)?;
        }
        Event::InitDone => {
            listing.complete = true;
            follower.present = Some(listing.names.clone());
            follower.cache.vanished(|name| listing.names.contains(name))?;
            follower.adopt();
        }
        Event::Apply(group) => {
            listing.names.insert(name(&group));
            follower.present = Some(listing.names.clone());
            if take(follower, group)? {
                follower.adopt();
            }
        }
        Event::Delete(group) => {
            listing.names.remove(&name(&group));
            follower.present = Some(listing.names.clone());
            // The last state of the object says whether its deletion was admitted.
            let mut changed = take(follower, group)?;
            changed |= follower.cache.vanished(|name| listing.names.contains(name))?;
            if changed {
                follower.adopt();
            }
        }
    }
    Ok(())
}
