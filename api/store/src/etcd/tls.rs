//! The files with which etcd is reached over TLS, checked before anything is sent.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, Identity, TlsOptions};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::OpenError;

/// Where the certificates for etcd are, in PEM. They are read once, when the store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the certificates of etcd (`--etcd-ca`). Those of the system don't count.
    pub ca: PathBuf,
    /// Our own certificate with those that lead to its authority, and its key (`--etcd-cert`, `--etcd-key`), for an etcd that
    /// asks its clients for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What the files say, ready for a connection.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) options: TlsOptions,
    pub(super) files: TlsFiles,
}

/// Reads and checks the files.
pub(super) fn load(files: &TlsFiles) -> Result<Tls, OpenError> {
    let (ca, authorities) = certificates("--etcd-ca", &files.ca)?;
    let mut roots = rustls::RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| refused("--etcd-ca", &files.ca, &format!("{error}")))?;
    }
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = &files.client {
        let (chain, parsed) = certificates("--etcd-cert", certificate)?;
        let secret = read("--etcd-key", key)?;
        let parsed_key = PrivateKeyDer::from_pem_slice(&secret)
            .map_err(|error| refused("--etcd-key", key, &format!("it holds no private key in PEM ({error})")))?;
        // Made only to learn whether it can be: whether the key is of a known kind, and the certificate's.
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(parsed, parsed_key))
            .map_err(|error| {
                let problem = format!("it does not go with {}: {error}", certificate.display());
                refused("--etcd-key", key, &problem)
            })?;
        options = options.identity(Identity::from_pem(chain, secret));
    }
    Ok(Tls { options, files: files.clone() })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|error| refused(flag, path, &format!("it can't be read: {error}")))
}

fn certificates(flag: &'static str, path: &Path) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), OpenError> {
    let bytes = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok((bytes, found)),
        Ok(_) => Err(refused(flag, path, "it holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)")),
        Err(error) => Err(refused(flag, path, &format!("it is no PEM: {error}"))),
    }
}

fn refused(flag: &'static str, path: &Path, problem: &str) -> OpenError {
    OpenError::Tls { flag, path: path.to_path_buf(), problem: problem.to_owned() }
}

/// What to do about a connection that was made and failed: `text` is the innermost cause.
///
/// Since version 1.3 of TLS a server refuses a client's certificate after the client thinks that all is well, and what it
/// says of it is often lost with the connection.
pub(super) fn advice(text: &str, files: Option<&TlsFiles>) -> String {
    let Some(files) = files else {
        return "; if it speaks TLS there, give --etcd-ca".to_owned();
    };
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        return format!("; its certificate was not signed by an authority in {} (--etcd-ca)", files.ca.display());
    }
    if text.contains("NotValidForName") {
        return "; its certificate does not name this host or address: use a name that it has in --store".to_owned();
    }
    if text.contains("Expired") || text.contains("NotValidYet") {
        return "; its certificate is out of date, or the clock of this machine is wrong".to_owned();
    }
    if text.contains("CorruptMessage") || text.contains("InvalidContentType") {
        return "; it does not speak TLS there: leave --etcd-ca away, or give the port that does".to_owned();
    }
    match &files.client {
        None => "; if this goes on it asks for a client certificate: give --etcd-cert and --etcd-key".to_owned(),
        Some((certificate, _)) => format!(
            "; if this goes on it does not accept the certificate in {} (--etcd-cert): is it signed by the authority that \
             etcd trusts, for clients, and in date?",
            certificate.display()
        ),
    }
}
