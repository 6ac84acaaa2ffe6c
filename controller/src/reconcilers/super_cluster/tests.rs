//! What a super-cluster shows of what is below it.

use holdfast_api::conditions;
use holdfast_api::v1::{FailoverGroup, GroupPhase, Health, MemberStatus, ServerState, SubCluster, SuperCluster};
use serde_json::json;

use super::super::failover_group::tests::{group, placed, running};
use super::super::sub_cluster::tests::{sub_cluster, super_cluster};
use super::attention::attention;
use super::summary::{Below, management_server, master_missing, summary};

const NOW: &str = "2026-03-02T00:00:00Z";

fn sub(name: &str, members: &[(&str, ServerState)]) -> SubCluster {
    let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    let mut sub = running(sub_cluster(name), &names);
    let status = sub.status.get_or_insert_default();
    let member = |(name, state): &(&str, ServerState)| MemberStatus {
        name: name.to_string(),
        state: *state,
        ..Default::default()
    };
    status.members = members.iter().map(member).collect();
    status.accepted_digest = Some("servers=1".into());
    let now = NOW.parse().unwrap();
    conditions::set(&mut status.conditions, "AgentReporting", true, "Reporting", "", None, now);
    sub
}

fn whole(name: &str) -> SubCluster {
    sub(name, &[("db1", ServerState::Active), ("db2", ServerState::Active)])
}

fn below<'a>(sub: &'a SubCluster, groups: &'a [FailoverGroup]) -> Below<'a> {
    Below { sub_cluster: sub, servers: vec![], groups: groups.iter().collect() }
}

#[test]
fn health_is_that_of_the_worst() {
    let online = [placed(group("ledger"), GroupPhase::Online, "db1")];
    let failed = [placed(group("reports"), GroupPhase::Failed, "")];
    let (good, mut down) = (whole("db"), whole("web"));
    let lost = sub("shop", &[("db1", ServerState::Active), ("db2", ServerState::Lost)]);
    let health = |all: &[Below<'_>]| summary(all).health;
    assert_eq!(health(&[]), Health::Unknown);
    assert_eq!(health(&[below(&good, &online)]), Health::Healthy);
    assert_eq!(health(&[below(&good, &online), below(&lost, &[])]), Health::Degraded);
    assert_eq!(health(&[below(&good, &failed)]), Health::Critical);
    assert_eq!(health(&[below(&good, &[placed(group("ledger"), GroupPhase::Starting, "db1")])]), Health::Degraded);
    let now = NOW.parse().unwrap();
    conditions::set(&mut down.status.as_mut().unwrap().conditions, "AgentReporting", false, "Silent", "", None, now);
    assert_eq!(health(&[below(&down, &[])]), Health::Unknown);
    let sum = summary(&[below(&good, &online), below(&lost, &[]), below(&down, &failed)]);
    assert_eq!(sum.health, Health::Critical);
    let counts = sum.sub_clusters;
    assert_eq!((counts.total, counts.ready, counts.degraded, counts.down), (3, 1, 1, 1));
    assert_eq!((sum.servers.total, sum.servers.active, sum.servers.lost), (6, 5, 1));
    assert_eq!((sum.groups.total, sum.groups.online, sum.groups.failed), (2, 1, 1));
}

#[test]
fn a_refused_change_does_not_make_a_working_sub_cluster_rejected() {
    let mut changed = whole("db");
    let now = NOW.parse().unwrap();
    let conditions = &mut changed.status.as_mut().unwrap().conditions;
    conditions::set(conditions, "Accepted", false, "UnsupportedByServer", "", Some(2), now);
    assert_eq!(summary(&[below(&changed, &[])]).sub_clusters.degraded, 1);
    changed.status.as_mut().unwrap().accepted_digest = None;
    assert_eq!(summary(&[below(&changed, &[])]).sub_clusters.rejected, 1);
}

#[test]
fn the_worst_comes_first_and_the_list_ends_at_fifty() {
    let bank = super_cluster("bank");
    let sub = whole("db");
    let now = NOW.parse().unwrap();
    let refused = |name: String| {
        let mut group = group(&name);
        let status = group.status.get_or_insert_default();
        conditions::set(&mut status.conditions, "Accepted", false, "ClaimConflict", "taken", Some(1), now);
        group
    };
    let mut groups: Vec<_> = (0..60).map(|i| refused(format!("g{i:02}"))).collect();
    groups.push(placed(group("ledger"), GroupPhase::Stuck, "db1"));
    let list = attention(&bank, &[below(&sub, &groups)]);
    assert_eq!(list.len(), 50);
    assert_eq!((list[0].kind.as_str(), list[0].name.as_str()), ("FailoverGroup", "ledger"));
    assert_eq!(
        (list[1].name.as_str(), list[1].reason.as_str(), list[1].message.as_str()),
        ("g00", "ClaimConflict", "taken")
    );
    assert_eq!(attention(&bank, &[below(&sub, &[placed(group("ledger"), GroupPhase::Online, "db1")])]), vec![]);
}

#[test]
fn the_master_is_where_its_group_runs() {
    let bank = super_cluster("bank");
    let (master, db) = (whole("master"), whole("db"));
    let control = [placed(group("control-plane"), GroupPhase::Online, "db2")];
    let all = [below(&db, &control), below(&master, &[])];
    assert_eq!(management_server(&bank, &all), None);
    assert_eq!(master_missing(&bank, &all).unwrap().0, "NotFound");
    let all = [below(&db, &[]), below(&master, &control)];
    assert_eq!(management_server(&bank, &all).map(|found| found.server), Some("db2".into()));
    assert_eq!(master_missing(&bank, &all), None);
    let without: SuperCluster = serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "SuperCluster", "metadata": {"name": "bank"}, "spec": {},
    }))
    .unwrap();
    assert_eq!(master_missing(&without, &all).unwrap().0, "MasterMissing");
}
