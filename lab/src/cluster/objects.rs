//! Reading the cluster's objects through the API, and waiting for what they show.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use holdfast_api::v1::{FailoverGroup, GroupPhase, Server, SubCluster};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;

use super::Cluster;
use crate::error::{LabError, Result};
use crate::shell::wait_for;

/// A client of the cluster's API with a runtime of its own.
pub(super) struct Objects {
    runtime: tokio::runtime::Runtime,
    client: Client,
    namespace: String,
}

impl Objects {
    pub(super) fn connect(kubeconfig: &Path, namespace: &str) -> Result<Objects> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|source| LabError::Io { what: "starting the client's runtime".into(), source })?;
        let client = runtime.block_on(async {
            let config = Kubeconfig::read_from(kubeconfig).map_err(api_error)?;
            let mut config =
                Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.map_err(api_error)?;
            config.read_timeout = Some(Duration::from_secs(10));
            config.connect_timeout = Some(Duration::from_secs(3));
            Client::try_from(config).map_err(api_error)
        })?;
        Ok(Objects { runtime, client, namespace: namespace.to_string() })
    }

    /// Runs a request to its end, at most 10 s.
    fn wait<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(Duration::from_secs(10), request).await {
                Ok(outcome) => outcome.map_err(api_error),
                Err(_) => Err(LabError::Api("the API server did not answer within 10 s".into())),
            }
        })
    }

    fn list<K>(&self) -> Result<Vec<K>>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        self.wait(api.list(&ListParams::default())).map(|list| list.items)
    }

    fn get<K>(&self, name: &str) -> Result<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        self.wait(api.get(name))
    }

    pub(super) fn api_answers(&self) -> Result<()> {
        self.wait(self.client.apiserver_version()).map(drop)
    }

    pub(super) fn group(&self, name: &str) -> Result<FailoverGroup> {
        self.get(name)
    }

    pub(super) fn sub_cluster(&self, name: &str) -> Result<SubCluster> {
        self.get(name)
    }

    pub(super) fn wait_online(&self, group: &str, server: Option<&str>, limit: Duration) -> Result<FailoverGroup> {
        let place = server.map(|name| format!(" on {name}")).unwrap_or_default();
        self.wait_group(group, &format!("be online{place}"), limit, |found| {
            let status = found.status.as_ref();
            status.and_then(|status| status.phase) == Some(GroupPhase::Online)
                && server.is_none_or(|wanted| status.and_then(|status| status.server.as_deref()) == Some(wanted))
        })
    }

    pub(super) fn wait_group(
        &self,
        group: &str,
        what: &str,
        limit: Duration,
        fulfilled: impl Fn(&FailoverGroup) -> bool,
    ) -> Result<FailoverGroup> {
        wait_for(&format!("group {group} to {what}"), limit, |last| match self.group(group) {
            Ok(found) => {
                *last = describe(&found);
                Ok(fulfilled(&found).then_some(found))
            }
            Err(error) => {
                *last = error.to_string();
                Ok(None)
            }
        })
    }
}

fn api_error(error: impl std::error::Error) -> LabError {
    // The whole chain: the outermost of these errors only says "connection failed".
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    LabError::Api(text)
}

/// Everything that a tree shows, read at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The sub-cluster.
    pub sub_cluster: Option<SubCluster>,
    /// Its servers.
    pub servers: Vec<Server>,
    /// Its groups.
    pub groups: Vec<FailoverGroup>,
}

impl Cluster {
    /// A group.
    ///
    /// # Errors
    /// When the API does not answer or has none of that name.
    pub fn group(&self, name: &str) -> Result<FailoverGroup> {
        self.objects.group(name)
    }

    /// The sub-cluster.
    ///
    /// # Errors
    /// When the API does not answer or doesn't have it yet.
    pub fn sub_cluster(&self) -> Result<SubCluster> {
        self.objects.sub_cluster(&self.blueprint().sub_cluster)
    }

