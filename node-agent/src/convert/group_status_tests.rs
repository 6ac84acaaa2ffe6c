//! Status of a group, by what a user reads in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::status::{ClusterPhase, CoordinatorStatus, GroupReport, ResourceReport, Status};
use holdfast_core::time::Instant;
use holdfast_core::view::Tag;

use super::*;
use crate::convert::config::{adoption, tests as objects};
use crate::spec_cache::Specs;

fn snapshot(placed: &PlacedGroup) -> Snapshot {
    let specs = Specs {
        sub_cluster: Some(Arc::new(objects::sub_cluster(|_| {}))),
        groups: [("pg".into(), Arc::new(objects::group(|_| {})))].into(),
        ..Specs::default()
    };
    let (adoption, _) = adoption(&specs, &"b".into(), None, &[], std::path::Path::new("/c")).unwrap();
    let status = Status {
        config_pending: None,
        member: MemberState::Active,
        sentence: "member of view 6".into(),
        view: None,
        phase: ClusterPhase::Running,
        leased: true,
        lease_anchor: "Self",
        smallest_margin: None,
        peers: BTreeMap::new(),
        lock: None,
        groups: BTreeMap::new(),
        monitors: BTreeMap::new(),
        coordinator: Some(CoordinatorStatus { groups: [("pg".into(), placed.clone())].into(), brake: None }),
        history: BTreeMap::new(),
        last_resolution: None,
        highest: Tag::default(),
        absences: Default::default(),
        shut_downs: Vec::new(),
        force_refused: None,
        fences: BTreeMap::new(),
    };
    Snapshot {
        at: Instant(90_000_000_000),
        status,
        disks: Vec::new(),
        quorum_server: None,
        path_errors: BTreeMap::new(),
        refused: BTreeMap::new(),
        keys: crate::paths::keys::KeyState::default(),
        adoption: Some(Arc::new(adoption)),
        stuck: None,
        fencing: Default::default(),
    }
}

fn placed(phase: GroupPhase, server: Option<&str>) -> PlacedGroup {
    let resource = |phase| ResourceReport { phase, restarts: 1, message: "fine".into() };
    let report = GroupReport {
        tag: Tag::default(),
        generation: 5,
        known: 5,
        digest: 0,
        phase,
        resources: [("data".into(), resource(GroupPhase::Online))].into(),
        monitors: BTreeMap::new(),
        failure: None,
        paused: false,
        part_restarted: None,
        looked: None,
        steps: Vec::new(),
        message: String::new(),
    };
    PlacedGroup {
        everywhere: BTreeMap::new(),
        assignment: None,
        phase,
        server: server.map(Into::into),
        report: server.map(|_| report.into()),
        failures: BTreeMap::new(),
        decision: None,
        transitions: Vec::new(),
        holds: BTreeSet::new(),
    }
}

fn failover(began: u64) -> Transition {
    Transition {
        id: 1,
        reason: Reason::Failover,
        from: Some("a".into()),
        to: Some("b".into()),
        cause: "ServerLost",
        evidence: Some("Time"),
        tag: Tag { lineage: 1, epoch: 6, revision: 2 },
        began: Instant(began * 1_000_000_000),
        took: Some(Duration::from_micros(1_207_400)),
        chart: vec![Step { step: "Detect".into(), at: Duration::ZERO, took: Duration::from_millis(1000) }],
        message: "a was silent".into(),
    }
}

fn convert(placed: &PlacedGroup, old: &api::FailoverGroupStatus, wall: &str) -> api::FailoverGroupStatus {
    let now: Timestamp = wall.parse().unwrap();
    let wall = Wall::new(Instant(90_000_000_000), "2026-03-02T01:00:00Z".parse().unwrap());
    group_status(&snapshot(placed), &"pg".into(), placed, old, None, wall, now)
}

fn condition<'a>(status: &'a api::FailoverGroupStatus, type_: &str) -> (&'a str, &'a str) {
    let found = conditions::get(&status.conditions, type_).unwrap();
    (found.status.as_str(), found.reason.as_str())
}

#[test]
fn a_takeover_reads_as_one_line_with_its_chart_and_says_the_same_next_time() {
    let mut group = placed(GroupPhase::Online, Some("b"));
    group.transitions = vec![failover(80)];
    let first = convert(&group, &api::FailoverGroupStatus::default(), "2026-03-02T01:00:05Z");
    let transition = &first.transitions[0];
    assert_eq!(
        (transition.type_, transition.from.as_str(), transition.to.as_str()),
        (api::TransitionType::Failover, "a", "b")
    );
    assert_eq!((transition.evidence, transition.epoch), (Some(api::EvidenceKind::Time), 6));
    assert_eq!(transition.actual.as_ref().unwrap().as_str(), "1207ms");
    assert_eq!(transition.time.as_ref().unwrap().0.to_string(), "2026-03-02T00:59:50Z");
    assert_eq!(transition.chart[0].took.as_str(), "1s");
    assert_eq!((first.phase, first.server.as_deref()), (Some(api::GroupPhase::Online), Some("b")));
    assert_eq!(condition(&first, "Ready"), ("True", "Converged"));
    assert_eq!(first.claims, ["disk:wwn-0x51-part2", "ip:192.0.2.10", "mount:/srv/pg"]);
    assert_eq!(convert(&group, &first, "2026-03-02T01:07:00Z"), first, "nothing new to say later");
}

