//! Two real loops with real ledgers, LANs over loopback and a lock disk in a file; only what operations do is made up.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;

use holdfast_core::durable::Durable;
use holdfast_core::names::{AcceptorId, BootId, ClusterId};
use holdfast_core::status::{ClusterPhase, GroupPhase, MemberState};
use holdfast_core::{Action, Outcome};

use super::*;
use crate::convert::config::adoption;
use crate::convert::config::tests::{group, sub_cluster};
use crate::disk::format::{Force, format};
use crate::inbox::Inbox;
use crate::ledger::LedgerFile;
use crate::spec_cache::Specs;
use crate::testing::{keys, wait};

/// What runs where, as the operations left it: the evidence from outside the core.
type World = Arc<Mutex<BTreeMap<String, BTreeSet<ServerName>>>>;

struct Fake {
    me: ServerName,
    inbox: Inbox,
    world: World,
    deadline: Arc<Mutex<Instant>>,
}

impl Effects for Fake {
    fn adopt(&mut self, _: &Adoption) {}

    fn operate(&mut self, operation: Operation) {
        let mut world = self.world.lock().unwrap();
        let on = world.entry(operation.resource.0).or_default();
        match operation.action {
            Action::Start => {
                assert!(clock::now() < *self.deadline.lock().unwrap(), "a start without a lease");
                on.insert(self.me.clone());
                assert_eq!(on.len(), 1, "on two servers at once");
            }
            Action::Stop => drop(on.remove(&self.me)),
            Action::Probe | Action::Monitor => {}
        }
        let outcome = if on.contains(&self.me) { Outcome::Running } else { Outcome::Stopped };
        let done = Input::ResourceDone { op: operation.op, outcome, took: Duration::from_millis(1) };
        assert!(self.inbox.offer(done));
    }

    fn check(&mut self, check: Check) {
        assert!(self.inbox.offer(Input::ResourceDone {
            op: check.op,
            outcome: Outcome::Running,
            took: Duration::ZERO
        }));
    }

    fn fence_devices(&self) -> crate::fencing::View {
        Default::default()
    }

    fn fence(&mut self, _: OpId, _: &ServerName, _: Option<holdfast_core::orders::Power>) {}

    fn cancel_fence(&mut self, _: OpId) {}

    fn power_off(&mut self, _: &str) {}

    fn program(&self, _: &GroupName, _: &ResourceName) -> Option<&api::Resource> {
        None
    }

    fn keep_program(&mut self, _: &GroupName, _: &ResourceName, _: api::Resource) {}

    fn forget_program(&mut self, _: &GroupName, _: &ResourceName) {}

    fn mended(&mut self) -> Vec<GroupName> {
        Vec::new()
    }

    fn released(&mut self, _: &GroupName) {}

    fn deadline(&mut self, soft: Instant, _: Instant, _: Instant) {
        *self.deadline.lock().unwrap() = soft;
    }

    fn checkpoint(&mut self, _: Instant) -> Result<(), String> {
        Ok(())
    }
}

struct Server {
    inbox: Inbox,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    thread: JoinHandle<Ended>,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(name: &str, id: u128, specs: &Specs, world: &World) -> Server {
        let data = tempfile::tempdir().unwrap();
        let boot = Boot {
            server: name.into(),
            boot: BootId(id),
            is_virtual: false,
            deadline: Default::default(),
            capacity: None,
            fresh_cluster: ClusterId(id),
        };
        let durable = Durable::fresh(AcceptorId(id), boot.boot);
        let (inbox, events) = Inbox::new();
        let answers = inbox.clone();
        let ledger = Ledger::start(
            LedgerFile::create(data.path(), &durable).unwrap(),
            move |token| assert!(answers.deliver(Event::Input(Input::Durable { token }))),
            |e| panic!("{e}"),
        );
        let fake = Fake {
            me: name.into(),
            inbox: inbox.clone(),
            world: world.clone(),
            deadline: Arc::new(Mutex::new(Instant::ZERO)),
        };
        let (publish, snapshots) = watch::channel(None);
        let driver = Driver::new(
            Core::new(clock::now(), boot.clone(), durable),
            boot,
            events,
            ledger.unwrap(),
            Paths::new(keys(1), Default::default(), inbox.clone()),
            fake,
            Notes::default(),
            publish,
        );
        let (adoption, left_out) = adoption(specs, &name.into(), None, &[], std::path::Path::new("/c")).unwrap();
        assert_eq!(left_out, []);
        assert!(inbox.deliver(Event::Adopt(Box::new(adoption))));
        Server { inbox, snapshots, thread: std::thread::spawn(|| driver.run()), _data: data }
    }

