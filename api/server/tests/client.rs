//! The Rust client and its runtime over TLS: what the controller and the agents are built on.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, TryStreamExt, pin_mut};
use holdfast_api::v1::{FailoverGroup, SubCluster};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event as NewEvent, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, finalizer, watcher};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};
use support::{PATIENCE, World, group, sub_cluster, until};

async fn client(world: &World) -> Client {
    let file = Kubeconfig::read_from(world.kubeconfig()).expect("the kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the type fits")
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_objects_come_and_go() {
    let world = World::new().await;
    let client = client(&world).await;
    assert_eq!(client.apiserver_version().await.expect("a version").minor, "32");
    let subs: Api<SubCluster> = Api::default_namespaced(client.clone());
    let created = subs.create(&PostParams::default(), &typed(sub_cluster("db"))).await.expect("created");
    let mut read = subs.get("db").await.expect("found");
    assert_eq!(read.resource_version(), created.resource_version());
    read.labels_mut().insert("site".into(), "hall-a".into());
    let replaced = subs.replace("db", &PostParams::default(), &read).await.expect("replaced");
    let error = subs.replace("db", &PostParams::default(), &read).await.expect_err("stale");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Converged", "message": "",
        "lastTransitionTime": "2026-03-02T01:00:00Z"}]}});
    let patched = subs.patch_status("db", &PatchParams::default(), &Patch::Merge(&status)).await.expect("patched");
    assert_eq!(patched.meta().generation, replaced.meta().generation);
    let listed = subs.list(&ListParams::default().labels("site=hall-a").limit(500)).await.expect("listed");
    assert_eq!(listed.items.len(), 1);
    assert!(subs.get_opt("none").await.expect("answered").is_none());
    subs.delete("db", &DeleteParams::default()).await.expect("deleted").map_left(|_| panic!("nothing holds it"));
    let namespaces: Api<Namespace> = Api::all(client);
    assert_eq!(
        namespaces.get("default").await.expect("found").status.expect("a status").phase.as_deref(),
        Some("Active")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_was_there_and_every_change() {
    let world = World::new().await;
    let client = client(&world).await;
    let groups: Api<FailoverGroup> = Api::default_namespaced(client.clone());
    groups.create(&PostParams::default(), &typed(group("first", "db"))).await.expect("created");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let names = watcher(groups.clone(), config).applied_objects().map_ok(|g| (g.name_any(), g.spec.sub_cluster));
        pin_mut!(names);
        let mut next = async || {
            tokio::time::timeout(PATIENCE, names.try_next())
                .await
                .expect("in time")
                .expect("no error")
                .expect("endless")
        };
        assert_eq!(next().await, ("first".into(), "db".into()));
        groups.create(&PostParams::default(), &typed(group("second", "db"))).await.expect("created");
        assert_eq!(next().await.0, "second");
        groups.delete("second", &DeleteParams::default()).await.expect("deleted");
    }
    let metadata: Api<PartialObjectMeta<FailoverGroup>> = Api::default_namespaced(client);
    let partial = watcher(metadata, watcher::Config::default()).applied_objects();
    pin_mut!(partial);
    let object =
        tokio::time::timeout(PATIENCE, partial.try_next()).await.expect("in time").expect("no error").expect("endless");
    assert_eq!(object.name_any(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_the_server_was_restarted() {
    let mut world = World::new().await;
    let first = client(&world).await;
    let groups: Api<FailoverGroup> = Api::default_namespaced(first);
    groups.create(&PostParams::default(), &typed(group("a", "db"))).await.expect("created");
    let version =
        groups.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    groups.create(&PostParams::default(), &typed(group("b", "db"))).await.expect("created");
    groups.delete("a", &DeleteParams::default()).await.expect("deleted");
    let stream = groups.watch(&WatchParams::default(), &version).await.expect("a watch").boxed();
    world.stop().await;
    let seen: Vec<_> =
        tokio::time::timeout(PATIENCE, stream.try_collect::<Vec<_>>()).await.expect("ends").expect("cleanly");
    assert!(seen.len() <= 2, "an open watch ends when the server stops");

    let world = World::on(world.temporary.take().expect("its store")).await;
    let groups: Api<FailoverGroup> = Api::default_namespaced(client(&world).await);
    let stream =
        groups.watch(&WatchParams::default().timeout(5), &version).await.expect("the history is still known").boxed();
    let brief = stream.map_ok(|event| match event {
        WatchEvent::Added(o) => format!("added {}", o.name_any()),
        WatchEvent::Deleted(o) => format!("deleted {}", o.name_any()),
        other => format!("{other:?}"),
    });
    let seen: Vec<_> = brief.take(2).try_collect().await.expect("no error");
    assert_eq!(seen, ["added b", "deleted a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_events_and_leases_work_as_controllers_use_them() {
    let world = World::new().await;
    let client = client(&world).await;
    let groups: Api<FailoverGroup> = Api::default_namespaced(client.clone());
    let created = groups.create(&PostParams::default(), &typed(group("ledger", "db"))).await.expect("created");
    let cleaned = Arc::new(AtomicBool::new(false));
    let reconcile = async |object: FailoverGroup| {
        let cleaned = Arc::clone(&cleaned);
        let step = |event: finalizer::Event<FailoverGroup>| async move {
            cleaned.fetch_or(matches!(event, finalizer::Event::Cleanup(_)), Ordering::SeqCst);
            Ok::<_, std::io::Error>(kube::runtime::controller::Action::await_change())
        };
        finalizer::finalizer(&groups, "holdfast.dev/group", Arc::new(object), step).await.expect("reconciled");
    };
    reconcile(created.clone()).await;
    let held = groups.get("ledger").await.expect("found");
    assert_eq!(held.finalizers(), ["holdfast.dev/group"]);
    groups.delete("ledger", &DeleteParams::default()).await.expect("marked");
    reconcile(groups.get("ledger").await.expect("still there")).await;
    assert!(cleaned.load(Ordering::SeqCst));
    assert!(groups.get_opt("ledger").await.expect("answered").is_none());

    let reporter = Reporter { controller: "holdfast-controller".into(), instance: Some("m1".into()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let event = NewEvent {
        type_: EventType::Warning,
        reason: "GroupFailedOver".into(),
        note: Some("db2 is lost".into()),
        action: "Failover".into(),
        secondary: None,
    };
    recorder.publish(&event, &created.object_ref(&())).await.expect("reported");
    recorder.publish(&event, &created.object_ref(&())).await.expect("reported again");
    let events: Api<Event> = Api::default_namespaced(client.clone());
    let chosen = ListParams::default().fields("involvedObject.kind=FailoverGroup,reason=GroupFailedOver");
    let listed = events.list(&chosen).await.expect("listed");
    assert_eq!(listed.items.len(), 1, "the second report is part of the first one's series");
    assert_eq!(listed.items[0].message.as_deref(), Some("db2 is lost"));

    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let lease = json!({"metadata": {"name": "leader"}, "spec": {
        "holderIdentity": "m1", "leaseDurationSeconds": 15, "renewTime": "2026-03-02T01:00:00.123456Z", "leaseTransitions": 0}});
    let mut lease: Lease = leases.create(&PostParams::default(), &typed(lease)).await.expect("created");
    lease.spec.as_mut().expect("a spec").holder_identity = Some("m2".into());
    leases.replace("leader", &PostParams::default(), &lease).await.expect("taken over");
    leases.replace("leader", &PostParams::default(), &lease).await.expect_err("somebody was faster");

    let secrets: Api<Secret> = Api::default_namespaced(client);
    let secret = json!({"metadata": {"name": "key"}, "stringData": {"1": "abc"}});
    let secret = secrets.create(&PostParams::default(), &typed::<Secret>(secret)).await.expect("created");
    assert_eq!(secret.data.expect("data")["1"].0, b"abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_lose_nothing_and_every_watcher_sees_all() {
    const WRITERS: usize = 8;
    const WRITES: usize = 15;
    let world = World::new().await;
    let client = client(&world).await;
    let groups: Api<FailoverGroup> = Api::default_namespaced(client.clone());
    groups.create(&PostParams::default(), &typed(group("counted", "db"))).await.expect("created");
    let version =
        groups.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    let watching = groups.watch(&WatchParams::default().timeout(60), &version).await.expect("a watch");
    let writers = (0..WRITERS).map(|writer| {
        let groups = groups.clone();
        tokio::spawn(async move {
            for write in 0..WRITES {
                let patch =
                    json!({"metadata": {"annotations": {format!("holdfast.dev/w{writer}"): write.to_string()}}});
                groups
                    .patch("counted", &PatchParams::default(), &Patch::Merge(&patch))
                    .await
                    .expect("patches never conflict");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    let versions: Vec<u64> = watching
        .map_ok(|event| match event {
            WatchEvent::Modified(object) => {
                object.resource_version().expect("a version").parse::<u64>().expect("a number")
            }
            other => panic!("unexpected {other:?}"),
        })
        .take(WRITERS * WRITES)
        .try_collect()
        .await
        .expect("all changes");
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let last = until("the caches caught up", || async {
        let object = groups.get("counted").await.expect("found");
        (object.annotations().len() == WRITERS).then_some(object)
    })
    .await;
    assert!(last.annotations().values().all(|value| value == &(WRITES - 1).to_string()));
}
