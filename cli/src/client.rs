//! The API server as the commands see it: a connection from kubeconfig flags, the kinds that the server names, and
//! requests for any of them. Works against any Kubernetes API server that has the kinds.

use futures::TryStreamExt;
use http::{Method, Request, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::ClientArgs;
use crate::errors::{Failure, Result};

/// Asks for rows and columns instead of objects; a server without them answers with objects.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A connection.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
    url: String,
    /// Certificate (DER) of the authority that the server is known by.
    authority: Option<Vec<u8>>,
    namespace: String,
}

/// A kind, as the server's discovery names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// `holdfast.dev/v1`, or `v1`.
    pub(crate) api_version: String,
    /// `FailoverGroup`.
    pub(crate) kind: String,
    /// `failovergroups`.
    pub(crate) plural: String,
    /// `failovergroup`.
    pub(crate) singular: String,
    /// `fog`.
    pub(crate) short_names: Vec<String>,
    /// `holdfast`, `all`.
    pub(crate) categories: Vec<String>,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
}

impl Kind {
    fn of(api_version: &str, resource: &APIResource) -> Kind {
        let singular = if resource.singular_name.is_empty() {
            resource.kind.to_lowercase()
        } else {
            resource.singular_name.clone()
        };
        Kind {
            api_version: api_version.to_owned(),
            kind: resource.kind.clone(),
            plural: resource.name.clone(),
            singular,
            short_names: resource.short_names.clone().unwrap_or_default(),
            categories: resource.categories.clone().unwrap_or_default(),
            namespaced: resource.namespaced,
        }
    }

    /// The group, empty for the core.
    fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// `failovergroup.holdfast.dev`, as kubectl names kinds in its messages.
    pub(crate) fn full_name(&self) -> String {
        match self.group() {
            "" => self.singular.clone(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// Whether a user's word means it.
    fn is_called(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let bare = word.strip_suffix(&format!(".{}", self.group())).unwrap_or(&word);
        bare == self.plural
            || bare == self.singular
            || bare == self.kind.to_lowercase()
            || self.short_names.iter().any(|name| name == bare)
    }

    /// Path of its objects, or of one of them. `namespace` none = all of them.
    pub(crate) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        let mut path = format!("/{root}/{}", self.api_version);
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{name}"));
        }
        path
    }
}

/// All kinds of a server.
#[derive(Debug, Clone)]
pub(crate) struct Kinds(Vec<Kind>);

impl Kinds {
    /// The kind of a manifest.
    pub(crate) fn of_manifest(&self, api_version: &str, kind: &str) -> Result<&Kind> {
        self.0.iter().find(|known| known.api_version == api_version && known.kind == kind).ok_or_else(|| {
            Failure::refused(format!("the server does not know kind {kind} of {api_version}"))
                .hint(format!("it has: {}", self.names()))
        })
    }

    /// The kinds that a word on the command line means: one kind, a list with commas, or a category.
    pub(crate) fn called(&self, words: &str) -> Result<Vec<&Kind>> {
        let mut found = Vec::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            if let Some(kind) = self.0.iter().find(|kind| kind.is_called(word)) {
                found.push(kind);
                continue;
            }
            let before = found.len();
            found.extend(self.0.iter().filter(|kind| kind.categories.iter().any(|category| category == word)));
            if found.len() == before {
                return Err(Failure::refused(format!("the server does not know a kind {word:?}"))
                    .hint(format!("it has: {}", self.names())));
            }
        }
        Ok(found)
    }

    fn names(&self) -> String {
        let ours: Vec<&str> =
            self.0.iter().filter(|kind| !kind.group().is_empty()).map(|kind| kind.plural.as_str()).collect();
        ours.join(", ")
    }
}

