//! What the API server measures, for Prometheus, under the names that dashboards of a stock API server know.

use std::sync::{Arc, Weak};
use std::time::Instant;

use axum::body::Body;
use holdfast_telemetry::described;
use holdfast_telemetry::metrics::{Counters, Histograms, MEDIA_TYPE, Metrics, Sample};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use crate::state::State;

described! {
    /// All that an API server measures.
    REQUESTS Counter "apiserver_request_total" ["verb", "group", "resource", "code"]
        "Requests by verb, resource and HTTP status; verb and resource are empty where none was found out.";
    TOOK Histogram "apiserver_request_duration_seconds" ["verb", "group", "resource"]
        "Time from the request to the begin of its answer, in seconds; without watches.";
    WATCHES Gauge "apiserver_longrunning_requests" ["verb", "group", "resource"]
        "Open watches.";
    OBJECTS Gauge "apiserver_storage_objects" ["resource"]
        "Objects in the store, as resource.group.";
    FOLLOWED Gauge "holdfast_store_followed" []
        "1 while changes of the store arrive; otherwise reads are answered from memory and may be old.";
    REVISION Gauge "holdfast_store_revision" []
        "Newest revision of the store that reads show.";
}

/// Upper bounds of the histogram, in seconds.
const BOUNDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What is counted as it happens.
pub(crate) struct Measured {
    requests: Counters,
    took: Histograms,
    all: Metrics,
}

impl Measured {
    /// Registered with the metrics of the process.
    pub(crate) fn new(all: Metrics) -> Measured {
        Measured { requests: all.counters(&REQUESTS), took: all.histograms(&TOOK, BOUNDS), all }
    }

    /// Also what the caches show.
    pub(crate) fn watch(&self, state: &Arc<State>) {
        let state = Arc::downgrade(state);
        self.all.state(move || Weak::upgrade(&state).map(|state| of_state(&state)).unwrap_or_default());
    }

    /// The answer to `GET /metrics`.
    pub(crate) fn answer(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.all.text()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }

    /// Notes a request that was answered.
    pub(crate) fn note(&self, request: &Asked, code: u16) {
        let mut labels = vec![
            ("verb", request.verb.to_owned()),
            ("group", request.group.clone()),
            ("resource", request.resource.clone()),
        ];
        if !matches!(request.verb, "" | "watch") {
            self.took.get_or_create(&labels).observe(request.begun.elapsed().as_secs_f64());
        }
        labels.push(("code", code.to_string()));
        self.requests.get_or_create(&labels).inc();
    }
}

/// What was found out about a request so far.
pub(crate) struct Asked {
    begun: Instant,
    verb: &'static str,
    group: String,
    resource: String,
}

impl Asked {
    /// Nothing yet.
    pub(crate) fn now() -> Asked {
        Asked { begun: Instant::now(), verb: "", group: String::new(), resource: String::new() }
    }

    /// What it is about. Only for what is served: a stranger's words must not become time series.
    pub(crate) fn about(&mut self, verb: &'static str, group: &str, resource: &str) {
        (self.verb, self.group, self.resource) = (verb, group.to_owned(), resource.to_owned());
    }
}

fn of_state(state: &State) -> Vec<Sample> {
    let mut samples = vec![
        Sample::new(&FOLLOWED, &[], f64::from(u8::from(state.feed.lost().is_none()))),
        // As exact as a float is.
        Sample::new(&REVISION, &[], state.feed.applied() as f64),
    ];
    for def in state.registry.stored() {
        let Some(cache) = state.feed.cache(def) else { continue };
        let full = if def.group.is_empty() { def.plural.clone() } else { format!("{}.{}", def.plural, def.group) };
        samples.push(Sample::new(&OBJECTS, &[&full], cache.len() as f64));
        samples.push(Sample::new(&WATCHES, &["watch", &def.group, &def.plural], cache.watchers() as f64));
    }
    samples
}
