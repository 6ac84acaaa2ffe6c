//! What the statuses say about how long things took: what a prediction rests on.

use std::time::Duration;

use holdfast_planner::{Measured, Times};

use crate::v1::{FailoverGroup, SubCluster, Transition, TransitionType};

/// Transitions that are looked at, newest first; the middle one counts, so that one that failed does not.
const LOOKED_AT: usize = 5;

/// How long the stop and the start of a group took, from its transitions, newest first.
pub fn times(transitions: &[Transition]) -> Times {
    let stops = transitions.iter().filter_map(stop);
    let starts = transitions.iter().filter_map(start);
    Times { stop: middle(stops), start: middle(starts) }
}

/// What is measured of a sub-cluster and its groups.
pub fn measured<'a>(sub: &SubCluster, groups: impl IntoIterator<Item = &'a FailoverGroup>) -> Measured {
    let timing = sub.status.as_ref().and_then(|status| status.timing.as_ref());
    let one = |group: &FailoverGroup| {
        let transitions = group.status.as_ref().map_or(&[][..], |status| &status.transitions);
        Some((group.metadata.name.clone()?, times(transitions)))
    };
    Measured {
        groups: groups.into_iter().filter_map(one).collect(),
        takeover: timing.and_then(|timing| timing.cluster_part.as_ref()).map(|part| part.get()),
    }
}

/// The shares of a transition that come before its start: waiting for evidence, or the stop elsewhere.
fn before(transition: &Transition) -> Duration {
    let others = transition.chart.iter().filter(|step| !step.step.starts_with("start "));
    others.map(|step| step.took.get()).sum()
}

fn stop(transition: &Transition) -> Option<Duration> {
    match transition.type_ {
        TransitionType::Stop => transition.actual.as_ref().map(|actual| actual.get()),
        _ => transition.chart.iter().find(|step| step.step.starts_with("stop on ")).map(|step| step.took.get()),
    }
}

fn start(transition: &Transition) -> Option<Duration> {
    // One that was not started there failed, or was stopped.
    let started = transition.chart.iter().any(|step| step.step.starts_with("start "));
    let actual = transition.actual.as_ref().filter(|_| started && !transition.to.is_empty())?;
    Some(actual.get().saturating_sub(before(transition)))
}

fn middle(values: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut values: Vec<Duration> = values.take(LOOKED_AT).collect();
    values.sort();
    // Of two the newer would be as good; the longer one promises less.
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transition(type_: &str, actual: &str, chart: serde_json::Value) -> Transition {
        serde_json::from_value(
            json!({"id": 1, "type": type_, "from": "a", "to": "b", "actual": actual, "chart": chart}),
        )
        .expect("a transition")
    }

    #[test]
    fn a_takeover_and_a_move_tell_how_long_a_start_takes_and_a_move_the_stop() {
        let takeover = transition(
            "Failover",
            "1400ms",
            json!([{"step": "Detect", "at": "0ms", "took": "1000ms"}, {"step": "Wait", "at": "1000ms", "took": "300ms"},
                {"step": "start app", "at": "1300ms", "took": "80ms"}]),
        );
        assert_eq!(
            times(std::slice::from_ref(&takeover)),
            Times { stop: None, start: Some(Duration::from_millis(100)) }
        );
        let moved = transition(
            "Move",
            "150ms",
            json!([{"step": "stop on a", "at": "0ms", "took": "40ms"}, {"step": "start app", "at": "40ms", "took": "110ms"}]),
        );
        let both = times(&[moved, takeover]);
        assert_eq!(both, Times { stop: Some(Duration::from_millis(40)), start: Some(Duration::from_millis(110)) });
    }

    #[test]
    fn one_start_that_hung_does_not_count() {
        let took =
            |actual: &str| transition("Start", actual, json!([{"step": "start app", "at": "0ms", "took": "5ms"}]));
        let all = [took("60s"), took("20ms"), took("30ms")];
        assert_eq!(times(&all).start, Some(Duration::from_millis(30)));
        assert_eq!(times(&[]), Times::default());
    }
}
