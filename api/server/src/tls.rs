//! TLS of the listening side: the handshake, and who the peer is by its certificate.
//!
//! A client certificate is asked for, not demanded; one that this server's CA did not sign ends the handshake. HTTP/2
//! and HTTP/1.1 are offered. What a name may do is decided elsewhere, and so is how long a handshake may take.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::identity::{Acceptor, Connection, Identity};
use crate::pki::{self, Pki, PkiError};

/// How often a running server looks whether its certificates need to be made anew.
const RENEWAL_CHECK: Duration = Duration::from_secs(86_400);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is not usable.
    #[error("the certificates in the data directory cannot be used: {0}")]
    Unusable(String),
    /// The certificates could not be renewed.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The TLS side of the server.
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Serves with the certificate of `pki` and knows clients by its CA.
    ///
    /// # Errors
    /// [`TlsError::Unusable`].
    pub fn new(pki: &Pki) -> Result<Self, TlsError> {
        Ok(Self { config: RwLock::new(config(pki)?) })
    }

    /// Starts looking once a day whether the certificates need to be made anew, with the arguments of
    /// [`Pki::load`]. New connections get the new certificate; the task ends with `tls`.
    pub fn renew_daily(self: &Arc<Self>, data_dir: PathBuf, listen: SocketAddr, sans: Vec<String>) -> JoinHandle<()> {
        let tls = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL_CHECK).await;
                let Some(tls) = tls.upgrade() else { return };
                let (data_dir, sans) = (data_dir.clone(), sans.clone());
                let renew = move || -> Result<(), TlsError> {
                    let config = config(&Pki::load(&data_dir, listen, &sans)?)?;
                    *tls.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                    Ok(())
                };
                match tokio::task::spawn_blocking(renew).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "could not look after the certificates; trying again in a day")
                    }
                    Err(error) => tracing::warn!(%error, "looking after the certificates did not finish"),
                }
            }
        })
    }
}

#[async_trait::async_trait]
impl Acceptor for Tls {
    async fn accept(&self, connection: TcpStream) -> io::Result<(Box<dyn Connection>, Option<Identity>)> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let stream = TlsAcceptor::from(config).accept(connection).await?;
        let identity = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Some(identity(certificate)?),
            None => None,
        };
        Ok((Box::new(stream), identity))
    }
}

fn config(pki: &Pki) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pki.ca_pem().as_bytes()) {
        roots.add(root.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|e| unusable(&e))?;
    // With the CA at its end: who joins knows nothing of it but its fingerprint.
    let chain = pki.server().pem.clone() + pki.ca_pem();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pki.server().key_pem.as_bytes()).map_err(|e| unusable(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.map_err(|e| unusable(&e))?, key)
        .map_err(|e| unusable(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The user is the common name, the groups are the organizations.
fn identity(certificate: &CertificateDer<'_>) -> io::Result<Identity> {
    let refused = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| refused(format!("the client's certificate cannot be read: {error}")))?;
    let (user, groups) = pki::subject(&certificate);
    if user.is_empty() {
        return Err(refused("the client's certificate has no common name, so it names no user".to_owned()));
    }
    Ok(Identity { until: Some(certificate.validity().not_after.timestamp()), ..Identity::new(user, groups) })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kube::config::{KubeConfigOptions, Kubeconfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request per connection with the name and groups of its peer, until dropped.
    async fn whoami(tls: Tls, listener: TcpListener) {
        let tls = Arc::new(tls);
        while let Ok((connection, _)) = listener.accept().await {
            let tls = Arc::clone(&tls);
            tokio::spawn(async move {
                let Ok((mut stream, identity)) = tls.accept(connection).await else { return };
                let identity = identity.unwrap_or_else(Identity::anonymous);
                let body = format!("{} in {}", identity.user, identity.groups.join(","));
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    }

    async fn ask(kubeconfig: &str) -> Result<String, kube::Error> {
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = kube::Client::try_from(config.expect("a configuration")).expect("a client");
        client.request_text(http::Request::get("/whoami").body(Vec::new()).expect("a request")).await
    }

    #[tokio::test]
    async fn clients_are_known_by_the_certificates_in_their_kubeconfigs() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        pki::Ca::load_or_create(dir.path()).expect("a CA");
        let pki = Pki::load(dir.path(), address, &[]).expect("certificates");
        let server = tokio::spawn(whoami(Tls::new(&pki).expect("tls"), listener));

        let admin = std::fs::read_to_string(pki.admin_kubeconfig()).expect("the admin's kubeconfig");
        assert_eq!(ask(&admin).await.expect("an answer"), "holdfast-admin in system:masters");

        let by_name = format!("https://localhost:{}", address.port());
        let agent = pki::issue_agent_kubeconfig(dir.path(), &by_name, "ha", "db", "db1").expect("a kubeconfig");
        assert_eq!(ask(&agent).await.expect("an answer"), "holdfast:server:ha:db:db1 in holdfast:servers");

        let mut nobody: serde_yaml::Value = serde_yaml::from_str(&admin).expect("yaml");
        nobody["users"][0]["user"] = serde_yaml::Value::Mapping(serde_yaml::Mapping::new());
        let nobody = serde_yaml::to_string(&nobody).expect("yaml");
        assert_eq!(ask(&nobody).await.expect("an answer"), "system:anonymous in system:unauthenticated");

        // Neither side accepts what another CA signed.
        let other_dir = tempfile::tempdir().expect("a directory");
        pki::Ca::load_or_create(other_dir.path()).expect("a CA");
        let other = Pki::load(other_dir.path(), address, &[]).expect("certificates");
        let stranger = other.issue_client("holdfast-admin", "system:masters").expect("a certificate");
        assert!(ask(&pki::kubeconfig(pki.url(), pki.ca_pem(), "stranger", &stranger)).await.is_err());
        assert!(ask(&std::fs::read_to_string(other.admin_kubeconfig()).expect("a kubeconfig")).await.is_err());
        server.abort();
    }

    #[tokio::test]
    async fn http2_is_offered_and_version_1_1_too() {
        let dir = tempfile::tempdir().expect("a directory");
        pki::Ca::load_or_create(dir.path()).expect("a CA");
        let pki = Pki::load(dir.path(), ([127, 0, 0, 1], 1).into(), &[]).expect("certificates");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("pem")).expect("a root");
        let tls = Arc::new(Tls::new(&pki).expect("tls"));
        for offered in ["h2", "http/1.1"] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let tls = Arc::clone(&tls);
            tokio::spawn(async move { tls.accept(listener.accept().await.expect("a connection").0).await.map(drop) });
            let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.alpn_protocols = vec![offered.as_bytes().to_vec()];
            let connection = TcpStream::connect(address).await.expect("connected");
            let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
            let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, connection).await;
            assert_eq!(stream.expect("a handshake").get_ref().1.alpn_protocol(), Some(offered.as_bytes()));
        }
    }
}
