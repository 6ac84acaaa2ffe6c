//! Everything that the tree shows, read at one moment. An object that can't be understood is kept by name, so that one
//! bad object does not hide the others.

use holdfast_api::v1::{FailoverGroup, Server, SubCluster, SuperCluster};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::Api;
use crate::errors::Result;

/// The objects of one or all namespaces.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) super_clusters: Vec<SuperCluster>,
    pub(crate) sub_clusters: Vec<SubCluster>,
    pub(crate) servers: Vec<Server>,
    pub(crate) groups: Vec<FailoverGroup>,
    /// `Kind namespace/name: why` of objects that are not as the schema says.
    pub(crate) unreadable: Vec<String>,
}

impl Snapshot {
    /// Reads them.
    ///
    /// # Errors
    /// When the API server can't be reached or refuses.
    pub(crate) async fn read(api: &Api, namespace: Option<&str>) -> Result<Snapshot> {
        let mut unreadable = Vec::new();
        Ok(Snapshot {
            super_clusters: list(api, "superclusters", "SuperCluster", namespace, &mut unreadable).await?,
            sub_clusters: list(api, "subclusters", "SubCluster", namespace, &mut unreadable).await?,
            servers: list(api, "servers", "Server", namespace, &mut unreadable).await?,
            groups: list(api, "failovergroups", "FailoverGroup", namespace, &mut unreadable).await?,
            unreadable,
        })
    }
}

/// All objects of a kind; those that are not as the schema says are named in `unreadable`.
///
/// # Errors
/// When the API server can't be reached or refuses.
pub(crate) async fn list<T: DeserializeOwned>(
    api: &Api,
    plural: &str,
    kind: &str,
    namespace: Option<&str>,
    unreadable: &mut Vec<String>,
) -> Result<Vec<T>> {
    let place = namespace.map_or_else(String::new, |namespace| format!("/namespaces/{namespace}"));
    let path = format!("/apis/{}{place}/{plural}", holdfast_api::API_VERSION);
    let answer: Value = api.send(Method::GET, &path, None).await?;
    let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut objects = Vec::new();
    for item in items {
        let at = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
        let name = format!("{kind} {}/{}", at("/metadata/namespace"), at("/metadata/name"));
        // Items of a list carry no type of their own.
        let mut item = item;
        item["apiVersion"] = holdfast_api::API_VERSION.into();
        item["kind"] = kind.into();
        match serde_json::from_value(item) {
            Ok(object) => objects.push(object),
            Err(error) => unreadable.push(format!("{name}: {error}")),
        }
    }
    Ok(objects)
}
