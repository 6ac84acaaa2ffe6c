//! Brakes on real hosts: what an operator sees, and how it is released.

use holdfast_api::conditions::State;
use holdfast_lab::wait_for;

use crate::harness::{GROUP, LIMIT, Trial};

#[test]
fn a_group_that_was_moved_too_often_is_held_and_says_so_until_its_failures_are_cleared() {
    let trial = Trial::two_with("brakes", &|document| {
        document["spec"]["brakes"] = serde_yaml::from_str("{maxMovesPerGroup: 1, movesWithin: 1h}").expect("YAML");
    });
    let first = trial.active();
    let second = trial.others(&first)[0].clone();
    let epoch = trial.epoch();
    trial.cluster.power_cut(&first).expect("no power");
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("the first move");
    trial.cluster.power_on(&first).expect("power");
    trial.all_return(epoch);

    trial.cluster.power_cut(&second).expect("no power");
    wait_for("the brake", LIMIT, |last| {
        let status = trial.status();
        *last = format!("{:?} {:?} {:?}", status.phase, status.holds, status.conditions);
        let condition = status.conditions.iter().find(|condition| condition.type_ == "BrakeOn");
        Ok(condition
            .filter(|condition| {
                condition.status == State::True.as_str()
                    && condition.reason == "TooManyMoves"
                    && condition.message.contains("moved 1 times by itself within 3600 s (brakes.maxMovesPerGroup)")
            })
            .map(drop))
    })
    .expect("it is said");
    let holds: Vec<String> = trial.status().holds.iter().map(|hold| hold.type_.clone()).collect();
    assert_eq!(holds, ["Brake"]);
    let events = trial.cluster.holdfast(&["get", "events", "-n", "ha", "-o", "json"]).expect("events");
    assert!(events.contains("\"HoldPlaced\"") && events.contains("held: Brake"), "{events}");
    let why = trial.cluster.holdfast(&["why", &format!("group/{GROUP}"), "-n", "ha"]).expect("why");
    assert!(why.contains("Brake") && why.contains(&format!("holdfast clear-failures {GROUP}")), "{why}");
    assert_eq!(trial.traces(&first), Vec::<String>::new(), "nothing of it runs");

    trial.cluster.holdfast(&["clear-failures", GROUP, "-n", "ha", "--reason", "the power is mended"]).expect("cleared");
    trial.cluster.wait_online(GROUP, Some(&first), LIMIT).expect("it is taken over");
    wait_for("the condition to go", LIMIT, |_| {
        Ok(trial.status().conditions.iter().all(|condition| condition.type_ != "BrakeOn").then_some(()))
    })
    .expect("it is over");
    trial.cluster.power_on(&second).expect("power");
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}
