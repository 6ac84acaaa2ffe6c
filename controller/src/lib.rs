//! The controller: compares what is declared with what is observed and writes down what follows. It checks specs over
//! several objects (condition `Accepted`), makes Server objects, computes a target for every group with the planner,
//! carries out Operations step by step, and sums everything up in the SuperCluster.
//!
//! It works against any API server that speaks the Kubernetes protocol and knows our kinds. It never decides who is
//! alive, and nothing that it does or leaves undone stops a group: agents drop targets that were computed from a placement
//! that is no longer the newest one. All its memory is in the objects; it may be stopped and started at any time.

mod context;
mod error;
mod reconcilers;
mod watch;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;

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
}

impl Default for Settings {
    fn default() -> Self {
        Self { report_timeout: Duration::from_secs(150), resync: Duration::from_secs(60), instance: None }
    }
}

/// Runs until `shutdown` is ready; work that has begun is finished first.
///
/// An API server that is away or does not answer is waited for. Fails if something ends that must not end while the
/// controller runs.
pub async fn run(
    client: Client,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let (context, writers) = context::Context::new(client, settings);
    watch::run(Arc::new(context), writers, shutdown).await
}