    fn status(&self) -> Option<Status> {
        self.snapshots.borrow().as_ref().map(|s| s.status.clone())
    }
}

fn specs(area: &Path) -> Specs {
    let port = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (ic, public) = (port(), port());
    let sub_cluster = sub_cluster(|o| {
        let paths = &mut o["spec"]["heartbeat"]["paths"];
        for (path, port) in [(0, ic), (1, public)] {
            paths[path]["lan"]["port"] = port.into();
            paths[path]["lan"]["interface"] = serde_json::Value::Null;
            paths[path]["lan"]["endpoints"][0]["address"] = "127.0.0.1".into();
            paths[path]["lan"]["endpoints"][1]["address"] = "127.0.0.2".into();
        }
        // Long enough for a busy machine.
        o["spec"]["heartbeat"]["timeout"] = "2s".into();
        o["spec"]["disks"][0]["area"]["device"] = area.display().to_string().into();
    });
    let group = group(|_| {});
    Specs {
        sub_cluster: Some(Arc::new(sub_cluster)),
        groups: [("pg".into(), Arc::new(group))].into(),
        keys: BTreeMap::new(),
        ..Specs::default()
    }
}

#[test]
fn two_agents_form_a_sub_cluster_run_a_group_and_hand_it_over() {
    let area = tempfile::NamedTempFile::new().unwrap();
    area.as_file().set_len(2 << 20).unwrap();
    format(area.path(), 4096, Force::No).unwrap();
    let specs = specs(area.path());
    let world = World::default();
    let a = Server::start("a", 11, &specs, &world);
    let b = Server::start("b", 22, &specs, &world);

    let of = |name: &str| world.lock().unwrap().get(name).cloned().unwrap_or_default();
    wait("the group on its first server", || {
        let status = a.status()?;
        let placed = status.coordinator.as_ref()?.groups.get("pg")?;
        (placed.phase == GroupPhase::Online && status.phase == ClusterPhase::Running).then_some(())
    });
    for resource in ["data", "postgres", "addr"] {
        assert_eq!(of(resource), ["a".into()].into(), "{resource}");
    }
    let status = wait("both as active members with a lease over all three paths", || {
        let status = b.status()?;
        let peer = status.peers.get("a")?;
        let connected = peer.state == MemberState::Active && peer.paths.values().filter(|p| p.two_way).count() == 3;
        (connected && status.leased).then_some(status)
    });
    assert_eq!(status.lock, Some(Ok(())));

    assert!(a.inbox.deliver(Event::Input(Input::Leave)));
    let ended = a.thread.join().unwrap();
    assert!(matches!(ended, Ended::Left), "{ended}");
    assert!(!of("data").contains("a"), "everything is stopped before the process ends");
    wait("the group on the other server", || (of("addr") == ["b".into()].into()).then_some(()));

    assert!(b.inbox.deliver(Event::Input(Input::Leave)));
    assert!(matches!(b.thread.join().unwrap(), Ended::Left));
    assert!(world.lock().unwrap().values().all(BTreeSet::is_empty));
}

