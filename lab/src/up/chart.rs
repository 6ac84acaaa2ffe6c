//! The time chart of a takeover as text: one bar per step, all on one scale.

use std::time::Duration;

use holdfast_api::v1::{ChartStep, FailoverGroup};

use crate::poller::Outage;

/// Columns of the bars.
const WIDTH: u128 = 50;

/// The newest transition of a group, and what the client saw of it.
pub(super) fn takeover(group: &FailoverGroup, outage: &Outage, timeout: Duration) -> String {
    let name = group.metadata.name.as_deref().unwrap_or_default();
    let newest = group.status.as_ref().and_then(|status| status.transitions.first());
    let mut text = format!("takeover of {name} from {} to {}", outage.before, outage.after);
    if let Some(transition) = newest {
        let evidence = transition.evidence.map(|kind| format!(", evidence {kind:?}")).unwrap_or_default();
        text.push_str(&format!(" ({}{evidence}, epoch {})", transition.cause, transition.epoch));
        text.push_str("\n\n");
        text.push_str(&bars(&transition.chart));
    } else {
        text.push('\n');
    }
    let beyond = outage.length.saturating_sub(timeout);
    text.push_str(&format!(
        "\nclient-seen outage {} ms: {} ms heartbeat timeout and {} ms beyond it\n",
        outage.length.as_millis(),
        timeout.as_millis(),
        beyond.as_millis()
    ));
    text
}

/// One line per step: its name, when it began, its bar, how long it took.
fn bars(chart: &[ChartStep]) -> String {
    let end = chart.iter().map(|step| (step.at.get() + step.took.get()).as_micros()).max().unwrap_or(0).max(1);
    let names = chart.iter().map(|step| step.step.chars().count()).max().unwrap_or(0);
    let column = |micros: u128| usize::try_from(micros * WIDTH / end).unwrap_or(0);
    chart
        .iter()
        .map(|step| {
            let (at, took) = (step.at.get(), step.took.get());
            let before = column(at.as_micros());
            let length = column((at + took).as_micros()).saturating_sub(before).max(1);
            let bar = format!("{}{}", " ".repeat(before), "█".repeat(length));
            format!(
                "  {:names$}  {:>8}  {bar:width$}  {}\n",
                step.step,
                milliseconds(at),
                milliseconds(took),
                width = usize::try_from(WIDTH).unwrap_or(0) + 1
            )
        })
        .collect()
}

/// Milliseconds; below ten with one decimal.
fn milliseconds(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 10_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, at: u64, took: u64) -> ChartStep {
        let time = holdfast_api::duration::Duration::from_millis;
        ChartStep { step: name.into(), at: time(at), took: time(took) }
    }

    #[test]
    fn bars_stand_where_their_steps_are_on_one_scale() {
        let text = bars(&[step("Detect", 0, 900), step("Resolve", 900, 0), step("start data", 900, 100)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].matches('█').count(), 45, "{text}");
        assert_eq!(lines[1].matches('█').count(), 1, "even no time at all is visible: {text}");
        assert_eq!(lines[2].matches('█').count(), 5, "{text}");
        assert_eq!(lines[2].chars().position(|c| c == '█'), lines[1].chars().position(|c| c == '█'), "{text}");
        assert!(lines[2].ends_with("100 ms") && lines[2].starts_with("  start data    900 ms"), "{text}");
    }
}
