//! A group goes back to its first server by the clock: `placement.failback` with a window.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::v1::{GroupPhase, TransitionType};
use holdfast_lab::{boottime_ns, wait_for};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// The start of the minute in which this time is.
fn minute_of(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second() / 60 * 60).expect("a time")
}

/// Lets the group go back in a window that begins at this time of every day, in UTC.
fn set_window(documents: &mut [(PathBuf, Value)], start: Timestamp, length: &str) {
    let mut all = documents.iter_mut().map(|(_, document)| document);
    let group = all.find(|document| document["kind"] == "FailoverGroup").expect("the example's group");
    let start = start.strftime("%H:%M");
    let failback = format!("{{mode: Window, window: {{start: '{start}', length: {length}}}}}");
    group["spec"]["placement"]["failback"] = serde_yaml::from_str(&failback).expect("YAML");
}

#[test]
fn a_group_goes_back_once_its_window_opens_and_not_before() {
    let far = Timestamp::now() + SignedDuration::from_hours(12);
    let mut trial =
        Trial::start_with("failback-window", "two-servers", Default::default(), |all| set_window(all, far, "1m"));
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&first).expect("a power cut");
    trial.served_by(std::slice::from_ref(&second), before);
    trial.cluster.power_on(&first).expect("power");
    trial.all_return(epoch + 1);
    trial.all_active();

    // A minute that begins in five seconds at the earliest.
    let opens = minute_of(Timestamp::now() + SignedDuration::from_secs(65));
    trial.cluster.change(&|all| set_window(all, opens, "10m")).expect("the change is accepted");
    let wait = opens.duration_since(Timestamp::now()).unsigned_abs() + LIMIT;
    let status = wait_for("the group to be back", wait, |last| {
        let (asked, status) = (Timestamp::now(), trial.cluster.group(GROUP)?.status.unwrap_or_default());
        *last = format!("{:?} on {:?}", status.phase, status.server);
        if Timestamp::now() < opens {
            assert_eq!(status.phase, Some(GroupPhase::Online), "{asked}: it stays until {opens}");
            assert_eq!(status.server.as_ref(), Some(&second), "{asked}: it stays until {opens}");
        }
        Ok((status.phase == Some(GroupPhase::Online) && status.server.as_ref() == Some(&first)).then_some(status))
    })
    .expect("the window is open");
    let back = status.transitions.first().expect("it is recorded");
    assert_eq!((back.type_, back.from.as_str(), back.to.as_str()), (TransitionType::Failback, &*second, &*first));
    // Times of transitions are whole seconds.
    let began = back.time.as_ref().expect("a time").0;
    assert!(began >= opens && began < opens + SignedDuration::from_secs(10), "{began}, it opened at {opens}");
    trial.served_by(std::slice::from_ref(&first), boottime_ns());
    trial.pass(Duration::from_secs(1));
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}
