//! What the tree says. Pure: a snapshot and the present time (none: leave ages out) in, lines out. What a lost server said last about itself
//! is old; its state is the one that its sub-cluster reports.

use holdfast_api::v1::{
    FailoverGroup, GroupPhase, GroupState, GuaranteeLevel, Health, MonitorState, MonitorStatus, PathState, PathStatus,
    ResourceState, Server, ServerState, SubCluster, SubClusterPhase, SuperCluster,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::attention;
use super::snapshot::Snapshot;

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    Good,
    Warn,
    Bad,
    Faint,
}

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

/// A line of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) depth: usize,
    pub(crate) cells: Vec<Cell>,
}

pub(super) fn cell(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}

/// Everything, what needs attention first.
pub(crate) fn lines(snapshot: &Snapshot, now: Option<Timestamp>) -> Vec<Line> {
    let mut tree = Vec::new();
    for object in &snapshot.super_clusters {
        tree.push(super_cluster(object));
        for sub in snapshot.sub_clusters.iter().filter(|sub| belongs(sub, &object.metadata)) {
            sub_cluster(snapshot, sub, 1, now, &mut tree);
        }
    }
    let known = |sub: &SubCluster| snapshot.super_clusters.iter().any(|object| belongs(sub, &object.metadata));
    for sub in snapshot.sub_clusters.iter().filter(|sub| !known(sub)) {
        sub_cluster(snapshot, sub, 0, now, &mut tree);
    }
    for group in snapshot.groups.iter().filter(|group| !snapshot.sub_clusters.iter().any(|sub| holds(sub, group))) {
        group_lines(group, 0, now, &mut tree);
    }
    if tree.is_empty() && snapshot.unreadable.is_empty() {
        return vec![Line {
            depth: 0,
            cells: vec![cell("nothing is declared; `holdfast apply -f FILE` declares something", Tone::Plain)],
        }];
    }
    let mut all = attention::lines(snapshot);
    if !all.is_empty() {
        all.insert(0, Line { depth: 0, cells: vec![cell("needs attention", Tone::Bad)] });
        all.push(Line { depth: 0, cells: vec![cell("", Tone::Plain)] });
    }
    all.append(&mut tree);
    all
}

fn belongs(sub: &SubCluster, super_cluster: &ObjectMeta) -> bool {
    sub.spec.super_cluster.as_ref().is_some_and(|reference| {
        Some(&reference.name) == super_cluster.name.as_ref()
            && reference.namespace.as_ref().or(sub.metadata.namespace.as_ref()) == super_cluster.namespace.as_ref()
    })
}

fn holds(sub: &SubCluster, group: &FailoverGroup) -> bool {
    sub.metadata.namespace == group.metadata.namespace && sub.metadata.name.as_ref() == Some(&group.spec.sub_cluster)
}

pub(super) fn full_name(metadata: &ObjectMeta) -> String {
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or("?"), metadata.name.as_deref().unwrap_or("?"))
}

/// `12s`, `3m`, `5h`, `2d`: how long ago; nothing without a present time.
fn age(since: Option<&Time>, now: Option<Timestamp>) -> Option<String> {
    let seconds = now?.duration_since(since?.0).as_secs().max(0);
    Some(match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    })
}

fn super_cluster(object: &SuperCluster) -> Line {
    let status = object.status.clone().unwrap_or_default();
    let health = status.health.unwrap_or_default();
    let tone = match health {
        Health::Healthy => Tone::Good,
        Health::Degraded => Tone::Warn,
        Health::Critical => Tone::Bad,
        Health::Unknown => Tone::Faint,
    };
    let subs = status.sub_clusters.unwrap_or_default();
    let servers = status.servers.unwrap_or_default();
    let groups = status.groups.unwrap_or_default();
    Line {
        depth: 0,
        cells: vec![
            cell(format!("super-cluster {}", full_name(&object.metadata)), Tone::Strong),
            cell(health.as_str(), tone),
            cell(
                format!(
                    "sub-clusters ready {}/{}, servers active {}/{}, groups online {}/{}",
                    subs.ready, subs.total, servers.active, servers.total, groups.online, groups.total
                ),
                Tone::Plain,
            ),
        ],
    }
}

