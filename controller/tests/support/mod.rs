//! An API server over a new SQLite file, a controller beside it, and agents that do what targets say: they write what real
//! ones would report, and nothing else.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::fmt::Debug;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_api::conditions;
use holdfast_api::v1::{
    FailoverGroup, GroupPhase, GroupState, Hold, MemberStatus, Server, ServerState, SubCluster, SubClusterPhase,
    ViewStatus,
};
use holdfast_apiserver::{Identity, Plain, Settings};
use holdfast_store::testing::TempStore;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longest wait for anything that a test expects.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The API server with its store.
pub struct World {
    pub client: Client,
    pub store: TempStore,
    _server: Arc<holdfast_apiserver::Server>,
    serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A running controller.
pub struct Controller {
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), holdfast_controller::Error>>,
}

impl Controller {
    /// Stops it the way a process does that was told to stop.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.running).await.expect("it stops").expect("no panic").expect("no error");
    }
}

/// A controller in an election.
pub struct Candidate {
    pub name: String,
    pub wire: Arc<Wire>,
    pub controller: Controller,
}

impl Candidate {
    /// Ends it without a word, as a kill does.
    pub async fn kill(self) {
        self.controller.running.abort();
        drop(self.controller.running.await);
    }
}

/// What is between a controller and the API server.
#[derive(Default)]
pub struct Wire {
    /// Nothing gets through.
    pub cut: AtomicBool,
    sent: Mutex<Vec<(Instant, String)>>,
}

impl Wire {
    fn client(self: &Arc<Self>, client: Client) -> Client {
        let wire = Arc::clone(self);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (wire, client) = (Arc::clone(&wire), client.clone());
            async move {
                let what = format!("{} {}", request.method(), request.uri().path());
                wire.sent.lock().expect("lock").push((Instant::now(), what));
                if wire.cut.load(Ordering::SeqCst) {
                    return Err(tower::BoxError::from("the test cut the wire"));
                }
                client.send(request).await.map_err(tower::BoxError::from)
            }
        });
        Client::new(service, "default")
    }

    /// What was sent since then, or tried to be, except about the lease.
    pub fn worked_since(&self, since: Instant) -> Vec<(Instant, String)> {
        let sent = self.sent.lock().expect("lock");
        sent.iter().filter(|(at, what)| *at >= since && !what.contains("/namespaces/locks/")).cloned().collect()
    }
}

