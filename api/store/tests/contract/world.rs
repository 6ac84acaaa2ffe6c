//! The backends under test: where their data is, how they are opened, killed and started again.

use std::fmt::Debug;
use std::future::Future;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_store::testing::signal;
use holdfast_store::{Event, Store, WatchStream, open};

const ETCD: &str = "/usr/bin/etcd";

/// A place for data, and the process that serves it, if there is one.
pub(crate) struct World {
    dir: tempfile::TempDir,
    etcd: Option<Etcd>,
}

struct Etcd {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl World {
    pub(crate) fn sqlite() -> Self {
        Self { dir: tempdir(), etcd: None }
    }

    pub(crate) fn etcd() -> Self {
        assert!(
            std::path::Path::new(ETCD).exists(),
            "{ETCD} is missing: install the package etcd-server (apt-get install etcd-server)"
        );
        let etcd = Etcd { client: free_port(), peer: free_port(), process: None };
        let mut world = Self { dir: tempdir(), etcd: Some(etcd) };
        world.start();
        world
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.etcd.is_none()
    }

    pub(crate) fn spec(&self) -> String {
        match &self.etcd {
            None => "sqlite".to_owned(),
            Some(etcd) => format!("etcd://127.0.0.1:{}", etcd.client),
        }
    }

    /// Opens the store and waits until it answers.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        let store = open(&self.spec(), self.dir(), None).expect("the store opens");
        eventually("the store answers", async || store.revision().await).await;
        store
    }

    /// Starts the serving process.
    pub(crate) fn start(&mut self) {
        let Some(etcd) = &mut self.etcd else { return };
        let (client, peer) = (format!("http://127.0.0.1:{}", etcd.client), format!("http://127.0.0.1:{}", etcd.peer));
        let process = Command::new(ETCD)
            .args(["--name", "one", "--data-dir"])
            .arg(self.dir.path().join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--log-level", "error", "--logger", "zap"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        etcd.process = Some(process);
    }

    /// Kills the serving process like a power cut of the program: no signal handler runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.etcd.as_mut().and_then(|etcd| etcd.process.take()) {
            process.kill().expect("etcd is killed");
            process.wait().expect("etcd has ended");
        }
    }

    /// Freezes (`STOP`) or thaws (`CONT`) the serving process.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.etcd.as_ref().and_then(|etcd| etcd.process.as_ref()).expect("etcd runs");
        signal(process, name).expect("the signal works");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Repeats until success, for at most 30 s.
pub(crate) async fn eventually<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{what}: not within 30 s, last {error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Fails the test if `future` takes longer than 60 s.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 60 s"),
    }
}

/// Takes events from a watch until there are `count`; checks that no revision is spread over two batches.
pub(crate) async fn take(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        let batch = in_time("events of a watch", watch.next()).await.expect("the watch goes on").expect("no error");
        let (last, next) =
            (events.last().map_or(0, Event::revision), batch.first().expect("a batch is not empty").revision());
        assert!(last < next, "a batch begins with revision {next} after {last}");
        events.extend(batch);
    }
    events
}

pub(crate) fn text(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}