fn sub_cluster(snapshot: &Snapshot, object: &SubCluster, depth: usize, now: Option<Timestamp>, tree: &mut Vec<Line>) {
    let status = object.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let tone = match phase {
        SubClusterPhase::Running => Tone::Good,
        SubClusterPhase::NoQuorum | SubClusterPhase::AwaitingForceReinstate => Tone::Bad,
        _ => Tone::Warn,
    };
    let mut facts = Vec::new();
    if let Some(epoch) = status.epoch {
        facts.push(format!("epoch {epoch}"));
    }
    if let Some(view) = &status.view {
        facts.push(format!("coordinator {}", view.coordinator));
        if let Some(arbiter) = view.arbiter {
            facts.push(format!("arbiter {arbiter}"));
        }
    }
    if let Some(part) = status.timing.as_ref().and_then(|timing| timing.cluster_part.as_ref()) {
        facts.push(format!("takeover after {part}"));
    }
    tree.push(Line {
        depth,
        cells: vec![
            cell(format!("sub-cluster {}", full_name(&object.metadata)), Tone::Strong),
            cell(phase.as_str(), tone),
            cell(facts.join(", "), Tone::Plain),
        ],
    });
    if let Some(guarantee) = &status.guarantee {
        let tone = if guarantee.level == GuaranteeLevel::Full { Tone::Good } else { Tone::Warn };
        tree.push(Line {
            depth: depth + 1,
            cells: vec![
                cell("guarantee", Tone::Plain),
                cell(guarantee.level.as_str(), tone),
                cell(format!("{}: {}", guarantee.reason, guarantee.message), Tone::Faint),
            ],
        });
    }
    for entry in &object.spec.servers {
        let full = format!("{}.{}", object.metadata.name.as_deref().unwrap_or("?"), entry.name);
        let server = snapshot.servers.iter().find(|server| {
            server.metadata.namespace == object.metadata.namespace && server.metadata.name.as_deref() == Some(&full)
        });
        server_lines(&entry.name, server, state_of(object, &entry.name, server), depth + 1, now, tree);
    }
    for group in snapshot.groups.iter().filter(|group| holds(object, group)) {
        group_lines(group, depth + 1, now, tree);
    }
    for orphan in &status.orphans {
        tree.push(Line {
            depth: depth + 1,
            cells: vec![
                cell(format!("group {} (its object is gone)", orphan.name), Tone::Warn),
                cell(format!("runs on {}", orphan.server), Tone::Plain),
            ],
        });
    }
}

/// A server's state: what its sub-cluster says, else what it says itself.
pub(super) fn state_of(sub: &SubCluster, name: &str, server: Option<&Server>) -> ServerState {
    let by_members = sub.status.as_ref().and_then(|status| status.members.iter().find(|member| member.name == name));
    let by_itself = || server.and_then(|server| server.status.as_ref()).and_then(|status| status.state);
    by_members.map(|member| member.state).or_else(by_itself).unwrap_or_default()
}

pub(super) fn server_tone(state: ServerState) -> Tone {
    match state {
        ServerState::Active => Tone::Good,
        ServerState::Joining | ServerState::Leaving | ServerState::Detached => Tone::Warn,
        ServerState::Partitioned | ServerState::Suspect | ServerState::Lost => Tone::Bad,
        ServerState::Unknown => Tone::Faint,
    }
}

fn server_lines(
    name: &str,
    server: Option<&Server>,
    state: ServerState,
    depth: usize,
    now: Option<Timestamp>,
    tree: &mut Vec<Line>,
) {
    let status = server.and_then(|server| server.status.clone()).unwrap_or_default();
    let mut facts = Vec::new();
    // The last words of a server that is gone are no news.
    let present =
        matches!(state, ServerState::Active | ServerState::Joining | ServerState::Leaving | ServerState::Detached);
    if present {
        if let Some(authority) = status.authority.as_ref().filter(|authority| authority.held) {
            facts.push(
                authority.anchor.map_or_else(|| "lease held".to_owned(), |anchor| format!("lease held by {anchor}")),
            );
        }
        if let Some(guard) = &status.guard {
            let watchdog = if guard.watchdog.is_empty() {
                "no watchdog".to_owned()
            } else {
                format!("watchdog {}", guard.watchdog)
            };
            facts.push(format!("guard {}, {watchdog}", guard.state));
        }
        if !status.groups.is_empty() {
            facts.push(format!("runs {}", status.groups.join(", ")));
        }
    } else if let Some(age) = age(status.report_time.as_ref(), now) {
        facts.push(format!("last report {age} ago"));
    }
    tree.push(Line {
        depth,
        cells: vec![
            cell(format!("server {name}"), Tone::Plain),
            cell(state.as_str(), server_tone(state)),
            cell(facts.join(", "), Tone::Plain),
        ],
    });
    if present {
        tree.extend(status.paths.iter().map(|path| path_line(path, depth + 1)));
        tree.extend(status.monitors.iter().map(|one| monitor_line(depth + 1, &one.name, Some(one))));
        for disk in &status.disks {
            let state = disk.state;
            let tone = if state == holdfast_api::v1::DiskState::Reachable { Tone::Good } else { Tone::Bad };
            let latency = disk.read_latency.as_ref().map_or_else(String::new, |latency| format!("read {latency}"));
            let facts = [latency, disk.message.clone()]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(", ");
            tree.push(Line {
                depth: depth + 1,
                cells: vec![
                    cell(format!("disk {}", disk.name), Tone::Plain),
                    cell(state.as_str(), tone),
                    cell(facts, Tone::Faint),
                ],
            });
        }
    }
}

