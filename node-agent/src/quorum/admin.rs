//! What an administrator does with a lock: make it once, look at it, replace it. Never done by an agent.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_core::names::AcceptorId;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::access::{self, AccessError};
use super::object::{ANNOTATION, BLANK, Object};

/// Why a lock was not made or could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It is there already.
    #[error("Lease {object} is already there ({what})")]
    Exists {
        /// Namespace and name.
        object: String,
        /// What it is.
        what: String,
    },
    /// There is none.
    #[error("there is no Lease {0}")]
    Absent(String),
    /// A Lease that is no lock, or can't be read.
    #[error(transparent)]
    Unreadable(#[from] AccessError),
    /// A request failed.
    #[error("{what}: {source}")]
    Request {
        /// What was to be done.
        what: String,
        /// What came back.
        source: kube::Error,
    },
}

fn request(what: impl Into<String>) -> impl FnOnce(kube::Error) -> AdminError {
    let what = what.into();
    move |source| AdminError::Request { what, source }
}

fn has_code<T>(result: &Result<T, kube::Error>, code: u16) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == code)
}

/// A lock as it stands.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Namespace and name.
    pub object: String,
    /// Its state.
    pub state: Object,
}

/// Makes the lock, blank, and its namespace if that is missing. `replace`: one that is there goes first, and with it what
/// it promised; to a sub-cluster that used it the new one is another lock.
pub async fn create(client: &Client, namespace: &str, name: &str, replace: bool) -> Result<AcceptorId, AdminError> {
    let object = format!("{namespace}/{name}");
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    if let Some(found) = leases.get_opt(name).await.map_err(request(format!("looking for Lease {object}")))? {
        if !replace {
            let what = match access::read(&found, &object) {
                Ok(state) if state.view.is_none() => "a lock that nobody has used yet".to_owned(),
                Ok(_) => "a lock in use".to_owned(),
                Err(AccessError::NoLock(_)) => "no Holdfast lock".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(AdminError::Exists { object, what });
        }
        let preconditions = Preconditions { uid: found.metadata.uid, resource_version: None };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        leases.delete(name, &options).await.map_err(request(format!("deleting Lease {object}")))?;
    }
    let annotations = BTreeMap::from([(ANNOTATION.to_owned(), BLANK.to_owned())]);
    let metadata = ObjectMeta { name: Some(name.to_owned()), annotations: Some(annotations), ..ObjectMeta::default() };
    let lease = Lease { metadata, spec: None };
    let mut made = leases.create(&PostParams::default(), &lease).await;
    if has_code(&made, 404) {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let metadata = ObjectMeta { name: Some(namespace.to_owned()), ..ObjectMeta::default() };
        let wanted = Namespace { metadata, ..Namespace::default() };
        let done = namespaces.create(&PostParams::default(), &wanted).await;
        if !has_code(&done, 409) {
            done.map_err(request(format!("making the namespace {namespace}")))?;
        }
        made = leases.create(&PostParams::default(), &lease).await;
    }
    if has_code(&made, 409) {
        return Err(AdminError::Exists { object, what: "somebody else has just made it".to_owned() });
    }
    let made = made.map_err(request(format!("making Lease {object}")))?;
    Ok(access::read(&made, &object)?.lock)
}

/// The lock as the API server has it.
pub async fn inspect(client: &Client, namespace: &str, name: &str) -> Result<Shown, AdminError> {
    let object = format!("{namespace}/{name}");
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let found = leases.get_opt(name).await.map_err(request(format!("looking for Lease {object}")))?;
    let found = found.ok_or_else(|| AdminError::Absent(object.clone()))?;
    Ok(Shown { state: access::read(&found, &object)?, object })
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { object, state } = self;
        writeln!(f, "lock       {}", state.lock)?;
        writeln!(f, "object     Lease {object}, swapped {} times", state.counter)?;
        let Some(view) = &state.view else { return writeln!(f, "never used") };
        writeln!(f, "cluster    {}", view.cluster)?;
        let members: Vec<&str> = view.members.keys().map(|name| name.0.as_str()).collect();
        writeln!(f, "view       lineage {}, epoch {}: {}", view.lineage, view.epoch, members.join(", "))?;
        for (slot, e) in &state.entries {
            let ballot = |ballot: &holdfast_core::view::Ballot| format!("{}.{}", ballot.round, ballot.proposer);
            write!(f, "slot {slot:<5} epoch {}, lean counter {}", e.epoch, e.lean)?;
            if e.ballot.round > 0 {
                write!(f, ", ballot {}", ballot(&e.ballot))?;
            }
            if let Some((accepted, value)) = &e.accepted {
                write!(f, ", accepted view {} by {}", value.epoch, ballot(accepted))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