/// R21 with real sockets and files: a longer timeout, another lock, one LAN on another port and one under another name,
/// all at once; then the old timeout again. Nothing stops, and a takeover afterwards rests on the new lock.
#[test]
fn a_running_sub_cluster_gets_other_times_paths_and_another_lock() {
    let made = || {
        let area = tempfile::NamedTempFile::new().unwrap();
        area.as_file().set_len(2 << 20).unwrap();
        let header = format(area.path(), 4096, Force::No).unwrap();
        (area, header.lock)
    };
    let ((old_area, old_lock), (new_area, new_lock)) = (made(), made());
    let first = specs(old_area.path());
    let world = World::default();
    let (a, b) = (Server::start("a", 11, &first, &world), Server::start("b", 22, &first, &world));
    let of = |name: &str| world.lock().unwrap().get(name).cloned().unwrap_or_default();
    wait("the group on its first server", || (of("addr") == ["a".into()].into()).then_some(()));
    let formed = wait("both in the view", || {
        a.status()?.view.filter(|view| b.status().and_then(|s| s.view) == Some(view.clone()))
    });
    assert_eq!(formed.acceptors.get(&holdfast_core::view::Acceptor::Lock), Some(&old_lock));

    let mut object = (**first.sub_cluster.as_ref().unwrap()).clone();
    object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
    object.spec.heartbeat.timeout = "3s".parse().unwrap();
    object.spec.disks[0].area.as_mut().unwrap().device = new_area.path().display().to_string();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    object.spec.heartbeat.paths[0].lan.as_mut().unwrap().port = port;
    object.spec.heartbeat.paths[1].name = "net".into();
    let second = Specs {
        sub_cluster: Some(Arc::new(object.clone())),
        former: first.sub_cluster.iter().cloned().collect(),
        ..first.clone()
    };
    let give = |server: &Server, name: &str, specs: &Specs| {
        let (adoption, _) = adoption(specs, &name.into(), None, &[], Path::new("/c")).unwrap();
        assert!(server.inbox.deliver(Event::Adopt(Box::new(adoption))));
    };
    give(&a, "a", &second);
    let waiting = wait("the reason why it waits", || a.status()?.config_pending);
    assert!(waiting.starts_with("b holds generation"), "{waiting}");
    give(&b, "b", &second);
    let in_force = |server: &Server, generation: Option<i64>| {
        let view = server.status()?.view?;
        (Some(view.config_generation) == generation.and_then(|g| u64::try_from(g).ok())).then_some(view)
    };
    for server in [&a, &b] {
        let view = wait("the second specification in force", || in_force(server, object.metadata.generation));
        assert_eq!(view.settings.timeout, Duration::from_secs(3));
        assert_eq!(view.acceptors.get(&holdfast_core::view::Acceptor::Lock), Some(&new_lock));
        wait("three paths both ways, under their new names", || {
            let status = server.status()?;
            let (_, peer) = status.peers.first_key_value()?;
            let names: Vec<&str> = peer.paths.iter().filter(|(_, p)| p.two_way).map(|(n, _)| n.0.as_str()).collect();
            (names.len() == 3 && peer.paths.len() == 3 && names.contains(&"net")).then_some(())
        });
    }
    assert_eq!(of("data"), ["a".into()].into(), "nothing has moved");

    object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
    object.spec.heartbeat.timeout = "2s".parse().unwrap();
    let third = Specs {
        sub_cluster: Some(Arc::new(object.clone())),
        former: second.sub_cluster.iter().cloned().collect(),
        ..first
    };
    let (begun, wait_before) = (clock::now(), a.status().unwrap().view.unwrap().members["a"].timing.takeover_wait);
    give(&a, "a", &third);
    give(&b, "b", &third);
    wait("the third specification in force", || in_force(&b, object.metadata.generation));
    assert!(clock::now().since(begun) >= wait_before, "the wait fell while leases of before could still stand");

    assert!(a.inbox.deliver(Event::Input(Input::Leave)));
    assert!(matches!(a.thread.join().unwrap(), Ended::Left));
    wait("the group on the other server", || (of("addr") == ["b".into()].into()).then_some(()));
    assert!(b.inbox.deliver(Event::Input(Input::Leave)));
    assert!(matches!(b.thread.join().unwrap(), Ended::Left));
}
