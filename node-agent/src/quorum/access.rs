//! One access to the lock: one compare-and-swap of the whole object (R5, protocol-why D14).
//!
//! Every access is a write that names the version that it changes, a mere look too. So nothing rests on a cache: what
//! it returns is the state that the store itself had at that moment. A write without an answer may have landed; the next
//! access then reads again, and its own swap keeps the lost one from landing any later.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_core::lock::LockRecord;
use holdfast_core::names::AcceptorId;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::object::{ANNOTATION, BadObject, Object};

/// Names of the entries of a credential Secret.
pub const CERTIFICATE: &str = "tls.crt";
/// See [`CERTIFICATE`].
pub const KEY: &str = "tls.key";
/// See [`CERTIFICATE`].
pub const CA: &str = "ca.crt";
/// Instead of certificate and key: a bearer token, as Kubernetes gives to service accounts.
pub const TOKEN: &str = "token";
/// Who the fields of the object belong to.
const MANAGER: &str = "holdfast-lock";

/// Why an access failed. The core gives the lock no vote then.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no such object. It is never made by itself (protocol-why D9).
    #[error(
        "{url} has no Lease {object}; `holdfast lock create {object}` makes it, once, and if it was there before it is \
         another lock then, without a vote until a new view admits it"
    )]
    Absent {
        /// The quorum server.
        url: String,
        /// Namespace and name.
        object: String,
    },
    /// A Lease of somebody else.
    #[error("Lease {0} is no Holdfast lock: it has no annotation {ANNOTATION}; name another one in quorumServer.lease")]
    NoLock(String),
    /// It can't be used.
    #[error("Lease {object}: {source}")]
    Object {
        /// Namespace and name.
        object: String,
        /// Why.
        source: BadObject,
    },
    /// The credentials are not accepted.
    #[error("{url} refuses access to Lease {object} ({message}); `holdfast lock credentials` makes valid ones")]
    Forbidden {
        /// The quorum server.
        url: String,
        /// Namespace and name.
        object: String,
        /// Its words.
        message: String,
    },
    /// No usable answer.
    #[error("{url}: {message}")]
    Failed {
        /// The quorum server.
        url: String,
        /// What went wrong.
        message: String,
    },
    /// No answer in time.
    #[error("{url} has not answered within {limit:?}")]
    Silent {
        /// The quorum server.
        url: String,
        /// T_io.
        limit: Duration,
    },
    /// The credentials can't be used.
    #[error("the credentials for the quorum server can't be used: {0}")]
    Credentials(String),
}

/// With which credentials a quorum server is asked.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The agent's own kubeconfig: the quorum server is an API server that knows it.
    Agent(PathBuf),
    /// The entries of the Secret that the sub-cluster names.
    Secret(std::collections::BTreeMap<String, Vec<u8>>),
    /// The Secret with this name was not read yet.
    Missing(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Agent(path) => f.debug_tuple("Agent").field(path).finish(),
            Credentials::Secret(entries) => f.debug_tuple("Secret").field(&entries.keys()).finish(),
            Credentials::Missing(name) => f.debug_tuple("Missing").field(name).finish(),
        }
    }
}

