//! The server's own certificates: made at the first start, kept in the data directory, renewed at a start when needed.
//!
//! ```text
//!  DIR/pki/ca.{crt,key}        signs everything below; lives 10 years; the same on all servers of one store
//!  DIR/pki/server.{crt,key}    what the server shows; lives 1 year
//!  DIR/pki/admin.{crt,key}     holdfast-admin in group system:masters; lives 1 year
//!  DIR/admin.kubeconfig        the address, the CA and the admin's certificate in one file
//! ```
//!
//! Every file is readable by its owner only and replaced as a whole. A leaf is made anew when less than a third of its
//! life is left, when it lacks a name or address that the server is to be reached by, or when it is not from this CA. The
//! CA keeps its key for ever; its certificate is made anew with the same key, so what it signed before stays good.
//!
//! What it deliberately does not do: revoke. A certificate that leaked is good until it ends; take away its rights.

pub(crate) mod files;
mod kubeconfig;
mod leaf;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SubjectPublicKeyInfo,
};
use sha2::{Digest, Sha256};

use crate::identity::MASTERS;
use holdfast_api::access::{AGENTS_GROUP, agent_user};
pub use kubeconfig::kubeconfig;
pub use leaf::Certificate;
pub(crate) use leaf::subject;

/// User of the administrator's certificate.
pub const ADMIN_USER: &str = "holdfast-admin";
/// Group of the users of single locks.
pub const LOCKS_GROUP: &str = "holdfast:locks";

const DAY: Duration = Duration::from_secs(86_400);
/// Life of the CA's certificate.
const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// Life of every other certificate, unless it says otherwise.
const LEAF_LIFE: Duration = DAY.saturating_mul(365);

/// Why the certificates could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot use {path}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The CA is damaged. It is never replaced by itself, because nothing signed by it would be trusted any more.
    #[error(
        "{path} is damaged: {problem}; put back a copy of the directory {dir}, from a backup or from the data directory \
         of another server of the same store", path = .path.display(), dir = .dir.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The directory of the certificates.
        dir: PathBuf,
    },
    /// A name cannot be part of a certificate.
    #[error("{name:?} cannot stand in the server's certificate: {problem}; allowed are host names and IP addresses")]
    Name {
        /// The name as given.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {subject}")]
    Sign {
        /// Whom it was for.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
}

/// The certificate authority: who trusts its certificate trusts everything that it signs.
pub struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Reads the CA in `data_dir`. Its certificate is made anew, with the same key, when less than a third of its life is
    /// left. Does blocking disk access.
    ///
    /// # Errors
    /// See [`PkiError`]; [`PkiError::File`] with kind `NotFound` if there is none.
    pub fn load(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        let ca = read_ca(&dir)?;
        if leaf::has_life_left(&ca.pem) {
            return Ok(ca);
        }
        // The subject and the key stay, so whoever trusts the old certificate still trusts what this one signs.
        let key = KeyPair::from_pem(&ca.issuer.key().serialize_pem()).map_err(|source| sign("the CA", source))?;
        write_ca(&dir, key)
    }

    /// As [`Ca::load`]; makes a CA where there is none.
    ///
    /// # Errors
    /// See [`PkiError`]. What is damaged or half there is never replaced.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        files::make_dir(&dir)?;
        match Self::load(data_dir) {
            // The key is written first: a start that was cut off between the two goes on here.
            Err(PkiError::File { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                if path.ends_with("ca.crt")
                    && let Ok(key) = files::read(&dir.join("ca.key"))
                {
                    let key = KeyPair::from_pem(&key).map_err(|error| damaged(&dir, "ca.key", &error))?;
                    return write_ca(&dir, key);
                }
                if dir.join("ca.crt").exists() {
                    return Err(damaged(&dir, "ca.key", &"it is missing, but ca.crt is there"));
                }
                write_ca(&dir, KeyPair::generate().map_err(|source| sign("the CA", source))?)
            }
            other => other,
        }
    }

    /// The CA's certificate as PEM: what clients trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a client certificate for a public key (SubjectPublicKeyInfo, DER) of somebody else. Returns it as PEM.
    ///
    /// # Errors
    /// [`PkiError::Sign`], also for keys of a kind that can't be signed.
    pub fn sign(&self, public_key: &[u8], user: &str, group: &str, life: Duration) -> Result<String, PkiError> {
        let key = SubjectPublicKeyInfo::from_der(public_key).map_err(|source| sign(user, source))?;
        leaf::sign(&self.issuer, &key, &leaf::Wanted::client(user, group), life).map_err(|source| sign(user, source))
    }

    /// What the CA is known by, whatever its certificate says else: `sha256:` and the digest of its public key
    /// (SubjectPublicKeyInfo, DER) in hexadecimal digits, as kubeadm and `openssl` write it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.issuer.key().subject_public_key_info());
        format!("sha256:{digest:x}")
    }
}