fn path_line(path: &PathStatus, depth: usize) -> Line {
    let tone = match path.state {
        PathState::Up => Tone::Good,
        PathState::OneWay => Tone::Warn,
        PathState::Down | PathState::Error => Tone::Bad,
    };
    let mut facts = Vec::new();
    if path.state == PathState::Up {
        facts.extend(path.latency.as_ref().map(|latency| format!("round trip {latency}")));
        facts.extend(path.longest_gap.as_ref().map(|gap| format!("longest gap {gap}")));
        if path.carries_exchange {
            facts.push("carries exchange".to_owned());
        }
    }
    if !path.message.is_empty() {
        facts.push(path.message.clone());
    }
    Line {
        depth,
        cells: vec![
            cell(format!("path {} to {}", path.path, path.peer), Tone::Plain),
            cell(path.state.as_str(), tone),
            cell(facts.join(", "), Tone::Faint),
        ],
    }
}

pub(super) fn group_tone(declared: GroupState, phase: GroupPhase) -> Tone {
    match (declared, phase) {
        (_, GroupPhase::Failed | GroupPhase::Stuck | GroupPhase::Unknown) => Tone::Bad,
        (GroupState::Online, GroupPhase::Online) | (GroupState::Offline, GroupPhase::Offline) => Tone::Good,
        _ => Tone::Warn,
    }
}

fn group_lines(group: &FailoverGroup, depth: usize, now: Option<Timestamp>, tree: &mut Vec<Line>) {
    let status = group.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let mut facts = Vec::new();
    if let Some(server) = &status.server {
        facts.push(format!("on {server}"));
    }
    facts.extend(age(status.since.as_ref(), now).map(|age| format!("for {age}")));
    if let Some(last) = status.transitions.first() {
        let outage = last.actual.as_ref().map_or_else(String::new, |actual| format!(" in {actual}"));
        facts.push(format!("last: {}{outage}", last.type_));
    }
    facts.extend(status.holds.iter().map(|hold| format!("held: {}", hold.type_)));
    tree.push(Line {
        depth,
        cells: vec![
            cell(format!("group {}", group.metadata.name.as_deref().unwrap_or("?")), Tone::Plain),
            cell(
                phase.as_str(),
                if status.phase.is_some() { group_tone(group.spec.state, phase) } else { Tone::Faint },
            ),
            cell(facts.join(", "), Tone::Plain),
        ],
    });
    for resource in &group.spec.resources {
        let reported = status.resources.iter().find(|reported| reported.name == resource.name);
        let state = reported.map(|reported| reported.state).unwrap_or_default();
        let tone = match state {
            ResourceState::Online => Tone::Good,
            ResourceState::Failed | ResourceState::Stuck => Tone::Bad,
            ResourceState::Offline if phase == GroupPhase::Offline => Tone::Faint,
            ResourceState::Unknown => Tone::Faint,
            _ => Tone::Warn,
        };
        tree.push(Line {
            depth: depth + 1,
            cells: vec![
                cell(format!("resource {}", resource.name), Tone::Plain),
                cell(state.as_str(), tone),
                cell(reported.map(|reported| reported.message.clone()).unwrap_or_default(), Tone::Faint),
            ],
        });
    }
    for monitor in &group.spec.monitors {
        let reported = status.monitors.iter().find(|reported| reported.name == monitor.name);
        tree.push(monitor_line(depth + 1, &monitor.name, reported));
    }
}