impl World {
    /// An API server with the namespace `ha`.
    pub async fn new() -> Self {
        // With RUST_LOG set, what the controller says is part of the output of a test that fails.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let store = TempStore::new().expect("a store");
        let keys = holdfast_apiserver::keys::Keys::load_or_create(store.dir()).expect("keys");
        let server =
            holdfast_apiserver::Server::new(Settings::new(store.store(), keys).expect("CRDs")).expect("a server");
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let plain = Arc::new(Plain { identity: Some(Identity::new("tester", ["system:masters"])) });
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener, plain, std::future::pending()).await.expect("serving") }
        });
        tokio::time::timeout(PATIENCE, server.ready()).await.expect("the server becomes ready");
        let client =
            Client::try_from(Config::new(format!("http://{address}").parse().expect("a URL"))).expect("a client");
        let world = Self { client, store, _server: server, serving };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ha"}});
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
        namespaces.create(&PostParams::default(), &typed(namespace)).await.expect("a namespace");
        world
    }

    /// Starts a controller.
    pub fn controller(&self) -> Controller {
        let (stop, stopped) = oneshot::channel::<()>();
        let settings = holdfast_controller::Settings::default();
        let run = holdfast_controller::run(self.client.clone(), settings, async { drop(stopped.await) });
        Controller { stop, running: tokio::spawn(run) }
    }

    /// Starts a controller that takes part in the election, with a client that can be cut off and tells what it sent.
    pub fn candidate(&self) -> Candidate {
        let wire = Arc::new(Wire::default());
        let identity = Arc::new(holdfast_controller::Identity::fresh());
        let name = identity.name().to_owned();
        let election = holdfast_controller::Election { namespace: "locks".into(), identity };
        let settings = holdfast_controller::Settings { election: Some(election), ..Default::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let run = holdfast_controller::run(wire.client(self.client.clone()), settings, async { drop(stopped.await) });
        Candidate { name, wire, controller: Controller { stop, running: tokio::spawn(run) } }
    }

    /// The API of a kind in namespace `ha`.
    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "ha")
    }

    /// The API of a kind in any namespace.
    pub fn api_in<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object in the namespace that it names, and that namespace if it is missing.
    pub async fn create_anywhere<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_string();
        let missing = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        match namespaces.create(&PostParams::default(), &typed(missing)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("namespace {namespace}: {error}"),
        }
        self.api_in::<K>(&namespace).create(&PostParams::default(), &typed(object)).await.expect("created")
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        self.api::<K>().create(&PostParams::default(), &typed(object)).await.expect("created")
    }

    /// Waits until the object is as `condition` says.
    pub async fn until<K>(&self, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let api = self.api::<K>();
        let mut last = None;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            last = api.get_opt(name).await.expect("an answer");
            if let Some(object) = last.as_ref().filter(|object| condition(object)) {
                return object.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let last = serde_json::to_string_pretty(&last).expect("JSON");
        panic!("{} {name} did not become {what} within {PATIENCE:?}: {last}", K::kind(&()));
    }

    /// Waits until there is no such object.
    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        wait(&format!("{name} to go"), || async { api.get_opt(name).await.expect("an answer").is_none() }).await;
    }

    /// Fails if anything at all is written within `quiet`, after things have had a while to settle.
    pub async fn assert_quiet(&self, quiet: Duration) {
        let store = self.store.store();
        let revision = || async { store.revision().await.expect("a revision") };
        let mut before = revision().await;
        let mut since = Instant::now();
        let end = since + PATIENCE;
        while since.elapsed() < quiet {
            assert!(Instant::now() < end, "something is written again and again");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = revision().await;
            if now != before {
                // Only the first second may still bring what was on its way.
                assert!(since.elapsed() < Duration::from_secs(1), "written after {:?} of silence", since.elapsed());
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Changes the status of an object as an agent does: read, change, put back.
    pub async fn report<K>(&self, name: &str, change: impl Fn(&mut K))
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let api = self.api::<K>();
        wait(&format!("a report about {name}"), || async {
            let mut object = api.get(name).await.expect("the object");
            change(&mut object);
            match api.replace_status(name, &PostParams::default(), &object).await {
                Ok(_) => true,
                Err(kube::Error::Api(status)) if status.code == 409 => false,
                Err(error) => panic!("{name}: {error}"),
            }
        })
        .await;
    }

    /// The agents of sub-cluster `db` meet: epoch 17, both servers.
    pub async fn agents_meet(&self) {
        for server in ["db1", "db2"] {
            self.report::<Server>(&format!("db.{server}"), |server| {
                let status = server.status.get_or_insert_default();
                status.report_time = Some(Time(Timestamp::now()));
                status.state = Some(ServerState::Active);
            })
            .await;
        }
        self.report::<SubCluster>("db", |sub| {
            let status = sub.status.get_or_insert_default();
            status.cluster_id = Some("6f0c1d9e-3b1f-4a0e-9b8e-8a5b2a7f1c11".into());
            (status.epoch, status.revision, status.phase) = (Some(17), Some(1), Some(SubClusterPhase::Running));
            let members = vec!["db1".to_string(), "db2".to_string()];
            let active =
                |name: &String| MemberStatus { name: name.clone(), state: ServerState::Active, ..Default::default() };
            status.members = members.iter().map(active).collect();
            status.view = Some(ViewStatus { members, coordinator: "db1".into(), ..Default::default() });
            let now = Timestamp::now();
            conditions::set(&mut status.conditions, "Ready", true, "Converged", "", sub.metadata.generation, now);
        })
        .await;
    }

    /// Where a group is now.
    pub async fn placed(&self, name: &str, phase: GroupPhase, server: Option<&str>, holds: &[&str]) {
        self.report::<FailoverGroup>(name, |group| {
            let generation = group.metadata.generation;
            let status = group.status.get_or_insert_default();
            status.epoch = Some(17);
            status.revision = Some(status.revision.unwrap_or(400) + 1);
            (status.phase, status.server) = (Some(phase), server.map(String::from));
            let hold =
                |hold: &&str| Hold { name: format!("hold-{hold}"), type_: hold.to_string(), ..Default::default() };
            status.holds = holds.iter().map(hold).collect();
            status.claims = holdfast_api::claims::texts(&group.spec);
            let online = phase == GroupPhase::Online;
            conditions::set(&mut status.conditions, "Ready", online, "Converged", "", generation, Timestamp::now());
        })
        .await;
    }

    /// Does what the group's targets say, through every phase, until dropped. Returns each target that it followed.
    pub fn agents_follow(&self, name: &'static str) -> Followers {
        let (world, (stop, mut stopped)) = (self.handle(), oneshot::channel::<()>());
        let task = tokio::spawn(async move {
            let mut followed = Vec::new();
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let Some(group) = world.api::<FailoverGroup>().get_opt(name).await.expect("an answer") else {
                    continue;
                };
                let Some(status) = group.status.clone() else { continue };
                let Some(target) = status.target.clone() else { continue };
                // R15: a target from another placement is dropped.
                if (Some(target.epoch), target.revision) != (status.epoch.or(Some(17)), status.revision) {
                    continue;
                }
                followed.push(format!("{} {} {}", target.state, target.server, target.operation).trim().to_string());
                let (phase, here) = (status.phase.unwrap_or(GroupPhase::Offline), status.server.clone());
                let hold: &[&str] = if target.operation.is_empty() { &[] } else { &["Stopped"] };
                match (target.state, phase) {
                    (GroupState::Offline, GroupPhase::Offline) => world.placed(name, phase, None, hold).await,
                    (GroupState::Online, GroupPhase::Offline) => {
                        world.placed(name, GroupPhase::Starting, Some(&target.server), &[]).await;
                        world.placed(name, GroupPhase::Online, Some(&target.server), &[]).await;
                    }
                    (GroupState::Online, GroupPhase::Online) if here.as_deref() == Some(&target.server) => {}
                    _ => {
                        world.placed(name, GroupPhase::Stopping, here.as_deref(), &[]).await;
                        let hold = if target.state == GroupState::Offline { hold } else { &[] };
                        world.placed(name, GroupPhase::Offline, None, hold).await;
                        // A move outlives the target that asked for it.
                        if target.state == GroupState::Online {
                            world.placed(name, GroupPhase::Starting, Some(&target.server), &[]).await;
                            world.placed(name, GroupPhase::Online, Some(&target.server), &[]).await;
                        }
                    }
                }
            }
            followed
        });
        Followers { stop, task }
    }

    fn handle(&self) -> Self {
        Self {
            client: self.client.clone(),
            store: TempStore::new().expect("an unused store"),
            _server: self._server.clone(),
            serving: tokio::spawn(async {}),
        }
    }

    pub async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await.expect("a list");
        list.items.iter().map(ResourceExt::name_any).collect()
    }
}

