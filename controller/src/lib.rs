//! The controller: compares what is declared with what is observed and writes down what follows. It checks specs over
//! several objects (condition `Accepted`), makes Server objects, computes a target for every group with the planner,
//! carries out Operations step by step, and sums everything up in the SuperCluster.
//!
//! It works against any API server that speaks the Kubernetes protocol and knows our kinds. It never decides who is
//! alive, and nothing that it does or leaves undone stops a group: agents drop targets that were computed from a placement
//! that is no longer the newest one. All its memory is in the objects; it may be stopped and started at any time.

mod context;
mod election;
mod error;
pub mod metrics;
mod reconcilers;
mod watch;
pub mod what_if;
mod write;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use holdfast_telemetry::metrics::Metrics;
use kube::Client;

pub use election::{Election, Identity, NAMESPACE as LEASE_NAMESPACE};
pub use error::Error;

/// Name under which the controller reports Events.
pub const NAME: &str = "holdfast-controller";

/// What can be set from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// An agent whose last report is older does not report. Agents report at least every 60 s. Default 150 s.
    pub report_timeout: Duration,
    /// Everything is looked at again after so long, whether or not anything changed. Default 60 s.
    pub resync: Duration,
    /// Name of this process in Events; default: the name of the host.
    pub instance: Option<String>,
    /// The metrics of the process. Default: with those of the controller alone.
    pub metrics: Metrics,
    /// With it only one of several controllers acts; without it this one acts whatever others do. Default: without.
    pub election: Option<Election>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            report_timeout: Duration::from_secs(150),
            resync: Duration::from_secs(60),
            instance: None,
            metrics: Metrics::default(),
            election: None,
        }
    }
}

/// Runs until `shutdown` is ready; work that has begun is finished first. In an election it acts while it is the leader, and
/// stands by otherwise.
///
/// An API server that is away or does not answer is waited for. Fails if something ends that must not end while the
/// controller runs.
pub async fn run(
    client: Client,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let election = settings.election.clone();
    let measured = metrics::Measured::new(&settings.metrics);
    let acting = Arc::new(Mutex::new(Weak::new()));
    settings.metrics.state({
        let acting = Arc::clone(&acting);
        move || metrics::samples(&acting.lock().unwrap_or_else(PoisonError::into_inner))
    });
    // Each term begins with an empty memory: what was seen before may be old.
    let work = |client, stop| {
        let (context, writers) = context::Context::new(client, settings.clone(), measured.clone());
        let context = Arc::new(context);
        *acting.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&context);
        let measured = measured.clone();
        async move {
            measured.leads(true);
            let outcome = watch::run(context, writers, stop).await;
            measured.leads(false);
            outcome
        }
    };
    let stop: election::Stop = shutdown.boxed().shared();
    match election {
        Some(election) => election::lead(client, election, stop, work).await,
        None => work(client, stop).await,
    }
}