    /// The Server objects of the sub-cluster, by the server's name.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn servers(&self) -> Result<BTreeMap<String, Server>> {
        let all: Vec<Server> = self.objects.list()?;
        let own = all.into_iter().filter(|server| server.spec.sub_cluster == self.blueprint().sub_cluster);
        Ok(own.map(|server| (server.spec.server.clone(), server)).collect())
    }

    /// Sub-cluster, servers and groups as the API shows them now.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let sub_clusters: Vec<SubCluster> = self.objects.list()?;
        let wanted = Some(self.blueprint().sub_cluster.as_str());
        let groups: Vec<FailoverGroup> = self.objects.list()?;
        Ok(Snapshot {
            sub_cluster: sub_clusters.into_iter().find(|found| found.metadata.name.as_deref() == wanted),
            servers: self.servers()?.into_values().collect(),
            groups: groups.into_iter().filter(|group| Some(group.spec.sub_cluster.as_str()) == wanted).collect(),
        })
    }

    /// Waits until a group is Online (on `server`, if one is named) and returns it.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what its status said last.
    pub fn wait_online(&self, group: &str, server: Option<&str>, limit: Duration) -> Result<FailoverGroup> {
        self.objects.wait_online(group, server, limit)
    }

    /// Waits until a group's object fulfils a condition and returns it.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what its status said last.
    pub fn wait_group(
        &self,
        group: &str,
        what: &str,
        limit: Duration,
        fulfilled: impl Fn(&FailoverGroup) -> bool,
    ) -> Result<FailoverGroup> {
        self.objects.wait_group(group, what, limit, fulfilled)
    }

    /// The epoch of the newest view that the API knows; 0 before the first.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn epoch(&self) -> Result<u64> {
        Ok(self.sub_cluster()?.status.and_then(|status| status.epoch).unwrap_or(0))
    }

    /// Waits until the API shows a view later than `epoch` whose members are exactly `servers`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the view seen last.
    pub fn wait_view(&self, servers: &[String], epoch: u64, limit: Duration) -> Result<()> {
        self.wait_one_view(&[servers], epoch, limit).map(|_| ())
    }

    /// Waits until the API shows a view later than `epoch` whose members are exactly one of these lists; says which.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the view seen last.
    pub fn wait_one_view<'a>(&self, any: &[&'a [String]], epoch: u64, limit: Duration) -> Result<&'a [String]> {
        wait_for(&format!("a view after {epoch} with one of {any:?}"), limit, |last| match self.sub_cluster() {
            Ok(found) => {
                let status = found.status.unwrap_or_default();
                let members = status.view.map(|view| view.members).unwrap_or_default();
                *last = format!("epoch {:?}, members {members:?}", status.epoch);
                let later = status.epoch.is_some_and(|found| found > epoch);
                Ok(any.iter().copied().find(|servers| later && members == **servers))
            }
            Err(error) => {
                *last = error.to_string();
                Ok(None)
            }
        })
    }

    /// Waits until every group of the example is Online.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what the status of the first that isn't said last.
    pub fn wait_all_online(&self, limit: Duration) -> Result<()> {
        for group in &self.blueprint().groups {
            self.wait_online(group, None, limit)?;
        }
        Ok(())
    }
}

/// A group's status in one line, for messages.
fn describe(group: &FailoverGroup) -> String {
    let Some(status) = &group.status else { return "no status".into() };
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| format!("{}={}/{} {}", condition.type_, condition.status, condition.reason, condition.message))
        .collect();
    let resources: Vec<String> = status
        .resources
        .iter()
        .map(|resource| format!("{} {:?} {}", resource.name, resource.state, resource.message))
        .collect();
    format!(
        "phase {:?}, server {:?}, resources [{}], conditions [{}]",
        status.phase,
        status.server,
        resources.join(", "),
        conditions.join(", ")
    )
}
