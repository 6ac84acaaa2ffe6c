//! The controller against the real API server over a real store. What a test expects is read back from the API server;
//! that nothing is written is read from the store.

mod support;

use std::time::Duration;

use holdfast_api::v1::{
    DataService, FailoverGroup, GivenCommand, GroupPhase, Health, Operation, OperationOrigin, OperationPhase, Server,
    SubCluster, SubClusterPhase, SuperCluster,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::json;
use support::{World, condition, group, sub_cluster, super_cluster, wait};

const QUIET: Duration = Duration::from_secs(5);

fn status(object: &FailoverGroup) -> holdfast_api::v1::FailoverGroupStatus {
    object.status.clone().unwrap_or_default()
}

fn accepted(group: &FailoverGroup) -> String {
    condition(&status(group).conditions, "Accepted")
}

fn unknown(group: &FailoverGroup) -> String {
    condition(&status(group).conditions, "UnknownGroup")
}

async fn cluster(world: &World) {
    world.create::<SuperCluster>(super_cluster()).await;
    world.create::<SubCluster>(sub_cluster()).await;
    world.create::<FailoverGroup>(group("ledger", "192.0.2.10/24")).await;
    world.until::<FailoverGroup>("ledger", "accepted", |group| accepted(group) == "True/Accepted").await;
    wait("both Servers", || async { world.names::<Server>().await == ["db.db1", "db.db2"] }).await;
}

async fn operation(world: &World, name: &str, spec: serde_json::Value) {
    let mut operation = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Operation", "metadata": {"name": name},
        "spec": {"target": {"kind": "FailoverGroup", "name": "ledger"}, "notAfter": "2999-01-01T00:00:00Z"},
    });
    operation["spec"].as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
    world.create::<Operation>(operation).await;
}

