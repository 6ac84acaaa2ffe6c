//! A request after routing: what every operation gets.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::USER_AGENT;

use crate::authz::Attributes;
use crate::identity::Identity;
use crate::managed::Writer;
use crate::negotiation::Accepted;
use crate::prepare::Endpoint;
use crate::query::{Query, WriteOptions};
use crate::registry::ResourceDef;

/// A request on a resource.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The resource.
    pub(crate) def: Arc<ResourceDef>,
    /// Namespace of the path, empty for all or for cluster-scoped kinds.
    pub(crate) namespace: String,
    /// Name of the path, empty for a collection.
    pub(crate) name: String,
    /// Main object or subresource.
    pub(crate) endpoint: Endpoint,
    /// Who asks.
    pub(crate) identity: Identity,
    /// Query parameters.
    pub(crate) query: Query,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
    /// Form of the answer.
    pub(crate) accepted: Accepted,
    /// Indented answer.
    pub(crate) pretty: bool,
}

impl Request {
    /// What an error about this request's object or collection refers to.
    pub(crate) fn target(&self) -> crate::error::Target<'_> {
        self.def.target(&self.name)
    }

    /// Who writes, for `managedFields`; `stored` is the definition of the stored form.
    pub(crate) fn writer(&self, options: &WriteOptions, stored: &ResourceDef) -> Writer {
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Writer::new(&options.manager, agent, self.endpoint, stored.api_version())
    }

    /// Prefix of the keys that the path covers.
    pub(crate) fn scope(&self) -> String {
        if self.def.namespaced && !self.namespace.is_empty() {
            format!("{}{}/", self.def.prefix(), self.namespace)
        } else {
            self.def.prefix()
        }
    }

    /// What authorization decides about.
    pub(crate) fn action(&self, verb: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            group: self.def.group.clone(),
            resource: self.def.plural.clone(),
            subresource: match self.endpoint {
                Endpoint::Main => String::new(),
                Endpoint::Status => "status".into(),
                Endpoint::Finalize => "finalize".into(),
                Endpoint::Token => "token".into(),
                Endpoint::Approval => "approval".into(),
            },
            // A stock server authorizes a namespace object by its own name.
            namespace: if self.def.is_namespace() { self.name.clone() } else { self.namespace.clone() },
            name: self.name.clone(),
        }
    }
}
