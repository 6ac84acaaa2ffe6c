//! `holdfast server`, `apiserver` and `controller`: the long-running processes of the control plane. Opens what they
//! need, wires it together, says one line when ready, and stops cleanly on SIGINT or SIGTERM.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use holdfast_apiserver::authority::{self, AuthorityError};
use holdfast_apiserver::identity::MASTERS;
use holdfast_apiserver::keys::Keys;
use holdfast_apiserver::pki::Pki;
use holdfast_apiserver::tls::Tls;
use holdfast_apiserver::{Server, Settings};
use holdfast_controller::{Election, Identity};
use holdfast_store::{Store, TlsFiles};
use holdfast_telemetry::endpoint;
use holdfast_telemetry::metrics::Metrics;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::args::{ControllerArgs, ElectionArgs, PlaceArgs, ServerArgs, StoreArgs};
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// The controller's name in requests of `holdfast server`.
const CONTROLLER: &str = "holdfast-controller";
/// How long the controller may finish what it has begun when the process was told to stop.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a store that does not answer at the start is asked again.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// What a process consists of.
#[derive(Debug)]
pub(crate) enum Parts {
    /// The API server.
    Api,
    /// The API server, and the controller beside it.
    ApiAndController(ElectionArgs),
    /// The API server, with nothing but what locks need.
    Locks,
}

/// Runs the API server, and the controller beside it if asked for.
///
/// # Errors
/// When the data directory, the store, the certificates or the address can't be used, or a part ends by itself.
pub(crate) async fn run(args: ServerArgs, parts: Parts, printer: Printer) -> Result {
    let ServerArgs { place: args, agent_certificate_life } = args;
    let stopping = stop_signals()?;
    make_directory(&args.data_dir)?;
    let metrics = Metrics::default();
    let controller = match &parts {
        Parts::ApiAndController(election) => {
            let settings = candidate(election, &args.data_dir)?;
            Some(holdfast_controller::Settings { metrics: metrics.clone(), ..settings })
        }
        Parts::Api | Parts::Locks => None,
    };
    let store = open_store(&args.store, &args.data_dir)?;
    let Some((keys, store)) = establish(store, &args.data_dir, stopped(stopping.clone())).await? else {
        return Ok(());
    };
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::refused(format!("cannot listen on {}: {error}", args.listen)).hint(
            "another server may run there; choose another address with --listen ADDR:PORT, port 0 takes a free one",
        )
    })?;
    let address = listener.local_addr()?;
    let pki = Pki::load(&args.data_dir, address, &args.sans).map_err(Failure::refused_by)?;
    let tls = Arc::new(Tls::new(&pki).map_err(anyhow::Error::from)?);
    let renewal = tls.renew_daily(args.data_dir.clone(), address, args.sans.clone());
    let settings = match parts {
        Parts::Locks => Settings::locks(store, keys),
        Parts::Api | Parts::ApiAndController(_) => Settings::new(store, keys).map_err(anyhow::Error::from)?,
    };
    let settings = Settings { agent_life: agent_certificate_life, metrics, ..settings };
    let server = Arc::new(Server::new(settings).map_err(anyhow::Error::from)?);

    let (controller_ended, ended) = watch::channel(controller.is_none());
    let controller = async {
        let Some(settings) = controller else { return std::future::pending().await };
        server.ready().await;
        let stop = stopped(stopping.clone());
        let outcome = holdfast_controller::run(client_of(&server), settings, stop).await;
        controller_ended.send_replace(true);
        match outcome {
            // As told; the API server ends next.
            Ok(()) => std::future::pending().await,
            Err(error) => Err(Failure::from(anyhow::Error::from(error).context("the controller ended"))),
        }
    };
    let announce = async {
        server.ready().await;
        printer.data(&format!("ready: {}, kubeconfig {}", pki.url(), pki.admin_kubeconfig().display()))?;
        std::future::pending().await
    };
    // ORDER: the controller finishes its work first, for that it needs the API server.
    let shutdown = async {
        stopped(stopping.clone()).await;
        let _ = tokio::time::timeout(CONTROLLER_PATIENCE, stopped(ended)).await;
    };
    let serve = async {
        let served = server.serve(listener, tls.clone(), shutdown).await;
        served.map_err(|error| Failure::from(error).context("the API server ended"))
    };
    let outcome: Result = tokio::select! {
        outcome = serve => outcome,
        outcome = controller => outcome,
        outcome = announce => outcome,
    };
    renewal.abort();
    outcome
}

