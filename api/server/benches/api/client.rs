//! The client program: connections over TLS with the administrator's certificate, requests whose answers are read but not
//! understood, and watches whose events are counted.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Result;

/// A request: method, path, media type of the body, body.
pub(crate) type Call = (Method, String, &'static str, Vec<u8>);

/// Connects to one server.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    plain: TlsConnector,
    multiplexed: TlsConnector,
}

/// A connection that carries one request at a time.
pub(crate) struct Connection(http1::SendRequest<Full<Bytes>>);

impl Client {
    /// A client of the server at `address` whose certificates are in `pki`.
    pub(crate) fn new(address: SocketAddr, pki: &Path) -> Result<Client> {
        let connector = |protocol: &[u8]| -> Result<TlsConnector> {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(pki.join("ca.crt"))?)?;
            let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(pki.join("admin.crt"))?],
                    PrivateKeyDer::from_pem_file(pki.join("admin.key"))?,
                )?;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Client { address, plain: connector(b"http/1.1")?, multiplexed: connector(b"h2")? })
    }

    async fn stream(&self, connector: &TlsConnector) -> Result<TokioIo<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(connector.connect(ServerName::try_from("localhost")?, stream).await?))
    }

    /// A new HTTP/1.1 connection.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let (sender, connection) = http1::handshake(self.stream(&self.plain).await?).await?;
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    /// Watches of `path`, so many at once, over HTTP/2 with `each` on a connection. Comes back when all are open.
    pub(crate) async fn watch(&self, path: &str, watchers: usize, each: usize) -> Result<Watchers> {
        let counted = Arc::new(Counted::default());
        let mut tasks = JoinSet::new();
        let mut opened = 0;
        while opened < watchers {
            let stream = self.stream(&self.multiplexed).await?;
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            for _ in 0..each.min(watchers - opened) {
                let uri = format!("https://localhost{path}");
                let answer = sender.send_request(Request::get(uri).body(Full::<Bytes>::default())?).await?;
                if !answer.status().is_success() {
                    return Err(format!("a watch was answered with {}", answer.status()).into());
                }
                tasks.spawn(count(answer.into_body(), Arc::clone(&counted)));
                opened += 1;
            }
        }
        Ok(Watchers { counted, _tasks: tasks })
    }
}

impl Connection {
    /// Sends a request and reads the whole answer. One that is not a success is an error.
    pub(crate) async fn call(&mut self, (method, path, media, body): Call) -> Result<Bytes> {
        self.0.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(&path)
            .header("host", "localhost")
            .header("content-type", media)
            .body(Full::new(Bytes::from(body)))?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(format!("{path} was answered with {status}: {}", String::from_utf8_lossy(&body)).into())
        }
    }
}

/// Open watches. They end when this is dropped.
pub(crate) struct Watchers {
    counted: Arc<Counted>,
    _tasks: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Counted {
    events: AtomicU64,
    awaited: AtomicU64,
    reached: Notify,
}

impl Watchers {
    /// Events that all of them together have seen.
    pub(crate) fn events(&self) -> u64 {
        self.counted.events.load(Ordering::SeqCst)
    }

    /// Waits until they have seen so many, and tells when that was.
    pub(crate) async fn until(&self, events: u64) -> Instant {
        self.counted.awaited.store(events, Ordering::SeqCst);
        while self.events() < events {
            self.counted.reached.notified().await;
        }
        Instant::now()
    }
}

/// Counts the lines of a watch's answer: each is an event.
async fn count(mut body: Incoming, counted: Arc<Counted>) -> Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64;
        let seen = counted.events.fetch_add(lines, Ordering::SeqCst) + lines;
        if seen >= counted.awaited.load(Ordering::SeqCst) {
            counted.reached.notify_one();
        }
    }
    Ok(())
}
