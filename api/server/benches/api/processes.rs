//! The processes of a measurement: an etcd, and this program again as the server. They end with what holds them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_apiserver::keys::Keys;
use holdfast_apiserver::pki::Pki;
use holdfast_apiserver::tls::Tls;
use holdfast_apiserver::{Server, Settings};
use holdfast_store::Store;

use crate::Result;
use crate::client::Client;

/// Longest time that a process may need to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// An etcd of one member, with its data in a directory of its own.
pub(crate) struct Etcd {
    process: Child,
    port: u16,
    /// Removed at the end.
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// Starts it; it may need a moment to answer.
    pub(crate) fn start() -> Result<Etcd> {
        let directory = tempfile::tempdir()?;
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let (port, peer) = (free()?.port(), format!("http://{}", free()?));
        let client = format!("http://127.0.0.1:{port}");
        let process = Command::new("etcd")
            .args(["--name", "one", "--log-level", "error", "--logger", "zap", "--data-dir"])
            .arg(directory.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run etcd: {error}; install the package etcd-server"))?;
        Ok(Etcd { process, port, _directory: directory })
    }

    fn spec(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port)
    }

    /// A connection of this process's own.
    pub(crate) async fn store(&self) -> Result<Arc<dyn Store>> {
        let store = holdfast_store::open(&self.spec(), Path::new("/"), None)?;
        let begin = Instant::now();
        while let Err(error) = store.revision().await {
            if begin.elapsed() > PATIENCE {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(store)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// The API server.
pub(crate) struct Api {
    process: Child,
    /// To send it requests as its administrator.
    pub(crate) client: Client,
    directory: tempfile::TempDir,
}

impl Api {
    /// Starts one on an etcd, or on the embedded store, and waits until it is ready.
    pub(crate) async fn start(etcd: Option<&Etcd>) -> Result<Api> {
        let store = match etcd {
            Some(etcd) => {
                etcd.store().await?;
                etcd.spec()
            }
            None => "sqlite".into(),
        };
        let directory = tempfile::tempdir()?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", &store])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("the server has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let Ok(address) = line.trim().parse::<SocketAddr>() else {
            end(&mut process);
            return Err("the server did not become ready".into());
        };
        let client = Client::new(address, &directory.path().join("pki"))?;
        Ok(Api { process, client, directory })
    }

    /// Its resident memory in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("VmRSS is missing")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// A store of the same kind as the embedded one, for itself.
    pub(crate) fn beside(&self) -> Result<Arc<dyn Store>> {
        let directory: PathBuf = self.directory.path().join("beside");
        std::fs::create_dir_all(&directory)?;
        Ok(holdfast_store::open("sqlite", &directory, None)?)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn end(process: &mut Child) {
    // It ended by itself: nothing is left to do.
    let _ = process.kill();
    let _ = process.wait();
}

/// What the server process does: serves on a free port, which it prints when it is ready.
pub(crate) async fn serve(store: &str, directory: &Path) -> Result<()> {
    let store = holdfast_store::open(store, directory, None)?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let keys = Keys::load_or_create(directory)?;
    let tls = Arc::new(Tls::new(&Pki::load(directory, address, &[])?)?);
    let server = Server::new(Settings::new(store, keys)?)?;
    let ready = async {
        server.ready().await;
        println!("{address}");
        std::future::pending().await
    };
    tokio::select! {
        outcome = server.serve(listener, tls, std::future::pending()) => Ok(outcome?),
        () = ready => Ok(()),
    }
}