fn phase(operation: &Operation) -> OperationPhase {
    operation.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_manifests_to_a_quiet_cluster() {
    let world = World::new().await;
    let controller = world.controller();
    cluster(&world).await;

    // Before any agent has reported.
    let sub = world
        .until::<SubCluster>("db", "shown as unreported", |sub| {
            let status = sub.status.clone().unwrap_or_default();
            condition(&status.conditions, "Accepted") == "True/Accepted"
                && condition(&status.conditions, "Ready") == "False/Unreported"
                && condition(&status.conditions, "AgentReporting") == "False/Unreported"
                && status.phase == Some(SubClusterPhase::Unformed)
        })
        .await;
    assert_eq!(sub.finalizers(), ["holdfast.dev/subcluster"]);
    let server = world.api::<Server>().get("db.db2").await.expect("a Server");
    assert_eq!((server.spec.id, server.labels()["holdfast.dev/sub-cluster"].as_str()), (2, "db"));
    assert_eq!(server.owner_references()[0].uid, sub.uid().expect("a uid"));
    let secret = world.api::<Secret>().get("db-heartbeat").await.expect("a key");
    assert_eq!(secret.data.expect("data")["1"].0.len(), 32);
    let ledger = world.until::<FailoverGroup>("ledger", "claiming", |group| !status(group).claims.is_empty()).await;
    assert_eq!(ledger.finalizers(), ["holdfast.dev/group"]);
    assert_eq!(status(&ledger).claims, ["disk:wwn-ledger", "ip:192.0.2.10", "mount:/srv/ledger"]);
    assert_eq!(status(&ledger).target, None);
    world.assert_quiet(QUIET).await;

    // A Server that is deleted comes back, one that is edited is as before; the key stays the same.
    world.api::<Server>().delete("db.db1", &DeleteParams::default()).await.expect("deleted");
    let old = server.uid();
    wait("the Server again", || async { world.names::<Server>().await == ["db.db1", "db.db2"] }).await;
    let edit = Patch::Merge(json!({"spec": {"site": "elsewhere"}}));
    world.api::<Server>().patch("db.db2", &PatchParams::default(), &edit).await.expect("edited");
    world.until::<Server>("db.db2", "repaired", |server| server.spec.site.is_empty() && server.uid() == old).await;

    // Agents report: the target names the placement that it was computed from, and goes when it is reached.
    world.agents_meet().await;
    let wanted = world.until::<FailoverGroup>("ledger", "wanted", |group| status(group).target.is_some()).await;
    let target = status(&wanted).target.expect("a target");
    assert_eq!((target.server.as_str(), target.epoch, target.revision), ("db1", 0, None));
    world.placed("ledger", GroupPhase::Online, Some("db1"), &[]).await;
    let rest = world.until::<FailoverGroup>("ledger", "at rest", |group| status(group).target.is_none()).await;
    // What the agents wrote stands beside what the controller wrote.
    assert_eq!(condition(&status(&rest).conditions, "Ready"), "True/Converged");
    assert_eq!(condition(&status(&rest).conditions, "AgentReporting"), "True/Reporting");
    assert_eq!((status(&rest).server.as_deref(), status(&rest).revision), (Some("db1"), Some(401)));
    let bank = world
        .until::<SuperCluster>("bank", "healthy", |bank| {
            bank.status.as_ref().and_then(|s| s.health) == Some(Health::Healthy)
        })
        .await
        .status
        .expect("a status");
    assert_eq!(bank.groups.map(|groups| (groups.total, groups.online)), Some((1, 1)));
    assert_eq!(bank.management_server.map(|management| management.server), Some("db1".into()));
    assert_eq!(
        (condition(&bank.conditions, "Ready"), condition(&bank.conditions, "MasterMissing")),
        ("True/Converged".into(), "absent".into())
    );
    world.assert_quiet(QUIET).await;

    // Another controller finds nothing to do.
    controller.stop().await;
    let controller = world.controller();
    world.assert_quiet(QUIET).await;
    let again = world.api::<Secret>().get("db-heartbeat").await.expect("a key");
    assert_eq!(again.uid(), secret.metadata.uid);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why_and_takes_effect_when_it_is_put_right() {
    let world = World::new().await;
    let controller = world.controller();
    cluster(&world).await;
    world.agents_meet().await;

    // Two groups with one address: the second one gets it when the first one goes.
    world.create::<FailoverGroup>(group("reports", "192.0.2.10/24")).await;
    let reports =
        world.until::<FailoverGroup>("reports", "refused", |group| accepted(group) == "False/ClaimConflict").await;
    let message =
        &holdfast_api::conditions::get(&status(&reports).conditions, "Accepted").expect("Accepted").message.clone();
    assert_eq!(message, "ip:192.0.2.10 belongs to group ha/ledger; take it out of one of the two");
    assert_eq!(status(&reports).target, None);
    world.placed("ledger", GroupPhase::Offline, None, &[]).await;
    let offline = Patch::Merge(json!({"spec": {"state": "Offline"}}));
    world.api::<FailoverGroup>().patch("ledger", &PatchParams::default(), &offline).await.expect("Offline");
    world
        .until::<FailoverGroup>("ledger", "accepted again", |group| {
            holdfast_api::conditions::is_true_for(&status(group).conditions, "Accepted", group.metadata.generation)
        })
        .await;
    world.api::<FailoverGroup>().delete("ledger", &DeleteParams::default()).await.expect("deleted");
    world.until_gone::<FailoverGroup>("ledger").await;
    world.until::<FailoverGroup>("reports", "accepted", |group| accepted(group) == "True/Accepted").await;

    // A change that no view of a formed sub-cluster can carry; the old value is accepted again.
    let watchdog = |timeout: &str| Patch::Merge(json!({"spec": {"watchdog": {"timeout": timeout}}}));
    world.api::<SubCluster>().patch("db", &PatchParams::default(), &watchdog("9s")).await.expect("patched");
    let verdict = |sub: &SubCluster| condition(&sub.status.clone().unwrap_or_default().conditions, "Accepted");
    world.until::<SubCluster>("db", "refused", |sub| verdict(sub) == "False/UnsupportedByServer").await;
    world
        .api::<SubCluster>()
        .patch("db", &PatchParams::default(), &Patch::Merge(json!({"spec": {"watchdog": {"timeout": null}}})))
        .await
        .expect("patched");
    world.until::<SubCluster>("db", "accepted", |sub| verdict(sub) == "True/Accepted").await;

    // A group waits for the data service that it names; the data service stays as long as it is named.
    let group = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "served"},
        "spec": {"subCluster": "db", "resources": [{"name": "db", "dataService": {"name": "db2"}}]},
    });
    world.create::<FailoverGroup>(group).await;
    world.until::<FailoverGroup>("served", "refused", |g| accepted(g) == "False/UnknownDataService").await;
    let service = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "DataService", "metadata": {"name": "db2"},
        "spec": {"methods": [{"name": "start", "path": "/opt/db2/start"}]},
    });
    world.create::<DataService>(service).await;
    world
        .until::<DataService>("db2", "accepted", |service| {
            let status = service.status.clone().unwrap_or_default();
            condition(&status.conditions, "Accepted") == "True/Accepted" && status.used_by == ["served"]
        })
        .await;
    world.until::<FailoverGroup>("served", "accepted", |group| accepted(group) == "True/Accepted").await;
    let refused = world.api::<DataService>().delete("db2", &DeleteParams::default()).await.expect_err("it is used");
    assert!(refused.to_string().contains("failover groups use the data service: served"), "{refused}");
    world.api::<FailoverGroup>().delete("served", &DeleteParams::default()).await.expect("deleted");
    world.until_gone::<FailoverGroup>("served").await;
    world
        .until::<DataService>("db2", "free", |service| service.status.clone().unwrap_or_default().used_by.is_empty())
        .await;
    world.api::<DataService>().delete("db2", &DeleteParams::default()).await.expect("deleted");
    world.until_gone::<DataService>("db2").await;
    world.assert_quiet(QUIET).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_named_and_not_there_is_shown_until_it_is() {
    let world = World::new().await;
    let controller = world.controller();
    cluster(&world).await;
    world.create::<FailoverGroup>(group("reports", "192.0.2.20/24")).await;
    let relation = |name: &str| Patch::Merge(json!({"spec": {"placement": {"separateFrom": [{"group": name}]}}}));
    world.api::<FailoverGroup>().patch("reports", &PatchParams::default(), &relation("legder")).await.expect("patched");
    let named = world.until::<FailoverGroup>("reports", "warned", |g| unknown(g) == "True/UnknownGroup").await;
    let message =
        &holdfast_api::conditions::get(&status(&named).conditions, "UnknownGroup").expect("it").message.clone();
    assert_eq!(
        message,
        "spec.placement.separateFrom[0].group: sub-cluster db has no group legder, and this has no effect; create it, correct \
         the name or take it out"
    );
    assert_eq!(accepted(&named), "True/Accepted");
    world.create::<FailoverGroup>(group("legder", "192.0.2.99/24")).await;
    world.until::<FailoverGroup>("reports", "content", |g| unknown(g) == "absent").await;
    world.api::<FailoverGroup>().delete("legder", &DeleteParams::default()).await.expect("deleted");
    world.until::<FailoverGroup>("reports", "warned again", |g| unknown(g) == "True/UnknownGroup").await;
    let none = Patch::Merge(json!({"spec": {"placement": null}}));
    world.api::<FailoverGroup>().patch("reports", &PatchParams::default(), &none).await.expect("patched");
    world.until::<FailoverGroup>("reports", "content", |g| unknown(g) == "absent").await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_carried_out_one_after_the_other_and_over_a_restart() {
    let world = World::new().await;
    let controller = world.controller();
    cluster(&world).await;
    world.agents_meet().await;
    world.placed("ledger", GroupPhase::Online, Some("db1"), &[]).await;

    operation(&world, "away", json!({"type": "Move", "move": {"to": "db2"}})).await;
    world.until::<Operation>("away", "running", |operation| phase(operation) == OperationPhase::Running).await;
    operation(&world, "halt", json!({"type": "Stop", "reason": "index rebuild"})).await;
    world
        .until::<Operation>("halt", "waiting", |operation| {
            condition(&operation.status.clone().unwrap_or_default().conditions, "Ready") == "False/WaitingForOperation"
        })
        .await;
    world
        .until::<FailoverGroup>("ledger", "asked to move", |group| {
            status(group)
                .target
                .is_some_and(|target| (target.server.as_str(), target.operation.as_str()) == ("db2", "away"))
        })
        .await;
    // Nothing is remembered outside the objects.
    controller.stop().await;
    let agents = world.agents_follow("ledger");
    let controller = world.controller();
    let away =
        world.until::<Operation>("away", "done", |operation| phase(operation) == OperationPhase::Succeeded).await;
    let steps: Vec<_> =
        away.status.expect("a status").steps.iter().map(|step| format!("{}: {}", step.name, step.state)).collect();
    assert_eq!(steps, ["stop ledger on db1: Done", "start ledger on db2: Done"]);
    world.until::<Operation>("halt", "done", |operation| phase(operation) == OperationPhase::Succeeded).await;
    let held = world.api::<FailoverGroup>().get("ledger").await.expect("the group");
    assert_eq!(status(&held).holds[0].type_, "Stopped");

    operation(&world, "go", json!({"type": "Start"})).await;
    world.until::<Operation>("go", "done", |operation| phase(operation) == OperationPhase::Succeeded).await;
    let followed = agents.end().await;
    assert_eq!(followed, ["Online db2 away", "Offline  halt", "Online db1 go"], "{followed:?}");

    operation(&world, "nowhere", json!({"type": "Move", "move": {"to": "db9"}})).await;
    operation(&world, "rebuild", json!({"type": "Release"})).await;
    for (name, reason) in [("nowhere", "True/NotEligible"), ("rebuild", "True/UnsupportedByServer")] {
        let failed =
            world.until::<Operation>(name, "over", |operation| phase(operation) == OperationPhase::Failed).await;
        assert_eq!(condition(&failed.status.expect("a status").conditions, "Failed"), reason);
    }
    wait("the Events", || async {
        let events = world.api::<Event>().list(&ListParams::default()).await.expect("Events");
        let told = |name: &str| {
            events.items.iter().any(|event| {
                let related = event.related.as_ref().and_then(|related| related.name.as_deref());
                let regarding = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
                (event.reason.as_deref(), related, regarding) == (Some("OperationFinished"), Some(name), Some("ledger"))
            })
        };
        ["away", "halt", "go", "nowhere", "rebuild"].into_iter().all(told)
    })
    .await;

    // Kept no longer than asked for.
    operation(&world, "short", json!({"type": "Start", "ttlAfterFinished": "1s"})).await;
    world.until_gone::<Operation>("short").await;
    world.assert_quiet(QUIET).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_were_given_on_a_server_become_records_that_nobody_carries_out() {
    let world = World::new().await;
    let controller = world.controller();
    cluster(&world).await;
    world.agents_meet().await;
    world.placed("ledger", GroupPhase::Online, Some("db1"), &[]).await;
    let given = |id: u64, type_: &str| {
        let command = json!({
            "id": id, "type": type_, "group": "ledger", "reason": "the API was away", "message": "it was done",
            "given": "2026-03-02T01:00:00Z", "done": "2026-03-02T01:00:03Z",
        });
        GivenCommand::deserialize(command).expect("a command")
    };
    let both = vec![given(7, "Stop"), given(9, "Start")];
    world.report::<Server>("db.db2", |server| server.status.get_or_insert_default().commands = both.clone()).await;
    for name in ["stop-ledger-db-db2-7", "start-ledger-db-db2-9"] {
        let done = world.until::<Operation>(name, "over", |one| phase(one) == OperationPhase::Succeeded).await;
        let status = done.status.expect("a status");
        let took = status.steps[0].took.as_ref().map(|took| took.get().as_secs());
        assert_eq!((status.origin, took), (Some(OperationOrigin::Local), Some(3)));
        assert_eq!(done.spec.reason.as_deref(), Some("the API was away"));
    }
    world
        .until::<Server>("db.db2", "recorded", |server| {
            server.status.as_ref().and_then(|status| status.commands_recorded) == Some(9)
        })
        .await;
    // Nobody was asked for anything, and a record that was deleted does not come back.
    let group = world.api::<FailoverGroup>().get("ledger").await.expect("the group");
    assert_eq!(status(&group).target.map(|target| target.operation).unwrap_or_default(), "");
    let operations = world.api::<Operation>();
    operations.delete("stop-ledger-db-db2-7", &DeleteParams::default()).await.expect("deleted");
    world.until_gone::<Operation>("stop-ledger-db-db2-7").await;
    // A command that no server reports was not given.
    let made_up = json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Operation",
        "metadata": {"name": "made-up", "annotations": {"holdfast.dev/given-on": "db.db2/8"}},
        "spec": {"type": "Stop", "target": {"kind": "FailoverGroup", "name": "ledger"}, "notAfter": "2026-03-02T01:00:03Z"},
    });
    world.create::<Operation>(made_up).await;
    let failed = world.until::<Operation>("made-up", "over", |one| phase(one) == OperationPhase::Failed).await;
    assert_eq!(condition(&failed.status.expect("a status").conditions, "Failed"), "True/NotFound");
    world.report::<Server>("db.db2", |server| server.status.get_or_insert_default().commands = Vec::new()).await;
    world.assert_quiet(QUIET).await;
    assert_eq!(world.names::<Operation>().await, ["made-up", "start-ledger-db-db2-9"]);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_stops_production_only_when_it_was_confirmed() {
    let world = World::new().await;
    let controller = world.controller();
    cluster(&world).await;
    world.agents_meet().await;
    world.placed("ledger", GroupPhase::Online, Some("db1"), &[]).await;
    world.until::<FailoverGroup>("ledger", "at rest", |group| status(group).target.is_none()).await;

    let refused = world.api::<FailoverGroup>().delete("ledger", &DeleteParams::default()).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    let confirm =
        |name: &str| Patch::Merge(json!({"metadata": {"annotations": {"holdfast.dev/confirm-delete": name}}}));
    world.api::<FailoverGroup>().patch("ledger", &PatchParams::default(), &confirm("ledger")).await.expect("confirmed");
    world.api::<FailoverGroup>().delete("ledger", &DeleteParams::default()).await.expect("deleted");
    // Confirmed, but still running: it is to stop, and stays until it has.
    let going = world.until::<FailoverGroup>("ledger", "stopping", |group| status(group).target.is_some()).await;
    assert_eq!(status(&going).target.expect("a target").state.as_str(), "Offline");
    // Somebody takes the confirmation back: it keeps running, and says so.
    let revoke = Patch::Merge(json!({"metadata": {"annotations": null}}));
    world.api::<FailoverGroup>().patch("ledger", &PatchParams::default(), &revoke).await.expect("revoked");
    world
        .until::<FailoverGroup>("ledger", "blocked", |group| {
            condition(&status(group).conditions, "DeletionBlocked") == "True/DeletionBlocked"
                && status(group).target.is_none()
        })
        .await;

    // The sub-cluster waits for its group.
    world.api::<SubCluster>().patch("db", &PatchParams::default(), &confirm("db")).await.expect("confirmed");
    world.api::<SubCluster>().delete("db", &DeleteParams::default()).await.expect("deleted");
    world
        .until::<SubCluster>("db", "waiting", |sub| {
            condition(&sub.status.clone().unwrap_or_default().conditions, "DeletionBlocked") == "True/DeletionBlocked"
        })
        .await;
    let agents = world.agents_follow("ledger");
    world.api::<FailoverGroup>().patch("ledger", &PatchParams::default(), &confirm("ledger")).await.expect("confirmed");
    world.until_gone::<FailoverGroup>("ledger").await;
    assert_eq!(agents.end().await, ["Offline"]);
    world.until_gone::<SubCluster>("db").await;
    wait("its Servers and its key to go", || async {
        world.names::<Server>().await.is_empty() && !world.names::<Secret>().await.contains(&"db-heartbeat".to_string())
    })
    .await;
    controller.stop().await;
}

/// What the repository shows as examples is accepted as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for example in std::fs::read_dir(examples).expect("examples") {
        let directory = example.expect("an entry").path();
        // The one that is made of overlays is walked by a test of its own, with git.
        if !directory.join("kustomization.yaml").is_file() {
            continue;
        }
        let world = World::new().await;
        let controller = world.controller();
        let mut names = Vec::new();
        let files = std::fs::read_dir(&directory).expect("a directory").map(|file| file.expect("an entry").path());
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
            let text = std::fs::read_to_string(&file).expect("a text");
            for document in serde_yaml::Deserializer::from_str(&text) {
                let object = serde_json::Value::deserialize(document).expect("YAML");
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_string();
                match object["kind"].as_str() {
                    Some("SuperCluster") => drop(world.create_anywhere::<SuperCluster>(object).await),
                    Some("DataService") => drop(world.create_anywhere::<DataService>(object).await),
                    Some("SubCluster") => {
                        let sub = world.create_anywhere::<SubCluster>(object).await;
                        names.push((sub.namespace(), name, true));
                    }
                    Some("FailoverGroup") => {
                        let group = world.create_anywhere::<FailoverGroup>(object).await;
                        names.push((group.namespace(), name, false));
                    }
                    _ => {}
                }
            }
        }
        assert!(names.len() >= 2, "{} has no cluster", directory.display());
        for (namespace, name, is_sub_cluster) in names {
            let namespace = namespace.expect("a namespace");
            wait(&format!("{name} of {} to be accepted", directory.display()), || async {
                let conditions = if is_sub_cluster {
                    let sub = world.api_in::<SubCluster>(&namespace).get(&name).await.expect("the sub-cluster");
                    sub.status.unwrap_or_default().conditions
                } else {
                    let group = world.api_in::<FailoverGroup>(&namespace).get(&name).await.expect("the group");
                    group.status.unwrap_or_default().conditions
                };
                let verdict = holdfast_api::conditions::get(&conditions, "Accepted");
                // Until the controller has seen what it names.
                let missing = ["NotFound", "UnknownDataService"];
                let refused = verdict.filter(|v| v.status == "False" && !missing.contains(&v.reason.as_str()));
                assert!(refused.is_none(), "{}: {name}: {refused:?}", directory.display());
                verdict.is_some_and(|verdict| verdict.status == "True")
            })
            .await;
        }
        controller.stop().await;
    }
}
