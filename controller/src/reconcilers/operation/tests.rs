//! Whole lives of Operations: what the agents report, turn by turn, and what becomes of the Operation.

use std::collections::BTreeMap;

use holdfast_api::conditions;
use holdfast_api::v1::{
    FailoverGroup, Failure, GroupPhase, GroupState, HeartbeatKeys, Hold, Operation, OperationPhase, SubCluster, Target,
    Transition, TransitionType,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::failover_group::target::Beside;
use super::super::failover_group::tests::{group, placed, running};
use super::super::sub_cluster::tests::sub_cluster;
use super::about::About;
use super::carry_out::{Facts, next};
use super::rotate_key::Keys;

const BEGIN: &str = "2026-03-01T00:00:00Z";

/// An Operation with everything that it depends on.
pub(super) struct Stage {
    pub(super) operation: Operation,
    group: Option<FailoverGroup>,
    sub: SubCluster,
    pub(super) beside: Beside,
    reporting: bool,
    pub(super) ahead: Option<&'static str>,
    about: About,
    pub(super) planned: Option<holdfast_api::v1::OperationPlan>,
    now: Timestamp,
    began: BTreeMap<String, Timestamp>,
}

impl Stage {
    /// `spec` beside the target, on group ledger, which is online on db1 of db1 and db2.
    pub(super) fn new(spec: serde_json::Value) -> Self {
        let mut operation = json!({
            "apiVersion": "holdfast.dev/v1", "kind": "Operation",
            "metadata": {"name": "op-1", "namespace": "ha", "uid": "uid-op", "generation": 1, "creationTimestamp": BEGIN},
            "spec": {"target": {"kind": "FailoverGroup", "name": "ledger"}},
        });
        operation["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Self {
            operation: serde_json::from_value(operation).unwrap(),
            group: Some(placed(group("ledger"), GroupPhase::Online, "db1")),
            sub: running(sub_cluster("db"), &["db1", "db2"]),
            beside: Beside::default(),
            reporting: true,
            ahead: None,
            about: About::Group,
            planned: None,
            now: BEGIN.parse().unwrap(),
            began: BTreeMap::new(),
        }
    }

    pub(super) fn group(&mut self) -> &mut FailoverGroup {
        self.group.as_mut().unwrap()
    }

    pub(super) fn reported(&mut self, phase: GroupPhase, server: &str) {
        *self.group() = placed(self.group().clone(), phase, server);
    }

    fn held(&mut self, type_: &str) {
        let hold = Hold { name: format!("{type_}-1"), type_: type_.into(), ..Default::default() };
        self.group().status.as_mut().unwrap().holds = vec![hold];
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            operation: &self.operation,
            about: &self.about,
            group: self.group.as_ref(),
            sub_cluster: Some(&self.sub),
            beside: &self.beside,
            reporting: self.reporting,
            ahead: self.ahead,
            planned: self.planned.as_ref(),
            began: &self.began,
            now: self.now,
        }
    }

    /// One look, some seconds later. Looking twice at the same never changes anything.
    pub(super) fn look(&mut self, seconds: i64) -> String {
        self.now += SignedDuration::from_secs(seconds);
        let status = next(&self.facts());
        self.operation.status = Some(status.clone());
        assert_eq!(next(&self.facts()), status, "the second look at the same differs");
        let ready = conditions::get(&status.conditions, "Ready").unwrap();
        let steps: Vec<_> = status
            .steps
            .iter()
            .map(|step| {
                let took = step.took.as_ref().map(|took| format!(" {took}")).unwrap_or_default();
                format!("{}: {}{took}", step.name, step.state)
            })
            .collect();
        let reason =
            if ready.reason == status.phase.unwrap().as_str() { String::new() } else { format!("/{}", ready.reason) };
        format!("{}{reason} [{}] {}", status.phase.unwrap(), steps.join(", "), ready.message)
    }

    fn condition(&self, type_: &str) -> String {
        let status = self.operation.status.clone().unwrap();
        conditions::get(&status.conditions, type_).map_or("absent".into(), |c| format!("{}/{}", c.status, c.reason))
    }
}

fn a_move(to: &str) -> Stage {
    Stage::new(json!({"type": "Move", "move": {"to": to}}))
}