impl Api {
    /// Connects as the flags, KUBECONFIG or ~/.kube/config say. Sends nothing yet.
    ///
    /// # Errors
    /// A kubeconfig that is missing or can't be used.
    pub(crate) async fn connect(args: &ClientArgs) -> Result<Api> {
        let kubeconfig = match &args.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let unusable = |error: kube::config::KubeconfigError| {
            let mut message = format!("no usable kubeconfig: {error}");
            if let Some(source) = std::error::Error::source(&error) {
                let source = source.to_string();
                if !message.contains(&source) {
                    message.push_str(&format!(": {source}"));
                }
            }
            Failure::refused(message).hint("give one with --kubeconfig FILE or KUBECONFIG; the server writes DIR/admin.kubeconfig into its data directory")
        };
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig.map_err(unusable)?, &options).await.map_err(unusable)?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let (url, authority) =
            (config.cluster_url.to_string(), config.root_cert.clone().and_then(|c| c.into_iter().next()));
        let client = kube::Client::try_from(config).map_err(Failure::from)?;
        Ok(Api { client, url, authority, namespace })
    }

    /// The connection itself, for typed requests.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Where the server is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Certificate (DER) of the authority that the server is known by, if the kubeconfig holds one.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.authority.as_deref()
    }

    /// The namespace to use when nothing else is said.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the server has, from its discovery.
    ///
    /// # Errors
    /// When it can't be reached or refuses.
    pub(crate) async fn kinds(&self) -> Result<Kinds> {
        let mut kinds = Vec::new();
        let mut versions = vec!["v1".to_owned()];
        let groups = self.client.list_api_groups().await?;
        versions.extend(groups.groups.into_iter().filter_map(|group| {
            group.preferred_version.or_else(|| group.versions.into_iter().next()).map(|version| version.group_version)
        }));
        for version in versions {
            let list = if version == "v1" {
                self.client.list_core_api_resources("v1").await?
            } else {
                self.client.list_api_group_resources(&version).await?
            };
            kinds.extend(
                list.resources.iter().filter(|resource| !resource.name.contains('/')).map(|r| Kind::of(&version, r)),
            );
        }
        // Our own kinds win over others of the same short name.
        kinds.sort_by_key(|kind| kind.group() != holdfast_api::GROUP);
        Ok(Kinds(kinds))
    }

    /// One request with an answer in JSON.
    ///
    /// # Errors
    /// What the server answers, or that it can't be reached.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Body<'_>>,
    ) -> Result<T> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
        let mut bytes = Vec::new();
        if let Some(Body { content_type, value }) = body {
            request = request.header(header::CONTENT_TYPE, content_type);
            bytes = serde_json::to_vec(value).map_err(anyhow::Error::from)?;
        }
        let request = request.body(bytes).map_err(anyhow::Error::from)?;
        Ok(self.client.request(request).await?)
    }

    /// An object or a list; none when it is not there.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(anyhow::Error::from)?;
        match self.client.request(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An object or a list as the server's table.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub(crate) async fn table(&self, path: &str) -> Result<Value> {
        let request = Request::get(path).header(header::ACCEPT, TABLE).body(Vec::new()).map_err(anyhow::Error::from)?;
        Ok(self.client.request(request).await?)
    }

    /// Calls `each` with every event of a watch, until the server ends it. `as_table`: events carry tables.
    ///
    /// # Errors
    /// What the server answers, that it can't be reached, or what `each` returns.
    pub(crate) async fn watch(
        &self,
        path: &str,
        as_table: bool,
        mut each: impl FnMut(WatchEvent<Value>) -> Result,
    ) -> Result {
        let accept = if as_table { TABLE } else { "application/json" };
        let request =
            Request::get(path).header(header::ACCEPT, accept).body(Vec::new()).map_err(anyhow::Error::from)?;
        let stream = self.client.request_events::<Value>(request).await?;
        futures::pin_mut!(stream);
        while let Some(event) = stream.try_next().await? {
            each(event)?;
        }
        Ok(())
    }
}

/// What a request carries.
pub(crate) struct Body<'a> {
    /// Its media type.
    pub(crate) content_type: &'static str,
    /// The object or patch.
    pub(crate) value: &'a Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Kind {
        Kind {
            api_version: "holdfast.dev/v1".into(),
            kind: "FailoverGroup".into(),
            plural: "failovergroups".into(),
            singular: "failovergroup".into(),
            short_names: vec!["fog".into()],
            categories: vec!["holdfast".into()],
            namespaced: true,
        }
    }

    #[test]
    fn a_kind_is_found_by_every_name_that_kubectl_takes() {
        let kinds = Kinds(vec![group()]);
        for word in ["fog", "FailoverGroup", "failovergroups", "failovergroup.holdfast.dev", "holdfast"] {
            assert_eq!(kinds.called(word).expect(word).len(), 1, "{word}");
        }
        let message = kinds.called("fogg").expect_err("unknown").to_string();
        assert!(message.contains("\"fogg\"") && message.contains("hint: it has: failovergroups"), "{message}");
    }

    #[test]
    fn paths_are_those_of_the_protocol() {
        assert_eq!(group().path(Some("ha"), Some("x")), "/apis/holdfast.dev/v1/namespaces/ha/failovergroups/x");
        assert_eq!(group().path(None, None), "/apis/holdfast.dev/v1/failovergroups");
    }
}
