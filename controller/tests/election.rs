//! Several controllers on one API server: who acts, and when the next one begins.

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_api::v1::{Server, SubCluster, SuperCluster};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::DeleteParams;
use support::{Candidate, World, sub_cluster, super_cluster, wait};

/// The lease's duration, and what the machine may add.
const LEASE: Duration = Duration::from_secs(15);
const SLACK: Duration = Duration::from_secs(3);

async fn leads(world: &World, candidate: &Candidate) -> Lease {
    let api = world.api_in::<Lease>("locks");
    let held = |lease: &Lease| {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(candidate.name.as_str())
    };
    wait("the lease to change hands", || async {
        api.get_opt("holdfast-controller").await.expect("an answer").as_ref().is_some_and(held)
    })
    .await;
    api.get("holdfast-controller").await.expect("a lease")
}

async fn cluster(world: &World) {
    world.create::<SuperCluster>(super_cluster()).await;
    world.create::<SubCluster>(sub_cluster()).await;
    wait("the Servers", || async { world.names::<Server>().await == ["db.db1", "db.db2"] }).await;
}

fn transitions(lease: &Lease) -> Option<i32> {
    lease.spec.as_ref()?.lease_transitions
}

/// A Server that is deleted comes back if a controller acts.
async fn somebody_acts(world: &World) {
    let api = world.api::<Server>();
    let old = api.get_opt("db.db1").await.expect("an answer").and_then(|server| server.uid());
    let _ = api.delete("db.db1", &DeleteParams::default()).await;
    wait("the Server to come back", || async {
        let server = api.get_opt("db.db1").await.expect("an answer");
        server.is_some_and(|server| server.uid() != old)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_acts_and_the_next_takes_over_when_it_is_killed_or_stopped() {
    let world = World::new().await;
    let begun = Instant::now();
    let first = world.candidate();
    let lease = leads(&world, &first).await;
    assert!(begun.elapsed() < SLACK, "a free lease is taken at once, not after {:?}", begun.elapsed());
    assert_eq!(transitions(&lease), Some(0));
    let second = world.candidate();
    cluster(&world).await;
    somebody_acts(&world).await;
    assert_eq!(second.wire.worked_since(begun), [], "a standby leaves everything alone");

    let killed = Instant::now();
    first.kill().await;
    let lease = leads(&world, &second).await;
    let waited = killed.elapsed();
    assert!(waited + SLACK >= LEASE && waited < LEASE + SLACK, "taken over after {waited:?}");
    assert_eq!(transitions(&lease), Some(1));
    somebody_acts(&world).await;

    let third = world.candidate();
    let stopped = Instant::now();
    second.controller.stop().await;
    let lease = leads(&world, &third).await;
    assert!(stopped.elapsed() < SLACK, "taken over after {:?}", stopped.elapsed());
    assert_eq!(transitions(&lease), Some(2));
    somebody_acts(&world).await;
    third.controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_before_another_one_begins() {
    let world = World::new().await;
    let first = world.candidate();
    leads(&world, &first).await;
    cluster(&world).await;
    let second = world.candidate();

    // What it watches still reaches it, so there is something to do; what it sends does not arrive.
    let cut = Instant::now();
    first.wire.cut.store(true, Ordering::SeqCst);
    world.api::<Server>().delete("db.db2", &DeleteParams::default()).await.expect("deleted");
    leads(&world, &second).await;
    let taken = Instant::now();
    let tried = first.wire.worked_since(cut);
    let last = tried.last().expect("it tried").0;
    assert!(last + Duration::from_secs(2) < taken, "still at work {:?} before the other one began", taken - last);
    wait("the Servers", || async { world.names::<Server>().await == ["db.db1", "db.db2"] }).await;

    // Back again, it stands by.
    first.wire.cut.store(false, Ordering::SeqCst);
    let healed = Instant::now();
    somebody_acts(&world).await;
    second.controller.stop().await;
    let again = Instant::now();
    leads(&world, &first).await;
    let early: Vec<_> = first.wire.worked_since(healed).into_iter().filter(|(at, _)| *at < again).collect();
    assert_eq!(early, [], "nothing is sent before the lease is held again");
    somebody_acts(&world).await;
    first.controller.stop().await;
}
