//! Metrics in the OpenMetrics text form, which Prometheus reads.
//!
//! Every metric is a [`Described`] constant of the room that measures it; docs/reference/metrics.md is made from these
//! constants. What is counted as it happens is registered with [`Metrics::counters`] and the like; what is a picture of a
//! state is given by a [`Source`] when somebody asks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use crate::process::LIST as OF_EVERY_PROCESS;
use crate::process::Process;

/// Media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total` where it is shown.
    Counter,
    /// A value of now.
    Gauge,
    /// How often values fell below bounds, with their sum and count.
    Histogram,
}

/// A metric: what people and programs have to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Its name as Prometheus shows it; of a counter with `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence, with the unit.
    pub help: &'static str,
}

impl Described {
    /// The name without what the text form adds.
    fn base(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

/// Describes the metrics of a room: a constant for each, and `LIST` of all of them in this order.
#[macro_export]
macro_rules! described {
    ($(#[$list:meta])* $($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(static $id: $crate::metrics::Described = $crate::metrics::Described {
            name: $name, kind: $crate::metrics::Kind::$kind, labels: &[$($label),*], help: $help,
        };)*
        $(#[$list])*
        pub static LIST: &[&$crate::metrics::Described] = &[$(&$id),*];
    };
}

/// Labels of one time series.
pub type Labels = Vec<(&'static str, String)>;

/// A value of a metric that is a picture of a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Of what.
    pub of: &'static Described,
    /// Values of its labels, in their order.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// A sample.
    pub fn new(of: &'static Described, labels: &[&str], value: f64) -> Sample {
        debug_assert_eq!(of.labels.len(), labels.len(), "labels of {}", of.name);
        Sample { of, labels: labels.iter().map(|&label| label.to_owned()).collect(), value }
    }
}

/// What knows a state; asked whenever somebody wants metrics.
pub trait Source: Send + Sync + 'static {
    /// The state as samples, in any order.
    fn samples(&self) -> Vec<Sample>;
}

impl<F: Fn() -> Vec<Sample> + Send + Sync + 'static> Source for F {
    fn samples(&self) -> Vec<Sample> {
        self()
    }
}

/// The metrics of this process. Clones are the same one.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    /// With what every process has: time of processors, memory, open files.
    fn default() -> Metrics {
        let metrics = Metrics(Arc::default());
        metrics.state(Process);
        metrics
    }
}

impl Metrics {
    /// Counters, one for each set of labels.
    pub fn counters(&self, of: &'static Described) -> Counters {
        self.register(of, Family::default())
    }

    /// Gauges, one for each set of labels.
    pub fn gauges(&self, of: &'static Described) -> Gauges {
        self.register(of, Family::default())
    }

    /// Histograms of seconds, one for each set of labels, with these upper bounds.
    pub fn histograms(&self, of: &'static Described, bounds: &'static [f64]) -> Histograms {
        self.register(of, Family::new_with_constructor(Bounds(bounds)))
    }

    /// What a state says of itself.
    pub fn state(&self, source: impl Source) {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(State(Box::new(source))));
    }

    /// All of them, in the text form.
    pub fn text(&self) -> String {
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn register<M: prometheus_client::registry::Metric + Clone>(&self, of: &'static Described, metric: M) -> M {
        // The library adds the full stop.
        let (name, help) = (of.base(), of.help.strip_suffix('.').unwrap_or(of.help));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric.clone());
        metric
    }
}

/// Counters by their labels.
pub type Counters = Family<Labels, Counter>;
/// Gauges by their labels.
pub type Gauges = Family<Labels, Gauge>;
/// Histograms by their labels.
pub type Histograms = Family<Labels, Histogram, Bounds>;

/// Upper bounds of a histogram.
#[derive(Debug, Clone, Copy)]
pub struct Bounds(&'static [f64]);

impl prometheus_client::metrics::family::MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// A source as the library wants it.
struct State(Box<dyn Source>);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = self.0.samples();
        // All of one metric stand together.
        samples.sort_by(|a, b| (a.of.name, &a.labels).cmp(&(b.of.name, &b.labels)));
        for group in samples.chunk_by(|a, b| a.of.name == b.of.name) {
            let Some(of) = group.first().map(|sample| sample.of) else { continue };
            let kind = if of.kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(of.base(), of.help, None, kind)?;
            let write = |value: f64, encoder: MetricEncoder<'_>| match of.kind {
                Kind::Counter => ConstCounter::new(value).encode(encoder),
                Kind::Gauge | Kind::Histogram => ConstGauge::new(value).encode(encoder),
            };
            if of.labels.is_empty() {
                // One series, without braces.
                if let Some(sample) = group.first() {
                    write(sample.value, family)?;
                }
                continue;
            }
            for sample in group {
                let labels: Labels = of.labels.iter().copied().zip(sample.labels.iter().cloned()).collect();
                write(sample.value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Described =
        Described { name: "path_up", kind: Kind::Gauge, labels: &["path", "peer"], help: "1 if it is up." };
    const ASKED: Described =
        Described { name: "asked_total", kind: Kind::Counter, labels: &["verb"], help: "Requests." };
    const TOOK: Described = Described { name: "took_seconds", kind: Kind::Histogram, labels: &[], help: "Time." };

    #[test]
    fn counters_states_and_histograms_have_the_form_that_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.counters(&ASKED).get_or_create(&vec![("verb", "get".into())]).inc_by(3);
        metrics.histograms(&TOOK, &[0.1, 1.0]).get_or_create(&Vec::new()).observe(0.5);
        metrics.state(|| vec![Sample::new(&UP, &["b\"", "x"], 0.0), Sample::new(&UP, &["a", "x"], 1.0)]);
        let text = metrics.text();
        let own: Vec<&str> = text.lines().filter(|line| !line.contains("process_")).collect();
        assert_eq!(
            own,
            [
                "# HELP asked Requests.",
                "# TYPE asked counter",
                "asked_total{verb=\"get\"} 3",
                "# HELP took_seconds Time.",
                "# TYPE took_seconds histogram",
                "took_seconds_sum{} 0.5",
                "took_seconds_count{} 1",
                "took_seconds_bucket{le=\"0.1\"} 0",
                "took_seconds_bucket{le=\"1.0\"} 1",
                "took_seconds_bucket{le=\"+Inf\"} 1",
                "# HELP path_up 1 if it is up.",
                "# TYPE path_up gauge",
                "path_up{path=\"a\",peer=\"x\"} 1.0",
                "path_up{path=\"b\\\"\",peer=\"x\"} 0.0",
                "# EOF",
            ]
        );
        assert!(text.contains("process_resident_memory_bytes ") && text.contains("process_cpu_seconds_total "));
    }
}
