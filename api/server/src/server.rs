//! The server as a whole: starts the background work, serves connections, stops cleanly.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use holdfast_store::Store;
use holdfast_telemetry::metrics::Metrics;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::Service;

use crate::feed::Feed;
use crate::flow::Flow;
use crate::identity::{Acceptor, Connection, Identity};
use crate::keys::Keys;
use crate::metrics::Measured;
use crate::openapi::Documents;
use crate::probe::Probe;
use crate::registry::{DefinitionError, Registry};
use crate::state::State;
use crate::{bootstrap, gc, router, upkeep};

/// How long open requests may go on after the server was told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams per HTTP/2 connection; Go clients run all their watches over one.
const STREAMS: u32 = 1000;
/// An HTTP/1.1 connection without a request is closed after this time. Clients close theirs after 90 s, before this, so
/// that no request meets a connection that is just being closed.
const IDLE: Duration = Duration::from_secs(150);
/// An HTTP/2 connection whose peer does not answer pings in this rhythm is given up.
const PING: Duration = Duration::from_secs(30);
/// Pause before another connection is accepted when the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Life of an agent's certificate where nothing else is asked for: a year.
pub const AGENT_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// What a server needs.
pub struct Settings {
    /// Where objects live.
    pub store: Arc<dyn Store>,
    /// The keys of the store, see [`crate::authority::establish`].
    pub keys: Keys,
    /// Longest life of a certificate that an agent is given, 10 s to 10 years; it renews it after two thirds.
    pub agent_life: Duration,
    /// CustomResourceDefinitions to serve, in their JSON form. [`Settings::new`] takes those of `holdfast.dev`.
    pub crds: Vec<Value>,
    /// Plurals of the built-in kinds to serve; none: all of them.
    pub builtin: Option<&'static [&'static str]>,
    /// The metrics of the process, which `GET /metrics` answers. Default: with those of the server alone.
    pub metrics: Metrics,
}

/// What a quorum server needs: Leases, the namespaces that they are in, and who may do what.
const LOCKS: &[&str] =
    &["leases", "namespaces", "selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];

impl Settings {
    /// Serves the kinds of `holdfast.dev` beside the built-in ones.
    pub fn new(store: Arc<dyn Store>, keys: Keys) -> Result<Settings, serde_json::Error> {
        let crds = holdfast_api::crds().iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        Ok(Settings { store, keys, agent_life: AGENT_LIFE, crds, builtin: None, metrics: Metrics::default() })
    }

    /// Serves what a quorum server needs, and nothing else.
    pub fn locks(store: Arc<dyn Store>, keys: Keys) -> Settings {
        let (crds, metrics) = (Vec::new(), Metrics::default());
        Settings { store, keys, agent_life: AGENT_LIFE, crds, builtin: Some(LOCKS), metrics }
    }
}

/// A running API server. Background work ends when it is dropped.
pub struct Server {
    state: Arc<State>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts the background work: filling the caches, collecting, compaction. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a CustomResourceDefinition can't be served.
    pub fn new(settings: Settings) -> Result<Server, DefinitionError> {
        let mut registry = Registry::new(&settings.crds)?;
        if let Some(plurals) = settings.builtin {
            registry.keep(plurals);
        }
        let feed = Feed::new(Arc::clone(&settings.store), &registry);
        let (stop, stopping) = watch::channel(false);
        let state = Arc::new(State {
            store: settings.store,
            keys: settings.keys,
            agent_life: settings.agent_life,
            openapi: Documents::new(registry.all()),
            registry,
            feed,
            flow: Flow::default(),
            measured: Measured::new(settings.metrics),
            probe: Probe::default(),
            stopping,
        });
        state.measured.watch(&state);
        let shared = || Arc::clone(&state);
        let tasks = vec![
            tokio::spawn({
                let state = shared();
                async move { state.feed.run().await }
            }),
            tokio::spawn({
                let state = shared();
                async move { upkeep::until_done("make what is there from the start", || bootstrap::ensure(&state)).await }
            }),
            tokio::spawn(gc::run(shared())),
            tokio::spawn(upkeep::compact(shared())),
        ];
        Ok(Server { state, stop, tasks })
    }

    /// Waits until everything is readable: caches filled, namespace `default` there.
    pub async fn ready(&self) {
        let Some(namespaces) = self.state.registry.find("", "v1", "namespaces") else { return };
        let key = namespaces.key("", "default");
        let mut applied = self.state.feed.subscribe();
        while self.state.feed.cache(namespaces).is_none_or(|cache| cache.get(&key).is_none()) {
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is served, e.g. for documents that describe it.
    pub fn registry(&self) -> &Registry {
        &self.state.registry
    }

    /// A tower service for requests of one identity, for clients in the same process.
    pub fn service(&self, identity: Option<Identity>) -> ApiService {
        ApiService { state: Arc::clone(&self.state), identity }
    }

    /// Serves connections until `shutdown` completes; then streams end, and open requests get a few seconds.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(
        &self,
        listener: TcpListener,
        acceptor: Arc<dyn Acceptor>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (acceptor, state) = (Arc::clone(&acceptor), Arc::clone(&self.state));
                        connections.spawn(connection(state, acceptor, stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        self.stop.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, drained).await.is_err() {
            tracing::info!("open requests are cut off");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn connection(state: Arc<State>, acceptor: Arc<dyn Acceptor>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is not set");
    }
    let (stream, identity) = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!("a handshake took too long");
            return;
        }
    };
    serve_stream(state, stream, identity).await;
}

async fn serve_stream(state: Arc<State>, stream: Box<dyn Connection>, identity: Option<Identity>) {
    let mut stopping = state.stopping.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (state, identity) = (Arc::clone(&state), identity.clone());
        async move { Ok::<_, Infallible>(router::handle(state, identity, request.map(Body::new)).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING).max_concurrent_streams(STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// The API as a tower service.
#[derive(Clone)]
pub struct ApiService {
    state: Arc<State>,
    identity: Option<Identity>,
}

impl Service<Request<Body>> for ApiService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (state, identity) = (Arc::clone(&self.state), self.identity.clone());
        Box::pin(async move { Ok(router::handle(state, identity, request).await) })
    }
}