#[test]
fn a_move_goes_from_stop_to_start() {
    let mut stage = a_move("db2");
    assert_eq!(stage.look(0), "Running [stop ledger on db1: Running, start ledger on db2: Pending] stop ledger on db1");
    assert_eq!(stage.condition("Complete"), "False/Running");
    stage.began.insert("stop ledger on db1".into(), stage.now - SignedDuration::from_millis(910));
    stage.reported(GroupPhase::Stopping, "db1");
    assert!(stage.look(1).starts_with("Running [stop ledger on db1: Running, "));
    stage.reported(GroupPhase::Offline, "");
    assert_eq!(
        stage.look(0),
        "Running [stop ledger on db1: Done 1910ms, start ledger on db2: Running] start ledger on db2"
    );
    stage.reported(GroupPhase::Starting, "db2");
    stage.look(1);
    stage.reported(GroupPhase::Online, "db2");
    // This process did not see the second step begin: whole seconds.
    assert_eq!(
        stage.look(1),
        "Succeeded [stop ledger on db1: Done 1910ms, start ledger on db2: Done 2s] ledger is online on db2"
    );
    assert_eq!((stage.condition("Complete"), stage.condition("Failed")), ("True/Succeeded".into(), "absent".into()));
}

#[test]
fn steps_that_nobody_saw_are_done_all_the_same() {
    let mut stage = a_move("db2");
    stage.look(0);
    stage.reported(GroupPhase::Online, "db2");
    assert_eq!(
        stage.look(1),
        "Succeeded [stop ledger on db1: Done 1s, start ledger on db2: Done 0ms] ledger is online on db2"
    );
}

#[test]
fn the_agents_times_are_shown_when_they_report_them() {
    let mut stage = a_move("db2");
    stage.look(0);
    stage.reported(GroupPhase::Online, "db2");
    let transition = json!({"id": 7, "type": "Move", "from": "db1", "to": "db2", "epoch": 17, "time": BEGIN, "actual": "463ms",
        "chart": [{"step": "stop on db1", "at": "0ms", "took": "145ms"}, {"step": "start data", "at": "151ms", "took": "67ms"}]});
    stage.group().status.as_mut().unwrap().transitions = vec![serde_json::from_value(transition).unwrap()];
    assert_eq!(
        stage.look(1),
        "Succeeded [stop ledger on db1: Done 145ms, start ledger on db2: Done 318ms] ledger is online on db2"
    );
}

#[test]
fn a_move_is_refused_with_the_planners_reasons() {
    let mut stage = a_move("db2");
    stage.sub = running(sub_cluster("db"), &["db1"]);
    stage.group().spec.placement.servers = vec!["db1".into()];
    assert_eq!(stage.look(0), "Failed/NotEligible [] db2 may not run ledger: Lost and NotInPolicy");
    assert_eq!(
        (stage.condition("Complete"), stage.condition("Failed")),
        ("True/Failed".into(), "True/NotEligible".into())
    );
    assert_eq!(a_move("db9").look(0), "Failed/NotEligible [] db9 may not run ledger: Lost and NotInPolicy");
    let mut offline = a_move("db2");
    offline.group().spec.state = GroupState::Offline;
    assert!(offline.look(0).starts_with("Failed/Refused [] ledger has spec.state: Offline"));
    let mut held = a_move("db2");
    held.held("Stopped");
    assert!(held.look(0).starts_with("Failed/Refused [] ledger is held: Stopped (Stopped-1)"));
}

#[test]
fn a_move_without_server_takes_the_best_other_one() {
    let mut stage = Stage::new(json!({"type": "Move"}));
    assert!(stage.look(0).contains("start ledger on db2: Pending"));
    stage.reported(GroupPhase::Online, "db2");
    assert!(stage.look(0).starts_with("Succeeded"));
    let mut there = a_move("db1");
    assert_eq!(there.look(0), "Succeeded [] ledger is already online on db1");
}

#[test]
fn a_failover_comes_first() {
    let mut stage = a_move("db2");
    stage.look(0);
    let transition = Transition {
        id: 31,
        type_: TransitionType::Failover,
        from: "db1".into(),
        to: "db3".into(),
        cause: "ServerLost".into(),
        evidence: None,
        epoch: 18,
        time: Some(Time(stage.now + SignedDuration::from_secs(2))),
        predicted: None,
        actual: None,
        message: "db1 silent on ic, pub".into(),
        chart: vec![],
    };
    stage.reported(GroupPhase::Starting, "db3");
    stage.group().status.as_mut().unwrap().transitions = vec![transition];
    assert!(stage.look(3).starts_with("Superseded ["));
    assert_eq!(stage.condition("Failed"), "True/Superseded");
}

#[test]
fn a_lost_destination_ends_the_move() {
    let mut stage = a_move("db2");
    stage.look(0);
    stage.sub = running(sub_cluster("db"), &["db1"]);
    let end = stage.look(1);
    assert!(
        end.starts_with("Failed/NotEligible [stop ledger on db1: Failed 1s, start ledger on db2: Skipped]"),
        "{end}"
    );
}

