//! A quorum server as an administrator sets it up, and the lock on it as agents use it: the real program, a real store,
//! TLS and credentials in between.

mod kubernetes;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use holdfast_agent::inbox::{Event, Inbox};
use holdfast_agent::paths::quorum::{QuorumServer, QuorumWiring};
use holdfast_agent::quorum::access::{Access, AccessError, Credentials};
use holdfast_core::Input;
use holdfast_core::config::LockKind;
use holdfast_core::lock::{LockLook, LockOp, LockRecord};
use holdfast_core::names::{AcceptorId, ChainId, ClusterId};
use holdfast_core::settings::LockPlace;
use holdfast_core::view::{Ballot, View};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

fn holdfast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast")).args(args).env_remove("KUBECONFIG").output().expect("it runs")
}

#[track_caller]
fn check(args: &[&str], status: i32, expected: &str) -> String {
    let output = holdfast(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}{err}");
    assert!(out.contains(expected) || err.contains(expected), "{args:?}: no {expected:?} in\n{out}{err}");
    out
}

/// A running `holdfast quorum-server`; killed when dropped.
struct Witness {
    child: Child,
    directory: tempfile::TempDir,
    url: String,
}

impl Witness {
    fn start() -> Witness {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["quorum-server", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let url = line.strip_prefix("ready: ").and_then(|rest| rest.split(',').next()).expect("its address").to_owned();
        Witness { child, directory, url }
    }

    fn data_dir(&self) -> &str {
        self.directory.path().to_str().expect("a name")
    }

    fn admin(&self) -> String {
        format!("{}/admin.kubeconfig", self.data_dir())
    }

    fn create(&self, lock: &str) {
        check(&["lock", "create", lock, "--kubeconfig", &self.admin()], 0, "lock ");
    }

    /// The credentials of a lock, as the agent finds them in the Secret.
    fn credentials(&self, lock: &str) -> Credentials {
        let out = self.directory.path().join("secret.yaml");
        let (path, data) = (out.to_str().expect("a name"), self.data_dir());
        check(&["lock", "credentials", lock, "--data-dir", data, "--secret", "ha/q", "--out", path], 0, "Secret ha/q");
        let secret: Value = serde_yaml::from_str(&std::fs::read_to_string(&out).expect("written")).expect("YAML");
        let entries = secret["stringData"].as_object().expect("entries").iter();
        let bytes = |text: &Value| text.as_str().expect("a text").as_bytes().to_vec();
        Credentials::Secret(entries.map(|(name, text)| (name.clone(), bytes(text))).collect())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn open(url: &str, credentials: &Credentials, lock: &str) -> Access {
    let (namespace, name) = lock.split_once('/').expect("a namespace");
    Access::new(credentials.client(url).await.expect("a client"), url, namespace, name)
}

fn record(lock: AcceptorId, cluster: u128, sequence: u64, round: u32) -> LockRecord {
    let view = View {
        cluster: ClusterId(cluster),
        lineage: 1,
        chain: ChainId(1),
        epoch: 5,
        members: BTreeMap::new(),
        acceptors: BTreeMap::new(),
        unanimous: false,
        stopped: false,
        started: false,
        forced: false,
        detached: BTreeMap::new(),
        departed: BTreeMap::new(),
        config_generation: 1,
        settings: Default::default(),
    };
    LockRecord {
        cluster: view.cluster,
        lock,
        boot_counter: 1,
        sequence,
        lineage: 1,
        epoch: 5,
        ballot: Ballot { round, proposer: 1 },
        accepted: None,
        lean: 0,
        claim: 0,
        view,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_swap_at_the_same_time_lose_nothing_and_one_of_two_ballots_sees_the_other() {
    let witness = Witness::start();
    witness.create("ha/db");
    swaps_at_the_same_time(&witness.url, &witness.credentials("ha/db"), &witness.admin()).await;
}

/// Four servers use the lock ha/db at once, on whatever API server it is.
async fn swaps_at_the_same_time(url: &str, credentials: &Credentials, admin: &str) {
    let lock = open(url, credentials, "ha/db").await.swap(1, None).await.expect("a look").lock;
    let mut tasks = Vec::new();
    for slot in 1..=4_u8 {
        let mut access = open(url, credentials, "ha/db").await;
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for sequence in 1..=10 {
                let object = access.swap(slot, Some(&record(lock, 7, sequence, 3))).await.expect("a swap");
                assert_eq!(object.entries[&slot].sequence, sequence, "the own record is in what is returned");
                seen.push((object.counter, object.entries.len()));
            }
            seen
        }));
    }
    let mut counters = Vec::new();
    let mut first = Vec::new();
    for task in tasks {
        let seen = task.await.expect("it ends");
        first.push(seen[0].1);
        counters.extend(seen.into_iter().map(|(counter, _)| counter));
    }
    counters.sort_unstable();
    assert_eq!(counters, (2..=41).collect::<Vec<u64>>(), "every swap was another one");
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3, 4], "of two ballots one is always written first, and the other sees it");
    check(&["lock", "inspect", "ha/db", "--kubeconfig", admin], 0, "swapped 41 times");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_lock_is_never_made_and_one_that_was_made_again_is_another_one() {
    let witness = Witness::start();
    let credentials = witness.credentials("ha/db");
    let mut access = open(&witness.url, &credentials, "ha/db").await;
    let error = access.swap(1, None).await.expect_err("there is none");
    assert!(matches!(error, AccessError::Absent { .. }), "{error}");
    assert!(error.to_string().contains("holdfast lock create ha/db"), "{error}");
    let admin = witness.admin();
    check(&["lock", "inspect", "ha/db", "--kubeconfig", &admin], 1, "there is no Lease ha/db");

    witness.create("ha/db");
    let lock = access.swap(1, None).await.expect("a look").lock;
    access.swap(1, Some(&record(lock, 7, 1, 3))).await.expect("a swap");
    check(&["lock", "create", "ha/db", "--kubeconfig", &admin], 1, "a lock in use");
    let foreign = access.swap(2, Some(&record(lock, 8, 1, 0))).await.expect_err("somebody else's");
    assert!(foreign.to_string().contains("in use by the sub-cluster"), "{foreign}");
    check(&["lock", "create", "ha/db", "--replace", "--kubeconfig", &admin], 0, "lock ");
    let error = access.swap(1, Some(&record(lock, 7, 2, 4))).await.expect_err("another lock");
    assert!(error.to_string().contains("it was made anew"), "{error}");
    let look = access.swap(1, None).await.expect("a look");
    assert!(look.lock != lock && look.entries.is_empty(), "blank, and with another identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_one_lock_and_the_server_has_nothing_else() {
    let witness = Witness::start();
    witness.create("ha/db");
    witness.create("ha/web");
    let credentials = witness.credentials("ha/web");
    let mut foreign = open(&witness.url, &credentials, "ha/db").await;
    let error = foreign.swap(1, None).await.expect_err("not theirs");
    assert!(
        matches!(error, AccessError::Forbidden { .. }) && error.to_string().contains("holdfast:lock:ha:web"),
        "{error}"
    );
    open(&witness.url, &credentials, "ha/web").await.swap(1, None).await.expect("theirs");
    let nobody = Credentials::Missing("q".into()).client(&witness.url).await.err().expect("no credentials");
    assert!(nobody.to_string().contains("Secret q was not read yet"), "{nobody}");
    let admin = witness.admin();
    check(&["get", "secrets", "--kubeconfig", &admin], 1, "secrets");
    check(&["get", "leases", "-n", "ha", "--kubeconfig", &admin], 0, "web");
    check(&["lock", "create", "nothing", "--kubeconfig", &admin], 1, "NAMESPACE/NAME");
    let none = ["lock", "credentials", "ha/db", "--data-dir", "/nonexistent", "--secret", "ha/q", "--out", "/dev/null"];
    check(&none, 1, "start `holdfast quorum-server` once");
}

/// A door to the quorum server that can lose what comes back, or hold up what goes in, without closing anything.
struct Door {
    url: String,
    mode: Arc<AtomicU8>,
}

const OPEN: u8 = 0;
const LOSE_ANSWERS: u8 = 1;
const HOLD_REQUESTS: u8 = 2;

impl Door {
    fn to(witness: &Witness) -> Door {
        let target: SocketAddr = witness.url.trim_start_matches("https://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let mode = Arc::new(AtomicU8::new(OPEN));
        let seen = mode.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(target).expect("the quorum server");
                for (mut from, mut to, blocked) in [
                    (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"), HOLD_REQUESTS),
                    (server, client, LOSE_ANSWERS),
                ] {
                    let mode = seen.clone();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16384];
                        while let Ok(count @ 1..) = from.read(&mut buffer) {
                            while mode.load(Ordering::SeqCst) == HOLD_REQUESTS && blocked == HOLD_REQUESTS {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            let lost = mode.load(Ordering::SeqCst) == LOSE_ANSWERS && blocked == LOSE_ANSWERS;
                            if !lost && to.write_all(&buffer[..count]).is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        });
        Door { url, mode }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn bounded(access: &mut Access, slot: u8, record: Option<&LockRecord>) -> bool {
    tokio::time::timeout(Duration::from_millis(500), access.swap(slot, record)).await.is_ok_and(|result| result.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_whose_answer_was_lost_is_seen_by_the_next_one() {
    let witness = Witness::start();
    witness.create("ha/db");
    let (credentials, door) = (witness.credentials("ha/db"), Door::to(&witness));
    let mut access = open(&door.url, &credentials, "ha/db").await;
    let lock = access.swap(1, None).await.expect("a look").lock;
    door.set(LOSE_ANSWERS);
    assert!(!bounded(&mut access, 1, Some(&record(lock, 7, 1, 3))).await, "no answer, no promise");
    door.set(OPEN);
    let mut again = open(&door.url, &credentials, "ha/db").await;
    let object = again.swap(1, None).await.expect("a look");
    assert_eq!(object.entries[&1].ballot.round, 3, "it had landed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_arrives_late_changes_nothing_after_a_mere_look() {
    let witness = Witness::start();
    witness.create("ha/db");
    let (credentials, door) = (witness.credentials("ha/db"), Door::to(&witness));
    let mut stuck = open(&door.url, &credentials, "ha/db").await;
    let lock = stuck.swap(1, None).await.expect("a look").lock;
    door.set(HOLD_REQUESTS);
    let late = tokio::spawn(async move { stuck.swap(1, Some(&record(lock, 7, 1, 3))).await.map(|o| o.counter) });
    // The next process of the same server looks, finds nothing of it, and so may rely on that for ever.
    let mut next = open(&witness.url, &credentials, "ha/db").await;
    let looked = next.swap(1, None).await.expect("a look");
    assert!(looked.entries.is_empty());
    door.set(OPEN);
    // The late one meets a newer version: it is not done. The old process, which still lives here, reads again and swaps
    // on top of what it finds.
    let counter = tokio::time::timeout(LIMIT, late).await.expect("it ends").expect("no panic").expect("a swap");
    assert_eq!(counter, looked.counter + 1, "it was done on top of the look, not below it");
}

fn answer(events: &std::sync::mpsc::Receiver<Event>) -> (u64, Result<LockLook, String>) {
    match events.recv_timeout(LIMIT).expect("an answer") {
        Event::Input(Input::Lock { token, result }) => (token, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hung_quorum_server_costs_the_time_of_one_access_and_the_next_address_is_tried() {
    let witness = Witness::start();
    witness.create("ha/db");
    // Takes connections and never says anything.
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("https://{}", hung.local_addr().expect("an address"));
    let timeout = Duration::from_millis(700);
    let wiring = QuorumWiring {
        urls: vec![silent, witness.url.clone()],
        namespace: "ha".into(),
        name: "db".into(),
        slot: 1,
        timeout,
        place: LockPlace { kind: LockKind::QuorumServer, place: 1 },
        credentials: witness.credentials("ha/db"),
    };
    let (inbox, events) = Inbox::new();
    let server = QuorumServer::start(wiring, inbox).expect("it starts");
    let begun = Instant::now();
    server.lock(1, LockOp::Look).expect("taken");
    let (token, result) = answer(&events);
    let error = result.expect_err("nobody answers");
    assert!(token == 1 && error.contains("has not answered within"), "{error}");
    assert!((timeout..timeout * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(server.health().error.is_some());
    server.lock(2, LockOp::Look).expect("taken");
    let look = answer(&events).1.expect("the other address answers");
    assert_eq!(look.counter, Some(1));
    assert_eq!((server.health().url, server.health().error), (witness.url.clone(), None));
}

#[test]
fn an_unusable_data_directory_is_told() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path: PathBuf = Path::new(file.path()).join("x");
    let args = ["quorum-server", "--listen", "127.0.0.1:0", "--data-dir", path.to_str().expect("a name")];
    check(&args, 1, "cannot make the data directory");
}
