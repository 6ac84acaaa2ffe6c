//! Which Server objects a sub-cluster has, and what has to be written so that they are as they should be.

use holdfast_api::v1::{Server, ServerSpec, SubCluster};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

/// Label on everything that is made for a sub-cluster.
pub(crate) const LABEL: &str = "holdfast.dev/sub-cluster";

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// It is missing.
    Create(Box<Server>),
    /// Somebody edited it: a merge patch that undoes that.
    Repair(String, Value),
    /// It is not in `servers[]`.
    Delete(String),
}

/// The name of the Server object.
pub(crate) fn object_name(sub_cluster: &SubCluster, server: &str) -> String {
    format!("{}.{server}", sub_cluster.name_any())
}

/// The Server objects that the spec asks for.
fn wanted(sub_cluster: &SubCluster) -> Vec<Server> {
    let entries = sub_cluster.spec.servers.iter();
    entries
        .map(|entry| {
            let spec = ServerSpec {
                sub_cluster: sub_cluster.name_any(),
                server: entry.name.clone(),
                id: entry.id,
                site: entry.site.clone(),
                state: entry.state,
            };
            let mut server = Server::new(&object_name(sub_cluster, &entry.name), spec);
            server.metadata.namespace = sub_cluster.namespace();
            server.labels_mut().insert(LABEL.into(), sub_cluster.name_any());
            server.metadata.owner_references = sub_cluster.controller_owner_ref(&()).map(|owner| vec![owner]);
            server
        })
        .collect()
}

/// Whether the object was made for this sub-cluster, or claims to be.
pub(crate) fn belongs(sub_cluster: &SubCluster, server: &Server) -> bool {
    let owned = || server.owner_references().iter().any(|owner| Some(&owner.uid) == sub_cluster.metadata.uid.as_ref());
    let named =
        || sub_cluster.spec.servers.iter().any(|entry| server.name_any() == object_name(sub_cluster, &entry.name));
    server.namespace() == sub_cluster.namespace()
        && (server.spec.sub_cluster == sub_cluster.name_any() || owned() || named())
}

/// What has to be written; nothing when everything is in order. `existing` are objects that belong to the sub-cluster.
pub(crate) fn changes<'a>(sub_cluster: &SubCluster, existing: impl IntoIterator<Item = &'a Server>) -> Vec<Change> {
    let existing: Vec<&Server> = existing.into_iter().collect();
    let wanted = wanted(sub_cluster);
    let mut changes = Vec::new();
    for server in &existing {
        let is_wanted = wanted.iter().any(|w| w.name_any() == server.name_any());
        if !is_wanted && server.meta().deletion_timestamp.is_none() {
            changes.push(Change::Delete(server.name_any()));
        }
    }
    for want in wanted {
        match existing.iter().find(|server| server.name_any() == want.name_any()) {
            None => changes.push(Change::Create(Box::new(want))),
            // It goes; the next one is made when it is gone.
            Some(server) if server.meta().deletion_timestamp.is_some() => {}
            Some(server) if is_right(server, &want) => {}
            Some(_) => {
                let patch = json!({
                    "metadata": {"labels": want.labels(), "ownerReferences": want.owner_references()},
                    "spec": want.spec,
                });
                changes.push(Change::Repair(want.name_any(), patch));
            }
        }
    }
    changes
}

fn is_right(server: &Server, want: &Server) -> bool {
    server.spec == want.spec
        && server.labels().get(LABEL) == want.labels().get(LABEL)
        && want.owner_references().iter().all(|owner| server.owner_references().contains(owner))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sub_cluster;
    use super::*;

    fn made(sub: &SubCluster) -> Vec<Server> {
        let created = changes(sub, []).into_iter();
        created.map(|change| if let Change::Create(server) = change { *server } else { panic!("{change:?}") }).collect()
    }

    #[test]
    fn one_object_for_each_server_then_nothing() {
        let sub = sub_cluster("db");
        let servers = made(&sub);
        let names: Vec<_> = servers.iter().map(|s| s.name_any()).collect();
        assert_eq!(names, ["db.db1", "db.db2"]);
        assert_eq!(servers[1].spec.id, 2);
        assert_eq!(servers[0].labels()[LABEL], "db");
        assert_eq!(servers[0].owner_references()[0].uid, sub.metadata.uid.clone().unwrap());
        assert_eq!(changes(&sub, &servers), vec![]);
    }

    #[test]
    fn an_edit_is_undone_and_a_stranger_goes() {
        let sub = sub_cluster("db");
        let mut servers = made(&sub);
        servers[0].spec.id = 7;
        servers[1].spec.server = "db3".into();
        servers[1].metadata.name = Some("db.db3".into());
        let changes = changes(&sub, &servers);
        assert_eq!(changes[0], Change::Delete("db.db3".into()));
        let Change::Repair(name, patch) = &changes[1] else { panic!("{changes:?}") };
        assert_eq!((name.as_str(), &patch["spec"]["id"]), ("db.db1", &json!(1)));
        let Change::Create(again) = &changes[2] else { panic!("{changes:?}") };
        assert_eq!(again.name_any(), "db.db2");
    }
}
