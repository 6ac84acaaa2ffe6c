//! The agent's side of the API: takes accepted specifications and keys, gives status and Events.
//!
//! Nothing in a sub-cluster depends on it: while the API is away, for however long, the durable cache is what is acted
//! by; when it returns, everything is read again and reported again, with what happened meanwhile. Several URLs are
//! tried in turn.

mod events;
mod history;
mod report;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::v1::{ExecResult, GivenCommand, ProgramStatus, UnusableResource};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::{Notify, watch};

use crate::api_client;
use crate::cgroup::Hierarchy;
use crate::config::AgentConfig;
use crate::convert::server_status::{Facts, GuardView};
use crate::driver_loop::Snapshot;
use crate::exec;
use crate::given::Given;
use crate::join::renewal;
use crate::notes::Notes;

pub use history::History;
pub use report::Reporter;
pub use session::Follower;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Why the API could not be used, this time.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The credentials can't be used.
    #[error("the credentials {path} can't be used: {reason}; they are a kubeconfig with this server's certificate")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A request failed.
    #[error("{what}: {source}")]
    Request {
        /// What was asked for.
        what: String,
        /// What came back.
        source: kube::Error,
    },
    /// A watch failed.
    #[error("watching {what}: {source}")]
    Watch {
        /// What was watched.
        what: &'static str,
        /// What came back.
        source: kube::runtime::watcher::Error,
    },
    /// No answer.
    #[error("{what}: no answer within {ANSWER:?}")]
    Silent {
        /// What was asked for.
        what: String,
    },
    /// A watch ended.
    #[error("the watch of {0} has ended")]
    Ended(&'static str),
    /// The credentials were renewed: the connection begins anew with them.
    #[error("the credentials were renewed")]
    Renewed,
    /// What was read can't be kept.
    #[error(transparent)]
    Cache(#[from] crate::spec_cache::CacheError),
}

impl ApiError {
    fn request(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ApiError {
        let what = what.into();
        move |source| ApiError::Request { what, source }
    }

    /// HTTP status of a refusal; none if there was no answer.
    fn code(&self) -> Option<u16> {
        match self {
            ApiError::Request { source: kube::Error::Api(status), .. } => Some(status.code),
            _ => None,
        }
    }
}

/// An error with what it comes from.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Runs a request with a bound on the time that it may take.
async fn within<T>(what: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(result) => result.map_err(ApiError::request(what)),
        Err(_) => Err(ApiError::Silent { what: what.to_owned() }),
    }
}

/// A client for one of the URLs; none: the one in the credentials.
pub(crate) async fn client(config: &AgentConfig, url: Option<&str>) -> Result<Client, ApiError> {
    let fail = |reason: String| ApiError::Credentials { path: config.credentials.clone(), reason };
    let mut kubeconfig = Kubeconfig::read_from(&config.credentials).map_err(|e| fail(e.to_string()))?;
    if let Some(url) = url {
        for cluster in &mut kubeconfig.clusters {
            if let Some(cluster) = &mut cluster.cluster {
                cluster.server = Some(url.to_owned());
            }
        }
    }
    let mut made = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| fail(e.to_string()))?;
    made.default_namespace.clone_from(&config.namespace);
    made.connect_timeout = Some(Duration::from_secs(3));
    api_client::client(made).map_err(|e| fail(e.to_string()))
}

/// What was found on this server of what groups need, and what came of operators' commands.
#[derive(Debug, Clone)]
struct Found {
    /// Programs that resources run.
    programs: watch::Receiver<Vec<ProgramStatus>>,
    /// Resources that can't be carried out here.
    unusable: watch::Receiver<Vec<UnusableResource>>,
    /// Results of operators' commands.
    exec: watch::Receiver<Vec<ExecResult>>,
    /// Commands that were given here.
    commands: watch::Receiver<Vec<GivenCommand>>,
}

/// What the reporter tells about beside the core's word.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Newest snapshot of the driver loop.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The guard.
    pub guard: watch::Receiver<GuardView>,
    /// The machine.
    pub facts: Arc<Facts>,
    /// Events.
    pub notes: Notes,
    /// Transitions that the API doesn't have yet.
    pub history: History,
    /// Commands that were given here.
    pub given: Given,
    /// The process ends: one last report is wanted.
    pub ending: Arc<Notify>,
}

/// Follows and reports until one last report was given after `ending`.
/// `cgroups`: those of this agent.
pub async fn run(config: AgentConfig, mut follower: Follower, sources: Sources, cgroups: Hierarchy) {
    let (directory, server) = (config.data_dir.join("exec"), config.server.clone());
    let found = follower.look(exec::Place { directory, cgroups, server }, &sources.given);
    tokio::spawn(history::keep(sources.snapshots.clone(), sources.history.clone()));
    let renewed = Arc::new(Notify::new());
    tokio::spawn({
        let (config, renewed) = (config.clone(), Arc::clone(&renewed));
        async move { renewal::keep(&config, &renewed).await }
    });
    let urls: Vec<Option<String>> =
        if config.api.is_empty() { vec![None] } else { config.api.iter().cloned().map(Some).collect() };
    let mut pause = PAUSE.0;
    let mut told = false;
    for url in urls.iter().cycle() {
        let connected = client(&config, url.as_deref()).await;
        let began = tokio::time::Instant::now();
        let ended = match connected {
            Ok(client) => session::run(client, &config, &mut follower, &sources, found.clone(), &renewed).await,
            Err(e) => Err(e),
        };
        let error = match ended {
            Ok(()) => return,
            Err(ApiError::Renewed) => continue,
            Err(error) => error,
        };
        // A session that lasted shows that the API is there. The same trouble is told once.
        let lasted = began.elapsed() > Duration::from_secs(30);
        if lasted || !told {
            let url = url.as_deref().unwrap_or("of the credentials");
            let error = whole(&error);
            tracing::warn!(url, "the API can't be used: {error}; going on with what is known, and trying again");
        }
        told = true;
        pause = if lasted { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sources.ending.notified() => return,
        }
    }
}
