//! Writes status: of its own Server by every agent, of SubCluster and groups by the coordinator's agent only.
//!
//! Always change own fields of what was read last, and write with its version; on a conflict read, and again. A report that the schema
//! refuses as stale (an older epoch or revision than stands there) is not repeated: somebody newer has spoken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use holdfast_api::v1::{FailoverGroup, Server, SubCluster};
use holdfast_core::names::GroupName;
use holdfast_core::status::{ClusterPhase, MemberState};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ApiError, Found, Sources, within};
use crate::clock;
use crate::config::AgentConfig;
use crate::convert::server_status::Machine;
use crate::convert::{Wall, cluster_status, group_status, server_status};
use crate::driver_loop::Snapshot;

/// Attempts at one object before the others have their turn.
const ATTEMPTS: usize = 5;
/// All agents of a sub-cluster write as one manager (api.md §1).
const MANAGER: &str = "holdfast-subcluster";

/// Gives reports over one connection.
pub struct Reporter {
    servers: Api<Server>,
    sub_clusters: Api<SubCluster>,
    groups: Api<FailoverGroup>,
    config: AgentConfig,
    sources: Sources,
    found: Found,
    server: Option<Server>,
    sub_cluster: Option<SubCluster>,
    known: BTreeMap<String, FailoverGroup>,
    wall: Option<Wall>,
}

/// How an attempt to write ended.
enum Written<K> {
    /// It stands there; as it does now.
    Done(K),
    /// Nothing to say.
    Same,
    /// Refused or absent; said nothing.
    Not,
}

impl Reporter {
    pub(super) fn new(client: Client, config: AgentConfig, sources: Sources, found: Found) -> Reporter {
        Reporter {
            servers: Api::namespaced(client.clone(), &config.namespace),
            sub_clusters: Api::namespaced(client.clone(), &config.namespace),
            groups: Api::namespaced(client, &config.namespace),
            config,
            sources,
            found,
            server: None,
            sub_cluster: None,
            known: BTreeMap::new(),
            wall: None,
        }
    }

    pub(super) fn knows_sub_cluster(&mut self, object: SubCluster) {
        self.sub_cluster = Some(object);
    }

    pub(super) fn knows_group(&mut self, object: FailoverGroup) {
        self.known.insert(object.metadata.name.clone().unwrap_or_default(), object);
    }

    /// Writes what differs from what stands in the API; with `full` also measurements. Returns whether it wrote.
    /// `problem`: why the newest specification can't be acted on here, if it can't.
    pub(super) async fn report(
        &mut self,
        present: &BTreeSet<String>,
        problem: Option<&str>,
        full: bool,
    ) -> Result<bool, ApiError> {
        let Some(snapshot) = self.sources.snapshots.borrow().clone() else { return Ok(false) };
        let wall = self.wall();
        let mut wrote = self.report_server(&snapshot, problem, wall, full).await?;
        if snapshot.status.coordinator.is_some() {
            // Groups first: who waits for a takeover looks at them.
            wrote |= self.report_groups(&snapshot, wall).await?;
            wrote |= self.report_sub_cluster(&snapshot, Some(present), wall, full).await?;
        } else if speaks_without_coordinator(&snapshot, &self.config.server) {
            wrote |= self.report_sub_cluster(&snapshot, None, wall, full).await?;
        }
        wrote |= self.report_history(wall).await?;
        Ok(wrote)
    }

    /// The offset of the clocks, kept as long as the wall clock isn't set: reported times must not waver.
    fn wall(&mut self) -> Wall {
        let fresh = Wall::new(clock::now(), Timestamp::now());
        match self.wall {
            Some(wall) if (wall.zero.as_millisecond() - fresh.zero.as_millisecond()).abs() < 1000 => wall,
            _ => *self.wall.insert(fresh),
        }
    }

    async fn report_server(
        &mut self,
        snapshot: &Snapshot,
        problem: Option<&str>,
        wall: Wall,
        full: bool,
    ) -> Result<bool, ApiError> {
        let name = self.config.server_object();
        let guard = self.sources.guard.borrow().clone();
        let facts = self.sources.facts.clone();
        let (programs, unusable) = (self.found.programs.borrow().clone(), self.found.unusable.borrow().clone());
        let (exec, commands) = (self.found.exec.borrow().clone(), self.found.commands.borrow().clone());
        let (facts, guard, exec, commands) = (&facts, &guard, &exec, &commands);
        let machine = Machine { facts, guard, programs: &programs, unusable: &unusable, exec, commands, problem };
        let change = |object: &Server, force: bool| {
            let old = object.status.clone().unwrap_or_default();
            let generation = object.metadata.generation;
            let new = server_status::server_status(snapshot, machine, &old, generation, wall, Timestamp::now());
            let same = server_status::essence(&new) == server_status::essence(&old);
            (force || !same).then(|| Server { status: Some(new), ..object.clone() })
        };
        let written = write(&self.servers, &name, self.server.as_ref(), |object| change(object, full)).await?;
        let wrote = keep(written, |object| self.server = Some(object));
        let status = self.server.as_ref().and_then(|server| server.status.as_ref());
        if let Some(recorded) = status.and_then(|status| status.commands_recorded) {
            self.sources.given.recorded(recorded).await;
        }
        Ok(wrote)
    }