/// The keys of the store, once it answers; none if the process was told to stop before.
async fn establish(
    store: Arc<dyn Store>,
    data_dir: &Path,
    stop: impl Future<Output = ()>,
) -> Result<Option<(Keys, Arc<dyn Store>)>> {
    let mut stop = std::pin::pin!(stop);
    let mut told = false;
    loop {
        match authority::establish(Arc::clone(&store), data_dir).await {
            Ok(found) => return Ok(Some(found)),
            Err(AuthorityError::Store(error @ holdfast_store::Error::Unavailable(_))) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "waiting for the store; nothing is served before it answers");
                }
            }
            Err(error) => return Err(Failure::refused_by(error)),
        }
        tokio::select! {
            () = tokio::time::sleep(STORE_RETRY) => {}
            () = &mut stop => return Ok(None),
        }
    }
}

/// Runs the controller alone.
///
/// # Errors
/// When the kubeconfig can't be used, or the controller ends by itself.
pub(crate) async fn controller(args: ControllerArgs, printer: Printer) -> Result {
    let stopping = stop_signals()?;
    let unusable = |error: kube::config::KubeconfigError| {
        Failure::refused(format!("no usable kubeconfig in {}: {error}", args.kubeconfig.display()))
            .hint("the server writes DIR/admin.kubeconfig into its data directory")
    };
    let kubeconfig = Kubeconfig::read_from(&args.kubeconfig).map_err(unusable)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?;
    let url = config.cluster_url.clone();
    let client = holdfast_agent::api_client::client(config)?;
    let settings = in_election(&args.election, Identity::fresh());
    if let Some(address) = args.metrics {
        tokio::spawn(endpoint::serve_at(address, settings.metrics.clone()));
    }
    printer.data(&format!("ready: controller of {url}"))?;
    holdfast_controller::run(client, settings, stopped(stopping))
        .await
        .map_err(|error| anyhow::Error::from(error).context("the controller ended").into())
}

/// Opens the store that the flags name.
pub(crate) fn open_store(args: &StoreArgs, data_dir: &Path) -> Result<Arc<dyn Store>> {
    holdfast_store::open(&args.store, data_dir, tls_files(args).as_ref()).map_err(Failure::refused_by)
}

/// The files for TLS that the flags name.
pub(crate) fn tls_files(args: &StoreArgs) -> Option<TlsFiles> {
    let client = args.etcd_cert.clone().zip(args.etcd_key.clone());
    args.etcd_ca.clone().map(|ca| TlsFiles { ca, client })
}

/// The controller that may start again under the same name, which the data directory keeps.
fn candidate(election: &ElectionArgs, directory: &Path) -> Result<holdfast_controller::Settings> {
    let identity = Identity::kept_in(directory).map_err(|error| {
        Failure::refused(format!("cannot use {}: {error}", directory.join("controller.id").display()))
            .hint("check that this user may read and write there; without the file the server makes a new one")
    })?;
    Ok(in_election(election, identity))
}

fn in_election(election: &ElectionArgs, identity: Identity) -> holdfast_controller::Settings {
    let election = Election { namespace: election.lease_namespace.clone(), identity: Arc::new(identity) };
    holdfast_controller::Settings { election: Some(election), ..Default::default() }
}

/// A client of the server in this process: no socket, no TLS between.
fn client_of(server: &Server) -> kube::Client {
    let service = server.service(Some(holdfast_apiserver::Identity::new(CONTROLLER, [MASTERS])));
    let service = service.map_request(|request: http::Request<kube::client::Body>| request.map(Body::new));
    kube::Client::new(service, "default")
}

/// Makes what a server makes at its first start, without serving.
///
/// # Errors
/// As [`run`].
pub(crate) async fn prepare(args: &PlaceArgs) -> Result<Pki> {
    let stopping = stop_signals()?;
    make_directory(&args.data_dir)?;
    let store = open_store(&args.store, &args.data_dir)?;
    let prepared = establish(store, &args.data_dir, stopped(stopping)).await?;
    prepared.ok_or_else(|| Failure::refused("stopped before the store answered"))?;
    Pki::load(&args.data_dir, args.listen, &args.sans).map_err(Failure::refused_by)
}

/// Becomes true when the process is told to stop.
fn stop_signals() -> Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("told to stop");
        sender.send_replace(true);
        // Kept until the end: a closed channel would look like a signal.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Makes the data directory, for its owner only.
pub(crate) fn make_directory(directory: &Path) -> Result {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        Failure::refused(format!("cannot make the data directory {}: {error}", directory.display()))
            .hint("choose another one with --data-dir DIR")
    })
}
