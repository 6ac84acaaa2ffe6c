//! What is measured, with targets and peers, and the table that is printed. Pure.

use std::collections::BTreeMap;

/// How a figure is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Per second; more is better.
    Rate,
    /// Milliseconds; less is better.
    Milliseconds,
    /// MiB; less is better.
    Mebibytes,
}

/// What is measured: name, unit, the design's target, and a stock API server's figure (1.36 on etcd 3.6, on two cores that
/// client and etcd shared).
const FIGURES: &[(&str, Unit, Option<f64>, &str)] = &[
    ("resident memory, idle", Unit::Mebibytes, Some(25.0), "271 MiB"),
    ("store alone: conditional creates, 16 writers", Unit::Rate, None, ""),
    ("store alone: gets, 16 readers", Unit::Rate, None, ""),
    ("create, 16 writers", Unit::Rate, Some(3500.0), "711/s"),
    ("create, 16 writers: p99", Unit::Milliseconds, Some(15.0), "59 ms"),
    ("resident memory, 10,000 objects", Unit::Mebibytes, Some(100.0), "631 MiB"),
    ("status patch, 16 writers", Unit::Rate, Some(3000.0), "453/s"),
    ("forced apply, 16 writers", Unit::Rate, Some(2500.0), "437/s"),
    ("get, 16 connections", Unit::Rate, Some(15000.0), "1,455/s"),
    ("get, 16 connections: p99", Unit::Milliseconds, Some(4.0), "40 ms"),
    ("list of 1,000, one connection", Unit::Rate, Some(300.0), "15/s"),
    ("list of 10,000, one connection", Unit::Rate, Some(30.0), "1.5/s"),
    ("one write to 100 watchers, last one: p99", Unit::Milliseconds, Some(4.0), "11.3 ms"),
    ("1,000 writes, 100 watchers: events", Unit::Rate, Some(150_000.0), "26,150/s"),
    ("one write to 1,000 watchers, last one: p99", Unit::Milliseconds, None, ""),
    ("one write to 10,000 watchers, last one: p99", Unit::Milliseconds, None, ""),
    ("resident memory, 10,000 watchers", Unit::Mebibytes, None, ""),
    ("resident memory, 20,000 objects", Unit::Mebibytes, None, ""),
    ("list of 20,000, one connection", Unit::Rate, None, ""),
];

/// The figures that the store alone gives, by what they stand beside.
const ALONE: [(&str, &[&str]); 2] = [
    (
        "store alone: conditional creates, 16 writers",
        &["create, 16 writers", "status patch, 16 writers", "forced apply, 16 writers"],
    ),
    ("store alone: gets, 16 readers", &["get, 16 connections"]),
];

/// Figures of several runs.
pub(crate) struct Sheet(BTreeMap<&'static str, Vec<f64>>);

impl Sheet {
    pub(crate) fn new() -> Sheet {
        Sheet(BTreeMap::new())
    }

    /// Notes a figure of a run. The name is one of the table's.
    pub(crate) fn note(&mut self, name: &'static str, value: f64) {
        debug_assert!(FIGURES.iter().any(|figure| figure.0 == name), "{name} is not in the table");
        self.0.entry(name).or_default().push(value);
    }

    /// The table: median, worst, the ratio to the store alone, target, verdict, peer.
    pub(crate) fn lines(&self) -> Vec<String> {
        let head = format!(
            "{:46} {:>11} {:>11} {:>9} {:>11} {:8} {:>9}",
            "", "median", "worst", "of store", "target", "", "stock"
        );
        let rows = FIGURES.iter().filter_map(|(name, unit, target, stock)| {
            let values = self.0.get(name)?;
            let (median, worst) = (median(values), worst(values, *unit));
            let alone = ALONE.iter().find(|(_, beside)| beside.contains(name)).and_then(|(alone, _)| self.0.get(alone));
            let ratio = alone.map_or_else(String::new, |alone| format!("{:.2}", median / self::median(alone)));
            let reached = target.map(|target| if *unit == Unit::Rate { median >= target } else { median <= target });
            let verdict = reached.map_or("", |reached| if reached { "reached" } else { "missed" });
            let target = target.map_or_else(String::new, |target| text(target, *unit));
            let (median, worst) = (text(median, *unit), text(worst, *unit));
            Some(format!("{name:46} {median:>11} {worst:>11} {ratio:>9} {target:>11} {verdict:8} {stock:>9}"))
        });
        std::iter::once(head).chain(rows).collect()
    }
}

fn text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Rate if value < 100.0 => format!("{value:.1}/s"),
        Unit::Rate => format!("{value:.0}/s"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Mebibytes => format!("{value:.0} MiB"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn worst(values: &[f64], unit: Unit) -> f64 {
    let pick = if unit == Unit::Rate { f64::min } else { f64::max };
    values.iter().copied().reduce(pick).unwrap_or_default()
}
