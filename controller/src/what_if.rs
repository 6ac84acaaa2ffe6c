//! What would follow from the loss of something, on the live state: which groups stop, where they start, for how long they
//! are away, and what does not come back. Asked of the planner that acts, by the question that the controller asks of it.

pub mod change;
pub mod manifests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::claims::is_shared_data;
use holdfast_api::measured::measured;
use holdfast_api::v1::{
    self as api, FailoverGroup, FencingMode, QuorumType, Server, SubCluster, TimeOnVirtualMachines,
};
use holdfast_planner::{Forecast, Interruption, Losses, Rule, ServerState, forecast};
use kube::ResourceExt;

use crate::reconcilers::failover_group::target::{Beside, whole};

/// A sub-cluster with what is in it, as observed.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The sub-cluster.
    pub sub_cluster: SubCluster,
    /// Its servers.
    pub servers: Vec<Arc<Server>>,
    /// Its groups.
    pub groups: Vec<Arc<FailoverGroup>>,
}

/// What follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// Steps and interrupted groups.
    pub forecast: Forecast,
    /// Servers that may be fenced.
    pub fences: Vec<String>,
    /// What else there is to know, in sentences.
    pub notes: Vec<String>,
}

/// What follows when all of this is lost at one moment.
///
/// # Errors
/// A name that the sub-cluster does not have; the message names the ones that it has.
pub fn lose(scene: &Scene, lost: &api::Losses) -> Result<WhatIf, String> {
    let sub = &scene.sub_cluster;
    let mut servers = named(&lost.servers, "server", sub.spec.servers.iter().map(|server| server.name.as_str()))?;
    let sites = named(&lost.sites, "site", sub.spec.servers.iter().map(|s| s.site.as_str()).filter(|s| !s.is_empty()))?;
    servers.extend(sub.spec.servers.iter().filter(|s| sites.contains(&s.site)).map(|server| server.name.clone()));
    let mut paths = named(&lost.paths, "path", sub.spec.heartbeat.paths.iter().map(|path| path.name.as_str()))?;
    let disks = named(&lost.disks, "disk", sub.spec.disks.iter().map(|disk| disk.name.as_str()))?;
    let on_lost_disk = |path: &&api::HeartbeatPath| path.disk.as_ref().is_some_and(|disk| disks.contains(&disk.disk));
    paths.extend(sub.spec.heartbeat.paths.iter().filter(on_lost_disk).map(|path| path.name.clone()));

    let mut notes = Vec::new();
    if lost.control_plane {
        notes.push(
            "without the control plane groups go on and are taken over as ever; nothing new can be declared, and Operations wait".to_owned(),
        );
    }
    let lan = |path: &&api::HeartbeatPath| path.lan.is_some();
    let lan_left = sub.spec.heartbeat.paths.iter().filter(lan).any(|path| !paths.contains(&path.name));
    if !paths.is_empty() && lan_left {
        notes.push("a LAN path is left, so no server is lost by the paths; clients that use a lost one are cut off from its addresses".to_owned());
    }
    let world = World { scene, disks, lock: lost.lock };
    let isolated = !paths.is_empty() && !lan_left;
    let members: Vec<String> = world.members().into_iter().filter(|member| !servers.contains(member)).collect();
    let mut worst = if isolated && members.len() > 1 {
        notes.push("no LAN path is left: the servers can't reach each other, and at most one of them goes on; which one is the arbiter's to decide, so this is the worst case".to_owned());
        let one = |survivor: &String| {
            let others = members.iter().filter(|member| *member != survivor).cloned();
            world.without(&servers.iter().cloned().chain(others).collect())
        };
        members.iter().map(one).max_by_key(badness).unwrap_or_default()
    } else {
        world.without(&servers)
    };
    worst.notes.splice(0..0, notes);
    Ok(worst)
}

/// How bad it is: groups that stay away, then the sum of the outages.
fn badness(what: &WhatIf) -> (usize, Duration) {
    let all = what.forecast.interruptions.values();
    (all.clone().filter(|one| one.to.is_none()).count(), all.filter_map(|one| one.outage).sum())
}

fn named<'a>(given: &[String], what: &str, known: impl Iterator<Item = &'a str>) -> Result<BTreeSet<String>, String> {
    let known: BTreeSet<&str> = known.collect();
    match given.iter().find(|name| !known.contains(name.as_str())) {
        None => Ok(given.iter().cloned().collect()),
        Some(unknown) => {
            let all: Vec<&str> = known.into_iter().collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            Err(format!("the sub-cluster has no {what} {unknown}; it has: {all}"))
        }
    }
}

struct World<'a> {
    scene: &'a Scene,
    disks: BTreeSet<String>,
    lock: bool,
}