/// The certificates of one server.
pub struct Pki {
    ca: Ca,
    server: Certificate,
    admin_kubeconfig: PathBuf,
    url: String,
}

impl Pki {
    /// Reads the certificates in `data_dir` and makes what is missing, outdated or no longer fits: the server's
    /// certificate is good for localhost, 127.0.0.1, ::1, this machine's host name, the address of `listen` and `sans`
    /// (host names or IP addresses). Writes `admin.kubeconfig` too. The CA has to be there ([`Ca::load_or_create`]). Does
    /// blocking disk access.
    ///
    /// # Errors
    /// See [`PkiError`]; nothing is left half-written.
    pub fn load(data_dir: &Path, listen: SocketAddr, sans: &[String]) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        let ca = Ca::load(data_dir)?;
        let names = names(listen, sans)?;
        let server = leaf::keep_or_issue(&dir, "server", &ca, &leaf::Wanted::server(names))?;
        let admin = leaf::keep_or_issue(&dir, "admin", &ca, &leaf::Wanted::client(ADMIN_USER, MASTERS))?;
        let url = url(listen);
        let admin_kubeconfig = data_dir.join("admin.kubeconfig");
        files::write_if_changed(&admin_kubeconfig, &kubeconfig(&url, &ca.pem, ADMIN_USER, &admin))?;
        Ok(Self { ca, server, admin_kubeconfig, url })
    }

    /// The CA's certificate as PEM: what clients trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca.pem
    }

    /// The server's certificate and key.
    pub fn server(&self) -> &Certificate {
        &self.server
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// The URL in the administrator's kubeconfig: loopback when the server listens on all addresses.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A new client certificate for a user in a group, good for a year. It is stored nowhere.
    ///
    /// # Errors
    /// [`PkiError::Sign`].
    pub fn issue_client(&self, user: &str, group: &str) -> Result<Certificate, PkiError> {
        leaf::issue(&self.ca.issuer, &leaf::Wanted::client(user, group))
    }

    /// The text of a kubeconfig for the agent of a server: user `holdfast:server:NAMESPACE:SUBCLUSTER:SERVER`, group
    /// `holdfast:servers`. `url` is the API server as the agent reaches it, e.g. `https://10.0.0.1:6443`.
    ///
    /// # Errors
    /// [`PkiError::Sign`].
    pub fn agent_kubeconfig(
        &self,
        url: &str,
        namespace: &str,
        sub_cluster: &str,
        server: &str,
    ) -> Result<String, PkiError> {
        let user = agent_user(namespace, sub_cluster, server);
        let certificate = self.issue_client(&user, AGENTS_GROUP)?;
        Ok(kubeconfig(url, &self.ca.pem, &user, &certificate))
    }
}

/// Issues a kubeconfig for the agent of a server from the CA in `data_dir`, which the server has made at its start. For
/// the command line: the server may be running.
///
/// # Errors
/// See [`PkiError`]; [`PkiError::File`] with kind `NotFound` if no server has started there yet.
pub fn issue_agent_kubeconfig(
    data_dir: &Path,
    url: &str,
    namespace: &str,
    sub_cluster: &str,
    server: &str,
) -> Result<String, PkiError> {
    let Ca { pem: ca_pem, issuer } = read_ca(&data_dir.join("pki"))?;
    let user = agent_user(namespace, sub_cluster, server);
    let certificate = leaf::issue(&issuer, &leaf::Wanted::client(&user, AGENTS_GROUP))?;
    Ok(kubeconfig(url, &ca_pem, &user, &certificate))
}

