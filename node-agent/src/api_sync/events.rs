//! Notes become Events (events.k8s.io/v1) on the object that they are about.

use std::collections::BTreeMap;

use holdfast_api::API_VERSION;
use holdfast_api::reasons::event;
use holdfast_api::v1::{FailoverGroup, SubCluster};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};

use super::{ApiError, within};
use crate::config::AgentConfig;
use crate::notes::{Dated, Notes};

/// Reasons that are about the sub-cluster; others without a group are about the server.
const OF_SUB_CLUSTER: [&str; 7] = [
    event::SERVER_SUSPECTED,
    event::PARTITION_DETECTED,
    event::VIEW_DECIDED,
    event::SERVER_LOST,
    event::SERVER_RETURNED,
    event::EVIDENCE_ACCEPTED,
    event::CONFIG_ADOPTED,
];

/// Reasons that an Operation may have: it is the related object then, and not the server.
const BY_OPERATIONS: [&str; 5] =
    [event::GROUP_STARTED, event::GROUP_STOPPED, event::GROUP_MOVED, event::HOLD_PLACED, event::HOLD_RELEASED];

pub(super) struct Poster {
    events: Api<Event>,
    config: AgentConfig,
    notes: Notes,
    sub_cluster_uid: Option<String>,
    group_uids: BTreeMap<String, String>,
    refused: bool,
}

impl Poster {
    pub(super) fn new(client: Client, config: AgentConfig, notes: Notes) -> Poster {
        let events = Api::namespaced(client, &config.namespace);
        Poster { events, config, notes, sub_cluster_uid: None, group_uids: BTreeMap::new(), refused: false }
    }

    pub(super) fn knows_sub_cluster(&mut self, object: &SubCluster) {
        self.sub_cluster_uid.clone_from(&object.metadata.uid);
    }

    pub(super) fn knows_group(&mut self, object: &FailoverGroup) {
        if let (Some(name), Some(uid)) = (&object.metadata.name, &object.metadata.uid) {
            self.group_uids.insert(name.clone(), uid.clone());
        }
    }

    /// Posts all that waits. An Event that the API refuses is dropped (the log has it); one that it does not answer for
    /// stays.
    pub(super) async fn post(&mut self) -> Result<(), ApiError> {
        while let Some(dated) = self.notes.oldest() {
            let event = self.event(&dated);
            let posted = within("an Event", self.events.create(&PostParams::default(), &event)).await;
            match posted {
                // 409: it arrived although the answer did not.
                Ok(_) => self.refused = false,
                Err(e) if e.code() == Some(409) => {}
                Err(e) if e.code().is_some_and(|code| (400..500).contains(&code) && code != 429) => {
                    if !std::mem::replace(&mut self.refused, true) {
                        tracing::warn!("Events are refused: {e}");
                    }
                }
                Err(e) => return Err(e),
            }
            self.notes.done(&dated);
        }
        Ok(())
    }

    fn event(&self, dated: &Dated) -> Event {
        let note = &dated.note;
        let of = |kind: &str, name: String, uid: Option<String>| ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name),
            namespace: Some(self.config.namespace.clone()),
            uid,
            ..ObjectReference::default()
        };
        let server = of("Server", self.config.server_object(), None);
        // A command on a server has no Operation, or only later.
        let operation = note.operation.as_ref().filter(|by| BY_OPERATIONS.contains(&note.reason) && !by.contains(':'));
        let (regarding, related) = match &note.group {
            Some(group) => {
                let operation = operation.map(|by| of("Operation", by.clone(), None));
                let group = of("FailoverGroup", group.0.clone(), self.group_uids.get(&group.0).cloned());
                (group, Some(operation.unwrap_or(server)))
            }
            None if OF_SUB_CLUSTER.contains(&note.reason) => {
                (of("SubCluster", self.config.sub_cluster.clone(), self.sub_cluster_uid.clone()), Some(server))
            }
            None => (server, None),
        };
        let about = regarding.name.clone().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                // The same note posted twice is the same Event.
                name: Some(format!("{about}.{}.{:x}", self.config.server, dated.at.as_nanosecond())),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(dated.at)),
            action: Some(note.reason.to_owned()),
            reason: Some(note.reason.to_owned()),
            note: Some(note.message.chars().take(1000).collect()),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(regarding),
            related,
            reporting_controller: Some("holdfast.dev/agent".to_owned()),
            reporting_instance: Some(self.config.server_object().chars().take(128).collect()),
            ..Event::default()
        }
    }
}