impl World<'_> {
    fn members(&self) -> Vec<String> {
        let view = self.scene.sub_cluster.status.as_ref().and_then(|status| status.view.as_ref());
        view.map(|view| view.members.clone()).unwrap_or_default()
    }

    /// Those that are left are more than half of those that decide: the members, and the lock if their number is even.
    fn has_quorum(&self, servers: &BTreeSet<String>) -> bool {
        let quorum = &self.scene.sub_cluster.spec.quorum;
        let members = self.members();
        let counts = quorum.type_ != QuorumType::Majority && members.len().is_multiple_of(2);
        let on_disk = quorum.lock_disk.as_ref().is_some_and(|lock| self.disks.contains(&lock.disk));
        let left = members.iter().filter(|member| !servers.contains(*member)).count();
        let votes = left + usize::from(counts && !self.lock && !on_disk);
        votes * 2 > members.len() + usize::from(counts)
    }

    fn without(&self, servers: &BTreeSet<String>) -> WhatIf {
        let (sub, groups) = (&self.scene.sub_cluster, &self.scene.groups);
        let beside = Beside { servers: self.scene.servers.clone(), groups: groups.clone() };
        let input = whole(sub, &beside);
        let mut what = WhatIf::default();
        let mut measured = measured(sub, groups.iter().map(AsRef::as_ref));
        let mut losses = Losses { servers: servers.clone(), ..Losses::default() };
        losses.no_quorum = !self.has_quorum(servers);
        if losses.no_quorum {
            what.notes.push("what is left is no majority: every server stops its groups, and none starts before enough are back, or one is made the base (holdfast force-reinstate)".to_owned());
        }
        for server in servers {
            if input.servers.get(server) != Some(&ServerState::Member) {
                what.notes.push(format!("{server} is no member now; its loss changes nothing"));
                continue;
            }
            let (time, power) = self.evidence(server);
            if power && !losses.no_quorum {
                what.fences.push(server.clone());
            }
            let here = |group: &&Arc<FailoverGroup>| {
                group.status.as_ref().and_then(|status| status.server.as_ref()) == Some(server)
            };
            for group in groups.iter().filter(here).filter(|_| !time && !losses.no_quorum) {
                if !group.spec.resources.iter().any(is_shared_data) {
                    continue;
                }
                let name = group.name_any();
                if power {
                    // It waits for a device, and nobody has measured that.
                    measured.groups.entry(name.clone()).or_default().start = None;
                    what.notes
                        .push(format!("{name} waits until {server} is fenced; how long that takes was not measured"));
                } else {
                    what.notes.push(format!(
                        "elapsed time proves nothing about {server}, so {name} waits for its return, or for holdfast confirm-stopped"
                    ));
                    losses.unproven.insert(name);
                }
            }
        }
        what.forecast = forecast(&input, &losses, &measured);
        self.without_disks(&mut what);
        what
    }

    /// Whether time, and whether a fence device, can prove that a server has stopped what writes to shared data.
    fn evidence(&self, server: &str) -> (bool, bool) {
        let spec = &self.scene.sub_cluster.spec;
        let object = self.scene.servers.iter().find(|object| object.spec.server == server);
        let platform = object.and_then(|object| object.status.as_ref()?.platform.as_ref());
        let refused = platform.is_some_and(|platform| platform.r#virtual)
            && spec.evidence.time_on_virtual_machines == TimeOnVirtualMachines::Refuse;
        let Some(fencing) = &spec.fencing else { return (!refused, false) };
        let covered = fencing.levels.iter().any(|level| level.server == server);
        let power = fencing.mode != FencingMode::Disabled && covered;
        (!refused && fencing.mode != FencingMode::Required, power)
    }

    /// A disk that is gone is gone for all servers.
    fn without_disks(&self, what: &mut WhatIf) {
        if self.disks.is_empty() {
            return;
        }
        let uses = |resource: &api::Resource| {
            let filesystem = resource.filesystem.as_ref().and_then(|one| one.disk.as_ref());
            let volumes = resource.volume_group.as_ref().and_then(|one| one.disk.as_ref());
            filesystem.into_iter().chain(volumes).any(|disk| self.disks.contains(disk))
        };
        for group in self.scene.groups.iter().filter(|group| group.spec.resources.iter().any(uses)) {
            let name = group.name_any();
            let Some(from) = group.status.as_ref().and_then(|status| status.server.clone()) else { continue };
            what.forecast.steps.retain(|step| step.group != name);
            what.notes.push(format!("{name} needs a disk that is lost for every server"));
            let gone = Interruption { from, to: None, outage: None, stays: Some((Rule::NoServerLeft, Vec::new())) };
            what.forecast.interruptions.insert(name, gone);
        }
    }
}

#[cfg(test)]
#[path = "what_if_tests.rs"]
mod tests;