/// Issues a kubeconfig for a user, in a group if one is given, from the CA in `data_dir`. What the user may do is said by
/// roles and bindings. For the command line: the server may be running.
///
/// # Errors
/// As [`issue_agent_kubeconfig`].
pub fn issue_user_kubeconfig(data_dir: &Path, url: &str, user: &str, group: Option<&str>) -> Result<String, PkiError> {
    let Ca { pem: ca_pem, issuer } = read_ca(&data_dir.join("pki"))?;
    let certificate = leaf::issue(&issuer, &leaf::Wanted::user(user, group))?;
    Ok(kubeconfig(url, &ca_pem, user, &certificate))
}

/// User of the certificate that may swap one lock, and nothing else.
pub fn lock_user(namespace: &str, name: &str) -> String {
    format!("holdfast:lock:{namespace}:{name}")
}

/// Issues a certificate for the lock `namespace/name` from the CA in `data_dir`, and gives the CA's certificate with it.
/// For the command line: the server may be running.
///
/// # Errors
/// As [`issue_agent_kubeconfig`].
pub fn issue_lock_certificate(data_dir: &Path, namespace: &str, name: &str) -> Result<(String, Certificate), PkiError> {
    let Ca { pem: ca_pem, issuer } = read_ca(&data_dir.join("pki"))?;
    let wanted = leaf::Wanted::client(&lock_user(namespace, name), LOCKS_GROUP);
    Ok((ca_pem, leaf::issue(&issuer, &wanted)?))
}

fn read_ca(dir: &Path) -> Result<Ca, PkiError> {
    let key = files::read(&dir.join("ca.key"))?;
    let pem = files::read(&dir.join("ca.crt"))?;
    let key = KeyPair::from_pem(&key).map_err(|error| damaged(dir, "ca.key", &error))?;
    if !leaf::has_key(&pem, &key) {
        return Err(damaged(dir, "ca.crt", &"it does not belong to ca.key"));
    }
    let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| damaged(dir, "ca.crt", &error))?;
    Ok(Ca { pem, issuer })
}

fn write_ca(dir: &Path, key: KeyPair) -> Result<Ca, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = leaf::distinguished_name([(DnType::CommonName, "holdfast-ca")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    leaf::set_life(&mut params, CA_LIFE);
    let pem = params.self_signed(&key).map_err(|source| sign("the CA", source))?.pem();
    files::write(&dir.join("ca.key"), &key.serialize_pem())?;
    files::write(&dir.join("ca.crt"), &pem)?;
    let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|source| sign("the CA", source))?;
    Ok(Ca { pem, issuer })
}

fn damaged(dir: &Path, file: &str, problem: &dyn std::fmt::Display) -> PkiError {
    PkiError::Damaged { path: dir.join(file), problem: problem.to_string(), dir: dir.to_path_buf() }
}

fn sign(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Sign { subject: subject.to_owned(), source }
}

/// Names and addresses that the server is reached by.
fn names(listen: SocketAddr, sans: &[String]) -> Result<Vec<String>, PkiError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    // A machine may have a name that no certificate can have; then it is not reached by it over TLS either.
    names.extend(host_name().filter(|name| check_name(name).is_ok()));
    for name in sans {
        check_name(name)?;
        // The one spelling of an address that is compared with what a certificate holds.
        names.push(name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |ip| ip.to_string()));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty())
}

fn check_name(name: &str) -> Result<(), PkiError> {
    let fail = |problem: &str| Err(PkiError::Name { name: name.to_owned(), problem: problem.to_owned() });
    if name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if name.is_empty() || name.len() > 253 {
        return fail("it must have 1 to 253 characters");
    }
    let is_label = |(index, label): (usize, &str)| {
        // A wildcard may be the whole first part.
        (index == 0 && label == "*")
            || (!label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-'))
    };
    match name.split('.').enumerate().find(|part| !is_label(*part)) {
        Some((_, label)) => fail(&format!("{label:?} is no part of a host name")),
        None => Ok(()),
    }
}

fn url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests;