fn monitor_line(depth: usize, name: &str, reported: Option<&MonitorStatus>) -> Line {
    let state = reported.map(|reported| reported.state).unwrap_or_default();
    let tone = match state {
        MonitorState::Passing => Tone::Good,
        MonitorState::Failing => Tone::Bad,
        MonitorState::Inactive => Tone::Faint,
        MonitorState::Unknown => Tone::Warn,
    };
    let message = reported.map(|reported| reported.message.clone()).unwrap_or_default();
    let cells =
        vec![cell(format!("monitor {name}"), Tone::Plain), cell(state.as_str(), tone), cell(message, Tone::Faint)];
    Line { depth, cells }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::commands::status::text;

    fn read<T: serde::de::DeserializeOwned>(kind: &str, mut object: Value) -> T {
        object["apiVersion"] = holdfast_api::API_VERSION.into();
        object["kind"] = kind.into();
        serde_json::from_value(object).expect("an object of the API")
    }

    /// Two servers, `b` lost, its group taken over by `a`; one path between them was down before.
    fn snapshot() -> Snapshot {
        let lan = |name: &str, role: &str| {
            json!({"name": name, "lan": {"role": role, "endpoints": [
            {"server": "a", "address": "10.0.0.1"}, {"server": "b", "address": "10.0.0.2"}]}})
        };
        Snapshot {
            super_clusters: vec![read(
                "SuperCluster",
                json!({
                    "metadata": {"name": "bank", "namespace": "ha"}, "spec": {},
                    "status": {"health": "Degraded", "subClusters": {"total": 1}, "servers": {"total": 2, "active": 1}, "groups": {"total": 1, "online": 1}},
                }),
            )],
            sub_clusters: vec![read(
                "SubCluster",
                json!({
                    "metadata": {"name": "db", "namespace": "ha"},
                    "spec": {"superCluster": {"name": "bank"}, "servers": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
                        "heartbeat": {"paths": [lan("ic", "Interconnect"), lan("pub", "Public")]}, "quorum": {"type": "Majority"}},
                    "status": {"phase": "Running", "epoch": 4, "view": {"members": ["a"], "coordinator": "a", "arbiter": "LockDisk"},
                        "timing": {"clusterPart": "1s"}, "guarantee": {"level": "UserSpace", "reason": "Guard", "message": "no watchdog"},
                        "members": [{"name": "a", "state": "Active"}, {"name": "b", "state": "Lost"}]},
                }),
            )],
            servers: vec![
                read(
                    "Server",
                    json!({"metadata": {"name": "db.a", "namespace": "ha"}, "spec": {"subCluster": "db", "server": "a", "id": 1},
                    "status": {"state": "Active", "groups": ["ledger"], "authority": {"held": true, "anchor": "LockDisk"},
                        "guard": {"state": "Watching", "watchdog": "", "realTime": true, "memoryLocked": true},
                        "paths": [{"path": "ic", "peer": "b", "state": "Down"}, {"path": "pub", "peer": "b", "state": "Down"}]}}),
                ),
                read(
                    "Server",
                    json!({"metadata": {"name": "db.b", "namespace": "ha"}, "spec": {"subCluster": "db", "server": "b", "id": 2},
                    "status": {"state": "Active", "reportTime": "2026-03-01T08:00:00Z", "paths": [{"path": "ic", "peer": "a", "state": "Up"}]}}),
                ),
            ],
            groups: vec![read(
                "FailoverGroup",
                json!({"metadata": {"name": "ledger", "namespace": "ha"},
                "spec": {"subCluster": "db", "resources": [{"name": "addr", "floatingIP": {"address": "192.0.2.10/24", "path": "pub"}}]},
                "status": {"phase": "Online", "server": "a", "since": "2026-03-01T08:00:50Z", "resources": [{"name": "addr", "state": "Online"}],
                    "transitions": [{"id": 1, "type": "Failover", "actual": "1150ms"}]}}),
            )],
            unreadable: Vec::new(),
        }
    }

    fn drawn(snapshot: &Snapshot) -> String {
        let now = "2026-03-01T08:01:00Z".parse().expect("a time");
        text::render(&lines(snapshot, Some(now)), false)
    }

    #[test]
    fn the_whole_tree_with_a_lost_server_on_top() {
        let expected = "\
needs attention
  server ha/db.b  Lost

super-cluster ha/bank  Degraded  sub-clusters ready 0/1, servers active 1/2, groups online 1/1
  sub-cluster ha/db  Running  epoch 4, coordinator a, arbiter LockDisk, takeover after 1s
    guarantee  UserSpace  Guard: no watchdog
    server a   Active     lease held by LockDisk, guard Watching, no watchdog, runs ledger
      path ic to b   Down
      path pub to b  Down
    server b      Lost    last report 1m ago
    group ledger  Online  on a, for 10s, last: Failover in 1150ms
      resource addr  Online
";
        assert_eq!(drawn(&snapshot()), expected);
    }

    #[test]
    fn a_path_that_is_down_between_two_working_servers_needs_attention() {
        let mut snapshot = snapshot();
        for member in &mut snapshot.sub_clusters[0].status.as_mut().expect("a status").members {
            member.state = ServerState::Active;
        }
        assert!(
            drawn(&snapshot).starts_with("needs attention\n  server ha/db.a  path ic to b is Down\n"),
            "{}",
            drawn(&snapshot)
        );
    }

    #[test]
    fn an_empty_server_says_how_to_begin() {
        assert!(drawn(&Snapshot::default()).contains("holdfast apply -f"));
    }
}
