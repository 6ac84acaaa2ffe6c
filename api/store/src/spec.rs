//! Which backend to open: the text of `--store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, EtcdStore, SqliteStore, Store, TlsFiles};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The text names no store.
    #[error(
        "--store is {found:?}: {problem}; allowed is `sqlite` (a file in the data directory) or \
         `etcd://HOST:PORT[,HOST:PORT…]`, e.g. `etcd://10.0.0.1:2379,10.0.0.2:2379`"
    )]
    Spec {
        /// The text that was given.
        found: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has the store open.
    #[error("{dir} is in use by another server; stop that one first or give this one its own --data-dir", dir = .dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory cannot be used.
    #[error("cannot use {path}; check that its parent exists and that this user may read and write there", path = .path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file for TLS can't be used.
    #[error("{flag} is {path}: {problem}; allowed are files in PEM that this user may read", path = .path.display())]
    Tls {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The backend refused.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Opens the store that `spec` names: `sqlite` (the file `store.sqlite` in `data_dir`, made if absent) or
/// `etcd://HOST:PORT,HOST:PORT` (`data_dir` is not used; the cluster need not be up yet, calls then fail with
/// [`Error::Unavailable`] until it is), with `tls` over TLS. Must be called inside a tokio runtime.
///
/// # Errors
/// See [`OpenError`].
pub fn open(spec: &str, data_dir: &Path, tls: Option<&TlsFiles>) -> Result<Arc<dyn Store>, OpenError> {
    let bad = |problem: String| OpenError::Spec { found: spec.to_owned(), problem };
    if spec == "sqlite" {
        if tls.is_some() {
            return Err(bad(
                "a file needs no certificates: leave --etcd-ca, --etcd-cert and --etcd-key away".to_owned()
            ));
        }
        return Ok(Arc::new(SqliteStore::open(data_dir)?));
    }
    let Some(list) = spec.strip_prefix("etcd://") else {
        return Err(bad("it is neither `sqlite` nor begins with `etcd://`".to_owned()));
    };
    let endpoints =
        list.split(',').map(|endpoint| check_endpoint(endpoint).map_err(bad)).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(EtcdStore::connect(&endpoints, tls)?))
}

/// Everything below `prefix` at one revision of the store that `spec` names, while a server may be using and writing it.
///
/// # Errors
/// See [`OpenError`].
pub async fn snapshot(
    spec: &str,
    data_dir: &Path,
    tls: Option<&TlsFiles>,
    prefix: &str,
) -> Result<crate::Page, OpenError> {
    if spec == "sqlite" && tls.is_none() {
        return SqliteStore::snapshot(data_dir, prefix);
    }
    Ok(open(spec, data_dir, tls)?.list(prefix, None, 0, None).await?)
}

fn check_endpoint(endpoint: &str) -> Result<String, String> {
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(|| format!("the endpoint {endpoint:?} has no port"))?;
    if port.parse::<u16>().is_err() || port == "0" {
        return Err(format!("{port:?} in {endpoint:?} is no port; allowed is 1 to 65535"));
    }
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_v6 || is_name {
        Ok(endpoint.to_owned())
    } else {
        Err(format!(
            "{host:?} in {endpoint:?} is no host; allowed is a name, an IPv4 address or an IPv6 address in brackets"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_spec_is_refused_with_the_part_that_is_wrong() {
        let dir = Path::new("/nonexistent");
        for (spec, part) in [
            ("", "neither"),
            ("postgres://x", "neither"),
            ("etcd://", "no port"),
            ("etcd://a:2379,b", "\"b\" has no port"),
            ("etcd://a:70000", "\"70000\""),
            ("etcd://http://a:2379", "no host"),
            ("etcd://::1:2379", "in brackets"),
        ] {
            let Err(error) = open(spec, dir, None) else { panic!("{spec} was accepted") };
            let text = error.to_string();
            assert!(text.contains(part) && text.contains("etcd://HOST:PORT"), "{spec}: {text}");
        }
        assert!(open("etcd://127.0.0.1:2379,[::1]:2379,etcd-3.example:2379", dir, None).is_ok());
    }
}