#[test]
fn stop_ends_with_a_hold_and_start_releases_it() {
    let mut stop = Stage::new(json!({"type": "Stop"}));
    assert_eq!(stop.look(0), "Running [stop ledger on db1: Running] stop ledger on db1");
    stop.reported(GroupPhase::Offline, "");
    assert!(stop.look(1).starts_with("Running"), "stopped and not held is not done");
    stop.held("Stopped");
    assert_eq!(stop.look(1), "Succeeded [stop ledger on db1: Done 2s] ledger is stopped and held");

    let mut start = Stage::new(json!({"type": "Start"}));
    start.reported(GroupPhase::Offline, "");
    start.held("Stopped");
    assert_eq!(start.look(0), "Running [start ledger on db1: Running] start ledger on db1");
    start.reported(GroupPhase::Online, "db1");
    assert!(start.look(1).starts_with("Running"), "online with the hold in force is not done");
    start.group().status.as_mut().unwrap().holds.clear();
    assert_eq!(start.look(0), "Succeeded [start ledger on db1: Done 1s] ledger is online on db1");
}

#[test]
fn start_respects_what_is_declared_and_other_holds() {
    let mut offline = Stage::new(json!({"type": "Start"}));
    offline.group().spec.state = GroupState::Offline;
    assert!(offline.look(0).starts_with("Failed/Refused [] ledger has spec.state: Offline"));
    let mut paused = Stage::new(json!({"type": "Start"}));
    paused.held("Paused");
    assert!(paused.look(0).starts_with("Failed/Refused [] ledger is held: Paused (Paused-1)"));
    let mut nowhere = Stage::new(json!({"type": "Start"}));
    nowhere.reported(GroupPhase::Offline, "");
    nowhere.sub = running(sub_cluster("db"), &[]);
    assert_eq!(nowhere.look(0), "Failed/NotEligible [] no server may run ledger now: db1: Lost; db2: Lost");
}

#[test]
fn a_failure_counts_only_after_the_agents_have_tried() {
    let mut start = Stage::new(json!({"type": "Start"}));
    start.reported(GroupPhase::Failed, "");
    let status = start.group().status.as_mut().unwrap();
    status.target = Some(Target { epoch: 17, revision: Some(412), operation: "op-1".into(), ..Default::default() });
    start.look(0);
    assert!(start.look(1).starts_with("Running"), "it failed before it was asked for");
    let status = start.group().status.as_mut().unwrap();
    status.revision = Some(413);
    let message = "exit 3: cannot open journal".to_string();
    status.failures =
        vec![Failure { server: "db1".into(), resource: "app".into(), count: 1, last_time: None, message }];
    let end = start.look(1);
    assert!(end.starts_with("Failed/GroupFailed [start ledger on db1: Failed 2s] app failed on db1: exit 3"), "{end}");
}

#[test]
fn an_unproven_stop_is_a_failure() {
    for spec in [json!({"type": "Stop"}), json!({"type": "Move", "move": {"to": "db2"}})] {
        let mut stage = Stage::new(spec);
        stage.look(0);
        stage.reported(GroupPhase::Stuck, "db1");
        assert!(stage.look(1).starts_with("Failed/StopUnproven [stop ledger on db1: Failed 1s"));
    }
}

#[test]
fn it_waits_its_turn_and_for_the_agents() {
    let mut stage = a_move("db2");
    stage.ahead = Some("op-0");
    assert_eq!(stage.look(0), "Pending/WaitingForOperation [] Operation op-0 on the same group goes first");
    stage.ahead = None;
    stage.reporting = false;
    assert_eq!(stage.look(0), "Pending/WaitingForAgents [] sub-cluster db has no agent that reports now");
    stage.reporting = true;
    stage.reported(GroupPhase::Starting, "db1");
    assert_eq!(stage.look(0), "Pending/WaitingForGroup [] ledger is Starting");
    stage.reported(GroupPhase::Online, "db1");
    assert!(stage.look(0).starts_with("Running"));
}

#[test]
fn it_expires_only_before_it_has_begun() {
    let mut late = Stage::new(json!({"type": "Stop", "notAfter": "2026-03-01T00:10:00Z"}));
    late.ahead = Some("op-0");
    late.look(600);
    assert!(late.look(1).starts_with("Expired [] had not begun by 2026-03-01T00:10:00Z"));
    // One from generateName can't be told from a repeated one: an hour.
    let mut generated = Stage::new(json!({"type": "Stop"}));
    generated.operation.metadata.generate_name = Some("stop-".into());
    assert!(generated.look(3601).starts_with("Expired"));
    let mut begun = Stage::new(json!({"type": "Stop", "notAfter": "2026-03-01T00:10:00Z"}));
    begun.look(0);
    assert!(begun.look(601).starts_with("Running"));
    assert!(begun.look(1200).starts_with("Failed/Timeout [stop ledger on db1: Failed 1801s]"));
}

