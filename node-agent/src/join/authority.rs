//! Who answers: the API server shows its CA in the handshake, and the token says by which key that CA is known. Nothing
//! is sent before both fit, and the server's certificate is of that CA and names the address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{ANSWER, JoinError};

/// What a CA is known by: `sha256:` and the digest of the public key (SubjectPublicKeyInfo) of its certificate (DER); none
/// if that is no certificate.
pub fn fingerprint(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(format!("sha256:{:x}", Sha256::digest(certificate.public_key().raw)))
}

/// Accepts the server whose chain holds the CA of the fingerprint, and is good by it.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = |ca: &&CertificateDer<'_>| fingerprint(ca).as_ref() == Some(&self.fingerprint);
        let Some(ca) = intermediates.iter().find(is_pinned) else {
            return Err(Error::General(format!("none of its certificates is of the CA {}", self.fingerprint)));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate (PEM) of the CA with this fingerprint, from the API server at `url`.
pub(super) async fn fetch(url: &str, fingerprint: &str) -> Result<String, JoinError> {
    let (host, port) = address(url).ok_or_else(|| JoinError::Url { found: url.to_owned() })?;
    let stranger = |reason: String| JoinError::Stranger { url: url.to_owned(), reason };
    let unreachable = |reason: String| JoinError::Unreachable { url: url.to_owned(), reason };
    let name = ServerName::try_from(host.clone()).map_err(|_| JoinError::Url { found: url.to_owned() })?;
    let provider = Arc::new(ring::default_provider());
    let (found, fingerprint) = (Mutex::new(None), fingerprint.to_owned());
    let verifier = Arc::new(Pinned { fingerprint, provider: Arc::clone(&provider), found });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| stranger(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let connection = within(connect(&host, port))
        .await
        .unwrap_or_else(|| Err(no_answer()))
        .map_err(|e| unreachable(e.to_string()))?;
    let handshake = within(TlsConnector::from(Arc::new(config)).connect(name, connection)).await;
    handshake.unwrap_or_else(|| Err(no_answer())).map_err(|e| stranger(e.to_string()))?;
    let ca = verifier.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    let ca = ca.ok_or_else(|| stranger("it showed no certificate".to_owned()))?;
    Ok(super::credentials::pem("CERTIFICATE", &ca))
}

async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare, port)).await?.collect();
    TcpStream::connect(&addresses[..]).await
}

async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    let limit: Duration = ANSWER;
    tokio::time::timeout(limit, work).await.ok()
}

fn no_answer() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} s", ANSWER.as_secs()))
}

/// Host (addresses of IPv6 without brackets) and port of an https URL without path.
fn address(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("https://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port != 0)?),
        _ => (rest, 443),
    };
    match host.strip_prefix('[') {
        Some(v6) => {
            Some((v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?.to_owned(), port))
        }
        None if host.is_empty() || host.contains(':') => None,
        None => Some((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port_over_tls() {
        let found = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(address("https://10.0.0.9:6443"), found("10.0.0.9", 6443));
        assert_eq!(address("https://api.example.org/"), found("api.example.org", 443));
        assert_eq!(address("https://[2001:db8::1]:6443"), found("2001:db8::1", 6443));
        assert_eq!(address("https://[2001:db8::1]"), found("2001:db8::1", 443));
        for wrong in [
            "http://a:1",
            "a:1",
            "https://",
            "https://a:0",
            "https://a:x",
            "https://a/b",
            "https://::1:6443",
            "https://[a]:1",
        ] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}