#[test]
fn transitions_of_earlier_coordinators_stay_and_are_counted_on() {
    let mut group = placed(GroupPhase::Online, Some("b"));
    group.transitions = vec![failover(80)];
    let before = api::Transition { id: 30, epoch: 5, time: None, ..one_transition(&failover(10), wall_of_tests()) };
    let old = api::FailoverGroupStatus { transitions: vec![before], ..api::FailoverGroupStatus::default() };
    let new = convert(&group, &old, "2026-03-02T01:00:05Z");
    let ids: Vec<_> = new.transitions.iter().map(|t| (t.id, t.epoch)).collect();
    assert_eq!(ids, [(31, 6), (30, 5)]);
}

#[test]
fn the_outage_that_was_to_be_expected_stands_beside_what_happened_and_stays_as_it_was() {
    let started: api::Transition = serde_json::from_value(serde_json::json!({
        "id": 30, "type": "Move", "from": "b", "to": "a", "epoch": 5, "time": "2026-03-01T00:00:00Z", "actual": "150ms",
        "chart": [{"step": "stop on b", "at": "0ms", "took": "40ms"}, {"step": "start data", "at": "40ms", "took": "100ms"}],
    }))
    .unwrap();
    let old = api::FailoverGroupStatus { transitions: vec![started], ..api::FailoverGroupStatus::default() };
    let mut group = placed(GroupPhase::Online, Some("b"));
    group.transitions = vec![failover(80)];
    let new = convert(&group, &old, "2026-03-02T01:00:05Z");
    // The takeover wait of the sub-cluster's timing, and the start of 110 ms.
    let predicted = new.transitions[0].predicted.clone().expect("a prediction").get();
    let shown = snapshot(&group);
    let timing = super::super::cluster_status::timing(shown.adoption.as_deref().unwrap(), &shown.status).unwrap();
    let part = timing.cluster_part.unwrap().get();
    assert_eq!(predicted, part + std::time::Duration::from_millis(110));
    assert_eq!(convert(&group, &new, "2026-03-02T01:07:00Z").transitions[0].predicted, new.transitions[0].predicted);
}

#[test]
fn what_a_former_coordinator_tells_late_stands_where_it_belongs() {
    let now = convert(&placed(GroupPhase::Online, Some("a")), &Default::default(), "2026-03-02T01:00:05Z");
    let newer = with_transitions(&now, &[failover(85)], wall_of_tests());
    let both = with_transitions(&newer, &[failover(60)], wall_of_tests());
    let order: Vec<_> = both.transitions.iter().map(|t| (t.id, t.time.as_ref().unwrap().0.to_string())).collect();
    assert_eq!(order, [(1, "2026-03-02T00:59:55Z".to_owned()), (2, "2026-03-02T00:59:30Z".to_owned())]);
    assert_eq!((both.phase, both.server), (now.phase, now.server));
}

fn wall_of_tests() -> Wall {
    Wall::new(Instant(90_000_000_000), "2026-03-02T01:00:00Z".parse().unwrap())
}

#[test]
fn what_needs_a_person_says_so_and_the_controllers_fields_stay() {
    let target = api::Target { server: "a".into(), ..api::Target::default() };
    let mut old = api::FailoverGroupStatus { target: Some(target), ..api::FailoverGroupStatus::default() };
    conditions::set(
        &mut old.conditions,
        "Accepted",
        true,
        "Accepted",
        "",
        Some(5),
        "2026-03-02T00:00:00Z".parse().unwrap(),
    );
    let stuck = convert(&placed(GroupPhase::Stuck, Some("a")), &old, "2026-03-02T01:00:05Z");
    assert_eq!(condition(&stuck, "Stalled"), ("True", "StopUnproven"));
    assert_eq!((condition(&stuck, "Ready").0, condition(&stuck, "Accepted").0), ("False", "True"));
    assert_eq!(stuck.target, old.target);

    let mut held = placed(GroupPhase::Offline, None);
    held.holds.insert("ManualStart".into());
    let held = convert(&held, &stuck, "2026-03-02T01:00:05Z");
    assert_eq!((condition(&held, "Held"), condition(&held, "Ready")), (("True", "ManualStart"), ("False", "Held")));
    assert!(held.holds[0].message.contains("Operation of type Start"));
    assert!(conditions::get(&held.conditions, "Stalled").is_none());

    let unknown = convert(&placed(GroupPhase::Unknown, None), &old, "2026-03-02T01:00:05Z");
    assert_eq!(condition(&unknown, "Ready"), ("False", "ServerLost"));
    assert!(unknown.resources.iter().all(|r| r.state == api::ResourceState::Unknown));
}
