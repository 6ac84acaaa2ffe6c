//! The agent's kubeconfig with its certificate: read, judged, and replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::{Value, json};
use x509_parser::pem::parse_x509_pem;

use super::{JoinError, new_key};

/// What a kubeconfig with a certificate in it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Common name of the certificate.
    pub user: String,
    /// URL of the API server.
    pub url: String,
    /// The CA that it is known by, PEM.
    pub ca_pem: String,
    /// Since when the certificate is good, in seconds of Unix time.
    pub not_before: i64,
    /// Until when, in seconds of Unix time.
    pub not_after: i64,
}

impl Credentials {
    /// Reads a file; none if it does not exist.
    ///
    /// # Errors
    /// Why it is no kubeconfig with a certificate of its own in it.
    pub(crate) fn read(path: &Path) -> Result<Option<Credentials>, String> {
        match fs::read_to_string(path) {
            Ok(text) => Credentials::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads the text of a kubeconfig with one cluster and one user.
    ///
    /// # Errors
    /// What it lacks.
    pub fn parse(text: &str) -> Result<Credentials, String> {
        let config: Value = serde_yaml::from_str(text).map_err(|error| format!("it is no YAML: {error}"))?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let embedded = |value: &Value, field: &str| {
            let text = value[field].as_str().ok_or_else(|| format!("it has no {field}"))?;
            let bytes = STANDARD.decode(text).map_err(|error| format!("its {field} is no base64: {error}"))?;
            String::from_utf8(bytes).map_err(|_| format!("its {field} is no PEM"))
        };
        let certificate = embedded(user, "client-certificate-data")?;
        embedded(user, "client-key-data")?;
        let unreadable = |error: &dyn std::fmt::Display| format!("its certificate can't be read: {error}");
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|error| unreadable(&error))?;
        let certificate = pem.parse_x509().map_err(|error| unreadable(&error))?;
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Credentials {
            user: name.ok_or("its certificate has no common name")?.to_owned(),
            url: cluster["server"].as_str().ok_or("it names no server")?.to_owned(),
            ca_pem: embedded(cluster, "certificate-authority-data")?,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// When the next certificate is due: after two thirds of this one's life, in seconds of Unix time.
    pub fn due(&self) -> i64 {
        self.not_before + (self.not_after - self.not_before) / 3 * 2
    }
}

/// Now, as certificates count time.
pub(crate) fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// A block of PEM.
pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A kubeconfig whose user shows something.
pub(crate) fn with_user(url: &str, ca_pem: &str, name: &str, user: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "holdfast",
        "clusters": [{"name": "holdfast", "cluster": {"server": url, "certificate-authority-data": STANDARD.encode(ca_pem)}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": name}}],
    })
}

/// The text of a kubeconfig with a certificate.
pub fn kubeconfig(url: &str, ca_pem: &str, user: &str, certificate: &str, key: &KeyPair) -> String {
    let shown = json!({
        "client-certificate-data": STANDARD.encode(certificate),
        "client-key-data": STANDARD.encode(key.serialize_pem()),
    });
    // JSON is YAML.
    format!("{:#}\n", with_user(url, ca_pem, user, shown))
}

/// The key in a file, made if there is none.
pub(crate) fn key_at(path: &Path) -> Result<KeyPair, JoinError> {
    // One that was cut off, or is not readable, was never used for anything.
    if let Ok(text) = fs::read_to_string(path)
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = new_key()?;
    write(path, &key.serialize_pem())?;
    Ok(key)
}

/// Replaces a file as a whole, durably, for its owner only.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), JoinError> {
    let replace = || -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let aside = path.with_file_name(name);
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    replace().map_err(|error| JoinError::File {
        path: path.to_owned(),
        reason: format!("can't be written: {error}; its directory has to be there and writable"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(life: Duration) -> String {
        let key = new_key().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "holdfast:server:ha:db:db1");
        (params.not_before, params.not_after) = (UNIX_EPOCH.into(), (UNIX_EPOCH + life).into());
        let certificate = params.self_signed(&key).expect("signed").pem();
        kubeconfig("https://a:1", &certificate, "me", &certificate, &key)
    }

    #[test]
    fn the_next_certificate_is_due_at_two_thirds_of_the_life() {
        let found = Credentials::parse(&text(Duration::from_secs(300))).expect("credentials");
        assert_eq!((found.user.as_str(), found.url.as_str()), ("holdfast:server:ha:db:db1", "https://a:1"));
        assert_eq!((found.not_after, found.due()), (300, 200));
    }

    #[test]
    fn a_file_without_a_certificate_says_what_it_lacks() {
        let good = text(Duration::from_secs(300));
        for field in ["client-certificate-data", "client-key-data", "certificate-authority-data"] {
            let error = Credentials::parse(&good.replace(field, "other")).expect_err(field);
            assert!(error.contains(field), "{error}");
        }
        assert!(Credentials::parse("a: [").expect_err("no YAML").contains("no YAML"));
        assert!(Credentials::parse("a").is_err() && Credentials::parse("").is_err());
    }

    #[test]
    fn a_key_that_was_made_is_used_again_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.key");
        let key = key_at(&path).expect("a key");
        assert_eq!(key_at(&path).expect("a key").serialize_pem(), key.serialize_pem());
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        fs::write(&path, "cut off").expect("written");
        assert_ne!(key_at(&path).expect("a key").serialize_pem(), key.serialize_pem());
    }
}