impl Credentials {
    /// A kubeconfig for one URL.
    fn kubeconfig(&self, url: &str) -> Result<Kubeconfig, AccessError> {
        let fail = |why: String| AccessError::Credentials(why);
        let entries = match self {
            Credentials::Agent(path) => {
                let mut config = Kubeconfig::read_from(path).map_err(|e| fail(format!("{}: {e}", path.display())))?;
                for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
                    cluster.server = Some(url.to_owned());
                }
                return Ok(config);
            }
            Credentials::Missing(name) => {
                return Err(fail(format!("Secret {name} was not read yet; it has {CERTIFICATE}, {KEY} and {CA}")));
            }
            Credentials::Secret(entries) => entries,
        };
        let entry = |name: &str| entries.get(name).ok_or_else(|| fail(format!("the Secret has no entry {name}")));
        let user: Value = match entries.get(TOKEN) {
            Some(token) => json!({"token": String::from_utf8_lossy(token).trim()}),
            None => json!({
                "client-certificate-data": STANDARD.encode(entry(CERTIFICATE)?),
                "client-key-data": STANDARD.encode(entry(KEY)?),
            }),
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lock",
            "clusters": [{"name": "lock", "cluster":
                {"server": url, "certificate-authority-data": STANDARD.encode(entry(CA)?)}}],
            "users": [{"name": "lock", "user": user}],
            "contexts": [{"name": "lock", "context": {"cluster": "lock", "user": "lock"}}],
        });
        serde_json::from_value(config).map_err(|e| fail(e.to_string()))
    }

    /// A client of one URL. It repeats nothing by itself: what has no answer is read again.
    pub async fn client(&self, url: &str) -> Result<Client, AccessError> {
        let fail = |e: &dyn fmt::Display| AccessError::Credentials(e.to_string());
        let config = self.kubeconfig(url)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.map_err(|e| fail(&e))?;
        config.default_retry = false;
        Client::try_from(config).map_err(|e| fail(&e))
    }
}

/// One lock at one address, with the version of it that was seen last.
#[derive(Debug)]
pub struct Access {
    url: String,
    namespace: String,
    name: String,
    api: Api<Lease>,
    known: Option<Lease>,
}

impl Access {
    /// The lock `namespace/name` behind a client; `url` is for messages.
    pub fn new(client: Client, url: &str, namespace: &str, name: &str) -> Access {
        let (url, namespace, name) = (url.to_owned(), namespace.to_owned(), name.to_owned());
        Access { url, api: Api::namespaced(client, &namespace), namespace, name, known: None }
    }

    fn object(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Swaps the object: puts `record` into `slot`, or only reads. Returns the state after it. Repeats while others come
    /// in between; the caller bounds the time. After an error nothing is known: the next swap reads first.
    pub async fn swap(&mut self, slot: u8, record: Option<&LockRecord>) -> Result<Object, AccessError> {
        let wrong = |source| AccessError::Object { object: format!("{}/{}", self.namespace, self.name), source };
        loop {
            let mut lease = match self.known.take() {
                Some(lease) => lease,
                None => self.api.get(&self.name).await.map_err(|e| self.failed(e))?,
            };
            let mut object = read(&lease, &self.object())?;
            object.swap(slot, record).map_err(wrong)?;
            let text = object.text().map_err(wrong)?;
            lease.metadata.managed_fields = None;
            lease.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text.clone());
            lease.spec.get_or_insert_with(LeaseSpec::default).holder_identity = object.holder();
            let options = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            match self.api.replace(&self.name, &options, &lease).await {
                Ok(stored) if annotation(&stored) == Some(&text) => {
                    self.known = Some(stored);
                    return Ok(object);
                }
                Ok(_) => {
                    let message = "it answered the write of the lock with another state than was written".to_owned();
                    return Err(AccessError::Failed { url: self.url.clone(), message });
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, error: kube::Error) -> AccessError {
        let (url, object) = (self.url.clone(), self.object());
        match error {
            kube::Error::Api(status) => match status.code {
                404 => AccessError::Absent { url, object },
                401 | 403 => AccessError::Forbidden { url, object, message: status.message.clone() },
                _ => AccessError::Failed { url, message: status.message.clone() },
            },
            other => AccessError::Failed { url, message: crate::api_sync::whole(&other) },
        }
    }
}

fn annotation(lease: &Lease) -> Option<&String> {
    lease.metadata.annotations.as_ref()?.get(ANNOTATION)
}

/// The state in a Lease; `object` is its name for messages.
pub fn read(lease: &Lease, object: &str) -> Result<Object, AccessError> {
    let text = annotation(lease).ok_or_else(|| AccessError::NoLock(object.to_owned()))?;
    let wrong = |source| AccessError::Object { object: object.to_owned(), source };
    let uid = lease.metadata.uid.as_deref().unwrap_or_default();
    let uid = uuid::Uuid::parse_str(uid).map_err(|e| wrong(BadObject::Damaged(format!("its uid is {uid:?}: {e}"))))?;
    Object::read(text, AcceptorId(uid.as_u128())).map_err(wrong)
}