#[test]
fn cancel_acts_between_steps() {
    let mut before = a_move("db2");
    before.operation.spec.cancel = true;
    assert_eq!(before.look(0), "Cancelled [] cancelled before it began");
    assert_eq!((before.condition("Complete"), before.condition("Failed")), ("True/Cancelled".into(), "absent".into()));
    let mut during = a_move("db2");
    during.look(0);
    during.operation.spec.cancel = true;
    during.reported(GroupPhase::Stopping, "db1");
    assert!(during.look(1).starts_with("Running"));
    during.reported(GroupPhase::Offline, "");
    let end = during.look(1);
    assert!(end.starts_with("Cancelled [stop ledger on db1: Done 2s, start ledger on db2: Failed 0ms]"), "{end}");
}

#[test]
fn preconditions_are_compared_before_anything_is_done() {
    for (field, value, found) in
        [("uid", json!("other"), "uid-ledger"), ("generation", json!(7), "1"), ("epoch", json!(16), "17")]
    {
        let mut stage = Stage::new(json!({"type": "Stop", "preconditions": {field: value}}));
        let end = stage.look(0);
        assert!(end.starts_with("Failed/PreconditionFailed [] spec.preconditions."), "{end}");
        assert!(end.contains(field) && end.contains(&format!("found {found};")), "{end}");
    }
    let mut holds =
        Stage::new(json!({"type": "Stop", "preconditions": {"uid": "uid-ledger", "generation": 1, "epoch": 17}}));
    assert!(holds.look(0).starts_with("Running"));
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    for (spec, field) in [(json!({"type": "Takeover"}), "spec.type"), (json!({"type": "Release"}), "spec.type")] {
        let end = Stage::new(spec).look(0);
        assert!(end.starts_with("Failed/UnsupportedByServer []") && end.contains(field), "{end}");
    }
    let mut gone = Stage::new(json!({"type": "Stop"}));
    gone.group = None;
    assert!(gone.look(0).starts_with("Failed/NotFound [] spec.target.name"));
}

fn restarted(stage: &mut Stage) {
    stage.group().status.as_mut().unwrap().restarted_by = "op-1".into();
}

#[test]
fn a_restart_is_done_when_the_agents_say_that_this_operation_restarted_it() {
    let mut stage = Stage::new(json!({"type": "Restart"}));
    assert!(stage.look(0).starts_with("Running [stop ledger on db1: Running, start ledger on db1: Pending]"));
    // Still, or again, online: only who restarted it tells.
    assert!(stage.look(1).starts_with("Running [stop ledger on db1: Running"));
    stage.reported(GroupPhase::Stopping, "db1");
    assert!(stage.look(1).starts_with("Running [stop ledger on db1: Running"));
    stage.reported(GroupPhase::Offline, "");
    assert!(stage.look(1).starts_with("Running [stop ledger on db1: Done 3s, start ledger on db1: Running]"));
    stage.reported(GroupPhase::Starting, "db1");
    restarted(&mut stage);
    assert!(stage.look(1).starts_with("Running"));
    stage.reported(GroupPhase::Online, "db1");
    restarted(&mut stage);
    let end = stage.look(1);
    assert!(end.starts_with("Succeeded [stop ledger on db1: Done 3s, start ledger on db1: Done 2s]"), "{end}");
    assert!(end.ends_with("ledger was restarted on db1"), "{end}");
}

