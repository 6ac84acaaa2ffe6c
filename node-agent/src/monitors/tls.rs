//! TLS for checks: the server has to be who the URL names, by the word of an authority.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore, crypto};

use super::plan::Authorities;

/// Why there is no connection.
pub(super) enum Problem {
    /// Something is wrong with the server: a client would not have been served either.
    Server(String),
    /// This server can't ask.
    Here(String),
}

/// Speaks TLS with the server on a connection. `authorities`: none for those that this system trusts.
pub(super) async fn client(
    stream: TcpStream,
    host: &str,
    authorities: Option<&Authorities>,
) -> Result<TlsStream<TcpStream>, Problem> {
    let roots = match authorities {
        Some(authorities) => from_secret(authorities),
        None => of_system(),
    };
    let roots = roots.map_err(Problem::Here)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Problem::Here(format!("{host:?} is neither an address nor a name that a certificate can have")))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Problem::Here(format!("TLS can't be used: {error}")))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        Problem::Server(tls.map_or_else(|| format!("no TLS connection: {error}"), |tls| reason(tls, host, authorities)))
    })
}

fn from_secret(authorities: &Authorities) -> Result<RootCertStore, String> {
    let Authorities { secret, pem } = authorities;
    let wrong = |problem: String| {
        format!("ca.crt of Secret {secret} {problem}; put the certificate of the authority there, as PEM")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(format!("can't be read: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("holds what is no certificate: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("has no certificate".to_owned())) } else { Ok(roots) }
}

fn of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why: String = found.errors.iter().map(|error| format!(" ({error})")).collect();
    Err(format!(
        "this system has no certificates of authorities{why}; install them (Debian: ca-certificates), or name a caSecret"
    ))
}

/// What is wrong, in words of the one who has to mend it.
fn reason(error: &Error, host: &str, authorities: Option<&Authorities>) -> String {
    let whom = authorities.map_or("that this system trusts".to_owned(), |a| format!("of Secret {}", a.secret));
    match error {
        // The signature is bad where another authority has the same name.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("its certificate is signed by no authority {whom}")
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            format!("its certificate is not for {host}, but for {}", presented.join(", "))
        }
        Error::InvalidCertificate(CertificateError::NotValidForName) => format!("its certificate is not for {host}"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet by this server's clock".to_owned()
        }
        Error::InvalidCertificate(other) => format!("its certificate is not accepted: {other:?}"),
        Error::InvalidMessage(_) => format!("it does not speak TLS ({error}); is it http://?"),
        other => format!("no TLS connection: {other}"),
    }
}
