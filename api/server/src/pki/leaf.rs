//! Certificates that the CA signs, and whether one that exists is still good.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::{Ca, LEAF_LIFE, PkiError, files};

/// How far the clocks of two machines may be apart: a new certificate is good from that long ago, but no longer than a
/// tenth of its life.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// The private key.
    pub key_pem: String,
}

/// What a certificate is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    user: String,
    /// One at most: more than one cannot be written by the library that signs.
    group: Option<String>,
    /// Sorted host names and addresses; empty for a client.
    names: Vec<String>,
}

impl Wanted {
    pub(super) fn server(names: Vec<String>) -> Self {
        Self { user: "holdfast-apiserver".to_owned(), group: None, names }
    }

    pub(super) fn client(user: &str, group: &str) -> Self {
        Self::user(user, Some(group))
    }

    pub(super) fn user(user: &str, group: Option<&str>) -> Self {
        Self { user: user.to_owned(), group: group.map(str::to_owned), names: Vec::new() }
    }
}

/// The certificate in `DIR/NAME.crt` if it is still good, otherwise a new one, written there.
pub(super) fn keep_or_issue(dir: &Path, name: &str, ca: &Ca, wanted: &Wanted) -> Result<Certificate, PkiError> {
    let (crt, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if let (Ok(pem), Ok(key_pem)) = (files::read(&crt), files::read(&key)) {
        match still_good(&pem, &key_pem, &ca.pem, wanted) {
            Ok(()) => return Ok(Certificate { pem, key_pem }),
            Err(why) => tracing::info!(certificate = %crt.display(), why, "making a new certificate"),
        }
    }
    let made = issue(&ca.issuer, wanted)?;
    // The key first: a certificate without its key is told apart at the next start and made anew.
    files::write(&key, &made.key_pem)?;
    files::write(&crt, &made.pem)?;
    Ok(made)
}

/// Signs a new certificate with a new key.
pub(super) fn issue(issuer: &Issuer<'static, KeyPair>, wanted: &Wanted) -> Result<Certificate, PkiError> {
    let make = || -> Result<Certificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let pem = sign(issuer, &key, wanted, LEAF_LIFE)?;
        Ok(Certificate { pem, key_pem: key.serialize_pem() })
    };
    make().map_err(|source| super::sign(&wanted.user, source))
}

/// Signs a certificate for a key.
pub(super) fn sign(
    issuer: &Issuer<'static, KeyPair>,
    key: &impl PublicKeyData,
    wanted: &Wanted,
    life: Duration,
) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(wanted.names.clone())?;
    let name = std::iter::once((DnType::CommonName, wanted.user.as_str()));
    let group = wanted.group.iter().map(|group| (DnType::OrganizationName, group.as_str()));
    params.distinguished_name = distinguished_name(name.chain(group));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![if wanted.names.is_empty() {
        ExtendedKeyUsagePurpose::ClientAuth
    } else {
        ExtendedKeyUsagePurpose::ServerAuth
    }];
    set_life(&mut params, life);
    Ok(params.signed_by(key, issuer)?.pem())
}

pub(super) fn distinguished_name<'a>(parts: impl IntoIterator<Item = (DnType, &'a str)>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind, value);
    }
    name
}

/// Makes a certificate good from now on for some time.
pub(super) fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW.min(life / 10)).into();
    params.not_after = (now + life).into();
}

/// Whether at least a third of a certificate's life is left.
pub(super) fn has_life_left(pem: &str) -> bool {
    with(pem, |certificate| Ok(life_left(certificate))).unwrap_or(false)
}

/// Whether a certificate is for this key.
pub(super) fn has_key(pem: &str, key: &KeyPair) -> bool {
    let own = |certificate: &X509Certificate<'_>| Ok(certificate.public_key().raw == key.subject_public_key_info());
    with(pem, own).unwrap_or(false)
}

fn still_good(pem: &str, key_pem: &str, ca_pem: &str, wanted: &Wanted) -> Result<(), String> {
    let key = KeyPair::from_pem(key_pem).map_err(|error| format!("its key cannot be read: {error}"))?;
    if !has_key(pem, &key) {
        return Err("it does not belong to its key".to_owned());
    }
    let found = with(pem, |certificate| {
        with(ca_pem, |ca| {
            certificate.verify_signature(Some(ca.public_key())).map_err(|_| "another CA has signed it".to_owned())
        })?;
        if !life_left(certificate) {
            return Err("less than a third of its life is left".to_owned());
        }
        said(certificate)
    })?;
    if found.user != wanted.user || found.group != wanted.group {
        return Err(format!("it is for {}", found.user));
    }
    match wanted.names.iter().find(|name| !found.names.contains(name)) {
        Some(name) => Err(format!("it is not good for {name}")),
        None => Ok(()),
    }
}

/// What a certificate says.
fn said(certificate: &X509Certificate<'_>) -> Result<Wanted, String> {
    let (user, groups) = subject(certificate);
    let names = certificate.subject_alternative_name().map_err(|error| format!("its names cannot be read: {error}"))?;
    let names = names.map_or(&[][..], |names| &names.value.general_names[..]).iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    });
    Ok(Wanted { user, group: groups.into_iter().next(), names: names.collect() })
}

/// The common name and all organizations.
pub(crate) fn subject(certificate: &X509Certificate<'_>) -> (String, Vec<String>) {
    let subject = certificate.subject();
    let user = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    let groups = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    (user.to_owned(), groups.collect())
}

fn life_left(certificate: &X509Certificate<'_>) -> bool {
    let validity = certificate.validity();
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    from <= now && to.saturating_sub(now) >= (to - from) / 3
}

fn with<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> Result<T, String>) -> Result<T, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("it cannot be read: {error}");
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| unreadable(&error))?;
    let certificate = pem.parse_x509().map_err(|error| unreadable(&error))?;
    read(&certificate)
}