#[test]
fn a_restart_that_can_not_be_or_came_to_nothing_says_why() {
    let refused = |prepare: &dyn Fn(&mut Stage)| {
        let mut stage = Stage::new(json!({"type": "Restart"}));
        prepare(&mut stage);
        stage.look(0)
    };
    let end = refused(&|stage| stage.reported(GroupPhase::Offline, ""));
    assert!(end.starts_with("Failed/Refused []") && end.contains("holdfast start ledger"), "{end}");
    let end = refused(&|stage| stage.held("Stopped"));
    assert!(end.starts_with("Failed/Refused []") && end.contains("Stopped (Stopped-1)"), "{end}");
    let end = refused(&|stage| stage.reported(GroupPhase::Stuck, "db1"));
    assert!(end.starts_with("Failed/StopUnproven []"), "{end}");
    let end = refused(&|stage| restarted(stage));
    assert!(end.starts_with("Failed/Refused []") && end.contains("use another name"), "{end}");
    let end = refused(&|stage| stage.reported(GroupPhase::Starting, "db1"));
    assert!(end.starts_with("Pending/WaitingForGroup []"), "{end}");

    let came_to = |report: &dyn Fn(&mut Stage)| {
        let mut stage = Stage::new(json!({"type": "Restart"}));
        stage.look(0);
        report(&mut stage);
        stage.look(1)
    };
    let end = came_to(&|stage| stage.reported(GroupPhase::Starting, "db2"));
    assert!(end.starts_with("Superseded [") && end.contains("left db1 before it was restarted there"), "{end}");
    let end = came_to(&|stage| stage.reported(GroupPhase::Stuck, "db1"));
    assert!(end.starts_with("Failed/StopUnproven ["), "{end}");
    let end = came_to(&|stage| {
        stage.reported(GroupPhase::Online, "db2");
        restarted(stage);
    });
    assert!(end.starts_with("Failed/GroupFailed [stop ledger on db1: Done") && end.contains("on db2 instead"), "{end}");
}

#[test]
fn what_is_over_stays_as_it_is() {
    let mut stage = a_move("db1");
    let end = stage.look(0);
    stage.reported(GroupPhase::Offline, "");
    assert_eq!(stage.look(100), end);
    assert_eq!(stage.operation.status.unwrap().phase, Some(OperationPhase::Succeeded));
}

/// RotateKey on db, whose servers have these (sealing, held).
fn rotation(secret: &[u32], servers: &[(&str, u32, &[u32])]) -> Stage {
    let mut stage = Stage::new(json!({"type": "RotateKey", "target": {"kind": "SubCluster", "name": "db"}}));
    stage.group = None;
    stage.about = About::Keys(None);
    keys(&mut stage, secret, servers);
    stage
}

fn keys(stage: &mut Stage, secret: &[u32], servers: &[(&str, u32, &[u32])]) {
    let reported = |(name, sealing, held): &(&str, u32, &[u32])| {
        let keys = HeartbeatKeys { sealing: *sealing, held: held.to_vec() };
        ((*name).to_string(), (*sealing > 0).then_some(keys))
    };
    let keys = Keys { secret: secret.to_vec(), servers: servers.iter().map(reported).collect() };
    stage.about = About::Keys(Some(keys));
}

#[test]
fn a_key_is_rotated_step_by_step_and_no_server_is_left_behind() {
    let mut stage = rotation(&[1], &[("db1", 1, &[1]), ("db2", 0, &[])]);
    assert!(stage.look(1).contains("waiting for db2"));
    keys(&mut stage, &[1], &[("db1", 1, &[1]), ("db2", 1, &[1])]);
    assert!(stage.look(1).contains("add key 2"));
    keys(&mut stage, &[1, 2], &[("db1", 1, &[1, 2]), ("db2", 1, &[1])]);
    assert!(stage.look(1).contains("every server uses key 2"));
    keys(&mut stage, &[1, 2], &[("db1", 2, &[1, 2]), ("db2", 1, &[1, 2])]);
    assert!(stage.look(1).contains("every server uses key 2"), "one of two is not enough");
    keys(&mut stage, &[1, 2], &[("db1", 2, &[1, 2]), ("db2", 2, &[1, 2])]);
    assert!(stage.look(1).contains("remove key 1"));
    keys(&mut stage, &[2], &[("db1", 2, &[2]), ("db2", 2, &[1, 2])]);
    assert!(stage.look(1).contains("remove key 1"), "db2 still takes it");
    keys(&mut stage, &[2], &[("db1", 2, &[2]), ("db2", 2, &[2])]);
    let told = stage.look(1);
    assert!(told.starts_with("Succeeded [add key 2: Done"), "{told}");
    assert!(told.ends_with("key 2 is the only one that any server uses or takes"), "{told}");
}

#[test]
fn a_rotation_that_a_server_holds_up_ends_with_its_name_and_both_keys() {
    let mut stage = rotation(&[1], &[("db1", 1, &[1]), ("db2", 1, &[1])]);
    stage.look(1);
    keys(&mut stage, &[1, 2], &[("db1", 1, &[1, 2]), ("db2", 1, &[1])]);
    stage.look(1);
    let told = stage.look(7200);
    assert!(told.contains("waiting for db1 (uses key 1 of [1, 2]) and db2 (uses key 1 of [1])"), "{told}");
    assert!(told.contains("the old key goes on"), "{told}");
    assert!(told.starts_with("Failed/Timeout"), "{told}");
}
