//! What a plan of an Operation promises.

use holdfast_api::v1::{GroupPhase, OperationPhase, OperationPlan, Transition};
use serde_json::json;

use super::tests::Stage;

/// Ledger was moved before: its stop took 40 ms, its start 110 ms.
fn moved_before(stage: &mut Stage) {
    let transition: Transition = serde_json::from_value(json!({
        "id": 1, "type": "Move", "from": "db2", "to": "db1", "actual": "150ms",
        "chart": [{"step": "stop on db2", "at": "0ms", "took": "40ms"}, {"step": "start app", "at": "40ms", "took": "100ms"}],
    }))
    .unwrap();
    stage.group().status.as_mut().unwrap().transitions = vec![transition];
}

fn planned(mut spec: serde_json::Value, prepare: impl Fn(&mut Stage)) -> (String, OperationPlan) {
    spec["mode"] = json!("Plan");
    let mut stage = Stage::new(spec);
    prepare(&mut stage);
    let said = stage.look(0);
    let status = stage.operation.status.unwrap();
    assert!(status.steps.is_empty(), "nothing is to be carried out: {said}");
    (said, status.plan.unwrap_or_default())
}

fn words(plan: &OperationPlan) -> String {
    let steps: Vec<&str> = plan.actions.iter().map(|action| action.step.as_str()).collect();
    let outage =
        |outage: &Option<holdfast_api::duration::Duration>| outage.as_ref().map_or("?".to_owned(), ToString::to_string);
    let away: Vec<String> =
        plan.disruption.iter().map(|one| format!("{} {}", one.group, outage(&one.outage))).collect();
    format!("{} | {} | {}", steps.join("; "), away.join(", "), plan.warnings.join("; "))
}

#[test]
fn a_plan_of_a_move_tells_its_steps_and_the_measured_outage_and_does_nothing() {
    let (said, plan) = planned(json!({"type": "Move", "move": {"to": "db2"}}), moved_before);
    assert_eq!(said, "Succeeded [] planned; nothing was done");
    assert_eq!(words(&plan), "stop ledger on db1; start ledger on db2 | ledger 150ms | ");
    let (_, unmeasured) = planned(json!({"type": "Move", "move": {"to": "db2"}}), |_| {});
    assert!(words(&unmeasured).contains("| ledger ? | how long ledger is away is not known"), "{}", words(&unmeasured));
    assert_eq!(plan.digest, unmeasured.digest, "what is done is the same, however long it takes");
    let (_, stop) = planned(json!({"type": "Stop"}), moved_before);
    assert!(
        words(&stop).starts_with("stop ledger on db1 | ledger ? | ledger stays stopped: DeclaredOffline"),
        "{}",
        words(&stop)
    );
}

#[test]
fn what_would_be_refused_or_wait_says_so_in_its_plan() {
    let (said, _) = planned(json!({"type": "Move", "move": {"to": "db9"}}), |_| {});
    assert!(said.starts_with("Failed/NotEligible [] db9 may not run ledger"), "{said}");
    let (said, plan) =
        planned(json!({"type": "Move", "move": {"to": "db2"}}), |stage| stage.reported(GroupPhase::Stopping, "db1"));
    assert!(
        said.starts_with("Succeeded [] planned; nothing was done; it would wait first: ledger is Stopping"),
        "{said}"
    );
    assert!(plan.actions.is_empty() && plan.warnings[0].contains("would wait first"), "{plan:?}");
    let (_, plan) = planned(json!({"type": "Move", "move": {"to": "db2"}}), |stage| stage.ahead = Some("stop-1"));
    assert_eq!(plan.warnings[0], "Operation stop-1 on the same target goes first");
}

#[test]
fn with_a_digest_it_runs_only_while_that_is_still_the_plan() {
    let (_, plan) = planned(json!({"type": "Move", "move": {"to": "db2"}}), |_| {});
    let spec = json!({"type": "Move", "move": {"to": "db2"}, "planDigest": plan.digest});
    let mut same = Stage::new(spec.clone());
    assert!(same.look(0).starts_with("Running [stop ledger on db1: Running, "));
    assert_eq!(same.operation.status.as_ref().unwrap().plan.as_ref().unwrap().digest, plan.digest);

    let mut other = Stage::new(spec);
    other.planned = Some(plan);
    other.reported(GroupPhase::Offline, "");
    let said = other.look(0);
    assert!(said.starts_with("Failed/PlanDiffers [] spec.planDigest: asked for sha256:"), "{said}");
    assert!(
        said.contains("which was [stop ledger on db1; start ledger on db2], interrupting [ledger]; found "),
        "{said}"
    );
    assert!(said.contains(": [start ledger on db2], interrupting []; nothing was done"), "{said}");
    assert_eq!(other.operation.status.unwrap().phase, Some(OperationPhase::Failed));
}