/// Agents at work.
pub struct Followers {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<String>>,
}

impl Followers {
    /// Ends them; the targets that they followed, repeated ones once.
    pub async fn end(self) -> Vec<String> {
        let _ = self.stop.send(());
        let mut followed = self.task.await.expect("no panic");
        followed.dedup();
        followed
    }
}

/// Waits for something with a deadline.
pub async fn wait<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the type fits")
}

/// State and reason of a condition.
pub fn condition(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition], type_: &str) -> String {
    conditions::get(conditions, type_).map_or("absent".into(), |c| format!("{}/{}", c.status, c.reason))
}

/// Two servers with a lock disk.
pub fn sub_cluster() -> Value {
    let lan = |name: &str, role: &str, net: u8| {
        json!({"name": name, "lan": {"role": role, "endpoints": [
            {"server": "db1", "address": format!("10.0.{net}.1")}, {"server": "db2", "address": format!("10.0.{net}.2")},
        ]}})
    };
    json!({
        "apiVersion": "holdfast.dev/v1", "kind": "SubCluster", "metadata": {"name": "db"},
        "spec": {
            "superCluster": {"name": "bank"},
            "servers": [{"name": "db1", "id": 1}, {"name": "db2", "id": 2}],
            "disks": [{"name": "san", "device": "/dev/disk/by-id/wwn-0x51", "area": {"device": "/dev/disk/by-id/wwn-0x51-part1"}}],
            "heartbeat": {"timeout": "1s", "paths": [
                lan("ic", "Interconnect", 0), lan("pub", "Public", 1), {"name": "area", "disk": {"disk": "san"}},
            ]},
            "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san"}},
            "watchdog": {"mode": "Disabled"},
        },
    })
}

/// A file system, an address, a program.
pub fn group(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": name},
        "spec": {"subCluster": "db", "resources": [
            {"name": "data", "filesystem": {"disk": "san", "device": format!("/dev/disk/by-id/wwn-{name}"),
                "mountPoint": format!("/srv/{name}"), "type": "ext4"}},
            {"name": "addr", "floatingIP": {"address": address, "path": "pub"}},
            {"name": "app", "process": {"command": ["/usr/bin/ledgerd"]}},
        ]},
    })
}

/// A super-cluster whose master is the sub-cluster `db`.
pub fn super_cluster() -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1", "kind": "SuperCluster", "metadata": {"name": "bank"},
        "spec": {"master": {"subCluster": "db", "group": "ledger"}},
    })
}