    async fn report_sub_cluster(
        &mut self,
        snapshot: &Snapshot,
        present: Option<&BTreeSet<String>>,
        wall: Wall,
        full: bool,
    ) -> Result<bool, ApiError> {
        let me = self.config.server.clone();
        let change = |object: &SubCluster| {
            let old = object.status.clone().unwrap_or_default();
            let now = Timestamp::now();
            let new = match present {
                Some(present) => cluster_status::cluster_status(snapshot, &me, &old, present, Some(object), wall, now),
                None => cluster_status::without_coordinator(snapshot, &old, now),
            };
            let same = cluster_status::essence(&new) == cluster_status::essence(&old);
            (!same || full && new != old).then(|| SubCluster { status: Some(new), ..object.clone() })
        };
        let name = self.config.sub_cluster.clone();
        let written = write(&self.sub_clusters, &name, self.sub_cluster.as_ref(), change).await?;
        Ok(keep(written, |object| self.sub_cluster = Some(object)))
    }

    async fn report_groups(&mut self, snapshot: &Snapshot, wall: Wall) -> Result<bool, ApiError> {
        let Some(coordinator) = &snapshot.status.coordinator else { return Ok(false) };
        let mut wrote = false;
        for (group, placed) in &coordinator.groups {
            // Groups without an object are named in the sub-cluster's status (orphans).
            let Some(known) = self.known.get(&group.0) else { continue };
            let change = |object: &FailoverGroup| {
                let old = object.status.clone().unwrap_or_default();
                let name = GroupName(group.0.clone());
                let new =
                    group_status::group_status(snapshot, &name, placed, &old, Some(object), wall, Timestamp::now());
                (new != old).then(|| FailoverGroup { status: Some(new), ..object.clone() })
            };
            let written = write(&self.groups, &group.0, Some(known), change).await?;
            wrote |= keep(written, |object| drop(self.known.insert(group.0.clone(), object)));
        }
        Ok(wrote)
    }

    /// Transitions that this server saw as coordinator and could not tell then.
    async fn report_history(&mut self, wall: Wall) -> Result<bool, ApiError> {
        let mut wrote = false;
        for (group, transitions) in self.sources.history.untold() {
            let Some(known) = self.known.get(&group.0) else { continue };
            let change = |object: &FailoverGroup| {
                let old = object.status.clone().unwrap_or_default();
                let new = group_status::with_transitions(&old, &transitions, wall);
                (new != old).then(|| FailoverGroup { status: Some(new), ..object.clone() })
            };
            let written = write(&self.groups, &group.0, Some(known), change).await?;
            if !matches!(written, Written::Not) {
                self.sources.history.told(&group, &transitions);
            }
            wrote |= keep(written, |object| drop(self.known.insert(group.0.clone(), object)));
        }
        Ok(wrote)
    }
}

/// Whether this server says how the sub-cluster stands although there is no coordinator: it waits for something that a
/// person should know of, and no server before it in the alphabet is heard.
fn speaks_without_coordinator(snapshot: &Snapshot, me: &str) -> bool {
    let waits = !matches!(snapshot.status.phase, ClusterPhase::Running);
    let first = snapshot.status.peers.iter().all(|(name, peer)| {
        name.0.as_str() > me || matches!(peer.state, MemberState::Lost | MemberState::Suspect | MemberState::Unknown)
    });
    snapshot.adoption.is_some() && waits && first
}

fn keep<K>(written: Written<K>, keep: impl FnOnce(K)) -> bool {
    match written {
        Written::Done(object) => {
            keep(object);
            true
        }
        Written::Same | Written::Not => false,
    }
}

/// Changes what is known, and writes it; reads it first where nothing is known or somebody else has written meanwhile.
async fn write<K>(
    api: &Api<K>,
    name: &str,
    known: Option<&K>,
    change: impl Fn(&K) -> Option<K>,
) -> Result<Written<K>, ApiError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut next = known.map(&change);
    if let Some(None) = next {
        return Ok(Written::Same);
    }
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    for _ in 0..ATTEMPTS {
        let what = format!("{} {name}", K::kind(&()));
        let changed = match next.take().flatten() {
            Some(changed) => changed,
            None => {
                let Some(object) = within(&what, api.get_opt(name)).await? else { return Ok(Written::Not) };
                let Some(changed) = change(&object) else { return Ok(Written::Done(object)) };
                changed
            }
        };
        match within(&what, api.replace_status(name, &parameters, &changed)).await {
            Ok(object) => return Ok(Written::Done(object)),
            Err(e) if e.code() == Some(409) => {}
            Err(e) if matches!(e.code(), Some(404 | 422 | 403)) => {
                tracing::debug!("a report was refused: {e}");
                return Ok(Written::Not);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Written::Not)
}
